//! Commands of the holder: admitted, carried out, answered.

use alloc::boxed::Box;
use core::hash::{BuildHasher, Hasher};

use braid_block::Instant;
use hashbrown::HashMap;

use super::stamps::regions_of;
use super::{Act, Association, CARRIED_MAX, Guard, Outcome, Promise, SNAPSHOTS_KNOWN_MAX};
use crate::config::Plant;
use crate::host::ZERO_MAX;
use crate::record::Uuid;
use crate::wire::{Answer, BLOCK, Command, NUMBER_MAX, REGION, Refusal, TRANSFER_MAX};

/// Bytes of a sector: what offsets and lengths are multiples of.
const SECTOR: u64 = 512;

/// What is to be remembered of a command in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The marks, for the answer to a fence.
    Fence,
    /// A part of the marks that the holder asked for.
    Marks,
    /// It changes these regions: first and last.
    Write((u64, u64)),
    Flush(u64),
    Snapshot(Uuid),
    Delete(Uuid),
    Resize(u64),
    /// Nothing.
    Other,
}

/// Commands in the pool, by tag: what association they came by, and what they are.
pub(super) type Carried = HashMap<u64, (u32, Kind), Fixed>;

impl Guard {
    pub(super) fn arrive(&mut self, now: Instant, association: u32, tag: u64, command: Command) {
        self.resume(association);
        if !self.associations.contains_key(&association) {
            return self.refuse(association, tag, Refusal::Gone);
        }
        if self.failed {
            return self.refuse(association, tag, Refusal::Failed);
        }
        let command = match command {
            Command::Fence(record) => return self.fence(association, tag, record),
            command => command,
        };
        if !self.allows(association, &command) {
            let epoch = self.fencing.as_ref().map_or(self.durable.fence.0, super::Fencing::epoch);
            return self.refuse(association, tag, Refusal::Conflict { epoch });
        }
        match command {
            Command::CopyRecord(record) => self.copy(association, tag, record),
            Command::Lease => {
                let until = now + self.timing.lease;
                self.promise = Promise { until, to: Some(self.durable.fence) };
                self.answer(association, tag, Ok(Answer::Done));
            }
            Command::Release => {
                self.promise.until = now;
                self.answer(association, tag, Ok(Answer::Done));
            }
            command => self.admit(association, tag, command),
        }
    }

    /// A broken association goes on where it was, even after a restart: the plant.
    fn resume(&mut self, association: u32) {
        let nobody = self.holder.is_none() && self.fencing.is_none();
        let resumes = self.plant == Some(Plant::ResumeAssociation)
            && nobody
            && !self.associations.contains_key(&association);
        if resumes {
            let fenced = Some(self.durable.fence);
            self.associations.insert(association, Association { fenced });
            self.holder = Some(association);
        }
    }

    /// Whether a command of an association may be carried out.
    fn allows(&self, association: u32, command: &Command) -> bool {
        let fenced = self.associations.get(&association).and_then(|at| at.fenced);
        let writes = matches!(command, Command::Write { .. } | Command::Zero { .. });
        match self.plant {
            Some(Plant::OldEpochWrites) if writes => fenced.is_some(),
            Some(Plant::ReturnWithoutFence) => {
                let obeyed = self.fencing.as_ref().map_or(self.durable.fence, |f| f.owner());
                fenced == Some(obeyed)
            }
            _ => self.fencing.is_none() && self.holder == Some(association),
        }
    }

    /// Hands a command of the holder to the pool, if it makes sense.
    fn admit(&mut self, association: u32, tag: u64, command: Command) {
        if !self.is_valid(&command) {
            return self.refuse(association, tag, Refusal::Invalid);
        }
        if self.carried.len() >= CARRIED_MAX {
            self.refuse(association, tag, Refusal::Gone);
            return self.end(association);
        }
        let kind = match &command {
            Command::Write { offset, len, .. } => Kind::Write(regions_of(*offset, u64::from(*len))),
            Command::Zero { offset, len, .. } => Kind::Write(regions_of(*offset, *len)),
            Command::Flush { number } => Kind::Flush(*number),
            Command::Snapshot { uuid } => Kind::Snapshot(**uuid),
            Command::DeleteSnapshot { uuid } => Kind::Delete(**uuid),
            Command::Resize { bytes } => Kind::Resize(*bytes),
            _ => Kind::Other,
        };
        match (kind, command) {
            // It is gone already: there may be one of that name, but not of this replica.
            (Kind::Delete(uuid), _) if !self.durable.snapshots.contains(&uuid) => {
                self.answer(association, tag, Ok(Answer::Done));
            }
            // It is larger already: a size that was not named afterwards stays.
            (Kind::Resize(bytes), _) if bytes <= self.durable.bytes => {
                self.answer(association, tag, Ok(Answer::Done));
            }
            (_, Command::Clean { flush, regions }) => {
                let regions = self.quiet(flush, &regions);
                if regions.is_empty() {
                    return self.answer(association, tag, Ok(Answer::Done));
                }
                self.carry(association, tag, kind, Command::Clean { flush, regions });
            }
            (_, Command::Marks { snapshot }) => self.gather(association, tag, snapshot),
            (_, command) => self.carry(association, tag, kind, command),
        }
    }

