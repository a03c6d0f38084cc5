//! Paths: asymmetric access, controller ids of several engines, hosts of an older epoch.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use braid_nvme::Status;
use braid_nvme::ana::AnaState;
use braid_nvme::command::{Command, Sgl, admin};
use braid_nvme::connect::CNTLID_DYNAMIC;
use braid_nvme::pdu::Digests;
use braid_nvme::target::{ControllerModel, Portal};
use braid_shard::{
    AnaChange, Config, Event, Fault, Injection, Limits, Note, Operation, Paths, Socket,
};
use support::peer::{Got, Peer, connect, h2c, read, write};
use support::{NQN, World, config};

const NONE: Digests = Digests { header: false, data: false };
const BLOCK: usize = 4096;
/// The event that tells of a change, and the bit that asks for it.
const ANA_EVENT: u64 = 0x0c_03_02;
const ANA_EVENTS: u32 = 1 << 11;

fn set(world: &mut World, state: AnaState) {
    set_of(world, None, state);
}

fn set_of(world: &mut World, listener: Option<u16>, state: AnaState) {
    let change = AnaChange { subsystem: NQN, group: 1, listener, state };
    assert!(world.shard.ana_set(&mut world.mem, world.now, &change));
    world.run();
}

/// The state in the ANA log of this controller, and its count of changes.
fn logged(world: &mut World, admin: &mut Peer) -> (u8, u64) {
    let bytes = 16 + 32 + 3 * 4;
    let mut command = Command::new(admin::GET_LOG_PAGE, u32::MAX);
    command.set_cdw(10, 0x0c | (bytes / 4 - 1) << 16);
    command.sgl = Sgl::transport(bytes);
    let log = admin.read(world, command).unwrap();
    assert_eq!(u32::from_le_bytes(log[16..20].try_into().unwrap()), 1);
    (log[32], u64::from_le_bytes(log[..8].try_into().unwrap()))
}

fn try_read(world: &mut World, io: &mut Peer) -> Result<Vec<u8>, Status> {
    io.read(world, read(1, 0, 1, BLOCK as u32))
}

fn statuses(world: &mut World, peer: &mut Peer) -> Vec<Status> {
    let got = peer.take(world);
    let status = |got: &Got| match got {
        Got::Completion(completion) => completion.status(),
        other => panic!("no completion but {other:?}"),
    };
    got.iter().map(status).collect()
}

#[test]
fn io_is_answered_as_the_state_says_and_the_host_is_told() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    admin.enable_events(&mut world, ANA_EVENTS);
    assert_eq!(logged(&mut world, &mut admin), (1, 1));
    for (state, refusal) in [
        (AnaState::NonOptimized, None),
        (AnaState::Inaccessible, Some(Status::ANA_INACCESSIBLE)),
        (AnaState::PersistentLoss, Some(Status::ANA_PERSISTENT_LOSS)),
        (AnaState::Change, Some(Status::ANA_TRANSITION)),
        (AnaState::Optimized, None),
    ] {
        let before = logged(&mut world, &mut admin).1;
        let cid = admin.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
        set(&mut world, state);
        match admin.take(&mut world).as_slice() {
            [Got::Completion(event)] => {
                assert_eq!((event.cid.get(), event.result.get()), (cid, ANA_EVENT));
            }
            other => panic!("no event but {other:?}"),
        }
        assert_eq!(logged(&mut world, &mut admin), (state as u8, before + 1));
        assert_eq!(try_read(&mut world, &mut io).err(), refusal, "{}", state.text());
        let written = io.command(&mut world, write(2, 0, 1, BLOCK as u32), &[5; BLOCK]).status();
        assert_eq!(written, refusal.unwrap_or(Status::SUCCESS), "{}", state.text());
    }
}

#[test]
fn what_stays_the_same_is_no_change() {
    let mut world = World::new(config());
    let (mut admin, _io) = Peer::pair(&mut world, NONE);
    set(&mut world, AnaState::Optimized);
    assert_eq!(logged(&mut world, &mut admin), (1, 1));
    for (subsystem, group, listener) in [("nqn.none", 1, None), (NQN, 2, None), (NQN, 1, Some(1))] {
        let change = AnaChange { subsystem, group, listener, state: AnaState::Inaccessible };
        assert!(!world.shard.ana_set(&mut world.mem, world.now, &change), "{change:?}");
    }
    assert_eq!(logged(&mut world, &mut admin), (1, 1));
}

