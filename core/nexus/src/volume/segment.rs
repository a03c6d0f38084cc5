//! A segment: a range that is made equal on some replicas, under its lock. It is compared first,
//! and only what differs is read from the one that wins and written to the others.
//!
//! Resync makes suspect regions equal on the members, repair writes blocks anew that a member
//! cannot read, a return brings a joiner's regions up to date.
//!
//! Invariants:
//! 1. A lock is given back when every copy sent under it has ended, and nobody to whom one was
//!    sent has failed without being excluded: a winner that dies changes nothing about that.
//! 2. A block's winner is the first in the order of winners whose copy is verified, else the first
//!    that can be read at all; what it has is written to all others that differ, and to itself if
//!    its checksum lags behind.
//! 3. What the winner does not hold is made a hole.
//! 4. Who cannot take a copy has failed, for a copy needs nothing of what was there; so has who
//!    cannot read what it said it could, time and again.

use alloc::vec::Vec;

use braid_block::{Class, Instant, Key, Lease, Memory};

use crate::record::{REPLICAS_MAX, Uuid};
use crate::wire::{
    Answer, BLOCK, Command, Comparison, Content, REGION, Refusal, TRANSFER_MAX, comparison_bytes,
};
use crate::{Note, Plant};

use super::Volume;
use super::call::Purpose;
use super::op::{State, TRIES_MAX};
use super::ranges::Holder;
use super::rebuild::Ended;
use super::state::{bit, slots};
use super::write::regions;

/// Segments in work at once, at most: more would only queue at the replicas.
pub(crate) const SEGMENTS_MAX: u32 = 16;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A suspect region.
    Resync,
    /// Blocks that a member could not read, for this host's command.
    Repair(Key),
    /// A joiner's region, as this snapshot has it, or as it is.
    Rebuild { slot: u8, attempt: u32, snapshot: Option<Uuid> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits for its range.
    Locking,
    /// These have not answered yet.
    Comparing(u8),
    /// The run at this place of the plan is being read.
    Reading(usize),
    /// The run at this place of the plan is being written.
    Writing(usize),
    /// It ends as soon as it may; whether it did what it was for.
    Ending(bool),
}

/// Blocks that have the same winner, and the same others that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    len: u32,
    from: u8,
    to: u8,
    zero: bool,
}

/// A segment in work.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) kind: Kind,
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// The owner that began it; a later one only waits for its buffers.
    epoch: u64,
    /// Who is compared.
    parties: u8,
    /// For a joiner: every member that has it is among them.
    wide: bool,
    /// To whom copies were sent.
    touched: u8,
    stage: Stage,
    /// Commands that have not ended.
    out: u32,
    comparisons: [Option<Lease>; REPLICAS_MAX],
    data: Option<Lease>,
    plan: Vec<Run>,
    copied: u64,
    /// A byte of a block that nobody could read, or not after it was compared.
    unreadable: Option<u64>,
}

/// A copy that is out, or about to be: what a segment is doing to make others like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copying {
    /// A replica that returns gets it; else a suspect region is made equal.
    pub rebuild: bool,
    /// The snapshot that is rebuilt; none: the volume itself.
    pub snapshot: Option<Uuid>,
    /// First byte of the blocks at hand.
    pub first: u64,
    /// The slot that they come from.
    pub from: u8,
    /// Slots that they go to.
    pub to: u8,
    /// They were read, and are on their way to the others.
    pub written: bool,
}

/// What waits to be made equal.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Regions that somebody waits to read.
    regions: super::regions::Regions,
    /// Blocks that a host's command could not read.
    repairs: Vec<(u64, u64, Key)>,
    /// There was no buffer: looked at again then.
    again: Option<Instant>,
    /// There was none for what a host waits for.
    starved: bool,
}

impl Wanted {
    /// When to look again.
    pub(crate) const fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Whether what hosts wait for waits for memory: more of their buffers would hold it up.
    pub(crate) const fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether a host's command waits for a segment.
    fn is_urgent(&self, kind: Kind, first: u64) -> bool {
        match kind {
            Kind::Resync => self.regions.contains((first / REGION) as u32),
            Kind::Repair(_) => true,
            Kind::Rebuild { .. } => false,
        }
    }
}

