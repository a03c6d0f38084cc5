//! Whether what was read of a volume may be so: each sector is a register, and so is checked for
//! itself.
//!
//! Every write has a value of its own, so a *zone* says all that matters of it: it begins at
//! `first`, by which the write surely took effect, and ends at `last`, until when it surely was
//! not overwritten; for a value that nobody read these are the write's end and its beginning.
//! A precedes B if `A.first < B.last`. Reads and writes of one register have a linear order that
//! agrees with time exactly if no two zones precede each other (Gibbons and Korach, 1997), which
//! a sort finds.
//!
//! What is not a plain register here:
//! 1. A write that was sent more than once may take effect more than once before its final
//!    answer, so each read of its value has a zone of its own.
//! 2. Zeros have no number: a read of them is explained by any zeroing that fits, and by the
//!    beginning.
//! 3. A loss (lossy activation) cuts time into *eras*. One value of an older era may survive it,
//!    as if it were written anew, if no durable write surely came after it.
//!
//! Where that leaves several explanations, one that fits is enough: a finding is never false.
//!
//! What a sector costs grows with what happened to it times the losses, not with its square.

mod index;

use std::collections::BTreeMap;

use crate::oracle::{Tick, Violation};

use super::history::{Eye, History, Look, Loss, NEVER, Number, Track, ZERO};
use index::{Change, Index, Intervals};

/// When a value is surely there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Zone {
    value: Number,
    first: Tick,
    last: Tick,
    /// The place of the look until which it was seen, if one did.
    seen: Option<usize>,
}

impl Zone {
    const fn contradicts(self, other: Self) -> bool {
        self.value != other.value && self.first < other.last && other.first < self.last
    }

    /// One zone for what is known of the same value.
    fn both(self, other: Self) -> Self {
        let seen = if other.last > self.last { other.seen } else { self.seen };
        let (first, last) = (self.first.min(other.first), self.last.max(other.last));
        Self { first, last, seen: seen.or(self.seen).or(other.seen), ..self }
    }
}

/// Checks all sectors.
///
/// # Errors
/// The first sector whose reads have no explanation.
pub(super) fn check(history: &History) -> Result<(), Violation> {
    checked(history).map(|_| ())
}

/// The same, and how many changes and looks were touched for it.
fn checked(history: &History) -> Result<u64, Violation> {
    let flushes = Intervals::of(history.flushes.clone());
    let mut steps = 0;
    for (sector, track) in &history.tracks {
        let sector = Sector::new(history, &flushes, track, *sector);
        sector.check()?;
        steps += sector.index.steps.get();
    }
    Ok(steps)
}

/// Whether there was one moment within an interval in which the volume's sectors said this.
///
/// # Errors
/// *SnapshotPoint*: the first sector that does not fit to those before it.
pub(super) fn moment(
    history: &History,
    values: &BTreeMap<u64, Number>,
    (began, ended): (Tick, Tick),
) -> Result<(), Violation> {
    let (mut low, mut high) = (began, ended);
    let sector = |number: &u64| history.tracks.get(number).map(|track| Times { history, track });
    let wrong = |number: u64, value: Number, when: (Tick, Tick), left: (Tick, Tick)| {
        let (low, high) = left;
        let value = history.describe(value);
        let text = format!(
            "sector {number} says {value}, which was so from {} to {}, but the others from {low} \
             to {high}; the snapshot was taken from {began} to {ended}",
            when.0, when.1
        );
        Err(Violation::new("SnapshotPoint", text))
    };
    for (number, value) in values.iter().filter(|(_, value)| **value != ZERO) {
        let Some(sector) = sector(number) else { continue };
        let when = sector.time_of(*value, began);
        if when.0.max(low) >= when.1.min(high) {
            return wrong(*number, *value, when, (low, high));
        }
        (low, high) = (when.0.max(low), when.1.min(high));
    }
    // Any zeroing may have made zeros: for each sector alone one must fit.
    for (number, value) in values.iter().filter(|(_, value)| **value == ZERO) {
        let Some(sector) = sector(number) else { continue };
        let times = sector.times_of_zeros(began);
        if !times.iter().any(|when| when.0.max(low) < when.1.min(high)) {
            let last = times.last().copied().unwrap_or_default();
            return wrong(*number, *value, last, (low, high));
        }
    }
    Ok(())
}

/// One sector of a history.
struct Sector<'a> {
    history: &'a History,
    number: u64,
    index: Index<'a>,
    /// What may have survived each loss.
    ages: Vec<Age>,
}

/// What is known of a sector before the loss that began an era.
#[derive(Clone, Copy, Debug, Default)]
struct Age {
    /// When zeros were surely made last; the beginning is one such time.
    zeroed: Tick,
    /// Until when values were surely durable: the last one, and the last one of another value.
    durable: [Option<(Number, Tick)>; 2],
    /// Whether zeros may have survived the loss.
    zeros: bool,
}

