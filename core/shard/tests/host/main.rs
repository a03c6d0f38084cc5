//! Our host side against our target side, back to back in memory.

mod chaos;
mod counted;
#[path = "../../../nvme/tests/host/memory.rs"]
mod memory;
mod mirror;
mod net;
mod reservation;
mod setup;
mod withdrawn;
mod world;

use std::time::Duration;

use braid_block::{BlockSize, Class, Geometry, IoError, Key, Lease, Memory};
use braid_nvme::connect::CNTLID_STATIC_ANY;
use braid_nvme::host::{
    Completed, DeallocateRange, Event, Live, Operation, Stage, Submission, Why, identify_command,
};
use braid_nvme::pdu::Digests;
use braid_nvme::target::ControllerModel;
use braid_nvme::{DISCOVERY_NQN, Status};
use braid_shard::{HostConfig, Note};
use net::{Dice, Net};
use setup::{BYTES, NQN, TARGET, host, limits, nobody, target};
use zerocopy::IntoBytes;

const HOST: usize = 0;

/// Allocations so far: not counted here.
const fn allocations() -> u64 {
    0
}

fn net(seed: u64) -> Net {
    Net::new(vec![nobody(), target()], seed)
}

impl Net {
    fn open(&mut self, config: HostConfig) -> Key {
        let key = self.nodes[HOST].shard.host_open(self.now, config).unwrap();
        self.run();
        key
    }

    fn event(&mut self) -> Event {
        self.nodes[HOST].events.pop_front().expect("an event")
    }

    fn live(&mut self) -> Box<Live> {
        match self.event() {
            Event::Live(live) => live,
            other => panic!("not live: {other:?}"),
        }
    }

    fn completed(&mut self) -> Completed {
        match self.event() {
            Event::Completed(completed) => completed,
            other => panic!("not completed: {other:?}"),
        }
    }

    fn submit(
        &mut self,
        host: Key,
        operation: Operation,
        lease: Option<Lease>,
        len: u32,
        cookie: u64,
    ) -> Result<(), Submission> {
        let queue = cookie as u16;
        let submission = Submission { operation, nsid: 1, lease, len, cookie, queue };
        let node = &mut self.nodes[HOST];
        node.shard.host_submit(&mut node.mem, self.now, host, submission)
    }

    fn buffer(&mut self, len: u32) -> Lease {
        self.nodes[HOST].mem.alloc(Class::holding(len).unwrap()).unwrap()
    }

    fn filled(&mut self, bytes: &[u8]) -> Lease {
        self.nodes[HOST].mem.filled(bytes)
    }

    fn free(&mut self, completed: Completed) {
        if let Some(lease) = completed.lease {
            self.nodes[HOST].mem.free(lease);
        }
    }

    /// Runs one command to its end.
    fn one(
        &mut self,
        host: Key,
        operation: Operation,
        lease: Option<Lease>,
        len: u32,
    ) -> Completed {
        self.submit(host, operation, lease, len, 1).unwrap();
        self.run();
        self.completed()
    }

    /// Closes the association, and checks that nothing of it is left.
    fn close(&mut self, host: Key) {
        let now = self.now;
        let node = &mut self.nodes[HOST];
        node.shard.host_close(&mut node.mem, now, host);
        self.run();
        self.pass(Duration::from_millis(100));
        assert!(matches!(self.event(), Event::Closed));
        assert!(self.nodes[HOST].events.is_empty());
        self.pass(Duration::from_secs(30));
        self.give_back();
    }

    /// Ends the shards, and checks that no buffer is lost.
    fn give_back(&mut self) {
        for node in &mut self.nodes {
            node.shard.drop_leases(&mut node.mem);
            assert_eq!(node.leases(), 0, "a buffer is lost");
        }
    }
}

