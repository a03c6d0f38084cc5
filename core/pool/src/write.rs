//! A write, piece by piece: lock, map, make ready, send, acknowledge.

use arrayvec::ArrayVec;
use braid_block::{Class, Instant, IoError, Key, Lease, Memory};

use crate::effect::Effect;
use crate::layout::{BLOCK, CLUSTER_BLOCKS, Cell, REGION_BLOCKS};
use crate::map::{Look, PageId};
use crate::op::{Kind, PIECES_MAX, Piece, Room, Step, Waiter};
use crate::place::Placed;
use crate::request::Failure;
use crate::store::{binding, place_cluster};
use crate::{Note, Operation, Plant, Pool, token};

/// Bytes of a block, as offsets within a cluster are counted.
pub(crate) const BLOCK_BYTES: u32 = BLOCK as u32;
/// Writes of a piece, at most: both ends, and a cluster of zeros by 16 KiB.
const WRITES_MAX: usize = 18;

impl Pool {
    /// Takes a piece further.
    pub(crate) fn advance<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        if self.state == crate::State::Failed {
            if piece.transfers.in_flight() == 0 {
                self.end_piece(mem, now, key, Some(Failure::Failed));
            }
            return;
        }
        match (piece.step, piece.kind) {
            (Step::Locking, _) => self.lock_piece(mem, now, key),
            (Step::Mapping, Kind::Read) => self.map_read(mem, now, key),
            (Step::Mapping, Kind::Zero) => self.map_zero(mem, now, key),
            (Step::Mapping, Kind::Write | Kind::WriteZeros) => self.map_write(mem, now, key),
            (Step::Merging, _) if piece.transfers.in_flight() == 0 => self.merged(mem, now, key),
            (Step::Verifying, _) => self.verify(mem, now, key),
            (Step::Journaled(seq), _) if self.journal.written >= seq => {
                self.end_piece(mem, now, key, None);
            }
            (Step::Merging | Step::Transfer | Step::Journaled(_), _) => {}
        }
    }

    fn lock_piece<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        if !piece.locked {
            if piece.queued {
                return;
            }
            let unlocked = self.config.plant == Some(Plant::NoLock) && piece.kind != Kind::Read;
            if !unlocked && !self.locks.lock(piece.layer, piece.lcluster, piece.mask(), key) {
                piece.queued = true;
                // What was read is read again under the lock. Who holds it may need the buffer.
                if let Some(side) = piece.side.take() {
                    self.give_back(mem, side);
                }
                return;
            }
            piece.locked = !unlocked;
        }
        piece.step = Step::Mapping;
        self.advance(mem, now, key);
    }

    /// Sets a state and goes on when something else happened; nothing is lost by trying again.
    pub(crate) fn wait_for_page<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        page: PageId,
    ) {
        self.fetch(mem, now, page, Waiter::Piece(key));
    }

    /// The leaf of a piece that changes it: in memory and with a place, or the piece waits or
    /// fails.
    pub(crate) fn leaf_of<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) -> bool {
        let Some(piece) = self.pieces.get(key) else { return false };
        let (layer, (index, _)) = (piece.layer, place_cluster(piece.lcluster));
        if !self.journal.has_room() {
            self.starved.push_back(key);
            self.want_checkpoint();
            return false;
        }
        if let Some(leaf) = self.store.map.leaves.get_mut(&(layer, index)) {
            leaf.used = self.turn;
            return true;
        }
        match self.store.map.look(layer, index) {
            Look::Here => return true,
            Look::Missing(page) => self.wait_for_page(mem, now, key, page),
            Look::Lost(_) => self.end_piece(mem, now, key, Some(self.media(key))),
            Look::Absent => {
                let page = PageId::Leaf(layer, index);
                match self.place_page(mem, now, page, Waiter::Piece(key)) {
                    Placed::Done => return true,
                    Placed::Wait => {}
                    Placed::NoSpace => self.no_space(mem, now, key),
                    Placed::Lost => self.end_piece(mem, now, key, Some(self.media(key))),
                }
            }
        }
        false
    }

    /// The error of a piece that cannot be read: at its first byte.
    pub(crate) fn media(&self, key: Key) -> Failure {
        let piece = self.pieces.get(key);
        let at = piece.map_or(0, |piece| {
            u64::from(piece.lcluster) * (CLUSTER_BLOCKS * BLOCK) + u64::from(piece.start)
        });
        Failure::Media(at)
    }

    /// There is no cluster for a piece: it waits once for those in quarantine.
    fn no_space<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        if !piece.retried && self.store.space.quarantined() > 0 {
            piece.retried = true;
            self.hungry.push_back(key);
            self.again();
            return;
        }
        self.notes.push_back(Note::Full);
        self.end_piece(mem, now, key, Some(Failure::NoSpace));
    }

    fn map_write<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        if !self.leaf_of(mem, now, key) {
            return;
        }
        let Some(piece) = self.pieces.get(key) else { return };
        let (layer, lcluster, touched) = (piece.layer, piece.lcluster, piece.mask());
        let (index, at) = place_cluster(lcluster);
        let Some(leaf) = self.store.map.leaves.get(&(layer, index)) else { return };
        let (phys, own) = (leaf.page.get().phys(at), leaf.page.get().own[at] & touched);
        if let Some(phys) = phys
            && !self.slots_settled(key, phys, touched)
        {
            return;
        }
        if own != 0 {
            let region = region_of(lcluster);
            if !self.region_ready(layer, region, Waiter::Piece(key)) {
                return;
            }
        }
        if self.pieces.get(key).is_some_and(|p| p.kind == Kind::WriteZeros && self.zeros.is_none())
        {
            return self.wait_for_buffer(key);
        }
        if !self.merge_ends(mem, now, key) {
            return;
        }
        if !self.has_room(mem, now, key) {
            return;
        }
        let phys = match phys {
            Some(phys) => phys,
            None => match self.allocate(key, layer, lcluster) {
                Some(phys) => phys,
                None => return self.no_space(mem, now, key),
            },
        };
        self.send(mem, key, phys, own);
    }

    /// Whether no slot that a piece is to write has an unsettled cell; if one has, the piece waits.
    fn slots_settled(&mut self, key: Key, phys: u32, touched: u64) -> bool {
        let first = u64::from(phys) * CLUSTER_BLOCKS;
        let newest = bits(touched).filter_map(|i| self.sync.unsettled(first + u64::from(i))).max();
        let Some(seq) = newest else { return true };
        self.when_settled(seq, Waiter::Piece(key));
        false
    }

    /// Whether all pieces of a write have, or find, the clusters that they lack: one that finds
    /// none must change nothing. If not, the piece waits for the others, or all of them end.
    fn has_room<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) -> bool {
        let Some(piece) = self.pieces.get(key) else { return false };
        let (layer, retried) = (piece.layer, piece.retried);
        let Some(op) = self.ops.get_mut(piece.op) else { return false };
        let failed = op.failure.is_some();
        let Room::Asked { total, ready } = &mut op.room else { return true };
        if failed {
            self.end_piece(mem, now, key, None);
            return false;
        }
        if !ready.contains(&key) {
            ready.push(key);
        }
        if ready.len() < *total as usize {
            self.lend_spare(mem, key);
            return false;
        }
        let (all, op) = (ready.clone(), piece.op);
        if self.recall(key, &all) {
            return false;
        }
        // As it is now: since a piece was ready, zeros may have freed its cluster.
        let lacks = |piece: &&Key| self.cluster_of(**piece).is_none();
        let lacking: ArrayVec<Key, PIECES_MAX> = all.iter().filter(lacks).copied().collect();
        let thick = self.store.map.layers.get(&layer).is_some_and(|l| l.state().thick);
        if !thick && self.store.space.available() < lacking.len() as u64 {
            if !retried && self.store.space.quarantined() > 0 {
                self.no_space(mem, now, key);
                return false;
            }
            self.end_all(mem, now, op, &all);
            return false;
        }
        self.grant(op, &all, &lacking, thick);
        self.ready.extend(all.iter().filter(|piece| **piece != key).map(|key| Waiter::Piece(*key)));
        true
    }

    /// A piece that waits for the others of its write lends them the buffer of last resort: it
    /// merges its ends once more, under the same lock, when it has its turn.
    fn lend_spare<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(piece) = self.pieces.get_mut(key).filter(|_| self.spare.is_none()) else { return };
        if let Some(side) = piece.side.take() {
            piece.merged = false;
            self.give_back(mem, side);
        }
    }

    /// Pieces whose leaf was let go while they waited for the others look for their cluster once
    /// more, for nobody knows whether they have one. Tells whether there are some; the leaves of
    /// the rest stay meanwhile.
    fn recall(&mut self, last: Key, all: &[Key]) -> bool {
        let turn = self.turn;
        let mut gone = ArrayVec::<Key, PIECES_MAX>::new();
        for key in all {
            let Some(piece) = self.pieces.get(*key) else { continue };
            let (index, _) = place_cluster(piece.lcluster);
            match self.store.map.leaves.get_mut(&(piece.layer, index)) {
                Some(leaf) => leaf.used = turn,
                None => gone.push(*key),
            }
        }
        debug_assert!(!gone.contains(&last), "it was just looked at");
        let op = self.pieces.get(last).map(|piece| piece.op);
        if let Some(op) = op.and_then(|op| self.ops.get_mut(op))
            && let Room::Asked { ready, .. } = &mut op.room
        {
            ready.retain(|key| !gone.contains(key));
        }
        self.ready.extend(gone.iter().map(|key| Waiter::Piece(*key)));
        !gone.is_empty()
    }

    /// There is no space for a write: nothing of it was sent, and nothing will be.
    fn end_all<M: Memory>(&mut self, mem: &mut M, now: Instant, op: Key, pieces: &[Key]) {
        if let Some(op) = self.ops.get_mut(op) {
            op.room = Room::Single;
            op.failure = Some(Failure::NoSpace);
        }
        self.notes.push_back(Note::Full);
        for piece in pieces {
            self.end_piece(mem, now, *piece, None);
        }
    }

    /// The pieces of a write go on: those that lack a cluster have one kept for them, the others
    /// keep theirs.
    fn grant(&mut self, op: Key, pieces: &[Key], lacking: &[Key], thick: bool) {
        if let Some(op) = self.ops.get_mut(op) {
            op.room = Room::Granted;
        }
        for key in pieces {
            let Some(piece) = self.pieces.get_mut(*key) else { continue };
            if !lacking.contains(key) {
                piece.pinned = self.locks.pin(piece.layer, piece.lcluster);
            } else if !thick {
                piece.granted = true;
                self.store.space.granted += 1;
            }
        }
    }

    /// Where the cluster of a piece is, whose leaf is in memory; none if it has none.
    fn cluster_of(&self, key: Key) -> Option<u32> {
        let piece = self.pieces.get(key)?;
        let (index, at) = place_cluster(piece.lcluster);
        self.store.map.leaves.get(&(piece.layer, index))?.page.get().phys(at)
    }

    /// A cluster for new data of a layer, if the pool has one to give.
    fn allocate(&mut self, key: Key, layer: u32, lcluster: u32) -> Option<u32> {
        let thick = self.store.map.layers.get(&layer)?.state().thick;
        let granted = self.pieces.get_mut(key).map(|piece| core::mem::take(&mut piece.granted));
        let space = &mut self.store.space;
        let granted = granted.unwrap_or(false);
        space.granted -= u64::from(granted);
        if !(thick || granted) && space.available() == 0 || space.free() == 0 {
            return None;
        }
        let phys = space.find()?;
        if thick {
            space.promised = space.promised.saturating_sub(1);
        }
        self.record(Cell::Alloc { layer, lcluster, phys });
        Some(phys)
    }

    /// Sends a piece's data and its cells: from here on it cannot be taken back.
    fn send<M: Memory>(&mut self, mem: &mut M, key: Key, phys: u32, own: u64) {
        let Some(piece) = self.pieces.get(key) else { return };
        let (layer, lcluster) = (piece.layer, piece.lcluster);
        let (first, count) = piece.blocks();
        let Some(tree) = self.store.map.layers.get(&layer).map(|l| l.state().tree) else { return };
        let region = region_of(lcluster);
        // Who overwrites has seen that it is.
        let was_open = own & piece.mask() == piece.mask() || self.is_open(layer, region);
        let (mut newest, mut lowest) = (0, None);
        for block in first..first + count {
            let lblock = u64::from(lcluster) * CLUSTER_BLOCKS + u64::from(block);
            let crc = self.block_crc(mem, key, block) ^ binding(tree, lblock);
            let is_first = own >> block & 1 == 0;
            let cell = Cell::Write { layer, lblock, first: is_first, crc };
            let seq = if is_first { self.record(cell) } else { self.record_lazy(cell) };
            newest = seq;
            if is_first {
                lowest = lowest.or(Some(seq));
                if self.config.plant != Some(Plant::ReuseEarly) {
                    let slot = u64::from(phys) * CLUSTER_BLOCKS + u64::from(block);
                    self.sync.unsettle(slot, seq);
                }
            }
        }
        if let Some(seq) = lowest {
            self.sync.first_begin(seq);
            if !was_open {
                self.region_written_first(layer, region, newest);
            }
        }
        self.region_begin(layer, region, newest);
        let Some(piece) = self.pieces.get_mut(key) else { return };
        piece.first = lowest;
        if let Some(op) = self.ops.get_mut(piece.op) {
            op.seq = op.seq.max(newest);
        }
        piece.seq = if lowest.is_some() { newest } else { 0 };
        piece.step = Step::Transfer;
        piece.began = Some(self.watch.begin());
        self.sync.data_in_flight += 1;
        self.emit_data(key, phys, own);
    }

    /// CRC32C of the content that a block of a piece gets.
    fn block_crc<M: Memory>(&mut self, mem: &M, key: Key, block: u32) -> u32 {
        let Some(piece) = self.pieces.get(key) else { return 0 };
        let (start, end) = (piece.start, piece.start + piece.len);
        let (from, to) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        let side = side_of(piece, block);
        let crc = if let (Some(at), Some(lease)) = (side, &piece.side) {
            mem.crc(lease, at..at + BLOCK_BYTES, 0)
        } else if piece.kind == Kind::WriteZeros {
            return self.zero_crc;
        } else {
            debug_assert!(start <= from && to <= end, "a whole block");
            let Some(lease) = self.ops.get(piece.op).and_then(|op| op.lease.as_ref()) else {
                return 0;
            };
            let at = piece.at + (from - start);
            if let Some(crc) = self.known_sum(key, at) {
                return crc;
            }
            mem.crc(lease, at..at + BLOCK_BYTES, 0)
        };
        self.counters.crc_blocks += 1;
        crc
    }

    /// The CRC of the block at a byte of a request's buffer, if it came with the request.
    fn known_sum(&self, key: Key, at: u32) -> Option<u32> {
        let op = self.ops.get(self.pieces.get(key)?.op)?;
        let sums = op.sums.as_ref().filter(|_| at.is_multiple_of(BLOCK_BYTES))?;
        sums.get((at / BLOCK_BYTES) as usize)
    }

    /// Sends a piece's bytes: partial blocks from the side where the whole block is to be written,
    /// the rest from the request's buffer in one write.
    fn emit_data(&mut self, key: Key, phys: u32, own: u64) {
        let sector = self.config.device.sector;
        let base = self.store.layout.cluster(phys);
        let Some(piece) = self.pieces.get(key) else { return };
        let (mut from, mut to) = (piece.start, piece.start + piece.len);
        let (first, count) = piece.blocks();
        let last = first + count - 1;
        let whole = |block: u32| {
            let is_side = side_of(piece, block).is_some();
            // Of an owned block only the touched sectors: a tear must not hurt its neighbours.
            is_side && (own >> block & 1 == 0 || sector == BLOCK_BYTES)
        };
        let (head, tail) = (whole(first), last != first && whole(last));
        if head {
            from = to.min((first + 1) * BLOCK_BYTES);
        }
        if tail {
            to = last * BLOCK_BYTES;
        }
        let (kind, at, start) = (piece.kind, piece.at, piece.start);
        let mut writes = ArrayVec::<(braid_block::Span, u64), WRITES_MAX>::new();
        for (is_whole, block) in [(head, first), (tail, last)] {
            if let (true, Some(at), Some(lease)) = (is_whole, side_of(piece, block), &piece.side) {
                let offset = base + u64::from(block) * BLOCK;
                writes.push((lease.span(at, BLOCK_BYTES), offset));
            }
        }
        if kind == Kind::WriteZeros {
            while let (true, Some(zeros)) = (from < to, self.zeros.as_ref()) {
                let len = (to - from).min(Class::Medium.bytes());
                writes.push((zeros.span(0, len), base + u64::from(from)));
                from += len;
            }
        } else if from < to
            && let Some(lease) = self.ops.get(piece.op).and_then(|op| op.lease.as_ref())
        {
            writes.push((lease.span(at + (from - start), to - from), base + u64::from(from)));
        }
        if let Some(piece) = self.pieces.get_mut(key) {
            writes.iter().for_each(|(span, _)| piece.transfers.begin(span.len));
        }
        let token = self.token(token::PIECE, key);
        for (span, offset) in writes {
            self.counters.data_writes += 1;
            self.counters.device_written_bytes += u64::from(span.len);
            self.emit(Effect::Write { token, span, offset });
        }
    }

    /// A transfer of a piece is done.
    pub(crate) fn on_piece_done<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        result: Result<u32, IoError>,
    ) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        let writes = piece.step == Step::Transfer && piece.kind != Kind::Read;
        let over = piece.transfers.end(result);
        if let (Err(error), true, false) = (result, writes, over) {
            // The others may take long, or for ever: nothing is acknowledged meanwhile.
            return self.fail(mem, Operation::Write, self.on_device(key), error);
        }
        if piece.kind == Kind::Read
            && piece.side.is_none()
            && let Some(op) = self.ops.get_mut(piece.op)
        {
            op.transfers -= 1;
            if op.transfers == 0 {
                self.ready.extend(op.parked.drain(..).map(Waiter::Piece));
            }
        }
        if !over {
            return;
        }
        let outcome = piece.transfers.outcome();
        if let Some(mark) = piece.began.take() {
            self.watch.end(mark);
        }
        let (layer, lcluster) = (piece.layer, piece.lcluster);
        if let Some(epoch) = piece.epoch.take() {
            self.reads.end(epoch);
        }
        let (first, seq, step) = (piece.first.take(), piece.seq, piece.step);
        let piece_alone = piece.alone;
        if writes {
            self.sync.data_in_flight -= 1;
            self.sync.wrote();
            self.region_end(layer, region_of(lcluster));
            if let Some(first) = first.filter(|_| outcome.is_ok()) {
                self.sync.first_end(first);
            }
        }
        if self.state == crate::State::Failed {
            return self.end_piece(mem, now, key, Some(Failure::Failed));
        }
        match (step, outcome) {
            (Step::Transfer, Err(error)) if writes => {
                self.fail(mem, Operation::Write, self.on_device(key), error);
            }
            (_, Err(_)) if self.compares(key) => self.compare_singly(mem, now, key),
            (Step::Transfer, Err(IoError::Media | IoError::Device)) => {
                self.read_singly(mem, now, key);
            }
            (Step::Merging, outcome) if piece_alone || outcome.is_err() => {
                self.end_unread(mem, now, key, outcome.is_err());
            }
            (_, Err(_)) => self.end_piece(mem, now, key, Some(self.media(key))),
            (Step::Transfer, Ok(())) if writes && self.journal.written < seq => {
                if let Some(piece) = self.pieces.get_mut(key) {
                    piece.step = Step::Journaled(seq);
                }
                self.when_written(seq, Waiter::Piece(key));
            }
            (Step::Transfer, Ok(())) if writes => self.end_piece(mem, now, key, None),
            (Step::Merging, Ok(())) => self.merged(mem, now, key),
            (_, Ok(())) => {
                if let Some(piece) = self.pieces.get_mut(key) {
                    piece.step = Step::Verifying;
                }
                self.verify(mem, now, key);
            }
        }
    }

    /// Where a piece's first byte is on the device, while the lock of its blocks keeps it there.
    fn on_device(&self, key: Key) -> u64 {
        let start = self.pieces.get(key).map_or(0, |piece| u64::from(piece.start));
        self.cluster_of(key).map_or(0, |phys| self.store.layout.cluster(phys) + start)
    }

    /// A piece has ended: unlocks its blocks and tells its request.
    pub(crate) fn end_piece<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        failure: Option<Failure>,
    ) {
        let Some(mut piece) = self.pieces.remove(key) else { return };
        if let Some(lease) = piece.side.take() {
            self.give_back(mem, lease);
        }
        self.store.space.granted -= u64::from(piece.granted);
        if piece.pinned {
            self.locks.unpin(piece.layer, piece.lcluster);
        }
        if piece.locked {
            self.unlock(piece.layer, piece.lcluster, piece.mask());
        }
        self.piece_ended(mem, now, piece.op, failure);
    }

    /// Unlocks blocks; pieces that waited for them go on.
    pub(crate) fn unlock(&mut self, layer: u32, lcluster: u32, mask: u64) {
        let (locks, pieces, ready) = (&mut self.locks, &mut self.pieces, &mut self.ready);
        locks.unlock(layer, lcluster, mask, |granted| {
            if let Some(piece) = pieces.get_mut(granted) {
                piece.locked = true;
                piece.queued = false;
                ready.push_back(Waiter::Piece(granted));
            }
        });
    }

    /// A buffer, or the piece waits for one. The last resort is a buffer of our own, so that one
    /// piece at a time goes on even if all others are with requests that wait for it.
    pub(crate) fn buffer<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        class: Class,
    ) -> Option<Lease> {
        let lease = mem.alloc(class).or_else(|| self.spare.take());
        if lease.is_none() {
            self.wait_for_buffer(key);
        }
        lease
    }

    fn wait_for_buffer(&mut self, key: Key) {
        let Some(piece) = self.pieces.get_mut(key) else { return };
        if !core::mem::replace(&mut piece.bufferless, true) {
            self.bufferless.push_back(key);
        }
    }

    /// Ends the use of a buffer: our own is kept.
    pub(crate) fn give_back<M: Memory>(&mut self, mem: &mut M, lease: Lease) {
        if self.spare.is_none() && mem.capacity(&lease) == Class::Large.bytes() {
            self.spare = Some(lease);
        } else {
            mem.free(lease);
        }
        if !self.bufferless.is_empty() {
            self.again();
        }
    }

    /// Sees to it that there is a buffer of last resort, and one of zeros.
    pub(crate) fn keep_spare<M: Memory>(&mut self, mem: &mut M) {
        if self.zeros.is_none()
            && let Some(lease) = mem.alloc(Class::Medium)
        {
            mem.bytes_mut(&lease).fill(0);
            self.zeros = Some(lease);
            self.spare = self.spare.take().or_else(|| mem.alloc(Class::Large));
        }
    }
}

