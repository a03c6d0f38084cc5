//! Sockets.

use std::net::SocketAddr;

use braid_shard::Socket;

/// Peers of sockets, and the addresses that `Effect::Connect` names by position.
#[derive(Debug)]
pub struct Net {
    addresses: Vec<SocketAddr>,
    peers: Vec<Option<SocketAddr>>,
}

impl Net {
    /// The other end of a socket; of a closed one too until its number is used again.
    #[must_use]
    pub fn peer(&self, socket: Socket) -> Option<SocketAddr> {
        self.peers.get(socket.0 as usize).copied().flatten()
    }

    /// The table of addresses.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Adds an address and returns its position.
    pub fn add_address(&mut self, address: SocketAddr) -> u32 {
        self.addresses.push(address);
        u32::try_from(self.addresses.len() - 1).unwrap_or(u32::MAX)
    }

    /// Replaces an address, for the next connect.
    pub fn set_address(&mut self, position: u32, address: SocketAddr) {
        self.addresses[position as usize] = address;
    }
}
