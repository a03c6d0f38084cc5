//! Bringing pages up to date, so that the journal's tail can move.
//!
//! ```text
//! Idle -> Settling -> Syncing -> Merging -> [Merged] -> Writing -> Written -> Writing -> Written
//!   ^     begin       settle_on  merge_on               write_on              (second slots) |
//!   `------------------------------------ finish --------------------------------------------'
//! ```
//! After a failed flush, `Renewing -> Renewed` come before `Merging`: see invariant 3 of `merge`.
//! Invariants:
//! 1. What is written is the state after journal block `lsn`, the last one when it began: maps and
//!    checksums are frozen in one moment, and changes go on beside them.
//! 2. Nothing is written before all blocks up to `lsn` are durable and settled.
//! 3. No map page is written before the checksum pages are durable: a checksum that is redone
//!    needs the map of its time.
//! 4. No second slot is written before all first ones are durable, and the tail does not move
//!    before all second ones are: each page has a whole slot at any time.
//! 5. Every page that was frozen is written, even if it is gone since; and the cell that took it
//!    away is durable before the tail moves, for a flush was asked for after it.
//! 6. A failed write is final.

mod merge;

use alloc::vec::Vec;

use core::time::Duration;

use braid_block::{Instant, IoError, Key, Lease, Memory, Slab};

use crate::codec::{self, Stamp};
use crate::layout::BLOCK;
use crate::map::{PageId, Touch};
use crate::transfer::whole;
use crate::{Effect, Operation, Pool, State, token};

use merge::Merging;

/// Where a checkpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is none.
    Idle,
    /// First writes that its images contain are in flight.
    Settling,
    /// Waits for this flush, which makes the journal durable.
    Syncing(u64),
    /// Pages of checksums that a failed flush may have dropped are written as they are.
    Renewing,
    /// Waits for the flush after that.
    Renewed(u64),
    /// Checksums go to their pages.
    Merging,
    /// Waits for the flush after that.
    Merged(u64),
    /// Maps go to their first slots, or to their second.
    Writing { second: bool },
    /// Waits for the flush after that.
    Written { second: bool, sync: u64 },
}

/// A page that is to be written.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    /// First byte of its pair.
    address: u64,
    page: PageId,
    second_first: bool,
}

/// A page on its way to the device.
#[derive(Debug)]
struct PageWrite {
    lease: Lease,
    offset: u64,
    len: u32,
    /// The page of checksums, if it is one.
    sums: Option<u64>,
}

/// The checkpoint that runs, if one does.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    phase: Phase,
    /// Somebody asked for one.
    wanted: bool,
    /// Last journal block that it contains.
    lsn: u64,
    merging: Merging,
    /// Pages of the maps that it writes, in the order of the device.
    frozen: Vec<Frozen>,
    /// The next of them.
    next: usize,
    writes: Slab<PageWrite>,
    /// When the last one ended.
    ended: Instant,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            wanted: false,
            lsn: 0,
            merging: Merging::default(),
            frozen: Vec::new(),
            next: 0,
            writes: Slab::with_capacity(WRITES_MAX),
            ended: Instant::ZERO,
        }
    }
}

impl Checkpoint {
    /// Gives memory back that is of use while there is load.
    pub(crate) fn release(&mut self) {
        self.merging.release();
        self.frozen.shrink_to_fit();
    }

    /// Gives all buffers back; nothing is in flight any more.
    pub(crate) fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        let keys: Vec<Key> = self.writes.iter().map(|(key, _)| key).collect();
        for write in keys.into_iter().filter_map(|key| self.writes.remove(key)) {
            mem.free(write.lease);
        }
    }
}

