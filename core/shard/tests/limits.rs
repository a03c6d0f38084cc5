//! What happens at the limits: too many commands, too little memory, rude and slow peers,
//! injected faults, other models of controllers, several shards.

mod support;

use std::time::Duration;

use braid_block::Instant;
use braid_nvme::Status;
use braid_nvme::command::{Command, Sgl, admin, io};
use braid_nvme::connect::{CNTLID_DYNAMIC, CNTLID_STATIC_ANY};
use braid_nvme::pdu::Digests;
use braid_nvme::target::ControllerModel;
use braid_shard::{Effect, Event, Fault, Injection, Mail, Note, Operation, Shard, Socket, Why};
use support::peer::{Got, Peer, capsule, connect, flush, read, write};
use support::{NQN, TestMemory, World, config};

const NONE: Digests = Digests { header: false, data: false };

fn reads(first: u16, count: u16, nsid: u32, blocks: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cid in first..first + count {
        let mut command = read(nsid, 0, blocks, blocks * 4096);
        command.cid.set(cid);
        bytes.extend(capsule(&command, &[], NONE));
    }
    bytes
}

#[test]
fn more_commands_than_the_queue_has_entries_end_the_connection() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    world.send(io.socket, &reads(0, 60, 2, 1));
    assert!(matches!(io.take(&mut world).last(), Some(Got::Term { fes: 2, .. })));
}

#[test]
fn one_connection_pins_an_eighth_of_the_arena_and_the_rest_waits_its_turn() {
    let mut config = config();
    config.limits.arena_bytes = 4 << 20;
    let mut world = World::new(config);
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let (_other_admin, mut other) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    world.send(io.socket, &reads(0, 20, 2, 32));
    assert_eq!(world.pending_disk.len(), 4, "four times 128 KiB are an eighth of 4 MiB");
    world.send(other.socket, &reads(0, 1, 1, 1));
    assert_eq!(other.take(&mut world).len(), 1, "another connection is not held up");
    world.disk_runs = true;
    world.run();
    assert_eq!(io.take(&mut world).len(), 20, "all are answered in the end");
}

#[test]
fn writes_wait_for_a_buffer_before_they_ask_for_data() {
    let mut config = config();
    config.limits.arena_bytes = 1 << 20;
    let mut world = World::new(config);
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    for cid in 0..4 {
        io.post_as(&mut world, cid, write(1, 0, 32, 128 << 10));
    }
    let got = io.take(&mut world);
    assert!(matches!(got.as_slice(), [Got::R2t(_)]), "one buffer, one R2T: {got:?}");
}

#[test]
fn in_capsule_data_finds_a_buffer_even_when_the_arena_is_spent() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    world.mem.limit = world.mem.out + (16 << 10);
    let data = vec![7; 8192];
    for n in 0..8 {
        let completion = io.command(&mut world, write(2, n * 2, 2, 8192), &data);
        assert!(completion.status().is_success());
    }
}

#[test]
fn a_connection_without_buffers_is_refused_and_the_others_go_on() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    world.mem.limit = world.mem.out + (16 << 10);
    let socket = world.connect();
    assert!(world.stream(socket).closed);
    assert_eq!(world.shard.counters().refused, 1);
    assert!(io.read(&mut world, read(1, 0, 1, 4096)).is_ok());
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let mut world = World::new(config());
    for _ in 0..64 {
        let socket = world.connect();
        assert!(!world.stream(socket).closed);
    }
    let socket = world.connect();
    assert!(world.stream(socket).closed);
}

#[test]
fn a_flood_stops_the_stream_and_is_worked_off_in_turns() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    world.piece_bytes = 72;
    let keep_alive = capsule(&Command::new(admin::KEEP_ALIVE, 0), &[], NONE);
    let flood: Vec<u8> = (0..500).flat_map(|_| keep_alive.clone()).collect();
    world.send(admin.socket, &flood);
    assert_eq!(admin.take(&mut world).len(), 500);
    assert!(io.read(&mut world, read(1, 0, 1, 4096)).is_ok());
}

