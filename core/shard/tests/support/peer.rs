//! A host that says exactly what a test wants it to say, right or wrong.

use std::time::Duration;

use braid_nvme::Status;
use braid_nvme::command::{Command, Completion, Sgl, admin, fabrics, io};
use braid_nvme::connect::{CNTLID_DYNAMIC, Connect, Nqn};
use braid_nvme::framer::{DataPdu, Framer, Header, Piece, Side};
use braid_nvme::pdu::{
    CommandCapsule, CommonHeader, DataHeader, Digests, FLAG_LAST, InitializeConnection, PduType,
};
use zerocopy::IntoBytes;

use super::{HOST, NQN, TestMemory, World};

/// One connection of the host's.
pub struct Peer {
    pub socket: u32,
    pub digests: Digests,
    framer: Framer,
    next_cid: u16,
    pub cntlid: u16,
}

/// What the controller sent.
#[derive(Debug)]
pub enum Got {
    IcResp(InitializeConnection),
    Completion(Completion),
    Data { pdu: DataPdu, bytes: Vec<u8> },
    R2t(DataPdu),
    Term { fes: u16, fei: u32 },
}

pub fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The bytes of a PDU: header, digests and data as negotiated.
pub fn pdu(header: &[u8], data: &[u8], digests: Digests) -> Vec<u8> {
    let mut bytes = header.to_vec();
    if digests.header {
        bytes.extend(crc(header).to_le_bytes());
    }
    if !data.is_empty() {
        bytes.extend(data);
        if digests.data {
            bytes.extend(crc(data).to_le_bytes());
        }
    }
    bytes
}

/// The bytes of a command capsule.
pub fn capsule(command: &Command, data: &[u8], digests: Digests) -> Vec<u8> {
    let ch = if data.is_empty() {
        CommonHeader::without_data(PduType::Command, digests)
    } else {
        CommonHeader::with_data(PduType::Command, digests, data.len() as u32, 0)
    };
    pdu(CommandCapsule { ch, command: *command }.as_bytes(), data, digests)
}

/// The bytes of an H2CData PDU.
pub fn h2c(r2t: &DataPdu, offset: u32, data: &[u8], last: bool, digests: Digests) -> Vec<u8> {
    let flags = if last { FLAG_LAST } else { 0 };
    let ch = CommonHeader::with_data(PduType::H2cData, digests, data.len() as u32, flags);
    let header = DataHeader::new(ch, r2t.cid, r2t.ttag, offset, data.len() as u32);
    pdu(header.as_bytes(), data, digests)
}

impl Peer {
    /// Connects, and says nothing yet.
    pub fn fresh(world: &mut World, digests: Digests) -> Self {
        let framer = Framer::new(Side::Host, 1 << 20);
        Self { socket: world.connect(), digests, framer, next_cid: 0, cntlid: 0 }
    }

    /// Connects and initialises, with these digests.
    pub fn open(world: &mut World, digests: Digests) -> Self {
        let mut peer = Self::fresh(world, digests);
        let socket = peer.socket;
        world.send(socket, InitializeConnection::new(PduType::IcReq, digests, 0).as_bytes());
        match peer.take(world).as_slice() {
            [Got::IcResp(response)] => assert_eq!(response.digest, digests.to_wire()),
            other => panic!("no ICResp but {other:?}"),
        }
        peer.framer.initialize(digests);
        peer
    }

    /// An admin queue of a new controller, enabled.
    pub fn admin(world: &mut World, digests: Digests) -> Self {
        let mut peer = Self::open(world, digests);
        let completion = peer.connect(world, &connect(0, CNTLID_DYNAMIC));
        assert!(completion.status().is_success(), "{:?}", completion.status());
        peer.cntlid = (completion.result.get() & 0xffff) as u16;
        peer.enable(world);
        peer
    }

