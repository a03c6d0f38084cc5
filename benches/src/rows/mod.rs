//! The comparisons, a file each.

pub(crate) mod disk;
pub(crate) mod idle;
pub(crate) mod neighbour;
pub(crate) mod nexus;
pub(crate) mod polling;
pub(crate) mod pool;
pub(crate) mod wire;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::load::{Load, Way};
use crate::wire::{Controller, NQN};

/// Size of a namespace in memory.
const MEMORY: &str = "mem:256MiB";
/// Its blocks.
const MEMORY_BLOCKS: u64 = (256 << 20) / 4096;

/// Writes every block once, so that none is served from a page that is not there.
fn fill(controller: &Controller, nsid: u32, blocks: u64) -> io::Result<()> {
    let queue = controller.queue(1)?;
    Load::new(queue, Way::Write, nsid, 64, blocks).sequential().run_count(blocks)
}

/// A controller of the engine there, without keep alive.
fn controller(address: SocketAddr, host: u8) -> io::Result<Controller> {
    Controller::connect(address, NQN, host, Duration::ZERO)
}
