//! What a cluster is made of and what befalls it: drawn from the seed, or so that one trap is met
//! often.

mod named;

use std::time::Duration;

use braid_nexus::{Limits, Timing};

use super::Spread;
use super::ambush::Ambush;
use super::drive::Pace;
use super::host::Habits;
use super::net::Weather;
use super::planner::Temper;
use super::store::Whims;
use super::swarm;
use crate::random::Random;
use named::NAMED;

/// Sectors of a MiB.
const MIB: u64 = 2048;

/// What may befall a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies, and starts again.
    Kill,
    /// The process that serves a volume dies, sometimes with a host.
    KillOwner,
    /// Two processes die within a millisecond.
    KillTwo,
    /// A node loses its power for a while.
    PowerCut,
    /// All nodes lose their power within a millisecond.
    Blackout,
    /// The same, and all hosts lose their memory with it.
    Outage,
    /// A process does nothing for a while.
    Pause,
    /// Two places cannot reach each other for a while.
    Split,
    /// One place does not reach another for a while, but hears of it.
    OneWay,
    /// A node is cut off from everybody but hosts, or but a few.
    Isolate,
    /// A disk ends nothing for a while.
    Stall,
    /// A write or a flush of a disk fails; the process starts again later.
    DiskError,
    /// A pool is full for a while.
    Fill,
    /// A bit on a disk turns.
    BitFlip,
    /// A sector cannot be read.
    LatentError,
    /// A write goes elsewhere.
    Misdirect,
    /// A disk is replaced by an empty one.
    Wipe,
    /// The store answers nobody for a while.
    StoreDown,
    /// One member fails, alone, and the owner cannot have that written down for longer than hosts
    /// are let wait.
    SlowExclusion,
    /// The store is lost, and an older state comes back.
    StoreRestore,
    /// The store is lost, and an empty one is in its place.
    StoreLost,
    /// A host loses its memory, and comes back.
    HostCrash,
    /// A host resets a path.
    HostReset,
    /// A host and a node cannot reach each other for a while.
    HostCut,
    /// Another engine shall own a volume, for no reason.
    TakeOver,
    /// The same as a host dies: nobody sends its writes again.
    Usurp,
    /// A host gives the path to the owner up, and the volume moves away from there and back.
    AwayAndBack,
    /// An owner leaves in order.
    Shutdown,
    /// A snapshot is taken.
    Snapshot,
    /// A snapshot goes.
    DeleteSnapshot,
    /// A volume grows.
    Resize,
    /// A member is taken out.
    Exclude,
    /// A replica that is away is given up; it is named again later.
    GiveUp,
    /// Replicas are laid side by side.
    Look,
}

/// A kind of cluster, and its fate.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name; `free` if the seed drew it.
    pub name: &'static str,
    /// Nodes.
    pub nodes: u8,
    /// Volumes.
    pub volumes: u8,
    /// Replicas of each.
    pub replicas: u8,
    /// Hosts of each volume.
    pub hosts: u8,
    /// Sectors of each volume.
    pub sectors: u64,
    /// Times of the protocol.
    pub timing: Timing,
    /// What a nexus allocates.
    pub limits: Limits,
    /// The network.
    pub weather: Weather,
    /// The disks.
    pub pace: Pace,
    /// The store.
    pub whims: Whims,
    /// The planner.
    pub temper: Temper,
    /// The hosts.
    pub habits: Habits,
    /// How long there are faults.
    pub faulty: Duration,
    /// Between two faults.
    pub pause: Spread,
    /// How long what lasts a while lasts.
    pub lasts: Spread,
    /// One take-over in so many that finds something suspect is followed by a member's death; 0:
    /// none.
    pub pursuit_in: u64,
    /// How soon after.
    pub pursuit: Spread,
    /// One return in so many is met by a snapshot while it copies, and by the death of its replica
    /// while it is added; 0: none.
    pub ambush_in: u64,
    /// One owner in so many is cut off from all but its hosts as it begins to serve, and another
    /// one appointed; 0: none.
    pub cut_off_in: u64,
    /// What lies in wait for its moment.
    pub ambush: Option<Ambush>,
    /// A chain of layers is made and rebuilt, and the source dies half-way.
    pub rebuilds_chain: bool,
    /// A disk is replaced while snapshots are taken without end.
    pub snapshots_unceasing: bool,
    /// Replicas are laid side by side whenever marks were cleared.
    pub watches_marks: bool,
    /// What befalls it, by weight.
    pub faults: Vec<(Fault, u32)>,
}

