//! Lists, and what the pool says about itself.

use alloc::string::String;
use alloc::vec::Vec;

use crate::hash::mix;
use crate::layout::{BLOCK, CLEAN, CLUSTER};
use crate::map::{Layer, Leaf};
use crate::{Handle, LayerInfo, Pool, PoolInfo};

impl Pool {
    /// All replicas, clones and snapshots.
    pub fn layers(&self) -> impl Iterator<Item = LayerInfo> {
        self.store.map.handles.iter().filter_map(|handle| self.layer(handle))
    }

    /// A replica or snapshot.
    #[must_use]
    pub fn layer(&self, handle: Handle) -> Option<LayerInfo> {
        let id = self.store.map.layer_of(handle)?;
        let layer = self.store.map.layers.get(&id)?;
        let state = layer.state();
        Some(LayerInfo {
            handle,
            uuid: state.uuid,
            name: state.name.clone(),
            snapshot: state.sealed,
            source: (state.source != [0; 16]).then_some(state.source),
            bytes: state.blocks * BLOCK,
            block: state.block,
            thick: state.thick,
            member: state.member,
            created: state.created,
            instance: self.instance(state.birth),
            flush_number: state.flush,
            own: state.clusters * CLUSTER,
            shared: self.beneath_of(layer).saturating_mul(CLUSTER),
            children: layer.children,
        })
    }

    /// The snapshots that were taken of a replica and are still there, oldest first.
    #[must_use]
    pub fn snapshots(&self, replica: Handle) -> Vec<[u8; 16]> {
        let layers = &self.store.map.layers;
        let mut found = Vec::new();
        let Some(head) = self.store.map.layer_of(replica).and_then(|id| layers.get(&id)) else {
            return found;
        };
        let (uuid, mut next) = (head.state().uuid, head.state().parent);
        // No longer than there are layers, whatever the disk says.
        for _ in 0..layers.len() {
            let Some(layer) = next.and_then(|id| layers.get(&id)) else { break };
            next = layer.state().parent;
            if layer.state().source != uuid {
                // What a clone was made of is another replica's.
                break;
            }
            if !layer.state().deleted {
                found.push(layer.state().uuid);
            }
        }
        found.reverse();
        found
    }

    /// The pool as a whole.
    #[must_use]
    pub fn info(&self) -> PoolInfo {
        let (space, map, block) = (&self.store.space, &self.store.map, &self.superblock);
        let owner = block.owner.split(|byte| *byte == 0).next().unwrap_or(&[]);
        let heads = map.layers.values().map(Layer::state);
        let heads = heads.filter(|state| !state.deleted && !state.sealed);
        PoolInfo {
            uuid: block.uuid,
            version: block.version.get(),
            features: block.features.get(),
            incarnation: block.incarnation.get(),
            owner: String::from_utf8_lossy(owner).into_owned(),
            clean: block.flags.get() & CLEAN != 0,
            capacity: space.total * CLUSTER,
            data: space.used.saturating_sub(space.maps) * CLUSTER,
            maps: space.maps * CLUSTER,
            quarantine: space.quarantined() * CLUSTER,
            reserve: space.reserve * CLUSTER,
            promised: space.promised * CLUSTER,
            available: space.available() * CLUSTER,
            committed: heads.map(|state| state.blocks * BLOCK).sum(),
            journal_blocks: block.ring_blocks.get(),
            journal_used: u32::try_from(self.journal.used()).unwrap_or(u32::MAX),
            leaves: u32::try_from(map.leaves.len()).unwrap_or(u32::MAX),
            memory: self.memory(),
            unverified_regions: map
                .leaves
                .values()
                .map(|leaf| u64::from(leaf.unadopted.count_ones()))
                .sum(),
            scrub: self.scrub_progress(),
        }
    }

    /// The instance of a replica that was born so.
    fn instance(&self, birth: u64) -> u64 {
        let session = u128::from_le_bytes(self.superblock.session);
        mix(mix(session as u64, (session >> 64) as u64), birth)
    }

    /// Clusters of the layers below one.
    fn beneath_of(&self, layer: &Layer) -> u64 {
        let layers = &self.store.map.layers;
        let mut beneath = 0;
        let mut next = layer.state().parent;
        // No longer than there are layers, whatever the disk says.
        for _ in 0..layers.len() {
            let Some(parent) = next.and_then(|id| layers.get(&id)) else { break };
            beneath += parent.state().clusters;
            next = parent.state().parent;
        }
        beneath
    }

    /// Bytes of memory for maps, checksums and caches, about.
    fn memory(&self) -> u64 {
        let map = &self.store.map;
        let leaf = size_of::<Leaf>() + size_of::<(u32, u32)>() + size_of::<usize>();
        let pages = map.directories.len() + map.tables.len() + map.records.len();
        let slabs = 2 * self.store.space.slabs.len();
        let maps = map.leaves.len() * leaf + (pages + slabs) * BLOCK as usize;
        let layers = map.layers.len() * size_of::<Layer>();
        (maps + layers + map.chains.memory()) as u64 + self.store.sums.memory()
    }
}
