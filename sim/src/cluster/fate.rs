//! What befalls a cluster: faults, and what ends them.

use std::time::Duration;

use braid_block::Instant;
use braid_nexus::{Command, Record, Step, Uuid};
use braid_pool::Operation;

use super::ambush::Ambush;
use super::profile::Fault;
use super::run::{Run, Verdict};
use super::{DiskFault, Place};

/// What is done some time after a fault.
#[derive(Clone, Debug)]
pub(super) enum After {
    /// A process dies, if it has not.
    Kill(u8),
    /// A node loses its power.
    PowerCut(u8),
    /// A process starts, unless one runs.
    Start(u8),
    /// A process is replaced: its pool had failed.
    Replace(u8),
    /// Two places can reach each other again.
    Heal(Place, Place),
    /// What filled a pool goes.
    Unfill(u8),
    /// The store answers again.
    StoreUp,
    /// A host comes back.
    HostBack(usize),
    /// A node's engine shall own a volume.
    TakeOver(u8, usize),
    /// A host dies, and another engine shall own its volume.
    Usurp(usize),
    /// All power fails, that of hosts too.
    Outage,
    /// A host gives up its path to a node, silently, and the volume moves away from there.
    GiveUp {
        /// Of the host.
        guest: usize,
        /// Of the path.
        node: u8,
    },
    /// Somebody looks how far the layers of a chain are.
    Chain,
    /// It is time for the next of snapshots without end.
    Snapshots,
}

/// Within which two things happen "at once".
const AT_ONCE: Duration = Duration::from_millis(1);
/// Who answers within this does not fail before a death is noticed.
const PROMPT: Duration = Duration::from_millis(100);
/// Snapshots of a volume at once, at most.
const SNAPSHOTS_MAX: usize = 4;
/// One copy in so many is its source's last, where members are pursued.
const HUNTS_IN: u64 = 4;
/// Commits that a restored store lacks, at most.
const COMMITS_LOST: usize = 12;
/// For how much longer than hosts are let wait nothing is heard of a store, in ms: a member that
/// is cut off fails when a command to it takes too long, which is 3 s after it was sent.
const BEYOND_PATIENCE: [u64; 2] = [500, 8000];
/// What a volume grows by.
const GROWTH: u64 = 1 << 20;

impl Run {
    /// The next fault, if it is among those that are kept.
    pub(super) fn fault(&mut self) -> Verdict {
        let weights: Vec<u32> = self.profile.faults.iter().map(|(_, weight)| *weight).collect();
        if weights.is_empty() {
            return Ok(());
        }
        let fault = self.profile.faults[self.random.weighted(&weights)].0;
        let number = self.faults;
        self.faults += 1;
        // What a fault draws is drawn apart, so that one that is left out changes no other.
        let chance = self.random.number();
        let kept = self.selection.keep.as_ref().is_none_or(|keep| keep.contains(&number));
        if !kept || self.cluster.now() < self.alone {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.random, crate::random::Random::new(chance));
        self.cluster.tell(|| format!("== fault {number}: {fault:?}"));
        self.seen.mark(name(fault));
        let verdict = self.strike(fault);
        self.random = before;
        verdict
    }

    fn strike(&mut self, fault: Fault) -> Verdict {
        match fault {
            Fault::Usurp | Fault::Outage if self.profile.ambush == Some(Ambush::LastCommand) => {
                self.wait_for_command(fault);
            }
            Fault::Look if self.profile.rots() => {}
            Fault::Look => return self.look(),
            Fault::Kill
            | Fault::KillOwner
            | Fault::KillTwo
            | Fault::PowerCut
            | Fault::Blackout
            | Fault::Outage
            | Fault::Wipe => {
                self.strike_process(fault);
            }
            Fault::Pause => {
                let (node, time) = (self.some_node(), self.lasting());
                self.cluster.pause(node, time);
            }
            Fault::Split | Fault::OneWay | Fault::Isolate | Fault::HostCut => {
                self.strike_network(fault);
            }
            Fault::Stall
            | Fault::DiskError
            | Fault::Fill
            | Fault::BitFlip
            | Fault::LatentError
            | Fault::Misdirect => self.strike_disk(fault),
            Fault::StoreDown => {
                self.cluster.set_store_up(false);
                let time = self.lasting();
                self.later(time, After::StoreUp);
            }
            Fault::SlowExclusion => self.slow_exclusion(),
            Fault::StoreRestore | Fault::StoreLost => self.strike_store(fault),
            Fault::HostCrash | Fault::HostReset => self.strike_host(fault),
            Fault::AwayAndBack => self.away_and_back(),
            Fault::Usurp => {
                self.strike_host(Fault::HostCrash);
                self.order(Fault::TakeOver);
            }
            Fault::TakeOver
            | Fault::Shutdown
            | Fault::Snapshot
            | Fault::DeleteSnapshot
            | Fault::Resize
            | Fault::GiveUp
            | Fault::Exclude => self.order(fault),
        }
        Ok(())
    }

