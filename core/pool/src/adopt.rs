//! Checksums anew for regions that were open when the pool stopped without order.
//!
//! ```text
//! leaf by leaf, region by region, 32 blocks at a time:
//! Looking -> Reading -> Comparing -> Looking ... -> region done: it may close -> next
//! ```
//!
//! Invariants:
//! 1. Blocks are locked from before they are read until their cells are in the journal buffer: a
//!    checksum that is noted is that of what is there.
//! 2. The cell of every block that does not match its last one is written anew, be it one that
//!    matches an older one: only the last counts after the region is closed.
//! 3. A region of a mirror's member is left alone, for what other members have decides, until it
//!    is known to be alike (`Command::Clean`).
//! 4. A region whose clusters changed hands since its first block was read is read again.
//! 5. After a failed flush nothing is adopted until the machine starts again: content that was
//!    dropped would be gone then, and its checksum would not.
//! 6. A region closes like any other: after a flush over which it was quiet, its cells durable.

use alloc::collections::BTreeSet;
use core::time::Duration;

use braid_block::{Class, Instant, Key, Memory};

use crate::layout::{BLOCK, CLUSTER_BLOCKS, Cell, LEAF_CLUSTERS, REGION_CLUSTERS};
use crate::map::{Look, Next};
use crate::op::Waiter;
use crate::store::{binding, mask, place_cluster};
use crate::sums::Sum;
use crate::write::bits;
use crate::{Pool, State};

/// Blocks of a read.
const UNIT: u32 = 32;
/// Reads of a region: two for each cluster.
const UNITS: u32 = 2 * REGION_CLUSTERS as u32;
/// Leaves looked at in a turn that were in memory.
const LOOKS: u32 = 64;
/// After each step while hosts are at work.
const PAUSE: Duration = Duration::from_millis(20);
/// After so long without requests, the pass goes on as fast as it can.
const IDLE: Duration = Duration::from_secs(1);
/// Before a pass that left some regions begins again.
const AGAIN: Duration = Duration::from_secs(60);

/// Blocks that are being read.
#[derive(Clone, Copy, Debug)]
struct Unit {
    layer: u32,
    lcluster: u32,
    phys: u32,
    /// Which of them.
    blocks: u64,
    /// They are read.
    read: bool,
}

/// How far the pass is.
#[derive(Debug, Default)]
pub(crate) struct Adopt {
    /// What is read may be in a cache that will never be written: nothing is adopted.
    held: bool,
    /// Some regions may be left.
    wanted: bool,
    /// Plain replicas and sealed layers were gone through.
    walked: bool,
    /// Regions of members may be left, until they are known to be alike.
    members: bool,
    /// What is looked at next: layer, leaf, and unit of the region.
    layer: u32,
    leaf: u32,
    unit: u32,
    /// The region, and its clusters when its first unit was looked at.
    region: Option<(u32, Clusters)>,
    job: Option<Key>,
    reading: Option<Unit>,
    next_at: Instant,
    /// Leaves of members with regions that are known to be alike.
    cleaned: BTreeSet<(u32, u32)>,
    /// It waits for that, and for nothing else.
    paused: bool,
}

/// Where the clusters of a region are, and which of their blocks are owned.
type Clusters = [(u32, u64); REGION_CLUSTERS as usize];

impl Adopt {
    /// The pool is open, and there may be regions to be adopted; `held`: not before the machine
    /// starts again.
    pub(crate) const fn begin(&mut self, wanted: bool, held: bool) {
        self.held = held;
        (self.wanted, self.walked, self.members) = (wanted, false, false);
        self.rewind();
    }

    /// A plain replica or a sealed layer got a region to be adopted from another.
    pub(crate) const fn more(&mut self) {
        self.walked = false;
        if !self.wanted {
            self.wanted = true;
            self.rewind();
        }
    }

    const fn rewind(&mut self) {
        (self.layer, self.leaf, self.unit, self.region) = (0, 0, 0, None);
    }

