//! A host with several paths to a volume, which does what Linux multipath does, and a workload.
//!
//! Invariants:
//! 1. I/O goes by a path whose ANA log, read on that association, said optimized, and no other.
//! 2. A command that a path could not serve, or that it took with it when it died, is sent again
//!    elsewhere or later: the first copy may be on its way, in work or done.
//! 3. Without a path everything waits; nothing fails because of a path.
//! 4. An operation ends once: well, or with an error that must not be repeated, or one that was
//!    repeated too often.
//! 5. A block that is a media error is written anew, as a file system or an operator does: nobody
//!    else can say what belongs there.
//! 6. Chores are done one after the other, when nothing else is left to do, until each succeeds;
//!    what cannot be read in one piece is read block by block.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use braid_block::Instant;
use braid_nexus::{Status, Work};

use super::history::{Deed, History, Number};
use super::net::LineId;
use crate::image::BLOCK;
use crate::oracle::Violation;
use crate::payload::{self, SECTOR};
use crate::random::Random;

/// Errors that are neither of a path nor final are repeated so often (`nvme_core.max_retries`).
const RETRIES_MAX: u32 = 5;
/// Sectors of a transfer, at most.
const TRANSFER_SECTORS: u64 = 256;
/// Sectors of a block, the unit of what can be lost.
const BLOCK_SECTORS: u64 = (BLOCK / SECTOR) as u64;

/// How a host behaves.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Operations at once.
    pub depth: usize,
    /// Pause between the end of an operation and the next, at most; each is as likely.
    pub think: Duration,
    /// A command that takes longer resets its path.
    pub patience: Duration,
    /// Pause before a path is connected again.
    pub reconnect: Duration,
    /// Reads, writes, zeroings and flushes, by weight.
    pub weights: [u32; 4],
    /// One write in so many is durable (FUA); 0: none.
    pub durable_in: u64,
    /// First sector and sectors of the range that most operations hit.
    pub hot: (u64, u64),
    /// Operations of a hundred that hit it.
    pub heat: u64,
    /// Sectors of the volume.
    pub sectors: u64,
    /// Sectors of a transfer, at most.
    pub transfer: u64,
    /// Transfers of a hundred that do not begin and end with blocks of 4 KiB.
    pub ragged: u64,
}

/// What happened to a host.
#[derive(Clone, Debug)]
pub(crate) enum Input<'a> {
    /// A line stands.
    Opened,
    /// It does not, or does not any more.
    Ended,
    /// The ANA log that was asked for.
    Ana {
        /// Whether this path is optimized.
        optimized: bool,
    },
    /// An event: the access state changed.
    Access,
    /// A command was answered.
    Completed {
        /// Of the command.
        tag: u64,
        /// With what.
        status: Status,
        /// What was read.
        bytes: &'a [u8],
    },
}

/// What a host does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Connect to this portal; the answer is [`Host::opening`].
    Open {
        /// By number of the host's paths.
        path: usize,
    },
    /// Leave a line.
    Close {
        /// Which.
        line: LineId,
    },
    /// Read the ANA log.
    ReadAna {
        /// Over which line.
        line: LineId,
    },
    /// Send a command.
    Request {
        /// Over which line.
        line: LineId,
        /// Comes back.
        tag: u64,
        /// Of which operation.
        number: Number,
        /// What.
        work: Work,
        /// What is to be written.
        bytes: Vec<u8>,
    },
}

/// What is known of the access state of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// The log is being read; `stale`: something happened meanwhile, so once more.
    Reading {
        stale: bool,
    },
    Optimized,
    Inaccessible,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Down { until: Instant },
    Opening { line: LineId },
    Live { line: LineId, access: Access },
}

/// A command on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: Number,
    attempt: usize,
    line: LineId,
    since: Instant,
}

/// An operation that is not out.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: Number,
    not_before: Instant,
}

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    number: usize,
    habits: Habits,
    random: Random,
    up: bool,
    /// It begins nothing new.
    quiet: bool,
    paths: Vec<Path>,
    flying: BTreeMap<u64, Flight>,
    waiting: VecDeque<Waiting>,
    retries: BTreeMap<Number, u32>,
    /// Ranges that it shall read, and the one that it reads.
    chores: VecDeque<(u64, u64)>,
    chore: Option<Number>,
    /// When each free place of its depth begins something.
    free: Vec<Instant>,
    tags: u64,
    outputs: VecDeque<Output>,
}

