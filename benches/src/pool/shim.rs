//! A pool on a file that keeps its maps and throws data and checksums away: so that a TiB can be
//! mapped in seconds, to see what its maps take in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use braid_block::{BlockSize, Instant, IoError, Lease, Memory, Span};
use braid_pool::{
    Command, Completion, Config, Create, Effect, Event, Format, Handle, Limits, Pool, Request,
    State, Work,
};
use braid_sim::SimMemory;

use super::{How, config, told};
use crate::measure::resident;
use crate::wire::bad;

/// The replica.
const UUID: [u8; 16] = [1; 16];
const CLUSTER: u64 = 256 << 10;
/// What a map page spans.
const LEAF: u64 = 64 << 20;
/// The payload's bytes, by which it is known and thrown away.
const PAYLOAD: u8 = 0x5a;
/// A page of checksums begins with this.
const CHECKSUMS: u32 = 11;
const DEPTH: usize = 64;

/// A pool without a reactor.
struct Shim {
    pool: Pool,
    mem: SimMemory,
    file: File,
    now: Instant,
    flying: VecDeque<Effect>,
    done: VecDeque<Completion>,
}

impl Shim {
    fn new(pool: Pool, file: File) -> Self {
        Self {
            pool,
            mem: SimMemory::new(64 << 20),
            file,
            now: Instant::from_nanos(1_000_000),
            flying: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    /// A turn, in which everything that was asked for is done.
    fn turn(&mut self) -> io::Result<()> {
        while let Some(effect) = self.flying.pop_front() {
            let (token, result) = self.carry_out(effect)?;
            self.pool.handle(&mut self.mem, self.now, Event::Done { token, result });
        }
        self.now = self.now + std::time::Duration::from_micros(100);
        if self.pool.poll_timeout().is_some_and(|due| due <= self.now) {
            self.pool.handle(&mut self.mem, self.now, Event::Elapsed);
        }
        self.pool.end_turn(&mut self.mem, self.now);
        self.flying.extend(std::iter::from_fn(|| self.pool.poll_effect()));
        self.done.extend(std::iter::from_fn(|| self.pool.poll_completion()));
        while let Some(note) = self.pool.poll_note() {
            if self.pool.state() == State::Failed {
                return Err(bad(format!("{note:?}")));
            }
        }
        Ok(())
    }

    fn run_until(&mut self, reached: impl Fn(&Self) -> bool) -> io::Result<()> {
        while !reached(self) {
            self.turn()?;
            if self.flying.is_empty() && !self.pool.has_work() && !reached(self) {
                return Err(bad("the pool does nothing".to_owned()));
            }
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        effect: Effect,
    ) -> io::Result<(braid_block::Token, Result<u32, IoError>)> {
        Ok(match effect {
            Effect::Read { token, span, offset } => {
                self.file.read_exact_at(self.mem.span_mut(span), offset)?;
                (token, Ok(span.len))
            }
            Effect::Write { token, span, offset } => {
                if self.is_kept(span) {
                    self.file.write_all_at(self.mem.span(span), offset)?;
                }
                (token, Ok(span.len))
            }
            Effect::Sync { token } | Effect::Discard { token, .. } => (token, Ok(0)),
        })
    }

    fn is_kept(&self, span: Span) -> bool {
        let first = self.mem.span(span).first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        first != CHECKSUMS && first != u32::from_le_bytes([PAYLOAD; 4])
    }

    fn submit(&mut self, handle: Handle, work: Work, lease: Option<Lease>) {
        self.pool.submit(&mut self.mem, self.now, Request { tag: 0, handle, work, lease });
    }

    fn stop(mut self) -> io::Result<()> {
        self.pool.stop(&mut self.mem, self.now);
        self.run_until(|shim| shim.pool.state() == State::Stopped)?;
        self.pool.drop_leases(&mut self.mem);
        Ok(())
    }
}

fn settings(file: &File, cache_bytes: u64) -> io::Result<Config> {
    let bytes = file.metadata()?.len();
    let mut config = config(bytes, 4096, &How::default());
    config.limits = Limits { cache_bytes, ..Limits::default() };
    Ok(config)
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Makes a pool on a sparse file, and one 4 KiB write in each cluster of so many bytes.
pub(crate) fn map(path: &Path, bytes: u64) -> io::Result<()> {
    let file = open(path)?;
    let config = settings(&file, 1 << 20)?;
    let format = Format::for_device(super::identity()?, config.device.bytes);
    let mut shim = Shim::new(Pool::create(config.clone(), format), file);
    shim.run_until(|shim| shim.pool.state() == State::Stopped)?;
    shim.pool.drop_leases(&mut shim.mem);
    let mut shim = Shim::new(Pool::open(config), open(path)?);
    shim.run_until(|shim| shim.pool.state() == State::Open)?;
    let name = "mapped".to_owned();
    let (block, thick, created) = (BlockSize::B4096, false, 0);
    let create = Create { uuid: UUID, name, bytes, block, thick, created };
    shim.pool.command(&mut shim.mem, shim.now, 1, Command::Create(Box::new(create)));
    shim.run_until(|shim| !shim.done.is_empty())?;
    shim.done.clear();
    let handle = shim.pool.find(&UUID).ok_or_else(|| bad("no replica was made".to_owned()))?;
    write_each(&mut shim, handle, bytes / CLUSTER)?;
    shim.stop()
}

fn write_each(shim: &mut Shim, handle: Handle, clusters: u64) -> io::Result<()> {
    let payload = [PAYLOAD; 4096];
    let mut leases: Vec<Lease> = (0..DEPTH).map(|_| shim.mem.filled(&payload)).collect();
    let (mut next, mut done) = (0, 0);
    while done < clusters {
        while let Some(lease) = if next < clusters { leases.pop() } else { None } {
            let work = Work::Write { offset: next * CLUSTER, len: 4096, durable: false };
            shim.submit(handle, work, Some(lease));
            next += 1;
        }
        shim.turn()?;
        while let Some(completion) = shim.done.pop_front() {
            completion.result.map_err(|failure| bad(format!("a write: {failure:?}")))?;
            leases.extend(completion.lease);
            done += 1;
        }
    }
    leases.into_iter().for_each(|lease| shim.mem.free(lease));
    Ok(())
}

/// Opens that pool and asks for all of its map; says what the process had in memory before and
/// after, what the pool says itself, and how many pages of the map there are.
pub(crate) fn load(path: &Path) -> io::Result<()> {
    let file = open(path)?;
    let config = settings(&file, 1 << 20)?;
    let mut shim = Shim::new(Pool::open(config), file);
    shim.run_until(|shim| shim.pool.state() == State::Open)?;
    let handle = shim.pool.find(&UUID).ok_or_else(|| bad("there is no replica".to_owned()))?;
    let bytes = shim.pool.layer(handle).map_or(0, |layer| layer.bytes);
    let mut lease = Some(shim.mem.filled(&vec![0; 128 << 10]));
    let pid = std::process::id();
    let before = resident(pid)?;
    for offset in (0..bytes).step_by(usize::try_from(LEAF).unwrap_or(usize::MAX)) {
        let len = LEAF.min(bytes - offset);
        shim.submit(handle, Work::Status { offset, len }, lease.take());
        shim.run_until(|shim| !shim.done.is_empty())?;
        let completion = shim.done.pop_front();
        let failed = completion.as_ref().is_none_or(|completion| completion.result.is_err());
        if failed {
            return Err(told(IoError::Media));
        }
        lease = completion.and_then(|completion| completion.lease);
    }
    let (after, info) = (resident(pid)?, shim.pool.info());
    println!("{before} {after} {} {}", info.memory, info.leaves);
    lease.into_iter().for_each(|lease| shim.mem.free(lease));
    shim.stop()
}
