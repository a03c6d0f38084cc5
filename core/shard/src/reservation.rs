//! Reservations of the namespaces at home here: changed one command at a time, durable before they
//! are told, and obeyed by every command from its arrival on.
//!
//! ```text
//!            persists                durable              commands of victims
//!   waiting -----------> being kept ---------> in force ---------------------> answered
//!      |                                          ^   \     are still at work      ^
//!      +------------------------------------------+    +---------------------------+
//!                       does not persist                        none
//! ```
//!
//! Invariants:
//! 1. What is in force is durable, if it persists: no command is judged, and none answered, by what
//!    a power cut could take back.
//! 2. Commands about one namespace's reservations change them in the order in which they came.
//! 3. A preempt with abort is answered with success only when no command of its victims that
//!    arrived before can touch the namespace any more.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Instant, Key, Memory, Token};
use braid_nvme::Status;
use braid_nvme::target::NamespaceFeature;
use braid_nvme::target::reservation::{
    HostId, Keys, NOTIFICATIONS, Notification, Outcome, Parts, ReservationCommand, Reservations,
};
use braid_pool::{Handle, Reservation};

use crate::backend::{Backend, Namespace};
use crate::config::{BackendConfig, NamespaceConfig, SubsystemConfig};
use crate::deadline::Reminder;
use crate::note::Note;
use crate::op::{State, Work};
use crate::pool::PoolId;
use crate::{Shard, token};

/// How long a preempt with abort waits for what its victims have in the device. Hosts wait 30 s
/// for a command, and a device that takes longer than this has failed.
const PREEMPT_ABORT: Duration = Duration::from_secs(10);

/// In the pool's type of a reservation: it persists, whether or not there is one.
const PERSISTS: u8 = 0x80;

/// What is being done about one namespace's reservations.
#[derive(Default)]
pub(crate) struct Changes {
    /// The command at work.
    current: Option<Change>,
    /// Those that wait for it, in the order in which they came.
    waiting: VecDeque<Key>,
    /// Commands of preempted hosts that the device still has.
    victims: u32,
}

struct Change {
    op: Key,
    /// What will be in force; none once it is.
    next: Option<Reservations>,
    outcome: Outcome,
}

