//! A pool at work: a random workload, an oracle that hears everything, and what follows a crash.

mod answer;
mod bear;
mod begin;
mod birth;
mod check;
mod finish;
mod mix;

use std::collections::{BTreeMap, BTreeSet};

use braid_block::Instant;
use braid_pool::{Handle, Plant, State};

use crate::cut::Cuts;
use crate::disk::{Disk, Work};
use crate::image::BLOCK;
use crate::machine::Machine;
use crate::oracle::{Crash, Oracle, Tick, Uuid, Violation};
use crate::random::Random;
use crate::seen::Seen;
use crate::story::Story;
use crate::world::{Progress, World};
use answer::Marked;
pub(crate) use birth::Birth;
pub(crate) use mix::Mix;

/// Token kinds of a pool that the story of a campaign depends on, from its first one.
const CHECKPOINT: u16 = 4;
const JOURNAL: u16 = 1;

/// A pool in its world, and what may be expected of it.
#[derive(Debug)]
pub(crate) struct Session<M> {
    pub(crate) world: World<M>,
    pub(crate) oracle: Oracle,
    pub(crate) seen: Seen,
    pub(crate) seed: u64,
    pub(crate) mix: Mix,
    pub(crate) begun: u64,
    /// What the disk does wrong.
    pub(crate) health: Health,
    random: Random,
    plant: Option<Plant>,
    boot: u64,
    pending: BTreeMap<u64, Pending>,
    handles: BTreeMap<Uuid, Handle>,
    next_tag: u64,
    next_uuid: u64,
    /// Blocks that could not be read, when faults are expected.
    lost: BTreeSet<(Uuid, u64)>,
    /// The replicas' instances when they were last compared, and the worst that happened since.
    instances: BTreeMap<Uuid, u64>,
    worst: Option<Crash>,
    /// Bytes that the pool has for data and maps; it was told to grow, and did not answer.
    capacity: u64,
    growing: bool,
    /// Marks that were told, while everything is compared.
    marked: Option<Marked>,
}

/// What a disk may do wrong in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Nothing.
    Sound,
    /// Writes and flushes fail: the pool may fail for good.
    Failing,
    /// Sectors that were not flushed became garbage.
    Garbled,
    /// It was damaged while nobody looked: blocks may be lost.
    Damaged,
}

/// A request or command in flight.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Write { layer: Uuid, number: u32, first: u64, sectors: u64, zero: bool, durable: bool },
    Read { layer: Uuid, first: u64, sectors: u64, since: Tick },
    Flush { layer: Uuid, since: Tick, number: Option<u64> },
    Status { layer: Uuid, first: u64, sectors: u64, since: Tick },
    Refused,
    Create { uuid: Uuid },
    Remove { uuid: Uuid },
    Resize { uuid: Uuid },
    Bear { layer: Uuid, tag: u64 },
    Look { layer: Uuid },
    Clean { layer: Uuid, tag: u64 },
    Marks { layer: Uuid, since: Tick, tag: u64 },
    Grow,
    Scrub,
}

impl Pending {
    /// The layer it is about.
    const fn layer(self) -> Option<Uuid> {
        match self {
            Self::Write { layer, .. }
            | Self::Read { layer, .. }
            | Self::Flush { layer, .. }
            | Self::Status { layer, .. }
            | Self::Bear { layer, .. }
            | Self::Look { layer }
            | Self::Clean { layer, .. }
            | Self::Marks { layer, .. } => Some(layer),
            Self::Create { uuid } | Self::Remove { uuid } | Self::Resize { uuid } => Some(uuid),
            Self::Refused | Self::Grow | Self::Scrub => None,
        }
    }
}

/// What comes of anything that can violate an invariant.
pub(crate) type Verdict<T = ()> = Result<T, Violation>;

impl<M: Machine> Session<M> {
    /// Makes the pool of a seed, and opens it.
    pub(crate) fn start(seed: u64, plant: Option<Plant>, story: Story) -> Verdict<Self> {
        let birth = Birth::<M>::begin(seed, plant, story, None);
        let mut session = Self::on(seed, plant, story, birth.end()?, 0);
        session.open()?;
        Ok(session)
    }

