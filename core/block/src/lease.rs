//! Buffers by name: the core never owns payload, it holds leases on it.
//!
//! Invariants:
//! 1. A lease is neither `Copy` nor `Clone`: who holds it owns the buffer, and gives it back
//!    exactly once by [`Memory::free`].
//! 2. A buffer that the kernel reads or writes stays leased until its completion arrived, even
//!    when nobody wants the answer.
//! 3. A [`Span`] names bytes of a lease but does not own them: it is only ever sent to the kernel
//!    by an effect whose sender keeps the lease.
//! 4. Nobody may write to bytes that the kernel holds; implementations assert it.

use core::num::NonZeroU32;
use core::ops::Range;

/// Size class of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// 4 KiB: a block, or headers.
    Small,
    /// 16 KiB: in-capsule data, received bytes, admin payload.
    Medium,
    /// 128 KiB: the largest transfer (MDTS).
    Large,
}

impl Class {
    /// All classes, smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Bytes in a buffer of this class.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Small => 4 << 10,
            Self::Medium => 16 << 10,
            Self::Large => 128 << 10,
        }
    }

    /// The smallest class that holds `bytes`, if any does.
    #[must_use]
    pub const fn holding(bytes: u32) -> Option<Self> {
        if bytes <= Self::Small.bytes() {
            Some(Self::Small)
        } else if bytes <= Self::Medium.bytes() {
            Some(Self::Medium)
        } else if bytes <= Self::Large.bytes() {
            Some(Self::Large)
        } else {
            None
        }
    }
}

/// The right to use a buffer. Given back by [`Memory::free`]; a lost one is a leak that the
/// memory reports when its owner is dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    id: LeaseId,
}

/// The name of a leased buffer: an index, and a generation that tells a stale name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId {
    /// Position in the memory's table.
    pub index: u32,
    /// Changes each time the buffer is leased.
    pub generation: NonZeroU32,
}

impl Lease {
    /// Makes the lease for a buffer. Only a [`Memory`] calls this.
    #[must_use]
    pub const fn new(id: LeaseId) -> Self {
        Self { id }
    }

    /// The buffer's name.
    #[must_use]
    pub const fn id(&self) -> LeaseId {
        self.id
    }

    /// Bytes `offset .. offset + len` of this buffer.
    #[must_use]
    pub const fn span(&self, offset: u32, len: u32) -> Span {
        Span { lease: self.id, offset, len }
    }
}

/// A range of bytes of a leased buffer, to be handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The buffer.
    pub lease: LeaseId,
    /// First byte within it.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

/// The arena a shard works in: the reactor lends real memory, the simulator a vector.
///
/// Methods that take a `&Lease` trust its holder: a stale or foreign lease is a programmer's
/// error and panics. None of them allocates from the heap in the steady state.
pub trait Memory {
    /// Leases a buffer, unless the limit is reached. Its content is arbitrary old payload: who
    /// sends it must have written it.
    fn alloc(&mut self, class: Class) -> Option<Lease>;

    /// Gives a buffer back.
    fn free(&mut self, lease: Lease);

    /// Bytes in the buffer.
    fn capacity(&self, lease: &Lease) -> u32;

    /// The buffer's content.
    fn bytes(&self, lease: &Lease) -> &[u8];

    /// The buffer's content, to be changed; asserts that the kernel does not hold it.
    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8];

    /// Copies between two different buffers. Counted as a payload copy.
    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, src_range: Range<u32>);

    /// As [`Memory::copy`], and continues the CRC32C `seed` over the copied bytes in the same pass.
    fn copy_crc(
        &mut self,
        dst: &Lease,
        dst_at: u32,
        src: &Lease,
        src_range: Range<u32>,
        seed: u32,
    ) -> u32;

    /// CRC32C of a part of the buffer, continued from `seed` (0 to begin). Counted as a pass.
    fn crc(&self, lease: &Lease, range: Range<u32>, seed: u32) -> u32;

    /// CRC32C of bytes outside any buffer, such as a PDU header. Not counted.
    fn crc_bytes(bytes: &[u8], seed: u32) -> u32;
}
