//! The marks of a member's regions: which there must be.
//!
//! Invariants, by the names that a finding bears:
//! - **MarkStays**: a region of a member that was written since the last `Clean` of it is marked,
//!   after any crash that the write survived; and a mark that a pool told is there until a `Clean`
//!   that names it.
//! - **FlushedDurable**: a `Clean` clears the mark of a region only if what was acknowledged in it
//!   is on the media; a power cut shows whether it was.
//!
//! What may be marked besides is up to the pool. A snapshot takes the marks of its replica along:
//! from then on they are looked for in both.

use std::collections::{BTreeMap, BTreeSet};

use super::block::{Crash, NEVER};
use super::{Kind, Oracle, Stage, Tick, Uuid, Violation};

/// Sectors of a region.
const REGION: u64 = 2048;
/// Sectors of a cluster, and of the longest part of a write that a pool carries out at once.
const CLUSTER: u64 = 512;
const PART: u64 = 256;

/// A write to a region that leaves a mark if it takes effect.
#[derive(Clone, Copy, Debug)]
struct Trace {
    op: u32,
    /// It is in this region alone.
    whole: bool,
    /// It is carried out at once, and waits for no flush of its own: while it is not acknowledged,
    /// no `Clean` sees it done.
    single: bool,
}

/// What must be marked of a layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// A pool said that these are marked, durably.
    told: BTreeSet<u32>,
    /// Writes since the last `Clean`, by region.
    traces: BTreeMap<u32, Vec<Trace>>,
    /// As both, in the replica or a snapshot of it.
    sealed: BTreeSet<u32>,
    sealed_traces: BTreeMap<u32, Vec<Trace>>,
    /// A `Clean` was asked for: these may lose their marks, even some time later.
    cleaned: BTreeSet<u32>,
    /// Of `cleaned`, those of a `Clean` that is in flight.
    cleaning: BTreeMap<u64, Vec<(u32, u32)>>,
    /// Of `cleaned`, those that were marked before.
    were: BTreeSet<u32>,
    /// Writes that were acknowledged before a `Clean`, and whether the mark was on the media then:
    /// where the `Clean` cleared it, they are durable.
    excused: BTreeMap<u32, Vec<(u32, bool)>>,
}

/// What a pool said about the marks of a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    /// Marked regions of the replica: first, and number.
    pub(crate) own: &'a [(u32, u32)],
    /// The same of its snapshots; none if they were not asked.
    pub(crate) beneath: Option<&'a [(u32, u32)]>,
    /// When it was asked.
    pub(crate) since: Tick,
    /// Nothing is in flight, and everything was read back after the last crash.
    pub(crate) alone: bool,
    /// The worst that happened since it was last asked with nothing in flight.
    pub(crate) worst: Option<Crash>,
}

impl Oracle {
    /// The next write or zeroing is one of a layer that may be a member.
    pub(crate) fn trace(
        &mut self,
        layer: &Uuid,
        (first, sectors): (u64, u64),
        zero: bool,
        durable: bool,
    ) {
        let op = u32::try_from(self.ops.len()).expect("few writes");
        // Zeros where there is nothing change nothing.
        if self.member(layer) != Some(true) || (zero && !self.owns(layer, first, sectors)) {
            return;
        }
        let last = first + sectors - 1;
        let blocks = (last / 8 + 1 - first / 8) * 8;
        let one = first / CLUSTER == last / CLUSTER && blocks <= PART;
        let single = one && !zero && !durable;
        let (from, to) = (region(first), region(last));
        let trace = Trace { op, whole: from == to, single };
        let marks = &mut self.layer_mut(layer).marks;
        (from..=to).for_each(|at| marks.traces.entry(at).or_default().push(trace));
    }

    /// The kind of a replica changes: what is marked is not known any more.
    pub(super) fn forget_marks(&mut self, layer: &Uuid) {
        self.layer_mut(layer).marks = Marks::default();
    }

