//! Which parts of a replica are allocated.

use braid_block::{Instant, Key, Memory};

use crate::Pool;

impl Pool {
    /// Carries a `Work::Status` request out, as far as the maps in memory allow.
    pub(crate) fn status<M: Memory>(&mut self, _mem: &mut M, _now: Instant, _key: Key) {
        unimplemented!()
    }
}
