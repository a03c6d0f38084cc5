//! The return of a replica.

use alloc::boxed::Box;

use braid_block::{Instant, Memory};

use crate::wire::Fenced;
use crate::{Failure, Uuid};

use super::Volume;

impl Volume {
    pub(crate) fn bring_back(&mut self, now: Instant, tag: u64, replica: &Uuid) {
        let _ = (now, replica);
        self.end(tag, Err(Failure::NotFound));
    }

    pub(crate) fn joiner_failed(&mut self, now: Instant) {
        let _ = now;
    }

    pub(crate) fn joiner_fenced(&mut self, now: Instant, fenced: Box<Fenced>) {
        let _ = (now, fenced);
    }

    /// A joiner that gets writes, but is not being added, begins anew: members are about to
    /// change what it would have to have.
    pub(crate) fn detach(&mut self, now: Instant) {
        let attached = |joiner: &super::state::Joiner| joiner.attached && !joiner.adding;
        let joiner = self.nexus.as_ref().and_then(|nexus| nexus.joiner.as_ref());
        if joiner.is_some_and(attached) {
            self.joiner_failed(now);
        }
    }

    pub(crate) fn comeback_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let _ = (mem, now);
    }

    pub(crate) fn comeback_due(&self) -> Option<Instant> {
        None
    }
}
