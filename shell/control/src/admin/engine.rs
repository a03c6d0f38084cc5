//! `braid-control engine`: which engines there are.

use braid_api::control as wire;
use braid_terminal::call::answer;
use braid_terminal::{Result, output};
use clap::Subcommand;

use super::connection::Common;
use super::views;

/// What `engine --help` teaches below the list of commands.
pub const HELP: &str = "\
An engine reports to the control plane if it is started with --control and --node:
  braid-engine serve pool:/var/lib/braid/pool1 --node n1 --control 127.0.0.1:4440

Examples:
  braid-control engine list
  braid-control engine list -o json

Exit codes: 0 done, 3 no control plane answers.";

/// `engine`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Copy, Debug)]
enum Command {
    /// Show the engines that were heard of since the control plane started
    List,
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, command: Command::List } = options;
    let mut client = common.connect().await?;
    let listed = answer("asking", client.list_engines(wire::ListEnginesRequest {})).await?;
    let engines: Vec<_> = listed.engines.into_iter().map(views::Engine::from).collect();
    output::list(common.output, "engines", &engines)
}
