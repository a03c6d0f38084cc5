//! Becoming the owner: claim, fence, exclude, merge, lease, serve.
//!
//! Invariants:
//! 1. The members are those of the record as it is *claimed*: nobody else can change it from then
//!    on, and what was read before proves nothing.
//! 2. Only members that were fenced, and whose instance the record names, are kept; if there are
//!    none, only all of them together, and the record says that writes may be lost.
//! 3. Under a record that was recovered nobody is kept before all were fenced that it names,
//!    members or away: who got a newer copy after it was heard refuses.
//! 4. I/O is accepted when everybody else is excluded, everybody kept has the copy, and everybody
//!    kept promised a lease after that.

use alloc::boxed::Box;

use arrayvec::ArrayVec;
use braid_block::Instant;

use crate::record::{Lossy, Record, Standing, Uuid};
use crate::wire::{Answer, Fenced, NUMBER_MAX, REGION, Refusal};
use crate::{Effect, Failure, Note, Plant, Why};

use super::Volume;
use super::state::{Line, Nexus, Phase, bit, slots};
use super::swap::Change;

impl Volume {
    pub(crate) fn take_over(&mut self, tag: u64, owner: Uuid, force: bool) {
        self.stop(Why::Replaced);
        self.nexus = Some(Box::new(Nexus::new(owner, tag, force, self.config.plant)));
        self.old_fetches = self.fetches;
        self.fetch();
    }

    /// Asks for the record.
    pub(crate) fn fetch(&mut self) {
        self.fetches += 1;
        self.effects.push_back(Effect::Fetch);
    }

    pub(crate) fn on_fetched(&mut self, now: Instant, record: Option<Box<Record>>) {
        self.fetches = self.fetches.saturating_sub(1);
        if self.old_fetches > 0 {
            self.old_fetches -= 1;
            return;
        }
        let again = now + self.config.timing.retry;
        let early = self.planted(Plant::RecordBeforeFence);
        let Some(nexus) = self.nexus.as_mut() else { return };
        match (nexus.phase, record) {
            (Phase::Fetching { .. }, None) => {
                nexus.phase = Phase::Fetching { again: Some(again) };
            }
            (Phase::Fetching { .. }, Some(record)) => {
                nexus.peeked = early.then(|| record.clone());
                self.claim(record);
            }
            (_, record) if self.config.plant == Some(Plant::UnknownByReading) => {
                self.judge_by_reading(now, record);
            }
            _ => {}
        }
    }

    fn claim(&mut self, old: Box<Record>) {
        let nexus = self.nexus.as_mut().expect("it claims");
        let mut new = old.next();
        new.epoch += 1;
        new.owner = nexus.owner;
        new.clean = false;
        nexus.phase = Phase::Claiming;
        self.swap(old, new, Change::Claim);
    }

    /// The record was not as it was read: the last owner changed it meanwhile, or there is
    /// another one, who came before us and is not to be driven out.
    pub(crate) fn claim_again(&mut self, record: Box<Record>) {
        let nexus = self.nexus.as_mut().expect("it claims");
        let expected = nexus.swap.take().map_or(0, |swap| swap.old.epoch);
        if record.epoch > expected {
            return self.stop(Why::SwapLost);
        }
        self.claim(record);
    }

    pub(crate) fn claimed(&mut self, now: Instant) {
        let deadline = now + self.config.timing.fence;
        let nexus = self.nexus.as_mut().expect("it claimed");
        nexus.epoch = nexus.record().epoch;
        nexus.members = nexus.believed().members();
        nexus.phase = Phase::Fencing { deadline };
        let (epoch, asked) = (nexus.epoch, nexus.asked());
        let bytes = nexus.record().bytes;
        if core::mem::replace(&mut self.bytes, bytes) != bytes {
            self.effects.push_back(Effect::Resized { bytes });
        }
        self.note(Note::Claimed { epoch });
        for slot in slots(asked) {
            self.associate(slot);
        }
    }

