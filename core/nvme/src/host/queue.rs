//! One queue: a connection, the commands on it, and what waits to be sent.
//!
//! ```text
//!   Closed --> Connecting --> Open --> Closing --> Closed
//!                 |            |          ^
//!                 +--> Closed  +-> Terminating (H2CTermReq out, until the peer closes)
//! ```
//!
//! Invariants:
//! 1. What is to be sent waits in order in `waiting`, a slot at most once, so it is bounded.
//! 2. Only an open queue takes commands, parses input or adds to what is sent.
//! 3. A queue is closed only when neither its receive nor a send is outstanding; then nothing
//!    touches the buffers of the commands it still has, and they are handed back.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Class, Instant, Lease, Memory, Span};

use super::connection::{Connection, Negotiated, Step, ic_req};
use super::slot::{Active, Ended, Owner, Slots};
use crate::command::{Command, Direction, Sgl};
use crate::pdu::{Digests, FLAG_LAST, FatalError, PduType};
use crate::transmit::{DataOut, Kept, Transmit};

/// How far a queue's stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// There is none.
    Closed,
    /// It is being made.
    Connecting,
    /// It is there.
    Open,
    /// The peer was told that it broke the protocol, and may close the stream until then.
    Terminating(Instant),
    /// It is being closed: receive and send come back.
    Closing,
}

/// A command that is to be put on a queue.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) owner: Owner,
    pub(super) command: Command,
    pub(super) direction: Direction,
    pub(super) lease: Option<Lease>,
    pub(super) len: u32,
    /// CRC32C of the data that is sent, if it is known.
    pub(super) digest: Option<u32>,
    pub(super) deadline: Instant,
}

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) stream: Stream,
    connection: Connection,
    transmit: Option<Transmit>,
    slots: Slots,
    /// Slots with something to send: a capsule, or data that an R2T asked for.
    waiting: VecDeque<u16>,
    /// Slots that may be over.
    over: Vec<u16>,
    receiving: bool,
    data_bytes_max: u32,
    in_capsule_bytes_max: u32,
    /// When to look for commands that took too long.
    check: Option<Instant>,
}

impl Queue {
    /// A queue for so many commands.
    pub(super) fn new(commands: u16, admin: bool, in_capsule_bytes_max: u32) -> Self {
        Self {
            stream: Stream::Closed,
            connection: Connection::new(Digests { header: false, data: false }),
            transmit: None,
            slots: Slots::new(commands, admin),
            waiting: VecDeque::with_capacity(usize::from(commands)),
            over: Vec::with_capacity(usize::from(commands)),
            receiving: false,
            data_bytes_max: 0,
            in_capsule_bytes_max,
            check: None,
        }
    }

    /// The stream is there: asks the target to begin. False: there was no buffer.
    pub(super) fn open<M: Memory>(&mut self, mem: &mut M, digests: Digests) -> bool {
        self.stream = Stream::Open;
        self.receiving = true;
        let Some(first) = mem.alloc(Class::Small) else { return false };
        let Some(second) = mem.alloc(Class::Small) else {
            mem.free(first);
            return false;
        };
        let mut transmit = Transmit::new([first, second]);
        transmit.initialize_connection(mem, &ic_req(digests));
        self.transmit = Some(transmit);
        self.connection = Connection::new(digests);
        true
    }

    /// The target agreed: from now on commands can be sent.
    pub(super) const fn initialize(&mut self, negotiated: Negotiated) {
        self.data_bytes_max = negotiated.data_bytes_max;
        if let Some(transmit) = &mut self.transmit {
            transmit.initialize(negotiated.digests, negotiated.data_alignment);
        }
    }

    /// Whether a command finds no slot.
    pub(super) const fn is_full(&self) -> bool {
        self.slots.is_full()
    }

