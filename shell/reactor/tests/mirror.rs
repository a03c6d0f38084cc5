//! The mirror allocates nothing for a command in the steady state: counted for a volume, and for
//! the guard before a replica. It is counted here because an allocator that counts cannot be had
//! without `unsafe`.

#[path = "support/allocator.rs"]
mod allocator;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use allocator::ALLOCATIONS;
use braid_block::{Class, Instant, Lease, LeaseId, Memory};
use braid_nexus::guard::{Act, Durable, Event as Arrival, Guard, Outcome};
use braid_nexus::record::{Replica, Standing};
use braid_nexus::wire::{Answer, Command, Fenced};
use braid_nexus::{
    Command as Order, Config, Effect, Event, Limits, Record, Request, Swapped, Timing, Uuid,
    Volume, Work,
};

const BYTES: u64 = 64 << 20;
const OWNER: Uuid = [9; 16];

/// Names of buffers without bytes: a volume never looks at any.
struct Names(u32);

impl Memory for Names {
    fn alloc(&mut self, _: Class) -> Option<Lease> {
        self.0 += 1;
        Some(Lease::new(LeaseId { index: self.0, generation: NonZeroU32::MIN }))
    }

    fn free(&mut self, _: Lease) {}

    fn capacity(&self, _: &Lease) -> u32 {
        unreachable!("there are no bytes")
    }

    fn bytes(&self, _: &Lease) -> &[u8] {
        unreachable!("there are no bytes")
    }

    fn bytes_mut(&mut self, _: &Lease) -> &mut [u8] {
        unreachable!("there are no bytes")
    }

    fn copy(&mut self, _: &Lease, _: u32, _: &Lease, _: Range<u32>) {
        unreachable!("there are no bytes")
    }

    fn copy_crc(&mut self, _: &Lease, _: u32, _: &Lease, _: Range<u32>, _: u32) -> u32 {
        unreachable!("there are no bytes")
    }

    fn crc(&self, _: &Lease, _: Range<u32>, _: u32) -> u32 {
        unreachable!("there are no bytes")
    }

    fn crc_bytes(_: &[u8], _: u32) -> u32 {
        unreachable!("there are no bytes")
    }
}

fn record() -> Record {
    let mut record = Record { volume: [1; 16], bytes: BYTES, version: 1, ..Record::default() };
    for slot in 0..3u8 {
        let standing = Standing::Member { instance: 1 };
        record.slots[usize::from(slot)] = Some(Replica { uuid: [slot; 16], standing });
    }
    record
}

/// A volume whose replicas do at once what they are asked.
struct Mirror {
    volume: Volume,
    names: Names,
    now: Instant,
    events: VecDeque<Event>,
    completions: u64,
}

impl Mirror {
    fn serving() -> Self {
        let config = Config {
            volume: [1; 16],
            timing: Timing::default(),
            limits: Limits::default(),
            near: None,
            bytes: BYTES,
            plant: None,
        };
        let mut mirror = Self {
            volume: Volume::new(config),
            names: Names(0),
            now: Instant::from_nanos(1_000_000_000),
            events: VecDeque::with_capacity(4096),
            completions: 0,
        };
        let order = Order::TakeOver { owner: OWNER, force: false };
        mirror.volume.command(mirror.now, 1, order);
        mirror.run();
        assert!(mirror.volume.is_optimized());
        mirror.events.push_back(Event::HostConnected { association: 1, host: [7; 16], origin: 1 });
        mirror.run();
        mirror
    }

    fn run(&mut self) {
        loop {
            self.volume.end_turn(&mut self.names, self.now);
            while let Some(effect) = self.volume.poll_effect() {
                self.events.extend(answer(effect));
            }
            while let Some(completion) = self.volume.poll_completion() {
                self.completions += 1;
                completion.lease.into_iter().for_each(|lease| self.names.free(lease));
            }
            while self.volume.poll_note().is_some() || self.volume.poll_ended().is_some() {}
            match self.events.pop_front() {
                Some(event) => self.volume.handle(&mut self.names, self.now, event),
                None if !self.volume.has_work() => break,
                None => {}
            }
        }
    }

    /// Thirty-two commands at once, a millisecond later.
    fn submit(&mut self, work: impl Fn(u64) -> Work) {
        self.now = self.now + Duration::from_millis(1);
        for tag in 0..32 {
            let work = work(tag);
            let buffer = matches!(work, Work::Read { .. } | Work::Write { .. });
            let lease = buffer.then(|| self.names.alloc(Class::Small)).flatten();
            let request = Request { tag, association: 1, work, lease };
            self.volume.submit(self.now, request);
        }
        self.run();
    }
}

