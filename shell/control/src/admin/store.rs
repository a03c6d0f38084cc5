//! `braid-control store`: a copy of a store is put in its place.

use std::path::PathBuf;

use braid_terminal::Result;
use clap::Subcommand;

use crate::identity;
use crate::store::restore;

/// What `store --help` teaches below the list of commands.
pub const HELP: &str = "\
A store is one file. A copy that was made of it while no control plane ran is a backup. What
happened after the copy was made is not in it, so a store that is restored gets another identity,
and decides nothing about a volume before that volume is recovered from its replicas:
  braid-control store restore backup.redb /var/lib/braid/control.redb
  braid-control serve --store /var/lib/braid/control.redb
  braid-control volume list
  braid-control volume recover db

Exit codes: 0 done, 1 the copy cannot be read, 2 something is at the place.";

/// `store`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Make a store of a copy
    Restore {
        /// The copy
        #[arg(value_name = "COPY")]
        from: PathBuf,
        /// Where the store is to be
        #[arg(value_name = "STORE")]
        to: PathBuf,
    },
}

/// Runs the command; what it has to say.
///
/// # Errors
/// Why it was not done.
pub fn run(options: &Options) -> Result<String> {
    let Command::Restore { from, to } = &options.command;
    let id = restore(from, to)?;
    let (to, id) = (to.display(), identity::text(&id));
    Ok(format!(
        "{to} is store {id} now; serve it, then 'braid-control volume recover' each volume\n"
    ))
}
