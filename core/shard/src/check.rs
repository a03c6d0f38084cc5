//! Compare and Verify: blocks are read only to be looked at, in pieces, into a buffer of their own.
//!
//! Invariants:
//! 1. Who waits for that buffer may hold what its host sent, and still gets one in the end: those
//!    that only admin commands get are for it too, and whoever has one of them needs nothing more.

use braid_block::{Class, Extent, IoError, Key, Memory};
use braid_nvme::Status;

use crate::Shard;
use crate::backend::{Namespace, corrupt, range};
use crate::note::Operation;
use crate::op::{Op, Work};

/// Bytes that are looked at in one go.
pub(crate) const PIECE: Class = Class::Medium;

/// The next piece of a check; none if all is done.
pub(crate) fn piece(work: &Work) -> Option<Extent> {
    let Work::Check { extent, done, .. } = *work else { return None };
    let len = (extent.len - done).min(u64::from(PIECE.bytes()));
    (len > 0).then_some(Extent { offset: extent.offset + done, len })
}

/// Looks at memory, which needs no buffer.
pub(crate) fn on_memory<M: Memory>(mem: &M, op: &Op, store: &[u8]) -> Status {
    let Work::Check { extent, compare: true, .. } = op.work else { return Status::SUCCESS };
    let Some(lease) = &op.lease else { return Status::INTERNAL_ERROR };
    let range = range(extent);
    let same = !op.corrupt && store[range.clone()] == mem.bytes(lease)[..range.len()];
    if same { Status::SUCCESS } else { Status::COMPARE_FAILURE.dnr() }
}

impl Shard {
    /// A piece was read.
    pub(crate) fn on_checked<M: Memory>(&mut self, mem: &mut M, key: Key, moved: u32) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let (Some(piece), Some(scratch)) = (piece(&op.work), &op.scratch) else {
            return self.finish(mem, key, Status::INTERNAL_ERROR, 0);
        };
        if u64::from(moved) != piece.len {
            return self.fail(mem, key, Operation::Read, IoError::Device);
        }
        let namespace: &Namespace =
            &self.subsystems[usize::from(op.subsystem)].namespaces[usize::from(op.namespace)];
        if let Some(overlay) = &namespace.overlay {
            overlay.patch(piece.offset, &mut mem.bytes_mut(scratch)[..moved as usize]);
        }
        if op.corrupt {
            corrupt(mem, scratch);
        }
        let Work::Check { extent, compare, done, .. } = &mut op.work else { return };
        if *compare {
            let at = usize::try_from(*done).unwrap_or(usize::MAX);
            let sent = op.lease.as_ref().and_then(|lease| mem.bytes(lease).get(at..));
            let sent = sent.and_then(|sent| sent.get(..moved as usize));
            if sent != mem.bytes(scratch).get(..moved as usize) {
                return self.finish(mem, key, Status::COMPARE_FAILURE.dnr(), 0);
            }
        }
        *done += piece.len;
        if *done == extent.len {
            self.finish(mem, key, Status::SUCCESS, 0);
        } else {
            self.proceed(mem, key);
        }
    }
}
