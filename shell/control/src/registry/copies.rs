//! What replicas keep of records: whether the store is older than they are, and what it is
//! recovered from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use braid_api::control as wire;
use braid_nexus::recovery::Heard;
use braid_nexus::{Record, Uuid};

use super::{Engine, Inside};
use crate::identity;
use crate::store::State;

/// Whether a copy knows more than the record: of the same store, or of the one that the record was
/// recovered from, as long as its first owner did not find all.
fn is_newer(copy: &Record, record: &Record) -> bool {
    let from = record.recovered.filter(|from| from.pending && from.store == copy.store);
    let missed = from.is_some_and(|from| copy.newer_than(from.newest.0, from.newest.1));
    missed || (copy.store == record.store && copy.newer_than(record.epoch, record.version))
}

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
            let newer = |record: &Arc<Record>| is_newer(copy, record);
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
        let connected = || self.engines.iter().filter(|(_, known)| known.is_connected());
        // One that was made anew has no copy, or none that counts: others tell whose it is.
        let copies = connected().flat_map(|(_, known)| known.copies.values().flatten());
        let copies = copies.filter(|copy| copy.volume == *volume);
        let named = copies.flat_map(|copy| copy.slots.iter().flatten());
        let named: BTreeSet<Uuid> = named.map(|replica| replica.uuid).collect();
        for (engine, known) in connected() {
            for state in &known.state.replicas {
                let Ok(replica) = identity::parse("replica", &state.uuid) else { continue };
                let copy = known.copies.get(&replica).cloned().flatten();
                let of_it = copy.as_ref().is_some_and(|copy| copy.volume == *volume);
                if of_it || places.contains(&replica) || named.contains(&replica) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use braid_nexus::record::Recovered;

    #[test]
    fn a_copy_is_newer_by_its_store_and_that_from_which_the_record_was_recovered() {
        let (old, new) = ([1; 16], [2; 16]);
        let copy = |store, epoch, version| Record { store, epoch, version, ..Record::default() };
        let record = copy(new, 5, 9);
        assert!(is_newer(&copy(new, 5, 10), &record) && is_newer(&copy(new, 6, 1), &record));
        assert!(!is_newer(&copy(new, 5, 9), &record) && !is_newer(&copy(new, 4, 99), &record));
        assert!(!is_newer(&copy(old, 9, 99), &record), "another store says nothing of this one");
        let from = |pending| Some(Recovered { store: old, newest: (4, 7), pending });
        let recovered = |pending| Record { recovered: from(pending), ..record.clone() };
        assert!(is_newer(&copy(old, 4, 8), &recovered(true)), "it was not heard in time");
        assert!(!is_newer(&copy(old, 4, 7), &recovered(true)));
        assert!(!is_newer(&copy(old, 4, 8), &recovered(false)), "all are fenced since");
    }
}