    /// A member fails while others are well, and its owner hears nothing of the store for longer
    /// than a commit may take: the store is away, or cut off from that owner alone. Nothing else
    /// happens meanwhile, or that member would rarely be the only one.
    fn slow_exclusion(&mut self) {
        let volume = self.random.index(self.volumes.len());
        let Some(owner) = self.owner_of(volume) else { return };
        let Some(view) = self.cluster.view(owner, volume) else { return };
        let members = view.members;
        if view.failing != 0 {
            return;
        }
        let others = (0..8).filter(|slot| members >> slot & 1 == 1);
        let others = others.filter_map(|slot| self.node_of(volume, slot));
        let others: Vec<u8> = others.filter(|node| *node != owner).collect();
        if others.is_empty() || members.count_ones() < 2 {
            return;
        }
        let node = *self.random.pick(&others);
        let [low, high] = BEYOND_PATIENCE;
        let silence =
            self.profile.timing.held + Duration::from_millis(self.random.within(low, high));
        self.alone = self.cluster.now() + silence;
        if self.random.once_in(2) {
            self.cluster.set_store_up(false);
            self.later(silence, After::StoreUp);
        } else {
            self.cut(Place::Node(owner), Place::Store, false, silence);
        }
        let time = self.lasting();
        if self.random.once_in(2) {
            self.kill(node);
            self.later(time, After::Start(node));
        } else {
            self.cut(Place::Node(owner), Place::Node(node), false, time);
        }
    }

    /// The store is lost; an owner dies then, sometimes, and a member whom nobody tells of.
    fn strike_store(&mut self, fault: Fault) {
        let commits = self.cluster.commits().len();
        if fault == Fault::StoreLost {
            self.cluster.lose_store();
        } else {
            let lost = self.random.index(commits.min(COMMITS_LOST));
            let renamed = self.random.once_in(2);
            self.cluster.restore_store(commits - lost, renamed);
        }
        self.seen.mark_if(self.cluster.knows_less(), "replicas knew more than the store");
        if self.random.once_in(2) {
            let volume = self.random.index(self.volumes.len());
            let serving = self.volumes[volume].passage.owner();
            let node = serving.unwrap_or_else(|| self.some_node());
            let (soon, time) = (Duration::from_millis(self.random.within(0, 300)), self.lasting());
            self.later(soon, After::Kill(node));
            self.later(soon + time, After::Start(node));
        }
    }

    fn strike_process(&mut self, fault: Fault) {
        let node = self.some_node();
        let time = self.lasting();
        match fault {
            Fault::Kill => {
                self.kill(node);
                self.later(time, After::Start(node));
            }
            Fault::KillOwner => {
                // A host dies with it, sometimes: nobody sends its writes again.
                if self.random.once_in(2) {
                    self.strike_host(Fault::HostCrash);
                }
                let volume = self.random.index(self.volumes.len());
                let node = self.owner_of(volume).unwrap_or(node);
                self.kill(node);
                self.later(time, After::Start(node));
            }
            Fault::KillTwo => {
                let other = (node + 1) % self.profile.nodes;
                self.kill(node);
                let soon = AT_ONCE * u32::try_from(self.random.below(100)).unwrap_or(0) / 100;
                self.later(soon, After::Kill(other));
                self.later(time, After::Start(node));
                let time = self.lasting();
                self.later(soon + time, After::Start(other));
            }
            Fault::PowerCut => {
                self.cut_power(node);
                self.later(time, After::Start(node));
            }
            Fault::Blackout | Fault::Outage => {
                if fault == Fault::Outage {
                    (0..self.guests.len()).for_each(|guest| self.crash_host(guest));
                }
                for node in 0..self.profile.nodes {
                    let soon = AT_ONCE * u32::try_from(self.random.below(100)).unwrap_or(0) / 100;
                    self.later(soon, After::PowerCut(node));
                    let time = self.lasting();
                    self.later(soon + time, After::Start(node));
                }
            }
            Fault::Wipe if self.may_wipe(node) => {
                self.wipe(node);
                self.later(time, After::Start(node));
            }
            _ => {}
        }
    }

