//! How connections, commands and controllers end when several things end at once: nothing is
//! said twice or too late, nobody waits for what never comes.

mod support;

use std::time::Duration;

use braid_block::IoError;
use braid_nvme::Status;
use braid_nvme::command::{Command, Sgl, admin, fabrics, io};
use braid_nvme::connect::CNTLID_DYNAMIC;
use braid_nvme::pdu::{Digests, InitializeConnection, PduType};
use support::peer::{Got, Peer, capsule, connect, flush, read, write};
use support::{World, config};
use zerocopy::IntoBytes;

const NONE: Digests = Digests { header: false, data: false };
/// A PDU of a type that there is not.
const MALFORMED: [u8; 8] = [8, 0, 24, 0, 24, 0, 0, 0];

fn reads(count: u16, nsid: u32, blocks: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cid in 0..count {
        let mut command = read(nsid, 0, blocks, blocks * 4096);
        command.cid.set(cid);
        bytes.extend(capsule(&command, &[], NONE));
    }
    bytes
}

fn write_zeroes(nsid: u32, blocks: u32) -> Command {
    let mut zeroes = Command::new(io::WRITE_ZEROES, nsid);
    zeroes.set_cdw(12, blocks - 1);
    zeroes
}

#[test]
fn our_end_closes_after_a_host_overran_its_queue() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    world.send(io.socket, &reads(60, 2, 1));
    assert!(matches!(io.take(&mut world).last(), Some(Got::Term { fes: 2, .. })));
    world.disk_runs = true;
    world.run();
    assert!(world.stream(io.socket).shut, "nothing is in work any more");
}

#[test]
fn a_termination_request_finds_room_and_is_the_last_thing_said() {
    // With 31 replies waiting behind a batch in flight, and with a batch that is full as well.
    for more in [8, 40] {
        let mut world = World::new(config());
        let (_admin, mut io) = Peer::pair(&mut world, NONE);
        world.stream(io.socket).stalled = true;
        world.send(io.socket, &reads(31 + more, 1, 1));
        world.send(io.socket, &reads(more, 1, 1));
        world.send(io.socket, &MALFORMED);
        world.stream(io.socket).stalled = false;
        world.run();
        let got = io.take(&mut world);
        assert!(matches!(got.last(), Some(Got::Term { fes: 1, .. })), "{:?}", got.last());
        assert!(world.stream(io.socket).shut);
    }
}

#[test]
fn a_command_in_want_of_a_buffer_does_not_outlive_its_connection() {
    let mut world = World::new(config());
    world.zero_supported = false;
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    io.post(&mut world, write_zeroes(2, 1), &[]);
    world.end(io.socket);
    world.end(admin.socket);
    world.disk_runs = true;
    world.run();
    assert_eq!(world.shard.ops(), 0);
    let completion = Peer::open(&mut world, NONE).connect(&mut world, &connect(0, CNTLID_DYNAMIC));
    assert!(completion.status().is_success(), "the host may come back");
}

