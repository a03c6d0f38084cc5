//! What the mirror costs, counted: messages and bytes, exactly (benchmarks.md has the times).

use std::collections::BTreeMap;
use std::time::Duration;

use braid_nexus::record::{Lossy, TOLD_MAX};
use braid_nexus::{Command, Event, Status, Work};

use super::words;
use super::world::{Setup, World};

const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A volume of three members, `a` near, that serves a host on association 1.
fn three() -> World {
    World::serving(&Setup { members: "abc".into(), near: Some('a'), ..Setup::default() })
}

/// What was sent to each replica since the last time, by kind.
fn sent(world: &mut World) -> BTreeMap<(usize, &'static str), u64> {
    std::mem::take(&mut world.counts)
}

fn each(kinds: &[(&'static str, u64)]) -> BTreeMap<(usize, &'static str), u64> {
    (0..3).flat_map(|at| kinds.iter().map(move |(kind, n)| ((at, *kind), *n))).collect()
}

fn write(at: u64, len: u64) -> Work {
    Work::Write { offset: at, len: len as u32, durable: false }
}

fn read(at: u64, len: u64) -> Work {
    Work::Read { offset: at, len: len as u32 }
}

fn all_succeeded(world: &World) -> bool {
    world.completions.iter().all(|(_, _, _, status)| *status == Status::Success)
}

#[test]
fn each_member_gets_each_written_byte_once_in_one_message_a_write() {
    let mut world = three();
    let sizes = [512, BLOCK, 16 << 10, 128 << 10];
    for (at, len) in (0..).zip(sizes.iter().cycle().take(100)) {
        world.submit(1, write(at * 256 * 1024, *len), b'x');
    }
    let bytes: u64 = sizes.iter().sum::<u64>() * 25;
    assert_eq!(sent(&mut world), each(&[("write", 100)]), "and nothing else");
    assert_eq!(world.written, BTreeMap::from([(0, bytes), (1, bytes), (2, bytes)]));
    assert!(all_succeeded(&world) && world.completions.len() == 100);
}

#[test]
fn a_write_is_one_round_trip_to_each_member_whatever_waits_for_it() {
    let mut world = three();
    for _ in 0..50 {
        world.post(1, write(0, BLOCK), b'x');
    }
    world.run();
    assert_eq!(sent(&mut world), each(&[("write", 50)]), "one after the other");
    assert!(all_succeeded(&world));
}

#[test]
fn fua_and_zeros_are_one_message_too() {
    let mut world = three();
    for at in 0..10 {
        world.submit(1, Work::Write { offset: at * BLOCK, len: 4096, durable: true }, b'x');
        world.submit(1, Work::Zero { offset: at * MIB, len: 3 * MIB, durable: false }, 0);
    }
    assert_eq!(sent(&mut world), each(&[("write", 10), ("zero", 10)]));
}

#[test]
fn a_read_is_one_message_to_one_member() {
    let mut world = three();
    for at in 0..100 {
        world.submit(1, read(at * BLOCK, BLOCK), 0);
    }
    assert_eq!(sent(&mut world), BTreeMap::from([((0, "read"), 100)]), "to the near one");
}

#[test]
fn a_hosts_flush_is_one_flush_of_each_member() {
    let mut world = three();
    world.submit(1, write(0, BLOCK), b'x');
    sent(&mut world);
    for _ in 0..20 {
        world.submit(1, Work::Flush, 0);
    }
    assert_eq!(sent(&mut world), each(&[("flush", 20)]));
}

#[test]
fn beside_reads_there_is_one_lease_for_each_member_in_200_milliseconds() {
    let mut world = three();
    world.wait(Duration::from_secs(2));
    sent(&mut world);
    // Ten seconds, a read each 10 ms.
    for _ in 0..1000 {
        world.submit(1, read(0, BLOCK), 0);
        world.wait(Duration::from_millis(10));
    }
    let sent = sent(&mut world);
    assert_eq!(sent[&(0, "read")], 1000);
    let leases: Vec<u64> = (0..3).map(|at| sent[&(at, "lease")]).collect();
    // At 0, then whenever less than 600 of 800 ms are left: each 210 ms, as it reads each 10.
    assert_eq!(leases, [48; 3]);
    assert_eq!(sent.len(), 4, "nothing else: {sent:?}");
    assert!(all_succeeded(&world));
}

#[test]
fn an_idle_volume_and_one_that_is_only_written_ask_for_no_lease() {
    let mut world = three();
    world.wait(Duration::from_secs(60));
    assert_eq!(sent(&mut world), BTreeMap::new());
    for at in 0..100 {
        world.submit(1, write(at * BLOCK, BLOCK), b'x');
        world.wait(Duration::from_millis(10));
    }
    assert_eq!(sent(&mut world), each(&[("write", 100)]));
}

#[test]
fn beside_writes_there_is_one_clean_for_each_member_in_128_writes() {
    let mut world = three();
    // A write to each region in turn, a flush after each fourth: there is always one to clear.
    let writes = 128 * 10;
    for at in 0..writes {
        world.submit(1, write(at % 64 * MIB, BLOCK), b'x');
        if at % 4 == 3 {
            world.submit(1, Work::Flush, 0);
        }
        world.wait(Duration::from_millis(1));
    }
    let expected = [("write", writes), ("flush", writes / 4), ("clean", 10)];
    assert_eq!(sent(&mut world), each(&expected));
}

#[test]
fn a_volume_that_comes_to_rest_is_flushed_once_and_clears_all() {
    let mut world = three();
    for at in 0..60 {
        world.submit(1, write(at * MIB, BLOCK), b'x');
    }
    sent(&mut world);
    world.wait(Duration::from_secs(60));
    assert_eq!(sent(&mut world), each(&[("clean", 1), ("flush", 1)]));
    assert_eq!(world.volume.view().marked, 0);
}

#[test]
fn a_failed_member_costs_one_change_and_one_copy() {
    let mut world = three();
    let version = world.store.record.version;
    world.cut(2, false);
    world.run();
    assert_eq!(world.store.record.version, version + 1);
    assert_eq!(sent(&mut world), BTreeMap::from([((0, "copy"), 1), ((1, "copy"), 1)]));
}

#[test]
fn a_take_over_is_one_change_a_fence_and_a_lease_for_each_member() {
    let setup = Setup { members: "abc".into(), ..Setup::default() };
    let mut world = World::new(&setup);
    world.take_over('A', false);
    assert_eq!(world.store.record.version, 2);
    assert_eq!(sent(&mut world), each(&[("fence", 1), ("lease", 1)]));
}

#[test]
fn what_is_alike_is_compared_and_not_copied() {
    let mut world = World::new(&Setup { members: "abc".into(), ..Setup::default() });
    for replica in &mut world.replicas {
        for block in 0..MIB / BLOCK {
            replica.head.blocks.insert(block, [b'x'; 8]);
        }
    }
    world.replicas[0].head.marks.insert(0);
    world.replicas[1].head.blocks.insert(7, [b'y'; 8]);
    world.take_over('A', false);
    let counts = sent(&mut world);
    let [compares, reads, writes] = ["compare", "read", "write"]
        .map(|kind| (0..3).map(|at| counts.get(&(at, kind)).copied().unwrap_or(0)).sum::<u64>());
    assert_eq!((compares, reads, writes), (3, 1, 1), "{counts:?}");
    assert_eq!(world.written, BTreeMap::from([(1, BLOCK)]), "only the block that differs");
    assert_eq!(words::content(&world.replicas[1].head.read(0, MIB)), "x*1M");
}

#[test]
fn a_joiner_gets_what_differs_and_each_new_write_once() {
    let setup = Setup { members: "a".into(), away: "b".into(), ..Setup::default() };
    let mut world = World::serving(&setup);
    for at in 0..8 {
        world.submit(1, write(at * MIB, BLOCK), b'x');
    }
    world.replicas[1].head.blocks.insert(0, [b'x'; 8]);
    world.written.clear();
    world.order(Command::Return { replica: words::uuid('b') });
    world.wait(Duration::from_millis(500));
    assert_eq!(world.volume.view().members, 0b11);
    assert_eq!(world.written, BTreeMap::from([(1, 7 * BLOCK)]), "the eighth was there");
    world.written.clear();
    world.submit(1, write(0, BLOCK), b'y');
    assert_eq!(world.written, BTreeMap::from([(0, BLOCK), (1, BLOCK)]));
}

#[test]
fn hosts_that_were_told_of_a_loss_are_remembered_as_long_as_they_are_connected() {
    let mut world = World::new(&Setup::default());
    world.store.record.lossy = Some(Lossy::default());
    world.take_over('A', false);
    let name = |n: u32| char::from(u8::try_from(n).unwrap());
    let flush = |world: &mut World, association: u32| {
        world.submit(association, Work::Flush, 0);
        world.completions.pop().map(|(_, _, _, status)| status).unwrap()
    };
    let told = Status::WriteFault { dnr: true };
    // The record has room for so many; the next one stays, the others go.
    let (first, hosts) = (TOLD_MAX as u32 + 1, 4 * TOLD_MAX as u32);
    for n in 1..=hosts {
        world.connect(n, name(n), 1);
        assert_eq!(flush(&mut world, n), told, "host {n}");
        if n != first {
            world.event(Event::HostGone { association: n });
        }
    }
    assert_eq!(flush(&mut world, first), Status::Success, "it was there all the time");
    let again = |world: &mut World, n: u32| {
        world.connect(1000 + n, name(n), 1);
        let status = flush(world, 1000 + n);
        world.event(Event::HostGone { association: 1000 + n });
        status
    };
    assert_eq!(again(&mut world, 1), Status::Success, "the record remembers it");
    assert_eq!(again(&mut world, first + 1), told, "it was forgotten, and is told once more");
    assert_eq!(again(&mut world, first + 1), Status::Success);
}
