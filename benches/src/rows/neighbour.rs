//! P10: a quiet connection beside a loud one, each with a namespace of its own, on one shard.

use std::io;
use std::time::{Duration, Instant};

use super::{MEMORY, MEMORY_BLOCKS, controller, fill};
use crate::load::{Load, Way};
use crate::machine::{Server, Setup};
use crate::measure::{Figure, SLICE, Slice, column, count};
use crate::table::{Aim, Row};

/// What is seen in a slice of both at once, or of one alone.
#[derive(Default)]
struct Seen {
    quiet_p99: Vec<f64>,
    loud: Vec<Slice>,
}

/// Both aims, for reads beside reads and reads beside writes.
pub(crate) fn rows(setup: &Setup, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let (_engine, address) = Server::engine(setup, &[MEMORY, MEMORY])?;
    let controller = controller(address, 1)?;
    for nsid in [1, 2] {
        fill(&controller, nsid, MEMORY_BLOCKS)?;
    }
    for way in [Way::Read, Way::Write] {
        let mut quiet = Load::new(controller.queue(1)?, Way::Read, 1, 1, MEMORY_BLOCKS);
        let loud = Load::new(controller.queue(2)?, way, 2, 128, MEMORY_BLOCKS);
        let mut loud = loud.gently(16);
        let (mut alone, mut both) = (Seen::default(), Seen::default());
        for _ in 0..setup.rounds() {
            run(&mut [&mut quiet], &mut alone)?;
            run_loud(&mut loud, &mut alone)?;
            run(&mut [&mut quiet, &mut loud], &mut both)?;
        }
        told(latency_row(way, &alone, &both));
        told(throughput_row(way, &alone, &both));
    }
    Ok(())
}

fn latency_row(way: Way, alone: &Seen, both: &Seen) -> Row {
    Row {
        id: "P10",
        what: format!("p99 of QD 1 beside QD 128 {}s; other: alone", way.name()),
        unit: "us",
        ours: Figure::of(both.quiet_p99.clone()),
        other: Some(Figure::of(alone.quiet_p99.clone())),
        counts: Figure::ratio(&both.quiet_p99, &alone.quiet_p99),
        aim: Aim::AtMost(4.0),
        aim_text: "<= 4x alone".to_owned(),
    }
}

fn throughput_row(way: Way, alone: &Seen, both: &Seen) -> Row {
    let (beside, by_itself) = (column(&both.loud, |s| s.iops), column(&alone.loud, |s| s.iops));
    Row {
        id: "P10",
        what: format!("QD 128 {}s beside QD 1; other: alone", way.name()),
        unit: "IOPS",
        counts: Figure::ratio(&beside, &by_itself),
        ours: Figure::of(beside),
        other: Some(Figure::of(by_itself)),
        aim: Aim::AtLeast(0.8),
        aim_text: ">= 0.80x alone".to_owned(),
    }
}

fn run_loud(loud: &mut Load, seen: &mut Seen) -> io::Result<()> {
    let (done, took) = loud.run(SLICE)?;
    seen.loud.push(Slice::new(done, took, Duration::ZERO));
    Ok(())
}

/// The first is the quiet one; it is looked at before and after each piece of the other.
fn run(loads: &mut [&mut Load], seen: &mut Seen) -> io::Result<()> {
    let before: Vec<u64> = loads.iter().map(|load| load.done).collect();
    loads[0].watch();
    loads.iter_mut().try_for_each(|load| load.begin())?;
    let begun = Instant::now();
    while begun.elapsed() < SLICE {
        for at in 0..loads.len() {
            if at > 0 && loads[0].take()? {
                loads[0].fill()?;
            }
            if loads[at].take()? {
                if at > 0 && loads[0].take()? {
                    loads[0].fill()?;
                }
                loads[at].fill()?;
            }
        }
    }
    let took = begun.elapsed();
    for load in loads.iter().skip(1) {
        seen.loud.push(Slice::new(load.done - before[1], took, Duration::ZERO));
    }
    let p99 = loads[0].latency.as_ref().map_or(0, |l| l.value_at_quantile(0.99));
    seen.quiet_p99.push(count(p99) / 1e3);
    loads[0].latency = None;
    loads.iter_mut().try_for_each(|load| load.drain())
}
