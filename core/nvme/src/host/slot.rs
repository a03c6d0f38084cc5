//! The commands of one queue: a table of fixed size, and ids that tell a stale one.
//!
//! ```text
//!   free --insert--> waiting --capsule out--> sent --response--> answered --no send flies--> free
//!                       ^                      |
//!                       +-- R2T: data waits ---+
//! ```
//!
//! Invariants:
//! 1. A command id is `generation 6 | index 10`; an id whose command ended is never taken for its
//!    successor's, until its slot was used 64 times.
//! 2. A command ends, and its buffer leaves the table, only when its response is here and no send
//!    of its bytes is in flight; or when its connection is gone altogether.
//! 3. The admin queue's last two slots are reserved: a keep alive finds room when nothing else
//!    does, and a request for notice takes none from others.

use alloc::vec::Vec;

use braid_block::{Instant, Lease};

use crate::Status;
use crate::command::{Command, Direction};
use crate::pdu::FatalError;

/// Bits of a command id that name the slot.
const INDEX_BITS: u32 = 10;
/// Slots of the admin queue that are reserved: keep alive, and request for notice.
const RESERVED: u16 = 2;
/// The generations that the other bits tell apart.
const GENERATIONS: u16 = 1 << (u16::BITS - INDEX_BITS);

/// For whom a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The association's user, with his cookie.
    Submitter(u64),
    /// The association itself: connecting, or shutting down.
    Association,
    /// The association while it is live: looking at what has changed.
    Watch,
    /// The request for notice of changes, which is answered only when there is one.
    Notice,
    /// Keep alive.
    KeepAlive,
}

/// Where the data that an R2T asked for is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requested {
    pub(super) ttag: u16,
    /// First byte that was not sent yet.
    pub(super) at: u32,
    /// End of what was asked for.
    pub(super) end: u32,
}

/// A command in work.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) owner: Owner,
    pub(super) command: Command,
    pub(super) lease: Option<Lease>,
    pub(super) direction: Direction,
    pub(super) in_capsule: bool,
    /// Bytes of data altogether.
    pub(super) len: u32,
    /// CRC32C of all of it: as submitted, or as received in one piece.
    pub(super) digest: Option<u32>,
    /// Bytes of C2HData received, or bytes that R2Ts asked for.
    pub(super) moved: u32,
    /// Data that is to be sent now.
    pub(super) requested: Option<Requested>,
    pub(super) deadline: Instant,
    /// The capsule is on its way: answers may come.
    pub(super) sent: bool,
    /// It is in the queue's list of what waits for room to send.
    pub(super) waiting: bool,
    /// Sends of its buffer in flight.
    pub(super) sends: u32,
    /// All data digests were right so far.
    pub(super) intact: bool,
    /// The answer.
    pub(super) response: Option<(Status, u64)>,
}

impl Active {
    /// Whether it ended.
    pub(super) const fn is_over(&self) -> bool {
        self.response.is_some() && self.sends == 0 && !self.waiting
    }

    /// How it ended: what the controller says, unless the data tells otherwise.
    fn outcome(&self, (status, result): (Status, u64)) -> (Status, u64) {
        if !status.is_success() {
            return (status, result);
        }
        if !self.intact {
            return (Status::TRANSIENT_TRANSPORT, result);
        }
        if !self.in_capsule && self.moved != self.len {
            // It says that all is well, and did not move all the data.
            return (Status::DATA_TRANSFER_ERROR, result);
        }
        (status, result)
    }

    /// The command as it left the table: after its response, or without one because the
    /// connection is gone.
    pub(super) fn into_ended(self) -> Ended {
        let lost = if self.sent { Status::ABORTED_BY_HOST } else { Status::HOST_PATHING_ERROR };
        let (status, result) = match self.response {
            Some(response) => self.outcome(response),
            None => (lost, 0),
        };
        let received = self.direction == Direction::ToHost && status.is_success();
        let digest = self.digest.filter(|_| received);
        Ended { owner: self.owner, status, result, lease: self.lease, len: self.len, digest }
    }
}

