//! The options of `serve`: one list for the command line and the TOML file alike.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;

use braid_nvme::ana::AnaState;
use braid_nvme::connect::CNTLID_MAX;
use braid_nvme::target::ControllerModel;
use braid_reactor::Polling;
pub use braid_terminal::log::{Level, LogFormat};
use clap::ValueEnum;
use serde::Deserialize;

use crate::quantity::{Address, Block, Bytes, Name, Period, Switch, deserialize_from_text};
use crate::serve::uri::{NamespaceUri, Served};

/// What `serve` can be told. In the TOML file the names are the same without the dashes in front.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Options {
    /// What to serve: mem:SIZE, file:/PATH?size=SIZE, /dev/NAME or pool:/PATH, with options as
    /// below; nothing, if pools are to be made or imported while it runs
    #[arg(value_name = "NAMESPACE")]
    pub namespaces: Vec<Served>,

    /// Where hosts connect; repeatable, IPv6 as [::1]:4420; port 0 takes a free one
    /// [default: 127.0.0.1:4420]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<Address>,

    /// Another discovery service that ours refers hosts to; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    pub referral: Vec<Address>,

    /// Name of the subsystem [default: derived from the namespaces and this machine's id]
    #[arg(long)]
    pub nqn: Option<Name>,

    /// Serial number of the subsystem, at most 20 characters [default: derived from its name]
    #[arg(long)]
    pub serial: Option<Serial>,

    /// Only hosts with these names may connect; repeatable [default: all may]
    #[arg(long, value_name = "HOSTNQN")]
    pub allow_host: Vec<Name>,

    /// Keys of hosts, which have to prove that they know them (DH-HMAC-CHAP): a line for each,
    /// HOSTNQN KEY, and the key of our controllers, hash=sha256 or group=ffdhe2048 if you like;
    /// only its owner may read it; SIGHUP reads it again; hosts without a key may not connect then,
    /// discovery and replicas ask nobody [default: nobody needs a key]
    #[arg(long, value_name = "FILE")]
    pub host_keys: Option<PathBuf>,

    /// Logical block size, 512 or 4096 [default: 4096; of a device: its own]
    #[arg(long, value_name = "BYTES")]
    pub block_size: Option<Block>,

    /// How controller ids are given out [default: dynamic]
    #[arg(long, value_name = "MODEL")]
    pub controllers: Option<Controllers>,

    /// Controller ids that this engine gives out, such as 1-1000; of engines that serve one
    /// subsystem together each needs its own [default: 1-65519; for volumes those that the control
    /// plane allots]
    #[arg(long, value_name = "MIN-MAX")]
    pub cntlids: Option<ControllerIds>,

    /// How hosts reach the namespaces at first [default: optimized]
    #[arg(long, value_name = "STATE")]
    pub ana_state: Option<Ana>,

    /// Whether hosts may ask for a checksum over PDU headers, on or off [default: on]
    #[arg(long, value_name = "SWITCH")]
    pub header_digest: Option<Switch>,

    /// Whether hosts may ask for a checksum over payload, on or off [default: on]
    #[arg(long, value_name = "SWITCH")]
    pub data_digest: Option<Switch>,

    /// Threads that serve; a subsystem lives on one, and so does a pool [default: one for each that
    /// is named here, at most one per CPU; one per CPU, at most 4, if none is]
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,

    /// Whether a shard looks for work a while before it sleeps [default: adaptive]
    #[arg(long, value_name = "MODE")]
    pub poll: Option<Poll>,

    /// How long a shard looks before it sleeps, in microseconds [default: 50]
    #[arg(long, value_name = "MICROSECONDS")]
    pub poll_us: Option<u32>,

    /// Buffers a shard may use at most [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub arena: Option<Bytes>,

    /// Connections that a shard takes at most, of hosts and of other engines; 128 KiB of the arena
    /// for each [default: 512, or what the arena allows]
    #[arg(long, value_name = "N")]
    pub connections: Option<u32>,

    /// Of these, connections that one host may have; an eighth is never one host's [default: 256]
    #[arg(long, value_name = "N")]
    pub connections_per_host: Option<u32>,

    /// How long a stop waits for commands in flight [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub drain: Option<Period>,

    /// What is logged to stderr [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<Level>,

    /// How it is written [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Serve Prometheus metrics here, at /metrics
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<Address>,

    /// Where people and programs manage it; only the owner may open it [default: engine.sock in
    /// $RUNTIME_DIRECTORY, /run/braid, or for a user $XDG_RUNTIME_DIR/braid]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Where it keeps the reservations of files and devices; those of replicas are in their pool
    /// [default: $STATE_DIRECTORY, /var/lib/braid, or for a user $XDG_STATE_HOME/braid]
    #[arg(long, value_name = "PATH")]
    pub state_dir: Option<PathBuf>,

    /// Let it be managed over TCP too, by whoever reaches this address: nobody is asked who he is
    #[arg(long, value_name = "ADDR:PORT")]
    pub management: Option<Address>,

    /// Report to the control plane that listens here, and do what it orders; with --node
    #[arg(long, value_name = "ADDR:PORT")]
    pub control: Option<Address>,

    /// Name of this node, which no other engine has; with --control
    #[arg(long, value_name = "NAME")]
    pub node: Option<NodeName>,

    /// Volumes here that are rebuilt at once; others wait for their turn, unless 1 GiB or less of
    /// them is to be gone through [default: 4]
    #[arg(long, value_name = "N")]
    pub rebuilds: Option<NonZeroU16>,

    /// Take what this file holds for the kernel's boot id, with --allow-injection: a file that
    /// changed is a machine that was started again
    #[arg(long, value_name = "FILE")]
    pub boot_id_file: Option<PathBuf>,

    /// Allow inject=, lose-unflushed=, --boot-id-file and the command fault, for tests
    #[arg(long)]
    pub allow_injection: bool,

    /// Take block devices that are mounted or seem to hold something else
    #[arg(long)]
    pub force: bool,

    /// TOML file with these options and [[subsystem]] tables; what is given here overrides it
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Further subsystems.
    #[arg(skip)]
    pub subsystem: Vec<SubsystemOptions>,
}