#[test]
fn a_broken_connection_gives_everything_back_at_every_point() {
    for cut in 0..5000 {
        let mut world = World::new(config());
        let (admin, mut io) = Peer::pair(&mut world, NONE);
        let mut command = write(2, 0, 1, 4096);
        command.sgl = Sgl::in_capsule(4096);
        let mut bytes = capsule(&command, &[3; 4096], NONE);
        bytes.extend(reads(1, 4, 2, 1));
        let Some(sent) = bytes.get(..cut * 7) else { break };
        world.disk_runs = false;
        world.send(io.socket, sent);
        io.post_as(&mut world, 77, write(1, 0, 4, 16384));
        world.end(io.socket);
        world.end(admin.socket);
        world.disk_runs = true;
        world.run();
        world.shard.drop_leases(&mut world.mem);
        assert_eq!(world.mem.leases(), 0, "cut after {} bytes", cut * 7);
        assert_eq!((world.shard.connections(), world.shard.ops()), (0, 0));
    }
}

fn inject(operation: Operation, fault: Fault, count: u32) -> Injection {
    Injection { operation, fault, offset: 0, len: 4096, count }
}

#[test]
fn injected_faults_hit_their_range_so_often_and_no_more() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let data = vec![9; 4096];
    assert!(world.shard.set_injections(NQN, 2, &[inject(Operation::Write, Fault::Error, 2)]));
    for _ in 0..2 {
        let status = io.command(&mut world, write(2, 0, 1, 4096), &data).status();
        assert!(status.is(Status::WRITE_FAULT));
    }
    assert!(io.command(&mut world, write(2, 1, 1, 4096), &data).status().is_success());
    assert!(io.command(&mut world, write(2, 0, 1, 4096), &data).status().is_success());
    assert!(world.shard.set_injections(NQN, 2, &[inject(Operation::Read, Fault::Corrupt, 1)]));
    assert_ne!(io.read(&mut world, read(2, 0, 1, 4096)).as_ref(), Ok(&data));
    assert_eq!(io.read(&mut world, read(2, 0, 1, 4096)).as_ref(), Ok(&data));
}

#[test]
fn a_stall_lasts_until_it_is_taken_back_and_a_delay_until_it_is_over() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    world.shard.set_injections(NQN, 2, &[inject(Operation::Read, Fault::Stall, 1)]);
    io.post(&mut world, read(2, 0, 1, 4096), &[]);
    assert!(io.take(&mut world).is_empty());
    world.shard.set_injections(NQN, 2, &[]);
    world.run();
    assert_eq!(io.take(&mut world).len(), 1);
    let delay = Fault::Delay(Duration::from_millis(20));
    world.shard.set_injections(NQN, 2, &[inject(Operation::Read, delay, 1)]);
    io.post(&mut world, read(2, 0, 1, 4096), &[]);
    world.pass(Duration::from_millis(19));
    assert!(io.take(&mut world).is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(io.take(&mut world).len(), 1);
}

#[test]
fn abort_finds_a_command_that_waits_and_says_so() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    world.shard.set_injections(NQN, 2, &[inject(Operation::Read, Fault::Stall, 1)]);
    let cid = io.post(&mut world, read(2, 0, 1, 4096), &[]);
    let mut abort = Command::new(admin::ABORT, 0);
    abort.set_cdw(10, 1 | u32::from(cid) << 16);
    assert_eq!(admin.command(&mut world, abort, &[]).result.get(), 0, "aborted");
    match io.take(&mut world).as_slice() {
        [Got::Completion(c)] => assert!(c.status().is(Status::ABORTED_BY_REQUEST)),
        other => panic!("{other:?}"),
    }
    assert_eq!(admin.command(&mut world, abort, &[]).result.get(), 1, "nothing to abort");
}