    /// A snapshot is being taken, or was: marks are in the replica, or in what was sealed.
    pub(super) fn seal_marks(&mut self, replica: &Uuid) {
        let marks = &mut self.layer_mut(replica).marks;
        let told = std::mem::take(&mut marks.told);
        marks.sealed.extend(told);
        // A mark that goes from here on may have gone along, and no `Clean` have cleared it.
        marks.excused.clear();
        marks.were.clear();
        for (region, mut traces) in std::mem::take(&mut marks.traces) {
            marks.sealed_traces.entry(region).or_default().append(&mut traces);
        }
    }

    /// A snapshot goes, and its marks with it, or to whoever takes over its blocks.
    pub(super) fn release_marks(&mut self, replica: &Uuid) {
        if let Some(layer) = self.layers.get_mut(replica) {
            layer.marks.sealed.clear();
            layer.marks.sealed_traces.clear();
        }
    }

    /// Snapshots on their way when the world ends may have sealed what was written meanwhile.
    pub(super) fn seal_unfinished(&mut self) {
        let making = |layer: &&super::Layer| layer.stage == Stage::Making;
        let snapshots = self.layers.values().filter(making);
        let snapshots = snapshots.filter(|layer| layer.kind == Kind::Snapshot);
        let replicas: Vec<Uuid> = snapshots.filter_map(|layer| layer.source).collect();
        replicas.iter().for_each(|replica| self.seal_marks(replica));
    }

    /// Marks of a member are to be cleared.
    pub(crate) fn clean(&mut self, replica: &Uuid, tag: u64, regions: &[(u32, u32)]) {
        self.tick();
        let marks = &mut self.layers.get_mut(replica).expect("a replica").marks;
        marks.cleaning.insert(tag, regions.to_vec());
        let told: Vec<u32> =
            marks.told.iter().copied().filter(|region| covers(regions, *region)).collect();
        marks.were.extend(&told);
        let traces = marks.traces.iter().filter(|(region, _)| covers(regions, **region));
        for (region, traces) in traces {
            let done = |trace: &&Trace| {
                let op = &self.ops[trace.op as usize];
                trace.whole && !op.zero && op.finish < NEVER
            };
            let done = traces.iter().filter(done).map(|trace| (trace.op, told.contains(region)));
            marks.excused.entry(*region).or_default().extend(done);
        }
        self.excuse(replica, regions);
    }

    /// They were, as far as nothing was written.
    pub(crate) fn cleaned(&mut self, replica: &Uuid, tag: u64) {
        self.tick();
        let regions = self.layer_mut(replica).marks.cleaning.remove(&tag);
        self.excuse(replica, &regions.expect("a command that was asked for"));
    }

    /// What was done in these regions needs no mark any more.
    fn excuse(&mut self, replica: &Uuid, regions: &[(u32, u32)]) {
        let layer = self.layers.get_mut(replica).expect("a replica");
        let (ops, marks) = (&self.ops, &mut layer.marks);
        let here = |region: &u32| covers(regions, *region);
        let stays = |trace: &Trace| {
            let op = &ops[trace.op as usize];
            trace.single && op.finish == NEVER && op.over == NEVER
        };
        for all in [&mut marks.traces, &mut marks.sealed_traces] {
            for (_, traces) in all.iter_mut().filter(|(region, _)| here(region)) {
                traces.retain(stays);
            }
        }
        let end = region(layer.resizing.unwrap_or(layer.bytes).max(512) / 512 - 1);
        marks.cleaned.extend((0..=end).filter(here));
        marks.told.retain(|region| !here(region));
        marks.sealed.retain(|region| !here(region));
    }

    /// A pool says which regions of a replica are marked: where a `Clean` cleared the mark, what
    /// was acknowledged before is on the media.
    /// After a crash that counts only where the mark was on the media before that `Clean`: another
    /// one may be lost with its write.
    pub(crate) fn believe_clean(&mut self, replica: &Uuid, own: &[(u32, u32)], crashed: bool) {
        let layer = self.layers.get_mut(replica).expect("a replica");
        let marks = &mut layer.marks;
        for (region, numbers) in std::mem::take(&mut marks.excused) {
            if covers(own, region) {
                marks.excused.insert(region, numbers);
            } else {
                let sure = numbers.iter().filter(|(_, marked)| !crashed || *marked);
                sure.for_each(|(number, _)| self.ops[*number as usize].durable = true);
            }
        }
    }

