//! What is seen.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::Instant;

use crate::{Ledger, Uuid};

/// An engine that is connected and says nothing for so long is gone. Heartbeats come every 500 ms:
/// one may be lost. With the fence's 3 s and the lease it keeps a fail-over below 6 s.
pub const SILENCE: Duration = Duration::from_millis(1300);
/// An engine whose connection broke has so long to come back, if nobody refuses at its portals.
pub const GRACE: Duration = Duration::from_millis(800);
/// After a start or a pause of this process engines have so long to be heard: their back-off is at
/// most 1 s.
pub const SETTLE: Duration = Duration::from_secs(3);

/// Everything that is seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// When this process began, or went on after a pause.
    pub awake: Instant,
    /// Engines that were heard of since it began.
    pub engines: BTreeMap<Uuid, Engine>,
    /// The records of volumes.
    pub records: BTreeMap<Uuid, Record>,
    /// What is being done about volumes.
    pub ledgers: BTreeMap<Uuid, Ledger>,
}

/// An engine.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// When it last said something.
    pub heard: Instant,
    /// Its connection.
    pub line: Line,
    /// Its parts in volumes, as it last said.
    pub parts: BTreeMap<Uuid, Part>,
    /// The replicas that it has and that do I/O.
    pub replicas: BTreeSet<Uuid>,
    /// It was told to stop: it serves until others do.
    pub leaving: bool,
}

/// The connection of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// It stands.
    #[default]
    Up,
    /// It ended.
    Broken {
        /// When.
        since: Instant,
        /// Its portals refuse connections: the process is dead.
        refused: bool,
    },
}

/// An engine's part in a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The owner in this engine; None: it stands by.
    pub owner: Option<Uuid>,
    /// It accepts I/O.
    pub serving: bool,
    /// Since when it does, or does not.
    pub since: Instant,
    /// The replica that is coming back.
    pub returning: Option<Uuid>,
}

/// What counts of a volume's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The owner that it names; None: there was none yet.
    pub owner: Option<Uuid>,
    /// Bytes of the volume.
    pub bytes: u64,
    /// Members.
    pub members: Vec<Uuid>,
    /// Replicas that lack writes.
    pub away: Vec<Uuid>,
    /// Snapshots.
    pub snapshots: Vec<Uuid>,
    /// Replicas know a newer one: it decides nothing.
    pub stale: bool,
}

impl Observed {
    /// Whether an engine is to be counted on.
    #[must_use]
    pub fn is_alive(&self, engine: &Uuid, now: Instant) -> bool {
        let Some(seen) = self.engines.get(engine) else { return false };
        match seen.line {
            Line::Up => now.since(seen.heard.max(self.awake)) <= SILENCE,
            Line::Broken { refused: true, .. } => false,
            Line::Broken { since, .. } => now.since(since.max(self.awake)) <= GRACE,
        }
    }

    /// Whether an order reaches an engine.
    pub(crate) fn is_reached(&self, engine: &Uuid, now: Instant) -> bool {
        let up = self.engines.get(engine).is_some_and(|seen| seen.line == Line::Up);
        up && self.is_alive(engine, now)
    }

    /// Whether an engine may be given anything to do that lasts.
    pub(crate) fn is_fit(&self, engine: &Uuid, now: Instant) -> bool {
        let leaving = self.engines.get(engine).is_some_and(|seen| seen.leaving);
        !leaving && self.is_reached(engine, now)
    }

    /// An engine's part in a volume.
    #[must_use]
    pub fn part(&self, engine: &Uuid, volume: &Uuid) -> Option<&Part> {
        self.engines.get(engine)?.parts.get(volume)
    }

    /// Ends what did not end in time, or went with its engine.
    pub fn settle(&mut self, now: Instant) {
        let mut ledgers = core::mem::take(&mut self.ledgers);
        for (volume, ledger) in &mut ledgers {
            ledger.settle(now, |engine| !self.is_alive(engine, now));
            if let Some(record) = self.records.get(volume) {
                ledger.has_members(&record.members);
            }
        }
        self.ledgers = ledgers;
    }
}
