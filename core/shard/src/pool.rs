//! The pools of a shard: opened, driven, stopped and forgotten.
//!
//! ```text
//!   pool_open, pool_create           pool_close, or a stop of the shard
//!  ------------------------> entry ------------------------------------> closing
//!                                                                           |
//!                stopped or failed, nothing in flight, no request in work   v
//!                                                  PoolClosed, and the entry is free
//! ```
//!
//! Invariants:
//! 1. A pool's tokens are the eight kinds of its place in the table; the place is given to another
//!    one only when every effect of the first was answered, so that no completion goes astray.
//! 2. A request's tag is the token of its op, a command's is one of ours, and what keeps
//!    reservations has a kind of its own: they never meet.
//! 3. A stop of the shard ends though a disk does not answer: a pool that gave up waiting for its
//!    own keeps its place and its buffers, which are the kernel's, and is waited for no longer.
//! 4. A pool's turn ends once a turn of the shard, after everything that may ask it for something,
//!    so that one commit of its journal serves them all.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Instant, IoError, Key, Memory, Sums, Token};
use braid_pool::{
    Bearing, Command, Completion, Config, Failure, Format, Handle, Pool, Request, Reservation,
    State,
};

use crate::disk_fault::DiskFaults;
use crate::effect::Effect;
use crate::event::Disk;
use crate::inject::Injection;
use crate::mirror::Errand;
use crate::note::Note;
use crate::outbox::Outbox;
use crate::{Shard, token};

/// A pool of a shard, by a number that its opener chose and that no other one has meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// Pools that a shard can have: as many as there are kinds of tokens for.
pub const POOLS_MAX: usize = ((256 - token::POOLS as usize) / token::POOL_KINDS as usize) - 1;

/// How long requests to a pool took: bucket `i` counts those of less than `2^i` microseconds that
/// the one below does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Reads.
    pub read: [u64; 32],
    /// Writes and Write Zeroes.
    pub write: [u64; 32],
    /// Flushes.
    pub flush: [u64; 32],
}

impl Latency {
    pub(crate) fn count(buckets: &mut [u64; 32], time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        buckets[bucket.min(buckets.len() - 1)] += 1;
    }
}

/// Who gave a pool a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The management, with its tag.
    Management(u64),
    /// The guards of replicas.
    Member(Errand),
}

/// A pool, and what the shard knows of it.
pub(crate) struct Entry {
    id: PoolId,
    disk: Disk,
    pool: Box<Pool>,
    /// Effects that are not answered.
    in_flight: u32,
    /// Requests that did not end.
    requests: u32,
    /// Commands that did not end: our tag, and who asked.
    commands: Vec<(u32, Asker)>,
    /// Marks that commands found, by the caller's tag, until they are taken.
    marks: Vec<(u64, Vec<(u32, u32)>)>,
    /// It was asked for something since its turn last ended.
    asked: bool,
    closing: bool,
    /// It has just been opened.
    opened: bool,
    /// Nobody waits any more for its disk to answer.
    given_up: bool,
    faults: DiskFaults,
    pub(crate) latency: Latency,
}

impl Entry {
    /// Whether it can do no more, while its disk has not answered.
    fn is_stuck(&self) -> bool {
        self.closing && self.pool.state() == State::Failed && !self.is_over()
    }

    fn is_over(&self) -> bool {
        let state = self.pool.state();
        self.closing
            && matches!(state, State::Stopped | State::Failed)
            && self.in_flight == 0
            && self.requests == 0
    }

    fn submit<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        request: Request,
        sums: Option<Box<Sums>>,
    ) {
        self.requests += 1;
        self.asked = true;
        self.pool.submit_summed(mem, now, request, sums);
    }

    /// Tells the pool of what failed without its disk having heard of it.
    fn fail<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        while let Some((token, error)) = self.faults.failed() {
            self.in_flight -= 1;
            let event = braid_pool::Event::Done { token, result: Err(error) };
            self.pool.handle(mem, now, event);
        }
    }

    /// Hands the pool's effects and notes to the shell.
    fn drain(&mut self, outbox: &mut Outbox, now: Instant) {
        while let Some(effect) = self.faults.due(now) {
            outbox.emit(effect_on(self.disk, effect));
        }
        while let Some(effect) = self.pool.poll_effect() {
            self.in_flight += 1;
            if let Some(effect) = self.faults.pass(now, effect) {
                outbox.emit(effect_on(self.disk, effect));
            }
        }
        while let Some(note) = self.pool.poll_note() {
            self.opened |= matches!(note, braid_pool::Note::Opened { .. });
            outbox.emit(Effect::Note(Note::Pool { pool: self.id, note }));
        }
    }
}

