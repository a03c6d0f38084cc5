//! One core's world: connections, commands and backends as one state machine.
//!
//! A shell calls [`Shard::handle`] with what happened, [`Shard::end_turn`] when the turn's events
//! are through, then [`Shard::poll_effect`] until it is empty, and waits no longer than
//! [`Shard::poll_timeout`] says.
//!
//! The flows, a file each: `greeting` makes a stream a queue, `stream` takes commands from it,
//! `command` gives them an op and a buffer, `device` and `admin` carry them out, `reply` sends
//! what came of it, `life` ends connections and controllers; `pool` drives the pools of replicas,
//! `replica` asks them for what commands need; `mirror` serves volumes over replicas here and at
//! other engines, and the replicas to other engines; `sharing` adds and removes subsystems;
//! `authentication` has hosts prove who they are.
//!
//! Invariants:
//! 1. A token's entry stays until its `Done` came, so that a late one is recognised.
//! 2. Every lease has one owner: an op, a batch, a piece of input, a connection, the admin pool.
//! 3. A command is answered exactly once, or its connection is closed.
//! 4. Blocks that a dead association may still change are not given to its host's next one.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod admin;
mod ana;
mod authentication;
mod backend;
mod check;
mod command;
mod config;
mod conn;
mod counters;
mod deadline;
mod device;
mod directory;
mod disk_fault;
mod effect;
mod event;
mod fused;
mod greeting;
mod host;
mod inject;
mod life;
mod mail;
mod memory;
mod mirror;
mod note;
mod op;
mod outbox;
mod overlay;
mod pool;
mod receive;
mod replica;
mod reply;
mod reservation;
mod shares;
mod sharing;
mod stream;
mod subsystem;
mod token;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Class, Instant, Key, Lease, LeaseId, Memory, Slab, Span, Sums, Token};
use braid_nvme::connect::Nqn;
use braid_nvme::target::{ControllerModel, Kind};
use braid_nvme::{DISCOVERY_NQN, FABRICS_IN_CAPSULE_BYTES};

pub use ana::{AnaChange, AnaInfo};
pub use config::{BackendConfig, Config, Limits, NamespaceConfig, Paths, SubsystemConfig};
pub use counters::{Counters, NamespaceCounters};
pub use directory::Elsewhere;
pub use effect::{Effect, Traffic};
pub use event::{Disk, Event, Socket};
pub use host::HostConfig;
pub use inject::{Fault, Injection};
pub use mail::Mail;
pub use mirror::{
    Deed, MemberInfo, News, Question, Rehearsal, SNAPSHOT_PREFIX, Told, VolumeConfig, member_nqn,
};
pub use note::{Limit, Note, Operation, Why};
pub use pool::{Latency, POOLS_MAX, PoolId};
pub use sharing::{NamespaceInfo, NamespaceKind};

use authentication::Keyring;
use conn::Conn;
use deadline::Deadlines;
use host::Hosts;
use memory::{ADMIN_LEASES, Spare};
use mirror::{Members, Volumes};
use op::Op;
use outbox::Outbox;
use pool::Pools;
use shares::Shares;
use subsystem::Subsystem;

/// How often connections that are sending are looked after.
const SWEEP: Duration = Duration::from_secs(1);

/// Commands put off that go on in one turn, so that many of them make no turn long.
const UNFINISHED_PER_TURN: usize = 8;

