//! P4: a plain replica, and volumes with 1, 2 and 3 members, all served by the same engine. Nothing
//! is pinned and the load sleeps while it waits: all engines share the machine.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use braid_chaos::{Cluster, ENGINES, Place, Volume};

use super::{Wanted, make, there, whole};
use crate::load::{Load, Way};
use crate::measure::{Figure, SLICE, Slice, column, cpu_time};
use crate::table::{Aim, Row};
use crate::wire::{Controller, bad};

/// Bytes of each, written once before anything is measured.
const BYTES: u64 = 256 << 20;
const BLOCKS: u64 = BYTES / 4096;
/// The engine that serves all of them.
const SERVES: usize = 0;
/// Writes between two flushes, where there are any.
const FLUSH_EVERY: u32 = 32;

/// The plain replica, then volumes by their members.
const SIDES: [&str; ENGINES + 1] = ["plain", "one", "two", "three"];

/// A load.
#[derive(Clone, Copy, Debug)]
struct Kind {
    way: Way,
    depth: u16,
    flush_every: u32,
}

impl Kind {
    fn name(&self) -> String {
        let fsync = if self.flush_every > 0 { ", fsync every 32" } else { "" };
        format!("{} 4 KiB, QD {}{fsync}", self.way.name(), self.depth)
    }
}

/// Reads, writes and flushed writes, alone and 32 at a time.
pub(super) fn rows(
    cluster: &Cluster,
    wanted: &Wanted,
    told: &mut dyn FnMut(Row),
) -> io::Result<()> {
    let address = there(Cluster::portals().get(SERVES).copied(), "portal")?;
    let mut controllers = Vec::new();
    for (host, nqn) in (1..).zip(subsystems(cluster)?) {
        controllers.push(filled(address, &nqn, host)?);
    }
    for (way, flush_every) in [(Way::Read, 0), (Way::Write, 0), (Way::Write, FLUSH_EVERY)] {
        for depth in [1, 32] {
            let kind = Kind { way, depth, flush_every };
            in_turn(cluster, &controllers, kind, wanted.slices.div_ceil(2))?
                .into_iter()
                .for_each(&mut *told);
        }
    }
    Ok(())
}

/// Makes all sides; the names of their subsystems.
fn subsystems(cluster: &Cluster) -> io::Result<Vec<String>> {
    let size = BYTES.to_string();
    cluster.tell(SERVES, &["replica", "create", SIDES[0], "--size", &size]).map_err(bad)?;
    let shared = cluster.tell(SERVES, &["replica", "share", SIDES[0], "-o", "json"]);
    let shared: serde_json::Value = serde_json::from_str(&shared.map_err(bad)?)?;
    let mut found = vec![there(shared["share"]["nqn"].as_str(), "subsystem")?.to_owned()];
    for (members, name) in SIDES.iter().enumerate().skip(1) {
        let replicas: Vec<usize> = (0..members).collect();
        let volume = Volume { name, bytes: BYTES, replicas: &replicas, standbys: 1 };
        make(cluster, &volume)?;
        cluster.hand_over(name, SERVES).map_err(bad)?;
        let seen = whole(cluster, name, 2)?;
        if seen.serves != Some(SERVES) {
            return Err(bad(format!("volume {name} is not served by {}", Place::Engine(0).name())));
        }
        found.push(there(seen.nqn, "path")?);
    }
    Ok(found)
}

/// A controller of a namespace of which every block was written.
fn filled(address: SocketAddr, nqn: &str, host: u8) -> io::Result<Controller> {
    let mut controller = Controller::connect(address, nqn, host, Duration::ZERO)?;
    controller.read_ana()?;
    let fill = Load::new(controller.queue(1)?, Way::Write, 1, 64, BLOCKS);
    fill.sequential().run_count(BLOCKS)?;
    Ok(controller)
}

fn in_turn(
    cluster: &Cluster,
    controllers: &[Controller],
    kind: Kind,
    rounds: usize,
) -> io::Result<Vec<Row>> {
    let mut loads = Vec::new();
    for controller in controllers {
        let load = Load::new(controller.queue(1)?, kind.way, 1, kind.depth, BLOCKS);
        loads.push(load.flushing(kind.flush_every).sleeping());
    }
    let mut seen: Vec<Vec<Slice>> = vec![Vec::new(); loads.len()];
    for round in 0..rounds {
        for turn in 0..loads.len() {
            let side = (round + turn) % loads.len();
            let before = spent(cluster)?;
            let (done, took) = loads[side].run(SLICE)?;
            seen[side].push(Slice::new(done, took, spent(cluster)?.saturating_sub(before)));
        }
    }
    let rows = (1..seen.len()).flat_map(|members| compared(kind, members, &seen));
    Ok(rows.collect())
}

/// CPU time of all engines.
fn spent(cluster: &Cluster) -> io::Result<Duration> {
    let pids = (0..ENGINES).filter_map(|engine| cluster.process(Place::Engine(engine)));
    pids.map(cpu_time).sum()
}

fn compared(kind: Kind, members: usize, seen: &[Vec<Slice>]) -> [Row; 2] {
    let aim = match members {
        // It takes the same path as all, and is to pay nothing for it.
        1 => (Aim::AtLeast(0.91), ">= 0.91x".to_owned()),
        ENGINES if kind.flush_every > 0 && kind.depth > 1 => {
            (Aim::AtLeast(0.6), ">= 0.60x".to_owned())
        }
        _ => (Aim::None, String::new()),
    };
    let row = |what, unit, of: fn(&Slice) -> f64, (aim, aim_text)| {
        let (ours, other) = (column(&seen[members], of), column(&seen[0], of));
        Row {
            id: "P4",
            what,
            unit,
            counts: Figure::ratio(&ours, &other),
            ours: Figure::of(ours),
            other: Some(Figure::of(other)),
            aim,
            aim_text,
        }
    };
    let plural = if members == 1 { "" } else { "s" };
    let name = format!("{}, {members} member{plural}", kind.name());
    [
        row(name.clone(), "IOPS", |slice| slice.iops, aim),
        row(format!("{name}, CPU"), "us", |slice| slice.cpu, (Aim::None, String::new())),
    ]
}