/// The region of a cluster.
pub(crate) const fn region_of(lcluster: u32) -> u32 {
    lcluster / (REGION_BLOCKS / CLUSTER_BLOCKS) as u32
}

/// Positions of the bits that are set.
pub(crate) fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let at = word.trailing_zeros();
        (at < 64).then(|| {
            word &= word - 1;
            at
        })
    })
}

/// Where a partial block of a piece is in the buffer beside, if it is one: the first, or the last.
pub(crate) fn side_of(piece: &Piece, block: u32) -> Option<u32> {
    let (start, end) = (piece.start, piece.start + piece.len);
    let (first, _) = piece.blocks();
    let covers = start <= block * BLOCK_BYTES && (block + 1) * BLOCK_BYTES <= end;
    (!covers).then_some(if block == first { 0 } else { BLOCK_BYTES })
}

#[cfg(test)]
mod tests {
    use crate::rig::Rig;
    use crate::{Failure, Note, Request, State, Work, token};
    use alloc::vec::Vec;
    use braid_block::{Class, IoError, Memory};

    /// Takes all space there is, a cluster each from `first` on; tells the next.
    fn fill(rig: &mut Rig, handle: crate::Handle, first: u64) -> u64 {
        for cluster in first.. {
            rig.write(handle, cluster * 64, 0x77);
            rig.run();
            if rig.take_ended().contains(&Err(Failure::NoSpace)) {
                return cluster;
            }
        }
        unreachable!("a pool is full some time")
    }

