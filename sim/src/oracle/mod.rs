//! What a pool may answer: the one specification of its volumes, as arrays of sectors.
//!
//! Whoever drives a pool tells the oracle what begins and what ends, and asks it whether what
//! was read may be so. It knows nothing of clusters, journals or checksums.
//!
//! Invariants, by the names that a finding bears:
//! - **NeverWrongData**: a sector says what some write to it put there, or zero, never another
//!   sector's content, a torn sector or what the device held before.
//! - **BlockLinearizable**: reads and writes of a block have one order, which agrees with time.
//! - **AckedSurvivesCrash**: after a kill, what was acknowledged is there.
//! - **FlushedDurable**: after a power cut, what was flushed is there, and what was overwritten
//!   before is not.
//! - **FirstWriteWhole**: an unflushed first write of a block survives wholly or not at all.
//! - **SnapshotPoint**: a snapshot is the content of one moment within its command.
//! - **LayerList**: replicas and snapshots are those that were made and not removed.
//! - **StatusTells**: what a replica surely has is allocated, what it surely has not is a hole, and
//!   a hole reads as zeros.

mod block;
mod borne;
mod holes;
mod layer;
mod marks;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::payload::{self, SECTOR, Said};
pub use block::Crash;
use block::{Block, Content, GARBAGE, NEVER, Presence, SECTORS, ZERO};
pub use layer::{Kind, Layer, Stage};
pub(crate) use marks::Told;

/// A counter of things that happened.
pub type Tick = u64;
/// The identity of a replica or a snapshot.
pub type Uuid = [u8; 16];

/// What an oracle found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant that does not hold.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

impl Violation {
    /// A finding.
    #[must_use]
    pub const fn new(invariant: &'static str, text: String) -> Self {
        Self { invariant, text }
    }
}

/// How a write or a zeroing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was acknowledged; with FUA it is durable.
    Done {
        /// It is on the media.
        durable: bool,
    },
    /// It was refused, and changed nothing.
    Nothing,
    /// It failed, and may have taken effect, in part or wholly.
    Unknown,
}

/// A write or a zeroing.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) start: Tick,
    /// When it was acknowledged.
    pub(crate) finish: Tick,
    /// From when on it cannot take effect any more, if it did not.
    pub(crate) over: Tick,
    pub(crate) zero: bool,
    pub(crate) durable: bool,
    /// It took no effect, as who refused it said.
    pub(crate) void: bool,
}

impl Op {
    const fn content(&self, number: u32) -> Content {
        if self.zero { ZERO } else { number }
    }

    /// When it could last take effect.
    fn ended(&self) -> Tick {
        self.finish.min(self.over)
    }
}

/// The specification, and what is known of one pool.
#[derive(Clone, Debug)]
pub struct Oracle {
    now: Tick,
    /// By number; the first is nobody's, because 0 is zeros.
    ops: Vec<Op>,
    layers: BTreeMap<Uuid, Layer>,
    crashes: Vec<Crash>,
    /// Blocks that zeros were written over: a layer may own them although they read as nothing, and
    /// a merge may hand them on.
    zeroed: BTreeSet<u64>,
}

impl Default for Oracle {
    fn default() -> Self {
        let nobody = Op { start: 0, finish: 0, over: 0, zero: true, durable: true, void: true };
        Self {
            now: 1,
            ops: vec![nobody],
            layers: BTreeMap::new(),
            crashes: Vec::new(),
            zeroed: BTreeSet::new(),
        }
    }
}

impl Oracle {
    /// The time, which passes by this.
    pub const fn tick(&mut self) -> Tick {
        self.now += 1;
        self.now
    }

    /// Replicas and snapshots, those that went away included.
    #[must_use]
    pub const fn layers(&self) -> &BTreeMap<Uuid, Layer> {
        &self.layers
    }

