//! Unflushed writes kept aside, so that killing the process loses what a power cut would.
//!
//! Invariants:
//! 1. A block kept aside is what reads return; it stays until its write to the device is done.
//! 2. Rewriting a block while it is written out keeps the newer one aside.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The blocks kept aside, by their first byte.
#[derive(Debug)]
pub(crate) struct Overlay {
    blocks: BTreeMap<u64, Block>,
    /// Distinguishes a block from one written later at the same place.
    version: u64,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    version: u64,
}

/// A block on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaving {
    pub(crate) offset: u64,
    version: u64,
}

impl Overlay {
    pub(crate) const fn new() -> Self {
        Self { blocks: BTreeMap::new(), version: 0 }
    }

    /// Keeps `bytes` aside, block by block.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8], block: usize) {
        self.version += 1;
        for (at, chunk) in (offset..).step_by(block).zip(bytes.chunks(block)) {
            self.blocks.insert(at, Block { bytes: chunk.to_vec(), version: self.version });
        }
    }

    /// Puts what is kept aside over bytes that the device returned.
    pub(crate) fn patch(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset + bytes.len() as u64;
        for (at, block) in self.blocks.range(offset..end) {
            let at = usize::try_from(at - offset).unwrap_or(usize::MAX);
            let len = block.bytes.len().min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&block.bytes[..len]);
        }
    }

    /// Forgets a range that the device was told directly.
    pub(crate) fn forget(&mut self, offset: u64, len: u64) {
        self.blocks.retain(|&at, _| at < offset || at >= offset + len);
    }

    /// The first block that was kept aside no later than `until`, to be written out.
    pub(crate) fn first(&self, until: u64) -> Option<(Leaving, &[u8])> {
        let (&offset, block) = self.blocks.iter().find(|(_, block)| block.version <= until)?;
        Some((Leaving { offset, version: block.version }, &block.bytes))
    }

    /// The version of the newest block.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// A block is on the device now.
    pub(crate) fn left(&mut self, leaving: Leaving) {
        if self.blocks.get(&leaving.offset).is_some_and(|b| b.version == leaving.version) {
            self.blocks.remove(&leaving.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_rewritten_while_it_leaves_stays() {
        let mut overlay = Overlay::new();
        overlay.write(512, &[1; 1024], 512);
        let until = overlay.version();
        let (leaving, bytes) = overlay.first(until).unwrap();
        assert_eq!((leaving.offset, bytes), (512, [1; 512].as_slice()));
        overlay.write(512, &[2; 512], 512);
        overlay.left(leaving);
        let mut read = [0; 1536];
        overlay.patch(0, &mut read);
        assert_eq!((read[0], read[512], read[1024]), (0, 2, 1));
        assert_eq!(overlay.first(until).unwrap().0.offset, 1024);
    }
}
