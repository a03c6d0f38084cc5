//! Buffers from the heap. They have generations, so that one that is used after it was given back
//! is found out.

use std::num::NonZeroU32;
use std::ops::Range;

use braid_block::{Class, Lease, LeaseId, Memory, Span};

#[derive(Debug, Default)]
pub(crate) struct Heap {
    buffers: Vec<Buffer>,
    /// Buffers that are leased.
    pub(crate) leased: usize,
    /// No more than these, if that is set.
    pub(crate) max: Option<usize>,
}

#[derive(Debug)]
struct Buffer {
    generation: NonZeroU32,
    leased: bool,
    bytes: Vec<u8>,
}

impl Heap {
    fn at(&self, id: LeaseId) -> &Buffer {
        let buffer = &self.buffers[id.index as usize];
        assert!(buffer.leased && buffer.generation == id.generation, "{id:?} was given back");
        buffer
    }

    /// What a command was sent with.
    pub(crate) fn span(&self, span: Span) -> &[u8] {
        let (first, len) = (span.offset as usize, span.len as usize);
        &self.at(span.lease).bytes[first..first + len]
    }

    /// What a command fills.
    pub(crate) fn span_mut(&mut self, span: Span) -> &mut [u8] {
        self.at(span.lease);
        let (first, len) = (span.offset as usize, span.len as usize);
        &mut self.buffers[span.lease.index as usize].bytes[first..first + len]
    }
}

impl Memory for Heap {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        if self.max.is_some_and(|max| self.leased >= max) {
            return None;
        }
        self.leased += 1;
        let bytes = class.bytes() as usize;
        let fits = |buffer: &Buffer| !buffer.leased && buffer.bytes.len() == bytes;
        let index = self.buffers.iter().position(fits).unwrap_or_else(|| {
            let generation = NonZeroU32::MIN;
            self.buffers.push(Buffer { generation, leased: false, bytes: vec![0; bytes] });
            self.buffers.len() - 1
        });
        let buffer = &mut self.buffers[index];
        buffer.leased = true;
        // Old payload, as real memory has it.
        buffer.bytes.fill(b'?');
        Some(Lease::new(LeaseId { index: index as u32, generation: buffer.generation }))
    }

    fn free(&mut self, lease: Lease) {
        self.at(lease.id());
        let buffer = &mut self.buffers[lease.id().index as usize];
        buffer.leased = false;
        buffer.generation = buffer.generation.checked_add(1).expect("tests are short");
        self.leased -= 1;
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        self.at(lease.id()).bytes.len() as u32
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        &self.at(lease.id()).bytes
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        self.at(lease.id());
        &mut self.buffers[lease.id().index as usize].bytes
    }

    fn copy(&mut self, _: &Lease, _: u32, _: &Lease, _: Range<u32>) {
        unreachable!("a volume copies no payload");
    }

    fn copy_crc(&mut self, _: &Lease, _: u32, _: &Lease, _: Range<u32>, _: u32) -> u32 {
        unreachable!("a volume copies no payload");
    }

    fn crc(&self, _: &Lease, _: Range<u32>, _: u32) -> u32 {
        unreachable!("a volume looks at no payload");
    }

    fn crc_bytes(_: &[u8], _: u32) -> u32 {
        unreachable!("a volume looks at no payload");
    }
}
