//! A pool on a disk whose operations end when and how a test says.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{BlockSize, Class, Instant, IoError, Memory, Token};

use crate::arena::Arena;
use crate::{
    Command, Completion, Config, Create, Device, Effect, Event, Format, Handle, Limits, Note, Pool,
    Request, State, Work, token,
};

/// First of the pool's token kinds.
const BASE: u8 = 8;
/// Bytes of the device.
const BYTES: u64 = 64 << 20;

/// A pool, its disk, and what it asked for.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) pool: Pool,
    pub(crate) mem: Arena,
    pub(crate) blocks: BTreeMap<u64, Vec<u8>>,
    pub(crate) now: Instant,
    /// In flight, in the order in which it was asked for.
    pub(crate) effects: Vec<Effect>,
    pub(crate) ended: Vec<Completion>,
    /// First byte and bytes of what was read.
    pub(crate) reads: Vec<(u64, u32)>,
    pub(crate) notes: Vec<Note>,
    /// Blocks of the disk that cannot be read until they are written.
    pub(crate) bad: BTreeSet<u64>,
}

pub(crate) fn config() -> Config {
    Config {
        token_base: BASE,
        device: Device { bytes: BYTES, sector: 512, discards: false },
        boot_id: [1; 16],
        owner: String::from("a test"),
        seed: 1,
        read_only: false,
        limits: Limits { requests_max: 64, delta_max: 1000, ..Limits::default() },
        plant: None,
    }
}

impl Rig {
    /// A new pool with a replica of 4 GiB.
    pub(crate) fn new() -> (Self, Handle) {
        let format = Format::for_device([7; 16], BYTES);
        let mut made = Self::around(Pool::create(config(), format), BTreeMap::new());
        made.run();
        assert_eq!(made.pool.state(), State::Stopped);
        let mut rig = Self::around(Pool::open(config()), made.blocks);
        rig.run();
        assert_eq!(rig.pool.state(), State::Open, "{:?}", rig.notes);
        let handle = rig.create();
        rig.notes.clear();
        (rig, handle)
    }

    /// Makes a replica of 4 GiB.
    pub(crate) fn create(&mut self) -> Handle {
        let create = Create {
            uuid: [1; 16],
            name: String::from("one"),
            bytes: 4 << 30,
            block: BlockSize::B4096,
            thick: false,
            created: 1,
        };
        self.pool.command(&mut self.mem, self.now, 1, Command::Create(create.into()));
        self.run();
        self.pool.find(&[1; 16]).expect("a replica")
    }

    /// Makes a replica of 1 MiB in blocks of 512 bytes, of which some blocks of 4 KiB are filled.
    pub(crate) fn create_fine(&mut self, blocks: &[u64], fill: u8) -> Handle {
        let create = Create {
            uuid: [2; 16],
            name: String::from("two"),
            bytes: 1 << 20,
            block: BlockSize::B512,
            thick: false,
            created: 2,
        };
        self.pool.command(&mut self.mem, self.now, 1, Command::Create(create.into()));
        self.run();
        let handle = self.pool.find(&[2; 16]).expect("a replica");
        for block in blocks {
            self.write(handle, *block, fill);
            self.run();
        }
        self.take_ended();
        handle
    }

    /// A new pool of the same identity on a disk that has one, with nothing in it.
    pub(crate) fn made_anew(self, seed: u64) -> Self {
        let config = Config { seed, ..config() };
        let format = Format::for_device([7; 16], BYTES);
        let mut made = Self::around(Pool::create(config, format), self.blocks);
        made.run();
        made.reopen()
    }

    fn around(pool: Pool, blocks: BTreeMap<u64, Vec<u8>>) -> Self {
        Self {
            pool,
            mem: Arena::default(),
            blocks,
            now: Instant::ZERO,
            effects: Vec::new(),
            ended: Vec::new(),
            reads: Vec::new(),
            notes: Vec::new(),
            bad: BTreeSet::new(),
        }
    }

    /// Ends a turn, and takes what came of it.
    pub(crate) fn turn(&mut self) {
        for _ in 0..1000 {
            self.pool.end_turn(&mut self.mem, self.now);
            self.effects.extend(core::iter::from_fn(|| self.pool.poll_effect()));
            self.ended.extend(core::iter::from_fn(|| self.pool.poll_completion()));
            self.notes.extend(core::iter::from_fn(|| self.pool.poll_note()));
            if !self.pool.has_work() {
                return;
            }
        }
        panic!("work without end");
    }

    /// The block of the disk that is filled with this byte.
    pub(crate) fn place_of(&self, fill: u8) -> u64 {
        let is_it = |(_, bytes): &(&u64, &Vec<u8>)| bytes.iter().all(|byte| *byte == fill);
        *self.blocks.iter().find(is_it).expect("it was written").0
    }

    /// Carries out an operation that is in flight, and tells the pool.
    pub(crate) fn finish(&mut self, at: usize) {
        self.land(at);
        self.turn();
    }

