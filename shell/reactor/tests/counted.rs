//! What a whole target costs on the real ring, counted: system calls, allocations, copies, CRC
//! passes, buffers. A socket in front, memory and a file behind; bounds are exact, no clock is
//! read.

#[path = "support/allocator.rs"]
mod allocator;
#[path = "support/host.rs"]
mod host;
mod support;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use allocator::ALLOCATIONS;
use braid_block::{BlockSize, Geometry, Instant};
use braid_nvme::pdu::Digests;
use braid_nvme::target::ControllerModel;
use braid_pool::{Command, Create, Device, Format, Handle};
use braid_reactor::{
    Application, ArenaCounters, ArenaOptions, Counters, OpenDisk, OpenOptions, Options, Polling,
    Reactor, Remote, World, mesh,
};
use braid_shard::{
    BackendConfig, Config, Disk, Limits, NamespaceConfig, Note, Paths, PoolId, Shard,
    SubsystemConfig,
};
use host::{BLOCK, Host, NQN};
use support::{Directory, listener};

const MEMORY: u32 = 1;
const FILE: u32 = 2;
/// A replica in a pool on a second file.
const REPLICA: u32 = 3;
const BATCH: usize = 32;

const POOL: PoolId = PoolId(0);
const POOL_BYTES: u64 = 32 << 20;
/// The number that the first replica of a pool gets.
const FIRST: Handle = Handle(0);

/// What a test asks of the shard's thread.
enum Ask {
    Stop,
    /// Make a pool and a replica; dropped when they are there.
    Pool(mpsc::Sender<()>),
    Count(mpsc::Sender<Seen>),
}

/// What was counted; allocations since the last answer.
#[derive(Clone, Copy, Debug)]
struct Seen {
    reactor: Counters,
    arena: ArenaCounters,
    allocations: u64,
    connections: usize,
}

#[derive(Default)]
struct Counter {
    drained: bool,
    /// What is to be done next to get a pool with a replica.
    next: Option<Step>,
    ready: Option<mpsc::Sender<()>>,
}

/// How a pool comes to be.
#[derive(Clone, Copy, Debug)]
enum Step {
    Make,
    Close,
    Open,
    Create,
    Tell,
}

impl Application for Counter {
    type Control = Ask;

    fn note(&mut self, _machine: &Shard, _world: &mut World<'_>, note: Note) {
        self.drained |= matches!(note, Note::Drained);
        self.next = match note {
            Note::Pool { note: braid_pool::Note::Stopped, .. } if !self.drained => {
                Some(Step::Close)
            }
            Note::PoolClosed { .. } => Some(Step::Open),
            Note::Pool { note: braid_pool::Note::Opened { .. }, .. } => Some(Step::Create),
            Note::PoolCommand { result, .. } => {
                assert_eq!(result.expect("a replica").handle, Some(FIRST));
                Some(Step::Tell)
            }
            _ => self.next,
        };
    }

    fn turn(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        let (mem, now) = (&mut *world.mem, world.now);
        match self.next.take() {
            Some(Step::Make) => {
                // A ring that needs no checkpoint in a test: that one may allocate.
                let format = Format::for_device([1; 16], POOL_BYTES);
                let format = Format { ring_blocks: 1024, ..format };
                assert!(machine.pool_create(mem, now, POOL, Disk(1), pool_config(), format));
            }
            Some(Step::Close) => machine.pool_close(mem, now, POOL),
            Some(Step::Open) if self.ready.is_some() => {
                assert!(machine.pool_open(mem, now, POOL, Disk(1), pool_config()));
            }
            Some(Step::Create) => {
                let create = Create {
                    uuid: [2; 16],
                    name: "replica".into(),
                    bytes: 1 << 20,
                    block: BlockSize::B4096,
                    thick: false,
                    created: 0,
                };
                machine.pool_command(mem, now, POOL, 0, Command::Create(Box::new(create)));
            }
            Some(Step::Tell) => drop(self.ready.take()),
            Some(Step::Open) | None => {}
        }
    }

    fn timeout(&self) -> Option<Instant> {
        self.next.map(|_| Instant::ZERO)
    }

    fn control(&mut self, machine: &mut Shard, world: &mut World<'_>, control: Ask) {
        match control {
            Ask::Stop => machine.stop(world.mem, world.now),
            Ask::Pool(ready) => (self.next, self.ready) = (Some(Step::Make), Some(ready)),
            Ask::Count(answer) => {
                let _ = answer.send(Seen {
                    reactor: *world.counters,
                    arena: world.mem.counters(),
                    allocations: ALLOCATIONS.get(),
                    connections: machine.connections(),
                });
                // What the answer itself cost is of no interest.
                ALLOCATIONS.set(0);
            }
        }
    }

