//! Submission and completion queue entries, and the opcodes (Base 3.3.3, 5, 6; NVM 3).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Status;

/// Submission queue entry.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Command {
    /// Opcode.
    pub opcode: u8,
    /// FUSE 1:0, PSDT 7:6.
    pub flags: u8,
    /// Command id: an opaque cookie of the host's.
    pub cid: U16,
    /// Namespace id; FCTYPE in its lowest byte for a fabrics command.
    pub nsid: U32,
    /// CDW2 and CDW3.
    pub cdw2: [U32; 2],
    /// Metadata pointer.
    pub metadata: U64,
    /// SGL1: where the data is.
    pub sgl: Sgl,
    /// CDW10 to CDW15.
    pub cdw10: [U32; 6],
}
const _: () = assert!(size_of::<Command>() == 64);

/// SGL descriptor.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Sgl {
    /// Offset of in-capsule data.
    pub address: U64,
    /// Length in bytes.
    pub length: U32,
    /// Reserved.
    pub reserved: [u8; 3],
    /// Type 7:4, sub type 3:0.
    pub identifier: u8,
}
const _: () = assert!(size_of::<Sgl>() == 16);

impl Sgl {
    /// Identifier of in-capsule data: data block, offset.
    pub const IN_CAPSULE: u8 = 0x01;
    /// Identifier of data moved by the transport: transport data block, transport specific.
    pub const TRANSPORT: u8 = 0x5a;

    /// A descriptor of `length` bytes of in-capsule data.
    #[must_use]
    pub const fn in_capsule(length: u32) -> Self {
        Self {
            address: U64::new(0),
            length: U32::new(length),
            reserved: [0; 3],
            identifier: Self::IN_CAPSULE,
        }
    }

    /// A descriptor of `length` bytes that R2T or C2HData will move.
    #[must_use]
    pub const fn transport(length: u32) -> Self {
        Self {
            address: U64::new(0),
            length: U32::new(length),
            reserved: [0; 3],
            identifier: Self::TRANSPORT,
        }
    }
}

/// PSDT: SGLs describe the data, the only way there is on NVMe/TCP.
pub const PSDT_SGL: u8 = 0x40;

impl Command {
    /// A command without data.
    #[must_use]
    pub const fn new(opcode: u8, nsid: u32) -> Self {
        Self {
            opcode,
            flags: PSDT_SGL,
            cid: U16::new(0),
            nsid: U32::new(nsid),
            cdw2: [U32::ZERO; 2],
            metadata: U64::ZERO,
            sgl: Sgl::transport(0),
            cdw10: [U32::ZERO; 6],
        }
    }

    /// CDW10 .. CDW15.
    ///
    /// # Panics
    /// If `n` is not in 10 to 15, a programmer's error.
    #[must_use]
    pub const fn cdw(&self, n: usize) -> u32 {
        self.cdw10[n - 10].get()
    }

    /// Sets one of CDW10 .. CDW15.
    ///
    /// # Panics
    /// If `n` is not in 10 to 15, a programmer's error.
    pub const fn set_cdw(&mut self, n: usize, value: u32) {
        self.cdw10[n - 10] = U32::new(value);
    }

    /// CDW10 and CDW11 as one number: the starting LBA of I/O commands.
    #[must_use]
    pub const fn slba(&self) -> u64 {
        self.cdw(10) as u64 | (self.cdw(11) as u64) << 32
    }

    /// Number of logical blocks of an I/O command, made 1-based.
    #[must_use]
    pub const fn block_count(&self) -> u32 {
        (self.cdw(12) & 0xffff) + 1
    }

    /// Force Unit Access, bit 30 of CDW12.
    #[must_use]
    pub const fn force_unit_access(&self) -> bool {
        self.cdw(12) & 1 << 30 != 0
    }

    /// FUSE, bits 1:0 of the flags; none if it is the value that means nothing.
    #[must_use]
    pub const fn fuse(&self) -> Option<Fuse> {
        match self.flags & 3 {
            0 => Some(Fuse::Alone),
            1 => Some(Fuse::First),
            2 => Some(Fuse::Second),
            _ => None,
        }
    }

