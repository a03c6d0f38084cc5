//! Idle costs nothing, and load costs few system calls: counted, not timed.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use braid_reactor::{Options, Polling};
use support::echo::Echo;
use support::{Parts, listener, options};

#[test]
fn an_idle_reactor_makes_no_system_calls() {
    let (listener, address) = listener();
    let running = Parts { listeners: vec![listener], ..Parts::default() }.run(Echo::new(16));
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(b"hello").expect("it is open");
    stream.read_exact(&mut [0; 5]).expect("it comes back");
    running.counters();
    std::thread::sleep(Duration::from_millis(20));
    let (before, _) = running.counters();
    std::thread::sleep(Duration::from_millis(500));
    let (after, _) = running.counters();
    // Both questions may wake it once more after their answer; nothing else does.
    assert!(after.enters - before.enters <= 3, "{before:?} {after:?}");
    assert!(after.turns - before.turns <= 3, "{before:?} {after:?}");
    running.stop();
}

#[test]
fn an_arena_that_grew_gives_its_memory_back_when_nothing_happens() {
    use braid_block::{Class, Memory};
    use support::{Fake, Todo};
    let machine = Fake::new(|_: &mut Todo, mem, _| {
        let leases: Vec<_> = std::iter::from_fn(|| mem.alloc(Class::Large)).collect();
        leases.into_iter().for_each(|lease| mem.free(lease));
    });
    let running = Parts::default().run(machine);
    assert_eq!(running.counters().1.chunks, 8);
    std::thread::sleep(Duration::from_millis(1200));
    let (counters, arena) = running.counters();
    assert_eq!(arena.chunks, 2);
    assert!(counters.turns < 10, "{counters:?}");
    running.stop();
}

#[test]
fn many_small_messages_share_system_calls() {
    let (listener, address) = listener();
    let options = Options { polling: Polling::Never, ..options() };
    let parts = Parts { listeners: vec![listener], options, ..Parts::default() };
    let running = parts.run(Echo::new(16));
    let mut streams: Vec<TcpStream> =
        (0..16).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    running.counters();
    let (before, _) = running.counters();
    for _ in 0..50 {
        streams.iter_mut().for_each(|s| s.write_all(&[7; 512]).expect("it is open"));
        streams.iter_mut().for_each(|s| s.read_exact(&mut [0; 512]).expect("it comes back"));
    }
    let (after, _) = running.counters();
    let messages = 50 * 16;
    // One entry a send; a receive goes on by itself, unless it was starved of buffers.
    let resumed = after.starved - before.starved;
    assert!(after.sqes - before.sqes <= messages + resumed + 60, "{before:?} {after:?}");
    // A turn takes what is there: on a machine with nothing else to do far less than this.
    assert!(after.enters - before.enters <= 2 * messages, "{before:?} {after:?}");
    running.stop();
}
