//! What one block of a volume may say: eight sectors, each with the writes that may be in it.
//!
//! Time is a counter of things that happened, so no two of them are at once. A value's *zone*
//! runs from the first moment by which its write surely took effect (`first`) to the last at
//! which it was surely not yet overwritten (`last`); for a write that nobody has read these are
//! its end and its beginning. Value A precedes B if A's first lies before B's last: reads of one
//! register with distinct values have a linear order exactly if no two values precede each other
//! (Gibbons and Korach, 1997).

use super::{Op, Tick};

/// Sectors of a block.
pub(crate) const SECTORS: usize = 8;
/// No time at all.
pub(crate) const NEVER: Tick = Tick::MAX;

/// A sector's content: the number of the write that put it there, or zeros, or neither.
pub(crate) type Content = u32;
/// Of so many writes of a block that were cut off, any may have taken no effect.
const UNSURE_MAX: usize = 8;

/// Zeros.
pub(crate) const ZERO: Content = 0;
/// What nobody wrote.
pub(crate) const GARBAGE: Content = Content::MAX;

/// Whether a replica had a block of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// No: its first write survives a crash wholly or not at all.
    Absent,
    /// Yes: an unflushed overwrite may survive in part.
    Owned,
    /// A merge may have moved a block into it, or zeros may have been written over its parent's.
    Unknown,
}

/// What ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crash {
    /// The process was killed: what it acknowledged is there.
    Kill,
    /// The power failed: what it flushed is there.
    Power,
}

/// One write or zeroing, as one block sees it.
#[derive(Clone, Debug)]
pub(crate) struct Touch {
    pub(crate) op: u32,
    /// The sectors it covers.
    pub(crate) mask: u8,
    /// Of each sector, when the first read that saw it ended, and the last began.
    first: [Tick; SECTORS],
    last: [Tick; SECTORS],
}

/// A block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// What it surely was, and may still be.
    pub(crate) base: [Content; SECTORS],
    /// When the last read that saw the base began.
    base_last: [Tick; SECTORS],
    pub(crate) presence: Presence,
    pub(crate) touches: Vec<Touch>,
    /// How many crashes the base knows of.
    pub(crate) crashes: usize,
}

/// From when on a value is surely there, and until when it surely is.
#[derive(Clone, Copy, Debug)]
struct Zone {
    first: Tick,
    last: Tick,
}

impl Zone {
    const fn precedes(self, other: Self) -> bool {
        self.first < other.last
    }

    const fn contradicts(self, other: Self) -> bool {
        self.precedes(other) && other.precedes(self)
    }
}

/// Which value of a sector is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Base,
    Touch(usize),
}

impl Block {
    /// A block with a certain content.
    pub(crate) const fn new(base: [Content; SECTORS], presence: Presence, crashes: usize) -> Self {
        Self { base, base_last: [0; SECTORS], presence, touches: Vec::new(), crashes }
    }

    /// A write to some of its sectors begins.
    pub(crate) fn touch(&mut self, op: u32, mask: u8) {
        let (first, last) = ([NEVER; SECTORS], [0; SECTORS]);
        self.touches.push(Touch { op, mask, first, last });
    }

    /// Whether the content is known for certain.
    pub(crate) const fn is_certain(&self) -> bool {
        self.touches.is_empty()
    }

    /// A read from `began` to `ended` saw `value` in a sector: whether it may.
    pub(crate) fn saw(
        &mut self,
        ops: &[Op],
        sector: usize,
        value: Content,
        (began, ended): (Tick, Tick),
    ) -> bool {
        let fits = self.fitting(ops, sector, value, (began, ended));
        // Two zeroings look alike: only who is alone is known to be seen.
        if let [only] = fits[..] {
            match only {
                Which::Base => {
                    self.base_last[sector] = self.base_last[sector].max(began);
                }
                Which::Touch(touch) => {
                    let touch = &mut self.touches[touch];
                    touch.first[sector] = touch.first[sector].min(ended);
                    touch.last[sector] = touch.last[sector].max(began);
                }
            }
        }
        !fits.is_empty()
    }

