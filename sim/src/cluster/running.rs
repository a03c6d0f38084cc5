//! What runs at a node: the parts of an engine, or a whole shard.

use braid_block::Instant;
use braid_nexus::guard::{Kept, View as GuardView};
use braid_nexus::{Copying, Uuid, View};
use braid_pool::Pool;

use super::drive::Drive;
use super::net::{LineId, Place};
use super::nexus::{Maker, Nexus, Shape};
use super::process::{Context, Input, Process};
use crate::memory::SimMemory;
use crate::shards::engine::Engine;

/// A process.
#[derive(Debug)]
pub(crate) enum Running {
    /// Nexus, guards and pool.
    Parts(Box<Process>),
    /// A shard that has them.
    Shard(Box<Engine>),
}

/// Does the same with either.
macro_rules! either {
    ($self:ident, $it:ident => $work:expr) => {
        match $self {
            Self::Parts($it) => $work,
            Self::Shard($it) => $work,
        }
    };
}

impl Running {
    /// Sees to it that there is a turn soon.
    pub(crate) fn touch(&mut self, cx: &mut Context<'_>) {
        either!(self, it => it.touch(cx));
    }

    /// Takes what came.
    pub(crate) fn take(&mut self, cx: &mut Context<'_>, input: Input) {
        either!(self, it => it.take(cx, input));
    }

    /// Time passed.
    pub(crate) fn elapse(&mut self, cx: &mut Context<'_>) {
        either!(self, it => it.elapse(cx));
    }

    /// A turn that was set does not come.
    pub(crate) const fn miss_turn(&mut self) {
        either!(self, it => it.miss_turn());
    }

    /// Ends a turn.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>, drive: &mut Drive) {
        either!(self, it => it.turn(cx, drive));
    }

    /// Begins to stop in order.
    pub(crate) fn stop(&mut self, cx: &mut Context<'_>) {
        either!(self, it => it.stop(cx));
    }

    /// Tells the planner that it lives.
    pub(crate) fn beat(&self, cx: &mut Context<'_>) {
        either!(self, it => it.beat(cx));
    }

    /// A command of whoever drives the cluster, to the pool.
    pub(crate) fn errand(
        &mut self,
        cx: &mut Context<'_>,
        number: u64,
        command: braid_pool::Command,
    ) {
        either!(self, it => it.errand(cx, number, command));
    }

    /// Whether a deadline that was set is still meant.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        either!(self, it => it.is_due(now))
    }

    /// Whether its pool is open and its replicas are served.
    pub(crate) fn is_ready(&self) -> bool {
        either!(self, it => it.is_ready())
    }

    /// Whether it has that end of a line.
    pub(crate) fn has(&self, line: LineId, near: bool) -> bool {
        either!(self, it => it.has(line, near))
    }

    /// All its ends of lines.
    pub(crate) fn line_ends(&self) -> Vec<(LineId, bool, Place)> {
        either!(self, it => it.line_ends())
    }

    /// The place of the other end of a line of which it has that end.
    pub(crate) fn peer(&self, line: LineId, near: bool) -> Option<Place> {
        let mut ends = self.line_ends().into_iter();
        ends.find(|(of, end, _)| *of == line && *end == near).map(|(.., place)| place)
    }

    /// Whether a line was asked for and does not stand.
    pub(crate) fn is_opening(&self, line: LineId) -> bool {
        match self {
            Self::Parts(process) => process.engines.is_opening(line),
            Self::Shard(engine) => engine.is_connecting(line),
        }
    }

    /// Where operations of the disk fill what they read.
    pub(crate) const fn memory(&mut self) -> &mut SimMemory {
        match self {
            Self::Parts(process) => &mut process.mem,
            Self::Shard(engine) => engine.memory(),
        }
    }

    /// Its pool, if it has one.
    pub(crate) fn pool(&self) -> Option<&Pool> {
        match self {
            Self::Parts(process) => Some(&process.pool),
            Self::Shard(engine) => engine.pool(),
        }
    }

    /// How it stands to a volume.
    pub(crate) fn view(&self, volume: usize) -> Option<View> {
        match self {
            Self::Parts(process) => process.engines.nexuses().nth(volume).map(Nexus::view),
            Self::Shard(engine) => engine.view(volume),
        }
    }

    /// What it copies for a volume.
    pub(crate) fn copies(&self, volume: usize) -> Vec<Copying> {
        match self {
            Self::Parts(process) => {
                process.engines.nexuses().nth(volume).map_or_else(Vec::new, Nexus::copies)
            }
            Self::Shard(engine) => engine.copies(volume),
        }
    }

    /// Whether hosts may use its path to a volume.
    pub(crate) fn is_optimized(&self, volume: usize) -> bool {
        match self {
            Self::Parts(process) => {
                process.engines.nexuses().nth(volume).is_some_and(Nexus::is_optimized)
            }
            Self::Shard(engine) => engine.is_optimized(volume),
        }
    }

    /// Where a replica's guard stands, and the copy of the record that its pool has.
    pub(crate) fn replica(&self, uuid: &Uuid) -> Option<(GuardView, Option<Kept>)> {
        match self {
            Self::Parts(process) => process.replicas.view(&process.pool, uuid),
            Self::Shard(engine) => engine.replica(uuid),
        }
    }

    /// Another volume is to be served.
    pub(crate) fn add(&mut self, cx: &Context<'_>, maker: Maker, shape: Shape) {
        match self {
            Self::Parts(process) => process.engines.add(maker, shape),
            Self::Shard(engine) => engine.add(cx, shape),
        }
    }

    /// A replica was made: it is served from now on.
    pub(crate) fn load(&mut self, cx: &mut Context<'_>, uuid: Uuid) {
        match self {
            Self::Parts(process) => process.load(cx, uuid),
            // A shard looks at its pool by itself.
            Self::Shard(_) => {}
        }
    }
}
