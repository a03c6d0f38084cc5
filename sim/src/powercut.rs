//! The crash campaign: one run of a workload, cut at many moments, each in many ways.
//!
//! A run goes on undisturbed; at some of its moments the disk is forked, every fork loses power
//! or its process, and is opened by a fresh machine and compared with the oracle. Some forks are
//! cut again while they open, or go on working and are cut once more.

mod birth;

use std::fmt;
use std::time::Duration;

use braid_block::IoError;
use braid_pool::{Operation, Plant, State};

use crate::cut::Cuts;
use crate::disk::Disk;
use crate::guard::guard;
use crate::machine::Machine;
use crate::oracle::{Crash, Violation};
use crate::random::Random;
use crate::seen::Seen;
use crate::story::Story;
use crate::workload::{Health, Session, Verdict};
use crate::world::{Injection, Trouble};

/// States of one moment, all of them if they are not more.
const FORKS: u64 = 8;
/// Kills of one moment.
const KILLS: u64 = 2;
/// One of so many seeds cuts its pool while it is made; one while another is made over it.
const BIRTHS: u64 = 2;
/// Of so many moments at which a full block of the journal is on its way, one is cut.
const FULL_BLOCKS: u64 = 3;
/// Cuts of one moment after which sectors are garbage.
const GARBLED: u64 = 1;
/// How long a stalled operation takes: longer than a pool's patience.
const STALL: Duration = Duration::from_secs(15);

/// What a campaign shall do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Crash states to be opened, at least.
    pub states: u64,
    /// The first seed.
    pub first: u64,
    /// The first seed alone, to this moment: and one fork of it, or none, to see a finding again.
    pub only: Option<(u64, Option<u64>)>,
    /// Who listens, if it is one moment.
    pub story: Story,
    /// A bug to be found.
    pub plant: Option<Plant>,
    /// Some cuts leave garbage in sectors that were not flushed.
    pub garbage: bool,
}

/// What a campaign came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Crash states that were opened.
    pub states: u64,
    /// Seeds that were run.
    pub runs: u64,
    /// What it came across.
    pub seen: Seen,
    /// The first violation, which ended it.
    pub finding: Option<Finding>,
}

/// A violation, and how to see it again.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The seed of the run.
    pub seed: u64,
    /// The moment of the run.
    pub moment: u64,
    /// The fork at that moment, if it was in one.
    pub fork: Option<u64>,
    /// What does not hold.
    pub violation: Violation,
}

