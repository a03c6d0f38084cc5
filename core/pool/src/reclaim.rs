//! Giving back the space of what went away: freeing, merging into a child, discarding.

use braid_block::{Instant, Key, Memory};

use crate::Pool;

#[derive(Debug, Default)]
pub(crate) struct Reclaim {}

impl Pool {
    pub(crate) fn reclaim_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {}
    pub(crate) fn on_discarded<M: Memory>(&mut self, _mem: &mut M, _now: Instant, _key: Key) {
        unimplemented!()
    }
    pub(crate) fn space_wanted(&mut self) {}
    pub(crate) fn reclaim_wanted(&mut self) {}
}
