//! A volume over the replicas of three engines: what hosts see when engines come and go.

use std::time::Duration;

use braid_nexus::{Command, Failure};
use braid_nvme::Status;
use braid_nvme::ana::{ANA_LOG, AnaState};
use braid_nvme::host::{Operation, get_log_page, identify_command};
use braid_shard::{Deed, Rehearsal};

use crate::world::{ENGINES, POOL, VOLUME, VOLUME_NQN, World, pool, replica};

#[test]
fn what_a_host_writes_is_on_every_engine() {
    let mut world = World::new(1);
    world.take_over(0);
    let path = world.connect(0);
    assert_eq!(world.read(path, 4), Ok(0), "nothing was written");
    assert_eq!(world.write(path, 4, 7), Status::SUCCESS);
    assert_eq!(world.one(path, Operation::Flush, &[], 0).0, Status::SUCCESS);
    assert_eq!(world.read(path, 4), Ok(7));
    let zero = Operation::WriteZeroes { lba: 4, blocks: 1, deallocate: true };
    assert_eq!(world.one(path, zero, &[], 0).0, Status::SUCCESS);
    let (status, bytes) = world.one(path, Operation::Read { lba: 4, blocks: 2 }, &[], 8192);
    assert_eq!(status, Status::SUCCESS);
    assert!(bytes[..4096].iter().all(|b| *b == 0) && bytes[4096..].iter().all(|b| *b == 7));
    assert_eq!(world.members(), 3);
    // Each of the others serves what was written when it is asked to.
    for at in [1, 2] {
        world.take_over(at);
        let path = world.connect(at);
        let (_, bytes) = world.one(path, Operation::Read { lba: 4, blocks: 2 }, &[], 8192);
        assert!(bytes[..4096].iter().all(|b| *b == 0) && bytes[4096..].iter().all(|b| *b == 7));
    }
}

#[test]
fn who_is_not_the_owner_sends_hosts_elsewhere() {
    let mut world = World::new(2);
    world.take_over(0);
    let (owner, standby) = (world.connect(0), world.connect(1));
    assert_eq!(world.write(standby, 0, 1), Status::ANA_INACCESSIBLE);
    assert_eq!(world.write(owner, 0, 2), Status::SUCCESS);
    world.take_over(1);
    assert_eq!(world.write(owner, 0, 3), Status::ANA_INACCESSIBLE, "it is the owner no more");
    let log = Operation::Admin(get_log_page(ANA_LOG, u32::MAX, 0, 64, false));
    let (status, page) = world.one(standby, log, &[], 64);
    assert_eq!((status, page[32] & 0xf), (Status::SUCCESS, AnaState::Optimized as u8));
    let done = world.write(standby, 0, 4);
    assert_eq!(done, Status::SUCCESS, "its host has read that, and so shown that it is in use");
    assert_eq!(world.read(standby, 0), Ok(4));
}

#[test]
fn an_engine_that_dies_is_excluded_and_comes_back() {
    let mut world = World::new(3);
    world.take_over(0);
    let path = world.connect(0);
    for lba in 0..20 {
        assert_eq!(world.write(path, lba * 2, 1), Status::SUCCESS);
    }
    world.net.nodes[2].listens = false;
    world.restart(2);
    for lba in 0..20 {
        assert_eq!(world.write(path, lba * 2, 2), Status::SUCCESS);
    }
    assert_eq!(world.members(), 2, "{:?}", world.record);
    world.net.nodes[2].listens = true;
    world.give_back(0, replica(2));
    world.whole();
    // It has what it missed.
    world.take_over(2);
    let path = world.connect(2);
    for lba in 0..20 {
        assert_eq!(world.read(path, lba * 2), Ok(2));
    }
}

#[test]
fn the_owner_dies_and_nothing_acknowledged_is_lost() {
    let mut world = World::new(4);
    world.take_over(0);
    let path = world.connect(0);
    for lba in 0..20 {
        assert_eq!(world.write(path, lba * 2, lba as u8 + 1), Status::SUCCESS);
    }
    world.net.nodes[0].listens = false;
    world.restart(0);
    world.take_over(1);
    let path = world.connect(1);
    for lba in 0..20 {
        assert_eq!(world.read(path, lba * 2), Ok(lba as u8 + 1));
    }
    world.net.nodes[0].listens = true;
    if world.members() < 3 {
        world.give_back(1, replica(0));
    }
    world.whole();
}

