//! The membership record: who holds a volume. One per volume, in the store, with a copy on each
//! replica (replication.md, State).
//!
//! Invariants:
//! 1. It changes by compare-and-swap of the whole: every change adds one to `version`.
//! 2. A slot belongs to one replica until that is given up: masks of holders stay valid.
//! 3. It fits in [`RECORD_MAX`] bytes; what would not is refused when it is asked for.

use alloc::boxed::Box;
use alloc::vec::Vec;

use arrayvec::ArrayVec;

/// Replicas of a volume, members and away, at most.
pub const REPLICAS_MAX: usize = 8;
/// Snapshots of a volume, at most.
pub const SNAPSHOTS_MAX: usize = 64;
/// Hosts that are told of a loss, at most.
pub const TOLD_MAX: usize = 16;
/// Bytes of an encoded record, at most.
pub const RECORD_MAX: usize = 3 << 10;

/// An identity: a UUID, a host identifier, the random name of an owner.
pub type Uuid = [u8; 16];

/// The membership record of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Which volume.
    pub volume: Uuid,
    /// Which store: a restored one has another identity.
    pub store: Uuid,
    /// What this record was recovered from, if it was: replicas that know that store follow.
    pub recovered: Option<Recovered>,
    /// Counts changes.
    pub version: u64,
    /// Counts owners.
    pub epoch: u64,
    /// One nexus incarnation, never a node; zeros: nobody yet.
    pub owner: Uuid,
    /// Bytes of the volume.
    pub bytes: u64,
    /// The last owner left in order: saves waiting, decides nothing.
    pub clean: bool,
    /// It was just made: no owner accepted I/O yet, so nothing can be lost.
    pub unused: bool,
    /// Replicas, by slot.
    pub slots: [Option<Replica>; REPLICAS_MAX],
    /// Snapshots, oldest first.
    pub snapshots: ArrayVec<Snapshot, SNAPSHOTS_MAX>,
    /// Acknowledged writes may be lost: who was told.
    pub lossy: Option<Lossy>,
}

/// A record that was recovered from the replicas' copies: which ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The store that was lost, or an older state of which is back.
    pub store: Uuid,
    /// Epoch and version of the newest copy that was heard of. A replica with a newer one was not
    /// heard in time, and refuses.
    pub newest: (u64, u64),
    /// Nobody served under it yet: all replicas that it names have to be fenced first, for each
    /// may have got a newer copy after it was heard.
    pub pending: bool,
}

/// A replica that a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Which.
    pub uuid: Uuid,
    /// Where it stands.
    pub standing: Standing,
}

/// How a replica stands to its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This instance of it holds every acknowledged write.
    Member {
        /// Of the replica.
        instance: u64,
    },
    /// It lacks writes.
    Away {
        /// Marks of the members do not cover what it lacks: all of it is compared.
        whole: bool,
    },
}

/// A snapshot that a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which.
    pub uuid: Uuid,
    /// Slots of the replicas that hold it.
    pub holders: u8,
    /// Bytes of the volume when it was taken.
    pub bytes: u64,
}

/// A loss of acknowledged writes that were not flushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lossy {
    /// In which epoch it was found.
    pub epoch: u64,
    /// Host identifiers that were told.
    pub told: ArrayVec<Uuid, TOLD_MAX>,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// First bytes of an encoded record: name and format.
const MAGIC: [u8; 4] = *b"BRM\x01";

impl Record {
    /// The slot of a replica.
    #[must_use]
    pub fn slot_of(&self, uuid: &Uuid) -> Option<u8> {
        let at = self.slots.iter().position(|slot| slot.is_some_and(|r| r.uuid == *uuid))?;
        u8::try_from(at).ok()
    }

    /// The replica in a slot.
    #[must_use]
    pub fn replica(&self, slot: u8) -> Option<&Replica> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    /// The instance that is a member, if the replica in that slot is one.
    #[must_use]
    pub fn instance(&self, slot: u8) -> Option<u64> {
        match self.replica(slot)?.standing {
            Standing::Member { instance } => Some(instance),
            Standing::Away { .. } => None,
        }
    }

