//! The maps in memory: layers, and where their blocks are.
//!
//! A layer is a head (written by hosts) or sealed (a snapshot); `parent` makes them trees. A block
//! is where the nearest layer that owns it has it; an opaque cluster, or the end of the tree, ends
//! the walk with zeros. Each cluster of the device has one owner.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use braid_block::{BlockSize, Key};
use hashbrown::HashMap;

use crate::chain::Chains;
use crate::handles::Handles;
use crate::hash::Fixed;
use crate::layout::{CLUSTER_BLOCKS, DIRECTORIES_MAX, LEAF_CLUSTERS, POINTERS_PER_PAGE};
use crate::paged::Paged;
use crate::request::{Fence, Handle, Reservation};

/// Leaves of a layer, at most: 25 TiB.
pub(crate) const LEAVES_MAX: u64 = (DIRECTORIES_MAX * POINTERS_PER_PAGE) as u64;

/// The name of a page of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PageId {
    /// Where the layer tables are.
    Root,
    /// Where layers `800 * n ..` are.
    Table(u32),
    /// A layer.
    Layer(u32),
    /// A layer's copy of the membership record.
    Record(u32),
    /// A layer's leaves `800 * n ..`.
    Directory(u32, u32),
    /// 64 MiB of a layer.
    Leaf(u32, u32),
    /// Clusters of a slab in use.
    Bitmap(u32),
    /// Clusters of a slab that hold pages.
    MapBitmap(u32),
    /// Pairs in use of a cluster of pages.
    PageMap(u32),
}

/// What a leaf's page holds.
#[derive(Clone, Debug)]
pub(crate) struct LeafMap {
    /// Cluster plus one, 0 for none; the highest bit: opaque.
    phys: [u32; LEAF_CLUSTERS as usize],
    /// Blocks that the layer owns, a bit each.
    pub(crate) own: [u64; LEAF_CLUSTERS as usize],
    /// Regions whose checksums may lag.
    pub(crate) open: u64,
    /// Regions marked for the other members.
    pub(crate) dirty: u64,
}

/// The highest bit of [`LeafMap::phys`].
const OPAQUE: u32 = 1 << 31;

impl LeafMap {
    /// A leaf of nothing.
    pub(crate) const fn new() -> Self {
        Self { phys: [0; 256], own: [0; 256], open: 0, dirty: 0 }
    }

    /// Where a cluster is.
    pub(crate) const fn phys(&self, at: usize) -> Option<u32> {
        (self.phys[at] & !OPAQUE).checked_sub(1)
    }

    /// Whether it says nothing at all.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.phys.iter().all(|p| *p == 0) && self.open == 0 && self.dirty == 0
    }

    /// Says where a cluster is.
    pub(crate) const fn set_phys(&mut self, at: usize, phys: Option<u32>) {
        let bits = match phys {
            Some(phys) => phys + 1,
            None => 0,
        };
        self.phys[at] = self.phys[at] & OPAQUE | bits;
    }

    /// Whether nothing of the parents shows through.
    pub(crate) const fn opaque(&self, at: usize) -> bool {
        self.phys[at] & OPAQUE != 0
    }

    /// Hides the parents.
    pub(crate) const fn set_opaque(&mut self, at: usize) {
        self.phys[at] |= OPAQUE;
    }

    /// Place and opacity as the page has them.
    pub(crate) const fn raw(&self, at: usize) -> u32 {
        self.phys[at]
    }

    /// Takes place and opacity from a page.
    pub(crate) const fn set_raw(&mut self, at: usize, raw: u32) {
        self.phys[at] = raw;
    }
}

/// A leaf in memory.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) page: Paged<LeafMap>,
    /// Regions that were open when the pool was opened after an unclean stop: a block of them that
    /// does not match its checksum is unverified, not lost. A subset of `open`.
    pub(crate) unadopted: u64,
    /// Of these, regions of a member that were found to be alike since, and not written after
    /// that: their content counts.
    pub(crate) cleaned: u64,
    /// What is in flight, and when regions were last touched.
    pub(crate) regions: Option<Box<[Touch; 64]>>,
    pub(crate) habits: Habits,
    /// Turn of the last use, for letting go.
    pub(crate) used: u32,
}

impl Leaf {
    /// A leaf around a page.
    pub(crate) fn new(page: Paged<LeafMap>) -> Self {
        let habits = Habits::default();
        Self { page, unadopted: 0, cleaned: 0, regions: None, habits, used: 0 }
    }

    /// What happens in one of its regions, by the region's number in the layer.
    pub(crate) fn touch(&mut self, region: u32) -> &mut Touch {
        let all = self.regions.get_or_insert_with(|| Box::new([Touch::default(); 64]));
        &mut all[region as usize % all.len()]
    }
}

/// How regions of a leaf are written, a bit each: what is guessed of their future.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// Written since they were opened.
    written: u64,
    /// Written or opened since somebody looked whether they may be closed.
    lately: u64,
    /// Written before they were closed: when one is opened again, the others will be wanted too.
    again: u64,
    /// How often they were closed since without having been written: the digits of a number.
    doubts: [u64; 2],
}

