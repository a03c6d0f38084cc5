//! The commands, and how each of them ends.

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) use braid_terminal::output::print;
use clap::{Parser, Subcommand};

use crate::admin::{
    self, ana, device, events, fault, namespace, nexus, pool, replica, scrub, snapshot, status,
};
use crate::client::{discover, identify, reservation};
use crate::error::Result;
use crate::offline::{inspect, verify};
use crate::{perf, serve};

/// The name in front of every message.
const PROGRAM: &str = "braid-engine";

const EXAMPLES: &str = "\
Examples:
  braid-engine serve mem:256MiB
  braid-engine serve 'file:/var/lib/braid/disk1?size=1GiB' --listen 0.0.0.0:4420
  braid-engine pool create /var/lib/braid/pool1 --size 100GiB
  braid-engine replica create vm1 --size 20GiB
  braid-engine snapshot create vm1@monday
  braid-engine discover 127.0.0.1:4420
  braid-engine identify nvme+tcp://127.0.0.1:4420/NQN
  braid-engine perf nvme+tcp://127.0.0.1:4420/NQN --rw mixed --verify

Each command has a --help of its own.";

#[derive(Parser)]
#[command(name = PROGRAM, version, after_help = EXAMPLES)]
#[command(about = "Serves disks and pools over NVMe/TCP")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve memory, files and block devices as NVMe namespaces
    #[command(after_help = serve::HELP)]
    Serve(Box<serve::Options>),
    /// Make, import, export, list, grow and destroy pools of a running engine
    #[command(after_help = pool::HELP)]
    Pool(Box<pool::Options>),
    /// Make, share, enlarge, list and destroy replicas
    #[command(after_help = replica::HELP)]
    Replica(Box<replica::Options>),
    /// Take, clone, share, list and destroy snapshots
    #[command(after_help = snapshot::HELP)]
    Snapshot(Box<snapshot::Options>),
    /// Show the block devices of the engine's machine
    #[command(after_help = device::HELP)]
    Device(Box<device::Options>),
    /// Check every block of a pool against its checksum
    #[command(after_help = scrub::HELP)]
    Scrub(Box<scrub::Options>),
    /// Show and change how hosts reach what a running engine serves
    #[command(after_help = ana::HELP)]
    Ana(Box<ana::Options>),
    /// Show volumes that a running engine serves or stands by for, and pace their rebuilds
    #[command(after_help = nexus::HELP)]
    Nexus(Box<nexus::Options>),
    /// Attach namespaces to what a running engine serves, detach and list them
    #[command(after_help = namespace::HELP)]
    Namespace(Box<namespace::Options>),
    /// Inject faults into a running engine, for tests
    #[command(after_help = fault::HELP)]
    Fault(Box<fault::Options>),
    /// Show what happens in a running engine
    #[command(after_help = events::HELP)]
    Events(Box<events::Options>),
    /// Show whether an engine runs, and what it is
    #[command(after_help = status::HELP)]
    Status(Box<status::Options>),
    /// Show what a pool's disk holds, without an engine
    #[command(after_help = inspect::HELP)]
    Inspect(Box<inspect::Options>),
    /// Check a pool's disk, without an engine
    #[command(after_help = verify::HELP)]
    Verify(Box<verify::Options>),
    /// Load a target through our host side, and verify what it keeps
    #[command(after_help = perf::HELP)]
    Perf(Box<perf::Options>),
    /// Show which subsystems a target has, and where
    #[command(after_help = discover::HELP)]
    Discover(Box<discover::Options>),
    /// Show what a subsystem says about its controller and its namespaces
    #[command(after_help = identify::HELP)]
    Identify(Box<identify::Options>),
    /// Show who reserves a target's namespace; reserve and release it
    #[command(after_help = reservation::HELP)]
    Reservation(Box<reservation::Options>),
}

/// Runs the command that the arguments ask for. The first of them is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match Line::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => return braid_terminal::call::refused_line(PROGRAM, &error),
    };
    match run(line.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            error.exit_code()
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(options) => serve::serve(*options),
        Command::Pool(options) => admin::run(pool::run(*options)),
        Command::Replica(options) => admin::run(replica::run(*options)),
        Command::Snapshot(options) => admin::run(snapshot::run(*options)),
        Command::Device(options) => admin::run(device::run(*options)),
        Command::Scrub(options) => admin::run(scrub::run(*options)),
        Command::Ana(options) => admin::run(ana::run(*options)),
        Command::Nexus(options) => admin::run(nexus::run(*options)),
        Command::Namespace(options) => admin::run(namespace::run(*options)),
        Command::Fault(options) => admin::run(fault::run(*options)),
        Command::Events(options) => admin::run(events::run(*options)),
        Command::Status(options) => admin::run(status::run(*options)),
        Command::Inspect(options) => inspect::inspect(&options),
        Command::Verify(options) => verify::verify(&options),
        Command::Perf(options) => perf::perf(&options),
        Command::Discover(options) => discover::discover(&options),
        Command::Identify(options) => identify::identify(&options),
        Command::Reservation(options) => reservation::run(&options),
    }
}
