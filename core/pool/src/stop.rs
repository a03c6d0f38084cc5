//! Stopping a pool in order, and letting go of everything.

use braid_block::{Instant, Memory};

use crate::Pool;

#[derive(Debug, Default)]
pub(crate) struct Stop {}

impl Pool {
    /// Begins an orderly stop: requests in work end, regions close, maps are written.
    pub fn stop<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {
        unimplemented!()
    }
    /// Gives every buffer back; nothing may be in flight any more, and nothing is called after.
    pub fn drop_leases<M: Memory>(&mut self, _mem: &mut M) {
        unimplemented!()
    }
    pub(crate) fn stop_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {
        unimplemented!()
    }
}
