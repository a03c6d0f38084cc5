//! What replication keeps with a replica: fence, kind, membership record, reservation, and the
//! number of its last numbered flush.
//!
//! Invariants, by the names that a finding bears:
//! - **BearsWhole**: what an acknowledged `Bear` said is there after any crash, and of one that was
//!   not acknowledged all or nothing.
//! - **FlushNumbered**: the number of an acknowledged flush is kept, and never replaced by a lower
//!   one or by one that nobody gave.

use std::collections::BTreeSet;

use braid_pool::{Bearing, Fence, Reservation};

use super::{Oracle, Uuid, Violation};

/// All that a replica bears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Borne {
    fence: Fence,
    member: bool,
    record: Vec<u8>,
    reservation: Reservation,
}

impl Borne {
    fn with(mut self, bearing: &Bearing) -> Self {
        self.fence = bearing.fence.unwrap_or(self.fence);
        self.member = bearing.member.unwrap_or(self.member);
        if let Some(record) = &bearing.record {
            self.record = record.to_vec();
        }
        if let Some(reservation) = &bearing.reservation {
            self.reservation = (**reservation).clone();
        }
        self
    }
}

/// What a replica bears, and what it may bear.
#[derive(Clone, Debug, Default)]
pub(super) struct Burden {
    /// By all commands that were acknowledged.
    sure: Borne,
    /// What was asked for and not acknowledged, by the command's tag, in order.
    asked: Vec<(u64, Bearing)>,
    /// The highest number of an acknowledged flush, and those that may be there instead.
    number: u64,
    numbers: BTreeSet<u64>,
    /// The next number to be given.
    next: u64,
}

impl Burden {
    /// Whether anything was ever asked for.
    pub(super) fn is_light(&self) -> bool {
        self.asked.is_empty() && self.sure == Borne::default()
    }

    /// Whether it is a member for certain; none if that is being changed.
    pub(super) fn member(&self) -> Option<bool> {
        let settled = self.asked.iter().all(|(_, bearing)| bearing.member.is_none());
        settled.then_some(self.sure.member)
    }

    /// All that it may bear: commands take effect in order, and one may have been refused if it
    /// needs a place for a record.
    fn possible(&self) -> Vec<Borne> {
        let mut possible = vec![self.sure.clone()];
        let mut ends = possible.clone();
        for (_, bearing) in &self.asked {
            let mut after: Vec<Borne> = ends.iter().map(|end| end.clone().with(bearing)).collect();
            possible.extend(after.iter().cloned());
            if bearing.record.is_some() {
                after.append(&mut ends);
            }
            ends = after;
        }
        possible
    }
}

impl Oracle {
    /// A replica is to bear something.
    pub(crate) fn bear(&mut self, replica: &Uuid, tag: u64, bearing: &Bearing) {
        self.tick();
        if bearing.member.is_some() {
            self.forget_marks(replica);
        }
        self.layer_mut(replica).burden.asked.push((tag, bearing.clone()));
    }

    /// Whether it does now, or was refused.
    pub(crate) fn borne(&mut self, replica: &Uuid, tag: u64, done: bool) {
        self.tick();
        let burden = &mut self.layer_mut(replica).burden;
        let at = burden.asked.iter().position(|(of, _)| *of == tag);
        let (_, bearing) = burden.asked.remove(at.expect("a command that was asked for"));
        if done {
            burden.sure = burden.sure.clone().with(&bearing);
        }
        if bearing.member.is_some() {
            self.forget_marks(replica);
        }
    }

    /// Whether a replica bears anything, or was asked to.
    pub(crate) fn is_laden(&self, replica: &Uuid) -> bool {
        !self.layers[replica].burden.is_light()
    }

    /// Whether a replica is a member for certain, or for certain not.
    pub(crate) fn member(&self, replica: &Uuid) -> Option<bool> {
        self.layers[replica].burden.member()
    }

    /// A pool says what a replica bears; `alone`: nothing is in flight, so it is that from now on.
    pub(crate) fn bears(
        &mut self,
        replica: &Uuid,
        found: &Bearing,
        alone: bool,
    ) -> Result<(), Violation> {
        let found = Borne::default().with(found);
        let possible = self.layers[replica].burden.possible();
        if !possible.contains(&found) {
            let name = self.name(replica);
            let said = possible.iter().map(brief).collect::<Vec<_>>().join(", or ");
            let text = format!("{name} bears {}, not {said}", brief(&found));
            return Err(Violation::new("BearsWhole", text));
        }
        if alone {
            let burden = &mut self.layer_mut(replica).burden;
            burden.sure = found;
            burden.asked.clear();
        }
        Ok(())
    }

