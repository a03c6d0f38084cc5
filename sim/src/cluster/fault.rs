//! What goes wrong, when whoever drives the cluster says so.

use std::time::Duration;

use braid_block::{BlockSize, IoError};
use braid_nexus::Plant;
use braid_pool::{Command, Create, Operation, State};

use super::Cluster;
use super::clock::Happening;
use super::drive::Pace;
use super::net::{Body, LineId, Place, Weather};
use super::planner::Temper;
use super::running::Running;
use super::store::Whims;
use crate::cut::Cuts;
use crate::world::{Injection, Trouble};

/// The replica that fills a pool.
const FILLER: [u8; 16] = [0xf1; 16];

/// Something that a disk does wrong.
#[derive(Clone, Copy, Debug)]
pub enum DiskFault {
    /// Nothing ends for so long.
    Stall(Duration),
    /// A sector of a host's data cannot be read until it is written.
    LatentError,
    /// A bit of a host's data turns.
    BitFlip,
    /// The next write of a host's block goes to the place of another one.
    MisdirectedWrite,
    /// After so many, an operation fails.
    Fail(Operation, u64),
}

impl Cluster {
    /// A node's process dies, and all it knows with it. What the kernel and the disk have stays.
    pub fn crash_process(&mut self, node: u8) {
        self.clock.tell(|| format!("== n{node}: its process dies"));
        let ends = self.end_process(node);
        // The kernel tells everybody who was connected.
        for (line, near, peer) in ends {
            let body = Body::End { line, near };
            self.net.send(&mut self.clock, Place::Node(node), peer, body);
        }
    }

    /// A node's process stops in order: what its pool has is durable when it ends, and instances
    /// are kept even if the machine starts anew.
    pub fn stop_process(&mut self, node: u8) {
        self.clock.tell(|| format!("== n{node}: its process stops in order"));
        self.with(node, |at, cx| {
            if let Some(process) = &mut at.process {
                process.stop(cx);
            }
        });
    }

    /// A node loses its power: what was not flushed may be gone, and nobody is told anything.
    pub fn power_cut(&mut self, node: u8) {
        self.clock.tell(|| format!("== n{node}: the power is cut"));
        let at = &mut self.nodes[usize::from(node)];
        if !at.powered {
            return;
        }
        let disk = Cuts::of(&at.drive.disk).random(&mut self.clock.random);
        let ends = self.end_process(node);
        let at = &mut self.nodes[usize::from(node)];
        at.drive.replace(disk);
        at.powered = false;
        if self.config.plant != Some(Plant::SameInstance) {
            at.boot += 1;
        }
        for (line, near, _) in ends {
            let delay = self.clock.spread(self.net.weather.lapse);
            self.clock.after(delay, Happening::Lapse { line, near: !near, cut: None });
        }
    }

    /// Ends a process, if there is one; its ends of lines.
    fn end_process(&mut self, node: u8) -> Vec<(LineId, bool, Place)> {
        let at = &mut self.nodes[usize::from(node)];
        at.drive.kill(&mut self.clock);
        at.end_process().map(|process| process.line_ends()).unwrap_or_default()
    }

    /// A node's machine has power, and its process starts, if none runs.
    pub fn restart(&mut self, node: u8) {
        let at = &mut self.nodes[usize::from(node)];
        at.powered = true;
        if at.process.is_none() {
            self.clock.tell(|| format!("== n{node}: a process starts"));
            self.start(node);
        }
    }

    /// A node's disk is replaced by a new one, on which its replicas are made anew: empty. Its
    /// process ends before.
    pub fn wipe(&mut self, node: u8) {
        if self.is_running(node) {
            self.crash_process(node);
        }
        self.clock.tell(|| format!("== n{node}: a new disk"));
        let at = &self.nodes[usize::from(node)];
        let (boot, life) = (at.boot, at.life);
        let (disk, _) = self.pool_shape(node).make(boot, life, self.sites.of_node(node));
        self.nodes[usize::from(node)].drive.replace(disk);
    }

    /// A node's process does nothing for so long; what comes waits.
    pub fn pause(&mut self, node: u8, time: Duration) {
        let at = &mut self.nodes[usize::from(node)];
        if at.process.is_none() || at.is_paused() {
            return;
        }
        self.clock.tell(|| format!("== n{node}: pauses for {time:?}"));
        at.pause += 1;
        let pause = at.pause;
        self.clock.after(time, Happening::Resume { node, pause });
    }

    pub(super) fn resume(&mut self, node: u8, pause: u64) {
        self.with(node, |at, cx| {
            if at.pause == pause {
                cx.clock.tell(|| format!("== n{node}: goes on"));
                at.resume(cx);
            }
        });
    }

    /// Nothing comes from one place to another, and unless `one_way` nothing comes back.
    pub fn partition(&mut self, from: Place, to: Place, one_way: bool) {
        self.clock
            .tell(|| format!("== cut: {from} > {to}{}", if one_way { "" } else { " and back" }));
        let cut = self.net.cut(from, to);
        if !one_way {
            self.net.cut(to, from);
        }
        let mut ends = Vec::new();
        for (one, other) in [(from, to), (to, from)] {
            ends.extend(self.ends_at(one, other));
        }
        for (line, near, at) in ends {
            // A far end hears its near one as long as that direction is whole.
            if near || !one_way || at == to {
                let delay = self.clock.spread(self.net.weather.lapse);
                self.clock.after(delay, Happening::Lapse { line, near, cut: Some(cut) });
            }
        }
    }

