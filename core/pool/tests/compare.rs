//! What a comparison tells of each block.

mod common;

use braid_block::{BlockSize, Class, Memory};
use braid_pool::{
    Bearing, COMPARE_MAX, Command, Create, Done, Failure, Format, Handle, Request, State, Work,
    comparison_bytes,
};
use common::{BLOCK, TINY, UUID, World, config};
use xxhash_rust::xxh3::xxh3_128;

/// What is told of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Zero,
    Verified(u128),
    Unverified(u128),
    Lost,
}
use Told::{Lost, Unverified, Verified, Zero};

fn hash(fill: u8) -> u128 {
    xxh3_128(&[fill; BLOCK as usize])
}

/// The answer, as the request describes it.
fn parse(bytes: &[u8], blocks: usize) -> Vec<Told> {
    let told = |at: usize| {
        let from = blocks.div_ceil(4) + 16 * at;
        let hash = u128::from_le_bytes(bytes[from..from + 16].try_into().unwrap());
        match bytes[at / 4] >> (2 * (at % 4)) & 3 {
            0 | 3 if hash != 0 => panic!("a hash of what is not there"),
            0 => Zero,
            1 => Verified(hash),
            2 => Unverified(hash),
            _ => Lost,
        }
    };
    (0..blocks).map(told).collect()
}

fn ask(world: &mut World, handle: Handle, offset: u64, len: u32) -> Result<Vec<Told>, Failure> {
    world.tag += 1;
    let lease = world.mem.alloc(Class::Medium).unwrap();
    let request =
        Request { tag: world.tag, handle, work: Work::Compare { offset, len }, lease: Some(lease) };
    world.pool.submit(&mut world.mem, world.now, request);
    world.run();
    let done = world.ended.pop().expect("it ends");
    let lease = done.lease.expect("the buffer comes back");
    let bytes = world.mem.bytes(&lease).to_vec();
    world.mem.free(lease);
    done.result.map(|done| {
        assert_eq!(done, Done::default());
        parse(&bytes, (len / BLOCK as u32) as usize)
    })
}

/// Compares `count` blocks.
fn compare(world: &mut World, handle: Handle, block: u64, count: u32) -> Vec<Told> {
    ask(world, handle, block * BLOCK, count * BLOCK as u32).expect("an answer")
}

#[test]
fn the_hash_is_the_one_that_all_versions_agree_on() {
    assert_eq!(xxh3_128(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f, "its published value");
    assert_eq!(comparison_bytes(COMPARE_MAX), 4160);
}

#[test]
fn blocks_are_zeros_or_told_by_their_hash_wherever_they_are() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(1, 4 << 20);
    assert_eq!(compare(&mut world, handle, 0, 256), [Zero; 256], "nothing was written");
    // In several clusters, beginning in the middle of one.
    for (block, fill) in [(40, 1), (63, 2), (64, 3), (200, 4), (201, 0), (295, 5)] {
        world.write(handle, block, fill).unwrap();
    }
    let told = compare(&mut world, handle, 40, 256);
    let mut expected = [Zero; 256];
    for (block, fill) in [(40, 1), (63, 2), (64, 3), (200, 4), (295, 5)] {
        expected[block - 40] = Verified(hash(fill));
    }
    assert_eq!(told, expected, "a block of zeros is one that is not there");
    world.zero(handle, 64, 1).unwrap();
    assert_eq!(compare(&mut world, handle, 63, 3), [Verified(hash(2)), Zero, Zero]);
    world.leave();
}

