//! Giving back the space of what went away.
//!
//! A deleted layer without children is freed, leaf by leaf; one with a single child is merged into
//! it, cluster by cluster; one with more waits, hidden, until one is left. All of it goes on after
//! a crash where the maps say it stands: a deleted layer is one that is still there.
//!
//! Invariants:
//! 1. Nothing of a layer is touched while a request that names it is in work.
//! 2. A cluster of a deleted layer is freed only when no block of it can be seen, not even after
//!    a crash: what covers it in the child is settled.
//! 3. A cluster changes its owner only when no cell about it is unsettled, and it is not written
//!    in place before the cell that moves it is settled.
//! 4. A copied block's cell follows its data: nobody ever sees a copy that is not there yet.
//! 5. A block that cannot be read, or does not match its checksum, is not copied: its cluster
//!    stays where it is, and so does the layer, until the child has the block itself.
//! 6. A layer's pages go last: leaves, directories, record; then, in one journal block, the child
//!    gets its new parent and the layer is gone.

mod copy;
mod merge;
mod quarantine;
mod trim;

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use braid_block::{Instant, Memory};
use zerocopy::IntoBytes;

use crate::codec::layer_fields;
use crate::layers::{IMAGE_CELLS, image_of};
use crate::layout::{CLUSTER_BLOCKS, Cell, LEAF_CLUSTERS};
use crate::map::{LeafMap, Look, Next, PageId};
use crate::op::Waiter;
use crate::place::Placed;
use crate::{Note, Pool, State};

use copy::Copy;
use quarantine::Quarantine;
use trim::Trim;

/// Cells recorded in a turn, about: requests must not wait long for theirs.
const CELLS_A_TURN: usize = 128;
/// After so long, a layer with blocks that cannot be read is tried again.
const RETRY: Duration = Duration::from_secs(600);

/// What is being given back.
#[derive(Debug)]
pub(crate) struct Reclaim {
    /// Layers may have become free to go.
    look: bool,
    /// One was deleted: it may be better to begin with it.
    fresh: bool,
    work: Option<Work>,
    /// Layers that keep blocks which cannot be read, and since when.
    stuck: BTreeMap<u32, Instant>,
    /// Of which of them it was told.
    told: BTreeSet<u32>,
    quarantine: Quarantine,
    trim: Trim,
}

impl Default for Reclaim {
    fn default() -> Self {
        // An earlier run may have left something.
        let (stuck, told, quarantine) = (BTreeMap::new(), BTreeSet::new(), Quarantine::default());
        let trim = Trim::default();
        Self { look: true, fresh: false, work: None, stuck, told, quarantine, trim }
    }
}

/// A layer that goes.
#[derive(Debug)]
struct Work {
    layer: u32,
    /// Into which it is merged.
    child: Option<u32>,
    /// Its next leaf, and cluster of that.
    leaf: u32,
    at: usize,
    /// What clusters that this pass over the leaf left behind wait for.
    later: Later,
    /// The next pass waits for this journal block to be settled.
    until: u64,
    copy: Option<Copy>,
    /// Blocks of this leaf's clusters that cannot be copied; a cluster with none is copied block
    /// by block.
    bad: BTreeMap<u32, u64>,
    /// Something of it stays.
    left: bool,
}

/// What clusters that were passed over wait for.
#[derive(Clone, Copy, Debug, Default)]
struct Later {
    /// Some do.
    any: bool,
    /// Some stay for good.
    stays: bool,
    /// This journal block to be settled; 0: an unlock, or space.
    settled: u64,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It can go on.
    On,
    /// It waits.
    Wait,
    /// The layer is gone, or stays as it is.
    Ended,
}

impl Pool {
    /// A layer was deleted, or something that kept one back has ended.
    pub(crate) fn reclaim_wanted(&mut self) {
        self.reclaim.look = true;
        self.reclaim.fresh = true;
    }

    /// Whether nothing of it is in the device.
    pub(crate) fn reclaim_is_idle(&self) -> bool {
        let copying = self.reclaim.work.as_ref().is_some_and(|work| work.copy.is_some());
        !copying && self.store.space.discarding == 0
    }

