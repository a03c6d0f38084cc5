//! Streams that break and bits that flip: what was acknowledged is there, what was never sent is
//! not, and no buffer is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_block::{Key, Memory};
use braid_nvme::Status;
use braid_nvme::host::{Completed, Event, Operation};
use braid_nvme::pdu::Digests;

use crate::net::Net;
use crate::setup::{BYTES, NQN, host};
use crate::{HOST, fill, net};

const BLOCK: usize = 4096;
const BLOCKS: usize = BYTES as usize / BLOCK;
/// Blocks that are worked on: few, so that what a lost write may have done is seen.
const BUSY_BLOCKS: usize = 64;

/// What each block may hold: generations, 0 for never written.
struct Oracle {
    possible: Vec<Vec<u32>>,
    busy: Vec<bool>,
    generation: u32,
    works: BTreeMap<u64, Work>,
}

struct Work {
    lba: usize,
    blocks: usize,
    generation: Option<u32>,
}

impl Oracle {
    fn new() -> Self {
        Self {
            possible: vec![vec![0]; BLOCKS],
            busy: vec![false; BLOCKS],
            generation: 0,
            works: BTreeMap::new(),
        }
    }

    fn read(&mut self, lba: usize, block: &[u8]) {
        let generation = u32::from_le_bytes(block[..4].try_into().unwrap());
        let mut expected = vec![0; BLOCK];
        if generation > 0 {
            fill(&mut expected, lba as u64, generation.into());
        }
        assert!(block == expected, "block {lba} holds what nobody wrote");
        let possible = &mut self.possible[lba];
        assert!(possible.contains(&generation), "block {lba}: {generation} not of {possible:?}");
        *possible = vec![generation];
    }

    fn end(&mut self, completed: &Completed, data: &[u8]) {
        let work = self.works.remove(&completed.cookie).expect("ended once");
        let Completed { status, .. } = *completed;
        for (at, block) in (work.lba..).zip(data.chunks(BLOCK)) {
            self.busy[at] = false;
            match work.generation {
                Some(generation) if status.is_success() => self.possible[at] = vec![generation],
                // It was never sent, so it was never done.
                Some(_) if status == Status::HOST_PATHING_ERROR => {}
                Some(generation) => self.possible[at].push(generation),
                None if status.is_success() => self.read(at, block),
                None => {}
            }
        }
        assert_eq!(data.len(), work.blocks * BLOCK);
    }
}

struct Run {
    net: Net,
    host: Key,
    live: bool,
    oracle: Oracle,
    begun: u64,
    ended: u64,
    failed: u64,
}

impl Run {
    /// One more command, if there is a slot and a range that nothing works on.
    fn submit(&mut self) -> bool {
        let Self { net, oracle, .. } = self;
        let blocks = 1 + net.dice.below(16) as usize;
        let lba = net.dice.below((BUSY_BLOCKS - blocks) as u64) as usize;
        if oracle.busy[lba..lba + blocks].iter().any(|busy| *busy) {
            return false;
        }
        let len = (blocks * BLOCK) as u32;
        let lease = net.buffer(len);
        let mut operation = Operation::Read { lba: lba as u64, blocks: blocks as u32 };
        let mut generation = None;
        if net.dice.below(2) == 0 {
            oracle.generation += 1;
            generation = Some(oracle.generation);
            operation = Operation::Write { lba: lba as u64, blocks: blocks as u32, durable: false };
            let bytes = &mut net.nodes[HOST].mem.bytes_mut(&lease)[..len as usize];
            fill(bytes, lba as u64, oracle.generation.into());
        }
        self.begun += 1;
        if let Err(back) = net.submit(self.host, operation, Some(lease), len, self.begun) {
            net.nodes[HOST].mem.free(back.lease.unwrap());
            return false;
        }
        oracle.busy[lba..lba + blocks].fill(true);
        oracle.works.insert(self.begun, Work { lba, blocks, generation });
        true
    }

    fn drain(&mut self) {
        while let Some(event) = self.net.nodes[HOST].events.pop_front() {
            match event {
                Event::Live(_) => self.live = true,
                Event::Lost { why, retry } => {
                    self.live = false;
                    assert!(retry.is_some(), "{why}");
                }
                Event::Completed(completed) => {
                    self.ended += 1;
                    self.failed += u64::from(!completed.status.is_success());
                    let lease = completed.lease.as_ref().unwrap();
                    let blocks = self.oracle.works[&completed.cookie].blocks;
                    let bytes = self.net.nodes[HOST].mem.bytes(lease)[..blocks * BLOCK].to_vec();
                    self.oracle.end(&completed, &bytes);
                    self.net.free(completed);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// All is well again: everything is read.
    fn settle(mut self) -> u64 {
        self.net.flip = 0;
        self.net.pass(Duration::from_secs(30));
        self.drain();
        assert!(self.live && self.oracle.works.is_empty(), "it comes back");
        for lba in 0..BUSY_BLOCKS {
            let lease = self.net.buffer(BLOCK as u32);
            let read = Operation::Read { lba: lba as u64, blocks: 1 };
            let done = self.net.one(self.host, read, Some(lease), BLOCK as u32);
            assert_eq!(done.status, Status::SUCCESS);
            let bytes = self.net.nodes[HOST].mem.bytes(done.lease.as_ref().unwrap()).to_vec();
            self.oracle.read(lba, &bytes);
            self.net.free(done);
        }
        self.net.close(self.host);
        self.failed
    }
}

/// Runs a load while one turn in `cut` resets a stream, and one piece in `flip` is damaged.
fn chaos(seed: u64, digests: Digests, cut: u64, flip: u64) -> u64 {
    let mut net = net(seed);
    let mut config = host(NQN);
    config.controller.digests = digests;
    config.controller.reconnect.give_up = None;
    let host = net.open(config);
    let oracle = Oracle::new();
    let mut run = Run { net, host, live: false, oracle, begun: 0, ended: 0, failed: 0 };
    run.net.flip = flip;
    for _ in 0..100_000 {
        run.drain();
        if run.ended >= 200 {
            return run.settle();
        }
        for _ in 0..run.net.dice.below(20) {
            let _ = run.live && run.submit();
        }
        if cut > 0 && run.net.dice.below(cut) == 0 {
            run.net.some(7);
            run.net.cut(HOST);
        }
        let micros = run.net.dice.below(20_000);
        run.net.pass(Duration::from_micros(micros));
    }
    panic!("only {} commands ended", run.ended);
}

#[test]
fn streams_that_break_lose_nothing_that_was_acknowledged() {
    let failed: u64 = (0..24).map(|seed| chaos(seed, Digests::from_wire(seed as u8), 6, 0)).sum();
    assert!(failed > 100, "{failed}: it hardly ever broke");
}

#[test]
fn with_digests_no_flipped_bit_goes_unseen() {
    let all = Digests { header: true, data: true };
    let failed: u64 = (100..116).map(|seed| chaos(seed, all, 0, 60)).sum();
    assert!(failed > 50, "{failed}: it hardly ever flipped");
}
