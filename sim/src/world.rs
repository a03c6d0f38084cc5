//! Everything around one machine: its arena, its disk, its clock. Effects are carried out one
//! after the other, in an order that a seed decides.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use braid_block::{Instant, IoError, Span, Token};
use braid_pool::{Completion, Config, Effect, Event, Note, Operation, State};

use crate::disk::{Disk, Flight, Work};
use crate::machine::Machine;
use crate::memory::SimMemory;
use crate::random::Random;
use crate::story::Story;

/// Turns in which a machine may say that it has work without anything happening.
const TURNS_MAX: u32 = 10_000;

/// A machine and its world.
#[derive(Debug)]
pub struct World<M> {
    /// What runs.
    pub machine: M,
    /// Its arena.
    pub mem: SimMemory,
    /// Its disk.
    pub disk: Disk,
    /// Virtual time.
    pub now: Instant,
    /// Who listens.
    pub story: Story,
    /// What was told and not yet taken.
    pub notes: VecDeque<Note>,
    /// What ended and was not yet taken.
    pub completions: VecDeque<Completion>,
    random: Random,
    order: Order,
    /// What the disk was given: the effect's token, and the buffer that it reads or writes.
    given: BTreeMap<Flight, (Token, Option<Span>)>,
    stalled: BTreeMap<Flight, Instant>,
    script: Vec<Injection>,
    tokens: std::ops::Range<u16>,
    idle_turns: u32,
}

/// In which order the disk ends what it has.
#[derive(Clone, Copy, Debug)]
enum Order {
    Any,
    Oldest,
    Newest,
    /// Large transfers take longest: data lags behind the journal.
    LargeLast,
    FlushLast,
}

/// A fault of the disk: what happens to one of its operations.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// To which kind of operation.
    pub operation: Operation,
    /// How many of these pass before.
    pub after: u64,
    /// What happens.
    pub trouble: Trouble,
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// It fails.
    Fail(IoError),
    /// It takes this long.
    Stall(Duration),
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something was done.
    Moved,
    /// Nothing but time passed, until a deadline.
    Waited,
    /// Nothing is in flight and no deadline is set.
    Still,
}

impl<M: Machine> World<M> {
    /// A world around a new machine.
    #[must_use]
    pub fn new(machine: M, config: &Config, disk: Disk, now: Instant, mut random: Random) -> Self {
        use Order::{Any, FlushLast, LargeLast, Newest, Oldest};
        let order = *random.pick(&[Any, Any, Any, Oldest, Newest, LargeLast, FlushLast]);
        let base = u16::from(config.token_base);
        Self {
            machine,
            mem: SimMemory::new(16 << 20),
            disk,
            now,
            story: Story::Silent,
            notes: VecDeque::new(),
            completions: VecDeque::new(),
            random,
            order,
            given: BTreeMap::new(),
            stalled: BTreeMap::new(),
            script: Vec::new(),
            tokens: base..base + 8,
            idle_turns: 0,
        }
    }

    /// Adds a fault that is to come.
    pub fn inject(&mut self, injection: Injection) {
        self.script.push(injection);
    }

    /// Ends a turn of the machine: takes its effects, completions and notes.
    pub fn turn(&mut self) {
        self.machine.end_turn(&mut self.mem, self.now);
        while let Some(effect) = self.machine.poll_effect() {
            self.take(effect);
        }
        self.completions.extend(std::iter::from_fn(|| self.machine.poll_completion()));
        while let Some(note) = self.machine.poll_note() {
            self.story.tell(self.now, || format!("note: {note:?}"));
            self.notes.push_back(note);
        }
    }

