//! The commands that manage a running engine: clients of its service and nothing more.
//!
//! What a command asks is one call, what it prints is the answer: a table for people, JSON or YAML
//! for programs. A command that loses data asks first.

pub mod ana;
pub mod connection;
pub mod device;
pub mod events;
pub mod fault;
pub mod namespace;
pub mod nexus;
mod nexus_views;
pub mod pool;
pub mod replica;
pub mod scrub;
pub mod snapshot;
pub mod status;
mod views;

pub use braid_terminal::call::run;
pub use braid_terminal::{confirm, output};
