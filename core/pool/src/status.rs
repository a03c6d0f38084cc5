//! Which parts of a replica are allocated, for Get LBA Status and for copies.

use arrayvec::ArrayVec;
use braid_block::{Instant, Key, Memory};
use zerocopy::{FromBytes, IntoBytes};

use crate::layout::{BLOCK, CLUSTER, LEAF_CLUSTERS};
use crate::map::Look;
use crate::op::{PIECE_BLOCKS, Run, Waiter};
use crate::read::Resolve;
use crate::request::{Allocation, Failure, Work};
use crate::scrub::runs;
use crate::store::mask;
use crate::{Pool, State};

/// Clusters and leaves looked at before others have their turn.
const LOOKS: u32 = 1024;
/// Bytes of an entry.
const ENTRY: usize = size_of::<Allocation>();
/// Bytes of a leaf.
const LEAF: u64 = LEAF_CLUSTERS * CLUSTER;

/// What came of a look at a leaf or a cluster.
enum Found {
    /// Up to here, these blocks of the cluster are allocated.
    Until(u64, u64),
    /// It waits for a page.
    Wait,
    /// A page is lost.
    Lost,
}

impl Pool {
    /// Carries a `Work::Status` request out. It keeps its place in `next`, and the number of its
    /// entries in `unverified`, which means nothing for it.
    pub(crate) fn status<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        for _ in 0..LOOKS {
            let Some(op) = self.ops.get(key) else { return };
            let Work::Status { offset, len } = op.work else { return };
            let (layer, at, end) = (op.layer, op.next, offset + len);
            if at >= end || self.state == State::Failed {
                return self.end_status(mem, key, None);
            }
            let (until, blocks) = match self.allocated(mem, now, key, layer, at) {
                Found::Until(until, blocks) => (until, blocks),
                Found::Wait => return,
                Found::Lost => return self.end_status(mem, key, Some(Failure::Media(at))),
            };
            if !self.tell(mem, key, at, until.min(end), blocks) {
                return self.end_status(mem, key, None);
            }
            if let Some(op) = self.ops.get_mut(key) {
                op.next = until.min(end);
            }
        }
        self.ready.push_back(Waiter::Op(key));
    }

    fn end_status<M: Memory>(&mut self, mem: &mut M, key: Key, failure: Option<Failure>) {
        let failed = (self.state == State::Failed).then_some(Failure::Failed);
        if let Some(op) = self.ops.get_mut(key) {
            op.pieces = core::mem::take(&mut op.unverified);
            op.failure = op.failure.or(failure).or(failed);
        }
        self.finish(mem, key);
    }

    /// What is allocated of a cluster; of a whole leaf, if no layer has anything there.
    fn allocated<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        layer: u32,
        at: u64,
    ) -> Found {
        let index = u32::try_from(at / LEAF).unwrap_or(u32::MAX);
        let mut next = Some(layer);
        let mut bare = true;
        while let (Some(id), true) = (next, bare) {
            match self.store.map.look(id, index) {
                Look::Missing(page) => {
                    self.fetch(mem, now, page, Waiter::Op(key));
                    return Found::Wait;
                }
                Look::Lost(_) => return Found::Lost,
                Look::Here => bare = false,
                Look::Absent => {}
            }
            next = self.store.map.layers.get(&id).and_then(|layer| layer.state().parent);
        }
        if bare {
            return Found::Until((at / LEAF + 1) * LEAF, 0);
        }
        let lcluster = u32::try_from(at / CLUSTER).unwrap_or(u32::MAX);
        let mut found = ArrayVec::<Run, PIECE_BLOCKS>::new();
        match self.resolve(layer, lcluster, u64::MAX, &mut found) {
            Resolve::Ready => {
                let blocks = |run: &Run| mask(run.at.into(), run.count.into());
                let all = found.iter().fold(0, |all, run| all | blocks(run));
                Found::Until((at / CLUSTER + 1) * CLUSTER, all)
            }
            Resolve::Missing(page) => {
                self.fetch(mem, now, page, Waiter::Op(key));
                Found::Wait
            }
            Resolve::Lost => Found::Lost,
        }
    }

    /// Adds entries for the bytes `from .. to`; false if they do not fit.
    fn tell<M: Memory>(&mut self, mem: &mut M, key: Key, from: u64, to: u64, blocks: u64) -> bool {
        let base = from / CLUSTER * CLUSTER;
        let mut at = from;
        for (first, count) in runs(blocks) {
            let start = (base + u64::from(first) * BLOCK).clamp(from, to);
            let end = (base + u64::from(first + count) * BLOCK).clamp(from, to);
            if !self.entry(mem, key, at, start, false) || !self.entry(mem, key, start, end, true) {
                return false;
            }
            at = end;
        }
        self.entry(mem, key, at, to, false)
    }

    /// Adds an entry, or makes the last one longer.
    fn entry<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        from: u64,
        to: u64,
        allocated: bool,
    ) -> bool {
        if from >= to {
            return true;
        }
        let Some(op) = self.ops.get_mut(key) else { return false };
        let Some(lease) = &op.lease else { return false };
        let flag = if allocated { Allocation::ALLOCATED } else { 0 };
        let at = op.unverified as usize * ENTRY;
        let bytes = mem.bytes_mut(lease);
        if let Some(last) = at.checked_sub(ENTRY)
            && let Ok(mut entry) = Allocation::read_from_bytes(&bytes[last..at])
            && entry.len.get() & Allocation::ALLOCATED == flag
        {
            entry.len = ((to - entry.offset.get()) | flag).into();
            bytes[last..at].copy_from_slice(entry.as_bytes());
            return true;
        }
        let Some(place) = bytes.get_mut(at..at + ENTRY) else { return false };
        let entry = Allocation { offset: from.into(), len: ((to - from) | flag).into() };
        place.copy_from_slice(entry.as_bytes());
        op.unverified += 1;
        true
    }
}
