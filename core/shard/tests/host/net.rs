//! A network in memory: shards that reach each other, with pieces, delays and losses by dice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use braid_block::{Class, Instant, IoError, Key, Lease, Memory, Span, Token};
use braid_nvme::host::Event as HostEvent;
use braid_shard::{Config, Effect, Event, Note, Shard, Socket, Told};

use crate::memory::Arena;

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % end
    }
}

enum Receive {
    Exact(Token, Span),
    Stream(Token),
}

/// One end of a stream.
struct End {
    peer: (usize, u32),
    inbox: VecDeque<u8>,
    /// The other end sends no more.
    over: bool,
    receive: Option<Receive>,
    stopping: bool,
    send: Option<(Token, Vec<Span>, Vec<u8>)>,
    closed: bool,
    /// The stream was reset.
    broken: bool,
}

/// A shard with its memory and its sockets.
pub(crate) struct Node {
    pub(crate) shard: Shard,
    pub(crate) mem: Arena,
    ends: BTreeMap<u32, End>,
    next_socket: u32,
    connects: Vec<(Token, usize)>,
    pub(crate) notes: Vec<Note>,
    pub(crate) events: VecDeque<HostEvent>,
    /// Of which association each of them is, where that is looked at.
    pub(crate) whose: VecDeque<Key>,
    /// It does nothing and its bytes stay where they are.
    pub(crate) stalled: bool,
    /// Whether it can be connected to.
    pub(crate) listens: bool,
    /// Sends it was asked for.
    pub(crate) sends: u64,
    /// Bytes that it sent, by node.
    pub(crate) sent: BTreeMap<usize, u64>,
    /// Allocations of its shard, where they are counted.
    pub(crate) allocated: u64,
    /// Its disk, by blocks of 4096 bytes; zeros until written.
    pub(crate) disk: BTreeMap<u64, Vec<u8>>,
    /// What the disk has done and not told yet.
    landed: Vec<(Token, u32)>,
    /// What was read from the disk does not come.
    pub(crate) holds_reads: bool,
    held: Vec<(Token, u32)>,
    /// What its volumes ask and tell.
    pub(crate) tells: VecDeque<Told>,
}

/// The network.
pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Instant,
    pub(crate) dice: Dice,
    /// Connections that are asked for stay so.
    pub(crate) no_connects: bool,
    /// Closed streams' effects stay in flight.
    pub(crate) no_rest: bool,
    /// One of so many pieces gets a bit flipped; 0: none does.
    pub(crate) flip: u64,
}

impl Node {
    fn new(config: Config, now: Instant, seed: u64) -> Self {
        let mut node = Self {
            shard: Shard::new(config),
            mem: Arena::new(),
            ends: BTreeMap::new(),
            next_socket: 0,
            connects: Vec::new(),
            notes: Vec::new(),
            events: VecDeque::new(),
            whose: VecDeque::new(),
            stalled: false,
            listens: true,
            sends: 0,
            sent: BTreeMap::new(),
            allocated: 0,
            disk: BTreeMap::new(),
            landed: Vec::new(),
            holds_reads: false,
            held: Vec::new(),
            tells: VecDeque::new(),
        };
        let start = Event::Start { boot_id: [0; 16], seed };
        node.handle(now, start);
        node
    }

    fn socket(&mut self, peer: (usize, u32)) -> u32 {
        let socket = self.next_socket;
        self.next_socket += 1;
        let end = End {
            peer,
            inbox: VecDeque::new(),
            over: false,
            receive: None,
            stopping: false,
            send: None,
            closed: false,
            broken: false,
        };
        self.ends.insert(socket, end);
        socket
    }

    /// Hands an event to its shard.
    fn handle(&mut self, now: Instant, event: Event) {
        let before = crate::allocations();
        self.shard.handle(&mut self.mem, now, event);
        self.allocated += crate::allocations() - before;
    }

    fn read_disk(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        for block in offset / 4096..(offset + len as u64).div_ceil(4096) {
            match self.disk.get(&block) {
                Some(content) => bytes.extend(content),
                None => bytes.resize(bytes.len() + 4096, 0),
            }
        }
        bytes.split_off((offset % 4096) as usize).drain(..len).collect()
    }

