//! A read: find the blocks, fetch them, compare them with their checksums.
//!
//! Invariants:
//! 1. Nothing is returned that does not match its checksum, but a block of a region that was open
//!    when the pool was not stopped in order.
//! 2. A mismatch counts only under the block's lock: before, a write may have been on its way.
//! 3. Nothing is returned of a block whose write is not acknowledged yet: its cell may not be
//!    written, and a process that dies would take back what was read. Such a read is repeated under
//!    the lock.

use arrayvec::ArrayVec;
use braid_block::{Class, Instant, Key, Lease, Memory};

use crate::chain::Owner;
use crate::effect::Effect;
use crate::layout::{BLOCK, CLUSTER_BLOCKS, REGION_BLOCKS};
use crate::map::{Look, PageId};
use crate::op::{Kind, PIECE_BLOCKS, Run, Step, Waiter};
use crate::request::Failure;
use crate::store::{binding, mask, place_cluster};
use crate::sums::Sum;
use crate::write::{BLOCK_BYTES, bits, side_of};
use crate::{Note, Pool, token};

/// What came of looking for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolve {
    /// The runs say where they are; what is in none is zero.
    Ready,
    /// This page is to be read first.
    Missing(PageId),
    /// A page on the way is lost.
    Lost,
}

/// What came of comparing blocks.
enum Verdict {
    /// All match, but so many that could not be verified after an unclean stop.
    Good(u32),
    /// A checksum page is to be read first.
    Wait(u64),
    /// A page of the map is.
    WaitMap(PageId),
    /// The block at this position in the cluster does not match.
    Bad(u32),
}

impl Pool {
    /// Finds out where blocks of a cluster are.
    pub(crate) fn resolve(
        &mut self,
        layer: u32,
        lcluster: u32,
        mask: u64,
        runs: &mut ArrayVec<Run, PIECE_BLOCKS>,
    ) -> Resolve {
        runs.clear();
        let (index, at) = place_cluster(lcluster);
        let mut left = mask;
        self.counters.lookups += 1;
        if let Some(leaf) = self.store.map.leaves.get_mut(&(layer, index)) {
            leaf.used = self.turn;
            let map = leaf.page.get();
            if let Some(phys) = map.phys(at) {
                add_runs(runs, layer, phys, map.own[at] & left);
            }
            left &= !map.own[at];
            if left == 0 || map.opaque(at) {
                return Resolve::Ready;
            }
        } else {
            match self.store.map.look(layer, index) {
                Look::Missing(page) => return Resolve::Missing(page),
                Look::Lost(_) => return Resolve::Lost,
                Look::Here | Look::Absent => {}
            }
        }
        match self.store.map.layers.get(&layer).and_then(|l| l.state().parent) {
            Some(parent) => self.resolve_beneath(parent, lcluster, left, runs),
            None => Resolve::Ready,
        }
    }

    /// The same for the sealed layers from `top` down.
    fn resolve_beneath(
        &mut self,
        top: u32,
        lcluster: u32,
        wanted: u64,
        runs: &mut ArrayVec<Run, PIECE_BLOCKS>,
    ) -> Resolve {
        if let Some(owners) = self.store.map.chains.get(top, lcluster) {
            for owner in owners {
                add_runs(runs, owner.layer, owner.phys, owner.blocks & wanted);
            }
            return Resolve::Ready;
        }
        let (index, at) = place_cluster(lcluster);
        let mut owners = ArrayVec::<Owner, PIECE_BLOCKS>::new();
        let (mut left, mut next) = (u64::MAX, Some(top));
        while let (Some(id), true) = (next, left != 0) {
            self.counters.lookups += 1;
            match self.store.map.look(id, index) {
                Look::Missing(page) => return Resolve::Missing(page),
                Look::Lost(_) => return Resolve::Lost,
                Look::Absent => {}
                Look::Here => {
                    let Some(leaf) = self.store.map.leaves.get(&(id, index)) else { break };
                    let map = leaf.page.get();
                    let blocks = map.own[at] & left;
                    if let (Some(phys), true) = (map.phys(at), blocks != 0) {
                        owners.push(Owner { blocks, phys, layer: id });
                    }
                    left &= !map.own[at];
                    if map.opaque(at) {
                        break;
                    }
                }
            }
            next = self.store.map.layers.get(&id).and_then(|l| l.state().parent);
        }
        for owner in &owners {
            add_runs(runs, owner.layer, owner.phys, owner.blocks & wanted);
        }
        self.store.map.chains.put(top, lcluster, &owners);
        Resolve::Ready
    }

