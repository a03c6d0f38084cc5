//! One flush at a time, and what it makes durable and settled.
//!
//! Invariants:
//! 1. A flush covers what was done before it was issued, and nothing else; who needs one waits for
//!    one that is issued afterwards.
//! 2. `durable`: every journal block up to it was written before a flush that succeeded.
//! 3. `settles`: every journal block up to it was written, and the data of every first write with
//!    a cell in it was done, before a flush that succeeded. It counts for reuse (`settled`) only
//!    when a durable journal block says so, for only then replay will take it for granted.
//! 4. A slot with an unsettled cell is neither overwritten nor given to anybody else.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{IoError, Key, Memory};
use hashbrown::HashMap;

use crate::effect::Effect;
use crate::hash::Fixed;
use crate::op::Waiter;
use crate::{Operation, Plant, Pool, token};

/// Writes between flushes, at most, that make the journal go out before the flush asks for it.
const EAGER_WRITES: u32 = 64;
/// Likewise, beside the data already.
const BESIDE_WRITES: u32 = 4;

/// A flush in flight.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// Journal blocks that were written when it was issued.
    covers: u64,
    /// Journal blocks that it settles.
    settles: u64,
    /// What the last written block said is settled, and of the tail.
    says: u64,
    tail: u64,
}

/// Flushes, and who waits for what.
#[derive(Debug)]
pub(crate) struct Syncer {
    issued: u64,
    done: u64,
    asked: u64,
    /// Journal blocks that the flush asked for is to cover.
    asked_covers: u64,
    flight: Option<Flight>,
    durable: u64,
    /// Settled, but no durable block says so yet.
    settles: u64,
    settled: u64,
    want_durable: u64,
    want_settled: u64,
    /// Journal block up to which requests that wait for a flush need the journal to be written.
    commit_to: u64,
    /// Something was written since the last flush was issued.
    fresh: bool,
    /// First writes whose data is in flight, by journal block.
    firsts: VecDeque<(u64, u32)>,
    /// Slots with an unsettled cell: the cell's journal block.
    unsettled: HashMap<u64, u64, Fixed>,
    order: VecDeque<(u64, u64)>,
    on_written: Vec<(u64, Waiter)>,
    on_durable: Vec<(u64, Waiter)>,
    on_settled: Vec<(u64, Waiter)>,
    /// Requests that wait for a flush, by its number, and for the journal up to a block: a flush
    /// that others need sooner may be issued before that block is written.
    flushes: VecDeque<(u64, u64, Key)>,
    /// Writes since the last flush request, and how many there were lately.
    writes: u32,
    lately: u32,
    /// Data writes in flight.
    pub(crate) data_in_flight: u32,
    /// Flush requests so far; a planted bug skips every other one.
    requests: u64,
}

impl Syncer {
    /// Nothing is in flight; journal blocks up to `last` are durable, up to `settled` settled.
    pub(crate) fn new(last: u64, settled: u64) -> Self {
        Self {
            issued: 0,
            done: 0,
            asked: 0,
            asked_covers: 0,
            flight: None,
            durable: last,
            settles: settled,
            settled,
            want_durable: 0,
            want_settled: 0,
            commit_to: 0,
            fresh: true,
            firsts: VecDeque::new(),
            unsettled: HashMap::with_hasher(Fixed),
            order: VecDeque::new(),
            on_written: Vec::new(),
            on_durable: Vec::new(),
            on_settled: Vec::new(),
            flushes: VecDeque::new(),
            writes: 0,
            lately: u32::MAX,
            data_in_flight: 0,
            requests: 0,
        }
    }

    /// Number of flushes issued so far.
    pub(crate) const fn issued(&self) -> u64 {
        self.issued
    }

    /// Number of the last flush that is done.
    pub(crate) const fn done(&self) -> u64 {
        self.done
    }

    /// Journal blocks up to this are on the media.
    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    /// Journal blocks up to this are settled, and a durable block says so.
    pub(crate) const fn settled(&self) -> u64 {
        self.settled
    }

    /// Journal blocks up to this are settled: what pages may hold.
    pub(crate) const fn settles(&self) -> u64 {
        self.settles
    }

    /// Asks that journal blocks up to `seq` become durable.
    pub(crate) fn want_durable(&mut self, seq: u64) {
        self.want_durable = self.want_durable.max(seq);
    }

    /// Asks that journal blocks up to `seq` become settled.
    pub(crate) fn want_settled(&mut self, seq: u64) {
        self.want_settled = self.want_settled.max(seq);
    }

    /// Lowest journal block with a first write whose data is in flight.
    pub(crate) fn first_in_flight(&self) -> u64 {
        self.firsts.front().map_or(u64::MAX, |(seq, _)| *seq)
    }

    /// The data of a first write goes out; its cell is in journal block `seq`.
    pub(crate) fn first_begin(&mut self, seq: u64) {
        match self.firsts.binary_search_by_key(&seq, |(seq, _)| *seq) {
            Ok(at) => self.firsts[at].1 += 1,
            Err(at) => self.firsts.insert(at, (seq, 1)),
        }
    }

