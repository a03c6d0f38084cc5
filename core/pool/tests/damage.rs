//! A device may hold anything: no content makes a pool panic, hang or take without bound, and what
//! it cannot read it says so.

mod common;

use braid_block::Memory;
use braid_pool::{Command, Scope, State, Work, check};
use common::{BLOCK, Disk, UUID, World, config};

/// Numbers without a pattern.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// A pool with a bit of everything, stopped in order or not.
fn lived(seed: u64, stop: bool) -> Disk {
    let mut dice = Dice(seed | 1);
    let mut world = World::fresh(&config(seed));
    let a = world.replica(1, 8 << 20);
    let b = world.replica(2, 200 << 20);
    for n in 0..60_u8 {
        let block = dice.roll(2000);
        let _ = world.write_many(a, block % 400, &[n + 1, n + 2]);
        let _ = world.write(b, block % 10 * 5000, n + 3);
        match dice.roll(12) {
            0 => drop(world.zero(a, block, 10)),
            1 => world.flush(b),
            2 => world.idle(3),
            3 => drop(world.snapshot(1, 100 + n)),
            4 => drop(world.snapshot(2, 200 + n / 2)),
            5 => drop(world.delete_snapshot(100 + n.saturating_sub(5))),
            _ => {}
        }
    }
    if stop {
        world.stop();
    }
    let mut disk = world.leave();
    disk.cut(|_| true);
    disk
}

/// What a block of the pool's own is: zero for none.
fn kind(bytes: &[u8]) -> u32 {
    match u32::from_le_bytes(bytes[..4].try_into().unwrap()) {
        kind @ 1..=11 => kind,
        magic if magic == u32::from_le_bytes(*b"BJNL") => 12,
        _ => 0,
    }
}

/// Makes the checksum right again.
fn seal(bytes: &mut [u8]) {
    let seed = if kind(bytes) == 1 { 0 } else { crc32c::crc32c(&UUID) };
    bytes[4..8].fill(0);
    let crc = crc32c::crc32c_append(seed, bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Makes the blocks of the journal chain again, whatever they say.
fn chain(disk: &mut Disk) {
    let seq = |bytes: &[u8]| u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    let journal = disk.durable.iter().filter(|(_, bytes)| kind(bytes) == 12);
    let mut blocks: Vec<(u64, u64)> = journal.map(|(at, bytes)| (seq(bytes), *at)).collect();
    blocks.sort_unstable();
    for pair in blocks.windows(2) {
        let crc = disk.durable[&pair[0].1][4..8].to_vec();
        let bytes = disk.durable.get_mut(&pair[1].1).unwrap();
        bytes[24..28].copy_from_slice(&crc);
        seal(bytes);
    }
}

fn harm(disk: &mut Disk, dice: &mut Dice) {
    let cells = dice.roll(3) == 0;
    let journal = |bytes: &[u8]| kind(bytes) != 0 && (!cells || kind(bytes) == 12);
    let blocks: Vec<u64> =
        disk.durable.iter().filter(|(_, bytes)| journal(bytes)).map(|(at, _)| *at).collect();
    for _ in 0..=dice.roll(4) {
        let at = blocks[dice.roll(blocks.len() as u64) as usize];
        let bytes = disk.durable.get_mut(&at).unwrap();
        match dice.roll(10) {
            0 => bytes.fill(0),
            1 => {
                let from = blocks[dice.roll(blocks.len() as u64) as usize];
                let other = disk.durable[&from].clone();
                disk.durable.insert(at, other);
            }
            2 => disk.bad.push(at),
            _ => {
                for _ in 0..=dice.roll(3) {
                    // Where fields are dense: headers, and the first entries.
                    let end = if dice.roll(2) == 0 { 400 } else { BLOCK };
                    let place = 8 + dice.roll(end - 8) as usize;
                    bytes[place] = match dice.roll(3) {
                        0 => bytes[place] ^ 1 << dice.roll(8),
                        1 => 0xff,
                        _ => dice.roll(256) as u8,
                    };
                }
                seal(bytes);
                // The other slot says the same, but its address.
                let (copy, twin) = (bytes.clone(), at ^ 1);
                if dice.roll(2) == 0
                    && disk.durable.get(&twin).is_some_and(|b| kind(b) == kind(&copy))
                {
                    let mut copy = copy;
                    copy[8..16].copy_from_slice(&(twin * BLOCK).to_le_bytes());
                    seal(&mut copy);
                    disk.durable.insert(twin, copy);
                }
            }
        }
    }
    if cells {
        chain(disk);
    }
}

fn live(disk: Disk, seed: u64, dice: &mut Dice) {
    let mut world = World::open(disk, config(seed));
    if world.pool.state() != State::Open {
        world.leave();
        return;
    }
    let (now, scope) = (world.now, Scope::default());
    check(&mut world.pool, &mut world.mem, &mut world.disk, now, scope);
    for n in 0..30 {
        let handles: Vec<_> = world.pool.layers().map(|layer| layer.handle).collect();
        let Some(handle) = handles.get(dice.roll(handles.len().max(1) as u64) as usize) else {
            break;
        };
        let block = dice.roll(2048);
        let _ = world.read(*handle, block);
        let _ = world.write_many(*handle, block, &[n, n, n]);
        match dice.roll(8) {
            0 => drop(world.zero(*handle, block, 70)),
            1 => drop(world.try_flush(*handle)),
            2 => drop(world.snapshot(1, 90 + n)),
            3 => drop(world.delete_snapshot(100 + n)),
            4 => world.idle(3),
            5 => {
                let work = Work::Compare { offset: (block / 256) << 20, len: 1 << 20 };
                let done = world.request(*handle, work, None);
                done.lease.into_iter().for_each(|lease| world.mem.free(lease));
            }
            6 => {
                let uuid = world.pool.layer(*handle).map_or([0; 16], |layer| layer.uuid);
                let _ = world.command(Command::Marks { uuid });
                let _ = world.pool.take_marks(world.tag);
                let regions = [(0, 2), (4, u32::MAX)].into();
                let _ = world.command(Command::Clean { uuid, regions });
            }
            _ => {}
        }
        if world.pool.state() != State::Open {
            break;
        }
    }
    if world.pool.state() == State::Open {
        world.try_stop();
    }
    world.leave();
}

#[test]
fn no_content_of_the_device_makes_a_pool_panic() {
    let rounds: u64 = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let first: u64 = std::env::var("ROUND").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let images: Vec<Disk> = (0..4).map(|n| lived(n + 7, n % 2 == 0)).collect();
    for round in first..first + rounds {
        let mut dice = Dice(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut disk = images[(round % 4) as usize].clone();
        harm(&mut disk, &mut dice);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            live(disk, round, &mut dice);
        }));
        assert!(outcome.is_ok(), "round {round}");
    }
}
