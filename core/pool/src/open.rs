//! Opening a pool: from its superblock to the state that the journal tells.
//!
//! ```text
//! Syncing -> Superblocks -> Peek (stopped in order) -------------------> Load -> Claim -> open
//!                        -> Scan -> [Rewrite] -> Load -> Replay -> Verify -> [Relieve] -> Claim
//!                                                                  -> Clears -> open
//! ```
//!
//! Invariants:
//! 1. Nothing read is believed before a flush: after a process was killed, what it wrote may be in
//!    the device's cache only, and a power cut would take back what was recovered.
//! 2. The superblock with the new incarnation is durable before any other write that changes what
//!    the device holds; then the verdicts on first writes that did not reach the device; only then
//!    a request is taken.
//! 3. A read-only pool recovers in memory and writes nothing.
//! 4. Whatever the device holds, opening ends in an open pool or a refusal, in bounded memory.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Class, Instant, IoError, Key, Lease, Memory, Slab};
use zerocopy::FromZeros;

use crate::adopt::Adopt;
use crate::checkpoint::Checkpoint;
use crate::create::Creating;
use crate::effect::Effect;
use crate::geometry::Layout;
use crate::hash::mix;
use crate::job::Jobs;
use crate::journal::Journal;
use crate::layers::Commands;
use crate::layout::{
    ADOPT, BLOCK, CELLS_PER_BLOCK, CLEAN, Cell, DROPPED, ERROR, PAIR, Superblock, UNTRIMMED,
};
use crate::load::Load;
use crate::lock::Locks;
use crate::op::Reads;
use crate::pages::Fetches;
use crate::reclaim::Reclaim;
use crate::region::Regions;
use crate::replay::Replay;
use crate::rewrite::Rewrite;
use crate::scan::{Chain, Scan};
use crate::scrub::Scrub;
use crate::stop::Stop;
use crate::store::Store;
use crate::sums::Sums;
use crate::superblock::{Judged, Superblocks, judge, slots};
use crate::sync::Syncer;
use crate::transfer::whole;
use crate::verify::Verify;
use crate::watch::Watch;
use crate::{Config, Counters, Note, Plant, Pool, Refusal, State, token};

/// Reads in flight while a pool is opened.
pub(crate) const READS_MAX: u32 = 8;
/// Blocks of the ring that must be left when a pool is open: one to tell the next tail, and one to
/// spare.
const ROOM: u64 = 2;
/// Index of the token of the first flush.
const SYNC_INDEX: u32 = crate::superblock::INDEX + 1;

/// What opening is at.
#[derive(Debug)]
pub(crate) enum Phase {
    /// A new pool is being made.
    Create(Creating),
    /// Everything that was written before becomes durable.
    Syncing { issued: bool },
    /// The copies of the superblock are read.
    Superblocks(Copies),
    /// The journal block after an orderly stop is looked at: there must be none.
    Peek { read: Option<Key> },
    /// The ring's headers are read.
    Scan(Scan),
    /// What a failed flush may have dropped is written again.
    Rewrite(Rewrite),
    /// Bitmaps and layers are read.
    Load(Load),
    /// Cells are carried out.
    Replay(Replay),
    /// First writes that are not settled are compared with their cells.
    Verify(Verify),
    /// The ring has no room for the verdicts: a checkpoint makes them durable, and the superblock
    /// tells the new tail.
    Relieve { ticket: Option<u64> },
    /// The superblock is to tell of a first flush that failed; then the pool is refused.
    Refuse { ticket: u64, error: IoError },
    /// The superblock with the new incarnation is written.
    Claim { ticket: u64 },
    /// The verdicts become durable.
    Clears { seq: u64 },
}

/// A read of opening, or a write of what was read.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) lease: Lease,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// It was read, and is written again.
    pub(crate) writes: bool,
    pub(crate) result: Option<Result<(), IoError>>,
}

