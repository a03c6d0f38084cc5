//! Hosts' commands in work.

use alloc::boxed::Box;

use braid_block::{Instant, Key, Lease};

use crate::record::REPLICAS_MAX;
use crate::wire::{Answer, Refusal};
use crate::{Completion, Request, Status, Work};

use super::Volume;
use super::state::bit;
use super::write::regions;

/// How often something is tried that a bad block is in the way of: every other replica may leave
/// once meanwhile.
pub(crate) const TRIES_MAX: u8 = REPLICAS_MAX as u8;

/// A host's command, from its admission until its buffer is free.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) tag: u64,
    pub(crate) association: u32,
    pub(crate) work: Work,
    pub(crate) lease: Option<Lease>,
    pub(crate) state: State,
    /// Slots that have not answered yet.
    pub(crate) out: u8,
    /// A bad block in it was tried to be written anew.
    pub(crate) repaired: bool,
    /// Tries of that which came to nothing.
    pub(crate) undone: u8,
    /// Members that could not read it.
    pub(crate) avoid: u8,
    /// The byte that a member could not read to write a part of its block.
    pub(crate) bad: Option<u64>,
    /// What was read may have been taken back.
    pub(crate) stale: bool,
    /// It stands in the list of those who wait.
    pub(crate) listed: bool,
}

/// How far a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not yet admitted: a snapshot drains, or its host is being told of a loss.
    Queued,
    /// Waits for its range.
    Locking,
    /// A member could not read a block that the write changes a part of: its blocks are made equal
    /// under its lock, then it is written again.
    Mending,
    /// Sent to these, applied by these; these had no space.
    Writing { targets: u8, applied: u8, full: u8 },
    /// Sent; these had to do it then, these did.
    Flushing { number: u64, counts: u8, done: u8 },
    /// To be read, as soon as that is allowed.
    Reading,
    /// Sent to a member.
    Asked,
    /// The value is there, and came when the ranges had been granted so many times.
    Answering { grants: u64 },
    /// A bad block in it is being written anew.
    Repairing,
    /// What is left is to get the buffer back.
    Ending(Status),
}

impl Op {
    pub(crate) fn new(request: Request) -> Self {
        let Request { tag, association, work, lease } = request;
        Self {
            tag,
            association,
            work,
            lease,
            state: State::Queued,
            out: 0,
            repaired: false,
            undone: 0,
            avoid: 0,
            bad: None,
            stale: false,
            listed: false,
        }
    }

    /// First byte, and the one after the last.
    pub(crate) const fn range(&self) -> (u64, u64) {
        match self.work {
            Work::Read { offset, len } | Work::Write { offset, len, .. } => {
                (offset, offset + len as u64)
            }
            Work::Zero { offset, len, .. } => (offset, offset + len),
            Work::Flush => (0, 0),
        }
    }

    /// Bad blocks of it were to be written anew. What came of nothing is tried again, for somebody
    /// may have left meanwhile, but not without an end.
    pub(crate) const fn count_repair(&mut self, done: bool) {
        self.undone += !done as u8;
        self.repaired = done || self.undone >= TRIES_MAX;
    }

    /// The regions that it touches: the first, and the one after the last.
    pub(crate) fn regions(&self) -> (u32, u32) {
        let (first, end) = self.range();
        regions(first, end)
    }

    /// Whether its completion says that something is on the media.
    pub(crate) const fn is_durable(&self) -> bool {
        match self.work {
            Work::Write { durable, .. } | Work::Zero { durable, .. } => durable,
            Work::Flush => true,
            Work::Read { .. } => false,
        }
    }
}

