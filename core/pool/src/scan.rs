//! Finding the journal in its ring.
//!
//! Invariants:
//! 1. The journal begins at the highest `tail` that any valid block tells, even one behind a gap:
//!    a tail is told only when everything before it is in durable pages.
//! 2. It ends at the first block that is not valid, does not chain, or has an incarnation that it
//!    cannot have; what is behind the end was never acknowledged as durable.
//! 3. The ring is read once, and what must be known of the journal before its cells are carried
//!    out is noted on the way: which pairs it gave to pages.
//! 4. If a valid block, or the superblock, tells that a later block was durable, then the journal
//!    is damaged, and what it held is not dropped in silence.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Class, Memory};
use zerocopy::FromBytes;

use crate::geometry::{Layout, RING};
use crate::journal::block_crc;
use crate::layout::{BLOCK, CELLS_PER_BLOCK, Cell, JOURNAL_MAGIC, JournalHeader, Superblock};
use crate::open::{Opening, Progress};
use crate::replay::each_cell;
use crate::{Plant, Pool, Refusal};

/// Blocks of a read.
pub(crate) const WINDOW: u64 = Class::Large.bytes() as u64 / BLOCK;
/// Reads of the ring in flight.
const WINDOWS: usize = 4;
/// Pairs given to pages by blocks of the ring, at most: each is 8 KiB of the pool, so that a ring
/// full of them is damage.
const BIRTHS_MAX: usize = 1 << 22;

/// What is kept of a valid block. Number 0: there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) incarnation: u64,
    pub(crate) tail: u64,
    pub(crate) settled: u64,
    pub(crate) previous: u32,
    pub(crate) crc: u32,
}

/// What a block says, if it is a valid one.
pub(crate) fn head<M: Memory>(bytes: &[u8], seed: u32, plant: Option<Plant>) -> Option<Head> {
    let bytes = bytes.get(..BLOCK as usize)?;
    let (header, _) = JournalHeader::read_from_prefix(bytes).ok()?;
    let crc = header.crc.get();
    if header.magic.get() != JOURNAL_MAGIC || crc != block_crc::<M>(bytes, seed, plant) {
        return None;
    }
    let head = Head {
        seq: header.seq.get(),
        incarnation: header.incarnation.get(),
        tail: header.tail.get(),
        settled: header.settled.get(),
        previous: header.previous.get(),
        crc,
    };
    let sane = head.seq < 1 << 60
        && (1..=head.seq).contains(&head.tail)
        && head.settled < head.seq
        && head.incarnation < 1 << 60
        && usize::from(header.used.get()) <= CELLS_PER_BLOCK;
    sane.then_some(head)
}

/// What the journal is.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// First block that is not in the pages.
    pub(crate) tail: u64,
    /// Last block, and its CRC; less than `tail` if there is nothing to be replayed.
    pub(crate) last: u64,
    pub(crate) crc: u32,
    /// Newest block that a block of the journal calls settled.
    pub(crate) settled: u64,
    /// Newest incarnation that was seen.
    pub(crate) incarnation: u64,
    /// What the ring's slots hold.
    pub(crate) heads: Vec<Head>,
}

impl Chain {
    /// The block with this number, if the ring holds it.
    pub(crate) fn get(&self, seq: u64) -> Option<&Head> {
        let at = seq % (self.heads.len() as u64).max(1);
        self.heads.get(usize::try_from(at).ok()?).filter(|head| head.seq == seq && seq > 0)
    }

    /// Finds the journal among the blocks of the ring.
    fn find(heads: Vec<Head>, found: &Superblock) -> Result<Self, u64> {
        let told = |f: fn(&Head) -> u64| heads.iter().map(f).max().unwrap_or(0);
        let tail = told(|head| head.tail).max(found.tail.get());
        let settled = told(|head| head.settled);
        let newest = told(|head| head.incarnation);
        let durable = settled.max(found.last_seq.get()).max(tail - 1);
        let known = found.incarnation.get();
        let incarnation = newest.max(known);
        let ring = heads.len() as u64;
        let mut chain =
            Self { tail, last: tail - 1, crc: 0, settled: tail - 1, incarnation, heads };
        let mut previous = chain.get(tail - 1).map(|head| head.crc);
        if found.last_seq.get() == tail - 1 {
            previous = Some(found.last_crc.get());
        }
        let mut age = 0;
        while chain.last + 1 - tail < ring {
            let Some(head) = chain.get(chain.last + 1).copied() else { break };
            let chains = previous.is_none_or(|crc| crc == head.previous) && head.incarnation >= age;
            // What was written since the last open bears its incarnation. (Unless the superblock
            // is an old one, for both newer copies are bad.)
            let ours = newest > known || head.seq <= found.last_seq.get();
            if !chains || !(ours || head.incarnation == known) {
                break;
            }
            age = head.incarnation;
            previous = Some(head.crc);
            chain.last += 1;
            chain.settled = chain.settled.max(head.settled);
        }
        chain.crc = previous.unwrap_or(0);
        if chain.last < durable { Err(chain.last + 1) } else { Ok(chain) }
    }
}

/// How far the scan is.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Next block of the ring.
    next: u64,
    /// Blocks that are read alone, for the device failed a read of many.
    alone: VecDeque<u64>,
    heads: Vec<Head>,
    /// Journal block and first byte of each pair that a cell gave to a page.
    births: Vec<(u64, u64)>,
    /// The journal begins no earlier, as far as is known.
    tail: u64,
}