    /// Puts a command on the queue; data goes along in the capsule if `in_capsule_bytes_max`
    /// allows, else the target fetches it. Hands it back when there is no slot.
    pub(super) fn submit<M: Memory>(
        &mut self,
        mem: &mut M,
        request: Request,
        in_capsule_bytes_max: u32,
    ) -> Result<(), Request> {
        let Some(index) = self.slots.vacant(request.owner) else { return Err(request) };
        let Request { owner, mut command, direction, lease, len, digest, deadline } = request;
        let in_capsule = direction == Direction::FromHost && len <= in_capsule_bytes_max;
        command.sgl = if in_capsule { Sgl::in_capsule(len) } else { Sgl::transport(len) };
        let active = Active {
            owner,
            command,
            lease,
            direction,
            in_capsule,
            len,
            digest,
            moved: 0,
            requested: None,
            deadline,
            sent: false,
            waiting: true,
            sends: 0,
            intact: true,
            response: None,
        };
        self.slots.fill(index, active);
        self.waiting.push_back(index);
        if owner != Owner::Notice {
            self.check = Some(self.check.map_or(deadline, |check| check.min(deadline)));
        }
        self.pump(mem);
        Ok(())
    }

    /// Bytes that a command on this queue may carry in its capsule.
    pub(super) const fn in_capsule_bytes_max(&self) -> u32 {
        self.in_capsule_bytes_max
    }

    /// Takes bytes `at .. end` of `input`, as [`Connection::step`] does.
    pub(super) fn step<M: Memory>(
        &mut self,
        mem: &mut M,
        input: &Lease,
        at: u32,
        end: u32,
    ) -> Result<(u32, Step), FatalError> {
        let (consumed, step) = self.connection.step(mem, &mut self.slots, input, at, end)?;
        match step {
            Step::Answered(index) => self.over.push(index),
            Step::Requested(index) => {
                if let Some(active) = self.slots.get_mut(index) {
                    active.waiting = true;
                    self.waiting.push_back(index);
                }
            }
            Step::More | Step::Initialized(_) | Step::Terminated(_) => {}
        }
        Ok((consumed, step))
    }

    /// Adds what waits to the batch that is filling, as far as there is room.
    pub(super) fn pump<M: Memory>(&mut self, mem: &mut M) {
        let Some(transmit) = &mut self.transmit else { return };
        while let Some(&index) = self.waiting.front()
            && transmit.has_room(mem)
        {
            let Some(active) = self.slots.get_mut(index) else {
                self.waiting.pop_front();
                continue;
            };
            let done = if active.sent {
                send_data(mem, transmit, index, active, self.data_bytes_max)
            } else {
                send_capsule(mem, transmit, index, active);
                true
            };
            if done {
                active.waiting = false;
                self.waiting.pop_front();
            }
        }
    }

    /// Lets the filled batch fly; true: it is to be sent.
    pub(super) fn launch(&mut self) -> bool {
        let live = matches!(self.stream, Stream::Open | Stream::Terminating(_));
        live && self.transmit.as_mut().is_some_and(Transmit::launch)
    }

    /// The batch in flight.
    pub(super) fn batch(&self) -> &[Span] {
        self.transmit.as_ref().map_or(&[], |transmit| transmit.spans())
    }

    /// The batch in flight has landed, or its stream failed.
    pub(super) fn landed<M: Memory>(&mut self, mem: &mut M) {
        let Some(transmit) = &mut self.transmit else { return };
        for kept in transmit.landed() {
            match kept {
                Kept::Lease(lease) => mem.free(lease),
                Kept::Command(index) => {
                    let index = u16::try_from(index).unwrap_or(u16::MAX);
                    if let Some(active) = self.slots.get_mut(index) {
                        active.sends -= 1;
                        if active.is_over() {
                            self.over.push(index);
                        }
                    }
                }
            }
        }
        if self.stream == Stream::Open {
            self.pump(mem);
        }
    }

    /// The next command that ended.
    pub(super) fn next_over(&mut self) -> Option<Ended> {
        while let Some(index) = self.over.pop() {
            if let Some(ended) = self.slots.take_over(index) {
                return Some(ended);
            }
        }
        None
    }

