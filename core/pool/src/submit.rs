//! Requests: taken, cut into pieces, ended.

use alloc::boxed::Box;

use arrayvec::ArrayVec;
use braid_block::{BlockSize, Class, Instant, Key, Memory, Sums};

use crate::compare::comparison_bytes;
use crate::layout::{BLOCK, CLUSTER, Cell, LEAF_CLUSTERS};
use crate::map::Look;
use crate::op::{Kind, Op, Piece, Room, Step, Waiter};
use crate::request::{COMPARE_MAX, Completion, Done, Failure, Request, Work};
use crate::transfer::Transfers;
use crate::write::{BLOCK_BYTES, bits};
use crate::{Pool, State};

/// Bytes of a leaf.
const LEAF_BYTES: u64 = LEAF_CLUSTERS * CLUSTER;
/// Pieces cut off a request before others have their turn.
const CUTS_AT_ONCE: u32 = 64;
/// Pieces of one long request in work at a time.
const PIECES_AT_ONCE: u32 = 8;
/// Pieces that ask for a buffer again in a turn.
const ASKS_A_TURN: usize = 64;
/// Bytes of the blocks that a piece touches, at most: all of them fit in a buffer, beside.
const PIECE_MAX: u64 = Class::Large.bytes() as u64;

impl Pool {
    /// Takes a request. Its completion comes by `poll_completion`, maybe at once.
    pub fn submit<M: Memory>(&mut self, mem: &mut M, now: Instant, request: Request) {
        self.submit_summed(mem, now, request, None);
    }

