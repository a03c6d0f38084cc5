//! Replicas of a pool beside fio. The pool has the first part of a file, fio the last.

use std::io;
use std::time::Duration;

use super::{Pool, Scratch, Wanted, Which};
use crate::fio::{self, Job};
use crate::load::Way;
use crate::machine::{Setup, pinned};
use crate::measure::{Figure, Slice, column, count};
use crate::pool::{Counts, Order, Pattern, Run};
use crate::table::{Aim, Row};
use crate::wire::bad;

/// A slice.
const TIME: Duration = Duration::from_millis(500);
/// Before each: a disk that is limited lets one save up for a burst, so that all must have had
/// the same rest. Starting takes fio longer than this.
const PAUSE: Duration = Duration::from_millis(300);
/// How many times a replica's bytes the pool has.
const SHARES: u64 = 6;
/// How many times a replica's bytes are read where checksums are to be missed.
const MISSED_SHARES: u64 = 4;
/// Snapshots of the chain.
const CHAIN: u8 = 64;

/// The replica that is mapped; the one with the chain; the snapshot that clones are made of; the
/// first of the chain's snapshots; the one that is made for a slice and goes away after it.
const MAPPED: u8 = 1;
const CHAINED: u8 = 2;
const ORIGIN: u8 = 3;
const LINKS: u8 = 64;
const FRESH: u8 = 200;

/// What stands beside fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Mapped,
    First,
    Snapshot,
    Chain,
    Missed,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::First => "first",
            Self::Snapshot => "after a snapshot",
            Self::Chain => "chain of 64",
            Self::Missed => "checksums missed",
        }
    }

    const fn which(self) -> Which {
        match self {
            Self::Mapped => Which::Mapped,
            Self::First => Which::First,
            Self::Snapshot => Which::Snapshot,
            Self::Chain => Which::Chain,
            Self::Missed => Which::Missed,
        }
    }
}

/// One kind of load, and who does it.
#[derive(Clone, Copy, Debug)]
struct Kind {
    way: Way,
    random: bool,
    depth: u16,
    flush_every: u32,
    sides: &'static [Side],
}

const READERS: &[Side] = &[Side::Mapped, Side::Chain];
const RANDOM: &[Side] = &[Side::Mapped, Side::First, Side::Snapshot];
const SEQUENTIAL: &[Side] = &[Side::Mapped, Side::First];

const fn kind(way: Way, random: bool, depth: u16, every: u32, sides: &'static [Side]) -> Kind {
    Kind { way, random, depth, flush_every: every, sides }
}

const KINDS: [Kind; 10] = [
    kind(Way::Read, true, 1, 0, READERS),
    kind(Way::Read, true, 32, 0, READERS),
    kind(Way::Write, true, 1, 0, RANDOM),
    kind(Way::Write, true, 32, 0, RANDOM),
    kind(Way::Write, true, 1, 32, RANDOM),
    kind(Way::Write, true, 32, 32, RANDOM),
    kind(Way::Write, false, 1, 0, SEQUENTIAL),
    kind(Way::Write, false, 32, 0, SEQUENTIAL),
    kind(Way::Write, false, 1, 32, SEQUENTIAL),
    kind(Way::Write, false, 32, 32, SEQUENTIAL),
];

const MISSED: [Kind; 2] =
    [kind(Way::Read, true, 1, 0, &[Side::Missed]), kind(Way::Read, true, 32, 0, &[Side::Missed])];

impl Kind {
    fn name(&self) -> String {
        let order = if self.random { "random" } else { "sequential" };
        let flushes = match self.flush_every {
            0 => String::new(),
            every => format!(", fsync every {every}"),
        };
        format!("{} {order}, QD {}{flushes}", self.way.name(), self.depth)
    }

    const fn aim(&self, side: Side) -> f64 {
        match (self.way, side) {
            (Way::Read, Side::Missed) => 0.55,
            (Way::Read, _) => 0.95,
            (Way::Write, _) => 0.91,
        }
    }

    /// The load on one of the pool's replicas.
    fn run(&self, side: Side, bytes: u64) -> Run {
        let id = match side {
            Side::Mapped | Side::Missed => MAPPED,
            Side::Chain => CHAINED,
            Side::First | Side::Snapshot => FRESH,
        };
        let bytes = if side == Side::Missed { MISSED_SHARES * bytes } else { bytes };
        let pattern = match (self.random, side) {
            (false, _) => Pattern::Sequential,
            (true, Side::First | Side::Snapshot) => Pattern::Once,
            (true, _) => Pattern::Random,
        };
        let run = Run::new(id, self.way, pattern, self.depth, bytes);
        Run { flush_every: self.flush_every, time: TIME, ..run }
    }
}

/// Where everything is.
struct Bed<'a> {
    setup: &'a Setup,
    wanted: &'a Wanted,
    file: Scratch,
    name: String,
    /// Bytes of a replica, and of fio's part.
    bytes: u64,
    /// Bytes of the pool.
    pool: u64,
}