    /// A write of its own number, or a zeroing, begins; returns its number.
    pub fn begin_write(&mut self, layer: &Uuid, first: u64, sectors: u64, zero: bool) -> u32 {
        let start = self.tick();
        let number = u32::try_from(self.ops.len()).expect("few writes");
        let op = Op { start, finish: NEVER, over: NEVER, zero, durable: false, void: false };
        self.ops.push(op);
        let above = self.layers[layer].is_above();
        for (block, mask) in blocks_of(first, sectors) {
            // Zeros over a part of a block are written, wherever it is.
            if zero && (above || mask != 0xff) {
                self.zeroed.insert(block);
            }
            let fresh = || self.untouched(layer, block);
            let known = self.layers[layer].blocks.get(&block).cloned();
            let mut entry = known.unwrap_or_else(|| Rc::new(fresh()));
            Rc::make_mut(&mut entry).touch(number, mask);
            self.layer_mut(layer).blocks.insert(block, entry);
        }
        self.layer_mut(layer).open.push(number);
        number
    }

    /// A write or zeroing ended.
    pub fn end_write(&mut self, number: u32, end: End) {
        let now = self.tick();
        let op = &mut self.ops[number as usize];
        match end {
            End::Done { durable } => {
                op.finish = now;
                op.durable |= durable;
            }
            End::Nothing => {
                op.over = now;
                op.void = true;
            }
            End::Unknown => op.over = now,
        }
    }

    /// A flush that began at `since` was acknowledged.
    pub fn end_flush(&mut self, layer: &Uuid, since: Tick) {
        self.tick();
        let ops = &mut self.ops;
        let layer = self.layers.get_mut(layer).expect("a layer");
        layer.open.retain(|number| {
            let op = &mut ops[*number as usize];
            op.durable |= op.finish < since;
            !op.durable && !op.void
        });
    }

    /// A read that began at `since` ended with these bytes.
    ///
    /// # Errors
    /// Which invariant says that it cannot be so.
    pub fn end_read(
        &mut self,
        layer: &Uuid,
        first: u64,
        bytes: &[u8],
        since: Tick,
    ) -> Result<(), Violation> {
        let now = self.tick();
        let mut at = 0;
        for (block, mask) in blocks_of(first, (bytes.len() / SECTOR) as u64) {
            let len = mask.count_ones() as usize * SECTOR;
            let mut values = [None; SECTORS];
            let covered = (0..SECTORS).filter(|sector| mask & 1 << sector != 0);
            for (sector, piece) in covered.zip(bytes[at..at + len].chunks_exact(SECTOR)) {
                let number = block * SECTORS as u64 + sector as u64;
                values[sector] = Some(self.content(piece, number));
            }
            at += len;
            self.judge(layer, block, values, (since, now))?;
        }
        Ok(())
    }

    /// The pool was stopped in order: what was acknowledged is durable.
    pub fn stopped(&mut self) {
        let now = self.tick();
        for op in &mut self.ops {
            op.durable |= op.finish < now;
        }
        self.layers.values_mut().for_each(|layer| layer.open.clear());
    }

    /// The process died, or the power failed: what is in flight will never be acknowledged.
    pub fn crash(&mut self, crash: Crash) {
        let now = self.tick();
        for op in &mut self.ops {
            if op.finish == NEVER && op.over == NEVER {
                op.over = now;
            }
        }
        self.crashes.push(crash);
        self.seal_unfinished();
    }

