//! `braid-control volume`: volumes are made, listed, shown, moved, recovered and deleted.

use braid_api::control as wire;
use braid_terminal::call::answer;
use braid_terminal::confirm::Confirmation;
use braid_terminal::output::{self, Format, Row, print};
use braid_terminal::quantity::Bytes;
use braid_terminal::{Error, Result, table};
use clap::Subcommand;

use super::connection::Common;
use super::{member, snapshot, views};

/// What `volume --help` teaches below the list of commands.
pub const HELP: &str = "\
A volume is one disk for hosts, kept by several replicas on several engines. One engine serves it,
others stand by. If the one that serves is lost, a standby takes over.

Examples:
  braid-control volume create db --size 20GiB --replica n1 --replica n2 --replica n3
  braid-control volume create db --size 20GiB --replica n1/var/lib/braid/pool2 --replica n2
  braid-control volume create old --replica 6ba7b810-9dad-11d1-80b4-00c04fd430c8 --replica n2
  braid-control volume list
  braid-control volume show db
  braid-control volume resize db 40GiB            (larger only; hosts see it at once)
  braid-control volume add-member db n4           (made equal while hosts write)
  braid-control volume remove-member db n1
  braid-control volume snapshot create db monday  (of all replicas at one point)
  braid-control volume hand-over db --to n2       (for maintenance: hosts only wait)
  braid-control volume take-over db               (if the engine that serves is sick)
  braid-control volume history db
  braid-control volume delete db

VOLUME is a name or a UUID; ENGINE the name of a node or its UUID.

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no control plane answers.";

/// `volume`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Make a volume
    Create(Create),
    /// Show all volumes
    List,
    /// Show a volume, its replicas and its paths
    Show {
        /// Its name or UUID
        #[arg(value_name = "VOLUME")]
        volume: String,
    },
    /// Make a volume and its data go away
    Delete(Delete),
    /// Have another engine serve a volume now, whatever the present one does
    TakeOver {
        /// Its name or UUID
        #[arg(value_name = "VOLUME")]
        volume: String,
        /// Which engine [default: a standby]
        #[arg(long, value_name = "ENGINE", default_value = "", hide_default_value = true)]
        to: String,
        /// Go on with the replicas that answer, even if writes are lost
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Have another engine serve a volume once the present one has left in order
    HandOver {
        /// Its name or UUID
        #[arg(value_name = "VOLUME")]
        volume: String,
        /// Which engine [default: a standby]
        #[arg(long, value_name = "ENGINE", default_value = "", hide_default_value = true)]
        to: String,
    },
    /// Make a volume larger, while hosts use it
    Resize {
        /// Its name or UUID
        #[arg(value_name = "VOLUME")]
        volume: String,
        /// The size that it shall have, not below the one that it has
        #[arg(value_name = "SIZE")]
        size: Bytes,
    },
    /// Give a volume another replica
    #[command(after_help = member::HELP_ADD)]
    AddMember(member::Add),
    /// Take a replica out of a volume, and destroy it
    #[command(after_help = member::HELP_REMOVE)]
    RemoveMember(member::Remove),
    /// Take, list and destroy snapshots of a volume
    #[command(subcommand, after_help = snapshot::HELP)]
    Snapshot(snapshot::Command),
    /// Show what happened to a volume
    History {
        /// Its name or UUID
        #[arg(value_name = "VOLUME")]
        volume: String,
    },
    /// Make a volume's record anew from its replicas, after the store was lost or restored
    Recover {
        /// Its name or UUID; the UUID if the store does not know it
        #[arg(value_name = "VOLUME")]
        volume: String,
        /// Do not wait for replicas that were not heard of
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct Create {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// Its size [default: that of the given replica]
    #[arg(long)]
    size: Option<Bytes>,
    /// Where a replica is to be made: ENGINE, ENGINE/POOL or ENGINE/PATH/OF/POOL; or the UUID of
    /// one that is there. Repeatable: once for each replica
    #[arg(long = "replica", value_name = "PLACE", required = true)]
    replicas: Vec<String>,
    /// Engines that stand by, 1 to 7: with none, hosts would have nowhere to go
    #[arg(
        long,
        default_value = "1",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=7)
    )]
    standbys: u32,
    /// Its identity [default: random]
    #[arg(long)]
    uuid: Option<String>,
}

