//! The table of sockets, and what is in flight on each.
//!
//! Invariants:
//! 1. A position is used again only after its close was asked for, everything in flight on it
//!    completed, and its descriptor was closed.
//! 2. At most one receive and one send are in flight on a socket.
//! 3. A position's generation changes with each use, so that a completion that is too late names
//!    nothing.
//!
//! ```text
//! free --insert--> open --close, nothing in flight--------------------> free
//!                    \---close---> closing --last completion----------> free
//!                     \--take (nothing in flight, to another shard)---> free
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use braid_block::Key;
use braid_shard::{Socket, Traffic};

use crate::accept::Connect;
use crate::receive::Receive;
use crate::send::Sending;

/// Peers of sockets, and the addresses that `Effect::Connect` names by position.
#[derive(Debug)]
pub struct Net {
    addresses: Vec<SocketAddr>,
    peers: Box<[Option<SocketAddr>]>,
}

/// A position of the table.
pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) closing: bool,
    pub(crate) receive: Receive,
    pub(crate) send: Sending,
    pub(crate) connect: Option<Connect>,
}

/// All positions.
pub(crate) struct Sockets {
    slots: Box<[Slot]>,
    free: Vec<u32>,
    /// Streams of each kind of traffic whose receive ended for want of a buffer, in that order.
    pub(crate) starved: [VecDeque<u32>; Traffic::ALL.len()],
    pub(crate) net: Net,
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

impl Slot {
    const fn free() -> Self {
        Self {
            generation: 0,
            fd: None,
            closing: false,
            receive: Receive::Idle,
            send: Sending::new(),
            connect: None,
        }
    }

    /// Whether the kernel will complete something for it.
    pub(crate) fn is_busy(&self) -> bool {
        self.receive.is_armed() || self.send.is_busy() || self.connect.is_some()
    }
}

impl Sockets {
    /// A table for `max` sockets.
    pub(crate) fn new(max: u32, addresses: Vec<SocketAddr>) -> Self {
        Self {
            slots: (0..max).map(|_| Slot::free()).collect(),
            free: (0..max).rev().collect(),
            starved: Traffic::ALL.map(|_| VecDeque::with_capacity(max as usize)),
            net: Net { addresses, peers: vec![None; max as usize].into() },
        }
    }

    /// Positions in use.
    pub(crate) fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The next free position.
    pub(crate) fn vacancy(&self) -> Option<u32> {
        self.free.last().copied()
    }

    /// Fills the position that [`Sockets::vacancy`] named.
    pub(crate) fn insert(&mut self, fd: OwnedFd, peer: Option<SocketAddr>) -> Option<u32> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.fd = Some(fd);
        slot.closing = false;
        self.net.peers[index as usize] = peer;
        Some(index)
    }

    /// Empties a position; nothing may be in flight on it.
    pub(crate) fn remove(&mut self, index: u32) -> Option<OwnedFd> {
        let slot = &mut self.slots[index as usize];
        debug_assert!(!slot.is_busy());
        let fd = slot.fd.take()?;
        slot.receive = Receive::Idle;
        slot.closing = false;
        self.free.push(index);
        Some(fd)
    }

    /// The socket, unless it was closed or never was.
    pub(crate) fn live(&mut self, socket: Socket) -> Option<&mut Slot> {
        self.slots.get_mut(socket.0 as usize).filter(|slot| slot.fd.is_some() && !slot.closing)
    }

    /// The socket that a completion names, closing or not.
    pub(crate) fn named(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.generation == key.generation && slot.fd.is_some()).then_some(slot)
    }

    /// The position, whatever is in it.
    pub(crate) fn at(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// Positions whose socket is open and not closing.
    pub(crate) fn next_live(&self) -> Option<Socket> {
        let live = |slot: &Slot| slot.fd.is_some() && !slot.closing;
        self.slots.iter().position(live).and_then(|i| u32::try_from(i).ok()).map(Socket)
    }
}
