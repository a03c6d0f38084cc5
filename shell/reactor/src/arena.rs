//! The buffers of a shard: real memory behind leases.
//!
//! Invariants:
//! 1. A lease's generation is that of its slot while it is out; any other one panics.
//! 2. Leases are disjoint: [`buddy`] gives each unit to one of them at a time. So references made
//!    from different leases never overlap, and those of one lease follow the borrow of the arena.
//! 3. While the kernel holds a buffer its lease cannot be freed or written; while the kernel
//!    writes it, not read either.
//! 4. Buffers lent to the kernel's receive ring have a home there for as long as the arena lives:
//!    a freed one goes back to the ring, so that no other use can starve the receivers.

mod buddy;
mod lent;
mod memory;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::num::NonZeroU32;
use std::ptr::NonNull;

use braid_block::{Class, Lease, LeaseId, Span};
use rustix::io::Errno;

use crate::pages::Pages;
use buddy::Buddy;
use lent::Lent;

/// Bytes of a unit, by which leases are numbered.
const UNIT: usize = Class::Small.bytes() as usize;
/// Chunks are aligned to a huge page at most.
const ALIGN_MAX: usize = 2 << 20;

/// Sizes of an arena.
#[derive(Clone, Copy, Debug)]
pub struct ArenaOptions {
    /// Bytes it grows and shrinks by; a multiple of 128 KiB.
    pub chunk_bytes: u32,
    /// Bytes it has at start and keeps.
    pub start_bytes: u64,
    /// Bytes it has at most.
    pub limit_bytes: u64,
}

impl Default for ArenaOptions {
    fn default() -> Self {
        Self { chunk_bytes: 2 << 20, start_bytes: 8 << 20, limit_bytes: 64 << 20 }
    }
}

/// What an arena did and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaCounters {
    /// Leases out now.
    pub leases_out: u64,
    /// Bytes of leases out now.
    pub bytes_out: u64,
    /// Chunks now.
    pub chunks: u64,
    /// Leases given since the start.
    pub leases: u64,
    /// Times that there was no buffer.
    pub exhausted: u64,
    /// Payload copies since the start.
    pub copies: u64,
    /// Bytes copied since the start.
    pub bytes_copied: u64,
    /// CRC passes since the start.
    pub crc_passes: u64,
    /// Bytes that they went over.
    pub bytes_summed: u64,
}

/// A buffer as the kernel sees it while it holds it.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// Where the span begins.
    pub(crate) at: NonNull<u8>,
    /// For [`Arena::release`].
    pub(crate) unit: u32,
    /// The registered buffer it lies in.
    pub(crate) fixed: Option<u16>,
}

// SAFETY: the pointer leads to the arena of the same reactor, which moves to another thread only
// together with this.
unsafe impl Send for Held {}

/// Who is in the buffer that begins at this unit.
#[derive(Clone, Copy)]
struct Slot {
    generation: NonZeroU32,
    /// How often the kernel holds it.
    held: u16,
    /// How often it does so to write.
    written: u8,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No lease begins here.
    Free,
    /// Leased.
    Out(Class),
    /// With the kernel's receive ring, or on the way back to it.
    Lent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// No memory behind it.
    Absent,
    /// In use, unknown to the ring.
    Plain,
    /// In use, a registered buffer.
    Registered,
}

/// A shard's buffers.
pub struct Arena {
    pages: Pages,
    buddy: Buddy,
    slots: Box<[Slot]>,
    chunks: Box<[Chunk]>,
    chunk_bytes: u32,
    start_chunks: u32,
    live_chunks: u32,
    /// Chunks that the reactor has not looked at yet.
    fresh: bool,
    lent: Lent,
    held: u64,
    counters: ArenaCounters,
    crc_passes: Cell<u64>,
    bytes_summed: Cell<u64>,
}

impl Arena {
    /// Reserves the address range and takes the first chunks.
    ///
    /// # Errors
    /// When the system gives no memory; EINVAL when the sizes do not fit each other.
    pub fn new(options: ArenaOptions) -> std::io::Result<Self> {
        Self::reserve(options).map_err(Into::into)
    }

    fn reserve(options: ArenaOptions) -> Result<Self, Errno> {
        let ArenaOptions { chunk_bytes, start_bytes, limit_bytes } = options;
        if chunk_bytes == 0 || chunk_bytes % Class::Large.bytes() != 0 {
            return Err(Errno::INVAL);
        }
        let chunk = u64::from(chunk_bytes);
        let chunks = u32::try_from(limit_bytes / chunk).map_err(|_| Errno::INVAL)?;
        let start_chunks = u32::try_from(start_bytes.div_ceil(chunk)).map_err(|_| Errno::INVAL)?;
        if chunks == 0 || chunks > 1 << 14 || start_chunks > chunks {
            return Err(Errno::INVAL);
        }
        let len = usize::try_from(u64::from(chunks) * chunk).map_err(|_| Errno::INVAL)?;
        let align = (chunk_bytes as usize).next_power_of_two().min(ALIGN_MAX);
        let slot = Slot { generation: NonZeroU32::MIN, held: 0, written: 0, state: State::Free };
        let mut arena = Self {
            pages: Pages::reserve(len, align)?,
            buddy: Buddy::new(chunks, chunk_bytes / Class::Large.bytes()),
            slots: vec![slot; len / UNIT].into(),
            chunks: vec![Chunk::Absent; chunks as usize].into(),
            chunk_bytes,
            start_chunks,
            live_chunks: 0,
            fresh: false,
            lent: Lent::default(),
            held: 0,
            counters: ArenaCounters::default(),
            crc_passes: Cell::new(0),
            bytes_summed: Cell::new(0),
        };
        while arena.live_chunks < start_chunks && arena.grow() {}
        Ok(arena)
    }

