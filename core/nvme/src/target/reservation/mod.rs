//! Reservations of one namespace (Base 8.19): who registered which key, who holds it, and which
//! commands of whom that forbids.
//!
//! A host is its 128-bit identifier, whatever controller it comes by. A command is parsed once, by
//! [`ReservationCommand::parse`] and [`Keys::parse`], and applied to the state; what must be told
//! and aborted comes back. The caller makes a state durable before it answers, by applying the
//! command to a copy and putting that in the place of the original.
//!
//! Invariants:
//! 1. A host registers once, with a key that is not zero.
//! 2. The holder of a reservation is a registrant; one of all registrants has at least one.
//! 3. A command that is refused changes nothing.
//! 4. What cannot persist never says that it does.

mod apply;
mod command;
mod durable;
mod notice;
mod report;

use arrayvec::ArrayVec;

pub use apply::Outcome;
pub use command::{Acquire, Keys, Register, Release, ReservationCommand};
pub use durable::{Corrupt, Parts, RECORD_BYTES};
pub(crate) use notice::Notifications;
pub use notice::{NOTIFICATIONS, Notification};

/// A host, by its extended host identifier.
pub type HostId = [u8; 16];

/// Hosts that can register with a namespace: as many as the durable record has room for. A
/// cluster that shares one namespace has fewer.
pub const REGISTRANTS_MAX: usize = 16;

/// What a reservation lets others do (Base 8.19, RTYPE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReservationType {
    /// Only the holder writes.
    WriteExclusive = 1,
    /// Only the holder reads and writes.
    ExclusiveAccess = 2,
    /// Only registrants write.
    WriteExclusiveRegistrants = 3,
    /// Only registrants read and write.
    ExclusiveAccessRegistrants = 4,
    /// Only registrants write, and all of them hold it.
    WriteExclusiveAll = 5,
    /// Only registrants read and write, and all of them hold it.
    ExclusiveAccessAll = 6,
}

impl ReservationType {
    /// Every type.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrants,
        Self::ExclusiveAccessRegistrants,
        Self::WriteExclusiveAll,
        Self::ExclusiveAccessAll,
    ];

    /// The type with this number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether every registrant holds it.
    #[must_use]
    pub const fn is_of_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAll | Self::ExclusiveAccessAll)
    }

    /// Whether every registrant may do what the holder may.
    const fn is_shared(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Whether others may not even read.
    const fn is_exclusive_access(self) -> bool {
        matches!(
            self,
            Self::ExclusiveAccess | Self::ExclusiveAccessRegistrants | Self::ExclusiveAccessAll
        )
    }
}

/// What a command does to a namespace, as far as reservations are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing that a reservation protects.
    Free,
    /// It reads: Read, Compare, Verify, the source of a Copy.
    Read,
    /// It writes: Write, Write Zeroes, Dataset Management, Flush, the destination of a Copy.
    Write,
}

/// Whether a namespace takes reservations, which RESCAP tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReservationSupport {
    /// None: RESCAP is zero.
    #[default]
    Absent,
    /// Every type, gone when the engine ends.
    Volatile,
    /// Every type, and they persist through power loss where a host asks for that.
    Persistent,
}

impl ReservationSupport {
    /// RESCAP: bit 0 they persist, bits 1 to 6 the types, bit 7 Ignore Existing Key as in NVMe 1.3.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Volatile => 0xfe,
            Self::Persistent => 0xff,
        }
    }
}

/// A host that registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// Who.
    pub host: HostId,
    /// With which key.
    pub key: u64,
}

/// A reservation that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    kind: ReservationType,
    /// By whom; zero where all registrants hold it.
    holder: HostId,
}

impl Held {
    const fn new(kind: ReservationType, host: &HostId) -> Self {
        Self { kind, holder: if kind.is_of_all() { [0; 16] } else { *host } }
    }
}

/// The reservations of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservations {
    held: Option<Held>,
    /// In the order in which they came.
    registrants: ArrayVec<Registrant, REGISTRANTS_MAX>,
    generation: u32,
    /// They persist through power loss: a host asked for it.
    persists: bool,
    /// They can.
    can_persist: bool,
}

impl Reservations {
    /// None yet; whether they can persist through power loss.
    #[must_use]
    pub const fn new(can_persist: bool) -> Self {
        Self {
            held: None,
            registrants: ArrayVec::new_const(),
            generation: 0,
            persists: false,
            can_persist,
        }
    }

    /// Whether this host may do that now. Without a reservation one look is all it takes.
    #[must_use]
    pub fn permits(&self, host: &HostId, access: Access) -> bool {
        match self.held {
            None => true,
            Some(held) => self.admits(held, host, access),
        }
    }

    /// The conflict matrix (Base 8.19.5).
    fn admits(&self, held: Held, host: &HostId, access: Access) -> bool {
        let registered = || self.position(host).is_some();
        match access {
            Access::Free => true,
            _ if held.kind.is_shared() && registered() => true,
            _ if !held.kind.is_shared() && held.holder == *host => true,
            Access::Read => !held.kind.is_exclusive_access(),
            Access::Write => false,
        }
    }

    /// Whether they persist through power loss.
    #[must_use]
    pub const fn persists(&self) -> bool {
        self.persists
    }

    /// Whether they can.
    #[must_use]
    pub const fn can_persist(&self) -> bool {
        self.can_persist
    }

    /// Sets whether they persist, as the feature of that name does; None: they cannot.
    #[must_use]
    pub fn with_persistence(&self, persists: bool) -> Option<Self> {
        (self.can_persist || !persists).then(|| Self { persists, ..self.clone() })
    }

    /// Type of the reservation that is held.
    #[must_use]
    pub fn kind(&self) -> Option<ReservationType> {
        self.held.map(|held| held.kind)
    }

    /// Whether this host holds it.
    #[must_use]
    pub fn is_held_by(&self, host: &HostId) -> bool {
        self.held.is_some_and(|held| {
            if held.kind.is_of_all() { self.position(host).is_some() } else { held.holder == *host }
        })
    }

    /// Who registered, in that order.
    #[must_use]
    pub fn registrants(&self) -> &[Registrant] {
        &self.registrants
    }

    /// How often registrations changed.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    fn position(&self, host: &HostId) -> Option<usize> {
        self.registrants.iter().position(|registrant| registrant.host == *host)
    }
}
