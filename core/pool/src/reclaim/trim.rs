//! Discarding what an earlier run left: clusters that it freed, and ended before they were
//! discarded.
//!
//! Nobody wrote down which they are: all that is free is discarded once, a little at a time.
//!
//! Invariants:
//! 1. A cluster is free, so its Free is settled and no read of it is in flight; it is held from
//!    before its discard begins until that is done: nobody is given it meanwhile.
//! 2. One discard at a time, and so many a second; of what somebody may want a part is held.
//! 3. Who waits for space gets what came out for him before any of it is held: for a while nothing
//!    is, for he waits once alone.
//! 4. What cannot be discarded as the device is now is left for a run that can.
//! 5. A pool that was not stopped in order may have left some; one that was says so.

use core::time::Duration;

use braid_block::Instant;

use super::quarantine::CLUSTERS_MAX;
use crate::space::Free;
use crate::{Pool, State};

/// Between two discards: 640 MiB a second, a TiB in half an hour.
const PAUSE: Duration = Duration::from_millis(100);
/// Before a pool that is nearly full is looked at again.
const LONG_PAUSE: Duration = Duration::from_secs(10);
/// Of the space that somebody may want, a discard holds one part of so many.
const PARTS: u64 = 4;
/// Journal block of what was freed before this run, lower than any of it.
pub(super) const EARLIER: u64 = 0;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// The next cluster to be looked at; none: nothing is left of an earlier run.
    next: Option<u32>,
    /// When the next discard may begin.
    due: Instant,
    /// This run has left some itself.
    missed: bool,
    /// An earlier run has, and the device takes no discards, or none now: a file without a hole
    /// may get some.
    kept: bool,
}

impl Trim {
    /// A cluster was let go without a discard.
    pub(super) const fn missed(&mut self) {
        self.missed = true;
    }

    /// Somebody found no space, and tries again.
    pub(super) fn give_way(&mut self, now: Instant) {
        self.due = self.due.max(now + LONG_PAUSE);
    }
}

impl Pool {
    /// An earlier run may have left free clusters that it did not discard.
    pub(crate) fn begin_trim(&mut self) {
        if self.config.read_only {
            return;
        }
        self.reclaim.trim.kept = !self.config.device.discards;
        if self.config.device.discards {
            self.reclaim.trim.next = Some(0);
            self.reclaim.trim.due = self.turned + PAUSE;
        }
    }

    /// Whether clusters may be free that were not discarded: the next run is to do it.
    pub(crate) fn is_untrimmed(&self) -> bool {
        let trim = &self.reclaim.trim;
        let left = trim.next.is_some() || trim.missed || self.store.space.quarantined() > 0;
        trim.kept || self.config.device.discards && left
    }

    /// Discards the next free clusters if that is due.
    pub(super) fn trim_on(&mut self, now: Instant) {
        let Some(from) = self.reclaim.trim.next else { return };
        let due = self.state == State::Open && now >= self.reclaim.trim.due;
        if !due || !self.may_trim() {
            return;
        }
        let most = self.store.space.available() / PARTS;
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(CLUSTERS_MAX);
        if most == 0 {
            self.reclaim.trim.due = now + LONG_PAUSE;
            return;
        }
        self.reclaim.trim.due = now + PAUSE;
        self.reclaim.trim.next = match self.store.space.free_from(from, most) {
            Free::Run { first, count } if self.discard_run(first, count, EARLIER) => {
                (first..first + count).for_each(|cluster| self.store.space.keep(cluster));
                Some(first + count)
            }
            // There is no room for another discard.
            Free::Run { first, .. } => Some(first),
            Free::NoneTo(next) => Some(next),
            Free::End => None,
        };
    }

    /// When the next discard may begin.
    pub(super) fn trim_due(&self) -> Option<Instant> {
        let trim = &self.reclaim.trim;
        let waits = self.state == State::Open && self.may_trim();
        trim.next.filter(|_| waits).map(|_| trim.due)
    }

