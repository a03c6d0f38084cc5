//! `braid-engine replica`: replicas are made, shared, enlarged and destroyed.

use braid_api::v1;
use clap::Subcommand;

use crate::admin::confirm::Confirmation;
use crate::admin::connection::{Common, answer};
use crate::admin::pool::{reference, went};
use crate::admin::{output, views};
use crate::error::Result;
use crate::quantity::{Block, Bytes, Name};

/// What `replica --help` teaches below the list of commands.
pub const HELP: &str = "\
A replica is a disk for hosts, as large as it says, that takes space from its pool as it is
written (thin) or at once (thick). It is shared as an NVMe subsystem of its own, whose names follow
from its UUID and stay the same wherever its pool is.

Examples:
  braid-engine replica create vm1 --size 20GiB
  braid-engine replica create vm2 --size 1TiB --thick --block-size 512 --pool /dev/sdb
  braid-engine replica list
  braid-engine replica resize vm1 40GiB
  braid-engine replica unshare vm1
  braid-engine replica share vm1 --allow-host nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-...
  braid-engine replica destroy vm1

REPLICA is a name or a UUID. --pool is needed where several pools have one of that name.

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no engine answers.";

/// `replica`.
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
    /// Make a replica
    Create(Create),
    /// Let hosts connect to a replica
    Share(Share),
    /// Disconnect hosts from a replica, until the engine starts again or the pool is imported again
    Unshare {
        /// Its name or UUID
        #[arg(value_name = "REPLICA")]
        replica: String,
    },
    /// Make a replica larger
    Resize {
        /// Its name or UUID
        #[arg(value_name = "REPLICA")]
        replica: String,
        /// The size it is to have
        #[arg(value_name = "SIZE")]
        size: Bytes,
    },
    /// Make a replica go away, with its data; its snapshots stay
    Destroy(Destroy),
    /// Show replicas
    List,
}

#[derive(clap::Args, Clone, Debug)]
struct Create {
    /// What people call it: at most 63 bytes, its own in its pool
    #[arg(value_name = "NAME")]
    name: String,
    /// Its size, as hosts see it
    #[arg(long)]
    size: Bytes,
    /// Set its space aside at once
    #[arg(long)]
    thick: bool,
    /// Logical block size, 512 or 4096
    #[arg(long, value_name = "BYTES", default_value = "4096")]
    block_size: Block,
    /// Its identity [default: random]
    #[arg(long)]
    uuid: Option<String>,
}

#[derive(clap::Args, Clone, Debug)]
struct Share {
    /// Its name or UUID
    #[arg(value_name = "REPLICA")]
    replica: String,
    /// Only hosts with these names may connect; repeatable [default: as the engine's]
    #[arg(long, value_name = "HOSTNQN")]
    allow_host: Vec<Name>,
}

#[derive(clap::Args, Clone, Debug)]
struct Destroy {
    /// Its name or UUID
    #[arg(value_name = "REPLICA")]
    replica: String,
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
    let replica = match command {
        Command::List => return list(&common, pool).await,
        Command::Destroy(destroy) => return destroy.run(&common, pool).await,
        Command::Create(create) => create.run(&common, pool).await?,
        Command::Share(Share { replica, allow_host }) => {
            let allowed_hosts = allow_host.iter().map(|host| host.0.to_string()).collect();
            let request = v1::ShareReplicaRequest { pool, replica, allowed_hosts };
            answer("sharing", common.connect().await?.share_replica(request)).await?
        }
        Command::Unshare { replica } => {
            let request = v1::UnshareReplicaRequest { pool, replica };
            answer("disconnecting hosts", common.connect().await?.unshare_replica(request)).await?
        }
        Command::Resize { replica, size } => {
            let request = v1::ResizeReplicaRequest { pool, replica, size_bytes: size.0 };
            answer("enlarging", common.connect().await?.resize_replica(request)).await?
        }
    };
    output::one(common.output, &views::Replica::from(replica))
}

impl Create {
    async fn run(self, common: &Common, pool: String) -> Result<v1::Replica> {
        let request = v1::CreateReplicaRequest {
            pool,
            name: self.name,
            uuid: self.uuid.unwrap_or_default(),
            size_bytes: self.size.0,
            block_bytes: self.block_size.0.bytes(),
            thick: self.thick,
        };
        answer("making the replica", common.connect().await?.create_replica(request)).await
    }
}

impl Destroy {
    async fn run(self, common: &Common, pool: String) -> Result<()> {
        let what = format!("replica {}", self.replica);
        self.confirmation.demand(&format!("The data of {what}"), &self.replica)?;
        let request = v1::DestroyReplicaRequest { pool, replica: self.replica };
        let mut client = common.connect().await?;
        let existed = answer("destroying", client.destroy_replica(request)).await?.existed;
        went(common, existed || self.if_exists, &what, "destroyed")
    }
}

async fn list(common: &Common, pool: String) -> Result<()> {
    let mut client = common.connect().await?;
    let answered = answer("asking", client.list_replicas(v1::ListReplicasRequest { pool })).await?;
    let replicas: Vec<_> = answered.replicas.into_iter().map(views::Replica::from).collect();
    output::list(common.output, "replicas", &replicas)
}
