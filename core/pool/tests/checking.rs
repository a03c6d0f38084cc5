//! What `check` finds, and what it mends; and what `inspect` shows.

mod common;

use braid_pool::{Finding, Pool, Report, Scope, check, inspect, run_blocking};
use common::{BLOCK, Disk, Heap, TINY, World, config};

/// Opens a pool to be read only, and checks it.
fn look(disk: &mut Disk, scope: Scope) -> Report {
    let mut mem = Heap::default();
    let mut config = config(99);
    config.read_only = true;
    let mut pool = Pool::open(config);
    let now = braid_block::Instant::ZERO;
    run_blocking(&mut pool, &mut mem, disk, now, |_, _| {});
    let report = check(&mut pool, &mut mem, disk, now, scope);
    pool.drop_leases(&mut mem);
    assert_eq!(mem.out(), 0);
    report
}

/// A pool with a replica, a snapshot and some data, stopped in order.
fn stopped() -> Disk {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    world.write_many(handle, 3, &[1, 2, 3]).unwrap();
    world.snapshot(7, 8).unwrap();
    world.write_many(handle, 4, &[4, 5]).unwrap();
    world.zero(handle, 64, 64).unwrap();
    world.stop();
    world.leave()
}

/// First byte on the device of the only block that is filled with a byte.
fn place_of(disk: &Disk, fill: u8) -> u64 {
    let mut found = disk.durable.iter().filter(|(_, bytes)| bytes.iter().all(|b| *b == fill));
    let (block, _) = found.next().expect("it was written");
    assert!(found.next().is_none());
    block * BLOCK
}

#[test]
fn a_sound_pool_has_nothing_to_be_found() {
    let report = look(&mut stopped(), Scope::default());
    assert_eq!(report.findings, []);
    assert_eq!((report.errors, report.layers, report.blocks), (0, 2, 5));
}

#[test]
fn a_sound_pool_is_sound_however_long_nobody_did_anything() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 30);
    for leaf in 0..6 {
        world.write(handle, leaf * 16_384, 7).unwrap();
    }
    world.stop();
    let mut disk = world.leave();
    for seconds in [0, 1, 59, 61, 1_000_000] {
        let mut world = World::open(disk, config(2));
        // Some of its maps are in memory: those that stay, and a leaf with what leads to it.
        let World { pool, mem, disk: image, now, .. } = &mut world;
        check(pool, mem, image, *now, Scope::default());
        world.idle(200);
        assert_eq!(world.read(world.handle(7), 3 * 16_384), Ok(7));
        let at = world.now + std::time::Duration::from_secs(seconds);
        let World { pool, mem, disk: image, .. } = &mut world;
        let report = check(pool, mem, image, at, Scope::default());
        assert_eq!((report.findings, report.blocks), (vec![], 6), "after {seconds} s");
        world.stop();
        disk = world.leave();
    }
}

#[test]
fn a_pool_that_was_not_stopped_in_order_is_sound_too() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    for block in 0..40 {
        world.write(handle, block * 3, 7).unwrap();
    }
    let mut disk = world.leave();
    disk.cut(|_| true);
    let report = look(&mut disk, Scope::default());
    assert_eq!((report.findings, report.blocks), (vec![], 40));
}

#[test]
fn a_changed_block_is_found_where_it_is() {
    let mut disk = stopped();
    let device = place_of(&disk, 5);
    disk.damage(device + 77);
    let report = look(&mut disk, Scope::default());
    let [Finding::Block { device: told, offset, .. }] = report.findings[..] else {
        panic!("{:?}", report.findings)
    };
    assert_eq!((told, offset), (device, 5 * BLOCK));
}

#[test]
fn a_block_that_cannot_be_read_is_found() {
    let mut disk = stopped();
    let device = place_of(&disk, 4);
    disk.bad.push(device / BLOCK);
    let report = look(&mut disk, Scope::default());
    assert!(matches!(report.findings[..], [Finding::Block { .. }]), "{:?}", report.findings);
}

#[test]
fn bad_copies_are_found_and_mended() {
    let mut disk = stopped();
    let slots: Vec<u64> = disk
        .durable
        .iter()
        .filter(|(_, bytes)| matches!(bytes[..4], [1..=11, 0, 0, 0]) && bytes[8..16] != [0; 8])
        .map(|(block, _)| block * BLOCK)
        .collect();
    assert!(slots.len() >= 10, "{slots:?}");
    for slot in slots {
        let sound = disk.clone();
        disk.damage(slot + 1000);
        let report = look(&mut disk, Scope::default());
        assert_eq!((report.errors, report.bad_copies), (0, 1), "{slot} {:?}", report.findings);
        assert_eq!(report.mended, 0);
        // What is counted does not depend on what is listed.
        let scope = Scope { repair: true, findings_max: 0, ..Scope::default() };
        let report = look(&mut disk, scope);
        assert_eq!((report.bad_copies, report.mended, report.findings.len()), (1, 1, 0));
        let report = look(&mut disk, Scope::default());
        assert_eq!(report.findings, [], "mended at {slot}");
        let mut world = World::open(disk, config(2));
        let handle = world.handle(7);
        assert_eq!(world.read(handle, 5), Ok(5));
        drop(world);
        disk = sound;
    }
}

#[test]
fn what_has_no_good_copy_is_lost() {
    let mut disk = stopped();
    // A leaf: its two slots are the only pages of its kind with the same content.
    let leaves: Vec<u64> = disk
        .durable
        .iter()
        .filter(|(_, bytes)| bytes[..4] == [7, 0, 0, 0])
        .map(|(block, _)| block * BLOCK)
        .collect();
    disk.damage(leaves[0] + 1000);
    disk.damage(leaves[1] + 1000);
    let report = look(&mut disk, Scope::default());
    assert!(report.errors > 0);
    assert!(report.findings.contains(&Finding::Lost { device: leaves[0] }));
}

#[test]
fn a_look_shows_what_is_there() {
    let mut disk = stopped();
    let mut mem = Heap::default();
    let found = inspect(&mut mem, &mut disk, config(9)).expect("a pool");
    assert_eq!(mem.out(), 0);
    assert!(found.clean && !found.failed && !found.unadopted);
    assert_eq!((found.bytes, found.pool.incarnation, found.layers.len()), (TINY, 1, 2));
    assert_eq!(found.copies.iter().filter(|(_, version)| version.is_some()).count(), 4);
    assert_eq!(found.journal.replayed, 0);
    assert!(inspect(&mut mem, &mut Disk::default(), config(9)).is_err());
}
