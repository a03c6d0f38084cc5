//! Making a pool: the first structures on a device.
//!
//! Invariants:
//! 1. Superblocks of what was there go first, durably; the new ones are written last, when
//!    everything else is durable: a half-made pool is no pool.
//! 2. The journal ring is zeros: nothing of an older ring can be taken for this pool's.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use braid_block::{Class, Instant, IoError, Key, Lease, Memory, Token};
use zerocopy::{FromZeros, IntoBytes};

use crate::effect::Effect;
use crate::geometry::{Layout, RING, ROOT};
use crate::hash::mix;
use crate::layout::{
    BIRTH, BLOCK, BitmapPage, CLEAN, CLUSTER, Kind, MAGIC, PAIR, PageHeader, PointersPage, Segment,
    Superblock, VERSION, page_crc,
};
use crate::open::{Opening, Phase};
use crate::superblock::{encode, slots};
use crate::transfer::whole;
use crate::{Config, Format, Note, Operation, Pool, Refusal, State, token};

/// The smallest pool.
pub(crate) const BYTES_MIN: u64 = 16 << 20;
/// Writes in flight.
const WRITES_MAX: usize = 8;
/// Bytes of the writes that fill the ring.
const FILL: u32 = Class::Large.bytes();

impl Format {
    /// What suits a device of so many bytes.
    #[must_use]
    pub fn for_device(uuid: [u8; 16], bytes: u64) -> Self {
        let ring = match bytes / 256 {
            // So small that only tests make it: a ring that is soon full.
            ring if bytes < 256 << 20 => ring.max(64 << 10),
            // No longer: after a crash all of it is read, at 200 MB/s within two seconds.
            ring => ring.clamp(4 << 20, 128 << 20),
        };
        let clusters = bytes / CLUSTER;
        let reserve = (clusters / 200).max(64.min(clusters / 8));
        Self {
            uuid,
            bytes,
            ring_blocks: u32::try_from(ring / BLOCK).unwrap_or(u32::MAX),
            slab_clusters: crate::layout::BITMAP_BITS,
            reserve_clusters: u32::try_from(reserve).unwrap_or(u32::MAX),
        }
    }

    /// The superblock of the new pool.
    fn superblock(&self, seed: u64) -> Superblock {
        let mut block = Superblock::new_zeroed();
        block.magic = MAGIC;
        block.version = VERSION.into();
        block.flags = CLEAN.into();
        block.uuid = self.uuid;
        block.bytes = (self.bytes / BLOCK * BLOCK).into();
        block.ring_blocks = self.ring_blocks.into();
        block.slab_clusters = self.slab_clusters.into();
        block.reserve_clusters = self.reserve_clusters.into();
        block.lanes = 1.into();
        block.block_bytes = u32::try_from(BLOCK).unwrap_or(0).into();
        block.cluster_bytes = u32::try_from(CLUSTER).unwrap_or(0).into();
        block.session = random(seed, 1);
        block.birth = mix(seed, 4).max(1).into();
        block.features = BIRTH.into();
        block.last_crc = u32::try_from(mix(seed, 2) >> 32).unwrap_or(0).into();
        block.tail = 1.into();
        block.scrub = u64::MAX.into();
        let start = Layout::slabs_start(u64::from(self.ring_blocks));
        let end = Layout::copy_of_superblock(self.bytes.max(PAIR));
        block.segment_count = 1.into();
        block.segments[0] =
            Segment { start: start.into(), bytes: end.saturating_sub(start).into() };
        block
    }
}

/// Sixteen bytes that nobody else has.
pub(crate) fn random(seed: u64, n: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(seed, n).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(mix(seed, !n), n).to_le_bytes());
    bytes
}

/// What is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Zeros over superblocks.
    Wipe,
    /// Zeros over the ring, the root and the bitmaps of every slab.
    Structures,
    /// The superblocks.
    Superblocks,
}

/// A pool in the making.
#[derive(Debug)]
pub(crate) struct Creating {
    stage: Stage,
    /// Next write of the stage.
    next: u64,
    /// The stage's flush is in flight.
    syncing: bool,
    /// Buffers: of zeros, and of pages that are being written.
    zeros: Option<Lease>,
    pages: VecDeque<Lease>,
    /// Writes in flight: their bytes, and the page buffer of each that has one of its own.
    in_flight: [Option<(Option<Lease>, u32)>; WRITES_MAX],
}

impl Creating {
    const fn new() -> Self {
        Self {
            stage: Stage::Wipe,
            next: 0,
            syncing: false,
            zeros: None,
            pages: VecDeque::new(),
            in_flight: [const { None }; WRITES_MAX],
        }
    }

