//! What one seed's workload is made of. Every seed leaves something out and does something else
//! too often: a mixture of everything reaches few corners.

use braid_block::BlockSize;
use braid_pool::{Config, Device, Format, Limits, Plant};

use crate::random::Random;

/// First token kind of a simulated pool: a multiple of eight, see the world's story.
pub(crate) const TOKENS: u8 = 16;

/// What can be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Read,
    Zero,
    Flush,
    Create,
    Destroy,
    Snapshot,
    DeleteSnapshot,
    Clone,
    Resize,
    Scrub,
    Nonsense,
    Bear,
    Clean,
    Marks,
    Status,
    Grow,
}

/// The kinds, with their weights if they are in the mixture.
const KINDS: [(Kind, u32); 17] = [
    (Kind::Write, 600),
    (Kind::Read, 150),
    (Kind::Zero, 80),
    (Kind::Flush, 60),
    (Kind::Create, 8),
    (Kind::Destroy, 6),
    (Kind::Snapshot, 14),
    (Kind::DeleteSnapshot, 10),
    (Kind::Clone, 6),
    (Kind::Resize, 6),
    (Kind::Scrub, 2),
    (Kind::Nonsense, 4),
    (Kind::Bear, 16),
    (Kind::Clean, 12),
    (Kind::Marks, 8),
    (Kind::Status, 20),
    (Kind::Grow, 3),
];

/// The mixture of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    weights: [u32; KINDS.len()],
    /// Requests in flight, at most.
    pub(crate) depth: usize,
    /// A write is durable once in so many.
    pub(crate) durable_in: u64,
    /// A write is longer than a block once in so many.
    pub(crate) long_in: u64,
    /// Things begun in one turn, at most: many of them fill a block of the journal.
    pub(crate) burst: u64,
    /// Blocks of a hot place.
    pub(crate) hot: u64,
    /// Writes go to clusters all over the volume: the pool gets full.
    pub(crate) scattered: bool,
    /// Out of so many steps one begins something, the others let the disk work.
    pub(crate) rush: u64,
    /// Between two things begun in one turn the disk ends something, once in so many times.
    pub(crate) mingle: u64,
    /// Things begun in all.
    pub(crate) length: u64,
    /// The disk's sectors.
    pub(crate) sector: u32,
    /// Logical blocks of 512 bytes are among the replicas.
    pub(crate) small_blocks: bool,
    /// Freed clusters are discarded.
    pub(crate) discards: bool,
    pub(crate) limits: Limits,
    slab_clusters: u32,
    /// The size of the disk, at first.
    pub(crate) bytes: u64,
}

