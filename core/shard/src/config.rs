//! Everything a shard is told before it starts. The shell parses it once, here it cannot be wrong.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::Geometry;
use braid_nvme::ana::AnaState;
use braid_nvme::connect::{CNTLID_MAX, Nqn};
use braid_nvme::target::reservation::Reservations;
use braid_nvme::target::{ControllerModel, Portal};

use crate::event::Disk;
use crate::inject::Injection;
use crate::pool::PoolId;

/// A shard's configuration. All shards of an engine get the same one but for `shard`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which shard this is.
    pub shard: u16,
    /// How many there are.
    pub shards: u16,
    /// What hosts may connect to.
    pub subsystems: Vec<SubsystemConfig>,
    /// Where hosts are listened for, in the order of the shell's listeners; the discovery log
    /// names them.
    pub portals: Vec<Portal>,
    /// What is bounded, and where.
    pub limits: Limits,
}

/// One NVM subsystem.
#[derive(Clone, Debug)]
pub struct SubsystemConfig {
    /// The shard that serves it.
    pub home: u16,
    /// NVMe qualified name, at most 223 bytes.
    pub nqn: String,
    /// Serial number, at most 20 ASCII characters.
    pub serial: String,
    /// Hosts that may connect; none listed: all may.
    pub allowed_hosts: Vec<String>,
    /// How controller ids are given out.
    pub controllers: ControllerModel,
    /// What this engine's paths to it are, among those of other engines.
    pub paths: Paths,
    /// Whether a host may ask for header digests.
    pub header_digest: bool,
    /// Whether a host may ask for data digests.
    pub data_digest: bool,
    /// Its namespaces, ascending by id.
    pub namespaces: Vec<NamespaceConfig>,
}

impl SubsystemConfig {
    /// Whether discovery tells of it: replicas are for nexuses, who know their names.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        !self.namespaces.iter().any(|n| matches!(n.backend, BackendConfig::Member { .. }))
    }

    /// Whether this host may see it and connect.
    #[must_use]
    pub fn admits(&self, host: &Nqn) -> bool {
        crate::directory::admits(&self.allowed_hosts, host)
    }
}

/// What the paths of one engine to a subsystem are, of which others serve it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The least controller id that it gives out, from 1. No other engine gives out one of them.
    pub cntlid_min: u16,
    /// The largest.
    pub cntlid_max: u16,
    /// The state of its groups at first.
    pub state: AnaState,
}

impl Default for Paths {
    fn default() -> Self {
        Self { cntlid_min: 1, cntlid_max: CNTLID_MAX, state: AnaState::Optimized }
    }
}

/// One namespace.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// Namespace id, from 1.
    pub nsid: u32,
    /// Its ANA group, 1 to [`ANA_GROUPS_MAX`](braid_nvme::ana::ANA_GROUPS_MAX).
    pub ana_group: u32,
    /// Namespace globally unique identifier.
    pub nguid: [u8; 16],
    /// Universally unique identifier.
    pub uuid: [u8; 16],
    /// Size and block size.
    pub geometry: Geometry,
    /// Where its bytes are.
    pub backend: BackendConfig,
    /// Its reservations, where the shell keeps them as `Note::Reservations` asks; none: they do
    /// not persist. A replica's are with its pool.
    pub reservations: Option<Box<Reservations>>,
    /// Faults to inject, for tests.
    pub injections: Vec<Injection>,
    /// Keep unflushed writes aside, so that a kill loses them as a power cut would; for tests.
    pub lose_unflushed: bool,
}

/// Where a namespace's bytes are.
#[derive(Clone, Copy, Debug)]
pub enum BackendConfig {
    /// In this process, gone with it.
    Memory,
    /// In a file or on a device that the shell opened as this disk.
    Disk {
        /// Which.
        disk: Disk,
        /// Discarding gives space back (sparse files, devices that do it).
        discards: bool,
        /// Logical blocks that the device writes whole or not at all when power fails, from 1
        /// (AWUPF says one less).
        atomic_blocks: u16,
    },
    /// A replica or a snapshot in a pool of the subsystem's home shard.
    Replica {
        /// Which pool.
        pool: PoolId,
        /// Which replica or snapshot of it.
        handle: braid_pool::Handle,
        /// Hosts may not write to it: a snapshot.
        read_only: bool,
    },
    /// A replica in a pool of the subsystem's home shard, as nexuses use it: its subsystem bears
    /// the name of [`member_nqn`](crate::member_nqn), and has it as namespace 1, with blocks of
    /// 512 bytes.
    Member {
        /// Which.
        replica: [u8; 16],
    },
    /// A volume that the subsystem's home shard was given by `Shard::volume_add`.
    Volume {
        /// Which.
        volume: [u8; 16],
    },
}

/// The named limits, with their units and defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of a shard, both sides together. Each owns 20 KiB of buffers.
    pub connections_max: u32,
    /// Of these, connections of one host; an eighth of the table is never one host's.
    pub connections_per_host_max: u32,
    /// Controllers of a subsystem.
    pub controllers_max: u16,
    /// I/O queues of a controller.
    pub io_queues_max: u16,
    /// Entries of an I/O queue (CAP.MQES + 1).
    pub queue_entries_max: u16,
    /// Commands in work, all connections of a shard together.
    pub ops_max: u32,
    /// Effects that wait for the shell, at most.
    pub effects_max: u32,
    /// Bytes of buffers, as the shell's arena was made.
    pub arena_bytes: u64,
    /// Largest in-capsule data of an I/O queue, in bytes (IOCCSZ follows).
    pub in_capsule_bytes: u32,
    /// Commands taken from one connection in a turn.
    pub commands_per_connection_turn: u32,
    /// The same beside a connection that gives a command or two at a time.
    pub commands_beside_quiet_turn: u32,
    /// Commands taken from all connections in a turn.
    pub commands_per_turn: u32,
    /// How long a connection may stay in a state before its Connect is answered.
    pub handshake: Duration,
    /// How long a host may take to prove who it is.
    pub authentication: Duration,
    /// How long a peer may take no bytes, when it has no keep alive time-out.
    pub send_stall: Duration,
    /// How long we wait for the peer to close after a termination request.
    pub terminate_linger: Duration,
    /// How long a stop waits for commands in flight.
    pub drain: Duration,
}

impl Limits {
    /// Connections that one host may have.
    #[must_use]
    pub fn connections_per_host(&self) -> u32 {
        let spared = self.connections_max - self.connections_max / 8;
        self.connections_per_host_max.min(spared).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            connections_per_host_max: 256,
            controllers_max: 128,
            io_queues_max: 16,
            queue_entries_max: 256,
            ops_max: 8192,
            effects_max: 4096,
            arena_bytes: 64 << 20,
            in_capsule_bytes: 8 << 10,
            commands_per_connection_turn: 64,
            commands_beside_quiet_turn: 10,
            commands_per_turn: 512,
            handshake: Duration::from_secs(10),
            authentication: Duration::from_secs(30),
            send_stall: Duration::from_secs(30),
            terminate_linger: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}
