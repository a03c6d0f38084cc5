//! The options of `perf`.

use std::str::FromStr;

use braid_nvme::host;
use clap::ValueEnum;

use crate::client::Output;
use crate::client::uri::{Portal, TargetUri};
use crate::error::{Error, Result};
use crate::perf::generator::Mix;
use crate::quantity::{Bytes, Name, Period};
use crate::serve::options::Poll;

/// What `perf` can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// What to load: nvme+tcp://HOST:PORT/NQN?nsid=N; without nsid, the first namespace
    #[arg(value_name = "URI")]
    pub target: TargetUri,

    /// Another address of the same subsystem; repeatable. Commands take the paths that the target
    /// says are best, and another one when one fails
    #[arg(long, value_name = "HOST[:PORT]")]
    pub path: Vec<Portal>,

    /// Ask the discovery service at the URI's address for all addresses of the subsystem
    #[arg(long, conflicts_with = "path")]
    pub discover: bool,

    /// Which of several paths that are equally good a command takes
    #[arg(long, default_value = "round-robin", value_name = "POLICY")]
    pub policy: Policy,

    /// What to do: read, write, mixed, or mixed:PERCENT with so many of 100 commands reads
    #[arg(long, default_value = "read", value_name = "KIND")]
    pub rw: ReadWrite,

    /// Go anywhere in the region (the default)
    #[arg(long, conflicts_with = "sequential")]
    pub random: bool,

    /// Go from the beginning to the end, and again
    #[arg(long)]
    pub sequential: bool,

    /// Bytes of a command, up to 128KiB
    #[arg(long, default_value = "4KiB", value_name = "SIZE")]
    pub block_size: Bytes,

    /// Commands in flight on each queue
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub queue_depth: u16,

    /// I/O queues of each connection
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub queues: u16,

    /// Controllers to connect, each with its own queues
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub connections: u16,

    /// How long to go on [default: 10s, if there is no --total]
    #[arg(long, value_name = "TIME")]
    pub time: Option<Period>,

    /// Stop after so many bytes
    #[arg(long, value_name = "SIZE")]
    pub total: Option<Bytes>,

    /// Stay within the first bytes of the namespace [default: all of it]
    #[arg(long, value_name = "SIZE")]
    pub region: Option<Bytes>,

    /// Write blocks that carry their address and generation, and check what is read; at the end,
    /// read back everything that was written
    #[arg(long)]
    pub verify: bool,

    /// Flush after every N writes
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub fsync_every: u32,

    /// How long a target that was lost is waited for
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub give_up: Period,

    /// A path that says nothing for so long is lost
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub keep_alive: Period,

    /// Demand a checksum over PDU headers
    #[arg(long)]
    pub header_digest: bool,

    /// Demand a checksum over payload
    #[arg(long)]
    pub data_digest: bool,

    /// Our name [default: derived from this machine's id]
    #[arg(long, value_name = "NQN")]
    pub host_nqn: Option<Name>,

    /// Whether to look for answers before sleeping; always gives the lowest latency
    #[arg(long, default_value = "adaptive", value_name = "MODE")]
    pub poll: Poll,

    /// For the order of a random load; the same seed asks for the same [default: random]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// How to print the result
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
}

/// Reads, writes or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadWrite {
    /// Of 100 commands, so many are reads.
    pub read_percent: u8,
}

impl FromStr for ReadWrite {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let percent = |text: &str| text.parse().ok().filter(|&percent: &u8| percent <= 100);
        let read_percent = match text.split_once(':').unwrap_or((text, "")) {
            ("read", "") => Some(100),
            ("write", "") => Some(0),
            ("mixed", "") => Some(70),
            ("mixed", text) => percent(text),
            _ => None,
        };
        read_percent.map(|read_percent| Self { read_percent }).ok_or_else(|| {
            format!("'{text}' is not read, write, mixed or mixed:PERCENT, such as mixed:70")
        })
    }
}

/// Which of several paths a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The first one
    First,
    /// One after the other
    RoundRobin,
    /// The one with the fewest commands in flight
    QueueDepth,
}