/// A Write Zeroes of two blocks whose zeros are written, and what came of it.
fn zeros_written(result: Result<u32, IoError>) -> Status {
    let mut world = World::new(config());
    world.zero_supported = false;
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    io.post(&mut world, write_zeroes(2, 2), &[]);
    let (token, unsupported) = world.pending_disk.pop_front().unwrap();
    world.event(braid_shard::Event::Done { token, result: unsupported });
    world.run();
    world.pending_disk[0].1 = result;
    world.disk_runs = true;
    world.run();
    assert_eq!(world.counts.writes, 1);
    match io.take(&mut world).as_slice() {
        [Got::Completion(completion)] => completion.status(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn zeros_that_could_not_be_written_are_an_error() {
    assert_eq!(zeros_written(Ok(8192)), Status::SUCCESS);
    assert_eq!(zeros_written(Ok(4096)), Status::WRITE_FAULT.more());
    assert_eq!(zeros_written(Err(IoError::Unsupported)), Status::WRITE_FAULT.more());
}

#[test]
fn a_connect_that_was_put_off_is_not_answered_after_a_stop() {
    let mut world = World::new(config());
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    io.post(&mut world, write(2, 0, 1, 4096), &[7; 4096]);
    world.end(io.socket);
    world.end(admin.socket);
    let mut again = Peer::open(&mut world, NONE);
    let (command, data) = connect(0, CNTLID_DYNAMIC).to_wire();
    again.post(&mut world, command, data.as_bytes());
    world.shard.stop(&mut world.mem, world.now);
    world.run();
    assert!(world.stream(again.socket).shut);
    world.disk_runs = true;
    world.run();
    assert!(again.take(&mut world).is_empty(), "our end is closed");
    assert_eq!(world.shard.controllers().count(), 0);
}

#[test]
fn a_keep_alive_time_out_set_later_counts() {
    let mut world = World::new(config());
    let mut peer = Peer::open(&mut world, NONE);
    let mut without = connect(0, CNTLID_DYNAMIC);
    without.kato = Duration::ZERO;
    assert!(peer.connect(&mut world, &without).status().is_success());
    let enable = enable();
    assert!(peer.command(&mut world, enable, &[]).status().is_success());
    world.pass(Duration::from_secs(600));
    assert!(!world.stream(peer.socket).closed);
    let mut set = Command::new(admin::SET_FEATURES, 0);
    set.set_cdw(10, 0x0f);
    set.set_cdw(11, 2000);
    assert!(peer.command(&mut world, set, &[]).status().is_success());
    world.pass(Duration::from_secs(10));
    assert!(world.stream(peer.socket).closed);
}

fn enable() -> Command {
    let mut enable = Command::new(admin::FABRICS, 0);
    enable.set_cdw(11, 0x14);
    enable.set_cdw(12, 0x46_0001);
    enable
}

/// A controller of a host of its own, with one I/O queue.
fn pair_of(world: &mut World, host: u8) -> (Peer, Peer) {
    let mut admin = Peer::open(world, NONE);
    let mut asked = connect(0, CNTLID_DYNAMIC);
    asked.hostid = [host; 16];
    let completion = admin.connect(world, &asked);
    assert!(completion.status().is_success());
    admin.cntlid = (completion.result.get() & 0xffff) as u16;
    admin.enable(world);
    let mut io = Peer::open(world, NONE);
    let mut asked = connect(1, admin.cntlid);
    asked.hostid = [host; 16];
    assert!(io.connect(world, &asked).status().is_success());
    (admin, io)
}

#[test]
fn greetings_that_break_off_do_not_free_what_commands_hold() {
    let mut config = config();
    config.limits.arena_bytes = 2 << 20;
    let mut world = World::new(config);
    world.mem.limit = 64 << 20;
    let pairs: Vec<_> = (1..8).map(|host| pair_of(&mut world, host)).collect();
    world.disk_runs = false;
    for (_, io) in &pairs {
        world.send(io.socket, &reads(2, 2, 32));
    }
    let most = "three quarters of what 14 connections and receive buffers leave of 2 MiB";
    assert_eq!(world.pending_disk.len(), 8, "{most}");
    let (command, data) = connect(0, CNTLID_DYNAMIC).to_wire();
    let bytes = capsule(&Command { sgl: Sgl::in_capsule(1024), ..command }, data.as_bytes(), NONE);
    for _ in 0..16 {
        let rude = world.connect();
        let request = InitializeConnection::new(PduType::IcReq, NONE, 0);
        world.send(rude, request.as_bytes());
        world.send(rude, &bytes[..100]);
        world.end(rude);
    }
    assert_eq!(world.pending_disk.len(), 8);
}

#[test]
fn a_connection_gets_its_own_buffer_back_whatever_others_hold() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let (mut slow, _) = Peer::pair(&mut world, NONE);
    // Room for what arrives, and for no command: one of the admin commands' buffers is used.
    world.mem.limit = world.mem.out + (16 << 10);
    world.stream(slow.socket).stalled = true;
    let mut identify = Command::new(admin::IDENTIFY, 0);
    identify.set_cdw(10, 1);
    identify.sgl = Sgl::transport(4096);
    slow.post(&mut world, identify, &[]);
    for n in 0..4 {
        let completion = io.command(&mut world, write(2, n * 2, 2, 8192), &[7; 8192]);
        assert!(completion.status().is_success());
    }
}

#[test]
fn a_keep_alive_is_answered_while_every_command_waits_for_the_disk() {
    let mut config = config();
    config.limits.ops_max = 64;
    let mut world = World::new(config);
    let mut admin = Peer::admin(&mut world, NONE);
    let queues = [1, 2, 3].map(|qid| admin.io(&mut world, qid));
    world.disk_runs = false;
    for queue in &queues {
        world.send(queue.socket, &reads(32, 2, 1));
    }
    let keep_alive = Command::new(admin::KEEP_ALIVE, 0);
    assert!(admin.command(&mut world, keep_alive, &[]).status().is_success());
    world.disk_runs = true;
    world.run();
    for mut queue in queues {
        assert_eq!(queue.take(&mut world).len(), 32);
    }
}

#[test]
fn a_refused_admin_command_is_no_error_of_a_namespace() {
    let mut world = World::new(config());
    let (mut admin, _io) = Peer::pair(&mut world, NONE);
    let mut identify = Command::new(admin::IDENTIFY, 0);
    identify.set_cdw(10, 0xff);
    identify.sgl = Sgl::transport(4096);
    assert!(admin.read(&mut world, identify).is_err());
    assert!(world.shard.namespace_counters().all(|(_, _, counters)| counters.errors == 0));
}

#[test]
fn a_stop_closes_no_queue_of_a_controller_before_all_are_done() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    let mut idle = admin.io(&mut world, 2);
    world.disk_runs = false;
    io.post(&mut world, read(2, 0, 1, 4096), &[]);
    world.shard.stop(&mut world.mem, world.now);
    world.run();
    for peer in [&mut admin, &mut idle] {
        // A host that sees one queue end gives up what it waits for on the others.
        assert!(!world.stream(peer.socket).shut);
    }
    world.disk_runs = true;
    world.run();
    assert!(matches!(io.take(&mut world).as_slice(), [Got::Data { .. }]));
    for peer in [&mut admin, &mut idle, &mut io] {
        assert!(world.stream(peer.socket).shut);
    }
}

#[test]
fn a_stop_does_not_wait_for_a_queue_that_its_host_closed() {
    let mut world = World::new(config());
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    io.post(&mut world, read(2, 0, 1, 4096), &[]);
    world.shard.stop(&mut world.mem, world.now);
    world.end(io.socket);
    assert!(world.stream(admin.socket).shut);
}

#[test]
fn a_reply_leaves_though_its_connection_waits_for_the_disk() {
    let mut config = config();
    config.limits.ops_max = 64;
    let mut world = World::new(config);
    let admin = Peer::admin(&mut world, NONE);
    let [first, second, mut third] = [1, 2, 3].map(|qid| admin.io(&mut world, qid));
    world.disk_runs = false;
    world.send(first.socket, &reads(32, 2, 1));
    world.send(second.socket, &reads(22, 2, 1));
    // A quiet connection: beside it, a busy one collects its replies while it has more to do.
    world.send(second.socket, &reads(1, 2, 1));
    world.send(third.socket, &[reads(1, 1, 1), reads(2, 2, 1)].concat());
    assert_eq!(world.pending_disk.len(), 56, "one read waits for an entry");
    assert!(matches!(third.take(&mut world).as_slice(), [Got::Data { .. }]));
}

#[test]
fn a_queue_that_returns_waits_for_its_own_old_writes() {
    let mut world = World::new(config());
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    io.post(&mut world, write(2, 0, 1, 4096), &[7; 4096]);
    world.end(io.socket);
    let mut again = Peer::open(&mut world, NONE);
    let refused = again.connect(&mut world, &connect(1, admin.cntlid)).status();
    assert_eq!(refused, Status::SEQUENCE_ERROR, "not now, and without DNR");
    world.disk_runs = true;
    world.run();
    assert!(again.connect(&mut world, &connect(1, admin.cntlid)).status().is_success());
}

/// Writes a block to the disk by this queue, not durable.
fn wrote(world: &mut World, io: &mut Peer) {
    let done = io.command(world, write(2, 0, 1, 4096), &[7; 4096]);
    assert!(done.status().is_success());
    assert_ne!(world.durable[..4096], [7; 4096]);
}

#[test]
fn turning_the_write_cache_off_makes_durable_what_was_completed_before() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    wrote(&mut world, &mut io);
    let mut off = Command::new(admin::SET_FEATURES, 0);
    off.set_cdw(10, 0x06);
    world.disk_runs = false;
    admin.post(&mut world, off, &[]);
    assert!(admin.take(&mut world).is_empty(), "it is answered when all is flushed");
    world.disk_runs = true;
    world.run();
    assert_eq!(world.durable[..4096], [7; 4096]);
    match admin.take(&mut world).as_slice() {
        [Got::Completion(completion)] => assert!(completion.status().is_success()),
        other => panic!("{other:?}"),
    }
    let syncs = world.counts.syncs;
    assert!(admin.command(&mut world, off, &[]).status().is_success());
    assert_eq!(world.counts.syncs, syncs, "it is off already");
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn the_write_cache_that_cannot_be_flushed_is_not_off_without_a_word() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    wrote(&mut world, &mut io);
    let mut off = Command::new(admin::SET_FEATURES, 0);
    off.set_cdw(10, 0x06);
    world.disk_error = Some(IoError::Device);
    let status = admin.command(&mut world, off, &[]).status();
    assert!(status.is(Status::WRITE_FAULT) && status.do_not_retry(), "{status}");
}

