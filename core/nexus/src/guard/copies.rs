//! What is kept durably: the fence, and the copy of the record.

use alloc::boxed::Box;

use super::{Act, COPIES_MAX, Guard, Kept};
use crate::record::{Record, Standing, Uuid};
use crate::wire::{Answer, NUMBER_MAX, Refusal};

/// What is on its way to the media.
#[derive(Debug)]
pub(super) struct Keeping {
    tag: u64,
    fence: Option<(u64, Uuid)>,
    kept: Box<Kept>,
    /// The copy came by itself, by this association; else with the fence.
    copied: Option<u32>,
}

impl Guard {
    /// A copy of the record arrived, by the holder.
    pub(super) fn copy(&mut self, association: u32, tag: u64, record: Box<Record>) {
        if !self.follows(&record) {
            return self.refuse(association, tag, Refusal::Invalid);
        }
        if self.copies.len() >= COPIES_MAX {
            self.refuse(association, tag, Refusal::Gone);
            return self.end(association);
        }
        self.copies.push_back((association, tag, record));
    }

    /// Whether a record is the durable one, or came after it, under the same owner.
    fn follows(&self, record: &Record) -> bool {
        let Some(Kept { copy, .. }) = &self.durable.kept else { return false };
        let here = record.slot_of(&self.durable.replica);
        let instance = here.and_then(|slot| record.instance(slot));
        (record.volume, record.store) == (copy.volume, copy.store)
            && (record.epoch, record.owner) == self.durable.fence
            && !copy.newer_than(record.epoch, record.version)
            && record.version <= NUMBER_MAX
            && instance.is_none_or(|instance| instance == self.durable.instance)
    }

    /// Keeps the next copy that waits, if nothing else is being kept.
    pub(super) fn copies_on(&mut self) {
        if self.keeping.is_some() || self.fencing.is_some() || self.failed {
            return;
        }
        // One that waited may be older than what was kept meanwhile.
        while let Some((association, tag, record)) = self.copies.pop_front() {
            if self.follows(&record) {
                return self.keep(tag, None, record, Some(association));
            }
            self.refuse(association, tag, Refusal::Invalid);
        }
    }

    /// Makes a record durable, and a fence.
    pub(super) fn keep(
        &mut self,
        tag: u64,
        fence: Option<(u64, Uuid)>,
        copy: Box<Record>,
        copied: Option<u32>,
    ) {
        let complete = self.is_complete_with(&copy);
        let kept = Box::new(Kept { copy, complete });
        self.acts.push_back(Act::Keep { tag, fence, kept: kept.clone() });
        self.keeping = Some(Keeping { tag, fence, kept, copied });
    }

    /// Whether this replica once held everything, as this record has it or one before.
    pub(super) fn is_complete_with(&self, record: &Record) -> bool {
        self.durable.kept.as_ref().is_some_and(|kept| kept.complete)
            || self.names_this_instance(record)
    }

    fn names_this_instance(&self, record: &Record) -> bool {
        let here = record.slot_of(&self.durable.replica).and_then(|slot| record.replica(slot));
        let instance = self.durable.instance;
        here.is_some_and(|here| here.standing == Standing::Member { instance })
    }

    /// The record that is being kept.
    pub(super) fn kept_on_its_way(&self) -> Option<&Kept> {
        self.keeping.as_ref().map(|keeping| &*keeping.kept)
    }

    pub(super) fn on_kept(&mut self, tag: u64, result: Result<(), Refusal>) {
        let Some(keeping) = self.keeping.take_if(|keeping| keeping.tag == tag) else { return };
        if let Some(association) = keeping.copied {
            self.answer(association, tag, result.map(|()| Answer::Done));
        }
        if result == Err(Refusal::NoSpace) {
            // Nothing was kept, and nothing is promised. There may be space another time.
            let fencing = self.fencing.take_if(|fencing| fencing.tag() == tag);
            return fencing.into_iter().for_each(|fencing| {
                self.refuse(fencing.association(), tag, Refusal::NoSpace);
            });
        }
        if result.is_err() {
            // Whether it is durable is not known: nothing can be promised any more.
            return self.fail();
        }
        if let Some(fence) = keeping.fence {
            self.durable.fence = fence;
        }
        self.durable.kept = Some(*keeping.kept);
        self.fence_kept(tag);
    }
}
