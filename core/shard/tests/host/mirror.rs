//! A volume over the replicas of three engines: shards, pools, guards, nexuses and NVMe/TCP as they
//! ship, with a store and a planner that are the test's.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_block::{BlockSize, Class, Geometry, Key};
use braid_nexus::record::{Record, Replica, Standing, Uuid};
use braid_nexus::{Command, Limits as VolumeLimits, Swapped, Timing};
use braid_nvme::Status;
use braid_nvme::ana::{ANA_LOG, AnaState};
use braid_nvme::connect::Nqn;
use braid_nvme::host::{
    Completed, Ended, Event, Multipath, Operation, Policy, Submission, get_log_page,
};
use braid_pool::{Create, Device, Format};
use braid_shard::{
    BackendConfig, Disk, HostConfig, NamespaceConfig, News, Note, Paths, PoolId, Question,
    SubsystemConfig, VolumeConfig, member_nqn,
};

use crate::net::Net;
use crate::{host, nobody, target};

const VOLUME: Uuid = [0xaa; 16];
const VOLUME_NQN: &str = "nqn.2026-01.io.braid:volume";
const POOL: PoolId = PoolId(1);
const POOL_BYTES: u64 = 24 << 20;
const BYTES: u64 = 4 << 20;
const ENGINES: usize = 3;
/// The node that is a host.
const HOST: usize = ENGINES;

const fn replica(engine: usize) -> Uuid {
    [engine as u8 + 1; 16]
}

fn namespace(uuid: Uuid, block: BlockSize, backend: BackendConfig) -> NamespaceConfig {
    NamespaceConfig {
        nsid: 1,
        ana_group: 1,
        nguid: uuid,
        uuid,
        geometry: Geometry::of_bytes(BYTES, block),
        backend,
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    }
}

fn subsystem(nqn: &str, paths: Paths, namespace: NamespaceConfig) -> SubsystemConfig {
    SubsystemConfig {
        nqn: nqn.into(),
        namespaces: vec![namespace],
        paths,
        ..target().subsystems.remove(0)
    }
}

