//! What hosts asked and were answered: the one thing that a volume is judged by.
//!
//! Time is a counter of things that happened, so no two of them are at once. A host that gets no
//! answer, or one that says "elsewhere", sends the same command again: every sending is an
//! *attempt*, and each may take effect once until the operation's final answer, none after it.

use std::collections::BTreeMap;

use braid_block::Instant;

use crate::oracle::{Tick, Violation};
use crate::payload::{self, SECTOR, Said};

/// Number of an operation, counted from 1; a write's is what it writes.
pub type Number = u32;

/// No time at all.
pub(super) const NEVER: Tick = Tick::MAX;
/// What a sector says that no write touched, or a zeroing.
pub(super) const ZERO: Number = 0;

/// What a host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Read.
    Read,
    /// Write its own number.
    Write {
        /// To the media before the answer (FUA).
        durable: bool,
    },
    /// Make zeros.
    Zero {
        /// To the media before the answer (FUA).
        durable: bool,
    },
    /// Make durable what was acknowledged.
    Flush,
}

impl Deed {
    /// Whether it changes what is read.
    #[must_use]
    pub(crate) const fn changes(self) -> bool {
        matches!(self, Self::Write { .. } | Self::Zero { .. })
    }

    /// Whether its answer promises something of the media.
    #[must_use]
    pub(crate) const fn flushes(self) -> bool {
        matches!(self, Self::Flush) || self.is_durable()
    }

    /// Whether it is on the media before its answer.
    #[must_use]
    pub(crate) const fn is_durable(self) -> bool {
        matches!(self, Self::Write { durable: true } | Self::Zero { durable: true })
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Well: this attempt was acknowledged.
    Done {
        /// Counted from 0.
        attempt: usize,
    },
    /// With an error: it may have taken effect.
    Failed,
}

/// One thing that a host asked for, with all its attempts.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// Whose.
    pub(crate) host: usize,
    /// What.
    pub(crate) deed: Deed,
    /// First sector.
    pub(crate) first: u64,
    /// Sectors.
    pub(crate) sectors: u64,
    /// When each attempt was sent; none: it never left its host.
    pub(crate) sent: Vec<Tick>,
    /// Attempts that nobody has answered.
    unanswered: u32,
    end: Option<(Tick, End)>,
    began: Instant,
    ended: Instant,
}

impl Operation {
    /// When it could take effect first.
    pub(super) fn start(&self) -> Option<Tick> {
        self.sent.first().copied()
    }

    /// When it could take effect last: an operation that failed while an attempt was out may
    /// take effect for ever.
    pub(super) fn over(&self) -> Tick {
        match self.end {
            Some((tick, End::Done { .. })) => tick,
            Some((tick, End::Failed)) if self.unanswered == 0 => tick,
            _ => NEVER,
        }
    }

    /// When the attempt that was acknowledged was sent, and when it was acknowledged.
    pub(super) fn acknowledged(&self) -> Option<(Tick, Tick)> {
        match self.end {
            Some((tick, End::Done { attempt })) => Some((self.sent[attempt], tick)),
            _ => None,
        }
    }

    /// Whether it was answered for good.
    #[cfg(test)]
    pub(crate) const fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) const fn is_zero(&self) -> bool {
        matches!(self.deed, Deed::Zero { .. })
    }
}

/// A loss of what was acknowledged and not flushed: a lossy activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// When the epoch was claimed that found it.
    pub(super) began: Tick,
    /// When that epoch began to serve.
    pub(super) ended: Tick,
}

/// A sector's content as somebody saw it, at some point of an interval.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) value: Number,
    pub(super) since: Tick,
    pub(super) until: Tick,
    pub(super) by: Eye,
}

/// Who looked.
#[derive(Clone, Debug)]
pub(super) enum Eye {
    /// A host's read.
    Read(Number),
    /// A checker looked into a replica.
    Replica(u8),
}

/// What is known of one sector.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// Operations that change it, in order of their numbers.
    pub(super) changes: Vec<Number>,
    pub(super) looks: Vec<Look>,
}

/// A flush that was acknowledged: when it was sent, and when it was answered.
pub(super) type Flushed = (Tick, Tick);

