//! Subsystems and namespaces that change while hosts are connected.

mod support;

use braid_block::{BlockSize, Geometry};
use braid_nvme::command::{Command, Sgl, admin};
use braid_nvme::connect::{CNTLID_DYNAMIC, Nqn};
use braid_nvme::pdu::Digests;
use braid_nvme::target::{DiscoveryEntry, DiscoveryHeader};
use braid_nvme::{DISCOVERY_NQN, Status};
use braid_shard::{BackendConfig, Config, Mail, NamespaceConfig, Note, SubsystemConfig, Why};
use support::peer::{Got, Peer, connect, flush, read, transfer, write};
use support::{NQN, World, config};
use zerocopy::FromBytes;

const NONE: Digests = Digests { header: false, data: false };
const ADDED: &str = "nqn.2026-01.io.braid:added";
/// What a host enables to hear of the discovery log.
const DISCOVERY_LOG: u32 = 1 << 31;
/// DW0 of the events.
const DISCOVERY_EVENT: u64 = 0x70_f0_02;
const NAMESPACE_EVENT: u64 = 0x04_00_02;

fn added(nqn: &str) -> SubsystemConfig {
    let namespace = NamespaceConfig {
        nsid: 1,
        ana_group: 1,
        nguid: [3; 16],
        uuid: [4; 16],
        geometry: Geometry::of_bytes(1 << 20, BlockSize::B4096),
        backend: BackendConfig::Memory,
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    SubsystemConfig {
        nqn: nqn.into(),
        namespaces: vec![namespace],
        ..config().subsystems.remove(0)
    }
}

fn alone() -> Config {
    Config { subsystems: Vec::new(), ..config() }
}

/// A queue of this subsystem.
fn queue(world: &mut World, nqn: &str, qid: u16, cntlid: u16) -> Result<Peer, Status> {
    let mut peer = Peer::open(world, NONE);
    let mut command = connect(qid, cntlid);
    command.subnqn = Nqn::parse(nqn).unwrap();
    let completion = peer.connect(world, &command);
    if !completion.status().is_success() {
        return Err(completion.status());
    }
    peer.cntlid = (completion.result.get() & 0xffff) as u16;
    if qid == 0 {
        peer.enable(world);
    }
    Ok(peer)
}

fn pair(world: &mut World, nqn: &str) -> (Peer, Peer) {
    let admin = queue(world, nqn, 0, CNTLID_DYNAMIC).unwrap();
    let io = queue(world, nqn, 1, admin.cntlid).unwrap();
    (admin, io)
}

/// The names in the discovery log, and its generation.
fn log(world: &mut World, discovery: &mut Peer) -> (Vec<String>, u64) {
    let mut command = Command::new(admin::GET_LOG_PAGE, 0);
    command.sgl = Sgl::transport(8192);
    command.set_cdw(10, 0x70 | 2047 << 16);
    let data = discovery.read(world, command).unwrap();
    let (header, entries) = DiscoveryHeader::read_from_prefix(&data).unwrap();
    let names = entries.chunks_exact(1024).take(header.records.get() as usize).map(|entry| {
        let entry = DiscoveryEntry::read_from_bytes(entry).unwrap();
        String::from_utf8_lossy(&entry.subnqn).trim_end_matches('\0').to_owned()
    });
    (names.filter(|name| name != DISCOVERY_NQN).collect(), header.generation.get())
}

fn gone(world: &World) -> Vec<u64> {
    let tag = |note: &Note| match note {
        Note::SubsystemGone { tag } => Some(*tag),
        _ => None,
    };
    world.notes.iter().filter_map(tag).collect()
}

#[test]
fn a_subsystem_that_is_added_can_be_used_and_is_discovered() {
    let mut world = World::new(config());
    let mut discovery = queue(&mut world, DISCOVERY_NQN, 0, CNTLID_DYNAMIC).unwrap();
    let before = log(&mut world, &mut discovery);
    assert_eq!(before.0, [NQN]);
    assert!(queue(&mut world, ADDED, 0, CNTLID_DYNAMIC).is_err());
    assert!(world.shard.subsystem_add(added(ADDED)));
    assert!(!world.shard.subsystem_add(added(ADDED)), "it is there");
    assert!(!world.shard.subsystem_add(added(NQN)), "another one is there");
    assert!(!world.shard.subsystem_add(added("no name")));
    assert!(!world.shard.subsystem_add(added(DISCOVERY_NQN)));
    let (_admin, mut io) = pair(&mut world, ADDED);
    let data = vec![7; 4096];
    assert!(io.command(&mut world, write(1, 3, 1, 4096), &data).status().is_success());
    assert_eq!(io.read(&mut world, read(1, 3, 1, 4096)).unwrap(), data);
    let after = log(&mut world, &mut discovery);
    assert_eq!(after.0, [NQN, ADDED]);
    assert_ne!(before.1, after.1, "GENCTR");
}

#[test]
fn a_host_is_told_that_the_discovery_log_changed() {
    let mut world = World::new(config());
    let mut discovery = queue(&mut world, DISCOVERY_NQN, 0, CNTLID_DYNAMIC).unwrap();
    discovery.enable_events(&mut world, DISCOVERY_LOG);
    for removed in [false, true] {
        let cid = discovery.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
        assert!(discovery.take(&mut world).is_empty());
        if removed {
            let (mem, now) = (&mut world.mem, world.now);
            assert!(world.shard.subsystem_remove(mem, now, ADDED, 1));
        } else {
            assert!(world.shard.subsystem_add(added(ADDED)));
        }
        assert!(world.shard.has_work());
        world.run();
        let got = discovery.take(&mut world);
        let [Got::Completion(event)] = got.as_slice() else { panic!("{got:?}") };
        assert_eq!((event.cid.get(), event.result.get()), (cid, DISCOVERY_EVENT));
        log(&mut world, &mut discovery);
    }
}

#[test]
fn a_subsystem_that_is_removed_ends_its_connections_in_order_and_no_others() {
    let mut world = World::new(config());
    assert!(world.shard.subsystem_add(added(ADDED)));
    let (_other_admin, mut other) = pair(&mut world, NQN);
    let (admin, io) = pair(&mut world, ADDED);
    let (mem, now) = (&mut world.mem, world.now);
    assert!(!world.shard.subsystem_remove(mem, now, "nqn.2026-01.io.braid:unknown", 8));
    assert!(world.shard.subsystem_remove(mem, now, ADDED, 9));
    world.run();
    assert!(world.stream(admin.socket).shut && world.stream(io.socket).shut);
    assert!(gone(&world).is_empty(), "its connections are not closed");
    assert!(!world.shard.subsystem_add(added(ADDED)), "what had the name is not gone");
    assert!(queue(&mut world, ADDED, 0, CNTLID_DYNAMIC).is_err());
    world.end(io.socket);
    world.end(admin.socket);
    assert_eq!(gone(&world), [9]);
    let closed = |note: &&Note| matches!(note, Note::Closed { why: Why::Removed, .. });
    assert_eq!(world.notes.iter().filter(closed).count(), 2);
    assert!(other.command(&mut world, flush(2), &[]).status().is_success());
    // The name, and the place, can be used again.
    assert!(world.shard.subsystem_add(added(ADDED)));
    let (_admin, mut io) = pair(&mut world, ADDED);
    let fresh = io.read(&mut world, read(1, 3, 1, 4096)).unwrap();
    assert_eq!(fresh, vec![0; 4096]);
}

#[test]
fn a_command_in_work_ends_before_its_subsystem_is_gone() {
    let mut world = World::new(config());
    let (admin, mut io) = pair(&mut world, NQN);
    world.disk_runs = false;
    let command = transfer(braid_nvme::command::io::WRITE, 2, 0, 1, 4096);
    let cid = io.post(&mut world, command, &[5; 4096]);
    let (mem, now) = (&mut world.mem, world.now);
    assert!(world.shard.subsystem_remove(mem, now, NQN, 2));
    world.run();
    assert!(!world.stream(io.socket).shut && !world.stream(admin.socket).shut);
    world.disk_runs = true;
    world.run();
    let got = io.take(&mut world);
    let [Got::Completion(done)] = got.as_slice() else { panic!("{got:?}") };
    assert!(done.cid.get() == cid && done.status().is_success());
    assert!(world.stream(io.socket).shut && world.stream(admin.socket).shut);
    // A host that does not close its end is not waited for for ever.
    world.pass(std::time::Duration::from_secs(60));
    assert_eq!(gone(&world), [2]);
    assert_eq!(world.shard.connections(), 0);
}

#[test]
fn a_subsystem_without_hosts_is_gone_at_once() {
    let mut world = World::new(config());
    let (mem, now) = (&mut world.mem, world.now);
    assert!(world.shard.subsystem_remove(mem, now, NQN, 4));
    world.run();
    assert_eq!(gone(&world), [4]);
    assert!(queue(&mut world, NQN, 0, CNTLID_DYNAMIC).is_err());
}

#[test]
fn shards_tell_the_same_in_whatever_order_they_learn_of_subsystems() {
    let [mut here, mut there] =
        [0, 1].map(|shard| World::new(Config { shard, shards: 2, ..alone() }));
    let names: [&str; 3] = std::array::from_fn(|i| ["nqn.a:x", "nqn.a:y", "nqn.a:z"][i]);
    let names = names.map(|name| name.replace("nqn.a", "nqn.2026-01.io.braid"));
    for (world, order) in [(&mut here, [2, 0, 1]), (&mut there, [1, 0, 2])] {
        for i in order {
            assert!(world.shard.subsystem_add(added(&names[i])));
        }
    }
    let logs = [&mut here, &mut there].map(|world| {
        let mut discovery = queue(world, DISCOVERY_NQN, 0, CNTLID_DYNAMIC).unwrap();
        log(world, &mut discovery)
    });
    assert_eq!(logs[0].0, names);
    assert_eq!(logs[0], logs[1]);
}

#[test]
fn a_connection_finds_the_home_of_a_subsystem_that_was_added() {
    let mut world = World::new(Config { shard: 1, shards: 2, ..alone() });
    world.keep_mail = true;
    assert!(world.shard.subsystem_add(added(ADDED)));
    let mut peer = Peer::open(&mut world, NONE);
    let mut command = connect(0, CNTLID_DYNAMIC);
    command.subnqn = Nqn::parse(ADDED).unwrap();
    peer.post_connect(&mut world, &command);
    let [Mail::Connection { handshake, .. }] = world.mail.as_slice() else {
        panic!("{:?}", world.mail)
    };
    assert_eq!(handshake.connect.subnqn.as_str(), ADDED);
    let (mem, now) = (&mut world.mem, world.now);
    assert!(world.shard.subsystem_remove(mem, now, ADDED, 1));
    world.run();
    assert!(gone(&world).is_empty(), "its home tells");
}

#[test]
fn a_namespace_that_grows_is_announced_and_can_be_used() {
    let mut world = World::new(config());
    assert!(world.shard.subsystem_add(added(ADDED)));
    let (mut admin, mut io) = pair(&mut world, ADDED);
    admin.enable_events(&mut world, 1 << 8);
    let cid = admin.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    let size = |blocks| Geometry { block: BlockSize::B4096, blocks };
    assert!(!world.shard.namespace_resize(ADDED, 2, size(512)));
    assert!(!world.shard.namespace_resize(ADDED, 1, size(255)), "no smaller");
    assert!(!world.shard.namespace_resize(
        ADDED,
        1,
        Geometry { block: BlockSize::B512, blocks: 1 << 20 }
    ));
    assert!(world.shard.namespace_resize(ADDED, 1, size(256)), "the same");
    world.run();
    assert!(admin.take(&mut world).is_empty(), "nothing changed");
    assert!(io.read(&mut world, read(1, 256, 1, 4096)).is_err());
    assert!(world.shard.namespace_resize(ADDED, 1, size(512)));
    world.run();
    let got = admin.take(&mut world);
    let [Got::Completion(event)] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!((event.cid.get(), event.result.get()), (cid, NAMESPACE_EVENT));
    let mut identify = Command::new(admin::IDENTIFY, 1);
    identify.sgl = Sgl::transport(4096);
    let id = admin.read(&mut world, identify).unwrap();
    assert_eq!(u64::from_le_bytes(id[..8].try_into().unwrap()), 512, "NSZE");
    assert_eq!(io.read(&mut world, read(1, 256, 1, 4096)).unwrap(), vec![0; 4096]);
}

#[test]
fn all_blocks_count_as_allocated_where_nobody_knows_better() {
    let mut world = World::new(config());
    let (mut admin, _io) = pair(&mut world, NQN);
    for (nsid, block) in [(1, 4096), (2, 4096), (3, 512)] {
        let mut command = Command::new(admin::GET_LBA_STATUS, nsid);
        command.sgl = Sgl::transport(64);
        command.set_cdw(10, 5);
        command.set_cdw(12, 15);
        command.set_cdw(13, 0x02 << 24);
        let data = admin.read(&mut world, command).unwrap();
        assert_eq!(data.len(), 64);
        let blocks = support::DISK_BYTES as u32 / block - 5;
        let expected = [&[1, 0, 0, 0, 2, 0, 0, 0][..], &5u64.to_le_bytes(), &blocks.to_le_bytes()];
        assert_eq!(data[..20], expected.concat(), "namespace {nsid}");
    }
}

fn attached(nsid: u32) -> NamespaceConfig {
    NamespaceConfig { nsid, nguid: [nsid as u8; 16], ..added(NQN).namespaces.remove(0) }
}

/// The active namespaces as Identify lists them.
fn listed(world: &mut World, admin: &mut Peer) -> Vec<u32> {
    let mut identify = Command::new(admin::IDENTIFY, 0);
    identify.set_cdw(10, 2);
    identify.sgl = Sgl::transport(4096);
    let list = admin.read(world, identify).unwrap();
    let ids = list.chunks(4).map(|id| u32::from_le_bytes(id.try_into().unwrap()));
    ids.take_while(|id| *id != 0).collect()
}

#[test]
fn namespaces_come_and_go_under_their_hosts_eyes() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    admin.enable_events(&mut world, 1 << 8);
    assert_eq!(listed(&mut world, &mut admin), [1, 2, 3]);
    admin.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    assert!(world.shard.namespace_attach(NQN, &attached(9)));
    world.run();
    match admin.take(&mut world).as_slice() {
        [Got::Completion(event)] => assert_eq!(event.result.get(), NAMESPACE_EVENT),
        other => panic!("no event but {other:?}"),
    }
    assert_eq!(listed(&mut world, &mut admin), [1, 2, 3, 9]);
    let write = |nsid| write(nsid, 0, 1, 4096);
    assert!(io.command(&mut world, write(9), &[9; 4096]).status().is_success());
    assert!(!world.shard.namespace_attach(NQN, &attached(9)), "it is there");
    assert!(!world.shard.namespace_attach(NQN, &attached(0)), "no id");
    assert!(!world.shard.namespace_attach("nqn.none", &attached(4)));
    assert!(world.shard.namespace_detach(&mut world.mem, NQN, 2, 77));
    world.run();
    assert_eq!(listed(&mut world, &mut admin), [1, 3, 9]);
    let gone = io.command(&mut world, write(2), &[9; 4096]).status();
    assert_eq!(gone, Status::INVALID_NAMESPACE.dnr());
    assert!(world.notes.iter().any(|note| matches!(note, Note::NamespaceGone { tag: 77 })));
    assert!(!world.shard.namespace_detach(&mut world.mem, NQN, 2, 78), "it is not there");
    // Another one in its place, before those with larger ids.
    assert!(world.shard.namespace_attach(NQN, &attached(2)));
    assert_eq!(listed(&mut world, &mut admin), [1, 2, 3, 9]);
    assert_eq!(io.read(&mut world, read(2, 0, 1, 4096)).unwrap(), [0; 4096]);
    assert_eq!(io.read(&mut world, read(9, 0, 1, 4096)).unwrap(), [9; 4096]);
}

