//! Reservations as hosts meet them: whose commands are refused, what a preempt with abort waits
//! for, who is told, and what outlives the process.

mod support;

use std::time::Duration;

use braid_block::BlockSize;
use braid_nvme::Status;
use braid_nvme::command::{Command, Sgl, admin, io};
use braid_nvme::pdu::Digests;
use braid_nvme::target::reservation::Reservations;
use braid_pool::{Bearing, Reservation};
use braid_shard::{Config, Fault, Injection, Note, Operation, SubsystemConfig};
use support::peer::{Got, Peer, flush, h2c, read, transfer, write};
use support::pool::{POOL, REPLICA, REPLICA_BYTES, shared};
use support::{NQN, World, config};

const A: [u8; 16] = [0xa; 16];
const B: [u8; 16] = [0xb; 16];
const CONFLICT: Status = Status::RESERVATION_CONFLICT.dnr();
/// RTYPE.
const WRITE_EXCLUSIVE: u32 = 1 << 8;
const EXCLUSIVE_ACCESS: u32 = 2 << 8;
/// CPTPL: on.
const PERSIST: u32 = 3 << 30;
/// RACQA.
const PREEMPT: u32 = 1;
const PREEMPT_AND_ABORT: u32 = 2;

fn command(opcode: u8, nsid: u32, cdw10: u32) -> Command {
    let mut command = Command::new(opcode, nsid);
    command.set_cdw(10, cdw10);
    command
}

fn keys(current: u64, other: u64) -> Vec<u8> {
    [current.to_le_bytes(), other.to_le_bytes()].concat()
}

impl Host {
    fn register(&mut self, world: &mut World, cdw10: u32) -> Status {
        let (command, data) =
            (command(io::RESERVATION_REGISTER, self.nsid, cdw10), keys(0, self.key));
        self.io.command(world, command, &data).status()
    }

    fn acquire(&mut self, world: &mut World, cdw10: u32, victim: u64) -> Status {
        self.post_acquire(world, cdw10, victim);
        self.status(world)
    }

    fn post_acquire(&mut self, world: &mut World, cdw10: u32, victim: u64) {
        let command = command(io::RESERVATION_ACQUIRE, self.nsid, cdw10);
        self.io.post(world, command, &keys(self.key, victim));
    }

    fn release(&mut self, world: &mut World, cdw10: u32) -> Status {
        let command = command(io::RESERVATION_RELEASE, self.nsid, cdw10);
        self.io.command(world, command, &self.key.to_le_bytes()).status()
    }

    /// The one completion that came.
    fn status(&mut self, world: &mut World) -> Status {
        match self.io.take(world).as_slice() {
            [Got::Completion(completion)] => completion.status(),
            other => panic!("no completion but {other:?}"),
        }
    }

    fn is_quiet(&mut self, world: &mut World) -> bool {
        self.io.take(world).is_empty()
    }

    fn put(&mut self, world: &mut World) -> Status {
        self.io.command(world, write(self.nsid, 0, 1, 4096), &[7; 4096]).status()
    }

    fn get(&mut self, world: &mut World) -> Result<Vec<u8>, Status> {
        self.io.read(world, read(self.nsid, 0, 1, 4096))
    }

    fn report(&mut self, world: &mut World) -> Vec<u8> {
        let mut command = command(io::RESERVATION_REPORT, self.nsid, 63);
        command.set_cdw(11, 1);
        command.sgl = Sgl::transport(256);
        self.io.read(world, command).unwrap()
    }

    fn feature(&mut self, world: &mut World, set: Option<u32>, fid: u32) -> (Status, u64) {
        let opcode = if set.is_some() { admin::SET_FEATURES } else { admin::GET_FEATURES };
        let mut command = command(opcode, self.nsid, fid);
        command.set_cdw(11, set.unwrap_or(0));
        let done = self.admin.command(world, command, &[]);
        (done.status(), done.result.get())
    }
}

/// A host with a key, and the namespace it looks at.
struct Host {
    admin: Peer,
    io: Peer,
    key: u64,
    nsid: u32,
}