    /// Slots of the members, as a mask.
    #[must_use]
    pub fn members(&self) -> u8 {
        self.mask(|standing| matches!(standing, Standing::Member { .. }))
    }

    /// Slots of the replicas that are away, as a mask.
    #[must_use]
    pub fn away(&self) -> u8 {
        self.mask(|standing| matches!(standing, Standing::Away { .. }))
    }

    fn mask(&self, is: impl Fn(Standing) -> bool) -> u8 {
        let slots = (0u8..).zip(&self.slots);
        slots.fold(0, |mask, (slot, replica)| match replica {
            Some(replica) if is(replica.standing) => mask | 1 << slot,
            _ => mask,
        })
    }

    /// The snapshot of that identity.
    #[must_use]
    pub fn snapshot(&self, uuid: &Uuid) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.uuid == *uuid)
    }

    /// Bytes of a snapshot, or of the volume.
    #[must_use]
    pub fn bytes_of(&self, snapshot: Option<&Uuid>) -> u64 {
        match snapshot {
            Some(uuid) => self.snapshot(uuid).map_or(0, |snapshot| snapshot.bytes),
            None => self.bytes,
        }
    }

    /// Whether it was recovered, and nobody served under it yet.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.recovered.is_some_and(|from| from.pending)
    }

    /// A copy with the next version.
    #[must_use]
    pub fn next(&self) -> Box<Self> {
        let mut next = Box::new(self.clone());
        next.version += 1;
        next
    }

    /// Whether this is newer than another one: by epoch, then by version.
    #[must_use]
    pub fn newer_than(&self, epoch: u64, version: u64) -> bool {
        (self.epoch, self.version) > (epoch, version)
    }

    /// As bytes: little endian, at most [`RECORD_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend(MAGIC);
        out.extend(self.volume);
        out.extend(self.store);
        put_option(&mut out, self.recovered.as_ref().map(|from| &from.store));
        let (epoch, version) = self.recovered.map_or((0, 0), |from| from.newest);
        out.extend(epoch.to_le_bytes());
        out.extend(version.to_le_bytes());
        out.push(u8::from(self.recovered.is_some_and(|from| from.pending)));
        out.extend(self.version.to_le_bytes());
        out.extend(self.epoch.to_le_bytes());
        out.extend(self.owner);
        out.extend(self.bytes.to_le_bytes());
        out.push(u8::from(self.clean));
        out.push(u8::from(self.unused));
        for slot in &self.slots {
            put_option(&mut out, slot.as_ref().map(|replica| &replica.uuid));
            let (kind, value) = match slot.map(|replica| replica.standing) {
                Some(Standing::Member { instance }) => (1, instance),
                Some(Standing::Away { whole }) => (2, u64::from(whole)),
                None => (0, 0),
            };
            out.push(kind);
            out.extend(u64::to_le_bytes(value));
        }
        out.push(u8::try_from(self.snapshots.len()).unwrap_or(u8::MAX));
        for snapshot in &self.snapshots {
            out.extend(snapshot.uuid);
            out.push(snapshot.holders);
            out.extend(snapshot.bytes.to_le_bytes());
        }
        out.push(u8::from(self.lossy.is_some()));
        if let Some(lossy) = &self.lossy {
            out.extend(lossy.epoch.to_le_bytes());
            out.push(u8::try_from(lossy.told.len()).unwrap_or(u8::MAX));
            lossy.told.iter().for_each(|host| out.extend(host));
        }
        debug_assert!(out.len() <= RECORD_MAX);
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`Malformed`] if [`Record::encode`] did not make them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Bytes(bytes);
        if from.take::<4>()? != MAGIC {
            return Err(Malformed);
        }
        let mut record = Self {
            volume: from.take()?,
            store: from.take()?,
            recovered: from.recovered()?,
            version: from.u64()?,
            epoch: from.u64()?,
            owner: from.take()?,
            bytes: from.u64()?,
            clean: from.flag()?,
            unused: from.flag()?,
            ..Self::default()
        };
        for slot in &mut record.slots {
            let uuid = from.option()?;
            let (kind, value) = (from.u8()?, from.u64()?);
            *slot = match (uuid, kind, value) {
                (Some(uuid), 1, instance) => {
                    Some(Replica { uuid, standing: Standing::Member { instance } })
                }
                (Some(uuid), 2, 0 | 1) => {
                    Some(Replica { uuid, standing: Standing::Away { whole: value == 1 } })
                }
                (None, 0, 0) => None,
                _ => return Err(Malformed),
            };
        }
        for _ in 0..from.u8()? {
            let (uuid, holders, bytes) = (from.take()?, from.u8()?, from.u64()?);
            let snapshot = Snapshot { uuid, holders, bytes };
            record.snapshots.try_push(snapshot).map_err(|_| Malformed)?;
        }
        if from.flag()? {
            let mut lossy = Lossy { epoch: from.u64()?, ..Lossy::default() };
            for _ in 0..from.u8()? {
                lossy.told.try_push(from.take()?).map_err(|_| Malformed)?;
            }
            record.lossy = Some(lossy);
        }
        if from.0.is_empty() { Ok(record) } else { Err(Malformed) }
    }
}

