//! A page of pointers to pages: root, layer table, directory.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::page::PageHeader;

/// Pointers of a page. A directory of leaves so spans 50 GiB.
pub(crate) const POINTERS_PER_PAGE: usize = 800;

/// Pair numbers, 0 for none.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct PointersPage {
    pub(crate) header: PageHeader,
    pub(crate) pairs: [[u8; 5]; POINTERS_PER_PAGE],
    pub(crate) reserved: [u8; 64],
}

const _: () = assert!(size_of::<PointersPage>() == 4096);
