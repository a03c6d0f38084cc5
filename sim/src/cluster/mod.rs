//! A cluster in virtual time: nodes with pools on simulated disks, a network, a store, a planner,
//! hosts. It runs the code that ships: a nexus a volume and engine, a guard and a pool a replica.
//!
//! Whoever drives it takes one step after the other, does faults between them, and reads what
//! happened. Everything that is random comes from the seed, so a seed and what the driver does
//! are one run.

mod ambush;
pub mod campaign;
mod chain;
mod check;
pub(crate) mod clock;
mod clone;
pub(crate) mod drive;
mod end;
mod engine;
mod fate;
mod fault;
mod format;
mod history;
mod host;
mod inspect;
pub(crate) mod net;
pub(crate) mod nexus;
mod node;
mod place;
mod planner;
mod plants;
mod portal;
pub(crate) mod process;
mod profile;
mod register;
mod replica;
mod run;
mod running;
pub mod shrink;
mod store;
mod swarm;
#[cfg(test)]
mod tests;
mod unceasing;
mod verdict;
#[cfg(test)]
mod wrong;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use braid_block::Instant;
use braid_nexus::guard;
use braid_nexus::{
    Command, Copying, Failure, Limits, Note, Plant, Record, Status, Timing, Uuid, View, record,
};
use braid_pool::Pool;

use crate::shards::engine::{Engine, Outset};
use crate::shards::hosts::Machine;
use crate::story::Story;
use clock::{Clock, Happening};
use drive::Drive;
use engine::Engines;
use format::PoolShape;
use net::{Ask, Body, Frame, Net, Packet};
use node::Node;
use planner::Planner;
use portal::HostLine;
use process::{Context, Input, Process};
use running::Running;
use store::Store;

pub use clock::Spread;
pub use drive::Pace;
pub use fault::DiskFault;
pub use format::Layer;
pub use history::{Deed, History, Number};
pub use host::Habits;
pub use net::{LineId, Place, Trace, Weather};
pub use nexus::{Maker, Nexus, Shape, volume};
pub use place::{Sites, VolumeSite, replica_uuid, volume_uuid};
pub use planner::Temper;
pub use portal::HostEvent;
pub use store::Whims;

/// Tags of commands that are not the planner's have this bit.
pub(crate) const ERRANDS: u64 = 1 << 63;

/// What runs at the nodes and the hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Nexus, guards and pool of a node, and packets between them that are made up.
    #[default]
    Nexus,
    /// Whole shards, and NVMe/TCP over streams of bytes.
    Shard,
}

/// What a cluster is made of, and how its parts behave at first.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where all chance comes from.
    pub seed: u64,
    /// What runs at the nodes.
    pub level: Level,
    /// Nodes.
    pub nodes: u8,
    /// Volumes: bytes, and the nodes of their replicas.
    pub volumes: Vec<(u64, Vec<u8>)>,
    /// Bytes of a node's disk; at least 16 MiB.
    pub disk: u64,
    /// Times of the protocol.
    pub timing: Timing,
    /// What a nexus allocates.
    pub limits: Limits,
    /// A rule that is switched off.
    pub plant: Option<Plant>,
    /// What an engine runs for a volume.
    pub nexus: Maker,
    /// The network.
    pub weather: Weather,
    /// The disks.
    pub pace: Pace,
    /// The store.
    pub whims: Whims,
    /// The planner.
    pub temper: Temper,
    /// Who listens.
    pub story: Story,
}

