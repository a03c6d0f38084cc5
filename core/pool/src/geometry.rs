//! Where everything is on the device: arithmetic and nothing else.
//!
//! ```text
//! superblock pair | root pair | journal ring | slab | slab | ... | superblock pair
//! slab: bitmap pair | bitmap of page clusters | checksum pairs | clusters
//! ```

use alloc::vec::Vec;
use core::ops::Range;

use crate::layout::{BITMAP_BITS, BLOCK, CLUSTER, CLUSTER_BLOCKS, CLUSTER_PAIRS, PAIR};
use crate::layout::{SEGMENTS_MAX, SUMS_PER_PAGE};

/// First byte of the root pair.
pub(crate) const ROOT: u64 = PAIR;
/// First byte of the journal ring.
pub(crate) const RING: u64 = 2 * PAIR;
/// Slabs with fewer clusters than this are not worth their bitmaps.
const SLAB_CLUSTERS_MIN: u64 = 8;

/// The shape of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Bytes of the device that the pool uses.
    pub(crate) bytes: u64,
    /// Blocks of the journal ring.
    pub(crate) ring_blocks: u64,
    /// Clusters of a whole slab: clusters are numbered `slab * slab_clusters + position`.
    pub(crate) slab_clusters: u32,
    /// Start and bytes of each stretch of slabs.
    pub(crate) segments: Vec<(u64, u64)>,
    /// The slabs, in order.
    pub(crate) slabs: Vec<SlabPlace>,
}

/// Where a slab is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlabPlace {
    /// First byte.
    pub(crate) start: u64,
    /// First byte of its first cluster.
    pub(crate) data: u64,
    /// Its clusters.
    pub(crate) clusters: u32,
}

impl Layout {
    /// The shape of a pool with these stretches, unless it makes no sense.
    pub(crate) fn new(
        bytes: u64,
        ring_blocks: u64,
        slab_clusters: u32,
        segments: Vec<(u64, u64)>,
    ) -> Option<Self> {
        let sane = (1..=BITMAP_BITS).contains(&slab_clusters)
            && (8..=1 << 20).contains(&ring_blocks)
            && segments.len() <= SEGMENTS_MAX
            && bytes < 1 << 56;
        if !sane {
            return None;
        }
        let mut layout = Self { bytes, ring_blocks, slab_clusters, segments, slabs: Vec::new() };
        let mut at = RING + ring_blocks * BLOCK;
        for i in 0..layout.segments.len() {
            let (start, len) = layout.segments[i];
            let end = start.checked_add(len)?;
            if start < at || !start.is_multiple_of(BLOCK) || end > bytes.checked_sub(PAIR)? {
                return None;
            }
            layout.add_slabs(start, end)?;
            at = end;
        }
        Some(layout)
    }

    /// First byte after the journal ring.
    pub(crate) const fn slabs_start(ring_blocks: u64) -> u64 {
        RING + ring_blocks * BLOCK
    }

    /// First byte of the superblock pair at the end of a device.
    pub(crate) const fn copy_of_superblock(bytes: u64) -> u64 {
        (bytes / BLOCK) * BLOCK - PAIR
    }

    fn add_slabs(&mut self, start: u64, end: u64) -> Option<()> {
        let mut at = start;
        loop {
            let clusters = clusters_in(end - at).min(u64::from(self.slab_clusters));
            if clusters < SLAB_CLUSTERS_MIN.min(u64::from(self.slab_clusters)) {
                return Some(());
            }
            let clusters = u32::try_from(clusters).ok()?;
            // Cluster numbers are 31 bits wide, and the last is no number.
            let last = (self.slabs.len() as u64 + 1) * u64::from(self.slab_clusters);
            if last >= 1 << 31 {
                return None;
            }
            let data = at + 2 * PAIR + checksum_pairs(clusters) * PAIR;
            self.slabs.push(SlabPlace { start: at, data, clusters });
            at = data + u64::from(clusters) * CLUSTER;
        }
    }