/// Three engines, a host, and a store with the volume's record.
struct World {
    net: Net,
    record: Record,
    owners: u8,
    orders: Vec<(usize, braid_nexus::Ended)>,
    notes: Vec<(usize, braid_nexus::Note)>,
    /// What the host has read and written, by cookie.
    done: BTreeMap<u64, Completed>,
    /// The store does not answer.
    silent: bool,
    /// The host's paths by the engines, once it has them.
    paths: Vec<Key>,
    multipath: Multipath,
    ended: Vec<Ended>,
    /// Volumes that were left.
    gone: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let engine = || braid_shard::Config { portals: target().portals, ..nobody() };
        let configs = (0..ENGINES).map(|_| engine()).chain([nobody()]).collect();
        let mut world = Self {
            net: Net::new(configs, seed),
            record: Record {
                volume: VOLUME,
                store: [9; 16],
                version: 1,
                bytes: BYTES,
                unused: true,
                ..Record::default()
            },
            owners: 0,
            orders: Vec::new(),
            notes: Vec::new(),
            done: BTreeMap::new(),
            silent: false,
            paths: Vec::new(),
            multipath: Multipath::new(1, ENGINES, 64, Policy::RoundRobin, None),
            ended: Vec::new(),
            gone: 0,
        };
        for at in 0..ENGINES {
            world.make_pool(at);
            world.open_pool(at);
            let uuid = replica(at);
            let create = Create {
                uuid,
                name: "replica".into(),
                bytes: BYTES,
                block: BlockSize::B4096,
                thick: false,
                created: 0,
            };
            let node = &mut world.net.nodes[at];
            let command = braid_pool::Command::Create(Box::new(create));
            node.shard.pool_command(&mut node.mem, world.net.now, POOL, 1, command);
            world.run();
            world.serve(at);
            let pool = world.net.nodes[at].shard.pool(POOL).unwrap();
            let instance = pool.layer(pool.find(&uuid).unwrap()).unwrap().instance;
            let standing = Standing::Member { instance };
            world.record.slots[at] = Some(Replica { uuid, standing });
        }
        world
    }

    fn make_pool(&mut self, at: usize) {
        let now = self.net.now;
        let node = &mut self.net.nodes[at];
        let format = Format::for_device([at as u8 + 1; 16], POOL_BYTES);
        assert!(node.shard.pool_create(&mut node.mem, now, POOL, Disk(0), pool(), format));
        self.run();
        let node = &mut self.net.nodes[at];
        node.shard.pool_close(&mut node.mem, now, POOL);
        self.run();
        let closed = |note: &Note| matches!(note, Note::PoolClosed { clean: true, .. });
        assert!(self.net.nodes[at].notes.iter().any(closed));
    }

    fn open_pool(&mut self, at: usize) {
        let now = self.net.now;
        let node = &mut self.net.nodes[at];
        assert!(node.shard.pool_open(&mut node.mem, now, POOL, Disk(0), pool()));
        self.run();
        let pool = self.net.nodes[at].shard.pool(POOL).unwrap();
        assert_eq!(pool.state(), braid_pool::State::Open);
    }

    /// An engine serves its replica to nexuses, and the volume to hosts.
    fn serve(&mut self, at: usize) {
        let uuid = replica(at);
        let shard = &mut self.net.nodes[at].shard;
        let backend = BackendConfig::Member { replica: uuid };
        let member = namespace(uuid, BlockSize::B512, backend);
        assert!(shard.subsystem_add(subsystem(&member_nqn(&uuid), Paths::default(), member)));
        let others = (0..ENGINES).filter(|other| *other != at);
        assert!(shard.volume_add(VolumeConfig {
            volume: VOLUME,
            bytes: BYTES,
            near: Some(uuid),
            timing: Timing::default(),
            limits: VolumeLimits { requests_max: 64, ..VolumeLimits::default() },
            hostnqn: Nqn::parse("nqn.2026-01.io.braid:engine").unwrap(),
            places: others.map(|other| (replica(other), other as u32)).collect(),
        }));
        let volume = namespace(VOLUME, BlockSize::B4096, BackendConfig::Volume { volume: VOLUME });
        let cntlid_min = at as u16 * 100 + 1;
        let paths =
            Paths { cntlid_min, cntlid_max: cntlid_min + 99, state: AnaState::Inaccessible };
        assert!(shard.subsystem_add(subsystem(VOLUME_NQN, paths, volume)));
        self.run();
    }

    /// An engine's process dies, and another one starts on its disk.
    fn restart(&mut self, at: usize) {
        let disk = std::mem::take(&mut self.net.nodes[at].disk);
        let config = braid_shard::Config { portals: target().portals, ..nobody() };
        self.net.restart(at, config);
        self.net.nodes[at].disk = disk;
        self.open_pool(at);
        self.serve(at);
    }

    /// Runs until nothing is left to do now; the store answers at once.
    fn run(&mut self) {
        loop {
            self.net.run();
            let mut idle = true;
            for at in 0..self.net.nodes.len() {
                while let Some(told) = self.net.nodes[at].tells.pop_front() {
                    idle = false;
                    self.told(at, told.news);
                }
            }
            while let Some(event) = self.net.nodes[HOST].events.pop_front() {
                let whose = self.net.nodes[HOST].whose.pop_front();
                let path = self.paths.iter().position(|path| Some(*path) == whose);
                match (path, event) {
                    (Some(path), event) => self.multipath.on_event(self.net.now, path, event),
                    (None, Event::Completed(completed)) => {
                        self.done.insert(completed.cookie, completed);
                    }
                    _ => {}
                }
            }
            idle &= !self.send();
            if idle {
                return;
            }
        }
    }

    fn told(&mut self, at: usize, news: News) {
        let answer = match news {
            News::Asked(_) if self.silent => return,
            News::Asked(Question::Fetch) => {
                let record = Some(Box::new(self.record.clone()));
                braid_nexus::Event::Fetched { record }
            }
            News::Asked(Question::Swap { number, old, new }) => {
                let outcome = if *old == self.record {
                    self.record = *new;
                    Swapped::Committed
                } else {
                    Swapped::Changed(Box::new(self.record.clone()))
                };
                braid_nexus::Event::Swapped { number, outcome }
            }
            News::Ended(ended) => return self.orders.push((at, ended)),
            News::Note(note) => return self.notes.push((at, note)),
            News::Gone => return self.gone += 1,
            News::Access { .. } | News::Resized { .. } => return,
        };
        assert!(self.net.nodes[at].shard.volume_answer(&VOLUME, answer));
    }

    fn pass(&mut self, time: Duration) {
        let until = self.net.now + time;
        while self.net.now < until {
            self.run();
            self.net.pass(Duration::from_millis(20));
        }
        self.run();
    }

    fn command(&mut self, at: usize, command: Command) {
        let now = self.net.now;
        assert!(self.net.nodes[at].shard.volume_command(now, &VOLUME, 7, command));
    }

    /// Appoints an engine, and waits until it serves.
    fn take_over(&mut self, at: usize) {
        self.owners += 1;
        self.command(at, Command::TakeOver { owner: [self.owners; 16], force: false });
        for _ in 0..600 {
            self.pass(Duration::from_millis(20));
            if self.view(at).serving {
                return;
            }
        }
        panic!("engine {at} does not serve: {:?} {:?}", self.view(at), self.notes);
    }

    fn view(&self, at: usize) -> braid_nexus::View {
        self.net.nodes[at].shard.volume_view(&VOLUME).unwrap()
    }

    fn members(&self) -> u32 {
        self.record.members().count_ones()
    }

    /// Waits until all replicas are members.
    fn whole(&mut self) {
        for _ in 0..1000 {
            if self.members() == ENGINES as u32 {
                return;
            }
            self.pass(Duration::from_millis(50));
        }
        panic!("{:?} {:?}", self.record, self.notes);
    }

    fn give_back(&mut self, at: usize, replica: Uuid) {
        self.command(at, Command::Return { replica });
    }

    /// The host connects to every engine, and uses them as paths to one namespace.
    fn connect_all(&mut self) {
        for at in 0..ENGINES {
            let mut config = host(VOLUME_NQN);
            config.address = at as u32;
            config.controller.kato = Duration::from_secs(2);
            config.controller.reconnect.give_up = None;
            let key = self.net.nodes[HOST].shard.host_open(self.net.now, config).unwrap();
            self.paths.push(key);
        }
        self.run();
    }

    /// Lets commands take their paths; whether any did.
    fn send(&mut self) -> bool {
        let (now, mut any) = (self.net.now, false);
        let node = &mut self.net.nodes[HOST];
        self.multipath.elapsed(now);
        while let Some((path, submission)) = self.multipath.poll_send(now) {
            any = true;
            let key = self.paths[path];
            if let Err(submission) = node.shard.host_submit(&mut node.mem, now, key, submission) {
                self.multipath.refused(path, submission);
            }
        }
        while let Some(path) = self.multipath.poll_look() {
            any = true;
            node.shard.host_look(&mut node.mem, now, self.paths[path]);
        }
        while let Some(mut ended) = self.multipath.poll_ended() {
            any = true;
            if let Some(lease) = ended.lease.take() {
                braid_block::Memory::free(&mut node.mem, lease);
            }
            self.ended.push(ended);
        }
        any
    }

    /// Writes by whichever path there is.
    fn write_somehow(&mut self, lba: u64, byte: u8) {
        let operation = Operation::Write { lba, blocks: 2, durable: false };
        let lease = Some(self.net.nodes[HOST].mem.filled(&[byte; 8192]));
        let submission = Submission { operation, nsid: 1, lease, len: 8192, cookie: lba, queue: 0 };
        self.multipath.submit(self.net.now, submission).unwrap();
        self.run();
    }

    fn connect(&mut self, at: usize) -> Key {
        let config = HostConfig { address: at as u32, ..host(VOLUME_NQN) };
        let key = self.net.nodes[HOST].shard.host_open(self.net.now, config).unwrap();
        self.run();
        key
    }

    fn submit(&mut self, path: Key, operation: Operation, bytes: &[u8], len: u32, cookie: u64) {
        let node = &mut self.net.nodes[HOST];
        let lease = match (bytes, len) {
            ([], 0) => None,
            ([], len) => Some(braid_block::Memory::alloc(&mut node.mem, class(len)).unwrap()),
            (bytes, _) => Some(node.mem.filled(bytes)),
        };
        let submission = Submission { operation, nsid: 1, lease, len, cookie, queue: 0 };
        node.shard.host_submit(&mut node.mem, self.net.now, path, submission).unwrap();
    }

    /// Runs one command to its end: its status, and what it read.
    fn one(&mut self, path: Key, operation: Operation, bytes: &[u8], len: u32) -> Done {
        self.submit(path, operation, bytes, len, 1);
        for _ in 0..600 {
            self.run();
            if let Some(completed) = self.done.remove(&1) {
                return self.finish(completed, len);
            }
            self.pass(Duration::from_millis(20));
        }
        panic!("{operation:?} never ends: {:?}", self.notes);
    }

    fn finish(&mut self, completed: Completed, len: u32) -> Done {
        let mem = &mut self.net.nodes[HOST].mem;
        let bytes = completed.lease.map_or_else(Vec::new, |lease| {
            let bytes = braid_block::Memory::bytes(mem, &lease)[..len as usize].to_vec();
            braid_block::Memory::free(mem, lease);
            bytes
        });
        (completed.status, bytes)
    }

    fn write(&mut self, path: Key, lba: u64, byte: u8) -> Status {
        let operation = Operation::Write { lba, blocks: 2, durable: false };
        self.one(path, operation, &[byte; 8192], 8192).0
    }

    fn read(&mut self, path: Key, lba: u64) -> Result<u8, Status> {
        let (status, bytes) = self.one(path, Operation::Read { lba, blocks: 2 }, &[], 8192);
        if !status.is_success() {
            return Err(status);
        }
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "one value");
        Ok(bytes[0])
    }
}

