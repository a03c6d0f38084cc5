//! Bad checksum pages beside good ones: found, mended, and no checkpoint in between.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::arena::Arena;
use crate::rig::Rig;
use crate::{Command, Effect, Handle, token};

/// A pool whose first page of checksums was written twice: to both slots, then to the older one.
fn rested() -> (Rig, Handle, u64) {
    let (mut rig, handle) = Rig::new();
    let rest = |rig: &mut Rig| {
        for _ in 0..3 {
            rig.run();
            rig.wait(5);
        }
        rig.run();
    };
    rig.write(handle, 3, 0x33);
    rest(&mut rig);
    let address = rig.pool.store.layout.checksum_pair(0);
    assert_eq!(lsns(&rig, address)[0], lsns(&rig, address)[1], "both are written at first");
    rig.write(handle, 4, 0x44);
    rest(&mut rig);
    let [older, newer] = lsns(&rig, address);
    let (older, newer) = (older.expect("the one before"), newer.expect("the newest"));
    assert!(older < newer, "they take turns");
    rig.take_ended();
    (rig, handle, address)
}

/// What the slots of the first page say, as they are on the disk.
fn lsns(rig: &Rig, address: u64) -> [Option<u64>; 2] {
    [0, 1].map(|slot| {
        let device = address + slot * BLOCK;
        let stamp = Stamp::sums(0, device);
        codec::judge::<Arena>(&rig.blocks[&(device / BLOCK)], stamp, rig.pool.store.seed)
    })
}

fn damage(rig: &mut Rig, device: u64) {
    rig.blocks.get_mut(&(device / BLOCK)).expect("it was written")[1000] ^= 1;
}

fn begin(rig: &mut Rig) {
    rig.notes.clear();
    rig.pool.command(&mut rig.mem, rig.now, 1, Command::Scrub { rate: 1 << 30 });
}

/// A scrub to its end: what was written again, and blocks that are lost.
fn scrub(rig: &mut Rig) -> (Vec<u64>, u64) {
    begin(rig);
    for _ in 0..2000 {
        rig.run();
        if let Some(Note::Scrubbed { errors, .. }) = rig.notes.last() {
            let errors = *errors;
            let repaired = rig.notes.iter().filter_map(|note| match note {
                Note::Repaired { device } => Some(*device),
                _ => None,
            });
            return (repaired.collect(), errors);
        }
        rig.now = rig.pool.poll_timeout().expect("it goes on");
    }
    panic!("a scrub without end");
}

fn reads(rig: &mut Rig, handle: Handle) -> Vec<u8> {
    rig.take_ended();
    rig.read(handle, 3);
    rig.read(handle, 4);
    rig.run();
    rig.take_ended().into_iter().map(|ended| ended.expect("it is there")).collect()
}

#[test]
fn slots_that_went_bad_are_written_again_from_memory() {
    let (mut rig, _, address) = rested();
    assert_eq!(scrub(&mut rig), (vec![], 0), "all is well");
    let newest = lsns(&rig, address)[1];
    for bad in [vec![0], vec![1], vec![0, 1]] {
        let devices: Vec<u64> = bad.iter().map(|slot| address + slot * BLOCK).collect();
        devices.iter().for_each(|device| damage(&mut rig, *device));
        assert_eq!(scrub(&mut rig), (devices, 0), "{bad:?}");
        assert_eq!(lsns(&rig, address)[1], newest);
        assert_eq!(scrub(&mut rig), (vec![], 0), "{bad:?} is mended");
    }
    let mut rig = rig.reopen();
    let handle = rig.pool.find(&[1; 16]).expect("a replica");
    assert_eq!(reads(&mut rig, handle), [0x33, 0x44]);
}

#[test]
fn a_page_that_is_not_in_memory_is_written_again_from_its_other_slot() {
    for slot in [0, 1] {
        let (mut rig, handle, address) = rested();
        rig.let_go();
        assert!(!rig.pool.store.sums.holds(0));
        // Both slots alike, so that either one has all that is known.
        let copy = rig.blocks[&(address / BLOCK + 1)].clone();
        let lsn = lsns(&rig, address)[1].expect("the newest");
        let mut first = copy;
        codec::readdress::<Arena>(&mut first, Stamp::sums(0, address), lsn, rig.pool.store.seed);
        rig.blocks.insert(address / BLOCK, first);
        let device = address + slot * BLOCK;
        damage(&mut rig, device);
        assert_eq!(scrub(&mut rig), (vec![device], 0));
        assert_eq!(lsns(&rig, address), [Some(lsn); 2]);
        assert_eq!(reads(&mut rig, handle), [0x33, 0x44]);
    }
}

