//! Making, opening and stopping pools; and what is refused.

mod common;

use braid_block::IoError;
use braid_pool::{Config, Format, Note, Pool, Refusal, State};
use common::{BLOCK, Disk, TINY, UUID, World, config};

#[test]
fn a_new_pool_opens_and_is_empty() {
    let world = World::fresh(&config(1));
    assert!(world.notes.contains(&Note::Opened { clean: true, replayed: 0, rejected: 0 }));
    let info = world.pool.info();
    assert_eq!((info.uuid, info.incarnation, info.data), (UUID, 1, 0));
    assert_eq!(info.features, 1, "an older version is to refuse it, for it cannot read it");
    world.leave();
}

#[test]
fn what_was_written_is_there_after_an_orderly_stop() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write(handle, 3, 0x33).unwrap();
    world.stop();
    let mut world = World::open(world.leave(), config(2));
    assert!(world.notes.contains(&Note::Opened { clean: true, replayed: 0, rejected: 0 }));
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x33));
    assert_eq!(world.read(handle, 4), Ok(0));
    world.leave();
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write(handle, 3, 0x33).unwrap();
    let mut world = world.kill(config(2));
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x33));
    world.leave();
}

#[test]
fn what_was_flushed_survives_a_power_cut_and_nothing_else_changes() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write(handle, 3, 0x33).unwrap();
    world.flush(handle);
    world.write(handle, 5, 0x55).unwrap();
    let mut world = world.cut(|_| false, config(2));
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x33));
    assert_eq!(world.read(handle, 5), Ok(0), "never written, as far as the journal knows");
    world.leave();
}

#[test]
fn a_first_write_whose_data_is_lost_never_was() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.flush(handle);
    world.write_many(handle, 3, &[0x33, 0x44]).unwrap();
    // The journal made it, the data did not.
    let journal = 4..4 + u64::from(Format::for_device(UUID, TINY).ring_blocks);
    let mut world = world.cut(|block| journal.contains(&block), config(2));
    let opened = world.notes.iter().find_map(|note| match note {
        Note::Opened { rejected, .. } => Some(*rejected),
        _ => None,
    });
    assert_eq!(opened, Some(2));
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0));
    world.write(handle, 3, 0x99).unwrap();
    world.flush(handle);
    let mut world = world.cut(|_| false, config(3));
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x99));
    assert_eq!(world.read(handle, 4), Ok(0));
    world.leave();
}

#[test]
fn an_overwrite_that_was_cut_off_is_unverified_and_then_adopted() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write(handle, 3, 0x33).unwrap();
    world.flush(handle);
    world.flush(handle);
    world.write(handle, 3, 0x44).unwrap();
    // The data made it, its cell did not.
    let journal = 4..4 + u64::from(Format::for_device(UUID, TINY).ring_blocks);
    let mut world = world.cut(|block| !journal.contains(&block), config(2));
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x44));
    world.idle(5);
    world.stop();
    let mut world = World::open(world.leave(), config(3));
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x44));
    assert_eq!(world.pool.counters().unverified, 0, "its checksum is known again");
    world.leave();
}

#[test]
fn every_open_has_its_incarnation() {
    let mut disk = World::create(config(1)).leave();
    for incarnation in 1..5 {
        let world = World::open(disk, config(incarnation));
        assert_eq!(world.pool.info().incarnation, incarnation);
        disk = world.leave();
    }
}

#[test]
fn what_is_no_pool_is_refused() {
    let refused = |disk: Disk, config| {
        let world = World::open(disk, config);
        assert_eq!(world.pool.state(), State::Failed);
        let refusal = world.notes.iter().find_map(|note| match note {
            Note::Refused(refusal) => Some(*refusal),
            _ => None,
        });
        world.leave();
        refusal.expect("a reason")
    };
    assert_eq!(refused(Disk::default(), config(1)), Refusal::Foreign);

    let pool = World::create(config(1)).leave();
    let mut small = config(1);
    small.device.bytes = TINY / 2;
    assert_eq!(refused(pool.clone(), small), Refusal::Truncated { needs: TINY, has: TINY / 2 });

    let mut large = config(1);
    large.device.sector = 8192;
    assert_eq!(refused(pool.clone(), large), Refusal::Sector);

    let mut damaged = pool.clone();
    for slot in superblocks() {
        damaged.damage(slot + 100);
    }
    assert!(matches!(refused(damaged, config(1)), Refusal::Damaged { .. }));

    let mut rootless = pool.clone();
    rootless.damage(2 * BLOCK + 100);
    rootless.damage(3 * BLOCK + 100);
    assert_eq!(refused(rootless, config(1)), Refusal::Damaged { device: 2 * BLOCK });
}

