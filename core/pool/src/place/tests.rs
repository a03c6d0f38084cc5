//! Places of pages: each one's own, and when they come back.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::*;
use crate::rig::Rig;

fn place(rig: &mut Rig, page: PageId) -> u64 {
    for _ in 0..10 {
        match rig.pool.place_page(&mut rig.mem, rig.now, page, Waiter::Job) {
            Placed::Done => return rig.pool.store.map.pair(page).expect("a place"),
            Placed::Wait => rig.run(),
            placed => panic!("{placed:?}"),
        }
    }
    panic!("waits for ever");
}

fn unplace(rig: &mut Rig, page: PageId) {
    while rig.pool.unplace_page(&mut rig.mem, rig.now, page, Waiter::Job) != Placed::Done {
        rig.run();
    }
}

fn checkpoint(rig: &mut Rig) {
    rig.pool.want_checkpoint();
    rig.run();
}

#[test]
fn every_page_has_a_place_of_its_own() {
    let (mut rig, _) = Rig::new();
    let before = rig.pool.store.space.maps;
    let pairs: BTreeSet<u64> = (0..60).map(|n| place(&mut rig, PageId::Leaf(0, n))).collect();
    assert_eq!(pairs.len(), 60);
    assert!(pairs.iter().all(|pair| rig.pool.store.layout.pair_place(*pair).unwrap().1 > 0));
    assert!(rig.pool.store.space.maps <= before + 2);
    let again: BTreeSet<u64> = (0..60).map(|n| place(&mut rig, PageId::Leaf(0, n))).collect();
    assert_eq!(pairs, again);
    assert!(rig.pool.store.map.pair(PageId::Directory(0, 0)).is_some());
}

#[test]
fn a_place_given_back_is_used_again_only_after_a_checkpoint() {
    let (mut rig, _) = Rig::new();
    let first = place(&mut rig, PageId::Leaf(0, 0));
    unplace(&mut rig, PageId::Leaf(0, 0));
    let second = place(&mut rig, PageId::Leaf(0, 1));
    assert_ne!(first, second);
    checkpoint(&mut rig);
    assert_eq!(place(&mut rig, PageId::Leaf(0, 2)), first);
}

#[test]
fn a_cluster_without_pages_goes_back_after_a_checkpoint() {
    let (mut rig, _) = Rig::new();
    checkpoint(&mut rig);
    let before = rig.pool.store.space.maps;
    for n in 0..100 {
        place(&mut rig, PageId::Leaf(0, n));
    }
    assert!(rig.pool.store.space.maps >= before + 3);
    for n in 0..100 {
        unplace(&mut rig, PageId::Leaf(0, n));
    }
    let freed: Vec<u32> = rig.pool.store.map.page_maps.keys().copied().collect();
    checkpoint(&mut rig);
    assert!(rig.pool.store.space.maps <= before + 1);
    let gone = freed.iter().filter(|c| !rig.pool.store.map.page_maps.contains_key(c));
    assert!(gone.count() >= 2);
    let space = &rig.pool.store.space;
    assert!(freed.iter().all(|c| space.is_map(*c) || space.is_held(*c) || !space.is_used(*c)));
}

#[test]
fn maps_not_in_memory_are_read_before_a_cluster_is_taken() {
    let (mut rig, _) = Rig::new();
    for n in 0..100 {
        place(&mut rig, PageId::Leaf(0, n));
    }
    for n in (0..100).step_by(10) {
        unplace(&mut rig, PageId::Leaf(0, n));
    }
    checkpoint(&mut rig);
    checkpoint(&mut rig);
    let maps = rig.pool.store.space.maps;
    let mut rig = rig.reopen();
    // A crash's replay has read some; an orderly stop would have read none.
    rig.pool.store.map.page_maps.clear();
    rig.pool.store.pairs = Pairs::default();
    for n in (0..100).step_by(10) {
        place(&mut rig, PageId::Leaf(0, n));
    }
    assert_eq!(rig.pool.store.space.maps, maps);
    assert!(!rig.pool.store.map.page_maps.is_empty());
}

#[test]
fn a_full_pool_has_no_place_and_says_so() {
    let (mut rig, _) = Rig::new();
    while let Some(cluster) = rig.pool.store.space.find() {
        rig.pool.record(Cell::Alloc { layer: 0, lcluster: 0, phys: cluster });
    }
    let mut n = 0;
    let full = loop {
        match rig.pool.place_page(&mut rig.mem, rig.now, PageId::Leaf(0, n), Waiter::Job) {
            Placed::Done => n += 1,
            placed => break placed,
        }
    };
    assert_eq!(full, Placed::NoSpace);
    assert!(n < 32);
}

#[test]
fn pages_never_take_what_was_promised() {
    let (mut rig, _) = Rig::new();
    let space = &mut rig.pool.store.space;
    // The reserve is used up but for one cluster.
    space.promised = space.free() - 1;
    let kept = space.promised;
    let mut placed = 0;
    for n in 0..200 {
        match rig.pool.place_page(&mut rig.mem, rig.now, PageId::Leaf(0, n), Waiter::Job) {
            Placed::Done => placed += 1,
            Placed::NoSpace => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((30..70).contains(&placed), "{placed} pages in what was left");
    assert_eq!(rig.pool.store.space.free(), kept);
}
