//! Reading everything once in a while.

use braid_block::{Instant, Memory};

use crate::Pool;

#[derive(Debug, Default)]
pub(crate) struct Scrub {}

impl Pool {
    pub(crate) fn scrub_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {}
    pub(crate) fn scrub_due(&self) -> Option<Instant> {
        self.reclaim_due()
    }
    pub(crate) fn set_scrub(&mut self, _now: Instant, _rate: u64) -> crate::Done {
        unimplemented!()
    }
    pub(crate) fn scrub_progress(&self) -> Option<(u64, u64)> {
        None
    }
}
