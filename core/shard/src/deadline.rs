//! The shard's alarm clock: one heap of coarse deadlines.
//!
//! An entry is a reminder to look, not a promise that something is due: what moves its deadline
//! (a keep alive, a finished handshake) leaves the entry alone, and who is reminded too early
//! sets another.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use braid_block::{Instant, Key};

/// Whom to remind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reminder {
    /// A connection: its handshake or its end takes long.
    Connection(Key),
    /// A controller of a subsystem: its keep alive time-out.
    Controller(u16, Key),
    /// A delayed operation.
    Op(Key),
    /// A subsystem of which a group is changing.
    Transition(u16),
    /// All connections that are sending.
    Sweep,
    /// The end of an orderly stop.
    Drain,
}

/// The heap.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, Reminder)>>,
}

impl Deadlines {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(capacity) }
    }

    pub(crate) fn remind(&mut self, at: Instant, reminder: Reminder) {
        self.heap.push(Reverse((at, reminder)));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next reminder that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Reminder> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, reminder))| reminder)
    }
}
