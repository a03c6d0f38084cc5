//! I/O commands of the NVM command set, parsed into what cannot be wrong (NVM 3).

use braid_block::{Extent, Geometry};

use super::controller::{Controller, State};
use super::identify::{VERIFY_BYTES_MAX, WRITE_ZEROES_BYTES_MAX};
use super::reservation::{Access, ReservationCommand};
use super::transfer::{Transfer, check_sgl};
use crate::Status;
use crate::command::{Command, Direction, Fuse, io};

/// The opcodes there are, and whether they change what is in logical blocks.
pub(crate) const OPCODES: [(u8, bool); 11] = [
    (io::FLUSH, false),
    (io::WRITE, true),
    (io::READ, false),
    (io::COMPARE, false),
    (io::WRITE_ZEROES, true),
    (io::DATASET_MANAGEMENT, true),
    (io::VERIFY, false),
    (io::RESERVATION_REGISTER, false),
    (io::RESERVATION_REPORT, false),
    (io::RESERVATION_ACQUIRE, false),
    (io::RESERVATION_RELEASE, false),
];

/// Bytes of a range of Dataset Management.
const RANGE_BYTES: u32 = 16;
/// What Linux sends with it, however few ranges there are.
const RANGES_BYTES_MAX: u32 = 256 * RANGE_BYTES;

/// CDW11 of Dataset Management: Attribute Deallocate.
const AD: u32 = 1 << 2;
/// CDW12 of Write Zeroes: Deallocate.
const DEAC: u32 = 1 << 25;

/// What an I/O command asks for. Its extents are inside the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoCommand {
    /// Read.
    Read {
        /// What.
        extent: Extent,
        /// From the media: what a cache holds of it must be made durable first.
        fua: bool,
    },
    /// Write.
    Write {
        /// Where.
        extent: Extent,
        /// Durable before its completion.
        fua: bool,
    },
    /// Tell whether what is there is what the host sent.
    Compare {
        /// Where.
        extent: Extent,
        /// With the media: what a cache holds of it must be made durable first.
        fua: bool,
    },
    /// Tell whether it can be read.
    Verify {
        /// What.
        extent: Extent,
        /// From the media.
        fua: bool,
    },
    /// Make every write that was completed before durable.
    Flush,
    /// Make a range read as zeros.
    WriteZeroes {
        /// Where.
        extent: Extent,
        /// Durable before its completion.
        fua: bool,
        /// Its space may be given back.
        deallocate: bool,
    },
    /// Hints about ranges, which [`Ranges::parse`] finds in the data.
    DatasetManagement {
        /// Number of ranges, 1 to 256.
        ranges: u16,
        /// Whether the hint is that they are not needed any more; the other hints have no effect.
        deallocate: bool,
    },
    /// About the namespace's reservations.
    Reservation(ReservationCommand),
}

impl IoCommand {
    /// Parses a command for a namespace of this size; none if there is no such namespace.
    ///
    /// # Errors
    /// The status to complete the command with, without moving any data.
    pub fn parse(
        command: &Command,
        namespace: Option<Geometry>,
    ) -> Result<(Self, Transfer), Status> {
        if !OPCODES.iter().any(|(opcode, _)| *opcode == command.opcode) {
            return Err(Status::INVALID_OPCODE.dnr());
        }
        check_sgl(command)?;
        check_fuse(command)?;
        let geometry = namespace.ok_or(Status::INVALID_NAMESPACE.dnr())?;
        let parsed = match command.opcode {
            io::READ => Self::Read { extent: extent(command, geometry)?, fua: fua(command) },
            io::WRITE => Self::Write { extent: extent(command, geometry)?, fua: fua(command) },
            io::COMPARE => Self::Compare { extent: extent(command, geometry)?, fua: fua(command) },
            io::VERIFY => verify(command, geometry)?,
            io::WRITE_ZEROES => write_zeroes(command, geometry)?,
            io::DATASET_MANAGEMENT => Self::DatasetManagement {
                ranges: u16::from(command.cdw(10).to_le_bytes()[0]) + 1,
                deallocate: command.cdw(11) & AD != 0,
            },
            io::FLUSH => Self::Flush,
            _ => Self::Reservation(ReservationCommand::parse(command)?),
        };
        Ok((parsed, parsed.transfer(command)?))
    }

    /// Whether it changes what is in logical blocks.
    #[must_use]
    pub const fn changes_blocks(&self) -> bool {
        match self {
            Self::Write { .. } | Self::WriteZeroes { .. } | Self::DatasetManagement { .. } => true,
            Self::Read { .. }
            | Self::Compare { .. }
            | Self::Verify { .. }
            | Self::Flush
            | Self::Reservation(_) => false,
        }
    }

    /// What it does to the namespace, as far as reservations are concerned (Base 8.19.5).
    #[must_use]
    pub const fn access(&self) -> Access {
        match self {
            Self::Read { .. } | Self::Compare { .. } | Self::Verify { .. } => Access::Read,
            Self::Write { .. }
            | Self::Flush
            | Self::WriteZeroes { .. }
            | Self::DatasetManagement { .. } => Access::Write,
            Self::Reservation(_) => Access::Free,
        }
    }

