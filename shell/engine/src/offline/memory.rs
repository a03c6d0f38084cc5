//! Buffers of a tool: plain vectors, as many as are asked for.

use std::num::NonZeroU32;
use std::ops::Range;

use braid_block::{Class, Lease, LeaseId, Memory, Span};
use braid_pool::Buffers;

/// Buffers on the heap. A free one is kept for the next that asks for its class.
#[derive(Debug, Default)]
pub struct Heap {
    buffers: Vec<Vec<u8>>,
    free: Vec<u32>,
}

impl Heap {
    fn buffer(&self, lease: &Lease) -> &Vec<u8> {
        &self.buffers[lease.id().index as usize]
    }

    fn buffer_mut(&mut self, index: u32) -> &mut Vec<u8> {
        &mut self.buffers[index as usize]
    }
}

fn range(range: Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

impl Memory for Heap {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        let bytes = class.bytes() as usize;
        let fits = |index: &u32| self.buffers[*index as usize].len() == bytes;
        let index = match self.free.iter().position(fits) {
            Some(at) => self.free.swap_remove(at),
            None => {
                self.buffers.push(vec![0; bytes]);
                u32::try_from(self.buffers.len() - 1).ok()?
            }
        };
        Some(Lease::new(LeaseId { index, generation: NonZeroU32::MIN }))
    }

    fn free(&mut self, lease: Lease) {
        self.free.push(lease.id().index);
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        u32::try_from(self.buffer(lease).len()).unwrap_or(u32::MAX)
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        self.buffer(lease)
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        self.buffer_mut(lease.id().index)
    }

    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, src_range: Range<u32>) {
        let piece = self.buffer(src)[range(src_range)].to_vec();
        self.buffer_mut(dst.id().index)[dst_at as usize..][..piece.len()].copy_from_slice(&piece);
    }

    fn copy_crc(
        &mut self,
        dst: &Lease,
        dst_at: u32,
        src: &Lease,
        src_range: Range<u32>,
        seed: u32,
    ) -> u32 {
        let crc = self.crc(src, src_range.clone(), seed);
        self.copy(dst, dst_at, src, src_range);
        crc
    }

    fn crc(&self, lease: &Lease, part: Range<u32>, seed: u32) -> u32 {
        Self::crc_bytes(&self.buffer(lease)[range(part)], seed)
    }

    fn crc_bytes(bytes: &[u8], seed: u32) -> u32 {
        crc32c::crc32c_append(seed, bytes)
    }
}

impl Buffers for Heap {
    fn span(&self, span: Span) -> &[u8] {
        &self.buffers[span.lease.index as usize][span.offset as usize..][..span.len as usize]
    }

    fn span_mut(&mut self, span: Span) -> &mut [u8] {
        let buffer = self.buffer_mut(span.lease.index);
        &mut buffer[span.offset as usize..][..span.len as usize]
    }
}
