//! Pages on their way: who waits, what fails, what is stale.

use alloc::vec;
use alloc::vec::Vec;

use braid_block::{Class, IoError};

use super::*;
use crate::Failure;
use crate::arena::Arena;
use crate::codec::Image;
use crate::map::LeafMap;
use crate::rig::Rig;

/// A pool with a leaf of which block 3 says 0x33, nothing in memory.
fn cold() -> (Rig, crate::Handle) {
    let (mut rig, handle) = Rig::new();
    rig.write(handle, 3, 0x33);
    rig.run();
    rig.let_go();
    rig.take_ended();
    (rig, handle)
}

fn address(rig: &mut Rig, page: PageId) -> u64 {
    let PageId::Leaf(layer, _) = page else { panic!("a leaf") };
    rig.pool.fetch(&mut rig.mem, rig.now, PageId::Directory(layer, 0), Waiter::Job);
    rig.run();
    rig.pool.store.address(page).expect("its place")
}

#[test]
fn many_wait_for_one_read_of_each_page() {
    let (mut rig, handle) = cold();
    for _ in 0..20 {
        rig.read(handle, 3);
    }
    let before = rig.pool.counters().device_reads;
    assert_eq!(rig.flying(token::FETCH).len(), 1, "its directory");
    rig.finish(0);
    assert_eq!(rig.flying(token::FETCH).len(), 1, "then the leaf");
    rig.finish(0);
    let pages = rig.flying(token::FETCH).len();
    assert_eq!(pages, 1, "then the checksums");
    rig.run();
    assert_eq!(rig.take_ended(), vec![Ok(0x33); 20]);
    assert_eq!(rig.pool.counters().device_reads - before, 2 + 20);
}

#[test]
fn a_pair_that_cannot_be_read_is_read_slot_by_slot() {
    for bad in [0, 1] {
        let (mut rig, handle) = cold();
        rig.read(handle, 3);
        rig.finish(0);
        let at = rig.pool.store.address(PageId::Leaf(0, 0)).unwrap();
        rig.fail(0, IoError::Media);
        for slot in 0..2 {
            let [Effect::Read { span, offset, .. }] = rig.effects[..] else { panic!() };
            assert_eq!((offset, span.len), (at + slot * BLOCK, 4096));
            if slot == bad { rig.fail(0, IoError::Media) } else { rig.finish(0) }
        }
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(0x33)]);
        assert_eq!(rig.notes, [Note::Repaired { device: at + bad * BLOCK }]);
        // The next checkpoint writes both slots, the bad one first.
        rig.wait(5);
        rig.run_to_checkpoint();
        let writes: Vec<u64> = rig
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Write { offset, .. } => Some(*offset),
                _ => None,
            })
            .collect();
        assert_eq!(writes, [at + bad * BLOCK]);
        rig.run();
    }
}

#[test]
fn a_page_without_a_readable_slot_is_lost_until_it_goes() {
    let (mut rig, handle) = cold();
    rig.read(handle, 3);
    rig.finish(0);
    for _ in 0..3 {
        rig.fail(0, IoError::Media);
    }
    rig.run();
    assert_eq!(rig.take_ended(), [Err(Failure::Media(3 * 4096))]);
    let device = rig.pool.store.address(PageId::Leaf(0, 0)).unwrap();
    assert_eq!(rig.notes[0], Note::Lost { device });
    rig.read(handle, 3);
    assert!(rig.effects.is_empty(), "it is not tried again");
    assert_eq!(rig.take_ended(), [Err(Failure::Media(3 * 4096))]);
}

#[test]
fn fetching_goes_on_with_the_buffers_that_are_kept() {
    let (mut rig, handle) = cold();
    let leases: Vec<_> = (0..8).map(|_| rig.mem.alloc(Class::Small).unwrap()).collect();
    rig.mem.exhausted = true;
    for lease in leases {
        let work = crate::Work::Read { offset: 3 * 4096, len: 4096 };
        let request = crate::Request { tag: 1, handle, work, lease: Some(lease) };
        rig.pool.submit(&mut rig.mem, rig.now, request);
    }
    rig.run();
    rig.mem.exhausted = false;
    assert_eq!(rig.take_ended(), vec![Ok(0x33); 8]);
}

