//! What is kept of a volume beside its record, as JSON: rows are few and read by people in need.

use braid_nexus::Uuid;
use serde::{Deserialize, Serialize};

/// What was asked for, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its identity.
    pub uuid: Uuid,
    /// Its name, which no other volume has.
    pub name: String,
    /// Bytes that were asked for; the record knows what it has now.
    pub bytes: u64,
    /// Where its replicas are.
    pub places: Vec<Place>,
    /// Its snapshots.
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
    /// Engines that stand by.
    pub standbys: u32,
    /// When it was asked for, in seconds since 1970.
    pub created_unix_s: u64,
    /// How far it is.
    pub stage: Stage,
    /// The owner that was appointed last: it alone may claim the volume.
    pub appointed: Option<Appointed>,
    /// How fast its replicas are brought back, if somebody said so.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// What it could not have, the newest last.
    #[serde(default)]
    pub ended: Vec<Ended>,
}

/// Wishes that ended and are told of, at most: what is older is in the volume's history.
pub const ENDED_MAX: usize = 8;

/// A wish that ended without what was wished for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What was wished for, in words.
    pub what: String,
    /// Why it was not done.
    pub why: String,
    /// When that was decided, in seconds since 1970.
    pub unix_s: u64,
}

/// Bytes of a volume that are gone through a second, for replicas that return; 0: as fast as it
/// goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Above that of whatever it replaced.
    pub version: u64,
    /// Not at all.
    pub paused: bool,
    /// While hosts' commands are in work.
    pub beside: u64,
    /// While there are none.
    pub alone: u64,
}

/// How far a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its replicas are being made.
    Creating,
    /// It has a record.
    Ready,
    /// It goes away.
    Deleting,
}

/// Where a replica is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which replica.
    pub replica: Uuid,
    /// The engine that has it.
    pub engine: Uuid,
    /// The name of that engine's node.
    pub node: String,
    /// The pool that was asked for; empty: the only one.
    pub pool: String,
    /// It was there before the volume, which takes what it holds.
    pub given: bool,
    /// Whether it is to stay.
    #[serde(default)]
    pub stay: Stay,
}

/// Whether a replica is to stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stay {
    /// It is a member, or is to become one.
    #[default]
    Stays,
    /// It is taken out and destroyed.
    Leaves,
    /// It is taken out; nobody waits for its engine to destroy it.
    Forgotten,
}

/// A snapshot: what people call it, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its identity.
    pub uuid: Uuid,
    /// Its name, its own in its volume; empty: nobody asked for it.
    pub name: String,
    /// When it was asked for, in seconds since 1970.
    pub created_unix_s: u64,
    /// How far it is.
    pub stage: SnapshotStage,
}

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotStage {
    /// It is to be taken. Once the record names it, it is not taken again, whatever happens.
    Wanted,
    /// The record named it.
    Taken,
    /// It is to go.
    Goes,
}

/// An owner, and where it was appointed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointed {
    /// The engine.
    pub engine: Uuid,
    /// The name.
    pub owner: Uuid,
}
