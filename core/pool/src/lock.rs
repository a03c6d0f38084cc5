//! Locks of blocks: overlapping writes to a block queue here.
//!
//! Invariants:
//! 1. A block is locked by at most one piece.
//! 2. Who waits is served in order: nobody passes one that waits for the same blocks.
//! 3. Who has a cluster pinned holds a lock of some of its blocks.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::Key;
use hashbrown::HashMap;

use crate::hash::Fixed;

/// Locked blocks of a cluster, and who waits for them.
#[derive(Debug, Default)]
struct Held {
    mask: u64,
    /// Of those who hold a lock, how many need the cluster to stay where it is.
    pins: u32,
    waiting: VecDeque<(Key, u64)>,
}

/// All locks, by layer and cluster.
#[derive(Debug)]
pub(crate) struct Locks {
    clusters: HashMap<(u32, u32), Held, Fixed>,
    /// Lists to be used again: who waits allocates nothing.
    spare: Vec<VecDeque<(Key, u64)>>,
}

/// Empty lists that are kept.
const SPARE_MAX: usize = 64;

impl Locks {
    /// No lock.
    pub(crate) fn new() -> Self {
        Self { clusters: HashMap::with_hasher(Fixed), spare: Vec::with_capacity(SPARE_MAX) }
    }

    /// Locks blocks for a piece, or lets it wait.
    pub(crate) fn lock(&mut self, layer: u32, lcluster: u32, mask: u64, piece: Key) -> bool {
        let held = self.clusters.entry((layer, lcluster)).or_default();
        let waited = held.waiting.iter().any(|(_, other)| other & mask != 0);
        if held.mask & mask != 0 || waited {
            if held.waiting.capacity() == 0 {
                held.waiting = self.spare.pop().unwrap_or_default();
            }
            held.waiting.push_back((piece, mask));
            return false;
        }
        held.mask |= mask;
        true
    }

    /// Locks blocks for background work, unless anybody has or wants one of them.
    pub(crate) fn try_lock(&mut self, layer: u32, lcluster: u32, mask: u64) -> bool {
        let held = self.clusters.entry((layer, lcluster)).or_default();
        let wanted = held.waiting.iter().fold(held.mask, |all, (_, other)| all | other);
        if wanted & mask != 0 {
            return false;
        }
        held.mask |= mask;
        true
    }

    /// Unlocks blocks, and locks them for those who waited and can go on now.
    pub(crate) fn unlock(
        &mut self,
        layer: u32,
        lcluster: u32,
        mask: u64,
        mut granted: impl FnMut(Key),
    ) {
        let Some(held) = self.clusters.get_mut(&(layer, lcluster)) else { return };
        debug_assert_eq!(held.mask & mask, mask, "what is unlocked was locked");
        held.mask &= !mask;
        let mut passed = 0;
        let mut at = 0;
        while at < held.waiting.len() {
            let (piece, wanted) = held.waiting[at];
            if held.mask & wanted == 0 && passed & wanted == 0 {
                held.mask |= wanted;
                held.waiting.remove(at);
                granted(piece);
            } else {
                passed |= wanted;
                at += 1;
            }
        }
        if held.mask == 0
            && held.waiting.is_empty()
            && let Some(held) = self.clusters.remove(&(layer, lcluster))
            && held.waiting.capacity() > 0
            && self.spare.len() < SPARE_MAX
        {
            self.spare.push(held.waiting);
        }
    }

    /// Who holds a lock of some of a cluster's blocks needs the cluster itself to stay; tells
    /// whether there is such a lock.
    pub(crate) fn pin(&mut self, layer: u32, lcluster: u32) -> bool {
        let held = self.clusters.get_mut(&(layer, lcluster));
        held.map(|held| held.pins += 1).is_some()
    }

    /// It does not any more.
    pub(crate) fn unpin(&mut self, layer: u32, lcluster: u32) {
        if let Some(held) = self.clusters.get_mut(&(layer, lcluster)) {
            held.pins -= 1;
        }
    }

    /// Whether a cluster must stay where it is.
    pub(crate) fn is_pinned(&self, layer: u32, lcluster: u32) -> bool {
        self.clusters.get(&(layer, lcluster)).is_some_and(|held| held.pins > 0)
    }

    /// Whether any of the blocks is locked.
    pub(crate) fn is_locked(&self, layer: u32, lcluster: u32, mask: u64) -> bool {
        !self.clusters.is_empty()
            && self.clusters.get(&(layer, lcluster)).is_some_and(|held| held.mask & mask != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_work_passes_nobody() {
        let key = |index| Key { index, generation: 1 };
        let mut locks = Locks::new();
        assert!(locks.lock(1, 2, 0b0011, key(1)));
        assert!(!locks.lock(1, 2, 0b0110, key(2)));
        assert!(!locks.try_lock(1, 2, 0b0100), "somebody waits for it");
        assert!(locks.try_lock(1, 2, 0b1000));
        locks.unlock(1, 2, 0b1000, |_| ());
        locks.unlock(1, 2, 0b0011, |_| ());
        locks.unlock(1, 2, 0b0110, |_| ());
        assert!(locks.clusters.is_empty());
    }

    #[test]
    fn who_waits_is_served_in_order() {
        let key = |index| Key { index, generation: 1 };
        let mut locks = Locks::new();
        assert!(locks.lock(1, 2, 0b0011, key(1)));
        assert!(!locks.lock(1, 2, 0b0110, key(2)));
        assert!(!locks.lock(1, 2, 0b0100, key(3)), "not past one that waits for the same block");
        assert!(locks.lock(1, 2, 0b1000, key(4)));
        let mut granted = Vec::new();
        locks.unlock(1, 2, 0b0011, |k| granted.push(k.index));
        assert_eq!(granted, [2]);
        locks.unlock(1, 2, 0b0110, |k| granted.push(k.index));
        assert_eq!(granted, [2, 3]);
        locks.unlock(1, 2, 0b0100, |_| ());
        locks.unlock(1, 2, 0b1000, |_| ());
        assert!(locks.clusters.is_empty());
    }
}