    /// Whether nothing is lost for good with a node's disk: the other replicas of its volumes are
    /// members, none of these lost its disk since it became one, and none is about to be excluded,
    /// by order or otherwise, nor will be for something that it did not answer up to now.
    pub(super) fn may_wipe(&self, node: u8) -> bool {
        if self.cluster.has_cuts() {
            return false;
        }
        let (now, sites) = (self.cluster.now(), self.cluster.sites());
        (0..sites.volumes.len()).all(|volume| {
            let replicas = &sites.volumes[volume].replicas;
            if replicas.iter().all(|(_, at)| *at != node) {
                return true;
            }
            let Some(record) = self.cluster.record(volume) else { return false };
            let owner = self.owner_of(volume).and_then(|owner| self.cluster.view(owner, volume));
            let relies = owner.is_some_and(|view| {
                let prompt = |sent: Instant| now.since(sent) < PROMPT;
                let answers = view.oldest.is_none_or(prompt);
                let stays = view.failing == 0 && !view.changing;
                answers && stays && view.record.as_ref() == Some(record)
            });
            if !relies {
                return false;
            }
            let mut others = replicas.iter().filter(|(_, at)| *at != node).peekable();
            others.peek().is_some() && others.all(|(uuid, _)| self.is_whole(record, uuid))
        })
    }

    /// Whether a replica is a member that did not lose its disk since.
    pub(super) fn is_whole(&self, record: &Record, replica: &Uuid) -> bool {
        let instance = record.slot_of(replica).and_then(|slot| record.instance(slot));
        let wiped = self.wiped.get(replica);
        instance.is_some() && wiped.is_none_or(|before| *before != instance)
    }

    /// A node's disk is replaced by an empty one.
    pub(super) fn wipe(&mut self, node: u8) {
        self.forget(node);
        self.note_wipe(node);
        self.cluster.wipe(node);
    }

    fn note_wipe(&mut self, node: u8) {
        let replicas: Vec<Uuid> =
            self.cluster.sites().of_node(node).map(|(uuid, _)| uuid).collect();
        for replica in replicas {
            let volume = self.cluster.sites().volume_of(&replica);
            let record = volume.and_then(|volume| self.cluster.record(volume));
            let instance = record.and_then(|record| record.instance(record.slot_of(&replica)?));
            self.wiped.insert(replica, instance);
        }
    }

    /// A take-over found what differs: a member dies before that is mended, often.
    pub(super) fn pursue(&mut self, volume: usize) {
        if self.profile.pursuit_in == 0 || !self.random.once_in(self.profile.pursuit_in) {
            return;
        }
        let Some(record) = self.cluster.record(volume) else { return };
        let sites = self.cluster.sites();
        let owner = self.owner_of(volume);
        let members: Vec<u8> = (0..8)
            .filter(|slot| record.members() >> slot & 1 == 1)
            .filter_map(|slot| sites.node_of(&record.replica(slot)?.uuid))
            .filter(|node| Some(*node) != owner)
            .collect();
        if members.is_empty() {
            return;
        }
        let node = *self.random.pick(&members);
        let soon = self.profile.pursuit.draw(&mut self.random);
        let time = self.lasting();
        self.later(soon, After::Kill(node));
        self.later(soon + time, After::Start(node));
    }

    /// A return came to a step at which something hurts it.
    pub(super) fn ambush(&mut self, node: u8, volume: usize, slot: u8, step: Step) {
        let hurts = matches!(step, Step::Copying { .. } | Step::Adding);
        let often = self.profile.ambush_in;
        if !hurts || often == 0 || !self.random.once_in(often) {
            return;
        }
        if step != Step::Adding {
            return self.snapshot(node, volume);
        }
        if let Some(joiner) = self.node_of(volume, slot).filter(|joiner| *joiner != node) {
            let time = self.lasting();
            self.later(Duration::ZERO, After::Kill(joiner));
            self.later(time, After::Start(joiner));
        }
    }

    /// A replica has carried out a write, and regions are suspect: if it is a copy, whoever it
    /// came from dies before the owner hears of it, sometimes.
    pub(super) fn hunt(&mut self, volume: usize) {
        let Some(owner) = self.owner_of(volume) else { return };
        let copied = self.cluster.view(owner, volume).map_or(0, |view| view.copied);
        let winners = (0..8).filter(|slot| copied >> slot & 1 == 1);
        let winner = winners.filter_map(|slot| self.node_of(volume, slot)).find(|n| *n != owner);
        let Some(winner) = winner.filter(|_| self.random.once_in(HUNTS_IN)) else { return };
        let time = self.lasting();
        self.kill(winner);
        self.later(time, After::Start(winner));
    }

