//! What a volume consists of changes: its replicas, its snapshots.
//!
//! Invariants:
//! 1. A snapshot that a record named is never to be taken again: it would hold something else.
//! 2. A snapshot that a record names anew and that nobody wants is to go, so that none is left of a
//!    call that was given up while an owner went on.
//! 3. A replica is listed as long as the record names it, or its engine may have it.

use std::sync::Arc;

use braid_nexus::record::REPLICAS_MAX;
use braid_nexus::{Record, Uuid};
use braid_plan::Wish;

use super::Volume;
use super::change::{Done, Draft, Refusal};
use super::row::{ENDED_MAX, Ended, Place, Snapshot, SnapshotStage, Spec, Stay};

impl Draft<'_> {
    pub(super) fn place(&mut self, volume: &Uuid, place: Place) -> Result<Done, Refusal> {
        let (found, mut spec) = self.ready(volume)?;
        let there = |known: &&Place| {
            known.replica == place.replica
                || (known.engine, &known.pool) == (place.engine, &place.pool)
        };
        match spec.places.iter().find(there) {
            Some(known) if *known == place => return Ok(Done::Done),
            Some(known) if known.stay != Stay::Stays => {
                return Err(Refusal::Stage("a replica there is being removed".into()));
            }
            Some(_) => return Err(Refusal::Exists("the volume has a replica there".into())),
            None => {}
        }
        if spec.places.len() >= REPLICAS_MAX {
            return Err(Refusal::Stage(format!("a volume has {REPLICAS_MAX} replicas at most")));
        }
        let mut all = self.specs();
        if all.any(|other| other.places.iter().any(|known| known.replica == place.replica)) {
            return Err(Refusal::Exists("this replica belongs to another volume".into()));
        }
        drop(all);
        spec.forget_end(&place.in_words());
        spec.places.push(place);
        self.put(Volume { spec: Arc::new(spec), ..found });
        Ok(Done::Done)
    }

    pub(super) fn leave(
        &mut self,
        volume: &Uuid,
        replica: &Uuid,
        forget: bool,
    ) -> Result<Done, Refusal> {
        let (found, mut spec) = self.ready(volume)?;
        let Some(record) = &found.record else { return Err(Refusal::NotFound) };
        let is_member = |place: &&Place| {
            let slot = record.slot_of(&place.replica);
            slot.is_some_and(|slot| record.instance(slot).is_some())
        };
        let staying = spec.places.iter().filter(|place| place.stay == Stay::Stays);
        let others = staying.filter(|place| place.replica != *replica).filter(is_member).count();
        let place = spec.places.iter_mut().find(|place| place.replica == *replica);
        let Some(place) = place else { return Ok(Done::Absent) };
        if place.stay == Stay::Stays && others == 0 {
            return Err(Refusal::Stage("no other replica holds everything".into()));
        }
        if forget {
            place.stay = Stay::Forgotten;
        } else if place.stay == Stay::Stays {
            place.stay = Stay::Leaves;
        }
        self.put(Volume { spec: Arc::new(spec), ..found });
        Ok(Done::Done)
    }

    pub(super) fn unlist(&mut self, volume: &Uuid, replica: &Uuid) -> Result<Done, Refusal> {
        let (found, mut spec) = self.ready(volume)?;
        let named = found.record.as_ref().is_some_and(|record| record.slot_of(replica).is_some());
        if named {
            return Err(Refusal::Stage("the record names this replica".into()));
        }
        spec.places.retain(|place| place.replica != *replica || place.stay == Stay::Stays);
        self.put(Volume { spec: Arc::new(spec), ..found });
        Ok(Done::Done)
    }

    pub(super) fn take_snapshot(
        &mut self,
        volume: &Uuid,
        snapshot: Snapshot,
    ) -> Result<Done, Refusal> {
        let (found, mut spec) = self.ready(volume)?;
        let like = |known: &&Snapshot| known.uuid == snapshot.uuid || known.name == snapshot.name;
        let record = found.record.as_ref().and_then(|record| record.snapshot(&snapshot.uuid));
        match spec.snapshots.iter().find(like) {
            Some(known) if known.stage == SnapshotStage::Goes => {
                let text = "a snapshot of that name or uuid is being destroyed";
                return Err(Refusal::Stage(text.into()));
            }
            Some(Snapshot { uuid, name, .. }) => {
                let same = (uuid, name) == (&snapshot.uuid, &snapshot.name);
                let other = || Refusal::Exists("a snapshot of that name or uuid differs".into());
                return if same { Ok(Done::Done) } else { Err(other()) };
            }
            None if record.is_some() => {
                return Err(Refusal::Exists("a snapshot has this uuid already".into()));
            }
            None => {
                spec.forget_end(&snapshot.in_words());
                spec.snapshots.push(snapshot);
            }
        }
        self.put(Volume { spec: Arc::new(spec), ..found });
        Ok(Done::Done)
    }

    pub(super) fn drop_snapshot(
        &mut self,
        volume: &Uuid,
        snapshot: &Uuid,
    ) -> Result<Done, Refusal> {
        let (found, mut spec) = self.ready(volume)?;
        let named = found.record.as_ref().is_some_and(|record| record.snapshot(snapshot).is_some());
        let known = spec.snapshots.iter_mut().find(|known| known.uuid == *snapshot);
        match (known, named) {
            (None, false) => return Ok(Done::Absent),
            (None, true) => spec.snapshots.push(goes(*snapshot)),
            (Some(known), true) => known.stage = SnapshotStage::Goes,
            // If its owner is about to name it: invariant 2.
            (Some(_), false) => spec.snapshots.retain(|known| known.uuid != *snapshot),
        }
        self.put(Volume { spec: Arc::new(spec), ..found });
        Ok(Done::Done)
    }

    /// Ends a wish, if it is one still.
    pub(super) fn end(
        &mut self,
        volume: &Uuid,
        wish: Wish,
        mut ended: Ended,
    ) -> Result<Done, Refusal> {
        let (found, mut spec) = self.ready(volume)?;
        let Some(record) = &found.record else { return Err(Refusal::NotFound) };
        let Some(what) = taken_back(&mut spec, record, wish) else { return Ok(Done::Absent) };
        // Of what was asked for again the last answer counts.
        spec.forget_end(&what);
        if spec.ended.len() >= ENDED_MAX {
            spec.ended.remove(0);
        }
        ended.what = what;
        spec.ended.push(ended);
        self.put(Volume { spec: Arc::new(spec), ..found });
        Ok(Done::Done)
    }
}

