//! Between pages on disk and maps in memory.
//!
//! Invariants:
//! 1. Any bytes decode to a value that makes sense, or to nothing: never to a panic.
//! 2. Clusters and pairs that a decoded value names exist in this pool.
//! 3. A page says what it is, whose it is and where it is: what was written to a wrong place, or
//!    belongs to somebody else, does not decode.

mod layer;

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::Memory;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::geometry::Layout;
use crate::layout::{BITMAP_WORDS, BLOCK, BitmapPage, ChecksumPage, Kind, LayerPage, LeafPage};
use crate::layout::{PageHeader, PageMapPage, PointersPage, RecordPage, SUMS_PER_PAGE, page_crc};
use crate::map::{LayerState, LeafMap, PageId, Pointers};
use crate::space::Bits;

pub(crate) use layer::{layer_fields, layer_state};

/// Kind, layer and index of a page of the maps, as headers and cells name it.
pub(crate) const fn name(page: PageId) -> (Kind, u32, u32) {
    match page {
        PageId::Root => (Kind::Root, 0, 0),
        PageId::Table(n) => (Kind::Table, 0, n),
        PageId::Layer(id) => (Kind::Layer, id, 0),
        PageId::Record(id) => (Kind::Record, id, 0),
        PageId::Directory(id, n) => (Kind::Directory, id, n),
        PageId::Leaf(id, n) => (Kind::Leaf, id, n),
        PageId::Bitmap(slab) => (Kind::Bitmap, 0, slab),
        PageId::MapBitmap(slab) => (Kind::MapBitmap, 0, slab),
        PageId::PageMap(cluster) => (Kind::PageMap, 0, cluster),
    }
}

/// What a page's header must say beside its checksum and its lsn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    kind: Kind,
    /// First byte of the slot on the device.
    address: u64,
    owner: u64,
}

impl Stamp {
    /// Of a page of the maps in the slot at `address`.
    pub(crate) const fn map(page: PageId, address: u64) -> Self {
        let (kind, layer, index) = name(page);
        Self { kind, address, owner: (layer as u64) << 32 | index as u64 }
    }

    /// Of a page of checksums in the slot at `address`.
    pub(crate) const fn sums(page: u64, address: u64) -> Self {
        Self { kind: Kind::Checksum, address, owner: page }
    }

    fn header(self, lsn: u64) -> PageHeader {
        PageHeader {
            kind: u32::from(self.kind as u8).into(),
            crc: 0.into(),
            address: self.address.into(),
            lsn: lsn.into(),
            owner: self.owner.into(),
        }
    }
}

