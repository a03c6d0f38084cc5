//! Buffers for tests: vectors, as many as asked for, or none.

use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;

use braid_block::{Class, Lease, LeaseId, Memory, Span};

/// Buffers that are there.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    buffers: Vec<(Class, Vec<u8>, bool)>,
    /// There are no more.
    pub(crate) exhausted: bool,
}

impl Arena {
    /// Buffers that were not given back.
    pub(crate) fn leased(&self) -> usize {
        self.buffers.iter().filter(|(_, _, leased)| *leased).count()
    }

    /// The bytes that a span names.
    pub(crate) fn span_mut(&mut self, span: Span) -> &mut [u8] {
        let bytes = &mut self.buffers[span.lease.index as usize].1;
        &mut bytes[span.offset as usize..][..span.len as usize]
    }
}

impl crate::Buffers for Arena {
    fn span(&self, span: Span) -> &[u8] {
        &self.buffers[span.lease.index as usize].1[span.offset as usize..][..span.len as usize]
    }

    fn span_mut(&mut self, span: Span) -> &mut [u8] {
        Self::span_mut(self, span)
    }
}

impl Memory for Arena {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        if self.exhausted {
            return None;
        }
        let free = self.buffers.iter().position(|(of, _, leased)| *of == class && !leased);
        let at = free.unwrap_or_else(|| {
            self.buffers.push((class, alloc::vec![0xee; class.bytes() as usize], false));
            self.buffers.len() - 1
        });
        self.buffers[at].2 = true;
        let index = u32::try_from(at).expect("few buffers");
        Some(Lease::new(LeaseId { index, generation: NonZeroU32::MIN }))
    }

    fn free(&mut self, lease: Lease) {
        assert!(core::mem::take(&mut self.buffers[lease.id().index as usize].2), "freed twice");
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        self.buffers[lease.id().index as usize].0.bytes()
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        &self.buffers[lease.id().index as usize].1
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        &mut self.buffers[lease.id().index as usize].1
    }

    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, src_range: Range<u32>) {
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
