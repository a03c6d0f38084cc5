//! Snapshots without end: a replica whose disk was replaced has to become a member meanwhile,
//! though one comparison of all regions takes longer than the time between two snapshots.
//!
//! Invariants:
//! 1. Snapshots go on from before the disk is replaced until its replica is a member. Old ones are
//!    deleted when all replicas hold them and the next one, and one that is being copied now and
//!    then: not all the time, for its marks go to the next one, and what they tell of is compared
//!    again.
//! 2. The first ones are older than the absence, and marks were cleared after them.

use std::time::Duration;

use braid_nexus::Command;

use super::fate::After;
use super::run::{PATIENCE, Run, Verdict};
use crate::oracle::Violation;

/// Between two snapshots that are older than the absence.
const BEFORE: Duration = Duration::from_millis(900);
/// Between two of the others.
const BETWEEN: Duration = Duration::from_millis(300);
/// Snapshots before the disk is replaced.
const OLD: usize = 2;

/// One of so many times the oldest snapshot is deleted though not all replicas hold it.
const DELETED_IN: u64 = 20;

/// What is counted when the replica is a member.
pub(super) const JOINED: &str = "replica joined while snapshots were taken";

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unceasing {
    /// So many were asked for.
    Before(usize),
    /// The disk of this node is new.
    Replaced(u8),
    /// Its replica is a member.
    Joined,
}

impl Run {
    /// Begins it.
    pub(super) fn snapshots_begin(&mut self) {
        if self.profile.snapshots_unceasing {
            self.unceasing = Some(Unceasing::Before(0));
            self.later(BEFORE, After::Snapshots);
        }
    }

    /// Goes on until the replica is a member.
    pub(super) fn snapshots_end(&mut self) -> Verdict {
        let patience = self.cluster.now() + PATIENCE;
        while self.unceasing.is_some_and(|stage| stage != Unceasing::Joined) {
            if self.cluster.now() > patience {
                let left = self.volumes[0].passage.returning();
                let text = format!("no end of snapshots, and a replica never joins: {left:?}");
                return Err(Violation::new("ConvergeAfterHeal", text));
            }
            let next = self.cluster.now() + BETWEEN;
            self.until(next)?;
        }
        Ok(())
    }

    /// The next snapshot, and what else it is time for.
    pub(super) fn snapshots_on(&mut self) {
        let Some(stage) = self.unceasing.filter(|stage| *stage != Unceasing::Joined) else {
            return;
        };
        let before = matches!(stage, Unceasing::Before(_));
        self.later(if before { BEFORE } else { BETWEEN }, After::Snapshots);
        let Some(owner) = self.owner_of(0) else { return };
        match stage {
            Unceasing::Before(OLD) => self.replace_disk(owner),
            Unceasing::Before(taken) => {
                self.unceasing = Some(Unceasing::Before(taken + 1));
                self.take_snapshot(owner, 0);
            }
            Unceasing::Replaced(node) if self.is_whole_again(node) => {
                self.seen.mark(JOINED);
                self.unceasing = Some(Unceasing::Joined);
            }
            _ => {
                self.delete_oldest(owner);
                self.take_snapshot(owner, 0);
            }
        }
    }

    /// Deletes the oldest snapshot if all replicas hold it and the next one; sometimes one that is
    /// being copied.
    fn delete_oldest(&mut self, owner: u8) {
        let Some(record) = self.cluster.record(0) else { return };
        let all = record.members() | record.away();
        let Some(uuid) = record.snapshots.first().map(|oldest| oldest.uuid) else { return };
        let held = record.snapshots.iter().take_while(|snapshot| snapshot.holders == all).count();
        if held > 1 || self.random.once_in(DELETED_IN) {
            self.cluster.command(owner, 0, Command::DeleteSnapshot { uuid });
        }
    }

    /// A disk with a replica is replaced, not that of the owner's node.
    fn replace_disk(&mut self, owner: u8) {
        let nodes: Vec<u8> = (0..self.profile.nodes).filter(|node| *node != owner).collect();
        let node = *self.random.pick(&nodes);
        if !self.may_wipe(node) {
            return;
        }
        self.wipe(node);
        let soon = Duration::from_millis(self.random.within(10, 400));
        self.later(soon, After::Start(node));
        self.unceasing = Some(Unceasing::Replaced(node));
    }
}
