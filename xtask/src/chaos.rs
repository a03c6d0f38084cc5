//! `cargo xtask chaos`: real engines under faults, in a network of their own.

use crate::fault::{Fault, Outcome};
use crate::packages::{self, Tool};
use crate::{process, workspace};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const TOOLS: [Tool; 5] = [
    Tool { program: "nft", package: "nftables" },
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "unshare", package: "util-linux" },
    Tool { program: "nsenter", package: "util-linux" },
    Tool { program: "setpriv", package: "util-linux" },
];

/// What `chaos` may be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A control plane and three engines run in network namespaces of their own; two hosts write and \
read a few blocks of a volume with three replicas. Processes are killed and paused, the network \
is cut, loses packets, is slow and breaks connections, disks stall, fail and are full. At the end \
nothing is wrong any more: all replicas must be there again within 60 s, equal block by block, and \
what the hosts were answered must be linearizable for each block. The seed decides what goes wrong \
and when; what comes of it is up to the machine. Needs root, and leaves nothing behind.")]
pub(crate) struct Options {
    /// How long things go wrong
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Where all chance comes from [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Instead of chance: one thing goes wrong, and what it costs is counted; "all", or a name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["minutes", "seed"])]
    scenario: Option<String>,
}

/// What namespaces need.
pub(crate) fn need() -> Outcome<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Fault::new("namespaces and their firewalls need root: sudo cargo xtask ..."));
    }
    packages::need(&TOOLS)
}

/// Builds, and lets things go wrong.
pub(crate) fn main(options: &Options) -> Outcome<()> {
    if let Some(name) = &options.scenario {
        let all = name == "all";
        return scenarios(if all { &[] } else { std::slice::from_ref(name) });
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    run(options.minutes, options.seed.unwrap_or(now.as_secs()))
}

/// The same for so many minutes, with a seed.
pub(crate) fn run(minutes: f64, seed: u64) -> Outcome<()> {
    let words = ["run", "--minutes", &minutes.to_string(), "--seed", &seed.to_string()];
    chaos(&words, &format!("seed-{seed}"))
}

/// Scenarios, all of them if none is named.
pub(crate) fn scenarios(names: &[String]) -> Outcome<()> {
    let words: Vec<&str> =
        std::iter::once("scenario").chain(names.iter().map(String::as_str)).collect();
    chaos(&words, "scenarios")
}

fn chaos(words: &[&str], folder: &str) -> Outcome<()> {
    need()?;
    let packages = ["-p", "braid-engine", "-p", "braid-control", "-p", "braid-chaos"];
    process::run(workspace::cargo(["build", "--quiet"]).args(packages))?;
    let binaries = workspace::target().join("debug");
    let folder = workspace::folder("chaos")?.join(folder);
    // All that it starts ends with it, and all that it makes is in this namespace.
    let mut command: Command = process::bound("unshare");
    command.arg("--net").arg(binaries.join("braid-chaos")).args(words);
    command.arg("--binaries").arg(&binaries).arg("--folder").arg(&folder);
    process::run(&mut command)
}
