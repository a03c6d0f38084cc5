//! Get Log Page (Base 5.16): every page is written through a window, so that any offset and
//! length shows the same bytes.

use core::mem::offset_of;

use arrayvec::ArrayVec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::admin;
use super::ana;
use super::controller::{Controller, Kind};
use super::discovery;
use super::errors;
use super::event::Notice;
use super::identify::ascii;
use super::io;
use super::view::SubsystemView;
use super::window::Window;
use crate::Status;
use crate::ana::{ANA_GROUPS_ONLY, ANA_LOG};
use crate::command::Command;
use crate::connect::halves;

/// Supported Log Pages.
pub(crate) const SUPPORTED: u8 = 0x00;
/// Error Information.
pub(crate) const ERRORS: u8 = 0x01;
/// SMART / Health Information.
pub(crate) const SMART: u8 = 0x02;
/// Firmware Slot Information.
pub(crate) const FIRMWARE: u8 = 0x03;
/// Changed Namespace List.
pub(crate) const CHANGED_NAMESPACES: u8 = 0x04;
/// Commands Supported and Effects.
pub(crate) const EFFECTS: u8 = 0x05;
/// Discovery.
pub(crate) const DISCOVERY: u8 = 0x70;
/// Reservation Notification.
pub(crate) const RESERVATIONS: u8 = 0x80;

/// The pages of a controller, with their lengths in bytes. The discovery log is as long as it is
/// read: its own header says how much of it counts.
const fn pages(kind: Kind) -> &'static [(u8, u64)] {
    match kind {
        Kind::Io => &[
            (SUPPORTED, 1024),
            (ERRORS, errors::LOG_BYTES),
            (SMART, 512),
            (FIRMWARE, 512),
            (CHANGED_NAMESPACES, 4096),
            (EFFECTS, 4096),
            (ANA_LOG, ana::LOG_BYTES_MAX),
            (RESERVATIONS, 64),
        ],
        Kind::Discovery => &[(SUPPORTED, 1024), (ERRORS, 64), (DISCOVERY, u64::MAX)],
    }
}

/// CDW10 of Get Log Page: Retain Asynchronous Event.
const RAE: u32 = 1 << 15;
/// The bits of its second byte that are Log Specific Parameter.
const LSP: u8 = 0x7f;

/// A Get Log Page command, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    lid: u8,
    retain_event: bool,
    offset: u64,
    len: u32,
}

impl Request {
    fn parse(kind: Kind, command: &Command) -> Result<Self, Status> {
        let [lid, ..] = command.cdw(10).to_le_bytes();
        let size = pages(kind).iter().find(|page| page.0 == lid).map(|page| page.1);
        let size = size.ok_or(Status::INVALID_LOG_PAGE.dnr())?;
        let dwords = halves(command.cdw(10)).1 as u32 | (command.cdw(11) & 0xffff) << 16;
        let len = dwords.checked_add(1).and_then(|dwords| dwords.checked_mul(4));
        let offset = u64::from(command.cdw(12)) | u64::from(command.cdw(13)) << 32;
        // No other page is about one namespace.
        let whole = lid == SMART || is_whole(command);
        match len {
            Some(len) if whole && offset.is_multiple_of(4) && offset <= size => {
                Ok(Self { lid, retain_event: command.cdw(10) & RAE != 0, offset, len })
            }
            _ => Err(Status::INVALID_FIELD.dnr()),
        }
    }
}

/// Whether a command is about all of the subsystem.
const fn is_whole(command: &Command) -> bool {
    matches!(command.nsid.get(), 0 | u32::MAX)
}

/// Bytes that a Get Log Page command moves.
pub(crate) fn data_len(kind: Kind, command: &Command) -> Result<u32, Status> {
    Ok(Request::parse(kind, command)?.len)
}

/// Get Log Page: writes what the host asked for into `out`.
pub(crate) fn get(
    controller: &mut Controller,
    view: &SubsystemView<'_>,
    command: &Command,
    out: &mut [u8],
) -> Result<(), Status> {
    let request = Request::parse(controller.kind, command)?;
    if !is_whole(command) && !view.namespaces.iter().any(|n| n.nsid == command.nsid.get()) {
        return Err(Status::INVALID_NAMESPACE.dnr());
    }
    let mut page = Window::new(request.offset, out);
    let mut read_to_end = false;
    match request.lid {
        SUPPORTED => supported(&mut page, controller.kind),
        ERRORS => controller.errors.write(&mut page),
        SMART => page.put(0, Smart::new(view, controller.errors.count()).as_bytes()),
        FIRMWARE => {
            page.put(0, &[1]);
            page.put(8, &ascii::<8>(view.firmware));
        }
        CHANGED_NAMESPACES => controller.changed.write(&mut page),
        EFFECTS => effects(&mut page),
        ANA_LOG => {
            let groups_only = command.cdw(10).to_le_bytes()[1] & ANA_GROUPS_ONLY != 0;
            ana::write(&mut page, view, groups_only);
            controller.ana_read(view, &page, groups_only);
        }
        RESERVATIONS => controller.notifications.write(&mut page),
        DISCOVERY => {
            let [_, lsp, ..] = command.cdw(10).to_le_bytes();
            let end = discovery::write(&mut page, view, &controller.hostnqn, lsp & LSP);
            let until = request.offset.saturating_add(u64::from(request.len));
            read_to_end = request.offset > 0 && until >= end;
        }
        _ => {}
    }
    if !request.retain_event {
        if request.lid == CHANGED_NAMESPACES {
            controller.changed = ChangedNamespaces::default();
        }
        if let Some(notice) = Notice::of_log(request.lid) {
            controller.events.rearm(notice);
        }
        if request.lid == RESERVATIONS {
            controller.notification_read();
        }
    } else if read_to_end {
        // libnvme up to 1.3 retains the event for ever when it takes a log in several parts.
        controller.events.rearm(Notice::DiscoveryLog);
    }
    Ok(())
}

