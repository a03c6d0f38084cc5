//! What a mirrored command costs, counted in whole shards: passes of a checksum over its payload,
//! and bytes on the wires.

use braid_block::Key;
use braid_nexus::Command;
use braid_nvme::Status;
use braid_nvme::host::Operation;

use crate::world::{ENGINES, HOST, World, replica};

const WRITES: u64 = 64;
const LEN: u64 = 8192;

impl World {
    /// Bytes that an engine's checksums were passed over since this was last asked.
    fn passed(&self, at: usize) -> u64 {
        self.net.nodes[at].mem.passed.replace(0)
    }

    fn sent(&mut self, from: usize, to: usize) -> u64 {
        self.net.nodes[from].sent.remove(&to).unwrap_or(0)
    }

    fn forget_counts(&mut self) {
        for at in 0..ENGINES {
            self.passed(at);
            self.net.nodes[at].sent.clear();
        }
        self.net.nodes[HOST].sent.clear();
    }

    fn write_all(&mut self, path: Key, byte: u8) {
        for at in 0..WRITES {
            assert_eq!(self.write(path, at * 2, byte), Status::SUCCESS);
        }
    }

    fn read_all(&mut self, path: Key, byte: u8) {
        for at in 0..WRITES {
            assert_eq!(self.read(path, at * 2), Ok(byte));
        }
    }
}

#[test]
fn a_payload_is_passed_over_once_on_each_engine_and_sent_once_to_each_member() {
    // Whether the host's connection sums it or not.
    for digest in [false, true] {
        once_on_each_engine(digest);
    }
}

fn once_on_each_engine(digest: bool) {
    let mut world = World::new(90);
    world.take_over(0);
    let path = world.connect_with(0, digest);
    world.write_all(path, 1);
    world.forget_counts();
    world.write_all(path, 2);
    let payload = WRITES * LEN;
    let passed: Vec<u64> = (0..ENGINES).map(|at| world.passed(at)).collect();
    assert_eq!(passed, [payload; ENGINES], "one pass on each");
    // Each other engine gets the bytes once, with what frames them.
    for to in [1, 2] {
        let sent = world.sent(0, to);
        assert!((payload..payload + WRITES * 300).contains(&sent), "{sent} bytes to {to}");
    }
    assert!(world.sent(1, 0) < WRITES * 300 && world.sent(1, 2) == 0);
    // What is read comes from the replica here: its pool has summed it.
    world.forget_counts();
    world.read_all(path, 2);
    assert_eq!(world.passed(0), payload, "one pass");
    assert_eq!(world.passed(1) + world.passed(2), 0);
}

#[test]
fn what_is_read_from_another_engine_is_passed_over_once_on_each() {
    let mut world = World::new(91);
    world.take_over(0);
    let path = world.connect(0);
    world.write_all(path, 1);
    world.command(0, Command::Exclude { replica: replica(0) });
    world.pass(std::time::Duration::from_secs(1));
    assert_eq!(world.members(), 2, "{:?}", world.notes);
    world.forget_counts();
    world.read_all(path, 1);
    let payload = WRITES * LEN;
    assert_eq!(world.passed(0), payload, "received and summed, and sent with that sum");
    assert_eq!(world.passed(1) + world.passed(2), payload, "one of them was asked");
}

#[test]
fn a_flush_is_one_message_to_each_member() {
    let mut world = World::new(92);
    world.take_over(0);
    let path = world.connect(0);
    world.write_all(path, 1);
    world.forget_counts();
    for _ in 0..16 {
        assert_eq!(world.one(path, Operation::Flush, &[], 0).0, Status::SUCCESS);
    }
    // A capsule of 64 bytes with its header and digest; what clears marks comes beside it.
    for to in [1, 2] {
        let sent = world.sent(0, to);
        assert!((16 * 72..16 * 72 + 2000).contains(&sent), "{sent} bytes to {to}");
    }
}
