//! Pages of maps and checksums: cut at every write of a checkpoint, damaged, let go, given back.

mod common;

use std::collections::BTreeMap;

use braid_pool::{Command, Config, Failure, Note, State};
use common::{BLOCK, Disk, World, config};

/// Bytes of a replica of which each leaf is used a little: 64 MiB each.
const WIDE: u64 = 256 << 20;

/// What replicas must read, by replica and block.
type Model = BTreeMap<(u8, u64), u8>;

/// Blocks of a leaf, and of another cluster, region and leaf.
const PLACES: [u64; 7] = [0, 3, 64, 300, 16_384, 16_390, 50_000];

fn tight(seed: u64) -> Config {
    let mut config = config(seed);
    config.limits.delta_max = 16;
    config.limits.cache_bytes = 0;
    config
}

/// Writes to all places of some replicas, and flushes.
fn fill(world: &mut World, model: &mut Model, replicas: &[u8], salt: u8) {
    for n in replicas {
        let handle = world.handle(*n);
        for (i, block) in (0..).zip(PLACES) {
            let value = salt.wrapping_mul(31) ^ n.wrapping_mul(16) ^ i | 1;
            world.write(handle, block, value).unwrap();
            model.insert((*n, block), value);
        }
        world.flush(handle);
    }
}

/// Two replicas, written, overwritten and flushed, with a checkpoint in between.
fn busy(seed: u64) -> (World, Model) {
    let (mut world, mut model) = (World::fresh(&tight(seed)), Model::new());
    for n in [1, 2] {
        world.replica(n, WIDE);
    }
    fill(&mut world, &mut model, &[1, 2], 1);
    world.idle(5);
    fill(&mut world, &mut model, &[1], 2);
    world.replica(3, WIDE);
    fill(&mut world, &mut model, &[3], 3);
    (world, model)
}

fn check(world: &mut World, model: &Model) {
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    for ((n, block), value) in model {
        let handle = world.handle(*n);
        assert_eq!(world.read(handle, *block), Ok(*value), "replica {n} block {block}");
        assert_eq!(world.read(handle, *block + 1), Ok(*model.get(&(*n, block + 1)).unwrap_or(&0)));
    }
}

/// Number of the kind of the page in a block, and the address that it bears.
fn page(bytes: &[u8]) -> (u32, u64) {
    let kind = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    (kind, u64::from_le_bytes(bytes[8..16].try_into().unwrap()))
}

/// Blocks of the device that hold pages of the maps.
fn map_pages(disk: &Disk) -> Vec<u64> {
    let is_map = |block: &u64, bytes: &[u8]| {
        let (kind, address) = page(bytes);
        (2..=10).contains(&kind) && address == block * BLOCK
    };
    disk.durable.iter().filter(|(at, bytes)| is_map(at, bytes)).map(|(at, _)| *at).collect()
}

#[test]
fn a_checkpoint_can_be_cut_at_every_write() {
    for writes in 0.. {
        let mut done = false;
        for keep in 0..4 {
            let (mut world, model) = busy(1);
            let before = world.pool.counters().checkpoints;
            world.disk.writes_left = Some(writes);
            world.idle(5);
            done = world.pool.counters().checkpoints > before;
            world.disk.writes_left = None;
            let mut at = writes;
            let mut world = world.cut(
                |block| {
                    at += 1;
                    [false, true, block % 2 == 0, at.is_multiple_of(3)][keep]
                },
                tight(2),
            );
            check(&mut world, &model);
            // A second cut, in the checkpoint that mends what the first one left.
            world.disk.writes_left = Some(writes / 2);
            world.idle(5);
            world.disk.writes_left = None;
            let mut world = world.cut(|block| block % 2 == 1, tight(3));
            check(&mut world, &model);
            world.stop();
            let mut world = World::open(world.leave(), tight(4));
            check(&mut world, &model);
            world.leave();
        }
        if done && writes > 20 {
            return;
        }
    }
}

#[test]
fn one_bad_slot_of_any_page_is_mended() {
    let (mut world, model) = busy(1);
    world.stop();
    let disk = world.leave();
    let pages = map_pages(&disk);
    assert!(pages.len() >= 40, "{}", pages.len());
    for block in pages {
        for unreadable in [false, true] {
            let mut damaged = disk.clone();
            if unreadable {
                damaged.bad.push(block);
            } else {
                damaged.damage(block * BLOCK + 100);
            }
            let mut world = World::open(damaged, tight(2));
            check(&mut world, &model);
            let (kind, _) = page(&disk.durable[&block]);
            let repaired = Note::Repaired { device: block * BLOCK };
            // A map of pages is only read when something gets a place.
            assert!(kind == 10 || world.notes.contains(&repaired), "{block:#x}: {:?}", world.notes);
            world.disk.bad.clear();
            world.stop();
            let mut world = World::open(world.leave(), tight(3));
            check(&mut world, &model);
            assert!(kind == 10 || !world.notes.contains(&repaired), "it was written again");
            world.leave();
        }
    }
}

