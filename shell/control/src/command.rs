//! The commands, and how each of them ends.

use std::ffi::OsString;
use std::process::ExitCode;

use braid_terminal::call::run;
use braid_terminal::output::print;
use braid_terminal::{Result, call};
use clap::{Parser, Subcommand};

use crate::admin::{engine, store, volume};
use crate::serve;

/// The name in front of every message.
const PROGRAM: &str = "braid-control";

const EXAMPLES: &str = "\
Examples:
  braid-control serve --store /var/lib/braid/control.redb
  braid-engine serve pool:/var/lib/braid/pool1 --node n1 --control 127.0.0.1:4440
  braid-control engine list
  braid-control volume create db --size 20GiB --replica n1 --replica n2 --replica n3
  braid-control volume list
  braid-control volume resize db 40GiB
  braid-control volume add-member db n4
  braid-control volume snapshot create db monday
  braid-control volume hand-over db --to n2
  braid-control volume history db

Each command has a --help of its own.";

#[derive(Parser)]
#[command(name = PROGRAM, version, after_help = EXAMPLES)]
#[command(about = "Knows who holds a volume, sees engines, and has another one take over")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the control plane
    #[command(after_help = serve::HELP)]
    Serve(Box<serve::Options>),
    /// Make, list, show, change, move, recover and delete volumes
    #[command(after_help = volume::HELP)]
    Volume(Box<volume::Options>),
    /// Show the engines
    #[command(after_help = engine::HELP)]
    Engine(Box<engine::Options>),
    /// Put a copy of a store in its place, without a running control plane
    #[command(after_help = store::HELP)]
    Store(Box<store::Options>),
}

/// Runs the command that the arguments ask for. The first of them is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match Line::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => return call::refused_line(PROGRAM, &error),
    };
    match run_command(line.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            error.exit_code()
        }
    }
}

fn run_command(command: Command) -> Result<()> {
    match command {
        Command::Serve(options) => serve::serve(&options),
        Command::Volume(options) => run(volume::run(*options)),
        Command::Engine(options) => run(engine::run(*options)),
        Command::Store(options) => {
            print(&store::run(&options)?);
            Ok(())
        }
    }
}
