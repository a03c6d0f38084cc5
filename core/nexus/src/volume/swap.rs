//! Changes of the record: compare-and-swap, one at a time, then copies to the members.
//!
//! Invariants:
//! 1. A change is relied on when it is committed and every remaining member has the copy. One that
//!    failed is a member until it is excluded: if it has no copy, what was changed is relied on
//!    together with its exclusion, in the order of the changes, and nothing else is changed before.
//! 2. A change of unknown outcome is asked for again, as it was, until it is committed or the
//!    record has another version: reading the old one proves nothing.
//! 3. Somebody else's change ends this owner.

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::Instant;

use crate::record::{Lossy, Record, Replica, Snapshot, Standing, Uuid};
use crate::wire::{Answer, Command, Refusal};
use crate::{Effect, Failure, Note, Plant, Step, Swapped, Why};

use super::Volume;
use super::call::Purpose;
use super::state::{Line, Phase, bit, slots};

/// A change of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The volume has another owner.
    Claim,
    /// These stay, with these instances; it is as the take-over found it.
    Activate(Box<Record>),
    /// I/O will be accepted for the first time: from now on something can be lost.
    Begin,
    /// Members are away.
    Exclude { slots: u8 },
    /// A replica is a member.
    Join {
        slot: u8,
        instance: u64,
        /// All of it was compared.
        whole: bool,
    },
    /// A host was told of a loss.
    Told { host: Uuid },
    /// A replica is named, as away.
    Name { uuid: Uuid, tag: u64 },
    /// A replica is named no more.
    Forget { uuid: Uuid, tag: u64 },
    /// A snapshot is named.
    Snapshot { uuid: Uuid, holders: u8 },
    /// A replica holds a snapshot, or does not.
    Holder { uuid: Uuid, slot: u8, holds: bool },
    /// A snapshot is named no more.
    DropSnapshot { uuid: Uuid, tag: u64 },
    /// Another size.
    Resize { bytes: u64 },
    /// The owner leaves in order.
    Clean,
}

/// A change that is on its way.
#[derive(Debug)]
pub(crate) struct Swap {
    pub(crate) number: u64,
    pub(crate) change: Change,
    pub(crate) old: Box<Record>,
    new: Box<Record>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Asked for.
    Asked,
    /// Nobody knows: to be asked for again then.
    Again(Instant),
    /// Committed; these do not have the copy yet, and of those that failed these.
    Copying { waiting: u8, lacking: u8 },
}

impl Swap {
    /// When it is to be asked for again.
    pub(crate) const fn again(&self) -> Option<Instant> {
        match self.stage {
            Stage::Again(at) => Some(at),
            Stage::Asked | Stage::Copying { .. } => None,
        }
    }
}

impl Volume {
    /// Asks for a change; `old` is the record as it is expected to be.
    pub(crate) fn swap(&mut self, old: Box<Record>, new: Box<Record>, change: Change) {
        let nexus = self.nexus.as_mut().expect("an owner changes the record");
        debug_assert!(nexus.swap.is_none() && new.version == old.version + 1);
        nexus.swap = Some(Swap { number: 0, change, old, new, stage: Stage::Asked });
        self.ask_swap();
    }

    fn ask_swap(&mut self) {
        self.swaps += 1;
        let number = self.swaps;
        let blind = self.planted(Plant::PlainPut);
        let nexus = self.nexus.as_mut().expect("an owner changes the record");
        let Some(swap) = nexus.swap.as_mut() else { return };
        (swap.number, swap.stage) = (number, Stage::Asked);
        let (old, new) = (swap.old.clone(), swap.new.clone());
        self.effects.push_back(Effect::Swap { number, old, new, blind });
    }

