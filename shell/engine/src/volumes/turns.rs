//! Which long rebuilds of this engine go on, and which wait.
//!
//! Invariants:
//! 1. No more than so many have a turn at once.
//! 2. Turns are given in the order in which they were waited for, and one that was had for
//!    [`SLICE`] while another waits ends: nobody waits for ever behind one that is slow.
//! 3. What was copied is not copied again: who loses its turn goes on from there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use braid_nexus::record::Uuid;
use tokio::time::Instant;

/// How long a turn lasts if another one waits: long enough for most volumes to get through, short
/// enough that one whose rate was set to next to nothing holds nobody up for hours.
const SLICE: Duration = Duration::from_secs(600);

/// Turns of long rebuilds.
#[derive(Debug)]
pub(super) struct Turns {
    max: usize,
    /// Who has one, and since when.
    holders: BTreeMap<Uuid, Instant>,
    waiting: VecDeque<Uuid>,
}

/// A volume whose replica returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Of a turn: so much is to be copied.
    Turn,
    /// Of none just now: it is between two things that are copied, or what is copied is brief.
    Nothing,
}

impl Turns {
    pub(super) const fn new(max: usize) -> Self {
        Self { max, holders: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Looks at all volumes whose replicas return and are not paused; who has a turn from now on,
    /// and who has none any more.
    pub(super) fn look(
        &mut self,
        now: Instant,
        returning: &BTreeMap<Uuid, Need>,
    ) -> Vec<(Uuid, bool)> {
        let mut changed = Vec::new();
        self.holders.retain(|volume, _| {
            let still = returning.contains_key(volume);
            if !still {
                changed.push((*volume, false));
            }
            still
        });
        let needs = |volume: &Uuid| returning.get(volume) == Some(&Need::Turn);
        self.waiting.retain(needs);
        for (volume, _) in returning.iter().filter(|(_, need)| **need == Need::Turn) {
            if !self.holders.contains_key(volume) && !self.waiting.contains(volume) {
                self.waiting.push_back(*volume);
            }
        }
        changed.extend(self.relieve(now).map(|volume| (volume, false)));
        while self.holders.len() < self.max {
            let Some(next) = self.waiting.pop_front() else { break };
            self.holders.insert(next, now);
            changed.push((next, true));
        }
        changed
    }

    /// Ends the turn that was had for longest, if it is over and another one waits.
    fn relieve(&mut self, now: Instant) -> Option<Uuid> {
        if self.waiting.is_empty() || self.holders.len() < self.max {
            return None;
        }
        let (volume, since) = self.holders.iter().min_by_key(|(_, since)| **since)?;
        let volume = (now.duration_since(*since) >= SLICE).then_some(*volume)?;
        self.holders.remove(&volume);
        self.waiting.push_back(volume);
        Some(volume)
    }

    /// How many go before one that waits; none: it does not wait.
    pub(super) fn before(&self, volume: &Uuid) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting == volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returning(volumes: &[u8]) -> BTreeMap<Uuid, Need> {
        volumes.iter().map(|volume| ([*volume; 16], Need::Turn)).collect()
    }

    fn told(changed: &[(Uuid, bool)]) -> Vec<(u8, bool)> {
        changed.iter().map(|(volume, turn)| (volume[0], *turn)).collect()
    }

    #[test]
    fn no_more_than_so_many_go_on_and_the_others_in_the_order_in_which_they_came() {
        let (mut turns, now) = (Turns::new(2), Instant::now());
        assert_eq!(told(&turns.look(now, &returning(&[7]))), [(7, true)]);
        assert_eq!(told(&turns.look(now, &returning(&[5, 7]))), [(5, true)]);
        assert!(turns.look(now, &returning(&[5, 7, 9])).is_empty());
        assert!(turns.look(now, &returning(&[1, 5, 7, 9])).is_empty());
        assert_eq!([9, 1, 5].map(|v| turns.before(&[v; 16])), [Some(0), Some(1), None]);
        assert_eq!(told(&turns.look(now, &returning(&[1, 5, 9]))), [(7, false), (9, true)]);
        assert_eq!(told(&turns.look(now, &returning(&[1, 9]))), [(5, false), (1, true)]);
    }

    #[test]
    fn between_two_layers_a_turn_is_kept_and_what_is_brief_takes_none() {
        let (mut turns, now) = (Turns::new(1), Instant::now());
        let mut all = returning(&[1, 2]);
        assert_eq!(told(&turns.look(now, &all)), [(1, true)]);
        all.insert([1; 16], Need::Nothing);
        all.insert([3; 16], Need::Nothing);
        assert!(turns.look(now, &all).is_empty());
        assert_eq!(turns.before(&[3; 16]), None);
    }

    #[test]
    fn one_that_is_slow_gives_way_after_a_while_and_comes_again() {
        let (mut turns, now) = (Turns::new(1), Instant::now());
        let all = returning(&[1, 2, 3]);
        let mut had = Vec::new();
        for slice in 0..6 {
            let changed = turns.look(now + SLICE * slice, &all);
            had.extend(changed.iter().filter(|(_, turn)| *turn).map(|(volume, _)| volume[0]));
            assert!(turns.look(now + SLICE * slice + SLICE / 2, &all).is_empty());
        }
        assert_eq!(had, [1, 2, 3, 1, 2, 3]);
        assert!(turns.look(now + SLICE * 60, &returning(&[3])).is_empty(), "nobody waits");
    }
}
