//! Our host side in a program: a shard that serves nobody and drives targets.

pub mod discover;
pub mod identify;
pub mod inquiry;
pub mod reservation;
pub mod uri;

use std::net::SocketAddr;

use braid_reactor::{ArenaOptions, Options, Polling, Reactor, mesh};
use braid_shard::{Config, Limits, Shard};
use clap::ValueEnum;

use crate::error::{Error, Result};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What a driving reactor needs to be told.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// TCP connections at once.
    pub connections: u32,
    /// Bytes of buffers.
    pub arena: u64,
    /// Whether to look for answers before sleeping.
    pub polling: Polling,
}

/// A shard that serves nobody, and a reactor that knows `addresses` by their position.
///
/// # Errors
/// When the system does not allow what a reactor needs.
pub fn reactor<C: Send + 'static>(
    needs: Needs,
    addresses: Vec<SocketAddr>,
) -> Result<(Reactor<C>, Shard)> {
    let chunk_bytes = ArenaOptions::default().chunk_bytes;
    let limit_bytes = needs.arena.next_multiple_of(chunk_bytes.into());
    let arena = ArenaOptions { limit_bytes, ..ArenaOptions::default() };
    let arena = ArenaOptions { start_bytes: arena.start_bytes.min(limit_bytes), ..arena };
    let options = Options {
        arena,
        sockets_max: needs.connections + SOCKETS_SPARE,
        polling: needs.polling,
        seed: crate::serve::config::seed(),
        ..Options::default()
    };
    let limits = Limits {
        connections_max: needs.connections,
        arena_bytes: limit_bytes,
        ..Limits::default()
    };
    let config =
        Config { shard: 0, shards: 1, subsystems: Vec::new(), portals: Vec::new(), limits };
    let port = mesh(1).remove(0);
    let reactor = Reactor::new(options, port, Vec::new(), Vec::new(), addresses)
        .map_err(|error| Error::run(error.to_string()))?;
    Ok((reactor, Shard::new(config)))
}

/// For connections that are being closed while new ones are made.
const SOCKETS_SPARE: u32 = 8;