#[test]
fn unflushed_writes_are_kept_aside_until_a_flush() {
    let mut config = config();
    config.subsystems[0].namespaces[1].lose_unflushed = true;
    let mut world = World::new(config);
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let data = vec![5; 8192];
    assert!(io.command(&mut world, write(2, 2, 2, 8192), &data).status().is_success());
    assert_eq!(io.read(&mut world, read(2, 2, 2, 8192)).as_ref(), Ok(&data), "read back");
    assert!(world.disk.iter().all(|&byte| byte == 0), "but not on the disk");
    assert!(io.command(&mut world, flush(2), &[]).status().is_success());
    assert_eq!(world.durable[8192..16384], data);
    let mut durable = write(2, 8, 1, 4096);
    durable.set_cdw(12, 1 << 30);
    assert!(io.command(&mut world, durable, &data[..4096]).status().is_success());
    assert_eq!(world.durable[8 * 4096..9 * 4096], data[..4096]);
}

#[test]
fn static_controllers_are_asked_for_by_id_or_any() {
    let mut config = config();
    config.subsystems[0].controllers = ControllerModel::Static;
    let mut world = World::new(config);
    let id = |world: &mut World, cntlid| {
        let completion = Peer::open(world, NONE).connect(world, &connect(0, cntlid));
        (completion.status(), completion.result.get() & 0xffff)
    };
    assert_eq!(id(&mut world, 5), (Status::SUCCESS, 5));
    assert!(id(&mut world, 5).0.is(Status::CONNECT_CONTROLLER_BUSY));
    assert_eq!(id(&mut world, CNTLID_STATIC_ANY), (Status::SUCCESS, 1));
    assert!(id(&mut world, CNTLID_DYNAMIC).0.is(Status::CONNECT_INVALID_PARAMETERS));
    assert!(id(&mut world, 5000).0.is(Status::CONNECT_INVALID_PARAMETERS));
}

#[test]
fn a_connection_goes_to_the_home_shard_of_its_subsystem() {
    let mut config = config();
    config.shards = 2;
    config.subsystems[0].home = 1;
    let mut world = World::new(config.clone());
    config.shard = 1;
    let mut home = Shard::new(config);
    let mut peer = Peer::open(&mut world, NONE);
    let (command, data) = connect(0, CNTLID_DYNAMIC).to_wire();
    world.keep_mail = true;
    peer.post(&mut world, command, zerocopy::IntoBytes::as_bytes(&data));
    let mail = world.mail.pop().expect("a letter to the home shard");
    assert_eq!(world.shard.connections(), 0, "nothing is left behind");
    let Mail::Connection { socket, .. } = &mail;
    assert_eq!(*socket, Socket(peer.socket));
    let mut mem = TestMemory { limit: 64 << 20, ..TestMemory::default() };
    let now = Instant::from_nanos(1);
    home.handle(&mut mem, now, Event::Start { boot_id: [0; 16], seed: 2 });
    home.handle(&mut mem, now, Event::Mail(Box::new(mail)));
    home.end_turn(&mut mem, now);
    let effects: Vec<Effect> = std::iter::from_fn(|| home.poll_effect()).collect();
    assert!(effects.iter().any(|e| matches!(e, Effect::ReceiveStream { .. })), "{effects:?}");
    assert!(effects.iter().any(|e| matches!(e, Effect::Send { .. })), "Connect is answered here");
}

#[test]
fn a_termination_is_waited_for_and_then_forced() {
    let mut world = World::new(config());
    let (_admin, io) = Peer::pair(&mut world, NONE);
    world.send(io.socket, &[8, 0, 24, 0, 24, 0, 0, 0]);
    assert!(world.stream(io.socket).shut && !world.stream(io.socket).closed);
    world.send(io.socket, &[0; 100_000]);
    world.pass(Duration::from_secs(6));
    assert!(world.stream(io.socket).closed);
    let protocol = |n: &Note| matches!(n, Note::Closed { why: Why::Protocol(_), .. });
    assert!(world.notes.iter().any(protocol));
}

#[test]
fn long_work_on_memory_takes_a_share_of_each_turn() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let stall = Injection { len: 4 << 20, ..inject(Operation::Zero, Fault::Stall, u32::MAX) };
    assert!(world.shard.set_injections(NQN, 1, &[stall]));
    for cid in 0..31 {
        let mut zeroes = Command::new(io::WRITE_ZEROES, 1);
        zeroes.set_cdw(12, 63);
        io.post_as(&mut world, cid, zeroes);
    }
    assert!(world.shard.set_injections(NQN, 1, &[]));
    for turn in 1..4 {
        world.shard.end_turn(&mut world.mem, world.now);
        assert_eq!(world.shard.ops(), 31, "in turn {turn}");
    }
    world.run();
    assert_eq!(io.take(&mut world).len(), 31);
}

