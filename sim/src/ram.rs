//! A disk in memory without faults that is cheap to fill: equal blocks that are written one after
//! the other are kept once.

use std::collections::BTreeMap;
use std::rc::Rc;

use braid_block::IoError;

use crate::disk::Counts;
use crate::image::BLOCK;

type Block = [u8; BLOCK];

/// Bytes of a disk, where they are not zero.
#[derive(Clone, Debug)]
pub struct Ram {
    bytes: u64,
    blocks: BTreeMap<u64, Rc<Block>>,
    /// What was written last: a test writes the same content over and over.
    last: Rc<Block>,
    counts: Counts,
}

impl Ram {
    /// A disk of zeros.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let last = Rc::new([0; BLOCK]);
        Self { bytes, blocks: BTreeMap::new(), last, counts: Counts::default() }
    }

    /// Its size.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it larger or smaller; what is beyond the end is not read.
    pub const fn resize(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// What it did.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The blocks that were ever written, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, &Block)> {
        self.blocks.iter().map(|(number, block)| (*number, &**block))
    }

    /// A block to be changed, for tests that damage it.
    pub fn block_mut(&mut self, block: u64) -> &mut Block {
        Rc::make_mut(self.blocks.entry(block).or_insert_with(|| Rc::new([0; BLOCK])))
    }

    /// Whether a range is on it.
    #[must_use]
    pub fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.bytes)
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) {
        self.counts.reads += 1;
        let mut done = 0;
        while done < into.len() {
            let (block, at, len) = part(offset, done, into.len());
            let to = &mut into[done..done + len];
            match self.blocks.get(&block) {
                Some(bytes) => to.copy_from_slice(&bytes[at..at + len]),
                None => to.fill(0),
            }
            done += len;
        }
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, from: &[u8]) {
        self.counts.writes += 1;
        self.counts.written += from.len() as u64;
        let mut done = 0;
        while done < from.len() {
            let (block, at, len) = part(offset, done, from.len());
            let bytes = &from[done..done + len];
            if let Ok(whole) = <&Block>::try_from(bytes) {
                if *self.last != *whole {
                    self.last = Rc::new(*whole);
                }
                self.blocks.insert(block, Rc::clone(&self.last));
            } else {
                self.block_mut(block)[at..at + len].copy_from_slice(bytes);
            }
            done += len;
        }
    }

    /// Makes everything durable, which it is.
    pub const fn sync(&mut self) {
        self.counts.flushes += 1;
    }

    /// Forgets whole blocks.
    pub fn discard(&mut self, offset: u64, len: u64) {
        self.counts.discards += 1;
        let blocks = offset / BLOCK as u64..(offset + len) / BLOCK as u64;
        blocks.for_each(|block| drop(self.blocks.remove(&block)));
    }
}

impl braid_pool::Image for Ram {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        if !self.holds(offset, bytes.len() as u64) {
            return Err(IoError::Device);
        }
        self.read(offset, bytes);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        if !self.holds(offset, bytes.len() as u64) {
            return Err(IoError::Device);
        }
        self.write(offset, bytes);
        Ok(())
    }
}

/// Of a transfer of `len` bytes at `offset` of which `done` are through: the block, the place in
/// it, and how many bytes.
fn part(offset: u64, done: usize, len: usize) -> (u64, usize, usize) {
    let here = offset + done as u64;
    let at = usize::try_from(here % BLOCK as u64).unwrap_or(0);
    (here / BLOCK as u64, at, (len - done).min(BLOCK - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_rest_is_zero() {
        let mut ram = Ram::new(1 << 20);
        ram.write(4096, &[7; 8192]);
        ram.write(512, &[9; 512]);
        let clone = ram.clone();
        ram.discard(4096, 4096);
        let (mut new, mut old) = (vec![1; 16384], vec![1; 16384]);
        ram.read(0, &mut new);
        clone.clone().read(0, &mut old);
        assert_eq!((new[511], new[512], new[1024], new[4096], new[8192]), (0, 9, 0, 0, 7));
        assert_eq!((old[4096], old[12287], old[12288]), (7, 7, 0));
        assert_eq!(ram.counts().written, 8192 + 512);
    }
}
