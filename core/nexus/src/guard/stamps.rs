//! When each region was written last, counted in flushes: what may be cleaned (replication.md,
//! Clearing marks).
//!
//! Invariants:
//! 1. The stamp of a region is the highest number of a flush that had begun when the last write to
//!    it began or ended.
//! 2. So if it is below `f`, and a flush `f` or higher has succeeded, that flush began after the
//!    last write had ended, and made it durable. Numbers may come in any order, and be left out.
//! 3. The stamp of a region that was cleaned is forgotten; since then it counts as written before
//!    the highest number that was forgotten. So there are stamps for marked regions alone.
//! 4. Nothing of it outlives the process: before the first flush after a start nothing is clean.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use crate::wire::REGION;

/// Regions of a page: 64 MiB, so that a page is made once for many writes.
const PAGE: u64 = 64;

/// The stamps of a replica.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// A page is there while a stamp in it is above `forgotten`.
    pages: BTreeMap<u64, Box<[u64; PAGE as usize]>>,
    /// Highest stamp that was forgotten.
    forgotten: u64,
    /// Highest number of a flush that began.
    begun: u64,
    /// Highest number of a flush that succeeded.
    ended: Option<u64>,
}

/// Regions that a range touches: first and last.
pub(super) const fn regions_of(offset: u64, len: u64) -> (u64, u64) {
    (offset / REGION, (offset + len - 1) / REGION)
}

impl Stamps {
    /// A write to these regions begins or ends.
    pub(super) fn wrote(&mut self, (first, last): (u64, u64)) {
        for region in first..=last {
            let page =
                self.pages.entry(region / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
            page[place(region)] = self.begun;
        }
    }

    /// A flush begins.
    pub(super) fn flush_begins(&mut self, number: u64) {
        self.begun = self.begun.max(number);
    }

    /// A flush succeeded.
    pub(super) fn flush_ended(&mut self, number: u64) {
        self.ended = self.ended.max(Some(number));
    }

    /// Those of these regions (first and number, ascending) whose content flush `number` made
    /// durable: they are cleaned now.
    pub(super) fn clean(&mut self, number: u64, regions: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let quiet = self.quiet(number, regions);
        for (first, count) in &quiet {
            let (first, end) = (u64::from(*first), u64::from(*first) + u64::from(*count));
            for page in first / PAGE..end.div_ceil(PAGE) {
                self.forget(page, first.max(page * PAGE)..end.min((page + 1) * PAGE));
            }
        }
        quiet
    }

    fn forget(&mut self, page: u64, regions: Range<u64>) {
        let Some(stamps) = self.pages.get_mut(&page) else { return };
        for region in regions {
            self.forgotten = self.forgotten.max(core::mem::take(&mut stamps[place(region)]));
        }
        if stamps.iter().all(|stamp| *stamp <= self.forgotten) {
            self.pages.remove(&page);
        }
    }

    fn quiet(&self, number: u64, regions: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut quiet = Vec::new();
        if self.ended.is_none_or(|ended| number > ended) {
            return quiet;
        }
        for (first, count) in regions {
            let (mut at, end) = (u64::from(*first), u64::from(*first) + u64::from(*count));
            while at < end {
                let until = end.min((at / PAGE + 1) * PAGE);
                self.quiet_of_page(number, at..until, &mut quiet);
                at = until;
            }
        }
        quiet
    }

    fn quiet_of_page(&self, number: u64, regions: Range<u64>, quiet: &mut Vec<(u32, u32)>) {
        let Some(page) = self.pages.get(&(regions.start / PAGE)) else {
            let is = number > self.forgotten;
            return add(quiet, regions.start, regions.end - regions.start, is);
        };
        for region in regions {
            add(quiet, region, 1, page[place(region)].max(self.forgotten) < number);
        }
    }
}

/// Position of a region in its page.
const fn place(region: u64) -> usize {
    (region % PAGE) as usize
}

/// Adds regions behind all that were added before, if they are quiet.
#[expect(clippy::cast_possible_truncation, reason = "regions came as 32 bits")]
fn add(quiet: &mut Vec<(u32, u32)>, first: u64, count: u64, is: bool) {
    let (first, count) = (first as u32, count as u32);
    match quiet.last_mut() {
        _ if !is => {}
        Some(last) if last.0 + last.1 == first => last.1 += count,
        _ => quiet.push((first, count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_quiet(stamps: &Stamps, region: u32, number: u64) -> bool {
        stamps.quiet(number, &[(region, 1)]) == [(region, 1)]
    }

    #[test]
    fn runs_of_quiet_regions_are_told_across_pages() {
        let mut stamps = Stamps::default();
        stamps.wrote((60, 70));
        stamps.flush_begins(3);
        stamps.wrote((66, 66));
        stamps.flush_ended(3);
        assert_eq!(stamps.quiet(3, &[(0, 10), (50, 100)]), [(0, 10), (50, 16), (67, 83)]);
        assert_eq!(stamps.quiet(4, &[(0, 10)]), []);
        assert_eq!(stamps.quiet(0, &[(0, 10)]), []);
    }

    #[test]
    fn a_region_is_quiet_over_a_flush_that_began_after_its_last_write_ended() {
        let mut stamps = Stamps::default();
        assert!(!is_quiet(&stamps, 0, 1), "no flush was seen");
        stamps.wrote((0, 1));
        stamps.flush_begins(5);
        stamps.wrote((1, 1));
        assert!(!is_quiet(&stamps, 0, 5), "it has not ended");
        stamps.flush_ended(5);
        assert!(is_quiet(&stamps, 0, 5) && !is_quiet(&stamps, 1, 5));
        assert!(!is_quiet(&stamps, 0, 6), "never seen");
        stamps.flush_begins(7);
        stamps.flush_ended(7);
        assert!(is_quiet(&stamps, 1, 7) && !is_quiet(&stamps, 1, 5));
        assert!(is_quiet(&stamps, 900, 7), "never written");
    }

    #[test]
    fn flushes_that_come_out_of_order_count_for_less() {
        let mut stamps = Stamps::default();
        stamps.flush_begins(9);
        stamps.wrote((0, 0));
        stamps.flush_begins(8);
        stamps.flush_ended(8);
        assert!(!is_quiet(&stamps, 0, 8), "9 had begun before the write");
        stamps.flush_ended(9);
        assert!(!is_quiet(&stamps, 0, 9) && !is_quiet(&stamps, 0, 8));
    }

    #[test]
    fn regions_that_are_clean_need_no_stamps() {
        let mut stamps = Stamps::default();
        stamps.flush_begins(3);
        stamps.wrote((60, 70));
        stamps.flush_begins(4);
        stamps.wrote((70, 70));
        stamps.flush_ended(4);
        assert_eq!(stamps.clean(4, &[(0, 200)]), [(0, 70), (71, 129)]);
        assert_eq!(stamps.pages.len(), 1, "one region was written since");
        stamps.flush_begins(5);
        stamps.flush_ended(5);
        assert_eq!(stamps.clean(5, &[(0, 200)]), [(0, 200)]);
        assert!(stamps.pages.is_empty());
        assert!(!is_quiet(&stamps, 70, 4), "of that flush it never was");
        stamps.wrote((60, 60));
        assert!(!is_quiet(&stamps, 60, 5) && is_quiet(&stamps, 61, 5));
    }

    #[test]
    fn ranges_touch_regions() {
        assert_eq!(regions_of(0, 1), (0, 0));
        assert_eq!(regions_of(REGION - 1, 2), (0, 1));
        assert_eq!(regions_of(REGION, REGION), (1, 1));
    }
}
