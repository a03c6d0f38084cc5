//! Snapshots in the text format that Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::control::Figures;
use crate::serve::snapshot::{Controller, Namespace, Pool, Snapshot, Volume};

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
    counter("authentications", "Queues whose host proved who it is", |s| s.machine.authentications),
    counter("authentications_failed", "Queues whose host did not prove who it is", |s| {
        s.machine.authentications_failed
    }),
    counter("connects_refused", "Connect commands refused", |s| s.machine.connects_refused),
    counter("host_refused", "Connect commands refused: their host has too many connections", |s| {
        s.machine.host_refused
    }),
    counter("host_buffer_waits", "Times a command waited: its host holds too many buffers", |s| {
        s.machine.host_buffer_waits
    }),
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
    counter("compares", "Compare commands done", |n| n.counters.compares),
    counter("verifies", "Verify commands done", |n| n.counters.verifies),
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

const POOL: &[Figure<Pool>] = &[
    gauge("failed", "It failed and does no more (1), or works (0)", |p| p.failed.into()),
    gauge("replicas", "Replicas and clones", |p| p.replicas),
    gauge("snapshots", "Snapshots", |p| p.snapshots),
    gauge("capacity_bytes", "Space for data and maps", |p| p.info.capacity),
    gauge("data_bytes", "Space in use by data", |p| p.info.data),
    gauge("maps_bytes", "Space in use by maps", |p| p.info.maps),
    gauge("allocated_bytes", "Space in use by data and maps", |p| p.info.data + p.info.maps),
    gauge("quarantine_bytes", "Space given back that is not free yet", |p| p.info.quarantine),
    gauge("promised_bytes", "Space set aside by thick replicas and not used", |p| p.info.promised),
    gauge("available_bytes", "Space that a new thin write can have", |p| p.info.available),
    gauge("committed_bytes", "Sizes of all replicas together", |p| p.info.committed),
    gauge("journal_blocks", "Blocks of the journal ring", |p| p.info.journal_blocks.into()),
    gauge("journal_used_blocks", "Of these, what a crash now would replay", |p| {
        p.info.journal_used.into()
    }),
    gauge("memory_bytes", "Memory for maps, checksums and caches", |p| p.info.memory),
    gauge("unverified_regions", "Regions whose content waits to be adopted", |p| {
        p.info.unverified_regions
    }),
    gauge("scrub_running", "A scrub runs (1)", |p| p.info.scrub.is_some().into()),
    gauge("scrub_checked_bytes", "What the running scrub has checked", |p| {
        p.info.scrub.map_or(0, |(checked, _)| checked)
    }),
    gauge("scrub_total_bytes", "What the running scrub has to check", |p| {
        p.info.scrub.map_or(0, |(_, total)| total)
    }),
    counter("reads", "Reads done", |p| p.counters.reads),
    counter("writes", "Writes done", |p| p.counters.writes),
    counter("zeroes", "Write Zeroes and Deallocate done", |p| p.counters.zeroes),
    counter("flushes", "Flushes done", |p| p.counters.flushes),
    counter("read_bytes", "Bytes read by hosts", |p| p.counters.read_bytes),
    counter("written_bytes", "Bytes written by hosts", |p| p.counters.written_bytes),
    counter("errors", "Requests that failed", |p| p.counters.errors),
    counter("checksum_errors", "Blocks whose checksum did not match", |p| {
        p.counters.checksum_errors
    }),
    counter("unverified_blocks", "Blocks returned that could not be verified", |p| {
        p.counters.unverified
    }),
    counter("device_reads", "Reads sent to the disk", |p| p.counters.device_reads),
    counter("device_writes", "Writes sent to the disk", |p| p.counters.device_writes()),
    counter("device_data_writes", "Of these, data", |p| p.counters.data_writes),
    counter("device_journal_writes", "Of these, journal", |p| p.counters.journal_writes),
    counter("device_page_writes", "Of these, pages of maps", |p| p.counters.page_writes),
    counter("device_flushes", "Flushes sent to the disk", |p| p.counters.device_flushes),
    counter("device_discards", "Discards sent to the disk", |p| p.counters.device_discards),
    counter("device_read_bytes", "Bytes read from the disk", |p| p.counters.device_read_bytes),
    counter("device_written_bytes", "Bytes written to the disk", |p| {
        p.counters.device_written_bytes
    }),
    counter("checkpoints", "Checkpoints done", |p| p.counters.checkpoints),
    counter("regions_opened", "Regions marked open", |p| p.counters.regions_opened),
    counter("checksum_pages_hit", "Checksum pages found in memory", |p| p.counters.cache_hits),
    counter("checksum_pages_missed", "Checksum pages read from the disk", |p| {
        p.counters.cache_misses
    }),
];

