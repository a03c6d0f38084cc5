//! The target path as a host sees it: every digest setting, every split, every backend.

mod support;

use std::time::Duration;

use braid_block::IoError;
use braid_nvme::Status;
use braid_nvme::command::{Command, Sgl, admin, fabrics, io};
use braid_nvme::connect::{CNTLID_DYNAMIC, Nqn};
use braid_nvme::pdu::Digests;
use braid_shard::{ControllerInfo, Note, Why};
use support::peer::{Got, Peer, capsule, connect, flush, h2c, read, write};
use support::{World, config};

const NONE: Digests = Digests { header: false, data: false };
const ALL: [Digests; 4] = [
    NONE,
    Digests { header: true, data: false },
    Digests { header: false, data: true },
    Digests { header: true, data: true },
];

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8 ^ seed).collect()
}

#[test]
fn what_is_written_is_read_with_every_digest_setting_and_size() {
    for digests in ALL {
        let mut world = World::new(config());
        let (_admin, mut io) = Peer::pair(&mut world, digests);
        for nsid in [1, 2] {
            for (blocks, slba) in [(1, 0), (2, 3), (3, 9), (32, 64)] {
                let data = pattern(blocks * 4096, nsid as u8 + blocks as u8);
                let len = data.len() as u32;
                let command = write(nsid, slba, blocks as u32, len);
                let completion = if data.len() <= 8192 {
                    io.command(&mut world, command, &data)
                } else {
                    io.write_by_r2t(&mut world, command, &data, 20_000)
                };
                assert!(completion.status().is_success(), "{:?}", completion.status());
                let got = io.read(&mut world, read(nsid, slba, blocks as u32, len)).unwrap();
                assert!(got == data, "namespace {nsid}, {blocks} blocks, {digests:?}");
            }
        }
    }
}

#[test]
fn a_stream_split_at_every_byte_means_the_same() {
    let digests = Digests { header: true, data: true };
    let data = pattern(4096, 1);
    let mut command = write(1, 5, 1, 4096);
    command.cid.set(100);
    command.sgl = Sgl::in_capsule(4096);
    let mut bytes = capsule(&command, &data, digests);
    let mut read_back = read(1, 5, 1, 4096);
    read_back.cid.set(101);
    bytes.extend(capsule(&read_back, &[], digests));
    for split in 1..bytes.len() {
        let mut world = World::new(config());
        let (_admin, mut io) = Peer::pair(&mut world, digests);
        world.send(io.socket, &bytes[..split]);
        world.send(io.socket, &bytes[split..]);
        let got = io.take(&mut world);
        let [Got::Completion(written), Got::Data { bytes: read, pdu }] = got.as_slice() else {
            panic!("split at {split}: {got:?}");
        };
        assert!(written.status().is_success() && pdu.success && *read == data, "at {split}");
    }
}

#[test]
fn a_stream_of_single_bytes_means_the_same() {
    let mut world = World::new(config());
    world.piece_bytes = 1;
    let (_admin, mut io) = Peer::pair(&mut world, ALL[3]);
    let data = pattern(16384, 3);
    let completion = io.write_by_r2t(&mut world, write(2, 1, 4, 16384), &data, 5000);
    assert!(completion.status().is_success());
    assert_eq!(io.read(&mut world, read(2, 1, 4, 16384)), Ok(data));
}

#[test]
fn the_response_is_left_out_only_without_flow_control() {
    let mut world = World::new(config());
    let mut admin = Peer::admin(&mut world, NONE);
    let mut io = Peer::open(&mut world, NONE);
    let cntlid = admin.cntlid;
    let mut with_flow_control = connect(1, cntlid);
    with_flow_control.flow_control = true;
    assert_eq!(io.connect(&mut world, &with_flow_control).sqhd.get(), 0);
    io.post(&mut world, read(1, 0, 1, 4096), &[]);
    let got = io.take(&mut world);
    let [Got::Data { pdu, .. }, Got::Completion(completion)] = got.as_slice() else {
        panic!("{got:?}");
    };
    assert!(pdu.last && !pdu.success);
    assert_eq!(completion.sqhd.get(), 1);
    assert!(
        admin.command(&mut world, Command::new(admin::KEEP_ALIVE, 0), &[]).status().is_success()
    );
}