impl Habits {
    /// A region is written.
    pub(crate) const fn write(&mut self, bit: u64) {
        self.written |= bit;
        self.lately |= bit;
    }

    /// A region is opened, to be written soon: it is not closed at once if that takes a little.
    pub(crate) const fn open(&mut self, bit: u64) {
        self.lately |= bit;
    }

    /// Whether a region was written since this was last asked.
    pub(crate) const fn look(&mut self, bit: u64) -> bool {
        let lately = self.lately & bit != 0;
        self.lately &= !bit;
        lately
    }

    /// A region is closed.
    pub(crate) const fn close(&mut self, bit: u64) {
        let [low, high] = &mut self.doubts;
        if self.written & bit != 0 {
            self.again |= bit;
            (*low, *high) = (*low & !bit, *high & !bit);
        } else {
            // A short load does not reach all; four in a row that do not are not short.
            self.again &= !(*low & *high & bit);
            *high ^= *low & bit;
            *low ^= bit;
        }
        self.written &= !bit;
        self.lately &= !bit;
    }

    /// Regions that were written before one of the last times that they were closed.
    pub(crate) const fn again(self) -> u64 {
        self.again
    }
}

/// What happens in a region.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touch {
    /// Number of the last flush issued when a write to it was submitted or done.
    pub(crate) flush: u64,
    /// Writes in flight.
    pub(crate) writes: u32,
    /// Cleans that had been asked for when a write to it was submitted last.
    pub(crate) cleans: u32,
    /// Newest journal block with a cell about it.
    pub(crate) seq: u64,
}

/// What a layer's page holds.
#[derive(Clone, Debug)]
pub(crate) struct LayerState {
    pub(crate) uuid: [u8; 16],
    pub(crate) source: [u8; 16],
    pub(crate) tree: u64,
    /// Size in blocks of 4 KiB.
    pub(crate) blocks: u64,
    /// Clusters that it owns.
    pub(crate) clusters: u64,
    pub(crate) created: u64,
    pub(crate) parent: Option<u32>,
    pub(crate) sealed: bool,
    pub(crate) thick: bool,
    pub(crate) member: bool,
    /// It went away and gives its space back.
    pub(crate) deleted: bool,
    pub(crate) block: BlockSize,
    pub(crate) name: String,
    pub(crate) fence: Fence,
    pub(crate) reservation: Reservation,
    /// Number of the last numbered flush.
    pub(crate) flush: u64,
    /// Random, part of the instance.
    pub(crate) birth: u64,
    /// Pair of the record's page, 0 for none. Not part of an image.
    pub(crate) record: u64,
    /// Pairs of its directories, 0 for none. Not part of an image.
    pub(crate) directories: Vec<u64>,
}

impl LayerState {
    /// Clusters that are set aside for it and not used.
    pub(crate) fn promised(&self) -> u64 {
        let all =
            if self.thick && !self.deleted { self.blocks.div_ceil(CLUSTER_BLOCKS) } else { 0 };
        all.saturating_sub(self.clusters)
    }
}

/// A layer in memory.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) page: Paged<LayerState>,
    /// Its number for requests; none once it is deleted.
    pub(crate) handle: Option<Handle>,
    /// Layers whose parent it is, deleted ones among them.
    pub(crate) children: u32,
    /// Requests in work that change it.
    pub(crate) writes: u32,
    /// Nothing new is begun: a snapshot is being taken.
    pub(crate) held: bool,
    /// Requests that wait for the end of that.
    pub(crate) waiting: VecDeque<Key>,
    /// Region that the next overwrite of a sequential stream would mark, and how many it marks.
    pub(crate) stream: (u32, u32),
}

impl Layer {
    /// A layer around a page.
    pub(crate) const fn new(page: Paged<LayerState>) -> Self {
        Self {
            page,
            handle: None,
            children: 0,
            writes: 0,
            held: false,
            waiting: VecDeque::new(),
            stream: (u32::MAX, 1),
        }
    }

    /// What its page holds.
    pub(crate) const fn state(&self) -> &LayerState {
        self.page.get()
    }
}

/// Pair numbers, 0 for none: root, table or directory.
pub(crate) type Pointers = Vec<u64>;

/// Everything that says where blocks are.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) root: Paged<Pointers>,
    pub(crate) tables: BTreeMap<u32, Paged<Pointers>>,
    /// By number; a layer of which only the page's place is known is in `tables` alone.
    pub(crate) layers: BTreeMap<u32, Layer>,
    pub(crate) records: BTreeMap<u32, Paged<Vec<u8>>>,
    pub(crate) directories: HashMap<(u32, u32), Paged<Pointers>, Fixed>,
    pub(crate) leaves: HashMap<(u32, u32), Box<Leaf>, Fixed>,
    pub(crate) page_maps: BTreeMap<u32, Paged<u32>>,
    /// What sealed layers have of clusters that were read.
    pub(crate) chains: Chains,
    /// Pages of which both slots are bad: what they held is lost.
    pub(crate) lost: BTreeMap<PageId, ()>,
    /// Layers that are served, by their number for requests.
    pub(crate) handles: Handles,
    /// The same by identity.
    pub(crate) names: BTreeMap<[u8; 16], Handle>,
}

