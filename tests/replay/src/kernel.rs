//! A kernel in memory: sockets and a disk that do what a fuzzer says, in the order it says.
//!
//! It keeps the promises that a real one keeps and no others: a buffer may be read or written at
//! any time until its effect is done, streams stay in order, the disk's cache is lost with power.

use std::collections::{BTreeMap, VecDeque};

use braid_block::{Class, IoError, Memory, Span, Token};
use braid_shard::{Effect, Event, Shard, Socket};

use crate::arena::Arena;
use crate::oracle::Tag;

/// Bytes of a block: of the namespaces, and of what the disk writes whole.
pub(crate) const BLOCK: usize = 512;
/// Blocks of the disk.
pub(crate) const BLOCKS: u64 = 64;

/// Sockets, disk, and what is in flight on them.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) sockets: BTreeMap<u32, End>,
    socket_count: u32,
    /// Connections being made: nobody listens until the fuzzer says so.
    connecting: VecDeque<Token>,
    operations: VecDeque<Operation>,
    disk: Vec<Block>,
    /// Number of the disk's writes that are done.
    done: u64,
    /// Effects that were done and whose events were not yet told.
    pub(crate) events: VecDeque<Event>,
}

/// One end of a stream.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// The other end, if the shard has that too.
    peer: Option<u32>,
    inbox: Vec<u8>,
    /// Nothing comes after the inbox.
    ended: bool,
    receive: Option<Receive>,
    send: Option<Send>,
    closed: bool,
}

#[derive(Debug)]
enum Receive {
    Exact { token: Token, span: Span, filled: u32 },
    Stream { token: Token },
}

#[derive(Debug)]
struct Send {
    token: Token,
    spans: Vec<Span>,
    content: Vec<u8>,
}

/// What a block holds: durable, and in the cache, oldest first, by the number of the write.
#[derive(Clone, Debug, Default)]
struct Block {
    durable: Tag,
    cached: Vec<(u64, Tag)>,
}

#[derive(Debug)]
struct Operation {
    token: Token,
    what: What,
}

#[derive(Debug)]
enum What {
    Read { span: Span, offset: u64 },
    Write { span: Span, offset: u64, durable: bool, content: Vec<u8> },
    Zero { offset: u64, len: u64 },
    Sync { until: u64 },
}

impl Kernel {
    pub(crate) fn new() -> Self {
        Self {
            sockets: BTreeMap::new(),
            socket_count: 0,
            connecting: VecDeque::new(),
            operations: VecDeque::new(),
            disk: vec![Block::default(); usize::try_from(BLOCKS).unwrap_or_default()],
            done: 0,
            events: VecDeque::new(),
        }
    }

    /// Takes an effect on; notes and mail are not for the kernel.
    pub(crate) fn submit(&mut self, arena: &Arena, shard: &Shard, effect: Effect) {
        match effect {
            Effect::ReceiveExact { token, socket, span } => {
                assert!(!arena.span(span).is_empty(), "receives nothing");
                self.receive(socket, Receive::Exact { token, span, filled: 0 });
            }
            Effect::ReceiveStream { token, socket, .. } => {
                self.receive(socket, Receive::Stream { token });
            }
            Effect::ReceiveStop { socket } => self.stop_receive(socket.0, IoError::Cancelled),
            Effect::Send { token, socket, batch } => self.send(arena, shard, token, socket, batch),
            Effect::Connect { token, .. } => self.connecting.push_back(token),
            Effect::Shutdown { socket } => self.end_peer(socket.0),
            Effect::Close { socket } => self.close(arena, socket.0),
            Effect::Read { token, span, offset, .. } => {
                self.operate(token, What::Read { span, offset });
            }
            Effect::Write { token, durable, span, offset, .. } => {
                let content = arena.span(span).to_vec();
                self.operate(token, What::Write { span, offset, durable, content });
            }
            Effect::Zero { token, offset, len, .. }
            | Effect::Discard { token, offset, len, .. } => {
                self.operate(token, What::Zero { offset, len });
            }
            Effect::Sync { token, .. } => self.operate(token, What::Sync { until: self.done }),
            Effect::Mail { .. } => panic!("mail in a world of one shard"),
            Effect::Note(_) => {}
        }
    }

    /// Whether anything is in flight or waits to be delivered; on the disk too, if that counts.
    pub(crate) fn is_busy(&self, disk: bool) -> bool {
        let streams = self.sockets.values().any(|end| {
            let hears = end.receive.is_some() && (!end.inbox.is_empty() || end.ended);
            end.send.is_some() || hears
        });
        let disk = disk && !self.operations.is_empty();
        streams || disk || !self.events.is_empty() || !self.connecting.is_empty()
    }

    /// A stranger connects; returns the shard's end.
    pub(crate) fn stranger(&mut self) -> u32 {
        let socket = self.open(None);
        self.events.push_back(Event::Accepted { listener: 0, socket: Socket(socket), local: None });
        socket
    }

