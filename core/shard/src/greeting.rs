//! From an accepted stream to a queue: ICReq, Connect, and the way to the subsystem's home shard.
//!
//! Until Connect is answered only exact lengths are read, so that the connection can move to
//! another shard as a socket and some values, never with bytes.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use braid_block::{Class, Instant, Key, Lease, Memory, Token};
use braid_nvme::command::{Command, Completion, admin, fabrics};
use braid_nvme::connect::{
    AUTHENTICATION_REQUIRED, CONNECT_DATA_BYTES, Connect, ConnectData, Parameter, Refusal,
};
use braid_nvme::pdu::{Digests, InitializeConnection};
use braid_nvme::target::connection::{Capsule, Connection, Step, check_ic_req, ic_resp};
use braid_nvme::target::{Controller, ControllerLimits, Handshake, Kind};
use braid_nvme::transmit::Transmit;
use braid_nvme::{DISCOVERY_NQN, Status};

use crate::authentication::Standing;
use crate::backend::Namespace;
use crate::conn::{Conn, Greeting, Phase, Queue, Role};
use crate::deadline::Reminder;
use crate::effect::Effect;
use crate::event::Socket;
use crate::life::LOOK_AGAIN;
use crate::mail::Mail;
use crate::mirror::Guest;
use crate::note::{Limit, Note, Why};
use crate::receive::{Armed, Receive};
use crate::subsystem::Association;
use crate::{Shard, token};

/// Replies beyond a queue's entries that may wait: event requests and aborts in one moment.
const REPLIES_SPARE: usize = 8;
/// Entries of an admin queue at most.
const ADMIN_ENTRIES_MAX: u32 = 256;

