//! P6: what an engine with 100 namespaces and connected hosts takes when nothing happens.

use std::io;
use std::time::{Duration, Instant};

use crate::machine::{Server, Setup};
use crate::measure::{self, Figure, count};
use crate::table::{Aim, Row};
use crate::wire::{Controller, NQN};

const NAMESPACES: usize = 100;
/// Hosts, with an admin queue and an I/O queue each.
const HOSTS: u8 = 8;
/// Keep alive time-out, where it is on: Linux asks for 5 s and says that it is there twice in it.
const KATO: Duration = Duration::from_secs(5);

/// Without keep alive, then with it.
pub(crate) fn rows(setup: &Setup, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let namespaces = ["mem:1MiB"; NAMESPACES];
    let (engine, address) = Server::engine(setup, &namespaces)?;
    for (kato, name) in [(Duration::ZERO, "no keep alive"), (KATO, "keep alive 5 s")] {
        let mut hosts = Vec::new();
        for host in 0..HOSTS {
            let controller = Controller::connect(address, NQN, host, kato)?;
            let queue = controller.queue(1)?;
            hosts.push((controller, queue));
        }
        // Let what belongs to the connecting pass.
        std::thread::sleep(Duration::from_secs(2).min(Duration::from_secs(setup.idle)));
        let share = watch(&engine, &mut hosts, kato, Duration::from_secs(setup.idle))?;
        told(cpu_row(name, share));
    }
    told(memory_row(measure::resident(engine.pid())?));
    Ok(())
}

/// Per cent of a core that the engine takes.
fn watch<Q>(
    engine: &Server,
    hosts: &mut [(Controller, Q)],
    kato: Duration,
    time: Duration,
) -> io::Result<f64> {
    let (begun, before) = (Instant::now(), measure::cpu_time(engine.pid())?);
    while begun.elapsed() < time {
        if kato.is_zero() {
            std::thread::sleep(time);
            continue;
        }
        std::thread::sleep(kato / 2);
        hosts.iter_mut().try_for_each(|(controller, _)| controller.keep_alive())?;
    }
    let used = measure::cpu_time(engine.pid())?.saturating_sub(before);
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
}

fn cpu_row(name: &str, share: f64) -> Row {
    let share = Figure::of(vec![share]);
    Row {
        id: "P6",
        what: format!("idle, 100 namespaces, 16 connections, {name}"),
        unit: "%",
        ours: share,
        other: None,
        counts: share,
        aim: Aim::AtMost(1.0),
        aim_text: "< 1 % of a core".to_owned(),
    }
}

fn memory_row(bytes: u64) -> Row {
    // The namespaces were never written to, so none of their own memory is resident.
    let resident = Figure::of(vec![count(bytes >> 10) / 1024.0]);
    Row {
        id: "P6",
        what: "resident memory of it".to_owned(),
        unit: "MiB",
        ours: resident,
        other: None,
        counts: resident,
        aim: Aim::AtMost(64.0),
        aim_text: "< 64 MiB".to_owned(),
    }
}
