//! Replicas, snapshots and clones: made, listed, and unmade in any order, whatever happens.

mod common;
#[path = "layers/marks.rs"]
mod marks;
#[path = "layers/scrub.rs"]
mod scrub;

use std::collections::BTreeMap;

use braid_block::{BlockSize, Class, Memory};
use braid_pool::{
    Allocation, Bearing, Command, Config, Create, Device, Failure, Fence, Handle, Note, Request,
    Scope, State, Work, check,
};
use common::{BLOCK, World, config};

const CLUSTER: u64 = 256 << 10;

fn big(seed: u64) -> Config {
    let device = Device { bytes: 64 << 20, ..config(seed).device };
    Config { device, ..config(seed) }
}

fn create(n: u8, bytes: u64, thick: bool) -> Command {
    let name = format!("replica {n}");
    let block = BlockSize::B4096;
    Command::Create(Box::new(Create { uuid: [n; 16], name, bytes, block, thick, created: 1 }))
}

fn snapshot(of: u8, n: u8) -> Command {
    let name = format!("snapshot {n}");
    Command::Snapshot { replica: [of; 16], uuid: [n; 16], name, created: 2 }
}

fn clone(of: u8, n: u8) -> Command {
    Command::Clone { snapshot: [of; 16], uuid: [n; 16], name: format!("clone {n}"), created: 3 }
}

fn delete(n: u8) -> Command {
    Command::DeleteSnapshot { uuid: [n; 16] }
}

fn destroy(n: u8) -> Command {
    Command::Destroy { uuid: [n; 16] }
}

fn reclaimed(world: &World) -> usize {
    world.notes.iter().filter(|note| **note == Note::Reclaimed).count()
}

#[test]
fn commands_are_repeated_without_harm_and_refused_for_good_reasons() {
    let mut world = World::fresh(&config(1));
    let made = world.command(create(1, 1 << 20, false)).unwrap();
    assert_eq!(world.command(create(1, 1 << 20, false)).unwrap().handle, made.handle);
    assert_eq!(world.command(create(1, 2 << 20, false)), Err(Failure::Exists));
    assert_eq!(world.command(create(2, 0, false)), Err(Failure::Invalid));
    assert_eq!(world.command(create(2, u64::MAX, false)), Err(Failure::Limit));
    assert_eq!(world.command(create(2, 1 << 30, true)), Err(Failure::NoSpace));
    let taken = world.command(snapshot(1, 9)).unwrap();
    assert_eq!(world.command(snapshot(1, 9)).unwrap().handle, taken.handle);
    assert_eq!(world.command(snapshot(9, 8)), Err(Failure::ReadOnly));
    assert_eq!(world.command(snapshot(7, 8)), Err(Failure::NotFound));
    assert_eq!(world.command(destroy(9)), Err(Failure::Invalid));
    assert_eq!(world.command(delete(1)), Err(Failure::Invalid));
    let cloned = world.command(clone(9, 3)).unwrap();
    assert_eq!(world.command(clone(9, 3)).unwrap().handle, cloned.handle);
    assert_eq!(world.command(clone(1, 4)), Err(Failure::Invalid));
    for command in [destroy(3), delete(9), destroy(1)] {
        world.command(command.clone()).unwrap();
        world.command(command).unwrap();
    }
    let long =
        Command::Clone { snapshot: [9; 16], uuid: [5; 16], name: "x".repeat(64), created: 0 };
    assert_eq!(world.command(long), Err(Failure::Invalid));
    assert_eq!(world.pool.layers().count(), 0);
    world.leave();
}

#[test]
fn a_replica_grows_and_never_shrinks() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(1, 1 << 20);
    let resize = |bytes| Command::Resize { uuid: [1; 16], bytes };
    world.command(resize((2 << 20) - 100)).unwrap();
    assert_eq!(world.command(resize(1 << 20)), Err(Failure::Invalid));
    world.write(handle, 511, 7).unwrap();
    world.flush(handle);
    let mut world = world.cut(|_| false, config(2));
    let handle = world.handle(1);
    assert_eq!(world.pool.layer(handle).unwrap().bytes, 2 << 20);
    assert_eq!(world.read(handle, 511), Ok(7));
    world.leave();
}