    /// What it did and holds.
    #[must_use]
    pub fn counters(&self) -> ArenaCounters {
        ArenaCounters {
            crc_passes: self.crc_passes.get(),
            bytes_summed: self.bytes_summed.get(),
            chunks: self.live_chunks.into(),
            ..self.counters
        }
    }

    /// Bytes it may have.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.chunks.len() as u64 * u64::from(self.chunk_bytes)
    }

    /// Chunks it may have.
    pub(crate) fn chunks_max(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX)
    }

    /// Leases that are out: a leak, once their owner has ended.
    #[must_use]
    pub const fn leases_out(&self) -> u64 {
        self.counters.leases_out
    }

    /// Hands a span to the kernel, which writes to it or reads from it until [`Arena::release`].
    pub(crate) fn hold(&mut self, span: Span, writes: bool) -> Held {
        let unit = span.lease.index;
        let slot = &mut self.slots[unit as usize];
        let State::Out(class) = slot.state else { panic!("span of a buffer that is not leased") };
        assert_eq!(slot.generation, span.lease.generation, "span of a buffer leased anew");
        assert!(u64::from(span.offset) + u64::from(span.len) <= u64::from(class.bytes()));
        slot.held += 1;
        slot.written = slot.written.checked_add(u8::from(writes)).expect("255 reads at once");
        self.held += 1;
        let offset = unit as usize * UNIT + span.offset as usize;
        let chunk = offset / self.chunk_bytes as usize;
        let registered = self.chunks[chunk] == Chunk::Registered;
        let fixed = if registered { u16::try_from(chunk).ok() } else { None };
        // An empty span at the end of the last buffer has no address of its own.
        let at = self.pages.at(offset.min(self.slots.len() * UNIT - 1));
        Held { at, unit, fixed }
    }

    /// The kernel may hold buffers for ever: they stay mapped, and leases that are out are no leak.
    pub(crate) fn abandon(&mut self) {
        self.pages.abandon();
        self.counters.leases_out = 0;
    }

    /// The kernel is done with a span.
    pub(crate) fn release(&mut self, unit: u32, writes: bool) {
        let slot = &mut self.slots[unit as usize];
        slot.held -= 1;
        slot.written -= u8::from(writes);
        self.held -= 1;
    }

    /// The next chunk that is in use but not registered, if any appeared since the last call that
    /// returned none.
    pub(crate) fn next_fresh(&mut self) -> Option<(u16, NonNull<u8>, usize)> {
        if !self.fresh {
            return None;
        }
        let Some(chunk) = self.chunks.iter().position(|c| *c == Chunk::Plain) else {
            self.fresh = false;
            return None;
        };
        let len = self.chunk_bytes as usize;
        Some((u16::try_from(chunk).ok()?, self.pages.at(chunk * len), len))
    }

    /// A chunk was registered under its own number.
    pub(crate) fn set_registered(&mut self, chunk: u16) {
        self.chunks[chunk as usize] = Chunk::Registered;
    }

    /// No chunk shall be offered by [`Arena::next_fresh`] until another one appears.
    pub(crate) fn stop_registering(&mut self) {
        self.fresh = false;
    }

    /// A chunk that holds no lease and is more than what it keeps, and whether it is registered.
    pub(crate) fn idle_chunk(&self) -> Option<(u16, bool)> {
        if self.live_chunks <= self.start_chunks {
            return None;
        }
        let idle = |i: &u32| self.chunks[*i as usize] != Chunk::Absent && self.buddy.is_idle(*i);
        let chunk = (0..u32::try_from(self.chunks.len()).ok()?).rev().find(idle)?;
        let registered = self.chunks[chunk as usize] == Chunk::Registered;
        Some((u16::try_from(chunk).ok()?, registered))
    }

    /// Gives an idle, unregistered chunk's memory back to the system.
    pub(crate) fn release_chunk(&mut self, chunk: u16) -> Result<(), Errno> {
        self.buddy.shrink(chunk.into());
        self.chunks[chunk as usize] = Chunk::Absent;
        self.live_chunks -= 1;
        let len = self.chunk_bytes as usize;
        self.pages.discard(chunk as usize * len, len)
    }

    /// Takes another chunk, if the limit allows it.
    fn grow(&mut self) -> bool {
        let Some(chunk) = self.chunks.iter().position(|c| *c == Chunk::Absent) else {
            return false;
        };
        self.chunks[chunk] = Chunk::Plain;
        self.buddy.grow(u32::try_from(chunk).unwrap_or(u32::MAX));
        self.live_chunks += 1;
        self.fresh = true;
        true
    }

    fn take_unit(&mut self, class: Class) -> Option<u32> {
        loop {
            if let Some(unit) = self.buddy.take(class) {
                return Some(unit);
            }
            if !self.grow() {
                self.counters.exhausted += 1;
                return None;
            }
        }
    }

    /// Makes the buffer at `unit` a lease of the next generation.
    fn lease(&mut self, unit: u32, class: Class) -> Lease {
        let slot = &mut self.slots[unit as usize];
        slot.generation = slot.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        slot.state = State::Out(class);
        self.counters.leases += 1;
        self.counters.leases_out += 1;
        self.counters.bytes_out += u64::from(class.bytes());
        Lease::new(LeaseId { index: unit, generation: slot.generation })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.held > 0 {
            self.pages.abandon();
        }
        let leaked = self.counters.leases_out;
        debug_assert!(leaked == 0 || std::thread::panicking(), "{leaked} leases leaked");
    }
}
