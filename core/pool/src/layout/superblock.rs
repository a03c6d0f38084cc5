//! The superblock: what a pool is, who opened it last, and how it was left.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::page::PageHeader;

/// Begins the content of every superblock.
pub(crate) const MAGIC: [u8; 8] = *b"BRAIDPL1";
/// Version of the format.
pub(crate) const VERSION: u32 = 1;
/// Feature bits that this version can serve; a pool with any other is refused.
pub(crate) const FEATURES_KNOWN: u64 = BIRTH;
/// Feature: the CRC32C from which those of pages and journal blocks go on covers
/// [`Superblock::birth`]: who does not know that finds nothing but damage.
pub(crate) const BIRTH: u64 = 1;
/// Stretches of the device: the first, and one for each time it grew.
pub(crate) const SEGMENTS_MAX: usize = 64;
/// Flag: the pool was stopped in order.
pub(crate) const CLEAN: u32 = 1;
/// Flag: the device failed a write or a flush since.
pub(crate) const ERROR: u32 = 2;
/// Flag: regions may be open since a stop without order, and their checksums lag.
pub(crate) const ADOPT: u32 = 4;
/// Flag: a flush failed since the machine started, and what is read of such regions may be in a
/// cache that will never be written: they stay open until it starts again.
pub(crate) const DROPPED: u32 = 8;

/// Flag: clusters may be free that the last run did not discard, though it stopped in order. Who
/// does not know it loses nothing but their space on a sparse file.
pub(crate) const UNTRIMMED: u32 = 16;

/// A stretch of the device that is cut into slabs.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Segment {
    /// First byte.
    pub(crate) start: U64,
    /// Bytes.
    pub(crate) bytes: U64,
}

/// Four copies: a pair at the beginning of the device, a pair at the end. `header.lsn` counts
/// its versions; the newest valid one is the pool's. Its CRC is continued from 0.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Superblock {
    pub(crate) header: PageHeader,
    /// [`MAGIC`].
    pub(crate) magic: [u8; 8],
    /// [`VERSION`].
    pub(crate) version: U32,
    /// [`CLEAN`], [`ERROR`], [`ADOPT`], [`DROPPED`], [`UNTRIMMED`].
    pub(crate) flags: U32,
    /// Bits of which all must be known to open the pool.
    pub(crate) features: U64,
    /// Bits that an older version may ignore.
    pub(crate) features_compatible: U64,
    /// The pool's identity.
    pub(crate) uuid: [u8; 16],
    /// Size of the device, in bytes, as far as the pool uses it.
    pub(crate) bytes: U64,
    /// Blocks of the journal ring.
    pub(crate) ring_blocks: U32,
    /// Clusters of a slab.
    pub(crate) slab_clusters: U32,
    /// Clusters kept for metadata and merges.
    pub(crate) reserve_clusters: U32,
    /// Journals and sets of slabs; always 1 in this version.
    pub(crate) lanes: U32,
    /// Bytes of a block, and of a cluster.
    pub(crate) block_bytes: U32,
    pub(crate) cluster_bytes: U32,
    /// Bumped at each open.
    pub(crate) incarnation: U64,
    /// The kernel's boot id at the last open.
    pub(crate) boot_id: [u8; 16],
    /// Changes whenever the replicas' instances do.
    pub(crate) session: [u8; 16],
    /// Who opened it last: UTF-8, padded with zeros.
    pub(crate) owner: [u8; 64],
    /// After an orderly stop, the last journal block: its number, its CRC, and the tail.
    pub(crate) last_seq: U64,
    pub(crate) last_crc: U32,
    /// Segments in use.
    pub(crate) segment_count: U32,
    pub(crate) tail: U64,
    /// Where a scrub goes on: layer in the upper half, leaf in the lower; `u64::MAX`: none is
    /// begun.
    pub(crate) scrub: U64,
    pub(crate) segments: [Segment; SEGMENTS_MAX],
    /// Random, from when the pool was made: what an earlier pool of the same identity left on the
    /// device is not taken for this one's.
    pub(crate) birth: U64,
    /// Blocks that the scrub has read up to there, and how many of them are lost; zeros from a
    /// version that did not keep them.
    pub(crate) scrub_blocks: U64,
    pub(crate) scrub_errors: U64,
    pub(crate) reserved: [u8; 2800],
}

const _: () = assert!(size_of::<Superblock>() == 4096);
const _: () = assert!(core::mem::offset_of!(Superblock, uuid) == 64);
