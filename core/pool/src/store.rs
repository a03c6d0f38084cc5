//! Maps, space and checksums together, and what a cell of the journal does to them.
//!
//! Invariants:
//! 1. Nothing changes but by [`Store::apply`], from the journal buffer at run time and from the
//!    journal's blocks at replay: what runs is what replays.
//! 2. A cell changes a page only if the page does not hold it already (`Paged::takes`).
//! 3. A cell that names what does not exist changes nothing: a disk may hold anything.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;

use crate::codec::Content;
use crate::geometry::Layout;
use crate::hash::mix;
use crate::layout::{CLUSTER_BLOCKS, CLUSTER_PAIRS, Cell, Kind, LEAF_CLUSTERS, POINTERS_PER_PAGE};
use crate::layout::{LEAF_REGIONS, LayerFields, REGION_BLOCKS, REGION_CLUSTERS, Transferred};
use crate::map::{Layer, Leaf, LeafMap, Map, PageId, Pointers};
use crate::paged::Paged;
use crate::place::Pairs;
use crate::space::{Space, somewhere};
use crate::sums::Sums;

/// Everything that checkpoints write and replay restores.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) layout: Layout,
    /// CRC32C of the pool's uuid, from which all page checksums go on.
    pub(crate) seed: u32,
    pub(crate) map: Map,
    pub(crate) space: Space,
    pub(crate) sums: Sums,
    /// Pages changed since the last freeze, each once.
    pub(crate) changed: Vec<PageId>,
    /// Pairs of pages that were given back, and where to find free ones.
    pub(crate) pairs: Pairs,
    /// Pages that are gone, but not before the running checkpoint froze them: it writes them all
    /// the same, for what it writes beside them leads there.
    pub(crate) buried: BTreeMap<PageId, Content>,
}

/// Position of a block in its leaf: leaf, cluster of the leaf, block of the cluster.
pub(crate) const fn place(lblock: u64) -> (u32, usize, u32) {
    let lcluster = lblock / CLUSTER_BLOCKS;
    #[expect(clippy::cast_possible_truncation, reason = "layers have at most 2^33 blocks")]
    ((lcluster / LEAF_CLUSTERS) as u32, (lcluster % LEAF_CLUSTERS) as usize, (lblock % 64) as u32)
}

/// Leaf of a cluster of a layer, and position in it.
pub(crate) const fn place_cluster(lcluster: u32) -> (u32, usize) {
    (lcluster / LEAF_CLUSTERS as u32, (lcluster % LEAF_CLUSTERS as u32) as usize)
}

/// What binds a checksum to where its block belongs: stored is `crc32c(data) ^ binding`.
pub(crate) const fn binding(tree: u64, lblock: u64) -> u32 {
    (mix(tree, lblock) >> 32) as u32
}

/// Blocks `count` from `first` of a cluster, a bit each.
pub(crate) const fn mask(first: u32, count: u32) -> u64 {
    if count >= 64 { u64::MAX } else { ((1 << count) - 1) << first }
}

impl Store {
    /// Whether a page of checksums has some of clusters in use.
    pub(crate) fn has_sums(&self, page: u64) -> bool {
        let space = &self.space;
        self.layout.sum_clusters(page).any(|at| space.is_used(at) && !space.is_map(at))
    }

    /// An empty pool.
    pub(crate) fn new(layout: Layout, seed: u32, reserve: u64, sums: Sums) -> Self {
        let space = Space::new(&layout, reserve);
        let (pairs, buried) = (Pairs::default(), BTreeMap::new());
        Self { layout, seed, map: Map::new(), space, sums, changed: Vec::new(), pairs, buried }
    }

    /// Whether there is such a cluster.
    pub(crate) fn exists(&self, cluster: u32) -> bool {
        self.layout.slab_of(cluster).is_some()
    }