/// The table of pools. A place is a range of token kinds.
pub(crate) struct Pools {
    places: [Option<Entry>; POOLS_MAX],
    /// Places up to the last one in use: no turn looks at the others.
    top: usize,
    /// Number of the last command.
    command: u32,
}

impl Pools {
    pub(crate) fn new() -> Self {
        Self { places: [const { None }; POOLS_MAX], top: 0, command: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.top == 0
    }

    /// Whether there are none but those that nobody waits for.
    pub(crate) fn are_given_up(&self) -> bool {
        self.iter().all(|entry| entry.given_up)
    }

    fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.places[..self.top].iter().flatten()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.places[..self.top].iter_mut().flatten()
    }

    fn find(&self, id: PoolId) -> Option<&Entry> {
        self.iter().find(|entry| entry.id == id)
    }

    pub(crate) fn find_mut(&mut self, id: PoolId) -> Option<&mut Entry> {
        self.iter_mut().find(|entry| entry.id == id)
    }

    /// The pool that a token is of.
    fn of_token(&mut self, token: Token) -> Option<&mut Entry> {
        let place = token.kind().checked_sub(token::POOLS)? / token::POOL_KINDS;
        self.places.get_mut(usize::from(place))?.as_mut()
    }

    fn insert(
        &mut self,
        id: PoolId,
        disk: Disk,
        mut config: Config,
        make: impl FnOnce(Config) -> Pool,
    ) -> bool {
        let place = self.places.iter().position(Option::is_none);
        let (None, Some(place)) = (self.find(id), place) else { return false };
        let kinds = u8::try_from(place).unwrap_or(u8::MAX) * token::POOL_KINDS;
        config.token_base = token::POOLS + kinds;
        self.top = self.top.max(place + 1);
        self.places[place] = Some(Entry {
            id,
            disk,
            pool: Box::new(make(config)),
            in_flight: 0,
            requests: 0,
            commands: Vec::new(),
            marks: Vec::new(),
            asked: true,
            closing: false,
            opened: false,
            given_up: false,
            faults: DiskFaults::default(),
            latency: Latency::default(),
        });
        true
    }

    /// Begins to close all of them.
    pub(crate) fn close_all(&mut self) {
        for entry in self.iter_mut().filter(|entry| !entry.closing) {
            entry.closing = true;
            entry.asked = true;
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        let has_work = |entry: &Entry| entry.pool.has_work() || entry.faults.has_work();
        self.iter().any(|entry| entry.asked || entry.is_over() || has_work(entry))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let own = |entry: &Entry| [entry.pool.poll_timeout(), entry.faults.deadline()];
        self.iter().flat_map(own).flatten().min()
    }

    pub(crate) fn on_elapsed<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        for entry in self.iter_mut() {
            entry.pool.handle(mem, now, braid_pool::Event::Elapsed);
        }
    }

    /// An effect of a pool is done.
    pub(crate) fn on_done<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        token: Token,
        result: Result<u32, IoError>,
    ) {
        let Some(entry) = self.of_token(token) else { return };
        entry.in_flight -= 1;
        entry.pool.handle(mem, now, braid_pool::Event::Done { token, result });
    }

    /// Gives a command to a pool; why not, if it does not take any.
    pub(crate) fn order<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        id: PoolId,
        asker: Asker,
        command: Command,
    ) -> Option<Failure> {
        self.command = self.command.wrapping_add(1);
        let number = self.command;
        let Some(entry) = self.find_mut(id) else { return Some(Failure::NotFound) };
        if entry.closing {
            return Some(Failure::Stopping);
        }
        entry.commands.push((number, asker));
        entry.asked = true;
        let key = Key { index: 0, generation: number };
        let ours = Token::new(token::COMMAND, key).to_bits();
        entry.pool.command(mem, now, ours, command);
        None
    }

    /// Gives a request to a pool, or back if there is no such pool.
    pub(crate) fn submit<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        id: PoolId,
        request: Request,
        sums: Option<Box<Sums>>,
    ) -> Result<(), Request> {
        match self.find_mut(id) {
            Some(entry) => {
                entry.submit(mem, now, request, sums);
                Ok(())
            }
            None => Err(request),
        }
    }
}

