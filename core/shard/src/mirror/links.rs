//! What volumes send to their replicas: to one of this shard by its guard, to one of another
//! engine by our host side, as [`codec`] says.
//!
//! ```text
//! Associate --> Here (the replica is in a pool of this shard): stands at once
//!          \--> There: connecting -- Live --> standing -- Lost, Leave --> gone
//! ```
//!
//! Invariants:
//! 1. A command that a volume sent ends with one `Done`, also when its link is gone: at once if it
//!    was not sent yet, else when nobody touches its buffer any more.
//! 2. A buffer that a volume names is its own: what travels is an alias, dropped when it is back.
//! 3. A link is never made again by itself: an association that broke is gone.
//! 4. An answer that is none of the mirror's ends the association: nobody knows what was done.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Class, Key, Lease, Memory, Span, Token};
use braid_nexus::Event;
use braid_nexus::record::Uuid;
use braid_nexus::wire::{Answer, Command, Refusal};
use braid_nvme::connect::Nqn;
use braid_nvme::host::{Completed, Config, Operation, Reconnect, Submission, Why};
use braid_nvme::pdu::Digests;

use super::codec::{self, ANSWER_MAX, ANSWER_PIECE, CLEAN_RANGES_MAX, NSID, Payload};
use super::member_nqn;
use super::members::Sender;
use crate::host::HostConfig;
use crate::{Shard, token};

/// Entries of the queue to a replica: as many commands as a volume usually has in work.
const QUEUE_ENTRIES: u16 = 512;
/// A command that takes longer ends the association. A nexus gives up long before.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for each step of connecting: a take-over waits no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A replica's engine that says nothing for so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// An association of a volume with a replica.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) association: u32,
    way: Way,
    /// Commands that wait for a slot or a buffer.
    waiting: VecDeque<Waiting>,
    /// A command whose long answer is held at the replica is out: it holds one at a time.
    holds: bool,
    /// Commands that wait for that to be over.
    holding: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    command: Command,
    span: Option<Span>,
}

/// How a replica is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By this line to a guard of this shard.
    Here(u32),
    /// By this association of our host side, which stands or does not yet.
    There { host: Key, live: bool },
}

impl Link {
    /// Whether commands wait for a slot or a buffer.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// A command on its way to another engine.
#[derive(Debug)]
pub(super) struct Call {
    volume: usize,
    association: u32,
    host: Key,
    token: Token,
    /// The buffer is ours, not an alias of the volume's.
    owns: bool,
    /// What is still to be sent of a command that is too long for one.
    rest: VecDeque<Command>,
    /// The command whose long answer is fetched.
    held: Option<Command>,
    /// Bytes of that answer, and those that are here.
    total: usize,
    fetched: Vec<u8>,
}

/// Which volume an association of our host side is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) host: Key,
    pub(super) volume: usize,
    association: u32,
}

impl Shard {
    /// A volume opens an association.
    pub(super) fn associate<M: Memory>(
        &mut self,
        mem: &mut M,
        volume: usize,
        association: u32,
        replica: Uuid,
    ) {
        let way = match self.members.find(&replica) {
            Some(member) => {
                self.tell_volume(volume, Event::Associated { association });
                Some(Way::Here(self.open_line(mem, member)))
            }
            None => self.connect_to(volume, association, replica),
        };
        match way {
            Some(way) => {
                let link = Link {
                    association,
                    way,
                    waiting: VecDeque::new(),
                    holds: false,
                    holding: VecDeque::new(),
                };
                self.volumes.at(volume).links.push(link);
            }
            None => self.tell_volume(volume, Event::Broken { association, refused: false }),
        }
    }

    fn connect_to(&mut self, volume: usize, association: u32, replica: Uuid) -> Option<Way> {
        let served = self.volumes.at(volume);
        let address = served.place_of(&replica)?;
        let controller = Config {
            queue_entries: QUEUE_ENTRIES,
            kato: KEEP_ALIVE,
            digests: Digests { header: true, data: true },
            io_timeout: COMMAND_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            reconnect: Reconnect {
                min: Duration::ZERO,
                max: Duration::ZERO,
                give_up: Some(Duration::ZERO),
            },
            namespaces_max: 1,
            ..Config::new(
                Nqn::parse(&member_nqn(&replica))?,
                served.hostnqn,
                served.volume.view().owner,
            )
        };
        // A shard that stops makes no new associations.
        let host = self.mirror_open(HostConfig { address, controller })?;
        self.volumes.owners.push(Owner { host, volume, association });
        Some(Way::There { host, live: false })
    }

