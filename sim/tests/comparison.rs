//! What a pool tells of blocks is what a nexus reads.

use braid_block::{BlockSize, Memory};
use braid_nexus::wire::{Comparison, Content, REGION, comparison_bytes};
use braid_pool::{COMPARE_MAX, Command, Config, Create, Device, Format, Limits, Work};
use braid_sim::{Plain, Ram};

const BLOCK: usize = 4096;
/// A block that is lost.
const LOST: usize = 9;
/// Turns that anything here may take.
const TURNS: u64 = 1 << 16;

#[test]
fn answers_are_as_long_to_a_pool_as_to_a_nexus() {
    assert_eq!(u64::from(COMPARE_MAX), REGION);
    for len in (0..=COMPARE_MAX).step_by(BLOCK) {
        assert_eq!(braid_pool::comparison_bytes(len), comparison_bytes(len));
    }
}

#[test]
fn a_nexus_reads_of_each_block_what_the_pool_found() {
    let bytes = 64 << 20;
    let config = Config {
        token_base: 0,
        device: Device { bytes, sector: 4096, discards: false },
        boot_id: [1; 16],
        owner: "a comparison".to_owned(),
        seed: 7,
        read_only: false,
        limits: Limits::default(),
        plant: None,
    };
    let format = Format::for_device([3; 16], bytes);
    let disk = Plain::create(config.clone(), format, Ram::new(bytes));
    let mut plain = Plain::open(config, disk);
    plain.must_open();
    let create = Create {
        uuid: [4; 16],
        name: "one".to_owned(),
        bytes: 4 << 20,
        block: BlockSize::B4096,
        thick: false,
        created: 0,
    };
    let made = plain.command(Command::Create(Box::new(create)), TURNS);
    let head = made.expect("a replica").handle.expect("its number");
    // Every third block, each filled with one byte; some of them alike.
    let fill = |at: usize| 1 + (at % 7) as u8;
    let mut place = 0;
    for at in (0..256).step_by(3) {
        let before: Vec<u64> = plain.disk.blocks().map(|(number, _)| number).collect();
        let lease = plain.mem.filled(&[fill(at); BLOCK]);
        let work = Work::Write { offset: (at * BLOCK) as u64, len: BLOCK as u32, durable: true };
        plain.io(head, work, Some(lease), TURNS).expect("a write");
        if at == LOST {
            let is = |block: &[u8]| block.iter().all(|byte| *byte == fill(at));
            let mut found = plain.disk.blocks().filter(|(_, block)| is(&block[..]));
            place = found.find(|(number, _)| !before.contains(number)).expect("on the disk").0;
        }
    }
    plain.disk.block_mut(place)[5] ^= 1;

    let lease = plain.mem.filled(&[0xee; 16 << 10]);
    let work = Work::Compare { offset: 0, len: COMPARE_MAX };
    let tag = plain.submit(head, work, Some(lease));
    assert!(plain.settle(TURNS));
    let done = plain.done.pop_front().expect("it ends");
    assert_eq!((done.tag, done.result.is_ok()), (tag, true));
    let lease = done.lease.expect("the buffer comes back");
    let answer = plain.mem.bytes(&lease).to_vec();
    plain.give_back(lease);
    let comparison = Comparison::of(&answer, COMPARE_MAX).expect("all of it");
    let mut hashes = [0; 8];
    for at in 0..256 {
        match comparison.block(at).expect("a block") {
            Content::Zero => assert_ne!(at % 3, 0, "{at} was written"),
            Content::Verified(hash) if at % 3 == 0 && at != LOST => {
                let known = &mut hashes[usize::from(fill(at))];
                assert!(*known == 0 || *known == hash, "what is alike has one hash");
                *known = hash;
            }
            Content::Bad => assert_eq!(at, LOST),
            other => panic!("{at}: {other:?}"),
        }
    }
    let mut known = hashes[1..].to_vec();
    known.sort_unstable();
    known.dedup();
    assert!(known.len() == 7 && known[0] != 0, "what differs differs: {hashes:x?}");
}
