//! Replicas that nexuses use: the guard before each, who asks it for what, and what its pool does.
//!
//! ```text
//! op of a connection ---+                                  +-> request or command of the pool
//!                       +-> arrival -> guard -- Carry -----+
//! command of a volume --+      ^               Keep -> command Bear
//!                              +-- Answer -- guard <- Carried, Kept
//! ```
//!
//! Invariants:
//! 1. A guard stands before a replica from the moment its pool is open: the lease that may have
//!    been promised before a restart runs out meanwhile.
//! 2. A tag that a guard was given is an arrival's key, until the guard answers it.
//! 3. The buffer of a command of this shard stays its volume's: what the pool gets is an alias,
//!    which is dropped when it comes back. The volume keeps the buffer until the answer.
//! 4. What a line holds for ReadAnswer is replaced by the next long answer, and goes with it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use braid_block::{Key, Lease, Memory, Slab, Span, Sums, Token};
use braid_nexus::Timing;
use braid_nexus::guard::{Act, Durable, Event, Guard, Kept, Outcome};
use braid_nexus::record::{Record, Uuid};
use braid_nexus::wire::{Answer, Command, Refusal, comparison_bytes};
use braid_nvme::Status;
use braid_nvme::command::Command as Entry;
use braid_pool::{Bearing, Completion, Done, Failure, Fence, Handle, Pool, Request, Work};

use super::codec;
use super::volumes::CALLS_MAX;
use crate::backend::Backend;
use crate::note::Why;
use crate::pool::{Asker, PoolId};
use crate::{Shard, token};

/// The name that nexuses connect to a replica by.
#[must_use]
pub fn member_nqn(replica: &Uuid) -> String {
    let mut nqn = String::from("nqn.2026-01.io.braid:member:");
    for (at, byte) in replica.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            nqn.push('-');
        }
        let _ = write!(nqn, "{byte:02x}");
    }
    nqn
}

/// A replica and its guard.
struct Member {
    pool: PoolId,
    uuid: Uuid,
    handle: Handle,
    guard: Guard,
    /// Its pool is closed, or it was destroyed: nothing is carried out any more.
    gone: bool,
}

/// An association of a nexus with a replica.
#[derive(Debug)]
struct Line {
    /// Its number.
    association: u32,
    member: usize,
    peer: Peer,
    /// A long answer, to be fetched.
    held: Vec<u8>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// A controller of a subsystem.
    Controller(u16, Key),
    /// A volume of this shard.
    Volume,
}

/// Who sent a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender {
    /// A command that came over the wire.
    Op(Key),
    /// A volume of this shard, by its place and the number of its association.
    Volume { volume: usize, association: u32, token: Token, span: Option<Span> },
}

/// A command that came, until its guard answers.
#[derive(Debug)]
struct Arrival {
    member: usize,
    association: u32,
    from: Sender,
    /// Bytes of the buffer that it fills.
    fills: u32,
    /// The snapshot to be taken when the flush before it is done.
    snapshot: Option<Box<Uuid>>,
    /// CRC32C of what was read, if the pool has summed it.
    digest: Option<u32>,
}

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

/// The replicas of a shard's pools.
pub(crate) struct Members {
    timing: Timing,
    list: Vec<Option<Member>>,
    lines: Vec<Line>,
    arrivals: Slab<Arrival>,
    associations: u32,
    /// Pools whose replicas may be others than are known.
    looks: Vec<PoolId>,
    /// Replicas that are being read.
    loading: Vec<(PoolId, Uuid)>,
}

impl Members {
    pub(crate) fn new() -> Self {
        Self {
            timing: Timing::default(),
            list: Vec::new(),
            lines: Vec::new(),
            arrivals: Slab::with_capacity(0),
            associations: 0,
            looks: Vec::new(),
            loading: Vec::new(),
        }
    }

    /// A pool's replicas may be others than are known.
    pub(crate) fn look(&mut self, pool: PoolId) {
        if !self.looks.contains(&pool) {
            self.looks.push(pool);
        }
    }

