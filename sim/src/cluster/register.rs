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

use std::collections::BTreeMap;

use crate::oracle::{Tick, Violation};

use super::history::{Eye, History, Look, Loss, NEVER, Number, Track, ZERO};

/// When a value is surely there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Zone {
    value: Number,
    first: Tick,
    last: Tick,
}

impl Zone {
    const fn contradicts(self, other: Self) -> bool {
        self.value != other.value && self.first < other.last && other.first < self.last
    }
}

/// Checks all sectors.
///
/// # Errors
/// The first sector whose reads have no explanation.
pub(super) fn check(history: &History) -> Result<(), Violation> {
    for (sector, track) in &history.tracks {
        Sector { history, track, number: *sector }.check()?;
    }
    Ok(())
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
    let sector =
        |number: u64| history.tracks.get(&number).map(|track| Sector { history, track, number });
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
        let Some(sector) = sector(*number) else { continue };
        let when = sector.time_of(*value, began);
        if when.0.max(low) >= when.1.min(high) {
            return wrong(*number, *value, when, (low, high));
        }
        (low, high) = (when.0.max(low), when.1.min(high));
    }
    // Any zeroing may have made zeros: for each sector alone one must fit.
    for (number, value) in values.iter().filter(|(_, value)| **value == ZERO) {
        let Some(sector) = sector(*number) else { continue };
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
    track: &'a Track,
    number: u64,
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

impl Sector<'_> {
    fn check(&self) -> Result<(), Violation> {
        let mut fixed = Vec::new();
        for number in &self.track.changes {
            self.change(*number, &mut fixed)?;
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

    fn looks_at(&self, value: Number) -> impl Iterator<Item = &Look> {
        let looks = self.track.looks.iter().filter(move |look| look.value == value);
        looks.filter(|look| self.era(look).is_some())
    }

    /// How many losses came before a look; none if it overlaps one, and says nothing.
    fn era(&self, look: &Look) -> Option<usize> {
        let losses = &self.history.losses;
        let apart = |loss: &Loss| look.until < loss.began || look.since > loss.ended;
        let before = |loss: &&Loss| loss.ended < look.since;
        losses.iter().all(apart).then(|| losses.iter().filter(before).count())
    }

    /// The loss that began an era.
    fn loss(&self, era: usize) -> Option<&Loss> {
        self.history.losses.get(era.checked_sub(1)?)
    }

    /// Whether an operation may have taken effect in an era.
    fn reaches(&self, number: Number, era: usize) -> bool {
        let op = self.history.operation(number);
        let after = self.loss(era).is_none_or(|loss| op.over() > loss.began);
        let before = self
            .history
            .losses
            .get(era)
            .is_none_or(|loss| op.start().is_some_and(|start| start < loss.ended));
        after && before
    }

    /// Whether an operation may take effect more than once, or in more than one era.
    fn is_loose(&self, number: Number) -> bool {
        let op = self.history.operation(number);
        let start = op.start().unwrap_or(NEVER);
        let across = |loss: &Loss| start < loss.ended && loss.began < op.over();
        op.sent.len() > 1 || self.history.losses.iter().any(across)
    }

    /// The interval in which the acknowledged attempt surely took effect, and was not lost.
    fn surely(&self, number: Number) -> Option<(Tick, Tick)> {
        let (sent, done) = self.history.operation(number).acknowledged()?;
        let across = |loss: &Loss| sent < loss.ended && loss.began < done;
        (!self.history.losses.iter().any(across)).then_some((sent, done))
    }

    /// The zones of a write's value, and of a zeroing where it surely was.
    fn change(&self, number: Number, fixed: &mut Vec<Zone>) -> Result<(), Violation> {
        let op = self.history.operation(number);
        let Some(start) = op.start() else { return Ok(()) };
        let value = if op.is_zero() { ZERO } else { number };
        let surely = self.surely(number);
        let looks: Vec<&Look> = match op.is_zero() {
            true => Vec::new(),
            false => self.looks_at(number).collect(),
        };
        if let Some(early) = looks.iter().find(|look| look.until < start) {
            return Err(self.unexplained(early, None));
        }
        let direct = looks
            .into_iter()
            .filter(|look| self.era(look).is_some_and(|era| self.reaches(number, era)));
        let over = op.over();
        let zones = direct.map(|look| Zone {
            value,
            first: look.until.min(over),
            last: look.since.max(start),
        });
        let sure = surely.map(|(sent, done)| Zone { value, first: done, last: sent });
        if self.is_loose(number) {
            fixed.extend(zones.chain(sure));
            return Ok(());
        }
        let both = |a: Zone, b: Zone| Zone {
            value,
            first: a.first.min(b.first),
            last: a.last.max(b.last),
        };
        fixed.extend(zones.chain(sure).reduce(both));
        Ok(())
    }

    /// Looks that saw zeros: fixed where one explanation alone is possible.
    fn zeros<'a>(&'a self, fixed: &mut Vec<Zone>, open: &mut Vec<(&'a Look, Vec<Zone>)>) {
        for look in self.looks_at(ZERO) {
            let mut explanations = self.zeros_of(look);
            // Of those that were over when the look began, the newest fits best.
            let newest = explanations
                .iter()
                .filter(|zone| zone.first < zone.last)
                .max_by_key(|zone| zone.first);
            let newest = newest.copied();
            explanations.retain(|zone| zone.first >= zone.last);
            explanations.extend(newest);
            match explanations[..] {
                [only] => fixed.push(only),
                _ => open.push((look, explanations)),
            }
        }
    }

    fn zeros_of(&self, look: &Look) -> Vec<Zone> {
        let era = self.era(look).unwrap_or(0);
        let changes = self.track.changes.iter().map(|number| self.history.operation(*number));
        let zeroings = self.track.changes.iter().zip(changes).filter(|(number, op)| {
            let begun = op.start().is_some_and(|start| start < look.until);
            op.is_zero() && begun && self.reaches(**number, era)
        });
        let zone = |first: Tick, last: Tick| Zone {
            value: ZERO,
            first: first.min(look.until),
            last: last.max(look.since),
        };
        let mut zones: Vec<Zone> =
            zeroings.map(|(_, op)| zone(op.over(), op.start().unwrap_or(0))).collect();
        match self.loss(era) {
            None => zones.push(zone(0, 0)),
            Some(loss) if self.survives(ZERO, era) => zones.push(zone(loss.ended, loss.began)),
            Some(_) => {}
        }
        zones
    }

    /// Values of older eras that were seen after a loss.
    fn survivors(&self, fixed: &mut Vec<Zone>) -> Result<(), Violation> {
        for (at, loss) in self.history.losses.iter().enumerate() {
            let era = at + 1;
            let mut seen: Vec<&Look> = self.track.looks.iter().collect();
            seen.retain(|look| {
                let here = look.value != ZERO && self.era(look) == Some(era);
                here && !self.reaches(look.value, era)
            });
            seen.sort_by_key(|look| look.value);
            for looks in seen.chunk_by(|a, b| a.value == b.value) {
                let value = looks[0].value;
                if !self.survives(value, era) {
                    return Err(self.lost(looks[0], era));
                }
                let last = looks.iter().map(|look| look.since).max().unwrap_or(0);
                fixed.push(Zone { value, first: loss.ended, last });
            }
        }
        Ok(())
    }

    /// Whether a value may be there after the loss that began this era: no durable write surely
    /// came after it.
    fn survives(&self, value: Number, era: usize) -> bool {
        let Some(latest) = self.latest(value, era) else { return false };
        self.durable(value, era).is_none_or(|durable| latest >= durable)
    }

    /// When a value was surely written last before the loss that began this era; none: never.
    fn latest(&self, value: Number, era: usize) -> Option<Tick> {
        let loss = self.loss(era)?;
        let earlier = (1..era).filter(|era| self.survives(value, *era));
        let survived = earlier.filter_map(|era| self.loss(era)).map(|loss| loss.ended).max();
        let mut written: Vec<Tick> = self
            .track
            .changes
            .iter()
            .filter_map(|number| {
                let op = self.history.operation(*number);
                let same = if op.is_zero() { value == ZERO } else { value == *number };
                let begun = op.start().is_some_and(|start| start < loss.ended);
                let over = || self.first_seen(*number).min(op.over());
                (same && begun).then(over)
            })
            .collect();
        written.extend(survived);
        written.extend((value == ZERO).then_some(0));
        written.into_iter().max()
    }

    /// When a write that takes effect once had surely done so.
    fn first_seen(&self, number: Number) -> Tick {
        if self.is_loose(number) || self.history.operation(number).is_zero() {
            return NEVER;
        }
        self.looks_at(number).map(|look| look.until).min().unwrap_or(NEVER)
    }

    /// Until when a durable value other than this one was surely there, before the loss that
    /// began this era.
    fn durable(&self, value: Number, era: usize) -> Option<Tick> {
        let loss = self.loss(era)?;
        let written = self.track.changes.iter().filter_map(|number| {
            let op = self.history.operation(*number);
            let other = *number != value && !(value == ZERO && op.is_zero());
            let (sent, _) = self.surely(*number)?;
            (other && self.history.is_durable(*number, loss.began)).then(|| {
                let loose = self.is_loose(*number) || op.is_zero();
                let seen = self.looks_at(*number).filter(|look| !loose && look.until < loss.began);
                let seen = seen
                    .filter(|look| self.era(look).is_some_and(|era| self.reaches(*number, era)));
                seen.map(|look| look.since).max().unwrap_or(sent).max(sent)
            })
        });
        let survived = (1..era).filter_map(|era| {
            let earlier = self.loss(era)?;
            if !self.history.is_flushed(earlier.ended, loss.began) {
                return None;
            }
            let seen = self.track.looks.iter().filter(|look| {
                let other = look.value != value && look.value != ZERO;
                other && self.era(look) == Some(era) && !self.reaches(look.value, era)
            });
            seen.map(|look| look.since).max()
        });
        written.chain(survived).max()
    }

    /// Between which moments a write's value may have been there, as of a snapshot that was asked
    /// for at some time: after it was sent, and before what surely followed was acknowledged.
    fn time_of(&self, value: Number, asked: Tick) -> (Tick, Tick) {
        let op = self.history.operation(value);
        let effect = self.first_seen(value).min(op.over());
        (op.start().unwrap_or(NEVER), self.covered(value, effect, asked))
    }

    fn times_of_zeros(&self, asked: Tick) -> Vec<(Tick, Tick)> {
        let changes = self.track.changes.iter().copied();
        let zeroings = changes.filter(|number| self.history.operation(*number).is_zero());
        let times = zeroings.filter_map(|number| {
            let op = self.history.operation(number);
            Some((op.start()?, self.covered(number, op.over(), asked)))
        });
        // What came before a loss may be back.
        let lost = self.history.losses.iter().any(|loss| loss.began < asked);
        let first = if lost { NEVER } else { self.covered(ZERO, 0, asked) };
        std::iter::once((0, first)).chain(times).collect()
    }

    /// When something was acknowledged that surely came after an effect; losses undo what was
    /// before them.
    fn covered(&self, but: Number, effect: Tick, asked: Tick) -> Tick {
        let losses = self.history.losses.iter().filter(|loss| loss.began < asked);
        let era = losses.map(|loss| loss.ended).max().unwrap_or(0);
        let later = self.track.changes.iter().filter_map(|number| {
            let (sent, done) = self.surely(*number)?;
            (*number != but && sent > effect && sent >= era).then_some(done)
        });
        later.min().unwrap_or(NEVER)
    }

    fn contradiction(&self, a: Zone, b: Zone) -> Violation {
        // The older one is what came back, or was still shown.
        let (old, new) = if a.last.min(a.first) < b.last.min(b.first) { (a, b) } else { (b, a) };
        let moved = self.history.servings.iter().any(|at| (new.last..old.last).contains(at));
        let name = if moved { "AckedSurvivesCrash" } else { "BlockLinearizable" };
        let shown = self.track.looks.iter().rev().filter(|look| look.value == old.value);
        let shown = shown.max_by_key(|look| look.since);
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
        let same = |number: &&Number| {
            let op = self.history.operation(**number);
            op.is_zero() && op.over() == zone.first
        };
        let zeroing = self.track.changes.iter().find(same);
        zeroing.map_or_else(|| "zeros".into(), |number| self.history.describe(*number))
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

    fn lost(&self, look: &Look, era: usize) -> Violation {
        let value = self.history.describe(look.value);
        let eye = self.eye(look);
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

#[cfg(test)]
mod tests;
