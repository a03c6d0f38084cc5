//! The superblock in memory: judging the copies on the device, and writing new ones.
//!
//! Invariants:
//! 1. Version `n` goes to slot `n % 2` of the pair at the beginning, is made durable, then goes to
//!    the same slot of the pair at the end: at every moment a copy of this version or of the one
//!    before is whole.
//! 2. One version is on its way at a time; who asks meanwhile gets the next.
//! 3. Of a failure the next version tells, whatever failed, so that even the same kernel's next
//!    open knows; only if that cannot be written, or the process dies before, is it not told.
//! 4. The newest valid copy of the pool that the device begins with is the pool's.

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::{Class, IoError, Key, Lease, Memory};
use zerocopy::{FromBytes, IntoBytes};

use crate::effect::Effect;
use crate::geometry::Layout;
use crate::layout::{
    BLOCK, CLUSTER, ERROR, FEATURES_KNOWN, Kind, MAGIC, PageHeader, SEGMENTS_MAX, Superblock,
    VERSION,
};
use crate::transfer::whole;
use crate::{Device, Operation, Pool, Refusal, token};

/// Bytes of a superblock.
pub(crate) const BYTES: u32 = size_of::<Superblock>() as u32;
/// Index of the tokens of superblock writes: no entry of the table of opening's reads has it.
pub(crate) const INDEX: u32 = 1 << 20;
/// Blocks of a ring, at most: opening keeps something about each in memory.
const RING_MAX: u32 = 1 << 16;
/// Numbers that only ever grow are less than this: nobody lives to see them reach it.
const NUMBER_MAX: u64 = 1 << 60;
/// Slabs that are not whole-sized, at most: each takes some KiB of memory.
const SMALL_SLABS_MAX: usize = 4096;
/// From this many clusters on, a slab is not small.
const SMALL_SLAB: u32 = 16_384;

/// What a superblock's slot holds.
#[derive(Debug)]
pub(crate) enum Judged {
    /// A superblock that this version can serve, as far as it alone can tell.
    Valid(Box<Superblock>),
    /// One of a newer version.
    Newer { version: u32, features: u64 },
    /// It was one.
    Damaged,
    /// Nothing of ours.
    Foreign,
}

/// Looks at a slot that begins at byte `address` of the device.
pub(crate) fn judge<M: Memory>(bytes: &[u8], address: u64) -> Judged {
    let Ok((found, _)) = Superblock::read_from_prefix(bytes) else { return Judged::Foreign };
    if found.magic != MAGIC {
        return Judged::Foreign;
    }
    let header = &found.header;
    let sound = header.kind.get() == Kind::Superblock as u32
        && header.address.get() == address
        && header.crc.get() == crate::layout::page_crc::<M>(&bytes[..BYTES as usize], 0);
    if !sound {
        return Judged::Damaged;
    }
    let unknown = found.features.get() & !FEATURES_KNOWN;
    if found.version.get() > VERSION || unknown != 0 {
        return Judged::Newer { version: found.version.get(), features: unknown };
    }
    Judged::Valid(Box::new(found))
}

/// The slots of both pairs of a pool of so many bytes.
pub(crate) const fn slots(bytes: u64) -> [u64; 4] {
    let copy = Layout::copy_of_superblock(bytes);
    [0, BLOCK, copy, copy + BLOCK]
}

/// Whether a device can hold the pool, and its shape.
pub(crate) fn layout(found: &Superblock, device: &Device) -> Result<Layout, Refusal> {
    let damaged = Refusal::Damaged { device: found.header.address.get() };
    let bytes = found.bytes.get();
    if device.bytes < bytes {
        return Err(Refusal::Truncated { needs: bytes, has: device.bytes });
    }
    if u64::from(device.sector) > BLOCK {
        return Err(Refusal::Sector);
    }
    let units = u64::from(found.block_bytes.get()) == BLOCK
        && u64::from(found.cluster_bytes.get()) == CLUSTER
        && found.lanes.get() == 1;
    let count = found.segment_count.get() as usize;
    let numbers = [found.last_seq, found.tail, found.incarnation, found.header.lsn];
    let grown = numbers.iter().all(|n| n.get() < NUMBER_MAX) && found.tail.get() > 0;
    if !units
        || !grown
        || found.ring_blocks.get() > RING_MAX
        || count > SEGMENTS_MAX
        || bytes < crate::create::BYTES_MIN
    {
        return Err(damaged);
    }
    let segments: Vec<(u64, u64)> =
        found.segments[..count].iter().map(|s| (s.start.get(), s.bytes.get())).collect();
    let (ring, slab) = (u64::from(found.ring_blocks.get()), found.slab_clusters.get());
    let layout = Layout::new(bytes, ring, slab, segments).ok_or(damaged)?;
    if slab < SMALL_SLAB && layout.slabs.len() > SMALL_SLABS_MAX {
        return Err(Refusal::Limit);
    }
    Ok(layout)
}

