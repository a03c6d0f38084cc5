//! What dies with an owner.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use arrayvec::ArrayVec;
use braid_block::Instant;

use crate::record::{REPLICAS_MAX, Record, Uuid};
use crate::wire::Fenced;
use crate::{Note, Plant};

use super::absent::Absent;
use super::call::Call;
use super::clean::Cleaning;
use super::comeback::Joiner;
use super::compared::Frozen;
use super::ranges::Ranges;
use super::regions::Regions;
use super::segment::Wanted;
use super::shutdown::Leaving;
use super::snapshot::{Barrier, Drop, Resizing};
use super::swap::{Change, Swap};
use super::written::Written;

/// Where an owner stands.
///
/// ```text
/// Fetching -> Claiming -> Fencing -> Activating -> Leasing -> Serving
///    ^______________|        (no change: straight to Leasing)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The record is asked for, or will be again.
    Fetching {
        /// When to ask again, if nobody answered.
        again: Option<Instant>,
    },
    /// Epoch and owner are being written into the record.
    Claiming,
    /// Members are fenced.
    Fencing {
        /// No longer than this, if one that the record names has answered.
        deadline: Instant,
    },
    /// Those that did not answer are being written out of the record.
    Activating,
    /// The first lease is asked for.
    Leasing,
    /// I/O is accepted.
    Serving,
}

/// What stands between this owner and a replica.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Its association, from when it is asked for.
    pub(crate) line: Line,
    /// What it answered to the fence.
    pub(crate) fenced: Option<Box<Fenced>>,
    /// It promised to answer no other fence until then, as far as we rely on it.
    pub(crate) leased: Instant,
    /// A lease is asked for.
    pub(crate) asked: bool,
    /// Reads that are out.
    pub(crate) reads: u32,
    /// Times that a region could not be made equal for what it could not read, since one was.
    pub(crate) unread: u8,
}

/// An association, from our side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Line {
    /// There is none.
    #[default]
    None,
    /// It is asked for.
    Opening(u32),
    /// It stands; the fence is out.
    Fencing(u32),
    /// It stands, and the replica obeys us.
    Up(u32),
    /// Nobody is there: somebody said so. It is asked for again then.
    Refused(Instant),
    /// Nobody answered. It is asked for again then.
    Silent(Instant),
}

impl Line {
    /// The association, if there is one.
    pub(crate) const fn association(self) -> Option<u32> {
        match self {
            Self::Opening(association) | Self::Fencing(association) | Self::Up(association) => {
                Some(association)
            }
            Self::None | Self::Refused(_) | Self::Silent(_) => None,
        }
    }

    /// When it is to be asked for again.
    pub(crate) const fn again(self) -> Option<Instant> {
        match self {
            Self::Refused(again) | Self::Silent(again) => Some(again),
            _ => None,
        }
    }
}

impl Link {
    /// Its association, if there is one.
    pub(crate) const fn association(&self) -> Option<u32> {
        self.line.association()
    }
}

/// An owner of the volume: one incarnation.
#[derive(Debug)]
pub(crate) struct Nexus {
    pub(crate) owner: Uuid,
    pub(crate) epoch: u64,
    /// The take-over's tag, until it has ended.
    pub(crate) tag: Option<u64>,
    /// An operator takes what is there.
    pub(crate) force: bool,
    pub(crate) phase: Phase,
    /// As it is committed; `None` until it was read.
    pub(crate) record: Option<Box<Record>>,
    /// As it was before the claim: [`crate::Plant::RecordBeforeFence`].
    pub(crate) peeked: Option<Box<Record>>,
    /// Slots that every write needs: members of the record that is committed *and* copied.
    pub(crate) members: u8,
    /// Of these (and of a joiner whose add is sent) those that failed.
    pub(crate) failing: u8,
    pub(crate) links: [Link; REPLICAS_MAX],
    pub(crate) swap: Option<Swap>,
    pub(crate) changes: VecDeque<Change>,
    /// Changes that are committed, and of which a member that failed has no copy: they are relied
    /// on when its exclusion is.
    pub(crate) committed: VecDeque<Change>,
    pub(crate) joiner: Option<Joiner>,
    /// Regions in which members may differ.
    pub(crate) suspect: Regions,
    /// Members in the order in which their copy of a suspect block wins.
    pub(crate) winners: ArrayVec<u8, REPLICAS_MAX>,
    /// Number of the last flush that was sent.
    pub(crate) flushes: u64,
    pub(crate) ranges: Ranges,
    pub(crate) written: Written,
    /// Since when a member failed and is not excluded.
    pub(crate) held: Option<Instant>,
    /// That took too long: hosts queue.
    pub(crate) closed: bool,
    /// No command is admitted: a snapshot drains.
    pub(crate) barrier: bool,
    pub(crate) snapshot: Option<Barrier>,
    pub(crate) resizing: Option<Resizing>,
    /// Snapshots that are being deleted, and how many were.
    pub(crate) drops: Vec<Drop>,
    pub(crate) dropped: u32,
    /// Snapshots that it took, and who was away then.
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) cleaning: Cleaning,
    pub(crate) leaving: Option<Leaving>,
    /// Hosts that were told of a loss and for whom the record has no room: as many as were
    /// connected.
    pub(crate) told: Vec<Uuid>,
    /// Members that the management takes out, and who waits for that.
    pub(crate) excluding: Vec<(u8, u64)>,
    /// Returns that were begun.
    pub(crate) attempts: u32,
    /// Replicas that are wanted back.
    pub(crate) absent: Vec<Absent>,
    /// Ranges that wait to be made equal.
    pub(crate) wanted: Wanted,
    /// No member is left that could go on, and it was told.
    pub(crate) lost: bool,
}

