//! One volume, as this engine has a part in it.

use braid_api::control as wire;
use braid_nexus::record::Uuid;
use braid_nexus::{Step, View};

use crate::manage::names::{self, Names};

/// This engine's part in a volume.
#[derive(Debug)]
pub(super) struct Part {
    /// The shard that serves it.
    pub(super) shard: u16,
    pub(super) names: Names,
    /// Replicas, and the portals that were last told to the shard.
    pub(super) places: Vec<(Uuid, Option<std::net::SocketAddr>)>,
    /// A take-over was ordered, and has not ended.
    pub(super) taking_over: bool,
    /// Where it stood when it was last looked at.
    pub(super) view: View,
    /// The replica that returns, and regions copied and to copy.
    pub(super) returning: Option<Returning>,
}

/// How far a return is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Returning {
    pub(super) slot: u8,
    pub(super) regions: u64,
}

/// Bytes of a region.
const REGION_BYTES: u64 = braid_nexus::wire::REGION;

impl Part {
    pub(super) fn new(shard: u16, volume: Uuid) -> Self {
        Self {
            shard,
            names: Names::of(volume),
            places: Vec::new(),
            taking_over: false,
            view: View::default(),
            returning: None,
        }
    }

    /// Takes what a step of a return tells.
    pub(super) fn step(&mut self, slot: u8, step: Step) {
        self.returning = match step {
            Step::Member | Step::Failed => None,
            Step::Copying { regions } => Some(Returning { slot, regions }),
            Step::Fencing | Step::Snapshots | Step::Attached | Step::Adding => {
                Some(self.returning.unwrap_or(Returning { slot, regions: 0 }))
            }
        };
    }

    /// As the control plane is told.
    pub(super) fn path(&self, volume: Uuid) -> wire::Path {
        let View { epoch, owner, serving, record, members, .. } = &self.view;
        let access = if *serving { wire::Access::Optimized } else { wire::Access::Inaccessible };
        let named = |slot: u8| record.as_ref()?.replica(slot).map(|r| names::text(r.uuid));
        let relied_on = (0..8).filter(|slot| members & 1 << slot != 0);
        wire::Path {
            volume: names::text(volume),
            nqn: self.names.nqn.clone(),
            access: access.into(),
            epoch: *epoch,
            owner: if *epoch == 0 { String::new() } else { names::text(*owner) },
            taking_over: self.taking_over,
            members: relied_on.filter_map(named).collect(),
            returning: self.returning.and_then(|r| named(r.slot)).unwrap_or_default(),
            copied_bytes: 0,
            to_copy_bytes: self.returning.map_or(0, |r| r.regions * REGION_BYTES),
        }
    }
}
