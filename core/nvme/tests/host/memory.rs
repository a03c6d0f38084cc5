//! An arena of vectors that knows what the kernel would hold, and panics on who touches it.

use std::cell::Cell;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::Range;

use braid_block::{Class, Lease, LeaseId, Memory, Span};

/// The arena.
#[derive(Default)]
pub(crate) struct Arena {
    buffers: Vec<(u32, Option<Vec<u8>>)>,
    /// How many sends hold a buffer.
    held: HashMap<LeaseId, u32>,
    /// Buffers that can still be had.
    pub(crate) left: u32,
    /// Those that the receivers filled: they are no part of these.
    delivered: Vec<u32>,
    pub(crate) copied: u64,
    /// Bytes that a checksum was passed over.
    #[allow(dead_code, reason = "only tests of what is counted look at it")]
    pub(crate) passed: Cell<u64>,
    /// Buffers that were given back, to be used again.
    spare: Vec<Vec<u8>>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self { left: u32::MAX, ..Self::default() }
    }

    /// The kernel begins to read these bytes.
    pub(crate) fn hold(&mut self, spans: &[Span]) {
        for span in spans {
            self.get(span.lease);
            *self.held.entry(span.lease).or_default() += 1;
        }
    }

    /// The kernel is done with them.
    pub(crate) fn release(&mut self, spans: &[Span]) {
        for span in spans {
            let count = self.held.get_mut(&span.lease).expect("a held buffer");
            *count -= 1;
            if *count == 0 {
                self.held.remove(&span.lease);
            }
        }
    }

    pub(crate) fn gather(&self, spans: &[Span]) -> Vec<u8> {
        let piece =
            |span: &Span| &self.get(span.lease)[span.offset as usize..][..span.len as usize];
        spans.iter().flat_map(piece).copied().collect()
    }

    /// The kernel received these bytes.
    #[allow(dead_code, reason = "only the tests that receive into a buffer use it")]
    pub(crate) fn write(&mut self, span: Span, bytes: &[u8]) {
        self.get_mut(span.lease)[span.offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Buffers that are out.
    pub(crate) fn out(&self) -> usize {
        self.buffers.iter().filter(|(_, buffer)| buffer.is_some()).count()
    }

    /// A buffer with this content.
    pub(crate) fn filled(&mut self, bytes: &[u8]) -> Lease {
        let class = Class::holding(bytes.len() as u32).expect("a class");
        let lease = self.alloc(class).expect("a buffer");
        self.bytes_mut(&lease)[..bytes.len()].copy_from_slice(bytes);
        lease
    }

    fn get(&self, id: LeaseId) -> &Vec<u8> {
        let (generation, buffer) = &self.buffers[id.index as usize];
        assert_eq!(*generation, id.generation.get(), "a stale lease");
        buffer.as_ref().expect("a lease that was given back")
    }

    fn get_mut(&mut self, id: LeaseId) -> &mut Vec<u8> {
        assert!(!self.held.contains_key(&id), "the kernel holds this buffer");
        self.get(id);
        self.buffers[id.index as usize].1.as_mut().expect("a buffer")
    }
}

impl Arena {
    /// A buffer that a receiver fills, whatever is left for others.
    #[allow(dead_code, reason = "hosts alone receive otherwise")]
    pub(crate) fn deliver(&mut self, class: Class) -> Lease {
        let left = core::mem::replace(&mut self.left, u32::MAX);
        let lease = self.alloc(class).expect("there is one");
        self.left = left;
        self.delivered.push(lease.id().index);
        lease
    }
}

impl Memory for Arena {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        self.left = self.left.checked_sub(1)?;
        let index = self.buffers.iter().position(|(_, buffer)| buffer.is_none());
        let index = index.unwrap_or(self.buffers.len());
        if index == self.buffers.len() {
            self.buffers.push((0, None));
        }
        let (generation, buffer) = &mut self.buffers[index];
        *generation += 1;
        let bytes = class.bytes() as usize;
        let spare = self.spare.iter().position(|spare| spare.len() == bytes);
        let mut content = spare.map_or_else(|| vec![0; bytes], |at| self.spare.swap_remove(at));
        content.fill(0xa5);
        *buffer = Some(content);
        let generation = NonZeroU32::new(*generation).expect("not zero");
        Some(Lease::new(LeaseId { index: index as u32, generation }))
    }

    fn free(&mut self, lease: Lease) {
        self.get_mut(lease.id());
        let index = lease.id().index;
        match self.delivered.iter().position(|delivered| *delivered == index) {
            Some(at) => drop(self.delivered.swap_remove(at)),
            None => self.left = self.left.saturating_add(1),
        }
        let buffer = self.buffers[lease.id().index as usize].1.take();
        self.spare.extend(buffer);
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        self.get(lease.id()).len() as u32
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        self.get(lease.id())
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        self.get_mut(lease.id())
    }

    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, src_range: Range<u32>) {
        let range = src_range.start as usize..src_range.end as usize;
        self.copied += range.len() as u64;
        self.get(src.id());
        let source = self.buffers[src.id().index as usize].1.take().expect("a buffer");
        self.get_mut(dst.id())[dst_at as usize..][..range.len()].copy_from_slice(&source[range]);
        self.buffers[src.id().index as usize].1 = Some(source);
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
        self.passed.set(self.passed.get() + u64::from(range.end - range.start));
        Self::crc_bytes(&self.bytes(lease)[range.start as usize..range.end as usize], seed)
    }

    fn crc_bytes(bytes: &[u8], seed: u32) -> u32 {
        crc32c::crc32c_append(seed, bytes)
    }
}