    /// Whether the replica surely has had a block of its own here since `at`, or has one now if
    /// that is never: it can always be overwritten.
    pub(crate) fn is_owned(&self, ops: &[Op], at: Tick) -> bool {
        let written = |touch: &Touch| {
            let op = &ops[touch.op as usize];
            !op.zero && !op.void && op.finish < at
        };
        let kept = self.touches.iter().all(|touch| !ops[touch.op as usize].zero);
        let known = self.presence != Presence::Unknown;
        known && kept && (self.presence == Presence::Owned || self.touches.iter().any(written))
    }

    /// Whether a replica that shows nobody else's blocks surely has had none of its own here since
    /// `at`.
    pub(crate) fn is_hole(&self, ops: &[Op], at: Tick) -> bool {
        let Some((last, before)) = self.touches.split_last() else {
            return self.presence == Presence::Absent && self.base == [ZERO; SECTORS];
        };
        let op = &ops[last.op as usize];
        let over = before.iter().all(|touch| surely_before(ops, touch.op, last.op));
        self.is_zeroing(ops, last) && op.finish < at && over
    }

    /// All values that a read in this interval may see in a sector.
    pub(crate) fn values(&self, ops: &[Op], sector: usize, interval: (Tick, Tick)) -> Vec<Content> {
        let mut values = vec![self.base[sector]];
        let here = self.touches.iter().filter(|touch| touch.covers(sector));
        values.extend(here.map(|touch| ops[touch.op as usize].content(touch.op)));
        values.sort_unstable();
        values.dedup();
        values.retain(|value| !self.fitting(ops, sector, *value, interval).is_empty());
        values
    }

    /// Whether a block that was read whole is torn: a sector shows a write, and another that the
    /// write covers as well shows what was surely there before.
    pub(crate) fn is_torn(&self, ops: &[Op], values: &[Content; SECTORS]) -> bool {
        let shown = |touch: &&Touch| {
            let content = ops[touch.op as usize].content(touch.op);
            content != ZERO && (0..SECTORS).any(|s| touch.covers(s) && values[s] == content)
        };
        self.touches.iter().filter(shown).any(|touch| {
            let began = ops[touch.op as usize].start;
            (0..SECTORS).filter(|s| touch.covers(*s)).any(|sector| {
                let value = values[sector];
                let old = self.base[sector] == value;
                let mut others = self.touches.iter().filter(|other| {
                    other.covers(sector) && ops[other.op as usize].content(other.op) == value
                });
                let later = others.clone().any(|other| ops[other.op as usize].ended() > began);
                (old || others.next().is_some()) && !later
            })
        })
    }