/// Writes a superblock's bytes for the slot at `address`.
pub(crate) fn encode<M: Memory>(found: &Superblock, address: u64, bytes: &mut [u8]) {
    let mut copy = *found;
    copy.header = PageHeader {
        kind: (Kind::Superblock as u32).into(),
        crc: 0.into(),
        address: address.into(),
        lsn: found.header.lsn,
        owner: 0.into(),
    };
    copy.header.crc = crate::layout::page_crc::<M>(copy.as_bytes(), 0).into();
    bytes[..BYTES as usize].copy_from_slice(copy.as_bytes());
}

/// The CRC32C from which those of all pages and journal blocks of a pool go on.
pub(crate) fn seed<M: Memory>(block: &Superblock) -> u32 {
    let seed = M::crc_bytes(&block.uuid, 0);
    if block.birth.get() == 0 { seed } else { M::crc_bytes(block.birth.as_bytes(), seed) }
}

/// Where the version on its way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Main,
    MainSync,
    Copy,
    CopySync,
}

/// A version on its way.
#[derive(Debug)]
struct Way {
    block: Box<Superblock>,
    step: Step,
    /// The number that it answers.
    answers: u64,
}

/// Versions of the superblock on their way to the device.
#[derive(Debug, Default)]
pub(crate) struct Superblocks {
    asked: u64,
    done: u64,
    /// The version on its way.
    way: Option<Way>,
    lease: Option<Lease>,
    /// The pool failed, and nothing more can be said about it.
    mute: bool,
}

impl Superblocks {
    /// Asks that the superblock as it will be at the end of this turn is written, and whatever
    /// was written before; tells the number to wait for.
    pub(crate) const fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Everything asked for up to this number is on the media.
    pub(crate) const fn done(&self) -> u64 {
        self.done
    }

    /// Whether nothing is on its way.
    pub(crate) const fn is_idle(&self) -> bool {
        self.way.is_none() && self.asked == self.done
    }

    /// Gives the buffer back; nothing is in flight any more.
    pub(crate) fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        if let Some(lease) = self.lease.take() {
            mem.free(lease);
        }
    }

    /// Makes sure that there is a buffer, so that a failure can be noted when no other is left.
    pub(crate) fn prepare<M: Memory>(&mut self, mem: &mut M) -> bool {
        if self.lease.is_none() {
            self.lease = mem.alloc(Class::Small);
        }
        self.lease.is_some()
    }
}

impl Pool {
    /// Begins to write the superblock if somebody asked for that.
    pub(crate) fn superblocks_on<M: Memory>(&mut self, mem: &mut M) {
        let supers = &mut self.superblocks;
        let due = supers.asked > supers.done && supers.way.is_none() && !supers.mute;
        if !due || self.config.read_only {
            return;
        }
        if !supers.prepare(mem) {
            return self.again();
        }
        let version = self.superblock.header.lsn.get() + 1;
        self.superblock.header.lsn = version.into();
        let (block, answers) = (Box::new(self.superblock), self.superblocks.asked);
        self.superblocks.way = Some(Way { block, step: Step::Main, answers });
        self.write_superblock(mem, false);
    }

    fn write_superblock<M: Memory>(&mut self, mem: &mut M, copy: bool) {
        let supers = &self.superblocks;
        let (Some(lease), Some(way)) = (supers.lease.as_ref(), supers.way.as_ref()) else { return };
        let version = way.block.header.lsn.get();
        let at = usize::from(copy) * 2 + usize::from(version % 2 == 1);
        let offset = slots(way.block.bytes.get())[at];
        encode::<M>(&way.block, offset, mem.bytes_mut(lease));
        let span = lease.span(0, BYTES);
        self.counters.page_writes += 1;
        self.counters.device_written_bytes += u64::from(BYTES);
        let token = self.superblock_token();
        self.emit(Effect::Write { token, span, offset });
    }

    fn superblock_token(&self) -> braid_block::Token {
        let key = Key { index: INDEX, generation: 0 };
        braid_block::Token::new(self.config.token_base + token::OPENING, key)
    }

    fn sync_superblock(&mut self) {
        self.counters.device_flushes += 1;
        let token = self.superblock_token();
        self.emit(Effect::Sync { token });
    }