    /// It is done.
    pub(crate) fn first_end(&mut self, seq: u64) {
        if let Ok(at) = self.firsts.binary_search_by_key(&seq, |(seq, _)| *seq) {
            self.firsts[at].1 -= 1;
        }
        while self.firsts.front().is_some_and(|(_, count)| *count == 0) {
            self.firsts.pop_front();
        }
    }

    /// A slot has a cell in journal block `seq` that is not settled.
    pub(crate) fn unsettle(&mut self, block: u64, seq: u64) {
        self.unsettled.insert(block, seq);
        self.order.push_back((seq, block));
    }

    /// The journal block with the unsettled cell of a slot, if it has one.
    pub(crate) fn unsettled(&self, block: u64) -> Option<u64> {
        if self.unsettled.is_empty() { None } else { self.unsettled.get(&block).copied() }
    }

    /// Something was written.
    pub(crate) const fn wrote(&mut self) {
        self.fresh = true;
    }

    /// A write request was taken.
    pub(crate) const fn took_write(&mut self) {
        self.writes = self.writes.saturating_add(1);
    }

    /// A request asks for a flush; tells its number. Those who ask while one is asked for do not
    /// hold it back until what they need is written: what it does not cover, the next one does.
    fn ask(&mut self, covers: u64) -> u64 {
        if self.asked <= self.issued {
            self.asked = self.issued + 1;
            self.asked_covers = covers;
        }
        self.commit_to = self.commit_to.max(covers);
        self.asked
    }

    /// Whether the request that waits longest would be served by a flush that it waits for no
    /// more, but for the journal.
    fn is_owed(&self, written: u64) -> bool {
        let first = self.flushes.front();
        first.is_some_and(|(number, covers, _)| {
            *number <= self.done && *covers > self.durable && *covers <= written
        })
    }

    fn release(&mut self) {
        while let Some((seq, block)) = self.order.front().copied() {
            if seq > self.settled {
                break;
            }
            self.order.pop_front();
            if self.unsettled.get(&block) == Some(&seq) {
                self.unsettled.remove(&block);
            }
        }
    }

    /// Whether a flush is to be issued now; `stuck`: no more of the journal can be written, until
    /// a checkpoint, which waits for flushes, has made room.
    fn is_due(&self, written: u64, written_settled: u64, stuck: bool) -> bool {
        let asked = self.asked > self.issued && (written >= self.asked_covers || stuck);
        let durable = self.want_durable > self.durable && written >= self.want_durable;
        let want = self.want_settled;
        let said = written_settled >= want;
        let ready = self.settles < want && written >= want && self.first_in_flight() > want;
        asked || durable || self.is_owed(written) || (want > self.settled && (said || ready))
    }

    /// Newest journal block that somebody wants written.
    fn wanted(&self) -> u64 {
        let asked = if self.asked > self.issued { self.asked_covers } else { 0 };
        let settled = if self.settles < self.want_settled { self.want_settled } else { 0 };
        asked.max(self.want_durable).max(self.commit_to).max(settled)
    }

    /// Whether somebody waits for a block that says what is settled.
    const fn wants_news(&self, written_settled: u64) -> bool {
        let want = self.want_settled;
        want > self.settled && want > written_settled && self.settles >= want
    }
}

impl Pool {
    /// Asks for a flush that is issued from now on, and that the journal as it is becomes durable;
    /// tells the flush's number. It covers the journal as a rule: who must know asks
    /// [`Syncer::durable`].
    pub(crate) fn ask_sync(&mut self) -> u64 {
        self.sync.asked = self.sync.issued + 1;
        self.sync.asked_covers = self.journal.assigned();
        self.sync.want_durable(self.sync.asked_covers);
        self.sync.asked
    }

    /// `waiter` goes on when journal blocks up to `seq` are written.
    pub(crate) fn when_written(&mut self, seq: u64, waiter: Waiter) {
        self.sync.on_written.push((seq, waiter));
    }

    /// `waiter` goes on when journal blocks up to `seq` are durable, which is asked for.
    pub(crate) fn when_durable(&mut self, seq: u64, waiter: Waiter) {
        self.sync.want_durable(seq);
        self.sync.on_durable.push((seq, waiter));
    }

    /// `waiter` goes on when journal blocks up to `seq` are settled, which is asked for.
    pub(crate) fn when_settled(&mut self, seq: u64, waiter: Waiter) {
        self.sync.want_settled(seq);
        self.sync.on_settled.push((seq, waiter));
    }

