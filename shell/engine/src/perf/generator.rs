//! What a load asks for next: pure, so that the same seed asks for the same.
//!
//! Invariants, when verifying:
//! 1. A slot that is being written is in no other command: what a read of it should find would
//!    not be known.
//! 2. A slot's generation is what the last acknowledged write left, or unknown after a write that
//!    failed.

/// How reads and writes are mixed, and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Of 100 commands, so many are reads.
    pub read_percent: u8,
    /// Anywhere, or one after another.
    pub random: bool,
    /// A flush after so many writes; 0: none.
    pub flush_every: u32,
}

/// One command. A slot is a range as long as one command's data, aligned to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Read a slot.
    Read {
        /// Which.
        slot: u64,
    },
    /// Write a slot.
    Write {
        /// Which.
        slot: u64,
        /// How often it will have been written.
        generation: u32,
    },
    /// Make all completed writes durable.
    Flush,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was asked.
    Done,
    /// It may or may not have.
    Failed,
}

/// Decides what is asked for.
#[derive(Debug)]
pub struct Generator {
    mix: Mix,
    slots: u64,
    cursor: u64,
    random: u64,
    writes_since_flush: u32,
    ledger: Option<Ledger>,
}

/// What every slot should hold.
#[derive(Debug)]
struct Ledger {
    /// Last acknowledged generation; [`UNKNOWN`] after a failed write.
    generations: Vec<u32>,
    /// Generation of the last write that was begun: they never come twice.
    begun: Vec<u32>,
    busy: Vec<u64>,
}

/// Nobody knows what this slot holds.
const UNKNOWN: u32 = 0;
/// Slots tried at random before looking at one after another.
const TRIES: u32 = 16;

impl Generator {
    /// A generator over `slots` slots; with `verify` it remembers what each should hold.
    #[must_use]
    pub fn new(mix: Mix, slots: u64, seed: u64, verify: bool) -> Self {
        let ledger = verify.then(|| Ledger::new(slots));
        Self { mix, slots, cursor: 0, random: seed | 1, writes_since_flush: 0, ledger }
    }

    /// What to ask for next; none while every slot is in a command.
    pub fn next_work(&mut self) -> Option<Work> {
        if self.mix.flush_every > 0 && self.writes_since_flush >= self.mix.flush_every {
            self.writes_since_flush = 0;
            return Some(Work::Flush);
        }
        let slot = self.free_slot()?;
        self.claim(slot);
        if self.dice() % 100 < u64::from(self.mix.read_percent) {
            return Some(Work::Read { slot });
        }
        self.writes_since_flush += 1;
        let generation = self.ledger.as_mut().map_or(0, |ledger| ledger.begin(slot));
        Some(Work::Write { slot, generation })
    }

    /// A command ended; its slot is free again.
    pub fn done(&mut self, work: Work, outcome: Outcome) {
        let Some(ledger) = &mut self.ledger else { return };
        match work {
            Work::Read { slot } => ledger.set_busy(slot, false),
            Work::Write { slot, generation } => {
                ledger.set_busy(slot, false);
                ledger.generations[index(slot)] = match outcome {
                    Outcome::Done => generation,
                    Outcome::Failed => UNKNOWN,
                };
            }
            Work::Flush => {}
        }
    }

    /// The generation that a read of this slot should find, if it is known.
    #[must_use]
    pub fn expected(&self, slot: u64) -> Option<u32> {
        let generation = *self.ledger.as_ref()?.generations.get(index(slot))?;
        (generation != UNKNOWN).then_some(generation)
    }

    /// The first slot from `from` on that this run wrote and knows.
    #[must_use]
    pub fn written_from(&self, from: u64) -> Option<u64> {
        let generations = &self.ledger.as_ref()?.generations;
        let rest = generations.get(index(from)..)?;
        let ahead = rest.iter().position(|&generation| generation != UNKNOWN)?;
        Some(from + ahead as u64)
    }

    fn claim(&mut self, slot: u64) {
        if let Some(ledger) = &mut self.ledger {
            ledger.set_busy(slot, true);
        }
    }

    fn free_slot(&mut self) -> Option<u64> {
        if self.mix.random {
            for _ in 0..TRIES {
                let slot = self.dice() % self.slots;
                if !self.is_busy(slot) {
                    return Some(slot);
                }
            }
        }
        for _ in 0..self.slots {
            let slot = self.cursor;
            self.cursor = (self.cursor + 1) % self.slots;
            if !self.is_busy(slot) {
                return Some(slot);
            }
        }
        None
    }

