//! Faults that wait for their moment: what a profile is for is met by what the cluster does, and
//! not by luck.
//!
//! Invariants:
//! 1. A moment is one that an engine, a replica or the network could see; what then happens is a
//!    fault of the model.
//! 2. What is drawn is drawn from the seed, so a seed is one run.

use std::time::Duration;

use braid_block::Instant;
use braid_nexus::{Copying, Step};

use super::Place;
use super::fate::After;
use super::profile::Fault;
use super::run::Run;

/// What a profile waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambush {
    /// A copy of a suspect region is on its way to others: the member that it came from dies.
    CopyOnItsWay,
    /// A replica that returns gets every write: the pools of all members get full for a while.
    FullMembers,
    /// Packets of a host to the owner are held up; the host gives that path up, the volume moves
    /// away and back, and then they arrive.
    HeldPackets,
    /// A host's command is on its way: only now what takes that host with it befalls the cluster.
    LastCommand,
}

/// A host whose packets are held up on their way to an engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    host: Place,
    node: u8,
    volume: usize,
    /// Another engine has served since.
    away: bool,
}

/// What lies in wait, and for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Lurking {
    /// The epoch in which it has struck.
    struck: Option<u64>,
    /// The copy that is on its way, and since when.
    copy: Option<(u64, Instant)>,
    held: Option<Held>,
    /// The next command that is on its way is its host's last, by this.
    last: Option<Fault>,
}

/// A copy that is on its way for longer is late: what is sent behind it may come first.
const SLOW: Duration = Duration::from_millis(4);
/// How long the volume stays away from the engine that packets are held from.
const AWAY: (u64, u64) = (300, 1500);

impl Run {
    /// Looks whether the moment is there.
    pub(super) fn lurk(&mut self) {
        if self.lurking.last.is_some() && self.faulty {
            self.lurk_for_commands();
        }
        if self.profile.ambush != Some(Ambush::CopyOnItsWay) || !self.faulty {
            return;
        }
        for volume in 0..self.volumes.len() {
            if self.volumes[volume].passage.suspect > 0 {
                self.lurk_for_copies(volume);
            }
        }
    }

    /// Waits for the next command with this. A snapshot is taken before an owner is driven out, so
    /// that the command finds no mark and what it changes a part of must be read first.
    pub(super) fn wait_for_command(&mut self, fault: Fault) {
        if fault == Fault::Usurp {
            self.order(Fault::Snapshot);
        }
        self.lurking.last = Some(fault);
    }

    fn lurk_for_commands(&mut self) {
        let Some(guest) = self.guests.iter().position(|guest| !guest.host.is_idle()) else {
            return;
        };
        let soon = Duration::from_millis(self.random.within(2, 30));
        match self.lurking.last.take() {
            Some(Fault::Usurp) => self.later(soon, After::Usurp(guest)),
            _ => self.later(soon, After::Outage),
        }
    }

    /// A host dies, and another owner is appointed.
    pub(super) fn usurp(&mut self, guest: usize) {
        if self.guests[guest].host.is_up() {
            self.crash_host(guest);
        }
        self.order(Fault::TakeOver);
    }

    /// What an engine copies just now, the replicas by their nodes.
    pub(super) fn copies(&self, volume: usize, node: u8) -> Vec<Copying> {
        self.cluster.copies(node, volume)
    }

    fn lurk_for_copies(&mut self, volume: usize) {
        let passage = &self.volumes[volume].passage;
        let Some(owner) = passage.owner() else { return };
        let epoch = self.volumes[volume].epoch;
        if self.lurking.struck == Some(epoch) {
            return;
        }
        let copies = self.copies(volume, owner);
        let Some(copy) = copies.iter().find(|copy| copy.written && !copy.rebuild) else {
            self.lurking.copy = None;
            return;
        };
        let now = self.cluster.now();
        let known = self.lurking.copy.filter(|(first, _)| *first == copy.first);
        let (_, since) = *self.lurking.copy.insert(known.unwrap_or((copy.first, now)));
        if now.since(since) < SLOW {
            return;
        }
        let Some(source) = self.node_of(volume, copy.from).filter(|node| *node != owner) else {
            return;
        };
        self.lurking.struck = Some(epoch);
        self.seen.mark("source died while its copy was on its way");
        self.cluster.tell(|| format!("== moment: {copy:?}"));
        self.kill(source);
        let time = self.lasting();
        self.later(time, After::Start(source));
    }

    /// A replica returns, and came so far.
    pub(super) fn lurk_for_returns(&mut self, volume: usize, slot: u8, step: Step) {
        let waits = self.profile.ambush == Some(Ambush::FullMembers) && self.faulty;
        if !waits || step != Step::Attached {
            return;
        }
        let Some(record) = self.cluster.record(volume) else { return };
        let members = record.members();
        let time = self.lasting();
        for member in (0..8).filter(|member| members >> member & 1 == 1 && *member != slot) {
            let Some(node) = self.node_of(volume, member) else { continue };
            if self.cluster.fill(node, 0).is_some() {
                self.later(time, After::Unfill(node));
            }
        }
        self.seen.mark("members got full while a replica returned");
    }

    /// Packets of a host to the owner are held up from now on, and soon the host gives that path
    /// up, and the volume moves.
    pub(super) fn hold_packets(&mut self, guest: usize, node: u8) {
        if self.lurking.held.is_some() {
            return;
        }
        let (place, volume) = (self.guests[guest].place, self.guests[guest].volume);
        let host = Place::Host(place);
        self.cluster.partition(host, Place::Node(node), true);
        self.lurking.held = Some(Held { host, node, volume, away: false });
        let soon = Duration::from_millis(self.random.within(2, 40));
        self.later(soon, After::GiveUp { guest, node });
    }

    /// A host gives up a path whose engine hears nothing of it.
    pub(super) fn give_up(&mut self, guest: usize, node: u8) {
        let now = self.cluster.now();
        let at = &mut self.guests[guest];
        let volume = at.volume;
        at.host.reset(now, &mut self.volumes[volume].history, node.into());
        self.silent = true;
        self.carry_out(guest);
        self.silent = false;
        let there = (node + 1) % self.profile.nodes;
        self.appoint(there, volume);
    }

    /// An engine serves.
    pub(super) fn lurk_for_owners(&mut self, volume: usize, node: u8) {
        let Some(held) = self.lurking.held.filter(|held| held.volume == volume) else { return };
        if node != held.node && !held.away {
            self.lurking.held = Some(Held { away: true, ..held });
            let (low, high) = AWAY;
            let back = Duration::from_millis(self.random.within(low, high));
            self.later(back, After::TakeOver(held.node, volume));
        } else if node == held.node && held.away {
            self.lurking.held = None;
            self.seen
                .mark("packets of an older epoch came to an engine that owns the volume again");
            let soon = Duration::from_millis(self.random.within(0, 100));
            self.later(soon, After::Heal(held.host, Place::Node(held.node)));
        }
    }
}
