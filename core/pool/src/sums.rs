//! Checksums of blocks: what is not in their pages yet, and pages in memory.
//!
//! ```text
//! set -> active --freeze--> frozen --merge--> page in memory --written--> page on the device
//! get <- active          <- frozen         <- page in memory
//! ```
//! Invariants:
//! 1. The newest of active, frozen and page counts, in this order, but for 2.
//! 2. After a crash the journal may say again what a page has long had, and what another cell,
//!    which is not replayed because its leaf has it, has replaced since. So a checksum from a
//!    replayed block counts only if the page is older than the block.
//! 3. A page that was merged is not let go before it is written (`cache`).
//! 4. A page is written to the slot that is not its newest, also if an unfinished checkpoint wrote
//!    that: maps that it wrote after may rely on it. If it has neither, both are written: beside a
//!    good slot there is never one that nobody wrote, so one that is no good went bad.

mod cache;
mod delta;

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::geometry::Layout;
use crate::layout::SUMS_PER_PAGE;

use cache::Cache;
pub(crate) use cache::Page;
use delta::{Entry, Generation, Walk};

/// What is known of a block's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// This is it.
    Known(u32),
    /// This page is to be read first.
    Missing(u64),
    /// Its page is lost or was never written, and the journal says nothing.
    Unknown,
}

/// Tables of forgotten checksums emptied in a turn: some tens of microseconds.
const TABLES_A_TURN: usize = 256;

/// A checksum that is to be merged into a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// Position in the page.
    at: usize,
    entry: Entry,
}

/// Checksums in memory.
#[derive(Debug)]
pub(crate) struct Sums {
    /// Entries at which a checkpoint is due.
    delta_max: usize,
    active: Generation,
    /// What the running checkpoint merges.
    frozen: Generation,
    walk: Walk,
    cache: Cache,
    /// Cells of blocks up to this were replayed.
    replayed: u64,
    /// The newest block that a cell came from: entries are of the 2^31 blocks before it.
    newest: u64,
    /// Checksums that a page in memory told.
    hits: u64,
}

impl Sums {
    /// None is known.
    pub(crate) fn new(delta_max: u32, cache_bytes: u64) -> Self {
        Self {
            delta_max: delta_max as usize,
            active: Generation::default(),
            frozen: Generation::default(),
            walk: Walk::default(),
            cache: Cache::new(cache_bytes),
            replayed: 0,
            newest: 0,
            hits: 0,
        }
    }

    /// Cells of blocks up to this were replayed: a page may hold newer ones.
    pub(crate) const fn replayed_to(&mut self, seq: u64) {
        self.replayed = seq;
    }

    /// Notes the checksum of a block, from a cell of journal block `seq`.
    pub(crate) fn set(&mut self, layout: &Layout, block: u64, crc: u32, seq: u64) {
        let (page, at) = layout.sum_of(block);
        self.newest = self.newest.max(seq);
        self.active.set(page, at, Entry { crc, seq: lower(seq) });
    }

    /// The page that is to be read before the checksum of a block is known, if there is one: what
    /// [`Sums::get`] would miss, for whoever asks before the checksum is of use.
    pub(crate) fn lacks(&mut self, layout: &Layout, block: u64) -> Option<u64> {
        let (number, at) = layout.sum_of(block);
        if self.cache.touch(number).is_some() {
            return None;
        }
        let known = self.noted(number, at).is_some_and(|(_, seq)| seq > self.replayed);
        (!known).then_some(number)
    }

    /// What was noted and is in no page yet: the checksum, and the journal block of its cell.
    fn noted(&self, number: u64, at: usize) -> Option<(u32, u64)> {
        let noted = self.active.get(number, at).or_else(|| self.frozen.get(number, at));
        noted.map(|entry| (entry.crc, self.whole(entry.seq)))
    }

    /// The checksum of a block.
    pub(crate) fn get(&mut self, layout: &Layout, block: u64) -> Sum {
        let (number, at) = layout.sum_of(block);
        let noted = self.noted(number, at);
        if let Some((crc, seq)) = noted
            && seq > self.replayed
        {
            return Sum::Known(crc);
        }
        let Some(page) = self.cache.touch(number) else { return Sum::Missing(number) };
        self.hits += 1;
        match noted {
            Some((crc, seq)) if seq > page.lsn => Sum::Known(crc),
            _ if page.slot.is_some() => Sum::Known(page.sums[at]),
            _ => Sum::Unknown,
        }
    }

    /// Checksums not in pages yet.
    pub(crate) const fn delta_len(&self) -> usize {
        self.active.len() + self.frozen.len()
    }

    /// Of these, what was noted since the last freeze.
    pub(crate) const fn active_len(&self) -> usize {
        self.active.len()
    }

