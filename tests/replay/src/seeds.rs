//! Streams to begin fuzzing with: what a well-behaved peer says, and each way to misbehave.

use braid_nvme::command::{Command, Sgl, admin, fabrics, io};
use braid_nvme::connect::{CNTLID_DYNAMIC, Connect, Nqn};
use braid_nvme::pdu::{
    CommandCapsule, CommonHeader, DataHeader, Digests, FLAG_LAST, FatalError, InitializeConnection,
    PduType, TermReq,
};
use std::time::Duration;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

/// An input for a target, and what it shows.
#[derive(Debug)]
pub struct Seed {
    /// The fuzz target.
    pub target: &'static str,
    /// What it shows.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for bits in 0..4 {
        let digests = Digests::from_wire(bits);
        for (name, stream) in target_streams(digests) {
            // Two pieces of choices: digests as offered, split by bytes.
            let bytes = [&[0, 0x83], stream.as_slice()].concat();
            let name = format!("{name}-digests-{bits}");
            seeds.push(Seed { target: "pdu_stream_target", name, bytes });
        }
    }
    seeds.extend(command_seeds());
    seeds.extend(access_seeds());
    seeds.extend(host_seeds());
    seeds.extend(shard_seeds());
    seeds.extend(pool_seeds());
    seeds
}

