//! How an association ends: in order, at once, or because something went wrong.
//!
//! Invariants:
//! 1. All its connections end together, and only when all are at rest is it tried again.
//! 2. What its commands held is handed back when their connection is at rest, not before.

use core::time::Duration;

use braid_block::{Instant, Memory};

use super::controller::{Action, Controller, State};
use super::event::Event;
use super::queue::Stream;
use super::why::Why;
use crate::pdu::FatalError;

/// How long a target that broke the protocol has to close the connection after it was told.
const TERMINATE_LINGER: Duration = Duration::from_secs(1);

impl Controller {
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

    /// A target broke the protocol: tells it so, and ends the association.
    pub(super) fn terminate<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        queue: u16,
        error: FatalError,
    ) {
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
        self.watch = None;
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
