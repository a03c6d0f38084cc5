//! The corruption campaign: one fault in a pool that was stopped in order.
//!
//! Nothing may panic, and no wrong data may be read. A block of data that is damaged is a media
//! error, and no other block is; a page of the maps is there twice, so nothing is lost with one
//! copy, and after one open both are good again; with a page of checksums its blocks may be lost.

use std::collections::BTreeSet;
use std::fmt;

use crate::disk::Disk;
use crate::guard::guard;
use crate::image::{BLOCK, Image};
use crate::machine::Machine;
use crate::oracle::{Uuid, Violation};
use crate::payload::{self, SECTOR, Said};
use crate::random::Random;
use crate::seen::Seen;
use crate::story::Story;
use crate::workload::{Session, Verdict};

/// Cases of one seed's pool.
const CASES: u64 = 50;
/// Kind of a page of checksums, as its header says: see the pool's layout.
const CHECKSUMS: u32 = 11;
/// Bytes of a page's pair.
const PAIR: u64 = 2;

/// What a campaign shall do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Cases, at least.
    pub cases: u64,
    /// The first seed.
    pub first: u64,
    /// One case of the first seed alone.
    pub only: Option<u64>,
    /// Who listens, if it is one case.
    pub story: Story,
}

/// What a campaign came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Pools that were damaged and opened.
    pub cases: u64,
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
    /// The seed of the pool.
    pub seed: u64,
    /// The case.
    pub case: u64,
    /// What does not hold.
    pub violation: Violation,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { invariant, text } = &self.violation;
        write!(f, "{invariant}: {text}")
    }
}

/// What a campaign of full length must have come across.
pub const WANTED: [&str; 10] = [
    "a block with older content",
    "a flipped bit",
    "a misdirected write",
    "a zeroed sector",
    "an unreadable sector",
    "checksums damaged",
    "data damaged",
    "media error",
    "page repaired",
    "two blocks swapped",
];

/// What is done to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Flip,
    Zero,
    Swap,
    Misdirect,
    Stale,
    Latent,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::Flip, Self::Zero, Self::Swap, Self::Misdirect, Self::Stale, Self::Latent];

    const fn name(self) -> &'static str {
        match self {
            Self::Flip => "a flipped bit",
            Self::Zero => "a zeroed sector",
            Self::Swap => "two blocks swapped",
            Self::Misdirect => "a misdirected write",
            Self::Stale => "a block with older content",
            Self::Latent => "an unreadable sector",
        }
    }
}

/// A damaged image: what was done, and to which blocks of the device.
#[derive(Debug)]
struct Damage {
    image: Image,
    fault: Fault,
    blocks: Vec<u64>,
    /// The first byte of a sector that cannot be read.
    unreadable: Option<u64>,
}

/// What may be lost by a damage.
#[derive(Debug, Default)]
struct Toll {
    /// Blocks of replicas whose content was there.
    blocks: BTreeSet<(Uuid, u64)>,
    /// Checksums were there: any block may be lost.
    checksums: bool,
    /// Zeros were there, which do not say whose they are.
    zeros: bool,
}

/// Runs case after case until there were so many, or one was wrong.
#[must_use]
pub fn campaign<M: Machine>(options: &Options) -> Report {
    let mut report = Report::default();
    let mut seed = options.first;
    while report.cases < options.cases && (report.runs == 0 || options.only.is_none()) {
        let mut run = Run { seed, case: 0, options, seen: Seen::default() };
        let outcome = guard(|| run.all::<M>());
        report.cases += run.case;
        report.runs += 1;
        report.seen.add(&run.seen);
        if let Err(violation) = outcome {
            report.finding = Some(Finding { seed, case: run.case, violation });
            break;
        }
        seed += 1;
    }
    report
}

struct Run<'a> {
    seed: u64,
    case: u64,
    options: &'a Options,
    seen: Seen,
}

