//! Snapshots come and go: taken, cloned, destroyed.

use braid_api::v1;
use braid_api::v1::event::{SnapshotCreated, SnapshotDestroyed, What};
use braid_pool::{Command, LayerInfo};
use tonic::Status;

use super::convert;
use super::host::Host;
use super::hub::{About, unix_s};
use super::manager::Manager;
use super::names::{self, Reference};
use super::replicas::{differs, taken};

impl<H: Host> Manager<H> {
    /// `CreateSnapshot`.
    pub(crate) async fn create_snapshot(
        &self,
        request: v1::CreateSnapshotRequest,
    ) -> Result<v1::Snapshot, Status> {
        names::check(&request.name)?;
        let uuid = names::uuid(&request.uuid)?;
        let reference = Reference::replica(&request.replica)?;
        let (held, replica) = self.find_one(&request.pool, &reference, false).await?;
        let layers = self.picture(&held.pool).await?.layers;
        if let Some(present) = present(&layers, &replica, uuid, &request.name)? {
            return Ok(convert::snapshot(&held.pool, present, &layers));
        }
        let uuid = uuid.map_or_else(names::random, Ok)?;
        let command = Command::Snapshot {
            replica: replica.uuid,
            uuid,
            name: request.name.clone(),
            created: unix_s(),
        };
        self.command(&held.pool, "take the snapshot", command).await?;
        let text = format!("snapshot '{}@{}' is taken", replica.name, request.name);
        let of = names::text(replica.uuid);
        let what = What::SnapshotCreated(SnapshotCreated { name: request.name, of });
        self.hub.tell(About::replica(held.pool.uuid, uuid), text, what);
        let layer = self.layer(&held, uuid).await?;
        let layers = self.picture(&held.pool).await?.layers;
        Ok(convert::snapshot(&held.pool, &layer, &layers))
    }

    /// `DestroySnapshot`.
    pub(crate) async fn destroy_snapshot(
        &self,
        request: v1::DestroySnapshotRequest,
    ) -> Result<bool, Status> {
        let reference = Reference::snapshot(&request.snapshot)?;
        let Some((held, layer)) = self.find(&request.pool, &reference, true).await? else {
            return Ok(false);
        };
        self.unshare(&held, layer.uuid).await;
        let command = Command::DeleteSnapshot { uuid: layer.uuid };
        self.command(&held.pool, "destroy the snapshot", command).await?;
        let text = format!("snapshot '{}' is destroyed", layer.name);
        let what = What::SnapshotDestroyed(SnapshotDestroyed {});
        self.hub.tell(About::replica(held.pool.uuid, layer.uuid), text, what);
        Ok(true)
    }

    /// `CloneSnapshot`.
    pub(crate) async fn clone_snapshot(
        &self,
        request: v1::CloneSnapshotRequest,
    ) -> Result<v1::Replica, Status> {
        names::check(&request.name)?;
        let uuid = names::uuid(&request.uuid)?;
        let reference = Reference::snapshot(&request.snapshot)?;
        let (held, snapshot) = self.find_one(&request.pool, &reference, true).await?;
        let layers = self.picture(&held.pool).await?.layers;
        if let Some(present) = taken(&layers, uuid, &request.name)? {
            let is_it = present.source == Some(snapshot.uuid)
                && present.name == request.name
                && uuid.is_none_or(|uuid| uuid == present.uuid);
            return if is_it {
                Ok(convert::replica(&held.pool, present))
            } else {
                Err(differs("replica", present))
            };
        }
        let uuid = uuid.map_or_else(names::random, Ok)?;
        let command =
            Command::Clone { snapshot: snapshot.uuid, uuid, name: request.name, created: unix_s() };
        self.command(&held.pool, "clone the snapshot", command).await?;
        self.made(&held, uuid, true).await
    }

    /// `ListSnapshots`.
    pub(crate) async fn list_snapshots(
        &self,
        request: &v1::ListSnapshotsRequest,
    ) -> Result<Vec<v1::Snapshot>, Status> {
        let of = match request.replica.as_str() {
            "" => None,
            reference => Some(Reference::replica(reference)?),
        };
        let mut listed = Vec::new();
        let mut known = of.is_none();
        for pool in self.candidates(&request.pool)? {
            // One that is gone by now has none.
            let Ok(picture) = self.picture(&pool).await else { continue };
            let layers = picture.layers;
            let is_of =
                |layer: &&LayerInfo| of.as_ref().is_none_or(|of| of_replica(layer, of, &layers));
            known |=
                layers.iter().any(|layer| of.as_ref().is_some_and(|of| of.means(layer, &layers)));
            let mut found: Vec<_> = layers.iter().filter(|l| l.snapshot).filter(is_of).collect();
            found.sort_by_key(|layer| (layer.source, layer.created, layer.name.clone()));
            let wire = found.iter().map(|layer| convert::snapshot(&pool, layer, &layers));
            listed.extend(wire);
        }
        // Snapshots outlive their replica, which is then only known by its uuid.
        if known || matches!(of, Some(Reference::Uuid(_))) {
            return Ok(listed);
        }
        Err(Status::not_found(format!("there is no replica '{}' here", request.replica)))
    }
}

/// Whether a snapshot is of the replica that is meant.
fn of_replica(snapshot: &LayerInfo, replica: &Reference, all: &[LayerInfo]) -> bool {
    match replica {
        Reference::Uuid(uuid) => snapshot.source == Some(*uuid),
        _ => {
            all.iter().any(|layer| snapshot.source == Some(layer.uuid) && replica.means(layer, all))
        }
    }
}

/// The snapshot that a repeated call made the first time.
///
/// # Errors
/// When its name or uuid belongs to something else.
fn present<'a>(
    layers: &'a [LayerInfo],
    replica: &LayerInfo,
    uuid: Option<[u8; 16]>,
    name: &str,
) -> Result<Option<&'a LayerInfo>, Status> {
    let is_it = |layer: &LayerInfo| {
        layer.snapshot && layer.source == Some(replica.uuid) && layer.name == name
    };
    let by_uuid = layers.iter().find(|layer| Some(layer.uuid) == uuid);
    let by_name = layers.iter().find(|layer| is_it(layer));
    match (by_uuid, by_name) {
        (Some(one), _) if !is_it(one) => {
            Err(differs(if one.snapshot { "snapshot" } else { "replica" }, one))
        }
        (None, Some(one)) if uuid.is_some() => Err(differs("snapshot", one)),
        (found, by_name) => Ok(found.or(by_name)),
    }
}
