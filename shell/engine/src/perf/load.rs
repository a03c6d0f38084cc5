//! The load on its reactor: keeps every queue at its depth and looks at what comes back.
//!
//! ```text
//!   Connecting --all live--> Running --time or total--> Settling --verify--> ReadingBack
//!       |                       |                          |                    |
//!       +---- refused ----------+-------- failed ----------+-----> Closing <----+
//! ```

mod arrival;
mod departure;
mod lanes;

use std::net::SocketAddr;
use std::time::Duration;

use braid_block::{Instant, Key};
use braid_nvme::host::{self, Multipath};
use braid_reactor::{Application, World};
use braid_shard::{HostConfig, Note, Shard};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::UnboundedSender;

use crate::error::Error;
use crate::perf::flight::{Flight, Geometry};
use crate::perf::generator::{Generator, ReadBack};
use crate::perf::options::Options;
use crate::perf::pattern::Pattern;
use crate::perf::report::Tallies;

/// How often progress is told.
const TICK: Duration = Duration::from_secs(1);
/// How soon a flight that could not be sent is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// Complaints that are kept; the others are counted.
const COMPLAINTS_MAX: usize = 10;

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
    /// The target's, and of its other paths.
    addresses: Vec<SocketAddr>,
    config: host::Config,
    phase: Phase,
    /// Of each connection one for each path.
    hosts: Vec<Association>,
    /// The connections, if they have several paths, once a namespace is known.
    lanes: Vec<Multipath>,
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
    /// A load that has not begun to connect. There is an address for each path; `config` is that
    /// of every association.
    #[must_use]
    pub fn new(
        options: Options,
        addresses: Vec<SocketAddr>,
        config: host::Config,
        progress: UnboundedSender<Progress>,
    ) -> Self {
        Self {
            options,
            progress,
            addresses,
            config,
            phase: Phase::Connecting,
            hosts: Vec::new(),
            lanes: Vec::new(),
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
        let paths = self.options.paths();
        for host in 0..usize::from(self.options.connections) * paths {
            let address = u32::try_from(host % paths).unwrap_or(0);
            let config = HostConfig { address, controller: self.config.clone() };
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
        match self.phase {
            Phase::Running => self.phase = Phase::Settling,
            Phase::ReadingBack(_) => self.phase = Phase::Closing,
            Phase::Connecting | Phase::Settling => self.fail(Error::run("given up")),
            Phase::Closing => {}
        }
    }

    fn turn(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        if self.hosts.is_empty() && self.phase == Phase::Connecting {
            self.open(machine, world.now);
        }
        // What is done below may end commands and associations at once, and then nothing else
        // would begin another turn.
        loop {
            self.act(machine, world);
            let ended = self.drive(machine, world);
            if !self.listen(machine, world) && !ended {
                break;
            }
        }
        self.tick(world.now);
    }

    fn timeout(&self) -> Option<Instant> {
        let due = self.lanes.iter().filter_map(Multipath::deadline).min();
        let tick = self.told.at + TICK;
        let tick = due.map_or(tick, |due| due.min(tick));
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

/// Processor time of this process, user and system together.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
