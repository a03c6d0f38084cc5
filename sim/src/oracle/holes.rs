//! What a pool says is allocated: held against what was written.

use super::block::{Block, NEVER, SECTORS, Touch, ZERO};
use super::{Kind, Oracle, Tick, Uuid, Violation, blocks_of};

impl Oracle {
    /// A pool said, asked at `since`, that a range of sectors is allocated, or a hole.
    ///
    /// # Errors
    /// Why it cannot be so.
    pub(crate) fn end_status(
        &mut self,
        layer: &Uuid,
        (first, sectors): (u64, u64),
        allocated: bool,
        since: Tick,
    ) -> Result<(), Violation> {
        let now = self.tick();
        let touched = self.touched(layer);
        let wrong = |oracle: &Self, block: u64, is: &str| {
            let (name, history) = (oracle.name(layer), oracle.history(layer, block));
            let text = format!("{name} block {block} is {is}, it is said; {history}");
            Err(Violation::new("StatusTells", text))
        };
        for (block, mask) in blocks_of(first, sectors) {
            let was_touched = touched.binary_search(&block).is_ok();
            if allocated && (!was_touched || self.is_hole(layer, block, since)) {
                return wrong(self, block, "allocated");
            }
            if allocated || !was_touched {
                continue;
            }
            if self.is_allocated(layer, block, since) {
                return wrong(self, block, "a hole");
            }
            if self.is_changing(layer, block) {
                if !self.may_be_zero(layer, block, mask, (since, now)) {
                    return wrong(self, block, "a hole");
                }
                continue;
            }
            let values = std::array::from_fn(|s| (mask & 1 << s != 0).then_some(ZERO));
            self.judge(layer, block, values, (since, now))?;
        }
        Ok(())
    }

    /// Whether a block surely has been allocated since a moment.
    fn is_allocated(&self, layer: &Uuid, block: u64, since: Tick) -> bool {
        // Whether a write came before a snapshot's moment is not known.
        let here = Some(&self.layers[layer]).filter(|layer| layer.kind == Kind::Replica);
        let own = here.and_then(|layer| layer.blocks.get(&block));
        let owned = own.is_some_and(|known| known.is_owned(&self.ops, self.certain(known, since)));
        let shown = self.shown(layer, block);
        owned || shown.is_some_and(|known| known.is_certain() && known.base != [ZERO; SECTORS])
    }

    /// Whether something is in flight to a replica's block. A read waits until what it saw is with
    /// the device; a map that is told does not, so it is no sign that what it shows survives a
    /// kill. A snapshot is on the media when it is there, and stays as it is.
    fn is_changing(&self, layer: &Uuid, block: u64) -> bool {
        let in_flight = |touch: &Touch| {
            let op = &self.ops[touch.op as usize];
            op.finish == NEVER && op.over == NEVER
        };
        let here = Some(&self.layers[layer]).filter(|layer| layer.kind == Kind::Replica);
        let here = here.and_then(|layer| layer.blocks.get(&block));
        here.is_some_and(|known| known.touches.iter().any(in_flight))
    }

    /// Whether a replica's block may have been zeros in an interval.
    fn may_be_zero(&self, layer: &Uuid, block: u64, mask: u8, interval: (Tick, Tick)) -> bool {
        let known = &self.layers[layer].blocks[&block];
        let after_crash = known.crashes < self.crashes.len();
        after_crash
            || (0..SECTORS)
                .filter(|sector| mask & 1 << sector != 0)
                .all(|sector| known.values(&self.ops, sector, interval).contains(&ZERO))
    }

    /// Whether a block surely has been a hole since a moment.
    fn is_hole(&self, layer: &Uuid, block: u64, since: Tick) -> bool {
        let layer = &self.layers[layer];
        // What a snapshot shows as zeros it may have all the same.
        let alone = layer.kind == Kind::Replica && !layer.is_above() && !layer.merged;
        let known = layer.blocks.get(&block);
        alone && known.is_some_and(|known| known.is_hole(&self.ops, self.certain(known, since)))
    }

    /// A moment before which what was acknowledged took effect on a block for certain: after a
    /// crash none, until it was read.
    const fn certain(&self, known: &Block, since: Tick) -> Tick {
        if known.crashes < self.crashes.len() { 0 } else { since }
    }

