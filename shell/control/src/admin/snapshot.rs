//! `braid-control volume snapshot`.

use braid_api::control as wire;
use braid_terminal::call::answer;
use braid_terminal::confirm::Confirmation;
use braid_terminal::{Error, Result, output};
use clap::Subcommand;

use super::connection::Common;
use super::views;

/// What `volume snapshot --help` teaches.
pub(super) const HELP: &str = "\
A snapshot is what all replicas of a volume hold at one point, as if their power had failed then:
what was flushed before is there, and a file system finds itself as after a crash. Writes wait for
it for a moment. Replicas that are away get it when they come back.

Examples:
  braid-control volume snapshot create db before-upgrade
  braid-control volume snapshot list db
  braid-control volume snapshot list db -o json
  braid-control volume snapshot destroy db before-upgrade

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no control plane answers.";

/// `volume snapshot`.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum Command {
    /// Take a snapshot; one of that name is what is asked for
    Create {
        /// The volume's name or UUID
        #[arg(value_name = "VOLUME")]
        volume: String,
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Its identity [default: random]
        #[arg(long)]
        uuid: Option<String>,
    },
    /// Show the snapshots of a volume
    List {
        /// The volume's name or UUID
        #[arg(value_name = "VOLUME")]
        volume: String,
    },
    /// Make a snapshot go away on all replicas
    Destroy {
        /// The volume's name or UUID
        #[arg(value_name = "VOLUME")]
        volume: String,
        /// The snapshot's name or UUID
        #[arg(value_name = "SNAPSHOT")]
        snapshot: String,
        /// Succeed if it is not there
        #[arg(long)]
        if_exists: bool,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub(super) async fn run(command: Command, common: &Common) -> Result<()> {
    match command {
        Command::Create { volume, name, uuid } => {
            let uuid = uuid.unwrap_or_default();
            let request = wire::CreateSnapshotRequest { volume, name, uuid };
            let mut client = common.connect().await?;
            let taken = answer("taking the snapshot", client.create_snapshot(request)).await?;
            output::one(common.output, &views::Snapshot::from(taken))
        }
        Command::List { volume } => {
            let mut client = common.connect().await?;
            let request = wire::ListSnapshotsRequest { volume };
            let listed = answer("asking", client.list_snapshots(request)).await?.snapshots;
            let snapshots: Vec<_> = listed.into_iter().map(views::Snapshot::from).collect();
            output::list(common.output, "snapshots", &snapshots)
        }
        Command::Destroy { volume, snapshot, if_exists, confirmation } => {
            confirmation.demand(&format!("Snapshot {snapshot} of volume {volume}"), &snapshot)?;
            let mut client = common.connect().await?;
            let (of, which) = (volume.clone(), snapshot.clone());
            let request = wire::DestroySnapshotRequest { volume, snapshot };
            let destroyed = answer("destroying the snapshot", client.destroy_snapshot(request));
            if destroyed.await?.existed || if_exists {
                let done = format!("snapshot {which} of volume {of} is destroyed");
                return output::done(common.output, &done);
            }
            Err(Error::run(format!(
                "volume {of} has no snapshot {which}; nothing was done (--if-exists makes that a \
                 success)"
            )))
        }
    }
}
