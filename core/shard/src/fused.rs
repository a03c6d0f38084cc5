//! Compare and Write as one: two commands that follow each other on a queue, of which the second is
//! done only if the first finds what it should, and nobody else writes there in between.
//!
//! ```text
//!            data of both is here      writes to the range are done      equal
//!   Fused ------------------------> Locking --------------------> compare -----> write
//! ```
//!
//! Invariants:
//! 1. Neither is begun before the data of both is here.
//! 2. From when a pair waits for its range until it is through, no other write to that range is
//!    begun, whatever queue it came by; pairs take their turns in the order in which they came.
//! 3. The first is answered before the second.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Extent, Key, Memory};
use braid_nvme::Status;
use braid_nvme::command::{Command, Fuse};

use crate::Shard;
use crate::op::{Fused, Op, State, Work};

/// The first of two commands, of which the second has to come next on its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    /// Its entry; none if it was refused.
    pub(crate) op: Option<Key>,
    /// What it is about: namespace, first block, blocks.
    place: (u32, u64, u32),
}

/// The ranges of a namespace that pairs have to themselves.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    held: Vec<Lock>,
    /// Writes that wait for one of them.
    blocked: VecDeque<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    first: Key,
    second: Key,
    extent: Extent,
}

/// What a pair is about, as the commands say it.
pub(crate) fn place(command: &Command) -> (u32, u64, u32) {
    (command.nsid.get(), command.slba(), command.block_count())
}

impl First {
    pub(crate) fn new(op: Option<Key>, command: &Command) -> Self {
        Self { op, place: place(command) }
    }

    /// Whether a second command is about the same blocks.
    pub(crate) fn matches(&self, command: &Command) -> bool {
        self.place == place(command)
    }
}

impl Locks {
    /// Whether a write must wait; `but` is the second of a pair, for which its own lock is.
    fn bars(&self, extent: Extent, but: Key) -> bool {
        self.held.iter().any(|lock| lock.second != but && overlap(lock.extent, extent))
    }
}

fn overlap(a: Extent, b: Extent) -> bool {
    a.offset < b.offset.saturating_add(b.len) && b.offset < a.offset.saturating_add(a.len)
}

/// What becomes of a command whose other one failed: what is wrong with its path is so with both.
const fn companion(status: Status) -> Status {
    if status.is_path_error() { status } else { Status::FUSED_FAILED }
}

impl Shard {
    /// What a command of a queue has to do with the one before it. An error: it is to be answered
    /// so.
    pub(crate) fn fuse<M: Memory>(
        &mut self,
        mem: &mut M,
        conn: Key,
        command: &Command,
    ) -> Result<Option<Fused>, Status> {
        let Some(queue) = self.conns.get_mut(conn).and_then(|conn| conn.queue_mut()) else {
            return Ok(None);
        };
        let first = queue.first.take();
        match (command.fuse(), first) {
            (Some(Fuse::Second), None) => Err(Status::FUSED_MISSING),
            (Some(Fuse::Second), Some(first)) => {
                let key = first.op.filter(|key| self.ops.get(*key).is_some());
                let key = key.ok_or(Status::FUSED_FAILED)?;
                if first.matches(command) {
                    return Ok(Some(Fused::Second { first: key }));
                }
                self.doom(mem, key, Status::INVALID_FIELD.dnr());
                Err(Status::INVALID_FIELD.dnr())
            }
            (fuse, first) => {
                if let Some(key) = first.and_then(|first| first.op) {
                    self.doom(mem, key, Status::FUSED_MISSING);
                }
                Ok((fuse == Some(Fuse::First)).then_some(Fused::First { second: None }))
            }
        }
    }

    /// The queue of a connection will not bring the second command any more.
    pub(crate) fn miss_second<M: Memory>(&mut self, mem: &mut M, conn: Key) {
        let queue = self.conns.get_mut(conn).and_then(|conn| conn.queue_mut());
        if let Some(key) = queue.and_then(|queue| queue.first.take()).and_then(|first| first.op) {
            self.doom(mem, key, Status::FUSED_MISSING);
        }
    }

    /// Answers a command that only waits with this status; one whose host still sends its data,
    /// when that is here. What is in the device is left to finish.
    pub(crate) fn doom<M: Memory>(&mut self, mem: &mut M, key: Key, status: Status) {
        let Some(op) = self.ops.get_mut(key) else { return };
        if op.only_waits() || op.state == State::AwaitingData {
            op.doomed = op.doomed.or(Some(status));
        }
        if op.only_waits() {
            self.on_ready(mem, key);
        }
    }

