//! Pages on their way from the device: maps and checksums.
//!
//! ```text
//! fetch -> queue -> Pair ---------------------> judged -> in memory, or lost -> waiters go on
//!                     `--error--> First -> Second --^
//! ```
//! Invariants:
//! 1. A page is read once at a time; who else wants it joins those who wait.
//! 2. Both slots of a pair are read and judged; the newest valid one counts. A slot that is bad, or
//!    older, is written again by the next checkpoint, as the first of the two.
//! 3. A slot is valid only if it is what, whose and where it should be, and its lsn is neither
//!    above the journal nor, while the pool is opened, below the cell that gave the page its place.
//! 4. A buffer is held only while a read or write is in flight, and some are never lent to hosts:
//!    so fetching waits for the device and for nothing else.
//! 5. If a page's place has gone while it was read, what was read is dropped.

mod buffers;
mod held;
mod rest;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use braid_block::{Instant, IoError, Key, Lease, Memory, Slab};
use hashbrown::HashMap;

use crate::codec::{self, Content, Stamp};
use crate::hash::Fixed;
use crate::layout::{BLOCK, PAIR};
use crate::map::PageId;
use crate::op::Waiter;
use crate::transfer::whole;
use crate::{Effect, Note, Pool, State, token};

pub(crate) use buffers::Buffers;
use rest::Rest;

/// A page of either sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Map(PageId),
    Sums(u64),
}

/// What of a pair is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// All of it.
    Pair,
    /// Its first slot alone, because all of it failed.
    First,
    /// Then its second.
    Second,
}

/// A read in flight.
#[derive(Debug)]
struct Flight {
    target: Target,
    /// First byte of the pair.
    address: u64,
    lease: Lease,
    stage: Stage,
    /// Slots that were read.
    read: [bool; 2],
}

/// Pages being read.
#[derive(Debug)]
pub(crate) struct Fetches {
    /// Who waits for each.
    wanted: HashMap<Target, Vec<Waiter>, Fixed>,
    /// Those whose read is not begun.
    queue: VecDeque<Target>,
    flights: Slab<Flight>,
    /// Lists of waiters to be used again.
    lists: Vec<Vec<Waiter>>,
    pub(crate) buffers: Buffers,
    pub(crate) rest: Rest,
    /// Filled when a pool is opened, until its first checkpoint: the journal blocks whose cells
    /// gave places (by first byte) to pages. What a place holds from before that is stale.
    pub(crate) born: BTreeMap<u64, u64>,
    /// While a pool is opened, its last journal block, once that is known: no page is newer.
    pub(crate) newest: u64,
    /// First journal block of this incarnation. Regions that are open in pages from before it have
    /// been open since the last stop: nobody knows whether their checksums are right.
    pub(crate) unclean_before: u64,
    /// First and last journal block that a failed flush may have dropped, and with them the pages
    /// that a checkpoint wrote meanwhile.
    pub(crate) dropped: Option<(u64, u64)>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self {
            wanted: HashMap::with_hasher(Fixed),
            queue: VecDeque::new(),
            flights: Slab::with_capacity(READS_MAX),
            lists: Vec::new(),
            buffers: Buffers::default(),
            rest: Rest::default(),
            born: BTreeMap::new(),
            newest: u64::MAX,
            unclean_before: 0,
            dropped: None,
        }
    }
}

impl Fetches {
    /// Gives all buffers back; nothing is in flight any more.
    pub(crate) fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        let keys: Vec<Key> = self.flights.iter().map(|(key, _)| key).collect();
        for flight in keys.into_iter().filter_map(|key| self.flights.remove(key)) {
            mem.free(flight.lease);
        }
        self.buffers.drop_leases(mem);
    }

    /// Adds somebody who waits; tells whether he is the first.
    fn want(&mut self, target: Target, waiter: Waiter) -> bool {
        let spare = &mut self.lists;
        let mut first = false;
        let list = self.wanted.entry(target).or_insert_with(|| {
            first = true;
            spare.pop().unwrap_or_default()
        });
        if waiter != Waiter::Job || !list.contains(&waiter) {
            list.push(waiter);
        }
        first
    }
}

impl Pool {
    /// Reads a page of the maps; `waiter` goes on when it is in memory, or known to be lost.
    pub(crate) fn fetch<M: Memory>(
        &mut self,
        mem: &mut M,
        _now: Instant,
        page: PageId,
        waiter: Waiter,
    ) {
        if self.is_known(page)
            || self.store.map.lost.contains_key(&page)
            || self.store.address(page).is_none()
        {
            return self.wake(waiter);
        }
        self.fetch_target(mem, Target::Map(page), waiter);
    }

