//! The streams of a process, as its kernel has them: connected, carried in pieces by the
//! cluster's network, reset, and closed while bytes are still on their way.
//!
//! ```text
//! connect --> Open ==> accept ==> Opened ==> Done(socket)
//! Send --> pieces of any length, each with a delay of its own --> inbox --> Received, in pieces
//! Close --> Over (after the bytes) or End (a reset, which overtakes them)
//! ```
//!
//! Invariants:
//! 1. What the kernel has is sent though its process closes the stream: a command may arrive when
//!    its sender has given it up.
//! 2. Who sends to a stream that is no more is answered with a reset.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use braid_block::{Class, Instant, IoError, Lease, Memory, Span, Token};
use braid_nexus::Uuid;
use braid_shard::{Event, Socket};

use super::snoop::{Answer, Command, Snoop};
use super::stream::{Receive, Stream};
use crate::cluster::clock::Clock;
use crate::cluster::net::{Body, Frame, Net, Target};
use crate::cluster::{LineId, Place};
use crate::memory::SimMemory;

/// Bytes that one receive brings, at most.
const PIECE: u64 = 16 << 10;
/// Receives of a stream before the others have their turn.
const PIECES: usize = 4;

/// What the streams of a process need of the world.
pub(super) struct World<'a> {
    pub(super) clock: &'a mut Clock,
    pub(super) net: &'a mut Net,
}

/// What was overheard on a stream of a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    /// A command came.
    Came(Command),
    /// One was answered.
    Answered(Answer),
    /// A nexus changed something, by this stream.
    Changed(Socket),
    /// It would have, by a stream that is closed here.
    Late(Caller),
}

/// Which replica a nexus calls by a stream, and when it changed that last: in which epoch, and
/// how often the replica had been fenced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) replica: Uuid,
    pub(super) epoch: u64,
    pub(super) fences: u64,
}

/// A stream of a nexus that is closed here.
#[derive(Debug)]
struct Past {
    stream: Stream,
    snoop: Snoop,
    caller: Option<Caller>,
}

/// The streams of a process.
#[derive(Debug)]
pub(super) struct Streams {
    place: Place,
    list: BTreeMap<u32, Stream>,
    sockets: u32,
    connecting: BTreeMap<LineId, (Token, Place)>,
    ready: VecDeque<Event>,
    snoops: BTreeMap<u32, Snoop>,
    heard: VecDeque<Heard>,
    /// Streams of nexuses that were closed here, by the sockets that they had.
    past: BTreeMap<u32, Past>,
    /// Streams whose end nobody hears of, and which answer nothing.
    mute: BTreeSet<LineId>,
    muted: bool,
}

impl Streams {
    pub(super) const fn new(place: Place) -> Self {
        Self {
            place,
            list: BTreeMap::new(),
            sockets: 0,
            connecting: BTreeMap::new(),
            ready: VecDeque::new(),
            snoops: BTreeMap::new(),
            heard: VecDeque::new(),
            past: BTreeMap::new(),
            mute: BTreeSet::new(),
            muted: false,
        }
    }