/// What whoever drives a cluster hears of it.
#[derive(Debug)]
pub enum Happened {
    /// Something came to a host.
    Host {
        /// By which line.
        line: LineId,
        /// What.
        event: HostEvent,
    },
    /// A timer of [`Cluster::set_timer`].
    Timer(u64),
    /// A command of a host came to a whole shard.
    Came {
        /// By which line.
        line: LineId,
    },
    /// Something came when nobody waited for it any more.
    Late(Late),
    /// An engine was not told what became of a change of a record.
    Unsure {
        /// The volume.
        volume: usize,
        /// The record as it was to be.
        record: Box<Record>,
    },
    /// An engine answered a host's command; whether the host hears of it is another matter.
    Answered {
        /// By which line it came.
        line: LineId,
        /// As the host gave it.
        tag: u64,
        /// The answer.
        status: Status,
        /// When, and in which epoch.
        trace: Trace,
    },
    /// A replica has cleared marks.
    Cleaned {
        /// Which.
        replica: Uuid,
    },
    /// A replica has carried out a write or a zeroing.
    Changed {
        /// Which.
        replica: Uuid,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// What was written; none: zeros.
        bytes: Option<Rc<[u8]>>,
    },
    /// A volume has something to tell.
    Note {
        /// The engine.
        node: u8,
        /// The volume.
        volume: usize,
        /// What.
        note: Note,
    },
    /// A pool has something to tell.
    Pool {
        /// The node.
        node: u8,
        /// What.
        note: braid_pool::Note,
    },
    /// A command of [`Cluster::command`] ended.
    Ended {
        /// The engine.
        node: u8,
        /// The volume.
        volume: usize,
        /// Of the command.
        tag: u64,
        /// What came of it.
        result: Result<(), Failure>,
    },
    /// A command of [`Cluster::errand`] ended.
    Errand {
        /// The node.
        node: u8,
        /// Of the command.
        number: u64,
        /// What came of it.
        result: Result<(), braid_pool::Failure>,
    },
}

/// What came late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// A host's command, by a line that the host had given up and the engine had not.
    Command,
    /// A write of an owner, when its replica had been fenced since.
    Write {
        /// By the same owner in the same epoch: it has returned.
        same_epoch: bool,
    },
}

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    clock: Clock,
    net: Net,
    store: Store,
    planner: Planner,
    nodes: Vec<Node>,
    sites: Sites,
    hosts: BTreeMap<LineId, HostLine>,
    /// Machines of hosts, where whole shards run.
    machines: BTreeMap<u8, Machine>,
    out: VecDeque<Happened>,
    /// Chance of whoever drives, apart from that of the cluster.
    errands: u64,
    /// Volumes that are being made of snapshots.
    births: Vec<clone::Birth>,
}

impl ClusterConfig {
    /// Three nodes with one volume on all of them, as they behave on a good day.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            level: Level::default(),
            nodes: 3,
            volumes: vec![(4 << 20, vec![0, 1, 2])],
            disk: 32 << 20,
            timing: Timing::default(),
            limits: Limits::default(),
            plant: None,
            nexus: volume,
            weather: Weather::default(),
            pace: Pace::default(),
            whims: Whims::default(),
            temper: Temper::default(),
            story: Story::Silent,
        }
    }
}

impl Cluster {
    /// A cluster whose engines start now; its volumes are new, and nobody owns them.
    #[must_use]
    pub fn new(config: ClusterConfig) -> Self {
        let mut sites = Sites::default();
        for (volume, (bytes, nodes)) in config.volumes.iter().enumerate() {
            let replicas = nodes.iter().map(|node| (replica_uuid(volume, *node), *node)).collect();
            let uuid = volume_uuid(volume);
            sites.volumes.push(VolumeSite { uuid, bytes: *bytes, replicas });
        }
        let mut cluster = Self {
            clock: Clock::new(config.seed, config.story),
            net: Net::new(config.weather),
            store: Store::new(config.whims),
            planner: Planner::new(config.seed, config.temper),
            nodes: Vec::new(),
            sites,
            hosts: BTreeMap::new(),
            machines: BTreeMap::new(),
            out: VecDeque::new(),
            errands: ERRANDS,
            births: Vec::new(),
            config,
        };
        let mut instances = BTreeMap::new();
        for number in 0..cluster.config.nodes {
            let (disk, new) = cluster.pool_shape(number).make(1, 0, cluster.sites.of_node(number));
            instances.extend(new);
            cluster.nodes.push(Node::new(Drive::new(number, disk, cluster.config.pace)));
        }
        for volume in 0..cluster.sites.volumes.len() {
            let record = cluster.first_record(volume, &instances);
            cluster.store.put(volume, record);
        }
        for number in 0..cluster.config.nodes {
            cluster.start(number);
        }
        cluster.clock.after(cluster.config.temper.look, Happening::Plan);
        cluster
    }

    fn pool_shape(&self, node: u8) -> PoolShape {
        // Marks are a matter of the pool: it writes them before what they tell of.
        let late = self.config.plant == Some(Plant::MarkAfterData);
        let plant = late.then_some(braid_pool::Plant::MarkLate);
        PoolShape { node, seed: self.config.seed, bytes: self.config.disk, plant }
    }