fn host(world: &mut World, id: [u8; 16], nsid: u32) -> Host {
    let (admin, io) = Peer::pair_of(world, id);
    Host { admin, io, key: id[0].into(), nsid }
}

fn hosts(world: &mut World, nsid: u32) -> (Host, Host) {
    (host(world, A, nsid), host(world, B, nsid))
}

/// Both hosts are registered with namespace 2, on the disk, and B holds it.
fn held_by_b() -> (World, Host, Host) {
    let mut world = World::new(config());
    let (mut a, mut b) = hosts(&mut world, 2);
    assert!(a.register(&mut world, 0).is_success());
    assert!(b.register(&mut world, 0).is_success());
    assert!(b.acquire(&mut world, WRITE_EXCLUSIVE, 0).is_success());
    (world, a, b)
}

/// A configuration whose namespace 2 has these reservations, which are kept.
fn keeping(reservations: Reservations) -> Config {
    let mut config = config();
    let SubsystemConfig { namespaces, .. } = &mut config.subsystems[0];
    namespaces[1].reservations = Some(Box::new(reservations));
    config
}

/// What the shard last asked to be kept.
fn asked(world: &World) -> u64 {
    let mut tags = world.notes.iter().filter_map(|note| match note {
        Note::Reservations { tag } => Some(*tag),
        _ => None,
    });
    tags.next_back().expect("something to keep")
}

fn kept(world: &mut World, kept: bool) -> Reservations {
    let tag = asked(world);
    let state = world.shard.reservations_to_keep(tag).unwrap().1.clone();
    let (mem, now) = (&mut world.mem, world.now);
    world.shard.reservations_kept(mem, now, tag, kept);
    world.run();
    state
}

#[test]
fn a_reservation_refuses_the_commands_of_others_and_of_nobody_else() {
    for nsid in [1, 2] {
        let mut world = World::new(config());
        let (mut a, mut b) = hosts(&mut world, nsid);
        let mut second_path = host(&mut world, A, nsid);
        assert!(a.register(&mut world, 0).is_success());
        assert!(a.acquire(&mut world, WRITE_EXCLUSIVE, 0).is_success());
        let ranges = [[0; 4].as_slice(), &1u32.to_le_bytes(), &0u64.to_le_bytes()].concat();
        let mut deallocate = command(io::DATASET_MANAGEMENT, nsid, 0);
        deallocate.set_cdw(11, 4);
        let writes = [
            (write(nsid, 0, 1, 4096), vec![1; 4096]),
            (flush(nsid), vec![]),
            (transfer(io::WRITE_ZEROES, nsid, 0, 1, 0), vec![]),
            (deallocate, ranges),
        ];
        for (command, data) in writes {
            assert_eq!(b.io.command(&mut world, command, &data).status(), CONFLICT);
            for owner in [&mut a.io, &mut second_path.io] {
                assert!(owner.command(&mut world, command, &data).status().is_success());
            }
        }
        assert!(b.get(&mut world).is_ok(), "reads are free");
        // A write by R2T is refused before its data is asked for.
        b.io.post(&mut world, write(nsid, 0, 4, 16384), &[]);
        assert_eq!(b.status(&mut world), CONFLICT);
        assert!(a.release(&mut world, WRITE_EXCLUSIVE).is_success());
        assert!(b.put(&mut world).is_success());
        assert_eq!(world.shard.ops(), 0);
    }
}

#[test]
fn exclusive_access_refuses_reads_and_another_namespace_is_another_matter() {
    let mut world = World::new(config());
    let (mut a, mut b) = hosts(&mut world, 2);
    assert!(a.register(&mut world, 0).is_success());
    assert!(a.acquire(&mut world, EXCLUSIVE_ACCESS, 0).is_success());
    assert_eq!(b.get(&mut world), Err(CONFLICT));
    b.nsid = 1;
    assert!(b.get(&mut world).is_ok() && b.put(&mut world).is_success());
}