#[test]
fn what_hosts_see_of_our_target() {
    let mut net = net(1);
    let host = net.open(host(NQN));
    let live = net.live();
    assert_eq!((live.io_queues, live.queue_commands), (3, 31));
    assert_eq!(live.controller.serial.as_str(), "0123456789");
    assert_eq!(live.controller.subnqn.unwrap().as_str(), NQN);
    assert_eq!(live.controller.transfer_bytes_max, 128 << 10);
    assert_eq!(live.controller.in_capsule_bytes, limits().in_capsule_bytes);
    let found: Vec<_> = live.namespaces.iter().map(|n| (n.nsid, n.uuid, n.nguid)).collect();
    assert_eq!(found, [(1, [101; 16], [1; 16]), (2, [102; 16], [2; 16])]);
    assert_eq!(live.namespaces[0].geometry, Geometry::of_bytes(BYTES, BlockSize::B4096));
    assert_eq!(live.namespaces[1].geometry, Geometry::of_bytes(BYTES, BlockSize::B512));
    let connected = |note: &Note| matches!(note, Note::HostConnected { queues: 3, .. });
    assert!(net.nodes[HOST].notes.iter().any(connected));
    let page = net.buffer(4096);
    let done = net.one(host, Operation::Admin(identify_command(1, 0)), Some(page), 4096);
    assert_eq!(done.status, Status::SUCCESS);
    assert_eq!(net.nodes[HOST].mem.bytes(done.lease.as_ref().unwrap())[4..14], *b"0123456789");
    net.free(done);
    net.close(host);
    assert_eq!(net.nodes[TARGET].shard.connections(), 0);
}

#[test]
fn discovery_finds_the_subsystem() {
    let mut net = net(2);
    let mut config = host(DISCOVERY_NQN);
    config.controller.kato = Duration::ZERO;
    let host = net.open(config);
    assert!(net.live().controller.is_discovery);
    let Event::Discovered(entries) = net.event() else { panic!() };
    let names: Vec<_> = entries.iter().filter_map(|e| e.subnqn).collect();
    assert!(names.iter().any(|name| name.as_str() == NQN), "{entries:?}");
    let entry = entries.iter().find(|e| e.subnqn.unwrap().as_str() == NQN).unwrap();
    assert_eq!((&*entry.address, &*entry.service), ("127.0.0.1", "4420"));
    net.close(host);
}

/// Blocks as they must be: a generation each, 0 for never written.
struct Oracle {
    blocks: Vec<u64>,
    busy: Vec<bool>,
    generation: u64,
}

struct Work {
    lba: u64,
    blocks: u32,
    write: Option<u64>,
}

fn fill(bytes: &mut [u8], lba: u64, generation: u64) {
    for (at, block) in bytes.chunks_mut(4096).enumerate() {
        let seed = (lba + at as u64) << 32 | generation;
        for (n, word) in block.chunks_mut(8).enumerate() {
            word.copy_from_slice(&(seed ^ (n as u64) << 56).to_le_bytes());
        }
    }
}

impl Oracle {
    fn new() -> Self {
        let count = (BYTES / 4096) as usize;
        Self { blocks: vec![0; count], busy: vec![false; count], generation: 0 }
    }

    /// A range that nothing else works on.
    fn pick(&mut self, dice: &mut Dice) -> Option<(u64, u32)> {
        let blocks = 1 + dice.below(32) as usize;
        let lba = dice.below((self.blocks.len() - blocks) as u64) as usize;
        let free = self.busy[lba..lba + blocks].iter().all(|busy| !busy);
        if free {
            self.busy[lba..lba + blocks].fill(true);
        }
        free.then_some((lba as u64, blocks as u32))
    }

    fn check(&self, work: &Work, bytes: &[u8]) {
        for (at, block) in bytes.chunks(4096).enumerate() {
            let lba = work.lba + at as u64;
            let mut expected = vec![0; 4096];
            let generation = self.blocks[lba as usize];
            if generation > 0 {
                fill(&mut expected, lba, generation);
            }
            assert!(block == expected, "block {lba}, generation {generation}");
        }
    }

    fn end(&mut self, work: &Work) {
        let range = work.lba as usize..work.lba as usize + work.blocks as usize;
        self.busy[range.clone()].fill(false);
        if let Some(generation) = work.write {
            self.blocks[range].fill(generation);
        }
    }
}