/// The history of one volume.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Of which volume: part of what its writes write.
    volume: u8,
    now: Tick,
    operations: Vec<Operation>,
    pub(super) tracks: BTreeMap<u64, Track>,
    pub(super) flushes: Vec<Flushed>,
    pub(super) losses: Vec<Loss>,
    /// When an epoch began to serve, each.
    pub(super) servings: Vec<Tick>,
    /// When an epoch was claimed, each.
    claims: BTreeMap<u64, Tick>,
    /// A loss was found and nobody serves yet: when its epoch was claimed.
    losing: Option<Tick>,
}

/// Bits of a number in what is written; the volume is above.
const NUMBER_BITS: u32 = 26;

impl History {
    /// Of this volume, at most 63.
    #[must_use]
    pub fn new(volume: u8) -> Self {
        assert!(volume < 64, "a volume that cannot be named");
        Self { volume, ..Self::default() }
    }

    /// What an operation writes: its number, and its volume's.
    #[must_use]
    pub fn named(&self, number: Number) -> u32 {
        assert!(number >> NUMBER_BITS == 0, "more operations than can be named");
        u32::from(self.volume) << NUMBER_BITS | number
    }

    /// The time, which passes by this.
    pub(crate) const fn tick(&mut self) -> Tick {
        self.now += 1;
        self.now
    }

    /// An operation.
    ///
    /// # Panics
    /// If there is none of that number.
    #[must_use]
    pub(crate) fn operation(&self, number: Number) -> &Operation {
        &self.operations[number as usize - 1]
    }

    fn operation_mut(&mut self, number: Number) -> &mut Operation {
        &mut self.operations[number as usize - 1]
    }

    /// All operations, from number 1.
    #[cfg(test)]
    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// A host wants something. It is not sent yet.
    pub fn begin(
        &mut self,
        at: Instant,
        host: usize,
        deed: Deed,
        (first, sectors): (u64, u64),
    ) -> Number {
        let (sent, ended) = (Vec::new(), at);
        let (unanswered, end) = (0, None);
        let op = Operation { host, deed, first, sectors, sent, unanswered, end, began: at, ended };
        self.operations.push(op);
        let number = Number::try_from(self.operations.len()).expect("few operations");
        if deed.changes() {
            for sector in first..first + sectors {
                self.tracks.entry(sector).or_default().changes.push(number);
            }
        }
        number
    }

    /// It is sent, for the first time or again; gives the attempt's number.
    pub fn send(&mut self, number: Number) -> usize {
        let tick = self.tick();
        let op = self.operation_mut(number);
        op.sent.push(tick);
        op.unanswered += 1;
        op.sent.len() - 1
    }

    /// An attempt was answered, and not for good.
    pub fn bounced(&mut self, number: Number) {
        self.operation_mut(number).unanswered -= 1;
    }

    /// An attempt was acknowledged: that is the final answer.
    pub fn acknowledged(&mut self, at: Instant, number: Number, attempt: usize) {
        let tick = self.end(at, number, End::Done { attempt });
        let op = self.operation_mut(number);
        op.unanswered -= 1;
        if op.deed == Deed::Flush {
            let sent = op.sent[attempt];
            self.flushes.push((sent, tick));
        }
    }

    /// A read was answered with these bytes.
    ///
    /// # Errors
    /// If a sector says what no write put there.
    pub fn was_read(
        &mut self,
        at: Instant,
        number: Number,
        attempt: usize,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        self.acknowledged(at, number, attempt);
        let op = self.operation(number);
        let (first, since) = (op.first, op.sent[attempt]);
        let until = self.now;
        self.see(first, bytes, (since, until), &Eye::Read(number))
    }

    /// An operation failed for good. `answered`: the attempt that failed was.
    pub fn failed(&mut self, at: Instant, number: Number, answered: bool) {
        self.end(at, number, End::Failed);
        let op = self.operation_mut(number);
        op.unanswered -= u32::from(answered);
    }

