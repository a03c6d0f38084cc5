//! One association with a subsystem: its queues, its life, and the commands of its user.
//!
//! ```text
//!              +------------------ retry -----------------+
//!              v                                          |
//!   Waiting --> Starting --> Live --> Draining --> ShuttingDown
//!              |             |          |             |   |
//!              +---- lost ---+----------+-------------+   |
//!                             v                           |
//!                          Closing --> Ended (or Waiting -+)
//! ```
//!
//! Invariants:
//! 1. An association is one: when any of its connections is lost, all are closed, and only then
//!    is it made anew.
//! 2. A command's buffer is handed back when its response is here and no send of it is in flight,
//!    or when its connection is closed and receive and send have come back; never earlier, however
//!    late its answer is.
//! 3. Commands are taken only while the association is live.
//! 4. Every state but `Live` and `Ended` has a deadline.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Instant, IoError, Lease, Memory, Span};

use super::backoff::Backoff;
use super::config::Config;
use super::connection::Step as Heard;
use super::event::{Completed, Event, Live};
use super::keep_alive::KeepAlive;
use super::operation::{Submission, direction};
use super::queue::{Queue, Request, Stream};
use super::shutdown::Shutdown;
use super::slot::{Ended, Owner};
use super::startup::{Startup, Step};
use super::why::Why;
use crate::command::Direction;
use crate::pdu::FatalError;
use crate::{FABRICS_IN_CAPSULE_BYTES, Status};

/// Entries of the admin queue: what every target must offer (Base 3.3.1.1 wants 32 on fabrics).
pub(super) const ADMIN_ENTRIES: u16 = 32;

/// How long a target that broke the protocol has to close the connection after it was told.
const TERMINATE_LINGER: core::time::Duration = core::time::Duration::from_secs(1);

/// Something to do for the association. Queue 0 is the admin queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a connection; answered by [`Controller::connected`].
    Connect {
        /// For which queue.
        queue: u16,
    },
    /// Receive whatever comes on it until it ends: [`Controller::received`], at the end
    /// [`Controller::ended`].
    Receive {
        /// Of which queue.
        queue: u16,
    },
    /// Send [`Controller::batch`]; answered by [`Controller::sent`].
    Send {
        /// Of which queue.
        queue: u16,
    },
    /// Close the connection: what is outstanding on it comes back soon. A connection that is
    /// still being made is given up: its end is not to be told, nor waited for.
    Close {
        /// Of which queue.
        queue: u16,
    },
}

/// How far the association is.
#[derive(Debug)]
pub(super) enum State {
    /// It is tried again then.
    Waiting(Instant),
    /// It is being made.
    Starting(Box<Startup>),
    /// It takes commands.
    Live,
    /// It is to be closed when its commands have ended.
    Draining(Instant),
    /// The controller is told to shut down.
    ShuttingDown(Shutdown),
    /// Its connections are being closed; it is tried again then, if at all.
    Closing(Option<Instant>),
    /// Nothing will happen any more.
    Ended,
}

/// An association with a subsystem.
#[derive(Debug)]
pub struct Controller {
    pub(super) config: Config,
    pub(super) state: State,
    /// The admin queue, and as many I/O queues as were granted.
    pub(super) queues: Vec<Queue>,
    /// The buffer of the association's own commands, when none of them has it.
    pub(super) scratch: Option<Lease>,
    pub(super) keep_alive: Option<KeepAlive>,
    pub(super) backoff: Backoff,
    pub(super) transfer_bytes_max: u32,
    /// Commands of the user in work.
    outstanding: u32,
    pub(super) actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event>,
}

