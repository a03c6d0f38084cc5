//! The marks of a member's regions, over snapshots, merges and crashes.

use braid_pool::{Bearing, Command, Failure};

use super::common::World;
use super::{big, delete, reclaimed, snapshot};

fn marks(world: &mut World, n: u8) -> Vec<(u32, u32)> {
    world.command(Command::Marks { uuid: [n; 16] }).unwrap();
    world.pool.take_marks(world.tag).unwrap()
}

fn clean(world: &mut World, n: u8, regions: &[(u32, u32)]) -> Result<(), Failure> {
    world.command(Command::Clean { uuid: [n; 16], regions: regions.into() }).map(|_| ())
}

#[test]
fn marks_of_a_member_stay_until_they_are_cleaned_and_those_of_others_do_not() {
    let mut world = World::fresh(&big(1));
    for n in [1, 2] {
        let handle = world.replica(n, 128 << 20);
        world.write(handle, 0, 1).unwrap();
        world.write(handle, 3 * 256, 1).unwrap();
        world.write(handle, 4 * 256, 1).unwrap();
        world.write(handle, 70 * 256, 1).unwrap();
    }
    let member = Bearing { member: Some(true), ..Bearing::default() };
    world.command(Command::Bear { uuid: [1; 16], bearing: Box::new(member) }).unwrap();
    assert_eq!(marks(&mut world, 1), [(0, 1), (3, 2), (70, 1)]);
    world.idle(10);
    assert_eq!(marks(&mut world, 1), [(0, 1), (3, 2), (70, 1)]);
    assert_eq!(marks(&mut world, 2), []);
    assert_eq!(clean(&mut world, 2, &[(0, 1)]), Err(Failure::Invalid));
    clean(&mut world, 1, &[(1, 3), (64, 64)]).unwrap();
    assert_eq!(marks(&mut world, 1), [(0, 1), (4, 1)]);
    world.write(world.handle(1), 3 * 256, 2).unwrap();
    clean(&mut world, 1, &[(0, 4)]).unwrap();
    assert_eq!(marks(&mut world, 1), [(3, 2)], "written, and not flushed since");
    let mut world = world.kill(big(2));
    let overwritten = world.pool.info().unverified_regions;
    assert_eq!(overwritten, 1);
    world.idle(200);
    assert_eq!(world.read(world.handle(1), 3 * 256), Ok(2), "the map is in memory again");
    assert_eq!(world.pool.info().unverified_regions, 1, "what other members have decides");
    assert_eq!(marks(&mut world, 1), [(3, 2)]);
    world.flush(world.handle(1));
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    world.idle(200);
    assert_eq!(world.pool.info().unverified_regions, 0);
    assert_eq!(marks(&mut world, 1), []);
    assert_eq!(world.read(world.handle(1), 3 * 256), Ok(2));
    world.stop();
    world.leave();
}

#[test]
fn zeros_leave_a_mark_that_stays_until_they_are_flushed() {
    let mut world = World::fresh(&big(1));
    let handle = world.replica(1, 128 << 20);
    for region in 0..3 {
        world.write_many(handle, region * 256, &[1; 20]).unwrap();
    }
    let member = Bearing { member: Some(true), ..Bearing::default() };
    world.command(Command::Bear { uuid: [1; 16], bearing: Box::new(member) }).unwrap();
    world.flush(handle);
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    assert_eq!(marks(&mut world, 1), []);
    // A part of a cluster is cleared, a whole one freed; both are all over when they are done.
    world.zero(handle, 3, 1).unwrap();
    world.zero(handle, 256, 64).unwrap();
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    assert_eq!(marks(&mut world, 1), [(0, 2)], "not flushed: another member may have lost them");
    world.flush(handle);
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    assert_eq!(marks(&mut world, 1), []);
    world.stop();
    world.leave();
}

fn member(world: &mut World, n: u8) {
    let member = Bearing { member: Some(true), ..Bearing::default() };
    world.command(Command::Bear { uuid: [n; 16], bearing: Box::new(member) }).unwrap();
}