impl Spec {
    /// What ended is asked for again.
    pub(super) fn forget_end(&mut self, what: &str) {
        self.ended.retain(|ended| ended.what != what);
    }
}

impl Snapshot {
    fn in_words(&self) -> String {
        format!("snapshot {}", self.name)
    }
}

impl Place {
    fn in_words(&self) -> String {
        format!("a replica on {}", self.node)
    }
}

pub(super) fn size_in_words(bytes: u64) -> String {
    format!("a size of {bytes} bytes")
}

/// Takes a wish back that the record does not fulfil; what it was, in words.
fn taken_back(spec: &mut Spec, record: &Record, wish: Wish) -> Option<String> {
    match wish {
        Wish::Size { bytes } => {
            let wished = spec.bytes == bytes && record.bytes < bytes;
            wished.then(|| spec.bytes = record.bytes)?;
            Some(size_in_words(bytes))
        }
        Wish::Snapshot { snapshot } => {
            let wished =
                |known: &Snapshot| known.uuid == snapshot && known.stage == SnapshotStage::Wanted;
            let at = spec.snapshots.iter().position(wished)?;
            // If its owner is about to name it: invariant 2.
            let gone = record.snapshot(&snapshot).is_none().then(|| spec.snapshots.remove(at))?;
            Some(gone.in_words())
        }
        Wish::Replica { replica } => {
            let mut places = spec.places.iter_mut();
            let place = places.find(|p| p.replica == replica && p.stay == Stay::Stays)?;
            record.slot_of(&replica).is_none().then(|| place.stay = Stay::Leaves)?;
            Some(place.in_words())
        }
    }
}

/// A snapshot that nobody wants.
const fn goes(uuid: Uuid) -> Snapshot {
    Snapshot { uuid, name: String::new(), created_unix_s: 0, stage: SnapshotStage::Goes }
}

/// What is wanted of a volume once its owner has changed its record.
pub(super) fn after(spec: &Arc<Spec>, old: &Record, new: &Record) -> Arc<Spec> {
    if old.snapshots == new.snapshots {
        return Arc::clone(spec);
    }
    let mut after = (**spec).clone();
    for named in new.snapshots.iter().filter(|named| old.snapshot(&named.uuid).is_none()) {
        match after.snapshots.iter_mut().find(|known| known.uuid == named.uuid) {
            Some(known) if known.stage == SnapshotStage::Wanted => {
                known.stage = SnapshotStage::Taken;
            }
            Some(_) => {}
            None => after.snapshots.push(goes(named.uuid)),
        }
    }
    after
        .snapshots
        .retain(|known| known.stage != SnapshotStage::Goes || new.snapshot(&known.uuid).is_some());
    Arc::new(after)
}