    fn write_disk(&mut self, offset: u64, bytes: &[u8]) {
        for (at, chunk) in (offset..).step_by(512).zip(bytes.chunks(512)) {
            let block = self.disk.entry(at / 4096).or_insert_with(|| vec![0; 4096]);
            block[(at % 4096) as usize..][..chunk.len()].copy_from_slice(chunk);
        }
    }

    /// Reads that were made and do not come.
    pub(crate) fn held_reads(&self) -> usize {
        self.held.len()
    }

    /// Buffers that the shard has out, but for those it keeps all its life.
    pub(crate) fn leases(&self) -> usize {
        self.mem.out()
    }
}

impl Net {
    pub(crate) fn new(configs: Vec<Config>, seed: u64) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let nodes = configs.into_iter().map(|config| Node::new(config, now, seed)).collect();
        Self { nodes, now, dice: Dice(seed), no_connects: false, no_rest: false, flip: 0 }
    }

    /// A node dies and comes back with nothing but its configuration.
    pub(crate) fn restart(&mut self, node: usize, config: Config) {
        let ends: Vec<_> = self.nodes[node].ends.values().map(|end| end.peer).collect();
        for (peer, socket) in ends {
            self.reset(peer, socket);
        }
        self.nodes[node] = Node::new(config, self.now, 99);
    }

    /// One of a node's streams, chosen by dice, is reset.
    pub(crate) fn cut(&mut self, node: usize) {
        let open = self.nodes[node].ends.iter().filter(|(_, end)| !end.closed && !end.broken);
        let open: Vec<_> = open.map(|(socket, end)| (*socket, end.peer)).collect();
        if !open.is_empty() {
            let (socket, (peer, theirs)) = open[self.dice.below(open.len() as u64) as usize];
            self.reset(node, socket);
            self.reset(peer, theirs);
        }
    }

    fn reset(&mut self, node: usize, socket: u32) {
        if let Some(end) = self.nodes[node].ends.get_mut(&socket) {
            end.broken = true;
            end.inbox.clear();
        }
    }

    /// Runs until nothing is left to do now.
    pub(crate) fn run(&mut self) {
        for _ in 0..1_000_000 {
            let mut idle = true;
            for at in 0..self.nodes.len() {
                if self.nodes[at].stalled {
                    continue;
                }
                idle &= !self.turn(at);
                idle &= !self.world(at) && !self.nodes[at].shard.has_work();
            }
            if idle {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    /// Runs for a few turns only, so that things are half done.
    pub(crate) fn some(&mut self, turns: u64) {
        for _ in 0..self.dice.below(turns) {
            for at in 0..self.nodes.len() {
                self.turn(at);
                self.world(at);
            }
        }
    }

    /// Time passes, from deadline to deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        self.run();
        while let Some(due) = self.due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            for node in self.nodes.iter_mut().filter(|node| !node.stalled) {
                if node.shard.poll_timeout().is_some_and(|due| due <= self.now) {
                    node.handle(self.now, Event::Elapsed);
                }
            }
            self.run();
        }
        self.now = until;
    }

    fn due(&self) -> Option<Instant> {
        let awake = self.nodes.iter().filter(|node| !node.stalled);
        awake.filter_map(|node| node.shard.poll_timeout()).min()
    }

    /// Ends a node's turn and carries out what it wants; false if that is nothing.
    fn turn(&mut self, at: usize) -> bool {
        let (now, node) = (self.now, &mut self.nodes[at]);
        let before = crate::allocations();
        node.shard.end_turn(&mut node.mem, now);
        node.allocated += crate::allocations() - before;
        while let Some((key, event)) = node.shard.host_poll() {
            node.whose.push_back(key);
            node.events.push_back(event);
        }
        node.tells.extend(std::iter::from_fn(|| node.shard.volume_poll()));
        let mut any = false;
        while let Some(effect) = self.nodes[at].shard.poll_effect() {
            any = true;
            self.carry_out(at, effect);
        }
        any
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        let node = &mut self.nodes[at];
        match effect {
            Effect::Connect { token, address } => node.connects.push((token, address as usize)),
            Effect::ReceiveExact { token, socket, span } => {
                node.mem.hold(&[span]);
                node.ends.get_mut(&socket.0).unwrap().receive = Some(Receive::Exact(token, span));
            }
            Effect::ReceiveStream { token, socket, .. } => {
                node.ends.get_mut(&socket.0).unwrap().receive = Some(Receive::Stream(token));
            }
            Effect::ReceiveStop { socket } => {
                node.ends.get_mut(&socket.0).unwrap().stopping = true;
            }
            Effect::Send { token, socket, batch } => {
                let spans = node.shard.batch(batch).to_vec();
                assert!(!spans.is_empty() && spans.len() <= 64);
                node.sends += 1;
                node.mem.hold(&spans);
                let bytes = node.mem.gather(&spans);
                let end = node.ends.get_mut(&socket.0).unwrap();
                assert!(end.send.is_none() && !end.closed);
                *node.sent.entry(end.peer.0).or_default() += bytes.len() as u64;
                end.send = Some((token, spans, bytes));
            }
            Effect::Shutdown { socket } => self.end_peer(at, socket),
            Effect::Close { socket } => {
                node.ends.get_mut(&socket.0).expect("an open socket").closed = true;
                self.end_peer(at, socket);
            }
            Effect::Note(note) => node.notes.push(note),
            Effect::Read { token, span, offset, .. } => {
                let bytes = node.read_disk(offset, span.len as usize);
                node.mem.write(span, &bytes);
                let list = if node.holds_reads { &mut node.held } else { &mut node.landed };
                list.push((token, span.len));
            }
            Effect::Write { token, span, offset, .. } => {
                let bytes = node.mem.gather(&[span]);
                node.write_disk(offset, &bytes);
                node.landed.push((token, span.len));
            }
            Effect::Sync { token, .. } | Effect::Discard { token, .. } => {
                node.landed.push((token, 0));
            }
            other => panic!("not in this world: {other:?}"),
        }
    }

    fn end_peer(&mut self, at: usize, socket: Socket) {
        let Some(end) = self.nodes[at].ends.get(&socket.0) else { return };
        let (peer, socket) = end.peer;
        if let Some(end) = self.nodes[peer].ends.get_mut(&socket) {
            end.over = true;
        }
    }

    /// Lets some of what a node asked for happen; false if nothing can.
    fn world(&mut self, at: usize) -> bool {
        let mut any = self.make_connections(at);
        let node = &mut self.nodes[at];
        if !node.holds_reads {
            node.landed.append(&mut node.held);
        }
        for (token, len) in std::mem::take(&mut self.nodes[at].landed) {
            any = true;
            self.done(at, token, Ok(len));
        }
        let sockets: Vec<u32> = self.nodes[at].ends.keys().copied().collect();
        for socket in sockets {
            let end = &self.nodes[at].ends[&socket];
            if end.closed || end.broken {
                let error = if end.closed { IoError::Cancelled } else { IoError::Reset };
                any |= self.rest(at, socket, error);
                continue;
            }
            any |= self.move_bytes(at, socket);
            any |= self.receive(at, socket);
        }
        any
    }

    fn make_connections(&mut self, at: usize) -> bool {
        if self.no_connects || self.nodes[at].connects.is_empty() {
            return false;
        }
        for (token, to) in std::mem::take(&mut self.nodes[at].connects) {
            let result = if self.nodes.get(to).is_some_and(|node| node.listens) {
                let theirs = self.nodes[to].next_socket + u32::from(at == to);
                let ours = self.nodes[at].socket((to, theirs));
                let socket = self.nodes[to].socket((at, ours));
                assert_eq!(socket, theirs);
                let node = &mut self.nodes[to];
                let accepted = Event::Accepted { listener: 0, socket: Socket(socket), local: None };
                node.handle(self.now, accepted);
                Ok(ours)
            } else {
                Err(IoError::Refused)
            };
            self.done(at, token, result);
        }
        true
    }

    fn done(&mut self, at: usize, token: Token, result: Result<u32, IoError>) {
        let node = &mut self.nodes[at];
        node.handle(self.now, Event::Done { token, result });
    }

    /// The effects of a stream that is over come back, one at a time.
    fn rest(&mut self, at: usize, socket: u32, error: IoError) -> bool {
        if self.no_rest {
            return false;
        }
        let node = &mut self.nodes[at];
        let end = node.ends.get_mut(&socket).unwrap();
        let cancelled = Err(error);
        if let Some((token, spans, _)) = end.send.take() {
            node.mem.release(&spans);
            self.done(at, token, cancelled);
        } else if let Some(receive) = end.receive.take() {
            let token = match receive {
                Receive::Stream(token) => token,
                Receive::Exact(token, span) => {
                    node.mem.release(&[span]);
                    token
                }
            };
            self.done(at, token, cancelled);
        } else {
            return false;
        }
        true
    }

    /// Some bytes of a batch go over; the last ones complete it.
    fn move_bytes(&mut self, at: usize, socket: u32) -> bool {
        let dice = self.dice.below(3);
        let piece = 1 + self.dice.below(100_000) as usize;
        let end = self.nodes[at].ends.get_mut(&socket).unwrap();
        let (peer, theirs) = end.peer;
        let Some((token, _, bytes)) = end.send.as_mut().filter(|_| !end.closed) else {
            return false;
        };
        let token = *token;
        let mut moved: Vec<u8> = bytes.drain(..piece.min(bytes.len())).collect();
        let left = bytes.len();
        self.flip(&mut moved);
        if let Some(other) = self.nodes[peer].ends.get_mut(&theirs).filter(|other| !other.closed) {
            other.inbox.extend(&moved);
        }
        // The completion may be later than the bytes' arrival.
        if left == 0 && dice > 0 {
            let node = &mut self.nodes[at];
            let (_, spans, _) = node.ends.get_mut(&socket).unwrap().send.take().unwrap();
            node.mem.release(&spans);
            let len = spans.iter().map(|span| span.len).sum();
            self.done(at, token, Ok(len));
        }
        true
    }

    /// Flips a bit, rarely.
    fn flip(&mut self, bytes: &mut [u8]) {
        if self.flip > 0 && !bytes.is_empty() && self.dice.below(self.flip) == 0 {
            let at = self.dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.dice.below(8);
        }
    }

    /// Some bytes are received.
    fn receive(&mut self, at: usize, socket: u32) -> bool {
        let piece = 1 + self.dice.below(20_000) as usize;
        let now = self.now;
        let node = &mut self.nodes[at];
        let end = node.ends.get_mut(&socket).unwrap();
        if end.closed {
            return false;
        }
        match end.receive.take() {
            Some(Receive::Exact(token, span)) => {
                let len = span.len as usize;
                if end.inbox.len() < len && !end.over {
                    end.receive = Some(Receive::Exact(token, span));
                    return false;
                }
                let bytes: Vec<u8> = end.inbox.drain(..len.min(end.inbox.len())).collect();
                node.mem.release(&[span]);
                node.mem.write(span, &bytes);
                self.done(at, token, Ok(bytes.len() as u32));
            }
            Some(Receive::Stream(token)) if end.stopping => {
                end.stopping = false;
                self.done(at, token, Err(IoError::Cancelled));
            }
            Some(Receive::Stream(token)) if !end.inbox.is_empty() => {
                end.receive = Some(Receive::Stream(token));
                let bytes: Vec<u8> =
                    end.inbox.drain(..piece.min(end.inbox.len()).min(16 << 10)).collect();
                let lease: Lease = node.mem.deliver(Class::Medium);
                node.mem.bytes_mut(&lease)[..bytes.len()].copy_from_slice(&bytes);
                let event = Event::Received { token, lease, len: bytes.len() as u32 };
                node.handle(now, event);
            }
            Some(Receive::Stream(token)) if end.over => self.done(at, token, Ok(0)),
            other => {
                end.receive = other;
                return false;
            }
        }
        true
    }
}