    /// Carries a cell of journal block `seq` out; `payload` is what follows an image or a record.
    pub(crate) fn apply(&mut self, seq: u64, cell: Cell, payload: &[u8]) {
        if let Cell::Transfer { .. } | Cell::Image { .. } | Cell::Remove { .. } = cell {
            self.map.chains.age();
        }
        match cell {
            Cell::Write { layer, lblock, first, crc } => {
                self.apply_write(seq, layer, lblock, first, crc);
            }
            Cell::Alloc { layer: Cell::PAGES, phys, .. } => self.apply_map_cluster(seq, phys, true),
            Cell::Free { layer: Cell::PAGES, phys, .. } => self.apply_map_cluster(seq, phys, false),
            Cell::Alloc { layer, lcluster, phys } => self.apply_alloc(seq, layer, lcluster, phys),
            Cell::Free { layer, lcluster, phys, opaque } => {
                self.apply_free(seq, layer, lcluster, phys, opaque);
            }
            Cell::Clear { layer, lblock, count } => self.apply_clear(seq, layer, lblock, count),
            Cell::Open { layer, region, count } => {
                let (leaf, bits) = regions(region, count);
                self.change_leaf(seq, layer, leaf, |map| {
                    map.open |= bits;
                    map.dirty |= bits;
                });
            }
            Cell::Close { layer, region, open, dirty } => {
                let (leaf, bit) = regions(region, 1);
                self.change_leaf(seq, layer, leaf, |map| {
                    if open {
                        map.open &= !bit;
                    }
                    if dirty {
                        map.dirty &= !bit;
                    }
                });
                if let (true, Some(leaf)) = (open, self.map.leaves.get_mut(&(layer, leaf))) {
                    leaf.unadopted &= !bit;
                }
            }
            Cell::Page { kind, layer, index, pair, free } => {
                self.apply_page(seq, kind, layer, index, pair, free);
            }
            Cell::Image { layer, .. } => self.apply_image(seq, layer, payload),
            Cell::Record { layer, bytes } => {
                let bytes = payload.get(..usize::from(bytes)).unwrap_or(&[]);
                self.apply_record(seq, layer, bytes);
            }
            Cell::Transfer { layer, to, lcluster } => {
                self.apply_transfer(seq, layer, to, lcluster, payload);
            }
            Cell::Flush { layer, number } => {
                self.change_layer(seq, layer, |state| state.flush = number);
            }
            Cell::Remove { layer } => self.apply_remove(seq, layer),
        }
    }

    fn apply_write(&mut self, seq: u64, layer: u32, lblock: u64, first: bool, crc: u32) {
        let (index, at, block) = place(lblock);
        let Some(leaf) = self.map.leaves.get_mut(&(layer, index)) else { return };
        if !leaf.page.takes(seq) {
            return;
        }
        let Some(phys) = leaf.page.get().phys(at) else { return };
        if first {
            let region = 1 << (lblock / REGION_BLOCKS % LEAF_REGIONS);
            let (map, listed) = leaf.page.change();
            map.own[at] |= 1 << block;
            map.open |= region;
            map.dirty |= region;
            if listed {
                self.changed.push(PageId::Leaf(layer, index));
            }
        }
        self.sums.set(&self.layout, u64::from(phys) * CLUSTER_BLOCKS + u64::from(block), crc, seq);
    }

    fn apply_alloc(&mut self, seq: u64, layer: u32, lcluster: u32, phys: u32) {
        if !self.exists(phys) {
            return;
        }
        self.list_bitmap(seq, phys, true);
        self.change_layer(seq, layer, |state| state.clusters += 1);
        let (index, at) = place_cluster(lcluster);
        self.change_leaf(seq, layer, index, |map| map.set_phys(at, Some(phys)));
    }

    fn apply_free(&mut self, seq: u64, layer: u32, lcluster: u32, phys: u32, opaque: bool) {
        if let Some(phys) = somewhere(phys).filter(|phys| self.exists(*phys)) {
            self.list_bitmap(seq, phys, false);
            self.change_layer(seq, layer, |state| {
                state.clusters = state.clusters.saturating_sub(1);
            });
        }
        let (index, at) = place_cluster(lcluster);
        let region = 1 << (at as u64 / REGION_CLUSTERS);
        self.change_leaf(seq, layer, index, |map| {
            map.own[at] = 0;
            map.set_phys(at, None);
            map.dirty |= region;
            if opaque {
                map.set_opaque(at);
            }
        });
    }

