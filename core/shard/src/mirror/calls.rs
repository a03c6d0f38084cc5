//! Commands of volumes on their way to other engines: cut where they are too long for one, with
//! long answers fetched piece by piece.
//!
//! Invariants:
//! 1. A call ends with one `Done`, when nobody touches its buffer any more.
//! 2. An answer that is none of the mirror's ends the association: nobody knows what was done.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Class, Key, Lease, Memory, Span, Token};
use braid_nexus::wire::{Answer, Command, Refusal};
use braid_nvme::host::{Completed, Operation, Submission};

use super::codec::{self, ANSWER_PIECE, CLEAN_RANGES_MAX, NSID, Payload, answer_max};
use super::links::{Waiting, Way};
use crate::{Shard, token};

/// A command on its way to another engine.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) volume: usize,
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

impl Shard {
    /// Sends what waits for a slot or a buffer, in order.
    pub(super) fn send_waiting<M: Memory>(&mut self, mem: &mut M, volume: usize, association: u32) {
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
        let Some(mut buffer) = payload_lease(mem, payload, span) else {
            return Err(whole(command, call.rest));
        };
        if let (Command::Write { len, .. }, Some(span)) = (&command, span) {
            let sums = self.volumes.sums.of_write(span.lease, *len);
            buffer.digest = sums.and_then(|sums| sums.of_all(*len));
        }
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
        let Buffer { lease, len, owns, digest } = buffer;
        let cookie = Token::new(token::CALL, key).to_bits();
        let operation = Operation::Vendor(entry);
        let submission = Submission { operation, nsid: NSID, lease, len, cookie, queue: 0 };
        let now = self.now;
        match self.host_submit_summed(mem, now, host, (submission, digest)) {
            Ok(()) => true,
            Err(submission) => {
                free(mem, submission.lease, owns);
                false
            }
        }
    }

    pub(super) fn on_call_done<M: Memory>(&mut self, mem: &mut M, completed: Completed) {
        let Completed { cookie, status, result, lease, digest } = completed;
        let key = Token::from_bits(cookie).key();
        let Some(call) = self.volumes.calls.get_mut(key) else {
            debug_assert!(false, "a call stays until it is completed");
            return;
        };
        if let (true, Some(lease)) = (status.is_success() && call.total > 0, &lease) {
            let len = (call.total - call.fetched.len()).min(ANSWER_PIECE as usize);
            call.fetched.extend_from_slice(&mem.bytes(lease)[..len]);
        }
        let owns = core::mem::take(&mut call.owns);
        if let Some(lease) = lease.as_ref().filter(|_| !owns) {
            self.volumes.sums.received(lease.id(), digest);
        }
        free(mem, lease, owns);
        let Some(call) = self.volumes.calls.get_mut(key) else { return };
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
            if result == 0 {
                return self.answer_fetched(mem, key);
            }
            let volume = call.volume;
            let most = self.volumes.get(volume).map_or(0, |served| answer_max(served.bytes()));
            if result > most || !result.is_multiple_of(4) {
                return self.give_up_call(mem, key);
            }
            let Some(call) = self.volumes.calls.get_mut(key) else { return };
            call.total = usize::try_from(result).unwrap_or(usize::MAX);
        }
        let whole = self.volumes.calls.get(key).is_some_and(|c| c.fetched.len() >= c.total);
        if whole {
            self.answer_fetched(mem, key);
        } else {
            self.fetch(mem, key);
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
                .map(|lease| Buffer { lease: Some(lease), len, owns: true, digest: None }),
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

    /// Whether a call of a volume is out.
    pub(super) fn has_calls(&self, volume: usize) -> bool {
        self.volumes.calls.iter().any(|(_, call)| call.volume == volume)
    }
}

/// What a command moves.
struct Buffer {
    lease: Option<Lease>,
    len: u32,
    /// It is ours, not an alias of the volume's.
    owns: bool,
    /// CRC32C of what is sent, if it is known.
    digest: Option<u32>,
}

/// The buffer of a command; none if there is none now.
fn payload_lease<M: Memory>(mem: &mut M, payload: Payload, span: Option<Span>) -> Option<Buffer> {
    match payload {
        Payload::None => Some(Buffer { lease: None, len: 0, owns: false, digest: None }),
        Payload::Buffer(len) => {
            debug_assert!(span.is_some_and(|span| span.offset == 0 && span.len >= len));
            Some(Buffer {
                lease: span.map(|span| Lease::new(span.lease)),
                len,
                owns: false,
                digest: None,
            })
        }
        Payload::Bytes(bytes) if bytes.is_empty() => {
            Some(Buffer { lease: None, len: 0, owns: false, digest: None })
        }
        Payload::Bytes(bytes) => {
            let len = u32::try_from(bytes.len()).ok()?;
            let lease = mem.alloc(Class::holding(len)?)?;
            mem.bytes_mut(&lease)[..bytes.len()].copy_from_slice(&bytes);
            Some(Buffer { lease: Some(lease), len, owns: true, digest: None })
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