/// One core's world.
pub struct Shard {
    config: Config,
    /// The discovery subsystem first, then those of the configuration that are at home here.
    subsystems: Vec<Subsystem>,
    /// The names of the configuration's subsystems, in its order.
    names: Vec<Nqn>,
    /// What else discovery tells of.
    elsewhere: Vec<Elsewhere>,
    /// The keys of hosts.
    keyring: Keyring,
    /// Namespaces that were detached and are not gone.
    detaching: usize,
    /// Of these, how many there were from the start.
    fixed: usize,
    /// Subsystems that were removed and are not gone.
    leaving: usize,
    pools: Pools,
    members: Members,
    volumes: Volumes,
    conns: Slab<Conn>,
    hosts: Hosts,
    ops: Slab<Op>,
    outbox: Outbox,
    shares: Shares,
    deadlines: Deadlines,
    counters: Counters,
    /// Connections whose batch is to be launched.
    dirty: Vec<Key>,
    /// Connections with input left from an earlier turn.
    runnable: VecDeque<Key>,
    /// Connections whose capsule waits for a buffer.
    starving: VecDeque<Key>,
    /// Connections that wait for an older association of their host to drain.
    held: VecDeque<Key>,
    /// Ops that wait for a buffer.
    waiting: VecDeque<Key>,
    /// Ops that go on in the next turn.
    unfinished: VecDeque<Key>,
    admin_leases: Vec<Lease>,
    /// Names of all of them.
    admin_names: Vec<LeaseId>,
    /// Last resorts: of commands of hosts, of nexuses.
    spares: [Spare; 2],
    /// Bytes of buffers that commands hold.
    pinned: u64,
    /// A buffer came free, or room in a batch, since those who wait were last served.
    freed: bool,
    /// A controller is gone since the held connections were last looked at.
    buried: bool,
    /// The op whose payload its connection has just handed over.
    summed: Option<Key>,
    /// Kept, so that summing allocates nothing.
    #[expect(clippy::vec_box, reason = "they go to pools and come back as they are")]
    sums: Vec<Box<Sums>>,
    /// A sweep is due.
    sweeping: bool,
    /// Controllers may have something to tell their hosts unasked.
    events: bool,
    stopping: bool,
    /// That nothing is left after a stop was told.
    drained: bool,
    /// The time of the last event.
    now: Instant,
    started: Instant,
    /// GENCTR: changes of what discovery tells.
    generation: u64,
    /// Number of the turn, and commands taken in it.
    turn: u64,
    taken: u32,
    /// The last connection that gave only a command or two in a turn, and in which.
    quiet: Option<(Key, u64)>,
}

/// A controller, as logs and metrics name it.
#[derive(Clone, Copy, Debug)]
pub struct ControllerInfo<'a> {
    /// Its subsystem.
    pub subnqn: &'a str,
    /// Its id.
    pub cntlid: u16,
    /// Its host.
    pub hostnqn: &'a str,
    /// I/O queues that are connected.
    pub io_queues: u16,
}

