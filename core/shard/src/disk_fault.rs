//! Faults of a pool's disk, for tests: what the pool asks for fails, waits or takes longer before
//! the disk hears of it.
//!
//! Invariant: whatever was asked for is answered once, by the disk or from here; what is held up
//! goes to the disk when its time comes or the faults are replaced.

use alloc::vec::Vec;

use braid_block::{Instant, IoError, Token};
use braid_pool::Effect;

use crate::inject::{Fault, Injection};
use crate::note::Operation;

/// The faults of one disk, and what they hold up.
#[derive(Debug, Default)]
pub(crate) struct DiskFaults {
    injections: Vec<Injection>,
    /// What waits, and until when; no time: until the faults are replaced.
    held: Vec<(Option<Instant>, Effect)>,
    /// What failed, and was not answered yet.
    failed: Vec<Token>,
}

impl DiskFaults {
    /// Other faults from now on; what waits goes on at once.
    pub(crate) fn replace(&mut self, injections: &[Injection]) {
        self.injections.clear();
        self.injections.extend_from_slice(injections);
        self.held.iter_mut().for_each(|(until, _)| *until = Some(Instant::ZERO));
    }

    /// Gives back what the disk is to do now; nothing, if a fault hits it.
    pub(crate) fn pass(&mut self, now: Instant, effect: Effect) -> Option<Effect> {
        if self.injections.is_empty() {
            return Some(effect);
        }
        match self.hit(&effect) {
            // The pool's checksums are for disks that lie; a lie is made in the pool's file.
            None | Some(Fault::Corrupt) => return Some(effect),
            Some(Fault::Error) => self.failed.push(token_of(&effect)),
            Some(Fault::Stall) => self.held.push((None, effect)),
            Some(Fault::Delay(delay)) => self.held.push((Some(now + delay), effect)),
        }
        None
    }

    /// The fault that hits an effect, if any; a spent one is gone.
    fn hit(&mut self, effect: &Effect) -> Option<Fault> {
        let (operation, start, len) = match effect {
            Effect::Read { span, offset, .. } => (Operation::Read, *offset, u64::from(span.len)),
            Effect::Write { span, offset, .. } => (Operation::Write, *offset, u64::from(span.len)),
            Effect::Discard { offset, len, .. } => (Operation::Write, *offset, *len),
            Effect::Sync { .. } => (Operation::Flush, 0, u64::MAX),
        };
        Injection::hit(&mut self.injections, operation, (start, len))
    }

    /// What waited long enough.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Effect> {
        let is_due = |(until, _): &(Option<Instant>, Effect)| until.is_some_and(|u| u <= now);
        // In order, so that the disk sees what was asked first, first.
        let at = self.held.iter().position(is_due)?;
        Some(self.held.remove(at).1)
    }

    /// The next that failed: its pool is to be told.
    pub(crate) fn failed(&mut self) -> Option<(Token, IoError)> {
        self.failed.pop().map(|token| (token, IoError::Device))
    }

    /// Whether a turn would find work.
    pub(crate) const fn has_work(&self) -> bool {
        !self.failed.is_empty()
    }

    /// When [`DiskFaults::due`] has something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.held.iter().filter_map(|(until, _)| *until).min()
    }
}

const fn token_of(effect: &Effect) -> Token {
    match effect {
        Effect::Read { token, .. }
        | Effect::Write { token, .. }
        | Effect::Sync { token }
        | Effect::Discard { token, .. } => *token,
    }
}