    /// Gives the buffers back; nothing is in flight any more.
    pub(crate) fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        let flying =
            self.in_flight.iter_mut().filter_map(|slot| slot.take().and_then(|(lease, _)| lease));
        for lease in flying.chain(self.pages.drain(..)).chain(self.zeros.take()) {
            mem.free(lease);
        }
    }

    fn is_idle(&self) -> bool {
        self.in_flight.iter().all(Option::is_none)
    }
}

/// One write: where, how much, and what.
enum Write {
    Zeros { offset: u64, len: u32 },
    Root,
    Bitmaps(usize),
    Superblock { offset: u64 },
}

impl Pool {
    /// Makes a new pool on a device: writes its first structures. Ends in `State::Stopped`, or in
    /// `State::Failed` with `Note::Refused`; what was there is lost.
    #[must_use]
    pub fn create(config: Config, format: Format) -> Self {
        let mut pool = Self::closed(config);
        pool.superblock = format.superblock(pool.config.seed);
        let device = pool.config.device;
        let shape = crate::superblock::layout(&pool.superblock, &device);
        match shape {
            Ok(layout)
                if layout.clusters() > u64::from(format.reserve_clusters)
                    && !pool.config.read_only =>
            {
                pool.store.layout = layout;
                let phase = Phase::Create(Creating::new());
                pool.opening = Some(Box::new(Opening::new(phase)));
            }
            Ok(_) => pool.refuse_now(Refusal::Limit),
            Err(refusal) => pool.refuse_now(refusal),
        }
        pool
    }

    /// Goes on with making a pool.
    pub(crate) fn create_on<M: Memory>(&mut self, mem: &mut M, _now: Instant, c: &mut Creating) {
        self.store.seed = crate::superblock::seed::<M>(&self.superblock);
        if c.zeros.is_none() {
            c.zeros = mem.alloc(Class::Large);
            let Some(lease) = c.zeros.as_ref() else { return self.again() };
            mem.bytes_mut(lease).fill(0);
        }
        while let Some(at) = c.in_flight.iter().position(Option::is_none) {
            let Some(write) = self.next_write(c) else { break };
            if !self.begin_write(mem, c, at, &write) {
                if c.is_idle() {
                    self.again();
                }
                return;
            }
            c.next += 1;
        }
        if c.is_idle() && !c.syncing && self.next_write(c).is_none() {
            c.syncing = true;
            self.counters.device_flushes += 1;
            let token = self.create_token(WRITES_MAX);
            self.emit(Effect::Sync { token });
        }
    }

    fn create_token(&self, at: usize) -> Token {
        let key = Key { index: u32::try_from(at).unwrap_or(0), generation: 0 };
        Token::new(self.config.token_base + token::OPENING, key)
    }

    fn next_write(&self, c: &Creating) -> Option<Write> {
        let layout = &self.store.layout;
        let superblocks = slots(layout.bytes);
        match c.stage {
            Stage::Wipe => {
                let offset = *superblocks.get(usize::try_from(c.next).ok()?)?;
                Some(Write::Zeros { offset, len: u32::try_from(BLOCK).ok()? })
            }
            Stage::Superblocks => {
                let offset = *superblocks.get(usize::try_from(c.next).ok()?)?;
                Some(Write::Superblock { offset })
            }
            Stage::Structures => {
                let ring = layout.ring_blocks * BLOCK;
                let at = c.next * u64::from(FILL);
                if at < ring {
                    let len = (ring - at).min(u64::from(FILL));
                    return Some(Write::Zeros { offset: RING + at, len: u32::try_from(len).ok()? });
                }
                let slab = usize::try_from(c.next - ring.div_ceil(u64::from(FILL))).ok()?;
                match slab.checked_sub(1) {
                    None => Some(Write::Root),
                    Some(slab) => (slab < layout.slabs.len()).then_some(Write::Bitmaps(slab)),
                }
            }
        }
    }

    fn begin_write<M: Memory>(
        &mut self,
        mem: &mut M,
        c: &mut Creating,
        at: usize,
        write: &Write,
    ) -> bool {
        let (offset, span) = if let Write::Zeros { offset, len } = *write {
            let Some(zeros) = c.zeros.as_ref() else { return false };
            c.in_flight[at] = Some((None, len));
            (offset, zeros.span(0, len))
        } else {
            let Some(lease) = c.pages.pop_front().or_else(|| mem.alloc(Class::Medium)) else {
                return false;
            };
            let (offset, len) = self.fill_page(mem, &lease, write);
            let span = lease.span(0, len);
            c.in_flight[at] = Some((Some(lease), len));
            (offset, span)
        };
        self.counters.page_writes += 1;
        self.counters.device_written_bytes += u64::from(span.len);
        let token = self.create_token(at);
        self.emit(Effect::Write { token, span, offset });
        true
    }

