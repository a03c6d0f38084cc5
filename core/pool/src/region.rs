//! Regions that may be overwritten in place: opened before, closed when they were quiet.
//!
//! Invariants:
//! 1. No owned block is overwritten unless a durable cell says that its region is open: an Open
//!    below `durable`, or a first write below `settled`.
//! 2. A region is closed from the moment its Close enters the journal buffer; the next overwrite
//!    needs a new Open.
//! 3. A Close enters the buffer only after a flush over which the region was quiet, with no write
//!    to it since that flush was issued and its cells durable.
//! 4. Who opens a region may open others with it, for nothing more than their cells: those ahead of
//!    a stream, and those near it that were written before they were closed. The latter not of a
//!    member: its mirror would know nothing of their marks.
//! 5. A Clean clears no mark of a region that was changed since it was asked for: whoever asked
//!    knows nothing of that.

use alloc::collections::VecDeque;
use core::time::Duration;

use braid_block::Instant;
use hashbrown::HashMap;

use crate::Pool;
use crate::config::Plant;
use crate::hash::Fixed;
use crate::layout::{Cell, LEAF_REGIONS, REGION_BLOCKS};
use crate::map::Touch;
use crate::op::Waiter;

/// Regions of a leaf, as cells number them.
const LEAF: u32 = LEAF_REGIONS as u32;
/// User writes for which one region may be closed: it costs a flush to open it again.
const WRITES_PER_CLOSE: u32 = 128;
/// Regions that a sequential stream marks ahead, at most.
const AHEAD_MAX: u32 = 64;
/// After so long without requests, regions are closed as fast as they can be.
const IDLE: Duration = Duration::from_secs(1);
/// Regions looked at in a turn when idle.
const LOOKS: usize = 32;
/// Regions looked at under load for each that may be closed. While all are looked at once, each
/// gets sixteen writes if they are spread evenly: one that got none is not of those in use.
const LOOKS_LOADED: usize = 8;
/// Leaves, a GiB, of which a region may be opened again because another one is.
const LEAVES_AGAIN: u32 = 16;
/// Cells that open regions again, at most: with others they are in two journal blocks.
const CELLS_AGAIN: u32 = 64;

/// What will make a region's mark durable.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    /// Journal block of its Open.
    open: Option<u64>,
    /// Journal block of its first write.
    first: Option<u64>,
}

/// Regions whose marks are on their way, and open ones in the order in which they may be closed.
#[derive(Debug)]
pub(crate) struct Regions {
    pending: HashMap<(u32, u32), Pending, Fixed>,
    open: VecDeque<(u32, u32)>,
    /// User writes since the last Close.
    writes: u32,
    /// The flush that the close of idle regions waits for.
    asked: u64,
    /// Cleans that were asked for, and those that have ended: in this order, one at a time.
    cleans: u32,
    cleaned: u32,
    /// When idle regions were looked at last: what cannot be closed then is looked at again after a
    /// while, not at once.
    looked: Instant,
}

impl Regions {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            pending: HashMap::with_hasher(Fixed),
            open: VecDeque::new(),
            writes: 0,
            asked: 0,
            cleans: 0,
            cleaned: 0,
            looked: Instant::ZERO,
        }
    }

    /// A write request was taken.
    pub(crate) const fn took_write(&mut self) {
        self.writes = self.writes.saturating_add(1);
    }

    /// A Clean was asked for.
    pub(crate) const fn clean_asked(&mut self) {
        self.cleans += 1;
    }

    /// The oldest Clean that was asked for has ended.
    pub(crate) const fn clean_ended(&mut self) {
        self.cleaned += 1;
    }

    /// Whether a region was changed since the oldest Clean in work was asked for, if one is.
    pub(crate) fn is_newer(&self, touch: &Touch) -> bool {
        self.cleaned < self.cleans && touch.cleans > self.cleaned
    }

    /// A layer is gone: its number may be given anew.
    pub(crate) fn forget(&mut self, layer: u32) {
        self.pending.retain(|(of, _), _| *of != layer);
        self.open.retain(|(of, _)| *of != layer);
    }

    /// Regions that were opened and not closed.
    pub(crate) fn open_len(&self) -> usize {
        self.open.len()
    }
}

