//! What is printed of an answer: the fields of the `.proto`, with words for numbers.

use braid_api::control::{self as wire, Access, SnapshotState, Standing, VolumeState};
use braid_terminal::output::{Row, moment, size};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) state: &'static str,
    pub(super) size_bytes: u64,
    pub(super) engine: String,
    pub(super) epoch: u64,
    pub(super) version: u64,
    pub(super) owner: String,
    pub(super) replicas: Vec<Replica>,
    pub(super) paths: Vec<Path>,
    pub(super) snapshots: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lossy_epoch: Option<u64>,
    pub(super) alerts: Vec<String>,
    pub(super) created_unix_s: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ended: Vec<Ended>,
}

/// What the volume could not have.
#[derive(Debug, Serialize)]
pub(super) struct Ended {
    pub(super) what: String,
    pub(super) why: String,
    unix_s: u64,
}

impl From<wire::Volume> for Volume {
    fn from(volume: wire::Volume) -> Self {
        Self {
            state: match volume.state() {
                VolumeState::Creating => "creating",
                VolumeState::Online => "online",
                VolumeState::Degraded => "degraded",
                VolumeState::Offline => "offline",
                VolumeState::NotCurrent => "not current",
                VolumeState::Deleting => "deleting",
                VolumeState::Unspecified => "unknown",
            },
            name: volume.name,
            uuid: volume.uuid,
            size_bytes: volume.size_bytes,
            engine: volume.engine,
            epoch: volume.epoch,
            version: volume.version,
            owner: volume.owner,
            replicas: volume.replicas.into_iter().map(Into::into).collect(),
            paths: volume.paths.into_iter().map(Into::into).collect(),
            snapshots: volume.snapshots,
            lossy_epoch: Some(volume.lossy_epoch).filter(|epoch| *epoch > 0),
            alerts: volume.alerts,
            created_unix_s: volume.created_unix_s,
            ended: volume.ended.into_iter().map(ended).collect(),
        }
    }
}

fn ended(ended: wire::EndedWish) -> Ended {
    Ended { what: ended.what, why: ended.why, unix_s: ended.unix_s }
}

