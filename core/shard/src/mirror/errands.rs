//! What guards want done: by the pool, durably, or by ending an association.
//!
//! Invariants:
//! 1. The buffer of a command of this shard stays its volume's: what the pool gets is an alias,
//!    which is dropped when it comes back. The volume keeps the buffer until the answer.
//! 2. A guard is told the end of everything that it had carried out, also if it has answered it
//!    meanwhile. That can be a fence, whose work is a command of the pool: a newer fence took its
//!    place. What is a request of the pool is answered only when it has ended.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use braid_block::{Key, Lease, Memory, Span, Sums, Token};
use braid_nexus::guard::{Act, Event, Outcome};
use braid_nexus::record::Uuid;
use braid_nexus::wire::{Command, Refusal};
use braid_pool::{Bearing, Completion, Done, Failure, Fence, Handle, Request, Work};

use super::arrivals::{Arrival, Sender};
use super::lines::Peer;
use super::rehearsal::Deed;
use crate::note::Why;
use crate::pool::{Asker, PoolId};
use crate::{Shard, token};

/// What a pool does for members besides requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Reads what is known of a replica.
    Load(Uuid),
    /// Keeps a fence or a copy of the record.
    Keep { member: usize, tag: u64 },
    /// Carries out what a guard asked for, which it may have answered meanwhile: a newer fence took
    /// the place of an older one. It is told the end all the same.
    Carry { member: usize, tag: u64 },
}

impl Shard {
    /// Gives a pool a command on behalf of a guard.
    pub(super) fn order<M: Memory>(
        &mut self,
        mem: &mut M,
        pool: PoolId,
        errand: Errand,
        command: braid_pool::Command,
    ) {
        let now = self.now;
        if let Some(failure) = self.pools.order(mem, now, pool, Asker::Member(errand), command) {
            self.on_errand_done(mem, pool, errand, Err(failure), None);
        }
    }

    /// Does what a guard wants.
    pub(super) fn guard_acts<M: Memory>(&mut self, mem: &mut M, member: usize) {
        while let Some(act) = self.members.get(member).and_then(|found| found.guard.poll_act()) {
            match act {
                Act::Carry { tag, command } => self.carry(mem, key_of(tag), command),
                Act::Keep { tag, fence, kept } => {
                    let Some(found) = self.members.get(member) else { return };
                    let (pool, uuid, handle) = (found.pool, found.uuid, found.handle);
                    if fence.is_some() {
                        self.expel_hosts(mem, pool, handle);
                    }
                    let bearing = Box::new(Bearing {
                        fence: fence.map(|(epoch, owner)| Fence { epoch, owner }),
                        member: Some(true),
                        record: Some(kept.encode().into()),
                        reservation: None,
                    });
                    let command = braid_pool::Command::Bear { uuid, bearing };
                    self.order(mem, pool, Errand::Keep { member, tag }, command);
                }
                Act::Answer { tag, result, .. } => {
                    if let Some(arrival) = self.members.arrivals.remove(key_of(tag)) {
                        self.answer_arrival(mem, &arrival, result);
                    }
                }
                Act::Close { association } => {
                    let Some(line) = self.members.lines.by_number(association) else { continue };
                    match self.members.close(self.now, line) {
                        Some(Peer::Controller(at, key)) => {
                            self.end_controller(mem, at, key, Why::Fenced);
                        }
                        Some(Peer::Volume) => self.link_broken(line),
                        None => {}
                    }
                }
            }
        }
        self.bury_member(member);
    }

