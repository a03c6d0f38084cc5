//! Commands that read a pool's disk while no engine has it.

pub mod disk;
pub mod inspect;
pub mod memory;
pub mod superblock;
pub mod verify;

#[cfg(test)]
mod tests;

use std::path::Path;

use braid_block::{Instant, IoError};
use braid_pool::{Config, Device, Limits, Note, Pool, Refusal, State};

use crate::error::{Error, Result};
use crate::manage::refusal_text;
use crate::offline::disk::Disk;
use crate::offline::memory::Heap;

/// The time, for a pool that nobody serves: it stands still, so that nothing counts as idle.
pub(crate) const BEGINNING: Instant = Instant::ZERO;

/// What the core is told of a disk that is only looked at.
pub(crate) fn config(disk: &Disk) -> Config {
    Config {
        token_base: 0,
        device: Device { bytes: disk.bytes, sector: 512, discards: false },
        boot_id: [0; 16],
        owner: String::new(),
        seed: 0,
        read_only: true,
        limits: Limits::default(),
        plant: None,
    }
}

/// Opens the pool on a disk to be looked at, or says why not.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open(path: &Path, disk: &mut Disk, mem: &mut Heap) -> Result<Pool> {
    let mut pool = Pool::open(config(disk));
    braid_pool::run_blocking(&mut pool, mem, disk, BEGINNING, |_, _| {});
    if pool.state() == State::Open {
        return Ok(pool);
    }
    let refused = std::iter::from_fn(|| pool.poll_note()).find_map(|note| match note {
        Note::Refused(refused) => Some(refused),
        _ => None,
    });
    Err(not_opened(path, refused.unwrap_or(Refusal::Device(IoError::Device)), disk))
}

/// Why the pool on a disk cannot be read.
pub(crate) fn not_opened(path: &Path, refusal: Refusal, disk: &Disk) -> Error {
    Error::run(refusal_text(refusal, &config(disk).device)).at(path.display())
}
