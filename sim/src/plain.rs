//! A pool on a disk without faults, for tests that count and for inputs that are strange: what
//! was asked first is done first, so many at a time as the test says.

use std::collections::VecDeque;
use std::time::Duration;

use braid_block::{Instant, IoError, Span};
use braid_pool::{
    Command, Completion, Config, Done, Effect, Event, Failure, Format, Handle, Note, Pool, Request,
    State, Work,
};

use crate::memory::SimMemory;
use crate::ram::Ram;

/// How far the clock moves with each turn.
const TICK: Duration = Duration::from_micros(20);

/// A pool and what it needs.
#[derive(Debug)]
pub struct Plain {
    /// What runs.
    pub pool: Pool,
    /// Its arena.
    pub mem: SimMemory,
    /// Its disk.
    pub disk: Ram,
    /// The time.
    pub now: Instant,
    /// What ended and was not yet taken.
    pub done: VecDeque<Completion>,
    /// What was told and not yet taken.
    pub notes: VecDeque<Note>,
    /// Turns so far.
    pub turns: u64,
    /// Read before and after each call of the pool; the differences add up in `metered`.
    pub meter: fn() -> u64,
    /// What the meter counted.
    pub metered: u64,
    flying: VecDeque<Effect>,
    /// Something was asked since the last turn.
    asked: bool,
    tag: u64,
}

