//! Comparisons beside writes, without buffers, and when things go wrong on the way.

use alloc::vec;
use alloc::vec::Vec;

use braid_block::{Class, IoError};

use super::*;
use crate::rig::Rig;
use crate::{Failure, Handle, State, token};

fn hash(fill: u8) -> u128 {
    xxh3_128(&[fill; BLOCK as usize])
}

/// Submits a comparison of a whole region.
fn compare(rig: &mut Rig, handle: Handle, block: u64) {
    let lease = rig.mem.alloc(Class::Medium).expect("a buffer");
    let work = Work::Compare { offset: block * BLOCK, len: 1 << 20 };
    rig.ask_with(handle, work, lease);
}

/// What ended: of a comparison, two bits and the hash of its first blocks.
fn told(rig: &mut Rig, count: usize) -> Result<Vec<(u8, u128)>, Failure> {
    let done = rig.ended.pop().expect("it has ended");
    let lease = done.lease.expect("the buffer comes back");
    let bytes = rig.mem.bytes(&lease)[..4160].to_vec();
    rig.mem.free(lease);
    let of = |at: usize| {
        let hash = bytes[64 + 16 * at..][..16].try_into().expect("16 bytes");
        (bytes[at / 4] >> (at % 4 * 2) & 3, u128::from_le_bytes(hash))
    };
    done.result.map(|_| (0..count).map(of).collect())
}

#[test]
fn a_comparison_waits_for_a_write_in_flight_and_tells_the_new_content() {
    let (mut rig, handle) = Rig::new();
    rig.write(handle, 0, 1);
    rig.run();
    rig.take_ended();
    rig.write(handle, 0, 2);
    compare(&mut rig, handle, 0);
    assert!(rig.ended.is_empty());
    rig.run();
    assert_eq!(rig.ended.len(), 2);
    assert_eq!(told(&mut rig, 2), Ok(vec![(1, hash(2)), (0, 0)]));
}

#[test]
fn a_write_that_comes_while_it_is_read_makes_it_read_again() {
    // Whichever of the two the device does first.
    for seed in 0..64 {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 0, 1);
        rig.run();
        rig.take_ended();
        compare(&mut rig, handle, 0);
        rig.write(handle, 0, 2);
        rig.run_shuffled(seed);
        let medium = |lease: &Lease| rig.mem.capacity(lease) == Class::Medium.bytes();
        let comparison = |done: &crate::Completion| done.lease.as_ref().is_some_and(medium);
        let at = rig.ended.iter().position(comparison).expect("it has ended");
        let done = rig.ended.remove(at);
        rig.ended.push(done);
        let first = told(&mut rig, 1).expect("an answer")[0];
        assert!([(1, hash(1)), (1, hash(2))].contains(&first), "{seed}: {first:?}");
        assert!(!rig.notes.iter().any(|note| matches!(note, crate::Note::Media { .. })));
    }
}

#[test]
fn content_that_was_overwritten_since_it_was_read_is_read_again() {
    let (mut rig, handle) = Rig::new();
    for block in [0, 2] {
        rig.write(handle, block, 1);
        rig.run();
    }
    rig.take_ended();
    compare(&mut rig, handle, 0);
    let reads = rig.flying(token::PIECE);
    assert_eq!(reads.len(), 2, "of two runs");
    rig.finish(reads[0]);
    rig.write(handle, 0, 2);
    while rig.effects.len() > 1 {
        rig.finish(1);
    }
    assert_eq!(rig.take_ended(), [Ok(2)], "the write is done, and its lock given back");
    rig.run();
    assert_eq!(told(&mut rig, 3), Ok(vec![(1, hash(2)), (0, 0), (1, hash(1))]));
    assert!(!rig.notes.iter().any(|note| matches!(note, crate::Note::Media { .. })));
}

