//! A journal block and its cells.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Cells of a journal block.
pub(crate) const CELLS_PER_BLOCK: usize = 252;
/// Begins every journal block.
pub(crate) const JOURNAL_MAGIC: u32 = u32::from_le_bytes(*b"BJNL");

/// What a journal block says before its cells.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct JournalHeader {
    /// [`JOURNAL_MAGIC`].
    pub(crate) magic: U32,
    /// CRC32C of the block with this field zero, continued from the CRC32C of the pool's uuid.
    pub(crate) crc: U32,
    /// The pool's incarnation.
    pub(crate) incarnation: U64,
    /// Its number; its place in the ring is the remainder by the ring's size.
    pub(crate) seq: U64,
    /// CRC of the block before it: what does not chain is not part of the journal.
    pub(crate) previous: U32,
    /// Cells in use.
    pub(crate) used: U16,
    pub(crate) reserved: U16,
    /// Everything before this block is in the pages.
    pub(crate) tail: U64,
    /// Cells up to this block are settled: they and the data of their first writes are durable.
    pub(crate) settled: U64,
    pub(crate) reserved2: [u8; 16],
}

/// A journal block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct JournalBlock {
    pub(crate) header: JournalHeader,
    pub(crate) cells: [[u8; 16]; CELLS_PER_BLOCK],
}

const _: () = assert!(size_of::<JournalHeader>() == 64);
const _: () = assert!(size_of::<JournalBlock>() == 4096);

/// One change of a map, 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// A block was written: `crc` is its stored checksum; `first` makes it owned, and its region
    /// open and dirty.
    Write { layer: u32, lblock: u64, first: bool, crc: u32 },
    /// A cluster of a layer got its place; of [`Cell::PAGES`], a cluster holds pages now.
    Alloc { layer: u32, lcluster: u32, phys: u32 },
    /// Blocks are not owned any more.
    Clear { layer: u32, lblock: u64, count: u16 },
    /// A cluster is not owned any more, ends the walk to parents (`opaque`), and its place is
    /// free; `phys` is [`Cell::NOWHERE`] if it had none. Of [`Cell::PAGES`], a cluster of pages is
    /// free.
    Free { layer: u32, lcluster: u32, phys: u32, opaque: bool },
    /// Regions become open and dirty.
    Open { layer: u32, region: u32, count: u16 },
    /// A region is not open, not dirty, or neither any more.
    Close { layer: u32, region: u32, open: bool, dirty: bool },
    /// A page got its place (a pair number), or gave it back.
    Page { kind: u8, layer: u32, index: u32, pair: u64, free: bool },
    /// The layer's fields are these `bytes` bytes in the cells that follow. Makes the layer if
    /// there is none.
    Image { layer: u32, bytes: u16 },
    /// The layer's copy of the membership record, likewise.
    Record { layer: u32, bytes: u16 },
    /// The cluster moves from one layer to its child, with the marks of its region: the cell that
    /// follows says what moves, so that each of the two pages can be behind: see `Transferred`.
    Transfer { layer: u32, to: u32, lcluster: u32 },
    /// Number of the layer's last numbered flush.
    Flush { layer: u32, number: u64 },
    /// The layer is gone.
    Remove { layer: u32 },
}

impl Cell {
    /// No cluster.
    pub(crate) const NOWHERE: u32 = u32::MAX;
    /// Stands for a layer where clusters of pages are meant.
    pub(crate) const PAGES: u32 = 0xff_ffff;
    /// Largest number of a layer.
    pub(crate) const LAYER_MAX: u32 = 0xff_fffe;

    /// Its bytes.
    pub(crate) fn encode(self) -> [u8; 16] {
        let mut b = [0; 16];
        let (kind, layer) = match self {
            Self::Write { layer, lblock, first, crc } => {
                b[4..9].copy_from_slice(&lblock.to_le_bytes()[..5]);
                b[9] = u8::from(first);
                b[12..].copy_from_slice(&crc.to_le_bytes());
                (1, layer)
            }
            Self::Alloc { layer, lcluster, phys } => {
                b[4..8].copy_from_slice(&lcluster.to_le_bytes());
                b[8..12].copy_from_slice(&phys.to_le_bytes());
                (2, layer)
            }
            Self::Clear { layer, lblock, count } => {
                b[4..9].copy_from_slice(&lblock.to_le_bytes()[..5]);
                b[10..12].copy_from_slice(&count.to_le_bytes());
                (3, layer)
            }
            Self::Free { layer, lcluster, phys, opaque } => {
                b[4..8].copy_from_slice(&lcluster.to_le_bytes());
                b[8..12].copy_from_slice(&phys.to_le_bytes());
                b[12] = u8::from(opaque);
                (4, layer)
            }
            Self::Open { layer, region, count } => {
                b[4..8].copy_from_slice(&region.to_le_bytes());
                b[10..12].copy_from_slice(&count.to_le_bytes());
                (5, layer)
            }
            Self::Close { layer, region, open, dirty } => {
                b[4..8].copy_from_slice(&region.to_le_bytes());
                b[8] = u8::from(open) | u8::from(dirty) << 1;
                (6, layer)
            }
            Self::Page { kind, layer, index, pair, free } => {
                b[4] = kind;
                b[5..10].copy_from_slice(&pair.to_le_bytes()[..5]);
                b[10] = u8::from(free);
                b[12..].copy_from_slice(&index.to_le_bytes());
                (7, layer)
            }
            Self::Image { layer, bytes } => {
                b[4..6].copy_from_slice(&bytes.to_le_bytes());
                (8, layer)
            }
            Self::Record { layer, bytes } => {
                b[4..6].copy_from_slice(&bytes.to_le_bytes());
                (9, layer)
            }
            Self::Transfer { layer, to, lcluster } => {
                b[4..7].copy_from_slice(&to.to_le_bytes()[..3]);
                b[8..12].copy_from_slice(&lcluster.to_le_bytes());
                (10, layer)
            }
            Self::Flush { layer, number } => {
                b[8..].copy_from_slice(&number.to_le_bytes());
                (11, layer)
            }
            Self::Remove { layer } => (12, layer),
        };
        b[0] = kind;
        b[1..4].copy_from_slice(&layer.to_le_bytes()[..3]);
        b
    }