#[test]
fn nobody_waits_for_good_when_all_buffers_are_spent() {
    let mut world = World::new(6);
    world.take_over(0);
    let path = world.connect(0);
    assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
    // From now on there is only what each use keeps for itself.
    for node in &mut world.net.nodes[..ENGINES] {
        node.mem.left = 0;
    }
    // A Clean, of which there is one for 128 writes, names the regions that are clean.
    for at in 0..600 {
        let lba = at * 8 / 10 * 2;
        assert_eq!(world.write(path, lba, at as u8), Status::SUCCESS);
        if at % 100 == 99 {
            assert_eq!(world.one(path, Operation::Flush, &[], 0).0, Status::SUCCESS);
            assert_eq!(world.read(path, lba), Ok(at as u8));
        }
    }
    assert_eq!(world.members(), 3, "{:?}", world.notes);
}

#[test]
fn a_snapshot_is_taken_on_every_engine() {
    let mut world = World::new(5);
    world.take_over(0);
    let path = world.connect(0);
    assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
    world.command(0, Command::Snapshot { uuid: [0x55; 16] });
    world.pass(Duration::from_secs(1));
    let ended = world.orders.last();
    assert!(matches!(ended, Some((0, braid_nexus::Ended { result: Ok(()), .. }))));
    assert_eq!(world.record.snapshots.len(), 1);
    for at in 0..ENGINES {
        let pool = world.net.nodes[at].shard.pool(POOL).unwrap();
        assert!(pool.find(&[0x55; 16]).is_some(), "engine {at} has it");
    }
}

#[test]
fn what_a_pool_has_no_place_for_is_refused_and_fails_no_member() {
    for (seed, full) in (61..64).zip(0..ENGINES) {
        let mut world = World::new(seed);
        // The replica, and one snapshot.
        let limits = braid_pool::Limits { layers_max: 2, ..pool().limits };
        world.reopen_as(full, braid_pool::Config { limits, ..pool() });
        world.take_over(0);
        let path = world.connect(0);
        let ask = |world: &mut World, command: Command| {
            assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
            world.command(0, command);
            world.pass(Duration::from_secs(5));
            assert_eq!(world.members(), 3, "{:?}", world.notes);
            assert_eq!(world.write(path, 0, 2), Status::SUCCESS);
            world.orders.pop().unwrap().1.result
        };
        let take = |byte: u8| Command::Snapshot { uuid: [byte; 16] };
        assert_eq!(ask(&mut world, take(0x51)), Ok(()));
        assert_eq!(ask(&mut world, take(0x52)), Err(Failure::NoSpace));
        let named: Vec<_> = world.record.snapshots.iter().map(|s| s.uuid).collect();
        assert_eq!(named, [[0x51; 16]]);
        for at in 0..ENGINES {
            let pool = world.net.nodes[at].shard.pool(POOL).unwrap();
            assert!(pool.find(&[0x52; 16]).is_none(), "nothing is left of it on engine {at}");
        }
        let bytes = world.record.bytes;
        let beyond = Command::Resize { bytes: 26 << 40 };
        assert_eq!(ask(&mut world, beyond), Err(Failure::NoSpace), "of what maps reach");
        assert_eq!(world.record.bytes, bytes);
        let drop = Command::DeleteSnapshot { uuid: [0x51; 16] };
        assert_eq!(ask(&mut world, drop), Ok(()));
        assert_eq!(ask(&mut world, take(0x53)), Ok(()), "there is a place again");
    }
}

#[test]
fn a_volume_that_grows_is_larger_on_every_path() {
    let mut world = World::new(12);
    world.take_over(0);
    let (owner, standby) = (world.connect(0), world.connect(1));
    let bytes = world.record.bytes * 2;
    // What is written has two blocks.
    let last = bytes / 4096 - 2;
    assert_ne!(world.write(owner, last, 1), Status::SUCCESS);
    world.command(0, Command::Resize { bytes });
    world.pass(Duration::from_secs(1));
    assert_eq!(world.record.bytes, bytes);
    assert_eq!(world.write(owner, last, 7), Status::SUCCESS, "on all members");
    let blocks = |world: &mut World, path| {
        let identify = Operation::Admin(identify_command(0, 1));
        let (status, page) = world.one(path, identify, &[], 4096);
        assert_eq!(status, Status::SUCCESS);
        u64::from_le_bytes(page[..8].try_into().unwrap())
    };
    assert_eq!(blocks(&mut world, owner), last + 2);
    assert_ne!(blocks(&mut world, standby), last + 2, "it was not told yet");
    assert!(world.net.nodes[1].shard.volume_size(&VOLUME, bytes));
    world.pass(Duration::from_millis(100));
    assert_eq!(blocks(&mut world, standby), last + 2);
    // What it is told late changes nothing.
    assert!(world.net.nodes[1].shard.volume_size(&VOLUME, bytes / 2));
    assert!(world.net.nodes[0].shard.volume_size(&VOLUME, bytes * 2));
    world.pass(Duration::from_millis(100));
    for path in [owner, standby] {
        assert_eq!(blocks(&mut world, path), last + 2);
    }
    world.take_over(1);
    let path = world.connect(1);
    assert_eq!(world.read(path, last), Ok(7));
}

