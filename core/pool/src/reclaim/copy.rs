//! Copying blocks of a deleted layer into free slots of its child's cluster.
//!
//! ```text
//! Reading -> Comparing -> Writing -> Recording -> done
//! ```
//! The blocks are locked in the child from the first state to the last: a host may write it.

use braid_block::{Class, Instant, Key, Memory};

use super::merge::Entry;
use super::{Pool, Step, Work, block_of, lcluster};
use crate::layout::{BLOCK, CLUSTER_BLOCKS, Cell};
use crate::map::Look;
use crate::op::Waiter;
use crate::scrub::runs;
use crate::store::{binding, mask, place_cluster};
use crate::sums::Sum;
use crate::write::{BLOCK_BYTES, bits, region_of};

/// Blocks of one copy: a large buffer.
const BLOCKS: u32 = Class::Large.bytes() / BLOCK_BYTES;

/// Where a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    Comparing,
    Writing,
    Recording,
}

/// Blocks on their way.
#[derive(Debug)]
pub(super) struct Copy {
    job: Key,
    stage: Stage,
    child: u32,
    lcluster: u32,
    from: u32,
    to: u32,
    /// First block of the buffer.
    first: u32,
    /// Blocks that are copied, and all that are locked for it.
    blocks: u64,
    locked: u64,
    /// Some of them could not be verified after an unclean stop, nor can they be then.
    unverified: bool,
    /// Their checksums as the journal gets them, by position in the buffer.
    sums: [u32; BLOCKS as usize],
}

impl Pool {
    pub(super) fn begin_copy<M: Memory>(
        &mut self,
        mem: &mut M,
        work: &mut Work,
        child: u32,
        (from, to): (Entry, Entry),
        blocks: u64,
    ) -> Step {
        let (Some(from), Some(to)) = (from.phys, to.phys) else { return Step::On };
        let at = lcluster(work.leaf, work.at);
        let first = blocks.trailing_zeros();
        // After a read that failed, block by block.
        let count = if work.bad.contains_key(&at) { 1 } else { BLOCKS.min(64 - first) };
        let blocks = blocks & mask(first, count);
        let Some(job) = self.begin_job(mem, Class::Large) else {
            return Step::Wait;
        };
        if !self.locks.try_lock(child, at, blocks) {
            self.end_job(mem, job);
            work.later.any = true;
            return Step::On;
        }
        for (at, count) in runs(blocks) {
            let offset = self.store.layout.block(block_of(from, at));
            self.job_read(job, (at - first) * BLOCK_BYTES, count * BLOCK_BYTES, offset);
        }
        work.copy = Some(Copy {
            job,
            stage: Stage::Reading,
            child,
            lcluster: at,
            from,
            to,
            first,
            blocks,
            locked: blocks,
            unverified: false,
            sums: [0; BLOCKS as usize],
        });
        Step::Wait
    }

