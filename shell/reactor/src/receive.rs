//! Receiving: exactly so many bytes to a buffer of the core's, or whatever arrives to buffers of
//! the ring's.
//!
//! ```text
//! Idle --exact--> Exact --all, end or error--> Idle        (a short piece: asked again)
//! Idle --stream--> Stream armed --no buffer--> Stream starved --buffers back--> Stream armed
//!                  Stream armed --end, error, stop's cancellation--> Idle
//! ```

use braid_block::{IoError, Key, Memory, Span, Token};
use braid_shard::{Event, Socket, Traffic};
use io_uring::{cqueue, opcode, types::Fixed};

use crate::arena::Held;
use crate::buffers;
use crate::drive::Drive;
use crate::errno;
use crate::operation::Operation;
use crate::ring::Completion;

/// What is being received on a socket.
pub(crate) enum Receive {
    /// Nothing.
    Idle,
    /// Exactly `len` bytes, of which `got` are there.
    Exact { token: Token, held: Held, len: u32, got: u32 },
    /// Whatever arrives.
    Stream { token: Token, traffic: Traffic, armed: bool, stopping: bool },
}

impl Receive {
    /// Whether the kernel will complete it.
    pub(crate) const fn is_armed(&self) -> bool {
        match self {
            Self::Idle => false,
            Self::Exact { .. } => true,
            Self::Stream { armed, .. } => *armed,
        }
    }

    /// Ends a receive that the kernel does not know of.
    pub(crate) fn take_unarmed(&mut self) -> Option<Token> {
        let Self::Stream { token, armed: false, .. } = *self else { return None };
        *self = Self::Idle;
        Some(token)
    }
}

impl Drive {
    pub(crate) fn receive_exact(&mut self, token: Token, socket: Socket, span: Span) {
        let Some(slot) = self.sockets.live(socket) else {
            return self.done(token, Err(IoError::Gone));
        };
        assert!(matches!(slot.receive, Receive::Idle), "two receives on a socket");
        if span.len == 0 {
            return self.done(token, Ok(0));
        }
        let held = self.arena.hold(span, true);
        slot.receive = Receive::Exact { token, held, len: span.len, got: 0 };
        self.arm_exact(socket.0);
    }

    pub(crate) fn receive_stream(&mut self, token: Token, socket: Socket, traffic: Traffic) {
        let Some(slot) = self.sockets.live(socket) else {
            return self.done(token, Err(IoError::Gone));
        };
        assert!(matches!(slot.receive, Receive::Idle), "two receives on a socket");
        slot.receive = Receive::Stream { token, traffic, armed: false, stopping: false };
        self.arm_stream(socket.0);
    }

    pub(crate) fn receive_stop(&mut self, socket: Socket) {
        let Some(slot) = self.sockets.live(socket) else { return };
        if let Some(token) = slot.receive.take_unarmed() {
            self.done(token, Err(IoError::Cancelled));
        } else if let Receive::Stream { stopping, .. } = &mut slot.receive
            && !*stopping
        {
            *stopping = true;
            let name = Operation::Receive.name(socket.0, slot.generation);
            self.cancel(name);
        }
    }

    /// Re-arms streams that found no buffer, no more of each kind than there are buffers for it.
    pub(crate) fn feed(&mut self) {
        self.buffers.refill(&mut self.arena);
        for traffic in Traffic::ALL {
            let mut budget = self.buffers.available(traffic);
            while budget > 0
                && self.ring.room() > 0
                && let Some(index) = self.sockets.starved[traffic as usize].pop_front()
            {
                // The position may be another stream's by now.
                if let Receive::Stream { armed: false, traffic: its, .. } =
                    self.sockets.at(index).receive
                    && its == traffic
                {
                    self.arm_stream(index);
                    budget -= 1;
                }
            }
        }
    }

    pub(crate) fn on_receive(&mut self, key: Key, completion: Completion) {
        let arrived = cqueue::buffer_select(completion.flags);
        if let Some(number) = arrived {
            self.buffers.taken(number);
        }
        let result = errno::result(completion.result);
        let more = cqueue::more(completion.flags);
        let (receive, closing) = match self.sockets.named(key) {
            Some(slot) => (&slot.receive, slot.closing),
            None => (&Receive::Idle, true),
        };
        match *receive {
            Receive::Exact { .. } => self.on_exact(key.index, result),
            Receive::Stream { token, .. } => {
                self.deliver(token, arrived, result, closing);
                if !more {
                    self.on_stream_end(key.index, completion.result);
                }
            }
            Receive::Idle => debug_assert!(false, "a completion of nothing"),
        }
    }

    /// Hands a filled buffer to the machine, unless it closed the socket meanwhile.
    fn deliver(
        &mut self,
        token: Token,
        number: Option<u16>,
        result: Result<u32, IoError>,
        closing: bool,
    ) {
        let Some(number) = number else { return };
        let lease = self.arena.deliver(number);
        match result {
            Ok(len) if len > 0 && !closing => {
                self.happened.push_back(Event::Received { token, lease, len });
            }
            _ => self.arena.free(lease),
        }
    }

    fn on_stream_end(&mut self, index: u32, result: i32) {
        let slot = self.sockets.at(index);
        let Receive::Stream { token, traffic, armed, stopping } = &mut slot.receive else {
            return;
        };
        *armed = false;
        let (token, traffic) = (*token, *traffic);
        let stopping = *stopping || slot.closing;
        let goes_on = result > 0 || result == -libc::ENOBUFS || result == -libc::EINTR;
        if goes_on && !stopping {
            self.counters.starved += u64::from(result == -libc::ENOBUFS);
            self.sockets.starved[traffic as usize].push_back(index);
            return;
        }
        slot.receive = Receive::Idle;
        let end = if goes_on { Err(IoError::Cancelled) } else { errno::result(result) };
        self.done(token, end);
        self.settle(index);
    }

    fn on_exact(&mut self, index: u32, result: Result<u32, IoError>) {
        let slot = self.sockets.at(index);
        let Receive::Exact { token, held, len, got } = &mut slot.receive else { return };
        if let Ok(bytes) = result {
            *got += bytes;
            if bytes > 0 && *got < *len && !slot.closing {
                return self.arm_exact(index);
            }
        }
        let (token, unit, got) = (*token, held.unit, *got);
        slot.receive = Receive::Idle;
        self.arena.release(unit, true);
        self.done(token, result.map(|_| got));
        self.settle(index);
    }

    fn arm_exact(&mut self, index: u32) {
        let slot = self.sockets.at(index);
        let Receive::Exact { held, len, got, .. } = &slot.receive else { return };
        let name = Operation::Receive.name(index, slot.generation);
        // Inside the held span, because got < len.
        let into = held.at.as_ptr().wrapping_add(*got as usize);
        let entry = opcode::Recv::new(Fixed(index), into, *len - *got).flags(libc::MSG_WAITALL);
        self.push(entry.build(), name);
    }

    fn arm_stream(&mut self, index: u32) {
        let slot = self.sockets.at(index);
        let Receive::Stream { armed, traffic, .. } = &mut slot.receive else { return };
        *armed = true;
        let group = buffers::group(*traffic);
        let name = Operation::Receive.name(index, slot.generation);
        self.push(opcode::RecvMulti::new(Fixed(index), group).build(), name);
    }
}
