//! Histories by hand, right and wrong, and the checker against brute force.

use braid_block::Instant;

use super::super::history::{Deed, History, Number};
use super::check;
use crate::payload::{SECTOR, fill};
use crate::random::Random;

const AT: Instant = Instant::ZERO;

/// A history of one sector.
#[derive(Default)]
struct Sector(History);

impl Sector {
    fn begin(&mut self, deed: Deed) -> Number {
        let number = self.0.begin(AT, 0, deed, (0, 1));
        self.0.send(number);
        number
    }

    fn write(&mut self) -> Number {
        self.begin(Deed::Write { durable: false })
    }

    fn done(&mut self, number: Number) {
        let last = self.0.operation(number).sent.len() - 1;
        self.0.acknowledged(AT, number, last);
    }

    fn written(&mut self) -> Number {
        let number = self.write();
        self.done(number);
        number
    }

    fn zeroed(&mut self) -> Number {
        let number = self.begin(Deed::Zero { durable: false });
        self.done(number);
        number
    }

    fn flushed(&mut self) {
        let number = self.begin(Deed::Flush);
        self.done(number);
    }

    fn saw(&mut self, read: Number, value: Number) {
        let mut bytes = [0; SECTOR];
        if value != 0 {
            fill(&mut bytes, value, 0);
        }
        self.0.was_read(AT, read, 0, &bytes).unwrap();
    }

    fn read(&mut self, value: Number) {
        let read = self.begin(Deed::Read);
        self.saw(read, value);
    }

    fn lose(&mut self, epoch: u64) {
        self.0.claimed(epoch);
        self.0.lost(epoch);
        self.0.serving();
    }

    fn fails(&self) -> Option<&'static str> {
        check(&self.0).err().map(|violation| violation.invariant)
    }
}

#[test]
fn an_old_value_after_a_newer_one_was_acknowledged_is_found() {
    let mut sector = Sector::default();
    let (a, b) = (sector.written(), sector.written());
    sector.read(b);
    assert_eq!(sector.fails(), None);
    sector.read(a);
    assert_eq!(sector.fails(), Some("BlockLinearizable"));
}

#[test]
fn an_old_value_that_comes_back_after_a_fail_over_is_a_lost_write() {
    let mut sector = Sector::default();
    let (a, _) = (sector.written(), sector.written());
    sector.0.claimed(2);
    sector.0.serving();
    sector.read(a);
    assert_eq!(sector.fails(), Some("AckedSurvivesCrash"));
}

#[test]
fn a_value_that_was_read_does_not_un_happen() {
    let mut sector = Sector::default();
    let a = sector.written();
    let b = sector.write();
    sector.read(b);
    assert_eq!(sector.fails(), None);
    sector.read(a);
    assert_eq!(sector.fails(), Some("BlockLinearizable"));
}

#[test]
fn zeros_that_come_back_are_found() {
    let mut sector = Sector::default();
    let a = sector.written();
    sector.read(a);
    sector.zeroed();
    sector.read(0);
    assert_eq!(sector.fails(), None);
    let b = sector.written();
    sector.read(b);
    sector.read(0);
    assert_eq!(sector.fails(), Some("BlockLinearizable"));
}

#[test]
fn what_was_zeroed_does_not_come_back() {
    let mut sector = Sector::default();
    let a = sector.written();
    sector.zeroed();
    sector.read(a);
    assert_eq!(sector.fails(), Some("BlockLinearizable"));
}

#[test]
fn a_write_without_an_answer_may_have_happened_or_still_happen() {
    let mut sector = Sector::default();
    let a = sector.written();
    let b = sector.write();
    sector.read(a);
    sector.read(b);
    assert_eq!(sector.fails(), None);
}

#[test]
fn a_write_that_was_sent_again_may_take_effect_twice_but_not_after_its_answer() {
    let script = |late: bool| {
        let mut sector = Sector::default();
        let a = sector.write();
        sector.read(a);
        let b = sector.written();
        sector.read(b);
        sector.0.send(a);
        if late {
            sector.done(a);
            let c = sector.written();
            sector.read(c);
        }
        sector.read(a);
        sector.fails()
    };
    assert_eq!(script(false), None);
    assert_eq!(script(true), Some("BlockLinearizable"));
}