/// A pool that is being opened, or made.
#[derive(Debug)]
pub(crate) struct Opening {
    /// None while it is being taken further.
    phase: Option<Phase>,
    pub(crate) ios: Slab<Io>,
    pub(crate) synced: Option<Result<(), IoError>>,
    /// Why the first flush failed.
    unsynced: Option<IoError>,
    /// The pool was stopped in order.
    clean: bool,
    /// What the journal is.
    pub(crate) chain: Chain,
    pub(crate) rejected: u64,
    /// Verdicts to be recorded: layer, first block, count.
    pub(crate) clears: Vec<(u32, u64, u16)>,
}

impl Opening {
    pub(crate) fn new(phase: Phase) -> Self {
        Self {
            phase: Some(phase),
            ios: Slab::with_capacity(READS_MAX),
            synced: None,
            unsynced: None,
            clean: false,
            chain: Chain::default(),
            rejected: 0,
            clears: Vec::new(),
        }
    }

    /// A read that is done, by its key.
    pub(crate) fn take(&mut self, key: Key) -> Option<Io> {
        self.ios.get(key).filter(|io| io.result.is_some())?;
        self.ios.remove(key)
    }

    /// Any read that is done.
    pub(crate) fn take_any(&mut self) -> Option<Io> {
        let key = self.ios.iter().find(|(_, io)| io.result.is_some()).map(|(key, _)| key)?;
        self.ios.remove(key)
    }

    /// Gives the buffers back; nothing is in flight any more.
    pub(crate) fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        let keys: Vec<Key> = self.ios.iter().map(|(key, _)| key).collect();
        for io in keys.into_iter().filter_map(|key| self.ios.remove(key)) {
            mem.free(io.lease);
        }
        if let Some(Phase::Create(creating)) = self.phase.as_mut() {
            creating.drop_leases(mem);
        }
    }
}

/// Copies of the superblock that were found.
#[derive(Debug)]
pub(crate) struct Copies {
    /// Slots to be looked at.
    left: VecDeque<u64>,
    /// The pair at the end is among them.
    both: bool,
    best: Option<Box<Superblock>>,
    newer: Option<Refusal>,
    damaged: Option<u64>,
    error: Option<IoError>,
}

impl Copies {
    fn new() -> Self {
        Self {
            left: VecDeque::from([0, BLOCK]),
            both: false,
            best: None,
            newer: None,
            damaged: None,
            error: None,
        }
    }

    fn note(&mut self, judged: Judged, address: u64) {
        match judged {
            Judged::Valid(found) => {
                let best = self.best.get_or_insert_with(|| found.clone());
                if best.uuid == found.uuid && best.header.lsn.get() < found.header.lsn.get() {
                    *best = found;
                }
            }
            Judged::Newer { version, features } => {
                self.newer = Some(Refusal::Newer { version, features });
            }
            Judged::Damaged => self.damaged = Some(address),
            Judged::Foreign => {}
        }
    }

    /// The pool's superblock, or why there is none.
    fn verdict(self) -> Result<Superblock, Refusal> {
        if let Some(newer) = self.newer {
            return Err(newer);
        }
        if let Some(best) = self.best {
            return Ok(*best);
        }
        Err(match (self.damaged, self.error) {
            (Some(device), _) => Refusal::Damaged { device },
            (None, Some(error)) => Refusal::Device(error),
            (None, None) => Refusal::Foreign,
        })
    }
}

impl Pool {
    /// Opens a pool. Ends in `State::Open`, or `State::Failed` with `Note::Refused`.
    #[must_use]
    pub fn open(config: Config) -> Self {
        let mut pool = Self::closed(config);
        let phase = if pool.config.read_only {
            Phase::Superblocks(Copies::new())
        } else {
            Phase::Syncing { issued: false }
        };
        pool.opening = Some(Box::new(Opening::new(phase)));
        pool
    }

