//! Commands that read a pool's disk while no engine has it.

pub mod disk;
pub mod inspect;
pub mod memory;
pub mod superblock;

#[cfg(test)]
mod tests;

use std::path::Path;

use braid_pool::{Config, Device, Limits, Note, Pool, State};

use crate::error::{Error, Result};
use crate::manage::refusal_text;
use crate::offline::disk::Disk;
use crate::offline::memory::Heap;

/// Opens the pool on a disk to be looked at, or says why not.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open(path: &Path, disk: &mut Disk, mem: &mut Heap) -> Result<Pool> {
    let device = Device { bytes: disk.bytes, sector: 512, discards: false };
    let config = Config {
        token_base: 0,
        device,
        boot_id: [0; 16],
        owner: String::new(),
        seed: 0,
        read_only: true,
        limits: Limits::default(),
        plant: None,
    };
    let mut pool = Pool::open(config);
    braid_pool::run_blocking(&mut pool, mem, disk, braid_reactor::now(), |_, _| {});
    if pool.state() == State::Open {
        return Ok(pool);
    }
    let why = std::iter::from_fn(|| pool.poll_note()).find_map(|note| match note {
        Note::Refused(refused) => Some(refusal_text(refused, &device)),
        _ => None,
    });
    let why = why.unwrap_or_else(|| "cannot be read".into());
    Err(Error::run(why).at(path.display()))
}