#[test]
fn what_is_read_is_what_the_device_holds_and_a_lost_block_spoils_no_other() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(1, 4 << 20);
    world.write_many(handle, 0, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    world.flush(handle);
    let place = |world: &World, fill: u8| {
        let is = |bytes: &Vec<u8>| bytes.iter().all(|byte| *byte == fill);
        *world.disk.durable.iter().find(|(_, bytes)| is(bytes)).unwrap().0
    };
    let (damaged, bad) = (place(&world, 3), place(&world, 6));
    let expected = [1, 2, 3, 4, 5, 6, 7, 8].map(|fill| Verified(hash(fill)));
    assert_eq!(compare(&mut world, handle, 0, 8), expected);
    world.disk.damage(damaged * BLOCK + 17);
    world.disk.bad.push(bad);
    let mut expected = expected;
    (expected[2], expected[5]) = (Lost, Lost);
    let told = compare(&mut world, handle, 0, 10);
    assert_eq!(told[..8], expected);
    assert_eq!(told[8..], [Zero; 2]);
    assert_eq!(world.pool.state(), State::Open);
    let media = |note: &&braid_pool::Note| matches!(note, braid_pool::Note::Media { .. });
    assert_eq!(world.notes.iter().filter(media).count(), 1, "of the one that does not match");
    assert_eq!(world.read(handle, 1), Ok(2));
    world.leave();
}

#[test]
fn a_block_that_cannot_be_verified_after_a_power_cut_says_so() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(7, 4 << 20);
    let member = Bearing { member: Some(true), ..Bearing::default() };
    world.command(Command::Bear { uuid: [7; 16], bearing: Box::new(member) }).unwrap();
    world.write_many(handle, 3, &[0x33, 0x34, 0x35]).unwrap();
    world.flush(handle);
    world.flush(handle);
    world.write(handle, 3, 0x44).unwrap();
    world.write(handle, 5, 0).unwrap();
    // The data made it, its cells did not.
    let journal = 4..4 + u64::from(Format::for_device(UUID, TINY).ring_blocks);
    let mut world = world.cut(|block| !journal.contains(&block), config(2));
    let handle = world.handle(7);
    let told = compare(&mut world, handle, 2, 5);
    let of = [Zero, Unverified(hash(0x44)), Verified(hash(0x34)), Unverified(hash(0)), Zero];
    assert_eq!(told, of, "zeros that match nothing are not what was asked for");
    world.leave();
}

#[test]
fn snapshots_are_compared_by_their_handles() {
    let mut world = World::fresh(&config(1));
    let handle = world.replica(1, 1 << 20);
    world.write_many(handle, 0, &[1, 2]).unwrap();
    let snapshot = world.snapshot(1, 9).unwrap().handle.unwrap();
    world.write(handle, 1, 3).unwrap();
    world.zero(handle, 0, 1).unwrap();
    let old = [Verified(hash(1)), Verified(hash(2)), Zero];
    assert_eq!(compare(&mut world, snapshot, 0, 3), old);
    assert_eq!(compare(&mut world, handle, 0, 3), [Zero, Verified(hash(3)), Zero]);
    world.leave();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::fresh(&config(1));
    let create = Create {
        uuid: [1; 16],
        name: "one".into(),
        bytes: 1 << 20,
        block: BlockSize::B512,
        thick: false,
        created: 1,
    };
    let handle = world.command(Command::Create(Box::new(create))).unwrap().handle.unwrap();
    let block = BLOCK as u32;
    for (offset, len) in [(512, block), (0, 512), (0, (1 << 20) + block), (1 << 20, block)] {
        assert_eq!(ask(&mut world, handle, offset, len), Err(Failure::OutOfRange));
    }
    assert_eq!(ask(&mut world, handle, u64::MAX - 4095, block), Err(Failure::OutOfRange));
    assert_eq!(ask(&mut world, Handle(77), 0, block), Err(Failure::NotFound));
    assert_eq!(ask(&mut world, handle, 0, 0), Ok(vec![]));
    let lease = world.mem.alloc(Class::Small);
    let work = Work::Compare { offset: 0, len: 1 << 20 };
    world.pool.submit(&mut world.mem, world.now, Request { tag: 1, handle, work, lease });
    world.run();
    let done = world.ended.pop().unwrap();
    assert_eq!(done.result, Err(Failure::Invalid), "a page is too small for the answer");
    world.ended.push(done);
    world.leave();
}