    /// The same, in a turn that goes on.
    pub(crate) fn land(&mut self, at: usize) {
        let effect = self.effects.remove(at);
        let mut bad = false;
        let (token, bytes) = match effect {
            Effect::Read { token, span, offset } => {
                let end = (offset + u64::from(span.len)).div_ceil(4096);
                bad = self.bad.range(offset / 4096..end).next().is_some();
                self.reads.push((offset, span.len));
                let bytes = self.mem.span_mut(span);
                for (block, part) in (offset / 4096..).zip(bytes.chunks_mut(4096)) {
                    match self.blocks.get(&block) {
                        Some(found) => part.copy_from_slice(&found[..part.len()]),
                        None => part.fill(0),
                    }
                }
                (token, span.len)
            }
            Effect::Write { token, span, offset } => {
                let bytes = self.mem.span_mut(span).to_vec();
                for (sector, part) in (offset / 512..).zip(bytes.chunks(512)) {
                    self.bad.remove(&(sector / 8));
                    let block = self.blocks.entry(sector / 8).or_insert_with(|| vec![0; 4096]);
                    let at = sector as usize % 8 * 512;
                    block[at..at + part.len()].copy_from_slice(part);
                }
                (token, span.len)
            }
            Effect::Sync { token } => (token, 0),
            Effect::Discard { token, offset, len } => {
                // What is there afterwards nobody may rely on.
                for block in offset / 4096..(offset + len) / 4096 {
                    self.blocks.entry(block).and_modify(|bytes| bytes.fill(0xdd));
                }
                (token, 0)
            }
        };
        let result = if bad { Err(IoError::Media) } else { Ok(bytes) };
        let event = Event::Done { token, result };
        self.pool.handle(&mut self.mem, self.now, event);
    }

    /// Lets a read or write that is in flight end short: part of it is not done.
    pub(crate) fn cut_short(&mut self, at: usize) {
        let (token, len) = match self.effects.remove(at) {
            Effect::Read { token, span, .. } | Effect::Write { token, span, .. } => {
                (token, span.len)
            }
            other => panic!("{other:?} has no length"),
        };
        self.tell(token, Ok(len - 512));
    }

    /// Lets an operation that is in flight fail.
    pub(crate) fn fail(&mut self, at: usize, error: IoError) {
        let token = token_of(&self.effects.remove(at));
        self.tell(token, Err(error));
    }

    fn tell(&mut self, token: Token, result: Result<u32, IoError>) {
        self.pool.handle(&mut self.mem, self.now, Event::Done { token, result });
        self.turn();
    }

    /// Carries everything out until nothing is in flight.
    pub(crate) fn run(&mut self) {
        self.turn();
        while !self.effects.is_empty() {
            self.finish(0);
        }
    }

    /// Carries everything out, in an order that depends on a number.
    pub(crate) fn run_shuffled(&mut self, mut seed: u64) {
        self.turn();
        while !self.effects.is_empty() {
            seed = crate::hash::mix(seed, 5);
            let at = usize::try_from(seed % self.effects.len() as u64).expect("few");
            self.finish(at);
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.pool.handle(&mut self.mem, self.now, Event::Elapsed);
    }

    /// Submits a write of a block that is filled with one byte.
    pub(crate) fn write(&mut self, handle: Handle, block: u64, fill: u8) {
        let lease = self.mem.alloc(Class::Small).expect("a buffer");
        self.mem.bytes_mut(&lease).fill(fill);
        let work = Work::Write { offset: block * 4096, len: 4096, durable: false };
        self.submit(handle, work, Some(lease));
    }

    /// Submits a read of a block.
    pub(crate) fn read(&mut self, handle: Handle, block: u64) {
        let lease = self.mem.alloc(Class::Small).expect("a buffer");
        self.submit(handle, Work::Read { offset: block * 4096, len: 4096 }, Some(lease));
    }

    /// Submits a request without a buffer.
    pub(crate) fn ask(&mut self, handle: Handle, work: Work) {
        self.submit(handle, work, None);
    }

    /// Submits a request with a buffer.
    pub(crate) fn ask_with(&mut self, handle: Handle, work: Work, lease: braid_block::Lease) {
        self.submit(handle, work, Some(lease));
    }

    fn submit(&mut self, handle: Handle, work: Work, lease: Option<braid_block::Lease>) {
        let request = Request { tag: 9, handle, work, lease };
        self.pool.submit(&mut self.mem, self.now, request);
        self.turn();
    }

    /// What ended: of reads the byte that the buffer is filled with.
    pub(crate) fn take_ended(&mut self) -> Vec<Result<u8, crate::Failure>> {
        let mut results = Vec::new();
        for Completion { lease, result, .. } in self.ended.drain(..) {
            let byte = lease.as_ref().map_or(0, |lease| self.mem.bytes(lease)[0]);
            lease.into_iter().for_each(|lease| self.mem.free(lease));
            results.push(result.map(|_| byte));
        }
        results
    }

    /// Positions of what is in flight of a kind, one of those in `token`.
    pub(crate) fn flying(&self, kind: u8) -> Vec<usize> {
        let is = |effect: &Effect| token_of(effect).kind() == BASE + kind;
        (0..self.effects.len()).filter(|at| is(&self.effects[*at])).collect()
    }

    /// Carries everything out until a page of a checkpoint is to be written.
    pub(crate) fn run_to_checkpoint(&mut self) {
        self.turn();
        while let Some(at) = (0..self.effects.len())
            .find(|at| token_of(&self.effects[*at]).kind() != BASE + token::CHECKPOINT)
        {
            if !self.flying(token::CHECKPOINT).is_empty() {
                return;
            }
            self.finish(at);
        }
    }

    /// Lets go of all caches.
    pub(crate) fn let_go(&mut self) {
        self.wait(5);
        self.run();
        self.wait(100);
        self.run();
        self.wait(100);
        self.run();
        assert!(self.pool.store.map.leaves.is_empty(), "nothing is changed any more");
    }

    /// Opens the disk anew, as after a kill.
    pub(crate) fn reopen(self) -> Self {
        self.reopen_as(config())
    }

    /// The same, with another configuration.
    pub(crate) fn reopen_as(self, config: Config) -> Self {
        let mut rig = Self::around(Pool::open(config), self.blocks);
        rig.run();
        rig
    }
}

fn token_of(effect: &Effect) -> Token {
    match effect {
        Effect::Read { token, .. }
        | Effect::Write { token, .. }
        | Effect::Sync { token }
        | Effect::Discard { token, .. } => *token,
    }
}
