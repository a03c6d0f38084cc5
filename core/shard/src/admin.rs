//! Admin commands: what the controller decided is done here.

use braid_block::{Extent, Instant, Key, Memory};
use braid_nvme::Status;
use braid_nvme::ana::ANA_LOG;
use braid_nvme::auth::Security;
use braid_nvme::command::{Command, Sgl, admin};
use braid_nvme::target::{ABORTS_MAX, Admin, Counters, Kind, SubsystemView, write_allocations};

use crate::Shard;
use crate::backend::{Backend, Namespace, Standing};
use crate::directory::{Listing, Sight};
use crate::op::{Op, Reply, State, Work};
use crate::subsystem::{Flusher, Subsystem};

/// MN of every controller.
const MODEL: &str = "Braid";
/// FR of every controller: the version of this software.
const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

impl Shard {
    /// Carries out an admin command whose buffer and data are here.
    pub(crate) fn admin<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        command: &Command,
    ) {
        if let Some(security) = Security::of(command) {
            return self.prove(mem, now, key, (security, command));
        }
        let Some(op) = self.ops.get(key) else { return };
        let (at, controller, conn) = (op.subsystem, op.controller, op.conn);
        let uptime = now.since(self.started);
        let subsystem = &mut self.subsystems[usize::from(at)];
        let portals = &self.config.portals;
        // Only discovery asks, so that it may allocate.
        let asking = self.conns.get(conn).filter(|_| subsystem.kind == Kind::Discovery);
        let listing = Listing {
            subsystems: &self.config.subsystems,
            names: &self.names,
            elsewhere: &self.elsewhere,
            keyring: &self.keyring,
            generation: self.generation,
            sight: asking.and_then(|conn| Sight::of(portals, conn)),
        };
        let counters = smart(subsystem, counted(command));
        let ordered = subsystem.ordered();
        let Subsystem { controllers, views, nqn, config, ana, .. } = subsystem;
        let Some(association) = controllers.get_mut(controller) else {
            return self.finish(mem, key, Status::ABORTED_QUEUE_DELETED, 0);
        };
        if command.opcode == admin::SET_FEATURES {
            let its = self.shares.connections(association.controller.hostid());
            let host = self.config.limits.connections_per_host().saturating_sub(its);
            let shard = self.conns.capacity().saturating_sub(self.conns.len());
            let spare = u32::try_from(shard).unwrap_or(u32::MAX).min(host);
            association.controller.set_spare(u16::try_from(spare).unwrap_or(u16::MAX));
        }
        let view = SubsystemView {
            nqn,
            serial: &config.serial,
            model: MODEL,
            firmware: FIRMWARE,
            controllers: config.controllers,
            namespaces: ordered.as_deref().unwrap_or(views),
            groups: ana.groups(association.listener),
            epoch: ana.epoch,
            portals: listing.sight.as_ref().map_or(portals, |sight| &sight.portals),
            port: portals.get(usize::from(association.listener)).map_or(0, |portal| portal.id),
            uptime,
            counters,
            directory: &listing,
        };
        let buffer = op.lease.as_ref();
        let sends = op.ask.is_some() || command.sgl.identifier == Sgl::IN_CAPSULE;
        let done = match buffer {
            Some(lease) if sends => {
                association.controller.admin(&view, command, mem.bytes(lease), &mut [])
            }
            Some(lease) => association.controller.admin(&view, command, &[], mem.bytes_mut(lease)),
            None => association.controller.admin(&view, command, &[], &mut []),
        };
        if matches!(done, Admin::Data { .. }) && is_ana_log(command) {
            self.guest_read_ana(at, controller);
        }
        match done {
            Admin::Done { status, result } => self.finish(mem, key, status, result),
            Admin::Data { len } => self.finish_with_data(mem, key, len),
            Admin::Allocations { nsid, extent, len } => {
                self.look_up_allocations(mem, key, nsid, extent, len);
            }
            Admin::Feature { nsid, feature, value } => {
                self.on_namespace_feature(mem, key, nsid, feature, value);
            }
            Admin::Held => self.hold_event_request(mem, key),
            Admin::Abort { sqid, cid, held } => self.abort(mem, key, sqid, cid, held),
            Admin::Flush => self.settle(mem, at, controller, Some(key)),
            Admin::Reset => {
                // This command's op keeps the controller from being quiet before it is answered.
                self.abort_event_requests(mem, at, controller, conn);
                self.close_io_queues(mem, at, controller, false);
                self.finish(mem, key, Status::SUCCESS, 0);
            }
            Admin::Shutdown => {
                self.close_io_queues(mem, at, controller, true);
                self.finish(mem, key, Status::SUCCESS, 0);
            }
        }
        self.tell_events(mem, at, controller, conn);
        if command.opcode == admin::SET_FEATURES {
            self.look_sooner(now, at, controller);
        }
    }

    /// Get LBA Status: a pool knows; of anything else all blocks count as allocated.
    fn look_up_allocations<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        nsid: u32,
        extent: Extent,
        bytes: u32,
    ) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let subsystem = &self.subsystems[usize::from(op.subsystem)];
        let Some(at) = subsystem.position(nsid) else {
            return self.finish(mem, key, Status::INVALID_NAMESPACE.dnr(), 0);
        };
        let namespace = &subsystem.namespaces[usize::from(at)];
        op.namespace = at;
        op.work = Work::Allocations { extent, bytes };
        if let Backend::Replica { .. } = namespace.backend {
            return self.proceed(mem, key);
        }
        if let Some(lease) = &op.lease {
            let out = &mut mem.bytes_mut(lease)[..bytes as usize];
            let block_bytes = namespace.geometry.block.bytes();
            write_allocations(out, block_bytes, core::iter::once(extent), true);
        }
        self.finish_with_data(mem, key, bytes);
    }

    pub(crate) fn finish_with_data<M: Memory>(&mut self, mem: &mut M, key: Key, len: u32) {
        self.finish_with_sum(mem, key, len, None);
    }

    /// The same; `digest` is the CRC32C of the data, if it is known.
    pub(crate) fn finish_with_sum<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        len: u32,
        digest: Option<u32>,
    ) {
        let Some(op) = self.ops.remove(key) else { return };
        let data = op.lease.map(|lease| (lease, len));
        let reply = Reply { cid: op.cid, status: Status::SUCCESS, result: 0, data, digest };
        self.reply(mem, op.conn, reply);
        self.op_gone(mem, op.subsystem, op.controller);
    }

    /// An event request waits in its controller, without an op and uncounted.
    fn hold_event_request<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(op) = self.ops.remove(key) else { return };
        if let Some(queue) = self.conns.get_mut(op.conn).and_then(|conn| conn.queue_mut()) {
            queue.outstanding -= 1;
        }
        self.op_gone(mem, op.subsystem, op.controller);
    }

    /// Completes an event request, which counts again as long as its reply takes.
    fn complete_event<M: Memory>(
        &mut self,
        mem: &mut M,
        conn: Key,
        cid: u16,
        status: Status,
        result: u32,
    ) {
        if let Some(queue) = self.conns.get_mut(conn).and_then(|conn| conn.queue_mut()) {
            queue.outstanding += 1;
            self.answer(mem, conn, cid, status, u64::from(result));
        }
    }

    pub(crate) fn tell_events<M: Memory>(
        &mut self,
        mem: &mut M,
        at: u16,
        controller: Key,
        conn: Key,
    ) {
        loop {
            let controllers = &mut self.subsystems[usize::from(at)].controllers;
            let Some(association) = controllers.get_mut(controller) else { return };
            let Some((cid, result)) = association.controller.next_event() else { return };
            self.complete_event(mem, conn, cid, Status::SUCCESS, result);
        }
    }

    fn abort_event_requests<M: Memory>(
        &mut self,
        mem: &mut M,
        at: u16,
        controller: Key,
        conn: Key,
    ) {
        let controllers = &mut self.subsystems[usize::from(at)].controllers;
        let Some(association) = controllers.get_mut(controller) else { return };
        for cid in association.controller.take_event_requests() {
            self.complete_event(mem, conn, cid, Status::ABORTED_BY_REQUEST, 0);
        }
    }

    /// Aborts a command that still waits; what is in the device is left to finish (Base 5.1).
    fn abort<M: Memory>(&mut self, mem: &mut M, key: Key, sqid: u16, cid: u16, held: bool) {
        let Some(op) = self.ops.get(key) else { return };
        let (at, controller, conn) = (op.subsystem, op.controller, op.conn);
        if held {
            self.complete_event(mem, conn, cid, Status::ABORTED_BY_REQUEST, 0);
            return self.finish(mem, key, Status::SUCCESS, 0);
        }
        let controllers = &self.subsystems[usize::from(at)].controllers;
        let queue = controllers
            .get(controller)
            .and_then(|a| a.queues.get(usize::from(sqid)).copied().flatten());
        let victim = self
            .ops
            .iter()
            .find(|(other, op)| *other != key && Some(op.conn) == queue && op.cid == cid);
        let waits = |op: &Op| op.only_waits() || op.state == State::AwaitingData;
        let found = victim.is_some();
        let victim = victim.filter(|(_, op)| waits(op) && op.aborter.is_none()).map(|(key, _)| key);
        let may_abort = self.aborts_of(controller) < ABORTS_MAX;
        // It may be no op yet: its capsule waits for a buffer.
        if !found && may_abort && self.abandon(queue, cid, key) {
            return;
        }
        let Some(victim) = victim else { return self.finish(mem, key, Status::SUCCESS, 1) };
        if !may_abort {
            return self.finish(mem, key, Status::ABORT_LIMIT, 0);
        }
        if let Some(op) = self.ops.get_mut(victim) {
            op.aborter = Some(key);
        }
        self.doom(mem, victim, Status::ABORTED_BY_REQUEST);
    }

    /// Abort commands of a controller that wait.
    fn aborts_of(&self, controller: Key) -> usize {
        let of_it = |(_, op): &(Key, &Op)| op.controller == controller && op.aborter.is_some();
        let queues = self.conns.iter().filter_map(|(_, conn)| conn.queue());
        let waits = queues.filter(|q| q.controller == controller && q.abandoner.is_some());
        self.ops.iter().filter(of_it).count() + waits.count()
    }

    /// Throws the data of a capsule away that waits for a buffer: then its command is answered, and
    /// the Abort with it. False: no capsule of this command waits there.
    fn abandon(&mut self, queue: Option<Key>, cid: u16, aborter: Key) -> bool {
        let Some(key) = queue else { return false };
        let Some(queue) = self.conns.get_mut(key).and_then(|conn| conn.queue_mut()) else {
            return false;
        };
        if !queue.connection.abandon(cid) {
            return false;
        }
        queue.abandoner = Some(aborter);
        self.put_off(key);
        true
    }

    /// Flushes every namespace: before a controller says that it is shut down (Base 3.6.1), or
    /// before a command is answered.
    pub(crate) fn settle<M: Memory>(
        &mut self,
        mem: &mut M,
        at: u16,
        controller: Key,
        flusher: Option<Key>,
    ) {
        let subsystem = &mut self.subsystems[usize::from(at)];
        let count = u16::try_from(subsystem.namespaces.len()).unwrap_or(u16::MAX);
        let Some(association) = subsystem.controllers.get_mut(controller) else { return };
        let Some(conn) = association.queues.first().copied().flatten() else { return };
        // Held up by one until all are begun, so that the first to end is not taken for the last.
        association.ops += 1;
        association.flushers.extend(flusher.map(|op| Flusher { op, left: 1, failed: false }));
        for namespace in 0..count {
            let subsystem = &mut self.subsystems[usize::from(at)];
            let found = &subsystem.namespaces[usize::from(namespace)];
            // What is a replica of a volume is flushed by the volume.
            if found.standing != Standing::Attached || found.is_member() {
                continue;
            }
            let mut op = Op::new(conn, (at, controller), 0, namespace, Work::Settle);
            op.aborter = flusher;
            let inserted = self.ops.insert(op);
            let Some(association) = subsystem.controllers.get_mut(controller) else { return };
            let Ok(key) = inserted else {
                // No entry is free: the rest is flushed when these are done, or asked for again.
                association.settle |= flusher.is_none();
                self.on_settled(mem, (at, controller), flusher, Status::NAMESPACE_NOT_READY);
                break;
            };
            association.ops += 1;
            let its = association.flushers.iter_mut().find(|f| Some(f.op) == flusher);
            its.into_iter().for_each(|flusher| flusher.left += 1);
            self.proceed(mem, key);
        }
        self.on_settled(mem, (at, controller), flusher, Status::SUCCESS);
        self.op_gone(mem, at, controller);
    }

    /// A flush that no host waits for directly is done, or was not begun.
    pub(crate) fn on_settled<M: Memory>(
        &mut self,
        mem: &mut M,
        (at, controller): (u16, Key),
        flusher: Option<Key>,
        status: Status,
    ) {
        let controllers = &mut self.subsystems[usize::from(at)].controllers;
        let Some(association) = controllers.get_mut(controller) else { return };
        let failed = status.is(Status::WRITE_FAULT) || status.is(Status::INTERNAL_ERROR);
        let Some(key) = flusher else {
            association.unsettled |= failed;
            return;
        };
        let found = association.flushers.iter().position(|flusher| flusher.op == key);
        let Some(found) = found else { return };
        let unbegun = status.is(Status::NAMESPACE_NOT_READY);
        let flusher = &mut association.flushers[found];
        flusher.failed |= failed || unbegun;
        if unbegun {
            return;
        }
        flusher.left -= 1;
        if flusher.left == 0 {
            let Flusher { failed, .. } = association.flushers.remove(found);
            let status = if failed { Status::WRITE_FAULT.dnr() } else { Status::SUCCESS };
            self.finish(mem, key, status, 0);
        }
    }
}