#[test]
fn an_acknowledged_attempt_took_effect_after_it_was_sent() {
    let mut sector = Sector::default();
    let a = sector.write();
    let b = sector.written();
    sector.0.send(a);
    sector.done(a);
    sector.read(b);
    assert_eq!(sector.fails(), Some("BlockLinearizable"));
}

#[test]
fn a_write_that_failed_may_have_happened_before_it_failed() {
    let mut sector = Sector::default();
    let a = sector.written();
    let b = sector.write();
    sector.0.failed(AT, b, true);
    sector.read(b);
    assert_eq!(sector.fails(), None);
    let mut sector = Sector::default();
    let c = sector.write();
    sector.0.failed(AT, c, true);
    sector.read(0);
    sector.read(c);
    assert_eq!((sector.fails(), a), (Some("BlockLinearizable"), 1));
}

#[test]
fn a_loss_takes_what_was_not_flushed_and_nothing_else() {
    let lost = |flush: bool, seen_after: &dyn Fn(Number, Number) -> Number| {
        let mut sector = Sector::default();
        let a = sector.written();
        sector.flushed();
        let b = sector.written();
        if flush {
            sector.flushed();
        }
        sector.lose(2);
        sector.read(seen_after(a, b));
        sector.fails()
    };
    assert_eq!(lost(false, &|a, _| a), None);
    assert_eq!(lost(false, &|_, b| b), None);
    assert_eq!(lost(false, &|_, _| 0), Some("BlockLinearizable"));
    assert_eq!(lost(true, &|_, b| b), None);
    assert_eq!(lost(true, &|a, _| a), Some("FlushedDurable"));
}

#[test]
fn a_durable_write_survives_a_loss_without_a_flush() {
    let mut sector = Sector::default();
    let a = sector.written();
    let b = sector.begin(Deed::Write { durable: true });
    sector.done(b);
    sector.lose(2);
    sector.read(a);
    assert_eq!(sector.fails(), Some("FlushedDurable"));
}

#[test]
fn one_value_survives_a_loss_and_stays() {
    let mut sector = Sector::default();
    let (a, b) = (sector.written(), sector.written());
    sector.lose(2);
    sector.read(a);
    assert_eq!(sector.fails(), None);
    sector.read(b);
    assert_eq!(sector.fails(), Some("BlockLinearizable"));
}

#[test]
fn what_survived_a_loss_and_was_flushed_survives_the_next_one() {
    let script = |flush: bool| {
        let mut sector = Sector::default();
        let (a, b) = (sector.written(), sector.written());
        sector.lose(2);
        sector.read(a);
        if flush {
            sector.flushed();
        }
        sector.lose(3);
        sector.read(b);
        sector.fails()
    };
    assert_eq!(script(false), None);
    assert_eq!(script(true), Some("FlushedDurable"));
}

#[test]
fn zeros_are_of_any_zeroing_that_was_in_work_and_not_of_the_beginning_alone() {
    let script = |late: bool| {
        let mut sector = Sector::default();
        let zeroing = sector.begin(Deed::Zero { durable: false });
        let a = sector.written();
        sector.read(a);
        if !late {
            sector.done(zeroing);
        }
        let read = sector.begin(Deed::Read);
        if late {
            sector.done(zeroing);
        }
        sector.saw(read, 0);
        sector.fails()
    };
    assert_eq!(script(true), None, "it may have happened when the read had begun");
    assert_eq!(script(false), None, "or just before it was answered");
    let mut sector = Sector::default();
    let a = sector.written();
    sector.read(a);
    let read = sector.begin(Deed::Read);
    sector.saw(read, 0);
    sector.zeroed();
    assert_eq!(sector.fails(), Some("BlockLinearizable"), "one that came later made none of them");
}

