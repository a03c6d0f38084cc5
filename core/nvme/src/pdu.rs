//! The PDUs of NVMe/TCP as they lie on the wire (TCP 3.6). Little endian, no padding.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::command::{Command, Completion};

/// PDU-Type (TCP 3.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PduType {
    /// Initialize Connection Request, host to controller.
    IcReq = 0x00,
    /// Initialize Connection Response.
    IcResp = 0x01,
    /// Host to Controller Terminate Connection Request.
    H2cTermReq = 0x02,
    /// Controller to Host Terminate Connection Request.
    C2hTermReq = 0x03,
    /// Command Capsule.
    Command = 0x04,
    /// Response Capsule.
    Response = 0x05,
    /// Host to Controller Data Transfer.
    H2cData = 0x06,
    /// Controller to Host Data Transfer.
    C2hData = 0x07,
    /// Ready to Transfer.
    R2t = 0x09,
}

impl PduType {
    /// The type for its code.
    #[must_use]
    pub const fn from_wire(code: u8) -> Option<Self> {
        Some(match code {
            0x00 => Self::IcReq,
            0x01 => Self::IcResp,
            0x02 => Self::H2cTermReq,
            0x03 => Self::C2hTermReq,
            0x04 => Self::Command,
            0x05 => Self::Response,
            0x06 => Self::H2cData,
            0x07 => Self::C2hData,
            0x09 => Self::R2t,
            _ => return None,
        })
    }

    /// Header length (HLEN), without digest.
    #[must_use]
    pub const fn header_len(self) -> u8 {
        match self {
            Self::IcReq | Self::IcResp => 128,
            Self::Command => 72,
            Self::H2cTermReq
            | Self::C2hTermReq
            | Self::Response
            | Self::H2cData
            | Self::C2hData
            | Self::R2t => 24,
        }
    }

    /// Whether a header digest follows the header once negotiated.
    #[must_use]
    pub const fn may_have_header_digest(self) -> bool {
        !matches!(self, Self::IcReq | Self::IcResp | Self::H2cTermReq | Self::C2hTermReq)
    }
}

/// Flag: a header digest is present.
pub const FLAG_HDGST: u8 = 1 << 0;
/// Flag: a data digest is present.
pub const FLAG_DDGST: u8 = 1 << 1;
/// Flag: the last PDU of this data transfer.
pub const FLAG_LAST: u8 = 1 << 2;
/// Flag on C2HData: the command succeeded, no response capsule follows.
pub const FLAG_SUCCESS: u8 = 1 << 3;

/// Length of a digest on the wire.
pub const DIGEST_BYTES: u32 = 4;
/// Length of the longest PDU header with its digest: IC PDUs have no digest.
pub const HEADER_BYTES_MAX: usize = 128;
/// Length of a termination request at most: its header, and as much of the offending PDU.
pub const TERM_BYTES_MAX: u32 = 152;

/// Common header of every PDU.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommonHeader {
    /// PDU-Type.
    pub pdu_type: u8,
    /// FLAGS.
    pub flags: u8,
    /// Header length without digest.
    pub hlen: u8,
    /// Data offset from the PDU's start; 0 without data.
    pub pdo: u8,
    /// Length of the whole PDU.
    pub plen: U32,
}
const _: () = assert!(size_of::<CommonHeader>() == 8);

/// Initialize Connection Request and Response share their shape (TCP 3.6.2.2, 3.6.2.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InitializeConnection {
    /// Common header; PLEN 128.
    pub ch: CommonHeader,
    /// PDU format version, 0.
    pub pfv: U16,
    /// HPDA or CPDA: data alignment in dwords, 0-based.
    pub data_alignment: u8,
    /// Bit 0 header digest, bit 1 data digest.
    pub digest: u8,
    /// Request: MAXR2T, 0-based. Response: MAXH2CDATA in bytes.
    pub limit: U32,
    /// Reserved.
    pub reserved: [u8; 112],
}
const _: () = assert!(size_of::<InitializeConnection>() == 128);

/// Terminate Connection Request, either direction (TCP 3.6.2.4, 3.6.2.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TermReq {
    /// Common header; PLEN 24 and the copy of the offending header.
    pub ch: CommonHeader,
    /// Fatal error status.
    pub fes: U16,
    /// Fatal error information: a byte offset or a digest. Not aligned.
    pub fei: U32,
    /// Reserved.
    pub reserved: [u8; 10],
}
const _: () = assert!(size_of::<TermReq>() == 24);

/// Command Capsule header (TCP 3.6.2.6).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandCapsule {
    /// Common header.
    pub ch: CommonHeader,
    /// Submission queue entry.
    pub command: Command,
}
const _: () = assert!(size_of::<CommandCapsule>() == 72);

/// Response Capsule (TCP 3.6.2.7).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ResponseCapsule {
    /// Common header.
    pub ch: CommonHeader,
    /// Completion queue entry.
    pub completion: Completion,
}
const _: () = assert!(size_of::<ResponseCapsule>() == 24);

