//! The journal: a ring of blocks that chain, and the buffer of cells that are to be written.
//!
//! Invariants:
//! 1. A block is written once; blocks are written in order, one write in flight at a time.
//! 2. `written` is the newest block such that it and all before it are completely written.
//! 3. A block's number says where it is in the ring; it never overwrites a block at or above the
//!    tail that a durable block tells: else a cut could leave neither the old block nor one that
//!    says that it is not needed.
//! 4. Cells that must take effect together are in one block.

use alloc::vec::Vec;

use braid_block::{Class, IoError, Lease, Memory, Span};
use zerocopy::IntoBytes;

use crate::Plant;
use crate::geometry::Layout;
use crate::layout::{BLOCK, CELLS_PER_BLOCK, Cell, JOURNAL_MAGIC, JournalHeader};
use crate::transfer::whole;

/// Blocks of one write: a large buffer.
const BLOCKS_PER_WRITE: u64 = Class::Large.bytes() as u64 / BLOCK;
/// Blocks of the ring that only blocks without cells, images and the like may use: they free it.
const MARGIN: u64 = 6;

/// The journal in memory.
#[derive(Debug)]
pub(crate) struct Journal {
    ring: u64,
    seed: u32,
    pub(crate) incarnation: u64,
    /// Number of the block that the first cell of the buffer will be in.
    next: u64,
    /// Cells to be written, [`CELLS_PER_BLOCK`] a block.
    cells: Vec<[u8; 16]>,
    /// CRC of the last block that was handed out to be written.
    previous: u32,
    /// Everything before this block is in the pages.
    pub(crate) tail: u64,
    /// The newest tail that a written block tells, and that a durable one does.
    pub(crate) written_tail: u64,
    pub(crate) durable_tail: u64,
    /// What blocks say is settled from now on.
    pub(crate) settled: u64,
    /// What the last block that was handed out says of both.
    said: (u64, u64),
    flight: Option<Flight>,
    /// All blocks up to this are written, and what the last of them says is settled.
    pub(crate) written: u64,
    pub(crate) written_settled: u64,
    /// What blocks are encoded into.
    lease: Option<Lease>,
    /// Cells that do not wait for their block.
    lazy: usize,
}

/// The write in flight: its last block, what that says is settled, the tail that it tells, and the
/// bytes of all.
#[derive(Clone, Copy, Debug)]
struct Flight {
    last: u64,
    settled: u64,
    tail: u64,
    len: u32,
}

/// A write of journal blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) span: Span,
    pub(crate) offset: u64,
    pub(crate) blocks: u64,
}

impl Journal {
    /// The journal of a pool whose last block was `last`, with that CRC.
    pub(crate) fn new(layout: &Layout, seed: u32, incarnation: u64, last: u64, crc: u32) -> Self {
        Self {
            ring: layout.ring_blocks,
            seed,
            incarnation,
            next: last + 1,
            cells: Vec::new(),
            previous: crc,
            tail: last + 1,
            written_tail: last + 1,
            durable_tail: last + 1,
            settled: last,
            said: (last + 1, last),
            flight: None,
            written: last,
            written_settled: last,
            lease: None,
            lazy: 0,
        }
    }

    /// The blocks from `tail` on are still needed, and those after `settled` are not settled.
    pub(crate) fn resume(&mut self, tail: u64, settled: u64) {
        (self.tail, self.written_tail, self.durable_tail) = (tail, tail, tail);
        (self.settled, self.written_settled) = (settled, settled);
        self.said = (tail, settled);
    }

    /// Makes sure that there is a buffer to encode blocks into.
    pub(crate) fn prepare<M: Memory>(&mut self, mem: &mut M) -> bool {
        if self.lease.is_none() {
            self.lease = mem.alloc(Class::Large);
        }
        self.lease.is_some()
    }

