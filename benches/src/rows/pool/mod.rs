//! A pool: its replicas beside fio on the same file, how long it takes to open, what its maps
//! take in memory, and how much more it writes than it is told to.

mod load;
mod memory;
mod open;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::{Server, Setup, pinned};
use crate::measure::{Slice, cpu_time};
use crate::pool::{Order, Ready, Run, Said};
use crate::table::Row;
use crate::wire::bad;

/// What of a pool is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Which {
    /// Overwrites and reads of what is mapped
    Mapped,
    /// First writes
    First,
    /// First writes to clusters that a snapshot holds
    Snapshot,
    /// Reads through 64 snapshots
    Chain,
    /// Reads whose checksums are not in memory
    Missed,
    /// Device writes by the pool's and by the kernel's count
    Amplification,
    /// How long opening takes
    Open,
    /// What maps take in memory
    Memory,
}

/// What is wanted of the rows.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Which.
    pub(crate) which: Vec<Which>,
    /// Only rows in whose name this occurs.
    pub(crate) only: String,
    /// GiB that are in use of a replica.
    pub(crate) gib: u64,
    /// A folder in memory.
    pub(crate) memory: PathBuf,
}

impl Wanted {
    fn has(&self, which: Which) -> bool {
        self.which.contains(&which)
    }
}

/// All rows that are wanted.
pub(crate) fn rows(setup: &Setup, wanted: &Wanted, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    use Which::{Amplification, Chain, First, Mapped, Missed, Snapshot};
    // What is short comes first: a run that is cut off has it.
    if wanted.has(Which::Open) {
        open::rows(setup, wanted, told)?;
    }
    if wanted.has(Which::Memory) {
        memory::rows(setup, wanted, told)?;
    }
    if [Mapped, First, Snapshot, Chain, Missed, Amplification].iter().any(|w| wanted.has(*w)) {
        load::rows(setup, wanted, told)?;
    }
    Ok(())
}

/// A process with a pool.
struct Pool {
    server: Server,
    ready: Ready,
}

impl Pool {
    /// Makes a pool on a file.
    fn make(setup: &Setup, path: &Path, options: &[&str]) -> io::Result<()> {
        let mut command = pinned(setup);
        command.arg(std::env::current_exe()?).arg("pool-make").arg(path).args(options);
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(bad(format!("making a pool: {status}"))) }
    }

    /// Opens it.
    fn open(setup: &Setup, path: &Path, options: &[&str]) -> io::Result<Self> {
        let path = path.to_str().ok_or_else(|| bad("the folder's name is not UTF-8".to_owned()))?;
        let mut server = Server::ourselves(setup, &[&["pool-serve", path], options].concat())?;
        let ready = Ready::parse(&server.line()?)?;
        Ok(Self { server, ready })
    }

    fn order(&mut self, order: &Order) -> io::Result<String> {
        self.server.ask(&order.to_string())
    }

    fn ask<T: Said>(&mut self, order: &Order) -> io::Result<T> {
        T::parse(&self.order(order)?)
    }

    /// A load, for a time or once through.
    fn run(&mut self, run: Run) -> io::Result<(u64, Duration)> {
        self.ask(&Order::Run(run))
    }

    /// The same with what it cost.
    fn slice(&mut self, run: Run) -> io::Result<Slice> {
        let pid = self.server.pid();
        let before = cpu_time(pid)?;
        let (done, took) = self.run(run)?;
        Ok(Slice::new(done, took, cpu_time(pid)?.saturating_sub(before)))
    }

    /// Stops it in order.
    fn stop(mut self) -> io::Result<()> {
        self.order(&Order::Stop).map(drop)
    }
}

/// A file that is removed with us.
struct Scratch(PathBuf);

impl Scratch {
    /// Of holes alone.
    fn sparse(path: PathBuf, bytes: u64) -> io::Result<Self> {
        std::fs::File::create(&path)?.set_len(bytes)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whoever removed it already has done it.
        let _ = std::fs::remove_file(&self.0);
    }
}
