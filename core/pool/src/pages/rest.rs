//! Letting go of what can be read again: after a time without work, and above a limit.
//!
//! Invariants:
//! 1. A leaf stays that differs from its page, has a region that is being written, was opened and
//!    not closed in this incarnation, was changed since a Clean was asked for that is in work, is
//!    to be cleaned once it is adopted, or is not adopted and was written in this incarnation: of
//!    none of these the page knows all.
//! 2. A directory stays as long as one of its leaves does: it says where they are written.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use braid_block::Instant;

use crate::layout::POINTERS_PER_PAGE;
use crate::map::{Leaf, Touch};
use crate::region::Regions;
use crate::{Pool, State};

/// When things were let go or read last, and what stayed.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    at: Instant,
    /// When a page came into memory last: background work that reads pages needs them.
    read: Instant,
    /// Pages that stayed then.
    kept: usize,
    /// Leaves at which the next try to get below the limit is worth it.
    try_at: usize,
}

impl Rest {
    /// A page came into memory.
    pub(super) const fn on_read(&mut self, now: Instant) {
        self.read = now;
    }

    /// A checkpoint has ended: what had to stay may go now.
    pub(crate) const fn try_again(&mut self) {
        (self.try_at, self.kept) = (0, 0);
    }
}

impl Pool {
    /// Lets go of what is due.
    pub(super) fn rest_on(&mut self, now: Instant) {
        let most = self.config.limits.leaves_max as usize;
        let leaves = self.store.map.leaves.len();
        if leaves > most && leaves >= self.fetches.rest.try_at {
            self.let_oldest_go(most);
        }
        if self.pages_due().is_some_and(|due| due <= now) {
            self.let_all_go();
            self.fetches.rest.at = now;
            self.fetches.rest.kept = self.pages_in_memory();
        }
    }

    /// When pages that nobody used for a while are let go.
    pub(crate) fn pages_due(&self) -> Option<Instant> {
        let quiet = self.state == State::Open && self.ops.is_empty();
        let rest = &self.fetches.rest;
        let due = || self.busy.max(rest.at).max(rest.read) + self.config.limits.idle;
        (quiet && self.pages_in_memory() != rest.kept).then(due)
    }

    /// Pages in memory that could be let go.
    fn pages_in_memory(&self) -> usize {
        let map = &self.store.map;
        map.leaves.len() + map.directories.len() + self.store.sums.pages()
    }

    fn let_all_go(&mut self) {
        let (before, regions) = (self.fetches.unclean_before, &self.regions);
        let map = &mut self.store.map;
        map.leaves.retain(|_, leaf| !can_go(leaf, before, regions));
        let needed: BTreeSet<(u32, u32)> = map.leaves.keys().map(directory_of).collect();
        map.directories.retain(|key, page| page.is_dirty() || needed.contains(key));
        map.leaves.shrink_to_fit();
        map.directories.shrink_to_fit();
        map.chains.forget();
        self.store.sums.release();
        self.store.changed.shrink_to_fit();
        self.checkpoint.release();
        self.fetches.lists = Vec::new();
    }

    /// Lets go of the leaves that were not used for longest, some more than needed so that this is
    /// done rarely.
    fn let_oldest_go(&mut self, most: usize) {
        let (before, turn) = (self.fetches.unclean_before, self.turn);
        let leaves = &mut self.store.map.leaves;
        let slack = most / 16;
        let mut old: Vec<(u32, (u32, u32))> = leaves
            .iter()
            .filter(|(_, leaf)| can_go(leaf, before, &self.regions))
            .map(|(key, leaf)| (turn.wrapping_sub(leaf.used), *key))
            .filter(|(age, _)| *age > FRESH_TURNS)
            .collect();
        let surplus = (leaves.len() - most + slack).min(old.len());
        if surplus > 0 {
            old.select_nth_unstable_by(surplus - 1, |a, b| b.cmp(a));
        }
        for (_, key) in &old[..surplus] {
            leaves.remove(key);
        }
        self.fetches.rest.try_at = leaves.len() + slack.max(1);
    }
}

/// The directory of a leaf.
const fn directory_of(leaf: &(u32, u32)) -> (u32, u32) {
    (leaf.0, leaf.1 / POINTERS_PER_PAGE as u32)
}

/// Whether a leaf's page knows all that the leaf does.
pub(super) fn can_go(leaf: &Leaf, unclean_before: u64, regions: &Regions) -> bool {
    let opened = leaf.page.get().open & !leaf.unadopted != 0;
    let rewritten = leaf.unadopted != 0 && leaf.page.lsn() >= unclean_before;
    let touched = |one: &Touch| one.writes != 0 || regions.is_newer(one);
    let touched = leaf.regions.as_ref().is_some_and(|all| all.iter().any(touched));
    let waits = touched || leaf.cleaned != 0;
    !leaf.page.is_dirty() && !opened && !rewritten && !waits
}

/// Leaves used so few turns ago are in use: who waited for one must find it.
const FRESH_TURNS: u32 = 2;
