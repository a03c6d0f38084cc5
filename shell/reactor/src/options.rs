//! What a reactor is told at start.

use std::time::Duration;

use braid_shard::Traffic;

use crate::arena::ArenaOptions;

/// When to spin before blocking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// While recent arrivals were close enough together for it to pay.
    #[default]
    Adaptive,
    /// Until something arrives, without an end: burns a core for the lowest latency.
    Always,
    /// Never.
    Never,
}

/// A reactor's parameters: limits have a unit in their name, all tables are made for them at start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The arena.
    pub arena: ArenaOptions,
    /// Sockets, both sides together.
    pub sockets_max: u32,
    /// Disks that may be added while it runs.
    pub disks_spare: u16,
    /// Operations on disks in flight; further ones wait in the machine.
    pub disk_ops_max: u32,
    /// Medium buffers lent to the kernel for what arrives on streams, for each kind of traffic; a
    /// power of two. They are filled in turn, so all of them should fit into the CPU's cache beside
    /// everything else.
    pub receive_buffers: [u16; Traffic::ALL.len()],
    /// Submission queue entries; completions get four times as many.
    pub ring_entries: u32,
    /// When to spin.
    pub polling: Polling,
    /// For how long to spin at most, unless always.
    pub poll: Duration,
    /// How often a connect sends SYN again before it gives up (TCP_SYNCNT).
    pub syn_retries: u8,
    /// Whether to pin the arena in the kernel, which saves a page walk per disk operation.
    pub register_buffers: bool,
    /// Identifies this boot of the node.
    pub boot_id: [u8; 16],
    /// For everything that must differ between runs.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            arena: ArenaOptions::default(),
            sockets_max: 512,
            disks_spare: 32,
            disk_ops_max: 8192,
            receive_buffers: [32, 16, 32],
            ring_entries: 1024,
            polling: Polling::Adaptive,
            poll: Duration::from_micros(50),
            syn_retries: 2,
            register_buffers: true,
            boot_id: [0; 16],
            seed: 0,
        }
    }
}
