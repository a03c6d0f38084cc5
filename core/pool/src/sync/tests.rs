//! What a flush promises, and what of the ring is kept for what frees it.

use braid_block::{Class, Memory};

use crate::layout::Cell;
use crate::rig::Rig;
use crate::{Work, token};

#[test]
fn a_flush_ends_when_its_own_cells_are_durable() {
    let (mut rig, handle) = Rig::new();
    rig.ended.clear();
    // Somebody waits for a block of the journal, which is being written ...
    let seq = rig.pool.record(Cell::Open { layer: 0, region: 5, count: 1 });
    rig.pool.sync.want_durable(seq);
    rig.turn();
    let block = rig.flying(token::JOURNAL)[0];
    // ... when a flush comes whose number is in the next.
    rig.ask(handle, Work::Flush { number: Some(7) });
    let cell = rig.pool.journal.assigned();
    assert!(cell > seq);
    rig.finish(block);
    // The flush that the first one waits for may be issued beside that next block.
    while let Some(at) = rig.flying(token::SYNC).first().copied() {
        rig.finish(at);
    }
    let durable = rig.pool.sync.durable() >= cell;
    assert!(rig.take_ended().is_empty() || durable, "told before it was durable");
    rig.run();
    assert_eq!(rig.take_ended().len(), 1);
    assert!(rig.pool.sync.durable() >= cell);
}

#[test]
fn flushes_that_waited_for_room_keep_their_order() {
    let (mut rig, handle) = Rig::new();
    rig.ended.clear();
    while rig.pool.journal.has_room() {
        rig.pool.journal.push(Cell::Open { layer: 99, region: 5, count: 1 });
    }
    rig.ask(handle, Work::Flush { number: Some(7) });
    assert!(!rig.pool.unnumbered.is_empty(), "it waits for room in the ring");
    let mut asked = false;
    while !rig.effects.is_empty() {
        rig.land(0);
        if !asked && rig.pool.journal.has_room() {
            // There is room, and who waits does not know yet.
            assert!(!rig.pool.unnumbered.is_empty());
            rig.ask(handle, Work::Flush { number: Some(8) });
            asked = true;
        }
        rig.turn();
    }
    assert!(asked);
    assert_eq!(rig.take_ended(), [Ok(0), Ok(0)]);
    assert_eq!(rig.pool.layer(handle).map(|info| info.flush_number), Some(8));
}

#[test]
fn the_last_block_of_the_ring_is_for_a_newer_tail() {
    let (mut rig, _) = Rig::new();
    rig.run();
    let (journal, layout) = (&mut rig.pool.journal, &rig.pool.store.layout);
    let mut writes = 0;
    loop {
        journal.push(Cell::Flush { layer: 0, number: 1 });
        let Some(commit) = journal.commit(&mut rig.mem, layout, None) else { break };
        journal.on_written(Ok(commit.span.len)).expect("all of it");
        writes += 1;
        assert!(writes < layout.ring_blocks);
    }
    journal.tail += 1;
    assert!(journal.commit(&mut rig.mem, layout, None).is_some(), "nothing would ever move again");
}

#[test]
fn a_write_to_the_media_does_not_wait_for_the_cells_of_newer_ones() {
    let (mut rig, handle) = Rig::new();
    rig.take_ended();
    let lease = rig.mem.alloc(Class::Small).expect("a buffer");
    let work = Work::Write { offset: 0, len: 4096, durable: true };
    let request = crate::Request { tag: 1, handle, work, lease: Some(lease) };
    rig.pool.submit(&mut rig.mem, rig.now, request);
    rig.turn();
    let journal = rig.flying(token::JOURNAL)[0];
    rig.finish(journal);
    let data = rig.flying(token::PIECE)[0];
    rig.write(handle, 1000, 2);
    assert_eq!(rig.flying(token::JOURNAL).len(), 1, "the newer write's cell");
    rig.finish(data);
    assert_eq!(rig.flying(token::SYNC).len(), 1, "nothing holds the flush back");
    let sync = rig.flying(token::SYNC)[0];
    rig.finish(sync);
    assert_eq!(rig.take_ended().len(), 1);
    rig.run();
    assert_eq!(rig.take_ended().len(), 1);
}

#[test]
fn who_asks_while_a_flush_is_asked_for_is_served_by_it_or_by_the_next() {
    let (mut rig, handle) = Rig::new();
    rig.take_ended();
    for round in 0..40 {
        for n in 0..4 {
            rig.write(handle, round * 4 + n, 1);
            rig.ask(handle, Work::Flush { number: None });
            let at = (round as usize * 7 + n as usize) % rig.effects.len();
            rig.finish(at);
        }
    }
    rig.run_shuffled(5);
    assert_eq!(rig.take_ended().len(), 320);
    assert!(rig.pool.counters().device_flushes <= 170);
}