impl Host {
    /// A host that connects to so many portals, all at once.
    #[must_use]
    pub(crate) fn new(number: usize, paths: usize, habits: Habits, random: Random) -> Self {
        let free = vec![Instant::ZERO; habits.depth];
        Self {
            number,
            habits,
            random,
            up: true,
            quiet: false,
            paths: vec![Path::Down { until: Instant::ZERO }; paths],
            flying: BTreeMap::new(),
            waiting: VecDeque::new(),
            retries: BTreeMap::new(),
            chores: VecDeque::new(),
            chore: None,
            free,
            tags: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The next thing it does.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether nothing is out and nothing waits.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        self.flying.is_empty() && self.waiting.is_empty() && self.chores.is_empty()
    }

    /// Whether it runs.
    #[must_use]
    pub(crate) const fn is_up(&self) -> bool {
        self.up
    }

    /// Operations that were not answered for good.
    pub(crate) fn open(&self) -> impl Iterator<Item = Number> {
        let flying = self.flying.values().map(|flight| flight.number);
        flying.chain(self.waiting.iter().map(|waiting| waiting.number))
    }

    /// It begins nothing new from now on, or does again.
    pub(crate) const fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// It shall read a range, and mend what it cannot read.
    pub(crate) fn read_all(
        &mut self,
        now: Instant,
        history: &mut History,
        ranges: impl Iterator<Item = (u64, u64)>,
    ) {
        self.chores.extend(ranges);
        self.act(now, history);
    }

    /// What it is told to do beside its workload.
    #[cfg(test)]
    pub(crate) fn add(
        &mut self,
        now: Instant,
        history: &mut History,
        deed: Deed,
        range: (u64, u64),
    ) {
        let number = history.begin(now, self.number, deed, range);
        self.waiting.push_back(Waiting { number, not_before: now });
        self.act(now, history);
    }

    /// It loses its memory. What it asked for is never answered; peers hear nothing of it.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.flying.clear();
        self.waiting.clear();
        self.retries.clear();
        self.chores.clear();
        self.chore = None;
        self.outputs.clear();
        self.free.clear();
    }

    /// It runs again, under the same name.
    pub(crate) fn restart(&mut self, now: Instant, history: &mut History) {
        self.up = true;
        self.paths.fill(Path::Down { until: now });
        self.free = vec![now; self.habits.depth];
        self.act(now, history);
    }

    /// The volume has so many sectors.
    pub(crate) const fn resized(&mut self, sectors: u64) {
        self.habits.sectors = sectors;
    }

    /// It resets a path.
    pub(crate) fn reset(&mut self, now: Instant, history: &mut History, path: usize) {
        if self.up {
            self.leave(now, path);
            self.act(now, history);
        }
    }

    /// A line that [`Output::Open`] asked for has this number.
    pub(crate) fn opening(&mut self, path: usize, line: LineId) {
        self.paths[path] = Path::Opening { line };
    }

