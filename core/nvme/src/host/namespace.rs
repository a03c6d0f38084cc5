//! Identify Namespace (NVM 4.1.5.1) and its identification descriptors (Base 5.17.2.3).

use braid_block::{BlockSize, Geometry};

use super::identify::Page;
use crate::ana::AnaState;

/// A namespace that we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Namespace id.
    pub nsid: u32,
    /// Size and block size.
    pub geometry: Geometry,
    /// Namespace globally unique identifier; zeros: none.
    pub nguid: [u8; 16],
    /// IEEE extended unique identifier; zeros: none.
    pub eui64: [u8; 8],
    /// Universally unique identifier; zeros: none.
    pub uuid: [u8; 16],
    /// Nobody may write to it now.
    pub write_protected: bool,
    /// Its unused blocks take no space.
    pub thin: bool,
    /// Deallocated blocks read as zeros.
    pub deallocated_reads_zero: bool,
    /// More than one controller may use it.
    pub shared: bool,
    /// How it is reached by this path. Of a controller that knows nothing of that: optimized.
    pub access: AnaState,
}

/// Bytes of an LBA format descriptor.
const FORMAT_BYTES: usize = 4;

impl NamespaceInfo {
    /// Reads the structure; none if the namespace is inactive, or of a format that we do not
    /// serve: metadata, or blocks that are neither 512 nor 4096 bytes.
    pub(super) fn parse(nsid: u32, page: &Page<'_>) -> Option<Self> {
        let flbas = page.u8(26);
        // FLBAS 3:0 is the index's lower, 6:5 its upper part.
        let index = usize::from(flbas & 0xf | (flbas >> 5 & 3) << 4);
        let format = page.u32(128 + index * FORMAT_BYTES);
        let [metadata_low, metadata_high, shift, _] = format.to_le_bytes();
        let blocks = page.u64(0);
        if blocks == 0 || page.u64(8) == 0 || (metadata_low, metadata_high) != (0, 0) {
            return None;
        }
        let block = BlockSize::from_bytes(1_u32.checked_shl(u32::from(shift))?)?;
        // More bytes than u64 counts would overflow everywhere else.
        blocks.checked_mul(u64::from(block.bytes()))?;
        Some(Self {
            nsid,
            geometry: Geometry { block, blocks },
            nguid: page.bytes(104),
            eui64: page.bytes(120),
            uuid: [0; 16],
            write_protected: page.u8(99) & 1 != 0,
            thin: page.u8(24) & 1 != 0,
            deallocated_reads_zero: page.u8(33) & 7 == 1,
            shared: page.u8(30) & 1 != 0,
            access: AnaState::Optimized,
        })
    }

    /// Takes over the identifiers that the list of descriptors brings.
    pub(super) fn read_descriptors(&mut self, list: &[u8]) {
        const EUI64: (u8, u8) = (1, 8);
        const NGUID: (u8, u8) = (2, 16);
        const UUID: (u8, u8) = (3, 16);
        let mut rest = list;
        while let [kind, len, _, _, tail @ ..] = rest {
            let value = Page(tail);
            match (*kind, *len) {
                // A length of 0 ends the list.
                (_, 0) => return,
                EUI64 => self.eui64 = value.bytes(0),
                NGUID => self.nguid = value.bytes(0),
                UUID => self.uuid = value.bytes(0),
                _ => {}
            }
            rest = tail.get(usize::from(*len)..).unwrap_or_default();
        }
    }
}

/// The ids in an active namespace list, as far as it goes: ascending, none twice, not zero.
pub(super) fn active_ids(list: &[u8], after: u32) -> impl Iterator<Item = u32> + '_ {
    let ids = list.as_chunks().0.iter().map(|&bytes: &[u8; 4]| u32::from_le_bytes(bytes));
    ids.scan(after, |last, id| {
        if id <= *last {
            return None;
        }
        *last = id;
        Some(id)
    })
}
