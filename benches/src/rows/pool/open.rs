//! How long a pool takes to open, by its size and by how it was left. The files are sparse and in
//! memory: what is measured is the work; the bytes that are read are told beside it.

use std::io;
use std::path::Path;
use std::process::Command;

use super::{Pool, Scratch, Wanted};
use crate::load::Way;
use crate::machine::Setup;
use crate::measure::Figure;
use crate::pool::{Counts, Order, Pattern, Run};
use crate::table::{Aim, Row};
use crate::wire::bad;

const SIZES: [(&str, u64); 3] = [("1 GiB", 1 << 30), ("1 TiB", 1 << 40), ("20 TiB", 20 << 40)];
/// Each is opened so often.
const OPENS: usize = 3;
/// Pages of the map in use at most: a checkpoint would come before there are more to replay.
const LEAVES_MAX: u64 = 8000;
const LEAF: u64 = 64 << 20;
/// Journal blocks after which a checkpoint begins: half the ring, or this.
const CHECKPOINT: u64 = 16_384;
const REPLICA: u8 = 1;
/// Bytes of a write: 32 cells of the journal.
const LEN: u32 = 128 << 10;

pub(super) fn rows(setup: &Setup, wanted: &Wanted, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    for (name, bytes) in SIZES.iter().filter(|(name, _)| name.contains(&wanted.only)) {
        let file = Scratch::sparse(wanted.memory.join("braid-bench-open.img"), *bytes)?;
        Pool::make(setup, &file.0, &[])?;
        let leaves = (bytes / 4 * 3 / LEAF).min(LEAVES_MAX);
        fill(setup, &file.0, leaves)?;
        let mut clean = Vec::new();
        for _ in 0..OPENS {
            let pool = Pool::open(setup, &file.0, &[])?;
            expect(pool.ready.clean, true)?;
            clean.push(pool.ready.took.as_secs_f64());
            pool.stop()?;
        }
        told(row(format!("open {name}, clean"), clean));
        crash(setup, &file.0, leaves, bytes / 256 / 4096)?;
        let copy = Scratch(wanted.memory.join("braid-bench-copy.img"));
        let (mut crashed, mut what) = (Vec::new(), String::new());
        for _ in 0..OPENS {
            copied(&file.0, &copy.0)?;
            let mut pool = Pool::open(setup, &copy.0, &[])?;
            expect(pool.ready.clean, false)?;
            let counts: Counts = pool.ask(&Order::Count)?;
            let (blocks, mib) = (pool.ready.replayed, counts.read_bytes >> 20);
            what = format!("open {name}, crashed, {blocks} journal blocks, {mib} MiB");
            crashed.push(pool.ready.took.as_secs_f64());
        }
        told(row(what, crashed));
    }
    Ok(())
}

/// One write in each page of the map.
fn fill(setup: &Setup, path: &Path, leaves: u64) -> io::Result<()> {
    let mut pool = Pool::open(setup, path, &[])?;
    pool.order(&Order::Replica { id: REPLICA, bytes: leaves * LEAF })?;
    pool.run(writes(leaves, Pattern::Sequential))?;
    pool.stop()
}

/// Overwrites until the journal is as full as it gets, then the process dies.
fn crash(setup: &Setup, path: &Path, leaves: u64, ring: u64) -> io::Result<()> {
    let half = ring.clamp(1024, 65_536) / 2;
    let journal = u32::try_from(half.min(CHECKPOINT) * 97 / 100).unwrap_or(0);
    let mut pool = Pool::open(setup, path, &[])?;
    let random = writes(leaves, Pattern::Random);
    let time = std::time::Duration::from_secs(600);
    pool.run(Run { journal, time, ..random })?;
    Ok(())
}

const fn writes(leaves: u64, pattern: Pattern) -> Run {
    let run = Run::new(REPLICA, Way::Write, pattern, 16, 0);
    Run { len: LEN, count: leaves, stride: LEAF, ..run }
}

/// Copies a file with its holes.
fn copied(from: &Path, to: &Path) -> io::Result<()> {
    let status = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(bad(format!("cp: {status}"))) }
}

fn expect(clean: bool, wanted: bool) -> io::Result<()> {
    if clean == wanted { Ok(()) } else { Err(bad(format!("clean: {clean}"))) }
}

fn row(what: String, seconds: Vec<f64>) -> Row {
    let took = Figure::of(seconds.into_iter().map(|seconds| seconds * 1e3).collect());
    Row {
        id: "P9",
        what,
        unit: "ms",
        ours: took,
        other: None,
        counts: took,
        aim: Aim::AtMost(2e3),
        aim_text: "< 2 s".to_owned(),
    }
}
