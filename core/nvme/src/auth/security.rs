//! The two commands that messages travel by (Base 6.1, 6.2).

use crate::Status;
use crate::command::{Command, Direction, admin, fabrics};
use crate::target::Transfer;

/// Bytes of a message that we take, and of what we fill of a buffer that a host gives us for one.
/// The longest one that we know has 656.
pub const MESSAGE_BYTES_MAX: u32 = 4096;

/// SPSP0, SPSP1 and SECP of the protocol, in bits 31:8 of CDW10.
const PROTOCOL: u32 = 0xe9_01_01;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Authentication Send: a message of the host's.
    Send,
    /// Authentication Receive: the host wants a message of ours.
    Receive,
}

impl Security {
    /// Which of them a command is, if any.
    #[must_use]
    pub fn of(command: &Command) -> Option<Self> {
        match (command.opcode, command.fabrics_type()) {
            (admin::FABRICS, fabrics::AUTHENTICATION_SEND) => Some(Self::Send),
            (admin::FABRICS, fabrics::AUTHENTICATION_RECEIVE) => Some(Self::Receive),
            _ => None,
        }
    }

    /// The data that the command moves.
    ///
    /// # Errors
    /// The status to complete it with: it is about another protocol, or moves nothing, or more
    /// than any message has.
    pub fn transfer(self, command: &Command) -> Result<Transfer, Status> {
        let (protocol, len) = (command.cdw(10) >> 8, command.cdw(11));
        if protocol != PROTOCOL || len == 0 {
            return Err(Status::INVALID_FIELD.dnr());
        }
        match self {
            Self::Send if len > MESSAGE_BYTES_MAX => Err(Status::INVALID_FIELD.dnr()),
            Self::Send => Transfer::new(command, Direction::FromHost, len),
            Self::Receive => Transfer::new(command, Direction::ToHost, len.min(MESSAGE_BYTES_MAX)),
        }
    }

    /// The command of our host side for a message, or for a buffer, of so many bytes.
    #[must_use]
    pub fn command(self, len: u32) -> Command {
        let (kind, sgl) = match self {
            Self::Send => (fabrics::AUTHENTICATION_SEND, crate::command::Sgl::in_capsule(len)),
            Self::Receive => (fabrics::AUTHENTICATION_RECEIVE, crate::command::Sgl::transport(len)),
        };
        let mut command = Command { sgl, ..Command::new(admin::FABRICS, u32::from(kind)) };
        command.set_cdw(10, PROTOCOL << 8);
        command.set_cdw(11, len);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_writes_the_target_reads() {
        let send = Security::Send.command(72);
        assert_eq!(Security::of(&send), Some(Security::Send));
        assert_eq!(Security::Send.transfer(&send), Ok(Transfer::InCapsule(72)));
        let receive = Security::Receive.command(8192);
        assert_eq!(Security::of(&receive), Some(Security::Receive));
        assert_eq!(Security::Receive.transfer(&receive), Ok(Transfer::ToHost(4096)));
        assert_eq!(Security::of(&Command::new(admin::FABRICS, 0)), None);
    }

    #[test]
    fn another_protocol_no_data_and_too_much_of_it_are_refused() {
        let refused = |command: &Command| {
            assert_eq!(Security::Send.transfer(command), Err(Status::INVALID_FIELD.dnr()));
        };
        refused(&Security::Send.command(0));
        refused(&Security::Send.command(MESSAGE_BYTES_MAX + 1));
        for wrong in [0xe8_01_01, 0xe9_00_01, 0xe9_01_00] {
            let mut command = Security::Send.command(72);
            command.set_cdw(10, wrong << 8);
            refused(&command);
        }
    }
}
