//! Making replicas and clones, and making them larger.

use alloc::string::{String, ToString};

use braid_block::{BlockSize, Instant, Memory};
use zerocopy::IntoBytes;

use super::{IMAGE_CELLS, NAME_MAX, Progress, image_of};
use crate::codec::layer_fields;
use crate::layout::{BLOCK, CLUSTER_BLOCKS, LEAF_CLUSTERS};
use crate::map::{LEAVES_MAX, LayerState};
use crate::request::{Create, Fence, Reservation};
use crate::{Done, Failure, Pool};

/// Blocks of a layer, at most.
const BLOCKS_MAX: u64 = LEAVES_MAX * LEAF_CLUSTERS * CLUSTER_BLOCKS;

impl Pool {
    pub(super) fn create_replica<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        create: &Create,
    ) -> Progress<Done> {
        if create.name.len() > NAME_MAX {
            return Err(Failure::Invalid);
        }
        let blocks = blocks_of(create.bytes)?;
        if let Some(layer) = self.served(&create.uuid) {
            // A snapshot made a thick replica thin since.
            let same = self.state_of(layer).is_some_and(|state| {
                let kind = !state.sealed && state.source == [0; 16] && state.block == create.block;
                let thick = state.thick == create.thick || state.parent.is_some();
                kind && thick && state.name == create.name && state.blocks == blocks
            });
            return self.repeated(layer, same);
        }
        let clusters = if create.thick { blocks.div_ceil(CLUSTER_BLOCKS) } else { 0 };
        if self.set_aside(clusters)?.is_none() {
            return Ok(None);
        }
        let thick = create.thick;
        let mut state = self.blank(create.uuid, blocks, create.block);
        state.thick = thick;
        state.created = create.created;
        state.name.clone_from(&create.name);
        self.make_head(mem, now, &state)
    }

    pub(super) fn clone_snapshot<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        snapshot: &[u8; 16],
        uuid: &[u8; 16],
        name: &str,
        created: u64,
    ) -> Progress<Done> {
        if name.len() > NAME_MAX {
            return Err(Failure::Invalid);
        }
        if let Some(layer) = self.served(uuid) {
            let same = self.state_of(layer).is_some_and(|state| {
                !state.sealed && state.source == *snapshot && state.name == name
            });
            return self.repeated(layer, same);
        }
        let parent = self.served(snapshot).ok_or(Failure::NotFound)?;
        let of = self.state_of(parent).ok_or(Failure::NotFound)?;
        if !of.sealed {
            return Err(Failure::Invalid);
        }
        let (tree, blocks, block) = (of.tree, of.blocks, of.block);
        let mut state = self.blank(*uuid, blocks, block);
        state.tree = tree;
        state.parent = Some(parent);
        state.source = *snapshot;
        state.created = created;
        state.name = name.to_string();
        self.make_head(mem, now, &state)
    }

    pub(super) fn resize(&mut self, uuid: &[u8; 16], bytes: u64) -> Progress<Done> {
        let blocks = blocks_of(bytes)?;
        let (layer, state) = self.replica(uuid)?;
        if blocks < state.blocks {
            return Err(Failure::Invalid);
        }
        let mut state = state.clone();
        let before = state.promised();
        let done = Done { handle: self.find(uuid), ..Done::default() };
        if blocks == state.blocks {
            return Ok(Some(done));
        }
        state.blocks = blocks;
        let more = state.promised() - before;
        if self.set_aside(more)?.is_none() {
            return Ok(None);
        }
        self.store.space.promised += more;
        self.record_group(&[(image_of(layer), layer_fields(&state).as_bytes())]);
        Ok(Some(done))
    }

    /// Answers a command whose identity is there already.
    pub(super) fn repeated(&self, layer: u32, same: bool) -> Progress<Done> {
        let handle = self.store.map.layers.get(&layer).and_then(|layer| layer.handle);
        if same { Ok(Some(Done { handle, ..Done::default() })) } else { Err(Failure::Exists) }
    }

    /// Whether so many clusters can be promised; space that is in quarantine is waited for.
    fn set_aside(&mut self, clusters: u64) -> Progress<()> {
        let available = self.store.space.available();
        if clusters <= available {
            return Ok(Some(()));
        }
        if clusters <= available + self.store.space.quarantined() {
            self.space_wanted();
            return Ok(None);
        }
        Err(Failure::NoSpace)
    }

    /// A head without anything.
    fn blank(&mut self, uuid: [u8; 16], blocks: u64, block: BlockSize) -> LayerState {
        LayerState {
            uuid,
            source: [0; 16],
            tree: self.random(),
            blocks,
            clusters: 0,
            created: 0,
            parent: None,
            sealed: false,
            thick: false,
            member: false,
            deleted: false,
            block,
            name: String::new(),
            fence: Fence::default(),
            reservation: Reservation::default(),
            flush: 0,
            birth: self.random(),
            record: 0,
            directories: alloc::vec::Vec::new(),
        }
    }

    fn make_head<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        state: &LayerState,
    ) -> Progress<Done> {
        let Some(id) = self.place_layer(mem, now, IMAGE_CELLS)? else { return Ok(None) };
        self.record_group(&[(image_of(id), layer_fields(state).as_bytes())]);
        self.store.space.promised += state.promised();
        let handle = self.store.map.serve(id);
        Ok(Some(Done { handle: Some(handle), ..Done::default() }))
    }
}

/// A size in blocks.
fn blocks_of(bytes: u64) -> Result<u64, Failure> {
    match bytes.div_ceil(BLOCK) {
        0 => Err(Failure::Invalid),
        blocks if blocks > BLOCKS_MAX => Err(Failure::Limit),
        blocks => Ok(blocks),
    }
}
