//! Taking a snapshot: the replica's layer is sealed and becomes the snapshot, and the replica goes
//! on with a new, empty layer above it. Nothing is copied.
//!
//! ```text
//! Draining -> [Staged] -> Sealed -> done
//! ```
//! New writes wait from the first state to the last. `Staged` is for replicas with a membership
//! record only: the new head has a copy of it before it becomes the head, for record and images
//! together do not fit in one journal block.

use alloc::collections::VecDeque;

use braid_block::{Instant, Key, Memory};
use zerocopy::IntoBytes;

use super::bear::record_of;
use super::{IMAGE_CELLS, NAME_MAX, Progress, Stage, image_of};
use crate::codec::layer_fields;
use crate::map::{LayerState, PageId};
use crate::op::Waiter;
use crate::place::Placed;
use crate::request::{Fence, Reservation};
use crate::{Command, Done, Failure, Pool};

/// Where a snapshot stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sealing {
    /// For the writes in work to end.
    Draining { layer: u32 },
    /// The new head has a number and a copy of the record, and is not the head yet.
    Staged { layer: u32, head: u32 },
    /// For this flush.
    Sealed { layer: u32, head: u32, flush: u64 },
}

impl Pool {
    pub(super) fn snapshot<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        command: &Command,
        stage: &mut Stage,
    ) -> Progress<Done> {
        let Command::Snapshot { replica, uuid, name, created } = command else {
            return Err(Failure::Invalid);
        };
        if let Stage::Sealing(sealing) = stage {
            let was = *sealing;
            let progress = self.seal_on(mem, now, sealing, (uuid, name, *created));
            if let (Err(_), Sealing::Draining { layer } | Sealing::Staged { layer, .. }) =
                (&progress, was)
            {
                self.let_writes_go(mem, now, layer, layer);
                // What was made for it is given back.
                self.reclaim_wanted();
            }
            return progress;
        }
        if name.len() > NAME_MAX {
            return Err(Failure::Invalid);
        }
        if let Some(layer) = self.served(uuid) {
            let same = self.state_of(layer).is_some_and(|state| {
                state.sealed && state.source == *replica && state.name == *name
            });
            return self.repeated(layer, same);
        }
        let (layer, _) = self.replica(replica)?;
        if let Some(held) = self.store.map.layers.get_mut(&layer) {
            held.held = true;
        }
        *stage = Stage::Sealing(Sealing::Draining { layer });
        self.snapshot(mem, now, command, stage)
    }

    fn seal_on<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        sealing: &mut Sealing,
        snapshot: (&[u8; 16], &str, u64),
    ) -> Progress<Done> {
        match *sealing {
            Sealing::Draining { layer } => {
                let writes = self.store.map.layers.get(&layer).map_or(0, |held| held.writes);
                if writes > 0 || self.has_record(mem, now, layer)?.is_none() {
                    return Ok(None);
                }
                let recorded = self.store.map.records.contains_key(&layer);
                let cells = if recorded { IMAGE_CELLS } else { 2 * IMAGE_CELLS };
                let Some(head) = self.place_layer(mem, now, cells)? else { return Ok(None) };
                *sealing = if recorded {
                    self.stage(layer, head);
                    Sealing::Staged { layer, head }
                } else {
                    self.seal(layer, head, snapshot)
                };
            }
            Sealing::Staged { layer, head } => {
                let (old, new) = (PageId::Record(layer), PageId::Record(head));
                if self.placed(mem, now, new)?.is_none()
                    || self.has_record(mem, now, layer)?.is_none()
                {
                    return Ok(None);
                }
                let record = self.store.map.records.get(&layer).map(|page| page.get().clone());
                let record = record.unwrap_or_default();
                self.record_group(&[(record_of(head, &record), &record)]);
                // From here on the old one is not needed; what follows shares its block.
                self.journal.keep_together(1 + 2 * IMAGE_CELLS);
                if self.unplace_page(mem, now, old, Waiter::Job) != Placed::Done {
                    return Ok(None);
                }
                *sealing = self.seal(layer, head, snapshot);
            }
            Sealing::Sealed { flush, .. } => {
                if self.sync.done() < flush {
                    return Ok(None);
                }
                return Ok(Some(Done { handle: self.find(snapshot.0), ..Done::default() }));
            }
        }
        self.seal_on(mem, now, sealing, snapshot)
    }

    /// A snapshot is durable: writes go on.
    pub(super) fn end_sealing<M: Memory>(&mut self, mem: &mut M, now: Instant, stage: &Stage) {
        if let Stage::Sealing(Sealing::Sealed { layer, head, .. }) = *stage {
            self.let_writes_go(mem, now, layer, head);
        }
    }

    /// A layer that a snapshot made and that is nobody's yet.
    pub(crate) fn is_staged(&self, layer: u32) -> bool {
        let stages = self.commands.running.iter().flatten().map(|running| &running.stage);
        let staged = |stage: &Stage| match stage {
            Stage::Sealing(Sealing::Staged { head, .. }) => *head == layer,
            _ => false,
        };
        stages.into_iter().any(staged)
    }

    /// Makes the new head, as something that went away already: a crash leaves nothing of it.
    fn stage(&mut self, layer: u32, head: u32) {
        let Some(mut state) = self.state_of(layer).cloned() else { return };
        state.clusters = 0;
        state.parent = None;
        state.deleted = true;
        self.record_group(&[(image_of(head), layer_fields(&state).as_bytes())]);
    }

    /// Seals a layer and puts the new head above it, in one journal block.
    fn seal(
        &mut self,
        layer: u32,
        head: u32,
        (uuid, name, created): (&[u8; 16], &str, u64),
    ) -> Sealing {
        let birth = self.random();
        if let Some(old) = self.state_of(layer).cloned() {
            self.store.space.promised = self.store.space.promised.saturating_sub(old.promised());
            let sealed = LayerState {
                uuid: *uuid,
                source: old.uuid,
                created,
                sealed: true,
                thick: false,
                name: name.into(),
                fence: Fence::default(),
                reservation: Reservation::default(),
                birth,
                ..old.clone()
            };
            let above = LayerState { clusters: 0, parent: Some(layer), thick: false, ..old };
            let (sealed, above) = (layer_fields(&sealed), layer_fields(&above));
            let group = [(image_of(layer), sealed.as_bytes()), (image_of(head), above.as_bytes())];
            self.record_group(&group);
        }
        self.hand_over(layer, head);
        Sealing::Sealed { layer, head, flush: self.ask_sync() }
    }

    /// The replica's number for requests goes to its new head; the snapshot gets one of its own.
    fn hand_over(&mut self, layer: u32, head: u32) {
        let map = &mut self.store.map;
        let handle = map.layers.get_mut(&layer).and_then(|held| held.handle.take());
        if let Some(above) = map.layers.get_mut(&head) {
            above.handle = handle;
            above.held = true;
        }
        if let Some(handle) = handle {
            map.handles.hand_over(handle, head);
        }
        map.serve(layer);
        // The number of a flush that waits for the journal is the replica's, not the snapshot's.
        for key in &self.unnumbered {
            if let Some(op) = self.ops.get_mut(*key).filter(|op| op.layer == layer) {
                op.layer = head;
            }
        }
    }

    /// Lets the writes go on that waited for a snapshot: to the layer that is the head now.
    fn let_writes_go<M: Memory>(&mut self, mem: &mut M, now: Instant, layer: u32, head: u32) {
        let mut waiting = VecDeque::<Key>::new();
        for id in [layer, head] {
            if let Some(held) = self.store.map.layers.get_mut(&id) {
                held.held = false;
                waiting.append(&mut held.waiting);
            }
        }
        for key in waiting {
            self.let_go(mem, now, key, head);
        }
    }
}
