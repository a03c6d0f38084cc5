//! Everything a pool is told before it is opened or made.

use core::time::Duration;

/// What a pool is opened with.
#[derive(Clone, Debug)]
pub struct Config {
    /// First of the eight token kinds that are the pool's: `Token::kind` of all its effects is
    /// `token_base .. token_base + 8`.
    pub token_base: u8,
    /// What the shell knows of the device.
    pub device: Device,
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
    /// Who opens it, for the message that a second engine gets: at most 63 bytes.
    pub owner: alloc::string::String,
    /// Where random identities come from.
    pub seed: u64,
    /// Look, but write nothing: for `inspect` and `verify`.
    pub read_only: bool,
    /// What is bounded, and where.
    pub limits: Limits,
    /// A bug to be found by the crash campaign. `None` but in a test of the test.
    pub plant: Option<Plant>,
}

/// A device or file.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Its size.
    pub bytes: u64,
    /// What a power cut leaves old or new, never mixed: 512 or 4096.
    pub sector: u32,
    /// Freed clusters are to be discarded: a block device, or a sparse file.
    pub discards: bool,
}

/// What a pool is made with.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Its identity. None that a pool on this device had before: only by its identity pages are
    /// known as those of this pool, and pages of the other one are still there.
    pub uuid: [u8; 16],
    /// Size in bytes of the device, at least 16 MiB.
    pub bytes: u64,
    /// Blocks of the journal ring.
    pub ring_blocks: u32,
    /// Clusters of a slab: at most 32,512.
    pub slab_clusters: u32,
    /// Clusters kept for metadata and merges.
    pub reserve_clusters: u32,
}

/// The named limits, with their units and defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests in work. Each takes at most three pieces.
    pub requests_max: u32,
    /// Replicas and snapshots.
    pub layers_max: u32,
    /// Checksums not yet merged into their pages: 20 bytes each.
    pub delta_max: u32,
    /// Bytes of checksum pages in memory.
    pub cache_bytes: u64,
    /// Leaves changed since the last checkpoint.
    pub dirty_leaves_max: u32,
    /// Journal blocks after which a checkpoint begins, if half the ring is not less.
    pub checkpoint_blocks: u32,
    /// Blocks written first whose place in the journal is not settled: more begin a settle.
    pub unsettled_max: u32,
    /// Map leaves in memory, before clean ones are let go: 64 MiB of a replica each.
    pub leaves_max: u32,
    /// After so long without work, caches are let go.
    pub idle: Duration,
    /// After so long an operation on the device counts as stalled.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_max: 8192,
            layers_max: 65_536,
            delta_max: 1_800_000,
            cache_bytes: 32 << 20,
            dirty_leaves_max: 8192,
            checkpoint_blocks: 16_384,
            unsettled_max: 16_384,
            leaves_max: 1 << 20,
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(10),
        }
    }
}

/// Bugs that the crash campaign must find: each breaks one rule that the format depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Every other flush is acknowledged without one.
    SkipFlush,
    /// A journal block's CRC does not cover its second half.
    TearRecord,
    /// A cleared block or freed cluster is used again at once.
    ReuseEarly,
    /// Journal blocks count as settled before their data is durable.
    SettleEarly,
    /// Overlapping writes do not wait for each other.
    NoLock,
    /// A reopen takes open regions for closed ones.
    IgnoreOpenRegion,
    /// A block is overwritten before the mark of its region is durable.
    MarkLate,
}
