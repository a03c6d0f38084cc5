//! A shard whose peers live in the same process: what it sends is read where it lies, what it
//! receives is put there, and only what it does on disks goes to the kernel.

use std::collections::VecDeque;
use std::time::Duration;

use braid_block::{Class, Instant, Lease, Memory, Span, Token};
use braid_nvme::command::{Command, io};
use braid_nvme::connect::{CNTLID_DYNAMIC, Connect, Nqn};
use braid_nvme::property::{Configuration, Property};
use braid_reactor::{Arena, Machine};
use braid_shard::{Effect, Event, Shard, Socket};
use zerocopy::IntoBytes;

use crate::load::{BLOCK, Way};
use crate::wire::{ANSWER, CAPSULE, ENTRIES, NQN, block_command, capsule, initialize};

/// The two streams: the admin queue and the I/O queue.
const ADMIN: usize = 0;
const IO: usize = 1;

/// A shard and its only host.
pub(crate) struct Loopback {
    shard: Shard,
    /// Effects for the reactor.
    out: VecDeque<Effect>,
    peers: [Peer; 2],
    cntlid: u16,
    way: Way,
    wanted: u16,
    free: Vec<u16>,
    blocks: u64,
    random: u64,
    done: u64,
}

/// One stream, as its host has it.
#[derive(Default)]
struct Peer {
    asked: Asked,
    /// Bytes on their way to the shard.
    inbox: VecDeque<u8>,
    /// Answers that came while the queue was being opened.
    answers: u32,
    /// Payload bytes of the current PDU that are still to come.
    skip: u32,
}

/// What the shard waits for.
#[derive(Default)]
enum Asked {
    #[default]
    Nothing,
    Exact(Token, Span),
    Stream(Token),
}

impl Loopback {
    /// A host of this shard, that will use so many blocks of namespace 1.
    pub(crate) fn new(shard: Shard, blocks: u64) -> Self {
        Self {
            shard,
            out: VecDeque::with_capacity(1024),
            peers: [Peer::default(), Peer::default()],
            cntlid: CNTLID_DYNAMIC,
            way: Way::Read,
            wanted: 0,
            free: Vec::with_capacity(ENTRIES as usize),
            blocks,
            random: 0x9e37_79b9_7f4a_7c15,
            done: 0,
        }
    }

    /// Keeps so many commands going from now on.
    pub(crate) fn load(&mut self, way: Way, depth: u16) {
        (self.way, self.wanted) = (way, depth);
        self.free.clear();
        self.free.extend(0..depth);
    }

    /// Gives no more commands.
    pub(crate) fn rest(&mut self) {
        self.wanted = 0;
    }

    /// Commands that were answered.
    pub(crate) const fn done(&self) -> u64 {
        self.done
    }

    /// Puts the next commands on their way.
    fn ask(&mut self) {
        while self.wanted > 0
            && let Some(cid) = self.free.pop()
        {
            let write = self.way == Way::Write;
            let opcode = if write { io::WRITE } else { io::READ };
            let mut pdu = block_command(opcode, 1, cid, write);
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let [a, b, c, d, e, f, g, h] = (self.random % self.blocks).to_le_bytes();
            pdu.command.set_cdw(10, u32::from_le_bytes([a, b, c, d]));
            pdu.command.set_cdw(11, u32::from_le_bytes([e, f, g, h]));
            let inbox = &mut self.peers[IO].inbox;
            inbox.extend(pdu.as_bytes());
            if write {
                // By reference: a copy of memory, not a loop over bytes.
                inbox.extend([0x5a_u8; BLOCK].as_slice());
            }
        }
    }

    /// Gives the shard what it waits for, as far as it is there. True if it was given anything.
    fn deliver(&mut self, mem: &mut Arena, now: Instant, at: usize) -> bool {
        let peer = &mut self.peers[at];
        match peer.asked {
            Asked::Exact(token, span) if peer.inbox.len() >= span.len as usize => {
                let lease = Lease::new(span.lease);
                take(&mut peer.inbox, &mut mem.bytes_mut(&lease)[..span.len as usize]);
                peer.asked = Asked::Nothing;
                self.shard.handle(mem, now, Event::Done { token, result: Ok(span.len) });
                true
            }
            Asked::Stream(token) if !peer.inbox.is_empty() => {
                let Some(lease) = mem.alloc(Class::Medium) else { return false };
                let len = peer.inbox.len().min(Class::Medium.bytes() as usize);
                take(&mut peer.inbox, &mut mem.bytes_mut(&lease)[..len]);
                let len = u32::try_from(len).unwrap_or(0);
                self.shard.handle(mem, now, Event::Received { token, lease, len });
                true
            }
            _ => false,
        }
    }

    /// Carries out what is about streams, and passes on the rest. True if the shard has news.
    fn carry_out(&mut self, mem: &mut Arena, now: Instant) -> bool {
        let mut news = false;
        while let Some(effect) = self.shard.poll_effect() {
            match effect {
                Effect::ReceiveExact { token, socket, span } => {
                    self.peers[socket.0 as usize].asked = Asked::Exact(token, span);
                    news = true;
                }
                Effect::ReceiveStream { token, socket, .. } => {
                    self.peers[socket.0 as usize].asked = Asked::Stream(token);
                    news = true;
                }
                Effect::ReceiveStop { socket } => {
                    let peer = &mut self.peers[socket.0 as usize];
                    if let Asked::Stream(token) = peer.asked {
                        peer.asked = Asked::Nothing;
                        let result = Err(braid_block::IoError::Cancelled);
                        self.shard.handle(mem, now, Event::Done { token, result });
                        news = true;
                    }
                }
                Effect::Send { token, socket, batch } => {
                    let total = self.read_batch(mem, socket, batch);
                    self.shard.handle(mem, now, Event::Done { token, result: Ok(total) });
                    news = true;
                }
                other => self.out.push_back(other),
            }
        }
        news
    }