    /// A pool says which regions of a replica are marked. Tells whether a `Clean` is seen to have
    /// cleared one.
    pub(crate) fn marked(&mut self, replica: &Uuid, told: Told<'_>) -> Result<bool, Violation> {
        let marks = &self.layers[replica].marks;
        let own = |region: u32| covers(told.own, region);
        let any = |region: u32| own(region) || told.beneath.is_some_and(|all| covers(all, region));
        let cleaning = |region: u32| marks.cleaning.values().any(|all| covers(all, region));
        let needs = |region: u32, traces: &[Trace]| {
            !cleaning(region)
                && traces.iter().any(|trace| self.survived(replica, region, trace.op, told))
        };
        let lost =
            |region: &u32, there: &dyn Fn(u32) -> bool| !cleaning(*region) && !there(*region);
        let mut missing = marks.told.iter().copied().find(|region| lost(region, &own));
        let mut unmarked = marks.traces.iter().filter(|(region, _)| !own(**region));
        missing = missing.or_else(|| {
            unmarked.find(|(region, traces)| needs(**region, traces)).map(|(region, _)| *region)
        });
        if told.beneath.is_some() {
            let mut unmarked = marks.sealed_traces.iter().filter(|(region, _)| !any(**region));
            missing = missing.or_else(|| marks.sealed.iter().copied().find(|r| lost(r, &any)));
            missing = missing.or_else(|| {
                unmarked.find(|(region, traces)| needs(**region, traces)).map(|(region, _)| *region)
            });
        }
        if let Some(region) = missing {
            return Err(self.unmarked(replica, region, told));
        }
        Ok(self.learn_marks(replica, told))
    }

    /// Takes what a pool said for certain.
    fn learn_marks(&mut self, replica: &Uuid, told: Told<'_>) -> bool {
        let layer = self.layers.get_mut(replica).expect("a replica");
        let (ops, marks) = (&self.ops, &mut layer.marks);
        let cleared = marks.were.iter().any(|region| !covers(told.own, *region));
        marks.were.retain(|region| covers(told.own, *region));
        let written = |traces: &Vec<Trace>| {
            traces.iter().any(|trace| ops[trace.op as usize].finish < told.since)
        };
        let anew: Vec<u32> =
            marks.traces.iter().filter(|(_, t)| written(t)).map(|(region, _)| *region).collect();
        if told.alone {
            marks.cleaned.clear();
            marks.cleaning.clear();
            marks.were.clear();
            marks.excused.clear();
            for region in marks.sealed_traces.keys() {
                let beneath = told.beneath.is_some_and(|all| covers(all, *region));
                if beneath || covers(told.own, *region) {
                    marks.sealed.insert(*region);
                }
            }
            marks.sealed_traces.clear();
            marks.traces.clear();
        }
        // One that a `Clean` named may still be told, and go a moment later.
        marks.cleaned.retain(|region| !anew.contains(region));
        let cleaning = |region: u32| marks.cleaning.values().any(|all| covers(all, region));
        let regions = told.own.iter().flat_map(|(first, count)| *first..first + count);
        let sure = regions.filter(|region| !marks.cleaned.contains(region) && !cleaning(*region));
        marks.told.extend(sure);
        cleared
    }

    /// Whether a write took effect in a region for certain.
    fn survived(&self, replica: &Uuid, region: u32, number: u32, told: Told<'_>) -> bool {
        let op = &self.ops[number as usize];
        let before = op.finish < told.since;
        let kept = before && (op.durable || told.worst != Some(Crash::Power));
        let visible = || {
            let blocks = u64::from(region) * (REGION / 8)..u64::from(region + 1) * (REGION / 8);
            let mut here = self.layers[replica].blocks.range(blocks);
            !op.zero && here.any(|(_, block)| block.base.contains(&number))
        };
        !op.void && (kept || told.alone && visible())
    }