    /// Enables the controller of this admin queue.
    pub fn enable(&mut self, world: &mut World) {
        let mut enable = Command::new(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
        enable.set_cdw(11, 0x14);
        enable.set_cdw(12, 0x46_0001);
        assert!(self.command(world, enable, &[]).status().is_success());
    }

    /// Asks to be told of these events.
    pub fn enable_events(&mut self, world: &mut World, events: u32) {
        let mut command = Command::new(admin::SET_FEATURES, 0);
        command.set_cdw(10, 0x0b);
        command.set_cdw(11, events);
        assert!(self.command(world, command, &[]).status().is_success());
    }

    /// An I/O queue of the controller.
    pub fn io(&self, world: &mut World, qid: u16) -> Self {
        let mut peer = Self::open(world, self.digests);
        let completion = peer.connect(world, &connect(qid, self.cntlid));
        assert!(completion.status().is_success(), "{:?}", completion.status());
        peer.cntlid = self.cntlid;
        peer
    }

    /// A controller with one I/O queue.
    pub fn pair(world: &mut World, digests: Digests) -> (Self, Self) {
        let admin = Self::admin(world, digests);
        let io = admin.io(world, 1);
        (admin, io)
    }

    /// A controller with one I/O queue, of the host with this identifier.
    pub fn pair_of(world: &mut World, hostid: [u8; 16]) -> (Self, Self) {
        let digests = Digests { header: false, data: false };
        let of_host = |qid, cntlid| Connect { hostid, ..connect(qid, cntlid) };
        let mut admin = Self::open(world, digests);
        let completion = admin.connect(world, &of_host(0, CNTLID_DYNAMIC));
        assert!(completion.status().is_success(), "{:?}", completion.status());
        admin.cntlid = (completion.result.get() & 0xffff) as u16;
        admin.enable(world);
        let mut io = Self::open(world, digests);
        let completion = io.connect(world, &of_host(1, admin.cntlid));
        assert!(completion.status().is_success(), "{:?}", completion.status());
        io.cntlid = admin.cntlid;
        (admin, io)
    }

    pub fn connect(&mut self, world: &mut World, connect: &Connect) -> Completion {
        let (command, data) = connect.to_wire();
        self.command(world, command, data.as_bytes())
    }

    /// Sends a Connect that somebody else may answer.
    pub fn post_connect(&mut self, world: &mut World, connect: &Connect) {
        let (command, data) = connect.to_wire();
        self.post(world, command, data.as_bytes());
    }

    pub fn cid(&mut self) -> u16 {
        self.next_cid += 1;
        self.next_cid
    }

    /// Sends a command with in-capsule data and waits for its completion, nothing else.
    pub fn command(&mut self, world: &mut World, command: Command, data: &[u8]) -> Completion {
        self.post(world, command, data);
        match self.take(world).as_slice() {
            [Got::Completion(completion)] => *completion,
            other => panic!("no completion but {other:?}"),
        }
    }

    /// Sends a command with in-capsule data; its id.
    pub fn post(&mut self, world: &mut World, mut command: Command, data: &[u8]) -> u16 {
        let cid = self.cid();
        command.cid.set(cid);
        if !data.is_empty() {
            command.sgl = Sgl::in_capsule(data.len() as u32);
        }
        world.send(self.socket, &capsule(&command, data, self.digests));
        cid
    }

    /// Sends a command without data under this id.
    pub fn post_as(&mut self, world: &mut World, cid: u16, mut command: Command) {
        command.cid.set(cid);
        world.send(self.socket, &capsule(&command, &[], self.digests));
    }

    /// Reads, and returns the data or the status it failed with.
    pub fn read(&mut self, world: &mut World, command: Command) -> Result<Vec<u8>, Status> {
        let cid = self.post(world, command, &[]);
        let mut data = Vec::new();
        for got in self.take(world) {
            match got {
                Got::Data { pdu, bytes } => {
                    assert_eq!((pdu.cid, pdu.offset), (cid, data.len() as u32));
                    data.extend(bytes);
                    if pdu.success {
                        return Ok(data);
                    }
                }
                Got::Completion(completion) => {
                    assert_eq!(completion.cid.get(), cid);
                    let status = completion.status();
                    return if status.is_success() { Ok(data) } else { Err(status) };
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("no end of the read")
    }

    /// Writes by R2T, in pieces of `piece` bytes.
    pub fn write_by_r2t(
        &mut self,
        world: &mut World,
        command: Command,
        data: &[u8],
        piece: usize,
    ) -> Completion {
        self.post(world, command, &[]);
        let r2t = match self.take(world).as_slice() {
            [Got::R2t(r2t)] => *r2t,
            other => panic!("no R2T but {other:?}"),
        };
        assert_eq!((r2t.offset, r2t.length as usize), (0, data.len()));
        for (n, chunk) in data.chunks(piece).enumerate() {
            let offset = n * piece;
            let last = offset + chunk.len() == data.len();
            world.send(self.socket, &h2c(&r2t, offset as u32, chunk, last, self.digests));
        }
        match self.take(world).as_slice() {
            [Got::Completion(completion)] => *completion,
            other => panic!("no completion but {other:?}"),
        }
    }

    /// What arrived since the last time.
    pub fn take(&mut self, world: &mut World) -> Vec<Got> {
        let bytes = std::mem::take(&mut world.stream(self.socket).from_shard);
        let mut got = Vec::new();
        let mut at = 0;
        let mut current: Option<(DataPdu, Vec<u8>)> = None;
        loop {
            let (taken, piece) =
                self.framer.next::<TestMemory>(&bytes[at..]).expect("a well-formed stream");
            at += taken as usize;
            match piece {
                Piece::More if at == bytes.len() => return got,
                Piece::More => {}
                Piece::Header(Header::Initialize(ic)) => got.push(Got::IcResp(ic)),
                Piece::Header(Header::Response(completion)) => {
                    got.push(Got::Completion(completion));
                }
                Piece::Header(Header::ReadyToTransfer(r2t)) => got.push(Got::R2t(r2t)),
                Piece::Header(Header::Data(pdu)) => current = Some((pdu, Vec::new())),
                Piece::Header(Header::Terminate { fes, fei }) => got.push(Got::Term { fes, fei }),
                Piece::Header(Header::Command { .. }) => unreachable!("the framer refuses it"),
                Piece::Data { len, .. } => {
                    if let Some((_, data)) = &mut current {
                        data.extend(&bytes[at - len as usize..at]);
                    }
                }
                Piece::End { digest } => {
                    if let Some((pdu, data)) = current.take() {
                        assert!(digest.is_none_or(|digest| digest == crc(&data)));
                        got.push(Got::Data { pdu, bytes: data });
                    }
                }
            }
        }
    }
}

/// A Connect command for a queue.
pub fn connect(qid: u16, cntlid: u16) -> Connect {
    Connect {
        cid: 0,
        qid,
        entries: 32,
        flow_control: false,
        kato: Duration::from_secs(5),
        cntlid,
        hostid: [7; 16],
        subnqn: Nqn::parse(NQN).unwrap(),
        hostnqn: Nqn::parse(HOST).unwrap(),
    }
}

/// A read or write of `blocks` blocks; the data's length is for the SGL.
pub fn transfer(opcode: u8, nsid: u32, slba: u64, blocks: u32, bytes: u32) -> Command {
    let mut command = Command::new(opcode, nsid);
    command.set_cdw(10, slba as u32);
    command.set_cdw(11, (slba >> 32) as u32);
    command.set_cdw(12, blocks - 1);
    command.sgl = Sgl::transport(bytes);
    command
}

pub fn read(nsid: u32, slba: u64, blocks: u32, bytes: u32) -> Command {
    transfer(io::READ, nsid, slba, blocks, bytes)
}

pub fn write(nsid: u32, slba: u64, blocks: u32, bytes: u32) -> Command {
    transfer(io::WRITE, nsid, slba, blocks, bytes)
}

pub fn flush(nsid: u32) -> Command {
    Command::new(io::FLUSH, nsid)
}
