//! Volumes that this shard serves: the nexus of each, its hosts, and what it asks of the shell.
//!
//! Invariants:
//! 1. What happened to a volume is told it in its turn, in the order in which it happened.
//! 2. A volume's place is given to another one only when nothing of it is in work.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Geometry, Instant, Key, Lease, Memory, Slab};
use braid_nexus::record::{Record, Uuid};
use braid_nexus::{
    Command, Config, Effect as Wanted, Ended, Event, Limits, Pace, Timing, View, Volume,
};
use braid_nvme::ana::AnaState;
use braid_nvme::connect::Nqn;

use super::calls::Call;
use super::guests::Seat;
use super::links::Link;
use super::sums::KnownSums;
use crate::Shard;
use crate::ana::AnaChange;
use crate::note::Why;
use crate::subsystem::Subsystem;

/// Commands of volumes to other engines at once, for each volume.
pub(super) const CALLS_MAX: u32 = 16_384;

/// A volume that this shard is to serve.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// Its identity.
    pub volume: Uuid,
    /// Its size, as last known; zero: not yet.
    pub bytes: u64,
    /// The replica to read from first: one of this engine.
    pub near: Option<Uuid>,
    /// Times of the protocol.
    pub timing: Timing,
    /// What is allocated.
    pub limits: Limits,
    /// The name by which replicas of other engines know us.
    pub hostnqn: Nqn,
    /// Replicas at other engines, and their addresses in the shell's table.
    pub places: Vec<(Uuid, u32)>,
}

/// What a volume asks of the shell, or tells it.
#[derive(Debug)]
pub struct Told {
    /// Which.
    pub volume: Uuid,
    /// What.
    pub news: News,
}

/// What there is to tell of a volume.
#[derive(Debug)]
pub enum News {
    /// The store is to be asked; [`Shard::volume_answer`] has the answer.
    Asked(Question),
    /// A command of [`Shard::volume_command`] ended.
    Ended(Ended),
    /// Something for logs, metrics and stories.
    Note(braid_nexus::Note),
    /// Hosts' paths by this engine are optimized from now on, or inaccessible.
    Access {
        /// Which of them.
        optimized: bool,
    },
    /// Its size.
    Resized {
        /// Bytes.
        bytes: u64,
    },
    /// A volume that was to be removed is gone.
    Gone,
}

/// A question to the store.
#[derive(Debug)]
pub enum Question {
    /// Put `new` in the place of `old`, compared as a whole: ends with `Event::Swapped`.
    Swap {
        /// Comes back.
        number: u64,
        /// What is expected there.
        old: Box<Record>,
        /// What shall be there.
        new: Box<Record>,
    },
    /// Read the record: ends with `Event::Fetched`.
    Fetch,
}

/// A volume at work.
pub(super) struct Served {
    pub(super) id: Uuid,
    pub(super) volume: Box<Volume>,
    pub(super) links: Vec<Link>,
    pub(super) hostnqn: Nqn,
    places: Vec<(Uuid, u32)>,
    pub(super) guests: Vec<Seat>,
    pub(super) associations: u32,
    /// Associations of our host side that it opened and that are not gone.
    pub(super) hosts: u32,
    /// What happened since its last turn.
    pub(super) news: VecDeque<Event>,
    /// Something was asked of it since then.
    pub(super) asked: bool,
    /// It takes no command any more.
    retired: bool,
    leaving: bool,
}

impl Served {
    /// Where a replica of another engine is.
    pub(super) fn place_of(&self, replica: &Uuid) -> Option<u32> {
        self.places.iter().find(|(known, _)| known == replica).map(|(_, address)| *address)
    }

    pub(super) fn take_link(&mut self, association: u32) -> Option<Link> {
        let at = self.links.iter().position(|link| link.association == association)?;
        Some(self.links.swap_remove(at))
    }

    /// The place of the host of this controller.
    pub(super) fn guest(&self, subsystem: u16, controller: Key) -> Option<usize> {
        let its = |guest: &Seat| (guest.subsystem, guest.controller) == (subsystem, controller);
        self.guests.iter().position(its)
    }

    /// Tells it what happened.
    pub(super) fn catch_up<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        while let Some(event) = self.news.pop_front() {
            self.volume.handle(mem, now, event);
        }
    }

    /// Its size, as far as it is known.
    pub(super) fn bytes(&self) -> u64 {
        self.volume.bytes()
    }

    fn has_work(&self) -> bool {
        self.asked || !self.news.is_empty() || self.volume.has_work()
    }
}

