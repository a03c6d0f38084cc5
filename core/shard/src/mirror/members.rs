//! Replicas that nexuses use: the guard before each, who asks it for what, and what its pool does.
//!
//! ```text
//! op of a connection ---+                                  +-> request or command of the pool
//!                       +-> arrival -> guard -- Carry -----+
//! command of a volume --+      ^               Keep -> command Bear
//!                              +-- Answer -- guard <- Carried, Kept
//! ```
//!
//! `arrivals` has what comes, `errands` what guards want done, `lines` who asks; here is which
//! replicas there are.
//!
//! Invariants:
//! 1. A guard stands before a replica from the moment its pool is open: the lease that may have
//!    been promised before a restart runs out meanwhile.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use braid_block::{Instant, Key, Memory, Slab};
use braid_nexus::guard::{Durable, Event, Guard, Kept, View};
use braid_nexus::record::{Record, Uuid};
use braid_pool::{Handle, Pool};

use super::arrivals::{Arrival, Sender};
use super::errands::Errand;
use super::lines::{LineKey, Lines, Peer};
use super::rehearsal::Stage;
use super::volumes::CALLS_MAX;
use crate::Shard;
use crate::backend::Backend;
use crate::note::Why;
use crate::pool::PoolId;

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
pub(super) struct Member {
    pub(super) pool: PoolId,
    pub(super) uuid: Uuid,
    pub(super) handle: Handle,
    pub(super) guard: Guard,
    /// Its pool is closed, or it was destroyed: nothing is carried out any more.
    gone: bool,
}

/// The replicas of a shard's pools.
pub(crate) struct Members {
    /// How they behave where failures are rehearsed.
    pub(super) stage: Stage,
    pub(super) list: Vec<Option<Member>>,
    pub(super) lines: Lines,
    pub(super) arrivals: Slab<Arrival>,
    /// Pools whose replicas may be others than are known.
    looks: Vec<PoolId>,
    /// Replicas that are being read.
    loading: Vec<(PoolId, Uuid)>,
}

impl Members {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::default(),
            list: Vec::new(),
            lines: Lines::default(),
            arrivals: Slab::with_capacity(0),
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

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.list.iter().flatten().filter_map(|member| member.guard.poll_timeout()).min()
    }

    /// The replica with this identity, if it can be used.
    pub(super) fn find(&self, uuid: &Uuid) -> Option<usize> {
        let here = |m: &Option<Member>| m.as_ref().is_some_and(|m| m.uuid == *uuid && !m.gone);
        self.list.iter().position(here)
    }

    /// Where a replica is, and where its guard stands.
    pub(super) fn look_up(&self, uuid: &Uuid) -> Option<(PoolId, Handle, View)> {
        let found = self.list[self.find(uuid)?].as_ref()?;
        Some((found.pool, found.handle, found.guard.view()))
    }

    /// The replica of an arrival, and who sent it.
    pub(super) fn sender(&self, key: Key) -> Option<(Uuid, Sender)> {
        let arrival = self.arrivals.get(key)?;
        Some((self.list[arrival.member].as_ref()?.uuid, arrival.from))
    }

    /// Whether anything that a volume of this shard sent is not answered.
    pub(super) fn works_for(&self, at: usize) -> bool {
        let its = |from: Sender| matches!(from, Sender::Volume { volume, .. } if volume == at);
        self.arrivals.iter().any(|(_, arrival)| its(arrival.from))
    }

    /// Whether the replica in this place is this one, and can be used.
    pub(super) fn is(&self, member: usize, uuid: &Uuid) -> bool {
        let found = self.list.get(member).and_then(Option::as_ref);
        found.is_some_and(|found| found.uuid == *uuid && !found.gone)
    }

    pub(super) fn get(&mut self, member: usize) -> Option<&mut Member> {
        self.list.get_mut(member)?.as_mut()
    }

    pub(super) fn open(&mut self, now: Instant, member: usize, peer: Peer) -> LineKey {
        let line = self.lines.open(member, peer);
        if let Some(member) = self.get(member) {
            member.guard.handle(now, Event::Opened { association: line.association });
        }
        line
    }

    /// A line is no more; who was at its other end. What came by it is still answered by its
    /// guard.
    pub(super) fn close(&mut self, now: Instant, key: LineKey) -> Option<Peer> {
        let line = self.lines.close(key)?;
        if let Some(member) = self.get(line.member) {
            member.guard.handle(now, Event::Closed { association: key.association });
        }
        Some(line.peer)
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
            // What was never relied on says nothing of the volume.
            let kept = kept.filter(|kept| kept.complete);
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
        while let Some(line) = self.members.lines.find(|line| line.member == member) {
            match self.members.close(self.now, line) {
                Some(Peer::Controller(at, key)) => self.end_controller(mem, at, key, Why::Removed),
                Some(Peer::Volume) => self.link_broken(line),
                None => {}
            }
        }
        self.guard_acts(mem, member);
        self.bury_member(member);
    }

    pub(super) fn bury_member(&mut self, member: usize) {
        let gone = self.members.get(member).is_some_and(|found| found.gone);
        if gone && !self.members.arrivals.iter().any(|(_, arrival)| arrival.member == member) {
            self.members.list[member] = None;
        }
    }

    /// A volume of this shard opens a line to a replica of it.
    pub(super) fn open_line<M: Memory>(&mut self, mem: &mut M, member: usize) -> LineKey {
        let line = self.members.open(self.now, member, Peer::Volume);
        self.guard_acts(mem, member);
        line
    }

    /// A volume of this shard leaves a line.
    pub(super) fn leave_line<M: Memory>(&mut self, mem: &mut M, line: LineKey) {
        let Some(member) = self.members.lines.get(line).map(|line| line.member) else { return };
        self.members.close(self.now, line);
        self.guard_acts(mem, member);
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
    pub(super) fn expel_hosts<M: Memory>(&mut self, mem: &mut M, pool: PoolId, handle: Handle) {
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
        while let Some(line) = self.members.lines.find(|line| line.peer == peer) {
            self.leave_line(mem, line);
        }
    }

    /// What is known of a replica was read: its guard stands before it from now on.
    pub(super) fn loaded(&mut self, pool: PoolId, uuid: Uuid, read: bool) {
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
        let plan = self.members.stage.plan;
        let guard = Guard::new(plan.timing, plan.plant, durable, self.now);
        let member = Some(Member { pool, uuid, handle, guard, gone: false });
        match self.members.list.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = member,
            None => self.members.list.push(member),
        }
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
