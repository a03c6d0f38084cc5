//! An honest target for our host side to talk to, made of the parts that the engine's is made of.
//!
//! What it serves is known from the address: every write must bring, and every read brings, what
//! [`pattern`] says. So a payload that went astray is seen wherever it turns up.

use std::collections::HashMap;
use std::time::Duration;

use braid_block::{BlockSize, Class, Geometry, Key, Lease, Memory};
use braid_nvme::Status;
use braid_nvme::ana::AnaState;
use braid_nvme::command::{Command, Completion, Sgl, admin, fabrics};
use braid_nvme::connect::{Connect, ConnectData, Nqn};
use braid_nvme::pdu::{Digests, FLAG_LAST, FLAG_SUCCESS, FatalError, PduType};
use braid_nvme::target::connection::{
    Capsule, Connection, Step, Transferred, check_ic_req, ic_resp,
};
use braid_nvme::target::reservation::ReservationSupport;
use braid_nvme::target::{
    Admin, AnaGroup, Controller, ControllerLimits, ControllerModel, Counters, Directory, IoCommand,
    Kind, Listed, NamespaceView, Portal, SubsystemView, Transfer,
};
use braid_nvme::transmit::{DataOut, Kept, Transmit};
use zerocopy::FromBytes;

use crate::arena::Arena;

/// The subsystem that the peer serves.
pub(crate) const SUBSYSTEM: &str = "nqn.2026-01.io.braid:peer";
/// Its one namespace.
pub(crate) const NSID: u32 = 1;
/// The namespace's size.
pub(crate) const GEOMETRY: Geometry = Geometry { block: BlockSize::B512, blocks: 256 };
/// In-capsule data of its I/O queues.
const IN_CAPSULE_BYTES: u32 = 1024;
const ENTRIES: u16 = 32;

/// The byte at `offset` of the namespace.
pub(crate) const fn pattern(offset: u64) -> u8 {
    let [a, b, ..] = offset.wrapping_mul(0x9e37_79b9).to_le_bytes();
    a ^ b ^ 0x5a
}

/// Every connection of a host with the target.
#[derive(Debug)]
pub(crate) struct Peer {
    arena: Arena,
    controller: Option<Controller>,
    streams: HashMap<u16, Stream>,
    /// Commands whose data is on its way, by the key's index.
    asked: HashMap<u32, Command>,
    asked_count: u32,
}

