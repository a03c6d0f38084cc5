//! Blocks: each is owned once, has a place, and matches its checksum.

use super::{Check, Finding};
use crate::drive::{Buffers, Image};
use crate::layout::{BLOCK, CLUSTER, CLUSTER_BLOCKS, LEAF_CLUSTERS, REGION_CLUSTERS};
use crate::op::Waiter;
use crate::store::{binding, mask};
use crate::sums::Sum;
use crate::write::bits;

/// A cluster of a layer.
#[derive(Clone, Copy)]
struct Place {
    layer: u32,
    lcluster: u32,
    phys: u32,
    own: u64,
    /// Its checksums may lag.
    open: bool,
}

impl<M: Buffers, I: Image> Check<'_, M, I> {
    /// The clusters of a leaf that is in memory; tells how many it owns.
    pub(super) fn leaf(&mut self, layer: u32, index: u32) -> u64 {
        let Some(held) = self.store().map.leaves.get(&(layer, index)) else { return 0 };
        let map = held.page.get().clone();
        let blocks = self.store().map.layers.get(&layer).map_or(0, |l| l.state().blocks);
        let mut counted = 0;
        for at in 0..LEAF_CLUSTERS as usize {
            let lcluster = index * LEAF_CLUSTERS as u32 + at as u32;
            let offset = u64::from(lcluster) * CLUSTER;
            let inside = blocks.saturating_sub(u64::from(lcluster) * CLUSTER_BLOCKS);
            let within = mask(0, u32::try_from(inside.min(CLUSTER_BLOCKS)).unwrap_or(64));
            let own = map.own[at];
            let Some(phys) = map.phys(at) else {
                if own != 0 {
                    self.tell(Finding::Homeless { layer, offset });
                }
                continue;
            };
            counted += 1;
            if own & !within != 0 {
                self.tell(Finding::Homeless { layer, offset });
            }
            let device = self.store().layout.cluster(phys);
            if !self.own(phys) {
                self.tell(Finding::Shared { device, layer, offset });
            }
            let space = &self.store().space;
            if !space.is_used(phys) || space.is_held(phys) || space.is_map(phys) {
                self.tell(Finding::Unmarked { device, layer, offset });
            }
            let open = map.open >> (at as u64 / REGION_CLUSTERS) & 1 != 0;
            if self.scope.data {
                self.cluster(Place { layer, lcluster, phys, own, open });
            }
        }
        counted
    }

    /// Compares the blocks of a cluster.
    fn cluster(&mut self, place: Place) {
        let Some(held) = self.store().map.layers.get(&place.layer) else { return };
        let tree = held.state().tree;
        let device = self.store().layout.cluster(place.phys);
        let mut buffer = core::mem::take(&mut self.buffer);
        let unreadable = self.read_cluster(device, place.own, &mut buffer);
        for at in bits(place.own) {
            let lblock = u64::from(place.lcluster) * CLUSTER_BLOCKS + u64::from(at);
            let block = &buffer[at as usize * BLOCK as usize..][..BLOCK as usize];
            let crc = M::crc_bytes(block, 0) ^ binding(tree, lblock);
            let stored = self.sum(u64::from(place.phys) * CLUSTER_BLOCKS + u64::from(at));
            self.report.blocks += 1;
            let bad = unreadable >> at & 1 != 0;
            if !bad && stored == Some(crc) {
                continue;
            }
            if place.open && !bad {
                self.report.unverified += 1;
                continue;
            }
            let device = device + u64::from(at) * BLOCK;
            let finding = Finding::Block { device, layer: place.layer, offset: lblock * BLOCK };
            self.tell(finding);
        }
        self.buffer = buffer;
    }

    /// Reads the blocks of a cluster that are owned; tells which cannot be read.
    fn read_cluster(&mut self, device: u64, own: u64, buffer: &mut [u8]) -> u64 {
        if own == 0 {
            return 0;
        }
        let first = own.trailing_zeros() as usize * BLOCK as usize;
        let end = (64 - own.leading_zeros() as usize) * BLOCK as usize;
        if self.image.read(device + first as u64, &mut buffer[first..end]).is_ok() {
            return 0;
        }
        let mut bad = 0;
        for at in bits(own) {
            let from = at as usize * BLOCK as usize;
            let block = &mut buffer[from..from + BLOCK as usize];
            if self.image.read(device + from as u64, block).is_err() {
                bad |= 1 << at;
            }
        }
        bad
    }

    /// The checksum of a block on the device, if it is known.
    fn sum(&mut self, block: u64) -> Option<u32> {
        for _ in 0..2 {
            match self.pool.store.sums.get(&self.pool.store.layout, block) {
                Sum::Known(crc) => return Some(crc),
                Sum::Unknown => return None,
                Sum::Missing(page) => {
                    self.pool.fetch_sums(self.mem, self.now, page, Waiter::Job);
                    self.run();
                }
            }
        }
        None
    }
}