impl Volume {
    /// What is being copied just now: for who wants to meet a copy on its way.
    pub fn copies(&self) -> impl Iterator<Item = Copying> {
        self.segments.iter().filter_map(|(_, segment)| {
            let (at, written) = match segment.stage {
                Stage::Reading(at) => (at, false),
                Stage::Writing(at) => (at, true),
                Stage::Locking | Stage::Comparing(_) | Stage::Ending(_) => return None,
            };
            let Run { first, from, to, .. } = *segment.plan.get(at)?;
            let (rebuild, snapshot) = match segment.kind {
                Kind::Rebuild { snapshot, .. } => (true, snapshot),
                Kind::Resync | Kind::Repair(_) => (false, None),
            };
            Some(Copying { rebuild, snapshot, first, from, to, written })
        })
    }

    /// Somebody waits to read these regions.
    pub(crate) fn want_regions(&mut self, first: u32, end: u32) {
        if let Some(nexus) = self.nexus.as_mut() {
            nexus.wanted.regions.insert(first, end);
        }
    }

    /// A command met a block that a member cannot read.
    pub(crate) fn want_repair(&mut self, first: u64, end: u64, key: Key) {
        if let Some(nexus) = self.nexus.as_mut() {
            nexus.wanted.repairs.push((first, end, key));
        }
    }