#[test]
fn a_newer_pool_is_refused_by_name() {
    let mut disk = World::create(config(1)).leave();
    for slot in superblocks() {
        let block = disk.durable.get_mut(&(slot / BLOCK)).unwrap();
        // Version, then features: one that is known, and one that is not.
        block[40..44].copy_from_slice(&2_u32.to_le_bytes());
        block[48..56].copy_from_slice(&5_u64.to_le_bytes());
        block[4..8].fill(0);
        let crc = crc32c::crc32c(block);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    let world = World::open(disk, config(2));
    let newer = Refusal::Newer { version: 2, features: 4 };
    assert!(world.notes.contains(&Note::Refused(newer)), "{:?}", world.notes);
    world.leave();
}

#[test]
fn three_of_four_superblocks_can_be_lost() {
    for kept in superblocks() {
        let mut disk = World::create(config(1)).leave();
        for slot in superblocks().into_iter().filter(|slot| *slot != kept) {
            disk.damage(slot + 200);
        }
        let world = World::open(disk, config(2));
        assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
        world.leave();
    }
}

#[test]
fn a_read_only_pool_writes_nothing() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write(handle, 3, 0x33).unwrap();
    let mut disk = world.leave();
    (disk.writes, disk.syncs, disk.writes_left) = (0, 0, Some(0));
    let mut look = config(2);
    look.read_only = true;
    let mut world = World::open(disk, look);
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x33));
    world.idle(3);
    world.stop();
    let disk = world.leave();
    assert_eq!((disk.writes, disk.syncs), (0, 0));
}

#[test]
fn a_half_made_pool_is_no_pool() {
    let made = World::create(config(1)).leave();
    let total = made.writes + made.syncs;
    for writes in 0..total {
        let mut disk = World::create(config(1)).leave();
        disk.writes_left = Some(writes);
        let format = Format::for_device(UUID, TINY);
        let world = World::around_disk(disk, Pool::create(config(2), format));
        assert_eq!(world.pool.state(), State::Failed);
        let mut disk = world.leave();
        disk.cut(|_| true);
        disk.writes_left = None;
        let world = World::open(disk, config(3));
        // As long as a superblock of the old pool is there, nothing else of it was touched; as
        // soon as there is one of the new, everything else is there.
        let whole = !(4..=total - 5).contains(&writes);
        assert_eq!(world.pool.state() == State::Open, whole, "{writes} of {total}");
        world.leave();
    }
}

#[test]
fn an_instance_changes_when_acknowledged_data_may_be_gone() {
    let instance = |world: &World| world.pool.layer(world.handle(7)).unwrap().instance;
    let mut world = World::fresh(&config(1));
    world.replica(7, 4 << 20);
    let first = instance(&world);
    let mut world = world.kill(config(2));
    assert_eq!(instance(&world), first, "the same kernel has it all");
    world.stop();
    let mut later = config(3);
    later.boot_id = [2; 16];
    let world = World::open(world.leave(), later.clone());
    assert_eq!(instance(&world), first, "it was stopped in order");
    later.boot_id = [3; 16];
    let world = world.kill(later);
    assert_ne!(instance(&world), first, "another kernel, and no order");
    world.leave();
}

fn superblocks() -> [u64; 4] {
    [0, BLOCK, TINY - 2 * BLOCK, TINY - BLOCK]
}

/// The blocks of the journal ring.
fn is_journal(block: u64) -> bool {
    (4..4 + u64::from(Format::for_device(UUID, TINY).ring_blocks)).contains(&block)
}

#[test]
fn a_damaged_journal_is_refused_and_nothing_of_it_dropped_in_silence() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    for block in 0..3 {
        world.write(handle, block, 1).unwrap();
        world.flush(handle);
    }
    let disk = world.leave();
    let journal: Vec<u64> = disk.durable.keys().copied().filter(|b| is_journal(*b)).collect();
    let used: Vec<u64> =
        journal.into_iter().filter(|block| disk.durable[block][..4] == *b"BJNL").collect();
    // Of the last block nobody knows whether it was there.
    for block in &used[..used.len() - 1] {
        let mut disk = disk.clone();
        disk.damage(block * BLOCK + 500);
        let world = World::open(disk, config(2));
        let refusal = Note::Refused(Refusal::Damaged { device: block * BLOCK });
        assert!(world.notes.contains(&refusal), "{block}: {:?}", world.notes);
        world.leave();
    }
}