/// CSTS of the controller.
fn csts(world: &mut World, admin: &mut Peer) -> u64 {
    let mut get = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_GET));
    get.set_cdw(11, 0x1c);
    admin.command(world, get, &[]).result.get()
}

#[test]
fn a_shutdown_whose_flush_failed_is_not_complete() {
    let mut shutdown = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
    shutdown.set_cdw(11, 0x14);
    shutdown.set_cdw(12, 0x46_4001);
    for (error, expected) in [(None, 0b1001), (Some(IoError::Device), 0b10)] {
        let mut world = World::new(config());
        let (mut admin, mut io) = Peer::pair(&mut world, NONE);
        wrote(&mut world, &mut io);
        world.disk_error = error;
        assert!(admin.command(&mut world, shutdown, &[]).status().is_success());
        assert_eq!(csts(&mut world, &mut admin), expected, "{error:?}");
    }
}

#[test]
fn a_flush_that_failed_is_told_to_who_asked_for_critical_warnings() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    admin.enable_events(&mut world, 1 << 2);
    let request = admin.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    wrote(&mut world, &mut io);
    world.disk_error = Some(IoError::Device);
    assert!(!io.command(&mut world, flush(2), &[]).status().is_success());
    world.run();
    let [Got::Completion(event)] = admin.take(&mut world)[..] else { panic!("no event") };
    assert_eq!((event.cid.get(), event.result.get()), (request, 0x02_00_01), "health, of log 02h");
    let warned = |world: &mut World, admin: &mut Peer, nsid| {
        let mut log = Command::new(admin::GET_LOG_PAGE, nsid);
        log.set_cdw(10, 127 << 16 | 0x02);
        log.sgl = Sgl::transport(512);
        admin.read(world, log).unwrap()[0]
    };
    assert_eq!(warned(&mut world, &mut admin, u32::MAX), 1 << 2);
    assert_eq!(warned(&mut world, &mut admin, 2), 1 << 2);
    assert_eq!(warned(&mut world, &mut admin, 1), 0, "of a namespace that is well");
}