#[test]
fn what_smart_counts_never_goes_back_when_a_namespace_goes() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    let mut writes = |world: &mut World, nsid| {
        let mut log = Command::new(admin::GET_LOG_PAGE, nsid);
        log.set_cdw(10, 127 << 16 | 0x02);
        log.sgl = Sgl::transport(512);
        admin.read(world, log).map(|page| page[80])
    };
    for (round, gone) in [(1, 0), (2, 1)] {
        assert!(io.command(&mut world, write(2, 0, 1, 4096), &[1; 4096]).status().is_success());
        assert_eq!(writes(&mut world, u32::MAX), Ok(round));
        assert_eq!(writes(&mut world, 2), Ok(round - gone), "its own are its own");
        assert!(world.shard.namespace_detach(&mut world.mem, NQN, 2, 7));
        world.run();
        assert_eq!(writes(&mut world, u32::MAX), Ok(round));
        assert_eq!(writes(&mut world, 2), Err(Status::INVALID_NAMESPACE.dnr()));
        assert!(world.shard.namespace_attach(NQN, &attached(2)));
        assert_eq!(writes(&mut world, u32::MAX), Ok(round));
    }
}

#[test]
fn a_namespace_is_gone_when_its_last_command_is() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let gone = |world: &World| {
        world.notes.iter().any(|note| matches!(note, Note::NamespaceGone { tag: 5 }))
    };
    world.disk_runs = false;
    let early = io.post(&mut world, write(2, 0, 1, 4096), &[1; 4096]);
    let asked = io.post(&mut world, write(2, 1, 1, 4096), &[]);
    let r2t = match io.take(&mut world).as_slice() {
        [Got::R2t(r2t)] => *r2t,
        other => panic!("no R2T but {other:?}"),
    };
    assert!(world.shard.namespace_detach(&mut world.mem, NQN, 2, 5));
    world.disk_runs = true;
    world.run();
    match io.take(&mut world).as_slice() {
        [Got::Completion(done)] => {
            assert_eq!((done.cid.get(), done.status()), (early, Status::SUCCESS));
        }
        other => panic!("no completion but {other:?}"),
    }
    assert!(!gone(&world), "a host still sends");
    let socket = io.socket;
    world.send(socket, &support::peer::h2c(&r2t, 0, &[2; 4096], true, NONE));
    match io.take(&mut world).as_slice() {
        [Got::Completion(done)] => {
            let status = Status::INVALID_NAMESPACE.dnr();
            assert_eq!((done.cid.get(), done.status()), (asked, status));
        }
        other => panic!("no completion but {other:?}"),
    }
    assert!(gone(&world));
    assert_ne!(world.disk[4096..8192], [2; 4096], "it was not written");
}
