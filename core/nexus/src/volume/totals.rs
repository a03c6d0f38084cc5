//! What happened to a volume at this engine, in numbers that only grow: for metrics. Counts come
//! from what is told, times from looking at where the owner stands in every turn.

use core::time::Duration;

use braid_block::Instant;

use crate::{Note, Step};

use super::Volume;
use super::state::Phase;

/// Counts and times since the volume was added here; owners that follow each other go on with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Epochs that were claimed, and those in which I/O was accepted.
    pub claims: u64,
    /// As many of them came to accept I/O.
    pub take_overs: u64,
    /// Time from the appointment of an owner to I/O.
    pub take_over_time: Duration,
    /// Time of that in which members were fenced.
    pub fence_time: Duration,
    /// Replicas that were fenced to return.
    pub returns_begun: u64,
    /// Replicas that became members again.
    pub returns: u64,
    /// Members that were excluded.
    pub exclusions: u64,
    /// Times that writes were held until the path went inaccessible.
    pub held: u64,
    /// Time in which writes waited for an exclusion.
    pub held_time: Duration,
    /// Suspect regions that were made equal, and the bytes that differed.
    pub resynced_regions: u64,
    /// Bytes of these that differed and were copied.
    pub resynced_bytes: u64,
    /// Blocks that a member could not read, written anew.
    pub repaired_blocks: u64,
    /// Bytes gone through for replicas that returned.
    pub rebuilt: u64,
    /// Bytes of these that differed and were copied.
    pub copied: u64,
    /// Time in which I/O was accepted while a replica of the record was away.
    pub degraded_time: Duration,
    /// Snapshots that were taken.
    pub snapshots: u64,
}

/// Where an owner stands, as far as its time is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    at: Instant,
    takes_over: bool,
    fences: bool,
    holds: bool,
    degraded: bool,
}

impl Totals {
    pub(crate) const fn count(&mut self, note: &Note) {
        match note {
            Note::Claimed { .. } => self.claims += 1,
            Note::Serving { .. } => self.take_overs += 1,
            Note::Excluded { slots } => self.exclusions += slots.count_ones() as u64,
            Note::Held => self.held += 1,
            Note::Resynced { copied, .. } => {
                self.resynced_regions += 1;
                self.resynced_bytes += *copied;
            }
            Note::Repaired { blocks } => self.repaired_blocks += *blocks as u64,
            Note::Returning { step: Step::Fencing, .. } => self.returns_begun += 1,
            Note::Returning { step: Step::Member, .. } => self.returns += 1,
            Note::Snapshot { taken: true } => self.snapshots += 1,
            _ => {}
        }
    }
}

impl Volume {
    /// Counts the time since it was last looked at to what was then.
    pub(crate) fn count_time(&mut self, now: Instant) {
        let was = self.standing;
        let time = now.since(was.at);
        let totals = &mut self.totals;
        for (counts, total) in [
            (was.takes_over, &mut totals.take_over_time),
            (was.fences, &mut totals.fence_time),
            (was.holds, &mut totals.held_time),
            (was.degraded, &mut totals.degraded_time),
        ] {
            *total += if counts { time } else { Duration::ZERO };
        }
        self.standing = self.stands(now);
    }

    fn stands(&self, at: Instant) -> Standing {
        let Some(nexus) = self.nexus.as_deref() else {
            return Standing { at, ..Standing::default() };
        };
        let serves = nexus.phase == Phase::Serving;
        Standing {
            at,
            takes_over: !serves,
            fences: matches!(nexus.phase, Phase::Fencing { .. }),
            holds: serves && nexus.held.is_some(),
            degraded: serves && (nexus.record().away() != 0 || nexus.failing != 0),
        }
    }
}
