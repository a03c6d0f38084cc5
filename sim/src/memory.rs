//! The simulator's arena: vectors that count, and panic on who breaks a rule of leases.
//!
//! Invariants:
//! 1. A stale lease, or one given back twice, panics where it is used.
//! 2. A buffer that the simulated kernel holds is neither changed nor given back; one that it
//!    fills is not looked at either.
//! 3. What was leased and not given back is counted: [`SimMemory::assert_all_back`].

use std::cell::Cell;
use std::num::NonZeroU32;
use std::ops::Range;

use braid_block::{Class, Lease, LeaseId, Memory, Span};

/// An arena in plain memory.
#[derive(Debug)]
pub struct SimMemory {
    buffers: Vec<Buffer>,
    free: [Vec<u32>; 3],
    bytes_max: u64,
    bytes_out: u64,
    copied: u64,
    passes: Cell<u64>,
    passed: Cell<u64>,
}

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    class: Class,
    generation: NonZeroU32,
    leased: bool,
    /// Effects in flight that name it, and those of them that fill it.
    held: u32,
    filled: u32,
}

impl SimMemory {
    /// An arena that leases at most `bytes_max` at once.
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            buffers: Vec::new(),
            free: [Vec::new(), Vec::new(), Vec::new()],
            bytes_max,
            bytes_out: 0,
            copied: 0,
            passes: Cell::new(0),
            passed: Cell::new(0),
        }
    }

    /// Changes how much can be leased at once: less than is out refuses every new lease.
    pub const fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Leases that were not given back.
    #[must_use]
    pub fn out(&self) -> usize {
        self.buffers.iter().filter(|buffer| buffer.leased).count()
    }

    /// Bytes that were copied between buffers.
    #[must_use]
    pub const fn copied(&self) -> u64 {
        self.copied
    }

    /// Passes of a checksum over a part of a buffer.
    #[must_use]
    pub const fn crc_passes(&self) -> u64 {
        self.passes.get()
    }

    /// Bytes that checksums passed over.
    #[must_use]
    pub const fn crc_bytes_passed(&self) -> u64 {
        self.passed.get()
    }

    /// Asserts that every lease was given back and the kernel holds nothing.
    ///
    /// # Panics
    /// If a lease is out.
    pub fn assert_all_back(&self) {
        let lost = self.buffers.iter().filter(|buffer| buffer.leased);
        let classes: Vec<Class> = lost.map(|buffer| buffer.class).collect();
        assert!(classes.is_empty(), "leases that were not given back: {classes:?}");
    }

    /// Takes every buffer back, as the kernel does when a process dies. Leases that are still
    /// somewhere are stale from now on.
    pub fn reclaim(&mut self) {
        for (index, buffer) in (0..).zip(&mut self.buffers) {
            if buffer.leased {
                buffer.leased = false;
                (buffer.held, buffer.filled) = (0, 0);
                self.free[buffer.class as usize].push(index);
            }
        }
        self.bytes_out = 0;
    }

    /// A buffer with this content.
    ///
    /// # Panics
    /// If there is no buffer, or none so large.
    #[must_use]
    pub fn filled(&mut self, bytes: &[u8]) -> Lease {
        let len = u32::try_from(bytes.len()).expect("a small payload");
        let lease = self.alloc(Class::holding(len).expect("a class")).expect("a buffer");
        self.bytes_mut(&lease)[..bytes.len()].copy_from_slice(bytes);
        lease
    }

    /// The kernel begins to read these bytes, or to fill them.
    pub fn hold(&mut self, span: Span, fills: bool) {
        self.check(span);
        let buffer = &mut self.buffers[span.lease.index as usize];
        buffer.held += 1;
        buffer.filled += u32::from(fills);
    }

    /// The kernel is done with them.
    ///
    /// # Panics
    /// If it did not hold them, or not so.
    pub fn release(&mut self, span: Span, fills: bool) {
        self.check(span);
        let buffer = &mut self.buffers[span.lease.index as usize];
        buffer.held = buffer.held.checked_sub(1).expect("a buffer that the kernel holds");
        let filled = buffer.filled.checked_sub(u32::from(fills));
        buffer.filled = filled.expect("a buffer that the kernel fills");
    }

    /// The bytes that a span names, as the kernel reads them.
    #[must_use]
    pub fn span(&self, span: Span) -> &[u8] {
        self.check(span);
        &self.buffer(span.lease).bytes[span.offset as usize..][..span.len as usize]
    }

    /// The bytes that a span names, as the kernel fills them.
    pub fn span_mut(&mut self, span: Span) -> &mut [u8] {
        self.check(span);
        let bytes = &mut self.buffers[span.lease.index as usize].bytes;
        &mut bytes[span.offset as usize..][..span.len as usize]
    }

    /// All bytes that spans name, one after the other.
    #[must_use]
    pub fn gather(&self, spans: &[Span]) -> Vec<u8> {
        spans.iter().flat_map(|span| self.span(*span)).copied().collect()
    }

    fn check(&self, span: Span) {
        let capacity = u64::from(self.buffer(span.lease).class.bytes());
        let end = u64::from(span.offset) + u64::from(span.len);
        assert!(end <= capacity, "a span that leaves its buffer: {span:?}");
    }

    fn buffer(&self, id: LeaseId) -> &Buffer {
        let buffer = &self.buffers[id.index as usize];
        assert!(buffer.leased && buffer.generation == id.generation, "a stale lease: {id:?}");
        buffer
    }

    /// The buffer's content, as the core looks at it.
    fn seen(&self, id: LeaseId) -> &[u8] {
        let buffer = self.buffer(id);
        assert_eq!(buffer.filled, 0, "the kernel fills this buffer: {id:?}");
        &buffer.bytes
    }

    /// The buffer, to be changed by the core.
    fn buffer_mut(&mut self, id: LeaseId) -> &mut Buffer {
        let held = self.buffer(id).held;
        assert_eq!(held, 0, "the kernel holds this buffer: {id:?}");
        &mut self.buffers[id.index as usize]
    }

    fn count_pass(&self, bytes: u32) {
        self.passes.set(self.passes.get() + 1);
        self.passed.set(self.passed.get() + u64::from(bytes));
    }

    /// Two different buffers at once: what is copied to, and what is copied from.
    fn pair(&mut self, dst: LeaseId, src: LeaseId) -> (&mut [u8], &[u8]) {
        assert_ne!(dst, src, "a copy within one buffer");
        self.seen(src);
        self.buffer_mut(dst);
        let places = [dst.index as usize, src.index as usize];
        let [dst, src] = self.buffers.get_disjoint_mut(places).expect("two buffers");
        (&mut dst.bytes, &src.bytes)
    }
}

