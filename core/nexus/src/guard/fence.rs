//! A fence, from its arrival to its answer (replication.md, Take over 3).

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::Instant;

use super::admit::Kind;
use super::{Act, Guard};
use crate::config::Plant;
use crate::record::{Record, Uuid};
use crate::wire::{Answer, Command, Fenced, NUMBER_MAX, Refusal};

/// A fence in work.
#[derive(Debug)]
pub(super) struct Fencing {
    association: u32,
    tag: u64,
    record: Box<Record>,
    /// Epoch and version of the copy before it, if the replica was complete.
    previous: Option<(u64, u64)>,
    stage: Stage,
    /// Snapshots that the record does not name, whose marks are still to be asked for.
    unnamed: Vec<Uuid>,
    /// Marks so far.
    marks: Vec<(u32, u32)>,
}

/// How far a fence came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For what is being kept already.
    Waiting,
    /// For itself to be durable.
    Keeping,
    /// For others' commands to end, and for the lease to run out.
    Draining,
    /// For the marks.
    Marking,
}

impl Fencing {
    pub(super) const fn association(&self) -> u32 {
        self.association
    }

    pub(super) const fn tag(&self) -> u64 {
        self.tag
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.record.epoch
    }

    pub(super) fn is_draining(&self) -> bool {
        self.stage == Stage::Draining
    }

    pub(super) fn owner(&self) -> (u64, Uuid) {
        (self.record.epoch, self.record.owner)
    }
}

impl Guard {
    /// A fence arrived. If nothing speaks against it, it is the one in work from now on.
    pub(super) fn fence(&mut self, association: u32, tag: u64, record: Box<Record>) {
        if let Err(refusal) = self.may_fence(association, &record) {
            return self.refuse(association, tag, refusal);
        }
        let refusal = self.conflict(&record);
        if let Some(older) = self.fencing.take() {
            let same = older.owner() == (record.epoch, record.owner);
            // The same owner has left that association: a conflict would stop it for nothing.
            let refusal = if same { Refusal::Gone } else { refusal };
            self.refuse(older.association, older.tag, refusal);
        }
        while let Some((association, tag, _)) = self.copies.pop_front() {
            self.refuse(association, tag, refusal);
        }
        let (previous, stage) = (None, Stage::Waiting);
        let (unnamed, marks) = (Vec::new(), Vec::new());
        let fencing = Fencing { association, tag, record, previous, stage, unnamed, marks };
        self.fencing = Some(fencing);
    }

    const fn conflict(&self, record: &Record) -> Refusal {
        Refusal::Conflict { epoch: record.epoch }
    }

    /// Whether a fence may take the place of the durable one, and of the one in work.
    fn may_fence(&self, association: u32, record: &Record) -> Result<(), Refusal> {
        let sends = self.holder == Some(association)
            || self.fencing.as_ref().is_some_and(|f| f.association == association);
        if sends || record.epoch == 0 || record.slot_of(&self.durable.replica).is_none() {
            return Err(Refusal::Invalid);
        }
        if record.epoch.max(record.version) > NUMBER_MAX {
            return Err(Refusal::Invalid);
        }
        let coming = self.fencing.as_ref();
        let (epoch, owner) = coming.map_or(self.durable.fence, Fencing::owner);
        if record.epoch < epoch || (record.epoch == epoch && record.owner != owner) {
            return Err(Refusal::Conflict { epoch });
        }
        // What is durable, and what soon will be.
        let kept = [self.durable.kept.as_ref(), self.kept_on_its_way()].into_iter().flatten();
        let coming =
            coming.map(|fencing| (&*fencing.record, self.is_complete_with(&fencing.record)));
        for (copy, counts) in kept.map(|kept| (&*kept.copy, kept.complete)).chain(coming) {
            if record.volume != copy.volume {
                return Err(Refusal::Invalid);
            }
            compare(record, copy, counts.then_some(&self.durable.replica))?;
        }
        Ok(())
    }

    /// Goes on with the fence in work as far as it can.
    pub(super) fn fence_on(&mut self, now: Instant) {
        let Some(fencing) = &self.fencing else { return };
        let (association, tag) = (fencing.association, fencing.tag);
        match fencing.stage {
            Stage::Waiting if self.keeping.is_none() => {
                let previous = self.durable.kept.as_ref().filter(|kept| kept.complete);
                let previous = previous.map(|kept| (kept.copy.epoch, kept.copy.version));
                let (owner, record) = (fencing.owner(), fencing.record.clone());
                if let Some(fencing) = &mut self.fencing {
                    fencing.previous = previous;
                    fencing.stage = Stage::Keeping;
                }
                self.keep(tag, Some(owner), record, None);
            }
            Stage::Draining if self.is_drained() && self.promise_over(now) => {
                // A snapshot that the record does not name is on its way to be deleted: what was
                // written before it may differ between members like what came after.
                let unnamed = self.unnamed(&fencing.record);
                if let Some(fencing) = &mut self.fencing {
                    (fencing.stage, fencing.unnamed) = (Stage::Marking, unnamed);
                }
                self.carry(association, tag, Kind::Fence, Command::Marks { snapshot: None });
            }
            Stage::Waiting | Stage::Keeping | Stage::Draining | Stage::Marking => {}
        }
    }

