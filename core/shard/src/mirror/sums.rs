//! What is known of the checksums of buffers that volumes hold, so that a payload is passed over
//! once: what its connection, its pool or its link has summed is not summed again on its way to
//! replicas, or to the host.
//!
//! Invariants:
//! 1. What is known of a buffer is of its bytes as they are: whoever has it filled anew says so
//!    first ([`KnownSums::forget`]), and it goes when the volume gives the buffer back.

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::{LeaseId, SUM_BYTES, Sums};

/// By buffer.
#[derive(Debug, Default)]
pub(crate) struct KnownSums {
    places: Vec<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    lease: LeaseId,
    /// Of the blocks of a write; or a place for those of a read, while no pool has it.
    sums: Option<Box<Sums>>,
    /// CRC32C of all that was read.
    digest: Option<u32>,
}

impl KnownSums {
    fn get(&mut self, lease: LeaseId) -> Option<&mut Known> {
        let known = self.places.get_mut(lease.index as usize)?.as_mut();
        known.filter(|known| known.lease == lease)
    }

    /// A buffer comes to a volume: with the sums of what is written, or with a place for those of
    /// what is read, if its host wants them.
    pub(super) fn put(&mut self, lease: LeaseId, sums: Box<Sums>) {
        let place = lease.index as usize;
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(Known { lease, sums: Some(sums), digest: None });
    }

    /// It goes: the CRC32C of what was read, if that is known, and the sums' place.
    pub(super) fn take(&mut self, lease: LeaseId) -> Option<(Option<u32>, Option<Box<Sums>>)> {
        let place = self.places.get_mut(lease.index as usize)?;
        let known = place.take_if(|known| known.lease == lease)?;
        Some((known.digest, known.sums))
    }

    /// The buffer is about to be filled.
    pub(super) fn forget(&mut self, lease: LeaseId) {
        if let Some(known) = self.get(lease) {
            known.digest = None;
            if let Some(sums) = &mut known.sums {
                sums.clear();
            }
        }
    }

    /// Of the blocks of a write.
    pub(super) fn of_write(&mut self, lease: LeaseId, len: u32) -> Option<&Sums> {
        let sums = self.get(lease)?.sums.as_deref();
        sums.filter(|sums| len >= SUM_BYTES && sums.get(0).is_some())
    }

    /// The place for those of a read of so many bytes, to be filled by a pool.
    pub(super) fn lend(&mut self, lease: LeaseId, len: u32) -> Option<Box<Sums>> {
        let known = self.get(lease).filter(|_| len.is_multiple_of(SUM_BYTES))?;
        known.sums.take()
    }

    /// A pool has read so many bytes, and summed them. The place comes back if nobody here wants
    /// it.
    pub(super) fn filled(
        &mut self,
        lease: LeaseId,
        len: u32,
        sums: Box<Sums>,
    ) -> Option<Box<Sums>> {
        let Some(known) = self.get(lease) else { return Some(sums) };
        known.digest = sums.of_all(len);
        known.sums.replace(sums)
    }

    /// A link has received it, and summed it.
    pub(super) fn received(&mut self, lease: LeaseId, digest: Option<u32>) {
        if let Some(known) = self.get(lease) {
            known.digest = digest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    fn lease(index: u32, generation: u32) -> LeaseId {
        LeaseId { index, generation: NonZeroU32::new(generation).unwrap() }
    }

    fn sums(crc: u32) -> Box<Sums> {
        let mut sums = Box::new(Sums::new());
        sums.set(0, crc);
        sums
    }

    #[test]
    fn a_buffer_that_was_leased_anew_is_another_one() {
        let mut known = KnownSums::default();
        known.put(lease(3, 1), sums(7));
        assert!(known.of_write(lease(3, 1), SUM_BYTES).is_some());
        assert!(known.of_write(lease(3, 1), 512).is_none(), "less than a block");
        assert!(known.of_write(lease(3, 2), SUM_BYTES).is_none());
        assert!(known.of_write(lease(9, 1), SUM_BYTES).is_none());
        assert!(known.take(lease(3, 2)).is_none());
        assert!(known.take(lease(3, 1)).is_some());
        assert!(known.take(lease(3, 1)).is_none());
    }

    #[test]
    fn what_was_read_before_says_nothing_of_what_is_read_anew() {
        let mut known = KnownSums::default();
        known.put(lease(0, 1), Box::new(Sums::new()));
        let lent = known.lend(lease(0, 1), SUM_BYTES).unwrap();
        assert!(known.lend(lease(0, 1), SUM_BYTES).is_none(), "it is lent once");
        drop(lent);
        assert!(known.filled(lease(0, 1), SUM_BYTES, sums(7)).is_none());
        known.forget(lease(0, 1));
        assert_eq!(known.take(lease(0, 1)).unwrap().0, None);
        known.put(lease(0, 1), Box::new(Sums::new()));
        known.filled(lease(0, 1), SUM_BYTES, sums(7));
        known.forget(lease(0, 1));
        known.received(lease(0, 1), Some(8));
        assert_eq!(known.take(lease(0, 1)).unwrap().0, Some(8));
        assert!(known.filled(lease(0, 1), SUM_BYTES, sums(7)).is_some(), "nobody wants it");
    }
}
