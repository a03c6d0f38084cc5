//! Whole shards in the simulated cluster: each engine is a `braid_shard::Shard` with its pool, its
//! replicas, its volumes and its subsystems, and each host is one with nothing but its host side.
//! What they say to each other is NVMe/TCP, byte for byte, over simulated streams.
//!
//! ```text
//! cluster::host (Linux multipath) -> hosts: Shard -> streams ==bytes==> streams -> engine: Shard
//!                                                                          |         |
//!                                           snoop: what came, what was answered    drive: disk
//! ```
//!
//! Time, network, disks, store, planner, faults, workloads and checkers are those of
//! [`crate::cluster`]; the level of a run chooses which of both runs at the nodes.

pub(crate) mod engine;
pub(crate) mod hosts;
mod names;
mod snoop;
mod stream;
mod streams;
