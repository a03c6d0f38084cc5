//! The hosts: several clients of each write and read a few blocks over all paths of the volume,
//! by the host side that ships, and everything that they ask and are answered is written down.
//!
//! Invariants:
//! 1. A client has one operation in work, of which nobody knows the outcome until it ended.
//! 2. What is written down is in the order in which it happened: one thread sends and hears all.

mod clients;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use braid_block::{Instant, Key, Lease};
use braid_nvme::Status;
use braid_nvme::connect::Nqn;
use braid_nvme::host::{self, Ended, Event, Multipath, Policy, Reconnect};
use braid_reactor::{Application, Options, Polling, Reactor, Remote, World, mesh};
use braid_shard::{Config, HostConfig, Limits, Note, Shard};
use braid_sim::{Deed, History, Number, Random};

use crate::Outcome;

/// Hosts, each with a name and associations of its own.
const HOSTS: usize = 2;
/// Clients of a host: each has one operation in work.
const CLIENTS: usize = 6;
/// A target that says nothing for so long is lost: what P8 asks of Linux.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// A command may be held for 10 s while a member is excluded.
const COMMAND: Duration = Duration::from_secs(15);
/// A step of connecting.
const STEP: Duration = Duration::from_secs(2);
/// Pauses between attempts to connect.
const RECONNECT: Reconnect =
    Reconnect { min: Duration::from_millis(100), max: Duration::from_millis(500), give_up: None };
/// A path that refused us for good is tried again after this: its engine may know better then.
const REOPEN: Duration = Duration::from_millis(300);
/// A time without any answer that is written down.
const STALL: Duration = Duration::from_millis(300);

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin nothing new.
    Rest,
    /// Read every block once.
    ReadAll,
    /// Go away.
    Leave,
}

/// What others may know while it runs.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Operations in work.
    pub in_work: usize,
    /// Blocks that are still to be read after [`Order::ReadAll`].
    pub unread: usize,
    /// Reads, writes, zeroings and flushes that succeeded.
    pub done: [u64; 4],
    /// Operations that failed for good, with the status of the last.
    pub failed: u64,
    /// That status.
    pub failure: Option<String>,
    /// Times that something was sent again.
    pub retries: u64,
    /// The longest operation.
    pub longest: Duration,
    /// Times without any answer: when it began, how long it lasted.
    pub stalls: Vec<(Duration, Duration)>,
    /// Times that a host went over to another path.
    pub switches: u64,
    /// What must not be.
    pub finding: Option<String>,
}

/// Looks at what is shared; one who panicked left it whole.
pub fn look(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hosts as a thread.
#[derive(Debug)]
pub struct Running {
    remote: Remote<Order>,
    thread: JoinHandle<Outcome<History>>,
    /// What others may know.
    pub seen: Arc<Mutex<Seen>>,
}

/// What the hosts do.
#[derive(Clone, Debug)]
pub struct Work {
    /// Where their chance comes from.
    pub seed: u64,
    /// The volume.
    pub nqn: Nqn,
    /// Where it is served.
    pub portals: Vec<SocketAddr>,
    /// Blocks of 4 KiB that are used.
    pub blocks: Vec<u64>,
    /// A pause between two operations of a client, at most.
    pub think: Duration,
    /// Since when times are told.
    pub began: Instant,
}

impl Running {
    /// Starts the hosts.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn start(work: Work) -> Outcome<Self> {
        let options = Options { polling: Polling::Never, seed: work.seed, ..Options::default() };
        let limits = Limits::default();
        let config =
            Config { shard: 0, shards: 1, subsystems: Vec::new(), portals: Vec::new(), limits };
        let port = mesh(1).remove(0);
        let addresses = work.portals.clone();
        let reactor = Reactor::new(options, port, Vec::new(), Vec::new(), addresses);
        let reactor = reactor.map_err(|error| error.to_string())?;
        let (remote, seen) = (reactor.remote(), Arc::default());
        let load = Load::new(work, Arc::clone(&seen));
        let thread = std::thread::Builder::new().name("hosts".into());
        let thread = thread.spawn(move || {
            let ended = reactor.run(Shard::new(config), load);
            ended.map(|(_, load)| load.history).map_err(|error| error.to_string())
        });
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { remote, thread, seen })
    }

    /// Tells them something.
    ///
    /// # Errors
    ///
    /// That they have ended.
    pub fn order(&self, order: Order) -> Outcome<()> {
        self.remote.post(order).map_err(|_| "the hosts have ended".to_owned())
    }

    /// What they asked and were answered, once they have left.
    ///
    /// # Errors
    ///
    /// How they ended otherwise.
    pub fn join(self) -> Outcome<History> {
        self.thread.join().map_err(|_| "the hosts panicked".to_owned())?
    }
}

