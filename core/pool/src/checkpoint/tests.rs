//! What a checkpoint writes, in which order, while other things go on.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::Work;
use crate::layout::{Cell, PAIR};
use crate::op::Waiter;
use crate::rig::Rig;

fn offsets(rig: &Rig) -> Vec<u64> {
    let of = |effect: &Effect| match effect {
        Effect::Write { offset, .. } => Some(*offset),
        _ => None,
    };
    rig.flying(token::CHECKPOINT).iter().filter_map(|at| of(&rig.effects[*at])).collect()
}

/// Runs all page writes of a checkpoint, stage by stage; each stage ends with a flush.
fn stages(rig: &mut Rig) -> Vec<Vec<u64>> {
    let mut stages = Vec::new();
    let before = rig.pool.counters().checkpoints;
    while rig.pool.counters().checkpoints == before {
        rig.run_to_checkpoint();
        let mut stage = Vec::new();
        while !rig.flying(token::CHECKPOINT).is_empty() {
            assert!(rig.flying(token::SYNC).is_empty(), "no flush beside writes");
            stage.push(offsets(rig)[0]);
            let at = rig.flying(token::CHECKPOINT)[0];
            rig.finish(at);
        }
        if !stage.is_empty() {
            stages.push(stage);
        }
    }
    stages
}

#[test]
fn checksums_come_first_then_all_first_slots_then_all_second_ones() {
    let (mut rig, handle) = Rig::new();
    for block in [0, 20_000, 40_000] {
        rig.write(handle, block, 1);
    }
    rig.run();
    rig.pool.want_checkpoint();
    let stages = stages(&mut rig);
    assert_eq!(stages.len(), 3, "{stages:x?}");
    let layout = &rig.pool.store.layout;
    let is_sum =
        |at: &u64| layout.slabs.iter().any(|slab| (slab.start + 2 * PAIR..slab.data).contains(at));
    assert!(stages[0].iter().all(is_sum), "{stages:x?}");
    assert!(!stages[1].iter().any(is_sum));
    assert!(stages[1].is_sorted());
    let second: Vec<u64> = stages[1].iter().map(|at| at + BLOCK).collect();
    assert_eq!(stages[2], second);
    assert_eq!(rig.pool.journal.tail, rig.pool.checkpoint.lsn + 1);
    assert!(rig.pool.is_checkpointed());
}

#[test]
fn first_writes_in_flight_hold_everything_back() {
    let (mut rig, handle) = Rig::new();
    rig.write(handle, 0, 1);
    assert_eq!(rig.flying(token::PIECE).len(), 1);
    rig.pool.want_checkpoint();
    rig.turn();
    while let Some(at) = (0..rig.effects.len()).find(|at| *at != rig.flying(token::PIECE)[0]) {
        rig.finish(at);
    }
    assert_eq!(rig.effects.len(), 1, "only the data is in flight");
    assert_eq!(rig.pool.checkpoint.phase, Phase::Settling);
    rig.finish(0);
    rig.run();
    assert!(rig.pool.is_checkpointed());
}

#[test]
fn what_changes_beside_a_checkpoint_is_in_the_next_one() {
    let (mut rig, handle) = Rig::new();
    for block in 0..4 {
        rig.write(handle, block, 1);
    }
    rig.run();
    rig.pool.want_checkpoint();
    rig.run_to_checkpoint();
    for block in 2..8 {
        rig.write(handle, block, 2);
    }
    rig.run_shuffled(1);
    assert!(!rig.pool.is_checkpointed());
    // A crash now replays what came after.
    let mut rig = rig.reopen();
    let handle = rig.pool.find(&[1; 16]).unwrap();
    for block in 0..9 {
        rig.read(handle, block);
        rig.run();
        let value = if block < 2 { 1 } else { 2 } * u8::from(block < 8);
        assert_eq!(rig.take_ended(), [Ok(value)], "block {block}");
    }
}

