//! What shards send each other: rare, so it may be large and may be boxed.

use braid_nvme::target::Handshake;

use crate::event::Socket;

/// A letter from one shard to another.
#[derive(Debug)]
pub enum Mail {
    /// A connection whose Connect command was parsed goes to the home shard of its subsystem.
    /// It was not answered yet, so no byte of it is in any buffer.
    Connection {
        /// The stream. The shell replaces the sender's number by the receiver's on the way.
        socket: Socket,
        /// The listener it came in by.
        listener: u16,
        /// What the peer negotiated and asked for.
        handshake: Handshake,
    },
}
