//! Hosts of volumes: who is connected, what they ask, and what they are answered.
//!
//! Invariants:
//! 1. A command of a host is its volume's from its submission until its completion, with its
//!    buffer; its tag is its op's token.

use alloc::boxed::Box;

use braid_block::{Extent, Geometry, Key, Lease, Memory, SUM_BYTES, Sums, Token};
use braid_nexus::record::Uuid;
use braid_nexus::{Completion, Event, Request, Status as Said, Work as Asked, ZERO_MAX};
use braid_nvme::Status;

use crate::Shard;
use crate::backend::{Backend, corrupt, op_token};
use crate::check;
use crate::device::{Outcome, next_range};
use crate::directory::fnv;
use crate::op::{State, Work};
use crate::replica::put_back;

/// A host of a volume, as its controller knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Guest {
    /// The volume's place.
    volume: usize,
    /// The number that the volume knows its association by; zero: it is of none.
    pub(crate) association: u32,
}

/// A host's association with a volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) association: u32,
    pub(super) subsystem: u16,
    pub(super) controller: Key,
}

impl Shard {
    /// A host read the ANA log: if that said optimized, it has not given this path up.
    pub(crate) fn guest_read_ana(&mut self, at: u16, controller: Key) {
        let subsystem = &self.subsystems[usize::from(at)];
        let Some(found) = subsystem.controllers.get(controller) else { return };
        if found.guest.association == 0 || !subsystem.ana.is_optimized(found.listener) {
            return;
        }
        for served in self.volumes.list.iter_mut().flatten() {
            if let Some(found) = served.guest(at, controller) {
                let Seat { association, .. } = served.guests[found];
                served.news.push_back(Event::HostReadAna { association });
            }
        }
    }

    /// A host connected: to a volume, if a namespace of the subsystem is one.
    pub(crate) fn guest_connected(&mut self, at: usize, controller: Key) -> Guest {
        let subsystem = &self.subsystems[at];
        let of = subsystem.namespaces.iter().find_map(|namespace| namespace.backend.volume());
        let nobody = Guest::default();
        let Some(volume) = of.and_then(|id| self.volumes.find(id)) else { return nobody };
        let Some(found) = subsystem.controllers.get(controller) else { return nobody };
        let host = *found.controller.hostid();
        let origin = fnv(found.controller.hostnqn().as_str().bytes());
        let served = self.volumes.at(volume);
        served.associations += 1;
        let association = served.associations;
        let subsystem = u16::try_from(at).unwrap_or(u16::MAX);
        served.guests.push(Seat { association, subsystem, controller });
        served.news.push_back(Event::HostConnected { association, host, origin });
        Guest { volume, association }
    }

    /// A controller is gone, and with it a host of a volume.
    pub(crate) fn guest_gone(&mut self, at: u16, controller: Key) {
        for served in self.volumes.list.iter_mut().flatten() {
            if let Some(found) = served.guest(at, controller) {
                let Seat { association, .. } = served.guests.remove(found);
                served.news.push_back(Event::HostGone { association });
            }
        }
    }

    /// Asks a volume for what an op needs next.
    pub(crate) fn on_volume<M: Memory>(&mut self, mem: &mut M, key: Key, id: &Uuid) -> Outcome {
        let now = self.now;
        self.stage_taken(key);
        let Some(op) = self.ops.get_mut(key) else { return Outcome::Emitted };
        let subsystem = &self.subsystems[usize::from(op.subsystem)];
        let geometry = subsystem.namespaces[usize::from(op.namespace)].geometry;
        let controller = subsystem.controllers.get(op.controller);
        let Guest { volume, association } = controller.map(|a| a.guest).unwrap_or_default();
        let Some(at) = self.volumes.find_near(id, volume) else {
            // It is being left, or not there yet: another path may have it.
            return Outcome::Done(Status::ANA_INACCESSIBLE);
        };
        let work = match next_work(mem, op, geometry) {
            Ok(work) => work,
            Err(status) => return Outcome::Done(status),
        };
        let lease = match work {
            Asked::Read { .. } if matches!(op.work, Work::Check { .. }) => {
                let Some(scratch) = op.scratch.take() else {
                    return Outcome::Needs(check::PIECE.bytes());
                };
                Some(scratch)
            }
            Asked::Read { .. } | Asked::Write { .. } => op.lease.take(),
            _ => None,
        };
        let moved = match work {
            Asked::Read { offset, len } => Some(braid_pool::Work::Read { offset, len }),
            Asked::Write { offset, len, durable } => {
                Some(braid_pool::Work::Write { offset, len, durable })
            }
            _ => None,
        };
        let known = moved.and_then(|moved| self.sums_for(key, &moved));
        let sums = match (known, &lease, work) {
            (None, Some(lease), Asked::Write { len, .. }) => self.sum_blocks(mem, lease, len),
            (known, ..) => known,
        };
        if let (Some(lease), Some(sums)) = (&lease, sums) {
            self.volumes.sums.put(lease.id(), sums);
        }
        let tag = op_token(key).to_bits();
        let served = self.volumes.at(at);
        // What happened before is known before: a host that came, an owner that is none any more.
        served.catch_up(mem, now);
        served.asked = true;
        served.volume.submit(now, Request { tag, association, work, lease });
        Outcome::Emitted
    }