    #[test]
    fn a_write_of_two_parts_that_was_admitted_finds_its_space_whatever_is_freed() {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 0, 1);
        rig.write(handle, 127, 2);
        rig.run();
        let full = fill(&mut rig, handle, 2);
        // Both clusters are there: the write needs no space.
        let lease = rig.mem.alloc(Class::Large).expect("a buffer");
        rig.mem.bytes_mut(&lease).fill(0x55);
        let work = Work::Write { offset: 48 * 4096, len: 32 * 4096, durable: false };
        let (pool, mem, now) = (&mut rig.pool, &mut rig.mem, rig.now);
        pool.submit(mem, now, Request { tag: 1, handle, work, lease: Some(lease) });
        // The only other block of the first goes, and somebody waits for its space.
        let work = Work::Zero { offset: 0, len: 4096, durable: false };
        pool.submit(mem, now, Request { tag: 2, handle, work, lease: None });
        rig.write(handle, full * 64, 3);
        rig.run();
        let ended: Vec<_> = rig.ended.iter().map(|end| (end.tag, end.result.is_ok())).collect();
        assert!(ended.contains(&(1, true)), "{ended:?}, {:?}", rig.notes);
        rig.take_ended();
        for (block, byte) in [(0, 0), (48, 0x55), (63, 0x55), (64, 0x55), (79, 0x55), (127, 2)] {
            rig.read(handle, block);
            rig.run();
            assert_eq!(rig.take_ended(), [Ok(byte)], "block {block}");
        }
        assert!(rig.notes.contains(&Note::Full));
    }

    #[test]
    fn two_parts_of_a_write_make_do_with_one_buffer_one_after_the_other() {
        let (mut rig, _) = Rig::new();
        let handle = rig.create_fine(&[63, 64], 7);
        let lease = rig.mem.alloc(Class::Small).expect("a buffer");
        rig.mem.bytes_mut(&lease).fill(9);
        rig.mem.exhausted = true;
        let work = Work::Write { offset: (256 << 10) - 512, len: 1024, durable: false };
        rig.ask_with(handle, work, lease);
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(9)], "{}", rig.pool.waiting());
        rig.mem.exhausted = false;
        for (sector, byte) in [(510, 7), (511, 9), (512, 9), (513, 7)] {
            let lease = rig.mem.alloc(Class::Small).expect("a buffer");
            rig.ask_with(handle, Work::Read { offset: sector * 512, len: 512 }, lease);
            rig.run();
            assert_eq!(rig.take_ended(), [Ok(byte)], "sector {sector}");
        }
    }

    #[test]
    fn a_part_whose_map_was_let_go_while_it_waited_has_its_cluster_still() {
        /// Blocks of a leaf.
        const LEAF: u64 = 64 * 256;
        let (mut rig, handle) = Rig::new();
        // The last cluster of a leaf, and the first of the next.
        rig.write(handle, LEAF - 64, 1);
        rig.write(handle, LEAF + 63, 1);
        rig.run();
        fill(&mut rig, handle, 512);
        rig.let_go();
        rig.notes.clear();
        let lease = rig.mem.alloc(Class::Medium).expect("a buffer");
        rig.mem.bytes_mut(&lease).fill(0x55);
        let work = Work::Write { offset: (LEAF - 1) * 4096, len: 2 * 4096, durable: false };
        rig.ask_with(handle, work, lease);
        // The first part finds its leaf; the other waits for its own for long.
        let has = |rig: &Rig, leaf: u32| rig.pool.store.map.leaves.contains_key(&(0, leaf));
        while !has(&rig, 0) {
            rig.finish(0);
            assert!(!has(&rig, 1), "the first is read first");
        }
        for _ in 0..8 {
            rig.turn();
        }
        rig.pool.config.limits.leaves_max = 0;
        rig.turn();
        assert!(!has(&rig, 0), "it was let go");
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(0x55)], "{:?}", rig.notes);
        assert!(!rig.notes.contains(&Note::Full));
    }

    #[test]
    fn a_write_of_which_a_part_failed_fails_the_pool_though_the_rest_hangs() {
        let (mut rig, _) = Rig::new();
        let handle = rig.create_fine(&[], 0);
        let lease = rig.mem.alloc(Class::Medium).expect("a buffer");
        // The first block is written whole, from a buffer beside.
        let work = Work::Write { offset: 512, len: 8192 - 512, durable: false };
        rig.ask_with(handle, work, lease);
        while rig.flying(token::PIECE).is_empty() {
            rig.finish(0);
        }
        let writes = rig.flying(token::PIECE);
        assert_eq!(writes.len(), 2);
        rig.fail(writes[0], IoError::Device);
        assert_eq!(rig.pool.state(), State::Failed);
        assert!(rig.take_ended().is_empty(), "its buffer is with the device");
        rig.run();
        assert_eq!(rig.take_ended(), [Err(Failure::Failed)]);
    }
}