    /// Lets the disk end something, or time pass, and ends the turn.
    ///
    /// # Panics
    /// If the machine keeps the world busy with nothing.
    pub fn step(&mut self) -> Progress {
        self.now = self.now + Duration::from_nanos(self.random.within(1000, 100_000));
        let due = self.machine.poll_timeout().is_some_and(|due| due <= self.now);
        if due {
            self.machine.handle(&mut self.mem, self.now, Event::Elapsed);
        }
        let mut moved = false;
        for _ in 0..self.random.within(1, 3) {
            moved |= self.complete_one();
        }
        if moved {
            self.idle_turns = 0;
            self.turn();
            return Progress::Moved;
        }
        if due || self.machine.has_work() {
            self.idle_turns += 1;
            let busy = self.idle_turns < TURNS_MAX;
            assert!(busy, "busy with nothing: {}", self.machine.waiting());
            self.turn();
            return Progress::Moved;
        }
        let deadlines =
            self.machine.poll_timeout().into_iter().chain(self.stalled.values().copied());
        match deadlines.min() {
            Some(deadline) => {
                self.now = self.now.max(deadline);
                self.stalled.retain(|_, until| *until > deadline);
                self.machine.handle(&mut self.mem, self.now, Event::Elapsed);
                self.turn();
                Progress::Waited
            }
            None => Progress::Still,
        }
    }

    /// Lets the disk end something in a turn that goes on.
    pub(crate) fn land(&mut self) {
        self.complete_one();
    }

    /// Steps until the machine reaches a state; false if it never does.
    pub fn run_until(&mut self, reached: impl Fn(&Self) -> bool) -> bool {
        self.turn();
        let mut waited = 0;
        while !reached(self) {
            match self.step() {
                Progress::Moved => waited = 0,
                Progress::Waited if waited < 100 => waited += 1,
                Progress::Waited | Progress::Still => return false,
            }
        }
        true
    }

    /// Steps until nothing is in flight and the machine has no work; timers may be left.
    pub fn settle(&mut self) {
        self.turn();
        while self.machine.has_work() || self.disk.flying().next().is_some() {
            self.step();
        }
    }

    /// Whether the machine is in this state.
    pub fn is(&self, state: State) -> bool {
        self.machine.state() == state
    }

    /// What is in flight, each with its token's kind, counted from the machine's first one.
    pub(crate) fn flying(&self) -> impl Iterator<Item = (u16, &Work)> {
        let kind = |flight| u16::from(self.given[&flight].0.kind()) - self.tokens.start;
        self.disk.flying().map(move |(flight, work)| (kind(flight), work))
    }

    /// The process dies: the machine is gone, its buffers too. Gives the disk as it leaves it.
    #[must_use]
    pub fn kill(mut self) -> Disk {
        self.disk.kill(&mut self.random);
        self.disk
    }

    fn take(&mut self, effect: Effect) {
        let (token, span, work) = match effect {
            Effect::Read { token, span, offset } => {
                (token, Some(span), Work::Read { offset, len: u64::from(span.len) })
            }
            Effect::Write { token, span, offset } => {
                let bytes = self.mem.span(span).into();
                (token, Some(span), Work::Write { offset, bytes })
            }
            Effect::Sync { token } => (token, None, Work::Sync { since: 0 }),
            Effect::Discard { token, offset, len } => (token, None, Work::Discard { offset, len }),
        };
        self.story.tell(self.now, || format!("  disk << {}", tell(token, &work)));
        let kind = u16::from(token.kind());
        assert!(self.tokens.contains(&kind), "a token of a kind that is not the pool's: {kind}");
        if let Some(span) = span {
            self.mem.hold(span, matches!(work, Work::Read { .. }));
        }
        let trouble = self.trouble(&work, true);
        let flight = self.disk.submit(work);
        self.given.insert(flight, (token, span));
        if let Some(Trouble::Stall(time)) = trouble {
            self.stalled.insert(flight, self.now + time);
        }
    }

