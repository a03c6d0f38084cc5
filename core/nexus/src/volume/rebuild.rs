//! Bringing a joiner up to date: maps, then regions that differ, then what is behind the end. Once
//! for each snapshot that it missed, oldest first, and once for the volume itself.
//!
//! Invariants:
//! 1. A layer is left when every segment over it has ended: layers of snapshots are copied without
//!    locks, and a late copy would be written over what belongs to the next one.
//! 2. A block that nobody can read is never made up: of a snapshot the joiner does without the
//!    whole of it, and without one of the volume it stays away. It does without a snapshot, too,
//!    that no member holds.

use braid_block::Instant;

use crate::record::Uuid;
use crate::wire::{Answer, Command, REGION, Refusal};
use crate::{Note, Plant, Step, ZERO_MAX};

use super::Volume;
use super::call::Purpose;
use super::comeback::{Stage, regions_of};
use super::compared::{all_regions, is_followed};
use super::pace::Gone;
use super::segment::Kind;
use super::state::{Nexus, bit, slots};

/// How a segment of a return ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is equal.
    Equal,
    /// Somebody left, or it was read too late: once more.
    Undone,
    /// The block of this byte could not be read, whether from one member or, widely, from all.
    Unreadable { offset: u64, wide: bool },
}

impl Volume {
    pub(crate) fn ask_marks(&mut self, now: Instant, snapshot: Option<Uuid>) {
        let alone = self.planted(Plant::DeltaOfJoinerAlone);
        let nexus = self.nexus.as_mut().expect("it is serving");
        let holders = match snapshot {
            Some(uuid) => nexus.record().snapshot(&uuid).map_or(0, |s| s.holders),
            None => u8::MAX,
        };
        let mut asked = nexus.good() & holders;
        if asked == 0 {
            // There is nobody to tell what it lacks, nor to copy it from.
            let gone = snapshot.filter(|_| nexus.members & holders == 0);
            return if gone.is_some() { self.do_without(gone) } else { self.joiner_failed(now) };
        }
        let joiner = nexus.joiner.as_mut().expect("it returns");
        let (slot, attempt) = (joiner.slot, joiner.attempt);
        if snapshot.is_none() {
            // They are to be cleared too, once it is a member.
            joiner.own.runs().for_each(|(first, end)| nexus.written.mark(first, end));
        }
        asked = if alone { 0 } else { asked };
        // What it has marked since it took a snapshot is known. It would tell of what is below,
        // too: its copy of the record does not name what was taken since it was fenced.
        let knows = !joiner.sealed || alone;
        asked |= if knows { bit(slot) } else { 0 };
        joiner.todo = joiner.own.clone();
        joiner.stage = Stage::Marking(asked, snapshot);
        for member in slots(asked) {
            let layer = snapshot.filter(|_| member != slot).map(Into::into);
            self.send(
                now,
                member,
                Purpose::Marks(attempt),
                Command::Marks { snapshot: layer },
                None,
            );
        }
    }

    pub(crate) fn on_marks(
        &mut self,
        now: Instant,
        slot: u8,
        attempt: u32,
        result: &Result<Answer, Refusal>,
    ) {
        let trusts = self.planted(Plant::TrustOldLayers);
        let Some(nexus) = self.nexus.as_mut() else { return };
        let record = nexus.record.as_deref().expect("a claimed volume has a record");
        let Some(joiner) = nexus.joiner.as_mut().filter(|joiner| joiner.attempt == attempt) else {
            return;
        };
        let Stage::Marking(waiting, layer) = &mut joiner.stage else { return };
        let end = regions_of(record.bytes_of(layer.as_ref()));
        let Ok(Answer::Marks(marks)) = result else { return self.joiner_failed(now) };
        joiner.todo.extend(marks, end);
        if layer.is_none() {
            // They are to be cleared too, once it is a member.
            for (first, count) in marks.iter() {
                nexus.written.mark((*first).min(end), first.saturating_add(*count).min(end));
            }
        }
        *waiting &= !bit(slot);
        if *waiting != 0 {
            return;
        }
        let layer = *layer;
        joiner.stage = Stage::Copying(layer);
        if joiner.whole {
            // What is equal in a layer that is older than its absence may differ in the next one.
            if !trusts && !is_followed(&nexus.frozen, joiner.slot, layer.as_ref()) {
                joiner.unknown = all_regions();
            }
            joiner.unknown.runs().for_each(|(first, end)| joiner.todo.insert(first, end));
        }
        joiner.todo.remove(end, u32::MAX);
        joiner.attached |= layer_is_head(&joiner.stage);
        let (slot, regions) = (joiner.slot, joiner.todo.len());
        joiner.gone = Gone::begins(now, regions);
        self.step(slot, Step::Copying { regions });
    }

