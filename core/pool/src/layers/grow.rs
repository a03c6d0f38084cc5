//! Making the pool as large as its device has become.
//!
//! ```text
//! Bitmaps -> Flushing -> Superblock -> Superblock -> done
//! ```
//! The bitmaps of the new slabs are on the media before a superblock names the slabs; until it is
//! there, the pool is what it was. Two versions of it are written, so that both slots of the pair
//! at the beginning know the new size: what is put into the new slabs from then on must not hang
//! on one of them. The copy at the old end stays where it is, between the slabs.

use alloc::boxed::Box;

use braid_block::{Class, Key, Memory};

use super::{Progress, Stage};
use crate::codec::{self, Image, Stamp};
use crate::geometry::Layout;
use crate::layout::{BITMAP_WORDS, BLOCK, PAIR, SEGMENTS_MAX, Segment, Superblock};
use crate::map::PageId;
use crate::space::Bits;
use crate::{Device, Done, Failure, Pool, Refusal};

/// Where a growing pool stands.
#[derive(Debug)]
pub(super) enum Growing {
    /// Writing the bitmaps of this slab.
    Bitmaps { grown: Box<Grown>, slab: usize, job: Option<Key> },
    /// For this flush.
    Flushing { grown: Box<Grown>, flush: u64 },
    /// For this version of the superblock, and one more.
    Superblock { grown: Box<Grown>, version: u64, more: bool },
}

/// What the pool becomes.
#[derive(Clone, Debug)]
pub(super) struct Grown {
    block: Superblock,
    layout: Layout,
}

impl Pool {
    pub(super) fn grow<M: Memory>(
        &mut self,
        mem: &mut M,
        bytes: u64,
        stage: &mut Stage,
    ) -> Progress<Done> {
        let Stage::Growing(growing) = stage else {
            let Some(grown) = self.grown(bytes)? else { return Ok(Some(Done::default())) };
            let slab = self.store.layout.slabs.len();
            *stage = Stage::Growing(Growing::Bitmaps { grown, slab, job: None });
            return self.grow(mem, bytes, stage);
        };
        let next = match growing {
            Growing::Bitmaps { grown, slab, job } => {
                if !self.write_bitmaps(mem, &grown.layout, slab, job) {
                    return Ok(None);
                }
                Growing::Flushing { grown: grown.clone(), flush: self.ask_sync() }
            }
            Growing::Flushing { grown, flush } => {
                if self.sync.done() < *flush {
                    return Ok(None);
                }
                self.superblock.bytes = grown.block.bytes;
                self.superblock.segment_count = grown.block.segment_count;
                self.superblock.segments = grown.block.segments;
                self.superblock.reserve_clusters = grown.block.reserve_clusters;
                let version = self.superblocks.ask();
                Growing::Superblock { grown: grown.clone(), version, more: true }
            }
            Growing::Superblock { version, .. } if self.superblocks.done() < *version => {
                return Ok(None);
            }
            Growing::Superblock { grown, more: true, .. } => {
                let version = self.superblocks.ask();
                Growing::Superblock { grown: grown.clone(), version, more: false }
            }
            Growing::Superblock { grown, .. } => {
                self.store.space.grow(&grown.layout, grown.block.reserve_clusters.get());
                self.store.layout = grown.layout.clone();
                self.config.device.bytes = bytes;
                return Ok(Some(Done::default()));
            }
        };
        *growing = next;
        self.again();
        self.grow(mem, bytes, stage)
    }

    /// What the pool becomes on a larger device; `None` if nothing is gained.
    fn grown(&self, bytes: u64) -> Result<Option<Box<Grown>>, Failure> {
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
        let mut block = self.superblock;
        block.bytes = bytes.into();
        block.segments[old.segments.len()] =
            Segment { start: start.into(), bytes: (end - start).into() };
        block.segment_count = u32::try_from(old.segments.len() + 1).unwrap_or(u32::MAX).into();
        // As the next open will judge it.
        let device = Device { bytes, ..self.config.device };
        let layout =
            crate::superblock::layout(&block, &device).map_err(|refusal| match refusal {
                Refusal::Limit => Failure::Limit,
                _ => Failure::Invalid,
            })?;
        if layout.slabs.len() == old.slabs.len() {
            return Ok(None);
        }
        let reserve = u64::from(block.reserve_clusters.get()) * layout.clusters();
        let reserve = reserve.div_ceil(old.clusters().max(1));
        block.reserve_clusters = u32::try_from(reserve).unwrap_or(u32::MAX).into();
        Ok(Some(Box::new(Grown { block, layout })))
    }

    /// Writes the bitmaps of new slabs, one after the other; true when all are written.
    fn write_bitmaps<M: Memory>(
        &mut self,
        mem: &mut M,
        layout: &Layout,
        slab: &mut usize,
        job: &mut Option<Key>,
    ) -> bool {
        let key = match *job {
            None => {
                let Some(key) = self.begin_job(mem, Class::Medium) else {
                    return false;
                };
                *job = Some(key);
                key
            }
            Some(key) => {
                match self.jobs.outcome(key) {
                    Some(Ok(())) => {}
                    // A write that failed has failed the pool.
                    Some(Err(_)) | None => return false,
                }
                self.sync.wrote();
                *slab += 1;
                key
            }
        };
        let Some(place) = layout.slabs.get(*slab) else {
            self.end_job(mem, key);
            return true;
        };
        let number = u32::try_from(*slab).unwrap_or(u32::MAX);
        let empty: Bits = Box::new([0; BITMAP_WORDS]);
        let pages = [PageId::Bitmap(number), PageId::MapBitmap(number)];
        let slots = pages.into_iter().flat_map(|page| [page; 2]);
        let Some(lease) = self.jobs.lease(key) else { return false };
        let bytes = &mut mem.bytes_mut(lease)[..2 * PAIR as usize];
        for ((page, n), bytes) in slots.zip(0u64..).zip(bytes.chunks_mut(BLOCK as usize)) {
            let stamp = Stamp::map(page, place.start + n * BLOCK);
            codec::encode::<M>(bytes, stamp, 0, self.store.seed, Image::Bits(&empty));
        }
        self.job_write(key, 0, 2 * PAIR as u32, place.start);
        false
    }
}
