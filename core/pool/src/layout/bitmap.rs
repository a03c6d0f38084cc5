//! Which clusters of a slab are in use, and which page pairs of a cluster.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::page::PageHeader;

/// Words of a bitmap.
pub(crate) const BITMAP_WORDS: usize = 508;
/// Bits of a bitmap: the most clusters that a slab can have.
pub(crate) const BITMAP_BITS: u32 = 508 * 64;

const _: () = assert!(BITMAP_BITS == 32_512);

/// One bit a cluster of the slab.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct BitmapPage {
    pub(crate) header: PageHeader,
    pub(crate) words: [U64; BITMAP_WORDS],
}

const _: () = assert!(size_of::<BitmapPage>() == 4096);

/// The first pair of a cluster of pages: which of its pairs are in use; the first bit always is.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct PageMapPage {
    pub(crate) header: PageHeader,
    pub(crate) used: U32,
    pub(crate) reserved: [u8; 4060],
}

const _: () = assert!(size_of::<PageMapPage>() == 4096);