    /// A change ended, or may have.
    pub(crate) fn swapped(&mut self, now: Instant, outcome: Swapped) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some(swap) = nexus.swap.as_mut() else { return };
        if swap.stage != Stage::Asked {
            return;
        }
        match outcome {
            Swapped::Committed => self.committed(now),
            Swapped::Changed(record) if *record == *swap.new => self.committed(now),
            Swapped::Changed(record) if swap.change == Change::Claim => self.claim_again(record),
            Swapped::Changed(_) => self.stop(Why::SwapLost),
            Swapped::Unknown if self.config.plant == Some(Plant::UnknownByReading) => {
                self.fetch();
            }
            Swapped::Unknown => swap.stage = Stage::Again(now + self.config.timing.retry),
        }
    }

    /// [`Plant::UnknownByReading`]: what is not there now is taken for lost.
    pub(crate) fn judge_by_reading(&mut self, now: Instant, record: Option<Box<Record>>) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some(swap) = nexus.swap.as_mut() else { return };
        match record {
            None => swap.stage = Stage::Again(now + self.config.timing.retry),
            Some(record) if *record == *swap.new => self.committed(now),
            Some(record) if *record == *swap.old => {
                let change = nexus.swap.take().map(|swap| swap.change);
                if let Some(joiner) = nexus.joiner.as_mut() {
                    joiner.adding = false;
                }
                match change {
                    Some(Change::Claim | Change::Activate(_)) => self.stop(Why::SwapLost),
                    Some(Change::Join { .. }) => {
                        nexus.failing &= nexus.members;
                        self.joiner_failed(now);
                    }
                    _ => {}
                }
            }
            Some(_) => self.stop(Why::SwapLost),
        }
    }

    fn committed(&mut self, now: Instant) {
        let nexus = self.nexus.as_mut().expect("its change was asked for");
        let swap = nexus.swap.as_mut().expect("it was asked for");
        nexus.record = Some(swap.new.clone());
        if swap.change == Change::Claim {
            nexus.swap = None;
            return self.claimed(now);
        }
        let change = swap.change.clone();
        nexus.note_change(&change);
        let swap = nexus.swap.as_mut().expect("it was asked for");
        let stays = swap.new.members() & !nexus.failing;
        let up = |slot: &u8| matches!(nexus.links[usize::from(*slot)].line, Line::Up(_));
        let waiting = slots(stays).filter(up).fold(0, |mask, slot| mask | bit(slot));
        swap.stage = Stage::Copying { waiting, lacking: swap.new.members() & !waiting };
        let record = swap.new.clone();
        for slot in slots(waiting) {
            self.send(now, slot, Purpose::Copy, Command::CopyRecord(record.clone()), None);
        }
        self.copied(now);
        // Those whom it leaves may have failed while it was on its way.
        self.look_lost();
    }

    pub(crate) fn on_copied(&mut self, now: Instant, slot: u8, result: Result<Answer, Refusal>) {
        match result {
            Ok(_) => self.awaited(now, slot, 0),
            // A failure was seen already; what else there is means that it is not what we think.
            Err(refusal) => self.fail(now, slot, refusal),
        }
    }

    /// A slot failed: no copy is awaited from it any more.
    pub(crate) fn uncopied(&mut self, now: Instant, slot: u8) {
        self.awaited(now, slot, bit(slot));
    }

    /// Nothing is awaited from a slot any more; those in the mask do not have the copy.
    fn awaited(&mut self, now: Instant, slot: u8, without: u8) {
        let swap = self.nexus.as_mut().and_then(|nexus| nexus.swap.as_mut());
        if let Some(Swap { stage: Stage::Copying { waiting, lacking }, .. }) = swap {
            *lacking |= without & *waiting;
            *waiting &= !bit(slot);
            self.copied(now);
        }
    }

    /// Relies on what was changed when everybody has the copy. A member that failed meanwhile
    /// still counts, and its exclusion is the next change: a store that is lost now is recovered
    /// from the copies, and if none of them says who was excluded, he is a member again.
    fn copied(&mut self, now: Instant) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some(swap) = nexus.swap.as_ref() else { return };
        let Stage::Copying { waiting: 0, lacking } = swap.stage else { return };
        // That it is clean decides nothing: nobody relies on it.
        let relied = lacking == 0 || swap.change == Change::Clean;
        nexus.committed.extend(nexus.swap.take().map(|swap| swap.change));
        if !relied {
            return;
        }
        for change in core::mem::take(&mut nexus.committed) {
            self.rely(now, change);
        }
    }

    /// A change counts from now on.
    fn rely(&mut self, now: Instant, change: Change) {
        if self.nexus.is_none() {
            return;
        }
        match change {
            Change::Claim | Change::Begin => {}
            Change::Activate(_) => self.activated(now),
            Change::Exclude { slots } => self.excluded(slots),
            Change::Join { slot, .. } => self.joined(slot),
            Change::Told { .. } => self.stirred = true,
            Change::Name { tag, .. } | Change::Forget { tag, .. } => self.end(tag, Ok(())),
            Change::DropSnapshot { uuid, tag } => self.drop_snapshot(now, uuid, Some(tag)),
            Change::Snapshot { .. } => self.snapshot_named(),
            Change::Holder { .. } => {}
            Change::Resize { bytes } => self.resized(bytes),
            Change::Clean => self.left(),
        }
    }

    fn excluded(&mut self, slots: u8) {
        let nexus = self.nexus.as_mut().expect("it excluded");
        nexus.members &= !slots;
        nexus.failing &= !slots;
        for slot in super::state::slots(slots) {
            let link = &mut nexus.links[usize::from(slot)];
            // One that had not failed is left only now.
            if let Some(association) = link.association() {
                self.effects.push_back(Effect::Leave { association });
            }
            (link.line, link.asked, link.leased, link.reads) =
                (Line::None, false, Instant::ZERO, 0);
        }
        nexus.winners.retain(|slot| slots & bit(*slot) == 0);
        if nexus.failing == 0 {
            nexus.held = None;
        }
        let asked = core::mem::take(&mut nexus.excluding);
        let (gone, stay) = asked.into_iter().partition(|(slot, _)| slots & bit(*slot) != 0);
        nexus.excluding = stay;
        let gone: Vec<(u8, u64)> = gone;
        self.note(Note::Excluded { slots });
        self.look_lost();
        for (_, tag) in gone {
            self.end(tag, Ok(()));
        }
        self.settle_all();
    }

    fn joined(&mut self, slot: u8) {
        let nexus = self.nexus.as_mut().expect("it was joined");
        nexus.members |= bit(slot);
        nexus.joiner = None;
        nexus.winners.push(slot);
        self.note(Note::Returning { slot, step: Step::Member });
        self.settle_all();
    }

    /// Asks for the next change, if none is on its way; asks again for one of unknown outcome.
    pub(crate) fn swap_on(&mut self, now: Instant) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        if let Some(swap) = &nexus.swap {
            if swap.again().is_some_and(|again| again <= now) {
                self.ask_swap();
            }
            return;
        }
        let excludes = !nexus.committed.is_empty();
        if !matches!(nexus.phase, Phase::Leasing | Phase::Serving) && !excludes {
            return;
        }
        while let Some(change) = self.next_change() {
            let nexus = self.nexus.as_mut().expect("it has a change");
            let old = nexus.record.clone().expect("a claimed volume has a record");
            match changed(&old, &change) {
                Ok(new) => {
                    if let Change::DropSnapshot { uuid, .. } = &change {
                        let uuid = *uuid;
                        self.layer_goes(now, &uuid);
                    }
                    return self.swap(old, new, change);
                }
                // What is asked for anew every time would be refused anew every time.
                Err(_) if matches!(change, Change::Exclude { .. }) => return,
                Err(failure) => self.refuse(change, failure),
            }
        }
    }

    fn next_change(&mut self) -> Option<Change> {
        if let Some(slots) = self.excludable() {
            return Some(Change::Exclude { slots });
        }
        let nexus = self.nexus.as_mut()?;
        if nexus.committed.is_empty() { nexus.changes.pop_front() } else { None }
    }

    /// A change that the record does not allow.
    fn refuse(&mut self, change: Change, failure: Failure) {
        match change {
            Change::Name { tag, .. }
            | Change::Forget { tag, .. }
            | Change::DropSnapshot { tag, .. } => self.end(tag, Err(failure)),
            Change::Snapshot { .. } => self.snapshot_refused(failure),
            _ => {}
        }
    }
}

