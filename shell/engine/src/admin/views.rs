//! What is printed of an answer: the fields of the `.proto`, with words for numbers.

use braid_api::v1::{self, DeviceState, PoolState, SharePolicy};
use serde::Serialize;

use crate::admin::output::{Row, moment, size};

#[derive(Debug, Serialize)]
pub(super) struct Pool {
    pub(super) uuid: String,
    pub(super) path: String,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    share: &'static str,
    shard: u32,
    replicas: u32,
    snapshots: u32,
    disk_bytes: u64,
    capacity_bytes: u64,
    data_bytes: u64,
    maps_bytes: u64,
    quarantine_bytes: u64,
    reserve_bytes: u64,
    promised_bytes: u64,
    available_bytes: u64,
    committed_bytes: u64,
    journal_blocks: u32,
    journal_used_blocks: u32,
    memory_bytes: u64,
    checksum_errors: u64,
    unverified_blocks: u64,
}

impl From<v1::Pool> for Pool {
    fn from(pool: v1::Pool) -> Self {
        Self {
            state: match pool.state() {
                PoolState::Opening => "opening",
                PoolState::Open => "open",
                PoolState::Closing => "closing",
                PoolState::Failed => "failed",
                PoolState::Unspecified => "unknown",
            },
            share: match pool.share() {
                SharePolicy::None => "none",
                SharePolicy::All | SharePolicy::Unspecified => "all",
            },
            uuid: pool.uuid,
            path: pool.path,
            reason: pool.reason,
            shard: pool.shard,
            replicas: pool.replicas,
            snapshots: pool.snapshots,
            disk_bytes: pool.disk_bytes,
            capacity_bytes: pool.capacity_bytes,
            data_bytes: pool.data_bytes,
            maps_bytes: pool.maps_bytes,
            quarantine_bytes: pool.quarantine_bytes,
            reserve_bytes: pool.reserve_bytes,
            promised_bytes: pool.promised_bytes,
            available_bytes: pool.available_bytes,
            committed_bytes: pool.committed_bytes,
            journal_blocks: pool.journal_blocks,
            journal_used_blocks: pool.journal_used_blocks,
            memory_bytes: pool.memory_bytes,
            checksum_errors: pool.checksum_errors,
            unverified_blocks: pool.unverified_blocks,
        }
    }
}

impl Row for Pool {
    const HEAD: &'static [&'static str] = &[
        "path",
        "uuid",
        "state",
        "capacity",
        "used",
        "available",
        "committed",
        "replicas",
        "snapshots",
    ];

    fn cells(&self) -> Vec<String> {
        let state = match self.reason.as_str() {
            "" => self.state.to_owned(),
            reason => format!("{}: {reason}", self.state),
        };
        vec![
            self.path.clone(),
            self.uuid.clone(),
            state,
            size(self.capacity_bytes),
            size(self.data_bytes + self.maps_bytes),
            size(self.available_bytes),
            size(self.committed_bytes),
            self.replicas.to_string(),
            self.snapshots.to_string(),
        ]
    }
}

#[derive(Debug, Serialize)]
struct Share {
    nqn: String,
    serial: String,
    nguid: String,
    nsid: u32,
    allowed_hosts: Vec<String>,
}

impl From<v1::Share> for Share {
    fn from(share: v1::Share) -> Self {
        let v1::Share { nqn, serial, nguid, nsid, allowed_hosts } = share;
        Self { nqn, serial, nguid, nsid, allowed_hosts }
    }
}

fn shared_as(share: Option<&Share>) -> String {
    share.map_or_else(|| "not shared".into(), |share| share.nqn.clone())
}

#[derive(Debug, Serialize)]
pub(super) struct Replica {
    name: String,
    uuid: String,
    pool: String,
    size_bytes: u64,
    block_bytes: u32,
    thick: bool,
    member: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    snapshot: String,
    created_unix_s: u64,
    own_bytes: u64,
    shared_bytes: u64,
    instance: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<Share>,
}

