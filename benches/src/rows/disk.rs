//! P3: a namespace on a file beside fio on the same file, without TCP and with it.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::controller;
use crate::fio::{self, Job};
use crate::load::{Load, Way};
use crate::machine::{Server, Setup};
use crate::measure::{Figure, Slice, column};
use crate::table::{Aim, Row};
use crate::wire::bad;

const DEPTH: u16 = 32;
/// A slice: longer than elsewhere, because fio takes a while to start.
const LONG: Duration = Duration::from_secs(1);
/// Before each slice; for fio its own start is a part of it. A disk that is limited lets one save
/// up for a burst, so that all must have had the same rest.
const PAUSE: Duration = Duration::from_millis(800);
const FILE_BYTES: u64 = 1 << 30;

/// Slices of all three.
#[derive(Default)]
struct Seen {
    fio: Vec<Slice>,
    shard: Vec<Slice>,
    tcp: Vec<Slice>,
}

/// Reads, then writes.
pub(crate) fn rows(setup: &Setup, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let path = setup.folder.join("disk.img");
    prefill(&path)?;
    let name = path.to_str().ok_or_else(|| bad("the folder's name is not UTF-8".to_owned()))?;
    for (way, aim) in [(Way::Read, 0.95), (Way::Write, 0.91)] {
        let seen = in_turn(setup, name, way)?;
        for row in compared(way, aim, &seen) {
            told(row);
        }
    }
    std::fs::remove_file(&path)
}

fn in_turn(setup: &Setup, name: &str, way: Way) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut shard = Server::ourselves(setup, &["shard", name])?;
    shard.line()?;
    let uri = format!("file:{name}");
    let (engine, address) = Server::engine(setup, &[&uri])?;
    let controller = controller(address, 1)?;
    let blocks = FILE_BYTES / 4096;
    let mut load = Load::new(controller.queue(1)?, way, 1, DEPTH, blocks);
    let mut start = Duration::from_millis(400);
    for round in 0..setup.rounds().div_ceil(4) {
        for turn in 0..3 {
            let which = (round + turn) % 3;
            std::thread::sleep(if which == 0 { PAUSE.saturating_sub(start) } else { PAUSE });
            match which {
                0 => {
                    let begun = Instant::now();
                    seen.fio.push(fio(setup, name, way)?);
                    start = begun.elapsed().saturating_sub(LONG);
                }
                1 => seen.shard.push(direct(&mut shard, way)?),
                _ => seen.tcp.push(engine.slice(|| load.run(LONG))?),
            }
        }
    }
    Ok(seen)
}

fn compared(way: Way, aim: f64, seen: &Seen) -> [Row; 3] {
    let name = way.name();
    let iops = |slices: &[Slice]| column(slices, |s| s.iops);
    let cpu = |slices: &[Slice]| column(slices, |s| s.cpu);
    let row = |what: String, ours: Vec<f64>, other: Vec<f64>, aim: Aim, aim_text: String| Row {
        id: "P3",
        what,
        unit: "IOPS",
        counts: Figure::ratio(&ours, &other),
        ours: Figure::of(ours),
        other: Some(Figure::of(other)),
        aim,
        aim_text,
    };
    let at_shard = format!("{name} 4 KiB, QD 32, file, at the shard; other: fio");
    let by_tcp = format!("{name} 4 KiB, QD 32, file, through TCP; other: fio");
    let mut cost = row(
        format!("{name} 4 KiB, QD 32, file, CPU per I/O; other: fio"),
        cpu(&seen.shard),
        cpu(&seen.fio),
        Aim::None,
        String::new(),
    );
    cost.unit = "us";
    [
        row(at_shard, iops(&seen.shard), iops(&seen.fio), Aim::AtLeast(aim), format!(">= {aim}x")),
        row(by_tcp, iops(&seen.tcp), iops(&seen.fio), Aim::None, String::new()),
        cost,
    ]
}

/// Writes the whole file once, so that no read finds a hole and no write makes an extent.
fn prefill(path: &Path) -> io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    let piece: Vec<u8> = (0..1_u32 << 20).flat_map(|i| (i * 2_654_435_761).to_le_bytes()).collect();
    for _ in 0..FILE_BYTES / (4 << 20) {
        file.write_all(&piece)?;
    }
    file.sync_all()
}

/// A slice by fio.
fn fio(setup: &Setup, name: &str, way: Way) -> io::Result<Slice> {
    let range = (0, 0);
    let job = Job { way, random: true, depth: DEPTH, flush_every: 0, range, time: LONG };
    fio::slice(setup, name, &job)
}

/// A slice by the shard without TCP.
fn direct(shard: &mut Server, way: Way) -> io::Result<Slice> {
    let question = format!("{} {DEPTH} {}", way.name(), LONG.as_millis());
    let before = crate::measure::cpu_time(shard.pid())?;
    let answer = shard.ask(&question)?;
    let cpu = crate::measure::cpu_time(shard.pid())?.saturating_sub(before);
    let mut numbers = answer.split(' ').map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(done)), Some(Ok(nanos))) => Ok(Slice::new(done, Duration::from_nanos(nanos), cpu)),
        _ => Err(bad(format!("'{answer}' from the shard"))),
    }
}
