//! A host on the bench: its effects are carried out when the test says so.

use std::time::Duration;

use braid_block::{Class, Instant, IoError, Lease, Memory, Span};
use braid_nvme::connect::Nqn;
use braid_nvme::host::{
    Action, Completed, Config, Controller, Event, Live, Operation, Reconnect, Submission, Why,
};
use braid_nvme::pdu::Digests;

use crate::memory::Arena;
use crate::model::Model;
use crate::wire::{self, Pdu};

/// No digests.
pub(crate) const PLAIN: Digests = Digests { header: false, data: false };

pub(crate) const SUBNQN: &str = "nqn.2026-01.io.braid:test";

/// A connection as the kernel would hold it.
#[derive(Default)]
pub(crate) struct Link {
    /// What the host sent and nobody took yet.
    pub(crate) wire: Vec<u8>,
    flying: Option<Vec<Span>>,
    receiving: bool,
    pub(crate) closed: bool,
    pub(crate) initialized: bool,
}

/// The bench.
pub(crate) struct Bench {
    pub(crate) mem: Arena,
    pub(crate) host: Controller,
    pub(crate) now: Instant,
    pub(crate) links: Vec<Link>,
    /// Connections that are to be made.
    pub(crate) connects: Vec<u16>,
    pub(crate) events: Vec<Event>,
    /// Who answers, when it is to be answered honestly.
    pub(crate) model: Model,
    pub(crate) digests: Digests,
    /// Whether batches land by themselves, and closed connections come to rest.
    pub(crate) lands: bool,
    pub(crate) rests: bool,
    /// Bytes handed over at once, at most.
    pub(crate) piece: usize,
    input: Lease,
    cookie: u64,
}

