//! What a target may send: the answers of an honest one, late, torn, damaged or made up, to our
//! host side.
//!
//! Checked throughout:
//! 1. A buffer is not changed while it is being sent, nor freed while anything may touch it.
//! 2. Every command ends exactly once, and hands its buffer back.
//! 3. While nothing was damaged, neither side finds an error of the other, and every payload is
//!    where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use braid_block::{Class, Instant, IoError, Lease, Memory, Span};
use braid_nvme::Status;
use braid_nvme::connect::Nqn;
use braid_nvme::host::{Action, Completed, Config, Controller, Event, Operation, Submission, Why};
use braid_nvme::pdu::Digests;

use crate::arena::Arena;
use crate::input::Input;
use crate::peer::{GEOMETRY, NSID, Peer, SUBSYSTEM, pattern};

/// Steps of a run. Longer ones find no more, and keep the fuzzer from trying short ones.
const STEPS_MAX: usize = 128;
/// Buffers that host and harness have together: a few commands find no room.
const ARENA_BYTES: u64 = 512 << 10;

/// The first byte chooses the association's options; then each step is a byte that says what
/// happens, and what it needs.
pub fn pdu_stream_host(bytes: &[u8]) {
    walk(bytes);
}

/// Returns how many commands ended with success.
fn walk(bytes: &[u8]) -> usize {
    let mut input = Input::new(bytes);
    let mut run = Run::new(input.byte());
    run.wait(Duration::ZERO);
    run.settle();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
    }
    run.finish();
    run.served
}

struct Run {
    arena: Arena,
    host: Controller,
    peer: Peer,
    now: Instant,
    /// The buffer that received bytes are handed over in.
    receive: Lease,
    connecting: BTreeSet<u16>,
    receiving: BTreeSet<u16>,
    /// Batches in flight, with their content when they took off.
    sending: BTreeMap<u16, (Vec<Span>, Vec<u8>)>,
    closing: BTreeSet<u16>,
    /// Commands in work: where what they read must come from.
    commands: BTreeMap<u64, Option<u64>>,
    cookie: u64,
    /// Nothing was damaged or made up since the beginning.
    honest: bool,
    closed: bool,
    /// Commands that ended with success.
    served: usize,
}