    /// Sends the reads of a piece.
    pub(crate) fn map_read<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        let (layer, lcluster, touched) = (piece.layer, piece.lcluster, piece.mask());
        if self.waits_for_write(mem, now, key) {
            return;
        }
        let mut runs = ArrayVec::new();
        match self.resolve(layer, lcluster, touched, &mut runs) {
            Resolve::Ready => {}
            Resolve::Missing(page) => return self.wait_for_page(mem, now, key, page),
            Resolve::Lost if self.compares(key) => return self.all_bad(mem, now, key),
            Resolve::Lost => return self.end_piece(mem, now, key, Some(self.media(key))),
        }
        let compares = self.compares(key);
        if (compares || !self.is_aligned(key)) && !self.side_for_read(mem, key) {
            return;
        }
        if !compares {
            self.fill_zeros(mem, key, touched, &runs);
        }
        let mut asked = None;
        for run in &runs {
            // A page has the sums of far more blocks than a run: both ends tell all.
            let last = (run.count > 1).then(|| run.block + u64::from(run.count) - 1);
            for block in [Some(run.block), last].into_iter().flatten() {
                let page = self.store.sums.lacks(&self.store.layout, block);
                if let Some(page) = page.filter(|_| page != asked) {
                    self.fetch_sums(mem, now, page, Waiter::Piece(key));
                    asked = Some(page);
                }
            }
        }
        let epoch = (!runs.is_empty()).then(|| self.reads.begin());
        let Some(piece) = self.pieces.get_mut(key) else { return };
        piece.epoch = epoch;
        piece.began = (!runs.is_empty()).then(|| self.watch.begin());
        for run in &runs {
            piece.transfers.begin(u32::from(run.count) * BLOCK_BYTES);
        }
        piece.step = if runs.is_empty() { Step::Verifying } else { Step::Transfer };
        piece.runs.set(&runs);
        if let Some(op) = self.ops.get_mut(piece.op).filter(|_| piece.side.is_none()) {
            op.transfers += piece.transfers.in_flight();
        }
        self.emit_reads(key);
        self.verify(mem, now, key);
    }

    /// Whether a read touches a block that is being written: it is repeated under the lock.
    pub(crate) fn waits_for_write<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
    ) -> bool {
        let Some(piece) = self.pieces.get_mut(key) else { return true };
        let (layer, lcluster, touched) = (piece.layer, piece.lcluster, piece.mask());
        if piece.locked || !self.locks.is_locked(layer, lcluster, touched) {
            return false;
        }
        piece.step = Step::Locking;
        self.advance(mem, now, key);
        true
    }

    /// Whether a piece's request begins and ends with a block. If not, all its pieces are read
    /// beside: nothing may be copied into a buffer that the device fills elsewhere.
    fn is_aligned(&self, key: Key) -> bool {
        let op = self.pieces.get(key).and_then(|piece| self.ops.get(piece.op));
        op.is_some_and(|op| {
            let (from, to) = op.range();
            from.is_multiple_of(BLOCK) && to.is_multiple_of(BLOCK)
        })
    }

    /// Blocks of which only a part is wanted are read whole, into a buffer of their own.
    fn side_for_read<M: Memory>(&mut self, mem: &mut M, key: Key) -> bool {
        if self.pieces.get(key).is_some_and(|piece| piece.side.is_some()) {
            return true;
        }
        let blocks = self.pieces.get(key).map_or(0, |piece| piece.blocks().1);
        let class = Class::holding(blocks * BLOCK_BYTES).unwrap_or(Class::Large);
        let Some(lease) = self.buffer(mem, key, class) else { return false };
        if let Some(piece) = self.pieces.get_mut(key) {
            piece.side = Some(lease);
        }
        true
    }

    /// Position of a block of a piece in the buffer that it is read into.
    fn in_buffer(&self, key: Key, block: u32) -> u32 {
        let Some(piece) = self.pieces.get(key) else { return 0 };
        let at = (block - piece.blocks().0) * BLOCK_BYTES;
        if piece.side.is_some() { at } else { piece.at + at }
    }

    /// Zeros what is not there: at once in a buffer beside, at the end in the request's own, which
    /// the device may be filling for another piece.
    fn fill_zeros<M: Memory>(&mut self, mem: &mut M, key: Key, touched: u64, runs: &[Run]) {
        let there =
            runs.iter().fold(0, |all, run| all | mask(u32::from(run.at), u32::from(run.count)));
        let absent = touched & !there;
        let Some(piece) = self.pieces.get(key) else { return };
        if let Some(side) = &piece.side {
            let first = piece.blocks().0;
            for block in bits(absent) {
                let at = ((block - first) * BLOCK_BYTES) as usize;
                mem.bytes_mut(side)[at..at + BLOCK as usize].fill(0);
            }
            return;
        }
        let (first, count) = piece.blocks();
        let at = piece.at / BLOCK_BYTES;
        if let Some(op) = self.ops.get_mut(piece.op) {
            op.zeros &= !mask(at, count);
            op.zeros |= (absent >> first) << at;
        }
    }

    /// Zeros what a read did not find, when the device is done with its buffer.
    pub(crate) fn zero_rest<M: Memory>(mem: &mut M, lease: &Lease, zeros: u64) {
        let mut left = zeros;
        while left != 0 {
            let at = left.trailing_zeros();
            let count = (left >> at).trailing_ones();
            let (from, len) = ((at * BLOCK_BYTES) as usize, (count * BLOCK_BYTES) as usize);
            mem.bytes_mut(lease)[from..from + len].fill(0);
            left &= !mask(at, count);
        }
    }

    fn emit_reads(&mut self, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        let token = self.token(token::PIECE, key);
        for i in 0..piece.runs.len() {
            let Some(piece) = self.pieces.get(key) else { return };
            let run = piece.runs[i];
            let at = self.in_buffer(key, u32::from(run.at));
            let lease = piece.side.as_ref();
            let Some(lease) = lease.or_else(|| self.ops.get(piece.op)?.lease.as_ref()) else {
                return;
            };
            let span = lease.span(at, u32::from(run.count) * BLOCK_BYTES);
            let offset = self.store.layout.block(run.block);
            self.counters.device_reads += 1;
            self.counters.device_read_bytes += u64::from(span.len);
            self.emit(Effect::Read { token, span, offset });
        }
    }

    /// Compares what was read, once all of it and its checksums are there.
    pub(crate) fn verify<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        if piece.step != Step::Verifying || piece.transfers.in_flight() > 0 {
            return;
        }
        if piece.side.is_none() && !piece.runs.is_empty() {
            // The device may still be filling the same buffer for another piece.
            let Some(op) = self.ops.get_mut(piece.op) else { return };
            if op.transfers > 0 {
                if !op.parked.contains(&key) {
                    op.parked.push(key);
                }
                return;
            }
        }
        if self.compares(key) {
            return self.digest(mem, now, key);
        }
        match self.compare(mem, key) {
            Verdict::Wait(page) => self.fetch_sums(mem, now, page, Waiter::Piece(key)),
            Verdict::WaitMap(page) => self.wait_for_page(mem, now, key, page),
            Verdict::Good(unverified) => {
                if !self.waits_for_write(mem, now, key) {
                    self.give(mem, now, key, unverified);
                }
            }
            Verdict::Bad(block) => {
                let Some(piece) = self.pieces.get_mut(key) else { return };
                if piece.locked {
                    return self.report(mem, now, key, block);
                }
                piece.step = Step::Locking;
                self.advance(mem, now, key);
            }
        }
    }

    fn compare<M: Memory>(&mut self, mem: &M, key: Key) -> Verdict {
        let Some(piece) = self.pieces.get(key) else { return Verdict::Good(0) };
        let (layer, lcluster, locked) = (piece.layer, piece.lcluster, piece.locked);
        let tree = self.store.map.layers.get(&layer).map_or(0, |l| l.state().tree);
        let mut unverified = 0;
        for i in 0..piece.runs.len() {
            let Some(piece) = self.pieces.get(key) else { return Verdict::Good(0) };
            let run = piece.runs[i];
            for n in 0..u32::from(run.count) {
                let (block, at) = (run.block + u64::from(n), u32::from(run.at) + n);
                let lblock = u64::from(lcluster) * CLUSTER_BLOCKS + u64::from(at);
                let stored = match self.store.sums.get(&self.store.layout, block) {
                    Sum::Missing(page) => return Verdict::Wait(page),
                    Sum::Unknown => None,
                    Sum::Known(crc) => Some(crc),
                };
                let Some(piece) = self.pieces.get(key) else { return Verdict::Good(0) };
                let lease = piece.side.as_ref();
                let Some(lease) = lease.or_else(|| self.ops.get(piece.op)?.lease.as_ref()) else {
                    return Verdict::Good(0);
                };
                let from = self.in_buffer(key, at);
                let crc = mem.crc(lease, from..from + BLOCK_BYTES, 0);
                self.counters.crc_blocks += 1;
                self.tell_sum(key, from, crc);
                let crc = crc ^ binding(tree, lblock);
                if stored == Some(crc) {
                    continue;
                }
                // Under the lock nothing is on its way: what does not match now never will.
                match self.is_unadopted(run.layer, lblock) {
                    Ok(true) if locked => unverified += 1,
                    Err(page) if locked => return Verdict::WaitMap(page),
                    _ => return Verdict::Bad(at),
                }
            }
        }
        Verdict::Good(unverified)
    }

    /// Tells the CRC of a block that was read to who asked for it.
    fn tell_sum(&mut self, key: Key, at: u32, crc: u32) {
        let Some(piece) = self.pieces.get(key).filter(|piece| piece.side.is_none()) else { return };
        let sums = self.ops.get_mut(piece.op).and_then(|op| op.sums.as_mut());
        if let Some(sums) = sums.filter(|_| at.is_multiple_of(BLOCK_BYTES)) {
            sums.set((at / BLOCK_BYTES) as usize, crc);
        }
    }

    /// Whether a block is in a region that was open when the pool was not stopped in order. Where
    /// it is may be known without its leaf, which knows this; then that is to be read first.
    pub(crate) fn is_unadopted(&self, layer: u32, lblock: u64) -> Result<bool, PageId> {
        let (index, ..) = crate::store::place(lblock);
        if let Look::Missing(page) = self.store.map.look(layer, index) {
            return Err(page);
        }
        let leaf = self.store.map.leaves.get(&(layer, index));
        Ok(leaf.is_some_and(|leaf| leaf.unadopted >> (lblock / REGION_BLOCKS % 64) & 1 != 0))
    }

    /// Hands a piece's bytes over.
    fn give<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, unverified: u32) {
        let Some(piece) = self.pieces.get(key) else { return };
        let Some(op) = self.ops.get_mut(piece.op) else { return };
        op.unverified += unverified;
        self.counters.unverified += u64::from(unverified);
        if let (Some(side), Some(lease)) = (&piece.side, &op.lease) {
            let from = piece.start % BLOCK_BYTES;
            mem.copy(lease, piece.at, side, from..from + piece.len);
        }
        if piece.rest > 0 {
            return self.read_next(mem, key);
        }
        self.end_piece(mem, now, key, None);
    }

    /// The device failed a read of a piece: each of its blocks is read alone, and what cannot be
    /// read then is lost. The others are none of its business.
    pub(crate) fn read_singly<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        let (first, count) = piece.blocks();
        if count == 1 {
            return self.report(mem, now, key, first);
        }
        let mask = piece.mask();
        let own = BLOCK_BYTES - piece.start % BLOCK_BYTES;
        piece.rest += piece.len - own;
        piece.len = own;
        self.begin_anew(mem, key, mask);
    }

    /// Takes the next block of a piece that is read block by block.
    fn read_next<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        let mask = piece.mask();
        (piece.start, piece.at) = (piece.start + piece.len, piece.at + piece.len);
        piece.len = piece.rest.min(BLOCK_BYTES);
        piece.rest -= piece.len;
        self.begin_anew(mem, key, mask);
    }

    /// A piece that had these blocks has others now: it begins when its turn comes.
    fn begin_anew<M: Memory>(&mut self, mem: &mut M, key: Key, mask: u64) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        let (layer, lcluster) = (piece.layer, piece.lcluster);
        let locked = core::mem::replace(&mut piece.locked, false);
        piece.runs.clear();
        piece.step = Step::Mapping;
        if let Some(side) = piece.side.take() {
            self.give_back(mem, side);
        }
        if locked {
            self.unlock(layer, lcluster, mask);
        }
        self.ready.push_back(Waiter::Piece(key));
    }

    /// A block is lost.
    fn report<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, block: u32) {
        let Some(piece) = self.pieces.get(key) else { return };
        let lblock = u64::from(piece.lcluster) * CLUSTER_BLOCKS + u64::from(block);
        if self.has_moved(key, block) {
            return self.map_again(mem, now, key);
        }
        self.note_lost(key, block);
        self.end_piece(mem, now, key, Some(Failure::Media(lblock * BLOCK)));
    }

    /// Whether a block of a piece is not any more where it was read. The lock keeps writes away,
    /// but not reclaim from the layers below.
    pub(crate) fn has_moved(&mut self, key: Key, block: u32) -> bool {
        let Some(piece) = self.pieces.get(key) else { return false };
        let (layer, lcluster) = (piece.layer, piece.lcluster);
        let was = place_in(&piece.runs, block);
        let mut runs = ArrayVec::new();
        let found = self.resolve(layer, lcluster, 1 << block, &mut runs);
        !matches!(found, Resolve::Lost) && place_in(&runs, block) != was
    }

    /// Begins a piece anew from its map.
    pub(crate) fn map_again<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        piece.runs.clear();
        piece.step = Step::Mapping;
        self.advance(mem, now, key);
    }

    /// Tells that a block is lost.
    pub(crate) fn note_lost(&mut self, key: Key, block: u32) {
        let Some(piece) = self.pieces.get(key) else { return };
        let offset = (u64::from(piece.lcluster) * CLUSTER_BLOCKS + u64::from(block)) * BLOCK;
        let device = place_in(&piece.runs, block).map_or(0, |at| self.store.layout.block(at));
        let handle = self.store.map.layers.get(&piece.layer).and_then(|layer| layer.handle);
        self.counters.checksum_errors += 1;
        self.notes.push_back(Note::Media { handle, offset, device });
    }

    /// Makes the partial blocks at a piece's ends whole, in buffers of their own: reads what they
    /// hold, then merges. True when that is done, or there is nothing to be done.
    pub(crate) fn merge_ends<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) -> bool {
        let Some(piece) = self.pieces.get(key) else { return false };
        let (first, count) = piece.blocks();
        let whole = [first, first + count - 1].iter().all(|b| side_of(piece, *b).is_none());
        if whole || piece.merged {
            return true;
        }
        if piece.side.is_none() {
            let Some(lease) = self.buffer(mem, key, Class::Medium) else { return false };
            mem.bytes_mut(&lease)[..2 * BLOCK as usize].fill(0);
            if let Some(piece) = self.pieces.get_mut(key) {
                piece.side = Some(lease);
            }
        }
        self.read_ends(mem, now, key);
        false
    }

    fn read_ends<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        let (layer, lcluster) = (piece.layer, piece.lcluster);
        let (first, count) = piece.blocks();
        let ends = [first, first + count - 1];
        let partial = ends.iter().filter(|block| side_of(piece, **block).is_some());
        let partial = partial.take(if piece.alone { 1 } else { 2 });
        let wanted = partial.fold(0, |all, block| all | 1 << block);
        let mut runs = ArrayVec::new();
        match self.resolve(layer, lcluster, wanted, &mut runs) {
            Resolve::Ready => {}
            Resolve::Missing(page) => return self.wait_for_page(mem, now, key, page),
            Resolve::Lost => return self.end_piece(mem, now, key, Some(self.media(key))),
        }
        // Neighbours may have become one run: each block has a buffer of its own.
        let each: ArrayVec<Run, PIECE_BLOCKS> = runs
            .iter()
            .flat_map(|run| {
                (0..run.count).map(|n| Run {
                    block: run.block + u64::from(n),
                    at: run.at + n,
                    count: 1,
                    layer: run.layer,
                })
            })
            .collect();
        let epoch = (!each.is_empty()).then(|| self.reads.begin());
        let token = self.token(token::PIECE, key);
        let Some(piece) = self.pieces.get_mut(key) else { return };
        piece.epoch = epoch;
        piece.began = (!each.is_empty()).then(|| self.watch.begin());
        piece.step = Step::Merging;
        for _ in &each {
            piece.transfers.begin(BLOCK_BYTES);
        }
        piece.runs.set(&each);
        for i in 0..piece.runs.len() {
            let Some(piece) = self.pieces.get(key) else { return };
            let run = piece.runs[i];
            let at = side_of(piece, u32::from(run.at)).unwrap_or(0);
            let Some(lease) = &piece.side else { continue };
            let span = lease.span(at, BLOCK_BYTES);
            let offset = self.store.layout.block(run.block);
            self.counters.device_reads += 1;
            self.counters.device_read_bytes += BLOCK;
            self.emit(Effect::Read { token, span, offset });
        }
        if each.is_empty() {
            self.merged(mem, now, key);
        }
    }

    /// The device failed a read of partial ends: if there are two, the first is read again alone,
    /// and tells which of them is lost.
    pub(crate) fn end_unread<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        failed: bool,
    ) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        let (first, count) = piece.blocks();
        // Whatever comes of it: if the piece begins anew, it is read as any other.
        match (core::mem::take(&mut piece.alone), piece.runs.len()) {
            (false, 2) => {
                piece.alone = true;
                piece.runs.clear();
                self.read_ends(mem, now, key);
            }
            (true, _) if !failed => {
                let (layer, lcluster, last) = (piece.layer, piece.lcluster, first + count - 1);
                let mut runs = ArrayVec::new();
                self.resolve(layer, lcluster, 1 << last, &mut runs);
                if let Some(piece) = self.pieces.get_mut(key) {
                    piece.runs.set(&runs);
                }
                self.report(mem, now, key, last);
            }
            (true, _) => self.report(mem, now, key, first),
            (false, _) => {
                let block = piece.runs.first().map_or(first, |run| u32::from(run.at));
                self.report(mem, now, key, block);
            }
        }
    }

    /// The blocks at a piece's ends were read: verifies and merges them.
    pub(crate) fn merged<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        let (layer, lcluster) = (piece.layer, piece.lcluster);
        let tree = self.store.map.layers.get(&layer).map_or(0, |l| l.state().tree);
        for i in 0..piece.runs.len() {
            let Some(piece) = self.pieces.get(key) else { return };
            let run = piece.runs[i];
            let lblock = u64::from(lcluster) * CLUSTER_BLOCKS + u64::from(run.at);
            let stored = match self.store.sums.get(&self.store.layout, run.block) {
                Sum::Missing(page) => {
                    return self.fetch_sums(mem, now, page, Waiter::Piece(key));
                }
                Sum::Unknown => None,
                Sum::Known(crc) => Some(crc),
            };
            let Some(piece) = self.pieces.get(key) else { return };
            let at = side_of(piece, u32::from(run.at)).unwrap_or(0);
            let Some(lease) = &piece.side else { continue };
            let crc = mem.crc(lease, at..at + BLOCK_BYTES, 0) ^ binding(tree, lblock);
            self.counters.crc_blocks += 1;
            if stored == Some(crc) {
                continue;
            }
            match self.is_unadopted(run.layer, lblock) {
                Ok(true) => {}
                Ok(false) => return self.report(mem, now, key, u32::from(run.at)),
                Err(page) => return self.wait_for_page(mem, now, key, page),
            }
        }
        self.overlay_ends(mem, key);
        let Some(piece) = self.pieces.get_mut(key) else { return };
        piece.merged = true;
        piece.runs.clear();
        piece.step = Step::Mapping;
        self.advance(mem, now, key);
    }

    /// Puts the request's bytes over what the partial blocks held.
    fn overlay_ends<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        let (first, count) = piece.blocks();
        let (start, end) = (piece.start, piece.start + piece.len);
        let Some(side) = &piece.side else { return };
        let ends = [Some(first), (count > 1).then_some(first + count - 1)];
        for block in ends.into_iter().flatten() {
            let Some(base) = side_of(piece, block) else { continue };
            let from = start.max(block * BLOCK_BYTES);
            let to = end.min((block + 1) * BLOCK_BYTES);
            let at = base + from - block * BLOCK_BYTES;
            if piece.kind == Kind::WriteZeros {
                mem.bytes_mut(side)[at as usize..(at + to - from) as usize].fill(0);
            } else if let Some(lease) = self.ops.get(piece.op).and_then(|op| op.lease.as_ref()) {
                let source = piece.at + (from - start);
                mem.copy(side, at, lease, source..source + (to - from));
            }
            self.counters.copied_blocks += 1;
        }
    }
}

/// Where a block of a cluster is on the device.
fn place_in(runs: &[Run], block: u32) -> Option<u64> {
    let has =
        |run: &&Run| (run.at..run.at + run.count).contains(&u8::try_from(block).unwrap_or(64));
    runs.iter().find(has).map(|run| run.block + u64::from(block) - u64::from(run.at))
}

/// Adds the blocks of a cluster that are owned, neighbours together.
fn add_runs(runs: &mut ArrayVec<Run, PIECE_BLOCKS>, layer: u32, phys: u32, mut own: u64) {
    while own != 0 {
        let at = own.trailing_zeros();
        let count = (own >> at).trailing_ones();
        let block = u64::from(phys) * CLUSTER_BLOCKS + u64::from(at);
        #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
        runs.push(Run { block, at: at as u8, count: count as u8, layer });
        own &= !mask(at, count);
    }
}

#[cfg(test)]
mod tests;