impl From<v1::Replica> for Replica {
    fn from(replica: v1::Replica) -> Self {
        Self {
            name: replica.name,
            uuid: replica.uuid,
            pool: replica.pool,
            size_bytes: replica.size_bytes,
            block_bytes: replica.block_bytes,
            thick: replica.thick,
            member: replica.member,
            snapshot: replica.snapshot,
            created_unix_s: replica.created_unix_s,
            own_bytes: replica.own_bytes,
            shared_bytes: replica.shared_bytes,
            instance: replica.instance,
            share: replica.share.map(Into::into),
        }
    }
}

impl Row for Replica {
    const HEAD: &'static [&'static str] =
        &["name", "size", "kind", "block", "own", "shared", "created", "nqn"];

    fn cells(&self) -> Vec<String> {
        let space = if self.thick { "thick" } else { "thin" };
        let kind = if self.snapshot.is_empty() { space.into() } else { format!("{space} clone") };
        vec![
            self.name.clone(),
            size(self.size_bytes),
            kind,
            self.block_bytes.to_string(),
            size(self.own_bytes),
            size(self.shared_bytes),
            moment(self.created_unix_s),
            shared_as(self.share.as_ref()),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    name: String,
    uuid: String,
    replica: String,
    replica_name: String,
    pool: String,
    size_bytes: u64,
    block_bytes: u32,
    created_unix_s: u64,
    own_bytes: u64,
    shared_bytes: u64,
    children: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<Share>,
}

impl From<v1::Snapshot> for Snapshot {
    fn from(snapshot: v1::Snapshot) -> Self {
        Self {
            name: snapshot.name,
            uuid: snapshot.uuid,
            replica: snapshot.replica,
            replica_name: snapshot.replica_name,
            pool: snapshot.pool,
            size_bytes: snapshot.size_bytes,
            block_bytes: snapshot.block_bytes,
            created_unix_s: snapshot.created_unix_s,
            own_bytes: snapshot.own_bytes,
            shared_bytes: snapshot.shared_bytes,
            children: snapshot.children,
            share: snapshot.share.map(Into::into),
        }
    }
}

impl Row for Snapshot {
    const HEAD: &'static [&'static str] =
        &["snapshot", "size", "own", "shared", "children", "created", "nqn"];

    fn cells(&self) -> Vec<String> {
        let of = if self.replica_name.is_empty() { &self.replica } else { &self.replica_name };
        vec![
            format!("{of}@{}", self.name),
            size(self.size_bytes),
            size(self.own_bytes),
            size(self.shared_bytes),
            self.children.to_string(),
            moment(self.created_unix_s),
            shared_as(self.share.as_ref()),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Device {
    path: String,
    kind: String,
    size_bytes: u64,
    logical_block_bytes: u32,
    physical_block_bytes: u32,
    rotational: bool,
    removable: bool,
    read_only: bool,
    discards: bool,
    model: String,
    serial: String,
    state: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pool: String,
}

impl From<v1::Device> for Device {
    fn from(device: v1::Device) -> Self {
        Self {
            state: match device.state() {
                DeviceState::Free => "free",
                DeviceState::InUse => "in use",
                DeviceState::Holds => "holds",
                DeviceState::Pool => "pool",
                DeviceState::Unusable => "unusable",
                DeviceState::Unspecified => "unknown",
            },
            path: device.path,
            kind: device.kind,
            size_bytes: device.size_bytes,
            logical_block_bytes: device.logical_block_bytes,
            physical_block_bytes: device.physical_block_bytes,
            rotational: device.rotational,
            removable: device.removable,
            read_only: device.read_only,
            discards: device.discards,
            model: device.model,
            serial: device.serial,
            detail: device.detail,
            pool: device.pool,
        }
    }
}

impl Row for Device {
    const HEAD: &'static [&'static str] =
        &["path", "kind", "size", "block", "state", "detail", "model", "serial"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.path.clone(),
            self.kind.clone(),
            size(self.size_bytes),
            self.logical_block_bytes.to_string(),
            self.state.into(),
            if self.detail.is_empty() { "-".into() } else { self.detail.clone() },
            if self.model.is_empty() { "-".into() } else { self.model.clone() },
            if self.serial.is_empty() { "-".into() } else { self.serial.clone() },
        ]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Scrub {
    pub(super) pool: String,
    pub(super) running: bool,
    pub(super) checked_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) finished_unix_s: u64,
    pub(super) finished_blocks: u64,
    pub(super) finished_errors: u64,
}

impl From<v1::Scrub> for Scrub {
    fn from(scrub: v1::Scrub) -> Self {
        Self {
            pool: scrub.pool,
            running: scrub.running,
            checked_bytes: scrub.checked_bytes,
            total_bytes: scrub.total_bytes,
            finished_unix_s: scrub.finished_unix_s,
            finished_blocks: scrub.finished_blocks,
            finished_errors: scrub.finished_errors,
        }
    }
}

impl Row for Scrub {
    const HEAD: &'static [&'static str] =
        &["pool", "state", "checked", "of", "last finished", "blocks", "lost"];

    fn cells(&self) -> Vec<String> {
        let never = self.finished_unix_s == 0;
        let last = |text: String| if never { "-".to_owned() } else { text };
        vec![
            self.pool.clone(),
            if self.running { "running" } else { "not running" }.into(),
            size(self.checked_bytes),
            size(self.total_bytes),
            last(moment(self.finished_unix_s)),
            last(self.finished_blocks.to_string()),
            last(self.finished_errors.to_string()),
        ]
    }
}

pub(super) const fn ana_state(state: v1::AnaState) -> &'static str {
    match state {
        v1::AnaState::Optimized => "optimized",
        v1::AnaState::NonOptimized => "non-optimized",
        v1::AnaState::Inaccessible => "inaccessible",
        v1::AnaState::PersistentLoss => "persistent-loss",
        v1::AnaState::Change => "change",
        v1::AnaState::Unspecified => "unknown",
    }
}