impl Scan {
    pub(crate) fn new(layout: &Layout) -> Self {
        let len = usize::try_from(layout.ring_blocks).unwrap_or(0);
        let heads = alloc::vec![Head::default(); len];
        Self { next: 0, alone: VecDeque::new(), heads, births: Vec::new(), tail: 0 }
    }

    /// Notes the pairs that a block gave to pages, unless the journal begins behind it.
    fn note_births(&mut self, layout: &Layout, head: &Head, block: &[u8]) {
        self.tail = self.tail.max(head.tail);
        if head.seq < self.tail {
            return;
        }
        each_cell(block, |cell, _| {
            let pair = match cell {
                Cell::Page { pair, free: false, .. } => pair.saturating_mul(BLOCK),
                Cell::Alloc { layer: Cell::PAGES, phys, .. } if layout.slab_of(phys).is_some() => {
                    layout.cluster(phys)
                }
                _ => return,
            };
            self.births.push((head.seq, pair));
        });
        if self.births.len() > BIRTHS_MAX {
            let tail = self.tail;
            self.births.retain(|(seq, _)| *seq >= tail);
        }
    }

    /// Next blocks to be read: the first, and how many.
    fn wanted(&self) -> Option<(u64, u64)> {
        if let Some(block) = self.alone.front() {
            return Some((*block, 1));
        }
        let left = self.heads.len() as u64 - self.next;
        (left > 0).then_some((self.next, left.min(WINDOW)))
    }

    fn took(&mut self) {
        if self.alone.pop_front().is_none() {
            self.next = (self.next + WINDOW).min(self.heads.len() as u64);
        }
    }
}

impl Pool {
    /// Reads the ring, and finds the journal in it.
    pub(crate) fn scan_on<M: Memory>(
        &mut self,
        mem: &mut M,
        o: &mut Opening,
        s: &mut Scan,
    ) -> Progress {
        while let Some(io) = o.take_any() {
            let first = (io.offset - RING) / BLOCK;
            match io.result {
                Some(Ok(())) => self.note_blocks::<M>(mem.bytes(&io.lease), io.len, first, s),
                _ if u64::from(io.len) > BLOCK => {
                    s.alone.extend(first..first + u64::from(io.len) / BLOCK);
                }
                _ => {}
            }
            mem.free(io.lease);
            if s.births.len() > BIRTHS_MAX {
                return Err(Refusal::Limit);
            }
        }
        while let Some((first, count)) = s.wanted().filter(|_| o.ios.len() < WINDOWS) {
            let class = if count == 1 { Class::Small } else { Class::Large };
            let (at, len) = (RING + first * BLOCK, count * BLOCK);
            if self.open_read(mem, o, class, at, len).is_none() {
                break;
            }
            s.took();
        }
        if !o.ios.is_empty() || s.wanted().is_some() {
            return Ok(None);
        }
        let heads = core::mem::take(&mut s.heads);
        match Chain::find(heads, &self.superblock) {
            Ok(chain) => {
                // The newest counts: a pair may have changed hands.
                s.births.sort_unstable();
                let ours = |(seq, _): &(u64, u64)| (chain.tail..=chain.last).contains(seq);
                let births = s.births.drain(..).filter(ours);
                self.fetches.born.extend(births.map(|(seq, pair)| (pair, seq)));
                o.chain = chain;
                Ok(Some(self.chained(o)))
            }
            Err(seq) => Err(Refusal::Damaged { device: self.store.layout.journal_block(seq) }),
        }
    }

    fn note_blocks<M: Memory>(&self, bytes: &[u8], len: u32, first: u64, s: &mut Scan) {
        let blocks = bytes[..len as usize].chunks_exact(BLOCK as usize);
        for (slot, block) in (first..).zip(blocks) {
            let found = head::<M>(block, self.store.seed, self.config.plant);
            let ring = s.heads.len() as u64;
            let here = found.filter(|head| head.seq % ring == slot);
            if let (Some(head), Ok(slot)) = (here, usize::try_from(slot)) {
                s.heads[slot] = head;
                s.note_births(&self.store.layout, &head, block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rig::Rig;

    #[test]
    fn after_a_crash_the_ring_is_read_once_and_the_journal_once_more() {
        let (mut rig, handle) = Rig::new();
        for block in 0..40 {
            // A leaf each, so that pages get places.
            rig.write(handle, block * 16_384, 1);
            rig.run();
        }
        let (tail, last) = (rig.pool.journal.tail, rig.pool.journal.written);
        assert!(last > tail, "the journal has something");
        let mut rig = rig.reopen();
        assert!(!rig.pool.fetches.born.is_empty(), "pages with places by the journal");
        let ring = rig.pool.store.layout.ring_blocks;
        for seq in tail..tail + ring {
            let at = rig.pool.store.layout.journal_block(seq);
            let has =
                |(offset, len): &&(u64, u32)| (*offset..offset + u64::from(*len)).contains(&at);
            let times = rig.reads.iter().filter(has).count();
            let most = if seq <= last { 2 } else { 1 };
            assert_eq!(times, most, "journal block {seq} of {tail}..={last}");
        }
        rig.read(handle, 16_384);
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(1)]);
    }
}
