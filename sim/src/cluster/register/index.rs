//! What the checks of a sector ask again and again, sorted once: a sector that is hit a hundred
//! thousand times must not take a hundred thousand times as long as one that is hit once.

use std::cell::Cell;
use std::ops::Range;

use super::super::history::{History, Look, Loss, NEVER, Number, Track, ZERO};
use crate::oracle::Tick;

/// A change of a sector that left its host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) number: Number,
    /// What it leaves.
    pub(super) value: Number,
    /// When it could take effect first.
    pub(super) start: Tick,
    /// When it could take effect last.
    pub(super) over: Tick,
    /// It may take effect more than once, or in more than one era.
    pub(super) loose: bool,
    /// The interval in which the acknowledged attempt surely took effect, and was not lost.
    pub(super) surely: Option<(Tick, Tick)>,
}

impl Change {
    pub(super) const fn is_zero(&self) -> bool {
        self.value == ZERO
    }
}

/// A look that says something, and how many losses came before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) look: &'a Look,
    pub(super) era: usize,
}

/// A sector's changes and looks, in the orders in which they are asked for.
#[derive(Debug)]
pub(super) struct Index<'a> {
    /// By number.
    pub(super) changes: Vec<Change>,
    /// By value; of one value in the order in which they were made.
    pub(super) looks: Vec<Seen<'a>>,
    /// Start and end of zeroings, by start, and the latest end so far.
    begun: Vec<(Tick, Tick, Tick)>,
    /// End and start of zeroings, by end.
    ended: Vec<(Tick, Tick)>,
    /// Changes and looks that were touched, for who measures.
    pub(super) steps: Cell<u64>,
}

impl<'a> Index<'a> {
    pub(super) fn new(history: &History, track: &'a Track) -> Self {
        let changes: Vec<Change> =
            track.changes.iter().filter_map(|number| change(history, *number)).collect();
        let seen = |look: &'a Look| Some(Seen { look, era: era(history, look)? });
        let mut looks: Vec<Seen<'a>> = track.looks.iter().filter_map(seen).collect();
        looks.sort_by_key(|seen| seen.look.value);
        let zeroings = changes.iter().filter(|change| change.is_zero());
        let mut begun: Vec<_> = zeroings.map(|zero| (zero.start, zero.over, zero.over)).collect();
        let mut ended: Vec<_> = begun.iter().map(|(start, over, _)| (*over, *start)).collect();
        begun.sort_unstable();
        ended.sort_unstable();
        let mut latest = 0;
        for (_, over, most) in &mut begun {
            latest = latest.max(*over);
            *most = latest;
        }
        let steps = Cell::new((changes.len() + looks.len()) as u64);
        Self { changes, looks, begun, ended, steps }
    }

    fn step(&self, touched: usize) {
        self.steps.set(self.steps.get() + touched as u64 + 1);
    }

    /// A change.
    pub(super) fn change(&self, number: Number) -> Option<&Change> {
        self.step(1);
        let at = self.changes.binary_search_by_key(&number, |change| change.number).ok()?;
        Some(&self.changes[at])
    }

    /// The places of all looks that saw a value.
    pub(super) fn looks_at(&self, value: Number) -> Range<usize> {
        let first = self.looks.partition_point(|seen| seen.look.value < value);
        let many = self.looks[first..].partition_point(|seen| seen.look.value == value);
        self.step(many);
        first..first + many
    }

    /// When a change that takes effect once had surely done so.
    pub(super) fn effect(&self, change: &Change) -> Tick {
        if change.loose || change.is_zero() {
            return change.over;
        }
        let looks = &self.looks[self.looks_at(change.number)];
        looks.iter().map(|seen| seen.look.until).min().unwrap_or(NEVER).min(change.over)
    }

    /// The zeroing that ended last before a moment.
    pub(super) fn zeroed_before(&self, before: Tick) -> Option<Tick> {
        self.step(1);
        let at = self.ended.partition_point(|(over, _)| *over < before);
        Some(self.ended[at.checked_sub(1)?].0)
    }

    /// Zeroings that may have taken effect while somebody looked, as the latest beginning of what
    /// they left and its earliest end. Those that fit no better than another one are left out.
    pub(super) fn zeroed_within(&self, since: Tick, until: Tick) -> Vec<(Tick, Tick)> {
        let before = self.begun.partition_point(|(start, ..)| *start <= since);
        let lasts = before.checked_sub(1).is_some_and(|at| self.begun[at].2 >= until);
        if lasts {
            self.step(1);
            return vec![(until, since)];
        }
        let low = self.ended.partition_point(|(over, _)| *over < since);
        let high = self.ended.partition_point(|(over, _)| *over < until);
        let ended = &self.ended[low..high];
        let begun = self.begun[before..].iter().take_while(|(start, ..)| *start < until);
        let begun: Vec<(Tick, Tick)> =
            begun.map(|(start, over, _)| ((*over).min(until), *start)).collect();
        self.step(ended.len() + begun.len());
        // Of those that began before, the one that ended last; of those that were not over, the
        // one that began first.
        let older = ended.iter().rev().find(|(_, start)| *start <= since);
        let newer = begun.iter().find(|(over, _)| *over == until).copied();
        let inner = begun.iter().filter(|(over, _)| *over < until).copied();
        older.map(|(over, _)| (*over, since)).into_iter().chain(newer).chain(inner).collect()
    }
}

/// What is to be known of a change, if it left its host.
pub(super) fn change(history: &History, number: Number) -> Option<Change> {
    let op = history.operation(number);
    let (start, over) = (op.start()?, op.over());
    let across = |from: Tick, to: Tick| {
        history.losses.iter().any(|loss| from < loss.ended && loss.began < to)
    };
    let loose = op.sent.len() > 1 || across(start, over);
    let surely = op.acknowledged().filter(|(sent, done)| !across(*sent, *done));
    let value = if op.is_zero() { ZERO } else { number };
    Some(Change { number, value, start, over, loose, surely })
}

/// How many losses came before a look; none if it overlaps one, and says nothing.
pub(super) fn era(history: &History, look: &Look) -> Option<usize> {
    let losses = &history.losses;
    let apart = |loss: &Loss| look.until < loss.began || look.since > loss.ended;
    losses.iter().all(apart).then(|| losses.iter().filter(|l| l.ended < look.since).count())
}

/// Things that were sent and acknowledged, such as flushes, to ask for one that surely came
/// between two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Intervals {
    /// By sending: when it was sent, and when it or one that was sent later was acknowledged
    /// first.
    sorted: Vec<(Tick, Tick)>,
}

impl Intervals {
    pub(super) fn of(mut sorted: Vec<(Tick, Tick)>) -> Self {
        sorted.sort_unstable();
        let mut soonest = NEVER;
        for (_, done) in sorted.iter_mut().rev() {
            soonest = soonest.min(*done);
            *done = soonest;
        }
        Self { sorted }
    }

    /// When one was acknowledged first that was sent after a moment.
    pub(super) fn after(&self, moment: Tick) -> Tick {
        let at = self.sorted.partition_point(|(sent, _)| *sent <= moment);
        self.sorted.get(at).map_or(NEVER, |(_, done)| *done)
    }

    /// Whether one was sent after one moment and acknowledged before another.
    pub(super) fn between(&self, after: Tick, before: Tick) -> bool {
        self.after(after) < before
    }
}
