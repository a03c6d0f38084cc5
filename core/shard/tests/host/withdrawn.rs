//! Owners that are ended from outside while something is in work, and fences that meet each other.

use std::time::Duration;

use braid_nexus::Command;
use braid_nvme::Status;
use braid_nvme::host::Operation;
use braid_shard::Note;

use crate::world::{VOLUME, VOLUME_NQN, World, replica};

#[test]
fn a_volume_that_is_withdrawn_while_a_write_is_held_ends_at_once_and_gives_all_back() {
    for seed in 60..66 {
        let mut world = World::new(seed);
        world.take_over(0);
        let path = world.connect(0);
        assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
        world.pass(Duration::from_secs(5));
        let before = world.net.nodes[0].leases();
        // A member fails, and the store does not answer: the write is held.
        world.silent = true;
        world.net.nodes[2].listens = false;
        world.restart(2);
        let operation = Operation::Write { lba: 0, blocks: 2, durable: false };
        world.submit(path, operation, &[2; 8192], 8192, 9);
        world.pass(Duration::from_secs(1));
        assert!(world.done.is_empty() && world.view(0).failing != 0, "{:?}", world.notes);
        let now = world.net.now;
        let node = &mut world.net.nodes[0];
        assert!(node.shard.volume_retire(&VOLUME));
        let refused = Command::TakeOver { owner: [99; 16], force: false };
        assert!(!node.shard.volume_command(now, &VOLUME, 8, refused), "it takes nothing any more");
        assert!(node.shard.subsystem_remove(&mut node.mem, now, VOLUME_NQN, 3));
        world.run();
        assert_eq!(world.done.remove(&9).unwrap().status, Status::ANA_INACCESSIBLE);
        world.pass(Duration::from_millis(100));
        let gone = |note: &Note| matches!(note, Note::SubsystemGone { tag: 3, .. });
        assert!(world.net.nodes[0].notes.iter().any(gone), "nothing of its hosts is in work");
        assert!(world.net.nodes[0].shard.volume_remove(&VOLUME));
        world.pass(Duration::from_secs(1));
        assert_eq!(world.gone, 1);
        assert!(world.net.nodes[0].leases() <= before, "all buffers are back");
        // Somebody else serves what was acknowledged.
        world.silent = false;
        world.net.nodes[2].listens = true;
        world.take_over(1);
        let path = world.connect(1);
        assert!(matches!(world.read(path, 0), Ok(1 | 2)));
    }
}

#[test]
fn a_volume_that_is_withdrawn_while_a_replica_returns_gives_all_back() {
    for seed in 70..76 {
        let mut world = World::new(seed);
        world.take_over(0);
        let path = world.connect(0);
        world.pass(Duration::from_secs(5));
        let before = world.net.nodes[0].leases();
        world.net.nodes[2].listens = false;
        world.restart(2);
        for lba in 0..100 {
            assert_eq!(world.write(path, lba * 8, 2), Status::SUCCESS);
        }
        world.net.nodes[2].listens = true;
        // What is read for it stays in the pool here.
        world.net.nodes[0].holds_reads = true;
        world.give_back(0, replica(2));
        world.pass(Duration::from_secs(2));
        assert!(world.view(0).segments > 0, "{:?}", world.notes);
        assert!(world.net.nodes[0].shard.volume_remove(&VOLUME));
        world.pass(Duration::from_millis(500));
        assert_eq!(world.gone, 0, "the pool fills its buffers still");
        world.net.nodes[0].holds_reads = false;
        world.pass(Duration::from_secs(1));
        assert_eq!(world.gone, 1);
        assert!(world.net.nodes[0].leases() <= before, "all buffers are back");
        world.take_over(1);
        let path = world.connect(1);
        assert_eq!(world.read(path, 8), Ok(2));
    }
}

#[test]
fn a_newer_fence_is_answered_though_the_pool_still_lists_marks_for_an_older_one() {
    for seed in 80..84 {
        let mut world = World::new(seed);
        world.take_over(0);
        let path = world.connect(0);
        assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
        world.command(0, Command::Shutdown);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.view(0).epoch, 0, "{:?}", world.notes);
        // Its maps have to be read anew.
        world.reopen(2);
        world.net.nodes[2].holds_reads = true;
        world.command(1, Command::TakeOver { owner: [100; 16], force: false });
        world.pass(Duration::from_millis(1300));
        assert!(world.net.nodes[2].held_reads() > 0, "its marks are being listed");
        assert!(!world.view(1).serving);
        // The next owner's fence takes the place of that one.
        world.command(0, Command::TakeOver { owner: [101; 16], force: false });
        world.pass(Duration::from_millis(300));
        assert!(!world.view(0).serving && world.view(1).epoch == 0, "{:?}", world.notes);
        world.net.nodes[2].holds_reads = false;
        world.pass(Duration::from_millis(1500));
        assert!(world.view(0).serving, "{:?} {:?}", world.view(0), world.notes);
        assert_eq!(world.members(), 3, "nobody was left behind: {:?}", world.record);
        let path = world.connect(0);
        assert_eq!(world.write(path, 0, 2), Status::SUCCESS);
        assert_eq!(world.read(path, 0), Ok(2));
    }
}
