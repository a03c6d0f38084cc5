//! A pool on a file without TCP: the reactor and the pool are the engine's, but requests come
//! from and go to memory of this process, and management comes by lines on standard input.

mod direct;
mod driver;
mod order;
mod shim;

use std::io::{self, BufRead, Read};
use std::path::Path;

use braid_block::IoError;
use braid_pool::{Config, Device, Format, Limits, Pool};
use braid_reactor::{ArenaOptions, OpenDisk, OpenOptions, Options, Reactor, mesh};

pub(crate) use order::{Counts, Order, Pattern, Ready, Run, Said};
pub(crate) use shim::{load, map};

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

/// An identity that no pool had before. Pools are made where others were, and pages that those
/// left would count as the new one's if it had the same.
fn identity() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    Ok(uuid)
}

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
    let format = Format::for_device(identity()?, config.device.bytes);
    let machine = Direct::new(Pool::create(config, format));
    let (machine, driver) =
        reactor(disk)?.run(machine, Driver::making()).map_err(io::Error::other)?;
    driver.outcome(&machine)
}

/// Opens the pool of a file, says [`Ready`], then takes an [`Order`] a line and answers each. Ends
/// with the pool, whatever happens to it: who gives the orders waits for an answer or for the end.
pub(crate) fn serve(path: &Path, how: &How) -> io::Result<()> {
    let (disk, config) = disk(path, how)?;
    let reactor = reactor(disk)?;
    let remote = reactor.remote();
    std::thread::spawn(move || {
        let orders = io::stdin().lock().lines().map_while(Result::ok);
        for order in orders.map(|line| line.parse().unwrap_or_else(senseless)) {
            if remote.post(order).is_err() {
                return;
            }
        }
        // If that fails, it has ended already.
        let _ = remote.post(Order::Leave);
    });
    let machine = Direct::new(Pool::open(config));
    let (machine, driver) = reactor.run(machine, Driver::serving()).map_err(io::Error::other)?;
    driver.outcome(&machine)
}

/// An order that was not understood will not be answered.
fn senseless(error: io::Error) -> Order {
    eprintln!("braid-bench: {error}");
    Order::Leave
}

/// What a failed transfer is called here.
fn told(error: IoError) -> io::Error {
    io::Error::other(error)
}
