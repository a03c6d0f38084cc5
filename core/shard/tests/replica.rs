//! Replicas and snapshots of a pool as namespaces, as a host sees them.

mod support;

use std::time::Duration;

use braid_block::{BlockSize, Geometry, IoError};
use braid_nvme::Status;
use braid_nvme::command::{self, Sgl, admin, io};
use braid_nvme::pdu::Digests;
use braid_pool::{Command, Failure};
use braid_shard::{Fault, Injection, Note, Operation, PoolId};
use support::peer::{Got, Peer, flush, read, transfer, write};
use support::pool::{POOL, POOL_DISK, REPLICA, REPLICA_BYTES, pool_config, shared};
use support::{NQN, World};

const NONE: Digests = Digests { header: false, data: false };
const DATA: Digests = Digests { header: false, data: true };
const FUA: u32 = 1 << 30;
const SNAPSHOT: [u8; 16] = [2; 16];

fn world() -> World {
    World::with_replica(BlockSize::B4096)
}

fn fua(mut command: command::Command) -> command::Command {
    command.set_cdw(12, command.cdw(12) | FUA);
    command
}

/// Writes a block full of one byte.
fn put(world: &mut World, io: &mut Peer, block: u64, byte: u8) -> Status {
    io.command(world, write(1, block, 1, 4096), &[byte; 4096]).status()
}

/// The byte that a block is full of.
fn get(world: &mut World, io: &mut Peer, block: u64) -> Result<u8, Status> {
    let data = io.read(world, read(1, block, 1, 4096))?;
    assert!(data.iter().all(|byte| *byte == data[0]), "block {block}");
    Ok(data[0])
}

fn sync(world: &mut World, io: &mut Peer) -> Status {
    io.command(world, flush(1), &[]).status()
}

fn snapshot(world: &mut World) -> braid_pool::Handle {
    let command =
        Command::Snapshot { replica: REPLICA, uuid: SNAPSHOT, name: "snapshot".into(), created: 1 };
    world.pool_command(command).unwrap().handle.unwrap()
}

#[test]
fn what_is_written_is_read_in_every_size_and_block_size() {
    for (block, bytes) in [(BlockSize::B4096, 4096), (BlockSize::B512, 512)] {
        for digests in [NONE, DATA] {
            let mut world = World::with_replica(block);
            let (_admin, mut io) = Peer::pair(&mut world, digests);
            for (blocks, slba) in [(1, 0), (2, 3), (3, 9), (5, 70), (32, 64), (31, 500)] {
                let len = blocks * bytes;
                let data: Vec<u8> = (0..len).map(|i| (i / 7) as u8 ^ blocks as u8).collect();
                let command = write(1, slba, blocks, len);
                let done = if len <= 8192 {
                    io.command(&mut world, command, &data)
                } else {
                    io.write_by_r2t(&mut world, command, &data, 20_000)
                };
                assert!(done.status().is_success(), "{:?}", done.status());
                let got = io.read(&mut world, read(1, slba, blocks, len)).unwrap();
                assert!(got == data, "{blocks} blocks of {bytes} at {slba}");
            }
            let never = io.read(&mut world, read(1, 1900, 2, 2 * bytes)).unwrap();
            assert_eq!(never, vec![0; 2 * bytes as usize]);
            assert_eq!(world.shard.ops(), 0);
        }
    }
}

#[test]
fn an_overwrite_is_one_device_write_and_a_flush_one_device_flush() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    for block in 0..64 {
        assert!(put(&mut world, &mut io, block, 1).is_success());
    }
    assert!(sync(&mut world, &mut io).is_success());
    // After so many without a flush, the journal does not run ahead of the next one.
    for block in 0..64 {
        assert!(put(&mut world, &mut io, block, 2).is_success());
    }
    let before = world.pool_disk.counts;
    for block in 0..64 {
        assert!(put(&mut world, &mut io, block, 3).is_success());
    }
    assert_eq!(world.pool_disk.counts.writes - before.writes, 64);
    assert_eq!(world.pool_disk.counts.syncs, before.syncs);
    assert!(sync(&mut world, &mut io).is_success());
    assert_eq!(world.pool_disk.counts.syncs - before.syncs, 1);
    // The pool may have closed a region since, which this one makes durable.
    assert!(sync(&mut world, &mut io).is_success());
    let before = world.pool_disk.counts;
    assert!(sync(&mut world, &mut io).is_success());
    assert_eq!(world.pool_disk.counts, before, "nothing is new");
    let latency = world.shard.pool_latency(POOL).unwrap();
    let counted = [latency.write, latency.flush, latency.read].map(|b| b.iter().sum::<u64>());
    assert_eq!(counted, [192, 4, 0]);
}

