//! A layer's fields, as its page and the journal hold them.

use alloc::string::String;
use alloc::vec::Vec;

use arrayvec::ArrayVec;
use braid_block::BlockSize;

use crate::layout::{CLUSTER_BLOCKS, Cell, LEAF_CLUSTERS, LayerFields, Registrant};
use crate::map::{LEAVES_MAX, LayerState};
use crate::request::{Fence, Reservation};

/// A layer's fields in memory, unless they make no sense. Where its pages are is not among them.
pub(crate) fn layer_state(fields: &LayerFields) -> Option<LayerState> {
    let blocks = fields.blocks.get();
    let clusters = fields.clusters.get();
    if blocks > LEAVES_MAX * LEAF_CLUSTERS * CLUSTER_BLOCKS || clusters >= 1 << 31 {
        return None;
    }
    let parent = fields.parent.get().checked_sub(1);
    if parent.is_some_and(|id| id > Cell::LAYER_MAX) {
        return None;
    }
    let name = fields.name.get(..usize::from(fields.name_len))?;
    Some(LayerState {
        uuid: fields.uuid,
        source: fields.source,
        tree: fields.tree.get(),
        blocks,
        clusters,
        created: fields.created.get(),
        parent,
        sealed: truth(fields.sealed)?,
        thick: truth(fields.thick)?,
        member: truth(fields.member)?,
        deleted: truth(fields.deleted)?,
        block: BlockSize::from_bytes(1u32.checked_shl(u32::from(fields.block_shift))?)?,
        name: String::from(core::str::from_utf8(name).ok()?),
        fence: Fence { epoch: fields.epoch.get(), owner: fields.fence_owner },
        reservation: reservation(fields)?,
        flush: fields.flush.get(),
        birth: fields.birth.get(),
        record: 0,
        directories: Vec::new(),
    })
}

/// A layer's fields as page and journal hold them.
pub(crate) fn layer_fields(state: &LayerState) -> LayerFields {
    let name_len = state.name.floor_char_boundary(NAME_MAX);
    let mut name = [0; NAME_MAX];
    name[..name_len].copy_from_slice(&state.name.as_bytes()[..name_len]);
    let held = &state.reservation;
    let mut registrants = [Registrant { key: 0.into(), host: [0; 16] }; REGISTRANTS_MAX];
    for (raw, (key, host)) in registrants.iter_mut().zip(&held.registrants) {
        *raw = Registrant { key: (*key).into(), host: *host };
    }
    LayerFields {
        uuid: state.uuid,
        source: state.source,
        tree: state.tree.into(),
        blocks: state.blocks.into(),
        clusters: state.clusters.into(),
        created: state.created.into(),
        parent: state.parent.map_or(0, |id| id + 1).into(),
        sealed: state.sealed.into(),
        thick: state.thick.into(),
        member: state.member.into(),
        deleted: state.deleted.into(),
        block_shift: byte(state.block.shift()),
        name_len: byte(name_len),
        reservation: held.kind,
        holder: held.holder.map_or(0, |at| at.saturating_add(1)),
        generation: held.generation.into(),
        registrant_count: u32::from(byte(held.registrants.len())).into(),
        epoch: state.fence.epoch.into(),
        fence_owner: state.fence.owner,
        flush: state.flush.into(),
        birth: state.birth.into(),
        name,
        registrants,
    }
}

fn reservation(fields: &LayerFields) -> Option<Reservation> {
    let count = usize::try_from(fields.registrant_count.get()).ok()?;
    let holder = fields.holder.checked_sub(1);
    if holder.is_some_and(|at| usize::from(at) >= count) {
        return None;
    }
    let raw = fields.registrants.get(..count)?;
    let registrants: ArrayVec<_, REGISTRANTS_MAX> =
        raw.iter().map(|one| (one.key.get(), one.host)).collect();
    let generation = fields.generation.get();
    Some(Reservation { kind: fields.reservation, holder, generation, registrants })
}

const fn truth(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// A number that is small by construction.
fn byte<T: TryInto<u8>>(n: T) -> u8 {
    n.try_into().unwrap_or(0)
}

/// Bytes of a name.
const NAME_MAX: usize = 64;
/// Hosts that can register.
const REGISTRANTS_MAX: usize = 16;