#[derive(Debug)]
struct Stream {
    connection: Connection,
    transmit: Transmit,
    input: Lease,
    qid: Option<u16>,
    flow_control: bool,
    /// What the host will receive.
    outbox: Vec<u8>,
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self {
            arena: Arena::new(64 << 20),
            controller: None,
            streams: HashMap::new(),
            asked: HashMap::new(),
            asked_count: 0,
        }
    }

    /// The host connected for one of its queues.
    pub(crate) fn accept(&mut self, queue: u16) {
        self.hang_up(queue);
        let lease = |arena: &mut Arena, class| arena.alloc(class).expect("room for the peer");
        let headers = [lease(&mut self.arena, Class::Small), lease(&mut self.arena, Class::Small)];
        let stream = Stream {
            connection: Connection::new(),
            transmit: Transmit::new(headers),
            input: lease(&mut self.arena, Class::Medium),
            qid: None,
            flow_control: true,
            outbox: Vec::new(),
        };
        self.streams.insert(queue, stream);
    }

    /// The connection is closed.
    pub(crate) fn hang_up(&mut self, queue: u16) {
        let Some(stream) = self.streams.remove(&queue) else { return };
        match (stream.qid, &mut self.controller) {
            (Some(0), controller) => *controller = None,
            (Some(qid), Some(controller)) => controller.leave(qid),
            _ => {}
        }
        self.arena.free(stream.input);
        stream.connection.into_leases().for_each(|lease| self.arena.free(lease));
        let (headers, kept) = stream.transmit.into_leases();
        for kept in kept {
            if let Kept::Lease(lease) = kept {
                self.arena.free(lease);
            }
        }
        headers.into_iter().for_each(|lease| self.arena.free(lease));
    }

    /// What the host will receive on a queue's connection.
    pub(crate) fn outbox(&mut self, queue: u16) -> Option<&mut Vec<u8>> {
        self.streams.get_mut(&queue).map(|stream| &mut stream.outbox)
    }

    /// Takes what the host sent.
    ///
    /// # Errors
    /// What the host did wrong.
    pub(crate) fn take(&mut self, queue: u16, bytes: &[u8]) -> Result<(), FatalError> {
        let Some(mut stream) = self.streams.remove(&queue) else { return Ok(()) };
        let mut done = Ok(());
        for piece in bytes.chunks(Class::Medium.bytes() as usize) {
            self.arena.bytes_mut(&stream.input)[..piece.len()].copy_from_slice(piece);
            let end = u32::try_from(piece.len()).expect("a piece fits a buffer");
            done = done.and_then(|()| self.step_through(&mut stream, end));
        }
        self.streams.insert(queue, stream);
        done
    }

    fn step_through(&mut self, stream: &mut Stream, end: u32) -> Result<(), FatalError> {
        let mut at = 0;
        loop {
            let (consumed, step) =
                stream.connection.step(&mut self.arena, &stream.input, at, end)?;
            at += consumed;
            match step {
                Step::More => return Ok(()),
                Step::Initialize(request) => {
                    let offered = Digests { header: true, data: true };
                    let (digests, alignment) = check_ic_req(&request, offered)?;
                    let answer = ic_resp(digests);
                    stream.transmit.initialize_connection(&mut self.arena, &answer);
                    stream.connection.initialize(digests);
                    stream.transmit.initialize(digests, alignment);
                }
                Step::NeedBuffer(len) => {
                    let class = Class::holding(len).expect("a capsule's data has a class");
                    let lease = self.arena.alloc(class).expect("room for the peer");
                    stream.connection.provide(lease);
                }
                Step::Command(capsule) => self.command(stream, capsule),
                Step::Transferred(transferred) => self.transferred(stream, transferred),
                Step::Terminated(_) => return Ok(()),
            }
            self.ship(stream);
        }
    }

    /// Moves what is to be sent to the outbox.
    fn ship(&mut self, stream: &mut Stream) {
        if !stream.transmit.launch() {
            return;
        }
        for span in stream.transmit.spans() {
            stream.outbox.extend_from_slice(self.arena.span(*span));
        }
        let landed: Vec<Kept> = stream.transmit.landed().collect();
        for kept in landed {
            if let Kept::Lease(lease) = kept {
                self.arena.free(lease);
            }
        }
    }

    fn command(&mut self, stream: &mut Stream, capsule: Capsule) {
        let Capsule { command, data, len, intact, .. } = capsule;
        assert!(intact, "our host sent a wrong data digest");
        let bytes = data.as_ref().map_or(&[][..], |lease| &self.arena.bytes(lease)[..len as usize]);
        let bytes = bytes.to_vec();
        if let Some(lease) = data {
            self.arena.free(lease);
        }
        match stream.qid {
            None => self.connect(stream, &command, &bytes),
            Some(0) => self.admin(stream, &command, &bytes),
            Some(_) => self.io(stream, &command, &bytes),
        }
    }

    fn connect(&mut self, stream: &mut Stream, command: &Command, data: &[u8]) {
        assert_eq!(command.opcode, admin::FABRICS, "our host's first command is no Connect");
        assert_eq!(command.fabrics_type(), fabrics::CONNECT);
        let data = ConnectData::read_from_bytes(data).expect("Connect has its data");
        let connect = Connect::parse(command, &data).expect("our host's Connect is well-formed");
        let limits = ControllerLimits {
            queue_entries: ENTRIES,
            io_queues: 2,
            in_capsule_bytes: IN_CAPSULE_BYTES,
        };
        let done = match (&mut self.controller, connect.qid) {
            (controller @ None, 0) => {
                *controller = Some(Controller::new(Kind::Io, 1, &connect, limits));
                Ok(())
            }
            (Some(controller), 1..) => controller.admit(&connect).map_err(|refusal| refusal.status),
            _ => Err(Status::SEQUENCE_ERROR),
        };
        match done {
            Ok(()) => {
                stream.qid = Some(connect.qid);
                stream.flow_control = connect.flow_control;
                stream.connection.open_queue(ENTRIES, IN_CAPSULE_BYTES);
                self.answer(stream, command, Status::SUCCESS, 1);
            }
            Err(status) => self.answer(stream, command, status, 0),
        }
    }

    fn admin(&mut self, stream: &mut Stream, command: &Command, data: &[u8]) {
        let Some(controller) = &mut self.controller else { return };
        let transfer = controller.transfer(command);
        let out_len = if let Ok(Transfer::ToHost(len)) = transfer { len as usize } else { 0 };
        let mut out = vec![0; out_len];
        match with_view(|view| controller.admin(view, command, data, &mut out)) {
            Admin::Done { status, result } => self.answer(stream, command, status, result),
            Admin::Data { len } => self.send(stream, command, &out[..len as usize]),
            Admin::Allocations { len, .. } => self.send(stream, command, &out[..len as usize]),
            Admin::Feature { value, .. } => {
                self.answer(stream, command, Status::SUCCESS, value.unwrap_or(0).into());
            }
            Admin::Flush => self.answer(stream, command, Status::SUCCESS, 0),
            Admin::Held => {}
            Admin::Abort { .. } => self.answer(stream, command, Status::SUCCESS, 1),
            Admin::Reset => {
                controller.reset_done();
                self.answer(stream, command, Status::SUCCESS, 0);
            }
            Admin::Shutdown => {
                controller.shutdown_done();
                self.answer(stream, command, Status::SUCCESS, 0);
            }
        }
    }

    fn io(&mut self, stream: &mut Stream, command: &Command, data: &[u8]) {
        let Some(controller) = &self.controller else { return };
        let namespace = (command.nsid.get() == NSID).then_some(GEOMETRY);
        match controller.io(command, namespace) {
            Err(status) => self.answer(stream, command, status, 0),
            Ok((IoCommand::Read { extent, .. }, _)) => {
                let bytes: Vec<u8> =
                    (extent.offset..extent.offset + extent.len).map(pattern).collect();
                self.send(stream, command, &bytes);
            }
            Ok((_, Transfer::FromHost(_))) => self.ask(stream, command),
            Ok((IoCommand::Write { .. }, _)) => self.written(stream, command, data),
            Ok(_) => self.answer(stream, command, Status::SUCCESS, 0),
        }
    }

    /// All of a write's data is here.
    fn written(&mut self, stream: &mut Stream, command: &Command, data: &[u8]) {
        let offset = command.slba() << GEOMETRY.block.shift();
        let right = (offset..).zip(data).all(|(at, byte)| *byte == pattern(at));
        assert!(right, "a write at {offset} brought what belongs elsewhere");
        self.answer(stream, command, Status::SUCCESS, 0);
    }

    fn ask(&mut self, stream: &mut Stream, command: &Command) {
        let len = command.sgl.length.get();
        assert_eq!(command.sgl.identifier, Sgl::TRANSPORT);
        let class = Class::holding(len).expect("a transfer has a class");
        let lease = self.arena.alloc(class).expect("room for the peer");
        let op = Key { index: self.asked_count, generation: len };
        match stream.connection.expect(op, command.cid.get(), lease, len) {
            Ok(ttag) => {
                let cid = command.cid.get();
                stream.transmit.ready_to_transfer(&mut self.arena, cid, ttag, 0, len);
                self.asked.insert(self.asked_count, *command);
                self.asked_count += 1;
            }
            Err(_) => panic!("our host has more commands outstanding than the queue holds"),
        }
    }

    fn transferred(&mut self, stream: &mut Stream, transferred: Transferred) {
        let Transferred { op, lease, intact } = transferred;
        assert!(intact, "our host sent a wrong data digest");
        let data = self.arena.bytes(&lease)[..op.generation as usize].to_vec();
        self.arena.free(lease);
        let command = self.asked.remove(&op.index).expect("a transfer was asked for");
        let is_write = command.opcode == braid_nvme::command::io::WRITE;
        if is_write {
            self.written(stream, &command, &data);
        } else {
            self.answer(stream, &command, Status::SUCCESS, 0);
        }
    }

    fn answer(&mut self, stream: &mut Stream, command: &Command, status: Status, result: u64) {
        let completion = Completion::new(command.cid.get(), status, result);
        stream.transmit.response(&mut self.arena, &completion);
    }

    /// Sends a command's data in two PDUs, where it has two, and completes it.
    fn send(&mut self, stream: &mut Stream, command: &Command, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("a transfer");
        let class = Class::holding(len).expect("a transfer has a class");
        let lease = self.arena.alloc(class).expect("room for the peer");
        self.arena.bytes_mut(&lease)[..bytes.len()].copy_from_slice(bytes);
        let cut = if len > 1024 { 512 } else { 0 };
        let cid = command.cid.get();
        let saved = if stream.flow_control { 0 } else { FLAG_SUCCESS };
        for (from, to, flags) in [(0, cut, 0), (cut, len, FLAG_LAST | saved)] {
            if from < to {
                let out = DataOut { pdu_type: PduType::C2hData, cid, ttag: 0, offset: from, flags };
                stream.transmit.data(&mut self.arena, out, &lease, lease.span(from, to - from));
            }
        }
        stream.transmit.keep(Kept::Lease(lease));
        if stream.flow_control {
            self.answer(stream, command, Status::SUCCESS, 0);
        }
    }
}

