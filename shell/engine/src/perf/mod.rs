//! `braid-engine perf`: our host side as a load generator that can verify what it reads.

pub mod flight;
pub mod generator;
pub mod load;
pub mod options;
pub mod pattern;
pub mod places;
pub mod report;

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use braid_block::Class;
use braid_nvme::host::{self, Reconnect};
use braid_nvme::pdu::Digests;
use braid_reactor::{Reactor, Remote};
use braid_shard::Shard;
use tokio::sync::{mpsc, oneshot};

use crate::client::uri::{HostName, Portal};
use crate::client::{Needs, Output, reactor};
use crate::error::{Error, Result};
use crate::perf::load::{Load, Progress};
use crate::perf::report::{Report, bandwidth};

pub use options::Options;

/// What `perf --help` teaches below the list of options.
pub const HELP: &str = "\
Writing overwrites the namespace. With --verify every block that is written carries the namespace,
its address, how often it was written and a checkable filling; whatever is read is checked against
it, and what was written is read back at the end. A mismatch names the LBA, what was expected and
what was found, and the exit code is not 0.

A volume of several engines is loaded by all its paths with a --path for each of the others, or
with --discover; what
was in flight on a path that fails is sent again by another one. A path that stays away for longer
than --give-up is forgotten.

A target that gives out fixed controller ids is written with controller=static in its URI.

Ctrl-C ends it early, with a report.

Examples:
  braid-engine perf nvme+tcp://127.0.0.1:4420/nqn.2026-01.io.braid:disk1
  braid-engine perf nvme+tcp://node1/nqn.2026-01.io.braid:disk1?nsid=2 --rw mixed:70 \\
      --queues 4 --queue-depth 32 --time 60s --verify --fsync-every 32
  braid-engine perf URI --rw write --sequential --block-size 128KiB --total 1GiB --verify
  braid-engine perf URI --path node2 --path node3 --rw mixed --verify --keep-alive 2s
  braid-engine perf nvme+tcp://node1/nqn.2026-01.io.braid:disk1 --discover --policy queue-depth
  braid-engine perf URI --rw read --queue-depth 1 --poll always -o json";

/// Beside the commands' buffers: what the stream receivers and batches need.
const ARENA_SPARE: u64 = 16 << 20;
/// More than this is a mistake.
const ARENA_MAX: u64 = 8 << 30;

/// Loads a target and reports.
///
/// # Errors
/// When the target cannot be loaded, a command failed, or data was not what it should be.
pub fn perf(options: &Options) -> Result<()> {
    options.check()?;
    let options = &places::found(options.clone())?;
    let portals = std::iter::once(&options.target.portal).chain(&options.path);
    let addresses = portals.map(Portal::resolve).collect::<Result<Vec<_>>>()?;
    let (reactor, shard) = reactor(needs(options)?, addresses.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::run(format!("cannot start: {error}")))?;
    let mut load = runtime.block_on(run(options, addresses, reactor, shard))?;
    let failure = load.take_failure();
    if load.tallies().commands() > 0 || failure.is_none() {
        crate::command::print(&text(&report(options, &load), options.output)?);
    }
    match failure {
        Some(failure) => Err(failure),
        None => verdict(&load),
    }
}

fn needs(options: &Options) -> Result<Needs> {
    let class = u32::try_from(options.block_size.0).ok().and_then(Class::holding);
    let buffer = u64::from(class.unwrap_or(Class::Large).bytes());
    let arena = options.in_flight() * buffer + ARENA_SPARE;
    if arena > ARENA_MAX {
        return Err(Error::usage(
            "so many commands need over 8GiB of buffers; lower --queue-depth",
        ));
    }
    let paths = u32::try_from(options.paths()).unwrap_or(u32::MAX);
    let connections = paths * u32::from(options.connections) * (u32::from(options.queues) + 1);
    Ok(Needs { connections, arena, polling: options.poll.into() })
}

