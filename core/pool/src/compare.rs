//! Comparing replicas: what each block of a range holds, as a hash, for a mirror's members to be
//! made alike.
//!
//! Invariants:
//! 1. What is told of a block was read from the device for this answer, while no write to it was
//!    in flight: it is repeated under the lock, like a read.
//! 2. What matches its checksum is told as verified, or as zeros if it is; zeros that match no
//!    checksum are told as what they are.
//! 3. A lost block is a part of the answer, and spoils nothing else of it.
//!
//! A request is cut into pieces of at most 128 KiB, one in work at a time: each has a buffer
//! beside the request's, which holds the answer.

use braid_block::{Instant, Key, Lease, Memory};
use xxhash_rust::xxh3::xxh3_128;

use crate::Pool;
use crate::layout::{BLOCK, CLUSTER_BLOCKS};
use crate::map::PageId;
use crate::op::{Step, Waiter};
use crate::request::Work;
use crate::store::{binding, mask};
use crate::sums::Sum;
use crate::write::{BLOCK_BYTES, bits};

/// Bytes of a hash.
const HASH: usize = 16;

/// How many bytes a comparison of that many bytes fills.
#[must_use]
pub const fn comparison_bytes(len: u32) -> u32 {
    let blocks = len / BLOCK_BYTES;
    blocks.div_ceil(4) + blocks * HASH as u32
}

/// What is said of a block; the bits of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Verified = 1,
    Unverified = 2,
    Lost = 3,
}

