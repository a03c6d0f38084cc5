//! Freed clusters on their way back: settled, out of every read, discarded, then free.

use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Instant, Key, Memory, Slab};

use super::trim::EARLIER;
use crate::effect::Effect;
use crate::layout::CLUSTER;
use crate::op::Waiter;
use crate::{Pool, State, token};

/// Discards in flight.
const DISCARDS_MAX: u32 = 4;
/// Clusters of one discard: 64 MiB.
const CLUSTERS_MAX: u32 = 256;
/// Clusters let go in a turn.
const RELEASES: usize = 512;
/// So many clusters in quarantine are settled though nobody wants space.
const MANY: u64 = 1024;
/// After so long they are settled in any case.
const OLD: Duration = Duration::from_secs(5);

/// Neighbours that are being discarded.
#[derive(Debug)]
struct Discard {
    first: u32,
    count: u32,
    /// Lowest journal block of a Free of them.
    seq: u64,
}

/// What happens to the quarantine; what is in it, `Space` knows.
#[derive(Debug)]
pub(super) struct Quarantine {
    discards: Slab<Discard>,
    /// Somebody found no space.
    wanted: bool,
    /// Those who found none wait for everything that was freed up to this journal block.
    until: Option<u64>,
    /// Since when something unsettled is in it.
    since: Option<Instant>,
}

impl Default for Quarantine {
    fn default() -> Self {
        let discards = Slab::with_capacity(DISCARDS_MAX);
        Self { discards, wanted: false, until: None, since: None }
    }
}

impl Quarantine {
    /// Whether something that an earlier run left is being discarded.
    pub(super) fn has_earlier(&self) -> bool {
        self.discards.iter().any(|(_, discard)| discard.seq == EARLIER)
    }
}

impl Pool {
    /// Space is wanted: what is in quarantine is to come out as soon as it can.
    pub(crate) fn space_wanted(&mut self) {
        self.reclaim.quarantine.wanted = true;
    }

    /// Lets go of what is ready, asks for what the rest waits for, and wakes who waits for space.
    pub(super) fn quarantine_on(&mut self, now: Instant) {
        let newest = self.store.space.quarantine.back().map(|freed| freed.seq);
        let quarantine = &mut self.reclaim.quarantine;
        if quarantine.until.is_none() && (quarantine.wanted || !self.hungry.is_empty()) {
            quarantine.wanted = false;
            quarantine.until = Some(newest.unwrap_or(0));
        }
        self.let_out();
        let settled = self.sync.settled();
        let waits = self.store.space.quarantine.front().is_some_and(|freed| freed.seq > settled);
        let quarantine = &mut self.reclaim.quarantine;
        quarantine.since = if waits { quarantine.since.or(Some(now)) } else { None };
        let old = quarantine.since.is_some_and(|since| now.since(since) >= OLD);
        let many = self.store.space.quarantined() >= MANY;
        if let (Some(newest), true) = (newest, old || many || quarantine.until.is_some()) {
            self.sync.want_settled(newest);
        }
        self.wake_hungry(now);
    }

    /// When the quarantine is old.
    pub(super) fn quarantine_due(&self) -> Option<Instant> {
        let open = self.state == State::Open;
        self.reclaim.quarantine.since.filter(|_| open).map(|since| since + OLD)
    }

    /// Takes clusters out that nothing holds back any more.
    fn let_out(&mut self) {
        let discards = self.config.device.discards && self.state == State::Open;
        let settled = self.sync.settled();
        let mut out = Vec::new();
        while out.len() < RELEASES && !(discards && self.reclaim.quarantine.discards.is_full()) {
            let Some(freed) = self.store.space.quarantine.front().copied() else { break };
            if self.store.space.is_newest(&freed) {
                while !self.reads.is_over(freed.epoch) && self.reads.advance() {}
                if freed.seq > settled || !self.reads.is_over(freed.epoch) {
                    break;
                }
                out.push((freed.cluster, freed.seq));
            }
            self.store.space.quarantine.pop_front();
        }
        if discards {
            return self.discard(out);
        }
        if self.config.device.discards && !out.is_empty() {
            self.reclaim.trim.missed();
        }
        if out.len() == RELEASES {
            self.again();
        }
        for (cluster, _) in out {
            self.store.space.release(cluster);
        }
    }

    /// Discards clusters, neighbours together; what finds no room goes back.
    fn discard(&mut self, mut out: Vec<(u32, u64)>) {
        out.sort_unstable();
        let mut rest = out.as_slice();
        while let Some((first, seq)) = rest.first().copied() {
            let offset = self.store.layout.cluster(first);
            let count = (0..CLUSTERS_MAX).zip(rest).take_while(|(n, (cluster, _))| {
                let there = offset + u64::from(*n) * CLUSTER;
                *cluster == first + n && self.store.layout.cluster(*cluster) == there
            });
            let count = count.count();
            let seq = rest[..count].iter().map(|(_, seq)| *seq).min().unwrap_or(seq);
            let number = u32::try_from(count).unwrap_or(u32::MAX);
            if !self.discard_run(first, number, seq) {
                break;
            }
            rest = &rest[count..];
        }
        // In the order of their Frees, before those that are there.
        let mut back = rest.to_vec();
        back.sort_unstable_by_key(|(_, seq)| *seq);
        let epoch = self.reads.epoch().saturating_sub(2);
        for (cluster, seq) in back.into_iter().rev() {
            self.store.space.quarantine.push_front(crate::space::Freed { cluster, seq, epoch });
        }
    }

    /// Discards neighbours; false if there is no room for another discard.
    pub(super) fn discard_run(&mut self, first: u32, count: u32, seq: u64) -> bool {
        let discard = Discard { first, count, seq };
        let Ok(key) = self.reclaim.quarantine.discards.insert(discard) else { return false };
        self.store.space.discarding += count;
        self.counters.device_discards += 1;
        let (token, len) = (self.token(token::DISCARD, key), u64::from(count) * CLUSTER);
        let offset = self.store.layout.cluster(first);
        self.emit(Effect::Discard { token, offset, len });
        true
    }

    /// A discard is done, whatever came of it.
    pub(crate) fn on_discarded<M: Memory>(&mut self, _mem: &mut M, now: Instant, key: Key) {
        let Some(discard) = self.reclaim.quarantine.discards.remove(key) else { return };
        if discard.seq == EARLIER {
            self.reclaim.trim.ended(now);
        }
        self.store.space.discarding -= discard.count;
        for cluster in discard.first..discard.first + discard.count {
            self.store.space.release(cluster);
        }
    }

    /// Lets those go on who found no space, once all is out that was in quarantine then.
    fn wake_hungry(&mut self, now: Instant) {
        let Some(until) = self.reclaim.quarantine.until else { return };
        let waits = self.store.space.quarantine.front().is_some_and(|freed| freed.seq <= until);
        let discarding =
            self.reclaim.quarantine.discards.iter().any(|(_, discard)| discard.seq <= until);
        if waits || discarding {
            return;
        }
        self.reclaim.quarantine.until = None;
        if !self.hungry.is_empty() {
            self.reclaim.trim.give_way(now);
        }
        while let Some(key) = self.hungry.pop_front() {
            self.ready.push_back(Waiter::Piece(key));
        }
    }
}
