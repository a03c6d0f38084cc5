//! Pages of checksums, read like data: a slot that went bad is written again, from memory or from
//! the other one.
//!
//! ```text
//! Looking -> Waiting -> Again -> Fetching -> Writing -> Syncing -> done
//!     `----------------------`--- both are as they must be ---------^
//! ```
//! What looks bad may be on its way: it is read again while no checkpoint runs.
//!
//! Invariants:
//! 1. From the time that a slot looks bad until it is durable again no checkpoint begins: it would
//!    write to the slot that is not the newest, and the newest must be on the media before.
//! 2. Only bad slots are written, so that a good one outlives a power cut.

use braid_block::{Class, Instant, Key, Memory};

use crate::codec::{self, Found, Stamp};
use crate::layout::{BLOCK, PAIR};
use crate::op::Waiter;
use crate::{Note, Pool, State};

/// Pages without data that a turn passes: some tens of microseconds.
const PAGES_A_TURN: u64 = 1024;

/// Pages of checksums that are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// The next one; none if all were.
    next: Option<u64>,
    check: Option<Check>,
}

/// Where a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The slots are being read, one after the other: one that cannot be read must not hide the
    /// other.
    Looking,
    /// One looks bad: for the end of a checkpoint.
    Waiting,
    Again,
    /// For the page to be in memory.
    Fetching,
    Writing(usize),
    /// For this flush.
    Syncing(u64),
}

/// A page whose slots are looked at.
#[derive(Debug)]
struct Check {
    job: Key,
    stage: Stage,
    page: u64,
    /// First byte of its pair.
    address: u64,
    /// Slots read, and what they hold.
    read: usize,
    found: [Found; 2],
    /// Slots that are to be written.
    bad: [bool; 2],
}

impl Slots {
    /// From the first page, or none is to be looked at.
    pub(super) const fn begin(&mut self, all: bool) {
        self.next = if all { Some(0) } else { None };
    }

    /// Whether a page is being looked at.
    pub(super) const fn is_busy(&self) -> bool {
        self.check.is_some()
    }

    /// Whether no checkpoint may begin.
    pub(super) const fn holds_merges(&self) -> bool {
        matches!(&self.check, Some(check) if !matches!(check.stage, Stage::Looking))
    }
}

impl Pool {
    /// Begins with the next page that has checksums; true if it is to be waited for.
    pub(super) fn next_slots_check<M: Memory>(&mut self, mem: &mut M, now: Instant) -> bool {
        let Some(first) = self.scrub.slots.next else { return false };
        for page in first..first + PAGES_A_TURN {
            self.scrub.slots.next = Some(page);
            if page >= self.store.layout.sum_pages() {
                self.scrub.slots.next = None;
                return false;
            }
            if !self.store.has_sums(page) {
                continue;
            }
            let Some(job) = self.begin_job(mem, Class::Small) else { return true };
            self.scrub.slots.next = Some(page + 1);
            self.scrub.pace(now, PAIR);
            let address = self.store.layout.checksum_pair(page);
            let (stage, read, found, bad) = (Stage::Looking, 0, [Found::Bad; 2], [false; 2]);
            let check = Check { job, stage, page, address, read, found, bad };
            self.job_read(job, 0, BLOCK as u32, address);
            self.scrub.slots.check = Some(check);
            return true;
        }
        self.scrub.slots.next = Some(first + PAGES_A_TURN);
        self.again();
        true
    }

    /// Takes the page at hand further; true if there is none any more.
    pub(super) fn slots_check_on<M: Memory>(&mut self, mem: &mut M, now: Instant) -> bool {
        let Some(mut check) = self.scrub.slots.check.take() else { return true };
        if self.slots_on(mem, now, &mut check) {
            self.end_job(mem, check.job);
            // A checkpoint may have waited.
            self.again();
            return true;
        }
        self.scrub.slots.check = Some(check);
        false
    }