    /// The record of a new volume: all its replicas are members.
    fn first_record(&self, volume: usize, instances: &BTreeMap<Uuid, u64>) -> Record {
        let site = &self.sites.volumes[volume];
        let mut record = Record {
            volume: site.uuid,
            store: self.store.id(),
            version: 1,
            bytes: site.bytes,
            unused: true,
            ..Record::default()
        };
        for (slot, (uuid, _)) in record.slots.iter_mut().zip(&site.replicas) {
            let standing = record::Standing::Member { instance: instances[uuid] };
            *slot = Some(record::Replica { uuid: *uuid, standing });
        }
        record
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.clock.now()
    }

    /// How many things happened, for who measures.
    #[must_use]
    pub const fn happened(&self) -> u64 {
        self.clock.happened()
    }

    /// A number for everything that happened: two runs with the same are the same.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.clock.digest()
    }

    /// Tells a line of the story, at this time.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        self.clock.tell(what);
    }

    /// What happened since it was asked last.
    pub fn poll(&mut self) -> Option<Happened> {
        match self.out.pop_front()? {
            // By a line that the host had given up, which the engine does not know.
            Happened::Came { line } if !self.hosts.contains_key(&line) => {
                Some(Happened::Late(Late::Command))
            }
            happened => Some(happened),
        }
    }

    /// A [`Happened::Timer`] comes then.
    pub fn set_timer(&mut self, at: Instant, number: u64) {
        self.clock.at(at, Happening::Timer(number));
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.clock.peek()
    }

    /// Lets the next thing happen; false if nothing will.
    pub fn step(&mut self) -> bool {
        let Some(what) = self.clock.next() else { return false };
        match what {
            Happening::Packet(packet) => self.deliver(*packet),
            Happening::Disk { node, life, flight } => self.disk_ended(node, life, flight),
            Happening::Arrive { node, life, flight } => {
                let Self { clock, nodes, .. } = self;
                let node = &mut nodes[usize::from(node)];
                if node.life == life {
                    node.drive.arrive(clock, flight);
                }
            }
            Happening::Turn { node, life } => {
                self.of_life(node, life, |node, cx| node.turn(cx));
            }
            Happening::Wake { node, life } => {
                self.of_life(node, life, |node, cx| {
                    if node.is_paused() {
                        return;
                    }
                    let now = cx.clock.now();
                    if let Some(process) = node.process.as_mut().filter(|p| p.is_due(now)) {
                        process.elapse(cx);
                    }
                });
            }
            Happening::Resume { node, pause } => self.resume(node, pause),
            Happening::HostTurn { host } => self.machine_on(host, Machine::turn),
            Happening::HostWake { host } => self.machine_on(host, |at, clock, _| at.wake(clock)),
            Happening::Lapse { line, near, cut } => self.lapse(line, near, cut),
            Happening::Unanswered { line } => self.unanswered(line),
            Happening::Silence { node, life, question } => {
                let input = Input::Silence { question };
                self.of_life(node, life, |node, cx| node.take(cx, input));
            }
            Happening::Exit { node, life } => {
                if self.nodes[usize::from(node)].life == life {
                    self.crash_process(node);
                }
            }
            Happening::Beat { node, life } => self.beat(node, life),
            Happening::Plan => {
                self.births_on();
                let Self { clock, net, store, planner, sites, .. } = self;
                planner.look(clock, net, store, sites);
                let delay = planner.temper.look;
                clock.after(delay, Happening::Plan);
            }
            Happening::Timer(number) => self.out.push_back(Happened::Timer(number)),
        }
        true
    }

    /// Steps until then.
    pub fn run_until(&mut self, until: Instant) {
        while self.clock.peek().is_some_and(|at| at <= until) {
            self.step();
        }
        self.clock.pass(until);
    }

    /// Steps until a node's replicas are served; false if they never are.
    pub fn run_until_ready(&mut self, node: u8) -> bool {
        while !self.is_ready(node) {
            if !self.is_running(node) || !self.step() {
                return false;
            }
        }
        true
    }

    /// Lets a host's machine do something, and tells what came to the host.
    fn machine_on(&mut self, host: u8, work: impl FnOnce(&mut Machine, &mut Clock, &mut Net)) {
        let Self { clock, net, machines, .. } = self;
        let Some(machine) = machines.get_mut(&host) else { return };
        work(machine, clock, net);
        for (line, event) in machine.take_events() {
            self.host_hears(host, line, event);
        }
    }

    /// Works on a node with what its process sees.
    fn with<R>(&mut self, node: u8, work: impl FnOnce(&mut Node, &mut Context<'_>) -> R) -> R {
        let Self { clock, net, sites, out, nodes, config, store, .. } = self;
        let at = &mut nodes[usize::from(node)];
        let mut cx = Context {
            clock,
            net,
            sites,
            out,
            node,
            life: at.life,
            timing: config.timing,
            plant: config.plant,
            patience: store.whims.patience,
        };
        work(at, &mut cx)
    }

    /// Whether a node's process has the far end of a line.
    fn has(&self, node: u8, line: LineId) -> bool {
        let process = self.nodes[usize::from(node)].process.as_ref();
        process.is_some_and(|process| process.has(line, false))
    }

    /// The same, if its process is still that one.
    fn of_life(&mut self, node: u8, life: u64, work: impl FnOnce(&mut Node, &mut Context<'_>)) {
        if self.nodes[usize::from(node)].life == life {
            self.with(node, work);
        }
    }

    fn disk_ended(&mut self, node: u8, life: u64, flight: crate::disk::Flight) {
        self.of_life(node, life, |node, cx| {
            let Some(process) = &mut node.process else { return };
            let ended = node.drive.end(cx.clock, process.memory(), life, flight);
            if let Some((token, result)) = ended {
                node.take(cx, Input::Disk(token, result));
            }
        });
    }

    fn beat(&mut self, node: u8, life: u64) {
        let delay = self.planner.temper.beat;
        self.of_life(node, life, |at, cx| {
            if let Some(process) = at.process.as_ref().filter(|_| !at.is_paused()) {
                process.beat(cx);
            }
            cx.clock.after(delay, Happening::Beat { node, life });
        });
    }

    fn deliver(&mut self, packet: Packet) {
        let Some(packet) = self.net.passes(packet) else { return };
        match packet.to {
            Place::Node(node) => self.at_node(node, packet),
            Place::Host(host) if self.config.level == Level::Shard => {
                let Packet { from, body, .. } = packet;
                self.machine_on(host, |at, clock, net| at.take(clock, net, from, body));
            }
            Place::Host(_) => self.at_host(packet),
            Place::Store => self.at_store(packet),
            Place::Planner => self.planner.take(self.clock.now(), packet.from, packet.body),
        }
    }

    fn at_node(&mut self, node: u8, packet: Packet) {
        let request = matches!(packet.body, Body::Frame { frame: Frame::Request { .. }, .. });
        let given_up = |line: &LineId| !self.hosts.contains_key(line) && self.has(node, *line);
        if request && packet.body.line().is_some_and(|line| given_up(&line)) {
            self.out.push_back(Happened::Late(Late::Command));
        }
        self.with(node, |at, cx| {
            if !at.powered {
                return;
            }
            if at.process.is_some() {
                return at.take(cx, Input::Packet(packet));
            }
            // The kernel knows no such socket.
            match packet.body {
                Body::Open { line, .. } => cx.send(packet.from, Body::Refused { line }),
                Body::Frame { line, near, .. } => {
                    cx.send(packet.from, Body::End { line, near: !near });
                }
                _ => {}
            }
        });
    }

    fn at_store(&mut self, packet: Packet) {
        let Self { clock, net, store, .. } = self;
        let Body::Ask { life, volume, question, ask } = packet.body else { return };
        let is_swap = matches!(ask, Ask::Swap { .. });
        if is_swap && clock.once_in(store.whims.lose_request_in) {
            return clock.tell(|| format!("store: a request of {} is lost", packet.from));
        }
        if is_swap && clock.once_in(store.whims.late_in) {
            clock.tell(|| format!("store: a request of {} comes late", packet.from));
            let delay = clock.spread(store.whims.late);
            let body = Body::Ask { life, volume, question, ask };
            return clock.after(delay, Happening::Packet(Box::new(Packet { body, ..packet })));
        }
        let Some(told) = store.ask(clock, volume, &ask) else { return };
        if clock.once_in(store.whims.lose_answer_in) {
            return clock.tell(|| format!("store: the answer to {} is lost", packet.from));
        }
        net.send(clock, Place::Store, packet.from, Body::Tell { life, question, told });
    }

    fn lapse(&mut self, line: LineId, near: bool, cut: Option<u64>) {
        // Shards find out by themselves.
        if self.config.level == Level::Shard {
            return;
        }
        for node in 0..self.config.nodes {
            let ends = self.nodes[usize::from(node)].process.as_ref().map(|p| p.peer(line, near));
            let Some(peer) = ends.flatten() else { continue };
            if cut.is_none_or(|cut| self.net.is_cut(Place::Node(node), peer, cut)) {
                self.with(node, |at, cx| at.take(cx, Input::Lost { line, near }));
            }
            return;
        }
        let Some(HostLine { host, node, .. }) = self.hosts.get(&line).copied().filter(|_| near)
        else {
            return;
        };
        let (host, node) = (Place::Host(host), Place::Node(node));
        if cut.is_none_or(|cut| self.net.is_cut(host, node, cut)) {
            self.net.forsake(&mut self.clock, line, false);
            self.host_lost(line);
        }
    }

    fn unanswered(&mut self, line: LineId) {
        if let Some(known) = self.hosts.get(&line) {
            if !known.up {
                self.host_lost(line);
            }
            return;
        }
        let mut machines = self.machines.iter();
        if let Some((host, _)) = machines.find(|(_, machine)| machine.is_connecting(line)) {
            return self.machine_on(*host, |at, clock, _| at.unanswered(clock, line));
        }
        for node in 0..self.config.nodes {
            let opening = |process: &Running| process.is_opening(line);
            if self.nodes[usize::from(node)].process.as_ref().is_some_and(opening) {
                return self.with(node, |at, cx| at.take(cx, Input::Unanswered(line)));
            }
        }
    }

    /// Gives a command of the management to an engine; its tag, if there is a process. It ends
    /// with [`Happened::Ended`] unless the process dies.
    pub fn command(&mut self, node: u8, volume: usize, command: Command) -> Option<u64> {
        self.errands += 1;
        let tag = self.errands;
        self.clock.tell(|| format!("n{node} v{volume} shall {command:?} ({tag:x})"));
        let body = Body::Order { volume, tag, command };
        let packet = Packet { from: Place::Planner, to: Place::Node(node), body };
        self.nodes[usize::from(node)].process.as_ref()?;
        self.with(node, |at, cx| at.take(cx, Input::Packet(packet)));
        Some(tag)
    }

    /// A name of an owner that was never used.
    pub fn new_owner(&mut self) -> Uuid {
        self.planner.new_owner()
    }

    /// A command to a node's pool; its number, if there is a process with an open pool. It ends
    /// with [`Happened::Errand`] unless the process dies.
    pub fn errand(&mut self, node: u8, command: braid_pool::Command) -> Option<u64> {
        self.errands += 1;
        let number = self.errands;
        self.with(node, |at, cx| {
            let process = at.process.as_mut().filter(|process| process.is_ready())?;
            process.errand(cx, number, command);
            Some(number)
        })
    }

    /// What is where.
    #[must_use]
    pub const fn sites(&self) -> &Sites {
        &self.sites
    }

    /// The record of a volume, as the store has it.
    #[must_use]
    pub fn record(&self, volume: usize) -> Option<&Record> {
        self.store.record(volume)
    }

    /// The identity of the store that there is.
    #[must_use]
    pub const fn store_id(&self) -> Uuid {
        self.store.id()
    }

    /// Whether a replica has a copy of a record that is newer than the store's.
    #[must_use]
    pub fn knows_less(&self) -> bool {
        self.sites.volumes.iter().enumerate().any(|(volume, site)| {
            let stored =
                self.record(volume).map_or((0, 0), |record| (record.epoch, record.version));
            let copies = site.replicas.iter().filter_map(|(uuid, _)| self.replica(uuid)?.1);
            copies.into_iter().any(|kept| kept.copy.newer_than(stored.0, stored.1))
        })
    }

    /// Every state that the store ever had: volume, and record.
    #[must_use]
    pub fn commits(&self) -> &[(usize, Record)] {
        self.store.log()
    }

    /// How a node's engine stands to a volume; none without a process.
    #[must_use]
    pub fn view(&self, node: u8, volume: usize) -> Option<View> {
        self.nodes[usize::from(node)].process.as_ref()?.view(volume)
    }

    /// What a node's engine copies for a volume from member to member.
    #[must_use]
    pub fn copies(&self, node: u8, volume: usize) -> Vec<Copying> {
        let process = self.nodes[usize::from(node)].process.as_ref();
        process.map_or_else(Vec::new, |process| process.copies(volume))
    }

    /// Whether hosts may use a node's path to a volume.
    #[must_use]
    pub fn is_optimized(&self, node: u8, volume: usize) -> bool {
        let process = self.nodes[usize::from(node)].process.as_ref();
        process.is_some_and(|process| process.is_optimized(volume))
    }

    /// Where a replica's guard stands, and the copy of the record that its pool has; none while
    /// its process is not ready.
    #[must_use]
    pub fn replica(&self, replica: &Uuid) -> Option<(guard::View, Option<guard::Kept>)> {
        let node = self.sites.node_of(replica)?;
        let process = self.nodes[usize::from(node)].process.as_ref()?;
        process.replica(replica)
    }

    /// What a process would find on a node's disk if it were started now: every replica and
    /// snapshot, its blocks and marks. None if no pool could be opened.
    #[must_use]
    pub fn look(&self, node: u8) -> Option<Vec<Layer>> {
        let at = &self.nodes[usize::from(node)];
        self.pool_shape(node).look(at.drive.disk.current(), at.boot, at.life + 1)
    }

    /// The same after a power cut that takes everything with it that is not durable.
    #[must_use]
    pub fn look_durable(&self, node: u8) -> Option<Vec<Layer>> {
        let at = &self.nodes[usize::from(node)];
        self.pool_shape(node).look(at.drive.disk.durable(), at.boot + 1, at.life + 1)
    }

    /// What is not as it must be in a node's pool, as it would be found now.
    #[must_use]
    pub fn check(&self, node: u8) -> Vec<String> {
        let at = &self.nodes[usize::from(node)];
        self.pool_shape(node).check(at.drive.disk.current(), at.boot, at.life + 1)
    }

    /// Whether a node has a process whose pool is open.
    #[must_use]
    pub fn is_ready(&self, node: u8) -> bool {
        let process = self.nodes[usize::from(node)].process.as_ref();
        process.is_some_and(Running::is_ready)
    }

    /// Whether a node has a process.
    #[must_use]
    pub fn is_running(&self, node: u8) -> bool {
        self.nodes[usize::from(node)].process.is_some()
    }

    /// Packets sent so far.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.net.packets()
    }

    /// What a node's engine is told of a volume.
    fn nexus_shape(&self, node: u8, volume: usize) -> Shape {
        let site = &self.sites.volumes[volume];
        let near = site.replicas.iter().find(|(_, at)| *at == node);
        Shape {
            volume: site.uuid,
            bytes: site.bytes,
            near: near.map(|(uuid, _)| *uuid),
            timing: self.config.timing,
            limits: self.config.limits,
            plant: self.config.plant,
        }
    }

    /// Starts a process on a node.
    fn start(&mut self, number: u8) {
        let shape = self.pool_shape(number);
        let volumes: Vec<Shape> =
            (0..self.sites.volumes.len()).map(|volume| self.nexus_shape(number, volume)).collect();
        let ClusterConfig { seed, level, nexus: maker, .. } = self.config;
        let beat = self.planner.temper.beat;
        self.with(number, |at, cx| {
            let pool = shape.config(at.boot, at.life);
            let process = match level {
                Level::Nexus => {
                    let mut engines = Engines::new();
                    volumes.into_iter().for_each(|shape| engines.add(maker, shape));
                    Running::Parts(Box::new(Process::new(Pool::open(pool), engines)))
                }
                Level::Shard => {
                    let outset = Outset { node: number, seed, pool, volumes };
                    Running::Shard(Box::new(Engine::new(cx, outset)))
                }
            };
            at.start(cx, process);
            let life = at.life;
            let delay = Duration::from_nanos(cx.clock.random.below(1 + beat.as_nanos() as u64));
            cx.clock.after(delay, Happening::Beat { node: number, life });
        });
    }
}
