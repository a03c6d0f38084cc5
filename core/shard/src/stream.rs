//! From bytes to commands: how a queue's input is taken, fairly and without waiting in a circle.
//!
//! Invariants:
//! 1. A connection gives so many commands a turn and no more; what is left runs in the next turn.
//!    Beside a connection that gives one at a time it gives fewer: that one waits for whole turns.
//! 2. A command is taken only while there is room for it: an op, its effects, its reply.
//! 3. In-capsule data always finds a buffer in the end: the connection's own, if no other.

use alloc::collections::VecDeque;

use braid_block::{Instant, IoError, Key, Lease, Memory};
use braid_nvme::pdu::{FatalError, PduType};
use braid_nvme::target::connection::Step;

use crate::Shard;
use crate::conn::{Phase, Role};
use crate::effect::{Effect, Traffic};
use crate::note::Why;
use crate::receive::{Armed, PIECES_HIGH, Piece};
use crate::token;

/// A connection that gives no more than so many commands in a turn waits for each of them.
const QUIET_COMMANDS: u32 = 2;
/// Turns for which the others leave room after a quiet connection was heard of: some milliseconds.
const QUIET_TURNS: u64 = 256;
/// Entries of the table of ops that only admin commands get.
const ADMIN_OPS: usize = 16;

