//! `braid-engine pool`: pools are made, imported, exported, listed, grown and destroyed.

use std::path::{Path, PathBuf};

use braid_api::v1::{self, Allocation, SharePolicy};
use clap::{Subcommand, ValueEnum};

use crate::admin::confirm::Confirmation;
use crate::admin::connection::{Common, answer};
use crate::admin::{output, views};
use crate::error::{Error, Result};
use crate::quantity::Bytes;

/// What `pool --help` teaches below the list of commands.
pub const HELP: &str = "\
A pool is one disk or file that holds replicas. A running engine holds it alone.

Examples:
  braid-engine pool create /var/lib/braid/pool1 --size 100GiB
  braid-engine pool create /dev/sdb
  braid-engine pool import /dev/sdb
  braid-engine pool import --uuid 6ba7b810-9dad-11d1-80b4-00c04fd430c8
  braid-engine pool list -o json
  braid-engine pool grow /dev/sdb
  braid-engine pool destroy /var/lib/braid/pool1

POOL is a path or a UUID, and can be left out where there is only one, but not to destroy it.

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no engine answers.";

/// `pool`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Make a pool on a block device or a file, and import it
    Create(Create),
    /// Open a pool that exists, and share its replicas
    Import(Import),
    /// Close a pool in order and let its disk go
    Export(Export),
    /// Show the pools that are imported
    List,
    /// Use the space that a pool's disk gained
    Grow(Grow),
    /// Close a pool and make its disk no pool any more
    Destroy(Destroy),
}

/// Which replicas are shared without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Share {
    /// All, as soon as the pool is imported or they are made.
    All,
    /// None.
    None,
}

#[derive(clap::Args, Clone, Debug)]
struct Create {
    /// Block device, or file, which is made if it is not there
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Size of the file, at least 16MiB [default: as large as what is there]
    #[arg(long)]
    size: Option<Bytes>,
    /// Let the file take its space as it is written, for tests
    #[arg(long)]
    sparse: bool,
    /// Write all of the file once, for benchmarks
    #[arg(long, conflicts_with = "sparse")]
    prefill: bool,
    /// Identity of the pool [default: random]
    #[arg(long)]
    uuid: Option<String>,
    /// Length of the journal [default: the pool's size / 256, 4MiB to 128MiB]
    #[arg(long, value_name = "SIZE")]
    journal: Option<Bytes>,
    /// Which replicas are shared without being asked for
    #[arg(long, default_value = "all", value_name = "WHICH")]
    share: Share,
    /// Take a disk that holds something; one that is in use is never taken
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(clap::Args, Clone, Debug)]
struct Import {
    /// Block device or file; with --uuid, a folder where it is looked for, or nothing: then all
    /// block devices are looked through
    #[arg(value_name = "PATH", required_unless_present = "uuid")]
    path: Option<PathBuf>,
    /// Identity that is expected there
    #[arg(long)]
    uuid: Option<String>,
    /// Which replicas are shared without being asked for
    #[arg(long, default_value = "all", value_name = "WHICH")]
    share: Share,
}

#[derive(clap::Args, Clone, Debug)]
struct Export {
    /// Its path or UUID
    #[arg(value_name = "POOL", default_value = "")]
    pool: String,
    /// Succeed if it is not imported
    #[arg(long)]
    if_exists: bool,
}

#[derive(clap::Args, Clone, Debug)]
struct Grow {
    /// Its path or UUID
    #[arg(value_name = "POOL", default_value = "")]
    pool: String,
    /// Make its file so large first
    #[arg(long)]
    size: Option<Bytes>,
}

#[derive(clap::Args, Clone, Debug)]
struct Destroy {
    /// Its path or UUID
    #[arg(value_name = "POOL")]
    pool: String,
    /// Even with replicas or snapshots
    #[arg(long)]
    force: bool,
    /// Succeed if it is not imported
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
        Command::Import(import) => import.run(&common).await,
        Command::Export(export) => export.run(&common).await,
        Command::List => list(&common).await,
        Command::Grow(grow) => grow.run(&common).await,
        Command::Destroy(destroy) => destroy.run(&common).await,
    }
}

