//! `braid-engine device`: the block devices of the engine's machine.

use braid_api::v1;
use clap::Subcommand;

use crate::admin::connection::{Common, answer};
use crate::admin::{output, views};
use crate::error::Result;

/// What `device --help` teaches below the list of commands.
pub const HELP: &str = "\
Examples:
  braid-engine device list
  braid-engine device list -o yaml

States: free, in use (mounted, swap, below another device, or a pool of this engine), holds
(a file system, a partition table, ..), pool (one that is not imported here), unusable.

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no engine answers.";

/// `device`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Copy, Debug)]
enum Command {
    /// Show block devices, what they hold and who uses them
    List,
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, command: Command::List } = options;
    let mut client = common.connect().await?;
    let call = client.list_devices(v1::ListDevicesRequest {});
    let answered = answer("looking at devices", call).await?;
    let devices: Vec<_> = answered.devices.into_iter().map(views::Device::from).collect();
    output::list(common.output, "devices", &devices)
}
