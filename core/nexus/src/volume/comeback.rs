//! The return of a replica: fence, snapshots that it missed, then every write while what differs
//! is copied, then flush, lease and add.
//!
//! ```text
//! Opening -> Tidying -> [Marking -> Copying -> Clipping -> Sealing] for each missed snapshot,
//!                        oldest first
//!         -> Settling -> Marking -> Copying -> Flushing -> Leasing -> Adding -> member
//! ```
//!
//! Invariants:
//! 1. The record names it as away, and so does every member's copy, before it is fenced: marks
//!    accumulate, and the next owner knows.
//! 2. It is fenced also when it left in this very epoch: what was under way to it ends first.
//! 3. It gets every write and flush before the marks are read, writes of before have settled, and
//!    no region is suspect. One that becomes suspect starts it again.
//! 4. What is compared: the marks of all members and its own; all of it if its snapshots or its
//!    history do not match, but for what an earlier attempt found equal ([`super::compared`]).
//! 5. It is flushed after the last copy, leases like a member, and counts as one from the sending
//!    of its add.
//! 6. A snapshot is made on it before it gets newer writes: it is copied while it gets none.

use alloc::vec::Vec;

use braid_block::Instant;

use crate::guard::SNAPSHOTS_KNOWN_MAX;
use crate::record::{Snapshot, Uuid};
use crate::wire::{Answer, Command, Fenced, REGION, Refusal};
use crate::{Note, Plant, Step};

use super::Volume;
use super::call::Purpose;
use super::compared::all_regions;
use super::pace::Gone;
use super::regions::Regions;
use super::snapshot::DROPS_MAX;
use super::state::{Line, Nexus, Phase, bit, slots};
use super::swap::Change;

/// A replica that returns.
#[derive(Debug)]
pub(crate) struct Joiner {
    pub(crate) slot: u8,
    /// Which return this is, of all that were begun.
    pub(crate) attempt: u32,
    /// It gets every write and flush.
    pub(crate) attached: bool,
    /// Its add is sent.
    pub(crate) adding: bool,
    pub(crate) instance: u64,
    /// How large it is.
    pub(crate) bytes: u64,
    pub(crate) stage: Stage,
    /// All of it is compared: marks do not tell what it lacks.
    pub(crate) whole: bool,
    /// Where that is so and it was not compared yet; nothing before it is fenced.
    pub(crate) unknown: Regions,
    /// Marks that it had when it was fenced, or since it took a snapshot.
    pub(crate) own: Regions,
    /// It took a snapshot since it was fenced.
    pub(crate) sealed: bool,
    /// Of the layer that is being copied.
    pub(crate) gone: Gone,
    /// Regions to be compared, and how many are in work.
    pub(crate) todo: Regions,
    pub(crate) working: u32,
    /// Members that could be read for it were not enough: all are compared.
    pub(crate) wide: bool,
    /// Not even that was enough.
    pub(crate) stuck: bool,
    /// Snapshots that it has and that are not as the record has them, still to be deleted.
    pub(crate) surplus: Vec<Uuid>,
    /// Snapshots of which a block can be read nowhere: it does without.
    pub(crate) skipped: Vec<Uuid>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is being reached and fenced; no longer than that.
    Opening(Instant),
    /// Snapshots that are not as the record has them are deleted, its size is set: so many
    /// answers are awaited.
    Tidying(u32),
    /// These did not tell their marks yet, of this snapshot or of the volume.
    Marking(u8, Option<Uuid>),
    /// Regions are compared and copied.
    Copying(Option<Uuid>),
    /// It is larger than this snapshot, or the volume: what is behind is cleared, from there on.
    Clipping(Option<Uuid>, u64),
    /// It takes this snapshot.
    Sealing(Uuid),
    /// Writes that began before it was attached settle: the grants of then.
    Settling(u64),
    /// It flushes.
    Flushing,
    /// It leases; then it is added.
    Leasing,
    /// The record is being changed.
    Adding,
}