    /// A write or flush of a superblock is done.
    pub(crate) fn on_superblock_done<M: Memory>(
        &mut self,
        mem: &mut M,
        result: Result<u32, IoError>,
    ) {
        let Some(way) = self.superblocks.way.as_mut() else { return };
        let step = way.step;
        let result = match step {
            Step::Main | Step::Copy => whole(result, BYTES),
            Step::MainSync | Step::CopySync => result.map(|_| ()),
        };
        if let Err(error) = result {
            // What this version was to say is not said; that the pool failed is to be, once.
            self.superblocks.mute = way.block.flags.get() & ERROR != 0;
            self.superblocks.way = None;
            let operation = match step {
                Step::Main | Step::Copy => Operation::Write,
                Step::MainSync | Step::CopySync => Operation::Flush,
            };
            self.fail(mem, operation, 0, error);
            if self.superblock.flags.get() & ERROR != 0 {
                self.superblocks_on(mem);
            }
            return;
        }
        match step {
            Step::Main => {
                way.step = Step::MainSync;
                self.sync_superblock();
            }
            Step::MainSync => {
                way.step = Step::Copy;
                self.write_superblock(mem, true);
            }
            Step::Copy => {
                way.step = Step::CopySync;
                self.sync_superblock();
            }
            Step::CopySync => {
                self.superblocks.done = way.answers;
                self.superblocks.way = None;
                self.superblocks_on(mem);
                self.again();
            }
        }
    }

    /// The pool failed: the next open is to know, even by the same kernel, for what was
    /// acknowledged may be gone. As far as the device still takes it.
    pub(crate) fn note_error<M: Memory>(&mut self, mem: &mut M) {
        let claimed = self.superblock.flags.get() & crate::layout::CLEAN == 0;
        if self.config.read_only || !claimed || self.superblock.magic != MAGIC {
            return;
        }
        let flags = self.superblock.flags.get() | ERROR;
        self.superblock.flags = flags.into();
        self.superblocks.ask();
        self.superblocks_on(mem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::DROPPED;
    use crate::rig::Rig;
    use crate::{Command, State};

    /// Bytes that the pool grows to.
    const GROWN: u64 = 96 << 20;

    /// What the next process of the same boot finds.
    fn reopened(rig: Rig) -> Rig {
        let config = crate::rig::config();
        let device = Device { bytes: GROWN, ..config.device };
        let rig = rig.reopen_as(crate::Config { device, ..config });
        assert_eq!(rig.pool.state(), State::Open, "{:?}", rig.notes);
        rig
    }

    /// A pool whose superblock is being written, because it grows.
    fn growing() -> Rig {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 3, 0x33);
        rig.run();
        rig.pool.command(&mut rig.mem, rig.now, 2, Command::Grow { bytes: GROWN });
        rig.turn();
        while rig.flying(token::OPENING).is_empty() {
            rig.finish(0);
        }
        rig
    }

    #[test]
    fn a_failure_of_the_superblock_itself_is_known_to_the_next_open() {
        // A write, a flush, the copy's write, the copy's flush.
        for steps in 0..4 {
            let mut rig = growing();
            for _ in 0..steps {
                let at = rig.flying(token::OPENING)[0];
                rig.finish(at);
            }
            let at = rig.flying(token::OPENING)[0];
            rig.fail(at, IoError::Device);
            assert_eq!(rig.pool.state(), State::Failed);
            rig.run();
            let rig = reopened(rig);
            let flags = rig.pool.superblock.flags.get();
            assert_ne!(flags & DROPPED, 0, "after {steps} steps");
        }
    }

    #[test]
    fn a_failure_that_comes_beside_a_superblock_which_fails_too_is_known_to_the_next_open() {
        let mut rig = growing();
        rig.write(rig.pool.find(&[1; 16]).expect("a replica"), 900, 1);
        let at = rig.flying(token::JOURNAL)[0];
        rig.fail(at, IoError::Device);
        let at = rig.flying(token::OPENING)[0];
        rig.fail(at, IoError::Device);
        rig.run();
        let rig = reopened(rig);
        assert_ne!(rig.pool.superblock.flags.get() & DROPPED, 0);
    }

    #[test]
    fn a_failure_that_cannot_be_told_is_not_told_again_and_again() {
        let mut rig = growing();
        for _ in 0..2 {
            let at = rig.flying(token::OPENING)[0];
            rig.fail(at, IoError::Device);
        }
        assert!(rig.flying(token::OPENING).is_empty());
        assert_eq!(rig.pool.state(), State::Failed);
        rig.run();
    }
}
