//! What a shard counted, read at one moment on its own thread.

use braid_nexus::View;
use braid_pool::{PoolInfo, State};
use braid_reactor::{ArenaCounters, Counters, World};
use braid_shard::{Latency, NamespaceCounters, PoolId, Shard};

/// A shard's counts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Which shard.
    pub shard: u16,
    /// What its state machine did.
    pub machine: braid_shard::Counters,
    /// What its reactor did.
    pub reactor: Counters,
    /// What its arena holds.
    pub arena: ArenaCounters,
    /// Connections now.
    pub connections: u64,
    /// Commands in work now.
    pub ops: u64,
    /// The namespaces at home there.
    pub namespaces: Vec<Namespace>,
    /// The controllers at home there.
    pub controllers: Vec<Controller>,
    /// The pools that live there.
    pub pools: Vec<Pool>,
    /// The volumes that are served there, or stood by for.
    pub volumes: Vec<Volume>,
}

/// A volume's figures.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// Which.
    pub uuid: [u8; 16],
    /// Where it stands.
    pub view: View,
}

/// A pool's figures.
#[derive(Clone, Debug)]
pub struct Pool {
    /// What it says about itself.
    pub info: PoolInfo,
    /// It does no more.
    pub failed: bool,
    /// Replicas and clones.
    pub replicas: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// What it counted.
    pub counters: braid_pool::Counters,
    /// How long requests took.
    pub latency: Latency,
}

/// A namespace's counts.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Its subsystem.
    pub subnqn: String,
    /// Its id.
    pub nsid: u32,
    /// What was done.
    pub counters: NamespaceCounters,
}

/// A controller.
#[derive(Clone, Debug, Default)]
pub struct Controller {
    /// Its subsystem.
    pub subnqn: String,
    /// Its id.
    pub cntlid: u16,
    /// Its host.
    pub hostnqn: String,
    /// I/O queues that are connected.
    pub io_queues: u16,
}

impl Snapshot {
    /// Reads all counters.
    #[must_use]
    pub fn take(shard: u16, machine: &Shard, world: &World<'_>) -> Self {
        let namespaces = machine.namespace_counters().map(|(subnqn, nsid, counters)| Namespace {
            subnqn: subnqn.to_owned(),
            nsid,
            counters: *counters,
        });
        let controllers = machine.controllers().map(|info| Controller {
            subnqn: info.subnqn.to_owned(),
            cntlid: info.cntlid,
            hostnqn: info.hostnqn.to_owned(),
            io_queues: info.io_queues,
        });
        let volumes = machine
            .volumes()
            .filter_map(|uuid| Some(Volume { uuid: *uuid, view: machine.volume_view(uuid)? }));
        let pools = machine.pools().filter_map(|id| pool(machine, id));
        Self {
            shard,
            pools: pools.collect(),
            volumes: volumes.collect(),
            machine: *machine.counters(),
            reactor: *world.counters,
            arena: world.mem.counters(),
            connections: machine.connections() as u64,
            ops: machine.ops() as u64,
            namespaces: namespaces.collect(),
            controllers: controllers.collect(),
        }
    }
}

fn pool(machine: &Shard, id: PoolId) -> Option<Pool> {
    let pool = machine.pool(id)?;
    let (mut replicas, mut snapshots) = (0, 0);
    for layer in pool.layers() {
        *if layer.snapshot { &mut snapshots } else { &mut replicas } += 1;
    }
    Some(Pool {
        info: pool.info(),
        failed: pool.state() == State::Failed,
        replicas,
        snapshots,
        counters: *pool.counters(),
        latency: *machine.pool_latency(id)?,
    })
}
