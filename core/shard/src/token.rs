//! The kinds of tokens: which table a completion belongs to.

/// The receive of a connection.
pub(crate) const RECEIVE: u8 = 1;
/// The batch in flight of a connection.
pub(crate) const SEND: u8 = 2;
/// A device operation of an op.
pub(crate) const OP: u8 = 3;
/// A stream to a target that is being made.
pub(crate) const HOST_CONNECT: u8 = 4;
/// The receive of a stream to a target.
pub(crate) const HOST_RECEIVE: u8 = 5;
/// The batch in flight of a stream to a target.
pub(crate) const HOST_SEND: u8 = 6;
/// A command of a pool's management: only ever a tag.
pub(crate) const COMMAND: u8 = 7;
/// A request of a guard to its pool: only ever a tag.
pub(crate) const MEMBER: u8 = 8;
/// A command of a volume to a replica at another engine: only ever a cookie.
pub(crate) const CALL: u8 = 9;
/// A change of a namespace's reservations that is being kept: only ever a tag.
pub(crate) const RESERVATION: u8 = 10;
/// First kind of the pools' tokens, [`POOL_KINDS`] for each.
pub(crate) const POOLS: u8 = 64;
/// Kinds of tokens that a pool has.
pub(crate) const POOL_KINDS: u8 = 8;
