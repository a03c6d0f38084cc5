//! What a shard counted, read at one moment on its own thread.

use braid_reactor::{ArenaCounters, Counters, World};
use braid_shard::Shard;

/// A shard's counts.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Which shard.
    pub shard: u16,
    /// What its reactor did.
    pub reactor: Counters,
    /// What its arena holds.
    pub arena: ArenaCounters,
}

impl Snapshot {
    /// Reads all counters.
    #[must_use]
    pub fn take(shard: u16, machine: &Shard, world: &World<'_>) -> Self {
        let _ = machine;
        Self { shard, reactor: *world.counters, arena: world.mem.counters() }
    }
}
