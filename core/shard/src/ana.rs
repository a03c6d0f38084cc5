//! Asymmetric access: how the namespaces of a subsystem are reached by each port of this engine,
//! and what a change of that does to hosts and to the commands that wait.
//!
//! Invariants:
//! 1. A command begins on a namespace only while its path's state allows it: this is asked when it
//!    arrives, and again when it waited.
//! 2. A command that waits for the data of its host is answered only when that is here: until
//!    then its host still sends it.
//! 3. No group is changing for longer than ANATT: then it is inaccessible.

use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Instant, Key, Memory};
use braid_nvme::Status;
use braid_nvme::ana::{ANA_TRANSITION_SECONDS, AnaState};
use braid_nvme::target::{AnaGroup, Notice};

use crate::Shard;
use crate::config::SubsystemConfig;
use crate::deadline::Reminder;
use crate::note::Note;
use crate::op::{Op, Work};
use crate::subsystem::Association;

/// How long a group may be changing.
const TRANSITION: Duration = Duration::from_secs(ANA_TRANSITION_SECONDS as u64);

/// The groups of a subsystem.
#[derive(Debug)]
pub(crate) struct Ana {
    /// For each listener the groups, ascending by id.
    ports: Vec<Vec<AnaGroup>>,
    /// What is changing, and when it has to be done: listener, group.
    changing: Vec<(Instant, u16, u32)>,
    /// Which epoch it is, if the subsystem counts them; else zero.
    pub(crate) epoch: u64,
}

/// What a group is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnaChange<'a> {
    /// Whose group.
    pub subsystem: &'a str,
    /// Which.
    pub group: u32,
    /// For hosts that came by this listener; none: for all.
    pub listener: Option<u16>,
    /// What it is to become.
    pub state: AnaState,
}

/// A group as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnaInfo<'a> {
    /// Whose group.
    pub subsystem: &'a str,
    /// For hosts that came by this listener.
    pub listener: u16,
    /// Its id, state and count of changes.
    pub group: AnaGroup,
}

impl Ana {
    /// The groups that the namespaces of a subsystem are in, for so many listeners.
    pub(crate) fn new(config: &SubsystemConfig, listeners: usize) -> Self {
        let mut ids: Vec<u32> = config.namespaces.iter().map(|n| n.ana_group).collect();
        ids.sort_unstable();
        ids.dedup();
        let group = |&id: &u32| AnaGroup { id, state: config.paths.state, changes: 1 };
        let groups: Vec<_> = ids.iter().map(group).collect();
        let ports = alloc::vec![groups; listeners.max(1)];
        Self { ports, changing: Vec::new(), epoch: 0 }
    }

    /// The groups as hosts see them that came by this listener.
    pub(crate) fn groups(&self, listener: u16) -> &[AnaGroup] {
        self.ports.get(usize::from(listener)).map_or(&[], Vec::as_slice)
    }

    /// The state of a group.
    pub(crate) fn state(&self, listener: u16, group: u32) -> AnaState {
        let groups = self.groups(listener);
        let found = groups.iter().find(|known| known.id == group);
        found.map_or(AnaState::Inaccessible, |group| group.state)
    }

    /// Whether every group is optimized.
    pub(crate) fn is_optimized(&self, listener: u16) -> bool {
        self.groups(listener).iter().all(|group| group.state == AnaState::Optimized)
    }

    /// A namespace of this group came or went. A new group is as it is said for new ones.
    pub(crate) fn regroup(&mut self, id: u32, state: AnaState) {
        for groups in &mut self.ports {
            match groups.binary_search_by_key(&id, |group| group.id) {
                Ok(at) => groups[at].changes += 1,
                Err(at) => groups.insert(at, AnaGroup { id, state, changes: 1 }),
            }
        }
    }

    /// Sets a state; true if it was another one before.
    fn set(&mut self, now: Instant, listener: u16, id: u32, state: AnaState) -> bool {
        let groups = self.ports.get_mut(usize::from(listener));
        let group = groups.and_then(|groups| groups.iter_mut().find(|group| group.id == id));
        let Some(group) = group.filter(|group| group.state != state) else { return false };
        (group.state, group.changes) = (state, group.changes + 1);
        self.changing.retain(|&(_, at, of)| (at, of) != (listener, id));
        if state == AnaState::Change {
            self.changing.push((now + TRANSITION, listener, id));
        }
        true
    }
}

impl Association {
    /// Whether its host may do I/O to a namespace of this group now.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub(crate) fn may_access(&self, ana: &Ana, group: u32) -> Result<(), Status> {
        self.controller.may_access(ana.state(self.listener, group), ana.epoch)
    }
}

