//! One entry from capsule to completion: a command in work.
//!
//! ```text
//!            no buffer            data comes by R2T
//!   taken ------------> Waiting ---------------------> AwaitingData
//!     |                    |                                |
//!     |  buffer, or none   |  a read, or admin data         |  Transferred
//!     |  is needed         v                                v
//!     +--------------> Running <----------------------------+
//!                       |   ^ \
//!        injected delay |   |  \ the device is done, or memory was copied
//!                       v   |   v
//!                      Delayed   removed, its reply is on the way
//! ```
//! An entry stays until the device answered, even if its connection is long gone.

use braid_block::{Extent, Instant, Key, Lease};
use braid_nvme::Status;
use braid_nvme::command::Command;
use braid_nvme::target::reservation::ReservationCommand;

use crate::overlay::Leaving;

/// A command in work.
#[derive(Debug)]
pub(crate) struct Op {
    /// The connection it came by; it may be gone.
    pub(crate) conn: Key,
    /// Its subsystem.
    pub(crate) subsystem: u16,
    /// Its controller, which is kept until its last op is.
    pub(crate) controller: Key,
    /// The host's name for it.
    pub(crate) cid: u16,
    /// Position of its namespace in the subsystem; of no meaning for admin commands.
    pub(crate) namespace: u16,
    pub(crate) work: Work,
    pub(crate) state: State,
    /// Its buffer.
    pub(crate) lease: Option<Lease>,
    /// What is read only to be looked at goes here.
    pub(crate) scratch: Option<Lease>,
    /// Bytes to ask the host for by R2T, once there is a buffer.
    pub(crate) ask: Option<u32>,
    /// Its host was preempted while the device had it: somebody waits for its end.
    pub(crate) preempted: bool,
    /// It is one of two that are done as one.
    pub(crate) fused: Option<Fused>,
    /// It is answered so as soon as its host has sent what it still sends for it.
    pub(crate) doomed: Option<Status>,
    /// The Abort command that is answered when it is.
    pub(crate) aborter: Option<Key>,
    /// Flip a byte of what is read.
    pub(crate) corrupt: bool,
    /// When a pool was given it, for latencies.
    pub(crate) since: Instant,
}

/// Which of two commands that are done as one, and which is the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fused {
    /// The Compare; the Write may not be here yet.
    First { second: Option<Key> },
    /// The Write.
    Second { first: Key },
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Read {
        extent: Extent,
        /// What the device's cache holds of it is made durable first.
        durable: bool,
    },
    Write {
        extent: Extent,
        durable: bool,
    },
    Flush,
    /// A flush of ours, before a controller says that it is shut down: nobody waits for a reply.
    Settle,
    Zero {
        extent: Extent,
        deallocate: bool,
        durable: bool,
        /// Bytes done so far, where it is done in pieces.
        done: u64,
    },
    /// Whether the extent can be read, and if it is compared, whether it is what the buffer holds.
    Check {
        extent: Extent,
        compare: bool,
        /// What the device's cache holds of it is made durable first.
        durable: bool,
        /// Bytes done so far: it is done in pieces.
        done: u64,
    },
    /// Range `next` of `ranges`, which the buffer lists.
    Deallocate {
        next: u16,
        ranges: u16,
        /// All of them were found to be inside the namespace.
        checked: bool,
        /// Bytes of that range done so far, where it is done in pieces.
        done: u64,
    },
    /// Get LBA Status, the one admin command that goes to a namespace: which blocks of the extent
    /// are allocated, in so many bytes of the buffer.
    Allocations {
        extent: Extent,
        bytes: u32,
    },
    Reservation(ReservationCommand),
    /// Set Features that says whether the reservations of the namespace persist.
    Persistence(bool),
    Admin(Command),
    /// A command of a nexus to a replica (`mirror::codec`).
    Member(Command),
}

impl Work {
    /// Whether it reads or writes a namespace for a host.
    pub(crate) const fn is_io(&self) -> bool {
        !matches!(
            self,
            Self::Settle
                | Self::Allocations { .. }
                | Self::Reservation(_)
                | Self::Persistence(_)
                | Self::Member(_)
                | Self::Admin(_)
        )
    }
}

impl Op {
    /// A command that was just taken, and holds nothing.
    pub(crate) const fn new(
        conn: Key,
        (subsystem, controller): (u16, Key),
        cid: u16,
        namespace: u16,
        work: Work,
    ) -> Self {
        Self {
            conn,
            subsystem,
            controller,
            cid,
            namespace,
            work,
            state: State::Running,
            lease: None,
            scratch: None,
            ask: None,
            fused: None,
            doomed: None,
            aborter: None,
            preempted: false,
            corrupt: false,
            since: Instant::ZERO,
        }
    }

    /// Whether it only waits here: its device knows nothing of it, and its host sends nothing.
    pub(crate) const fn only_waits(&self) -> bool {
        matches!(
            self.state,
            State::Waiting(_) | State::Delayed | State::Fused | State::Blocked | State::Locking
        )
    }
}

impl Work {
    /// The range that it changes, in one namespace; all of it, if that is many ranges.
    pub(crate) const fn writes(&self) -> Option<Extent> {
        match self {
            Self::Write { extent, .. } | Self::Zero { extent, .. } => Some(*extent),
            Self::Deallocate { ranges: 1.., .. } => Some(Extent { offset: 0, len: u64::MAX }),
            _ => None,
        }
    }
}

impl Work {
    /// Whether a part of what it changes is changed already.
    pub(crate) const fn has_begun(&self) -> bool {
        match self {
            Self::Zero { done, .. } => *done > 0,
            Self::Deallocate { next, done, .. } => *next > 0 || *done > 0,
            _ => false,
        }
    }
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// For a buffer of so many bytes, holding nothing.
    Waiting(u32),
    /// For the host to send its data.
    AwaitingData,
    /// On an injected delay, or for good.
    Delayed,
    /// For the other of two that are done as one.
    Fused,
    /// For a range that two commands which are done as one have to themselves.
    Blocked,
    /// Two that are done as one, for writes to their range to leave the device.
    Locking,
    /// In the device, or about to be.
    Running,
    /// A preempt with abort, for the commands of its victims to leave the device.
    Draining,
    /// In the device, to make what it did durable, or what it is about to read.
    Syncing,
    /// In the device: this block, kept aside, on its way out before a flush; blocks kept aside
    /// later stay.
    Leaving(Leaving, u64),
}

/// What goes back to the host.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) cid: u16,
    pub(crate) status: Status,
    pub(crate) result: u64,
    /// Data to the host, and how much of it.
    pub(crate) data: Option<(Lease, u32)>,
    /// CRC32C of the data, if it is known.
    pub(crate) digest: Option<u32>,
}