impl Volume {
    /// Lets a command go on as far as it can.
    pub(crate) fn advance(&mut self, now: Instant, key: Key) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.listed = false;
        match op.state {
            State::Queued => self.admit(now, key),
            // It may be looked at for another reason than its lock.
            State::Locking => {
                let nexus = self.nexus.as_ref();
                if nexus.is_some_and(|nexus| nexus.ranges.holds(super::Holder::Op(key))) {
                    self.send_write(now, key);
                }
            }
            State::Writing { .. } => self.settle_write(now, key),
            State::Flushing { .. } => self.settle_flush(key),
            State::Reading => self.send_read(now, key),
            State::Answering { grants } => self.answer_read(now, key, grants),
            State::Asked | State::Repairing | State::Mending => {}
            State::Ending(_) => self.finish(key),
        }
    }

    /// Admits a command, if commands are admitted.
    fn admit(&mut self, now: Instant, key: Key) {
        let Some(nexus) = self.nexus.as_ref().filter(|_| self.is_optimized()) else {
            return self.conclude(key, Status::Inaccessible);
        };
        if nexus.barrier {
            return self.wait(key);
        }
        if self.must_be_told(key) {
            return;
        }
        let op = self.ops.get_mut(key).expect("it is in work");
        match op.work {
            Work::Read { .. } => {
                op.state = State::Reading;
                self.send_read(now, key);
            }
            Work::Write { .. } | Work::Zero { .. } => self.lock_write(now, key),
            Work::Flush => self.send_flush(now, key),
        }
    }

    /// Looks at a command again when something changed.
    pub(crate) fn wait(&mut self, key: Key) {
        let Some(op) = self.ops.get_mut(key) else { return };
        if !core::mem::replace(&mut op.listed, true) {
            self.waiting.push_back(key);
        }
    }

    /// Decides what a command is answered, and answers it when its buffer is free.
    pub(crate) fn conclude(&mut self, key: Key, status: Status) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.state = State::Ending(status);
        self.finish(key);
    }

    fn finish(&mut self, key: Key) {
        let Some(op) = self.ops.get(key) else { return };
        let State::Ending(status) = op.state else { return };
        if op.out != 0 {
            return;
        }
        // Something may wait for the last command to end.
        self.stepped |= self.nexus.as_ref().is_some_and(|nexus| nexus.watches());
        let Some(Op { tag, lease, .. }) = self.ops.remove(key) else { return };
        self.completions.push_back(Completion { tag, lease, status });
    }

    /// A member answered a host's command.
    pub(crate) fn on_op_done(
        &mut self,
        now: Instant,
        key: Key,
        slot: u8,
        result: Result<Answer, Refusal>,
    ) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.out &= !bit(slot);
        match op.state {
            State::Writing { .. } => self.on_written(now, key, slot, &result),
            State::Flushing { .. } => self.on_flushed(now, key, slot, &result),
            State::Asked => self.on_read(now, key, slot, &result),
            _ => self.finish(key),
        }
    }

    /// Looks at every command that members or a joiner hold up: they have changed.
    pub(crate) fn settle_all(&mut self) {
        let nexus = self.nexus.as_ref().expect("its members changed");
        let there = nexus.members | nexus.joiner_slot().map_or(0, bit);
        for (key, op) in self.ops.iter_mut() {
            if let State::Writing { targets, .. } | State::Flushing { counts: targets, .. } =
                &mut op.state
            {
                // Who left was not sent this by the association that it may come back with.
                *targets &= there;
                self.ready.push_back(super::Holder::Op(key));
            }
        }
        self.stirred = true;
    }

    /// Sends commands back of which nothing was sent to a replica, for their buffers: what hosts
    /// wait for needs memory, and buffers of those that wait for it must not be all there is. The
    /// last ones first, so that no lock is granted in between.
    pub(crate) fn make_room(&mut self) {
        let Some(nexus) = self.nexus.as_ref() else { return };
        let unsent = |key: Key, op: &Op| match op.state {
            State::Queued | State::Reading => op.out == 0,
            State::Locking => !nexus.ranges.holds(super::Holder::Op(key)),
            _ => false,
        };
        let all = self.ops.iter().filter(|(_, op)| op.lease.is_some());
        let keys: Box<[Key]> =
            all.filter(|(key, op)| unsent(*key, op)).map(|(key, _)| key).collect();
        for key in keys.into_iter().rev() {
            let nexus = self.nexus.as_mut().expect("it is serving");
            nexus.ranges.unlock(super::Holder::Op(key), &mut self.ready);
            self.conclude(key, Status::Busy);
        }
    }

    /// Ends all commands that change nothing and wait: hosts shall ask elsewhere.
    pub(crate) fn refuse_waiting(&mut self) {
        let waits = |op: &Op| {
            let unsent = matches!(op.state, State::Queued | State::Reading);
            op.out == 0 && (unsent || matches!(op.state, State::Answering { .. }))
        };
        let keys: Box<[Key]> =
            self.ops.iter().filter(|(_, op)| waits(op)).map(|(key, _)| key).collect();
        for key in keys {
            self.conclude(key, Status::Inaccessible);
        }
    }
}
