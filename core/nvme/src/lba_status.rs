//! Get LBA Status (NVM 4.2.1) as bytes: its actions, and the list that answers it.

use core::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// ATYPE, bits 31:24 of CDW13: return allocated blocks.
pub(crate) const ALLOCATED: u8 = 0x02;
/// ATYPE: look for blocks that may be unreadable, and return those that are known to be.
pub(crate) const SCAN: u8 = 0x10;
/// ATYPE: return blocks that are known to be unreadable.
pub(crate) const TRACKED: u8 = 0x11;

/// CMPC: nothing is said about whether the list is complete.
pub(crate) const UNTOLD: u8 = 0;
/// CMPC: there is more than was returned.
pub(crate) const INCOMPLETE: u8 = 1;
/// CMPC: the whole range was looked at, and everything returned.
pub(crate) const COMPLETE: u8 = 2;

/// Status of a descriptor, bits 2:0: blocks of it are allocated.
pub(crate) const STATUS_ALLOCATED: u8 = 2;
/// The bits of a descriptor's status that say what is so.
const STATUS_MASK: u8 = 7;

/// The head of the list.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LbaStatusHeader {
    /// NLSD: number of descriptors.
    pub descriptors: U32,
    /// CMPC.
    pub condition: u8,
    reserved_5: [u8; 3],
}
const _: () = assert!(size_of::<LbaStatusHeader>() == 8);

/// One descriptor of the list.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LbaStatusDescriptor {
    /// DSLBA: the first block.
    pub first: U64,
    /// NLB: number of blocks.
    pub blocks: U32,
    reserved_12: u8,
    /// What is so of them.
    pub status: u8,
    reserved_14: [u8; 2],
}
const _: () = {
    assert!(size_of::<LbaStatusDescriptor>() == 16);
    assert!(offset_of!(LbaStatusDescriptor, status) == 13);
};

/// What a list of allocated blocks says: ranges as first block and number of blocks, and whether
/// they are all there are in what was asked for. None if it makes no sense.
#[must_use]
pub fn read_allocations(data: &[u8]) -> Option<(impl Iterator<Item = (u64, u32)>, bool)> {
    let (header, rest) = LbaStatusHeader::read_from_prefix(data).ok()?;
    let count = usize::try_from(header.descriptors.get()).ok()?;
    let len = count.checked_mul(size_of::<LbaStatusDescriptor>())?;
    let ranges = rest.get(..len)?.chunks_exact(size_of::<LbaStatusDescriptor>());
    let ranges = ranges.filter_map(|entry| LbaStatusDescriptor::read_from_bytes(entry).ok());
    let allocated = ranges.filter(|entry| entry.status & STATUS_MASK == STATUS_ALLOCATED);
    let ranges = allocated.map(|entry| (entry.first.get(), entry.blocks.get()));
    Some((ranges, header.condition == COMPLETE))
}