    /// Regions of a member's leaf are alike on all members: what they hold counts.
    pub(crate) fn clean(&mut self, layer: u32, leaf: u32) {
        self.cleaned.insert((layer, leaf));
        if !self.wanted {
            self.wanted = true;
            self.rewind();
        }
    }

    /// Whether no region is left.
    pub(crate) const fn is_done(&self) -> bool {
        !self.wanted && !self.members
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The next at once.
    On,
    /// The next after a pause, if hosts are at work.
    Done,
    /// Something must happen first, and will wake us.
    Wait,
    /// The same after a pause.
    Later,
}

impl Pool {
    /// Takes the pass further.
    pub(crate) fn adopt_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if self.config.read_only || self.adopt.held {
            return;
        }
        self.adopt.paused = false;
        if self.state == State::Stopping && self.adopt.reading.is_none() {
            return self.end_adopting(mem);
        }
        for _ in 0..LOOKS {
            let due = self.adopt.reading.is_some() || now >= self.adopt.next_at;
            if !self.adopt.wanted || !due {
                self.adopt.paused = self.adopt.wanted;
                return;
            }
            match self.adopt_step(mem, now) {
                Step::On => {}
                Step::Wait => return,
                Step::Done => {
                    let idle = self.ops.is_empty() && now.since(self.busy) >= IDLE;
                    self.adopt.next_at = if idle { now } else { now + PAUSE };
                    break;
                }
                Step::Later => {
                    self.adopt.next_at = self.adopt.next_at.max(now + PAUSE);
                    break;
                }
            }
        }
        if self.state == State::Stopping && self.adopt.reading.is_none() {
            // Nothing wakes us again: what a stop waits for ends here.
            return self.end_adopting(mem);
        }
        self.adopt.paused = self.adopt.wanted && now < self.adopt.next_at;
        if self.adopt.wanted && !self.adopt.paused {
            self.again();
        }
    }

    /// When the next step is due.
    pub(crate) fn adopt_due(&self) -> Option<Instant> {
        (self.state == State::Open && self.adopt.paused).then_some(self.adopt.next_at)
    }

    fn adopt_step<M: Memory>(&mut self, mem: &mut M, now: Instant) -> Step {
        if let Some(unit) = self.adopt.reading {
            return self.adopt_unit(mem, now, unit);
        }
        if self.state != State::Open || !self.journal.has_room() {
            return Step::Wait;
        }
        let (layer, from) = (self.adopt.layer, self.adopt.leaf);
        let Some(held) = self.store.map.layers.get(&layer) else {
            return self.next_layer(mem, now);
        };
        let state = held.state();
        if state.deleted && held.children == 0 {
            return self.next_layer(mem, now);
        }
        let next = if state.member && !state.sealed {
            // Its regions stay as they are until they are known to be alike.
            self.adopt.members = true;
            let next = self.adopt.cleaned.range((layer, from)..=(layer, u32::MAX)).next();
            next.map_or(Next::None, |(_, leaf)| Next::Leaf(*leaf))
        } else if self.adopt.walked {
            Next::None
        } else {
            self.store.map.next_leaf(layer, from)
        };
        let leaf = match next {
            Next::Leaf(leaf) => leaf,
            Next::Missing(page) => {
                self.fetch(mem, now, page, Waiter::Job);
                return Step::Wait;
            }
            Next::Lost(next) => {
                (self.adopt.leaf, self.adopt.unit, self.adopt.region) = (next, 0, None);
                return Step::On;
            }
            Next::None => return self.next_layer(mem, now),
        };
        if leaf != from {
            (self.adopt.leaf, self.adopt.unit, self.adopt.region) = (leaf, 0, None);
        }
        match self.store.map.look(layer, leaf) {
            Look::Here => self.adopt_leaf(mem, layer, leaf),
            Look::Missing(page) => {
                self.fetch(mem, now, page, Waiter::Job);
                Step::Wait
            }
            Look::Absent | Look::Lost(_) => self.next_leaf_of_pass(),
        }
    }

