//! Changes that people asked for, as orders.

use std::sync::Arc;

use braid_api::control as wire;
use braid_api::control::order::What;
use braid_nexus::Uuid;
use braid_plan::Step;
use tonic::Status;

use super::{Control, Inside};
use crate::identity::text;
use crate::store::Change;

impl Inside {
    /// An engine refused a change; whether that is news.
    pub(super) fn refused(&mut self, volume: Uuid, step: Step, why: Status) -> bool {
        let refusals = self.refusals.entry(volume).or_default();
        match refusals.iter_mut().find(|(known, _)| *known == step) {
            Some((_, known)) => {
                let same = (known.code(), known.message()) == (why.code(), why.message());
                *known = why;
                !same
            }
            None => {
                refusals.push((step, why));
                true
            }
        }
    }

    /// Why a change was refused when it was tried last.
    pub(crate) fn refusal(
        &self,
        volume: &Uuid,
        meant: impl Fn(&Step) -> bool,
    ) -> Option<(Step, Status)> {
        self.refusals.get(volume)?.iter().find(|(step, _)| meant(step)).cloned()
    }

    /// Forgets that: it is done, or is asked for anew.
    pub(crate) fn forget_refusals(&mut self, volume: &Uuid, meant: impl Fn(&Step) -> bool) {
        if let Some(refusals) = self.refusals.get_mut(volume) {
            refusals.retain(|(step, _)| !meant(step));
        }
    }
}

impl Control {
    /// What an engine is told to do; None: nobody wants it any more.
    pub(super) fn change(&self, volume: &Uuid, step: &Step) -> Option<What> {
        let what = match step {
            Step::Resize { bytes, .. } => What::Resize(wire::Resize { size_bytes: *bytes }),
            Step::MakeReplica { replica, .. } => {
                return self.replica_to_make(volume, replica).map(What::MakeReplica);
            }
            Step::AddMember { replica, .. } => {
                What::AddMember(wire::AddMember { replica: text(replica) })
            }
            Step::TakeOut { replica, .. } => {
                What::TakeOut(wire::TakeOut { replica: text(replica) })
            }
            Step::GiveUp { replica, .. } => What::GiveUp(wire::GiveUp { replica: text(replica) }),
            Step::TakeSnapshot { snapshot, .. } => {
                What::TakeSnapshot(wire::TakeSnapshot { uuid: text(snapshot) })
            }
            Step::DropSnapshot { snapshot, .. } => {
                What::DropSnapshot(wire::DropSnapshot { uuid: text(snapshot) })
            }
            _ => return None,
        };
        Some(what)
    }

    /// A replica that is to be made. It has the size of the volume as it is now; what the volume
    /// has more by then, it gets when it comes back.
    fn replica_to_make(&self, volume: &Uuid, replica: &Uuid) -> Option<wire::MakeReplica> {
        self.store.read(|state| {
            let volume = state.volumes.get(volume)?;
            let place = volume.spec.places.iter().find(|place| place.replica == *replica)?;
            let uuid = text(replica);
            Some(wire::MakeReplica {
                // Numbers were used before; what is in a pool has a name of its own.
                name: format!("{}.{}", volume.spec.name, &uuid[..8]),
                uuid,
                pool: place.pool.clone(),
                size_bytes: volume.record.as_ref()?.bytes,
            })
        })
    }

    /// A replica that left is gone.
    pub(super) fn unlist(self: &Arc<Self>, volume: Uuid, replica: Uuid) {
        let control = Arc::clone(self);
        tokio::spawn(async move {
            let step = Step::Unlist { replica };
            if control.store.change(Change::Unlist { volume, replica }).await.is_err() {
                return control.fail(
                    volume,
                    step,
                    "it is named still, or the store cannot be written",
                );
            }
            let now = control.now();
            let mut inside = control.inside();
            if inside.ledger(volume).in_flight() == Some(step) {
                inside.ledger(volume).done(now);
            }
        });
    }
}
