//! The supervisor: `plan(desired, observed, now) -> actions`. It sees engines by their heartbeats,
//! has the standby take over when the owner is gone or somebody asks, brings members back, keeps a
//! standby path, has sizes, replicas and snapshots changed as people ask. It replaces nothing by
//! itself yet.
//!
//! The shell keeps [`Observed`] as engines report, calls [`Observed::settle`] and then [`plan`],
//! carries the actions out, and tells each [`Ledger`] what began and how it ended. Nothing here
//! knows a clock, a socket or a store.
//!
//! Invariants:
//! 1. Nobody but this appoints owners, and no name is given twice: [`Owners`].
//! 2. A volume has one action in flight. An appointment displaces what is no appointment; it is
//!    displaced by nothing: it ends, is late, or goes with its engine.
//! 3. An owner is replaced if its engine is gone, if it says that it does not serve for
//!    [`PATIENCE`], if no engine knows of it any more, if its engine stops, or if somebody asks;
//!    and for nothing else.
//! 4. Nothing is concluded from a silence that may be our own: after a start or a pause of this
//!    process, engines have [`SETTLE`] to be heard.
//! 5. What people ask to be different about a volume is done by its owner, when nothing is to be
//!    done for its safety; what of it fails holds up neither that nor the rest.
//! 6. What fails is tried again later and later; a turn begins at most [`ACTIONS_MAX`] actions.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod action;
mod alert;
mod change;
mod desired;
mod ledger;
mod observed;
mod owners;
mod volume;

use alloc::vec::Vec;

use braid_block::Instant;

pub use action::{Action, Step, Wish};
pub use alert::{Alert, alerts};
pub use desired::{Asked, Desired, Replica, Snapshot, Stay, Volume};
pub use ledger::{ASK_TRIES, Ledger, PATIENCE, WISH_TRIES};
pub use observed::{Engine, GRACE, Line, Observed, Part, Record, SETTLE, SILENCE};
pub use owners::Owners;

/// An identity: of a volume, a replica, an engine, an owner.
pub type Uuid = [u8; 16];

/// Actions that begin in one turn, at most: a thousand volumes of a dead engine come in portions,
/// so that those who take over are not buried.
pub const ACTIONS_MAX: usize = 64;

/// What is to be begun now; appointments first, then by volume.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, now: Instant) -> Vec<Action> {
    let mut actions: Vec<Action> = Vec::new();
    for (uuid, wanted) in &desired.volumes {
        actions.extend(volume::next(uuid, wanted, observed, now));
    }
    actions.extend(volume::orphans(desired, observed, now));
    actions.sort_by_key(|action| !action.step.is_appointment());
    actions.truncate(ACTIONS_MAX);
    actions
}
