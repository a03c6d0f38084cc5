//! A request in work, and the pieces that it is cut into: one for each cluster that it touches.
//!
//! ```text
//! write   Locking -> Mapping -> [Opening | Settling | Merging] -> Writing -> Journaled -> done
//! read    Mapping -> Reading -> verified, or once more under the lock -> done
//! zero    Locking -> Mapping -> [Settling] -> Journaled -> done
//! ```
//! A piece that lacks something says whom it waits for, and tries again from the top of its state
//! when it is woken: maps may have changed meanwhile.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Deref;

use arrayvec::ArrayVec;
use braid_block::{Key, Lease, Sums};

use crate::request::{Failure, Work};
use crate::transfer::Transfers;
use crate::watch::Mark;

/// Somebody who waits for a page, a lock, the journal or a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A piece goes on.
    Piece(Key),
    /// A request goes on: it is cut further, or finds out which parts are allocated.
    Op(Key),
    /// Scrub, reclaim, checkpoint or open: they look for themselves.
    Job,
}

/// A request in work.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) tag: u64,
    pub(crate) layer: u32,
    pub(crate) work: Work,
    pub(crate) lease: Option<Lease>,
    /// Pieces that are not done; of a status request, entries of its answer.
    pub(crate) pieces: u32,
    /// Next byte to be cut off, for long work that is done piece by piece.
    pub(crate) next: u64,
    /// Up to here a comparison goes block by block: a read of many failed.
    pub(crate) single: u64,
    /// Pieces are being cut off it now.
    pub(crate) cutting: bool,
    /// Space for all pieces of a write, so that one that finds none changes nothing.
    pub(crate) room: Room,
    /// What went wrong first.
    pub(crate) failure: Option<Failure>,
    /// Newest journal block with a cell of a write.
    pub(crate) seq: u64,
    /// Blocks of a read that are not there, by their position in its buffer.
    pub(crate) zeros: u64,
    /// Blocks of it that could not be verified.
    pub(crate) unverified: u32,
    /// Transfers into its buffer that are not done. Till then nobody may look into it.
    pub(crate) transfers: u32,
    /// Pieces of it that are to be compared then.
    pub(crate) parked: ArrayVec<Key, PIECES_MAX>,
    /// Counted among its layer's writes.
    pub(crate) counted: bool,
    /// CRCs of the blocks in its buffer: of a write, known already; of a read, to be told.
    pub(crate) sums: Option<Box<Sums>>,
}

impl Op {
    /// First byte, and the end.
    pub(crate) const fn range(&self) -> (u64, u64) {
        match self.work {
            Work::Read { offset, len }
            | Work::Write { offset, len, .. }
            | Work::Compare { offset, len } => (offset, offset + len as u64),
            Work::Zero { offset, len, .. } | Work::Status { offset, len } => (offset, offset + len),
            Work::Flush { .. } => (0, 0),
        }
    }
}

/// Space for a write of several pieces.
#[derive(Clone, Debug)]
pub(crate) enum Room {
    /// Of one piece: it takes what it needs.
    Single,
    /// These pieces are ready but for space; none goes on before all of `total` are.
    Asked { total: u32, ready: ArrayVec<Key, PIECES_MAX> },
    /// All have what they need.
    Granted,
}

/// Pieces of a read or a write, at most.
pub(crate) const PIECES_MAX: usize = 4;

/// What a piece does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Fills the request's buffer.
    Read,
    /// Writes the request's buffer.
    Write,
    /// Makes blocks read as zeros.
    Zero,
    /// Makes part of a block read as zeros, or blocks that must hide a parent's: writes zeros.
    WriteZeros,
}

/// Where a piece stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// For its blocks to be unlocked.
    Locking,
    /// Finding out what to do.
    Mapping,
    /// For reads of blocks of which only a part is to be written.
    Merging,
    /// In the device.
    Transfer,
    /// For checksums to compare with.
    Verifying,
    /// For its journal block to be written.
    Journaled(u64),
}

/// A run of blocks that one read fetches: first block on the device, and count; whose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// First block on the device: cluster times 64 plus position.
    pub(crate) block: u64,
    /// Position in the cluster.
    pub(crate) at: u8,
    pub(crate) count: u8,
    /// The layer that owns it.
    pub(crate) layer: u32,
}

