//! The four commands (Base 7.2 to 7.5), parsed once into what cannot be wrong.

use super::ReservationType;
use crate::Status;
use crate::command::{Command, Direction, io};
use crate::target::transfer::Transfer;

/// CDW10: Ignore Existing Key.
const IEKEY: u32 = 1 << 3;
/// CDW11 of Reservation Report: host identifiers of 128 bits.
const EDS: u32 = 1 << 0;
/// Bytes of the data of Register and Acquire, and of Release.
const KEYS_BYTES: u32 = 16;
const KEY_BYTES: u32 = 8;

/// A reservation command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationCommand {
    /// Reservation Register.
    Register {
        /// What.
        action: Register,
        /// IEKEY: whatever key the host has.
        ignore_key: bool,
        /// CPTPL: whether reservations persist from now on, if that is to change.
        persists: Option<bool>,
    },
    /// Reservation Acquire.
    Acquire {
        /// What.
        action: Acquire,
        /// The type of the reservation.
        kind: ReservationType,
    },
    /// Reservation Release.
    Release(Release),
    /// Reservation Report of so many bytes.
    Report {
        /// Bytes that the host wants.
        bytes: u32,
    },
}

/// RREGA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Register a key.
    Register,
    /// Be no registrant any more.
    Unregister,
    /// Replace the key.
    Replace,
}

/// RACQA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquire {
    /// Become the holder, if nobody else is.
    Acquire,
    /// Unregister others, and become the holder in place of one of them.
    Preempt,
    /// The same, and abort their commands.
    PreemptAndAbort,
}

/// RRELA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Give a reservation of this type up.
    Release(ReservationType),
    /// Unregister everybody.
    Clear,
}

/// The keys that a command's data holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// CRKEY: the host's own, as it believes.
    pub current: u64,
    /// NRKEY of Register, PRKEY of Acquire.
    pub other: u64,
}

impl Keys {
    /// The first two numbers of the data; of Release there is one.
    #[must_use]
    pub fn parse(data: &[u8]) -> Self {
        let key = |at: usize| {
            let bytes = data.get(at..).and_then(|bytes| bytes.first_chunk());
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        Self { current: key(0), other: key(8) }
    }
}

impl Keys {
    /// The data of a command: of Register and Acquire all of it, of Release the first half.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.current.to_le_bytes());
        bytes[8..].copy_from_slice(&self.other.to_le_bytes());
        bytes
    }
}

impl ReservationCommand {
    /// Parses a command with one of the four opcodes.
    ///
    /// # Errors
    /// The status to complete it with.
    pub fn parse(command: &Command) -> Result<Self, Status> {
        let cdw10 = command.cdw(10);
        let invalid = Status::INVALID_FIELD.dnr();
        let kind = || ReservationType::from_wire(cdw10.to_le_bytes()[1]).ok_or(invalid);
        match (command.opcode, cdw10 & 7) {
            (io::RESERVATION_REGISTER, action) => register(cdw10, action).ok_or(invalid),
            (io::RESERVATION_REPORT, _) => report(command),
            // A holder must name its key, whatever else it ignores (Base 7.2, 7.4).
            (io::RESERVATION_ACQUIRE | io::RESERVATION_RELEASE, _) if cdw10 & IEKEY != 0 => {
                Err(invalid)
            }
            (io::RESERVATION_ACQUIRE, action) => {
                let action = match action {
                    0 => Acquire::Acquire,
                    1 => Acquire::Preempt,
                    2 => Acquire::PreemptAndAbort,
                    _ => return Err(invalid),
                };
                Ok(Self::Acquire { action, kind: kind()? })
            }
            (io::RESERVATION_RELEASE, 0) => Ok(Self::Release(Release::Release(kind()?))),
            (io::RESERVATION_RELEASE, 1) => Ok(Self::Release(Release::Clear)),
            (io::RESERVATION_RELEASE, _) => Err(invalid),
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// The data that it moves.
    ///
    /// # Errors
    /// The status to complete it with.
    pub(crate) fn transfer(&self, command: &Command) -> Result<Transfer, Status> {
        Transfer::new(command, Direction::of(command), self.data_len())
    }

    /// Bytes of data that it moves.
    #[must_use]
    pub const fn data_len(&self) -> u32 {
        match *self {
            Self::Register { .. } | Self::Acquire { .. } => KEYS_BYTES,
            Self::Release(_) => KEY_BYTES,
            Self::Report { bytes } => bytes,
        }
    }

    /// The submission queue entry that asks for it, but for its id and SGL. The bytes of a report
    /// are a multiple of 4.
    #[must_use]
    pub fn to_command(&self, nsid: u32) -> Command {
        let of = |kind: ReservationType| u32::from(kind as u8) << 8;
        let (opcode, cdw10) = match *self {
            Self::Register { action, ignore_key, persists } => {
                let persists = match persists {
                    None => 0,
                    Some(false) => 2,
                    Some(true) => 3,
                };
                let ignore = if ignore_key { IEKEY } else { 0 };
                (io::RESERVATION_REGISTER, action as u32 | ignore | persists << 30)
            }
            Self::Acquire { action, kind } => (io::RESERVATION_ACQUIRE, action as u32 | of(kind)),
            Self::Release(Release::Release(kind)) => (io::RESERVATION_RELEASE, of(kind)),
            Self::Release(Release::Clear) => (io::RESERVATION_RELEASE, 1),
            Self::Report { bytes } => (io::RESERVATION_REPORT, (bytes / 4).wrapping_sub(1)),
        };
        let mut command = Command::new(opcode, nsid);
        command.set_cdw(10, cdw10);
        if opcode == io::RESERVATION_REPORT {
            command.set_cdw(11, EDS);
        }
        command
    }
}

fn register(cdw10: u32, action: u32) -> Option<ReservationCommand> {
    let action = match action {
        0 => Register::Register,
        1 => Register::Unregister,
        2 => Register::Replace,
        _ => return None,
    };
    let persists = match cdw10 >> 30 {
        0 => None,
        2 => Some(false),
        3 => Some(true),
        _ => return None,
    };
    Some(ReservationCommand::Register { action, ignore_key: cdw10 & IEKEY != 0, persists })
}

fn report(command: &Command) -> Result<ReservationCommand, Status> {
    // Hosts here have identifiers of 128 bits, which the other structure has no room for.
    if command.cdw(11) & EDS == 0 {
        return Err(Status::HOST_ID_INCONSISTENT.dnr());
    }
    let bytes = command.cdw(10).checked_add(1).and_then(|dwords| dwords.checked_mul(4));
    let bytes = bytes.ok_or(Status::INVALID_FIELD.dnr())?;
    Ok(ReservationCommand::Report { bytes })
}
