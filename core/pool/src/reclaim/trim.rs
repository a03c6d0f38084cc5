//! Discarding what an earlier run left: clusters that it freed, and ended before they were
//! discarded.
//!
//! Nobody wrote down which they are: all that is free is discarded once, a little at a time.
//!
//! Invariants:
//! 1. A cluster is free, so its Free is settled and no read of it is in flight; it is held from
//!    before its discard begins until that is done: nobody is given it meanwhile.
//! 2. One discard at a time, and of what somebody may want a part is held.
//! 3. None begins while a request is in work or was a moment ago; but one does in any case after a
//!    pause that is long beside what the last one took, so that a pool under load comes to an end.
//! 4. Discards are as small as the device is slow: no request waits for one for long.
//! 5. Who waits for space gets what came out for him before any of it is held: for a while nothing
//!    is, for he waits once alone.
//! 6. What cannot be discarded as the device is now is left for a run that can.
//! 7. A pool that was not stopped in order may have left some; one that was says so.

use core::time::Duration;

use braid_block::Instant;

use crate::space::Free;
use crate::{Pool, State};

/// Between two discards while there are no requests: 640 MiB a second, a TiB in half an hour.
const PAUSE: Duration = Duration::from_millis(12);
/// After the last request. A host that waits for each answer before it asks again is not gone.
const QUIET: Duration = Duration::from_millis(100);
/// Between two discards under load: 8 MiB a second, a TiB in a day and a half.
const LOADED_PAUSE: Duration = Duration::from_secs(1);
/// Under load discards have at most one part in so many of the time.
const LOADED_PARTS: u32 = 10;
/// Between two discards at most, and before a pool that is nearly full is looked at again.
const LONG_PAUSE: Duration = Duration::from_secs(10);
/// The next discard is half as large after one that took longer, and else twice.
const SHORT: Duration = Duration::from_millis(20);
/// Clusters of a discard are at most two to the power of this: 8 MiB.
const SHIFT_MAX: u32 = 5;
/// Of the space that somebody may want, a discard holds one part of so many.
const PARTS: u64 = 4;
/// Journal block of what was freed before this run, lower than any of it.
pub(super) const EARLIER: u64 = 0;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// The next cluster to be looked at; none: nothing is left of an earlier run.
    next: Option<u32>,
    /// When the next discard may begin if there are no requests, and when in any case.
    due: Instant,
    late: Instant,
    /// When the last one began, and how large they are: clusters as a power of two.
    begun: Instant,
    shift: u32,
    /// Since when no request is in work.
    quiet: Option<Instant>,
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
        self.wait(now, LONG_PAUSE, LONG_PAUSE);
    }

    /// A discard of what an earlier run left is done.
    pub(super) fn ended(&mut self, now: Instant) {
        let took = now.since(self.begun);
        self.shift =
            if took > SHORT { self.shift.saturating_sub(1) } else { SHIFT_MAX.min(self.shift + 1) };
        let loaded = LOADED_PAUSE.max(took * (LOADED_PARTS - 1));
        self.wait(now, PAUSE.max(took).min(LONG_PAUSE), loaded.min(LONG_PAUSE));
    }

    /// None begins for so long, without and with requests.
    fn wait(&mut self, now: Instant, quiet: Duration, loaded: Duration) {
        self.due = self.due.max(now + quiet);
        self.late = self.late.max(now + loaded);
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
            self.reclaim.trim.wait(self.turned, PAUSE, LOADED_PAUSE);
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
        let requests = !self.ops.is_empty();
        let trim = &mut self.reclaim.trim;
        trim.quiet = if requests { None } else { trim.quiet.or(Some(now)) };
        if self.trim_due().is_none_or(|due| now < due) {
            return;
        }
        let most = self.store.space.available() / PARTS;
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(1 << self.reclaim.trim.shift);
        if most == 0 {
            self.reclaim.trim.wait(now, LONG_PAUSE, LONG_PAUSE);
            return;
        }
        self.reclaim.trim.next = match self.store.space.free_from(from, most) {
            Free::Run { first, count } if self.discard_run(first, count, EARLIER) => {
                (first..first + count).for_each(|cluster| self.store.space.keep(cluster));
                self.reclaim.trim.begun = now;
                Some(first + count)
            }
            // There is no room for another discard.
            Free::Run { first, .. } => {
                self.reclaim.trim.wait(now, PAUSE, LOADED_PAUSE);
                Some(first)
            }
            Free::NoneTo(next) => {
                self.again();
                Some(next)
            }
            Free::End => None,
        };
    }

    /// When the next discard may begin.
    pub(super) fn trim_due(&self) -> Option<Instant> {
        let trim = &self.reclaim.trim;
        if trim.next.is_none() || self.state != State::Open || !self.may_trim() {
            return None;
        }
        let quiet = trim.quiet.unwrap_or(self.turned).max(self.busy) + QUIET;
        let due = self.ops.is_empty().then(|| trim.due.max(quiet));
        Some(due.map_or(trim.late, |due| due.min(trim.late)))
    }

    /// Whether nothing of an earlier run is being discarded, and nobody waits for space.
    fn may_trim(&self) -> bool {
        !self.reclaim.quarantine.has_earlier() && self.hungry.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::time::Duration;

    use braid_block::Instant;

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
        for _ in 0..40 {
            rig.now = rig.now + super::QUIET;
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
        rig.now = rig.now + super::QUIET;
        rig.turn();
        // The first ones are small.
        for _ in 0..3 {
            assert!(matches!(rig.effects[..], [Effect::Discard { .. }]), "{:?}", rig.effects);
            rig.finish(0);
            rig.now = rig.now + super::QUIET;
            rig.turn();
        }
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
        rig.now = rig.now + super::QUIET;
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
        rig.now = rig.now + super::QUIET;
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

    /// Lets so many steps of 10 ms pass, each discard done after so many; does `beside` in each
    /// step. Tells how large the discards were.
    fn steps(
        rig: &mut Rig,
        count: u32,
        lasts: u32,
        mut beside: impl FnMut(&mut Rig, u32),
    ) -> Vec<u64> {
        let (mut sizes, mut age) = (Vec::new(), 0);
        let discards =
            |rig: &Rig| rig.effects.iter().position(|e| matches!(e, Effect::Discard { .. }));
        for step in 0..count {
            rig.now = rig.now + Duration::from_millis(10);
            rig.turn();
            beside(rig, step);
            let all = rig.effects.iter().filter(|e| matches!(e, Effect::Discard { .. }));
            assert!(all.count() <= 1, "one at a time");
            let Some(at) = discards(rig) else { continue };
            if age == lasts {
                let Effect::Discard { len, .. } = rig.effects[at] else { unreachable!() };
                sizes.push(len / CLUSTER);
                rig.finish(at);
                age = 0;
            } else {
                age += 1;
            }
        }
        sizes
    }

    #[test]
    fn beside_a_request_that_is_in_work_one_small_discard_a_second_begins_until_all_are_done() {
        let (rig, _) = Rig::new();
        let mut rig = rig.reopen_as(discarding());
        let handle = rig.pool.find(&[1; 16]).expect("it is there");
        rig.write(handle, 0, 7);
        assert_eq!(rig.pool.ops.len(), 1, "it is in work");
        let sizes = steps(&mut rig, 505, 0, |_, _| {});
        assert_eq!(sizes, [1, 2, 4, 8, 16], "one a second");
        let sizes = steps(&mut rig, 2000, 0, |_, _| {});
        assert!(sizes.iter().all(|size| (1..=32).contains(size)), "{sizes:?}");
        assert!((5..20).contains(&sizes.len()), "{sizes:?}");
        assert_eq!(rig.pool.trim_due(), None, "it came to an end");
        assert_eq!(rig.pool.ops.len(), 1, "under load");
    }

    #[test]
    fn between_two_requests_of_a_host_that_waits_for_each_none_begins() {
        let (rig, _) = Rig::new();
        let mut rig = rig.reopen_as(discarding());
        let handle = rig.pool.find(&[1; 16]).expect("it is there");
        // Read by read, each as soon as the one before has ended: 50 ms after it began.
        let sizes = steps(&mut rig, 205, 0, |rig, step| {
            if step % 5 == 0 {
                let reads = |e: &Effect| !matches!(e, Effect::Discard { .. });
                while let Some(at) = rig.effects.iter().position(reads) {
                    rig.finish(at);
                }
                rig.write(handle, 0, 7);
            }
        });
        assert_eq!(sizes.len(), 2, "in two seconds");
        rig.run();
        let sizes = steps(&mut rig, 40, 0, |_, _| {});
        assert!(sizes.len() > 8, "{sizes:?}: as fast as may be once it is gone");
    }

    #[test]
    fn a_request_that_took_long_is_followed_by_none_at_once() {
        let (rig, _) = Rig::new();
        let mut rig = rig.reopen_as(discarding());
        let handle = rig.pool.find(&[1; 16]).expect("it is there");
        rig.write(handle, 0, 7);
        rig.now = rig.now + Duration::from_millis(500);
        rig.run();
        assert_eq!(rig.pool.ops.len(), 0);
        assert_eq!(rig.pool.counters().device_discards, 0);
        rig.now = rig.pool.poll_timeout().expect("it is looked at by itself");
        rig.turn();
        while rig.pool.counters().device_discards == 0 {
            rig.now = rig.pool.poll_timeout().expect("it is looked at by itself");
            rig.turn();
        }
        assert!(rig.now >= Instant::ZERO + Duration::from_millis(600), "{:?}", rig.now);
        assert!(rig.now < Instant::ZERO + Duration::from_secs(1), "{:?}", rig.now);
    }

    #[test]
    fn of_a_slow_device_less_is_asked_at_a_time_and_less_often() {
        let (rig, _) = Rig::new();
        let mut rig = rig.reopen_as(discarding());
        assert_eq!(steps(&mut rig, 15, 0, |_, _| {}), [1, 2, 4]);
        // Half a second each: half of the time without requests.
        let slow = steps(&mut rig, 1000, 50, |_, _| {});
        assert!((8..=10).contains(&slow.len()), "{slow:?}");
        assert_eq!(*slow.last().expect("some"), 1, "{slow:?}");
        let handle = rig.pool.find(&[1; 16]).expect("it is there");
        rig.write(handle, 0, 7);
        let beside = steps(&mut rig, 2000, 50, |_, _| {});
        assert!((3..=5).contains(&beside.len()), "{beside:?}: a tenth of the time");
    }
}
