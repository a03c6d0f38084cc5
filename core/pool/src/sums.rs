//! Checksums of blocks: what is not in their pages yet, and pages in memory.

use crate::geometry::Layout;

/// What is known of a block's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// This is it.
    Known(u32),
    /// This page is to be read first.
    Missing(u64),
    /// Its page is lost or was never written, and the journal says nothing.
    Unknown,
}

/// Checksums in memory.
#[derive(Debug, Default)]
pub(crate) struct Sums {}

impl Sums {
    pub(crate) fn new(_delta_max: u32, _cache_bytes: u64) -> Self {
        Self {}
    }
    /// Cells of blocks up to this were replayed: a page may hold newer ones.
    pub(crate) fn replayed_to(&mut self, _seq: u64) {
        unimplemented!()
    }
    /// Notes the checksum of a block, from a cell of journal block `seq`.
    pub(crate) fn set(&mut self, _layout: &Layout, _block: u64, _crc: u32, _seq: u64) {
        unimplemented!()
    }
    /// The checksum of a block.
    pub(crate) fn get(&mut self, _layout: &Layout, _block: u64) -> Sum {
        unimplemented!()
    }
    /// Cells not in pages yet.
    pub(crate) fn delta_len(&self) -> usize {
        unimplemented!()
    }
    /// Bytes of memory, about.
    pub(crate) fn memory(&self) -> u64 {
        unimplemented!()
    }
}
