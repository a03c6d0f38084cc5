//! Real engines, a real control plane and our host while everything around them goes wrong: see
//! `cargo xtask chaos --help`, which builds this and starts it in a network namespace.
//!
//! `plan` draws from the seed what goes wrong and when, `nemesis` does it and undoes it, by
//! `cluster` (processes and disks), `net` (partitions and loss) and `proxy` (delay and resets);
//! `host` asks and writes down what it is answered; `campaign` judges that, and the `replicas`.
#![forbid(unsafe_code)]

mod campaign;
mod cluster;
mod host;
mod nemesis;
mod net;
mod plan;
mod process;
mod proxy;
mod replicas;
mod report;
mod story;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What did not go well is a text for people.
type Outcome<T> = Result<T, String>;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Lets things go wrong, and looks for what must never happen
    Run(campaign::Options),
    /// Passes connections on, slowly or not for long
    Proxy(proxy::Options),
}

fn main() -> ExitCode {
    let done = match Line::parse().task {
        Task::Run(options) => campaign::run(&options),
        Task::Proxy(options) => proxy::serve(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("chaos: {what}");
            ExitCode::FAILURE
        }
    }
}
