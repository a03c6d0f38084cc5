//! Whether a pool on a device is what a pool must be; and mending what has a second copy.
//!
//! Invariants:
//! 1. Nothing is believed that is counted or pointed to twice: each cluster and each pair of a
//!    page is seen once, by its one owner, and what nobody owns is free. No figure of the pool's
//!    space is compared with what it is made from.
//! 2. What is told is bounded; what is counted is not.
//! 3. Memory is a bit for each cluster, a number for each page, and what the pool itself takes.

mod data;
mod pages;
mod space;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use braid_block::Instant;

use crate::drive::{Buffers, Image, run_blocking};
use crate::layout::{BLOCK, CLUSTER};
use crate::map::{Look, Next, PageId};
use crate::op::Waiter;
use crate::store::Store;
use crate::superblock::{Judged, judge, slots};
use crate::{Pool, State};

/// What is to be checked.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Read all data, and compare it with its checksums.
    pub data: bool,
    /// Write bad copies again from good ones. The pool must be open to be read only.
    pub repair: bool,
    /// Findings to be listed.
    pub findings_max: usize,
}

impl Default for Scope {
    fn default() -> Self {
        Self { data: true, repair: false, findings_max: 100 }
    }
}

/// A figure of the pool's space, in clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// All there are.
    Total,
    /// In use, by data or by pages.
    Used,
    /// In use by pages.
    Pages,
    /// Given back, and not to be used yet.
    Quarantined,
    /// Nobody's.
    Free,
    /// Kept for metadata and merges.
    Reserved,
    /// Set aside for thick replicas, and not used.
    Promised,
    /// Kept for writes that are in work.
    Granted,
}

impl Figure {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "in all",
            Self::Used => "used",
            Self::Pages => "used by pages",
            Self::Quarantined => "in quarantine",
            Self::Free => "free",
            Self::Reserved => "reserved",
            Self::Promised => "promised",
            Self::Granted => "granted",
        }
    }
}

/// Something that is not as it must be. `device` is a first byte on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A copy of the superblock is bad.
    Superblock {
        /// Where.
        device: u64,
        /// It was written again.
        mended: bool,
    },
    /// One slot of a page is bad, the other is good.
    Slot {
        /// Where.
        device: u64,
        /// It was written again.
        mended: bool,
    },
    /// Both slots of a page of the maps are bad: what it told is lost.
    Lost {
        /// Where.
        device: u64,
    },
    /// Two layers, or pages and a layer, own the same cluster.
    Shared {
        /// Where.
        device: u64,
        /// The owner that was seen second.
        layer: u32,
        /// First byte within it.
        offset: u64,
    },
    /// A layer owns a cluster that the bitmap calls free, or that is in quarantine.
    Unmarked {
        /// Where.
        device: u64,
        /// The layer.
        layer: u32,
        /// First byte within it.
        offset: u64,
    },
    /// The bitmap calls a cluster used that nobody owns.
    Leaked {
        /// Where.
        device: u64,
    },
    /// A layer owns blocks of a cluster that has no place, or lies outside it.
    Homeless {
        /// The layer.
        layer: u32,
        /// First byte within it.
        offset: u64,
    },
    /// Two pointers lead to the same page, or one leads to a page that is not marked as used.
    Pointer {
        /// Where the page is.
        device: u64,
    },
    /// A page pair is marked as used, and nothing points to it.
    LeakedPage {
        /// Where.
        device: u64,
    },
    /// A layer counts its clusters wrong.
    Count {
        /// The layer.
        layer: u32,
        /// What it says.
        says: u64,
        /// What was counted.
        counted: u64,
    },
    /// A layer's parent is missing or not sealed, or the layer is its own ancestor.
    Parent {
        /// The layer.
        layer: u32,
    },
    /// A figure of the pool's space is not what its maps come to.
    Space {
        /// Which.
        figure: Figure,
        /// Clusters, as the pool counts them.
        says: u64,
        /// As they were counted anew.
        counted: u64,
    },
    /// A block outside open regions does not match its checksum, or cannot be read.
    Block {
        /// Where.
        device: u64,
        /// The layer that owns it.
        layer: u32,
        /// First byte within it.
        offset: u64,
    },
}

impl Finding {
    /// Whether nothing is lost: there is a second copy.
    #[must_use]
    pub const fn is_mendable(&self) -> bool {
        matches!(self, Self::Superblock { .. } | Self::Slot { .. })
    }

    /// Whether it is a bad copy that was written again.
    #[must_use]
    pub const fn is_mended(&self) -> bool {
        matches!(self, Self::Superblock { mended: true, .. } | Self::Slot { mended: true, .. })
    }
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The first findings.
    pub findings: Vec<Finding>,
    /// How many there are of those that nothing can mend.
    pub errors: u64,
    /// How many bad copies there are of what has a good one.
    pub bad_copies: u64,
    /// How many of those were written again, whether they are listed or not.
    pub mended: u64,
    /// Layers seen.
    pub layers: u64,
    /// Pages seen.
    pub pages: u64,
    /// Clusters that layers own.
    pub clusters: u64,
    /// Blocks compared with their checksums.
    pub blocks: u64,
    /// Blocks of open regions that do not match: their content counts.
    pub unverified: u64,
}

/// A check on its way.
struct Check<'a, M, I> {
    pool: &'a mut Pool,
    mem: &'a mut M,
    image: &'a mut I,
    now: Instant,
    scope: Scope,
    report: Report,
    /// A bit for each cluster that has an owner, slab by slab.
    seen: Vec<Vec<u64>>,
    /// Pairs that pointers lead to.
    pairs: BTreeSet<u64>,
    /// Clusters of pages.
    page_clusters: u64,
    /// Clusters that thick replicas have not used, as their leaves come to.
    promised: u64,
    /// What data is read into.
    buffer: Vec<u8>,
}

