//! A shard's notes as log lines.

use std::fmt;
use std::net::SocketAddr;

use braid_reactor::Net;
use braid_shard::{ControllerInfo, Note, Shard, Socket, Why};
use tracing::{debug, error, info, warn};

/// The other end of a socket, if it is known.
struct Peer(Option<SocketAddr>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// Logs a note.
pub fn log(shard: u16, machine: &Shard, net: &Net, note: Note) {
    let peer = |socket: Socket| Peer(net.peer(socket));
    match note {
        Note::Accepted { socket, listener } => {
            debug!(shard, peer = %peer(socket), listener, "connection accepted");
        }
        Note::Closed { socket, why } => closed(shard, &peer(socket), why),
        Note::QueueConnected { socket, subsystem, controller, queue } => {
            let of = machine.controller(subsystem, controller);
            connected(shard, &peer(socket), of.as_ref(), queue);
        }
        Note::ConnectRefused { socket, status } => {
            warn!(shard, peer = %peer(socket), %status, "connect refused");
        }
        Note::ControllerGone { cntlid, why } => info!(shard, cntlid, ?why, "controller gone"),
        Note::DiskFailed { nsid, operation, offset, error } => {
            error!(shard, nsid, ?operation, offset, %error, "disk failed");
        }
        Note::Limit { limit } => warn!(shard, ?limit, "a limit is reached"),
        Note::HostConnected { queues, .. } => info!(shard, queues, "connected to a target"),
        Note::HostDisconnected { why, .. } => warn!(shard, ?why, "disconnected from a target"),
        Note::Drained => info!(shard, "all connections are closed"),
    }
}

/// A host has arrived with its admin queue; its I/O queues follow.
fn connected(shard: u16, peer: &Peer, of: Option<&ControllerInfo<'_>>, queue: u16) {
    let Some(ControllerInfo { subnqn, cntlid, hostnqn, .. }) = of else { return };
    if queue == 0 {
        info!(shard, %peer, hostnqn, subnqn, cntlid, "host connected");
    } else {
        debug!(shard, %peer, hostnqn, subnqn, cntlid, queue, "queue connected");
    }
}

fn closed(shard: u16, peer: &Peer, why: Why) {
    match why {
        Why::Protocol(_) | Why::Terminated(_) | Why::Io(_) | Why::SendTimeout | Why::KeepAlive => {
            warn!(shard, %peer, ?why, "connection closed");
        }
        _ => debug!(shard, %peer, ?why, "connection closed"),
    }
}