impl Profile {
    /// A quiet cluster of three nodes with one volume and two hosts.
    fn quiet(name: &'static str) -> Self {
        Self {
            name,
            nodes: 3,
            volumes: 1,
            replicas: 3,
            hosts: 2,
            sectors: 3 * MIB,
            timing: Timing::default(),
            limits: Limits { requests_max: 256, hosts_max: 16, ..Limits::default() },
            weather: Weather::default(),
            pace: Pace::default(),
            whims: Whims::default(),
            temper: Temper::default(),
            habits: Habits {
                depth: 4,
                think: Duration::from_millis(40),
                patience: Duration::from_secs(8),
                reconnect: Duration::from_millis(300),
                weights: [8, 8, 1, 1],
                durable_in: 10,
                hot: (0, 64),
                heat: 70,
                sectors: 3 * MIB,
                transfer: 64,
                ragged: 20,
            },
            faulty: Duration::from_secs(12),
            pause: Spread::millis(200, 3000),
            lasts: Spread::millis(100, 6000),
            pursuit_in: 0,
            pursuit: Spread::millis(1, 400),
            ambush_in: 0,
            cut_off_in: 0,
            ambush: None,
            rebuilds_chain: false,
            snapshots_unceasing: false,
            watches_marks: false,
            faults: Vec::new(),
        }
    }

    /// Answers of the store get lost, and members come and go quickly.
    const fn on_shaky_store(mut self) -> Self {
        self.whims.lose_answer_in = 8;
        self.weather.slow_in = 100;
        self.weather.slow = Spread::millis(20, 900);
        self.habits.think = Duration::from_millis(10);
        self.faulty = Duration::from_secs(25);
        self.pause = Spread::millis(100, 1500);
        self.lasts = Spread::millis(100, 3000);
        self
    }

    fn with(mut self, faults: &[(Fault, u32)]) -> Self {
        self.faults = faults.to_vec();
        self
    }

    /// Whether disks damage what they hold.
    pub(super) fn rots(&self) -> bool {
        let rot = [Fault::BitFlip, Fault::LatentError, Fault::Misdirect];
        self.faults.iter().any(|(fault, _)| rot.contains(fault))
    }

    /// The profile of that name.
    #[must_use]
    pub fn named(name: &str, seed: u64) -> Option<Self> {
        if name == FREE {
            return Some(Self::free(seed));
        }
        NAMED.iter().find(|(known, _)| *known == name).map(|(name, make)| make(Self::quiet(name)))
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once(FREE).chain(NAMED.iter().map(|(name, _)| *name))
    }