impl Age {
    /// A value was surely there, and durable, until then.
    fn keep(&mut self, value: Number, until: Tick) {
        let later = |than: Option<(Number, Tick)>| than.is_none_or(|(_, tick)| until > tick);
        match self.durable {
            [Some((top, tick)), _] if top == value => {
                self.durable[0] = Some((value, until.max(tick)));
            }
            [top, _] if later(top) => self.durable = [Some((value, until)), top],
            [_, second] if later(second) => self.durable[1] = Some((value, until)),
            _ => {}
        }
    }

    /// Until when a durable value other than this one was surely there.
    fn durable_but(&self, value: Number) -> Option<Tick> {
        let others = self.durable.iter().flatten().filter(|(other, _)| *other != value);
        others.map(|(_, tick)| *tick).max()
    }
}

/// Zones in order of their firsts, to ask for one that contradicts.
struct Zones {
    sorted: Vec<Zone>,
    /// Of each beginning of `sorted`, the two zones that last longest, of different values.
    longest: Vec<[Option<Zone>; 2]>,
}

impl Zones {
    fn new(mut sorted: Vec<Zone>) -> Self {
        sorted.sort_unstable_by_key(|zone| (zone.first, zone.last));
        let mut best = [None::<Zone>; 2];
        let mut longest = vec![best];
        for zone in &sorted {
            let lasts = |of: Option<Zone>| of.map_or(0, |zone| zone.last);
            match best {
                [Some(top), second] if top.value == zone.value => {
                    let longer = if zone.last > top.last { *zone } else { top };
                    best = [Some(longer), second];
                }
                [top, _] if zone.last > lasts(top) || top.is_none() => best = [Some(*zone), top],
                [top, second] if zone.last > lasts(second) => best = [top, Some(*zone)],
                _ => {}
            }
            longest.push(best);
        }
        Self { sorted, longest }
    }

    /// A zone that contradicts this one.
    fn against(&self, zone: Zone) -> Option<Zone> {
        let begun = self.sorted.partition_point(|other| other.first < zone.last);
        let longest = self.longest[begun].into_iter().flatten();
        longest.into_iter().find(|other| other.contradicts(zone))
    }
}

impl<'a> Sector<'a> {
    fn new(history: &'a History, flushes: &Intervals, track: &'a Track, number: u64) -> Self {
        let index = Index::new(history, track);
        let mut sector = Self { history, number, index, ages: Vec::new() };
        for era in 1..=history.losses.len() {
            let age = sector.age(flushes, era);
            sector.ages.push(age);
            sector.ages[era - 1].zeros = sector.survives(ZERO, era);
        }
        sector
    }

    fn check(&self) -> Result<(), Violation> {
        let mut fixed = Vec::new();
        for change in &self.index.changes {
            self.change(change, &mut fixed)?;
        }
        let mut open = Vec::new();
        self.zeros(&mut fixed, &mut open);
        self.survivors(&mut fixed)?;
        let zones = Zones::new(fixed);
        for zone in &zones.sorted {
            if let Some(other) = zones.against(*zone) {
                return Err(self.contradiction(*zone, other));
            }
        }
        for (look, explanations) in open {
            let against = |zone: &Zone| zones.against(*zone);
            if explanations.iter().all(|zone| against(zone).is_some()) {
                let other = explanations.first().and_then(against);
                return Err(self.unexplained(look, other));
            }
        }
        Ok(())
    }