type Done = (Status, Vec<u8>);

fn class(len: u32) -> Class {
    Class::holding(len).unwrap()
}

fn pool() -> braid_pool::Config {
    braid_pool::Config {
        token_base: 0,
        device: Device { bytes: POOL_BYTES, sector: 512, discards: false },
        boot_id: [1; 16],
        owner: "test".into(),
        seed: 5,
        read_only: false,
        limits: braid_pool::Limits { requests_max: 512, ..braid_pool::Limits::default() },
        plant: None,
    }
}

#[test]
fn what_a_host_writes_is_on_every_engine() {
    let mut world = World::new(1);
    world.take_over(0);
    let path = world.connect(0);
    assert_eq!(world.read(path, 4), Ok(0), "nothing was written");
    assert_eq!(world.write(path, 4, 7), Status::SUCCESS);
    assert_eq!(world.one(path, Operation::Flush, &[], 0).0, Status::SUCCESS);
    assert_eq!(world.read(path, 4), Ok(7));
    let zero = Operation::WriteZeroes { lba: 4, blocks: 1, deallocate: true };
    assert_eq!(world.one(path, zero, &[], 0).0, Status::SUCCESS);
    let (status, bytes) = world.one(path, Operation::Read { lba: 4, blocks: 2 }, &[], 8192);
    assert_eq!(status, Status::SUCCESS);
    assert!(bytes[..4096].iter().all(|b| *b == 0) && bytes[4096..].iter().all(|b| *b == 7));
    assert_eq!(world.members(), 3);
    // Each of the others serves what was written when it is asked to.
    for at in [1, 2] {
        world.take_over(at);
        let path = world.connect(at);
        let (_, bytes) = world.one(path, Operation::Read { lba: 4, blocks: 2 }, &[], 8192);
        assert!(bytes[..4096].iter().all(|b| *b == 0) && bytes[4096..].iter().all(|b| *b == 7));
    }
}