    /// A stranger's bytes arrive at the shard's end.
    pub(crate) fn put(&mut self, socket: u32, bytes: &[u8]) {
        if let Some(end) = self.sockets.get_mut(&socket).filter(|end| !end.ended) {
            end.inbox.extend(bytes);
        }
    }

    /// A connection that the shard asked for is made, or not.
    pub(crate) fn connect(&mut self, result: Result<(), IoError>) {
        let Some(token) = self.connecting.pop_front() else { return };
        let result = result.map(|()| {
            let (ours, theirs) = (self.open(None), self.socket_count);
            self.open(Some(ours));
            self.end_mut(ours).peer = Some(theirs);
            self.events.push_back(Event::Accepted {
                listener: 0,
                socket: Socket(theirs),
                local: None,
            });
            ours
        });
        self.events.push_back(Event::Done { token, result });
    }

    /// At most `len` bytes that arrived are received.
    pub(crate) fn deliver(&mut self, arena: &mut Arena, socket: u32, len: usize) {
        let Some(end) = self.sockets.get_mut(&socket) else { return };
        let len = len.min(end.inbox.len());
        match &mut end.receive {
            Some(Receive::Exact { span, filled, .. }) => {
                let len = len.min((span.len - *filled) as usize);
                let bytes = take(&mut end.inbox, len);
                arena.span_mut(*span)[*filled as usize..][..len].copy_from_slice(&bytes);
                *filled += u32::try_from(len).expect("a piece");
            }
            Some(Receive::Stream { token }) if len > 0 => {
                // As the reactor: without a buffer the bytes wait in the socket.
                let Some(lease) = arena.alloc(Class::Medium) else { return };
                let len = len.min(Class::Medium.bytes() as usize);
                let bytes = take(&mut end.inbox, len);
                arena.bytes_mut(&lease)[..len].copy_from_slice(&bytes);
                let len = u32::try_from(len).expect("a piece");
                self.events.push_back(Event::Received { token: *token, lease, len });
            }
            _ => {}
        }
        self.finish_receive(socket);
    }

    /// The send in flight on a socket is done, or not; the bytes arrive before.
    pub(crate) fn complete_send(
        &mut self,
        arena: &Arena,
        socket: u32,
        result: Result<(), IoError>,
    ) {
        let Some(end) = self.sockets.get_mut(&socket) else { return };
        let Some(Send { token, spans, content }) = end.send.take() else { return };
        assert!(arena.gather(&spans) == content, "a buffer was changed while it was sent");
        let (peer, len) = (end.peer, u32::try_from(content.len()).expect("a batch"));
        match (peer, result) {
            (Some(peer), Ok(())) => self.put(peer, &content),
            // How far it came, nobody knows.
            (Some(peer), Err(_)) => self.put(peer, &content[..content.len() / 2]),
            (None, _) => {}
        }
        self.events.push_back(Event::Done { token, result: result.map(|()| len) });
    }

    /// A stream breaks, at both ends.
    pub(crate) fn cut(&mut self, socket: u32) {
        let Some(end) = self.sockets.get_mut(&socket) else { return };
        let peer = end.peer;
        for socket in [Some(socket), peer].into_iter().flatten() {
            self.stop_receive(socket, IoError::Reset);
            if let Some(end) = self.sockets.get_mut(&socket) {
                end.inbox.clear();
                end.ended = true;
            }
        }
    }

    /// A device operation is done, or not.
    pub(crate) fn complete_operation(
        &mut self,
        arena: &mut Arena,
        index: usize,
        result: Result<(), IoError>,
    ) {
        if self.operations.is_empty() {
            return;
        }
        let index = index % self.operations.len();
        let Some(Operation { token, what }) = self.operations.remove(index) else { return };
        let len = match what {
            // What a failed write left behind is anybody's guess: here all of it, or nothing.
            What::Write { .. } | What::Zero { .. } if result.is_err() && index & 1 == 1 => 0,
            What::Read { .. } | What::Sync { .. } if result.is_err() => 0,
            _ => self.carry_out(arena, &what),
        };
        self.events.push_back(Event::Done { token, result: result.map(|()| len) });
    }

    /// What the block at `at` would hold after a loss of power.
    pub(crate) fn durable(&self, at: u64) -> Tag {
        self.disk[usize::try_from(at).unwrap_or_default()].durable
    }

    fn carry_out(&mut self, arena: &mut Arena, what: &What) -> u32 {
        match *what {
            What::Read { span, offset } => {
                let content = arena.span_mut(span).chunks_mut(BLOCK);
                let blocks = self.blocks(offset, u64::from(span.len)).iter();
                content
                    .zip(blocks)
                    .for_each(|(to, block)| to.copy_from_slice(&stamp(block.newest())));
                span.len
            }
            What::Write { span, offset, durable, ref content } => {
                assert!(arena.span(span) == content, "a buffer was changed while it was written");
                let tags: Vec<Tag> = arena.span(span).chunks(BLOCK).map(read_stamp).collect();
                self.done += 1;
                let number = self.done;
                let blocks = self.blocks(offset, u64::from(span.len));
                for (block, tag) in blocks.iter_mut().zip(tags) {
                    block.cached.push((number, tag));
                    if durable {
                        block.settle(number);
                    }
                }
                span.len
            }
            What::Zero { offset, len } => {
                self.done += 1;
                let number = self.done;
                self.blocks(offset, len)
                    .iter_mut()
                    .for_each(|block| block.cached.push((number, 0)));
                0
            }
            What::Sync { until } => {
                self.disk.iter_mut().for_each(|block| block.settle(until));
                0
            }
        }
    }