    /// Whether this is what a crash may leave of the block; `at` is the time of the question.
    pub(crate) fn survives(
        &self,
        ops: &[Op],
        values: &[Content; SECTORS],
        crash: Crash,
        at: Tick,
    ) -> Result<(), &'static str> {
        let lives = |sector: usize| match crash {
            Crash::Kill => {
                let fits = self.fitting(ops, sector, values[sector], (at, at));
                !fits.is_empty()
            }
            Crash::Power => self.outlives(ops, sector, values[sector]),
        };
        if !(0..SECTORS).all(lives) {
            return Err(match crash {
                Crash::Kill => "AckedSurvivesCrash",
                Crash::Power => "FlushedDurable",
            });
        }
        let any = |histories: &[Self]| histories.iter().any(|one| one.is_whole(ops, values));
        let whole = self.is_whole(ops, values) || any(&self.without_effect(ops, values));
        if whole { Ok(()) } else { Err("FirstWriteWhole") }
    }

    /// What happened to the block, if some of what was cut off, and that nobody saw, took no
    /// effect: each way in which `values` does not show that it did.
    fn without_effect(&self, ops: &[Op], values: &[Content; SECTORS]) -> Vec<Self> {
        let unsure = |at: &usize| {
            let (touch, op) = (&self.touches[*at], &ops[self.touches[*at].op as usize]);
            !op.void && op.finish == NEVER && touch.first.iter().all(|first| *first == NEVER)
        };
        let unsure: Vec<usize> = (0..self.touches.len()).filter(unsure).take(UNSURE_MAX).collect();
        let history = |without: u32| {
            let mut block = self.clone();
            let left_out =
                |at| unsure.iter().position(|u| *u == at).is_some_and(|i| without >> i & 1 != 0);
            let mut at = 0;
            block.touches.retain(|_| {
                at += 1;
                !left_out(at - 1)
            });
            block
        };
        let explains = |block: &Self| {
            (0..SECTORS).all(|sector| !block.named(ops, sector, values[sector]).is_empty())
        };
        (1..1 << unsure.len()).map(history).filter(explains).collect()
    }

    /// The block as it was read after a crash: this is what it is from now on.
    pub(crate) fn settle(&mut self, ops: &[Op], values: [Content; SECTORS], crashes: usize) {
        let zeroed =
            self.touches.iter().any(|touch| touch.mask == 0xff && ops[touch.op as usize].zero);
        // Zeros that were written sector by sector look like a block that is not there.
        let in_part = |touch: &Touch| touch.mask != 0xff && ops[touch.op as usize].zero;
        let alike = values == [ZERO; SECTORS] && self.touches.iter().any(in_part);
        let presence = match self.presence {
            Presence::Absent if alike => Presence::Unknown,
            Presence::Absent if values == self.base => Presence::Absent,
            Presence::Absent if zeroed && values == [ZERO; SECTORS] => Presence::Absent,
            Presence::Absent => Presence::Owned,
            Presence::Owned if zeroed => Presence::Unknown,
            same => same,
        };
        *self = Self::new(values, presence, crashes);
    }

    /// The values of a sector that are `value` and that a read may see.
    fn fitting(
        &self,
        ops: &[Op],
        sector: usize,
        value: Content,
        (began, ended): (Tick, Tick),
    ) -> Vec<Which> {
        let mut fits = self.named(ops, sector, value);
        fits.retain(|which| {
            let Some(zone) = self.zone(ops, sector, *which, true) else { return false };
            let seen = Zone { first: zone.first.min(ended), last: zone.last.max(began) };
            let begun = !matches!(which, Which::Touch(t)
                if ops[self.touches[*t].op as usize].start > ended);
            begun
                && self.others(sector, *which).all(|other| {
                    self.zone(ops, sector, other, false)
                        .is_none_or(|other| !seen.contradicts(other))
                })
        });
        fits
    }

    /// Whether a sector's value may be there after a loss of power: no durable write surely
    /// came after it.
    pub(super) fn outlives(&self, ops: &[Op], sector: usize, value: Content) -> bool {
        self.named(ops, sector, value).into_iter().any(|which| {
            let Some(zone) = self.zone(ops, sector, which, true) else { return false };
            self.others(sector, which).all(|other| {
                let Which::Touch(touch) = other else { return true };
                let durable = ops[self.touches[touch].op as usize].durable;
                let later = self.zone(ops, sector, other, false);
                !durable || later.is_none_or(|later| !zone.precedes(later))
            })
        })
    }

    /// A block that was absent is absent still, or holds the whole of a first write.
    fn is_whole(&self, ops: &[Op], values: &[Content; SECTORS]) -> bool {
        let zeroed = self.zeroings(ops).next().is_some();
        match self.presence {
            Presence::Unknown => return true,
            Presence::Owned if !zeroed => return true,
            Presence::Owned => {
                // Before the zeroing anything goes; zeros alone are those of an absent block.
                let old = (0..SECTORS).all(|sector| self.is_old(ops, sector, values[sector]));
                if old {
                    return true;
                }
            }
            Presence::Absent if *values == self.base => return true,
            Presence::Absent => {}
        }
        if zeroed && *values == [ZERO; SECTORS] {
            return true;
        }
        let fill = |sector: usize| {
            let parent = self.presence == Presence::Absent && values[sector] == self.base[sector];
            parent || (zeroed && values[sector] == ZERO)
        };
        self.touches.iter().filter(|touch| self.may_be_first(ops, touch)).any(|first| {
            (0..SECTORS).all(|sector| {
                let written = self.touches.iter().any(|touch| {
                    touch.covers(sector)
                        && ops[touch.op as usize].content(touch.op) == values[sector]
                        && self.may_follow(ops, touch, first)
                });
                written || (!first.covers(sector) && fill(sector))
            })
        })
    }

    /// Whether a value is of the time before the block was zeroed.
    fn is_old(&self, ops: &[Op], sector: usize, value: Content) -> bool {
        let before = |touch: &&Touch| {
            let after = |zero: &Touch| surely_before(ops, zero.op, touch.op);
            !self.is_zeroing(ops, touch) && !self.zeroings(ops).any(after)
        };
        self.base[sector] == value
            || self.touches.iter().filter(before).any(|touch| {
                touch.covers(sector) && ops[touch.op as usize].content(touch.op) == value
            })
    }

    /// Whether a write may have found the block absent: none came surely before it that was not
    /// zeroed in between.
    fn may_be_first(&self, ops: &[Op], first: &Touch) -> bool {
        let zeroing = self.is_zeroing(ops, first);
        let mut earlier = self.touches.iter().filter(|touch| {
            let took_effect = !self.is_zeroing(ops, touch) && !ops[touch.op as usize].void;
            took_effect && surely_before(ops, touch.op, first.op)
        });
        let undone = |earlier: &Touch| {
            self.zeroings(ops).any(|zero| {
                !surely_before(ops, zero.op, earlier.op) && !surely_before(ops, first.op, zero.op)
            })
        };
        let owned = self.presence == Presence::Owned;
        let zeroed = self.zeroings(ops).any(|zero| !surely_before(ops, first.op, zero.op));
        !zeroing && !ops[first.op as usize].void && (!owned || zeroed) && earlier.all(undone)
    }

    /// Whether a write may be into the block that another one made.
    fn may_follow(&self, ops: &[Op], touch: &Touch, first: &Touch) -> bool {
        let between = |zero: &Touch| {
            surely_before(ops, first.op, zero.op) && surely_before(ops, zero.op, touch.op)
        };
        touch.op == first.op
            || !self.is_zeroing(ops, touch)
                && !surely_before(ops, touch.op, first.op)
                && !self.zeroings(ops).any(between)
    }

    fn zeroings<'a>(&'a self, ops: &'a [Op]) -> impl Iterator<Item = &'a Touch> {
        self.touches.iter().filter(|touch| self.is_zeroing(ops, touch))
    }

    fn is_zeroing(&self, ops: &[Op], touch: &Touch) -> bool {
        let op = &ops[touch.op as usize];
        op.zero && !op.void && touch.mask == 0xff
    }

    fn named(&self, ops: &[Op], sector: usize, value: Content) -> Vec<Which> {
        let mut named = Vec::new();
        if self.base[sector] == value {
            named.push(Which::Base);
        }
        for (position, touch) in self.touches.iter().enumerate() {
            let op = &ops[touch.op as usize];
            if touch.covers(sector) && op.content(touch.op) == value && !op.void {
                named.push(Which::Touch(position));
            }
        }
        named
    }

    fn others(&self, sector: usize, which: Which) -> impl Iterator<Item = Which> {
        let here = move |at: &usize| self.touches[*at].covers(sector);
        let touches = (0..self.touches.len()).filter(here).map(Which::Touch);
        std::iter::once(Which::Base).chain(touches).filter(move |other| *other != which)
    }

    /// The zone of a value; `claimed`: somebody says that its write took effect.
    fn zone(&self, ops: &[Op], sector: usize, which: Which, claimed: bool) -> Option<Zone> {
        match which {
            Which::Base => Some(Zone { first: 0, last: self.base_last[sector] }),
            Which::Touch(touch) => {
                let touch = &self.touches[touch];
                let op = &ops[touch.op as usize];
                let seen = touch.first[sector];
                let over = if claimed || seen < NEVER { op.over } else { NEVER };
                let first = op.finish.min(seen).min(over);
                let last = op.start.max(touch.last[sector]);
                (!op.void).then_some(Zone { first, last })
            }
        }
    }
}

impl Touch {
    pub(crate) const fn covers(&self, sector: usize) -> bool {
        self.mask & 1 << sector != 0
    }
}

/// Whether a write was over before another began.
fn surely_before(ops: &[Op], a: u32, b: u32) -> bool {
    ops[a as usize].ended() < ops[b as usize].start
}
