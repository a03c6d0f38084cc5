//! A disk in memory that can lose power, buffers that count, and a pool driven by both.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several tests")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;

use braid_block::{BlockSize, Class, Instant, IoError, Lease, LeaseId, Memory, Span};
use braid_pool::{
    Buffers, Command, Completion, Config, Create, Device, Done, Failure, Format, Handle, Image,
    Limits, Note, Pool, Request, State, Work, comparison_bytes, run_blocking,
};

/// Bytes of a block.
pub const BLOCK: u64 = 4096;
/// Bytes of a tiny pool.
pub const TINY: u64 = 16 << 20;

/// Buffers in vectors; panics on a lease that is not out.
#[derive(Debug, Default)]
pub struct Heap {
    buffers: Vec<(Vec<u8>, NonZeroU32, bool)>,
}

impl Heap {
    /// Buffers that were not given back.
    pub fn out(&self) -> usize {
        self.buffers.iter().filter(|(_, _, out)| *out).count()
    }

    fn at(&self, id: LeaseId) -> &Vec<u8> {
        let (bytes, generation, out) = &self.buffers[id.index as usize];
        assert!(*out && *generation == id.generation, "a lease that is not out");
        bytes
    }

    fn at_mut(&mut self, id: LeaseId) -> &mut Vec<u8> {
        let (bytes, generation, out) = &mut self.buffers[id.index as usize];
        assert!(*out && *generation == id.generation, "a lease that is not out");
        bytes
    }
}

impl Memory for Heap {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        let len = class.bytes() as usize;
        let free = self.buffers.iter().position(|(bytes, _, out)| !out && bytes.len() == len);
        let index = free.unwrap_or_else(|| {
            self.buffers.push((vec![0xa5; len], NonZeroU32::MIN, false));
            self.buffers.len() - 1
        });
        let (_, generation, out) = &mut self.buffers[index];
        *generation = generation.checked_add(1).unwrap();
        *out = true;
        Some(Lease::new(LeaseId { index: index as u32, generation: *generation }))
    }

    fn free(&mut self, lease: Lease) {
        self.at(lease.id());
        self.buffers[lease.id().index as usize].2 = false;
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        self.at(lease.id()).len() as u32
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        self.at(lease.id())
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        self.at_mut(lease.id())
    }

    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, range: Range<u32>) {
        let bytes = self.at(src.id())[range.start as usize..range.end as usize].to_vec();
        self.at_mut(dst.id())[dst_at as usize..][..bytes.len()].copy_from_slice(&bytes);
    }

    fn copy_crc(&mut self, dst: &Lease, at: u32, src: &Lease, range: Range<u32>, seed: u32) -> u32 {
        self.copy(dst, at, src, range.clone());
        self.crc(src, range, seed)
    }

    fn crc(&self, lease: &Lease, range: Range<u32>, seed: u32) -> u32 {
        let bytes = self.at(lease.id());
        Self::crc_bytes(&bytes[range.start as usize..range.end as usize], seed)
    }

    fn crc_bytes(bytes: &[u8], seed: u32) -> u32 {
        crc32c::crc32c_append(seed, bytes)
    }
}

impl Buffers for Heap {
    fn span(&self, span: Span) -> &[u8] {
        &self.at(span.lease)[span.offset as usize..][..span.len as usize]
    }

    fn span_mut(&mut self, span: Span) -> &mut [u8] {
        &mut self.at_mut(span.lease)[span.offset as usize..][..span.len as usize]
    }
}

/// A disk whose blocks are zeros until they are written, with a volatile cache.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub durable: BTreeMap<u64, Vec<u8>>,
    pub cached: BTreeMap<u64, Vec<u8>>,
    /// What a failed flush dropped: it is read, and no other flush makes it durable.
    pub dropped: BTreeMap<u64, Vec<u8>>,
    /// The next flush fails.
    pub drops: bool,
    pub writes: u64,
    pub syncs: u64,
    /// Writes after this many more fail.
    pub writes_left: Option<u64>,
    /// Blocks that cannot be read.
    pub bad: Vec<u64>,
    /// Bytes that cannot be written.
    pub failing: Option<Range<u64>>,
}

impl Disk {
    /// Power goes: what was not flushed is gone, but the blocks that `keep` keeps.
    pub fn cut(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.dropped.clear();
        for (block, bytes) in std::mem::take(&mut self.cached) {
            if keep(block) {
                self.durable.insert(block, bytes);
            }
        }
    }

    pub fn block(&self, block: u64) -> Option<&Vec<u8>> {
        let dropped = || self.dropped.get(&block);
        self.cached.get(&block).or_else(dropped).or_else(|| self.durable.get(&block))
    }

    /// Changes a byte on the media.
    pub fn damage(&mut self, at: u64) {
        let mut bytes = self.block(at / BLOCK).cloned().unwrap_or_else(|| vec![0; BLOCK as usize]);
        bytes[(at % BLOCK) as usize] ^= 0x55;
        self.cached.remove(&(at / BLOCK));
        self.dropped.remove(&(at / BLOCK));
        self.durable.insert(at / BLOCK, bytes);
    }
}

