//! The bodies of the fuzz targets, as functions from bytes: libFuzzer calls them with what it
//! makes up, a plain test with what it once found.
//!
//! A body panics when something is wrong. Besides never panicking, the code under it has to lose
//! no lease, to stay within its memory, and to understand a stream alike however it is split.
#![forbid(unsafe_code)]

mod access;
mod arena;
mod command;
mod input;
mod kernel;
mod oracle;
mod pdu_stream_host;
mod pdu_stream_target;
mod peer;
mod pool_cells;
mod pool_image;
mod pool_use;
pub mod seeds;
mod shard_events;

pub use access::access;
pub use command::command;
pub use pdu_stream_host::pdu_stream_host;
pub use pdu_stream_target::pdu_stream_target;
pub use pool_cells::pool_cells;
pub use pool_image::pool_image;
pub use shard_events::shard_events;

/// What a fuzz target does with its input.
pub type Body = fn(&[u8]);

/// Every fuzz target by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("access", access),
    ("command", command),
    ("pdu_stream_host", pdu_stream_host),
    ("pdu_stream_target", pdu_stream_target),
    ("pool_cells", pool_cells),
    ("pool_image", pool_image),
    ("shard_events", shard_events),
];
