//! Anything in any order: what a guard never does, and that it answers everything once.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_block::Instant;
use braid_nexus::guard::{Act, Durable, Event, Guard, Kept, Outcome};
use braid_nexus::record::Standing;
use braid_nexus::wire::{Answer, Command, Refusal};
use braid_nexus::{Record, Timing, Uuid};

use super::bench::{INSTANCE, MIB, durable, record_with};

/// Numbers without a pattern.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// Regions that are written.
const REGIONS: u64 = 4;

/// What a replica is to keep: tag, fence, copy.
type Keep = (u64, Option<(u64, Uuid)>, Box<Kept>);

/// What a checker knows of the world around a guard.
struct World {
    guard: Guard,
    dice: Dice,
    now: Instant,
    /// As it would be found after a restart.
    durable: Durable,
    next: u64,
    /// Commands that were not answered: association, and what.
    asked: BTreeMap<u64, (u32, Command)>,
    /// What the pool has in work, as it was asked for: marks for a fence may outlive it.
    carried: BTreeMap<u64, Command>,
    keeps: Vec<Keep>,
    /// Who was answered last that it is fenced: association, epoch and owner.
    holder: Option<(u32, (u64, Uuid))>,
    /// The highest fence that arrived and was not refused.
    obeyed: (u64, Uuid),
    /// Leases that were answered: until when, and whose.
    promised: Vec<(Instant, (u64, Uuid))>,
    /// Of each region, when it was touched last; of each flush that succeeded, when it began.
    touched: [u64; REGIONS as usize],
    flushed: Vec<(u64, u64)>,
    begun: BTreeMap<u64, u64>,
    step: u64,
    fences: u64,
    cleaned: u64,
    failed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::ZERO;
        Self {
            guard: Guard::new(Timing::default(), None, durable(), now),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now,
            durable: durable(),
            next: 1,
            asked: BTreeMap::new(),
            carried: BTreeMap::new(),
            keeps: Vec::new(),
            holder: None,
            obeyed: (0, [0; 16]),
            promised: Vec::new(),
            touched: [0; REGIONS as usize],
            flushed: Vec::new(),
            begun: BTreeMap::new(),
            step: 0,
            fences: 0,
            cleaned: 0,
            failed: false,
        }
    }

    fn turn(&mut self) {
        self.step += 1;
        let event = match self.dice.roll(20) {
            0 => Event::Opened { association: self.association() },
            1 if self.dice.roll(4) == 0 => Event::Closed { association: self.association() },
            2 | 3 => {
                self.now = self.now + Duration::from_millis(self.dice.roll(400));
                Event::Elapsed
            }
            4..=9 => return self.end_something(),
            _ => {
                let (tag, association) = (self.next, self.association());
                self.next += 1;
                let command = self.command();
                self.asked.insert(tag, (association, command.clone()));
                Event::Arrived { association, tag, command }
            }
        };
        self.handle(event);
    }

    /// The holder mostly, or any other.
    fn association(&mut self) -> u32 {
        match self.holder {
            Some((holder, _)) if self.dice.roll(3) != 0 => holder,
            _ => (self.step / 64 + self.dice.roll(3)) as u32,
        }
    }

    fn record(&mut self) -> Record {
        let epoch = self.obeyed.0 + self.dice.roll(3);
        let owner = [self.dice.roll(2) as u8; 16];
        let standing = match self.dice.roll(3) {
            0 => Standing::Away { whole: false },
            1 => Standing::Member { instance: INSTANCE + 1 },
            _ => Standing::Member { instance: INSTANCE },
        };
        let mut record = record_with(epoch, owner, standing);
        record.version = epoch * 100 + self.dice.roll(4);
        record.store = [2 + u8::from(self.dice.roll(20) == 0); 16];
        record
    }

    fn command(&mut self) -> Command {
        let offset = self.dice.roll(REGIONS) * MIB;
        match self.dice.roll(16) {
            0 => Command::Fence(Box::new(self.record())),
            1 => Command::CopyRecord(Box::new(self.record())),
            2 => Command::Lease,
            3 if self.dice.roll(8) == 0 => Command::Release,
            4 | 5 => Command::Flush { number: self.step / 16 + self.dice.roll(3) },
            6 | 7 => {
                let flush = (self.step / 16 + 1).saturating_sub(self.dice.roll(4));
                Command::Clean { flush, regions: [(0, REGIONS as u32)].into() }
            }
            8 => Command::Zero { offset, len: 2 * MIB, durable: false },
            9 => Command::Read { offset: self.dice.roll(1 << 40), len: self.dice.roll(9) as u32 },
            10 => Command::Marks { snapshot: None },
            _ => Command::Write { offset, len: 4096, durable: false },
        }
    }

    fn end_something(&mut self) {
        let keeps = self.keeps.len() as u64;
        let at = self.dice.roll(keeps + self.carried.len() as u64 + 1);
        if at < keeps {
            let (tag, fence, kept) = self.keeps.remove(at as usize);
            self.durable.fence = fence.unwrap_or(self.durable.fence);
            self.durable.kept = Some(*kept);
            return self.handle(Event::Kept { tag, result: Ok(()) });
        }
        let at = (at - keeps) as usize;
        let Some(tag) = self.carried.keys().nth(at).copied() else { return };
        let Some(command) = self.carried.remove(&tag) else { return };
        let result = self.result(tag, &command);
        self.handle(Event::Carried { tag, result });
    }

    fn result(&mut self, tag: u64, command: &Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Fence(_) | Command::Marks { .. } => Ok(Outcome::Marks([].into())),
            Command::Write { .. } | Command::Zero { .. } => {
                let (first, last) = regions(command);
                self.touched[first..=last].fill(self.step);
                if self.dice.roll(9) == 0 { Err(Refusal::NoSpace) } else { Ok(Outcome::Done) }
            }
            Command::Flush { number } if self.dice.roll(2000) != 0 => {
                self.flushed.push((*number, self.begun[&tag]));
                Ok(Outcome::Done)
            }
            Command::Flush { .. } => {
                self.failed = true;
                Err(Refusal::Failed)
            }
            _ => Ok(Outcome::Done),
        }
    }

    fn handle(&mut self, event: Event) {
        self.guard.handle(self.now, event);
        while let Some(act) = self.guard.poll_act() {
            match act {
                Act::Carry { tag, command } => self.carry(tag, &command),
                Act::Keep { tag, fence, kept } => {
                    assert!(self.keeps.is_empty(), "one at a time");
                    assert!(fence.is_none_or(|(epoch, _)| epoch >= self.durable.fence.0));
                    if let Some(older) = &self.durable.kept {
                        assert!(!older.copy.newer_than(kept.copy.epoch, kept.copy.version));
                        assert!(kept.complete || !older.complete);
                    }
                    self.obeyed = fence.unwrap_or(self.obeyed);
                    self.keeps.push((tag, fence, kept));
                }
                Act::Answer { association, tag, result } => self.answer(association, tag, result),
                Act::Close { association } => {
                    assert!(Some(association) != self.guard.view().holder);
                }
            }
        }
        // A promise is broken if a fence of somebody else is answered before: see `answer`.
        let now = self.now;
        self.promised.retain(|(until, _)| *until > now);
    }

    fn carry(&mut self, tag: u64, command: &Command) {
        let (association, asked) = self.asked[&tag].clone();
        assert!(self.carried.insert(tag, asked.clone()).is_none(), "carried once");
        match asked {
            Command::Fence(record) => {
                assert!(matches!(command, Command::Marks { snapshot: None }));
                let owner = (record.epoch, record.owner);
                assert_eq!(self.durable.fence, owner, "it is durable before it goes on");
            }
            asked => {
                let holder = self.holder.map(|(holder, _)| holder);
                assert_eq!(holder, Some(association), "a stranger's {asked:?}");
                assert_eq!(self.guard.view().fencing, None, "after a fence arrived");
            }
        }
        match command {
            Command::Write { .. } | Command::Zero { .. } => {
                let (first, last) = regions(command);
                self.touched[first..=last].fill(self.step);
            }
            Command::Flush { .. } => {
                self.begun.insert(tag, self.step);
            }
            Command::Clean { flush, regions } => {
                for (first, count) in regions {
                    (*first..first + count).for_each(|region| self.check_clean(*flush, region));
                }
            }
            _ => {}
        }
    }

    /// A region may be cleaned whose last write ended before a flush of this number or a higher
    /// one began, which has succeeded.
    fn check_clean(&mut self, flush: u64, region: u32) {
        let touched = self.touched[region as usize];
        let covers = |(number, begun): &(u64, u64)| *number >= flush && *begun > touched;
        assert!(self.flushed.iter().any(covers), "region {region} over flush {flush}");
        let writes = self.carried.values().filter_map(|command| match command {
            command @ (Command::Write { .. } | Command::Zero { .. }) => Some(regions(command)),
            _ => None,
        });
        for (first, last) in writes {
            assert!(!(first..=last).contains(&(region as usize)), "it is being written");
        }
        self.cleaned += 1;
    }

    fn answer(&mut self, association: u32, tag: u64, result: Result<Answer, Refusal>) {
        let (by, command) = self.asked.remove(&tag).expect("answered once");
        assert_eq!(by, association);
        match (command, result) {
            (Command::Fence(record), Ok(Answer::Fenced(_))) => {
                let owner = (record.epoch, record.owner);
                assert_eq!(self.durable.fence, owner, "durable");
                assert!(self.carried.is_empty(), "everything of others has ended");
                let others = |(_, to): &&(Instant, (u64, Uuid))| *to != owner;
                assert_eq!(self.promised.iter().find(others), None, "promised to others");
                assert!(self.now.since(Instant::ZERO) >= Duration::from_secs(1));
                self.holder = self.guard.view().holder.map(|holder| (holder, owner));
                self.fences += 1;
            }
            (Command::Fence(_), Ok(other)) => panic!("{other:?} to a fence"),
            (Command::Lease, Ok(_)) => {
                let (holder, owner) = self.holder.expect("a holder");
                assert_eq!(holder, association);
                self.promised.push((self.now + Timing::default().lease, owner));
            }
            (Command::Release, Ok(_)) => self.promised.clear(),
            (Command::CopyRecord(record), Ok(_)) => {
                assert_eq!((record.epoch, record.owner), self.durable.fence);
            }
            _ => {}
        }
    }
}

