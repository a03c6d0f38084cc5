//! A rebuild of everything: a volume with three snapshots and a clone, a replica that is empty, and
//! a source that dies half-way.
//!
//! Invariants:
//! 1. The source is killed while blocks that it gave are on their way, or being read from it: never
//!    before, and not because it is time.
//! 2. In the end every member has every layer, each equal to what it was before the rebuild.

use std::time::Duration;

use braid_nexus::Uuid;

use super::fate::After;
use super::inspect;
use super::profile::Fault;
use super::run::{PATIENCE, Run, Verdict};
use super::verdict::{Shelves, named};
use crate::oracle::Violation;

/// Snapshots of the volume.
const SNAPSHOTS: usize = 3;
/// The one that the clone is made of.
const CLONED: usize = 1;
/// Between two looks at how far it is.
const TICK: Duration = Duration::from_millis(20);
/// How long a snapshot may take before another is asked for.
const ASKED: Duration = Duration::from_millis(600);

/// What is counted when the source died as it should.
pub(super) const SOURCE_DIED: &str = "source of a rebuild died half-way";

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Snapshots are taken, with writes between.
    Snapshots,
    /// The clone is on its way, or nobody serves it yet.
    Cloning,
    /// Everything is whole, and hosts write on.
    Whole,
    /// This node's disk is new. Copies are counted from this layer on.
    Rebuilding { node: u8, layer: usize, copies: u64 },
    /// The source has died.
    Struck,
}

/// A chain of layers that is to be rebuilt.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    stage: Stage,
    since: u64,
    /// The clone, and the snapshot that it was made of.
    clone: Option<(usize, Uuid)>,
    /// The copy that was seen last: layer and first byte.
    last: Option<(usize, u64)>,
}

impl Chain {
    pub(super) const fn new() -> Self {
        Self { stage: Stage::Snapshots, since: 0, clone: None, last: None }
    }
}

impl Run {
    /// Begins it.
    pub(super) fn chain_begins(&mut self) {
        if self.profile.rebuilds_chain {
            self.chain = Some(Chain::new());
            self.later(TICK, After::Chain);
        }
    }

    /// Goes on until the source has died.
    pub(super) fn chain_ends(&mut self) -> Verdict {
        let patience = self.cluster.now() + PATIENCE;
        while self.chain.as_ref().is_some_and(|chain| chain.stage != Stage::Struck) {
            if self.cluster.now() > patience {
                let stage = self.chain.as_ref().map(|chain| chain.stage);
                let text = format!("nothing was rebuilt: {stage:?}");
                return Err(Violation::new("ConvergeAfterHeal", text));
            }
            let next = self.cluster.now() + TICK;
            self.until(next)?;
        }
        Ok(())
    }

    fn chain_is(&mut self, stage: Stage) {
        let now = self.cluster.now().as_nanos();
        if let Some(chain) = &mut self.chain {
            (chain.stage, chain.since) = (stage, now);
        }
    }