/// A path of a host.
#[derive(Clone, Copy, Debug)]
struct Path {
    key: Option<Key>,
    /// When it is opened again.
    open_at: Instant,
}

/// A host.
#[derive(Debug)]
struct Host {
    number: usize,
    paths: Vec<Path>,
    multipath: Multipath,
    /// The path of its last answer.
    last: Option<usize>,
}

/// An operation in work.
#[derive(Debug)]
struct Flight {
    client: usize,
    deed: Deed,
    lba: u64,
    bytes: u32,
    began: Instant,
    attempts: usize,
}

/// Somebody who does one thing after the other.
#[derive(Clone, Copy, Debug)]
struct Client {
    busy: bool,
    next: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Working,
    Resting,
    Reading,
    Leaving,
}

/// The hosts on their reactor.
struct Load {
    work: Work,
    hosts: Vec<Host>,
    clients: Vec<Client>,
    flights: BTreeMap<Number, Flight>,
    history: History,
    random: Random,
    phase: Phase,
    chores: VecDeque<u64>,
    last_answer: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl Load {
    fn new(work: Work, seen: Arc<Mutex<Seen>>) -> Self {
        let commands = u32::try_from(CLIENTS).unwrap_or(u32::MAX);
        let paths = work.portals.len();
        let closed = Path { key: None, open_at: Instant::ZERO };
        let host = |number| Host {
            number,
            paths: vec![closed; paths],
            multipath: Multipath::new(1, paths, commands, Policy::First, None),
            last: None,
        };
        let idle = Client { busy: false, next: Instant::ZERO };
        Self {
            hosts: (0..HOSTS).map(host).collect(),
            clients: vec![idle; HOSTS * CLIENTS],
            flights: BTreeMap::new(),
            history: History::new(1),
            random: Random::new(work.seed),
            phase: Phase::Working,
            chores: VecDeque::new(),
            last_answer: braid_reactor::now(),
            seen,
            work,
        }
    }

    /// Opens what is closed, if its time has come.
    fn open(&mut self, machine: &mut Shard, now: Instant) {
        let nqn = self.work.nqn;
        for host in &mut self.hosts {
            for (address, path) in (0..).zip(&mut host.paths) {
                if path.key.is_some() || path.open_at > now {
                    continue;
                }
                let id = u8::try_from(host.number).unwrap_or(0) + 1;
                let Some(name) = Nqn::parse(&format!("nqn.2026-11.io.braid:host{id}")) else {
                    return;
                };
                let controller = host::Config {
                    kato: KEEP_ALIVE,
                    io_timeout: COMMAND,
                    connect_timeout: STEP,
                    reconnect: RECONNECT,
                    ..host::Config::new(nqn, name, [id; 16])
                };
                path.key = machine.host_open(now, HostConfig { address, controller });
                path.open_at = now + REOPEN;
            }
        }
    }

    /// Sends what can be sent; false if nothing was.
    fn send(&mut self, machine: &mut Shard, world: &mut World<'_>) -> bool {
        let mut sent = false;
        for host in &mut self.hosts {
            host.multipath.elapsed(world.now);
            while let Some(path) = host.multipath.poll_look() {
                if let Some(key) = host.paths[path].key {
                    machine.host_look(world.mem, world.now, key);
                }
            }
            while let Some((path, submission)) = host.multipath.poll_send(world.now) {
                let number = host.multipath.cookie_of(submission.cookie);
                let Some(key) = host.paths[path].key else {
                    host.multipath.refused(path, submission);
                    break;
                };
                match machine.host_submit(world.mem, world.now, key, submission) {
                    Err(submission) => {
                        host.multipath.refused(path, submission);
                        break;
                    }
                    Ok(()) => sent = true,
                }
                let number = number.and_then(|number| Number::try_from(number).ok());
                if let Some((number, flight)) =
                    number.and_then(|number| Some((number, self.flights.get_mut(&number)?)))
                {
                    flight.attempts = self.history.send(number) + 1;
                }
            }
        }
        sent
    }

    /// Hears everything that happened; false if nothing did.
    fn listen(&mut self, machine: &mut Shard, world: &mut World<'_>) -> bool {
        let mut heard = false;
        while let Some((key, event)) = machine.host_poll() {
            heard = true;
            let found = self.hosts.iter().enumerate().find_map(|(host, each)| {
                Some((host, each.paths.iter().position(|path| path.key == Some(key))?))
            });
            if let Some((host, path)) = found {
                self.hear(world, host, path, event);
            }
        }
        heard
    }

    fn hear(&mut self, world: &mut World<'_>, host: usize, path: usize, event: Event) {
        let now = world.now;
        if matches!(event, Event::Closed) {
            self.hosts[host].paths[path] = Path { key: None, open_at: now + REOPEN };
        }
        let multipath = &mut self.hosts[host].multipath;
        let of = match &event {
            Event::Completed(completed) => {
                let number = multipath.cookie_of(completed.cookie);
                // Of one that was lost with its association nobody knows what becomes.
                let answered = !completed.status.is(Status::ABORTED_BY_HOST);
                number.and_then(|number| Some((Number::try_from(number).ok()?, answered)))
            }
            _ => None,
        };
        multipath.on_event(now, path, event);
        let ended: Vec<Ended> = std::iter::from_fn(|| multipath.poll_ended()).collect();
        let answered = of.is_some_and(|(_, answered)| answered);
        if let (Some((number, true)), true) = (of, ended.is_empty()) {
            self.history.bounced(number);
        }
        for ended in ended {
            self.end(world, host, ended, answered);
        }
    }
}

impl Application for Load {
    type Control = Order;