#[test]
fn a_slot_from_the_future_or_of_another_leaf_is_none() {
    let (mut rig, handle) = cold();
    let leaf = PageId::Leaf(0, 0);
    let at = address(&mut rig, leaf);
    let (seed, last) = (rig.pool.store.seed, rig.pool.journal.written);
    for (slot, page, lsn) in [(0, leaf, last + 1), (1, PageId::Leaf(0, 1), last)] {
        let mut bytes = [0; 4096];
        let stamp = Stamp::map(page, at + slot * BLOCK);
        codec::encode::<Arena>(&mut bytes, stamp, lsn, seed, Image::Leaf(&LeafMap::new()));
        let good = rig.blocks.insert(at / BLOCK + slot, bytes.to_vec()).unwrap();
        rig.read(handle, 3);
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(0x33)]);
        assert_eq!(rig.notes, [Note::Repaired { device: at + slot * BLOCK }]);
        rig.let_go();
        rig.notes.clear();
        assert_ne!(rig.blocks[&(at / BLOCK + slot)], bytes, "it is mended");
        assert_eq!(rig.blocks[&(at / BLOCK + slot)][..4], good[..4]);
        address(&mut rig, leaf);
    }
}

#[test]
fn a_page_that_was_born_in_the_journal_and_never_written_is_empty() {
    let (mut rig, _) = cold();
    let leaf = PageId::Leaf(0, 0);
    let at = address(&mut rig, leaf);
    let lsn = {
        rig.pool.fetch(&mut rig.mem, rig.now, leaf, Waiter::Job);
        rig.run();
        rig.pool.store.map.leaves[&(0, 0)].page.lsn()
    };
    let checkpoints = rig.pool.counters().checkpoints;
    for (born, empty) in [(lsn, false), (lsn + 1, true)] {
        rig.pool.store.map.leaves.clear();
        rig.pool.fetches.born.insert(at, born);
        rig.pool.fetch(&mut rig.mem, rig.now, leaf, Waiter::Job);
        rig.run();
        let page = &rig.pool.store.map.leaves[&(0, 0)].page;
        assert_eq!(page.get().is_empty(), empty);
        assert_eq!(rig.pool.counters().checkpoints > checkpoints, empty, "both slots are written");
        assert!(page.takes(lsn + 2) && !page.takes(lsn));
    }
}

#[test]
fn what_was_open_at_the_last_stop_is_not_adopted_and_what_is_changed_stays() {
    let (mut rig, _) = cold();
    let leaf = PageId::Leaf(0, 0);
    let at = address(&mut rig, leaf);
    let (seed, lsn) = (rig.pool.store.seed, rig.pool.journal.written);
    let mut map = LeafMap::new();
    map.open = 0b101;
    for slot in 0..2 {
        let mut bytes = vec![0; 4096];
        let stamp = Stamp::map(leaf, at + slot * BLOCK);
        codec::encode::<Arena>(&mut bytes, stamp, lsn, seed, Image::Leaf(&map));
        rig.blocks.insert(at / BLOCK + slot, bytes);
    }
    for (unclean_before, unadopted) in [(lsn + 1, 0b101), (lsn, 0)] {
        rig.pool.store.map.leaves.clear();
        rig.pool.fetches.unclean_before = unclean_before;
        rig.pool.fetch(&mut rig.mem, rig.now, leaf, Waiter::Job);
        rig.run();
        let held = &rig.pool.store.map.leaves[&(0, 0)];
        assert_eq!(held.unadopted, unadopted);
        // Open and known to be right: only the memory knows, so that it stays.
        assert_eq!(rest::can_go(held, unclean_before, &rig.pool.regions), unadopted != 0);
        assert!(!rest::can_go(held, lsn, &rig.pool.regions));
    }
}

#[test]
fn a_page_that_goes_while_it_is_read_is_not_taken() {
    let (mut rig, _) = cold();
    let leaf = PageId::Leaf(0, 0);
    address(&mut rig, leaf);
    rig.pool.fetch(&mut rig.mem, rig.now, leaf, Waiter::Job);
    rig.turn();
    assert_eq!(rig.flying(token::FETCH).len(), 1);
    rig.pool.unplace_page(&mut rig.mem, rig.now, leaf, Waiter::Job);
    rig.run();
    assert!(rig.pool.store.map.leaves.is_empty());
    assert!(rig.notes.is_empty(), "{:?}", rig.notes);
}

#[test]
fn what_background_work_reads_stays_for_a_while() {
    let (mut rig, _) = cold();
    rig.wait(1000);
    rig.run();
    address(&mut rig, PageId::Leaf(0, 0));
    rig.pool.fetch(&mut rig.mem, rig.now, PageId::Leaf(0, 0), Waiter::Job);
    rig.run();
    assert_eq!(rig.pool.store.map.leaves.len(), 1);
    assert_eq!(rig.pool.pages_due(), Some(rig.now + rig.pool.config.limits.idle));
}