    /// Sums the blocks of a write that its connection has not summed: once, for all replicas.
    fn sum_blocks<M: Memory>(&mut self, mem: &M, lease: &Lease, len: u32) -> Option<Box<Sums>> {
        if !len.is_multiple_of(SUM_BYTES) {
            return None;
        }
        let mut sums = self.sums.pop().unwrap_or_default();
        sums.clear();
        for (block, from) in (0..len).step_by(SUM_BYTES as usize).enumerate() {
            sums.set(block, mem.crc(lease, from..from + SUM_BYTES, 0));
        }
        Some(sums)
    }

    /// A volume is done with an op.
    pub(super) fn on_volume_done<M: Memory>(&mut self, mem: &mut M, completion: Completion) {
        let Completion { tag, lease, status } = completion;
        let key = Token::from_bits(tag).key();
        if self.ops.get(key).is_none() {
            debug_assert!(false, "an op stays until its volume has answered");
            return lease.into_iter().for_each(|lease| mem.free(lease));
        }
        let known = lease.as_ref().and_then(|lease| self.volumes.sums.take(lease.id()));
        let (digest, sums) = known.unwrap_or_default();
        self.sums.extend(sums);
        let Some(op) = self.ops.get_mut(key) else { return };
        put_back(op, lease);
        if status != Said::Success {
            return self.finish(mem, key, status_of(status), 0);
        }
        match (op.state, &mut op.work) {
            (State::Syncing, Work::Read { durable, .. } | Work::Check { durable, .. }) => {
                *durable = false;
                op.state = State::Running;
                self.proceed(mem, key);
            }
            (_, Work::Read { .. }) => {
                let mut digest = digest;
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
            (_, Work::Zero { extent, done, .. }) => {
                *done += (extent.len - *done).min(ZERO_MAX);
                if *done < extent.len {
                    self.proceed(mem, key);
                } else {
                    self.finish(mem, key, Status::SUCCESS, 0);
                }
            }
            (_, Work::Deallocate { .. }) => self.proceed(mem, key),
            _ => self.finish(mem, key, Status::SUCCESS, 0),
        }
    }
}

/// What is to be asked of a volume next; the status if nothing is.
fn next_work<M: Memory>(
    mem: &M,
    op: &mut crate::op::Op,
    geometry: Geometry,
) -> Result<Asked, Status> {
    let len = |extent: Extent| u32::try_from(extent.len).map_err(|_| Status::INVALID_FIELD.dnr());
    Ok(match &mut op.work {
        Work::Read { durable: true, .. } | Work::Check { durable: true, .. } => {
            op.state = State::Syncing;
            Asked::Flush
        }
        Work::Read { extent, .. } => Asked::Read { offset: extent.offset, len: len(*extent)? },
        Work::Check { .. } => {
            let extent = check::piece(&op.work).ok_or(Status::SUCCESS)?;
            Asked::Read { offset: extent.offset, len: len(extent)? }
        }
        Work::Write { extent, durable } => {
            Asked::Write { offset: extent.offset, len: len(*extent)?, durable: *durable }
        }
        Work::Flush | Work::Settle => Asked::Flush,
        Work::Zero { extent, durable, done, .. } => {
            let (offset, left) = (extent.offset + *done, extent.len - *done);
            Asked::Zero { offset, len: left.min(ZERO_MAX), durable: *durable }
        }
        Work::Deallocate { .. } => {
            let extent = next_range(mem, op, geometry)?.ok_or(Status::SUCCESS)?;
            let Work::Deallocate { next, done, .. } = &mut op.work else {
                return Err(Status::INTERNAL_ERROR);
            };
            let (offset, piece) = (extent.offset + *done, (extent.len - *done).min(ZERO_MAX));
            *done += piece;
            if *done == extent.len {
                (*next, *done) = (*next + 1, 0);
            }
            Asked::Zero { offset, len: piece, durable: false }
        }
        Work::Allocations { .. }
        | Work::Admin(_)
        | Work::Member(_)
        | Work::Reservation(_)
        | Work::Persistence(_) => return Err(Status::INTERNAL_ERROR),
    })
}

/// What a host is answered (NVMe Base 3.3.3.2.1): decided here for volumes.
const fn status_of(said: Said) -> Status {
    match said {
        Said::Success => Status::SUCCESS,
        Said::Inaccessible => Status::ANA_INACCESSIBLE,
        Said::Busy => Status::COMMAND_INTERRUPTED,
        Said::WriteFault { dnr: true } => Status::WRITE_FAULT.dnr(),
        Said::WriteFault { dnr: false } => Status::WRITE_FAULT,
        Said::NoSpace => Status::CAPACITY_EXCEEDED.dnr(),
        Said::Media(_) => Status::UNRECOVERED_READ,
        Said::Invalid => Status::INVALID_FIELD.dnr(),
    }
}

impl Backend {
    /// The volume that it is, if it is one.
    pub(crate) const fn volume(&self) -> Option<&Uuid> {
        match self {
            Self::Volume { volume } => Some(volume),
            _ => None,
        }
    }

    /// The replica that it is for nexuses, if it is one.
    pub(super) const fn member(&self) -> Option<&Uuid> {
        match self {
            Self::Member { replica } => Some(replica),
            _ => None,
        }
    }
}
