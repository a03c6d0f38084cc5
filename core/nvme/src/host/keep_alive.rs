//! Keep alive (Base 3.9): a command every half of the time-out, on a slot of its own.
//!
//! Invariants:
//! 1. One is outstanding at most. One that is not answered within the time-out means that the
//!    path is lost: its deadline in the queue says so.
//! 2. It goes out even when the admin queue is full.

use core::time::Duration;

use braid_block::{Instant, Memory};

use super::controller::Controller;
use super::queue::Request;
use super::slot::Owner;
use super::why::Why;
use crate::command::{Command, Direction, admin};
use crate::{FABRICS_IN_CAPSULE_BYTES, Status};

/// When to send the next one.
#[derive(Debug)]
pub(super) struct KeepAlive {
    timeout: Duration,
    due: Instant,
    outstanding: bool,
}

impl KeepAlive {
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        Self { timeout, due: now + timeout / 2, outstanding: false }
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }
}

impl Controller {
    /// Sends a keep alive if it is time and the one before was answered.
    pub(super) fn elapsed_keep_alive<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let Some(keep_alive) = self.keep_alive.as_mut().filter(|k| k.due <= now) else { return };
        keep_alive.due = now + keep_alive.timeout / 2;
        if core::mem::replace(&mut keep_alive.outstanding, true) {
            return;
        }
        let request = Request {
            owner: Owner::KeepAlive,
            command: Command::new(admin::KEEP_ALIVE, 0),
            direction: Direction::None,
            lease: None,
            len: 0,
            digest: None,
            deadline: now + keep_alive.timeout,
        };
        let sent = self.queues[0].submit(mem, request, FABRICS_IN_CAPSULE_BYTES);
        debug_assert!(sent.is_ok(), "its slot is free when none is outstanding");
    }

    /// A keep alive was answered.
    pub(super) fn kept_alive<M: Memory>(&mut self, mem: &mut M, now: Instant, status: Status) {
        let Some(keep_alive) = &mut self.keep_alive else { return };
        keep_alive.outstanding = false;
        if !status.is_success() {
            self.lose(mem, now, Why::KeepAlive);
        }
    }
}
