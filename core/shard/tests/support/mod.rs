//! A world in memory around one shard: sockets, disks and a clock that do as they are told.
#![allow(dead_code, reason = "each test file uses its own part of the world")]
#![allow(unreachable_pub, reason = "a module of tests, shared by their files")]

pub mod peer;
pub mod pool;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use braid_block::{
    BlockSize, Class, Geometry, Instant, IoError, Lease, LeaseId, Memory, Span, Token,
};
use braid_nvme::target::{ControllerModel, Portal};
use braid_shard::{
    BackendConfig, Config, Disk, Effect, Event, Limits, Mail, NamespaceConfig, Note, Paths, Shard,
    Socket, SubsystemConfig,
};

pub const NQN: &str = "nqn.2026-01.io.braid:test";
pub const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:6e6f7468-696e-6720-746f-207365652121";

/// An arena of vectors that counts.
#[derive(Default)]
pub struct TestMemory {
    pub buffers: Vec<(u32, Option<Vec<u8>>)>,
    pub limit: u64,
    pub out: u64,
    pub copies: u64,
    pub crc_passes: std::cell::Cell<u64>,
}

impl TestMemory {
    fn buffer(&self, id: LeaseId) -> &Vec<u8> {
        let (generation, buffer) = &self.buffers[id.index as usize];
        assert_eq!(*generation, id.generation.get(), "a stale lease");
        buffer.as_ref().expect("a lease that was given back")
    }

    fn buffer_mut(&mut self, id: LeaseId) -> &mut Vec<u8> {
        let (generation, buffer) = &mut self.buffers[id.index as usize];
        assert_eq!(*generation, id.generation.get(), "a stale lease");
        buffer.as_mut().expect("a lease that was given back")
    }

    pub fn span(&self, span: Span) -> &[u8] {
        &self.buffer(span.lease)[span.offset as usize..][..span.len as usize]
    }

    pub fn span_mut(&mut self, span: Span) -> &mut [u8] {
        &mut self.buffer_mut(span.lease)[span.offset as usize..][..span.len as usize]
    }

    pub fn leases(&self) -> usize {
        self.buffers.iter().filter(|(_, buffer)| buffer.is_some()).count()
    }
}

impl Memory for TestMemory {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        let bytes = u64::from(class.bytes());
        if self.out + bytes > self.limit {
            return None;
        }
        self.out += bytes;
        let index = match self.buffers.iter().position(|(_, buffer)| buffer.is_none()) {
            Some(index) => index,
            None => {
                self.buffers.push((0, None));
                self.buffers.len() - 1
            }
        };
        let (generation, buffer) = &mut self.buffers[index];
        *generation += 1;
        *buffer = Some(vec![0xa5; class.bytes() as usize]);
        let generation = NonZeroU32::new(*generation).unwrap();
        Some(Lease::new(LeaseId { index: index as u32, generation }))
    }

    fn free(&mut self, lease: Lease) {
        self.out -= self.buffer(lease.id()).len() as u64;
        self.buffers[lease.id().index as usize].1 = None;
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        self.buffer(lease.id()).len() as u32
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        self.buffer(lease.id())
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        self.buffer_mut(lease.id())
    }

    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, src_range: Range<u32>) {
        self.copies += 1;
        let bytes =
            self.buffer(src.id())[src_range.start as usize..src_range.end as usize].to_vec();
        self.buffer_mut(dst.id())[dst_at as usize..][..bytes.len()].copy_from_slice(&bytes);
    }

    fn copy_crc(
        &mut self,
        dst: &Lease,
        dst_at: u32,
        src: &Lease,
        src_range: Range<u32>,
        seed: u32,
    ) -> u32 {
        self.copy(dst, dst_at, src, src_range.clone());
        self.crc(src, src_range, seed)
    }

    fn crc(&self, lease: &Lease, range: Range<u32>, seed: u32) -> u32 {
        self.crc_passes.set(self.crc_passes.get() + 1);
        Self::crc_bytes(&self.bytes(lease)[range.start as usize..range.end as usize], seed)
    }

    fn crc_bytes(bytes: &[u8], seed: u32) -> u32 {
        crc32c::crc32c_append(seed, bytes)
    }
}