#[test]
fn an_inaccessible_path_takes_connects_and_admin_commands() {
    let mut world = World::new(config());
    set(&mut world, AnaState::Inaccessible);
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    assert_eq!(logged(&mut world, &mut admin).0, 3);
    let mut identify = Command::new(admin::IDENTIFY, 1);
    identify.sgl = Sgl::transport(4096);
    assert_eq!(admin.read(&mut world, identify).unwrap()[92], 1, "ANAGRPID");
    assert_eq!(try_read(&mut world, &mut io), Err(Status::ANA_INACCESSIBLE));
    let unknown = io.read(&mut world, read(9, 0, 1, BLOCK as u32));
    assert_eq!(unknown, Err(Status::INVALID_NAMESPACE.dnr()), "the path is not what is wrong");
}

#[test]
fn a_change_that_does_not_end_becomes_inaccessible_after_anatt() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    set(&mut world, AnaState::Change);
    world.pass(Duration::from_millis(4_900));
    assert_eq!(try_read(&mut world, &mut io), Err(Status::ANA_TRANSITION));
    world.pass(Duration::from_millis(4_900));
    assert_eq!(logged(&mut world, &mut admin).0, 15);
    world.pass(Duration::from_millis(200));
    assert_eq!(logged(&mut world, &mut admin), (3, 3));
    assert_eq!(try_read(&mut world, &mut io), Err(Status::ANA_INACCESSIBLE));
    let late = |note: &Note| matches!(note, Note::AnaChanged { late: true, .. });
    assert!(world.notes.iter().any(late), "somebody should know");
}

#[test]
fn a_change_that_ended_in_time_is_left_alone() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    set(&mut world, AnaState::Change);
    world.pass(Duration::from_secs(2));
    set(&mut world, AnaState::Optimized);
    for _ in 0..6 {
        world.pass(Duration::from_secs(2));
        assert!(try_read(&mut world, &mut io).is_ok());
    }
    assert_eq!(logged(&mut world, &mut admin), (1, 3));
}

#[test]
fn a_write_whose_data_is_on_its_way_is_refused_when_it_is_here() {
    let mut world = World::new(config());
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    io.post(&mut world, write(2, 0, 1, BLOCK as u32), &[]);
    let r2t = match io.take(&mut world).as_slice() {
        [Got::R2t(r2t)] => *r2t,
        other => panic!("no R2T but {other:?}"),
    };
    set(&mut world, AnaState::Inaccessible);
    assert!(io.take(&mut world).is_empty(), "its host still sends");
    world.send(io.socket, &h2c(&r2t, 0, &[7; BLOCK], true, NONE));
    assert_eq!(statuses(&mut world, &mut io), [Status::ANA_INACCESSIBLE]);
    assert_eq!(world.counts.writes, 0, "nothing was written");
}

