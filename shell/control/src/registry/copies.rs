//! What replicas keep of records: whether the store is older than they are, and what it is
//! recovered from.

use std::collections::BTreeMap;
use std::sync::Arc;

use braid_api::control as wire;
use braid_nexus::recovery::Heard;
use braid_nexus::{Record, Uuid};

use super::{Engine, Inside};
use crate::identity;
use crate::store::State;

/// Reads the copies that an engine reports.
pub(super) fn read(state: &wire::State) -> BTreeMap<Uuid, Option<Arc<Record>>> {
    let copy = |replica: &wire::ReplicaState| {
        let uuid = identity::parse("replica", &replica.uuid).ok()?;
        // A copy that cannot be read says nothing, as none would.
        Some((uuid, Record::decode(&replica.record).ok().map(Arc::new)))
    };
    state.replicas.iter().filter_map(copy).collect()
}

impl Inside {
    /// Finds the volumes whose record is older than what replicas know. Once it is so, it stays so
    /// until the record is recovered: whoever knew it may be away by then.
    pub(super) fn find_stale(&mut self, store: &State) {
        let copies = self.engines.values().flat_map(|engine| engine.copies.values().flatten());
        for copy in copies {
            let record = store.volumes.get(&copy.volume).and_then(|volume| volume.record.as_ref());
            let newer = |record: &Arc<Record>| {
                copy.store == record.store && copy.newer_than(record.epoch, record.version)
            };
            if record.is_some_and(newer) && self.stale.insert(copy.volume) {
                tracing::error!(
                    volume = identity::text(&copy.volume),
                    "replicas know a newer record than the store, which was lost or restored"
                );
            }
        }
    }

    /// What replicas of a volume say: their names, fences and copies. What was said by an engine
    /// that is away may not be so any more.
    pub(crate) fn heard(&self, volume: &Uuid, places: &[Uuid]) -> Vec<Said> {
        let mut said = Vec::new();
        for (engine, known) in self.engines.iter().filter(|(_, known)| known.is_connected()) {
            for state in &known.state.replicas {
                let Ok(replica) = identity::parse("replica", &state.uuid) else { continue };
                let copy = known.copies.get(&replica).cloned().flatten();
                let of_it = copy.as_ref().is_some_and(|copy| copy.volume == *volume);
                if of_it || places.contains(&replica) {
                    let pool = state.pool.clone();
                    let engine = *engine;
                    said.push(Said { replica, engine, pool, fence: state.fence, copy });
                }
            }
        }
        said
    }
}

/// What a replica says.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) replica: Uuid,
    pub(crate) engine: Uuid,
    pub(crate) pool: String,
    fence: u64,
    pub(crate) copy: Option<Arc<Record>>,
}

impl Said {
    pub(crate) fn heard(&self) -> Heard<'_> {
        Heard { replica: self.replica, fence: self.fence, copy: self.copy.as_deref() }
    }
}

impl Engine {
    pub(crate) const fn is_connected(&self) -> bool {
        self.sender.is_some()
    }
}
