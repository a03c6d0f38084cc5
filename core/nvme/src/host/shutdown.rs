//! An orderly end: I/O queues are closed, the controller shuts down, the admin queue is closed
//! (Base 3.6).
//!
//! ```text
//!   Asking (CC.SHN 01b) --> Looking (CSTS.SHST) <--> Pausing --> all closed
//! ```

use core::time::Duration;

use braid_block::{Instant, Memory};

use super::commands::Data;
use super::controller::{Controller, State};
use super::queue::Stream;
use super::slot::Owner;
use super::startup::dwords;
use crate::Status;
use crate::property::{Configuration, ControllerStatus, Property};

/// Pause between two looks at CSTS.SHST.
const POLL: Duration = Duration::from_millis(5);
/// How long a controller may take: nothing waits for it but we, so it is not much.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How far it is.
#[derive(Debug)]
pub(super) struct Shutdown {
    step: Step,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Asking,
    Looking,
    Pausing(Instant),
}

impl Shutdown {
    /// When something is to be done if nothing happens.
    pub(super) fn due(&self) -> Instant {
        match self.step {
            Step::Pausing(until) => until.min(self.deadline),
            Step::Asking | Step::Looking => self.deadline,
        }
    }
}

impl Controller {
    /// Begins it: no command of the user is in work any more.
    pub(super) fn shut_down<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let deadline = now + TIMEOUT;
        self.state = State::ShuttingDown(Shutdown { step: Step::Asking, deadline });
        for queue in (1..).take(self.queues.len() - 1) {
            if self.queues[usize::from(queue)].stream == Stream::Open {
                self.close_queue(queue);
            }
        }
        let shutdown = Configuration::SHUTDOWN.to_wire().into();
        self.command(
            mem,
            (0, Owner::Association),
            Property::Configuration.set(shutdown),
            Data::None,
            deadline,
        );
    }

    /// The current step's command was answered. Whatever is refused: we close all the same.
    pub(super) fn shutdown_answered<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        status: Status,
        result: u64,
    ) {
        let State::ShuttingDown(shutdown) = &mut self.state else { return };
        let [csts, _] = dwords(result);
        let csts = ControllerStatus::from_wire(csts);
        match shutdown.step {
            _ if !status.is_success() => self.close_all(mem, now, None),
            Step::Asking => self.look(mem),
            Step::Looking if csts.shut_down() || csts.fatal() => self.close_all(mem, now, None),
            Step::Looking => shutdown.step = Step::Pausing(now + POLL),
            Step::Pausing(_) => {}
        }
    }

    /// A deadline of it is here.
    pub(super) fn shutdown_due<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let State::ShuttingDown(shutdown) = &self.state else { return };
        if shutdown.deadline <= now { self.close_all(mem, now, None) } else { self.look(mem) }
    }

    fn look<M: Memory>(&mut self, mem: &mut M) {
        let State::ShuttingDown(shutdown) = &mut self.state else { return };
        shutdown.step = Step::Looking;
        let deadline = shutdown.deadline;
        self.command(mem, (0, Owner::Association), Property::Status.get(), Data::None, deadline);
    }
}
