//! What hosts connect to: subsystems, their controllers and their namespaces, as they are now.

use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Instant, Key, Slab};
use braid_nvme::Status;
use braid_nvme::connect::{
    CNTLID_DYNAMIC, CNTLID_MAX, CNTLID_STATIC_ANY, Connect, Nqn, Parameter, Refusal,
};
use braid_nvme::target::reservation::Reservations;
use braid_nvme::target::{Controller, ControllerModel, Counters, Kind, NamespaceView};

use crate::ana::Ana;
use crate::backend::Namespace;
use crate::config::{Config, Paths, SubsystemConfig};
use crate::mirror::{Guest, LineKey};

/// Controller ids that one shard's discovery subsystem may give out.
const DISCOVERY_IDS: u16 = 1024;

/// A subsystem that this shard serves.
pub(crate) struct Subsystem {
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    pub(crate) nqn: Nqn,
    pub(crate) config: SubsystemConfig,
    pub(crate) namespaces: Vec<Namespace>,
    /// The same namespaces, as controllers describe them.
    pub(crate) views: Vec<NamespaceView>,
    /// The positions of those that are served, ascending by namespace id.
    pub(crate) order: Vec<u16>,
    /// What was counted of namespaces whose places others have now.
    pub(crate) past: Counters,
    pub(crate) controllers: Slab<Association>,
    pub(crate) ana: Ana,
    /// Where the search for a free controller id begins: ids are reused as late as can be.
    next_cntlid: u16,
    first_cntlid: u16,
    last_cntlid: u16,
}

/// Where a subsystem is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// Not to be found any more; its controllers end. Who removed it is told with this tag.
    Leaving(u64),
    /// A hole, so that the numbers of the others stay; it keeps the table of controllers, whose
    /// generations tell a stale key.
    Gone,
}

/// A controller and its connections.
#[derive(Debug)]
pub(crate) struct Association {
    pub(crate) controller: Controller,
    /// The connection of each queue, by queue id; the admin queue first.
    pub(crate) queues: Vec<Option<Key>>,
    /// Commands in work: as long as there are any, their blocks are not quiet.
    pub(crate) ops: u32,
    /// The listener that its host came by: the controller is of that port.
    pub(crate) listener: u16,
    /// Its admin queue is gone: it only waits for its ops.
    pub(crate) dying: bool,
    /// Set Features commands that wait until all is flushed, and what is flushed for each.
    pub(crate) flushers: Vec<Flusher>,
    /// A flush before its shutdown failed.
    pub(crate) unsettled: bool,
    /// When it is looked at whether its host still lives: the reminder that counts.
    pub(crate) look: Instant,
    /// When its last op is done, its namespaces are to be flushed before it is shut down.
    pub(crate) settle: bool,
    pub(crate) last_seen: Instant,
    /// What its host is to a volume.
    pub(crate) guest: Guest,
    /// Its line to a replica, once a nexus has sent something by it.
    pub(crate) line: Option<LineKey>,
}

/// A command that is answered when every namespace is flushed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flusher {
    pub(crate) op: Key,
    /// Flushes that are not done.
    pub(crate) left: u32,
    pub(crate) failed: bool,
}

impl Subsystem {
    /// With the reservations of each of its namespaces, as they were kept.
    pub(crate) fn new(
        kind: Kind,
        config: SubsystemConfig,
        reservations: Vec<Reservations>,
        nqn: Nqn,
        all: &Config,
    ) -> Self {
        let (limits, shard) = (&all.limits, all.shard);
        let described = config.namespaces.iter().zip(&reservations);
        let views: Vec<_> =
            described.map(|(config, held)| crate::backend::view(config, held)).collect();
        let held = reservations.into_iter();
        let namespaces = config.namespaces.iter().zip(held).map(|(n, r)| Namespace::new(n, r));
        let namespaces = namespaces.collect();
        let order = (0..u16::try_from(views.len()).unwrap_or(u16::MAX)).collect();
        let (first_cntlid, last_cntlid) = match kind {
            Kind::Discovery => {
                let first = shard.saturating_mul(DISCOVERY_IDS).min(CNTLID_MAX - DISCOVERY_IDS) + 1;
                (first, first + DISCOVERY_IDS - 1)
            }
            Kind::Io => {
                let Paths { cntlid_min: first, cntlid_max: last, .. } = config.paths;
                let fixed = first.saturating_add(limits.controllers_max - 1);
                let is_static = config.controllers == ControllerModel::Static;
                (first, if is_static { last.min(fixed) } else { last })
            }
        };
        Self {
            kind,
            phase: Phase::Serving,
            nqn,
            ana: Ana::new(&config, all.portals.len()),
            config,
            namespaces,
            views,
            order,
            past: Counters::default(),
            controllers: Slab::with_capacity(u32::from(limits.controllers_max)),
            next_cntlid: first_cntlid,
            first_cntlid,
            last_cntlid,
        }
    }

