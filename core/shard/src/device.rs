//! Carrying an I/O command out: on memory at once, on a device by effects.
//!
//! Invariants:
//! 1. A flush is emitted after every write it covers was done: `Sync` covers what was `Done`.
//! 2. A buffer goes back only after the device let go of it.
//! 3. Long work on memory is done in pieces, a few a turn, so that it starves nobody.

use braid_block::{Class, Extent, Geometry, Instant, IoError, Key, Memory};
use braid_nvme::Status;
use braid_nvme::target::{Notice, Ranges};

use crate::Shard;
use crate::backend::{Backend, Namespace, corrupt, op_token, range, status_of};
use crate::check;
use crate::conn::Phase;
use crate::deadline::Reminder;
use crate::effect::Effect;
use crate::event::Disk;
use crate::inject::{Fault, Injection};
use crate::note::{Note, Operation};
use crate::op::{Op, State, Work};

/// Bytes of memory that are zeroed in one go: as many as the largest command moves.
const PIECE_BYTES: u64 = Class::Large.bytes() as u64;
/// Bytes of zeros that are written in one go, where the device cannot zero.
const ZEROS: u64 = Class::Large.bytes() as u64;

/// What running an op came to.
pub(crate) enum Outcome {
    /// It is done.
    Done(Status),
    /// The device has it.
    Emitted,
    /// It goes on in the next turn.
    Again,
    /// It needs a buffer of so many bytes to go on.
    Needs(u32),
}

