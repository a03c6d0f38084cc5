//! Three engines with a replica each, and a host: shards, pools, guards, nexuses and NVMe/TCP as
//! they ship, with a store and a planner that are the test's.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_block::{BlockSize, Class, Geometry, Key};
use braid_nexus::record::{Record, Replica, Standing, Uuid};
use braid_nexus::{Command, Limits as VolumeLimits, Swapped, Timing};
use braid_nvme::Status;
use braid_nvme::ana::AnaState;
use braid_nvme::connect::Nqn;
use braid_nvme::host::{Completed, Ended, Event, Multipath, Operation, Policy, Submission};
use braid_nvme::pdu::Digests;
use braid_pool::{Create, Device, Format};
use braid_shard::{
    BackendConfig, Disk, HostConfig, NamespaceConfig, News, Note, Paths, PoolId, Question,
    SubsystemConfig, VolumeConfig, member_nqn,
};

use crate::net::Net;
use crate::setup::{host, nobody, target};

pub(crate) const VOLUME: Uuid = [0xaa; 16];
pub(crate) const VOLUME_NQN: &str = "nqn.2026-01.io.braid:volume";
pub(crate) const POOL: PoolId = PoolId(1);
pub(crate) const POOL_BYTES: u64 = 24 << 20;
pub(crate) const BYTES: u64 = 4 << 20;
pub(crate) const ENGINES: usize = 3;
/// The node that is a host.
pub(crate) const HOST: usize = ENGINES;

pub(crate) const fn replica(engine: usize) -> Uuid {
    [engine as u8 + 1; 16]
}