    /// The node of the replica in a slot.
    pub(super) fn node_of(&self, volume: usize, slot: u8) -> Option<u8> {
        let replica = self.cluster.record(volume)?.replica(slot)?;
        self.cluster.sites().node_of(&replica.uuid)
    }

    fn strike_network(&mut self, fault: Fault) {
        let node = self.some_node();
        let here = Place::Node(node);
        let time = self.lasting();
        match fault {
            Fault::Split | Fault::OneWay => {
                let mut places: Vec<Place> = (0..self.profile.nodes).map(Place::Node).collect();
                places.extend([Place::Store, Place::Planner]);
                places.retain(|place| *place != here);
                let there = *self.random.pick(&places);
                let (from, to) = if self.random.once_in(2) { (here, there) } else { (there, here) };
                self.cut(from, to, fault == Fault::OneWay, time);
            }
            Fault::Isolate => {
                let mut others: Vec<Place> = (0..self.profile.nodes)
                    .filter(|other| *other != node)
                    .map(Place::Node)
                    .collect();
                others.extend([Place::Store, Place::Planner]);
                // Sometimes one of them is still in reach.
                if self.random.once_in(3) {
                    others.remove(self.random.index(others.len()));
                }
                for other in others {
                    self.cut(here, other, false, time);
                }
            }
            _ => {
                let guest = self.some_guest();
                let host = Place::Host(self.guests[guest].place);
                let one_way = self.random.once_in(3);
                let (from, to) = if self.random.once_in(2) { (here, host) } else { (host, here) };
                self.cut(from, to, one_way, time);
            }
        }
    }

    fn cut(&mut self, from: Place, to: Place, one_way: bool, time: Duration) {
        self.cluster.partition(from, to, one_way);
        self.later(time, After::Heal(from, to));
    }

    fn strike_disk(&mut self, fault: Fault) {
        // One disk rots: at most one copy of anything is damaged.
        let node = if self.profile.rots() { self.rotten } else { self.some_node() };
        let time = self.lasting();
        match fault {
            Fault::Stall => {
                self.cluster.disk_fault(node, DiskFault::Stall(time));
            }
            Fault::DiskError => {
                let operation = *self.random.pick(&[Operation::Write, Operation::Flush]);
                let after = self.random.below(8);
                self.cluster.disk_fault(node, DiskFault::Fail(operation, after));
                self.later(time, After::Replace(node));
            }
            Fault::Fill => {
                let left = *self.random.pick(&[0, 1 << 20]);
                if self.cluster.fill(node, left).is_some() {
                    self.later(time, After::Unfill(node));
                }
            }
            Fault::BitFlip => {
                self.cluster.disk_fault(node, DiskFault::BitFlip);
            }
            Fault::LatentError => {
                self.cluster.disk_fault(node, DiskFault::LatentError);
            }
            _ => {
                self.cluster.disk_fault(node, DiskFault::MisdirectedWrite);
            }
        }
    }

    fn strike_host(&mut self, fault: Fault) {
        let guest = self.some_guest();
        if !self.guests[guest].host.is_up() {
            return;
        }
        if fault == Fault::HostReset {
            let path = self.random.index(usize::from(self.profile.nodes));
            let now = self.cluster.now();
            let at = &mut self.guests[guest];
            at.host.reset(now, &mut self.volumes[at.volume].history, path);
            return self.carry_out(guest);
        }
        self.crash_host(guest);
    }

    pub(super) fn crash_host(&mut self, guest: usize) {
        let silent = self.random.once_in(2);
        self.guests[guest].host.crash();
        for line in self.lines_of(guest) {
            self.forget_line(line);
            if silent {
                self.cluster.host_vanish(line);
            } else {
                self.cluster.host_leave(line);
            }
        }
        let time = self.lasting();
        self.later(time, After::HostBack(guest));
    }

