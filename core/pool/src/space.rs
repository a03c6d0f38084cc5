//! Which clusters are free, and which may be used again.
//!
//! Invariants:
//! 1. A bit is set from the Alloc cell to the Free cell; the bitmap pages follow the journal.
//! 2. A freed cluster is in quarantine, and not handed out, until its Free is settled, no read of
//!    it is in flight, and it was discarded where that is done.
//! 3. `available` never counts what is reserved for metadata or promised to thick replicas.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::geometry::Layout;
use crate::hash::Fixed;
use crate::layout::{BITMAP_WORDS, Cell};
use crate::paged::Paged;

/// A bitmap of a slab.
pub(crate) type Bits = Box<[u64; BITMAP_WORDS]>;

/// A slab in memory.
#[derive(Debug)]
pub(crate) struct Slab {
    /// Clusters in use.
    pub(crate) bits: Paged<Bits>,
    /// Clusters of pages.
    pub(crate) maps: Paged<Bits>,
    /// Clusters that it has.
    pub(crate) clusters: u32,
    /// Of these, bits set.
    pub(crate) used: u32,
}

impl Slab {
    /// A slab of which nothing is in use.
    pub(crate) fn new(clusters: u32) -> Self {
        let empty = || Paged::new(Box::new([0; BITMAP_WORDS]));
        Self { bits: empty(), maps: empty(), clusters, used: 0 }
    }
}

/// A freed cluster on its way back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freed {
    pub(crate) cluster: u32,
    /// Journal block of its Free.
    pub(crate) seq: u64,
    /// Epoch of reads in which it was freed: see `Reads`.
    pub(crate) epoch: u64,
}

/// What a search for free neighbours found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Free {
    /// These, side by side on the device.
    Run { first: u32, count: u32 },
    /// None up to this cluster; there are more behind.
    NoneTo(u32),
    /// None up to the end.
    End,
}

/// All clusters.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) slabs: Vec<Slab>,
    slab_clusters: u32,
    /// Clusters of all slabs.
    pub(crate) total: u64,
    /// Bits set.
    pub(crate) used: u64,
    /// Of these, clusters of pages.
    pub(crate) maps: u64,
    /// Freed clusters that may not be used yet, in the order of their Frees.
    pub(crate) quarantine: VecDeque<Freed>,
    /// The same by cluster; a cluster freed twice is here once, and its older entry is stale.
    held: HashMap<u32, u64, Fixed>,
    /// Clusters that are being discarded, still held.
    pub(crate) discarding: u32,
    /// Clusters kept for metadata and merges.
    pub(crate) reserve: u64,
    /// Clusters that thick heads have set aside and not used.
    pub(crate) promised: u64,
    /// Clusters kept for writes of several pieces.
    pub(crate) granted: u64,
    /// Where the next search begins.
    cursor: u32,
}

impl Space {
    /// A pool in which nothing is in use.
    pub(crate) fn new(layout: &Layout, reserve: u64) -> Self {
        let slabs: Vec<Slab> = layout.slabs.iter().map(|place| Slab::new(place.clusters)).collect();
        Self {
            slabs,
            slab_clusters: layout.slab_clusters,
            total: layout.clusters(),
            used: 0,
            maps: 0,
            quarantine: VecDeque::new(),
            held: HashMap::with_hasher(Fixed),
            discarding: 0,
            reserve,
            promised: 0,
            granted: 0,
            cursor: 0,
        }
    }

    /// The pool has more slabs now, and keeps more for itself.
    pub(crate) fn grow(&mut self, layout: &Layout, reserve: u32) {
        let new = layout.slabs.iter().skip(self.slabs.len());
        self.slabs.extend(new.map(|place| Slab::new(place.clusters)));
        self.total = layout.clusters();
        self.reserve = self.reserve.max(u64::from(reserve));
    }

    /// Slab of a cluster, word and bit; `None` if there is no such cluster.
    fn place(&self, cluster: u32) -> Option<(usize, usize, u64)> {
        let (slab, at) = (cluster / self.slab_clusters, cluster % self.slab_clusters);
        let held = self.slabs.get(slab as usize)?;
        (at < held.clusters).then_some((slab as usize, (at / 64) as usize, 1 << (at % 64)))
    }

    /// Whether a cluster is in use.
    pub(crate) fn is_used(&self, cluster: u32) -> bool {
        self.place(cluster).is_some_and(|(s, w, bit)| self.slabs[s].bits.get()[w] & bit != 0)
    }

    /// Whether a cluster holds pages.
    pub(crate) fn is_map(&self, cluster: u32) -> bool {
        self.place(cluster).is_some_and(|(s, w, bit)| self.slabs[s].maps.get()[w] & bit != 0)
    }

    /// The first cluster from this one on that holds pages.
    pub(crate) fn map_from(&self, cluster: u32) -> Option<u32> {
        let (first, mut at) = (cluster / self.slab_clusters, cluster % self.slab_clusters);
        for (s, slab) in (0u32..).zip(&self.slabs).skip(first as usize) {
            while at < slab.clusters {
                let word = slab.maps.get()[(at / 64) as usize] >> (at % 64);
                if word != 0 {
                    return Some(s * self.slab_clusters + at + word.trailing_zeros());
                }
                at = (at / 64 + 1) * 64;
            }
            at = 0;
        }
        None
    }

