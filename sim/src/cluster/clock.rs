//! Virtual time: what will happen, in the order in which it will.
//!
//! Invariants:
//! 1. Things happen in the order of their times; of one time, in the order in which they were set.
//! 2. Chance comes from the seed alone, so a seed is one run.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use braid_block::Instant;

use super::net::{LineId, Packet};
use crate::disk::Flight;
use crate::random::{Random, mix};
use crate::story::Story;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A packet comes to where it goes.
    Packet(Box<Packet>),
    /// A disk ends an operation.
    Disk { node: u8, life: u64, flight: Flight },
    /// A part of a write reaches the disk.
    Arrive { node: u8, life: u64, flight: Flight },
    /// A process ends its turn.
    Turn { node: u8, life: u64 },
    /// A process's deadline.
    Wake { node: u8, life: u64 },
    /// A host's machine ends its turn.
    HostTurn { host: u8 },
    /// Its deadline.
    HostWake { host: u8 },
    /// A paused process goes on.
    Resume { node: u8, pause: u64 },
    /// An end of a line has heard nothing for too long: while this cut lasts, or because the other
    /// end vanished.
    Lapse { line: LineId, near: bool, cut: Option<u64> },
    /// A connect was not answered.
    Unanswered { line: LineId },
    /// The store has not answered.
    Silence { node: u8, life: u64, question: u64 },
    /// A process has stopped in order, and ends.
    Exit { node: u8, life: u64 },
    /// A process tells the planner that it lives.
    Beat { node: u8, life: u64 },
    /// The planner looks around.
    Plan,
    /// A timer of whoever drives the cluster.
    Timer(u64),
}

impl Happening {
    /// A number for what it is.
    fn number(&self) -> u64 {
        match self {
            Self::Packet(packet) => packet.body.number(),
            Self::Disk { node, .. } => 1 << 8 | u64::from(*node),
            Self::Arrive { node, .. } => 2 << 8 | u64::from(*node),
            Self::Turn { node, .. } => 3 << 8 | u64::from(*node),
            Self::Wake { node, .. } => 4 << 8 | u64::from(*node),
            Self::HostTurn { host } => 5 << 8 | u64::from(*host),
            Self::HostWake { host } => 6 << 8 | u64::from(*host),
            Self::Resume { node, .. } => 7 << 8 | u64::from(*node),
            Self::Lapse { line, .. } | Self::Unanswered { line } => 8 << 8 | line.0 << 16,
            Self::Silence { question, .. } => 9 << 8 | question << 16,
            Self::Exit { node, .. } => 10 << 8 | u64::from(*node),
            Self::Beat { node, .. } => 11 << 8 | u64::from(*node),
            Self::Plan => 12 << 8,
            Self::Timer(timer) => 13 << 8 | timer << 16,
        }
    }
}

/// Virtual time.
#[derive(Debug)]
pub(crate) struct Clock {
    now: Instant,
    set: u64,
    due: BTreeMap<(Instant, u64), Happening>,
    happened: u64,
    digest: u64,
    pub(crate) random: Random,
    pub(crate) story: Story,
}

impl Clock {
    pub(crate) fn new(seed: u64, story: Story) -> Self {
        Self {
            now: Instant::from_nanos(1),
            set: 0,
            due: BTreeMap::new(),
            happened: 0,
            digest: 0,
            random: Random::part(seed, 20),
            story,
        }
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// How many things happened.
    pub(crate) const fn happened(&self) -> u64 {
        self.happened
    }

    /// A number for everything that happened, in its order: two runs with the same are the same.
    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    /// Sets something; what should have been before now happens now.
    pub(crate) fn at(&mut self, when: Instant, what: Happening) {
        self.set += 1;
        self.due.insert((when.max(self.now), self.set), what);
    }

    pub(crate) fn after(&mut self, delay: Duration, what: Happening) {
        self.at(self.now + delay, what);
    }

    /// The next thing; time is then.
    pub(crate) fn next(&mut self) -> Option<Happening> {
        let ((when, _), what) = self.due.pop_first()?;
        self.now = when;
        self.happened += 1;
        self.digest = mix(self.digest ^ when.as_nanos()).wrapping_add(what.number());
        Some(what)
    }

    /// Time passes until then, in which nothing happens.
    pub(crate) fn pass(&mut self, until: Instant) {
        debug_assert!(self.peek().is_none_or(|next| next >= until), "something happens before");
        self.now = self.now.max(until);
    }

    /// When the next thing happens.
    pub(crate) fn peek(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((when, _), _)| *when)
    }

    /// Tells a line of the story.
    pub(crate) fn tell<T: Display>(&self, what: impl FnOnce() -> T) {
        self.story.tell(self.now, what);
    }

    /// A time in a span, as likely short as long: each doubling has the same share.
    pub(crate) fn spread(&mut self, span: Spread) -> Duration {
        span.draw(&mut self.random)
    }

    /// True once in so many times; never for 0.
    pub(crate) fn once_in(&mut self, of: u64) -> bool {
        of != 0 && self.random.once_in(of)
    }
}

/// A span of times.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The shortest.
    pub low: Duration,
    /// About the longest.
    pub high: Duration,
}

impl Spread {
    /// A span in microseconds.
    #[must_use]
    pub const fn micros(low: u64, high: u64) -> Self {
        Self { low: Duration::from_micros(low), high: Duration::from_micros(high) }
    }

    /// A span in milliseconds.
    #[must_use]
    pub const fn millis(low: u64, high: u64) -> Self {
        Self::micros(low * 1000, high * 1000)
    }

    /// A time in it, as likely short as long.
    pub(crate) fn draw(self, random: &mut Random) -> Duration {
        let low = u64::try_from(self.low.as_nanos()).unwrap_or(u64::MAX / 2).max(1);
        let high = u64::try_from(self.high.as_nanos()).unwrap_or(u64::MAX / 2).max(low);
        let doublings = u64::from((high / low).ilog2());
        let base = low << random.below(doublings + 1);
        Duration::from_nanos(random.within(base, (base * 2).min(high.max(base))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_their_times() {
        let mut clock = Clock::new(1, Story::Silent);
        for (millis, number) in [(5, 1), (3, 2), (5, 3), (0, 4)] {
            clock.after(Duration::from_millis(millis), Happening::Timer(number));
        }
        let order: Vec<u64> = std::iter::from_fn(|| clock.next())
            .map(|what| match what {
                Happening::Timer(number) => number,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [4, 2, 1, 3]);
        assert_eq!(clock.now().since(Instant::from_nanos(1)), Duration::from_millis(5));
    }

    #[test]
    fn a_spread_is_kept_and_its_ends_are_reached() {
        let mut random = Random::new(3);
        let spread = Spread::micros(10, 1000);
        let drawn: Vec<Duration> = (0..1000).map(|_| spread.draw(&mut random)).collect();
        assert!(drawn.iter().all(|time| (spread.low..=spread.high).contains(time)));
        let short = drawn.iter().filter(|time| **time < Duration::from_micros(40)).count();
        let long = drawn.iter().filter(|time| **time > Duration::from_micros(400)).count();
        assert!(short > 200 && long > 100, "{short} {long}");
    }
}
