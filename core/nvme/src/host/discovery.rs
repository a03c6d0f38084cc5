//! The discovery log page (Base 5.16.1.23): read in pieces, believed only if it did not change.
//!
//! ```text
//!   header --> entries, 4 KiB at a time --> header again, same generation --> done
//!     ^                                           |
//!     +--------------- another generation --------+
//! ```

use alloc::vec::Vec;

use arrayvec::ArrayString;

use super::identify::Page;
use super::operation::get_log_page;
use crate::command::Command;
use crate::connect::Nqn;

/// Log page identifier of the discovery log.
const LID_DISCOVERY: u8 = 0x70;
/// Bytes of the header, and of an entry.
const RECORD_BYTES: u32 = 1024;
/// Bytes read at once.
const PIECE_BYTES: u32 = 4096;
/// Entries that we keep, at most: 4 MiB of log.
const ENTRIES_MAX: u64 = 4096;
/// Times that we begin again because the log changed.
const RESTARTS_MAX: u32 = 16;

/// An entry of the discovery log: where a subsystem can be reached.
#[derive(Clone, Debug)]
pub struct Entry {
    /// TRTYPE: 3 is TCP.
    pub transport: u8,
    /// ADRFAM.
    pub family: TransportFamily,
    /// SUBTYPE.
    pub subtype: Subtype,
    /// TREQ.
    pub requirements: u8,
    /// PORTID.
    pub port: u16,
    /// CNTLID: FFFFh for the dynamic model.
    pub cntlid: u16,
    /// ASQSZ: largest admin queue.
    pub admin_queue_max: u16,
    /// EFLAGS.
    pub flags: u16,
    /// TRSVCID: the port as text.
    pub service: ArrayString<32>,
    /// TRADDR: the address as text.
    pub address: ArrayString<256>,
    /// SUBNQN.
    pub subnqn: Option<Nqn>,
    /// SECTYPE of TSAS: 0 none, 1 and 2 TLS.
    pub security: u8,
}

/// Address family of a discovery log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFamily {
    /// 1.
    Ipv4,
    /// 2.
    Ipv6,
    /// Anything else.
    Other(u8),
}

/// What a discovery log entry tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subtype {
    /// Another discovery service.
    Referral,
    /// An NVM subsystem.
    Nvm,
    /// This discovery subsystem itself.
    CurrentDiscovery,
    /// Anything else.
    Other(u8),
}

impl Entry {
    fn parse(record: &[u8]) -> Self {
        let page = Page(record);
        Self {
            transport: page.u8(0),
            family: match page.u8(1) {
                1 => TransportFamily::Ipv4,
                2 => TransportFamily::Ipv6,
                other => TransportFamily::Other(other),
            },
            subtype: match page.u8(2) {
                1 => Subtype::Referral,
                2 => Subtype::Nvm,
                3 => Subtype::CurrentDiscovery,
                other => Subtype::Other(other),
            },
            requirements: page.u8(3),
            port: page.u16(4),
            cntlid: page.u16(6),
            admin_queue_max: page.u16(8),
            flags: page.u16(10),
            service: page.text(32, 32),
            address: page.text(512, 256),
            subnqn: page.nqn(256),
            security: page.u8(768),
        }
    }
}

/// Reading the log.
#[derive(Debug)]
pub(super) struct Reader {
    state: Reading,
    restarts: u32,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Header,
    Entries(Edition),
    Check(Edition),
}

/// Which log it is that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edition {
    generation: u64,
    records: u64,
}

/// What to do after a piece of the log.
#[derive(Debug)]
pub(super) enum Next {
    /// Read more: [`Reader::command`].
    Read,
    /// That is all.
    Done(Vec<Entry>),
    /// It makes no sense, or changes too fast.
    Failed,
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self { state: Reading::Header, restarts: 0, entries: Vec::new() }
    }

    /// The next Get Log Page, and how many bytes it reads.
    pub(super) fn command(&self) -> (Command, u32) {
        let (offset, len, retain) = match self.state {
            Reading::Header => (0, RECORD_BYTES, true),
            // The last one lets the target tell of the next change.
            Reading::Check(_) => (0, RECORD_BYTES, false),
            Reading::Entries(edition) => {
                let have = self.entries.len() as u64;
                let left = (edition.records - have) * u64::from(RECORD_BYTES);
                let len = u32::try_from(left).unwrap_or(u32::MAX).min(PIECE_BYTES);
                ((1 + have) * u64::from(RECORD_BYTES), len, true)
            }
        };
        (get_log_page(LID_DISCOVERY, 0, offset, len, retain), len)
    }

    /// Takes the piece that [`Reader::command`] asked for.
    pub(super) fn take(&mut self, piece: &[u8]) -> Next {
        match self.state {
            Reading::Header => match edition(piece) {
                Some(edition) => self.begin(edition),
                None => Next::Failed,
            },
            Reading::Entries(of) => {
                let records = piece.as_chunks::<{ RECORD_BYTES as usize }>().0;
                self.entries.extend(records.iter().map(|record| Entry::parse(record)));
                if self.entries.len() as u64 >= of.records {
                    self.state = Reading::Check(of);
                }
                Next::Read
            }
            Reading::Check(of) => match edition(piece) {
                Some(now) if now == of => Next::Done(core::mem::take(&mut self.entries)),
                Some(now) if self.restarts < RESTARTS_MAX => {
                    self.restarts += 1;
                    self.begin(now)
                }
                _ => Next::Failed,
            },
        }
    }

    /// Reads this edition's entries from the first one on.
    fn begin(&mut self, edition: Edition) -> Next {
        self.entries.clear();
        self.state =
            if edition.records == 0 { Reading::Check(edition) } else { Reading::Entries(edition) };
        Next::Read
    }
}

/// What a header tells, if we know its format and it stays within bounds.
fn edition(header: &[u8]) -> Option<Edition> {
    let page = Page(header);
    let edition = Edition { generation: page.u64(0), records: page.u64(8) };
    let known = page.u16(16) == 0 && edition.records <= ENTRIES_MAX;
    if known { Some(edition) } else { None }
}