    /// Looks at every header of a batch.
    fn read_batch(&mut self, mem: &Arena, socket: Socket, batch: u32) -> u32 {
        let mut answered = Vec::new();
        std::mem::swap(&mut answered, &mut self.free);
        let at = socket.0 as usize;
        let (peer, mut total) = (&mut self.peers[at], 0);
        for span in self.shard.batch(batch) {
            total += span.len;
            let lease = Lease::new(span.lease);
            let mut bytes = &mem.bytes(&lease)[span.offset as usize..][..span.len as usize];
            while !bytes.is_empty() {
                let skipped = bytes.len().min(peer.skip as usize);
                bytes = &bytes[skipped..];
                peer.skip -= u32::try_from(skipped).unwrap_or(0);
                if bytes.is_empty() {
                    break;
                }
                let len = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
                let id = if bytes[0] == 7 { 8 } else { 20 };
                if bytes.len() >= ANSWER && peer.answers >= 2 && at == IO {
                    answered.push(u16::from_le_bytes([bytes[id], bytes[id + 1]]));
                    self.done += 1;
                } else if at == ADMIN && peer.answers == 1 {
                    self.cntlid = u16::from_le_bytes([bytes[8], bytes[9]]);
                }
                peer.answers += 1;
                peer.skip = len;
            }
        }
        self.free = answered;
        total
    }

    /// The next step of opening the queues, once the last one was answered.
    fn greet(&mut self, mem: &mut Arena, now: Instant) {
        let [admin, queue] = [self.peers[ADMIN].answers, self.peers[IO].answers];
        let idle = |peer: &Peer| peer.inbox.is_empty() && !matches!(peer.asked, Asked::Nothing);
        match (admin, queue) {
            (0, _) if idle(&self.peers[ADMIN]) => self.send(ADMIN, initialize().as_bytes()),
            (1, _) if idle(&self.peers[ADMIN]) => self.send_connect(ADMIN),
            (2, _) if idle(&self.peers[ADMIN]) => {
                let enable = Property::Configuration.set(Configuration::ENABLE.to_wire().into());
                self.send(ADMIN, &capsule(enable, &[]));
            }
            (3, 0) if matches!(self.peers[IO].asked, Asked::Nothing) => {
                let socket = Socket(1);
                self.shard.handle(mem, now, Event::Accepted { listener: 0, socket, local: None });
                self.send(IO, initialize().as_bytes());
            }
            (3, 1) if idle(&self.peers[IO]) => self.send_connect(IO),
            _ => {}
        }
    }

    fn send_connect(&mut self, at: usize) {
        let parse = |text| Nqn::parse(text).expect("a constant of ours is well-formed");
        let connect = Connect {
            cid: 1,
            qid: u16::from(at == IO),
            entries: if at == IO { ENTRIES } else { 32 },
            flow_control: false,
            kato: Duration::ZERO,
            cntlid: self.cntlid,
            hostid: [1; 16],
            subnqn: parse(NQN),
            hostnqn: parse("nqn.2026-11.io.braid:loopback"),
        };
        let (command, data): (Command, _) = connect.to_wire();
        self.send(at, &capsule(command, data.as_bytes()));
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        self.peers[at].inbox.extend(bytes);
    }
}

/// Moves the first bytes of a queue.
fn take(from: &mut VecDeque<u8>, to: &mut [u8]) {
    let (first, second) = from.as_slices();
    let whole = first.len().min(to.len());
    to[..whole].copy_from_slice(&first[..whole]);
    let rest = to.len() - whole;
    to[whole..].copy_from_slice(&second[..rest]);
    from.drain(..to.len());
}

impl Machine for Loopback {
    fn handle(&mut self, mem: &mut Arena, now: Instant, event: Event) {
        let start = matches!(event, Event::Start { .. });
        self.shard.handle(mem, now, event);
        if start {
            let socket = Socket(0);
            self.shard.handle(mem, now, Event::Accepted { listener: 0, socket, local: None });
        }
    }

    fn end_turn(&mut self, mem: &mut Arena, now: Instant) {
        loop {
            self.shard.end_turn(mem, now);
            let mut news = self.carry_out(mem, now);
            self.greet(mem, now);
            self.ask();
            for at in [ADMIN, IO] {
                news |= self.deliver(mem, now, at);
            }
            if !news {
                return;
            }
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.shard.poll_timeout()
    }

    fn has_work(&self) -> bool {
        self.shard.has_work()
    }

    fn batch(&self, batch: u32) -> &[Span] {
        self.shard.batch(batch)
    }

    fn drop_leases(&mut self, mem: &mut Arena) {
        self.shard.drop_leases(mem);
    }
}

/// Bytes of a command capsule without data must be what the shard takes.
const _: () = assert!(CAPSULE == 72);