impl Finding {
    /// The moment and the fork, as `--cut` takes them.
    #[must_use]
    pub fn place(&self) -> String {
        match self.fork {
            Some(fork) => format!("{}.{fork}", self.moment),
            None => self.moment.to_string(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { invariant, text } = &self.violation;
        write!(f, "{invariant}: {text}")
    }
}

/// What a campaign of full length must have come across, or it has proved nothing.
pub const WANTED: [&str; 40] = [
    "all space back",
    "all states of a moment",
    "block copied",
    "checked",
    "checkpoint",
    "clean open",
    "cut again after going on",
    "cut again while opening",
    "cut after a failure",
    "cut beside a bearing",
    "cut beside a flush",
    "cut beside writes",
    "cut in a checkpoint",
    "cut in a full journal block",
    "cut pool is refused",
    "cut pool is the old one",
    "cut pool is whole",
    "cut while growing",
    "device failed",
    "discard",
    "full",
    "holes told",
    "garbage after a cut",
    "kill",
    "mark cleared",
    "marks after a crash",
    "no space",
    "open after a crash",
    "orderly stop",
    "pool grown",
    "power cut",
    "reclaimed",
    "region closed",
    "region opened",
    "rejected first write",
    "replay",
    "ring wrapped",
    "scrub",
    "stall",
    "unverified block",
];

/// Runs seed after seed until so many states were opened, or one was wrong.
#[must_use]
pub fn campaign<M: Machine>(options: &Options) -> Report {
    let mut report = Report::default();
    let mut seed = options.first;
    loop {
        let mut run =
            Run { seed, moment: 0, fork: None, options, states: 0, seen: Seen::default() };
        let outcome = guard(|| run.all::<M>());
        report.states += run.states;
        report.runs += 1;
        report.seen.add(&run.seen);
        if let Err(violation) = outcome {
            let Run { moment, fork, .. } = run;
            report.finding = Some(Finding { seed, moment, fork, violation });
            return report;
        }
        if report.states >= options.states || options.only.is_some() {
            return report;
        }
        seed += 1;
    }
}

/// A fault of the disk that is not one of its content.
fn some_trouble(random: &mut Random) -> Injection {
    let (operation, trouble) = *random.pick(&[
        (Operation::Write, Trouble::Fail(IoError::Device)),
        (Operation::Write, Trouble::Fail(IoError::NoSpace)),
        (Operation::Write, Trouble::Stall(STALL)),
        (Operation::Flush, Trouble::Fail(IoError::Device)),
        (Operation::Flush, Trouble::Stall(STALL)),
        (Operation::Read, Trouble::Stall(STALL)),
    ]);
    Injection { operation, after: random.below(30), trouble }
}

/// What a power cut or a kill may leave of one moment.
struct Ways {
    cuts: Cuts,
    /// All that a power cut may leave, if that is not much.
    all: Option<u64>,
}

impl Ways {
    fn of(disk: &Disk) -> Self {
        let cuts = Cuts::of(disk);
        let all = cuts.count(FORKS);
        Self { cuts, all }
    }

    const fn losses(&self) -> u64 {
        match self.all {
            Some(all) => all,
            None => FORKS,
        }
    }

    const fn count(&self) -> u64 {
        self.losses() + KILLS
    }

    /// The way with this number; `disk` is the one that is killed.
    fn take(&self, number: u64, disk: &Disk, random: &mut Random) -> (Disk, Crash) {
        if number >= self.losses() {
            let mut disk = disk.clone();
            disk.kill(random);
            return (disk, Crash::Kill);
        }
        let lost = match self.all {
            Some(_) => self.cuts.numbered(number),
            None => self.cuts.random(random),
        };
        (lost, Crash::Power)
    }
}

/// One seed's run.
struct Run<'a> {
    seed: u64,
    moment: u64,
    fork: Option<u64>,
    options: &'a Options,
    states: u64,
    seen: Seen,
}

impl Run<'_> {
    fn all<M: Machine>(&mut self) -> Verdict {
        let story = if self.options.only.is_some() { self.options.story } else { Story::Silent };
        if Random::part(self.seed, 10).once_in(BIRTHS) {
            self.bear::<M>(None)?;
        }
        let mut session = Session::<M>::start(self.seed, self.options.plant, story)?;
        let mut random = Random::part(self.seed, 9);
        let density = random.within(8, 60);
        while session.goes_on() {
            session.step()?;
            self.moment += 1;
            let cut = random.once_in(density)
                || session.writes_full_block() && random.once_in(FULL_BLOCKS);
            match self.options.only {
                Some((only, _)) if self.moment > only => return Ok(()),
                Some((only, Some(fork))) if self.moment == only && cut => {
                    self.cut(&mut session, Some(fork))?;
                }
                None if cut => self.cut(&mut session, None)?,
                _ => {}
            }
            if random.once_in(250) {
                session = self.disturb(session, &mut random)?;
            }
        }
        session.drain()?;
        session.account()?;
        if Random::part(self.seed, 12).once_in(BIRTHS) {
            let disk = session.stop()?;
            self.bear(Some(&session))?;
            session.power_up(disk);
            session.open()?;
        }
        session.clear()?;
        session.stop_and_open()?;
        session.account()?;
        self.seen.add(&session.seen);
        Ok(())
    }

    /// The run itself stops in order, or is cut, and goes on.
    fn disturb<M: Machine>(
        &mut self,
        mut session: Session<M>,
        random: &mut Random,
    ) -> Verdict<Session<M>> {
        match random.below(3) {
            0 => {
                session.stop_and_open()?;
                Ok(session)
            }
            which => {
                let disk = match which {
                    1 => session.killed(random),
                    _ => session.cuts().random(random),
                };
                let crash = if which == 1 { Crash::Kill } else { Crash::Power };
                let mut next = session.fork(disk, crash, random.number());
                self.seen.add(&session.seen);
                self.states += 1;
                next.open()?;
                Ok(next)
            }
        }
    }