impl Memory for SimMemory {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        let bytes = u64::from(class.bytes());
        if self.bytes_out + bytes > self.bytes_max {
            return None;
        }
        self.bytes_out += bytes;
        let index = self.free[class as usize].pop().unwrap_or_else(|| {
            let bytes = vec![0xee; class.bytes() as usize];
            let generation = NonZeroU32::MIN;
            self.buffers.push(Buffer {
                bytes,
                class,
                generation,
                leased: false,
                held: 0,
                filled: 0,
            });
            u32::try_from(self.buffers.len() - 1).expect("few buffers")
        });
        let buffer = &mut self.buffers[index as usize];
        buffer.leased = true;
        buffer.generation = buffer.generation.checked_add(1).expect("fewer leases");
        Some(Lease::new(LeaseId { index, generation: buffer.generation }))
    }

    fn free(&mut self, lease: Lease) {
        let buffer = self.buffer_mut(lease.id());
        buffer.leased = false;
        let class = buffer.class;
        self.bytes_out -= u64::from(class.bytes());
        self.free[class as usize].push(lease.id().index);
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        self.buffer(lease.id()).class.bytes()
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        self.seen(lease.id())
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        &mut self.buffer_mut(lease.id()).bytes
    }

    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, src_range: Range<u32>) {
        self.copied += u64::from(src_range.end - src_range.start);
        let (to, from) = self.pair(dst.id(), src.id());
        let from = &from[src_range.start as usize..src_range.end as usize];
        to[dst_at as usize..][..from.len()].copy_from_slice(from);
    }

    fn copy_crc(
        &mut self,
        dst: &Lease,
        dst_at: u32,
        src: &Lease,
        src_range: Range<u32>,
        seed: u32,
    ) -> u32 {
        self.copy(dst, dst_at, src, src_range.clone());
        self.crc(src, src_range, seed)
    }

    fn crc(&self, lease: &Lease, range: Range<u32>, seed: u32) -> u32 {
        self.count_pass(range.end - range.start);
        Self::crc_bytes(&self.bytes(lease)[range.start as usize..range.end as usize], seed)
    }

    fn crc_bytes(bytes: &[u8], seed: u32) -> u32 {
        crc32c::crc32c_append(seed, bytes)
    }
}

