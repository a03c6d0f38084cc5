//! What a read asks for, and what it says of blocks that cannot be read.

use braid_block::{Class, Memory};

use crate::rig::Rig;
use crate::{Bearing, Command, Failure, Handle, Note, Work};

#[test]
fn a_read_asks_for_a_checksum_once() {
    let (mut rig, handle) = Rig::new();
    rig.write(handle, 3, 0x33);
    rig.run();
    rig.let_go();
    rig.read(handle, 3);
    rig.run();
    let before = rig.pool.store.sums.hits();
    for _ in 0..10 {
        rig.read(handle, 3);
        rig.run();
    }
    assert_eq!(rig.pool.store.sums.hits() - before, 10);
    assert!(rig.take_ended()[1..].iter().all(|end| *end == Ok(0x33)));
}

#[test]
fn an_unaligned_read_that_waits_for_a_write_leaves_it_the_last_buffer() {
    let (mut rig, _) = Rig::new();
    let handle = rig.create_fine(&[0], 7);
    let [first, second] = [(); 2].map(|()| rig.mem.alloc(Class::Small).expect("a buffer"));
    rig.mem.bytes_mut(&second).fill(9);
    rig.mem.exhausted = true;
    rig.ask_with(handle, Work::Read { offset: 512, len: 512 }, first);
    assert!(rig.pool.spare.is_none(), "the read has it");
    let work = Work::Write { offset: 512, len: 512, durable: false };
    rig.ask_with(handle, work, second);
    rig.run();
    assert_eq!(rig.take_ended(), [Ok(9), Ok(9)], "the write, and the read again");
}

#[test]
fn of_many_blocks_the_one_that_the_device_cannot_read_is_named() {
    for bad in [0, 1, 37, 63, 64, 90, 127] {
        let (mut rig, handle) = Rig::new();
        for block in 0..128 {
            rig.write(handle, block, if block == bad { 9 } else { 7 });
            rig.run();
        }
        rig.take_ended();
        rig.notes.clear();
        let place = rig.place_of(9);
        rig.bad.insert(place);
        let read = |rig: &mut Rig| {
            let lease = rig.mem.alloc(Class::Large).expect("a buffer");
            let work = Work::Read { offset: bad / 32 * 32 * 4096, len: 32 * 4096 };
            rig.ask_with(handle, work, lease);
            rig.run();
            rig.take_ended().pop().expect("it has ended")
        };
        rig.reads.clear();
        assert_eq!(read(&mut rig), Err(Failure::Media(bad * 4096)), "block {bad}");
        let met = rig
            .reads
            .iter()
            .filter(|(at, len)| (*at..at + u64::from(*len)).contains(&(place * 4096)));
        assert_eq!(met.count(), 2, "each may take as long as a disk tries");
        let (of, offset, device) = (Some(handle), bad * 4096, place * 4096);
        assert_eq!(rig.notes, [Note::Media { handle: of, offset, device }]);
        // It is written anew, and can be read again.
        rig.write(handle, bad, 9);
        rig.run();
        assert!(read(&mut rig).is_ok(), "block {bad}");
    }
}

#[test]
fn of_two_partial_ends_of_a_write_the_one_that_the_device_cannot_read_is_named() {
    for (bad, named) in [(3, 3), (5, 5)] {
        let (mut rig, _) = Rig::new();
        let fine = rig.create_fine(&[3, 4, 5], 6);
        let handle = rig.pool.find(&[2; 16]).expect("a replica");
        assert_eq!(fine, handle);
        rig.write(fine, bad, 9);
        rig.run();
        rig.take_ended();
        rig.notes.clear();
        let place = rig.place_of(9);
        rig.bad.insert(place);
        let lease = rig.mem.alloc(Class::Large).expect("a buffer");
        let work = Work::Write { offset: 3 * 4096 + 512, len: 2 * 4096, durable: false };
        rig.ask_with(fine, work, lease);
        rig.run();
        assert_eq!(rig.take_ended(), [Err(Failure::Media(named * 4096))]);
        let (handle, offset, device) = (Some(fine), named * 4096, place * 4096);
        assert_eq!(rig.notes, [Note::Media { handle, offset, device }]);
    }
}

/// A replica that sees a snapshot's block 0, which an unfinished overwrite left: it does not
/// match its checksum, in a region that was open when the process was killed.
fn above_an_unfinished_overwrite() -> (Rig, Handle) {
    let (mut rig, handle) = Rig::new();
    // A member's regions are adopted when its mirror says that it is like the others.
    let bearing = Bearing { member: Some(true), ..Bearing::default() }.into();
    rig.pool.command(&mut rig.mem, rig.now, 2, Command::Bear { uuid: [1; 16], bearing });
    rig.run();
    for fill in [1, 2] {
        rig.write(handle, 0, fill);
        rig.run();
    }
    rig.pool.want_checkpoint();
    rig.run();
    let place = rig.place_of(2);
    rig.blocks.insert(place, alloc::vec![5; 4096]);
    let mut rig = rig.reopen();
    let (replica, uuid) = ([1; 16], [3; 16]);
    let snapshot = Command::Snapshot { replica, uuid, name: "s".into(), created: 2 };
    rig.pool.command(&mut rig.mem, rig.now, 3, snapshot);
    rig.run();
    rig.take_ended();
    let handle = rig.pool.find(&[1; 16]).expect("a replica");
    (rig, handle)
}

#[test]
fn what_nobody_adopted_is_no_media_error_although_its_leaf_was_let_go() {
    let (mut rig, handle) = above_an_unfinished_overwrite();
    for _ in 0..2 {
        rig.read(handle, 0);
        rig.run();
        assert_eq!(rig.take_ended(), [Ok(5)]);
        // The chain of the cluster's owners stays.
        let leaves = &mut rig.pool.store.map.leaves;
        let sealed = leaves.iter().find(|(_, leaf)| leaf.unadopted != 0);
        let sealed = *sealed.expect("nobody has adopted it").0;
        leaves.remove(&sealed);
    }
}
