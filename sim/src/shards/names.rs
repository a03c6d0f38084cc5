//! What things are called on the wire, and what an engine and its hosts are made with.

use std::time::Duration;

use braid_block::{BlockSize, Geometry};
use braid_nexus::{Status as Said, Uuid};
use braid_nvme::Status;
use braid_nvme::ana::AnaState;
use braid_nvme::connect::Nqn;
use braid_nvme::host::Reconnect;
use braid_nvme::target::{ControllerModel, Portal};
use braid_shard::{BackendConfig, Config, Limits, NamespaceConfig, Paths, SubsystemConfig};

/// The namespace of a volume and of a replica.
pub(super) const NSID: u32 = 1;
/// Controller ids that an engine gives out for a volume.
const CONTROLLERS: u16 = 4000;
/// A host that is not heard for so long is gone, and an engine for its host.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// A step of connecting that takes a host longer has failed.
const CONNECT: Duration = Duration::from_secs(3);
/// Bytes of a shard's arena: what engines are given by default, and hosts here.
pub(super) const ARENA: u64 = 64 << 20;
/// Arenas that engines have here: in the smaller ones commands wait for buffers, and for each
/// other.
pub(super) const ARENAS: [u64; 3] = [2 << 20, 8 << 20, ARENA];
/// Bytes of an arena for each connection, as an engine reckons; and connections in any arena.
const ARENA_PER_CONNECTION: u64 = 128 << 10;
const CONNECTIONS: std::ops::RangeInclusive<u64> = 24..=128;

fn name(text: &str) -> Nqn {
    Nqn::parse(text).expect("a name that is short and plain")
}

/// The name of a volume.
pub(super) fn volume_nqn(volume: &Uuid) -> String {
    format!("nqn.2026-01.io.braid:volume:{:02x}{:02x}", volume[0], volume[1])
}

/// The name of an engine among replicas.
pub(super) fn engine_nqn(node: u8) -> Nqn {
    name(&format!("nqn.2026-01.io.braid:engine:n{node}"))
}

/// What a shard is told at its start.
pub(super) fn shard(portals: Vec<Portal>, arena_bytes: u64) -> Config {
    let connections = arena_bytes / ARENA_PER_CONNECTION;
    let connections = connections.clamp(*CONNECTIONS.start(), *CONNECTIONS.end());
    let limits = Limits {
        connections_max: u32::try_from(connections).expect("few connections"),
        ops_max: 1024,
        effects_max: 4096,
        arena_bytes,
        ..Limits::default()
    };
    Config { shard: 0, shards: 1, subsystems: Vec::new(), portals, limits }
}

/// Where an engine is listened for.
pub(super) fn portal(node: u8) -> Portal {
    let address = std::net::SocketAddr::from(([10, 0, 0, node + 1], 4420));
    Portal { id: 1, address }
}

fn subsystem(nqn: String, paths: Paths, namespace: NamespaceConfig) -> SubsystemConfig {
    SubsystemConfig {
        home: 0,
        serial: format!("{:02x}{:02x}", namespace.uuid[0], namespace.uuid[1]),
        nqn,
        allowed_hosts: Vec::new(),
        controllers: ControllerModel::Dynamic,
        paths,
        header_digest: true,
        data_digest: true,
        namespaces: vec![namespace],
    }
}

fn namespace(uuid: Uuid, bytes: u64, backend: BackendConfig) -> NamespaceConfig {
    NamespaceConfig {
        nsid: NSID,
        ana_group: 1,
        nguid: uuid,
        uuid,
        geometry: Geometry::of_bytes(bytes, BlockSize::B512),
        backend,
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    }
}

/// How nexuses reach a replica.
pub(super) fn member(replica: Uuid, bytes: u64) -> SubsystemConfig {
    let backend = BackendConfig::Member { replica };
    let nqn = braid_shard::member_nqn(&replica);
    subsystem(nqn, Paths::default(), namespace(replica, bytes, backend))
}

/// How hosts reach a volume by this engine.
pub(super) fn volume(node: u8, volume: Uuid, bytes: u64) -> SubsystemConfig {
    let cntlid_min = u16::from(node) * CONTROLLERS + 1;
    let cntlid_max = cntlid_min + CONTROLLERS - 1;
    let paths = Paths { cntlid_min, cntlid_max, state: AnaState::Inaccessible };
    let backend = BackendConfig::Volume { volume };
    subsystem(volume_nqn(&volume), paths, namespace(volume, bytes, backend))
}

/// How a host connects to a volume: once, for it decides itself when to connect again.
pub(super) fn host(volume: &Uuid, id: Uuid, origin: u64) -> braid_nvme::host::Config {
    let hostnqn = name(&format!("nqn.2014-08.org.nvmexpress:uuid:host-{:02x}-{origin}", id[0]));
    let mut config = braid_nvme::host::Config::new(name(&volume_nqn(volume)), hostnqn, id);
    config.kato = KEEP_ALIVE;
    config.connect_timeout = CONNECT;
    config.reconnect =
        Reconnect { min: Duration::ZERO, max: Duration::ZERO, give_up: Some(Duration::ZERO) };
    config
}

/// What a host makes of an answer. Where a medium is bad no status says: who asked for one block
/// knows.
pub(super) fn said(status: Status, first: u64) -> Said {
    match status {
        status if status.is_success() => Said::Success,
        status if status.is_path_error() => Said::Inaccessible,
        status if status.is(Status::WRITE_FAULT) => Said::WriteFault { dnr: status.do_not_retry() },
        status if status.is(Status::CAPACITY_EXCEEDED) => Said::NoSpace,
        status if status.is(Status::UNRECOVERED_READ) => Said::Media(first),
        status if status.do_not_retry() => Said::Invalid,
        _ => Said::Busy,
    }
}