impl Run<'_> {
    fn all<M: Machine>(&mut self) -> Verdict {
        let mut session = Session::<M>::start(self.seed, None, Story::Silent)?;
        let mut older = vec![session.world.disk.current().clone()];
        while session.goes_on() {
            session.step()?;
            if session.begun % 32 == 0 && older.len() < 16 {
                older.push(session.world.disk.current().clone());
            }
        }
        session.drain()?;
        let disk = session.stop()?;
        for case in 1..=CASES {
            self.case = case;
            if self.options.only.is_some_and(|only| only != case) {
                continue;
            }
            let mut random = Random::part(self.seed ^ 0xc0_0000, case);
            if self.options.only.is_some() {
                session.world.story = self.options.story;
            }
            self.one(&session, &disk, &older, &mut random)?;
        }
        Ok(())
    }

    fn one<M: Machine>(
        &mut self,
        session: &Session<M>,
        disk: &Disk,
        older: &[Image],
        random: &mut Random,
    ) -> Verdict {
        let Some(damage) = damage(disk.current(), older, random) else { return Ok(()) };
        let toll = toll(session, disk.current(), &damage.blocks);
        self.seen.mark(damage.fault.name());
        self.seen.mark_if(toll.checksums, "checksums damaged");
        self.seen.mark_if(!toll.blocks.is_empty(), "data damaged");
        let story = session.world.story;
        story.tell(session.world.now, || {
            let at: Vec<String> =
                damage.blocks.iter().map(|block| format!("{:#x}", block * BLOCK as u64)).collect();
            format!("== {} at {}", damage.fault.name(), at.join(" and "))
        });
        let mut broken = Disk::of_image(damage.image, disk.bytes(), disk.sector());
        if let Some(offset) = damage.unreadable {
            broken.spoil(offset / u64::from(disk.sector()));
        }
        let mut first = session.reborn(broken, self.case);
        let lost = first.open_damaged()?;
        self.judge(&first, &lost, &toll)?;
        let repaired = first.stop()?;
        self.seen.add(&first.seen);
        // What had a second copy is good again: the next open has nothing to repair, and finds
        // the same blocks missing.
        let mut second = first.reborn(repaired, self.case);
        let again = second.open_damaged()?;
        if again != lost {
            let text = format!("lost at the first open {lost:?}, at the second {again:?}");
            return Err(Violation::new("SameLoss", text));
        }
        if second.seen.times("page repaired") > 0 {
            return Err(Violation::new("RepairsOnce", "the next open repairs it again".into()));
        }
        Ok(())
    }

    fn judge<M: Machine>(
        &self,
        session: &Session<M>,
        lost: &BTreeSet<(Uuid, u64)>,
        toll: &Toll,
    ) -> Verdict {
        if toll.checksums || toll.zeros {
            return Ok(());
        }
        let unharmed = lost.iter().find(|block| !toll.blocks.contains(block));
        match unharmed {
            None => Ok(()),
            Some((layer, block)) => {
                let name = session.oracle.name(layer);
                let text = format!("{name} block {block} is lost, though nothing hit it");
                Err(Violation::new("NoFalseMediaError", text))
            }
        }
    }
}

/// Does something to an image; nothing if there is nothing to do it to.
fn damage(image: &Image, older: &[Image], random: &mut Random) -> Option<Damage> {
    let written: Vec<u64> = image.blocks().map(|(number, _)| number).collect();
    let fault = *random.pick(&Fault::ALL);
    let target = *random.pick(&written);
    let mut broken = image.clone();
    let at = target * BLOCK as u64;
    let mut blocks = vec![target];
    let mut unreadable = None;
    match fault {
        Fault::Flip => {
            let byte = at + random.below(BLOCK as u64);
            let mut value = [0];
            image.read(byte, &mut value);
            value[0] ^= 1 << random.below(8);
            broken.write(byte, &value);
        }
        Fault::Zero => broken.write(at + random.below(8) * SECTOR as u64, &[0; SECTOR]),
        Fault::Swap | Fault::Misdirect => {
            let other = *random.pick(&written);
            if other / PAIR == target / PAIR || other.abs_diff(target) < PAIR {
                // Both copies of a page at once are two faults.
                return None;
            }
            broken.write(at, image.block(other)?);
            if fault == Fault::Swap {
                broken.write(other * BLOCK as u64, image.block(target)?);
                blocks.push(other);
            }
        }
        Fault::Stale => {
            let old = random.pick(older).block(target).copied().unwrap_or([0; BLOCK]);
            broken.write(at, &old);
        }
        Fault::Latent => unreadable = Some(at + random.below(8) * SECTOR as u64),
    }
    let changed = blocks.iter().any(|block| image.block(*block) != broken.block(*block));
    let harmful = changed || unreadable.is_some();
    harmful.then_some(Damage { image: broken, fault, blocks, unreadable })
}

/// What was in damaged blocks of the device.
fn toll<M: Machine>(session: &Session<M>, image: &Image, blocks: &[u64]) -> Toll {
    let mut toll = Toll::default();
    for content in blocks.iter().filter_map(|block| image.block(*block)) {
        let kind = u32::from_le_bytes(content[..4].try_into().expect("4 bytes"));
        toll.checksums |= kind == CHECKSUMS;
        toll.zeros |= *content == [0; BLOCK];
        for piece in content.chunks_exact(SECTOR) {
            if let Said::Written { write, sector } = payload::said(piece) {
                let layers = session.oracle.layers().iter().filter(|(_, layer)| layer.is_live());
                let holders = layers.map(|(uuid, _)| *uuid);
                let holding = holders.filter(|u| session.oracle.may_hold(u, sector, write));
                toll.blocks.extend(holding.map(|uuid| (uuid, sector / 8)));
            }
        }
    }
    toll
}
