//! A process: one engine with its pool, its replicas and its volumes, in turns.
//!
//! Whatever comes is taken at once; the turn that follows a little later lets all of them go on
//! until nobody wants anything. All of it dies with the process.

use std::collections::VecDeque;
use std::time::Duration;

use braid_block::{Instant, IoError, Token};
use braid_nexus::{Ended, Note, Plant, Timing, Uuid};
use braid_pool::{Pool, State};

use super::clock::{Clock, Happening};
use super::drive::Drive;
use super::engine::{Engines, concerns_planner};
use super::net::{Body, Data, Frame, Kept, LineId, Net, Packet, Place, Target};
use super::place::Sites;
use super::replica::{Parts, Replicas};
use super::{ERRANDS, Happened};
use crate::memory::SimMemory;

/// Rounds of a turn; what is left has another turn.
const ROUNDS: u32 = 64;
/// Bytes that a process leases at once, at most.
const ARENA: u64 = 256 << 20;
/// Until a turn: what comes meanwhile is in the same one.
const GATHER: u64 = 20_000;

/// What a process sees of the world.
pub(crate) struct Context<'a> {
    pub(crate) clock: &'a mut Clock,
    pub(crate) net: &'a mut Net,
    pub(crate) sites: &'a Sites,
    pub(crate) out: &'a mut VecDeque<Happened>,
    pub(crate) node: u8,
    pub(crate) life: u64,
    pub(crate) timing: Timing,
    pub(crate) plant: Option<Plant>,
    /// How long the store is waited for.
    pub(crate) patience: Duration,
}

impl Context<'_> {
    pub(crate) const fn place(&self) -> Place {
        Place::Node(self.node)
    }

    pub(crate) fn send(&mut self, to: Place, body: Body) {
        self.net.send(self.clock, Place::Node(self.node), to, body);
    }

    pub(crate) fn open(&mut self, to: Place, target: Target) -> LineId {
        self.net.open(self.clock, Place::Node(self.node), to, target)
    }

    /// A command of the management ended.
    pub(crate) fn ended(&mut self, volume: usize, ended: Ended) {
        let (node, tag) = (self.node, ended.tag);
        self.clock.tell(|| format!("n{node} v{volume}: command {tag:x} {:?}", ended.result));
        if tag & ERRANDS != 0 {
            let result = ended.result;
            self.out.push_back(Happened::Ended { node, volume, tag, result });
        } else {
            self.send(Place::Planner, Body::Ended { volume, ended });
        }
    }

    /// A volume has something to tell.
    pub(crate) fn note(&mut self, volume: usize, note: Note) {
        let node = self.node;
        self.clock.tell(|| format!("n{node} v{volume}: {note:?}"));
        self.out.push_back(Happened::Note { node, volume, note });
        if concerns_planner(&note) {
            self.send(Place::Planner, Body::Noted { volume, note });
        }
    }
}

/// What comes to a process.
#[derive(Debug)]
pub(crate) enum Input {
    Packet(Packet),
    /// A disk operation ended.
    Disk(Token, Result<u32, IoError>),
    /// An end of a line here lapsed.
    Lost {
        line: LineId,
        near: bool,
    },
    /// A connect was not answered.
    Unanswered(LineId),
    /// The store did not answer.
    Silence {
        question: u64,
    },
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) mem: SimMemory,
    pub(crate) pool: Pool,
    pub(crate) replicas: Replicas,
    pub(crate) engines: Engines,
    loaded: bool,
    turn_set: bool,
    wake: Option<Instant>,
    /// It ends as soon as its pool has stopped.
    stopping: bool,
}

impl Process {
    pub(crate) fn new(pool: Pool, engines: Engines) -> Self {
        let mem = SimMemory::new(ARENA);
        let replicas = Replicas::default();
        Self {
            mem,
            pool,
            replicas,
            engines,
            loaded: false,
            turn_set: false,
            wake: None,
            stopping: false,
        }
    }

    /// Whether its pool is open and its replicas are served.
    pub(crate) fn is_ready(&self) -> bool {
        self.loaded && !self.replicas.is_loading()
    }