impl Pool {
    /// Whether a region may be overwritten in place; if not, it is being opened and `waiter` goes
    /// on when it is. Its leaf is in memory.
    pub(crate) fn region_ready(&mut self, layer: u32, region: u32, waiter: Waiter) -> bool {
        if self.is_open(layer, region) {
            let pending = self.regions.pending.get(&(layer, region)).copied();
            let Some(Pending { open, first }) = pending else { return true };
            if open.is_some_and(|seq| seq <= self.sync.durable())
                || first.is_some_and(|seq| seq <= self.sync.settled())
            {
                self.regions.pending.remove(&(layer, region));
                return true;
            }
            if let Some(seq) = open {
                self.when_durable(seq, waiter);
                return false;
            }
        }
        let seq = self.open_regions(layer, region);
        if self.config.plant == Some(Plant::MarkLate) {
            return true;
        }
        self.when_durable(seq, waiter);
        false
    }

    /// Whether a region is open, as far as the journal buffer says.
    pub(crate) fn is_open(&self, layer: u32, region: u32) -> bool {
        let leaf = self.store.map.leaves.get(&(layer, region / LEAF));
        leaf.is_some_and(|leaf| leaf.page.get().open >> (region % LEAF) & 1 != 0)
    }

    /// Marks a region, and some ahead of a sequential stream, as far as the layer goes.
    fn open_regions(&mut self, layer: u32, region: u32) -> u64 {
        let Some(held) = self.store.map.layers.get_mut(&layer) else { return 0 };
        let (next, last) = held.stream;
        let ahead = if region == next { (2 * last).min(AHEAD_MAX) } else { 1 };
        // Not past the end: a region that is not there cannot be compared with another member's.
        let end = held.state().blocks.div_ceil(REGION_BLOCKS);
        let left = u32::try_from(end).unwrap_or(u32::MAX).saturating_sub(region).max(1);
        let count = ahead.min(LEAF - region % LEAF).min(left);
        held.stream = (region + count, ahead);
        let known = |pool: &Self, region| {
            pool.is_open(layer, region)
                && pool.regions.pending.get(&(layer, region)).is_none_or(|p| p.open.is_some())
        };
        let listed: u64 = (0..count).map(|i| u64::from(known(self, region + i)) << i).sum();
        let cell = Cell::Open { layer, region, count: u16::try_from(count).unwrap_or(1) };
        let seq = self.record(cell);
        for i in 0..count {
            let is_listed = listed >> i & 1 != 0;
            if !is_listed || i == 0 {
                self.region_opened((layer, region + i), seq, is_listed);
            }
        }
        self.open_again(layer, region / LEAF);
        seq
    }

    /// A region has an Open in journal block `seq`.
    fn region_opened(&mut self, at: (u32, u32), seq: u64, is_listed: bool) {
        let (layer, region) = at;
        if let Some(leaf) = self.store.map.leaves.get_mut(&(layer, region / LEAF)) {
            leaf.habits.open(1 << (region % LEAF));
        }
        let pending = self.regions.pending.entry(at).or_default();
        let fresh = pending.open.is_none() && pending.first.is_none();
        pending.open = Some(seq);
        if fresh && !is_listed {
            self.regions.open.push_back(at);
            self.counters.regions_opened += 1;
        }
    }

    /// Opens regions near a leaf that were written before they were closed: a load that comes back
    /// after a rest finds its regions open, all for one flush.
    fn open_again(&mut self, layer: u32, near: u32) {
        if self.store.map.layers.get(&layer).is_none_or(|layer| layer.state().member) {
            return;
        }
        let first = near / LEAVES_AGAIN * LEAVES_AGAIN;
        let mut cells = 0;
        for index in first..first + LEAVES_AGAIN {
            let Some(leaf) = self.store.map.leaves.get(&(layer, index)) else { continue };
            let mut left = leaf.habits.again() & !leaf.page.get().open;
            while left != 0 && cells < CELLS_AGAIN {
                let at = left.trailing_zeros();
                let count = (left >> at).trailing_ones();
                left &= !crate::store::mask(at, count);
                cells += 1;
                let region = index * LEAF + at;
                let count = u16::try_from(count).unwrap_or(1);
                let seq = self.record(Cell::Open { layer, region, count });
                for i in 0..u32::from(count) {
                    self.region_opened((layer, region + i), seq, false);
                }
            }
        }
    }

    /// A first write with a cell in journal block `seq` has made its region open.
    pub(crate) fn region_written_first(&mut self, layer: u32, region: u32, seq: u64) {
        let pending = self.regions.pending.entry((layer, region)).or_default();
        if pending.open.is_none() && pending.first.is_none() {
            pending.first = Some(seq);
            self.regions.open.push_back((layer, region));
            self.counters.regions_opened += 1;
        }
    }

