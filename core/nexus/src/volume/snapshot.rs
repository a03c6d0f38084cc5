//! Snapshots and sizes: what happens on every member at one point, and is then named.
//!
//! Invariants:
//! 1. No write is in work when members take a snapshot: all have the same content.
//! 2. The record names a snapshot only when every member has it; members' snapshots that are not
//!    named are deleted, but not while the change that names them may still take effect.

use braid_block::Instant;

use crate::guard::SNAPSHOTS_KNOWN_MAX;
use crate::record::{SNAPSHOTS_MAX, Uuid};
use crate::wire::{Answer, Command, Refusal};
use crate::{Effect, Failure, Note};

use super::Volume;
use super::call::Purpose;
use super::op::State;
use super::state::{bit, slots};
use super::swap::Change;

/// A snapshot on its way.
#[derive(Debug)]
pub(crate) struct Barrier {
    uuid: Uuid,
    tag: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Until regions are not suspect and nobody is being added; no longer than that.
    Waiting(Instant),
    /// No command is admitted until those in work have ended; no longer than that.
    Draining(Instant),
    /// Members take it: these did not answer, these have it.
    Taking { deadline: Instant, waiting: u8, taken: u8 },
    /// The record is being changed.
    Naming,
    /// Not all have it: these did not answer; then it is deleted.
    Undoing { waiting: u8, full: bool },
}

/// Snapshots that are being deleted at once: a replica walks through its maps for each.
pub(crate) const DROPS_MAX: usize = 8;

/// A snapshot that is being deleted, by whom not yet, and who waits for that.
#[derive(Debug)]
pub(crate) struct Drop {
    number: u32,
    uuid: Uuid,
    pub(crate) tag: Option<u64>,
    /// These were not asked yet.
    unasked: u8,
    /// These did not answer yet.
    waiting: u8,
    /// These did not do it, and are asked again then.
    refused: u8,
    again: Option<Instant>,
}

/// A size on its way: who did not answer, and what was refused.
#[derive(Debug)]
pub(crate) struct Resizing {
    pub(crate) bytes: u64,
    tag: u64,
    waiting: u8,
    failure: Option<Failure>,
}

impl Barrier {
    /// Who waits for it.
    pub(crate) const fn tag(&self) -> u64 {
        self.tag
    }
}

impl Resizing {
    /// Who waits for it.
    pub(crate) const fn tag(&self) -> u64 {
        self.tag
    }
}

impl Volume {
    pub(crate) fn snapshot(&mut self, now: Instant, tag: u64, uuid: Uuid) {
        let deadline = now + self.config.timing.command;
        let nexus = self.nexus.as_mut().expect("it is serving");
        let record = nexus.record();
        let failure = if record.snapshot(&uuid).is_some() {
            Some(Failure::Exists)
        } else if record.snapshots.len() == SNAPSHOTS_MAX {
            Some(Failure::Invalid)
        } else if nexus.drops.iter().any(|drop| drop.uuid == uuid) {
            // A deletion of that name is under way: which of both comes first is not known.
            Some(Failure::Busy)
        } else if nexus.snapshot.is_some() || nexus.leaving.is_some() {
            Some(Failure::Busy)
        } else {
            None
        };
        if let Some(failure) = failure {
            return self.end(tag, Err(failure));
        }
        nexus.snapshot = Some(Barrier { uuid, tag, stage: Stage::Waiting(deadline) });
    }

