//! Reading everything once in a while: a block that is lost is to be known while there is another
//! copy of it.
//!
//! ```text
//! Reading -> Comparing -> [Locking -> Again -> Judging], for each block that did not match -> done
//! ```
//! Layer by layer, leaf by leaf. What does not match may be on its way, or may have moved: it is
//! read again under its lock, and counts only if the map says of it before and after what it said
//! at first. A crash or a stop costs no more than the leaves since the last note in the superblock.
//!
//! Invariants:
//! 1. What the superblock counts is what lies before the place that it names: a scrub that goes on
//!    there counts each block once, however often it was stopped.

mod pages;
mod slots;

use core::time::Duration;

use braid_block::{Class, Instant, Key, Memory};

use crate::layout::{BLOCK, CLUSTER, CLUSTER_BLOCKS, LEAF_CLUSTERS};
use crate::map::{Look, Next};
use crate::op::Waiter;
use crate::store::{binding, mask, place_cluster};
use crate::sums::Sum;
use crate::write::{BLOCK_BYTES, bits};
use crate::{Done, Note, Pool, State};

use pages::Pages;
use slots::Slots;

/// Blocks of one read: a large buffer.
const BLOCKS: u32 = Class::Large.bytes() / BLOCK_BYTES;
/// Leaves without anything to read that a turn passes.
const LEAVES_A_TURN: u32 = 16;
/// Lost blocks that are told one by one; the rest is counted.
const TOLD_MAX: u64 = 64;
/// The place in the superblock is no older than this.
const NOTED: Duration = Duration::from_secs(60);
/// In the superblock: no scrub is begun.
const NONE: u64 = u64::MAX;

/// A scrub.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    /// Bytes a second; 0: it does not run.
    rate: u64,
    /// Layer, leaf, cluster of the leaf, and block of that, where it goes on.
    layer: u32,
    leaf: u32,
    at: usize,
    block: u32,
    /// When the next read is due.
    due: Instant,
    check: Option<Check>,
    pages: Pages,
    slots: Slots,
    /// Blocks read and blocks lost.
    blocks: u64,
    errors: u64,
    /// The same up to the leaf at hand, where it goes on after a stop.
    before: (u64, u64),
    noted: Instant,
}

/// Where a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    Comparing,
    /// Some are to be looked at once more: for the lock of the first of them.
    Locking,
    Again,
    Judging,
}

/// Blocks that were read together.
#[derive(Debug)]
struct Check {
    job: Key,
    stage: Stage,
    layer: u32,
    lcluster: u32,
    phys: u32,
    /// First block of the buffer; blocks of it.
    first: u32,
    blocks: u64,
    /// Blocks that did not match.
    odd: u64,
    epoch: u64,
    /// The scrub was begun anew since: what it counts is counted again.
    stale: bool,
}

impl Pool {
    /// Begins a scrub, goes on with one, or stops it.
    pub(crate) fn set_scrub(&mut self, now: Instant, rate: u64) -> Done {
        if rate > 0 && self.scrub.rate == 0 {
            let place = self.superblock.scrub.get();
            let counted = [self.superblock.scrub_blocks, self.superblock.scrub_errors];
            // Whatever the superblock says, it was no more than there is.
            let most = if place == NONE { 0 } else { self.store.space.total * CLUSTER_BLOCKS };
            let [blocks, errors] = counted.map(|n| n.get().min(most));
            let place = if place == NONE { 0 } else { place };
            self.scrub.layer = u32::try_from(place >> 32).unwrap_or(0);
            self.scrub.leaf = u32::try_from(place & u64::from(u32::MAX)).unwrap_or(0);
            (self.scrub.at, self.scrub.block) = (0, 0);
            (self.scrub.blocks, self.scrub.errors) = (blocks, errors);
            self.scrub.before = (blocks, errors);
            if let Some(check) = &mut self.scrub.check {
                check.stale = true;
            }
            self.scrub.due = now;
            self.scrub.noted = now;
            self.list_base_pages();
            // They come before all leaves: one that goes on at a later leaf has seen them.
            self.scrub.slots.begin(place == 0);
            self.list_layer_pages(self.scrub.layer);
        } else if rate == 0 && self.scrub.rate > 0 {
            self.note_scrub(now);
        }
        self.scrub.rate = rate;
        Done::default()
    }

