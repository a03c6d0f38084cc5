//! A pool: one disk or file as thin replicas, snapshots and clones, with a checksum for every
//! block, that survives a power cut at any write.
//!
//! A shell calls [`Pool::submit`] with I/O requests and [`Pool::command`] with management, tells
//! [`Pool::handle`] what its disk did, calls [`Pool::end_turn`] when a turn's events are through,
//! then takes effects, completions and notes until there are none.
//!
//! Inside, `store` is what the journal's cells change (`map`, `space`, `sums`) and the only code
//! that changes it; `journal` and `sync` make cells durable; `write`, `read`, `compare`, `zero` and
//! `region` are the flows of requests; `pages` and `checkpoint` move maps between memory and disk;
//! `open` and `replay` bring a pool back; `layers` and `reclaim` make and unmake replicas.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod adopt;
#[cfg(test)]
mod arena;
mod chain;
mod check;
mod checkpoint;
mod codec;
mod compare;
mod config;
mod counters;
mod create;
mod drive;
mod effect;
mod geometry;
mod handles;
mod hash;
mod info;
mod inspect;
mod job;
mod journal;
mod layers;
mod layout;
mod load;
mod lock;
mod map;
mod note;
mod op;
mod open;
mod paged;
mod pages;
mod place;
mod read;
mod reclaim;
mod region;
mod replay;
mod request;
mod rewrite;
#[cfg(test)]
mod rig;
mod scan;
mod scrub;
mod space;
mod status;
mod stop;
mod store;
mod submit;
mod sums;
mod superblock;
mod sync;
mod token;
mod transfer;
mod verify;
mod watch;
mod write;
mod zero;

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use braid_block::{Instant, IoError, Key, Lease, Memory, Slab, Sums, Token};

pub use check::{Figure, Finding, Report, Scope, check};
pub use compare::comparison_bytes;
pub use config::{Config, Device, Format, Limits, Plant};
pub use counters::Counters;
pub use drive::{Buffers, Image, run_blocking};
pub use effect::{Effect, Event};
pub use info::{LayerInfo, PoolInfo};
pub use inspect::{Inspection, JournalInfo, inspect};
pub use layout::format_page;
pub use note::{Note, Operation, Refusal};
pub use request::{
    Allocation, Bearing, COMPARE_MAX, Command, Completion, Create, Done, Failure, Fence, Handle,
    RECORD_MAX, Request, Reservation, Work,
};

use adopt::Adopt;
use checkpoint::Checkpoint;
use job::Jobs;
use journal::Journal;
use layers::Commands;
use layout::{Cell, Superblock};
use lock::Locks;
use op::{Op, Piece, Reads, Waiter};
use open::Opening;
use pages::Fetches;
use reclaim::Reclaim;
use region::Regions;
use scrub::Scrub;
use stop::Stop;
use store::Store;
use superblock::Superblocks;
use sync::Syncer;
use watch::Watch;

/// Where a pool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Reading its superblock, journal and maps, or writing them for the first time.
    Opening,
    /// At work.
    Open,
    /// Ending what is in work, then writing its maps.
    Stopping,
    /// Stopped in order, or just made: nothing more will come.
    Stopped,
    /// Not opened, or failed: every request is refused.
    Failed,
}

/// A pool.
#[derive(Debug)]
pub struct Pool {
    config: Config,
    state: State,
    /// As it was last written, or read.
    superblock: Superblock,
    store: Store,
    journal: Journal,
    sync: Syncer,
    ops: Slab<Op>,
    pieces: Slab<Piece>,
    locks: Locks,
    regions: Regions,
    reads: Reads,
    /// Pieces that wait for room in the journal.
    starved: VecDeque<Key>,
    /// Flushes that wait for room for their numbers.
    unnumbered: VecDeque<Key>,
    /// Pieces that wait for freed clusters to come out of quarantine.
    hungry: VecDeque<Key>,
    /// Pieces that wait for a buffer.
    bufferless: VecDeque<Key>,
    /// Those of them that have not had their turn since something happened.
    unasked: usize,
    /// A buffer of zeros.
    zeros: Option<Lease>,
    /// A large buffer for a piece that finds no other.
    spare: Option<Lease>,
    /// CRC32C of a block of zeros.
    zero_crc: u32,
    fetches: Fetches,
    checkpoint: Checkpoint,
    opening: Option<Box<Opening>>,
    stop: Stop,
    commands: Commands,
    reclaim: Reclaim,
    scrub: Scrub,
    adopt: Adopt,
    jobs: Jobs,
    superblocks: Superblocks,
    counters: Counters,
    /// Who goes on at the end of the turn.
    ready: VecDeque<Waiter>,
    /// Something is to be looked at in another turn, at once.
    again: bool,
    effects: VecDeque<Effect>,
    completions: VecDeque<(Completion, Option<Box<Sums>>)>,
    notes: VecDeque<Note>,
    /// Number of the turn, and its time.
    turn: u32,
    turned: Instant,
    /// Time of the last request, for letting caches go.
    busy: Instant,
    watch: Watch,
}

impl Pool {
    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Who waits for what, for those who look for a hang.
    #[must_use]
    pub fn waiting(&self) -> alloc::string::String {
        let pieces: alloc::vec::Vec<_> = self.pieces.iter().collect();
        alloc::format!(
            "again {}, ready {:?}, starved {:?}, hungry {:?}, bufferless {:?}\n\
             {:?}\n{:?}\n{:?}\n{:?}\n{pieces:?}",
            self.again,
            self.ready,
            self.starved,
            self.hungry,
            self.bufferless,
            self.journal,
            self.sync,
            self.regions,
            self.checkpoint,
        )
    }