    /// Goes on with a snapshot.
    pub(crate) fn snapshot_on(&mut self, now: Instant) {
        let barrier = self.config.timing.barrier;
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some(stage) = nexus.snapshot.as_ref().map(|snapshot| snapshot.stage) else { return };
        match stage {
            Stage::Waiting(deadline) => {
                let adds = nexus.joiner.as_ref().is_some_and(|joiner| joiner.adding);
                let sizes = nexus.resizing.is_some();
                let changes = nexus.is_changing() || !nexus.changes.is_empty() || sizes;
                let busy = changes || adds || nexus.failing != 0 || !nexus.suspect.is_empty();
                if !busy {
                    nexus.barrier = true;
                    self.set_barrier(Stage::Draining(now + barrier));
                    self.detach(now);
                } else if now >= deadline {
                    self.give_snapshot_up(Failure::Busy);
                }
            }
            Stage::Draining(deadline) => {
                let flushing = |state| matches!(state, State::Flushing { .. });
                let drained =
                    nexus.ranges.len() == 0 && !self.ops.iter().any(|(_, op)| flushing(op.state));
                let changed = nexus.failing != 0 || !nexus.suspect.is_empty();
                if changed || now >= deadline {
                    self.give_snapshot_up(Failure::Busy);
                } else if drained {
                    self.take_snapshots(now, deadline);
                }
            }
            Stage::Taking { deadline, waiting, taken } => {
                self.taken_on(now, deadline, waiting, taken);
            }
            Stage::Undoing { waiting: 0, full } => {
                let snapshot = nexus.snapshot.take();
                let failure = if full { Failure::NoSpace } else { Failure::Busy };
                self.note(Note::Snapshot { taken: false });
                if let Some(Barrier { uuid, tag, .. }) = snapshot {
                    self.end(tag, Err(failure));
                    self.drop_snapshot(now, uuid, None);
                }
            }
            Stage::Undoing { .. } | Stage::Naming => {}
        }
    }

    fn set_barrier(&mut self, stage: Stage) {
        let snapshot = self.nexus.as_mut().and_then(|nexus| nexus.snapshot.as_mut());
        snapshot.expect("one is on its way").stage = stage;
        self.stepped = true;
    }

    /// Lets commands in again.
    fn admit_again(&mut self) {
        if let Some(nexus) = self.nexus.as_mut() {
            nexus.barrier = false;
        }
        self.stirred = true;
    }

    fn take_snapshots(&mut self, now: Instant, deadline: Instant) {
        let nexus = self.nexus.as_ref().expect("it is serving");
        let uuid = nexus.snapshot.as_ref().expect("one is on its way").uuid;
        let waiting = nexus.members;
        self.set_barrier(Stage::Taking { deadline, waiting, taken: 0 });
        for slot in slots(waiting) {
            let command = Command::Snapshot { uuid: uuid.into() };
            self.send(now, slot, Purpose::Snapshot, command, None);
        }
    }

    pub(crate) fn on_snapshot(&mut self, slot: u8, result: &Result<Answer, Refusal>) {
        let snapshot = self.nexus.as_mut().and_then(|nexus| nexus.snapshot.as_mut());
        match snapshot.map(|snapshot| &mut snapshot.stage) {
            Some(Stage::Taking { waiting, taken, .. }) => {
                *waiting &= !bit(slot);
                *taken |= if result.is_ok() { bit(slot) } else { 0 };
                if *result == Err(Refusal::NoSpace) {
                    let waiting = *waiting;
                    self.set_barrier(Stage::Undoing { waiting, full: true });
                    self.admit_again();
                }
            }
            Some(Stage::Undoing { waiting, .. }) => *waiting &= !bit(slot),
            _ => {}
        }
    }