/// One stream, as the kernel would hold it.
#[derive(Default)]
pub struct Stream {
    to_shard: VecDeque<u8>,
    /// The peer closed its end.
    pub ended: bool,
    /// What the shard sent.
    pub from_shard: Vec<u8>,
    pub shut: bool,
    pub closed: bool,
    /// Whether sends complete; a peer that reads nothing makes them hang.
    pub stalled: bool,
    receive: Option<Pending>,
    send: Option<(Token, Vec<u8>)>,
    stopping: bool,
}

enum Pending {
    Exact { token: Token, span: Span },
    Stream { token: Token },
}

/// Counts of what the shard asked for.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub sends: u64,
    pub reads: u64,
    pub writes: u64,
    pub syncs: u64,
    pub zeroes: u64,
    pub discards: u64,
}

/// A shard and everything around it.
pub struct World {
    pub shard: Shard,
    pub mem: TestMemory,
    pub now: Instant,
    /// What the pool's disk was asked for and does not answer.
    hanging: Vec<Effect>,
    pub streams: BTreeMap<u32, Stream>,
    pub disk: Vec<u8>,
    /// What the disk holds for sure: copied from `disk` at each sync.
    pub durable: Vec<u8>,
    /// Disk 1, for a pool.
    pub pool_disk: pool::PoolDisk,
    pub notes: Vec<Note>,
    pub counts: Counts,
    /// Device operations that were asked for and are not done.
    pub pending_disk: VecDeque<(Token, Result<u32, IoError>)>,
    /// Whether device operations complete at once.
    pub disk_runs: bool,
    /// The next device operation fails so.
    pub disk_error: Option<IoError>,
    /// Whether ranges can be zeroed.
    pub zero_supported: bool,
    /// Largest piece that a stream delivers.
    pub piece_bytes: usize,
    /// Letters to other shards, if there are to be any.
    pub mail: Vec<Mail>,
    pub keep_mail: bool,
    /// The address that new connections reach a wildcard listener at.
    pub local: Option<std::net::SocketAddr>,
    /// The listener that new connections come by.
    pub listener: u16,
    next_socket: u32,
}