/// Each disk to begin with as it is, and with some of its structures changed; journals that go on
/// with each kind of cell.
fn pool_seeds() -> impl Iterator<Item = Seed> {
    let images = (0..3_u8).flat_map(|image| {
        // What, which block, where; a number, a copy, another block, zeros.
        let changes: [(&str, Vec<u8>); 6] = [
            ("as-it-is", vec![]),
            ("a-flipped-bit", vec![1, 3, 0, 100, 0, 2]),
            ("a-wild-number", vec![0x82, 9, 0, 60, 0, 2, 0x82, 30, 0, 52, 0, 5]),
            ("a-misplaced-page", vec![0xc3, 6, 0, 0, 0, 8, 0x83, 7, 0, 0, 0, 9]),
            ("zeros", vec![4, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]),
            ("a-short-disk", vec![7, 0, 0, 0, 0, 100]),
        ];
        changes.map(|(name, change)| Seed {
            target: "pool_image",
            name: format!("{name}-{image}"),
            bytes: [vec![image], change].concat(),
        })
    });
    let cells = (0..3_u8).flat_map(|image| {
        (0..14_u8).map(move |kind| {
            let cell = [kind, kind % 5, 2, 9, 40, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let block = [&[2], cell.repeat(5).as_slice()].concat();
            Seed {
                target: "pool_cells",
                name: format!("kind-{kind:02}-image-{image}"),
                bytes: [&[image], block.as_slice(), &block, &[0x72], &block].concat(),
            }
        })
    });
    images.chain(cells)
}

/// A shard that talks to itself, with each kind of options, and what may come in between.
fn shard_seeds() -> impl Iterator<Item = Seed> {
    // Each step is its number, which socket or operation above it, and what it needs.
    const CONVERSE: &[u8] = &[0];
    // Two writes of the same blocks, one of them through the cache, a read, zeros, a flush; the
    // highest bit of the second byte chooses the namespace on the disk.
    const IO: &[u8] = &[
        5, 0x83, 3, 40, 5, 0x8b, 4, 2, 5, 0x80, 3, 40, 5, 0x85, 5, 1, 5, 0x86, 0, 0, 5, 3, 3, 0, 5,
        0, 3, 3,
    ];
    // A write that the disk sits on, the association lost and made anew, another write that the
    // disk does at once; then the disk does the first.
    const STUCK: &[u8] = &[
        0, 5, 0x83, 3, 40, 0x10, 0x0b, 10, 255, 0x10, 10, 255, 0x10, 5, 0x83, 3, 40, 0x10, 0x13,
        0x10, 3, 0, 5, 0x80, 3, 40,
    ];
    let between: [(&str, &[u8]); 9] = [
        ("a-stuck-disk", STUCK),
        ("nothing", &[]),
        ("a-failure", &[1, 255, 0x11, 255, 4, 1, 0]),
        ("a-cut", &[2, 0x11, 255, 0x3b, 0, 10, 255, 0, 10, 255, 0]),
        ("a-stranger", &[8, 9, 8, 0, 0, 128, 0, 128, 0, 0, 0, 0]),
        ("an-injection", &[14, 0x49, 0xf0, 0, 10, 255, 0]),
        ("a-stall", &[14, 0x45, 0xf0, 0, 14, 0x10, 0, 0]),
        ("a-close", &[13, 0, 0, 13, 0, 0]),
        ("disorder", &[0x82, 0x92, 0xa2, 1, 200, 0x11, 200, 0x21, 200, 0x13, 0x13, 3, 3, 0]),
    ];
    [0, 7, 9, 14].into_iter().flat_map(move |options| {
        between.map(|(name, between)| Seed {
            target: "shard_events",
            name: format!("{name}-options-{options:02}"),
            bytes: [&[options], CONVERSE, IO, between, CONVERSE, IO, CONVERSE].concat(),
        })
    })
}

/// An association with each kind of options, some I/O, and what may go wrong with it.
fn host_seeds() -> impl Iterator<Item = Seed> {
    // Each step is its number, the queue above it, and what it needs.
    const CONVERSE: &[u8] = &[0];
    const READ: &[u8] = &[5, 0, 8, 3];
    const WRITE_IN_CAPSULE: &[u8] = &[5, 2, 8, 0];
    const WRITE_ASKED_FOR: &[u8] = &[5, 2, 8, 30];
    const FLUSH: &[u8] = &[5, 5, 0, 0];
    let io = [READ, WRITE_IN_CAPSULE, WRITE_ASKED_FOR, FLUSH].concat();
    let end: [(&str, &[u8]); 6] = [
        ("honest", CONVERSE),
        ("honest-byte-by-byte", &[0x11, 0, 0x11, 3, 0x13, 0x11, 100, 0x11, 255, 0]),
        ("damaged", &[0x18, 2, 1, 0, 0x0a, 255, 0, 0x0a, 255, 0, 5, 0, 8, 3, 0]),
        (
            "made-up",
            &[0x19, 8, 3, 0, 24, 0, 24, 0, 0, 0, 0, 0x0a, 255, 0, 0x0a, 255, 0, 5, 0, 8, 3, 0],
        ),
        ("broken", &[0x1c, 0, 0x0a, 255, 0, 5, 0, 8, 3, 0]),
        ("honest-then-closed", &[0, 0x0e, 0, 0]),
    ];
    [0, 7, 9, 14].into_iter().flat_map(move |options| {
        let begin = [&[options], CONVERSE, &io].concat();
        end.map(|(name, end)| Seed {
            target: "pdu_stream_host",
            name: format!("{name}-options-{options:02}"),
            bytes: [&begin, end].concat(),
        })
    })
}

/// Reservations that are taken, kept and lost, and paths that change between commands.
fn access_seeds() -> impl Iterator<Item = Seed> {
    // A step is its number, the association above it, the namespace above that, and what it needs:
    // of a reservation command which one, its action and type, and its keys.
    const REGISTER: &[u8] = &[0x40, 0, 0, 4, 0x50, 0, 0, 8];
    const ACQUIRE: &[u8] = &[0x40, 1, 0x10, 1];
    const PREEMPT_AND_ABORT: &[u8] = &[0x50, 1, 0x12, 6];
    const RELEASE: &[u8] = &[0x40, 2, 0x10, 1];
    const REPORT: &[u8] = &[0x60, 3, 200, 0];
    const WRITES: &[u8] = &[0x47, 1, 0x57, 1, 0x67, 1];
    const STUCK: &[u8] = &[0x0a];
    const READS: &[u8] = &[0x07, 0, 0x17, 0, 0x47, 0];
    const LOG: &[u8] = &[0x0b, 8, 0x1b, 1];
    let all: [(&str, &[&[u8]]); 6] = [
        ("acquired-and-released", &[REGISTER, ACQUIRE, WRITES, REPORT, RELEASE, WRITES, REPORT]),
        ("preempted", &[REGISTER, ACQUIRE, STUCK, PREEMPT_AND_ABORT, WRITES, REPORT]),
        ("not-kept", &[&[0x0f, 1], REGISTER, &[0x0f, 0], REGISTER, WRITES, REPORT]),
        ("changing-too-long", &[&[0x0c, 4], READS, &[0x0e, 110], READS, LOG, &[0x0c, 0], READS]),
        ("an-epoch", &[&[0x0d, 1], READS, LOG, READS, &[0x8f], READS, &[0x9f], READS]),
        ("both", &[REGISTER, ACQUIRE, &[0x4c, 2], WRITES, &[0x4c, 1], WRITES, REPORT, LOG]),
    ];
    all.into_iter().map(|(name, steps)| Seed {
        target: "access",
        name: name.to_owned(),
        bytes: steps.concat(),
    })
}

/// A controller of each kind, enabled, then one command.
fn command_seeds() -> impl Iterator<Item = Seed> {
    let commands = admin_commands().into_iter().map(|(name, command)| (0, name, command));
    let commands =
        commands.chain(io_commands().into_iter().map(|(name, command)| (3, name, command)));
    commands.enumerate().map(|(n, (step, name, command))| {
        // Discovery controllers have odd options; its log page is asked of one.
        let options = u8::from(name == "log-discovery");
        let mut bytes = vec![options, 0];
        bytes.extend(enable().as_bytes());
        bytes.push(step);
        bytes.extend(command.as_bytes());
        // Ranges, features and the like: data that is not all zero.
        bytes.extend((0..32).map(|at| if at % 16 == 4 { 1 } else { 0 }));
        Seed { target: "command", name: format!("{n:02}-{name}"), bytes }
    })
}

fn enable() -> Command {
    let mut command = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
    command.set_cdw(11, 0x14);
    command.set_cdw(12, 0x0046_0001);
    command
}

fn admin_commands() -> Vec<(&'static str, Command)> {
    let with = |opcode, nsid, dwords: [u32; 3]| {
        let mut command = Command::new(opcode, nsid);
        command.sgl = Sgl::transport(4096);
        (10..).zip(dwords).for_each(|(n, dword)| command.set_cdw(n, dword));
        command
    };
    let log = |lid: u32, nsid| with(admin::GET_LOG_PAGE, nsid, [lid | 0xff << 16, 0, 0]);
    let get = |offset| {
        let mut command = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_GET));
        command.set_cdw(10, u32::from(offset == 0));
        command.set_cdw(11, offset);
        command
    };
    let mut commands = vec![
        ("identify-namespace", with(admin::IDENTIFY, 1, [0x00, 0, 0])),
        ("identify-controller", with(admin::IDENTIFY, 0, [0x01, 0, 0])),
        ("identify-list", with(admin::IDENTIFY, 0, [0x02, 0, 0])),
        ("identify-descriptors", with(admin::IDENTIFY, 3, [0x03, 0, 0])),
        ("log-error", log(0x01, u32::MAX)),
        ("log-smart", log(0x02, u32::MAX)),
        ("log-firmware", log(0x03, 0)),
        ("log-changed", log(0x04, u32::MAX)),
        ("log-effects", log(0x05, 0)),
        ("log-discovery", log(0x70, 0)),
        ("set-queues", with(admin::SET_FEATURES, 0, [0x07, 0x0003_0003, 0])),
        ("set-events", with(admin::SET_FEATURES, 0, [0x0b, 0x100, 0])),
        ("set-keep-alive", with(admin::SET_FEATURES, 0, [0x0f, 5000, 0])),
        ("abort", with(admin::ABORT, 0, [0x0001_0000, 0, 0])),
        ("event-request", with(admin::ASYNC_EVENT_REQUEST, 0, [0; 3])),
        ("keep-alive", with(admin::KEEP_ALIVE, 0, [0; 3])),
        ("get-capabilities", get(0)),
        ("get-status", get(0x1c)),
    ];
    let features = [0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x0b, 0x0f, 0x16];
    let get_feature = |fid| ("get-feature", with(admin::GET_FEATURES, 0, [fid, 0, 0]));
    commands.extend(features.map(get_feature));
    commands
}

