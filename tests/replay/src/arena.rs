//! Memory of vectors that counts leases and refuses a stale one.

use std::num::NonZeroU32;
use std::ops::Range;

use braid_block::{Class, Lease, LeaseId, Memory, Span};

/// Buffers for a body, with a limit.
#[derive(Debug)]
pub(crate) struct Arena {
    buffers: Vec<Buffer>,
    free: [Vec<u32>; 3],
    bytes_max: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    class: Class,
    generation: NonZeroU32,
    leased: bool,
}

impl Arena {
    /// An arena that leases at most `bytes_max` at once.
    pub(crate) const fn new(bytes_max: u64) -> Self {
        let free = [Vec::new(), Vec::new(), Vec::new()];
        Self { buffers: Vec::new(), free, bytes_max, bytes: 0 }
    }

    /// Leases that were not given back.
    pub(crate) fn leased(&self) -> usize {
        self.buffers.iter().filter(|buffer| buffer.leased).count()
    }

    /// The bytes that a span names, as the kernel would read them.
    pub(crate) fn span(&self, span: Span) -> &[u8] {
        &self.buffer(span.lease).bytes[span.offset as usize..][..span.len as usize]
    }

    /// The bytes of a batch, as the kernel would gather them.
    pub(crate) fn gather(&self, spans: &[Span]) -> Vec<u8> {
        let mut bytes = Vec::new();
        spans.iter().for_each(|span| bytes.extend_from_slice(self.span(*span)));
        bytes
    }

    /// The bytes that a span names, as the kernel would fill them.
    pub(crate) fn span_mut(&mut self, span: Span) -> &mut [u8] {
        self.buffer(span.lease);
        let bytes = &mut self.buffers[span.lease.index as usize].bytes;
        &mut bytes[span.offset as usize..][..span.len as usize]
    }

    fn buffer(&self, id: LeaseId) -> &Buffer {
        let buffer = &self.buffers[id.index as usize];
        assert!(buffer.leased && buffer.generation == id.generation, "a stale lease: {id:?}");
        buffer
    }
}

impl Memory for Arena {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        let bytes = u64::from(class.bytes());
        if self.bytes + bytes > self.bytes_max {
            return None;
        }
        self.bytes += bytes;
        let index = self.free[class as usize].pop().unwrap_or_else(|| {
            let bytes = vec![0xee; class.bytes() as usize];
            self.buffers.push(Buffer { bytes, class, generation: NonZeroU32::MIN, leased: false });
            u32::try_from(self.buffers.len() - 1).expect("few buffers")
        });
        let buffer = &mut self.buffers[index as usize];
        buffer.leased = true;
        buffer.generation = buffer.generation.saturating_add(1);
        Some(Lease::new(LeaseId { index, generation: buffer.generation }))
    }

    fn free(&mut self, lease: Lease) {
        let id = lease.id();
        let class = self.buffer(id).class;
        self.buffers[id.index as usize].leased = false;
        self.bytes -= u64::from(class.bytes());
        self.free[class as usize].push(id.index);
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        self.buffer(lease.id()).class.bytes()
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        &self.buffer(lease.id()).bytes
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        self.buffer(lease.id());
        &mut self.buffers[lease.id().index as usize].bytes
    }

    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, src_range: Range<u32>) {
        assert_ne!(dst.id(), src.id(), "a copy within one buffer");
        let from = self.bytes(src)[src_range.start as usize..src_range.end as usize].to_vec();
        self.bytes_mut(dst)[dst_at as usize..][..from.len()].copy_from_slice(&from);
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
        Self::crc_bytes(&self.bytes(lease)[range.start as usize..range.end as usize], seed)
    }

    fn crc_bytes(bytes: &[u8], seed: u32) -> u32 {
        crc32c::crc32c_append(seed, bytes)
    }
}
