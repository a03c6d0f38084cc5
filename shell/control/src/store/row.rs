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
    /// Engines that stand by.
    pub standbys: u32,
    /// When it was asked for, in seconds since 1970.
    pub created_unix_s: u64,
    /// How far it is.
    pub stage: Stage,
    /// The owner that was appointed last: it alone may claim the volume.
    pub appointed: Option<Appointed>,
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
}

/// An owner, and where it was appointed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointed {
    /// The engine.
    pub engine: Uuid,
    /// The name.
    pub owner: Uuid,
}