    /// The same, and saves a pass over the payload: of a write, those CRCs of blocks in the buffer
    /// that are known are not computed again; of a read that succeeds, all of them are told by
    /// [`Pool::poll_summed`], if it is whole blocks.
    pub fn submit_summed<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        request: Request,
        mut sums: Option<Box<Sums>>,
    ) {
        self.busy = now;
        self.watch.tick(now);
        if let (Work::Read { .. }, Some(sums)) = (request.work, &mut sums) {
            sums.clear();
        }
        let layer = match self.accepts(mem, &request) {
            Ok(layer) => layer,
            Err(failure) => {
                self.counters.errors += 1;
                let Request { tag, lease, .. } = request;
                let completion = Completion { tag, lease, result: Err(failure) };
                self.completions.push_back((completion, sums));
                return;
            }
        };
        let Request { tag, work, lease, .. } = request;
        let mut op = Op {
            tag,
            layer,
            work,
            lease,
            pieces: 0,
            next: 0,
            single: 0,
            failure: None,
            seq: 0,
            zeros: 0,
            unverified: 0,
            transfers: 0,
            parked: ArrayVec::new(),
            counted: false,
            cutting: false,
            room: Room::Single,
            sums,
        };
        op.next = op.range().0;
        op.room = room(&op);
        // `accepts` saw that there is room.
        let Ok(key) = self.ops.insert(op) else { return };
        self.begin(mem, now, key);
    }

    /// Whether a request makes sense; tells its layer.
    fn accepts<M: Memory>(&self, mem: &M, request: &Request) -> Result<u32, Failure> {
        match self.state {
            State::Open => {}
            State::Stopping | State::Stopped => return Err(Failure::Stopping),
            State::Opening | State::Failed => return Err(Failure::Failed),
        }
        let id = self.store.map.layer_of(request.handle).ok_or(Failure::NotFound)?;
        let layer = self.store.map.layers.get(&id).ok_or(Failure::NotFound)?.state();
        let (offset, len, data) = match request.work {
            Work::Read { offset, len } => (offset, u64::from(len), len),
            Work::Write { offset, len, .. } => (offset, u64::from(len), len),
            Work::Zero { offset, len, .. } | Work::Status { offset, len } => (offset, len, 0),
            Work::Compare { offset, len } => (offset, u64::from(len), 0),
            Work::Flush { .. } => (0, 0, 0),
        };
        let compares = matches!(request.work, Work::Compare { .. });
        let unit = match layer.block {
            BlockSize::B512 if !compares => 512,
            BlockSize::B512 => BLOCK,
            BlockSize::B4096 => BLOCK,
        };
        let end = offset.checked_add(len).ok_or(Failure::OutOfRange)?;
        let aligned = offset.is_multiple_of(unit) && len.is_multiple_of(unit);
        if end > layer.blocks * BLOCK || !aligned || data > Class::Large.bytes() {
            return Err(Failure::OutOfRange);
        }
        let changes = matches!(request.work, Work::Write { .. } | Work::Zero { .. });
        let flush = matches!(request.work, Work::Flush { .. });
        if (changes && layer.sealed) || (self.config.read_only && (changes || flush)) {
            return Err(Failure::ReadOnly);
        }
        let room = request.lease.as_ref().map_or(0, |lease| mem.capacity(lease));
        let needs = match request.work {
            Work::Status { .. } => 16,
            Work::Compare { len, .. } if len > COMPARE_MAX => return Err(Failure::OutOfRange),
            Work::Compare { len, .. } => comparison_bytes(len),
            _ => data,
        };
        if room < needs {
            return Err(Failure::Invalid);
        }
        if self.ops.is_full() { Err(Failure::Limit) } else { Ok(id) }
    }

    /// Begins a request, or lets it wait while its layer is held.
    pub(crate) fn begin<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let changes = matches!(op.work, Work::Write { .. } | Work::Zero { .. });
        if changes {
            let Some(layer) = self.store.map.layers.get_mut(&op.layer) else {
                op.failure = Some(Failure::NotFound);
                return self.finish(mem, key);
            };
            if layer.held {
                layer.waiting.push_back(key);
                return;
            }
            layer.writes += 1;
            op.counted = true;
            self.sync.took_write();
            self.regions.took_write();
        }
        match op.work {
            Work::Flush { number } => {
                if let Some(number) = number {
                    let layer = op.layer;
                    if !self.journal.has_room() || !self.unnumbered.is_empty() {
                        // The last blocks of the ring are for what frees it; and who comes when
                        // there is room again comes after those who wait, for numbers ascend.
                        self.unnumbered.push_back(key);
                        return self.want_checkpoint();
                    }
                    self.record(Cell::Flush { layer, number });
                }
                if self.flush(key, self.journal.assigned()) {
                    self.finish(mem, key);
                }
            }
            Work::Status { .. } => self.status(mem, now, key),
            Work::Compare { .. } => self.begin_comparison(mem, now, key),
            Work::Read { .. } | Work::Write { .. } | Work::Zero { .. } => self.cut(mem, now, key),
        }
    }

    /// A request that was held goes on; a snapshot may have given its replica a new layer.
    pub(crate) fn let_go<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, layer: u32) {
        if let Some(op) = self.ops.get_mut(key) {
            op.layer = layer;
        }
        self.begin(mem, now, key);
    }

    /// A request goes on that waited for itself or for a page.
    pub(crate) fn resume_op<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        match self.ops.get(key).map(|op| op.work) {
            Some(Work::Status { .. }) => self.status(mem, now, key),
            Some(_) => self.cut(mem, now, key),
            None => {}
        }
    }

    /// Cuts pieces off a request, as many as may be in work, and starts them.
    pub(crate) fn cut<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let most = self.ops.capacity();
        for _ in 0..CUTS_AT_ONCE {
            let Some(op) = self.ops.get_mut(key) else { return };
            let (offset, end) = op.range();
            let kind = match op.work {
                Work::Read { .. } | Work::Compare { .. } => Kind::Read,
                Work::Write { .. } => Kind::Write,
                Work::Zero { .. } => Kind::Zero,
                Work::Flush { .. } | Work::Status { .. } => return,
            };
            op.cutting = false;
            let (at, layer) = (op.next, op.layer);
            let crowded = op.pieces > 0 && self.pieces.len() >= most;
            if at == end || op.failure.is_some() {
                if op.pieces == 0 {
                    self.all_done(mem, key);
                }
                return;
            }
            if kind == Kind::Zero && (op.pieces >= PIECES_AT_ONCE || crowded) {
                return;
            }
            let end = match op.work {
                // One piece at a time: each has a buffer of its own.
                Work::Compare { .. } if op.pieces > 0 => return,
                Work::Compare { .. } if at < op.single => at + BLOCK,
                Work::Compare { .. } => end.min((at / PIECE_MAX + 1) * PIECE_MAX),
                _ => end,
            };
            let (len, kind) = next_piece(at, end, kind);
            op.cutting = true;
            if kind == Kind::Zero && self.is_bare(layer, at) {
                // Nothing is mapped there: a leaf at a time.
                let skipped = (at / LEAF_BYTES + 1) * LEAF_BYTES;
                if let Some(op) = self.ops.get_mut(key) {
                    op.next = skipped.min(end);
                }
                continue;
            }
            let Some(op) = self.ops.get_mut(key) else { return };
            op.next += len;
            op.pieces += 1;
            let Ok(piece) = self.pieces.insert(piece(key, layer, kind, at, len, at - offset))
            else {
                return;
            };
            self.advance(mem, now, piece);
        }
        if let Some(op) = self.ops.get_mut(key) {
            op.cutting = false;
            self.ready.push_back(Waiter::Op(key));
        }
    }

    /// Whether nothing is mapped in the leaf of a byte, not even in a parent that could show
    /// through.
    fn is_bare(&self, layer: u32, at: u64) -> bool {
        let index = u32::try_from(at / LEAF_BYTES).unwrap_or(u32::MAX);
        let map = &self.store.map;
        let mut next = Some(layer);
        while let Some(id) = next {
            if map.look(id, index) != Look::Absent {
                return false;
            }
            next = map.layers.get(&id).and_then(|layer| layer.state().parent);
        }
        true
    }

    /// A piece of a request has ended.
    pub(crate) fn piece_ended<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        failure: Option<Failure>,
    ) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.pieces -= 1;
        op.failure = op.failure.or(failure);
        if let (Some(_), Room::Asked { ready, .. }) = (failure, &op.room) {
            // The others wait for this one.
            self.ready.extend(ready.iter().map(|piece| Waiter::Piece(*piece)));
        }
        if !op.cutting {
            self.cut(mem, now, key);
        }
    }

    /// All of a request is done; it may have to reach the media.
    fn all_done<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let durable = match op.work {
            Work::Write { durable, .. } | Work::Zero { durable, .. } => durable,
            _ => false,
        };
        // A write waits for its own cells; zeros may have met what an earlier request zeroed.
        let covers = match op.work {
            Work::Write { .. } => op.seq,
            _ => self.journal.assigned(),
        };
        if durable && op.failure.is_none() && !self.flush(key, covers) {
            return;
        }
        self.finish(mem, key);
    }

    /// Ends a request.
    pub(crate) fn finish<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(mut op) = self.ops.remove(key) else { return };
        if let (Work::Read { .. }, Some(sums)) = (op.work, &mut op.sums) {
            for block in bits(op.zeros) {
                sums.set(block as usize, self.zero_crc);
            }
        }
        if let (Some(lease), true) = (&op.lease, op.zeros != 0 && op.failure.is_none()) {
            Self::zero_rest(mem, lease, op.zeros);
        }
        if let (true, Some(layer)) = (op.counted, self.store.map.layers.get_mut(&op.layer)) {
            layer.writes -= 1;
            // A snapshot waits for the last of them; everybody else looks in this turn anyway.
            self.again |= layer.held;
        }
        let counters = &mut self.counters;
        let result = match op.failure {
            Some(failure) => {
                counters.errors += 1;
                Err(failure)
            }
            None => {
                match op.work {
                    Work::Read { len, .. } => {
                        counters.reads += 1;
                        counters.read_bytes += u64::from(len);
                    }
                    Work::Write { len, .. } => {
                        counters.writes += 1;
                        counters.written_bytes += u64::from(len);
                    }
                    Work::Zero { .. } => counters.zeroes += 1,
                    Work::Flush { .. } => counters.flushes += 1,
                    Work::Status { .. } | Work::Compare { .. } => {}
                }
                let count = if let Work::Status { .. } = op.work { op.pieces } else { 0 };
                Ok(Done { count, handle: None, unverified: op.unverified })
            }
        };
        let Op { tag, lease, sums, .. } = op;
        self.completions.push_back((Completion { tag, lease, result }, sums));
    }

    /// Lets pieces go on that waited for room in the journal, or for a buffer.
    pub(crate) fn requests_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let before = (self.ops.len(), self.pieces.len());
        if self.journal.has_room() {
            for key in core::mem::take(&mut self.unnumbered) {
                self.begin(mem, now, key);
            }
            while let Some(key) = self.starved.pop_front() {
                self.ready.push_back(Waiter::Piece(key));
            }
        }
        self.keep_spare(mem);
        // Who frees buffers does not tell: whenever something happens, they are asked for again.
        // One turn asks for some, and another at once for the rest.
        if self.unasked == 0 {
            self.unasked = self.bufferless.len();
        }
        for _ in 0..self.unasked.min(ASKS_A_TURN) {
            self.unasked -= 1;
            let Some(key) = self.bufferless.pop_front() else { break };
            if let Some(piece) = self.pieces.get_mut(key) {
                piece.bufferless = false;
            }
            self.advance(mem, now, key);
        }
        self.unasked = self.unasked.min(self.bufferless.len());
        self.again |= self.unasked > 0;
        // Who had his turn before may have waited for what ended now.
        self.again |= before != (self.ops.len(), self.pieces.len());
    }

    /// Ends everything that the device does not hold; the rest follows when it lets go.
    pub(crate) fn fail_requests<M: Memory>(&mut self, mem: &mut M) {
        let pieces: alloc::vec::Vec<Key> = self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.transfers.in_flight() == 0)
            .map(|(key, _)| key)
            .collect();
        for key in pieces {
            self.end_piece(mem, Instant::ZERO, key, Some(Failure::Failed));
        }
        let idle: alloc::vec::Vec<Key> =
            self.ops.iter().filter(|(_, op)| op.pieces == 0).map(|(key, _)| key).collect();
        for key in idle {
            if let Some(op) = self.ops.get_mut(key) {
                op.failure = op.failure.or(Some(Failure::Failed));
                op.counted = false;
            }
            self.finish(mem, key);
        }
    }
}