    pub(super) fn order(&mut self, fault: Fault) {
        let volume = self.random.index(self.volumes.len());
        if fault == Fault::TakeOver {
            let node = self.some_node();
            return self.appoint(node, volume);
        }
        let Some(node) = self.owner_of(volume) else { return };
        let Some(record) = self.cluster.record(volume).cloned() else { return };
        let command = match fault {
            Fault::Shutdown => Command::Shutdown,
            Fault::Snapshot => return self.snapshot(node, volume),
            Fault::DeleteSnapshot => {
                if record.snapshots.is_empty() {
                    return;
                }
                Command::DeleteSnapshot { uuid: self.random.pick(&record.snapshots).uuid }
            }
            Fault::Resize => Command::Resize { bytes: record.bytes + GROWTH },
            Fault::GiveUp => {
                let away = (0..8).filter(|slot| record.away() >> slot & 1 == 1);
                let away = away.filter_map(|slot| record.replica(slot));
                let away: Vec<Uuid> = away.map(|replica| replica.uuid).collect();
                if away.is_empty() {
                    return;
                }
                Command::GiveUp { replica: *self.random.pick(&away) }
            }
            _ => {
                let members: Vec<Uuid> = (0..8)
                    .filter(|slot| record.members() >> slot & 1 == 1)
                    .filter_map(|slot| record.replica(slot).map(|replica| replica.uuid))
                    .collect();
                if members.len() < 2 {
                    return;
                }
                Command::Exclude { replica: *self.random.pick(&members) }
            }
        };
        self.cluster.command(node, volume, command);
    }

    fn snapshot(&mut self, node: u8, volume: usize) {
        let known = self.cluster.record(volume).map_or(0, |record| record.snapshots.len());
        if known < SNAPSHOTS_MAX {
            self.take_snapshot(node, volume);
        }
    }

    /// The same, however many there are.
    pub(super) fn take_snapshot(&mut self, node: u8, volume: usize) {
        let mut uuid = [0x5a; 16];
        uuid[..8].copy_from_slice(&self.random.number().to_be_bytes());
        let judged = &mut self.volumes[volume];
        let tick = judged.history.tick();
        judged.asked.insert(uuid, (tick, None));
        if judged.passage.copies() {
            judged.amid.insert(uuid);
        }
        self.cluster.command(node, volume, Command::Snapshot { uuid });
    }

    pub(super) fn appoint(&mut self, node: u8, volume: usize) {
        let owner = self.cluster.new_owner();
        self.cluster.command(node, volume, Command::TakeOver { owner, force: false });
    }

    /// A host gives up its path to the owner; the volume moves away at once, and back soon.
    fn away_and_back(&mut self) {
        let guest = self.some_guest();
        let volume = self.guests[guest].volume;
        let Some(here) = self.owner_of(volume) else { return };
        if self.profile.ambush == Some(Ambush::HeldPackets) {
            return self.hold_packets(guest, here);
        }
        let there = (here + 1) % self.profile.nodes;
        let now = self.cluster.now();
        let at = &mut self.guests[guest];
        at.host.reset(now, &mut self.volumes[volume].history, here.into());
        self.silent = true;
        self.carry_out(guest);
        self.silent = false;
        self.appoint(there, volume);
        let back = Duration::from_millis(self.random.within(20, 600));
        self.later(back, After::TakeOver(here, volume));
    }

    /// An owner begins to serve: it is cut off from all but its hosts, and another is appointed.
    pub(super) fn cut_off(&mut self, node: u8, volume: usize) {
        if self.profile.cut_off_in == 0 || !self.random.once_in(self.profile.cut_off_in) {
            return;
        }
        let time = self.lasting();
        let others = (0..self.profile.nodes).filter(|other| *other != node).map(Place::Node);
        for other in others.chain([Place::Store, Place::Planner]) {
            self.cut(Place::Node(node), other, false, time);
        }
        let next = (node + 1) % self.profile.nodes;
        let soon = Duration::from_millis(self.random.within(1, 300));
        self.later(soon, After::TakeOver(next, volume));
    }

    /// The node whose engine serves a volume, as the store has it.
    pub(super) fn owner_of(&self, volume: usize) -> Option<u8> {
        let owner = self.cluster.record(volume)?.owner;
        (0..self.profile.nodes).find(|node| {
            let view = self.cluster.view(*node, volume);
            view.is_some_and(|view| view.serving && view.owner == owner)
        })
    }

