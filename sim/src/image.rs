//! A disk's content, kept where it is not zero, and copied only where two copies differ.
//!
//! A clone costs one reference a 256 KiB chunk, so a campaign can fork thousands of disks.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// Blocks of a chunk, the unit that clones share.
const CHUNK: u64 = 64;

type Block = [u8; BLOCK];

/// Bytes of a disk of any size.
#[derive(Clone, Debug, Default)]
pub struct Image {
    chunks: BTreeMap<u64, Rc<Vec<Option<Rc<Block>>>>>,
}

impl Image {
    /// Reads bytes at any offset.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        for (block, at, part) in parts(offset, into.len()) {
            let into = &mut into[part.clone()];
            match self.block(block) {
                Some(bytes) => into.copy_from_slice(&bytes[at..at + part.len()]),
                None => into.fill(0),
            }
        }
    }

    /// Writes bytes at any offset.
    pub fn write(&mut self, offset: u64, from: &[u8]) {
        for (block, at, part) in parts(offset, from.len()) {
            let len = part.len();
            self.block_mut(block)[at..at + len].copy_from_slice(&from[part]);
        }
    }

    /// The block with this number, unless it is zero for sure.
    #[must_use]
    pub fn block(&self, block: u64) -> Option<&Block> {
        let chunk = self.chunks.get(&(block / CHUNK))?;
        chunk[index(block)].as_deref()
    }

    /// Makes a block zero.
    pub fn clear(&mut self, block: u64) {
        if self.block(block).is_some() {
            let chunk = self.chunks.get_mut(&(block / CHUNK)).expect("the block's chunk");
            Rc::make_mut(chunk)[index(block)] = None;
        }
    }

    /// The blocks that were ever written, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, &Block)> {
        self.chunks.iter().flat_map(|(chunk, blocks)| {
            let numbered = (chunk * CHUNK..).zip(blocks.iter());
            numbered.filter_map(|(number, block)| Some((number, block.as_deref()?)))
        })
    }

    fn block_mut(&mut self, block: u64) -> &mut Block {
        let chunk = self.chunks.entry(block / CHUNK);
        let chunk = chunk.or_insert_with(|| Rc::new(vec![None; CHUNK as usize]));
        let slot = &mut Rc::make_mut(chunk)[index(block)];
        Rc::make_mut(slot.get_or_insert_with(|| Rc::new([0; BLOCK])))
    }
}

fn index(block: u64) -> usize {
    (block % CHUNK) as usize
}

/// The blocks that a range touches: number, first byte within, and which part of the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let here = offset + done as u64;
        let at = (here % BLOCK as u64) as usize;
        let part = done..len.min(done + BLOCK - at);
        done = part.end;
        (!part.is_empty()).then_some((here / BLOCK as u64, at, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_not_changed_by_its_original() {
        let mut image = Image::default();
        image.write(4090, b"across a border");
        let clone = image.clone();
        image.write(4096, b"X");
        let (mut new, mut old) = ([0; 17], [0; 17]);
        image.read(4089, &mut new);
        clone.read(4089, &mut old);
        assert_eq!(&old, b"\0across a border\0");
        assert_eq!(&new, b"\0acrossXa border\0");
        image.clear(0);
        assert_eq!(image.blocks().map(|(number, _)| number).collect::<Vec<_>>(), [1]);
    }
}
