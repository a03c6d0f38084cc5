//! A shard's notes as log lines.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use braid_block::Instant;
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

/// Notes that one shard logs in a second, at most: a peer or a disk that fails all the time must
/// not fill the log, nor cost the others much.
const NOTES_PER_SECOND_MAX: u32 = 100;

/// Logs the notes of one shard.
#[derive(Debug)]
pub struct Log {
    shard: u16,
    second: Instant,
    told: u32,
    left_out: u64,
}

impl Log {
    /// Nothing was logged yet.
    #[must_use]
    pub const fn new(shard: u16) -> Self {
        Self { shard, second: Instant::ZERO, told: 0, left_out: 0 }
    }

    /// Logs a note, unless there were too many of late.
    pub fn note(&mut self, machine: &Shard, net: &Net, now: Instant, note: Note) {
        if self.admits(now) {
            log(self.shard, machine, net, note);
        }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if now.since(self.second) >= Duration::from_secs(1) {
            if self.left_out > 0 {
                warn!(shard = self.shard, left_out = self.left_out, "too many notes to log all");
            }
            (self.second, self.told, self.left_out) = (now, 0, 0);
        }
        self.told += 1;
        let admits = self.told <= NOTES_PER_SECOND_MAX;
        self.left_out += u64::from(!admits);
        admits
    }
}

fn log(shard: u16, machine: &Shard, net: &Net, note: Note) {
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
        Note::AuthenticationFailed { socket, subsystem, controller, reason } => {
            let of = machine.controller(subsystem, controller);
            let (hostnqn, subnqn) = of.map_or(("", ""), |of| (of.hostnqn, of.subnqn));
            let (peer, reason) = (peer(socket), reason.text());
            warn!(shard, %peer, hostnqn, subnqn, reason, "authentication failed");
        }
        Note::ControllerGone { cntlid, why } => info!(shard, cntlid, ?why, "controller gone"),
        Note::DiskFailed { nsid, operation, offset, error } => {
            error!(shard, nsid, ?operation, offset, %error, "disk failed");
        }
        Note::Limit { limit } => warn!(shard, ?limit, "a limit is reached"),
        Note::HostConnected { queues, .. } => info!(shard, queues, "connected to a target"),
        Note::HostDisconnected { why, .. } => warn!(shard, ?why, "disconnected from a target"),
        Note::AnaChanged { subsystem, group, listener, state, late } => {
            let nqn = machine.subsystem_name(subsystem).unwrap_or_default();
            let state = state.text();
            if late {
                warn!(shard, nqn, group, listener, state, "a change of access took too long");
            } else {
                info!(shard, nqn, group, listener, state, "access changed");
            }
        }
        // Who manages pools and subsystems hears of them by name.
        Note::Pool { .. }
        | Note::PoolCommand { .. }
        | Note::PoolClosed { .. }
        | Note::NamespaceGone { .. }
        | Note::SubsystemGone { .. }
        // Who keeps them tells of failures.
        | Note::Reservations { .. } => {}
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
        Why::Protocol(_)
        | Why::Terminated(_)
        | Why::Io(_)
        | Why::SendTimeout
        | Why::KeepAlive
        | Why::AuthenticationTimeout => {
            warn!(shard, %peer, ?why, "connection closed");
        }
        _ => debug!(shard, %peer, ?why, "connection closed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_notes_is_cut_to_what_a_second_may_have() {
        let mut log = Log::new(0);
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let flood = |log: &mut Log, millis| (0..1000).filter(|_| log.admits(at(millis))).count();
        assert_eq!(flood(&mut log, 5000), 100);
        assert_eq!(flood(&mut log, 5999), 0);
        assert_eq!(log.left_out, 1900);
        assert_eq!(flood(&mut log, 6000), 100);
    }
}
