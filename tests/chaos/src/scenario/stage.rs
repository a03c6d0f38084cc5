//! What all scenarios need: a cluster, a volume that is full in part, loads, and a look at the end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use braid_nvme::connect::Nqn;
use braid_sim::History;
use serde_json::Value;

use super::must;
use crate::Outcome;
use crate::campaign::{finding, leave, settled};
use crate::cluster::{Cluster, Parts, Seen, Volume};
use crate::host::{Order, Running, Work, look};
use crate::net::{ENGINES, Net, Place};
use crate::process::{run_within, wait_for};
use crate::replicas;

/// The volume of most scenarios, and its size.
pub(super) const VOLUME: &str = "data";
pub(super) const MIB: u64 = 1 << 20;
pub(super) const VOLUME_BYTES: u64 = 64 * MIB;
const POOL_BYTES: u64 = 256 * MIB;
/// What of it is written before anything goes wrong; the rest is a hole.
pub(super) const FILLED: u64 = 32 * MIB;
/// Blocks of 4 KiB of a region.
const REGION_BLOCKS: u64 = MIB / 4096;
/// How long anything may take that takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// A load may take longer than it is asked to: a busy machine, and what it reads back.
const LOAD: Duration = Duration::from_secs(120);
/// Where engines serve their metrics.
const METRICS: u16 = 9100;
/// A pause of a client, at most.
const THINK: Duration = Duration::from_millis(4);

/// What went through a return.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    /// Returns that were begun.
    pub(super) begun: u64,
    /// Bytes that were compared, and of these, copied.
    pub(super) compared: u64,
    pub(super) copied: u64,
    /// Blocks that were mended.
    pub(super) repaired: u64,
    /// Members that were excluded.
    pub(super) excluded: u64,
}

/// A cluster on which something happens.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
}

impl Stage {
    pub(super) fn new(
        binaries: PathBuf,
        folder: PathBuf,
        net: Net,
        extra: &[&str],
    ) -> Outcome<Self> {
        let pool_bytes = POOL_BYTES;
        let parts = Parts { binaries, folder, pool_bytes, log: "debug", faults: true };
        let metrics = format!("0.0.0.0:{METRICS}");
        let options: Vec<&str> =
            ["--metrics", &metrics].into_iter().chain(extra.to_vec()).collect();
        let mut cluster = Cluster::start_with(parts, net, &options)?;
        cluster.net.apply()?;
        Ok(Self { cluster })
    }

    /// All processes end; the network, for the next one.
    pub(super) fn end(mut self) -> Net {
        for place in Place::all() {
            self.cluster.kill(place);
        }
        self.cluster.net
    }

    /// Makes the volume and writes some of it; the engine that serves it, and another one.
    pub(super) fn full(&self) -> Outcome<(usize, usize)> {
        let replicas: Vec<usize> = (0..ENGINES).collect();
        let standbys = ENGINES - 1;
        let volume = Volume { name: VOLUME, bytes: VOLUME_BYTES, replicas: &replicas, standbys };
        self.cluster.create(&volume)?;
        let owner = self.whole(VOLUME)?.serves.ok_or("nobody serves the volume")?;
        self.write(owner, FILLED)?;
        self.calm(owner)?;
        // What members let go of is on their media with their next flush.
        let words = ["--rw", "write", "--sequential", "--total", "64KiB", "--fsync-every", "1"];
        self.load(owner, VOLUME, MIB, "64KiB", &words)?;
        Ok((owner, (owner + 1) % ENGINES))
    }

    /// Waits until all replicas of a volume are members, of which there are as many as there were.
    pub(super) fn whole(&self, volume: &str) -> Outcome<Seen> {
        let seen = self.cluster.converges(volume, 1, PATIENCE)?;
        seen.ok_or_else(|| format!("{volume} is not whole: {:?}", self.cluster.seen(volume)))
    }

    /// Waits until the members know of themselves that they are equal.
    pub(super) fn calm(&self, owner: usize) -> Outcome<()> {
        let calm = || Ok((self.cluster.nexus(owner, VOLUME)?["marked_bytes"] == 0).then_some(()));
        wait_for(PATIENCE, calm)?.ok_or("the marks of an idle volume are not cleared".into())
    }

    /// Waits until the owner goes on without a replica.
    pub(super) fn without(&self, gone: usize) -> Outcome<()> {
        let away = || Ok(self.cluster.seen(VOLUME).ok().filter(|v| !v.members.contains(&gone)));
        wait_for(PATIENCE, away)?.map(drop).ok_or("a member that was killed is not excluded".into())
    }

