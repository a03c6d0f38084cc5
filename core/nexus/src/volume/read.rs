//! Reads: from one member, under the lease of all.
//!
//! Invariants:
//! 1. No suspect region is read: it is compared and made equal first.
//! 2. A value is returned only when all members have it: if a write to its blocks was under way
//!    when it came, that write settles first.
//! 3. The lease holds when a read is sent, and again when it is answered.
//! 4. A block that one member cannot read is read from another, and written anew; that does not
//!    fail the member.

use braid_block::{Instant, Key};

use crate::wire::{Answer, Command, Refusal};
use crate::{Plant, Status, Work};

use super::Volume;
use super::call::Purpose;
use super::op::State;
use super::state::{Nexus, bit, slots};
use super::write::blocks;

impl Volume {
    /// Sends a read, or lets it wait for what it needs.
    pub(crate) fn send_read(&mut self, now: Instant, key: Key) {
        if !self.is_optimized() {
            return self.conclude(key, Status::Inaccessible);
        }
        let Some(op) = self.ops.get(key) else { return };
        let Work::Read { offset, len } = op.work else { return };
        let (from, to) = op.regions();
        let nexus = self.nexus.as_ref().expect("it is serving");
        let suspect = nexus.suspect.overlaps(from, to);
        let wins = suspect && self.planted(Plant::NoWriteBack);
        if suspect && !wins {
            self.want_regions(from, to);
            return self.wait(key);
        }
        let slot = if wins { nexus.winner() } else { self.nearest(nexus, op.avoid) };
        let Some(slot) = slot else { return self.wait(key) };
        self.want_lease(now);
        if !self.is_leased(now, Some(slot)) {
            return self.wait(key);
        }
        let op = self.ops.get_mut(key).expect("it is in work");
        op.state = State::Asked;
        op.out = bit(slot);
        let span = op.lease.as_ref().map(|lease| lease.span(0, len));
        self.nexus.as_mut().expect("it is serving").links[usize::from(slot)].reads += 1;
        self.send(now, slot, Purpose::Op(key), Command::Read { offset, len }, span);
    }

    /// The member to be read: the one at this engine, else the one with the fewest reads.
    fn nearest(&self, nexus: &Nexus, avoid: u8) -> Option<u8> {
        let near = self.config.near.and_then(|near| nexus.record().slot_of(&near));
        let good = nexus.good();
        let good = if good & !avoid == 0 { good } else { good & !avoid };
        near.filter(|slot| good & bit(*slot) != 0)
            .or_else(|| slots(good).min_by_key(|slot| nexus.links[usize::from(*slot)].reads))
    }

    pub(crate) fn on_read(
        &mut self,
        now: Instant,
        key: Key,
        slot: u8,
        result: &Result<Answer, Refusal>,
    ) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let link = &mut nexus.links[usize::from(slot)];
        link.reads = link.reads.saturating_sub(1);
        let (grants, good) = (nexus.ranges.grants(), nexus.good());
        let Some(op) = self.ops.get_mut(key) else { return };
        match result {
            Ok(_) if op.stale => (op.stale, op.state) = (false, State::Reading),
            Ok(_) => op.state = State::Answering { grants },
            Err(Refusal::Media(at)) if op.repaired && good & !(op.avoid | bit(slot)) == 0 => {
                return self.conclude(key, Status::Media(*at));
            }
            Err(Refusal::Media(_)) if op.repaired => {
                op.avoid |= bit(slot);
                op.state = State::Reading;
            }
            Err(Refusal::Media(_)) => {
                op.avoid |= bit(slot);
                op.repaired = true;
                op.state = State::Repairing;
                let (first, end) = op.range();
                let (first, end) = blocks(first, end);
                return self.want_repair(first, end, key);
            }
            Err(Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. }) => {
                op.state = State::Reading;
            }
            Err(refusal) => {
                op.state = State::Reading;
                self.fail(now, slot, *refusal);
            }
        }
        self.advance(now, key);
    }

    /// Answers a read as soon as its value is everywhere and the lease holds.
    pub(crate) fn answer_read(&mut self, now: Instant, key: Key, grants: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let (first, end) = op.range();
        let (from, to) = op.regions();
        let Some(nexus) = self.nexus.as_ref() else { return };
        let unsettled = nexus.ranges.is_unsettled(first, end, grants);
        if unsettled && self.config.plant != Some(Plant::ReadUnsettled) {
            return self.wait_open(key);
        }
        let suspect = nexus.suspect.overlaps(from, to);
        if suspect && self.config.plant != Some(Plant::NoWriteBack) {
            op.state = State::Reading;
            return self.send_read(now, key);
        }
        let plants = [Plant::NoLeaseCheck, Plant::LeaseOfOne];
        let unchecked = self.config.plant.is_some_and(|plant| plants.contains(&plant));
        if !unchecked && !self.is_leased(now, None) {
            if self.is_optimized() {
                self.want_lease(now);
            }
            return self.wait_open(key);
        }
        self.conclude(key, Status::Success);
    }

    /// Waits, unless the path was closed while the read was out: then nobody knows for how long.
    fn wait_open(&mut self, key: Key) {
        if self.is_optimized() { self.wait(key) } else { self.conclude(key, Status::Inaccessible) }
    }

    /// What was read of a range may be taken back: reads that are under way read again.
    pub(crate) fn reread(&mut self, first: u64, end: u64) {
        for (_, op) in self.ops.iter_mut() {
            let (from, to) = op.range();
            if from >= end || first >= to {
                continue;
            }
            match op.state {
                State::Asked => op.stale = true,
                State::Answering { .. } => op.state = State::Reading,
                _ => {}
            }
        }
    }

    /// Bad blocks up to this byte were written anew, or could not be: reads on, or writes again.
    pub(crate) fn repaired(&mut self, now: Instant, key: Key, upto: u64, done: bool) {
        let Some(op) = self.ops.get_mut(key) else { return };
        match op.state {
            State::Repairing => {
                op.count_repair(done);
                op.state = State::Reading;
                self.advance(now, key);
            }
            State::Mending => self.mended(now, key, upto, done),
            _ => {}
        }
    }
}
