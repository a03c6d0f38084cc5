//! From a finished command to bytes on the wire, and what happens when they have left.

use arrayvec::ArrayVec;
use braid_block::{Instant, IoError, Key, Lease, Memory, Token};
use braid_nvme::command::Completion;
use braid_nvme::pdu::{FLAG_LAST, FLAG_SUCCESS, PduType};
use braid_nvme::transmit::{BATCH_SPANS_MAX, DataOut, Kept};

use crate::conn::{Conn, Phase, Queue, Role};
use crate::deadline::Reminder;
use crate::effect::Effect;
use crate::note::Why;
use crate::op::Reply;
use crate::{SWEEP, Shard, token};

/// Beside a quiet connection, one with more to do collects headers of 24 replies before it sends:
/// short turns would make many small sends.
const WORTH_SENDING_BYTES: u32 = 24 * 24;

impl Shard {
    /// Sends a reply, or lets it wait for room behind those that wait already.
    pub(crate) fn reply<M: Memory>(&mut self, mem: &mut M, key: Key, reply: Reply) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.phase != Phase::Closed) else {
            if let Some((lease, _)) = reply.data {
                self.give_back(mem, key, lease);
            }
            return;
        };
        let Conn { transmit, role: Role::Queue(queue), .. } = conn else { return };
        queue.outstanding -= 1;
        if matches!(conn.phase, Phase::Ending { why: Why::Protocol(_), .. }) {
            // Nothing may follow a termination request.
            self.mark_dirty(key);
            if let Some((lease, _)) = reply.data {
                self.give_back(mem, key, lease);
            }
            return;
        }
        if queue.replies.is_empty() && transmit.has_room(mem) {
            if let Some(lease) = push(mem, transmit, queue, reply) {
                self.give_back(mem, key, lease);
            }
        } else {
            queue.replies.push_back(reply);
        }
        self.mark_dirty(key);
    }

    /// Lists a connection to have its batch launched at the end of the turn.
    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Launches the batches of all listed connections, in the order in which they were listed.
    pub(crate) fn launch<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let mut listed = 0;
        while let Some(&key) = self.dirty.get(listed) {
            listed += 1;
            let waits = self.is_beside_quiet(key) && self.has_op_for(key);
            let Some(conn) = self.conns.get_mut(key) else { continue };
            conn.dirty = false;
            let small = conn.transmit.waiting_header_bytes() < WORTH_SENDING_BYTES;
            if waits && small && conn.runnable {
                // Its next turn comes soon and lists it again.
                continue;
            }
            if conn.phase != Phase::Closed && conn.transmit.launch() {
                conn.sending_since = now;
                let token = Token::new(token::SEND, key);
                let effect = Effect::Send { token, socket: conn.socket, batch: key.index };
                self.outbox.emit(effect);
                self.counters.sends += 1;
                if !core::mem::replace(&mut self.sweeping, true) {
                    self.deadlines.remind(now + SWEEP, Reminder::Sweep);
                }
            }
            self.after_sending(mem, now, key);
        }
        self.dirty.clear();
    }

    /// A batch has left, or its stream broke.
    pub(crate) fn on_sent<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        result: Result<u32, IoError>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let total: u32 = conn.transmit.spans().iter().map(|span| span.len).sum();
        let mut leases = ArrayVec::<Lease, BATCH_SPANS_MAX>::new();
        for kept in conn.transmit.landed() {
            match kept {
                Kept::Lease(lease) => leases.push(lease),
                Kept::Command(_) => {}
            }
        }
        for lease in leases {
            self.give_back(mem, key, lease);
        }
        // There is room in the batch again, which R2Ts may wait for.
        self.freed = true;
        let Some(conn) = self.conns.get(key) else { return };
        if conn.phase == Phase::Closed {
            return self.reap(mem, key);
        }
        match result {
            Ok(sent) if sent == total => {
                self.refill(mem, key);
                self.mark_dirty(key);
            }
            Ok(_) => self.close(mem, key, Why::PeerClosed),
            Err(error) => self.close(mem, key, Why::Io(error)),
        }
    }

    /// Moves waiting replies into the batch, as far as there is room.
    fn refill<M: Memory>(&mut self, mem: &mut M, key: Key) {
        loop {
            let Some(conn) = self.conns.get_mut(key) else { return };
            let Conn { transmit, role: Role::Queue(queue), .. } = conn else { return };
            if !transmit.has_room(mem) {
                return;
            }
            let Some(reply) = queue.replies.pop_front() else { return };
            if let Some(lease) = push(mem, transmit, queue, reply) {
                self.give_back(mem, key, lease);
            }
        }
    }

    /// What was waiting for a connection's last byte to leave: a hand-over, or its end.
    fn after_sending<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        if !conn.transmit.is_empty() {
            return;
        }
        match (&conn.role, conn.phase) {
            (Role::Handshake(greeting), Phase::Open) if greeting.held.is_some() => {
                self.hand_over(mem, key);
            }
            (_, Phase::Ending { .. }) => self.finish_ending(now, key),
            _ => {}
        }
    }
}

/// Puts a reply's PDUs into the batch. A buffer that is not sent comes back.
fn push<M: Memory>(
    mem: &mut M,
    transmit: &mut braid_nvme::transmit::Transmit,
    queue: &mut Queue,
    reply: Reply,
) -> Option<Lease> {
    let mut unsent = None;
    if let Some((lease, len)) = reply.data {
        if reply.status.is_success() && len > 0 {
            // The response can be left out where it would carry nothing (TCP 3.6.2.9).
            let implied = !queue.flow_control && reply.result == 0;
            let flags = if implied { FLAG_LAST | FLAG_SUCCESS } else { FLAG_LAST };
            let pdu_type = PduType::C2hData;
            let out = DataOut { pdu_type, cid: reply.cid, ttag: 0, offset: 0, flags };
            let span = lease.span(0, len);
            transmit.data_summed(mem, out, &lease, span, reply.digest);
            transmit.keep(Kept::Lease(lease));
            if implied {
                return None;
            }
        } else {
            unsent = Some(lease);
        }
    }
    let mut completion = Completion::new(reply.cid, reply.status, reply.result);
    completion.sqhd.set(queue.advance_head());
    transmit.response(mem, &completion);
    unsent
}
