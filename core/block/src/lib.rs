//! The narrow waist: ids, units, leases, tables and tokens that every other crate shares.
//!
//! Nothing here does I/O, reads a clock or allocates after start.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod clock;
mod error;
mod geometry;
mod lease;
mod slab;
mod sums;
mod token;

pub use clock::Instant;
pub use error::IoError;
pub use geometry::{BlockSize, Extent, Geometry};
pub use lease::{Class, Lease, LeaseId, Memory, Span};
pub use slab::{Key, Slab};
pub use sums::{SUM_BYTES, SUMS_MAX, Sums, crc_of_both};
pub use token::Token;
