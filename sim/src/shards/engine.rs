//! An engine: a whole shard, and around it what its shell does.
//!
//! Whatever comes is taken at once; the turn that follows a little later lets the shard go on
//! until it wants nothing. All of it dies with the process.
//!
//! Invariants:
//! 1. A replica has its subsystem as soon as its guard stands, as in an engine that starts.
//! 2. What replicas have done is told before what hosts are answered in the same turn.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_block::{Instant, IoError, Token};
use braid_nexus::guard::{Kept, View as GuardView};
use braid_nexus::{Copying, Record, Swapped, Uuid, View};
use braid_pool::{Config as PoolConfig, Pool, State};
use braid_shard::{
    Deed, Disk, Effect, Event, News, Note, PoolId, Question, Rehearsal, Shard, VolumeConfig,
};

use super::names;
use super::streams::{Caller, Heard, Streams, World};
use crate::cluster::clock::Happening;
use crate::cluster::drive::Drive;
use crate::cluster::net::{self, Ask, Body, LineId, Place, Standing, Told, Trace};
use crate::cluster::nexus::Shape;
use crate::cluster::process::{Context, Input};
use crate::cluster::{Happened, Late};
use crate::memory::SimMemory;
use crate::random::Random;

/// Rounds of a turn; what is left has another turn.
const ROUNDS: u32 = 64;
/// Until a turn: what comes meanwhile is in the same one.
const GATHER: u64 = 20_000;
/// The pool of an engine, and its disk.
const POOL: PoolId = PoolId(0);
const DISK: Disk = Disk(0);

/// Something asked of the store.
#[derive(Clone, Debug)]
enum Asked {
    Swap { number: u64, new: Box<Record> },
    Fetch,
}

/// What an engine starts with.
#[derive(Debug)]
pub(crate) struct Outset {
    pub(crate) node: u8,
    /// Of the cluster.
    pub(crate) seed: u64,
    pub(crate) pool: PoolConfig,
    pub(crate) volumes: Vec<Shape>,
}

/// An engine.
#[derive(Debug)]
pub(crate) struct Engine {
    mem: SimMemory,
    shard: Shard,
    streams: Streams,
    volumes: Vec<Uuid>,
    questions: BTreeMap<u64, (usize, Asked)>,
    numbers: u64,
    /// Replicas that have their subsystems.
    exposed: Vec<Uuid>,
    /// Streams of nexuses.
    callers: BTreeMap<u32, Caller>,
    /// The association that each replica obeys, and how often that has become another one.
    fences: BTreeMap<Uuid, (Option<u32>, u64)>,
    turn_set: bool,
    wake: Option<Instant>,
    /// It ends as soon as its shard is drained.
    drained: bool,
}

impl Engine {
    /// An engine that opens its pool, and stands by for its volumes.
    pub(crate) fn new(cx: &Context<'_>, outset: Outset) -> Self {
        let Outset { node, seed, pool, volumes } = outset;
        let arena = *Random::part(seed, 50 + u64::from(node)).pick(&names::ARENAS);
        let mut mem = SimMemory::new(arena);
        let mut shard = Shard::new(names::shard(vec![names::portal(node)], arena));
        let (now, boot_id, seed) = (cx.clock.now(), pool.boot_id, pool.seed);
        shard.handle(&mut mem, now, Event::Start { boot_id, seed });
        shard.rehearse(Rehearsal { timing: cx.timing, plant: cx.plant, watches: true });
        let opened = shard.pool_open(&mut mem, now, POOL, DISK, pool);
        assert!(opened, "a shard that starts has no pool");
        let mut engine = Self {
            mem,
            shard,
            streams: Streams::new(Place::Node(node)),
            volumes: Vec::new(),
            questions: BTreeMap::new(),
            numbers: 0,
            exposed: Vec::new(),
            callers: BTreeMap::new(),
            fences: BTreeMap::new(),
            turn_set: false,
            wake: None,
            drained: false,
        };
        volumes.into_iter().for_each(|shape| engine.add(cx, shape));
        engine
    }