    /// Cuts this moment in many ways.
    fn cut<M: Machine>(&mut self, session: &mut Session<M>, only: Option<u64>) -> Verdict {
        session.mark_cut();
        let ways = Ways::of(&session.world.disk);
        self.seen.mark_if(ways.all.is_some_and(|all| all > 1), "all states of a moment");
        let garbled = if self.options.garbage { GARBLED } else { 0 };
        for number in 0..ways.count() + garbled {
            if only.is_some_and(|only| only != number) {
                continue;
            }
            self.fork = Some(number);
            let part = self.moment << 16 | number;
            let mut random = Random::part(self.seed ^ 0xf0_0000, part);
            let garbled = number >= ways.count();
            let (disk, crash) = if garbled {
                (ways.cuts.garbled(&mut random), Crash::Power)
            } else {
                ways.take(number, &session.world.disk, &mut random)
            };
            let power = crash == Crash::Power;
            self.seen.mark(if power { "power cut" } else { "kill" });
            let story = session.world.story;
            story.tell(session.world.now, || format!("== fork {number}: {crash:?}"));
            let mut fork = session.fork(disk, crash, part);
            if garbled {
                self.states += 1;
                fork.health = Health::Garbled;
                fork.open_damaged()?;
                self.seen.mark("garbage after a cut");
                self.seen.add(&fork.seen);
            } else {
                self.follow(fork, &mut random)?;
            }
        }
        self.fork = None;
        Ok(())
    }

    /// Opens a crashed disk, compares, and perhaps cuts it again.
    fn follow<M: Machine>(&mut self, mut fork: Session<M>, random: &mut Random) -> Verdict {
        self.states += 1;
        if random.once_in(4) {
            fork.check()?;
        }
        if random.once_in(6) && !fork.open_partly(random.within(1, 40))? {
            self.seen.mark("cut again while opening");
            fork = self.again(fork, random);
        }
        fork.open()?;
        if random.once_in(6) {
            let steps = random.within(5, 80);
            fork.mix.length = fork.begun + steps;
            for _ in 0..steps {
                fork.step()?;
            }
            self.seen.mark("cut again after going on");
            fork = self.again(fork, random);
            fork.open()?;
        }
        match random.below(24) {
            0 => {
                fork.clear()?;
                fork.stop_and_open()?;
            }
            1..3 => {
                fork.suffer(some_trouble(random), 100)?;
                if fork.world.is(State::Failed) && random.once_in(2) {
                    fork = self.reopen_failed(fork, random)?;
                }
                fork = self.again(fork, random);
                fork.recover();
                fork.open()?;
            }
            _ => {}
        }
        self.seen.add(&fork.seen);
        Ok(())
    }

    /// A pool whose disk failed, and that said so, is opened again on the same boot: what its disk
    /// shows may be gone when the power goes.
    fn reopen_failed<M: Machine>(
        &mut self,
        mut fork: Session<M>,
        random: &mut Random,
    ) -> Verdict<Session<M>> {
        fork.world.settle();
        let disk = fork.killed(random);
        let mut next = fork.fork(disk, Crash::Kill, random.number());
        self.states += 1;
        self.seen.add(&fork.seen);
        // Nothing is read: of what was not flushed, nobody knows what the next cut leaves.
        next.wait_open()?;
        for _ in 0..random.below(200) {
            next.world.step();
        }
        self.seen.mark("cut after a failure");
        Ok(next)
    }

    fn again<M: Machine>(&mut self, mut fork: Session<M>, random: &mut Random) -> Session<M> {
        self.states += 1;
        let kill = random.once_in(3);
        let (disk, crash) = match kill {
            true => (fork.killed(random), Crash::Kill),
            false => (fork.cuts().random(random), Crash::Power),
        };
        fork.world.story.tell(fork.world.now, || format!("== again: {crash:?}"));
        let next = fork.fork(disk, crash, random.number());
        self.seen.add(&fork.seen);
        next
    }
}