    /// Entries since the last freeze, in 1/16 of those at which a checkpoint is due.
    pub(crate) const fn fill(&self) -> usize {
        self.active.len().saturating_mul(16) / if self.delta_max == 0 { 1 } else { self.delta_max }
    }

    /// How often a page in memory was asked.
    pub(crate) const fn hits(&self) -> u64 {
        self.hits
    }

    /// Bytes of memory, about.
    pub(crate) fn memory(&self) -> u64 {
        (self.active.memory() + self.frozen.memory() + self.cache.memory()) as u64
    }

    /// Whether a page is in memory.
    pub(crate) fn holds(&self, number: u64) -> bool {
        self.cache.get(number).is_some()
    }

    /// A page, if it is in memory; it does not count as used.
    pub(crate) fn peek(&self, number: u64) -> Option<&Page> {
        self.cache.get(number)
    }

    /// Pages in memory.
    pub(crate) const fn pages(&self) -> usize {
        self.cache.len()
    }

    /// Adds a page as it was read: see [`Cache::add`].
    pub(crate) fn add(
        &mut self,
        number: u64,
        slot: Option<u8>,
        lsn: u64,
    ) -> Option<&mut [u32; SUMS_PER_PAGE]> {
        self.cache.add(number, slot, lsn)
    }

    /// Everything that was noted so far is to be merged.
    pub(crate) fn freeze(&mut self) {
        debug_assert_eq!(self.frozen.len(), 0, "the last checkpoint is over");
        self.frozen.tidy(usize::MAX);
        core::mem::swap(&mut self.active, &mut self.frozen);
        self.walk.begin();
    }

    /// The next page to be merged, in the order of the device, and what changes in it.
    pub(crate) fn next_page(&mut self, changes: &mut Vec<Change>) -> Option<u64> {
        self.walk.next(&self.frozen, changes)
    }

    /// A page in memory that is to be written as it is, because a flush of the journal blocks
    /// `dropped` failed and it has the cells of one of them; it is held until [`Sums::written`].
    pub(crate) fn renew(
        &mut self,
        number: u64,
        dropped: RangeInclusive<u64>,
    ) -> Option<(&Page, RangeInclusive<u8>)> {
        let page = self.cache.get(number).filter(|page| dropped.contains(&page.lsn))?;
        let slot = page.slot?;
        self.cache.writing(number, true);
        Some((self.cache.touch(number)?, slot..=slot))
    }

    /// Merges changes into a page in memory, which then has all cells up to `lsn`, and holds it
    /// until [`Sums::written`]; tells what to write, and to which slots.
    pub(crate) fn merge(
        &mut self,
        number: u64,
        changes: &[Change],
        lsn: u64,
    ) -> Option<(&Page, RangeInclusive<u8>)> {
        let (replayed, newest) = (self.replayed, self.newest);
        self.cache.writing(number, true);
        let page = self.cache.touch(number)?;
        for Change { at, entry } in changes {
            let seq = whole(newest, entry.seq);
            if seq > replayed || seq > page.lsn {
                page.sums[*at] = entry.crc;
            }
        }
        page.lsn = lsn;
        let slots = page.slot.map_or(0..=1, |slot| 1 - slot..=1 - slot);
        page.slot = Some(*slots.start());
        Some((page, slots))
    }

    /// All pages with changes are to be taken once more.
    pub(crate) fn again(&mut self) {
        self.walk.begin();
    }

    /// A merged page is on its way no longer.
    pub(crate) fn written(&mut self, number: u64) {
        self.cache.writing(number, false);
    }

    /// All that was frozen is in its pages.
    pub(crate) fn merged(&mut self) {
        self.frozen.clear();
        self.walk.begin();
    }

    /// Does a little of what the last checkpoint left to be done; tells whether there is more.
    pub(crate) fn tidy(&mut self) -> bool {
        self.frozen.len() == 0 && self.frozen.tidy(TABLES_A_TURN)
    }

    /// Gives memory back that can be filled again from the device.
    pub(crate) fn release(&mut self) {
        self.cache.release();
        if self.frozen.len() == 0 {
            self.frozen.release();
            self.walk.release();
        }
        if self.active.len() == 0 {
            self.active.release();
        }
    }

    const fn whole(&self, seq: u32) -> u64 {
        whole(self.newest, seq)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "entries keep the lower half")]
const fn lower(seq: u64) -> u32 {
    seq as u32
}

/// The number of a journal block from its lower half; it is not newer than `newest`.
const fn whole(newest: u64, seq: u32) -> u64 {
    newest.saturating_sub(lower(newest).wrapping_sub(seq) as u64)
}

#[cfg(test)]
mod tests;
