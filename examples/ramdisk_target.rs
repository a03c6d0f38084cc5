//! A target in one file: 64 MiB of memory as an NVMe namespace, for as long as stdin stays open.
//!
//! ```text
//! cargo run -p braid-examples --bin ramdisk_target
//! nvme connect -t tcp -a 127.0.0.1 -s PORT -n nqn.2026-01.io.braid:ramdisk
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Read};
use std::thread;

use braid_block::{BlockSize, Geometry};
use braid_nvme::target::{ControllerModel, Portal};
use braid_reactor::{Application, Listener, Options, Reactor, World, mesh};
use braid_shard::{
    BackendConfig, Config, Limits, NamespaceConfig, Note, Paths, Shard, SubsystemConfig,
};

fn main() -> Result<(), Box<dyn Error>> {
    let listener = Listener::bind("127.0.0.1:0".parse()?)?;
    let portal = Portal { id: 1, address: listener.address() };
    let shard = Shard::new(config(portal));
    let port = mesh(1).remove(0);
    let reactor = Reactor::new(Options::default(), port, Vec::new(), vec![listener], Vec::new())?;
    println!("listening at {}", portal.address);

    // Orders from other threads reach the shard as controls; this one says: stop.
    let remote = reactor.remote();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = remote.post(());
    });
    reactor.run(shard, Ramdisk { drained: false })?;
    println!("stopped");
    Ok(())
}

/// One subsystem with one namespace. Everything else has a default.
fn config(portal: Portal) -> Config {
    let namespace = NamespaceConfig {
        nsid: 1,
        ana_group: 1,
        nguid: [0x42; 16],
        uuid: [0x42; 16],
        geometry: Geometry::of_bytes(64 << 20, BlockSize::B4096),
        backend: BackendConfig::Memory,
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    let subsystem = SubsystemConfig {
        home: 0,
        nqn: "nqn.2026-01.io.braid:ramdisk".into(),
        serial: "RAMDISK".into(),
        allowed_hosts: Vec::new(),
        controllers: ControllerModel::Dynamic,
        paths: Paths::default(),
        header_digest: true,
        data_digest: true,
        namespaces: vec![namespace],
    };
    Config {
        shard: 0,
        shards: 1,
        subsystems: vec![subsystem],
        portals: vec![portal],
        limits: Limits::default(),
    }
}

/// What lives beside the shard on its thread: hears its notes, and says when the run is over.
struct Ramdisk {
    drained: bool,
}

impl Application for Ramdisk {
    type Control = ();

    fn note(&mut self, _: &Shard, _: &mut World<'_>, note: Note) {
        self.drained |= matches!(note, Note::Drained);
        println!("{note:?}");
    }

    fn control(&mut self, shard: &mut Shard, world: &mut World<'_>, (): ()) {
        // Commands in flight finish, hosts see an orderly close, then comes `Drained`.
        shard.stop(world.mem, world.now);
    }

    fn finished(&self, _: &Shard) -> bool {
        self.drained
    }
}