    fn look(&self, at: usize) -> &'a Look {
        self.index.looks[at].look
    }

    /// The loss that began an era.
    fn loss(&self, era: usize) -> Option<&Loss> {
        self.history.losses.get(era.checked_sub(1)?)
    }

    /// Whether a change may have taken effect in an era.
    fn reaches(&self, change: &Change, era: usize) -> bool {
        let after = self.loss(era).is_none_or(|loss| change.over > loss.began);
        let next = self.history.losses.get(era);
        after && next.is_none_or(|loss| change.start < loss.ended)
    }

    /// The zones of a write's value, and of a zeroing where it surely was.
    fn change(&self, change: &Change, fixed: &mut Vec<Zone>) -> Result<(), Violation> {
        let Change { value, start, over, .. } = *change;
        let looks = if change.is_zero() { 0..0 } else { self.index.looks_at(value) };
        if let Some(early) = looks.clone().find(|at| self.look(*at).until < start) {
            return Err(self.unexplained(self.look(early), None));
        }
        let direct = looks.filter(|at| self.reaches(change, self.index.looks[*at].era));
        let zones = direct.map(|at| {
            let look = self.look(at);
            let (first, last) = (look.until.min(over), look.since.max(start));
            Zone { value, first, last, seen: Some(at) }
        });
        let surely = change.surely;
        let sure = surely.map(|(sent, done)| Zone { value, first: done, last: sent, seen: None });
        if change.loose {
            fixed.extend(zones.chain(sure));
        } else {
            fixed.extend(zones.chain(sure).reduce(Zone::both));
        }
        Ok(())
    }

    /// Looks that saw zeros: fixed where one explanation alone is possible.
    fn zeros(&self, fixed: &mut Vec<Zone>, open: &mut Vec<(&'a Look, Vec<Zone>)>) {
        for at in self.index.looks_at(ZERO) {
            let explanations = self.zeros_of(at);
            match explanations[..] {
                [only] => fixed.push(only),
                _ => open.push((self.look(at), explanations)),
            }
        }
    }

    /// What may have made the zeros that a look saw, each as a zone: every zeroing that was in
    /// work meanwhile, and of what was over before the newest, which fits best.
    fn zeros_of(&self, at: usize) -> Vec<Zone> {
        let (look, era) = (self.look(at), self.index.looks[at].era);
        let zone = |(first, last): (Tick, Tick)| Zone { value: ZERO, first, last, seen: Some(at) };
        let within = self.index.zeroed_within(look.since, look.until);
        let mut zones: Vec<Zone> = within.into_iter().map(zone).collect();
        let began = self.loss(era).map_or(0, |loss| loss.began);
        let older = self.index.zeroed_before(look.since).filter(|over| era == 0 || *over > began);
        let first = match self.loss(era) {
            None => Some(0),
            Some(loss) => self.ages[era - 1].zeros.then_some(loss.ended),
        };
        zones.extend(older.max(first).map(|first| zone((first, look.since))));
        zones
    }

    /// Values of older eras that were seen after a loss.
    fn survivors(&self, fixed: &mut Vec<Zone>) -> Result<(), Violation> {
        let looks = &self.index.looks;
        let mut at = 0;
        for same in looks.chunk_by(|a, b| a.look.value == b.look.value) {
            let value = same[0].look.value;
            let places = at..at + same.len();
            at = places.end;
            let Some(change) = self.index.change(value).filter(|_| value != ZERO) else { continue };
            let mut last: BTreeMap<usize, Zone> = BTreeMap::new();
            for place in places {
                let era = looks[place].era;
                let Some(loss) = self.loss(era).filter(|_| !self.reaches(change, era)) else {
                    continue;
                };
                let (first, until) = (loss.ended, self.look(place).since);
                let zone = Zone { value, first, last: until, seen: Some(place) };
                last.entry(era).and_modify(|known| *known = known.both(zone)).or_insert(zone);
            }
            for (era, zone) in last {
                if !self.survives(value, era) {
                    return Err(self.lost(zone, era));
                }
                fixed.push(zone);
            }
        }
        Ok(())
    }

    /// Whether a value may be there after the loss that began this era: no durable write surely
    /// came after it.
    fn survives(&self, value: Number, era: usize) -> bool {
        let change = self.index.change(value).filter(|_| value != ZERO);
        let effect = change.map(|change| (change.start, self.index.effect(change)));
        let (mut there, mut survived) = (false, None);
        for (age, loss) in self.ages.iter().zip(&self.history.losses).take(era) {
            let written = match effect {
                Some((start, effect)) => (start < loss.ended).then_some(effect),
                None => (value == ZERO).then_some(age.zeroed),
            };
            let latest = written.max(survived);
            let durable = age.durable_but(value);
            there = latest.is_some_and(|latest| durable.is_none_or(|durable| latest >= durable));
            if there {
                survived = Some(loss.ended);
            }
        }
        there
    }

    /// What is known before the loss that began this era.
    fn age(&self, flushes: &Intervals, era: usize) -> Age {
        let mut age = Age::default();
        let Some(loss) = self.loss(era) else { return age };
        for change in &self.index.changes {
            if change.is_zero() && change.start < loss.ended {
                age.zeroed = age.zeroed.max(change.over);
            }
            let Some((sent, done)) = change.surely else { continue };
            let op = self.history.operation(change.number);
            let flushed = || op.deed.is_durable() || flushes.between(done, loss.began);
            if done < loss.began && flushed() {
                age.keep(change.value, self.seen_until(change, loss.began).max(sent));
            }
        }
        for (at, earlier) in self.history.losses.iter().enumerate().take(era - 1) {
            if flushes.between(earlier.ended, loss.began) {
                self.keep_survivors(at + 1, &mut age);
            }
        }
        age
    }

    /// Until when a write that takes effect once was surely seen before a moment.
    fn seen_until(&self, change: &Change, before: Tick) -> Tick {
        if change.loose || change.is_zero() {
            return 0;
        }
        let places = self.index.looks_at(change.value);
        let seen = self.index.looks[places]
            .iter()
            .filter(|seen| seen.look.until < before && self.reaches(change, seen.era));
        seen.map(|seen| seen.look.since).max().unwrap_or(0)
    }

    /// Values that survived the loss that began an era, and were flushed since.
    fn keep_survivors(&self, era: usize, age: &mut Age) {
        for seen in self.index.looks.iter().filter(|seen| seen.era == era) {
            let value = seen.look.value;
            let change = self.index.change(value).filter(|_| value != ZERO);
            if change.is_some_and(|change| !self.reaches(change, era)) {
                age.keep(value, seen.look.since);
            }
        }
    }

    fn contradiction(&self, a: Zone, b: Zone) -> Violation {
        // The older one is what came back, or was still shown.
        let (old, new) = if a.last.min(a.first) < b.last.min(b.first) { (a, b) } else { (b, a) };
        let moved = self.history.servings.iter().any(|at| (new.last..old.last).contains(at));
        let name = if moved { "AckedSurvivesCrash" } else { "BlockLinearizable" };
        let shown = old.seen.map(|at| self.look(at));
        Violation::new(
            name,
            format!(
                "sector {}: {} was seen{} although {} came between",
                self.number,
                self.history.describe(old.value),
                shown.map_or_else(String::new, |look| format!(" by {}", self.eye(look))),
                self.newer(new),
            ),
        )
    }

    fn newer(&self, zone: Zone) -> String {
        if zone.value != ZERO {
            return self.history.describe(zone.value);
        }
        let same = |change: &&Change| change.is_zero() && change.over == zone.first;
        let zeroing = self.index.changes.iter().find(same);
        zeroing.map_or_else(|| "zeros".into(), |change| self.history.describe(change.number))
    }

    fn unexplained(&self, look: &Look, other: Option<Zone>) -> Violation {
        let moved = other.is_some_and(|other| {
            self.history.servings.iter().any(|at| (other.last..look.until).contains(at))
        });
        let name = if moved { "AckedSurvivesCrash" } else { "BlockLinearizable" };
        let value = self.history.describe(look.value);
        let against = other.map_or_else(
            || "before it was sent".into(),
            |zone| format!("although there was {}", self.newer(zone)),
        );
        let eye = self.eye(look);
        Violation::new(name, format!("sector {}: {value} was seen by {eye} {against}", self.number))
    }

    fn lost(&self, zone: Zone, era: usize) -> Violation {
        let value = self.history.describe(zone.value);
        let eye = zone.seen.map_or_else(String::new, |at| self.eye(self.look(at)));
        let text = format!(
            "sector {}: {value} was seen by {eye} after loss {era}, although something newer was \
             flushed before",
            self.number
        );
        Violation::new("FlushedDurable", text)
    }

    fn eye(&self, look: &Look) -> String {
        match look.by {
            Eye::Read(number) => self.history.describe(number),
            Eye::Replica(slot) => format!("a look into the replica in slot {slot}"),
        }
    }
}