    /// The data of a command that is one of two, or that is doomed, is here or is not needed.
    pub(crate) fn on_ready<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(op) = self.ops.get_mut(key) else { return };
        match (op.fused, op.doomed) {
            (None, Some(status)) => self.finish(mem, key, status, 0),
            (None, None) => {}
            (Some(Fused::First { second: None }), Some(status)) => {
                self.finish(mem, key, status, 0);
            }
            (Some(Fused::First { second: None }), None) => op.state = State::Fused,
            (Some(Fused::First { second: Some(second) }), _) => {
                op.state = State::Fused;
                self.try_pair(mem, key, second);
            }
            (Some(Fused::Second { first }), _) => {
                op.state = State::Fused;
                self.try_pair(mem, first, key);
            }
        }
    }

    /// Begins a pair, or ends it, once neither of the two waits for data.
    fn try_pair<M: Memory>(&mut self, mem: &mut M, first: Key, second: Key) {
        let state = |key: Key| self.ops.get(key).map(|op| (op.state, op.doomed, op.work));
        let Some((State::Fused, failed, work)) = state(first) else { return };
        let Some((State::Fused, other, _)) = state(second) else { return };
        let statuses = match (failed, other) {
            (Some(status), other) => (status, other.unwrap_or(companion(status))),
            (None, Some(status)) => (companion(status), status),
            (None, None) => return self.lock(mem, first, second, &work),
        };
        for key in [first, second] {
            // Nothing follows from the end of one for the other any more, but that of a lock.
            if let Some(Op { fused: Some(Fused::First { second }), .. }) = self.ops.get_mut(key) {
                *second = None;
            }
        }
        self.finish(mem, first, statuses.0, 0);
        self.finish(mem, second, statuses.1, 0);
    }

    fn lock<M: Memory>(&mut self, mem: &mut M, first: Key, second: Key, work: &Work) {
        let Work::Check { extent, .. } = *work else { return };
        let Some(op) = self.ops.get_mut(first) else { return };
        op.state = State::Locking;
        let namespace =
            &mut self.subsystems[usize::from(op.subsystem)].namespaces[usize::from(op.namespace)];
        if !namespace.locks.held.iter().any(|lock| lock.first == first) {
            namespace.locks.held.push(Lock { first, second, extent });
        }
        self.proceed(mem, first);
    }

    /// Whether an op that is about to touch its device has to wait: a write for the pair that has
    /// its range, a pair for writes that are at work there. It is called again when that may be
    /// over.
    pub(crate) fn is_barred(&mut self, key: Key) -> bool {
        let Some(op) = self.ops.get(key) else { return true };
        let (at, place, state) = (op.subsystem, op.namespace, op.state);
        // What has begun goes on to its end, or others would see half of it.
        let free = op.work.has_begun() || matches!(op.fused, Some(Fused::Second { .. }));
        let writes = op.work.writes().filter(|_| !free);
        let locks = &self.subsystems[usize::from(at)].namespaces[usize::from(place)].locks;
        if locks.held.is_empty() && state == State::Running {
            return false;
        }
        let barred = match (state, writes) {
            (State::Locking, _) => self.is_written(key, (at, place)),
            (State::Running | State::Blocked, Some(extent)) => locks.bars(extent, key),
            _ => return false,
        };
        let Some(op) = self.ops.get_mut(key) else { return true };
        if !barred {
            op.state = State::Running;
        } else if state != State::Locking {
            op.state = State::Blocked;
            let namespace = &mut self.subsystems[usize::from(at)].namespaces[usize::from(place)];
            namespace.locks.blocked.push_back(key);
        }
        barred
    }

    /// Whether a write to the range of a pair is at work, or an older pair has a part of it.
    fn is_written(&self, first: Key, place: (u16, u16)) -> bool {
        let namespace = &self.subsystems[usize::from(place.0)].namespaces[usize::from(place.1)];
        let held = &namespace.locks.held;
        let Some(own) = held.iter().position(|lock| lock.first == first) else { return false };
        let Lock { second, extent, .. } = held[own];
        let older = held[..own].iter().any(|lock| overlap(lock.extent, extent));
        older
            || self.ops.iter().any(|(key, op)| {
                let at_work =
                    matches!(op.state, State::Running | State::Syncing | State::Leaving(..));
                let there = || op.work.writes().is_some_and(|range| overlap(range, extent));
                key != second && (op.subsystem, op.namespace) == place && at_work && there()
            })
    }

    /// An op is gone: what waited for that goes on, the other of two among it.
    pub(crate) fn unfuse<M: Memory>(&mut self, mem: &mut M, key: Key, op: &Op, status: Status) {
        match op.fused {
            Some(Fused::First { second: Some(second) }) => {
                let Some(other) = self.ops.get_mut(second) else { return };
                match (status.is_success(), other.doomed) {
                    (true, None) => {
                        other.state = State::Running;
                        self.proceed(mem, second);
                    }
                    (true, Some(doomed)) => self.finish(mem, second, doomed, 0),
                    (false, doomed) => {
                        let status = doomed.unwrap_or(companion(status));
                        self.finish(mem, second, status, 0);
                    }
                }
            }
            _ => self.wake_barred(key, (op.subsystem, op.namespace)),
        }
    }

    /// A write is done, or a pair: whoever waits for it looks again.
    fn wake_barred(&mut self, gone: Key, place: (u16, u16)) {
        let namespaces = &mut self.subsystems[usize::from(place.0)].namespaces;
        let Some(namespace) = namespaces.get_mut(usize::from(place.1)) else { return };
        let Locks { held, blocked } = &mut namespace.locks;
        if held.is_empty() && blocked.is_empty() {
            return;
        }
        let before = held.len();
        held.retain(|lock| lock.second != gone);
        if held.len() < before {
            self.unfinished.extend(blocked.drain(..));
        }
        for lock in held {
            let drains = |op: &Op| op.state == State::Locking;
            if self.ops.get(lock.first).is_some_and(drains)
                && !self.unfinished.contains(&lock.first)
            {
                self.unfinished.push_back(lock.first);
            }
        }
    }
}
