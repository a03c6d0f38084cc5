//! The machines of hosts: a shard each, with nothing but its host side. What a host of
//! [`crate::cluster`] wants becomes commands of NVMe, by an association for each of its lines.
//!
//! Invariants:
//! 1. A line is one association: it is never made again by itself.
//! 2. A command carries its line and its tag, by which it is known wherever it is seen.
//! 3. What is answered after a line has ended is told to nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_block::{Class, Instant, Key, Lease, Memory};
use braid_nexus::{Uuid, Work};
use braid_nvme::ana::AnaState;
use braid_nvme::command::{Command, io};
use braid_nvme::host::{Completed, Event as HostSide, Live, Operation, Submission, Why};
use braid_shard::{Effect, Event, HostConfig, Note, Shard};
use zerocopy::little_endian::U32;

use super::names::{self, NSID};
use super::streams::{Streams, World};
use crate::cluster::clock::{Clock, Happening};
use crate::cluster::net::{Body, Net, Trace};
use crate::cluster::{HostEvent, LineId, Place};
use crate::memory::SimMemory;

/// Rounds of a turn; what is left has another turn.
const ROUNDS: u32 = 64;
/// Until a turn: what comes meanwhile is in the same one.
const GATHER: u64 = 20_000;
/// Force Unit Access, and Deallocate, in CDW12 (NVM 3.2.5, 3.2.8).
const FUA: u32 = 1 << 30;
const DEAC: u32 = 1 << 25;
/// Sectors of 512 bytes, as volumes have them here.
const SECTOR: u64 = 512;

/// A line of a host.
#[derive(Debug)]
struct Line {
    key: Key,
    node: u8,
    live: bool,
    /// Tags of looks at the ANA log that are on their way.
    looks: Vec<u64>,
    /// Bytes of the volume, as they were last told.
    bytes: u64,
}

/// A command on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    line: LineId,
    tag: u64,
    offset: u64,
    fills: usize,
}

/// A host's machine.
#[derive(Debug)]
pub(crate) struct Machine {
    host: u8,
    mem: SimMemory,
    shard: Shard,
    streams: Streams,
    lines: BTreeMap<LineId, Line>,
    sent: BTreeMap<u64, Sent>,
    cookies: u64,
    turn_set: bool,
    wake: Option<Instant>,
    out: Vec<(LineId, HostEvent)>,
}

/// What a line is opened with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) line: LineId,
    pub(crate) node: u8,
    pub(crate) volume: Uuid,
    pub(crate) id: Uuid,
    pub(crate) origin: u64,
}

impl Machine {
    pub(crate) fn new(host: u8, clock: &mut Clock) -> Self {
        let mut mem = SimMemory::new(names::ARENA);
        let mut shard = Shard::new(names::shard(Vec::new(), names::ARENA));
        let seed = clock.random.number();
        let start = Event::Start { boot_id: [host; 16], seed };
        shard.handle(&mut mem, clock.now(), start);
        Self {
            host,
            mem,
            shard,
            streams: Streams::new(Place::Host(host)),
            lines: BTreeMap::new(),
            sent: BTreeMap::new(),
            cookies: 0,
            turn_set: false,
            wake: None,
            out: Vec::new(),
        }
    }

    /// What came to the host by its lines.
    pub(crate) fn take_events(&mut self) -> Vec<(LineId, HostEvent)> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn is_connecting(&self, line: LineId) -> bool {
        self.streams.is_connecting(line)
    }

    pub(crate) fn unanswered(&mut self, clock: &mut Clock, line: LineId) {
        self.streams.unanswered(line);
        self.touch(clock);
    }

    /// Connects.
    pub(crate) fn open(&mut self, clock: &mut Clock, opening: Opening) {
        let Opening { line, node, volume, id, origin } = opening;
        let controller = names::host(&volume, id, origin);
        let config = HostConfig { address: node.into(), controller };
        let key = self.shard.host_open(clock.now(), config);
        match key {
            Some(key) => {
                let line_of = Line { key, node, live: false, looks: Vec::new(), bytes: 0 };
                self.lines.insert(line, line_of);
            }
            None => self.out.push((line, HostEvent::Refused)),
        }
        self.touch(clock);
    }

    /// Gives a line up, aloud or without a sound.
    pub(crate) fn leave(&mut self, clock: &mut Clock, net: &mut Net, line: LineId, silent: bool) {
        let Some(Line { key, .. }) = self.lines.remove(&line) else { return };
        let now = clock.now();
        self.shard.host_abort(&mut self.mem, now, key);
        self.streams.set_muted(silent);
        self.rounds(clock, net);
        self.streams.set_muted(false);
        self.touch(clock);
    }

