//! The arena as the core sees it.

use std::ops::Range;

use braid_block::{Class, Lease, Memory};

use super::{Arena, State, UNIT};

/// A copy and its CRC go through the cache in pieces of this size.
const PIECE: usize = 4096;

impl Arena {
    /// Checks a lease; the offset of its buffer and its length.
    fn locate(&self, lease: &Lease) -> (usize, usize) {
        let id = lease.id();
        let slot = &self.slots[id.index as usize];
        assert_eq!(slot.generation, id.generation, "stale lease");
        let State::Out(class) = slot.state else { panic!("lease of a free buffer") };
        (id.index as usize * UNIT, class.bytes() as usize)
    }

    /// Both sides of a copy.
    fn pair(
        &mut self,
        dst: &Lease,
        dst_at: u32,
        src: &Lease,
        range: &Range<u32>,
    ) -> (&mut [u8], &[u8]) {
        assert_ne!(dst.id().index, src.id().index, "copy within a buffer");
        let source = &self.bytes(src)[range.start as usize..range.end as usize];
        let len = source.len();
        // SAFETY: the same slice, freed from the borrow of self: the destination is another
        // buffer (invariant 2), so the two do not overlap, and both results borrow self.
        let source = unsafe { std::slice::from_raw_parts(source.as_ptr(), len) };
        self.counters.copies += 1;
        self.counters.bytes_copied += len as u64;
        let target = &mut self.bytes_mut(dst)[dst_at as usize..][..len];
        (target, source)
    }

    fn count_pass(&self, range: &Range<u32>) {
        self.crc_passes.set(self.crc_passes.get() + 1);
        self.bytes_summed.set(self.bytes_summed.get() + u64::from(range.end - range.start));
    }
}

impl Memory for Arena {
    fn alloc(&mut self, class: Class) -> Option<Lease> {
        let unit = self.take_unit(class)?;
        debug_assert!(self.slots[unit as usize].state == State::Free);
        Some(self.lease(unit, class))
    }

    fn free(&mut self, lease: Lease) {
        let (_, len) = self.locate(&lease);
        let unit = lease.id().index;
        let slot = &mut self.slots[unit as usize];
        assert_eq!(slot.held, 0, "free of a buffer that the kernel holds");
        let State::Out(class) = slot.state else { return };
        self.counters.leases_out -= 1;
        self.counters.bytes_out -= len as u64;
        if let Some(number) = self.lent.home(unit).filter(|_| class == Class::Medium) {
            slot.state = State::Lent;
            self.lent.give_back(number);
        } else {
            slot.state = State::Free;
            self.buddy.give(class, unit);
        }
    }

    fn capacity(&self, lease: &Lease) -> u32 {
        match self.slots[lease.id().index as usize].state {
            State::Out(class) => class.bytes(),
            State::Free | State::Lent => 0,
        }
    }

    fn bytes(&self, lease: &Lease) -> &[u8] {
        let (at, len) = self.locate(lease);
        let slot = &self.slots[lease.id().index as usize];
        assert_eq!(slot.written, 0, "read of a buffer that the kernel writes");
        // SAFETY: the lease is current, so `len` bytes from `at` are its own, and the kernel does
        // not write them. Whoever changes them needs &mut self.
        unsafe { std::slice::from_raw_parts(self.pages.at(at).as_ptr(), len) }
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        let (at, len) = self.locate(lease);
        let slot = &self.slots[lease.id().index as usize];
        assert_eq!(slot.held, 0, "write to a buffer that the kernel holds");
        // SAFETY: as for bytes; &mut self makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.pages.at(at).as_ptr(), len) }
    }

    fn copy(&mut self, dst: &Lease, dst_at: u32, src: &Lease, src_range: Range<u32>) {
        let (target, source) = self.pair(dst, dst_at, src, &src_range);
        target.copy_from_slice(source);
    }

    fn copy_crc(
        &mut self,
        dst: &Lease,
        dst_at: u32,
        src: &Lease,
        src_range: Range<u32>,
        seed: u32,
    ) -> u32 {
        self.count_pass(&src_range);
        let (target, source) = self.pair(dst, dst_at, src, &src_range);
        let pieces = target.chunks_mut(PIECE).zip(source.chunks(PIECE));
        pieces.fold(seed, |crc, (to, from)| {
            to.copy_from_slice(from);
            crc32c::crc32c_append(crc, to)
        })
    }

    fn crc(&self, lease: &Lease, range: Range<u32>, seed: u32) -> u32 {
        self.count_pass(&range);
        let bytes = &self.bytes(lease)[range.start as usize..range.end as usize];
        crc32c::crc32c_append(seed, bytes)
    }

    fn crc_bytes(bytes: &[u8], seed: u32) -> u32 {
        crc32c::crc32c_append(seed, bytes)
    }
}
