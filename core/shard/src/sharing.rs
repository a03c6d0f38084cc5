//! Subsystems that come and go while the shard runs.
//!
//! Every shard knows every name and its home, so that discovery and the hand-over of connections
//! work: the caller tells all of them, the home first of an addition and last of a removal.
//!
//! Invariants:
//! 1. A subsystem's number is never another one's while a command or a controller of it is left.
//! 2. A name is added again only when what had it before is gone: no old write can land on a new
//!    one.

use alloc::vec::Vec;

use braid_block::{Geometry, Instant, Key, Memory};
use braid_nvme::ana::ANA_GROUPS_MAX;
use braid_nvme::connect::Nqn;
use braid_nvme::target::{Kind, NSID_MAX};
use braid_nvme::{DISCOVERY_NQN, Status};

use crate::Shard;
use crate::backend::{Backend, Namespace, Standing, view};
use crate::config::{NamespaceConfig, SubsystemConfig};
use crate::event::Disk;
use crate::note::{Note, Why};
use crate::op::{Op, Work};
use crate::subsystem::{Phase, Subsystem};

/// A namespace that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its id.
    pub nsid: u32,
    /// Its identity.
    pub uuid: [u8; 16],
    /// Size and block size.
    pub geometry: Geometry,
    /// Where its bytes are.
    pub kind: NamespaceKind,
}

/// Where a namespace's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceKind {
    /// In this process.
    Memory,
    /// On a disk of its own.
    Disk(Disk),
    /// In a pool.
    Pool,
    /// In the replicas of a volume.
    Volume,
}

impl Shard {
    /// Every subsystem for hosts that is at home here, and its namespaces by id.
    pub fn served(&self) -> impl Iterator<Item = (&str, Vec<NamespaceInfo>)> {
        let serving = |s: &&Subsystem| s.phase == Phase::Serving && s.kind == Kind::Io;
        self.subsystems.iter().filter(serving).map(|subsystem| {
            let all = subsystem.order.iter().map(|at| &subsystem.namespaces[usize::from(*at)]);
            (subsystem.nqn.as_str(), all.map(info).collect())
        })
    }

    /// Adds a subsystem: hosts find it from now on. False: its name is none, or is there already,
    /// or what had it is not gone yet, or what its pool kept of its reservations makes no sense.
    pub fn subsystem_add(&mut self, config: SubsystemConfig) -> bool {
        let Some(nqn) = Nqn::parse(&config.nqn) else { return false };
        let known = config.nqn == DISCOVERY_NQN || self.names.contains(&nqn);
        let leaving = |s: &Subsystem| matches!(s.phase, Phase::Leaving(_)) && s.nqn == nqn;
        if self.stopping || known || self.subsystems.iter().any(leaving) {
            return false;
        }
        if config.home == self.config.shard {
            let Some(kept) = self.kept_reservations(&config) else { return false };
            let new = Subsystem::new(Kind::Io, config.clone(), kept, nqn, &self.config);
            match self.subsystems.iter_mut().find(|s| s.phase == Phase::Gone) {
                Some(hole) => hole.replace(new),
                None => self.subsystems.push(new),
            }
        }
        // In the same order on every shard, in whatever order they are told.
        let added = &self.names[self.fixed..];
        let at = self.fixed + added.partition_point(|name| name.as_str() < nqn.as_str());
        self.tell_discovery(&config);
        self.names.insert(at, nqn);
        self.config.subsystems.insert(at, config);
        self.generation += 1;
        true
    }