    /// The same, as part of a fused operation.
    #[must_use]
    pub const fn fused(mut self, fuse: Fuse) -> Self {
        let bits = match fuse {
            Fuse::Alone => 0,
            Fuse::First => 1,
            Fuse::Second => 2,
        };
        self.flags = self.flags & !3 | bits;
        self
    }

    /// FCTYPE of a fabrics command.
    #[must_use]
    pub const fn fabrics_type(&self) -> u8 {
        self.nsid.get().to_le_bytes()[0]
    }
}

/// Completion queue entry.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Completion {
    /// DW0 and DW1: command specific.
    pub result: U64,
    /// Submission queue head.
    pub sqhd: U16,
    /// Reserved on fabrics.
    pub sqid: U16,
    /// Command id.
    pub cid: U16,
    /// Status, phase in its lowest bit.
    pub status: U16,
}
const _: () = assert!(size_of::<Completion>() == 16);

impl Completion {
    /// A completion of command `cid`; the submission queue head is filled in when it is sent.
    #[must_use]
    pub const fn new(cid: u16, status: Status, result: u64) -> Self {
        Self {
            result: U64::new(result),
            sqhd: U16::new(0),
            sqid: U16::new(0),
            cid: U16::new(cid),
            status: U16::new(status.to_wire()),
        }
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::from_wire(self.status.get())
    }
}

/// Which part of a fused operation a command is: two that follow each other on a queue and are
/// done as one (Base 3.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// It is a command of its own.
    Alone,
    /// The first of two.
    First,
    /// The second of two.
    Second,
}

/// Which way a command's data goes: the two lowest bits of its opcode (Base 3.3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// No data.
    None,
    /// Host to controller.
    FromHost,
    /// Controller to host.
    ToHost,
}

impl Direction {
    /// The direction that an opcode implies. Fabrics commands say it in their FCTYPE instead.
    #[must_use]
    pub const fn of(command: &Command) -> Self {
        let code =
            if command.opcode == admin::FABRICS { command.fabrics_type() } else { command.opcode };
        match code & 3 {
            1 => Self::FromHost,
            2 => Self::ToHost,
            _ => Self::None,
        }
    }
}

/// Admin command opcodes (Base 5).
pub mod admin {
    /// Get Log Page.
    pub const GET_LOG_PAGE: u8 = 0x02;
    /// Identify.
    pub const IDENTIFY: u8 = 0x06;
    /// Abort.
    pub const ABORT: u8 = 0x08;
    /// Set Features.
    pub const SET_FEATURES: u8 = 0x09;
    /// Get Features.
    pub const GET_FEATURES: u8 = 0x0a;
    /// Asynchronous Event Request.
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
    /// Keep Alive.
    pub const KEEP_ALIVE: u8 = 0x18;
    /// Get LBA Status, of the NVM command set (NVM 4.2.1).
    pub const GET_LBA_STATUS: u8 = 0x86;
    /// Fabrics commands, on any queue.
    pub const FABRICS: u8 = 0x7f;
}

/// Fabrics command types (Base 6).
pub mod fabrics {
    /// Property Set.
    pub const PROPERTY_SET: u8 = 0x00;
    /// Connect.
    pub const CONNECT: u8 = 0x01;
    /// Property Get.
    pub const PROPERTY_GET: u8 = 0x04;
    /// Authentication Send.
    pub const AUTHENTICATION_SEND: u8 = 0x05;
    /// Authentication Receive.
    pub const AUTHENTICATION_RECEIVE: u8 = 0x06;
    /// Disconnect.
    pub const DISCONNECT: u8 = 0x08;
}

/// I/O command opcodes (NVM 3).
pub mod io {
    /// Flush.
    pub const FLUSH: u8 = 0x00;
    /// Write.
    pub const WRITE: u8 = 0x01;
    /// Read.
    pub const READ: u8 = 0x02;
    /// Compare.
    pub const COMPARE: u8 = 0x05;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u8 = 0x09;
    /// Verify.
    pub const VERIFY: u8 = 0x0c;
    /// Reservation Register.
    pub const RESERVATION_REGISTER: u8 = 0x0d;
    /// Reservation Report.
    pub const RESERVATION_REPORT: u8 = 0x0e;
    /// Reservation Acquire.
    pub const RESERVATION_ACQUIRE: u8 = 0x11;
    /// Reservation Release.
    pub const RESERVATION_RELEASE: u8 = 0x15;
}