impl Shard {
    /// Starts an op that has everything it needs.
    pub(crate) fn start<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.state = State::Running;
        if op.fused.is_some() || op.doomed.is_some() {
            return self.on_ready(mem, key);
        }
        if let Work::Admin(command) = op.work {
            return self.admin(mem, now, key, &command);
        }
        if let Work::Member(entry) = op.work {
            return self.on_member(mem, key, &entry);
        }
        if let Work::Reservation(_) = op.work {
            return self.on_reservation(mem, key);
        }
        let namespace =
            &mut self.subsystems[usize::from(op.subsystem)].namespaces[usize::from(op.namespace)];
        if !namespace.injections.is_empty() {
            match injected(namespace, &op.work) {
                None => {}
                Some(Fault::Error) => {
                    let operation = operation(&op.work);
                    return self.fail(mem, key, operation, IoError::Device);
                }
                Some(Fault::Stall) => {
                    op.state = State::Delayed;
                    return;
                }
                Some(Fault::Delay(delay)) => {
                    op.state = State::Delayed;
                    return self.deadlines.remind(now + delay, Reminder::Op(key));
                }
                Some(Fault::Corrupt) => match (&op.work, &op.lease) {
                    (Work::Write { .. }, Some(lease)) => {
                        self.summed = None;
                        corrupt(mem, lease);
                    }
                    _ => op.corrupt = true,
                },
            }
        }
        self.proceed(mem, key);
    }

    /// An injected delay is over.
    pub(crate) fn on_delay_over<M: Memory>(&mut self, mem: &mut M, _now: Instant, key: Key) {
        if self.ops.get(key).is_some_and(|op| op.state == State::Draining) {
            return self.on_abort_overdue(mem, key);
        }
        if self.ops.get(key).is_some_and(|op| op.state == State::Delayed) {
            if let Err(status) = self.path_of(key) {
                return self.finish(mem, key, status, 0);
            }
            if let Some(op) = self.ops.get_mut(key) {
                op.state = State::Running;
            }
            self.proceed(mem, key);
        }
    }

    /// Goes on with an op that was put off at the end of the last turn.
    pub(crate) fn proceed<M: Memory>(&mut self, mem: &mut M, key: Key) {
        if self.is_barred(key) {
            return;
        }
        let Some(op) = self.ops.get_mut(key) else { return };
        let namespace =
            &mut self.subsystems[usize::from(op.subsystem)].namespaces[usize::from(op.namespace)];
        let outcome = match &namespace.backend {
            Backend::Memory(_) => on_memory(mem, op, namespace),
            Backend::Disk { disk, .. } => {
                let disk = *disk;
                on_disk(mem, key, op, namespace, disk, |effect| self.outbox.emit(effect))
            }
            Backend::Replica { pool, handle } => {
                let (pool, handle) = (*pool, *handle);
                self.on_replica(mem, key, pool, handle)
            }
            Backend::Volume { volume } => {
                let volume = *volume;
                self.on_volume(mem, key, &volume)
            }
            // Its commands go to its guard, not to it.
            Backend::Member { .. } => Outcome::Done(Status::INTERNAL_ERROR),
        };
        match outcome {
            Outcome::Done(status) => self.finish(mem, key, status, 0),
            Outcome::Emitted => {}
            Outcome::Again => self.unfinished.push_back(key),
            Outcome::Needs(_) if self.is_orphan(key) => {
                self.finish(mem, key, Status::ABORTED_QUEUE_DELETED, 0);
            }
            Outcome::Needs(len) => match self.buffer_for(mem, key, len, self.waiting.is_empty()) {
                Some(lease) => self.on_buffer(mem, Instant::ZERO, key, lease),
                None => self.wait_for_buffer(key, len),
            },
        }
    }

    /// Whether the connection of an op is closed, so that it gets no buffer any more.
    fn is_orphan(&self, key: Key) -> bool {
        let conn = self.ops.get(key).and_then(|op| self.conns.get(op.conn));
        conn.is_none_or(|conn| conn.phase == Phase::Closed)
    }

    /// The device is done with an op.
    pub(crate) fn on_device_done<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        result: Result<u32, IoError>,
    ) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let namespace =
            &mut self.subsystems[usize::from(op.subsystem)].namespaces[usize::from(op.namespace)];
        match (result, op.state) {
            (Err(error), State::Syncing | State::Leaving(..)) => {
                self.fail(mem, key, Operation::Flush, error);
            }
            (Err(IoError::Unsupported), State::Running)
                if is_zero(&op.work) && op.lease.is_none() =>
            {
                // What cannot give space back may still zero it; where the file system cannot do
                // that either, zeros are written from now on.
                match (&mut op.work, &mut namespace.backend) {
                    (Work::Zero { deallocate: deallocate @ true, .. }, _) => *deallocate = false,
                    (_, Backend::Disk { zeroes, .. }) => *zeroes = false,
                    _ => {}
                }
                self.proceed(mem, key);
            }
            (Err(_), State::Running) if matches!(op.work, Work::Deallocate { .. }) => {
                // A hint that cannot be followed is not an error (NVM 3.2.3).
                advance(op);
                self.proceed(mem, key);
            }
            (Err(error), _) => {
                let operation = operation(&op.work);
                self.fail(mem, key, operation, error);
            }
            (Ok(moved), _) => self.on_device_ok(mem, key, moved),
        }
    }

    fn on_device_ok<M: Memory>(&mut self, mem: &mut M, key: Key, moved: u32) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let namespace =
            &mut self.subsystems[usize::from(op.subsystem)].namespaces[usize::from(op.namespace)];
        match (op.state, &mut op.work) {
            (State::Leaving(leaving, _), _) => {
                if let Some(overlay) = &mut namespace.overlay {
                    overlay.left(leaving);
                }
                self.proceed(mem, key);
            }
            (State::Syncing, Work::Read { durable, .. } | Work::Check { durable, .. }) => {
                *durable = false;
                op.state = State::Running;
                self.proceed(mem, key);
            }
            (State::Syncing, _) | (_, Work::Flush | Work::Settle) => {
                self.finish(mem, key, Status::SUCCESS, 0);
            }
            (_, Work::Read { extent, .. }) => {
                if u64::from(moved) != extent.len {
                    return self.fail(mem, key, Operation::Read, IoError::Device);
                }
                if let (Some(overlay), Some(lease)) = (&namespace.overlay, &op.lease) {
                    overlay.patch(extent.offset, &mut mem.bytes_mut(lease)[..moved as usize]);
                }
                if let (true, Some(lease)) = (op.corrupt, &op.lease) {
                    corrupt(mem, lease);
                }
                self.finish(mem, key, Status::SUCCESS, 0);
            }
            (_, Work::Check { .. }) => self.on_checked(mem, key, moved),
            (_, Work::Write { extent, .. }) => {
                if u64::from(moved) != extent.len {
                    return self.fail(mem, key, Operation::Write, IoError::Device);
                }
                self.finish(mem, key, Status::SUCCESS, 0);
            }
            (_, Work::Zero { extent, done, .. })
                if op.lease.is_some() && u64::from(moved) < (extent.len - *done).min(ZEROS) =>
            {
                self.fail(mem, key, Operation::Zero, IoError::Device);
            }
            (_, Work::Zero { .. } | Work::Deallocate { .. }) => {
                advance(op);
                self.proceed(mem, key);
            }
            (_, Work::Allocations { .. } | Work::Admin(_) | Work::Member(_)) => {}
            (_, Work::Reservation(_) | Work::Persistence(_)) => {}
        }
    }

    /// A device operation of an op failed.
    pub(crate) fn fail<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        operation: Operation,
        error: IoError,
    ) {
        if let Some(op) = self.ops.get(key) {
            let namespace = &mut self.subsystems[usize::from(op.subsystem)].namespaces
                [usize::from(op.namespace)];
            let failed = operation == Operation::Flush;
            let news = failed && !core::mem::replace(&mut namespace.flush_failed, failed);
            let (nsid, offset) = (namespace.nsid, offset(&op.work));
            if news {
                let controllers = &mut self.subsystems[usize::from(op.subsystem)].controllers;
                for (_, association) in controllers.iter_mut() {
                    association.controller.raise(Notice::Reliability);
                }
                self.events = true;
            }
            self.note(Note::DiskFailed { nsid, operation, offset, error });
        }
        self.finish(mem, key, status_of(operation, error), 0);
    }

    /// Replaces the faults that a namespace injects; ops that stall go on.
    pub(crate) fn replace_injections(
        &mut self,
        at: usize,
        namespace: usize,
        injections: &[Injection],
    ) {
        let Some(subsystem) = self.subsystems.get_mut(at) else { return };
        let Some(entry) = subsystem.namespaces.get_mut(namespace) else { return };
        entry.injections.clear();
        entry.injections.extend_from_slice(injections);
        for index in 0..u32::try_from(self.ops.capacity()).unwrap_or(u32::MAX) {
            let Some(key) = self.ops.key_at(index) else { continue };
            let Some(op) = self.ops.get_mut(key) else { continue };
            let here = usize::from(op.subsystem) == at && usize::from(op.namespace) == namespace;
            if here && op.state == State::Delayed {
                op.state = State::Running;
                self.unfinished.push_back(key);
            }
        }
    }
}

