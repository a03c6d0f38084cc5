//! Which regions may be marked on members, and since which flush nobody wrote to them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// Regions of a page of the table.
const PAGE: u32 = 64;
/// Pages that one look for quiet regions passes by, at most: it is a part of a turn, and a turn
/// must not cost what the volume is large.
const LOOK: usize = 16;

/// A region that may be marked.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    /// A mark may stand on a member.
    marked: bool,
    /// Writes in work.
    writes: u32,
    /// Number of the last flush that had been sent when a write to it was last sent, or settled.
    touched: u64,
}

fn new_page() -> Box<[Region; PAGE as usize]> {
    Box::new([Region::default(); PAGE as usize])
}

/// All regions that may be marked. A page is allocated when a region of it is first written, and
/// kept while one may be marked: writes to a hot set allocate nothing.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pages: BTreeMap<u32, Box<[Region; PAGE as usize]>>,
    marked: u64,
    /// Writes that were settled since marks were last cleared.
    pub(crate) writes: u64,
}

impl Written {
    /// Regions that may be marked.
    pub(crate) const fn len(&self) -> u64 {
        self.marked
    }

    fn region(&mut self, region: u32) -> &mut Region {
        let page = self.pages.entry(region / PAGE).or_insert_with(new_page);
        &mut page[(region % PAGE) as usize]
    }

    fn set(&mut self, at: u32) {
        let region = self.region(at);
        let new = !core::mem::replace(&mut region.marked, true);
        self.marked += u64::from(new);
    }

    /// Members told that these are marked.
    pub(crate) fn mark(&mut self, first: u32, end: u32) {
        for at in first..end {
            self.set(at);
        }
    }

    /// A write to these is sent; flush `flushes` was the last one that was.
    pub(crate) fn begin(&mut self, first: u32, end: u32, flushes: u64) {
        for at in first..end {
            self.set(at);
            let region = self.region(at);
            region.writes += 1;
            region.touched = flushes;
        }
    }

    /// A write to these is settled.
    pub(crate) fn end(&mut self, first: u32, end: u32, flushes: u64) {
        self.writes += 1;
        for at in first..end {
            let region = self.region(at);
            region.writes -= 1;
            region.touched = flushes;
        }
    }

    /// A copy to these is settled: no host wrote.
    pub(crate) fn settle(&mut self, first: u32, end: u32, flushes: u64) {
        self.end(first, end, flushes);
        self.writes -= 1;
    }

    /// At most `max` marked regions to which nobody wrote from before flush `flush` was sent until
    /// now, with neighbours together: first region, and number. From `from` on, in so many pages as
    /// one look passes by; and where to go on, if that was not the end. `early` counts those too
    /// that were written while the flush was on its way.
    fn quiet(&self, flush: u64, from: u32, max: u64, early: bool) -> (Runs, Option<u32>) {
        let mut runs = Runs::new();
        let mut left = max;
        let mut pages = self.pages.range(from / PAGE..);
        let looked = pages.by_ref().take(LOOK);
        let regions = looked.flat_map(|(page, regions)| (page * PAGE..).zip(regions.iter()));
        for (at, region) in regions.skip_while(|(at, _)| *at < from) {
            let quiet = early || (region.writes == 0 && region.touched < flush);
            if left == 0 || runs.is_full() {
                return (runs, Some(at));
            }
            if !region.marked || !quiet {
                continue;
            }
            left -= 1;
            match runs.last_mut() {
                Some((first, count)) if *first + *count == at => *count += 1,
                _ => runs.push((at, 1)),
            }
        }
        (runs, pages.next().map(|(page, _)| page * PAGE))
    }

    /// Every member cleared the marks of these, as of flush `flush`.
    pub(crate) fn cleaned(&mut self, first: u32, count: u32, flush: u64) {
        for at in first..first.saturating_add(count) {
            let Some(page) = self.pages.get_mut(&(at / PAGE)) else { continue };
            let region = &mut page[(at % PAGE) as usize];
            if region.marked && region.writes == 0 && region.touched < flush {
                region.marked = false;
                self.marked -= 1;
            }
            if page.iter().all(|region| !region.marked && region.writes == 0) {
                self.pages.remove(&(at / PAGE));
            }
        }
    }
}

/// Looks for quiet regions, a part of the table at a time.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// As of which flush.
    flush: u64,
    /// The next region to look at.
    next: u32,
    /// How often it came to the end since it last found one. The second time there is none.
    ends: u8,
}

impl Sweep {
    /// Whether there is none as of this flush. One that is not quiet now was written after that
    /// flush was sent, or is being written: it is not quiet before a later one.
    pub(crate) const fn is_over(&self, flush: u64) -> bool {
        self.flush == flush && self.ends > 1
    }

    /// Looks on.
    pub(crate) fn look(&mut self, written: &Written, flush: u64, max: u64, early: bool) -> Runs {
        if self.flush != flush {
            (self.flush, self.ends) = (flush, 0);
        }
        if self.is_over(flush) && !early {
            return Runs::new();
        }
        let (runs, next) = written.quiet(flush, self.next, max, early);
        if !runs.is_empty() {
            self.ends = 0;
        }
        self.ends = self.ends.saturating_add(u8::from(next.is_none()));
        self.next = next.unwrap_or(0);
        runs
    }
}

/// Runs of regions that one command names.
pub(crate) type Runs = arrayvec::ArrayVec<(u32, u32), 64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_quiet_over_a_flush_that_no_write_met() {
        let mut written = Written::default();
        written.begin(3, 5, 7);
        assert!(written.quiet(8, 0, 9, false).0.is_empty(), "in work");
        written.end(3, 5, 8);
        assert!(written.quiet(8, 0, 9, false).0.is_empty(), "it met the flush");
        assert_eq!(written.quiet(9, 0, 9, false).0[..], [(3, 2)]);
        assert_eq!(written.quiet(9, 4, 9, false).0[..], [(4, 1)]);
        written.begin(3, 4, 9);
        written.end(3, 4, 9);
        written.cleaned(3, 2, 9);
        assert_eq!(written.len(), 1, "one was written again after the flush");
        written.cleaned(3, 2, 10);
        assert_eq!((written.len(), written.pages.len()), (0, 0));
    }

    #[test]
    fn a_look_passes_by_a_part_of_the_table_and_none_is_looked_for_twice() {
        let mut written = Written::default();
        // None of them is quiet, but one, at the end.
        let regions = 100 * PAGE;
        for at in 0..regions {
            let flush = if at + 1 == regions { 7 } else { 8 };
            written.begin(at, at + 1, flush);
            written.end(at, at + 1, flush);
        }
        let (runs, next) = written.quiet(8, 0, 9, false);
        assert_eq!((runs.len(), next), (0, Some(LOOK as u32 * PAGE)));
        let mut sweep = Sweep::default();
        let looks = (0..).find(|_| !sweep.look(&written, 8, 9, false).is_empty());
        assert_eq!(looks, Some(100 / LOOK));
        written.cleaned(regions - 1, 1, 8);
        let mut look = || sweep.is_over(8) || !sweep.look(&written, 8, 9, false).is_empty();
        let looks = (0..).find(|_| look());
        assert_eq!(looks, Some(100usize.div_ceil(LOOK)), "it was at the end once before");
        assert!(sweep.is_over(8));
        assert_eq!(sweep.look(&written, 9, 9, false)[..], [(0, 9)], "a later flush counts");
        assert!(!sweep.is_over(9));
    }
}