#[test]
fn a_thick_replica_keeps_its_space_until_a_snapshot() {
    let mut world = World::fresh(&config(1));
    let free = world.pool.info().available;
    world.command(create(1, 2 << 20, true)).unwrap();
    let info = world.pool.info();
    assert_eq!(info.promised, 2 << 20);
    assert!(free - info.available >= 2 << 20);
    let handle = world.handle(1);
    world.write(handle, 0, 1).unwrap();
    assert_eq!(world.pool.info().promised, (2 << 20) - CLUSTER);
    world.command(Command::Resize { uuid: [1; 16], bytes: 3 << 20 }).unwrap();
    assert_eq!(world.pool.info().promised, (3 << 20) - CLUSTER);
    let mut world = world.cut(|_| false, config(2));
    let promised = world.pool.info().promised;
    assert!(((3 << 20) - CLUSTER..=3 << 20).contains(&promised));
    world.command(snapshot(1, 9)).unwrap();
    assert_eq!(world.pool.info().promised, 0);
    assert!(!world.pool.layer(world.handle(1)).unwrap().thick);
    world.leave();
}

#[test]
fn what_replication_gives_a_replica_survives_snapshots_and_crashes() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(1, 1 << 20);
    let fence = Fence { epoch: 5, owner: [6; 16] };
    let bearing = Bearing {
        fence: Some(fence),
        member: Some(true),
        record: Some(vec![7; 3000].into()),
        reservation: None,
    };
    world.command(Command::Bear { uuid: [1; 16], bearing: Box::new(bearing.clone()) }).unwrap();
    let instance = world.pool.layer(handle).unwrap().instance;
    world.command(snapshot(1, 9)).unwrap();
    assert_eq!(world.handle(1), handle, "its number stays");
    assert_eq!(world.pool.layer(handle).unwrap().instance, instance);
    let mut world = world.cut(|_| false, config(2));
    let nothing = Box::new(Bearing::default());
    world.command(Command::Bear { uuid: [1; 16], bearing: nothing }).unwrap();
    let kept = world.pool.bearing(world.handle(1)).unwrap();
    assert_eq!((kept.fence, kept.member), (Some(fence), Some(true)));
    assert_eq!(kept.record, bearing.record);
    world.leave();
}

/// Everything that a pool's structures promise is true.
fn sound(world: &mut World) {
    world.run();
    let report =
        check(&mut world.pool, &mut world.mem, &mut world.disk, world.now, Scope::default());
    assert_eq!(report.errors, 0, "{:?}", report.findings);
}

#[test]
fn a_crash_at_any_write_of_a_snapshot_leaves_the_record_where_it_belongs() {
    for writes in 0.. {
        let mut world = World::fresh(&config(1));
        let handle = world.replica(1, 1 << 20);
        let record: Box<[u8]> = vec![7; 3072].into();
        let bearing = Bearing { record: Some(record.clone()), ..Bearing::default() };
        world.command(Command::Bear { uuid: [1; 16], bearing: Box::new(bearing) }).unwrap();
        world.write(handle, 5, 5).unwrap();
        world.disk.writes_left = Some(writes);
        let taken = world.command(snapshot(1, 9));
        let mut disk = world.leave();
        disk.writes_left = None;
        disk.cut(|block| (block.wrapping_mul(0x9e37_79b9) ^ writes) % 3 == 0);
        let mut world = World::open(disk, config(2));
        world.idle(3);
        sound(&mut world);
        let there = world.pool.find(&[9; 16]).is_some();
        assert!(there || taken.is_err());
        assert_eq!(world.pool.layers().count(), 1 + usize::from(there));
        let nothing = Box::new(Bearing::default());
        world.command(Command::Bear { uuid: [1; 16], bearing: nothing }).unwrap();
        assert_eq!(world.pool.bearing(world.handle(1)).unwrap().record, Some(record));
        if there {
            assert_eq!(world.pool.bearing(world.handle(9)).unwrap().record, None);
        }
        world.command(snapshot(1, 9)).unwrap();
        world.command(destroy(1)).unwrap();
        world.command(delete(9)).unwrap();
        world.idle(10);
        assert_eq!(world.pool.info().data, 0);
        sound(&mut world);
        world.leave();
        if taken.is_ok() {
            break;
        }
    }
}

