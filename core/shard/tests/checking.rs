//! Compare, Verify, Compare and Write as one, and Abort: commands that wait for others.
#![forbid(unsafe_code)]

mod support;

use braid_block::{BlockSize, IoError};
use braid_nvme::Status;
use braid_nvme::command::{Command, Fuse, Sgl, admin, io};
use braid_nvme::framer::DataPdu;
use braid_nvme::pdu::Digests;
use braid_shard::{AnaChange, Fault, Injection, Operation};
use support::peer::{Got, Peer, capsule, flush, h2c, read, transfer, write};
use support::{NQN, World, config};

const NONE: Digests = Digests { header: false, data: false };
const BLOCK: usize = 4096;
const BYTES: u32 = BLOCK as u32;
const MISCOMPARE: Status = Status::COMPARE_FAILURE.dnr();

fn compare(nsid: u32, slba: u64, blocks: u32) -> Command {
    transfer(io::COMPARE, nsid, slba, blocks, blocks * BYTES)
}

fn verify(nsid: u32, slba: u64, blocks: u32) -> Command {
    transfer(io::VERIFY, nsid, slba, blocks, 0)
}

fn first(nsid: u32, slba: u64) -> Command {
    compare(nsid, slba, 1).fused(Fuse::First)
}

fn second(nsid: u32, slba: u64) -> Command {
    write(nsid, slba, 1, BYTES).fused(Fuse::Second)
}

/// The completions that arrived, in their order.
fn ended(world: &mut World, peer: &mut Peer) -> Vec<(u16, Status)> {
    let got = peer.take(world);
    let completion = |got: &Got| match got {
        Got::Completion(completion) => (completion.cid.get(), completion.status()),
        other => panic!("no completion but {other:?}"),
    };
    got.iter().map(completion).collect()
}

fn r2t(world: &mut World, peer: &mut Peer) -> DataPdu {
    match peer.take(world).as_slice() {
        [Got::R2t(r2t)] => *r2t,
        other => panic!("no R2T but {other:?}"),
    }
}

fn block(world: &mut World, io: &mut Peer, nsid: u32, slba: u64) -> u8 {
    let data = io.read(world, read(nsid, slba, 1, BYTES)).unwrap();
    assert!(data.iter().all(|byte| *byte == data[0]), "a torn block");
    data[0]
}

/// A world, and a queue, of which namespace 1 is in memory, 2 on a disk, both with a block of ones.
fn world() -> (World, Peer, Peer) {
    let mut world = World::new(config());
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    for nsid in [1, 2] {
        let written = io.command(&mut world, write(nsid, 0, 1, BYTES), &[1; BLOCK]);
        assert!(written.status().is_success());
    }
    (world, admin, io)
}

#[test]
fn a_compare_tells_whether_the_blocks_are_what_the_host_sent() {
    let (mut world, _admin, mut io) = world();
    for nsid in [1, 2] {
        let same = io.command(&mut world, compare(nsid, 0, 1), &[1; BLOCK]);
        assert_eq!(same.status(), Status::SUCCESS, "namespace {nsid}");
        let mut other = [1; BLOCK];
        other[BLOCK - 1] = 2;
        let differs = io.command(&mut world, compare(nsid, 0, 1), &other);
        assert_eq!(differs.status(), MISCOMPARE, "namespace {nsid}");
        assert_eq!(block(&mut world, &mut io, nsid, 0), 1, "nothing was written");
    }
    let beyond = io.command(&mut world, compare(2, 1 << 40, 1), &[1; BLOCK]);
    assert_eq!(beyond.status(), Status::LBA_OUT_OF_RANGE.dnr());
}

