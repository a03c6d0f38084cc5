//! The load on its reactor: keeps every queue at its depth and looks at what comes back.
//!
//! ```text
//!   Connecting --all live--> Running --time or total--> Settling --verify--> ReadingBack
//!       |                       |                          |                    |
//!       +---- refused ----------+-------- failed ----------+-----> Closing <----+
//! ```

use std::time::Duration;

use braid_block::{Instant, Key};
use braid_nvme::Status;
use braid_nvme::host::{self, Completed, Event, Live, NamespaceInfo, Why};
use braid_reactor::{Application, World};
use braid_shard::{HostConfig, Note, Shard};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::UnboundedSender;

use crate::client::inquiry::refused;
use crate::error::{Error, Result};
use crate::perf::flight::{Flight, Geometry, State};
use crate::perf::generator::{Generator, Outcome, ReadBack, Work};
use crate::perf::options::Options;
use crate::perf::pattern::{Expected, Pattern};
use crate::perf::report::{Tallies, Tally};

/// How long a load goes on that is not told.
const TIME: Duration = Duration::from_secs(10);
/// How often progress is told.
const TICK: Duration = Duration::from_secs(1);
/// How soon a flight that could not be sent is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// Complaints that are kept; the others are counted.
const COMPLAINTS_MAX: usize = 10;
/// Slots whose generations can be remembered: half a gigabyte of memory.
const SLOTS_VERIFIED_MAX: u64 = 64 << 20;

/// What the thread of a load tells while it runs.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Since it began to run.
    pub elapsed: Duration,
    /// Since the last time.
    pub interval: Duration,
    /// Commands done in the interval.
    pub commands: u64,
    /// Their payload.
    pub bytes: u64,
    /// Blocks checked in the interval.
    pub verified_blocks: u64,
    /// Failed commands and mismatches so far.
    pub faults: u64,
    /// What has been written is being read back.
    pub reading_back: bool,
    /// Something that people should know now.
    pub complaint: Option<String>,
}

/// The load, as it stands. When it has finished, it holds what it came to.
#[derive(Debug)]
pub struct Load {
    options: Options,
    progress: UnboundedSender<Progress>,
    address: std::net::SocketAddr,
    config: host::Config,
    phase: Phase,
    hosts: Vec<Association>,
    flights: Vec<Flight>,
    /// Flights without a command.
    idle: Vec<usize>,
    /// Flights whose command is to be sent again.
    parked: Vec<usize>,
    job: Option<Job>,
    submitted: u64,
    begun: Instant,
    ended: Instant,
    cpu: Duration,
    told: Told,
    tallies: Tallies,
    complaints: Vec<String>,
    failure: Option<Error>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Associations are being made.
    Connecting,
    /// Commands are sent.
    Running,
    /// The last of them come back.
    Settling,
    /// What was written is read.
    ReadingBack(ReadBack),
    /// Associations are being closed.
    Closing,
}

/// One controller.
#[derive(Clone, Copy, Debug)]
struct Association {
    key: Key,
    live: bool,
    /// It was told to close.
    closing: bool,
    closed: bool,
}

/// What was told when progress was told last.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    at: Instant,
    commands: u64,
    bytes: u64,
    blocks: u64,
}

/// What is known once a namespace is.
#[derive(Debug)]
struct Job {
    generator: Generator,
    pattern: Pattern,
    geometry: Geometry,
}