#[test]
fn who_is_not_the_owner_sends_hosts_elsewhere() {
    let mut world = World::new(2);
    world.take_over(0);
    let (owner, standby) = (world.connect(0), world.connect(1));
    assert_eq!(world.write(standby, 0, 1), Status::ANA_INACCESSIBLE);
    assert_eq!(world.write(owner, 0, 2), Status::SUCCESS);
    world.take_over(1);
    assert_eq!(world.write(owner, 0, 3), Status::ANA_INACCESSIBLE, "it is the owner no more");
    let log = Operation::Admin(get_log_page(ANA_LOG, u32::MAX, 0, 64, false));
    let (status, page) = world.one(standby, log, &[], 64);
    assert_eq!((status, page[32] & 0xf), (Status::SUCCESS, AnaState::Optimized as u8));
    let done = world.write(standby, 0, 4);
    assert_eq!(done, Status::SUCCESS, "its host has read that, and so shown that it is in use");
    assert_eq!(world.read(standby, 0), Ok(4));
}

#[test]
fn an_engine_that_dies_is_excluded_and_comes_back() {
    let mut world = World::new(3);
    world.take_over(0);
    let path = world.connect(0);
    for lba in 0..20 {
        assert_eq!(world.write(path, lba * 2, 1), Status::SUCCESS);
    }
    world.net.nodes[2].listens = false;
    world.restart(2);
    for lba in 0..20 {
        assert_eq!(world.write(path, lba * 2, 2), Status::SUCCESS);
    }
    assert_eq!(world.members(), 2, "{:?}", world.record);
    world.net.nodes[2].listens = true;
    world.give_back(0, replica(2));
    world.whole();
    // It has what it missed.
    world.take_over(2);
    let path = world.connect(2);
    for lba in 0..20 {
        assert_eq!(world.read(path, lba * 2), Ok(2));
    }
}