    /// Reads the ANA log.
    pub(crate) fn look(&mut self, clock: &mut Clock, line: LineId, tag: u64) {
        let Some(of) = self.lines.get_mut(&line) else { return };
        of.looks.push(tag);
        let key = of.key;
        self.shard.host_look(&mut self.mem, clock.now(), key);
        self.touch(clock);
    }

    /// Sends a command.
    pub(crate) fn send(
        &mut self,
        clock: &mut Clock,
        line: LineId,
        tag: u64,
        work: Work,
        data: &[u8],
    ) {
        let Some(Line { key, node, .. }) = self.lines.get(&line) else { return };
        let (key, node) = (*key, *node);
        let (command, len, offset) = entry(work, line, tag);
        let lease = Class::holding(len).filter(|_| len > 0).map(|class| self.mem.alloc(class));
        if lease == Some(None) {
            let (status, trace) = (braid_nexus::Status::Busy, trace(node, clock.now()));
            let event = HostEvent::Completed { tag, status, data: None, trace };
            self.out.push((line, event));
            return;
        }
        let lease = lease.flatten();
        if let Some(lease) = lease.as_ref().filter(|_| !data.is_empty()) {
            self.mem.bytes_mut(lease)[..data.len()].copy_from_slice(data);
        }
        self.cookies += 1;
        let fills = if data.is_empty() { len as usize } else { 0 };
        self.sent.insert(self.cookies, Sent { line, tag, offset, fills });
        let operation = Operation::Vendor(command);
        let submission =
            Submission { operation, nsid: NSID, lease, len, cookie: self.cookies, queue: 0 };
        let now = clock.now();
        if let Err(back) = self.shard.host_submit(&mut self.mem, now, key, submission) {
            // The association ends just now, which is told soon, or takes no more for a moment.
            self.sent.remove(&back.cookie);
            back.lease.into_iter().for_each(|lease| self.mem.free(lease));
            let (status, trace) = (braid_nexus::Status::Busy, trace(node, now));
            self.out.push((line, HostEvent::Completed { tag, status, data: None, trace }));
        }
        self.touch(clock);
    }

    /// Something came for one of its streams.
    pub(crate) fn take(&mut self, clock: &mut Clock, net: &mut Net, from: Place, body: Body) {
        self.streams.take(&mut World { clock, net }, from, body);
        self.touch(clock);
    }

    fn touch(&mut self, clock: &mut Clock) {
        if !std::mem::replace(&mut self.turn_set, true) {
            let delay = Duration::from_nanos(clock.random.below(GATHER));
            clock.after(delay, Happening::HostTurn { host: self.host });
        }
    }

    /// A deadline, if it is still meant.
    pub(crate) fn wake(&mut self, clock: &mut Clock) {
        if self.wake.is_some_and(|wake| wake <= clock.now()) {
            self.wake = None;
            self.shard.handle(&mut self.mem, clock.now(), Event::Elapsed);
            self.touch(clock);
        }
    }

    /// Ends a turn.
    pub(crate) fn turn(&mut self, clock: &mut Clock, net: &mut Net) {
        self.turn_set = false;
        self.rounds(clock, net);
        if self.shard.has_work() {
            self.touch(clock);
        }
        let Some(due) = self.shard.poll_timeout() else { return };
        let due = due.max(clock.now() + Duration::from_micros(10));
        if self.wake.is_none_or(|wake| due < wake) {
            self.wake = Some(due);
            clock.at(due, Happening::HostWake { host: self.host });
        }
    }

    fn rounds(&mut self, clock: &mut Clock, net: &mut Net) {
        for _ in 0..ROUNDS {
            if !self.round(clock, net) {
                return;
            }
        }
    }

    fn round(&mut self, clock: &mut Clock, net: &mut Net) -> bool {
        let now = clock.now();
        let mut moved = self.streams.go_on(&mut World { clock, net }, &mut self.mem);
        while let Some(event) = self.streams.poll() {
            moved = true;
            self.shard.handle(&mut self.mem, now, event);
        }
        self.shard.end_turn(&mut self.mem, now);
        while let Some((key, event)) = self.shard.host_poll() {
            moved = true;
            self.happened(clock, key, event);
        }
        while let Some(effect) = self.shard.poll_effect() {
            moved = true;
            self.act(clock, net, effect);
        }
        moved
    }

