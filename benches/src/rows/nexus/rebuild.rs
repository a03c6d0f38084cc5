//! A replica of a full volume is taken out and made anew, with no load, in turn with a plain copy
//! of a file of the same size on the same disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use braid_chaos::{Cluster, ENGINES, Place, Volume, wait_for};

use super::{PATIENCE, Wanted, fill, make, there, unmarked};
use crate::measure::Figure;
use crate::table::{Aim, Row};
use crate::wire::bad;

const NAME: &str = "copied";
/// The engine whose replica is made anew.
const ANEW: usize = ENGINES - 1;
/// Bytes written at once to the file that is copied.
const PIECE: usize = 1 << 20;
/// How long a GiB may take to be copied, on a disk that is no better than an old one.
const GIB: Duration = Duration::from_secs(60);

/// Rebuild, copy, rebuild, copy.
pub(super) fn rows(
    cluster: &Cluster,
    wanted: &Wanted,
    told: &mut dyn FnMut(Row),
) -> io::Result<()> {
    let replicas: Vec<usize> = (0..ENGINES).collect();
    let volume = Volume { name: NAME, bytes: wanted.gib << 30, replicas: &replicas, standbys: 1 };
    let seen = make(cluster, &volume)?;
    fill(wanted, &there(seen.nqn, "path")?, there(seen.serves, "owner")?)?;
    unmarked(cluster, NAME)?;
    let (from, to) = (wanted.folder.join("copy.from"), wanted.folder.join("copy.to"));
    written(&from, wanted.gib)?;
    let (mut ours, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..wanted.losses {
        ours.push(rate(wanted, anew(cluster, wanted)?));
        copied.push(rate(wanted, copy(&from, &to)?));
    }
    fs::remove_file(from)?;
    fs::remove_file(to)?;
    told(Row {
        id: "",
        what: format!("a replica of {} GiB made anew; other: dd", wanted.gib),
        unit: "MiB/s",
        counts: Figure::ratio(&ours, &copied),
        ours: Figure::of(ours),
        other: Some(Figure::of(copied)),
        aim: Aim::AtLeast(0.8),
        aim_text: ">= 0.80x".to_owned(),
    });
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "GiB")]
fn rate(wanted: &Wanted, took: Duration) -> f64 {
    (wanted.gib << 10) as f64 / took.as_secs_f64()
}

/// A file of so many GiB, without holes.
fn written(path: &Path, gib: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let piece: Vec<u8> = (0..=u8::MAX).cycle().take(PIECE).collect();
    for _ in 0..gib << 10 {
        file.write_all(&piece)?;
    }
    file.sync_all()
}

/// From the order to make a replica until it is a member.
fn anew(cluster: &Cluster, wanted: &Wanted) -> io::Result<Duration> {
    let engine = Place::Engine(ANEW).name();
    cluster.tell_control(&["volume", "remove-member", NAME, &engine, "--yes"]).map_err(bad)?;
    let members = |all: usize| {
        let patience = PATIENCE + GIB * u32::try_from(wanted.gib).unwrap_or(u32::MAX);
        let seen = || {
            let seen = cluster.seen(NAME).ok();
            let whole =
                |seen: &braid_chaos::Seen| seen.members.len() == all && seen.replicas.len() == all;
            Ok(seen.filter(whole).map(drop))
        };
        there(wait_for(patience, seen).map_err(bad)?, format!("volume of {all} members"))
    };
    members(ENGINES - 1)?;
    let begun = Instant::now();
    cluster.tell_control(&["volume", "add-member", NAME, &engine]).map_err(bad)?;
    members(ENGINES)?;
    Ok(begun.elapsed())
}

/// Past the page cache, as a pool reads and writes; to the media.
fn copy(from: &Path, to: &Path) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", from.display())).arg(format!("of={}", to.display()));
    dd.args(["bs=1M", "iflag=direct", "oflag=direct", "conv=fsync"]);
    let ended = dd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if ended.success() { Ok(begun.elapsed()) } else { Err(bad("dd failed".to_owned())) }
}