    /// The same; true when it has ended.
    fn slots_on<M: Memory>(&mut self, mem: &mut M, now: Instant, check: &mut Check) -> bool {
        loop {
            let Some(outcome) = self.jobs.outcome(check.job) else { return false };
            match check.stage {
                // What was begun to be written is made durable before the pool stops.
                Stage::Looking | Stage::Waiting | Stage::Again if self.state != State::Open => {
                    return true;
                }
                Stage::Looking | Stage::Again => {
                    let device = check.address + check.read as u64 * BLOCK;
                    if let (Ok(()), Some(lease)) = (outcome, self.jobs.lease(check.job)) {
                        let bytes = &mem.bytes(lease)[..BLOCK as usize];
                        let stamp = Stamp::sums(check.page, device);
                        let (seed, newest) = (self.store.seed, self.newest_lsn());
                        check.found[check.read] = codec::look::<M>(bytes, stamp, seed, newest);
                    }
                    check.read += 1;
                    if check.read < check.found.len() {
                        self.job_read(check.job, 0, BLOCK as u32, device + BLOCK);
                        return false;
                    }
                    check.bad = self.bad_slots(check.page, check.found);
                    check.stage = match check.stage {
                        _ if check.bad == [false; 2] => return true,
                        Stage::Looking => Stage::Waiting,
                        _ => Stage::Fetching,
                    };
                }
                Stage::Waiting if self.is_between_checkpoints() => {
                    (check.stage, check.read, check.found) = (Stage::Again, 0, [Found::Bad; 2]);
                    self.job_read(check.job, 0, BLOCK as u32, check.address);
                    return false;
                }
                Stage::Waiting => return false,
                Stage::Fetching if !self.store.sums.holds(check.page) => {
                    self.fetch_sums(mem, now, check.page, Waiter::Job);
                    return false;
                }
                Stage::Fetching => match check.bad.iter().position(|bad| *bad) {
                    Some(slot) if self.is_whole(check.page) => {
                        self.write_slot(mem, check, slot);
                        check.stage = Stage::Writing(slot);
                        return false;
                    }
                    _ => check.stage = Stage::Syncing(self.ask_sync()),
                },
                // A write that fails, fails the pool.
                Stage::Writing(slot) => {
                    self.sync.wrote();
                    let device = check.address + slot as u64 * BLOCK;
                    self.notes.push_back(Note::Repaired { device });
                    check.bad[slot] = false;
                    check.stage = Stage::Fetching;
                }
                Stage::Syncing(sync) => return self.sync.done() >= sync,
            }
        }
    }

    /// Slots that are not as they must be. The other one of a page in memory may be older.
    fn bad_slots(&self, page: u64, found: [Found; 2]) -> [bool; 2] {
        let broken = found.map(|found| found == Found::Bad);
        match self.store.sums.peek(page) {
            // It is new.
            Some(page) if page.is_writing() => [false; 2],
            Some(page) => match page.slot {
                Some(slot) => {
                    let mut bad = broken;
                    bad[usize::from(slot)] = found[usize::from(slot)] != Found::Page(page.lsn);
                    bad
                }
                // Nothing is known that could be written.
                None => [false; 2],
            },
            None if found.iter().any(|found| found.lsn().is_some()) => broken,
            None => [false; 2],
        }
    }

    /// Whether a page in memory has what a slot held.
    fn is_whole(&self, page: u64) -> bool {
        self.store.sums.peek(page).is_some_and(|page| page.slot.is_some())
    }

    /// Writes a page to a slot, as it is in memory.
    fn write_slot<M: Memory>(&mut self, mem: &mut M, check: &Check, slot: usize) {
        let device = check.address + slot as u64 * BLOCK;
        let (seed, stamp) = (self.store.seed, Stamp::sums(check.page, device));
        let page = self.store.sums.peek(check.page);
        let (Some(page), Some(lease)) = (page, self.jobs.lease(check.job)) else { return };
        let bytes = &mut mem.bytes_mut(lease)[..BLOCK as usize];
        codec::encode_sums::<M>(bytes, stamp, page.lsn, seed, &page.sums);
        self.job_write(check.job, 0, BLOCK as u32, device);
    }
}

#[cfg(test)]
mod tests;