    fn act(&mut self, clock: &mut Clock, net: &mut Net, effect: Effect) {
        let (streams, mem) = (&mut self.streams, &mut self.mem);
        let mut world = World { clock, net };
        match effect {
            Effect::Connect { token, address } => {
                let node = u8::try_from(address).expect("an address is a node");
                streams.connect(&mut world, token, Place::Node(node));
            }
            Effect::ReceiveExact { token, socket, span } => {
                streams.receive_exact(mem, token, socket, span);
            }
            Effect::ReceiveStream { token, socket, .. } => streams.receive_stream(token, socket),
            Effect::ReceiveStop { socket } => streams.receive_stop(socket),
            Effect::Send { token, socket, batch } => {
                streams.send(mem, token, socket, self.shard.batch(batch).to_vec());
            }
            Effect::Shutdown { socket } => streams.shutdown(&mut world, socket),
            Effect::Close { socket } => streams.close(&mut world, mem, socket),
            Effect::Note(Note::HostDisconnected { why, .. }) => {
                let host = self.host;
                clock.tell(|| format!("h{host}: an association ends: {why:?}"));
            }
            Effect::Note(_) => {}
            other => unreachable!("a host has no disk and no other shard: {other:?}"),
        }
    }

    fn line_of(&self, key: Key) -> Option<LineId> {
        self.lines.iter().find(|(_, line)| line.key == key).map(|(line, _)| *line)
    }

    fn happened(&mut self, clock: &Clock, key: Key, event: HostSide) {
        match event {
            HostSide::Live(live) => self.is_live(key, &live),
            HostSide::Completed(completed) => self.completed(clock, completed),
            HostSide::Lost { why, .. } => {
                let Some(at) = self.line_of(key) else { return };
                let Some(line) = self.lines.remove(&at) else { return };
                let refused = !line.live && matches!(why, Why::Connect(_) | Why::Refused { .. });
                let event = if refused { HostEvent::Refused } else { HostEvent::Broken };
                self.out.push((at, event));
            }
            HostSide::Closed | HostSide::Discovered(_) => {}
        }
    }

    fn is_live(&mut self, key: Key, live: &Live) {
        let Some(at) = self.line_of(key) else { return };
        let Some(line) = self.lines.get_mut(&at) else { return };
        let namespace = live.namespaces.iter().find(|namespace| namespace.nsid == NSID);
        let bytes = namespace.map_or(0, |namespace| namespace.geometry.bytes());
        if !std::mem::replace(&mut line.live, true) {
            self.out.push((at, HostEvent::Connected));
        } else {
            let optimized = namespace.is_some_and(|n| n.access == AnaState::Optimized);
            let tag = if line.looks.is_empty() { 0 } else { line.looks.remove(0) };
            self.out.push((at, HostEvent::Ana { tag, optimized }));
        }
        if bytes > 0 && std::mem::replace(&mut line.bytes, bytes) != bytes {
            self.out.push((at, HostEvent::Resized { bytes }));
        }
    }

    fn completed(&mut self, clock: &Clock, completed: Completed) {
        let Completed { cookie, status, lease, .. } = completed;
        let Some(Sent { line, tag, offset, fills }) = self.sent.remove(&cookie) else {
            unreachable!("an association ends a command once");
        };
        let filled = lease.as_ref().filter(|_| status.is_success() && fills > 0);
        let data = filled.map(|lease: &Lease| self.mem.bytes(lease)[..fills].into());
        lease.into_iter().for_each(|lease| self.mem.free(lease));
        let Some(of) = self.lines.get(&line) else { return };
        // What its end handed back is told as its end.
        if status.is(braid_nvme::Status::ABORTED_BY_HOST)
            || status.is(braid_nvme::Status::HOST_PATHING_ERROR)
        {
            return;
        }
        let (status, trace) = (names::said(status, offset), trace(of.node, clock.now()));
        self.out.push((line, HostEvent::Completed { tag, status, data, trace }));
    }
}

/// What a host knows of how a command went.
const fn trace(node: u8, now: Instant) -> Trace {
    Trace { node, epoch: 0, received: now, answered: now }
}

/// A command as it travels, its bytes, and where it begins.
fn entry(work: Work, line: LineId, tag: u64) -> (Command, u32, u64) {
    let (opcode, offset, bytes, flags, len) = match work {
        Work::Read { offset, len } => (io::READ, offset, u64::from(len), 0, len),
        Work::Write { offset, len, durable } => {
            (io::WRITE, offset, u64::from(len), if durable { FUA } else { 0 }, len)
        }
        Work::Zero { offset, len, durable } => {
            (io::WRITE_ZEROES, offset, len, DEAC | if durable { FUA } else { 0 }, 0)
        }
        Work::Flush => (io::FLUSH, 0, 0, 0, 0),
    };
    let mut command = Command::new(opcode, NSID);
    let low = |number: u64| u32::try_from(number & 0xffff_ffff).expect("half of it");
    command.cdw2 = [U32::new(low(line.0)), U32::new(low(tag))];
    if bytes > 0 {
        let (first, blocks) = (offset / SECTOR, bytes / SECTOR);
        command.set_cdw(10, low(first));
        command.set_cdw(11, low(first >> 32));
        command.set_cdw(12, low(blocks - 1) | flags);
    }
    (command, len, offset)
}