    /// Gives back a little more.
    pub(crate) fn reclaim_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if self.config.read_only {
            return;
        }
        self.quarantine_on(now);
        self.trim_on(now);
        if self.state != State::Open {
            return self.stop_copy(mem);
        }
        // A merge may wait for space that freeing another layer gives.
        let merges = |work: &mut Work| work.child.is_some() && work.copy.is_none();
        if core::mem::take(&mut self.reclaim.fresh) && self.reclaim.work.take_if(merges).is_some() {
            self.reclaim.look = true;
        }
        let end = self.journal.assigned() + 1;
        let mut budget = CELLS_A_TURN;
        while budget > 0 && self.journal.has_room() && self.journal.assigned() <= end {
            let Some(mut work) = self.reclaim.work.take().or_else(|| self.next_deleted(now)) else {
                return;
            };
            match self.reclaim_step(mem, now, &mut work, &mut budget) {
                Step::On => self.reclaim.work = Some(work),
                Step::Wait => {
                    self.reclaim.work = Some(work);
                    return;
                }
                Step::Ended => self.reclaim.look = true,
            }
        }
        if self.journal.has_room() {
            self.again();
        } else {
            self.want_checkpoint();
        }
    }

    /// When a layer that stays is tried again, the quarantine is looked at, or what an earlier run
    /// left is discarded.
    pub(crate) fn reclaim_due(&self) -> Option<Instant> {
        let stuck = self.reclaim.stuck.values().min().map(|since| *since + RETRY);
        [stuck, self.quarantine_due(), self.trim_due()].into_iter().flatten().min()
    }

    /// A deleted layer that can go: one without children first, for what is merged into a layer
    /// that goes as well is moved for nothing.
    fn next_deleted(&mut self, now: Instant) -> Option<Work> {
        let retry = |since: &Instant| now.since(*since) >= RETRY;
        if self.reclaim.stuck.values().any(retry) {
            self.reclaim.stuck.retain(|_, since| !retry(since));
            self.reclaim.look = true;
        }
        if !core::mem::take(&mut self.reclaim.look) {
            return None;
        }
        for children in 0..=1 {
            for (id, layer) in &self.store.map.layers {
                let goes = layer.state().deleted && layer.children == children;
                if !goes || self.reclaim.stuck.contains_key(id) || self.is_staged(*id) {
                    continue;
                }
                if self.ops.iter().any(|(_, op)| op.layer == *id) {
                    self.reclaim.look = true;
                    continue;
                }
                let child = if children == 0 { None } else { self.child_of(*id) };
                // One that stays because part of it is lost keeps its parent.
                if (child.is_none() && children > 0) || child.is_some_and(|id| self.is_leaving(id))
                {
                    continue;
                }
                return Some(Work {
                    layer: *id,
                    child,
                    leaf: 0,
                    at: 0,
                    later: Later::default(),
                    until: 0,
                    copy: None,
                    bad: BTreeMap::new(),
                    left: false,
                });
            }
        }
        None
    }

    fn child_of(&self, parent: u32) -> Option<u32> {
        let mut layers = self.store.map.layers.iter();
        layers.find(|(_, layer)| layer.state().parent == Some(parent)).map(|(id, _)| *id)
    }

    fn reclaim_step<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        work: &mut Work,
        budget: &mut usize,
    ) -> Step {
        if work.copy.is_some() {
            return self.copy_on(mem, now, work);
        }
        let leaf = match self.store.map.next_leaf(work.layer, work.leaf) {
            Next::Leaf(leaf) => leaf,
            Next::Missing(page) => return self.wait_for(mem, now, page),
            Next::Lost(next) => {
                work.left = true;
                work.next_leaf(next);
                return Step::On;
            }
            Next::None if work.left => {
                self.keep(work.layer, now);
                return Step::Ended;
            }
            Next::None => return self.remove_layer(mem, now, work, budget),
        };
        if leaf != work.leaf {
            work.next_leaf(leaf);
        }
        match self.store.map.look(work.layer, leaf) {
            Look::Missing(page) => return self.wait_for(mem, now, page),
            Look::Lost(_) => {
                work.left = true;
                work.next_leaf(leaf + 1);
                return Step::On;
            }
            Look::Here | Look::Absent => {}
        }
        let step = match work.child {
            Some(child) if self.is_leaving(child) => return Step::Ended,
            Some(child) => self.merge_leaf(mem, now, work, child, budget),
            None => self.free_leaf(work, budget),
        };
        if step != Step::Ended {
            return step;
        }
        self.free_page(mem, now, PageId::Leaf(work.layer, leaf), budget)
    }

    /// A layer stays for now; that is told once.
    fn keep(&mut self, layer: u32, now: Instant) {
        self.reclaim.stuck.insert(layer, now);
        if self.reclaim.told.insert(layer) {
            let device = self.store.address(PageId::Layer(layer)).unwrap_or(0);
            self.notes.push_back(Note::Kept { device });
        }
    }

    /// Whether a child can be freed now, before anything is moved into it.
    fn is_leaving(&self, child: u32) -> bool {
        let layer = self.store.map.layers.get(&child);
        let leaves = layer.is_none_or(|layer| layer.state().deleted && layer.children == 0);
        leaves && !self.ops.iter().any(|(_, op)| op.layer == child)
    }

    fn wait_for<M: Memory>(&mut self, mem: &mut M, now: Instant, page: PageId) -> Step {
        self.fetch(mem, now, page, Waiter::Job);
        Step::Wait
    }

    /// Frees the clusters of a leaf; ended when there are none.
    fn free_leaf(&mut self, work: &mut Work, budget: &mut usize) -> Step {
        while work.at < LEAF_CLUSTERS as usize {
            if *budget == 0 {
                return Step::On;
            }
            if self.leaf_at(work.layer, work.leaf, |map| map.phys(work.at)).is_some() {
                self.free_at(work.layer, lcluster(work.leaf, work.at));
                *budget -= 1;
            }
            work.at += 1;
        }
        Step::Ended
    }

    /// What a leaf in memory says.
    fn leaf_at<T>(
        &self,
        layer: u32,
        leaf: u32,
        f: impl FnOnce(&LeafMap) -> Option<T>,
    ) -> Option<T> {
        self.store.map.leaves.get(&(layer, leaf)).and_then(|leaf| f(leaf.page.get()))
    }

    /// Frees a cluster of a deleted layer.
    fn free_at(&mut self, layer: u32, lcluster: u32) {
        let (leaf, at) = crate::store::place_cluster(lcluster);
        let Some(phys) = self.leaf_at(layer, leaf, |map| map.phys(at)) else { return };
        let seq = self.record(Cell::Free { layer, lcluster, phys, opaque: false });
        self.store.map.chains.age();
        self.quarantine(phys, seq);
    }

    /// Gives the place of a page back.
    fn free_page<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        page: PageId,
        budget: &mut usize,
    ) -> Step {
        if self.unplace_page(mem, now, page, Waiter::Job) != Placed::Done {
            return Step::Wait;
        }
        *budget = budget.saturating_sub(1);
        Step::On
    }

    /// Gives the last pages of a layer back, and the layer itself.
    fn remove_layer<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        work: &Work,
        budget: &mut usize,
    ) -> Step {
        let Some(state) = self.store.map.layers.get(&work.layer).map(|layer| layer.state().clone())
        else {
            return Step::Ended;
        };
        for (directory, pair) in (0..).zip(&state.directories) {
            if *pair != 0 {
                return self.free_page(mem, now, PageId::Directory(work.layer, directory), budget);
            }
        }
        if state.record != 0 {
            return self.free_page(mem, now, PageId::Record(work.layer), budget);
        }
        // One block for all of it: no checkpoint comes between the page's end and the layer's.
        self.journal.keep_together(IMAGE_CELLS + 2);
        let page = PageId::Layer(work.layer);
        if self.unplace_page(mem, now, page, Waiter::Job) != Placed::Done {
            return Step::Wait;
        }
        let child = work.child.and_then(|id| Some((id, self.store.map.layers.get(&id)?.state())));
        let child = child.map(|(id, of)| {
            let of = crate::map::LayerState { parent: state.parent, ..of.clone() };
            (id, layer_fields(&of))
        });
        let mut group = alloc::vec::Vec::<(Cell, &[u8])>::with_capacity(2);
        group.extend(child.as_ref().map(|(id, fields)| (image_of(*id), fields.as_bytes())));
        group.push((Cell::Remove { layer: work.layer }, &[]));
        let seq = self.record_group(&group);
        self.commands.retire(work.layer, seq);
        self.reclaim.told.remove(&work.layer);
        self.regions.forget(work.layer);
        self.store.map.chains.age();
        let child = work.child.unwrap_or(Cell::PAGES);
        let mut leaves = self.store.map.leaves.iter();
        if leaves.any(|((layer, _), leaf)| *layer == child && leaf.unadopted != 0) {
            self.adopt.more();
        }
        self.notes.push_back(Note::Reclaimed);
        *budget = budget.saturating_sub(group.len());
        Step::Ended
    }
}