impl braid_pool::Buffers for SimMemory {
    fn span(&self, span: Span) -> &[u8] {
        self.span(span)
    }

    fn span_mut(&mut self, span: Span) -> &mut [u8] {
        self.span_mut(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a stale lease")]
    fn a_lease_that_was_given_back_is_refused() {
        let mut memory = SimMemory::new(1 << 20);
        let lease = memory.alloc(Class::Small).unwrap();
        let span = lease.span(0, 512);
        memory.free(lease);
        let _other = memory.alloc(Class::Small).unwrap();
        let _ = memory.span(span);
    }

    #[test]
    #[should_panic(expected = "the kernel holds this buffer")]
    fn a_buffer_in_flight_is_not_changed() {
        let mut memory = SimMemory::new(1 << 20);
        let lease = memory.alloc(Class::Small).unwrap();
        memory.hold(lease.span(0, 512), false);
        assert_eq!(memory.bytes(&lease)[0], 0xee, "what is written may be read meanwhile");
        let _ = memory.bytes_mut(&lease);
    }

    #[test]
    #[should_panic(expected = "the kernel fills this buffer")]
    fn a_buffer_that_is_being_filled_is_not_summed() {
        let mut memory = SimMemory::new(1 << 20);
        let lease = memory.alloc(Class::Small).unwrap();
        memory.hold(lease.span(0, 512), true);
        let _ = memory.crc(&lease, 512..1024, 0);
    }

    #[test]
    #[should_panic(expected = "the kernel fills this buffer")]
    fn a_buffer_that_is_being_filled_is_not_copied_from() {
        let mut memory = SimMemory::new(1 << 20);
        let (to, from) = (memory.filled(&[1; 512]), memory.alloc(Class::Small).unwrap());
        memory.hold(from.span(0, 512), true);
        memory.copy(&to, 0, &from, 0..512);
    }

    #[test]
    fn what_was_filled_may_be_read_when_the_kernel_is_done() {
        let mut memory = SimMemory::new(1 << 20);
        let lease = memory.alloc(Class::Small).unwrap();
        let (span, other) = (lease.span(0, 512), lease.span(512, 512));
        memory.hold(span, true);
        memory.hold(other, false);
        memory.span_mut(span).fill(7);
        memory.release(span, true);
        assert_eq!(memory.bytes(&lease)[511..513], [7, 0xee]);
        memory.release(other, false);
        memory.free(lease);
        memory.assert_all_back();
    }

    #[test]
    #[should_panic(expected = "not given back")]
    fn a_leak_is_told() {
        let mut memory = SimMemory::new(1 << 20);
        let _lost = memory.alloc(Class::Large).unwrap();
        memory.assert_all_back();
    }

    #[test]
    fn copies_and_passes_are_counted() {
        let mut memory = SimMemory::new(8 << 10);
        let (a, b) = (memory.filled(b"123456789"), memory.alloc(Class::Small).unwrap());
        assert!(memory.alloc(Class::Small).is_none(), "over the limit");
        assert_eq!(memory.copy_crc(&b, 1, &a, 0..9, 0), 0xe306_9283);
        assert_eq!(&memory.bytes(&b)[1..10], b"123456789");
        assert_eq!((memory.copied(), memory.crc_passes()), (9, 1));
        memory.free(a);
        memory.reclaim();
        memory.assert_all_back();
    }
}
