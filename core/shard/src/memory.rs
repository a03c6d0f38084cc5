//! Who may have how much of the arena, and who waits for it.
//!
//! Invariants:
//! 1. A quarter of what commands can have is never given to hosts': it serves replicas, whose
//!    commands wait for no other engine.
//! 2. One connection's commands pin at most an eighth of the arena, one host's at most a half.
//! 3. Who waits holds nothing.
//! 4. Where a shard has replicas or volumes, it keeps two buffers of last resort: one for commands
//!    of nexuses, one for those of hosts. Whoever has waited longest gets it, so that two engines
//!    that mirror to each other never wait in a circle, whatever else is spent.
//! 5. A buffer that is kept for a use comes back to that very use: it is known by its name. If any
//!    other one took its place, those that are kept would in time lie in every large piece of the
//!    arena, and none of those would ever be whole.

use braid_block::{Class, Instant, Key, Lease, LeaseId, Memory};

use crate::Shard;
use crate::op::State;

/// Buffers that only admin commands get, in arenas of 4 MiB and more.
pub(crate) const ADMIN_LEASES: usize = 16;
/// Bytes of arena for each of them, in smaller ones.
const ARENA_PER_ADMIN: u64 = 256 << 10;
/// What a pool keeps for its journal, its pages and a last resort, about.
const POOL_BYTES: u64 = 336 << 10;
/// What a connection keeps.
const CONNECTION_BYTES: u64 = 24 << 10;
/// The receive buffers and what else is no command's take at most one of so many parts.
const APART: u64 = 8;

/// A buffer of last resort.
#[derive(Debug)]
pub(crate) struct Spare {
    class: Class,
    /// Its name, once there is one.
    id: Option<LeaseId>,
    /// It, unless a command has it.
    lease: Option<Lease>,
}

impl Spare {
    pub(crate) const fn new(class: Class) -> Self {
        Self { class, id: None, lease: None }
    }

    /// Gets one, if it has none yet.
    pub(crate) fn keep<M: Memory>(&mut self, mem: &mut M) {
        if self.id.is_none() {
            self.lease = mem.alloc(self.class);
            self.id = self.lease.as_ref().map(Lease::id);
        }
    }

    /// Lends it, if it is there.
    pub(crate) fn take(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Takes it back; any other one is handed back.
    pub(crate) fn is_back(&mut self, lease: Lease) -> Result<(), Lease> {
        if self.id != Some(lease.id()) {
            return Err(lease);
        }
        self.lease = Some(lease);
        Ok(())
    }
}

impl Shard {
    /// Keeps what only admin commands get.
    pub(crate) fn keep_admin_leases<M: Memory>(&mut self, mem: &mut M) {
        let count = self.config.limits.arena_bytes / ARENA_PER_ADMIN;
        let count = usize::try_from(count).unwrap_or(ADMIN_LEASES).clamp(1, ADMIN_LEASES);
        while self.admin_leases.len() < count {
            let Some(lease) = mem.alloc(Class::Medium) else { break };
            self.admin_names.push(lease.id());
            self.admin_leases.push(lease);
        }
    }

    /// Keeps buffers of last resort where commands may wait for another engine.
    pub(crate) fn keep_spares<M: Memory>(&mut self, mem: &mut M) {
        if self.volumes.len() > 0 || !self.members.is_empty() {
            self.spares.iter_mut().for_each(|spare| spare.keep(mem));
        }
    }

    /// Gives back what the shard keeps.
    pub(crate) fn drop_kept<M: Memory>(&mut self, mem: &mut M) {
        let spares = self.spares.iter_mut().filter_map(Spare::take);
        spares.chain(self.admin_leases.drain(..)).for_each(|lease| mem.free(lease));
    }

    /// Bytes that hosts' commands may hold together: three quarters of what is left when all have
    /// what they keep, and two large buffers in any case.
    fn hosts_bytes_max(&self) -> u64 {
        let arena = self.config.limits.arena_bytes;
        let conns = self.conns.len() as u64 * CONNECTION_BYTES;
        let kept = arena / APART + conns + self.pools.len() as u64 * POOL_BYTES;
        let left = arena.saturating_sub(kept);
        (left - left / 4).max(2 * u64::from(Class::Large.bytes()))
    }

