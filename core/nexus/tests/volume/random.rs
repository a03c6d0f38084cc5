//! Random days of a volume: everything between it and its replicas is delayed, refused or cut, the
//! store forgets to answer, owners follow each other. What hosts read is checked on the way; when
//! all is well again everything must come to rest, alike everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::time::Duration;

use braid_nexus::wire::Refusal;
use braid_nexus::{Command, Event, Pace, Plant, Status, Work};

use super::store::Mood;
use super::words;
use super::world::{Rule, Setup, World};

const BLOCK: u64 = 4096;
/// More than so much needs a turn.
const BRIEF: u64 = 1 << 30;
/// Blocks that are used: four in each of three regions.
const PLACES: u64 = 12;
/// Values of writes, so that each is written once.
const VALUES: u64 = 250;
const KINDS: [&str; 14] = [
    "write", "write", "read", "flush", "fence", "copy", "lease", "compare", "marks", "clean",
    "snapshot", "delete", "zero", "*",
];

/// When something began and ended, counted in steps of the story.
type Step = u64;

/// A write of a block, as its host saw it.
#[derive(Clone, Copy, Debug)]
struct Write {
    value: u8,
    began: Step,
    /// It took effect no later than then: it was acknowledged, or read. Else it may at any time.
    took: Option<Step>,
}

/// What hosts know of one block.
#[derive(Debug)]
struct History {
    writes: Vec<Write>,
}

impl History {
    fn new() -> Self {
        Self { writes: vec![Write { value: 0, began: 0, took: Some(0) }] }
    }

    /// What the write that began then wrote.
    fn value_of(&self, began: Step) -> u8 {
        let write = self.writes.iter().find(|write| write.began == began);
        write.expect("it was written down").value
    }

    /// A write took effect no later than at this step.
    fn took(&mut self, value: u8, step: Step) {
        let write = self.writes.iter_mut().find(|write| write.value == value);
        let write = write.expect("it was written down");
        write.took = Some(write.took.map_or(step, |took| took.min(step)));
    }

    /// A read that began and ended then returned a value: no other write took effect after the one
    /// that wrote it and before the read began.
    fn read(&mut self, value: u8, began: Step, ended: Step) -> Result<(), String> {
        let wrong = || format!("{value} was read from {began} to {ended}: {self:?}");
        let write = self.writes.iter().find(|write| write.value == value).ok_or_else(wrong)?;
        let later = |other: &Write| write.took.is_some_and(|took| took < other.began);
        let hidden = |other: &Write| later(other) && other.took.is_some_and(|took| took < began);
        if write.began > ended || self.writes.iter().any(hidden) {
            return Err(wrong());
        }
        self.took(value, ended);
        Ok(())
    }
}

struct Day {
    world: World,
    seed: u64,
    /// All of the volume is more than may be copied without a turn, and turns come and go.
    long: bool,
    step: Step,
    value: u64,
    snapshots: u8,
    owners: u8,
    histories: Vec<History>,
    /// Requests in work: when they began.
    open: BTreeMap<u64, Step>,
    seen: usize,
    /// What was reached at all.
    reached: BTreeSet<&'static str>,
}

impl Day {
    fn new(seed: u64, plant: Option<Plant>) -> Self {
        Self::of(seed, plant, 8 << 20)
    }

    fn of(seed: u64, plant: Option<Plant>, bytes: u64) -> Self {
        let setup = Setup { members: "abc".into(), bytes, plant, ..Setup::default() };
        let mut world = World::serving(&setup);
        if bytes > BRIEF {
            // Else all of it is compared in a moment, in which nothing else happens.
            let rate = NonZeroU64::new(2 << 30);
            world.volume.set_pace(world.now, Pace { paused: false, beside: rate, alone: rate });
            world.volume.set_turn(false);
        }
        Self {
            world,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            long: bytes > BRIEF,
            step: 1,
            value: 0,
            snapshots: 0,
            owners: 0,
            histories: (0..PLACES).map(|_| History::new()).collect(),
            open: BTreeMap::new(),
            seen: 0,
            reached: BTreeSet::new(),
        }
    }

    /// A number below `below`: xorshift, for tests need no more.
    fn draw(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % below
    }

    fn replica(&mut self) -> usize {
        self.draw(3) as usize
    }

    /// A range of one to three blocks of a region: first place, number.
    fn range(&mut self) -> (u64, u64) {
        let (region, first) = (self.draw(3), self.draw(4));
        let count = 1 + self.draw(4 - first).min(2);
        (region * 4 + first, count)
    }

    fn offset(place: u64) -> u64 {
        place / 4 * (1 << 20) + place % 4 * BLOCK
    }