    /// A volume ends an association.
    pub(super) fn leave<M: Memory>(&mut self, mem: &mut M, volume: usize, association: u32) {
        let Some(link) = self.volumes.at(volume).take_link(association) else { return };
        match link.way {
            Way::Here(line) => self.leave_line(mem, line),
            Way::There { host, .. } => {
                let now = self.now;
                self.host_abort(mem, now, host);
            }
        }
        self.let_go(volume, link);
    }

    /// What a link that is gone did not send yet ends.
    fn let_go(&mut self, volume: usize, link: Link) {
        for Waiting { token, .. } in link.waiting.into_iter().chain(link.holding) {
            self.tell_volume(volume, Event::Done { token, result: Err(Refusal::Gone) });
        }
    }

    /// A guard ended a line of a volume.
    pub(super) fn link_broken(&mut self, line: u32) {
        for volume in 0..self.volumes.len() {
            let Some(served) = self.volumes.get(volume) else { continue };
            let found = served.links.iter().find(|link| link.way == Way::Here(line));
            let Some(association) = found.map(|link| link.association) else { continue };
            self.lost(volume, association, false);
        }
    }

    /// A link is no more, not by the volume's will.
    fn lost(&mut self, volume: usize, association: u32, refused: bool) {
        let link = self.volumes.get(volume).and_then(|served| served.take_link(association));
        let Some(link) = link else { return };
        self.tell_volume(volume, Event::Broken { association, refused });
        self.let_go(volume, link);
    }

    /// A volume sends a command.
    pub(super) fn send<M: Memory>(
        &mut self,
        mem: &mut M,
        volume: usize,
        association: u32,
        token: Token,
        command: Command,
        span: Option<Span>,
    ) {
        let links = &mut self.volumes.at(volume).links;
        let found = links.iter_mut().find(|link| link.association == association);
        match found {
            None => self.tell_volume(volume, Event::Done { token, result: Err(Refusal::Gone) }),
            Some(Link { way: Way::Here(line), .. }) => {
                let line = *line;
                let from = Sender::Volume { volume, association, token, span };
                self.arrive_from_volume(mem, line, from, command);
            }
            Some(link) if link.holds && codec::is_held(&command) => {
                link.holding.push_back(Waiting { token, command, span });
            }
            Some(link) => {
                link.holds |= codec::is_held(&command);
                link.waiting.push_back(Waiting { token, command, span });
                self.send_waiting(mem, volume, association);
            }
        }
    }

    /// Sends what waits for a slot or a buffer, in order.
    fn send_waiting<M: Memory>(&mut self, mem: &mut M, volume: usize, association: u32) {
        while let Some(served) = self.volumes.get(volume)
            && let Some(link) = served.links.iter_mut().find(|l| l.association == association)
            && let Way::There { host, live: true } = link.way
            && let Some(waiting) = link.waiting.pop_front()
        {
            let call = Call {
                volume,
                association,
                host,
                token: waiting.token,
                owns: false,
                rest: VecDeque::new(),
                held: None,
                total: 0,
                fetched: Vec::new(),
            };
            if let Err(command) = self.begin_call(mem, call, waiting.command, waiting.span) {
                let again = Waiting { command, ..waiting };
                if let Some(link) = self.volumes.link(volume, association) {
                    link.waiting.push_front(again);
                }
                return;
            }
        }
    }

    /// Begins a call; the command comes back if it has to wait.
    fn begin_call<M: Memory>(
        &mut self,
        mem: &mut M,
        mut call: Call,
        command: Command,
        span: Option<Span>,
    ) -> Result<(), Command> {
        let Some(key) = self.volumes.calls.next_key() else { return Err(command) };
        let host = call.host;
        let command = match command {
            Command::Clean { flush, regions } if regions.len() > CLEAN_RANGES_MAX => {
                let mut parts = regions.chunks(CLEAN_RANGES_MAX).map(Box::from);
                let first = Command::Clean { flush, regions: parts.next().unwrap_or_default() };
                call.rest = parts.map(|regions| Command::Clean { flush, regions }).collect();
                first
            }
            command => command,
        };
        let (entry, payload) = codec::encode(&command);
        let Some(buffer) = payload_lease(mem, payload, span) else {
            return Err(whole(command, call.rest));
        };
        call.owns = buffer.owns;
        if !self.submit_call(mem, key, host, entry, buffer) {
            return Err(whole(command, call.rest));
        }
        call.held = codec::is_held(&command).then_some(command);
        let inserted = self.volumes.calls.insert(call);
        debug_assert_eq!(inserted.ok(), Some(key), "the key that was announced");
        Ok(())
    }