pub(crate) fn config(subnqn: &str) -> Config {
    let name = |text: &str| Nqn::parse(text).unwrap();
    let mut config = Config::new(name(subnqn), name("nqn.2014-08.org.nvmexpress:uuid:me"), [7; 16]);
    config.queue_entries = 8;
    config.reconnect = Reconnect {
        min: Duration::from_millis(100),
        max: Duration::from_secs(2),
        give_up: Some(Duration::from_secs(30)),
    };
    config
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let mut mem = Arena::new();
        let now = Instant::from_nanos(1_000_000_000);
        let digests = config.digests;
        let links = (0..=config.io_queues).map(|_| Link::default()).collect();
        let input = mem.alloc(Class::Medium).unwrap();
        let mut bench = Self {
            mem,
            host: Controller::new(config, 1, now),
            now,
            links,
            connects: Vec::new(),
            events: Vec::new(),
            model: Model::new(),
            digests,
            lands: true,
            rests: true,
            piece: usize::MAX,
            input,
            cookie: 0,
        };
        bench.host.elapsed(&mut bench.mem, now);
        bench.act();
        bench
    }

    /// A bench whose host is live, with an honest target.
    pub(crate) fn live(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.serve();
        bench.take_live();
        bench
    }

    /// The association came alive: what it found.
    pub(crate) fn take_live(&mut self) -> Box<Live> {
        match self.events.remove(0) {
            Event::Live(live) => live,
            other => panic!("not live: {other:?}"),
        }
    }

    /// Carries out what the host wants done.
    pub(crate) fn act(&mut self) {
        loop {
            self.host.flush();
            self.events.extend(std::iter::from_fn(|| self.host.poll_event()));
            let Some(action) = self.host.poll_action() else { return };
            match action {
                Action::Connect { queue } => self.connects.push(queue),
                Action::Receive { queue } => self.link(queue).receiving = true,
                Action::Send { queue } => self.send(queue),
                Action::Close { queue } => {
                    self.connects.retain(|other| *other != queue);
                    self.link(queue).closed = true;
                    if self.rests {
                        self.rest(queue);
                    }
                }
            }
        }
    }

    pub(crate) fn link(&mut self, queue: u16) -> &mut Link {
        &mut self.links[usize::from(queue)]
    }

    fn send(&mut self, queue: u16) {
        let spans = self.host.batch(queue).to_vec();
        assert!(!spans.is_empty() && spans.len() <= 64, "{} pieces", spans.len());
        let bytes = self.mem.gather(&spans);
        self.mem.hold(&spans);
        let link = self.link(queue);
        assert!(link.flying.is_none(), "one batch at a time");
        assert!(!link.closed, "a send on a closed connection");
        link.wire.extend(bytes);
        link.flying = Some(spans);
        if self.lands {
            self.land(queue, Ok(()));
        }
    }

    /// The batch in flight lands.
    pub(crate) fn land(&mut self, queue: u16, result: Result<(), IoError>) {
        let Some(spans) = self.link(queue).flying.take() else { return };
        self.mem.release(&spans);
        self.host.sent(&mut self.mem, self.now, queue, result);
    }

    /// A closed connection comes to rest: its send and its receive come back.
    pub(crate) fn rest(&mut self, queue: u16) {
        self.land(queue, Err(IoError::Cancelled));
        if std::mem::take(&mut self.link(queue).receiving) {
            self.host.ended(&mut self.mem, self.now, queue, Err(IoError::Cancelled));
        }
    }

    /// The connections that wait for it are made.
    pub(crate) fn connect(&mut self) {
        for queue in std::mem::take(&mut self.connects) {
            *self.link(queue) = Link::default();
            self.host.connected(&mut self.mem, self.now, queue, Ok(()));
        }
        self.act();
    }

    /// They are refused.
    pub(crate) fn refuse(&mut self) {
        for queue in std::mem::take(&mut self.connects) {
            self.host.connected(&mut self.mem, self.now, queue, Err(IoError::Refused));
        }
        self.act();
    }

    /// The peer says something.
    pub(crate) fn say(&mut self, queue: u16, bytes: &[u8]) {
        let most = self.mem.capacity(&self.input) as usize;
        for piece in bytes.chunks(self.piece.min(most)) {
            if !self.link(queue).receiving || self.link(queue).closed {
                return;
            }
            self.mem.bytes_mut(&self.input)[..piece.len()].copy_from_slice(piece);
            let len = piece.len() as u32;
            self.host.received(&mut self.mem, self.now, queue, &self.input, len);
        }
        self.act();
    }

    /// The peer closes a connection.
    pub(crate) fn hang_up(&mut self, queue: u16) {
        self.link(queue).receiving = false;
        self.host.ended(&mut self.mem, self.now, queue, Ok(()));
        self.act();
    }

    /// The next PDU that the host sent.
    pub(crate) fn heard(&mut self, queue: u16) -> Option<Pdu> {
        let link = &mut self.links[usize::from(queue)];
        let digests = if link.initialized { self.digests } else { PLAIN };
        wire::take(&mut link.wire, digests)
    }

    /// The honest target answers until nobody has anything to say.
    pub(crate) fn serve(&mut self) {
        loop {
            self.connect();
            let mut quiet = true;
            for queue in (0..).take(self.links.len()) {
                while let Some(pdu) = self.heard(queue) {
                    quiet = false;
                    let digests = self.digests;
                    self.link(queue).initialized = true;
                    let answer = self.model.answer(queue, &pdu, digests);
                    self.say(queue, &answer);
                }
            }
            if quiet && self.connects.is_empty() {
                return;
            }
        }
    }

    /// Time passes, step by step from deadline to deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.host.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.host.elapsed(&mut self.mem, self.now);
            self.act();
        }
        self.now = until;
    }

    /// Time passes while the honest target answers.
    pub(crate) fn pass_served(&mut self, time: Duration) {
        let until = self.now + time;
        self.serve();
        while let Some(due) = self.host.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.host.elapsed(&mut self.mem, self.now);
            self.act();
            self.serve();
        }
        self.now = until;
    }

    /// Submits a command; returns its cookie.
    pub(crate) fn submit(&mut self, operation: Operation, lease: Option<Lease>, len: u32) -> u64 {
        self.try_submit(operation, lease, len).expect("a slot")
    }

    pub(crate) fn try_submit(
        &mut self,
        operation: Operation,
        lease: Option<Lease>,
        len: u32,
    ) -> Result<u64, Submission> {
        self.cookie += 1;
        let cookie = self.cookie;
        let submission = Submission { operation, nsid: 1, lease, len, cookie, queue: 0 };
        self.host.submit(&mut self.mem, self.now, submission)?;
        self.act();
        Ok(cookie)
    }

    /// Reads so many bytes.
    pub(crate) fn read(&mut self, len: u32) -> u64 {
        let lease = self.mem.alloc(Class::holding(len).unwrap()).unwrap();
        self.submit(Operation::Read { lba: 0, blocks: len.div_ceil(4096) }, Some(lease), len)
    }

    /// Writes these bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> u64 {
        let lease = self.mem.filled(bytes);
        let blocks = (bytes.len() as u32).div_ceil(4096);
        let operation = Operation::Write { lba: 0, blocks, durable: false };
        self.submit(operation, Some(lease), bytes.len() as u32)
    }

    /// The one completion there is.
    pub(crate) fn completed(&mut self) -> Completed {
        match (self.events.pop(), self.events.len()) {
            (Some(Event::Completed(completed)), 0) => completed,
            other => panic!("not one completion: {other:?}, {:?}", self.events),
        }
    }

    /// Why the association was lost, and whether it is tried again.
    pub(crate) fn lost(&mut self) -> (Why, bool) {
        match self.events.remove(0) {
            Event::Lost { why, retry } => (why, retry.is_some()),
            other => panic!("not lost: {other:?}"),
        }
    }

    /// Gives a completed command's buffer back.
    pub(crate) fn free(&mut self, completed: Completed) {
        if let Some(lease) = completed.lease {
            self.mem.free(lease);
        }
    }

    /// Ends the test: every buffer is back but the bench's own.
    pub(crate) fn finish(mut self) {
        self.rests = true;
        self.lands = true;
        self.host.abort(&mut self.mem, self.now);
        self.act();
        for queue in (0..).take(self.links.len()) {
            if self.link(queue).closed {
                self.rest(queue);
            }
        }
        self.act();
        for event in std::mem::take(&mut self.events) {
            if let Event::Completed(completed) = event {
                self.free(completed);
            }
        }
        assert!(self.host.is_ended());
        assert_eq!(self.mem.out(), 1, "a buffer was lost");
    }
}

