//! Writes, and everything that changes blocks: lock, send to all, acknowledge when all have it.
//!
//! Invariants:
//! 1. Every member and an attached joiner get a write once, in the order of the locks.
//! 2. It is acknowledged, and its lock given back, when everybody who counts has applied it and
//!    every command of it has ended.
//! 3. One that failed everywhere leaves its regions suspect: members may differ there.
//! 4. A member that cannot take a write which others took, not even after its blocks were written
//!    anew, has failed: nobody waits for it without an end.

use braid_block::{Instant, Key};

use crate::wire::{Answer, Command, REGION, Refusal};
use crate::{Note, Plant, Status, Work};

use super::Volume;
use super::call::Purpose;
use super::op::{Op, State};
use super::ranges::Holder;
use super::state::{bit, slots};

/// The regions of a range: the first, and the one after the last.
pub(crate) fn regions(first: u64, end: u64) -> (u32, u32) {
    let region = |at: u64| u32::try_from(at / REGION).unwrap_or(u32::MAX);
    (region(first), region(end.saturating_sub(1)).saturating_add(1))
}

/// The whole blocks of a range.
pub(crate) fn blocks(first: u64, end: u64) -> (u64, u64) {
    (first & !(crate::wire::BLOCK - 1), end.next_multiple_of(crate::wire::BLOCK))
}

/// Where the part of a range ends that begins here and is made equal at once: no comparison spans
/// more than a region.
fn part_end(first: u64, end: u64) -> u64 {
    ((first / REGION + 1) * REGION).min(end)
}

impl Volume {
    /// Asks for the lock of a write.
    pub(crate) fn lock_write(&mut self, now: Instant, key: Key) {
        let op = self.ops.get_mut(key).expect("it is in work");
        op.state = State::Locking;
        let (first, end) = op.range();
        let (first, end) = blocks(first, end);
        let nexus = self.nexus.as_mut().expect("it is serving");
        if nexus.ranges.lock(first, end, Holder::Op(key)) {
            self.send_write(now, key);
        }
    }

    /// Sends a write whose range is held.
    pub(crate) fn send_write(&mut self, now: Instant, key: Key) {
        let nexus = self.nexus.as_mut().expect("its lock was granted");
        let targets = nexus.targets();
        let op = self.ops.get_mut(key).expect("it is in work");
        let again = op.state == State::Mending;
        op.state = State::Writing { targets, applied: 0, full: 0 };
        op.out = targets;
        let (from, to) = op.regions();
        if !again {
            nexus.written.begin(from, to, nexus.flushes);
        }
        let (command, span) = command(op);
        for slot in slots(targets) {
            self.send(now, slot, Purpose::Op(key), command.clone(), span);
        }
        // With nobody to send to it is held until somebody else takes over.
    }