fn status(
    world: &mut World,
    of: Handle,
    at: u64,
    count: u64,
    room: usize,
) -> Result<Entries, Failure> {
    let lease = world.mem.alloc(Class::Small).unwrap();
    let work = Work::Status { offset: at * BLOCK, len: count * BLOCK };
    world.tag += 1;
    let request = Request { tag: world.tag, handle: of, work, lease: Some(lease) };
    world.pool.submit(&mut world.mem, world.now, request);
    world.run();
    let done = world.ended.pop().expect("it ends");
    let lease = done.lease.expect("the buffer comes back");
    let entries = world.mem.bytes(&lease)[..room / 16 * 16].chunks(16);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let entries = entries.map(|raw| (word(&raw[..8]), word(&raw[8..])));
    let entries = done.result.map(|done| entries.take(done.count as usize).collect());
    world.mem.free(lease);
    entries
}

/// First byte, and bytes with the flag.
type Entries = Vec<(u64, u64)>;

/// Random work on a few replicas, beside a model of what they hold.
struct Model {
    world: World,
    random: u64,
    /// Of heads and snapshots.
    heads: BTreeMap<u8, Vec<u8>>,
    snapshots: BTreeMap<u8, Vec<u8>>,
    next: u8,
    reopened: u64,
}

const BLOCKS: u64 = 192;

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            world: World::fresh(&big(seed)),
            random: seed,
            heads: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            next: 1,
            reopened: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        (self.random >> 33) % below
    }

    fn pick(&mut self, snapshots: bool) -> Option<u8> {
        let len = if snapshots { self.snapshots.len() } else { self.heads.len() } as u64;
        let at = self.draw(len.max(1)) as usize;
        let map = if snapshots { &self.snapshots } else { &self.heads };
        map.keys().copied().nth(at)
    }

    fn step(&mut self) {
        let n = self.next;
        match self.draw(20) {
            0 if self.heads.len() < 3 => {
                self.world.replica(n, BLOCKS * BLOCK);
                self.heads.insert(n, vec![0; BLOCKS as usize]);
                self.next += 1;
            }
            1 | 2 if self.snapshots.len() < 8 => {
                let Some(of) = self.pick(false) else { return };
                self.world.command(snapshot(of, n)).unwrap();
                self.snapshots.insert(n, self.heads[&of].clone());
                self.next += 1;
            }
            3 if self.heads.len() < 5 => {
                let Some(of) = self.pick(true) else { return };
                self.world.command(clone(of, n)).unwrap();
                self.heads.insert(n, self.snapshots[&of].clone());
                self.next += 1;
            }
            4 | 5 => {
                let Some(gone) = self.pick(true) else { return };
                self.world.command(delete(gone)).unwrap();
                self.snapshots.remove(&gone);
            }
            6 if self.heads.len() > 2 => {
                let Some(gone) = self.pick(false) else { return };
                self.world.command(destroy(gone)).unwrap();
                self.heads.remove(&gone);
            }
            7 => self.reopen(),
            8 => self.world.idle(4),
            9..=11 => self.zero(),
            _ => self.write(),
        }
    }

    fn write(&mut self) {
        let Some(head) = self.pick(false) else { return };
        let handle = self.world.handle(head);
        let first = self.draw(BLOCKS);
        let count = (1 + self.draw(16)).min(BLOCKS - first);
        let fill: Vec<u8> = (0..count).map(|_| 1 + self.draw(255) as u8).collect();
        self.world.write_many(handle, first, &fill).unwrap();
        let held = self.heads.get_mut(&head).unwrap();
        held[first as usize..][..fill.len()].copy_from_slice(&fill);
    }

    fn zero(&mut self) {
        let Some(head) = self.pick(false) else { return };
        let handle = self.world.handle(head);
        let (first, whole) = (self.draw(BLOCKS), self.draw(3) == 0);
        let (first, count) = if whole { (first / 64 * 64, 64) } else { (first, 5) };
        let count = count.min(BLOCKS - first);
        self.world.zero(handle, first, count).unwrap();
        self.heads.get_mut(&head).unwrap()[first as usize..][..count as usize].fill(0);
    }

    fn reopen(&mut self) {
        self.reopened += 1;
        let kind = self.draw(3);
        let config = big(self.random ^ self.reopened);
        let mut world = std::mem::replace(&mut self.world, World::create(big(1)));
        if kind == 1
            && let Some(head) = self.pick(false)
        {
            world.flush(world.handle(head));
        }
        self.world = match kind {
            0 => {
                world.stop();
                World::open(world.leave(), config)
            }
            1 => world.cut(|_| false, config),
            _ => world.kill(config),
        };
        assert_eq!(self.world.pool.state(), State::Open, "{:?}", self.world.notes);
    }

    fn compare(&mut self) {
        for (n, held) in self.heads.iter().chain(&self.snapshots) {
            let handle = self.world.handle(*n);
            for (block, byte) in (0..).zip(held) {
                let read = self.world.read(handle, block);
                assert_eq!(read, Ok(*byte), "block {block} of {n}: {:?}", self.world.notes);
            }
        }
        sound(&mut self.world);
    }

    fn end(mut self) {
        for n in self.snapshots.keys() {
            self.world.command(delete(*n)).unwrap();
        }
        for n in self.heads.keys() {
            self.world.command(destroy(*n)).unwrap();
        }
        self.world.idle(20);
        let info = self.world.pool.info();
        assert_eq!((info.data, info.quarantine, info.promised), (0, 0, 0));
        self.world.leave();
    }
}