    /// Blocks of a layer whose content is not the one it began with, ascending; those that it
    /// shows of the layer it was cloned from included.
    #[must_use]
    pub fn touched(&self, layer: &Uuid) -> Vec<u64> {
        let mut blocks = Vec::new();
        let mut next = Some(*layer);
        while let Some(uuid) = next {
            let layer = &self.layers[&uuid];
            blocks.extend(layer.blocks.keys().copied());
            next = layer.parent;
        }
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// Blocks of a layer whose content is not known for certain.
    #[must_use]
    pub fn uncertain(&self, layer: &Uuid) -> Vec<u64> {
        let blocks = self.layers[layer].blocks.iter();
        blocks.filter(|(_, block)| !block.is_certain()).map(|(number, _)| *number).collect()
    }

    /// Whether a block says this sector's content now, for certain or possibly.
    #[must_use]
    pub fn may_hold(&self, layer: &Uuid, sector: u64, write: u32) -> bool {
        let (block, within) = (sector / SECTORS as u64, (sector % SECTORS as u64) as usize);
        let mut next = Some(*layer);
        while let Some(uuid) = next {
            let layer = &self.layers[&uuid];
            if let Some(block) = layer.blocks.get(&block) {
                let touched = block.touches.iter().any(|t| t.op == write && t.covers(within));
                return block.base[within] == write || touched;
            }
            next = layer.parent;
        }
        false
    }

    /// Whether a replica surely has blocks of its own in a range of sectors.
    #[must_use]
    pub fn owns(&self, layer: &Uuid, first: u64, sectors: u64) -> bool {
        let blocks = &self.layers[layer].blocks;
        blocks_of(first, sectors).all(|(block, _)| {
            blocks.get(&block).is_some_and(|known| known.is_owned(&self.ops, NEVER))
        })
    }

    /// Whether a replica surely had no block of its own here before the one write to it, if there
    /// was any.
    #[must_use]
    pub fn lacks(&self, layer: &Uuid, block: u64) -> bool {
        let layer = &self.layers[layer];
        let alone = layer.parent.is_none() && !layer.was_snapshotted();
        let fresh = |known: &Block| known.presence == Presence::Absent && known.touches.len() < 2;
        alone && layer.blocks.get(&block).is_none_or(|known| fresh(known))
    }

    /// Of how many groups of 64 blocks a replica surely has one of its own, and of how many it
    /// may have one.
    #[must_use]
    pub fn groups(&self, layer: &Uuid) -> (u64, u64) {
        let group = |block: u64| block / 64;
        let count = |groups: Vec<u64>| groups.chunk_by(|a, b| a == b).count() as u64;
        let blocks = self.layers[layer].blocks.iter();
        let owned = blocks.filter(|(_, block)| block.is_owned(&self.ops, NEVER));
        let least = count(owned.map(|(number, _)| group(*number)).collect());
        (least, count(self.touched(layer).into_iter().map(group).collect()))
    }

    fn layer_mut(&mut self, layer: &Uuid) -> &mut Layer {
        self.layers.get_mut(layer).expect("a layer")
    }

    /// What a sector's bytes say, if they belong there.
    fn content(&self, bytes: &[u8], sector: u64) -> Content {
        match payload::said(bytes) {
            Said::Zero => ZERO,
            Said::Written { write, sector: of }
                if of == sector && (write as usize) < self.ops.len() =>
            {
                write
            }
            Said::Written { .. } | Said::Garbage => GARBAGE,
        }
    }

    /// The block of a layer that has none of its own: its parent's content, or zeros.
    fn untouched(&self, layer: &Uuid, block: u64) -> Block {
        let mut next = self.layers[layer].parent;
        while let Some(uuid) = next {
            let parent = &self.layers[&uuid];
            if let Some(known) = parent.blocks.get(&block) {
                assert!(known.is_certain(), "a clone of what was not read");
                return Block::new(known.base, Presence::Absent, self.crashes.len());
            }
            next = parent.parent;
        }
        Block::new([ZERO; SECTORS], Presence::Absent, self.crashes.len())
    }

    fn judge(
        &mut self,
        layer: &Uuid,
        block: u64,
        values: [Option<Content>; SECTORS],
        interval: (Tick, Tick),
    ) -> Result<(), Violation> {
        if values.contains(&Some(GARBAGE)) {
            return Err(self.wrong("NeverWrongData", layer, block, &values));
        }
        // The layer that holds the block: a clone shows its parent's.
        let mut holder = *layer;
        let mut known = loop {
            let here = &self.layers[&holder];
            if let Some(known) = here.blocks.get(&block) {
                break Rc::clone(known);
            }
            match here.parent {
                Some(parent) => holder = parent,
                None => {
                    let zero = values.iter().flatten().all(|value| *value == ZERO);
                    let wrong = || self.wrong("NeverWrongData", layer, block, &values);
                    return if zero { Ok(()) } else { Err(wrong()) };
                }
            }
        };
        let zeroed = self.zeroed.contains(&block);
        let verdict = self.verdict(&holder, &mut known, &values, interval, zeroed);
        match verdict {
            Ok(()) => {
                self.layer_mut(&holder).blocks.insert(block, known);
                Ok(())
            }
            Err(invariant) => Err(self.wrong(invariant, layer, block, &values)),
        }
    }

    fn verdict(
        &mut self,
        holder: &Uuid,
        known: &mut Rc<Block>,
        values: &[Option<Content>; SECTORS],
        interval: (Tick, Tick),
        zeroed: bool,
    ) -> Result<(), &'static str> {
        let whole = values.iter().flatten().count() == SECTORS;
        let all = values.map(Option::unwrap_or_default);
        let named = |value: Content| {
            value == ZERO
                || known.base.contains(&value)
                || known.touches.iter().any(|touch| touch.op == value)
        };
        if !all.iter().all(|value| named(*value)) {
            return Err("NeverWrongData");
        }
        if self.layers[holder].frozen.is_some() {
            return self.thaw(holder, known, values, whole);
        }
        if known.crashes < self.crashes.len() {
            if !whole {
                return Ok(());
            }
            let crash = *self.crashes[known.crashes..].iter().max().expect("a crash");
            let block = Rc::make_mut(known);
            if self.layers[holder].may_hide(block, &self.ops, zeroed) {
                block.presence = Presence::Unknown;
            }
            block.survives(&self.ops, &all, crash, interval.1)?;
            block.settle(&self.ops, all, self.crashes.len());
            return Ok(());
        }
        if known.is_certain() {
            let same = (0..SECTORS).all(|s| values[s].is_none_or(|value| value == known.base[s]));
            if !same {
                return Err("BlockLinearizable");
            }
        }
        let block = Rc::make_mut(known);
        let fits = (0..SECTORS)
            .filter_map(|sector| Some((sector, values[sector]?)))
            .all(|(sector, value)| block.saw(&self.ops, sector, value, interval));
        if !fits || whole && block.is_torn(&self.ops, &all) {
            return Err("BlockLinearizable");
        }
        Ok(())
    }