/// Where a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// In memory.
    Here,
    /// There is none: nothing of these 64 MiB is owned.
    Absent,
    /// This page is to be read first.
    Missing(PageId),
    /// It is lost.
    Lost(PageId),
}

/// Which leaf comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This one.
    Leaf(u32),
    /// This page is to be read first.
    Missing(PageId),
    /// A directory is lost: it may go on with this one.
    Lost(u32),
    /// None.
    None,
}

impl Map {
    /// Maps of an empty pool.
    pub(crate) fn new() -> Self {
        Self {
            root: Paged::new(alloc::vec![0; POINTERS_PER_PAGE]),
            tables: BTreeMap::new(),
            layers: BTreeMap::new(),
            records: BTreeMap::new(),
            directories: HashMap::with_hasher(Fixed),
            leaves: HashMap::with_hasher(Fixed),
            page_maps: BTreeMap::new(),
            chains: Chains::default(),
            lost: BTreeMap::new(),
            handles: Handles::default(),
            names: BTreeMap::new(),
        }
    }

    /// Where a leaf of a layer is.
    pub(crate) fn look(&self, layer: u32, index: u32) -> Look {
        if self.leaves.contains_key(&(layer, index)) {
            return Look::Here;
        }
        let Some(held) = self.layers.get(&layer) else { return Look::Absent };
        let directory = index / POINTERS_PER_PAGE as u32;
        let pairs = &held.state().directories;
        if pairs.get(directory as usize).is_none_or(|pair| *pair == 0) {
            return Look::Absent;
        }
        let Some(page) = self.directories.get(&(layer, directory)) else {
            return self.missing(PageId::Directory(layer, directory));
        };
        match page.get()[(index % POINTERS_PER_PAGE as u32) as usize] {
            0 => Look::Absent,
            _ => self.missing(PageId::Leaf(layer, index)),
        }
    }

    /// The first leaf of a layer from number `from` on.
    pub(crate) fn next_leaf(&self, layer: u32, from: u32) -> Next {
        let Some(held) = self.layers.get(&layer) else { return Next::None };
        let per_page = POINTERS_PER_PAGE as u32;
        let (first, mut at) = (from / per_page, (from % per_page) as usize);
        for (directory, pair) in (0..).zip(&held.state().directories).skip(first as usize) {
            if *pair != 0 {
                let Some(page) = self.directories.get(&(layer, directory)) else {
                    return match self.missing(PageId::Directory(layer, directory)) {
                        Look::Lost(_) => Next::Lost((directory + 1) * per_page),
                        _ => Next::Missing(PageId::Directory(layer, directory)),
                    };
                };
                if let Some(found) = page.get()[at..].iter().position(|pair| *pair != 0) {
                    let found = u32::try_from(at + found).unwrap_or(u32::MAX);
                    return Next::Leaf(directory * per_page + found);
                }
            }
            at = 0;
        }
        Next::None
    }

    fn missing(&self, page: PageId) -> Look {
        if self.lost.contains_key(&page) { Look::Lost(page) } else { Look::Missing(page) }
    }

    /// Pair number of a page that pointers lead to; `None` if there is none, or the page with the
    /// pointer is not in memory.
    pub(crate) fn pair(&self, page: PageId) -> Option<u64> {
        let per_page = POINTERS_PER_PAGE as u32;
        let pair = match page {
            PageId::Table(n) => *self.root.get().get(n as usize)?,
            PageId::Layer(id) => self.tables.get(&(id / per_page))?.get()[(id % per_page) as usize],
            PageId::Record(id) => self.layers.get(&id)?.state().record,
            PageId::Directory(id, n) => {
                *self.layers.get(&id)?.state().directories.get(n as usize)?
            }
            PageId::Leaf(id, n) => {
                let directory = self.directories.get(&(id, n / per_page))?;
                directory.get()[(n % per_page) as usize]
            }
            PageId::Root | PageId::Bitmap(_) | PageId::MapBitmap(_) | PageId::PageMap(_) => 0,
        };
        (pair != 0).then_some(pair)
    }

    /// The layer that a request names.
    pub(crate) fn layer_of(&self, handle: Handle) -> Option<u32> {
        self.handles.get(handle)
    }

    /// A number for requests, for a layer that is served from now on.
    pub(crate) fn serve(&mut self, id: u32) -> Handle {
        let handle = self.handles.serve(id);
        if let Some(layer) = self.layers.get_mut(&id) {
            layer.handle = Some(handle);
            self.names.insert(layer.state().uuid, handle);
        }
        handle
    }
}
