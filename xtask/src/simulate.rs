//! `cargo xtask powercut`, `cargo xtask corrupt` and `cargo xtask sim`: the campaigns of the
//! simulator.

use crate::fault::{Explain, Fault, Outcome};
use crate::workspace;
use std::process::Command;

/// How to cut the power.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A seed is one workload on a small pool. At many moments of it the disk is forked, and each fork \
loses power (of what was not flushed any subset of sectors survives) or its process; a fresh pool \
opens it, and everything that was acknowledged or flushed is looked for. The first violation ends \
the campaign and prints the command that shows it again.")]
pub(crate) struct PowerCut {
    /// Crash states to open, at least
    #[arg(long, default_value_t = 20_000)]
    states: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// One moment of the first seed alone, and one fork of it: as a finding names it
    #[arg(long, value_name = "MOMENT.FORK")]
    cut: Option<String>,
    /// Tells the story: time, requests, what the disk did, the cut
    #[arg(long)]
    log: bool,
    /// Builds a bug in and expects it to be found: skip-flush, tear-record, reuse-early,
    /// settle-early, no-lock or ignore-open-region
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
}

/// How to damage a pool.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A case is a pool that was stopped in order and then damaged in one place: a flipped bit, a zeroed \
sector, two blocks swapped, a write that went astray, a block with an older content. Nothing may \
panic, no wrong data may be read, an error must name a damaged block, and what has a second copy \
must repair itself.")]
pub(crate) struct Corrupt {
    /// Cases, at least
    #[arg(long, default_value_t = 5000)]
    cases: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// One case of the first seed alone: as a finding names it
    #[arg(long, value_name = "CASE")]
    cut: Option<String>,
    /// Tells the story of the case: what was damaged, and what the pool did
    #[arg(long)]
    log: bool,
}

/// How to simulate clusters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A seed is one cluster: nodes with pools and nexuses, a store, a planner, a network and hosts, in \
virtual time. Faults come for a while; then everything heals, and must converge. What hosts saw \
is checked against the invariants that docs/simulation.md names. A finding prints the command \
that shows it again.")]
pub(crate) struct Sim {
    /// Clusters to simulate
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// This seed alone
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Tells the story: time, packets, commands, faults, what hosts saw
    #[arg(long)]
    log: bool,
    /// What runs at the nodes: `nexus` (nexus, guards and pool), or `shard` (whole shards, and
    /// NVMe/TCP over streams); by itself both, one after the other
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Only clusters of this kind; by itself a seed draws everything
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Switches a rule of replication off and expects that to be found
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Only these of the seed's faults, or none: as a smaller finding names them
    #[arg(long, value_name = "NUMBERS")]
    keep: Option<String>,
    /// Only so many hosts of each volume
    #[arg(long)]
    hosts: Option<u8>,
    /// Seeds at once; 0: as many as there are processors
    #[arg(long, default_value_t = 0)]
    jobs: u64,
}

/// Runs `sim`.
pub(crate) fn sim(options: &Sim) -> Outcome<()> {
    let mut command = workspace::cargo(["run", "--quiet", "--package", "braid-sim", "--", "sim"]);
    match options.seed {
        Some(seed) => command.args(["--seed", &seed.to_string()]),
        None => {
            command.args(["--first", &options.first.to_string()]);
            command.args(["--seeds", &options.seeds.to_string()])
        }
    };
    command.args(["--jobs", &options.jobs.to_string()]);
    if options.log {
        command.arg("--log");
    }
    let hosts = options.hosts.map(|hosts| hosts.to_string());
    for (name, value) in [
        ("--level", &options.level),
        ("--profile", &options.profile),
        ("--plant", &options.plant),
        ("--keep", &options.keep),
        ("--hosts", &hosts),
    ] {
        if let Some(value) = value {
            command.args([name, value]);
        }
    }
    run(command)
}

/// Runs `powercut`.
pub(crate) fn power_cut(options: &PowerCut) -> Outcome<()> {
    let mut command = campaign("powercut", options.first, options.cut.as_deref(), options.log);
    command.args(["--states", &options.states.to_string()]);
    if let Some(plant) = &options.plant {
        command.args(["--plant", plant]);
    }
    run(command)
}

/// Runs `corrupt`.
pub(crate) fn corrupt(options: &Corrupt) -> Outcome<()> {
    let mut command = campaign("corrupt", options.first, options.cut.as_deref(), options.log);
    command.args(["--cases", &options.cases.to_string()]);
    run(command)
}

fn campaign(name: &str, first: u64, cut: Option<&str>, log: bool) -> Command {
    let mut command = workspace::cargo(["run", "--quiet", "--package", "braid-sim", "--", name]);
    command.args(["--first", &first.to_string()]);
    if let Some(cut) = cut {
        command.args(["--cut", cut]);
    }
    if log {
        command.arg("--log");
    }
    command
}

/// The campaign's last line says what was found.
fn run(mut command: Command) -> Outcome<()> {
    let status = command.status().explain(|| "cannot start cargo".to_owned())?;
    if status.success() { Ok(()) } else { Err(Fault::silent()) }
}