/// A configuration with one subsystem: namespace 1 in memory, 2 on the disk, 3 on the disk with
/// blocks of 512 bytes.
pub fn config() -> Config {
    let namespace = |nsid: u32, block, backend| NamespaceConfig {
        nsid,
        ana_group: 1,
        nguid: [nsid as u8; 16],
        uuid: [nsid as u8 + 100; 16],
        geometry: Geometry::of_bytes(DISK_BYTES, block),
        backend,
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    let disk = BackendConfig::Disk { disk: Disk(0), discards: true, atomic_blocks: 1 };
    Config {
        shard: 0,
        shards: 1,
        subsystems: vec![SubsystemConfig {
            home: 0,
            nqn: NQN.into(),
            serial: "0123456789".into(),
            allowed_hosts: Vec::new(),
            controllers: ControllerModel::Dynamic,
            paths: Paths::default(),
            header_digest: true,
            data_digest: true,
            namespaces: vec![
                namespace(1, BlockSize::B4096, BackendConfig::Memory),
                namespace(2, BlockSize::B4096, disk),
                namespace(3, BlockSize::B512, disk),
            ],
        }],
        portals: vec![Portal { id: 1, address: "127.0.0.1:4420".parse().unwrap() }],
        limits: Limits { connections_max: 64, ops_max: 512, ..Limits::default() },
    }
}

pub const DISK_BYTES: u64 = 4 << 20;

impl World {
    pub fn new(config: Config) -> Self {
        let limit = config.limits.arena_bytes;
        let mut world = Self {
            shard: Shard::new(config),
            hanging: Vec::new(),
            mem: TestMemory { limit, ..TestMemory::default() },
            now: Instant::from_nanos(1_000_000_000),
            streams: BTreeMap::new(),
            disk: vec![0; DISK_BYTES as usize],
            durable: vec![0; DISK_BYTES as usize],
            pool_disk: pool::PoolDisk::default(),
            notes: Vec::new(),
            counts: Counts::default(),
            pending_disk: VecDeque::new(),
            disk_runs: true,
            disk_error: None,
            zero_supported: true,
            piece_bytes: usize::MAX,
            mail: Vec::new(),
            keep_mail: false,
            local: None,
            listener: 0,
            next_socket: 0,
        };
        world.event(Event::Start { boot_id: [0; 16], seed: 1 });
        world
    }

    pub fn event(&mut self, event: Event) {
        self.shard.handle(&mut self.mem, self.now, event);
    }

    /// A peer connects.
    pub fn connect(&mut self) -> u32 {
        let socket = self.next_socket;
        self.next_socket += 1;
        self.streams.insert(socket, Stream::default());
        let local = self.local.map(Box::new);
        let listener = self.listener;
        self.event(Event::Accepted { listener, socket: Socket(socket), local });
        self.run();
        socket
    }

    /// The peer sends.
    pub fn send(&mut self, socket: u32, bytes: &[u8]) {
        self.stream(socket).to_shard.extend(bytes);
        self.run();
    }

    /// The peer closes its end.
    pub fn end(&mut self, socket: u32) {
        self.stream(socket).ended = true;
        self.run();
    }

    pub fn stream(&mut self, socket: u32) -> &mut Stream {
        self.streams.get_mut(&socket).expect("a socket")
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.shard.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.event(Event::Elapsed);
            self.run();
        }
        self.now = until;
    }

    /// Runs turns until nothing is left to do.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            self.shard.end_turn(&mut self.mem, self.now);
            while let Some(effect) = self.shard.poll_effect() {
                self.carry_out(effect);
            }
            if !self.deliver() && !self.shard.has_work() {
                return;
            }
        }
        panic!("the shard never comes to rest");
    }

    fn carry_out(&mut self, effect: Effect) {
        let Some(effect) = self.on_pool_disk(effect) else { return };
        match effect {
            Effect::ReceiveExact { token, socket, span } => {
                self.stream(socket.0).receive = Some(Pending::Exact { token, span });
            }
            Effect::ReceiveStream { token, socket, .. } => {
                self.stream(socket.0).receive = Some(Pending::Stream { token });
            }
            Effect::ReceiveStop { socket } => self.stream(socket.0).stopping = true,
            Effect::Send { token, socket, batch } => {
                self.counts.sends += 1;
                let spans = self.shard.batch(batch);
                assert!(!spans.is_empty() && spans.len() <= 64);
                let bytes = spans.iter().flat_map(|span| self.mem.span(*span)).copied().collect();
                self.stream(socket.0).send = Some((token, bytes));
            }
            Effect::Connect { .. } => unreachable!("this shard is no host"),
            Effect::Shutdown { socket } => self.stream(socket.0).shut = true,
            Effect::Close { socket } => self.stream(socket.0).closed = true,
            Effect::Read { token, span, offset, .. } => {
                self.counts.reads += 1;
                let at = offset as usize..offset as usize + span.len as usize;
                let result = self.disk_result(span.len);
                if result.is_ok() {
                    self.mem.span_mut(span).copy_from_slice(&self.disk[at]);
                }
                self.pending_disk.push_back((token, result));
            }
            Effect::Write { token, span, offset, durable, .. } => {
                self.counts.writes += 1;
                let at = offset as usize..offset as usize + span.len as usize;
                let result = self.disk_result(span.len);
                if result.is_ok() {
                    self.disk[at.clone()].copy_from_slice(self.mem.span(span));
                    if durable {
                        self.durable[at.clone()].copy_from_slice(&self.disk[at]);
                    }
                }
                self.pending_disk.push_back((token, result));
            }
            Effect::Zero { token, offset, len, .. } => {
                self.counts.zeroes += 1;
                let result = if self.zero_supported {
                    self.disk[offset as usize..(offset + len) as usize].fill(0);
                    self.disk_result(0)
                } else {
                    Err(IoError::Unsupported)
                };
                self.pending_disk.push_back((token, result));
            }
            Effect::Discard { token, offset, len, .. } => {
                self.counts.discards += 1;
                self.disk[offset as usize..(offset + len) as usize].fill(0);
                let result = self.disk_result(0);
                self.pending_disk.push_back((token, result));
            }
            Effect::Sync { token, .. } => {
                self.counts.syncs += 1;
                let result = self.disk_result(0);
                if result.is_ok() {
                    self.durable.copy_from_slice(&self.disk);
                }
                self.pending_disk.push_back((token, result));
            }
            Effect::Mail { mail, .. } => {
                assert!(self.keep_mail, "there is one shard");
                self.mail.push(*mail);
            }
            Effect::Note(note) => self.notes.push(note),
        }
    }

    fn disk_result(&mut self, len: u32) -> Result<u32, IoError> {
        self.disk_error.take().map_or(Ok(len), Err)
    }

    /// Lets the world do one round of what was asked of it; false if there was nothing.
    fn deliver(&mut self) -> bool {
        let mut events = Vec::new();
        if self.disk_runs {
            let done = self.pending_disk.drain(..);
            events.extend(done.map(|(token, result)| Event::Done { token, result }));
        }
        for stream in self.streams.values_mut() {
            stream.deliver(&mut self.mem, self.piece_bytes, &mut events);
        }
        let any = !events.is_empty();
        for event in events {
            self.event(event);
        }
        any
    }
}

