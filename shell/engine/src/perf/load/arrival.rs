//! What comes: associations that are live or lost, commands that ended.

use std::time::Duration;

use braid_nvme::Status;
use braid_nvme::host::{Completed, Event, Live, NamespaceInfo, Why};
use braid_reactor::World;
use braid_shard::Shard;

use super::{Job, Load, Phase, Told, cpu_time};
use crate::client::inquiry::refused;
use crate::error::{Error, Result};
use crate::perf::flight::{Flight, Geometry, State};
use crate::perf::generator::{Generator, Outcome, Work};
use crate::perf::options::Options;
use crate::perf::pattern::{Expected, Pattern};
use crate::perf::report::{Tallies, Tally};

/// Slots whose generations can be remembered: half a gigabyte of memory.
const SLOTS_VERIFIED_MAX: u64 = 64 << 20;

impl Load {
    /// Hears everything that happened; false if nothing did.
    pub(super) fn listen(&mut self, machine: &mut Shard, world: &mut World<'_>) -> bool {
        let mut heard = false;
        while let Some((key, event)) = machine.host_poll() {
            heard = true;
            match self.hosts.iter().position(|host| host.key == key) {
                Some(host) if self.options.paths() > 1 => self.hear_path(world, host, event),
                Some(host) => self.hear(world, host, event),
                None => {}
            }
        }
        heard
    }

    fn hear(&mut self, world: &mut World<'_>, host: usize, event: Event) {
        match event {
            Event::Live(live) => self.on_live(world, host, &live),
            Event::Completed(completed) => self.on_completed(world, completed),
            Event::Lost { why, retry } => self.on_lost(host, why, retry.is_some()),
            Event::Closed => self.on_closed(host),
            Event::Discovered(_) => {}
        }
    }

    fn on_live(&mut self, world: &mut World<'_>, host: usize, live: &Live) {
        self.hosts[host].live = true;
        if let Err(error) = self.check(live) {
            return self.fail(error);
        }
        if self.phase == Phase::Connecting && self.hosts.iter().all(|host| host.live) {
            match self.job(live) {
                Ok(job) => self.begin(world, job),
                Err(error) => self.fail(error),
            }
        }
    }

    /// Whether the target gives what was asked for.
    pub(super) fn check(&self, live: &Live) -> Result<()> {
        let Options { queues, queue_depth, block_size, .. } = self.options;
        if live.io_queues < queues {
            return Err(Error::run(format!(
                "the target grants {} I/O queues; lower --queues {queues}",
                live.io_queues
            )));
        }
        if live.queue_commands < queue_depth {
            return Err(Error::run(format!(
                "the target takes {} commands on a queue; lower --queue-depth {queue_depth}",
                live.queue_commands
            )));
        }
        let largest = live.controller.transfer_bytes_max;
        if block_size.0 > u64::from(largest) {
            return Err(Error::run(format!(
                "the target takes {largest} bytes at once; lower --block-size {block_size}"
            )));
        }
        Ok(())
    }

    pub(super) fn job(&self, live: &Live) -> Result<Job> {
        let info = self.namespace(live)?;
        let bytes = u32::try_from(self.options.block_size.0).unwrap_or(u32::MAX);
        let block_bytes = info.geometry.block.bytes();
        if !bytes.is_multiple_of(block_bytes) {
            return Err(Error::run(format!(
                "namespace {} has blocks of {block_bytes} bytes; --block-size must be a multiple",
                info.nsid
            )));
        }
        let whole = info.geometry.bytes();
        let region = self.options.region.map_or(whole, |region| region.0.min(whole));
        let slots = region / u64::from(bytes);
        if slots == 0 {
            return Err(Error::run("not even one command fits; lower --block-size or --region"));
        }
        if self.options.verify && slots > SLOTS_VERIFIED_MAX {
            return Err(Error::run("too large to remember what was written; add --region 64GiB"));
        }
        let seed = self.options.seed.unwrap_or_else(crate::serve::config::seed);
        let named = |id: &[u8; 16]| *id != [0; 16];
        let namespace = [info.uuid, info.nguid].into_iter().find(named).unwrap_or_default();
        Ok(Job {
            generator: Generator::new(self.options.mix(), slots, seed, self.options.verify),
            pattern: Pattern { namespace, run: seed, block_bytes },
            geometry: Geometry { nsid: info.nsid, bytes, blocks: bytes / block_bytes },
        })
    }

    pub(super) fn namespace(&self, live: &Live) -> Result<NamespaceInfo> {
        let nsid = self.options.target.nsid;
        let asked_for = |info: &&NamespaceInfo| nsid.is_none_or(|nsid| nsid == info.nsid);
        live.namespaces.iter().find(asked_for).copied().ok_or_else(|| {
            let which = nsid.map_or_else(|| "any namespace".into(), |n| format!("namespace {n}"));
            Error::run(format!("{} does not show {which} to us", self.options.target.nqn))
        })
    }

