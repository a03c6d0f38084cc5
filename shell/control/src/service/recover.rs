//! A record is made anew from what replicas know.

use std::collections::BTreeMap;

use braid_api::control as wire;
use braid_nexus::recovery::{Heard, Recovery, recover};
use braid_nexus::{Record, Uuid};
use tonic::Status;

use super::refused;
use crate::identity;
use crate::registry::{Control, Said};
use crate::store::{Change, Done, Place, Snapshot, SnapshotStage, Spec, Stage, Stay, unix_ms};

impl Control {
    /// `Recover`.
    pub(crate) async fn recover(
        &self,
        request: wire::RecoverRequest,
    ) -> Result<wire::Volume, Status> {
        let wire::RecoverRequest { volume: reference, force } = request;
        // One that the store does not know is named by its uuid.
        let volume = match self.reference(&reference) {
            Ok(volume) => volume,
            Err(missing) => identity::parse("volume", &reference).map_err(|_| missing)?,
        };
        let known = self.store.read(|state| state.volumes.get(&volume).cloned());
        let spec = known.as_ref().map(|known| known.spec.clone());
        let stored = known.and_then(|known| known.record);
        let store = self.store.read(|state| state.id);
        // A replica that its first owner meets may know more than was heard: then once again.
        let pending = stored.as_ref().and_then(|stored| stored.recovered);
        let pending = pending.is_some_and(|from| from.pending);
        if stored.is_some() && !pending && !self.is_stale(&volume) {
            return self.volume(&volume);
        }
        let places: Vec<Uuid> = match (&stored, &spec) {
            (_, Some(spec)) => spec.places.iter().map(|place| place.replica).collect(),
            (_, None) => Vec::new(),
        };
        let said = self.inside().heard(&volume, &places);
        let heard: Vec<Heard<'_>> = said.iter().map(Said::heard).collect();
        let record = match recover(&volume, &store, stored.as_deref(), &heard, force) {
            Recovery::Recovered(record) => record,
            Recovery::Waiting { missing, newest } => {
                let missing: Vec<_> = missing.iter().map(identity::text).collect();
                return Err(Status::failed_precondition(format!(
                    "these replicas were not heard of: {}; the newest copy is version {} of epoch \
                     {}, and they may know a newer one. Start their engines, or force it: what \
                     they know is lost then",
                    missing.join(", "),
                    newest.1,
                    newest.0
                )));
            }
            Recovery::Current => {
                self.inside().stale.remove(&volume);
                return self.volume(&volume);
            }
            Recovery::Unknown => {
                return Err(Status::failed_precondition(
                    "no replica that was heard of has a copy of its record",
                ));
            }
        };
        let found = found(&volume, &record, &said, self);
        let spec = spec.map_or_else(|| found.clone(), |spec| completed(&spec, &found, &record));
        let expected = stored.map(|stored| Box::new((*stored).clone()));
        let (epoch, version) = (record.epoch, record.version);
        let change = Change::Recover { spec: Box::new(spec), expected, record };
        match self.store.change(change).await.map_err(refused)? {
            Done::Done => {}
            _ => return Err(Status::unavailable("the record changed meanwhile; ask again")),
        }
        {
            let mut inside = self.inside();
            inside.stale.remove(&volume);
            inside.observed.ledgers.remove(&volume);
        }
        let how = if force { ", by force" } else { "" };
        self.store.note(volume, format!("recovered{how}: version {version} of epoch {epoch}"));
        self.volume(&volume)
    }
}

/// What was wanted of a volume when the store was copied, with what its record has since: replicas
/// that were added, and snapshots that were taken. One that was only wanted is not taken now.
fn completed(spec: &Spec, found: &Spec, record: &Record) -> Spec {
    let mut spec = spec.clone();
    for place in &found.places {
        if spec.places.iter().all(|known| known.replica != place.replica) {
            spec.places.push(place.clone());
        }
    }
    let named = |snapshot: &Snapshot| record.snapshot(&snapshot.uuid).is_some();
    spec.snapshots.retain(|known| known.stage != SnapshotStage::Wanted || named(known));
    for known in &mut spec.snapshots {
        if known.stage == SnapshotStage::Wanted {
            known.stage = SnapshotStage::Taken;
        }
    }
    spec
}

/// What is known of a volume that only its replicas know.
fn found(volume: &Uuid, record: &Record, said: &[Said], control: &Control) -> Spec {
    let by_replica: BTreeMap<Uuid, &Said> = said.iter().map(|said| (said.replica, said)).collect();
    let inside = control.inside();
    let place = |replica: Uuid| {
        let said = by_replica.get(&replica);
        let engine = said.map_or([0; 16], |said| said.engine);
        let node = said.map_or_else(String::new, |said| inside.node(&said.engine));
        let pool = said.map_or_else(String::new, |said| said.pool.clone());
        Place { replica, engine, node, pool, given: false, stay: Stay::Stays }
    };
    let named = record.slots.iter().flatten().map(|replica| replica.uuid);
    Spec {
        uuid: *volume,
        name: format!("recovered-{}", &uuid::Uuid::from_bytes(*volume).simple().to_string()[..8]),
        bytes: record.bytes,
        places: named.map(place).collect(),
        snapshots: Vec::new(),
        standbys: 1,
        created_unix_s: unix_ms() / 1000,
        stage: Stage::Ready,
        appointed: None,
        pace: None,
        ended: Vec::new(),
    }
}
