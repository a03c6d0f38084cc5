//! Commands of nexuses, until the guard of their replica answers: by the wire, or from a volume of
//! this shard.
//!
//! Invariants:
//! 1. A tag that a guard was given is an arrival's key, until the guard answers it.
//! 2. What a line holds for ReadAnswer is replaced by the next long answer, and goes when its last
//!    byte was fetched, or with the line.

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::{Key, Memory, Span, Token};
use braid_nexus::guard::Event;
use braid_nexus::record::Uuid;
use braid_nexus::wire::{Answer, Command, Refusal, comparison_bytes};
use braid_nvme::Status;
use braid_nvme::command::Command as Entry;

use super::codec;
use super::errands::tag_of;
use super::lines::{LineKey, Peer};
use crate::Shard;

/// Who sent a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender {
    /// A command that came over the wire.
    Op(Key),
    /// A volume of this shard, by its place and the number of its association.
    Volume { volume: usize, association: u32, token: Token, span: Option<Span> },
}

/// A command that came, until its guard answers.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The place of its replica.
    pub(super) member: usize,
    line: LineKey,
    pub(super) from: Sender,
    /// Bytes of the buffer that it fills.
    pub(super) fills: u32,
    /// The snapshot to be taken when the flush before it is done.
    pub(super) snapshot: Option<Box<Uuid>>,
    /// CRC32C of what was read, if the pool has summed it.
    pub(super) digest: Option<u32>,
}

impl Shard {
    /// A volume of this shard sends a command by a line.
    pub(super) fn arrive_from_volume<M: Memory>(
        &mut self,
        mem: &mut M,
        line: LineKey,
        from: Sender,
        command: Command,
    ) {
        match self.members.lines.get(line).map(|line| line.member) {
            Some(member) => self.arrive(mem, member, line, from, command),
            None => self.answer_volume(from, Err(Refusal::Gone)),
        }
    }

    /// A command of a nexus came over the wire, with its data.
    pub(crate) fn on_member<M: Memory>(&mut self, mem: &mut M, key: Key, entry: &Entry) {
        let Some(op) = self.ops.get(key) else { return };
        let (at, controller) = (op.subsystem, op.controller);
        let Some((member, line)) = self.line_of(mem, at, op.namespace, controller) else {
            // The pool is not open yet, or the replica was destroyed.
            return self.finish(mem, key, Status::NAMESPACE_NOT_READY, 0);
        };
        if let Some(offset) = codec::asks_for_answer(entry) {
            return self.tell_held(mem, key, line, offset, entry.sgl.length.get());
        }
        let lease = self.ops.get(key).and_then(|op| op.lease.as_ref());
        let sent = entry.sgl.length.get() as usize;
        let data = lease.and_then(|lease| mem.bytes(lease).get(..sent)).unwrap_or_default();
        match codec::parse(entry, data) {
            Ok(command) if self.may_fence(at, controller, &command) => {
                self.arrive(mem, member, line, Sender::Op(key), command);
            }
            Ok(_) => self.finish(mem, key, Status::INVALID_FIELD.dnr(), 0),
            Err(status) => self.finish(mem, key, status, 0),
        }
    }

    /// The replica that a command is for, and the line that its controller has to it, which is
    /// opened by the first command.
    fn line_of<M: Memory>(
        &mut self,
        mem: &mut M,
        at: u16,
        namespace: u16,
        controller: Key,
    ) -> Option<(usize, LineKey)> {
        let subsystem = &self.subsystems[usize::from(at)];
        let uuid = subsystem.namespaces[usize::from(namespace)].backend.member()?;
        let known = subsystem.controllers.get(controller).and_then(|found| found.line);
        let open = known.and_then(|key| Some((self.members.lines.get(key)?.member, key)));
        if let Some((member, key)) = open.filter(|(at, _)| self.members.is(*at, uuid)) {
            return Some((member, key));
        }
        let (member, peer) = (self.members.find(uuid)?, Peer::Controller(at, controller));
        let open = self.members.lines.find(|line| line.peer == peer && line.member == member);
        let key = open.unwrap_or_else(|| self.members.open(self.now, member, peer));
        let controllers = &mut self.subsystems[usize::from(at)].controllers;
        if let Some(found) = controllers.get_mut(controller) {
            found.line = Some(key);
        }
        self.guard_acts(mem, member);
        Some((member, key))
    }

    /// Whether who sends a command may send it: an owner fences in its own name alone, which is
    /// its host's identity.
    fn may_fence(&self, at: u16, controller: Key, command: &Command) -> bool {
        let Command::Fence(record) = command else { return true };
        let found = self.subsystems[usize::from(at)].controllers.get(controller);
        found.is_some_and(|found| *found.controller.hostid() == record.owner)
    }

    /// Sends a part of a long answer.
    fn tell_held<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        line: LineKey,
        offset: u64,
        len: u32,
    ) {
        let held = self.members.lines.get(line).map_or(&[][..], |line| &line.held[..]);
        let part = usize::try_from(offset).ok().and_then(|at| held.get(at..));
        let part = part.and_then(|part| part.get(..len as usize));
        let lease = self.ops.get(key).and_then(|op| op.lease.as_ref());
        match (part, lease) {
            (Some(part), Some(lease)) => {
                mem.bytes_mut(lease)[..part.len()].copy_from_slice(part);
                let whole = held.len() as u64 <= offset + u64::from(len);
                if let Some(line) = self.members.lines.get_mut(line).filter(|_| whole) {
                    line.held = Vec::new();
                }
                self.finish_with_data(mem, key, len);
            }
            _ => self.finish(mem, key, Status::INVALID_FIELD.dnr(), 0),
        }
    }

    fn arrive<M: Memory>(
        &mut self,
        mem: &mut M,
        member: usize,
        line: LineKey,
        from: Sender,
        command: Command,
    ) {
        let association = line.association;
        let fills = match command {
            Command::Read { len, .. } | Command::ReadSnapshot { len, .. } => len,
            Command::Compare { len, .. } => comparison_bytes(len),
            _ => 0,
        };
        let arrival = Arrival { member, line, from, fills, snapshot: None, digest: None };
        match self.members.arrivals.insert(arrival) {
            Ok(key) => {
                let tag = tag_of(key);
                if let Some(found) = self.members.get(member) {
                    let event = Event::Arrived { association, tag, command };
                    found.guard.handle(self.now, event);
                }
                self.guard_acts(mem, member);
            }
            Err(arrival) => self.answer_arrival(mem, &arrival, Err(Refusal::Gone)),
        }
    }

    /// Answers who asked.
    pub(super) fn answer_arrival<M: Memory>(
        &mut self,
        mem: &mut M,
        arrival: &Arrival,
        result: Result<Answer, Refusal>,
    ) {
        let key = match arrival.from {
            Sender::Op(key) => key,
            Sender::Volume { .. } => return self.answer_volume(arrival.from, result),
        };
        if result.is_ok() && arrival.fills > 0 {
            return self.finish_with_sum(mem, key, arrival.fills, arrival.digest);
        }
        let (status, words, held) = codec::answer(&result);
        if let (Some(held), Some(line)) = (held, self.members.lines.get_mut(arrival.line)) {
            line.held = held;
        }
        self.finish(mem, key, status, words);
    }
}
