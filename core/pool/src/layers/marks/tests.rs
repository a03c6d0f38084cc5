//! Marks that are cleared and listed while other things go on.

use alloc::vec;

use super::*;
use crate::rig::Rig;
use crate::{Bearing, Command, Handle, Work, token};

/// Blocks of a leaf.
const LEAF: u64 = 64 * 256;

/// A member with marks on the first region of two leaves, both flushed; the first leaf is not in
/// memory.
fn marked() -> (Rig, Handle) {
    let (mut rig, handle) = Rig::new();
    let member = Bearing { member: Some(true), ..Bearing::default() };
    let bear = Command::Bear { uuid: [1; 16], bearing: alloc::boxed::Box::new(member) };
    rig.pool.command(&mut rig.mem, rig.now, 2, bear);
    for block in [0, LEAF] {
        rig.write(handle, block, 1);
        rig.run();
    }
    flush(&mut rig, handle);
    rig.let_go();
    rig.read(handle, LEAF);
    rig.run();
    flush(&mut rig, handle);
    rig.take_ended();
    assert!(!rig.pool.store.map.leaves.contains_key(&(0, 0)));
    (rig, handle)
}

fn flush(rig: &mut Rig, handle: Handle) {
    rig.ask(handle, Work::Flush { number: None });
    rig.run();
}

fn clean(rig: &mut Rig) {
    let regions = [(0, 1), (64, 1)].into();
    rig.pool.command(&mut rig.mem, rig.now, 3, Command::Clean { uuid: [1; 16], regions });
    rig.turn();
}

fn list(rig: &mut Rig) -> Vec<(u32, u32)> {
    rig.pool.command(&mut rig.mem, rig.now, 4, Command::Marks { uuid: [1; 16] });
    rig.run();
    rig.pool.take_marks(4).expect("they are listed")
}

/// Ends everything but the read of the first leaf, for which the Clean waits: the oldest.
fn run_beside(rig: &mut Rig) {
    loop {
        let waits = rig.flying(token::FETCH)[0];
        let Some(at) = (0..rig.effects.len()).find(|at| *at != waits) else { return };
        rig.finish(at);
    }
}

#[test]
fn regions_that_nobody_touched_are_cleaned() {
    let (mut rig, _) = marked();
    assert_eq!(list(&mut rig), [(0, 1), (64, 1)]);
    clean(&mut rig);
    rig.run();
    assert_eq!(list(&mut rig), []);
}

#[test]
fn a_write_that_came_after_the_clean_keeps_its_mark_even_if_it_was_flushed_since() {
    let (mut rig, handle) = marked();
    clean(&mut rig);
    rig.write(handle, LEAF, 2);
    run_beside(&mut rig);
    rig.ask(handle, Work::Flush { number: None });
    run_beside(&mut rig);
    assert_eq!(rig.take_ended().len(), 2, "the write and the flush have ended");
    rig.run();
    assert_eq!(list(&mut rig), [(64, 1)]);
    // The next one knows of it.
    clean(&mut rig);
    rig.run();
    assert_eq!(list(&mut rig), []);
}

#[test]
fn zeros_that_came_after_the_clean_keep_their_mark() {
    let (mut rig, handle) = marked();
    clean(&mut rig);
    rig.ask(handle, Work::Zero { offset: LEAF * 4096, len: 4096, durable: false });
    run_beside(&mut rig);
    rig.ask(handle, Work::Flush { number: None });
    run_beside(&mut rig);
    rig.run();
    assert_eq!(list(&mut rig), [(64, 1)]);
}

#[test]
fn zeros_that_were_not_flushed_keep_their_mark() {
    let (mut rig, handle) = marked();
    rig.ask(handle, Work::Zero { offset: LEAF * 4096, len: 4096, durable: false });
    run_to_end_of_request(&mut rig);
    clean(&mut rig);
    rig.run();
    assert_eq!(list(&mut rig), [(64, 1)]);
    flush(&mut rig, handle);
    clean(&mut rig);
    rig.run();
    assert_eq!(list(&mut rig), []);
}

/// Ends everything until a request has ended, and no flush.
fn run_to_end_of_request(rig: &mut Rig) {
    while rig.ended.is_empty() {
        let at =
            rig.effects.iter().position(|effect| !matches!(effect, crate::Effect::Sync { .. }));
        rig.finish(at.expect("something is in flight"));
    }
}

#[test]
fn a_write_between_two_cleans_that_wait_keeps_its_mark_from_the_first_alone() {
    let (mut rig, handle) = marked();
    clean(&mut rig);
    rig.write(handle, LEAF, 2);
    run_beside(&mut rig);
    rig.ask(handle, Work::Flush { number: None });
    run_beside(&mut rig);
    let first = [(0, 1)].into();
    let both = [(64, 1)].into();
    for (tag, regions) in [(5, first), (6, both)] {
        let command = Command::Clean { uuid: [1; 16], regions };
        rig.pool.command(&mut rig.mem, rig.now, tag, command);
    }
    rig.run();
    assert_eq!(list(&mut rig), [], "the last was asked for after the write");
}

#[test]
fn a_region_that_was_touched_since_the_clean_stays_in_memory() {
    let (mut rig, handle) = marked();
    clean(&mut rig);
    rig.write(handle, LEAF, 2);
    run_beside(&mut rig);
    // It closes, and its page is written.
    for _ in 0..4 {
        rig.wait(100);
        rig.turn();
        run_beside(&mut rig);
    }
    assert!(rig.pool.store.map.leaves.contains_key(&(0, 1)));
    rig.run();
    assert_eq!(list(&mut rig), [(64, 1)]);
}

#[test]
fn lists_are_united() {
    assert_eq!(united(vec![(1, 2), (9, 1)]), [(1, 2), (9, 1)]);
    assert_eq!(united(vec![(5, 2), (9, 1), (0, 1), (3, 2), (6, 1)]), [(0, 1), (3, 4), (9, 1)]);
    assert_eq!(united(vec![(8, 2), (0, 20), (4, 1), (30, 1)]), [(0, 20), (30, 1)]);
}
