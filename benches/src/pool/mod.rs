//! A pool on a file without TCP: the reactor and the pool are the engine's, but requests come
//! from and go to memory of this process, and management comes by lines on standard input.

mod direct;
mod driver;
mod order;
mod shim;

use std::io::{self, BufRead};
use std::path::Path;

use braid_block::IoError;
use braid_pool::{Config, Device, Format, Limits, Pool};
use braid_reactor::{ArenaOptions, OpenDisk, OpenOptions, Options, Reactor, mesh};

pub(crate) use order::{Counts, Order, Pattern, Ready, Run, Said};
pub(crate) use shim::{load, map};

use crate::wire::bad;
use direct::Direct;
use driver::Driver;

/// How a pool is opened.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct How {
    /// Bytes of the file, from its beginning, that are the pool's; 0: all
    #[arg(long, default_value_t = 0)]
    bytes: u64,
    /// Bytes of checksum pages in memory
    #[arg(long)]
    cache_bytes: Option<u64>,
    /// Checksums that are not in their pages, at most
    #[arg(long)]
    delta_max: Option<u32>,
}

/// The pools' identity: they are made anew again and again.
const UUID: [u8; 16] = [0xb5; 16];

fn config(bytes: u64, sector: u32, how: &How) -> Config {
    let mut limits = Limits::default();
    limits.cache_bytes = how.cache_bytes.unwrap_or(limits.cache_bytes);
    limits.delta_max = how.delta_max.unwrap_or(limits.delta_max);
    Config {
        token_base: 0,
        device: Device { bytes, sector, discards: false },
        boot_id: [9; 16],
        owner: "braid-bench".to_owned(),
        seed: 1,
        read_only: false,
        limits,
        plant: None,
    }
}

fn disk(path: &Path, how: &How) -> io::Result<(OpenDisk, Config)> {
    let options = OpenOptions { exclusive: false, ..OpenOptions::default() };
    let disk = OpenDisk::open(path, &options).map_err(io::Error::other)?;
    let bytes = if how.bytes == 0 { disk.size } else { how.bytes.min(disk.size) };
    let sector = if disk.alignment <= 512 { 512 } else { 4096 };
    let config = config(bytes, sector, how);
    Ok((disk, config))
}

fn reactor(disk: OpenDisk) -> io::Result<Reactor<Order>> {
    let port = mesh(1).remove(0);
    let arena = ArenaOptions { start_bytes: 16 << 20, ..ArenaOptions::default() };
    let options = Options { arena, ..Options::default() };
    Reactor::new(options, port, vec![disk], vec![], vec![]).map_err(io::Error::other)
}

/// Makes a pool on a file.
pub(crate) fn make(path: &Path, how: &How) -> io::Result<()> {
    let (disk, config) = disk(path, how)?;
    let format = Format::for_device(UUID, config.device.bytes);
    let machine = Direct::new(Pool::create(config, format));
    let (machine, driver) =
        reactor(disk)?.run(machine, Driver::making()).map_err(io::Error::other)?;
    driver.outcome(&machine)
}

/// Opens the pool of a file, says [`Ready`], then takes an [`Order`] a line and answers each.
pub(crate) fn serve(path: &Path, how: &How) -> io::Result<()> {
    let (disk, config) = disk(path, how)?;
    let reactor = reactor(disk)?;
    let remote = reactor.remote();
    let shard = std::thread::spawn(move || {
        let machine = Direct::new(Pool::open(config));
        match reactor.run(machine, Driver::serving()) {
            Ok((machine, driver)) => driver.outcome(&machine),
            Err(error) => Err(io::Error::other(error)),
        }
    });
    for line in io::stdin().lock().lines() {
        let order = line?.parse()?;
        if remote.post(order).is_err() {
            break;
        }
    }
    if shard.is_finished() {
        return shard.join().unwrap_or_else(|_| Err(bad("the shard panicked".to_owned())));
    }
    Ok(())
}

/// What a failed transfer is called here.
fn told(error: IoError) -> io::Error {
    io::Error::other(error)
}
