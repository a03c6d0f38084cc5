//! Scenarios: one thing goes wrong on real engines, nothing is drawn, and what it costs is counted
//! and compared with what it may cost. The campaign looks for what nobody thought of; these show
//! that what was thought of is so.

mod arena;
mod damage;
mod returns;
mod stage;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;

use crate::Outcome;
use crate::net::Net;
use stage::Stage;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A member is killed, and comes back: it gets what it missed
    Killed,
    /// A member's disk is replaced by an empty one: it gets everything but holes
    Wiped,
    /// Blocks are damaged on a member's disk: they are mended from another one
    Damaged,
    /// Two engines with the least buffers mirror to each other: nobody may wait for good
    Arenas,
}

/// Which scenarios, and where.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Which [default: all]
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Where braid-engine and braid-control are
    #[arg(long)]
    binaries: PathBuf,
    /// Where files and logs go; what is there is lost
    #[arg(long)]
    folder: PathBuf,
}

/// Runs them one after the other.
///
/// # Errors
///
/// What the first one found that was not as it must be.
pub fn run(options: &Options) -> Outcome<()> {
    let usual = Scenario::value_variants();
    let wanted = if options.scenarios.is_empty() { usual } else { &options.scenarios };
    let mut net = Some(Net::new()?);
    for &scenario in wanted {
        let name = scenario.to_possible_value().map_or_else(String::new, |v| v.get_name().into());
        let folder = options.folder.join(&name);
        // There may be nothing yet.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)
            .map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        let began = Instant::now();
        let given = net.take().ok_or("there is no network")?;
        let extra = if scenario == Scenario::Arenas { arena::OPTIONS } else { &[] };
        let mut stage = Stage::new(options.binaries.clone(), folder.clone(), given, extra)?;
        let done = match scenario {
            Scenario::Killed => returns::killed(&mut stage),
            Scenario::Wiped => returns::wiped(&mut stage),
            Scenario::Damaged => damage::damaged(&mut stage),
            Scenario::Arenas => arena::arenas(&mut stage),
        };
        let text = done.map_err(|e| format!("{name}: {e}\nlogs are in {}", folder.display()))?;
        println!("{name:<9} {:5.1} s  {text}", began.elapsed().as_secs_f64());
        net = Some(stage.end());
    }
    Ok(())
}

/// An error, unless it is so.
fn must(so: bool, what: impl FnOnce() -> String) -> Outcome<()> {
    if so { Ok(()) } else { Err(what()) }
}