impl Volume {
    /// Goes on with a return.
    pub(crate) fn comeback_on(&mut self, now: Instant) {
        let suspect = self.is_suspect();
        let Some(nexus) = self.nexus.as_ref().filter(|nexus| nexus.phase == Phase::Serving) else {
            return;
        };
        let Some(joiner) = nexus.joiner.as_ref() else { return self.next_absent(now) };
        let settles = matches!(joiner.stage, Stage::Settling(_));
        if suspect && joiner.attached && !joiner.adding && !settles {
            return self.joiner_failed(now);
        }
        match joiner.stage.clone() {
            Stage::Opening(deadline) if now >= deadline => self.joiner_failed(now),
            Stage::Tidying(0) => self.next_layer(now),
            Stage::Settling(grants) => self.settle_joiner(now, grants),
            Stage::Copying(layer) if joiner.stuck && joiner.working == 0 => self.skip_layer(layer),
            Stage::Copying(layer) if joiner.todo.is_empty() && joiner.working == 0 => {
                self.layer_copied(now, layer);
            }
            Stage::Copying(_) if self.gives_way().is_some_and(|at| at <= now) => {
                self.end_attempt(now, Step::Yielded);
                self.next_absent(now);
            }
            Stage::Leasing => self.add_joiner(now),
            _ => {}
        }
    }

    fn is_suspect(&self) -> bool {
        let ignores = self.planted(Plant::ReturnWhileSuspect);
        !ignores && self.nexus.as_ref().is_some_and(|nexus| !nexus.suspect.is_empty())
    }

    /// Reads maps, if what was under way before the joiner got writes has settled.
    fn settle_joiner(&mut self, now: Instant, grants: u64) {
        let held = self.nexus.as_ref().is_some_and(|nexus| nexus.ranges.is_held(grants));
        if !held && !self.is_suspect() {
            self.ask_marks(now, None);
        }
    }

    pub(crate) fn step(&mut self, slot: u8, step: Step) {
        self.note(Note::Returning { slot, step });
    }

    /// It failed, or begins anew for another reason.
    pub(crate) fn joiner_failed(&mut self, now: Instant) {
        let Some(nexus) = self.nexus.as_ref() else { return };
        let adding = nexus.joiner.as_ref().filter(|joiner| joiner.adding);
        if let Some(slot) = adding.map(|joiner| joiner.slot) {
            // It may be a member already: it counts until its exclusion.
            return self.fail(now, slot, Refusal::Gone);
        }
        self.end_attempt(now, Step::Failed);
    }

    /// Ends an attempt before its add; another one follows.
    fn end_attempt(&mut self, now: Instant, step: Step) {
        let again = now + self.config.timing.retry * 2;
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some(joiner) = nexus.joiner.take() else { return };
        let slot = joiner.slot;
        nexus.keep_length(&joiner);
        nexus.keep_compared(joiner);
        let link = &mut nexus.links[usize::from(slot)];
        if let Some(association) = link.association() {
            self.effects.push_back(crate::Effect::Leave { association });
        }
        (link.line, link.asked, link.leased, link.fenced) =
            (Line::None, false, Instant::ZERO, None);
        self.put_off(slot, again);
        self.step(slot, step);
        self.settle_all();
    }

    /// The snapshot that is being copied to a joiner goes away.
    pub(crate) fn layer_goes(&mut self, now: Instant, uuid: &Uuid) {
        let Some(joiner) = self.nexus.as_ref().and_then(|nexus| nexus.joiner.as_ref()) else {
            return;
        };
        let has = match &joiner.stage {
            Stage::Marking(_, layer) | Stage::Copying(layer) => layer.as_ref() == Some(uuid),
            Stage::Clipping(layer, _) => layer.as_ref() == Some(uuid),
            Stage::Sealing(layer) => layer == uuid,
            _ => false,
        };
        if has {
            self.joiner_failed(now);
        }
    }

    /// A joiner that gets writes, but is not being added, begins anew: members are about to
    /// change what it would have to have.
    pub(crate) fn detach(&mut self, now: Instant) {
        let joiner = self.nexus.as_ref().and_then(|nexus| nexus.joiner.as_ref());
        if joiner.is_some_and(|joiner| joiner.attached && !joiner.adding) {
            self.joiner_failed(now);
        }
    }

