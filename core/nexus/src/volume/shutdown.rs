//! Leaving in order: so that the next owner need not wait, nor compare anything.

use braid_block::Instant;

use crate::{Effect, Failure, Why};

use super::Volume;
use super::op::State;
use super::swap::Change;

/// How far an owner has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaving {
    tag: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Commands in work end.
    Draining,
    /// All is flushed, and marks are cleared.
    Cleaning,
    /// The record is told.
    Telling,
}

impl Leaving {
    /// Who waits for it.
    pub(crate) const fn tag(self) -> u64 {
        self.tag
    }
}

impl Volume {
    pub(crate) fn shut_down(&mut self, tag: u64) {
        let nexus = self.nexus.as_mut().expect("it is serving");
        if nexus.leaving.is_some() || nexus.snapshot.is_some() {
            return self.end(tag, Err(Failure::Busy));
        }
        nexus.leaving = Some(Leaving { tag, stage: Stage::Draining });
        self.effects.push_back(Effect::Access { optimized: false });
        self.refuse_waiting();
    }

    /// Goes on with leaving.
    pub(crate) fn shutdown_on(&mut self, now: Instant) {
        let Some(leaving) = self.nexus.as_ref().and_then(|nexus| nexus.leaving) else { return };
        let works = self.ops.iter().any(|(_, op)| !matches!(op.state, State::Ending(_)));
        let cleaning = self.is_cleaning();
        let nexus = self.nexus.as_mut().expect("it is leaving");
        let stage = match leaving.stage {
            Stage::Draining if works || nexus.failing != 0 || nexus.is_changing() => return,
            Stage::Draining => {
                let marked = nexus.written.len() > 0;
                self.detach(now);
                if marked && !cleaning {
                    self.own_flush(now);
                }
                Stage::Cleaning
            }
            // Marks that cannot be cleared now, because somebody is away, stay.
            Stage::Cleaning if cleaning || (nexus.written.len() > 0 && nexus.is_calm()) => return,
            Stage::Cleaning => {
                nexus.changes.push_back(Change::Clean);
                Stage::Telling
            }
            Stage::Telling => return,
        };
        if let Some(nexus) = self.nexus.as_mut() {
            nexus.leaving = Some(Leaving { stage, ..leaving });
            self.stepped = true;
        }
    }

    /// The record says that this owner left in order.
    pub(crate) fn left(&mut self) {
        let tag = self.nexus.as_ref().and_then(|nexus| nexus.leaving).map(|leaving| leaving.tag);
        self.stop(Why::Shutdown);
        if let Some(tag) = tag {
            self.end(tag, Ok(()));
        }
    }
}
