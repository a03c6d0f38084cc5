//! The kinds of the pool's tokens, above `Config::token_base`.

/// A read or write of a piece.
pub(crate) const PIECE: u8 = 0;
/// The write of journal blocks.
pub(crate) const JOURNAL: u8 = 1;
/// The flush in flight.
pub(crate) const SYNC: u8 = 2;
/// A page that is being read.
pub(crate) const FETCH: u8 = 3;
/// A page that is being written.
pub(crate) const CHECKPOINT: u8 = 4;
/// A cluster that is being discarded.
pub(crate) const DISCARD: u8 = 5;
/// Everything of opening and making a pool, and its superblocks.
pub(crate) const OPENING: u8 = 6;
/// Reads and writes of scrub and reclaim.
pub(crate) const JOB: u8 = 7;