    fn apply_clear(&mut self, seq: u64, layer: u32, lblock: u64, count: u16) {
        let (index, at, block) = place(lblock);
        let region = 1 << (lblock / REGION_BLOCKS % LEAF_REGIONS);
        self.change_leaf(seq, layer, index, |map| {
            map.own[at] &= !mask(block, u32::from(count));
            map.dirty |= region;
        });
    }

    fn apply_map_cluster(&mut self, seq: u64, phys: u32, set: bool) {
        if !self.exists(phys) {
            return;
        }
        self.list_bitmap(seq, phys, set);
        let slab = self.space.mark_map(seq, phys, set);
        self.changed.extend(slab.map(PageId::MapBitmap));
        if !set {
            self.map.page_maps.remove(&phys);
        } else if let Entry::Vacant(place) = self.map.page_maps.entry(phys) {
            let mut page = Paged::new(0);
            *page.change().0 = 1;
            place.insert(page);
            self.changed.push(PageId::PageMap(phys));
        }
    }

    fn apply_page(&mut self, seq: u64, kind: u8, layer: u32, index: u32, pair: u64, free: bool) {
        let Some((cluster, at)) = self.layout.pair_place(pair) else { return };
        let Some(page) = page_id(kind, layer, index) else { return };
        if let Some(map) = self.map.page_maps.get_mut(&cluster)
            && map.takes(seq)
        {
            let (used, listed) = map.change();
            let bit = 1 << at;
            *used = if free { *used & !bit } else { *used | bit };
            if listed {
                self.changed.push(PageId::PageMap(cluster));
            }
        }
        if free {
            self.pairs.hold(seq, cluster, at);
        }
        self.point(seq, page, if free { 0 } else { pair });
        if free {
            self.forget(page);
        } else {
            self.bear(page);
        }
    }

    /// Makes the pointer to a page say where it is.
    fn point(&mut self, seq: u64, page: PageId, pair: u64) {
        let per_page = POINTERS_PER_PAGE as u32;
        let change = |parent: &mut Paged<Pointers>, at: u32| {
            let takes = parent.takes(seq);
            takes && {
                let (pairs, listed) = parent.change();
                if let Some(slot) = pairs.get_mut(at as usize) {
                    *slot = pair;
                }
                listed
            }
        };
        match page {
            PageId::Table(n) => {
                if change(&mut self.map.root, n) {
                    self.changed.push(PageId::Root);
                }
            }
            PageId::Layer(id) => {
                let table = id / per_page;
                if self.map.tables.get_mut(&table).is_some_and(|t| change(t, id % per_page)) {
                    self.changed.push(PageId::Table(table));
                }
            }
            PageId::Leaf(id, n) => {
                let directory = (id, n / per_page);
                let held = self.map.directories.get_mut(&directory);
                if held.is_some_and(|d| change(d, n % per_page)) {
                    self.changed.push(PageId::Directory(directory.0, directory.1));
                }
            }
            PageId::Record(id) => self.change_layer(seq, id, |state| state.record = pair),
            PageId::Directory(id, n) => self.change_layer(seq, id, |state| {
                let at = n as usize;
                if state.directories.len() <= at {
                    state.directories.resize(at + 1, 0);
                }
                state.directories[at] = pair;
            }),
            PageId::Root | PageId::Bitmap(_) | PageId::MapBitmap(_) | PageId::PageMap(_) => {}
        }
    }