    fn is_busy(&self, slot: u64) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.is_busy(slot))
    }

    /// xorshift64*, of which the upper half is good.
    fn dice(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// Goes once through all slots that were written, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    next: u64,
}

impl ReadBack {
    /// The next read, until there is none.
    pub fn next_work(&mut self, generator: &Generator) -> Option<Work> {
        let slot = generator.written_from(self.next)?;
        self.next = slot + 1;
        Some(Work::Read { slot })
    }
}

impl Ledger {
    fn new(slots: u64) -> Self {
        let slots = index(slots);
        Self {
            generations: vec![UNKNOWN; slots],
            begun: vec![UNKNOWN; slots],
            busy: vec![0; slots.div_ceil(64)],
        }
    }

    fn begin(&mut self, slot: u64) -> u32 {
        let begun = &mut self.begun[index(slot)];
        *begun = begun.checked_add(1).unwrap_or(1);
        *begun
    }

    fn is_busy(&self, slot: u64) -> bool {
        self.busy[index(slot) / 64] >> (slot % 64) & 1 != 0
    }

    fn set_busy(&mut self, slot: u64, busy: bool) {
        let word = &mut self.busy[index(slot) / 64];
        let bit = 1 << (slot % 64);
        *word = if busy { *word | bit } else { *word & !bit };
    }
}

/// Slots are bounded by a table in memory.
fn index(slot: u64) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const WRITES: Mix = Mix { read_percent: 0, random: true, flush_every: 0 };

    #[test]
    fn a_verifying_load_never_touches_a_slot_twice_at_once() {
        let mix = Mix { read_percent: 50, ..WRITES };
        let mut generator = Generator::new(mix, 32, 7, true);
        let mut flying = Vec::new();
        let mut busy = BTreeSet::new();
        for round in 0..1000 {
            while let Some(work) = generator.next_work() {
                let (Work::Read { slot } | Work::Write { slot, .. }) = work else { continue };
                assert!(busy.insert(slot), "slot {slot} twice");
                flying.push(work);
            }
            assert_eq!(flying.len(), 32);
            let work = flying.swap_remove(round % flying.len());
            let (Work::Read { slot } | Work::Write { slot, .. }) = work else { continue };
            busy.remove(&slot);
            generator.done(work, Outcome::Done);
        }
    }

    #[test]
    fn generations_grow_and_failures_are_not_trusted() {
        let mut generator = Generator::new(WRITES, 1, 1, true);
        for generation in 1..=3 {
            let work = generator.next_work().unwrap();
            assert_eq!(work, Work::Write { slot: 0, generation });
            generator.done(work, Outcome::Done);
            assert_eq!(generator.expected(0), Some(generation));
        }
        let work = generator.next_work().unwrap();
        generator.done(work, Outcome::Failed);
        assert_eq!(generator.expected(0), None);
        assert_eq!(generator.next_work(), Some(Work::Write { slot: 0, generation: 5 }));
    }

    #[test]
    fn a_sequential_load_goes_round() {
        let mix = Mix { read_percent: 100, random: false, flush_every: 0 };
        let mut generator = Generator::new(mix, 3, 1, false);
        let slots: Vec<_> = (0..4).map(|_| generator.next_work().unwrap()).collect();
        assert_eq!(slots, [0, 1, 2, 0].map(|slot| Work::Read { slot }));
    }

    #[test]
    fn a_flush_follows_every_few_writes() {
        let mut generator = Generator::new(Mix { flush_every: 2, ..WRITES }, 100, 1, false);
        let flushes: Vec<_> = (0..6).map(|_| generator.next_work() == Some(Work::Flush)).collect();
        assert_eq!(flushes, [false, false, true, false, false, true]);
    }

    #[test]
    fn reading_back_visits_what_was_written_once() {
        let mix = Mix { random: false, ..WRITES };
        let mut generator = Generator::new(mix, 8, 1, true);
        for outcome in [Outcome::Done, Outcome::Failed, Outcome::Done] {
            let work = generator.next_work().unwrap();
            generator.done(work, outcome);
        }
        let mut read_back = ReadBack::default();
        let slots: Vec<_> = std::iter::from_fn(|| read_back.next_work(&generator)).collect();
        assert_eq!(slots, [Work::Read { slot: 0 }, Work::Read { slot: 2 }]);
    }

    #[test]
    fn the_mix_is_as_asked_for() {
        let mix = Mix { read_percent: 70, ..WRITES };
        let mut generator = Generator::new(mix, 1000, 3, false);
        let read = |work| matches!(work, Some(Work::Read { .. }));
        let reads = (0..10_000).filter(|_| read(generator.next_work())).count();
        assert!((6_700..7_300).contains(&reads), "{reads}");
    }
}
