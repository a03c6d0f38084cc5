//! A host that knows just enough to open queues and to count what its commands cost.
#![allow(unreachable_pub, reason = "included by a test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use braid_nvme::command::{Command, Completion, Sgl, admin, fabrics, io};
use braid_nvme::connect::{CNTLID_DYNAMIC, Connect, Nqn};
use braid_nvme::pdu::{
    CommandCapsule, CommonHeader, Digests, InitializeConnection, PduType, ResponseCapsule,
};
use zerocopy::{FromBytes, IntoBytes};

/// The subsystem that is served.
pub const NQN: &str = "nqn.2026-11.io.braid:counted";
/// Bytes of a block.
pub const BLOCK: usize = 4096;
const HEADER: usize = 24;

/// A controller: its admin queue, and an I/O queue without flow control.
pub struct Host {
    /// Kept open: the controller ends with it.
    _admin: TcpStream,
    io: TcpStream,
    digests: Digests,
    answers: Vec<u8>,
}

impl Host {
    /// Connects; the I/O queue uses these digests.
    pub fn connect(address: SocketAddr, digests: Digests) -> Self {
        let none = Digests::default();
        let mut admin = open(address, none);
        let answer = exchange(&mut admin, &connect(0, CNTLID_DYNAMIC, none), none);
        let [low, high, ..] = answer.result.get().to_le_bytes();
        let mut enable = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
        enable.set_cdw(11, 0x14);
        enable.set_cdw(12, 0x46_0001);
        exchange(&mut admin, &capsule(enable, &[], none), none);
        let mut io = open(address, digests);
        let cntlid = u16::from_le_bytes([low, high]);
        exchange(&mut io, &connect(1, cntlid, digests), digests);
        Self { _admin: admin, io, digests, answers: Vec::new() }
    }

    /// Reads so many blocks of a namespace by commands that are sent at once.
    pub fn read(&mut self, nsid: u32, count: usize) {
        let capsules = (0..count).flat_map(|n| self.block(io::READ, nsid, n, &[]));
        let bytes: Vec<u8> = capsules.collect();
        self.io.write_all(&bytes).expect("it is open");
        let digest = if self.digests.data { 4 } else { 0 };
        self.take(count, HEADER + BLOCK + digest, PduType::C2hData);
    }

    /// Writes so many, in the same way.
    pub fn write(&mut self, nsid: u32, count: usize) {
        let data = [0x5a; BLOCK];
        let capsules = (0..count).flat_map(|n| self.block(io::WRITE, nsid, n, &data));
        let bytes: Vec<u8> = capsules.collect();
        self.io.write_all(&bytes).expect("it is open");
        self.take(count, HEADER, PduType::Response);
    }

    fn block(&self, opcode: u8, nsid: u32, n: usize, data: &[u8]) -> Vec<u8> {
        let mut command = Command::new(opcode, nsid);
        command.cid.set(u16::try_from(n).expect("a small number"));
        command.sgl = Sgl::transport(4096);
        command.set_cdw(10, u32::try_from(n % 64).expect("a small number"));
        capsule(command, data, self.digests)
    }

    fn take(&mut self, count: usize, len: usize, kind: PduType) {
        self.answers.resize(count * len, 0);
        self.io.read_exact(&mut self.answers).expect("answers come");
        for answer in self.answers.chunks(len) {
            assert_eq!(answer[0], kind as u8);
            assert!(kind == PduType::C2hData || answer[22] >> 1 == 0 && answer[23] == 0);
        }
    }
}

fn connect(qid: u16, cntlid: u16, digests: Digests) -> Vec<u8> {
    let parse = |text| Nqn::parse(text).expect("a name");
    let connect = Connect {
        cid: 1,
        qid,
        entries: if qid == 0 { 32 } else { 128 },
        flow_control: false,
        kato: Duration::ZERO,
        cntlid,
        hostid: [1; 16],
        subnqn: parse(NQN),
        hostnqn: parse("nqn.2026-11.io.braid:host"),
    };
    let (command, data) = connect.to_wire();
    capsule(command, data.as_bytes(), digests)
}

fn capsule(mut command: Command, data: &[u8], digests: Digests) -> Vec<u8> {
    if data.is_empty() {
        let ch = CommonHeader::without_data(PduType::Command, digests);
        return CommandCapsule { ch, command }.as_bytes().to_vec();
    }
    let len = u32::try_from(data.len()).expect("a small number");
    command.sgl = Sgl::in_capsule(len);
    let ch = CommonHeader::with_data(PduType::Command, digests, len, 0);
    let mut bytes = [CommandCapsule { ch, command }.as_bytes(), data].concat();
    if digests.data {
        bytes.extend(crc32c::crc32c(data).to_le_bytes());
    }
    bytes
}

fn open(address: SocketAddr, digests: Digests) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("TCP has it");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    let request = InitializeConnection::new(PduType::IcReq, digests, 0);
    stream.write_all(request.as_bytes()).expect("it is open");
    let mut answer = [0; size_of::<InitializeConnection>()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!((answer[0], answer[11]), (PduType::IcResp as u8, digests.to_wire()));
    stream
}

fn exchange(stream: &mut TcpStream, bytes: &[u8], digests: Digests) -> Completion {
    assert!(!digests.header, "this host knows data digests only");
    stream.write_all(bytes).expect("it is open");
    let mut answer = [0; size_of::<ResponseCapsule>()];
    stream.read_exact(&mut answer).expect("an answer");
    let response = ResponseCapsule::read_from_bytes(&answer).expect("its length");
    assert!(response.completion.status().is_success(), "{:?}", response.completion.status());
    response.completion
}