#[test]
fn a_wrong_data_digest_fails_that_command_alone() {
    let mut world = World::new(config());
    let digests = Digests { header: false, data: true };
    let (_admin, mut io) = Peer::pair(&mut world, digests);
    let data = pattern(4096, 9);
    let mut command = write(2, 0, 1, 4096);
    command.cid.set(50);
    command.sgl = Sgl::in_capsule(4096);
    let mut bytes = capsule(&command, &data, digests);
    *bytes.last_mut().unwrap() ^= 1;
    world.send(io.socket, &bytes);
    match io.take(&mut world).as_slice() {
        [Got::Completion(c)] => assert!(c.status().is(Status::TRANSIENT_TRANSPORT)),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.counts.writes, 0, "what came damaged is not written");
    assert!(io.command(&mut world, write(2, 0, 1, 4096), &data).status().is_success());
}

#[test]
fn a_flush_reaches_the_device_after_the_writes_it_covers() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let data = pattern(4096, 4);
    assert!(io.command(&mut world, write(2, 0, 1, 4096), &data).status().is_success());
    assert_ne!(world.durable[..4096], data);
    assert!(io.command(&mut world, flush(2), &[]).status().is_success());
    assert_eq!(world.durable[..4096], data);
    let mut fua = write(2, 1, 1, 4096);
    fua.set_cdw(12, 1 << 30);
    assert!(io.command(&mut world, fua, &data).status().is_success());
    assert_eq!(world.durable[4096..8192], data);
}

#[test]
fn each_command_costs_exactly_its_device_operations() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let data = pattern(4096, 4);
    let before = world.counts;
    let copies = world.mem.copies;
    for n in 0..10 {
        assert!(io.command(&mut world, write(2, n, 1, 4096), &data).status().is_success());
    }
    assert_eq!(world.mem.copies - copies, 10, "one copy of each payload");
    for n in 0..10 {
        assert_eq!(io.read(&mut world, read(2, n, 1, 4096)).as_ref(), Ok(&data));
    }
    assert_eq!(world.mem.copies - copies, 10, "no copy for a read");
    assert!(io.command(&mut world, flush(2), &[]).status().is_success());
    assert_eq!(world.counts.writes - before.writes, 10);
    assert_eq!(world.counts.reads - before.reads, 10);
    assert_eq!(world.counts.syncs - before.syncs, 1);
    assert_eq!(world.mem.crc_passes.get(), 0, "no digest, no pass over the payload");
}

#[test]
fn with_data_digests_each_payload_is_summed_once() {
    let mut world = World::new(config());
    let digests = Digests { header: true, data: true };
    let (_admin, mut io) = Peer::pair(&mut world, digests);
    let data = pattern(4096, 4);
    let before = world.mem.crc_passes.get();
    assert!(io.command(&mut world, write(2, 0, 1, 4096), &data).status().is_success());
    assert_eq!(world.mem.crc_passes.get() - before, 1);
    io.read(&mut world, read(2, 0, 1, 4096)).unwrap();
    assert_eq!(world.mem.crc_passes.get() - before, 2);
}

#[test]
fn thirty_two_commands_in_one_piece_are_answered_by_one_send() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let mut bytes = Vec::new();
    for cid in 0..31 {
        let mut command = read(1, u64::from(cid), 1, 4096);
        command.cid.set(1000 + cid);
        bytes.extend(capsule(&command, &[], NONE));
    }
    let before = world.counts.sends;
    world.send(io.socket, &bytes);
    assert_eq!(io.take(&mut world).len(), 31);
    assert_eq!(world.counts.sends - before, 1);
}

#[test]
fn media_errors_become_their_status() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let data = pattern(4096, 4);
    world.disk_error = Some(IoError::Media);
    assert!(io.read(&mut world, read(2, 0, 1, 4096)).unwrap_err().is(Status::UNRECOVERED_READ));
    world.disk_error = Some(IoError::Device);
    let status = io.command(&mut world, write(2, 0, 1, 4096), &data).status();
    assert!(status.is(Status::WRITE_FAULT));
    world.disk_error = Some(IoError::NoSpace);
    let status = io.command(&mut world, write(2, 0, 1, 4096), &data).status();
    assert!(status.is(Status::CAPACITY_EXCEEDED) && status.do_not_retry());
    world.disk_error = Some(IoError::Device);
    let status = io.command(&mut world, flush(2), &[]).status();
    assert!(status.is(Status::WRITE_FAULT) && status.do_not_retry());
}