#[test]
fn a_frozen_page_that_goes_is_written_all_the_same() {
    let (mut rig, handle) = Rig::new();
    rig.write(handle, 0, 1);
    rig.run();
    let leaf = PageId::Leaf(0, 0);
    let address = rig.pool.store.address(leaf).unwrap();
    rig.pool.want_checkpoint();
    rig.run_to_checkpoint();
    let lsn = rig.pool.checkpoint.lsn;
    let lcluster = 0;
    let phys = rig.pool.store.map.leaves[&(0, 0)].page.get().phys(0).unwrap();
    rig.pool.record(Cell::Free { layer: 0, lcluster, phys, opaque: false });
    rig.pool.unplace_page(&mut rig.mem, rig.now, leaf, Waiter::Job);
    assert!(rig.pool.store.map.leaves.is_empty());
    stages(&mut rig);
    for slot in 0..2 {
        let stamp = Stamp::map(leaf, address + slot * BLOCK);
        let bytes = &rig.blocks[&(address / BLOCK + slot)];
        let seed = rig.pool.store.seed;
        assert_eq!(codec::judge::<crate::arena::Arena>(bytes, stamp, seed), Some(lsn));
    }
    assert!(rig.pool.store.buried.is_empty());
    rig.run();
    let mut rig = rig.reopen();
    let handle = rig.pool.find(&[1; 16]).unwrap();
    rig.read(handle, 0);
    rig.run();
    assert_eq!(rig.take_ended(), [Ok(0)]);
}

#[test]
fn a_failed_page_write_fails_the_pool_and_gives_its_buffers_back() {
    let (mut rig, handle) = Rig::new();
    for block in [0, 20_000, 40_000] {
        rig.write(handle, block, 1);
    }
    rig.run();
    rig.take_ended();
    rig.pool.want_checkpoint();
    rig.run_to_checkpoint();
    let at = rig.flying(token::CHECKPOINT)[0];
    rig.fail(at, IoError::Device);
    assert_eq!(rig.pool.state(), State::Failed);
    rig.run();
    rig.pool.drop_leases(&mut rig.mem);
    assert_eq!(rig.mem.leased(), 0);
}

/// A pool that was opened again after a flush of written checksum pages had failed; and where one
/// of them was written.
fn after_a_failed_flush_of_checksums() -> (Rig, u64) {
    let (mut rig, handle) = Rig::new();
    rig.write(handle, 0, 1);
    rig.run();
    rig.pool.want_checkpoint();
    rig.run();
    rig.write(handle, 0, 2);
    rig.run();
    rig.pool.want_checkpoint();
    rig.run_to_checkpoint();
    let written = offsets(&rig)[0];
    while let Some(at) = rig.flying(token::CHECKPOINT).pop() {
        rig.finish(at);
    }
    assert!(matches!(rig.pool.checkpoint.phase, Phase::Merged(_)));
    let at = rig.flying(token::SYNC)[0];
    rig.fail(at, IoError::Device);
    rig.run();
    assert_eq!(rig.pool.state(), State::Failed);
    let rig = rig.reopen();
    assert_eq!(rig.pool.state(), State::Open);
    (rig, written)
}

#[test]
fn a_page_of_checksums_that_a_failed_flush_dropped_is_durable_before_its_other_slot_is_written() {
    for killed_again in [false, true] {
        let (mut rig, written) = after_a_failed_flush_of_checksums();
        if killed_again {
            rig = rig.reopen();
        }
        let handle = rig.pool.find(&[1; 16]).expect("a replica");
        rig.write(handle, 0, 3);
        rig.run();
        rig.pool.want_checkpoint();
        let stages = stages(&mut rig);
        let other = (written / PAIR * 2 + 1) * PAIR - written - BLOCK;
        assert_eq!(stages[..2], [vec![written], vec![other]], "killed again: {killed_again}");
        rig.read(handle, 0);
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(3), Ok(3)]);
        // And not again: what a checkpoint ended with is on the media.
        rig.write(handle, 0, 4);
        rig.run();
        rig.pool.want_checkpoint();
        let of_it = |stage: &&Vec<u64>| stage.contains(&written) || stage.contains(&other);
        let third = self::stages(&mut rig);
        assert_eq!(third.iter().filter(of_it).count(), 1, "{stages:?} {third:?}");
    }
}