#[derive(Debug, Serialize)]
pub(super) struct AnaGroup {
    nqn: String,
    group: u32,
    listen: String,
    state: &'static str,
    changes: u64,
}

impl From<v1::AnaGroup> for AnaGroup {
    fn from(group: v1::AnaGroup) -> Self {
        Self {
            state: ana_state(group.state()),
            nqn: group.nqn,
            group: group.group,
            listen: group.listen,
            changes: group.changes,
        }
    }
}

impl Row for AnaGroup {
    const HEAD: &'static [&'static str] = &["nqn", "group", "listen", "state", "changes"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.nqn.clone(),
            self.group.to_string(),
            self.listen.clone(),
            self.state.into(),
            self.changes.to_string(),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Namespace {
    nqn: String,
    nsid: u32,
    uuid: String,
    source: &'static str,
    size_bytes: u64,
    block_bytes: u32,
}

impl From<v1::Namespace> for Namespace {
    fn from(namespace: v1::Namespace) -> Self {
        use v1::NamespaceSource::{Disk, Memory, Pool, Unspecified, Volume};
        let source = match namespace.source() {
            Memory => "memory",
            Disk => "disk",
            Pool => "pool",
            Volume => "volume",
            Unspecified => "unknown",
        };
        let v1::Namespace { nqn, nsid, uuid, size_bytes, block_bytes, .. } = namespace;
        Self { nqn, nsid, uuid, source, size_bytes, block_bytes }
    }
}

impl Row for Namespace {
    const HEAD: &'static [&'static str] = &["nqn", "nsid", "size", "block", "source", "uuid"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.nqn.clone(),
            self.nsid.to_string(),
            size(self.size_bytes),
            self.block_bytes.to_string(),
            self.source.into(),
            self.uuid.clone(),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Engine {
    version: String,
    pid: u32,
    started_unix_s: u64,
    listen: Vec<String>,
    shards: u32,
    allows_injection: bool,
}

impl From<v1::EngineInfo> for Engine {
    fn from(info: v1::EngineInfo) -> Self {
        let v1::EngineInfo { version, pid, started_unix_s, listen, shards, allows_injection } =
            info;
        Self { version, pid, started_unix_s, listen, shards, allows_injection }
    }
}

impl Row for Engine {
    const HEAD: &'static [&'static str] = &["version", "process", "started", "shards", "listen"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.version.clone(),
            self.pid.to_string(),
            moment(self.started_unix_s),
            self.shards.to_string(),
            self.listen.join(","),
        ]
    }
}