#[test]
fn a_registration_outlives_its_controller() {
    let mut world = World::new(config());
    let (mut a, mut b) = hosts(&mut world, 2);
    assert!(a.register(&mut world, 0).is_success());
    assert!(a.acquire(&mut world, WRITE_EXCLUSIVE, 0).is_success());
    let report = b.report(&mut world);
    assert_eq!((report[4], report[5], report[64]), (1, 1, a.io.cntlid as u8));
    world.end(a.admin.socket);
    world.end(a.io.socket);
    assert_eq!(b.put(&mut world), CONFLICT);
    let report = b.report(&mut world);
    assert_eq!((&report[64..67], &report[80..96]), (&[0xff, 0xff, 1][..], &A[..]));
    let mut a = host(&mut world, A, 2);
    assert!(a.put(&mut world).is_success());
}

#[test]
fn reservations_without_a_namespace_are_refused() {
    let mut world = World::new(config());
    let mut a = host(&mut world, A, 9);
    assert_eq!(a.register(&mut world, 0), Status::INVALID_NAMESPACE.dnr());
    a.nsid = u32::MAX;
    assert_eq!(a.register(&mut world, 0), Status::INVALID_NAMESPACE.dnr());
    for fid in [0x82, 0x83] {
        assert_eq!(a.feature(&mut world, None, fid).0, Status::INVALID_NAMESPACE.dnr());
    }
}

