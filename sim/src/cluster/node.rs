//! A node: a machine with a disk, on which a process runs, or not.

use std::collections::VecDeque;

use super::drive::Drive;
use super::process::{Context, Input};
use super::running::Running;

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) drive: Drive,
    /// Counts starts of the machine; what an instance depends on.
    pub(crate) boot: u64,
    /// Counts processes: what was set for one is not meant for the next.
    pub(crate) life: u64,
    pub(crate) powered: bool,
    pub(crate) process: Option<Running>,
    /// Counts pauses; odd while one lasts.
    pub(crate) pause: u64,
    backlog: VecDeque<Input>,
}

impl Node {
    pub(crate) const fn new(drive: Drive) -> Self {
        Self {
            drive,
            boot: 1,
            life: 0,
            powered: true,
            process: None,
            pause: 0,
            backlog: VecDeque::new(),
        }
    }

    /// Whether its process does nothing for a while.
    pub(crate) const fn is_paused(&self) -> bool {
        self.pause % 2 == 1
    }

    /// Starts a process.
    pub(crate) fn start(&mut self, cx: &mut Context<'_>, process: Running) {
        self.process = Some(process);
        if let Some(process) = &mut self.process {
            process.touch(cx);
        }
    }

    /// The process is gone; what it had is over. It counts as another life.
    pub(crate) fn end_process(&mut self) -> Option<Running> {
        self.life += 1;
        self.pause += self.pause % 2;
        self.backlog.clear();
        self.process.take()
    }

    /// Something comes for the process: now, or when its pause ends.
    pub(crate) fn take(&mut self, cx: &mut Context<'_>, input: Input) {
        if self.is_paused() {
            self.backlog.push_back(input);
        } else if let Some(process) = &mut self.process {
            process.take(cx, input);
        }
    }

    /// A pause ends: deadlines first, then what came meanwhile.
    pub(crate) fn resume(&mut self, cx: &mut Context<'_>) {
        self.pause += self.pause % 2;
        let Some(process) = &mut self.process else { return };
        process.elapse(cx);
        for input in std::mem::take(&mut self.backlog) {
            process.take(cx, input);
        }
    }

    /// Ends a turn of the process.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) {
        let paused = self.is_paused();
        match &mut self.process {
            // Whatever wakes it sets another.
            Some(process) if paused => process.miss_turn(),
            Some(process) => process.turn(cx, &mut self.drive),
            None => {}
        }
    }
}
