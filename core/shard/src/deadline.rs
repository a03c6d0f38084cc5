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
    /// Reminders of connections that are gone may be among them, so many at most.
    stale: usize,
}

/// Reminders of one connection at most: of its handshake, of its end, and of our own.
const OF_CONNECTION: usize = 3;
/// Stale reminders that are not worth looking for.
const STALE_KEPT: usize = 256;

impl Deadlines {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(capacity), stale: 0 }
    }

    pub(crate) fn remind(&mut self, at: Instant, reminder: Reminder) {
        self.heap.push(Reverse((at, reminder)));
    }

    /// A connection is gone. Of what many of them left behind nothing is kept, however fast they
    /// come and go.
    pub(crate) fn connection_gone(&mut self, lives: impl Fn(Key) -> bool) {
        self.stale += OF_CONNECTION;
        if self.stale > STALE_KEPT && self.stale > self.heap.len() / 2 {
            self.stale = 0;
            self.heap.retain(|Reverse((_, reminder))| match reminder {
                Reminder::Connection(key) => lives(*key),
                _ => true,
            });
        }
    }

    /// Reminders that are set.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
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
