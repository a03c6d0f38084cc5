//! The header that every page bears, and its checksum.

use braid_block::Memory;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The pool as a whole.
    Superblock = 1,
    /// Where the layer tables are.
    Root = 2,
    /// Where the layer pages are.
    Table = 3,
    /// A layer.
    Layer = 4,
    /// A layer's copy of the membership record.
    Record = 5,
    /// Where a layer's leaves are.
    Directory = 6,
    /// Where a layer's blocks are.
    Leaf = 7,
    /// Which clusters of a slab are in use.
    Bitmap = 8,
    /// Which clusters of a slab hold pages.
    MapBitmap = 9,
    /// Which page pairs of a cluster are in use.
    PageMap = 10,
    /// Checksums of blocks.
    Checksum = 11,
}

impl Kind {
    /// The kind with this number.
    pub(crate) const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Superblock,
            2 => Self::Root,
            3 => Self::Table,
            4 => Self::Layer,
            5 => Self::Record,
            6 => Self::Directory,
            7 => Self::Leaf,
            8 => Self::Bitmap,
            9 => Self::MapBitmap,
            10 => Self::PageMap,
            11 => Self::Checksum,
            _ => return None,
        })
    }
}

/// Stands at the beginning of every page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct PageHeader {
    /// A [`Kind`].
    pub(crate) kind: U32,
    /// CRC32C of the page with this field zero, continued from the CRC32C of the pool's uuid.
    pub(crate) crc: U32,
    /// First byte of this slot on the device: tells a misdirected write.
    pub(crate) address: U64,
    /// Number of the newest journal block whose cells the page holds.
    pub(crate) lsn: U64,
    /// What it belongs to: the layer in the upper half, its index in the lower.
    pub(crate) owner: U64,
}

const _: () = assert!(size_of::<PageHeader>() == 32);

/// The checksum of a page of the pool whose uuid has the CRC32C `seed`.
pub(crate) fn page_crc<M: Memory>(page: &[u8], seed: u32) -> u32 {
    let crc = M::crc_bytes(&page[..4], seed);
    let crc = M::crc_bytes(&[0; 4], crc);
    M::crc_bytes(&page[8..], crc)
}
