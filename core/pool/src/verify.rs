//! First writes that are not settled: whether their data has reached the device.
//!
//! Invariants:
//! 1. A block counts as written if its content matches the cell, and else as never written; no
//!    request is answered before that verdict is durable.
//! 2. A block that cannot be read stays written: it may have been flushed, and reads as lost.
//! 3. After a failed flush, what counts as written is written again, for it may be in a cache that
//!    will never be written: the flush of the superblock that follows makes it durable.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use braid_block::{Class, Memory};

use crate::layout::{BLOCK, CLUSTER_BLOCKS};
use crate::open::{Io, Opening, Progress};
use crate::replay::Candidate;
use crate::scan::WINDOW;
use crate::store::{binding, place};
use crate::{Pool, Refusal};

/// A block to be compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    /// First byte on the device.
    offset: u64,
    layer: u32,
    lblock: u64,
    crc: u32,
}

/// How far it is.
#[derive(Debug)]
pub(crate) struct Verify {
    /// By their place on the device.
    doubts: Vec<Doubt>,
    /// Next one to be read.
    next: usize,
    /// Some that are read alone, for the device failed a read of many.
    alone: VecDeque<usize>,
    rejected: Vec<(u32, u64)>,
}

impl Verify {
    pub(crate) fn new(mut doubts: Vec<Doubt>) -> Self {
        doubts.sort_unstable_by_key(|doubt| doubt.offset);
        Self { doubts, next: 0, alone: VecDeque::new(), rejected: Vec::new() }
    }

    /// The next read: first byte, bytes, and how many doubts it settles.
    fn wanted(&self) -> Option<(u64, u64, usize)> {
        if let Some(at) = self.alone.front() {
            return Some((self.doubts[*at].offset, BLOCK, 1));
        }
        let first = self.doubts.get(self.next)?.offset;
        let near = |doubt: &&Doubt| doubt.offset < first + WINDOW * BLOCK;
        let count = self.doubts[self.next..].iter().take_while(near).count();
        let last = self.doubts[self.next + count - 1].offset;
        Some((first, last + BLOCK - first, count))
    }

    fn took(&mut self, count: usize) {
        if self.alone.pop_front().is_none() {
            self.next += count;
        }
    }

    /// Positions of the doubts that a read covers.
    fn covered(&self, io: &Io) -> core::ops::Range<usize> {
        let end = io.offset + u64::from(io.len);
        let from = self.doubts.partition_point(|doubt| doubt.offset < io.offset);
        from..self.doubts.partition_point(|doubt| doubt.offset < end)
    }

    fn compare<M: Memory>(&mut self, bytes: &[u8], io: &Io, tree: impl Fn(u32) -> u64) {
        for at in self.covered(io) {
            let doubt = self.doubts[at];
            let from = usize::try_from(doubt.offset - io.offset).unwrap_or(0);
            let block = &bytes[from..from + BLOCK as usize];
            let stored = M::crc_bytes(block, 0) ^ binding(tree(doubt.layer), doubt.lblock);
            if stored != doubt.crc {
                self.rejected.push((doubt.layer, doubt.lblock));
            }
        }
    }

    /// What was rejected, in runs within a cluster: layer, first block, count.
    fn runs(&mut self) -> Vec<(u32, u64, u16)> {
        self.rejected.sort_unstable();
        self.rejected.dedup();
        let mut runs: Vec<(u32, u64, u16)> = Vec::new();
        for (layer, lblock) in self.rejected.drain(..) {
            match runs.last_mut() {
                Some((l, first, count))
                    if *l == layer
                        && *first + u64::from(*count) == lblock
                        && *first / CLUSTER_BLOCKS == lblock / CLUSTER_BLOCKS =>
                {
                    *count += 1;
                }
                _ => runs.push((layer, lblock, 1)),
            }
        }
        runs
    }
}

impl Pool {
    /// The candidates that the maps still call written, with their places.
    pub(crate) fn to_verify(&self, candidates: &BTreeMap<(u32, u64), Candidate>) -> Vec<Doubt> {
        let place_of = |layer: u32, lblock: u64| {
            let (index, at, block) = place(lblock);
            let map = self.store.map.leaves.get(&(layer, index))?.page.get();
            let phys = map.phys(at).filter(|_| map.own[at] >> block & 1 != 0)?;
            Some(u64::from(phys) * CLUSTER_BLOCKS + u64::from(block))
        };
        candidates
            .iter()
            .filter_map(|((layer, lblock), candidate)| {
                let offset = self.store.layout.block(place_of(*layer, *lblock)?);
                Some(Doubt { offset, layer: *layer, lblock: *lblock, crc: candidate.crc })
            })
            .collect()
    }

    /// Compares blocks with their cells.
    pub(crate) fn verify_on<M: Memory>(
        &mut self,
        mem: &mut M,
        o: &mut Opening,
        v: &mut Verify,
    ) -> Progress {
        while let Some(io) = o.take_any() {
            match io.result {
                Some(Err(error)) if io.writes => {
                    mem.free(io.lease);
                    return Err(Refusal::Device(error));
                }
                Some(Ok(())) if !io.writes => {
                    let layers = &self.store.map.layers;
                    let tree = |id| layers.get(&id).map_or(0, |layer| layer.state().tree);
                    v.compare::<M>(mem.bytes(&io.lease), &io, tree);
                    if self.fetches.dropped.is_some() {
                        self.write_back(o, io);
                        continue;
                    }
                }
                _ if io.writes => {}
                _ if u64::from(io.len) > BLOCK => v.alone.extend(v.covered(&io)),
                _ => {}
            }
            mem.free(io.lease);
        }
        while let Some((offset, len, count)) = v.wanted() {
            let class = if len > BLOCK { Class::Large } else { Class::Small };
            if self.open_read(mem, o, class, offset, len).is_none() {
                break;
            }
            v.took(count);
        }
        if !o.ios.is_empty() || v.wanted().is_some() {
            return Ok(None);
        }
        o.rejected = v.rejected.len() as u64;
        o.clears = v.runs();
        self.recovered(o).map(Some)
    }
}