impl Shard {
    /// Carries out a command about reservations that has its data, or its buffer.
    pub(crate) fn on_reservation<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(op) = self.ops.get(key) else { return };
        if let Work::Reservation(ReservationCommand::Report { bytes }) = op.work {
            return self.report(mem, key, bytes);
        }
        let (at, namespace) = (op.subsystem, op.namespace);
        self.namespace_mut(at, namespace).changes.waiting.push_back(key);
        self.run_changes(mem, at, namespace);
    }

    /// Reads or sets a feature that each namespace has for itself.
    pub(crate) fn on_namespace_feature<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        nsid: u32,
        feature: NamespaceFeature,
        value: Option<u32>,
    ) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let subsystem = &mut self.subsystems[usize::from(op.subsystem)];
        if let (NamespaceFeature::ReservationMask, Some(mask), u32::MAX) = (feature, value, nsid) {
            for namespace in &mut subsystem.namespaces {
                namespace.notification_mask = mask & NOTIFICATIONS;
            }
            return self.finish(mem, key, Status::SUCCESS, 0);
        }
        let Some(at) = subsystem.position(nsid) else {
            return self.finish(mem, key, Status::INVALID_NAMESPACE.dnr(), 0);
        };
        if !subsystem.views[usize::from(at)].takes_reservations() {
            return self.finish(mem, key, Status::INVALID_FIELD.dnr(), 0);
        }
        let namespace = &mut subsystem.namespaces[usize::from(at)];
        let result = match (feature, value) {
            (NamespaceFeature::ReservationMask, None) => namespace.notification_mask,
            (NamespaceFeature::ReservationMask, Some(mask)) => {
                namespace.notification_mask = mask & NOTIFICATIONS;
                0
            }
            (NamespaceFeature::ReservationPersistence, None) => {
                u32::from(namespace.reservations.persists())
            }
            (NamespaceFeature::ReservationPersistence, Some(value)) => {
                op.namespace = at;
                op.work = Work::Persistence(value & 1 != 0);
                return self.on_reservation(mem, key);
            }
        };
        self.finish(mem, key, Status::SUCCESS, u64::from(result));
    }

    /// What a note of this tag asks the shell to keep: the namespace's UUID, and its reservations
    /// as they will be.
    #[must_use]
    pub fn reservations_to_keep(&self, tag: u64) -> Option<(&[u8; 16], &Reservations)> {
        let key = Token::from_bits(tag).key();
        let op = self.ops.get(key)?;
        let subsystem = &self.subsystems[usize::from(op.subsystem)];
        let namespace = &subsystem.namespaces[usize::from(op.namespace)];
        let change = namespace.changes.current.as_ref().filter(|change| change.op == key)?;
        Some((&namespace.uuid, change.next.as_ref()?))
    }

    /// The shell has kept them durably, or could not.
    pub fn reservations_kept<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        tag: u64,
        kept: bool,
    ) {
        self.now = now;
        self.on_reservations_kept(mem, Token::from_bits(tag).key(), kept);
    }

    /// A change is durable, or failed to be: then it is not in force, but may be after a restart.
    pub(crate) fn on_reservations_kept<M: Memory>(&mut self, mem: &mut M, key: Key, kept: bool) {
        let Some(op) = self.ops.get(key) else { return };
        let (at, namespace) = (op.subsystem, op.namespace);
        let current = self.namespace_mut(at, namespace).changes.current.as_ref();
        if current.is_none_or(|change| change.op != key || change.next.is_none()) {
            return;
        }
        if kept {
            self.enforce(mem, at, namespace);
        } else {
            self.end_change(mem, at, namespace, Status::INTERNAL_ERROR);
        }
        self.run_changes(mem, at, namespace);
    }

    /// A command of a preempted host has left the device.
    pub(crate) fn on_victim_ended<M: Memory>(&mut self, mem: &mut M, at: u16, namespace: u16) {
        let changes = &mut self.namespace_mut(at, namespace).changes;
        changes.victims -= 1;
        if changes.victims > 0 || changes.current.as_ref().is_none_or(|c| c.next.is_some()) {
            return;
        }
        self.end_change(mem, at, namespace, Status::SUCCESS);
        self.run_changes(mem, at, namespace);
    }

    /// A preempt with abort has waited long enough. It took effect, but what its victims have in
    /// the device may still land, so it is no success.
    pub(crate) fn on_abort_overdue<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(op) = self.ops.get(key) else { return };
        let (at, namespace) = (op.subsystem, op.namespace);
        self.end_change(mem, at, namespace, Status::INTERNAL_ERROR.dnr());
        self.run_changes(mem, at, namespace);
    }

    /// Begins what waits, as long as nothing is at work.
    fn run_changes<M: Memory>(&mut self, mem: &mut M, at: u16, namespace: u16) {
        loop {
            let changes = &mut self.namespace_mut(at, namespace).changes;
            if changes.current.is_some() {
                return;
            }
            let Some(key) = changes.waiting.pop_front() else { return };
            match self.decide(mem, key) {
                Ok((next, outcome)) => {
                    let change = Change { op: key, next: Some(next), outcome };
                    self.begin_change(mem, at, namespace, change);
                }
                Err(status) => self.finish(mem, key, status, 0),
            }
        }
    }

    /// What a command would put in force.
    fn decide<M: Memory>(&self, mem: &M, key: Key) -> Result<(Reservations, Outcome), Status> {
        let op = self.ops.get(key).ok_or(Status::INTERNAL_ERROR)?;
        let subsystem = &self.subsystems[usize::from(op.subsystem)];
        let current = &subsystem.namespaces[usize::from(op.namespace)].reservations;
        let association = subsystem.controllers.get(op.controller);
        let host = association.ok_or(Status::ABORTED_QUEUE_DELETED)?.controller.hostid();
        match (op.work, &op.lease) {
            (Work::Persistence(persists), _) => {
                let next = current.with_persistence(persists);
                Ok((next.ok_or(Status::INVALID_FIELD.dnr())?, Outcome::default()))
            }
            (Work::Reservation(command), Some(lease)) => {
                let mut next = current.clone();
                let outcome = next.apply(host, command, Keys::parse(mem.bytes(lease)))?;
                Ok((next, outcome))
            }
            _ => Err(Status::INTERNAL_ERROR),
        }
    }

    /// Keeps a change where it must persist, else puts it in force.
    fn begin_change<M: Memory>(&mut self, mem: &mut M, at: u16, namespace: u16, change: Change) {
        let now = self.now;
        let (key, target) = (change.op, self.namespace_mut(at, namespace));
        let tag = Token::new(token::RESERVATION, key).to_bits();
        let (old, new) =
            (target.reservations.parts(), change.next.as_ref().map(Reservations::parts));
        target.changes.current = Some(change);
        let Some(new) = new.filter(|new| *new != old) else {
            return self.enforce(mem, at, namespace);
        };
        match target.replica() {
            Some(replica) if self.pools.bear(mem, now, replica, tag, of_pool(&new)) => {}
            Some(_) => self.end_change(mem, at, namespace, Status::NAMESPACE_NOT_READY),
            None => self.note(Note::Reservations { tag }),
        }
    }

    /// Puts a change in force.
    fn enforce<M: Memory>(&mut self, mem: &mut M, at: u16, namespace: u16) {
        let target = self.namespace_mut(at, namespace);
        let Some(change) = &mut target.changes.current else { return };
        let (key, outcome) = (change.op, core::mem::take(&mut change.outcome));
        if let Some(next) = change.next.take() {
            target.reservations = next;
        }
        for (host, notice) in outcome.notices {
            self.tell_host(at, namespace, &host, notice);
        }
        if !outcome.aborted.is_empty() {
            self.abort_victims(mem, at, namespace, &outcome.aborted);
        }
        let busy = self.namespace_mut(at, namespace).changes.victims > 0;
        if outcome.aborted.is_empty() || !busy {
            return self.end_change(mem, at, namespace, Status::SUCCESS);
        }
        if let Some(op) = self.ops.get_mut(key) {
            op.state = State::Draining;
        }
        self.deadlines.remind(self.now + PREEMPT_ABORT, Reminder::Op(key));
    }

    fn end_change<M: Memory>(&mut self, mem: &mut M, at: u16, namespace: u16, status: Status) {
        if let Some(change) = self.namespace_mut(at, namespace).changes.current.take() {
            self.finish(mem, change.op, status, 0);
        }
    }

    /// Ends the commands of these hosts that have not begun; those in the device are counted.
    fn abort_victims<M: Memory>(&mut self, mem: &mut M, at: u16, namespace: u16, of: &[HostId]) {
        for index in 0..u32::try_from(self.ops.capacity()).unwrap_or(u32::MAX) {
            let Some(key) = self.ops.key_at(index) else { continue };
            let Some(op) = self.ops.get_mut(key) else { continue };
            if (op.subsystem, op.namespace, op.preempted) != (at, namespace, false) {
                continue;
            }
            let controllers = &self.subsystems[usize::from(at)].controllers;
            let host = controllers.get(op.controller).map(|a| a.controller.hostid());
            if !op.work.is_io() || host.is_none_or(|host| !of.contains(host)) {
                continue;
            }
            match op.state {
                // If its data has a buffer to go to, it is aborted when that has come.
                _ if op.only_waits() || op.state == State::AwaitingData => {
                    self.doom(mem, key, Status::ABORTED_BY_PREEMPT);
                }
                _ => {
                    op.preempted = true;
                    self.namespace_mut(at, namespace).changes.victims += 1;
                }
            }
        }
    }

    /// Tells every controller of a host, unless it is not to be told of such things.
    fn tell_host(&mut self, at: u16, namespace: u16, host: &HostId, notice: Notification) {
        let subsystem = &mut self.subsystems[usize::from(at)];
        let namespace = &subsystem.namespaces[usize::from(namespace)];
        if namespace.notification_mask & notice.mask_bit() != 0 {
            return;
        }
        for (_, association) in subsystem.controllers.iter_mut() {
            if association.controller.hostid() == host {
                association.controller.reservation_notice(notice, namespace.nsid);
            }
        }
        self.events = true;
    }

    /// Reservation Report.
    fn report<M: Memory>(&mut self, mem: &mut M, key: Key, bytes: u32) {
        let Some(op) = self.ops.get(key) else { return };
        let subsystem = &self.subsystems[usize::from(op.subsystem)];
        let alive = subsystem.controllers.iter().filter(|(_, a)| !a.dying);
        let mut controllers: Vec<(u16, HostId)> =
            alive.map(|(_, a)| (a.controller.cntlid(), *a.controller.hostid())).collect();
        controllers.sort_unstable();
        if let Some(lease) = &op.lease {
            let out = &mut mem.bytes_mut(lease)[..bytes as usize];
            let namespace = &subsystem.namespaces[usize::from(op.namespace)];
            namespace.reservations.report(out, controllers.into_iter());
        }
        self.finish_with_data(mem, key, bytes);
    }

    /// The reservations that a pool kept for the replicas among these namespaces; None: of one of
    /// them they make no sense.
    pub(crate) fn kept_reservations(&self, config: &SubsystemConfig) -> Option<Vec<Reservations>> {
        config.namespaces.iter().map(|namespace| self.kept_of(namespace)).collect()
    }

    /// The same of one namespace.
    pub(crate) fn kept_of(&self, namespace: &NamespaceConfig) -> Option<Reservations> {
        let BackendConfig::Replica { pool, handle, read_only: false } = namespace.backend else {
            return Some(first(namespace.reservations.as_deref()));
        };
        let bearing = self.pool(pool).and_then(|pool| pool.bearing(handle));
        match bearing.and_then(|bearing| bearing.reservation) {
            Some(kept) => Reservations::restore(&parts_of(&kept)).ok(),
            None => Some(Reservations::new(true)),
        }
    }

    fn namespace_mut(&mut self, at: u16, namespace: u16) -> &mut Namespace {
        &mut self.subsystems[usize::from(at)].namespaces[usize::from(namespace)]
    }
}

/// The reservations that a namespace begins with where no pool keeps them.
pub(crate) fn first(kept: Option<&Reservations>) -> Reservations {
    kept.cloned().unwrap_or(const { Reservations::new(false) })
}

impl Namespace {
    /// The replica that keeps its reservations.
    const fn replica(&self) -> Option<(PoolId, Handle)> {
        match self.backend {
            Backend::Replica { pool, handle } => Some((pool, handle)),
            _ => None,
        }
    }
}

/// As a pool keeps them.
fn of_pool(parts: &Parts) -> Box<Reservation> {
    Box::new(Reservation {
        kind: parts.kind | if parts.persists { PERSISTS } else { 0 },
        holder: parts.holder,
        generation: parts.generation,
        registrants: parts.registrants.clone(),
    })
}

fn parts_of(kept: &Reservation) -> Parts {
    Parts {
        kind: kept.kind & !PERSISTS,
        holder: kept.holder,
        generation: kept.generation,
        persists: kept.kind & PERSISTS != 0,
        registrants: kept.registrants.clone(),
    }
}