    /// Stands by for another volume.
    pub(crate) fn add(&mut self, cx: &Context<'_>, shape: Shape) {
        let Shape { volume, bytes, near, timing, limits, .. } = shape;
        let site = cx.sites.volumes.iter().find(|site| site.uuid == volume);
        let replicas = site.into_iter().flat_map(|site| &site.replicas);
        let others = replicas.filter(|(_, node)| *node != cx.node);
        let places = others.map(|(uuid, node)| (*uuid, u32::from(*node))).collect();
        let hostnqn = names::engine_nqn(cx.node);
        let config = VolumeConfig { volume, bytes, near, timing, limits, hostnqn, places };
        assert!(self.shard.volume_add(config), "a volume is added once");
        let added = self.shard.subsystem_add(names::volume(cx.node, volume, bytes));
        assert!(added, "names of volumes are their own");
        self.volumes.push(volume);
    }

    /// Whether its pool is open and its replicas are served.
    pub(crate) fn is_ready(&self) -> bool {
        let Some(pool) = self.pool().filter(|pool| pool.state() == State::Open) else {
            return false;
        };
        let replicas = pool.layers().filter(|layer| !layer.snapshot);
        replicas.into_iter().all(|layer| self.shard.member_view(&layer.uuid).is_some())
    }

    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.shard.pool(POOL)
    }

    pub(crate) fn view(&self, volume: usize) -> Option<View> {
        self.shard.volume_view(self.volumes.get(volume)?)
    }

    pub(crate) fn copies(&self, volume: usize) -> Vec<Copying> {
        let volume = self.volumes.get(volume);
        volume.map_or_else(Vec::new, |volume| self.shard.volume_copies(volume))
    }

    pub(crate) fn is_optimized(&self, volume: usize) -> bool {
        let volume = self.volumes.get(volume);
        volume.is_some_and(|volume| self.shard.volume_is_optimized(volume))
    }

    pub(crate) fn replica(&self, uuid: &Uuid) -> Option<(GuardView, Option<Kept>)> {
        self.shard.member_view(uuid)
    }

    pub(crate) fn has(&self, line: LineId, near: bool) -> bool {
        self.streams.has(line, near)
    }

    pub(crate) fn is_connecting(&self, line: LineId) -> bool {
        self.streams.is_connecting(line)
    }

    pub(crate) fn line_ends(&self) -> Vec<(LineId, bool, Place)> {
        self.streams.ends().collect()
    }

    /// Sees to it that there is a turn soon.
    pub(crate) fn touch(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.turn_set, true) {
            let delay = Duration::from_nanos(cx.clock.random.below(GATHER));
            let (node, life) = (cx.node, cx.life);
            cx.clock.after(delay, Happening::Turn { node, life });
        }
    }

    /// A turn that was set does not come.
    pub(crate) const fn miss_turn(&mut self) {
        self.turn_set = false;
    }

    /// Whether a deadline that was set is still meant.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.wake.is_some_and(|wake| wake <= now)
    }

    /// Time passed: deadlines come before whatever else came meanwhile.
    pub(crate) fn elapse(&mut self, cx: &mut Context<'_>) {
        self.wake = None;
        self.shard.handle(&mut self.mem, cx.clock.now(), Event::Elapsed);
        self.touch(cx);
    }

    /// A disk operation ended.
    fn disk_ended(&mut self, now: Instant, token: Token, result: Result<u32, IoError>) {
        self.shard.handle(&mut self.mem, now, Event::Done { token, result });
    }

    /// Where operations of the disk fill what they read.
    pub(crate) const fn memory(&mut self) -> &mut SimMemory {
        &mut self.mem
    }

    /// Takes what came.
    pub(crate) fn take(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Packet(packet) => match packet.body {
                Body::Tell { life, question, told } if life == cx.life => {
                    self.told(question, told);
                }
                Body::Order { volume, tag, command } => {
                    cx.clock.tell(|| format!("planner > n{} v{volume}: {command:?}", cx.node));
                    if let Some(uuid) = self.volumes.get(volume) {
                        self.shard.volume_command(cx.clock.now(), uuid, tag, command);
                    }
                }
                body => {
                    let mut world = World { clock: cx.clock, net: cx.net };
                    self.streams.take(&mut world, packet.from, body);
                }
            },
            Input::Disk(token, result) => self.disk_ended(cx.clock.now(), token, result),
            Input::Unanswered(line) => self.streams.unanswered(line),
            Input::Silence { question } => self.silence(cx, question),
            // A kernel finds out by itself, or does not: the shards have keep alive.
            Input::Lost { .. } => {}
        }
        self.touch(cx);
    }

    /// A command of whoever drives the cluster, to the pool.
    pub(crate) fn errand(
        &mut self,
        cx: &mut Context<'_>,
        number: u64,
        command: braid_pool::Command,
    ) {
        self.shard.pool_command(&mut self.mem, cx.clock.now(), POOL, number, command);
        self.touch(cx);
    }

    /// Begins to stop in order.
    pub(crate) fn stop(&mut self, cx: &mut Context<'_>) {
        self.shard.stop(&mut self.mem, cx.clock.now());
        self.touch(cx);
    }

    /// Tells the planner that it lives.
    pub(crate) fn beat(&self, cx: &mut Context<'_>) {
        let standings = self.volumes.iter().map(|uuid| {
            let view = self.shard.volume_view(uuid);
            let of = |view: View| Standing { owner: view.owner, serving: view.serving };
            view.map_or_else(Standing::default, of)
        });
        let replicas = self.exposed.iter().filter_map(|uuid| {
            let (view, kept) = self.shard.member_view(uuid)?;
            let kept = kept.filter(|kept| kept.complete);
            let copy = kept.map(|kept| std::rc::Rc::new(*kept.copy));
            (!view.failed).then_some(net::Kept { uuid: *uuid, epoch: view.fence.0, copy })
        });
        let body = Body::Beat { standings: standings.collect(), replicas: replicas.collect() };
        cx.send(Place::Planner, body);
    }

    /// Ends a turn.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>, drive: &mut Drive) {
        self.turn_set = false;
        for _ in 0..ROUNDS {
            if !self.round(cx, drive) {
                break;
            }
        }
        if self.shard.has_work() {
            self.touch(cx);
        }
        self.set_wake(cx);
        if std::mem::take(&mut self.drained) {
            let (node, life) = (cx.node, cx.life);
            cx.clock.after(Duration::ZERO, Happening::Exit { node, life });
        }
    }

    /// Lets the shard go on once; whether anything was done.
    fn round(&mut self, cx: &mut Context<'_>, drive: &mut Drive) -> bool {
        let now = cx.clock.now();
        let mut moved = false;
        let mut world = World { clock: cx.clock, net: cx.net };
        moved |= self.streams.go_on(&mut world, &mut self.mem);
        while let Some(event) = self.streams.poll() {
            moved = true;
            self.shard.handle(&mut self.mem, now, event);
        }
        self.shard.end_turn(&mut self.mem, now);
        self.count_fences();
        self.tell_deeds(cx);
        while let Some(told) = self.shard.volume_poll() {
            moved = true;
            self.news(cx, &told.volume, told.news);
        }
        while let Some(effect) = self.shard.poll_effect() {
            moved = true;
            self.act(cx, drive, effect);
        }
        self.tell_heard(cx);
        self.expose(cx);
        moved
    }

    fn count_fences(&mut self) {
        for uuid in &self.exposed {
            let Some(view) = self.shard.member_guard(uuid) else { continue };
            let (holder, fences) = self.fences.entry(*uuid).or_default();
            if view.holder.is_some() && *holder != view.holder {
                (*holder, *fences) = (view.holder, *fences + 1);
            }
        }
    }

    /// What replicas have done is known before anybody is answered.
    fn tell_deeds(&mut self, cx: &mut Context<'_>) {
        while let Some(deed) = self.shard.member_deed() {
            cx.out.push_back(match deed {
                Deed::Taken { socket, cid } => {
                    self.streams.taken(socket, cid, cx.clock.now());
                    continue;
                }
                Deed::Changed { replica, offset, len, bytes } => {
                    Happened::Changed { replica, offset, len, bytes: bytes.map(Into::into) }
                }
                Deed::Cleaned { replica } => Happened::Cleaned { replica },
            });
        }
    }

    fn tell_heard(&mut self, cx: &mut Context<'_>) {
        while let Some(heard) = self.streams.overheard() {
            match heard {
                Heard::Changed(socket) => {
                    if let Some(caller) = self.callers.get_mut(&socket.0) {
                        let view = self.shard.member_guard(&caller.replica);
                        caller.epoch = view.map_or(0, |view| view.fence.0);
                        caller.fences = self.fences.get(&caller.replica).map_or(0, |of| of.1);
                    }
                }
                Heard::Late(Caller { replica, epoch, fences }) => {
                    let Some(view) = self.shard.member_guard(&replica) else { continue };
                    if self.fences.get(&replica).is_some_and(|of| of.1 > fences) {
                        let same_epoch = view.fence.0 == epoch;
                        cx.out.push_back(Happened::Late(Late::Write { same_epoch }));
                    }
                }
                Heard::Came(command) => cx.out.push_back(Happened::Came { line: command.line }),
                Heard::Answered(answer) => {
                    let (line, tag) = (answer.command.line, answer.command.tag);
                    let (received, answered) = (answer.command.received, cx.clock.now());
                    // Whoever judges knows in which epoch this engine served last.
                    let (node, epoch) = (cx.node, 0);
                    let status = names::said(answer.status, 0);
                    cx.clock.tell(|| format!("n{node} answers {line} {tag}: {status:?}"));
                    let trace = Trace { node, epoch, received, answered };
                    cx.out.push_back(Happened::Answered { line, tag, status, trace });
                }
            }
        }
    }

    /// Gives replicas whose guards stand their subsystems.
    fn expose(&mut self, cx: &Context<'_>) {
        for (uuid, bytes) in cx.sites.of_node(cx.node) {
            if !self.exposed.contains(&uuid) && self.shard.member_view(&uuid).is_some() {
                let added = self.shard.subsystem_add(names::member(uuid, bytes));
                assert!(added, "names of replicas are their own");
                self.exposed.push(uuid);
            }
        }
    }

    fn act(&mut self, cx: &mut Context<'_>, drive: &mut Drive, effect: Effect) {
        let mut world = World { clock: cx.clock, net: cx.net };
        let mem = &mut self.mem;
        match effect {
            Effect::Connect { token, address } => {
                let node = u8::try_from(address).expect("an address is a node");
                self.streams.connect(&mut world, token, Place::Node(node));
            }
            Effect::ReceiveExact { token, socket, span } => {
                self.streams.receive_exact(mem, token, socket, span);
            }
            Effect::ReceiveStream { token, socket, .. } => {
                self.streams.receive_stream(token, socket)
            }
            Effect::ReceiveStop { socket } => self.streams.receive_stop(socket),
            Effect::Send { token, socket, batch } => {
                let spans = self.shard.batch(batch).to_vec();
                self.streams.send(mem, token, socket, spans);
            }
            Effect::Shutdown { socket } => self.streams.shutdown(&mut world, socket),
            Effect::Close { socket } => self.streams.close(&mut world, mem, socket),
            Effect::Read { token, span, offset, .. } => {
                let effect = braid_pool::Effect::Read { token, span, offset };
                drive.take(cx.clock, mem, cx.life, effect);
            }
            Effect::Write { token, span, offset, durable, .. } => {
                assert!(!durable, "a pool flushes by itself");
                let effect = braid_pool::Effect::Write { token, span, offset };
                drive.take(cx.clock, mem, cx.life, effect);
            }
            Effect::Sync { token, .. } => {
                drive.take(cx.clock, mem, cx.life, braid_pool::Effect::Sync { token });
            }
            Effect::Discard { token, offset, len, .. } => {
                let effect = braid_pool::Effect::Discard { token, offset, len };
                drive.take(cx.clock, mem, cx.life, effect);
            }
            Effect::Zero { .. } => unreachable!("a pool zeroes nothing on its device"),
            Effect::Mail { .. } => unreachable!("there is one shard"),
            Effect::Note(note) => self.note(cx, note),
        }
    }

    fn note(&mut self, cx: &mut Context<'_>, note: Note) {
        let node = cx.node;
        match note {
            Note::Pool { note, .. } => {
                cx.clock.tell(|| format!("n{node} pool: {note:?}"));
                cx.out.push_back(Happened::Pool { node, note });
            }
            Note::PoolCommand { tag, result, .. } => {
                let result = result.map(|_| ());
                cx.out.push_back(Happened::Errand { node, number: tag, result });
            }
            Note::Drained => self.drained = true,
            note => {
                cx.clock.tell(|| format!("n{node}: {note:?}"));
                self.note_of_stream(note);
            }
        }
    }

    /// Who calls which replica, until its stream is closed.
    fn note_of_stream(&mut self, note: Note) {
        match note {
            Note::QueueConnected { socket, subsystem, .. } => {
                let name = self.shard.subsystem_name(subsystem);
                let is_named = |uuid: &&Uuid| name == Some(&*braid_shard::member_nqn(uuid));
                if let Some(replica) = self.exposed.iter().find(is_named) {
                    let caller = Caller { replica: *replica, epoch: 0, fences: u64::MAX };
                    self.callers.insert(socket.0, caller);
                }
            }
            Note::Closed { socket, .. } => {
                if let Some(caller) = self.callers.remove(&socket.0) {
                    self.streams.was_of(socket, caller);
                }
            }
            _ => {}
        }
    }

    fn news(&mut self, cx: &mut Context<'_>, uuid: &Uuid, news: News) {
        let Some(volume) = self.volumes.iter().position(|of| of == uuid) else {
            return;
        };
        match news {
            News::Asked(Question::Swap { number, old, new }) => {
                let asked = Asked::Swap { number, new: new.clone() };
                self.ask(cx, volume, asked, Ask::Swap { old, new, blind: false });
            }
            News::Asked(Question::Fetch) => self.ask(cx, volume, Asked::Fetch, Ask::Fetch),
            News::Ended(ended) => cx.ended(volume, ended),
            News::Note(note) => cx.note(volume, note),
            News::Access { optimized } => {
                cx.clock.tell(|| format!("n{} v{volume}: optimized {optimized}", cx.node));
            }
            News::Resized { bytes } => {
                cx.clock.tell(|| format!("n{} v{volume}: has {bytes} bytes", cx.node));
            }
            News::Gone => {}
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, volume: usize, asked: Asked, ask: Ask) {
        self.numbers += 1;
        let question = self.numbers;
        self.questions.insert(question, (volume, asked));
        let (node, life) = (cx.node, cx.life);
        cx.clock.after(cx.patience, Happening::Silence { node, life, question });
        cx.send(Place::Store, Body::Ask { life, volume, question, ask });
    }

    /// The store answered.
    fn told(&mut self, question: u64, told: Told) {
        use braid_nexus::Event::{Fetched, Swapped as Ended};
        let Some((volume, asked)) = self.questions.remove(&question) else { return };
        let event = match (asked, told) {
            (Asked::Swap { number, .. }, Told::Committed) => {
                Ended { number, outcome: Swapped::Committed }
            }
            (Asked::Swap { number, .. }, Told::Changed(record)) => {
                Ended { number, outcome: Swapped::Changed(record) }
            }
            (Asked::Fetch, Told::Record(record)) => Fetched { record: Some(record) },
            (asked, told) => unreachable!("the store was asked {asked:?} and said {told:?}"),
        };
        self.answer(volume, event);
    }

    /// The store has not answered.
    fn silence(&mut self, cx: &mut Context<'_>, question: u64) {
        use braid_nexus::Event::{Fetched, Swapped as Ended};
        let Some((volume, asked)) = self.questions.remove(&question) else { return };
        cx.clock.tell(|| format!("n{}: the store does not answer", cx.node));
        let event = match asked {
            Asked::Swap { number, new: record } => {
                cx.out.push_back(Happened::Unsure { volume, record });
                Ended { number, outcome: Swapped::Unknown }
            }
            Asked::Fetch => Fetched { record: None },
        };
        self.answer(volume, event);
    }

    fn answer(&mut self, volume: usize, event: braid_nexus::Event) {
        let uuid = self.volumes[volume];
        assert!(self.shard.volume_answer(&uuid, event), "a volume stays");
    }

    fn set_wake(&mut self, cx: &mut Context<'_>) {
        let Some(due) = self.shard.poll_timeout() else { return };
        // A clock is read again a little later, never at the same moment.
        let due = due.max(cx.clock.now() + Duration::from_micros(10));
        if self.wake.is_none_or(|wake| due < wake) {
            self.wake = Some(due);
            let (node, life) = (cx.node, cx.life);
            cx.clock.at(due, Happening::Wake { node, life });
        }
    }
}
