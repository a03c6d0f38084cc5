//! What is asked of a pool, and its answers.

use alloc::boxed::Box;
use alloc::string::String;

use braid_block::{BlockSize, Lease};

/// A replica or a snapshot that is served. It keeps its number across snapshots, until it is
/// destroyed or the pool is closed; then nobody has it for a long time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u32);

/// An I/O command. Offsets and lengths are in bytes, multiples of the replica's block size (512
/// or 4096), inside the replica.
#[derive(Debug)]
pub struct Request {
    /// Comes back with the completion.
    pub tag: u64,
    /// Of which replica or snapshot.
    pub handle: Handle,
    /// What.
    pub work: Work,
    /// The payload's buffer: to be written, or to be filled from its beginning. Comes back with
    /// the completion.
    pub lease: Option<Lease>,
}

/// What an I/O command does.
#[derive(Clone, Copy, Debug)]
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
        /// To the media before the completion (FUA).
        durable: bool,
    },
    /// Make a range read as zeros, and give its space back where that is possible: Write Zeroes
    /// and Deallocate alike. Any length.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// To the media before the completion (FUA).
        durable: bool,
    },
    /// Make everything that was acknowledged before durable.
    Flush {
        /// The number that a nexus gives its flushes, kept with the replica.
        number: Option<u64>,
    },
    /// Tell of each block of a range whether it is there and whether it can be trusted, and a hash
    /// of its content, read from the device for this answer: for comparing replicas. Fills the
    /// buffer with [`comparison_bytes`](crate::comparison_bytes): two bits a block, four blocks to
    /// a byte, lowest first (0: not there, or zeros; 1: matches its checksum; 2: content that could
    /// not be verified after an unclean stop; 3: lost), then 16 bytes a block, the XXH3 of 128 bits
    /// of its content, little endian; zeros for those that are not there or lost.
    Compare {
        /// First byte, a multiple of 4 KiB.
        offset: u64,
        /// Bytes, a multiple of 4 KiB, at most [`COMPARE_MAX`].
        len: u32,
    },
    /// Which parts of a range are allocated: fills the buffer with [`Allocation`] entries, as many
    /// as fit, ascending; [`Done::count`] says how many. It is what the map says now: of writes
    /// that are not acknowledged it may tell what a crash takes back.
    Status {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// Bytes of a [`Work::Compare`], at most: a region.
pub const COMPARE_MAX: u32 = 1 << 20;

/// One entry of a [`Work::Status`] answer: 16 bytes, little endian.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct Allocation {
    /// First byte.
    pub offset: zerocopy::little_endian::U64,
    /// Bytes, with the highest bit set where the range is allocated.
    pub len: zerocopy::little_endian::U64,
}

impl Allocation {
    /// The highest bit of [`Allocation::len`].
    pub const ALLOCATED: u64 = 1 << 63;
}

/// The end of a request or of a command.
#[derive(Debug)]
pub struct Completion {
    /// As given.
    pub tag: u64,
    /// The buffer, if one was given.
    pub lease: Option<Lease>,
    /// What came of it.
    pub result: Result<Done, Failure>,
}

/// What a success has to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Entries of a [`Work::Status`] answer.
    pub count: u32,
    /// The replica or snapshot that a command made.
    pub handle: Option<Handle>,
    /// Blocks of a read whose content could not be verified after an unclean stop.
    pub unverified: u32,
}

/// Why something was not done. Nothing of it took effect, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No space: give some back, or grow the pool. A [`Work::Zero`] above a snapshot may have taken
    /// effect for some of its blocks; everything else has changed nothing.
    NoSpace,
    /// These blocks cannot be read: the device or a checksum says so. First of the bad blocks, by
    /// its byte offset.
    Media(u64),
    /// The device failed a write or a flush: the pool does no more until it is imported again.
    /// Whether a write took effect is not known.
    Failed,
    /// There is no such replica or snapshot.
    NotFound,
    /// It is there already, and differs.
    Exists,
    /// It is being written through, shared or cloned: not now.
    Busy,
    /// A snapshot cannot be written.
    ReadOnly,
    /// The range leaves the replica, or is not a multiple of its block size.
    OutOfRange,
    /// The arguments make no sense: a size of zero, a shrink, a name that is too long.
    Invalid,
    /// A table is full: replicas and snapshots of a pool, requests in work.
    Limit,
    /// The pool stops.
    Stopping,
}