impl Work {
    /// Begins with another leaf.
    fn next_leaf(&mut self, leaf: u32) {
        self.leaf = leaf;
        self.at = 0;
        self.later = Later::default();
        self.until = 0;
        self.bad.clear();
    }
}

/// The cluster at a position of a leaf.
const fn lcluster(leaf: u32, at: usize) -> u32 {
    leaf * LEAF_CLUSTERS as u32 + at as u32
}

/// A block by its number: cluster times 64 plus position.
const fn block_of(phys: u32, at: u32) -> u64 {
    phys as u64 * CLUSTER_BLOCKS + at as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::layout::BLOCK;
    use crate::rig::Rig;

    #[test]
    fn what_went_away_and_keeps_its_space_is_told_once() {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 3, 0x33);
        rig.run();
        rig.let_go();
        rig.read(handle, 3);
        rig.run();
        let leaf = rig.pool.store.address(PageId::Leaf(0, 0)).expect("it has a place");
        let device = rig.pool.store.address(PageId::Layer(0)).expect("so has the layer");
        rig.let_go();
        for slot in 0..2 {
            rig.blocks.get_mut(&(leaf / BLOCK + slot)).expect("it was written")[1000] ^= 1;
        }
        rig.notes.clear();
        rig.pool.command(&mut rig.mem, rig.now, 1, Command::Destroy { uuid: [1; 16] });
        rig.run();
        assert_eq!(rig.notes, [Note::Lost { device: leaf }, Note::Kept { device }]);
        rig.notes.clear();
        rig.wait(RETRY.as_secs() + 1);
        rig.run();
        assert_eq!(rig.notes, [], "nothing is new");
        assert!(rig.pool.store.map.layers.contains_key(&0));
    }
}