impl Plain {
    /// Makes a pool on a disk; ends when it is made.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn create(config: Config, format: Format, disk: Ram) -> Ram {
        let mut plain = Self::around(Pool::create(config, format), disk);
        plain.settle(u64::MAX);
        assert_eq!(plain.pool.state(), State::Stopped, "{:?}", plain.notes);
        plain.into_disk()
    }

    /// Begins to open the pool of a disk.
    #[must_use]
    pub fn open(config: Config, disk: Ram) -> Self {
        Self::around(Pool::open(config), disk)
    }

    fn around(pool: Pool, disk: Ram) -> Self {
        Self {
            pool,
            mem: SimMemory::new(32 << 20),
            disk,
            now: Instant::ZERO + TICK,
            done: VecDeque::new(),
            notes: VecDeque::new(),
            turns: 0,
            meter: || 0,
            metered: 0,
            flying: VecDeque::new(),
            asked: false,
            tag: 0,
        }
    }

    /// Effects that are not done.
    #[must_use]
    pub fn flying(&self) -> usize {
        self.flying.len()
    }

    /// Asks for I/O; tells the tag that its completion bears.
    pub fn submit(&mut self, handle: Handle, work: Work, lease: Option<braid_block::Lease>) -> u64 {
        self.tag += 1;
        self.asked = true;
        let request = Request { tag: self.tag, handle, work, lease };
        let before = (self.meter)();
        self.pool.submit(&mut self.mem, self.now, request);
        self.metered += (self.meter)() - before;
        self.tag
    }

    /// Ends a turn: takes effects, completions and notes.
    pub fn turn(&mut self) {
        self.turns += 1;
        self.asked = false;
        self.now = self.now + TICK;
        let before = (self.meter)();
        self.pool.end_turn(&mut self.mem, self.now);
        self.metered += (self.meter)() - before;
        while let Some(effect) = self.pool.poll_effect() {
            if let Some((span, _)) = span_of(&effect) {
                self.mem.hold(span, fills(&effect));
            }
            self.flying.push_back(effect);
        }
        self.done.extend(std::iter::from_fn(|| self.pool.poll_completion()));
        self.notes.extend(std::iter::from_fn(|| self.pool.poll_note()));
    }

    /// Lets the disk end at most so many operations, then ends the turn. False if there was
    /// nothing to do.
    pub fn step(&mut self, most: usize) -> bool {
        if self.flying.is_empty() && !self.pool.has_work() && !self.asked {
            return false;
        }
        for _ in 0..self.flying.len().min(most) {
            let Some(effect) = self.flying.pop_front() else { break };
            self.complete(effect);
        }
        self.turn();
        true
    }

    /// Steps until nothing is in flight and the pool has no work, or so many turns have passed;
    /// timers may be left. True if it is still.
    pub fn settle(&mut self, turns: u64) -> bool {
        self.turn();
        for _ in 0..turns {
            if !self.step(usize::MAX) {
                return true;
            }
        }
        false
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.pool.handle(&mut self.mem, self.now, Event::Elapsed);
        self.turn();
    }

    /// Steps until the pool is open.
    ///
    /// # Panics
    /// If it does not open.
    pub fn must_open(&mut self) {
        self.settle(1 << 20);
        assert_eq!(self.pool.state(), State::Open, "{:?}", self.notes);
    }

    /// Carries out a command, for so many turns at most.
    ///
    /// # Errors
    /// As the pool says.
    ///
    /// # Panics
    /// If it does not end.
    pub fn command(&mut self, command: Command, turns: u64) -> Result<Done, Failure> {
        self.tag += 1;
        let tag = self.tag;
        self.pool.command(&mut self.mem, self.now, tag, command);
        self.turn();
        for _ in 0..turns {
            if let Some(completion) = self.ended(tag) {
                return completion.result;
            }
            if !self.step(usize::MAX) {
                break;
            }
        }
        panic!("a command does not end; the pool is {:?}", self.pool.state());
    }

    fn ended(&mut self, tag: u64) -> Option<Completion> {
        let at = self.done.iter().position(|done| done.tag == tag)?;
        self.done.remove(at)
    }

    /// Carries out I/O alone, for so many turns at most.
    ///
    /// # Errors
    /// As the pool says.
    ///
    /// # Panics
    /// If it does not end.
    pub fn io(
        &mut self,
        handle: Handle,
        work: Work,
        lease: Option<braid_block::Lease>,
        turns: u64,
    ) -> Result<Done, Failure> {
        let tag = self.submit(handle, work, lease);
        self.turn();
        for _ in 0..turns {
            if let Some(completion) = self.ended(tag) {
                completion.lease.into_iter().for_each(|lease| self.give_back(lease));
                return completion.result;
            }
            if !self.step(usize::MAX) {
                break;
            }
        }
        panic!("a request does not end: {work:?}; the pool is {:?}", self.pool.state());
    }

    /// Takes a buffer back.
    pub fn give_back(&mut self, lease: braid_block::Lease) {
        braid_block::Memory::free(&mut self.mem, lease);
    }

    /// Stops the pool in order, for so many turns at most; true if it stopped.
    pub fn stop(&mut self, turns: u64) -> bool {
        self.pool.stop(&mut self.mem, self.now);
        self.settle(turns);
        self.pool.state() == State::Stopped
    }

    /// Ends the run: no buffer may be missing.
    ///
    /// # Panics
    /// If the pool keeps one.
    #[must_use]
    pub fn into_disk(mut self) -> Ram {
        while let Some(effect) = self.flying.pop_front() {
            self.complete(effect);
            while self.pool.poll_effect().is_some() {}
        }
        self.done.extend(std::iter::from_fn(|| self.pool.poll_completion()));
        self.pool.drop_leases(&mut self.mem);
        self.done.extend(std::iter::from_fn(|| self.pool.poll_completion()));
        for lease in std::mem::take(&mut self.done).into_iter().filter_map(|done| done.lease) {
            self.give_back(lease);
        }
        self.mem.assert_all_back();
        self.disk
    }

    /// Ends the run as a kill does: what is in flight is lost.
    #[must_use]
    pub fn kill(self) -> Ram {
        self.disk
    }

    fn complete(&mut self, effect: Effect) {
        let mut result = Ok(0);
        if let Some((span, offset)) = span_of(&effect) {
            self.mem.release(span, fills(&effect));
            result = Ok(span.len);
            if !self.disk.holds(offset, u64::from(span.len)) {
                result = Err(IoError::Device);
            }
        }
        let token = match effect {
            Effect::Read { token, span, offset } => {
                if result.is_ok() {
                    self.disk.read(offset, self.mem.span_mut(span));
                }
                token
            }
            Effect::Write { token, span, offset } => {
                if result.is_ok() {
                    self.disk.write(offset, self.mem.span(span));
                }
                token
            }
            Effect::Sync { token } => {
                self.disk.sync();
                token
            }
            Effect::Discard { token, offset, len } => {
                if self.disk.holds(offset, len) {
                    self.disk.discard(offset, len);
                }
                token
            }
        };
        let before = (self.meter)();
        self.pool.handle(&mut self.mem, self.now, Event::Done { token, result });
        self.metered += (self.meter)() - before;
    }
}

const fn fills(effect: &Effect) -> bool {
    matches!(effect, Effect::Read { .. })
}

fn span_of(effect: &Effect) -> Option<(Span, u64)> {
    match effect {
        Effect::Read { span, offset, .. } | Effect::Write { span, offset, .. } => {
            Some((*span, *offset))
        }
        Effect::Sync { .. } | Effect::Discard { .. } => None,
    }
}