#[test]
fn what_is_in_flight_to_a_peer_is_bounded() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let before = world.counts.sends;
    world.send(io.socket, &reads(0, 31, 1, 32));
    assert_eq!(io.take(&mut world).len(), 31);
    assert!(world.counts.sends - before >= 4, "4 MiB, of which a peer takes 1 MiB in time");
}

#[test]
fn beside_a_quiet_connection_replies_leave_though_all_else_waits_for_their_buffers() {
    let mut config = config();
    config.limits.arena_bytes = 1 << 20;
    let mut world = World::new(config);
    let (_admin, mut quiet) = Peer::pair(&mut world, NONE);
    let (_other_admin, mut loud) = Peer::pair(&mut world, NONE);
    assert!(quiet.read(&mut world, read(1, 0, 1, 4096)).is_ok());
    world.send(loud.socket, &reads(0, 31, 1, 4));
    assert_eq!(loud.take(&mut world).len(), 31);
}

#[test]
fn one_host_does_not_take_all_connections() {
    let mut config = config();
    config.limits.connections_per_host_max = 3;
    let mut world = World::new(config);
    let (admin, _io) = Peer::pair(&mut world, NONE);
    let second = admin.io(&mut world, 2);
    let mut third = Peer::open(&mut world, NONE);
    let refused = third.connect(&mut world, &connect(3, admin.cntlid));
    assert_eq!(refused.status(), Status::CONNECT_CONTROLLER_BUSY, "it may try again");
    let limit = braid_shard::Limit::HostConnections;
    assert!(world.notes.iter().any(|note| matches!(note, Note::Limit { limit: l } if *l == limit)));
    assert_eq!(world.shard.counters().host_refused, 1);
    let mut other = connect(0, CNTLID_DYNAMIC);
    other.hostid = [8; 16];
    let mut peer = Peer::open(&mut world, NONE);
    assert!(peer.connect(&mut world, &other).status().is_success(), "another host has its own");
    world.end(second.socket);
    world.run();
    let again = third.connect(&mut world, &connect(3, admin.cntlid));
    assert!(again.status().is_success(), "{}", again.status());
}

#[test]
fn a_controller_is_granted_the_queues_that_its_host_may_still_connect() {
    let mut config = config();
    config.limits.connections_per_host_max = 5;
    let mut world = World::new(config);
    let (_first, _io) = Peer::pair(&mut world, NONE);
    let mut second = Peer::admin(&mut world, NONE);
    let mut set = Command::new(admin::SET_FEATURES, 0);
    set.set_cdw(10, 0x07);
    set.set_cdw(11, 0x000f_000f);
    let granted = second.command(&mut world, set, &[]).result.get();
    assert_eq!(granted, 0x0001_0001, "two, 0-based: three connections are there");
    let _queues = [second.io(&mut world, 1), second.io(&mut world, 2)];
}

#[test]
fn one_host_pins_half_of_the_arena_whatever_it_connects() {
    let mut config = config();
    config.limits.arena_bytes = 8 << 20;
    let mut world = World::new(config);
    world.mem.limit = 64 << 20;
    let (admin, io) = Peer::pair(&mut world, NONE);
    let mut queues = vec![io];
    queues.extend((2..=8).map(|qid| admin.io(&mut world, qid)));
    world.disk_runs = false;
    for queue in &queues {
        world.send(queue.socket, &reads(0, 8, 2, 32));
    }
    // 128 KiB each: 8 of a queue would be an eighth of the arena, 64 of all of it.
    assert_eq!(world.counts.reads, 32, "half of the arena");
    assert!(world.shard.counters().host_buffer_waits > 0);
    world.disk_runs = true;
    world.run();
    assert_eq!(world.counts.reads, 64, "and all are done in the end");
}
