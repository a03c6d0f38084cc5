//! The replica's half of the protocol: whose commands a replica carries out (replication.md,
//! Take over 3, Clearing marks, On the wire).
//!
//! A shell tells [`Guard::handle`] what arrives for a replica and what its pool did, and carries
//! out the acts: it hands commands to the pool, keeps the fence, answers. The guard never sees
//! payload: a command is named by the tag that the shell gave it.
//!
//! Invariants:
//! 1. A fence is durable, with its record, before it is answered, and from its arrival on nobody
//!    else's command is carried out.
//! 2. A fence is answered when every command that was carried out for another association has
//!    ended in the pool, and the lease that was promised has run out: nothing of an older epoch,
//!    nor of an older association of the same owner, takes effect after it.
//! 3. A replica never obeys a lower epoch than one it obeyed, nor two owners of one epoch.
//! 4. A mark is cleared only if the last write to its region came before the flush that the
//!    nexus names; after a start, before the first flush, none is.
//! 5. After a restart no fence is answered for one lease: what was promised is not known any more.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::record::{Record, Uuid};
use crate::wire::{Answer, Command, Refusal};

/// What a guard knows of its replica when it starts: from the pool.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// Epoch and owner of the last fence.
    pub fence: (u64, Uuid),
    /// Its instance.
    pub instance: u64,
    /// Its copy of the record.
    pub copy: Option<Box<Record>>,
    /// Number of its last flush.
    pub flush: u64,
    /// Bytes.
    pub bytes: u64,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Uuid>,
}

/// What happened to a replica.
#[derive(Clone, Debug)]
pub enum Event {
    /// An association was opened.
    Opened {
        /// A number that was not used before by this process.
        association: u32,
    },
    /// A command came.
    Arrived {
        /// By which association.
        association: u32,
        /// A number that was not used before by this process.
        tag: u64,
        /// What.
        command: Command,
    },
    /// An association ended. What is carried out for it goes on.
    Closed {
        /// Which.
        association: u32,
    },
    /// What [`Act::Carry`] asked for ended.
    Carried {
        /// Of the command.
        tag: u64,
        /// What came of it.
        result: Result<Outcome, Refusal>,
    },
    /// What [`Act::Keep`] asked for is durable, or failed.
    Kept {
        /// Of the command.
        tag: u64,
        /// What came of it.
        result: Result<(), Refusal>,
    },
    /// Time passed.
    Elapsed,
}

/// What a pool answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// Marked regions: first and number, ascending.
    Marks(Box<[(u32, u32)]>),
}

/// What is to be done for a replica.
#[derive(Clone, Debug)]
pub enum Act {
    /// Let the pool do this, then [`Event::Carried`]. Never a fence, a lease or a copy.
    Carry {
        /// Of the command.
        tag: u64,
        /// What.
        command: Command,
    },
    /// Keep this durably, in one commit, and let the replica be a member; then [`Event::Kept`].
    Keep {
        /// Of the command.
        tag: u64,
        /// Epoch and owner, if they change.
        fence: Option<(u64, Uuid)>,
        /// The record.
        copy: Box<Record>,
    },
    /// Answer a command. An association that has ended meanwhile needs no answer.
    Answer {
        /// By which association it came.
        association: u32,
        /// Of the command.
        tag: u64,
        /// What to answer.
        result: Result<Answer, Refusal>,
    },
    /// End an association: stop reading, drop what was not parsed.
    Close {
        /// Which.
        association: u32,
    },
}
