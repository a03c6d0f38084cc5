//! The ANA log page (Base 5.16.1.13), and whether a controller may do I/O.
//!
//! Invariants:
//! 1. I/O is done only in a group whose state allows it, whatever else the command may be.
//! 2. Where a subsystem counts epochs, I/O is done only for a host that is known to have seen
//!    this one: it connected in it while all was optimized, or read in it a log that says so.

use zerocopy::IntoBytes;

use super::controller::Controller;
use super::view::{NSID_MAX, SubsystemView};
use super::window::Window;
use crate::Status;
use crate::ana::{ANA_GROUPS_MAX, AnaDescriptor, AnaHeader, AnaState};

const HEADER_BYTES: u64 = size_of::<AnaHeader>() as u64;
const DESCRIPTOR_BYTES: u64 = size_of::<AnaDescriptor>() as u64;

/// Bytes of the longest log there can be.
pub(crate) const LOG_BYTES_MAX: u64 =
    HEADER_BYTES + DESCRIPTOR_BYTES * ANA_GROUPS_MAX as u64 + 4 * NSID_MAX as u64;
// Hosts ask for all of it at once, and under any load there is a buffer of this size for them.
const _: () = assert!(LOG_BYTES_MAX <= 16 << 10);

/// A group, as one controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnaGroup {
    /// ANAGRPID, 1 to [`ANA_GROUPS_MAX`].
    pub id: u32,
    /// How its namespaces are reached.
    pub state: AnaState,
    /// CHGCNT: how often that, or which namespaces are in it, changed. From 1.
    pub changes: u64,
}

/// Writes the log; `groups_only` leaves the namespaces out.
pub(crate) fn write(page: &mut Window<'_>, view: &SubsystemView<'_>, groups_only: bool) {
    let count = u16::try_from(view.groups.len()).unwrap_or(u16::MAX);
    let changes = view.groups.iter().fold(0, |sum: u64, group| sum.wrapping_add(group.changes));
    page.put(0, AnaHeader::new(changes, count).as_bytes());
    let mut at = HEADER_BYTES;
    for group in view.groups {
        let of_it = || view.namespaces.iter().filter(|n| n.group == group.id);
        let listed = if groups_only { 0 } else { u32::try_from(of_it().count()).unwrap_or(0) };
        let head = AnaDescriptor::new(group.id, listed, group.changes, group.state);
        page.put(at, head.as_bytes());
        at += DESCRIPTOR_BYTES;
        for namespace in of_it().take(listed as usize) {
            page.put(at, &namespace.nsid.to_le_bytes());
            at += 4;
        }
    }
}

/// Bytes of the log that [`write`] makes.
fn len(view: &SubsystemView<'_>, groups_only: bool) -> u64 {
    let ids = if groups_only { 0 } else { view.namespaces.len() as u64 };
    HEADER_BYTES + DESCRIPTOR_BYTES * view.groups.len() as u64 + 4 * ids
}

impl Controller {
    /// The host read its ANA log: if it saw all of it, and that all of it is optimized, it is
    /// known to be there in this epoch.
    pub(crate) fn ana_read(&mut self, view: &SubsystemView<'_>, page: &Window<'_>, only: bool) {
        let whole = page.shows_all(0, len(view, only));
        if whole && view.groups.iter().all(|group| group.state == AnaState::Optimized) {
            self.saw_epoch(view.epoch);
        }
    }

    /// Its host is known to be there in this epoch.
    pub const fn saw_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Whether I/O may be done for its host now, in a group of this state and in this epoch of
    /// the subsystem; zero: it counts none.
    ///
    /// # Errors
    /// The status to complete the command with: another path may do, or this one later.
    pub const fn may_access(&self, state: AnaState, epoch: u64) -> Result<(), Status> {
        match state.refusal() {
            Some(status) => Err(status),
            None if epoch != 0 && self.epoch != epoch => Err(Status::ANA_INACCESSIBLE),
            None => Ok(()),
        }
    }
}
