//! The machine that a reactor runs: one pool, and whoever asks it for I/O, in one.
//!
//! Invariants:
//! 1. The driver has its turn before the machine ends its own, so that it does not see what that
//!    changes. Until it looked again there is work: without that the reactor would wait, and the
//!    answer would be as late as the next deadline of the pool, a minute when it is quiet.

use std::collections::VecDeque;

use braid_block::{Class, Instant, Lease, Memory, Span};
use braid_pool::{Completion, Effect, Event, Handle, Note, Pool, Request, Work};
use braid_reactor::{Arena, Machine};
use braid_shard::Disk;

use super::order::{Pattern, Run};
use crate::load::Way;

/// Tag of reads and writes.
const DATA: u64 = 0;
/// Tag of flushes.
const FLUSH: u64 = 1;

/// A pool and its only user.
pub(crate) struct Direct {
    pub(crate) pool: Pool,
    /// When the first event came.
    pub(crate) begun: Option<Instant>,
    /// What was told and nobody has looked at.
    pub(crate) notes: VecDeque<Note>,
    /// Commands that ended.
    pub(crate) ended: VecDeque<Completion>,
    /// Reads and writes done, and what failed of them.
    pub(crate) done: u64,
    pub(crate) errors: u64,
    load: Option<(Run, Handle)>,
    /// Position of the next part, and how many had their turn.
    next: u64,
    taken: u64,
    since_flush: u32,
    in_flight: u16,
    /// Some of the load ended, and nobody has looked whether that was the last of it.
    unseen: bool,
    random: u64,
    leases: Vec<Lease>,
}

impl Direct {
    /// Around a pool that is being made or opened.
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            begun: None,
            notes: VecDeque::new(),
            ended: VecDeque::new(),
            done: 0,
            errors: 0,
            load: None,
            next: 0,
            taken: 0,
            since_flush: 0,
            in_flight: 0,
            unseen: false,
            random: 0x9e37_79b9_7f4a_7c15,
            leases: Vec::with_capacity(64),
        }
    }

    /// Keeps a load going from now on.
    pub(crate) fn load(&mut self, run: Run, handle: Handle) {
        if run.pattern != Pattern::Sequential || run.time.is_zero() {
            self.next = 0;
        }
        self.load = Some((run, handle));
        (self.taken, self.since_flush) = (0, 0);
    }

    /// Asks for no more.
    pub(crate) fn rest(&mut self) {
        self.load = None;
    }

    /// Whether the load is over: nothing is asked for any more, and nothing is in flight.
    pub(crate) fn is_still(&self) -> bool {
        self.in_flight == 0 && !self.wants()
    }

    /// The same, and has been looked at.
    pub(crate) fn look(&mut self) -> bool {
        self.unseen = false;
        self.is_still()
    }

    fn wants(&self) -> bool {
        let Some((run, _)) = &self.load else { return false };
        let endless = run.pattern != Pattern::Once && !run.time.is_zero();
        endless || self.taken < run.count || self.flush_due(run)
    }

    fn flush_due(&self, run: &Run) -> bool {
        run.flush_every > 0 && self.since_flush >= run.flush_every
    }

    /// Position of the next part.
    fn part(&mut self, run: &Run) -> u64 {
        self.taken += 1;
        match run.pattern {
            Pattern::Random => {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                self.random % run.count
            }
            Pattern::Sequential => {
                self.next = (self.next + 1) % run.count;
                (self.next + run.count - 1) % run.count
            }
            Pattern::Once => {
                // An odd step reaches every part when their number is a power of two.
                self.next = (self.next + ((run.count / 8 * 5) | 1)) % run.count;
                self.next
            }
        }
    }

    fn ask<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let Some((run, handle)) = self.load else { return };
        while self.in_flight < run.depth && self.wants() {
            let (tag, work, lease) = if self.flush_due(&run) {
                self.since_flush = 0;
                (FLUSH, Work::Flush { number: None }, None)
            } else {
                let Some(lease) = self.buffer(mem, run.len) else { return };
                let offset = run.first + self.part(&run) * run.stride;
                (DATA, self.work(&run, offset), Some(lease))
            };
            self.in_flight += 1;
            self.pool.submit(mem, now, Request { tag, handle, work, lease });
        }
    }

    fn work(&mut self, run: &Run, offset: u64) -> Work {
        if run.way == Way::Read {
            return Work::Read { offset, len: run.len };
        }
        self.since_flush += u32::from(run.flush_every > 0);
        Work::Write { offset, len: run.len, durable: false }
    }

    /// A buffer with something in it.
    fn buffer<M: Memory>(&mut self, mem: &mut M, len: u32) -> Option<Lease> {
        if let Some(lease) = self.leases.pop() {
            return Some(lease);
        }
        let lease = mem.alloc(Class::holding(len)?)?;
        mem.bytes_mut(&lease).fill(0x5a);
        Some(lease)
    }

    fn take<M: Memory>(&mut self, mem: &mut M) {
        while let Some(completion) = self.pool.poll_completion() {
            if completion.tag > FLUSH {
                self.ended.push_back(completion);
                continue;
            }
            self.in_flight -= 1;
            self.unseen = true;
            self.errors += u64::from(completion.result.is_err());
            if completion.tag == DATA {
                self.done += 1;
            }
            self.leases.extend(completion.lease);
        }
        while let Some(note) = self.pool.poll_note() {
            self.notes.push_back(note);
        }
        if self.is_still() {
            self.leases.drain(..).for_each(|lease| mem.free(lease));
        }
    }

    /// Ends a turn, whatever the buffers are in.
    fn end<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.take(mem);
        self.ask(mem, now);
        self.pool.end_turn(mem, now);
        self.take(mem);
    }
}

impl Machine for Direct {
    fn handle(&mut self, mem: &mut Arena, now: Instant, event: braid_shard::Event) {
        match event {
            braid_shard::Event::Start { .. } => self.begun = Some(now),
            braid_shard::Event::Done { token, result } => {
                self.pool.handle(mem, now, Event::Done { token, result });
            }
            braid_shard::Event::Elapsed => self.pool.handle(mem, now, Event::Elapsed),
            _ => {}
        }
    }

    fn end_turn(&mut self, mem: &mut Arena, now: Instant) {
        self.end(mem, now);
    }

    fn poll_effect(&mut self) -> Option<braid_shard::Effect> {
        let disk = Disk(0);
        Some(match self.pool.poll_effect()? {
            Effect::Read { token, span, offset } => {
                braid_shard::Effect::Read { token, disk, span, offset }
            }
            Effect::Write { token, span, offset } => {
                braid_shard::Effect::Write { token, disk, durable: false, span, offset }
            }
            Effect::Sync { token } => braid_shard::Effect::Sync { token, disk },
            Effect::Discard { token, offset, len } => {
                braid_shard::Effect::Discard { token, disk, offset, len }
            }
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.pool.poll_timeout()
    }

    fn has_work(&self) -> bool {
        let room = self.load.is_some_and(|(run, _)| self.in_flight < run.depth);
        self.pool.has_work()
            || (room && self.wants())
            || (self.unseen && self.is_still())
            || !self.notes.is_empty()
            || !self.ended.is_empty()
    }

    fn batch(&self, _batch: u32) -> &[Span] {
        &[]
    }

    fn drop_leases(&mut self, mem: &mut Arena) {
        self.pool.drop_leases(mem);
        self.take(mem);
        self.leases.drain(..).for_each(|lease| mem.free(lease));
    }
}

#[cfg(test)]
mod tests;