    /// Whether there is no replica here.
    pub(crate) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) const fn has_work(&self) -> bool {
        !self.looks.is_empty()
    }

    pub(crate) fn deadline(&self) -> Option<braid_block::Instant> {
        self.list.iter().flatten().filter_map(|member| member.guard.poll_timeout()).min()
    }

    /// The replica with this identity, if it can be used.
    pub(super) fn find(&self, uuid: &Uuid) -> Option<usize> {
        let here = |m: &Option<Member>| m.as_ref().is_some_and(|m| m.uuid == *uuid && !m.gone);
        self.list.iter().position(here)
    }

    /// Whether anything that a volume of this shard sent is not answered.
    pub(super) fn works_for(&self, at: usize) -> bool {
        let its = |from: Sender| matches!(from, Sender::Volume { volume, .. } if volume == at);
        self.arrivals.iter().any(|(_, arrival)| its(arrival.from))
    }

    fn get(&mut self, member: usize) -> Option<&mut Member> {
        self.list.get_mut(member)?.as_mut()
    }

    fn line_of(&mut self, peer: Peer, member: usize) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.peer == peer && line.member == member)
    }

    fn line(&mut self, association: u32) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.association == association)
    }

    fn open(&mut self, now: braid_block::Instant, member: usize, peer: Peer) -> u32 {
        self.associations += 1;
        let association = self.associations;
        self.lines.push(Line { association, member, peer, held: Vec::new() });
        if let Some(member) = self.get(member) {
            member.guard.handle(now, Event::Opened { association });
        }
        association
    }

    /// A line is no more. What came by it is still answered by its guard.
    fn close(&mut self, now: braid_block::Instant, association: u32) {
        let at = self.lines.iter().position(|line| line.association == association);
        let Some(line) = at.map(|at| self.lines.swap_remove(at)) else { return };
        if let Some(member) = self.get(line.member) {
            member.guard.handle(now, Event::Closed { association });
        }
    }
}

/// What a replica of this shard knows of the volume that it belongs to.
#[derive(Clone, Debug)]
pub struct MemberInfo {
    /// Which replica.
    pub replica: Uuid,
    /// Epoch of the fence that it obeys; zero: none.
    pub epoch: u64,
    /// Its copy of the record.
    pub record: Option<Record>,
}

impl Shard {
    /// What the replicas of this shard know of their volumes.
    pub fn members(&self) -> impl Iterator<Item = MemberInfo> {
        let here = self.members.list.iter().flatten().filter(|member| !member.gone);
        here.map(|member| {
            let bearing = self.pool(member.pool).and_then(|pool| pool.bearing(member.handle));
            let record = bearing.and_then(|bearing| bearing.record);
            let kept = record.and_then(|record| Kept::decode(&record).ok());
            MemberInfo {
                replica: member.uuid,
                epoch: member.guard.view().fence.0,
                record: kept.map(|kept| *kept.copy),
            }
        })
    }

    /// Looks for replicas that are new, or gone.
    pub(crate) fn members_end_turn<M: Memory>(&mut self, mem: &mut M) {
        while let Some(id) = self.members.looks.pop() {
            self.look_at_pool(mem, id);
        }
    }

    fn look_at_pool<M: Memory>(&mut self, mem: &mut M, id: PoolId) {
        let Some(pool) = self.pool(id) else { return };
        let heads = pool.layers().filter(|layer| !layer.snapshot);
        let here: Vec<(Uuid, Handle)> = heads.map(|layer| (layer.uuid, layer.handle)).collect();
        for member in 0..self.members.list.len() {
            let Some(found) = self.members.get(member) else { continue };
            // One of the same identity that was made anew is another one.
            let known = (found.uuid, found.handle);
            if found.pool == id && !found.gone && !here.contains(&known) {
                self.forget_member(mem, member);
            }
        }
        for (uuid, _) in here {
            let loading = self.members.loading.contains(&(id, uuid));
            if loading || self.members.find(&uuid).is_some() {
                continue;
            }
            self.members.loading.push((id, uuid));
            let command = braid_pool::Command::Bear { uuid, bearing: Box::default() };
            self.order(mem, id, Errand::Load(uuid), command);
        }
    }

