//! What ended: each completion is held against what was expected, and told to the oracle.

use braid_block::Memory;
use braid_pool::{Completion, Counters, Done, Failure, Note};

use super::{Health, Pending, Session, Verdict};
use crate::machine::Machine;
use crate::oracle::{End, Stage, Uuid, Violation};
use crate::payload::SECTOR;

impl<M: Machine> Session<M> {
    /// Takes what ended and what was told.
    pub(super) fn finish(&mut self) -> Verdict {
        while let Some(completion) = self.world.completions.pop_front() {
            self.finish_one(completion)?;
        }
        while let Some(note) = self.world.notes.pop_front() {
            self.hear(note)?;
        }
        Ok(())
    }

    fn finish_one(&mut self, completion: Completion) -> Verdict {
        let Completion { tag, lease, result } = completion;
        self.world.story.tell(self.world.now, || format!("[{tag}] ends: {result:?}"));
        let Some(pending) = self.pending.remove(&tag) else {
            let text = format!("a completion that nobody waits for: {tag}, {result:?}");
            return Err(Violation::new("OneCompletion", text));
        };
        // Garbage in a block that is overwritten in place may be adopted with its region; one
        // that is written for the first time has a checksum to tell.
        let excused = |done: Done| match pending {
            Pending::Read { layer, first, .. } if self.health == Health::Garbled => {
                done.unverified > 0 || !self.oracle.lacks(&layer, first / 8)
            }
            _ => false,
        };
        let told = result.ok().filter(|done| !excused(*done));
        if let (Pending::Read { layer, first, sectors, since }, Some(_)) = (pending, told) {
            let lease = lease.as_ref().expect("a read's buffer comes back");
            let bytes = &self.world.mem.bytes(lease)[..sectors as usize * SECTOR];
            self.oracle.end_read(&layer, first, bytes, since)?;
        }
        if let (Pending::Status { layer, first, sectors, since }, Ok(done)) = (pending, &result) {
            let lease = lease.as_ref().expect("a status' buffer comes back");
            let len = done.count as usize * size_of::<braid_pool::Allocation>();
            let bytes = self.world.mem.bytes(lease);
            let (entries, full) = (bytes[..len].to_vec(), len == bytes.len());
            self.status_told(layer, (first, sectors), since, &entries, full)?;
        }
        if let Some(lease) = lease {
            self.world.mem.free(lease);
        }
        match result {
            Ok(done) => self.succeeded(pending, done),
            Err(failure) => self.failed(pending, failure),
        }
    }

    fn succeeded(&mut self, pending: Pending, done: Done) -> Verdict {
        match pending {
            Pending::Write { number, durable, .. } => {
                self.oracle.end_write(number, End::Done { durable });
            }
            Pending::Read { .. } => self.seen.mark_if(done.unverified > 0, "unverified block"),
            Pending::Flush { layer, since, number } => {
                self.oracle.end_flush(&layer, since);
                if let Some(number) = number {
                    self.oracle.flush_numbered(&layer, number);
                    return self.compare_number(layer);
                }
            }
            Pending::Create { uuid } => {
                let Some(handle) = done.handle else {
                    let text = format!("{} has no handle", self.oracle.name(&uuid));
                    return Err(Violation::new("LayerList", text));
                };
                self.handles.insert(uuid, handle);
                let source = self.oracle.layers()[&uuid].source;
                let reading = self.pending.values().any(|pending| {
                    matches!(pending, Pending::Read { layer, .. } if Some(*layer) == source)
                });
                self.oracle.made(&uuid, reading);
            }
            Pending::Remove { uuid } => {
                self.oracle.removed(&uuid, true);
                self.handles.remove(&uuid);
            }
            Pending::Resize { uuid } => self.oracle.resized(&uuid, true),
            Pending::Bear { layer, tag } => {
                self.oracle.borne(&layer, tag, true);
                return self.compare_burden(layer, false);
            }
            Pending::Clean { layer, tag } => self.oracle.cleaned(&layer, tag),
            Pending::Marks { layer, since, tag } => return self.marks_told(layer, since, tag),
            Pending::Grow => return self.grown(),
            Pending::Status { .. } | Pending::Look { .. } | Pending::Scrub => {}
            Pending::Refused => {
                return Err(Violation::new("Refuses", "what makes no sense was done".into()));
            }
        }
        Ok(())
    }

    fn failed(&mut self, pending: Pending, failure: Failure) -> Verdict {
        self.seen.mark_if(failure == Failure::NoSpace, "no space");
        if !self.may_fail(pending, failure) {
            let invariant = match failure {
                Failure::Media(_) => "NoFalseMediaError",
                _ => "NoFalseFailure",
            };
            let mut text = format!("{} ended with {failure:?}", self.describe(pending));
            if let Pending::Write { layer, first, .. } = pending {
                text.push_str(&format!("; {}", self.oracle.history(&layer, first / 8)));
            }
            return Err(Violation::new(invariant, text));
        }
        // A zeroing is done piece by piece: what was done stays done.
        let partly = matches!(pending, Pending::Write { zero: true, .. });
        let unknown = failure == Failure::Failed || partly && failure == Failure::NoSpace;
        match pending {
            Pending::Write { number, .. } => {
                let end = if unknown { End::Unknown } else { End::Nothing };
                self.oracle.end_write(number, end);
            }
            Pending::Read { layer, first, sectors, .. } => {
                return self.lost_block(layer, first, sectors, failure);
            }
            Pending::Create { uuid } if !unknown => self.oracle.refused(&uuid),
            Pending::Remove { uuid } if !unknown => self.oracle.removed(&uuid, false),
            Pending::Resize { uuid } if !unknown => self.oracle.resized(&uuid, false),
            Pending::Bear { layer, tag } if !unknown => self.oracle.borne(&layer, tag, false),
            Pending::Clean { layer, tag } => self.oracle.cleaned(&layer, tag),
            Pending::Grow if !unknown => self.growing = false,
            _ => {}
        }
        Ok(())
    }