impl From<Policy> for host::Policy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::First => Self::First,
            Policy::RoundRobin => Self::RoundRobin,
            Policy::QueueDepth => Self::QueueDepth,
        }
    }
}

/// The largest command: one buffer of the arena holds it.
const COMMAND_BYTES_MAX: u64 = 128 << 10;
/// Commands that one queue takes: its entries less one, of at most 1024.
const QUEUE_DEPTH_MAX: u16 = 1023;
/// Queues and connections, at most: more than any target grants.
const QUEUES_MAX: u16 = 128;

impl Options {
    /// Checks what does not depend on the target.
    ///
    /// # Errors
    /// One line that says which value is possible.
    pub fn check(&self) -> Result<()> {
        let size = self.block_size.0;
        if !size.is_multiple_of(512) || !(512..=COMMAND_BYTES_MAX).contains(&size) {
            return Err(Error::usage(format!(
                "--block-size {} is not a multiple of 512 bytes up to 128KiB",
                self.block_size
            )));
        }
        within("--queue-depth", self.queue_depth, QUEUE_DEPTH_MAX)?;
        within("--queues", self.queues, QUEUES_MAX)?;
        if self.path.len() >= host::PATHS_MAX {
            return Err(Error::usage(format!(
                "--path is given over {} times",
                host::PATHS_MAX - 1
            )));
        }
        within("--connections", self.connections, QUEUES_MAX)
    }

    /// Commands in flight on all queues together.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        u64::from(self.queue_depth) * u64::from(self.queues) * u64::from(self.connections)
    }

    /// Associations of a connection: one for each path.
    #[must_use]
    pub const fn paths(&self) -> usize {
        1 + self.path.len()
    }

    /// How reads and writes are mixed.
    #[must_use]
    pub const fn mix(&self) -> Mix {
        Mix {
            read_percent: self.rw.read_percent,
            random: !self.sequential,
            flush_every: self.fsync_every,
        }
    }
}

fn within(name: &str, value: u16, max: u16) -> Result<()> {
    if (1..=max).contains(&value) {
        Ok(())
    } else {
        Err(Error::usage(format!("{name} {value} is not between 1 and {max}")))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> std::result::Result<Options, String> {
        let words = ["perf", "nvme+tcp://127.0.0.1:4420/nqn.a"].into_iter();
        let line = Line::try_parse_from(words.chain(line.split_whitespace()));
        let options = line.map_err(|error| error.to_string())?.options;
        options.check().map_err(|error| error.to_string())?;
        Ok(options)
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let options = parse("").unwrap();
        assert_eq!(options.mix(), Mix { read_percent: 100, random: true, flush_every: 0 });
        assert_eq!((options.in_flight(), options.block_size), (32, Bytes(4096)));
        assert_eq!(options.output, Output::Table);
    }

    #[test]
    fn a_full_line_is_understood() {
        let options = parse(
            "--rw mixed:30 --sequential --block-size 128KiB --queue-depth 8 --queues 4 \
             --connections 2 --time 5s --total 1GiB --verify --fsync-every 16 --header-digest \
             --data-digest --host-nqn nqn.host --poll always --seed 9 -o json --path node2 \
             --path 127.0.0.1:4421 --policy queue-depth --keep-alive 2s",
        )
        .unwrap();
        assert_eq!(options.mix(), Mix { read_percent: 30, random: false, flush_every: 16 });
        assert_eq!((options.in_flight(), options.paths()), (64, 3));
        assert!(options.verify && options.header_digest && options.data_digest);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (line, expected) in [
            ("--rw trim", "mixed:70"),
            ("--rw mixed:101", "mixed:70"),
            ("--block-size 1000", "multiple of 512"),
            ("--block-size 256KiB", "up to 128KiB"),
            ("--queue-depth 0", "between 1 and 1023"),
            (&" --path a".repeat(8), "over 7 times"),
            ("--path a --discover", "cannot be used with"),
            ("--queues 1000", "between 1 and 128"),
            ("--random --sequential", "cannot be used with"),
            ("-o yaml", "possible values: table, json"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