fn io_commands() -> [(&'static str, Command); 5] {
    let with = |opcode, len, dwords: [u32; 3]| {
        let mut command = Command::new(opcode, 3);
        command.sgl = Sgl::transport(len);
        (10..).zip(dwords).for_each(|(n, dword)| command.set_cdw(n, dword));
        command
    };
    [
        ("read", with(io::READ, 512, [7, 0, 0])),
        ("write", with(io::WRITE, 1024, [7, 0, 1 | 1 << 30])),
        ("flush", with(io::FLUSH, 0, [0; 3])),
        ("write-zeroes", with(io::WRITE_ZEROES, 0, [7, 0, 1 | 1 << 25])),
        ("deallocate", with(io::DATASET_MANAGEMENT, 32, [1, 4, 0])),
    ]
}

fn target_streams(digests: Digests) -> Vec<(&'static str, Vec<u8>)> {
    let begin = [ic_req(digests), connect(digests)].concat();
    let write = write_capsule(digests, 64);
    let asks = asking_write(digests, 128);
    let half = |offset, flags| h2c_data(digests, offset, 64, flags);
    vec![
        ("write-in-capsule", [begin.clone(), write.clone()].concat()),
        (
            "write-asked-for",
            [begin.clone(), asks.clone(), half(0, 0), half(64, FLAG_LAST)].concat(),
        ),
        ("data-twice", [begin.clone(), asks.clone(), half(0, 0), half(0, 0)].concat()),
        ("data-beyond", [begin.clone(), asks, half(128, FLAG_LAST)].concat()),
        ("data-unasked", [begin.clone(), half(0, FLAG_LAST)].concat()),
        ("second-ic-req", [begin.clone(), ic_req(digests)].concat()),
        ("command-first", write.clone()),
        ("terminated", [begin.clone(), term_req()].concat()),
        ("damaged", [begin, damaged(write)].concat()),
    ]
}

fn ic_req(digests: Digests) -> Vec<u8> {
    InitializeConnection::new(PduType::IcReq, digests, 0).as_bytes().to_vec()
}

fn connect(digests: Digests) -> Vec<u8> {
    let connect = Connect {
        cid: 1,
        qid: 0,
        entries: 32,
        flow_control: false,
        kato: Duration::from_secs(5),
        cntlid: CNTLID_DYNAMIC,
        hostid: [7; 16],
        subnqn: Nqn::parse("nqn.2026-01.io.braid:seed").expect("a name"),
        hostnqn: Nqn::parse("nqn.2014-08.org.nvmexpress:uuid:seed").expect("a name"),
    };
    let (command, data) = connect.to_wire();
    debug_assert_eq!(command.opcode, admin::FABRICS);
    debug_assert_eq!(command.fabrics_type(), fabrics::CONNECT);
    capsule(digests, command, data.as_bytes())
}

fn write_capsule(digests: Digests, len: u32) -> Vec<u8> {
    let mut command = Command::new(io::WRITE, 1);
    command.cid = U16::new(0x1002);
    command.sgl = Sgl::in_capsule(len);
    capsule(digests, command, &vec![0x5a; len as usize])
}

fn asking_write(digests: Digests, len: u32) -> Vec<u8> {
    let mut command = Command::new(io::WRITE, 1);
    command.cid = U16::new(0x1003);
    command.sgl = Sgl::transport(len);
    capsule(digests, command, &[])
}

fn h2c_data(digests: Digests, offset: u32, len: u32, flags: u8) -> Vec<u8> {
    let ch = CommonHeader::with_data(PduType::H2cData, digests, len, flags);
    let header = DataHeader::new(ch, 0x1003, 0, offset, len);
    pdu(digests, header.as_bytes(), &vec![0xa5; len as usize])
}

fn term_req() -> Vec<u8> {
    TermReq::new(PduType::H2cTermReq, FatalError::Sequence, 0).as_bytes().to_vec()
}

fn damaged(mut pdu: Vec<u8>) -> Vec<u8> {
    let last = pdu.len() - 1;
    pdu[last] ^= 1;
    pdu
}

fn capsule(digests: Digests, command: Command, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("a capsule's data");
    let ch = if data.is_empty() {
        CommonHeader::without_data(PduType::Command, digests)
    } else {
        CommonHeader::with_data(PduType::Command, digests, len, 0)
    };
    pdu(digests, CommandCapsule { ch, command }.as_bytes(), data)
}

/// A PDU with the digests that its connection demands.
fn pdu(digests: Digests, header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut pdu = header.to_vec();
    if digests.header {
        pdu.extend(crc32c::crc32c(header).to_le_bytes());
    }
    pdu.extend(data);
    if digests.data && !data.is_empty() {
        pdu.extend(crc32c::crc32c(data).to_le_bytes());
    }
    pdu
}