impl Shard {
    /// A peer connected.
    pub(crate) fn on_accepted<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        listener: u16,
        socket: Socket,
        local: Option<Box<SocketAddr>>,
    ) {
        self.counters.accepted += 1;
        if self.stopping {
            return self.outbox.emit(Effect::Close { socket });
        }
        self.note(Note::Accepted { socket, listener });
        let greeting = Greeting {
            connection: Connection::new(),
            held: None,
            agreed: None,
            until: now + self.config.limits.handshake,
        };
        if let Some(key) = self.open(mem, now, listener, socket, Role::Handshake(greeting)) {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.local = local;
            }
            self.arm_exact(key);
        }
    }

    /// A connection came from the shard that accepted it.
    pub(crate) fn on_mail<M: Memory>(&mut self, mem: &mut M, now: Instant, mail: Mail) {
        let Mail::Connection { socket, listener, handshake } = mail;
        if self.stopping {
            return self.outbox.emit(Effect::Close { socket });
        }
        let greeting = Greeting {
            connection: Connection::initialized(handshake.digests),
            held: None,
            agreed: Some((handshake.digests, handshake.data_alignment)),
            until: now + self.config.limits.handshake,
        };
        let Some(key) = self.open(mem, now, listener, socket, Role::Handshake(greeting)) else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(key) {
            conn.transmit.initialize(handshake.digests, handshake.data_alignment);
        }
        self.attach(mem, now, key, &handshake);
    }

    /// Makes an entry for a stream, with the buffers that it always owns.
    fn open<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        listener: u16,
        socket: Socket,
        role: Role,
    ) -> Option<Key> {
        let leases = if self.conns.is_full() { None } else { connection_leases(mem) };
        let Some((reserve, headers)) = leases else {
            let limit = if self.conns.is_full() { Limit::Connections } else { Limit::Memory };
            self.counters.refused += 1;
            self.note(Note::Limit { limit });
            self.outbox.emit(Effect::Close { socket });
            return None;
        };
        let conn = Conn {
            socket,
            listener,
            local: None,
            transmit: Transmit::new(headers),
            receive: Receive::new(),
            own: Some(reserve.id()),
            reserve: Some(reserve),
            role,
            phase: Phase::Open,
            last_seen: now,
            sending_since: now,
            dirty: false,
            runnable: false,
        };
        let key = self.conns.insert(conn).ok()?;
        self.deadlines.remind(now + self.config.limits.handshake, Reminder::Connection(key));
        Some(key)
    }

    /// Asks for exactly what the greeting needs next.
    fn arm_exact(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Role::Handshake(greeting) = &conn.role else { return };
        let Some(reserve) = &conn.reserve else { return };
        let wanted = greeting.connection.wanted().min(Class::Medium.bytes());
        conn.receive.armed = Armed::Exact(wanted);
        let token = Token::new(token::RECEIVE, key);
        let span = reserve.span(0, wanted);
        self.outbox.emit(Effect::ReceiveExact { token, socket: conn.socket, span });
    }

    /// Exactly what was asked for arrived.
    pub(crate) fn greet<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, len: u32) {
        let mut at = 0;
        loop {
            let Some(conn) = self.conns.get_mut(key) else { return };
            let Role::Handshake(greeting) = &mut conn.role else { return };
            let Some(reserve) = &conn.reserve else { return };
            let step = match greeting.connection.step(mem, reserve, at, len) {
                Err(error) => return self.terminate(mem, now, key, error),
                Ok((consumed, step)) => {
                    at += consumed;
                    step
                }
            };
            match step {
                Step::More => return self.arm_exact(key),
                Step::NeedBuffer(_) => match mem.alloc(Class::Medium) {
                    Some(lease) => greeting.connection.provide(lease),
                    None => return self.close(mem, key, Why::Limit(Limit::Memory)),
                },
                Step::Initialize(request) => {
                    if !self.initialize(mem, now, key, &request) {
                        return;
                    }
                }
                Step::Command(capsule) => {
                    if !self.first_command(mem, now, key, capsule) {
                        return;
                    }
                }
                Step::Terminated(fes) => return self.close(mem, key, Why::Terminated(fes)),
                // No transfer was begun.
                Step::Transferred(t) => mem.free(t.lease),
            }
        }
    }

    /// Answers an ICReq. Digests are negotiated before the subsystem is known, so they are
    /// offered only if every subsystem allows them.
    fn initialize<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        request: &InitializeConnection,
    ) -> bool {
        let subsystems = &self.config.subsystems;
        let offered = Digests {
            header: subsystems.iter().all(|s| s.header_digest),
            data: subsystems.iter().all(|s| s.data_digest),
        };
        let (digests, alignment) = match check_ic_req(request, offered) {
            Ok(agreed) => agreed,
            Err(error) => {
                if let Some(Role::Handshake(greeting)) =
                    self.conns.get_mut(key).map(|conn| &mut conn.role)
                {
                    greeting.connection.refuse(request);
                }
                self.terminate(mem, now, key, error);
                return false;
            }
        };
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let Role::Handshake(greeting) = &mut conn.role else { return false };
        conn.transmit.initialize_connection(mem, &ic_resp(digests));
        conn.transmit.initialize(digests, alignment);
        greeting.connection.initialize(digests);
        greeting.agreed = Some((digests, alignment));
        self.mark_dirty(key);
        true
    }

    /// The first command must be Connect; anything else is answered and another try awaited.
    fn first_command<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        capsule: Capsule,
    ) -> bool {
        let parsed = parse_connect(mem, &capsule);
        if let Some(lease) = capsule.data {
            mem.free(lease);
        }
        let agreed = match self.conns.get(key).map(|conn| &conn.role) {
            Some(Role::Handshake(Greeting { agreed: Some(agreed), .. })) => *agreed,
            _ => return false,
        };
        match parsed {
            Ok(connect) => {
                let (digests, data_alignment) = agreed;
                self.route(mem, now, key, Handshake { digests, data_alignment, connect })
            }
            Err(refusal) => {
                self.refuse(mem, key, capsule.command.cid.get(), refusal);
                true
            }
        }
    }

    /// Brings the connection to where its subsystem is served. True: it stays a greeting.
    fn route<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        handshake: Handshake,
    ) -> bool {
        let subnqn = handshake.connect.subnqn;
        let home = if subnqn.as_str() == DISCOVERY_NQN {
            Some(self.config.shard)
        } else {
            self.config.subsystems.iter().find(|s| s.nqn == subnqn.as_str()).map(|s| s.home)
        };
        match home {
            None => {
                let refusal = Refusal::parameter(Parameter::Subsystem);
                self.refuse(mem, key, handshake.connect.cid, refusal);
                true
            }
            Some(home) if home == self.config.shard => {
                self.attach(mem, now, key, &handshake);
                false
            }
            Some(_) => {
                self.hold(key, handshake);
                self.hand_over(mem, key);
                false
            }
        }
    }

    /// Puts a Connect off until what stands in its way is gone.
    fn hold(&mut self, key: Key, handshake: Handshake) {
        if let Some(conn) = self.conns.get_mut(key)
            && let Role::Handshake(greeting) = &mut conn.role
        {
            greeting.held = Some(Box::new(handshake));
        }
    }

    /// Sends a held connection to its home shard, once everything before it has left.
    pub(crate) fn hand_over<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Role::Handshake(Greeting { held: Some(handshake), .. }) = &conn.role else { return };
        let handshake = **handshake;
        let nqn = handshake.connect.subnqn;
        let Some(to) = self.config.subsystems.iter().find(|s| s.nqn == nqn.as_str()) else {
            return;
        };
        let shard = to.home;
        if shard == self.config.shard || !conn.transmit.is_empty() {
            return;
        }
        let (socket, listener) = (conn.socket, conn.listener);
        conn.phase = Phase::Closed;
        let mail = Box::new(Mail::Connection { socket, listener, handshake });
        self.outbox.emit(Effect::Mail { shard, mail });
        self.reap(mem, key);
    }

    /// Goes on with connections that waited for an older association of their host.
    pub(crate) fn resume_held<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        for _ in 0..self.held.len() {
            let Some(key) = self.held.pop_front() else { break };
            let conn = self.conns.get_mut(key).filter(|conn| conn.is_open());
            let held = match conn.map(|conn| &mut conn.role) {
                Some(Role::Handshake(greeting)) => greeting.held.take(),
                Some(Role::Queue(_)) | None => None,
            };
            if let Some(handshake) = held {
                self.attach(mem, now, key, &handshake);
            }
        }
    }

    /// Makes the connection a queue of a subsystem that this shard serves.
    fn attach<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, handshake: &Handshake) {
        let connect = &handshake.connect;
        let found = self.subsystems.iter().position(|s| s.is_served_as(connect.subnqn.as_str()));
        let Some(at) = found else {
            let refusal = Refusal::parameter(Parameter::Subsystem);
            self.refuse(mem, key, connect.cid, refusal);
            return self.arm_exact(key);
        };
        // An old write must not land on a new one: the host's older commands end first.
        if connect.qid == 0 && self.subsystems[at].is_draining(&connect.hostid) {
            self.hold(key, *handshake);
            return self.held.push_back(key);
        }
        match self.admit(now, at, key, connect) {
            Ok((controller, cntlid)) => {
                self.become_queue(mem, key, at, controller, connect);
                let due = self.asks_for_proof(&self.subsystems[at], &connect.hostnqn);
                self.answer_connect(mem, key, connect, cntlid, due);
                if due {
                    self.expect_proof(now, key);
                }
                self.arm_stream(key);
            }
            Err(refusal) => {
                self.refuse(mem, key, connect.cid, refusal);
                self.arm_exact(key);
            }
        }
    }

    /// Finds or makes the controller for a Connect.
    fn admit(
        &mut self,
        now: Instant,
        at: usize,
        key: Key,
        connect: &Connect,
    ) -> Result<(Key, u16), Refusal> {
        let limits = self.config.limits;
        // A replica of a volume is written by the volume alone.
        let taken = self.is_of_a_volume(at);
        let subsystem = &mut self.subsystems[at];
        // The keys are of hosts that do I/O; other engines know the names of replicas.
        let open = subsystem.kind == Kind::Discovery
            || subsystem.namespaces.iter().any(Namespace::is_member);
        let listed = &subsystem.config.allowed_hosts;
        let known = subsystem.config.admits(&connect.hostnqn)
            && (open || self.keyring.admits(listed, &connect.hostnqn));
        if taken || !known {
            return Err(Refusal::new(Status::CONNECT_INVALID_HOST.dnr()));
        }
        if self.shares.connections(&connect.hostid) >= limits.connections_per_host() {
            self.counters.host_refused += 1;
            self.note(Note::Limit { limit: Limit::HostConnections });
            return Err(Refusal::new(Status::CONNECT_CONTROLLER_BUSY));
        }
        let subsystem = &mut self.subsystems[at];
        if connect.qid != 0 {
            let wrong = Refusal::parameter(Parameter::ControllerId);
            let found = subsystem.by_cntlid(connect.cntlid).ok_or(wrong)?;
            let association = subsystem.controllers.get_mut(found).ok_or(wrong)?;
            if association.dying {
                return Err(wrong);
            }
            // A controller is of the port that its host came by (Base 3.1.1).
            if self.conns.get(key).is_none_or(|conn| conn.listener != association.listener) {
                return Err(Refusal::parameter(Parameter::QueueId));
            }
            association.controller.admit(connect)?;
            // An old write of a queue that broke must not land on a new one. The host may try
            // again: without DNR.
            let closed =
                |conn: Key| self.conns.get(conn).is_none_or(|conn| conn.phase == Phase::Closed);
            let mut ops = self.ops.iter().map(|(_, op)| op);
            if ops.any(|op| {
                (usize::from(op.subsystem), op.controller) == (at, found) && closed(op.conn)
            }) {
                association.controller.leave(connect.qid);
                return Err(Refusal::new(Status::SEQUENCE_ERROR));
            }
            association.set_queue(connect.qid, Some(key));
            association.last_seen = now;
            return Ok((found, connect.cntlid));
        }
        if connect.entries > ADMIN_ENTRIES_MAX {
            return Err(Refusal::parameter(Parameter::QueueSize));
        }
        let cntlid = subsystem.choose_cntlid(connect)?;
        let limits = ControllerLimits {
            queue_entries: limits.queue_entries_max,
            io_queues: limits.io_queues_max,
            in_capsule_bytes: limits.in_capsule_bytes,
        };
        let listener = self.conns.get(key).map_or(0, |conn| conn.listener);
        let mut controller = Controller::new(subsystem.kind, cntlid, connect, limits);
        if subsystem.ana.is_optimized(listener) {
            controller.saw_epoch(subsystem.ana.epoch);
        }
        let association = Association {
            controller,
            queues: alloc::vec![Some(key)],
            ops: 0,
            listener,
            dying: false,
            settle: false,
            unsettled: false,
            flushers: Vec::new(),
            look: now + LOOK_AGAIN,
            last_seen: now,
            guest: Guest::default(),
            line: None,
        };
        let patience = association.patience().unwrap_or(LOOK_AGAIN);
        let association = Association { look: now + patience, ..association };
        let busy = Refusal::new(Status::CONNECT_CONTROLLER_BUSY);
        let controller = subsystem.controllers.insert(association).map_err(|_| busy)?;
        // Who has to prove itself first is nobody's host before.
        let due = self.asks_for_proof(&self.subsystems[at], &connect.hostnqn);
        let guest = if due { Guest::default() } else { self.guest_connected(at, controller) };
        if let Some(association) = self.subsystems[at].controllers.get_mut(controller) {
            association.guest = guest;
        }
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        self.deadlines.remind(now + patience, Reminder::Controller(at, controller));
        Ok((controller, cntlid))
    }

    fn become_queue<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        at: usize,
        controller: Key,
        connect: &Connect,
    ) {
        let discovery = self.subsystems[at].kind == Kind::Discovery;
        let member = self.subsystems[at].namespaces.iter().any(Namespace::is_member);
        let due = self.asks_for_proof(&self.subsystems[at], &connect.hostnqn);
        let in_capsule = self.config.limits.in_capsule_bytes;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Role::Handshake(greeting) = &mut conn.role else { return };
        let share = self.shares.enter(&connect.hostid);
        let mut connection = core::mem::take(&mut greeting.connection);
        let tags = if discovery { 4 } else { connect.entries };
        connection.open_queue(u16::try_from(tags).unwrap_or(u16::MAX), in_capsule);
        let entries = usize::try_from(connect.entries).unwrap_or(usize::MAX);
        conn.role = Role::Queue(Queue {
            connection,
            subsystem: u16::try_from(at).unwrap_or(u16::MAX),
            controller,
            qid: connect.qid,
            entries: connect.entries,
            sqhd: 0,
            flow_control: connect.flow_control,
            outstanding: 0,
            replies: VecDeque::with_capacity(entries + REPLIES_SPARE),
            pinned: 0,
            share,
            member,
            first: None,
            standing: Standing::new(due),
            starving: false,
            abandoner: None,
            turn: 0,
            taken: 0,
        });
        let socket = conn.socket;
        if conn.reserve.is_none() {
            conn.reserve = mem.alloc(Class::Medium);
            conn.own = conn.reserve.as_ref().map(Lease::id);
        }
        let subsystem = u16::try_from(at).unwrap_or(u16::MAX);
        self.note(Note::QueueConnected { socket, subsystem, controller, queue: connect.qid });
    }

    fn answer_connect<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        connect: &Connect,
        cntlid: u16,
        due: bool,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let result = u64::from(cntlid) | if due { AUTHENTICATION_REQUIRED } else { 0 };
        let mut completion = Completion::new(connect.cid, Status::SUCCESS, result);
        if !connect.flow_control {
            completion.sqhd.set(u16::MAX);
        }
        conn.transmit.response(mem, &completion);
        self.mark_dirty(key);
    }

    /// Answers a Connect, or what came in its place, with a refusal. The host may try again.
    fn refuse<M: Memory>(&mut self, mem: &mut M, key: Key, cid: u16, refusal: Refusal) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !conn.transmit.has_room(mem) {
            return self.close(mem, key, Why::Limit(Limit::Memory));
        }
        let completion = Completion::new(cid, refusal.status, u64::from(refusal.result));
        conn.transmit.response(mem, &completion);
        let socket = conn.socket;
        self.mark_dirty(key);
        self.counters.connects_refused += 1;
        self.note(Note::ConnectRefused { socket, status: refusal.status });
    }
}

