//! Pages by name: where they are on the device and in memory.

use alloc::boxed::Box;

use crate::codec::{Content, Image};
use crate::geometry::ROOT;
use crate::layout::{BLOCK, POINTERS_PER_PAGE};
use crate::map::{Layer, Leaf, LeafMap, PageId, Touch};
use crate::paged::Paged;
use crate::store::Store;

/// A page in memory, whatever it holds.
pub(crate) trait Held {
    /// See [`Paged::freeze`].
    fn freeze(&mut self);
    /// See [`Paged::is_frozen`].
    fn is_frozen(&self) -> bool;
    /// See [`Paged::written`].
    fn written(&mut self, lsn: u64);
    /// Whether the second slot is to be written first.
    fn second_first(&self) -> bool;
    /// See [`Paged::lsn`].
    fn lsn(&self) -> u64;
    /// See [`Paged::is_dirty`].
    fn is_dirty(&self) -> bool;
    /// One slot is worse than the other: both are to be written, the worse one first. Tells
    /// whether the page is to be listed as changed.
    fn mend(&mut self, second_first: bool) -> bool;
}

impl<T: Clone> Held for Paged<T> {
    fn is_dirty(&self) -> bool {
        Self::is_dirty(self)
    }

    fn lsn(&self) -> u64 {
        Self::lsn(self)
    }

    fn freeze(&mut self) {
        Self::freeze(self);
    }

    fn is_frozen(&self) -> bool {
        Self::is_frozen(self)
    }

    fn written(&mut self, lsn: u64) {
        Self::written(self, lsn);
    }

    fn second_first(&self) -> bool {
        self.second_first
    }

    fn mend(&mut self, second_first: bool) -> bool {
        self.second_first = second_first;
        self.change().1
    }
}

impl Store {
    /// First byte of a page's pair; `None` if it has none, or the page with the pointer to it is
    /// not in memory.
    pub(crate) fn address(&self, page: PageId) -> Option<u64> {
        let slabs = self.layout.slabs.len();
        match page {
            PageId::Root => Some(ROOT),
            PageId::Bitmap(slab) if (slab as usize) < slabs => {
                Some(self.layout.bitmap(slab as usize))
            }
            PageId::MapBitmap(slab) if (slab as usize) < slabs => {
                Some(self.layout.map_bitmap(slab as usize))
            }
            PageId::PageMap(cluster) if self.space.is_map(cluster) => {
                Some(self.layout.cluster(cluster))
            }
            PageId::Bitmap(_) | PageId::MapBitmap(_) | PageId::PageMap(_) => None,
            _ => self.map.pair(page).map(|pair| pair * BLOCK),
        }
    }

    /// Whether a page is in memory. Root and bitmaps always are, but while the pool is opened they
    /// may be read nonetheless.
    pub(crate) fn is_here(&self, page: PageId) -> bool {
        let map = &self.map;
        match page {
            PageId::Root | PageId::Bitmap(_) | PageId::MapBitmap(_) => true,
            PageId::Table(n) => map.tables.contains_key(&n),
            PageId::Layer(id) => map.layers.contains_key(&id),
            PageId::Record(id) => map.records.contains_key(&id),
            PageId::Directory(id, n) => map.directories.contains_key(&(id, n)),
            PageId::Leaf(id, n) => map.leaves.contains_key(&(id, n)),
            PageId::PageMap(cluster) => map.page_maps.contains_key(&cluster),
        }
    }

    /// A page in memory.
    pub(crate) fn held(&mut self, page: PageId) -> Option<&mut dyn Held> {
        let map = &mut self.map;
        Some(match page {
            PageId::Root => &mut map.root,
            PageId::Table(n) => map.tables.get_mut(&n)?,
            PageId::Layer(id) => &mut map.layers.get_mut(&id)?.page,
            PageId::Record(id) => map.records.get_mut(&id)?,
            PageId::Directory(id, n) => map.directories.get_mut(&(id, n))?,
            PageId::Leaf(id, n) => &mut map.leaves.get_mut(&(id, n))?.page,
            PageId::Bitmap(slab) => &mut self.space.slabs.get_mut(slab as usize)?.bits,
            PageId::MapBitmap(slab) => &mut self.space.slabs.get_mut(slab as usize)?.maps,
            PageId::PageMap(cluster) => map.page_maps.get_mut(&cluster)?,
        })
    }