impl Shard {
    /// A piece of a stream arrived.
    pub(crate) fn on_received<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        lease: Lease,
        len: u32,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return mem.free(lease) };
        if !conn.is_reading() || conn.queue().is_none() {
            return mem.free(lease);
        }
        conn.last_seen = now;
        conn.receive.pieces.push_back(Piece { lease, at: 0, end: len });
        if conn.receive.pieces.len() >= PIECES_HIGH && conn.receive.armed == Armed::Stream {
            conn.receive.armed = Armed::Stopping;
            self.outbox.emit(Effect::ReceiveStop { socket: conn.socket });
        }
        if !conn.runnable {
            self.run(mem, now, key);
        }
    }

    /// The receive of a connection ended: exactly so many bytes, the end of the stream, or a stop.
    pub(crate) fn on_receive_done<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        result: Result<u32, IoError>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let armed = core::mem::replace(&mut conn.receive.armed, Armed::No);
        if conn.phase == Phase::Closed {
            return self.reap(mem, key);
        }
        match (armed, result) {
            (Armed::Exact(wanted), Ok(len)) if len == wanted => {
                conn.last_seen = now;
                if conn.is_open() { self.greet(mem, now, key, len) } else { self.hear_out(key) }
            }
            (Armed::Stopping, Err(IoError::Cancelled)) => {
                if conn.is_reading() {
                    self.run(mem, now, key)
                } else {
                    self.hear_out(key)
                }
            }
            (_, Ok(_)) => self.close(mem, key, Why::PeerClosed),
            (_, Err(error)) => self.close(mem, key, Why::Io(error)),
        }
    }

    /// Keeps reading a connection that is ending, so that its end is seen; the bytes mean nothing.
    pub(crate) fn hear_out(&mut self, key: Key) {
        self.arm_stream(key);
    }

    /// Asks for whatever comes, unless something is asked for already.
    pub(crate) fn arm_stream(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.receive.armed == Armed::No && conn.phase != Phase::Closed {
            conn.receive.armed = Armed::Stream;
            let token = braid_block::Token::new(token::RECEIVE, key);
            let member = conn.queue().is_some_and(|queue| queue.member);
            let traffic = if member { Traffic::Nexuses } else { Traffic::Hosts };
            self.outbox.emit(Effect::ReceiveStream { token, socket: conn.socket, traffic });
        }
    }

    /// Takes commands from a queue until its input, its share of the turn, or some room runs out.
    pub(crate) fn run<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        loop {
            if !self.may_take(key) {
                return self.put_off(key);
            }
            let Some(conn) = self.conns.get_mut(key) else { return };
            let Role::Queue(queue) = &mut conn.role else { return };
            let Some(piece) = conn.receive.pieces.front_mut() else {
                if queue.qid != 0 && queue.turn == self.turn && queue.taken <= QUIET_COMMANDS {
                    self.quiet = Some((key, self.turn));
                }
                return self.arm_stream(key);
            };
            match queue.connection.step(mem, &piece.lease, piece.at, piece.end) {
                Err(error) => return self.terminate(mem, now, key, error),
                Ok((consumed, step)) => {
                    piece.at += consumed;
                    if !self.take(mem, now, key, step) {
                        return;
                    }
                }
            }
        }
    }

    /// Acts on a step; false: the connection cannot go on now.
    fn take<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, step: Step) -> bool {
        match step {
            Step::More => self.drop_piece(mem, key),
            Step::NeedBuffer(len) => return self.provide(mem, key, len),
            Step::Command(capsule) => self.dispatch(mem, now, key, capsule),
            Step::Transferred(transferred) => self.on_transferred(mem, now, transferred),
            Step::Initialize(_) => self.terminate(mem, now, key, FatalError::Sequence),
            Step::Terminated(fes) => self.close(mem, key, Why::Terminated(fes)),
        }
        true
    }

    fn drop_piece<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let piece = self.conns.get_mut(key).and_then(|conn| conn.receive.pieces.pop_front());
        if let Some(piece) = piece {
            mem.free(piece.lease);
            self.freed = true;
        }
    }

    /// Finds a buffer for in-capsule data, the connection's own if there is no other.
    fn provide<M: Memory>(&mut self, mem: &mut M, key: Key, len: u32) -> bool {
        let lease = self.lease(mem, key, len, false).or_else(|| self.take_reserve(mem, key));
        let Some(queue) = self.conns.get_mut(key).and_then(|conn| conn.queue_mut()) else {
            if let Some(lease) = lease {
                self.give_back(mem, key, lease);
            }
            return false;
        };
        match lease {
            Some(lease) => {
                queue.connection.provide(lease);
                true
            }
            None => {
                if !queue.starving {
                    queue.starving = true;
                    self.starving.push_back(key);
                    self.counters.buffer_waits += 1;
                }
                false
            }
        }
    }

    /// Whether this connection may give another command in this turn.
    fn may_take(&mut self, key: Key) -> bool {
        let limits = &self.config.limits;
        let taken_max = if self.is_beside_quiet(key) {
            limits.commands_beside_quiet_turn
        } else {
            limits.commands_per_connection_turn
        };
        let turn_max = limits.commands_per_turn;
        let room = self.outbox.has_room() && self.has_op_for(key) && self.taken < turn_max;
        let turn = self.turn;
        match self.conns.get_mut(key).and_then(|conn| conn.queue_mut()) {
            Some(queue) if queue.turn == turn => room && queue.taken < taken_max,
            _ => room,
        }
    }

    /// Whether another connection waits for each of its commands, and so for this one's turns.
    pub(crate) fn is_beside_quiet(&self, key: Key) -> bool {
        self.quiet.is_some_and(|(quiet, turn)| quiet != key && self.turn - turn <= QUIET_TURNS)
    }

    /// Whether an entry is free for a command of this connection. The last ones are for admin
    /// queues, so that a host is heard however many of its commands wait for a device.
    pub(crate) fn has_op_for(&self, key: Key) -> bool {
        let all = self.ops.capacity();
        let (free, kept) = (all - self.ops.len(), ADMIN_OPS.min(all / 8));
        let queue = self.conns.get(key).and_then(|conn| conn.queue());
        if queue.is_none_or(|queue| queue.qid == 0) {
            return free > 0;
        }
        // Other engines' writes wait for our replicas, as ours do for theirs: if hosts could take
        // every entry, both would wait in a circle.
        let member = queue.is_some_and(|queue| queue.member);
        let spared = if member || self.members.is_empty() { 0 } else { all / 4 };
        free > kept + spared
    }

    /// Goes on with this connection in the next turn.
    pub(crate) fn put_off(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.runnable
            && conn.is_reading()
        {
            conn.runnable = true;
            self.runnable.push_back(key);
        }
    }

    /// The peer broke the protocol: tells it so, and hears no more of it.
    pub(crate) fn terminate<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        error: FatalError,
    ) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.is_open()) else {
            return self.close(mem, key, Why::Protocol(error));
        };
        let (connection, unsent) = match &mut conn.role {
            Role::Handshake(greeting) => (&greeting.connection, VecDeque::new()),
            Role::Queue(queue) => (&queue.connection, core::mem::take(&mut queue.replies)),
        };
        let header = connection.offending_header();
        conn.transmit.terminate(mem, PduType::C2hTermReq, error, header);
        self.counters.terminated += 1;
        self.mark_dirty(key);
        self.end(mem, now, key, Why::Protocol(error));
        // Replies that found no room before it may not follow it.
        for (lease, _) in unsent.into_iter().filter_map(|reply| reply.data) {
            self.give_back(mem, key, lease);
        }
    }
}