    /// Sees to it that there is a turn soon.
    pub(crate) fn touch(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.turn_set, true) {
            let delay = Duration::from_nanos(cx.clock.random.below(GATHER));
            let (node, life) = (cx.node, cx.life);
            cx.clock.after(delay, Happening::Turn { node, life });
        }
    }

    /// Takes what came.
    pub(crate) fn take(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Packet(packet) => self.receive(cx, packet),
            Input::Disk(token, result) => {
                let event = braid_pool::Event::Done { token, result };
                self.pool.handle(&mut self.mem, cx.clock.now(), event);
            }
            Input::Lost { line, near } => self.lost(cx, line, near),
            Input::Unanswered(line) => {
                if self.engines.is_opening(line) {
                    cx.clock.tell(|| format!("n{}: nobody answers on {line}", cx.node));
                    self.engines.broken(cx, &self.replicas, line, false);
                }
            }
            Input::Silence { question } => {
                if self.engines.silence(cx, question) {
                    cx.clock.tell(|| format!("n{}: the store does not answer", cx.node));
                }
            }
        }
        self.touch(cx);
    }

    /// Whether this process has that end of a line.
    pub(crate) fn has(&self, line: LineId, near: bool) -> bool {
        self.engines.has(line, near) || (!near && self.replicas.has(line))
    }

    /// All its ends of lines.
    pub(crate) fn line_ends(&self) -> Vec<(LineId, bool, Place)> {
        let far = self.replicas.lines().map(|(line, peer)| (line, false, peer));
        self.engines.line_ends().chain(far).collect()
    }

    /// A command of whoever drives the cluster, to the pool.
    pub(crate) fn errand(
        &mut self,
        cx: &mut Context<'_>,
        number: u64,
        command: braid_pool::Command,
    ) {
        let mut parts = Parts { pool: &mut self.pool, mem: &mut self.mem };
        self.replicas.errand(cx, &mut parts, number, command);
        self.touch(cx);
    }

    /// A replica was made: it is served from now on.
    pub(crate) fn load(&mut self, cx: &mut Context<'_>, uuid: Uuid) {
        let mut parts = Parts { pool: &mut self.pool, mem: &mut self.mem };
        self.replicas.load_one(cx, &mut parts, uuid);
        self.touch(cx);
    }

    fn lost(&mut self, cx: &mut Context<'_>, line: LineId, near: bool) {
        if !self.has(line, near) {
            return;
        }
        cx.clock.tell(|| format!("n{}: {line} is lost", cx.node));
        cx.net.forsake(cx.clock, line, !near);
        self.gone(cx, line, !near);
    }

    /// The other end of a line, its near one or its far one, is no more.
    fn gone(&mut self, cx: &mut Context<'_>, line: LineId, near: bool) {
        if near {
            self.replicas.closed(cx, line);
            self.engines.guest_gone(line);
        } else {
            self.engines.broken(cx, &self.replicas, line, false);
        }
    }

    fn receive(&mut self, cx: &mut Context<'_>, packet: Packet) {
        let Packet { from, body, .. } = packet;
        match body {
            Body::Open { line, target } => {
                let taken = match target {
                    Target::Replica(uuid) => self.replicas.open(cx, from, line, &uuid),
                    Target::Again { replica, association } => {
                        self.replicas.open_again(from, line, &replica, association)
                    }
                    Target::Stream => None,
                    Target::Portal { volume, host, origin } => {
                        self.engines.guest(line, from, (volume, host, origin))
                    }
                };
                let opened = |association| Body::Opened { line, association };
                cx.send(from, taken.map_or(Body::Refused { line }, opened));
            }
            Body::Opened { line, association } => self.engines.opened(cx, line, association),
            Body::Refused { line } => self.engines.broken(cx, &self.replicas, line, true),
            Body::End { line, near } => {
                if self.has(line, !near) {
                    cx.clock.tell(|| format!("{from} > n{}: {line} ends", cx.node));
                    self.gone(cx, line, near);
                }
            }
            Body::Frame { line, near, frame } => self.frame(cx, from, line, near, frame),
            Body::Tell { life, question, told, .. } => {
                if life == cx.life {
                    self.engines.told(question, told);
                }
            }
            Body::Order { volume, tag, command } => {
                cx.clock.tell(|| format!("planner > n{} v{volume}: {command:?}", cx.node));
                self.engines.command(cx, volume, tag, command);
            }
            Body::Ask { .. } | Body::Beat { .. } | Body::Noted { .. } | Body::Ended { .. } => {}
        }
    }

    fn frame(&mut self, cx: &mut Context<'_>, from: Place, line: LineId, near: bool, frame: Frame) {
        if !self.has(line, !near) {
            cx.clock.tell(|| format!("{from} > n{} {line} is no more: {}", cx.node, frame.tell()));
            self.replicas.missed(cx, line, &frame);
            return cx.send(from, Body::End { line, near: !near });
        }
        cx.clock.tell(|| format!("{from} > n{} {line} {}", cx.node, frame.tell()));
        match frame {
            Frame::Command { number, command, data } => {
                let stale = matches!(data, Data::Here(_)) && !self.engines.has(line, true);
                // Its sender has the buffer back already.
                if !stale {
                    self.replicas.arrive(cx, line, number, command, data);
                }
            }
            Frame::Answer { number, result, data } => {
                self.engines.answered(&mut self.mem, line, number, result, &data);
            }
            Frame::Request { tag, work, data } => {
                self.engines.request(cx, &mut self.mem, line, tag, work, &data);
            }
            Frame::ReadAna { tag } => self.engines.read_ana(cx, &mut self.mem, line, tag),
            Frame::Completion { .. }
            | Frame::Bytes { .. }
            | Frame::Taken { .. }
            | Frame::Over { .. }
            | Frame::Ana { .. }
            | Frame::Access { .. }
            | Frame::Resized { .. } => {}
        }
    }

    /// Time passed: deadlines come before whatever else came meanwhile.
    pub(crate) fn elapse(&mut self, cx: &mut Context<'_>) {
        self.wake = None;
        let now = cx.clock.now();
        self.pool.handle(&mut self.mem, now, braid_pool::Event::Elapsed);
        self.replicas.elapsed(cx);
        self.engines.elapsed(cx, &mut self.mem);
        self.touch(cx);
    }

    /// A turn that was set does not come.
    pub(crate) const fn miss_turn(&mut self) {
        self.turn_set = false;
    }

    /// Ends a turn.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>, drive: &mut Drive) {
        self.turn_set = false;
        for _ in 0..ROUNDS {
            if !self.round(cx, drive) {
                break;
            }
        }
        if self.pool.has_work() || self.engines.has_work() {
            self.touch(cx);
        }
        self.set_wake(cx);
        if self.stopping && matches!(self.pool.state(), State::Stopped | State::Failed) {
            self.stopping = false;
            let (node, life) = (cx.node, cx.life);
            cx.clock.after(Duration::ZERO, Happening::Exit { node, life });
        }
    }

    /// Begins to stop in order: no more I/O, and the process ends when its pool has stopped.
    pub(crate) fn stop(&mut self, cx: &mut Context<'_>) {
        self.pool.stop(&mut self.mem, cx.clock.now());
        self.stopping = true;
        self.touch(cx);
    }

    /// Lets everybody go on once; whether anything was done.
    fn round(&mut self, cx: &mut Context<'_>, drive: &mut Drive) -> bool {
        let Self { mem, pool, replicas, engines, .. } = self;
        let mut moved = false;
        pool.end_turn(mem, cx.clock.now());
        while let Some(effect) = pool.poll_effect() {
            moved = true;
            drive.take(cx.clock, mem, cx.life, effect);
        }
        while let Some(note) = pool.poll_note() {
            cx.clock.tell(|| format!("n{} pool: {note:?}", cx.node));
            cx.out.push_back(Happened::Pool { node: cx.node, note });
        }
        let mut parts = Parts { pool, mem };
        if !self.loaded && matches!(parts.pool.state(), State::Open | State::Failed) {
            self.loaded = true;
            replicas.load(cx, &mut parts);
            moved = true;
        }
        moved |= replicas.take_completions(cx, &mut parts);
        moved |= replicas.act(cx, &mut parts);
        for (line, number) in replicas.take_released() {
            moved = true;
            engines.released(line, number);
        }
        for (number, result) in std::mem::take(&mut replicas.errands) {
            cx.out.push_back(Happened::Errand { node: cx.node, number, result });
        }
        moved | engines.turn(cx, mem, replicas)
    }

    fn set_wake(&mut self, cx: &mut Context<'_>) {
        let dues = [self.pool.poll_timeout(), self.replicas.due(), self.engines.due()];
        let Some(due) = dues.into_iter().flatten().min() else { return };
        // A clock is read again a little later, never at the same moment.
        let due = due.max(cx.clock.now() + Duration::from_micros(10));
        if self.wake.is_none_or(|wake| due < wake) {
            self.wake = Some(due);
            let (node, life) = (cx.node, cx.life);
            cx.clock.at(due, Happening::Wake { node, life });
        }
    }

    /// Whether a deadline that was set is still meant.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.wake.is_some_and(|wake| wake <= now)
    }

    /// Tells the planner that it lives.
    pub(crate) fn beat(&self, cx: &mut Context<'_>) {
        let standings = self.engines.standings();
        let replicas = self.replicas.list.iter().filter_map(|replica| {
            let (view, kept) = self.replicas.view(&self.pool, &replica.uuid)?;
            let kept = kept.filter(|kept| kept.complete);
            let copy = kept.map(|kept| std::rc::Rc::new(*kept.copy));
            (!view.failed).then_some(Kept { uuid: replica.uuid, epoch: view.fence.0, copy })
        });
        let replicas = replicas.collect();
        cx.send(Place::Planner, Body::Beat { standings, replicas });
    }
}
