//! Whether to spin before blocking: only while what arrived lately came soon enough for it to
//! pay, and only while spinning does find it.
//!
//! The second condition matters where cores are few: a peer that has to run on the very core that
//! spins does not come before it blocks, however short the gaps are.

use crate::options::Polling;

/// A wait counts as this many budgets at most, so that a new load starts the spinning within some
/// twenty arrivals.
const CLAMP: u64 = 8;
/// Waits without spinning after the first time it was in vain; each further time doubles them.
const PENALTY: u32 = 16;
/// How often they are doubled at most.
const DOUBLINGS_MAX: u32 = 8;

/// The recent past of waits.
pub(crate) struct Poller {
    polling: Polling,
    /// Nanoseconds to spin at most.
    budget: u64,
    /// Moving average of how long was waited, in nanoseconds.
    gap: u64,
    /// How much more often spinning was in vain than not, of late.
    misses: u32,
    /// Waits to come without spinning.
    penalty: u32,
}

impl Poller {
    pub(crate) const fn new(polling: Polling, budget: u64) -> Self {
        Self { polling, budget, gap: budget * CLAMP, misses: 0, penalty: 0 }
    }

    /// For how many nanoseconds to spin now.
    pub(crate) const fn budget(&self) -> Option<u64> {
        match self.polling {
            Polling::Always => Some(u64::MAX),
            Polling::Adaptive if self.penalty == 0 && self.gap <= self.budget * 2 => {
                Some(self.budget)
            }
            Polling::Adaptive | Polling::Never => None,
        }
    }

    /// Spinning found something.
    pub(crate) fn hit(&mut self) {
        self.misses = self.misses.saturating_sub(1);
    }

    /// Spinning was in vain.
    pub(crate) fn missed(&mut self) {
        self.penalty = PENALTY << self.misses;
        self.misses = (self.misses + 1).min(DOUBLINGS_MAX);
    }

    /// Something arrived, or the time was up, after this long a wait, spun or not.
    pub(crate) fn waited(&mut self, nanos: u64) {
        let nanos = nanos.min(self.budget * CLAMP);
        self.gap = (self.gap * 7 + nanos) / 8;
        self.penalty = self.penalty.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: u64 = 50_000;

    fn loaded() -> Poller {
        let mut poller = Poller::new(Polling::Adaptive, BUDGET);
        assert_eq!(poller.budget(), None);
        let arrivals = (0..100).take_while(|_| {
            poller.waited(30_000);
            poller.budget().is_none()
        });
        assert!(arrivals.count() < 30);
        poller
    }

    #[test]
    fn it_spins_under_load_and_stops_soon_after() {
        let mut poller = loaded();
        (0..1000).for_each(|_| poller.hit());
        let spins = (0..100).filter(|_| {
            let spins = poller.budget().is_some();
            if spins {
                poller.missed();
            }
            poller.waited(10_000_000);
            spins
        });
        assert_eq!(spins.count(), 1);
    }

    #[test]
    fn it_does_not_spin_for_arrivals_that_come_too_late() {
        let mut poller = Poller::new(Polling::Adaptive, BUDGET);
        (0..1000).for_each(|_| poller.waited(150_000));
        assert_eq!(poller.budget(), None);
    }

    #[test]
    fn it_gives_up_where_spinning_keeps_the_peer_from_running() {
        let mut poller = loaded();
        let spins = (0..100_000).filter(|_| {
            let spins = poller.budget().is_some();
            if spins {
                poller.missed();
            }
            poller.waited(10_000);
            spins
        });
        assert!(spins.count() < 40);
    }
}
