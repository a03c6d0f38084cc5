//! The error log page (Base 5.16.1.2): what went wrong that is not the host's own doing.
//!
//! Invariants:
//! 1. A completion has the More bit if, and only if, there is an entry about it, until newer ones
//!    take its place.
//! 2. The newest entry comes first, and no number is used twice.

use core::mem::offset_of;

use arrayvec::ArrayVec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::controller::Controller;
use super::window::Window;
use crate::Status;

/// Entries that are kept (ELPE + 1).
pub const ERRORS_MAX: usize = 16;

/// TRTYPE of an entry: TCP.
const TCP: u8 = 3;
/// Parameter Error Location: no byte of the command is at fault.
const NO_LOCATION: u16 = 0xffff;

/// One entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ErrorEntry {
    /// Error Count: its number, from 1.
    number: U64,
    /// SQID.
    queue: U16,
    /// CID.
    cid: U16,
    /// Status Field, phase in its lowest bit.
    status: U16,
    /// Parameter Error Location.
    location: U16,
    /// LBA.
    lba: U64,
    /// NSID.
    nsid: U32,
    /// Vendor Specific Information Available: none.
    vendor: u8,
    /// TRTYPE.
    transport: u8,
    reserved_30: [u8; 34],
}
const _: () = {
    assert!(size_of::<ErrorEntry>() == 64);
    assert!(offset_of!(ErrorEntry, status) == 12);
    assert!(offset_of!(ErrorEntry, lba) == 16);
    assert!(offset_of!(ErrorEntry, nsid) == 24);
    assert!(offset_of!(ErrorEntry, transport) == 29);
};

/// Bytes of the page.
pub(crate) const LOG_BYTES: u64 = (ERRORS_MAX * size_of::<ErrorEntry>()) as u64;

/// A command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedCommand {
    /// Its queue.
    pub queue: u16,
    /// Its command id.
    pub cid: u16,
    /// The namespace it was about.
    pub nsid: u32,
    /// The first block it was about.
    pub lba: u64,
}

/// What went wrong, newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    entries: ArrayVec<ErrorEntry, ERRORS_MAX>,
    count: u64,
}

impl Errors {
    /// Writes the page, newest first.
    pub(crate) fn write(&self, page: &mut Window<'_>) {
        for (at, entry) in (0..).step_by(size_of::<ErrorEntry>()).zip(self.entries.iter().rev()) {
            page.put(at, entry.as_bytes());
        }
    }

    /// How many there were since the controller is there.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }
}

impl Controller {
    /// Keeps an entry about a command that failed, if that needs to be looked into: a device lost
    /// data or refused it, or something here is wrong. Returns the status to answer with.
    pub fn keep_error(&mut self, failed: &FailedCommand, status: Status) -> Status {
        let device = status.code_type() == 2 && !status.is(Status::COMPARE_FAILURE);
        let here = status.is(Status::INTERNAL_ERROR) || status.is(Status::CAPACITY_EXCEEDED);
        if !device && !here {
            return status;
        }
        let status = status.more();
        let errors = &mut self.errors;
        errors.count += 1;
        let mut entry = ErrorEntry::new_zeroed();
        entry.number = U64::new(errors.count);
        entry.queue = U16::new(failed.queue);
        entry.cid = U16::new(failed.cid);
        entry.status = U16::new(status.to_wire());
        entry.location = U16::new(NO_LOCATION);
        entry.lba = U64::new(failed.lba);
        entry.nsid = U32::new(failed.nsid);
        entry.transport = TCP;
        if errors.entries.is_full() {
            errors.entries.remove(0);
        }
        errors.entries.push(entry);
        status
    }
}
