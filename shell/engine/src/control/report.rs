//! What an engine reports of itself.

use std::collections::BTreeMap;

use braid_api::control as wire;
use braid_api::v1;
use braid_nexus::{Record, Uuid};

use crate::manage::host::Host;
use crate::manage::manager::Manager;
use crate::manage::names;

/// What whoever runs volumes said last.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) paths: Vec<wire::Path>,
    pub(super) copies: BTreeMap<Uuid, (u64, Option<Box<Record>>)>,
}

/// Everything that is reported, as it is now.
pub(super) async fn state<H: Host>(manager: &Manager<H>, said: &Said) -> wire::State {
    let pools = manager.list_pools().await;
    let replicas = manager.list_replicas("").await.unwrap_or_default();
    let is_open = |pool: &v1::Pool| pool.state() == v1::PoolState::Open;
    let online: Vec<&str> =
        pools.iter().filter(|pool| is_open(pool)).map(|pool| pool.uuid.as_str()).collect();
    wire::State {
        replicas: replicas
            .into_iter()
            .map(|replica| {
                let online = online.contains(&replica.pool.as_str());
                with_copy(self::replica(replica, online), said)
            })
            .collect(),
        pools: pools.iter().map(pool).collect(),
        paths: said.paths.clone(),
    }
}

fn pool(pool: &v1::Pool) -> wire::PoolState {
    wire::PoolState {
        uuid: pool.uuid.clone(),
        path: pool.path.clone(),
        failed: pool.state() == v1::PoolState::Failed,
        capacity_bytes: pool.capacity_bytes,
        available_bytes: pool.available_bytes,
    }
}

/// A replica without what is known of the volume that it belongs to.
pub(super) fn replica(replica: v1::Replica, online: bool) -> wire::ReplicaState {
    wire::ReplicaState {
        uuid: replica.uuid,
        name: replica.name,
        pool: replica.pool,
        size_bytes: replica.size_bytes,
        instance: replica.instance,
        online,
        nqn: replica.share.map(|share| share.nqn).unwrap_or_default(),
        record: Vec::new(),
        fence: 0,
    }
}

fn with_copy(mut replica: wire::ReplicaState, said: &Said) -> wire::ReplicaState {
    let uuid = names::uuid(&replica.uuid).ok().flatten();
    if let Some((fence, record)) = uuid.and_then(|uuid| said.copies.get(&uuid)) {
        replica.fence = *fence;
        replica.record = record.as_ref().map(|record| record.encode()).unwrap_or_default();
    }
    replica
}
