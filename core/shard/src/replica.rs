//! Commands to a namespace that is a replica or a snapshot in a pool: what is asked of the pool,
//! and what its answers mean to the host.
//!
//! Invariants:
//! 1. The op's buffer goes with the request and comes back with its completion.
//! 2. A failure's status is decided by [`status_of_failure`], nowhere else.

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::{Extent, Geometry, Key, Lease, Memory, SUM_BYTES, Sums};
use braid_nvme::Status;
use braid_nvme::target::write_allocations;
use braid_pool::{Allocation, Completion, Done, Failure, Handle, Request};
use zerocopy::FromBytes;

use crate::Shard;
use crate::backend::{corrupt, op_token, status_of_failure};
use crate::check;
use crate::device::{Outcome, next_range, operation};
use crate::op::{Op, State, Work};
use crate::pool::{Latency, PoolId};

impl Shard {
    /// Asks a pool for what an op needs next.
    pub(crate) fn on_replica<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        pool: PoolId,
        handle: Handle,
    ) -> Outcome {
        let now = self.now;
        let Some(op) = self.ops.get_mut(key) else { return Outcome::Emitted };
        let namespace =
            &self.subsystems[usize::from(op.subsystem)].namespaces[usize::from(op.namespace)];
        let work = match next_work(mem, op, namespace.geometry) {
            Ok(work) => work,
            Err(status) => return Outcome::Done(status),
        };
        let lease = match work {
            // Dataset Management keeps its list of ranges, a FUA read its buffer for later.
            braid_pool::Work::Zero { .. } | braid_pool::Work::Flush { .. } => None,
            _ if matches!(op.work, Work::Check { .. }) => {
                let Some(scratch) = op.scratch.take() else {
                    return Outcome::Needs(check::PIECE.bytes());
                };
                Some(scratch)
            }
            _ => op.lease.take(),
        };
        op.since = now;
        let sums = self.sums_for(key, &work);
        let request = Request { tag: op_token(key).to_bits(), handle, work, lease };
        match self.pools.submit(mem, now, pool, request, sums) {
            Ok(()) => Outcome::Emitted,
            Err(request) => {
                if let Some(op) = self.ops.get_mut(key) {
                    put_back(op, request.lease);
                }
                Outcome::Done(Status::INVALID_NAMESPACE.dnr())
            }
        }
    }

    /// A pool is done with a request.
    pub(crate) fn on_request_done<M: Memory>(
        &mut self,
        mem: &mut M,
        pool: PoolId,
        key: Key,
        completion: Completion,
        sums: Option<Box<Sums>>,
    ) {
        let now = self.now;
        let Completion { lease, result, .. } = completion;
        let Some(op) = self.ops.get_mut(key) else {
            debug_assert!(false, "an op stays until the pool has answered");
            return lease.into_iter().for_each(|lease| mem.free(lease));
        };
        put_back(op, lease);
        let took = now.since(op.since);
        if let Some(entry) = self.pools.find_mut(pool) {
            let latency = &mut entry.latency;
            match op.work {
                Work::Read { .. } if op.state == State::Running => {
                    Latency::count(&mut latency.read, took);
                }
                Work::Write { .. } | Work::Zero { .. } => Latency::count(&mut latency.write, took),
                Work::Flush | Work::Settle => Latency::count(&mut latency.flush, took),
                _ => {}
            }
        }
        match result {
            Ok(done) => self.on_request_ok(mem, key, done, sums.as_deref()),
            Err(failure) => self.on_request_failed(mem, key, failure),
        }
        self.sums.extend(sums);
    }

    /// Sums that go with a request: those of a write that its connection has just summed; empty
    /// ones for a read whose host wants a digest.
    pub(crate) fn sums_for(&mut self, key: Key, work: &braid_pool::Work) -> Option<Box<Sums>> {
        let conn = self.conns.get(self.ops.get(key)?.conn)?;
        match work {
            braid_pool::Work::Write { len, .. } if self.summed == Some(key) => {
                let known = conn.queue()?.connection.sums();
                known.get(0).filter(|_| *len >= SUM_BYTES)?;
                let mut sums = self.sums.pop().unwrap_or_default();
                sums.as_mut().clone_from(known);
                Some(sums)
            }
            braid_pool::Work::Read { len, .. }
                if conn.transmit.sums_data()
                    && len.is_multiple_of(SUM_BYTES)
                    && matches!(self.ops.get(key)?.work, Work::Read { .. } | Work::Member(_)) =>
            {
                Some(self.sums.pop().unwrap_or_default())
            }
            _ => None,
        }
    }

    fn on_request_ok<M: Memory>(&mut self, mem: &mut M, key: Key, done: Done, sums: Option<&Sums>) {
        let Some(op) = self.ops.get_mut(key) else { return };
        match (op.state, &mut op.work) {
            (State::Syncing, Work::Read { durable, .. } | Work::Check { durable, .. }) => {
                *durable = false;
                op.state = State::Running;
                self.proceed(mem, key);
            }
            (_, Work::Read { extent, .. }) => {
                let len = u32::try_from(extent.len).unwrap_or(u32::MAX);
                let mut digest = sums.and_then(|sums| sums.of_all(len));
                if let (true, Some(lease)) = (op.corrupt, &op.lease) {
                    corrupt(mem, lease);
                    digest = None;
                }
                self.finish_summed(mem, key, Status::SUCCESS, 0, digest);
            }
            (_, Work::Check { .. }) => {
                let len = check::piece(&op.work).map_or(0, |piece| piece.len);
                self.on_checked(mem, key, u32::try_from(len).unwrap_or(u32::MAX));
            }
            (_, Work::Deallocate { next, .. }) => {
                *next += 1;
                self.proceed(mem, key);
            }
            (_, Work::Allocations { .. }) => self.tell_allocations(mem, key, done.count),
            _ => self.finish(mem, key, Status::SUCCESS, 0),
        }
    }

    fn on_request_failed<M: Memory>(&mut self, mem: &mut M, key: Key, failure: Failure) {
        let Some(op) = self.ops.get(key) else { return };
        let syncing = op.state == State::Syncing;
        let operation = if syncing { crate::Operation::Flush } else { operation(&op.work) };
        self.finish(mem, key, status_of_failure(operation, failure), 0);
    }

    /// Answers Get LBA Status by what the pool wrote into the buffer.
    fn tell_allocations<M: Memory>(&mut self, mem: &mut M, key: Key, count: u32) {
        let Some(op) = self.ops.get(key) else { return };
        let (Work::Allocations { extent, bytes }, Some(lease)) = (op.work, &op.lease) else {
            return self.finish(mem, key, Status::INTERNAL_ERROR, 0);
        };
        let namespace =
            &self.subsystems[usize::from(op.subsystem)].namespaces[usize::from(op.namespace)];
        let block_bytes = namespace.geometry.block.bytes();
        // Both lists are in the same buffer, and admin commands may allocate.
        let listed: Vec<Allocation> = mem
            .bytes(lease)
            .chunks_exact(size_of::<Allocation>())
            .take(count as usize)
            .filter_map(|entry| Allocation::read_from_bytes(entry).ok())
            .collect();
        let parts = || {
            listed.iter().map(|part| {
                let len = part.len.get();
                let extent =
                    Extent { offset: part.offset.get(), len: len & !Allocation::ALLOCATED };
                (extent, len & Allocation::ALLOCATED != 0)
            })
        };
        let end = parts().next_back().map_or(extent.offset, |(part, _)| part.offset + part.len);
        let allocated = parts().filter(|(_, allocated)| *allocated).map(|(part, _)| part);
        let out = &mut mem.bytes_mut(lease)[..bytes as usize];
        write_allocations(out, block_bytes, allocated, end >= extent.offset + extent.len);
        self.finish_with_data(mem, key, bytes);
    }
}

