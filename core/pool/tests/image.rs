//! A pool that the first version of the format left behind: every later version opens it.
//!
//! `data/pool-v1.img.runs` is the device of 16 MiB, without its blocks of zeros: for each other
//! block its number (32 bits), then runs of equal bytes: how many (16 bits), and which. It was not
//! stopped in order: its journal is replayed. It is made anew by the ignored test `make`, as long
//! as no such pool was ever given to anybody.

mod common;

use std::path::PathBuf;

use braid_pool::{Note, Scope, State, check, inspect};
use common::{BLOCK, Disk, Heap, World, config};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/pool-v1.img.runs")
}

fn pack(disk: &Disk) -> Vec<u8> {
    let mut packed = Vec::new();
    for (block, bytes) in &disk.durable {
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        packed.extend((*block as u32).to_le_bytes());
        for run in bytes.chunk_by(|a, b| a == b) {
            packed.extend((run.len() as u16).to_le_bytes());
            packed.push(run[0]);
        }
    }
    packed
}

fn unpack(packed: &[u8]) -> Disk {
    let mut disk = Disk::default();
    let mut rest = packed;
    while let Some((block, runs)) = rest.split_first_chunk() {
        rest = runs;
        let mut bytes = Vec::new();
        while bytes.len() < BLOCK as usize {
            let (run, runs) = rest.split_first_chunk::<3>().expect("a whole block");
            rest = runs;
            bytes.resize(bytes.len() + usize::from(u16::from_le_bytes([run[0], run[1]])), run[2]);
        }
        disk.durable.insert(u64::from(u32::from_le_bytes(*block)), bytes);
    }
    disk
}

/// What the replicas and snapshots of the image hold, from their first block on.
const CONTENT: [(u8, [u8; 8]); 4] = [
    (1, [11, 2, 0, 0, 5, 6, 0, 8]),
    (2, [1, 2, 3, 4, 5, 0, 0, 0]),
    (3, [1, 2, 33, 4, 5, 0, 0, 0]),
    (4, [0, 0, 0, 0, 0, 0, 0, 44]),
];

#[test]
#[ignore = "makes the image anew"]
fn make() {
    let mut world = World::fresh(&config(1));
    let head = world.replica(1, 8 << 20);
    world.write_many(head, 0, &[1, 2, 3, 4, 5]).unwrap();
    world.snapshot(1, 2).unwrap();
    world.clone_of(2, 3).unwrap();
    let other = world.replica(4, 100 << 20);
    world.idle(5);
    world.write(head, 0, 11).unwrap();
    world.write(head, 5, 6).unwrap();
    world.zero(head, 2, 2).unwrap();
    let clone = world.handle(3);
    world.write(clone, 2, 33).unwrap();
    world.flush(clone);
    world.write(other, 7, 44).unwrap();
    // The second leaf of a replica.
    world.write(other, 20_000, 45).unwrap();
    world.write(head, 7, 8).unwrap();
    world.flush(head);
    let mut disk = world.leave();
    disk.cut(|_| true);
    std::fs::write(path(), pack(&disk)).unwrap();
}

#[test]
fn a_pool_of_the_first_version_opens_and_is_sound() {
    let mut disk = unpack(&std::fs::read(path()).unwrap());
    let found = inspect(&mut Heap::default(), &mut disk, config(2)).expect("a pool");
    // The first pools had no random birth, and need no feature.
    assert_eq!((found.pool.version, found.pool.features, found.pool.incarnation), (1, 0, 1));
    assert!(!found.clean && found.journal.replayed > 0);

    let mut world = World::open(disk, config(2));
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    for stopped in [false, true] {
        for (n, content) in CONTENT {
            let handle = world.handle(n);
            for (block, value) in (0..).zip(content) {
                assert_eq!(world.read(handle, block), Ok(value), "{n}, block {block}");
            }
        }
        let other = world.handle(4);
        assert_eq!(world.read(other, 20_000), Ok(45));
        let (now, scope) = (world.now, Scope::default());
        let report = check(&mut world.pool, &mut world.mem, &mut world.disk, now, scope);
        assert_eq!((report.errors, report.findings), (0, vec![]));
        if !stopped {
            world.idle(5);
            world.stop();
            world = World::open(world.leave(), config(3));
            let opened = Note::Opened { clean: true, replayed: 0, rejected: 0 };
            assert!(world.notes.contains(&opened), "{:?}", world.notes);
        }
    }
    world.leave();
}