impl Image for Disk {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        assert!(offset.is_multiple_of(512) && bytes.len().is_multiple_of(512));
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (at % BLOCK) as usize;
            let len = rest.len().min(BLOCK as usize - within);
            let (part, next) = rest.split_at_mut(len);
            if self.bad.contains(&(at / BLOCK)) {
                return Err(IoError::Media);
            }
            match self.block(at / BLOCK) {
                Some(block) => part.copy_from_slice(&block[within..within + len]),
                None => part.fill(0),
            }
            at += len as u64;
            rest = next;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        if let Some(left) = self.writes_left.as_mut() {
            *left = left.checked_sub(1).ok_or(IoError::Device)?;
        }
        if self.failing.as_ref().is_some_and(|failing| failing.contains(&offset)) {
            return Err(IoError::Device);
        }
        self.writes += 1;
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (at % BLOCK) as usize;
            let len = rest.len().min(BLOCK as usize - within);
            let mut block =
                self.block(at / BLOCK).cloned().unwrap_or_else(|| vec![0; BLOCK as usize]);
            block[within..within + len].copy_from_slice(&rest[..len]);
            self.cached.insert(at / BLOCK, block);
            at += len as u64;
            rest = &rest[len..];
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), IoError> {
        if let Some(left) = self.writes_left.as_mut() {
            *left = left.checked_sub(1).ok_or(IoError::Device)?;
        }
        if std::mem::take(&mut self.drops) {
            self.dropped.append(&mut self.cached);
            return Err(IoError::Device);
        }
        self.syncs += 1;
        self.cached.keys().for_each(|block| drop(self.dropped.remove(block)));
        self.durable.append(&mut self.cached);
        Ok(())
    }
}

/// What the read of a block that is not filled with one byte tells.
pub const MIXED: u8 = 255;

/// A pool and its world.
pub struct World {
    pub mem: Heap,
    pub disk: Disk,
    pub pool: Pool,
    pub now: Instant,
    pub notes: Vec<Note>,
    pub ended: Vec<Completion>,
    pub tag: u64,
}

/// The identity of the pools of these tests.
pub const UUID: [u8; 16] = *b"braid test pool.";

pub fn config(seed: u64) -> Config {
    Config {
        token_base: 8,
        device: Device { bytes: TINY, sector: 512, discards: false },
        boot_id: [1; 16],
        owner: "a test".into(),
        seed,
        read_only: false,
        limits: Limits { requests_max: 64, ..Limits::default() },
        plant: None,
    }
}

impl World {
    /// A new pool, made and not opened.
    pub fn create(config: Config) -> Self {
        let format = Format::for_device(UUID, config.device.bytes);
        Self::around(Disk::default(), Pool::create(config, format))
    }

    /// A disk with a pool that is being opened.
    pub fn open(disk: Disk, config: Config) -> Self {
        Self::around(disk, Pool::open(config))
    }

    pub fn around_disk(disk: Disk, pool: Pool) -> Self {
        Self::around(disk, pool)
    }

    fn around(disk: Disk, pool: Pool) -> Self {
        let mut world = Self {
            mem: Heap::default(),
            disk,
            pool,
            now: Instant::ZERO,
            notes: Vec::new(),
            ended: Vec::new(),
            tag: 0,
        };
        world.run();
        world
    }

    /// A new pool, open, with the disk that `config` describes.
    pub fn fresh(config: &Config) -> Self {
        let made = Self::create(config.clone());
        assert_eq!(made.pool.state(), State::Stopped, "{:?}", made.notes);
        let world = Self::open(made.leave(), config.clone());
        assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
        world
    }

    pub fn run(&mut self) {
        let ended = &mut self.ended;
        run_blocking(&mut self.pool, &mut self.mem, &mut self.disk, self.now, |_, done| {
            ended.push(done);
        });
        while let Some(note) = self.pool.poll_note() {
            self.notes.push(note);
        }
    }