    fn unmarked(&self, replica: &Uuid, region: u32, told: Told<'_>) -> Violation {
        let marks = &self.layers[replica].marks;
        let name = self.name(replica);
        let story = |traces: Option<&Vec<Trace>>| -> String {
            let traces = traces.into_iter().flatten();
            traces.map(|trace| format!("; {}", self.story_of(trace.op, 0xff))).collect()
        };
        let text = format!(
            "region {region} of {name} is not marked; told {}, sealed {}, marked are {:?} and \
             beneath {:?} after {:?}{}{}",
            marks.told.contains(&region),
            marks.sealed.contains(&region),
            told.own,
            told.beneath,
            told.worst,
            story(marks.traces.get(&region)),
            story(marks.sealed_traces.get(&region)),
        );
        Violation::new("MarkStays", text)
    }
}

fn region(sector: u64) -> u32 {
    u32::try_from(sector / REGION).expect("small volumes")
}

fn covers(regions: &[(u32, u32)], region: u32) -> bool {
    regions.iter().any(|(first, count)| region >= *first && region - first < *count)
}

#[cfg(test)]
mod tests {
    use super::super::End;
    use super::*;
    use braid_block::BlockSize;
    use braid_pool::Bearing;

    const V: Uuid = [1; 16];
    const S: Uuid = [2; 16];