/// Takes back the buffer that went with a request.
pub(crate) fn put_back(op: &mut Op, lease: Option<Lease>) {
    let place = match op.work {
        Work::Check { .. } => &mut op.scratch,
        _ => &mut op.lease,
    };
    *place = place.take().or(lease);
}

/// What is to be asked of the pool next; the status if nothing is.
fn next_work<M: Memory>(
    mem: &M,
    op: &mut Op,
    geometry: Geometry,
) -> Result<braid_pool::Work, Status> {
    let len = |extent: Extent| u32::try_from(extent.len).map_err(|_| Status::INVALID_FIELD.dnr());
    Ok(match op.work {
        Work::Read { durable: true, .. } | Work::Check { durable: true, .. } => {
            op.state = State::Syncing;
            braid_pool::Work::Flush { number: None }
        }
        Work::Read { extent, .. } => {
            braid_pool::Work::Read { offset: extent.offset, len: len(extent)? }
        }
        Work::Check { .. } => {
            let extent = check::piece(&op.work).ok_or(Status::SUCCESS)?;
            braid_pool::Work::Read { offset: extent.offset, len: len(extent)? }
        }
        Work::Write { extent, durable } => {
            braid_pool::Work::Write { offset: extent.offset, len: len(extent)?, durable }
        }
        Work::Flush | Work::Settle => braid_pool::Work::Flush { number: None },
        Work::Zero { extent, durable, .. } => {
            braid_pool::Work::Zero { offset: extent.offset, len: extent.len, durable }
        }
        Work::Deallocate { .. } => {
            let extent = next_range(mem, op, geometry)?.ok_or(Status::SUCCESS)?;
            braid_pool::Work::Zero { offset: extent.offset, len: extent.len, durable: false }
        }
        Work::Allocations { extent, .. } => {
            braid_pool::Work::Status { offset: extent.offset, len: extent.len }
        }
        Work::Reservation(_) | Work::Persistence(_) | Work::Admin(_) | Work::Member(_) => {
            return Err(Status::INTERNAL_ERROR);
        }
    })
}
