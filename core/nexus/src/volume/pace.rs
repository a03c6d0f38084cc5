//! How fast a replica that returns is brought up to date, and how far that is.
//!
//! A region that is gone through is owed its bytes, and what is owed is paid off at the rate that
//! holds just now: one beside hosts' commands, another while there are none. The next region is
//! begun when so little is owed as is paid in [`WINDOW`]. Suspect regions are not paced: hosts wait
//! for them.
//!
//! Whoever runs many volumes may let few of them go through much at once: what is more than
//! [`BRIEF`] needs a turn. Until it has one, the replica gets every write and waits.
//!
//! Invariants:
//! 1. Over any time longer than [`WINDOW`] no more is gone through than the rates allow, but for
//!    the regions that may be in work at once.
//! 2. While it is paused no region is begun, and no return.
//! 3. Without a turn no region is begun of a layer that needs one.

use core::num::NonZeroU64;
use core::time::Duration;

use braid_block::Instant;

use crate::Uuid;
use crate::wire::REGION;

use super::Volume;
use super::comeback::Stage;
use super::state::Nexus;

/// A rate holds over this time; less is not smoothed.
const WINDOW: Duration = Duration::from_millis(100);
/// Hosts count as there for so long after a command: the next one comes soon.
const RECENT: Duration = Duration::from_millis(100);
/// A speed that is told is measured over this time at least.
const MEASURED: Duration = Duration::from_secs(1);
/// Bytes a second beside hosts' commands, if nobody says otherwise: half of what a single disk of
/// the slower kind gives, and a few seconds for what a short absence leaves.
const BESIDE: u64 = 64 << 20;

/// A layer of which no more is to be gone through needs no turn: at the default rate it takes 16 s,
/// and a replica that was away for a moment is not to wait behind ones that are copied as a whole.
pub(crate) const BRIEF: u64 = 1 << 30;

/// How fast replicas that return are brought up to date: bytes of the volume that are gone through
/// a second. Each is read on both sides, and read and written once more if it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Not at all.
    pub paused: bool,
    /// While hosts' commands are in work; none: as fast as it goes.
    pub beside: Option<NonZeroU64>,
    /// While there are none; none: as fast as it goes.
    pub alone: Option<NonZeroU64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { paused: false, beside: NonZeroU64::new(BESIDE), alone: None }
    }
}

/// How far a replica that returns is with one layer: a snapshot that it missed, or the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The replica's slot.
    pub slot: u8,
    /// The snapshot; none: the volume.
    pub snapshot: Option<Uuid>,
    /// Snapshots that it lacks after this one.
    pub snapshots_left: u32,
    /// Bytes to go through, all in all.
    pub total: u64,
    /// Bytes that were.
    pub done: u64,
    /// Bytes of these that differed and were copied.
    pub copied: u64,
    /// Bytes gone through a second, as measured last; zero: not known yet.
    pub rate: u64,
}

impl Progress {
    /// When it will be through this layer if it goes on like this; none: nobody knows.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.done);
        (self.rate > 0).then(|| Duration::from_secs(left.div_ceil(self.rate)))
    }
}

/// What a joiner was brought so far of the layer that is being copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone {
    total: u64,
    done: u64,
    copied: u64,
    /// From when, and from how much on, the speed is measured.
    from: (Instant, u64),
    rate: u64,
}

impl Gone {
    /// Nothing yet, of so many regions.
    pub(crate) const fn begins(now: Instant, regions: u64) -> Self {
        Self { total: regions * REGION, done: 0, copied: 0, from: (now, 0), rate: 0 }
    }

    fn through(&mut self, now: Instant, copied: u64) {
        self.done = (self.done + REGION).min(self.total);
        self.copied += copied;
        let (since, before) = self.from;
        let time = now.since(since);
        if time >= MEASURED || before == 0 && !time.is_zero() {
            let rate = u128::from(self.done - before) * NANOS / time.as_nanos();
            self.rate = u64::try_from(rate).unwrap_or(u64::MAX);
        }
        if time >= MEASURED {
            self.from = (now, self.done);
        }
    }
}

const NANOS: u128 = 1_000_000_000;

/// What is owed, and who is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacing {
    pace: Pace,
    owed: u64,
    /// From when on it is still to be paid off.
    since: Instant,
    /// When a host's command was last in work.
    busy: Instant,
    /// Whether hosts were there when it was last asked for, and the rate that held.
    beside: bool,
    rate: Option<NonZeroU64>,
    /// A region waits for nothing but this.
    waits: bool,
    /// What is not brief may go on.
    turn: bool,
}

