//! The data of a command, known from its submission queue entry before any of it moves.

use crate::Status;
use crate::command::{Command, Direction, PSDT_SGL, Sgl};

/// Most bytes that one command moves: MDTS, and the largest buffer there is.
pub const TRANSFER_BYTES_MAX: u32 = 128 << 10;
/// MDTS: log2 of [`TRANSFER_BYTES_MAX`] in memory pages of 4 KiB.
pub(crate) const MDTS: u8 = 5;
const _: () = assert!(TRANSFER_BYTES_MAX == 4096 << MDTS);

/// FUSE 1:0 and PSDT 7:6 of a command's flags.
const FUSE: u8 = 0x03;
const PSDT: u8 = 0xc0;

/// Which way a command's data goes, how, and how many bytes of it are wanted. The host's SGL may
/// be longer than that: the rest of in-capsule data is to be skipped, the rest of a host buffer
/// is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// No data.
    None,
    /// From the host, inside the command capsule.
    InCapsule(u32),
    /// From the host, after an R2T.
    FromHost(u32),
    /// To the host, as C2HData.
    ToHost(u32),
}

impl Transfer {
    /// How `len` bytes move in `direction` for `command`.
    ///
    /// # Errors
    /// The length is zero or exceeds MDTS, or the SGL is of a wrong type or too short.
    pub fn new(command: &Command, direction: Direction, len: u32) -> Result<Self, Status> {
        let sgl = &command.sgl;
        if direction == Direction::None {
            return Ok(Self::None);
        }
        if len == 0 || len > TRANSFER_BYTES_MAX {
            return Err(Status::INVALID_FIELD.dnr());
        }
        let transfer = match (direction, sgl.identifier) {
            (Direction::FromHost, Sgl::IN_CAPSULE) if sgl.address.get() != 0 => {
                return Err(Status::SGL_OFFSET_INVALID.dnr());
            }
            (Direction::FromHost, Sgl::IN_CAPSULE) => Self::InCapsule(len),
            (Direction::FromHost, Sgl::TRANSPORT) => Self::FromHost(len),
            (Direction::ToHost, Sgl::TRANSPORT) => Self::ToHost(len),
            _ => return Err(Status::SGL_TYPE_INVALID.dnr()),
        };
        if sgl.length.get() < len {
            return Err(Status::SGL_LENGTH_INVALID.dnr());
        }
        Ok(transfer)
    }

    /// Bytes that move.
    #[must_use]
    pub const fn len(self) -> u32 {
        match self {
            Self::None => 0,
            Self::InCapsule(len) | Self::FromHost(len) | Self::ToHost(len) => len,
        }
    }

    /// Whether no bytes move.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Checks what every command but a fabrics one must have: no fused operation, SGLs for its data
/// (Base 3.3.3.1).
///
/// # Errors
/// The status to complete the command with.
pub const fn check_flags(command: &Command) -> Result<(), Status> {
    if command.flags & FUSE != 0 {
        return Err(Status::INVALID_FIELD.dnr());
    }
    check_sgl(command)
}

/// Checks that a command has SGLs for its data.
pub(crate) const fn check_sgl(command: &Command) -> Result<(), Status> {
    if command.flags & PSDT != PSDT_SGL {
        return Err(Status::INVALID_FIELD.dnr());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::little_endian::U64;

    #[test]
    fn the_sgl_must_be_of_the_right_kind_and_long_enough() {
        use Direction::{FromHost, ToHost};
        let offset = Sgl { address: U64::new(4), ..Sgl::in_capsule(512) };
        let address = Sgl { identifier: 0x00, ..Sgl::transport(512) };
        let rows = [
            (FromHost, Sgl::in_capsule(512), 512, Ok(Transfer::InCapsule(512))),
            (FromHost, Sgl::transport(512), 512, Ok(Transfer::FromHost(512))),
            (ToHost, Sgl::transport(512), 512, Ok(Transfer::ToHost(512))),
            (ToHost, Sgl::transport(4096), 512, Ok(Transfer::ToHost(512))),
            (ToHost, Sgl::transport(508), 512, Err(Status::SGL_LENGTH_INVALID.dnr())),
            (ToHost, Sgl::in_capsule(512), 512, Err(Status::SGL_TYPE_INVALID.dnr())),
            (FromHost, offset, 512, Err(Status::SGL_OFFSET_INVALID.dnr())),
            (FromHost, address, 512, Err(Status::SGL_TYPE_INVALID.dnr())),
            (ToHost, Sgl::transport(1 << 20), (128 << 10) + 1, Err(Status::INVALID_FIELD.dnr())),
            (Direction::None, address, 0, Ok(Transfer::None)),
        ];
        for (direction, sgl, len, expected) in rows {
            let command = Command { sgl, ..Command::new(0, 0) };
            assert_eq!(Transfer::new(&command, direction, len), expected, "{direction:?} {sgl:?}");
        }
    }
}
