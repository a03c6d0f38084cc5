//! Scrubs of what layers hold.

use braid_pool::{Command, Note};

use super::common::{BLOCK, World};
use super::{big, chain};

#[test]
fn a_scrub_finds_what_is_lost_and_says_how_much_it_read() {
    let (mut world, handle) = chain(1);
    world.idle(10);
    world.command(Command::Scrub { rate: 1 << 20 }).unwrap();
    world.idle(7);
    assert!(world.notes.contains(&Note::Scrubbed { blocks: 34, errors: 0 }), "{:?}", world.notes);
    let at = world.disk.durable.iter().find(|(_, b)| b.iter().all(|b| *b == 3)).unwrap();
    let at = *at.0;
    world.disk.damage(at * BLOCK);
    world.notes.clear();
    world.command(Command::Scrub { rate: 4 << 20 }).unwrap();
    world.idle(7);
    let media = Note::Media { handle: Some(handle), offset: 6 * BLOCK, device: at * BLOCK };
    assert!(world.notes.contains(&media), "{:?}", world.notes);
    assert!(world.notes.contains(&Note::Scrubbed { blocks: 34, errors: 1 }), "{:?}", world.notes);
    world.leave();
}

#[test]
fn a_scrub_that_was_stopped_goes_on_where_it_was() {
    let mut world = World::fresh(&big(1));
    let handle = world.replica(1, 640 << 20);
    // A block in each of ten leaves; that of the second is lost.
    for leaf in 0..10 {
        world.write(handle, leaf << 14, if leaf == 1 { 2 } else { 1 }).unwrap();
    }
    world.idle(10);
    let at = world.disk.durable.iter().find(|(_, b)| b.iter().all(|b| *b == 2)).unwrap();
    let at = *at.0;
    world.disk.damage(at * BLOCK);
    let slow = Command::Scrub { rate: BLOCK };
    world.command(slow.clone()).unwrap();
    // The page of their checksums takes two seconds.
    world.idle(6);
    assert!(world.pool.info().scrub.is_some_and(|(read, _)| read >= 4 * BLOCK));
    world.command(Command::Scrub { rate: 0 }).unwrap();
    assert_eq!(world.pool.info().scrub, None);
    world.stop();
    let mut world = World::open(world.leave(), big(2));
    world.command(slow.clone()).unwrap();
    let read = world.pool.info().scrub.map(|(read, _)| read / BLOCK);
    assert!(read.is_some_and(|read| (3..=7).contains(&read)), "{read:?}");
    world.command(Command::Scrub { rate: 1 << 30 }).unwrap();
    world.idle(12);
    // Each block once, and the loss that the run before it found.
    let whole = Note::Scrubbed { blocks: 10, errors: 1 };
    assert!(world.notes.contains(&whole), "{:?}", world.notes);
    assert!(!world.notes.iter().any(|note| matches!(note, Note::Media { .. })));
    // The next begins anew.
    world.notes.clear();
    world.command(slow).unwrap();
    assert!(world.pool.info().scrub.is_some_and(|(read, _)| read <= BLOCK));
    world.idle(20);
    assert!(world.notes.contains(&whole), "{:?}", world.notes);
    world.leave();
}