    /// A pool of which nothing is known yet.
    pub(crate) fn closed(config: Config) -> Self {
        let limits = &config.limits;
        let layout = Layout {
            bytes: 0,
            ring_blocks: 1,
            slab_clusters: 1,
            segments: Vec::new(),
            slabs: Vec::new(),
        };
        let journal = Journal::new(&layout, 0, 0, 0, 0);
        let sums = Sums::new(limits.delta_max, limits.cache_bytes);
        Self {
            state: State::Opening,
            superblock: Superblock::new_zeroed(),
            store: Store::new(layout, 0, 0, sums),
            journal,
            sync: Syncer::new(0, 0),
            ops: Slab::with_capacity(limits.requests_max),
            pieces: Slab::with_capacity(limits.requests_max.saturating_mul(3)),
            locks: Locks::new(),
            regions: Regions::new(),
            reads: Reads::default(),
            starved: VecDeque::new(),
            unnumbered: VecDeque::new(),
            hungry: VecDeque::new(),
            bufferless: VecDeque::new(),
            unasked: 0,
            zeros: None,
            spare: None,
            zero_crc: 0,
            fetches: Fetches::default(),
            checkpoint: Checkpoint::default(),
            opening: None,
            stop: Stop::default(),
            commands: Commands::default(),
            reclaim: Reclaim::default(),
            scrub: Scrub::default(),
            adopt: Adopt::default(),
            jobs: Jobs::new(),
            superblocks: Superblocks::default(),
            counters: Counters::default(),
            ready: VecDeque::new(),
            again: false,
            effects: VecDeque::new(),
            completions: VecDeque::new(),
            notes: VecDeque::new(),
            turn: 0,
            turned: Instant::ZERO,
            busy: Instant::ZERO,
            watch: Watch::new(limits.stall),
            config,
        }
    }

    /// The pool is not opened.
    pub(crate) fn refuse_now(&mut self, refusal: Refusal) {
        self.state = State::Failed;
        self.notes.push_back(Note::Refused(refusal));
    }

