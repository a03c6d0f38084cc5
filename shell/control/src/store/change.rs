//! What can be changed, when, and to what. Pure: the thread that writes makes it durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use braid_nexus::record::RECORD_MAX;
use braid_nexus::{Record, Uuid};
use braid_plan::Wish;

use super::row::{Appointed, Ended, Pace, Place, Snapshot, Spec, Stage};
use super::{NUMBERS, State, Volume};

/// A change.
#[derive(Clone, Debug)]
pub enum Change {
    /// An engine attends, perhaps for the first time: it has a number from then on, which no other
    /// one has as long as there are some left.
    Number {
        /// Which engine.
        engine: Uuid,
    },
    /// A volume is to be made.
    Create(Box<Spec>),
    /// Its replicas are there: its first record. The same again is done.
    Admit {
        /// Which.
        volume: Uuid,
        /// Version 1.
        record: Box<Record>,
    },
    /// An owner's change of the record.
    Swap {
        /// Which volume.
        volume: Uuid,
        /// Every byte that is expected.
        old: Vec<u8>,
        /// What shall be there.
        new: Vec<u8>,
    },
    /// An owner is appointed.
    Appoint {
        /// Of which volume.
        volume: Uuid,
        /// Who, and where.
        appointed: Appointed,
    },
    /// A volume shall have another size.
    Resize {
        /// Which.
        volume: Uuid,
        /// Only if this is the size that it shall have; None: whatever that is.
        instead: Option<u64>,
        /// Bytes.
        bytes: u64,
    },
    /// A volume shall have another replica.
    Place {
        /// Which volume.
        volume: Uuid,
        /// Where.
        place: Place,
    },
    /// A replica shall leave its volume, or be forgotten with its engine.
    Leave {
        /// Which volume.
        volume: Uuid,
        /// Which replica.
        replica: Uuid,
        /// Nobody waits for its engine.
        forget: bool,
    },
    /// A replica that left is gone.
    Unlist {
        /// Which volume.
        volume: Uuid,
        /// Which replica.
        replica: Uuid,
    },
    /// A snapshot shall be taken.
    TakeSnapshot {
        /// Of which volume.
        volume: Uuid,
        /// Which.
        snapshot: Snapshot,
    },
    /// A snapshot shall go.
    DropSnapshot {
        /// Of which volume.
        volume: Uuid,
        /// Which.
        snapshot: Uuid,
    },
    /// A volume cannot have what was wished for. What it has after all, or is wished for no more,
    /// is left as it is: [`Done::Absent`].
    End {
        /// Which volume.
        volume: Uuid,
        /// What.
        wish: Wish,
        /// Why, and when; what that was is filled in.
        ended: Ended,
    },
    /// Its replicas are brought back so fast from now on, unless that was replaced already.
    Pace {
        /// Of which volume.
        volume: Uuid,
        /// How fast.
        pace: Pace,
    },
    /// A volume shall go away; these replicas are forgotten, because their engines are.
    Delete {
        /// Which.
        volume: Uuid,
        /// Of which replicas nobody waits for the end.
        forgotten: Vec<Uuid>,
    },
    /// Nothing of it is left.
    Forget {
        /// Which.
        volume: Uuid,
    },
    /// A record that replicas kept is the record.
    Recover {
        /// Of a volume that the store may not know.
        spec: Box<Spec>,
        /// The record that was in the store, if any, when this was decided.
        expected: Option<Box<Record>>,
        /// What it is to be.
        record: Box<Record>,
    },
    /// Something happened.
    Note {
        /// To which volume.
        volume: Uuid,
        /// When.
        unix_ms: u64,
        /// What.
        text: String,
    },
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is so now, or was so already.
    Done,
    /// The record was another one, and is this; nothing was changed.
    Changed(Arc<Record>),
    /// There was no such volume.
    Absent,
    /// The engine has this number.
    Number(u16),
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It makes no sense.
    Invalid(String),
    /// Something else is there.
    Exists(String),
    /// There is no such volume.
    NotFound,
    /// It is not at a stage for that.
    Stage(String),
    /// It may have been made, or not: the store cannot be written now.
    Unknown,
}

/// What is there after the changes of one commit.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    base: &'a State,
    changed: BTreeMap<Uuid, Option<Volume>>,
    /// Engines that got a number.
    pub(super) numbers: BTreeMap<Uuid, u16>,
    pub(super) notes: Vec<(Uuid, u64, u64, String)>,
}

impl<'a> Draft<'a> {
    pub(super) const fn new(base: &'a State) -> Self {
        Self { base, changed: BTreeMap::new(), numbers: BTreeMap::new(), notes: Vec::new() }
    }

    /// What is to be written: volumes, and None for those that are gone.
    pub(super) fn into_changed(self) -> BTreeMap<Uuid, Option<Volume>> {
        self.changed
    }

    pub(super) const fn changed(&self) -> &BTreeMap<Uuid, Option<Volume>> {
        &self.changed
    }