/// How a write asks for space.
fn room(op: &Op) -> Room {
    let (mut at, end) = op.range();
    let mut total = 0;
    while at < end && matches!(op.work, Work::Write { .. }) {
        at += next_piece(at, end, Kind::Write).0;
        total += 1;
    }
    if total < 2 {
        return Room::Single;
    }
    Room::Asked { total, ready: ArrayVec::new() }
}

/// Bytes of the next piece, and what it does: within a cluster, whole blocks apart from partial
/// ones where zeros are concerned.
fn next_piece(at: u64, end: u64, kind: Kind) -> (u64, Kind) {
    let in_cluster = (at / CLUSTER + 1) * CLUSTER - at;
    let len = (end - at).min(in_cluster);
    if at.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK) {
        return (len, kind);
    }
    match kind {
        Kind::Zero if !at.is_multiple_of(BLOCK) => {
            (len.min((at / BLOCK + 1) * BLOCK - at), Kind::WriteZeros)
        }
        Kind::Zero if len >= BLOCK => (len / BLOCK * BLOCK, Kind::Zero),
        Kind::Zero => (len, Kind::WriteZeros),
        // Never within a block: of one that is written first, each piece would write the whole.
        _ => (len.min(at / BLOCK * BLOCK + PIECE_MAX - at), kind),
    }
}

