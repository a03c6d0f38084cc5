//! Snapshots of a volume are taken, listed and destroyed.

use braid_api::control as wire;
use braid_nexus::record::SNAPSHOTS_MAX;
use braid_nexus::{Record, Uuid};
use braid_plan::Step;
use tonic::Status;

use super::changes::Waited;
use super::refused;
use crate::identity;
use crate::registry::Control;
use crate::store::{Change, Done, Snapshot, SnapshotStage, Spec, Volume, random, unix_ms};

impl Control {
    /// `CreateSnapshot`.
    pub(crate) async fn create_snapshot(
        &self,
        request: wire::CreateSnapshotRequest,
    ) -> Result<wire::Snapshot, Status> {
        let volume = self.reference(&request.volume)?;
        identity::check_name(&request.name)?;
        let uuid = identity::parse_optional("uuid", &request.uuid)?;
        let (spec, record) = self.changeable(&volume)?;
        let same = |known: &&Snapshot| {
            known.name == request.name && uuid.is_none_or(|uuid| uuid == known.uuid)
        };
        let known = spec.snapshots.iter().find(same).cloned();
        if known.is_none() && record.snapshots.len() >= SNAPSHOTS_MAX {
            return Err(Status::resource_exhausted(format!(
                "a volume has {SNAPSHOTS_MAX} snapshots at most: destroy one first"
            )));
        }
        let uuid = match (uuid, &known) {
            (Some(uuid), _) => uuid,
            (None, Some(known)) => known.uuid,
            (None, None) => random().map_err(|error| Status::internal(error.to_string()))?,
        };
        let (name, created_unix_s) = (request.name, unix_ms() / 1000);
        let snapshot = Snapshot { uuid, name, created_unix_s, stage: SnapshotStage::Wanted };
        let text = format!("snapshot {} was asked for", snapshot.name);
        let take = Change::TakeSnapshot { volume, snapshot };
        let meant =
            |step: &Step| matches!(step, Step::TakeSnapshot { snapshot, .. } if *snapshot == uuid);
        self.ask_anew(&volume, meant);
        self.store.change(take).await.map_err(refused)?;
        if known.is_none() {
            self.store.note(volume, text);
        }
        let look = |volume: &Volume| {
            let shown = of(volume).into_iter().find(|(known, _)| *known == uuid);
            match shown {
                Some((_, shown)) if shown.state() == wire::SnapshotState::Ready => Some(Ok(shown)),
                Some((_, shown)) if shown.state() == wire::SnapshotState::Lost => Some(Err(
                    Status::failed_precondition("the record does not name this snapshot any more"),
                )),
                Some((_, shown)) if shown.state() == wire::SnapshotState::Taking => None,
                _ => Some(Err(Status::aborted("it is wished for no more"))),
            }
        };
        self.wait_until(&volume, meant, look).await.map_err(Waited::status)
    }

    /// `ListSnapshots`.
    pub(crate) fn snapshots(&self, reference: &str) -> Result<Vec<wire::Snapshot>, Status> {
        let volume = self.reference(reference)?;
        let found = self.store.read(|state| state.volumes.get(&volume).cloned());
        let found = found.ok_or_else(|| Status::not_found("there is no such volume"))?;
        Ok(of(&found).into_iter().map(|(_, shown)| shown).collect())
    }

    /// `DestroySnapshot`.
    pub(crate) async fn destroy_snapshot(
        &self,
        request: wire::DestroySnapshotRequest,
    ) -> Result<bool, Status> {
        let volume = self.reference(&request.volume)?;
        let (spec, record) = self.changeable(&volume)?;
        let Some((snapshot, name)) = meant(&spec, &record, &request.snapshot) else {
            return Ok(false);
        };
        let done = self.store.change(Change::DropSnapshot { volume, snapshot }).await;
        if done.map_err(refused)? == Done::Absent {
            return Ok(false);
        }
        self.store.note(volume, format!("snapshot {name} was asked to go"));
        let steps =
            |step: &Step| matches!(step, Step::DropSnapshot { snapshot: s, .. } if *s == snapshot);
        let look = |volume: &Volume| {
            let named = volume.record.as_ref().is_some_and(|r| r.snapshot(&snapshot).is_some());
            (!named).then_some(Ok(()))
        };
        self.wait_until(&volume, steps, look).await.map_err(Waited::status)?;
        Ok(true)
    }
}

/// The snapshot that a name or a uuid means, and what it is called.
fn meant(spec: &Spec, record: &Record, reference: &str) -> Option<(Uuid, String)> {
    let named =
        spec.snapshots.iter().find(|known| !reference.is_empty() && known.name == reference);
    let by_uuid = || {
        let uuid = uuid::Uuid::try_parse(reference).ok()?.into_bytes();
        let known = spec.snapshots.iter().any(|known| known.uuid == uuid);
        (known || record.snapshot(&uuid).is_some()).then(|| (uuid, reference.to_owned()))
    };
    named.map(|known| (known.uuid, known.name.clone())).or_else(by_uuid)
}

/// Snapshots of a volume: those that its record names, oldest first, then the others.
fn of(volume: &Volume) -> Vec<(Uuid, wire::Snapshot)> {
    let record = volume.record.as_deref();
    let named = record.map(|record| &record.snapshots[..]).unwrap_or_default();
    let replicas = record.map_or(0, |record| (record.members() | record.away()).count_ones());
    let known = |uuid: &Uuid| volume.spec.snapshots.iter().find(|known| known.uuid == *uuid);
    let shown = |uuid: Uuid, bytes, holders: u8, named: bool| {
        let known = known(&uuid);
        let state = match (known.map(|known| known.stage), named) {
            (Some(SnapshotStage::Goes), _) => wire::SnapshotState::Destroying,
            (_, true) => wire::SnapshotState::Ready,
            (Some(SnapshotStage::Wanted), false) => wire::SnapshotState::Taking,
            (_, false) => wire::SnapshotState::Lost,
        };
        let shown = wire::Snapshot {
            uuid: identity::text(&uuid),
            name: known.map(|known| known.name.clone()).unwrap_or_default(),
            volume: identity::text(&volume.spec.uuid),
            state: state.into(),
            size_bytes: bytes,
            created_unix_s: known.map_or(0, |known| known.created_unix_s),
            holders: holders.count_ones(),
            replicas,
        };
        (uuid, shown)
    };
    let of_record = named.iter().map(|s| shown(s.uuid, s.bytes, s.holders, true));
    let others = volume
        .spec
        .snapshots
        .iter()
        .filter(|known| named.iter().all(|named| named.uuid != known.uuid));
    of_record.chain(others.map(|known| shown(known.uuid, 0, 0, false))).collect()
}