    fn finished(&self, _machine: &Shard) -> bool {
        self.drained
    }
}

/// A target on its thread, that never polls.
struct Target {
    address: SocketAddr,
    remote: Remote<Ask>,
    thread: JoinHandle<u64>,
    _directory: Directory,
}

impl Target {
    fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let how = OpenOptions { create_bytes: Some(1 << 20), ..OpenOptions::default() };
        let disk = OpenDisk::open(&directory.file("disk"), &how).expect("direct I/O works here");
        let how = OpenOptions { create_bytes: Some(POOL_BYTES), ..how };
        let pool = OpenDisk::open(&directory.file("pool"), &how).expect("direct I/O works here");
        let (listener, address) = listener();
        let options = Options {
            arena: ArenaOptions { limit_bytes: 8 << 20, ..ArenaOptions::default() },
            polling: Polling::Never,
            sockets_max: 32,
            ..Options::default()
        };
        let (disks, listeners) = (vec![disk, pool], vec![listener]);
        let reactor = Reactor::new(options, mesh(1).remove(0), disks, listeners, vec![]);
        let reactor = reactor.expect("this system allows it");
        let remote = reactor.remote();
        let thread = std::thread::spawn(move || {
            let (machine, _) =
                reactor.run(Shard::new(config()), Counter::default()).expect("a run");
            u64::try_from(machine.connections() + machine.ops()).expect("a small number")
        });
        Self { address, remote, thread, _directory: directory }
    }

    /// The same with a replica in a pool.
    fn with_replica(name: &str) -> Self {
        let target = Self::start(name);
        let (sender, ready) = mpsc::channel();
        assert!(target.remote.post(Ask::Pool(sender)).is_ok(), "it runs");
        let _ = ready.recv_timeout(Duration::from_secs(20));
        target
    }

    fn seen(&self) -> Seen {
        let (sender, answer) = mpsc::channel();
        assert!(self.remote.post(Ask::Count(sender)).is_ok(), "it runs");
        answer.recv_timeout(Duration::from_secs(20)).expect("it answers")
    }

    /// What `work` added to the counts.
    fn costs(&self, work: impl FnOnce()) -> (Seen, Seen) {
        let before = self.seen();
        work();
        (before, self.seen())
    }

    /// Ends it. Its arena asserts when it is dropped that every lease came back.
    fn stop(self) {
        assert!(self.remote.post(Ask::Stop).is_ok(), "it runs");
        assert_eq!(self.thread.join().expect("no panic"), 0);
    }
}

fn config() -> Config {
    let geometry = Geometry::of_bytes(1 << 20, BlockSize::B4096);
    let namespace = |nsid: u32, backend| NamespaceConfig {
        nsid,
        ana_group: 1,
        nguid: [nsid.to_le_bytes()[0]; 16],
        uuid: [nsid.to_le_bytes()[0]; 16],
        geometry,
        backend,
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    let file = BackendConfig::Disk { disk: Disk(0), discards: false, atomic_blocks: 1 };
    let replica = BackendConfig::Replica { pool: POOL, handle: FIRST, read_only: false };
    let subsystem = SubsystemConfig {
        home: 0,
        nqn: NQN.to_owned(),
        serial: "counted".to_owned(),
        allowed_hosts: Vec::new(),
        controllers: ControllerModel::Dynamic,
        paths: Paths::default(),
        header_digest: true,
        data_digest: true,
        namespaces: vec![
            namespace(MEMORY, BackendConfig::Memory),
            namespace(FILE, file),
            namespace(REPLICA, replica),
        ],
    };
    let limits = Limits { connections_max: 16, arena_bytes: 8 << 20, ..Limits::default() };
    Config { shard: 0, shards: 1, subsystems: vec![subsystem], portals: Vec::new(), limits }
}

fn pool_config() -> braid_pool::Config {
    braid_pool::Config {
        token_base: 0,
        device: Device { bytes: POOL_BYTES, sector: 4096, discards: false },
        boot_id: [1; 16],
        owner: "counted".to_owned(),
        seed: 1,
        read_only: false,
        limits: braid_pool::Limits::default(),
        plant: None,
    }
}

fn none() -> Digests {
    Digests::default()
}

#[test]
fn thirty_two_reads_cost_a_few_system_calls() {
    const BATCHES: u64 = 400;
    let target = Target::start("counted-reads");
    let mut host = Host::connect(target.address, none());
    let (before, after) = target.costs(|| (0..BATCHES).for_each(|_| host.read(MEMORY, BATCH)));
    let enters = after.reactor.enters - before.reactor.enters;
    // One waits for the commands, one sends 31 answers, one sends the last. A busy machine may cut
    // a batch in two now and then.
    assert!(enters <= 3 * BATCHES + BATCHES / 8, "{enters} calls for {BATCHES} batches");
    assert!(enters * 5 < BATCHES * 32, "0.2 calls an I/O or more: {enters}");
    drop(host);
    target.stop();
}

#[test]
fn thirty_two_writes_cost_less_than_a_fifth_of_a_call_each() {
    const BATCHES: u64 = 400;
    let target = Target::start("counted-writes");
    let mut host = Host::connect(target.address, none());
    let (before, after) = target.costs(|| (0..BATCHES).for_each(|_| host.write(MEMORY, BATCH)));
    let enters = after.reactor.enters - before.reactor.enters;
    assert!(enters * 5 < BATCHES * 32, "0.2 calls an I/O or more: {enters}");
    drop(host);
    target.stop();
}

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    let target = Target::with_replica("counted-allocations");
    let mut host = Host::connect(target.address, none());
    let mut round = |rounds: usize| {
        for n in 0..rounds {
            let count = 1 + n * 7 % 96;
            for nsid in [MEMORY, FILE, REPLICA] {
                host.write(nsid, count);
                host.read(nsid, count);
            }
        }
    };
    round(100);
    let (_, after) = target.costs(|| round(200));
    assert_eq!(after.allocations, 0);
    drop(host);
    target.stop();
}