    /// Makes a page that has just got its place, unless it is in memory: with nothing in it.
    fn bear(&mut self, page: PageId) {
        let pointers = || Paged::new(alloc::vec![0; POINTERS_PER_PAGE]);
        let made = match page {
            PageId::Table(n) if !self.map.tables.contains_key(&n) => {
                let mut made = pointers();
                made.change();
                self.map.tables.insert(n, made).is_none()
            }
            PageId::Directory(id, n) if !self.map.directories.contains_key(&(id, n)) => {
                let mut made = pointers();
                made.change();
                self.map.directories.insert((id, n), made).is_none()
            }
            PageId::Leaf(id, n) if !self.map.leaves.contains_key(&(id, n)) => {
                let mut made = Paged::new(LeafMap::new());
                made.change();
                let leaf = Box::new(Leaf::new(made));
                self.map.leaves.insert((id, n), leaf).is_none()
            }
            PageId::Record(id) if !self.map.records.contains_key(&id) => {
                let mut made = Paged::new(Vec::new());
                made.change();
                self.map.records.insert(id, made).is_none()
            }
            _ => false,
        };
        if made {
            self.changed.push(page);
        }
    }

    /// Lets go of a page that gave its place back.
    fn forget(&mut self, page: PageId) {
        let map = &mut self.map;
        let content = match page {
            PageId::Table(n) => take(map.tables.remove(&n), Content::Pointers),
            PageId::Record(id) => take(map.records.remove(&id), Content::Record),
            PageId::Directory(id, n) => take(map.directories.remove(&(id, n)), Content::Pointers),
            PageId::Leaf(id, n) => {
                let page = map.leaves.remove(&(id, n)).map(|leaf| leaf.page);
                take(page, |leaf| Content::Leaf(Box::new(leaf)))
            }
            _ => None,
        };
        map.lost.remove(&page);
        self.buried.extend(content.map(|content| (page, content)));
    }

    fn apply_image(&mut self, seq: u64, id: u32, payload: &[u8]) {
        let Some(fields) = payload.get(..size_of::<LayerFields>()) else { return };
        let Ok(fields) = <LayerFields as zerocopy::FromBytes>::read_from_bytes(fields) else {
            return;
        };
        let Some(state) = crate::codec::layer_state(&fields) else { return };
        let parent = state.parent;
        let mut before = None;
        if let Some(layer) = self.map.layers.get_mut(&id) {
            if !layer.page.takes(seq) {
                return;
            }
            let (old, listed) = layer.page.change();
            before = old.parent;
            let directories = core::mem::take(&mut old.directories);
            // The counter is kept by Alloc and Free; an image is of the time of its cell.
            *old = crate::map::LayerState { directories, record: old.record, ..state };
            if listed {
                self.changed.push(PageId::Layer(id));
            }
        } else {
            let mut page = Paged::new(state);
            page.change();
            self.map.layers.insert(id, Layer::new(page));
            self.changed.push(PageId::Layer(id));
        }
        self.change_parent(before, parent);
    }

    /// Counts a layer among the children of another parent.
    fn change_parent(&mut self, before: Option<u32>, after: Option<u32>) {
        if let Some(parent) = before.and_then(|id| self.map.layers.get_mut(&id)) {
            parent.children = parent.children.saturating_sub(1);
        }
        if let Some(parent) = after.and_then(|id| self.map.layers.get_mut(&id)) {
            parent.children += 1;
        }
    }

    fn apply_record(&mut self, seq: u64, id: u32, bytes: &[u8]) {
        let page = self.map.records.entry(id).or_insert_with(|| Paged::new(Vec::new()));
        if !page.takes(seq) {
            return;
        }
        let (record, listed) = page.change();
        record.clear();
        record.extend_from_slice(bytes);
        if listed {
            self.changed.push(PageId::Record(id));
        }
    }