    /// First byte of a journal block.
    pub(crate) const fn journal_block(&self, seq: u64) -> u64 {
        RING + seq % self.ring_blocks * BLOCK
    }

    /// The slab of a cluster, and its position in it; `None` if there is no such cluster.
    pub(crate) fn slab_of(&self, cluster: u32) -> Option<(usize, u32)> {
        let slab = (cluster / self.slab_clusters) as usize;
        let at = cluster % self.slab_clusters;
        let place = self.slabs.get(slab)?;
        (at < place.clusters).then_some((slab, at))
    }

    /// First byte of a cluster that there is.
    pub(crate) fn cluster(&self, cluster: u32) -> u64 {
        let slab = &self.slabs[(cluster / self.slab_clusters) as usize];
        slab.data + u64::from(cluster % self.slab_clusters) * CLUSTER
    }

    /// First byte of a block by its number: cluster times 64 plus position.
    pub(crate) fn block(&self, block: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "cluster numbers are 31 bits wide")]
        let cluster = (block / CLUSTER_BLOCKS) as u32;
        self.cluster(cluster) + block % CLUSTER_BLOCKS * BLOCK
    }

    /// First byte of the bitmap pair of a slab.
    pub(crate) fn bitmap(&self, slab: usize) -> u64 {
        self.slabs[slab].start
    }

    /// First byte of the pair that says which clusters of a slab hold pages.
    pub(crate) fn map_bitmap(&self, slab: usize) -> u64 {
        self.slabs[slab].start + PAIR
    }

    /// First byte of the pair with the checksums of page number `page`: see [`Self::sum_of`].
    pub(crate) fn checksum_pair(&self, page: u64) -> u64 {
        let per_slab = checksum_pairs(self.slab_clusters);
        let slab = usize::try_from(page / per_slab).unwrap_or(usize::MAX);
        self.slabs[slab].start + 2 * PAIR + page % per_slab * PAIR
    }

    /// Numbers of the pages of checksums: all are below.
    pub(crate) fn sum_pages(&self) -> u64 {
        self.slabs.len() as u64 * checksum_pairs(self.slab_clusters)
    }

    /// The clusters of whose blocks a page has the checksums: see [`Self::sum_of`].
    pub(crate) fn sum_clusters(&self, page: u64) -> Range<u32> {
        let per_slab = checksum_pairs(self.slab_clusters);
        let (slab, at) = (page / per_slab, page % per_slab);
        let held = usize::try_from(slab).ok().and_then(|slab| self.slabs.get(slab));
        let clusters = held.map_or(0, |slab| u64::from(slab.clusters));
        let (first, end) = (at * PAGE_CLUSTERS, (at + 1) * PAGE_CLUSTERS);
        let base = slab * u64::from(self.slab_clusters);
        let [first, end] = [first, end]
            .map(|at| u32::try_from(base + at.min(clusters)).expect("clusters have 31 bits"));
        first..end
    }

    /// Checksum page of a block, and the position in it. Pages are numbered slab by slab, as many
    /// for each as a whole one has.
    pub(crate) fn sum_of(&self, block: u64) -> (u64, usize) {
        let slab_blocks = u64::from(self.slab_clusters) * CLUSTER_BLOCKS;
        let (slab, at) = (block / slab_blocks, block % slab_blocks);
        let per_page = SUMS_PER_PAGE as u64;
        let page = slab * checksum_pairs(self.slab_clusters) + at / per_page;
        #[expect(clippy::cast_possible_truncation, reason = "less than 960")]
        let at = (at % per_page) as usize;
        (page, at)
    }

    /// Pair number of a page pair in a cluster of pages.
    pub(crate) fn pair_in(&self, cluster: u32, at: u32) -> u64 {
        self.cluster(cluster) / BLOCK + u64::from(at) * (PAIR / BLOCK)
    }

    /// The cluster and position of a pair, by the number that [`Self::pair_in`] gave; `None` if
    /// no cluster has it.
    pub(crate) fn pair_place(&self, pair: u64) -> Option<(u32, u32)> {
        let byte = pair.checked_mul(BLOCK)?;
        let slab = self.slabs.partition_point(|slab| slab.start <= byte).checked_sub(1)?;
        let place = &self.slabs[slab];
        let within = byte.checked_sub(place.data)?;
        let at = u32::try_from(within / CLUSTER).ok().filter(|at| *at < place.clusters)?;
        if !(within % CLUSTER).is_multiple_of(PAIR) {
            return None;
        }
        let position = u32::try_from(within % CLUSTER / PAIR).ok()?;
        let cluster = u32::try_from(slab).ok()? * self.slab_clusters + at;
        Some((cluster, position))
    }

    /// Clusters of all slabs.
    pub(crate) fn clusters(&self) -> u64 {
        self.slabs.iter().map(|slab| u64::from(slab.clusters)).sum()
    }
}