    /// Looks how far it is.
    pub(super) fn chain_on(&mut self) -> Verdict {
        let Some(chain) = self.chain.clone().filter(|chain| chain.stage != Stage::Struck) else {
            return Ok(());
        };
        self.later(TICK, After::Chain);
        let waited = Duration::from_nanos(self.cluster.now().as_nanos() - chain.since);
        let Some(record) = self.cluster.record(0).cloned() else { return Ok(()) };
        match chain.stage {
            Stage::Snapshots if record.snapshots.len() == SNAPSHOTS => {
                let snapshot = record.snapshots[CLONED].uuid;
                let clone = self.cluster.clone_volume(0, &snapshot);
                if let (Some(chain), Some(volume)) = (&mut self.chain, clone) {
                    chain.clone = Some((volume, snapshot));
                }
                self.chain_is(Stage::Cloning);
            }
            Stage::Snapshots if waited > ASKED => {
                self.order(Fault::Snapshot);
                self.chain_is(Stage::Snapshots);
            }
            Stage::Cloning => {
                let is_served = |(volume, _)| self.owner_of(volume).is_some();
                if chain.clone.is_some_and(is_served) {
                    // What the layers hold is known from here on.
                    self.look()?;
                    self.chain_is(Stage::Whole);
                }
            }
            Stage::Whole if waited > ASKED => self.chain_breaks(),
            Stage::Rebuilding { node, .. } => {
                // It got everything before the moment came: once more.
                let back = self.is_whole_again(node);
                if back && waited > Duration::from_secs(3) {
                    self.chain_is(Stage::Whole);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether all replicas of a node are members again.
    pub(super) fn is_whole_again(&self, node: u8) -> bool {
        let sites = self.cluster.sites();
        let mut mine = sites.of_node(node).map(|(uuid, _)| uuid);
        mine.all(|uuid| {
            let volume = sites.volume_of(&uuid);
            let record = volume.and_then(|volume| self.cluster.record(volume));
            record.is_some_and(|record| self.is_whole(record, &uuid))
        })
    }

    /// A node's disk is replaced.
    fn chain_breaks(&mut self) {
        let node = self.some_node();
        if !self.may_wipe(node) {
            return;
        }
        self.wipe(node);
        let soon = Duration::from_millis(self.random.within(10, 400));
        self.later(soon, After::Start(node));
        let layer = self.random.index(SNAPSHOTS + 1);
        let copies = self.random.within(1, 3);
        self.chain_is(Stage::Rebuilding { node, layer, copies });
    }

    /// Looks whether the moment is there.
    pub(super) fn chain_lurks(&mut self) {
        let Some(chain) = &self.chain else { return };
        let (Stage::Rebuilding { node, layer, copies }, last) = (chain.stage, chain.last) else {
            return;
        };
        let Some(owner) = self.volumes[0].passage.owner() else { return };
        let Some(copy) = self.copies(0, owner).into_iter().find(|copy| copy.rebuild) else {
            return;
        };
        let Some(record) = self.cluster.record(0) else { return };
        let at = record.snapshots.iter().position(|s| Some(s.uuid) == copy.snapshot);
        let at = at.unwrap_or(SNAPSHOTS);
        let to = (0..8).find(|slot| copy.to >> slot & 1 == 1);
        let is_its = to.and_then(|slot| self.node_of(0, slot)) == Some(node);
        if at < layer || last == Some((at, copy.first)) || !is_its {
            return;
        }
        if let Some(chain) = &mut self.chain {
            chain.last = Some((at, copy.first));
        }
        if copies > 1 {
            return self.chain_is(Stage::Rebuilding { node, layer, copies: copies - 1 });
        }
        let Some(source) = self.node_of(0, copy.from) else { return };
        self.cluster.tell(|| format!("== moment: layer {at}, {copy:?}"));
        self.seen.mark(SOURCE_DIED);
        let head = at == SNAPSHOTS;
        self.seen.mark_if(!head, "source of a rebuild died in a snapshot");
        self.seen.mark_if(head, "source of a rebuild died in the volume");
        self.kill(source);
        let time = self.lasting();
        self.later(time, After::Start(source));
        self.chain_is(Stage::Struck);
    }

    /// Every member has every layer, and each is what it was.
    pub(super) fn judge_chain(&mut self, shelves: &Shelves) -> Verdict {
        let Some((clone, cloned)) = self.chain.as_ref().and_then(|chain| chain.clone) else {
            return Ok(());
        };
        let wrong = |text| Err(Violation::new("Convergence", text));
        let Some(record) = self.cluster.record(0).cloned() else { return Ok(()) };
        if record.snapshots.len() < SNAPSHOTS {
            return wrong(format!("{} snapshots are left", record.snapshots.len()));
        }
        for snapshot in &record.snapshots {
            if snapshot.holders != record.members() {
                return wrong(format!("{:08b} hold a snapshot", snapshot.holders));
            }
        }
        let Some(of) = self.cluster.record(clone).cloned() else {
            return wrong("the clone has no record".into());
        };
        let members = self.members(&of, shelves);
        if members.len() < self.profile.replicas.into() {
            return wrong(format!("the clone is on {} nodes", members.len()));
        }
        let mut all = named(&members);
        let first = record.replica(0).map(|replica| replica.uuid).unwrap_or_default();
        let Some(origin) = self.layer(shelves, &first, &cloned) else {
            return wrong("the snapshot that was cloned is not there".into());
        };
        all.push(("what it was made of", origin));
        inspect::convergence(&all)?;
        self.seen.mark("every layer compared");
        Ok(())
    }
}