    /// A segment of a joiner has ended.
    pub(crate) fn rebuild_ended(
        &mut self,
        now: Instant,
        attempt: u32,
        layer: Option<Uuid>,
        region: u32,
        (ended, copied): (Ended, u64),
    ) {
        let trusts = self.planted(Plant::TrustOldLayers);
        let forgets = self.planted(Plant::ForgetCompared);
        let Some(nexus) = self.nexus.as_mut() else { return };
        let bytes = nexus.record().bytes_of(layer.as_ref());
        let Some(joiner) = nexus.joiner.as_mut().filter(|joiner| joiner.attempt == attempt) else {
            return;
        };
        if joiner.stage != Stage::Copying(layer) {
            return;
        }
        joiner.working -= 1;
        if ended == Ended::Equal && !forgets {
            let layer = layer.as_ref().filter(|_| !trusts);
            joiner.found_equal(&nexus.frozen, (layer, bytes), region);
        }
        self.stepped = true;
        let Ended::Unreadable { offset, wide } = ended else {
            if ended == Ended::Undone {
                joiner.todo.insert(region, region + 1);
                return;
            }
            return self.gone_through(now, copied);
        };
        joiner.todo.insert(region, region + 1);
        // What one member cannot read is asked of all; so is what had been asked of that one
        // before another region told that it is not enough.
        joiner.wide = true;
        if !wide || joiner.stuck {
            return;
        }
        let slot = joiner.slot;
        joiner.stuck = true;
        self.note(Note::Unreadable { slot, snapshot: layer, offset });
        if layer.is_none() {
            // What is left on a joiner is no answer to what nobody can read.
            self.joiner_failed(now);
            self.put_off_stuck(now, slot, region);
        }
    }

    /// No member has this snapshot: who had it is away, and may never come back. The volume must
    /// not wait for that.
    fn do_without(&mut self, layer: Option<Uuid>) {
        let slot = self.nexus.as_ref().and_then(|nexus| nexus.joiner_slot());
        let slot = slot.expect("it returns");
        self.note(Note::Unreadable { slot, snapshot: layer, offset: 0 });
        self.skip_layer(layer);
    }

    /// Of a snapshot that nobody can read in full there are as many copies as there were; that
    /// must not keep the volume from having one more.
    pub(crate) fn skip_layer(&mut self, layer: Option<Uuid>) {
        let joiner = self.nexus.as_mut().and_then(|nexus| nexus.joiner.as_mut());
        let joiner = joiner.expect("it returns");
        joiner.skipped.extend(layer);
        joiner.knows_nothing();
        (joiner.wide, joiner.stuck) = (false, false);
        joiner.stage = Stage::Tidying(0);
        self.stepped = true;
    }

    pub(crate) fn layer_copied(&mut self, now: Instant, layer: Option<Uuid>) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let from = nexus.record().bytes_of(layer.as_ref());
        nexus.joiner.as_mut().expect("it returns").stage = Stage::Clipping(layer, from);
        self.clip(now);
    }

    /// Clears what a joiner holds behind the end of a snapshot or of the volume, then lets it take
    /// the snapshot, or flush: who grows it, or what was made of it, must find zeros there.
    pub(crate) fn clip(&mut self, now: Instant) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let joiner = nexus.joiner.as_mut().expect("it returns");
        let Stage::Clipping(layer, from) = &mut joiner.stage else { return };
        let (slot, attempt) = (joiner.slot, joiner.attempt);
        let command = if *from < joiner.bytes {
            let (offset, len) = (*from, (joiner.bytes - *from).min(ZERO_MAX));
            *from += len;
            Command::Zero { offset, len, durable: false }
        } else if let Some(uuid) = *layer {
            joiner.stage = Stage::Sealing(uuid);
            Command::Snapshot { uuid: uuid.into() }
        } else {
            joiner.stage = Stage::Flushing;
            nexus.flushes += 1;
            Command::Flush { number: nexus.flushes }
        };
        self.send(now, slot, Purpose::Joiner(attempt), command, None);
    }
}

/// Whether what is copied is the volume itself.
const fn layer_is_head(stage: &Stage) -> bool {
    matches!(stage, Stage::Copying(None))
}

impl Nexus {
    /// The bytes of a region of what a segment makes equal: the first, and the one after the last.
    pub(crate) fn region_of(&self, kind: &Kind, region: u32) -> (u64, u64) {
        let snapshot = match kind {
            Kind::Rebuild { snapshot, .. } => snapshot.as_ref(),
            Kind::Resync | Kind::Repair(_) => None,
        };
        let first = u64::from(region) * REGION;
        (first, (first + REGION).min(self.record().bytes_of(snapshot)))
    }

    /// Slots that commands of a segment can be sent to: those of an earlier return to nobody.
    pub(crate) fn able_for(&self, kind: &Kind) -> u8 {
        let Kind::Rebuild { attempt, snapshot, .. } = kind else { return self.able() };
        let current = self.joiner.as_ref().is_some_and(|joiner| {
            joiner.attempt == *attempt && joiner.stage == Stage::Copying(*snapshot)
        });
        if current { self.able() } else { 0 }
    }

    /// The joiner's next region that is not in work.
    pub(crate) fn next_rebuild(&self) -> Option<(Kind, u32)> {
        let joiner = self.joiner.as_ref()?;
        let Stage::Copying(snapshot) = joiner.stage else { return None };
        let region = joiner.todo.first().filter(|_| !joiner.stuck)?;
        let (slot, attempt) = (joiner.slot, joiner.attempt);
        Some((Kind::Rebuild { slot, attempt, snapshot }, region))
    }

    /// A segment over the joiner's region has begun.
    pub(crate) fn rebuild_begun(&mut self, region: u32) {
        if let Some(joiner) = self.joiner.as_mut() {
            joiner.todo.remove(region, region + 1);
            joiner.working += 1;
        }
    }

    /// Members that are read for the joiner: one, unless that was not enough.
    pub(crate) fn rebuild_sources(&self) -> u8 {
        let Some(joiner) = self.joiner.as_ref() else { return 0 };
        let holders = match joiner.stage {
            Stage::Copying(Some(uuid)) => self.record().snapshot(&uuid).map_or(0, |s| s.holders),
            _ => u8::MAX,
        };
        let sources = self.good() & holders;
        if joiner.wide { sources } else { sources & sources.wrapping_neg() }
    }
}