/// Clusters that share a page of checksums.
const PAGE_CLUSTERS: u64 = SUMS_PER_PAGE as u64 / CLUSTER_BLOCKS;

const _: () = assert!((SUMS_PER_PAGE as u64).is_multiple_of(CLUSTER_BLOCKS));

/// Checksum pairs of a slab with so many clusters.
pub(crate) const fn checksum_pairs(clusters: u32) -> u64 {
    (clusters as u64 * CLUSTER_BLOCKS).div_ceil(SUMS_PER_PAGE as u64)
}

/// The most clusters of a slab that fit in so many bytes.
const fn clusters_in(bytes: u64) -> u64 {
    let Some(room) = bytes.checked_sub(2 * PAIR) else { return 0 };
    // 15 clusters share a checksum pair.
    let groups = room / (15 * CLUSTER + PAIR);
    let rest = room % (15 * CLUSTER + PAIR);
    let more = rest.saturating_sub(PAIR) / CLUSTER;
    groups * 15 + more
}

const _: () = assert!(CLUSTER_PAIRS == 32);

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let start = Layout::slabs_start(16);
        Layout::new(64 << 20, 16, 100, alloc::vec![(start, (64 << 20) - PAIR - start)]).unwrap()
    }

    #[test]
    fn nothing_overlaps_and_everything_fits() {
        let layout = layout();
        let mut at = RING + 16 * BLOCK;
        for (i, slab) in layout.slabs.iter().enumerate() {
            assert_eq!(slab.start, at);
            assert_eq!(layout.bitmap(i), at);
            let last = layout
                .checksum_pair(i as u64 * checksum_pairs(100) + checksum_pairs(slab.clusters) - 1);
            assert_eq!(last + PAIR, slab.data);
            at = slab.data + u64::from(slab.clusters) * CLUSTER;
        }
        assert!(at <= (64 << 20) - PAIR);
        assert!(layout.clusters() > 240);
    }

    #[test]
    fn the_clusters_of_a_page_of_checksums_are_those_whose_blocks_have_theirs_there() {
        let layout = layout();
        let mut next = 0;
        for page in 0..layout.sum_pages() {
            for cluster in layout.sum_clusters(page) {
                assert_eq!(cluster, next);
                next += 1;
                for at in [0, CLUSTER_BLOCKS - 1] {
                    let block = u64::from(cluster) * CLUSTER_BLOCKS + at;
                    assert_eq!(layout.sum_of(block).0, page, "block {block}");
                }
            }
        }
        assert_eq!(u64::from(next), layout.clusters());
        assert_eq!(layout.sum_clusters(layout.sum_pages()).len(), 0);
    }

    #[test]
    fn a_pair_is_found_where_it_was_put() {
        let layout = layout();
        for cluster in [0, 1, 99, 100, 205] {
            for at in [0, 1, 31] {
                let pair = layout.pair_in(cluster, at);
                assert_eq!(layout.pair_place(pair), Some((cluster, at)));
                assert_eq!(layout.pair_place(pair + 1), None);
            }
        }
        assert_eq!(layout.pair_place(0), None);
        assert_eq!(layout.pair_place(u64::MAX), None);
    }
}
