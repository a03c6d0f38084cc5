//! Merging a deleted layer into its only child, cluster by cluster.
//!
//! | the layer | the child | what is done |
//! |---|---|---|
//! | nothing to be seen | any | freed |
//! | blocks to be seen | no cluster | the cluster moves |
//! | blocks to be seen | a cluster | they are copied; the next pass frees it |
//! | hides its parents | does not | the child hides them |
//!
//! The marks of its regions go to the child as well, those of regions too of which it has no
//! cluster, or none that is seen: what was cleared in it may be there in another member still.

use braid_block::{Instant, Memory};
use zerocopy::IntoBytes;

use super::{Pool, Step, Work, block_of, lcluster};
use crate::layout::{Cell, LEAF_CLUSTERS, REGION_CLUSTERS, Transferred};
use crate::map::{LeafMap, Look, PageId};
use crate::op::Waiter;
use crate::place::Placed;
use crate::write::{bits, region_of};

/// A cluster of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) phys: Option<u32>,
    pub(super) own: u64,
    pub(super) opaque: bool,
}

impl Entry {
    fn of(map: &LeafMap, at: usize) -> Self {
        Self { phys: map.phys(at), own: map.own[at], opaque: map.opaque(at) }
    }
}

/// What becomes of a cluster of a deleted layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is gone.
    Gone,
    /// Nothing of it can be seen.
    Free,
    /// The child is to hide the parents; nothing else of it can be seen.
    Hide,
    /// The child gets it.
    Move,
    /// The child gets these blocks.
    Copy(u64),
}

impl Fate {
    fn of(layer: Entry, child: Entry) -> Self {
        let seen = if child.opaque { 0 } else { layer.own & !child.own };
        let covers = child.opaque || child.own == u64::MAX;
        match (layer.phys, child.phys) {
            (Some(_), None) if seen != 0 => Self::Move,
            (Some(_), Some(_)) if seen != 0 => Self::Copy(seen),
            _ if layer.opaque && !covers => Self::Hide,
            (Some(_), _) => Self::Free,
            (None, _) => Self::Gone,
        }
    }
}