    /// Gives a pool a command on behalf of a guard.
    fn order<M: Memory>(
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

    /// A pool is closed: its replicas are.
    pub(crate) fn members_close<M: Memory>(&mut self, mem: &mut M, pool: PoolId) {
        for member in 0..self.members.list.len() {
            if self.members.get(member).is_some_and(|found| found.pool == pool) {
                self.forget_member(mem, member);
            }
        }
        self.members.loading.retain(|(of, _)| *of != pool);
    }

    /// A replica is gone: its lines end, and its place is free when the last command is.
    fn forget_member<M: Memory>(&mut self, mem: &mut M, member: usize) {
        let Some(found) = self.members.get(member) else { return };
        found.gone = true;
        while let Some(line) = self.members.lines.iter().find(|line| line.member == member) {
            let (association, peer) = (line.association, line.peer);
            self.members.close(self.now, association);
            match peer {
                Peer::Controller(at, key) => self.end_controller(mem, at, key, Why::Removed),
                Peer::Volume => self.link_broken(association),
            }
        }
        self.guard_acts(mem, member);
        self.bury_member(member);
    }

    fn bury_member(&mut self, member: usize) {
        let gone = self.members.get(member).is_some_and(|found| found.gone);
        if gone && !self.members.arrivals.iter().any(|(_, arrival)| arrival.member == member) {
            self.members.list[member] = None;
        }
    }

    /// A volume of this shard opens a line to a replica of it; its number.
    pub(super) fn open_line<M: Memory>(&mut self, mem: &mut M, member: usize) -> u32 {
        let association = self.members.open(self.now, member, Peer::Volume);
        self.guard_acts(mem, member);
        association
    }

    /// A volume of this shard leaves a line.
    pub(super) fn leave_line<M: Memory>(&mut self, mem: &mut M, association: u32) {
        let Some(line) = self.members.line(association) else { return };
        let member = line.member;
        self.members.close(self.now, association);
        self.guard_acts(mem, member);
    }

    /// A volume of this shard sends a command by a line.
    pub(super) fn arrive_from_volume<M: Memory>(
        &mut self,
        mem: &mut M,
        line: u32,
        from: Sender,
        command: Command,
    ) {
        match self.members.line(line).map(|line| line.member) {
            Some(member) => self.arrive(mem, member, line, from, command),
            None => self.answer_volume(from, Err(Refusal::Gone)),
        }
    }

    /// A command of a nexus came over the wire, with its data.
    pub(crate) fn on_member<M: Memory>(&mut self, mem: &mut M, key: Key, entry: &Entry) {
        let Some(op) = self.ops.get(key) else { return };
        let (at, controller) = (op.subsystem, op.controller);
        let namespace = &self.subsystems[usize::from(at)].namespaces[usize::from(op.namespace)];
        let member = namespace.backend.member().and_then(|uuid| self.members.find(uuid));
        let Some(member) = member else {
            // The pool is not open yet, or the replica was destroyed.
            return self.finish(mem, key, Status::NAMESPACE_NOT_READY, 0);
        };
        let peer = Peer::Controller(at, controller);
        let association = match self.members.line_of(peer, member) {
            Some(line) => line.association,
            None => {
                let association = self.members.open(self.now, member, peer);
                self.guard_acts(mem, member);
                association
            }
        };
        if let Some(offset) = codec::asks_for_answer(entry) {
            return self.tell_held(mem, key, association, offset, entry.sgl.length.get());
        }
        let lease = self.ops.get(key).and_then(|op| op.lease.as_ref());
        let sent = entry.sgl.length.get() as usize;
        let data = lease.and_then(|lease| mem.bytes(lease).get(..sent)).unwrap_or_default();
        match codec::parse(entry, data) {
            Ok(command) => self.arrive(mem, member, association, Sender::Op(key), command),
            Err(status) => self.finish(mem, key, status, 0),
        }
    }

    /// Sends a part of a long answer.
    fn tell_held<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        association: u32,
        offset: u64,
        len: u32,
    ) {
        let held = self.members.line(association).map_or(&[][..], |line| &line.held[..]);
        let part = usize::try_from(offset).ok().and_then(|at| held.get(at..));
        let part = part.and_then(|part| part.get(..len as usize));
        let lease = self.ops.get(key).and_then(|op| op.lease.as_ref());
        match (part, lease) {
            (Some(part), Some(lease)) => {
                mem.bytes_mut(lease)[..part.len()].copy_from_slice(part);
                self.finish_with_data(mem, key, len);
            }
            _ => self.finish(mem, key, Status::INVALID_FIELD.dnr(), 0),
        }
    }

