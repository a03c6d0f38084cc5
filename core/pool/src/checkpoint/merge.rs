//! Checksums on their way into their pages.
//!
//! Invariants:
//! 1. Pages are taken in the order of the device, a few at a time: some are being read while
//!    others are being written.
//! 2. A page is written to the slot that is not its newest, and to both if it has none; it stays in
//!    memory until that is done.
//! 3. Before that, its newest slot is on the media. Of a checkpoint that did not end it may not be,
//!    if a flush failed: the device shows it until the power goes, and has what it held before. So
//!    such a page is written as it is to the same slot, and a flush follows, before the other slot,
//!    the only whole one on the media, is touched.

use alloc::vec::Vec;

use braid_block::{Instant, Memory};

use super::PageWrite;
use crate::Pool;
use crate::codec::{self, Stamp};
use crate::layout::BLOCK;
use crate::op::Waiter;
use crate::store::Store;
use crate::sums::Change;

/// A page that checksums go to.
#[derive(Debug)]
struct Merge {
    page: u64,
    changes: Vec<Change>,
}

/// The pages at hand.
#[derive(Debug, Default)]
pub(super) struct Merging {
    window: Vec<Merge>,
    /// Lists of changes to be used again.
    lists: Vec<Vec<Change>>,
    /// There are no more pages to be taken.
    ended: bool,
    wrote: bool,
    /// Pages are written as they are, where a failed flush may have dropped them.
    renewing: bool,
}

impl Merging {
    /// From the beginning.
    pub(super) const fn begin(&mut self, renewing: bool) {
        self.ended = false;
        self.wrote = false;
        self.renewing = renewing;
    }

    /// Gives memory back that is of use while there is load.
    pub(super) fn release(&mut self) {
        self.lists = Vec::new();
    }

    /// Whether a page was written.
    pub(super) const fn wrote(&self) -> bool {
        self.wrote
    }
}

impl Pool {
    /// Merges frozen checksums into pages and writes these; tells whether all of that is done.
    pub(super) fn merge_on<M: Memory>(&mut self, mem: &mut M, now: Instant) -> bool {
        let width = self.checkpoint_width();
        self.take_pages(mem, now, 2 * width);
        let mut at = 0;
        while at < self.checkpoint.merging.window.len() && self.checkpoint.writes.len() < width {
            let page = self.checkpoint.merging.window[at].page;
            if !self.store.sums.holds(page) {
                // It is being read, or it was let go again before its turn came.
                self.fetch_sums(mem, now, page, Waiter::Job);
                at += 1;
            } else if self.merge_page(mem, at) {
                self.take_pages(mem, now, 2 * width);
            } else {
                break;
            }
        }
        let merging = &self.checkpoint.merging;
        merging.ended && merging.window.is_empty() && self.checkpoint.writes.is_empty()
    }

    /// Takes pages until there are so many at hand, and begins to read those not in memory.
    fn take_pages<M: Memory>(&mut self, mem: &mut M, now: Instant, most: usize) {
        while self.checkpoint.merging.window.len() < most && !self.checkpoint.merging.ended {
            let merging = &mut self.checkpoint.merging;
            let mut changes = merging.lists.pop().unwrap_or_default();
            let Some(page) = self.store.sums.next_page(&mut changes) else {
                merging.ended = true;
                merging.lists.push(changes);
                return;
            };
            merging.window.push(Merge { page, changes });
            if !self.store.sums.holds(page) {
                self.fetch_sums(mem, now, page, Waiter::Job);
            }
        }
    }

    /// Merges into a page in memory and writes it; tells whether there was a buffer.
    fn merge_page<M: Memory>(&mut self, mem: &mut M, at: usize) -> bool {
        let Some(lease) = self.fetches.buffers.take(mem) else { return false };
        let Merge { page: number, changes } = self.checkpoint.merging.window.remove(at);
        let Store { layout, sums, seed, .. } = &mut self.store;
        let dropped = self.fetches.dropped.filter(|_| self.checkpoint.merging.renewing);
        let page = match dropped {
            Some((tail, last)) => sums.renew(number, tail..=last),
            None => sums.merge(number, &changes, self.checkpoint.lsn),
        };
        if let Some((page, slots)) = page {
            let offset = layout.checksum_pair(number) + u64::from(*slots.start()) * BLOCK;
            let mut len = 0;
            for bytes in mem.bytes_mut(&lease).chunks_mut(BLOCK as usize).take(slots.len()) {
                let stamp = Stamp::sums(number, offset + u64::from(len));
                codec::encode_sums::<M>(bytes, stamp, page.lsn, *seed, &page.sums);
                len += BLOCK as u32;
            }
            self.checkpoint.merging.wrote = true;
            self.write_page(PageWrite { lease, offset, len, sums: Some(number) });
        } else {
            self.fetches.buffers.give(mem, lease);
        }
        self.checkpoint.merging.lists.push(changes);
        true
    }
}