#[test]
fn verdicts_that_find_no_room_in_the_journal_are_kept_by_a_checkpoint() {
    let mut relieved = 0;
    for cut in 0..20 {
        let mut config = config(1);
        config.limits.requests_max = 4096;
        let mut world = World::fresh(&config);
        let handle = world.replica(7, 14 << 20);
        world.write(handle, 1, 9).unwrap();
        world.flush(handle);
        // Every other block, so that each verdict is a cell of its own.
        for block in 1..1600 {
            world.submit_write(handle, block * 2, 7);
        }
        world.disk.writes_left = Some(1595 + cut);
        world.run();
        let mut disk = world.leave();
        disk.writes_left = None;
        disk.cut(is_journal);
        let mut world = World::open(disk, config.clone());
        assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
        relieved += u64::from(world.pool.counters().checkpoints > 0);
        let values = |world: &mut World| -> Vec<_> {
            let handle = world.handle(7);
            (1..1600).map(|block| world.read(handle, block * 2).unwrap()).collect()
        };
        let verdicts = values(&mut world);
        assert!(verdicts.iter().all(|value| [0, 7].contains(value)));
        // And cut off at once: the verdicts stand.
        let mut world = world.cut(|_| false, config);
        let handle = world.handle(7);
        assert_eq!(world.read(handle, 1), Ok(9));
        assert_eq!(values(&mut world), verdicts);
        world.leave();
    }
    assert!(relieved > 0);
}

#[test]
fn a_stale_superblock_does_not_hide_the_journal() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.stop();
    let mut world = World::open(world.leave(), config(2));
    let stopped = world.disk.clone();
    let handle_again = world.handle(7);
    assert_eq!(handle, handle_again);
    world.write(handle, 3, 0x33).unwrap();
    world.flush(handle);
    let mut disk = world.leave();
    // Both copies of the newest version are lost: those that are left call the pool stopped.
    let version = |bytes: &[u8]| u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    let at = superblocks().map(|slot| slot / BLOCK);
    let newest = at.iter().map(|block| version(&disk.durable[block])).max().unwrap();
    for block in at {
        if version(&disk.durable[&block]) == newest {
            disk.damage(block * BLOCK + 300);
        }
    }
    drop(stopped);
    let mut world = World::open(disk, config(3));
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x33));
    world.leave();
}

#[test]
fn a_failing_device_is_remembered() {
    let instance = |world: &World| world.pool.layer(world.handle(7)).unwrap().instance;
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    let first = instance(&world);
    world.disk.failing = Some(6 * BLOCK..TINY / 2);
    assert!(world.write(handle, 3, 0x33).is_err());
    assert_eq!(world.pool.state(), State::Failed);
    let mut disk = world.leave();
    disk.failing = None;
    let world = World::open(disk, config(2));
    assert_ne!(instance(&world), first, "what was acknowledged may be gone, by the same kernel");
    world.leave();
}

#[test]
fn a_snapshot_a_clone_and_a_thick_replica_come_back() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write_many(handle, 0, &[1, 2, 3]).unwrap();
    world.snapshot(7, 8).unwrap();
    world.write(handle, 1, 20).unwrap();
    world.clone_of(8, 9).unwrap();
    let clone = world.handle(9);
    world.write(clone, 2, 30).unwrap();
    world.flush(clone);
    for stop in [false, true, false] {
        if stop {
            world.stop();
            world = World::open(world.leave(), config(2));
        } else {
            world = world.cut(|_| false, config(3));
        }
        let read = |world: &mut World, n: u8| -> Vec<u8> {
            let handle = world.handle(n);
            (0..4).map(|block| world.read(handle, block).unwrap()).collect()
        };
        assert_eq!(read(&mut world, 7), [1, 20, 3, 0]);
        assert_eq!(read(&mut world, 8), [1, 2, 3, 0]);
        assert_eq!(read(&mut world, 9), [1, 2, 30, 0]);
    }
    world.leave();
}

#[test]
fn more_layers_than_the_limit_are_refused() {
    let mut world = World::fresh(&config(1));
    for n in 1..5 {
        world.replica(n, 1 << 20);
    }
    for stop in [true, false] {
        let mut config = config(2);
        config.limits.layers_max = 3;
        if stop {
            world.stop();
        }
        let refused = World::open(world.leave(), config.clone());
        assert!(refused.notes.contains(&Note::Refused(Refusal::Limit)), "{:?}", refused.notes);
        config.limits.layers_max = 5;
        world = World::open(refused.leave(), config);
        world.replica(9, 1 << 20);
    }
    world.leave();
}

#[test]
fn crash_after_crash_never_fills_the_ring() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 8 << 20);
    world.write(handle, 0, 1).unwrap();
    world.flush(handle);
    for n in 0..80 {
        // The journal makes it, the data does not; and nobody has time for a checkpoint.
        let handle = world.handle(7);
        world.write(handle, 1 + 2 * n, 7).unwrap();
        world = world.cut(is_journal, config(2));
        assert_eq!(world.pool.state(), State::Open, "{n}: {:?}", world.notes);
    }
    let handle = world.handle(7);
    for n in 0..80 {
        let value = world.read(handle, 1 + 2 * n).unwrap();
        assert!([0, 7].contains(&value), "{n}: a checkpoint may have come first");
    }
    for block in 0..1000 {
        world.write(handle, block, 9).unwrap();
    }
    world.flush(handle);
    world.stop();
    world.leave();
}

