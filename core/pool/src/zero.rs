//! Making blocks read as zeros, and giving their space back: Write Zeroes and Deallocate alike.

use arrayvec::ArrayVec;
use braid_block::{Instant, Key, Memory};

use crate::layout::{CLUSTER_BLOCKS, Cell};
use crate::map::Look;
use crate::op::{Kind, PIECE_BLOCKS, Run, Step, Waiter};
use crate::read::Resolve;
use crate::store::place_cluster;
use crate::write::{bits, region_of};
use crate::{Plant, Pool};

impl Pool {
    /// Clears or frees the blocks of a piece; blocks that would let a parent's show through get
    /// zeros written.
    pub(crate) fn map_zero<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        let (layer, lcluster, touched) = (piece.layer, piece.lcluster, piece.mask());
        let (index, at) = place_cluster(lcluster);
        let parent = self.store.map.layers.get(&layer).and_then(|l| l.state().parent);
        if parent.is_none() && self.store.map.look(layer, index) == Look::Absent {
            return self.end_piece(mem, now, key, None);
        }
        let beneath = match self.beneath(mem, now, key, parent) {
            Some(beneath) => beneath,
            None => return,
        };
        if beneath == 0 && self.store.map.look(layer, index) == Look::Absent {
            return self.end_piece(mem, now, key, None);
        }
        if !self.leaf_of(mem, now, key) {
            return;
        }
        let Some(leaf) = self.store.map.leaves.get(&(layer, index)) else { return };
        let map = leaf.page.get();
        let (own, phys, opaque) = (map.own[at], map.phys(at), map.opaque(at));
        let beneath = if opaque { 0 } else { beneath };
        let covers = touched == u64::MAX || (own & !touched == 0 && beneath & !touched == 0);
        // A write that was admitted counts on its cluster.
        let whole = covers && !self.locks.is_pinned(layer, lcluster);
        if own & touched == 0 && beneath & touched == 0 {
            // Nothing of it is there; an allocated cluster without blocks may still go.
            if !(whole && phys.is_some() && own == 0) {
                return self.end_piece(mem, now, key, None);
            }
        }
        let seq = if whole {
            self.free_cluster(layer, lcluster, phys)
        } else if beneath & touched != 0 {
            let Some(piece) = self.pieces.get_mut(key) else { return };
            piece.kind = Kind::WriteZeros;
            return self.advance(mem, now, key);
        } else {
            self.clear_blocks(layer, lcluster, phys, own & touched)
        };
        // Its cell is the mark; but a Clean must not take the mark away before a flush.
        self.region_changed(layer, region_of(lcluster), seq);
        let Some(piece) = self.pieces.get_mut(key) else { return };
        piece.step = Step::Journaled(seq);
        self.when_written(seq, Waiter::Piece(key));
    }

    /// Blocks of the parents in a piece's cluster, a bit each; `None`: the piece waits or failed.
    fn beneath<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        parent: Option<u32>,
    ) -> Option<u64> {
        let Some(parent) = parent else { return Some(0) };
        let lcluster = self.pieces.get(key)?.lcluster;
        let mut runs = ArrayVec::<Run, PIECE_BLOCKS>::new();
        match self.resolve(parent, lcluster, u64::MAX, &mut runs) {
            Resolve::Ready => {
                let mask = |run: &Run| crate::store::mask(run.at.into(), run.count.into());
                Some(runs.iter().fold(0, |all, run| all | mask(run)))
            }
            Resolve::Missing(page) => {
                self.wait_for_page(mem, now, key, page);
                None
            }
            Resolve::Lost => {
                let failure = self.media(key);
                self.end_piece(mem, now, key, Some(failure));
                None
            }
        }
    }

    /// Gives a whole cluster back; what is beneath it does not show through any more.
    fn free_cluster(&mut self, layer: u32, lcluster: u32, phys: Option<u32>) -> u64 {
        let place = phys.unwrap_or(Cell::NOWHERE);
        let seq = self.record(Cell::Free { layer, lcluster, phys: place, opaque: true });
        if let Some(phys) = phys {
            let thick = self.store.map.layers.get(&layer).is_some_and(|l| l.state().thick);
            if thick {
                self.store.space.promised += 1;
            }
            self.quarantine(phys, seq);
        }
        seq
    }

    /// Puts a freed cluster into quarantine.
    pub(crate) fn quarantine(&mut self, phys: u32, seq: u64) {
        if self.config.plant == Some(Plant::ReuseEarly) {
            return;
        }
        self.store.space.hold(phys, seq, self.reads.epoch());
    }

    fn clear_blocks(&mut self, layer: u32, lcluster: u32, phys: Option<u32>, own: u64) -> u64 {
        let mut left = own;
        let mut seq = 0;
        while left != 0 {
            let at = left.trailing_zeros();
            let count = (left >> at).trailing_ones();
            let lblock = u64::from(lcluster) * CLUSTER_BLOCKS + u64::from(at);
            let count16 = u16::try_from(count).unwrap_or(64);
            seq = self.record(Cell::Clear { layer, lblock, count: count16 });
            left &= !crate::store::mask(at, count);
        }
        if let (Some(phys), true) = (phys, self.config.plant != Some(Plant::ReuseEarly)) {
            for at in bits(own) {
                let slot = u64::from(phys) * CLUSTER_BLOCKS + u64::from(at);
                self.sync.unsettle(slot, seq);
            }
        }
        seq
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use crate::rig::Rig;
    use crate::{Command, Work};

    #[test]
    fn zeros_over_a_clone_pass_what_neither_it_nor_its_parents_have() {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 70_000, 7);
        rig.run();
        let commands = [
            Command::Snapshot {
                replica: [1; 16],
                uuid: [2; 16],
                name: String::from("two"),
                created: 2,
            },
            Command::Clone {
                snapshot: [2; 16],
                uuid: [3; 16],
                name: String::from("three"),
                created: 3,
            },
        ];
        for command in commands {
            rig.pool.command(&mut rig.mem, rig.now, 1, command);
            rig.run();
        }
        rig.take_ended();
        let clone = rig.pool.find(&[3; 16]).expect("a clone");
        let before = rig.pool.counters().lookups;
        rig.ask(clone, Work::Zero { offset: 0, len: 4 << 30, durable: false });
        rig.run();
        let lookups = rig.pool.counters().lookups - before;
        assert!(lookups < 1000, "{lookups} look-ups for 64 leaves");
        for (of, byte) in [(clone, 0), (handle, 7)] {
            rig.take_ended();
            rig.read(of, 70_000);
            rig.run();
            assert_eq!(rig.take_ended(), [Ok(byte)]);
        }
    }
}
