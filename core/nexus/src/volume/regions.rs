//! A set of regions, as runs: a mark map in memory.

use alloc::vec::Vec;

/// Regions, as runs that neither touch nor overlap, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Regions {
    /// First region, and the one after the last.
    runs: Vec<(u32, u32)>,
}

impl Regions {
    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.runs.iter().map(|(first, end)| u64::from(end - first)).sum()
    }

    /// The lowest.
    pub(crate) fn first(&self) -> Option<u32> {
        self.runs.first().map(|(first, _)| *first)
    }

    /// The lowest that is not below `region`.
    pub(crate) fn next(&self, region: u32) -> Option<u32> {
        let at = self.runs.partition_point(|(_, end)| *end <= region);
        self.runs.get(at).map(|(first, _)| (*first).max(region))
    }

    /// Whether a region is in it.
    pub(crate) fn contains(&self, region: u32) -> bool {
        self.next(region) == Some(region)
    }

    /// Whether any of the regions from `first` to before `end` is in it.
    pub(crate) fn overlaps(&self, first: u32, end: u32) -> bool {
        self.next(first).is_some_and(|region| region < end)
    }

    /// All of them: first region, and the one after the last, each.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.runs.iter().copied()
    }

    /// Adds the regions from `first` to before `end`.
    pub(crate) fn insert(&mut self, first: u32, end: u32) {
        if first >= end {
            return;
        }
        let from = self.runs.partition_point(|(_, other)| *other < first);
        let to = self.runs.partition_point(|(other, _)| *other <= end);
        let (mut first, mut end) = (first, end);
        if let Some(touched) = self.runs.get(from..to).filter(|touched| !touched.is_empty()) {
            first = first.min(touched[0].0);
            end = end.max(touched[touched.len() - 1].1);
        }
        self.runs.splice(from..to, [(first, end)]);
    }

    /// Takes the regions from `first` to before `end` out.
    pub(crate) fn remove(&mut self, first: u32, end: u32) {
        let from = self.runs.partition_point(|(_, other)| *other <= first);
        let to = self.runs.partition_point(|(other, _)| *other < end);
        if from >= to || first >= end {
            return;
        }
        let before = (self.runs[from].0, first);
        let after = (end, self.runs[to - 1].1);
        let left = [before, after].into_iter().filter(|(first, end)| first < end);
        self.runs.splice(from..to, left);
    }

    /// Adds a list of first region and number of regions, as replicas send them, as far as it is
    /// inside `end` regions.
    pub(crate) fn extend(&mut self, list: &[(u32, u32)], end: u32) {
        for (first, count) in list {
            self.insert((*first).min(end), first.saturating_add(*count).min(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_set_that_a_naive_one_is() {
        let mut seed = 1u32;
        let mut draw = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for _ in 0..200 {
            let (mut set, mut naive) = (Regions::default(), [false; 40]);
            for _ in 0..60 {
                let (first, len, adds) = (draw(40), draw(6), draw(3) > 0);
                let end = (first + len).min(40);
                if adds {
                    set.insert(first, end)
                } else {
                    set.remove(first, end)
                }
                (first..end).for_each(|at| naive[at as usize] = adds);
                let has: Vec<bool> = (0..40).map(|at| set.contains(at)).collect();
                assert_eq!(has, naive);
                assert_eq!(set.len(), naive.iter().filter(|has| **has).count() as u64);
                let sorted = set.runs.windows(2).all(|pair| pair[0].1 < pair[1].0);
                assert!(sorted && set.runs.iter().all(|(first, end)| first < end), "{set:?}");
            }
        }
    }
}
