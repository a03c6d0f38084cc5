//! The marks of regions that other members of a mirror may not have alike: listed, and cleared.
//!
//! Invariants:
//! 1. A list has the marks of the deleted layers that are being merged into the one it is of: no
//!    other list has them, and what they mark is seen in this one.
//! 2. Parents are walked through before their children: a mark that moves meanwhile moves to where
//!    the walk has not been.

use alloc::vec::Vec;

use braid_block::{Instant, Memory};

use super::{Progress, Stage};
use crate::layout::LEAF_REGIONS;
use crate::map::{Look, Next, PageId};
use crate::op::Waiter;
use crate::{Done, Failure, Pool};

/// Leaves looked at in a turn.
const LEAVES_A_TURN: u32 = 256;
/// Regions of a leaf.
const REGIONS: u32 = LEAF_REGIONS as u32;

/// Where a walk stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Through this layer: a snapshot gives a replica another, and the walk begins anew.
    layer: u32,
    /// Layers to be listed, the one at hand last.
    through: Vec<u32>,
    /// Position in the list of regions.
    at: usize,
    /// Next region of that entry; next leaf of a list.
    next: u32,
    /// Marked regions so far: first, and number.
    found: Vec<(u32, u32)>,
}

impl Pool {
    /// The regions that a [`crate::Command::Marks`] found: first region and number of regions,
    /// each, ascending. Taken once, by the command's tag.
    pub fn take_marks(&mut self, tag: u64) -> Option<Vec<(u32, u32)>> {
        self.commands.marks.remove(&tag)
    }

    pub(super) fn list_marks<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        uuid: &[u8; 16],
        tag: u64,
        stage: &mut Stage,
    ) -> Progress<Done> {
        let head = self.served(uuid).ok_or(Failure::NotFound)?;
        let walk = walk_of(stage, head);
        if walk.through.is_empty() {
            walk.through = self.merging_into(head);
        }
        for _ in 0..LEAVES_A_TURN {
            let layer = walk.through.last().copied().unwrap_or(head);
            let leaf = match self.store.map.next_leaf(layer, walk.next) {
                Next::Leaf(leaf) => leaf,
                Next::Missing(page) => {
                    self.fetch(mem, now, page, Waiter::Job);
                    return Ok(None);
                }
                // What is not known may differ: all of it counts as marked.
                Next::Lost(next) => {
                    add(&mut walk.found, walk.next * REGIONS, (next - walk.next) * REGIONS);
                    walk.next = next;
                    continue;
                }
                Next::None if walk.through.len() > 1 => {
                    walk.through.pop();
                    walk.next = 0;
                    continue;
                }
                Next::None => {
                    let found = united(core::mem::take(&mut walk.found));
                    let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
                    self.commands.marks.insert(tag, found);
                    let handle = self.find(uuid);
                    return Ok(Some(Done { count, handle, ..Done::default() }));
                }
            };
            match self.store.map.look(layer, leaf) {
                Look::Here => {
                    let held = self.store.map.leaves.get(&(layer, leaf));
                    let dirty = held.map_or(0, |leaf| leaf.page.get().dirty);
                    for bit in crate::write::bits(dirty) {
                        add(&mut walk.found, leaf * REGIONS + bit, 1);
                    }
                }
                Look::Missing(page) => {
                    walk.next = leaf;
                    self.fetch(mem, now, page, Waiter::Job);
                    return Ok(None);
                }
                Look::Lost(_) => add(&mut walk.found, leaf * REGIONS, REGIONS),
                Look::Absent => {}
            }
            walk.next = leaf + 1;
        }
        self.again();
        Ok(None)
    }

    /// A layer, its parent if that was deleted and is being merged, and so on.
    fn merging_into(&self, head: u32) -> Vec<u32> {
        let parent_of = |id: &u32| {
            let parent = self.state_of(*id)?.parent?;
            self.state_of(parent)?.deleted.then_some(parent)
        };
        // No longer than there are layers, whatever the disk says.
        let most = self.store.map.layers.len();
        core::iter::successors(Some(head), parent_of).take(most).collect()
    }

    pub(super) fn clean<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        uuid: &[u8; 16],
        regions: &[(u32, u32)],
        stage: &mut Stage,
    ) -> Progress<Done> {
        let layer = self.served(uuid).ok_or(Failure::NotFound)?;
        let Some(state) = self.state_of(layer) else { return Err(Failure::NotFound) };
        if !state.member {
            return Err(Failure::Invalid);
        }
        let walk = walk_of(stage, layer);
        for _ in 0..LEAVES_A_TURN {
            let Some((first, count)) = regions.get(walk.at).copied() else {
                return Ok(Some(Done { handle: self.find(uuid), ..Done::default() }));
            };
            if !self.journal.has_room() {
                return Ok(None);
            }
            let end = first.saturating_add(count);
            let from = walk.next.max(first);
            let next = match self.store.map.next_leaf(layer, from / REGIONS) {
                Next::Leaf(leaf) if from < end => leaf,
                Next::Missing(page) if from < end => {
                    self.fetch(mem, now, page, Waiter::Job);
                    return Ok(None);
                }
                Next::Lost(next) if from < end => {
                    walk.next = next.saturating_mul(REGIONS);
                    continue;
                }
                _ => {
                    *walk = Walk { layer, at: walk.at + 1, ..Walk::default() };
                    continue;
                }
            };
            if let Look::Missing(page @ PageId::Leaf(..)) = self.store.map.look(layer, next) {
                self.fetch(mem, now, page, Waiter::Job);
                return Ok(None);
            }
            let after = (next + 1).saturating_mul(REGIONS);
            for region in from.max(next * REGIONS)..end.min(after) {
                self.clean_region(layer, region);
            }
            walk.next = after;
        }
        self.again();
        Ok(None)
    }
}

fn walk_of(stage: &mut Stage, layer: u32) -> &mut Walk {
    if !matches!(stage, Stage::Walk(walk) if walk.layer == layer) {
        *stage = Stage::Walk(Walk { layer, ..Walk::default() });
    }
    let Stage::Walk(walk) = stage else { unreachable!("just made") };
    walk
}

/// Regions of several lists, ascending and each once.
fn united(mut found: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    let apart = |pair: &[(u32, u32)]| pair[0].0 + pair[0].1 <= pair[1].0;
    if found.windows(2).all(apart) {
        return found;
    }
    found.sort_unstable();
    let mut united = Vec::<(u32, u32)>::new();
    for (first, count) in found {
        match united.last_mut() {
            Some((from, have)) if *from + *have >= first => {
                *have = (*have).max(first + count - *from);
            }
            _ => united.push((first, count)),
        }
    }
    united
}

/// Adds regions to a list, neighbours together.
fn add(found: &mut Vec<(u32, u32)>, region: u32, count: u32) {
    match found.last_mut() {
        Some((first, have)) if *first + *have == region => *have += count,
        _ => found.push((region, count)),
    }
}

#[cfg(test)]
mod tests;