#[test]
fn a_page_with_two_bad_slots_is_lost_and_the_others_are_not() {
    let (mut world, model) = busy(1);
    world.stop();
    let disk = world.leave();
    for block in map_pages(&disk) {
        if map_pages(&disk).contains(&(block + 1)) && (block % 2 == 0) {
            let mut damaged = disk.clone();
            damaged.damage(block * BLOCK + 100);
            damaged.damage(block * BLOCK + BLOCK + 100);
            let (kind, _) = page(&disk.durable[&block]);
            let mut world = World::open(damaged, tight(2));
            if world.pool.state() != State::Open {
                assert!(world.notes.iter().any(|n| matches!(n, Note::Refused(_))));
                assert!(![6, 7].contains(&kind), "directories and leaves are not needed to open");
                world.leave();
                continue;
            }
            let (mut good, mut bad) = (0, 0);
            for ((n, at), value) in &model {
                let Some(handle) = world.pool.find(&[*n; 16]) else { continue };
                match world.read(handle, *at) {
                    Ok(read) => {
                        assert_eq!(read, *value);
                        good += 1;
                    }
                    Err(failure) => {
                        assert!(matches!(failure, Failure::Media(_)), "{failure:?}");
                        assert!([6, 7].contains(&kind), "page {block:#x} of kind {kind}");
                        bad += 1;
                    }
                }
            }
            assert_eq!(bad > 0, [6, 7].contains(&kind), "page {block:#x} of kind {kind}");
            assert!(good >= model.len() / 2 || kind == 4);
            world.leave();
        }
    }
}

#[test]
fn memory_is_given_back_after_a_time_without_work() {
    let (mut world, model) = busy(1);
    world.idle(5);
    check(&mut world, &model);
    let busy = world.pool.info();
    assert!(busy.leaves >= 9);
    world.idle(70);
    let quiet = world.pool.info();
    assert_eq!(quiet.leaves, 0, "{quiet:?}");
    assert!(quiet.memory < busy.memory);
    check(&mut world, &model);
    assert!(world.pool.poll_timeout().is_some(), "they will be let go again");
    world.idle(70);
    assert_eq!(world.pool.poll_timeout(), None, "idle costs nothing");
    world.stop();
    world.leave();
}

#[test]
fn few_leaves_in_memory_are_enough() {
    let mut config = tight(1);
    config.limits.leaves_max = 2;
    let (mut world, mut model) = (World::fresh(&config), Model::new());
    for n in [1, 2] {
        world.replica(n, WIDE);
    }
    for salt in 1..5 {
        fill(&mut world, &mut model, &[1, 2], salt);
        world.idle(5);
        check(&mut world, &model);
        assert!(world.pool.info().leaves <= 5, "{}", world.pool.info().leaves);
    }
    let mut world = world.kill(config.clone());
    check(&mut world, &model);
    world.stop();
    let mut world = World::open(world.leave(), config);
    check(&mut world, &model);
    world.leave();
}

#[test]
fn places_of_pages_come_back() {
    let mut config = tight(1);
    config.device.bytes = 64 << 20;
    let mut world = World::fresh(&config);
    world.idle(5);
    let empty = world.pool.info();
    for round in 0..4u8 {
        let mut model = Model::new();
        let replicas: Vec<u8> = (1..=12).collect();
        for n in &replicas {
            world.replica(*n, WIDE);
        }
        fill(&mut world, &mut model, &replicas, round);
        assert!(world.pool.info().maps > empty.maps, "more than a cluster of pages");
        world.idle(5);
        world = world.kill(config.clone());
        check(&mut world, &model);
        for n in &replicas {
            world.command(Command::Destroy { uuid: [*n; 16] }).unwrap();
        }
        world.idle(20);
        let info = world.pool.info();
        assert_eq!(info.data, 0, "{info:?}");
        assert!(info.maps <= empty.maps + (256 << 10), "{info:?}");
    }
    world.stop();
    world.leave();
}

#[test]
fn a_lost_page_of_checksums_costs_only_what_it_held() {
    let (mut world, model) = busy(1);
    world.stop();
    let disk = world.leave();
    let sums: Vec<u64> = disk
        .durable
        .iter()
        .filter(|(at, bytes)| page(bytes) == (11, *at * BLOCK))
        .map(|(at, _)| *at)
        .collect();
    assert!(!sums.is_empty());
    for block in sums {
        for unreadable in [false, true] {
            let mut damaged = disk.clone();
            if unreadable {
                damaged.bad.push(block);
            } else {
                damaged.damage(block * BLOCK + 100);
            }
            let mut world = World::open(damaged, tight(2));
            for ((n, at), value) in &model {
                let handle = world.handle(*n);
                match world.read(handle, *at) {
                    Ok(read) => assert_eq!(read, *value),
                    Err(failure) => assert!(matches!(failure, Failure::Media(_)), "{failure:?}"),
                }
                // What is written anew is known again.
                world.write(handle, *at, 0x77).unwrap();
                assert_eq!(world.read(handle, *at), Ok(0x77));
            }
            world.disk.bad.clear();
            world.stop();
            let mut world = World::open(world.leave(), tight(3));
            for (n, at) in model.keys() {
                let handle = world.handle(*n);
                assert_eq!(world.read(handle, *at), Ok(0x77));
            }
            world.leave();
        }
    }
}