    /// A swarm: everything is drawn, so that seeds differ in kind and not in luck alone.
    #[must_use]
    pub fn free(seed: u64) -> Self {
        let mut random = Random::part(seed, 50);
        let mut profile = Self::quiet(FREE);
        profile.nodes = u8::try_from(random.within(2, 5)).unwrap_or(3);
        profile.replicas = u8::try_from(random.within(1, 3)).unwrap_or(3).min(profile.nodes);
        profile.volumes = if random.once_in(4) { 2 } else { 1 };
        profile.hosts = u8::try_from(random.within(1, 3)).unwrap_or(1);
        profile.sectors = MIB * random.within(1, 4) + 8 * random.below(2);
        profile.habits = swarm::habits(&mut random, profile.sectors);
        profile.weather = swarm::weather(&mut random);
        profile.pace = swarm::pace(&mut random);
        profile.whims = swarm::whims(&mut random);
        profile.temper = Temper {
            doubt_in: *random.pick(&[0, 0, 20, 60]),
            move_in: *random.pick(&[0, 0, 40]),
            ..Temper::default()
        };
        profile.limits.requests_max = *random.pick(&[8, 64, 1024]);
        profile.limits.segments_max = *random.pick(&[1, 4]);
        profile.faulty = Duration::from_secs(random.within(4, 20));
        profile.pursuit_in = *random.pick(&[0, 2]);
        profile.cut_off_in = *random.pick(&[0, 0, 0, 4]);
        profile.watches_marks = random.once_in(8);
        profile.pause = *random.pick(&[
            Spread::millis(50, 1000),
            Spread::millis(200, 3000),
            Spread::millis(1000, 8000),
        ]);
        profile.ambush_in = *random.pick(&[0, 0, 4]);
        let all: &[Fault] = if random.once_in(8) { &ROT } else { &FAULTS };
        if all == ROT {
            profile.pursuit_in = 0;
            profile.ambush_in = 0;
            profile.watches_marks = false;
        }
        profile.faults = all
            .iter()
            .filter_map(|fault| {
                let weight = *random.pick(&[0, 1, 1, 4]);
                (weight > 0).then_some((*fault, weight))
            })
            .collect();
        profile.faults.push((Fault::Look, 1));
        if all != ROT && random.once_in(8) {
            profile.faults.push((Fault::SlowExclusion, 4));
            profile.timing.held = Duration::from_secs(*random.pick(&[2, 10]));
        }
        profile
    }
}

/// A seed draws everything.
pub const FREE: &str = "free";

/// All kinds: of each four seeds one is of a kind that meets one trap often, each kind in turn,
/// and the others draw everything. What is rare in the one is not in the other.
pub const MIXED: &str = "mixed";

/// The kind of cluster that a seed of a campaign is.
#[must_use]
pub fn kind(profile: &'static str, seed: u64) -> &'static str {
    match profile {
        MIXED if seed.is_multiple_of(4) => {
            let kinds = NAMED.len() as u64;
            NAMED[usize::try_from(seed / 4 % kinds).expect("few kinds")].0
        }
        MIXED => FREE,
        other => other,
    }
}

/// What may befall a cluster whose disks keep what they have.
const FAULTS: [Fault; 28] = [
    Fault::Kill,
    Fault::KillOwner,
    Fault::KillTwo,
    Fault::PowerCut,
    Fault::Blackout,
    Fault::Pause,
    Fault::Split,
    Fault::OneWay,
    Fault::Isolate,
    Fault::Stall,
    Fault::DiskError,
    Fault::Fill,
    Fault::Wipe,
    Fault::StoreDown,
    Fault::HostCrash,
    Fault::HostReset,
    Fault::HostCut,
    Fault::TakeOver,
    Fault::Usurp,
    Fault::AwayAndBack,
    Fault::Shutdown,
    Fault::Snapshot,
    Fault::DeleteSnapshot,
    Fault::Resize,
    Fault::Exclude,
    Fault::GiveUp,
    Fault::StoreLost,
    Fault::StoreRestore,
];

/// What may befall one whose disks rot. No power is cut and no process dies: what was not durable
/// has no checksum yet that is, in the regions that were open then, and nobody could tell rot from
/// an unfinished write. Nobody is taken out either: one
/// node's disk rots, and of what it damages there must be another copy.
const ROT: [Fault; 6] = [
    Fault::BitFlip,
    Fault::LatentError,
    Fault::Misdirect,
    Fault::TakeOver,
    Fault::HostReset,
    Fault::Snapshot,
];