#[test]
fn every_replica_and_snapshot_holds_what_it_should_whatever_comes_and_goes() {
    for seed in 1..=seeds() {
        let mut model = Model::new(seed);
        for step in 0..200 {
            model.step();
            if step % 20 == 19 {
                model.compare();
            }
        }
        model.end();
    }
}

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

/// A replica with snapshots 11 and 12 below it, all with data of their own, flushed.
fn chain(seed: u64) -> (World, Handle) {
    let mut world = World::fresh(&config(seed));
    let handle = world.replica(1, 1 << 20);
    world.write_many(handle, 0, &[1; 8]).unwrap();
    world.write_many(handle, 64, &[1; 8]).unwrap();
    world.write_many(handle, 128, &[1; 8]).unwrap();
    world.command(snapshot(1, 11)).unwrap();
    world.write_many(handle, 4, &[2; 8]).unwrap();
    world.zero(handle, 64, 64).unwrap();
    world.command(snapshot(1, 12)).unwrap();
    world.write_many(handle, 6, &[3; 2]).unwrap();
    world.flush(handle);
    (world, handle)
}

fn expect(world: &mut World, n: u8) {
    let handle = world.handle(n);
    for block in 0..192 {
        let byte = match (n, block) {
            (1, 6 | 7) => 3,
            (1 | 12, 4..12) => 2,
            (1 | 12, 64..72) => 0,
            (_, 0..8 | 64..72 | 128..136) => 1,
            _ => 0,
        };
        assert_eq!(world.read(handle, block), Ok(byte), "block {block} of {n}");
    }
}

#[test]
fn a_crash_at_any_write_while_space_is_given_back_harms_nobody() {
    for gone in [[11, 12], [12, 11]] {
        for writes in 0.. {
            let (mut world, _) = chain(1);
            world.disk.writes_left = Some(writes);
            for n in gone {
                let _ = world.command(delete(n));
            }
            world.idle(10);
            let survived = world.pool.state() == State::Open;
            let mut disk = world.leave();
            disk.writes_left = None;
            let seed = writes;
            disk.cut(|block| (block.wrapping_mul(0x9e37_79b9) ^ seed) % 3 == 0);
            let mut world = World::open(disk, config(2));
            assert_eq!(world.pool.state(), State::Open, "after {writes}: {:?}", world.notes);
            world.idle(10);
            for n in [11, 12, 1] {
                if world.pool.find(&[n; 16]).is_some() {
                    expect(&mut world, n);
                }
            }
            for n in gone {
                world.command(delete(n)).unwrap();
            }
            world.idle(10);
            expect(&mut world, 1);
            sound(&mut world);
            assert_eq!(world.pool.info().data, world.pool.layer(world.handle(1)).unwrap().own);
            world.leave();
            if survived {
                break;
            }
        }
    }
}

#[test]
fn snapshots_of_a_replica_are_listed_oldest_first_and_none_of_others() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(1, 1 << 20);
    assert_eq!(world.pool.snapshots(handle), [[0; 16]; 0]);
    for (n, fill) in [(9, 1), (3, 2), (7, 3)] {
        world.write(handle, 0, fill).unwrap();
        world.command(snapshot(1, n)).unwrap();
    }
    let cloned = world.command(clone(3, 5)).unwrap().handle.unwrap();
    assert_eq!(world.pool.snapshots(cloned), [[0; 16]; 0]);
    world.command(snapshot(5, 4)).unwrap();
    world.command(delete(3)).unwrap();
    assert_eq!(world.pool.snapshots(handle), [[9; 16], [7; 16]]);
    assert_eq!(world.pool.snapshots(cloned), [[4; 16]]);
    world.idle(5);
    let world = world.kill(config(2));
    assert_eq!(world.pool.snapshots(world.handle(1)), [[9; 16], [7; 16]]);
    assert_eq!(world.pool.snapshots(world.handle(5)), [[4; 16]]);
    assert_eq!(world.pool.snapshots(world.handle(9)), [[0; 16]; 0]);
    world.leave();
}