#[test]
fn write_zeroes_and_deallocate_read_as_zeros() {
    for supported in [true, false] {
        for nsid in [1, 2, 3] {
            let mut world = World::new(config());
            world.zero_supported = supported;
            let (_admin, mut io) = Peer::pair(&mut world, NONE);
            let block = if nsid == 3 { 512 } else { 4096 };
            let blocks = 64 * 1024 / block;
            let data = pattern(64 << 10, 7);
            let fill = write(nsid, 0, blocks, 64 << 10);
            assert!(io.write_by_r2t(&mut world, fill, &data, 70_000).status().is_success());
            let mut zeroes = Command::new(io::WRITE_ZEROES, nsid);
            zeroes.set_cdw(10, 1);
            zeroes.set_cdw(12, 1 | 1 << 30);
            assert!(io.command(&mut world, zeroes, &[]).status().is_success());
            let mut expected = data.clone();
            expected[block as usize..3 * block as usize].fill(0);
            assert_eq!(io.read(&mut world, read(nsid, 0, blocks, 64 << 10)), Ok(expected.clone()));
            let mut ranges = vec![0; 4096];
            ranges[4..8].copy_from_slice(&2u32.to_le_bytes());
            ranges[8..16].copy_from_slice(&4u64.to_le_bytes());
            ranges[20..24].copy_from_slice(&1u32.to_le_bytes());
            ranges[24..32].copy_from_slice(&8u64.to_le_bytes());
            let mut dsm = Command::new(io::DATASET_MANAGEMENT, nsid);
            dsm.set_cdw(10, 1);
            dsm.set_cdw(11, 1 << 2);
            assert!(io.command(&mut world, dsm, &ranges).status().is_success());
            expected[4 * block as usize..6 * block as usize].fill(0);
            expected[8 * block as usize..9 * block as usize].fill(0);
            assert_eq!(io.read(&mut world, read(nsid, 0, blocks, 64 << 10)), Ok(expected));
        }
    }
}

#[test]
fn a_host_that_is_not_listed_is_refused_and_may_not_try_again() {
    let mut config = config();
    config.subsystems[0].allowed_hosts = vec!["nqn.2014-08.org.nvmexpress:uuid:other".into()];
    let mut world = World::new(config);
    let mut peer = Peer::open(&mut world, NONE);
    let completion = peer.connect(&mut world, &connect(0, CNTLID_DYNAMIC));
    assert!(completion.status().is(Status::CONNECT_INVALID_HOST));
    assert!(completion.status().do_not_retry());
}

#[test]
fn another_host_cannot_attach_a_queue() {
    let mut world = World::new(config());
    let admin = Peer::admin(&mut world, NONE);
    let mut thief = Peer::open(&mut world, NONE);
    let mut stolen = connect(1, admin.cntlid);
    stolen.hostnqn = Nqn::parse("nqn.2014-08.org.nvmexpress:uuid:thief").unwrap();
    let completion = thief.connect(&mut world, &stolen);
    assert!(completion.status().is(Status::CONNECT_INVALID_PARAMETERS));
    assert_eq!(completion.result.get(), 16 | 1 << 16);
}

#[test]
fn a_command_before_connect_is_a_sequence_error() {
    let mut world = World::new(config());
    let mut peer = Peer::open(&mut world, NONE);
    let status = peer.command(&mut world, read(1, 0, 1, 4096), &[]).status();
    assert!(status.is(Status::SEQUENCE_ERROR));
    let completion = peer.connect(&mut world, &connect(0, CNTLID_DYNAMIC));
    assert!(completion.status().is_success(), "Connect may still come");
}

#[test]
fn a_silent_host_loses_its_controller() {
    let mut world = World::new(config());
    let (mut admin, io) = Peer::pair(&mut world, NONE);
    for _ in 0..4 {
        world.pass(Duration::from_secs(4));
        let keep_alive = Command::new(admin::KEEP_ALIVE, 0);
        assert!(admin.command(&mut world, keep_alive, &[]).status().is_success());
    }
    world.pass(Duration::from_secs(7));
    assert!(world.stream(admin.socket).closed && world.stream(io.socket).closed);
    assert_eq!(world.shard.controllers().count(), 0);
    let expired = |n: &Note| matches!(n, Note::ControllerGone { why: Why::KeepAlive, .. });
    assert!(world.notes.iter().any(expired));
}

