//! The kinds of tokens: which table a completion belongs to.

/// The receive of a connection.
pub(crate) const RECEIVE: u8 = 1;
/// The batch in flight of a connection.
pub(crate) const SEND: u8 = 2;
/// A device operation of an op.
pub(crate) const OP: u8 = 3;