fn workload(net: &mut Net, host: Key, commands: u64) {
    let mut oracle = Oracle::new();
    let mut works = std::collections::BTreeMap::new();
    let (mut begun, mut ended) = (0, 0);
    while ended < commands {
        while begun < commands {
            let Some((lba, blocks)) = oracle.pick(&mut Dice(net.dice.below(u64::MAX))) else {
                break;
            };
            let len = blocks * 4096;
            let lease = net.buffer(len);
            let write = net.dice.below(2) == 0;
            let mut work = Work { lba, blocks, write: None };
            let mut operation = Operation::Read { lba, blocks };
            if write {
                oracle.generation += 1;
                work.write = Some(oracle.generation);
                let bytes = &mut net.nodes[HOST].mem.bytes_mut(&lease)[..len as usize];
                fill(bytes, lba, oracle.generation);
                operation = Operation::Write { lba, blocks, durable: begun % 7 == 0 };
            }
            if let Err(back) = net.submit(host, operation, Some(lease), len, begun) {
                net.nodes[HOST].mem.free(back.lease.unwrap());
                let range = lba as usize..lba as usize + blocks as usize;
                oracle.busy[range].fill(false);
                break;
            }
            works.insert(begun, work);
            begun += 1;
        }
        net.run();
        while let Some(event) = net.nodes[HOST].events.pop_front() {
            let Event::Completed(completed) = event else { panic!("{event:?}") };
            assert_eq!(completed.status, Status::SUCCESS);
            let work = works.remove(&completed.cookie).expect("once");
            if work.write.is_none() {
                let lease = completed.lease.as_ref().unwrap();
                let bytes = &net.nodes[HOST].mem.bytes(lease)[..work.blocks as usize * 4096];
                oracle.check(&work, bytes);
            }
            oracle.end(&work);
            net.free(completed);
            ended += 1;
        }
    }
}

#[test]
fn a_mixed_load_reads_what_it_wrote_with_every_digest_and_flow_control() {
    for bits in 0..4 {
        for flow_control in [false, true] {
            let mut net = net(u64::from(bits) + 10);
            let mut config = host(NQN);
            config.controller.digests = Digests::from_wire(bits);
            config.controller.flow_control = flow_control;
            let host = net.open(config);
            net.live();
            workload(&mut net, host, 600);
            net.close(host);
        }
    }
}

#[test]
fn a_deep_queue_needs_few_sends() {
    let mut net = net(3);
    let mut config = host(NQN);
    (config.controller.io_queues, config.controller.queue_entries) = (1, 33);
    let host = net.open(config);
    net.live();
    let before = net.nodes[HOST].sends;
    for cookie in 0..32 {
        let lease = net.buffer(4096);
        let operation = Operation::Read { lba: cookie, blocks: 1 };
        net.submit(host, operation, Some(lease), 4096, cookie).unwrap();
    }
    net.run();
    assert_eq!(net.nodes[HOST].sends - before, 1);
    for _ in 0..32 {
        let completed = net.completed();
        assert_eq!(completed.status, Status::SUCCESS);
        net.free(completed);
    }
    net.close(host);
}

#[test]
fn zeroes_deallocation_and_errors() {
    let mut net = net(4);
    let host = net.open(host(NQN));
    net.live();
    let write = Operation::Write { lba: 0, blocks: 8, durable: false };
    let read = Operation::Read { lba: 0, blocks: 8 };
    let zeroes = Operation::WriteZeroes { lba: 0, blocks: 4, deallocate: true };
    let data = net.filled(&[9; 32_768]);
    let done = net.one(host, write, Some(data), 32_768);
    assert_eq!(done.status, Status::SUCCESS);
    net.free(done);
    assert_eq!(net.one(host, zeroes, None, 0).status, Status::SUCCESS);
    assert_eq!(net.one(host, Operation::Flush, None, 0).status, Status::SUCCESS);
    let range = DeallocateRange { attributes: 0.into(), blocks: 2.into(), lba: 6.into() };
    let ranges = net.filled(range.as_bytes());
    let done = net.one(host, Operation::Deallocate { ranges: 1 }, Some(ranges), 16);
    assert_eq!(done.status, Status::SUCCESS);
    net.free(done);
    let data = net.buffer(32_768);
    let done = net.one(host, read, Some(data), 32_768);
    let bytes = &net.nodes[HOST].mem.bytes(done.lease.as_ref().unwrap())[..32_768];
    assert!(bytes[..16_384].iter().all(|byte| *byte == 0));
    assert!(bytes[16_384..24_576].iter().all(|byte| *byte == 9));
    assert!(bytes[24_576..].iter().all(|byte| *byte == 0));
    net.free(done);
    for write in [false, true] {
        let lba = BYTES / 4096 - 1;
        let beyond = match write {
            false => Operation::Read { lba, blocks: 2 },
            true => Operation::Write { lba, blocks: 2, durable: false },
        };
        let data = net.buffer(8192);
        let done = net.one(host, beyond, Some(data), 8192);
        assert!(done.status.is(Status::LBA_OUT_OF_RANGE), "{}", done.status);
        net.free(done);
    }
    net.close(host);
}