    fn taken_on(&mut self, now: Instant, deadline: Instant, waiting: u8, taken: u8) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let all = waiting == 0 && taken == nexus.members;
        if all && nexus.failing == 0 && !nexus.is_changing() {
            let uuid = nexus.snapshot.as_ref().expect("one is on its way").uuid;
            // The change is sent before commands are admitted: nothing comes between.
            nexus.changes.push_front(Change::Snapshot { uuid, holders: taken });
            self.set_barrier(Stage::Naming);
            self.swap_on(now);
            self.admit_again();
        } else if now >= deadline || nexus.failing != 0 || taken | waiting != nexus.members {
            self.set_barrier(Stage::Undoing { waiting, full: false });
            self.admit_again();
        }
    }

    /// The record names it.
    pub(crate) fn snapshot_named(&mut self) {
        let snapshot = self.nexus.as_mut().and_then(|nexus| nexus.snapshot.take());
        self.note(Note::Snapshot { taken: true });
        if let Some(snapshot) = snapshot {
            self.end(snapshot.tag, Ok(()));
        }
    }

    /// The record does not take it.
    pub(crate) fn snapshot_refused(&mut self, failure: Failure) {
        debug_assert!(failure == Failure::Invalid, "it was looked at before");
        self.set_barrier(Stage::Undoing { waiting: 0, full: false });
    }

    fn give_snapshot_up(&mut self, failure: Failure) {
        let snapshot = self.nexus.as_mut().and_then(|nexus| nexus.snapshot.take());
        self.note(Note::Snapshot { taken: false });
        if let Some(snapshot) = snapshot {
            self.end(snapshot.tag, Err(failure));
        }
        self.admit_again();
    }

    /// The record does not name a snapshot, or no more: it is deleted on all who may have it.
    pub(crate) fn drop_snapshot(&mut self, now: Instant, uuid: Uuid, tag: Option<u64>) {
        let able = self.nexus.as_ref().map_or(0, |nexus| nexus.able());
        self.drop_from(uuid, tag, able);
        self.drops_on(now);
    }

    fn drop_from(&mut self, uuid: Uuid, tag: Option<u64>, unasked: u8) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        nexus.dropped += 1;
        let (number, waiting, refused) = (nexus.dropped, 0, 0);
        nexus.drops.push(Drop { number, uuid, tag, unasked, waiting, refused, again: None });
    }

    /// One has deleted it, or is gone.
    pub(crate) fn on_deleted(
        &mut self,
        now: Instant,
        number: u32,
        slot: u8,
        result: &Result<Answer, Refusal>,
    ) {
        let again = now + self.config.timing.command;
        let Some(nexus) = self.nexus.as_mut() else { return };
        let left =
            matches!(result, Err(Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. }));
        for drop in nexus.drops.iter_mut().filter(|drop| drop.number == number) {
            drop.waiting &= !bit(slot);
            // Who does not delete it now is asked again: its marks are hidden in that layer.
            if result.is_err() && !left {
                drop.refused |= bit(slot);
                drop.again = Some(again);
            }
        }
        self.drops_on(now);
    }

    /// Asks for as many deletions as may be in work at once; those who refused one are asked again.
    pub(crate) fn drops_on(&mut self, now: Instant) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        for drop in nexus.drops.iter_mut().filter(|drop| drop.again.is_some_and(|at| at <= now)) {
            drop.unasked |= core::mem::take(&mut drop.refused);
            drop.again = None;
        }
        while let Some((number, uuid, asked)) = self.next_drop() {
            for slot in slots(asked) {
                let command = Command::DeleteSnapshot { uuid: uuid.into() };
                self.send(now, slot, Purpose::Delete(number), command, None);
            }
        }
        self.deleted();
    }

    /// The next deletion that may be asked for, and of whom.
    fn next_drop(&mut self) -> Option<(u32, Uuid, u8)> {
        let nexus = self.nexus.as_mut()?;
        let able = nexus.able();
        let in_work = nexus.drops.iter().filter(|drop| drop.waiting != 0).count();
        let fits = |drop: &&mut Drop| drop.waiting != 0 || in_work < DROPS_MAX;
        let drop = nexus.drops.iter_mut().filter(|drop| drop.unasked != 0).find(fits)?;
        // Who has left tells of it when it is fenced.
        let asked = core::mem::take(&mut drop.unasked) & able;
        drop.waiting |= asked;
        Some((drop.number, drop.uuid, asked))
    }

    pub(crate) fn drops_due(&self) -> Option<Instant> {
        self.nexus.as_ref()?.drops.iter().filter_map(|drop| drop.again).min()
    }

    fn deleted(&mut self) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let done = nexus.drops.iter_mut().filter(|drop| drop.waiting | drop.unasked == 0);
        let tags: alloc::vec::Vec<u64> = done.filter_map(|drop| drop.tag.take()).collect();
        nexus.drops.retain(|drop| drop.waiting | drop.unasked | drop.refused != 0);
        for tag in tags {
            self.end(tag, Ok(()));
        }
    }

    /// Deletes snapshots of members that the record does not name: their owner ended between.
    pub(crate) fn drop_unnamed(&mut self, now: Instant) {
        let nexus = self.nexus.as_ref().expect("it takes over");
        let mut unnamed = alloc::vec::Vec::<(Uuid, u8)>::new();
        for slot in slots(nexus.good()) {
            let Some(fenced) = nexus.links[usize::from(slot)].fenced.as_deref() else { continue };
            let is_unnamed = |uuid: &&Uuid| nexus.record().snapshot(uuid).is_none();
            for uuid in fenced.snapshots.iter().filter(is_unnamed).take(SNAPSHOTS_KNOWN_MAX) {
                match unnamed.iter_mut().find(|(known, _)| known == uuid) {
                    Some((_, holders)) => *holders |= bit(slot),
                    None => unnamed.push((*uuid, bit(slot))),
                }
            }
        }
        for (uuid, holders) in unnamed {
            self.drop_from(uuid, None, holders);
        }
        self.drops_on(now);
    }

    pub(crate) fn snapshot_due(&self) -> Option<Instant> {
        match self.nexus.as_ref()?.snapshot.as_ref()?.stage {
            Stage::Waiting(at) | Stage::Draining(at) => Some(at),
            Stage::Taking { deadline, .. } => Some(deadline),
            Stage::Naming | Stage::Undoing { .. } => None,
        }
    }

    pub(crate) fn resize(&mut self, now: Instant, tag: u64, bytes: u64) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let now_bytes = nexus.record().bytes;
        if bytes < now_bytes || !bytes.is_multiple_of(crate::wire::BLOCK) {
            return self.end(tag, Err(Failure::Invalid));
        }
        let adds = nexus.joiner.as_ref().is_some_and(|joiner| joiner.adding);
        let busy = nexus.resizing.is_some() || nexus.snapshot.is_some() || adds;
        if busy || nexus.failing != 0 {
            return self.end(tag, Err(Failure::Busy));
        }
        let waiting = nexus.members;
        nexus.resizing = Some(Resizing { bytes, tag, waiting, failure: None });
        for slot in slots(waiting) {
            self.send(now, slot, Purpose::Resize, Command::Resize { bytes }, None);
        }
    }

    pub(crate) fn on_resize(&mut self, now: Instant, slot: u8, result: &Result<Answer, Refusal>) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some(resizing) = nexus.resizing.as_mut() else { return };
        resizing.waiting &= !bit(slot);
        // What one refuses for good counts before what may be otherwise the next time.
        resizing.failure = match (result, resizing.failure.take()) {
            (Err(Refusal::NoSpace), _) => Some(Failure::NoSpace),
            (Err(Refusal::Invalid), None | Some(Failure::Busy)) => Some(Failure::Invalid),
            (Err(_), None) => Some(Failure::Busy),
            (_, before) => before,
        };
        let (bytes, tag) = (resizing.bytes, resizing.tag);
        if resizing.waiting != 0 {
            return;
        }
        if let Some(failure) = resizing.failure.take() {
            // Members that grew keep what nobody sees.
            nexus.resizing = None;
            return self.end(tag, Err(failure));
        }
        nexus.changes.push_back(Change::Resize { bytes });
        self.detach(now);
    }

    /// The record, of which somebody else is the owner, has this size: hosts that come by this
    /// engine see it too. A volume only grows, so that what is smaller is old.
    pub fn told_size(&mut self, bytes: u64) {
        if self.nexus.is_none() && bytes > self.bytes {
            self.bytes = bytes;
            self.effects.push_back(Effect::Resized { bytes });
        }
    }

    /// The record has the new size.
    pub(crate) fn resized(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.effects.push_back(Effect::Resized { bytes });
        let resizing = self.nexus.as_mut().and_then(|nexus| nexus.resizing.take());
        if let Some(resizing) = resizing {
            self.end(resizing.tag, Ok(()));
        }
    }
}