#[test]
fn a_comparison_without_buffers_goes_on_with_the_one_of_last_resort() {
    let (mut rig, handle) = Rig::new();
    for block in [0, 40, 80, 120, 250] {
        rig.write(handle, block, 7);
    }
    rig.run();
    rig.take_ended();
    let before = rig.mem.leased();
    let lease = rig.mem.alloc(Class::Medium).expect("a buffer");
    rig.mem.exhausted = true;
    rig.ask_with(handle, Work::Compare { offset: 0, len: 1 << 20 }, lease);
    rig.run();
    assert_eq!(told(&mut rig, 256).expect("an answer")[250], (1, hash(7)));
    assert_eq!(rig.mem.leased(), before, "and gives it back");
}

#[test]
fn one_buffer_of_128_kib_is_in_use_at_a_time() {
    let (mut rig, handle) = Rig::new();
    for block in 0..256 {
        rig.write(handle, block, 7);
        rig.run();
    }
    rig.take_ended();
    rig.reads.clear();
    let before = rig.mem.leased();
    compare(&mut rig, handle, 0);
    while !rig.effects.is_empty() {
        assert!(rig.mem.leased() <= before + 2, "the answer, and a piece");
        rig.finish(0);
    }
    assert_eq!(told(&mut rig, 256), Ok(vec![(1, hash(7)); 256]));
    let data: u64 = rig.reads.iter().map(|(_, len)| u64::from(*len)).sum();
    assert!(rig.reads.iter().all(|(_, len)| *len <= 128 << 10));
    assert!(data >= 1 << 20, "all of it is read from the device");
}

#[test]
fn a_read_that_fails_is_repeated_block_by_block() {
    let (mut rig, handle) = Rig::new();
    for block in 0..8 {
        rig.write(handle, block, 7);
        rig.run();
    }
    rig.take_ended();
    compare(&mut rig, handle, 0);
    let at = rig.flying(token::PIECE)[0];
    rig.fail(at, IoError::Media);
    // The third block alone fails again.
    for _ in 0..2 {
        let at = rig.flying(token::PIECE)[0];
        rig.finish(at);
    }
    let at = rig.flying(token::PIECE)[0];
    rig.fail(at, IoError::Media);
    rig.run();
    let good = (1, hash(7));
    let expected = [good, good, (3, 0), good, good, good, good, good];
    assert_eq!(told(&mut rig, 8), Ok(expected.to_vec()));
    assert_eq!(rig.pool.state(), State::Open);
}

#[test]
fn a_pool_that_fails_ends_its_comparisons() {
    let (mut rig, handle) = Rig::new();
    rig.write(handle, 0, 1);
    rig.run();
    rig.take_ended();
    compare(&mut rig, handle, 0);
    rig.write(handle, 500, 1);
    let at = rig.flying(token::PIECE)[1];
    rig.fail(at, IoError::Device);
    rig.run();
    assert_eq!(rig.pool.state(), State::Failed);
    assert!(rig.ended.iter().all(|done| done.result == Err(Failure::Failed)));
    assert_eq!(rig.ended.len(), 2);
}

#[test]
fn a_comparison_that_waits_for_a_write_leaves_it_the_last_buffer() {
    let (mut rig, _) = Rig::new();
    let handle = rig.create_fine(&[0, 1], 7);
    let lease = rig.mem.alloc(Class::Small).expect("a buffer");
    rig.mem.bytes_mut(&lease).fill(9);
    let beside = rig.mem.alloc(Class::Medium).expect("a buffer");
    rig.mem.exhausted = true;
    rig.ask_with(handle, Work::Compare { offset: 0, len: 1 << 20 }, beside);
    assert!(rig.pool.spare.is_none(), "the comparison has it");
    let work = Work::Write { offset: 512, len: 512, durable: false };
    rig.ask_with(handle, work, lease);
    rig.run();
    assert_eq!(rig.ended.len(), 2, "{}", rig.pool.waiting());
    assert!(rig.ended.iter().all(|done| done.result.is_ok()));
}