fn put_option(out: &mut Vec<u8>, uuid: Option<&Uuid>) {
    out.push(u8::from(uuid.is_some()));
    if let Some(uuid) = uuid {
        out.extend(uuid);
    }
}

/// What is still to be read of a record.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn recovered(&mut self) -> Result<Option<Recovered>, Malformed> {
        let store = self.option()?;
        let (newest, pending) = ((self.u64()?, self.u64()?), self.flag()?);
        match (store, newest, pending) {
            (Some(store), ..) => Ok(Some(Recovered { store, newest, pending })),
            (None, (0, 0), false) => Ok(None),
            (None, ..) => Err(Malformed),
        }
    }

    fn option(&mut self) -> Result<Option<Uuid>, Malformed> {
        if self.flag()? { self.take().map(Some) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest() -> Record {
        let mut record = Record {
            volume: [1; 16],
            store: [2; 16],
            recovered: Some(Recovered { store: [3; 16], newest: (6, 5), pending: true }),
            version: u64::MAX,
            epoch: 7,
            owner: [4; 16],
            bytes: 1 << 44,
            clean: true,
            unused: true,
            ..Record::default()
        };
        for (at, slot) in (0u8..).zip(&mut record.slots) {
            let standing = match at % 3 {
                0 => Standing::Member { instance: u64::from(at) },
                1 => Standing::Away { whole: true },
                _ => Standing::Away { whole: false },
            };
            *slot = Some(Replica { uuid: [at; 16], standing });
        }
        for at in 0..64 {
            record.snapshots.push(Snapshot { uuid: [at; 16], holders: at, bytes: 1 << 40 });
        }
        let told = (0..16).map(|at| [at; 16]).collect();
        record.lossy = Some(Lossy { epoch: 6, told });
        record
    }

    #[test]
    fn the_largest_record_fits_and_comes_back() {
        let record = largest();
        let bytes = record.encode();
        assert!(bytes.len() <= RECORD_MAX, "{}", bytes.len());
        assert_eq!(Record::decode(&bytes), Ok(record));
        assert_eq!(Record::decode(&Record::default().encode()), Ok(Record::default()));
    }

    #[test]
    fn a_record_that_was_cut_or_goes_on_is_refused() {
        let bytes = largest().encode();
        for len in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..len]), Err(Malformed), "{len}");
        }
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert_eq!(Record::decode(&longer), Err(Malformed));
    }
}
