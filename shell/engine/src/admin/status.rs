//! `braid-engine status`: whether an engine runs, and what it is.

use braid_api::v1;

use crate::admin::connection::{Common, answer};
use crate::admin::{output, views};
use crate::error::Result;

/// What `status --help` teaches below the list of options.
pub const HELP: &str = "\
Examples:
  braid-engine status
  braid-engine status --engine 192.0.2.7:4421 -o json

Exit codes: 0 it runs, 3 no engine answers.";

/// `status`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
///
/// # Errors
/// When no engine answers.
pub async fn run(options: Options) -> Result<()> {
    let common = options.common;
    let mut client = common.connect().await?;
    let engine = answer("asking", client.get_engine(v1::GetEngineRequest {})).await?;
    output::one(common.output, &views::Engine::from(engine))
}
