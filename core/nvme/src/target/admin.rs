//! Admin commands: from a submission queue entry to what its connection has to do (Base 5, 6).
//!
//! A connection first asks [`Controller::transfer`] what data the command moves, gets a buffer
//! and the data, and then has the command carried out by [`Controller::admin`].

use braid_block::Extent;

use super::controller::{Controller, Kind};
use super::identify::{IDENTIFY_BYTES, identify};
use super::transfer::{Transfer, check_flags};
use super::view::SubsystemView;
use super::{feature, lba_status, log};
use crate::Status;
use crate::command::{Command, Direction, admin, fabrics};
use crate::connect::halves;

/// Abort commands of a controller that may wait at once (ACL + 1).
pub const ABORTS_MAX: usize = 4;

/// What to do about an admin command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admin {
    /// Complete it.
    Done {
        /// The status.
        status: Status,
        /// DW0 and DW1.
        result: u64,
    },
    /// Send the first bytes of the buffer, then complete it with success and a result of zero.
    Data {
        /// How many.
        len: u32,
    },
    /// Look up which parts of this range of a namespace are allocated, fill so many bytes of the
    /// buffer by [`write_allocations`](super::write_allocations), send them and complete it with
    /// success.
    Allocations {
        /// Which namespace.
        nsid: u32,
        /// What of it.
        extent: Extent,
        /// Bytes to fill and send.
        len: u32,
    },
    /// Read or change a feature of a namespace, and complete it with the value.
    Feature {
        /// Of which; of a change FFFFFFFFh for all.
        nsid: u32,
        /// Which.
        feature: NamespaceFeature,
        /// The value to set.
        value: Option<u32>,
    },
    /// Nothing now: an Asynchronous Event Request that [`Controller::next_event`] or
    /// [`Controller::take_event_requests`] will give back.
    Held,
    /// Abort a command, then complete this one: with DW0 0 if it was aborted, 1 if it was not.
    Abort {
        /// Of which queue.
        sqid: u16,
        /// Its command id.
        cid: u16,
        /// It was an event request that the controller held and does not hold any more: complete
        /// that one with Command Abort Requested, and this one with DW0 0.
        held: bool,
    },
    /// Flush every namespace, then complete it: with success only if all of that was done, for the
    /// host will flush no more.
    Flush,
    /// Complete it with success and close every I/O queue; when their I/O is done,
    /// [`Controller::reset_done`].
    Reset,
    /// Complete it with success, close every I/O queue and flush; when that is done,
    /// [`Controller::shutdown_done`].
    Shutdown,
}

/// The features that each namespace has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceFeature {
    /// Reservation Notification Mask.
    ReservationMask,
    /// Reservation Persistence.
    ReservationPersistence,
}

impl Admin {
    /// Success with a result.
    pub(crate) const fn done(result: u64) -> Self {
        Self::Done { status: Status::SUCCESS, result }
    }
}

/// The opcodes that a controller answers with more than Invalid Command Opcode.
pub(crate) const fn opcodes(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Io => &[
            admin::FABRICS,
            admin::GET_LOG_PAGE,
            admin::IDENTIFY,
            admin::ABORT,
            admin::SET_FEATURES,
            admin::GET_FEATURES,
            admin::ASYNC_EVENT_REQUEST,
            admin::KEEP_ALIVE,
            admin::GET_LBA_STATUS,
        ],
        Kind::Discovery => &[
            admin::FABRICS,
            admin::GET_LOG_PAGE,
            admin::IDENTIFY,
            admin::SET_FEATURES,
            admin::GET_FEATURES,
            admin::ASYNC_EVENT_REQUEST,
            admin::KEEP_ALIVE,
        ],
    }
}

impl Controller {
    /// The data that an admin command moves.
    ///
    /// # Errors
    /// The status to complete the command with, without moving any.
    pub fn transfer(&self, command: &Command) -> Result<Transfer, Status> {
        if command.opcode == admin::FABRICS {
            return match command.fabrics_type() {
                fabrics::PROPERTY_GET | fabrics::PROPERTY_SET => Ok(Transfer::None),
                // A queue is connected once (Base 6.3).
                fabrics::CONNECT => Err(Status::SEQUENCE_ERROR.dnr()),
                // OFCS tells that there is no Disconnect; closing the connection does the same.
                _ => Err(Status::INVALID_OPCODE.dnr()),
            };
        }
        if !self.takes_commands() {
            return Err(Status::SEQUENCE_ERROR.dnr());
        }
        if !opcodes(self.kind).contains(&command.opcode) {
            return Err(Status::INVALID_OPCODE.dnr());
        }
        check_flags(command)?;
        let len = match command.opcode {
            admin::IDENTIFY => IDENTIFY_BYTES,
            admin::GET_LBA_STATUS => lba_status::data_len(command)?,
            admin::GET_LOG_PAGE => log::data_len(self.kind, command)?,
            admin::SET_FEATURES | admin::GET_FEATURES => feature::data_len(self.kind, command)?,
            _ => 0,
        };
        if len == 0 {
            return Ok(Transfer::None);
        }
        Transfer::new(command, Direction::of(command), len)
    }

    /// Carries an admin command out. `data` is what the host sent with it; `out` is as long as
    /// [`Controller::transfer`] said for a transfer to the host, else it may be empty.
    pub fn admin(
        &mut self,
        view: &SubsystemView<'_>,
        command: &Command,
        data: &[u8],
        out: &mut [u8],
    ) -> Admin {
        self.carry_out(view, command, data, out)
            .unwrap_or_else(|status| Admin::Done { status, result: 0 })
    }

    fn carry_out(
        &mut self,
        view: &SubsystemView<'_>,
        command: &Command,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<Admin, Status> {
        // Again, for a reset may have come while the data did.
        let transfer = self.transfer(command)?;
        let len = transfer.len();
        let out = match transfer {
            Transfer::ToHost(_) => out.get_mut(..len as usize).ok_or(Status::INTERNAL_ERROR)?,
            _ => &mut [],
        };
        match command.opcode {
            admin::FABRICS => self.property(command),
            admin::IDENTIFY => identify(self, view, command, out).map(|()| Admin::Data { len }),
            admin::GET_LOG_PAGE => log::get(self, view, command, out).map(|()| Admin::Data { len }),
            admin::GET_LBA_STATUS => lba_status::get(view, command, out),
            admin::SET_FEATURES => feature::set(self, command, data),
            admin::GET_FEATURES => feature::get(self, command, out),
            admin::ABORT => Ok(self.abort(command)),
            admin::ASYNC_EVENT_REQUEST => self.events.hold(command.cid.get()).map(|()| Admin::Held),
            admin::KEEP_ALIVE => Ok(Admin::done(0)),
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// Abort (Base 5.1): CDW10 names a queue and a command of it.
    fn abort(&mut self, command: &Command) -> Admin {
        let (sqid, cid) = halves(command.cdw(10));
        Admin::Abort { sqid, cid, held: sqid == 0 && self.events.abort(cid) }
    }
}