    /// A flush begins: the number it is given.
    pub(crate) fn number_flush(&mut self, replica: &Uuid) -> u64 {
        let burden = &mut self.layer_mut(replica).burden;
        burden.next += 1;
        burden.numbers.insert(burden.next);
        burden.next
    }

    /// A flush with this number was acknowledged.
    pub(crate) fn flush_numbered(&mut self, replica: &Uuid, number: u64) {
        let burden = &mut self.layer_mut(replica).burden;
        burden.number = burden.number.max(number);
        burden.numbers.retain(|other| *other > number);
    }

    /// A pool says which flush of a replica was the last with a number; `alone`: nothing is in
    /// flight, so it is that from now on.
    pub(crate) fn last_flush(
        &mut self,
        replica: &Uuid,
        number: u64,
        alone: bool,
    ) -> Result<(), Violation> {
        let burden = &self.layers[replica].burden;
        let (sure, others) = (burden.number, &burden.numbers);
        if number < sure || number > sure && !others.contains(&number) {
            let name = self.name(replica);
            let text = format!("the last flush of {name} is {number}, not {sure} or {others:?}");
            return Err(Violation::new("FlushNumbered", text));
        }
        if alone {
            let burden = &mut self.layer_mut(replica).burden;
            burden.number = number;
            burden.numbers.clear();
        }
        Ok(())
    }
}

/// For people: records are long.
fn brief(borne: &Borne) -> String {
    let Borne { fence, member, record, reservation } = borne;
    let begins = &record[..record.len().min(4)];
    let of = record.len();
    format!(
        "[epoch {}, member {member}, record {begins:?} of {of} bytes, reservation {} {} {:?}]",
        fence.epoch, reservation.kind, reservation.generation, reservation.registrants
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_block::BlockSize;

    const V: Uuid = [1; 16];

    fn replica() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.create(V, 1 << 20, BlockSize::B4096, false);
        oracle.made(&V, false);
        oracle
    }

    fn of(epoch: Option<u64>, record: Option<&[u8]>) -> Bearing {
        let fence = epoch.map(|epoch| Fence { epoch, owner: [0; 16] });
        Bearing { fence, record: record.map(Into::into), ..Bearing::default() }
    }

    fn says(oracle: &Oracle, epoch: u64, record: &[u8]) -> bool {
        oracle.clone().bears(&V, &of(Some(epoch), Some(record)), false).is_ok()
    }

    #[test]
    fn an_acknowledged_bearing_is_there_and_another_wholly_or_not() {
        let mut oracle = replica();
        oracle.bear(&V, 1, &of(Some(1), Some(&[1; 9])));
        oracle.borne(&V, 1, true);
        oracle.bear(&V, 2, &of(Some(2), Some(&[2; 9])));
        assert!(says(&oracle, 1, &[1; 9]) && says(&oracle, 2, &[2; 9]));
        assert!(!says(&oracle, 2, &[1; 9]) && !says(&oracle, 1, &[2; 9]), "half of it");
        assert!(!says(&oracle, 0, &[]) && !says(&oracle, 1, &[]));
        oracle.borne(&V, 2, true);
        assert!(!says(&oracle, 1, &[1; 9]) && says(&oracle, 2, &[2; 9]));
    }

    #[test]
    fn bearings_take_effect_in_order() {
        let mut oracle = replica();
        oracle.bear(&V, 1, &of(Some(1), None));
        oracle.bear(&V, 2, &of(None, Some(&[2; 9])));
        oracle.bear(&V, 3, &of(Some(3), None));
        assert!(!says(&oracle, 0, &[2; 9]), "the first has no reason to be missing");
        assert!(says(&oracle, 1, &[2; 9]) && says(&oracle, 3, &[]), "the second may lack space");
        oracle.bears(&V, &of(Some(1), Some(&[2; 9])), true).unwrap();
        assert!(!says(&oracle, 3, &[2; 9]), "a crash decided");
    }

    #[test]
    fn the_number_of_a_flush_is_kept_and_never_falls() {
        let mut oracle = replica();
        let numbers: Vec<u64> = (0..3).map(|_| oracle.number_flush(&V)).collect();
        assert_eq!(numbers, [1, 2, 3]);
        oracle.flush_numbered(&V, 2);
        let may = |number| oracle.clone().last_flush(&V, number, false).is_ok();
        assert_eq!([0, 1, 2, 3, 4].map(may), [false, false, true, true, false]);
        oracle.last_flush(&V, 3, true).unwrap();
        assert!(oracle.last_flush(&V, 2, true).is_err());
    }
}