    /// Ends of lines at a place whose other ends are at another.
    fn ends_at(&self, at: Place, peer: Place) -> Vec<(LineId, bool, Place)> {
        match at {
            Place::Node(node) => {
                let process = self.nodes[usize::from(node)].process.as_ref();
                let ends = process.map(|process| process.line_ends()).unwrap_or_default();
                let mine = ends.into_iter().filter(|(.., other)| *other == peer);
                mine.map(|(line, near, _)| (line, near, at)).collect()
            }
            Place::Host(host) => {
                let mine = self
                    .hosts
                    .iter()
                    .filter(|(_, line)| line.host == host && Place::Node(line.node) == peer);
                mine.map(|(line, _)| (*line, true, at)).collect()
            }
            Place::Store | Place::Planner => Vec::new(),
        }
    }

    /// What was cut between two places is whole again, both ways.
    pub fn heal(&mut self, one: Place, other: Place) {
        if self.net.is_apart(one, other) {
            self.clock.tell(|| format!("== healed: {one} and {other}"));
        }
        self.net.heal(&mut self.clock, one, other);
        self.net.heal(&mut self.clock, other, one);
    }

    /// Whether two places cannot reach each other.
    #[must_use]
    pub fn has_cuts(&self) -> bool {
        self.net.cuts().next().is_some()
    }

    /// Nothing is cut any more.
    pub fn heal_all(&mut self) {
        let cuts: Vec<(Place, Place)> = self.net.cuts().collect();
        for (from, to) in cuts {
            self.heal(from, to);
        }
    }

    /// The network behaves so from now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.net.weather = weather;
    }

    /// The network as it behaves now.
    #[must_use]
    pub const fn weather(&self) -> Weather {
        self.net.weather
    }

    /// The store behaves so from now on.
    pub const fn set_whims(&mut self, whims: Whims) {
        self.store.whims = whims;
    }

    /// The planner behaves so from now on.
    pub const fn set_temper(&mut self, temper: Temper) {
        self.planner.temper = temper;
    }

    /// A disk does something wrong; false if it has nothing to do it to.
    pub fn disk_fault(&mut self, node: u8, fault: DiskFault) -> bool {
        self.clock.tell(|| format!("== n{node} disk: {fault:?}"));
        let clock = &mut self.clock;
        let drive = &mut self.nodes[usize::from(node)].drive;
        match fault {
            DiskFault::Stall(time) => drive.stall(clock.now() + time),
            DiskFault::LatentError => return drive.spoil(clock),
            DiskFault::BitFlip => return drive.flip(clock),
            DiskFault::MisdirectedWrite => drive.misdirect(),
            DiskFault::Fail(operation, after) => {
                let trouble = Trouble::Fail(IoError::Device);
                drive.inject(Injection { operation, after, trouble });
            }
        }
        true
    }

    /// A node's pool gets full: something else takes what is available, but for `left` bytes. An
    /// errand: [`super::Happened::Errand`] tells its end.
    pub fn fill(&mut self, node: u8, left: u64) -> Option<u64> {
        let process = self.nodes[usize::from(node)].process.as_ref()?;
        let bytes =
            process.pool()?.info().available.checked_sub(left).filter(|bytes| *bytes > 0)?;
        self.clock.tell(|| format!("== n{node}: the pool gets full"));
        let create = Create {
            uuid: FILLER,
            name: "filler".into(),
            bytes,
            block: BlockSize::B4096,
            thick: true,
            created: 0,
        };
        self.errand(node, Command::Create(Box::new(create)))
    }

    /// What filled a pool goes away.
    pub fn unfill(&mut self, node: u8) -> Option<u64> {
        self.errand(node, Command::Destroy { uuid: FILLER })
    }

    /// Whether something fills a node's pool.
    #[must_use]
    pub fn is_filled(&self, node: u8) -> bool {
        let process = self.nodes[usize::from(node)].process.as_ref();
        process.and_then(Running::pool).is_some_and(|pool| pool.find(&FILLER).is_some())
    }

    /// Whether a node's pool does nothing any more.
    #[must_use]
    pub fn has_failed(&self, node: u8) -> bool {
        let process = self.nodes[usize::from(node)].process.as_ref();
        process.and_then(Running::pool).is_some_and(|pool| pool.state() == State::Failed)
    }

    /// The disks take so long from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.config.pace = pace;
        self.nodes.iter_mut().for_each(|node| node.drive.set_pace(pace));
    }

    /// The store answers nobody, or does again.
    pub fn set_store_up(&mut self, up: bool) {
        self.clock.tell(|| format!("== store: {}", if up { "up" } else { "down" }));
        self.store.set_up(up);
    }

    /// The store is lost, and comes back as it was after so many commits, with another identity.
    /// Its records may bear that one, as if they were its own.
    pub fn restore_store(&mut self, commits: usize, renamed: bool) {
        self.clock.tell(|| {
            let how = if renamed { ", and renamed" } else { "" };
            format!("== store: restored as it was after {commits} commits{how}")
        });
        self.store.restore(commits, renamed);
    }

    /// The store is lost, and an empty one is in its place.
    pub fn lose_store(&mut self) {
        self.clock.tell(|| "== store: lost");
        self.store.lose();
    }
}