/// H2CData and C2HData header, and R2T, which has the same fields (TCP 3.6.2.8 to 3.6.2.10).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataHeader {
    /// Common header.
    pub ch: CommonHeader,
    /// Command id this is about.
    pub cccid: U16,
    /// Transfer tag of an R2T and its data; reserved in C2HData.
    pub ttag: U16,
    /// First byte within the command's data (DATAO, R2TO).
    pub offset: U32,
    /// Number of bytes (DATAL, R2TL).
    pub length: U32,
    /// Reserved.
    pub reserved: U32,
}
const _: () = assert!(size_of::<DataHeader>() == 24);

/// Fatal Error Status of a termination request, with its information (TCP 3.6.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalError {
    /// 01h: a header field is wrong; the field's byte offset in the PDU.
    InvalidHeaderField(u32),
    /// 02h: a PDU that may not come now.
    Sequence,
    /// 03h: the header digest does not match; the digest received.
    HeaderDigest(u32),
    /// 04h: data outside of what was asked for.
    DataOutOfRange,
    /// 05h: more data than may be transferred.
    LimitExceeded,
    /// 06h: a parameter that is not supported; the field's byte offset in the PDU.
    UnsupportedParameter(u32),
}

impl FatalError {
    /// FES.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidHeaderField(_) => 1,
            Self::Sequence => 2,
            Self::HeaderDigest(_) => 3,
            Self::DataOutOfRange => 4,
            Self::LimitExceeded => 5,
            Self::UnsupportedParameter(_) => 6,
        }
    }

    /// FEI.
    #[must_use]
    pub const fn information(self) -> u32 {
        match self {
            Self::InvalidHeaderField(x) | Self::HeaderDigest(x) | Self::UnsupportedParameter(x) => {
                x
            }
            Self::Sequence | Self::DataOutOfRange | Self::LimitExceeded => 0,
        }
    }
}

/// Which digests a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// CRC32C after each header.
    pub header: bool,
    /// CRC32C after the data of each PDU.
    pub data: bool,
}

impl Digests {
    /// From the DGST field.
    #[must_use]
    pub const fn from_wire(bits: u8) -> Self {
        Self { header: bits & 1 != 0, data: bits & 2 != 0 }
    }

    /// The DGST field.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self.header as u8 | (self.data as u8) << 1
    }
}

impl CommonHeader {
    /// A header for a PDU without data, with its length and flags as the digests demand.
    #[must_use]
    pub const fn without_data(pdu_type: PduType, digests: Digests) -> Self {
        let hdgst = digests.header && pdu_type.may_have_header_digest();
        let hlen = pdu_type.header_len();
        let plen = hlen as u32 + if hdgst { DIGEST_BYTES } else { 0 };
        Self {
            pdu_type: pdu_type as u8,
            flags: if hdgst { FLAG_HDGST } else { 0 },
            hlen,
            pdo: 0,
            plen: U32::new(plen),
        }
    }

    /// A header for a PDU with `len` bytes of data, none of them padding.
    #[must_use]
    pub const fn with_data(pdu_type: PduType, digests: Digests, len: u32, flags: u8) -> Self {
        Self::with_aligned_data(pdu_type, digests, len, flags, 1)
    }

    /// As [`CommonHeader::with_data`], the data beginning at a multiple of `alignment` dwords.
    #[must_use]
    pub const fn with_aligned_data(
        pdu_type: PduType,
        digests: Digests,
        len: u32,
        flags: u8,
        alignment: u32,
    ) -> Self {
        let mut ch = Self::without_data(pdu_type, digests);
        let pdo = ch.plen.get().next_multiple_of(alignment * 4);
        ch.pdo = pdo.to_le_bytes()[0];
        ch.flags |= flags | if digests.data { FLAG_DDGST } else { 0 };
        ch.plen = U32::new(pdo + len + if digests.data { DIGEST_BYTES } else { 0 });
        ch
    }
}

impl InitializeConnection {
    /// A request or response. `limit` is MAXR2T or MAXH2CDATA.
    #[must_use]
    pub const fn new(pdu_type: PduType, digests: Digests, limit: u32) -> Self {
        Self {
            ch: CommonHeader::without_data(pdu_type, Digests { header: false, data: false }),
            pfv: U16::new(0),
            data_alignment: 0,
            digest: digests.to_wire(),
            limit: U32::new(limit),
            reserved: [0; 112],
        }
    }
}

impl TermReq {
    /// A request that reports `error` and is followed by `copied` bytes of the offending header.
    #[must_use]
    pub const fn new(pdu_type: PduType, error: FatalError, copied: u32) -> Self {
        let mut ch = CommonHeader::without_data(pdu_type, Digests { header: false, data: false });
        ch.plen = U32::new(24 + copied);
        Self {
            ch,
            fes: U16::new(error.status()),
            fei: U32::new(error.information()),
            reserved: [0; 10],
        }
    }
}
