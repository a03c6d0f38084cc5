//! Asymmetric namespace access (Base 8.1): the states of a path, and the log that tells them.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Status;

/// Log page identifier of the ANA log.
pub const ANA_LOG: u8 = 0x0c;

/// Bit 0 of the log's specific parameter: groups alone, without their namespaces (RGO).
pub const ANA_GROUPS_ONLY: u8 = 1;

/// Groups of a subsystem at most, and the largest group id (NANAGRPID, ANAGRPMAX). With them and
/// all namespaces that there can be the log still fits into the buffers that admin commands are
/// sure to get, 16 KiB.
pub const ANA_GROUPS_MAX: u32 = 128;

/// ANATT in seconds: no group is in [`AnaState::Change`] for longer. Linux gives a controller up
/// after twice as much.
pub const ANA_TRANSITION_SECONDS: u8 = 10;

/// How the namespaces of a group are reached by one controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum AnaState {
    /// At the best.
    #[default]
    Optimized = 1,
    /// At a price: hosts use it when no path is optimized.
    NonOptimized = 2,
    /// Not now.
    Inaccessible = 3,
    /// Never again.
    PersistentLoss = 4,
    /// It is about to become another one.
    Change = 15,
}

impl AnaState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Optimized,
        Self::NonOptimized,
        Self::Inaccessible,
        Self::PersistentLoss,
        Self::Change,
    ];

    /// The state in a group's descriptor; the upper four bits are reserved.
    #[must_use]
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == byte & 0xf)
    }

    /// Why I/O is refused in this state, if it is. Never with Do Not Retry: another path may do.
    #[must_use]
    pub const fn refusal(self) -> Option<Status> {
        match self {
            Self::Optimized | Self::NonOptimized => None,
            Self::Inaccessible => Some(Status::ANA_INACCESSIBLE),
            Self::PersistentLoss => Some(Status::ANA_PERSISTENT_LOSS),
            Self::Change => Some(Status::ANA_TRANSITION),
        }
    }

    /// Its name, in the words that people use.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non-optimized",
            Self::Inaccessible => "inaccessible",
            Self::PersistentLoss => "persistent-loss",
            Self::Change => "change",
        }
    }
}

/// The head of the log.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaHeader {
    /// CHGCNT: grows with every change of any group.
    pub changes: U64,
    /// NGRPS.
    pub groups: U16,
    reserved_10: [u8; 6],
}
const _: () = assert!(size_of::<AnaHeader>() == 16);

impl AnaHeader {
    pub(crate) const fn new(changes: u64, groups: u16) -> Self {
        Self { changes: U64::new(changes), groups: U16::new(groups), reserved_10: [0; 6] }
    }
}

/// A group of the log; the ids of its namespaces follow, ascending, four bytes each.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaDescriptor {
    /// ANAGRPID.
    pub group: U32,
    /// NNSIDS: how many ids follow.
    pub namespaces: U32,
    /// CHGCNT of the group.
    pub changes: U64,
    /// The state, in bits 3:0.
    pub state: u8,
    reserved_17: [u8; 15],
}
const _: () = assert!(size_of::<AnaDescriptor>() == 32);

impl AnaDescriptor {
    pub(crate) const fn new(group: u32, namespaces: u32, changes: u64, state: AnaState) -> Self {
        Self {
            group: U32::new(group),
            namespaces: U32::new(namespaces),
            changes: U64::new(changes),
            state: state as u8,
            reserved_17: [0; 15],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_its_number_says() {
        for state in AnaState::ALL {
            assert_eq!(AnaState::from_wire(state as u8), Some(state));
            assert_eq!(AnaState::from_wire(0xf0 | state as u8), Some(state), "reserved bits");
        }
        for unknown in [0, 5, 14] {
            assert_eq!(AnaState::from_wire(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_path_that_refuses_says_so_and_never_forbids_another_try() {
        let refused = AnaState::ALL.map(|state| state.refusal().map(|s| (s.code_type(), s.code())));
        assert_eq!(refused, [None, None, Some((3, 2)), Some((3, 1)), Some((3, 3))]);
        for status in AnaState::ALL.into_iter().filter_map(AnaState::refusal) {
            assert!(status.is_path_error() && !status.do_not_retry());
        }
    }
}