impl Create {
    async fn run(self, common: &Common) -> Result<()> {
        let path = absolute(&self.path)?;
        // What is there only the engine can see, which may be on another machine.
        if self.force {
            self.confirmation.demand(&format!("What is on {path}"), &path)?;
        }
        let allocation = match (self.sparse, self.prefill) {
            (true, _) => Allocation::Sparse,
            (_, true) => Allocation::Prefilled,
            _ => Allocation::Reserved,
        };
        let request = v1::CreatePoolRequest {
            path,
            uuid: self.uuid.unwrap_or_default(),
            size_bytes: self.size.map_or(0, |size| size.0),
            allocation: allocation.into(),
            journal_bytes: self.journal.map_or(0, |size| size.0),
            share: self.share.wire().into(),
            force: self.force,
        };
        let mut client = common.connect().await?;
        let pool = answer("making the pool", client.create_pool(request)).await?;
        output::one(common.output, &views::Pool::from(pool))
    }
}

impl Import {
    async fn run(self, common: &Common) -> Result<()> {
        let request = v1::ImportPoolRequest {
            path: self.path.as_deref().map_or_else(|| Ok(String::new()), absolute)?,
            uuid: self.uuid.unwrap_or_default(),
            share: self.share.wire().into(),
        };
        let mut client = common.connect().await?;
        let pool = answer("importing the pool", client.import_pool(request)).await?;
        output::one(common.output, &views::Pool::from(pool))
    }
}

impl Export {
    async fn run(self, common: &Common) -> Result<()> {
        let mut client = common.connect().await?;
        let request = v1::ExportPoolRequest { pool: reference(&self.pool) };
        let existed = answer("closing the pool", client.export_pool(request)).await?.existed;
        went(common, existed || self.if_exists, &format!("pool {}", self.pool), "exported")
    }
}

impl Grow {
    async fn run(self, common: &Common) -> Result<()> {
        let request = v1::GrowPoolRequest {
            pool: reference(&self.pool),
            file_bytes: self.size.map_or(0, |size| size.0),
        };
        let mut client = common.connect().await?;
        let pool = answer("growing the pool", client.grow_pool(request)).await?;
        output::one(common.output, &views::Pool::from(pool))
    }
}

impl Destroy {
    async fn run(self, common: &Common) -> Result<()> {
        if self.pool.is_empty() {
            return Err(Error::usage("POOL is empty; name the pool that is to be destroyed"));
        }
        let loss = format!("Everything in pool {}", self.pool);
        self.confirmation.demand(&loss, &self.pool)?;
        let request = v1::DestroyPoolRequest { pool: reference(&self.pool), force: self.force };
        let mut client = common.connect().await?;
        let existed = answer("destroying the pool", client.destroy_pool(request)).await?.existed;
        went(common, existed || self.if_exists, &format!("pool {}", self.pool), "destroyed")
    }
}

async fn list(common: &Common) -> Result<()> {
    let mut client = common.connect().await?;
    let answered = answer("asking", client.list_pools(v1::ListPoolsRequest {})).await?;
    let pools: Vec<_> = answered.pools.into_iter().map(views::Pool::from).collect();
    output::list(common.output, "pools", &pools)
}

impl Share {
    const fn wire(self) -> SharePolicy {
        match self {
            Self::All => SharePolicy::All,
            Self::None => SharePolicy::None,
        }
    }
}

/// What went away, or that it was not there.
pub(super) fn went(common: &Common, went: bool, what: &str, how: &str) -> Result<()> {
    if went {
        output::done(common.output, &format!("{} is {how}", what.trim_end()))
    } else {
        Err(Error::run(format!(
            "there is no {} here; nothing was done (--if-exists makes that a success)",
            what.trim_end()
        )))
    }
}

/// The engine has another working directory than whoever typed a path.
fn absolute(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path)
        .map_err(|_| Error::usage("a path is missing; write /var/lib/braid/pool1 or /dev/sdb"))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|path| Error::usage(format!("{} is not UTF-8", path.display())))
}

/// A pool that is not named by its UUID is named by its path.
pub(super) fn reference(pool: &str) -> String {
    let is_path = !pool.is_empty() && uuid::Uuid::try_parse(pool).is_err();
    let path = is_path.then(|| absolute(Path::new(pool)).ok()).flatten();
    path.unwrap_or_else(|| pool.to_owned())
}