    pub(crate) fn on_written(
        &mut self,
        now: Instant,
        key: Key,
        slot: u8,
        result: &Result<Answer, Refusal>,
    ) {
        let members = self.nexus.as_ref().map_or(0, |nexus| nexus.members);
        let counts = members & bit(slot) != 0;
        let Some(op) = self.ops.get_mut(key) else { return };
        let State::Writing { applied, full, .. } = &mut op.state else { return };
        match result {
            Ok(_) => *applied |= bit(slot),
            Err(Refusal::NoSpace) => *full |= bit(slot),
            Err(Refusal::Media(at)) if counts => op.bad = Some(*at),
            Err(Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. }) => {}
            Err(refusal) => self.fail(now, slot, *refusal),
        }
        self.settle_write(now, key);
    }

    /// Ends a write if everybody who counts has it.
    pub(crate) fn settle_write(&mut self, now: Instant, key: Key) {
        let Some(op) = self.ops.get(key) else { return };
        let State::Writing { targets, applied, full } = op.state else { return };
        let Some(nexus) = self.nexus.as_ref() else { return };
        let early = match self.config.plant {
            Some(Plant::AckBeforeExclude) => nexus.failing,
            Some(Plant::AckWithoutJoiner) => !nexus.members,
            Some(Plant::AddCountsLate) => nexus.joiner_slot().map_or(0, bit),
            _ => 0,
        };
        let waits =
            if self.planted(Plant::AckWithoutJoiner) { op.out & nexus.members } else { op.out };
        if waits != 0 {
            return;
        }
        let lacking = nexus.need(targets) & !applied & !early;
        if lacking == 0 {
            return self.settled(now, key, Status::Success);
        }
        // Who has left holds nothing up but its exclusion.
        let bad = nexus.good() & targets & !applied & !full;
        if let Some(at) = op.bad.filter(|_| bad != 0) {
            return match (op.repaired, applied & nexus.good()) {
                (false, _) => self.mend_first(key),
                (true, 0) => self.settled(now, key, Status::Media(at)),
                (true, _) => slots(bad).for_each(|slot| self.fail(now, slot, Refusal::Media(at))),
            };
        }
        // Who has left needs no space any more.
        let full = full & targets & !nexus.failing;
        if full == 0 {
            return;
        }
        if applied & nexus.good() == 0 && full & nexus.members == nexus.good() {
            return self.settled(now, key, Status::NoSpace);
        }
        for slot in slots(full) {
            self.fail(now, slot, Refusal::NoSpace);
        }
    }

    /// A member holds a bad block of which this write changes a part. Others have it: so its blocks
    /// are made equal under its lock, and it is sent once more. It took effect on some already, but
    /// who reads waits for it, and who writes comes after it: to them it takes effect once.
    fn mend_first(&mut self, key: Key) {
        let op = self.ops.get_mut(key).expect("it is in work");
        (op.bad, op.state) = (None, State::Mending);
        let (first, end) = op.range();
        let (first, end) = blocks(first, end);
        self.want_repair(first, part_end(first, end), key);
    }

    /// The blocks of a write up to this byte were made equal, or could not be: goes on with the
    /// next ones, or writes again.
    pub(crate) fn mended(&mut self, now: Instant, key: Key, upto: u64, done: bool) {
        let op = self.ops.get_mut(key).expect("it is being mended");
        let (first, end) = op.range();
        let (_, end) = blocks(first, end);
        if done && upto < end {
            return self.want_repair(upto, part_end(upto, end), key);
        }
        op.count_repair(done);
        self.send_write(now, key);
    }

    fn settled(&mut self, now: Instant, key: Key, status: Status) {
        if status == Status::Success {
            self.release_write(key);
        } else {
            self.unsettle(now, key);
        }
        self.conclude(key, status);
    }

    /// Gives the range of a write back.
    fn release_write(&mut self, key: Key) {
        let op = self.ops.get(key).expect("it is settled");
        let (from, to) = op.regions();
        let nexus = self.nexus.as_mut().expect("it is serving");
        nexus.written.end(from, to, nexus.flushes);
        nexus.unstick(from, to);
        nexus.ranges.unlock(Holder::Op(key), &mut self.ready);
        self.stirred = true;
    }

    /// The same for one that took effect on some and not on others, or in parts.
    fn unsettle(&mut self, now: Instant, key: Key) {
        // A joiner that is no member yet reads the marks anew; one that is being added has to go.
        let stays = self.planted(Plant::ReturnWhileSuspect);
        if !stays {
            self.detach(now);
        }
        let joiner = self.nexus.as_ref().and_then(|nexus| nexus.joiner_slot());
        let joiner = joiner.filter(|_| !stays);
        if let Some(slot) = joiner {
            self.fail(now, slot, Refusal::NoSpace);
        }
        let op = self.ops.get(key).expect("it is settled");
        let (from, to) = op.regions();
        let nexus = self.nexus.as_mut().expect("it is serving");
        if nexus.lessors().count_ones() > 1 {
            nexus.suspect.insert(from, to);
        }
        self.release_write(key);
        self.reread(u64::from(from) * REGION, u64::from(to) * REGION);
    }
}

/// What a write asks of a replica.
fn command(op: &Op) -> (Command, Option<braid_block::Span>) {
    match op.work {
        Work::Write { offset, len, durable } => {
            let span = op.lease.as_ref().map(|lease| lease.span(0, len));
            (Command::Write { offset, len, durable }, span)
        }
        Work::Zero { offset, len, durable } => (Command::Zero { offset, len, durable }, None),
        Work::Read { .. } | Work::Flush => unreachable!("it writes"),
    }
}

impl Volume {
    /// Lets hosts queue when writes are held for too long, and come back when they are not. An
    /// owner without a member ends: it would only keep hosts from the next one.
    pub(crate) fn held_on(&mut self, now: Instant) {
        if self.nexus.as_ref().is_some_and(|nexus| nexus.lost) {
            return self.stop(crate::Why::Lost);
        }
        let Some(nexus) = self.nexus.as_mut() else { return };
        if nexus.phase != super::state::Phase::Serving {
            return;
        }
        let long = nexus.held.is_some_and(|since| now.since(since) >= self.config.timing.held);
        if long == nexus.closed {
            return;
        }
        let was = nexus.is_open();
        nexus.closed = long;
        if nexus.is_open() == was {
            return;
        }
        self.effects.push_back(crate::Effect::Access { optimized: !long });
        if long {
            self.note(Note::Held);
            self.refuse_waiting();
        }
    }
}
