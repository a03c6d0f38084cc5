//! A range of anonymous memory: reserved once, so that an index gives an address by one addition.
//!
//! Invariants:
//! 1. The base never moves and the range stays mapped readable and writable until drop, so every
//!    `base + offset` below the length is dereferenceable.
//! 2. Memory that the kernel may still write is not unmapped but left for good.

use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A reservation of whole pages, aligned to `align`.
pub(crate) struct Pages {
    base: NonNull<u8>,
    mapped: NonNull<u8>,
    mapped_len: usize,
    len: usize,
}

// SAFETY: the pages belong to this value alone, and the pointers are only given out by methods
// whose callers hold a reference to it.
unsafe impl Send for Pages {}

impl Pages {
    /// Reserves `len` bytes aligned to `align` (a power of two, at least a page).
    pub(crate) fn reserve(len: usize, align: usize) -> Result<Self, Errno> {
        let mapped_len = len + align;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing else.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), mapped_len, prot, flags) }?;
        let mapped = NonNull::new(at.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let skip = mapped.as_ptr().align_offset(align);
        // SAFETY: skip < align, so the result is inside the mapping, and len bytes follow it.
        let base = unsafe { mapped.add(skip) };
        Ok(Self { base, mapped, mapped_len, len })
    }

    /// The address of a byte.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.len);
        // SAFETY: every caller's offset comes from a checked lease, so it is below len.
        unsafe { self.base.add(offset) }
    }

    /// Gives the memory behind a range back to the system; it reads as zeros from now on.
    pub(crate) fn discard(&mut self, offset: usize, len: usize) -> Result<(), Errno> {
        assert!(offset + len <= self.len);
        // SAFETY: the range is inside the mapping, and &mut self says that no slice of it is out.
        unsafe { madvise(self.at(offset).as_ptr().cast(), len, Advice::LinuxDontNeed) }
    }

    /// Keeps the mapping for ever: the kernel may still write to it.
    pub(crate) fn abandon(&mut self) {
        self.mapped_len = 0;
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.mapped_len > 0 {
            // SAFETY: the mapping is ours, whole, and nothing refers to it any more. A failure
            // would leave it mapped, which is harmless.
            let _ = unsafe { munmap(self.mapped.as_ptr().cast(), self.mapped_len) };
        }
    }
}
