//! How connections and controllers end, and who is reminded of what.

use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Instant, Key, Memory};
use braid_nvme::Status;
use braid_nvme::transmit::Kept;

use crate::conn::{Conn, Phase, Role};
use crate::deadline::Reminder;
use crate::effect::Effect;
use crate::note::{Note, Why};
use crate::op::State;
use crate::receive::Armed;
use crate::{SWEEP, Shard};

/// How soon a controller without a keep alive time-out is looked at again: Set Features may give
/// it one, and a shutdown does.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Shard {
    /// Ends a connection in order: no new command is taken, what is in work finishes, replies
    /// leave, then our end is closed and the peer's awaited. Only an orderly end still reads the
    /// data that commands in work wait for; a peer that broke the protocol is not listened to.
    pub(crate) fn end<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, why: Why) {
        let drain = self.config.limits.drain;
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !conn.is_open() {
            return;
        }
        conn.phase = Phase::Ending { why, shut: false, until: now + drain };
        self.deadlines.remind(now + drain, Reminder::Connection(key));
        self.miss_second(mem, key);
        if !why.is_orderly() {
            self.drop_input(mem, key);
            self.forget_waiting(mem, key);
        }
        self.mark_dirty(key);
        self.finish_ending(now, key);
    }

    /// Closes our end once nothing is left to say. In an orderly end a controller's queues go
    /// together: a host that sees one of them end gives up what it waits for on the others.
    pub(crate) fn finish_ending(&mut self, now: Instant, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let Phase::Ending { why, .. } = conn.phase else { return };
        if !conn.has_said_all() {
            return;
        }
        let (true, Some(queue)) = (why.is_orderly(), conn.queue()) else {
            return self.shut(now, key);
        };
        let controllers = &self.subsystems[usize::from(queue.subsystem)].controllers;
        let Some(association) = controllers.get(queue.controller) else {
            return self.shut(now, key);
        };
        let queues = || association.queues.iter().flatten();
        if queues().filter_map(|key| self.conns.get(*key)).all(Conn::has_said_all) {
            let all: Vec<Key> = queues().copied().collect();
            all.into_iter().for_each(|key| self.shut(now, key));
        }
    }

    /// Closes our end, and reads on until the peer closes its own.
    fn shut(&mut self, now: Instant, key: Key) {
        let linger = self.config.limits.terminate_linger;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Phase::Ending { why, shut: false, .. } = conn.phase else { return };
        conn.phase = Phase::Ending { why, shut: true, until: now + linger };
        let socket = conn.socket;
        self.outbox.emit(Effect::Shutdown { socket });
        self.deadlines.remind(now + linger, Reminder::Connection(key));
        self.hear_out(key);
    }

    /// Closes a connection now.
    pub(crate) fn close<M: Memory>(&mut self, mem: &mut M, key: Key, why: Why) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let why = match conn.phase {
            Phase::Closed => return,
            Phase::Ending { why, .. } => why,
            Phase::Open => why,
        };
        conn.phase = Phase::Closed;
        let socket = conn.socket;
        self.outbox.emit(Effect::Close { socket });
        self.counters.closed += 1;
        self.note(Note::Closed { socket, why });
        self.drop_input(mem, key);
        self.leave_controller(mem, key, why);
        self.reap(mem, key);
    }

    fn drop_input<M: Memory>(&mut self, mem: &mut M, key: Key) {
        while let Some(piece) =
            self.conns.get_mut(key).and_then(|conn| conn.receive.pieces.pop_front())
        {
            mem.free(piece.lease);
        }
        self.freed = true;
    }

    /// A queue's connection is gone: with the admin queue goes the controller.
    fn leave_controller<M: Memory>(&mut self, mem: &mut M, key: Key, why: Why) {
        let Some(queue) = self.conns.get(key).and_then(|conn| conn.queue()) else { return };
        let (at, controller, qid) = (queue.subsystem, queue.controller, queue.qid);
        self.forget_waiting(mem, key);
        self.end_abandoner(mem, key, false);
        if qid == 0 {
            return self.end_controller(mem, at, controller, why);
        }
        let subsystem = &mut self.subsystems[usize::from(at)];
        if let Some(association) = subsystem.controllers.get_mut(controller) {
            association.set_queue(qid, None);
            association.controller.leave(qid);
            if self.stopping || subsystem.phase != crate::subsystem::Phase::Serving {
                // The others may have waited for this one.
                for key in association.queues.clone().into_iter().flatten() {
                    self.mark_dirty(key);
                }
            }
        }
    }

    /// Ops of a closed connection that only wait will never run.
    fn forget_waiting<M: Memory>(&mut self, mem: &mut M, conn: Key) {
        for index in 0..u32::try_from(self.ops.capacity()).unwrap_or(u32::MAX) {
            let Some(key) = self.ops.key_at(index) else { continue };
            let waits = self.ops.get(key).is_some_and(|op| {
                op.conn == conn && (op.only_waits() || op.state == State::AwaitingData)
            });
            if waits {
                self.finish(mem, key, Status::ABORTED_QUEUE_DELETED, 0);
            }
        }
    }

    /// Ends a controller: its connections are closed, and it is forgotten when its last op is done.
    pub(crate) fn end_controller<M: Memory>(
        &mut self,
        mem: &mut M,
        at: u16,
        controller: Key,
        why: Why,
    ) {
        let subsystem = &mut self.subsystems[usize::from(at)];
        let Some(association) = subsystem.controllers.get_mut(controller) else { return };
        if core::mem::replace(&mut association.dying, true) {
            return;
        }
        let cntlid = association.controller.cntlid();
        let queues = core::mem::take(&mut association.queues);
        for key in queues.into_iter().flatten() {
            let why = if why == Why::PeerClosed { Why::AdminClosed } else { why };
            self.close(mem, key, why);
        }
        self.note(Note::ControllerGone { cntlid, why });
        self.member_controller_gone(mem, at, controller);
        self.guest_gone(at, controller);
        self.quiet(mem, at, controller);
    }

    /// A controller has no ops any more: what waited for that can be.
    pub(crate) fn quiet<M: Memory>(&mut self, mem: &mut M, at: u16, controller: Key) {
        let subsystem = &mut self.subsystems[usize::from(at)];
        let Some(association) = subsystem.controllers.get_mut(controller) else { return };
        if association.ops > 0 {
            return;
        }
        if association.dying {
            subsystem.controllers.remove(controller);
            self.buried = true;
            return;
        }
        association.controller.reset_done();
        if core::mem::take(&mut association.settle) {
            self.settle(mem, at, controller, None);
        } else if core::mem::take(&mut association.unsettled) {
            association.controller.shutdown_failed();
        } else {
            association.controller.shutdown_done();
        }
    }

    /// Closes the I/O queues of a controller, at its reset or shutdown; `settle`: what they wrote
    /// is to be durable before it says that it is done.
    pub(crate) fn close_io_queues<M: Memory>(
        &mut self,
        mem: &mut M,
        at: u16,
        controller: Key,
        settle: bool,
    ) {
        let subsystem = &mut self.subsystems[usize::from(at)];
        let Some(association) = subsystem.controllers.get_mut(controller) else { return };
        association.settle = settle;
        let admin = association.queues.first().copied().flatten();
        let queues = core::mem::replace(&mut association.queues, alloc::vec![admin]);
        for key in queues.into_iter().skip(1).flatten() {
            self.close(mem, key, Why::Reset);
        }
        self.quiet(mem, at, controller);
    }

    /// Frees a closed connection once the kernel has let go of it.
    pub(crate) fn reap<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let held = conn.receive.armed != Armed::No || conn.transmit.in_flight();
        if held || conn.phase != Phase::Closed {
            return;
        }
        let Some(conn) = self.conns.remove(key) else { return };
        let conns = &self.conns;
        self.deadlines.connection_gone(|key| conns.get(key).is_some());
        if let Role::Queue(queue) = &conn.role {
            self.shares.leave(queue.share, queue.pinned);
        }
        if let Some(reserve) = conn.reserve {
            mem.free(reserve);
        }
        let (headers, kept) = conn.transmit.into_leases();
        for kept in kept {
            match kept {
                Kept::Lease(lease) => self.give_back(mem, key, lease),
                Kept::Command(_) => {}
            }
        }
        match conn.role {
            // No command's: it counts as nobody's share.
            Role::Handshake(greeting) => {
                greeting.connection.into_leases().for_each(|lease| mem.free(lease));
            }
            Role::Queue(queue) => {
                for lease in queue.connection.into_leases() {
                    self.give_back(mem, key, lease);
                }
                for (lease, _) in queue.replies.into_iter().filter_map(|reply| reply.data) {
                    self.give_back(mem, key, lease);
                }
            }
        }
        for header in headers {
            mem.free(header);
        }
        self.freed = true;
        self.tell_drained();
    }

    /// Tells that nothing is left after a stop, if so. Pools are stopped when no host is left.
    pub(crate) fn tell_drained(&mut self) {
        if !self.stopping || !self.conns.is_empty() || !self.hosts.is_empty() {
            return;
        }
        if !self.pools.are_given_up() {
            self.pools.close_all();
        } else if !core::mem::replace(&mut self.drained, true) {
            self.note(Note::Drained);
        }
    }

    /// Looks after everybody whose time may have come.
    pub(crate) fn on_elapsed<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        while let Some(reminder) = self.deadlines.pop_due(now) {
            match reminder {
                Reminder::Connection(key) => self.check_connection(mem, now, key),
                Reminder::Controller(at, key) => self.check_controller(mem, now, at, key),
                Reminder::Op(key) => self.on_delay_over(mem, now, key),
                Reminder::Transition(at) => self.end_transitions(mem, now, at),
                Reminder::Sweep => self.sweep(mem, now),
                Reminder::Drain => {
                    self.close_all(mem);
                    self.hosts_abort(mem, now);
                }
            }
        }
        self.hosts_elapsed(mem, now);
        self.pools.on_elapsed(mem, now);
        self.members_elapsed(mem);
        self.volumes_elapsed(mem);
    }

    fn check_connection<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        match (conn.phase, &conn.role) {
            (Phase::Ending { why, until, .. }, _) if until <= now => self.close(mem, key, why),
            (Phase::Open, Role::Handshake(greeting)) if greeting.until <= now => {
                self.close(mem, key, Why::HandshakeTimeout);
            }
            (Phase::Open, Role::Queue(_)) => self.check_proof(mem, now, key),
            _ => {}
        }
    }

    /// Ends the controller if its host was silent on every queue for too long.
    fn check_controller<M: Memory>(&mut self, mem: &mut M, now: Instant, at: u16, key: Key) {
        let subsystem = &self.subsystems[usize::from(at)];
        let Some(association) = subsystem.controllers.get(key).filter(|a| !a.dying) else { return };
        // Another reminder counts, that was set when its time-out changed.
        if association.look > now {
            return;
        }
        let Some(patience) = association.patience() else {
            return self.look_after(at, key, now + LOOK_AGAIN);
        };
        let queues = association.queues.iter().flatten();
        let seen = queues.filter_map(|key| self.conns.get(*key)).map(|conn| conn.last_seen);
        let deadline = seen.fold(association.last_seen, Instant::max) + patience;
        if deadline > now {
            return self.look_after(at, key, deadline);
        }
        self.counters.keep_alive_expired += 1;
        self.end_controller(mem, at, key, Why::KeepAlive);
    }

    /// Looks at a controller's host then, and not before.
    fn look_after(&mut self, at: u16, key: Key, when: Instant) {
        let controllers = &mut self.subsystems[usize::from(at)].controllers;
        if let Some(association) = controllers.get_mut(key) {
            association.look = when;
            self.deadlines.remind(when, Reminder::Controller(at, key));
        }
    }

    /// A controller's keep alive time-out may be another one: if it is over sooner now, it counts
    /// so at once.
    pub(crate) fn look_sooner(&mut self, now: Instant, at: u16, key: Key) {
        let controllers = &self.subsystems[usize::from(at)].controllers;
        let Some(association) = controllers.get(key).filter(|a| !a.dying) else { return };
        let when = association.patience().map(|patience| now + patience);
        if let Some(when) = when.filter(|when| *when < association.look) {
            self.look_after(at, key, when);
        }
    }

    /// Closes connections whose peer takes nothing.
    fn sweep<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let stall = self.config.limits.send_stall;
        let mut sending = false;
        for index in 0..u32::try_from(self.conns.capacity()).unwrap_or(u32::MAX) {
            let Some(key) = self.conns.key_at(index) else { continue };
            let Some(conn) = self.conns.get(key) else { continue };
            if conn.phase == Phase::Closed || !conn.transmit.in_flight() {
                continue;
            }
            let patience = self.patience(conn).unwrap_or(stall).min(stall);
            if now.since(conn.sending_since) >= patience {
                self.close(mem, key, Why::SendTimeout);
            } else {
                sending = true;
            }
        }
        self.sweeping = sending;
        if sending {
            self.deadlines.remind(now + SWEEP, Reminder::Sweep);
        }
    }

    /// The keep alive time-out of a connection's controller.
    fn patience(&self, conn: &Conn) -> Option<Duration> {
        let queue = conn.queue()?;
        let subsystem = self.subsystems.get(usize::from(queue.subsystem))?;
        subsystem.controllers.get(queue.controller)?.patience()
    }

    /// Ends every connection in order.
    pub(crate) fn end_all<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.deadlines.remind(now + self.config.limits.drain, Reminder::Drain);
        for index in 0..u32::try_from(self.conns.capacity()).unwrap_or(u32::MAX) {
            if let Some(key) = self.conns.key_at(index) {
                self.end(mem, now, key, Why::Stopping);
            }
        }
    }

    /// Closes every connection now: the end of an orderly stop's patience.
    fn close_all<M: Memory>(&mut self, mem: &mut M) {
        for index in 0..u32::try_from(self.conns.capacity()).unwrap_or(u32::MAX) {
            if let Some(key) = self.conns.key_at(index) {
                self.close(mem, key, Why::Stopping);
            }
        }
    }
}
