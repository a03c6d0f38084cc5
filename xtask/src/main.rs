//! `cargo xtask`, the one door to building, trying and testing Braid.
#![forbid(unsafe_code)]

mod bench;
mod chaos;
mod cluster;
mod docs;
mod engine;
mod fault;
mod fuzz;
mod guest;
mod network;
mod packages;
mod process;
mod record;
mod simulate;
mod tally;
mod test;
mod up;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The one door to building, trying and testing Braid"
)]
struct Door {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks format and lints, runs all tests and the guest campaign
    Test(test::Options),
    /// Builds, makes a replicated volume on three engines, kills one, and leaves it running
    Up(up::Options),
    /// Stops what `up` left running
    Down,
    /// Runs the engine under a real Linux host in an emulated machine
    Guest(guest::Options),
    /// Measures an optimised build
    Bench(bench::Options),
    /// Makes the documents that are generated anew
    Docs,
    /// Feeds the parsers hostile input by libFuzzer
    Fuzz(fuzz::Options),
    /// Cuts a simulated pool's power at many moments, and looks for what must be there
    Powercut(simulate::PowerCut),
    /// Damages a simulated pool, and looks for wrong data
    Corrupt(simulate::Corrupt),
    /// Simulates clusters with faults, and looks for what must never happen
    Sim(simulate::Sim),
    /// Lets real engines, networks and disks fail, and looks for what must never happen
    Chaos(chaos::Options),
    /// Writes and checks numbered records on a block device; runs inside the guest
    #[command(hide = true)]
    Record {
        #[command(subcommand)]
        work: record::Work,
    },
}

fn main() -> ExitCode {
    let done = match Door::parse().task {
        Task::Test(options) => test::main(&options),
        Task::Up(options) => up::up(&options),
        Task::Down => up::down(),
        Task::Bench(options) => bench::main(&options),
        Task::Docs => docs::main(),
        Task::Fuzz(options) => fuzz::main(&options),
        Task::Guest(options) => guest::main(&options),
        Task::Powercut(options) => simulate::power_cut(&options),
        Task::Corrupt(options) => simulate::corrupt(&options),
        Task::Sim(options) => simulate::sim(&options),
        Task::Chaos(options) => chaos::main(&options),
        Task::Record { work } => record::main(&work),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            if !fault.is_silent() {
                eprintln!("xtask: {fault}");
            }
            ExitCode::FAILURE
        }
    }
}