    pub(crate) fn on_fenced(&mut self, now: Instant, slot: u8, result: Result<Answer, Refusal>) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let fenced = match result {
            Ok(Answer::Fenced(fenced)) if fenced.flush <= NUMBER_MAX => fenced,
            Ok(Answer::Fenced(_)) => return self.fail(now, slot, Refusal::Invalid),
            // One that was away while the store was recovered more than once has nothing to say
            // about this one; one that knows a newer record of it has.
            Err(Refusal::StoreDiffers) if nexus.joiner_slot() == Some(slot) => {
                return self.joiner_failed(now);
            }
            Err(Refusal::CopyNewer { .. } | Refusal::StoreDiffers) => {
                return self.not_current();
            }
            // What else there is was seen to when the association ended.
            Ok(_) | Err(Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. }) => return,
            Err(refusal) => return self.fail(now, slot, refusal),
        };
        if nexus.joiner_slot() == Some(slot) {
            return self.joiner_fenced(now, &fenced);
        }
        let link = &mut nexus.links[usize::from(slot)];
        let Line::Fencing(association) = link.line else { return };
        if !matches!(nexus.phase, Phase::Fencing { .. }) {
            // Too late: it is away, and the management brings it back.
            link.line = Line::None;
            return self.effects.push_back(Effect::Leave { association });
        }
        link.line = Line::Up(association);
        link.fenced = Some(fenced);
        if self.planted(Plant::LeaseByFence) {
            let leased = now + self.config.timing.lease_used;
            self.nexus.as_mut().expect("it fences").links[usize::from(slot)].leased = leased;
        }
    }

    /// Replicas know more than the store: nothing is decided by its record.
    fn not_current(&mut self) {
        let nexus = self.nexus.as_mut().expect("it fences");
        let record = nexus.record.clone();
        if let Some(tag) = nexus.tag.take() {
            self.end(tag, Err(Failure::StoreNotCurrent(record)));
        }
        self.stop(Why::StoreNotCurrent);
    }

    /// Goes on with a take-over.
    pub(crate) fn take_over_on(&mut self, now: Instant) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        match nexus.phase {
            Phase::Fetching { again: Some(again) } if again <= now => {
                nexus.phase = Phase::Fetching { again: None };
                self.fetch();
            }
            Phase::Fencing { deadline } => {
                self.ask_again(now);
                self.decide(now, deadline);
            }
            Phase::Leasing => {
                if !self.is_leased(now, None) {
                    self.want_lease(now);
                } else if self.begins() {
                    self.serve();
                }
            }
            _ => {}
        }
    }

    /// Decides who is kept, when all have answered or were refused, or it takes too long.
    fn decide(&mut self, now: Instant, deadline: Instant) {
        let nexus = self.nexus.as_mut().expect("it fences");
        let record = nexus.believed();
        let (mut answered, mut named, mut known, mut refused) = (0, 0, 0, 0);
        let unheard = nexus.unheard();
        for slot in slots(nexus.members) {
            let link = &nexus.links[usize::from(slot)];
            if matches!(link.line, Line::Refused(_)) {
                refused |= bit(slot);
            }
            let Some(fenced) = &link.fenced else { continue };
            answered |= bit(slot);
            let is_named = record.instance(slot) == Some(fenced.instance);
            named |= if is_named { bit(slot) } else { 0 };
            known |= if fenced.copy.is_some() { bit(slot) } else { 0 };
        }
        if answered | refused != nexus.members && now < deadline {
            return;
        }
        // What was heard for the recovery may be old: nobody serves before all obey this owner.
        if unheard != 0 && !nexus.force {
            return self.wait_for_members(now, deadline, unheard);
        }
        let all = answered == nexus.members;
        let (keep, lossy) = match named {
            // Of a volume that nobody used any replica has all there is.
            0 if answered != 0 && record.unused => (answered, false),
            // Those without a copy are new or were wiped: if nobody has one, what was flushed is
            // gone too, and only an operator may say that this is no loss.
            0 if known != 0 && (all || nexus.force) => (known, true),
            0 if answered != 0 && nexus.force => (answered, true),
            0 => {
                let missing = nexus.members & !known;
                return self.wait_for_members(now, deadline, missing);
            }
            // A forced take-over goes on with those whose instance is named, like any other.
            named => (named, false),
        };
        self.keep(now, keep, lossy);
    }

    fn wait_for_members(&mut self, now: Instant, deadline: Instant, missing: u8) {
        if now < deadline {
            return;
        }
        let nexus = self.nexus.as_mut().expect("it fences");
        nexus.phase = Phase::Fencing { deadline: now + self.config.timing.fence };
        self.note(Note::Waiting { missing });
    }

    /// Goes on with these; everybody else is away.
    fn keep(&mut self, now: Instant, keep: u8, lossy: bool) {
        let nexus = self.nexus.as_mut().expect("it fences");
        let mut new = nexus.record().clone();
        for slot in slots(nexus.members) {
            let fenced = nexus.links[usize::from(slot)].fenced.as_deref();
            let standing = match fenced {
                Some(fenced) if keep & bit(slot) != 0 => {
                    Standing::Member { instance: fenced.instance }
                }
                // One without a copy is new or was wiped: no marks tell what it lacks.
                fenced => Standing::Away { whole: fenced.is_some_and(|f| f.copy.is_none()) },
            };
            if let Some(replica) = &mut new.slots[usize::from(slot)] {
                replica.standing = standing;
            }
        }
        if let Some(from) = &mut new.recovered {
            from.pending = false;
        }
        if lossy {
            new.lossy = Some(Lossy { epoch: nexus.epoch, ..Lossy::default() });
        }
        let gone = nexus.asked() & !keep;
        nexus.members = keep;
        nexus.phase = Phase::Activating;
        for slot in slots(gone) {
            let link = &mut nexus.links[usize::from(slot)];
            if let Some(association) = link.association() {
                self.effects.push_back(Effect::Leave { association });
            }
            link.line = Line::None;
        }
        let nexus = self.nexus.as_mut().expect("it fences");
        if new == *nexus.record() || self.config.plant == Some(Plant::RecordBeforeFence) {
            return self.activated(now);
        }
        let old = nexus.record.clone().expect("it was claimed");
        new.version += 1;
        let new = Box::new(new);
        self.swap(old, new.clone(), Change::Activate(new));
    }

    /// Everybody else is out, and those who stay know it: merges what they told.
    pub(crate) fn activated(&mut self, now: Instant) {
        let nexus = self.nexus.as_mut().expect("it takes over");
        let regions = u32::try_from(nexus.record().bytes.div_ceil(REGION)).unwrap_or(u32::MAX);
        let mut winners = ArrayVec::<(u64, Uuid, u8), 8>::new();
        for slot in slots(nexus.members) {
            let Some(fenced) = nexus.links[usize::from(slot)].fenced.as_deref() else { continue };
            let Fenced { marks, flush, .. } = fenced;
            nexus.suspect.extend(marks, regions);
            nexus.flushes = nexus.flushes.max(*flush);
            let uuid = nexus.record().replica(slot).map_or([0; 16], |replica| replica.uuid);
            winners.push((u64::MAX - flush, uuid, slot));
        }
        winners.sort_unstable();
        nexus.winners = winners.iter().map(|(_, _, slot)| *slot).collect();
        for (first, end) in nexus.suspect.runs() {
            nexus.written.mark(first, end);
        }
        if nexus.members.count_ones() < 2 {
            nexus.suspect = super::regions::Regions::default();
        }
        nexus.phase = Phase::Leasing;
        nexus.cleaning.begins(now);
        self.drop_unnamed(now);
        if !self.is_leased(now, None) {
            self.want_lease(now);
        }
    }

    /// Whether the record says that something can be lost from now on, and every member knows.
    fn begins(&mut self) -> bool {
        let nexus = self.nexus.as_mut().expect("it takes over");
        if nexus.is_changing() {
            return false;
        }
        let unused = nexus.record().unused;
        if unused {
            nexus.changes.push_back(Change::Begin);
        }
        !unused
    }

    fn serve(&mut self) {
        let nexus = self.nexus.as_mut().expect("it takes over");
        nexus.phase = Phase::Serving;
        let (note, tag) = (nexus.serving(), nexus.tag.take());
        self.note(note);
        self.effects.push_back(Effect::Access { optimized: true });
        if let Some(tag) = tag {
            self.end(tag, Ok(()));
        }
    }
}