fn with_view<T>(then: impl FnOnce(&SubsystemView<'_>) -> T) -> T {
    let portal = Portal { id: 1, address: "127.0.0.1:4420".parse().expect("an address") };
    let nqn = Nqn::parse(SUBSYSTEM).expect("a name");
    let namespace = NamespaceView {
        nsid: NSID,
        group: 1,
        geometry: GEOMETRY,
        nguid: [1; 16],
        uuid: [2; 16],
        atomic_blocks: 1,
        thin: false,
        read_only: false,
        reservations: ReservationSupport::Persistent,
    };
    then(&SubsystemView {
        nqn: &nqn,
        serial: "peer",
        model: "Braid",
        firmware: "0.1.0",
        controllers: ControllerModel::Dynamic,
        namespaces: &[namespace],
        groups: &[AnaGroup { id: 1, state: AnaState::Optimized, changes: 1 }],
        epoch: 0,
        portals: &[portal],
        port: 1,
        uptime: Duration::from_secs(1),
        counters: Counters::default(),
        directory: &Nothing,
    })
}

struct Nothing;

impl Directory for Nothing {
    fn generation(&self) -> u64 {
        0
    }

    fn is_same_everywhere(&self) -> bool {
        true
    }

    fn entries(&self, _: &Nqn, _: &mut dyn FnMut(Listed<'_>)) {}
}