    fn member() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.create(V, 8 << 20, BlockSize::B4096, false);
        oracle.made(&V, false);
        let bearing = Bearing { member: Some(true), ..Bearing::default() };
        oracle.bear(&V, 1, &bearing);
        oracle.borne(&V, 1, true);
        oracle
    }

    /// A write to the beginning of a region.
    fn begin(oracle: &mut Oracle, region: u64) -> u32 {
        oracle.trace(&V, (region * REGION, 8), false, false);
        oracle.begin_write(&V, region * REGION, 8, false)
    }

    fn write(oracle: &mut Oracle, region: u64) {
        let number = begin(oracle, region);
        oracle.end_write(number, End::Done { durable: false });
    }

    fn clean(oracle: &mut Oracle) {
        oracle.clean(&V, 7, &[(0, u32::MAX)]);
        oracle.cleaned(&V, 7);
    }

    fn may(oracle: &Oracle, own: &[(u32, u32)], beneath: &[(u32, u32)]) -> bool {
        let mut oracle = oracle.clone();
        let since = oracle.tick();
        let told = Told { own, beneath: Some(beneath), since, alone: true, worst: None };
        oracle.marked(&V, told).is_ok()
    }

    fn told(oracle: &mut Oracle, own: &[(u32, u32)], worst: Option<Crash>) -> bool {
        let since = oracle.tick();
        let told = Told { own, beneath: Some(&[]), since, alone: true, worst };
        oracle.marked(&V, told).is_ok()
    }

    #[test]
    fn a_written_region_is_marked_until_it_is_cleaned() {
        let mut oracle = member();
        assert!(may(&oracle, &[], &[]));
        write(&mut oracle, 3);
        assert!(!may(&oracle, &[], &[]) && may(&oracle, &[(2, 2)], &[]));
        clean(&mut oracle);
        assert!(may(&oracle, &[], &[]));
        write(&mut oracle, 3);
        assert!(!may(&oracle, &[], &[]), "it was written again");
    }

    #[test]
    fn a_mark_that_was_told_stays_although_its_write_is_lost() {
        let mut oracle = member();
        write(&mut oracle, 3);
        let mut lost = oracle.clone();
        lost.crash(Crash::Power);
        assert!(told(&mut lost, &[], Some(Crash::Power)), "with the write");
        let mut killed = oracle.clone();
        killed.crash(Crash::Kill);
        assert!(!told(&mut killed, &[], Some(Crash::Kill)), "what was acknowledged is there");
        assert!(told(&mut oracle, &[(3, 1)], None));
        oracle.crash(Crash::Power);
        assert!(!told(&mut oracle, &[], Some(Crash::Power)));
    }

    #[test]
    fn a_clean_does_not_excuse_a_write_that_is_in_flight_all_the_time() {
        let mut oracle = member();
        let number = begin(&mut oracle, 1);
        clean(&mut oracle);
        assert!(may(&oracle, &[], &[]), "nothing is known of it");
        oracle.end_write(number, End::Done { durable: false });
        assert!(!may(&oracle, &[], &[]));
        oracle.clean(&V, 8, &[(1, 1)]);
        assert!(may(&oracle, &[], &[]), "one in flight may have cleared it");
    }

    #[test]
    fn a_list_does_not_tell_what_was_written_after_it_was_asked_for() {
        let mut oracle = member();
        let since = oracle.tick();
        let number = begin(&mut oracle, 2);
        oracle.end_write(number, End::Done { durable: true });
        let told = Told { own: &[], beneath: None, since, alone: false, worst: None };
        assert_eq!(oracle.marked(&V, told), Ok(false));
        let since = oracle.tick();
        assert!(oracle.marked(&V, Told { since, ..told }).is_err());
    }

    #[test]
    fn what_a_clean_cleared_is_on_the_media() {
        let mut oracle = member();
        let number = begin(&mut oracle, 0);
        oracle.end_write(number, End::Done { durable: false });
        let mut unsure = oracle.clone();
        assert!(told(&mut oracle, &[(0, 1)], None), "it is on the media");
        let number = begin(&mut oracle, 0);
        oracle.end_write(number, End::Done { durable: false });
        clean(&mut oracle);
        clean(&mut unsure);
        let after = |mut oracle: Oracle, own: &[(u32, u32)]| {
            oracle.crash(Crash::Power);
            oracle.believe_clean(&V, own, true);
            let since = oracle.tick();
            oracle.end_read(&V, 0, &[0; 4096], since).map_err(|violation| violation.invariant)
        };
        assert_eq!(after(oracle.clone(), &[(0, 1)]), Ok(()), "its mark is there still");
        assert_eq!(after(unsure, &[]), Ok(()), "it may be lost with the write");
        assert_eq!(after(oracle, &[]), Err("FlushedDurable"));
    }

    /// Whether another block of a region may be written, be named by a `Clean`, and be lost when
    /// the power fails, together with its mark.
    fn may_be_lost_although_cleaned(mut oracle: Oracle) -> bool {
        oracle.trace(&V, (8, 8), false, false);
        let number = oracle.begin_write(&V, 8, 8, false);
        oracle.end_write(number, End::Done { durable: false });
        clean(&mut oracle);
        oracle.crash(Crash::Power);
        oracle.believe_clean(&V, &[], true);
        let since = oracle.tick();
        oracle.end_read(&V, 8, &[0; 4096], since).is_ok()
    }

    #[test]
    fn a_mark_that_a_snapshot_took_along_says_nothing_of_what_is_written_after_it() {
        let mut oracle = member();
        write(&mut oracle, 0);
        assert!(told(&mut oracle, &[(0, 1)], None), "it is on the media");
        clean(&mut oracle);
        oracle.snapshot(&V, S);
        oracle.made(&S, false);
        assert!(may_be_lost_although_cleaned(oracle));
    }

    #[test]
    fn a_mark_that_an_earlier_clean_cleared_says_nothing_of_what_is_written_after_that() {
        let mut oracle = member();
        write(&mut oracle, 0);
        assert!(told(&mut oracle, &[(0, 1)], None), "it is on the media");
        clean(&mut oracle);
        assert!(may_be_lost_although_cleaned(oracle));
    }

    #[test]
    fn a_snapshot_takes_marks_along() {
        let mut oracle = member();
        write(&mut oracle, 3);
        oracle.snapshot(&V, S);
        oracle.made(&S, false);
        write(&mut oracle, 4);
        assert!(may(&oracle, &[(4, 1)], &[(3, 1)]) && may(&oracle, &[(3, 2)], &[]));
        assert!(!may(&oracle, &[(4, 1)], &[]) && !may(&oracle, &[(3, 1)], &[(4, 1)]));
        oracle.remove(&S);
        assert!(may(&oracle, &[(4, 1)], &[]));
    }
}
