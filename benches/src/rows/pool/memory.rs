//! What the maps of a TiB take in memory: one block is written in each cluster, to a file that
//! keeps maps alone; another process then asks for all of the map.

use std::io;
use std::path::Path;

use super::{Scratch, Wanted};
use crate::machine::{Server, Setup, pinned};
use crate::measure::{Figure, count};
use crate::table::{Aim, Row};
use crate::wire::bad;

/// What is mapped.
const MAPPED: u64 = 1 << 40;
/// The pool: that, and room for everything else.
const POOL: u64 = MAPPED + (MAPPED >> 4);

pub(super) fn rows(setup: &Setup, wanted: &Wanted, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let file = Scratch::sparse(wanted.memory.join("braid-bench-map.img"), POOL)?;
    map(setup, &file.0)?;
    let name = file.0.to_str().ok_or_else(|| bad("the folder's name is not UTF-8".to_owned()))?;
    let mut server = Server::ourselves(setup, &["pool-load", name])?;
    let line = server.line()?;
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [before, after, own, leaves] = numbers[..] else { return Err(bad(line)) };
    told(row(format!("memory of a TiB's maps, {leaves} leaves, resident"), after - before));
    told(row("the same with all caches, by the pool's own count".to_owned(), own));
    Ok(())
}

fn map(setup: &Setup, path: &Path) -> io::Result<()> {
    let mut command = pinned(setup);
    command.arg(std::env::current_exe()?).arg("pool-map").arg(path).arg(MAPPED.to_string());
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(bad(format!("mapping a TiB: {status}"))) }
}

fn row(what: String, bytes: u64) -> Row {
    let mib = Figure::of(vec![count(bytes >> 10) / 1024.0]);
    Row {
        id: "P9",
        what,
        unit: "MiB",
        ours: mib,
        other: None,
        counts: mib,
        aim: Aim::AtMost(64.0),
        aim_text: "< 64 MiB".to_owned(),
    }
}
