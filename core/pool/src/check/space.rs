//! Space: what nobody owns is free, and each figure is what the maps come to.
//!
//! | figure | is counted from |
//! |---|---|
//! | total | the slabs, as the superblock's segments are cut |
//! | used, free | the clusters in leaves, and those of pages |
//! | pages | the clusters that pointers to pages lead into, and those whose first page says so |
//! | quarantined | what waits for its Free to be settled, and what is being discarded |
//! | reserved | the superblock |
//! | promised | the sizes of thick replicas, and the clusters in their leaves |
//! | granted | the writes in work |
//!
//! So the bitmaps are compared with the walk in two ways: bit by bit, and by their number. A page
//! of the maps that is lost hides what it owns: then of what only it can tell nothing is said.

use alloc::vec::Vec;

use super::{Check, Figure, Finding};
use crate::drive::{Buffers, Image};
use crate::layout::CLUSTER_BLOCKS;
use crate::write::bits;

/// Clusters that were counted.
#[derive(Clone, Copy, Default)]
struct Counted {
    all: u64,
    used: u64,
}

impl<M: Buffers, I: Image> Check<'_, M, I> {
    /// What nobody owns is free, and the figures are right.
    pub(super) fn space(&mut self) {
        let mut leaked = Vec::new();
        let mut counted = Counted::default();
        let store = self.store();
        for (slab, (held, seen)) in (0u32..).zip(store.space.slabs.iter().zip(&self.seen)) {
            counted.all += u64::from(held.clusters);
            for (word, (used, seen)) in (0u32..).zip(held.bits.get().iter().zip(seen)) {
                counted.used += u64::from(seen.count_ones());
                for bit in bits(used & !seen) {
                    let cluster = slab * store.layout.slab_clusters + word * 64 + bit;
                    leaked.push(store.layout.cluster(cluster));
                }
            }
        }
        let whole = store.map.lost.is_empty();
        if whole {
            leaked.into_iter().for_each(|device| self.tell(Finding::Leaked { device }));
        }
        let walked = |figure: Figure| matches!(figure, Figure::Used | Figure::Pages | Figure::Free);
        for (figure, says, counted) in self.figures(counted) {
            if says != counted && (whole || !walked(figure)) {
                self.tell(Finding::Space { figure, says, counted });
            }
        }
    }

    /// Each figure, as the pool has it and as it was counted.
    fn figures(&self, counted: Counted) -> [(Figure, u64, u64); 9] {
        let (pool, space) = (&*self.pool, &self.store().space);
        let newest = space.quarantine.iter().filter(|freed| space.is_newest(freed)).count() as u64;
        let held = newest + u64::from(space.discarding);
        let free = counted.all.saturating_sub(counted.used + held);
        let by_slab: u64 = space.slabs.iter().map(|slab| u64::from(slab.used)).sum();
        let granted = pool.pieces.iter().filter(|(_, piece)| piece.granted).count() as u64;
        let reserved = u64::from(pool.superblock.reserve_clusters.get());
        [
            (Figure::Total, space.total, counted.all),
            (Figure::Used, space.used, counted.used),
            (Figure::Used, by_slab, counted.used),
            (Figure::Pages, space.maps, self.page_clusters),
            (Figure::Quarantined, space.quarantined(), held),
            (Figure::Free, space.free(), free),
            (Figure::Reserved, space.reserve, reserved),
            (Figure::Promised, space.promised, self.promised),
            (Figure::Granted, space.granted, granted),
        ]
    }

    /// Clusters that are set aside for a layer which has so many.
    pub(super) fn unused(&self, layer: u32, clusters: u64) -> u64 {
        let state = self.store().map.layers.get(&layer).map(|layer| layer.state());
        let thick = state.filter(|state| state.thick && !state.deleted);
        let all = thick.map_or(0, |state| state.blocks.div_ceil(CLUSTER_BLOCKS));
        all.saturating_sub(clusters)
    }
}
