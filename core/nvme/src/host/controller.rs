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
use super::event::Event;
use super::keep_alive::KeepAlive;
use super::queue::{Queue, Stream};
use super::shutdown::Shutdown;
use super::slot::Owner;
use super::startup::{Startup, Step};
use super::watch::Watch;
use super::why::Why;

/// Entries of the admin queue: what every target must offer (Base 3.3.1.1 wants 32 on fabrics).
pub(super) const ADMIN_ENTRIES: u16 = 32;

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
    /// What is known while it is live.
    pub(super) watch: Option<Box<Watch>>,
    pub(super) backoff: Backoff,
    pub(super) transfer_bytes_max: u32,
    /// Commands of the user in work.
    pub(super) outstanding: u32,
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
            watch: None,
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
                        Some(_) => Why::CommandTimeout,
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
}