    fn transfer(&self, command: &Command) -> Result<Transfer, Status> {
        let direction = Direction::of(command);
        match *self {
            Self::Read { extent, .. }
            | Self::Write { extent, .. }
            | Self::Compare { extent, .. } => {
                let len = u32::try_from(extent.len).map_err(|_| Status::INVALID_FIELD.dnr())?;
                Transfer::new(command, direction, len)
            }
            Self::DatasetManagement { ranges, .. } => {
                let needed = u32::from(ranges) * RANGE_BYTES;
                let sent = command.sgl.length.get().min(RANGES_BYTES_MAX);
                Transfer::new(command, direction, needed.max(sent))
            }
            Self::Flush | Self::WriteZeroes { .. } | Self::Verify { .. } => Ok(Transfer::None),
            Self::Reservation(reservation) => reservation.transfer(command),
        }
    }

    /// The same, durable before its completion: without a volatile write cache every write is.
    const fn written_through(mut self) -> Self {
        if let Self::Write { fua, .. } | Self::WriteZeroes { fua, .. } = &mut self {
            *fua = true;
        }
        self
    }
}

const fn fua(command: &Command) -> bool {
    command.force_unit_access()
}

/// SLBA and NLB as bytes.
fn extent(command: &Command, geometry: Geometry) -> Result<Extent, Status> {
    geometry
        .extent(command.slba(), u64::from(command.block_count()))
        .ok_or(Status::LBA_OUT_OF_RANGE.dnr())
}

/// The one fused operation that there is: a Compare, and a Write if that found what it should.
const fn check_fuse(command: &Command) -> Result<(), Status> {
    match (command.fuse(), command.opcode) {
        (Some(Fuse::Alone), _)
        | (Some(Fuse::First), io::COMPARE)
        | (Some(Fuse::Second), io::WRITE) => Ok(()),
        _ => Err(Status::INVALID_FIELD.dnr()),
    }
}

fn verify(command: &Command, geometry: Geometry) -> Result<IoCommand, Status> {
    let extent = extent(command, geometry)?;
    if extent.len > VERIFY_BYTES_MAX {
        return Err(Status::INVALID_FIELD.dnr());
    }
    Ok(IoCommand::Verify { extent, fua: fua(command) })
}

fn write_zeroes(command: &Command, geometry: Geometry) -> Result<IoCommand, Status> {
    let extent = extent(command, geometry)?;
    if extent.len > WRITE_ZEROES_BYTES_MAX {
        return Err(Status::INVALID_FIELD.dnr());
    }
    let deallocate = command.cdw(12) & DEAC != 0;
    Ok(IoCommand::WriteZeroes { extent, fua: fua(command), deallocate })
}

impl Controller {
    /// Whether I/O commands are carried out now.
    ///
    /// # Errors
    /// The status to complete one with.
    pub fn takes_io(&self) -> Result<(), Status> {
        // Without DNR: another controller may well do it.
        if self.state() == State::Ready { Ok(()) } else { Err(Status::SEQUENCE_ERROR) }
    }

    /// Parses a command that came on one of the controller's I/O queues.
    ///
    /// # Errors
    /// The status to complete the command with, without moving any data.
    pub fn io(
        &self,
        command: &Command,
        namespace: Option<Geometry>,
    ) -> Result<(IoCommand, Transfer), Status> {
        self.takes_io()?;
        let (parsed, transfer) = IoCommand::parse(command, namespace)?;
        let cached = self.features.write_cache();
        Ok((if cached { parsed } else { parsed.written_through() }, transfer))
    }
}

/// The ranges of a Dataset Management command, all of them inside the namespace.
#[derive(Clone, Copy, Debug)]
pub struct Ranges<'a> {
    data: &'a [u8],
    geometry: Geometry,
}

impl<'a> Ranges<'a> {
    /// Parses the first `count` ranges of a command's data. All or none: a command with a wrong
    /// range changes nothing.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub fn parse(data: &'a [u8], count: u16, geometry: Geometry) -> Result<Self, Status> {
        let len = usize::from(count) * RANGE_BYTES as usize;
        let data = data.get(..len).ok_or(Status::SGL_LENGTH_INVALID.dnr())?;
        let ranges = Self { data, geometry };
        if ranges.extents().any(|extent| extent.is_none()) {
            return Err(Status::LBA_OUT_OF_RANGE.dnr());
        }
        Ok(ranges)
    }

    /// Range `n` of those that [`Ranges::parse`] found to be right, without looking at the others.
    /// It may be empty.
    #[must_use]
    pub fn nth(data: &[u8], n: u16, geometry: Geometry) -> Option<Extent> {
        let at = usize::from(n) * RANGE_BYTES as usize;
        let data = data.get(at..)?.get(..RANGE_BYTES as usize)?;
        Ranges { data, geometry }.extents().next().flatten()
    }

    /// The ranges that are not empty, in the host's order. They may overlap.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        self.extents().flatten().filter(|extent| extent.len != 0)
    }

    /// Attributes 3:0, length in blocks 7:4, first block 15:8.
    fn extents(&self) -> impl Iterator<Item = Option<Extent>> {
        let geometry = self.geometry;
        let (ranges, _) = self.data.as_chunks::<{ RANGE_BYTES as usize }>();
        ranges.iter().map(move |&[_, _, _, _, l0, l1, l2, l3, first @ ..]| {
            match u64::from(u32::from_le_bytes([l0, l1, l2, l3])) {
                // Names no block, wherever it says it begins.
                0 => Some(Extent { offset: 0, len: 0 }),
                blocks => geometry.extent(u64::from_le_bytes(first), blocks),
            }
        })
    }
}