    /// Goes on with opening or making the pool.
    pub(crate) fn open_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        while self.state == State::Opening {
            let Some(mut opening) = self.opening.take() else { return };
            let Some(mut phase) = opening.phase.take() else { return };
            let next = self.open_phase(mem, now, &mut opening, &mut phase);
            let moved = matches!(next, Ok(Some(_)));
            match next {
                Ok(Some(next)) => opening.phase = Some(next),
                Ok(None) => opening.phase = Some(phase),
                Err(refusal) => {
                    opening.phase = Some(phase);
                    self.refuse_now(refusal);
                }
            }
            self.opening = (self.state != State::Open).then_some(opening);
            if !moved {
                break;
            }
        }
        if self.state == State::Opening {
            self.superblocks_on(mem);
            self.pages_on(mem, now);
        }
    }

    fn open_phase<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        o: &mut Opening,
        phase: &mut Phase,
    ) -> Progress {
        match phase {
            Phase::Create(creating) => {
                self.create_on(mem, now, creating);
                Ok(None)
            }
            Phase::Syncing { issued } => self.first_sync(o, issued),
            Phase::Superblocks(copies) => self.judge_copies(mem, o, copies),
            Phase::Peek { read } => self.peek(mem, o, read),
            Phase::Scan(scan) => self.scan_on(mem, o, scan),
            Phase::Rewrite(rewrite) => self.rewrite_on(mem, o, rewrite),
            Phase::Load(load) => self.load_on(mem, now, o, load),
            Phase::Replay(replay) => self.replay_on(mem, now, o, replay),
            Phase::Verify(verify) => self.verify_on(mem, o, verify),
            Phase::Claim { ticket } => Ok(self.claim_on(o, *ticket)),
            Phase::Refuse { ticket, error } => self.refuse_on(*ticket, *error),
            Phase::Relieve { ticket } => self.relieve_on(mem, now, o, ticket),
            Phase::Clears { seq } => {
                if self.sync.durable() >= *seq {
                    self.opened(o);
                } else {
                    self.sync_on(mem);
                }
                Ok(None)
            }
        }
    }

    fn first_sync(&mut self, o: &mut Opening, issued: &mut bool) -> Progress {
        if !core::mem::replace(issued, true) {
            self.open_sync(o);
        }
        match o.synced {
            None => Ok(None),
            Some(Ok(())) => Ok(Some(Phase::Superblocks(Copies::new()))),
            Some(Err(error)) if self.config.read_only => Err(Refusal::Device(error)),
            Some(Err(error)) => {
                // The pool is not opened, and who opens it next is to know why: the device may have
                // dropped what it goes on to show.
                o.unsynced = Some(error);
                Ok(Some(Phase::Superblocks(Copies::new())))
            }
        }
    }

    /// The superblock says that a flush failed, as far as the device took it: the pool is not
    /// opened.
    fn refuse_on(&mut self, ticket: u64, error: IoError) -> Progress {
        if self.superblocks.done() < ticket { Ok(None) } else { Err(Refusal::Device(error)) }
    }

    /// Begins a flush, whose result will be in `synced`.
    pub(crate) fn open_sync(&mut self, o: &mut Opening) {
        o.synced = None;
        self.counters.device_flushes += 1;
        let key = Key { index: SYNC_INDEX, generation: 0 };
        let token = self.token(token::OPENING, key);
        self.emit(Effect::Sync { token });
    }

    fn judge_copies<M: Memory>(
        &mut self,
        mem: &mut M,
        o: &mut Opening,
        c: &mut Copies,
    ) -> Progress {
        while let Some(io) = o.take_any() {
            match io.result {
                Some(Ok(())) => c.note(judge::<M>(mem.bytes(&io.lease), io.offset), io.offset),
                Some(Err(error)) => c.error = Some(error),
                None => {}
            }
            mem.free(io.lease);
        }
        loop {
            while let Some(at) = c.left.front().copied() {
                let fits = at + BLOCK <= self.config.device.bytes;
                if fits && self.open_read(mem, o, Class::Small, at, BLOCK).is_none() {
                    return Ok(None);
                }
                c.left.pop_front();
            }
            if !o.ios.is_empty() {
                return Ok(None);
            }
            if core::mem::replace(&mut c.both, true) {
                break;
            }
            let bytes = c.best.as_ref().map_or(self.config.device.bytes, |b| b.bytes.get());
            if bytes >= 2 * PAIR {
                c.left.extend(&slots(bytes)[2..]);
            }
        }
        let found = core::mem::replace(c, Copies::new()).verdict()?;
        self.know::<M>(o, found)
    }

    /// The superblock is known: what follows depends on how the pool was left.
    fn know<M: Memory>(&mut self, o: &mut Opening, found: Superblock) -> Progress {
        let layout = crate::superblock::layout(&found, &self.config.device)?;
        let seed = crate::superblock::seed::<M>(&found);
        let limits = &self.config.limits;
        let sums = Sums::new(limits.delta_max, limits.cache_bytes);
        let reserve = u64::from(found.reserve_clusters.get());
        self.store = Store::new(layout, seed, reserve, sums);
        self.superblock = found;
        self.zero_crc = M::crc_bytes(&[0; BLOCK as usize], 0);
        o.clean = found.flags.get() & CLEAN != 0;
        if let Some(error) = o.unsynced {
            // What an orderly stop left was durable then.
            if o.clean {
                return Err(Refusal::Device(error));
            }
            self.superblock.flags = (found.flags.get() | ERROR).into();
            return Ok(Some(Phase::Refuse { ticket: self.superblocks.ask(), error }));
        }
        let whole = found.tail.get() == found.last_seq.get().wrapping_add(1);
        Ok(Some(match o.clean && whole {
            true => Phase::Peek { read: None },
            false => Phase::Scan(Scan::new(&self.store.layout)),
        }))
    }

    /// After an orderly stop there is nothing behind the last block; if there is, the superblock
    /// is older than the journal, and both newer copies are damaged.
    fn peek<M: Memory>(
        &mut self,
        mem: &mut M,
        o: &mut Opening,
        read: &mut Option<Key>,
    ) -> Progress {
        let last = self.superblock.last_seq.get();
        let Some(key) = *read else {
            let at = self.store.layout.journal_block(last + 1);
            *read = self.open_read(mem, o, Class::Small, at, BLOCK);
            return Ok(None);
        };
        let Some(io) = o.take(key) else { return Ok(None) };
        let crc = self.superblock.last_crc.get();
        let bytes = mem.bytes(&io.lease);
        let head = crate::scan::head::<M>(bytes, self.store.seed, self.config.plant);
        let goes_on = io.result != Some(Ok(()))
            || head.is_some_and(|head| head.seq == last + 1 && head.previous == crc);
        mem.free(io.lease);
        if goes_on {
            o.clean = false;
            return Ok(Some(Phase::Scan(Scan::new(&self.store.layout))));
        }
        let incarnation = self.superblock.incarnation.get();
        o.chain =
            Chain { tail: last + 1, last, crc, settled: last, incarnation, heads: Vec::new() };
        Ok(Some(self.chained(o)))
    }

    /// The journal's extent is known.
    pub(crate) fn chained(&mut self, o: &mut Opening) -> Phase {
        let chain = &o.chain;
        let incarnation = chain.incarnation + 1;
        let (seed, layout) = (self.store.seed, &self.store.layout);
        self.journal = Journal::new(layout, seed, incarnation, chain.last, chain.crc);
        self.journal.resume(chain.tail, chain.settled);
        self.sync = Syncer::new(chain.last, chain.settled);
        self.fetches.newest = chain.last;
        self.fetches.unclean_before = match self.config.plant {
            Some(Plant::IgnoreOpenRegion) => 0,
            _ => chain.last + 1,
        };
        let flags = self.superblock.flags.get();
        // A process that made the journal durable again may have ended before its first checkpoint;
        // and a machine may start again with a device that had power all the time.
        if flags & (ERROR | DROPPED) != 0 && !self.config.read_only {
            self.fetches.dropped = Some((chain.tail, chain.last));
        }
        if flags & ERROR == 0 || self.config.read_only {
            return Phase::Load(Load::new());
        }
        Phase::Rewrite(Rewrite::new(chain))
    }

    /// Everything is as it was: the pool becomes ours.
    pub(crate) fn claim(&mut self, o: &Opening) -> Phase {
        if self.config.read_only {
            return Phase::Claim { ticket: 0 };
        }
        let flags = self.superblock.flags.get();
        let same_boot = self.superblock.boot_id == self.config.boot_id;
        let dropped = same_boot && flags & (ERROR | DROPPED) != 0;
        let incarnation = o.chain.incarnation + 1;
        let block = &mut self.superblock;
        if !o.clean && (!same_boot || flags & ERROR != 0) {
            block.session = crate::create::random(mix(self.config.seed, incarnation), 3);
        }
        // Chains of regions that nobody adopted yet outlive an orderly stop.
        let adopt = if o.clean { flags & ADOPT } else { ADOPT };
        let dropped = if dropped && adopt != 0 { DROPPED } else { 0 };
        block.flags = (adopt | dropped).into();
        block.incarnation = incarnation.into();
        block.boot_id = self.config.boot_id;
        block.owner = owner(&self.config.owner);
        block.last_seq = o.chain.last.into();
        block.last_crc = o.chain.crc.into();
        block.tail = o.chain.tail.into();
        self.adopt.begin(adopt != 0, dropped != 0);
        if !o.clean || flags & UNTRIMMED != 0 {
            self.begin_trim();
        }
        Phase::Claim { ticket: self.superblocks.ask() }
    }

    fn claim_on(&mut self, o: &mut Opening, ticket: u64) -> Option<Phase> {
        if self.superblocks.done() < ticket {
            return None;
        }
        let clears = core::mem::take(&mut o.clears);
        let blocks = clears.len().div_ceil(CELLS_PER_BLOCK) as u64;
        let full = blocks + ROOM > self.journal.free();
        if self.config.read_only || (clears.is_empty() && !full) {
            for (layer, lblock, count) in clears {
                let cell = Cell::Clear { layer, lblock, count };
                self.store.apply(o.chain.last + 1, cell, &[]);
            }
            self.opened(o);
            return None;
        }
        let mut last = 0;
        for (layer, lblock, count) in clears {
            let cell = Cell::Clear { layer, lblock, count };
            if full {
                // As if the journal held it already.
                self.store.apply(o.chain.last + 1, cell, &[]);
            } else {
                last = self.record(cell);
                self.unsettle_blocks(layer, lblock, count, last);
            }
        }
        if full {
            self.want_checkpoint();
            Some(Phase::Relieve { ticket: None })
        } else {
            self.sync.want_durable(last);
            Some(Phase::Clears { seq: last })
        }
    }

    fn relieve_on<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        o: &mut Opening,
        ticket: &mut Option<u64>,
    ) -> Progress {
        match *ticket {
            Some(ticket) if self.superblocks.done() >= ticket => {
                self.journal.durable_tail = self.journal.tail;
                self.opened(o);
            }
            Some(_) => {}
            None => {
                self.checkpoint_on(mem, now);
                if self.is_checkpointed() {
                    self.superblock.tail = self.journal.tail.into();
                    *ticket = Some(self.superblocks.ask());
                } else {
                    self.sync_on(mem);
                }
            }
        }
        Ok(None)
    }

    fn opened(&mut self, o: &Opening) {
        self.state = State::Open;
        let replayed = o.chain.last + 1 - o.chain.tail;
        self.notes.push_back(Note::Opened { clean: o.clean, replayed, rejected: o.rejected });
        self.again();
    }

    /// Begins a read; none without a buffer: again in a later turn.
    pub(crate) fn open_read<M: Memory>(
        &mut self,
        mem: &mut M,
        o: &mut Opening,
        class: Class,
        offset: u64,
        len: u64,
    ) -> Option<Key> {
        if o.ios.is_full() {
            return None;
        }
        let Some(lease) = mem.alloc(class) else {
            if o.ios.is_empty() {
                self.again();
            }
            return None;
        };
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(class.bytes());
        let span = lease.span(0, len);
        let io = Io { lease, offset, len, writes: false, result: None };
        let key = match o.ios.insert(io) {
            Ok(key) => key,
            Err(io) => {
                mem.free(io.lease);
                return None;
            }
        };
        self.counters.device_reads += 1;
        self.counters.device_read_bytes += u64::from(len);
        let token = self.token(token::OPENING, key);
        self.emit(Effect::Read { token, span, offset });
        Some(key)
    }

    /// Something of opening or of a superblock is done.
    pub(crate) fn on_opening_done<M: Memory>(
        &mut self,
        mem: &mut M,
        _now: Instant,
        key: Key,
        result: Result<u32, IoError>,
    ) {
        if key.index == crate::superblock::INDEX {
            return self.on_superblock_done(mem, result);
        }
        let Some(mut opening) = self.opening.take() else { return };
        if let Some(Phase::Create(creating)) = opening.phase.as_mut() {
            self.on_created(mem, key, result, creating);
        } else if key.index == SYNC_INDEX {
            opening.synced = Some(result.map(|_| ()));
        } else if let Some(io) = opening.ios.get_mut(key) {
            io.result = Some(whole(result, io.len));
        }
        self.opening = Some(opening);
    }
}

/// What a phase tells: it goes on, another follows, or the pool is refused.
pub(crate) type Progress = Result<Option<Phase>, Refusal>;

/// A name, padded with zeros, cut where a character ends.
fn owner(name: &str) -> [u8; 64] {
    let mut end = name.len().min(63);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; 64];
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    bytes
}