    /// Gives the buffer back.
    pub(crate) fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        if let Some(lease) = self.lease.take() {
            mem.free(lease);
        }
    }

    /// Number of the block of the newest cell, or of the last block if there is none.
    pub(crate) fn assigned(&self) -> u64 {
        match self.cells.len() {
            0 => self.next - 1,
            n => self.next + ((n - 1) / CELLS_PER_BLOCK) as u64,
        }
    }

    /// Last block that was handed out to be written.
    pub(crate) const fn emitted(&self) -> u64 {
        self.next - 1
    }

    /// CRC of that block.
    pub(crate) const fn last_crc(&self) -> u32 {
        self.previous
    }

    /// Whether cells of ordinary work may be added: some blocks stay for what frees the ring.
    pub(crate) fn has_room(&self) -> bool {
        self.free() > MARGIN.min(self.ring / 3)
    }

    /// Whether the ring gets short of room that a durable word of the tail would give.
    pub(crate) fn wants_tail(&self) -> bool {
        self.durable_tail < self.tail && self.free() <= self.ring / 2
    }

    /// Blocks that can still be written before the tail must move.
    pub(crate) fn free(&self) -> u64 {
        self.ring.saturating_sub(self.assigned() + 1 - self.durable_tail)
    }

    /// Blocks that a crash now would replay.
    pub(crate) fn used(&self) -> u64 {
        self.assigned() + 1 - self.tail
    }

    /// Adds a cell that somebody waits for; tells the number of its block.
    pub(crate) fn push(&mut self, cell: Cell) -> u64 {
        self.cells.push(cell.encode());
        self.assigned()
    }

    /// Adds a cell that can wait until its block is full.
    pub(crate) fn push_lazy(&mut self, cell: Cell) -> u64 {
        self.lazy += 1;
        self.push(cell)
    }

    /// Adds cells with what follows each, all in one block.
    pub(crate) fn push_group(&mut self, group: &[(Cell, &[u8])]) -> u64 {
        let len: usize = group.iter().map(|(cell, _)| 1 + cell.payload_cells()).sum();
        assert!(len <= CELLS_PER_BLOCK, "a group fits in a block");
        let rest = CELLS_PER_BLOCK - self.cells.len() % CELLS_PER_BLOCK;
        if rest < len {
            self.cells.resize(self.cells.len() + rest, [0; 16]);
        }
        for (cell, payload) in group {
            self.cells.push(cell.encode());
            for chunk in payload.chunks(16) {
                let mut raw = [0; 16];
                raw[..chunk.len()].copy_from_slice(chunk);
                self.cells.push(raw);
            }
        }
        self.assigned()
    }

    /// Makes sure that the next `len` cells are in one block.
    pub(crate) fn keep_together(&mut self, len: usize) {
        assert!(len <= CELLS_PER_BLOCK, "a block holds them");
        if CELLS_PER_BLOCK - self.cells.len() % CELLS_PER_BLOCK < len {
            self.seal();
        }
    }

    /// Ends the block that is being filled: later cells are in a later one.
    pub(crate) fn seal(&mut self) -> u64 {
        let rest = self.cells.len() % CELLS_PER_BLOCK;
        if rest != 0 {
            self.cells.resize(self.cells.len() + CELLS_PER_BLOCK - rest, [0; 16]);
        }
        self.assigned()
    }

    /// Whether nothing waits to be written, and nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.cells.is_empty() && self.flight.is_none()
    }

    /// Whether a write is in flight.
    pub(crate) const fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether somebody waits for a cell of the buffer.
    pub(crate) fn is_urgent(&self) -> bool {
        self.cells.len() > self.lazy
    }

    /// Whether a block of the buffer is full.
    pub(crate) fn has_full_block(&self) -> bool {
        self.cells.len() >= CELLS_PER_BLOCK
    }

    /// Whether there are cells to be written.
    pub(crate) fn has_cells(&self) -> bool {
        !self.cells.is_empty()
    }

    /// Whether tail or `settled` moved since the last block said so.
    pub(crate) fn has_news(&self) -> bool {
        self.said != (self.tail, self.settled)
    }

    /// Encodes what is to be written next: what the buffer has, or a block without cells. `None`
    /// if a write is in flight, the ring is full, or there is no buffer.
    pub(crate) fn commit<M: Memory>(
        &mut self,
        mem: &mut M,
        layout: &Layout,
        plant: Option<Plant>,
    ) -> Option<Commit> {
        if self.flight.is_some() || !self.prepare(mem) {
            return None;
        }
        let lease = self.lease.as_ref()?;
        let wanted = (self.cells.len().div_ceil(CELLS_PER_BLOCK) as u64).max(1);
        let to_end = self.ring - self.next % self.ring;
        let room = self.ring - (self.next - self.durable_tail).min(self.ring);
        // The last block is for the one that tells a newer tail: were it used for anything else,
        // nothing could be written ever again.
        let room = room - u64::from(room > 0 && self.tail == self.durable_tail);
        let blocks = wanted.min(to_end).min(room).min(BLOCKS_PER_WRITE);
        if blocks == 0 {
            return None;
        }
        let first = self.next;
        for (block, at) in (first..first + blocks).zip((0..).step_by(BLOCK as usize)) {
            let from = ((block - first) as usize * CELLS_PER_BLOCK).min(self.cells.len());
            let to = (from + CELLS_PER_BLOCK).min(self.cells.len());
            let bytes = &mut mem.bytes_mut(lease)[at..at + BLOCK as usize];
            let header = JournalHeader {
                magic: JOURNAL_MAGIC.into(),
                crc: 0.into(),
                incarnation: self.incarnation.into(),
                seq: block.into(),
                previous: self.previous.into(),
                used: u16::try_from(to - from).unwrap_or(0).into(),
                reserved: 0.into(),
                tail: self.tail.into(),
                settled: self.settled.into(),
                reserved2: [0; 16],
            };
            bytes.fill(0);
            bytes[..size_of::<JournalHeader>()].copy_from_slice(header.as_bytes());
            let cells = self.cells[from..to].as_flattened();
            bytes[size_of::<JournalHeader>()..][..cells.len()].copy_from_slice(cells);
            let crc = block_crc::<M>(bytes, self.seed, plant);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            self.previous = crc;
        }
        let taken = (blocks as usize * CELLS_PER_BLOCK).min(self.cells.len());
        self.cells.drain(..taken);
        self.lazy = self.lazy.min(self.cells.len());
        self.next += blocks;
        self.said = (self.tail, self.settled);
        #[expect(clippy::cast_possible_truncation, reason = "at most a large buffer")]
        let span = lease.span(0, (blocks * BLOCK) as u32);
        let (last, settled, tail) = (self.next - 1, self.settled, self.tail);
        self.flight = Some(Flight { last, settled, tail, len: span.len });
        Some(Commit { span, offset: layout.journal_block(first), blocks })
    }

    /// The write in flight is done; if it failed, nothing more is written.
    ///
    /// # Errors
    /// Why it failed.
    pub(crate) fn on_written(&mut self, result: Result<u32, IoError>) -> Result<(), IoError> {
        let Some(Flight { last, settled, tail, len }) = self.flight.take() else { return Ok(()) };
        whole(result, len)?;
        self.written = last;
        self.written_tail = tail;
        self.written_settled = self.written_settled.max(settled);
        Ok(())
    }
}

/// CRC of a journal block.
pub(crate) fn block_crc<M: Memory>(bytes: &[u8], seed: u32, plant: Option<Plant>) -> u32 {
    let crc = M::crc_bytes(&bytes[..4], seed);
    let crc = M::crc_bytes(&[0; 4], crc);
    match plant {
        Some(Plant::TearRecord) => M::crc_bytes(&bytes[8..bytes.len() / 2], crc),
        _ => M::crc_bytes(&bytes[8..], crc),
    }
}