    /// Whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.numbers.is_empty()
    }

    /// The number of an engine. When all are taken, one of those that fewest engines have: two of
    /// them are in each other's way only where they serve the same volume.
    fn number(&mut self, engine: Uuid) -> u16 {
        let known = self.base.numbers.get(&engine).or_else(|| self.numbers.get(&engine));
        if let Some(number) = known {
            return *number;
        }
        let mut engines = [0_usize; NUMBERS as usize];
        for number in self.base.numbers.values().chain(self.numbers.values()) {
            engines[usize::from(*number % NUMBERS)] += 1;
        }
        let number = (0..NUMBERS).min_by_key(|at| engines[usize::from(*at)]).unwrap_or(0);
        self.numbers.insert(engine, number);
        number
    }

    fn get(&self, volume: &Uuid) -> Option<&Volume> {
        match self.changed.get(volume) {
            Some(changed) => changed.as_ref(),
            None => self.base.volumes.get(volume),
        }
    }

    pub(super) fn found(&self, volume: &Uuid) -> Result<Volume, Refusal> {
        self.get(volume).cloned().ok_or(Refusal::NotFound)
    }

    /// A volume that is neither being made nor deleted, and what is wanted of it.
    pub(super) fn ready(&self, volume: &Uuid) -> Result<(Volume, Spec), Refusal> {
        let found = self.found(volume)?;
        let spec = (*found.spec).clone();
        match spec.stage {
            Stage::Ready => Ok((found, spec)),
            Stage::Creating => Err(Refusal::Stage("the volume is being made".into())),
            Stage::Deleting => Err(Refusal::Stage("the volume is being deleted".into())),
        }
    }

    pub(super) fn put(&mut self, volume: Volume) {
        self.changed.insert(volume.spec.uuid, Some(volume));
    }

    /// What is wanted of each volume.
    pub(super) fn specs(&self) -> impl Iterator<Item = Arc<Spec>> {
        let base = self.base.volumes.keys().filter(|uuid| !self.changed.contains_key(*uuid));
        let uuids = base.chain(self.changed.keys());
        uuids.filter_map(|uuid| self.get(uuid)).map(|volume| Arc::clone(&volume.spec))
    }

    /// Makes a change.
    pub(super) fn apply(&mut self, change: Change) -> Result<Done, Refusal> {
        match change {
            Change::Number { engine } => Ok(Done::Number(self.number(engine))),
            Change::Create(spec) => self.create(*spec),
            Change::Admit { volume, record } => self.admit(&volume, *record),
            Change::Swap { volume, old, new } => self.swap(&volume, &old, &new),
            Change::Appoint { volume, appointed } => {
                let found = self.found(&volume)?;
                let spec = Spec { appointed: Some(appointed), ..(*found.spec).clone() };
                self.put(Volume { spec: Arc::new(spec), ..found });
                Ok(Done::Done)
            }
            Change::Resize { volume, instead, bytes } => {
                let (found, mut spec) = self.ready(&volume)?;
                if instead.is_none_or(|instead| instead == spec.bytes) {
                    spec.forget_end(&super::contents::size_in_words(bytes));
                    spec.bytes = bytes;
                }
                self.put(Volume { spec: Arc::new(spec), ..found });
                Ok(Done::Done)
            }
            Change::Place { volume, place } => self.place(&volume, place),
            Change::Leave { volume, replica, forget } => self.leave(&volume, &replica, forget),
            Change::Unlist { volume, replica } => self.unlist(&volume, &replica),
            Change::TakeSnapshot { volume, snapshot } => self.take_snapshot(&volume, snapshot),
            Change::DropSnapshot { volume, snapshot } => self.drop_snapshot(&volume, &snapshot),
            Change::End { volume, wish, ended } => self.end(&volume, wish, ended),
            Change::Pace { volume, pace } => {
                let found = self.found(&volume)?;
                if found.spec.pace.is_none_or(|known| known.version < pace.version) {
                    let spec = Spec { pace: Some(pace), ..(*found.spec).clone() };
                    self.put(Volume { spec: Arc::new(spec), ..found });
                }
                Ok(Done::Done)
            }
            Change::Delete { volume, forgotten } => self.delete(&volume, &forgotten),
            Change::Forget { volume } => {
                let found = self.get(&volume).is_some();
                self.changed.insert(volume, None);
                Ok(if found { Done::Done } else { Done::Absent })
            }
            Change::Recover { spec, expected, record } => {
                self.recover(*spec, expected.as_deref(), *record)
            }
            Change::Note { volume, unix_ms, text } => {
                let mut found = self.found(&volume)?;
                let number = found.events.1;
                found.events.1 += 1;
                self.put(found);
                self.notes.push((volume, number, unix_ms, text));
                Ok(Done::Done)
            }
        }
    }

    fn create(&mut self, spec: Spec) -> Result<Done, Refusal> {
        let named = |other: &Volume| other.spec.name == spec.name && other.spec.uuid != spec.uuid;
        let base = self.base.volumes.keys().filter(|uuid| !self.changed.contains_key(*uuid));
        let uuids = base.chain(self.changed.keys());
        if let Some(other) = uuids.filter_map(|uuid| self.get(uuid)).find(|other| named(other)) {
            return Err(Refusal::Exists(format!("a volume is named {} already", other.spec.name)));
        }
        if self.get(&spec.uuid).is_some() {
            return Err(Refusal::Exists("a volume has this uuid already".into()));
        }
        self.put(Volume::new(Arc::new(spec), None));
        Ok(Done::Done)
    }

    fn admit(&mut self, volume: &Uuid, record: Record) -> Result<Done, Refusal> {
        let found = self.found(volume)?;
        self.check(volume, &record)?;
        match (found.spec.stage, &found.record) {
            (Stage::Creating, None) => {
                let spec = Spec { stage: Stage::Ready, ..(*found.spec).clone() };
                let record = Some(Arc::new(record));
                self.put(Volume { spec: Arc::new(spec), record, ..found });
                Ok(Done::Done)
            }
            (Stage::Ready, Some(_)) => Ok(Done::Done),
            _ => Err(Refusal::Stage("the volume is being deleted".into())),
        }
    }

    /// Invariant 3 of the store.
    fn swap(&mut self, volume: &Uuid, old: &[u8], new: &[u8]) -> Result<Done, Refusal> {
        let invalid = |text: &str| Refusal::Invalid(text.into());
        if old.len().max(new.len()) > RECORD_MAX {
            return Err(Refusal::Invalid(format!("a record is above {RECORD_MAX} bytes")));
        }
        let old = Record::decode(old).map_err(|_| invalid("`old` is no record"))?;
        let new = Record::decode(new).map_err(|_| invalid("`new` is no record"))?;
        if old.version.checked_add(1) != Some(new.version) {
            return Err(invalid("`new` is not the next version of `old`"));
        }
        let found = self.found(volume)?;
        let Some(present) = &found.record else { return Err(Refusal::NotFound) };
        if **present == new {
            return Ok(Done::Done);
        }
        if **present != old {
            return Ok(Done::Changed(Arc::clone(present)));
        }
        self.check(volume, &new)?;
        claim(&old, &new, found.spec.appointed)?;
        let spec = super::contents::after(&found.spec, &old, &new);
        self.put(Volume { spec, record: Some(Arc::new(new)), ..found });
        Ok(Done::Done)
    }

    /// A record that may be this volume's in this store.
    fn check(&self, volume: &Uuid, record: &Record) -> Result<(), Refusal> {
        let invalid = |text: &str| Err(Refusal::Invalid(text.into()));
        if record.volume != *volume {
            return invalid("the record is of another volume");
        }
        if record.store != self.base.id {
            return invalid("the record is of another store");
        }
        Ok(())
    }

    fn delete(&mut self, volume: &Uuid, forgotten: &[Uuid]) -> Result<Done, Refusal> {
        let Some(found) = self.get(volume).cloned() else { return Ok(Done::Absent) };
        let mut spec = (*found.spec).clone();
        spec.stage = Stage::Deleting;
        spec.places.retain(|place| !forgotten.contains(&place.replica));
        self.put(Volume { spec: Arc::new(spec), ..found });
        Ok(Done::Done)
    }

    fn recover(
        &mut self,
        spec: Spec,
        expected: Option<&Record>,
        record: Record,
    ) -> Result<Done, Refusal> {
        self.check(&spec.uuid, &record)?;
        let found = self.get(&spec.uuid).cloned();
        let present = found.as_ref().and_then(|found| found.record.clone());
        if present.as_deref() != expected {
            return match present {
                Some(present) => Ok(Done::Changed(present)),
                None => Ok(Done::Absent),
            };
        }
        if found.is_none() {
            self.create(spec.clone())?;
        }
        let found = self.found(&spec.uuid)?;
        let spec = Spec { stage: Stage::Ready, appointed: None, ..spec };
        self.put(Volume { spec: Arc::new(spec), record: Some(Arc::new(record)), ..found });
        Ok(Done::Done)
    }
}

/// A change of the owner is a claim: by the one who was appointed, in the next epoch. Nothing else
/// changes the epoch.
fn claim(old: &Record, new: &Record, appointed: Option<Appointed>) -> Result<(), Refusal> {
    if (old.owner, old.epoch) == (new.owner, new.epoch) {
        return Ok(());
    }
    if old.epoch.checked_add(1) != Some(new.epoch) || old.owner == new.owner {
        return Err(Refusal::Invalid("the epoch changes with the owner, by one".into()));
    }
    if appointed.is_none_or(|appointed| appointed.owner != new.owner) {
        return Err(Refusal::Stage("this owner is not the one who was appointed".into()));
    }
    Ok(())
}
