//! A leaf: where 64 MiB of a layer are.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::page::PageHeader;

/// One cluster of a leaf.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LeafEntry {
    /// Its cluster on the device plus one, 0: none; the highest bit: opaque.
    pub(crate) phys: U32,
    /// Which of its blocks the layer owns.
    pub(crate) own: U64,
}

/// A page of a layer's map.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LeafPage {
    pub(crate) header: PageHeader,
    /// Regions whose checksums may lag behind their content.
    pub(crate) open: U64,
    /// Regions that other members of a mirror may not have alike.
    pub(crate) dirty: U64,
    pub(crate) entries: [LeafEntry; 256],
    /// One byte a cluster for the generation of its encryption key; 0 in this version.
    pub(crate) keys: [u8; 256],
    pub(crate) reserved: [u8; 720],
}

const _: () = assert!(size_of::<LeafEntry>() == 12);
const _: () = assert!(size_of::<LeafPage>() == 4096);
const _: () = assert!(core::mem::offset_of!(LeafPage, entries) == 48);
