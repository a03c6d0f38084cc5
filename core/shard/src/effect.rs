//! What to do: the closed set of a shard's outputs.

use alloc::boxed::Box;

use braid_block::{Span, Token};

use crate::event::{Disk, Socket};
use crate::mail::Mail;
use crate::note::Note;

/// One thing to do. Plain data; the order in which effects are carried out means nothing: what
/// must follow is emitted after the first one's `Done`.
///
/// Every effect with a token is answered by exactly one [`Event::Done`](crate::Event) (a stream
/// receive by one when it ends), even if its socket was closed meanwhile. Whoever emitted it
/// keeps the lease behind a span until then.
#[derive(Debug)]
pub enum Effect {
    /// Receive exactly the span's length. Done with fewer bytes means that the stream ended.
    ReceiveExact {
        /// Comes back with the completion.
        token: Token,
        /// From where.
        socket: Socket,
        /// To where.
        span: Span,
    },
    /// Receive whatever arrives, as [`Event::Received`](crate::Event), until the stream ends,
    /// fails or is told to stop. Done: 0 at its end, `Cancelled` after a stop.
    ReceiveStream {
        /// Comes back with every piece and at the end.
        token: Token,
        /// From where.
        socket: Socket,
        /// Whose bytes they are.
        traffic: Traffic,
    },
    /// End a [`Effect::ReceiveStream`]. Has no completion of its own; pieces that had arrived
    /// before may still come before its `Done`.
    ReceiveStop {
        /// The stream.
        socket: Socket,
    },
    /// Send the batch that `Shard::batch(batch)` lists, whole. One in flight a socket.
    Send {
        /// Comes back when all of it was sent, or none of the rest can be.
        token: Token,
        /// To where.
        socket: Socket,
        /// Which connection's batch in flight.
        batch: u32,
    },
    /// Connect to an address that the shell knows; the result arrives as the new socket's number
    /// in `Done`.
    Connect {
        /// Comes back with the socket's number.
        token: Token,
        /// Position in the shell's table of addresses.
        address: u32,
    },
    /// End the sending direction, so that the peer sees an orderly end after the last byte.
    Shutdown {
        /// Which stream.
        socket: Socket,
    },
    /// Cancel what is in flight on the socket, then close it. No completion of its own.
    Close {
        /// Which stream.
        socket: Socket,
    },
    /// Read from a device.
    Read {
        /// Comes back with the completion.
        token: Token,
        /// From where.
        disk: Disk,
        /// To where; offset and length are multiples of the device's alignment.
        span: Span,
        /// First byte on the device.
        offset: u64,
    },
    /// Write to a device.
    Write {
        /// Comes back with the completion.
        token: Token,
        /// To where.
        disk: Disk,
        /// To be durable before its completion (FUA).
        durable: bool,
        /// From where.
        span: Span,
        /// First byte on the device.
        offset: u64,
    },
    /// Make a range read as zeros, keeping its space allocated.
    Zero {
        /// Comes back with the completion.
        token: Token,
        /// Where.
        disk: Disk,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Give a range's space back; it reads as zeros afterwards.
    Discard {
        /// Comes back with the completion.
        token: Token,
        /// Where.
        disk: Disk,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make every write that was done before this effect was emitted durable.
    Sync {
        /// Comes back with the completion.
        token: Token,
        /// Where.
        disk: Disk,
    },
    /// Send something to another shard. A socket inside travels along: the shell moves it.
    Mail {
        /// Which shard.
        shard: u16,
        /// What.
        mail: Box<Mail>,
    },
    /// Something worth telling people or programs.
    Note(Note),
}

const _: () = assert!(size_of::<Effect>() <= 48);

/// Whose bytes a stream brings. Each kind has receive buffers of its own: hosts' commands wait for
/// replicas of other engines, so what hosts sent may lie in its buffers for as long as these take,
/// and must not keep the replicas' answers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Commands of hosts, which may wait for anything below.
    Hosts,
    /// Commands of nexuses to replicas here, which wait for nobody else's engine.
    Nexuses,
    /// What targets answer to our host side, which is taken at once.
    Targets,
}

impl Traffic {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Hosts, Self::Nexuses, Self::Targets];
}