/// Regions of a write: first and last.
fn regions(command: &Command) -> (usize, usize) {
    let (offset, len) = match command {
        Command::Write { offset, len, .. } => (*offset, u64::from(*len)),
        Command::Zero { offset, len, .. } => (*offset, *len),
        other => panic!("{other:?} writes nothing"),
    };
    let last = (offset + len - 1) / MIB;
    ((offset / MIB) as usize, last.min(REGIONS - 1) as usize)
}

#[test]
fn whatever_comes_in_whatever_order_no_rule_is_broken_and_all_is_answered() {
    let (mut fences, mut cleaned, mut failed) = (0, 0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed);
        for _ in 0..3000 {
            world.turn();
        }
        // The pool ends everything; time passes.
        for _ in 0..20_000 {
            if world.asked.is_empty() {
                break;
            }
            world.end_something();
            world.now = world.now + Duration::from_secs(1);
            world.handle(Event::Elapsed);
        }
        assert!(world.asked.is_empty(), "seed {seed}: {:?}", world.asked);
        fences += world.fences;
        cleaned += world.cleaned;
        failed += u64::from(world.failed);
    }
    assert!(fences > 2000 && cleaned > 2000, "it does something: {fences}, {cleaned}");
    assert!((1..200).contains(&failed), "{failed}");
}
