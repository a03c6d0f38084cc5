//! For whoever rehearses failures with whole shards: other times of the protocol, a rule that is
//! switched off, and what replicas have done. An engine uses none of it.
//!
//! Invariants:
//! 1. Where nobody watches, nothing is copied and nothing is kept.
//! 2. A change is told when the pool has carried it out, before anybody is answered.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Key, Memory};
use braid_nexus::guard::{Kept, View};
use braid_nexus::record::Uuid;
use braid_nexus::{Copying, Plant, Timing};
use braid_pool::Work;

use super::arrivals::Sender;
use crate::Shard;
use crate::event::Socket;

/// How a shard's replicas and volumes are to behave in a rehearsal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rehearsal {
    /// Times of the protocol, as its replicas keep them.
    pub timing: Timing,
    /// A rule that its replicas and volumes break.
    pub plant: Option<Plant>,
    /// Whether [`Shard::member_deed`] tells what replicas have done.
    pub watches: bool,
}

/// What a replica has done, or what became of a host's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A range was written, or zeroed.
    Changed {
        /// Which replica.
        replica: Uuid,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// What was written; none: zeros.
        bytes: Option<Box<[u8]>>,
    },
    /// A host's command, which may have waited for a buffer, is its volume's now, or a further part
    /// of it is.
    Taken {
        /// By which stream it came.
        socket: Socket,
        /// What its host calls it.
        cid: u16,
    },
    /// Marks were cleared.
    Cleaned {
        /// Which replica.
        replica: Uuid,
    },
}

/// Deeds that are on their way, and those that were done.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) plan: Rehearsal,
    begun: Vec<(Key, Deed)>,
    done: VecDeque<Deed>,
}

impl Stage {
    pub(super) fn begins(&mut self, key: Key, deed: Deed) {
        if self.plan.watches {
            self.begun.push((key, deed));
        }
    }

    /// What was begun under this key ended.
    pub(super) fn ends(&mut self, key: Key, well: bool) {
        if self.begun.is_empty() {
            return;
        }
        if let Some(at) = self.begun.iter().position(|(of, _)| *of == key) {
            let (_, deed) = self.begun.swap_remove(at);
            if well {
                self.done.push_back(deed);
            }
        }
    }
}

impl Shard {
    /// From now on replicas whose pools are opened, and volumes that are added, behave so.
    pub fn rehearse(&mut self, plan: Rehearsal) {
        self.members.stage.plan = plan;
    }

    /// The next thing that replicas and volumes of this shard have done, if that is watched.
    pub fn member_deed(&mut self) -> Option<Deed> {
        self.members.stage.done.pop_front()
    }

    /// Where the guard of a replica stands, and what the replica keeps of its record.
    #[must_use]
    pub fn member_view(&self, replica: &Uuid) -> Option<(View, Option<Kept>)> {
        let (pool, handle, view) = self.members.look_up(replica)?;
        let bearing = self.pool(pool).and_then(|pool| pool.bearing(handle));
        let record = bearing.and_then(|bearing| bearing.record);
        Some((view, record.and_then(|record| Kept::decode(&record).ok())))
    }

    /// Where the guard of a replica stands.
    #[must_use]
    pub fn member_guard(&self, replica: &Uuid) -> Option<View> {
        self.members.look_up(replica).map(|(.., view)| view)
    }

    /// What a volume of this shard copies from member to member.
    #[must_use]
    pub fn volume_copies(&self, id: &Uuid) -> Vec<Copying> {
        self.volume(id).map_or_else(Vec::new, |volume| volume.copies().collect())
    }

    /// Whether a volume's paths by this shard are optimized.
    #[must_use]
    pub fn volume_is_optimized(&self, id: &Uuid) -> bool {
        self.volume(id).is_some_and(braid_nexus::Volume::is_optimized)
    }

    /// A volume is asked for what a host's command needs.
    pub(super) fn stage_taken(&mut self, key: Key) {
        if !self.members.stage.plan.watches {
            return;
        }
        let Some(op) = self.ops.get(key) else { return };
        if let Some(conn) = self.conns.get(op.conn) {
            self.members.stage.done.push_back(Deed::Taken { socket: conn.socket, cid: op.cid });
        }
    }

    /// A pool is asked for something by a guard.
    pub(super) fn stage_request<M: Memory>(&mut self, mem: &M, key: Key, work: &Work) {
        if !self.members.stage.plan.watches {
            return;
        }
        let Some((replica, from)) = self.members.sender(key) else { return };
        let deed = match *work {
            Work::Write { offset, len, .. } => {
                let bytes = match from {
                    Sender::Op(op) => {
                        let lease = self.ops.get(op).and_then(|op| op.lease.as_ref());
                        lease.map(|lease| &mem.bytes(lease)[..len as usize])
                    }
                    Sender::Volume { span, .. } => span.map(|span| {
                        let lease = braid_block::Lease::new(span.lease);
                        &mem.bytes(&lease)[..len as usize]
                    }),
                };
                let Some(bytes) = bytes else { return };
                Deed::Changed { replica, offset, len: len.into(), bytes: Some(bytes.into()) }
            }
            Work::Zero { offset, len, .. } => Deed::Changed { replica, offset, len, bytes: None },
            _ => return,
        };
        self.members.stage.begins(key, deed);
    }
}