    /// Takes a copy further.
    pub(super) fn copy_on<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        work: &mut Work,
    ) -> Step {
        let Some(mut copy) = work.copy.take() else { return Step::On };
        let Some(outcome) = self.jobs.outcome(copy.job) else {
            work.copy = Some(copy);
            return Step::Wait;
        };
        let step = match copy.stage {
            Stage::Reading if outcome.is_err() => {
                // Which of them it was is found out block by block.
                let one = copy.blocks.count_ones() == 1;
                *work.bad.entry(copy.lcluster).or_default() |= if one { copy.blocks } else { 0 };
                Step::Ended
            }
            Stage::Reading | Stage::Comparing => {
                copy.stage = Stage::Comparing;
                self.compare_copy(mem, now, work, &mut copy)
            }
            Stage::Writing if outcome.is_err() => Step::Ended,
            Stage::Writing | Stage::Recording => {
                if copy.stage == Stage::Writing {
                    self.sync.wrote();
                    copy.stage = Stage::Recording;
                }
                self.record_copy(mem, now, &copy)
            }
        };
        if step == Step::Wait {
            work.copy = Some(copy);
            return Step::Wait;
        }
        self.end_copy(mem, &copy);
        Step::On
    }

    /// Compares what was read with its checksums; what matches is written.
    fn compare_copy<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        work: &mut Work,
        copy: &mut Copy,
    ) -> Step {
        let tree = self.store.map.layers.get(&copy.child).map_or(0, |layer| layer.state().tree);
        let mut bad = 0;
        for at in bits(copy.blocks) {
            let stored = match self.store.sums.get(&self.store.layout, block_of(copy.from, at)) {
                Sum::Known(crc) => Some(crc),
                Sum::Unknown => None,
                Sum::Missing(page) => {
                    self.fetch_sums(mem, now, page, Waiter::Job);
                    return Step::Wait;
                }
            };
            let lblock = u64::from(copy.lcluster) * CLUSTER_BLOCKS + u64::from(at);
            let place = (at - copy.first) * BLOCK_BYTES;
            let Some(lease) = self.jobs.lease(copy.job) else { return Step::Ended };
            let crc = mem.crc(lease, place..place + BLOCK_BYTES, 0) ^ binding(tree, lblock);
            self.counters.crc_blocks += 1;
            if stored != Some(crc) {
                match self.is_unadopted(work.layer, lblock) {
                    Ok(true) => copy.unverified = true,
                    Ok(false) => bad |= 1 << at,
                    Err(page) => {
                        self.fetch(mem, now, page, Waiter::Job);
                        return Step::Wait;
                    }
                }
            }
            // What does not match goes on not to match.
            copy.sums[(at - copy.first) as usize] = stored.unwrap_or(!crc);
        }
        if bad != 0 {
            *work.bad.entry(copy.lcluster).or_default() |= bad;
            copy.blocks &= !bad;
        }
        if copy.blocks == 0 {
            return Step::Ended;
        }
        copy.stage = Stage::Writing;
        for (at, count) in runs(copy.blocks) {
            let offset = self.store.layout.block(block_of(copy.to, at));
            let place = (at - copy.first) * BLOCK_BYTES;
            self.job_write(copy.job, place, count * BLOCK_BYTES, offset);
        }
        self.counters.copied_blocks += u64::from(copy.blocks.count_ones());
        Step::Wait
    }

    /// The data is there: the child owns it from now on.
    fn record_copy<M: Memory>(&mut self, mem: &mut M, now: Instant, copy: &Copy) -> Step {
        let layer = copy.child;
        let (index, at) = place_cluster(copy.lcluster);
        match self.store.map.look(layer, index) {
            Look::Missing(page) => return self.wait_for(mem, now, page),
            Look::Lost(_) | Look::Absent => return Step::Ended,
            Look::Here => {}
        }
        // The lock kept it as it was.
        if self.leaf_at(layer, index, |map| map.phys(at)) != Some(copy.to) {
            return Step::Ended;
        }
        let region = region_of(copy.lcluster);
        let was_open = self.is_open(layer, region);
        let mut newest = 0;
        for at in bits(copy.blocks) {
            let lblock = u64::from(copy.lcluster) * CLUSTER_BLOCKS + u64::from(at);
            let crc = copy.sums[(at - copy.first) as usize];
            newest = self.record(Cell::Write { layer, lblock, first: true, crc });
            self.sync.unsettle(block_of(copy.to, at), newest);
        }
        self.store.map.chains.age();
        if !was_open {
            self.region_written_first(layer, region, newest);
        }
        self.region_changed(layer, region, newest);
        if let (true, Some(leaf)) =
            (copy.unverified, self.store.map.leaves.get_mut(&(layer, index)))
        {
            leaf.unadopted |= 1 << (region % 64);
            self.adopt.more();
        }
        Step::Ended
    }

    fn end_copy<M: Memory>(&mut self, mem: &mut M, copy: &Copy) {
        self.end_job(mem, copy.job);
        self.unlock(copy.child, copy.lcluster, copy.locked);
    }

    /// The pool stops: a copy ends as soon as the device lets go of it, and was for nothing.
    pub(super) fn stop_copy<M: Memory>(&mut self, mem: &mut M) {
        let Some(work) = &mut self.reclaim.work else { return };
        let Some(copy) = work.copy.take() else { return };
        if self.jobs.outcome(copy.job).is_some() {
            self.end_copy(mem, &copy);
        } else {
            work.copy = Some(copy);
        }
    }
}

const _: () = assert!(BLOCK_BYTES as u64 == BLOCK);
