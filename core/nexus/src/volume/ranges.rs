//! Locks of byte ranges: overlapping writes to a volume queue here, so that every member applies
//! them in one order.
//!
//! Invariants:
//! 1. Ranges that are held do not overlap.
//! 2. Who waits is served in order: nobody passes one that waits for the same bytes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::Key;

/// Who holds a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A host's command.
    Op(Key),
    /// A segment of a resync, a rebuild or a repair.
    Segment(Key),
}

#[derive(Debug)]
struct Entry {
    first: u64,
    end: u64,
    holder: Holder,
    /// When it was granted, counted in grants; zero: it waits.
    granted: u64,
}

impl Entry {
    const fn overlaps(&self, first: u64, end: u64) -> bool {
        self.first < end && first < self.end
    }
}

/// All locks of a volume, in the order in which they were asked for. Their number is that of the
/// writes in work: a walk through so few is faster than a tree.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    entries: Vec<Entry>,
    grants: u64,
    shares: bool,
}

impl Ranges {
    /// Holds ranges whoever else does: [`crate::Plant::NoLock`].
    pub(crate) fn new(shares: bool) -> Self {
        Self { shares, ..Self::default() }
    }

    /// Asks for a range; tells whether it is held now.
    pub(crate) fn lock(&mut self, first: u64, end: u64, holder: Holder) -> bool {
        let free = self.shares || !self.entries.iter().any(|entry| entry.overlaps(first, end));
        self.grants += u64::from(free);
        let granted = if free { self.grants } else { 0 };
        self.entries.push(Entry { first, end, holder, granted });
        free
    }

    /// Gives a range back, or waits for it no more; adds those who hold theirs now to `woken`.
    pub(crate) fn unlock(&mut self, holder: Holder, woken: &mut VecDeque<Holder>) {
        let Some(at) = self.entries.iter().position(|entry| entry.holder == holder) else { return };
        let gone = self.entries.remove(at);
        for at in at..self.entries.len() {
            let (before, rest) = self.entries.split_at_mut(at);
            let entry = &mut rest[0];
            let waits = entry.granted == 0 && gone.overlaps(entry.first, entry.end);
            if waits && !before.iter().any(|other| other.overlaps(entry.first, entry.end)) {
                self.grants += 1;
                entry.granted = self.grants;
                woken.push_back(entry.holder);
            }
        }
    }

    /// Whether somebody holds its range.
    pub(crate) fn holds(&self, holder: Holder) -> bool {
        self.entries.iter().any(|entry| entry.holder == holder && entry.granted != 0)
    }

    /// Whether a range is held that was granted no later than the `upto`-th grant.
    pub(crate) fn is_held(&self, upto: u64) -> bool {
        self.entries.iter().any(|entry| (1..=upto).contains(&entry.granted))
    }

    /// Grants so far.
    pub(crate) const fn grants(&self) -> u64 {
        self.grants
    }

    /// Whether a host's write holds a part of this range that was granted no later than the
    /// `upto`-th grant: what was read beside it may not be on all members yet.
    pub(crate) fn is_unsettled(&self, first: u64, end: u64, upto: u64) -> bool {
        self.entries.iter().any(|entry| {
            let writes = matches!(entry.holder, Holder::Op(_));
            writes && (1..=upto).contains(&entry.granted) && entry.overlaps(first, end)
        })
    }

    /// Ranges that are held or waited for.
    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(index: u32) -> Holder {
        Holder::Op(Key { index, generation: 1 })
    }

    #[test]
    fn overlapping_ranges_are_held_one_after_the_other_and_in_order() {
        let (mut ranges, mut woken) = (Ranges::default(), VecDeque::new());
        assert!(ranges.lock(0, 8, op(0)));
        assert!(!ranges.lock(4, 12, op(1)));
        assert!(!ranges.lock(8, 16, op(2)), "it would pass the one before");
        assert!(ranges.lock(16, 20, op(3)));
        ranges.unlock(op(0), &mut woken);
        assert_eq!(woken, [op(1)]);
        ranges.unlock(op(1), &mut woken);
        assert_eq!(woken, [op(1), op(2)]);
    }

    #[test]
    fn one_that_waits_no_more_lets_those_behind_it_pass() {
        let (mut ranges, mut woken) = (Ranges::default(), VecDeque::new());
        assert!(ranges.lock(0, 8, op(0)));
        assert!(!ranges.lock(4, 12, op(1)));
        assert!(!ranges.lock(10, 16, op(2)));
        ranges.unlock(op(1), &mut woken);
        assert_eq!(woken, [op(2)]);
    }

    #[test]
    fn a_write_is_unsettled_for_those_who_read_beside_it() {
        let (mut ranges, mut woken) = (Ranges::default(), VecDeque::new());
        assert!(ranges.lock(0, 8, op(0)));
        let then = ranges.grants();
        assert!(ranges.is_unsettled(4, 12, then));
        assert!(!ranges.is_unsettled(8, 12, then));
        ranges.unlock(op(0), &mut woken);
        assert!(ranges.lock(4, 12, op(1)));
        assert!(!ranges.is_unsettled(4, 12, then), "it was sent after the value came");
    }
}
