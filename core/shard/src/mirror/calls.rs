//! Commands of volumes on their way to other engines: cut where they are too long for one, with
//! long answers fetched piece by piece.
//!
//! Invariants:
//! 1. A call ends with one `Done`, when nobody touches its buffer any more.
//! 2. An answer that is none of the mirror's ends the association: nobody knows what was done.
//! 3. A call that needs a buffer of its own has it before it begins, and keeps it until it ends:
//!    the link's own, if there is no other. What waits behind it on the link holds buffers.

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
    /// A buffer of its own, unless it is under way.
    buffer: Option<Lease>,
    /// The buffer that is under way is its own, not an alias of the volume's.
    owns: bool,
    /// What is still to be sent of a command that is too long for one.
    rest: VecDeque<Command>,
    /// The command whose long answer is fetched.
    held: Option<Command>,
    /// Bytes of that answer, and those that are here.
    total: usize,
    fetched: Vec<u8>,
    /// Bytes of it that were asked for last.
    asked: u32,
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
                buffer: None,
                owns: false,
                rest: VecDeque::new(),
                held: None,
                total: 0,
                fetched: Vec::new(),
                asked: 0,
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
        let needed = match &payload {
            Payload::Bytes(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            Payload::None | Payload::Buffer(_) => 0,
        };
        let held = codec::is_held(&command);
        if needed > 0 || held {
            let wanted = if held { ANSWER_PIECE } else { needed };
            call.buffer = self.call_buffer(mem, (call.volume, call.association), needed, wanted);
            if call.buffer.is_none() {
                return Err(whole(command, call.rest));
            }
        }
        let mut buffer = payload_lease(mem, payload, span, &mut call.buffer);
        if let (Command::Write { len, .. }, Some(span)) = (&command, span) {
            let sums = self.volumes.sums.of_write(span.lease, *len);
            buffer.digest = sums.and_then(|sums| sums.of_all(*len));
        }
        call.owns = buffer.owns;
        if let Err(lease) = self.submit_call(mem, key, host, entry, buffer) {
            let own = call.buffer.take().or(lease.filter(|_| call.owns));
            self.end_buffer(mem, (call.volume, call.association), own);
            return Err(whole(command, call.rest));
        }
        call.held = held.then_some(command);
        let inserted = self.volumes.calls.insert(call);
        debug_assert_eq!(inserted.ok(), Some(key), "the key that was announced");
        Ok(())
    }

    /// A buffer of `wanted` bytes for a call, or a smaller one of at least `needed`: the link's own
    /// if no other is left.
    fn call_buffer<M: Memory>(
        &mut self,
        mem: &mut M,
        (volume, association): (usize, u32),
        needed: u32,
        wanted: u32,
    ) -> Option<Lease> {
        let link = self.volumes.link(volume, association)?;
        link.own.keep(mem);
        let classes = [Class::holding(wanted)?, Class::holding(needed)?];
        let any = classes.into_iter().find_map(|class| mem.alloc(class));
        let fits = needed <= Class::Medium.bytes();
        any.or_else(|| if fits { link.own.take() } else { None })
    }

    /// A call needs its buffer no more.
    fn end_buffer<M: Memory>(
        &mut self,
        mem: &mut M,
        (volume, association): (usize, u32),
        lease: Option<Lease>,
    ) {
        let Some(lease) = lease else { return };
        let lease = match self.volumes.link(volume, association) {
            Some(link) => link.own.is_back(lease),
            None => Err(lease),
        };
        if let Err(lease) = lease {
            mem.free(lease);
        }
        self.freed = true;
    }

    /// Sends a command of a call. If it did not go, its buffer comes back.
    fn submit_call<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        host: Key,
        entry: braid_nvme::command::Command,
        buffer: Buffer,
    ) -> Result<(), Option<Lease>> {
        let Buffer { lease, len, digest, .. } = buffer;
        let cookie = Token::new(token::CALL, key).to_bits();
        let operation = Operation::Vendor(entry);
        let submission = Submission { operation, nsid: NSID, lease, len, cookie, queue: 0 };
        let now = self.now;
        let submitted = self.host_submit_summed(mem, now, host, (submission, digest));
        submitted.map_err(|submission| submission.lease)
    }

    pub(super) fn on_call_done<M: Memory>(&mut self, mem: &mut M, completed: Completed) {
        let Completed { cookie, status, result, lease, digest } = completed;
        let key = Token::from_bits(cookie).key();
        let Some(call) = self.volumes.calls.get_mut(key) else {
            debug_assert!(false, "a call stays until it is completed");
            return;
        };
        if let (true, Some(lease)) = (status.is_success() && call.total > 0, &lease) {
            let len = call.asked as usize;
            call.fetched.extend_from_slice(&mem.bytes(lease)[..len]);
        }
        let owns = core::mem::take(&mut call.owns);
        if let Some(lease) = lease.as_ref().filter(|_| !owns) {
            self.volumes.sums.received(lease.id(), digest);
        }
        let Some(call) = self.volumes.calls.get_mut(key) else { return };
        // An alias is dropped.
        call.buffer = call.buffer.take().or(lease.filter(|_| owns));
        if !status.is_success() {
            let refusal = codec::refusal(status, result);
            let (volume, association) = (call.volume, call.association);
            self.end_call(mem, key, Err(refusal.unwrap_or(Refusal::Gone)));
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
            return self.end_call(mem, key, Ok(Answer::Done));
        };
        let (entry, payload) = codec::encode(&command);
        let buffer = payload_lease(mem, payload, None, &mut call.buffer);
        self.go_on(mem, key, entry, buffer);
    }

    /// Fetches the next piece of a long answer.
    fn fetch<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(call) = self.volumes.calls.get_mut(key) else { return };
        let Some(lease) = call.buffer.take() else { return self.give_up_call(mem, key) };
        let left = u32::try_from(call.total - call.fetched.len()).unwrap_or(u32::MAX);
        call.asked = left.min(mem.capacity(&lease)).min(ANSWER_PIECE);
        let entry = codec::read_answer(call.fetched.len() as u64);
        let buffer = Buffer { lease: Some(lease), len: call.asked, owns: true, digest: None };
        self.go_on(mem, key, entry, buffer);
    }

    /// Sends another command of a call. Without a slot the association ends, and the nexus begins
    /// anew: rare, for the call's own has just come free.
    fn go_on<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        entry: braid_nvme::command::Command,
        buffer: Buffer,
    ) {
        let Some(call) = self.volumes.calls.get_mut(key) else { return };
        let host = call.host;
        call.owns = buffer.owns;
        if let Err(lease) = self.submit_call(mem, key, host, entry, buffer) {
            if let Some(call) = self.volumes.calls.get_mut(key).filter(|call| call.owns) {
                call.buffer = call.buffer.take().or(lease);
            }
            self.give_up_call(mem, key);
        }
    }

    /// A long answer is here.
    fn answer_fetched<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(call) = self.volumes.calls.get(key) else { return };
        let answer = call.held.as_ref().and_then(|held| codec::fetched(held, &call.fetched));
        match answer {
            Some(answer) => self.end_call(mem, key, Ok(answer)),
            None => self.give_up_call(mem, key),
        }
    }

    /// A call that makes no sense ends with its association.
    fn give_up_call<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(call) = self.volumes.calls.get(key) else { return };
        let (volume, association) = (call.volume, call.association);
        self.end_call(mem, key, Err(Refusal::Gone));
        self.give_up(mem, volume, association);
    }

    fn end_call<M: Memory>(&mut self, mem: &mut M, key: Key, result: Result<Answer, Refusal>) {
        let Some(call) = self.volumes.calls.remove(key) else { return };
        let Call { volume, association, token, held, buffer, .. } = call;
        self.end_buffer(mem, (volume, association), buffer);
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

/// The buffer of a command: an alias of the volume's, or the call's own with what is sent in it.
fn payload_lease<M: Memory>(
    mem: &mut M,
    payload: Payload,
    span: Option<Span>,
    own: &mut Option<Lease>,
) -> Buffer {
    let nothing = Buffer { lease: None, len: 0, owns: false, digest: None };
    match payload {
        Payload::None => nothing,
        Payload::Buffer(len) => {
            debug_assert!(span.is_some_and(|span| span.offset == 0 && span.len >= len));
            Buffer { lease: span.map(|span| Lease::new(span.lease)), len, ..nothing }
        }
        Payload::Bytes(bytes) if bytes.is_empty() => nothing,
        Payload::Bytes(bytes) => {
            let lease = own.take();
            debug_assert!(lease.is_some(), "it was taken when the call began");
            if let Some(lease) = &lease {
                mem.bytes_mut(lease)[..bytes.len()].copy_from_slice(&bytes);
            }
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            Buffer { lease, len, owns: true, ..nothing }
        }
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