    /// Time passes, and the pool does what is due.
    pub fn idle(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = Instant::from_nanos(self.now.as_nanos() + 1_000_000_000);
            self.pool.handle(&mut self.mem, self.now, braid_pool::Event::Elapsed);
            self.run();
        }
    }

    /// Stops the pool, as far as it can be stopped.
    pub fn try_stop(&mut self) {
        self.pool.stop(&mut self.mem, self.now);
        self.run();
    }

    /// Stops the pool in order.
    pub fn stop(&mut self) {
        self.try_stop();
        assert_eq!(self.pool.state(), State::Stopped, "{:?}", self.notes);
    }

    /// Lets go of the pool, and checks that it held nothing back.
    pub fn leave(mut self) -> Disk {
        self.pool.drop_leases(&mut self.mem);
        for lease in self.ended.drain(..).filter_map(|done| done.lease) {
            self.mem.free(lease);
        }
        assert_eq!(self.mem.out(), 0, "every buffer was given back");
        self.disk
    }

    /// Power goes, and comes back.
    pub fn cut(self, keep: impl FnMut(u64) -> bool, config: Config) -> Self {
        let mut disk = self.leave();
        disk.cut(keep);
        Self::open(disk, config)
    }

    /// The process is killed, and another one opens the pool.
    pub fn kill(self, config: Config) -> Self {
        Self::open(self.leave(), config)
    }

    pub fn command(&mut self, command: Command) -> Result<Done, Failure> {
        self.tag += 1;
        self.pool.command(&mut self.mem, self.now, self.tag, command);
        self.run();
        self.take(self.tag).expect("the command ends").result
    }

    fn take(&mut self, tag: u64) -> Option<Completion> {
        let at = self.ended.iter().position(|done| done.tag == tag)?;
        Some(self.ended.remove(at))
    }

    pub fn replica(&mut self, n: u8, bytes: u64) -> Handle {
        let create = Create {
            uuid: [n; 16],
            name: format!("replica {n}"),
            bytes,
            block: BlockSize::B4096,
            thick: false,
            created: 1,
        };
        let done = self.command(Command::Create(Box::new(create))).expect("a replica");
        done.handle.expect("its handle")
    }

    pub fn request(&mut self, handle: Handle, work: Work, data: Option<&[u8]>) -> Completion {
        self.tag += 1;
        let len = match work {
            Work::Read { len, .. } | Work::Write { len, .. } => Some(len),
            Work::Compare { len, .. } => Some(comparison_bytes(len)),
            _ => None,
        };
        let lease = len.map(|len| self.mem.alloc(Class::holding(len).unwrap()).unwrap());
        if let (Some(lease), Some(data)) = (lease.as_ref(), data) {
            self.mem.bytes_mut(lease)[..data.len()].copy_from_slice(data);
        }
        let request = Request { tag: self.tag, handle, work, lease };
        self.pool.submit(&mut self.mem, self.now, request);
        self.run();
        self.take(self.tag).expect("the request ends")
    }

    pub fn write(&mut self, handle: Handle, block: u64, fill: u8) -> Result<Done, Failure> {
        self.write_many(handle, block, &[fill])
    }

    /// Writes blocks, each filled with one byte.
    pub fn write_many(&mut self, handle: Handle, block: u64, fill: &[u8]) -> Result<Done, Failure> {
        let data: Vec<u8> = fill.iter().flat_map(|byte| [*byte; BLOCK as usize]).collect();
        let work = Work::Write { offset: block * BLOCK, len: data.len() as u32, durable: false };
        let done = self.request(handle, work, Some(&data));
        done.lease.into_iter().for_each(|lease| self.mem.free(lease));
        done.result
    }

    pub fn zero(&mut self, handle: Handle, block: u64, count: u64) -> Result<Done, Failure> {
        let work = Work::Zero { offset: block * BLOCK, len: count * BLOCK, durable: false };
        self.request(handle, work, None).result
    }

    pub fn flush(&mut self, handle: Handle) {
        self.try_flush(handle).expect("a flush");
    }

    pub fn try_flush(&mut self, handle: Handle) -> Result<Done, Failure> {
        self.request(handle, Work::Flush { number: None }, None).result
    }

    pub fn snapshot(&mut self, replica: u8, n: u8) -> Result<Done, Failure> {
        self.command(Command::Snapshot {
            replica: [replica; 16],
            uuid: [n; 16],
            name: format!("snapshot {n}"),
            created: 2,
        })
    }

    pub fn clone_of(&mut self, snapshot: u8, n: u8) -> Result<Done, Failure> {
        self.command(Command::Clone {
            snapshot: [snapshot; 16],
            uuid: [n; 16],
            name: format!("clone {n}"),
            created: 3,
        })
    }

    /// Hands a write in, and does not wait for it.
    pub fn submit_write(&mut self, handle: Handle, block: u64, fill: u8) {
        self.tag += 1;
        let lease = self.mem.alloc(Class::Small).unwrap();
        self.mem.bytes_mut(&lease).fill(fill);
        let work = Work::Write { offset: block * BLOCK, len: BLOCK as u32, durable: false };
        let request = Request { tag: self.tag, handle, work, lease: Some(lease) };
        self.pool.submit(&mut self.mem, self.now, request);
    }

    pub fn delete_snapshot(&mut self, n: u8) -> Result<Done, Failure> {
        self.command(Command::DeleteSnapshot { uuid: [n; 16] })
    }

    /// The byte that a block is filled with.
    pub fn read(&mut self, handle: Handle, block: u64) -> Result<u8, Failure> {
        let work = Work::Read { offset: block * BLOCK, len: BLOCK as u32 };
        let done = self.request(handle, work, None);
        let lease = done.lease.expect("the buffer comes back");
        let bytes = self.mem.bytes(&lease)[..BLOCK as usize].to_vec();
        self.mem.free(lease);
        done.result?;
        if bytes.iter().any(|byte| *byte != bytes[0]) {
            return Ok(MIXED);
        }
        Ok(bytes[0])
    }

    pub fn handle(&self, n: u8) -> Handle {
        self.pool.find(&[n; 16]).expect("a replica")
    }
}