#[test]
fn zeroed_and_deallocated_blocks_read_as_zeros_and_give_their_space_back() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    for block in 0..192 {
        assert!(put(&mut world, &mut io, block, 7).is_success());
    }
    let data = |world: &World| world.shard.pool(POOL).unwrap().info().data;
    let full = data(&world);
    let zeroes = transfer(io::WRITE_ZEROES, 1, 64, 64, 0);
    assert!(io.command(&mut world, zeroes, &[]).status().is_success());
    let mut ranges = Vec::new();
    for (first, count) in [(128u64, 64u32), (3, 1)] {
        ranges.extend([0; 4]);
        ranges.extend(count.to_le_bytes());
        ranges.extend(first.to_le_bytes());
    }
    let mut deallocate = command::Command::new(io::DATASET_MANAGEMENT, 1);
    deallocate.set_cdw(10, 1);
    deallocate.set_cdw(11, 1 << 2);
    assert!(io.command(&mut world, deallocate, &ranges).status().is_success());
    for (block, byte) in [(2, 7), (3, 0), (4, 7), (63, 7), (64, 0), (127, 0), (128, 0), (191, 0)] {
        assert_eq!(get(&mut world, &mut io, block), Ok(byte), "block {block}");
    }
    assert!(sync(&mut world, &mut io).is_success());
    assert_eq!(full - data(&world), (2 * 256) << 10);
    let counts: Vec<_> = world.shard.namespace_counters().collect();
    assert_eq!((counts[0].2.write_zeroes, counts[0].2.dataset_managements), (1, 1));
}

#[test]
fn what_was_flushed_or_written_through_survives_a_power_cut() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 1, 1).is_success());
    assert!(sync(&mut world, &mut io).is_success());
    let through = fua(write(1, 2, 1, 4096));
    assert!(io.command(&mut world, through, &[2; 4096]).status().is_success());
    assert!(put(&mut world, &mut io, 3, 3).is_success());
    let read_through = fua(read(1, 3, 1, 4096));
    assert_eq!(io.read(&mut world, read_through), Ok(vec![3; 4096]));
    assert!(put(&mut world, &mut io, 4, 4).is_success());
    let mut disk = world.pool_disk.clone();
    disk.cut();
    let mut world = World::later(disk, 2, BlockSize::B4096);
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    for (block, byte) in [(1, 1), (2, 2), (3, 3), (4, 0)] {
        assert_eq!(get(&mut world, &mut io, block), Ok(byte), "block {block}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_in_the_middle_of_a_write() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    for block in 0..10 {
        assert!(put(&mut world, &mut io, block, 5).is_success());
    }
    world.disk_runs = false;
    io.post(&mut world, write(1, 9, 1, 4096), &[6; 4096]);
    io.post(&mut world, write(1, 10, 1, 4096), &[6; 4096]);
    assert!(io.take(&mut world).is_empty(), "not acknowledged");
    let mut world = World::later(world.pool_disk.clone(), 1, BlockSize::B4096);
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    for block in 0..9 {
        assert_eq!(get(&mut world, &mut io, block), Ok(5));
    }
    assert!(matches!(get(&mut world, &mut io, 9), Ok(5 | 6)));
    assert!(matches!(get(&mut world, &mut io, 10), Ok(0 | 6)));
}

#[test]
fn a_stop_stops_the_pool_in_order_before_it_says_that_all_is_drained() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 5, 5).is_success());
    let (admin, io) = (_admin.socket, io.socket);
    let (mem, now) = (&mut world.mem, world.now);
    world.shard.stop(mem, now);
    world.run();
    assert!(!world.has_note(&Note::Drained), "its host is there");
    world.end(admin);
    world.end(io);
    let names: Vec<String> = world.notes.iter().map(|note| format!("{note:?}")).collect();
    let at = |text: &str| names.iter().rposition(|name| name.contains(text)).unwrap();
    assert!(at("Closed { socket") < at("Stopped") && at("Stopped") < at("clean: true"));
    assert!(names.last().unwrap() == "Drained", "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "Drained").count(), 1);
    world.shard.drop_leases(&mut world.mem);
    assert_eq!(world.mem.leases(), 0);
    let mut later = World::later(world.pool_disk.clone(), 2, BlockSize::B4096);
    let clean = |note: &Note| {
        matches!(note, Note::Pool { note: braid_pool::Note::Opened { clean: true, .. }, .. })
    };
    assert!(later.notes.iter().any(clean));
    let (_admin, mut io) = Peer::pair(&mut later, NONE);
    assert_eq!(get(&mut later, &mut io, 5), Ok(5));
}