    /// Whether nothing of an earlier run is being discarded, and nobody waits for space.
    fn may_trim(&self) -> bool {
        !self.reclaim.quarantine.has_earlier() && self.hungry.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use crate::layout::CLUSTER;
    use crate::rig::{Rig, config};
    use crate::{Config, Device, Effect, Work};

    fn discarding() -> Config {
        let device = Device { discards: true, ..config().device };
        Config { device, ..config() }
    }

    /// Lets time pass until nothing is left; tells what was discarded, by cluster.
    fn discarded(rig: &mut Rig) -> Vec<u64> {
        let mut clusters = Vec::new();
        for _ in 0..20 {
            rig.now = rig.now + super::PAUSE;
            rig.turn();
            while let Some(effect) = rig.effects.first() {
                if let Effect::Discard { offset, len, .. } = *effect {
                    clusters.extend((0..len / CLUSTER).map(|n| offset + n * CLUSTER));
                }
                rig.finish(0);
            }
        }
        assert_eq!(rig.pool.store.space.quarantined(), 0);
        clusters
    }

    /// A replica with two clusters of which the first is given back; its place.
    fn freed() -> (Rig, u64) {
        let (rig, _) = Rig::new();
        let mut rig = rig.reopen_as(discarding());
        discarded(&mut rig);
        let handle = rig.pool.find(&[1; 16]).expect("it is there");
        for block in [0, 64] {
            rig.write(handle, block, 7 + u8::from(block > 0));
            rig.run();
        }
        let place = rig.place_of(7) * 4096;
        rig.take_ended();
        rig.ask(handle, Work::Zero { offset: 0, len: CLUSTER, durable: false });
        rig.run();
        assert_eq!(rig.pool.store.space.quarantined(), 1, "its Free is not settled");
        (rig, place)
    }

    #[test]
    fn what_was_in_quarantine_at_a_crash_is_discarded_by_the_next_run() {
        let (rig, place) = freed();
        let mut rig = rig.reopen_as(discarding());
        let kept = rig.place_of(8) * 4096;
        let clusters = discarded(&mut rig);
        assert!(clusters.contains(&place), "{place} of {clusters:?}");
        assert!(!clusters.contains(&kept), "somebody has it");
        let space = &rig.pool.store.space;
        let layout = &rig.pool.store.layout;
        let used = (0..u32::try_from(space.total).expect("few")).filter(|c| space.is_used(*c));
        assert!(used.into_iter().all(|c| !clusters.contains(&layout.cluster(c))));
        assert!(clusters.len() as u64 >= space.free(), "all that is free");
        assert_eq!(discarded(&mut rig), [], "once");
    }

    #[test]
    fn what_was_in_quarantine_at_a_stop_is_discarded_by_the_next_run() {
        let (mut rig, place) = freed();
        let before = rig.pool.counters().device_discards;
        rig.pool.stop(&mut rig.mem, rig.now);
        rig.run();
        assert_eq!(rig.pool.state(), crate::State::Stopped);
        assert_eq!(rig.pool.counters().device_discards, before, "a stop does not wait for that");
        let mut rig = rig.reopen_as(discarding());
        assert!(discarded(&mut rig).contains(&place));
        // That one leaves nothing.
        rig.pool.stop(&mut rig.mem, rig.now);
        rig.run();
        let mut rig = rig.reopen_as(discarding());
        assert_eq!(discarded(&mut rig), []);
    }

    #[test]
    fn a_trim_that_a_stop_cut_off_begins_again() {
        let (rig, _) = Rig::new();
        let mut rig = rig.reopen_as(discarding());
        rig.pool.stop(&mut rig.mem, rig.now);
        rig.run();
        assert_eq!(rig.pool.counters().device_discards, 0, "it was not due yet");
        let mut rig = rig.reopen_as(discarding());
        assert_ne!(discarded(&mut rig), []);
    }

    #[test]
    fn all_who_wait_for_what_is_being_discarded_find_it() {
        let (rig, _) = Rig::new();
        let mut rig = rig.reopen_as(discarding());
        let handle = rig.pool.find(&[1; 16]).expect("it is there");
        rig.now = rig.now + super::PAUSE;
        rig.turn();
        assert!(matches!(rig.effects[..], [Effect::Discard { .. }]), "{:?}", rig.effects);
        let held = rig.pool.store.space.quarantined();
        // All that can be had is taken beside it; then as many writers wait as it holds clusters.
        let all = rig.pool.store.space.available() + held;
        assert!(held >= 4, "{held}");
        let mut block = 0;
        while rig.pool.store.space.available() > 0 {
            rig.write(handle, block, 9);
            while let Some(at) =
                rig.effects.iter().position(|effect| !matches!(effect, Effect::Discard { .. }))
            {
                rig.finish(at);
            }
            block += 64;
        }
        rig.take_ended();
        for _ in block / 64..all {
            rig.write(handle, block, 9);
            block += 64;
        }
        // The next discard would be due as this one ends.
        rig.now = rig.now + super::PAUSE;
        rig.run();
        let ended = rig.take_ended();
        assert_eq!(ended.iter().filter(|result| result.is_err()).count(), 0, "{ended:?}");
        assert_eq!(ended.len() as u64, held);
    }

    #[test]
    fn what_a_device_cannot_discard_now_is_left_for_a_run_that_can() {
        let (rig, _) = freed();
        let mut rig = rig.reopen_as(config());
        rig.pool.stop(&mut rig.mem, rig.now);
        rig.run();
        let mut rig = rig.reopen_as(discarding());
        assert_ne!(discarded(&mut rig), []);
    }

    #[test]
    fn a_cluster_that_is_being_discarded_is_given_to_nobody() {
        let (rig, _) = Rig::new();
        let mut rig = rig.reopen_as(discarding());
        let handle = rig.pool.find(&[1; 16]).expect("it is there");
        rig.now = rig.now + super::PAUSE;
        rig.turn();
        let [Effect::Discard { offset, len, .. }] = rig.effects[..] else {
            panic!("{:?}", rig.effects)
        };
        let taken = |rig: &Rig, offset: u64| {
            let cluster = (0..).find(|c| rig.pool.store.layout.cluster(*c) == offset);
            rig.pool.store.space.is_used(cluster.expect("it is one"))
        };
        // Everything that can be had is taken, beside it.
        for n in 0..rig.pool.store.space.available() {
            rig.write(handle, n * 64, 9);
            while let Some(at) =
                rig.effects.iter().position(|effect| !matches!(effect, Effect::Discard { .. }))
            {
                rig.finish(at);
            }
        }
        assert_eq!(rig.take_ended().iter().filter(|result| result.is_err()).count(), 0);
        let mut held = (0..len / CLUSTER).map(|n| offset + n * CLUSTER);
        assert!(held.all(|place| !taken(&rig, place)), "it is held");
        // Who finds no space waits for it.
        rig.write(handle, 16_000, 9);
        while let Some(at) =
            rig.effects.iter().position(|effect| !matches!(effect, Effect::Discard { .. }))
        {
            rig.finish(at);
        }
        assert_eq!(rig.take_ended(), [], "it waits");
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(9)]);
    }
}