impl Controller {
    /// An association that begins when [`Controller::elapsed`] is called. `seed` makes its
    /// pauses differ from those of others.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let queues = usize::from(config.io_queues) + 1;
        let commands = usize::from(config.io_queues) * usize::from(config.queue_entries)
            + usize::from(ADMIN_ENTRIES);
        Self {
            backoff: Backoff::new(config.reconnect, seed, now),
            state: State::Waiting(now),
            queues: Vec::with_capacity(queues),
            scratch: None,
            keep_alive: None,
            transfer_bytes_max: 0,
            outstanding: 0,
            // Every queue wants to connect, receive, send and close at once, at most.
            actions: VecDeque::with_capacity(4 * queues),
            events: VecDeque::with_capacity(commands + 4),
            config,
        }
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it takes commands.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.state, State::Live)
    }

    /// Whether nothing will happen any more: all its leases were handed back.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The next thing to do. Batches leave by [`Controller::flush`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The batch that [`Action::Send`] names, at most 64 pieces.
    #[must_use]
    pub fn batch(&self, queue: u16) -> &[Span] {
        self.queues.get(usize::from(queue)).map_or(&[], Queue::batch)
    }

    /// Lets what was gathered to be sent leave, once a turn: one batch a queue is in flight.
    pub fn flush(&mut self) {
        for (queue, each) in (0..).zip(&mut self.queues) {
            if each.launch() {
                self.actions.push_back(Action::Send { queue });
            }
        }
    }

    /// When [`Controller::elapsed`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Waiting(until) | State::Draining(until) => Some(*until),
            State::Starting(startup) => Some(startup.due()),
            State::ShuttingDown(shutdown) => Some(shutdown.due()),
            State::Live | State::Closing(_) | State::Ended => None,
        };
        let keep_alive = self.keep_alive.as_ref().map(KeepAlive::due);
        let queues = self.queues.iter().filter_map(|queue| match queue.stream {
            Stream::Open => queue.check(),
            Stream::Terminating(until) => Some(until),
            Stream::Closed | Stream::Connecting | Stream::Closing => None,
        });
        own.into_iter().chain(keep_alive).chain(queues).min()
    }

    /// Takes a command, or hands it back: the association is not live, or all slots are busy. A
    /// command that is larger than the target takes ends at once.
    ///
    /// # Errors
    /// The submission, to be tried again after a `Completed` or the next `Live`.
    ///
    /// # Panics
    /// If its buffer is smaller than its length: a programmer's error.
    pub fn submit<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        submission: Submission,
    ) -> Result<(), Submission> {
        let Some(index) = self.choose(&submission) else { return Err(submission) };
        let Submission { operation, nsid, lease, len, cookie, queue } = submission;
        let room = lease.as_ref().map_or(0, |lease| mem.capacity(lease));
        assert!(len <= room, "a command's data must fit into its buffer");
        if len > self.transfer_bytes_max {
            let status = Status::INVALID_FIELD.dnr();
            let completed = Completed { cookie, status, result: 0, lease };
            self.events.push_back(Event::Completed(completed));
            return Ok(());
        }
        let command = operation.command(nsid);
        let request = Request {
            owner: Owner::Submitter(cookie),
            command,
            direction: direction(&command, len),
            lease,
            len,
            deadline: now + self.config.io_timeout,
        };
        let chosen = &mut self.queues[index];
        let in_capsule_bytes_max = chosen.in_capsule_bytes_max();
        match chosen.submit(mem, request, in_capsule_bytes_max) {
            Ok(()) => {
                self.outstanding += 1;
                Ok(())
            }
            Err(Request { lease, len, .. }) => {
                Err(Submission { operation, nsid, lease, len, cookie, queue })
            }
        }
    }

    /// The queue for a command: the admin queue, or the next one with room from the hint on.
    fn choose(&self, submission: &Submission) -> Option<usize> {
        if !self.is_live() {
            return None;
        }
        if submission.operation.is_admin() {
            return if self.queues[0].is_full() { None } else { Some(0) };
        }
        let queues = self.queues.len() - 1;
        (0..queues)
            .map(|n| 1 + (usize::from(submission.queue) + n) % queues)
            .find(|&index| !self.queues[index].is_full())
    }

    /// A connection was made, or not.
    pub fn connected<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        queue: u16,
        result: Result<(), IoError>,
    ) {
        let digests = self.config.digests;
        let Some(each) = self.queues.get_mut(usize::from(queue)) else { return };
        if each.stream != Stream::Connecting {
            return;
        }
        match result {
            Ok(()) => {
                let opened = each.open(mem, digests);
                self.actions.push_back(Action::Receive { queue });
                if opened {
                    self.begin(mem, now, Step::Initialize(queue));
                } else {
                    self.lose(mem, now, Why::NoMemory);
                }
            }
            Err(error) => {
                each.stream = Stream::Closed;
                self.lose(mem, now, Why::Connect(error));
            }
        }
    }

    /// Bytes `0 .. len` of `input` came on a connection; the buffer stays the caller's.
    pub fn received<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        queue: u16,
        input: &Lease,
        len: u32,
    ) {
        let index = usize::from(queue);
        let mut at = 0;
        while let Some(each) = self.queues.get_mut(index).filter(|q| q.stream == Stream::Open) {
            match each.step(mem, input, at, len) {
                Err(error) => return self.terminate(mem, now, queue, error),
                Ok((_, Heard::More)) => break,
                Ok((consumed, heard)) => {
                    at += consumed;
                    match heard {
                        Heard::Answered(_) => self.harvest(mem, now, index),
                        Heard::Initialized(negotiated) => {
                            each.initialize(negotiated);
                            self.begin(mem, now, Step::Join(queue));
                        }
                        Heard::Terminated(fes) => self.lose(mem, now, Why::Terminated(fes)),
                        Heard::Requested(_) | Heard::More => {}
                    }
                }
            }
        }
        if let Some(each) = self.queues.get_mut(index).filter(|q| q.stream == Stream::Open) {
            each.pump(mem);
        }
    }

    /// A connection's receive is over: its stream ended, broke, or was closed.
    pub fn ended<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        queue: u16,
        result: Result<(), IoError>,
    ) {
        let Some(each) = self.queues.get_mut(usize::from(queue)) else { return };
        each.received_last();
        match each.stream {
            Stream::Open => {
                let why = result.map_or_else(Why::Io, |()| Why::PeerClosed);
                self.lose(mem, now, why);
            }
            Stream::Terminating(_) => self.close_queue(queue),
            Stream::Closed | Stream::Connecting | Stream::Closing => {}
        }
        self.settle(mem, now);
    }

    /// A connection's batch was sent, or the stream failed.
    pub fn sent<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        queue: u16,
        result: Result<(), IoError>,
    ) {
        let index = usize::from(queue);
        let Some(each) = self.queues.get_mut(index) else { return };
        each.landed(mem);
        let stream = each.stream;
        self.harvest(mem, now, index);
        match (stream, result) {
            (Stream::Open, Err(error)) => self.lose(mem, now, Why::Io(error)),
            (Stream::Terminating(_), Err(_)) => self.close_queue(queue),
            _ => {}
        }
        self.settle(mem, now);
    }

    /// Time has passed: looks at every deadline.
    pub fn elapsed<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.elapsed_state(mem, now);
        self.elapsed_keep_alive(mem, now);
        for queue in 0..self.queues.len() {
            let each = &mut self.queues[queue];
            match each.stream {
                Stream::Open => {
                    let why = match each.expired(now) {
                        None => continue,
                        Some(Owner::KeepAlive) => Why::KeepAlive,
                        Some(Owner::Submitter(_) | Owner::Association) => Why::CommandTimeout,
                    };
                    self.lose(mem, now, why);
                }
                Stream::Terminating(until) if until <= now => {
                    self.close_queue(u16::try_from(queue).unwrap_or(u16::MAX));
                }
                _ => {}
            }
        }
        self.settle(mem, now);
    }

    fn elapsed_state<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        match &self.state {
            State::Waiting(until) if *until <= now => self.start(mem, now),
            State::Starting(startup) if startup.due() <= now => self.startup_due(mem, now),
            State::Draining(until) if *until <= now => self.lose(mem, now, Why::CommandTimeout),
            State::ShuttingDown(shutdown) if shutdown.due() <= now => self.shutdown_due(mem, now),
            _ => {}
        }
    }

    /// Closes the association in order: commands in work finish, the controller is shut down.
    /// [`Event::Closed`] tells the end.
    pub fn close<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        match &mut self.state {
            State::Live => {
                self.state = State::Draining(now + self.config.io_timeout);
                self.drained(mem, now);
            }
            State::Waiting(_) => {
                self.state = State::Closing(None);
                self.settle(mem, now);
            }
            State::Starting(_) => self.close_all(mem, now, None),
            State::Closing(retry) => *retry = None,
            State::Draining(_) | State::ShuttingDown(_) | State::Ended => {}
        }
    }

    /// Closes the association at once, without a word to the controller.
    pub fn abort<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if self.is_ended() {
            return;
        }
        for queue in (0..).take(self.queues.len()) {
            if matches!(self.queues[usize::from(queue)].stream, Stream::Terminating(_)) {
                self.close_queue(queue);
            }
        }
        self.close_all(mem, now, None);
    }

    /// Hands on every command that ended on a queue.
    fn harvest<M: Memory>(&mut self, mem: &mut M, now: Instant, index: usize) {
        while let Some(ended) = self.queues.get_mut(index).and_then(Queue::next_over) {
            self.hand_on(mem, now, ended);
        }
    }

    fn hand_on<M: Memory>(&mut self, mem: &mut M, now: Instant, ended: Ended) {
        let Ended { owner, status, result, lease, len } = ended;
        match owner {
            Owner::Submitter(cookie) => {
                self.outstanding -= 1;
                let completed = Completed { cookie, status, result, lease };
                self.events.push_back(Event::Completed(completed));
                self.drained(mem, now);
            }
            Owner::KeepAlive => self.kept_alive(mem, now, status),
            Owner::Association => {
                if let Some(lease) = lease {
                    self.scratch = Some(lease);
                }
                match self.state {
                    State::Starting(_) => self.advance(mem, now, status, result, len),
                    State::ShuttingDown(_) => self.shutdown_answered(mem, now, status, result),
                    _ => {}
                }
            }
        }
    }

    /// If the association is to be closed and its last command ended: goes on with it.
    fn drained<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if matches!(self.state, State::Draining(_)) && self.outstanding == 0 {
            self.shut_down(mem, now);
        }
    }

    /// Puts one of the association's own commands on a queue; `data` is what it carries, or how
    /// much it brings, in the scratch buffer.
    pub(super) fn command<M: Memory>(
        &mut self,
        mem: &mut M,
        queue: u16,
        command: crate::command::Command,
        data: Data,
        deadline: Instant,
    ) {
        let (direction, len) = match data {
            Data::None => (Direction::None, 0),
            Data::Sent(len) => (Direction::FromHost, len),
            Data::Received(len) => (Direction::ToHost, len),
        };
        let lease = if len == 0 { None } else { self.scratch.take() };
        debug_assert!(len == 0 || lease.is_some(), "one command of its own at a time");
        let owner = Owner::Association;
        let request = Request { owner, command, direction, lease, len, deadline };
        let each = &mut self.queues[usize::from(queue)];
        if let Err(request) = each.submit(mem, request, FABRICS_IN_CAPSULE_BYTES) {
            // Cannot be: the association's own commands come one at a time, on empty queues. If
            // it is, the step's deadline ends it.
            self.scratch = request.lease;
        }
    }

    /// The association is live.
    pub(super) fn go_live(&mut self, live: Live) {
        self.transfer_bytes_max = live.controller.transfer_bytes_max;
        self.backoff.succeeded();
        self.state = State::Live;
        self.events.push_back(Event::Live(Box::new(live)));
    }

    /// A target broke the protocol: tells it so, and ends the association.
    fn terminate<M: Memory>(&mut self, mem: &mut M, now: Instant, queue: u16, error: FatalError) {
        let until = now + TERMINATE_LINGER;
        self.queues[usize::from(queue)].terminate(mem, error, until);
        self.lose(mem, now, Why::Protocol(error));
    }

    /// The association is lost, or could not be made.
    pub(super) fn lose<M: Memory>(&mut self, mem: &mut M, now: Instant, why: Why) {
        let was_alive = match self.state {
            State::Starting(_) => false,
            State::Live => true,
            // Its user wants it closed anyway.
            State::Draining(_) | State::ShuttingDown(_) => {
                return self.close_all(mem, now, None);
            }
            State::Waiting(_) | State::Closing(_) | State::Ended => return,
        };
        let retry = if why.is_final() { None } else { self.backoff.failed(now, was_alive) };
        self.events.push_back(Event::Lost { why, retry });
        self.close_all(mem, now, retry);
    }

    /// Closes all connections; the association is tried again then.
    pub(super) fn close_all<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        retry: Option<Instant>,
    ) {
        self.state = State::Closing(retry);
        self.keep_alive = None;
        for queue in (0..).take(self.queues.len()) {
            match self.queues[usize::from(queue)].stream {
                Stream::Connecting | Stream::Open => self.close_queue(queue),
                Stream::Closed | Stream::Terminating(_) | Stream::Closing => {}
            }
        }
        self.settle(mem, now);
    }

    /// Closes one connection.
    pub(super) fn close_queue(&mut self, queue: u16) {
        let each = &mut self.queues[usize::from(queue)];
        each.stream = match each.stream {
            Stream::Connecting => Stream::Closed,
            Stream::Open | Stream::Terminating(_) | Stream::Closing => Stream::Closing,
            Stream::Closed => return,
        };
        self.actions.push_back(Action::Close { queue });
    }

    /// Hands back what closed connections held, and goes on when all are closed.
    pub(super) fn settle<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        for index in 0..self.queues.len() {
            if self.queues[index].is_quiet() {
                self.queues[index].release(mem);
                while let Some(ended) = self.queues[index].next_left() {
                    self.hand_on(mem, now, ended);
                }
            }
        }
        let State::Closing(retry) = self.state else { return };
        if self.queues.iter().any(|queue| queue.stream != Stream::Closed) {
            return;
        }
        if let Some(scratch) = self.scratch.take() {
            mem.free(scratch);
        }
        match retry {
            Some(until) => self.state = State::Waiting(until),
            None => {
                self.state = State::Ended;
                self.events.push_back(Event::Closed);
            }
        }
    }
}

/// The data of one of the association's own commands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data {
    /// None.
    None,
    /// So many bytes of the scratch buffer are sent.
    Sent(u32),
    /// So many bytes are received into it.
    Received(u32),
}