fn on_memory<M: Memory>(mem: &mut M, op: &mut Op, namespace: &mut Namespace) -> Outcome {
    let Backend::Memory(store) = &mut namespace.backend else { return Outcome::Emitted };
    match (&mut op.work, &op.lease) {
        (Work::Read { extent, .. }, Some(lease)) => {
            let range = range(*extent);
            mem.bytes_mut(lease)[..range.len()].copy_from_slice(&store[range]);
            if op.corrupt {
                corrupt(mem, lease);
            }
            Outcome::Done(Status::SUCCESS)
        }
        (Work::Write { extent, .. }, Some(lease)) => {
            let range = range(*extent);
            store[range.clone()].copy_from_slice(&mem.bytes(lease)[..range.len()]);
            Outcome::Done(Status::SUCCESS)
        }
        (Work::Check { .. }, _) => Outcome::Done(check::on_memory(mem, op, store)),
        (Work::Zero { extent, done, .. }, _) => {
            let piece = (extent.len - *done).min(PIECE_BYTES);
            store[range(Extent { offset: extent.offset + *done, len: piece })].fill(0);
            *done += piece;
            if *done == extent.len { Outcome::Done(Status::SUCCESS) } else { Outcome::Again }
        }
        (Work::Deallocate { .. }, Some(_)) => {
            let extent = match next_range(mem, op, namespace.geometry) {
                Ok(Some(extent)) => extent,
                Ok(None) => return Outcome::Done(Status::SUCCESS),
                Err(status) => return Outcome::Done(status),
            };
            let Work::Deallocate { next, done, .. } = &mut op.work else { return Outcome::Again };
            // Deallocated memory reads as zeros.
            let piece = (extent.len - *done).min(PIECE_BYTES);
            store[range(Extent { offset: extent.offset + *done, len: piece })].fill(0);
            *done += piece;
            if *done == extent.len {
                (*next, *done) = (*next + 1, 0);
            }
            Outcome::Again
        }
        _ => Outcome::Done(Status::SUCCESS),
    }
}