impl Run {
    fn new(options: u8) -> Self {
        let name = |text| Nqn::parse(text).expect("a name");
        let mut config =
            Config::new(name(SUBSYSTEM), name("nqn.2014-08.org.nvmexpress:uuid:us"), [3; 16]);
        config.digests = Digests::from_wire(options);
        config.flow_control = options & 4 != 0;
        config.io_queues = 1 + u16::from(options >> 3 & 1);
        config.queue_entries = 6 + u16::from(options >> 4);
        let mut arena = Arena::new(ARENA_BYTES);
        let receive = arena.alloc(Class::Medium).expect("the first lease");
        Self {
            host: Controller::new(config, 7, Instant::ZERO),
            arena,
            peer: Peer::new(),
            now: Instant::ZERO,
            receive,
            connecting: BTreeSet::new(),
            receiving: BTreeSet::new(),
            sending: BTreeMap::new(),
            closing: BTreeSet::new(),
            commands: BTreeMap::new(),
            cookie: 0,
            honest: true,
            closed: false,
            served: 0,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let queue = u16::from(choice >> 4 & 3);
        match choice & 15 {
            0 => self.converse(),
            1 => self.deliver(queue, 1 + usize::from(input.byte())),
            2 => self.deliver(queue, 16 * usize::from(input.byte())),
            3 | 4 => self.complete_send(queue, Ok(())),
            5..=7 => self.submit(input),
            8 => self.damage(queue, input),
            9 => self.inject(queue, input),
            10 => self.wait(Duration::from_millis(10 * u64::from(input.byte()))),
            11 => self.end_stream(queue, Ok(())),
            12 => self.end_stream(queue, Err(IoError::Reset)),
            13 => self.complete_send(queue, Err(IoError::Reset)),
            14 => self.stop(input.byte()),
            _ => self.connect_all(Err(IoError::Refused)),
        }
        self.settle();
    }

    /// Honest talk until nothing is left to say.
    fn converse(&mut self) {
        for _ in 0..200 {
            self.connect_all(Ok(()));
            for queue in std::mem::take(&mut self.closing) {
                self.complete_send(queue, Err(IoError::Cancelled));
                self.end_stream(queue, Err(IoError::Cancelled));
            }
            let mut silent = true;
            for queue in 0..3 {
                self.complete_send(queue, Ok(()));
                let waiting = self.peer.outbox(queue).map_or(0, |outbox| outbox.len());
                silent &= waiting == 0;
                self.deliver(queue, waiting);
            }
            self.settle();
            let busy = [self.connecting.len(), self.sending.len(), self.closing.len()];
            if silent && busy == [0; 3] {
                break;
            }
        }
    }

    fn connect_all(&mut self, result: Result<(), IoError>) {
        for queue in std::mem::take(&mut self.connecting) {
            if result.is_ok() {
                self.peer.accept(queue);
            } else {
                self.honest = false;
            }
            self.host.connected(&mut self.arena, self.now, queue, result);
        }
    }

    fn deliver(&mut self, queue: u16, len: usize) {
        let Some(outbox) = self.peer.outbox(queue) else { return };
        let bytes: Vec<u8> = outbox.drain(..len.min(outbox.len())).collect();
        self.receive(queue, &bytes);
    }

    fn receive(&mut self, queue: u16, bytes: &[u8]) {
        for piece in bytes.chunks(Class::Medium.bytes() as usize) {
            if !self.receiving.contains(&queue) {
                return;
            }
            self.arena.bytes_mut(&self.receive)[..piece.len()].copy_from_slice(piece);
            let len = u32::try_from(piece.len()).expect("a piece fits a buffer");
            self.host.received(&mut self.arena, self.now, queue, &self.receive, len);
            self.settle();
        }
    }

    fn damage(&mut self, queue: u16, input: &mut Input<'_>) {
        let (at, flip) = (usize::from(input.byte()), input.byte());
        let Some(byte) = self.peer.outbox(queue).and_then(|outbox| outbox.get_mut(at)) else {
            return;
        };
        *byte ^= flip;
        self.honest &= flip == 0;
    }

    fn inject(&mut self, queue: u16, input: &mut Input<'_>) {
        let len = usize::from(input.byte());
        let bytes = input.bytes(len);
        self.honest &= bytes.is_empty();
        self.receive(queue, bytes);
    }

    fn complete_send(&mut self, queue: u16, result: Result<(), IoError>) {
        let Some((spans, content)) = self.sending.remove(&queue) else { return };
        assert!(self.arena.gather(&spans) == content, "a buffer was changed while it was sent");
        self.honest &= result.is_ok();
        self.host.sent(&mut self.arena, self.now, queue, result);
    }

    fn end_stream(&mut self, queue: u16, result: Result<(), IoError>) {
        if self.receiving.remove(&queue) {
            self.honest = false;
            self.peer.hang_up(queue);
            self.host.ended(&mut self.arena, self.now, queue, result);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        if self.host.deadline().is_some_and(|due| due <= self.now) {
            self.host.elapsed(&mut self.arena, self.now);
        }
    }

    fn stop(&mut self, choice: u8) {
        if choice & 1 == 0 {
            self.host.close(&mut self.arena, self.now);
        } else {
            self.host.abort(&mut self.arena, self.now);
        }
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        let (kind, lba, blocks) = (input.byte(), u64::from(input.byte()), input.byte());
        let blocks = 1 + u32::from(blocks) % 32;
        let len = blocks << GEOMETRY.block.shift();
        let offset = lba << GEOMETRY.block.shift();
        let read = Operation::Read { lba, blocks };
        let write = Operation::Write { lba, blocks, durable: kind & 16 != 0 };
        let zeroes = Operation::WriteZeroes { lba, blocks, deallocate: kind & 16 != 0 };
        let (operation, len) = match kind % 6 {
            0 | 1 => (read, len),
            2 | 3 => (write, len),
            4 => (zeroes, 0),
            _ => (Operation::Flush, 0),
        };
        let class = Class::holding(len).expect("a transfer has a class");
        let lease = if len == 0 { None } else { self.arena.alloc(class) };
        if lease.is_none() && len != 0 {
            return;
        }
        if let Some(lease) = &lease {
            let is_write = matches!(operation, Operation::Write { .. });
            let fill = |at| if is_write { pattern(at) } else { 0 };
            let bytes = self.arena.bytes_mut(lease)[..len as usize].iter_mut();
            (offset..).zip(bytes).for_each(|(at, byte)| *byte = fill(at));
        }
        let cookie = self.cookie;
        self.cookie += 1;
        let queue = u16::from(kind);
        let submission = Submission { operation, nsid: NSID, lease, len, cookie, queue };
        match self.host.submit(&mut self.arena, self.now, submission) {
            Ok(()) => {
                let reads = matches!(operation, Operation::Read { .. }).then_some(offset);
                self.commands.insert(cookie, reads);
            }
            Err(Submission { lease, .. }) => {
                if let Some(lease) = lease {
                    self.arena.free(lease);
                }
            }
        }
    }

    /// Does what the host wants done, and takes note of what it tells.
    fn settle(&mut self) {
        self.host.flush();
        while let Some(action) = self.host.poll_action() {
            self.act(action);
        }
        while let Some(event) = self.host.poll_event() {
            self.note(event);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { queue } => {
                assert!(self.connecting.insert(queue), "connects twice");
                assert!(!self.receiving.contains(&queue), "connects what is open");
            }
            Action::Receive { queue } => assert!(self.receiving.insert(queue), "receives twice"),
            Action::Send { queue } => self.send(queue),
            Action::Close { queue } => {
                self.peer.hang_up(queue);
                if !self.connecting.remove(&queue) {
                    self.closing.insert(queue);
                }
            }
        }
    }

    fn send(&mut self, queue: u16) {
        let spans = self.host.batch(queue).to_vec();
        assert!(!spans.is_empty() && spans.len() <= 64, "a batch of {} pieces", spans.len());
        let content = self.arena.gather(&spans);
        if let Err(error) = self.peer.take(queue, &content) {
            assert!(!self.honest, "an honest peer finds {error:?} in what our host sends");
            self.peer.hang_up(queue);
        }
        let before = self.sending.insert(queue, (spans, content));
        assert!(before.is_none(), "sends two batches at once");
    }

    fn note(&mut self, event: Event) {
        assert!(!self.closed, "something after the end: {event:?}");
        match event {
            Event::Live(live) => assert!(live.io_queues >= 1),
            Event::Discovered(_) => assert!(!self.honest, "no discovery was asked for"),
            Event::Completed(completed) => self.completed(completed),
            Event::Lost { why, .. } => {
                let waited = matches!(why, Why::KeepAlive | Why::CommandTimeout | Why::Timeout(_));
                let innocent = waited || matches!(why, Why::NoMemory | Why::Closed);
                assert!(!self.honest || innocent, "lost an honest peer: {why:?}");
                self.honest = false;
            }
            Event::Closed => self.closed = true,
        }
    }

    fn completed(&mut self, completed: Completed) {
        let Completed { cookie, status, lease, .. } = completed;
        let reads = self.commands.remove(&cookie).expect("a command ends once");
        if let (true, Status::SUCCESS, Some(offset), Some(lease)) =
            (self.honest, status, reads, &lease)
        {
            let first = self.arena.bytes(lease)[..512].iter();
            let right = (offset..).zip(first).all(|(at, byte)| *byte == pattern(at));
            assert!(right, "a read at {offset} brought what belongs elsewhere");
        }
        self.served += usize::from(status == Status::SUCCESS);
        if let Some(lease) = lease {
            self.arena.free(lease);
        }
    }

    /// The user lets go: everything comes back, whatever happened before.
    fn finish(&mut self) {
        self.host.abort(&mut self.arena, self.now);
        self.settle();
        for queue in 0..3 {
            self.complete_send(queue, Err(IoError::Cancelled));
            self.end_stream(queue, Err(IoError::Cancelled));
            self.settle();
        }
        assert!(self.host.is_ended() && self.closed, "aborted, but not ended");
        assert!(self.commands.is_empty(), "commands never ended: {:?}", self.commands);
        assert_eq!(self.arena.leased(), 1, "leases lost");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_seeds_are_served() {
        let seeds = crate::seeds::all();
        for seed in seeds.iter().filter(|seed| seed.target == "pdu_stream_host") {
            let expected = if seed.name.starts_with("honest") { 4 } else { 1 };
            let served = super::walk(&seed.bytes);
            assert!(served >= expected, "{}: {served} of {expected}", seed.name);
        }
    }
}
