//! `braid-engine fault`: faults are injected into a namespace while it is served, for tests.

use std::str::FromStr;

use braid_api::v1;
use clap::Subcommand;

use crate::admin::connection::{Common, answer};
use crate::admin::output;
use crate::error::Result;
use crate::manage::names::NSID;
use crate::quantity::Name;
use crate::serve::injection;

/// What `fault --help` teaches below the list of commands.
pub const HELP: &str = "\
A fault is OPERATION,FAULT[,RANGE[,COUNT]]: read|write|flush, error|stall|corrupt|delay:TIME,
OFFSET+LENGTH|all, a number|always. The engine must have been started with --allow-injection.

PLACE is the NQN of a subsystem, or the path of a pool: then it is its disk that fails, below
everything that the pool does; a disk cannot be made to corrupt data.

Examples:
  braid-engine fault set nqn.2026-01.io.braid:disk1 read,error,1MiB+4KiB,3
  braid-engine fault set nqn.2026-01.io.braid:disk1 write,delay:20ms flush,stall
  braid-engine fault clear nqn.2026-01.io.braid:disk1
  braid-engine fault set /var/lib/braid/pool1 write,stall

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no engine answers.";

/// `fault`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Inject these faults from now on, instead of those there were
    Set {
        #[command(flatten)]
        place: Place,
        /// What is to go wrong
        #[arg(value_name = "FAULT", required = true)]
        faults: Vec<String>,
    },
    /// End all faults of a namespace, or of a pool's disk
    Clear {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct Place {
    /// The subsystem, or the pool
    #[arg(value_name = "PLACE")]
    what: What,
    /// The namespace
    #[arg(long, value_name = "N", default_value_t = NSID)]
    nsid: u32,
}

/// What is to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Subsystem(String),
    Pool(String),
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Pool(text.to_owned()));
        }
        text.parse().map(|Name(nqn)| Self::Subsystem(nqn.to_string()))
    }
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, command } = options;
    let (place, faults) = match command {
        Command::Set { place, faults } => (place, faults),
        Command::Clear { place } => (place, Vec::new()),
    };
    let faults = faults.iter().map(|text| injection::parse(text)).collect::<Result<Vec<_>, _>>();
    let faults = faults.map_err(crate::error::Error::usage)?;
    let (nqn, pool) = match &place.what {
        What::Subsystem(nqn) => (nqn.clone(), String::new()),
        What::Pool(path) => (String::new(), path.clone()),
    };
    let request = v1::SetFaultsRequest {
        nqn,
        nsid: place.nsid,
        pool,
        faults: faults.iter().map(crate::manage::fault_to_wire).collect(),
    };
    let mut client = common.connect().await?;
    answer("setting faults", client.set_faults(request)).await?;
    let count = faults.len();
    let place = match place.what {
        What::Subsystem(_) => format!("namespace {}", place.nsid),
        What::Pool(path) => format!("the disk of pool {path}"),
    };
    output::done(common.output, &format!("{count} faults are set for {place}"))
}
