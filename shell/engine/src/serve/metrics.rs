//! Snapshots in the text format that Prometheus reads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::serve::snapshot::{Controller, Namespace, Snapshot};

/// The media type of what [`encode`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A figure of something that is labelled alike wherever it is counted.
struct Figure<T> {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: fn(&T) -> u64,
}

/// Whether a figure only grows.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Figure<T> {
    Figure { name, help, kind: Kind::Counter, value }
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Figure<T> {
    Figure { name, help, kind: Kind::Gauge, value }
}

const SHARD: &[Figure<Snapshot>] = &[
    gauge("connections", "Connections", |s| s.connections),
    gauge("operations", "Commands in work", |s| s.ops),
    counter("connections_accepted", "Connections accepted", |s| s.machine.accepted),
    counter("connections_closed", "Connections closed", |s| s.machine.closed),
    counter("connections_refused", "Connections refused by a limit", |s| s.machine.refused),
    counter("connects_refused", "Connect commands refused", |s| s.machine.connects_refused),
    counter("terminations", "Termination requests sent", |s| s.machine.terminated),
    counter("keep_alive_expired", "Controllers that were not heard of in time", |s| {
        s.machine.keep_alive_expired
    }),
    counter("data_digest_errors", "Data digests that did not match", |s| {
        s.machine.data_digest_errors
    }),
    counter("commands", "Commands taken", |s| s.machine.commands),
    counter("sends", "Batches sent", |s| s.machine.sends),
    counter("buffer_waits", "Times a command waited for a buffer", |s| s.machine.buffer_waits),
    counter("reactor_turns", "Turns of the reactor", |s| s.reactor.turns),
    counter("reactor_enters", "System calls that entered the ring", |s| s.reactor.enters),
    counter("reactor_waits", "Of these, that were allowed to block", |s| s.reactor.waits),
    counter("reactor_polls", "Times the reactor looked for work before it blocked", |s| {
        s.reactor.polls
    }),
    counter("reactor_polls_hit", "Of these, that found some", |s| s.reactor.polls_hit),
    counter("reactor_operations", "Operations handed to the kernel", |s| s.reactor.sqes),
    counter("reactor_completions", "Completions taken from the kernel", |s| s.reactor.cqes),
    counter("connections_turned_away", "Connections for which there was no socket", |s| {
        s.reactor.turned_away
    }),
    counter("receive_starved", "Times a receiver found no buffer", |s| s.reactor.starved),
    gauge("sockets", "Sockets open", |s| s.reactor.sockets),
    gauge("disk_operations_in_flight", "Operations on disks in flight", |s| s.reactor.disk_ops),
    gauge("arena_leased_bytes", "Bytes of buffers in use", |s| s.arena.bytes_out),
    gauge("arena_chunks", "Chunks of memory that the arena holds", |s| s.arena.chunks),
    counter("arena_exhausted", "Times there was no buffer", |s| s.arena.exhausted),
    counter("arena_copies", "Copies of payload", |s| s.arena.copies),
    counter("arena_copied_bytes", "Bytes of payload copied", |s| s.arena.bytes_copied),
    counter("arena_crc_passes", "Checksum passes over payload", |s| s.arena.crc_passes),
];

const NAMESPACE: &[Figure<Namespace>] = &[
    counter("reads", "Read commands done", |n| n.counters.reads),
    counter("writes", "Write commands done", |n| n.counters.writes),
    counter("flushes", "Flush commands done", |n| n.counters.flushes),
    counter("write_zeroes", "Write Zeroes commands done", |n| n.counters.write_zeroes),
    counter("dataset_managements", "Dataset Management commands done", |n| {
        n.counters.dataset_managements
    }),
    counter("read_bytes", "Bytes that hosts read", |n| n.counters.read_bytes),
    counter("written_bytes", "Bytes that hosts wrote", |n| n.counters.written_bytes),
    counter("errors", "Commands that ended with an error", |n| n.counters.errors),
    counter("media_errors", "Of these, media and integrity errors", |n| n.counters.media_errors),
    counter("device_reads", "Reads sent to the disk", |n| n.counters.device_reads),
    counter("device_writes", "Writes sent to the disk", |n| n.counters.device_writes),
    counter("device_flushes", "Flushes sent to the disk", |n| n.counters.device_flushes),
];

