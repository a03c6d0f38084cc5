//! The rings of buffers that the kernel takes from when bytes arrive on a stream, one for each kind
//! of traffic.
//!
//! Invariants:
//! 1. Each buffer in one is lent by the arena under its number there, once. A number tells its
//!    ring, so that what one kind of traffic holds is never missing to another.
//! 2. The kernel reads an entry only after the tail passed it.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use braid_block::Class;
use braid_shard::Traffic;
use io_uring::types::BufRingEntry;
use rustix::io::Errno;

use crate::arena::Arena;
use crate::pages::Pages;

/// The rings of all kinds of traffic.
pub(crate) struct Buffers {
    rings: [BufferRing; Traffic::ALL.len()],
}

impl Buffers {
    /// Empty rings of so many entries, powers of two.
    pub(crate) fn new(entries: [u16; Traffic::ALL.len()]) -> Result<Self, Errno> {
        let [hosts, nexuses, targets] = entries;
        let rings = [BufferRing::new(hosts)?, BufferRing::new(nexuses)?, BufferRing::new(targets)?];
        Ok(Self { rings })
    }

    /// Each with its buffer group.
    pub(crate) fn rings(&self) -> impl Iterator<Item = (u16, &BufferRing)> {
        Traffic::ALL.iter().map(|traffic| (group(*traffic), &self.rings[*traffic as usize]))
    }

    /// Buffers that the kernel could take now for this traffic.
    pub(crate) const fn available(&self, traffic: Traffic) -> u16 {
        self.rings[traffic as usize].available
    }

    /// The kernel took a buffer.
    pub(crate) fn taken(&mut self, number: u16) {
        self.ring_of(number).available -= 1;
    }

    /// Lends the kernel everything that came back.
    pub(crate) fn refill(&mut self, arena: &mut Arena) {
        let before = [0, 1, 2].map(|ring: usize| self.rings[ring].tail);
        while let Some((number, at)) = arena.next_returned() {
            self.ring_of(number).put(number, at);
        }
        for (ring, before) in self.rings.iter_mut().zip(before) {
            if ring.tail != before {
                ring.publish();
            }
        }
    }

    /// The ring of a buffer: numbers go on from ring to ring.
    fn ring_of(&mut self, number: u16) -> &mut BufferRing {
        let [hosts, nexuses, targets] = &mut self.rings;
        if number < hosts.entries {
            hosts
        } else if number - hosts.entries < nexuses.entries {
            nexuses
        } else {
            targets
        }
    }
}

/// The buffer group of a kind of traffic.
pub(crate) const fn group(traffic: Traffic) -> u16 {
    traffic as u16
}

/// Entries shared with the kernel.
pub(crate) struct BufferRing {
    pages: Pages,
    entries: u16,
    tail: u16,
    /// Buffers that are with the kernel.
    available: u16,
}

impl BufferRing {
    /// A ring of `entries` buffers, a power of two; none are in it yet.
    fn new(entries: u16) -> Result<Self, Errno> {
        let len = (usize::from(entries) * size_of::<BufRingEntry>()).next_multiple_of(4096);
        Ok(Self { pages: Pages::reserve(len, 4096)?, entries, tail: 0, available: 0 })
    }

    /// Where it begins, for its registration.
    pub(crate) fn address(&self) -> u64 {
        self.pages.at(0).as_ptr().addr() as u64
    }

    /// How many entries it has.
    pub(crate) const fn entries(&self) -> u16 {
        self.entries
    }

    fn put(&mut self, number: u16, at: NonNull<u8>) {
        let entry: NonNull<BufRingEntry> = self.pages.at(0).cast();
        // SAFETY: the position is below `entries`, for which the pages have room. The kernel does
        // not look at it before publish (invariant 2), and the arena lends no more than `entries`
        // buffers, so it has taken what was there before. The tail field, which shares its bytes
        // with a reserved field of the first entry, is not touched by the setters.
        let entry = unsafe { entry.add(usize::from(self.tail & (self.entries - 1))).as_mut() };
        entry.set_addr(at.as_ptr().addr() as u64);
        entry.set_len(Class::Medium.bytes());
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        self.available += 1;
    }

    fn publish(&mut self) {
        let base: NonNull<BufRingEntry> = self.pages.at(0).cast();
        // SAFETY: the base is the first of the entries; the tail is an aligned u16 in it that the
        // kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
