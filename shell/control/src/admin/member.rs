//! `braid-control volume add-member` and `remove-member`.

use braid_api::control as wire;
use braid_terminal::call::answer;
use braid_terminal::confirm::Confirmation;
use braid_terminal::{Error, Result, output};

use super::connection::Common;
use super::views;
use super::volume::place;

/// What `add-member --help` teaches.
pub(super) const HELP_ADD: &str = "\
The engine makes a replica in its pool, and the volume makes it equal to the others while hosts
write; 'braid-control volume show' tells how far it is. Asked again, nothing is done again.

Examples:
  braid-control volume add-member db n4
  braid-control volume add-member db n4/var/lib/braid/pool2
  braid-control volume add-member db n4 && braid-control volume remove-member db n1 --yes";

/// What `remove-member --help` teaches.
pub(super) const HELP_REMOVE: &str = "\
The volume goes on with the others. The replica, its data and the volume's snapshots in it are
destroyed; if its engine is not connected, when it is back. The last replica that holds everything
cannot be removed: add another one first, or delete the volume.

Examples:
  braid-control volume remove-member db n3
  braid-control volume remove-member db 6ba7b810-9dad-11d1-80b4-00c04fd430c8 --yes
  braid-control volume remove-member db n3 --force --yes   (n3 does not come back)";

/// `volume add-member`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Add {
    /// The volume's name or UUID
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// Where the replica is to be made: ENGINE, ENGINE/POOL or ENGINE/PATH/OF/POOL
    #[arg(value_name = "PLACE")]
    place: String,
    /// The replica's identity [default: random]
    #[arg(long)]
    uuid: Option<String>,
}

/// `volume remove-member`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Remove {
    /// The volume's name or UUID
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// The replica's UUID; or its engine, if that has one replica of the volume
    #[arg(value_name = "REPLICA")]
    replica: String,
    /// Forget what is on an engine that is not connected
    #[arg(long)]
    force: bool,
    /// Succeed if it is not there
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Add {
    pub(super) async fn run(self, common: &Common) -> Result<()> {
        let wire::Place { replica, engine, pool } = place(&self.place);
        if !replica.is_empty() {
            return Err(Error::usage(
                "a replica that is there holds something else: give the engine that makes one",
            ));
        }
        let (volume, uuid) = (self.volume, self.uuid.unwrap_or_default());
        let request = wire::AddMemberRequest { volume, engine, pool, uuid };
        let mut client = common.connect().await?;
        let volume = answer("adding a replica", client.add_member(request)).await?;
        output::one(common.output, &views::Volume::from(volume))
    }
}

impl Remove {
    pub(super) async fn run(self, common: &Common) -> Result<()> {
        let Self { volume, replica, force, if_exists, confirmation } = self;
        let loss = format!("What the replica on {replica} of volume {volume} holds");
        confirmation.demand(&loss, &replica)?;
        let mut client = common.connect().await?;
        let (of, which) = (volume.clone(), replica.clone());
        let request = wire::RemoveMemberRequest { volume, replica, force };
        let existed = answer("removing the replica", client.remove_member(request)).await?.existed;
        if existed || if_exists {
            let done = format!("volume {of} goes on without the replica {which}");
            return output::done(common.output, &done);
        }
        Err(Error::run(format!(
            "volume {of} has no replica {which}; nothing was done (--if-exists makes that a \
             success)"
        )))
    }
}