/// The slots of a mask, ascending.
pub(crate) fn slots(mask: u8) -> impl Iterator<Item = u8> {
    (0..REPLICAS_MAX as u8).filter(move |slot| mask >> slot & 1 == 1)
}

/// The mask of a slot.
pub(crate) const fn bit(slot: u8) -> u8 {
    1 << slot
}

impl Nexus {
    pub(crate) fn new(owner: Uuid, tag: u64, force: bool, plant: Option<Plant>) -> Self {
        Self {
            owner,
            epoch: 0,
            tag: Some(tag),
            force,
            phase: Phase::Fetching { again: None },
            record: None,
            peeked: None,
            members: 0,
            failing: 0,
            links: Default::default(),
            swap: None,
            changes: VecDeque::new(),
            committed: VecDeque::new(),
            joiner: None,
            suspect: Regions::default(),
            winners: ArrayVec::new(),
            flushes: 0,
            ranges: Ranges::new(plant == Some(Plant::NoLock)),
            written: Written::default(),
            held: None,
            closed: false,
            barrier: false,
            snapshot: None,
            resizing: None,
            drops: Vec::new(),
            dropped: 0,
            frozen: Vec::new(),
            cleaning: Cleaning::default(),
            leaving: None,
            told: Vec::new(),
            excluding: Vec::new(),
            attempts: 0,
            absent: Vec::new(),
            wanted: Wanted::default(),
            lost: false,
        }
    }

    /// The record; there is one once it was claimed.
    pub(crate) fn record(&self) -> &Record {
        self.record.as_deref().expect("a claimed volume has a record")
    }

    /// The record that says who the members are.
    pub(crate) fn believed(&self) -> &Record {
        self.peeked.as_deref().unwrap_or_else(|| self.record())
    }

    /// Who is asked for a fence at a take-over: members, and all others that the record names if it
    /// was recovered and nobody served under it yet.
    pub(crate) fn asked(&self) -> u8 {
        let record = self.record();
        self.members | if record.is_pending() { record.away() } else { 0 }
    }

    /// Who has to be fenced before anybody is kept, and is not.
    pub(crate) fn unheard(&self) -> u8 {
        if !self.record().is_pending() {
            return 0;
        }
        let silent = |slot: &u8| self.links[usize::from(*slot)].fenced.is_none();
        slots(self.asked()).filter(silent).fold(0, |mask, slot| mask | bit(slot))
    }

    /// Whether a command went out by an association that still stands.
    pub(crate) fn is_current(&self, call: &Call) -> bool {
        self.links[usize::from(call.slot)].association() == Some(call.association)
    }

    /// Whether the record is being changed, or was and is not relied on yet.
    pub(crate) fn is_changing(&self) -> bool {
        self.swap.is_some() || !self.committed.is_empty()
    }

    /// Which slot has this association.
    pub(crate) fn slot_by(&self, association: u32) -> Option<u8> {
        let at = self.links.iter().position(|link| link.association() == Some(association))?;
        u8::try_from(at).ok()
    }

    /// Whether something waits for commands and segments in work to end.
    pub(crate) const fn watches(&self) -> bool {
        self.joiner.is_some() || self.snapshot.is_some() || self.leaving.is_some()
    }

    /// Whether hosts' commands are accepted.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Serving && !self.closed && self.leaving.is_none()
    }

    /// Members that have not failed.
    pub(crate) const fn good(&self) -> u8 {
        self.members & !self.failing
    }

    /// Members that have not failed, and that the record names still.
    pub(crate) fn staying(&self) -> u8 {
        self.good() & self.record().members()
    }

    /// Those of them that the management takes out.
    pub(crate) fn unwanted(&self) -> u8 {
        let asked = self.excluding.iter().fold(0, |all, (slot, _)| all | bit(*slot));
        asked & self.staying()
    }

    /// Who gets a write or a flush now.
    pub(crate) fn targets(&self) -> u8 {
        let joiner = self.joiner.as_ref().filter(|joiner| joiner.attached);
        self.good() | joiner.map_or(0, |joiner| bit(joiner.slot) & !self.failing)
    }

    /// Who must have applied what was sent to `targets`: all members, and the joiner if it was
    /// sent to it, or if it became a member by its add.
    pub(crate) fn need(&self, targets: u8) -> u8 {
        let joiner = self.joiner.as_ref().map_or(0, |joiner| {
            let sent = joiner.attached && targets & bit(joiner.slot) != 0;
            if sent || joiner.adding { bit(joiner.slot) } else { 0 }
        });
        self.members | joiner
    }

    /// Who must promise a lease: a joiner is a member from the sending of its add.
    pub(crate) fn lessors(&self) -> u8 {
        let adding = self.joiner.as_ref().filter(|joiner| joiner.adding);
        self.members | adding.map_or(0, |joiner| bit(joiner.slot))
    }

    /// The slot that returns.
    pub(crate) fn joiner_slot(&self) -> Option<u8> {
        self.joiner.as_ref().map(|joiner| joiner.slot)
    }

    /// The first in the order of winners that has not failed.
    pub(crate) fn winner(&self) -> Option<u8> {
        self.winners.iter().copied().find(|slot| self.good() & bit(*slot) != 0)
    }

    /// What is told when I/O is accepted.
    pub(crate) fn serving(&self) -> Note {
        let lossy = self.record().lossy.as_ref().is_some_and(|lossy| lossy.epoch == self.epoch);
        let suspect = self.suspect.len();
        Note::Serving { epoch: self.epoch, members: self.members, suspect, lossy }
    }
}
