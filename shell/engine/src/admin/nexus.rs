//! `braid-engine nexus`: volumes that a running engine serves or stands by for are shown, and the
//! pace of their rebuilds is changed.

use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use braid_api::v1;
use clap::Subcommand;

use crate::admin::connection::{Client, Common, answer};
use crate::admin::nexus_views::{Happened, Member, Nexus, Progress};
use crate::admin::output;
use crate::error::{Error, Result};
use crate::quantity::Bytes;

/// What `nexus --help` teaches below the list of commands.
pub const HELP: &str = "\
A volume is served by one engine at a time; others stand by. Which one, the control plane decides:
braid-control volume create, take-over, hand-over. VOLUME is its UUID or its name, and may be left
out where there is one. A rebuild brings a replica that was away up to date. Its rate is in bytes of
the volume that are gone through a second, as long as hosts have commands in work, and while they
have none; `any` is as fast as it goes. It holds at this engine until it ends.

Examples:
  braid-engine nexus list
  braid-engine nexus members db
  braid-engine nexus rebuild rate db --beside 32MiB --alone any
  braid-engine nexus rebuild pause db
  braid-engine nexus rebuild progress db --wait
  braid-engine nexus history db -o json

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense, 3 no engine answers.";

/// How often a rebuild that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// `nexus`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show the volumes that this engine serves or stands by for
    List,
    /// Show one of them
    Show(Meant),
    /// Show its replicas: who is a member, who is away, and why
    Members(Meant),
    /// Show what happened to it at this engine
    History(Meant),
    /// Show and change how replicas that return are brought up to date
    #[command(subcommand)]
    Rebuild(Rebuild),
}

#[derive(Subcommand, Clone, Debug)]
enum Rebuild {
    /// Change how fast it goes
    Rate(Rates),
    /// Begin no region and no return until it is resumed
    Pause(Meant),
    /// Go on with what was paused
    Resume(Meant),
    /// Show how far it is, and when it will be done
    Progress(Watch),
}

#[derive(clap::Args, Clone, Debug)]
struct Meant {
    /// Its UUID or name
    #[arg(value_name = "VOLUME", default_value = "", hide_default_value = true)]
    volume: String,
}

#[derive(clap::Args, Clone, Debug)]
struct Rates {
    #[command(flatten)]
    meant: Meant,
    /// Bytes a second while hosts have commands in work, or any
    #[arg(long, value_name = "SIZE", required_unless_present = "alone")]
    beside: Option<Rate>,
    /// Bytes a second while they have none, or any
    #[arg(long, value_name = "SIZE")]
    alone: Option<Rate>,
}

#[derive(clap::Args, Clone, Debug)]
struct Watch {
    #[command(flatten)]
    meant: Meant,
    /// Wait until all replicas are members
    #[arg(long)]
    wait: bool,
}

/// A rate, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate(u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "any" {
            return Ok(Self(0));
        }
        match text.parse::<Bytes>()?.0 {
            0 => Err("0 bytes a second would never end; nexus rebuild pause pauses it".into()),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, command } = options;
    let mut client = common.connect().await?;
    match command {
        Command::List => {
            let request = v1::ListNexusesRequest::default();
            let nexuses = answer("asking", client.list_nexuses(request)).await?.nexuses;
            let nexuses: Vec<_> = nexuses.into_iter().map(Nexus::from).collect();
            output::list(common.output, "nexuses", &nexuses)
        }
        Command::Show(meant) => {
            let nexus = meant.find(&mut client).await?;
            output::one(common.output, &Nexus::from(nexus))
        }
        Command::Members(meant) => {
            let members = meant.find(&mut client).await?.members;
            let members: Vec<_> = members.into_iter().map(Member::from).collect();
            output::list(common.output, "members", &members)
        }
        Command::History(Meant { volume }) => {
            let request = v1::GetNexusHistoryRequest { volume };
            let events = answer("asking", client.get_nexus_history(request)).await?.events;
            let events: Vec<_> = events.into_iter().map(Happened::from).collect();
            output::list(common.output, "events", &events)
        }
        Command::Rebuild(rebuild) => rebuild.run(&common, &mut client).await,
    }
}

impl Meant {
    /// The nexus that is meant.
    async fn find(&self, client: &mut Client) -> Result<v1::Nexus> {
        let request = v1::ListNexusesRequest { volume: self.volume.clone() };
        let mut nexuses = answer("asking", client.list_nexuses(request)).await?.nexuses;
        match (nexuses.pop(), nexuses.len()) {
            (Some(nexus), 0) => Ok(nexus),
            (None, _) => Err(Error::run("this engine has no part in any volume")),
            _ => Err(Error::usage("which volume? there are several here: braid-engine nexus list")),
        }
    }
}

impl Rebuild {
    async fn run(self, common: &Common, client: &mut Client) -> Result<()> {
        let request = match self {
            Self::Rate(Rates { meant, beside, alone }) => v1::SetRebuildPaceRequest {
                volume: meant.volume,
                paused: None,
                beside_bytes_per_s: beside.map(|rate| rate.0),
                alone_bytes_per_s: alone.map(|rate| rate.0),
            },
            Self::Pause(meant) => paused(meant, true),
            Self::Resume(meant) => paused(meant, false),
            Self::Progress(watch) => return watch.run(common, client).await,
        };
        let nexus = answer("changing the pace", client.set_rebuild_pace(request)).await?;
        output::one(common.output, &Progress::from(nexus))
    }
}

fn paused(meant: Meant, paused: bool) -> v1::SetRebuildPaceRequest {
    let volume = meant.volume;
    v1::SetRebuildPaceRequest { volume, paused: Some(paused), ..Default::default() }
}

impl Watch {
    async fn run(self, common: &Common, client: &mut Client) -> Result<()> {
        let mut nexus = self.meant.find(client).await?;
        let shows = std::io::stderr().is_terminal();
        while self.wait && !is_whole(&nexus) {
            if nexus.state() == v1::NexusState::Standby {
                return Err(Error::run("another engine serves it now; ask that one"));
            }
            if shows {
                eprint!("\r\x1b[K{}", Progress::from(nexus).sentence());
            }
            tokio::time::sleep(LOOK).await;
            nexus = self.meant.find(client).await?;
        }
        if shows && self.wait {
            eprint!("\r\x1b[K");
        }
        output::one(common.output, &Progress::from(nexus))
    }
}

/// Whether all its replicas are members.
fn is_whole(nexus: &v1::Nexus) -> bool {
    let member = |member: &v1::NexusMember| member.state() == v1::MemberState::Member;
    !nexus.members.is_empty() && nexus.members.iter().all(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_size_or_any_and_never_nothing() {
        assert_eq!("any".parse(), Ok(Rate(0)));
        assert_eq!("32MiB".parse(), Ok(Rate(32 << 20)));
        assert!("0".parse::<Rate>().unwrap_err().contains("pause"));
        assert!("fast".parse::<Rate>().is_err());
    }

    #[test]
    fn a_volume_without_a_known_replica_is_not_whole() {
        let mut nexus = v1::Nexus::default();
        assert!(!is_whole(&nexus));
        let state = v1::MemberState::Member.into();
        nexus.members = vec![v1::NexusMember { state, ..Default::default() }];
        assert!(is_whole(&nexus));
        nexus.members.push(v1::NexusMember::default());
        assert!(!is_whole(&nexus));
    }
}