impl Load {
    /// A load that has not begun to connect. `config` is that of every association.
    #[must_use]
    pub fn new(
        options: Options,
        address: std::net::SocketAddr,
        config: host::Config,
        progress: UnboundedSender<Progress>,
    ) -> Self {
        Self {
            options,
            progress,
            address,
            config,
            phase: Phase::Connecting,
            hosts: Vec::new(),
            flights: Vec::new(),
            idle: Vec::new(),
            parked: Vec::new(),
            job: None,
            submitted: 0,
            begun: Instant::ZERO,
            ended: Instant::ZERO,
            cpu: Duration::ZERO,
            told: Told::default(),
            tallies: Tallies::default(),
            complaints: Vec::new(),
            failure: None,
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// How long commands were sent, and the processor time of this process meanwhile.
    #[must_use]
    pub const fn took(&self) -> (Duration, Duration) {
        (self.ended.since(self.begun), self.cpu)
    }

    /// What went wrong, the first few.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Why it could not be carried through.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    fn open(&mut self, machine: &mut Shard, now: Instant) {
        for _ in 0..self.options.connections {
            let config = HostConfig { address: 0, controller: self.config.clone() };
            match machine.host_open(now, config) {
                Some(key) => {
                    self.hosts.push(Association { key, live: false, closing: false, closed: false })
                }
                None => return self.fail(Error::run("too many connections")),
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        self.phase = Phase::Closing;
    }

    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.tell(Some(complaint.clone()));
            self.complaints.push(complaint);
        }
    }

    // === What comes ===

    /// Hears everything that happened; false if nothing did.
    fn listen(&mut self, machine: &mut Shard, world: &mut World<'_>) -> bool {
        let mut heard = false;
        while let Some((key, event)) = machine.host_poll() {
            heard = true;
            if let Some(host) = self.hosts.iter().position(|host| host.key == key) {
                self.hear(world, host, event);
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
    fn check(&self, live: &Live) -> Result<()> {
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

    fn job(&self, live: &Live) -> Result<Job> {
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

    fn namespace(&self, live: &Live) -> Result<NamespaceInfo> {
        let nsid = self.options.target.nsid;
        let asked_for = |info: &&NamespaceInfo| nsid.is_none_or(|nsid| nsid == info.nsid);
        live.namespaces.iter().find(asked_for).copied().ok_or_else(|| {
            let which = nsid.map_or_else(|| "any namespace".into(), |n| format!("namespace {n}"));
            Error::run(format!("{} does not show {which} to us", self.options.target.nqn))
        })
    }

    /// All associations are live: the clock runs.
    fn begin(&mut self, world: &mut World<'_>, job: Job) {
        for host in 0..self.hosts.len() {
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
        let Completed { cookie, status, lease, .. } = completed;
        let index = usize::try_from(cookie).unwrap_or(usize::MAX);
        let Some(flight) = self.flights.get_mut(index) else { return };
        flight.take_back(lease);
        let State::Flying(work, begun) = flight.state else { return };
        if is_worth_a_retry(status) {
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
            self.on_failure(work, status);
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

    fn on_failure(&mut self, work: Work, status: Status) {
        let Some(Job { generator, geometry, .. }) = &mut self.job else { return };
        let what = match work {
            Work::Read { slot } => format!("read of LBA {}", geometry.lba(slot)),
            Work::Write { slot, .. } => format!("write of LBA {}", geometry.lba(slot)),
            Work::Flush => "flush".to_owned(),
        };
        generator.done(work, Outcome::Failed);
        tally(&mut self.tallies, work).errors += 1;
        self.complain(format!("{what} failed: {status}"));
    }

    fn on_lost(&mut self, host: usize, why: Why, again: bool) {
        self.hosts[host].live = false;
        match self.phase {
            Phase::Connecting => self.fail(refused(self.address, self.options.target.nqn, why)),
            Phase::Closing => {}
            _ if again => self.tell(Some(format!("connection lost, connecting again: {why}"))),
            _ => self.fail(refused(self.address, self.options.target.nqn, why)),
        }
    }

    fn on_closed(&mut self, host: usize) {
        self.hosts[host].live = false;
        self.hosts[host].closed = true;
        if self.phase != Phase::Closing {
            self.fail(Error::run("the association ended"));
        }
    }

    // === What goes ===

    fn act(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        if self.job.is_some() && self.phase != Phase::Closing {
            self.go_on(machine, world);
        }
        if self.phase == Phase::Closing {
            self.close(machine, world);
        }
    }

    fn go_on(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        if self.phase == Phase::Running && self.is_over(world.now) {
            self.phase = Phase::Settling;
        }
        for index in std::mem::take(&mut self.parked) {
            if let State::Parked(work, begun) = self.flights[index].state {
                self.send(machine, world, index, work, begun);
            }
        }
        self.launch(machine, world);
        if self.idle.len() < self.flights.len() {
            return;
        }
        match self.phase {
            Phase::Settling => {
                self.settle();
                // Nothing is in flight that could begin the next turn.
                self.launch(machine, world);
            }
            Phase::ReadingBack(_) => self.phase = Phase::Closing,
            Phase::Connecting | Phase::Running | Phase::Closing => {}
        }
    }

    /// Gives every idle flight a command, as long as there are any.
    fn launch(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        while let Some(&index) = self.idle.last()
            && let Some(work) = self.next_work()
        {
            self.idle.pop();
            self.stamp(world, index, work);
            self.send(machine, world, index, work, world.now);
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.time().is_some_and(|time| now.since(self.begun) >= time)
            || self.options.total.is_some_and(|total| self.submitted >= total.0)
    }

    /// How long to go on, unless it is bounded by bytes alone.
    fn time(&self) -> Option<Duration> {
        let default = self.options.total.is_none().then_some(TIME);
        self.options.time.map(|time| time.0).or(default)
    }

    fn next_work(&mut self) -> Option<Work> {
        let job = self.job.as_mut()?;
        match &mut self.phase {
            Phase::Running => {
                let total = self.options.total.map_or(u64::MAX, |total| total.0);
                if self.submitted >= total {
                    return None;
                }
                let work = job.generator.next_work()?;
                if work != Work::Flush {
                    self.submitted += u64::from(job.geometry.bytes);
                }
                Some(work)
            }
            Phase::ReadingBack(read_back) => read_back.next_work(&job.generator),
            Phase::Connecting | Phase::Settling | Phase::Closing => None,
        }
    }

    fn stamp(&mut self, world: &mut World<'_>, index: usize, work: Work) {
        if let (true, Some(job)) = (self.options.verify, &self.job) {
            self.flights[index].stamp(world.mem, job.geometry, &job.pattern, work);
        }
    }

    fn send(
        &mut self,
        machine: &mut Shard,
        world: &mut World<'_>,
        index: usize,
        work: Work,
        begun: Instant,
    ) {
        let Some(job) = &self.job else { return };
        let flight = &mut self.flights[index];
        let submission = flight.submission(job.geometry, work, index as u64);
        let key = self.hosts[flight.host].key;
        match machine.host_submit(world.mem, world.now, key, submission) {
            Ok(()) => flight.state = State::Flying(work, begun),
            Err(back) => {
                flight.take_back(back.lease);
                flight.state = State::Parked(work, begun);
                self.parked.push(index);
            }
        }
    }

    /// Every command is back.
    fn settle(&mut self) {
        self.cpu = cpu_time().saturating_sub(self.cpu);
        let wrote = self.tallies.write.commands > 0;
        self.phase = if self.options.verify && wrote {
            Phase::ReadingBack(ReadBack::default())
        } else {
            Phase::Closing
        };
    }

    fn close(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        for host in self.hosts.iter_mut().filter(|host| !host.closing) {
            host.closing = true;
            if self.failure.is_some() {
                machine.host_abort(world.mem, world.now, host.key);
            } else {
                machine.host_close(world.mem, world.now, host.key);
            }
        }
        if self.is_closed() {
            self.flights.iter_mut().for_each(|flight| flight.leave(world.mem));
        }
    }

    fn is_closed(&self) -> bool {
        self.phase == Phase::Closing && self.hosts.iter().all(|host| host.closed)
    }

    // === What is told ===

    fn tick(&mut self, now: Instant) {
        if self.job.is_some() && now >= self.told.at + TICK {
            self.tell_at(now, None);
        }
    }

    fn tell(&mut self, complaint: Option<String>) {
        self.tell_at(braid_reactor::now(), complaint);
    }

    fn tell_at(&mut self, now: Instant, complaint: Option<String>) {
        let Told { at: then, commands, bytes, blocks } = self.told;
        let reading_back = matches!(self.phase, Phase::ReadingBack(_));
        let (all_commands, all_bytes) = (self.tallies.commands(), self.tallies.bytes());
        let all_blocks = self.tallies.verified_blocks;
        let progress = Progress {
            elapsed: now.since(self.begun),
            interval: now.since(then),
            commands: all_commands - commands,
            bytes: all_bytes - bytes,
            verified_blocks: all_blocks - blocks,
            faults: self.tallies.errors() + self.tallies.mismatches,
            reading_back,
            complaint,
        };
        if progress.complaint.is_none() {
            self.told =
                Told { at: now, commands: all_commands, bytes: all_bytes, blocks: all_blocks };
        }
        // Nobody listens any more when the program is being ended.
        let _ = self.progress.send(progress);
    }
}

impl Application for Load {
    /// To stop before the time.
    type Control = ();

    fn note(&mut self, _: &Shard, _: &mut World<'_>, _: Note) {}

    fn control(&mut self, _: &mut Shard, _: &mut World<'_>, (): ()) {
        self.phase = match self.phase {
            Phase::Running => Phase::Settling,
            phase @ Phase::Settling => phase,
            Phase::Connecting | Phase::ReadingBack(_) | Phase::Closing => Phase::Closing,
        };
    }

    fn turn(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        if self.hosts.is_empty() && self.phase == Phase::Connecting {
            self.open(machine, world.now);
        }
        // What is done below may end commands and associations at once, and then nothing else
        // would begin another turn.
        loop {
            self.act(machine, world);
            if !self.listen(machine, world) {
                break;
            }
        }
        self.tick(world.now);
    }

    fn timeout(&self) -> Option<Instant> {
        let tick = self.told.at + TICK;
        match self.phase {
            Phase::Connecting | Phase::Closing => None,
            _ if !self.parked.is_empty() => Some(tick.min(braid_reactor::now() + RETRY)),
            Phase::Running => Some(tick.min(self.time().map_or(tick, |time| self.begun + time))),
            Phase::Settling | Phase::ReadingBack(_) => Some(tick),
        }
    }

    fn finished(&self, _: &Shard) -> bool {
        self.is_closed()
    }
}

/// The path failed, not the command: another try may do.
fn is_worth_a_retry(status: Status) -> bool {
    let path = status.is_path_error() || status.is(Status::TRANSIENT_TRANSPORT);
    path && !status.do_not_retry()
}

const fn tally(tallies: &mut Tallies, work: Work) -> &mut Tally {
    match work {
        Work::Read { .. } => &mut tallies.read,
        Work::Write { .. } => &mut tallies.write,
        Work::Flush => &mut tallies.flush,
    }
}

/// Processor time of this process, user and system together.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