/// A `[[subsystem]]` table. What it leaves out is as at the top of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SubsystemOptions {
    /// As [`Options::namespaces`].
    pub namespaces: Vec<NamespaceUri>,
    /// As [`Options::nqn`].
    pub nqn: Option<Name>,
    /// As [`Options::serial`].
    pub serial: Option<Serial>,
    /// As [`Options::allow_host`].
    pub allow_host: Option<Vec<Name>>,
    /// As [`Options::block_size`].
    pub block_size: Option<Block>,
    /// As [`Options::controllers`].
    pub controllers: Option<Controllers>,
    /// As [`Options::cntlids`].
    pub cntlids: Option<ControllerIds>,
    /// As [`Options::ana_state`].
    pub ana_state: Option<Ana>,
    /// As [`Options::header_digest`].
    pub header_digest: Option<Switch>,
    /// As [`Options::data_digest`].
    pub data_digest: Option<Switch>,
}

/// A serial number: 1 to 20 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial(pub String);

impl FromStr for Serial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if (1..=20).contains(&text.len()) && text.bytes().all(|b| (b' '..0x7f).contains(&b)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("'{text}' is not a serial number: 1 to 20 printable ASCII characters"))
        }
    }
}

deserialize_from_text!(Serial);

/// The name of a node: 1 to 63 letters, digits, dots and dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(pub String);

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if (1..=63).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("'{text}' is not a node's name: 1 to 63 letters, digits, dots and dashes"))
        }
    }
}

deserialize_from_text!(NodeName);