impl Shard {
    /// A shard that serves what the configuration gives it a home for.
    ///
    /// # Panics
    /// If an NQN of the configuration is none, or in-capsule data would not fit a connection's
    /// own buffer: the shell checks them.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let limits = config.limits;
        let in_capsule = FABRICS_IN_CAPSULE_BYTES..=Class::Medium.bytes();
        assert!(in_capsule.contains(&limits.in_capsule_bytes), "in-capsule data out of bounds");
        let here = config.subsystems.iter().filter(|s| s.home == config.shard);
        let mut subsystems = alloc::vec![subsystem(Kind::Discovery, &discovery(), &config)];
        subsystems.extend(here.map(|s| subsystem(Kind::Io, s, &config)));
        let conns = usize::try_from(limits.connections_max).unwrap_or(usize::MAX);
        let ops = usize::try_from(limits.ops_max).unwrap_or(usize::MAX);
        Self {
            subsystems,
            conns: Slab::with_capacity(limits.connections_max),
            hosts: Hosts::new(limits.connections_max),
            ops: Slab::with_capacity(limits.ops_max),
            outbox: Outbox::new(usize::try_from(limits.effects_max).unwrap_or(usize::MAX)),
            shares: Shares::default(),
            deadlines: Deadlines::with_capacity(2 * conns),
            counters: Counters::default(),
            dirty: Vec::with_capacity(conns),
            runnable: VecDeque::with_capacity(conns),
            starving: VecDeque::with_capacity(conns),
            held: VecDeque::new(),
            waiting: VecDeque::with_capacity(ops),
            unfinished: VecDeque::with_capacity(ops),
            admin_leases: Vec::with_capacity(ADMIN_LEASES),
            admin_names: Vec::with_capacity(ADMIN_LEASES),
            spares: [const { Spare::new(Class::Large) }; 2],
            pinned: 0,
            freed: false,
            buried: false,
            summed: None,
            sums: Vec::new(),
            sweeping: false,
            events: false,
            stopping: false,
            drained: false,
            now: Instant::ZERO,
            started: Instant::ZERO,
            generation: 1,
            elsewhere: Vec::new(),
            keyring: Keyring::default(),
            names: config.subsystems.iter().map(|s| name(&s.nqn)).collect(),
            fixed: config.subsystems.len(),
            leaving: 0,
            detaching: 0,
            pools: Pools::new(),
            members: Members::new(),
            volumes: Volumes::new(),
            turn: 0,
            taken: 0,
            quiet: None,
            config,
        }
    }

    /// Takes one event.
    pub fn handle<M: Memory>(&mut self, mem: &mut M, now: Instant, event: Event) {
        self.now = now;
        match event {
            Event::Start { seed, .. } => {
                self.hosts.seed(seed);
                self.on_start(mem, now);
            }
            Event::Accepted { listener, socket, local } => {
                self.on_accepted(mem, now, listener, socket, local);
            }
            Event::Received { token, lease, len } => match token.kind() {
                token::HOST_RECEIVE => self.on_host_received(mem, now, token.key(), lease, len),
                _ => self.on_received(mem, now, token.key(), lease, len),
            },
            Event::Done { token, result } => self.on_done(mem, now, token, result),
            Event::Elapsed => self.on_elapsed(mem, now),
            Event::Mail(mail) => self.on_mail(mem, now, *mail),
        }
    }

    /// Ends a turn: goes on with what was put off for fairness or for want of a buffer, and hands
    /// filled batches to be sent.
    pub fn end_turn<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.now = now;
        self.turn += 1;
        self.taken = 0;
        if core::mem::take(&mut self.buried) {
            self.resume_held(mem, now);
        }
        self.serve_waiting(mem, now);
        for _ in 0..self.unfinished.len().min(UNFINISHED_PER_TURN) {
            if let Some(key) = self.unfinished.pop_front() {
                self.proceed(mem, key);
            }
        }
        for _ in 0..self.runnable.len() {
            let Some(key) = self.runnable.pop_front() else { break };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.runnable = false;
                if conn.is_reading() {
                    self.mark_dirty(key);
                    self.run(mem, now, key);
                }
            }
        }
        self.keep_spares(mem);
        self.members_end_turn(mem);
        self.volumes_end_turn(mem);
        self.pools_end_turn(mem, now);
        if core::mem::take(&mut self.events) {
            self.tell_all_events(mem);
        }
        if self.has_left() {
            self.bury_subsystems();
        }
        if self.detaching > 0 {
            self.bury_namespaces();
        }
        self.launch(mem, now);
        self.hosts_end_turn(mem, now);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.outbox.pop()
    }

    /// When [`Event::Elapsed`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = [self.deadlines.next(), self.hosts.deadline(), self.pools.deadline()];
        let mirror = [self.members.deadline(), self.volumes.deadline()];
        own.into_iter().chain(mirror).flatten().min()
    }

    /// Whether a turn would find work even if nothing happens: the shell must not wait.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let waiting = self.freed && !(self.waiting.is_empty() && self.starving.is_empty());
        // Who waits for an op's entry goes on when one ends, which something else must tell.
        let runs = self.runnable.iter().any(|key| self.has_op_for(*key));
        let put_off = runs || !self.unfinished.is_empty();
        let told = self.buried || self.events || self.has_left();
        let mirror = self.members.has_work() || self.volumes.has_work();
        waiting || put_off || told || mirror || self.hosts.has_work() || self.pools.has_work()
    }

    /// The bytes of a batch that [`Effect::Send`] names, in order, at most 64 pieces.
    #[must_use]
    pub fn batch(&self, batch: u32) -> &[Span] {
        if batch >= host::BATCHES {
            return self.hosts.batch(batch - host::BATCHES);
        }
        let conn = self.conns.key_at(batch).and_then(|key| self.conns.get(key));
        conn.map_or(&[], |conn| conn.transmit.spans())
    }

    /// Begins an orderly stop: nothing new is accepted, commands in flight finish, hosts see an
    /// orderly close, then pools are stopped. [`Note::Drained`] tells the end.
    pub fn stop<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if core::mem::replace(&mut self.stopping, true) {
            return;
        }
        self.hosts_stop(mem, now);
        self.end_all(mem, now);
        self.tell_drained();
    }

    /// Gives back what the shard keeps all its life, for a shell that ends after
    /// [`Note::Drained`].
    pub fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        self.drop_kept(mem);
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What was counted of each namespace at home here: its subsystem, its id, its counts.
    pub fn namespace_counters(&self) -> impl Iterator<Item = (&str, u32, &NamespaceCounters)> {
        self.subsystems.iter().flat_map(|subsystem| {
            let nqn = subsystem.nqn.as_str();
            let served = subsystem.order.iter().map(|at| &subsystem.namespaces[usize::from(*at)]);
            served.map(move |n| (nqn, n.nsid, &n.counters))
        })
    }

    /// A controller that a note names.
    #[must_use]
    pub fn controller(&self, subsystem: u16, key: Key) -> Option<ControllerInfo<'_>> {
        let subsystem = self.subsystems.get(usize::from(subsystem))?;
        subsystem.controllers.get(key).map(|association| info(subsystem, association))
    }

    /// The name of a subsystem that a note names.
    #[must_use]
    pub fn subsystem_name(&self, subsystem: u16) -> Option<&str> {
        self.subsystems.get(usize::from(subsystem)).map(|subsystem| subsystem.nqn.as_str())
    }

    /// All controllers at home here.
    pub fn controllers(&self) -> impl Iterator<Item = ControllerInfo<'_>> {
        self.subsystems.iter().flat_map(|subsystem| {
            subsystem.controllers.iter().map(move |(_, a)| info(subsystem, a))
        })
    }

    /// Connections there are.
    #[must_use]
    pub const fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Reminders that are set: a few for each connection and each controller.
    #[must_use]
    pub fn reminders(&self) -> usize {
        self.deadlines.len()
    }

    /// Commands in work.
    #[must_use]
    pub const fn ops(&self) -> usize {
        self.ops.len()
    }

    /// Replaces the faults that a namespace injects; operations that an older one stalls go on.
    /// False if it is not at home here.
    pub fn set_injections(&mut self, subnqn: &str, nsid: u32, injections: &[Injection]) -> bool {
        let found = self.subsystems.iter().position(|s| s.is_served_as(subnqn));
        let Some(at) = found else { return false };
        let Some(namespace) = self.subsystems[at].position(nsid) else { return false };
        self.replace_injections(at, usize::from(namespace), injections);
        true
    }

    fn on_start<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.started = now;
        self.keep_admin_leases(mem);
    }

    fn on_done<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        token: Token,
        result: Result<u32, braid_block::IoError>,
    ) {
        match token.kind() {
            token::RECEIVE => self.on_receive_done(mem, now, token.key(), result),
            token::SEND => self.on_sent(mem, token.key(), result),
            token::OP => self.on_device_done(mem, token.key(), result),
            token::HOST_CONNECT => self.on_host_connected(mem, now, token.key(), result),
            token::HOST_RECEIVE => self.on_host_ended(mem, now, token.key(), result),
            token::HOST_SEND => self.on_host_sent(mem, now, token.key(), result),
            kind if kind >= token::POOLS => self.pools.on_done(mem, now, token, result),
            _ => {}
        }
    }

    fn note(&mut self, note: Note) {
        self.outbox.emit(Effect::Note(note));
    }
}

