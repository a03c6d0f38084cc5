//! `braid-chaos`: what `cargo xtask chaos` builds and starts in a network namespace.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Lets things go wrong, and looks for what must never happen
    Run(braid_chaos::CampaignOptions),
    /// One thing goes wrong, and what it costs is counted
    Scenario(braid_chaos::ScenarioOptions),
    /// Passes connections on, slowly or not for long
    Proxy(braid_chaos::ProxyOptions),
}

fn main() -> ExitCode {
    let done = match Line::parse().task {
        Task::Run(options) => braid_chaos::run(&options),
        Task::Scenario(options) => braid_chaos::run_scenarios(&options),
        Task::Proxy(options) => braid_chaos::serve(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("chaos: {what}");
            ExitCode::FAILURE
        }
    }
}