#[test]
fn a_preempt_with_abort_waits_for_what_its_victims_have_in_the_device() {
    let (mut world, mut a, mut b) = held_by_b();
    world.disk_runs = false;
    b.io.post(&mut world, write(2, 0, 1, 4096), &[9; 4096]);
    a.io.post(&mut world, read(2, 0, 1, 4096), &[]);
    assert_eq!(world.pending_disk.len(), 2);
    a.post_acquire(&mut world, PREEMPT_AND_ABORT | WRITE_EXCLUSIVE, b.key);
    assert!(a.is_quiet(&mut world), "B's write may still land");
    assert_eq!(b.put(&mut world), CONFLICT, "but nothing of B that comes now");
    // Its own read is not waited for: only B's write is done.
    let done = world.pending_disk.pop_front().unwrap();
    world.event(braid_shard::Event::Done { token: done.0, result: done.1 });
    world.run();
    assert!(b.status(&mut world).is_success(), "it was in the device");
    assert!(a.status(&mut world).is_success());
    world.disk_runs = true;
    world.run();
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn a_preempt_with_abort_ends_what_its_victims_have_not_begun() {
    let (mut world, mut a, mut b) = held_by_b();
    let stall = Injection {
        operation: Operation::Read,
        fault: Fault::Stall,
        offset: 0,
        len: u64::MAX,
        count: 1,
    };
    assert!(world.shard.set_injections(NQN, 2, &[stall]));
    let stalled = b.io.post(&mut world, read(2, 0, 1, 4096), &[]);
    let asking = b.io.post(&mut world, write(2, 0, 4, 16384), &[]);
    let [Got::R2t(r2t)] = b.io.take(&mut world)[..] else { panic!("no R2T") };
    let status = a.acquire(&mut world, PREEMPT_AND_ABORT | WRITE_EXCLUSIVE, b.key);
    assert!(status.is_success(), "nothing can land any more: {status}");
    let [Got::Completion(aborted)] = b.io.take(&mut world)[..] else { panic!("no answer") };
    assert_eq!((aborted.cid.get(), aborted.status()), (stalled, Status::ABORTED_BY_PREEMPT));
    let none = Digests { header: false, data: false };
    world.send(b.io.socket, &h2c(&r2t, 0, &[5; 16384], true, none));
    let [Got::Completion(aborted)] = b.io.take(&mut world)[..] else { panic!("no answer") };
    assert_eq!((aborted.cid.get(), aborted.status()), (asking, Status::ABORTED_BY_PREEMPT));
    assert_eq!(world.disk[..16384], [0; 16384], "not a byte was written");
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn a_victim_whose_connection_ends_while_it_owes_data_holds_nobody_up() {
    let (mut world, mut a, mut b) = held_by_b();
    b.io.post(&mut world, write(2, 0, 4, 16384), &[]);
    assert!(a.acquire(&mut world, PREEMPT_AND_ABORT | WRITE_EXCLUSIVE, b.key).is_success());
    world.end(b.io.socket);
    assert_eq!(world.shard.ops(), 0);
    assert!(b.admin.take(&mut world).is_empty());
    assert!(a.put(&mut world).is_success());
}

#[test]
fn a_plain_preempt_waits_for_nothing() {
    let (mut world, mut a, mut b) = held_by_b();
    world.disk_runs = false;
    b.io.post(&mut world, write(2, 0, 1, 4096), &[9; 4096]);
    assert!(a.acquire(&mut world, PREEMPT | WRITE_EXCLUSIVE, b.key).is_success());
    world.disk_runs = true;
    world.run();
    assert!(b.status(&mut world).is_success());
}

#[test]
fn a_preempt_with_abort_does_not_wait_for_ever_and_claims_nothing_then() {
    let (mut world, mut a, mut b) = held_by_b();
    world.disk_runs = false;
    b.io.post(&mut world, write(2, 0, 1, 4096), &[9; 4096]);
    a.post_acquire(&mut world, PREEMPT_AND_ABORT | WRITE_EXCLUSIVE, b.key);
    // Waits behind the preempt, whose outcome it must tell.
    a.io.post(&mut world, command(io::RESERVATION_REGISTER, 2, 1), &keys(a.key, 0));
    for _ in 0..9 {
        world.pass(Duration::from_secs(1));
        for host in [&mut a, &mut b] {
            host.admin.command(&mut world, Command::new(admin::KEEP_ALIVE, 0), &[]);
        }
    }
    assert!(a.is_quiet(&mut world));
    world.pass(Duration::from_secs(1));
    let got = a.io.take(&mut world);
    let [Got::Completion(preempt), Got::Completion(unregister)] = got.as_slice() else {
        panic!("{got:?}")
    };
    assert_eq!(preempt.status(), Status::INTERNAL_ERROR.dnr().more());
    assert!(unregister.status().is_success(), "it had taken effect");
    world.disk_runs = true;
    world.run();
    assert!(b.status(&mut world).is_success());
    assert_eq!(world.shard.ops(), 0);
}

#[test]
fn hosts_are_told_what_others_did_to_them() {
    let (mut world, mut a, mut b) = held_by_b();
    b.admin.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    assert!(a.acquire(&mut world, PREEMPT | WRITE_EXCLUSIVE, b.key).is_success());
    let [Got::Completion(event)] = b.admin.take(&mut world)[..] else { panic!("no event") };
    assert_eq!(event.result.get(), 0x80_00_06);
    let mut log = command(admin::GET_LOG_PAGE, 0, 0x80 | 15 << 16);
    log.sgl = Sgl::transport(64);
    let page = b.admin.read(&mut world, log).unwrap();
    assert_eq!(page[..16], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
}

#[test]
fn what_is_masked_is_not_told() {
    let (mut world, mut a, mut b) = held_by_b();
    assert_eq!(b.feature(&mut world, Some(0xff), 0x82).0, Status::SUCCESS);
    assert_eq!(a.feature(&mut world, None, 0x82), (Status::SUCCESS, 0b1110), "of the namespace");
    a.nsid = 1;
    assert_eq!(a.feature(&mut world, None, 0x82), (Status::SUCCESS, 0));
    a.nsid = 2;
    b.admin.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    assert!(a.release(&mut world, 1).is_success(), "clear");
    assert!(b.admin.take(&mut world).is_empty());
    a.nsid = u32::MAX;
    assert_eq!(a.feature(&mut world, Some(0b100), 0x82).0, Status::SUCCESS);
    for nsid in 1..=3 {
        a.nsid = nsid;
        assert_eq!(a.feature(&mut world, None, 0x82).1, 0b100, "all of them: {nsid}");
    }
}

#[test]
fn what_cannot_persist_says_so_and_serves_linux_all_the_same() {
    let mut world = World::new(config());
    let (mut a, _) = hosts(&mut world, 1);
    assert!(a.register(&mut world, PERSIST).is_success());
    assert_eq!(a.report(&mut world)[9], 0, "PTPLS");
    assert_eq!(a.feature(&mut world, Some(1), 0x83).0, Status::INVALID_FIELD.dnr());
    assert_eq!(a.feature(&mut world, Some(0), 0x83).0, Status::SUCCESS);
    let mut identify = command(admin::IDENTIFY, 1, 0);
    identify.sgl = Sgl::transport(4096);
    assert_eq!(a.admin.read(&mut world, identify).unwrap()[31], 0xfe, "RESCAP");
}

#[test]
fn a_change_that_persists_is_in_force_and_answered_only_once_it_is_kept() {
    let mut world = World::new(keeping(Reservations::new(true)));
    let (mut a, mut b) = hosts(&mut world, 2);
    let register = command(io::RESERVATION_REGISTER, 2, PERSIST);
    a.io.post(&mut world, register, &keys(0, a.key));
    a.post_acquire(&mut world, WRITE_EXCLUSIVE, 0);
    assert!(a.is_quiet(&mut world), "neither, for the second needs the first");
    assert_eq!(b.report(&mut world)[5], 0, "nobody sees it yet");
    let state = kept(&mut world, true);
    assert_eq!((state.registrants().len(), state.kind()), (1, None));
    assert!(a.status(&mut world).is_success());
    assert!(b.put(&mut world).is_success(), "nothing is held yet");
    let state = kept(&mut world, true);
    assert!(a.status(&mut world).is_success());
    assert_eq!(b.put(&mut world), CONFLICT);
    // What a later process begins with.
    let mut world = World::new(keeping(state));
    let (mut a, mut b) = hosts(&mut world, 2);
    assert_eq!((b.put(&mut world), a.put(&mut world)), (CONFLICT, Status::SUCCESS));
    assert_eq!(b.report(&mut world)[..10], [1, 0, 0, 0, 1, 1, 0, 0, 0, 1]);
}

#[test]
fn a_change_that_was_not_kept_did_not_happen() {
    let mut world = World::new(keeping(Reservations::new(true)));
    let mut a = host(&mut world, A, 2);
    let register = command(io::RESERVATION_REGISTER, 2, PERSIST);
    a.io.post(&mut world, register, &keys(0, a.key));
    kept(&mut world, false);
    assert_eq!(a.status(&mut world), Status::INTERNAL_ERROR.more());
    assert_eq!(a.report(&mut world)[5], 0);
    let tag = asked(&world);
    assert!(world.shard.reservations_to_keep(tag).is_none(), "that is over");
    let (mem, now) = (&mut world.mem, world.now);
    world.shard.reservations_kept(mem, now, tag, true);
    assert_eq!(a.report(&mut world)[5], 0, "an answer too many means nothing");
    assert!(a.register(&mut world, 0).is_success(), "without persistence nobody is asked");
}

#[test]
fn the_feature_is_another_way_to_say_what_persists() {
    let mut world = World::new(keeping(Reservations::new(true)));
    let mut a = host(&mut world, A, 2);
    let mut set = command(admin::SET_FEATURES, 2, 0x83);
    set.set_cdw(11, 1);
    a.admin.post(&mut world, set, &[]);
    assert!(a.admin.take(&mut world).is_empty(), "not before it is kept");
    assert!(kept(&mut world, true).persists());
    let done = a.admin.take(&mut world);
    assert!(matches!(done[..], [Got::Completion(done)] if done.status().is_success()));
    assert_eq!(a.feature(&mut world, None, 0x83), (Status::SUCCESS, 1));
    set.set_cdw(11, 0);
    a.admin.post(&mut world, set, &[]);
    assert!(!kept(&mut world, true).persists(), "what was kept must go");
}

#[test]
fn a_replicas_reservations_outlive_a_power_cut() {
    let mut world = World::with_replica(BlockSize::B4096);
    let (mut a, mut b) = hosts(&mut world, 1);
    assert!(a.register(&mut world, PERSIST).is_success());
    assert!(b.register(&mut world, 0).is_success());
    assert!(a.acquire(&mut world, EXCLUSIVE_ACCESS, 0).is_success());
    let report = a.report(&mut world);
    let mut disk = world.pool_disk.clone();
    disk.cut();
    let mut world = World::later(disk, 2, BlockSize::B4096);
    let (mut a, mut b) = hosts(&mut world, 1);
    assert_eq!((b.get(&mut world), b.put(&mut world)), (Err(CONFLICT), CONFLICT));
    assert!(a.put(&mut world).is_success());
    assert_eq!(a.report(&mut world), report, "generation, type, keys, holder, PTPLS");
    assert!(a.release(&mut world, 1).is_success(), "clear");
    let mut disk = world.pool_disk.clone();
    disk.cut();
    let mut world = World::later(disk, 3, BlockSize::B4096);
    let (_, mut b) = hosts(&mut world, 1);
    assert!(b.put(&mut world).is_success(), "that outlives it, too");
}

#[test]
fn a_replicas_reservations_end_with_the_process_unless_they_are_to_persist() {
    let mut world = World::with_replica(BlockSize::B4096);
    let mut a = host(&mut world, A, 1);
    assert!(a.register(&mut world, 0).is_success());
    assert!(a.acquire(&mut world, WRITE_EXCLUSIVE, 0).is_success());
    let mut world = World::later(world.pool_disk.clone(), 1, BlockSize::B4096);
    let (_, mut b) = hosts(&mut world, 1);
    assert!(b.put(&mut world).is_success());
    assert_eq!(b.report(&mut world)[..10], [0; 10]);
}

#[test]
fn a_replicas_change_is_answered_when_its_pool_has_it_durably() {
    let mut world = World::with_replica(BlockSize::B4096);
    let mut a = host(&mut world, A, 1);
    world.disk_runs = false;
    let register = command(io::RESERVATION_REGISTER, 1, PERSIST);
    a.io.post(&mut world, register, &keys(0, a.key));
    assert!(a.is_quiet(&mut world));
    world.disk_runs = true;
    world.run();
    assert!(a.status(&mut world).is_success());
}

#[test]
fn a_pool_that_cannot_keep_a_change_refuses_it() {
    let mut world = World::with_replica(BlockSize::B4096);
    let mut a = host(&mut world, A, 1);
    world.pool_disk.error = Some(braid_block::IoError::Device);
    assert_eq!(a.register(&mut world, PERSIST), Status::INTERNAL_ERROR.more());
    assert_eq!(a.report(&mut world)[5], 0);
}

#[test]
fn a_snapshot_takes_reservations_that_do_not_persist() {
    let mut world = World::with_replica(BlockSize::B4096);
    let take = braid_pool::Command::Snapshot {
        replica: REPLICA,
        uuid: [2; 16],
        name: "snapshot".into(),
        created: 1,
    };
    let handle = world.pool_command(take).unwrap().handle.unwrap();
    world.unshare(&[]);
    let geometry = braid_block::Geometry::of_bytes(REPLICA_BYTES, BlockSize::B4096);
    assert!(world.shard.subsystem_add(shared(handle, true, geometry)));
    let (mut a, mut b) = hosts(&mut world, 1);
    assert!(a.register(&mut world, PERSIST).is_success());
    assert_eq!(a.report(&mut world)[9], 0, "PTPLS");
    assert!(a.acquire(&mut world, EXCLUSIVE_ACCESS, 0).is_success());
    assert_eq!(b.get(&mut world), Err(CONFLICT));
}

#[test]
fn reservations_that_make_no_sense_keep_a_replica_from_being_shared() {
    let mut world = World::with_replica(BlockSize::B4096);
    world.unshare(&[]);
    let nonsense = Reservation { kind: 0x80 | 9, ..Reservation::default() };
    let bearing = Bearing { reservation: Some(Box::new(nonsense)), ..Bearing::default() };
    let bear = braid_pool::Command::Bear { uuid: REPLICA, bearing: Box::new(bearing) };
    assert!(world.pool_command(bear).is_ok());
    let handle = world.shard.pool(POOL).unwrap().find(&REPLICA).unwrap();
    let geometry = braid_block::Geometry::of_bytes(REPLICA_BYTES, BlockSize::B4096);
    assert!(!world.shard.subsystem_add(shared(handle, false, geometry)));
}