    /// A read failed: the error names a block of it.
    fn lost_block(&mut self, layer: Uuid, first: u64, sectors: u64, failure: Failure) -> Verdict {
        if let Failure::Media(offset) = failure {
            let sector = offset / SECTOR as u64;
            if !(first..first + sectors).contains(&sector) {
                let text = format!("a read of {first}+{sectors} sectors fails at byte {offset}");
                return Err(Violation::new("NoFalseMediaError", text));
            }
            self.lost.insert((layer, sector / 8));
        }
        Ok(())
    }

    /// Whether this may come of it.
    fn may_fail(&self, pending: Pending, failure: Failure) -> bool {
        match failure {
            Failure::NoSpace => self.may_lack_space(pending),
            // A stop was asked for.
            Failure::Stopping => true,
            Failure::Media(_) => self.health == Health::Damaged,
            Failure::Failed => self.health == Health::Failing,
            // The replica was made thick, or what is removed is needed by another.
            Failure::Busy => matches!(pending, Pending::Remove { .. }),
            Failure::Limit => !matches!(pending, Pending::Write { .. } | Pending::Read { .. }),
            Failure::ReadOnly | Failure::OutOfRange | Failure::Invalid => {
                matches!(pending, Pending::Refused)
            }
            Failure::NotFound | Failure::Exists => false,
        }
    }

    /// What a replica has, or was promised when it was made thick, can always be written.
    fn may_lack_space(&self, pending: Pending) -> bool {
        match pending {
            Pending::Write { layer, first, sectors, .. } => {
                let volume = &self.oracle.layers()[&layer];
                let promised = volume.thick && !volume.was_snapshotted();
                let has = promised || self.oracle.owns(&layer, first, sectors);
                // A snapshot that is being taken makes what it has the snapshot's.
                let others = self.oracle.layers().values();
                let sealed = others
                    .filter(|other| other.source == Some(layer))
                    .any(|other| other.stage == Stage::Making);
                self.health == Health::Failing || sealed || !has
            }
            Pending::Create { .. } | Pending::Resize { .. } => true,
            // A record has a page of its own.
            Pending::Bear { .. } => true,
            // Deleting always works, and so does what needs no space.
            _ => false,
        }
    }

    fn describe(&self, pending: Pending) -> String {
        let name = pending.layer().map(|layer: Uuid| self.oracle.name(&layer));
        format!("{pending:?} of {}", name.unwrap_or_default())
    }

    fn hear(&mut self, note: Note) -> Verdict {
        match note {
            Note::Opened { clean, replayed, rejected } => {
                self.seen.mark(if clean { "clean open" } else { "open after a crash" });
                self.seen.mark_if(replayed > 0, "replay");
                self.seen.mark_if(rejected > 0, "rejected first write");
            }
            Note::Media { .. } | Note::Lost { .. } | Note::Kept { .. }
                if self.health != Health::Damaged =>
            {
                return Err(Violation::new("NoFalseMediaError", format!("{note:?}")));
            }
            Note::Failed { .. } | Note::Refused(_) if self.health == Health::Sound => {
                return Err(Violation::new("NoFalseFailure", format!("{note:?}")));
            }
            Note::Media { .. } => self.seen.mark("media error"),
            Note::Lost { .. } => self.seen.mark("map lost"),
            Note::Failed { .. } => self.seen.mark("failed"),
            Note::Refused(_) => self.seen.mark("refused"),
            Note::Repaired { .. } => self.seen.mark("page repaired"),
            Note::Stalled { .. } => self.seen.mark("stall"),
            Note::Full => self.seen.mark("full"),
            Note::Scrubbed { errors, .. } => {
                self.seen.mark("scrub");
                if errors > 0 && self.health != Health::Damaged {
                    return Err(Violation::new("NoFalseMediaError", format!("{note:?}")));
                }
            }
            Note::Kept { .. } => self.seen.mark("space kept"),
            Note::Reclaimed => self.seen.mark("reclaimed"),
            Note::Moving | Note::Stopped => {}
        }
        Ok(())
    }

    /// Marks what the machine's counters tell that it did since `before`.
    pub(super) fn observe(&mut self, before: &Counters) {
        let now = self.world.machine.counters();
        self.seen.count("checkpoint", now.checkpoints - before.checkpoints);
        self.seen.count("region opened", now.regions_opened - before.regions_opened);
        self.seen.count("region closed", now.regions_closed - before.regions_closed);
        self.seen.count("block copied", now.copied_blocks - before.copied_blocks);
        self.seen.count("discard", now.device_discards - before.device_discards);
        let ring = u64::from(self.mix.format(self.seed).ring_blocks);
        let wraps = now.journal_blocks / ring - before.journal_blocks / ring;
        self.seen.count("ring wrapped", wraps);
        self.seen.mark_if(now.unverified > before.unverified, "unverified region");
    }
}
