//! What the management asks of an owner, and what an owner does by itself in every turn.

use braid_block::{Instant, Memory};

use crate::{Command, Failure};

use super::Volume;
use super::state::{Phase, bit};
use super::swap::Change;

impl Volume {
    /// Takes a command that only an owner at work can carry out.
    pub(crate) fn order(&mut self, now: Instant, tag: u64, command: Command) {
        let Some(nexus) = self.nexus.as_mut().filter(|nexus| nexus.phase == Phase::Serving) else {
            return self.end(tag, Err(Failure::NotOwner));
        };
        match command {
            Command::TakeOver { .. } => {}
            Command::Shutdown => self.shut_down(tag),
            Command::Return { replica } => self.bring_back(now, tag, &replica),
            Command::Add { replica } => {
                nexus.changes.push_back(Change::Name { uuid: replica, tag })
            }
            Command::GiveUp { replica } => self.give_up(now, tag, &replica),
            Command::Exclude { replica } => self.exclude(tag, &replica),
            Command::Snapshot { uuid } => self.snapshot(now, tag, uuid),
            Command::DeleteSnapshot { uuid } => {
                nexus.changes.push_back(Change::DropSnapshot { uuid, tag });
            }
            Command::Resize { bytes } => self.resize(now, tag, bytes),
        }
    }

    /// Takes a member out that may be healthy: it applies everything until the change that says so
    /// is relied on, so that nobody waits for a store that does not answer.
    fn exclude(&mut self, tag: u64, replica: &crate::Uuid) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let slot = nexus.record().slot_of(replica);
        let Some(slot) = slot.filter(|slot| nexus.members & bit(*slot) != 0) else {
            return self.end(tag, Err(Failure::NotFound));
        };
        if nexus.staying() & !nexus.unwanted() & !bit(slot) == 0 {
            return self.end(tag, Err(Failure::Busy));
        }
        nexus.excluding.push((slot, tag));
    }

    fn give_up(&mut self, now: Instant, tag: u64, replica: &crate::Uuid) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        if nexus.joiner_slot().is_some() && nexus.joiner_slot() == nexus.record().slot_of(replica) {
            if nexus.joiner.as_ref().is_some_and(|joiner| joiner.adding) {
                return self.end(tag, Err(Failure::Busy));
            }
            self.joiner_failed(now);
        }
        let Some(nexus) = self.nexus.as_mut() else { return };
        nexus.changes.push_back(Change::Forget { uuid: *replica, tag });
    }

    /// What an owner does by itself.
    pub(crate) fn owner_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.take_over_on(now);
        self.swap_on(now);
        self.held_on(now);
        self.calm_on();
        self.snapshot_on(now);
        self.drops_on(now);
        self.segments_on(mem, now);
        // After what may end suspicion: nothing else would look at a return again.
        self.comeback_on(now);
        self.clean_on(now);
        self.shutdown_on(now);
    }

    /// When [`crate::Event::Elapsed`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.first_due();
        let Some(nexus) = self.nexus.as_deref() else { return due };
        let phase = match nexus.phase {
            Phase::Fetching { again } => again,
            Phase::Fencing { deadline } => Some(deadline),
            _ => None,
        };
        let fences = matches!(nexus.phase, Phase::Fencing { .. });
        let links = nexus.links.iter().filter(|_| fences).filter_map(|link| link.line.again());
        let swap = nexus.swap.as_ref().and_then(super::swap::Swap::again);
        let serves = nexus.phase == Phase::Serving && !nexus.closed;
        let held = nexus.held.filter(|_| serves).map(|at| at + self.config.timing.held);
        let rest = [self.snapshot_due(), self.drops_due(), self.comeback_due(), self.clean_due()];
        let rest = rest.into_iter().chain([self.pace_due()]);
        [due, phase, swap, held].into_iter().chain(rest).flatten().chain(links).min()
    }
}
