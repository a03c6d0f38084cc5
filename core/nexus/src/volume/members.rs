//! Associations to replicas, and what a failure of one means.
//!
//! An association is one incarnation of the nexus, one instance of a replica, one epoch. It is
//! never resumed: when it ends, all its commands are of unknown outcome and the replica has left.

use alloc::collections::VecDeque;

use braid_block::{Instant, Key, Slab};

use crate::wire::{Command, Refusal};
use crate::{Effect, Note, Plant};

use super::Volume;
use super::call::{Call, Purpose};
use super::state::{Line, Phase, bit, slots};

/// Takes what is overdue; what has ended is skipped.
fn next_due(due: &mut VecDeque<(Instant, Key)>, calls: &Slab<Call>, now: Instant) -> Option<Key> {
    // Behind one that is slow those that have ended must not pile up.
    if due.len() > calls.capacity() * 2 {
        due.retain(|(_, key)| calls.get(*key).is_some());
    }
    while let Some((at, key)) = due.front().copied() {
        let out = calls.get(key).is_some();
        if out && at > now {
            return None;
        }
        due.pop_front();
        if out {
            return Some(key);
        }
    }
    None
}

impl Volume {
    /// Asks for an association to the replica in a slot.
    pub(crate) fn associate(&mut self, slot: u8) {
        let nexus = self.nexus.as_mut().expect("an owner associates");
        let Some(replica) = nexus.record().replica(slot).map(|replica| replica.uuid) else {
            return;
        };
        self.associations = self.associations.wrapping_add(1);
        let association = self.associations;
        nexus.links[usize::from(slot)].line = Line::Opening(association);
        self.effects.push_back(Effect::Associate { association, replica });
    }

    pub(crate) fn on_associated(&mut self, now: Instant, association: u32) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some(slot) = nexus.slot_by(association) else { return };
        let link = &mut nexus.links[usize::from(slot)];
        if link.line != Line::Opening(association) {
            return;
        }
        link.line = Line::Fencing(association);
        let record = nexus.record.clone().expect("a claimed volume has a record");
        self.send(now, slot, Purpose::Fence, Command::Fence(record), None);
    }

    pub(crate) fn on_broken(&mut self, now: Instant, association: u32, refused: bool) {
        let slot = self.nexus.as_ref().and_then(|nexus| nexus.slot_by(association));
        let Some(slot) = slot else { return };
        let again = now + self.config.timing.retry;
        let line = if refused { Line::Refused(again) } else { Line::Silent(again) };
        self.part(now, slot, line, Refusal::Gone);
    }

    /// A replica failed: nothing is sent to it any more.
    pub(crate) fn fail(&mut self, now: Instant, slot: u8, refusal: Refusal) {
        let Some(nexus) = self.nexus.as_ref() else { return };
        if let Some(association) = nexus.links[usize::from(slot)].association() {
            if self.planted(Plant::ResumeAssociation) && refusal == Refusal::Gone {
                return;
            }
            self.effects.push_back(Effect::Leave { association });
        }
        let again = now + self.config.timing.retry;
        self.part(now, slot, Line::Silent(again), refusal);
    }

    /// The association to a slot is no more.
    fn part(&mut self, now: Instant, slot: u8, line: Line, refusal: Refusal) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let link = &mut nexus.links[usize::from(slot)];
        let had = link.association().is_some();
        (link.line, link.asked, link.leased, link.reads) = (line, false, Instant::ZERO, 0);
        link.unread = 0;
        let adding = nexus.joiner.as_ref().is_some_and(|joiner| joiner.adding);
        let joins = nexus.joiner_slot() == Some(slot);
        if matches!(nexus.phase, Phase::Fencing { .. }) {
            nexus.links[usize::from(slot)].fenced = None;
            return;
        }
        let is_member = nexus.members & bit(slot) != 0 || (joins && adding);
        if !is_member {
            nexus.links[usize::from(slot)].line = Line::None;
        }
        if is_member && nexus.failing & bit(slot) == 0 {
            nexus.failing |= bit(slot);
            nexus.held.get_or_insert(now);
            self.note(Note::Failing { slot, refusal });
        }
        self.uncopied(now, slot);
        if joins && !adding && had {
            self.joiner_failed(now);
            if refusal == Refusal::NoSpace {
                self.put_off_full(now, slot);
            }
        }
        if self.nexus.is_some() {
            self.look_lost();
            self.settle_all();
        }
    }

    /// Tells, once, if no member is left that could go on: one that the record does not name any
    /// more can carry nothing on, though it counts until that is relied on.
    pub(crate) fn look_lost(&mut self) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let left = nexus.staying() == 0 && nexus.members != 0;
        if left && !core::mem::replace(&mut nexus.lost, true) {
            self.note(Note::Lost);
        }
    }

    /// Looks at the commands that are out for too long.
    pub(crate) fn overdue(&mut self, now: Instant) {
        while let Some(key) = next_due(&mut self.due, &self.calls, now)
            .or_else(|| next_due(&mut self.due_walks, &self.calls, now))
        {
            let Some(call) = self.calls.get(key).copied() else { continue };
            let current = self.nexus.as_ref().is_some_and(|nexus| nexus.is_current(&call));
            if current {
                self.fail(now, call.slot, Refusal::Gone);
            }
        }
    }

    /// Members that may be excluded now: those that failed, if one that stays has applied every
    /// write that they hold up, and those that the management takes out. If none has, nobody is
    /// excluded: the truth may be with any of them.
    pub(crate) fn excludable(&mut self) -> Option<u8> {
        self.keep_last();
        let nexus = self.nexus.as_deref()?;
        let record = nexus.record();
        let failing = nexus.failing & record.members();
        // The change that names a snapshot is the next one when all have taken it.
        let unwanted = if nexus.snapshot.is_some() { 0 } else { nexus.unwanted() };
        if failing | unwanted == 0 {
            return None;
        }
        let held = self.ops.iter().filter_map(|(_, op)| match op.state {
            super::op::State::Writing { targets, applied, .. }
                if targets & failing & !applied != 0 =>
            {
                Some(applied)
            }
            _ => None,
        });
        let staying = held.fold(nexus.staying(), |all, applied| all & applied);
        let leaving = failing | if staying & !unwanted == 0 { 0 } else { unwanted };
        (staying != 0 && leaving != 0).then_some(leaving)
    }

    /// Who is left alone meanwhile is not taken out.
    fn keep_last(&mut self) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let unwanted = nexus.unwanted();
        if unwanted == 0 || nexus.staying() & !unwanted != 0 {
            return;
        }
        let asked = core::mem::take(&mut nexus.excluding);
        let (stays, rest) = asked.into_iter().partition(|(slot, _)| unwanted & bit(*slot) != 0);
        nexus.excluding = rest;
        let stays: alloc::vec::Vec<(u8, u64)> = stays;
        for (_, tag) in stays {
            self.end(tag, Err(crate::Failure::Busy));
        }
    }

    /// Asks again for those whose association did not come about.
    pub(crate) fn ask_again(&mut self, now: Instant) {
        let Some(nexus) = self.nexus.as_ref() else { return };
        let due = |slot: &u8| {
            let again = nexus.links[usize::from(*slot)].line.again();
            again.is_some_and(|again| again <= now)
        };
        let again: arrayvec::ArrayVec<u8, 8> = slots(nexus.asked()).filter(due).collect();
        for slot in again {
            self.associate(slot);
        }
    }
}
