//! What of the state persists through power loss, as plain parts and as a record of bytes.
//!
//! Whatever the bytes are, restoring from them succeeds with a state that keeps the invariants, or
//! is refused.

use arrayvec::ArrayVec;
use braid_block::Memory;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Held, HostId, REGISTRANTS_MAX, Registrant, ReservationType, Reservations};

const MAGIC: [u8; 8] = *b"BRAIDRSV";
const VERSION: u32 = 1;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 424;

/// What was kept makes no sense: it is not what a [`Reservations`] gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// What persists of a state, in the order of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Type of the reservation; 0: none.
    pub kind: u8,
    /// Position of its holder among the registrants; none if all of them hold it.
    pub holder: Option<u8>,
    /// Generation.
    pub generation: u32,
    /// They persist; if not, nothing else is kept.
    pub persists: bool,
    /// Key and host of each registrant.
    pub registrants: ArrayVec<(u64, HostId), REGISTRANTS_MAX>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Record {
    magic: [u8; 8],
    version: U32,
    /// CRC32C of the record with this field zero.
    crc: U32,
    /// UUID of the namespace.
    namespace: [u8; 16],
    generation: U32,
    kind: u8,
    /// Position plus one; 0: none.
    holder: u8,
    persists: u8,
    count: u8,
    registrants: [RegistrantRecord; REGISTRANTS_MAX],
}
const _: () = assert!(size_of::<Record>() == RECORD_BYTES);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RegistrantRecord {
    key: U64,
    host: HostId,
}

impl Reservations {
    /// What is to be kept.
    #[must_use]
    pub fn parts(&self) -> Parts {
        if !self.persists {
            return Parts::default();
        }
        let of_one = self.held.filter(|held| !held.kind.is_of_all());
        let holder = of_one.and_then(|held| self.position(&held.holder));
        Parts {
            kind: self.held.map_or(0, |held| held.kind as u8),
            holder: holder.and_then(|at| u8::try_from(at).ok()),
            generation: self.generation,
            persists: true,
            registrants: self.registrants.iter().map(|one| (one.key, one.host)).collect(),
        }
    }

    /// The state that was kept, which can persist.
    ///
    /// # Errors
    /// It is none.
    pub fn restore(parts: &Parts) -> Result<Self, Corrupt> {
        let mut restored = Self::new(true);
        if !parts.persists {
            return if *parts == Parts::default() { Ok(restored) } else { Err(Corrupt) };
        }
        for &(key, host) in &parts.registrants {
            if key == 0 || host == [0; 16] || restored.position(&host).is_some() {
                return Err(Corrupt);
            }
            restored.registrants.push(Registrant { host, key });
        }
        restored.persists = true;
        restored.generation = parts.generation;
        restored.held = held(parts)?;
        Ok(restored)
    }

    /// The record to be kept for the namespace with this UUID.
    #[must_use]
    pub fn to_record<M: Memory>(&self, namespace: &[u8; 16]) -> [u8; RECORD_BYTES] {
        let parts = self.parts();
        let mut record = Record::new_zeroed();
        record.magic = MAGIC;
        record.version = U32::new(VERSION);
        record.namespace = *namespace;
        record.generation = U32::new(parts.generation);
        record.kind = parts.kind;
        record.holder = parts.holder.map_or(0, |at| at + 1);
        record.persists = u8::from(parts.persists);
        record.count = u8::try_from(parts.registrants.len()).unwrap_or(u8::MAX);
        for (to, (key, host)) in record.registrants.iter_mut().zip(&parts.registrants) {
            *to = RegistrantRecord { key: U64::new(*key), host: *host };
        }
        record.crc = U32::new(M::crc_bytes(record.as_bytes(), 0));
        let mut bytes = [0; RECORD_BYTES];
        bytes.copy_from_slice(record.as_bytes());
        bytes
    }

    /// The state that a record holds.
    ///
    /// # Errors
    /// It is no record of this namespace.
    pub fn from_record<M: Memory>(bytes: &[u8], namespace: &[u8; 16]) -> Result<Self, Corrupt> {
        let mut record = Record::read_from_bytes(bytes).map_err(|_| Corrupt)?;
        let crc = core::mem::take(&mut record.crc);
        let sound = record.magic == MAGIC
            && crc.get() == M::crc_bytes(record.as_bytes(), 0)
            && record.version.get() == VERSION
            && record.namespace == *namespace;
        let listed = record.registrants.get(..usize::from(record.count)).ok_or(Corrupt)?;
        if !sound || record.persists > 1 {
            return Err(Corrupt);
        }
        Self::restore(&Parts {
            kind: record.kind,
            holder: record.holder.checked_sub(1),
            generation: record.generation.get(),
            persists: record.persists == 1,
            registrants: listed.iter().map(|one| (one.key.get(), one.host)).collect(),
        })
    }
}

fn held(parts: &Parts) -> Result<Option<Held>, Corrupt> {
    let host = |at: u8| parts.registrants.get(usize::from(at)).map(|(_, host)| *host);
    if (parts.kind, parts.holder) == (0, None) {
        return Ok(None);
    }
    let kind = ReservationType::from_wire(parts.kind).ok_or(Corrupt)?;
    let holder = match parts.holder {
        // One of them, so that there is one.
        None if kind.is_of_all() => host(0),
        Some(at) if !kind.is_of_all() => host(at),
        _ => None,
    };
    Ok(Some(Held::new(kind, &holder.ok_or(Corrupt)?)))
}