    fn arrive<M: Memory>(
        &mut self,
        mem: &mut M,
        member: usize,
        association: u32,
        from: Sender,
        command: Command,
    ) {
        let fills = match command {
            Command::Read { len, .. } | Command::ReadSnapshot { len, .. } => len,
            Command::Compare { len, .. } => comparison_bytes(len),
            _ => 0,
        };
        let arrival = Arrival { member, association, from, fills, snapshot: None, digest: None };
        match self.members.arrivals.insert(arrival) {
            Ok(key) => {
                let tag = tag_of(key);
                if let Some(found) = self.members.get(member) {
                    let event = Event::Arrived { association, tag, command };
                    found.guard.handle(self.now, event);
                }
                self.guard_acts(mem, member);
            }
            Err(arrival) => self.answer_arrival(mem, &arrival, Err(Refusal::Gone)),
        }
    }

    /// A guard's time has come.
    pub(crate) fn members_elapsed<M: Memory>(&mut self, mem: &mut M) {
        let now = self.now;
        for member in 0..self.members.list.len() {
            let Some(found) = self.members.get(member) else { continue };
            if found.guard.poll_timeout().is_some_and(|due| due <= now) {
                found.guard.handle(now, Event::Elapsed);
                self.guard_acts(mem, member);
            }
        }
    }

    /// Whether hosts are to be kept from a subsystem: a replica that it serves obeys a nexus.
    pub(crate) fn is_of_a_volume(&self, at: usize) -> bool {
        self.subsystems[at].namespaces.iter().any(|namespace| match namespace.backend {
            Backend::Replica { pool, handle } => {
                let layer = self.pool(pool).and_then(|pool| pool.layer(handle));
                layer.is_some_and(|layer| layer.member)
            }
            _ => false,
        })
    }

    /// The hosts of a replica that a nexus fences have to go.
    fn expel_hosts<M: Memory>(&mut self, mem: &mut M, pool: PoolId, handle: Handle) {
        let serves = |backend: &Backend| match backend {
            Backend::Replica { pool: of, handle: known } => (*of, *known) == (pool, handle),
            _ => false,
        };
        for at in 0..self.subsystems.len() {
            let subsystem = &self.subsystems[at];
            if !subsystem.namespaces.iter().any(|namespace| serves(&namespace.backend)) {
                continue;
            }
            let controllers: Vec<Key> = subsystem.controllers.iter().map(|(key, _)| key).collect();
            let at = u16::try_from(at).unwrap_or(u16::MAX);
            for key in controllers {
                self.end_controller(mem, at, key, Why::Fenced);
            }
        }
    }

    /// A controller is gone, and its line with it.
    pub(crate) fn member_controller_gone<M: Memory>(&mut self, mem: &mut M, at: u16, key: Key) {
        let peer = Peer::Controller(at, key);
        while let Some(line) = self.members.lines.iter().find(|line| line.peer == peer) {
            let (association, member) = (line.association, line.member);
            self.members.close(self.now, association);
            self.guard_acts(mem, member);
        }
    }

