//! Giving pages a place on the device, and taking it away.
//!
//! Pages lie as pairs in clusters of pages; the first pair of such a cluster is its own map.
//!
//! Invariants:
//! 1. A pair is handed out only if its cluster's map says that it is free and it is not held.
//! 2. A pair given back is held until the journal's tail has passed the cell that says so: before
//!    that a replay may look for what the pair held, and the running checkpoint may write it.
//! 3. A cluster of pages goes back to the others when nothing but its own map is in it and none of
//!    its pairs is held; then no cell that a replay would see speaks of it but the Free.
//! 4. A page has a place before anything is written to it in memory: whoever is placed has parents
//!    that are placed.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use arrayvec::ArrayVec;
use braid_block::{Instant, Memory};
use hashbrown::HashMap;

use crate::Pool;
use crate::codec::name;
use crate::hash::Fixed;
use crate::layout::{Cell, POINTERS_PER_PAGE};
use crate::map::PageId;
use crate::op::Waiter;
use crate::store::Store;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It has a place, and is in memory.
    Done,
    /// The waiter goes on when something was read.
    Wait,
    /// There is no free cluster at all.
    NoSpace,
    /// A page on the way is lost.
    Lost,
}

/// Pairs on their way back, and where to look for free ones.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    /// Journal block, cluster and position of each pair that was given back, in that order.
    freed: VecDeque<(u64, u32, u32)>,
    /// The same as bits by cluster.
    held: HashMap<u32, u32, Fixed>,
    /// Clusters of pages that may be empty.
    empty: BTreeSet<u32>,
    /// The cluster that the last place was found in.
    current: Option<u32>,
    /// Maps of clusters that were read lately in search of a free pair.
    asked: ArrayVec<u32, MAPS_READ>,
    /// Where the search for maps that are not in memory goes on.
    cursor: u32,
}

impl Pairs {
    /// A pair was given back by a cell of journal block `seq`.
    pub(crate) fn hold(&mut self, seq: u64, cluster: u32, at: u32) {
        self.freed.push_back((seq, cluster, at));
        *self.held.entry(cluster).or_default() |= 1 << at;
    }

    /// Pairs of a cluster that must not be used yet, a bit each.
    fn held(&self, cluster: u32) -> u32 {
        self.held.get(&cluster).copied().unwrap_or(0)
    }

    /// The journal's tail has passed block `seq`.
    fn release(&mut self, seq: u64) {
        while let Some((_, cluster, at)) = self.freed.pop_front_if(|(freed, ..)| *freed <= seq) {
            if let Some(mask) = self.held.get_mut(&cluster) {
                *mask &= !(1 << at);
                if *mask == 0 {
                    self.held.remove(&cluster);
                    self.empty.insert(cluster);
                }
            }
        }
    }
}

impl Store {
    /// Free pairs of a cluster of pages whose map is in memory, a bit each.
    fn free_pairs_of(&self, cluster: u32) -> u32 {
        let used = self.map.page_maps.get(&cluster).map_or(u32::MAX, |map| *map.get());
        !(used | 1 | self.pairs.held(cluster))
    }

    /// A free pair, as far as maps in memory know of one.
    fn free_pair(&mut self) -> Option<u64> {
        let has_room = |cluster: &u32| self.free_pairs_of(*cluster) != 0;
        let current = self.pairs.current.filter(has_room);
        let cluster = current.or_else(|| self.map.page_maps.keys().copied().find(has_room))?;
        self.pairs.current = Some(cluster);
        Some(self.layout.pair_in(cluster, self.free_pairs_of(cluster).trailing_zeros()))
    }

    /// A few clusters of pages whose maps are not in memory.
    fn unread_maps(&mut self) -> ArrayVec<u32, MAPS_READ> {
        let mut found = ArrayVec::new();
        if self.space.maps <= self.map.page_maps.len() as u64 {
            return found;
        }
        let mut wrapped = false;
        while !found.is_full() {
            let Some(cluster) = self.space.map_from(self.pairs.cursor) else {
                if core::mem::replace(&mut wrapped, true) {
                    break;
                }
                self.pairs.cursor = 0;
                continue;
            };
            self.pairs.cursor = cluster + 1;
            let lost = self.map.lost.contains_key(&PageId::PageMap(cluster));
            if !lost && !self.map.page_maps.contains_key(&cluster) && !found.contains(&cluster) {
                found.push(cluster);
            }
        }
        found
    }
}