pub(crate) fn namespace(uuid: Uuid, block: BlockSize, backend: BackendConfig) -> NamespaceConfig {
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

pub(crate) fn subsystem(nqn: &str, paths: Paths, namespace: NamespaceConfig) -> SubsystemConfig {
    SubsystemConfig {
        nqn: nqn.into(),
        namespaces: vec![namespace],
        paths,
        ..target().subsystems.remove(0)
    }
}

/// Three engines, a host, and a store with the volume's record.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) record: Record,
    pub(crate) owners: u8,
    pub(crate) orders: Vec<(usize, braid_nexus::Ended)>,
    pub(crate) notes: Vec<(usize, braid_nexus::Note)>,
    /// What the host has read and written, by cookie.
    pub(crate) done: BTreeMap<u64, Completed>,
    /// The store does not answer.
    pub(crate) silent: bool,
    /// The host's paths by the engines, once it has them.
    pub(crate) paths: Vec<Key>,
    pub(crate) multipath: Multipath,
    pub(crate) ended: Vec<Ended>,
    /// Volumes that were left.
    pub(crate) gone: u32,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
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

    pub(crate) fn make_pool(&mut self, at: usize) {
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

    pub(crate) fn open_pool(&mut self, at: usize) {
        self.open_pool_as(at, pool());
    }

    fn open_pool_as(&mut self, at: usize, config: braid_pool::Config) {
        let now = self.net.now;
        let node = &mut self.net.nodes[at];
        assert!(node.shard.pool_open(&mut node.mem, now, POOL, Disk(0), config));
        self.run();
        let pool = self.net.nodes[at].shard.pool(POOL).unwrap();
        assert_eq!(pool.state(), braid_pool::State::Open);
    }

    /// An engine serves its replica to nexuses, and the volume to hosts.
    pub(crate) fn serve(&mut self, at: usize) {
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
    pub(crate) fn restart(&mut self, at: usize) {
        let disk = std::mem::take(&mut self.net.nodes[at].disk);
        let config = braid_shard::Config { portals: target().portals, ..nobody() };
        self.net.restart(at, config);
        self.net.nodes[at].disk = disk;
        self.open_pool(at);
        self.serve(at);
    }

    /// An engine closes its pool in order, and opens it again: nothing of it is in memory then.
    pub(crate) fn reopen(&mut self, at: usize) {
        self.reopen_as(at, pool());
    }

    /// As that, with another configuration.
    pub(crate) fn reopen_as(&mut self, at: usize, config: braid_pool::Config) {
        let now = self.net.now;
        let node = &mut self.net.nodes[at];
        node.notes.clear();
        node.shard.pool_close(&mut node.mem, now, POOL);
        self.run();
        let closed = |note: &Note| matches!(note, Note::PoolClosed { clean: true, .. });
        assert!(self.net.nodes[at].notes.iter().any(closed));
        self.open_pool_as(at, config);
    }

    /// Runs until nothing is left to do now; the store answers at once.
    pub(crate) fn run(&mut self) {
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

    pub(crate) fn told(&mut self, at: usize, news: News) {
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

    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.net.now + time;
        while self.net.now < until {
            self.run();
            self.net.pass(Duration::from_millis(20));
        }
        self.run();
    }

    pub(crate) fn command(&mut self, at: usize, command: Command) {
        let now = self.net.now;
        assert!(self.net.nodes[at].shard.volume_command(now, &VOLUME, 7, command));
    }

    /// Appoints an engine, and waits until it serves.
    pub(crate) fn take_over(&mut self, at: usize) {
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

    pub(crate) fn view(&self, at: usize) -> braid_nexus::View {
        self.net.nodes[at].shard.volume_view(&VOLUME).unwrap()
    }

    pub(crate) fn members(&self) -> u32 {
        self.record.members().count_ones()
    }

    /// Waits until all replicas are members.
    pub(crate) fn whole(&mut self) {
        for _ in 0..1000 {
            if self.members() == ENGINES as u32 {
                return;
            }
            self.pass(Duration::from_millis(50));
        }
        panic!("{:?} {:?}", self.record, self.notes);
    }

    pub(crate) fn give_back(&mut self, at: usize, replica: Uuid) {
        self.command(at, Command::Return { replica });
    }

    /// The host connects to every engine, and uses them as paths to one namespace.
    pub(crate) fn connect_all(&mut self) {
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
    pub(crate) fn send(&mut self) -> bool {
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
    pub(crate) fn write_somehow(&mut self, lba: u64, byte: u8) {
        let operation = Operation::Write { lba, blocks: 2, durable: false };
        let lease = Some(self.net.nodes[HOST].mem.filled(&[byte; 8192]));
        let submission = Submission { operation, nsid: 1, lease, len: 8192, cookie: lba, queue: 0 };
        self.multipath.submit(self.net.now, submission).unwrap();
        self.run();
    }

    pub(crate) fn connect(&mut self, at: usize) -> Key {
        self.connect_with(at, false)
    }

    /// The same, with a digest over data or without.
    pub(crate) fn connect_with(&mut self, at: usize, digest: bool) -> Key {
        let mut config = HostConfig { address: at as u32, ..host(VOLUME_NQN) };
        config.controller.digests = Digests { header: digest, data: digest };
        let key = self.net.nodes[HOST].shard.host_open(self.net.now, config).unwrap();
        self.run();
        key
    }

    pub(crate) fn submit(
        &mut self,
        path: Key,
        operation: Operation,
        bytes: &[u8],
        len: u32,
        cookie: u64,
    ) {
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
    pub(crate) fn one(&mut self, path: Key, operation: Operation, bytes: &[u8], len: u32) -> Done {
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

    pub(crate) fn finish(&mut self, completed: Completed, len: u32) -> Done {
        let mem = &mut self.net.nodes[HOST].mem;
        let bytes = completed.lease.map_or_else(Vec::new, |lease| {
            let bytes = braid_block::Memory::bytes(mem, &lease)[..len as usize].to_vec();
            braid_block::Memory::free(mem, lease);
            bytes
        });
        (completed.status, bytes)
    }

    pub(crate) fn write(&mut self, path: Key, lba: u64, byte: u8) -> Status {
        let operation = Operation::Write { lba, blocks: 2, durable: false };
        self.one(path, operation, &[byte; 8192], 8192).0
    }

    pub(crate) fn read(&mut self, path: Key, lba: u64) -> Result<u8, Status> {
        let (status, bytes) = self.one(path, Operation::Read { lba, blocks: 2 }, &[], 8192);
        if !status.is_success() {
            return Err(status);
        }
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "one value");
        Ok(bytes[0])
    }
}

pub(crate) type Done = (Status, Vec<u8>);

pub(crate) fn class(len: u32) -> Class {
    Class::holding(len).unwrap()
}

pub(crate) fn pool() -> braid_pool::Config {
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
