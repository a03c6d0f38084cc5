//! When to connect again: pauses that double, with jitter, until it is given up.
//!
//! Invariants:
//! 1. A pause is never shorter than the least nor longer than the most that was configured.
//! 2. Pauses begin short again only after the association lived for as long as the longest pause:
//!    a target that dies of what it is told is not told so ten times a second.
//! 3. Two hosts with different seeds do not come back in step.

use core::time::Duration;

use braid_block::Instant;

use super::config::Reconnect;

/// The pauses of one association.
#[derive(Debug)]
pub(super) struct Backoff {
    config: Reconnect,
    random: u64,
    failures: u32,
    /// When the association was last alive, or began.
    alive: Instant,
    /// When it last came alive.
    since: Instant,
}

impl Backoff {
    pub(super) const fn new(config: Reconnect, seed: u64, now: Instant) -> Self {
        Self { config, random: seed, failures: 0, alive: now, since: now }
    }

    /// The association is alive.
    pub(super) const fn succeeded(&mut self, now: Instant) {
        self.since = now;
    }

    /// It is not any more, or not yet: when to try next, if at all.
    pub(super) fn failed(&mut self, now: Instant, was_alive: bool) -> Option<Instant> {
        if was_alive {
            self.alive = now;
            if now.since(self.since) >= self.config.max {
                self.failures = 0;
            }
        }
        if let Some(give_up) = self.config.give_up
            && now.since(self.alive) >= give_up
        {
            return None;
        }
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = self.config.min.saturating_mul(factor).min(self.config.max);
        Some(now + self.jitter(pause))
    }

    /// Up to half of the pause more, within its bounds.
    fn jitter(&mut self, pause: Duration) -> Duration {
        let half = u64::try_from(pause.as_nanos() / 2).unwrap_or(u64::MAX);
        let more = if half == 0 { 0 } else { self.next_random() % half };
        (pause + Duration::from_nanos(more)).min(self.config.max).max(self.config.min)
    }

    /// SplitMix64: any seed will do, including 0.
    const fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Reconnect = Reconnect {
        min: Duration::from_millis(100),
        max: Duration::from_secs(10),
        give_up: Some(Duration::from_secs(60)),
    };

    fn pauses(seed: u64) -> [Duration; 8] {
        let mut backoff = Backoff::new(CONFIG, seed, Instant::ZERO);
        core::array::from_fn(|_| backoff.failed(Instant::ZERO, false).unwrap().since(Instant::ZERO))
    }

    #[test]
    fn pauses_double_within_their_bounds_and_differ_between_hosts() {
        let (a, b) = (pauses(1), pauses(2));
        assert_ne!(a, b);
        assert_eq!(a, pauses(1));
        for (n, pause) in a.into_iter().enumerate() {
            let base = (CONFIG.min * (1 << n)).min(CONFIG.max);
            assert!(pause >= base && pause <= (base + base / 2).min(CONFIG.max), "{n}: {pause:?}");
        }
    }

    #[test]
    fn a_long_life_makes_the_next_pause_short_again_and_a_short_one_does_not() {
        for (lived, short) in [(9_999, false), (10_000, true)] {
            let mut backoff = Backoff::new(CONFIG, 3, Instant::ZERO);
            for _ in 0..5 {
                let _ = backoff.failed(Instant::ZERO, false);
            }
            backoff.succeeded(Instant::ZERO);
            let now = Instant::ZERO + Duration::from_millis(lived);
            let pause = backoff.failed(now, true).unwrap().since(now);
            assert_eq!(pause <= Duration::from_millis(150), short, "{pause:?}");
        }
    }

    #[test]
    fn it_is_given_up_when_the_time_is_over_counted_from_when_it_was_last_alive() {
        let mut backoff = Backoff::new(CONFIG, 3, Instant::ZERO);
        let late = Instant::ZERO + Duration::from_secs(60);
        assert!(backoff.failed(late, true).is_some());
        assert!(backoff.failed(late + Duration::from_secs(59), false).is_some());
        assert!(backoff.failed(late + Duration::from_secs(60), false).is_none());
    }
}