/// Milliseconds.
fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const VOLUME: &[Figure<Volume>] = &[
    gauge("serving", "It is served here (1), or not (0)", |v| v.view.serving.into()),
    gauge("epoch", "Epoch of the owner here; 0: there is none", |v| v.view.epoch),
    gauge("members", "Replicas that are relied on", |v| v.view.members.count_ones().into()),
    gauge("failing", "Of these, that failed and are not excluded", |v| {
        v.view.failing.count_ones().into()
    }),
    gauge("away", "Replicas that are not members", |v| {
        v.view.record.as_ref().map_or(0, |record| record.away().count_ones().into())
    }),
    gauge("returning", "1 while a replica is brought back", |v| v.view.joiner.is_some().into()),
    gauge("suspect_bytes", "What has to be compared before it is read", |v| {
        v.view.suspect * braid_nexus::wire::REGION
    }),
    gauge("marked_bytes", "What may differ between members after a crash", |v| {
        v.view.marked * braid_nexus::wire::REGION
    }),
    gauge("requests", "Commands of hosts in work", |v| v.view.requests as u64),
    gauge("calls", "Commands to replicas in work", |v| v.view.calls as u64),
    gauge("rebuild_paused", "1 if rebuilds are paused", |v| v.view.pace.paused.into()),
    gauge("rebuild_total_bytes", "What the rebuild in work goes through", |v| {
        v.view.rebuild.map_or(0, |rebuild| rebuild.total)
    }),
    gauge("rebuild_done_bytes", "Of that, what it went through", |v| {
        v.view.rebuild.map_or(0, |rebuild| rebuild.done)
    }),
    gauge("rebuild_bytes_per_second", "How fast it went last", |v| {
        v.view.rebuild.map_or(0, |rebuild| rebuild.rate)
    }),
    counter("take_overs", "Owners here that came to accept I/O", |v| v.view.totals.take_overs),
    counter("take_over_milliseconds", "From their appointment to I/O", |v| {
        ms(v.view.totals.take_over_time)
    }),
    counter("fence_milliseconds", "Of that, while members were fenced", |v| {
        ms(v.view.totals.fence_time)
    }),
    counter("exclusions", "Members that were excluded", |v| v.view.totals.exclusions),
    counter("returns_begun", "Returns of replicas that were begun", |v| {
        v.view.totals.returns_begun
    }),
    counter("returns", "Replicas that became members again", |v| v.view.totals.returns),
    counter("held", "Times that hosts had to wait for an exclusion", |v| v.view.totals.held),
    counter("held_milliseconds", "Time in which writes waited for an exclusion", |v| {
        ms(v.view.totals.held_time)
    }),
    counter("resynced_regions", "Suspect regions that were made equal", |v| {
        v.view.totals.resynced_regions
    }),
    counter("resynced_bytes", "Bytes of these that differed", |v| v.view.totals.resynced_bytes),
    counter("repaired_blocks", "Blocks that a member could not read, written anew", |v| {
        v.view.totals.repaired_blocks
    }),
    counter("rebuild_bytes", "Bytes gone through for replicas that returned", |v| {
        v.view.totals.rebuilt
    }),
    counter("rebuild_copied_bytes", "Of these, what differed and was copied", |v| {
        v.view.totals.copied
    }),
    counter("degraded_milliseconds", "Time of I/O while a replica was away", |v| {
        ms(v.view.totals.degraded_time)
    }),
    counter("snapshots_taken", "Snapshots that were taken", |v| v.view.totals.snapshots),
];

