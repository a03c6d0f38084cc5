//! Who may have how much of the arena, and who waits for it.
//!
//! Invariants:
//! 1. A quarter of the arena is never given to hosts' commands: it serves replicas, whose commands
//!    wait for no other engine, so that two engines that mirror to each other never wait in a
//!    circle.
//! 2. One connection's commands pin at most an eighth of it, one host's at most a half.
//! 3. Who waits holds nothing.

use braid_block::{Class, Instant, Key, Lease, Memory};

use crate::Shard;
use crate::op::State;

/// Buffers that only admin commands get.
pub(crate) const ADMIN_LEASES: usize = 16;

impl Shard {
    /// A buffer for a command of this connection, within its share.
    pub(crate) fn lease<M: Memory>(&mut self, mem: &mut M, key: Key, len: u32) -> Option<Lease> {
        let class = Class::holding(len)?;
        let bytes = u64::from(class.bytes());
        let arena = self.config.limits.arena_bytes;
        let queue = self.conns.get_mut(key).and_then(|conn| conn.queue_mut())?;
        // The first buffer is always within the share, however small the arena.
        let over = queue.pinned > 0 && queue.pinned + bytes > arena / 8;
        let (share, member) = (queue.share, queue.member);
        let hosts = self.shares.pinned(share);
        if !over && !member && hosts > 0 && hosts + bytes > arena / 2 {
            self.counters.host_buffer_waits += 1;
            return None;
        }
        let spared = if queue.member { 0 } else { arena / 4 };
        if over || self.pinned + bytes > arena - spared {
            return None;
        }
        let lease = mem.alloc(class)?;
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

    /// Ends the use of a command's buffer, which first refills its connection's own, for without
    /// that its in-capsule data may wait for what others hold, then the admin commands'.
    pub(crate) fn give_back<M: Memory>(&mut self, mem: &mut M, key: Key, lease: Lease) {
        let bytes = u64::from(mem.capacity(&lease));
        self.pinned = self.pinned.saturating_sub(bytes);
        self.freed = true;
        let medium = bytes == u64::from(Class::Medium.bytes());
        if let Some(conn) = self.conns.get_mut(key) {
            if let Some(queue) = conn.queue_mut() {
                queue.pinned = queue.pinned.saturating_sub(bytes);
                self.shares.unpin(queue.share, bytes);
            }
            if medium && conn.reserve.is_none() {
                conn.reserve = Some(lease);
                return;
            }
        }
        if medium && self.admin_leases.len() < ADMIN_LEASES {
            self.admin_leases.push(lease);
        } else {
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
            match self.buffer_for(mem, key, len) {
                Some(lease) => self.on_buffer(mem, now, key, lease),
                None => self.waiting.push_back(key),
            }
        }
    }
}