fn on_disk<M: Memory>(
    mem: &mut M,
    key: Key,
    op: &mut Op,
    namespace: &mut Namespace,
    disk: Disk,
    mut emit: impl FnMut(Effect),
) -> Outcome {
    let token = op_token(key);
    let Backend::Disk { discards, zeroes, .. } = namespace.backend else { return Outcome::Emitted };
    match (&mut op.work, &op.lease) {
        (Work::Read { durable: true, .. } | Work::Check { durable: true, .. }, _) => {
            op.state = State::Syncing;
            namespace.counters.device_flushes += 1;
            emit(Effect::Sync { token, disk });
        }
        (Work::Read { extent, .. }, Some(lease)) => {
            namespace.counters.device_reads += 1;
            let span = lease.span(0, u32::try_from(extent.len).unwrap_or(u32::MAX));
            emit(Effect::Read { token, disk, span, offset: extent.offset });
        }
        (Work::Check { .. }, _) => {
            let Some(scratch) = &op.scratch else { return Outcome::Needs(check::PIECE.bytes()) };
            let Some(Extent { offset, len }) = check::piece(&op.work) else {
                return Outcome::Done(Status::SUCCESS);
            };
            namespace.counters.device_reads += 1;
            let span = scratch.span(0, u32::try_from(len).unwrap_or(u32::MAX));
            emit(Effect::Read { token, disk, span, offset });
        }
        (Work::Write { extent, durable }, Some(lease)) => {
            let len = u32::try_from(extent.len).unwrap_or(u32::MAX);
            if let Some(overlay) = &mut namespace.overlay {
                if *durable {
                    overlay.forget(extent.offset, extent.len);
                } else {
                    let block = namespace.geometry.block.bytes() as usize;
                    overlay.write(extent.offset, &mem.bytes(lease)[..len as usize], block);
                    return Outcome::Done(Status::SUCCESS);
                }
            }
            namespace.counters.device_writes += 1;
            let (durable, offset) = (*durable, extent.offset);
            emit(Effect::Write { token, disk, durable, span: lease.span(0, len), offset });
        }
        (Work::Flush | Work::Settle, _) => return flush(mem, key, op, namespace, disk, emit),
        (Work::Zero { extent, deallocate, durable, done }, lease) => {
            if let Some(overlay) = &mut namespace.overlay {
                overlay.forget(extent.offset, extent.len);
            }
            let (offset, len) = (extent.offset + *done, extent.len - *done);
            if len == 0 {
                if !*durable {
                    return Outcome::Done(Status::SUCCESS);
                }
                op.state = State::Syncing;
                namespace.counters.device_flushes += 1;
                emit(Effect::Sync { token, disk });
                return Outcome::Emitted;
            }
            namespace.counters.device_writes += 1;
            if discards && *deallocate {
                emit(Effect::Discard { token, disk, offset, len });
            } else if zeroes {
                emit(Effect::Zero { token, disk, offset, len });
            } else {
                let Some(lease) = lease else { return Outcome::Needs(Class::Large.bytes()) };
                let len = len.min(u64::from(Class::Large.bytes()));
                let len = u32::try_from(len).unwrap_or(Class::Large.bytes());
                mem.bytes_mut(lease)[..len as usize].fill(0);
                let span = lease.span(0, len);
                emit(Effect::Write { token, disk, durable: false, span, offset });
            }
        }
        (Work::Deallocate { .. }, Some(_)) => {
            let Extent { offset, len } = match next_range(mem, op, namespace.geometry) {
                Ok(Some(extent)) if discards => extent,
                Ok(_) => return Outcome::Done(Status::SUCCESS),
                Err(status) => return Outcome::Done(status),
            };
            if let Some(overlay) = &mut namespace.overlay {
                overlay.forget(offset, len);
            }
            emit(Effect::Discard { token, disk, offset, len });
        }
        _ => return Outcome::Done(Status::INTERNAL_ERROR),
    }
    Outcome::Emitted
}

