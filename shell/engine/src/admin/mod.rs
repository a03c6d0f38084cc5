//! The commands that manage a running engine: clients of its service and nothing more.
//!
//! What a command asks is one call, what it prints is the answer: a table for people, JSON or YAML
//! for programs. A command that loses data asks first.

pub mod ana;
pub mod confirm;
pub mod connection;
pub mod device;
pub mod events;
pub mod fault;
pub mod output;
pub mod pool;
pub mod replica;
pub mod scrub;
pub mod snapshot;
pub mod status;
mod views;

use std::future::Future;

use crate::error::{Error, Result};

/// Runs a command's calls on this thread.
///
/// # Errors
/// As the command.
pub fn run<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::run(format!("cannot start: {error}")))?;
    runtime.block_on(command)
}
