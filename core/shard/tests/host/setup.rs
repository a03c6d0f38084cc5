//! What shards are configured with.

use std::time::Duration;

use braid_block::{BlockSize, Geometry};
use braid_nvme::connect::Nqn;
use braid_nvme::host::Reconnect;
use braid_nvme::target::{ControllerModel, Portal};
use braid_shard::{
    BackendConfig, Config, HostConfig, Limits, NamespaceConfig, Paths, SubsystemConfig,
};

pub(crate) const NQN: &str = "nqn.2026-01.io.braid:test";
/// The node that is connected to, if nobody says otherwise.
pub(crate) const TARGET: usize = 1;
pub(crate) const BYTES: u64 = 4 << 20;

pub(crate) fn target() -> Config {
    let namespace = |nsid: u32, block| NamespaceConfig {
        nsid,
        ana_group: 1,
        nguid: [nsid as u8; 16],
        uuid: [nsid as u8 + 100; 16],
        geometry: Geometry::of_bytes(BYTES, block),
        backend: BackendConfig::Memory,
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    Config {
        shard: 0,
        shards: 1,
        subsystems: vec![SubsystemConfig {
            home: 0,
            nqn: NQN.into(),
            serial: "0123456789".into(),
            allowed_hosts: Vec::new(),
            controllers: ControllerModel::Dynamic,
            paths: Paths::default(),
            header_digest: true,
            data_digest: true,
            namespaces: vec![namespace(1, BlockSize::B4096), namespace(2, BlockSize::B512)],
        }],
        portals: vec![Portal { id: 1, address: "127.0.0.1:4420".parse().unwrap() }],
        limits: limits(),
    }
}

pub(crate) fn limits() -> Limits {
    Limits { connections_max: 32, ops_max: 512, ..Limits::default() }
}

pub(crate) fn nobody() -> Config {
    Config { subsystems: Vec::new(), portals: Vec::new(), ..target() }
}

pub(crate) fn host(subnqn: &str) -> HostConfig {
    let name = |text| Nqn::parse(text).unwrap();
    let mut controller = braid_nvme::host::Config::new(
        name(subnqn),
        name("nqn.2014-08.org.nvmexpress:uuid:me"),
        [7; 16],
    );
    controller.io_queues = 3;
    controller.queue_entries = 32;
    controller.reconnect = Reconnect {
        min: Duration::from_millis(100),
        max: Duration::from_secs(2),
        give_up: Some(Duration::from_secs(60)),
    };
    HostConfig { address: TARGET as u32, controller }
}