/// The next range of a Dataset Management that is not empty; none if all are done. All are looked
/// at once, before the first is touched.
pub(crate) fn next_range<M: Memory>(
    mem: &M,
    op: &mut Op,
    geometry: Geometry,
) -> Result<Option<Extent>, Status> {
    let (Work::Deallocate { next, ranges, checked, .. }, Some(lease)) = (&mut op.work, &op.lease)
    else {
        return Err(Status::INTERNAL_ERROR);
    };
    let data = mem.bytes(lease);
    if !core::mem::replace(checked, true) {
        Ranges::parse(data, *ranges, geometry)?;
    }
    while *next < *ranges {
        match Ranges::nth(data, *next, geometry) {
            Some(extent) if extent.len > 0 => return Ok(Some(extent)),
            _ => *next += 1,
        }
    }
    Ok(None)
}

/// Writes out what is kept aside, block by block, then makes all of it durable.
fn flush<M: Memory>(
    mem: &mut M,
    key: Key,
    op: &mut Op,
    namespace: &mut Namespace,
    disk: Disk,
    mut emit: impl FnMut(Effect),
) -> Outcome {
    let token = op_token(key);
    if let Some(overlay) = &namespace.overlay {
        let until = match op.state {
            State::Leaving(_, until) => until,
            _ => overlay.version(),
        };
        if let Some((leaving, bytes)) = overlay.first(until) {
            let Some(lease) = &op.lease else { return Outcome::Needs(Class::Small.bytes()) };
            mem.bytes_mut(lease)[..bytes.len()].copy_from_slice(bytes);
            let span = lease.span(0, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            op.state = State::Leaving(leaving, until);
            namespace.counters.device_writes += 1;
            let offset = leaving.offset;
            emit(Effect::Write { token, disk, durable: false, span, offset });
            return Outcome::Emitted;
        }
    }
    op.state = State::Syncing;
    namespace.counters.device_flushes += 1;
    emit(Effect::Sync { token, disk });
    Outcome::Emitted
}

/// A piece of work in pieces is done.
fn advance(op: &mut Op) {
    let written = match op.lease {
        Some(_) => ZEROS,
        None => u64::MAX,
    };
    match &mut op.work {
        Work::Zero { extent, done, .. } => *done = done.saturating_add(written).min(extent.len),
        Work::Deallocate { next, .. } => *next += 1,
        _ => {}
    }
}

const fn is_zero(work: &Work) -> bool {
    matches!(work, Work::Zero { .. })
}

pub(crate) const fn operation(work: &Work) -> Operation {
    match work {
        Work::Read { .. }
        | Work::Check { .. }
        | Work::Allocations { .. }
        | Work::Reservation(_)
        | Work::Persistence(_)
        | Work::Member(_)
        | Work::Admin(_) => Operation::Read,
        Work::Write { .. } => Operation::Write,
        Work::Flush | Work::Settle => Operation::Flush,
        Work::Zero { .. } => Operation::Zero,
        Work::Deallocate { .. } => Operation::Discard,
    }
}

pub(crate) const fn offset(work: &Work) -> u64 {
    match work {
        Work::Read { extent, .. } | Work::Write { extent, .. } | Work::Zero { extent, .. } => {
            extent.offset
        }
        Work::Allocations { extent, .. } | Work::Check { extent, .. } => extent.offset,
        Work::Flush
        | Work::Settle
        | Work::Deallocate { .. }
        | Work::Reservation(_)
        | Work::Persistence(_)
        | Work::Member(_)
        | Work::Admin(_) => 0,
    }
}

/// The fault that hits this work, if any; a spent one is gone.
fn injected(namespace: &mut Namespace, work: &Work) -> Option<Fault> {
    let wanted = operation(work);
    let (start, len) = match work {
        Work::Read { extent, .. } | Work::Write { extent, .. } | Work::Check { extent, .. } => {
            (extent.offset, extent.len)
        }
        _ => (0, u64::MAX),
    };
    Injection::hit(&mut namespace.injections, wanted, (start, len))
}
