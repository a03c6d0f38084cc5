//! `cargo xtask bench`: builds with optimisation and measures; figures are for reading, no test
//! depends on them.

use crate::fault::{Fault, Outcome};
use crate::packages::{self, Tool};
use crate::{chaos, process, workspace};
use std::path::PathBuf;
use std::process::Command;

/// The CPU of what serves, and that of what loads it.
const CPUS: [&str; 2] = ["0", "1"];

const TOOLS: [Tool; 3] = [
    Tool { program: "fio", package: "fio" },
    Tool { program: "taskset", package: "util-linux" },
    Tool { program: "setpriv", package: "util-linux" },
];

/// What `bench` may be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Measures a target: beside the bare wire, beside fio, idle, and under a noisy neighbour
    Target(Target),
    /// Measures a pool: beside fio on the same file, how it opens, its memory, what it writes
    Pool(Pool),
    /// Measures replicated volumes: beside one replica, and when the engine that serves is lost
    Nexus(Nexus),
}

#[derive(Debug, clap::Args)]
struct Target {
    /// What to measure: p1, p2 (with p5), p3, p6, p10; all of it if nothing is named
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Slices of 250 ms in each comparison, both sides together
    #[arg(long, default_value_t = 60)]
    slices: usize,
    /// Seconds that the idle engine is watched
    #[arg(long, default_value_t = 12)]
    seconds: u64,
    /// How the result is printed: table or json
    #[arg(short, long, default_value = "table")]
    output: String,
}

#[derive(Debug, clap::Args)]
struct Pool {
    /// What to measure: mapped, first, snapshot, chain, missed, amplification, open, memory; all
    /// of it if nothing is named
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Only rows in whose name this occurs, such as "QD 32" or "1 TiB"
    #[arg(long, default_value = "")]
    only: String,
    /// GiB in use of each replica
    #[arg(long, default_value_t = 1)]
    gib: u64,
    /// Slices of 500 ms in each comparison, two sides together
    #[arg(long, default_value_t = 20)]
    slices: usize,
    /// How the result is printed: table or json
    #[arg(short, long, default_value = "table")]
    output: String,
}

#[derive(Debug, clap::Args)]
struct Nexus {
    /// What to measure: load (p4), lost (p7, p8), rebuild; all of it if nothing is named
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Slices of 250 ms in each comparison of two sides, both together
    #[arg(long, default_value_t = 60)]
    slices: usize,
    /// GiB of the volume whose engines and replicas are lost; the disk needs five times as much
    #[arg(long, default_value_t = 10)]
    gib: u64,
    /// Times that an engine is killed, that one is cut off, and that a replica is made anew
    #[arg(long, default_value_t = 5)]
    losses: usize,
    /// How the result is printed: table or json
    #[arg(short, long, default_value = "table")]
    output: String,
}

/// Builds, then measures.
pub(crate) fn main(options: &Options) -> Outcome<()> {
    packages::need(&TOOLS)?;
    if std::thread::available_parallelism().map_or(1, usize::from) < CPUS.len() {
        return Err(Fault::new("two CPUs are needed: one for what serves, one for what loads it"));
    }
    match &options.what {
        What::Target(target) => measure_target(target),
        What::Pool(pool) => measure_pool(pool),
        What::Nexus(nexus) => measure_nexus(nexus),
    }
}

fn measure_target(target: &Target) -> Outcome<()> {
    let mut command = built(&["--package", "braid-engine", "--package", "braid-bench"], "target")?;
    command.args(["--output", &target.output]);
    command.arg("--engine").arg(binaries().join("braid-engine"));
    command.arg("--slices").arg(target.slices.to_string());
    command.arg("--idle").arg(target.seconds.to_string()).args(&target.rows);
    process::run(&mut command)
}

fn measure_pool(pool: &Pool) -> Outcome<()> {
    let mut command = built(&["--package", "braid-bench"], "pool")?;
    command.args(["--output", &pool.output, "--only", &pool.only]);
    command.arg("--slices").arg(pool.slices.to_string());
    command.arg("--gib").arg(pool.gib.to_string()).args(&pool.rows);
    process::run(&mut command)
}

fn measure_nexus(nexus: &Nexus) -> Outcome<()> {
    chaos::need()?;
    let packages = ["braid-engine", "braid-control", "braid-bench"];
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    process::run(workspace::cargo(["build", "--release"]).args(packages))?;
    // Its network is its own, and all that it starts ends with it.
    let mut command = process::bound("unshare");
    command.arg("--net").arg(binaries().join("braid-bench")).arg("nexus");
    command.arg("--binaries").arg(binaries());
    command.arg("--folder").arg(workspace::folder("bench")?);
    command.args(["--output", &nexus.output]);
    let numbers = [("--slices", nexus.slices), ("--losses", nexus.losses)];
    for (option, number) in numbers {
        command.arg(option).arg(number.to_string());
    }
    command.arg("--gib").arg(nexus.gib.to_string()).args(&nexus.rows);
    process::run(&mut command)
}

fn binaries() -> PathBuf {
    workspace::target().join("release")
}

/// Builds packages; the benchmark's own program, on the CPU of what loads.
fn built(packages: &[&str], task: &str) -> Outcome<Command> {
    process::run(workspace::cargo(["build", "--release"]).args(packages))?;
    let folder = workspace::folder("bench")?;
    let mut command = Command::new("taskset");
    command.args(["-c", CPUS[1]]).arg(binaries().join("braid-bench")).arg(task);
    command.args(["--cpu", CPUS[0]]).arg("--folder").arg(folder);
    Ok(command)
}
