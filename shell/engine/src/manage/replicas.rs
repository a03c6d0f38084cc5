//! Replicas come and go: made, shared, enlarged, destroyed.

use std::sync::Arc;

use braid_api::v1;
use braid_api::v1::event::{ReplicaCreated, ReplicaDestroyed, ReplicaResized, What};
use braid_block::{BlockSize, Geometry};
use braid_pool::{Command, Create, Failure, LayerInfo};
use tonic::Status;

use super::convert;
use super::host::Host;
use super::hub::{About, unix_s};
use super::manager::{Held, Manager, refused};
use super::names::{self, Names, Reference};

/// What the size of a replica is a multiple of.
const SIZE_UNIT: u64 = 4096;

impl<H: Host> Manager<H> {
    /// `CreateReplica`.
    pub(crate) async fn create_replica(
        &self,
        request: v1::CreateReplicaRequest,
    ) -> Result<v1::Replica, Status> {
        self.create(request, true).await
    }

    /// Makes a replica of a volume: hosts use the volume, so it is not shared with them, whatever
    /// its pool's policy says.
    pub(crate) async fn create_for_volume(
        &self,
        request: v1::CreateReplicaRequest,
    ) -> Result<v1::Replica, Status> {
        self.create(request, false).await
    }

    async fn create(
        &self,
        request: v1::CreateReplicaRequest,
        shares: bool,
    ) -> Result<v1::Replica, Status> {
        names::check(&request.name)?;
        let uuid = names::uuid(&request.uuid)?;
        let bytes = rounded(request.size_bytes)?;
        let block = block_size(request.block_bytes)?;
        let held = self.hold(self.pool(&request.pool)?).await?;
        let layers = self.picture(&held.pool).await?.layers;
        let present = taken(&layers, uuid, &request.name)?;
        let uuid = match (uuid, present) {
            (Some(uuid), _) => uuid,
            (None, Some(present)) => present.uuid,
            (None, None) => names::random()?,
        };
        let thick = request.thick;
        let create = Create { uuid, name: request.name, bytes, block, thick, created: unix_s() };
        if let Some(present) = present {
            return self.repeated(&held, present, create).await;
        }
        let command = Command::Create(Box::new(create));
        self.command(&held.pool, "make the replica", command).await?;
        self.made(&held, uuid, shares).await
    }

    /// Answers a call that finds its replica made already, if it is what was asked for.
    async fn repeated(
        &self,
        held: &Held,
        present: &LayerInfo,
        create: Create,
    ) -> Result<v1::Replica, Status> {
        let asked = (create.uuid, create.bytes, create.block, &create.name, None);
        let found = (present.uuid, present.bytes, present.block, &present.name, present.source);
        if asked != found {
            return Err(differs("replica", present));
        }
        if create.thick != present.thick {
            // Whether it was made so, and a snapshot has made it thin since, its pool knows.
            let command = Command::Create(Box::new(create));
            match self.host.command(held.pool.home, command).await {
                Ok(_) => {}
                Err(Failure::Exists) => return Err(differs("replica", present)),
                Err(failure) => {
                    return Err(refused(failure, "make the replica", &held.pool.path));
                }
            }
        }
        Ok(convert::replica(&held.pool, present))
    }

    /// `ShareReplica`, `ShareSnapshot`.
    pub(crate) async fn share_one(
        &self,
        pool: &str,
        reference: &Reference,
        snapshot: bool,
        hosts: Vec<String>,
    ) -> Result<(Held, LayerInfo), Status> {
        let (held, layer) = self.find_one(pool, reference, snapshot).await?;
        self.share(&held, &layer, hosts).await?;
        Ok((held, layer))
    }

    /// `UnshareReplica`, `UnshareSnapshot`.
    pub(crate) async fn unshare_one(
        &self,
        pool: &str,
        reference: &Reference,
        snapshot: bool,
    ) -> Result<(Held, LayerInfo), Status> {
        let (held, layer) = self.find_one(pool, reference, snapshot).await?;
        self.unshare(&held, layer.uuid).await;
        Ok((held, layer))
    }

    /// `ResizeReplica`.
    pub(crate) async fn resize_replica(
        &self,
        request: v1::ResizeReplicaRequest,
    ) -> Result<v1::Replica, Status> {
        let reference = Reference::replica(&request.replica)?;
        let bytes = rounded(request.size_bytes)?;
        let (held, layer) = self.find_one(&request.pool, &reference, false).await?;
        if bytes < layer.bytes {
            return Err(Status::invalid_argument(format!(
                "size_bytes {bytes} is below the {} bytes that '{}' has; replicas only grow",
                layer.bytes, layer.name
            )));
        }
        if bytes > layer.bytes {
            let command = Command::Resize { uuid: layer.uuid, bytes };
            self.command(&held.pool, "enlarge the replica", command).await?;
            if held.pool.shared_with(&layer.uuid).is_some() {
                let geometry = Geometry::of_bytes(bytes, layer.block);
                let nqn = Names::of(layer.uuid).nqn;
                self.host.resized(held.pool.home, &nqn, geometry).await;
            }
            let text = format!("replica '{}' has {bytes} bytes now", layer.name);
            let what = What::ReplicaResized(ReplicaResized { size_bytes: bytes });
            self.hub.tell(About::replica(held.pool.uuid, layer.uuid), text, what);
        }
        let layer = self.layer(&held, layer.uuid).await?;
        Ok(convert::replica(&held.pool, &layer))
    }