impl Stream {
    fn deliver(&mut self, mem: &mut TestMemory, piece_bytes: usize, events: &mut Vec<Event>) {
        if self.closed {
            let cancelled = Err(IoError::Cancelled);
            if let Some((token, _)) = self.send.take() {
                events.push(Event::Done { token, result: cancelled });
            }
            if let Some(Pending::Exact { token, .. } | Pending::Stream { token }) =
                self.receive.take()
            {
                events.push(Event::Done { token, result: cancelled });
            }
            return;
        }
        if !self.stalled
            && let Some((token, bytes)) = self.send.take()
        {
            self.from_shard.extend(&bytes);
            events.push(Event::Done { token, result: Ok(bytes.len() as u32) });
        }
        self.deliver_input(mem, piece_bytes, events);
    }

    fn deliver_input(&mut self, mem: &mut TestMemory, piece_bytes: usize, events: &mut Vec<Event>) {
        match self.receive.take() {
            Some(Pending::Exact { token, span }) => {
                let len = span.len as usize;
                if self.to_shard.len() < len && !self.ended {
                    self.receive = Some(Pending::Exact { token, span });
                    return;
                }
                let bytes: Vec<u8> = self.to_shard.drain(..len.min(self.to_shard.len())).collect();
                mem.span_mut(Span { len: bytes.len() as u32, ..span }).copy_from_slice(&bytes);
                events.push(Event::Done { token, result: Ok(bytes.len() as u32) });
            }
            Some(Pending::Stream { token }) if self.stopping => {
                self.stopping = false;
                events.push(Event::Done { token, result: Err(IoError::Cancelled) });
            }
            Some(Pending::Stream { token }) if !self.to_shard.is_empty() => {
                self.receive = Some(Pending::Stream { token });
                let Some(lease) = mem.alloc(Class::Medium) else { return };
                let len = self.to_shard.len().min(piece_bytes).min(16 << 10);
                let bytes: Vec<u8> = self.to_shard.drain(..len).collect();
                mem.bytes_mut(&lease)[..len].copy_from_slice(&bytes);
                events.push(Event::Received { token, lease, len: len as u32 });
            }
            Some(Pending::Stream { token }) if self.ended => {
                events.push(Event::Done { token, result: Ok(0) });
            }
            other => self.receive = other,
        }
    }
}