impl Pool {
    /// Begins a comparison: nothing is there, until something is found.
    pub(crate) fn begin_comparison<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(op) = self.ops.get(key) else { return };
        if let (Work::Compare { len, .. }, Some(lease)) = (op.work, &op.lease) {
            mem.bytes_mut(lease)[..comparison_bytes(len) as usize].fill(0);
        }
        self.cut(mem, now, key);
    }

    /// Whether a piece is one of a comparison.
    pub(crate) fn compares(&self, key: Key) -> bool {
        let op = self.pieces.get(key).and_then(|piece| self.ops.get(piece.op));
        op.is_some_and(|op| matches!(op.work, Work::Compare { .. }))
    }

    /// Tells what a piece's blocks hold, all of which were read.
    pub(crate) fn digest<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let odd = match self.mismatches(mem, key) {
            Ok(odd) => odd,
            Err(page) => return self.fetch_sums(mem, now, page, Waiter::Piece(key)),
        };
        let Some(piece) = self.pieces.get_mut(key) else { return };
        if odd != 0 && !piece.locked {
            piece.step = Step::Locking;
            return self.advance(mem, now, key);
        }
        if self.waits_for_write(mem, now, key) {
            return;
        }
        // Under the lock nothing is on its way: what does not match now never will.
        let unverified = match self.unadopted_of(key, odd) {
            Ok(unverified) => unverified,
            Err(page) => return self.wait_for_page(mem, now, key, page),
        };
        let lost = odd & !unverified;
        if bits(lost).any(|block| self.has_moved(key, block)) {
            return self.map_again(mem, now, key);
        }
        for block in bits(lost) {
            self.note_lost(key, block);
        }
        self.counters.unverified += u64::from(unverified.count_ones());
        self.tell_blocks(mem, key, unverified, lost);
        self.end_piece(mem, now, key, None);
    }

    /// Blocks of a piece that do not match their checksums, or the page of those that is missing.
    fn mismatches<M: Memory>(&mut self, mem: &M, key: Key) -> Result<u64, u64> {
        let Some(piece) = self.pieces.get(key) else { return Ok(0) };
        let first = piece.blocks().0;
        let tree = self.store.map.layers.get(&piece.layer).map_or(0, |layer| layer.state().tree);
        let mut odd = 0;
        for run in piece.runs.iter() {
            for n in 0..u32::from(run.count) {
                let at = u32::from(run.at) + n;
                let stored = match self.store.sums.get(&self.store.layout, run.block + u64::from(n))
                {
                    Sum::Missing(page) => return Err(page),
                    Sum::Unknown => None,
                    Sum::Known(crc) => Some(crc),
                };
                let Some(lease) = &piece.side else { return Ok(0) };
                let from = (at - first) * BLOCK_BYTES;
                let lblock = u64::from(piece.lcluster) * CLUSTER_BLOCKS + u64::from(at);
                let crc = mem.crc(lease, from..from + BLOCK_BYTES, 0) ^ binding(tree, lblock);
                self.counters.crc_blocks += 1;
                if stored != Some(crc) {
                    odd |= 1 << at;
                }
            }
        }
        Ok(odd)
    }

    /// Those of a piece's blocks that are in regions nobody has adopted, or the page of the map
    /// that is to be read first.
    fn unadopted_of(&self, key: Key, blocks: u64) -> Result<u64, PageId> {
        let Some(piece) = self.pieces.get(key) else { return Ok(0) };
        let mut unadopted = 0;
        for run in piece.runs.iter() {
            for block in bits(blocks & mask(run.at.into(), run.count.into())) {
                let lblock = u64::from(piece.lcluster) * CLUSTER_BLOCKS + u64::from(block);
                unadopted |= u64::from(self.is_unadopted(run.layer, lblock)?) << block;
            }
        }
        Ok(unadopted)
    }

    /// Puts what a piece's blocks hold into the answer.
    fn tell_blocks<M: Memory>(&self, mem: &mut M, key: Key, unverified: u64, lost: u64) {
        let Some(piece) = self.pieces.get(key) else { return };
        let first = piece.blocks().0;
        let Some(side) = &piece.side else { return };
        for run in piece.runs.iter() {
            for block in bits(mask(run.at.into(), run.count.into())) {
                let from = ((block - first) * BLOCK_BYTES) as usize;
                let bytes = &mem.bytes(side)[from..from + BLOCK as usize];
                let hash = xxh3_128(bytes);
                let is = |blocks: u64| blocks >> block & 1 != 0;
                let content = match (is(lost), is(unverified)) {
                    (true, _) => Content::Lost,
                    (_, true) => Content::Unverified,
                    _ if bytes.iter().all(|byte| *byte == 0) => continue,
                    _ => Content::Verified,
                };
                self.tell_block(mem, key, block, content, hash);
            }
        }
    }

    /// Puts what a block of a piece holds into the answer.
    fn tell_block<M: Memory>(&self, mem: &mut M, key: Key, block: u32, is: Content, hash: u128) {
        let Some(piece) = self.pieces.get(key) else { return };
        let Some(op) = self.ops.get(piece.op) else { return };
        let (Work::Compare { len, .. }, Some(lease)) = (op.work, &op.lease) else { return };
        let at = ((piece.at + block * BLOCK_BYTES - piece.start) / BLOCK_BYTES) as usize;
        put(mem, lease, (len / BLOCK_BYTES) as usize, at, is, hash);
    }

    /// A piece of which a page is lost: so are all its blocks.
    pub(crate) fn all_bad<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        for block in bits(piece.mask()) {
            self.tell_block(mem, key, block, Content::Lost, 0);
        }
        self.end_piece(mem, now, key, None);
    }

    /// The device failed a read of a piece: each of its blocks is read alone, and one that is
    /// alone is lost.
    pub(crate) fn compare_singly<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        if piece.blocks().1 == 1 {
            return self.all_bad(mem, now, key);
        }
        let (at, len) = (u64::from(piece.at), u64::from(piece.len));
        if let Some(op) = self.ops.get_mut(piece.op) {
            let offset = op.range().0;
            op.next = offset + at;
            op.single = offset + at + len;
        }
        self.end_piece(mem, now, key, None);
    }
}

/// Puts what is to be said of a block into an answer over `blocks` blocks.
fn put<M: Memory>(mem: &mut M, lease: &Lease, blocks: usize, at: usize, is: Content, hash: u128) {
    let bytes = mem.bytes_mut(lease);
    bytes[at / 4] |= (is as u8) << (at % 4 * 2);
    let from = blocks.div_ceil(4) + at * HASH;
    let hash = if is == Content::Lost { 0 } else { hash };
    bytes[from..from + HASH].copy_from_slice(&hash.to_le_bytes());
}

#[cfg(test)]
mod tests;
