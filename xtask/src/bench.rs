//! `cargo xtask bench`: builds with optimisation and measures; figures are for reading, no test
//! depends on them.

use crate::fault::{Fault, Outcome};
use crate::packages::{self, Tool};
use crate::{process, workspace};
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

/// Builds, then measures.
pub(crate) fn main(options: &Options) -> Outcome<()> {
    let What::Target(target) = &options.what;
    packages::need(&TOOLS)?;
    if std::thread::available_parallelism().map_or(1, usize::from) < CPUS.len() {
        return Err(Fault::new("two CPUs are needed: one for what serves, one for what loads it"));
    }
    let packages = ["--package", "braid-engine", "--package", "braid-bench"];
    process::run(workspace::cargo(["build", "--release"]).args(packages))?;
    let folder = workspace::folder("bench")?;
    let binaries = workspace::target().join("release");
    let mut command = Command::new("taskset");
    command.args(["-c", CPUS[1]]).arg(binaries.join("braid-bench")).arg("target");
    command.args(["--cpu", CPUS[0], "--output", &target.output]);
    command.arg("--engine").arg(binaries.join("braid-engine")).arg("--folder").arg(folder);
    command.arg("--slices").arg(target.slices.to_string());
    command.arg("--idle").arg(target.seconds.to_string()).args(&target.rows);
    process::run(&mut command)
}