#[test]
fn a_keep_alive_time_out_that_is_made_shorter_counts_at_once() {
    let mut world = World::new(config());
    let mut admin = Peer::admin(&mut world, NONE);
    let kato = |milliseconds| {
        let mut set = Command::new(admin::SET_FEATURES, 0);
        set.set_cdw(10, 0x0f);
        set.set_cdw(11, milliseconds);
        set
    };
    assert!(admin.command(&mut world, kato(600_000), &[]).status().is_success());
    world.pass(Duration::from_secs(20));
    for _ in 0..100 {
        assert!(admin.command(&mut world, kato(600_000), &[]).status().is_success());
        assert!(admin.command(&mut world, kato(1_000), &[]).status().is_success());
    }
    let reminders = world.shard.reminders();
    assert!(reminders < 10, "{reminders} reminders");
    world.pass(Duration::from_millis(1_400));
    assert!(!world.stream(admin.socket).closed);
    world.pass(Duration::from_millis(200));
    assert!(world.stream(admin.socket).closed, "one second, and half of one of grace");
}

#[test]
fn connections_that_come_and_go_fast_leave_no_reminders() {
    let mut world = World::new(config());
    for _ in 0..2_000 {
        let socket = world.connect();
        world.end(socket);
    }
    let reminders = world.shard.reminders();
    assert!(reminders < 400, "{reminders} reminders of nobody");
    assert_eq!(world.shard.connections(), 0);
}