/// A pool whose disk failed a flush and dropped what it was to make durable, and says so.
fn after_a_failed_flush() -> World {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write(handle, 3, 0x33).unwrap();
    world.flush(handle);
    world.write_many(handle, 5, &[0x55; 4]).unwrap();
    world.disk.drops = true;
    world.try_flush(handle).expect_err("the disk fails");
    assert_eq!(world.pool.state(), State::Failed);
    assert!(!world.disk.dropped.is_empty(), "it is there to be read");
    world
}

#[test]
fn what_a_failed_flush_dropped_is_written_again_before_it_is_used() {
    let mut world = after_a_failed_flush().kill(config(2));
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    let dropped = world.disk.dropped.keys().filter(|block| !world.disk.durable.contains_key(block));
    assert_eq!(dropped.count(), 0);
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 5), Ok(0x55));
    world.write(handle, 20, 0x77).unwrap();
    world.flush(handle);
    let mut world = world.cut(|_| false, config(3));
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    let handle = world.handle(7);
    for (block, byte) in [(3, 0x33), (5, 0x55), (8, 0x55), (20, 0x77)] {
        assert_eq!(world.read(handle, block), Ok(byte), "block {block}");
    }
    world.leave();
}

#[test]
fn what_the_first_flush_of_an_open_dropped_is_written_again_by_the_next_open() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write(handle, 3, 0x33).unwrap();
    world.flush(handle);
    world.write(handle, 5, 0x55).unwrap();
    let mut disk = world.leave();
    disk.drops = true;
    let world = World::around_disk(disk, Pool::open(config(2)));
    assert!(world.notes.contains(&Note::Refused(Refusal::Device(IoError::Device))));
    let mut world = world.kill(config(3));
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    let handle = world.handle(7);
    world.write(handle, 20, 0x77).unwrap();
    world.flush(handle);
    let mut world = world.cut(|_| false, config(4));
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    let handle = world.handle(7);
    for (block, byte) in [(3, 0x33), (5, 0x55), (20, 0x77)] {
        assert_eq!(world.read(handle, block), Ok(byte), "block {block}");
    }
    world.leave();
}

#[test]
fn the_power_may_go_while_what_was_dropped_is_written_again() {
    let whole = after_a_failed_flush().kill(config(2)).disk.writes;
    let before = after_a_failed_flush().leave();
    for writes in 0..=whole - before.writes {
        let mut disk = before.clone();
        disk.writes_left = Some(writes);
        let mut world = World::open(disk, config(2));
        world.disk.writes_left = None;
        let mut world = world.cut(is_journal, config(3));
        assert_eq!(world.pool.state(), State::Open, "{writes}: {:?}", world.notes);
        let handle = world.handle(7);
        assert_eq!(world.read(handle, 3), Ok(0x33));
        assert!([Ok(0), Ok(0x55)].contains(&world.read(handle, 5)));
        world.leave();
    }
}

#[test]
fn what_cannot_be_written_again_is_refused() {
    let mut disk = after_a_failed_flush().leave();
    disk.drops = true;
    let mut again = disk.clone();
    again.failing = Some(4 * BLOCK..TINY / 2);
    // The first flush of an open, then the first write.
    for (disk, dropped) in [(disk, true), (again, false)] {
        let mut world = World::around_disk(Disk { drops: dropped, ..disk }, Pool::open(config(2)));
        let refused = Note::Refused(Refusal::Device(IoError::Device));
        assert!(world.notes.contains(&refused), "{:?}", world.notes);
        assert_eq!(world.pool.state(), State::Failed);
        world.disk.failing = None;
        let world = world.kill(config(3));
        assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
        world.leave();
    }
}

#[test]
fn an_overwrite_that_a_failed_flush_dropped_may_be_gone_but_is_never_lost() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write(handle, 3, 0x33).unwrap();
    world.flush(handle);
    world.flush(handle);
    world.write(handle, 3, 0x44).unwrap();
    world.disk.drops = true;
    world.try_flush(handle).expect_err("the disk fails");
    let mut world = world.kill(config(2));
    world.idle(70);
    // An orderly stop does not make it durable either.
    world.stop();
    let mut world = world.kill(config(3));
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x44), "the disk still shows it");
    world.idle(70);
    world.flush(handle);
    let config = Config { boot_id: [2; 16], ..config(4) };
    let mut world = world.cut(|_| false, config.clone());
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x33));
    world.idle(70);
    world.stop();
    let mut world = World::open(world.leave(), config);
    let handle = world.handle(7);
    assert_eq!(world.read(handle, 3), Ok(0x33));
    assert_eq!(world.pool.counters().unverified, 0, "the region is adopted by now");
    world.leave();
}