#[test]
fn a_snapshot_has_the_marks_of_its_time_and_they_are_cleaned_by_its_name() {
    let mut world = World::fresh(&big(1));
    let handle = world.replica(1, 128 << 20);
    member(&mut world, 1);
    for region in [0, 3, 70] {
        world.write(handle, region * 256, 1).unwrap();
    }
    world.command(snapshot(1, 9)).unwrap();
    assert_eq!(marks(&mut world, 9), [(0, 1), (3, 1), (70, 1)]);
    assert_eq!(marks(&mut world, 1), []);
    world.write(handle, 3 * 256, 2).unwrap();
    world.flush(handle);
    assert_eq!(marks(&mut world, 1), [(3, 1)]);
    clean(&mut world, 9, &[(0, 4)]).unwrap();
    assert_eq!(marks(&mut world, 9), [(70, 1)]);
    assert_eq!(marks(&mut world, 1), [(3, 1)], "another layer");
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    assert_eq!(marks(&mut world, 9), [(70, 1)]);
    world.flush(handle);
    let mut world = world.cut(|_| false, big(2));
    assert_eq!((marks(&mut world, 9), marks(&mut world, 1)), (vec![(70, 1)], vec![]));
    let (snapshot, handle) = (world.handle(9), world.handle(1));
    assert_eq!((world.read(snapshot, 768), world.read(handle, 768)), (Ok(1), Ok(2)));
    world.leave();
}

#[test]
fn marks_of_a_snapshot_that_goes_are_those_of_its_replica_from_then_on() {
    let mut world = World::fresh(&big(1));
    let handle = world.replica(1, 128 << 20);
    member(&mut world, 1);
    world.write_many(handle, 0, &[1; 8]).unwrap();
    world.write_many(handle, 5 * 256, &[1; 8]).unwrap();
    world.flush(handle);
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    assert_eq!(marks(&mut world, 1), []);
    // Part of a cluster, all of one, and data: all of them leave a mark.
    world.zero(handle, 2, 1).unwrap();
    world.zero(handle, 5 * 256, 64).unwrap();
    world.write(handle, 70 * 256, 1).unwrap();
    let all = [(0, 1), (5, 1), (70, 1)];
    assert_eq!(marks(&mut world, 1), all);
    world.command(snapshot(1, 9)).unwrap();
    world.write(handle, 1, 3).unwrap();
    assert_eq!(marks(&mut world, 1), [(0, 1)]);
    world.tag += 1;
    world.pool.command(&mut world.mem, world.now, world.tag, delete(9));
    // At once, while it is merged, and then.
    for turns in 0..40 {
        world.tag += 1;
        let (tag, now) = (world.tag, world.now);
        world.pool.command(&mut world.mem, now, tag, Command::Marks { uuid: [1; 16] });
        let found = (0..1000).find_map(|_| {
            world.pool.end_turn(&mut world.mem, now);
            let found = world.pool.take_marks(tag);
            if found.is_none() {
                world.run();
            }
            found.or_else(|| world.pool.take_marks(tag))
        });
        assert_eq!(found.expect("they are listed"), all, "after {turns} turns");
    }
    world.run();
    world.idle(10);
    assert_eq!(reclaimed(&world), 1);
    assert_eq!(marks(&mut world, 1), all);
    world.leave();
}

/// Entries of a range of blocks, as many as fit in so many bytes.
#[test]
fn marks_of_a_snapshot_that_goes_stay_although_nothing_of_its_regions_is_seen() {
    let mut world = World::fresh(&big(1));
    let handle = world.replica(1, 128 << 20);
    member(&mut world, 1);
    world.write_many(handle, 0, &[1; 8]).unwrap();
    world.write_many(handle, 70 * 256, &[1; 8]).unwrap();
    world.flush(handle);
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    // A member that is away does not hear of these.
    world.zero(handle, 0, 4).unwrap();
    world.write_many(handle, 70 * 256, &[2; 8]).unwrap();
    world.command(snapshot(1, 9)).unwrap();
    // What hides the rest of it is alike on all.
    world.write_many(handle, 4, &[3; 4]).unwrap();
    world.write_many(handle, 70 * 256, &[3; 8]).unwrap();
    world.flush(handle);
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    let all = marks(&mut world, 9);
    assert_eq!((&all[..], marks(&mut world, 1)), (&[(0, 1), (70, 1)][..], vec![]));
    world.command(delete(9)).unwrap();
    world.idle(10);
    assert_eq!(reclaimed(&world), 1);
    assert_eq!(marks(&mut world, 1), all);
    let mut world = world.cut(|_| false, big(2));
    assert_eq!(marks(&mut world, 1), all);
    let handle = world.handle(1);
    world.flush(handle);
    clean(&mut world, 1, &[(0, 128)]).unwrap();
    assert_eq!(marks(&mut world, 1), []);
    world.leave();
}