fn answer(effect: Effect) -> Option<Event> {
    Some(match effect {
        Effect::Fetch => Event::Fetched { record: Some(Box::new(record())) },
        Effect::Swap { number, .. } => Event::Swapped { number, outcome: Swapped::Committed },
        Effect::Associate { association, .. } => Event::Associated { association },
        Effect::Send { token, command: Command::Fence(_), .. } => {
            let copy = Some((0, 1));
            let fenced = Fenced { instance: 1, copy, bytes: BYTES, ..Fenced::default() };
            Event::Done { token, result: Ok(Answer::Fenced(Box::new(fenced))) }
        }
        Effect::Send { token, .. } => Event::Done { token, result: Ok(Answer::Done) },
        _ => return None,
    })
}

/// Allocations while something is done.
fn counted(what: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    what();
    ALLOCATIONS.get() - before
}

fn write(tag: u64) -> Work {
    // Every fourth one waits for another.
    Work::Write { offset: (tag / 4 * 4 % 32) << 20, len: 4096, durable: tag.is_multiple_of(2) }
}

fn read(tag: u64) -> Work {
    Work::Read { offset: tag << 20, len: 4096 }
}

#[test]
fn a_volume_allocates_nothing_for_writes_reads_and_zeros() {
    let mut mirror = Mirror::serving();
    let zero = |tag: u64| Work::Zero { offset: tag << 20, len: 2 << 20, durable: false };
    let mut all = || {
        for _ in 0..100 {
            mirror.submit(write);
            mirror.submit(read);
            mirror.submit(zero);
        }
    };
    all();
    assert_eq!(counted(all), 0, "in 9600 commands, with the leases that the reads needed");
    assert_eq!(mirror.completions, 2 * 9600);
}

#[test]
fn a_volume_allocates_nothing_for_flushes() {
    let mut mirror = Mirror::serving();
    let mut all = || {
        for _ in 0..100 {
            mirror.submit(|_| Work::Flush);
        }
    };
    all();
    assert_eq!(counted(all), 0, "in 3200 commands");
}

#[test]
fn what_clears_marks_allocates_for_each_128_writes_not_for_each_write() {
    let mut mirror = Mirror::serving();
    let mut all = || {
        for at in 0..400 {
            mirror.submit(write);
            if at % 4 == 3 {
                mirror.submit(|_| Work::Flush);
            }
        }
    };
    all();
    let allocations = counted(all);
    // 12,800 writes: a list of regions, and one for each of three members, for each 128 of them.
    assert!((1..=400).contains(&allocations), "{allocations}");
}

#[test]
fn a_guard_allocates_nothing_for_commands() {
    let now = Instant::from_nanos(10_000_000_000);
    let durable = Durable { replica: [1; 16], instance: 1, bytes: BYTES, ..Durable::default() };
    let mut guard = Guard::new(Timing::default(), None, durable, Instant::ZERO);
    let fence = Record { epoch: 1, version: 2, owner: OWNER, ..record() };
    guard.handle(now, Arrival::Opened { association: 1 });
    let command = Command::Fence(Box::new(fence));
    let (association, mut tag) = (1, 1);
    guard.handle(now, Arrival::Arrived { association, tag, command });
    let drive = |guard: &mut Guard| {
        while let Some(act) = guard.poll_act() {
            let event = match act {
                Act::Keep { tag, .. } => Arrival::Kept { tag, result: Ok(()) },
                Act::Carry { tag, command: Command::Marks { .. } } => {
                    Arrival::Carried { tag, result: Ok(Outcome::Marks(Box::default())) }
                }
                Act::Carry { tag, .. } => Arrival::Carried { tag, result: Ok(Outcome::Done) },
                Act::Answer { result, .. } => {
                    result.expect("it is the holder's");
                    continue;
                }
                Act::Close { .. } => continue,
            };
            guard.handle(now, event);
        }
    };
    drive(&mut guard);
    let mut all = || {
        for number in 0..2000 {
            let offset = (number % 64) << 20;
            let commands = [
                Command::Write { offset, len: 4096, durable: false },
                Command::Read { offset, len: 4096 },
                Command::Flush { number },
                Command::Lease,
            ];
            for command in commands {
                tag += 1;
                guard.handle(now, Arrival::Arrived { association, tag, command });
            }
            drive(&mut guard);
        }
    };
    all();
    assert_eq!(counted(all), 0, "in 8000 commands");
}