    /// Reads a page of checksums, likewise.
    pub(crate) fn fetch_sums<M: Memory>(
        &mut self,
        mem: &mut M,
        _now: Instant,
        page: u64,
        waiter: Waiter,
    ) {
        if self.store.sums.holds(page) {
            return self.wake(waiter);
        }
        self.fetch_target(mem, Target::Sums(page), waiter);
    }

    /// Whether a page is being read or waits to be.
    pub(crate) fn is_fetching(&self, page: PageId) -> bool {
        self.fetches.wanted.contains_key(&Target::Map(page))
    }

    /// Begins reads that waited for a buffer; lets caches go after a time without work.
    pub(crate) fn pages_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.counters.cache_hits = self.store.sums.hits();
        self.fetches.buffers.fill(mem);
        self.begin_reads(mem);
        self.rest_on(now);
    }

    fn fetch_target<M: Memory>(&mut self, mem: &mut M, target: Target, waiter: Waiter) {
        if self.fetches.want(target, waiter) {
            self.fetches.queue.push_back(target);
            self.begin_reads(mem);
        }
    }

    fn begin_reads<M: Memory>(&mut self, mem: &mut M) {
        while let Some(target) = self.fetches.queue.front().copied() {
            let Some(address) = self.address_of(target) else {
                self.fetches.queue.pop_front();
                self.wake_all(target);
                continue;
            };
            if self.fetches.flights.is_full() {
                return;
            }
            let Some(lease) = self.fetches.buffers.take(mem) else { return };
            self.fetches.queue.pop_front();
            let flight = Flight { target, address, lease, stage: Stage::Pair, read: [false; 2] };
            let key = self.fetches.flights.insert(flight).expect("a place was free");
            self.read_stage(key);
        }
    }

    fn address_of(&self, target: Target) -> Option<u64> {
        match target {
            Target::Map(page) => self.store.address(page),
            Target::Sums(page) => Some(self.store.layout.checksum_pair(page)),
        }
    }

    fn read_stage(&mut self, key: Key) {
        let Some(flight) = self.fetches.flights.get(key) else { return };
        let (at, len) = flight.stage.range();
        let span = flight.lease.span(at, len);
        let offset = flight.address + u64::from(at);
        self.counters.device_reads += 1;
        self.counters.device_read_bytes += u64::from(len);
        self.emit(Effect::Read { token: self.token(token::FETCH, key), span, offset });
    }

    /// A read of a page is done.
    pub(crate) fn on_fetched<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        result: Result<u32, IoError>,
    ) {
        self.fetches.rest.on_read(now);
        let Some(flight) = self.fetches.flights.get_mut(key) else { return };
        let read = whole(result, flight.stage.range().1).is_ok();
        let next = match flight.stage {
            Stage::Pair if read => {
                flight.read = [true; 2];
                None
            }
            Stage::Pair => Some(Stage::First),
            Stage::First => {
                flight.read[0] = read;
                Some(Stage::Second)
            }
            Stage::Second => {
                flight.read[1] = read;
                None
            }
        };
        if let Some(stage) = next
            && self.state != State::Failed
        {
            flight.stage = stage;
            return self.read_stage(key);
        }
        let Some(flight) = self.fetches.flights.remove(key) else { return };
        if self.state != State::Failed && self.address_of(flight.target) == Some(flight.address) {
            match flight.target {
                Target::Map(page) => self.take_map(mem, page, &flight),
                Target::Sums(page) => self.take_sums(mem, page, &flight),
            }
        }
        self.fetches.buffers.give(mem, flight.lease);
        self.wake_all(flight.target);
        if self.state != State::Failed {
            self.begin_reads(mem);
        }
    }

    /// Takes a page of the maps that was read into memory.
    fn take_map<M: Memory>(&mut self, mem: &M, page: PageId, flight: &Flight) {
        if self.is_known(page) {
            return;
        }
        let Flight { address, lease, read, .. } = flight;
        let seed = self.store.seed;
        let newest = self.newest_lsn();
        let born = self.fetches.born.get(address).copied();
        let lsns = [0, 1].map(|slot| {
            let stamp = Stamp::map(page, address + slot as u64 * BLOCK);
            let valid = |lsn: &u64| *lsn <= newest && born.is_none_or(|seq| *lsn >= seq);
            codec::judge::<M>(slot_of(mem, lease, slot), stamp, seed)
                .filter(|lsn| read[slot] && valid(lsn))
        });
        let newer = usize::from(lsns[1] > lsns[0]);
        for slot in [newer, 1 - newer] {
            let bytes = slot_of(mem, lease, slot);
            if let Some(lsn) = lsns[slot]
                && let Some(content) = codec::decode(bytes, page, &self.store.layout)
            {
                // The other one is worse if it is older, or if it came first and was no good.
                let worse = (slot != newer || lsns[1 - slot] != Some(lsn)).then_some(1 - slot);
                return self.take_content(page, lsn, content, worse, *address);
            }
        }
        match born {
            // It was never written: it has nothing but what cells from there on say.
            Some(seq) => {
                if let Some(content) = held::nothing(page) {
                    self.store.install(page, seq.saturating_sub(1), content);
                    self.store.mend(page, false);
                }
            }
            None => {
                self.store.map.lost.insert(page, ());
                self.notes.push_back(Note::Lost { device: *address });
            }
        }
    }

    fn take_content(
        &mut self,
        page: PageId,
        lsn: u64,
        content: Content,
        worse: Option<usize>,
        address: u64,
    ) {
        self.store.install(page, lsn, content);
        if let PageId::Leaf(layer, index) = page
            && let Some(leaf) = self.store.map.leaves.get_mut(&(layer, index))
        {
            leaf.used = self.turn;
            if lsn < self.fetches.unclean_before {
                leaf.unadopted = leaf.page.get().open;
            }
        }
        if let Some(slot) = worse
            && !self.config.read_only
        {
            self.store.mend(page, slot == 1);
            self.notes.push_back(Note::Repaired { device: address + slot as u64 * BLOCK });
        } else if self.fetches.dropped.is_some_and(|(tail, last)| (tail..=last).contains(&lsn)) {
            // Of a checkpoint that did not end: the flush of it may be the one that failed.
            self.store.mend(page, false);
        }
    }

    /// Takes a page of checksums that was read into memory: the newest valid slot, or none.
    fn take_sums<M: Memory>(&mut self, mem: &M, page: u64, flight: &Flight) {
        let Flight { address, lease, read, .. } = flight;
        self.counters.cache_misses += 1;
        let (seed, newest) = (self.store.seed, self.newest_lsn());
        let valid = [0, 1].map(|slot| {
            let stamp = Stamp::sums(page, address + slot as u64 * BLOCK);
            codec::judge::<M>(slot_of(mem, lease, slot), stamp, seed)
                .filter(|lsn| read[slot] && *lsn <= newest)
        });
        let newer = u8::from(valid[1] > valid[0]);
        match valid[usize::from(newer)] {
            Some(lsn) => {
                if let Some(sums) = self.store.sums.add(page, Some(newer), lsn) {
                    codec::decode_sums(slot_of(mem, lease, usize::from(newer)), sums);
                }
            }
            // It was never written, or it is lost; blocks of it that are owned will tell.
            None => {
                self.store.sums.add(page, None, 0);
            }
        }
        // The one that was not read may have been the newer: nobody else has what it held.
        if let Some(slot) = read.iter().position(|read| !read) {
            self.notes.push_back(Note::Lost { device: address + slot as u64 * BLOCK });
        }
    }

    /// Whether a page is in memory, with what it held on the device.
    fn is_known(&self, page: PageId) -> bool {
        let by_nature = matches!(page, PageId::Root | PageId::Bitmap(_) | PageId::MapBitmap(_));
        self.store.is_here(page) && !(by_nature && self.state == State::Opening)
    }

    /// The newest journal block whose cells a page can hold.
    pub(crate) const fn newest_lsn(&self) -> u64 {
        match self.state {
            State::Opening => self.fetches.newest,
            _ => self.journal.written,
        }
    }

    fn wake(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Job => self.again(),
            waiter => self.ready.push_back(waiter),
        }
    }

    fn wake_all(&mut self, target: Target) {
        let Some(mut list) = self.fetches.wanted.remove(&target) else { return };
        for waiter in list.drain(..) {
            self.wake(waiter);
        }
        if self.fetches.lists.len() < LISTS_KEPT {
            self.fetches.lists.push(list);
        }
    }
}

impl Stage {
    /// First byte in the buffer, and bytes.
    #[expect(clippy::cast_possible_truncation, reason = "8 KiB")]
    const fn range(self) -> (u32, u32) {
        match self {
            Self::Pair => (0, PAIR as u32),
            Self::First => (0, BLOCK as u32),
            Self::Second => (BLOCK as u32, BLOCK as u32),
        }
    }
}

/// The bytes of a slot.
fn slot_of<'a, M: Memory>(mem: &'a M, lease: &Lease, slot: usize) -> &'a [u8] {
    &mem.bytes(lease)[slot * BLOCK as usize..][..BLOCK as usize]
}

/// Reads in flight: enough to keep a device busy when nothing else does.
const READS_MAX: u32 = 64;
/// Lists of waiters that are kept to be used again.
const LISTS_KEPT: usize = 64;

#[cfg(test)]
mod tests;