fn config(options: &Options) -> host::Config {
    let name = HostName::new(options.host_nqn.map(|name| name.0));
    let reconnect = Reconnect {
        min: Duration::from_millis(100),
        max: Duration::from_secs(2),
        give_up: Some(options.give_up.0),
    };
    host::Config {
        cntlid: options.target.cntlid,
        io_queues: options.queues,
        // One entry of a queue stays empty.
        queue_entries: options.queue_depth + 1,
        digests: Digests { header: options.header_digest, data: options.data_digest },
        reconnect,
        kato: options.keep_alive.0,
        ..host::Config::new(options.target.nqn, name.nqn, name.id)
    }
}

/// Runs the load on a thread of its own; this one prints progress and listens to Ctrl-C.
async fn run(
    options: &Options,
    addresses: Vec<SocketAddr>,
    reactor: Reactor<()>,
    shard: Shard,
) -> Result<Load> {
    let (sender, mut progress) = mpsc::unbounded_channel();
    let (end, mut ended) = oneshot::channel();
    let load = Load::new(options.clone(), addresses, config(options), sender);
    let remote = reactor.remote();
    thread::Builder::new()
        .name("braid-shard-0".into())
        // Nobody waits for it any more when the program is being ended.
        .spawn(move || drop(end.send(reactor.run(shard, load))))
        .map_err(|error| Error::run(format!("cannot start a thread: {error}")))?;
    loop {
        tokio::select! {
            biased;
            Some(progress) = progress.recv() => show(&progress),
            result = &mut ended => {
                let result = result.map_err(|_| Error::run("the load's thread panicked"))?;
                return result.map(|(_, load)| load).map_err(|e| Error::run(e.to_string()));
            }
            _ = tokio::signal::ctrl_c() => stop(&remote),
        }
    }
}

fn stop(remote: &Remote<()>) {
    eprintln!("stopping");
    // It has ended by itself.
    let _ = remote.post(());
}

fn show(progress: &Progress) {
    if let Some(complaint) = &progress.complaint {
        return eprintln!("{complaint}");
    }
    let seconds = progress.interval.as_secs_f64().max(1e-9);
    let per_second = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds;
    let faults = match progress.faults {
        0 => String::new(),
        faults => format!(", {faults} faults"),
    };
    let elapsed = progress.elapsed.as_secs_f64();
    if progress.reading_back {
        let blocks = per_second(progress.verified_blocks);
        eprintln!("{elapsed:5.0} s  reading back, {blocks:.0} blocks/s checked{faults}");
    } else {
        let bytes = bandwidth(per_second(progress.bytes >> 10) * 1024.0);
        let iops = per_second(progress.commands);
        eprintln!("{elapsed:5.0} s  {iops:.0} IOPS, {bytes}{faults}");
    }
}

fn report(options: &Options, load: &Load) -> Report {
    let Options { block_size, queue_depth, queues, connections, .. } = options;
    let mix = options.mix();
    let order = if mix.random { "random" } else { "sequential" };
    let kind = match mix.read_percent {
        100 => "read".into(),
        0 => "write".into(),
        percent => format!("mixed ({percent} % reads)"),
    };
    let by = match options.paths() {
        1 => String::new(),
        paths => format!(" by {paths} paths"),
    };
    let how = format!(
        "{order} {kind} of {block_size}, depth {queue_depth} x {queues} queues x {connections} \
         connections{by}"
    );
    let (took, cpu) = load.took();
    Report::new(options.target.to_string(), how, load.tallies(), took, cpu)
}

fn text(report: &Report, output: Output) -> Result<String> {
    match output {
        Output::Table => Ok(report.table()),
        Output::Json => serde_json::to_string_pretty(report)
            .map(|text| text + "\n")
            .map_err(|error| Error::run(error.to_string())),
    }
}

/// Whether all went well.
fn verdict(load: &Load) -> Result<()> {
    let (mismatches, errors) = (load.tallies().mismatches, load.tallies().errors());
    let first = load.complaints().first().map_or("", String::as_str);
    match (mismatches, errors) {
        (0, 0) => Ok(()),
        (0, errors) => Err(Error::run(format!("{errors} commands failed, the first: {first}"))),
        (mismatches, _) => {
            Err(Error::run(format!("{mismatches} mismatches; the first complaint: {first}")))
        }
    }
}