/// A command of the management: rare, so it may be large. Every one is durable when it completes,
/// and safe to repeat: repeating one that took effect succeeds.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make a replica.
    Create(Box<Create>),
    /// Make a replica or a clone go away, with its data; its snapshots stay.
    Destroy {
        /// Which.
        uuid: [u8; 16],
    },
    /// Make a replica larger.
    Resize {
        /// Which.
        uuid: [u8; 16],
        /// New size in bytes.
        bytes: u64,
    },
    /// Take a snapshot.
    Snapshot {
        /// Of which replica.
        replica: [u8; 16],
        /// The snapshot's own identity.
        uuid: [u8; 16],
        /// What people call it.
        name: String,
        /// Seconds since 1970, for lists.
        created: u64,
    },
    /// Make a snapshot go away. Others keep what they share with it.
    DeleteSnapshot {
        /// Which.
        uuid: [u8; 16],
    },
    /// Make a writable replica of a snapshot.
    Clone {
        /// Of which.
        snapshot: [u8; 16],
        /// The clone's own identity.
        uuid: [u8; 16],
        /// What people call it.
        name: String,
        /// Seconds since 1970, for lists.
        created: u64,
    },
    /// Keep the fields that replication gives a replica, durably.
    Bear {
        /// Which.
        uuid: [u8; 16],
        /// What.
        bearing: Box<Bearing>,
    },
    /// Clear the marks of these regions of a member (replication.md): `regions` lists first
    /// region and count.
    Clean {
        /// Which.
        uuid: [u8; 16],
        /// First region and number of regions, each.
        regions: Box<[(u32, u32)]>,
    },
    /// List the regions of a replica or snapshot that are marked for the other members:
    /// `Pool::take_marks` has them when it is done.
    Marks {
        /// Which.
        uuid: [u8; 16],
    },
    /// Use the space that the device gained.
    Grow {
        /// The device's size now, in bytes.
        bytes: u64,
    },
    /// Check every allocated block against its checksum, from where the last scrub stopped.
    Scrub {
        /// Bytes a second, at most; 0 stops a running one.
        rate: u64,
    },
}

/// A replica to be made.
#[derive(Clone, Debug)]
pub struct Create {
    /// Its identity.
    pub uuid: [u8; 16],
    /// What people call it: at most 63 bytes of UTF-8.
    pub name: String,
    /// Size in bytes, rounded up to 4 KiB.
    pub bytes: u64,
    /// Logical block size that hosts see.
    pub block: BlockSize,
    /// Set the space aside for it.
    pub thick: bool,
    /// Seconds since 1970, for lists.
    pub created: u64,
}

/// What replication keeps with a replica. `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Bearing {
    /// The fence: the epoch, and its owner.
    pub fence: Option<Fence>,
    /// Whether it is a member, whose marks only `Clean` clears.
    pub member: Option<bool>,
    /// A copy of the membership record, at most [`RECORD_MAX`] bytes.
    pub record: Option<Box<[u8]>>,
    /// The reservation.
    pub reservation: Option<Box<Reservation>>,
}

/// Bytes of a membership record, at most.
pub const RECORD_MAX: usize = 3 << 10;

/// The fence of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Epoch.
    pub epoch: u64,
    /// Its owner.
    pub owner: [u8; 16],
}

/// A reservation that persists through power loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// Type, as the standard numbers them; 0: none. Plus 128: it persists through power loss,
    /// which is for whoever bears it to know.
    pub kind: u8,
    /// Position of the holder among the registrants.
    pub holder: Option<u8>,
    /// Generation counter.
    pub generation: u32,
    /// Registrants: key and host identifier, at most 16.
    pub registrants: arrayvec::ArrayVec<(u64, [u8; 16]), 16>,
}