#[test]
fn a_full_pool_is_capacity_exceeded_and_what_is_there_can_be_overwritten() {
    let mut world = world();
    let size = 64 << 20;
    world.pool_command(Command::Resize { uuid: REPLICA, bytes: size }).unwrap();
    assert!(world.shard.namespace_resize(NQN, 1, Geometry::of_bytes(size, BlockSize::B4096)));
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let full = (0..256).find(|cluster| {
        let status = put(&mut world, &mut io, cluster * 64, 1);
        assert!(
            status.is_success() || status == Status::CAPACITY_EXCEEDED.dnr().more(),
            "{status:?}"
        );
        !status.is_success()
    });
    let full = full.expect("24 MiB do not hold 64");
    assert!(full > 32, "{full}");
    assert!(put(&mut world, &mut io, 0, 2).is_success());
    assert_eq!(get(&mut world, &mut io, full * 64), Ok(0));
    assert!(sync(&mut world, &mut io).is_success());
    let zeroes = transfer(io::WRITE_ZEROES, 1, 64, 64, 0);
    assert!(io.command(&mut world, zeroes, &[]).status().is_success());
    assert!(sync(&mut world, &mut io).is_success());
    assert!(put(&mut world, &mut io, full * 64, 3).is_success(), "space came free");
}

#[test]
fn a_snapshot_is_a_namespace_that_cannot_be_written() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 1, 1).is_success());
    let handle = snapshot(&mut world);
    assert!(put(&mut world, &mut io, 1, 2).is_success());
    world.unshare(&[_admin.socket, io.socket]);
    let geometry = Geometry::of_bytes(REPLICA_BYTES, BlockSize::B4096);
    assert!(world.shard.subsystem_add(shared(handle, true, geometry)));
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    assert_eq!(get(&mut world, &mut io, 1), Ok(1));
    let mut identify = command::Command::new(admin::IDENTIFY, 1);
    identify.sgl = Sgl::transport(4096);
    assert_eq!(admin.read(&mut world, identify).unwrap()[99], 1, "NSATTR");
    let protected = Status::WRITE_PROTECTED.dnr();
    assert_eq!(put(&mut world, &mut io, 1, 3), protected);
    let zeroes = transfer(io::WRITE_ZEROES, 1, 0, 1, 0);
    assert_eq!(io.command(&mut world, zeroes, &[]).status(), protected);
    assert!(sync(&mut world, &mut io).is_success());
    assert_eq!(get(&mut world, &mut io, 1), Ok(1));
}

#[test]
fn a_replica_that_grows_keeps_its_data_and_can_be_used_to_its_end() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let last = REPLICA_BYTES / 4096;
    assert_eq!(put(&mut world, &mut io, last, 1), Status::LBA_OUT_OF_RANGE.dnr());
    let bytes = REPLICA_BYTES + (1 << 20);
    // A host that is told too early is told the truth.
    let geometry = Geometry::of_bytes(bytes, BlockSize::B4096);
    assert!(world.shard.namespace_resize(NQN, 1, geometry));
    assert_eq!(put(&mut world, &mut io, last, 1), Status::LBA_OUT_OF_RANGE.dnr());
    world.pool_command(Command::Resize { uuid: REPLICA, bytes }).unwrap();
    assert!(put(&mut world, &mut io, last, 1).is_success());
    assert_eq!(get(&mut world, &mut io, last), Ok(1));
}