    fn wrong(
        &self,
        invariant: &'static str,
        layer: &Uuid,
        block: u64,
        values: &[Option<Content>; SECTORS],
    ) -> Violation {
        let says: Vec<String> = values.iter().map(|value| name(*value)).collect();
        let history = self.history(layer, block);
        let text =
            format!("{} block {block} says [{}]; {history}", self.name(layer), says.join(" "));
        Violation::new(invariant, text)
    }

    /// What is known of a block, for people.
    pub(crate) fn history(&self, layer: &Uuid, block: u64) -> String {
        let mut holder = Some(*layer);
        let mut known = None;
        while let Some(uuid) = holder.filter(|_| known.is_none()) {
            known = self.layers[&uuid].blocks.get(&block);
            holder = self.layers[&uuid].parent;
        }
        let Some(known) = known else { return "it was never written".into() };
        let base: Vec<String> = known.base.iter().map(|value| name(Some(*value))).collect();
        let mut text = format!("it was [{}], {:?}", base.join(" "), known.presence);
        for touch in &known.touches {
            text.push_str(&format!(", then {}", self.story_of(touch.op, touch.mask)));
        }
        text
    }

    fn story_of(&self, number: u32, mask: u8) -> String {
        let op = &self.ops[number as usize];
        let what = if op.zero { "zeroed" } else { "written" };
        let how = match (op.void, op.durable, op.finish, op.over) {
            (true, ..) => "refused",
            (_, true, ..) => "flushed",
            (_, _, NEVER, NEVER) => "in flight",
            (_, _, NEVER, _) => "cut off",
            _ => "acknowledged",
        };
        let end = op.ended();
        let end = if end == NEVER { String::new() } else { end.to_string() };
        format!("{what} by #{number} (sectors {mask:08b}, {how}, {}..{end})", op.start)
    }
}

fn name(value: Option<Content>) -> String {
    match value {
        None => "-".into(),
        Some(ZERO) => "0".into(),
        Some(GARBAGE) => "?".into(),
        Some(write) => format!("#{write}"),
    }
}

/// The blocks that a range of sectors touches, and which of their sectors.
fn blocks_of(first: u64, sectors: u64) -> impl Iterator<Item = (u64, u8)> {
    let per_block = SECTORS as u64;
    (first / per_block..(first + sectors).div_ceil(per_block)).map(move |block| {
        let low = first.max(block * per_block) - block * per_block;
        let high = (first + sectors).min((block + 1) * per_block) - block * per_block;
        let mask = (1_u16 << high) - (1_u16 << low);
        (block, u8::try_from(mask).expect("eight sectors"))
    })
}

#[cfg(test)]
mod ideal;
#[cfg(test)]
mod tests;