    /// Something happened on a line. What is of no line of its is of an earlier life.
    ///
    /// # Errors
    /// If it read what nobody wrote.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        history: &mut History,
        line: LineId,
        input: Input<'_>,
    ) -> Result<(), Violation> {
        let Some(path) = self.path_of(line) else { return Ok(()) };
        match input {
            Input::Opened => self.ask_access(path, line),
            Input::Ended => self.down(now, path),
            Input::Ana { optimized } => self.learn(path, line, optimized),
            Input::Access => self.doubt(path, line),
            Input::Completed { tag, status, bytes } => {
                self.complete(now, history, path, (tag, status, bytes))?;
            }
        }
        self.act(now, history);
        Ok(())
    }

    /// Time passed: what [`Host::due`] asked for.
    pub(crate) fn elapse(&mut self, now: Instant, history: &mut History) {
        let late = |flight: &&Flight| flight.since + self.habits.patience <= now;
        let mut late: Vec<LineId> =
            self.flying.values().filter(late).map(|flight| flight.line).collect();
        late.dedup();
        for line in late {
            if let Some(path) = self.path_of(line) {
                self.leave(now, path);
            }
        }
        self.act(now, history);
    }

    /// When it wants to be called.
    #[must_use]
    pub(crate) fn due(&self) -> Option<Instant> {
        if !self.up {
            return None;
        }
        let paths = self.paths.iter().filter_map(|path| match path {
            Path::Down { until } => Some(*until),
            _ => None,
        });
        let patience = self.flying.values().map(|flight| flight.since + self.habits.patience);
        let usable = !self.optimized().is_empty();
        let waiting = self.waiting.iter().filter(|_| usable).map(|waiting| waiting.not_before);
        let free = self.free.iter().filter(|_| !self.quiet).copied();
        paths.chain(patience).chain(waiting).chain(free).min()
    }

    fn path_of(&self, line: LineId) -> Option<usize> {
        self.paths.iter().position(|path| match path {
            Path::Opening { line: of } | Path::Live { line: of, .. } => *of == line && self.up,
            Path::Down { .. } => false,
        })
    }

    /// Paths that take I/O. Two say so while one of them has not heard that it lost the volume.
    fn optimized(&self) -> Vec<LineId> {
        let lines = self.paths.iter().filter_map(|path| match path {
            Path::Live { line, access: Access::Optimized } => Some(*line),
            _ => None,
        });
        lines.collect()
    }

    fn ask_access(&mut self, path: usize, line: LineId) {
        self.paths[path] = Path::Live { line, access: Access::Reading { stale: false } };
        self.outputs.push_back(Output::ReadAna { line });
    }

    /// The log that was asked for came.
    fn learn(&mut self, path: usize, line: LineId, optimized: bool) {
        match &mut self.paths[path] {
            Path::Live { access: Access::Reading { stale: true }, .. } => {
                self.ask_access(path, line);
            }
            Path::Live { access, .. } => {
                *access = if optimized { Access::Optimized } else { Access::Inaccessible };
            }
            _ => {}
        }
    }

    /// What was known of the access state may be wrong.
    fn doubt(&mut self, path: usize, line: LineId) {
        match &mut self.paths[path] {
            Path::Live { access: Access::Reading { stale }, .. } => *stale = true,
            Path::Live { .. } => self.ask_access(path, line),
            _ => {}
        }
    }

    fn leave(&mut self, now: Instant, path: usize) {
        if let Path::Opening { line } | Path::Live { line, .. } = self.paths[path] {
            self.outputs.push_back(Output::Close { line });
            self.down(now, path);
        }
    }

    /// A path is dead: what was sent by it is sent again, whatever became of it.
    fn down(&mut self, now: Instant, path: usize) {
        let line = match self.paths[path] {
            Path::Opening { line } | Path::Live { line, .. } => line,
            Path::Down { .. } => return,
        };
        self.paths[path] = Path::Down { until: now + self.habits.reconnect };
        let lost: Vec<u64> = self
            .flying
            .iter()
            .filter(|(_, flight)| flight.line == line)
            .map(|(tag, _)| *tag)
            .collect();
        for tag in lost.into_iter().rev() {
            if let Some(Flight { number, .. }) = self.flying.remove(&tag) {
                self.waiting.push_front(Waiting { number, not_before: now });
            }
        }
    }

    fn complete(
        &mut self,
        now: Instant,
        history: &mut History,
        path: usize,
        (tag, status, bytes): (u64, Status, &[u8]),
    ) -> Result<(), Violation> {
        let Some(Flight { number, attempt, line, .. }) = self.flying.remove(&tag) else {
            return Ok(());
        };
        match status {
            Status::Success => {
                self.chore = self.chore.filter(|chore| *chore != number);
                self.rest(now, number);
                if history.operation(number).deed == Deed::Read {
                    return history.was_read(now, number, attempt, bytes);
                }
                history.acknowledged(now, number, attempt);
            }
            Status::Inaccessible => {
                history.bounced(number);
                self.doubt(path, line);
                self.waiting.push_front(Waiting { number, not_before: now });
            }
            Status::Busy | Status::WriteFault { dnr: false } => {
                let retries = self.retries.entry(number).or_default();
                *retries += 1;
                if *retries > RETRIES_MAX {
                    self.rest(now, number);
                    history.failed(now, number, true);
                    self.again(history, number);
                    return Ok(());
                }
                history.bounced(number);
                let pause = Duration::from_micros(self.random.within(10, 2000));
                self.waiting.push_back(Waiting { number, not_before: now + pause });
            }
            Status::Media(offset) => {
                history.failed(now, number, true);
                self.mend(now, history, number, offset);
                self.again(history, number);
                self.rest(now, number);
            }
            Status::WriteFault { dnr: true } | Status::NoSpace | Status::Invalid => {
                self.rest(now, number);
                history.failed(now, number, true);
                self.again(history, number);
            }
        }
        Ok(())
    }

    /// Writes a block anew that an operation met as a media error. Of a chore only one block is
    /// believed to be bad.
    fn mend(&mut self, now: Instant, history: &mut History, failed: Number, offset: u64) {
        if self.chore == Some(failed) && history.operation(failed).sectors > BLOCK_SECTORS {
            return;
        }
        let first = offset / BLOCK as u64 * BLOCK_SECTORS;
        let deed = Deed::Write { durable: false };
        let number = history.begin(now, self.number, deed, (first, BLOCK_SECTORS));
        self.waiting.push_back(Waiting { number, not_before: now });
    }

    /// A chore that failed is to be done again, in pieces.
    fn again(&mut self, history: &History, failed: Number) {
        if self.chore.take_if(|chore| *chore == failed).is_none() {
            return;
        }
        let op = history.operation(failed);
        for piece in (0..op.sectors.div_ceil(BLOCK_SECTORS)).rev() {
            self.chores.push_front((op.first + piece * BLOCK_SECTORS, BLOCK_SECTORS));
        }
    }

    /// An operation ended: its place is free after a pause.
    fn rest(&mut self, now: Instant, number: Number) {
        self.retries.remove(&number);
        let busy = self.flying.len() + self.waiting.len() + self.free.len();
        if busy < self.habits.depth {
            let think = u64::try_from(self.habits.think.as_nanos()).unwrap_or(0);
            let pause = Duration::from_nanos(self.random.within(0, think));
            self.free.push(now + pause);
        }
    }

    /// Connects, begins and sends whatever it can.
    fn act(&mut self, now: Instant, history: &mut History) {
        if !self.up {
            return;
        }
        for path in 0..self.paths.len() {
            if matches!(self.paths[path], Path::Down { until } if until <= now) {
                // Until it has a number; whoever drives this host gives it at once.
                self.paths[path] = Path::Down { until: now + self.habits.reconnect };
                self.outputs.push_back(Output::Open { path });
            }
        }
        if !self.quiet {
            let begins = self.free.len();
            self.free.retain(|when| *when > now);
            for _ in self.free.len()..begins {
                let (deed, range) = self.choose();
                let number = history.begin(now, self.number, deed, range);
                self.waiting.push_back(Waiting { number, not_before: now });
            }
        }
        if self.quiet && self.flying.is_empty() && self.waiting.is_empty() {
            self.chore = self.chores.pop_front().map(|range| {
                let number = history.begin(now, self.number, Deed::Read, range);
                self.waiting.push_back(Waiting { number, not_before: now });
                number
            });
        }
        let usable = self.optimized();
        if usable.is_empty() {
            return;
        }
        let mut later = VecDeque::new();
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.not_before > now {
                later.push_back(waiting);
            } else {
                let line = *self.random.pick(&usable);
                self.send(now, history, line, waiting.number);
            }
        }
        self.waiting = later;
    }

    fn send(&mut self, now: Instant, history: &mut History, line: LineId, number: Number) {
        let attempt = history.send(number);
        self.tags += 1;
        let tag = self.tags;
        self.flying.insert(tag, Flight { number, attempt, line, since: now });
        let op = history.operation(number);
        let offset = op.first * SECTOR as u64;
        let bytes = op.sectors * SECTOR as u64;
        let len = u32::try_from(bytes).unwrap_or(u32::MAX);
        let work = match op.deed {
            Deed::Read => Work::Read { offset, len },
            Deed::Write { durable } => Work::Write { offset, len, durable },
            Deed::Zero { durable } => Work::Zero { offset, len: bytes, durable },
            Deed::Flush => Work::Flush,
        };
        let mut content = Vec::new();
        if matches!(op.deed, Deed::Write { .. }) {
            content.resize(len as usize, 0);
            for (sector, piece) in (op.first..).zip(content.chunks_exact_mut(SECTOR)) {
                payload::fill(piece, history.named(number), sector);
            }
        }
        self.outputs.push_back(Output::Request { line, tag, number, work, bytes: content });
    }

    fn choose(&mut self) -> (Deed, (u64, u64)) {
        let durable = self.habits.durable_in != 0 && self.random.once_in(self.habits.durable_in);
        let deed = match self.random.weighted(&self.habits.weights) {
            0 => Deed::Read,
            1 => Deed::Write { durable },
            2 => Deed::Zero { durable },
            _ => return (Deed::Flush, (0, 0)),
        };
        (deed, self.range())
    }

    fn range(&mut self) -> (u64, u64) {
        let hot = self.random.below(100) < self.habits.heat;
        let (low, sectors) = if hot { self.habits.hot } else { (0, self.habits.sectors) };
        let longest = self.habits.transfer.min(TRANSFER_SECTORS).min(sectors);
        let ragged = self.random.below(100) < self.habits.ragged;
        let unit = if ragged { 1 } else { 8.min(longest) };
        // Each doubling is as likely: many are small.
        let doublings = (longest / unit).max(1).ilog2();
        let most = (unit << self.random.below(u64::from(doublings) + 1)).min(longest);
        let count = self.random.within(1, most / unit) * unit;
        let first = self.random.below((sectors - count) / unit + 1) * unit;
        (low + first, count)
    }
}

#[cfg(test)]
mod tests;