#[test]
fn a_finding_names_the_read_that_has_no_explanation() {
    let mut sector = Sector::default();
    sector.read(0);
    let a = sector.written();
    sector.read(a);
    let wrong = sector.begin(Deed::Read);
    sector.saw(wrong, 0);
    sector.read(a);
    sector.zeroed();
    sector.read(0);
    let found = check(&sector.0).unwrap_err();
    assert!(found.text.contains(&format!("was seen by #{wrong} ")), "{}", found.text);
}

/// A sector that so many operations hit, of each kind as many, and that loses its cache thrice.
fn hot(operations: u32) -> Sector {
    let mut sector = Sector::default();
    let mut random = Random::new(7);
    for at in 0..operations {
        match random.below(8) {
            0..3 => {
                let a = sector.written();
                sector.read(a);
            }
            3 => {
                sector.zeroed();
                sector.read(0);
            }
            4 => {
                let unanswered = sector.begin(Deed::Zero { durable: true });
                sector.read(0);
                sector.done(unanswered);
            }
            5 => {
                let durable = sector.begin(Deed::Write { durable: true });
                sector.done(durable);
                sector.read(durable);
            }
            6 => {
                let twice = sector.write();
                sector.0.send(twice);
                sector.done(twice);
                sector.read(twice);
            }
            _ => sector.flushed(),
        }
        if at % (operations / 3) == operations / 6 {
            sector.flushed();
            sector.lose(u64::from(at) + 2);
        }
    }
    sector
}

#[test]
fn a_sector_that_is_hit_ten_times_as_often_costs_ten_times_as_much() {
    let cost = |operations| super::checked(&hot(operations).0).expect("a history that is right");
    let (few, many) = (cost(600), cost(6000));
    assert!(many < few * 12, "{few} steps, {many} steps");
    assert!(many < 6000 * 40, "{many} steps");
}

/// Two sectors are written one after the other, and again; says what a snapshot may hold that is
/// taken between.
#[test]
fn a_snapshot_is_of_one_moment_within_its_command() {
    let mut history = History::default();
    let write = |history: &mut History, sector: u64| {
        let number = history.begin(AT, 0, Deed::Write { durable: false }, (sector, 1));
        history.send(number);
        history.acknowledged(AT, number, 0);
        number
    };
    let (a, b) = (write(&mut history, 0), write(&mut history, 1));
    let began = history.tick();
    let (c, d) = (write(&mut history, 0), write(&mut history, 1));
    let ended = history.tick();
    let (e, _) = (write(&mut history, 0), write(&mut history, 1));
    let fits = |values: [Number; 2]| {
        let values = (0..).zip(values).collect();
        super::moment(&history, &values, (began, ended)).is_ok()
    };
    assert!(fits([a, b]) && fits([c, b]) && fits([c, d]));
    assert!(!fits([a, d]), "the second write before the first");
    assert!(!fits([e, d]), "a write of after the snapshot");
    assert!(!fits([0, b]) && !fits([c, 0]), "what was before the snapshot");
    assert!(super::moment(&history, &[(9, 0)].into(), (began, ended)).is_ok());
}

#[test]
fn what_nobody_wrote_is_found_at_once() {
    let mut history = History::default();
    let a = history.begin(AT, 0, Deed::Write { durable: false }, (3, 2));
    history.send(a);
    let read = history.begin(AT, 0, Deed::Read, (3, 1));
    history.send(read);
    let mut bytes = [0; SECTOR];
    let wrong = |history: &History, bytes: &[u8]| {
        history.value(bytes, 3).err().map(|violation| violation.invariant)
    };
    fill(&mut bytes, a, 3);
    assert_eq!(wrong(&history, &bytes), None);
    fill(&mut bytes, a, 4);
    assert_eq!(wrong(&history, &bytes), Some("NeverWrongData"));
    fill(&mut bytes, 99, 3);
    assert_eq!(wrong(&history, &bytes), Some("NeverWrongData"));
    bytes[100] ^= 1;
    let found = history.was_read(AT, read, 0, &bytes).unwrap_err();
    assert_eq!(found.invariant, "NeverWrongData");
}

