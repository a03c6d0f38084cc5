//! io_uring under a shard: buffers, sockets, files and cross-shard mail. The only crate with
//! `unsafe`.
//!
//! A thread of the data plane is one [`Reactor`] that runs one [`Machine`] (a
//! [`braid_shard::Shard`], or a small fake in tests) for one [`Application`] (the engine, or a
//! load generator):
//!
//! ```text
//! let disk = OpenDisk::open(path, &OpenOptions::default())?;       // any thread
//! let listener = Listener::bind(address)?;                         // any thread
//! let port = mesh(1).remove(0);                                    // one per shard
//! let reactor = Reactor::new(Options::default(), port, vec![disk], vec![listener], vec![])?;
//! for remark in reactor.remarks() { println!("{remark}"); }
//! let remote = reactor.remote();                                   // Clone + Send
//! thread::spawn(move || reactor.run(shard, application));          // until finished()
//! remote.post(control)?;                                           // management
//! ```
//!
//! [`Reactor::new`] may be called on any thread; [`Reactor::run`] makes its thread the ring's
//! only issuer. Disks, listeners and addresses are named to the machine by their position; disks
//! may also come and go while it runs, by [`World::disks`].
//!
//! One turn: completions, mail, controls, the deadline, then [`Machine::handle`] for each,
//! [`Application::turn`], [`Machine::end_turn`], all effects, one submit-and-wait.
//!
//! What a result means, beyond what [`braid_shard::Effect`] says: `Zero`, `Discard` and `Sync`
//! end with `Ok(0)`; after a `Close` nothing is told as `Received` any more; an effect on a socket
//! that is gone ends with [`IoError::Gone`]; a connect for which there is no room in the table
//! ends with [`IoError::NoSpace`].
//!
//! [`IoError::Gone`]: braid_block::IoError::Gone
//! [`IoError::NoSpace`]: braid_block::IoError::NoSpace

mod accept;
mod application;
mod arena;
mod buffers;
mod counters;
mod disk;
mod drive;
mod errno;
mod files;
mod listener;
mod mesh;
mod operation;
mod options;
mod pages;
mod poll;
mod reactor;
mod receive;
mod remote;
mod ring;
mod send;
mod setup;
mod sockets;
mod start;

pub use application::{Application, Machine, World};
pub use arena::{Arena, ArenaCounters, ArenaOptions};
pub use counters::Counters;
pub use disk::{DiskError, OpenDisk, OpenOptions};
pub use files::DiskTable;
pub use listener::{ListenError, Listener};
pub use mesh::{Port, mesh};
pub use options::{Options, Polling};
pub use reactor::Reactor;
pub use remote::{Remote, Stopped};
pub use sockets::Net;
pub use start::{RunError, StartError};

use braid_block::Instant;

/// Reads the monotonic clock: the one all shards and the management thread share.
#[must_use]
pub fn now() -> Instant {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The monotonic clock never goes below zero, and 64 bits of nanoseconds last 584 years.
    Instant::from_nanos(t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs())
}

/// The kernel's boot id, for [`Options::boot_id`].
///
/// # Errors
/// When `/proc` is not mounted, or does not hold 16 bytes in hexadecimal.
pub fn boot_id() -> std::io::Result<[u8; 16]> {
    start::boot_id()
}
