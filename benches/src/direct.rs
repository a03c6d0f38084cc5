//! A shard on a file without TCP: the reactor and the shard are the engine's, but commands come
//! from and answers go to memory of this process.

use std::io::{self, BufRead};
use std::path::Path;
use std::time::Duration;

use braid_block::{BlockSize, Geometry, Instant};
use braid_nvme::target::ControllerModel;
use braid_reactor::{Application, OpenDisk, OpenOptions, Options, Reactor, World, mesh};
use braid_shard::{
    BackendConfig, Config, Disk, Limits, NamespaceConfig, Note, Paths, Shard, SubsystemConfig,
};

use crate::load::Way;
use crate::loopback::Loopback;
use crate::wire::{NQN, bad};

/// Takes lines `read|write DEPTH MILLISECONDS`, answers `DONE NANOSECONDS`.
pub(crate) fn serve(path: &Path) -> io::Result<()> {
    let how = OpenOptions { exclusive: false, ..OpenOptions::default() };
    let disk = OpenDisk::open(path, &how).map_err(io::Error::other)?;
    let config = config(&disk);
    let blocks = disk.size / 4096;
    let port = mesh(1).remove(0);
    let reactor = Reactor::new(Options::default(), port, vec![disk], vec![], vec![])
        .map_err(io::Error::other)?;
    let remote = reactor.remote();
    std::thread::spawn(move || {
        let machine = Loopback::new(Shard::new(config), blocks);
        let ended = reactor.run(machine, Driver { until: None });
        if let Err(error) = ended {
            eprintln!("braid-bench: {error}");
        }
    });
    println!("ready");
    for line in io::stdin().lock().lines() {
        let order = parse(&line?).ok_or_else(|| bad("not an order".to_owned()))?;
        remote.post(order).map_err(|_| bad("the shard ended".to_owned()))?;
    }
    Ok(())
}

/// So many at a time, for so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    way: Way,
    depth: u16,
    time: Duration,
}

fn parse(line: &str) -> Option<Order> {
    let mut words = line.split(' ');
    let way = match words.next()? {
        "read" => Way::Read,
        "write" => Way::Write,
        _ => return None,
    };
    let (depth, millis) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Order { way, depth, time: Duration::from_millis(millis) })
}

fn config(disk: &OpenDisk) -> Config {
    let namespace = NamespaceConfig {
        nsid: 1,
        ana_group: 1,
        nguid: [1; 16],
        uuid: [1; 16],
        geometry: Geometry::of_bytes(disk.size, BlockSize::B4096),
        backend: BackendConfig::Disk { disk: Disk(0), discards: false, atomic_blocks: 1 },
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    let subsystem = SubsystemConfig {
        home: 0,
        nqn: NQN.to_owned(),
        serial: "bench".to_owned(),
        allowed_hosts: Vec::new(),
        controllers: ControllerModel::Dynamic,
        paths: Paths::default(),
        header_digest: false,
        data_digest: false,
        namespaces: vec![namespace],
    };
    let limits = Limits::default();
    Config { shard: 0, shards: 1, subsystems: vec![subsystem], portals: Vec::new(), limits }
}

/// Starts and ends a slice.
struct Driver {
    /// When the slice ends, when it began, and what was done before.
    until: Option<(Instant, Instant, u64)>,
}

impl Application<Loopback> for Driver {
    type Control = Order;

    fn note(&mut self, _machine: &Loopback, _world: &mut World<'_>, _note: Note) {}

    fn control(&mut self, machine: &mut Loopback, world: &mut World<'_>, order: Order) {
        machine.load(order.way, order.depth);
        self.until = Some((world.now + order.time, world.now, machine.done()));
    }

    fn turn(&mut self, machine: &mut Loopback, world: &mut World<'_>) {
        if let Some((until, begun, before)) = self.until
            && world.now >= until
        {
            machine.rest();
            self.until = None;
            println!("{} {}", machine.done() - before, world.now.since(begun).as_nanos());
        }
    }

    fn timeout(&self) -> Option<Instant> {
        self.until.map(|(until, ..)| until)
    }

    fn finished(&self, _machine: &Loopback) -> bool {
        false
    }
}