    /// What the owner counted.
    pub(super) fn totals(&self, owner: usize, volume: &str) -> Outcome<Totals> {
        let said = self.cluster.nexus(owner, volume)?;
        let total = |name: &str| {
            let number = said["totals"][name].as_u64();
            number.ok_or_else(|| format!("the engine does not tell {name}: {said}"))
        };
        Ok(Totals {
            begun: total("returns_begun")?,
            compared: total("rebuilt_bytes")?,
            copied: total("rebuild_copied_bytes")?,
            repaired: total("repaired_blocks")?,
            excluded: total("exclusions")?,
        })
    }

    /// Writes the beginning of the volume once, each time something else, and reads it again.
    pub(super) fn write(&self, engine: usize, bytes: u64) -> Outcome<()> {
        let (total, size) = (bytes.to_string(), "128KiB");
        let words = ["--rw", "write", "--sequential", "--queue-depth", "8", "--total", &total];
        self.load(engine, VOLUME, bytes, size, &words).map(drop)
    }

    /// Reads the beginning of the volume; every block must be as somebody wrote it.
    pub(super) fn read(&self, engine: usize, bytes: u64) -> Outcome<()> {
        let total = bytes.to_string();
        let words = ["--rw", "read", "--sequential", "--queue-depth", "8", "--total", &total];
        let said = self.load(engine, VOLUME, bytes, "64KiB", &words)?;
        let checked = said["verified_blocks"].as_u64().unwrap_or(0);
        must(checked * 4096 >= bytes, || format!("only {checked} blocks were read"))
    }

    /// Loads the beginning of a volume by one engine; no command may fail, and no data be wrong.
    pub(super) fn load(
        &self,
        engine: usize,
        volume: &str,
        region: u64,
        block: &str,
        words: &[&str],
    ) -> Outcome<Value> {
        let nqn = self.cluster.seen(volume)?.nqn.ok_or("the volume has no name")?;
        let mut command = self.cluster.load_command(engine, &nqn);
        command.args(["--verify", "--region", &region.to_string(), "--block-size", block]);
        let said = run_within(command.args(words), LOAD)?;
        serde_json::from_str(&said).map_err(|error| format!("{said}: {error}"))
    }

    /// Hosts that read, write, zero and flush a few blocks of each of these regions, by all paths.
    pub(super) fn hosts(&self, regions: &[u64]) -> Outcome<(Running, Vec<u64>)> {
        let nqn = self.cluster.seen(VOLUME)?.nqn;
        let nqn = nqn.as_deref().and_then(Nqn::parse).ok_or("the volume has no name")?;
        let of = |region: u64| (0..5).map(move |block| region * REGION_BLOCKS + block);
        let blocks: Vec<u64> = regions.iter().copied().flat_map(of).collect();
        let hosts = Running::start(Work {
            seed: 1,
            nqn,
            portals: Cluster::portals(),
            blocks: blocks.clone(),
            think: THINK,
            began: braid_reactor::now(),
        })?;
        let served = || Ok((look(&hosts.seen).done[1] > 0).then_some(()));
        wait_for(PATIENCE, served)?.ok_or("hosts are not served")?;
        Ok((hosts, blocks))
    }

    /// These hosts end what they do, and go.
    pub(super) fn rest(hosts: Running) -> Outcome<History> {
        hosts.order(Order::Rest)?;
        settled(&hosts)?;
        finding(&hosts.seen)?;
        leave(hosts)
    }

    /// A counter of an engine's pool.
    pub(super) fn counted(&self, engine: usize, counter: &str) -> Outcome<u64> {
        let wrong = |error: std::io::Error| format!("no metrics: {error}");
        let portal = format!("{}:{METRICS}", Place::Engine(engine).address());
        let mut stream = TcpStream::connect(portal).map_err(wrong)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(wrong)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").map_err(wrong)?;
        let mut page = String::new();
        stream.read_to_string(&mut page).map_err(wrong)?;
        let name = format!("braid_pool_{counter}{{");
        let line = page.lines().find(|line| line.starts_with(&name));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        number.ok_or_else(|| format!("the engine does not tell {counter}"))
    }

    /// All engines end in order; all replicas of a volume must be equal. What they hold.
    pub(super) fn equal(&mut self, volume: &str) -> Outcome<Vec<Vec<u8>>> {
        let seen = self.whole(volume)?;
        for place in (0..ENGINES).map(Place::Engine).chain([Place::Control]) {
            self.cluster.stop(place)?;
        }
        self.contents(&seen)
    }

    /// What the replicas hold, once engines have ended: all the same.
    pub(super) fn contents(&self, seen: &Seen) -> Outcome<Vec<Vec<u8>>> {
        let read = |(engine, replica): &(usize, [u8; 16])| {
            replicas::read(&self.cluster.pool(*engine), *replica, VOLUME_BYTES)
        };
        let contents: Vec<_> = seen.replicas.iter().map(read).collect::<Outcome<_>>()?;
        match replicas::difference(&contents) {
            Some(block) => Err(format!("block {block} is not alike in all replicas")),
            None => Ok(contents),
        }
    }
}