    /// Takes one event.
    pub fn handle<M: Memory>(&mut self, mem: &mut M, now: Instant, event: Event) {
        self.watch.tick(now);
        match event {
            Event::Done { token, result } => self.on_done(mem, now, token, result),
            // What is due is looked at when the turn ends.
            Event::Elapsed => {}
        }
    }

    fn on_done<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        token: Token,
        result: Result<u32, IoError>,
    ) {
        let (key, kind) = (token.key(), token.kind().wrapping_sub(self.config.token_base));
        if kind != token::PIECE {
            self.watch.end_other(token);
        }
        match kind {
            token::PIECE => self.on_piece_done(mem, now, key, result),
            token::JOURNAL => self.on_journal_done(mem, result),
            token::SYNC => self.on_sync_done(mem, result),
            token::FETCH => self.on_fetched(mem, now, key, result),
            token::CHECKPOINT => self.on_checkpoint_done(mem, now, key, result),
            token::DISCARD => self.on_discarded(mem, now, key),
            token::OPENING => self.on_opening_done(mem, now, key, result),
            token::JOB => self.on_job_done(mem, now, key, result),
            _ => {}
        }
    }

    /// Ends a turn: goes on with what was woken, commits the journal, begins what is due.
    pub fn end_turn<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.turn = self.turn.wrapping_add(1);
        self.turned = now;
        self.watch.tick(now);
        self.again = false;
        for _ in 0..self.ready.len() {
            let Some(waiter) = self.ready.pop_front() else { break };
            self.resume(mem, now, waiter);
        }
        match self.state {
            State::Opening => self.open_on(mem, now),
            State::Open | State::Stopping => self.work_on(mem, now),
            State::Stopped | State::Failed => {}
        }
        self.watch_on(mem, now);
    }

    /// What goes on by itself while the pool is open.
    fn work_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.layers_on(mem, now);
        self.reclaim_on(mem, now);
        self.scrub_on(mem, now);
        self.adopt_on(mem, now);
        self.regions_on(now);
        self.requests_on(mem, now);
        self.checkpoint_on(mem, now);
        if self.state == State::Stopping {
            self.stop_on(mem, now);
        }
        self.superblocks_on(mem);
        if !self.is_sealed() {
            self.sync_on(mem);
        }
        self.pages_on(mem, now);
    }

    /// Lets somebody go on who waited.
    fn resume<M: Memory>(&mut self, mem: &mut M, now: Instant, waiter: Waiter) {
        match waiter {
            Waiter::Piece(key) => self.advance(mem, now, key),
            Waiter::Op(key) => self.resume_op(mem, now, key),
            // Jobs look at everything at the end of every turn.
            Waiter::Job => {}
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next request or command that ended.
    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front().map(|(completion, _)| completion)
    }

    /// The same, with what [`Pool::submit_summed`] was given.
    pub fn poll_summed(&mut self) -> Option<(Completion, Option<Box<Sums>>)> {
        self.completions.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// When [`Event::Elapsed`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.pages_due(),
            self.checkpoint_due(),
            self.scrub_due(),
            self.adopt_due(),
            self.reclaim_due(),
            self.regions_due(),
            self.watch.due(),
            self.gives_up_at(),
        ]
        .into_iter()
        .flatten()
        // What was due at the last turn was looked at then: it waits for something else now.
        .filter(|due| *due > self.turned)
        .min()
    }

    /// Whether a turn would find work even if nothing happens: the shell must not wait.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.again || !self.ready.is_empty()
    }

    fn emit(&mut self, effect: Effect) {
        // Of those of requests the pieces know: there are many.
        let token = effect.token();
        if token.kind().wrapping_sub(self.config.token_base) != token::PIECE {
            self.watch.begin_other(token);
        }
        self.effects.push_back(effect);
    }

    /// A token of ours.
    const fn token(&self, kind: u8, key: Key) -> Token {
        Token::new(self.config.token_base + kind, key)
    }

    /// Asks for another turn at once.
    fn again(&mut self) {
        self.again = true;
    }

    /// Adds a cell to the journal and carries it out; tells the number of its block.
    fn record(&mut self, cell: Cell) -> u64 {
        let seq = self.journal.push(cell);
        self.store.apply(seq, cell, &[]);
        seq
    }

    /// The same for a cell that can wait until its block is full.
    fn record_lazy(&mut self, cell: Cell) -> u64 {
        let seq = self.journal.push_lazy(cell);
        self.store.apply(seq, cell, &[]);
        seq
    }

    /// The same for cells that take effect together.
    fn record_group(&mut self, group: &[(Cell, &[u8])]) -> u64 {
        let seq = self.journal.push_group(group);
        for (cell, payload) in group {
            self.store.apply(seq, *cell, payload);
        }
        seq
    }

    /// The device failed: the pool does no more. Everything in work ends with an error.
    fn fail<M: Memory>(&mut self, mem: &mut M, operation: Operation, offset: u64, error: IoError) {
        if self.state == State::Failed {
            return;
        }
        self.state = State::Failed;
        self.notes.push_back(Note::Failed { operation, offset, error });
        self.note_error(mem);
        self.fail_requests(mem);
        self.fail_commands();
    }
}
