//! The receiving half of a connection: pieces that arrived and were not looked at yet.
//!
//! Invariants:
//! 1. At most one receive is armed; its end is always told by a `Done`.
//! 2. A connection that falls behind stops its stream, so that it cannot hold all receive buffers.

use alloc::collections::VecDeque;

use braid_block::Lease;

/// Pieces that wait before the stream is stopped. Each is up to 16 KiB.
pub(crate) const PIECES_HIGH: usize = 4;

/// Bytes that arrived, from `at` to `end` of a receive buffer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) lease: Lease,
    pub(crate) at: u32,
    pub(crate) end: u32,
}

/// How bytes come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Armed {
    /// Nothing is asked for.
    No,
    /// So many bytes, into the connection's own buffer.
    Exact(u32),
    /// Whatever comes.
    Stream,
    /// Whatever comes, but it was told to end.
    Stopping,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receive {
    pub(crate) armed: Armed,
    pub(crate) pieces: VecDeque<Piece>,
}

impl Receive {
    pub(crate) fn new() -> Self {
        Self { armed: Armed::No, pieces: VecDeque::with_capacity(2 * PIECES_HIGH) }
    }
}