impl Pool {
    /// Makes sure that a page and all its ancestors have a place.
    pub(crate) fn place_page<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        page: PageId,
        waiter: Waiter,
    ) -> Placed {
        for step in lineage(page) {
            if self.store.map.pair(step).is_none() {
                match self.find_pair(mem, now, waiter) {
                    Ok(pair) => self.record_place(step, pair, false),
                    Err(placed) => return placed,
                };
            } else if self.store.map.lost.contains_key(&step) {
                return Placed::Lost;
            } else if !(self.store.is_here(step) || step == page && is_made_by_cell(page)) {
                self.fetch(mem, now, step, waiter);
                return Placed::Wait;
            }
        }
        Placed::Done
    }

    /// Takes a page's place away, and the page out of memory: it is of no use any more.
    pub(crate) fn unplace_page<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        page: PageId,
        waiter: Waiter,
    ) -> Placed {
        let Some(pair) = self.store.map.pair(page) else { return Placed::Done };
        let Some((cluster, _)) = self.store.layout.pair_place(pair) else { return Placed::Done };
        let map = PageId::PageMap(cluster);
        // A map that is lost cannot be changed: its cluster's pairs are never used again.
        let there = self.store.address(map).is_some() && !self.store.map.lost.contains_key(&map);
        if there && !self.store.is_here(map) {
            self.fetch(mem, now, map, waiter);
            return Placed::Wait;
        }
        self.record_place(page, pair, true);
        Placed::Done
    }

    fn record_place(&mut self, page: PageId, pair: u64, free: bool) {
        let (kind, layer, index) = name(page);
        self.record(Cell::Page { kind: kind as u8, layer, index, pair, free });
    }

    /// A free pair. Whoever asks uses it at once.
    fn find_pair<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        waiter: Waiter,
    ) -> Result<u64, Placed> {
        if let Some(pair) = self.store.free_pair() {
            return Ok(pair);
        }
        // Maps that were asked for are awaited; then some are read before a cluster is taken, so
        // that clusters with few pages fill up again; at last, all.
        let asked = self.store.pairs.asked.clone();
        let awaited = asked.iter().find(|cluster| self.is_fetching(PageId::PageMap(**cluster)));
        if let Some(cluster) = awaited {
            self.fetch(mem, now, PageId::PageMap(*cluster), waiter);
            return Err(Placed::Wait);
        }
        if asked.is_empty() && self.read_maps(mem, now, waiter) {
            return Err(Placed::Wait);
        }
        self.store.pairs.asked.clear();
        let space = &mut self.store.space;
        let Some(cluster) = (space.for_pages() > 0).then(|| space.find()).flatten() else {
            let reads = self.read_maps(mem, now, waiter);
            return Err(if reads { Placed::Wait } else { Placed::NoSpace });
        };
        self.record(Cell::Alloc { layer: Cell::PAGES, lcluster: 0, phys: cluster });
        self.store.free_pair().ok_or(Placed::Lost)
    }

    /// Begins to read a few maps of clusters of pages that are not in memory; tells whether there
    /// are any.
    fn read_maps<M: Memory>(&mut self, mem: &mut M, now: Instant, waiter: Waiter) -> bool {
        let unread = self.store.unread_maps();
        for cluster in &unread {
            self.fetch(mem, now, PageId::PageMap(*cluster), waiter);
        }
        self.store.pairs.asked.clone_from(&unread);
        !unread.is_empty()
    }

    /// The journal's tail has passed block `seq`: what was given back up to it can be used again.
    pub(crate) fn release_pairs(&mut self, seq: u64) {
        self.store.pairs.release(seq);
        let store = &self.store;
        let is_empty = |cluster: &&u32| {
            let used = store.map.page_maps.get(cluster).map(|map| *map.get());
            used == Some(1) && store.pairs.held(**cluster) == 0 && store.space.is_map(**cluster)
        };
        let empty: Vec<u32> = store.pairs.empty.iter().filter(is_empty).copied().collect();
        for cluster in empty {
            // What is left is freed after the next checkpoint.
            if !self.journal.has_room() {
                return;
            }
            let cell = Cell::Free { layer: Cell::PAGES, lcluster: 0, phys: cluster, opaque: false };
            let seq = self.record(cell);
            self.store.space.hold(cluster, seq, self.reads.epoch());
        }
        self.store.pairs.empty.clear();
    }
}

/// The pages that lead to a page, from the root's child to itself; none of those that have their
/// place by nature.
fn lineage(page: PageId) -> ArrayVec<PageId, 4> {
    let per_page = POINTERS_PER_PAGE as u32;
    let of_layer = |id: u32| [PageId::Table(id / per_page), PageId::Layer(id)];
    let mut pages = ArrayVec::new();
    match page {
        PageId::Table(_) => pages.push(page),
        PageId::Layer(id) => pages.extend(of_layer(id)),
        PageId::Record(id) | PageId::Directory(id, _) => {
            pages.extend(of_layer(id));
            pages.push(page);
        }
        PageId::Leaf(id, n) => {
            pages.extend(of_layer(id));
            pages.push(PageId::Directory(id, n / per_page));
            pages.push(page);
        }
        PageId::Root | PageId::Bitmap(_) | PageId::MapBitmap(_) | PageId::PageMap(_) => {}
    }
    pages
}

/// Whether a page that has just got its place comes into memory by a cell of its own.
const fn is_made_by_cell(page: PageId) -> bool {
    matches!(page, PageId::Layer(_))
}

/// Maps of clusters of pages that are read in search of a free pair before a cluster is taken.
const MAPS_READ: usize = 4;

#[cfg(test)]
mod tests;
