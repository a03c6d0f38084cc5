//! What of a replica that is compared as a whole is equal already.
//!
//! Marks do not tell what such a replica lacks, so each of its regions is compared once. That may
//! take hours, and each snapshot begins the return anew, as does whatever else ends an attempt.
//! What was found equal needs marks alone from then on: whatever is written later is marked, for
//! nobody clears a mark while a replica is away.
//!
//! Invariants:
//! 1. A region is known when a segment made it equal, in the volume itself or in a snapshot that
//!    this owner took while the record named the replica as away. Of an older one it would say
//!    nothing of what comes after: marks may have been cleared before the replica was away. The
//!    last region of a layer is known only if the layer fills it: the volume may grow, and behind
//!    its end was nothing compared.
//! 2. That counts for the instance that was compared, as long as it is away, and as long as no
//!    replica becomes a member: a new one bears no mark where it was equal anyway.
//! 3. It counts for later layers. An attempt that left a snapshot out or finds one that is not as
//!    the record says begins with nothing, for it may have to go back to an older one.

use crate::record::Uuid;
use crate::wire::REGION;

use super::comeback::Joiner;
use super::regions::Regions;
use super::state::{Nexus, bit};
use super::swap::Change;

/// What an attempt that ended leaves for the next one.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    instance: u64,
    unknown: Regions,
}

/// A snapshot that this owner took, and the slots that were away then and have been since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frozen {
    uuid: Uuid,
    away: u8,
}

/// All regions that there may ever be.
pub(crate) fn all_regions() -> Regions {
    let mut all = Regions::default();
    all.insert(0, u32::MAX);
    all
}

/// Whether marks that are newer than this layer tell all that a replica lacks which has it.
pub(crate) fn is_followed(frozen: &[Frozen], slot: u8, layer: Option<&Uuid>) -> bool {
    let Some(uuid) = layer else { return true };
    frozen.iter().any(|frozen| frozen.uuid == *uuid && frozen.away & bit(slot) != 0)
}

impl Nexus {
    /// The record was changed by this.
    pub(crate) fn note_change(&mut self, change: &Change) {
        let record = self.record.as_deref().expect("a claimed volume has a record");
        let away = record.away();
        if let Change::Snapshot { uuid, .. } = change {
            self.frozen.push(Frozen { uuid: *uuid, away });
        }
        let joins = matches!(change, Change::Join { .. });
        self.frozen.retain(|frozen| !joins && record.snapshot(&frozen.uuid).is_some());
        self.frozen.iter_mut().for_each(|frozen| frozen.away &= away);
        for absent in &mut self.absent {
            if joins || away & bit(absent.slot) == 0 {
                absent.compared = None;
            }
        }
    }

    /// What is not known of a replica that answered the fence as this instance: all of it, or what
    /// the attempt before did not come to.
    pub(crate) fn unknown(&mut self, slot: u8, instance: u64) -> Regions {
        let absent = self.absent.iter_mut().find(|absent| absent.slot == slot);
        let compared = absent.and_then(|absent| absent.compared.take());
        let same = compared.filter(|compared| compared.instance == instance);
        same.map_or_else(all_regions, |compared| compared.unknown)
    }

    /// An attempt has ended; what it found equal stays so.
    pub(crate) fn keep_compared(&mut self, joiner: Joiner) {
        let fenced = joiner.whole && !joiner.unknown.is_empty();
        if !fenced || !joiner.skipped.is_empty() {
            return;
        }
        let (slot, instance, unknown) = (joiner.slot, joiner.instance, joiner.unknown);
        for absent in self.absent.iter_mut().filter(|absent| absent.slot == slot) {
            absent.compared = Some(Compared { instance, unknown: unknown.clone() });
        }
    }
}

impl Joiner {
    /// A region of this layer of so many bytes is equal.
    pub(crate) fn found_equal(
        &mut self,
        frozen: &[Frozen],
        (layer, bytes): (Option<&Uuid>, u64),
        region: u32,
    ) {
        let fills = (u64::from(region) + 1) * REGION <= bytes;
        if self.whole && fills && is_followed(frozen, self.slot, layer) {
            self.unknown.remove(region, region + 1);
        }
    }

    /// Nothing is known of it: marks do not tell what it lacks.
    pub(crate) fn knows_nothing(&mut self) {
        (self.whole, self.unknown) = (true, all_regions());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_follow_a_snapshot_tell_all_if_it_was_taken_while_the_replica_was_away() {
        let frozen = [Frozen { uuid: [1; 16], away: 0b10 }, Frozen { uuid: [2; 16], away: 0b110 }];
        assert!(is_followed(&frozen, 1, None), "of the volume itself they always do");
        assert!(is_followed(&frozen, 1, Some(&[1; 16])));
        assert!(!is_followed(&frozen, 2, Some(&[1; 16])), "it was a member, or not named, then");
        assert!(is_followed(&frozen, 2, Some(&[2; 16])));
        assert!(!is_followed(&frozen, 1, Some(&[3; 16])), "another owner took it");
    }
}