/// When a sector may have held what.
struct Times<'a> {
    history: &'a History,
    track: &'a Track,
}

impl Times<'_> {
    fn changes(&self) -> impl Iterator<Item = Change> {
        let changes = self.track.changes.iter();
        changes.filter_map(|number| index::change(self.history, *number))
    }

    /// Between which moments a write's value may have been there, as of a snapshot that was asked
    /// for at some time: after it was sent, and before what surely followed was acknowledged.
    fn time_of(&self, value: Number, asked: Tick) -> (Tick, Tick) {
        let Some(change) = index::change(self.history, value) else { return (NEVER, NEVER) };
        let looks = self.track.looks.iter().filter(|look| look.value == value && !change.loose);
        let looks = looks.filter(|look| index::era(self.history, look).is_some());
        let seen = looks.map(|look| look.until).min().unwrap_or(NEVER);
        (change.start, self.covers(asked).after(seen.min(change.over)))
    }

    fn times_of_zeros(&self, asked: Tick) -> Vec<(Tick, Tick)> {
        let covers = self.covers(asked);
        let zeroings = self.changes().filter(Change::is_zero);
        let times = zeroings.map(|zero| (zero.start, covers.after(zero.over)));
        // What came before a loss may be back.
        let lost = self.history.losses.iter().any(|loss| loss.began < asked);
        let first = if lost { NEVER } else { covers.after(0) };
        std::iter::once((0, first)).chain(times).collect()
    }

    /// What surely happened; losses undo what was before them.
    fn covers(&self, asked: Tick) -> Intervals {
        let losses = self.history.losses.iter().filter(|loss| loss.began < asked);
        let era = losses.map(|loss| loss.ended).max().unwrap_or(0);
        let surely = self.changes().filter_map(|change| change.surely);
        Intervals::of(surely.filter(|(sent, _)| *sent >= era).collect())
    }
}

#[cfg(test)]
mod tests;
