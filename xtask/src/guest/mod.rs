//! `cargo xtask guest`: an unmodified Linux host, in an emulated machine, uses our engine.

mod campaign;
mod control;
mod initramfs;
mod kernel;
mod machine;
mod scenario;
mod service;

use crate::fault::{Fault, Outcome};
use crate::packages::{self, Tool};
use crate::tally::Tally;
use crate::workspace;
use campaign::Campaign;
use kernel::Release;
use scenario::Scenario;
use service::Programs;
use std::path::PathBuf;
use std::time::Instant;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The scenarios to run, by their names or by those of their groups; all when none is named
    scenarios: Vec<String>,
    /// The Linux release to run
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Release,
    /// An engine to use instead of the one that is built here
    #[arg(long)]
    engine: Option<PathBuf>,
    /// Lists the scenarios and ends
    #[arg(long)]
    list: bool,
}

/// The programs that a guest run takes from the machine.
const TOOLS: [Tool; 10] = [
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "busybox", package: "busybox-static" },
    Tool { program: "modprobe", package: "kmod" },
    Tool { program: "cpio", package: "cpio" },
    Tool { program: "xz", package: "xz-utils" },
    Tool { program: "nvme", package: "nvme-cli" },
    Tool { program: "fio", package: "fio" },
    Tool { program: "mkfs.ext4", package: "e2fsprogs" },
    Tool { program: "mkfs.xfs", package: "xfsprogs" },
];

/// Runs the subcommand.
pub(crate) fn main(options: &Options) -> Outcome<()> {
    if options.list {
        for scenario in scenario::ALL {
            println!("{:<18} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    let chosen = choose(&options.scenarios)?;
    let tally = run(&chosen, options.kernel, options.engine.clone())?;
    tally.failures().iter().for_each(|failure| println!("FAILED {failure}"));
    println!("guest: {tally}");
    match tally.failed() {
        0 => Ok(()),
        _ => Err(Fault::silent()),
    }
}

/// Runs the whole campaign on the usual release, for `test`.
pub(crate) fn all() -> Outcome<Tally> {
    run(&choose(&[])?, Release::V6_12, None)
}

fn choose(names: &[String]) -> Outcome<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(scenario::ALL.iter().collect());
    }
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        chosen.extend(scenario::named(name));
        if chosen.len() == before {
            return Err(Fault::new(format!("no scenario {name}; see cargo xtask guest --list")));
        }
    }
    Ok(chosen)
}

fn run(chosen: &[&Scenario], release: Release, engine: Option<PathBuf>) -> Outcome<Tally> {
    let began = Instant::now();
    packages::need(&TOOLS)?;
    let engine = match engine {
        Some(path) => path,
        None => workspace::build_engine()?,
    };
    let control = workspace::build("braid-control")?;
    let programs = Programs { engine, control };
    let mut tally = Tally::default();
    let usual = |scenario: &&Scenario| scenario.release.is_none_or(|other| other == release);
    let (usual, newer): (Vec<_>, Vec<_>) = chosen.iter().copied().partition(usual);
    for (scenarios, release) in [(usual, release), (newer, Release::Newest)] {
        if !scenarios.is_empty() {
            match run_on(release, &scenarios, &programs) {
                Ok(found) => tally.add(found),
                Err(fault) => {
                    tally.fail(&format!("guest of Linux {}", release.name()), &fault.to_string());
                }
            }
        }
    }
    let seconds = began.elapsed().as_secs();
    println!("{} scenarios, {seconds} s", chosen.len());
    Ok(tally)
}

/// Runs scenarios in guests of one release.
fn run_on(release: Release, scenarios: &[&Scenario], programs: &Programs) -> Outcome<Tally> {
    let mut campaign = Campaign::new(release, programs.clone())?;
    for scenario in scenarios {
        campaign.run(scenario);
    }
    let (tally, boots) = campaign.end();
    println!("Linux {}: boots {boots}", release.name());
    Ok(tally)
}