impl Shard {
    /// Changes how a group is reached; hosts are told, and commands that wait for anything but
    /// their data are answered. False: there is no such group or listener at home here.
    pub fn ana_set<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        change: &AnaChange<'_>,
    ) -> bool {
        let AnaChange { subsystem, group, listener, state } = *change;
        let found = self.subsystems.iter().position(|s| s.is_served_as(subsystem));
        let Some(at) = found else { return false };
        let ports = u16::try_from(self.subsystems[at].ana.ports.len()).unwrap_or(u16::MAX);
        let known = self.subsystems[at].ana.groups(0).iter().any(|known| known.id == group);
        if !known || listener.is_some_and(|listener| listener >= ports) {
            return false;
        }
        for port in (0..ports).filter(|port| listener.is_none_or(|listener| listener == *port)) {
            self.change(mem, now, at, (port, group), state, false);
        }
        true
    }

    /// Begins an epoch of a subsystem: from now on I/O is done only for hosts that connect in it,
    /// or read in it an ANA log that says optimized. Zero: it counts no epochs any more. False:
    /// it is not at home here.
    pub fn ana_epoch(&mut self, nqn: &str, epoch: u64) -> bool {
        let found = self.subsystems.iter_mut().find(|s| s.is_served_as(nqn));
        found.map(|subsystem| subsystem.ana.epoch = epoch).is_some()
    }

    /// Every group at home here, by each listener.
    pub fn ana(&self) -> impl Iterator<Item = AnaInfo<'_>> {
        self.subsystems.iter().filter(|s| s.phase == crate::subsystem::Phase::Serving).flat_map(
            |s| {
                let ports = (0..).zip(&s.ana.ports);
                ports.flat_map(move |(listener, groups)| {
                    groups.iter().map(move |group| AnaInfo {
                        subsystem: s.nqn.as_str(),
                        listener,
                        group: *group,
                    })
                })
            },
        )
    }

    fn change<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        at: usize,
        (listener, group): (u16, u32),
        state: AnaState,
        late: bool,
    ) {
        let subsystem = &mut self.subsystems[at];
        if !subsystem.ana.set(now, listener, group, state) {
            return;
        }
        for (_, association) in subsystem.controllers.iter_mut() {
            if association.listener == listener {
                association.controller.raise(Notice::AnaChange);
            }
        }
        self.events = true;
        let place = u16::try_from(at).unwrap_or(u16::MAX);
        if state == AnaState::Change {
            self.deadlines.remind(now + TRANSITION, Reminder::Transition(place));
        }
        self.note(Note::AnaChanged { subsystem: place, group, listener, state, late });
        self.refuse_waiting(mem, at, listener, group);
    }

    /// What has been changing for too long is inaccessible: its hosts wait without an error.
    pub(crate) fn end_transitions<M: Memory>(&mut self, mem: &mut M, now: Instant, at: u16) {
        loop {
            let at = usize::from(at);
            let changing = self.subsystems[at].ana.changing.iter();
            let Some(&(_, listener, group)) = changing.clone().find(|(until, ..)| *until <= now)
            else {
                return;
            };
            self.change(mem, now, at, (listener, group), AnaState::Inaccessible, true);
        }
    }

    /// Answers the commands that wait for a buffer or a delay, and whose path refuses I/O now.
    fn refuse_waiting<M: Memory>(&mut self, mem: &mut M, at: usize, listener: u16, group: u32) {
        let subsystem = &self.subsystems[at];
        let is_meant = |op: &Op| {
            let association = subsystem.controllers.get(op.controller);
            usize::from(op.subsystem) == at
                && op.only_waits()
                && association.is_some_and(|a| a.listener == listener)
                && subsystem
                    .namespaces
                    .get(usize::from(op.namespace))
                    .is_some_and(|n| n.group == group)
        };
        let waiting: Vec<Key> =
            self.ops.iter().filter(|(_, op)| is_meant(op)).map(|(key, _)| key).collect();
        for key in waiting {
            if let Err(status) = self.path_of(key) {
                self.doom(mem, key, status);
            }
        }
    }

    /// Whether an op that waited may still begin.
    pub(crate) fn path_of(&self, key: Key) -> Result<(), Status> {
        let Some(op) = self.ops.get(key) else { return Ok(()) };
        if matches!(
            op.work,
            Work::Admin(_) | Work::Persistence(_) | Work::Allocations { .. } | Work::Settle
        ) {
            return Ok(());
        }
        let subsystem = &self.subsystems[usize::from(op.subsystem)];
        let association = subsystem.controllers.get(op.controller);
        let namespace = subsystem.namespaces.get(usize::from(op.namespace));
        match (association, namespace) {
            (Some(association), Some(namespace)) => {
                association.may_access(&subsystem.ana, namespace.group)
            }
            _ => Ok(()),
        }
    }
}
