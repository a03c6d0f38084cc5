//! Reservations as a host asks for them (Base 7.2 to 7.5): what it sends with a command, and what
//! a report says.
//!
//! [`Operation::Reservation`](super::Operation) is the command. Its data is what [`Keys::to_bytes`]
//! makes, of the length that [`ReservationCommand::data_len`] says; a report's is read by
//! [`ReservationReport::parse`].

use alloc::vec::Vec;

use crate::target::reservation::{HostId, ReservationType};

/// Bytes of the header of a report, and of each registrant, with host identifiers of 128 bits.
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 64;
/// CNTLID of a registrant that has no controller at this target.
const NO_CONTROLLER: u16 = 0xffff;

/// Who has registered with a namespace, and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationReport {
    /// GEN: another number after every change of the registrants.
    pub generation: u32,
    /// The type of the reservation; none: nobody holds one.
    pub kind: Option<ReservationType>,
    /// PTPLS: it persists through a loss of power.
    pub persists: bool,
    /// REGCTL: how many entries there are; fewer may have fit.
    pub entries: u16,
    /// Those that fit: one for each controller of each registrant.
    pub registrants: Vec<ReportedRegistrant>,
}

/// An entry of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedRegistrant {
    /// The registrant's controller; none: it has none at this target now.
    pub cntlid: Option<u16>,
    /// It holds the reservation.
    pub holds: bool,
    /// Its key.
    pub key: u64,
    /// Who it is.
    pub host: HostId,
}

impl ReservationReport {
    /// Reads what a Reservation Report brought. None: it is no report.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (header, rest) = data.split_first_chunk::<HEADER_BYTES>()?;
        let [g0, g1, g2, g3, kind, e0, e1, _, _, persists, ..] = *header;
        let kind = match kind {
            0 => None,
            kind => Some(ReservationType::from_wire(kind)?),
        };
        let entries = u16::from_le_bytes([e0, e1]);
        let listed = rest.as_chunks::<ENTRY_BYTES>().0.iter().take(usize::from(entries));
        Some(Self {
            generation: u32::from_le_bytes([g0, g1, g2, g3]),
            kind,
            persists: persists & 1 != 0,
            entries,
            registrants: listed.map(ReportedRegistrant::parse).collect(),
        })
    }
}

impl ReportedRegistrant {
    fn parse(entry: &[u8; ENTRY_BYTES]) -> Self {
        let [c0, c1, status, ..] = *entry;
        let cntlid = u16::from_le_bytes([c0, c1]);
        let (mut key, mut host) = ([0; 8], [0; 16]);
        key.copy_from_slice(&entry[8..16]);
        host.copy_from_slice(&entry[16..32]);
        Self {
            cntlid: (cntlid != NO_CONTROLLER).then_some(cntlid),
            holds: status & 1 != 0,
            key: u64::from_le_bytes(key),
            host,
        }
    }
}