/// How controller ids are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Controllers {
    /// A new controller for every host that connects.
    Dynamic,
    /// Controllers with fixed ids that hosts ask for.
    Static,
}

impl From<Controllers> for ControllerModel {
    fn from(controllers: Controllers) -> Self {
        match controllers {
            Controllers::Dynamic => Self::Dynamic,
            Controllers::Static => Self::Static,
        }
    }
}

/// A range of controller ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerIds {
    /// The least, from 1.
    pub min: u16,
    /// The largest.
    pub max: u16,
}

impl FromStr for ControllerIds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(min, max)| {
            Some(Self { min: min.trim().parse().ok()?, max: max.trim().parse().ok()? })
        });
        let sound = |ids: &Self| ids.min >= 1 && ids.min <= ids.max && ids.max <= CNTLID_MAX;
        parsed.filter(sound).ok_or_else(|| {
            format!("'{text}' is not a range of controller ids: MIN-MAX, from 1 to {CNTLID_MAX}")
        })
    }
}

deserialize_from_text!(ControllerIds);

/// How hosts reach namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ana {
    /// At the best
    Optimized,
    /// When no path is optimized
    NonOptimized,
    /// Not now: they wait, or use another path
    Inaccessible,
    /// Never again by this path
    PersistentLoss,
    /// It is about to become another one; inaccessible, if that takes longer than 10 seconds
    Change,
}

impl From<Ana> for AnaState {
    fn from(state: Ana) -> Self {
        match state {
            Ana::Optimized => Self::Optimized,
            Ana::NonOptimized => Self::NonOptimized,
            Ana::Inaccessible => Self::Inaccessible,
            Ana::PersistentLoss => Self::PersistentLoss,
            Ana::Change => Self::Change,
        }
    }
}

/// Whether a shard looks for work before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Poll {
    /// For a bounded time, while there was work lately.
    Adaptive,
    /// Never sleeps: a whole core for the lowest latency.
    Always,
    /// Sleeps at once: the least CPU time.
    Never,
}

impl From<Poll> for Polling {
    fn from(poll: Poll) -> Self {
        match poll {
            Poll::Adaptive => Self::Adaptive,
            Poll::Always => Self::Always,
            Poll::Never => Self::Never,
        }
    }
}

impl Options {
    /// These options, and where they are silent, those of the file.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            namespaces: given(self.namespaces, file.namespaces),
            listen: given(self.listen, file.listen),
            referral: given(self.referral, file.referral),
            nqn: self.nqn.or(file.nqn),
            serial: self.serial.or(file.serial),
            allow_host: given(self.allow_host, file.allow_host),
            host_keys: self.host_keys.or(file.host_keys),
            block_size: self.block_size.or(file.block_size),
            controllers: self.controllers.or(file.controllers),
            cntlids: self.cntlids.or(file.cntlids),
            ana_state: self.ana_state.or(file.ana_state),
            header_digest: self.header_digest.or(file.header_digest),
            data_digest: self.data_digest.or(file.data_digest),
            shards: self.shards.or(file.shards),
            poll: self.poll.or(file.poll),
            poll_us: self.poll_us.or(file.poll_us),
            arena: self.arena.or(file.arena),
            connections: self.connections.or(file.connections),
            connections_per_host: self.connections_per_host.or(file.connections_per_host),
            drain: self.drain.or(file.drain),
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
            metrics: self.metrics.or(file.metrics),
            socket: self.socket.or(file.socket),
            state_dir: self.state_dir.or(file.state_dir),
            management: self.management.or(file.management),
            control: self.control.or(file.control),
            node: self.node.or(file.node),
            rebuilds: self.rebuilds.or(file.rebuilds),
            boot_id_file: self.boot_id_file.or(file.boot_id_file),
            allow_injection: self.allow_injection || file.allow_injection,
            force: self.force || file.force,
            config: self.config,
            subsystem: file.subsystem,
        }
    }
}

fn given<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    if first.is_empty() { second } else { first }
}