impl Pools {
    /// Has a pool keep a replica's reservations, durably; the tag comes back when it has. False:
    /// it cannot.
    pub(crate) fn bear<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        (id, handle): (PoolId, Handle),
        tag: u64,
        reservation: Box<Reservation>,
    ) -> bool {
        let Some(entry) = self.find_mut(id).filter(|entry| !entry.closing) else { return false };
        let Some(layer) = entry.pool.layer(handle) else { return false };
        let bearing = Bearing { reservation: Some(reservation), ..Bearing::default() };
        let command = Command::Bear { uuid: layer.uuid, bearing: Box::new(bearing) };
        entry.requests += 1;
        entry.asked = true;
        entry.pool.command(mem, now, tag, command);
        true
    }
}

impl Shard {
    /// Opens a pool on a disk; its notes tell what comes of it. The token kinds of the
    /// configuration are chosen here. False: there is a pool with this number, or there are
    /// [`POOLS_MAX`].
    pub fn pool_open<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        id: PoolId,
        disk: Disk,
        config: Config,
    ) -> bool {
        let config = self.roomy(config);
        !self.stopping && self.pools.insert(id, disk, config, Pool::open)
    }

    /// Makes a new pool on a disk, whose content is lost. It ends with `Note::Stopped`, and is to
    /// be closed then; opening it is another step.
    pub fn pool_create<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        id: PoolId,
        disk: Disk,
        config: Config,
        format: Format,
    ) -> bool {
        let make = |config| Pool::create(config, format);
        let config = self.roomy(config);
        !self.stopping && self.pools.insert(id, disk, config, make)
    }

    /// A pool takes as many requests as there can be commands: a host is never refused for it.
    fn roomy(&self, mut config: Config) -> Config {
        let requests = &mut config.limits.requests_max;
        *requests = (*requests).max(self.config.limits.ops_max);
        config
    }

    /// Gives a pool a command of the management; [`Note::PoolCommand`] tells how it ended.
    pub fn pool_command<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        id: PoolId,
        tag: u64,
        command: Command,
    ) {
        if let Some(failure) = self.pools.order(mem, now, id, Asker::Management(tag), command) {
            self.note(Note::PoolCommand { pool: id, tag, result: Err(failure) });
        }
    }

    /// Stops a pool in order, or gives up opening it, and forgets it: [`Note::PoolClosed`] tells
    /// when. Its subsystems are to be removed before.
    pub fn pool_close<M: Memory>(&mut self, _mem: &mut M, _now: Instant, id: PoolId) {
        if let Some(entry) = self.pools.find_mut(id) {
            entry.closing = true;
            entry.asked = true;
        }
    }

    /// Replaces the faults of a pool's disk, for tests; what older ones hold up goes on. False:
    /// there is no such pool.
    pub fn set_disk_faults(&mut self, id: PoolId, faults: &[Injection]) -> bool {
        let Some(entry) = self.pools.find_mut(id) else { return false };
        entry.faults.replace(faults);
        entry.asked = true;
        true
    }

    /// A pool, for what it tells of itself.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.find(id).map(|entry| &*entry.pool)
    }

    /// The marks that a command with this tag listed, once.
    pub fn pool_marks(&mut self, id: PoolId, tag: u64) -> Option<Vec<(u32, u32)>> {
        let marks = &mut self.pools.find_mut(id)?.marks;
        let at = marks.iter().position(|(of, _)| *of == tag)?;
        Some(marks.swap_remove(at).1)
    }

    /// All pools.
    pub fn pools(&self) -> impl Iterator<Item = PoolId> {
        self.pools.iter().map(|entry| entry.id)
    }

    /// How long the requests of hosts to a pool took.
    #[must_use]
    pub fn pool_latency(&self, id: PoolId) -> Option<&Latency> {
        self.pools.find(id).map(|entry| &entry.latency)
    }

    /// Ends the pools' turn: what they finished goes to their hosts, what they ask for to the
    /// shell.
    pub(crate) fn pools_end_turn<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if self.pools.is_empty() {
            return;
        }
        self.take_completions(mem);
        for entry in self.pools.iter_mut() {
            entry.asked = false;
            if entry.closing && matches!(entry.pool.state(), State::Open | State::Opening) {
                entry.pool.stop(mem, now);
            }
            entry.fail(mem, now);
            entry.pool.end_turn(mem, now);
        }
        self.take_completions(mem);
        for entry in self.pools.iter_mut() {
            entry.drain(&mut self.outbox, now);
            if core::mem::take(&mut entry.opened) {
                self.members.look(entry.id);
            }
        }
        self.forget_closed(mem);
    }

    /// Takes what the pools have finished, and what that lets them finish at once.
    fn take_completions<M: Memory>(&mut self, mem: &mut M) {
        for place in 0..self.pools.top {
            while let Some(entry) = &mut self.pools.places[place]
                && let Some((completion, sums)) = entry.pool.poll_summed()
            {
                let tag = Token::from_bits(completion.tag);
                let id = entry.id;
                match tag.kind() {
                    token::COMMAND => {
                        self.on_command_done(mem, place, tag.key().generation, &completion);
                    }
                    token::MEMBER => {
                        entry.requests -= 1;
                        self.on_member_request_done(mem, tag.key(), completion, sums);
                    }
                    token::RESERVATION => {
                        entry.requests -= 1;
                        self.on_reservations_kept(mem, tag.key(), completion.result.is_ok());
                    }
                    _ => {
                        entry.requests -= 1;
                        self.on_request_done(mem, id, tag.key(), completion, sums);
                    }
                }
            }
        }
    }

    fn on_command_done<M: Memory>(
        &mut self,
        mem: &mut M,
        place: usize,
        number: u32,
        completion: &Completion,
    ) {
        let Some(entry) = &mut self.pools.places[place] else { return };
        let found = entry.commands.iter().position(|(ours, _)| *ours == number);
        let Some(at) = found else { return };
        let (_, asker) = entry.commands.swap_remove(at);
        let (pool, marks) = (entry.id, entry.pool.take_marks(completion.tag));
        match asker {
            Asker::Management(tag) => {
                entry.marks.extend(marks.map(|marks| (tag, marks)));
                self.members.look(pool);
                self.note(Note::PoolCommand { pool, tag, result: completion.result });
            }
            Asker::Member(errand) => {
                self.on_errand_done(mem, pool, errand, completion.result, marks);
            }
        }
    }

    /// Forgets the pools that are closed.
    fn forget_closed<M: Memory>(&mut self, mem: &mut M) {
        let mut forgot = false;
        for place in 0..self.pools.top {
            if !self.pools.places[place].as_ref().is_some_and(Entry::is_over) {
                continue;
            }
            let Some(mut entry) = self.pools.places[place].take() else { continue };
            forgot = true;
            let (id, disk) = (entry.id, entry.disk);
            for (_, asker) in core::mem::take(&mut entry.commands) {
                let result = Err(Failure::Stopping);
                match asker {
                    Asker::Management(tag) => {
                        self.note(Note::PoolCommand { pool: id, tag, result });
                    }
                    Asker::Member(errand) => self.on_errand_done(mem, id, errand, result, None),
                }
            }
            self.members_close(mem, id);
            let clean = entry.pool.state() == State::Stopped;
            entry.pool.drop_leases(mem);
            self.note(Note::PoolClosed { pool: id, disk, clean });
            self.freed = true;
        }
        for entry in self.pools.iter_mut().filter(|entry| !entry.given_up && entry.is_stuck()) {
            entry.given_up = true;
            forgot = true;
        }
        if forgot {
            let last = self.pools.places.iter().rposition(Option::is_some);
            self.pools.top = last.map_or(0, |last| last + 1);
            self.tell_drained();
        }
    }
}

/// What a pool asks for, of the disk that it is on.
const fn effect_on(disk: Disk, effect: braid_pool::Effect) -> Effect {
    match effect {
        braid_pool::Effect::Read { token, span, offset } => {
            Effect::Read { token, disk, span, offset }
        }
        braid_pool::Effect::Write { token, span, offset } => {
            Effect::Write { token, disk, durable: false, span, offset }
        }
        braid_pool::Effect::Sync { token } => Effect::Sync { token, disk },
        braid_pool::Effect::Discard { token, offset, len } => {
            Effect::Discard { token, disk, offset, len }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_counted_in_the_bucket_of_its_power_of_two() {
        let mut buckets = [0; 32];
        for nanos in [0, 999, 1_000, 1_999, 2_000, 3_999, u64::MAX] {
            Latency::count(&mut buckets, Duration::from_nanos(nanos));
        }
        assert_eq!(buckets[..3], [2, 2, 2]);
        assert_eq!(buckets[31], 1);
    }
}
