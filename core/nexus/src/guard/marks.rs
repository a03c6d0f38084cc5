//! The marks that the holder asks for.
//!
//! A snapshot that the record does not name is on its way to be deleted, or could not be. Then the
//! marks of what was written before it lie in its layer: the layer above tells less than others may
//! lack. So they are told as well, as in the answer to a fence. One that is deleted meanwhile
//! leaves its marks to the layer above it: that is why the layer that was asked for is looked at
//! last.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Guard;
use super::admit::Kind;
use crate::record::{Record, Uuid};
use crate::wire::{Answer, Command, Refusal};

/// Marks that are being asked for.
#[derive(Debug)]
pub(super) struct Gathering {
    /// What was asked for; none: it is being told, as the last.
    target: Option<Option<Box<Uuid>>>,
    /// Snapshots that the record does not name, newest first: the last one is being told.
    unnamed: Vec<Uuid>,
    /// Marks so far.
    marks: Vec<(u32, u32)>,
}

impl Guard {
    /// Snapshots that this record does not name, newest first.
    pub(super) fn unnamed(&self, record: &Record) -> Vec<Uuid> {
        let known = self.durable.snapshots.iter().rev();
        known.filter(|uuid| record.snapshot(uuid).is_none()).copied().collect()
    }

    /// The holder asks for the marks of a snapshot, or of the replica as it is.
    pub(super) fn gather(&mut self, association: u32, tag: u64, target: Option<Box<Uuid>>) {
        let copy = self.durable.kept.as_ref().map(|kept| &*kept.copy);
        let mut unnamed = copy.map_or(Vec::new(), |copy| self.unnamed(copy));
        unnamed.retain(|uuid| target.as_deref() != Some(uuid));
        let gathering = Gathering { target: Some(target), unnamed, marks: Vec::new() };
        self.gathering.insert(tag, gathering);
        self.gather_on(association, tag);
    }

    /// Asks the pool for the next part.
    fn gather_on(&mut self, association: u32, tag: u64) {
        let Some(gathering) = self.gathering.get_mut(&tag) else { return };
        let snapshot = match gathering.unnamed.last() {
            Some(uuid) => Some(Box::new(*uuid)),
            None => gathering.target.take().flatten(),
        };
        self.carry(association, tag, Kind::Marks, Command::Marks { snapshot });
    }

    /// The pool told a part, or did not.
    pub(super) fn gathered(&mut self, association: u32, tag: u64, result: Result<Answer, Refusal>) {
        let Some(gathering) = self.gathering.get_mut(&tag) else { return };
        let part = gathering.unnamed.pop();
        // It was deleted meanwhile: what it had to tell is told by those above it.
        let gone = part.is_some_and(|uuid| !self.durable.snapshots.contains(&uuid));
        match result {
            Ok(Answer::Marks(marks)) => gathering.marks.extend(marks),
            Ok(_) => {}
            Err(_) if gone => {}
            Err(refusal) => return self.end_gathering(association, tag, Err(refusal)),
        }
        if gathering.target.is_none() {
            let mut marks = core::mem::take(&mut gathering.marks);
            marks.sort_unstable();
            return self.end_gathering(association, tag, Ok(Answer::Marks(marks.into())));
        }
        // Nothing is begun for one that is not the holder any more.
        if self.fencing.is_some() || self.holder != Some(association) {
            return self.end_gathering(association, tag, Err(Refusal::Gone));
        }
        self.gather_on(association, tag);
    }

    fn end_gathering(&mut self, association: u32, tag: u64, result: Result<Answer, Refusal>) {
        self.gathering.remove(&tag);
        self.answer(association, tag, result);
    }
}
