//! `braid-engine namespace`: namespaces are attached to a subsystem and detached while hosts are
//! connected.

use braid_api::v1;
use clap::Subcommand;

use crate::admin::connection::{Common, answer};
use crate::admin::{output, views};
use crate::error::{Error, Result};
use crate::quantity::Name;
use crate::serve::uri::NamespaceUri;

/// What `namespace --help` teaches below the list of commands.
pub const HELP: &str = "\
A subsystem that an engine was started with can gain and lose namespaces while hosts are connected:
they are told by an event, and their commands to other namespaces go on. What is attached here holds
until it is detached or the engine ends; the next start serves what its command line or its file
says. Commands to a namespace that is detached fail as if it had never been there. Replicas,
snapshots and volumes are subsystems of their own: see replica share, and volumes of the control
plane.

URI is mem:SIZE, file:/PATH?size=SIZE or /dev/NAME with the options that serve --help lists, such as
nsid=N; without nsid= it gets the first id that is free. The reservations of a file or a device are
kept if the engine keeps any: if it was started with one, or with --state-dir.

Examples:
  braid-engine namespace list
  braid-engine namespace attach nqn.2026-01.io.braid:disk1 'file:/var/lib/braid/b?size=1GiB'
  braid-engine namespace attach nqn.2026-01.io.braid:disk1 'mem:64MiB?nsid=7'
  braid-engine namespace detach nqn.2026-01.io.braid:disk1 7
  braid-engine namespace list nqn.2026-01.io.braid:disk1 -o json

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no engine answers.";

/// `namespace`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show the namespaces of every subsystem
    List {
        /// Of this subsystem [default: of all]
        #[arg(value_name = "NQN")]
        nqn: Option<Name>,
    },
    /// Let hosts find a namespace more
    Attach {
        /// The subsystem
        #[arg(value_name = "NQN")]
        nqn: Name,
        /// What it is
        #[arg(value_name = "URI")]
        uri: String,
        /// Take a block device that is mounted or seems to hold something else
        #[arg(long)]
        force: bool,
    },
    /// Let them find it no more
    Detach {
        /// The subsystem
        #[arg(value_name = "NQN")]
        nqn: Name,
        /// The namespace's id
        #[arg(value_name = "NSID")]
        nsid: u32,
    },
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, command } = options;
    // A mistake in it is told without an engine.
    if let Command::Attach { uri, .. } = &command {
        uri.parse::<NamespaceUri>().map_err(Error::usage)?;
    }
    let mut client = common.connect().await?;
    match command {
        Command::List { nqn } => {
            let nqn = nqn.map_or_else(String::new, |nqn| nqn.0.to_string());
            let request = v1::ListNamespacesRequest { nqn };
            let found = answer("asking", client.list_namespaces(request)).await?.namespaces;
            let found: Vec<_> = found.into_iter().map(views::Namespace::from).collect();
            output::list(common.output, "namespaces", &found)
        }
        Command::Attach { nqn, uri, force } => {
            let nqn = nqn.0.to_string();
            let request = v1::AttachNamespaceRequest { nqn, uri, force };
            let attached = answer("attaching", client.attach_namespace(request)).await?;
            output::one(common.output, &views::Namespace::from(attached))
        }
        Command::Detach { nqn, nsid } => {
            let request = v1::DetachNamespaceRequest { nqn: nqn.0.to_string(), nsid };
            let existed = answer("detaching", client.detach_namespace(request)).await?.existed;
            let said = if existed { "is detached" } else { "was not there" };
            output::done(common.output, &format!("namespace {nsid} of {} {said}", nqn.0))
        }
    }
}
