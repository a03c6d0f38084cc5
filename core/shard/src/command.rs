//! A command that was taken: parsed, given a buffer, and brought to where it is carried out.

use braid_block::{Instant, Key, Lease, Memory};
use braid_nvme::Status;
use braid_nvme::command::Command;
use braid_nvme::pdu::FatalError;
use braid_nvme::target::connection::{Capsule, Transferred};
use braid_nvme::target::{FailedCommand, IoCommand, Transfer};
use braid_pool::Failure;

use crate::Shard;
use crate::backend::status_of_failure;
use crate::conn::{Conn, Queue, Role};
use crate::device::offset;
use crate::fused::First;
use crate::note::Operation;
use crate::op::{Fused, Op, Reply, State, Work};
use crate::subsystem::{Association, Subsystem};

/// Commands beyond a queue's entries that a host may have outstanding: event requests, which
/// hosts do not count.
const OUTSTANDING_SPARE: u32 = 8;

impl Shard {
    /// Takes a command from a queue.
    pub(crate) fn dispatch<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        capsule: Capsule,
    ) {
        let turn = self.turn;
        if self.conns.get(key).is_none_or(|conn| !conn.is_open()) {
            // It came after the stop began: its host will see the connection end, and ask again.
            return self.discard_data(mem, key, capsule.data);
        }
        let Some(queue) = self.conns.get_mut(key).and_then(|conn| conn.queue_mut()) else { return };
        if queue.turn != turn {
            (queue.turn, queue.taken) = (turn, 0);
        }
        queue.taken += 1;
        self.taken += 1;
        self.counters.commands += 1;
        let Queue { qid, outstanding, entries, subsystem, controller, .. } = *queue;
        if outstanding >= entries + OUTSTANDING_SPARE {
            self.discard_data(mem, key, capsule.data);
            return self.terminate(mem, now, key, FatalError::Sequence);
        }
        queue.outstanding += 1;
        let cid = capsule.command.cid.get();
        let due = queue.standing.due;
        let proof = self.is_proof(key, &capsule.command);
        let alone = qid == 0 || due;
        let fused = if alone { Ok(None) } else { self.fuse(mem, key, &capsule.command) };
        let parsed = match fused {
            Err(status) => Err(status),
            Ok(_) if capsule.abandoned => Err(Status::ABORTED_BY_REQUEST),
            Ok(_) if !capsule.intact => {
                self.counters.data_digest_errors += 1;
                Err(Status::TRANSIENT_TRANSPORT)
            }
            Ok(_) if let Some(proof) = proof => proof
                .transfer(&capsule.command)
                .map(|transfer| (Work::Admin(capsule.command), 0, transfer)),
            Ok(_) if due => Err(Status::AUTHENTICATION_REQUIRED.dnr()),
            Ok(_) if qid == 0 => self.parse_admin(subsystem, controller, &capsule.command),
            Ok(_) => self.parse_io(subsystem, controller, &capsule.command),
        };
        let (fused, command, abandoned) =
            (fused.ok().flatten(), capsule.command, capsule.abandoned);
        let taken = match parsed {
            Err(status) => {
                if let Some(Fused::Second { first }) = fused {
                    self.doom(mem, first, Status::FUSED_FAILED);
                }
                self.discard_data(mem, key, capsule.data);
                self.answer(mem, key, cid, status, 0);
                None
            }
            Ok((work, namespace, transfer)) => {
                let mut op = Op::new(key, (subsystem, controller), cid, namespace, work);
                op.fused = fused;
                self.begin(mem, now, op, transfer, capsule)
            }
        };
        if let (Some(Fused::First { .. }), Some(conn)) = (fused, self.conns.get_mut(key))
            && let Some(queue) = conn.queue_mut()
        {
            queue.first = Some(First::new(taken, &command));
        }
        if abandoned {
            self.end_abandoner(mem, key, true);
        }
    }

    /// A capsule whose data was thrown away is answered, or never will be: so is who asked for it.
    pub(crate) fn end_abandoner<M: Memory>(&mut self, mem: &mut M, conn: Key, aborted: bool) {
        let queue = self.conns.get_mut(conn).and_then(|conn| conn.queue_mut());
        if let Some(aborter) = queue.and_then(|queue| queue.abandoner.take()) {
            self.finish(mem, aborter, Status::SUCCESS, u64::from(!aborted));
        }
    }

    /// A command's subsystem and controller, which may be gone by now.
    fn association(
        &self,
        subsystem: u16,
        controller: Key,
    ) -> Result<(&Subsystem, &Association), Status> {
        let subsystem = &self.subsystems[usize::from(subsystem)];
        let association = subsystem.controllers.get(controller);
        Ok((subsystem, association.ok_or(Status::ABORTED_QUEUE_DELETED)?))
    }

    fn parse_admin(
        &self,
        subsystem: u16,
        controller: Key,
        command: &Command,
    ) -> Result<(Work, u16, Transfer), Status> {
        let (_, association) = self.association(subsystem, controller)?;
        let transfer = association.controller.transfer(command)?;
        Ok((Work::Admin(*command), 0, transfer))
    }

    fn parse_io(
        &self,
        subsystem: u16,
        controller: Key,
        command: &Command,
    ) -> Result<(Work, u16, Transfer), Status> {
        let (subsystem, association) = self.association(subsystem, controller)?;
        let at = subsystem.position(command.nsid.get());
        if let Some(at) = at {
            association.may_access(&subsystem.ana, subsystem.views[usize::from(at)].group)?;
        }
        if let Some(at) = at.filter(|at| subsystem.namespaces[usize::from(*at)].is_member()) {
            association.controller.takes_io()?;
            let transfer = crate::mirror::transfer(command)?;
            return Ok((Work::Member(*command), at, transfer));
        }
        let geometry = at.map(|at| subsystem.views[usize::from(at)].geometry);
        let (parsed, transfer) = association.controller.io(command, geometry)?;
        let namespace = at.map(|at| &subsystem.namespaces[usize::from(at)]);
        let host = association.controller.hostid();
        // Here, where every command arrives whoever sent it, before any data is asked for.
        if namespace.is_some_and(|n| !n.reservations.permits(host, parsed.access())) {
            return Err(Status::RESERVATION_CONFLICT.dnr());
        }
        let protected = at.is_some_and(|at| subsystem.views[usize::from(at)].read_only);
        if protected && parsed.changes_blocks() {
            return Err(status_of_failure(Operation::Write, Failure::ReadOnly));
        }
        let work = match parsed {
            IoCommand::Read { extent, fua } => Work::Read { extent, durable: fua },
            IoCommand::Write { extent, fua } => Work::Write { extent, durable: fua },
            IoCommand::Compare { extent, fua } => {
                Work::Check { extent, compare: true, durable: fua, done: 0 }
            }
            IoCommand::Verify { extent, fua } => {
                Work::Check { extent, compare: false, durable: fua, done: 0 }
            }
            IoCommand::Flush => Work::Flush,
            IoCommand::WriteZeroes { extent, fua, deallocate } => {
                Work::Zero { extent, deallocate, durable: fua, done: 0 }
            }
            IoCommand::Reservation(_)
                if at.is_some_and(|at| !subsystem.views[usize::from(at)].takes_reservations()) =>
            {
                return Err(Status::INVALID_OPCODE.dnr());
            }
            IoCommand::Reservation(command) => Work::Reservation(command),
            IoCommand::DatasetManagement { ranges, deallocate } => {
                let ranges = if deallocate { ranges } else { 0 };
                Work::Deallocate { next: 0, ranges, checked: false, done: 0 }
            }
        };
        Ok((work, at.unwrap_or(0), transfer))
    }

    /// Gives the command its entry and its buffer; returns the entry, which may be gone by then.
    fn begin<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        mut op: Op,
        transfer: Transfer,
        capsule: Capsule,
    ) -> Option<Key> {
        let conn = op.conn;
        let mut unused = capsule.data;
        if let Transfer::InCapsule(len) = transfer {
            if capsule.len < len {
                self.discard_data(mem, conn, unused);
                self.answer(mem, conn, op.cid, Status::SGL_LENGTH_INVALID.dnr(), 0);
                if let Some(Fused::Second { first }) = op.fused {
                    self.doom(mem, first, Status::FUSED_FAILED);
                }
                return None;
            }
            op.lease = unused.take();
        }
        self.discard_data(mem, conn, unused);
        if let Transfer::FromHost(len) = transfer {
            op.ask = Some(len);
        }
        let (subsystem, controller, fused) = (op.subsystem, op.controller, op.fused);
        // `run` takes a command only while an entry is free.
        let Ok(key) = self.ops.insert(op) else { return None };
        if let Some(Fused::Second { first }) = fused
            && let Some(first) = self.ops.get_mut(first)
        {
            first.fused = Some(Fused::First { second: Some(key) });
        }
        let controllers = &mut self.subsystems[usize::from(subsystem)].controllers;
        if let Some(association) = controllers.get_mut(controller) {
            association.ops += 1;
        }
        match transfer {
            Transfer::None | Transfer::InCapsule(_) => self.start_summed(mem, now, key),
            Transfer::FromHost(len) | Transfer::ToHost(len) => {
                let waited = self.waiting.is_empty();
                match self.buffer_for(mem, key, len, waited) {
                    Some(lease) => self.on_buffer(mem, now, key, lease),
                    None => self.wait_for_buffer(key, len),
                }
            }
        }
        Some(key)
    }

    /// An op has its buffer now: it runs, or asks the host for its data.
    pub(crate) fn on_buffer<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        lease: Lease,
    ) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let (cid, conn, ask) = (op.cid, op.conn, op.ask);
        if matches!(op.state, State::Waiting(_))
            && let Err(status) = self.path_of(key)
        {
            self.give_back(mem, conn, lease);
            return self.finish(mem, key, status, 0);
        }
        let Some(op) = self.ops.get_mut(key) else { return };
        if let Work::Check { compare, .. } = op.work
            && (op.lease.is_some() || !compare)
        {
            op.scratch = Some(lease);
            op.state = State::Running;
            return self.proceed(mem, key);
        }
        let Some(len) = ask else {
            op.lease = Some(lease);
            op.state = State::Running;
            return self.start(mem, now, key);
        };
        op.state = State::AwaitingData;
        let Some(entry) = self.conns.get_mut(conn) else { return self.give_back(mem, conn, lease) };
        let Conn { transmit, role: Role::Queue(queue), .. } = entry else { return };
        match queue.connection.expect(key, cid, lease, len) {
            Ok(ttag) => {
                transmit.ready_to_transfer(mem, cid, ttag, 0, len);
                self.mark_dirty(conn);
            }
            Err(lease) => {
                self.give_back(mem, conn, lease);
                self.finish(mem, key, Status::INTERNAL_ERROR, 0);
            }
        }
    }

    /// A buffer of `len` bytes for an op, and room in its connection's batch if an R2T goes with
    /// it: an R2T is sent only with the buffer in hand.
    pub(crate) fn buffer_for<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        len: u32,
        waited: bool,
    ) -> Option<Lease> {
        let op = self.ops.get(key)?;
        let (conn, asks) = (op.conn, op.ask.is_some());
        let admin = matches!(op.work, Work::Admin(_) | Work::Check { .. });
        if asks && !self.conns.get(conn)?.transmit.has_room(mem) {
            return None;
        }
        let lease = self.lease(mem, conn, len, waited);
        if lease.is_none() && admin { self.admin_lease(mem, conn, len) } else { lease }
    }

    /// Starts an op whose payload its connection has just handed over, and may have summed.
    fn start_summed<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        self.summed = Some(key);
        self.start(mem, now, key);
        self.summed = None;
    }

    /// The data that an R2T asked for is here.
    pub(crate) fn on_transferred<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        transferred: Transferred,
    ) {
        let Transferred { op: key, lease, intact } = transferred;
        let Some(op) = self.ops.get_mut(key) else { return };
        op.lease = Some(lease);
        op.state = State::Running;
        if let Work::Check { .. } = op.work {
            op.ask = None;
        }
        let path = self.path_of(key);
        let Some(op) = self.ops.get_mut(key) else { return };
        if !intact {
            self.counters.data_digest_errors += 1;
            op.doomed = op.doomed.or(Some(Status::TRANSIENT_TRANSPORT));
        }
        op.doomed = op.doomed.or(path.err());
        self.start_summed(mem, now, key);
    }

    /// Ends an op: its reply goes out, its controller has one less.
    pub(crate) fn finish<M: Memory>(&mut self, mem: &mut M, key: Key, status: Status, result: u64) {
        self.finish_summed(mem, key, status, result, None);
    }

    /// The same; `digest` is the CRC32C of what was read, if it is known.
    pub(crate) fn finish_summed<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        status: Status,
        result: u64,
        digest: Option<u32>,
    ) {
        let Some(mut op) = self.ops.remove(key) else { return };
        let (scratch, aborter) = (op.scratch.take(), op.aborter);
        if let Some(lease) = scratch {
            self.give_back(mem, op.conn, lease);
        }
        let subsystem = &mut self.subsystems[usize::from(op.subsystem)];
        if let Some(namespace) = subsystem.namespaces.get_mut(usize::from(op.namespace)) {
            namespace.count(&op.work, status);
        }
        let status = if status.is_success() { status } else { self.keep_error(&op, status) };
        let data = match (op.lease.take(), op.work) {
            (Some(lease), Work::Read { extent, .. }) => {
                Some((lease, u32::try_from(extent.len).unwrap_or(u32::MAX)))
            }
            (Some(lease), _) => {
                self.give_back(mem, op.conn, lease);
                None
            }
            (None, _) => None,
        };
        if matches!(op.work, Work::Settle) {
            self.on_settled(mem, (op.subsystem, op.controller), op.aborter, status);
        } else {
            self.reply(mem, op.conn, Reply { cid: op.cid, status, result, data, digest });
        }
        self.op_gone(mem, op.subsystem, op.controller);
        if op.preempted {
            self.on_victim_ended(mem, op.subsystem, op.namespace);
        }
        if op.fused.is_some() || op.work.writes().is_some() {
            self.unfuse(mem, key, &op, status);
        }
        if let Some(aborter) = aborter.filter(|_| !matches!(op.work, Work::Settle)) {
            let aborted = status.is(Status::ABORTED_BY_REQUEST);
            self.finish(mem, aborter, Status::SUCCESS, u64::from(!aborted));
        }
    }

    /// Puts what went wrong into the error log of its controller, if that is worth an entry.
    fn keep_error(&mut self, op: &Op, status: Status) -> Status {
        let queue = self.conns.get(op.conn).and_then(|conn| conn.queue()).map_or(0, |q| q.qid);
        let subsystem = &mut self.subsystems[usize::from(op.subsystem)];
        let namespace = subsystem.namespaces.get(usize::from(op.namespace));
        let is_io = !matches!(op.work, Work::Admin(_));
        let (nsid, shift) = match namespace.filter(|_| is_io) {
            Some(namespace) => (namespace.nsid, namespace.geometry.block.shift()),
            None => (0, 0),
        };
        let lba = offset(&op.work) >> shift;
        let failed = FailedCommand { queue, cid: op.cid, nsid, lba };
        match subsystem.controllers.get_mut(op.controller) {
            Some(association) => association.controller.keep_error(&failed, status),
            None => status,
        }
    }

    /// A controller has one op less.
    pub(crate) fn op_gone<M: Memory>(&mut self, mem: &mut M, at: u16, controller: Key) {
        let controllers = &mut self.subsystems[usize::from(at)].controllers;
        let Some(association) = controllers.get_mut(controller) else { return };
        association.ops -= 1;
        if association.ops == 0 {
            self.quiet(mem, at, controller);
        }
    }

    /// Completes a command that never became an op.
    pub(crate) fn answer<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        cid: u16,
        status: Status,
        result: u64,
    ) {
        self.reply(mem, key, Reply { cid, status, result, data: None, digest: None });
    }

    fn discard_data<M: Memory>(&mut self, mem: &mut M, key: Key, data: Option<Lease>) {
        if let Some(lease) = data {
            self.give_back(mem, key, lease);
        }
    }
}
