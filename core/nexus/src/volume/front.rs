//! The hosts that are connected at this portal.
//!
//! Invariants:
//! 1. I/O on an association that is older than this epoch is accepted only after its host read, by
//!    it and in this epoch, an ANA log that says optimized: that proves that the host has not given
//!    it up, and no command of before the take-over can still be on its way.
//! 2. A host has one association at this portal: a newer one ends the older.

use alloc::collections::BTreeMap;

use braid_block::Key;

use crate::record::{REPLICAS_MAX, TOLD_MAX, Uuid};
use crate::wire::TRANSFER_MAX;
use crate::{Effect, Plant, Request, Status, Work, ZERO_MAX};

use super::Volume;
use super::op::State;
use super::snapshot::DROPS_MAX;
use super::swap::Change;

/// A host's association.
#[derive(Clone, Copy, Debug)]
struct Host {
    host: Uuid,
    origin: u64,
    /// In which epoch it showed that it is in use.
    shown: u64,
    /// In which epoch it was opened; zero: in none.
    opened: u64,
}

/// All hosts at this portal, by association.
#[derive(Debug)]
pub(crate) struct Front {
    hosts: BTreeMap<u32, Host>,
    max: u32,
}

impl Front {
    pub(crate) const fn new(max: u32) -> Self {
        Self { hosts: BTreeMap::new(), max }
    }

    /// An association ended.
    pub(crate) fn gone(&mut self, association: u32) {
        self.hosts.remove(&association);
    }

    fn host_of(&self, association: u32) -> Option<&Host> {
        self.hosts.get(&association)
    }
}

impl Volume {
    pub(crate) fn on_host_connected(&mut self, association: u32, host: Uuid, origin: u64) {
        let same = |other: &Host| other.host == host && other.origin == origin;
        let older = self.front.hosts.iter().find(|(_, other)| same(other)).map(|(at, _)| *at);
        if let Some(older) = older {
            self.front.hosts.remove(&older);
            self.effects.push_back(Effect::HostLeave { association: older });
        }
        if self.front.hosts.len() >= self.front.max as usize {
            return self.effects.push_back(Effect::HostLeave { association });
        }
        let epoch = self.serving_epoch();
        let host = Host { host, origin, shown: epoch, opened: epoch };
        self.front.hosts.insert(association, host);
    }

    pub(crate) fn on_host_read_ana(&mut self, association: u32) {
        let epoch = self.serving_epoch();
        if let Some(host) = self.front.hosts.get_mut(&association)
            && epoch != 0
        {
            host.shown = epoch;
        }
    }

    /// The epoch in which this portal is optimized; zero: it is not.
    fn serving_epoch(&self) -> u64 {
        if self.is_optimized() { self.nexus.as_ref().map_or(0, |nexus| nexus.epoch) } else { 0 }
    }

    /// Whether a command may come in.
    pub(crate) fn may_submit(&self, request: &Request) -> Result<(), Status> {
        let epoch = self.serving_epoch();
        let host = self.front.host_of(request.association).ok_or(Status::Inaccessible)?;
        let shown = host.shown == epoch || self.planted(Plant::NoAnaRead);
        if epoch == 0 || !shown {
            return Err(Status::Inaccessible);
        }
        let (offset, len, max, buffer) = match request.work {
            Work::Read { offset, len } | Work::Write { offset, len, .. } => {
                (offset, u64::from(len), u64::from(TRANSFER_MAX), true)
            }
            Work::Zero { offset, len, .. } => (offset, len, ZERO_MAX, false),
            Work::Flush => (0, 512, 512, false),
        };
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.bytes);
        let whole = (offset | len).is_multiple_of(512) && len != 0 && len <= max;
        if !fits || !whole || buffer != request.lease.is_some() {
            return Err(Status::Invalid);
        }
        let starved = self.nexus.as_ref().is_some_and(|nexus| nexus.wanted.is_starved());
        if starved && buffer {
            return Err(Status::Busy);
        }
        // A command may need an answer from every member and from the joiner.
        let calls = self.calls.capacity() - self.calls.len();
        if self.ops.is_full() || calls < CALLS_KEPT { Err(Status::Busy) } else { Ok(()) }
    }

    /// Whether a command is kept back, or was answered, because its host has to be told that
    /// acknowledged writes may be lost.
    pub(crate) fn must_be_told(&mut self, key: Key) -> bool {
        let (Some(op), Some(nexus)) = (self.ops.get(key), self.nexus.as_mut()) else {
            return false;
        };
        let Some(host) = self.front.host_of(op.association).copied() else {
            // Nobody hears the answer: what it says of the media would be nobody's either.
            return false;
        };
        let told = match &nexus.record().lossy {
            Some(lossy) if op.is_durable() => {
                lossy.told.contains(&host.host) || nexus.told.contains(&host.host)
            }
            _ => return false,
        };
        let plant = self.config.plant;
        let excused = match plant {
            Some(Plant::LossyNoFailedFlush) => true,
            Some(Plant::LossyByAssociation) => host.opened == nexus.epoch,
            _ => false,
        };
        let is_new =
            |change: &Change| !matches!(change, Change::Told { host: h } if *h == host.host);
        let swap = nexus.swap.as_ref().map(|swap| &swap.change);
        let telling = !nexus.changes.iter().chain(&nexus.committed).chain(swap).all(is_new);
        if excused || (told && !telling) {
            return false;
        }
        let dnr = plant != Some(Plant::LossyRetryable);
        if telling {
            // Its host sent it before it could know.
            self.conclude(key, Status::WriteFault { dnr });
            return true;
        }
        let full = nexus.record().lossy.as_ref().is_some_and(|lossy| lossy.told.is_full());
        if full {
            // The next owner tells it once more; so does this one, should it go and come back.
            let connected = |told: &Uuid| self.front.hosts.values().any(|host| host.host == *told);
            if nexus.told.len() >= self.front.max as usize {
                nexus.told.retain(connected);
            }
            nexus.told.push(host.host);
        } else {
            nexus.changes.push_back(Change::Told { host: host.host });
        }
        self.fail_flushes(key, &host.host, Status::WriteFault { dnr });
        true
    }

    /// Ends a command, and every flush of the same host that is out, as failed.
    fn fail_flushes(&mut self, key: Key, host: &Uuid, status: Status) {
        let is_its = |association| self.front.host_of(association).is_some_and(|h| h.host == *host);
        let flushes = self.ops.iter().filter(|(_, op)| {
            let flushes = matches!(op.work, Work::Flush) && !matches!(op.state, State::Ending(_));
            flushes && is_its(op.association)
        });
        let keys: alloc::vec::Vec<Key> = flushes.map(|(key, _)| key).collect();
        for key in keys.into_iter().chain([key]) {
            self.conclude(key, status);
        }
    }
}

/// Commands to replicas for which there must be room before a host's command is admitted, for what
/// an owner needs for itself: to each replica one of 9 kinds, and deletions of snapshots, as a
/// member and as a joiner; twice, because those on an association that was left may end late.
pub(crate) const CALLS_KEPT: usize = 2 * REPLICAS_MAX * (9 + 2 * DROPS_MAX);

/// Adds a host to those that were told, if there is room.
pub(crate) fn tell(told: &mut arrayvec::ArrayVec<Uuid, TOLD_MAX>, host: Uuid) {
    if !told.contains(&host) && !told.is_full() {
        told.push(host);
    }
}