fn piece(op: Key, layer: u32, kind: Kind, at: u64, len: u64, in_buffer: u64) -> Piece {
    #[expect(clippy::cast_possible_truncation, reason = "within a cluster, and a layer's limits")]
    let (lcluster, start, len, at) =
        ((at / CLUSTER) as u32, (at % CLUSTER) as u32, len as u32, in_buffer as u32);
    Piece {
        op,
        kind,
        step: if kind == Kind::Read { Step::Mapping } else { Step::Locking },
        layer,
        lcluster,
        start,
        len,
        at,
        locked: false,
        queued: false,
        bufferless: false,
        transfers: Transfers::default(),
        seq: 0,
        first: None,
        epoch: None,
        side: None,
        runs: crate::op::Runs::default(),
        merged: false,
        retried: false,
        granted: false,
        pinned: false,
        rest: 0,
        alone: false,
        began: None,
    }
}

const _: () = assert!(BLOCK_BYTES as u64 == BLOCK);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;

    #[test]
    fn many_that_wait_for_a_buffer_get_one_each_in_its_turn() {
        let (mut rig, _) = Rig::new();
        let handle = rig.create_fine(&[0], 9);
        let leases: ArrayVec<_, 60> =
            (0..60).map(|_| rig.mem.alloc(Class::Small).expect("a buffer")).collect();
        rig.mem.exhausted = true;
        // What is our own serves one at a time.
        rig.pool.spare = None;
        for lease in leases {
            let work = Work::Read { offset: 512, len: 512 };
            let request = Request { tag: 1, handle, work, lease: Some(lease) };
            rig.pool.submit(&mut rig.mem, rig.now, request);
        }
        rig.turn();
        assert_eq!(rig.pool.bufferless.len(), 60);
        rig.run();
        assert!(rig.take_ended().is_empty(), "nobody has a buffer");
        rig.mem.exhausted = false;
        rig.run();
        let ended = rig.take_ended();
        assert_eq!(ended.len(), 60);
        assert!(ended.iter().all(|end| *end == Ok(9)));
    }
}
