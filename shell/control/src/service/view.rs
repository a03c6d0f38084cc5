//! A volume as people see it: what is committed, and what engines say of it.

use braid_api::control as wire;
use braid_nexus::Uuid;
use braid_nexus::record::{Replica, Standing};
use braid_plan::alerts;
use tonic::Status;

use crate::identity;
use crate::registry::{Control, Inside, tell};
use crate::store::{Ended, Stage, Stay, Volume};

impl Control {
    /// The volume that a request means.
    pub(crate) fn reference(&self, reference: &str) -> Result<Uuid, Status> {
        self.store.read(|state| {
            let named = state.volumes.values().find(|volume| volume.spec.name == reference);
            let by_uuid = || {
                let uuid = uuid::Uuid::try_parse(reference).ok()?.into_bytes();
                state.volumes.contains_key(&uuid).then_some(uuid)
            };
            named
                .map(|volume| volume.spec.uuid)
                .or_else(by_uuid)
                .ok_or_else(|| Status::not_found(format!("there is no volume {reference}")))
        })
    }

    /// A volume.
    pub(crate) fn volume(&self, uuid: &Uuid) -> Result<wire::Volume, Status> {
        let volume = self.store.read(|state| state.volumes.get(uuid).cloned());
        let volume = volume.ok_or_else(|| Status::not_found("there is no such volume"))?;
        Ok(self.view(uuid, &volume))
    }

    /// All volumes, by name.
    pub(crate) fn volumes(&self) -> Vec<wire::Volume> {
        let volumes = self.store.read(|state| state.volumes.clone());
        let mut volumes: Vec<_> = volumes.iter().map(|(uuid, v)| self.view(uuid, v)).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        volumes
    }

    /// Replicas know more than the store.
    pub(crate) fn is_stale(&self, volume: &Uuid) -> bool {
        let inside = self.inside();
        let of_another = |state: &crate::store::State| {
            let record = state.volumes.get(volume).and_then(|volume| volume.record.as_ref());
            record.is_some_and(|record| record.store != state.id)
        };
        inside.stale.contains(volume) || self.store.read(of_another)
    }

    fn view(&self, uuid: &Uuid, volume: &Volume) -> wire::Volume {
        let now = self.now();
        let stale = self.is_stale(uuid);
        let inside = self.inside();
        let wanted = inside.wanted(uuid, volume);
        let alerts = match volume.spec.stage {
            Stage::Creating => Vec::new(),
            Stage::Ready | Stage::Deleting => alerts(uuid, &wanted, &inside.observed, now),
        };
        let record = volume.record.as_deref();
        let owner = record.map(|record| record.owner).filter(|owner| *owner != [0; 16]);
        let serving = owner.and_then(|owner| inside.serving(uuid, &owner, now));
        let spec = &volume.spec;
        wire::Volume {
            uuid: identity::text(uuid),
            name: spec.name.clone(),
            size_bytes: record.map_or(spec.bytes, |record| record.bytes),
            state: state(volume, stale, serving.is_some()).into(),
            epoch: record.map_or(0, |record| record.epoch),
            version: record.map_or(0, |record| record.version),
            owner: owner.map(|owner| identity::text(&owner)).unwrap_or_default(),
            engine: serving.map(|engine| inside.node(&engine)).unwrap_or_default(),
            replicas: inside.replicas(uuid, volume),
            paths: inside.volume_paths(uuid),
            snapshots: record.map_or(0, |r| u32::try_from(r.snapshots.len()).unwrap_or(u32::MAX)),
            lossy_epoch: record.and_then(|r| r.lossy.as_ref()).map_or(0, |lossy| lossy.epoch),
            alerts: tell(&alerts),
            created_unix_s: spec.created_unix_s,
            ended: spec.ended.iter().map(ended).collect(),
        }
    }
}

fn ended(ended: &Ended) -> wire::EndedWish {
    let Ended { what, why, unix_s } = ended.clone();
    wire::EndedWish { what, why, unix_s }
}

fn state(volume: &Volume, stale: bool, served: bool) -> wire::VolumeState {
    let leaves = |replica: &Uuid| {
        let mut places = volume.spec.places.iter();
        places.any(|place| place.replica == *replica && place.stay != Stay::Stays)
    };
    let lacks = |slot: &Option<Replica>| {
        slot.is_some_and(|r| matches!(r.standing, Standing::Away { .. }) && !leaves(&r.uuid))
    };
    let away = volume.record.as_ref().is_some_and(|record| record.slots.iter().any(lacks));
    match (volume.spec.stage, stale, served, away) {
        (Stage::Creating, ..) => wire::VolumeState::Creating,
        (Stage::Deleting, ..) => wire::VolumeState::Deleting,
        (_, true, ..) => wire::VolumeState::NotCurrent,
        (_, _, false, _) => wire::VolumeState::Offline,
        (_, _, _, true) => wire::VolumeState::Degraded,
        _ => wire::VolumeState::Online,
    }
}

impl Inside {
    /// The engine that serves a volume under this name.
    pub(crate) fn serving(
        &self,
        volume: &Uuid,
        owner: &Uuid,
        now: braid_block::Instant,
    ) -> Option<Uuid> {
        let serves = |engine: &&Uuid| {
            let part = self.observed.part(engine, volume);
            let part = part.is_some_and(|part| part.serving && part.owner == Some(*owner));
            part && self.observed.is_alive(engine, now)
        };
        self.observed.engines.keys().find(serves).copied()
    }

    fn volume_paths(&self, uuid: &Uuid) -> Vec<wire::VolumePath> {
        let path = |path: wire::PathAddress| wire::VolumePath {
            engine: path.engine,
            nqn: path.nqn,
            portals: path.portals,
            access: path.access,
        };
        self.paths(uuid).into_iter().map(path).collect()
    }

    fn replicas(&self, uuid: &Uuid, volume: &Volume) -> Vec<wire::Replica> {
        let text = identity::text(uuid);
        let mut paths = self.engines.values().flat_map(|engine| &engine.state.paths);
        let coming = paths.find(|path| path.volume == text && !path.returning.is_empty());
        let replica = |place: &crate::store::Place| {
            let id = identity::text(&place.replica);
            let comes = coming.filter(|path| path.returning == id);
            let record = volume.record.as_deref();
            let slot = record.and_then(|r| r.replica(r.slot_of(&place.replica)?));
            let standing = match (slot.map(|replica| replica.standing), comes) {
                _ if place.stay != Stay::Stays => wire::Standing::Leaving,
                (None, _) if record.is_some() => wire::Standing::Joining,
                (Some(Standing::Member { .. }), _) => wire::Standing::Member,
                (Some(Standing::Away { .. }), Some(_)) => wire::Standing::Returning,
                (Some(Standing::Away { .. }), None) => wire::Standing::Away,
                (None, _) => wire::Standing::Unspecified,
            };
            let seen = self.observed.engines.get(&place.engine);
            wire::Replica {
                uuid: id,
                engine: place.node.clone(),
                pool: place.pool.clone(),
                standing: standing.into(),
                online: self
                    .engines
                    .get(&place.engine)
                    .is_some_and(crate::registry::Engine::is_connected)
                    && seen.is_some_and(|seen| seen.replicas.contains(&place.replica)),
                copied_bytes: comes.map_or(0, |path| path.copied_bytes),
                to_copy_bytes: comes.map_or(0, |path| path.to_copy_bytes),
            }
        };
        volume.spec.places.iter().map(replica).collect()
    }
}