/// The volumes of a shard.
pub(crate) struct Volumes {
    pub(super) list: Vec<Option<Served>>,
    pub(super) calls: Slab<Call>,
    pub(super) sums: KnownSums,
    /// Buffers of links that are gone, to be given back.
    pub(super) orphans: Vec<Lease>,
    /// What is to be asked and told, oldest first.
    told: VecDeque<Told>,
}

impl Volumes {
    pub(crate) fn new() -> Self {
        Self {
            list: Vec::new(),
            calls: Slab::with_capacity(0),
            sums: KnownSums::default(),
            orphans: Vec::new(),
            told: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&mut self, volume: usize) -> Option<&mut Served> {
        self.list.get_mut(volume)?.as_mut()
    }

    /// A volume whose turn it is.
    pub(super) fn at(&mut self, volume: usize) -> &mut Served {
        self.list[volume].as_mut().expect("a volume stays while anything of it is in work")
    }

    pub(super) fn link(&mut self, volume: usize, association: u32) -> Option<&mut Link> {
        self.get(volume)?.links.iter_mut().find(|link| link.association == association)
    }

    /// A volume's turn is to come.
    pub(super) fn ask(&mut self, volume: usize) {
        if let Some(served) = self.get(volume) {
            served.asked = true;
        }
    }

    pub(super) fn find(&self, id: &Uuid) -> Option<usize> {
        (0..self.list.len()).find(|at| self.is(*at, id))
    }

    /// The same, when it is most likely in this place.
    pub(super) fn find_near(&self, id: &Uuid, at: usize) -> Option<usize> {
        if self.is(at, id) { Some(at) } else { self.find(id) }
    }

    fn is(&self, at: usize, id: &Uuid) -> bool {
        self.list.get(at).and_then(Option::as_ref).is_some_and(|served| served.id == *id)
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.told.is_empty() || self.list.iter().flatten().any(Served::has_work)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.list.iter().flatten().filter_map(|served| served.volume.poll_timeout()).min()
    }
}

impl Shard {
    /// Adds a volume, which this engine does not own yet: its hosts' commands are answered as on
    /// an inaccessible path. A subsystem whose namespace names it serves it. False: it is there.
    pub fn volume_add(&mut self, config: VolumeConfig) -> bool {
        let VolumeConfig { volume, bytes, near, timing, limits, hostnqn, places } = config;
        if self.stopping || self.volumes.find(&volume).is_some() {
            return false;
        }
        let plant = self.members.stage.plan.plant;
        let nexus = Config { volume, timing, limits, near, bytes, plant };
        let served = Served {
            id: volume,
            volume: Box::new(Volume::new(nexus)),
            links: Vec::new(),
            hostnqn,
            places,
            guests: Vec::new(),
            associations: 0,
            hosts: 0,
            news: VecDeque::new(),
            asked: true,
            retired: false,
            leaving: false,
        };
        if self.volumes.calls.capacity() == 0 {
            self.volumes.calls = Slab::with_capacity(CALLS_MAX);
        }
        match self.volumes.list.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(served),
            None => self.volumes.list.push(Some(served)),
        }
        true
    }

    /// Ends a volume's owner, as if another one had been appointed, and takes no command any more:
    /// what hosts wait for is answered that they should ask elsewhere, so that its subsystem can be
    /// removed. False: it is not there.
    pub fn volume_retire(&mut self, id: &Uuid) -> bool {
        let Some(at) = self.volumes.find(id) else { return false };
        let served = self.volumes.at(at);
        served.retired = true;
        served.asked = true;
        served.volume.retire();
        true
    }

    /// Removes a volume, whose subsystem is to be removed before: [`News::Gone`] tells when
    /// nothing of it is in work any more. False: it is not there.
    pub fn volume_remove(&mut self, id: &Uuid) -> bool {
        if !self.volume_retire(id) {
            return false;
        }
        let Some(at) = self.volumes.find(id) else { return false };
        self.volumes.at(at).leaving = true;
        true
    }

    /// Tells where a replica of another engine is; none: it is not known.
    pub fn volume_place(&mut self, id: &Uuid, replica: Uuid, address: Option<u32>) -> bool {
        let Some(at) = self.volumes.find(id) else { return false };
        let places = &mut self.volumes.at(at).places;
        places.retain(|(known, _)| *known != replica);
        places.extend(address.map(|address| (replica, address)));
        true
    }