    /// The fault that is due for an operation, if one is: stalls when it begins, failures when
    /// it ends.
    fn trouble(&mut self, work: &Work, begins: bool) -> Option<Trouble> {
        let operation = match work {
            Work::Read { .. } => Operation::Read,
            Work::Write { .. } => Operation::Write,
            Work::Sync { .. } => Operation::Flush,
            Work::Discard { .. } => return None,
        };
        let mine = |injection: &Injection| {
            let stalls = matches!(injection.trouble, Trouble::Stall(_));
            injection.operation == operation && stalls == begins
        };
        let mut due = None;
        for (position, injection) in self.script.iter_mut().enumerate() {
            if mine(injection) {
                match injection.after.checked_sub(1) {
                    Some(less) => injection.after = less,
                    None => due = Some(position),
                }
            }
        }
        due.map(|position| self.script.swap_remove(position).trouble)
    }

    fn complete_one(&mut self) -> bool {
        let now = self.now;
        self.stalled.retain(|_, until| *until > now);
        let Some(flight) = self.choose() else { return false };
        if self.random.once_in(8) {
            self.disk.arrive(flight, &mut self.random);
            return true;
        }
        let work = self.disk.flying().find(|(of, _)| *of == flight).map(|(_, work)| work.clone());
        let work = work.expect("a chosen flight");
        let (token, span) = self.given.remove(&flight).expect("an effect's flight");
        let result = match self.trouble(&work, false) {
            Some(Trouble::Fail(error)) => {
                self.disk.fail(flight, &mut self.random);
                Err(error)
            }
            _ => {
                let into = match (&work, span) {
                    (Work::Read { .. }, Some(span)) => self.mem.span_mut(span),
                    _ => &mut [],
                };
                self.disk.complete(flight, &mut self.random, into)
            }
        };
        if let Some(span) = span {
            self.mem.release(span, matches!(work, Work::Read { .. }));
        }
        self.story.tell(now, || match result {
            Ok(_) => format!("  disk >> {}", tell(token, &work)),
            Err(error) => format!("  disk >> {}: {error}", tell(token, &work)),
        });
        self.machine.handle(&mut self.mem, now, Event::Done { token, result });
        true
    }

    fn choose(&mut self) -> Option<Flight> {
        let free = |(flight, work): (Flight, &Work)| {
            let weight = match work {
                Work::Read { len, .. } | Work::Discard { len, .. } => *len,
                Work::Write { bytes, .. } => bytes.len() as u64,
                Work::Sync { .. } => 0,
            };
            let stalled = self.stalled.contains_key(&flight);
            (!stalled).then_some((flight, weight))
        };
        let mut free: Vec<(Flight, u64)> = self.disk.flying().filter_map(free).collect();
        if free.is_empty() {
            return None;
        }
        match self.order {
            Order::Any => {}
            Order::Oldest => free.truncate(1),
            Order::Newest => drop(free.drain(..free.len() - 1)),
            Order::LargeLast => {
                let least = free.iter().map(|(_, weight)| *weight).min();
                free.retain(|(_, weight)| Some(*weight) == least);
            }
            Order::FlushLast => {
                if free.iter().any(|(_, weight)| *weight > 0) {
                    free.retain(|(_, weight)| *weight > 0);
                }
            }
        }
        Some(self.random.pick(&free).0)
    }
}

/// What a pool's operations are for, by their tokens' kinds from its first one.
const KINDS: [&str; 8] =
    ["data", "journal", "flush", "fetch", "checkpoint", "discard", "opening", "job"];

fn tell(token: Token, work: &Work) -> String {
    let key = token.key();
    let who = format!("{} {}", KINDS[usize::from(token.kind()) % KINDS.len()], key.index);
    match work {
        Work::Read { offset, len } => format!("read {len} at {offset:#x} ({who})"),
        Work::Write { offset, bytes } => format!("write {} at {offset:#x} ({who})", bytes.len()),
        Work::Sync { .. } => format!("flush ({who})"),
        Work::Discard { offset, len } => format!("discard {len} at {offset:#x} ({who})"),
    }
}