    fn write(&mut self) {
        let (place, count) = self.range();
        if self.value == VALUES {
            return;
        }
        self.value += 1;
        let value = self.value as u8;
        let durable = self.draw(4) == 0;
        let (offset, len) = (Self::offset(place), (count * BLOCK) as u32);
        let write = Write { value, began: self.step, took: None };
        for at in place..place + count {
            self.histories[at as usize].writes.push(write);
        }
        self.submit(Work::Write { offset, len, durable }, value);
    }

    fn read(&mut self) {
        let (place, count) = self.range();
        let (offset, len) = (Self::offset(place), (count * BLOCK) as u32);
        self.submit(Work::Read { offset, len }, 0);
    }

    fn submit(&mut self, work: Work, value: u8) {
        let tag = self.world.post(1, work, value);
        self.open.insert(tag, self.step);
        if self.draw(3) > 0 {
            self.world.run();
        }
    }

    /// Looks at what hosts were answered.
    fn answers(&mut self) -> Result<(), String> {
        for (tag, work, bytes, status) in self.world.completions.split_off(self.seen) {
            let Some(began) = self.open.remove(&tag) else { continue };
            let ended = self.step;
            let place = |offset: u64| offset / (1 << 20) * 4 + offset % (1 << 20) / BLOCK;
            match work {
                Work::Write { offset, len, .. } if status == Status::Success => {
                    for at in place(offset)..place(offset) + u64::from(len) / BLOCK {
                        let value = self.histories[at as usize].value_of(began);
                        self.histories[at as usize].took(value, ended);
                    }
                }
                Work::Read { offset, .. } if status == Status::Success => {
                    for (at, block) in (place(offset)..).zip(bytes.chunks(BLOCK as usize)) {
                        if block.iter().any(|byte| *byte != block[0]) {
                            return Err(format!("a block of two writes at {at}"));
                        }
                        self.histories[at as usize].read(block[0], began, ended)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Something befalls what is between the volume and its replicas, or the store.
    fn trouble(&mut self) {
        let (at, kind) = (self.replica(), self.draw(KINDS.len() as u64) as usize);
        let kind = KINDS[kind];
        match self.draw(13) {
            0..3 => self.world.rules.push((at, kind.into(), Rule::Hold)),
            3 => self.world.rules.push((at, kind.into(), Rule::Late)),
            4 => {
                let refusals = [Refusal::NoSpace, Refusal::Failed, Refusal::Gone];
                let refusal = refusals[self.draw(3) as usize];
                // A snapshot that could not be deleted is deleted by the next owner only.
                if !["*", "lease", "fence", "delete"].contains(&kind) {
                    self.world.rules.push((at, kind.into(), Rule::Refuse(refusal)));
                }
            }
            5 => {
                self.world.cut(at, false);
                self.world.run();
            }
            6 => self.world.kill(at),
            7 => self.revive(at),
            8 => {
                let moods = [Mood::Lose, Mood::Hide, Mood::Hold];
                let mood = moods[self.draw(3) as usize];
                self.world.store.moods.push_back(mood);
            }
            9 => self.reboot(at),
            10 => self.world.heap.max = Some(self.draw(12) as usize + 20),
            _ => self.ease(),
        }
        self.world.run();
    }

    fn revive(&mut self, at: usize) {
        if !self.world.replicas[at].is_alive() {
            let now = self.world.now;
            self.world.replicas[at].start(now);
        }
    }

    /// Its machine starts anew: it is another instance then.
    fn reboot(&mut self, at: usize) {
        self.world.kill(at);
        self.world.replicas[at].durable.instance += 1;
        self.revive(at);
    }

    /// Something of what was held goes on.
    fn ease(&mut self) {
        if let Some((number, outcome)) = self.world.store.release() {
            self.world.event(Event::Swapped { number, outcome });
        }
        let held: Vec<(usize, String)> =
            self.world.rules.iter().map(|r| (r.0, r.1.clone())).collect();
        if !held.is_empty() {
            let (at, kind) = &held[self.draw(held.len() as u64) as usize];
            self.world.release(*at, kind);
        }
    }

    fn management(&mut self) {
        let (at, what) = (self.replica(), self.draw(16));
        let replica = self.world.replicas[at].uuid;
        match what {
            0 => self.take_over(),
            1 => self.world.order(Command::Exclude { replica }),
            2..4 if self.snapshots < 20 => {
                self.snapshots += 1;
                let uuid = [b'A' + self.snapshots; 16];
                self.world.order(Command::Snapshot { uuid });
            }
            4 => {
                let names = &self.world.store.record.snapshots;
                if let Some(uuid) = names.first().map(|snapshot| snapshot.uuid) {
                    self.world.order(Command::DeleteSnapshot { uuid });
                }
            }
            5 => self.world.order(Command::Shutdown),
            6 => {
                let bytes = self.world.volume.bytes() + (1 << 20);
                self.world.order(Command::Resize { bytes });
            }
            _ => self.world.order(Command::Return { replica }),
        }
    }

    /// Long rebuilds wait, or go on; a replica that is away is given up and named again, so that
    /// all of it is compared; another one leaves for a moment.
    fn turns(&mut self) {
        let at = self.replica();
        let replica = self.world.replicas[at].uuid;
        match self.draw(6) {
            turn @ 0..3 => {
                self.world.volume.set_turn(turn == 0);
                self.world.run();
            }
            3 => self.world.order(Command::Exclude { replica }),
            _ => {
                self.world.order(Command::GiveUp { replica });
                self.world.order(Command::Add { replica });
            }
        }
        self.world.order(Command::Return { replica });
    }

    fn take_over(&mut self) {
        self.owners += 1;
        let owner = [self.owners; 16];
        self.world.order(Command::TakeOver { owner, force: false });
    }

    fn live(&mut self) -> Result<(), String> {
        for _ in 0..400 {
            self.step += 1;
            let idle = self.world.volume.view().epoch == 0;
            match self.draw(20) {
                // Without an owner nothing would happen for the rest of the day.
                0..10 if idle && self.draw(4) == 0 => self.take_over(),
                0..7 => self.write(),
                7..12 => self.read(),
                12 => self.submit(Work::Flush, 0),
                13..16 => self.trouble(),
                16 if self.long && self.draw(2) == 0 => self.turns(),
                16 => self.management(),
                17 => self.world.event(Event::HostReadAna { association: 1 }),
                _ => {
                    let time = [1, 50, 210, 900, 3100][self.draw(5) as usize];
                    self.world.wait(Duration::from_millis(time));
                }
            }
            self.step += 1;
            self.answers()?;
            self.look();
        }
        Ok(())
    }

    fn look(&mut self) {
        let view = self.world.volume.view();
        let looks = [
            ("a member fails", view.failing != 0),
            ("somebody is away", view.members.count_ones() == 1),
            ("somebody joins", view.joiner.is_some()),
            ("regions are suspect", view.suspect > 1),
            ("a write is held", view.failing != 0 && view.locks > 0),
            ("nobody serves", view.epoch == 0),
            ("a late epoch", view.epoch > 4),
            ("writes may be lost", self.world.store.record.lossy.is_some()),
            ("the volume grew", self.world.store.record.bytes > 8 << 20),
            ("a snapshot is named", !self.world.store.record.snapshots.is_empty()),
        ];
        self.reached.extend(looks.iter().filter(|(_, is)| *is).map(|(name, _)| *name));
    }

    /// All is well again: everything comes to rest.
    fn heal(&mut self) -> Result<(), String> {
        self.world.heap.max = None;
        self.world.store.moods.clear();
        for (at, kind, _) in std::mem::take(&mut self.world.rules) {
            self.world.release(at, &kind);
        }
        while let Some((number, outcome)) = self.world.store.release() {
            self.world.event(Event::Swapped { number, outcome });
        }
        for at in 0..3 {
            self.world.release(at, "*");
            self.revive(at);
        }
        self.world.volume.set_turn(true);
        for _ in 0..8 {
            self.world.wait(Duration::from_secs(15));
            if !self.world.volume.is_optimized() {
                self.take_over();
                self.world.wait(Duration::from_secs(5));
            }
            for at in 0..3 {
                let replica = self.world.replicas[at].uuid;
                if self.long {
                    self.world.order(Command::Add { replica });
                }
                self.world.order(Command::Return { replica });
            }
        }
        self.world.event(Event::HostReadAna { association: 1 });
        for place in 0..PLACES {
            self.step += 1;
            let work = Work::Read { offset: Self::offset(place), len: BLOCK as u32 };
            self.submit(work, 0);
            self.world.run();
            self.step += 1;
            self.answers()?;
        }
        self.world.wait(Duration::from_secs(10));
        self.answers()
    }

    fn at_rest(&self) -> Result<(), String> {
        let (world, view) = (&self.world, self.world.volume.view());
        let rests = view.members == 0b111
            && (view.requests, view.calls, view.locks) == (0, 0, 0)
            && (view.suspect, view.marked, view.failing) == (0, 0, 0)
            && self.open.is_empty()
            && world.heap.leased == 0;
        if !rests {
            let view = braid_nexus::View { record: None, ..view };
            return Err(format!("it does not come to rest: {view:?}, open {:?}", self.open));
        }
        let alike = |one: &super::replica::Layer, other: &super::replica::Layer| {
            (0..3).all(|region| {
                let read = |layer: &super::replica::Layer| layer.read(region << 20, 4 * BLOCK);
                read(one) == read(other)
            })
        };
        let named: Vec<_> = world.store.record.snapshots.iter().map(|s| s.uuid).collect();
        let first = &world.replicas[0];
        for replica in &world.replicas {
            let has: Vec<_> = replica.snapshots.iter().map(|(uuid, _)| *uuid).collect();
            if has != named {
                return Err(format!("{} has {has:?}, named {named:?}", words::name(&replica.uuid)));
            }
            let layers = replica.snapshots.iter().zip(&first.snapshots);
            let same = alike(&replica.head, &first.head)
                && layers.into_iter().all(|((_, one), (_, other))| alike(one, other));
            if !same {
                return Err(format!("{} differs", words::name(&replica.uuid)));
            }
        }
        Ok(())
    }
}

/// Says which day it was when something below panics.
struct Today(u64);

impl Drop for Today {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was day {}", self.0);
        }
    }
}

#[test]
fn random_days_end_well() {
    let mut reached = BTreeSet::new();
    let one = number("DAY");
    let first = one.or(number("FIRST")).unwrap_or(1);
    let days = if one.is_some() { 1 } else { number("DAYS").unwrap_or(200) };
    for seed in first..first + days {
        let _today = Today(seed);
        let mut day = Day::new(seed, None);
        let result = day.live().and_then(|()| day.heal()).and_then(|()| day.at_rest());
        if let Err(what) = result {
            let told = day.world.take_told();
            let last = if one.is_some() { 0 } else { told.len().saturating_sub(40) };
            panic!("day {seed}: {what}\n{}", told[last..].join("\n"));
        }
        reached.extend(day.reached);
    }
    assert!(one.is_some() || reached.len() == 10, "only {reached:?}");
}

#[test]
fn long_days_end_well_though_turns_come_and_go() {
    let (mut yielded, mut returned) = (0, 0);
    let first = number("FIRST").unwrap_or(1);
    for seed in first..first + number("LONG_DAYS").unwrap_or(150) {
        let _today = Today(seed);
        let mut day = Day::of(seed, None, BRIEF + (8 << 20));
        let result = day.live().and_then(|()| day.heal()).and_then(|()| day.at_rest());
        let told = day.world.take_told();
        if let Err(what) = result {
            panic!("day {seed}: {what}\n{}", told[told.len().saturating_sub(40)..].join("\n"));
        }
        yielded += told.iter().filter(|line| line.ends_with("yielded")).count();
        returned += told.iter().filter(|line| line.ends_with("member")).count();
    }
    assert!(yielded > 0 && returned > yielded, "{yielded} of {returned}");
    println!("{yielded} gave way, {returned} returned");
}

/// `DAYS` is how many days there are, from `FIRST` on; `DAY` is the only one, told as a whole.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The first day on which a rule that is switched off is missed.
fn missed(plant: Plant, days: u64) -> Option<u64> {
    (1..=days).find(|seed| {
        let mut day = Day::new(*seed, Some(plant));
        day.live().and_then(|()| day.heal()).and_then(|()| day.at_rest()).is_err()
    })
}

#[test]
fn rules_that_are_switched_off_are_missed() {
    // Those that such days miss at once; the simulator has all.
    let plants = [
        Plant::AckBeforeExclude,
        Plant::DeltaOfJoinerAlone,
        Plant::ForgetSnapshot,
        Plant::ReadUnsettled,
        Plant::SkipHoles,
        Plant::NoLock,
    ];
    for plant in plants {
        assert!(missed(plant, 1000).is_some(), "{plant:?}");
    }
}

#[test]
fn a_history_that_goes_back_is_found() {
    let mut history = History::new();
    history.writes.push(Write { value: 1, began: 2, took: None });
    assert_eq!(history.read(0, 3, 4), Ok(()), "it may not have taken effect");
    assert_eq!(history.read(1, 5, 6), Ok(()), "now it has");
    assert!(history.read(0, 7, 8).is_err(), "an older value");
    history.writes.push(Write { value: 2, began: 9, took: Some(10) });
    assert!(history.read(1, 11, 12).is_err(), "an acknowledged write is lost");
    assert!(history.read(3, 11, 12).is_err(), "nobody wrote that");
    assert_eq!(history.read(2, 11, 12), Ok(()));
}