impl Row for Volume {
    const HEAD: &'static [&'static str] =
        &["name", "size", "state", "engine", "replicas", "paths", "epoch", "alerts"];

    fn cells(&self) -> Vec<String> {
        let paths = self.paths.iter().filter(|path| path.access != "gone").count();
        let members = self.replicas.iter().filter(|r| r.standing == "member").count();
        vec![
            self.name.clone(),
            size(self.size_bytes),
            self.state.into(),
            or_dash(&self.engine),
            format!("{members} of {}", self.replicas.len()),
            paths.to_string(),
            self.epoch.to_string(),
            or_dash(&self.alerts.join("; ")),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Replica {
    pub(super) uuid: String,
    pub(super) engine: String,
    pub(super) pool: String,
    pub(super) standing: &'static str,
    pub(super) online: bool,
    pub(super) copied_bytes: u64,
    pub(super) to_copy_bytes: u64,
}

impl From<wire::Replica> for Replica {
    fn from(replica: wire::Replica) -> Self {
        Self {
            standing: match replica.standing() {
                Standing::Member => "member",
                Standing::Away => "away",
                Standing::Returning => "returning",
                Standing::Joining => "joining",
                Standing::Leaving => "leaving",
                Standing::Unspecified => "unknown",
            },
            uuid: replica.uuid,
            engine: replica.engine,
            pool: replica.pool,
            online: replica.online,
            copied_bytes: replica.copied_bytes,
            to_copy_bytes: replica.to_copy_bytes,
        }
    }
}

impl Row for Replica {
    const HEAD: &'static [&'static str] =
        &["replica", "engine", "pool", "standing", "engine is", "progress"];

    fn cells(&self) -> Vec<String> {
        let progress = match self.to_copy_bytes {
            0 => "-".into(),
            all => format!("{} of {}", size(self.copied_bytes), size(all)),
        };
        vec![
            self.uuid.clone(),
            or_dash(&self.engine),
            or_dash(&self.pool),
            self.standing.into(),
            if self.online { "online" } else { "offline" }.into(),
            progress,
        ]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    name: String,
    uuid: String,
    volume: String,
    state: &'static str,
    size_bytes: u64,
    created_unix_s: u64,
    holders: u32,
    replicas: u32,
}

impl From<wire::Snapshot> for Snapshot {
    fn from(snapshot: wire::Snapshot) -> Self {
        Self {
            state: match snapshot.state() {
                SnapshotState::Taking => "taking",
                SnapshotState::Ready => "ready",
                SnapshotState::Destroying => "destroying",
                SnapshotState::Lost => "lost",
                SnapshotState::Unspecified => "unknown",
            },
            name: snapshot.name,
            uuid: snapshot.uuid,
            volume: snapshot.volume,
            size_bytes: snapshot.size_bytes,
            created_unix_s: snapshot.created_unix_s,
            holders: snapshot.holders,
            replicas: snapshot.replicas,
        }
    }
}

impl Row for Snapshot {
    const HEAD: &'static [&'static str] =
        &["snapshot", "size", "state", "replicas", "created", "uuid"];

    fn cells(&self) -> Vec<String> {
        let created = match self.created_unix_s {
            0 => "-".into(),
            seconds => moment(seconds),
        };
        vec![
            or_dash(&self.name),
            size(self.size_bytes),
            self.state.into(),
            format!("{} of {}", self.holders, self.replicas),
            created,
            self.uuid.clone(),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Path {
    pub(super) engine: String,
    pub(super) nqn: String,
    pub(super) portals: Vec<String>,
    pub(super) access: &'static str,
}

impl From<wire::VolumePath> for Path {
    fn from(path: wire::VolumePath) -> Self {
        Self {
            access: match path.access() {
                Access::Optimized => "optimized",
                Access::Inaccessible => "inaccessible",
                Access::Unspecified => "gone",
            },
            engine: path.engine,
            nqn: path.nqn,
            portals: path.portals,
        }
    }
}

impl Row for Path {
    const HEAD: &'static [&'static str] = &["path", "portals", "access", "nqn"];

    fn cells(&self) -> Vec<String> {
        let portals = self.portals.join(",");
        vec![self.engine.clone(), portals, self.access.into(), self.nqn.clone()]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Event {
    unix_ms: u64,
    text: String,
}

impl From<wire::HistoryEvent> for Event {
    fn from(event: wire::HistoryEvent) -> Self {
        Self { unix_ms: event.unix_ms, text: event.text }
    }
}

impl Row for Event {
    const HEAD: &'static [&'static str] = &["when", "what"];

    fn cells(&self) -> Vec<String> {
        let millis = self.unix_ms % 1000;
        vec![format!("{}.{millis:03}", moment(self.unix_ms / 1000)), self.text.clone()]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Engine {
    node: String,
    id: String,
    state: &'static str,
    version: String,
    heard_ms: u64,
    portals: Vec<String>,
    boot: String,
    pools: u32,
    replicas: u32,
    serves: u32,
    stands_by: u32,
}

impl From<wire::Engine> for Engine {
    fn from(engine: wire::Engine) -> Self {
        Self {
            node: engine.node,
            id: engine.id,
            state: if engine.alive { "alive" } else { "gone" },
            version: engine.version,
            heard_ms: engine.heard_ms,
            portals: engine.portals,
            boot: engine.boot,
            pools: engine.pools,
            replicas: engine.replicas,
            serves: engine.serves,
            stands_by: engine.stands_by,
        }
    }
}

impl Row for Engine {
    const HEAD: &'static [&'static str] =
        &["node", "state", "heard", "portals", "pools", "replicas", "serves", "stands by"];

    fn cells(&self) -> Vec<String> {
        let heard = match self.heard_ms {
            u64::MAX => "never".into(),
            millis => format!("{}.{} s ago", millis / 1000, millis % 1000 / 100),
        };
        vec![
            self.node.clone(),
            self.state.into(),
            heard,
            self.portals.join(","),
            self.pools.to_string(),
            self.replicas.to_string(),
            self.serves.to_string(),
            self.stands_by.to_string(),
        ]
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}
