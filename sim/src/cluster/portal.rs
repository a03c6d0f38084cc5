//! Hosts: lines that they open to portals of volumes, what they send on them, what comes back.

use std::rc::Rc;

use braid_nexus::{Status, Uuid, Work};

use super::clock::Happening;
use super::net::{Body, Data, Frame, LineId, Packet, Place, Target, Trace};
use super::{Cluster, Happened, Level, Machine};
use crate::shards::hosts::Opening;

/// What comes to a host by one of its lines.
#[derive(Debug)]
pub enum HostEvent {
    /// The line stands.
    Connected,
    /// There is no engine, and the line is no more.
    Refused,
    /// The line is no more; what was sent on it may take effect or not.
    Broken,
    /// A command ended.
    Completed {
        /// As given.
        tag: u64,
        /// What the host is answered.
        status: Status,
        /// What a read read.
        data: Option<Rc<[u8]>>,
        /// For checkers.
        trace: Trace,
    },
    /// The ANA log, as it was when it was read.
    Ana {
        /// As given.
        tag: u64,
        /// Whether this path is optimized.
        optimized: bool,
    },
    /// The access state of the path changed.
    Access {
        /// Whether it is optimized.
        optimized: bool,
    },
    /// The size of the volume changed.
    Resized {
        /// Bytes.
        bytes: u64,
    },
}

/// A line of a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostLine {
    pub(super) host: u8,
    pub(super) node: u8,
    pub(super) up: bool,
}

impl Cluster {
    /// Something comes to a host.
    pub(super) fn at_host(&mut self, packet: Packet) {
        let (line, event) = match packet.body {
            Body::Opened { line, .. } => {
                let Some(known) = self.hosts.get_mut(&line) else { return };
                known.up = true;
                (line, HostEvent::Connected)
            }
            Body::Refused { line } => (line, HostEvent::Refused),
            Body::End { line, near: false } => (line, HostEvent::Broken),
            Body::Frame { line, frame, .. } => match host_event(frame) {
                Some(event) => (line, event),
                None => return,
            },
            _ => return,
        };
        if !self.hosts.contains_key(&line) {
            return;
        }
        self.clock.tell(|| format!("{} > {} {line}: {}", packet.from, packet.to, event.tell()));
        if matches!(event, HostEvent::Refused | HostEvent::Broken) {
            self.hosts.remove(&line);
        }
        self.out.push_back(Happened::Host { line, event });
    }

    /// Something comes to a host by one of its lines, from its machine.
    pub(super) fn host_hears(&mut self, host: u8, line: LineId, event: HostEvent) {
        let Some(known) = self.hosts.get_mut(&line) else { return };
        known.up |= matches!(event, HostEvent::Connected);
        self.clock.tell(|| format!("h{host} hears by {line}: {}", event.tell()));
        if matches!(event, HostEvent::Refused | HostEvent::Broken) {
            self.hosts.remove(&line);
        }
        self.out.push_back(Happened::Host { line, event });
    }

    pub(super) fn host_lost(&mut self, line: LineId) {
        self.hosts.remove(&line);
        self.clock.tell(|| format!("{line} of a host is lost"));
        self.out.push_back(Happened::Host { line, event: HostEvent::Broken });
    }

    /// A host connects to a volume's portal at a node. [`HostEvent::Connected`] follows, or it
    /// does not.
    pub fn host_connect(
        &mut self,
        host: u8,
        node: u8,
        volume: usize,
        id: Uuid,
        origin: u64,
    ) -> LineId {
        if self.config.level == Level::Shard {
            let volume = self.sites.volumes[volume].uuid;
            let line = self.net.name_line();
            self.clock.tell(|| format!("h{host} connects to n{node} by {line}"));
            self.hosts.insert(line, HostLine { host, node, up: false });
            let clock = &mut self.clock;
            self.machines.entry(host).or_insert_with(|| Machine::new(host, clock));
            let opening = Opening { line, node, volume, id, origin };
            self.machine_on(host, |at, clock, _| at.open(clock, opening));
            return line;
        }
        let target = Target::Portal { volume, host: id, origin };
        let (from, to) = (Place::Host(host), Place::Node(node));
        let line = self.net.open(&mut self.clock, from, to, target);
        self.clock.tell(|| format!("{from} connects to {to} v{volume} by {line}"));
        self.hosts.insert(line, HostLine { host, node, up: false });
        line
    }

