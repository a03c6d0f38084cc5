//! Flushes: to the media of every member and of the joiner.

use braid_block::{Instant, Key};

use crate::wire::{Answer, Command, Refusal};
use crate::{Plant, Status};

use super::Volume;
use super::call::Purpose;
use super::op::State;
use super::state::{bit, slots};

impl Volume {
    pub(crate) fn send_flush(&mut self, now: Instant, key: Key) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        let targets = nexus.targets();
        let done = match self.config.plant {
            Some(Plant::FlushLeavesOneOut) if targets.count_ones() > 1 => last(targets),
            _ => 0,
        };
        nexus.flushes += 1;
        let number = nexus.flushes;
        let op = self.ops.get_mut(key).expect("it is in work");
        // A member that failed before counts as well, until it is excluded.
        op.state = State::Flushing { number, counts: nexus.need(targets), done };
        op.out = targets & !done;
        for slot in slots(targets & !done) {
            self.send(now, slot, Purpose::Op(key), Command::Flush { number }, None);
        }
    }

    pub(crate) fn on_flushed(
        &mut self,
        now: Instant,
        key: Key,
        slot: u8,
        result: &Result<Answer, Refusal>,
    ) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let State::Flushing { done, .. } = &mut op.state else { return };
        match result {
            Ok(_) => *done |= bit(slot),
            Err(Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. }) => {}
            Err(refusal) => self.fail(now, slot, *refusal),
        }
        self.settle_flush(key);
    }

    pub(crate) fn settle_flush(&mut self, key: Key) {
        let Some(op) = self.ops.get(key) else { return };
        let State::Flushing { number, counts, done } = op.state else { return };
        let Some(nexus) = self.nexus.as_ref() else { return };
        // One that joined since was flushed after all that this flush is about.
        if op.out == 0 && nexus.need(counts) & counts & !done == 0 {
            self.flushed(number);
            self.conclude(key, Status::Success);
        }
    }
}

/// The highest slot of a mask.
fn last(mask: u8) -> u8 {
    slots(mask).last().map_or(0, bit)
}
