//! What replication keeps with a replica: fence, kind, membership record, reservation.

use arrayvec::ArrayVec;
use braid_block::{Instant, Memory};
use zerocopy::IntoBytes;

use super::{Progress, image_of};
use crate::codec::layer_fields;
use crate::layout::Cell;
use crate::map::PageId;
use crate::op::Waiter;
use crate::request::{Bearing, RECORD_MAX};
use crate::{Done, Failure, Handle, Pool};

impl Pool {
    /// What replication keeps with a replica. The record is none until its page was read, which
    /// [`crate::Command::Bear`] with nothing in it sees to.
    #[must_use]
    pub fn bearing(&self, handle: Handle) -> Option<Bearing> {
        let layer = self.store.map.layer_of(handle)?;
        let state = self.state_of(layer)?;
        let record = self.store.map.records.get(&layer).map(|page| page.get().as_slice().into());
        Some(Bearing {
            fence: Some(state.fence),
            member: Some(state.member),
            record,
            reservation: Some(alloc::boxed::Box::new(state.reservation.clone())),
        })
    }

    /// Keeps them, all in one journal block.
    pub(super) fn bear<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        uuid: &[u8; 16],
        bearing: &Bearing,
    ) -> Progress<Done> {
        let (layer, state) = self.replica(uuid)?;
        let mut state = state.clone();
        let record = bearing.record.as_deref();
        if record.is_some_and(|record| record.len() > RECORD_MAX) {
            return Err(Failure::Invalid);
        }
        if self.has_record(mem, now, layer)?.is_none() {
            return Ok(None);
        }
        if record.is_some() && self.placed(mem, now, PageId::Record(layer))?.is_none() {
            return Ok(None);
        }
        let fence = bearing.fence.is_some_and(|fence| fence != state.fence);
        state.fence = bearing.fence.unwrap_or(state.fence);
        state.member = bearing.member.unwrap_or(state.member);
        if let Some(reservation) = &bearing.reservation {
            state.reservation = (**reservation).clone();
        }
        let fields = layer_fields(&state);
        let whole = fence || bearing.member.is_some() || bearing.reservation.is_some();
        let mut group = ArrayVec::<(Cell, &[u8]), 2>::new();
        if whole {
            group.push((image_of(layer), fields.as_bytes()));
        }
        if let Some(record) = record {
            group.push((record_of(layer, record), record));
        }
        if !group.is_empty() {
            self.record_group(&group);
        }
        Ok(Some(Done { handle: self.find(uuid), ..Done::default() }))
    }

    /// Makes sure that a layer's record is in memory, if it has one.
    pub(super) fn has_record<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        layer: u32,
    ) -> Progress<()> {
        let page = PageId::Record(layer);
        let map = &self.store.map;
        if map.records.contains_key(&layer) || map.pair(page).is_none() {
            return Ok(Some(()));
        }
        // What is lost is written anew by whoever has another copy.
        if map.lost.contains_key(&page) {
            return Ok(Some(()));
        }
        self.fetch(mem, now, page, Waiter::Job);
        Ok(None)
    }
}

/// The cell of a record.
pub(super) fn record_of(layer: u32, record: &[u8]) -> Cell {
    Cell::Record { layer, bytes: u16::try_from(record.len()).unwrap_or(0) }
}