/// The discovery subsystem, as if it had been configured.
fn discovery() -> SubsystemConfig {
    SubsystemConfig {
        home: 0,
        nqn: DISCOVERY_NQN.into(),
        serial: "discovery".into(),
        allowed_hosts: Vec::new(),
        controllers: ControllerModel::Dynamic,
        paths: Paths::default(),
        header_digest: true,
        data_digest: true,
        namespaces: Vec::new(),
    }
}

/// One that is there from the start, when no pool is open.
fn subsystem(kind: Kind, config: &SubsystemConfig, all: &Config) -> Subsystem {
    let kept = config.namespaces.iter().map(|n| reservation::first(n.reservations.as_deref()));
    let kept = kept.collect();
    Subsystem::new(kind, config.clone(), kept, name(&config.nqn), all)
}

fn name(nqn: &str) -> Nqn {
    Nqn::parse(nqn).expect("the shell parsed the configuration's NQNs")
}

fn info<'a>(
    subsystem: &'a Subsystem,
    association: &'a subsystem::Association,
) -> ControllerInfo<'a> {
    let queues = association.queues.iter().skip(1).flatten().count();
    ControllerInfo {
        subnqn: subsystem.nqn.as_str(),
        cntlid: association.controller.cntlid(),
        hostnqn: association.controller.hostnqn().as_str(),
        io_queues: u16::try_from(queues).unwrap_or(u16::MAX),
    }
}

impl core::fmt::Debug for Shard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shard")
            .field("shard", &self.config.shard)
            .field("connections", &self.conns.len())
            .field("ops", &self.ops.len())
            .finish_non_exhaustive()
    }
}