    /// Sends a command of a call. False: it did not go, and its buffer is given back.
    fn submit_call<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        host: Key,
        entry: braid_nvme::command::Command,
        buffer: Buffer,
    ) -> bool {
        let Buffer { lease, len, owns } = buffer;
        let cookie = Token::new(token::CALL, key).to_bits();
        let operation = Operation::Vendor(entry);
        let submission = Submission { operation, nsid: NSID, lease, len, cookie, queue: 0 };
        let now = self.now;
        match self.host_submit(mem, now, host, submission) {
            Ok(()) => true,
            Err(submission) => {
                free(mem, submission.lease, owns);
                false
            }
        }
    }

    /// Something happened to an association of our host side that a volume opened.
    pub(super) fn on_link_event<M: Memory>(
        &mut self,
        mem: &mut M,
        host: Key,
        event: braid_nvme::host::Event,
    ) {
        use braid_nvme::host::Event as Host;
        let owner = self.volumes.owners.iter().find(|owner| owner.host == host).copied();
        let Some(Owner { volume, association, .. }) = owner else { return };
        match event {
            Host::Live(_) => {
                if let Some(link) = self.volumes.link(volume, association)
                    && link.way == (Way::There { host, live: false })
                {
                    link.way = Way::There { host, live: true };
                    self.tell_volume(volume, Event::Associated { association });
                }
            }
            Host::Completed(completed) => {
                self.on_call_done(mem, completed);
                // Others go on when all answers are taken: a call's next step goes first.
                self.volumes.ask(volume);
            }
            Host::Lost { why, .. } => self.lost(volume, association, is_answer(why)),
            Host::Closed => {
                self.lost(volume, association, false);
                self.volumes.owners.retain(|owner| owner.host != host);
                // It may have waited for that to be gone.
                self.volumes.ask(volume);
            }
            Host::Discovered(_) => {}
        }
    }

    fn on_call_done<M: Memory>(&mut self, mem: &mut M, completed: Completed) {
        let Completed { cookie, status, result, lease } = completed;
        let key = Token::from_bits(cookie).key();
        let Some(call) = self.volumes.calls.get_mut(key) else {
            debug_assert!(false, "a call stays until it is completed");
            return;
        };
        if let (true, Some(lease)) = (status.is_success() && call.total > 0, &lease) {
            let len = (call.total - call.fetched.len()).min(ANSWER_PIECE as usize);
            call.fetched.extend_from_slice(&mem.bytes(lease)[..len]);
        }
        free(mem, lease, call.owns);
        call.owns = false;
        if !status.is_success() {
            let refusal = codec::refusal(status, result);
            let (volume, association) = (call.volume, call.association);
            self.end_call(key, Err(refusal.unwrap_or(Refusal::Gone)));
            if refusal.is_none() {
                self.give_up(mem, volume, association);
            }
            return;
        }
        if call.held.is_none() {
            return self.next_part(mem, key);
        }
        if call.total == 0 {
            let sane = (1..=ANSWER_MAX).contains(&result) && result.is_multiple_of(4);
            if result == 0 {
                return self.answer_fetched(mem, key);
            }
            if !sane {
                return self.give_up_call(mem, key);
            }
            call.total = usize::try_from(result).unwrap_or(usize::MAX);
        }
        if call.fetched.len() < call.total {
            self.fetch(mem, key);
        } else {
            self.answer_fetched(mem, key);
        }
    }

    /// Sends what is left of a command that was too long for one, or ends it.
    fn next_part<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(call) = self.volumes.calls.get_mut(key) else { return };
        let Some(command) = call.rest.pop_front() else {
            return self.end_call(key, Ok(Answer::Done));
        };
        let (entry, payload) = codec::encode(&command);
        self.go_on(mem, key, entry, payload);
    }

    /// Fetches the next piece of a long answer.
    fn fetch<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(call) = self.volumes.calls.get(key) else { return };
        let len = u32::try_from(call.total - call.fetched.len()).unwrap_or(u32::MAX);
        let entry = codec::read_answer(call.fetched.len() as u64);
        self.go_on(mem, key, entry, Payload::Buffer(len.min(ANSWER_PIECE)));
    }

    /// Sends another command of a call, with a buffer of ours.
    fn go_on<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        entry: braid_nvme::command::Command,
        payload: Payload,
    ) {
        let Some(call) = self.volumes.calls.get_mut(key) else { return };
        let host = call.host;
        let made = match payload {
            Payload::Buffer(len) => Class::holding(len)
                .and_then(|class| mem.alloc(class))
                .map(|lease| Buffer { lease: Some(lease), len, owns: true }),
            payload => payload_lease(mem, payload, None),
        };
        // Without a buffer, or a slot, the association ends, and the nexus begins anew: rare, for
        // a call's own slot has just come free, and a quarter of the arena is for replicas.
        let Some(buffer) = made else { return self.give_up_call(mem, key) };
        call.owns = buffer.owns;
        if !self.submit_call(mem, key, host, entry, buffer) {
            self.give_up_call(mem, key);
        }
    }

    /// A long answer is here.
    fn answer_fetched<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(call) = self.volumes.calls.get(key) else { return };
        let answer = call.held.as_ref().and_then(|held| codec::fetched(held, &call.fetched));
        match answer {
            Some(answer) => self.end_call(key, Ok(answer)),
            None => self.give_up_call(mem, key),
        }
    }

    /// A call that makes no sense ends with its association.
    fn give_up_call<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(call) = self.volumes.calls.get(key) else { return };
        let (volume, association) = (call.volume, call.association);
        self.end_call(key, Err(Refusal::Gone));
        self.give_up(mem, volume, association);
    }

    fn give_up<M: Memory>(&mut self, mem: &mut M, volume: usize, association: u32) {
        let link = self.volumes.link(volume, association).map(|link| link.way);
        if let Some(Way::There { host, .. }) = link {
            let now = self.now;
            self.host_abort(mem, now, host);
            self.lost(volume, association, false);
        }
    }

    fn end_call(&mut self, key: Key, result: Result<Answer, Refusal>) {
        let Some(call) = self.volumes.calls.remove(key) else { return };
        let Call { volume, association, token, held, .. } = call;
        if let (Some(link), Some(_)) = (self.volumes.link(volume, association), held) {
            let next = link.holding.pop_front();
            link.holds = next.is_some();
            link.waiting.extend(next);
        }
        self.tell_answer(volume, association, token, result);
    }

    /// A guard of this shard has answered a volume.
    pub(super) fn answer_volume(&mut self, from: Sender, result: Result<Answer, Refusal>) {
        let Sender::Volume { volume, association, token, .. } = from else { return };
        self.tell_answer(volume, association, token, result);
    }

    fn tell_answer(
        &mut self,
        volume: usize,
        association: u32,
        token: Token,
        result: Result<Answer, Refusal>,
    ) {
        // What a link that is gone was answered is not known to be so.
        let stands = self.volumes.link(volume, association).is_some();
        let result = if stands { result } else { Err(Refusal::Gone) };
        self.tell_volume(volume, Event::Done { token, result });
    }

    /// Whether a call of a volume is out.
    pub(super) fn has_calls(&self, volume: usize) -> bool {
        self.volumes.calls.iter().any(|(_, call)| call.volume == volume)
    }

    /// Goes on with links whose commands wait.
    pub(super) fn links_on<M: Memory>(&mut self, mem: &mut M, volume: usize) {
        let waits = |link: &&Link| link.waits();
        let Some(served) = self.volumes.get(volume) else { return };
        let waiting: Vec<u32> =
            served.links.iter().filter(waits).map(|link| link.association).collect();
        for association in waiting {
            self.send_waiting(mem, volume, association);
        }
    }
}