#[test]
fn a_write_is_copied_once_and_a_disk_read_never() {
    const ROUNDS: u64 = 20;
    let target = Target::start("counted-copies");
    let mut host = Host::connect(target.address, none());
    let bytes = ROUNDS * BATCH as u64 * BLOCK as u64;
    for nsid in [MEMORY, FILE] {
        let (before, after) = target.costs(|| (0..ROUNDS).for_each(|_| host.write(nsid, BATCH)));
        assert_eq!(after.arena.bytes_copied - before.arena.bytes_copied, bytes);
        let (before, after) = target.costs(|| (0..ROUNDS).for_each(|_| host.read(nsid, BATCH)));
        assert_eq!(after.arena.bytes_copied, before.arena.bytes_copied);
        assert_eq!(after.arena.crc_passes, before.arena.crc_passes);
    }
    drop(host);
    target.stop();
}

#[test]
fn with_data_digests_each_payload_is_summed_once() {
    const ROUNDS: u64 = 50;
    let target = Target::start("counted-digests");
    let mut host = Host::connect(target.address, Digests { header: false, data: true });
    let (before, after) = target.costs(|| {
        for _ in 0..ROUNDS {
            host.write(FILE, 1);
            host.read(FILE, 1);
        }
    });
    assert_eq!(after.arena.crc_passes - before.arena.crc_passes, 2 * ROUNDS);
    drop(host);
    target.stop();
}

#[test]
fn a_replica_sums_each_payload_once_with_and_without_digests() {
    const ROUNDS: u64 = 50;
    let target = Target::with_replica("counted-sums");
    for digests in [none(), Digests { header: false, data: true }] {
        let mut host = Host::connect(target.address, digests);
        let bytes = ROUNDS * BATCH as u64 * BLOCK as u64;
        let (before, after) = target.costs(|| (0..ROUNDS).for_each(|_| host.write(REPLICA, BATCH)));
        assert_eq!(after.arena.bytes_summed - before.arena.bytes_summed, bytes, "{digests:?}");
        assert_eq!(after.arena.bytes_copied - before.arena.bytes_copied, bytes);
        let (before, after) = target.costs(|| (0..ROUNDS).for_each(|_| host.read(REPLICA, BATCH)));
        assert_eq!(after.arena.bytes_summed - before.arena.bytes_summed, bytes, "{digests:?}");
        assert_eq!(after.arena.bytes_copied, before.arena.bytes_copied);
    }
    target.stop();
}

#[test]
fn every_lease_comes_back() {
    let target = Target::start("counted-leases");
    let start = target.seen().arena;
    for digests in [none(), Digests { header: false, data: true }] {
        let mut hosts: Vec<Host> = (0..4).map(|_| Host::connect(target.address, digests)).collect();
        for host in &mut hosts {
            host.write(FILE, BATCH);
            host.read(MEMORY, BATCH);
        }
        drop(hosts);
        while target.seen().connections > 0 {
            std::thread::yield_now();
        }
        let end = target.seen().arena;
        assert_eq!((end.leases_out, end.bytes_out), (start.leases_out, start.bytes_out));
    }
    target.stop();
}
