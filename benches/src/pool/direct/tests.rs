//! Loads on a pool in memory, without a reactor.

use std::time::Duration;

use braid_block::BlockSize;
use braid_pool::{Command, Create, Format, Image, State, run_blocking};
use braid_sim::{Ram, SimMemory};

use super::*;
use crate::pool::{How, config};

const BYTES: u64 = 32 << 20;
/// Of the replica.
const DATA_BYTES: u64 = 1 << 20;

/// A load's machine, what it runs on, and what it asked the disk for.
struct Bench {
    machine: Direct,
    mem: SimMemory,
    disk: Ram,
    now: Instant,
    asked: Vec<braid_shard::Effect>,
}

impl Bench {
    /// A replica that is mapped, in a pool that has nothing to do, and nothing soon.
    fn new() -> (Self, Handle) {
        let (mut mem, mut disk) = (SimMemory::new(64 << 20), Ram::new(BYTES));
        let now = Instant::from_nanos(1_000_000);
        let config = config(BYTES, 4096, &How::default());
        let mut made = Pool::create(config.clone(), Format::for_device([2; 16], BYTES));
        run_blocking(&mut made, &mut mem, &mut disk, now, |_, _| {});
        made.drop_leases(&mut mem);
        let mut bench =
            Self { machine: Direct::new(Pool::open(config)), mem, disk, now, asked: Vec::new() };
        bench.run_until(|machine| machine.pool.state() == State::Open);
        let (name, block) = ("bench".to_owned(), BlockSize::B4096);
        let (uuid, bytes, thick, created) = ([1; 16], DATA_BYTES, false, 0);
        let create = Create { uuid, name, bytes, block, thick, created };
        let command = Command::Create(Box::new(create));
        bench.machine.pool.command(&mut bench.mem, now, 2, command);
        bench.run_until(|machine| !machine.ended.is_empty());
        bench.machine.ended.clear();
        let handle = bench.machine.pool.find(&[1; 16]).expect("it was made");
        bench.machine.load(Run::fill(1, 0, DATA_BYTES), handle);
        bench.run_until(Direct::is_still);
        bench.machine.rest();
        // What follows writes goes its way: regions are closed, a checkpoint is made.
        for _ in 0..100 {
            bench.now = bench.now + Duration::from_millis(100);
            bench.turn();
        }
        assert_eq!(bench.machine.errors, 0);
        (bench, handle)
    }

    /// What the reactor does in a turn: events, the driver's part of it, its end, effects.
    fn turn(&mut self) {
        for effect in std::mem::take(&mut self.asked) {
            let (token, result) = match effect {
                braid_shard::Effect::Read { token, span, offset, .. } => {
                    self.disk.read(offset, self.mem.span_mut(span));
                    (token, Ok(span.len))
                }
                braid_shard::Effect::Write { token, span, offset, .. } => {
                    self.disk.write(offset, self.mem.span(span));
                    (token, Ok(span.len))
                }
                braid_shard::Effect::Sync { token, .. } => {
                    (token, Image::sync(&mut self.disk).map(|()| 0))
                }
                other => panic!("{other:?} of a pool that does not discard"),
            };
            self.machine.pool.handle(&mut self.mem, self.now, Event::Done { token, result });
        }
        self.machine.look();
        self.machine.notes.clear();
        self.machine.end(&mut self.mem, self.now);
        self.asked.extend(std::iter::from_fn(|| self.machine.poll_effect()));
    }

    fn run_until(&mut self, reached: impl Fn(&Direct) -> bool) {
        for _ in 0..100_000 {
            if reached(&self.machine) {
                return;
            }
            self.turn();
        }
        panic!("it does not come that far");
    }
}

/// Reads: unlike after a write, the pool wants no turn after the last of them.
fn reads(depth: u16) -> Run {
    let run = Run::new(1, Way::Read, Pattern::Random, depth, DATA_BYTES);
    Run { time: Duration::from_millis(500), ..run }
}

#[test]
fn the_end_of_a_load_is_work_until_somebody_looked() {
    for depth in [1, 2, 7, 32] {
        let (mut bench, handle) = Bench::new();
        bench.machine.load(reads(depth), handle);
        for _ in 0..100 {
            bench.turn();
        }
        bench.machine.rest();
        assert!(!bench.machine.is_still(), "reads are in flight");
        bench.run_until(Direct::is_still);
        assert!(bench.machine.has_work(), "depth {depth}: nobody would ever look");
        assert!(bench.machine.look());
        assert!(!bench.machine.has_work(), "depth {depth}: the reactor would spin");
    }
}

#[test]
fn a_load_in_flight_lets_the_reactor_wait() {
    let (mut bench, handle) = Bench::new();
    bench.machine.load(reads(4), handle);
    for _ in 0..100 {
        bench.turn();
        assert_eq!(bench.asked.len(), 4);
        assert!(!bench.machine.has_work());
    }
}
