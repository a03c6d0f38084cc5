//! Nothing is allocated in the steady state: counted on the reactor's own thread.

#[path = "support/allocator.rs"]
mod allocator;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use allocator::ALLOCATIONS;
use braid_block::{Class, Lease, Memory};
use braid_reactor::{Application, Arena, Machine, OpenDisk, OpenOptions, Reactor, World, mesh};
use braid_shard::{Disk, Effect, Event, Note};
use support::echo::Echo;
use support::{Directory, Fake, Parts, Todo, listener, options, token};

/// Says how often its thread allocated, when asked; ends when asked for the third time.
struct Teller {
    counts: &'static [AtomicU64; 2],
    asked: usize,
}

impl<M: Machine> Application<M> for Teller {
    type Control = ();

    fn note(&mut self, _machine: &M, _world: &mut World<'_>, _note: Note) {}

    fn control(&mut self, _machine: &mut M, _world: &mut World<'_>, (): ()) {
        if let Some(count) = self.counts.get(self.asked) {
            count.store(ALLOCATIONS.get(), Ordering::SeqCst);
        }
        self.asked += 1;
    }

    fn finished(&self, _machine: &M) -> bool {
        self.asked > 2
    }
}

fn round_trips(streams: &mut [TcpStream], rounds: usize) {
    let mut buffer = vec![0; 20_000];
    for round in 0..rounds {
        let len = 1 + round * 37 % buffer.len();
        streams.iter_mut().for_each(|s| s.write_all(&buffer[..len]).expect("it is open"));
        streams.iter_mut().for_each(|s| s.read_exact(&mut buffer[..len]).expect("it is back"));
    }
}

#[test]
fn streams_allocate_nothing() {
    static COUNTS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    let (listener, address) = listener();
    let port = mesh(1).remove(0);
    let reactor = Reactor::new(options(), port, vec![], vec![listener], vec![]);
    let reactor = reactor.expect("this system allows it");
    let remote = reactor.remote();
    let teller = Teller { counts: &COUNTS, asked: 0 };
    let thread = std::thread::spawn(move || reactor.run(Echo::new(16), teller).is_ok());
    let connect = |_| TcpStream::connect(address).expect("it listens");
    let mut streams: Vec<TcpStream> = (0..4).map(connect).collect();
    for rounds in [200, 2000, 1] {
        round_trips(&mut streams, rounds);
        assert!(remote.post(()).is_ok());
    }
    assert!(thread.join().expect("no panic"));
    let [before, after] = [&COUNTS[0], &COUNTS[1]].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(after - before, 0);
}

const DEPTH: u32 = 8;
const OPS: u64 = 8000;

/// Writes a fresh buffer, or copies what was read to another one, and so on.
fn churn(todo: &mut Todo, mem: &mut Arena, index: u32, old: Option<Lease>, count: u64) -> Lease {
    let class = Class::ALL[(count % 3) as usize];
    let lease = mem.alloc(class).expect("there is room");
    if let Some(old) = old {
        let len = mem.capacity(&old).min(class.bytes());
        mem.copy_crc(&lease, 0, &old, 0..len, 0);
        mem.free(old);
    }
    let (token, span) = (token(1, index), lease.span(0, class.bytes()));
    let (disk, offset) = (Disk(0), u64::from(index) << 17);
    todo.effects.push_back(match count % 8 {
        0..4 => Effect::Write { token, disk, durable: false, span, offset },
        _ => Effect::Read { token, disk, span, offset },
    });
    lease
}

#[test]
fn disks_and_buffers_allocate_nothing() {
    let directory = Directory::new("allocations");
    let how = OpenOptions { create_bytes: Some(1 << 20), ..OpenOptions::default() };
    let disk = OpenDisk::open(&directory.file("a"), &how).expect("direct I/O works here");
    let (mut count, mut before) = (0, 0);
    let mut leases: Vec<Option<Lease>> = (0..DEPTH).map(|_| None).collect();
    let machine = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| match event {
        Event::Start { .. } => {
            for index in 0..DEPTH {
                leases[index as usize] = Some(churn(todo, mem, index, None, index.into()));
            }
        }
        Event::Done { token, result } => {
            result.expect("the file works");
            count += 1;
            if count == OPS / 4 {
                before = ALLOCATIONS.get();
            }
            if count == OPS {
                assert_eq!(ALLOCATIONS.get() - before, 0);
            }
            let index = token.key().index;
            let old = leases[index as usize].take();
            if count < OPS {
                leases[index as usize] = Some(churn(todo, mem, index, old, count));
            } else if let Some(old) = old {
                mem.free(old);
            }
            todo.finished = count >= OPS && leases.iter().all(Option::is_none);
        }
        _ => {}
    });
    let mut parts = Parts { disks: vec![disk], ..Parts::default() };
    parts.options.arena.limit_bytes = 3 << 20;
    parts.run(machine).join();
}
