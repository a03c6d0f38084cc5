//! A mirrored command allocates nothing in a shard in the steady state: whole shards with pools,
//! guards and nexuses, on three engines in memory. It is counted here because an allocator that
//! counts cannot be had without `unsafe`.

#[path = "support/allocator.rs"]
mod allocator;
#[path = "../../../core/nvme/tests/host/memory.rs"]
mod memory;
#[path = "../../../core/shard/tests/host/net.rs"]
#[allow(dead_code, reason = "its other tests use the rest")]
mod net;
#[path = "../../../core/shard/tests/host/setup.rs"]
#[allow(dead_code, reason = "its other tests use the rest")]
mod setup;
#[path = "../../../core/shard/tests/host/world.rs"]
#[allow(dead_code, reason = "its other tests use the rest")]
mod world;

use braid_nvme::Status;
use braid_nvme::host::Operation;
use world::{ENGINES, World};

/// Allocations of this thread so far.
fn allocations() -> u64 {
    allocator::ALLOCATIONS.get()
}

#[test]
fn a_mirrored_write_read_or_flush_allocates_nothing_on_any_engine() {
    let mut world = World::new(1);
    world.take_over(0);
    let path = world.connect(0);
    let round = |world: &mut World| {
        for lba in 0..64 {
            assert_eq!(world.write(path, lba * 2, 1), Status::SUCCESS);
            assert_eq!(world.read(path, lba * 2), Ok(1));
        }
        for _ in 0..4 {
            assert_eq!(world.one(path, Operation::Flush, &[], 0).0, Status::SUCCESS);
        }
    };
    for _ in 0..4 {
        round(&mut world);
    }
    let mut spent = [0; ENGINES];
    for at in 0..ENGINES {
        world.net.nodes[at].allocated = 0;
    }
    for _ in 0..4 {
        round(&mut world);
    }
    for (at, spent) in spent.iter_mut().enumerate() {
        *spent = world.net.nodes[at].allocated;
    }
    // 528 commands. What clears marks allocates for each 128 writes.
    assert!(spent.iter().all(|spent| *spent <= 24), "{spent:?}");
}
