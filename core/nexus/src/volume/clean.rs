//! Clearing marks: what every member has on its media alike need not be compared after a crash.
//!
//! Invariants:
//! 1. Marks of a region are cleared as of a flush only if no write to it was in work from before
//!    the flush was sent until it had succeeded everywhere.
//! 2. From the sending of that flush until now nothing was suspect, away or joining, and the
//!    membership did not change.
//! 3. At most one command to each member, and one region, per [`WRITES`] writes: marking it again
//!    costs a flush of the replica. An idle volume clears all.
//! 4. What is looked at in a turn does not grow with the volume.

use braid_block::Instant;

use crate::Plant;
use crate::wire::{Answer, Command, Refusal};

use super::Volume;
use super::call::Purpose;
use super::state::{Nexus, Phase, bit, slots};
use super::written::{Runs, Sweep};

/// Writes of hosts for which one region may be cleared.
const WRITES: u64 = 128;

/// Where the clearing of marks stands.
#[derive(Debug, Default)]
pub(crate) struct Cleaning {
    /// Flushes that had been sent when all was calm at last: those after it count.
    calm: Option<u64>,
    /// The last flush that counts, and succeeded everywhere.
    flush: Option<u64>,
    /// Where the search for regions to be cleared stands.
    sweep: Sweep,
    /// What is being cleared, and by whom not yet.
    asked: Option<(u64, Runs, u8)>,
    /// An idle volume's own flush: its number, and who did not answer.
    own: Option<(u64, u8)>,
    /// When a write was last settled, and how many had been.
    written: (Instant, u64),
}

impl Cleaning {
    /// A volume that was just taken over is not idle yet.
    pub(crate) const fn begins(&mut self, now: Instant) {
        self.written.0 = now;
    }
}

impl Volume {
    /// Looks whether all is calm: nothing suspect, nobody away, joining or failing.
    pub(crate) fn calm_on(&mut self) {
        let ignores = self.planted(Plant::CleanAcrossChange);
        let Some(nexus) = self.nexus.as_mut() else { return };
        if nexus.phase != Phase::Serving {
            return;
        }
        if nexus.is_calm() || ignores {
            nexus.cleaning.calm.get_or_insert(nexus.flushes);
        } else {
            (nexus.cleaning.calm, nexus.cleaning.flush) = (None, None);
        }
    }

    /// A flush succeeded on every member.
    pub(crate) fn flushed(&mut self, number: u64) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let cleaning = &mut nexus.cleaning;
        if cleaning.calm.is_some_and(|calm| number > calm) {
            cleaning.flush = cleaning.flush.max(Some(number));
        }
    }

    /// Clears marks, if it is time to.
    pub(crate) fn clean_on(&mut self, now: Instant) {
        let idle = self.config.timing.idle;
        let early = self.planted(Plant::CleanEarly);
        let Some(nexus) = self.nexus.as_mut() else { return };
        let (cleaning, written) = (&mut nexus.cleaning, &nexus.written);
        let works = nexus.ranges.len() > 0;
        if nexus.phase != Phase::Serving || cleaning.asked.is_some() || written.len() == 0 {
            return;
        }
        if cleaning.written.1 != written.writes {
            cleaning.written = (now, written.writes);
        }
        let is_idle = now.since(cleaning.written.0) >= idle || nexus.leaving.is_some();
        let most = if is_idle { u64::MAX } else { written.writes / WRITES };
        if let Some(flush) = cleaning.flush.filter(|_| most > 0) {
            let mut runs = cleaning.sweep.look(written, flush, most, early);
            if runs.is_empty() {
                // Behind where it was cleared last there may be none.
                runs = cleaning.sweep.look(written, flush, most, early);
            }
            if !runs.is_empty() {
                return self.clean(now, flush, runs);
            }
            if is_idle && !cleaning.sweep.is_over(flush) {
                // Nothing else would look on.
                self.stepped = true;
                return;
            }
        }
        if is_idle && !works && cleaning.own.is_none() && cleaning.calm.is_some() {
            self.own_flush(now);
        }
    }

    fn clean(&mut self, now: Instant, flush: u64, runs: Runs) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let members = nexus.members;
        nexus.written.writes = 0;
        nexus.cleaning.written.1 = 0;
        let regions: alloc::boxed::Box<[(u32, u32)]> = runs.iter().copied().collect();
        nexus.cleaning.asked = Some((flush, runs, members));
        for slot in slots(members) {
            let command = Command::Clean { flush, regions: regions.clone() };
            self.send(now, slot, Purpose::Clean, command, None);
        }
    }

    pub(crate) fn on_cleaned(&mut self, now: Instant, slot: u8, result: &Result<Answer, Refusal>) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some((flush, runs, waiting)) = nexus.cleaning.asked.as_mut() else { return };
        *waiting &= !bit(slot);
        if *waiting == 0 {
            for (first, count) in runs.iter() {
                nexus.written.cleaned(*first, *count, *flush);
            }
            nexus.cleaning.asked = None;
        }
        match result {
            Ok(_) | Err(Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. }) => {}
            Err(refusal) => self.fail(now, slot, *refusal),
        }
    }

    /// Flushes an idle volume, so that its marks can go, or one that is left.
    pub(crate) fn own_flush(&mut self, now: Instant) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        nexus.flushes += 1;
        let (number, targets) = (nexus.flushes, nexus.targets());
        nexus.cleaning.own = Some((number, targets));
        for slot in slots(targets) {
            self.send(now, slot, Purpose::OwnFlush, Command::Flush { number }, None);
        }
    }

    pub(crate) fn on_own_flush(
        &mut self,
        now: Instant,
        slot: u8,
        result: &Result<Answer, Refusal>,
    ) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let Some((number, waiting)) = nexus.cleaning.own.as_mut() else { return };
        let (done, number) = (*waiting == bit(slot), *number);
        *waiting &= !bit(slot);
        if done {
            nexus.cleaning.own = None;
            // A member that failed makes it count for nothing: all is calm no more.
            if result.is_ok() && nexus.failing == 0 {
                self.flushed(number);
            }
        }
        match result {
            Ok(_) | Err(Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. }) => {}
            Err(refusal) => self.fail(now, slot, *refusal),
        }
    }

    /// Whether an own flush, or a clearing, is on its way.
    pub(crate) fn is_cleaning(&self) -> bool {
        let cleaning = self.nexus.as_ref().map(|nexus| &nexus.cleaning);
        cleaning.is_some_and(|cleaning| cleaning.asked.is_some() || cleaning.own.is_some())
    }

    pub(crate) fn clean_due(&self) -> Option<Instant> {
        let nexus = self.nexus.as_deref()?;
        let cleaning = &nexus.cleaning;
        let waits = nexus.phase == Phase::Serving
            && nexus.written.len() > 0
            && nexus.ranges.len() == 0
            && cleaning.calm.is_some()
            && cleaning.asked.is_none()
            && cleaning.own.is_none();
        waits.then_some(cleaning.written.0 + self.config.timing.idle)
    }
}

impl Nexus {
    /// Whether marks may be cleared: nothing is suspect, nobody is away, joins or fails.
    pub(crate) fn is_calm(&self) -> bool {
        let away = self.record().away() != 0 || self.failing != 0;
        self.suspect.is_empty() && !away && self.joiner.is_none()
    }
}