    /// What the running checkpoint is to write of a page that it froze.
    pub(crate) fn image(&self, page: PageId) -> Option<Image<'_>> {
        fn frozen<T: Clone>(page: Option<&Paged<T>>) -> Option<&T> {
            page.filter(|page| page.is_frozen()).map(Paged::image)
        }
        let (map, slabs) = (&self.map, &self.space.slabs);
        let image = match page {
            PageId::Root => frozen(Some(&map.root)).map(Image::Pointers),
            PageId::Table(n) => frozen(map.tables.get(&n)).map(Image::Pointers),
            PageId::Layer(id) => frozen(map.layers.get(&id).map(|l| &l.page)).map(Image::Layer),
            PageId::Record(id) => frozen(map.records.get(&id)).map(|bytes| Image::Record(bytes)),
            PageId::Directory(id, n) => frozen(map.directories.get(&(id, n))).map(Image::Pointers),
            PageId::Leaf(id, n) => {
                frozen(map.leaves.get(&(id, n)).map(|leaf| &leaf.page)).map(Image::Leaf)
            }
            PageId::Bitmap(slab) => {
                frozen(slabs.get(slab as usize).map(|s| &s.bits)).map(Image::Bits)
            }
            PageId::MapBitmap(slab) => {
                frozen(slabs.get(slab as usize).map(|s| &s.maps)).map(Image::Bits)
            }
            PageId::PageMap(cluster) => {
                frozen(map.page_maps.get(&cluster)).map(|used| Image::Used(*used))
            }
        };
        image.or_else(|| self.buried.get(&page).map(Content::image))
    }

    /// Takes a page that was read into memory; it has all cells up to `lsn`.
    pub(crate) fn install(&mut self, page: PageId, lsn: u64, content: Content) {
        let map = &mut self.map;
        match (page, content) {
            (PageId::Root, Content::Pointers(pairs)) => map.root = Paged::loaded(pairs, lsn),
            (PageId::Table(n), Content::Pointers(pairs)) => {
                map.tables.insert(n, Paged::loaded(pairs, lsn));
            }
            (PageId::Layer(id), Content::Layer(state)) => {
                map.layers.insert(id, Layer::new(Paged::loaded(*state, lsn)));
            }
            (PageId::Record(id), Content::Record(record)) => {
                map.records.insert(id, Paged::loaded(record, lsn));
            }
            (PageId::Directory(id, n), Content::Pointers(pairs)) => {
                map.directories.insert((id, n), Paged::loaded(pairs, lsn));
            }
            (PageId::Leaf(id, n), Content::Leaf(leaf)) => {
                map.leaves.insert((id, n), Box::new(Leaf::new(Paged::loaded(*leaf, lsn))));
            }
            (PageId::Bitmap(slab), Content::Bits(bits)) => {
                if let Some(slab) = self.space.slabs.get_mut(slab as usize) {
                    slab.bits = Paged::loaded(bits, lsn);
                }
            }
            (PageId::MapBitmap(slab), Content::Bits(bits)) => {
                if let Some(slab) = self.space.slabs.get_mut(slab as usize) {
                    slab.maps = Paged::loaded(bits, lsn);
                }
            }
            (PageId::PageMap(cluster), Content::Used(used)) => {
                map.page_maps.insert(cluster, Paged::loaded(used, lsn));
            }
            (page, _) => unreachable!("a {page:?} decodes to its own kind"),
        }
    }

    /// Forgets what happened in the regions of a leaf, if none of them is open, and all of it is
    /// over.
    pub(crate) fn forget_touches(&mut self, page: PageId, over: impl Fn(&Touch) -> bool) {
        if let PageId::Leaf(layer, index) = page
            && let Some(leaf) = self.map.leaves.get_mut(&(layer, index))
            && leaf.page.get().open == 0
            && leaf.regions.as_ref().is_some_and(|all| all.iter().all(over))
        {
            leaf.regions = None;
        }
    }

    /// Both slots of a page are to be written again, the worse one first.
    pub(crate) fn mend(&mut self, page: PageId, second_first: bool) {
        if self.held(page).is_some_and(|held| held.mend(second_first)) {
            self.changed.push(page);
        }
    }
}

/// What a page holds that has a place and was never written; `None` for those that come with
/// cells of their own.
pub(crate) fn nothing(page: PageId) -> Option<Content> {
    match page {
        PageId::Root | PageId::Table(_) | PageId::Directory(..) => {
            Some(Content::Pointers(alloc::vec![0; POINTERS_PER_PAGE]))
        }
        PageId::Leaf(..) => Some(Content::Leaf(Box::new(LeafMap::new()))),
        PageId::PageMap(_) => Some(Content::Used(1)),
        PageId::Record(_) => Some(Content::Record(alloc::vec::Vec::new())),
        PageId::Layer(_) | PageId::Bitmap(_) | PageId::MapBitmap(_) => None,
    }
}