/// The buffers that a connection always owns: one for input, two for headers to be sent.
fn connection_leases<M: Memory>(mem: &mut M) -> Option<(Lease, [Lease; 2])> {
    let reserve = mem.alloc(Class::Medium)?;
    let Some(first) = mem.alloc(Class::Small) else {
        mem.free(reserve);
        return None;
    };
    let Some(second) = mem.alloc(Class::Small) else {
        mem.free(reserve);
        mem.free(first);
        return None;
    };
    Some((reserve, [first, second]))
}

/// Parses the first command of a connection, which must be Connect with its data.
fn parse_connect<M: Memory>(mem: &M, capsule: &Capsule) -> Result<Connect, Refusal> {
    if !is_connect(&capsule.command) {
        return Err(Refusal::new(Status::SEQUENCE_ERROR.dnr()));
    }
    if !capsule.intact {
        return Err(Refusal::new(Status::TRANSIENT_TRANSPORT));
    }
    let lease = capsule.data.as_ref().filter(|_| capsule.len >= CONNECT_DATA_BYTES);
    let data = lease.and_then(|lease| {
        let bytes = &mem.bytes(lease)[..CONNECT_DATA_BYTES as usize];
        <ConnectData as zerocopy::FromBytes>::read_from_bytes(bytes).ok()
    });
    let data = data.ok_or(Refusal::new(Status::INVALID_FIELD.dnr()))?;
    Connect::parse(&capsule.command, &data)
}

fn is_connect(command: &Command) -> bool {
    command.opcode == admin::FABRICS && command.fabrics_type() == fabrics::CONNECT
}
