//! Get LBA Status (NVM 4.2.1): which blocks of a namespace are allocated, and that we know of
//! none that cannot be read.

use braid_block::Extent;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::admin::Admin;
use super::view::SubsystemView;
use crate::Status;
use crate::command::Command;
use crate::lba_status::{
    ALLOCATED, COMPLETE, INCOMPLETE, LbaStatusDescriptor, LbaStatusHeader, SCAN, STATUS_ALLOCATED,
    TRACKED, UNTOLD,
};

/// Bytes that the command moves: MNDW dwords, 0-based.
pub(crate) fn data_len(command: &Command) -> Result<u32, Status> {
    let len = command.cdw(12).checked_add(1).and_then(|dwords| dwords.checked_mul(4));
    len.filter(|len| *len as usize >= size_of::<LbaStatusHeader>())
        .ok_or(Status::INVALID_FIELD.dnr())
}

/// Answers the command, or says what is to be looked up in the namespace.
pub(crate) fn get(
    view: &SubsystemView<'_>,
    command: &Command,
    out: &mut [u8],
) -> Result<Admin, Status> {
    let nsid = command.nsid.get();
    let namespace = view.namespace(nsid).ok_or(Status::INVALID_NAMESPACE.dnr())?;
    let [length_low, length_high, _, action] = command.cdw(13).to_le_bytes();
    let geometry = namespace.geometry;
    // A length of zero means all the rest.
    let length = match u16::from_le_bytes([length_low, length_high]) {
        0 => geometry.blocks.saturating_sub(command.slba()),
        blocks => u64::from(blocks),
    };
    let extent = geometry.extent(command.slba(), length).filter(|extent| extent.len > 0);
    let extent = extent.ok_or(Status::LBA_OUT_OF_RANGE.dnr())?;
    let len = u32::try_from(out.len()).map_err(|_| Status::INTERNAL_ERROR)?;
    let condition = match action {
        ALLOCATED => return Ok(Admin::Allocations { nsid, extent, len }),
        // Blocks are not scanned for the sake of a list.
        SCAN => UNTOLD,
        TRACKED => COMPLETE,
        _ => return Err(Status::INVALID_FIELD.dnr()),
    };
    List::new(out, 1).end(condition);
    Ok(Admin::Data { len })
}

/// Writes which blocks are allocated, from ascending ranges that hold such, as the answer to
/// [`Admin::Allocations`]; `all`: they cover everything that was asked for.
pub fn write_allocations(
    out: &mut [u8],
    block_bytes: u32,
    mut allocated: impl Iterator<Item = Extent>,
    all: bool,
) {
    let mut list = List::new(out, block_bytes);
    let fit = allocated.all(|extent| list.put(extent));
    list.end(if fit && all { COMPLETE } else { INCOMPLETE });
}

/// A list that is being written.
struct List<'a> {
    out: &'a mut [u8],
    block_bytes: u64,
    descriptors: u32,
}

impl<'a> List<'a> {
    fn new(out: &'a mut [u8], block_bytes: u32) -> Self {
        out.fill(0);
        Self { out, block_bytes: u64::from(block_bytes), descriptors: 0 }
    }

    /// Adds the blocks that a range touches; false if not all of them found room.
    fn put(&mut self, extent: Extent) -> bool {
        let mut first = extent.offset / self.block_bytes;
        let end = (extent.offset + extent.len).div_ceil(self.block_bytes);
        while first < end {
            let blocks = u32::try_from(end - first).unwrap_or(u32::MAX);
            let at = size_of::<LbaStatusHeader>()
                + self.descriptors as usize * size_of::<LbaStatusDescriptor>();
            let mut descriptor = LbaStatusDescriptor::new_zeroed();
            descriptor.first = U64::new(first);
            descriptor.blocks = U32::new(blocks);
            descriptor.status = STATUS_ALLOCATED;
            let Some(room) = self.out.get_mut(at..at + size_of::<LbaStatusDescriptor>()) else {
                return false;
            };
            room.copy_from_slice(descriptor.as_bytes());
            self.descriptors += 1;
            first += u64::from(blocks);
        }
        true
    }

    fn end(self, condition: u8) {
        let mut header = LbaStatusHeader::new_zeroed();
        header.descriptors = U32::new(self.descriptors);
        header.condition = condition;
        self.out[..size_of::<LbaStatusHeader>()].copy_from_slice(header.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes;

    use super::*;

    const BLOCK: u32 = 4096;

    fn list(out: &mut [u8], ranges: &[(u64, u64)], all: bool) -> (u32, u8) {
        let bytes = u64::from(BLOCK);
        let extents = ranges.iter();
        let extents = extents.map(|&(at, n)| Extent { offset: at * bytes, len: n * bytes });
        write_allocations(out, BLOCK, extents, all);
        let (header, _) = LbaStatusHeader::read_from_prefix(out).unwrap();
        (header.descriptors.get(), header.condition)
    }

    fn descriptor(out: &[u8], n: usize) -> (u64, u32) {
        let (descriptor, _) = LbaStatusDescriptor::read_from_prefix(&out[8 + 16 * n..]).unwrap();
        assert_eq!(descriptor.status, STATUS_ALLOCATED);
        (descriptor.first.get(), descriptor.blocks.get())
    }

    #[test]
    fn allocated_ranges_are_listed_as_far_as_there_is_room() {
        let mut out = [0xaa; 8 + 2 * 16];
        assert_eq!(list(&mut out, &[(3, 1), (9, 100)], true), (2, COMPLETE));
        assert_eq!((descriptor(&out, 0), descriptor(&out, 1)), ((3, 1), (9, 100)));
        assert_eq!(list(&mut out, &[(3, 1), (9, 1), (20, 1)], true), (2, INCOMPLETE));
        assert_eq!(list(&mut out, &[(3, 1)], false), (1, INCOMPLETE));
        assert_eq!(list(&mut out, &[], true), (0, COMPLETE));
    }

    #[test]
    fn a_range_too_long_for_a_descriptor_takes_two() {
        let mut out = [0; 8 + 2 * 16];
        let long = u64::from(u32::MAX) + 5;
        assert_eq!(list(&mut out, &[(0, long)], true), (2, COMPLETE));
        assert_eq!(descriptor(&out, 1), (u64::from(u32::MAX), 5));
    }
}
