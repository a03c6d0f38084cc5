//! Pages of checksums in memory, as many as fit.
//!
//! Invariants:
//! 1. At most `capacity` pages are held; a new one takes the place of one that was not used since
//!    the hand last passed it.
//! 2. A page that is being written is not let go: until the write is done the device has less.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::hash::Fixed;
use crate::layout::{BLOCK, SUMS_PER_PAGE};

/// A page of checksums.
#[derive(Debug)]
pub(crate) struct Page {
    pub(super) number: u64,
    /// Newest journal block whose cells it holds.
    pub(crate) lsn: u64,
    /// The slot on the device that holds it; the other is the next to be written. None: neither,
    /// and nothing is known of blocks that are not in the journal.
    pub(crate) slot: Option<u8>,
    pub(crate) sums: Box<[u32; SUMS_PER_PAGE]>,
    used: bool,
    /// It is being written.
    writing: bool,
}

impl Page {
    /// Whether the device may not have it yet as it is.
    pub(crate) const fn is_writing(&self) -> bool {
        self.writing
    }
}

/// The pages in memory.
#[derive(Debug)]
pub(super) struct Cache {
    capacity: usize,
    pages: Vec<Page>,
    places: HashMap<u64, u32, Fixed>,
    /// Where the page was that was asked for last: neighbours are asked for one after the other.
    last: usize,
    hand: usize,
}

impl Cache {
    /// Nothing, with room for so many bytes of pages.
    pub(super) fn new(bytes: u64) -> Self {
        let capacity = usize::try_from(bytes / BLOCK).unwrap_or(usize::MAX).max(PAGES_MIN);
        let places = HashMap::with_hasher(Fixed);
        Self { capacity, pages: Vec::new(), places, last: 0, hand: 0 }
    }

    /// A page, if it is here.
    pub(super) fn get(&self, number: u64) -> Option<&Page> {
        Some(&self.pages[*self.places.get(&number)? as usize])
    }

    /// The same; it counts as used.
    pub(super) fn touch(&mut self, number: u64) -> Option<&mut Page> {
        if self.pages.get(self.last).is_none_or(|page| page.number != number) {
            self.last = *self.places.get(&number)? as usize;
        }
        let page = &mut self.pages[self.last];
        page.used = true;
        Some(page)
    }

    /// Adds a page as it was read: from which slot, with which lsn; tells where its checksums
    /// belong. `None` if it is here, or if there is no room because everything is being written.
    pub(super) fn add(
        &mut self,
        number: u64,
        slot: Option<u8>,
        lsn: u64,
    ) -> Option<&mut [u32; SUMS_PER_PAGE]> {
        if self.places.contains_key(&number) {
            return None;
        }
        let at = self.room()?;
        let page = &mut self.pages[at];
        (page.number, page.lsn, page.slot) = (number, lsn, slot);
        (page.used, page.writing) = (true, false);
        page.sums.fill(0);
        self.places.insert(number, u32::try_from(at).unwrap_or(u32::MAX));
        Some(&mut page.sums)
    }

    /// Says that a page is being written, or is not any more.
    pub(super) fn writing(&mut self, number: u64, writing: bool) {
        if let Some(page) = self.touch(number) {
            page.writing = writing;
        }
    }

    /// Lets everything go but what is being written.
    pub(super) fn release(&mut self) {
        self.pages.retain(|page| page.writing);
        self.pages.shrink_to_fit();
        self.places = HashMap::with_hasher(Fixed);
        for (at, page) in (0..).zip(&self.pages) {
            self.places.insert(page.number, at);
        }
        self.hand = 0;
    }

    /// Pages in memory.
    pub(super) const fn len(&self) -> usize {
        self.pages.len()
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.pages.len() * BLOCK as usize + self.places.allocation_size()
    }

    /// A place for a page: a new one, or that of a page which is let go.
    fn room(&mut self) -> Option<usize> {
        if self.pages.len() < self.capacity {
            let sums = Box::new([0; SUMS_PER_PAGE]);
            let number = u64::MAX;
            self.pages.push(Page { number, lsn: 0, slot: None, sums, used: false, writing: false });
            return Some(self.pages.len() - 1);
        }
        // Once around takes every page's mark away, so that twice around finds one.
        for _ in 0..2 * self.pages.len() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.pages.len();
            let page = &mut self.pages[at];
            if !page.writing && !core::mem::take(&mut page.used) {
                self.places.remove(&page.number);
                return Some(at);
            }
        }
        None
    }
}

/// Pages that there is always room for: more than a checkpoint and the reads that are in flight
/// hold at a time, so that whoever waited for a page finds it.
const PAGES_MIN: usize = 96;