    /// A write to a region goes out; its newest cell is in journal block `seq`.
    pub(crate) fn region_begin(&mut self, layer: u32, region: u32, seq: u64) {
        let flush = self.sync.issued();
        let Some(leaf) = self.store.map.leaves.get_mut(&(layer, region / LEAF)) else { return };
        leaf.cleaned &= !(1 << (region % LEAF));
        leaf.habits.write(1 << (region % LEAF));
        let touch = leaf.touch(region);
        let (writes, seq) = (touch.writes + 1, touch.seq.max(seq));
        *touch = Touch { flush, writes, cleans: self.regions.cleans, seq };
    }

    /// A region was changed by cells alone, the newest in journal block `seq`.
    pub(crate) fn region_changed(&mut self, layer: u32, region: u32, seq: u64) {
        self.region_begin(layer, region, seq);
        self.region_end(layer, region);
    }

    /// It is done.
    pub(crate) fn region_end(&mut self, layer: u32, region: u32) {
        let flush = self.sync.issued();
        if let Some(touch) = self.touch(layer, region) {
            touch.writes -= 1;
            touch.flush = flush;
        }
    }

    fn touch(&mut self, layer: u32, region: u32) -> Option<&mut Touch> {
        self.store.map.leaves.get_mut(&(layer, region / LEAF)).map(|leaf| leaf.touch(region))
    }

    /// A region that was open since before the pool was opened may close: its checksums are right,
    /// the newest by a cell in journal block `seq`.
    pub(crate) fn region_adopted(&mut self, layer: u32, region: u32, seq: u64) {
        let flush = self.sync.issued();
        if let Some(touch) = self.touch(layer, region) {
            *touch = Touch { flush, seq: touch.seq.max(seq), ..*touch };
        }
        // If it is listed already, because it was written since, the second look finds it closed.
        self.regions.open.push_back((layer, region));
    }

    /// Closes regions that were quiet over a flush: few under load, all of them when idle.
    pub(crate) fn regions_on(&mut self, now: Instant) {
        let idle = self.is_closing() || now.since(self.busy) >= IDLE;
        let (mut budget, looks) = match idle {
            true => (LOOKS, LOOKS),
            false => ((self.regions.writes / WRITES_PER_CLOSE) as usize, LOOKS_LOADED),
        };
        let mut lacks_flush = false;
        if idle {
            self.regions.looked = now;
        }
        for _ in 0..self.regions.open.len().min(looks) {
            if budget == 0 || !self.journal.has_room() {
                break;
            }
            let Some(at) = self.regions.open.pop_front() else { break };
            // Whether it is looked at or closed, the next turn of the load is later.
            self.regions.writes = 0;
            if self.was_written(at.0, at.1) && !idle {
                self.regions.open.push_back(at);
                continue;
            }
            match self.close_region(at.0, at.1) {
                Closed::Yes => budget -= 1,
                Closed::Gone => {}
                Closed::NotYet { flush } => {
                    lacks_flush |= flush;
                    self.regions.open.push_back(at);
                }
            }
        }
        let asked = self.regions.asked > self.sync.done();
        if idle && lacks_flush && !asked {
            self.regions.asked = self.ask_sync();
        } else if idle && budget == 0 {
            self.again();
        }
    }

    /// Whether a region was written since it was last looked at: what is written often would have
    /// to be opened again soon.
    fn was_written(&mut self, layer: u32, region: u32) -> bool {
        let leaf = self.store.map.leaves.get_mut(&(layer, region / LEAF));
        leaf.is_some_and(|leaf| leaf.habits.look(1 << (region % LEAF)))
    }

    /// Whether the pool is ending what it does: regions are closed at once.
    fn is_closing(&self) -> bool {
        self.state == crate::State::Stopping && self.ops.is_empty()
    }

    /// When idle regions are to be closed.
    pub(crate) fn regions_due(&self) -> Option<Instant> {
        let open = self.state == crate::State::Open && !self.regions.open.is_empty();
        (open && self.regions.asked <= self.sync.done())
            .then(|| self.busy.max(self.regions.looked) + IDLE)
    }