    /// Ends what a fault began.
    pub(super) fn end(&mut self, after: After) {
        match after {
            After::Kill(node) => self.kill(node),
            After::PowerCut(node) => self.cut_power(node),
            After::Start(node) => self.cluster.restart(node),
            After::Replace(node) => {
                if self.cluster.has_failed(node) {
                    self.kill(node);
                    self.cluster.restart(node);
                }
            }
            After::Heal(one, other) => self.cluster.heal(one, other),
            After::Unfill(node) => {
                self.cluster.unfill(node);
            }
            After::StoreUp => self.cluster.set_store_up(true),
            After::TakeOver(node, volume) => self.appoint(node, volume),
            After::GiveUp { guest, node } => self.give_up(guest, node),
            After::Usurp(guest) => self.usurp(guest),
            After::Outage => self.strike_process(Fault::Outage),
            After::Chain | After::Snapshots => {}
            After::HostBack(guest) => {
                let now = self.cluster.now();
                let at = &mut self.guests[guest];
                if !at.host.is_up() {
                    at.host.restart(now, &mut self.volumes[at.volume].history);
                    self.carry_out(guest);
                }
            }
        }
    }

    /// A process dies. A machine whose disk failed is switched off: what a flush that failed was
    /// to make durable is nobody's any more.
    pub(super) fn kill(&mut self, node: u8) {
        if self.cluster.has_failed(node) {
            self.cut_power(node);
        } else if self.cluster.is_running(node) {
            self.note_death(node);
            self.cluster.crash_process(node);
        }
    }

    fn cut_power(&mut self, node: u8) {
        self.note_death(node);
        self.forget(node);
        self.cluster.power_cut(node);
    }

    /// A node's replicas may lose what they have.
    fn forget(&mut self, node: u8) {
        let replicas: Vec<Uuid> =
            self.cluster.sites().of_node(node).map(|(uuid, _)| uuid).collect();
        for replica in replicas {
            let Some(volume) = self.cluster.sites().volume_of(&replica) else { continue };
            let Some(judged) = self.volumes.get_mut(volume) else { continue };
            judged.shadows.forgot(&mut judged.history, replica);
        }
    }

    /// A node dies while regions of a volume are suspect, and it is a member.
    fn note_death(&mut self, node: u8) {
        for volume in 0..self.volumes.len() {
            let Some(record) = self.cluster.record(volume) else { continue };
            let copied = self
                .owner_of(volume)
                .map_or(0, |owner| self.cluster.view(owner, volume).map_or(0, |view| view.copied));
            let is_here = |slots: u8| {
                let mut slots = (0..8).filter(|slot| slots >> slot & 1 == 1);
                slots.any(|slot| self.node_of(volume, slot) == Some(node))
            };
            let (won, member) = (is_here(copied), is_here(record.members()));
            self.seen.mark_if(won, "winner died with a copy in flight");
            let suspect = self.volumes[volume].passage.suspect > 0;
            let owner = self.owner_of(volume) != Some(node);
            self.seen.mark_if(member && suspect && owner, "member died while regions were suspect");
        }
    }

    pub(super) fn some_node(&mut self) -> u8 {
        u8::try_from(self.random.below(self.profile.nodes.into())).expect("a node")
    }

    fn some_guest(&mut self) -> usize {
        self.random.index(self.guests.len())
    }

    pub(super) fn lasting(&mut self) -> Duration {
        self.profile.lasts.draw(&mut self.random)
    }
}

const fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Kill => "kill",
        Fault::KillOwner => "kill of an owner",
        Fault::KillTwo => "two kills",
        Fault::PowerCut => "power cut",
        Fault::Blackout => "blackout",
        Fault::Outage => "outage",
        Fault::Pause => "pause",
        Fault::Split => "split",
        Fault::OneWay => "one-way split",
        Fault::Isolate => "isolation",
        Fault::Stall => "disk stall",
        Fault::DiskError => "disk error",
        Fault::Fill => "full pool",
        Fault::BitFlip => "bit flip",
        Fault::LatentError => "latent error",
        Fault::Misdirect => "misdirected write",
        Fault::Wipe => "wiped disk",
        Fault::StoreDown => "store down",
        Fault::SlowExclusion => "slow exclusion",
        Fault::StoreRestore => "store restored",
        Fault::StoreLost => "store lost",
        Fault::HostCrash => "host crash",
        Fault::HostReset => "path reset",
        Fault::HostCut => "path cut",
        Fault::TakeOver => "needless take-over",
        Fault::Usurp => "take-over as a host dies",
        Fault::AwayAndBack => "away and back",
        Fault::Shutdown => "orderly move",
        Fault::Snapshot => "snapshot asked for",
        Fault::DeleteSnapshot => "snapshot deleted",
        Fault::Resize => "resize",
        Fault::Exclude => "member taken out",
        Fault::GiveUp => "replica given up",
        Fault::Look => "look",
    }
}