    /// The block that a layer shows: its own, or its parent's.
    fn shown(&self, layer: &Uuid, block: u64) -> Option<&Block> {
        let mut next = Some(*layer);
        while let Some(uuid) = next {
            let layer = &self.layers[&uuid];
            if let Some(known) = layer.blocks.get(&block) {
                return Some(known);
            }
            next = layer.parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Crash, End, Oracle, Uuid};
    use braid_block::BlockSize;

    const V: Uuid = [1; 16];
    const S: Uuid = [2; 16];

    fn replica() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.create(V, 1 << 20, BlockSize::B512, false);
        oracle.made(&V, false);
        oracle
    }

    fn change(oracle: &mut Oracle, first: u64, sectors: u64, zero: bool) {
        let number = oracle.begin_write(&V, first, sectors, zero);
        oracle.end_write(number, End::Done { durable: false });
    }

    /// Whether block 0 may be allocated, and whether it may be a hole.
    fn may(oracle: &Oracle) -> [bool; 2] {
        [true, false].map(|allocated| {
            let mut oracle = oracle.clone();
            let since = oracle.tick();
            oracle.end_status(&V, (0, 8), allocated, since).is_ok()
        })
    }

    #[test]
    fn what_was_written_is_allocated_and_what_was_zeroed_is_not() {
        let mut oracle = replica();
        assert_eq!(may(&oracle), [false, true], "nothing was written");
        change(&mut oracle, 2, 6, false);
        assert_eq!(may(&oracle), [true, false]);
        change(&mut oracle, 0, 7, true);
        assert_eq!(may(&oracle), [true, false], "zeros over a part of it are written");
        change(&mut oracle, 0, 8, true);
        assert_eq!(may(&oracle), [false, true]);
    }

    #[test]
    fn what_is_in_flight_may_be_either() {
        let mut oracle = replica();
        let write = oracle.begin_write(&V, 0, 8, false);
        assert_eq!(may(&oracle), [true, true]);
        oracle.end_write(write, End::Done { durable: false });
        let _zero = oracle.begin_write(&V, 0, 8, true);
        assert_eq!(may(&oracle), [true, true]);
    }

    #[test]
    fn a_hole_that_is_told_of_zeros_in_flight_may_be_gone_after_a_kill() {
        let mut oracle = replica();
        change(&mut oracle, 0, 8, false);
        let _zero = oracle.begin_write(&V, 0, 8, true);
        let since = oracle.tick();
        oracle.end_status(&V, (0, 8), false, since).unwrap();
        oracle.crash(Crash::Kill);
        let mut bytes = [0; 4096];
        for (sector, piece) in (0..).zip(bytes.chunks_exact_mut(512)) {
            crate::payload::fill(piece, 1, sector);
        }
        let since = oracle.tick();
        assert_eq!(oracle.end_read(&V, 0, &bytes, since), Ok(()));
    }

    #[test]
    fn what_is_in_flight_to_a_replica_does_not_change_what_its_snapshot_tells() {
        let mut oracle = replica();
        let first = oracle.begin_write(&V, 0, 8, false);
        let _second = oracle.begin_write(&V, 0, 8, false);
        oracle.snapshot(&V, S);
        oracle.made(&S, false);
        oracle.end_write(first, End::Done { durable: false });
        let since = oracle.tick();
        let mut hole = oracle.clone();
        hole.end_status(&S, (0, 8), false, since).expect("it may be of before both writes");
        let mut bytes = [0; 4096];
        for (sector, piece) in (0..).zip(bytes.chunks_exact_mut(512)) {
            crate::payload::fill(piece, first, sector);
        }
        assert_eq!(oracle.end_read(&S, 0, &bytes, since), Ok(()));
        let since = hole.tick();
        let changed = hole.end_read(&S, 0, &bytes, since).map_err(|violation| violation.invariant);
        assert_eq!(changed, Err("NeverWrongData"), "it was told to be a hole");
    }

    #[test]
    fn above_a_snapshot_zeros_may_be_either_and_content_is_allocated() {
        let mut oracle = replica();
        change(&mut oracle, 0, 8, false);
        oracle.snapshot(&V, S);
        oracle.made(&S, false);
        assert_eq!(may(&oracle), [true, false], "it shows the snapshot's");
        change(&mut oracle, 0, 8, true);
        assert_eq!(may(&oracle), [true, true]);
    }
}