#[test]
fn the_owner_dies_and_nothing_acknowledged_is_lost() {
    let mut world = World::new(4);
    world.take_over(0);
    let path = world.connect(0);
    for lba in 0..20 {
        assert_eq!(world.write(path, lba * 2, lba as u8 + 1), Status::SUCCESS);
    }
    world.net.nodes[0].listens = false;
    world.restart(0);
    world.take_over(1);
    let path = world.connect(1);
    for lba in 0..20 {
        assert_eq!(world.read(path, lba * 2), Ok(lba as u8 + 1));
    }
    world.net.nodes[0].listens = true;
    if world.members() < 3 {
        world.give_back(1, replica(0));
    }
    world.whole();
}

#[test]
fn a_snapshot_is_taken_on_every_engine() {
    let mut world = World::new(5);
    world.take_over(0);
    let path = world.connect(0);
    assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
    world.command(0, Command::Snapshot { uuid: [0x55; 16] });
    world.pass(Duration::from_secs(1));
    let ended = world.orders.last();
    assert!(matches!(ended, Some((0, braid_nexus::Ended { result: Ok(()), .. }))));
    assert_eq!(world.record.snapshots.len(), 1);
    for at in 0..ENGINES {
        let pool = world.net.nodes[at].shard.pool(POOL).unwrap();
        assert!(pool.find(&[0x55; 16]).is_some(), "engine {at} has it");
    }
}

#[test]
fn a_host_with_paths_by_all_engines_sees_no_error_when_the_owner_dies() {
    for seed in 6..10 {
        let mut world = World::new(seed);
        world.connect_all();
        world.take_over(0);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.multipath.usable(), 1, "one engine serves it");
        for lba in 0..30 {
            world.write_somehow(lba * 2, 1);
        }
        world.net.nodes[0].listens = false;
        world.restart(0);
        for lba in 0..30 {
            world.write_somehow(lba * 2, 2);
        }
        world.take_over(1 + (seed % 2) as usize);
        world.net.nodes[0].listens = true;
        world.pass(Duration::from_secs(5));
        assert_eq!(world.multipath.in_work(), 0, "{:?}", world.notes);
        assert!(world.ended.iter().all(|ended| ended.status.is_success()));
        assert_eq!(world.ended.len(), 60);
        let path = world.connect(1 + (seed % 2) as usize);
        for lba in 0..30 {
            assert_eq!(world.read(path, lba * 2), Ok(2));
        }
    }
}

#[test]
fn a_volume_that_is_taken_away_from_its_owner_ends_and_can_come_again() {
    for seed in 20..26 {
        let mut world = World::new(seed);
        world.take_over(0);
        let path = world.connect(0);
        assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
        let now = world.net.now;
        let node = &mut world.net.nodes[0];
        assert!(node.shard.subsystem_remove(&mut node.mem, now, VOLUME_NQN, 3));
        assert!(node.shard.volume_remove(&VOLUME));
        world.pass(Duration::from_secs(5));
        assert_eq!(world.gone, 1);
        assert!(world.net.nodes[0].shard.volume_view(&VOLUME).is_none());
        assert!(!world.net.nodes[0].shard.volume_remove(&VOLUME));
        world.take_over(1);
        let path = world.connect(1);
        assert_eq!(world.read(path, 0), Ok(1));
    }
}

#[test]
fn owners_that_follow_each_other_before_one_serves_lock_nobody_out() {
    for seed in 30..50 {
        let mut world = World::new(seed);
        world.take_over(0);
        for round in 0..12 {
            world.owners += 1;
            let at = (seed as usize + round) % ENGINES;
            world.command(at, Command::TakeOver { owner: [world.owners; 16], force: false });
            for _ in 0..3 {
                world.net.some(12);
                for at in 0..ENGINES {
                    while let Some(told) = world.net.nodes[at].tells.pop_front() {
                        world.told(at, told.news);
                    }
                }
            }
        }
        world.take_over(1);
        let path = world.connect(1);
        assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
    }
}
