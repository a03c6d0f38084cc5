//! The fabrics Connect command (Base 6.3): parsed once, here, into what cannot be wrong.

use core::fmt;
use core::time::Duration;

use arrayvec::ArrayString;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::command::{Command, Sgl, admin, fabrics};
use crate::{NQN_BYTES_MAX, Status};

/// An NVMe qualified name, well-formed by construction: UTF-8, `nqn.` in front, 223 bytes at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn(ArrayString<NQN_BYTES_MAX>);

impl Nqn {
    /// The name, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.starts_with("nqn.") && text.bytes().all(|b| b > b' ' && b != 0x7f);
        if well_formed { ArrayString::from(text).ok().map(Self) } else { None }
    }

    /// The name in a NUL-padded field.
    #[must_use]
    pub fn from_field(field: &[u8; 256]) -> Option<Self> {
        let end = field.iter().position(|&b| b == 0)?;
        Self::parse(core::str::from_utf8(&field[..end]).ok()?)
    }

    /// The name in a NUL-padded field.
    #[must_use]
    pub fn to_field(&self) -> [u8; 256] {
        let mut field = [0; 256];
        field[..self.0.len()].copy_from_slice(self.0.as_bytes());
        field
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The data of a Connect command.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// Host identifier.
    pub hostid: [u8; 16],
    /// Controller id.
    pub cntlid: U16,
    /// Reserved.
    pub reserved: [u8; 238],
    /// Subsystem NQN, NUL padded.
    pub subnqn: [u8; 256],
    /// Host NQN, NUL padded.
    pub hostnqn: [u8; 256],
    /// Reserved.
    pub reserved2: [u8; 256],
}
const _: () = assert!(size_of::<ConnectData>() == 1024);

/// Bytes of a Connect command's data.
pub const CONNECT_DATA_BYTES: u32 = 1024;

/// ATR, bit 17 of what a Connect is answered with: the host has to authenticate itself.
pub const AUTHENTICATION_REQUIRED: u64 = 1 << 17;

/// Controller id that asks for any controller of the dynamic model.
pub const CNTLID_DYNAMIC: u16 = 0xffff;
/// Controller id that asks for any free controller of the static model.
pub const CNTLID_STATIC_ANY: u16 = 0xfffe;
/// Largest controller id that can be given out.
pub const CNTLID_MAX: u16 = 0xffef;

/// CATTR bit 2: the host does without submission queue flow control.
const CATTR_NO_FLOW_CONTROL: u32 = 1 << 2;

/// A Connect command that is well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Command id, for the answer.
    pub cid: u16,
    /// Queue id; 0 is the admin queue.
    pub qid: u16,
    /// Entries of the queue, 1-based.
    pub entries: u32,
    /// Whether completions must carry the submission queue head.
    pub flow_control: bool,
    /// Keep alive time-out; zero: none.
    pub kato: Duration,
    /// Controller id asked for.
    pub cntlid: u16,
    /// Host identifier.
    pub hostid: [u8; 16],
    /// Subsystem.
    pub subnqn: Nqn,
    /// Host.
    pub hostnqn: Nqn,
}

/// A refusal of a Connect command: the status, and DW0 of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: Status,
    /// IPO 15:0 and IATTR 23:16 for invalid parameters.
    pub result: u32,
}

/// Where the parameter is that a Connect command is refused for (Base 6.3, figure "Connect
/// Response - Dword 0 Value Based on Status").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// QID in the SQE.
    QueueId,
    /// SQSIZE in the SQE.
    QueueSize,
    /// CNTLID in the data.
    ControllerId,
    /// SUBNQN in the data.
    Subsystem,
    /// HOSTNQN in the data.
    Host,
}

impl Refusal {
    /// A refusal with a status of its own.
    #[must_use]
    pub const fn new(status: Status) -> Self {
        Self { status, result: 0 }
    }