    fn note(&mut self, _: &Shard, _: &mut World<'_>, _: Note) {}

    fn control(&mut self, _: &mut Shard, _: &mut World<'_>, order: Order) {
        self.phase = match order {
            Order::Rest => Phase::Resting,
            Order::ReadAll => {
                self.chores = self.work.blocks.iter().copied().collect();
                Phase::Reading
            }
            Order::Leave => Phase::Leaving,
        };
    }

    fn turn(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        if self.phase == Phase::Leaving {
            for path in self.hosts.iter().flat_map(|host| &host.paths) {
                if let Some(key) = path.key {
                    machine.host_abort(world.mem, world.now, key);
                }
            }
        } else {
            self.open(machine, world.now);
        }
        // What is done below may end commands at once, and then nothing else would begin another
        // turn.
        loop {
            self.begin_all(world);
            let sent = self.send(machine, world);
            if !self.listen(machine, world) && !sent {
                break;
            }
        }
        let mut seen = look(&self.seen);
        seen.in_work = self.flights.len();
        seen.unread = self.chores.len();
    }

    fn timeout(&self) -> Option<Instant> {
        let resting = matches!(self.phase, Phase::Resting | Phase::Leaving);
        let idle = self.clients.iter().filter(|client| !client.busy && !resting);
        let next = idle.map(|client| client.next);
        let paths = self.hosts.iter().flat_map(|host| &host.paths);
        let open = paths.filter(|path| path.key.is_none()).map(|path| path.open_at);
        let due = self.hosts.iter().filter_map(|host| host.multipath.deadline());
        next.chain(open).chain(due).min()
    }

    fn finished(&self, _: &Shard) -> bool {
        let closed = |host: &Host| host.paths.iter().all(|path| path.key.is_none());
        self.phase == Phase::Leaving && self.hosts.iter().all(closed)
    }
}

/// Gives a buffer back, if there is one.
fn free(world: &mut World<'_>, lease: Option<Lease>) {
    if let Some(lease) = lease {
        braid_block::Memory::free(world.mem, lease);
    }
}