impl Pool {
    /// Begins a checkpoint when one is due, and takes the running one further.
    pub(crate) fn checkpoint_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if self.checkpoint.phase == Phase::Idle && self.is_checkpoint_due(now) {
            self.begin_checkpoint();
        }
        while let Some(phase) = self.step_checkpoint(mem, now) {
            self.checkpoint.phase = phase;
        }
        if self.store.sums.tidy() {
            self.again();
        }
    }

    /// Asks for a checkpoint as soon as possible.
    pub(crate) fn want_checkpoint(&mut self) {
        self.checkpoint.wanted = true;
        if self.checkpoint.phase == Phase::Idle {
            self.again();
        }
    }

    /// Whether none runs.
    pub(crate) fn is_between_checkpoints(&self) -> bool {
        self.checkpoint.phase == Phase::Idle
    }

    /// Whether none runs and nothing is changed.
    pub(crate) fn is_checkpointed(&self) -> bool {
        self.checkpoint.phase == Phase::Idle && !self.has_changes()
    }

    /// When a checkpoint begins because nothing else happens.
    pub(crate) fn checkpoint_due(&self) -> Option<Instant> {
        let quiet = self.checkpoint.phase == Phase::Idle
            && self.state == State::Open
            && !self.config.read_only
            && !self.scrub.holds_merges()
            && self.ops.is_empty();
        (quiet && self.has_changes()).then(|| self.busy.max(self.checkpoint.ended) + QUIET)
    }

    fn has_changes(&self) -> bool {
        !self.store.changed.is_empty() || self.store.sums.delta_len() != 0
    }

    fn is_checkpoint_due(&self, now: Instant) -> bool {
        let (limits, store) = (&self.config.limits, &self.store);
        let ring_max = u64::from(limits.checkpoint_blocks).min(store.layout.ring_blocks / 2);
        let due = self.checkpoint.wanted
            || self.journal.used() >= ring_max
            || store.sums.active_len() >= limits.delta_max as usize
            || store.changed.len() >= limits.dirty_leaves_max as usize
            || self.checkpoint_due().is_some_and(|due| due <= now);
        due && !self.config.read_only && !self.is_sealed() && !self.scrub.holds_merges()
    }

    /// Freezes everything as it is.
    fn begin_checkpoint(&mut self) {
        let lsn = self.journal.seal();
        let mut frozen = core::mem::take(&mut self.checkpoint.frozen);
        let mut changed = core::mem::take(&mut self.store.changed);
        for page in changed.drain(..) {
            // One that is gone needs nothing; one that is listed twice is frozen already.
            let Some(address) = self.store.address(page) else { continue };
            let Some(held) = self.store.held(page).filter(|held| !held.is_frozen()) else {
                continue;
            };
            held.freeze();
            frozen.push(Frozen { address, page, second_first: held.second_first() });
        }
        self.store.changed = changed;
        frozen.sort_unstable_by_key(|frozen| frozen.address);
        self.store.sums.freeze();
        self.checkpoint.frozen = frozen;
        self.checkpoint.lsn = lsn;
        self.checkpoint.wanted = false;
        self.checkpoint.phase = Phase::Settling;
    }

    /// The next phase, if the time has come.
    fn step_checkpoint<M: Memory>(&mut self, mem: &mut M, now: Instant) -> Option<Phase> {
        match self.checkpoint.phase {
            Phase::Idle => None,
            Phase::Settling => self.settle_on(),
            Phase::Syncing(sync) => self.is_synced(sync).then_some(Phase::Settling),
            Phase::Renewing => self.merge_on(mem, now).then(|| self.after_renewal()),
            Phase::Renewed(sync) => self.is_synced(sync).then(|| self.begin_merge()),
            Phase::Merging => self.merge_on(mem, now).then(|| self.after_merge(now)),
            Phase::Merged(sync) => self.is_synced(sync).then(|| self.begin_writing(now)),
            Phase::Writing { second } => {
                let written = self.write_on(mem);
                written.then(|| Phase::Written { second, sync: self.ask_sync() })
            }
            Phase::Written { second, sync } if self.is_synced(sync) => Some(if second {
                self.finish_checkpoint(now)
            } else {
                self.checkpoint.next = 0;
                Phase::Writing { second: true }
            }),
            Phase::Written { .. } => None,
        }
    }

    fn is_synced(&self, sync: u64) -> bool {
        self.sync.done() >= sync
    }

    /// A flush that is issued when no first write with a cell up to `lsn` is in flight settles
    /// them all; the flush itself waits for the journal up to there to be written.
    fn settle_on(&mut self) -> Option<Phase> {
        let lsn = self.checkpoint.lsn;
        if self.sync.settles() >= lsn && self.sync.durable() >= lsn {
            if self.fetches.dropped.is_none() {
                return Some(self.begin_merge());
            }
            self.checkpoint.merging.begin(true);
            return Some(Phase::Renewing);
        }
        (self.sync.first_in_flight() > lsn).then(|| Phase::Syncing(self.ask_sync()))
    }

    fn begin_merge(&mut self) -> Phase {
        self.checkpoint.merging.begin(false);
        Phase::Merging
    }

    fn after_renewal(&mut self) -> Phase {
        self.store.sums.again();
        if self.checkpoint.merging.wrote() {
            Phase::Renewed(self.ask_sync())
        } else {
            self.begin_merge()
        }
    }

    fn after_merge(&mut self, now: Instant) -> Phase {
        self.store.sums.merged();
        if self.checkpoint.merging.wrote() {
            Phase::Merged(self.ask_sync())
        } else {
            self.begin_writing(now)
        }
    }

    fn begin_writing(&mut self, now: Instant) -> Phase {
        if self.checkpoint.frozen.is_empty() {
            return self.finish_checkpoint(now);
        }
        self.checkpoint.next = 0;
        Phase::Writing { second: false }
    }

    /// Writes one slot of every frozen page; tells whether all of that is done.
    fn write_on<M: Memory>(&mut self, mem: &mut M) -> bool {
        let second = self.checkpoint.phase == Phase::Writing { second: true };
        let width = self.checkpoint_width();
        let seed = self.store.seed;
        while self.checkpoint.writes.len() < width
            && let Some(frozen) = self.checkpoint.frozen.get(self.checkpoint.next).copied()
        {
            let Some(image) = self.store.image(frozen.page) else {
                self.checkpoint.next += 1;
                continue;
            };
            let Some(lease) = self.fetches.buffers.take(mem) else { break };
            let offset = frozen.address + u64::from(second != frozen.second_first) * BLOCK;
            let bytes = &mut mem.bytes_mut(&lease)[..BLOCK as usize];
            let stamp = Stamp::map(frozen.page, offset);
            codec::encode::<M>(bytes, stamp, self.checkpoint.lsn, seed, image);
            self.checkpoint.next += 1;
            self.write_page(PageWrite { lease, offset, len: BLOCK as u32, sums: None });
        }
        self.checkpoint.next == self.checkpoint.frozen.len() && self.checkpoint.writes.is_empty()
    }

    fn write_page(&mut self, write: PageWrite) {
        let PageWrite { offset, len, .. } = write;
        let span = write.lease.span(0, len);
        let key = self.checkpoint.writes.insert(write).expect("the width is the capacity");
        self.counters.page_writes += 1;
        self.counters.device_written_bytes += u64::from(len);
        self.emit(Effect::Write { token: self.token(token::CHECKPOINT, key), span, offset });
    }

    /// A page is written.
    pub(crate) fn on_checkpoint_done<M: Memory>(
        &mut self,
        mem: &mut M,
        _now: Instant,
        key: Key,
        result: Result<u32, IoError>,
    ) {
        let Some(write) = self.checkpoint.writes.remove(key) else { return };
        self.fetches.buffers.give(mem, write.lease);
        if let Some(page) = write.sums {
            self.store.sums.written(page);
        }
        match whole(result, write.len) {
            Ok(()) => self.sync.wrote(),
            Err(error) => self.fail(mem, Operation::Write, write.offset, error),
        }
    }

    /// Everything up to `lsn` is in the pages: the journal up to there is not needed any more.
    fn finish_checkpoint(&mut self, now: Instant) -> Phase {
        let lsn = self.checkpoint.lsn;
        let mut frozen = core::mem::take(&mut self.checkpoint.frozen);
        for Frozen { page, .. } in frozen.drain(..) {
            if let Some(held) = self.store.held(page).filter(|held| held.is_frozen()) {
                held.written(lsn);
            }
            let (flush, regions) = (self.sync.done(), &self.regions);
            let over = |touch: &Touch| {
                let durable = touch.seq <= lsn && touch.flush < flush;
                touch.writes == 0 && durable && !regions.is_newer(touch)
            };
            self.store.forget_touches(page, over);
        }
        self.checkpoint.frozen = frozen;
        self.store.buried.clear();
        self.fetches.born.clear();
        // Whatever had cells of the journal as it was found is in pages that are durable now.
        self.fetches.dropped = None;
        self.fetches.rest.try_again();
        self.journal.tail = lsn + 1;
        self.release_pairs(lsn);
        self.checkpoint.ended = now;
        self.counters.checkpoints += 1;
        self.again();
        Phase::Idle
    }

    /// Page writes in flight: one while there is time, so that requests hardly notice; more the
    /// more was changed since the checkpoint began, all when nothing else is to be done.
    fn checkpoint_width(&self) -> usize {
        let most = WRITES_MAX as usize;
        if self.ops.is_empty() || self.state != State::Open || !self.journal.has_room() {
            return most;
        }
        let since = self.journal.assigned().saturating_sub(self.checkpoint.lsn);
        let quarter = (self.store.layout.ring_blocks / 4).max(1);
        let ring = usize::try_from(since * u64::from(WRITES_MAX) / quarter).unwrap_or(most);
        let delta = self.store.sums.fill() * 2;
        (1 + ring.max(delta)).min(most)
    }
}

/// Page writes in flight, at most.
const WRITES_MAX: u32 = 16;
/// After so long without requests, what was changed is written.
const QUIET: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