    /// What a fence keeps is durable.
    pub(super) fn fence_kept(&mut self, tag: u64) {
        let Some(fencing) = self.fencing.as_mut().filter(|fencing| fencing.tag == tag) else {
            return;
        };
        fencing.stage = Stage::Draining;
        let (own, owner) = (fencing.association, fencing.owner());
        let others = self.associations.iter().filter(|(at, _)| **at != own);
        let others: Vec<u32> = match self.plant {
            Some(Plant::OldEpochWrites | Plant::ResumeAssociation) => Vec::new(),
            Some(Plant::ReturnWithoutFence) => others
                .filter(|(_, association)| association.fenced != Some(owner))
                .map(|(at, _)| *at)
                .collect(),
            _ => others.map(|(at, _)| *at).collect(),
        };
        for association in others {
            self.end(association);
        }
    }

    /// Whether nothing is in the pool that was carried out before the fence. Nothing is for its
    /// own association: that may not send before the answer.
    fn is_drained(&self) -> bool {
        match self.plant {
            Some(Plant::FenceWithoutDrain) => true,
            Some(Plant::ReturnWithoutFence) if self.is_return() => true,
            _ => self.carried.is_empty(),
        }
    }

    /// Whether the fence in work is of an owner that somebody here already obeys.
    fn is_return(&self) -> bool {
        let owner = self.fencing.as_ref().map(Fencing::owner);
        self.associations.values().any(|at| at.fenced.is_some() && at.fenced == owner)
    }

    /// Whether the lease has run out, or was promised to the very owner that fences.
    fn promise_over(&self, now: Instant) -> bool {
        let owner = self.fencing.as_ref().map(Fencing::owner);
        now >= self.promise.until || (self.promise.to.is_some() && self.promise.to == owner)
    }

    /// When the fence in work may go on by itself.
    pub(super) fn fence_due(&self) -> Option<Instant> {
        let waits = self.fencing.as_ref()?.is_draining() && self.is_drained();
        waits.then_some(self.promise.until)
    }

    /// The marks are there: the fence is answered, and its association is the holder.
    pub(super) fn fence_marked(&mut self, tag: u64, result: Result<Answer, Refusal>) {
        let Some(mut fencing) = self.fencing.take_if(|fencing| fencing.tag == tag) else { return };
        let (association, owner) = (fencing.association, fencing.owner());
        match result {
            Ok(Answer::Marks(marks)) => fencing.marks.extend(marks),
            Ok(_) => {}
            Err(refusal) => return self.refuse(association, tag, refusal),
        }
        if let Some(uuid) = fencing.unnamed.pop() {
            self.fencing = Some(fencing);
            let snapshot = Some(Box::new(uuid));
            return self.carry(association, tag, Kind::Fence, Command::Marks { snapshot });
        }
        fencing.marks.sort_unstable();
        let marks = fencing.marks.into_boxed_slice();
        if let Some(at) = self.associations.get_mut(&association) {
            at.fenced = Some(owner);
            self.holder = Some(association);
        }
        let fenced = Fenced {
            instance: self.durable.instance,
            copy: fencing.previous,
            marks,
            flush: self.durable.flush,
            bytes: self.durable.bytes,
            snapshots: self.durable.snapshots.clone().into_boxed_slice(),
        };
        self.acts.push_back(Act::Answer {
            association,
            tag,
            result: Ok(Answer::Fenced(Box::new(fenced))),
        });
    }
}

/// Whether a record is not older than a copy of this volume's, as far as it can tell; no replica:
/// whoever has the copy never held everything. That one was relied on for nothing, and its copy
/// may be of a store whose owner all others refused.
fn compare(record: &Record, copy: &Record, replica: Option<&Uuid>) -> Result<(), Refusal> {
    let newer = Refusal::CopyNewer { epoch: copy.epoch, version: copy.version };
    if record.store != copy.store {
        if let Some(replica) = replica {
            let member = record.slot_of(replica).and_then(|slot| record.instance(slot));
            descends(record, copy, member.is_some(), newer)?;
        }
    } else if copy.version > record.version {
        // A store that was put back counts epochs up from where it is: its version gives it away,
        // which only grows.
        return Err(newer);
    }
    if copy.newer_than(record.epoch, record.version) { Err(newer) } else { Ok(()) }
}

/// Whether a record was recovered from what is not older than a copy of another store; `member`:
/// it names this replica as one that holds everything.
fn descends(record: &Record, copy: &Record, member: bool, newer: Refusal) -> Result<(), Refusal> {
    let Some(from) = record.recovered else { return Err(Refusal::StoreDiffers) };
    // Nobody relied on a pending copy: it counts as what it was made from. But whoever served a
    // record had fenced all its members.
    let origin = copy.recovered.filter(|origin| origin.pending && from.store != copy.store);
    let (store, (epoch, version)) = match origin {
        Some(_) if member && !from.pending => return Err(Refusal::StoreDiffers),
        Some(origin) => (origin.store, origin.newest),
        None => (copy.store, (copy.epoch, copy.version)),
    };
    // Epochs and versions grow from store to store, for each was recovered from copies of the one
    // before: what is below knows no more, though nobody fenced it meanwhile.
    let below = epoch <= from.newest.0 && version < from.newest.1;
    match from.store == store {
        // What came here after it was heard of is not in the record. If that is served already, an
        // operator has given it up.
        true if version > from.newest.1 && from.pending => Err(newer),
        true if version > from.newest.1 => Err(Refusal::Invalid),
        false if !below => Err(Refusal::StoreDiffers),
        _ => Ok(()),
    }
}