/// Runs of a piece: a few are kept in it, more are not. There are many pieces, and most have one
/// run or none.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    few: ArrayVec<Run, 4>,
    many: Vec<Run>,
}

impl Runs {
    /// Takes these instead.
    pub(crate) fn set(&mut self, runs: &[Run]) {
        self.clear();
        if self.few.try_extend_from_slice(runs).is_err() {
            self.many.extend_from_slice(runs);
        }
    }

    /// Has none any more.
    pub(crate) fn clear(&mut self) {
        self.few.clear();
        self.many.clear();
    }
}

impl Deref for Runs {
    type Target = [Run];

    fn deref(&self) -> &[Run] {
        if self.many.is_empty() { &self.few } else { &self.many }
    }
}

/// Blocks of a piece, at most.
pub(crate) const PIECE_BLOCKS: usize = 64;

/// A part of a request, within one cluster.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) op: Key,
    pub(crate) kind: Kind,
    pub(crate) step: Step,
    pub(crate) layer: u32,
    pub(crate) lcluster: u32,
    /// First byte in the cluster, and bytes.
    pub(crate) start: u32,
    pub(crate) len: u32,
    /// Where its bytes are in the request's buffer.
    pub(crate) at: u32,
    /// It holds the lock of its blocks.
    pub(crate) locked: bool,
    /// It is among those who wait for the lock.
    pub(crate) queued: bool,
    /// It is among those who wait for a buffer.
    pub(crate) bufferless: bool,
    /// Transfers that are not done, and what came of the others.
    pub(crate) transfers: Transfers,
    /// Newest journal block with a cell of it.
    pub(crate) seq: u64,
    /// It counts among the first writes in flight, which hold `settled` back below this block.
    pub(crate) first: Option<u64>,
    /// The epoch of reads that it counts in.
    pub(crate) epoch: Option<u64>,
    /// A buffer beside the request's: the partial blocks at both ends, one after the other; of a
    /// read that is not aligned, all its blocks.
    pub(crate) side: Option<Lease>,
    /// What the reads in flight fetch.
    pub(crate) runs: Runs,
    /// Both ends are merged into the side buffers.
    pub(crate) merged: bool,
    /// Space was made once already.
    pub(crate) retried: bool,
    /// A cluster is kept for it.
    pub(crate) granted: bool,
    /// Its cluster is kept where it is.
    pub(crate) pinned: bool,
    /// Bytes after its own: the device failed a read of all, so each block is read alone.
    pub(crate) rest: u32,
    /// The same of a write with two partial ends: the first is read alone, for one of them cannot
    /// be read.
    pub(crate) alone: bool,
    /// When its transfers began, while there are some.
    pub(crate) began: Option<Mark>,
}

impl Piece {
    /// First block in the cluster, and count.
    pub(crate) const fn blocks(&self) -> (u32, u32) {
        let first = self.start / 4096;
        let end = (self.start + self.len).div_ceil(4096);
        (first, end - first)
    }

    /// Its blocks, a bit each.
    pub(crate) const fn mask(&self) -> u64 {
        let (first, count) = self.blocks();
        crate::store::mask(first, count)
    }
}

/// Which reads are in flight: a freed cluster is used again only when every read that was begun
/// before it was freed has ended.
///
/// Reads begun in epoch `e` count in slot `e % 2`; the epoch advances when the other slot is
/// empty. What was freed in epoch `e` is out of reach when the epoch is `e + 2`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reads {
    epoch: u64,
    in_flight: [u64; 2],
}

impl Reads {
    /// The epoch now.
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A read begins.
    pub(crate) const fn begin(&mut self) -> u64 {
        self.in_flight[(self.epoch % 2) as usize] += 1;
        self.epoch
    }

    /// A read that began in this epoch ends.
    pub(crate) const fn end(&mut self, epoch: u64) {
        self.in_flight[(epoch % 2) as usize] -= 1;
    }

    /// Advances as far as it can; tells whether it did.
    pub(crate) const fn advance(&mut self) -> bool {
        let older = ((self.epoch + 1) % 2) as usize;
        if self.in_flight[older] != 0 {
            return false;
        }
        self.epoch += 1;
        true
    }

    /// Whether nothing that was begun up to this epoch is still in flight.
    pub(crate) const fn is_over(&self, epoch: u64) -> bool {
        self.epoch >= epoch + 2
    }
}

// A pool has thousands of them.
const _: () = assert!(size_of::<Piece>() <= 320);
