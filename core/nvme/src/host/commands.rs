//! Commands on their way in and out: the user's and the association's own.
//!
//! Invariants:
//! 1. Every command that was taken is told by exactly one `Completed`.
//! 2. The association's own commands with data come one at a time: they share one buffer.

use braid_block::{Instant, Lease, Memory};

use super::controller::{Controller, State};
use super::event::{Completed, Event};
use super::operation::{Submission, direction};
use super::queue::{Queue, Request};
use super::slot::{Ended, Owner};
use crate::command::{Command, Direction};
use crate::{FABRICS_IN_CAPSULE_BYTES, Status};

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

impl Controller {
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
        self.submit_summed(mem, now, submission, None)
    }

    /// The same; `digest` is the CRC32C of the data that is sent, if it is known.
    ///
    /// # Errors
    /// As [`Controller::submit`].
    ///
    /// # Panics
    /// As [`Controller::submit`].
    pub fn submit_summed<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        submission: Submission,
        digest: Option<u32>,
    ) -> Result<(), Submission> {
        let Some(index) = self.choose(&submission) else { return Err(submission) };
        let Submission { operation, nsid, lease, len, cookie, queue } = submission;
        let room = lease.as_ref().map_or(0, |lease| mem.capacity(lease));
        assert!(len <= room, "a command's data must fit into its buffer");
        if len > self.transfer_bytes_max {
            let status = Status::INVALID_FIELD.dnr();
            let completed = Completed { cookie, status, result: 0, lease, digest: None };
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
            digest,
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

    /// Hands on every command that ended on a queue.
    pub(super) fn harvest<M: Memory>(&mut self, mem: &mut M, now: Instant, index: usize) {
        while let Some(ended) = self.queues.get_mut(index).and_then(Queue::next_over) {
            self.hand_on(mem, now, ended);
        }
    }

    pub(super) fn hand_on<M: Memory>(&mut self, mem: &mut M, now: Instant, ended: Ended) {
        let Ended { owner, status, result, lease, len, digest } = ended;
        match owner {
            Owner::Submitter(cookie) => {
                self.outstanding -= 1;
                let completed = Completed { cookie, status, result, lease, digest };
                self.events.push_back(Event::Completed(completed));
                self.drained(mem, now);
            }
            Owner::KeepAlive => self.kept_alive(mem, now, status),
            Owner::Association => {
                self.take_scratch(lease);
                match self.state {
                    State::Starting(_) => self.advance(mem, now, status, result, len),
                    State::ShuttingDown(_) => self.shutdown_answered(mem, now, status, result),
                    _ => {}
                }
            }
            Owner::Watch => {
                self.take_scratch(lease);
                self.watched(mem, now, status, len);
            }
            Owner::Notice => self.noticed(mem, now, status, result),
        }
    }

    fn take_scratch(&mut self, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.scratch = Some(lease);
        }
    }

    /// If the association is to be closed and its last command ended: goes on with it.
    pub(super) fn drained<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if matches!(self.state, State::Draining(_)) && self.outstanding == 0 {
            self.shut_down(mem, now);
        }
    }

    /// Puts one of the association's own commands on a queue; `data` is what it carries, or how
    /// much it brings, in the scratch buffer.
    pub(super) fn command<M: Memory>(
        &mut self,
        mem: &mut M,
        (queue, owner): (u16, Owner),
        command: Command,
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
        let digest = None;
        let request = Request { owner, command, direction, lease, len, digest, deadline };
        let each = &mut self.queues[usize::from(queue)];
        if let Err(request) = each.submit(mem, request, FABRICS_IN_CAPSULE_BYTES) {
            // Cannot be: the association's own commands come one at a time, on empty queues. If
            // it is, the step's deadline ends it.
            self.scratch = request.lease;
        }
    }
}