pub(super) fn rows(setup: &Setup, wanted: &Wanted, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let bytes = wanted.gib << 30;
    let path = setup.folder.join("pool.img");
    let name = path.to_str().ok_or_else(|| bad("the folder's name is not UTF-8".to_owned()))?;
    let name = name.to_owned();
    let bed = Bed { setup, wanted, file: Scratch(path), name, bytes, pool: SHARES * bytes };
    bed.prefill()?;
    Pool::make(setup, &bed.file.0, &["--bytes", &bed.pool.to_string()])?;
    let mut pool = bed.open(&[])?;
    bed.prepare(&mut pool)?;
    if wanted.has(Which::Amplification) {
        pool.stop()?;
        amplification(&bed, told)?;
        pool = bed.open(&[])?;
    }
    bed.compare(&mut pool, &KINDS, told)?;
    pool.stop()?;
    if wanted.has(Which::Missed) {
        missed(&bed, told)?;
    }
    Ok(())
}

impl Bed<'_> {
    fn open(&self, options: &[&str]) -> io::Result<Pool> {
        let bytes = self.pool.to_string();
        Pool::open(self.setup, &self.file.0, &[&["--bytes", &bytes], options].concat())
    }

    /// Writes the whole file once, so that no read finds a hole and no write makes an extent.
    fn prefill(&self) -> io::Result<()> {
        let mut command = pinned(self.setup);
        command
            .args(["fio", "--name=prefill", "--ioengine=io_uring", "--direct=1", "--bs=1m"])
            .args(["--rw=write", "--iodepth=8", "--thread", "--output-format=terse"])
            .args(["--end_fsync=1", "--refill_buffers=1", "--output=/dev/null"])
            .arg(format!("--filename={}", self.name))
            .arg(format!("--size={}", self.pool + self.bytes));
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(bad(format!("fio: {status}"))) }
    }

    /// Makes and fills the replicas.
    fn prepare(&self, pool: &mut Pool) -> io::Result<()> {
        let bytes = self.bytes;
        pool.order(&Order::Replica { id: MAPPED, bytes })?;
        pool.run(Run::fill(MAPPED, 0, bytes))?;
        if !self.wanted.has(Which::Chain) && !self.wanted.has(Which::Snapshot) {
            return Ok(());
        }
        pool.order(&Order::Replica { id: CHAINED, bytes })?;
        pool.run(Run::fill(CHAINED, 0, bytes))?;
        pool.order(&Order::Snapshot { of: CHAINED, id: ORIGIN })?;
        // Each link has a part of the blocks, so that a block is as likely near as far.
        let part = bytes / u64::from(CHAIN);
        for link in 0..CHAIN {
            pool.run(Run::fill(CHAINED, u64::from(link) * part, part))?;
            pool.order(&Order::Snapshot { of: CHAINED, id: LINKS + link })?;
        }
        Ok(())
    }

    fn compare(
        &self,
        pool: &mut Pool,
        kinds: &[Kind],
        told: &mut dyn FnMut(Row),
    ) -> io::Result<()> {
        for kind in kinds {
            let wanted = |side: &Side| {
                let what = format!("{} {}", kind.name(), side.name());
                self.wanted.has(side.which()) && what.contains(&self.wanted.only)
            };
            let sides: Vec<Side> = kind.sides.iter().copied().filter(wanted).collect();
            if sides.is_empty() {
                continue;
            }
            let (fio, ours) = self.in_turn(pool, kind, &sides)?;
            for (side, slices) in sides.iter().zip(&ours) {
                let [speed, cost] = compared(kind, *side, slices, &fio);
                told(speed);
                told(cost);
            }
        }
        Ok(())
    }

    /// Slices of fio, and of each side.
    fn in_turn(
        &self,
        pool: &mut Pool,
        kind: &Kind,
        sides: &[Side],
    ) -> io::Result<(Vec<Slice>, Vec<Vec<Slice>>)> {
        let mut fio = Vec::new();
        let mut ours = vec![Vec::new(); sides.len()];
        let job = Job {
            way: kind.way,
            random: kind.random,
            depth: kind.depth,
            flush_every: kind.flush_every,
            range: (self.pool, self.bytes),
            time: TIME,
        };
        for round in 0..self.setup.rounds() {
            for turn in 0..=sides.len() {
                // Who comes first changes with the rounds.
                match (round + turn) % (sides.len() + 1) {
                    0 => fio.push(fio::slice(self.setup, &self.name, &job)?),
                    n => ours[n - 1].push(self.slice(pool, kind, sides[n - 1])?),
                }
            }
        }
        Ok((fio, ours))
    }

    fn slice(&self, pool: &mut Pool, kind: &Kind, side: Side) -> io::Result<Slice> {
        match side {
            Side::First => {
                pool.order(&Order::Replica { id: FRESH, bytes: self.bytes })?;
            }
            Side::Snapshot => {
                pool.order(&Order::Clone { of: ORIGIN, id: FRESH })?;
            }
            _ => {}
        }
        std::thread::sleep(PAUSE);
        let slice = pool.slice(kind.run(side, self.bytes))?;
        if matches!(side, Side::First | Side::Snapshot) {
            pool.order(&Order::Destroy { id: FRESH })?;
        }
        Ok(slice)
    }
}

