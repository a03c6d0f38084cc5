//! Hosts that prove who they are: on every queue that they connect, before anything else is done
//! for it, and again whenever they like.
//!
//! Invariants:
//! 1. On a queue whose host has not proved itself yet nothing is done but authentication.
//! 2. A connection that fails is ended; one that has not proved itself takes nobody else along,
//!    and a volume does not hear of its host.
//! 3. An exchange that is begun ends in time, or its connection does.

use alloc::boxed::Box;

use braid_block::{Instant, Key, Memory};
use braid_nvme::Status;
use braid_nvme::auth::{Answer, Exchange, Generator, HostKeys, Input, Names, Security, Verdict};
use braid_nvme::command::Command;
use braid_nvme::connect::Nqn;
use braid_nvme::target::{Kind, Notice};

use crate::Shard;
use crate::conn::Phase;
use crate::deadline::Reminder;
use crate::note::{Note, Why};
use crate::subsystem::Subsystem;

/// The keys of hosts, and what challenges are made of.
#[derive(Debug)]
pub(crate) struct Keyring {
    pub(crate) keys: HostKeys,
    generator: Generator,
}

impl Default for Keyring {
    /// Nobody has a key: nothing is asked of the generator.
    fn default() -> Self {
        Self { keys: HostKeys::default(), generator: Generator::new([0; 32]) }
    }
}

impl Keyring {
    /// Whether a host may connect where this list says who may, all without one. If any host has a
    /// key, one that has none may not, listed or not: taking its key away shuts it out.
    pub(crate) fn admits(&self, listed: &[alloc::string::String], host: &Nqn) -> bool {
        let known = self.keys.is_empty() || self.keys.get(host).is_some();
        known && crate::directory::admits(listed, host)
    }
}

/// How far a queue's host has proved itself.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// It has to, before anything else.
    pub(crate) due: bool,
    exchange: Option<Box<Exchange>>,
    /// When it is too late.
    until: Option<Instant>,
    /// Somebody will look whether it is.
    reminded: bool,
}

impl Standing {
    /// Of a queue whose host has to prove itself first, or has not.
    pub(crate) fn new(due: bool) -> Self {
        Self { due, ..Self::default() }
    }
}

impl Shard {
    /// Gives hosts their keys, in the place of those before: they count for exchanges that are not
    /// over. `seed` is of the operating system's, and another one each time. Every shard is to be
    /// told the same keys.
    pub fn host_keys_set(&mut self, keys: HostKeys, seed: [u8; 32]) {
        if keys != self.keyring.keys {
            self.generation += 1;
            if let Some(discovery) = self.subsystems.first_mut() {
                for (_, association) in discovery.controllers.iter_mut() {
                    association.controller.raise(Notice::DiscoveryLog);
                }
            }
            self.events = true;
        }
        self.keyring = Keyring { keys, generator: Generator::new(seed) };
    }

    /// Whether a host has to prove itself to this subsystem.
    pub(crate) fn asks_for_proof(&self, subsystem: &Subsystem, host: &Nqn) -> bool {
        subsystem.kind == Kind::Io && self.keyring.keys.get(host).is_some()
    }

    /// A queue's host has so long to prove itself.
    pub(crate) fn expect_proof(&mut self, now: Instant, key: Key) {
        let until = now + self.config.limits.authentication;
        let Some(queue) = self.conns.get_mut(key).and_then(|conn| conn.queue_mut()) else { return };
        queue.standing.until = Some(until);
        if !core::mem::replace(&mut queue.standing.reminded, true) {
            self.deadlines.remind(until, Reminder::Connection(key));
        }
    }

