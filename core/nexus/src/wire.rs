//! What a nexus asks of a replica, and the answers: the protocol of replication.md in types.
//! A transport carries them; here nothing is known of how.

use alloc::boxed::Box;

use crate::record::{Record, Uuid};

/// Bytes of a region: what one mark covers, and what one [`Command::Compare`] may span.
pub const REGION: u64 = 1 << 20;
/// Bytes of a block: what a lock, a comparison and a checksum cover.
pub const BLOCK: u64 = 4096;
/// The largest epoch, version or number of a flush that a peer may tell: who counts on from there
/// comes to no end.
pub const NUMBER_MAX: u64 = u64::MAX >> 1;
/// Bytes of a read or a write, at most.
pub const TRANSFER_MAX: u32 = 128 << 10;

/// A command of a nexus to a replica, on one association. Offsets and lengths are in bytes, and
/// multiples of 512; those of a comparison are multiples of [`BLOCK`].
///
/// A replica may carry out commands of one association in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Take this record's epoch and owner for your own, refuse everybody else from now on, end
    /// what others began, and tell where you stand ([`Answer::Fenced`]). The first command of an
    /// association; nothing else is carried out before it was answered.
    Fence(Box<Record>),
    /// Keep this copy of the record, durably.
    CopyRecord(Box<Record>),
    /// Promise to answer no fence of another owner for [`crate::Timing::lease`] from now on.
    Lease,
    /// The promise is not needed any more.
    Release,
    /// Fill the buffer.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes, at most [`TRANSFER_MAX`].
        len: u32,
    },
    /// Fill the buffer from a snapshot.
    ReadSnapshot {
        /// Which.
        snapshot: Box<Uuid>,
        /// First byte.
        offset: u64,
        /// Bytes, at most [`TRANSFER_MAX`].
        len: u32,
    },
    /// Write the buffer.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes, at most [`TRANSFER_MAX`].
        len: u32,
        /// To the media before the answer.
        durable: bool,
    },
    /// Make a range read as zeros and give its space back (Unmap and Write Zeroes alike).
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// To the media before the answer.
        durable: bool,
    },
    /// Make everything that was answered before durable.
    Flush {
        /// The nexus counts its flushes.
        number: u64,
    },
    /// Tell of each block whether it is there, verified, and a hash of its content: fills the
    /// buffer with a [`Comparison`]. Read for this answer, never from a cache.
    Compare {
        /// Of a snapshot, or of the replica as it is.
        snapshot: Option<Box<Uuid>>,
        /// First byte.
        offset: u64,
        /// Bytes, at most [`REGION`].
        len: u32,
    },
    /// List the marked regions ([`Answer::Marks`]).
    Marks {
        /// Of a snapshot, or of the replica as it is.
        snapshot: Option<Box<Uuid>>,
    },
    /// Clear the marks of these regions (first, number) unless they were written after flush
    /// `flush` was carried out.
    Clean {
        /// Number of a flush.
        flush: u64,
        /// First region and number of regions, each, ascending.
        regions: Box<[(u32, u32)]>,
    },
    /// Flush, and take a snapshot, durably.
    Snapshot {
        /// Its identity.
        uuid: Box<Uuid>,
    },
    /// Let a snapshot go.
    DeleteSnapshot {
        /// Which.
        uuid: Box<Uuid>,
    },
    /// Grow to this size, durably.
    Resize {
        /// Bytes.
        bytes: u64,
    },
}

/// What a replica answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// To a fence.
    Fenced(Box<Fenced>),
    /// To [`Command::Marks`]: first region and number of regions, each, ascending.
    Marks(Box<[(u32, u32)]>),
}

/// Where a replica stands that was fenced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fenced {
    /// Its instance.
    pub instance: u64,
    /// Epoch and version of the copy that it had before this fence; none: it had none, so it is
    /// new or was wiped.
    pub copy: Option<(u64, u64)>,
    /// Marked regions: first and number; of the replica, and of its snapshots that the record that
    /// came with the fence does not name. They may overlap.
    pub marks: Box<[(u32, u32)]>,
    /// Number of the last flush that it carried out.
    pub flush: u64,
    /// Bytes.
    pub bytes: u64,
    /// Its snapshots, oldest first.
    pub snapshots: Box<[Uuid]>,
}