#[test]
fn many_checkpoints_beside_writes_in_any_order_lose_nothing() {
    for seed in 0..40 {
        let (mut rig, handle) = Rig::new();
        rig.pool.config.limits.delta_max = 8;
        let mut model = [0; 64];
        for round in 0..40u8 {
            for i in 0..6 {
                let at =
                    (crate::hash::mix(seed * 1000 + u64::from(round) * 10 + i, 3) % 64) as usize;
                rig.write(handle, at as u64 * 700, round + 1);
                model[at] = round + 1;
                if i % 2 == 0 && !rig.effects.is_empty() {
                    let last = rig.effects.len() - 1;
                    rig.finish(last);
                }
            }
            rig.run_shuffled(seed);
            assert!(rig.take_ended().iter().all(Result::is_ok));
        }
        assert!(rig.pool.counters().checkpoints > 10);
        for reopened in [false, true] {
            for (at, value) in (0..).zip(model) {
                rig.read(handle, at * 700);
                rig.run_shuffled(seed);
                assert_eq!(rig.take_ended(), [Ok(value)], "seed {seed} block {at} {reopened}");
            }
            if !reopened {
                rig = rig.reopen();
            }
        }
    }
}

#[test]
fn a_checksum_that_was_replaced_before_a_cut_checkpoint_does_not_come_back() {
    let (mut rig, handle) = Rig::new();
    rig.pool.store.space.reserve = 0;
    let (leaf, other) = (PageId::Leaf(0, 0), PageId::Leaf(0, 1));
    rig.write(handle, 0, 1);
    rig.write(handle, 16_384, 1);
    rig.run();
    let full = (2..).find(|cluster| {
        rig.take_ended();
        rig.write(handle, cluster * 64, 3);
        rig.run();
        rig.take_ended() == [Err(crate::Failure::NoSpace)]
    });
    let zero = |rig: &mut Rig, block: u64| {
        let (offset, len) = (block * BLOCK, 64 * BLOCK);
        rig.ask(handle, Work::Zero { offset, len, durable: true });
        rig.run();
        rig.take_ended();
    };
    zero(&mut rig, 128);
    rig.pool.want_checkpoint();
    rig.run();
    // The one free cluster goes to the other leaf, whose page is the later one, and back.
    rig.write(handle, 16_960, 2);
    rig.run();
    zero(&mut rig, 16_960);
    let last = full.expect("it is full") * 64;
    rig.write(handle, last, 4);
    rig.run();
    assert_eq!(rig.take_ended(), [Ok(4)]);
    let places = [leaf, other].map(|page| rig.pool.store.address(page).unwrap() / BLOCK);
    assert!(places[0] < places[1]);
    rig.pool.want_checkpoint();
    rig.turn();
    let is_new = |rig: &Rig, at| {
        let lsn = rig.blocks.get(&places[at]).map(|bytes| bytes[16..24].try_into().unwrap());
        lsn.map(u64::from_le_bytes) == Some(rig.pool.checkpoint.lsn)
    };
    while !is_new(&rig, 0) {
        rig.finish(0);
    }
    assert!(!is_new(&rig, 1), "cut in between");
    let mut rig = rig.reopen();
    let handle = rig.pool.find(&[1; 16]).unwrap();
    for (block, value) in [(0, 1), (192, 3), (last, 4), (16_384, 1), (16_960, 0)] {
        rig.read(handle, block);
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(value)], "block {block}");
    }
    assert_eq!(rig.pool.counters().unverified, 0, "each by its own checksum");
}
