//! Takes orders for a pool under test, and answers each with a line.

use std::io;
use std::time::Duration;

use braid_block::{BlockSize, Instant};
use braid_pool::{Command, Create, Note, State};
use braid_reactor::{Application, World};

use super::direct::Direct;
use super::order::{Counts, Order, Ready, Run};
use crate::wire::bad;

/// Space that came back later than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is waited for.
enum Waiting {
    /// For an order.
    Nothing,
    /// The pool is being made.
    Made,
    /// The pool is being opened.
    Opened,
    /// A command; then, if it destroys, for the space, which may be back before the answer.
    Command { destroys: bool, back: bool },
    /// Space comes back, until then at the latest.
    Space(Instant),
    /// A load: when it ends, when it began, what was done before, and how it ended.
    Load { until: Instant, begun: Instant, before: u64, ended: Option<(u64, Duration)>, run: Run },
    /// The pool stops.
    Stopped,
    /// It is over.
    Over,
}

/// The orders' thread.
pub(crate) struct Driver {
    waiting: Waiting,
    tag: u64,
    failure: Option<String>,
}

impl Driver {
    /// Ends when the pool is made.
    pub(crate) const fn making() -> Self {
        Self { waiting: Waiting::Made, tag: 2, failure: None }
    }

    /// Ends when it is told to stop.
    pub(crate) const fn serving() -> Self {
        Self { waiting: Waiting::Opened, tag: 2, failure: None }
    }

    /// How the run ended.
    pub(crate) fn outcome(self, machine: &Direct) -> io::Result<()> {
        match self.failure {
            Some(failure) => Err(bad(failure)),
            None if machine.pool.state() == State::Failed => {
                Err(bad(format!("the pool failed: {:?}", machine.notes)))
            }
            None if machine.errors > 0 => Err(bad(format!("{} requests failed", machine.errors))),
            None => Ok(()),
        }
    }

    fn command(&mut self, machine: &mut Direct, world: &mut World<'_>, command: Command) {
        self.tag += 1;
        let destroys = matches!(command, Command::Destroy { .. });
        self.waiting = Waiting::Command { destroys, back: false };
        machine.pool.command(world.mem, world.now, self.tag, command);
    }

    fn run(&mut self, machine: &mut Direct, now: Instant, run: Run) {
        let Some(handle) = machine.pool.find(&[run.id; 16]) else {
            self.failure = Some(format!("there is no replica {}", run.id));
            return;
        };
        let time = if run.time.is_zero() { Duration::from_secs(3600) } else { run.time };
        machine.load(run, handle);
        self.waiting =
            Waiting::Load { until: now + time, begun: now, before: machine.done, ended: None, run };
    }

    fn on_note(&mut self, machine: &Direct, now: Instant, note: Note) {
        match note {
            Note::Opened { clean, replayed, .. } => {
                let took = machine.begun.map(|begun| now.since(begun)).unwrap_or_default();
                println!("{}", Ready { took, clean, replayed });
                self.waiting = Waiting::Nothing;
            }
            Note::Refused(_) | Note::Failed { .. } | Note::Lost { .. } | Note::Media { .. } => {
                self.failure = Some(format!("{note:?}"));
            }
            Note::Reclaimed => match &mut self.waiting {
                Waiting::Space(_) => self.answer("ok"),
                Waiting::Command { back, .. } => *back = true,
                _ => {}
            },
            Note::Stopped if matches!(self.waiting, Waiting::Stopped) => {
                println!("ok");
                self.waiting = Waiting::Over;
            }
            _ => {}
        }
    }

    fn answer(&mut self, line: &str) {
        println!("{line}");
        self.waiting = Waiting::Nothing;
    }

    /// Ends a load when its time has come, and says so when nothing of it is in flight.
    fn watch(&mut self, machine: &mut Direct, now: Instant) {
        let still = machine.look();
        let Waiting::Load { until, begun, before, ended, run } = &mut self.waiting else { return };
        let full = run.journal > 0 && machine.pool.info().journal_used >= run.journal;
        if ended.is_none() && (now >= *until || still || full) {
            *ended = Some((machine.done - *before, now.since(*begun)));
            machine.rest();
        }
        if let Some((done, took)) = *ended
            && machine.is_still()
        {
            self.answer(&format!("{done} {}", took.as_nanos()));
        }
    }
}

impl Application<Direct> for Driver {
    type Control = Order;

    fn note(&mut self, _machine: &Direct, _world: &mut World<'_>, _note: braid_shard::Note) {}

    fn control(&mut self, machine: &mut Direct, world: &mut World<'_>, order: Order) {
        let uuid = |id: u8| [id; 16];
        let (name, created) = ("bench".to_owned(), 0);
        match order {
            Order::Replica { id, bytes } => {
                let (block, thick) = (BlockSize::B4096, false);
                let create = Create { uuid: uuid(id), name, bytes, block, thick, created };
                self.command(machine, world, Command::Create(Box::new(create)));
            }
            Order::Snapshot { of, id } => {
                let (replica, uuid) = (uuid(of), uuid(id));
                self.command(machine, world, Command::Snapshot { replica, uuid, name, created });
            }
            Order::Clone { of, id } => {
                let (snapshot, uuid) = (uuid(of), uuid(id));
                self.command(machine, world, Command::Clone { snapshot, uuid, name, created });
            }
            Order::Destroy { id } => {
                self.command(machine, world, Command::Destroy { uuid: uuid(id) });
            }
            Order::Run(run) => self.run(machine, world.now, run),
            Order::Count => self.answer(&counts(machine, world).to_string()),
            Order::Stop => {
                self.waiting = Waiting::Stopped;
                machine.pool.stop(world.mem, world.now);
            }
            Order::Leave => self.waiting = Waiting::Over,
        }
    }

    fn turn(&mut self, machine: &mut Direct, world: &mut World<'_>) {
        while let Some(note) = machine.notes.pop_front() {
            self.on_note(machine, world.now, note);
        }
        while let Some(completion) = machine.ended.pop_front() {
            match (completion.result, &self.waiting) {
                (Err(failure), _) => self.failure = Some(format!("a command: {failure:?}")),
                (Ok(_), Waiting::Command { destroys: true, back: false }) => {
                    self.waiting = Waiting::Space(world.now + PATIENCE);
                }
                (Ok(_), _) => self.answer("ok"),
            }
        }
        if matches!(self.waiting, Waiting::Space(until) if until <= world.now) {
            self.answer("late");
        }
        if matches!(self.waiting, Waiting::Made) && machine.pool.state() == State::Stopped {
            self.waiting = Waiting::Over;
        }
        self.watch(machine, world.now);
    }

    fn timeout(&self) -> Option<Instant> {
        match self.waiting {
            Waiting::Load { until, ended: None, .. } | Waiting::Space(until) => Some(until),
            _ => None,
        }
    }

    fn finished(&self, machine: &Direct) -> bool {
        let failed = machine.pool.state() == State::Failed;
        matches!(self.waiting, Waiting::Over) || self.failure.is_some() || failed
    }
}

fn counts(machine: &Direct, world: &World<'_>) -> Counts {
    let counters = machine.pool.counters();
    Counts {
        writes: counters.writes,
        reads: counters.reads,
        device_writes: counters.device_writes(),
        written_bytes: counters.device_written_bytes,
        device_reads: counters.device_reads,
        read_bytes: counters.device_read_bytes,
        device_flushes: counters.device_flushes,
        regions_opened: counters.regions_opened,
        checkpoints: counters.checkpoints,
        journal_used: machine.pool.info().journal_used.into(),
        sqes: world.counters.sqes,
        enters: world.counters.enters,
    }
}
