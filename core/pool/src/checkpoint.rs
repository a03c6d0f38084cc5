//! Bringing pages up to date, so that the journal's tail can move.

use braid_block::{Instant, IoError, Key, Memory};

use crate::Pool;

#[derive(Debug, Default)]
pub(crate) struct Checkpoint {}

impl Pool {
    /// Begins a checkpoint when one is due, and takes the running one further.
    pub(crate) fn checkpoint_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {}
    pub(crate) fn checkpoint_due(&self) -> Option<Instant> {
        None
    }
    pub(crate) fn on_checkpoint_done<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _key: Key,
        _result: Result<u32, IoError>,
    ) {
        unimplemented!()
    }
    /// Asks for a checkpoint as soon as possible.
    pub(crate) fn want_checkpoint(&mut self) {
        unimplemented!()
    }
    /// Whether none runs and nothing is changed.
    pub(crate) fn is_checkpointed(&self) -> bool {
        unimplemented!()
    }
}