    /// Lets the pool do what a guard carries.
    fn carry<M: Memory>(&mut self, mem: &mut M, key: Key, command: Command) {
        let Some(arrival) = self.members.arrivals.get_mut(key) else { return };
        let Some(Some(found)) = self.members.list.get(arrival.member) else { return };
        let (id, uuid, handle) = (found.pool, found.uuid, found.handle);
        let named = |shard: &Self, uuid: &Uuid| shard.pool(id).and_then(|pool| pool.find(uuid));
        let errand = Errand::Carry { member: arrival.member, tag: tag_of(key) };
        let order = |shard: &mut Self, mem: &mut M, command| {
            shard.order(mem, id, errand, command);
        };
        let (handle, work) = match command {
            Command::Read { offset, len } => (Some(handle), Work::Read { offset, len }),
            Command::ReadSnapshot { snapshot, offset, len } => {
                (named(self, &snapshot), Work::Read { offset, len })
            }
            Command::Write { offset, len, durable } => {
                (Some(handle), Work::Write { offset, len, durable })
            }
            Command::Zero { offset, len, durable } => {
                (Some(handle), Work::Zero { offset, len, durable })
            }
            Command::Flush { number } => (Some(handle), Work::Flush { number: Some(number) }),
            Command::Compare { snapshot, offset, len } => {
                let of = snapshot.map_or(Some(handle), |uuid| named(self, &uuid));
                (of, Work::Compare { offset, len })
            }
            Command::Snapshot { uuid } => {
                arrival.snapshot = Some(uuid);
                (Some(handle), Work::Flush { number: None })
            }
            Command::Marks { snapshot } => {
                let uuid = snapshot.map_or(uuid, |uuid| *uuid);
                return order(self, mem, braid_pool::Command::Marks { uuid });
            }
            Command::Clean { regions, .. } => {
                self.members.stage.begins(key, Deed::Cleaned { replica: uuid });
                return order(self, mem, braid_pool::Command::Clean { uuid, regions });
            }
            Command::DeleteSnapshot { uuid } => {
                return order(self, mem, braid_pool::Command::DeleteSnapshot { uuid: *uuid });
            }
            Command::Resize { bytes } => {
                return order(self, mem, braid_pool::Command::Resize { uuid, bytes });
            }
            Command::Fence(_) | Command::CopyRecord(_) | Command::Lease | Command::Release => {
                debug_assert!(false, "a guard carries out what is for the pool alone");
                return self.carried(mem, key, Err(Refusal::Invalid));
            }
        };
        match handle {
            Some(handle) => self.request(mem, key, id, handle, work),
            None => self.carried(mem, key, Err(Refusal::Invalid)),
        }
    }