#[test]
fn a_deleted_layer_with_many_children_waits_until_one_is_left() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(1, 1 << 20);
    world.write_many(handle, 0, &[5; 32]).unwrap();
    world.command(snapshot(1, 9)).unwrap();
    world.command(clone(9, 2)).unwrap();
    world.command(clone(9, 3)).unwrap();
    world.command(delete(9)).unwrap();
    world.idle(5);
    assert_eq!(reclaimed(&world), 0);
    for n in 1..=3 {
        assert_eq!(world.read(world.handle(n), 31), Ok(5));
    }
    world.command(destroy(1)).unwrap();
    world.command(destroy(3)).unwrap();
    world.idle(5);
    assert_eq!(reclaimed(&world), 3);
    let info = world.pool.layer(world.handle(2)).unwrap();
    assert_eq!((info.own, info.shared), (CLUSTER, 0));
    assert_eq!(world.read(world.handle(2), 31), Ok(5));
    world.leave();
}

#[test]
fn a_chain_of_64_snapshots_goes_in_any_order() {
    let mut world = World::fresh(&big(1));
    let handle = world.replica(1, 1 << 20);
    for n in 0..64_u8 {
        world.write(handle, u64::from(n), n + 1).unwrap();
        world.command(snapshot(1, 100 + n)).unwrap();
    }
    for n in 0..64_u8 {
        assert_eq!(world.read(handle, u64::from(n)), Ok(n + 1));
        let at = world.handle(100 + n);
        assert_eq!(world.read(at, u64::from(n)), Ok(n + 1));
        assert_eq!(world.read(at, u64::from(n) + 1), Ok(0));
    }
    for n in 0..64_u8 {
        world.command(delete(100 + (u32::from(n) * 37 % 64) as u8)).unwrap();
    }
    world.idle(30);
    assert_eq!(reclaimed(&world), 64, "{:?}", world.pool.info());
    for n in 0..64_u8 {
        assert_eq!(world.read(handle, u64::from(n)), Ok(n + 1));
    }
    assert_eq!(world.pool.info().data, CLUSTER);
    world.leave();
}

#[test]
fn a_block_that_is_lost_stays_lost_when_its_snapshot_goes() {
    let (mut world, handle) = chain(1);
    world.idle(10);
    let bytes = [1; BLOCK as usize];
    let is_lost = |block: &Vec<u8>| block[..] == bytes[..];
    let lost: Vec<u64> =
        world.disk.durable.iter().filter(|(_, b)| is_lost(b)).map(|(at, _)| *at).collect();
    // The first block of the replica, and of the snapshots.
    world.disk.damage(lost[0] * BLOCK);
    assert_eq!(world.read(handle, 0), Err(Failure::Media(0)));
    for n in [11, 12] {
        world.command(delete(n)).unwrap();
    }
    world.idle(10);
    assert_eq!(world.read(handle, 0), Err(Failure::Media(0)));
    for (block, byte) in [(1, 1), (4, 2), (6, 3), (64, 0), (128, 1)] {
        assert_eq!(world.read(handle, block), Ok(byte), "block {block}");
    }
    world.write(handle, 0, 9).unwrap();
    world.idle(1300);
    assert_eq!(world.read(handle, 0), Ok(9));
    assert_eq!(reclaimed(&world), 2);
    world.leave();
}

#[test]
fn what_is_freed_is_discarded_once_it_is_settled_and_only_where_that_is_wanted() {
    for discards in [false, true] {
        let device = Device { discards, ..config(1).device };
        let mut world = World::fresh(&Config { device, ..config(1) });
        let handle = world.replica(1, 8 << 20);
        for cluster in 0..16 {
            world.write(handle, cluster * 64, 1).unwrap();
        }
        world.zero(handle, 0, 8 * 64).unwrap();
        assert_eq!(world.pool.info().quarantine, 8 * CLUSTER);
        assert_eq!(world.pool.counters().device_discards, 0, "not before it is settled");
        world.idle(6);
        let info = world.pool.info();
        assert_eq!((info.quarantine, info.data), (0, 8 * CLUSTER));
        let sent = world.pool.counters().device_discards;
        assert_eq!(sent > 0, discards, "{sent} discards");
        assert!(sent < 8, "neighbours together");
        sound(&mut world);
        world.leave();
    }
}