    /// All associations are live: the clock runs.
    pub(super) fn begin(&mut self, world: &mut World<'_>, job: Job) {
        for host in 0..usize::from(self.options.connections) {
            for queue in 0..self.options.queues {
                for _ in 0..self.options.queue_depth {
                    let mut flight = Flight::new(host, queue);
                    if !flight.board(world.mem, job.geometry.bytes, &job.pattern) {
                        return self.fail(Error::run("too few buffers; lower --queue-depth"));
                    }
                    self.flights.push(flight);
                }
            }
        }
        self.job = Some(job);
        self.idle = (0..self.flights.len()).collect();
        self.phase = Phase::Running;
        (self.begun, self.ended) = (world.now, world.now);
        self.told = Told { at: world.now, ..Told::default() };
        self.cpu = cpu_time();
    }

    fn on_completed(&mut self, world: &mut World<'_>, completed: Completed) {
        self.on_ended(world, completed, None);
    }

    /// A command ended; `why` says more of its failure than its status.
    pub(super) fn on_ended(
        &mut self,
        world: &mut World<'_>,
        completed: Completed,
        why: Option<String>,
    ) {
        let Completed { cookie, status, lease, .. } = completed;
        let index = usize::try_from(cookie).unwrap_or(usize::MAX);
        let Some(flight) = self.flights.get_mut(index) else { return };
        flight.take_back(lease);
        let State::Flying(work, begun) = flight.state else { return };
        // Several paths have tried again already; what is left when all is closed is no failure.
        let again = match self.lanes.is_empty() {
            true => is_worth_a_retry(status),
            false => self.phase == Phase::Closing && !status.is_success(),
        };
        if again {
            flight.state = State::Parked(work, begun);
            self.tallies.retries += 1;
            return self.parked.push(index);
        }
        let age = flight.age(world.now);
        flight.state = State::Idle;
        self.idle.push(index);
        if status.is_success() {
            self.on_success(world, index, work, age);
        } else {
            self.on_failure(work, why.unwrap_or_else(|| status.to_string()));
        }
    }

    fn on_success(&mut self, world: &mut World<'_>, flight: usize, work: Work, age: Duration) {
        let Some(job) = &mut self.job else { return };
        if matches!(self.phase, Phase::Running | Phase::Settling) {
            self.ended = world.now;
            let bytes = if work == Work::Flush { 0 } else { job.geometry.bytes };
            tally(&mut self.tallies, work).record(age, bytes);
        }
        let mut mismatch = None;
        if let (true, Work::Read { slot }) = (self.options.verify, work) {
            let expected = match job.generator.expected(slot) {
                Some(generation) => Expected::Generation(generation.into()),
                None if self.options.rw.read_percent == 100 => Expected::Any,
                None => Expected::Unknown,
            };
            let data = self.flights[flight].data(world.mem, job.geometry);
            mismatch = job.pattern.check(data, job.geometry.lba(slot), expected).err();
            self.tallies.verified_blocks += u64::from(job.geometry.blocks);
        }
        job.generator.done(work, Outcome::Done);
        if let Some(mismatch) = mismatch {
            self.tallies.mismatches += 1;
            self.complain(mismatch.to_string());
        }
    }

    fn on_failure(&mut self, work: Work, why: String) {
        let Some(Job { generator, geometry, .. }) = &mut self.job else { return };
        let what = match work {
            Work::Read { slot } => format!("read of LBA {}", geometry.lba(slot)),
            Work::Write { slot, .. } => format!("write of LBA {}", geometry.lba(slot)),
            Work::Flush => "flush".to_owned(),
        };
        generator.done(work, Outcome::Failed);
        tally(&mut self.tallies, work).errors += 1;
        self.complain(format!("{what} failed: {why}"));
    }

    fn on_lost(&mut self, host: usize, why: Why, again: bool) {
        self.hosts[host].live = false;
        match self.phase {
            Phase::Connecting => {
                self.fail(refused(self.addresses[0], self.options.target.nqn, why))
            }
            Phase::Closing => {}
            _ if again => self.tell(Some(format!("connection lost, connecting again: {why}"))),
            _ => self.fail(refused(self.addresses[0], self.options.target.nqn, why)),
        }
    }

    fn on_closed(&mut self, host: usize) {
        self.hosts[host].live = false;
        self.hosts[host].closed = true;
        if self.phase != Phase::Closing {
            self.fail(Error::run("the association ended"));
        }
    }
}

/// The path failed, not the command: another try may do.
fn is_worth_a_retry(status: Status) -> bool {
    // A target that is being stopped answers what it has not begun by the second.
    let path = [Status::TRANSIENT_TRANSPORT, Status::ABORTED_QUEUE_DELETED];
    let path = status.is_path_error() || path.iter().any(|path| status.is(*path));
    path && !status.do_not_retry()
}

const fn tally(tallies: &mut Tallies, work: Work) -> &mut Tally {
    match work {
        Work::Read { .. } => &mut tallies.read,
        Work::Write { .. } => &mut tallies.write,
        Work::Flush => &mut tallies.flush,
    }
}
