//! Volumes that are made of snapshots: each node that holds the snapshot clones its own, and when
//! all have, the new volume has a record, and engines.
//!
//! Invariants:
//! 1. A clone's record names instances that are as they were when all clones were durable.

use std::collections::BTreeMap;

use braid_nexus::Uuid;

use super::place::{VolumeSite, replica_uuid, volume_uuid};
use super::{Cluster, ERRANDS};

/// A volume that is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    volume: usize,
    snapshot: Uuid,
}

impl Cluster {
    /// Makes a volume of a snapshot that the record of another names, on the nodes that hold it;
    /// its number. It is there when it has a record, which takes as long as a node is away.
    pub fn clone_volume(&mut self, source: usize, snapshot: &Uuid) -> Option<usize> {
        let record = self.store.record(source)?;
        let holders = record.snapshot(snapshot)?.holders;
        let slots = (0_u8..).zip(&record.slots).filter(|(slot, _)| holders >> slot & 1 == 1);
        let held = slots.filter_map(|(_, replica)| self.sites.node_of(&replica.as_ref()?.uuid));
        let nodes: Vec<u8> = held.collect();
        let volume = self.sites.volumes.len();
        let bytes = record.bytes;
        let replicas = nodes.iter().map(|node| (replica_uuid(volume, *node), *node)).collect();
        self.clock.tell(|| format!("== v{volume} shall be made of a snapshot of v{source}"));
        self.sites.volumes.push(VolumeSite { uuid: volume_uuid(volume), bytes, replicas });
        for node in 0..self.config.nodes {
            let shape = self.nexus_shape(node, volume);
            let maker = self.config.nexus;
            self.with(node, |at, cx| {
                if let Some(process) = &mut at.process {
                    process.add(cx, maker, shape);
                }
            });
        }
        self.births.push(Birth { volume, snapshot: *snapshot });
        Some(volume)
    }

    /// Goes on with volumes that are on their way.
    pub(super) fn births_on(&mut self) {
        for birth in std::mem::take(&mut self.births) {
            let replicas = self.sites.volumes[birth.volume].replicas.clone();
            let made: Vec<Option<(u64, u64)>> = replicas
                .iter()
                .map(|(uuid, node)| self.clone_at(*node, &birth.snapshot, uuid))
                .collect();
            let Some(made) = made.into_iter().collect::<Option<Vec<_>>>() else {
                self.births.push(birth);
                continue;
            };
            let uuids = replicas.iter().map(|(uuid, _)| *uuid);
            let instances: BTreeMap<Uuid, u64> =
                uuids.zip(made.iter().map(|(instance, _)| *instance)).collect();
            self.sites.volumes[birth.volume].bytes =
                made.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
            // What it was made of is more than nothing.
            let mut record = self.first_record(birth.volume, &instances);
            record.unused = false;
            self.store.put(birth.volume, record);
            self.clock.tell(|| format!("== v{} is made", birth.volume));
        }
    }

    /// Instance and bytes of a clone, if it is durable; if not, sees to it.
    fn clone_at(&mut self, node: u8, snapshot: &Uuid, uuid: &Uuid) -> Option<(u64, u64)> {
        self.errands += 1;
        let number = self.errands | ERRANDS;
        self.with(node, |at, cx| {
            let paused = at.is_paused();
            let process = at.process.as_mut().filter(|process| process.is_ready() && !paused)?;
            if process.replica(uuid).is_some() {
                let pool = process.pool()?;
                let layer = pool.layer(pool.find(uuid)?)?;
                return Some((layer.instance, layer.bytes));
            }
            if process.pool()?.find(uuid).is_none() {
                process.pool()?.find(snapshot)?;
                let name = "clone".into();
                let (snapshot, uuid) = (*snapshot, *uuid);
                let command = braid_pool::Command::Clone { snapshot, uuid, name, created: 0 };
                process.errand(cx, number, command);
            }
            // Read after it was made: what is read is durable.
            process.load(cx, *uuid);
            None
        })
    }
}
