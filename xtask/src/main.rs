//! `cargo xtask`, the one door to building, trying and testing Braid.

mod engine;
mod fault;
mod guest;
mod packages;
mod process;
mod record;
mod tally;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The one door to building, trying and testing Braid")]
struct Door {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the engine under a real Linux host in an emulated machine
    Guest(guest::Options),
    /// Writes and checks numbered records on a block device; runs inside the guest
    #[command(hide = true)]
    Record {
        #[command(subcommand)]
        work: record::Work,
    },
}

fn main() -> ExitCode {
    let done = match Door::parse().task {
        Task::Guest(options) => guest::main(&options),
        Task::Record { work } => record::main(&work),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("xtask: {fault}");
            ExitCode::FAILURE
        }
    }
}