#[test]
fn which_blocks_are_allocated_is_told() {
    let mut world = world();
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    for block in [3, 4, 200] {
        assert!(put(&mut world, &mut io, block, 1).is_success());
    }
    let status = |first: u32, count: u32, len: u32| {
        let mut command = command::Command::new(admin::GET_LBA_STATUS, 1);
        command.sgl = Sgl::transport(len);
        command.set_cdw(10, first);
        command.set_cdw(12, len / 4 - 1);
        command.set_cdw(13, 0x02 << 24 | count);
        command
    };
    let mut list = |world: &mut World, command| {
        let data = admin.read(world, command).unwrap();
        let entries = u32::from_le_bytes(data[..4].try_into().unwrap()) as usize;
        let parts = data[8..].chunks_exact(16).take(entries).map(|entry| {
            let first = u64::from_le_bytes(entry[..8].try_into().unwrap());
            (first, u32::from_le_bytes(entry[8..12].try_into().unwrap()))
        });
        (parts.collect::<Vec<_>>(), data[4])
    };
    assert_eq!(list(&mut world, status(0, 0, 4096)), (vec![(3, 2), (200, 1)], 2));
    assert_eq!(list(&mut world, status(4, 100, 4096)), (vec![(4, 1)], 2));
    assert_eq!(list(&mut world, status(0, 0, 24)), (vec![(3, 2)], 1));
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn damage_is_an_unrecovered_read_of_these_blocks_alone() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    for block in 0..4 {
        assert!(put(&mut world, &mut io, block, 0x40 + block as u8).is_success());
    }
    assert!(sync(&mut world, &mut io).is_success());
    world.pool_disk.damage(0x42);
    assert_eq!(get(&mut world, &mut io, 2), Err(Status::UNRECOVERED_READ.more()));
    assert_eq!(get(&mut world, &mut io, 1), Ok(0x41));
    assert!(put(&mut world, &mut io, 2, 9).is_success());
    assert_eq!(get(&mut world, &mut io, 2), Ok(9));
    let media = |note: &Note| {
        matches!(note, Note::Pool { note: braid_pool::Note::Media { offset: 0x2000, .. }, .. })
    };
    assert!(world.notes.iter().any(media));
}

#[test]
fn a_device_that_failed_fails_every_command_from_then_on() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 0, 1).is_success());
    world.pool_disk.error = Some(IoError::Device);
    assert_eq!(put(&mut world, &mut io, 0, 2), Status::WRITE_FAULT.more());
    world.pool_disk.error = None;
    assert_eq!(put(&mut world, &mut io, 0, 2), Status::WRITE_FAULT.more());
    assert_eq!(sync(&mut world, &mut io), Status::WRITE_FAULT.dnr().more());
    assert_eq!(get(&mut world, &mut io, 0), Err(Status::UNRECOVERED_READ.more()));
    assert_eq!(world.shard.pool(POOL).unwrap().state(), braid_pool::State::Failed);
    let (mem, now) = (&mut world.mem, world.now);
    world.shard.pool_close(mem, now, POOL);
    world.run();
    assert!(world.has_note(&Note::PoolClosed { pool: POOL, disk: POOL_DISK, clean: false }));
    assert_eq!(put(&mut world, &mut io, 0, 2), Status::INVALID_NAMESPACE.dnr());
}

#[test]
fn injected_faults_hit_replicas_too() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 0, 1).is_success());
    let once = |operation, fault| Injection { operation, fault, offset: 0, len: 4096, count: 1 };
    let faults = [once(Operation::Write, Fault::Error), once(Operation::Read, Fault::Corrupt)];
    assert!(world.shard.set_injections(NQN, 1, &faults));
    assert_eq!(put(&mut world, &mut io, 0, 2), Status::WRITE_FAULT.more());
    let data = io.read(&mut world, read(1, 0, 1, 4096)).unwrap();
    assert_eq!(data[..2], [0, 1], "a flipped bit");
    assert_eq!(get(&mut world, &mut io, 0), Ok(1));
}