const CONTROLLER: &[Figure<Controller>] =
    &[gauge("io_queues", "I/O queues that its host connected", |c| c.io_queues.into())];

/// Writes all snapshots as one page.
///
/// # Errors
/// Never, unless the encoder itself fails.
pub fn encode(snapshots: Vec<Snapshot>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("braid");
    registry.register_collector(Box::new(Page(snapshots)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

/// What tells one thing from another.
type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Page(Vec<Snapshot>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shards = || self.0.iter().map(|s| (vec![("shard", s.shard.to_string())], s));
        family(&mut encoder, "shard", SHARD, shards)?;
        let namespaces = || self.0.iter().flat_map(|s| &s.namespaces).map(|n| (n.labels(), n));
        family(&mut encoder, "namespace", NAMESPACE, namespaces)?;
        let controllers = || self.0.iter().flat_map(|s| &s.controllers).map(|c| (c.labels(), c));
        family(&mut encoder, "controller", CONTROLLER, controllers)
    }
}

impl Namespace {
    fn labels(&self) -> Labels {
        vec![("subsystem", self.subnqn.clone()), ("nsid", self.nsid.to_string())]
    }
}

impl Controller {
    fn labels(&self) -> Labels {
        vec![
            ("subsystem", self.subnqn.clone()),
            ("controller", self.cntlid.to_string()),
            ("host", self.hostnqn.clone()),
        ]
    }
}

/// Writes every figure for everything that has it.
fn family<'a, T: 'a, I>(
    encoder: &mut DescriptorEncoder<'_>,
    prefix: &str,
    figures: &[Figure<T>],
    things: impl Fn() -> I,
) -> fmt::Result
where
    I: Iterator<Item = (Labels, &'a T)>,
{
    for figure in figures {
        let name = format!("{prefix}_{}", figure.name);
        let kind = match figure.kind {
            Kind::Counter => ConstCounter::new(0_u64).metric_type(),
            Kind::Gauge => ConstGauge::new(0_u64).metric_type(),
        };
        let mut metric = encoder.encode_descriptor(&name, figure.help, None, kind)?;
        for (labels, thing) in things() {
            let value = (figure.value)(thing);
            let labelled = metric.encode_family(&labels)?;
            match figure.kind {
                Kind::Counter => ConstCounter::new(value).encode(labelled)?,
                Kind::Gauge => ConstGauge::new(value).encode(labelled)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_figure_of_every_shard() {
        let mut snapshot = Snapshot { shard: 3, ..Snapshot::default() };
        snapshot.reactor.turns = 7;
        let page = encode(vec![snapshot, Snapshot::default()]).unwrap();
        assert!(page.contains("braid_shard_reactor_turns_total{shard=\"3\"} 7\n"), "{page}");
        assert!(page.contains("braid_shard_sockets{shard=\"0\"} 0\n"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[test]
    fn namespaces_and_controllers_are_told_apart_by_labels() {
        let namespace = Namespace { subnqn: "nqn.a".into(), nsid: 2, ..Namespace::default() };
        let controller = Controller {
            subnqn: "nqn.a".into(),
            cntlid: 1,
            hostnqn: "nqn.h\"".into(),
            io_queues: 4,
        };
        let page = encode(vec![Snapshot {
            namespaces: vec![namespace],
            controllers: vec![controller],
            ..Snapshot::default()
        }])
        .unwrap();
        let reads = "braid_namespace_reads_total{subsystem=\"nqn.a\",nsid=\"2\"} 0\n";
        assert!(page.contains(reads), "{page}");
        let queues = "{subsystem=\"nqn.a\",controller=\"1\",host=\"nqn.h\\\"\"} 4\n";
        assert!(page.contains(queues), "{page}");
    }
}
