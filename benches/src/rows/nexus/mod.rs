//! Replicated volumes: what a mirror costs (P4), how soon it is whole again (P7), how long hosts
//! wait when the engine that serves them is lost (P8), and how fast a replica is made anew. Three
//! engines and a control plane, each in a network namespace of its own, with pools on files of one
//! disk.

mod load;
mod lost;
mod rebuild;

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use braid_chaos::{Cluster, ENGINES, Net, PORT, Parts, Place, Seen, Volume, wait_for};

use crate::table::Row;
use crate::wire::bad;

/// What of a volume is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Which {
    /// P4: 1, 2 and 3 members beside one replica
    Load,
    /// P7 and P8: the engine that serves is killed, and cut off
    Lost,
    /// A replica is made anew, beside a plain copy of as much
    Rebuild,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Which rows.
    pub(crate) which: Vec<Which>,
    /// Where `braid-engine` and `braid-control` are.
    pub(crate) binaries: PathBuf,
    /// A folder on the disk to measure.
    pub(crate) folder: PathBuf,
    /// Slices of a comparison of two sides, both together.
    pub(crate) slices: usize,
    /// GiB of the volume whose engines and replicas are lost.
    pub(crate) gib: u64,
    /// Times that one is killed, that one is cut off, and that a replica is made anew.
    pub(crate) losses: usize,
}

/// Beside the volume whose engines are lost, a pool holds what [`load`] makes and its own metadata.
const BESIDE: u64 = 4 << 30;
/// How long anything may take that takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// All rows that are wanted.
pub(crate) fn rows(wanted: &Wanted, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let folder = wanted.folder.join("nexus");
    // There may be nothing yet.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let done = measured(wanted, folder.clone(), told);
    if done.is_ok() {
        // The logs of a run that failed stay, but not its data.
        return fs::remove_dir_all(&folder);
    }
    for engine in 1..=ENGINES {
        let _ = fs::remove_file(folder.join(format!("pool{engine}.img")));
    }
    done
}

fn measured(wanted: &Wanted, folder: PathBuf, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let parts = Parts {
        binaries: wanted.binaries.clone(),
        folder,
        pool_bytes: (wanted.gib << 30) + BESIDE,
        log: "info",
        faults: false,
    };
    let net = Net::new().map_err(bad)?;
    let mut cluster = Cluster::start(parts, net).map_err(bad)?;
    cluster.net.apply().map_err(bad)?;
    if wanted.which.contains(&Which::Load) {
        load::rows(&cluster, wanted, told)?;
    }
    if wanted.which.contains(&Which::Lost) {
        lost::rows(&mut cluster, wanted, told)?;
    }
    if wanted.which.contains(&Which::Rebuild) {
        rebuild::rows(&cluster, wanted, told)?;
    }
    Ok(())
}

/// Makes a volume and waits until it is whole.
fn make(cluster: &Cluster, volume: &Volume<'_>) -> io::Result<Seen> {
    cluster.create(volume).map_err(bad)?;
    whole(cluster, volume.name, volume.standbys + 1)
}

/// Waits until a volume has all replicas and so many paths.
fn whole(cluster: &Cluster, name: &str, paths: usize) -> io::Result<Seen> {
    if let Some(seen) = cluster.converges(name, paths, PATIENCE).map_err(bad)? {
        return Ok(seen);
    }
    let seen = cluster.seen(name).map_err(bad)?;
    let seconds = PATIENCE.as_secs();
    Err(bad(format!("after {seconds} s volume {name} is not whole with {paths} paths: {seen:?}")))
}

/// Writes the first GiB of a volume, all that are wanted.
fn fill(wanted: &Wanted, nqn: &str, owner: usize) -> io::Result<()> {
    let uri = format!("nvme+tcp://{}:{PORT}/{nqn}?nsid=1", Place::Engine(owner).address());
    let mut perf = Command::new(wanted.binaries.join("braid-engine"));
    perf.args(["perf", &uri, "--rw", "write", "--sequential", "--block-size", "128KiB"]);
    let gib = format!("{}GiB", wanted.gib);
    perf.args(["--queue-depth", "16", "--region", &gib, "--total", &gib]);
    let ended = perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if ended.success() { Ok(()) } else { Err(bad("the volume could not be filled".to_owned())) }
}

/// Waits until an idle volume has no marked region: what a loss brings is not what filled it.
fn unmarked(cluster: &Cluster, name: &str) -> io::Result<()> {
    let owner = there(cluster.seen(name).map_err(bad)?.serves, "owner")?;
    let none = || {
        let shown = cluster.tell(owner, &["nexus", "show", name, "-o", "json"])?;
        let shown: serde_json::Value = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
        Ok((shown["marked_bytes"] == 0).then_some(()))
    };
    there(wait_for(PATIENCE, none).map_err(bad)?, "end of the regions marked by filling")
}

/// What must be there, or an error that names it.
fn there<T>(found: Option<T>, what: impl Display) -> io::Result<T> {
    found.ok_or_else(|| bad(format!("there is no {what}")))
}