/// Whether somebody answered that there is no engine or replica.
const fn is_answer(why: Why) -> bool {
    match why {
        Why::Connect(error) => matches!(error, braid_block::IoError::Refused),
        Why::Refused { .. } => true,
        _ => false,
    }
}

/// What a command moves.
struct Buffer {
    lease: Option<Lease>,
    len: u32,
    /// It is ours, not an alias of the volume's.
    owns: bool,
}

/// The buffer of a command; none if there is none now.
fn payload_lease<M: Memory>(mem: &mut M, payload: Payload, span: Option<Span>) -> Option<Buffer> {
    match payload {
        Payload::None => Some(Buffer { lease: None, len: 0, owns: false }),
        Payload::Buffer(len) => {
            debug_assert!(span.is_some_and(|span| span.offset == 0 && span.len >= len));
            Some(Buffer { lease: span.map(|span| Lease::new(span.lease)), len, owns: false })
        }
        Payload::Bytes(bytes) if bytes.is_empty() => {
            Some(Buffer { lease: None, len: 0, owns: false })
        }
        Payload::Bytes(bytes) => {
            let len = u32::try_from(bytes.len()).ok()?;
            let lease = mem.alloc(Class::holding(len)?)?;
            mem.bytes_mut(&lease)[..bytes.len()].copy_from_slice(&bytes);
            Some(Buffer { lease: Some(lease), len, owns: true })
        }
    }
}

/// A buffer comes back: an alias is dropped.
fn free<M: Memory>(mem: &mut M, lease: Option<Lease>, owns: bool) {
    if let (Some(lease), true) = (lease, owns) {
        mem.free(lease);
    }
}

/// A command that was cut, in one piece again.
fn whole(command: Command, rest: VecDeque<Command>) -> Command {
    let Command::Clean { flush, regions } = command else { return command };
    let parts = rest.into_iter().filter_map(|part| match part {
        Command::Clean { regions, .. } => Some(regions),
        _ => None,
    });
    let regions = core::iter::once(regions).chain(parts).flatten().collect();
    Command::Clean { flush, regions }
}
