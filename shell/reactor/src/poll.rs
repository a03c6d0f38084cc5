//! Whether to spin before blocking: only while what arrived lately came soon enough for it to pay.

use crate::options::Polling;

/// A wait counts as this many budgets at most, so that a new load starts the spinning within some
/// twenty arrivals.
const CLAMP: u64 = 8;

/// The recent past of waits.
pub(crate) struct Poller {
    polling: Polling,
    /// Nanoseconds to spin at most.
    budget: u64,
    /// Moving average of how long was waited, in nanoseconds.
    gap: u64,
}

impl Poller {
    pub(crate) const fn new(polling: Polling, budget: u64) -> Self {
        Self { polling, budget, gap: budget * CLAMP }
    }

    /// For how many nanoseconds to spin now.
    pub(crate) const fn budget(&self) -> Option<u64> {
        match self.polling {
            Polling::Always => Some(u64::MAX),
            Polling::Adaptive if self.gap <= self.budget * 2 => Some(self.budget),
            Polling::Adaptive | Polling::Never => None,
        }
    }

    /// Spinning was in vain. That weighs as much as a long pause, so that a load which mostly comes
    /// too late, or a machine too busy to let the other side run, soon makes it stop.
    pub(crate) fn missed(&mut self) {
        self.gap = self.budget * CLAMP;
    }

    /// Something arrived, or the time was up, after this long a wait.
    pub(crate) fn waited(&mut self, nanos: u64) {
        let nanos = nanos.min(self.budget * CLAMP);
        self.gap = (self.gap * 7 + nanos) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_spins_under_load_and_stops_soon_after() {
        let mut poller = Poller::new(Polling::Adaptive, 50_000);
        assert_eq!(poller.budget(), None);
        let arrivals = (0..100).take_while(|_| {
            poller.waited(30_000);
            poller.budget().is_none()
        });
        assert!(arrivals.count() < 30);
        poller.missed();
        poller.waited(10_000_000);
        assert_eq!(poller.budget(), None);
    }

    #[test]
    fn it_does_not_spin_for_arrivals_that_come_too_late() {
        let mut poller = Poller::new(Polling::Adaptive, 50_000);
        (0..1000).for_each(|_| poller.waited(150_000));
        assert_eq!(poller.budget(), None);
    }
}