    /// Hands a command to the pool.
    pub(super) fn carry(&mut self, association: u32, tag: u64, kind: Kind, command: Command) {
        match kind {
            Kind::Write(regions) => self.stamps.wrote(regions),
            Kind::Flush(number) => self.stamps.flush_begins(number),
            _ => {}
        }
        let older = self.carried.insert(tag, (association, kind));
        debug_assert!(older.is_none(), "tag {tag} is in use");
        self.acts.push_back(Act::Carry { tag, command });
    }

    /// Those regions whose last write came before this flush.
    fn quiet(&mut self, flush: u64, regions: &[(u32, u32)]) -> Box<[(u32, u32)]> {
        // What is on its way now may come after any flush.
        for (_, kind) in self.carried.values() {
            if let Kind::Write(regions) = kind {
                self.stamps.wrote(*regions);
            }
        }
        self.stamps.clean(flush, regions).into_boxed_slice()
    }

    /// Whether a command makes sense here.
    fn is_valid(&self, command: &Command) -> bool {
        let known = |uuid: &Uuid| self.durable.snapshots.contains(uuid);
        let source = |uuid: &Option<Box<Uuid>>| uuid.as_deref().is_none_or(known);
        match command {
            Command::Read { offset, len } | Command::Write { offset, len, .. } => {
                *len <= TRANSFER_MAX && self.is_inside(*offset, u64::from(*len), SECTOR)
            }
            Command::ReadSnapshot { snapshot, offset, len } => {
                let fits = *len <= TRANSFER_MAX;
                fits && known(snapshot) && self.is_inside(*offset, u64::from(*len), SECTOR)
            }
            Command::Zero { offset, len, .. } => {
                *len <= ZERO_MAX && self.is_inside(*offset, *len, SECTOR)
            }
            Command::Compare { snapshot, offset, len } => {
                let fits = u64::from(*len) <= REGION;
                fits && source(snapshot) && self.is_inside(*offset, u64::from(*len), BLOCK)
            }
            Command::Marks { snapshot } => source(snapshot),
            Command::Clean { regions, .. } => self.are_regions(regions),
            Command::Snapshot { uuid } => {
                known(uuid) || self.durable.snapshots.len() < SNAPSHOTS_KNOWN_MAX
            }
            Command::Flush { number } => *number <= NUMBER_MAX,
            Command::DeleteSnapshot { .. } | Command::Resize { .. } => true,
            // Not for the pool.
            Command::Fence(_) | Command::CopyRecord(_) | Command::Lease | Command::Release => false,
        }
    }

    fn is_inside(&self, offset: u64, len: u64, unit: u64) -> bool {
        let end = offset.checked_add(len);
        len > 0
            && end.is_some_and(|end| end <= self.durable.bytes)
            && offset.is_multiple_of(unit)
            && len.is_multiple_of(unit)
    }

    /// Whether these are regions of the replica, ascending.
    fn are_regions(&self, regions: &[(u32, u32)]) -> bool {
        let mut from = 0;
        for (first, count) in regions {
            let (first, count) = (u64::from(*first), u64::from(*count));
            if first < from || count == 0 {
                return false;
            }
            from = first + count;
        }
        from <= self.durable.bytes.div_ceil(REGION).min(u64::from(u32::MAX))
    }

    pub(super) fn on_carried(&mut self, tag: u64, result: Result<Outcome, Refusal>) {
        let Some((association, kind)) = self.carried.remove(&tag) else { return };
        match kind {
            // It may have taken effect, whatever came of it.
            Kind::Write(regions) => self.stamps.wrote(regions),
            kind if result.is_ok() => self.carried_out(kind),
            _ => {}
        }
        let failed = result == Err(Refusal::Failed);
        let answer = result.map(|outcome| match outcome {
            Outcome::Done => Answer::Done,
            Outcome::Marks(marks) => Answer::Marks(marks),
        });
        match kind {
            Kind::Fence => self.fence_marked(tag, answer),
            Kind::Marks => self.gathered(association, tag, answer),
            _ => self.answer(association, tag, answer),
        }
        if failed {
            self.fail();
        }
    }

    /// What a command that succeeded changes here.
    fn carried_out(&mut self, kind: Kind) {
        let durable = &mut self.durable;
        match kind {
            Kind::Flush(number) => {
                self.stamps.flush_ended(number);
                durable.flush = durable.flush.max(number);
            }
            Kind::Snapshot(uuid) if !durable.snapshots.contains(&uuid) => {
                durable.snapshots.push(uuid);
            }
            Kind::Delete(uuid) => durable.snapshots.retain(|known| *known != uuid),
            Kind::Resize(bytes) => durable.bytes = durable.bytes.max(bytes),
            Kind::Snapshot(_) | Kind::Fence | Kind::Marks | Kind::Write(_) | Kind::Other => {}
        }
    }
}

/// Hashes tags, the same in every run: they are the shell's own numbers, never a peer's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fixed;

/// A number on its way to its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixer(u64);

impl BuildHasher for Fixed {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(0)
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        // An odd number without a pattern: the golden ratio in 64 bits.
        let product = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        // The table takes its tag from the upper bits and its place from the lower.
        self.0 ^ (self.0 << 32)
    }
}
