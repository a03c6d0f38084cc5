//! What is worth telling: read alike by the log, the event stream and the simulator's story.

use braid_block::IoError;

use crate::Handle;

/// Something that people or programs may want to know. Rare: never one per I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The pool is open.
    Opened {
        /// It was stopped in order.
        clean: bool,
        /// Journal blocks that were replayed.
        replayed: u64,
        /// First writes that had not reached the device, undone.
        rejected: u64,
    },
    /// The pool could not be opened.
    Refused(Refusal),
    /// The device failed a write or a flush: the pool does no more.
    Failed {
        /// What was tried.
        operation: Operation,
        /// First byte on the device.
        offset: u64,
        /// Why.
        error: IoError,
    },
    /// A block is lost: the device or its checksum says so.
    Media {
        /// Of which replica or snapshot, if it is one that is served.
        handle: Option<Handle>,
        /// First byte within it.
        offset: u64,
        /// First byte on the device.
        device: u64,
    },
    /// A page of the pool's maps or checksums had a bad copy, which was written again from the good
    /// one or from memory.
    Repaired {
        /// First byte on the device.
        device: u64,
    },
    /// Part of the pool's maps is lost: both copies are bad.
    Lost {
        /// First byte on the device.
        device: u64,
    },
    /// An operation takes too long.
    Stalled {
        /// Seconds so far.
        seconds: u32,
    },
    /// What had stalled is done.
    Moving,
    /// No space is left for new data.
    Full,
    /// A scrub made its way to the end.
    Scrubbed {
        /// Blocks read.
        blocks: u64,
        /// Blocks that are lost.
        errors: u64,
    },
    /// A replica or a snapshot that went away has given its space back.
    Reclaimed,
    /// A replica or a snapshot that went away keeps its space, and stays hidden: part of its map is
    /// lost, or blocks that others see through it cannot be read.
    Kept {
        /// First byte of its own page on the device.
        device: u64,
    },
    /// The pool is stopped, in order: the next open keeps its replicas' instances.
    Stopped,
}

/// What was tried on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A read.
    Read,
    /// A write.
    Write,
    /// Making writes durable.
    Flush,
}

/// Why a pool was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no superblock of a pool.
    Foreign,
    /// It was made by a newer version: these feature bits are not known here.
    Newer {
        /// Format version found.
        version: u32,
        /// Feature bits that are not known.
        features: u64,
    },
    /// The device is smaller than the pool.
    Truncated {
        /// Bytes that the pool needs.
        needs: u64,
        /// Bytes that the device has.
        has: u64,
    },
    /// The device's sectors are larger than the pool's blocks.
    Sector,
    /// A structure that everything hangs on is damaged in both copies.
    Damaged {
        /// First byte on the device.
        device: u64,
    },
    /// The device failed.
    Device(IoError),
    /// Replicas, snapshots or buffers are more than the limits allow.
    Limit,
}