    /// Begins segments, as many as there may be at once.
    pub(crate) fn segments_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let keys: arrayvec::ArrayVec<Key, { SEGMENTS_MAX as usize + 1 }> =
            self.segments.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end_segment(mem, now, key);
        }
        self.pace_anew();
        let Some(nexus) = self.nexus.as_mut() else { return };
        if nexus.phase != super::state::Phase::Serving {
            return;
        }
        nexus.wanted.again = nexus.wanted.again.filter(|again| *again > now);
        let alone = nexus.lessors().count_ones() == 1;
        let copies = |segment: &Segment| !matches!(segment.kind, Kind::Rebuild { .. });
        let copying = self.segments.iter().any(|(_, segment)| copies(segment));
        if alone && !nexus.suspect.is_empty() && !copying {
            nexus.suspect = super::regions::Regions::default();
            self.stirred = true;
        }
        nexus.wanted.starved = false;
        while !self.segments.is_full() {
            let Some((kind, first, end)) = self.next_segment() else { break };
            let paced = matches!(kind, Kind::Rebuild { .. });
            if paced && !self.paced(now) {
                break;
            }
            if !self.begin_segment(mem, now, kind, first, end) {
                let again = now + self.config.timing.retry;
                let nexus = self.nexus.as_mut().expect("it is serving");
                nexus.wanted.again = Some(again);
                nexus.wanted.starved = nexus.wanted.is_urgent(kind, first);
                if nexus.wanted.starved {
                    self.make_room();
                }
                break;
            }
            if paced {
                self.owe(end - first);
            }
        }
    }

    /// What is to be done next: what hosts wait for comes first.
    fn next_segment(&mut self) -> Option<(Kind, u64, u64)> {
        let (segments, ops) = (&self.segments, &self.ops);
        let nexus = self.nexus.as_mut()?;
        let in_work = |region: u32| {
            segments.iter().any(|(_, segment)| {
                let is_resync = segment.kind == Kind::Resync && segment.epoch == nexus.epoch;
                is_resync && segment.first / REGION == u64::from(region)
            })
        };
        // A write that is mended holds its lock: what waits for that must not be in its way, and
        // a snapshot that drains waits for it, too.
        let mends = |key| ops.get(key).is_some_and(|op| op.state == State::Mending);
        let repairs = &nexus.wanted.repairs;
        if let Some((first, end, key)) = repairs.iter().find(|(_, _, key)| mends(*key)) {
            return Some((Kind::Repair(*key), *first, *end));
        }
        if nexus.barrier || segments.len() + 1 >= segments.capacity() {
            return None;
        }
        if let Some((first, end, key)) = repairs.first() {
            return Some((Kind::Repair(*key), *first, *end));
        }
        if nexus.good().count_ones() > 1 {
            let wanted = nexus.wanted.regions.runs().flat_map(|(first, end)| first..end);
            let suspects = nexus.suspect.runs().flat_map(|(first, end)| first..end);
            let wanted = wanted.filter(|region| nexus.suspect.contains(*region));
            if let Some(region) = wanted.chain(suspects).find(|region| !in_work(*region)) {
                let (first, end) = nexus.region_of(&Kind::Resync, region);
                return Some((Kind::Resync, first, end));
            }
        }
        let (kind, region) = nexus.next_rebuild()?;
        let (first, end) = nexus.region_of(&kind, region);
        Some((kind, first, end))
    }

    /// Begins a segment; tells whether there were buffers for it.
    fn begin_segment<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        kind: Kind,
        first: u64,
        end: u64,
    ) -> bool {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let parties = match kind {
            Kind::Resync | Kind::Repair(_) => nexus.good(),
            Kind::Rebuild { slot, .. } => nexus.rebuild_sources() | bit(slot),
        };
        let wide = nexus.joiner.as_ref().is_some_and(|joiner| joiner.wide);
        let mut comparisons = [const { None }; REPLICAS_MAX];
        // In a small arena that hosts keep busy there may never be a large one.
        let mut data = mem.alloc(Class::Large).or_else(|| mem.alloc(Class::Medium));
        let mut enough = data.is_some();
        for slot in slots(parties) {
            comparisons[usize::from(slot)] = mem.alloc(Class::Medium);
            enough &= comparisons[usize::from(slot)].is_some();
        }
        if !enough {
            comparisons.into_iter().flatten().chain(data.take()).for_each(|lease| mem.free(lease));
            return false;
        }
        match kind {
            Kind::Repair(key) => nexus.wanted.repairs.retain(|(_, _, other)| *other != key),
            Kind::Resync => {}
            Kind::Rebuild { .. } => nexus.rebuild_begun(regions(first, end).0),
        }
        let segment = Segment {
            kind,
            first,
            end,
            epoch: nexus.epoch,
            parties,
            wide,
            touched: 0,
            stage: Stage::Locking,
            out: 0,
            comparisons,
            data,
            plan: Vec::new(),
            copied: 0,
            unreadable: None,
        };
        let Ok(key) = self.segments.insert(segment) else { unreachable!("it is not full") };
        let free = match kind {
            // It does not change.
            Kind::Rebuild { snapshot, .. } => snapshot.is_some(),
            // The write holds the lock.
            Kind::Repair(key) => self.ops.get(key).is_some_and(|op| op.state == State::Mending),
            Kind::Resync => false,
        };
        let nexus = self.nexus.as_mut().expect("it is serving");
        if free || nexus.ranges.lock(first, end, Holder::Segment(key)) {
            self.compare(now, key);
        }
        true
    }

    /// Asks all parties what they have.
    pub(crate) fn compare(&mut self, now: Instant, key: Key) {
        let Some(segment) = self.segments.get_mut(key) else { return };
        let Some(nexus) = self.nexus.as_ref().filter(|nexus| nexus.epoch == segment.epoch) else {
            return;
        };
        let able = nexus.able_for(&segment.kind);
        if segment.stage != Stage::Locking {
            return;
        }
        if segment.parties & !able != 0 {
            segment.stage = Stage::Ending(false);
            self.stepped = true;
            return;
        }
        let (parties, kind, first) = (segment.parties, segment.kind, segment.first);
        let len = (segment.end - first) as u32;
        segment.stage = Stage::Comparing(parties);
        segment.out = parties.count_ones();
        for slot in slots(parties) {
            let segment = self.segments.get(key).expect("it is in work");
            let lease = segment.comparisons[usize::from(slot)].as_ref();
            let span = lease.map(|lease| lease.span(0, comparison_bytes(len)));
            let snapshot = match kind {
                Kind::Rebuild { slot: joiner, snapshot, .. } if joiner != slot => snapshot,
                _ => None,
            };
            let snapshot = snapshot.map(Into::into);
            let command = Command::Compare { snapshot, offset: first, len };
            self.send(now, slot, Purpose::Segment(key), command, span);
        }
    }

    pub(crate) fn on_segment_done<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        key: Key,
        slot: u8,
        result: &Result<Answer, Refusal>,
    ) {
        let Some(segment) = self.segments.get_mut(key) else { return };
        segment.out -= 1;
        let epoch = self.nexus.as_ref().map_or(0, |nexus| nexus.epoch);
        if segment.epoch != epoch {
            return self.end_segment(mem, now, key);
        }
        if let Err(refusal) = result {
            let mut broken = false;
            if let Refusal::Media(at) = refusal {
                broken = segment.was_copied_to(slot);
                if !broken {
                    segment.unreadable.get_or_insert(*at);
                }
                let nexus = self.nexus.as_mut().expect("it is its owner");
                let unread = &mut nexus.links[usize::from(slot)].unread;
                *unread += u8::from(segment.kind == Kind::Resync);
                broken |= *unread >= TRIES_MAX;
            }
            segment.stage = Stage::Ending(false);
            // A full one cannot be made equal; one that cannot be read after it was compared is
            // compared again.
            // A snapshot may be deleted while it is read.
            let deleted = *refusal == Refusal::Invalid && segment.reads_snapshot_of(slot);
            let fatal = !deleted
                && !matches!(
                    refusal,
                    Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. } | Refusal::Media(_)
                );
            if fatal || broken {
                self.fail(now, slot, *refusal);
            }
            return self.end_segment(mem, now, key);
        }
        match segment.stage {
            Stage::Comparing(waiting) => {
                segment.stage = Stage::Comparing(waiting & !bit(slot));
                if segment.out == 0 {
                    self.plan(mem, now, key);
                }
            }
            Stage::Reading(at) => self.write_run(now, key, at),
            Stage::Writing(at) if segment.out == 0 => self.run(now, key, at + 1),
            _ => {}
        }
        self.end_segment(mem, now, key);
    }

    /// Decides what is copied.
    fn plan<M: Memory>(&mut self, mem: &M, now: Instant, key: Key) {
        let plant = self.config.plant;
        let Some(segment) = self.segments.get_mut(key) else { return };
        let nexus = self.nexus.as_ref().expect("it is its owner");
        let len = (segment.end - segment.first) as u32;
        let told = |slot: u8| {
            let lease = segment.comparisons[usize::from(slot)].as_ref()?;
            Comparison::of(mem.bytes(lease), len)
        };
        let told: [Option<Comparison<'_>>; REPLICAS_MAX] =
            core::array::from_fn(|slot| told(u8::try_from(slot).unwrap_or(0)));
        let content = |slot: u8, at: usize| told[usize::from(slot)].and_then(|c| c.block(at));
        let (joiner, may_win) = match segment.kind {
            Kind::Rebuild { slot, .. } => (bit(slot), segment.parties & !bit(slot)),
            _ => (0, segment.parties),
        };
        let mut plan: Vec<Run> = Vec::new();
        let most = segment.data.as_ref().map_or(TRANSFER_MAX, |data| mem.capacity(data));
        for at in 0..(u64::from(len) / BLOCK) as usize {
            let order = nexus.winners.iter().copied().filter(|slot| may_win & bit(*slot) != 0);
            let sound = |slot: &u8| {
                matches!(content(*slot, at), Some(Content::Zero | Content::Verified(_)))
            };
            let lags = |slot: &u8| matches!(content(*slot, at), Some(Content::Unverified(_)));
            let Some(from) = order.clone().find(sound).or_else(|| order.clone().find(lags)) else {
                segment.unreadable.get_or_insert(segment.first + at as u64 * BLOCK);
                continue;
            };
            let wins = content(from, at);
            let differs = |slot: &u8| content(*slot, at) != wins || lags(slot);
            let parties = if joiner == 0 { segment.parties } else { joiner };
            let to = slots(parties).filter(differs).fold(0, |to, slot| to | bit(slot));
            let zero = wins == Some(Content::Zero);
            let skips = plant == Some(Plant::SkipHoles) && zero && joiner != 0;
            if to != 0 && !skips {
                let first = segment.first + at as u64 * BLOCK;
                add(&mut plan, Run { first, len: BLOCK as u32, from, to, zero }, most);
            }
        }
        segment.plan = plan;
        if !segment.plan.is_empty() && segment.kind_writes_head() {
            let (from, to) = regions(segment.first, segment.end);
            let nexus = self.nexus.as_mut().expect("it is its owner");
            nexus.written.begin(from, to, nexus.flushes);
        }
        self.run(now, key, 0);
    }

    /// Begins the run at this place of the plan.
    fn run(&mut self, now: Instant, key: Key, at: usize) {
        let Some(segment) = self.segments.get_mut(key) else { return };
        let able = self.nexus.as_ref().map_or(0, |nexus| nexus.able_for(&segment.kind));
        let Some(run) = segment.plan.get(at).copied() else {
            segment.stage = Stage::Ending(true);
            return;
        };
        if (run.to | bit(run.from)) & !able != 0 {
            segment.stage = Stage::Ending(false);
            return;
        }
        if run.zero {
            return self.write_run(now, key, at);
        }
        segment.stage = Stage::Reading(at);
        segment.out += 1;
        let span = segment.data.as_ref().map(|lease| lease.span(0, run.len));
        let (offset, len) = (run.first, run.len);
        let command = match segment.kind {
            Kind::Rebuild { snapshot: Some(snapshot), .. } => {
                Command::ReadSnapshot { snapshot: snapshot.into(), offset, len }
            }
            _ => Command::Read { offset, len },
        };
        self.send(now, run.from, Purpose::Segment(key), command, span);
    }

    fn write_run(&mut self, now: Instant, key: Key, at: usize) {
        let Some(segment) = self.segments.get_mut(key) else { return };
        let able = self.nexus.as_ref().map_or(0, |nexus| nexus.able_for(&segment.kind));
        let run = segment.plan[at];
        if run.to & !able != 0 {
            segment.stage = Stage::Ending(false);
            return;
        }
        segment.stage = Stage::Writing(at);
        segment.out += run.to.count_ones();
        segment.touched |= run.to;
        segment.copied += u64::from(run.len) * u64::from(run.to.count_ones());
        let span = segment.data.as_ref().map(|lease| lease.span(0, run.len));
        let offset = run.first;
        for slot in slots(run.to) {
            let (command, span) = if run.zero {
                (Command::Zero { offset, len: u64::from(run.len), durable: false }, None)
            } else {
                (Command::Write { offset, len: run.len, durable: false }, span)
            };
            self.send(now, slot, Purpose::Segment(key), command, span);
        }
    }

    /// Ends a segment, if it may.
    fn end_segment<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(segment) = self.segments.get(key) else { return };
        let current = self.nexus.as_ref().filter(|nexus| nexus.epoch == segment.epoch);
        let failing = current.map_or(0, |nexus| nexus.failing);
        let released = self.planted(Plant::CopiesReleased) && current.is_some();
        let Stage::Ending(done) = segment.stage else {
            if released && segment.comes_from(!current.map_or(0, |nexus| nexus.able())) {
                self.unlock_segment(key);
                return;
            }
            if current.is_none() && segment.out == 0 {
                self.free_segment(mem, key);
            }
            return;
        };
        let holds = segment.out != 0 || segment.touched & failing != 0;
        let (kind, first, end) = (segment.kind, segment.first, segment.end);
        let (copied, unreadable, wide) = (segment.copied, segment.unreadable, segment.wide);
        let marks = !segment.plan.is_empty() && segment.kind_writes_head();
        let current = current.is_some();
        if released && !done {
            self.unlock_segment(key);
        }
        if holds {
            return;
        }
        if !current {
            return self.free_segment(mem, key);
        }
        if marks {
            let (from, to) = regions(first, end);
            let nexus = self.nexus.as_mut().expect("it is its owner");
            nexus.written.settle(from, to, nexus.flushes);
        }
        self.unlock_segment(key);
        self.free_segment(mem, key);
        let region = regions(first, end).0;
        match kind {
            Kind::Resync if done => {
                let nexus = self.nexus.as_mut().expect("it is its owner");
                nexus.suspect.remove(region, region + 1);
                nexus.wanted.regions.remove(region, region + 1);
                nexus.links.iter_mut().for_each(|link| link.unread = 0);
                self.stirred = true;
                self.note(Note::Resynced { region, copied });
            }
            Kind::Resync => self.stirred = true,
            Kind::Repair(op) => {
                let blocks = u32::try_from(copied / BLOCK).unwrap_or(u32::MAX);
                if blocks > 0 && done {
                    self.note(Note::Repaired { blocks });
                }
                self.repaired(now, op, end, done);
            }
            Kind::Rebuild { attempt, snapshot, .. } => {
                let ended = match unreadable {
                    Some(offset) => Ended::Unreadable { offset, wide },
                    None if done => Ended::Equal,
                    None => Ended::Undone,
                };
                self.rebuild_ended(now, attempt, snapshot, region, (ended, copied));
            }
        }
    }

    fn unlock_segment(&mut self, key: Key) {
        if let Some(nexus) = self.nexus.as_mut() {
            nexus.ranges.unlock(Holder::Segment(key), &mut self.ready);
            self.stepped |= nexus.watches();
            self.stirred = true;
        }
    }

    fn free_segment<M: Memory>(&mut self, mem: &mut M, key: Key) {
        let Some(segment) = self.segments.remove(key) else { return };
        let leases = segment.comparisons.into_iter().flatten().chain(segment.data);
        leases.for_each(|lease| mem.free(lease));
    }
}

