//! What a pool says about itself: for lists, metrics and `inspect`.

use alloc::string::String;

use braid_block::BlockSize;

use crate::request::Handle;

/// The pool as a whole. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct PoolInfo {
    /// Its identity.
    pub uuid: [u8; 16],
    /// Format version.
    pub version: u32,
    /// Feature bits.
    pub features: u64,
    /// Bumped at each open.
    pub incarnation: u64,
    /// Owner of the last open.
    pub owner: String,
    /// Whether the last stop was in order.
    pub clean: bool,
    /// Space for data and maps.
    pub capacity: u64,
    /// Space in use by data.
    pub data: u64,
    /// Space in use by maps.
    pub maps: u64,
    /// Space given back that is not settled yet.
    pub quarantine: u64,
    /// Space kept for metadata and merges.
    pub reserve: u64,
    /// Space that thick replicas have set aside and not used.
    pub promised: u64,
    /// Space that a new thin write can have.
    pub available: u64,
    /// Sizes of all replicas together.
    pub committed: u64,
    /// Blocks of the journal ring.
    pub journal_blocks: u32,
    /// Of these, blocks that a crash now would replay.
    pub journal_used: u32,
    /// Map leaves in memory.
    pub leaves: u32,
    /// Bytes of memory for maps, checksums and caches, about.
    pub memory: u64,
    /// Blocks that are known to be unverified, waiting for adoption.
    pub unverified_regions: u64,
    /// Where a running scrub stands: bytes checked, and how many there are.
    pub scrub: Option<(u64, u64)>,
}

/// A replica, a clone or a snapshot. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    /// Its number.
    pub handle: Handle,
    /// Its identity.
    pub uuid: [u8; 16],
    /// What people call it.
    pub name: String,
    /// A snapshot: read only.
    pub snapshot: bool,
    /// Of a snapshot, the replica it was taken of; of a clone, the snapshot it was made of.
    pub source: Option<[u8; 16]>,
    /// Size.
    pub bytes: u64,
    /// Logical block size.
    pub block: BlockSize,
    /// Space is set aside for it.
    pub thick: bool,
    /// A member of a mirror.
    pub member: bool,
    /// Seconds since 1970.
    pub created: u64,
    /// Changes whenever acknowledged, unflushed data may be gone.
    pub instance: u64,
    /// Number of the last numbered flush.
    pub flush_number: u64,
    /// Space of which it is the owner: all space has one. If nothing depends on it, so much comes
    /// free when it goes away; if one layer does, that one keeps what it sees of it; if more do,
    /// nothing comes free before.
    pub own: u64,
    /// Space of the snapshots beneath it, of which it may see something.
    pub shared: u64,
    /// Clones and later snapshots that depend on it.
    pub children: u32,
}
