//! `braid-engine scrub`: every block of a pool is checked against its checksum.

use std::io::IsTerminal;
use std::time::Duration;

use braid_api::v1;
use clap::Subcommand;

use crate::admin::connection::{Client, Common, answer};
use crate::admin::pool::reference;
use crate::admin::{output, views};
use crate::error::{Error, Result};
use crate::quantity::Bytes;

/// What `scrub --help` teaches below the list of commands.
pub const HELP: &str = "\
A scrub reads every allocated block and checks it. It goes on where the last one stopped, and costs
hosts no more than its rate.

Examples:
  braid-engine scrub start --rate 200MiB --wait
  braid-engine scrub status /dev/sdb
  braid-engine scrub stop

POOL is a path or a UUID, and can be left out where there is only one.

Exit codes: 0 done, 1 refused, or --wait and blocks are lost, 2 asked for what makes no sense,
3 no engine answers.";

/// How often a scrub that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// `scrub`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Begin a scrub, or change the rate of the one that runs
    Start(Start),
    /// Stop a scrub; the next one goes on there
    Stop {
        /// Its path or UUID
        #[arg(value_name = "POOL", default_value = "", hide_default_value = true)]
        pool: String,
    },
    /// Show where a scrub stands, and how the last one ended
    Status {
        /// Its path or UUID
        #[arg(value_name = "POOL", default_value = "", hide_default_value = true)]
        pool: String,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct Start {
    /// Its path or UUID
    #[arg(value_name = "POOL", default_value = "", hide_default_value = true)]
    pool: String,
    /// What is read in a second, at most
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    rate: Bytes,
    /// Wait for its end, and fail if blocks are lost
    #[arg(long)]
    wait: bool,
}

/// Runs the command.
///
/// # Errors
/// Why it was not done, or that blocks are lost.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, command } = options;
    let mut client = common.connect().await?;
    let scrub = match command {
        Command::Start(start) => return start.run(&common, client).await,
        Command::Stop { pool } => {
            let request = v1::StopScrubRequest { pool: reference(&pool) };
            answer("stopping the scrub", client.stop_scrub(request)).await?
        }
        Command::Status { pool } => {
            let request = v1::GetScrubRequest { pool: reference(&pool) };
            answer("asking", client.get_scrub(request)).await?
        }
    };
    output::one(common.output, &views::Scrub::from(scrub))
}

impl Start {
    async fn run(self, common: &Common, mut client: Client) -> Result<()> {
        if self.rate.0 == 0 {
            return Err(Error::usage("--rate 0 reads nothing; scrub stop stops a scrub"));
        }
        let pool = reference(&self.pool);
        let request = v1::GetScrubRequest { pool: pool.clone() };
        let before = answer("asking", client.get_scrub(request)).await?.finished_unix_s;
        let request = v1::StartScrubRequest { pool: pool.clone(), rate_bytes_per_s: self.rate.0 };
        let scrub = answer("starting the scrub", client.start_scrub(request)).await?;
        if !self.wait {
            return output::one(common.output, &views::Scrub::from(scrub));
        }
        let scrub = wait(&mut client, scrub, before).await?;
        let lost = scrub.finished_errors;
        output::one(common.output, &views::Scrub::from(scrub))?;
        match lost {
            0 => Ok(()),
            lost => Err(Error::run(format!("{lost} blocks are lost; events told which"))),
        }
    }
}

/// Waits until a scrub has ended, and shows people how far it is.
async fn wait(client: &mut Client, mut scrub: v1::Scrub, before: u64) -> Result<v1::Scrub> {
    let shows = std::io::stderr().is_terminal();
    while scrub.running {
        if shows {
            let percent = scrub.checked_bytes * 100 / scrub.total_bytes.max(1);
            eprint!("\rscrubbing: {percent} % of {}", output::size(scrub.total_bytes));
        }
        tokio::time::sleep(LOOK).await;
        let request = v1::GetScrubRequest { pool: scrub.pool.clone() };
        scrub = answer("asking", client.get_scrub(request)).await?;
    }
    if shows {
        eprint!("\r\x1b[K");
    }
    if scrub.finished_unix_s == 0 || scrub.finished_unix_s < before {
        return Err(Error::run("the scrub was stopped before its end"));
    }
    Ok(scrub)
}