/// Why a replica did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The association ended. Whether the command took effect, or still will, is not known.
    Gone,
    /// The replica obeys this epoch, or another owner of the same: the asker is not the owner.
    Conflict {
        /// The epoch that the replica obeys.
        epoch: u64,
    },
    /// The replica's copy of the record is newer than the one that came with a fence: the store
    /// is not current.
    CopyNewer {
        /// Of the replica's copy.
        epoch: u64,
        /// Of the replica's copy.
        version: u64,
    },
    /// The replica's copy names another store.
    StoreDiffers,
    /// No space. Of a [`Command::Zero`] a part may have taken effect.
    NoSpace,
    /// This byte and its block cannot be read; others may.
    Media(u64),
    /// The device of the replica failed.
    Failed,
    /// No such snapshot, or not in this state: nothing was done.
    Invalid,
}

/// How many bytes of a buffer a comparison of that many bytes fills.
#[must_use]
pub const fn comparison_bytes(len: u32) -> u32 {
    let blocks = len / BLOCK as u32;
    blocks.div_ceil(4) + blocks * 16
}

/// What a replica says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Reads as zeros, or was never written.
    Zero,
    /// Matches its checksum; the hash of its content.
    Verified(u128),
    /// Its checksum may lag behind; the hash of its content.
    Unverified(u128),
    /// Cannot be read.
    Bad,
}

/// The answer to a [`Command::Compare`]: two bits a block, four to a byte, then 16 bytes a block,
/// little endian.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a>(&'a [u8]);

impl<'a> Comparison<'a> {
    /// An answer over `len` bytes.
    #[must_use]
    pub fn of(bytes: &'a [u8], len: u32) -> Option<Self> {
        bytes.get(..comparison_bytes(len) as usize).map(Self)
    }

    /// What it says of the block at this position.
    #[must_use]
    pub fn block(&self, at: usize) -> Option<Content> {
        // Every block has 16 bytes and a quarter of a byte.
        let blocks = self.0.len() * 4 / 65;
        if at >= blocks {
            return None;
        }
        let from = blocks.div_ceil(4) + at * 16;
        let hash = self.0.get(from..)?.first_chunk().map(|bytes| u128::from_le_bytes(*bytes))?;
        Some(match self.0[at / 4] >> (at % 4 * 2) & 3 {
            0 => Content::Zero,
            1 => Content::Verified(hash),
            2 => Content::Unverified(hash),
            _ => Content::Bad,
        })
    }

    /// Writes what is to be said of a block into an answer over `blocks` blocks, whose bytes were
    /// zeros.
    pub fn put(bytes: &mut [u8], blocks: usize, at: usize, content: Content) {
        let (bits, hash) = match content {
            Content::Zero => (0, 0),
            Content::Verified(hash) => (1, hash),
            Content::Unverified(hash) => (2, hash),
            Content::Bad => (3, 0),
        };
        bytes[at / 4] |= bits << (at % 4 * 2);
        let from = blocks.div_ceil(4) + at * 16;
        bytes[from..from + 16].copy_from_slice(&u128::to_le_bytes(hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_says_what_was_put_in() {
        for blocks in [1usize, 2, 3, 4, 5, 7, 31, 32, 33, 255, 256] {
            let len = u32::try_from(blocks).unwrap() * BLOCK as u32;
            let mut bytes = alloc::vec![0; comparison_bytes(len) as usize];
            let content = |at: usize| match at % 4 {
                0 => Content::Zero,
                1 => Content::Verified(u128::MAX - at as u128),
                2 => Content::Unverified(at as u128),
                _ => Content::Bad,
            };
            for at in 0..blocks {
                Comparison::put(&mut bytes, blocks, at, content(at));
            }
            let comparison = Comparison::of(&bytes, len).unwrap();
            for at in 0..blocks {
                assert_eq!(comparison.block(at), Some(content(at)), "{at} of {blocks}");
            }
            assert_eq!(comparison.block(blocks), None);
        }
        assert_eq!(comparison_bytes(1 << 20), 4160);
    }
}