#[test]
fn a_connection_that_never_greets_is_closed() {
    let mut world = World::new(config());
    let socket = world.connect();
    world.pass(Duration::from_secs(9));
    assert!(!world.stream(socket).closed);
    world.pass(Duration::from_secs(2));
    assert!(world.stream(socket).closed);
    assert_eq!(world.shard.connections(), 0);
}

#[test]
fn a_peer_that_takes_nothing_is_closed_and_others_are_unharmed() {
    let mut world = World::new(config());
    let (_slow_admin, slow) = Peer::pair(&mut world, NONE);
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    world.stream(slow.socket).stalled = true;
    let mut bytes = Vec::new();
    for cid in 0..31 {
        let mut command = read(1, u64::from(cid), 1, 4096);
        command.cid.set(cid);
        bytes.extend(capsule(&command, &[], NONE));
    }
    world.send(slow.socket, &bytes);
    world.pass(Duration::from_secs(3));
    assert!(io.read(&mut world, read(1, 0, 1, 4096)).is_ok());
    world.pass(Duration::from_secs(5));
    assert!(world.stream(slow.socket).closed);
}

#[test]
fn a_stop_finishes_what_is_in_work_and_closes_in_order() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    world.disk_runs = false;
    io.post(&mut world, read(2, 0, 1, 4096), &[]);
    world.shard.stop(&mut world.mem, world.now);
    world.run();
    assert!(!world.stream(io.socket).shut, "a command is still in work");
    world.disk_runs = true;
    world.run();
    assert!(matches!(io.take(&mut world).as_slice(), [Got::Data { .. }]));
    let sockets: Vec<u32> = world.streams.keys().copied().collect();
    for socket in sockets {
        assert!(world.stream(socket).shut);
        world.end(socket);
    }
    assert!(world.notes.iter().any(|note| matches!(note, Note::Drained)));
    world.shard.drop_leases(&mut world.mem);
    assert_eq!(world.mem.leases(), 0, "every lease came home");
}

#[test]
fn a_host_that_returns_waits_for_its_own_old_writes() {
    let mut world = World::new(config());
    let (admin, mut io) = Peer::pair(&mut world, NONE);
    let old = pattern(4096, 1);
    world.disk_runs = false;
    io.post(&mut world, write(2, 0, 1, 4096), &old);
    world.end(io.socket);
    world.end(admin.socket);
    let mut again = Peer::open(&mut world, NONE);
    let (command, data) = connect(0, CNTLID_DYNAMIC).to_wire();
    again.post(&mut world, command, zerocopy::IntoBytes::as_bytes(&data));
    assert!(again.take(&mut world).is_empty(), "the old write is still in the device");
    world.disk_runs = true;
    world.run();
    assert!(matches!(again.take(&mut world).as_slice(), [Got::Completion(_)]));
}

#[test]
fn a_reset_closes_the_io_queues_and_lets_the_host_begin_again() {
    let mut world = World::new(config());
    let (mut admin, io) = Peer::pair(&mut world, NONE);
    let mut disable = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
    disable.set_cdw(11, 0x14);
    disable.set_cdw(12, 0x46_0000);
    assert!(admin.command(&mut world, disable, &[]).status().is_success());
    assert!(world.stream(io.socket).closed);
    let mut status = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_GET));
    status.set_cdw(11, 0x1c);
    assert_eq!(admin.command(&mut world, status, &[]).result.get() & 1, 0);
}

#[test]
fn a_shutdown_flushes_before_it_says_that_it_is_done() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    let data = pattern(4096, 6);
    assert!(io.command(&mut world, write(2, 0, 1, 4096), &data).status().is_success());
    world.disk_runs = false;
    let mut shutdown = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
    shutdown.set_cdw(11, 0x14);
    shutdown.set_cdw(12, 0x46_4001);
    assert!(admin.command(&mut world, shutdown, &[]).status().is_success());
    let mut status = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_GET));
    status.set_cdw(11, 0x1c);
    assert_eq!(admin.command(&mut world, status, &[]).result.get() >> 2 & 3, 1);
    world.disk_runs = true;
    world.run();
    assert_eq!(admin.command(&mut world, status, &[]).result.get() >> 2 & 3, 2);
    assert_eq!(world.durable[..4096], data);
}

