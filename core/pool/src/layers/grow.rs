//! Making the pool as large as its device has become.
//!
//! ```text
//! Bitmaps -> Flushing -> Superblock -> done
//! ```
//! The bitmaps of the new slabs are on the media before the superblock names the slabs; until it
//! does, the pool is what it was. The copy of the superblock at the old end stays where it is,
//! between the slabs.

use alloc::vec::Vec;

use braid_block::{Class, Instant, Key, Memory};

use super::{Progress, Stage};
use crate::geometry::Layout;
use crate::job::Owner;
use crate::layout::{BLOCK, PAIR, SEGMENTS_MAX, Segment};
use crate::space::Slab;
use crate::{Done, Failure, Pool};

/// Where a growing pool stands.
#[derive(Debug)]
pub(super) enum Growing {
    /// Writing the bitmaps of this slab.
    Bitmaps { layout: Layout, slab: usize, job: Option<Key> },
    /// For this flush.
    Flushing { layout: Layout, flush: u64 },
    /// For this version of the superblock.
    Superblock { layout: Layout, version: u64 },
}

impl Pool {
    pub(super) fn grow<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        bytes: u64,
        stage: &mut Stage,
    ) -> Progress<Done> {
        let _ = (mem, now, bytes, stage);
        Err(Failure::Invalid)
    }

    /// The shape of the pool on a larger device; `None` if nothing is gained.
    fn grown(&self, bytes: u64) -> Result<Option<Layout>, Failure> {
        let old = &self.store.layout;
        let bytes = bytes / BLOCK * BLOCK;
        if bytes < old.bytes / BLOCK * BLOCK {
            return Err(Failure::Invalid);
        }
        let (start, end) = (old.bytes.next_multiple_of(BLOCK), bytes - PAIR);
        if start >= end {
            return Ok(None);
        }
        if old.segments.len() == SEGMENTS_MAX {
            return Err(Failure::Limit);
        }
        let mut segments = old.segments.clone();
        segments.push((start, end - start));
        let grown = Layout::new(bytes, old.ring_blocks, old.slab_clusters, segments);
        let grown = grown.ok_or(Failure::Limit)?;
        Ok((grown.slabs.len() > old.slabs.len()).then_some(grown))
    }
}