/// A command that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) owner: Owner,
    pub(super) status: Status,
    pub(super) result: u64,
    pub(super) lease: Option<Lease>,
    pub(super) len: u32,
    pub(super) digest: Option<u32>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Slots from here on are reserved.
    reserved: u16,
}

#[derive(Debug)]
struct Slot {
    generation: u16,
    active: Option<Active>,
}

impl Slots {
    /// Slots for so many commands, the last of them reserved if it is an admin queue's.
    pub(super) fn new(commands: u16, admin: bool) -> Self {
        debug_assert!((1..=1 << INDEX_BITS).contains(&commands));
        let reserved = if admin { commands - RESERVED } else { commands };
        Self {
            slots: (0..commands).map(|_| Slot { generation: 0, active: None }).collect(),
            free: (0..reserved).rev().collect(),
            reserved,
        }
    }

    /// Whether a command without a reserved slot finds none.
    pub(super) const fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// A free slot for a command of this owner; to be filled at once.
    pub(super) fn vacant(&mut self, owner: Owner) -> Option<u16> {
        let reserved = match owner {
            Owner::KeepAlive => self.reserved,
            Owner::Notice => self.reserved + 1,
            Owner::Submitter(_) | Owner::Association | Owner::Watch => return self.free.pop(),
        };
        let slot = self.slots.get(usize::from(reserved))?;
        if slot.active.is_none() { Some(reserved) } else { None }
    }

    /// Puts a command into a vacant slot, and gives it its id.
    pub(super) fn fill(&mut self, index: u16, mut active: Active) {
        let slot = &mut self.slots[usize::from(index)];
        slot.generation = (slot.generation + 1) % GENERATIONS;
        active.command.cid.set(slot.generation << INDEX_BITS | index);
        slot.active = Some(active);
    }

    /// The command in a slot.
    pub(super) fn get_mut(&mut self, index: u16) -> Option<&mut Active> {
        self.slots.get_mut(usize::from(index))?.active.as_mut()
    }

    /// The command with this id, which the target may speak of.
    ///
    /// # Errors
    /// There is none, or it was not sent yet; `field` is where the PDU has the id.
    pub(super) fn find(&mut self, cid: u16, field: u32) -> Result<(u16, &mut Active), FatalError> {
        let index = cid & ((1 << INDEX_BITS) - 1);
        self.get_mut(index)
            .filter(|active| active.command.cid.get() == cid && active.sent)
            .filter(|active| active.response.is_none())
            .map(|active| (index, active))
            .ok_or(FatalError::InvalidHeaderField(field))
    }

    /// Takes a command out if it is over.
    pub(super) fn take_over(&mut self, index: u16) -> Option<Ended> {
        let active = self.slots.get_mut(usize::from(index))?.active.take_if(|a| a.is_over())?;
        self.give_back(index);
        Some(active.into_ended())
    }

    /// Takes any command out, over or not, from a connection that is gone.
    pub(super) fn take_any(&mut self) -> Option<Ended> {
        let slot = self.slots.iter_mut().position(|slot| slot.active.is_some())?;
        let active = self.slots[slot].active.take()?;
        self.give_back(u16::try_from(slot).unwrap_or(u16::MAX));
        Some(active.into_ended())
    }

    fn give_back(&mut self, index: u16) {
        if index < self.reserved {
            self.free.push(index);
        }
    }

    /// The earliest deadline. A request for notice has none.
    pub(super) fn first_deadline(&self) -> Option<(Instant, Owner)> {
        let active = self.slots.iter().filter_map(|slot| slot.active.as_ref());
        let active = active.filter(|active| active.owner != Owner::Notice);
        active.map(|a| (a.deadline, a.owner)).min_by_key(|(deadline, _)| *deadline)
    }
}