#[derive(clap::Args, Clone, Debug)]
struct Delete {
    /// Its name or UUID
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// Forget replicas on engines that are not connected
    #[arg(long)]
    force: bool,
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
    let Options { common, command } = options;
    match command {
        Command::Create(create) => create.run(&common).await,
        Command::List => list(&common).await,
        Command::Show { volume } => show(&common, volume).await,
        Command::Delete(delete) => delete.run(&common).await,
        Command::TakeOver { volume, to, force, confirmation } => {
            if force {
                confirmation
                    .demand(&format!("What only lost replicas of {volume} hold"), &volume)?;
            }
            let request = wire::TakeOverRequest { volume, engine: to, force };
            let mut client = common.connect().await?;
            one(&common, answer("moving the volume", client.take_over(request)).await?)
        }
        Command::HandOver { volume, to } => {
            let request = wire::HandOverRequest { volume, engine: to };
            let mut client = common.connect().await?;
            one(&common, answer("moving the volume", client.hand_over(request)).await?)
        }
        Command::Resize { volume, size } => {
            let request = wire::ResizeRequest { volume, size_bytes: size.0 };
            let mut client = common.connect().await?;
            one(&common, answer("resizing the volume", client.resize(request)).await?)
        }
        Command::AddMember(add) => add.run(&common).await,
        Command::RemoveMember(remove) => remove.run(&common).await,
        Command::Snapshot(command) => snapshot::run(command, &common).await,
        Command::History { volume } => {
            let mut client = common.connect().await?;
            let request = wire::HistoryRequest { volume };
            let told = answer("asking", client.history(request)).await?;
            let events: Vec<_> = told.events.into_iter().map(views::Event::from).collect();
            output::list(common.output, "events", &events)
        }
        Command::Recover { volume, force, confirmation } => {
            if force {
                confirmation
                    .demand(&format!("What only lost replicas of {volume} know"), &volume)?;
            }
            let mut client = common.connect().await?;
            let request = wire::RecoverRequest { volume, force };
            one(&common, answer("recovering", client.recover(request)).await?)
        }
    }
}

fn one(common: &Common, volume: wire::Volume) -> Result<()> {
    output::one(common.output, &views::Volume::from(volume))
}

impl Create {
    async fn run(self, common: &Common) -> Result<()> {
        let request = wire::CreateRequest {
            name: self.name,
            uuid: self.uuid.unwrap_or_default(),
            size_bytes: self.size.map_or(0, |size| size.0),
            places: self.replicas.iter().map(|text| place(text)).collect(),
            standbys: self.standbys,
        };
        let mut client = common.connect().await?;
        one(common, answer("making the volume", client.create(request)).await?)
    }
}

impl Delete {
    async fn run(self, common: &Common) -> Result<()> {
        let Self { volume, force, if_exists, confirmation } = self;
        confirmation.demand(&format!("Everything in volume {volume}"), &volume)?;
        let mut client = common.connect().await?;
        let request = wire::DeleteRequest { volume: volume.clone(), force };
        let existed = answer("deleting the volume", client.delete(request)).await?.existed;
        if existed || if_exists {
            return output::done(common.output, &format!("volume {volume} is being deleted"));
        }
        Err(Error::run(format!(
            "there is no volume {volume}; nothing was done (--if-exists makes that a success)"
        )))
    }
}

async fn list(common: &Common) -> Result<()> {
    let mut client = common.connect().await?;
    let listed = answer("asking", client.list(wire::ListRequest {})).await?;
    let volumes: Vec<_> = listed.volumes.into_iter().map(views::Volume::from).collect();
    output::list(common.output, "volumes", &volumes)
}

async fn show(common: &Common, volume: String) -> Result<()> {
    let mut client = common.connect().await?;
    let shown = answer("asking", client.get(wire::GetRequest { volume })).await?;
    let volume = views::Volume::from(shown);
    if common.output != Format::Table {
        return output::one(common.output, &volume);
    }
    let mut text = rows(std::slice::from_ref(&volume));
    for part in [rows(&volume.replicas), rows(&volume.paths)] {
        text += &format!("\n{part}");
    }
    if let Some(epoch) = volume.lossy_epoch {
        text += &format!("\nwrites that were not flushed may be lost since epoch {epoch}\n");
    }
    for views::Ended { what, why, .. } in &volume.ended {
        text += &format!("\nit does not get {what}: {why}\n");
    }
    print(&text);
    Ok(())
}

fn rows<T: Row>(things: &[T]) -> String {
    let head: Vec<_> = T::HEAD.iter().map(ToString::to_string).collect();
    let rows: Vec<_> = std::iter::once(head).chain(things.iter().map(Row::cells)).collect();
    table::render(&rows)
}

/// A place as people write it: a replica's UUID, or an engine and its pool.
pub(super) fn place(text: &str) -> wire::Place {
    if uuid::Uuid::try_parse(text).is_ok() {
        return wire::Place { replica: text.into(), ..wire::Place::default() };
    }
    let (engine, pool) = text.split_once('/').unwrap_or((text, ""));
    let pool = match uuid::Uuid::try_parse(pool) {
        _ if pool.is_empty() => String::new(),
        Ok(_) => pool.into(),
        Err(_) => format!("/{}", pool.trim_start_matches('/')),
    };
    wire::Place { replica: String::new(), engine: engine.into(), pool }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_replica_or_a_pool_of_an_engine() {
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        assert_eq!(place(uuid).replica, uuid);
        for (text, engine, pool) in [
            ("n1", "n1", ""),
            (&format!("n1/{uuid}"), "n1", uuid),
            ("n1/dev/sdb", "n1", "/dev/sdb"),
            ("n1//dev/sdb", "n1", "/dev/sdb"),
        ] {
            let place = place(text);
            assert_eq!((place.engine.as_str(), place.pool.as_str()), (engine, pool), "{text}");
        }
    }
}