    /// A host sends a command; false if its line is no more. A write brings its bytes.
    pub fn host_send(&mut self, line: LineId, tag: u64, work: Work, data: &[u8]) -> bool {
        if self.config.level == Level::Shard {
            let Some(HostLine { host, .. }) = self.hosts.get(&line).copied() else { return false };
            self.machine_on(host, |at, clock, _| at.send(clock, line, tag, work, data));
            return true;
        }
        let data = if data.is_empty() { Data::None } else { Data::Bytes(data.into()) };
        self.host_frame(line, Frame::Request { tag, work, data })
    }

    /// A host reads the ANA log; false if its line is no more.
    pub fn host_read_ana(&mut self, line: LineId, tag: u64) -> bool {
        if self.config.level == Level::Shard {
            let Some(HostLine { host, .. }) = self.hosts.get(&line).copied() else { return false };
            self.machine_on(host, |at, clock, _| at.look(clock, line, tag));
            return true;
        }
        self.host_frame(line, Frame::ReadAna { tag })
    }

    fn host_frame(&mut self, line: LineId, frame: Frame) -> bool {
        let Some(HostLine { host, node, .. }) = self.hosts.get(&line).copied() else {
            return false;
        };
        let body = Body::Frame { line, near: true, frame };
        self.net.send(&mut self.clock, Place::Host(host), Place::Node(node), body);
        true
    }

    /// Whether a host still has a line.
    #[must_use]
    pub fn has_line(&self, line: LineId) -> bool {
        self.hosts.contains_key(&line)
    }

    /// A host ends a line; what it sent may still arrive.
    pub fn host_leave(&mut self, line: LineId) {
        if let Some(HostLine { host, node, .. }) = self.hosts.remove(&line) {
            if self.config.level == Level::Shard {
                return self.machine_on(host, |at, clock, net| at.leave(clock, net, line, false));
            }
            let body = Body::End { line, near: true };
            self.net.send(&mut self.clock, Place::Host(host), Place::Node(node), body);
        }
    }

    /// A host vanishes: nobody is told that a line of its ended.
    pub fn host_vanish(&mut self, line: LineId) {
        if let Some(HostLine { host, .. }) = self.hosts.remove(&line) {
            if self.config.level == Level::Shard {
                return self.machine_on(host, |at, clock, net| at.leave(clock, net, line, true));
            }
            let delay = self.clock.spread(self.net.weather.lapse);
            self.clock.after(delay, Happening::Lapse { line, near: false, cut: None });
        }
    }
}

impl HostEvent {
    fn tell(&self) -> String {
        match self {
            Self::Completed { tag, status, trace, .. } => {
                format!("completion {tag} {status:?} (epoch {})", trace.epoch)
            }
            other => format!("{other:?}"),
        }
    }
}

/// What a frame tells a host.
fn host_event(frame: Frame) -> Option<HostEvent> {
    Some(match frame {
        Frame::Completion { tag, status, data, trace } => {
            let data = match data {
                Data::Bytes(bytes) => Some(bytes),
                Data::None | Data::Here(_) => None,
            };
            HostEvent::Completed { tag, status, data, trace }
        }
        Frame::Ana { tag, optimized } => HostEvent::Ana { tag, optimized },
        Frame::Access { optimized } => HostEvent::Access { optimized },
        Frame::Resized { bytes } => HostEvent::Resized { bytes },
        Frame::Command { .. } | Frame::Answer { .. } | Frame::Request { .. } => return None,
        Frame::ReadAna { .. } | Frame::Bytes { .. } | Frame::Taken { .. } | Frame::Over { .. } => {
            return None;
        }
    })
}