/// The value of a page, to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Image<'a> {
    /// Root, table or directory.
    Pointers(&'a Pointers),
    Layer(&'a LayerState),
    Record(&'a [u8]),
    Leaf(&'a LeafMap),
    /// Either bitmap of a slab.
    Bits(&'a Bits),
    /// Pairs in use of a cluster of pages.
    Used(u32),
}

/// The value of a page, as it was read.
#[derive(Debug)]
pub(crate) enum Content {
    /// Root, table or directory.
    Pointers(Pointers),
    Layer(Box<LayerState>),
    Record(Vec<u8>),
    Leaf(Box<LeafMap>),
    /// Either bitmap of a slab.
    Bits(Bits),
    /// Pairs in use of a cluster of pages.
    Used(u32),
}

impl Content {
    /// The value, to be written.
    pub(crate) fn image(&self) -> Image<'_> {
        match self {
            Self::Pointers(pairs) => Image::Pointers(pairs),
            Self::Layer(state) => Image::Layer(state),
            Self::Record(record) => Image::Record(record),
            Self::Leaf(map) => Image::Leaf(map),
            Self::Bits(bits) => Image::Bits(bits),
            Self::Used(used) => Image::Used(*used),
        }
    }
}

/// Writes a page of the maps, which has all cells up to `lsn`, into a block.
pub(crate) fn encode<M: Memory>(
    bytes: &mut [u8],
    stamp: Stamp,
    lsn: u64,
    seed: u32,
    image: Image<'_>,
) {
    bytes.fill(0);
    match image {
        Image::Pointers(pairs) => {
            for (raw, pair) in view::<PointersPage>(bytes).pairs.iter_mut().zip(pairs) {
                *raw = pair_bytes(*pair);
            }
        }
        Image::Layer(state) => {
            let page = view::<LayerPage>(bytes);
            page.fields = layer_fields(state);
            page.record = pair_bytes(state.record);
            for (raw, pair) in page.directories.iter_mut().zip(&state.directories) {
                *raw = pair_bytes(*pair);
            }
        }
        Image::Record(record) => {
            let page = view::<RecordPage>(bytes);
            let len = record.len().min(page.record.len());
            page.record[..len].copy_from_slice(&record[..len]);
            page.len = u32::try_from(len).unwrap_or(0).into();
        }
        Image::Leaf(map) => {
            let page = view::<LeafPage>(bytes);
            page.open = map.open.into();
            page.dirty = map.dirty.into();
            for (at, entry) in page.entries.iter_mut().enumerate() {
                entry.phys = map.raw(at).into();
                entry.own = map.own[at].into();
            }
        }
        Image::Bits(bits) => {
            for (raw, word) in view::<BitmapPage>(bytes).words.iter_mut().zip(bits.iter()) {
                *raw = (*word).into();
            }
        }
        Image::Used(used) => view::<PageMapPage>(bytes).used = used.into(),
    }
    seal::<M>(bytes, stamp, lsn, seed);
}

/// Writes a page of checksums, which has all cells up to `lsn`, into a block.
pub(crate) fn encode_sums<M: Memory>(
    bytes: &mut [u8],
    stamp: Stamp,
    lsn: u64,
    seed: u32,
    sums: &[u32; SUMS_PER_PAGE],
) {
    bytes.fill(0);
    for (raw, sum) in view::<ChecksumPage>(bytes).sums.iter_mut().zip(sums) {
        *raw = (*sum).into();
    }
    seal::<M>(bytes, stamp, lsn, seed);
}

/// Makes the copy of a page that belongs in its other slot.
pub(crate) fn readdress<M: Memory>(bytes: &mut [u8], stamp: Stamp, lsn: u64, seed: u32) {
    seal::<M>(bytes, stamp, lsn, seed);
}

/// Whether a block is the page that it should be; tells its lsn.
pub(crate) fn judge<M: Memory>(bytes: &[u8], stamp: Stamp, seed: u32) -> Option<u64> {
    let (header, _) = PageHeader::read_from_prefix(bytes).ok()?;
    let meant = header.kind.get() == u32::from(stamp.kind as u8)
        && header.address.get() == stamp.address
        && header.owner.get() == stamp.owner;
    let valid = meant && bytes.len() as u64 == BLOCK && header.crc == page_crc::<M>(bytes, seed);
    valid.then_some(header.lsn.get())
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The page that should be there, with this lsn.
    Page(u64),
    /// Zeros: nobody wrote it.
    Blank,
    /// Anything else, or it cannot be read.
    Bad,
}

impl Found {
    /// The page's lsn, if it is the page.
    pub(crate) const fn lsn(self) -> Option<u64> {
        match self {
            Self::Page(lsn) => Some(lsn),
            Self::Blank | Self::Bad => None,
        }
    }
}

/// Looks at a slot that was read; a page that is newer than the journal is another life's.
pub(crate) fn look<M: Memory>(bytes: &[u8], stamp: Stamp, seed: u32, newest: u64) -> Found {
    match judge::<M>(bytes, stamp, seed) {
        Some(lsn) if lsn <= newest => Found::Page(lsn),
        None if bytes.iter().all(|byte| *byte == 0) => Found::Blank,
        Some(_) | None => Found::Bad,
    }
}

/// The value of a page that [`judge`] found to be what it should be, unless it makes no sense.
pub(crate) fn decode(bytes: &[u8], page: PageId, layout: &Layout) -> Option<Content> {
    Some(match page {
        PageId::Root | PageId::Table(_) | PageId::Directory(..) => {
            let page = PointersPage::ref_from_bytes(bytes).ok()?;
            let pairs = page.pairs.iter().map(|raw| plausible_pair(raw, layout));
            Content::Pointers(pairs.collect::<Option<_>>()?)
        }
        PageId::Layer(_) => Content::Layer(Box::new(decode_layer(bytes, layout)?)),
        PageId::Record(_) => {
            let page = RecordPage::ref_from_bytes(bytes).ok()?;
            let len = usize::try_from(page.len.get()).ok()?;
            Content::Record(page.record.get(..len)?.to_vec())
        }
        PageId::Leaf(..) => Content::Leaf(Box::new(decode_leaf(bytes, layout)?)),
        PageId::Bitmap(slab) | PageId::MapBitmap(slab) => {
            Content::Bits(decode_bits(bytes, layout.slabs.get(slab as usize)?.clusters)?)
        }
        PageId::PageMap(_) => {
            let used = PageMapPage::ref_from_bytes(bytes).ok()?.used.get();
            // Its first pair is this page.
            (used & 1 != 0).then_some(Content::Used(used))?
        }
    })
}

/// The checksums of a page that [`judge`] found to be what it should be.
pub(crate) fn decode_sums(bytes: &[u8], sums: &mut [u32; SUMS_PER_PAGE]) {
    if let Ok(page) = ChecksumPage::ref_from_bytes(bytes) {
        for (sum, raw) in sums.iter_mut().zip(&page.sums) {
            *sum = raw.get();
        }
    }
}

fn decode_layer(bytes: &[u8], layout: &Layout) -> Option<LayerState> {
    let page = LayerPage::ref_from_bytes(bytes).ok()?;
    let mut state = layer_state(&page.fields)?;
    state.record = plausible_pair(&page.record, layout)?;
    let used = page.directories.iter().rposition(|raw| *raw != [0; 5]).map_or(0, |last| last + 1);
    let pairs = page.directories[..used].iter().map(|raw| plausible_pair(raw, layout));
    state.directories = pairs.collect::<Option<_>>()?;
    Some(state)
}

fn decode_leaf(bytes: &[u8], layout: &Layout) -> Option<LeafMap> {
    let page = LeafPage::ref_from_bytes(bytes).ok()?;
    let mut map = LeafMap::new();
    map.open = page.open.get();
    map.dirty = page.dirty.get();
    for (at, entry) in page.entries.iter().enumerate() {
        map.set_raw(at, entry.phys.get());
        map.own[at] = entry.own.get();
        let plausible = match map.phys(at) {
            Some(cluster) => layout.slab_of(cluster).is_some(),
            None => map.own[at] == 0,
        };
        if !plausible {
            return None;
        }
    }
    Some(map)
}

fn decode_bits(bytes: &[u8], clusters: u32) -> Option<Bits> {
    let page = BitmapPage::ref_from_bytes(bytes).ok()?;
    let mut bits: Bits = Box::new([0; BITMAP_WORDS]);
    for (first, (word, raw)) in (0u32..).step_by(64).zip(bits.iter_mut().zip(&page.words)) {
        *word = raw.get();
        // Clusters that the slab does not have are not in use.
        let there = clusters.saturating_sub(first).min(64);
        if *word & !crate::store::mask(0, there) != 0 {
            return None;
        }
    }
    Some(bits)
}

/// A pointer, 0 for none, unless it leads to where no page can be.
fn plausible_pair(raw: &[u8; 5], layout: &Layout) -> Option<u64> {
    let [a, b, c, d, e] = *raw;
    let pair = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
    match layout.pair_place(pair) {
        _ if pair == 0 => Some(0),
        // The first pair of a cluster of pages is the cluster's own.
        Some((_, at)) if at > 0 => Some(pair),
        _ => None,
    }
}

const fn pair_bytes(pair: u64) -> [u8; 5] {
    let [a, b, c, d, e, ..] = pair.to_le_bytes();
    [a, b, c, d, e]
}

/// A block as a page that is to be filled.
fn view<T: FromBytes + IntoBytes + KnownLayout + Immutable>(bytes: &mut [u8]) -> &mut T {
    T::mut_from_bytes(bytes).expect("a page is a block")
}

fn seal<M: Memory>(bytes: &mut [u8], stamp: Stamp, lsn: u64, seed: u32) {
    let header = stamp.header(lsn);
    bytes[..size_of::<PageHeader>()].copy_from_slice(header.as_bytes());
    let crc = page_crc::<M>(bytes, seed);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests;