    /// What happened and was not told the shard.
    pub(super) fn poll(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// What was overheard.
    pub(super) fn overheard(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    /// Nobody hears of streams that are closed from now on, or they do again.
    pub(super) const fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// Whether this process has that end of a stream.
    pub(super) fn has(&self, line: LineId, near: bool) -> bool {
        self.list.values().any(|stream| stream.line == line && stream.near == near)
    }

    /// Whether a connect was not answered yet.
    pub(super) fn is_connecting(&self, line: LineId) -> bool {
        self.connecting.contains_key(&line)
    }

    /// A host's command has reached its volume.
    pub(super) fn taken(&mut self, socket: Socket, cid: u16, now: Instant) {
        if let Some(snoop) = self.snoops.get_mut(&socket.0) {
            snoop.taken(cid, now);
        }
    }

    /// All ends here: whether it is the near one, and where the other is.
    pub(super) fn ends(&self) -> impl Iterator<Item = (LineId, bool, Place)> {
        self.list.values().map(|stream| (stream.line, stream.near, stream.peer))
    }

    fn find(&self, line: LineId, near: bool) -> Option<u32> {
        let its = |stream: &Stream| stream.line == line && stream.near == near;
        self.list.iter().find(|(_, stream)| its(stream)).map(|(socket, _)| *socket)
    }

    fn insert(&mut self, stream: Stream) -> u32 {
        self.sockets += 1;
        self.list.insert(self.sockets, stream);
        self.sockets
    }

    /// The shard connects.
    pub(super) fn connect(&mut self, world: &mut World<'_>, token: Token, to: Place) {
        let line = world.net.open(world.clock, self.place, to, Target::Stream);
        self.connecting.insert(line, (token, to));
    }

    /// Nobody answered a connect.
    pub(super) fn unanswered(&mut self, line: LineId) {
        if let Some((token, _)) = self.connecting.remove(&line) {
            self.done(token, Err(IoError::TimedOut));
        }
    }

    fn done(&mut self, token: Token, result: Result<u32, IoError>) {
        self.ready.push_back(Event::Done { token, result });
    }

    /// Something came for a stream.
    pub(super) fn take(&mut self, world: &mut World<'_>, from: Place, body: Body) {
        match body {
            Body::Open { line, .. } => {
                let socket = self.insert(Stream::new(line, false, from));
                self.snoops.insert(socket, Snoop::default());
                self.ready.push_back(Event::Accepted {
                    listener: 0,
                    socket: Socket(socket),
                    local: None,
                });
                let opened = Body::Opened { line, association: 0 };
                world.net.send(world.clock, self.place, from, opened);
            }
            Body::Opened { line, .. } => match self.connecting.remove(&line) {
                Some((token, _)) => {
                    let socket = self.insert(Stream::new(line, true, from));
                    self.done(token, Ok(socket));
                }
                None => self.refuse(world, from, line, true),
            },
            Body::Refused { line } => {
                if let Some((token, _)) = self.connecting.remove(&line) {
                    self.done(token, Err(IoError::Refused));
                }
            }
            Body::End { line, near } => {
                if let Some(socket) = self.find(line, !near) {
                    let lost = world.clock.once_in(2);
                    let stream = self.list.get_mut(&socket).expect("a stream that was found");
                    stream.broken = true;
                    if lost {
                        stream.lose_input();
                    }
                }
            }
            Body::Frame { line, near, frame } => self.frame(world, from, (line, near), frame),
            _ => {}
        }
    }

    fn frame(
        &mut self,
        world: &mut World<'_>,
        from: Place,
        (line, near): (LineId, bool),
        frame: Frame,
    ) {
        let Some(socket) = self.find(line, !near) else {
            if let Frame::Bytes { at, bytes } = frame {
                self.came_late(line, at, bytes);
            }
            return self.refuse(world, from, line, !near);
        };
        let stream = self.list.get_mut(&socket).expect("a stream that was found");
        match frame {
            Frame::Bytes { at, bytes } => stream.arrive(at, bytes),
            Frame::Taken { total } => stream.was_taken(total),
            Frame::Over { after } => stream.ends_after(after),
            _ => {}
        }
    }

    /// Who called by a stream that was closed.
    pub(super) fn was_of(&mut self, socket: Socket, caller: Caller) {
        if let Some(past) = self.past.get_mut(&socket.0) {
            past.caller = Some(caller);
        }
    }

    /// A piece comes by a stream that was closed here.
    fn came_late(&mut self, line: LineId, at: u64, bytes: Rc<[u8]>) {
        let Some(past) = self.past.values_mut().find(|past| past.stream.line == line) else {
            return;
        };
        past.stream.arrive(at, bytes);
        let bytes = past.stream.give(past.stream.waiting());
        let changes = past.snoop.changes(&bytes);
        let late = past.caller.into_iter().filter(|_| changes > 0);
        self.heard.extend(late.map(Heard::Late));
    }

    /// There is no such stream here.
    fn refuse(&self, world: &mut World<'_>, from: Place, line: LineId, near: bool) {
        if !self.mute.contains(&line) {
            world.net.send(world.clock, self.place, from, Body::End { line, near });
        }
    }

    /// The shard sends a batch.
    pub(super) fn send(
        &mut self,
        mem: &mut SimMemory,
        token: Token,
        socket: Socket,
        spans: Vec<Span>,
    ) {
        let Some(stream) = self.list.get_mut(&socket.0) else {
            return self.done(token, Err(IoError::Cancelled));
        };
        stream.begin(mem, token, spans.clone());
        let is_host = matches!(stream.peer, Place::Host(_));
        if let Some(snoop) = self.snoops.get_mut(&socket.0).filter(|_| is_host) {
            let answers = snoop.answers(&mem.gather(&spans));
            self.heard.extend(answers.into_iter().map(Heard::Answered));
        }
    }

    /// The shard is ready to receive exactly so much.
    pub(super) fn receive_exact(
        &mut self,
        mem: &mut SimMemory,
        token: Token,
        socket: Socket,
        span: Span,
    ) {
        match self.list.get_mut(&socket.0) {
            Some(stream) => {
                mem.hold(span, true);
                stream.receive = Some(Receive::Exact(token, span));
            }
            None => self.done(token, Err(IoError::Cancelled)),
        }
    }

    /// The shard is ready to receive whatever comes.
    pub(super) fn receive_stream(&mut self, token: Token, socket: Socket) {
        match self.list.get_mut(&socket.0) {
            Some(stream) => stream.receive = Some(Receive::Stream(token)),
            None => self.done(token, Err(IoError::Cancelled)),
        }
    }

    /// It is not any more.
    pub(super) fn receive_stop(&mut self, socket: Socket) {
        if let Some(stream) = self.list.get_mut(&socket.0) {
            stream.stopping = true;
        }
    }

    /// The shard sends no more.
    pub(super) fn shutdown(&mut self, world: &mut World<'_>, socket: Socket) {
        if let Some(stream) = self.list.get_mut(&socket.0).filter(|stream| !stream.ended) {
            stream.ended = true;
            let (line, near, peer, after) = (stream.line, stream.near, stream.peer, stream.sent());
            let frame = Frame::Over { after };
            world.net.send(world.clock, self.place, peer, Body::Frame { line, near, frame });
        }
    }

    /// The shard closes a stream.
    pub(super) fn close(&mut self, world: &mut World<'_>, mem: &mut SimMemory, socket: Socket) {
        let Some(mut stream) = self.list.remove(&socket.0) else { return };
        let tokens = [stream.drop_batch(mem), stream.drop_receive(mem)];
        for token in tokens.into_iter().flatten() {
            self.done(token, Err(IoError::Cancelled));
        }
        let (line, near, peer) = (stream.line, stream.near, stream.peer);
        if self.muted {
            self.mute.insert(line);
        } else if !stream.broken {
            // A kernel whose process leaves bytes unread resets the stream, which overtakes.
            let body = if stream.waiting() > 0 || world.clock.once_in(2) {
                Body::End { line, near }
            } else {
                Body::Frame { line, near, frame: Frame::Over { after: stream.sent() } }
            };
            world.net.send(world.clock, self.place, peer, body);
        }
        let snoop = self.snoops.remove(&socket.0);
        if let Some(snoop) = snoop.filter(|_| matches!(peer, Place::Node(_))) {
            self.past.insert(socket.0, Past { stream, snoop, caller: None });
        }
    }

    /// Lets every stream go on: bytes leave, and bytes are received; whether any did.
    pub(super) fn go_on(&mut self, world: &mut World<'_>, mem: &mut SimMemory) -> bool {
        let sockets: Vec<u32> = self.list.keys().copied().collect();
        let mut moved = false;
        for socket in sockets {
            moved |= self.push(world, mem, socket);
            moved |= self.pull(world, mem, socket);
        }
        moved
    }

    /// Bytes of a batch leave, as far as there is room for them.
    fn push(&mut self, world: &mut World<'_>, mem: &mut SimMemory, socket: u32) -> bool {
        let Some(stream) = self.list.get_mut(&socket) else { return false };
        if stream.broken {
            let Some(token) = stream.drop_batch(mem) else { return false };
            self.done(token, Err(IoError::Reset));
            return true;
        }
        let (line, near, peer) = (stream.line, stream.near, stream.peer);
        let mut moved = false;
        loop {
            let small = world.clock.random.once_in(6);
            let most = if small { 1 + world.clock.random.below(200) } else { WHOLE };
            let most = usize::try_from(most).unwrap_or(1);
            let Some((at, bytes)) = stream.next_piece(most) else { break };
            moved = true;
            let frame = Frame::Bytes { at, bytes };
            world.net.send(world.clock, self.place, peer, Body::Frame { line, near, frame });
        }
        if let Some((token, len)) = stream.is_sent(mem) {
            self.done(token, Ok(len));
            moved = true;
        }
        moved
    }

    /// The shard receives what came.
    fn pull(&mut self, world: &mut World<'_>, mem: &mut SimMemory, socket: u32) -> bool {
        let mut moved = false;
        for _ in 0..PIECES {
            let Some(stream) = self.list.get_mut(&socket) else { break };
            let peer = stream.peer;
            let Some(event) = received(stream, world.clock, mem) else { break };
            moved = true;
            if let (Some(snoop), Some(bytes)) = (self.snoops.get_mut(&socket), &event.bytes) {
                if let Place::Host(_) = peer {
                    let came = snoop.commands(bytes, world.clock.now());
                    self.heard.extend(came.into_iter().map(Heard::Came));
                } else if snoop.changes(bytes) > 0 {
                    self.heard.push_back(Heard::Changed(Socket(socket)));
                }
            }
            self.ready.push_back(event.event);
        }
        let Some(stream) = self.list.get_mut(&socket) else { return moved };
        if let Some(total) = stream.news().filter(|_| !stream.broken) {
            let (line, near, peer) = (stream.line, stream.near, stream.peer);
            let frame = Frame::Taken { total };
            world.net.send(world.clock, self.place, peer, Body::Frame { line, near, frame });
        }
        moved
    }
}

/// Bytes that a piece has if it is not cut.
const WHOLE: u64 = 64 << 10;

struct Received {
    event: Event,
    bytes: Option<Vec<u8>>,
}

/// What a stream's receive brings now.
fn received(stream: &mut Stream, clock: &mut Clock, mem: &mut SimMemory) -> Option<Received> {
    let over = stream.is_over() || stream.broken;
    let end = |token, result| Some(Received { event: Event::Done { token, result }, bytes: None });
    match stream.receive? {
        Receive::Exact(token, span) => {
            let len = span.len as usize;
            if stream.waiting() < len && !over {
                return None;
            }
            stream.receive = None;
            mem.release(span, true);
            if stream.broken && stream.waiting() < len {
                return end(token, Err(IoError::Reset));
            }
            let bytes = stream.give(len.min(stream.waiting()));
            let len = u32::try_from(bytes.len()).expect("a short receive");
            if len > 0 {
                mem.span_mut(Span { len, ..span }).copy_from_slice(&bytes);
            }
            let event = Event::Done { token, result: Ok(len) };
            Some(Received { event, bytes: Some(bytes) })
        }
        Receive::Stream(token) if stream.stopping => {
            stream.stopping = false;
            stream.receive = None;
            end(token, Err(IoError::Cancelled))
        }
        Receive::Stream(token) if stream.waiting() > 0 => {
            // Without a buffer the bytes stay where they are.
            let lease: Lease = mem.alloc(Class::Medium)?;
            let most = if clock.random.once_in(4) { 1 + clock.random.below(PIECE) } else { PIECE };
            let most = usize::try_from(most).unwrap_or(1);
            let bytes = stream.give(most.min(stream.waiting()));
            mem.bytes_mut(&lease)[..bytes.len()].copy_from_slice(&bytes);
            let len = u32::try_from(bytes.len()).expect("a piece");
            Some(Received { event: Event::Received { token, lease, len }, bytes: Some(bytes) })
        }
        Receive::Stream(token) if over => {
            stream.receive = None;
            let result = if stream.broken { Err(IoError::Reset) } else { Ok(0) };
            end(token, result)
        }
        Receive::Stream(_) => None,
    }
}
