//! What hosts ask of a volume, and the answers; what its management asks.

use alloc::boxed::Box;

use braid_block::Lease;

use crate::record::{Record, Uuid};

/// A command of a host. Offsets and lengths are in bytes, multiples of 512, inside the volume.
#[derive(Debug)]
pub struct Request {
    /// Comes back with the completion.
    pub tag: u64,
    /// The association that it came by ([`crate::Event::HostConnected`]).
    pub association: u32,
    /// What.
    pub work: Work,
    /// The buffer of a read or a write; comes back with the completion.
    pub lease: Option<Lease>,
}

/// What a host's command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Fill the buffer; at most 128 KiB.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Write the buffer; at most 128 KiB.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
        /// To the media of every member before the completion (FUA).
        durable: bool,
    },
    /// Make a range read as zeros: Write Zeroes and Deallocate alike. At most 16 MiB.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// To the media of every member before the completion (FUA).
        durable: bool,
    },
    /// To the media of every member.
    Flush,
}

/// Bytes of a [`Work::Zero`], at most.
pub const ZERO_MAX: u64 = 16 << 20;

/// The end of a host's command.
#[derive(Debug)]
pub struct Completion {
    /// As given.
    pub tag: u64,
    /// The buffer, if one was given. Nobody reads or fills it any more.
    pub lease: Option<Lease>,
    /// What came of it.
    pub status: Status,
}

/// What a host is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Success,
    /// Asymmetric Access Inaccessible (3/02), without DNR: ask on another path, or later.
    Inaccessible,
    /// Command Interrupted (0/21), without DNR: too many at once.
    Busy,
    /// Write Fault (2/80): writes that were acknowledged, not flushed, may be lost. `dnr` is what
    /// keeps a host from asking again as if nothing were.
    WriteFault {
        /// Do Not Retry.
        dnr: bool,
    },
    /// Capacity Exceeded (0/81): on every member.
    NoSpace,
    /// Unrecovered Read Error (2/81): no member has a good copy of this byte's block.
    Media(u64),
    /// LBA Out of Range (0/80) or Invalid Field (0/02).
    Invalid,
}

/// What the management asks of a volume at this engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Own the volume: appointed by the planner, with a name that was never used.
    TakeOver {
        /// The new owner.
        owner: Uuid,
        /// By an operator: take what has answered at the deadline, whatever may be lost.
        force: bool,
    },
    /// Leave in order: no more I/O, flush, clean marks, tell the store. Completes when the volume
    /// may be taken over without waiting.
    Shutdown,
    /// Bring a replica that is away back to redundancy. Completes when it began; the events tell
    /// how it goes on, again and again until it is a member, gone, or this owner has ended.
    Return {
        /// Which.
        replica: Uuid,
    },
    /// Name another replica, empty or not: it will be away, and compared as a whole.
    Add {
        /// Which.
        replica: Uuid,
    },
    /// Name a replica no more: it is away, and marks need not be kept for it.
    GiveUp {
        /// Which.
        replica: Uuid,
    },
    /// Take a member out: it is away afterwards.
    Exclude {
        /// Which.
        replica: Uuid,
    },
    /// Take a snapshot of every member at one point.
    Snapshot {
        /// Its identity.
        uuid: Uuid,
    },
    /// Let a snapshot go.
    DeleteSnapshot {
        /// Which.
        uuid: Uuid,
    },
    /// Grow the volume.
    Resize {
        /// Bytes.
        bytes: u64,
    },
}

/// The end of a command of the management.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// As given.
    pub tag: u64,
    /// What came of it.
    pub result: Result<(), Failure>,
}

/// Why a command of the management was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This engine does not own the volume (any more). What was asked may have happened.
    NotOwner,
    /// The record names no such replica or snapshot, or names it as something else.
    NotFound,
    /// It is there already.
    Exists,
    /// Another command of this kind is in work, or members are away, or regions are suspect, and
    /// it did not end in time: nothing was done.
    Busy,
    /// A limit of the record (replicas, snapshots), a size that shrinks, or one that a member
    /// cannot have.
    Invalid,
    /// A member has no space for it, or no place in a table of its pool: nothing was done.
    NoSpace,
    /// Replicas know a newer record than the store, or another store: recover the store first.
    StoreNotCurrent(Option<Box<Record>>),
}