    fn next_leaf_of_pass(&mut self) -> Step {
        (self.adopt.leaf, self.adopt.unit, self.adopt.region) = (self.adopt.leaf + 1, 0, None);
        Step::On
    }

    fn next_layer<M: Memory>(&mut self, mem: &mut M, now: Instant) -> Step {
        let next = self.store.map.layers.range(self.adopt.layer + 1..).next().map(|(id, _)| *id);
        if let Some(next) = next {
            (self.adopt.layer, self.adopt.leaf, self.adopt.unit) = (next, 0, 0);
            self.adopt.region = None;
            return Step::On;
        }
        // What was moved meanwhile, from a layer that went away to its child, is in memory.
        let left = self
            .store
            .map
            .leaves
            .iter()
            .any(|((layer, _), leaf)| leaf.unadopted != 0 && !self.is_member(*layer));
        self.end_adopting(mem);
        self.adopt.rewind();
        self.adopt.walked = !left;
        self.adopt.wanted = left || !self.adopt.cleaned.is_empty();
        if left {
            self.adopt.next_at = now + AGAIN;
        }
        if self.adopt.wanted { Step::Later } else { Step::Done }
    }

    fn is_member(&self, layer: u32) -> bool {
        let held = self.store.map.layers.get(&layer);
        held.is_some_and(|held| held.state().member && !held.state().sealed)
    }

    fn end_adopting<M: Memory>(&mut self, mem: &mut M) {
        if let Some(job) = self.adopt.job.take() {
            self.end_job(mem, job);
        }
    }

    /// Goes on with the first region of a leaf that is not adopted.
    fn adopt_leaf<M: Memory>(&mut self, mem: &mut M, layer: u32, index: u32) -> Step {
        let (turn, member) = (self.turn, self.is_member(layer));
        let Some(leaf) = self.store.map.leaves.get_mut(&(layer, index)) else { return Step::Wait };
        leaf.used = turn;
        let wanted = leaf.unadopted & if member { leaf.cleaned } else { u64::MAX };
        if wanted == 0 {
            self.adopt.cleaned.remove(&(layer, index));
            return self.next_leaf_of_pass();
        }
        let region = wanted.trailing_zeros();
        let map = leaf.page.get();
        let first = region as usize * REGION_CLUSTERS as usize;
        let now: Clusters = core::array::from_fn(|i| (map.raw(first + i), map.own[first + i]));
        match self.adopt.region {
            Some((same, then)) if same == region && is_within(&now, &then) => {}
            _ => {
                self.adopt.region = Some((region, now));
                self.adopt.unit = 0;
            }
        }
        if self.adopt.unit == UNITS {
            (self.adopt.unit, self.adopt.region) = (0, None);
            self.adopted(layer, index, region);
            return Step::Done;
        }
        let at = first + (self.adopt.unit / 2) as usize;
        let blocks = map.own[at] & mask(self.adopt.unit % 2 * UNIT, UNIT);
        let Some(phys) = map.phys(at).filter(|_| blocks != 0) else {
            self.adopt.unit += 1;
            return Step::On;
        };
        let lcluster = index * LEAF_CLUSTERS as u32 + at as u32;
        let unit = Unit { layer, lcluster, phys, blocks, read: false };
        self.begin_unit(mem, unit)
    }

    fn begin_unit<M: Memory>(&mut self, mem: &mut M, unit: Unit) -> Step {
        if self.adopt.job.is_none() {
            self.adopt.job = self.begin_job(mem, Class::Large);
        }
        let Some(job) = self.adopt.job else {
            return Step::Later;
        };
        if !self.locks.try_lock(unit.layer, unit.lcluster, unit.blocks) {
            return Step::Wait;
        }
        let first = unit.blocks.trailing_zeros();
        let count = 64 - unit.blocks.leading_zeros() - first;
        let offset = self.store.layout.cluster(unit.phys) + u64::from(first) * BLOCK;
        self.job_read(job, 0, count * BLOCK as u32, offset);
        self.adopt.reading = Some(unit);
        Step::Wait
    }