#[test]
fn a_pool_waits_for_a_disk_that_stalls_and_has_failed_with_one_that_fails() {
    let mut world = world();
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 0, 1).is_success());
    let of = |fault| {
        let (offset, len, count) = (0, u64::MAX, u32::MAX);
        [Injection { operation: Operation::Write, fault, offset, len, count }]
    };
    let slow = Duration::from_millis(100);
    assert!(world.shard.set_disk_faults(POOL, &of(Fault::Stall)));
    io.post(&mut world, write(1, 0, 1, 4096), &[2; 4096]);
    world.pass(slow);
    assert!(io.take(&mut world).is_empty());
    assert_eq!(get(&mut world, &mut io, 1), Ok(0), "reads are as ever");
    assert!(world.shard.set_disk_faults(POOL, &[]));
    world.run();
    assert_eq!(io.take(&mut world).len(), 1, "it goes on");
    assert_eq!(get(&mut world, &mut io, 0), Ok(2));
    assert!(world.shard.set_disk_faults(POOL, &of(Fault::Delay(slow))));
    io.post(&mut world, write(1, 0, 1, 4096), &[3; 4096]);
    world.pass(slow / 2);
    assert!(io.take(&mut world).is_empty());
    world.pass(slow * 4);
    assert_eq!(io.take(&mut world).len(), 1, "it is only late");
    assert!(world.shard.set_disk_faults(POOL, &of(Fault::Error)));
    assert_eq!(put(&mut world, &mut io, 0, 5), Status::WRITE_FAULT.more());
    assert_eq!(world.shard.pool(POOL).unwrap().state(), braid_pool::State::Failed);
    assert!(!world.shard.set_disk_faults(PoolId(77), &[]));
}

#[test]
fn what_an_injection_corrupts_is_stored_as_it_is_with_and_without_digests() {
    for digests in [NONE, DATA] {
        let mut world = world();
        let (_admin, mut io) = Peer::pair(&mut world, digests);
        let corrupt = Injection {
            operation: Operation::Write,
            fault: Fault::Corrupt,
            offset: 0,
            len: 4096,
            count: 1,
        };
        assert!(world.shard.set_injections(NQN, 1, &[corrupt]));
        assert!(put(&mut world, &mut io, 0, 2).is_success());
        let data = io.read(&mut world, read(1, 0, 1, 4096)).unwrap();
        assert_eq!(data[..2], [3, 2], "a flipped bit");
    }
}

#[test]
fn a_replica_is_shared_unshared_and_shared_again() {
    let mut world = world();
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 3, 3).is_success());
    world.unshare(&[admin.socket, io.socket]);
    let handle = world.shard.pool(POOL).unwrap().find(&REPLICA).unwrap();
    world.share(handle, Geometry::of_bytes(REPLICA_BYTES, BlockSize::B4096));
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    assert_eq!(get(&mut world, &mut io, 3), Ok(3));
    world.unshare(&[admin.socket, io.socket]);
    world.pool_command(Command::Destroy { uuid: REPLICA }).unwrap();
    world.close_pool();
    assert_eq!(world.shard.pools().count(), 0);
}

#[test]
fn a_pool_that_is_closed_ends_its_commands_and_lets_go_of_its_disk() {
    let mut world = World::bare();
    world.format_pool();
    let (mem, now) = (&mut world.mem, world.now);
    world.shard.pool_command(mem, now, POOL, 41, Command::Scrub { rate: 0 });
    assert!(world.shard.pool_open(mem, now, POOL, POOL_DISK, pool_config(1)));
    assert!(!world.shard.pool_open(mem, now, POOL, POOL_DISK, pool_config(1)), "the id is in use");
    world.shard.pool_command(mem, now, POOL, 42, Command::Scrub { rate: 1 });
    world.shard.pool_close(mem, now, POOL);
    world.shard.pool_command(mem, now, POOL, 43, Command::Scrub { rate: 1 });
    world.run();
    let mut ends: Vec<_> = (world.notes.iter())
        .filter_map(|note| match note {
            Note::PoolCommand { tag, result, .. } => Some((*tag, result.is_err())),
            _ => None,
        })
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, [(41, true), (42, true), (43, true)]);
    assert!(world.has_note(&Note::PoolClosed { pool: POOL, disk: POOL_DISK, clean: false }));
    world.open_pool(1);
    world.close_pool();
    let unknown = Note::PoolCommand { pool: POOL, tag: 41, result: Err(Failure::NotFound) };
    assert!(world.has_note(&unknown));
    world.shard.pool_close(&mut world.mem, world.now, PoolId(99));
}