    /// Asks the pool for something, with the buffer of who asked.
    fn request<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        pool: PoolId,
        handle: Handle,
        work: Work,
    ) {
        self.stage_request(mem, key, &work);
        let Some(arrival) = self.members.arrivals.get(key) else { return };
        let moves = matches!(work, Work::Read { .. } | Work::Write { .. } | Work::Compare { .. });
        let (lease, sums) = match arrival.from {
            Sender::Op(op) if moves => {
                let sums = self.sums_for(op, &work);
                (self.ops.get_mut(op).and_then(|op| op.lease.take()), sums)
            }
            // An alias: the volume keeps the buffer until the answer.
            Sender::Volume { span: Some(span), .. } if moves => {
                (Some(Lease::new(span.lease)), self.sums_of(&span, &work))
            }
            _ => (None, None),
        };
        let tag = Token::new(token::MEMBER, key).to_bits();
        let request = Request { tag, handle, work, lease };
        let now = self.now;
        if let Err(request) = self.pools.submit(mem, now, pool, request, sums) {
            self.members.stage.ends(key, false);
            self.take_back(key, request.lease);
            self.carried(mem, key, Err(Refusal::Failed));
        }
    }

    /// What is known of a buffer of a volume of this shard: sums of what is written, or a place for
    /// those of what is read.
    fn sums_of(&mut self, span: &Span, work: &Work) -> Option<Box<Sums>> {
        let known = &mut self.volumes.sums;
        match work {
            Work::Write { len, .. } => {
                let known = known.of_write(span.lease, *len)?;
                let mut sums = self.sums.pop().unwrap_or_default();
                sums.as_mut().clone_from(known);
                Some(sums)
            }
            Work::Read { len, .. } => known.lend(span.lease, *len),
            _ => None,
        }
    }

    /// The buffer goes back to the op; an alias is dropped.
    fn take_back(&mut self, key: Key, lease: Option<Lease>) {
        if let Some(Arrival { from: Sender::Op(op), .. }) = self.members.arrivals.get(key)
            && let Some(op) = self.ops.get_mut(*op)
        {
            op.lease = op.lease.take().or(lease);
        }
    }

    /// A pool is done with a request of a guard.
    pub(crate) fn on_member_request_done<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        completion: Completion,
        sums: Option<Box<Sums>>,
    ) {
        let Completion { lease, result, .. } = completion;
        self.members.stage.ends(key, result.is_ok());
        self.take_back(key, lease);
        let Some(arrival) = self.members.arrivals.get_mut(key) else {
            debug_assert!(false, "a guard answers a request when it has ended, not before");
            return self.sums.extend(sums);
        };
        let (from, fills) = (arrival.from, arrival.fills);
        arrival.digest = sums.as_ref().and_then(|sums| sums.of_all(fills));
        let known = &mut self.volumes.sums;
        let left = match (from, sums) {
            (Sender::Volume { span: Some(span), .. }, Some(sums)) if fills > 0 => {
                known.filled(span.lease, fills, sums)
            }
            (_, sums) => sums,
        };
        self.sums.extend(left);
        let Some(arrival) = self.members.arrivals.get_mut(key) else { return };
        match (result, arrival.snapshot.take()) {
            (Ok(_), Some(uuid)) => {
                let member = arrival.member;
                let Some(found) = self.members.get(member) else { return };
                let (pool, replica) = (found.pool, found.uuid);
                let name = snapshot_name(&uuid);
                let command =
                    braid_pool::Command::Snapshot { replica, uuid: *uuid, name, created: 0 };
                let errand = Errand::Carry { member, tag: tag_of(key) };
                self.order(mem, pool, errand, command);
            }
            (result, _) => {
                self.carried(mem, key, result.map(|_| Outcome::Done).map_err(refusal));
            }
        }
    }

    /// A pool is done with a command of a guard.
    pub(crate) fn on_errand_done<M: Memory>(
        &mut self,
        mem: &mut M,
        pool: PoolId,
        errand: Errand,
        result: Result<Done, Failure>,
        marks: Option<Vec<(u32, u32)>>,
    ) {
        match errand {
            Errand::Load(uuid) => self.loaded(pool, uuid, result.is_ok()),
            Errand::Keep { member, tag } => {
                let result = result.map(|_| ()).map_err(refusal);
                if let Some(found) = self.members.get(member) {
                    found.guard.handle(self.now, Event::Kept { tag, result });
                }
                self.guard_acts(mem, member);
            }
            Errand::Carry { member, tag } => {
                self.members.stage.ends(key_of(tag), result.is_ok());
                let outcome = marks.map_or(Outcome::Done, |marks| Outcome::Marks(marks.into()));
                let result = result.map(|_| outcome).map_err(refusal_of_command);
                self.tell_guard(mem, member, tag, result);
            }
        }
    }

    fn carried<M: Memory>(&mut self, mem: &mut M, key: Key, result: Result<Outcome, Refusal>) {
        let Some(arrival) = self.members.arrivals.get(key) else { return };
        let member = arrival.member;
        self.tell_guard(mem, member, tag_of(key), result);
    }

    /// What a guard asked for has ended. One that is new in that place knows no such tag.
    fn tell_guard<M: Memory>(
        &mut self,
        mem: &mut M,
        member: usize,
        tag: u64,
        result: Result<Outcome, Refusal>,
    ) {
        if let Some(found) = self.members.get(member) {
            found.guard.handle(self.now, Event::Carried { tag, result });
        }
        self.guard_acts(mem, member);
    }
}

/// What the names of snapshots begin with that a volume took of its replicas.
pub const SNAPSHOT_PREFIX: &str = "volume-snapshot-";

/// What people see of a volume's snapshot in a list of a pool.
fn snapshot_name(uuid: &Uuid) -> String {
    let mut name = String::from(SNAPSHOT_PREFIX);
    for byte in &uuid[..4] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// What a nexus is told of a pool's failure.
const fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::NoSpace => Refusal::NoSpace,
        Failure::Media(offset) => Refusal::Media(offset),
        Failure::Failed | Failure::Stopping => Refusal::Failed,
        // Too much at once is no broken device: the association ends, and begins anew.
        Failure::Limit => Refusal::Gone,
        Failure::NotFound
        | Failure::Exists
        | Failure::Busy
        | Failure::ReadOnly
        | Failure::OutOfRange
        | Failure::Invalid => Refusal::Invalid,
    }
}

/// What a nexus is told of a failure of a pool's command, of which there are never too many at
/// once: its limit is a full table, as of layers, or the end of what maps reach. That lasts, and is
/// the command's alone: the replica is as good as it was.
const fn refusal_of_command(failure: Failure) -> Refusal {
    match failure {
        Failure::Limit => Refusal::NoSpace,
        other => refusal(other),
    }
}

pub(super) fn tag_of(key: Key) -> u64 {
    Token::new(token::MEMBER, key).to_bits()
}

const fn key_of(tag: u64) -> Key {
    Token::from_bits(tag).key()
}