impl Mix {
    /// The mixture of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::part(seed, 1);
        let mut weights = KINDS.map(|(_, weight)| weight);
        for weight in &mut weights[1..] {
            *weight *= [0, 1, 1, 4][random.index(4)];
        }
        // Without a layer there is nothing to do.
        weights[4] = weights[4].max(1);
        // A crash leaves as many changed leaves to replay as there may be, and some that change.
        let dirty_leaves_max = *random.pick(&[1, 4, 64]);
        let limits = Limits {
            requests_max: 128,
            layers_max: 64,
            delta_max: *random.pick(&[16, 64, 4096]),
            cache_bytes: *random.pick(&[16 << 10, 64 << 10, 1 << 20]),
            dirty_leaves_max,
            checkpoint_blocks: 1 << 20,
            unsettled_max: *random.pick(&[4, 32, 4096]),
            leaves_max: 16 + 2 * dirty_leaves_max,
            ..Limits::default()
        };
        let mix = Self {
            weights,
            depth: *random.pick(&[1, 2, 4, 8, 16, 32]),
            durable_in: *random.pick(&[2, 8, 50]),
            long_in: *random.pick(&[1, 3, 8, 30]),
            burst: *random.pick(&[1, 4, 24]),
            hot: *random.pick(&[2, 4, 12]),
            scattered: random.once_in(5),
            rush: *random.pick(&[2, 3, 4]),
            mingle: *Random::part(seed, 13).pick(&[2, 8, 1000]),
            length: random.within(30, 250),
            sector: if random.once_in(3) { 4096 } else { 512 },
            small_blocks: random.once_in(2),
            discards: random.once_in(2),
            limits,
            slab_clusters: *random.pick(&[8, 20, 64]),
            bytes: 16 << 20,
        };
        if random.once_in(5) { mix.churning() } else { mix }
    }

    /// Much is written for the first time, made zero and written again, in long runs: only that
    /// fills the blocks of the journal, and only full ones can be torn in every place.
    fn churning(mut self) -> Self {
        for ((kind, _), weight) in KINDS.iter().zip(&mut self.weights) {
            *weight = match kind {
                Kind::Write => 600,
                Kind::Zero => 500,
                Kind::Flush => 30,
                Kind::Create => 8,
                _ => *weight / 4,
            };
        }
        Self { depth: 32, burst: 24, long_in: 1, rush: 2, sector: 512, durable_in: 50, ..self }
    }

    /// What to begin next.
    pub(crate) fn next(&self, random: &mut Random) -> Kind {
        KINDS[random.weighted(&self.weights)].0
    }

    /// The shape of the pool.
    pub(crate) fn format(&self, seed: u64) -> Format {
        let mut uuid = [0x50; 16];
        uuid[..8].copy_from_slice(&seed.to_le_bytes());
        Format {
            uuid,
            bytes: self.bytes,
            ring_blocks: 16,
            slab_clusters: self.slab_clusters,
            reserve_clusters: 6,
        }
    }

    /// What a pool is opened with when this is the machine's boot number `boot` and its disk has
    /// so many bytes.
    pub(crate) fn config(&self, seed: u64, boot: u64, plant: Option<Plant>, bytes: u64) -> Config {
        let mut boot_id = [0xb0; 16];
        boot_id[..8].copy_from_slice(&boot.to_le_bytes());
        let device = Device { bytes, sector: self.sector, discards: self.discards };
        Config {
            token_base: TOKENS,
            device,
            boot_id,
            owner: "simulator".into(),
            seed: seed ^ boot << 32,
            read_only: false,
            limits: self.limits,
            plant,
        }
    }

    /// The size of a new replica: some end within a cluster or beyond a leaf of the map.
    pub(crate) fn size(&self, random: &mut Random) -> u64 {
        *random.pick(&[256 << 10, 1 << 20, (1 << 20) + (12 << 10), 3 << 20, 65 << 20, 130 << 20])
    }

    /// The logical block of a new replica.
    pub(crate) fn block(&self, random: &mut Random) -> BlockSize {
        if self.small_blocks && random.once_in(2) { BlockSize::B512 } else { BlockSize::B4096 }
    }

    /// Where something goes in a volume of so many sectors: a range of whole blocks of so many
    /// sectors, inside it.
    pub(crate) fn extent(&self, random: &mut Random, sectors: u64, unit: u64) -> (u64, u64) {
        let blocks = sectors / 8;
        let base = self.place(random, blocks);
        let first = (base + random.below(self.hot)).min(blocks.saturating_sub(1)) * 8;
        let (mut start, mut len) = (first, 8);
        if random.once_in(self.long_in) {
            len = 8 * random.within(1, 32);
        }
        if unit < 8 && random.once_in(2) {
            start += random.below(8);
            len = random.within(1, len);
        }
        (start, len.min(sectors - start).max(unit.min(sectors - start)))
    }

    fn place(&self, random: &mut Random, blocks: u64) -> u64 {
        if self.scattered {
            return random.below(blocks.div_ceil(64)) * 64;
        }
        // Both sides of borders: of a cluster, a region, a leaf; and the volume's end.
        let places = [0, 64 - 1, 256 - 1, 16_384 - 1, blocks.saturating_sub(self.hot)];
        let inside = places.iter().filter(|place| **place < blocks).count();
        places[random.index(inside)]
    }
}
