//! Checksums of blocks, by their place on the device.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::page::PageHeader;

/// Checksums of a page: 15 clusters.
pub(crate) const SUMS_PER_PAGE: usize = 960;

/// Checksums of 960 blocks. Of the pair the newest valid slot counts; none valid: none known.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ChecksumPage {
    pub(crate) header: PageHeader,
    pub(crate) sums: [U32; SUMS_PER_PAGE],
    pub(crate) reserved: [u8; 224],
}

const _: () = assert!(size_of::<ChecksumPage>() == 4096);