    /// A cluster of a deleted layer goes to its only child, with the marks of its region; or, if
    /// no cluster is named, only that it hides the parents.
    fn apply_transfer(&mut self, seq: u64, from: u32, to: u32, lcluster: u32, payload: &[u8]) {
        let Ok((moved, _)) = <Transferred as zerocopy::FromBytes>::read_from_prefix(payload) else {
            return;
        };
        let phys = somewhere(moved.phys.get());
        if phys.is_some_and(|phys| !self.exists(phys)) {
            return;
        }
        let (index, at) = place_cluster(lcluster);
        let region = 1 << (at as u64 / REGION_CLUSTERS);
        let giver = self.map.leaves.get(&(from, index));
        let unadopted = giver.map_or(0, |leaf| leaf.unadopted & region);
        self.change_leaf(seq, to, index, |map| {
            if phys.is_some() {
                map.own[at] = moved.own.get();
                map.set_phys(at, phys);
            }
            if moved.flags & Transferred::OPAQUE != 0 {
                map.set_opaque(at);
            }
            if moved.flags & Transferred::OPEN != 0 {
                map.open |= region;
            }
            if moved.flags & Transferred::DIRTY != 0 {
                map.dirty |= region;
            }
        });
        if phys.is_none() {
            return;
        }
        if let Some(leaf) = self.map.leaves.get_mut(&(to, index)) {
            leaf.unadopted |= unadopted;
        }
        self.change_leaf(seq, from, index, |map| {
            map.own[at] = 0;
            map.set_phys(at, None);
        });
        self.change_layer(seq, from, |state| state.clusters = state.clusters.saturating_sub(1));
        self.change_layer(seq, to, |state| state.clusters += 1);
    }

    fn apply_remove(&mut self, seq: u64, id: u32) {
        // The number may have been given anew by a later cell that the page holds.
        if self.map.layers.get(&id).is_some_and(|layer| !layer.page.takes(seq)) {
            return;
        }
        if let Some(layer) = self.map.layers.remove(&id) {
            self.change_parent(layer.state().parent, None);
            let content = take(Some(layer.page), |state| Content::Layer(Box::new(state)));
            self.buried.extend(content.map(|content| (PageId::Layer(id), content)));
        }
        self.forget(PageId::Record(id));
    }

    /// Changes a leaf in memory, if its page does not hold the cell already.
    fn change_leaf(&mut self, seq: u64, layer: u32, index: u32, f: impl FnOnce(&mut LeafMap)) {
        let Some(leaf) = self.map.leaves.get_mut(&(layer, index)) else { return };
        if !leaf.page.takes(seq) {
            return;
        }
        let (map, listed) = leaf.page.change();
        f(map);
        if listed {
            self.changed.push(PageId::Leaf(layer, index));
        }
    }

    /// The same for a layer.
    fn change_layer(&mut self, seq: u64, id: u32, f: impl FnOnce(&mut crate::map::LayerState)) {
        let Some(layer) = self.map.layers.get_mut(&id) else { return };
        if !layer.page.takes(seq) {
            return;
        }
        let (state, listed) = layer.page.change();
        f(state);
        if listed {
            self.changed.push(PageId::Layer(id));
        }
    }

    fn list_bitmap(&mut self, seq: u64, cluster: u32, set: bool) {
        let slab = self.space.mark(seq, cluster, set);
        self.changed.extend(slab.map(PageId::Bitmap));
    }
}

/// What the running checkpoint is to write of a page that goes, if it is to.
fn take<T: Clone>(page: Option<Paged<T>>, content: impl FnOnce(T) -> Content) -> Option<Content> {
    page.and_then(Paged::into_image).map(content)
}

/// Leaf of a region, and the bits of `count` regions from it.
fn regions(region: u32, count: u16) -> (u32, u64) {
    let first = region % LEAF_REGIONS as u32;
    let count = u32::from(count).min(LEAF_REGIONS as u32 - first);
    (region / LEAF_REGIONS as u32, mask(first, count))
}

/// The page that a cell means.
pub(crate) fn page_id(kind: u8, layer: u32, index: u32) -> Option<PageId> {
    Some(match Kind::from_u8(kind)? {
        Kind::Table if index < POINTERS_PER_PAGE as u32 => PageId::Table(index),
        Kind::Layer => PageId::Layer(layer),
        Kind::Record => PageId::Record(layer),
        Kind::Directory if index < 512 => PageId::Directory(layer, index),
        Kind::Leaf if u64::from(index) < crate::map::LEAVES_MAX => PageId::Leaf(layer, index),
        _ => return None,
    })
}

const _: () = assert!(CLUSTER_PAIRS <= 32, "a page map is one word");