/// Whether this reads the ANA log.
fn is_ana_log(command: &Command) -> bool {
    command.opcode == admin::GET_LOG_PAGE && command.cdw(10).to_le_bytes()[0] == ANA_LOG
}

/// What SMART tells of a subsystem.
/// The namespace that a SMART log is asked for; none: all of them.
const fn counted(command: &Command) -> Option<u32> {
    match command.nsid.get() {
        0 | u32::MAX => None,
        nsid => Some(nsid),
    }
}

/// What was counted of one namespace that is there, or of all that ever were: that never goes back.
fn smart(subsystem: &Subsystem, nsid: Option<u32>) -> Counters {
    let there = |namespace: &&Namespace| namespace.standing == Standing::Attached;
    match nsid {
        Some(nsid) => {
            let its = |namespace: &&Namespace| namespace.nsid == nsid;
            let found = subsystem.namespaces.iter().filter(there).find(its);
            found.map_or_else(Counters::default, Namespace::smart)
        }
        None => {
            let mut sum = subsystem.namespaces.iter().fold(subsystem.past, |mut sum, namespace| {
                sum.add(&namespace.smart());
                sum
            });
            sum.degraded = subsystem.namespaces.iter().filter(there).any(|n| n.flush_failed);
            sum
        }
    }
}