    /// `DestroyReplica`.
    pub(crate) async fn destroy_replica(
        &self,
        request: v1::DestroyReplicaRequest,
    ) -> Result<bool, Status> {
        let reference = Reference::replica(&request.replica)?;
        let Some((held, layer)) = self.find(&request.pool, &reference, false).await? else {
            return Ok(false);
        };
        self.unshare(&held, layer.uuid).await;
        self.hide_member(&held.pool, layer.uuid).await;
        let command = Command::Destroy { uuid: layer.uuid };
        self.command(&held.pool, "destroy the replica", command).await?;
        let text = format!("replica '{}' is destroyed", layer.name);
        let what = What::ReplicaDestroyed(ReplicaDestroyed {});
        self.hub.tell(About::replica(held.pool.uuid, layer.uuid), text, what);
        Ok(true)
    }

    /// `ListReplicas`.
    pub(crate) async fn list_replicas(&self, pool: &str) -> Result<Vec<v1::Replica>, Status> {
        let mut listed = Vec::new();
        for pool in self.candidates(pool)? {
            // One that is gone by now has none.
            let Ok(picture) = self.picture(&pool).await else { continue };
            let mut layers = picture.layers;
            layers.retain(|layer| !layer.snapshot);
            layers.sort_by(|a, b| a.name.cmp(&b.name));
            listed.extend(layers.iter().map(|layer| convert::replica(&pool, layer)));
        }
        Ok(listed)
    }

    /// Tells of a replica or a clone that was just made, and shares it if its pool's policy says
    /// so.
    pub(crate) async fn made(
        &self,
        held: &Held,
        uuid: [u8; 16],
        shares: bool,
    ) -> Result<v1::Replica, Status> {
        let layer = self.layer(held, uuid).await?;
        let what = What::ReplicaCreated(ReplicaCreated {
            name: layer.name.clone(),
            size_bytes: layer.bytes,
        });
        let text = format!("replica '{}' of {} bytes is made", layer.name, layer.bytes);
        self.hub.tell(About::replica(held.pool.uuid, uuid), text, what);
        self.expose_member(held, &layer).await;
        if shares {
            self.share_by_policy(held, &layer).await;
        }
        Ok(convert::replica(&held.pool, &layer))
    }

    /// What is meant, held.
    pub(crate) async fn find_one(
        &self,
        pool: &str,
        reference: &Reference,
        snapshot: bool,
    ) -> Result<(Held, LayerInfo), Status> {
        let found = self.find(pool, reference, snapshot).await?;
        found.ok_or_else(|| {
            let kind = if snapshot { "snapshot" } else { "replica" };
            Status::not_found(format!("there is no such {kind} here; {kind} list shows them"))
        })
    }

    /// A replica or snapshot of a pool that is held.
    pub(crate) async fn layer(&self, held: &Held, uuid: [u8; 16]) -> Result<LayerInfo, Status> {
        let layers = self.picture(&Arc::clone(&held.pool)).await?.layers;
        let layer = layers.into_iter().find(|layer| layer.uuid == uuid);
        layer.ok_or_else(|| Status::internal("what was just made is not there"))
    }
}

/// What already has this identity, or this name among replicas.
///
/// # Errors
/// When that is two different ones.
pub(crate) fn taken<'a>(
    layers: &'a [LayerInfo],
    uuid: Option<[u8; 16]>,
    name: &str,
) -> Result<Option<&'a LayerInfo>, Status> {
    let by_uuid = layers.iter().find(|layer| Some(layer.uuid) == uuid);
    let by_name = layers.iter().find(|layer| !layer.snapshot && layer.name == name);
    match (by_uuid, by_name) {
        (Some(one), Some(other)) if one.uuid != other.uuid => Err(differs("replica", other)),
        (Some(one), _) if one.snapshot => Err(differs("snapshot", one)),
        (Some(one), _) | (None, Some(one)) => Ok(Some(one)),
        (None, None) => Ok(None),
    }
}

/// What is there is not what was asked for.
pub(crate) fn differs(kind: &str, present: &LayerInfo) -> Status {
    Status::already_exists(format!(
        "{kind} '{}' ({}) is there and differs: {} bytes, blocks of {}, {}{}",
        present.name,
        names::text(present.uuid),
        present.bytes,
        present.block.bytes(),
        if present.thick { "thick" } else { "thin" },
        present.source.map_or_else(String::new, |of| format!(", made of {}", names::text(of))),
    ))
}

fn rounded(bytes: u64) -> Result<u64, Status> {
    match bytes.checked_next_multiple_of(SIZE_UNIT) {
        Some(0) => Err(Status::invalid_argument("size_bytes is missing, or 0")),
        Some(bytes) => Ok(bytes),
        None => Err(Status::invalid_argument(format!("size_bytes {bytes} is too large"))),
    }
}

fn block_size(bytes: u32) -> Result<BlockSize, Status> {
    let bytes = if bytes == 0 { 4096 } else { bytes };
    BlockSize::from_bytes(bytes).ok_or_else(|| {
        Status::invalid_argument(format!("block_bytes {bytes} is neither 512 nor 4096"))
    })
}