    fn blocks(&mut self, offset: u64, len: u64) -> &mut [Block] {
        let (offset, len) = (offset as usize, len as usize);
        assert!(offset.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK), "not aligned");
        let (first, count) = (offset / BLOCK, len / BLOCK);
        assert!(count > 0, "an operation on nothing");
        &mut self.disk[first..first + count]
    }

    fn operate(&mut self, token: Token, what: What) {
        self.operations.push_back(Operation { token, what });
    }

    fn open(&mut self, peer: Option<u32>) -> u32 {
        let socket = self.socket_count;
        self.socket_count += 1;
        self.sockets.insert(socket, End { peer, ..End::default() });
        socket
    }

    fn end_mut(&mut self, socket: u32) -> &mut End {
        self.sockets.get_mut(&socket).expect("a socket that is open")
    }

    fn receive(&mut self, socket: Socket, receive: Receive) {
        let end = self.end_mut(socket.0);
        assert!(!end.closed && end.receive.is_none(), "receives twice on {socket:?}");
        end.receive = Some(receive);
        self.finish_receive(socket.0);
    }

    /// Tells of a receive that is full, or that nothing more comes for.
    fn finish_receive(&mut self, socket: u32) {
        let end = self.end_mut(socket);
        let over = end.ended && end.inbox.is_empty();
        let done = match &end.receive {
            Some(Receive::Exact { token, span, filled }) if over || *filled == span.len => {
                Some((*token, *filled))
            }
            Some(Receive::Stream { token }) if over => Some((*token, 0)),
            _ => None,
        };
        if let Some((token, len)) = done {
            end.receive = None;
            self.events.push_back(Event::Done { token, result: Ok(len) });
        }
    }

    fn stop_receive(&mut self, socket: u32, why: IoError) {
        let Some(end) = self.sockets.get_mut(&socket) else { return };
        if let Some(Receive::Exact { token, .. } | Receive::Stream { token }) = end.receive.take() {
            self.events.push_back(Event::Done { token, result: Err(why) });
        }
    }

    fn send(&mut self, arena: &Arena, shard: &Shard, token: Token, socket: Socket, batch: u32) {
        let spans = shard.batch(batch).to_vec();
        assert!(!spans.is_empty() && spans.len() <= 64, "a batch of {} pieces", spans.len());
        let content = arena.gather(&spans);
        let end = self.end_mut(socket.0);
        assert!(!end.closed && end.send.is_none(), "sends twice on {socket:?}");
        end.send = Some(Send { token, spans, content });
    }

    fn end_peer(&mut self, socket: u32) {
        let Some(peer) = self.sockets.get(&socket).and_then(|end| end.peer) else { return };
        if let Some(end) = self.sockets.get_mut(&peer) {
            end.ended = true;
            self.finish_receive(peer);
        }
    }

    fn close(&mut self, arena: &Arena, socket: u32) {
        assert!(!self.end_mut(socket).closed, "closes {socket} twice");
        self.stop_receive(socket, IoError::Cancelled);
        self.complete_send(arena, socket, Err(IoError::Cancelled));
        self.end_peer(socket);
        self.end_mut(socket).closed = true;
        // The other end may still want to know that this one is gone, but nobody names it again.
        let peer = self.sockets.remove(&socket).and_then(|end| end.peer);
        if let Some(end) = peer.and_then(|peer| self.sockets.get_mut(&peer)) {
            end.peer = None;
        }
    }
}

impl Block {
    fn newest(&self) -> Tag {
        self.cached.last().map_or(self.durable, |(_, tag)| *tag)
    }

    /// Makes what was written up to then durable.
    fn settle(&mut self, until: u64) {
        while let Some((_, tag)) = self.cached.first().filter(|(number, _)| *number <= until) {
            self.durable = *tag;
            self.cached.remove(0);
        }
    }
}

/// A block's content.
pub(crate) fn stamp(tag: Tag) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block.chunks_mut(8).for_each(|word| word.copy_from_slice(&tag.to_le_bytes()));
    block
}

/// The tag of a block, which must be whole.
pub(crate) fn read_stamp(block: &[u8]) -> Tag {
    let (words, rest) = block.as_chunks::<8>();
    assert!(rest.is_empty() && words.iter().all(|word| *word == words[0]), "a torn block");
    Tag::from_le_bytes(words[0])
}

/// The first `len` bytes of a queue.
fn take(queue: &mut Vec<u8>, len: usize) -> Vec<u8> {
    let rest = queue.split_off(len);
    std::mem::replace(queue, rest)
}