impl Default for Pacing {
    fn default() -> Self {
        let pace = Pace::default();
        let (since, busy) = (Instant::ZERO, Instant::ZERO);
        Self { pace, owed: 0, since, busy, beside: false, rate: None, waits: false, turn: true }
    }
}

/// Bytes that a rate pays off in this time.
fn paid(rate: NonZeroU64, time: Duration) -> u64 {
    let bytes = u128::from(rate.get()) * time.as_nanos() / NANOS;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The time in which a rate pays off so many bytes.
fn time(rate: NonZeroU64, bytes: u64) -> Duration {
    let nanos = (u128::from(bytes) * NANOS).div_ceil(u128::from(rate.get()));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Pacing {
    /// Whether the next region may be begun.
    fn allows(&mut self, now: Instant, hosts: bool) -> bool {
        if hosts {
            self.busy = now;
        }
        self.beside = hosts || (self.busy > Instant::ZERO && now.since(self.busy) < RECENT);
        self.rate = if self.beside { self.pace.beside } else { self.pace.alone };
        let Some(rate) = self.rate else {
            (self.owed, self.since) = (0, now);
            return !self.pace.paused;
        };
        let off = paid(rate, now.since(self.since)).min(self.owed);
        self.owed -= off;
        // What is less than a byte is not lost.
        self.since = if self.owed == 0 { now } else { self.since + time(rate, off) };
        !self.pace.paused && self.owed <= paid(rate, WINDOW)
    }

    /// When it allows the next one.
    fn due(&self) -> Option<Instant> {
        let rate = self.rate.filter(|_| self.waits && !self.pace.paused)?;
        let paid = self.since + time(rate, self.owed.saturating_sub(paid(rate, WINDOW)));
        // Hosts may be gone by then, and another rate holds.
        Some(if self.beside { paid.min(self.busy + RECENT) } else { paid })
    }
}

impl Volume {
    /// Sets how fast replicas that return are brought up to date, by this owner and later ones
    /// here.
    pub fn set_pace(&mut self, now: Instant, pace: Pace) {
        let Pacing { busy, turn, .. } = self.pacing;
        self.pacing = Pacing { pace, since: now, busy, turn, ..Pacing::default() };
        self.stepped = true;
    }

    /// Lets rebuilds that are not brief go on, or wait for their turn, of this owner and later ones
    /// here. Nobody who does not ask for that has them wait.
    pub const fn set_turn(&mut self, turn: bool) {
        self.pacing.turn = turn;
        self.stepped = true;
    }

    /// Whether what is copied to a joiner has its turn; none: it needs none.
    pub(crate) fn turn(&self) -> Option<bool> {
        let needs = self.nexus.as_deref().is_some_and(Nexus::needs_turn);
        needs.then_some(self.pacing.turn)
    }

    /// How fast that is.
    #[must_use]
    pub const fn pace(&self) -> Pace {
        self.pacing.pace
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.pacing.pace.paused
    }

    /// Nothing waits for the pace, as far as is known.
    pub(crate) const fn pace_anew(&mut self) {
        self.pacing.waits = false;
    }

    /// Whether the next region of a return may be begun; if not, [`Volume::pace_due`] says when.
    pub(crate) fn paced(&mut self, now: Instant) -> bool {
        let allowed = self.pacing.allows(now, !self.ops.is_empty());
        let turn = self.turn() != Some(false);
        // A turn is given, and not due at some time.
        self.pacing.waits = turn && !allowed;
        turn && allowed
    }

    /// A region of so many bytes is begun.
    pub(crate) const fn owe(&mut self, bytes: u64) {
        self.pacing.owed = self.pacing.owed.saturating_add(bytes);
    }

    /// A host's command is in work.
    pub(crate) const fn hosts_are_there(&mut self, now: Instant) {
        self.pacing.busy = now;
    }

    pub(crate) fn pace_due(&self) -> Option<Instant> {
        let nexus = self.nexus.as_deref()?;
        if nexus.next_rebuild().is_some() { self.pacing.due() } else { None }
    }

    /// A region was gone through for a joiner.
    pub(crate) fn gone_through(&mut self, now: Instant, copied: u64) {
        self.totals.rebuilt += REGION;
        self.totals.copied += copied;
        if let Some(joiner) = self.nexus.as_mut().and_then(|nexus| nexus.joiner.as_mut()) {
            joiner.gone.through(now, copied);
        }
    }
}

impl Nexus {
    /// Whether so much is to be gone through for the joiner that it needs a turn.
    fn needs_turn(&self) -> bool {
        let copies = |joiner: &&super::comeback::Joiner| matches!(joiner.stage, Stage::Copying(_));
        self.joiner.as_ref().filter(copies).is_some_and(|joiner| joiner.gone.total > BRIEF)
    }

    /// How far the joiner is, while it is being copied to.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let joiner = self.joiner.as_ref()?;
        let Stage::Copying(snapshot) = joiner.stage else { return None };
        let Gone { total, done, copied, rate, .. } = joiner.gone;
        let bit = super::state::bit(joiner.slot);
        let lacks = self.record().snapshots.iter().filter(|s| s.holders & bit == 0);
        let lacks = lacks.filter(|s| !joiner.skipped.contains(&s.uuid));
        let lacks = lacks.count() - usize::from(snapshot.is_some());
        let snapshots_left = u32::try_from(lacks).unwrap_or(u32::MAX);
        let slot = joiner.slot;
        Some(Progress { slot, snapshot, snapshots_left, total, done, copied, rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(10_000 + milliseconds)
    }

    fn pacing(beside: u64, alone: u64) -> Pacing {
        let (beside, alone) = (NonZeroU64::new(beside), NonZeroU64::new(alone));
        let pace = Pace { paused: false, beside, alone };
        Pacing { pace, since: at(0), ..Pacing::default() }
    }

    /// Regions that are begun until then, asked for each millisecond.
    fn begun(pacing: &mut Pacing, from: u64, until: u64, hosts: bool) -> u64 {
        let mut regions = 0;
        for now in from..until {
            while pacing.allows(at(now), hosts) && regions < 10_000 {
                pacing.owed += MIB;
                regions += 1;
            }
        }
        regions
    }

    #[test]
    fn a_rate_holds_over_seconds() {
        let mut pacing = pacing(32 * MIB, 0);
        let regions = begun(&mut pacing, 0, 10_000, true);
        assert!((320..=325).contains(&regions), "{regions}");
    }

    #[test]
    fn without_hosts_another_rate_holds_soon() {
        let mut pacing = pacing(MIB, 100 * MIB);
        assert!((1..=3).contains(&begun(&mut pacing, 0, 1000, true)));
        let regions = begun(&mut pacing, 1000, 2100, false);
        assert!((95..=115).contains(&regions), "{regions}");
    }

    #[test]
    fn the_time_that_is_told_is_the_time_when_it_goes_on() {
        for alone in [7, 3, 2] {
            time_that_is_told(pacing(3 * MIB, alone * MIB));
        }
    }

    fn time_that_is_told(mut pacing: Pacing) {
        let mut now = at(0);
        for step in 0..200 {
            while pacing.allows(now, step % 3 == 0) {
                pacing.owed += MIB;
            }
            pacing.waits = true;
            let due = pacing.due().expect("it goes on by itself");
            assert!(due > now, "not again at once");
            now = due;
        }
        let gone = now.since(at(0));
        assert!(gone < Duration::from_secs(100), "{gone:?}");
    }

    #[test]
    fn the_slowest_rate_is_paid_off_however_often_it_is_asked_for() {
        let mut pacing = pacing(1000, 1000);
        assert!(pacing.allows(at(0), true));
        pacing.owed += 2000;
        for now in 1..1899 {
            assert!(!pacing.allows(at(now), true), "{now}");
        }
        assert!(pacing.allows(at(1900), true));
    }

    #[test]
    fn paused_is_paused() {
        let mut pacing = pacing(0, 0);
        pacing.pace.paused = true;
        assert!(!pacing.allows(at(5), true) && !pacing.allows(at(5000), false));
        pacing.waits = true;
        assert_eq!(pacing.due(), None);
    }

    #[test]
    fn a_speed_is_measured_over_a_second_and_tells_what_is_left() {
        let mut gone = Gone::begins(at(0), 100);
        for step in 1..=20 {
            gone.through(at(step * 100), MIB / 2);
        }
        assert_eq!((gone.done, gone.copied, gone.rate), (20 * MIB, 10 * MIB, 10 * MIB));
        let progress = Progress {
            slot: 0,
            snapshot: None,
            snapshots_left: 0,
            total: gone.total,
            done: gone.done,
            copied: gone.copied,
            rate: gone.rate,
        };
        assert_eq!(progress.left(), Some(Duration::from_secs(8)));
        assert_eq!(Progress { rate: 0, ..progress }.left(), None);
    }
}