fn compared(kind: &Kind, side: Side, ours: &[Slice], fio: &[Slice]) -> [Row; 2] {
    let (iops, cpu) = (|slice: &Slice| slice.iops, |slice: &Slice| slice.cpu);
    let aim = kind.aim(side);
    let name = format!("{}, {}", side.name(), kind.name());
    let row = |id, what, unit, of: fn(&Slice) -> f64, aim, aim_text| Row {
        id,
        what,
        unit,
        ours: Figure::of(column(ours, of)),
        other: Some(Figure::of(column(fio, of))),
        counts: Figure::ratio(&column(ours, of), &column(fio, of)),
        aim,
        aim_text,
    };
    let text = format!(">= {aim}x fio");
    [
        row("P3", name.clone(), "IOPS", iops, Aim::AtLeast(aim), text),
        row("P5", format!("{name}: CPU"), "us", cpu, Aim::None, String::new()),
    ]
}

/// Reads of so much more than the smallest cache of checksums spans that few of them are hit.
fn missed(bed: &Bed<'_>, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    Pool::make(bed.setup, &bed.file.0, &["--bytes", &bed.pool.to_string()])?;
    let bytes = MISSED_SHARES * bed.bytes;
    let mut pool = bed.open(&[])?;
    pool.order(&Order::Replica { id: MAPPED, bytes })?;
    pool.run(Run::fill(MAPPED, 0, bytes))?;
    pool.stop()?;
    let mut pool = bed.open(&["--cache-bytes", "0"])?;
    bed.compare(&mut pool, &MISSED, told)?;
    let counts: Counts = pool.ask(&Order::Count)?;
    let each = Figure::of(vec![count(counts.device_reads) / count(counts.reads).max(1.0)]);
    told(Row {
        id: "P3",
        what: "checksums missed: device reads each".to_owned(),
        unit: "",
        ours: each,
        other: None,
        counts: each,
        aim: Aim::None,
        aim_text: String::new(),
    });
    pool.stop()
}

/// Random overwrites with as many checkpoints as 256 GiB in use have, so that a short run is the
/// steady state.
fn amplification(bed: &Bed<'_>, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let pages = bed.bytes / 4096 / 960 + 1;
    let delta = 1_800_000 * pages / ((256 << 30) / 4096 / 960);
    let mut pool = bed.open(&["--delta-max", &delta.to_string()])?;
    let run = Run::new(MAPPED, Way::Write, Pattern::Random, 32, bed.bytes);
    // Each region is marked once after an open: that is not the steady state.
    pool.run(Run {
        pattern: Pattern::Sequential,
        len: 128 << 10,
        count: bed.bytes >> 17,
        stride: 128 << 10,
        time: Duration::ZERO,
        ..run
    })?;
    pool.run(Run { time: 4 * TIME, ..run })?;
    let (before, kernel) = (pool.ask::<Counts>(&Order::Count)?, written(pool.server.pid())?);
    pool.run(Run { time: 8 * TIME, ..run })?;
    let (after, now) = (pool.ask::<Counts>(&Order::Count)?, written(pool.server.pid())?);
    pool.stop()?;
    let writes = count(after.writes - before.writes).max(1.0);
    let per = |number: u64| Figure::of(vec![count(number) / writes]);
    let checkpoints = after.checkpoints - before.checkpoints;
    let row = |what: String, ours, other, counts, aim, text: &str| Row {
        id: "P3",
        what,
        unit: "",
        ours,
        other,
        counts,
        aim,
        aim_text: text.to_owned(),
    };
    let device = per(after.device_writes - before.device_writes);
    let what = format!("device writes an overwrite, {checkpoints} checkpoints");
    told(row(what, device, None, device, Aim::AtMost(1.05), "<= 1.05"));
    let bytes = after.written_bytes - before.written_bytes;
    let (ours, other) = (per(bytes), per(now - kernel));
    let ratio = Figure::of(vec![count(bytes) / count(now - kernel).max(1.0)]);
    let what = "bytes an overwrite; other: /proc/PID/io".to_owned();
    told(row(what, ours, Some(other), ratio, Aim::Within(0.01), "the same within 1 %"));
    let done = |counts: &Counts| counts.device_writes + counts.device_reads + counts.device_flushes;
    let (ours, other) = (per(done(&after) - done(&before)), per(after.sqes - before.sqes));
    let ratio = Figure::of(vec![ours.median / other.median.max(1e-9)]);
    let what = "device operations an overwrite; other: the ring's".to_owned();
    told(row(what, ours, Some(other), ratio, Aim::Within(0.01), "the same within 1 %"));
    let opened = per(after.regions_opened - before.regions_opened);
    told(row(
        "regions marked an overwrite".to_owned(),
        opened,
        None,
        opened,
        Aim::AtMost(0.01),
        "<= 0.01",
    ));
    let enters = per(after.enters - before.enters);
    told(row("system calls an overwrite".to_owned(), enters, None, enters, Aim::None, ""));
    Ok(())
}

/// Bytes that a process had written to devices, by the kernel's count.
fn written(pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|n| n.parse().ok()).ok_or_else(|| bad("no write_bytes".to_owned()))
}