#[test]
fn a_host_with_paths_by_all_engines_sees_no_error_when_the_owner_dies() {
    for seed in 6..10 {
        let mut world = World::new(seed);
        world.connect_all();
        world.take_over(0);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.multipath.usable(), 1, "one engine serves it");
        for lba in 0..30 {
            world.write_somehow(lba * 2, 1);
        }
        world.net.nodes[0].listens = false;
        world.restart(0);
        for lba in 0..30 {
            world.write_somehow(lba * 2, 2);
        }
        world.take_over(1 + (seed % 2) as usize);
        world.net.nodes[0].listens = true;
        world.pass(Duration::from_secs(5));
        assert_eq!(world.multipath.in_work(), 0, "{:?}", world.notes);
        assert!(world.ended.iter().all(|ended| ended.status.is_success()));
        assert_eq!(world.ended.len(), 60);
        let path = world.connect(1 + (seed % 2) as usize);
        for lba in 0..30 {
            assert_eq!(world.read(path, lba * 2), Ok(2));
        }
    }
}

#[test]
fn a_volume_that_is_taken_away_from_its_owner_ends_and_can_come_again() {
    for seed in 20..26 {
        let mut world = World::new(seed);
        world.take_over(0);
        let path = world.connect(0);
        assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
        let now = world.net.now;
        let node = &mut world.net.nodes[0];
        assert!(node.shard.subsystem_remove(&mut node.mem, now, VOLUME_NQN, 3));
        assert!(node.shard.volume_remove(&VOLUME));
        world.pass(Duration::from_secs(5));
        assert_eq!(world.gone, 1);
        assert!(world.net.nodes[0].shard.volume_view(&VOLUME).is_none());
        assert!(!world.net.nodes[0].shard.volume_remove(&VOLUME));
        world.take_over(1);
        let path = world.connect(1);
        assert_eq!(world.read(path, 0), Ok(1));
    }
}

#[test]
fn owners_that_follow_each_other_before_one_serves_lock_nobody_out() {
    for seed in 30..50 {
        let mut world = World::new(seed);
        world.take_over(0);
        for round in 0..12 {
            world.owners += 1;
            let at = (seed as usize + round) % ENGINES;
            world.command(at, Command::TakeOver { owner: [world.owners; 16], force: false });
            for _ in 0..3 {
                world.net.some(12);
                for at in 0..ENGINES {
                    while let Some(told) = world.net.nodes[at].tells.pop_front() {
                        world.told(at, told.news);
                    }
                }
            }
        }
        world.take_over(1);
        let path = world.connect(1);
        assert_eq!(world.write(path, 0, 1), Status::SUCCESS);
    }
}

#[test]
fn what_a_replica_does_is_told_who_watches_it_and_nobody_else() {
    let mut world = World::new(60);
    world.take_over(0);
    let plan = Rehearsal { watches: true, ..Rehearsal::default() };
    world.net.nodes[0].shard.rehearse(plan);
    world.net.nodes[1].shard.rehearse(plan);
    let path = world.connect(0);
    assert_eq!(world.write(path, 4, 7), Status::SUCCESS);
    let zero = Operation::WriteZeroes { lba: 4, blocks: 1, deallocate: true };
    assert_eq!(world.one(path, zero, &[], 0).0, Status::SUCCESS);
    for at in [0, 1] {
        let (replica, offset) = (replica(at), 4 * 4096);
        let shard = &mut world.net.nodes[at].shard;
        let written = Some(vec![7; 8192].into());
        let mut deeds: Vec<Deed> = std::iter::from_fn(|| shard.member_deed()).collect();
        let all = deeds.len();
        deeds.retain(|deed| !matches!(deed, Deed::Taken { .. }));
        assert_eq!(all - deeds.len(), if at == 0 { 2 } else { 0 }, "the owner has the volume");
        let wrote = Deed::Changed { replica, offset, len: 8192, bytes: written };
        let zeroed = Deed::Changed { replica, offset, len: 4096, bytes: None };
        assert_eq!(deeds, [wrote, zeroed]);
        let (view, kept) = shard.member_view(&replica).unwrap();
        assert_eq!(view.fence, (world.record.epoch, world.record.owner));
        assert_eq!(*kept.unwrap().copy, world.record);
    }
    assert_eq!(world.net.nodes[2].shard.member_deed(), None);
}