    /// Opens a new pool of a seed, on the machine's boot number `boot`.
    pub(crate) fn on(seed: u64, plant: Option<Plant>, story: Story, disk: Disk, boot: u64) -> Self {
        let mix = Mix::new(seed);
        let mut random = Random::part(seed, 2);
        story.tell(Instant::ZERO, || format!("seed {seed}: {mix:?}"));
        let config = mix.config(seed, boot, plant, disk.bytes());
        let (machine, now) = (M::open(config.clone()), Instant::from_nanos(1));
        let mut world = World::new(machine, &config, disk, now, Random::new(random.number()));
        world.story = story;
        Self {
            world,
            oracle: Oracle::default(),
            seen: Seen::default(),
            seed,
            mix,
            begun: 0,
            health: Health::Sound,
            random,
            plant,
            boot,
            pending: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_tag: 1,
            next_uuid: 1,
            lost: BTreeSet::new(),
            instances: BTreeMap::new(),
            worst: None,
            capacity: 0,
            growing: false,
            marked: None,
        }
    }

    /// One more thing happens: something begins, or the disk ends something.
    pub(crate) fn step(&mut self) -> Verdict {
        if self.may_begin() && self.random.below(self.mix.rush) == 0 {
            for _ in 0..self.random.within(1, self.mix.burst) {
                self.begin()?;
                if self.random.once_in(self.mix.mingle) {
                    self.world.land();
                }
            }
            self.world.turn();
        } else {
            self.advance()?;
        }
        self.finish()
    }

    /// Lets the disk end something.
    fn advance(&mut self) -> Verdict {
        let before = self.world.machine.counters();
        let progress = self.world.step();
        self.observe(&before);
        let waits = !self.pending.is_empty() && self.world.completions.is_empty();
        if progress == Progress::Still && waits {
            let machine = self.world.machine.waiting();
            let waiting = &self.pending;
            let text = format!("nothing is in flight, and these wait: {waiting:?}; {machine}");
            return Err(Violation::new("NoHang", text));
        }
        Ok(())
    }

    /// Lets everything end that was begun.
    pub(crate) fn drain(&mut self) -> Verdict {
        self.world.turn();
        self.finish()?;
        let mut patience = 1_000_000_u32;
        while !self.pending.is_empty() {
            self.advance()?;
            self.finish()?;
            patience -= 1;
            if patience == 0 {
                let machine = self.world.machine.waiting();
                let text = format!("these never end: {:?}; {machine}", self.pending);
                return Err(Violation::new("NoHang", text));
            }
        }
        Ok(())
    }

    /// Whether the workload has not come to its end.
    pub(crate) const fn goes_on(&self) -> bool {
        self.begun < self.mix.length
    }

    fn may_begin(&self) -> bool {
        self.goes_on() && self.pending.len() < self.mix.depth
    }

    /// Stops the pool in order and opens it again.
    pub(crate) fn stop_and_open(&mut self) -> Verdict {
        let disk = self.stop()?;
        self.power_up(disk);
        self.open()
    }

    /// Stops the pool in order, with whatever is in flight; gives the disk.
    pub(crate) fn stop(&mut self) -> Verdict<Disk> {
        self.world.story.tell(self.world.now, || "stop");
        self.world.machine.stop(&mut self.world.mem, self.world.now);
        if !self.world.run_until(|world| world.is(State::Stopped)) {
            let state = self.world.machine.state();
            return Err(wrong("NoHang", &format!("a stop does not end: {state:?}")));
        }
        self.finish()?;
        if !self.pending.is_empty() {
            let text = format!("stopped, and these were not answered: {:?}", self.pending);
            return Err(Violation::new("NoHang", text));
        }
        self.seen.mark("orderly stop");
        self.oracle.stopped();
        Ok(end(&mut self.world))
    }

