//! The format on disk, as types that assert their own sizes and offsets.
//!
//! Everything is little endian. A *page* is 4 KiB with a [`PageHeader`]; the pages of the maps
//! come in pairs of two slots that hold the same content between two checkpoints, so that one of
//! them can be lost; the pages of checksums come in pairs of which the newest counts.

mod bitmap;
mod checksum;
mod describe;
mod journal;
mod layer;
mod leaf;
mod page;
mod pointers;
mod superblock;

pub use describe::format_page;

pub(crate) use bitmap::{BITMAP_BITS, BITMAP_WORDS, BitmapPage, PageMapPage};
pub(crate) use checksum::{ChecksumPage, SUMS_PER_PAGE};
pub(crate) use journal::{
    CELLS_PER_BLOCK, Cell, JOURNAL_MAGIC, JournalBlock, JournalHeader, Transferred,
};
pub(crate) use layer::{DIRECTORIES_MAX, LayerFields, LayerPage, RecordPage, Registrant};
pub(crate) use leaf::{LeafEntry, LeafPage};
pub(crate) use page::{Kind, PageHeader, page_crc};
pub(crate) use pointers::{POINTERS_PER_PAGE, PointersPage};
pub(crate) use superblock::{
    ADOPT, BIRTH, CLEAN, DROPPED, ERROR, FEATURES_KNOWN, MAGIC, SEGMENTS_MAX, Segment, Superblock,
    UNTRIMMED, VERSION,
};

/// Bytes of a block: the unit of validity, of checksums and of pages.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes of a page pair.
pub(crate) const PAIR: u64 = 2 * BLOCK;
/// Blocks of a cluster: one bit each in a word.
pub(crate) const CLUSTER_BLOCKS: u64 = 64;
/// Bytes of a cluster: the unit of allocation.
pub(crate) const CLUSTER: u64 = CLUSTER_BLOCKS * BLOCK;
/// Blocks of a region: the unit of dirty marks.
pub(crate) const REGION_BLOCKS: u64 = 256;
/// Clusters of a region.
pub(crate) const REGION_CLUSTERS: u64 = REGION_BLOCKS / CLUSTER_BLOCKS;
/// Clusters of a leaf.
pub(crate) const LEAF_CLUSTERS: u64 = 256;
/// Regions of a leaf: one bit each in a word.
pub(crate) const LEAF_REGIONS: u64 = LEAF_CLUSTERS / REGION_CLUSTERS;
/// Page pairs of a cluster that holds pages; the first is its own map.
pub(crate) const CLUSTER_PAIRS: u64 = CLUSTER / PAIR;

const _: () = assert!(LEAF_REGIONS == 64 && CLUSTER_PAIRS == 32);