    pub(crate) fn joiner_fenced(&mut self, now: Instant, fenced: &Fenced) {
        let nexus = self.nexus.as_mut().expect("it fenced");
        let Some(slot) = nexus.joiner_slot() else { return };
        let link = &mut nexus.links[usize::from(slot)];
        let Line::Fencing(association) = link.line else { return };
        link.line = Line::Up(association);
        let end = nexus.regions();
        let unknown = nexus.unknown(slot, fenced.instance);
        let record = nexus.record.as_deref().expect("a claimed volume has a record");
        let joiner = nexus.joiner.as_mut().expect("it is there");
        joiner.instance = fenced.instance;
        joiner.own.extend(&fenced.marks, end);
        joiner.whole |= fenced.copy.is_none();
        // What it holds counts as far as the record says that it does, oldest first, unbroken.
        // That is so too if all of it is compared: who was wiped has none, and what it was given
        // since was written down after it had been found that it had none.
        let named = record.snapshots.iter().take_while(|s| s.holders & bit(slot) != 0);
        let known = fenced.snapshots.iter().filter(|uuid| record.snapshot(uuid).is_some());
        let same = named.zip(known).take_while(|(named, has)| named.uuid == **has);
        let kept = same.count();
        let keeps = |uuid: &&Uuid| record.snapshots.iter().take(kept).any(|s| s.uuid == **uuid);
        let drop = fenced.snapshots.iter().filter(|uuid| !keeps(uuid)).take(SNAPSHOTS_KNOWN_MAX);
        let drop: Vec<Uuid> = drop.copied().collect();
        let wrong = record.snapshots.iter().skip(kept).filter(|s| s.holders & bit(slot) != 0);
        let wrong: Vec<Uuid> = wrong.map(|snapshot| snapshot.uuid).collect();
        // Marks of a layer that it had as a member may have been cleared: without it they tell
        // nothing of the others. The change says so in the record, too.
        joiner.whole |= !wrong.is_empty();
        if joiner.whole {
            joiner.unknown = if wrong.is_empty() { unknown } else { all_regions() };
        }
        joiner.bytes = fenced.bytes;
        (joiner.stage, joiner.surplus) = (Stage::Tidying(0), drop);
        nexus.flushes = nexus.flushes.max(fenced.flush);
        for uuid in wrong {
            nexus.changes.push_back(Change::Holder { uuid, slot, holds: false });
        }
        self.tidy(now);
        self.stepped = true;
    }

    /// Lets a joiner delete what it has too much, as many at once as a member.
    fn tidy(&mut self, now: Instant) {
        let Some(joiner) = self.nexus.as_mut().and_then(|nexus| nexus.joiner.as_mut()) else {
            return;
        };
        let Stage::Tidying(waiting) = &mut joiner.stage else { return };
        let count = (DROPS_MAX - *waiting as usize).min(joiner.surplus.len());
        *waiting += count as u32;
        let (slot, attempt) = (joiner.slot, joiner.attempt);
        let next: Vec<Uuid> = joiner.surplus.drain(..count).collect();
        for uuid in next {
            let command = Command::DeleteSnapshot { uuid: uuid.into() };
            self.send(now, slot, Purpose::Joiner(attempt), command, None);
        }
    }