    /// The time of a queue's host may be over.
    pub(crate) fn check_proof<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(queue) = self.conns.get_mut(key).and_then(|conn| conn.queue_mut()) else { return };
        let standing = &mut queue.standing;
        if !standing.reminded {
            return;
        }
        match standing.until {
            None => standing.reminded = false,
            Some(until) if until > now => self.deadlines.remind(until, Reminder::Connection(key)),
            Some(_) => {
                self.counters.authentications_failed += 1;
                self.close(mem, key, Why::AuthenticationTimeout);
            }
        }
    }

    /// Whether this is a command of an exchange that may be on this queue.
    pub(crate) fn is_proof(&self, key: Key, command: &Command) -> Option<Security> {
        let security = Security::of(command)?;
        let queue = self.conns.get(key)?.queue()?;
        let subsystem = &self.subsystems[usize::from(queue.subsystem)];
        let host = subsystem.controllers.get(queue.controller)?.controller.hostnqn();
        let standing = &queue.standing;
        let may = standing.due || standing.exchange.is_some();
        (may || self.asks_for_proof(subsystem, host)).then_some(security)
    }

    /// Carries out a command of an exchange.
    pub(crate) fn prove<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        op_key: Key,
        (security, command): (Security, &Command),
    ) {
        let Some(op) = self.ops.get(op_key) else { return };
        let (at, controller, conn) = (op.subsystem, op.controller, op.conn);
        let (Some(lease), Ok(transfer)) = (&op.lease, security.transfer(command)) else {
            return self.finish(mem, op_key, Status::INTERNAL_ERROR, 0);
        };
        let subsystem = &self.subsystems[usize::from(at)];
        let host = subsystem.controllers.get(controller).map(|a| *a.controller.hostnqn());
        let queue = self.conns.get_mut(conn).filter(|c| c.phase == Phase::Open);
        let (Some(host), Some(queue)) = (host, queue.and_then(|conn| conn.queue_mut())) else {
            return self.finish(mem, op_key, Status::ABORTED_QUEUE_DELETED, 0);
        };
        let begins = queue.standing.exchange.is_none();
        let exchange = queue.standing.exchange.get_or_insert_default();
        let names = Names { host: &host, subsystem: &subsystem.nqn };
        let key = self.keyring.keys.get(&host);
        let len = transfer.len() as usize;
        let input = match security {
            Security::Send => Input::Message(&mem.bytes(lease)[..len]),
            Security::Receive => Input::Room(&mut mem.bytes_mut(lease)[..len]),
        };
        let answer = exchange.handle(input, key, names, &mut self.keyring.generator);
        let due = queue.standing.due;
        if begins && !due {
            self.expect_proof(now, conn);
        }
        let Answer { verdict, .. } = match answer {
            Ok(answer) => answer,
            Err(status) => return self.finish(mem, op_key, status, 0),
        };
        match security {
            Security::Send => self.finish(mem, op_key, Status::SUCCESS, 0),
            Security::Receive => self.finish_with_data(mem, op_key, transfer.len()),
        }
        self.on_verdict(mem, now, conn, verdict);
    }

    fn on_verdict<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, verdict: Verdict) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let socket = conn.socket;
        let Some(queue) = conn.queue_mut() else { return };
        let (subsystem, controller, qid) = (queue.subsystem, queue.controller, queue.qid);
        match verdict {
            Verdict::Pending => {}
            Verdict::Authenticated => {
                let first = core::mem::take(&mut queue.standing.due);
                (queue.standing.exchange, queue.standing.until) = (None, None);
                self.counters.authentications += 1;
                if first && qid == 0 {
                    let guest = self.guest_connected(usize::from(subsystem), controller);
                    let controllers = &mut self.subsystems[usize::from(subsystem)].controllers;
                    if let Some(association) = controllers.get_mut(controller) {
                        association.guest = guest;
                    }
                }
            }
            Verdict::Refused(reason) | Verdict::GivenUp(reason) => {
                self.counters.authentications_failed += 1;
                self.note(Note::AuthenticationFailed { socket, subsystem, controller, reason });
            }
            Verdict::Told => {}
        }
        if matches!(verdict, Verdict::Told | Verdict::GivenUp(_)) {
            self.end_unproved(mem, now, key);
        }
    }

    /// Ends a connection that failed; with it all of the controller, unless it never proved that
    /// it is of its host.
    fn end_unproved<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(queue) = self.conns.get(key).and_then(|conn| conn.queue()) else { return };
        let (at, controller) = (usize::from(queue.subsystem), queue.controller);
        let alone = queue.standing.due && queue.qid != 0;
        let association = self.subsystems[at].controllers.get(controller);
        let queues = association.filter(|_| !alone).map(|a| a.queues.clone()).unwrap_or_default();
        for other in queues.into_iter().flatten().filter(|other| *other != key) {
            self.end(mem, now, other, Why::Authentication);
        }
        self.end(mem, now, key, Why::Authentication);
    }
}
