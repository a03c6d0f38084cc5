//! What a host can ask a controller to do.

use braid_block::Lease;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::command::{Command, Direction, admin, io};
use crate::lba_status::ALLOCATED;
use crate::target::reservation::ReservationCommand;

/// A command, and the buffer that goes with it.
#[derive(Debug)]
pub struct Submission {
    /// What is to be done.
    pub operation: Operation,
    /// To which namespace; ignored by [`Operation::Admin`], whose command says it.
    pub nsid: u32,
    /// The data: to be filled by reads, to be sent by writes. None if there is no data. It is the
    /// association's until the command's `Completed` hands it back.
    pub lease: Option<Lease>,
    /// Bytes of data, from the lease's beginning.
    pub len: u32,
    /// Comes back with the completion.
    pub cookie: u64,
    /// Which I/O queue to prefer; any number, taken modulo the number of queues. Use a constant
    /// one to keep commands together, a counter to spread them.
    pub queue: u16,
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// Read blocks.
    Read {
        /// First logical block.
        lba: u64,
        /// How many, 1 to 65536.
        blocks: u32,
    },
    /// Write blocks.
    Write {
        /// First logical block.
        lba: u64,
        /// How many, 1 to 65536.
        blocks: u32,
        /// Complete only when it is durable.
        durable: bool,
    },
    /// Make all writes that were completed before durable.
    Flush,
    /// Make blocks read as zeros.
    WriteZeroes {
        /// First logical block.
        lba: u64,
        /// How many, 1 to 65536.
        blocks: u32,
        /// The target may give the space back.
        deallocate: bool,
    },
    /// Give back the space of ranges; the lease holds so many [`DeallocateRange`]s.
    Deallocate {
        /// How many, 1 to 256.
        ranges: u16,
    },
    /// Register with the namespace, acquire or release a reservation of it, or ask who did; the
    /// lease holds [`Keys`](super::Keys), or gets the report.
    Reservation(ReservationCommand),
    /// Any admin command; its id and its SGL are filled in. See [`identify`], [`get_log_page`],
    /// [`get_features`] and [`set_features`].
    Admin(Command),
    /// Any I/O command that has no name here; its id and its SGL are filled in, its data goes the
    /// way that its opcode says.
    Vendor(Command),
}

/// One range of a Dataset Management command (NVM 3.2.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DeallocateRange {
    /// Context attributes: hints.
    pub attributes: U32,
    /// Logical blocks.
    pub blocks: U32,
    /// First logical block.
    pub lba: U64,
}
const _: () = assert!(size_of::<DeallocateRange>() == 16);

/// CDW12 bit 25 of Write Zeroes: deallocate if possible.
const DEAC: u32 = 1 << 25;
/// CDW12 bit 30: Force Unit Access.
const FUA: u32 = 1 << 30;
/// CDW11 bit 2 of Dataset Management: deallocate.
const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;

impl Operation {
    /// Whether it goes to the admin queue.
    #[must_use]
    pub const fn is_admin(&self) -> bool {
        matches!(self, Self::Admin(_))
    }

    /// The submission queue entry, but for its id and SGL.
    #[must_use]
    pub fn command(&self, nsid: u32) -> Command {
        match *self {
            Self::Read { lba, blocks } => blocks_command(io::READ, nsid, lba, blocks, 0),
            Self::Write { lba, blocks, durable } => {
                blocks_command(io::WRITE, nsid, lba, blocks, if durable { FUA } else { 0 })
            }
            Self::Flush => Command::new(io::FLUSH, nsid),
            Self::WriteZeroes { lba, blocks, deallocate } => {
                let flags = if deallocate { DEAC } else { 0 };
                blocks_command(io::WRITE_ZEROES, nsid, lba, blocks, flags)
            }
            Self::Deallocate { ranges } => {
                let mut command = Command::new(io::DATASET_MANAGEMENT, nsid);
                command.set_cdw(10, u32::from(ranges.wrapping_sub(1)) & 0xff);
                command.set_cdw(11, ATTRIBUTE_DEALLOCATE);
                command
            }
            Self::Reservation(command) => command.to_command(nsid),
            Self::Admin(command) | Self::Vendor(command) => command,
        }
    }
}

fn blocks_command(opcode: u8, nsid: u32, lba: u64, blocks: u32, flags: u32) -> Command {
    debug_assert!((1..=1 << 16).contains(&blocks), "a command takes 1 to 65536 blocks");
    let mut command = Command::new(opcode, nsid);
    let [a, b, c, d, e, f, g, h] = lba.to_le_bytes();
    command.set_cdw(10, u32::from_le_bytes([a, b, c, d]));
    command.set_cdw(11, u32::from_le_bytes([e, f, g, h]));
    command.set_cdw(12, blocks.wrapping_sub(1) & 0xffff | flags);
    command
}

/// Identify (Base 5.17): 4096 bytes of data.
#[must_use]
pub const fn identify(cns: u8, nsid: u32) -> Command {
    let mut command = Command::new(admin::IDENTIFY, nsid);
    command.set_cdw(10, cns as u32);
    command
}

/// Get Log Page (Base 5.16) of `len` bytes, a multiple of 4, from `offset`. With `retain` the
/// event that the page explains stays masked (RAE).
#[must_use]
pub const fn get_log_page(lid: u8, nsid: u32, offset: u64, len: u32, retain: bool) -> Command {
    let mut command = Command::new(admin::GET_LOG_PAGE, nsid);
    let dwords = (len / 4).wrapping_sub(1);
    command.set_cdw(10, lid as u32 | (retain as u32) << 15 | (dwords & 0xffff) << 16);
    command.set_cdw(11, dwords >> 16);
    command.cdw10[2] = low(offset);
    command.cdw10[3] = low(offset >> 32);
    command
}

/// Get LBA Status (NVM 4.2.1): which of the blocks from `lba` on are allocated, in `len` bytes of
/// data, a multiple of 4. `blocks` 0: all the rest. Asked only of a controller that says it knows
/// (OACS); [`read_allocations`](crate::lba_status::read_allocations) reads the answer.
#[must_use]
pub const fn get_lba_status(nsid: u32, lba: u64, blocks: u16, len: u32) -> Command {
    let mut command = Command::new(admin::GET_LBA_STATUS, nsid);
    command.cdw10[0] = low(lba);
    command.cdw10[1] = low(lba >> 32);
    command.set_cdw(12, (len / 4).wrapping_sub(1));
    command.set_cdw(13, (ALLOCATED as u32) << 24 | blocks as u32);
    command
}

/// Get Features (Base 5.15), the current value.
#[must_use]
pub const fn get_features(fid: u8, nsid: u32, cdw11: u32) -> Command {
    let mut command = Command::new(admin::GET_FEATURES, nsid);
    command.set_cdw(10, fid as u32);
    command.set_cdw(11, cdw11);
    command
}

/// Set Features (Base 5.27), not to be saved.
#[must_use]
pub const fn set_features(fid: u8, nsid: u32, cdw11: u32) -> Command {
    let mut command = Command::new(admin::SET_FEATURES, nsid);
    command.set_cdw(10, fid as u32);
    command.set_cdw(11, cdw11);
    command
}

/// The lower dword.
const fn low(value: u64) -> U32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    U32::from_bytes([a, b, c, d])
}

/// Which way a command's data goes when there is some.
pub(super) const fn direction(command: &Command, len: u32) -> Direction {
    if len == 0 { Direction::None } else { Direction::of(command) }
}