    /// Puts this subsystem into the place of one that is gone.
    pub(crate) fn replace(&mut self, new: Self) {
        let controllers = core::mem::replace(&mut self.controllers, Slab::with_capacity(0));
        *self = Self { controllers, ..new };
    }

    /// Where the namespace with this id is, if it is served.
    pub(crate) fn position(&self, nsid: u32) -> Option<u16> {
        let of = |at: &u16| self.views[usize::from(*at)].nsid;
        let found = self.order.binary_search_by_key(&nsid, of).ok()?;
        self.order.get(found).copied()
    }

    /// The namespaces that are served, ascending by id, unless they stand so in the table. Only
    /// admin commands ask, so that it may allocate.
    pub(crate) fn ordered(&self) -> Option<Vec<NamespaceView>> {
        let plain = self.order.len() == self.views.len() && self.order.is_sorted();
        let ordered = || self.order.iter().map(|at| self.views[usize::from(*at)]).collect();
        (!plain).then(ordered)
    }

    /// Whether hosts find it under this name.
    pub(crate) fn is_served_as(&self, nqn: &str) -> bool {
        self.phase == Phase::Serving && self.nqn.as_str() == nqn
    }

    /// Whether commands of an older association of this host still change blocks.
    ///
    /// A volume keeps its own order: what an older association wrote stays under its locks, and
    /// its host is answered at once. A replica's guard drains what it must at the next fence.
    pub(crate) fn is_draining(&self, hostid: &[u8; 16]) -> bool {
        if self.namespaces.iter().any(|n| n.is_member() || n.backend.volume().is_some()) {
            return false;
        }
        self.controllers.iter().any(|(_, a)| a.dying && a.controller.hostid() == hostid)
    }

    /// The controller id to give to this Connect.
    ///
    /// # Errors
    /// None is free, or the one asked for cannot be given.
    pub(crate) fn choose_cntlid(&mut self, connect: &Connect) -> Result<u16, Refusal> {
        let wrong = Refusal::parameter(Parameter::ControllerId);
        let busy = Refusal::new(Status::CONNECT_CONTROLLER_BUSY);
        match (self.config.controllers, connect.cntlid) {
            (ControllerModel::Dynamic, CNTLID_DYNAMIC)
            | (ControllerModel::Static, CNTLID_STATIC_ANY) => self.free_cntlid().ok_or(busy),
            (ControllerModel::Static, id)
                if (self.first_cntlid..=self.last_cntlid).contains(&id) =>
            {
                if self.by_cntlid(id).is_some() { Err(busy) } else { Ok(id) }
            }
            _ => Err(wrong),
        }
    }

    fn free_cntlid(&mut self) -> Option<u16> {
        if self.controllers.is_full() {
            return None;
        }
        for _ in 0..=self.controllers.capacity() {
            let id = self.next_cntlid;
            self.next_cntlid = if id >= self.last_cntlid { self.first_cntlid } else { id + 1 };
            if self.by_cntlid(id).is_none() {
                return Some(id);
            }
        }
        None
    }

    pub(crate) fn by_cntlid(&self, cntlid: u16) -> Option<Key> {
        self.controllers.iter().find(|(_, a)| a.controller.cntlid() == cntlid).map(|(key, _)| key)
    }
}

impl Association {
    /// Names the connection of a queue, or that it has none.
    pub(crate) fn set_queue(&mut self, qid: u16, conn: Option<Key>) {
        let at = usize::from(qid);
        if self.queues.len() <= at {
            self.queues.resize(at + 1, None);
        }
        self.queues[at] = conn;
    }

    /// Time without a command after which it is given up: a little more than it asked for, so
    /// that a keep alive on its way is not a lost host.
    pub(crate) fn patience(&self) -> Option<Duration> {
        const SLACK: Duration = Duration::from_millis(500);
        self.controller.keep_alive().map(|kato| kato + SLACK)
    }
}