/// A plain operation: from, to, and what it wrote or saw.
#[derive(Clone, Copy, Debug)]
enum Plain {
    Write(u32),
    Zero,
    Read(u32),
}

/// Whether some order of all operations that agrees with time explains every read.
fn has_order(ops: &[(u64, u64, Plain)], done: u32, value: u32) -> bool {
    if done + 1 == 1 << ops.len() {
        return true;
    }
    let open = |at: &usize| done & 1 << at == 0;
    let soonest = (0..ops.len()).filter(open).map(|at| ops[at].1).min().unwrap_or(0);
    (0..ops.len()).filter(open).filter(|at| ops[*at].0 < soonest).any(|at| {
        let next = match ops[at].2 {
            Plain::Write(own) => own,
            Plain::Zero => 0,
            Plain::Read(seen) if seen == value => value,
            Plain::Read(_) => return false,
        };
        has_order(ops, done | 1 << at, next)
    })
}

/// Runs random operations, whose reads see something likely, and gives both verdicts.
fn verdicts(seed: u64, zeros: bool) -> (bool, bool) {
    let mut random = Random::new(seed);
    let mut sector = Sector::default();
    let mut open: Vec<(Number, u64, Plain)> = Vec::new();
    let mut ops = Vec::new();
    let mut values = vec![0];
    for _ in 0..12 {
        if open.len() < 3 && ops.len() + open.len() < 7 && random.once_in(2) {
            let deed = match random.below(if zeros { 5 } else { 4 }) {
                0 | 1 => Deed::Write { durable: false },
                4 => Deed::Zero { durable: false },
                _ => Deed::Read,
            };
            let number = sector.begin(deed);
            let plain = match deed {
                Deed::Write { .. } => {
                    values.push(number);
                    Plain::Write(number)
                }
                Deed::Zero { .. } => Plain::Zero,
                _ => Plain::Read(0),
            };
            open.push((number, sector.0.operation(number).sent[0], plain));
        } else if !open.is_empty() {
            let (number, sent, plain) = open.swap_remove(random.index(open.len()));
            let plain = match plain {
                Plain::Read(_) => {
                    let value = values[values.len() - 1 - random.index(values.len().min(3))];
                    sector.saw(number, value);
                    Plain::Read(value)
                }
                same => {
                    sector.done(number);
                    same
                }
            };
            let done = sector.0.tick();
            ops.push((sent, done, plain));
        }
    }
    for (number, sent, plain) in open {
        if !matches!(plain, Plain::Read(_)) {
            sector.done(number);
            ops.push((sent, sector.0.tick(), plain));
        }
    }
    (sector.fails().is_none(), has_order(&ops, 0, 0))
}

#[test]
fn the_verdict_is_that_of_brute_force() {
    let mut wrong = 0;
    for seed in 0..20_000 {
        let (said, right) = verdicts(seed, false);
        // Zeros at the beginning are the one value without a write.
        assert_eq!(said, right, "seed {seed}");
        wrong += u32::from(!right);
    }
    assert!((1000..19_000).contains(&wrong), "{wrong} wrong histories tell nothing");
}

#[test]
fn with_zeroings_nothing_right_is_called_wrong_and_little_wrong_right() {
    let (mut wrong, mut missed) = (0, 0);
    for seed in 0..20_000 {
        let (said, right) = verdicts(seed, true);
        assert!(said || !right, "seed {seed}");
        wrong += u32::from(!right);
        missed += u32::from(said && !right);
    }
    assert!(wrong > 1000 && missed * 50 < wrong, "{missed} of {wrong} were missed");
}

/// A real register with a cache that is lost, hosts that send again, and answers that come late.
struct Real {
    sector: Sector,
    random: Random,
    value: Number,
    /// What the media may hold: what was there at the last flush and what came since.
    survivors: Vec<Number>,
    /// Attempts on their way: operation, attempt, its result once it took effect.
    flying: Vec<(Number, usize, Option<Number>)>,
    open: Vec<Number>,
    epoch: u64,
}