    /// Does what a guard wants.
    fn guard_acts<M: Memory>(&mut self, mem: &mut M, member: usize) {
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
                    let peer = self.members.line(association).map(|line| line.peer);
                    self.members.close(self.now, association);
                    match peer {
                        Some(Peer::Controller(at, key)) => {
                            self.end_controller(mem, at, key, Why::Fenced);
                        }
                        Some(Peer::Volume) => self.link_broken(association),
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
        let Some(arrival) = self.members.arrivals.get(key) else { return };
        let moves = matches!(work, Work::Read { .. } | Work::Write { .. } | Work::Compare { .. });
        let (lease, sums) = match arrival.from {
            Sender::Op(op) if moves => {
                let sums = self.sums_for(op, &work);
                (self.ops.get_mut(op).and_then(|op| op.lease.take()), sums)
            }
            // An alias: the volume keeps the buffer until the answer.
            Sender::Volume { span: Some(span), .. } if moves => {
                (Some(Lease::new(span.lease)), None)
            }
            _ => (None, None),
        };
        let tag = Token::new(token::MEMBER, key).to_bits();
        let request = Request { tag, handle, work, lease };
        let now = self.now;
        if let Err(request) = self.pools.submit(mem, now, pool, request, sums) {
            self.take_back(key, request.lease);
            self.carried(mem, key, Err(Refusal::Failed));
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
        self.take_back(key, lease);
        let Some(arrival) = self.members.arrivals.get_mut(key) else { return };
        arrival.digest = sums.as_ref().and_then(|sums| sums.of_all(arrival.fills));
        self.sums.extend(sums);
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
                let outcome = marks.map_or(Outcome::Done, |marks| Outcome::Marks(marks.into()));
                self.tell_guard(mem, member, tag, result.map(|_| outcome).map_err(refusal));
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

    /// What is known of a replica was read: its guard stands before it from now on.
    fn loaded(&mut self, pool: PoolId, uuid: Uuid, read: bool) {
        self.members.loading.retain(|loading| *loading != (pool, uuid));
        let Some(durable) = self.pool(pool).filter(|_| read).and_then(|p| durable(p, uuid)) else {
            return;
        };
        let (handle, durable) = durable;
        if self.members.arrivals.capacity() == 0 {
            // What comes over the wire at most, and what volumes of this shard send.
            let arrivals = self.config.limits.ops_max + CALLS_MAX;
            self.members.arrivals = Slab::with_capacity(arrivals);
        }
        let guard = Guard::new(self.members.timing, None, durable, self.now);
        let member = Some(Member { pool, uuid, handle, guard, gone: false });
        match self.members.list.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = member,
            None => self.members.list.push(member),
        }
    }

    /// Answers who asked.
    fn answer_arrival<M: Memory>(
        &mut self,
        mem: &mut M,
        arrival: &Arrival,
        result: Result<Answer, Refusal>,
    ) {
        let key = match arrival.from {
            Sender::Op(key) => key,
            Sender::Volume { .. } => return self.answer_volume(arrival.from, result),
        };
        if result.is_ok() && arrival.fills > 0 {
            return self.finish_with_sum(mem, key, arrival.fills, arrival.digest);
        }
        let (status, words, held) = codec::answer(&result);
        if let (Some(held), Some(line)) = (held, self.members.line(arrival.association)) {
            line.held = held;
        }
        self.finish(mem, key, status, words);
    }
}

/// Where a replica stands, as its pool knows it.
fn durable(pool: &Pool, uuid: Uuid) -> Option<(Handle, Durable)> {
    let info = pool.layer(pool.find(&uuid)?)?;
    let bearing = pool.bearing(info.handle);
    let fence = bearing.as_ref().and_then(|bearing| bearing.fence);
    let record = bearing.and_then(|bearing| bearing.record);
    let durable = Durable {
        replica: uuid,
        fence: fence.map_or((0, [0; 16]), |fence| (fence.epoch, fence.owner)),
        instance: info.instance,
        kept: record.and_then(|record| Kept::decode(&record).ok()),
        flush: info.flush_number,
        bytes: info.bytes,
        snapshots: pool.snapshots(info.handle),
    };
    Some((info.handle, durable))
}

/// What people see of a volume's snapshot in a list of a pool.
fn snapshot_name(uuid: &Uuid) -> String {
    let mut name = String::from("volume-snapshot-");
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

fn tag_of(key: Key) -> u64 {
    Token::new(token::MEMBER, key).to_bits()
}

const fn key_of(tag: u64) -> Key {
    Token::from_bits(tag).key()
}