#[test]
fn a_pool_grows_with_its_device() {
    let mut world = World::fresh(&config(1));
    let before = world.pool.info();
    let handle = world.replica(1, 64 << 20);
    let grow = Command::Grow { bytes: 48 << 20 };
    for writes in [0, 1, 2, 3, 4, 5, 6] {
        let mut disk = world.disk.clone();
        disk.writes_left = Some(writes);
        let mut other = World::open(disk, config(2));
        let _ = other.command(grow.clone());
        let mut disk = other.leave();
        disk.writes_left = None;
        disk.cut(|block| block % 2 == 0);
        let device = Device { bytes: 48 << 20, ..config(3).device };
        let mut other = World::open(disk, Config { device, ..config(3) });
        assert_eq!(other.pool.state(), State::Open, "{:?}", other.notes);
        sound(&mut other);
        other.leave();
    }
    world.command(grow.clone()).unwrap();
    world.command(grow).unwrap();
    assert_eq!(world.command(Command::Grow { bytes: 32 << 20 }), Err(Failure::Invalid));
    let after = world.pool.info();
    assert!(after.capacity >= before.capacity + (31 << 20), "{after:?}");
    for cluster in 0..120_u64 {
        world.write(handle, cluster * 64, cluster as u8 + 1).unwrap();
    }
    world.flush(handle);
    let device = Device { bytes: 48 << 20, ..config(3).device };
    let mut world = world.cut(|_| false, Config { device, ..config(3) });
    assert_eq!(world.pool.state(), State::Open, "{:?}", world.notes);
    assert_eq!(world.pool.info().capacity, after.capacity);
    let handle = world.handle(1);
    for cluster in 0..120_u64 {
        assert_eq!(world.read(handle, cluster * 64), Ok(cluster as u8 + 1));
    }
    world.leave();
}

#[test]
fn a_full_pool_lets_everything_go_and_has_space_again() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(1, 64 << 20);
    let mut written = 0;
    let full = loop {
        if let Err(failure) = world.write(handle, written * 64, 1) {
            break failure;
        }
        written += 1;
    };
    assert_eq!(full, Failure::NoSpace);
    assert_eq!(world.write(handle, 0, 2), Ok(braid_pool::Done::default()), "its own");
    world.command(snapshot(1, 9)).unwrap();
    assert_eq!(world.write(handle, 0, 3), Err(Failure::NoSpace));
    assert_eq!(world.read(handle, 0), Ok(2));
    world.command(delete(9)).unwrap();
    world.idle(5);
    world.write(handle, 0, 3).unwrap();
    world.zero(handle, 64, 64).unwrap();
    world.write(handle, (written + 1) * 64, 4).expect("what was freed is settled first");
    world.command(destroy(1)).unwrap();
    world.idle(10);
    assert_eq!(world.pool.info().data, 0);
    world.leave();
}

#[test]
fn status_tells_what_is_allocated() {
    let (mut world, handle) = chain(1);
    world.write(handle, 200, 4).unwrap();
    let bits = Allocation::ALLOCATED;
    let range = |from: u64, to: u64, flag: u64| (from * BLOCK, ((to - from) * BLOCK) | flag);
    let all = [
        range(1, 12, bits),
        range(12, 128, 0),
        range(128, 136, bits),
        range(136, 200, 0),
        range(200, 201, bits),
        range(201, 256, 0),
    ];
    assert_eq!(status(&mut world, handle, 1, 255, 4096), Ok(all.to_vec()));
    assert_eq!(status(&mut world, handle, 1, 255, 40), Ok(all[..2].to_vec()), "as many as fit");
    assert_eq!(status(&mut world, handle, 1, 256, 4096), Err(Failure::OutOfRange));
    let snapshot = world.handle(11);
    assert_eq!(
        status(&mut world, snapshot, 60, 8, 4096),
        Ok(vec![range(60, 64, 0), range(64, 68, bits)])
    );
    world.leave();
}