/// Checks a pool that is open, on the device that it was opened on, while nothing is in work.
/// Usually it is open to be read only: then nothing is written but what [`Scope::repair`] mends.
pub fn check<M: Buffers, I: Image>(
    pool: &mut Pool,
    mem: &mut M,
    image: &mut I,
    now: Instant,
    scope: Scope,
) -> Report {
    let slabs = &pool.store.layout.slabs;
    let seen = slabs.iter().map(|slab| alloc::vec![0; slab.clusters.div_ceil(64) as usize]);
    let seen = seen.collect();
    let scope = Scope { repair: scope.repair && pool.config.read_only, ..scope };
    let mut check = Check {
        pool,
        mem,
        image,
        now,
        scope,
        report: Report::default(),
        seen,
        pairs: BTreeSet::new(),
        page_clusters: 0,
        promised: 0,
        buffer: alloc::vec![0; CLUSTER as usize],
    };
    if check.pool.state == State::Open {
        // Somebody is at work: what the walk needs is not let go because nobody was for long. And
        // what is due by now is done before, not beside.
        check.pool.busy = now;
        check.run();
        check.all();
    }
    check.report
}

impl<M: Buffers, I: Image> Check<'_, M, I> {
    fn all(&mut self) {
        self.superblocks();
        self.parents();
        self.base_pages();
        self.sums_pages();
        let layers: Vec<u32> = self.store().map.layers.keys().copied().collect();
        for layer in layers {
            self.layer(layer);
        }
        self.page_clusters();
        self.space();
        if self.scope.repair && self.image.sync().is_err() {
            self.report.errors += 1;
        }
    }

    fn store(&self) -> &Store {
        &self.pool.store
    }

    fn tell(&mut self, finding: Finding) {
        if finding.is_mendable() {
            self.report.bad_copies += 1;
            self.report.mended += u64::from(finding.is_mended());
        } else {
            self.report.errors += 1;
        }
        if self.report.findings.len() < self.scope.findings_max {
            self.report.findings.push(finding);
        }
    }

    /// Lets the pool do what it has begun: reads of pages.
    fn run(&mut self) {
        run_blocking(self.pool, self.mem, self.image, self.now, |mem, completion| {
            completion.lease.into_iter().for_each(|lease| mem.free(lease));
        });
    }

    /// Brings a page of the maps into memory; tells whether it is there.
    fn fetch(&mut self, page: PageId) -> bool {
        if !self.store().is_here(page) {
            self.pool.fetch(self.mem, self.now, page, Waiter::Job);
            self.run();
        }
        self.store().is_here(page)
    }

    fn superblocks(&mut self) {
        let newest = self.pool.superblock;
        let mut bytes = alloc::vec![0; BLOCK as usize];
        for device in slots(newest.bytes.get()) {
            let read = self.image.read(device, &mut bytes).is_ok();
            let good = match judge::<M>(&bytes, device) {
                Judged::Valid(found) => read && found.uuid == newest.uuid,
                Judged::Newer { .. } | Judged::Damaged | Judged::Foreign => false,
            };
            if good {
                continue;
            }
            let mut mended = false;
            if self.scope.repair {
                bytes.fill(0);
                crate::superblock::encode::<M>(&newest, device, &mut bytes);
                mended = self.image.write(device, &bytes).is_ok();
            }
            self.tell(Finding::Superblock { device, mended });
        }
    }

    fn parents(&mut self) {
        let layers = &self.store().map.layers;
        let mut wrong = Vec::new();
        for (id, layer) in layers {
            let (mut next, mut steps) = (layer.state().parent, 0);
            while let Some(at) = next {
                let sealed = layers.get(&at).filter(|parent| parent.state().sealed);
                steps += 1;
                let Some(parent) = sealed.filter(|_| steps <= layers.len()) else {
                    wrong.push(*id);
                    break;
                };
                next = parent.state().parent;
            }
        }
        for layer in wrong {
            self.tell(Finding::Parent { layer });
        }
    }

    /// Notes the owner of a cluster; tells whether it is the first.
    fn own(&mut self, cluster: u32) -> bool {
        let Some((slab, at)) = self.store().layout.slab_of(cluster) else { return false };
        let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
        let word = &mut self.seen[slab][word];
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    /// Everything that a layer points to.
    fn layer(&mut self, id: u32) {
        self.report.layers += 1;
        self.page(PageId::Layer(id));
        self.page(PageId::Record(id));
        let Some(held) = self.store().map.layers.get(&id) else { return };
        let says = held.state().clusters;
        for n in 0..u32::try_from(held.state().directories.len()).unwrap_or(0) {
            self.page(PageId::Directory(id, n));
        }
        let (mut from, mut counted, mut whole) = (0, 0, true);
        loop {
            let leaf = match self.store().map.next_leaf(id, from) {
                Next::Leaf(leaf) => leaf,
                Next::Missing(page) => {
                    if !self.fetch(page) && !self.store().map.lost.contains_key(&page) {
                        break;
                    }
                    continue;
                }
                Next::Lost(next) => {
                    (from, whole) = (next, false);
                    continue;
                }
                Next::None => break,
            };
            from = leaf + 1;
            self.page(PageId::Leaf(id, leaf));
            if self.fetch(PageId::Leaf(id, leaf)) {
                counted += self.leaf(id, leaf);
            } else {
                whole = !matches!(self.store().map.look(id, leaf), Look::Lost(_)) && whole;
            }
        }
        self.report.clusters += counted;
        self.promised += self.unused(id, if whole { counted } else { says });
        if whole && says != counted {
            self.tell(Finding::Count { layer: id, says, counted });
        }
    }
}

#[cfg(test)]
mod tests;