#[test]
fn a_long_compare_is_done_in_pieces() {
    let (mut world, _admin, mut io) = world();
    let mut sent: Vec<u8> = (0..32 * BLOCK).map(|n| (n / 1000) as u8).collect();
    let done = io.write_by_r2t(&mut world, write(2, 8, 32, 32 * BYTES), &sent, 1 << 17);
    assert!(done.status().is_success());
    let reads = world.counts.reads;
    let same = io.write_by_r2t(&mut world, compare(2, 8, 32), &sent, 1 << 17);
    assert_eq!(same.status(), Status::SUCCESS);
    assert_eq!(world.counts.reads - reads, 8, "128 KiB in pieces of 16 KiB");
    sent[32 * BLOCK - 1] ^= 1;
    let differs = io.write_by_r2t(&mut world, compare(2, 8, 32), &sent, 1 << 17);
    assert_eq!(differs.status(), MISCOMPARE);
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn a_verify_reads_without_sending_and_tells_what_it_cannot_read() {
    let (mut world, _admin, mut io) = world();
    for nsid in [1, 2] {
        assert_eq!(io.command(&mut world, verify(nsid, 0, 64), &[]).status(), Status::SUCCESS);
    }
    assert_eq!(world.counts.reads, 16, "256 KiB of the disk");
    world.disk_error = Some(IoError::Media);
    let lost = io.command(&mut world, verify(2, 0, 64), &[]).status();
    assert_eq!(lost, Status::UNRECOVERED_READ.more());
    let large = io.command(&mut world, verify(2, 0, 2049), &[]).status();
    assert_eq!(large, Status::LBA_OUT_OF_RANGE.dnr(), "the namespace has 1024 blocks");
}

#[test]
fn a_replica_is_compared_and_verified_too() {
    let mut world = World::with_replica(BlockSize::B4096);
    let (_admin, mut io) = Peer::pair(&mut world, Digests { header: true, data: true });
    let data: Vec<u8> = (0..8 * BLOCK).map(|n| (n / 512) as u8).collect();
    let done = io.write_by_r2t(&mut world, write(1, 3, 8, 8 * BYTES), &data, 1 << 17);
    assert!(done.status().is_success());
    let same = io.write_by_r2t(&mut world, compare(1, 3, 8), &data, 1 << 17);
    assert_eq!(same.status(), Status::SUCCESS);
    let other = io.write_by_r2t(&mut world, compare(1, 4, 8), &data, 1 << 17);
    assert_eq!(other.status(), MISCOMPARE);
    assert_eq!(io.command(&mut world, verify(1, 0, 16), &[]).status(), Status::SUCCESS);
    io.post(&mut world, first(1, 3), &data[..BLOCK]);
    io.post(&mut world, second(1, 3), &[9; BLOCK]);
    let statuses: Vec<_> = ended(&mut world, &mut io).iter().map(|(_, status)| *status).collect();
    assert_eq!(statuses, [Status::SUCCESS; 2]);
    assert_eq!(block(&mut world, &mut io, 1, 3), 9);
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn compare_and_write_writes_if_the_compare_finds_what_it_should() {
    let (mut world, _admin, mut io) = world();
    for nsid in [1, 2] {
        let a = io.post(&mut world, first(nsid, 0), &[1; BLOCK]);
        assert!(io.take(&mut world).is_empty(), "the other one is not here");
        let b = io.post(&mut world, second(nsid, 0), &[2; BLOCK]);
        let expected = [(a, Status::SUCCESS), (b, Status::SUCCESS)];
        assert_eq!(ended(&mut world, &mut io), expected, "namespace {nsid}");
        assert_eq!(block(&mut world, &mut io, nsid, 0), 2);
        let a = io.post(&mut world, first(nsid, 0), &[1; BLOCK]);
        let b = io.post(&mut world, second(nsid, 0), &[3; BLOCK]);
        let expected = [(a, MISCOMPARE), (b, Status::FUSED_FAILED)];
        assert_eq!(ended(&mut world, &mut io), expected, "namespace {nsid}");
        assert_eq!(block(&mut world, &mut io, nsid, 0), 2, "nothing was written");
    }
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn neither_is_begun_before_the_data_of_both_is_here() {
    let (mut world, _admin, mut io) = world();
    let reads = world.counts.reads;
    let a = io.post(&mut world, first(2, 0), &[]);
    let ask_a = r2t(&mut world, &mut io);
    let b = io.post(&mut world, second(2, 0), &[]);
    let ask_b = r2t(&mut world, &mut io);
    let socket = io.socket;
    world.send(socket, &h2c(&ask_a, 0, &[1; BLOCK], true, NONE));
    assert!(io.take(&mut world).is_empty());
    assert_eq!(world.counts.reads, reads);
    world.send(socket, &h2c(&ask_b, 0, &[2; BLOCK], true, NONE));
    assert_eq!(ended(&mut world, &mut io), [(a, Status::SUCCESS), (b, Status::SUCCESS)]);
    assert_eq!(block(&mut world, &mut io, 2, 0), 2);
}

#[test]
fn a_part_without_the_other_is_answered_so() {
    let (mut world, _admin, mut io) = world();
    let alone = io.command(&mut world, second(1, 0), &[2; BLOCK]).status();
    assert_eq!(alone, Status::FUSED_MISSING, "a second without a first");
    let a = io.post(&mut world, first(1, 0), &[1; BLOCK]);
    let b = io.post(&mut world, flush(1), &[]);
    assert_eq!(ended(&mut world, &mut io), [(a, Status::FUSED_MISSING), (b, Status::SUCCESS)]);
    let a = io.post(&mut world, first(1, 0), &[1; BLOCK]);
    let b = io.post(&mut world, first(1, 0), &[1; BLOCK]);
    let c = io.post(&mut world, second(1, 0), &[2; BLOCK]);
    assert_eq!(
        ended(&mut world, &mut io),
        [(a, Status::FUSED_MISSING), (b, Status::SUCCESS), (c, Status::SUCCESS)]
    );
    assert_eq!(block(&mut world, &mut io, 1, 0), 2);
}

#[test]
fn what_is_wrong_with_one_is_the_end_of_both() {
    let (mut world, _admin, mut io) = world();
    let wrong = Status::INVALID_FIELD.dnr();
    // Different blocks.
    let a = io.post(&mut world, first(1, 0), &[1; BLOCK]);
    let b = io.post(&mut world, second(1, 1), &[2; BLOCK]);
    assert_eq!(ended(&mut world, &mut io), [(a, wrong), (b, wrong)]);
    // Outside of the namespace.
    let range = Status::LBA_OUT_OF_RANGE.dnr();
    let a = io.post(&mut world, first(1, 1 << 30), &[1; BLOCK]);
    let b = io.post(&mut world, second(1, 1 << 30), &[2; BLOCK]);
    assert_eq!(ended(&mut world, &mut io), [(a, range), (b, Status::FUSED_FAILED)]);
    // A second whose buffer is too short.
    let a = io.post(&mut world, first(1, 0), &[1; BLOCK]);
    let b = io.post(&mut world, second(1, 0), &[2; 512]);
    let short = Status::SGL_LENGTH_INVALID.dnr();
    assert_eq!(ended(&mut world, &mut io), [(a, Status::FUSED_FAILED), (b, short)]);
    // Commands that are no part of a pair.
    for (command, expected) in [
        (write(1, 0, 1, BYTES).fused(Fuse::First), wrong),
        (compare(1, 0, 1).fused(Fuse::Second), Status::FUSED_FAILED),
        (flush(1).fused(Fuse::First), wrong),
    ] {
        let data: &[u8] = if command.opcode == io::FLUSH { &[] } else { &[1; BLOCK] };
        assert_eq!(io.command(&mut world, command, data).status(), expected);
    }
    let mut reserved = compare(1, 0, 1);
    reserved.flags |= 3;
    assert_eq!(io.command(&mut world, reserved, &[1; BLOCK]).status(), wrong);
    assert_eq!(block(&mut world, &mut io, 1, 0), 1, "nothing was written");
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn no_other_write_to_the_range_comes_between() {
    let (mut world, admin, mut io) = world();
    let mut other = admin.io(&mut world, 2);
    world.disk_runs = false;
    // A write that was first is waited for; a Compare that reads, and writes that come then, wait.
    let early = other.post(&mut world, write(2, 0, 1, BYTES), &[7; BLOCK]);
    let a = io.post(&mut world, first(2, 0), &[7; BLOCK]);
    let b = io.post(&mut world, second(2, 0), &[8; BLOCK]);
    let reads = world.counts.reads;
    let late = other.post(&mut world, write(2, 0, 1, BYTES), &[9; BLOCK]);
    let elsewhere = other.post(&mut world, write(2, 1, 1, BYTES), &[5; BLOCK]);
    let ranges = [[0; 4], 1_u32.to_le_bytes(), [0; 4], [0; 4]].concat();
    let mut deallocate = Command::new(io::DATASET_MANAGEMENT, 2);
    deallocate.set_cdw(11, 1 << 2);
    let trimmed = other.post(&mut world, deallocate, &ranges);
    assert_eq!((world.counts.reads, world.counts.discards), (reads, 0));
    assert_eq!(world.counts.writes, 3, "the setup's, the early one and the one elsewhere");
    world.disk_runs = true;
    world.run();
    assert_eq!(ended(&mut world, &mut io), [(a, Status::SUCCESS), (b, Status::SUCCESS)]);
    let mut done: Vec<u16> = ended(&mut world, &mut other).iter().map(|(cid, _)| *cid).collect();
    done.sort_unstable();
    assert_eq!(done, [early, late, elsewhere, trimmed]);
    assert_eq!(block(&mut world, &mut io, 2, 1), 5);
    assert_eq!(block(&mut world, &mut io, 2, 0), 0, "trimmed last");
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn pairs_to_one_block_take_turns_so_that_one_of_them_wins() {
    let (mut world, admin, mut io) = world();
    let mut queues = [2, 3, 4].map(|qid| admin.io(&mut world, qid));
    world.disk_runs = false;
    for (n, queue) in queues.iter_mut().enumerate() {
        queue.post(&mut world, first(2, 0), &[1; BLOCK]);
        queue.post(&mut world, second(2, 0), &[10 + n as u8; BLOCK]);
    }
    world.disk_runs = true;
    world.run();
    let won = queues.each_mut().map(|queue| {
        let statuses = ended(&mut world, queue);
        statuses.iter().all(|(_, status)| status.is_success())
    });
    assert_eq!(won, [true, false, false]);
    assert_eq!(block(&mut world, &mut io, 2, 0), 10);
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn a_connection_that_ends_takes_its_pair_along_and_frees_the_range() {
    let (mut world, admin, mut io) = world();
    let mut other = admin.io(&mut world, 2);
    world.disk_runs = false;
    io.post(&mut world, first(2, 0), &[1; BLOCK]);
    io.post(&mut world, second(2, 0), &[2; BLOCK]);
    let cid = other.post(&mut world, write(2, 0, 1, BYTES), &[3; BLOCK]);
    assert!(other.take(&mut world).is_empty());
    world.end(io.socket);
    world.disk_runs = true;
    world.run();
    assert_eq!(ended(&mut world, &mut other), [(cid, Status::SUCCESS)]);
    assert_eq!(block(&mut world, &mut other, 2, 0), 3);
    let alone = other.post(&mut world, first(2, 0), &[3; BLOCK]);
    assert!(alone > 0 && other.take(&mut world).is_empty());
    world.end(other.socket);
    assert_eq!(world.shard.ops(), 0, "nothing waits for a second that never comes");
}

#[test]
fn a_path_that_becomes_inaccessible_ends_a_pair_that_waits() {
    let (mut world, _admin, mut io) = world();
    let a = io.post(&mut world, first(1, 0), &[1; BLOCK]);
    let b = io.post(&mut world, second(1, 0), &[]);
    let ask = r2t(&mut world, &mut io);
    let state = braid_nvme::ana::AnaState::Inaccessible;
    let change = AnaChange { subsystem: NQN, group: 1, listener: None, state };
    assert!(world.shard.ana_set(&mut world.mem, world.now, &change));
    world.run();
    let socket = io.socket;
    world.send(socket, &h2c(&ask, 0, &[2; BLOCK], true, NONE));
    let refused = Status::ANA_INACCESSIBLE;
    assert_eq!(ended(&mut world, &mut io), [(a, refused), (b, refused)]);
}

fn abort(world: &mut World, admin: &mut Peer, qid: u32, cid: u16) -> u16 {
    let mut command = Command::new(admin::ABORT, 0);
    command.set_cdw(10, qid | u32::from(cid) << 16);
    admin.post(world, command, &[])
}

/// The result of the Abort command that was answered: 0 if it found what it was to abort.
fn aborted(world: &mut World, admin: &mut Peer) -> Vec<(u64, Status)> {
    let got = admin.take(world);
    let result = |got: &Got| match got {
        Got::Completion(completion) => (completion.result.get(), completion.status()),
        other => panic!("no completion but {other:?}"),
    };
    got.iter().map(result).collect()
}

#[test]
fn an_abort_of_a_write_ends_it_when_its_data_is_here_and_is_answered_then() {
    let (mut world, mut admin, mut io) = world();
    let cid = io.post(&mut world, write(2, 0, 1, BYTES), &[]);
    let ask = r2t(&mut world, &mut io);
    abort(&mut world, &mut admin, 1, cid);
    assert!(admin.take(&mut world).is_empty() && io.take(&mut world).is_empty());
    let socket = io.socket;
    world.send(socket, &h2c(&ask, 0, &[9; BLOCK], true, NONE));
    assert_eq!(ended(&mut world, &mut io), [(cid, Status::ABORTED_BY_REQUEST)]);
    assert_eq!(aborted(&mut world, &mut admin), [(0, Status::SUCCESS)]);
    assert_eq!(block(&mut world, &mut io, 2, 0), 1);
}

#[test]
fn an_abort_finds_what_waits_for_another_command() {
    let (mut world, mut admin, mut io) = world();
    let a = io.post(&mut world, first(1, 0), &[1; BLOCK]);
    abort(&mut world, &mut admin, 1, a);
    assert_eq!(aborted(&mut world, &mut admin), [(0, Status::SUCCESS)]);
    assert_eq!(ended(&mut world, &mut io), [(a, Status::ABORTED_BY_REQUEST)]);
    let b = io.command(&mut world, second(1, 0), &[2; BLOCK]).status();
    assert_eq!(b, Status::FUSED_FAILED);
    abort(&mut world, &mut admin, 1, 999);
    assert_eq!(aborted(&mut world, &mut admin), [(1, Status::SUCCESS)], "there is none");
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn four_aborts_may_wait_and_a_fifth_is_one_too_many() {
    let (mut world, mut admin, mut io) = world();
    let writes: Vec<(u16, DataPdu)> = (0..5)
        .map(|n| {
            let cid = io.post(&mut world, write(2, n, 1, BYTES), &[]);
            (cid, r2t(&mut world, &mut io))
        })
        .collect();
    for (cid, _) in &writes[..4] {
        abort(&mut world, &mut admin, 1, *cid);
    }
    assert!(admin.take(&mut world).is_empty());
    abort(&mut world, &mut admin, 1, writes[4].0);
    assert_eq!(aborted(&mut world, &mut admin), [(0, Status::ABORT_LIMIT)]);
    let socket = io.socket;
    for (_, ask) in &writes {
        world.send(socket, &h2c(ask, 0, &[9; BLOCK], true, NONE));
    }
    let ends = ended(&mut world, &mut io);
    assert_eq!(ends.iter().filter(|(_, status)| status.is_success()).count(), 1);
    assert_eq!(aborted(&mut world, &mut admin), [(0, Status::SUCCESS); 4]);
}

#[test]
fn an_abort_whose_victim_loses_its_connection_is_answered() {
    let (mut world, mut admin, mut io) = world();
    let cid = io.post(&mut world, write(2, 0, 1, BYTES), &[]);
    r2t(&mut world, &mut io);
    abort(&mut world, &mut admin, 1, cid);
    world.end(io.socket);
    assert_eq!(aborted(&mut world, &mut admin).len(), 1);
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn an_error_of_the_device_has_an_entry_in_the_error_log() {
    let (mut world, mut admin, mut io) = world();
    world.disk_error = Some(IoError::Device);
    let cid = io.post(&mut world, read(2, 5, 1, BYTES), &[]);
    assert_eq!(ended(&mut world, &mut io), [(cid, Status::UNRECOVERED_READ.more())]);
    let missing = io.read(&mut world, read(9, 0, 1, BYTES));
    assert_eq!(missing, Err(Status::INVALID_NAMESPACE.dnr()), "the host's own doing has none");
    let mut log = Command::new(admin::GET_LOG_PAGE, u32::MAX);
    log.set_cdw(10, 0x01 | (64 / 4 * 2 - 1) << 16);
    log.sgl = Sgl::transport(128);
    let page = admin.read(&mut world, log).unwrap();
    assert_eq!((page[0], page[8], page[10]), (1, 1, cid as u8), "number, queue, command");
    let status = u16::from_le_bytes([page[12], page[13]]);
    assert_eq!(Status::from_wire(status), Status::UNRECOVERED_READ.more());
    assert_eq!((page[16], page[24]), (5, 2), "LBA and namespace");
    assert!(page[64..].iter().all(|byte| *byte == 0), "one entry");
}

#[test]
fn a_stalled_compare_can_be_aborted_and_a_corrupt_one_differs() {
    let (mut world, mut admin, mut io) = world();
    let fault =
        |fault| Injection { operation: Operation::Read, fault, offset: 0, len: 1, count: 1 };
    assert!(world.shard.set_injections(NQN, 1, &[fault(Fault::Stall)]));
    let cid = io.post(&mut world, compare(1, 0, 1), &[1; BLOCK]);
    abort(&mut world, &mut admin, 1, cid);
    assert_eq!(aborted(&mut world, &mut admin), [(0, Status::SUCCESS)]);
    assert_eq!(ended(&mut world, &mut io), [(cid, Status::ABORTED_BY_REQUEST)]);
    for nsid in [1, 2] {
        assert!(world.shard.set_injections(NQN, nsid, &[fault(Fault::Corrupt)]));
        let corrupt = io.command(&mut world, compare(nsid, 0, 1), &[1; BLOCK]).status();
        assert_eq!(corrupt, MISCOMPARE, "namespace {nsid}");
    }
}

/// A queue whose last command's capsule waits for a buffer, with the first bytes of its data.
fn starved() -> (World, Peer, Peer, u16) {
    let mut config = config();
    config.limits.arena_bytes = 1 << 20;
    let mut world = World::new(config);
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    let mut last = 0;
    while world.shard.counters().buffer_waits == 0 {
        assert!(last < 64, "the arena never ends");
        last = io.post(&mut world, write(2, u64::from(last) * 2, 2, 8192), &[5; 8192]);
    }
    (world, admin, io, last)
}

#[test]
fn an_abort_finds_a_capsule_that_waits_for_a_buffer() {
    let (mut world, mut admin, mut io, last) = starved();
    let next = io.post(&mut world, write(2, 100, 2, 8192), &[6; 8192]);
    // What is behind it was not looked at yet.
    abort(&mut world, &mut admin, 1, next);
    assert_eq!(aborted(&mut world, &mut admin), [(1, Status::SUCCESS)]);
    abort(&mut world, &mut admin, 1, last);
    assert_eq!(aborted(&mut world, &mut admin), [(0, Status::SUCCESS)]);
    assert_eq!(ended(&mut world, &mut io), [(last, Status::ABORTED_BY_REQUEST)]);
    world.disk_runs = true;
    world.run();
    let ends = ended(&mut world, &mut io);
    assert!(ends.iter().all(|(_, status)| status.is_success()), "{ends:?}");
    assert!(ends.iter().any(|(cid, _)| *cid == next), "the queue goes on behind it");
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn an_abort_of_a_capsule_that_never_comes_whole_is_answered_when_its_queue_ends() {
    let (mut world, mut admin, mut io, last) = starved();
    abort(&mut world, &mut admin, 1, last);
    assert_eq!(aborted(&mut world, &mut admin), [(0, Status::SUCCESS)]);
    ended(&mut world, &mut io);
    // Another one, of which only the beginning is here.
    let mut command = write(2, 0, 2, 8192);
    let cid = last + 1;
    command.cid.set(cid);
    command.sgl = Sgl::in_capsule(8192);
    let mut bytes = capsule(&command, &[7; 8192], NONE);
    bytes.truncate(100);
    world.send(io.socket, &bytes);
    abort(&mut world, &mut admin, 1, cid);
    assert!(admin.take(&mut world).is_empty(), "its data is still to come");
    world.end(io.socket);
    assert_eq!(aborted(&mut world, &mut admin), [(1, Status::SUCCESS)]);
    world.disk_runs = true;
    world.run();
    assert_eq!(world.shard.ops(), 0);
}
