//! Buffers for pages, a few of them never lent to anybody else.

use alloc::vec::Vec;

use braid_block::{Class, Lease, Memory};

/// Buffers that are kept, so that pages can move when hosts hold all others.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    kept: Vec<Lease>,
}

impl Buffers {
    /// Keeps as many as it should; tells whether it has one at all.
    pub(crate) fn fill<M: Memory>(&mut self, mem: &mut M) -> bool {
        while self.kept.len() < KEPT
            && let Some(lease) = mem.alloc(Class::Medium)
        {
            self.kept.push(lease);
        }
        !self.kept.is_empty()
    }

    /// A buffer for a page or a pair, for as long as one transfer takes.
    pub(crate) fn take<M: Memory>(&mut self, mem: &mut M) -> Option<Lease> {
        mem.alloc(Class::Medium).or_else(|| self.kept.pop())
    }

    /// Gives a buffer back.
    pub(crate) fn give<M: Memory>(&mut self, mem: &mut M, lease: Lease) {
        if self.kept.len() < KEPT {
            self.kept.push(lease);
        } else {
            mem.free(lease);
        }
    }

    /// Gives back what is kept.
    pub(crate) fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        for lease in self.kept.drain(..) {
            mem.free(lease);
        }
    }
}

/// Buffers that are kept: one would do, some more let pages overtake a slow one.
const KEPT: usize = 4;