    /// A buffer for a command of this connection, within its share; `waited`: nobody has waited
    /// for one longer, so that it may be the last resort.
    pub(crate) fn lease<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        len: u32,
        waited: bool,
    ) -> Option<Lease> {
        let class = Class::holding(len)?;
        let bytes = u64::from(class.bytes());
        let arena = self.config.limits.arena_bytes;
        let hosts_max = self.hosts_bytes_max();
        let queue = self.conns.get_mut(key).and_then(|conn| conn.queue_mut())?;
        // The first buffer is always within the share, however small the arena.
        let over = queue.pinned > 0 && queue.pinned + bytes > arena / 8;
        let (share, member) = (queue.share, queue.member);
        let hosts = self.shares.pinned(share);
        if !over && !member && hosts > 0 && hosts + bytes > arena / 2 {
            self.counters.host_buffer_waits += 1;
            return None;
        }
        if over {
            return None;
        }
        let spared = !member && self.pinned + bytes > hosts_max;
        let lease = if spared { None } else { mem.alloc(class) };
        let spare = &mut self.spares[usize::from(member)];
        let last = || if waited { spare.take() } else { None };
        let lease = lease.or_else(last)?;
        let bytes = u64::from(mem.capacity(&lease));
        queue.pinned += bytes;
        self.shares.pin(share, bytes);
        self.pinned += bytes;
        Some(lease)
    }

    /// The connection's own buffer, unless it is in use.
    pub(crate) fn take_reserve<M: Memory>(&mut self, mem: &M, key: Key) -> Option<Lease> {
        let conn = self.conns.get_mut(key)?;
        let lease = conn.reserve.take()?;
        let bytes = u64::from(mem.capacity(&lease));
        self.pinned += bytes;
        if let Some(queue) = conn.queue_mut() {
            queue.pinned += bytes;
            self.shares.pin(queue.share, bytes);
        }
        Some(lease)
    }

    /// One of the buffers that only admin commands get, so that a host is heard under any load.
    pub(crate) fn admin_lease<M: Memory>(&mut self, mem: &M, key: Key, len: u32) -> Option<Lease> {
        if len > Class::Medium.bytes() {
            return None;
        }
        let lease = self.admin_leases.pop()?;
        let bytes = u64::from(mem.capacity(&lease));
        self.pinned += bytes;
        if let Some(queue) = self.conns.get_mut(key).and_then(|conn| conn.queue_mut()) {
            queue.pinned += bytes;
            self.shares.pin(queue.share, bytes);
        }
        Some(lease)
    }

    /// Ends the use of a command's buffer, which goes back to where it is kept, if it is.
    pub(crate) fn give_back<M: Memory>(&mut self, mem: &mut M, key: Key, lease: Lease) {
        let bytes = u64::from(mem.capacity(&lease));
        self.pinned = self.pinned.saturating_sub(bytes);
        self.freed = true;
        if let Some(conn) = self.conns.get_mut(key) {
            if let Some(queue) = conn.queue_mut() {
                queue.pinned = queue.pinned.saturating_sub(bytes);
                self.shares.unpin(queue.share, bytes);
            }
            if conn.own == Some(lease.id()) {
                conn.reserve = Some(lease);
                return;
            }
        }
        if bytes == u64::from(Class::Medium.bytes()) && self.admin_names.contains(&lease.id()) {
            return self.admin_leases.push(lease);
        }
        let [hosts, nexuses] = &mut self.spares;
        if let Err(lease) = hosts.is_back(lease).or_else(|lease| nexuses.is_back(lease)) {
            mem.free(lease);
        }
    }

    /// Lets an op wait for a buffer of `len` bytes.
    pub(crate) fn wait_for_buffer(&mut self, key: Key, len: u32) {
        if let Some(op) = self.ops.get_mut(key) {
            op.state = State::Waiting(len);
            self.waiting.push_back(key);
            self.counters.buffer_waits += 1;
        }
    }

    /// Serves those who wait, oldest first; who is over its share waits on without holding up
    /// the others.
    pub(crate) fn serve_waiting<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if !core::mem::take(&mut self.freed) {
            return;
        }
        for _ in 0..self.starving.len() {
            let Some(key) = self.starving.pop_front() else { break };
            if let Some(queue) = self.conns.get_mut(key).and_then(|conn| conn.queue_mut()) {
                queue.starving = false;
                self.run(mem, now, key);
            }
        }
        for _ in 0..self.waiting.len() {
            let Some(key) = self.waiting.pop_front() else { break };
            let Some(op) = self.ops.get(key) else { continue };
            let State::Waiting(len) = op.state else { continue };
            if !self.outbox.has_room() {
                self.waiting.push_front(key);
                self.freed = true;
                break;
            }
            match self.buffer_for(mem, key, len, true) {
                Some(lease) => self.on_buffer(mem, now, key, lease),
                None => self.waiting.push_back(key),
            }
        }
    }
}
