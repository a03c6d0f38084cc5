//! Faults on purpose: what an operator's test asks a backend to do wrong.

use core::time::Duration;

use crate::note::Operation;

/// One fault: what it hits, what it does, where, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Reads, writes or flushes.
    pub operation: Operation,
    /// What happens to them.
    pub fault: Fault,
    /// First byte of the range it applies to (flushes ignore the range).
    pub offset: u64,
    /// Bytes of the range.
    pub len: u64,
    /// How many operations it hits before it is spent; `u32::MAX`: it never is.
    pub count: u32,
}

/// What an injected fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails as a device error does.
    Error,
    /// The operation never completes, until the injection is taken back.
    Stall,
    /// The operation completes this much later.
    Delay(Duration),
    /// A byte of the data is flipped.
    Corrupt,
}
