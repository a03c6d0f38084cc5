//! What each engine has to know of the volumes that it has something of.

use std::collections::BTreeMap;

use braid_api::control as wire;
use braid_nexus::Uuid;
use braid_plan::Step;

use super::Inside;
use crate::identity;
use crate::store::{State, Volume};

impl Inside {
    /// Tells every engine what it does not know yet.
    pub(super) fn tell_topology(&mut self, store: &State) {
        let mut of_volume = BTreeMap::new();
        let engines: Vec<Uuid> = self.engines.keys().copied().collect();
        for engine in engines {
            if !self.engines.get(&engine).is_some_and(super::Engine::is_connected) {
                continue;
            }
            let mine = store.volumes.iter().filter(|(uuid, v)| self.concerns(uuid, v, &engine));
            let volumes = mine.map(|(uuid, volume)| {
                let made = of_volume.entry(*uuid).or_insert_with(|| self.volume(uuid, volume));
                made.clone()
            });
            let topology = wire::Topology { volumes: volumes.collect() };
            let known = self.engines.get(&engine).and_then(|known| known.topology.as_ref());
            if known == Some(&topology) {
                continue;
            }
            let told = self.tell(&engine, wire::to_engine::What::Topology(topology.clone()));
            if let Some(known) = self.engines.get_mut(&engine).filter(|_| told) {
                known.topology = Some(topology);
            }
        }
    }

    /// It has a replica or a part of the volume, or is about to.
    fn concerns(&self, uuid: &Uuid, volume: &Volume, engine: &Uuid) -> bool {
        let ordered = self.observed.ledgers.get(uuid).and_then(|ledger| ledger.in_flight());
        let about = ordered.as_ref().and_then(Step::engine) == Some(*engine);
        let replica = volume.spec.places.iter().any(|place| place.engine == *engine);
        about || replica || self.observed.part(engine, uuid).is_some()
    }

    fn volume(&self, uuid: &Uuid, volume: &Volume) -> wire::VolumeTopology {
        let replicas = volume.spec.places.iter().map(|place| {
            let known = self.engines.get(&place.engine);
            let text = identity::text(&place.replica);
            let found = known.and_then(|e| e.state.replicas.iter().find(|r| r.uuid == text));
            wire::ReplicaAddress {
                uuid: text.clone(),
                engine: place.node.clone(),
                nqn: found.map(|found| found.nqn.clone()).unwrap_or_default(),
                portals: known.map(|known| known.hello.portals.clone()).unwrap_or_default(),
            }
        });
        let bytes = volume.record.as_ref().map_or(volume.spec.bytes, |record| record.bytes);
        wire::VolumeTopology {
            volume: identity::text(uuid),
            name: volume.spec.name.clone(),
            size_bytes: bytes,
            replicas: replicas.collect(),
            paths: self.paths(uuid),
            pace: volume.spec.pace.map(|pace| wire::RebuildPace {
                version: pace.version,
                paused: pace.paused,
                beside_bytes_per_s: pace.beside,
                alone_bytes_per_s: pace.alone,
            }),
        }
    }

    /// The paths of a volume, as their engines last said. Of one that is not connected nobody knows
    /// how it is reached now.
    pub(crate) fn paths(&self, volume: &Uuid) -> Vec<wire::PathAddress> {
        let text = identity::text(volume);
        let unknown = i32::from(wire::Access::Unspecified);
        let path = |engine: &super::Engine| {
            let path = engine.state.paths.iter().find(|path| path.volume == text)?;
            Some(wire::PathAddress {
                engine: engine.hello.node.clone(),
                nqn: path.nqn.clone(),
                portals: engine.hello.portals.clone(),
                access: if engine.is_connected() { path.access } else { unknown },
            })
        };
        self.engines.values().filter_map(path).collect()
    }
}
