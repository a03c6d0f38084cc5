//! Checksums anew for regions that were open when the pool stopped without order.

use braid_block::{Instant, Memory};

use crate::Pool;

/// How far the pass is.
#[derive(Debug, Default)]
pub(crate) struct Adopt {
    /// Some regions may be left.
    wanted: bool,
}

impl Adopt {
    /// The pool is open; there may be regions to be adopted.
    pub(crate) fn begin(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Whether no region is left.
    pub(crate) const fn is_done(&self) -> bool {
        !self.wanted
    }
}

impl Pool {
    pub(crate) fn adopt_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {}
}