    /// Sets or clears the bit of a cluster, if cells of journal block `seq` are not in its page;
    /// tells the slab whose page is to be listed as changed.
    pub(crate) fn mark(&mut self, seq: u64, cluster: u32, set: bool) -> Option<u32> {
        let (s, w, bit) = self.place(cluster)?;
        let slab = &mut self.slabs[s];
        if !slab.bits.takes(seq) {
            return None;
        }
        let (bits, first) = slab.bits.change();
        if (bits[w] & bit != 0) != set {
            bits[w] ^= bit;
            if set {
                slab.used += 1;
                self.used += 1;
            } else {
                slab.used -= 1;
                self.used -= 1;
            }
        }
        first.then_some(u32::try_from(s).unwrap_or(u32::MAX))
    }

    /// The same for the bit that says that a cluster holds pages.
    pub(crate) fn mark_map(&mut self, seq: u64, cluster: u32, set: bool) -> Option<u32> {
        let (s, w, bit) = self.place(cluster)?;
        let slab = &mut self.slabs[s];
        if !slab.maps.takes(seq) {
            return None;
        }
        let (bits, first) = slab.maps.change();
        if (bits[w] & bit != 0) != set {
            bits[w] ^= bit;
            if set { self.maps += 1 } else { self.maps -= 1 }
        }
        first.then_some(u32::try_from(s).unwrap_or(u32::MAX))
    }

    /// Counts the bits anew, after the bitmaps were loaded.
    pub(crate) fn recount(&mut self) {
        self.used = 0;
        self.maps = 0;
        for slab in &mut self.slabs {
            slab.used = slab.bits.get().iter().map(|word| word.count_ones()).sum();
            self.used += u64::from(slab.used);
            self.maps +=
                slab.maps.get().iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        }
    }

    /// Clusters that nobody uses and that are not in quarantine.
    pub(crate) fn free(&self) -> u64 {
        self.total - self.used - self.held.len() as u64
    }

    /// Clusters in quarantine.
    pub(crate) fn quarantined(&self) -> u64 {
        self.held.len() as u64
    }

    /// Clusters that new data of a thin layer can have; a thick one draws on what it was promised.
    pub(crate) fn available(&self) -> u64 {
        let kept = self.reserve + self.promised + self.granted;
        self.free().saturating_sub(kept)
    }

    /// Clusters that pages can have: the reserve is there for them, what somebody was promised is
    /// not.
    pub(crate) fn for_pages(&self) -> u64 {
        self.free().saturating_sub(self.promised + self.granted)
    }

    /// A free cluster, the next after the last one; nothing is marked. `None`: there is none at
    /// all. Who asks has looked at [`Space::available`].
    pub(crate) fn find(&mut self) -> Option<u32> {
        let slabs = u32::try_from(self.slabs.len()).ok()?;
        let first = self.cursor / self.slab_clusters;
        for step in 0..=slabs {
            let s = (first + step) % slabs;
            let from = if step == 0 { self.cursor % self.slab_clusters } else { 0 };
            let slab = &self.slabs[s as usize];
            if slab.used == slab.clusters {
                continue;
            }
            let bits = slab.bits.get();
            let mut at = from;
            while at < slab.clusters {
                let word = bits[(at / 64) as usize] >> (at % 64);
                if word == u64::MAX >> (at % 64) {
                    at = (at / 64 + 1) * 64;
                    continue;
                }
                at += word.trailing_ones();
                let cluster = s * self.slab_clusters + at;
                if at < slab.clusters && !self.held.contains_key(&cluster) {
                    self.cursor = cluster + 1;
                    return Some(cluster);
                }
                at += 1;
            }
        }
        None
    }

    /// The first free clusters from this one on, so many at most; looks into one slab.
    pub(crate) fn free_from(&self, cluster: u32, most: u32) -> Free {
        let (s, mut at) = (cluster / self.slab_clusters, cluster % self.slab_clusters);
        let Some(slab) = self.slabs.get(s as usize) else { return Free::End };
        let (base, bits) = (s * self.slab_clusters, slab.bits.get());
        let is_free = |at: u32| {
            let used = bits[(at / 64) as usize] >> (at % 64) & 1 != 0;
            !used && !self.held.contains_key(&(base + at))
        };
        while at < slab.clusters {
            let word = bits[(at / 64) as usize] >> (at % 64);
            if word == u64::MAX >> (at % 64) {
                at = (at / 64 + 1) * 64;
            } else if is_free(at) {
                let end = slab.clusters.min(at.saturating_add(most));
                let count = (at..end).take_while(|at| is_free(*at)).count();
                return Free::Run { first: base + at, count: u32::try_from(count).unwrap_or(1) };
            } else {
                at += 1;
            }
        }
        Free::NoneTo(base + self.slab_clusters)
    }

    /// Holds a free cluster back until it is released.
    pub(crate) fn keep(&mut self, cluster: u32) {
        self.held.insert(cluster, 0);
    }

    /// Puts a freed cluster into quarantine.
    pub(crate) fn hold(&mut self, cluster: u32, seq: u64, epoch: u64) {
        self.held.insert(cluster, seq);
        self.quarantine.push_back(Freed { cluster, seq, epoch });
    }

    /// Lets a cluster out of quarantine.
    pub(crate) fn release(&mut self, cluster: u32) {
        self.held.remove(&cluster);
    }

    /// Whether an entry of the quarantine is the newest one of its cluster.
    pub(crate) fn is_newest(&self, freed: &Freed) -> bool {
        self.held.get(&freed.cluster) == Some(&freed.seq)
    }

    /// Whether a cluster is in quarantine.
    pub(crate) fn is_held(&self, cluster: u32) -> bool {
        self.held.contains_key(&cluster)
    }
}

/// The number of a cluster in a cell, if it is one.
pub(crate) const fn somewhere(phys: u32) -> Option<u32> {
    if phys == Cell::NOWHERE { None } else { Some(phys) }
}
