//! `braid-engine snapshot`: snapshots are taken, cloned, shared and destroyed.

use braid_api::v1;
use clap::Subcommand;

use crate::admin::confirm::Confirmation;
use crate::admin::connection::{Common, answer};
use crate::admin::pool::{reference, went};
use crate::admin::{output, views};
use crate::error::{Error, Result};
use crate::quantity::Name;

/// What `snapshot --help` teaches below the list of commands.
pub const HELP: &str = "\
A snapshot keeps a replica as it was. It costs nothing to take; what is overwritten afterwards is
kept beside. A thick replica is thin afterwards. A clone is a replica that begins as a snapshot.

Examples:
  braid-engine snapshot create vm1@monday
  braid-engine snapshot list vm1
  braid-engine snapshot clone vm1@monday vm1-test
  braid-engine snapshot share vm1@monday
  braid-engine snapshot destroy vm1@monday

SNAPSHOT is REPLICA@NAME or a UUID. --pool is needed where several pools have one of that name.

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no engine answers.";

/// `snapshot`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Path or UUID of the pool [default: the only one, or whichever has it]
    #[arg(long, value_name = "POOL", default_value = "", hide_default_value = true, global = true)]
    pool: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Take a snapshot of a replica
    Create {
        /// The replica, and what people call the snapshot: vm1@monday
        #[arg(value_name = "REPLICA@NAME")]
        snapshot: String,
        /// Its identity [default: random]
        #[arg(long)]
        uuid: Option<String>,
    },
    /// Make a writable replica of a snapshot
    Clone {
        /// REPLICA@NAME or UUID
        #[arg(value_name = "SNAPSHOT")]
        snapshot: String,
        /// What people call the replica
        #[arg(value_name = "NAME")]
        name: String,
        /// Identity of the replica [default: random]
        #[arg(long)]
        uuid: Option<String>,
    },
    /// Let hosts read a snapshot, until the engine starts again or the pool is imported again
    Share {
        /// REPLICA@NAME or UUID
        #[arg(value_name = "SNAPSHOT")]
        snapshot: String,
        /// Only hosts with these names may connect; repeatable [default: as the engine's]
        #[arg(long, value_name = "HOSTNQN")]
        allow_host: Vec<Name>,
    },
    /// Disconnect hosts from a snapshot
    Unshare {
        /// REPLICA@NAME or UUID
        #[arg(value_name = "SNAPSHOT")]
        snapshot: String,
    },
    /// Make a snapshot go away; others keep what they share with it
    Destroy(Destroy),
    /// Show snapshots
    List {
        /// Of this replica only; its name or UUID
        #[arg(value_name = "REPLICA", default_value = "", hide_default_value = true)]
        replica: String,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct Destroy {
    /// REPLICA@NAME or UUID
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Succeed if it is not there
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, pool, command } = options;
    let pool = reference(&pool);
    let snapshot = match command {
        Command::List { replica } => return list(&common, pool, replica).await,
        Command::Destroy(destroy) => return destroy.run(&common, pool).await,
        Command::Clone { snapshot, name, uuid } => {
            let uuid = uuid.unwrap_or_default();
            let request = v1::CloneSnapshotRequest { pool, snapshot, name, uuid };
            let mut client = common.connect().await?;
            let replica = answer("cloning", client.clone_snapshot(request)).await?;
            return output::one(common.output, &views::Replica::from(replica));
        }
        Command::Create { snapshot, uuid } => {
            let Some((replica, name)) = snapshot.split_once('@') else {
                return Err(Error::usage(format!(
                    "'{snapshot}' names no snapshot; write REPLICA@NAME, such as vm1@monday"
                )));
            };
            let request = v1::CreateSnapshotRequest {
                pool,
                replica: replica.into(),
                name: name.into(),
                uuid: uuid.unwrap_or_default(),
            };
            answer("taking the snapshot", common.connect().await?.create_snapshot(request)).await?
        }
        Command::Share { snapshot, allow_host } => {
            let allowed_hosts = allow_host.iter().map(|host| host.0.to_string()).collect();
            let request = v1::ShareSnapshotRequest { pool, snapshot, allowed_hosts };
            answer("sharing", common.connect().await?.share_snapshot(request)).await?
        }
        Command::Unshare { snapshot } => {
            let request = v1::UnshareSnapshotRequest { pool, snapshot };
            let mut client = common.connect().await?;
            answer("disconnecting hosts", client.unshare_snapshot(request)).await?
        }
    };
    output::one(common.output, &views::Snapshot::from(snapshot))
}

impl Destroy {
    async fn run(self, common: &Common, pool: String) -> Result<()> {
        let what = format!("snapshot {}", self.snapshot);
        self.confirmation.demand(&format!("The data of {what}"), &self.snapshot)?;
        let request = v1::DestroySnapshotRequest { pool, snapshot: self.snapshot };
        let mut client = common.connect().await?;
        let existed = answer("destroying", client.destroy_snapshot(request)).await?.existed;
        went(common, existed || self.if_exists, &what, "destroyed")
    }
}

async fn list(common: &Common, pool: String, replica: String) -> Result<()> {
    let mut client = common.connect().await?;
    let request = v1::ListSnapshotsRequest { pool, replica };
    let answered = answer("asking", client.list_snapshots(request)).await?;
    let snapshots: Vec<_> = answered.snapshots.into_iter().map(views::Snapshot::from).collect();
    output::list(common.output, "snapshots", &snapshots)
}