#[test]
fn commands_that_wait_for_a_delay_or_a_buffer_are_answered_at_once() {
    // With one more small buffer, 128 KiB are over a connection's share.
    let limits = Limits { arena_bytes: 1 << 20, ..config().limits };
    let mut world = World::new(Config { limits, ..config() });
    let (_admin, mut io) = Peer::pair(&mut world, NONE);
    let stall = Injection {
        operation: Operation::Read,
        fault: Fault::Stall,
        offset: 0,
        len: u64::MAX,
        count: 1,
    };
    assert!(world.shard.set_injections(NQN, 1, &[stall]));
    io.post(&mut world, read(1, 0, 1, BLOCK as u32), &[]);
    io.post(&mut world, read(2, 0, 32, 32 * BLOCK as u32), &[]);
    assert!(io.take(&mut world).is_empty());
    set(&mut world, AnaState::Inaccessible);
    assert_eq!(statuses(&mut world, &mut io), [Status::ANA_INACCESSIBLE; 2]);
    set(&mut world, AnaState::Optimized);
    assert!(try_read(&mut world, &mut io).is_ok());
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn each_listener_has_states_of_its_own_and_controllers_are_of_one() {
    let portal = |id, address: &str| Portal { id, address: address.parse().unwrap() };
    let portals = vec![portal(1, "127.0.0.1:4420"), portal(2, "127.0.0.1:4421")];
    let mut world = World::new(Config { portals, ..config() });
    set_of(&mut world, Some(1), AnaState::Inaccessible);
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    assert_eq!(logged(&mut world, &mut admin).0, 1);
    assert!(try_read(&mut world, &mut io).is_ok());
    world.listener = 1;
    let (mut other_admin, mut other_io) = Peer::pair(&mut world, NONE);
    assert_eq!(logged(&mut world, &mut other_admin).0, 3);
    assert_eq!(try_read(&mut world, &mut other_io), Err(Status::ANA_INACCESSIBLE));
    let mut stray = Peer::open(&mut world, NONE);
    let refused = stray.connect(&mut world, &connect(2, admin.cntlid));
    assert!(refused.status().is(Status::CONNECT_INVALID_PARAMETERS), "{}", refused.status());
    set_of(&mut world, None, AnaState::NonOptimized);
    assert_eq!(logged(&mut world, &mut admin).0, 2);
    assert_eq!(logged(&mut world, &mut other_admin).0, 2);
}

#[test]
fn controller_ids_come_from_the_engines_own_range() {
    let mut config = config();
    let subsystem = &mut config.subsystems[0];
    subsystem.paths = Paths { cntlid_min: 100, cntlid_max: 102, ..Paths::default() };
    let mut world = World::new(config.clone());
    let peers = [(); 3].map(|()| Peer::admin(&mut world, NONE));
    assert_eq!(peers.each_ref().map(|peer| peer.cntlid), [100, 101, 102]);
    let mut fourth = Peer::open(&mut world, NONE);
    let refused = fourth.connect(&mut world, &connect(0, CNTLID_DYNAMIC));
    assert_eq!(refused.status(), Status::CONNECT_CONTROLLER_BUSY);
    config.subsystems[0].controllers = ControllerModel::Static;
    let mut world = World::new(config);
    for (asked, taken) in [(99, false), (100, true), (102, true), (103, false)] {
        let mut peer = Peer::open(&mut world, NONE);
        let completion = peer.connect(&mut world, &connect(0, asked));
        assert_eq!(completion.status().is_success(), taken, "{asked}");
    }
}

#[test]
fn an_association_of_before_the_epoch_does_io_after_it_read_the_log() {
    let mut world = World::new(config());
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    set(&mut world, AnaState::Inaccessible);
    assert!(world.shard.ana_epoch(NQN, 7));
    logged(&mut world, &mut admin);
    set(&mut world, AnaState::Optimized);
    assert_eq!(try_read(&mut world, &mut io), Err(Status::ANA_INACCESSIBLE), "it saw no other log");
    assert_eq!(logged(&mut world, &mut admin).0, 1);
    assert!(try_read(&mut world, &mut io).is_ok());
    let (_newer, mut newer_io) = Peer::pair(&mut world, NONE);
    assert!(try_read(&mut world, &mut newer_io).is_ok(), "it connected in this epoch");
    assert!(world.shard.ana_epoch(NQN, 8));
    for io in [&mut io, &mut newer_io] {
        assert_eq!(try_read(&mut world, io), Err(Status::ANA_INACCESSIBLE));
    }
    assert!(world.shard.ana_epoch(NQN, 0));
    assert!(try_read(&mut world, &mut newer_io).is_ok());
}

#[test]
fn a_host_that_connects_before_the_path_is_optimized_reads_the_log_first() {
    let mut world = World::new(config());
    set(&mut world, AnaState::Inaccessible);
    assert!(world.shard.ana_epoch(NQN, 3));
    let (mut admin, mut io) = Peer::pair(&mut world, NONE);
    set(&mut world, AnaState::Optimized);
    assert_eq!(try_read(&mut world, &mut io), Err(Status::ANA_INACCESSIBLE));
    logged(&mut world, &mut admin);
    assert!(try_read(&mut world, &mut io).is_ok());
}

#[test]
fn a_path_that_is_late_does_not_outlive_its_subsystem() {
    let mut world = World::new(config());
    set(&mut world, AnaState::Change);
    assert!(world.shard.subsystem_remove(&mut world.mem, world.now, NQN, 1));
    world.run();
    world.pass(Duration::from_secs(11));
    world.event(Event::Accepted { listener: 0, socket: Socket(99), local: None });
    assert!(world.shard.ana().next().is_none());
}