    /// A checker looked into a replica, which holds what hosts would read now.
    pub fn looked(&mut self, slot: u8, values: &BTreeMap<u64, Number>) {
        let now = self.tick();
        for (sector, value) in values {
            let by = Eye::Replica(slot);
            let look = Look { value: *value, since: now, until: now, by };
            self.tracks.entry(*sector).or_default().looks.push(look);
        }
    }

    /// An epoch was claimed: the store has it.
    pub(crate) fn claimed(&mut self, epoch: u64) {
        let now = self.tick();
        self.claims.entry(epoch).or_insert(now);
    }

    /// An epoch found a loss: the store has it.
    pub(crate) fn lost(&mut self, epoch: u64) {
        let now = self.tick();
        let began = self.claims.get(&epoch).copied().unwrap_or(now);
        self.losing.get_or_insert(began);
    }

    /// An epoch serves.
    pub(crate) fn serving(&mut self) {
        let ended = self.tick();
        self.servings.push(ended);
        if let Some(began) = self.losing.take() {
            self.losses.push(Loss { began, ended });
        }
    }

    /// Whether what was read may be so, sector by sector: see [`register`](super::register).
    ///
    /// # Errors
    /// *BlockLinearizable* and its kin: the first sector whose reads have no explanation.
    pub fn check(&self) -> Result<(), Violation> {
        super::register::check(self)
    }

    /// What a sector's bytes say, if they belong there.
    ///
    /// # Errors
    /// If it does not.
    pub fn value(&self, bytes: &[u8], sector: u64) -> Result<Number, Violation> {
        let wrong = |text: String| Violation::new("NeverWrongData", text);
        match payload::said(bytes) {
            Said::Zero => Ok(ZERO),
            Said::Garbage => Err(wrong(format!("sector {sector} says nothing that was written"))),
            Said::Written { write, sector: of } => {
                let (volume, number) = (write >> NUMBER_BITS, write % (1 << NUMBER_BITS));
                let wrote = |op: &Operation| {
                    let covers = (op.first..op.first + op.sectors).contains(&sector);
                    covers && matches!(op.deed, Deed::Write { .. })
                };
                let op = (number as usize).checked_sub(1).and_then(|at| self.operations.get(at));
                if volume == self.volume.into() && of == sector && op.is_some_and(wrote) {
                    return Ok(number);
                }
                let text = format!("write {number} of sector {of} of volume {volume}");
                Err(wrong(format!("sector {sector} says {text}")))
            }
        }
    }

    fn see(
        &mut self,
        first: u64,
        bytes: &[u8],
        (since, until): (Tick, Tick),
        by: &Eye,
    ) -> Result<(), Violation> {
        for (sector, piece) in (first..).zip(bytes.chunks_exact(SECTOR)) {
            let value = self.value(piece, sector)?;
            let look = Look { value, since, until, by: by.clone() };
            self.tracks.entry(sector).or_default().looks.push(look);
        }
        Ok(())
    }

    fn end(&mut self, at: Instant, number: Number, end: End) -> Tick {
        let tick = self.tick();
        let op = self.operation_mut(number);
        assert!(op.end.is_none(), "operation {number} ended twice");
        op.end = Some((tick, end));
        op.ended = at;
        tick
    }

    /// An operation for people.
    #[must_use]
    pub(crate) fn describe(&self, number: Number) -> String {
        if number == ZERO {
            return "zeros".into();
        }
        let op = self.operation(number);
        let what = match op.deed {
            Deed::Read => "read",
            Deed::Write { durable: false } => "write",
            Deed::Write { durable: true } => "durable write",
            Deed::Zero { .. } => "zeroing",
            Deed::Flush => "flush",
        };
        let end = match op.end {
            Some((_, End::Done { .. })) => format!("to {}", millis(op.ended)),
            Some((_, End::Failed)) => format!("failed at {}", millis(op.ended)),
            None => "never answered".into(),
        };
        let attempts = op.sent.len();
        format!(
            "#{number} ({what} of sectors {}+{} by host {}, from {} {end}, sent {attempts} times)",
            op.first,
            op.sectors,
            op.host,
            millis(op.began)
        )
    }
}

pub(super) fn millis(at: Instant) -> String {
    let micros = at.as_nanos() / 1000;
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}