    /// Gives a volume a command of the management; [`News::Ended`] tells how it ended. False: it
    /// is not there, or retired.
    pub fn volume_command(&mut self, now: Instant, id: &Uuid, tag: u64, command: Command) -> bool {
        let Some(at) = self.volumes.find(id) else { return false };
        let served = self.volumes.at(at);
        if served.retired {
            return false;
        }
        served.volume.command(now, tag, command);
        served.asked = true;
        true
    }

    /// Sets how fast replicas of a volume that return are brought up to date. False: it is not
    /// there.
    pub fn volume_pace(&mut self, now: Instant, id: &Uuid, pace: Pace) -> bool {
        let Some(at) = self.volumes.find(id) else { return false };
        let served = self.volumes.at(at);
        served.volume.set_pace(now, pace);
        served.asked = true;
        true
    }

    /// Tells a volume that another engine owns its size: hosts that come by this one see it. False:
    /// it is not there.
    pub fn volume_size(&mut self, id: &Uuid, bytes: u64) -> bool {
        let Some(at) = self.volumes.find(id) else { return false };
        let served = self.volumes.at(at);
        served.volume.told_size(bytes);
        served.asked = true;
        true
    }

    /// Lets long rebuilds of a volume go on, or wait for their turn. False: it is not there.
    pub fn volume_rebuilds(&mut self, id: &Uuid, turn: bool) -> bool {
        let Some(at) = self.volumes.find(id) else { return false };
        let served = self.volumes.at(at);
        served.volume.set_turn(turn);
        served.asked = true;
        true
    }

    /// Answers a [`Question`]: `Event::Swapped` or `Event::Fetched`. False: it is not there.
    pub fn volume_answer(&mut self, id: &Uuid, event: Event) -> bool {
        debug_assert!(matches!(event, Event::Swapped { .. } | Event::Fetched { .. }));
        let Some(at) = self.volumes.find(id) else { return false };
        self.tell_volume(at, event);
        true
    }

    /// The next thing that a volume asks or tells. There is work as long as nobody takes it.
    pub fn volume_poll(&mut self) -> Option<Told> {
        self.volumes.told.pop_front()
    }

    /// Where a volume stands at this engine.
    #[must_use]
    pub fn volume_view(&self, id: &Uuid) -> Option<View> {
        let at = self.volumes.find(id)?;
        self.volumes.list[at].as_ref().map(|served| served.volume.view())
    }

    pub(super) fn volume(&self, id: &Uuid) -> Option<&Volume> {
        let at = self.volumes.find(id)?;
        self.volumes.list[at].as_ref().map(|served| &*served.volume)
    }

