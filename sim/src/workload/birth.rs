//! A pool in the making, on a disk that may hold another one: wherever it is cut, there is no pool
//! afterwards, and that is said, or a whole one.

use braid_pool::{Format, Note, Plant, Refusal, State};

use super::{Mix, Session, Verdict, end, wrong};
use crate::disk::Disk;
use crate::machine::Machine;
use crate::oracle::{Crash, Violation};
use crate::random::Random;
use crate::seen::Seen;
use crate::story::Story;
use crate::world::{Progress, World};

/// Things that a pool does that was found after a cut.
const TRIALS: u64 = 12;

/// A pool in the making.
#[derive(Debug)]
pub(crate) struct Birth<M> {
    pub(crate) world: World<M>,
    pub(crate) seen: Seen,
    seed: u64,
    mix: Mix,
    format: Format,
    plant: Option<Plant>,
    random: Random,
}

impl<M: Machine> Birth<M> {
    /// Begins to make the pool of a seed; `anew`: over another, on its disk.
    pub(crate) fn begin(
        seed: u64,
        plant: Option<Plant>,
        story: Story,
        anew: Option<&Session<M>>,
    ) -> Self {
        let mix = Mix::new(seed);
        let disk = anew.map(|old| old.world.disk.clone());
        let disk = disk.unwrap_or_else(|| Disk::new(mix.bytes, mix.sector));
        let mut format = Format { bytes: disk.bytes(), ..mix.format(seed) };
        if anew.is_some() {
            format.uuid[15] ^= 0xff;
        }
        let boot = anew.map_or(0, |old| old.boot);
        let now = anew.map_or(braid_block::Instant::from_nanos(1), |old| old.world.now);
        let config = mix.config(seed, boot, plant, disk.bytes());
        let machine = M::create(config.clone(), format);
        let random = Random::part(seed, 3 + u64::from(anew.is_some()));
        let mut world = World::new(machine, &config, disk, now, random.clone());
        world.story = story;
        world.turn();
        Self { world, seen: Seen::default(), seed, mix, format, plant, random }
    }

    /// Whether it is not done.
    pub(crate) fn goes_on(&self) -> bool {
        !self.world.is(State::Stopped)
    }

    /// One more thing happens.
    pub(crate) fn step(&mut self) -> Verdict {
        match self.world.step() {
            Progress::Moved if !self.world.is(State::Failed) => Ok(()),
            _ => Err(wrong("Creates", "a new pool is not done")),
        }
    }

    /// The disk, when it is done.
    pub(crate) fn end(mut self) -> Verdict<Disk> {
        while self.goes_on() {
            self.step()?;
        }
        Ok(end(&mut self.world))
    }

    /// Opens what a cut left; `old` is the session whose pool was there before, if one was.
    pub(crate) fn follow(
        &mut self,
        disk: Disk,
        crash: Crash,
        old: Option<&Session<M>>,
        part: u64,
    ) -> Verdict {
        let boot = old.map_or(0, |old| old.boot) + u64::from(crash == Crash::Power);
        let config = self.mix.config(self.seed, boot, self.plant, disk.bytes());
        let machine = M::open(config.clone());
        let random = Random::part(self.random.number(), part);
        let mut world = World::new(machine, &config, disk.clone(), self.world.now, random);
        world.story = self.world.story;
        world.run_until(|world| !world.is(State::Opening));
        if !world.is(State::Open) {
            return self.is_refused(&world, disk);
        }
        let found = world.machine.info().uuid;
        if found == self.format.uuid {
            self.seen.mark("cut pool is whole");
            return self.is_whole(disk, boot);
        }
        match old {
            Some(old) if found == old.mix.format(old.seed).uuid => {
                self.seen.mark("cut pool is the old one");
                let mut old = old.fork(disk, crash, part);
                // It was stopped in order, and that may be forgotten by now.
                old.recover();
                old.open()
            }
            _ => Err(Violation::new("Creates", format!("a pool {found:?} that nobody made"))),
        }
    }

    /// There is no pool: the reason is a clear one, and another can be made.
    fn is_refused(&mut self, world: &World<M>, disk: Disk) -> Verdict {
        let clear =
            |note: &Note| matches!(note, Note::Refused(Refusal::Foreign | Refusal::Damaged { .. }));
        if !world.is(State::Failed) || !world.notes.iter().any(clear) {
            let (state, notes) = (world.machine.state(), &world.notes);
            let text = format!("what is left of a new pool is {state:?}: {notes:?}");
            return Err(Violation::new("Creates", text));
        }
        self.seen.mark("cut pool is refused");
        if !self.random.once_in(4) {
            return Ok(());
        }
        let config = self.mix.config(self.seed, 0, self.plant, disk.bytes());
        let machine = M::create(config.clone(), self.format);
        let random = Random::new(self.random.number());
        let mut again = World::new(machine, &config, disk, world.now, random);
        again.story = world.story;
        if !again.run_until(|world| world.is(State::Stopped)) {
            return Err(wrong("Creates", "a pool cannot be made where one was cut"));
        }
        self.is_whole(end(&mut again), 0)
    }

    /// The pool is as a new one: nothing is in it, its structures are whole, and it works.
    fn is_whole(&mut self, disk: Disk, boot: u64) -> Verdict {
        let story = self.world.story;
        let mut session = Session::<M>::on(self.seed, self.plant, story, disk, boot);
        session.world.now = self.world.now;
        session.check()?;
        session.open()?;
        session.mix.length = TRIALS;
        while session.goes_on() {
            session.step()?;
        }
        session.drain()?;
        session.account()?;
        session.clear()?;
        session.stop_and_open()?;
        self.seen.add(&session.seen);
        Ok(())
    }
}