    /// Takes blocks further that are being read, or were.
    fn adopt_unit<M: Memory>(&mut self, mem: &mut M, now: Instant, mut unit: Unit) -> Step {
        if !unit.read {
            let Some(outcome) = self.adopt.job.and_then(|job| self.jobs.outcome(job)) else {
                return Step::Wait;
            };
            unit.read = true;
            if outcome.is_err() {
                // Whoever reads them is told by the device, or finds out that they do not match.
                unit.blocks = 0;
            }
            let locked = self.adopt.reading.replace(unit).map_or(0, |unit| unit.blocks);
            if unit.blocks == 0 {
                return self.end_unit(unit, locked);
            }
        }
        if !self.journal.has_room() && self.state == State::Open {
            return Step::Wait;
        }
        let Some(odd) = self.odd_blocks(mem, now, &unit) else { return Step::Wait };
        for (block, crc) in odd.into_iter().flatten() {
            let lblock = u64::from(unit.lcluster) * CLUSTER_BLOCKS + u64::from(block);
            self.record_lazy(Cell::Write { layer: unit.layer, lblock, first: false, crc });
        }
        self.end_unit(unit, unit.blocks)
    }

    fn end_unit(&mut self, unit: Unit, locked: u64) -> Step {
        self.unlock(unit.layer, unit.lcluster, locked);
        self.adopt.reading = None;
        self.adopt.unit += 1;
        Step::Done
    }

    /// The blocks whose checksums are to be noted anew. None: a page is to be read first.
    fn odd_blocks<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        unit: &Unit,
    ) -> Option<[Option<(u32, u32)>; UNIT as usize]> {
        let mut odd = [None; UNIT as usize];
        let (index, at) = place_cluster(unit.lcluster);
        // The lock keeps writes away; but the layer may be gone, or the cluster moved to its child.
        let leaf = self.store.map.leaves.get(&(unit.layer, index));
        let still = leaf.is_some_and(|leaf| leaf.page.get().phys(at) == Some(unit.phys));
        let (Some(layer), true) = (self.store.map.layers.get(&unit.layer), still) else {
            return Some(odd);
        };
        let tree = layer.state().tree;
        let first = unit.blocks.trailing_zeros();
        for (block, odd) in bits(unit.blocks).zip(&mut odd) {
            let place = u64::from(unit.phys) * CLUSTER_BLOCKS + u64::from(block);
            let stored = match self.store.sums.get(&self.store.layout, place) {
                Sum::Known(crc) => Some(crc),
                Sum::Unknown => None,
                Sum::Missing(page) => {
                    self.fetch_sums(mem, now, page, Waiter::Job);
                    return None;
                }
            };
            let Some(lease) = self.adopt.job.and_then(|job| self.jobs.lease(job)) else { continue };
            let from = (block - first) * BLOCK as u32;
            let lblock = u64::from(unit.lcluster) * CLUSTER_BLOCKS + u64::from(block);
            let crc = mem.crc(lease, from..from + BLOCK as u32, 0) ^ binding(tree, lblock);
            self.counters.crc_blocks += 1;
            if stored != Some(crc) {
                *odd = Some((block, crc));
            }
        }
        Some(odd)
    }

    /// Every block of a region matches its last cell: it may close when it is quiet.
    fn adopted(&mut self, layer: u32, index: u32, region: u32) {
        if let Some(leaf) = self.store.map.leaves.get_mut(&(layer, index)) {
            leaf.unadopted &= !(1 << region);
        }
        self.region_adopted(layer, index * 64 + region, self.journal.assigned());
    }
}

/// Whether clusters are where they were, and no block of them is owned that was not.
fn is_within(now: &Clusters, then: &Clusters) -> bool {
    now.iter().zip(then).all(|(now, then)| now.0 == then.0 && now.1 & !then.1 == 0)
}