    /// Writes the content of pages into a buffer; tells where it belongs, and its length.
    fn fill_page<M: Memory>(&self, mem: &mut M, lease: &Lease, write: &Write) -> (u64, u32) {
        let bytes = mem.bytes_mut(lease);
        let seed = self.store.seed;
        match *write {
            Write::Bitmaps(slab) => {
                let offset = self.store.layout.bitmap(slab);
                let owner = u64::try_from(slab).unwrap_or(0);
                for (i, kind) in [Kind::Bitmap, Kind::Bitmap, Kind::MapBitmap, Kind::MapBitmap]
                    .into_iter()
                    .enumerate()
                {
                    let mut page = BitmapPage::new_zeroed();
                    let at = i * size_of::<BitmapPage>();
                    page.header = header(kind, offset + at as u64, owner);
                    page.header.crc = page_crc::<M>(page.as_bytes(), seed).into();
                    bytes[at..at + size_of::<BitmapPage>()].copy_from_slice(page.as_bytes());
                }
                (offset, 4 * size_of::<BitmapPage>() as u32)
            }
            Write::Superblock { offset } => {
                encode::<M>(&self.superblock, offset, bytes);
                (offset, crate::superblock::BYTES)
            }
            Write::Root | Write::Zeros { .. } => {
                for at in [0, size_of::<PointersPage>()] {
                    let mut page = PointersPage::new_zeroed();
                    page.header = header(Kind::Root, ROOT + at as u64, 0);
                    page.header.crc = page_crc::<M>(page.as_bytes(), seed).into();
                    bytes[at..at + size_of::<PointersPage>()].copy_from_slice(page.as_bytes());
                }
                (ROOT, 2 * size_of::<PointersPage>() as u32)
            }
        }
    }

    /// A write or flush of the new pool is done.
    pub(crate) fn on_created<M: Memory>(
        &mut self,
        mem: &mut M,
        key: Key,
        result: Result<u32, IoError>,
        c: &mut Creating,
    ) {
        let at = key.index as usize;
        if let Some(slot) = c.in_flight.get_mut(at) {
            let Some((lease, len)) = slot.take() else { return };
            c.pages.extend(lease);
            if let Err(error) = whole(result, len) {
                self.fail(mem, Operation::Write, 0, error);
            }
            return;
        }
        c.syncing = false;
        if let Err(error) = result {
            return self.fail(mem, Operation::Flush, 0, error);
        }
        c.next = 0;
        match c.stage {
            Stage::Wipe => c.stage = Stage::Structures,
            Stage::Structures => c.stage = Stage::Superblocks,
            Stage::Superblocks => {
                self.state = State::Stopped;
                self.notes.push_back(Note::Stopped);
                c.drop_leases(mem);
            }
        }
    }
}

/// The header of a page that holds no cell yet.
fn header(kind: Kind, address: u64, owner: u64) -> PageHeader {
    PageHeader {
        kind: (kind as u32).into(),
        crc: 0.into(),
        address: address.into(),
        lsn: 0.into(),
        owner: owner.into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::rig::Rig;

    #[test]
    fn what_an_earlier_pool_of_the_same_name_left_is_not_taken_for_ours() {
        let (mut rig, handle) = Rig::new();
        for block in 0..14 {
            rig.write(handle, block, 0x11);
            rig.run();
        }
        // Its pages are written, and say that they hold cells up to a late journal block.
        rig.let_go();
        let late = rig.pool.journal.written;
        let mut rig = rig.made_anew(2);
        let handle = rig.create();
        for block in 0..4 {
            rig.write(handle, block, 0x22);
            rig.run();
        }
        assert!(rig.pool.journal.written < late);
        // Its region closes; what is written there counts, or is lost.
        rig.wait(1);
        rig.run();
        assert_eq!(rig.pool.counters().regions_closed, 1);
        let checkpoints = rig.pool.counters().checkpoints;
        while rig.pool.journal.written <= late {
            rig.write(handle, 16_384, 0x33);
            rig.ask(handle, crate::Work::Flush { number: None });
            rig.run();
        }
        assert_eq!(rig.pool.counters().checkpoints, checkpoints, "the journal has it all");
        let mut rig = rig.reopen();
        for block in 0..4 {
            rig.read(handle, block);
            rig.run();
            assert_eq!(rig.take_ended(), [Ok(0x22)], "block {block}");
        }
    }
}
