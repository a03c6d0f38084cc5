//! What happened: the closed set of a shard's inputs.

use alloc::boxed::Box;
use core::net::SocketAddr;

use braid_block::{IoError, Lease, Token};

use crate::mail::Mail;

/// A connected stream, by its position in the shell's table of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket(pub u32);

/// An open file or device, by its position in the shell's table of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Disk(pub u16);

/// One thing that happened. Plain data: the simulator makes the same ones.
#[derive(Debug)]
pub enum Event {
    /// First of all events.
    Start {
        /// Identifies this boot of the node (the kernel's boot id).
        boot_id: [u8; 16],
        /// For everything that must differ between runs.
        seed: u64,
    },
    /// A peer connected to a listener.
    Accepted {
        /// Position of the listener in the configuration.
        listener: u16,
        /// The new stream.
        socket: Socket,
        /// The address it was reached at, where the listener takes any: the discovery log then
        /// names this one.
        local: Option<Box<SocketAddr>>,
    },
    /// Bytes arrived on a stream in [`Effect::ReceiveStream`](crate::Effect) mode. The lease is
    /// the shard's now, and is freed by it.
    Received {
        /// As given with the effect.
        token: Token,
        /// Holds the bytes, from its beginning.
        lease: Lease,
        /// Number of bytes, never zero: the end of a stream is a [`Event::Done`].
        len: u32,
    },
    /// An effect is done.
    Done {
        /// As given with the effect.
        token: Token,
        /// Bytes moved, or why not.
        result: Result<u32, IoError>,
    },
    /// The deadline that `poll_timeout` announced has passed.
    Elapsed,
    /// Another shard sent something.
    Mail(Box<Mail>),
}

const _: () = assert!(size_of::<Event>() <= 32);
