//! Pages: each is pointed to once, is marked as used, and has two good slots.

use alloc::vec::Vec;

use super::{Check, Finding};
use crate::codec::{self, Found, Stamp};
use crate::drive::{Buffers, Image};
use crate::layout::{BLOCK, CLUSTER_PAIRS, PAIR};
use crate::map::PageId;
use crate::write::bits;

impl<M: Buffers, I: Image> Check<'_, M, I> {
    /// The root, the bitmaps and the tables.
    pub(super) fn base_pages(&mut self) {
        self.page(PageId::Root);
        for slab in 0..u32::try_from(self.store().layout.slabs.len()).unwrap_or(0) {
            self.page(PageId::Bitmap(slab));
            self.page(PageId::MapBitmap(slab));
        }
        let tables: Vec<u32> = self.store().map.tables.keys().copied().collect();
        for table in tables {
            self.page(PageId::Table(table));
        }
    }

    /// A page that something points to, or that is where it always is.
    pub(super) fn page(&mut self, page: PageId) {
        if let Some(pair) = self.store().map.pair(page) {
            let first = self.pairs.insert(pair);
            if !first || !self.is_marked(pair) {
                self.tell(Finding::Pointer { device: pair * BLOCK });
            }
        }
        let Some(address) = self.store().address(page) else { return };
        self.report.pages += 1;
        self.slots(page, address);
    }

    /// Whether the map of the pair's cluster says that it is used.
    fn is_marked(&mut self, pair: u64) -> bool {
        let Some((cluster, at)) = self.store().layout.pair_place(pair) else { return false };
        let there = self.store().space.is_map(cluster) && self.fetch(PageId::PageMap(cluster));
        let used = self.store().map.page_maps.get(&cluster).map_or(0, |used| *used.get());
        there && used >> at & 1 != 0
    }

    /// Whether both slots of a page are good. After a stop without order one may be older, or
    /// torn, and what the journal holds may never have been written.
    fn slots(&mut self, page: PageId, address: u64) {
        let stamp = |device| Stamp::map(page, device);
        let (lsns, bytes) = self.read_slots(address, stamp);
        let lsns = lsns.map(Found::lsn);
        let unwritten = self.pool.fetches.born.contains_key(&address) || self.is_newer(page);
        let bad = match lsns {
            [Some(_), Some(_)] => return,
            [None, None] if unwritten => return,
            [None, None] => return self.tell(Finding::Lost { device: address }),
            [Some(lsn), None] => (1, lsn),
            [None, Some(lsn)] => (0, lsn),
        };
        self.bad_slot(address, bad, bytes, stamp);
    }

    /// Pages of checksums of clusters in use. Of a pair without a good slot the blocks tell what is
    /// lost.
    pub(super) fn sums_pages(&mut self) {
        for page in 0..self.store().layout.sum_pages() {
            if !self.store().has_sums(page) {
                continue;
            }
            self.report.pages += 1;
            let address = self.store().layout.checksum_pair(page);
            let stamp = |device| Stamp::sums(page, device);
            let (found, bytes) = self.read_slots(address, stamp);
            match found {
                [Found::Page(lsn), Found::Bad] => self.bad_slot(address, (1, lsn), bytes, stamp),
                [Found::Bad, Found::Page(lsn)] => self.bad_slot(address, (0, lsn), bytes, stamp),
                _ => {}
            }
        }
    }

    /// What the slots of a pair hold.
    fn read_slots(&mut self, address: u64, stamp: impl Fn(u64) -> Stamp) -> ([Found; 2], Vec<u8>) {
        let (seed, newest) = (self.store().seed, self.pool.newest_lsn());
        let mut bytes = alloc::vec![0; PAIR as usize];
        let mut found = [Found::Bad; 2];
        for (slot, found) in found.iter_mut().enumerate() {
            let part = &mut bytes[slot * BLOCK as usize..][..BLOCK as usize];
            let device = address + slot as u64 * BLOCK;
            if self.image.read(device, part).is_ok() {
                *found = codec::look::<M>(part, stamp(device), seed, newest);
            }
        }
        (found, bytes)
    }

    /// Tells of a bad slot; its copy is the other one, of this lsn.
    fn bad_slot(
        &mut self,
        address: u64,
        (bad, lsn): (usize, u64),
        mut bytes: Vec<u8>,
        stamp: impl Fn(u64) -> Stamp,
    ) {
        let device = address + bad as u64 * BLOCK;
        let mended = self.scope.repair && {
            let copy = &mut bytes[(1 - bad) * BLOCK as usize..][..BLOCK as usize];
            codec::readdress::<M>(copy, stamp(device), lsn, self.store().seed);
            self.image.write(device, copy).is_ok()
        };
        self.tell(Finding::Slot { device, mended });
    }

    /// Whether a page in memory has what its slots do not.
    fn is_newer(&mut self, page: PageId) -> bool {
        self.pool.store.held(page).is_some_and(|held| held.is_dirty())
    }

    /// Clusters of pages: owned by nobody else, and every pair of them that is used is pointed to.
    /// One counts if a pointer leads into it, or if its first page says that it is one: whatever
    /// the bitmap says.
    pub(super) fn page_clusters(&mut self) {
        let layout = &self.store().layout;
        let places = self.pairs.iter().filter_map(|pair| layout.pair_place(*pair));
        let mut pointed: Vec<u32> = places.map(|(cluster, _)| cluster).collect();
        pointed.dedup();
        for cluster in pointed.iter().copied() {
            self.page_cluster(cluster);
        }
        let mut next = 0;
        while let Some(cluster) = self.store().space.map_from(next) {
            next = cluster + 1;
            let address = self.store().layout.cluster(cluster);
            self.page(PageId::PageMap(cluster));
            if !self.fetch(PageId::PageMap(cluster)) {
                continue;
            }
            if pointed.binary_search(&cluster).is_err() {
                self.page_cluster(cluster);
            }
            let used = self.store().map.page_maps.get(&cluster).map_or(0, |used| *used.get());
            for at in bits(u64::from(used)).skip(1) {
                let pair = self.store().layout.pair_in(cluster, at);
                if !self.pairs.contains(&pair) && self.store().map.lost.is_empty() {
                    self.tell(Finding::LeakedPage { device: address + u64::from(at) * PAIR });
                }
            }
        }
    }

    /// Counts a cluster of pages.
    fn page_cluster(&mut self, cluster: u32) {
        self.page_clusters += 1;
        if !self.own(cluster) || !self.store().space.is_used(cluster) {
            let device = self.store().layout.cluster(cluster);
            self.tell(Finding::Shared { device, layer: crate::layout::Cell::PAGES, offset: 0 });
        }
    }
}

const _: () = assert!(CLUSTER_PAIRS == 32);
