//! Segments: a range is made equal.

use braid_block::{Instant, Key, Memory};

use super::Volume;

impl Volume {
    /// Somebody waits to read these regions.
    pub(crate) fn want_regions(&mut self, first: u32, end: u32) {
        let _ = (first, end);
    }

    /// A command met a block that a member cannot read.
    pub(crate) fn want_repair(&mut self, first: u64, end: u64, key: Key) {
        let _ = (first, end, key);
    }

    pub(crate) fn segments_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let _ = (mem, now);
    }
}
