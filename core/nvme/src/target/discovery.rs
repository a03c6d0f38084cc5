//! The discovery log page (Base 5.16.1.23): which subsystems a host may connect to, and where.

use core::fmt::{self, Write};
use core::mem::offset_of;
use core::net::IpAddr;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Portal;
use super::view::{Listed, SubsystemView};
use super::window::Window;
use crate::DISCOVERY_NQN;
use crate::connect::{CNTLID_DYNAMIC, Nqn};

/// The head of the log.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// GENCTR.
    pub generation: U64,
    /// NUMREC.
    pub records: U64,
    /// RECFMT.
    pub format: U16,
    /// DLPF: bit 1, there are only entries of the portal that was asked by.
    pub flags: u8,
    reserved_19: [u8; 1005],
}
const _: () = assert!(size_of::<DiscoveryHeader>() == 1024);

/// One entry of the log.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryEntry {
    /// TRTYPE: 3 is TCP.
    pub transport: u8,
    /// ADRFAM: 1 is IPv4, 2 is IPv6.
    pub address_family: u8,
    /// SUBTYPE: 1 referral, 2 NVM subsystem, 3 the discovery subsystem that answers.
    pub subsystem_type: u8,
    /// TREQ: bit 2, flow control may be disabled.
    pub requirements: u8,
    /// PORTID.
    pub port: U16,
    /// CNTLID to connect with.
    pub cntlid: U16,
    /// ASQSZ: entries of the admin queue at most.
    pub admin_entries: U16,
    /// EFLAGS.
    pub flags: U16,
    reserved_12: [u8; 20],
    /// TRSVCID: the port in decimal, space padded.
    pub service: [u8; 32],
    reserved_64: [u8; 192],
    /// SUBNQN, NUL padded.
    pub subnqn: [u8; 256],
    /// TRADDR, space padded.
    pub address: [u8; 256],
    /// TSAS: no security.
    pub transport_specific: [u8; 256],
}
const _: () = {
    assert!(size_of::<DiscoveryEntry>() == 1024);
    assert!(offset_of!(DiscoveryEntry, service) == 32);
    assert!(offset_of!(DiscoveryEntry, subnqn) == 256);
    assert!(offset_of!(DiscoveryEntry, address) == 512);
};

const TCP: u8 = 3;
const REFERRAL: u8 = 1;
const NVM_SUBSYSTEM: u8 = 2;
const CURRENT_DISCOVERY_SUBSYSTEM: u8 = 3;
const FLOW_CONTROL_MAY_BE_DISABLED: u8 = 1 << 2;
/// What Linux and SPDK take for an admin queue, and the least there may be.
const ADMIN_ENTRIES: u16 = 32;
/// EFLAGS of the discovery subsystem: every portal that says so tells the same (DUPRETINFO).
const SAME_EVERYWHERE: u16 = 1 << 0;
/// The same: a host may stay connected and be told of changes (EPCSD).
const PERSISTENT: u16 = 1 << 1;
/// What a host may ask for in LSP, what the header says was done in DLPF, and what the Supported
/// Log Pages page says is supported in LIDSP: only entries of the portal that is asked by (PLEO).
/// Extended entries (bit 0) there are none, and no host is told of what others may see (bit 2).
pub(crate) const PORT_LOCAL: u8 = 1 << 1;

/// Writes the log as `host` sees it, who asked for it with this LSP; how long all of it is.
pub(crate) fn write(page: &mut Window<'_>, view: &SubsystemView<'_>, host: &Nqn, lsp: u8) -> u64 {
    let local = lsp & PORT_LOCAL != 0;
    let here = || view.portals.iter().filter(|portal| !local || portal.id == view.port);
    let mut log = Log { page, records: 0 };
    let same = if view.directory.is_same_everywhere() { SAME_EVERYWHERE } else { 0 };
    for portal in here() {
        log.put(portal, CURRENT_DISCOVERY_SUBSYSTEM, view.nqn, PERSISTENT | same);
    }
    view.directory.entries(host, &mut |listed| match listed {
        Listed::Here(nqn) => here().for_each(|portal| log.put(portal, NVM_SUBSYSTEM, nqn, 0)),
        Listed::There(..) | Listed::Referral(_) if local => {}
        Listed::There(nqn, portal) => log.put(&portal, NVM_SUBSYSTEM, nqn, 0),
        Listed::Referral(portal) => {
            if let Some(nqn) = Nqn::parse(DISCOVERY_NQN) {
                log.put(&portal, REFERRAL, &nqn, 0);
            }
        }
    });
    let mut header = DiscoveryHeader::new_zeroed();
    header.generation = U64::new(view.directory.generation());
    header.records = U64::new(log.records);
    header.flags = lsp & PORT_LOCAL;
    let end = log.end();
    page.put(0, header.as_bytes());
    end
}

/// The entries written so far.
struct Log<'a, 'b> {
    page: &'a mut Window<'b>,
    records: u64,
}

impl Log<'_, '_> {
    /// Where the entries end so far.
    const fn end(&self) -> u64 {
        size_of::<DiscoveryHeader>() as u64 + self.records * size_of::<DiscoveryEntry>() as u64
    }

    /// Puts the next entry, if the window shows it.
    fn put(&mut self, portal: &Portal, kind: u8, nqn: &Nqn, flags: u16) {
        let at = self.end();
        self.records += 1;
        if self.page.shows(at, size_of::<DiscoveryEntry>()) {
            self.page.put(at, entry(portal, kind, nqn, flags).as_bytes());
        }
    }
}

fn entry(portal: &Portal, kind: u8, nqn: &Nqn, flags: u16) -> DiscoveryEntry {
    let ip = portal.address.ip();
    let mut entry = DiscoveryEntry::new_zeroed();
    entry.transport = TCP;
    entry.address_family = match ip {
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 2,
    };
    entry.subsystem_type = kind;
    // Of a service that is referred to nothing else is known.
    entry.requirements = if kind == REFERRAL { 0 } else { FLOW_CONTROL_MAY_BE_DISABLED };
    entry.port = U16::new(portal.id);
    entry.cntlid = U16::new(CNTLID_DYNAMIC);
    entry.admin_entries = U16::new(ADMIN_ENTRIES);
    entry.flags = U16::new(flags);
    entry.service = padded(portal.address.port());
    entry.address = padded(ip);
    entry.subnqn = nqn.to_field();
    entry
}

/// A text field with `value`, space padded.
fn padded<const N: usize>(value: impl fmt::Display) -> [u8; N] {
    let mut field = Field { bytes: [b' '; N], len: 0 };
    // An address of at most 45 characters and a port of 5 fit; what would not is cut.
    let _ = write!(field, "{value}");
    field.bytes
}

struct Field<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Write for Field<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(text.bytes()) {
            *to = from;
        }
        self.len += text.len();
        Ok(())
    }
}
