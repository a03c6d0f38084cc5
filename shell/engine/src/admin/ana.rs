//! `braid-engine ana`: how hosts reach what a running engine serves is shown and changed.

use braid_api::v1;
use braid_nvme::ana::AnaState;
use clap::Subcommand;

use crate::admin::connection::{Common, answer};
use crate::admin::{output, views};
use crate::error::Result;
use crate::quantity::{Address, Name};
use crate::serve::options::Ana;

/// What `ana --help` teaches below the list of commands.
pub const HELP: &str = "\
A subsystem may be served by several engines, and by several addresses of one. Hosts use the paths
that are optimized, and those that are not while there is none. What they send to a path that is
inaccessible is answered so that they take another one; without another they wait. STATE is
optimized, non-optimized, inaccessible, persistent-loss, or change, which ends by itself after 10
seconds in inaccessible.

Examples:
  braid-engine ana list
  braid-engine ana set nqn.2026-01.io.braid:disk1 inaccessible
  braid-engine ana set nqn.2026-01.io.braid:disk1 non-optimized --listen 127.0.0.1:4421
  braid-engine ana list nqn.2026-01.io.braid:disk1 -o json

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no engine answers.";

/// `ana`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show how hosts reach each group of namespaces
    List {
        /// Of this subsystem [default: of all]
        #[arg(value_name = "NQN")]
        nqn: Option<Name>,
    },
    /// Change how hosts reach a group of namespaces
    Set {
        /// The subsystem
        #[arg(value_name = "NQN")]
        nqn: Name,
        /// How they are to reach it
        #[arg(value_name = "STATE")]
        state: Ana,
        /// The group (ANAGRPID)
        #[arg(long, value_name = "N", default_value_t = 1)]
        group: u32,
        /// Only hosts that come by this address [default: all]
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<Address>,
    },
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, command } = options;
    let mut client = common.connect().await?;
    match command {
        Command::List { nqn } => {
            let nqn = nqn.map_or_else(String::new, |nqn| nqn.0.to_string());
            let request = v1::ListAnaGroupsRequest { nqn };
            let groups = answer("asking", client.list_ana_groups(request)).await?.groups;
            let groups: Vec<_> = groups.into_iter().map(views::AnaGroup::from).collect();
            output::list(common.output, "groups", &groups)
        }
        Command::Set { nqn, state, group, listen } => {
            let state: AnaState = state.into();
            let request = v1::SetAnaStateRequest {
                nqn: nqn.0.to_string(),
                group,
                listen: listen.map_or_else(String::new, |listen| listen.0.to_string()),
                state: crate::manage::ana_to_wire(state).into(),
            };
            answer("changing access", client.set_ana_state(request)).await?;
            let sentence = format!("group {group} of {} is {} now", nqn.0, state.text());
            output::done(common.output, &sentence)
        }
    }
}