/// Writes all snapshots as one page.
///
/// # Errors
/// Never, unless the encoder itself fails.
pub fn encode(
    snapshots: Vec<Snapshot>,
    control: Option<Arc<Figures>>,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("braid");
    registry.register_collector(Box::new(Page(snapshots)));
    registry.register_collector(Box::new(Control(control)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

/// What was counted on the way to the control plane, if there is one.
#[derive(Debug)]
struct Control(Option<Arc<Figures>>);

const CONTROL: &[Figure<Figures>] = &[
    gauge("connected", "1 while the control plane is connected", |f| f.connected.load(Relaxed)),
    counter("connects", "Streams to the control plane", |f| f.connects.load(Relaxed)),
    counter("orders", "Orders of the control plane", |f| f.orders.load(Relaxed)),
    counter("orders_failed", "Orders that were not carried out", |f| f.orders_failed.load(Relaxed)),
    counter("swaps", "Changes of records that were asked for", |f| f.swaps.load(Relaxed)),
    counter("swaps_unknown", "Changes of records of unknown outcome", |f| {
        f.swaps_unknown.load(Relaxed)
    }),
    counter("fetches", "Records that were asked for", |f| f.fetches.load(Relaxed)),
];

impl Collector for Control {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(figures) = &self.0 else { return Ok(()) };
        family(&mut encoder, "control", CONTROL, || std::iter::once((Labels::new(), &**figures)))
    }
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
        family(&mut encoder, "controller", CONTROLLER, controllers)?;
        let pools = || self.0.iter().flat_map(|s| &s.pools).map(|p| (p.labels(), p));
        family(&mut encoder, "pool", POOL, pools)?;
        let volumes = || self.0.iter().flat_map(|s| &s.volumes).map(|v| (v.labels(), v));
        family(&mut encoder, "volume", VOLUME, volumes)?;
        latencies(&mut encoder, pools)
    }
}

/// Writes how long the requests to pools took, as histograms.
fn latencies<'a, I>(encoder: &mut DescriptorEncoder<'_>, pools: impl Fn() -> I) -> fmt::Result
where
    I: Iterator<Item = (Labels, &'a Pool)>,
{
    type Buckets = fn(&Pool) -> &[u64; 32];
    let kinds: [(&str, Buckets); 3] = [
        ("read", |p| &p.latency.read),
        ("write", |p| &p.latency.write),
        ("flush", |p| &p.latency.flush),
    ];
    let help = "How long requests of hosts took";
    let kind = Histogram::new(std::iter::empty()).metric_type();
    let mut metric = encoder.encode_descriptor("pool_latency", help, Some(&Unit::Seconds), kind)?;
    for (labels, pool) in pools() {
        for (operation, buckets) in kinds {
            let labels = [labels.clone(), vec![("operation", operation.to_owned())]].concat();
            let (sum, count, buckets) = histogram(buckets(pool));
            let mut labelled = metric.encode_family(&labels)?;
            labelled.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
    }
    Ok(())
}

/// The sum, as near as buckets tell it, the count, and each bucket with its upper bound in seconds.
fn histogram(buckets: &[u64; 32]) -> (f64, u64, Vec<(f64, u64)>) {
    let bound = |at: usize| (1_u64 << at) as f64 * 1e-6;
    // Requests of a bucket are taken to lie in its middle, between half its bound and its bound.
    let weighed = buckets.iter().enumerate().map(|(at, n)| bound(at) * 0.75 * *n as f64);
    let last = buckets.len() - 1;
    // What is slower than all bounds is in the last one, which has none.
    let upper = |at| if at == last { f64::MAX } else { bound(at) };
    let bounded = buckets.iter().enumerate().map(|(at, n)| (upper(at), *n));
    (weighed.sum(), buckets.iter().sum(), bounded.collect())
}

impl Namespace {
    fn labels(&self) -> Labels {
        vec![("subsystem", self.subnqn.clone()), ("nsid", self.nsid.to_string())]
    }
}

impl Pool {
    fn labels(&self) -> Labels {
        vec![("pool", uuid::Uuid::from_bytes(self.info.uuid).to_string())]
    }
}

impl Volume {
    fn labels(&self) -> Labels {
        vec![("volume", uuid::Uuid::from_bytes(self.uuid).to_string())]
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
        let page = encode(vec![snapshot, Snapshot::default()], None).unwrap();
        assert!(page.contains("braid_shard_reactor_turns_total{shard=\"3\"} 7\n"), "{page}");
        assert!(page.contains("braid_shard_sockets{shard=\"0\"} 0\n"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[test]
    fn a_volume_tells_its_redundancy_and_its_rebuild() {
        let mut volume = Volume { uuid: [1; 16], ..Volume::default() };
        volume.view.members = 0b11;
        volume.view.totals.degraded_time = std::time::Duration::from_millis(1500);
        let page =
            encode(vec![Snapshot { volumes: vec![volume], ..Snapshot::default() }], None).unwrap();
        let of = "{volume=\"01010101-0101-0101-0101-010101010101\"}";
        assert!(page.contains(&format!("braid_volume_members{of} 2\n")), "{page}");
        assert!(page.contains(&format!("braid_volume_degraded_milliseconds_total{of} 1500\n")));
        assert!(page.contains(&format!("braid_volume_rebuild_done_bytes{of} 0\n")));
    }

    #[test]
    fn latencies_are_histograms() {
        let mut buckets = [0; 32];
        (buckets[0], buckets[10], buckets[31]) = (2, 3, 1);
        let (sum, count, bounded) = histogram(&buckets);
        assert_eq!((count, bounded[10]), (6, (1024e-6, 3)));
        assert_eq!(bounded[31], (f64::MAX, 1));
        assert!(sum > 0.0 && sum.is_finite());
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
        let page = encode(
            vec![Snapshot {
                namespaces: vec![namespace],
                controllers: vec![controller],
                ..Snapshot::default()
            }],
            None,
        )
        .unwrap();
        let reads = "braid_namespace_reads_total{subsystem=\"nqn.a\",nsid=\"2\"} 0\n";
        assert!(page.contains(reads), "{page}");
        let queues = "{subsystem=\"nqn.a\",controller=\"1\",host=\"nqn.h\\\"\"} 4\n";
        assert!(page.contains(queues), "{page}");
    }
}