impl Pool {
    /// Does what can be done with a leaf's clusters now; ended when nothing is left of them.
    pub(super) fn merge_leaf<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        work: &mut Work,
        child: u32,
        budget: &mut usize,
    ) -> Step {
        if work.until > self.sync.settled() {
            self.sync.want_settled(work.until);
            return Step::Wait;
        }
        match self.store.map.look(child, work.leaf) {
            Look::Missing(page) => return self.wait_for(mem, now, page),
            Look::Lost(_) => {
                work.left = true;
                work.next_leaf(work.leaf + 1);
                return Step::On;
            }
            Look::Here | Look::Absent => {}
        }
        while work.at < LEAF_CLUSTERS as usize {
            if *budget == 0 {
                return Step::On;
            }
            let fate = self.fate(work, child);
            if fate != Fate::Gone {
                let step = self.meet(mem, now, work, child, fate, budget);
                if step != Step::On || work.copy.is_some() {
                    return step;
                }
            }
            work.at += 1;
        }
        let later = core::mem::take(&mut work.later);
        work.at = 0;
        if later.any {
            work.until = later.settled;
            self.sync.want_settled(later.settled);
            return Step::Wait;
        }
        if !later.stays {
            return self.move_marks(mem, now, work, child, budget);
        }
        work.left = true;
        work.next_leaf(work.leaf + 1);
        Step::On
    }

    /// Both layers' entries of the cluster at hand.
    fn entries(&self, work: &Work, child: u32) -> (Entry, Entry) {
        let of = |layer| self.leaf_at(layer, work.leaf, |map| Some(Entry::of(map, work.at)));
        (of(work.layer).unwrap_or_default(), of(child).unwrap_or_default())
    }

    fn fate(&self, work: &Work, child: u32) -> Fate {
        let (layer, child) = self.entries(work, child);
        Fate::of(layer, child)
    }

    fn meet<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        work: &mut Work,
        child: u32,
        fate: Fate,
        budget: &mut usize,
    ) -> Step {
        let (from, to) = self.entries(work, child);
        let at = lcluster(work.leaf, work.at);
        match fate {
            Fate::Gone => {}
            Fate::Free => {
                if self.is_covered(work, from, to) {
                    self.free_at(work.layer, at);
                    *budget -= 1;
                }
            }
            Fate::Hide | Fate::Move => {
                if self.locks.is_locked(child, at, u64::MAX) {
                    work.later.any = true;
                    return Step::On;
                }
                let moves = fate == Fate::Move;
                let ready = if moves {
                    self.are_settled(work, from.phys, u64::MAX)
                } else {
                    self.is_covered(work, from, to)
                };
                if !ready {
                    return Step::On;
                }
                match self.place_page(mem, now, PageId::Leaf(child, work.leaf), Waiter::Job) {
                    Placed::Done => {}
                    Placed::Wait => return Step::Wait,
                    Placed::NoSpace | Placed::Lost => {
                        work.later.any = true;
                        return Step::On;
                    }
                }
                self.transfer(work, child, from, moves);
                *budget = budget.saturating_sub(3);
            }
            Fate::Copy(blocks) => {
                let bad = work.bad.get(&at).copied().unwrap_or(0);
                if blocks & !bad == 0 {
                    work.later.stays = true;
                } else if self.are_settled(work, to.phys, blocks) {
                    return self.begin_copy(mem, work, child, (from, to), blocks & !bad);
                }
            }
        }
        Step::On
    }

    /// Whether what the child has over a cluster stays there whatever happens; else it is looked
    /// at later.
    fn is_covered(&self, work: &mut Work, from: Entry, to: Entry) -> bool {
        to.opaque || self.are_settled(work, to.phys, from.own & to.own)
    }

    /// Whether blocks of a cluster of the device have no unsettled cell; else it is looked at
    /// later.
    fn are_settled(&self, work: &mut Work, phys: Option<u32>, blocks: u64) -> bool {
        let Some(phys) = phys else { return true };
        let newest = bits(blocks).filter_map(|at| self.sync.unsettled(block_of(phys, at))).max();
        let Some(seq) = newest else { return true };
        work.later.any = true;
        work.later.settled = work.later.settled.max(seq);
        false
    }

    /// The child gets the marks of a leaf without clusters; ended when there are none.
    fn move_marks<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        work: &Work,
        child: u32,
        budget: &mut usize,
    ) -> Step {
        let layer = work.layer;
        let dirty = self.leaf_at(layer, work.leaf, |map| Some(map.dirty)).unwrap_or(0);
        if dirty == 0 {
            return Step::Ended;
        }
        match self.place_page(mem, now, PageId::Leaf(child, work.leaf), Waiter::Job) {
            Placed::Done => {}
            Placed::Wait | Placed::NoSpace | Placed::Lost => return Step::Wait,
        }
        for bit in bits(dirty) {
            if *budget == 0 {
                return Step::On;
            }
            let at = lcluster(work.leaf, bit as usize * REGION_CLUSTERS as usize);
            let region = region_of(at);
            let moved = Transferred {
                own: 0.into(),
                phys: Cell::NOWHERE.into(),
                flags: Transferred::DIRTY,
                reserved: [0; 3],
            };
            let mark = Cell::Transfer { layer, to: child, lcluster: at };
            let gone = Cell::Close { layer, region, open: false, dirty: true };
            let seq = self.record_group(&[(mark, moved.as_bytes()), (gone, &[])]);
            self.region_changed(child, region, seq);
            *budget = budget.saturating_sub(3);
        }
        Step::On
    }

    /// The child gets a cluster, or no more than that it hides the parents; the marks of the
    /// region go with it.
    fn transfer(&mut self, work: &Work, child: u32, from: Entry, moves: bool) {
        let (layer, at) = (work.layer, lcluster(work.leaf, work.at));
        let bit = 1 << (work.at as u64 / REGION_CLUSTERS);
        let marks = |map: &LeafMap| Some((map.open & bit != 0, map.dirty & bit != 0));
        let (open, dirty) = self.leaf_at(layer, work.leaf, marks).unwrap_or_default();
        let open = open && moves;
        let region = region_of(at);
        let was_open = self.is_open(child, region);
        let moved = Transferred {
            own: if moves { from.own } else { 0 }.into(),
            phys: from.phys.filter(|_| moves).unwrap_or(Cell::NOWHERE).into(),
            flags: flag(from.opaque, Transferred::OPAQUE)
                | flag(open, Transferred::OPEN)
                | flag(dirty, Transferred::DIRTY),
            reserved: [0; 3],
        };
        let cell = Cell::Transfer { layer, to: child, lcluster: at };
        let mut group = arrayvec::ArrayVec::<(Cell, &[u8]), 2>::new();
        group.push((cell, moved.as_bytes()));
        if let (false, Some(phys)) = (moves, from.phys) {
            group.push((Cell::Free { layer, lcluster: at, phys, opaque: false }, &[]));
        }
        let seq = self.record_group(&group);
        match from.phys {
            // Until the cell is settled a crash gives the cluster back to the layer, whose region
            // may be closed: nothing of it is overwritten before.
            Some(phys) if moves => {
                for at in bits(from.own) {
                    self.sync.unsettle(block_of(phys, at), seq);
                }
            }
            Some(phys) => self.quarantine(phys, seq),
            None => {}
        }
        if open && !was_open {
            self.region_written_first(child, region, seq);
        }
        if open || dirty {
            self.region_changed(child, region, seq);
        }
    }
}

const fn flag(is: bool, flag: u8) -> u8 {
    if is { flag } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_a_deleted_layer_goes_where_it_is_seen_from() {
        let entry = |phys: u32, own, opaque| Entry { phys: phys.checked_sub(1), own, opaque };
        let none = Entry::default();
        let cases = [
            (none, none, Fate::Gone),
            (entry(1, 3, false), none, Fate::Move),
            (entry(1, 0, false), none, Fate::Free),
            (entry(1, 3, true), none, Fate::Move),
            (entry(1, 3, false), entry(2, 3, false), Fate::Free),
            (entry(1, 3, false), entry(2, 1, false), Fate::Copy(2)),
            (entry(1, 3, true), entry(2, 1, false), Fate::Copy(2)),
            (entry(1, 3, true), entry(2, 3, false), Fate::Hide),
            (entry(1, 3, true), entry(2, u64::MAX, false), Fate::Free),
            (entry(1, 3, true), entry(2, 1, true), Fate::Free),
            (entry(1, 3, false), entry(0, 0, true), Fate::Free),
            (entry(0, 0, true), none, Fate::Hide),
            (entry(0, 0, true), entry(2, 1, false), Fate::Hide),
            (entry(0, 0, true), entry(0, 0, true), Fate::Gone),
            (entry(0, 0, true), entry(2, u64::MAX, false), Fate::Gone),
        ];
        for (layer, child, fate) in cases {
            assert_eq!(Fate::of(layer, child), fate, "{layer:?} under {child:?}");
        }
    }
}