    /// Whose deadline passed; looks only when one may have.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Owner> {
        if self.check? > now {
            return None;
        }
        let first = self.slots.first_deadline();
        self.check = first.map(|(deadline, _)| deadline);
        first.filter(|(deadline, _)| *deadline <= now).map(|(_, owner)| owner)
    }

    /// When [`Queue::expired`] may have something to tell.
    pub(super) const fn check(&self) -> Option<Instant> {
        self.check
    }

    /// Tells the peer that it broke the protocol, and gives it until `until` to close the stream.
    pub(super) fn terminate<M: Memory>(&mut self, mem: &mut M, error: FatalError, until: Instant) {
        let Some(transmit) = &mut self.transmit else { return };
        if transmit.has_room(mem) {
            let header = self.connection.offending_header();
            transmit.terminate(mem, PduType::H2cTermReq, error, header);
        }
        self.stream = Stream::Terminating(until);
    }

    /// The stream's receive is over.
    pub(super) const fn received_last(&mut self) {
        self.receiving = false;
    }

    /// Whether it is being closed and nothing is outstanding any more.
    pub(super) fn is_quiet(&self) -> bool {
        let flying = self.transmit.as_ref().is_some_and(Transmit::in_flight);
        self.stream == Stream::Closing && !self.receiving && !flying
    }

    /// Ends the closed stream: hands the header buffers back. The commands that are left come
    /// out by [`Queue::next_left`].
    pub(super) fn release<M: Memory>(&mut self, mem: &mut M) {
        self.stream = Stream::Closed;
        self.waiting.clear();
        self.over.clear();
        self.check = None;
        if let Some(transmit) = self.transmit.take() {
            // The commands that the batch not sent would have kept are handed back by their slots.
            let (headers, kept) = transmit.into_leases();
            for kept in kept {
                if let Kept::Lease(lease) = kept {
                    mem.free(lease);
                }
            }
            headers.into_iter().for_each(|lease| mem.free(lease));
        }
    }

    /// The next command of a closed stream that got no response.
    pub(super) fn next_left(&mut self) -> Option<Ended> {
        self.slots.take_any()
    }
}

/// Adds a command capsule, with its data if that goes along.
fn send_capsule<M: Memory>(mem: &mut M, transmit: &mut Transmit, index: u16, active: &mut Active) {
    active.sent = true;
    match &active.lease {
        Some(lease) if active.in_capsule => {
            let data = Some((lease.span(0, active.len), lease));
            let kept = Some(Kept::Command(u32::from(index)));
            transmit.command_summed(mem, &active.command, data, (active.digest, kept));
            active.sends += 1;
        }
        _ => transmit.command(mem, &active.command, None, None),
    }
}

/// Adds one H2CData of what an R2T asked for; true: it was the last one (TCP 3.3.2.3).
fn send_data<M: Memory>(
    mem: &mut M,
    transmit: &mut Transmit,
    index: u16,
    active: &mut Active,
    data_bytes_max: u32,
) -> bool {
    let (Some(requested), Some(lease)) = (&mut active.requested, &active.lease) else {
        return true;
    };
    let len = data_bytes_max.min(requested.end - requested.at);
    let last = requested.at + len == requested.end;
    let out = DataOut {
        pdu_type: PduType::H2cData,
        cid: active.command.cid.get(),
        ttag: requested.ttag,
        offset: requested.at,
        flags: if last { FLAG_LAST } else { 0 },
    };
    let digest = active.digest.filter(|_| len == active.len);
    transmit.data_summed(mem, out, lease, lease.span(requested.at, len), digest);
    transmit.keep(Kept::Command(u32::from(index)));
    active.sends += 1;
    requested.at += len;
    if last {
        active.requested = None;
        // A response that came before its time ends the command when this is sent.
    }
    last
}