    fn close_region(&mut self, layer: u32, region: u32) -> Closed {
        let Some(held) = self.store.map.layers.get(&layer) else {
            self.regions.pending.remove(&(layer, region));
            return Closed::Gone;
        };
        let (member, sealed) = (held.state().member, held.state().sealed);
        if !self.is_open(layer, region) {
            self.regions.pending.remove(&(layer, region));
            return Closed::Gone;
        }
        let leaf = self.store.map.leaves.get(&(layer, region / LEAF));
        if leaf.is_some_and(|leaf| leaf.unadopted >> (region % LEAF) & 1 != 0) {
            // Whoever adopts it lists it again.
            return Closed::Gone;
        }
        match self.quiet(layer, region) {
            Quiet::Flushed => {}
            quiet => return Closed::NotYet { flush: quiet == Quiet::Idle },
        }
        // The marks of a mirror's member are cleared when the others are known to be alike.
        let leaf = self.store.map.leaves.get_mut(&(layer, region / LEAF));
        let cleaned = leaf.is_some_and(|leaf| {
            let (was, bit) = (leaf.cleaned, 1 << (region % LEAF));
            leaf.cleaned &= !bit;
            leaf.habits.close(bit);
            was & bit != 0
        });
        let dirty = cleaned || (!member && !sealed);
        self.record_lazy(Cell::Close { layer, region, open: true, dirty });
        self.regions.pending.remove(&(layer, region));
        self.counters.regions_closed += 1;
        Closed::Yes
    }

    /// How quiet a region is, whose leaf is in memory.
    fn quiet(&self, layer: u32, region: u32) -> Quiet {
        let Some(leaf) = self.store.map.leaves.get(&(layer, region / LEAF)) else {
            return Quiet::Busy;
        };
        let touch = leaf.regions.as_ref().map(|all| all[(region % LEAF) as usize]);
        let touch = touch.unwrap_or_default();
        let pending = self.regions.pending.get(&(layer, region)).copied().unwrap_or_default();
        let marked = pending.open.max(pending.first).unwrap_or(0).max(touch.seq);
        if touch.writes != 0 || leaf.unadopted >> (region % LEAF) & 1 != 0 {
            return Quiet::Busy;
        }
        let flushed = touch.flush < self.sync.done() && marked <= self.sync.durable();
        if flushed { Quiet::Flushed } else { Quiet::Idle }
    }

    fn is_newer(&self, layer: u32, region: u32) -> bool {
        let leaf = self.store.map.leaves.get(&(layer, region / LEAF));
        let touch = leaf.and_then(|leaf| Some(leaf.regions.as_ref()?[(region % LEAF) as usize]));
        touch.is_some_and(|touch| self.regions.is_newer(&touch))
    }

    /// Clears the mark of a member's region, unless it was written since the last flush, or since
    /// this was asked for. An open
    /// region is closed with it: an overwrite in an open one would leave no mark.
    pub(crate) fn clean_region(&mut self, layer: u32, region: u32) {
        let leaf = self.store.map.leaves.get(&(layer, region / LEAF));
        let dirty = leaf.is_some_and(|leaf| leaf.page.get().dirty >> (region % LEAF) & 1 != 0);
        let (quiet, bit) = (self.quiet(layer, region), 1 << (region % LEAF));
        let leaf = self.store.map.leaves.get_mut(&(layer, region / LEAF));
        if let Some(leaf) = leaf.filter(|leaf| dirty && leaf.unadopted & bit != 0) {
            // It is alike on all members: what it holds counts. Its mark goes when it closes.
            let touch = leaf.regions.as_ref().map(|all| all[(region % LEAF) as usize]);
            let touch = touch.unwrap_or_default();
            let newer = self.regions.is_newer(&touch);
            if touch.writes == 0 && touch.flush < self.sync.done() && !newer {
                leaf.cleaned |= bit;
                self.adopt.clean(layer, region / LEAF);
            }
            return;
        }
        if !dirty || quiet != Quiet::Flushed || self.is_newer(layer, region) {
            return;
        }
        let open = self.is_open(layer, region);
        if let Some(leaf) = self.store.map.leaves.get_mut(&(layer, region / LEAF)).filter(|_| open)
        {
            leaf.habits.close(bit);
        }
        self.record_lazy(Cell::Close { layer, region, open, dirty: true });
        self.regions.pending.remove(&(layer, region));
        self.counters.regions_closed += u64::from(open);
    }
}

/// How quiet a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quiet {
    /// Writes are in flight, or it waits to be adopted.
    Busy,
    /// Nothing is in flight; a flush would make it quiet.
    Idle,
    /// It was quiet over a flush.
    Flushed,
}

/// What came of looking at an open region.
enum Closed {
    Yes,
    /// Not yet; a flush would help.
    NotYet {
        flush: bool,
    },
    /// It is not open any more.
    Gone,
}

#[cfg(test)]
mod tests;