    /// Another session that begins with what a crash leaves of this one's disk.
    pub(crate) fn fork(&self, disk: Disk, crash: Crash, part: u64) -> Self {
        let mut oracle = self.oracle.clone();
        oracle.crash(crash);
        let random = Random::part(self.seed, part ^ 0x5eed);
        let boot = self.boot + u64::from(crash == Crash::Power);
        let config = self.mix.config(self.seed, boot, self.plant, disk.bytes());
        let machine = M::open(config.clone());
        let mut world = World::new(machine, &config, disk, self.world.now, random.clone());
        world.story = self.world.story;
        Self {
            world,
            oracle,
            seen: Seen::default(),
            seed: self.seed,
            mix: self.mix.clone(),
            begun: self.begun,
            health: self.health,
            random,
            plant: self.plant,
            boot,
            pending: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_tag: self.next_tag,
            next_uuid: self.next_uuid,
            lost: BTreeSet::new(),
            instances: self.instances.clone(),
            worst: self.worst.max(Some(crash)),
            capacity: self.capacity,
            growing: self.growing,
            marked: None,
        }
    }

    /// Another session after this one was stopped in order, on a disk that was tampered with.
    pub(crate) fn reborn(&self, disk: Disk, part: u64) -> Self {
        let mut next = self.fork(disk, Crash::Kill, part);
        next.oracle = self.oracle.clone();
        next.health = Health::Damaged;
        next.worst = self.worst;
        next
    }

    /// What a power cut can leave now.
    pub(crate) fn cuts(&mut self) -> Cuts {
        self.mark_cut();
        Cuts::of(&self.world.disk)
    }

    /// The disk as it is left when the process is killed now.
    pub(crate) fn killed(&mut self, random: &mut Random) -> Disk {
        self.mark_cut();
        let mut disk = self.world.disk.clone();
        disk.kill(random);
        disk
    }

    /// A new process on this disk, on the same boot of the machine.
    pub(crate) fn power_up(&mut self, disk: Disk) {
        let config = self.mix.config(self.seed, self.boot, self.plant, disk.bytes());
        let machine = M::open(config.clone());
        let random = Random::new(self.random.number());
        let mut world = World::new(machine, &config, disk, self.world.now, random);
        world.story = self.world.story;
        self.world = world;
        self.handles.clear();
        self.pending.clear();
    }

    /// Whether a block of the journal is being written that is more than half full: few are, and
    /// only those can be torn in every place.
    pub(crate) fn writes_full_block(&self) -> bool {
        self.world.flying().any(|(kind, work)| match work {
            Work::Write { bytes, .. } if kind == JOURNAL => {
                let halves = bytes.chunks(BLOCK).map(|block| &block[block.len() / 2..]);
                halves.flatten().any(|byte| *byte != 0)
            }
            _ => false,
        })
    }

    /// Notes what is interrupted if the world ends here.
    pub(crate) fn mark_cut(&mut self) {
        let full = self.writes_full_block();
        let (mut flush, mut checkpoint, mut writes) = (false, false, 0);
        for (kind, work) in self.world.flying() {
            flush |= matches!(work, Work::Sync { .. });
            checkpoint |= kind == CHECKPOINT;
            writes += u64::from(matches!(work, Work::Write { .. }));
        }
        let bears = |pending: &Pending| matches!(pending, Pending::Bear { .. });
        self.seen.mark_if(self.growing, "cut while growing");
        self.seen.mark_if(self.pending.values().any(bears), "cut beside a bearing");
        self.seen.mark_if(full, "cut in a full journal block");
        self.seen.mark_if(flush, "cut beside a flush");
        self.seen.mark_if(checkpoint, "cut in a checkpoint");
        self.seen.mark_if(writes > 1, "cut beside writes");
    }
}

/// Takes a stopped machine out of its world, and asserts that it gave everything back.
fn end<M: Machine>(world: &mut World<M>) -> Disk {
    world.machine.drop_leases(&mut world.mem);
    world.mem.assert_all_back();
    let busy = world.disk.flying().next().is_some();
    assert!(!busy, "a stopped pool has effects in flight");
    world.disk.clone()
}

fn wrong(invariant: &'static str, text: &str) -> Violation {
    Violation::new(invariant, text.to_owned())
}
