//! Finding the journal in its ring.
//!
//! Invariants:
//! 1. The journal begins at the highest `tail` that any valid block tells, even one behind a gap:
//!    a tail is told only when everything before it is in durable pages.
//! 2. It ends at the first block that is not valid, does not chain, or has an incarnation that it
//!    cannot have; what is behind the end was never acknowledged as durable.
//! 3. If a valid block, or the superblock, tells that a later block was durable, then the journal
//!    is damaged, and what it held is not dropped in silence.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Class, Memory};
use zerocopy::FromBytes;

use crate::geometry::{Layout, RING};
use crate::journal::block_crc;
use crate::layout::{BLOCK, CELLS_PER_BLOCK, JOURNAL_MAGIC, JournalHeader, Superblock};
use crate::open::{Opening, Progress};
use crate::{Plant, Pool, Refusal};

/// Blocks of a read.
pub(crate) const WINDOW: u64 = Class::Large.bytes() as u64 / BLOCK;
/// Reads of the ring in flight.
const WINDOWS: usize = 4;

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
}

impl Scan {
    pub(crate) fn new(layout: &Layout) -> Self {
        let len = usize::try_from(layout.ring_blocks).unwrap_or(0);
        Self { next: 0, alone: VecDeque::new(), heads: alloc::vec![Head::default(); len] }
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
                Some(Ok(())) => self.note_heads::<M>(mem.bytes(&io.lease), io.len, first, s),
                _ if u64::from(io.len) > BLOCK => {
                    s.alone.extend(first..first + u64::from(io.len) / BLOCK);
                }
                _ => {}
            }
            mem.free(io.lease);
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
                o.chain = chain;
                Ok(Some(self.chained(o)))
            }
            Err(seq) => Err(Refusal::Damaged { device: self.store.layout.journal_block(seq) }),
        }
    }

    fn note_heads<M: Memory>(&self, bytes: &[u8], len: u32, first: u64, s: &mut Scan) {
        let blocks = bytes[..len as usize].chunks_exact(BLOCK as usize);
        for (slot, block) in (first..).zip(blocks) {
            let found = head::<M>(block, self.store.seed, self.config.plant);
            let ring = s.heads.len() as u64;
            let here = found.filter(|head| head.seq % ring == slot);
            if let (Some(head), Ok(slot)) = (here, usize::try_from(slot)) {
                s.heads[slot] = head;
            }
        }
    }
}
