//! Pools that are cut while they are made.

use super::{Run, Ways};
use crate::machine::Machine;
use crate::random::Random;
use crate::story::Story;
use crate::workload::{Birth, Session, Verdict};

/// Of so many steps of a birth, one is cut.
const DENSITY: u64 = 3;

impl Run<'_> {
    /// Makes a pool, and cuts that in many ways; `old` is what is on the disk already.
    pub(super) fn bear<M: Machine>(&mut self, old: Option<&Session<M>>) -> Verdict {
        let story = if self.options.only.is_some() { self.options.story } else { Story::Silent };
        let mut birth = Birth::<M>::begin(self.seed, self.options.plant, story, old);
        let mut random = Random::part(self.seed, 11 + u64::from(old.is_some()));
        while birth.goes_on() {
            self.moment += 1;
            let cut = random.once_in(DENSITY);
            match self.options.only {
                Some((only, _)) if self.moment > only => break,
                Some((only, Some(fork))) if self.moment == only && cut => {
                    self.cut_birth(&mut birth, old, Some(fork))?;
                }
                None if cut => self.cut_birth(&mut birth, old, None)?,
                _ => {}
            }
            birth.step()?;
        }
        self.seen.add(&birth.seen);
        Ok(())
    }

    fn cut_birth<M: Machine>(
        &mut self,
        birth: &mut Birth<M>,
        old: Option<&Session<M>>,
        only: Option<u64>,
    ) -> Verdict {
        let ways = Ways::of(&birth.world.disk);
        for number in (0..ways.count()).filter(|number| only.is_none_or(|only| only == *number)) {
            self.fork = Some(number);
            self.states += 1;
            let part = self.moment << 16 | number;
            let mut random = Random::part(self.seed ^ 0xb0_0000, part);
            let (disk, crash) = ways.take(number, &birth.world.disk, &mut random);
            let story = birth.world.story;
            story.tell(birth.world.now, || format!("== fork {number} of a birth: {crash:?}"));
            birth.follow(disk, crash, old, part)?;
        }
        self.fork = None;
        Ok(())
    }
}