    /// A request waits until everything that was done before it, and the journal up to block
    /// `covers`, is on the media; tells whether it is already.
    pub(crate) fn flush(&mut self, key: Key, covers: u64) -> bool {
        self.sync.lately = self.sync.writes;
        self.sync.writes = 0;
        self.sync.requests += 1;
        if self.config.plant == Some(Plant::SkipFlush) && self.sync.requests.is_multiple_of(2) {
            return true;
        }
        let number = if self.sync.fresh || covers > self.journal.written {
            self.sync.ask(covers)
        } else if self.sync.flight.is_some() {
            self.sync.issued
        } else {
            return true;
        };
        self.sync.flushes.push_back((number, covers, key));
        false
    }

    /// The write of journal blocks is done.
    pub(crate) fn on_journal_done<M: Memory>(&mut self, mem: &mut M, result: Result<u32, IoError>) {
        if let Err(error) = self.journal.on_written(result) {
            return self.fail(mem, Operation::Write, self.journal_offset(), error);
        }
        self.sync.wrote();
        let written = self.journal.written;
        wake(&mut self.sync.on_written, written, &mut self.ready);
        self.again();
    }

    fn journal_offset(&self) -> u64 {
        self.store.layout.journal_block(self.journal.emitted())
    }

    /// The flush is done.
    pub(crate) fn on_sync_done<M: Memory>(&mut self, mem: &mut M, result: Result<u32, IoError>) {
        let Some(flight) = self.sync.flight.take() else { return };
        if let Err(error) = result {
            return self.fail(mem, Operation::Flush, 0, error);
        }
        let sync = &mut self.sync;
        sync.done = sync.issued;
        sync.durable = sync.durable.max(flight.covers);
        sync.settles = sync.settles.max(flight.settles);
        sync.settled = sync.settled.max(flight.says);
        sync.release();
        self.journal.settled = self.journal.settled.max(sync.settles);
        self.journal.durable_tail = self.journal.durable_tail.max(flight.tail);
        wake(&mut sync.on_durable, sync.durable, &mut self.ready);
        wake(&mut sync.on_settled, sync.settled, &mut self.ready);
        while let Some((number, covers, key)) = self.sync.flushes.front().copied() {
            if number > self.sync.done || covers > self.sync.durable {
                break;
            }
            self.sync.flushes.pop_front();
            self.finish(mem, key);
        }
        self.again();
    }

    /// Commits the journal and issues a flush, as far as somebody waits for it.
    pub(crate) fn sync_on<M: Memory>(&mut self, mem: &mut M) {
        if self.config.read_only {
            return;
        }
        if self.sync.unsettled.len() >= self.config.limits.unsettled_max as usize
            && let Some((seq, _)) = self.sync.order.back().copied()
        {
            self.sync.want_settled(seq);
        }
        if self.wants_commit() {
            self.commit(mem);
        }
        let sync = &mut self.sync;
        let (written, says) = (self.journal.written, self.journal.written_settled);
        let tail = self.journal.written_tail;
        let room = self.journal.wants_tail() && self.journal.durable_tail < tail;
        let stuck = !self.journal.in_flight();
        if sync.flight.is_some() || !(room || sync.is_due(written, says, stuck)) {
            return;
        }
        let settles = match self.config.plant {
            Some(Plant::SettleEarly) => written,
            _ => written.min(sync.first_in_flight() - 1),
        };
        sync.issued += 1;
        sync.fresh = false;
        sync.flight = Some(Flight { covers: written, settles, says, tail });
        self.counters.device_flushes += 1;
        self.emit(Effect::Sync { token: self.token(token::SYNC, Key { index: 0, generation: 0 }) });
    }

    fn wants_commit(&self) -> bool {
        let (journal, sync) = (&self.journal, &self.sync);
        if journal.in_flight() {
            return false;
        }
        // Who flushed often once and does not any more is not waited on for ever.
        let between = sync.lately.max(sync.writes);
        let eager = between <= EAGER_WRITES && sync.data_in_flight == 0;
        let beside = between <= BESIDE_WRITES;
        let waited = journal.is_urgent() || eager || beside || sync.wanted() > journal.emitted();
        (journal.has_cells() && (waited || journal.has_full_block()))
            || (sync.wants_news(journal.written_settled) && journal.has_news())
            || (journal.has_news() && journal.wants_tail())
    }

    fn commit<M: Memory>(&mut self, mem: &mut M) {
        let Some(commit) = self.journal.commit(mem, &self.store.layout, self.config.plant) else {
            return;
        };
        self.counters.journal_writes += 1;
        self.counters.journal_blocks += commit.blocks;
        self.counters.device_written_bytes += u64::from(commit.span.len);
        let token = self.token(token::JOURNAL, Key { index: 0, generation: 0 });
        self.emit(Effect::Write { token, span: commit.span, offset: commit.offset });
    }
}

/// Wakes those who wait for something up to `reached`, in order, so that runs repeat.
fn wake(waiting: &mut Vec<(u64, Waiter)>, reached: u64, ready: &mut VecDeque<Waiter>) {
    waiting.retain(|(seq, waiter)| {
        let waits = *seq > reached;
        if !waits {
            ready.push_back(*waiter);
        }
        waits
    });
}

#[cfg(test)]
mod tests;
