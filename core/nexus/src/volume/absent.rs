//! Replicas that are away and wanted back, and when each is tried.
//!
//! One at a time is brought back. Who lacks little goes before who is compared as a whole: after a
//! moment's absence the volume is to have its copies again in a moment. Who is compared as a whole
//! and waits for its turn gives way; one that has its turn does not, for what it found equal is
//! forgotten when another one becomes a member, and one that comes and goes could keep it out for
//! good.
//!
//! Invariants:
//! 1. A joiner gives way once to each time that somebody says that the other one is there: one that
//!    cannot be reached costs it nothing more.
//! 2. Two that are compared as a whole do not give way to each other, whatever the record says.

use core::time::Duration;

use alloc::vec::Vec;

use braid_block::Instant;

use crate::record::{Standing, Uuid};
use crate::{Failure, Step};

use super::Volume;
use super::comeback::{Joiner, Stage};
use super::compared::Compared;
use super::pace::Gone;
use super::regions::Regions;
use super::state::{Nexus, Phase, bit};

/// The longest pause before a return is tried again that met a block which nobody can read, or for
/// which its replica had no space. Each attempt compares everything anew, and copies as far as the
/// one before; a write to the region of that block ends the pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A replica that the management wants back, and when it is tried.
#[derive(Clone, Debug)]
pub(crate) struct Absent {
    pub(crate) slot: u8,
    again: Instant,
    /// It was asked for since it was last tried: somebody says that it is there.
    fresh: bool,
    /// An attempt found that marks do not tell what it lacks, whatever the record says.
    long: bool,
    /// A region in which a block cannot be read, and the pause after that, or after it was full; it
    /// doubles.
    stuck: Option<u32>,
    pause: Duration,
    /// What the last attempt found equal, if all of it is compared.
    pub(crate) compared: Option<Compared>,
}