#[test]
fn a_target_that_dies_is_found_again() {
    let mut net = net(5);
    let host = net.open(host(NQN));
    net.live();
    for round in 0..4 {
        for cookie in 0..40 {
            let lease = net.filled(&[1; 16_384]);
            let operation = Operation::Write { lba: cookie * 4, blocks: 4, durable: false };
            net.submit(host, operation, Some(lease), 16_384, cookie).unwrap();
        }
        net.nodes[HOST].stalled = round % 2 == 0;
        net.nodes[TARGET].stalled = round > 1;
        if round > 0 {
            net.run();
        }
        net.nodes[HOST].stalled = false;
        net.restart(TARGET, target());
        net.nodes[TARGET].listens = round == 3;
        net.run();
        let mut back = 0;
        while let Some(event) = net.nodes[HOST].events.pop_front() {
            match event {
                Event::Completed(completed) => {
                    back += 1;
                    net.free(completed);
                }
                Event::Lost { retry, .. } => assert!(retry.is_some()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(back, 40);
        net.pass(Duration::from_secs(1));
        net.nodes[HOST].events.retain(|event| !matches!(event, Event::Lost { .. }));
        net.nodes[TARGET].listens = true;
        net.pass(Duration::from_secs(4));
        net.nodes[HOST].events.retain(|event| !matches!(event, Event::Lost { .. }));
        net.live();
        workload(&mut net, host, 50);
    }
    net.close(host);
}

#[test]
fn a_stalled_target_costs_time_but_no_buffer_is_handed_back_early() {
    let mut net = net(6);
    let mut config = host(NQN);
    config.controller.io_timeout = Duration::from_secs(3);
    config.controller.kato = Duration::from_secs(20);
    let host = net.open(config);
    net.live();
    net.nodes[TARGET].stalled = true;
    net.no_rest = true;
    let lease = net.filled(&[1; 65_536]);
    let operation = Operation::Write { lba: 0, blocks: 16, durable: false };
    net.submit(host, operation, Some(lease), 65_536, 1).unwrap();
    net.pass(Duration::from_millis(3_000));
    let Event::Lost { why: Why::CommandTimeout, retry: Some(_) } = net.event() else { panic!() };
    net.pass(Duration::from_secs(5));
    assert!(net.nodes[HOST].events.is_empty(), "the kernel may still touch it");
    net.no_rest = false;
    net.run();
    let completed = net.completed();
    assert_eq!(completed.status, Status::ABORTED_BY_HOST);
    net.free(completed);
    net.nodes[TARGET].stalled = false;
    net.pass(Duration::from_secs(3));
    net.live();
    net.close(host);
}

#[test]
fn a_connection_that_is_made_after_it_was_given_up_is_closed() {
    let mut net = net(7);
    net.no_connects = true;
    let host = net.open(host(NQN));
    net.pass(Duration::from_secs(10));
    let Event::Lost { why, .. } = net.event() else { panic!() };
    assert_eq!(why, Why::Timeout(Stage::Tcp));
    net.no_connects = false;
    net.pass(Duration::from_secs(1));
    net.live();
    assert_eq!(net.nodes[TARGET].shard.connections(), 4, "the late one is closed");
    net.close(host);
}

#[test]
fn nobody_there_is_told_again_and_again_until_it_is_given_up() {
    let mut net = net(8);
    net.nodes[TARGET].listens = false;
    let _host = net.open(host(NQN));
    net.pass(Duration::from_secs(70));
    let events = std::mem::take(&mut net.nodes[HOST].events);
    let refused = Why::Connect(IoError::Refused);
    let lost = |event: &Event| matches!(event, Event::Lost { why, .. } if *why == refused);
    assert!(events.len() > 30 && events.iter().rev().skip(1).all(lost), "{}", events.len());
    assert!(matches!(events.back(), Some(Event::Closed)));
    net.give_back();
}

#[test]
fn a_host_that_is_not_allowed_is_told_so_and_stops() {
    let mut config = target();
    config.subsystems[0].allowed_hosts = vec!["nqn.2014-08.org.nvmexpress:uuid:you".into()];
    let mut net = Net::new(vec![nobody(), config], 9);
    net.open(host(NQN));
    let Event::Lost { why: Why::Refused { stage, status, .. }, retry: None } = net.event() else {
        panic!()
    };
    assert_eq!(stage, Stage::Connect);
    assert!(status.is(Status::CONNECT_INVALID_HOST), "{status}");
    assert!(matches!(net.event(), Event::Closed));
    net.pass(Duration::from_secs(30));
    net.give_back();
}

#[test]
fn fixed_controller_ids_are_asked_for_by_number_or_any() {
    let mut config = target();
    config.subsystems[0].controllers = ControllerModel::Static;
    let mut net = Net::new(vec![nobody(), config], 16);
    let mut ids = Vec::new();
    for cntlid in [CNTLID_STATIC_ANY, 9, CNTLID_STATIC_ANY] {
        let mut config = host(NQN);
        config.controller.cntlid = cntlid;
        net.open(config);
        ids.push(net.live().controller.cntlid);
    }
    assert!(ids[0] != ids[2] && ids[1] == 9, "{ids:?}");
    net.open(host(NQN));
    let Event::Lost { why: Why::Refused { stage, result, .. }, .. } = net.event() else { panic!() };
    assert_eq!((stage, result), (Stage::Connect, 16 | 1 << 16), "CNTLID in the data");
}

#[test]
fn an_idle_association_lives_by_keep_alive_alone() {
    let mut net = net(11);
    let host = net.open(host(NQN));
    net.live();
    net.pass(Duration::from_secs(60));
    assert!(net.nodes[HOST].events.is_empty());
    assert_eq!(net.nodes[TARGET].shard.connections(), 4);
    net.close(host);
}

#[test]
fn a_target_that_stops_sees_its_hosts_leave_and_come_back() {
    let mut net = net(12);
    let host = net.open(host(NQN));
    net.live();
    let now = net.now;
    let node = &mut net.nodes[TARGET];
    node.shard.stop(&mut node.mem, now);
    net.run();
    let Event::Lost { why: Why::PeerClosed, retry: Some(_) } = net.event() else { panic!() };
    assert!(net.nodes[TARGET].notes.iter().any(|note| matches!(note, Note::Drained)));
    net.restart(TARGET, target());
    net.pass(Duration::from_secs(1));
    net.live();
    net.close(host);
}

#[test]
fn a_shard_that_stops_closes_its_associations_before_it_is_drained() {
    let mut net = net(13);
    net.open(host(NQN));
    net.live();
    let now = net.now;
    let node = &mut net.nodes[HOST];
    node.shard.stop(&mut node.mem, now);
    net.pass(Duration::from_millis(100));
    assert!(matches!(net.event(), Event::Closed));
    assert!(net.nodes[HOST].notes.iter().any(|note| matches!(note, Note::Drained)));
    net.pass(Duration::from_secs(30));
    assert_eq!(net.nodes[TARGET].shard.connections(), 0);
    net.give_back();
}

#[test]
fn a_shard_can_be_its_own_target() {
    let mut net = Net::new(vec![target()], 14);
    let mut config = host(NQN);
    config.address = 0;
    let host = net.open(config);
    net.live();
    workload(&mut net, host, 200);
    net.close(host);
}

#[test]
fn several_hosts_of_one_shard_do_not_mix() {
    let mut net = net(15);
    let hosts: Vec<_> = (0..3).map(|_| net.open(host(NQN))).collect();
    for _ in &hosts {
        net.live();
    }
    for (at, &host) in hosts.iter().enumerate() {
        let lease = net.filled(&[at as u8 + 1; 4096]);
        let operation = Operation::Write { lba: at as u64, blocks: 1, durable: false };
        let done = net.one(host, operation, Some(lease), 4096);
        net.free(done);
    }
    for (at, &host) in hosts.iter().enumerate().rev() {
        let lease = net.buffer(4096);
        let done = net.one(host, Operation::Read { lba: at as u64, blocks: 1 }, Some(lease), 4096);
        assert_eq!(net.nodes[HOST].mem.bytes(done.lease.as_ref().unwrap())[17], at as u8 + 1);
        net.free(done);
    }
    for &host in &hosts[1..] {
        let now = net.now;
        let node = &mut net.nodes[HOST];
        node.shard.host_close(&mut node.mem, now, host);
        net.pass(Duration::from_millis(100));
        assert!(matches!(net.event(), Event::Closed));
        assert!(net.submit(host, Operation::Flush, None, 0, 1).is_err());
    }
    net.close(hosts[0]);
}