    /// A joiner answered something that has no purpose of its own.
    pub(crate) fn on_joiner(
        &mut self,
        now: Instant,
        attempt: u32,
        result: &Result<Answer, Refusal>,
    ) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some(joiner) = nexus.joiner.as_mut().filter(|joiner| joiner.attempt == attempt) else {
            return;
        };
        let slot = joiner.slot;
        if let Err(refusal) = result {
            // An association that ended has ended the return already.
            self.joiner_failed(now);
            if *refusal == Refusal::NoSpace {
                self.put_off_full(now, slot);
            }
            return;
        }
        match &mut joiner.stage {
            Stage::Tidying(waiting) => {
                *waiting -= 1;
                self.tidy(now);
            }
            Stage::Clipping(..) => self.clip(now),
            Stage::Sealing(uuid) => {
                let uuid = *uuid;
                // It is one layer on: the marks that it had are below now. So are those of what
                // was cleared behind the end of the snapshot, of which members know nothing.
                let record = nexus.record.as_deref().expect("a claimed volume has a record");
                let end = record.bytes_of(Some(&uuid));
                (joiner.own, joiner.sealed) = (Regions::default(), true);
                let behind = ((end / REGION) as u32, regions_of(joiner.bytes));
                joiner.own.insert(behind.0, behind.1);
                if joiner.whole {
                    joiner.unknown.insert(behind.0, behind.1);
                }
                joiner.stage = Stage::Tidying(0);
                nexus.changes.push_back(Change::Holder { uuid, slot, holds: true });
            }
            Stage::Flushing => joiner.stage = Stage::Leasing,
            _ => {}
        }
    }

    /// Goes on with the oldest snapshot that it lacks, or with the volume itself.
    fn next_layer(&mut self, now: Instant) {
        let forgets = self.planted(Plant::ForgetSnapshot);
        let late = self.planted(Plant::JoinerLate);
        let nexus = self.nexus.as_mut().expect("it is serving");
        // What the record says of holders must be as it was found here.
        if nexus.is_changing() || !nexus.changes.is_empty() || nexus.barrier {
            return;
        }
        // What a snapshot takes from the marks of members is below it.
        if nexus.snapshot.is_some() {
            return;
        }
        let slot = nexus.joiner_slot().expect("it returns");
        let skipped = nexus.joiner.as_ref().map_or(&[][..], |joiner| &joiner.skipped);
        let lacks = |s: &&Snapshot| s.holders & bit(slot) == 0 && !skipped.contains(&s.uuid);
        let lacks = nexus.record().snapshots.iter().find(lacks);
        let lacks = lacks.copied().filter(|_| !forgets);
        let grants = nexus.ranges.grants();
        // It grows with the layers, so that each has the size that it has elsewhere.
        let bytes = lacks.map_or(nexus.record().bytes, |snapshot| snapshot.bytes);
        let joiner = nexus.joiner.as_mut().expect("it returns");
        if joiner.bytes < bytes {
            joiner.bytes = bytes;
            joiner.stage = Stage::Tidying(1);
            let attempt = joiner.attempt;
            let command = Command::Resize { bytes };
            return self.send(now, slot, Purpose::Joiner(attempt), command, None);
        }
        if let Some(uuid) = lacks.map(|snapshot| snapshot.uuid) {
            self.step(slot, Step::Snapshots);
            return self.ask_marks(now, Some(uuid));
        }
        let nexus = self.nexus.as_mut().expect("it is serving");
        let joiner = nexus.joiner.as_mut().expect("it returns");
        joiner.attached = !late;
        joiner.stage = Stage::Settling(grants);
        self.stepped = true;
        self.step(slot, Step::Attached);
    }

    /// Adds it, once it has promised a lease and nothing is in the way.
    fn add_joiner(&mut self, now: Instant) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let changing = nexus.is_changing();
        let joiner = nexus.joiner.as_mut().expect("it returns");
        let (slot, instance, whole) = (joiner.slot, joiner.instance, joiner.whole);
        let link = &mut nexus.links[usize::from(slot)];
        if link.leased <= now {
            if !core::mem::replace(&mut link.asked, true) {
                self.send(now, slot, Purpose::Lease, Command::Lease, None);
            }
            return;
        }
        let busy = changing || nexus.failing != 0 || nexus.barrier;
        if busy || nexus.leaving.is_some() || nexus.resizing.is_some() {
            return;
        }
        joiner.stage = Stage::Adding;
        joiner.adding = true;
        nexus.changes.push_front(Change::Join { slot, instance, whole });
        self.step(slot, Step::Adding);
        self.swap_on(now);
    }
}

/// Regions of so many bytes.
pub(crate) fn regions_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(REGION)).unwrap_or(u32::MAX)
}

impl Nexus {
    /// Regions of the volume.
    pub(crate) fn regions(&self) -> u32 {
        regions_of(self.record().bytes)
    }

    /// Slots that commands can be sent to.
    pub(crate) fn able(&self) -> u8 {
        let joiner = self.joiner_slot().map_or(0, bit);
        let up = |slot: &u8| matches!(self.links[usize::from(*slot)].line, Line::Up(_));
        let all = (self.members | joiner) & !self.failing;
        slots(all).filter(up).fold(0, |mask, slot| mask | bit(slot))
    }
}