    /// A refusal because of `parameter`. Never with DNR: what is wrong now (a subsystem that is
    /// not here yet) may be right in a moment, and Linux gives a controller up on DNR.
    #[must_use]
    pub const fn parameter(parameter: Parameter) -> Self {
        let result = match parameter {
            Parameter::QueueId => 42,
            Parameter::QueueSize => 44,
            Parameter::ControllerId => 16 | 1 << 16,
            Parameter::Subsystem => 256 | 1 << 16,
            Parameter::Host => 512 | 1 << 16,
        };
        Self { status: Status::CONNECT_INVALID_PARAMETERS, result }
    }
}

impl Connect {
    /// Parses the command and its data.
    ///
    /// # Errors
    /// The refusal to answer it with.
    pub fn parse(command: &Command, data: &ConnectData) -> Result<Self, Refusal> {
        let (recfmt, qid) = halves(command.cdw(10));
        let (sqsize, _) = halves(command.cdw(11));
        if recfmt != 0 {
            return Err(Refusal::new(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr()));
        }
        if sqsize == 0 {
            return Err(Refusal::parameter(Parameter::QueueSize));
        }
        let subnqn =
            Nqn::from_field(&data.subnqn).ok_or(Refusal::parameter(Parameter::Subsystem))?;
        let hostnqn = Nqn::from_field(&data.hostnqn).ok_or(Refusal::parameter(Parameter::Host))?;
        Ok(Self {
            cid: command.cid.get(),
            qid,
            entries: u32::from(sqsize) + 1,
            flow_control: command.cdw(11) >> 16 & CATTR_NO_FLOW_CONTROL == 0,
            kato: Duration::from_millis(u64::from(command.cdw(12))),
            cntlid: data.cntlid.get(),
            hostid: data.hostid,
            subnqn,
            hostnqn,
        })
    }

    /// The command and its data, as our host side sends them.
    #[must_use]
    pub fn to_wire(&self) -> (Command, ConnectData) {
        let mut command = Command::new(admin::FABRICS, u32::from(fabrics::CONNECT));
        command.cid = U16::new(self.cid);
        command.sgl = Sgl::in_capsule(CONNECT_DATA_BYTES);
        command.set_cdw(10, u32::from(self.qid) << 16);
        let cattr = if self.flow_control { 0 } else { CATTR_NO_FLOW_CONTROL };
        command.set_cdw(11, (self.entries - 1) & 0xffff | cattr << 16);
        command.cdw10[2] = U32::new(u32::try_from(self.kato.as_millis()).unwrap_or(u32::MAX));
        let data = ConnectData {
            hostid: self.hostid,
            cntlid: U16::new(self.cntlid),
            reserved: [0; 238],
            subnqn: self.subnqn.to_field(),
            hostnqn: self.hostnqn.to_field(),
            reserved2: [0; 256],
        };
        (command, data)
    }
}

/// The lower and the upper half of a dword.
pub(crate) const fn halves(dword: u32) -> (u16, u16) {
    let [a, b, c, d] = dword.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Connect {
        Connect {
            cid: 7,
            qid: 3,
            entries: 128,
            flow_control: false,
            kato: Duration::from_secs(5),
            cntlid: CNTLID_DYNAMIC,
            hostid: [9; 16],
            subnqn: Nqn::parse("nqn.2026-01.io.braid:a").unwrap(),
            hostnqn: Nqn::parse("nqn.2014-08.org.nvmexpress:uuid:1").unwrap(),
        }
    }

    #[test]
    fn what_the_host_writes_the_target_reads() {
        let (command, data) = sample().to_wire();
        assert_eq!(Connect::parse(&command, &data), Ok(sample()));
    }

    #[test]
    fn a_field_without_nul_or_prefix_is_refused_by_its_offset() {
        let (command, mut data) = sample().to_wire();
        data.subnqn = [b'a'; 256];
        assert_eq!(Connect::parse(&command, &data).unwrap_err().result, 256 | 1 << 16);
        let (command, mut data) = sample().to_wire();
        data.hostnqn[0] = b'x';
        assert_eq!(Connect::parse(&command, &data).unwrap_err().result, 512 | 1 << 16);
    }

    #[test]
    fn a_queue_of_one_entry_is_refused() {
        let (mut command, data) = sample().to_wire();
        command.set_cdw(11, 0);
        assert_eq!(Connect::parse(&command, &data).unwrap_err().result, 44);
    }
}