    /// The cell with these bytes, if it is one.
    pub(crate) fn decode(b: &[u8; 16]) -> Option<Self> {
        let u16_at = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        let u24_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], 0]);
        let u32_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u40_at = |i: usize| u64::from(u32_at(i)) | u64::from(b[i + 4]) << 32;
        let layer = u24_at(1);
        Some(match b[0] {
            1 => Self::Write { layer, lblock: u40_at(4), first: b[9] == 1, crc: u32_at(12) },
            2 => Self::Alloc { layer, lcluster: u32_at(4), phys: u32_at(8) },
            3 => Self::Clear { layer, lblock: u40_at(4), count: u16_at(10) },
            4 => Self::Free { layer, lcluster: u32_at(4), phys: u32_at(8), opaque: b[12] == 1 },
            5 => Self::Open { layer, region: u32_at(4), count: u16_at(10) },
            6 => {
                Self::Close { layer, region: u32_at(4), open: b[8] & 1 != 0, dirty: b[8] & 2 != 0 }
            }
            7 => Self::Page {
                kind: b[4],
                layer,
                index: u32_at(12),
                pair: u40_at(5),
                free: b[10] == 1,
            },
            8 => Self::Image { layer, bytes: u16_at(4) },
            9 => Self::Record { layer, bytes: u16_at(4) },
            10 => Self::Transfer { layer, to: u24_at(4), lcluster: u32_at(8) },
            11 => Self::Flush { layer, number: u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32 },
            12 => Self::Remove { layer },
            _ => return None,
        })
    }

    /// Cells of payload that follow it.
    pub(crate) fn payload_cells(self) -> usize {
        match self {
            Self::Image { bytes, .. } | Self::Record { bytes, .. } => {
                usize::from(bytes).div_ceil(16)
            }
            Self::Transfer { .. } => 1,
            _ => 0,
        }
    }
}

/// What a [`Cell::Transfer`] moves.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Transferred {
    /// Blocks that are owned.
    pub(crate) own: U64,
    /// The cluster; [`Cell::NOWHERE`]: none, the child keeps what it has, and takes the flags.
    pub(crate) phys: U32,
    /// [`Self::OPAQUE`], [`Self::OPEN`], [`Self::DIRTY`].
    pub(crate) flags: u8,
    pub(crate) reserved: [u8; 3],
}

impl Transferred {
    /// The parents are hidden.
    pub(crate) const OPAQUE: u8 = 1;
    /// The region is open.
    pub(crate) const OPEN: u8 = 2;
    /// It is marked for the other members.
    pub(crate) const DIRTY: u8 = 4;
}

const _: () = assert!(size_of::<Transferred>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_gives_back_what_it_was_made_of() {
        let cells = [
            Cell::Write { layer: 0xab_cdef, lblock: 0xff_1234_5678, first: true, crc: 0x89ab_cdef },
            Cell::Alloc { layer: 1, lcluster: 0xdead_beef, phys: 0x7fff_ffff },
            Cell::Clear { layer: 2, lblock: 0x80_0000_0001, count: 64 },
            Cell::Free { layer: 3, lcluster: 4, phys: Cell::NOWHERE, opaque: true },
            Cell::Open { layer: 4, region: 0xffff_0001, count: 64 },
            Cell::Close { layer: 5, region: 7, open: true, dirty: false },
            Cell::Page { kind: 7, layer: 6, index: 0x1234_5678, pair: 0xff_ffff_ffff, free: true },
            Cell::Image { layer: 7, bytes: 576 },
            Cell::Record { layer: 8, bytes: 3072 },
            Cell::Transfer { layer: 9, to: 0xfe_dcba, lcluster: 77 },
            Cell::Flush { layer: 10, number: u64::MAX - 1 },
            Cell::Remove { layer: 11 },
        ];
        for cell in cells {
            assert_eq!(Cell::decode(&cell.encode()), Some(cell));
        }
        assert_eq!(Cell::decode(&[0; 16]), None);
        assert_eq!(Cell::decode(&[99; 16]), None);
    }
}