impl Segment {
    /// Whether what it asks this slot for is a snapshot.
    const fn reads_snapshot_of(&self, from: u8) -> bool {
        matches!(self.kind, Kind::Rebuild { slot, snapshot: Some(_), .. } if slot != from)
    }

    /// Whether this slot answers to a copy. A joiner does, whatever it answers: it is never read,
    /// and a comparison tells of bad blocks without failing.
    fn was_copied_to(&self, from: u8) -> bool {
        let joins = matches!(self.kind, Kind::Rebuild { slot, .. } if slot == from);
        let reads = matches!(self.stage, Stage::Reading(_));
        joins || (self.touched & bit(from) != 0 && !reads)
    }

    /// The slot whose blocks it is copying to other members.
    pub(crate) fn copied_from(&self) -> u8 {
        match (self.kind, self.stage) {
            (Kind::Resync, Stage::Reading(at) | Stage::Writing(at)) => bit(self.plan[at].from),
            _ => 0,
        }
    }

    /// Whether the blocks that are on their way were read from one of these slots.
    fn comes_from(&self, slots: u8) -> bool {
        let Stage::Writing(at) = self.stage else { return false };
        self.plan.get(at).is_some_and(|run| bit(run.from) & slots != 0)
    }

    /// Whether its copies change what the members' marks tell of.
    const fn kind_writes_head(&self) -> bool {
        !matches!(self.kind, Kind::Rebuild { snapshot: Some(_), .. })
    }
}

/// Adds a block to a plan, to the run before it if they are alike; `most` bytes go at once.
fn add(plan: &mut Vec<Run>, block: Run, most: u32) {
    if let Some(last) = plan.last_mut() {
        let adjoins = last.first + u64::from(last.len) == block.first;
        let alike = (last.from, last.to, last.zero) == (block.from, block.to, block.zero);
        if adjoins && alike && (block.zero || last.len < most) && last.len < TRANSFER_MAX {
            last.len += block.len;
            return;
        }
    }
    plan.push(block);
}
