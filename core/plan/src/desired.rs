//! What is wanted.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::Uuid;

/// Everything that is wanted.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Volumes. One that is still being made is none.
    pub volumes: BTreeMap<Uuid, Volume>,
}

/// What is wanted of a volume.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// Where its replicas are.
    pub replicas: Vec<Replica>,
    /// Snapshots that are to be taken, or to go; those that were taken are left alone.
    pub snapshots: Vec<Snapshot>,
    /// Engines that stand by.
    pub standbys: usize,
    /// Bytes that it shall have, at least.
    pub bytes: u64,
    /// It shall go away.
    pub deleting: bool,
    /// What an operator asked for last.
    pub asked: Option<Asked>,
}

/// A replica's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Which.
    pub uuid: Uuid,
    /// Its engine.
    pub engine: Uuid,
    /// Whether it is to stay.
    pub stay: Stay,
}

/// Whether a replica is to stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stay {
    /// A member, or to become one.
    #[default]
    Stays,
    /// It is taken out and destroyed.
    Leaves,
    /// It is taken out; nobody waits for its engine to destroy it.
    Forgotten,
}

/// A snapshot that is to be taken, or to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which.
    pub uuid: Uuid,
    /// It shall go.
    pub goes: bool,
}

/// An operator asks for another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Counts what was asked for of this volume, from 1.
    pub number: u64,
    /// The engine that shall serve; None: any other one.
    pub engine: Option<Uuid>,
    /// The present owner leaves in order first.
    pub orderly: bool,
    /// With the members that answer, whatever may be lost.
    pub force: bool,
}