    /// Bytes read by the scrub that runs, and bytes that there are, about.
    pub(crate) fn scrub_progress(&self) -> Option<(u64, u64)> {
        let space = &self.store.space;
        let all = space.used.saturating_sub(space.maps) * CLUSTER;
        (self.scrub.rate > 0).then_some((self.scrub.blocks * BLOCK, all))
    }

    /// When the next read is due.
    pub(crate) fn scrub_due(&self) -> Option<Instant> {
        let runs = self.scrub.rate > 0 && self.state == State::Open;
        let waits =
            self.scrub.check.is_some() || self.scrub.pages.is_busy() || self.scrub.slots.is_busy();
        (runs && !waits).then_some(self.scrub.due)
    }

    /// Reads a little more.
    pub(crate) fn scrub_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if let Some(mut check) = self.scrub.check.take() {
            if self.check_on(mem, now, &mut check) {
                self.reads.end(check.epoch);
                self.end_job(mem, check.job);
            } else {
                self.scrub.check = Some(check);
                return;
            }
        }
        if !self.page_check_on(mem) || !self.slots_check_on(mem, now) {
            return;
        }
        if self.scrub.rate == 0 || now < self.scrub.due || self.state != State::Open {
            return;
        }
        if now.since(self.scrub.noted) >= NOTED {
            self.note_scrub(now);
        }
        if self.next_page_check(mem, now) || self.next_slots_check(mem, now) {
            return;
        }
        for _ in 0..LEAVES_A_TURN {
            let (layer, leaf) = (self.scrub.layer, self.scrub.leaf);
            if !self.store.map.layers.contains_key(&layer) {
                return self.scrub_layer_from(layer);
            }
            match self.store.map.next_leaf(layer, leaf) {
                Next::Leaf(next) if next != leaf => self.scrub.go_to(layer, next),
                Next::Leaf(_) => {
                    match self.store.map.look(layer, leaf) {
                        Look::Missing(page) => return self.fetch(mem, now, page, Waiter::Job),
                        Look::Here if self.scrub.pages.add_leaf(layer, leaf) => {
                            return self.again();
                        }
                        Look::Here if self.next_check(mem, now) => return,
                        Look::Here | Look::Absent | Look::Lost(_) => {}
                    }
                    self.scrub.go_to(layer, leaf + 1);
                }
                Next::Missing(page) => return self.fetch(mem, now, page, Waiter::Job),
                Next::Lost(next) => self.scrub.go_to(layer, next),
                Next::None => return self.scrub_layer_from(layer + 1),
            }
        }
        self.again();
    }

    /// Begins with the next layer there is: its own pages come before its leaves.
    fn scrub_layer_from(&mut self, layer: u32) {
        let next = self.store.map.layers.range(layer..).next();
        let Some(next) = next.map(|(id, _)| *id) else { return self.end_scrub() };
        self.scrub.go_to(next, 0);
        self.list_layer_pages(next);
        self.again();
    }

    /// Keeps the place in the superblock, and what was counted up to there.
    fn note_scrub(&mut self, now: Instant) {
        let place = u64::from(self.scrub.layer) << 32 | u64::from(self.scrub.leaf);
        let (blocks, errors) = self.scrub.before;
        self.superblock.scrub = place.into();
        self.superblock.scrub_blocks = blocks.into();
        self.superblock.scrub_errors = errors.into();
        self.superblocks.ask();
        self.scrub.noted = now;
    }

    fn end_scrub(&mut self) {
        let (blocks, errors) = (self.scrub.blocks, self.scrub.errors);
        self.notes.push_back(Note::Scrubbed { blocks, errors });
        self.scrub.rate = 0;
        self.superblock.scrub = NONE.into();
        self.superblock.scrub_blocks = 0.into();
        self.superblock.scrub_errors = 0.into();
        self.superblocks.ask();
    }

    /// Reads the next blocks of the leaf at hand; false if there are none left. Without a buffer
    /// it tries again in the next turn.
    fn next_check<M: Memory>(&mut self, mem: &mut M, now: Instant) -> bool {
        let Some((lcluster, phys, own)) = self.next_blocks() else { return false };
        let Some(job) = self.begin_job(mem, Class::Large) else { return true };
        let first = own.trailing_zeros();
        let blocks = own & mask(first, BLOCKS.min(64 - first));
        self.scrub.block = first + BLOCKS;
        for (at, count) in runs(blocks) {
            let offset = self.store.layout.cluster(phys) + u64::from(at) * BLOCK;
            self.job_read(job, (at - first) * BLOCK_BYTES, count * BLOCK_BYTES, offset);
        }
        let bytes = u64::from(blocks.count_ones()) * BLOCK;
        self.scrub.pace(now, bytes);
        self.scrub.blocks += u64::from(blocks.count_ones());
        self.scrub.check = Some(Check {
            job,
            stage: Stage::Reading,
            layer: self.scrub.layer,
            lcluster,
            phys,
            first,
            blocks,
            odd: 0,
            epoch: self.reads.begin(),
            stale: false,
        });
        true
    }

    /// The next cluster of the leaf at hand with blocks that were not read: its number, place, and
    /// those blocks.
    fn next_blocks(&mut self) -> Option<(u32, u32, u64)> {
        let (layer, index) = (self.scrub.layer, self.scrub.leaf);
        while self.scrub.at < LEAF_CLUSTERS as usize {
            let at = self.scrub.at;
            let leaf = self.store.map.leaves.get_mut(&(layer, index))?;
            leaf.used = self.turn;
            let map = leaf.page.get();
            let own = if self.scrub.block < 64 { map.own[at] >> self.scrub.block } else { 0 };
            if let (Some(phys), true) = (map.phys(at), own != 0) {
                let lcluster = index * LEAF_CLUSTERS as u32 + at as u32;
                return Some((lcluster, phys, own << self.scrub.block));
            }
            self.scrub.at += 1;
            self.scrub.block = 0;
        }
        None
    }

    /// Takes a check further; true when it has ended.
    fn check_on<M: Memory>(&mut self, mem: &mut M, now: Instant, check: &mut Check) -> bool {
        loop {
            let Some(outcome) = self.jobs.outcome(check.job) else { return false };
            match check.stage {
                _ if self.state != State::Open => {
                    self.unlock_check(check);
                    return true;
                }
                Stage::Reading if outcome.is_err() => {
                    check.odd = check.blocks;
                    check.stage = Stage::Locking;
                }
                Stage::Reading => check.stage = Stage::Comparing,
                Stage::Comparing => match self.compare_check(mem, now, check, check.blocks) {
                    Some(odd) => (check.odd, check.stage) = (odd, Stage::Locking),
                    None => return false,
                },
                Stage::Locking => match self.look_again(mem, now, check) {
                    Some(true) => return true,
                    Some(false) => {}
                    None => return false,
                },
                Stage::Again if outcome.is_err() => match self.is_still(mem, now, check) {
                    Some(still) => self.judge(check, still),
                    None => return false,
                },
                Stage::Again => check.stage = Stage::Judging,
                Stage::Judging => {
                    let one = check.odd & check.odd.wrapping_neg();
                    let Some(odd) = self.compare_check(mem, now, check, one) else { return false };
                    let Some(still) = self.is_still(mem, now, check) else { return false };
                    self.judge(check, odd != 0 && still);
                }
            }
        }
    }

    /// Which of these blocks do not match; `None`: a page of checksums is to be read first.
    fn compare_check<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        check: &Check,
        blocks: u64,
    ) -> Option<u64> {
        let tree = self.store.map.layers.get(&check.layer).map_or(0, |layer| layer.state().tree);
        let mut odd = 0;
        for at in bits(blocks) {
            let block = u64::from(check.phys) * CLUSTER_BLOCKS + u64::from(at);
            let stored = match self.store.sums.get(&self.store.layout, block) {
                Sum::Known(crc) => Some(crc),
                Sum::Unknown => None,
                Sum::Missing(page) => {
                    self.fetch_sums(mem, now, page, Waiter::Job);
                    return None;
                }
            };
            let lblock = u64::from(check.lcluster) * CLUSTER_BLOCKS + u64::from(at);
            let place = (at - check.first) * BLOCK_BYTES;
            let Some(lease) = self.jobs.lease(check.job) else { return Some(0) };
            let crc = mem.crc(lease, place..place + BLOCK_BYTES, 0) ^ binding(tree, lblock);
            self.counters.crc_blocks += 1;
            if stored != Some(crc) {
                odd |= 1 << at;
            }
        }
        Some(odd)
    }

    /// Reads the first odd block again, under its lock; true if there is none.
    fn look_again<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        check: &mut Check,
    ) -> Option<bool> {
        if check.odd == 0 {
            return Some(true);
        }
        let at = check.odd.trailing_zeros();
        if !self.is_still(mem, now, check)? {
            check.odd &= !(1 << at);
            return Some(false);
        }
        if !self.locks.try_lock(check.layer, check.lcluster, 1 << at) {
            return None;
        }
        let offset = self.store.layout.cluster(check.phys) + u64::from(at) * BLOCK;
        self.job_read(check.job, (at - check.first) * BLOCK_BYTES, BLOCK_BYTES, offset);
        check.stage = Stage::Again;
        None
    }

    /// Whether the map says of the first odd block what it said when it was read.
    fn is_still<M: Memory>(&mut self, mem: &mut M, now: Instant, check: &Check) -> Option<bool> {
        let (index, at) = place_cluster(check.lcluster);
        match self.store.map.look(check.layer, index) {
            Look::Missing(page) => {
                self.fetch(mem, now, page, Waiter::Job);
                return None;
            }
            Look::Absent | Look::Lost(_) => return Some(false),
            Look::Here => {}
        }
        let leaf = self.store.map.leaves.get(&(check.layer, index))?;
        let (map, bit) = (leaf.page.get(), 1 << check.odd.trailing_zeros());
        Some(map.phys(at) == Some(check.phys) && map.own[at] & bit != 0)
    }

    /// The verdict on the first odd block; its lock is given back.
    fn judge(&mut self, check: &mut Check, lost: bool) {
        let at = check.odd.trailing_zeros();
        self.unlock_check(check);
        check.odd &= !(1 << at);
        check.stage = Stage::Locking;
        let lblock = u64::from(check.lcluster) * CLUSTER_BLOCKS + u64::from(at);
        // Its content counts after an unclean stop, whatever it is.
        if !lost || check.stale || self.is_unadopted(check.layer, lblock) != Ok(false) {
            return;
        }
        self.counters.checksum_errors += 1;
        self.scrub.errors += 1;
        if self.scrub.errors <= TOLD_MAX {
            let handle = self.store.map.layers.get(&check.layer).and_then(|layer| layer.handle);
            let device = self.store.layout.cluster(check.phys) + u64::from(at) * BLOCK;
            self.notes.push_back(Note::Media { handle, offset: lblock * BLOCK, device });
        }
    }

    fn unlock_check(&mut self, check: &Check) {
        if matches!(check.stage, Stage::Again | Stage::Judging) {
            let at = check.odd.trailing_zeros();
            self.unlock(check.layer, check.lcluster, 1 << at);
        }
    }
}

impl Scrub {
    /// Whether no checkpoint may begin.
    pub(crate) const fn holds_merges(&self) -> bool {
        self.slots.holds_merges()
    }

    /// So many bytes are read: the next are due later.
    fn pace(&mut self, now: Instant, bytes: u64) {
        let pause = bytes.saturating_mul(1_000_000_000) / self.rate.max(1);
        // Time that was lost is not made good at once.
        self.due = self.due.max(now) + Duration::from_nanos(pause);
    }

    /// Goes on with another leaf.
    const fn go_to(&mut self, layer: u32, leaf: u32) {
        self.layer = layer;
        self.leaf = leaf;
        self.before = (self.blocks, self.errors);
        self.at = 0;
        self.block = 0;
    }
}

/// Neighbours together: first, and number.
pub(crate) fn runs(mut blocks: u64) -> impl Iterator<Item = (u32, u32)> {
    core::iter::from_fn(move || {
        let at = blocks.trailing_zeros();
        (at < 64).then(|| {
            let count = (blocks >> at).trailing_ones();
            blocks &= !mask(at, count);
            (at, count)
        })
    })
}