    /// All volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &Uuid> {
        self.volumes.list.iter().flatten().map(|served| &served.id)
    }

    pub(super) fn tell_volume(&mut self, volume: usize, event: Event) {
        if let Some(served) = self.volumes.get(volume) {
            served.news.push_back(event);
        }
    }

    /// Volumes whose time has come.
    pub(crate) fn volumes_elapsed<M: Memory>(&mut self, mem: &mut M) {
        let now = self.now;
        for served in self.volumes.list.iter_mut().flatten() {
            if served.volume.poll_timeout().is_some_and(|due| due <= now) {
                served.volume.handle(mem, now, Event::Elapsed);
                served.asked = true;
            }
        }
    }

    /// Ends the volumes' turn: what happened is told them, what they want is done.
    pub(crate) fn volumes_end_turn<M: Memory>(&mut self, mem: &mut M) {
        if self.volumes.list.is_empty() {
            return;
        }
        while let Some((host, event)) = self.mirror_poll() {
            self.on_link_event(mem, host, event);
        }
        for volume in 0..self.volumes.len() {
            let freed = self.freed;
            let goes_on = |served: &mut Served| {
                served.has_work() || freed && served.links.iter().any(Link::waits)
            };
            if self.volumes.get(volume).is_some_and(goes_on) {
                self.volume_turn(mem, volume);
                // What it gave back, others may wait for.
                self.freed = true;
            }
        }
        self.volumes.orphans.drain(..).for_each(|lease| mem.free(lease));
    }

    fn volume_turn<M: Memory>(&mut self, mem: &mut M, at: usize) {
        let now = self.now;
        self.links_on(mem, at);
        let served = self.volumes.at(at);
        served.asked = false;
        served.catch_up(mem, now);
        served.volume.end_turn(mem, now);
        while let Some(wanted) = self.volumes.at(at).volume.poll_effect() {
            self.volume_wants(mem, at, wanted);
        }
        while let Some(completion) = self.volumes.at(at).volume.poll_completion() {
            self.on_volume_done(mem, completion);
        }
        while let Some(ended) = self.volumes.at(at).volume.poll_ended() {
            self.volume_tells(at, News::Ended(ended));
        }
        while let Some(note) = self.volumes.at(at).volume.poll_note() {
            self.volume_tells(at, News::Note(note));
        }
        self.bury_volume(mem, at);
    }

    fn volume_tells(&mut self, at: usize, news: News) {
        let volume = self.volumes.at(at).id;
        self.volumes.told.push_back(Told { volume, news });
    }

    /// Forgets a volume that was to be removed, once nothing of it is in work.
    fn bury_volume<M: Memory>(&mut self, mem: &mut M, at: usize) {
        if !self.volumes.at(at).leaving {
            return;
        }
        let links: Vec<u32> = self.volumes.at(at).links.iter().map(|l| l.association).collect();
        for association in links {
            self.leave(mem, at, association);
        }
        let served = self.volumes.at(at);
        let view = served.volume.view();
        let buffers = view.requests + view.segments;
        let quiet = view.calls == 0 && buffers == 0 && served.news.is_empty();
        let alone = served.hosts == 0;
        // A late answer must not find another volume in this place.
        let answered = !self.members.works_for(at) && !self.has_calls(at);
        if quiet && answered && alone {
            self.volume_tells(at, News::Gone);
            self.volumes.list[at] = None;
            self.tell_drained();
        }
    }

    fn volume_wants<M: Memory>(&mut self, mem: &mut M, at: usize, wanted: Wanted) {
        match wanted {
            Wanted::Associate { association, replica } => {
                self.associate(mem, at, association, replica);
            }
            Wanted::Leave { association } => self.leave(mem, at, association),
            Wanted::Send { association, token, command, span } => {
                self.send(mem, at, association, token, command, span);
            }
            Wanted::Swap { number, old, new, blind } => {
                debug_assert!(!blind, "only a planted bug puts blindly");
                self.volume_tells(at, News::Asked(Question::Swap { number, old, new }));
            }
            Wanted::Fetch => self.volume_tells(at, News::Asked(Question::Fetch)),
            Wanted::HostLeave { association } => {
                let guests = &mut self.volumes.at(at).guests;
                let found = guests.iter().position(|guest| guest.association == association);
                if let Some(Seat { subsystem, controller, .. }) = found.map(|i| guests.remove(i)) {
                    self.end_controller(mem, subsystem, controller, Why::Replaced);
                }
            }
            Wanted::Access { optimized } => {
                self.volume_access(mem, at, optimized);
                self.volume_tells(at, News::Access { optimized });
            }
            Wanted::Resized { bytes } => {
                self.volume_resized(at, bytes);
                self.volume_tells(at, News::Resized { bytes });
            }
        }
    }

    /// The subsystem and the namespace that hosts reach a volume by, if it is served.
    fn served_by(&self, at: usize) -> Option<(usize, usize)> {
        let id = self.volumes.list[at].as_ref()?.id;
        let of = |s: &Subsystem| s.namespaces.iter().position(|n| n.backend.volume() == Some(&id));
        (0..).zip(&self.subsystems).find_map(|(place, s)| of(s).map(|namespace| (place, namespace)))
    }

    /// Hosts' paths by this engine are optimized from now on, or inaccessible.
    fn volume_access<M: Memory>(&mut self, mem: &mut M, at: usize, optimized: bool) {
        let Some((subsystem, namespace)) = self.served_by(at) else { return };
        let group = self.subsystems[subsystem].namespaces[namespace].group;
        let state = if optimized { AnaState::Optimized } else { AnaState::Inaccessible };
        let nqn = self.subsystems[subsystem].nqn;
        let change = AnaChange { subsystem: nqn.as_str(), group, listener: None, state };
        let now = self.now;
        self.ana_set(mem, now, &change);
    }

    /// A volume has another size.
    fn volume_resized(&mut self, at: usize, bytes: u64) {
        let Some((subsystem, namespace)) = self.served_by(at) else { return };
        let subsystem = &self.subsystems[subsystem];
        let view = subsystem.views[namespace];
        let (nqn, geometry) = (subsystem.nqn, Geometry::of_bytes(bytes, view.geometry.block));
        self.namespace_resize(nqn.as_str(), view.nsid, geometry);
    }
}