#[test]
fn data_for_a_transfer_that_was_not_asked_for_ends_the_connection() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    io.post(&mut world, write(1, 0, 4, 16384), &[]);
    let got = io.take(&mut world);
    let [Got::R2t(r2t)] = got.as_slice() else { panic!("{got:?}") };
    let mut wrong = *r2t;
    wrong.cid ^= 1;
    world.send(io.socket, &h2c(&wrong, 0, &[0; 16384], true, NONE));
    assert!(matches!(io.take(&mut world).as_slice(), [Got::Term { fes: 2, .. }]));
    assert!(world.stream(io.socket).shut);
}

#[test]
fn controllers_are_listed_with_their_hosts() {
    let mut world = World::new(config());
    let (_admin, _io) = Peer::pair(&mut world, NONE);
    let listed: Vec<ControllerInfo<'_>> = world.shard.controllers().collect();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].subnqn, listed[0].hostnqn, listed[0].io_queues),
        (support::NQN, support::HOST, 1)
    );
}

#[test]
fn discovery_names_the_address_that_the_host_came_by() {
    let mut config = config();
    config.portals[0].address = "0.0.0.0:4420".parse().unwrap();
    let mut world = World::new(config);
    world.local = Some("192.0.2.7:4420".parse().unwrap());
    let mut peer = Peer::open(&mut world, NONE);
    let mut discovery = connect(0, CNTLID_DYNAMIC);
    discovery.subnqn = Nqn::parse(braid_nvme::DISCOVERY_NQN).unwrap();
    assert!(peer.connect(&mut world, &discovery).status().is_success());
    let mut enable = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
    enable.set_cdw(11, 0x14);
    enable.set_cdw(12, 0x46_0001);
    assert!(peer.command(&mut world, enable, &[]).status().is_success());
    let mut log = Command::new(admin::GET_LOG_PAGE, 0);
    log.set_cdw(10, 0x70 | 1023 << 16);
    log.sgl = Sgl::transport(4096);
    let data = peer.read(&mut world, log).unwrap();
    assert_eq!(
        u64::from_le_bytes(data[8..16].try_into().unwrap()),
        2,
        "the subsystem and discovery"
    );
    assert_eq!(&data[1024 + 512..1024 + 522], b"192.0.2.7 ");
}

#[test]
fn a_stop_waits_for_the_data_of_a_write_and_takes_no_new_command() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    io.post(&mut world, write(2, 0, 4, 16384), &[]);
    let got = io.take(&mut world);
    let [Got::R2t(r2t)] = got.as_slice() else { panic!("{got:?}") };
    world.shard.stop(&mut world.mem, world.now);
    world.run();
    let data = pattern(16384, 8);
    io.post(&mut world, write(2, 8, 1, 4096), &data[..4096]);
    assert!(io.take(&mut world).is_empty(), "a command that came after the stop is not taken");
    assert!(!world.stream(io.socket).shut);
    world.send(io.socket, &h2c(r2t, 0, &data, true, NONE));
    match io.take(&mut world).as_slice() {
        [Got::Completion(c)] => assert!(c.status().is_success()),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.disk[..16384], data);
    assert!(world.disk[8 * 4096..9 * 4096].iter().all(|&byte| byte == 0));
    assert!(world.stream(io.socket).shut);
}

#[test]
fn a_stop_waits_no_longer_than_its_deadline() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    io.post(&mut world, write(2, 0, 4, 16384), &[]);
    world.shard.stop(&mut world.mem, world.now);
    world.run();
    world.pass(Duration::from_secs(11));
    assert!(world.stream(io.socket).closed);
    assert!(world.notes.iter().any(|note| matches!(note, Note::Drained)));
    world.shard.drop_leases(&mut world.mem);
    assert_eq!(world.mem.leases(), 0);
}

#[test]
fn a_refused_icreq_is_copied_into_the_termination_request() {
    let mut world = World::new(config());
    let peer = Peer::fresh(&mut world, NONE);
    let mut request = [0; 128];
    request[..12].copy_from_slice(&[0, 0, 128, 0, 128, 0, 0, 0, 1, 0, 0, 0]);
    world.send(peer.socket, &request);
    let sent = &world.stream(peer.socket).from_shard;
    assert_eq!((sent.len(), &sent[24..]), (152, request.as_slice()));
}
