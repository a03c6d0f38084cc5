//! What needs somebody.

use alloc::vec::Vec;

use braid_block::Instant;

use crate::Uuid;
use crate::desired::{Replica, Stay, Volume};
use crate::observed::Observed;
use crate::volume::{Ownership, View};

/// What is not as it shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// Nobody serves the volume.
    NoOwner,
    /// If the engine that serves is lost, hosts have nowhere to go.
    NoStandby,
    /// Some of its replicas lack writes.
    Degraded {
        /// Replicas that have all.
        members: usize,
        /// Replicas.
        of: usize,
    },
    /// Replicas know a newer record than the store: it waits for an operator.
    NotCurrent,
    /// A replica that was taken out waits for its engine, which is not there.
    Leaving,
    /// Its deletion waits for engines that are not there.
    Waiting,
}

/// What needs somebody about a volume.
#[must_use]
pub fn alerts(uuid: &Uuid, wanted: &Volume, observed: &Observed, now: Instant) -> Vec<Alert> {
    let mut alerts = Vec::new();
    if wanted.deleting {
        let away = wanted.replicas.iter().any(|replica| !observed.is_alive(&replica.engine, now));
        alerts.extend(away.then_some(Alert::Waiting));
        return alerts;
    }
    let view = View { uuid, wanted, observed, now };
    let Some(record) = view.record() else { return alerts };
    if record.stale {
        alerts.push(Alert::NotCurrent);
    }
    match view.ownership(record) {
        Ownership::Served(engine) if view.standbys(engine) == 0 => alerts.push(Alert::NoStandby),
        Ownership::Served(_) => {}
        Ownership::Pending | Ownership::Vacant(_) => alerts.push(Alert::NoOwner),
    }
    let leaves = |uuid: &Uuid| {
        wanted.replicas.iter().any(|replica| replica.uuid == *uuid && replica.stay != Stay::Stays)
    };
    let away = record.away.iter().filter(|uuid| !leaves(uuid)).count();
    if away > 0 {
        let members = record.members.len();
        alerts.push(Alert::Degraded { members, of: members + away });
    }
    let waits = |replica: &Replica| {
        replica.stay == Stay::Leaves && !observed.is_alive(&replica.engine, now)
    };
    if wanted.replicas.iter().any(waits) {
        alerts.push(Alert::Leaving);
    }
    alerts
}