impl Real {
    fn new(seed: u64) -> Self {
        Self {
            sector: Sector::default(),
            random: Random::new(seed),
            value: 0,
            survivors: vec![0],
            flying: Vec::new(),
            open: Vec::new(),
            epoch: 1,
        }
    }

    fn step(&mut self) {
        match self.random.below(9) {
            0..3 if self.open.len() < 4 => self.begin(),
            3 if !self.open.is_empty() => {
                let number = *self.random.pick(&self.open);
                let attempt = self.sector.0.send(number);
                self.flying.push((number, attempt, None));
            }
            4..6 => self.execute(),
            6 | 7 => self.answer(),
            8 if self.random.once_in(4) => self.lose(),
            _ => {}
        }
    }

    fn begin(&mut self) {
        let durable = self.random.once_in(4);
        let deed = *self.random.pick(&[
            Deed::Read,
            Deed::Read,
            Deed::Write { durable },
            Deed::Write { durable },
            Deed::Zero { durable },
            Deed::Flush,
        ]);
        let number = self.sector.begin(deed);
        self.flying.push((number, 0, None));
        self.open.push(number);
    }

    fn execute(&mut self) {
        let waiting: Vec<usize> =
            (0..self.flying.len()).filter(|at| self.flying[*at].2.is_none()).collect();
        if waiting.is_empty() {
            return;
        }
        let at = *self.random.pick(&waiting);
        let number = self.flying[at].0;
        let deed = self.sector.0.operation(number).deed;
        match deed {
            Deed::Read => {}
            Deed::Write { .. } => self.value = number,
            Deed::Zero { .. } => self.value = 0,
            Deed::Flush => self.survivors.clear(),
        }
        if matches!(deed, Deed::Write { durable: true } | Deed::Zero { durable: true }) {
            self.survivors.clear();
        }
        self.survivors.push(self.value);
        self.flying[at].2 = Some(self.value);
    }

    fn answer(&mut self) {
        let done: Vec<usize> =
            (0..self.flying.len()).filter(|at| self.flying[*at].2.is_some()).collect();
        if done.is_empty() {
            return;
        }
        let (number, attempt, result) = self.flying.remove(*self.random.pick(&done));
        self.open.retain(|other| *other != number);
        // The owner promises that no other attempt takes effect after the final answer.
        self.flying.retain(|(other, ..)| *other != number);
        let value = result.unwrap_or_default();
        if self.sector.0.operation(number).deed != Deed::Read {
            return self.sector.0.acknowledged(AT, number, attempt);
        }
        let mut bytes = [0; SECTOR];
        if value != 0 {
            fill(&mut bytes, value, 0);
        }
        self.sector.0.was_read(AT, number, attempt, &bytes).unwrap();
    }

    fn lose(&mut self) {
        self.epoch += 1;
        self.sector.0.claimed(self.epoch);
        // Commands of before may still be carried out, and be lost.
        self.execute();
        self.value = *self.random.pick(&self.survivors);
        // A flush of before is refused from now on; all else may be sent again.
        let flushes = |number: &Number| self.sector.0.operation(*number).deed == Deed::Flush;
        let refused: Vec<Number> = self.open.iter().copied().filter(flushes).collect();
        self.open.retain(|number| !refused.contains(number));
        self.flying.retain(|(number, _, result)| !refused.contains(number) && result.is_none());
        for number in refused {
            self.sector.0.failed(AT, number, true);
        }
        self.sector.0.lost(self.epoch);
        self.sector.0.serving();
    }
}

#[test]
fn whatever_a_real_register_does_is_right() {
    let (mut losses, mut reads) = (0, 0);
    for seed in 0..4000 {
        let mut real = Real::new(seed);
        (0..60).for_each(|_| real.step());
        if let Err(violation) = check(&real.sector.0) {
            panic!("seed {seed}: {violation:?}");
        }
        losses += real.epoch - 1;
        reads += real.sector.0.tracks.values().map(|track| track.looks.len()).sum::<usize>();
    }
    assert!(losses > 5000 && reads > 8000, "{losses} losses, {reads} reads");
}