    /// Removes a subsystem: no host finds it any more, and its connections end in order. At its
    /// home [`Note::SubsystemGone`] tells with this tag when the last command is done. False: it
    /// is not there.
    pub fn subsystem_remove<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        nqn: &str,
        tag: u64,
    ) -> bool {
        let Some(at) = self.names.iter().position(|name| name.as_str() == nqn) else {
            return false;
        };
        self.names.remove(at);
        let config = self.config.subsystems.remove(at);
        // The list that was fixed at the start is shorter now.
        self.fixed -= usize::from(at < self.fixed);
        self.generation += 1;
        self.tell_discovery(&config);
        if let Some(at) = self.subsystems.iter().position(|s| s.is_served_as(nqn)) {
            self.subsystems[at].phase = Phase::Leaving(tag);
            self.leaving += 1;
            self.end_subsystem(mem, now, at);
        }
        true
    }

    /// Gives a namespace another size, never a smaller one; its hosts are told. False: it is not
    /// at home here, or would become smaller.
    pub fn namespace_resize(&mut self, nqn: &str, nsid: u32, geometry: Geometry) -> bool {
        let Some(subsystem) = self.subsystems.iter_mut().find(|s| s.is_served_as(nqn)) else {
            return false;
        };
        let Some(at) = subsystem.position(nsid) else { return false };
        let (namespace, view) =
            (&mut subsystem.namespaces[usize::from(at)], &mut subsystem.views[usize::from(at)]);
        let old = namespace.geometry;
        if geometry.block != old.block || geometry.blocks < old.blocks {
            return false;
        }
        if geometry == old {
            return true;
        }
        namespace.resize(geometry);
        view.geometry = geometry;
        for (_, association) in subsystem.controllers.iter_mut() {
            association.controller.namespace_changed(nsid);
        }
        self.events = true;
        true
    }

    /// Attaches a namespace to a subsystem at home here: hosts are told, and find it. False: there
    /// is no such subsystem, or it has a namespace of this id.
    pub fn namespace_attach(&mut self, nqn: &str, config: &NamespaceConfig) -> bool {
        let Some(kept) = self.kept_of(config) else { return false };
        let found = self.subsystems.iter_mut().find(|s| s.is_served_as(nqn));
        let Some(subsystem) = found else { return false };
        let (nsid, group) = (config.nsid, config.ana_group);
        let sound = (1..=NSID_MAX).contains(&nsid) && (1..=ANA_GROUPS_MAX).contains(&group);
        if !sound || self.stopping || subsystem.position(nsid).is_some() {
            return false;
        }
        let view = view(config, &kept);
        let namespace = Namespace::new(config, kept);
        let gone = |n: &Namespace| n.standing == Standing::Gone;
        let at = match subsystem.namespaces.iter().position(gone) {
            Some(hole) => {
                subsystem.past.add(&subsystem.namespaces[hole].smart());
                (subsystem.namespaces[hole], subsystem.views[hole]) = (namespace, view);
                hole
            }
            None => {
                subsystem.namespaces.push(namespace);
                subsystem.views.push(view);
                subsystem.views.len() - 1
            }
        };
        let Ok(at) = u16::try_from(at) else { return false };
        let place =
            subsystem.order.partition_point(|at| subsystem.views[usize::from(*at)].nsid < nsid);
        subsystem.order.insert(place, at);
        subsystem.ana.regroup(group, subsystem.config.paths.state);
        self.tell_namespace(nqn, nsid);
        true
    }

    /// Detaches a namespace: hosts are told, and do not find it any more. Commands that wait are
    /// answered so; [`Note::NamespaceGone`] tells with this tag when the last one is done. False:
    /// it is not at home here.
    pub fn namespace_detach<M: Memory>(
        &mut self,
        mem: &mut M,
        nqn: &str,
        nsid: u32,
        tag: u64,
    ) -> bool {
        let found = self.subsystems.iter().position(|s| s.is_served_as(nqn));
        let Some(subsystem) = found else { return false };
        let Some(at) = self.subsystems[subsystem].position(nsid) else { return false };
        let entry = &mut self.subsystems[subsystem];
        entry.order.retain(|position| *position != at);
        let namespace = &mut entry.namespaces[usize::from(at)];
        namespace.standing = Standing::Leaving(tag);
        let group = namespace.group;
        entry.ana.regroup(group, entry.config.paths.state);
        self.detaching += 1;
        self.tell_namespace(nqn, nsid);
        let its = |op: &Op| (usize::from(op.subsystem), op.namespace) == (subsystem, at);
        let io = |op: &Op| !matches!(op.work, Work::Admin(_));
        let ops: Vec<Key> =
            self.ops.iter().filter(|(_, op)| its(op) && io(op)).map(|(key, _)| key).collect();
        for key in ops {
            self.doom(mem, key, Status::INVALID_NAMESPACE.dnr());
        }
        true
    }

    /// Tells the hosts of a subsystem that a namespace came, went or changed.
    fn tell_namespace(&mut self, nqn: &str, nsid: u32) {
        let found = self.subsystems.iter_mut().find(|s| s.is_served_as(nqn));
        for (_, association) in found.into_iter().flat_map(|s| s.controllers.iter_mut()) {
            association.controller.namespace_changed(nsid);
        }
        self.events = true;
    }

    /// Tells of the namespaces to which no command is in work any more.
    pub(crate) fn bury_namespaces(&mut self) {
        for subsystem in 0..self.subsystems.len() {
            for at in 0..self.subsystems[subsystem].namespaces.len() {
                let namespace = &mut self.subsystems[subsystem].namespaces[at];
                let Standing::Leaving(tag) = namespace.standing else { continue };
                let place = |op: &Op| (usize::from(op.subsystem), usize::from(op.namespace));
                let its = |op: &Op| place(op) == (subsystem, at);
                let io = |op: &Op| !matches!(op.work, Work::Admin(_));
                if self.ops.iter().any(|(_, op)| its(op) && io(op)) {
                    continue;
                }
                (namespace.standing, namespace.backend) =
                    (Standing::Gone, Backend::Memory(Vec::new()));
                self.detaching -= 1;
                self.note(Note::NamespaceGone { tag });
            }
        }
    }

    /// Ends every connection of a subsystem in order.
    fn end_subsystem<M: Memory>(&mut self, mem: &mut M, now: Instant, at: usize) {
        for index in 0..u32::try_from(self.conns.capacity()).unwrap_or(u32::MAX) {
            let Some(key) = self.conns.key_at(index) else { continue };
            let queue = self.conns.get(key).and_then(|conn| conn.queue());
            if queue.is_some_and(|queue| usize::from(queue.subsystem) == at) {
                self.end(mem, now, key, Why::Removed);
            }
        }
    }

    /// Tells of the subsystems whose last controller is gone, and lets go of what they had.
    pub(crate) fn bury_subsystems(&mut self) {
        for at in 0..self.subsystems.len() {
            let subsystem = &mut self.subsystems[at];
            let Phase::Leaving(tag) = subsystem.phase else { continue };
            if !subsystem.controllers.is_empty() {
                continue;
            }
            subsystem.phase = Phase::Gone;
            subsystem.namespaces = Vec::new();
            subsystem.views = Vec::new();
            subsystem.order = Vec::new();
            self.leaving -= 1;
            self.note(Note::SubsystemGone { tag });
        }
    }

    /// Whether what a subsystem's end waits for may have come.
    pub(crate) fn has_left(&self) -> bool {
        let left = |s: &Subsystem| matches!(s.phase, Phase::Leaving(_)) && s.controllers.is_empty();
        self.leaving > 0 && self.subsystems.iter().any(left)
    }

    /// Answers the event requests of hosts that have something to hear.
    pub(crate) fn tell_all_events<M: Memory>(&mut self, mem: &mut M) {
        let controllers: Vec<(usize, Key, Key)> = (self.subsystems.iter().enumerate())
            .flat_map(|(at, subsystem)| {
                subsystem.controllers.iter().filter_map(move |(key, association)| {
                    Some((at, key, association.queues.first().copied().flatten()?))
                })
            })
            .collect();
        for (at, controller, conn) in controllers {
            let at = u16::try_from(at).unwrap_or(u16::MAX);
            self.tell_events(mem, at, controller, conn);
        }
    }
}

fn info(namespace: &Namespace) -> NamespaceInfo {
    let Namespace { nsid, uuid, geometry, .. } = *namespace;
    let kind = match namespace.backend {
        Backend::Memory(_) => NamespaceKind::Memory,
        Backend::Disk { disk, .. } => NamespaceKind::Disk(disk),
        Backend::Replica { .. } | Backend::Member { .. } => NamespaceKind::Pool,
        Backend::Volume { .. } => NamespaceKind::Volume,
    };
    NamespaceInfo { nsid, uuid, geometry, kind }
}