/// The record after a change.
fn changed(old: &Record, change: &Change) -> Result<Box<Record>, Failure> {
    let mut new = old.next();
    match change {
        Change::Claim => {}
        Change::Begin => new.unused = false,
        Change::Activate(record) => {
            new = record.clone();
            new.version = old.version + 1;
        }
        Change::Exclude { slots } => {
            let gone = slots & old.members();
            if gone == 0 || gone == old.members() {
                return Err(Failure::Invalid);
            }
            for slot in super::state::slots(gone) {
                let replica = at(&mut new, slot).ok_or(Failure::NotFound)?;
                replica.standing = Standing::Away { whole: false };
            }
        }
        Change::Join { slot, instance, whole } => {
            // Where it was equal it has no mark, though others that are away may lack what the
            // members have there: its marks say nothing of them.
            for away in slots(if *whole { old.away() } else { 0 }) {
                let replica = at(&mut new, away).ok_or(Failure::NotFound)?;
                replica.standing = Standing::Away { whole: true };
            }
            let replica = at(&mut new, *slot).ok_or(Failure::NotFound)?;
            replica.standing = Standing::Member { instance: *instance };
        }
        Change::Told { host } => {
            super::front::tell(&mut new.lossy.get_or_insert_with(Lossy::default).told, *host);
        }
        Change::Name { uuid, .. } => {
            if old.slot_of(uuid).is_some() {
                return Err(Failure::Exists);
            }
            let free = new.slots.iter_mut().find(|slot| slot.is_none()).ok_or(Failure::Invalid)?;
            *free = Some(Replica { uuid: *uuid, standing: Standing::Away { whole: true } });
        }
        Change::Forget { uuid, .. } => {
            let slot = old.slot_of(uuid).ok_or(Failure::NotFound)?;
            if old.members() & bit(slot) != 0 {
                return Err(Failure::NotFound);
            }
            new.slots[usize::from(slot)] = None;
            for snapshot in &mut new.snapshots {
                snapshot.holders &= !bit(slot);
            }
        }
        Change::Snapshot { uuid, holders } => {
            let snapshot = Snapshot { uuid: *uuid, holders: *holders, bytes: old.bytes };
            new.snapshots.try_push(snapshot).map_err(|_| Failure::Invalid)?;
        }
        Change::Holder { uuid, slot, holds } => {
            let found = new.snapshots.iter_mut().find(|snapshot| snapshot.uuid == *uuid);
            let holders = &mut found.ok_or(Failure::NotFound)?.holders;
            *holders = if *holds { *holders | bit(*slot) } else { *holders & !bit(*slot) };
            // Marks of a layer that it had as a member may have been cleared: without it they
            // tell nothing of the others, now and whenever it is tried again.
            let replica = at(&mut new, *slot).ok_or(Failure::NotFound)?;
            if let (false, Standing::Away { whole }) = (*holds, &mut replica.standing) {
                *whole = true;
            }
        }
        Change::DropSnapshot { uuid, .. } => {
            old.snapshot(uuid).ok_or(Failure::NotFound)?;
            new.snapshots.retain(|snapshot| snapshot.uuid != *uuid);
        }
        Change::Resize { bytes } => new.bytes = *bytes,
        Change::Clean => new.clean = true,
    }
    Ok(new)
}

fn at(record: &mut Record, slot: u8) -> Option<&mut Replica> {
    record.slots.get_mut(usize::from(slot))?.as_mut()
}