impl Bench {
    /// Nothing happened that was not asked about.
    pub(crate) fn take_nothing(&mut self) {
        assert!(self.events.is_empty(), "{:?}", self.events);
    }

    /// The host says what the peer did wrong, waits for it to hang up, and closes.
    pub(crate) fn expect_termination(&mut self, queue: u16, error: braid_nvme::pdu::FatalError) {
        let pdu = self.heard(queue).expect("a termination request");
        assert_eq!((pdu.kind, pdu.header.len()), (2, 24), "H2CTermReq");
        assert_eq!((pdu.u16(8), pdu.u32(10)), (error.status(), error.information()), "{error:?}");
        assert!(!pdu.data.is_empty() && pdu.data.len() <= 128);
        assert_eq!(self.lost().0, Why::Protocol(error));
        assert!(!self.link(queue).closed, "the peer may read it first");
        self.hang_up(queue);
        assert!(self.link(queue).closed);
    }
}

impl Bench {
    /// The completion of this command among those there are.
    pub(crate) fn completed_of(&mut self, cookie: u64) -> Completed {
        let found = |event: &Event| matches!(event, Event::Completed(c) if c.cookie == cookie);
        let at = self.events.iter().position(found).expect("a completion");
        match self.events.remove(at) {
            Event::Completed(completed) => completed,
            other => panic!("{other:?}"),
        }
    }
}
