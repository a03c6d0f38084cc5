//! Commands of the management, and lists.

use braid_block::{Instant, Memory};

use crate::{Command, Handle, LayerInfo, Pool, PoolInfo};

#[derive(Debug, Default)]
pub(crate) struct Commands {}

impl Pool {
    /// Takes a command of the management; its completion bears `tag`.
    pub fn command<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _tag: u64,
        _command: Command,
    ) {
        unimplemented!()
    }
    /// The number of a replica or snapshot.
    #[must_use]
    pub fn find(&self, uuid: &[u8; 16]) -> Option<Handle> {
        self.store.map.names.get(uuid).copied()
    }
    /// A replica or snapshot.
    #[must_use]
    pub fn layer(&self, _handle: Handle) -> Option<LayerInfo> {
        unimplemented!()
    }
    /// The pool as a whole.
    #[must_use]
    pub fn info(&self) -> PoolInfo {
        unimplemented!()
    }
    pub(crate) fn layers_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {}
    /// Ends all commands in work with an error.
    pub(crate) fn fail_commands(&mut self) {}
}
