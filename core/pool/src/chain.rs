//! What the layers below a head have of a cluster, remembered: a warm chain costs one look-up,
//! however long it is.
//!
//! Invariants:
//! 1. Only sealed layers are remembered; they change by reclaim alone, which begins a new age
//!    ([`Chains::age`]).
//! 2. The table has a fixed size; a newer entry takes the place of an older one.

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::hash::mix;

/// Entries of the table: 16 GiB of a chain.
const ENTRIES: usize = 1 << 16;
/// Layers that own a part of one cluster; more are looked up each time.
const OWNERS: usize = 4;

/// Blocks of a cluster that one layer owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) blocks: u64,
    pub(crate) phys: u32,
    pub(crate) layer: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    age: u32,
    layer: u32,
    lcluster: u32,
    owners: ArrayVec<Owner, OWNERS>,
}

/// The table, made when the first chain is looked up.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    entries: Vec<Option<Entry>>,
    /// Entries of an earlier age are of no use.
    age: u32,
}

impl Chains {
    fn at(layer: u32, lcluster: u32) -> usize {
        // Neighbours have places of their own, so that a range as large as the table fits in it.
        (mix(u64::from(layer), 0) as usize).wrapping_add(lcluster as usize) % ENTRIES
    }

    /// Who owns blocks of a cluster, from this sealed layer down.
    pub(crate) fn get(&self, layer: u32, lcluster: u32) -> Option<&[Owner]> {
        let entry = self.entries.get(Self::at(layer, lcluster))?.as_ref()?;
        let fits = entry.age == self.age && entry.layer == layer && entry.lcluster == lcluster;
        fits.then_some(&entry.owners)
    }

    /// Remembers it.
    pub(crate) fn put(&mut self, layer: u32, lcluster: u32, owners: &[Owner]) {
        let Ok(owners) = ArrayVec::try_from(owners) else { return };
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES, None);
        }
        self.entries[Self::at(layer, lcluster)] =
            Some(Entry { age: self.age, layer, lcluster, owners });
    }

    /// A sealed layer has changed: what is remembered counts no more.
    pub(crate) const fn age(&mut self) {
        self.age = self.age.wrapping_add(1);
    }

    /// Forgets everything: memory is wanted.
    pub(crate) fn forget(&mut self) {
        self.entries = Vec::new();
    }

    /// Bytes of memory.
    pub(crate) const fn memory(&self) -> usize {
        self.entries.len() * size_of::<Option<Entry>>()
    }
}