/// Bit 0 of each page's dword: it is supported; the upper half is the page's own (Base 5.16.1.1).
fn supported(page: &mut Window<'_>, kind: Kind) {
    for (lid, _) in pages(kind) {
        let own = if *lid == DISCOVERY { discovery::PORT_LOCAL } else { 0 };
        page.put(u64::from(*lid) * 4, &[1, 0, own]);
    }
}

/// A command is supported; it changes logical blocks (Base 5.16.1.6).
const CSUPP: u8 = 1 << 0;
const LBCC: u8 = 1 << 1;

/// 256 dwords for admin commands, 256 for I/O commands.
fn effects(page: &mut Window<'_>) {
    for opcode in admin::opcodes(Kind::Io) {
        page.put(u64::from(*opcode) * 4, &[CSUPP]);
    }
    for (opcode, writes) in io::OPCODES {
        page.put(1024 + u64::from(opcode) * 4, &[if writes { CSUPP | LBCC } else { CSUPP }]);
    }
}

/// SMART / Health Information (Base 5.16.1.3). Counters are 128 bits, of which we use the lower
/// half.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Smart {
    /// Critical Warning.
    pub critical_warning: u8,
    /// Composite Temperature in kelvin; zero: there is no thermometer.
    pub temperature: U16,
    /// Available Spare, percent.
    pub available_spare: u8,
    /// Available Spare Threshold, percent.
    pub spare_threshold: u8,
    /// Percentage Used.
    pub percentage_used: u8,
    reserved_6: [u8; 26],
    /// Data Units Read: thousands of 512 bytes, rounded up.
    pub units_read: [U64; 2],
    /// Data Units Written.
    pub units_written: [U64; 2],
    /// Host Read Commands.
    pub read_commands: [U64; 2],
    /// Host Write Commands.
    pub write_commands: [U64; 2],
    /// Controller Busy Time in minutes.
    pub busy_minutes: [U64; 2],
    /// Power Cycles.
    pub power_cycles: [U64; 2],
    /// Power On Hours.
    pub power_on_hours: [U64; 2],
    /// Unsafe Shutdowns.
    pub unsafe_shutdowns: [U64; 2],
    /// Media and Data Integrity Errors.
    pub media_errors: [U64; 2],
    /// Number of Error Information Log Entries.
    pub error_entries: [U64; 2],
    /// Warning and Critical Composite Temperature Time in minutes.
    pub hot_minutes: [U32; 2],
    /// Temperature Sensors 1 to 8.
    pub sensors: [U16; 8],
    reserved_216: [u8; 296],
}
const _: () = {
    assert!(size_of::<Smart>() == 512);
    assert!(offset_of!(Smart, units_read) == 32);
    assert!(offset_of!(Smart, power_on_hours) == 128);
    assert!(offset_of!(Smart, media_errors) == 160);
    assert!(offset_of!(Smart, hot_minutes) == 192);
    assert!(offset_of!(Smart, sensors) == 200);
};

impl Smart {
    fn new(view: &SubsystemView<'_>, errors: u64) -> Self {
        let wide = |value| [U64::new(value), U64::ZERO];
        let counters = &view.counters;
        let mut smart = Self::new_zeroed();
        smart.available_spare = 100;
        smart.units_read = wide(counters.read_bytes.div_ceil(512_000));
        smart.units_written = wide(counters.written_bytes.div_ceil(512_000));
        smart.read_commands = wide(counters.read_commands);
        smart.write_commands = wide(counters.write_commands);
        smart.power_on_hours = wide(view.uptime.as_secs() / 3600);
        smart.media_errors = wide(counters.media_errors);
        smart.error_entries = wide(errors);
        smart.critical_warning = u8::from(counters.degraded) << 2;
        smart
    }
}

/// Namespaces that changed since the host last looked, ascending (Base 5.16.1.5).
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangedNamespaces {
    ids: ArrayVec<u32, CHANGES_MAX>,
    overflow: bool,
}

/// Changes remembered one by one. With more, the host is told to look at every namespace.
const CHANGES_MAX: usize = 32;

impl ChangedNamespaces {
    pub(crate) fn add(&mut self, nsid: u32) {
        if let Err(at) = self.ids.binary_search(&nsid) {
            self.overflow |= self.ids.try_insert(at, nsid).is_err();
        }
    }

    fn write(&self, page: &mut Window<'_>) {
        if self.overflow {
            return page.put(0, &u32::MAX.to_le_bytes());
        }
        for (at, nsid) in (0..).step_by(4).zip(&self.ids) {
            page.put(at, &nsid.to_le_bytes());
        }
    }
}