#[test]
fn a_slot_that_nobody_wrote_is_not_bad() {
    let (mut rig, _, address) = rested();
    rig.blocks.insert(address / BLOCK, vec![0; BLOCK as usize]);
    assert_eq!(scrub(&mut rig), (vec![], 0));
}

#[test]
fn a_newest_slot_that_is_older_than_memory_or_zeros_is_written_again() {
    for zeros in [false, true] {
        let (mut rig, _, address) = rested();
        let newest = lsns(&rig, address)[1];
        let mut old = rig.blocks[&(address / BLOCK)].clone();
        let lsn = lsns(&rig, address)[0].expect("the one before");
        let stamp = Stamp::sums(0, address + BLOCK);
        codec::readdress::<Arena>(&mut old, stamp, lsn, rig.pool.store.seed);
        let held = if zeros { vec![0; BLOCK as usize] } else { old };
        rig.blocks.insert(address / BLOCK + 1, held);
        assert_eq!(scrub(&mut rig), (vec![address + BLOCK], 0));
        assert_eq!(lsns(&rig, address)[1], newest);
    }
}

#[test]
fn a_slot_that_cannot_be_read_is_written_again() {
    let (mut rig, _, address) = rested();
    rig.bad.insert(address / BLOCK + 1);
    assert_eq!(scrub(&mut rig), (vec![address + BLOCK], 0));
    assert!(rig.bad.is_empty(), "it was written");
}

/// Until a merge may write to the good slot, the one that was bad is on the media.
#[test]
fn no_checkpoint_begins_before_a_slot_that_was_written_again_is_durable() {
    let (mut rig, handle, address) = rested();
    damage(&mut rig, address + BLOCK);
    begin(&mut rig);
    let mend = address + BLOCK;
    let is_mend =
        |effect: &Effect| matches!(effect, Effect::Write { offset, .. } if *offset == mend);
    rig.turn();
    for _ in 0..1000 {
        if rig.effects.iter().any(is_mend) {
            break;
        }
        if rig.effects.is_empty() {
            rig.now = rig.pool.poll_timeout().expect("it goes on");
            rig.turn();
        } else {
            rig.finish(0);
        }
    }
    let at = rig.effects.iter().position(is_mend).expect("the slot is written again");
    rig.write(handle, 5, 0x55);
    rig.pool.want_checkpoint();
    rig.turn();
    rig.finish(at);
    // All goes on but flushes, so nothing is durable.
    let mut syncs = 0;
    for _ in 0..1000 {
        let is_sync = |effect: &Effect| matches!(effect, Effect::Sync { .. });
        assert!(rig.flying(token::CHECKPOINT).is_empty(), "a merge before the flush");
        match rig.effects.iter().position(|effect| !is_sync(effect)) {
            Some(at) => rig.finish(at),
            None => {
                syncs = rig.flying(token::SYNC).len();
                break;
            }
        }
    }
    assert_eq!(syncs, 1);
    rig.run();
    assert!(rig.pool.is_between_checkpoints());
    let [first, second] = lsns(&rig, address);
    assert!(first > second && second.is_some(), "then it was merged: {first:?} {second:?}");
}

#[test]
fn a_pool_that_stops_waits_for_the_slot_that_is_written_again() {
    let (mut rig, _, address) = rested();
    damage(&mut rig, address);
    begin(&mut rig);
    rig.turn();
    while rig.pool.jobs.is_empty() || !rig.pool.scrub.holds_merges() {
        if rig.effects.is_empty() {
            rig.now = rig.pool.poll_timeout().expect("it goes on");
            rig.turn();
        } else {
            rig.finish(0);
        }
    }
    rig.pool.stop(&mut rig.mem, rig.now);
    rig.run();
    assert_eq!(rig.pool.state(), State::Stopped);
    rig.pool.drop_leases(&mut rig.mem);
    assert_eq!(rig.mem.leased(), 0);
}
