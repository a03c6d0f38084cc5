//! What happens to a volume, and what it does.

use alloc::boxed::Box;

use braid_block::{Span, Token};

use crate::record::{Record, Uuid};
use crate::wire::{Answer, Command, Refusal};

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An association to a replica stands: commands may be sent.
    Associated {
        /// As asked for by [`Effect::Associate`].
        association: u32,
    },
    /// It does not (any more). `refused`: somebody answered that there is no engine or replica;
    /// else nobody answered. Every command that was sent by it ends with [`Refusal::Gone`], before
    /// this or after.
    Broken {
        /// Which.
        association: u32,
        /// Whether somebody answered.
        refused: bool,
    },
    /// A command of [`Effect::Send`] ended. Exactly once for each; nobody reads or fills its
    /// buffer any more.
    Done {
        /// As sent.
        token: Token,
        /// The answer.
        result: Result<Answer, Refusal>,
    },
    /// A compare-and-swap ended.
    Swapped {
        /// As asked for by [`Effect::Swap`].
        number: u64,
        /// What is known.
        outcome: Swapped,
    },
    /// The answer to [`Effect::Fetch`]: the record, if the store could be asked.
    Fetched {
        /// As it is.
        record: Option<Box<Record>>,
    },
    /// A host connected at this portal.
    HostConnected {
        /// A number that was not used before by this process.
        association: u32,
        /// The host's identifier (HOSTID).
        host: Uuid,
        /// Host NQN and source address, as a number: a new association of the same host ends the
        /// older one.
        origin: u64,
    },
    /// A host's association ended. Its commands go on, and are answered to nobody.
    HostGone {
        /// Which.
        association: u32,
    },
    /// A host read the ANA log by this association, as [`crate::Volume::is_optimized`] had it.
    HostReadAna {
        /// By which.
        association: u32,
    },
    /// Time passed: what [`crate::Volume::poll_timeout`] asked for.
    Elapsed,
}

/// What is known of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// It took effect.
    Committed,
    /// The record was another one, and is this.
    Changed(Box<Record>),
    /// Nobody knows: it may have taken effect, or still may.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Open an association to a replica. Ends with [`Event::Associated`] or [`Event::Broken`].
    Associate {
        /// A number that was not used before by this volume.
        association: u32,
        /// To which replica.
        replica: Uuid,
    },
    /// End an association, from this side. No [`Event::Broken`] follows.
    Leave {
        /// Which.
        association: u32,
    },
    /// Send a command.
    Send {
        /// By which association.
        association: u32,
        /// Comes back with [`Event::Done`].
        token: Token,
        /// What.
        command: Command,
        /// The buffer to be filled or written, if the command has one. Several commands may read
        /// the same.
        span: Option<Span>,
    },
    /// Put this record in the place of the one whose version is one less, if nothing else changed
    /// it: compare the whole, version and owner and all.
    Swap {
        /// Comes back.
        number: u64,
        /// What is expected to be there.
        old: Box<Record>,
        /// What shall be there.
        new: Box<Record>,
        /// Never compared, always put: [`crate::Plant::PlainPut`].
        blind: bool,
    },
    /// Read the record.
    Fetch,
    /// End a host's association: stop reading, drop what was not parsed.
    HostLeave {
        /// Which.
        association: u32,
    },
    /// The access state of this portal changed: tell the hosts.
    Access {
        /// Optimized, or inaccessible.
        optimized: bool,
    },
    /// The size of the volume changed: tell the hosts.
    Resized {
        /// Bytes.
        bytes: u64,
    },
}

/// What is worth telling: for logs, metrics and stories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A take-over began.
    Claimed {
        /// The epoch.
        epoch: u64,
    },
    /// It waits for members that did not answer.
    Waiting {
        /// Slots.
        missing: u8,
    },
    /// I/O is accepted.
    Serving {
        /// The epoch.
        epoch: u64,
        /// Slots of the members.
        members: u8,
        /// Regions to be compared before they are read.
        suspect: u64,
        /// Acknowledged writes that were not flushed may be lost.
        lossy: bool,
    },
    /// This owner is no owner any more.
    Stopped {
        /// Its epoch.
        epoch: u64,
        /// Because of whom.
        why: Why,
    },
    /// A member failed, and waits for its exclusion.
    Failing {
        /// Its slot.
        slot: u8,
        /// Why.
        refusal: Refusal,
    },
    /// A member was excluded.
    Excluded {
        /// Slots.
        slots: u8,
    },
    /// No member is left that has every held write: a take-over is needed.
    Lost,
    /// The commit takes too long: hosts queue.
    Held,
    /// A region was compared and is not suspect any more.
    Resynced {
        /// Which.
        region: u32,
        /// Bytes that differed and were copied.
        copied: u64,
    },
    /// A return came to this step.
    Returning {
        /// Slot.
        slot: u8,
        /// Step.
        step: Step,
    },
    /// A replica that returns needs a block that nobody can read: of a snapshot it does without
    /// the whole of it; without one of the volume it stays away until that is written anew.
    Unreadable {
        /// Slot of the one that returns.
        slot: u8,
        /// The snapshot; none: the volume.
        snapshot: Option<Uuid>,
        /// A byte of the block.
        offset: u64,
    },
    /// Blocks that a member could not read were written anew.
    Repaired {
        /// Blocks.
        blocks: u32,
    },
    /// A snapshot was taken, or not.
    Snapshot {
        /// Whether the record names it.
        taken: bool,
    },
}

/// Why an owner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A compare-and-swap found another record.
    SwapLost,
    /// A replica obeys another owner.
    Conflict,
    /// It has no member left that could go on: associations are never resumed, so it can serve
    /// nothing any more.
    Lost,
    /// The store is not current.
    StoreNotCurrent,
    /// It left in order.
    Shutdown,
    /// Another one was appointed at this engine.
    Replaced,
    /// The volume was taken away from this engine.
    Withdrawn,
}

/// Steps of a return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is fenced.
    Fencing,
    /// Snapshots that it missed are copied.
    Snapshots,
    /// It gets every write; older ones settle.
    Attached,
    /// Regions are compared and copied.
    Copying {
        /// Regions to go through.
        regions: u64,
    },
    /// Its add is sent: it counts as a member.
    Adding,
    /// It is a member.
    Member,
    /// It failed, and begins anew later.
    Failed,
    /// It waited for its turn, and begins anew when one that lacks little has been brought back.
    Yielded,
}