impl Volume {
    pub(crate) fn bring_back(&mut self, now: Instant, tag: u64, replica: &Uuid) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let slot = nexus.record().slot_of(replica);
        let Some(slot) = slot.filter(|slot| nexus.record().away() & bit(*slot) != 0) else {
            return self.end(tag, Err(Failure::NotFound));
        };
        match nexus.absent.iter_mut().find(|absent| absent.slot == slot) {
            Some(absent) => absent.fresh = true,
            None => {
                let pause = self.config.timing.command;
                nexus.absent.push(Absent {
                    slot,
                    again: now,
                    fresh: true,
                    long: false,
                    stuck: None,
                    pause,
                    compared: None,
                });
            }
        }
        self.end(tag, Ok(()));
    }

    /// Begins with the next replica that is wanted back.
    pub(crate) fn next_absent(&mut self, now: Instant) {
        let deadline = now + self.config.timing.fence * 3;
        let paused = self.is_paused();
        let nexus = self.nexus.as_mut().expect("it is serving");
        let busy = paused || nexus.begins_no_return();
        let away = nexus.record().away();
        nexus.absent.retain(|absent| away & bit(absent.slot) != 0);
        let due = nexus.absent.iter().filter(|absent| absent.again <= now);
        let rank = |absent: &&Absent| (!nexus.lacks_little(absent), absent.again);
        let first = due.min_by_key(rank).map(|absent| absent.slot);
        let Some(slot) = first.filter(|_| !busy) else { return };
        let tried = nexus.absent.iter_mut().find(|absent| absent.slot == slot);
        tried.expect("it is there").fresh = false;
        nexus.attempts += 1;
        let standing = nexus.record().replica(slot).map(|replica| replica.standing);
        nexus.joiner = Some(Joiner {
            slot,
            attempt: nexus.attempts,
            attached: false,
            adding: false,
            instance: 0,
            bytes: 0,
            stage: Stage::Opening(deadline),
            whole: standing == Some(Standing::Away { whole: true }),
            unknown: Regions::default(),
            own: Regions::default(),
            sealed: false,
            gone: Gone::begins(now, 0),
            todo: Regions::default(),
            working: 0,
            wide: false,
            stuck: false,
            surplus: Vec::new(),
            skipped: Vec::new(),
        });
        self.step(slot, Step::Fencing);
        self.associate(slot);
    }

    /// It is tried again then, not before.
    pub(crate) fn put_off(&mut self, slot: u8, again: Instant) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        for absent in nexus.absent.iter_mut().filter(|absent| absent.slot == slot) {
            absent.again = again;
        }
    }

    /// Nobody can read a block in this region: it is tried again after a pause, or when somebody
    /// has written there.
    pub(crate) fn put_off_stuck(&mut self, now: Instant, slot: u8, region: u32) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        for absent in nexus.absent.iter_mut().filter(|absent| absent.slot == slot) {
            (absent.again, absent.stuck) = (now + absent.pause, Some(region));
            absent.pause = (absent.pause * 2).min(PAUSE_MAX);
        }
    }

    /// It has no space: it is tried again after a pause, for nobody tells when it has.
    pub(crate) fn put_off_full(&mut self, now: Instant, slot: u8) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        for absent in nexus.absent.iter_mut().filter(|absent| absent.slot == slot) {
            absent.again = now + absent.pause;
            absent.pause = (absent.pause * 2).min(PAUSE_MAX);
        }
    }

    /// When a joiner that is compared as a whole and waits for its turn gives way to one that lacks
    /// little; none: it does not.
    pub(crate) fn gives_way(&self) -> Option<Instant> {
        let nexus = self.nexus.as_deref()?;
        let joiner = nexus.joiner.as_ref()?;
        let waits = self.turn() == Some(false) && joiner.working == 0 && joiner.whole;
        if !waits || self.is_paused() || nexus.begins_no_return() {
            return None;
        }
        let first = nexus.absent.iter().filter(|absent| absent.slot != joiner.slot);
        let first = first.filter(|absent| absent.fresh && nexus.lacks_little(absent));
        first.map(|absent| absent.again).min()
    }

    pub(crate) fn comeback_due(&self) -> Option<Instant> {
        let nexus = self.nexus.as_deref().filter(|nexus| nexus.phase == Phase::Serving)?;
        // While a snapshot drains none is begun.
        let wanted = nexus.wanted.again().filter(|_| !nexus.barrier);
        let next = match nexus.joiner.as_ref().map(|joiner| &joiner.stage) {
            Some(Stage::Opening(deadline)) => Some(*deadline),
            Some(_) => self.gives_way(),
            None if self.is_paused() || nexus.begins_no_return() => None,
            None => nexus.absent.iter().map(|absent| absent.again).min(),
        };
        wanted.into_iter().chain(next).min()
    }
}

impl Nexus {
    /// Whether marks tell what a replica lacks, as far as is known.
    fn lacks_little(&self, absent: &Absent) -> bool {
        let standing = self.record().replica(absent.slot).map(|replica| replica.standing);
        !absent.long && standing == Some(Standing::Away { whole: false })
    }

    /// An attempt has ended: whether all of it was compared.
    pub(crate) fn keep_length(&mut self, joiner: &Joiner) {
        for absent in self.absent.iter_mut().filter(|absent| absent.slot == joiner.slot) {
            absent.long |= joiner.whole;
        }
    }

    /// A write to these regions has ended: a block there may be readable again.
    pub(crate) fn unstick(&mut self, first: u32, end: u32) {
        let is_there = |absent: &&mut Absent| {
            absent.stuck.is_some_and(|region| (first..end).contains(&region))
        };
        for absent in self.absent.iter_mut().filter(is_there) {
            (absent.again, absent.stuck) = (Instant::ZERO, None);
        }
    }

    /// Whether a return that is due has to wait for something that will be told.
    fn begins_no_return(&self) -> bool {
        self.is_changing() || self.failing != 0 || self.leaving.is_some() || self.barrier
    }
}