#[test]
fn wherever_the_device_fails_every_command_is_answered_and_no_buffer_is_lost() {
    for operations in 0.. {
        let mut world = world();
        let (admin, mut io) = Peer::pair(&mut world, DATA);
        world.pool_disk.left = Some(operations);
        let commands = [write(1, 0, 1, 4096), write(1, 0, 1, 4096), fua(write(1, 64, 2, 8192))];
        for command in commands {
            let len = command.sgl.length.get() as usize;
            io.post(&mut world, command, &vec![7; len]);
        }
        io.post(&mut world, transfer(io::WRITE_ZEROES, 1, 0, 64, 0), &[]);
        io.post(&mut world, flush(1), &[]);
        io.post(&mut world, fua(read(1, 64, 2, 8192)), &[]);
        io.post(&mut world, read(1, 3, 9, 9 * 4096), &[]);
        assert_eq!(io.take(&mut world).len(), 7, "after {operations}");
        let unharmed = world.pool_disk.left > Some(0);
        let (mem, now) = (&mut world.mem, world.now);
        world.shard.stop(mem, now);
        world.run();
        world.end(io.socket);
        world.end(admin.socket);
        assert!(world.has_note(&Note::Drained), "after {operations}");
        world.shard.drop_leases(&mut world.mem);
        assert_eq!((world.shard.ops(), world.mem.leases()), (0, 0), "after {operations}");
        if unharmed && world.pool_disk.left > Some(0) {
            assert!(operations > 10);
            return;
        }
    }
}

#[test]
fn a_stop_ends_though_the_disk_does_not_answer_and_its_buffers_stay_with_it() {
    let mut world = world();
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 5, 5).is_success());
    world.pool_disk.hangs = true;
    io.post(&mut world, write(1, 0, 1, 4096), &[7; 4096]);
    let (mem, now) = (&mut world.mem, world.now);
    world.shard.stop(mem, now);
    world.run();
    world.end(io.socket);
    world.end(admin.socket);
    world.pass(Duration::from_secs(30));
    assert!(!world.has_note(&Note::Drained), "a disk that resets itself is waited for");
    world.pass(Duration::from_secs(120));
    let drained = |world: &World| world.notes.iter().filter(|n| matches!(n, Note::Drained)).count();
    assert_eq!(drained(&world), 1, "{:?}", world.notes);
    assert!(world.shard.pool(POOL).is_some(), "the kernel has its buffers");
    world.answer_pool_disk();
    let closed = Note::PoolClosed { pool: POOL, disk: POOL_DISK, clean: false };
    assert!(world.has_note(&closed), "{:?}", world.notes);
    assert_eq!(drained(&world), 1, "told once");
    world.shard.drop_leases(&mut world.mem);
    assert_eq!((world.shard.ops(), world.mem.leases()), (0, 0));
}

#[test]
fn what_one_pool_asks_for_is_not_answered_to_another() {
    let mut world = world();
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    assert!(put(&mut world, &mut io, 3, 3).is_success());
    world.unshare(&[admin.socket, io.socket]);
    world.close_pool();
    // Both look at the same disk, and write nothing.
    let config = || braid_pool::Config { read_only: true, ..pool_config(1) };
    let (mem, now) = (&mut world.mem, world.now);
    for id in [PoolId(8), POOL] {
        assert!(world.shard.pool_open(mem, now, id, POOL_DISK, config()));
    }
    world.run();
    for id in [PoolId(8), POOL] {
        assert_eq!(world.shard.pool(id).unwrap().state(), braid_pool::State::Open);
    }
    let (mem, now) = (&mut world.mem, world.now);
    world.shard.pool_close(mem, now, PoolId(8));
    world.run();
    assert!(world.shard.pools().eq([POOL]));
    let handle = world.shard.pool(POOL).unwrap().find(&REPLICA).unwrap();
    world.share(handle, Geometry::of_bytes(REPLICA_BYTES, BlockSize::B4096));
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    assert_eq!(get(&mut world, &mut io, 3), Ok(3));
    assert!(!put(&mut world, &mut io, 3, 4).is_success());
}

#[test]
fn a_host_that_leaves_in_the_middle_costs_no_buffer() {
    let mut world = world();
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    world.run();
    world.disk_runs = false;
    io.post(&mut world, write(1, 9, 1, 4096), &[6; 4096]);
    io.post(&mut world, read(1, 9, 1, 4096), &[]);
    io.post(&mut world, flush(1), &[]);
    world.end(io.socket);
    world.end(admin.socket);
    world.disk_runs = true;
    world.run();
    assert_eq!((world.shard.ops(), world.shard.connections()), (0, 0));
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    assert_eq!(get(&mut world, &mut io, 9), Ok(6));
    let got: Vec<Got> = io.take(&mut world);
    assert!(got.is_empty());
}
