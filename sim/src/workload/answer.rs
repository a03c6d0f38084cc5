//! What a pool says about its replicas beside their content, held against what was asked of it.

use std::collections::BTreeMap;

use braid_pool::{Allocation, LayerInfo};

use super::{Pending, Session, Verdict};
use crate::machine::Machine;
use crate::oracle::{Crash, Kind, Stage, Tick, Told, Uuid, Violation};
use crate::payload::SECTOR;

/// Bytes of an entry.
const ENTRY: usize = size_of::<Allocation>();

/// Marked regions of layers, first and number each, and when they were asked for.
pub(super) type Marked = BTreeMap<Uuid, (Tick, Vec<(u32, u32)>)>;

impl<M: Machine> Session<M> {
    /// Entries of a status: they follow each other to the end, or as far as there was room, and
    /// tell what the oracle can believe.
    pub(super) fn status_told(
        &mut self,
        layer: Uuid,
        (first, sectors): (u64, u64),
        since: Tick,
        entries: &[u8],
        full: bool,
    ) -> Verdict {
        let (mut at, end) = (first, first + sectors);
        let mut before = None;
        for entry in entries.chunks_exact(ENTRY) {
            let (offset, len) = entry.split_at(ENTRY / 2);
            let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
            let (offset, len) = (word(offset), word(len));
            let allocated = len & Allocation::ALLOCATED != 0;
            let len = (len & !Allocation::ALLOCATED) / SECTOR as u64;
            let follows = offset == at * SECTOR as u64 && len > 0 && at + len <= end;
            if !follows || before == Some(allocated) {
                let name = self.oracle.name(&layer);
                let text = format!("{name}: an entry at {offset} of {len} sectors follows {at}");
                return Err(Violation::new("StatusTells", text));
            }
            self.oracle.end_status(&layer, (at, len), allocated, since)?;
            (at, before) = (at + len, Some(allocated));
        }
        if at < end && !full {
            let text = format!("{} is told to sector {at} of {end}", self.oracle.name(&layer));
            return Err(Violation::new("StatusTells", text));
        }
        self.seen.mark_if(entries.len() > 2 * ENTRY, "holes told");
        Ok(())
    }

    /// What a replica bears, right after a command said something about it.
    pub(super) fn compare_burden(&mut self, layer: Uuid, alone: bool) -> Verdict {
        match self.world.machine.bearing(self.handles[&layer]) {
            Some(found) => self.oracle.bears(&layer, &found, alone),
            None => Ok(()),
        }
    }

    /// The number of the last flush of a replica, as the list has it.
    pub(super) fn compare_number(&mut self, layer: Uuid) -> Verdict {
        let list = self.world.machine.layers();
        let info = list.iter().find(|info| info.uuid == layer);
        match info {
            Some(info) => self.oracle.last_flush(&layer, info.flush_number, false),
            None => Ok(()),
        }
    }

    /// A list of marks came.
    pub(super) fn marks_told(&mut self, layer: Uuid, since: Tick, tag: u64) -> Verdict {
        let Some(found) = self.world.machine.take_marks(tag) else {
            let text = format!("the marks of {} are not there", self.oracle.name(&layer));
            return Err(Violation::new("MarkStays", text));
        };
        if let Some(marked) = &mut self.marked {
            marked.insert(layer, (since, found));
            return Ok(());
        }
        // A snapshot on its way takes marks along, at a moment that nobody knows.
        let seals = self
            .oracle
            .layers()
            .values()
            .any(|other| other.stage == Stage::Making && other.source == Some(layer));
        if seals || self.oracle.member(&layer) != Some(true) {
            return Ok(());
        }
        self.oracle.believe_clean(&layer, &found, false);
        let told = Told { own: &found, beneath: None, since, alone: false, worst: None };
        let cleared = self.oracle.marked(&layer, told)?;
        self.seen.mark_if(cleared, "mark cleared");
        Ok(())
    }

    /// After an open: what replicas bear, and their marks.
    pub(super) fn compare_burdens(
        &mut self,
        list: &[LayerInfo],
        worst: Option<Crash>,
    ) -> Verdict<Marked> {
        let replicas = list.iter().filter(|info| !info.snapshot).map(|info| info.uuid);
        let laden: Vec<Uuid> = replicas.filter(|uuid| self.oracle.is_laden(uuid)).collect();
        self.marked = Some(Marked::new());
        for layer in &laden {
            // The record's page is read by this.
            self.look(*layer);
            self.marks(*layer);
        }
        let of_them = |info: &&LayerInfo| info.source.is_some_and(|of| laden.contains(&of));
        for info in list.iter().filter(|info| info.snapshot).filter(of_them) {
            self.marks(info.uuid);
        }
        self.drain()?;
        let marked = self.marked.take().unwrap_or_default();
        for layer in laden {
            self.compare_burden(layer, true)?;
            if let Some((_, own)) = marked.get(&layer) {
                self.oracle.believe_clean(&layer, own, worst.is_some());
            }
        }
        Ok(marked)
    }

    /// After everything was read back: whether all is marked that must be.
    pub(super) fn compare_marks(&mut self, marked: &Marked, worst: Option<Crash>) -> Verdict {
        for (layer, (since, own)) in marked {
            let replica = self.oracle.layers()[layer].kind == Kind::Replica;
            if !replica || self.oracle.member(layer) != Some(true) {
                continue;
            }
            let layers = self.oracle.layers();
            let beneath: Vec<(u32, u32)> = marked
                .iter()
                .filter(|(other, _)| layers[*other].kind == Kind::Snapshot)
                .filter(|(other, _)| layers[*other].source == Some(*layer))
                .flat_map(|(_, (_, regions))| regions.iter().copied())
                .collect();
            let beneath = Some(&beneath[..]);
            let told = Told { own, beneath, since: *since, alone: true, worst };
            let cleared = self.oracle.marked(layer, told)?;
            self.seen.mark_if(cleared, "mark cleared");
            self.seen.mark_if(!own.is_empty() && worst.is_some(), "marks after a crash");
        }
        Ok(())
    }

    /// The pool is as large as it was, or as it was to become.
    pub(super) fn compare_capacity(&mut self) -> Verdict {
        let now = self.world.machine.info().capacity;
        let grew = self.growing && now > self.capacity;
        if self.capacity != 0 && now != self.capacity && !grew {
            let text = format!("a pool of {} bytes has {now}", self.capacity);
            return Err(Violation::new("GrowsWhole", text));
        }
        self.capacity = now;
        self.growing = false;
        Ok(())
    }

    /// A pool was told of a larger disk, and is done with it.
    pub(super) fn grown(&mut self) -> Verdict {
        let before = self.capacity;
        self.compare_capacity()?;
        self.seen.mark_if(self.capacity > before, "pool grown");
        Ok(())
    }

    /// Asks for a replica's record, which is read by that.
    fn look(&mut self, layer: Uuid) {
        let bearing = Box::default();
        let bear = braid_pool::Command::Bear { uuid: layer, bearing };
        self.command(Pending::Look { layer }, bear);
    }
}
