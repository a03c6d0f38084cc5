//! Changes that people asked for, as orders.

use std::sync::Arc;

use braid_api::control as wire;
use braid_api::control::order::What;
use braid_nexus::Uuid;
use braid_plan::{Step, Wish};
use tonic::{Code, Status};

use super::{Control, Inside};
use crate::identity::text;
use crate::store::{Change, Done, Ended, unix_ms};

/// Refusals of a volume that are remembered, at most: of wishes that ended they are of no use once
/// whoever waited was told.
const REFUSALS_MAX: usize = 64;

impl Inside {
    /// An engine refused a change, whoever did so before; whether that is news.
    pub(super) fn refused(&mut self, volume: Uuid, step: Step, why: Status) -> bool {
        let refusals = self.refusals.entry(volume).or_default();
        let same = |known: &Step| known.anywhere() == step.anywhere();
        if refusals.len() >= REFUSALS_MAX {
            refusals.remove(0);
        }
        match refusals.iter_mut().find(|(known, _)| same(known)) {
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

    /// A volume cannot have what was asked for: that is wished for no more, and it is told why.
    pub(super) fn end(self: &Arc<Self>, volume: Uuid, wish: Wish) {
        let of_it = |step: &Step| step.wish() == Some(wish);
        let refusal = self.inside().refusal(&volume, of_it);
        let why = refusal.map(|(_, why)| why.message().to_owned());
        let why = why.unwrap_or_else(|| "the engine did not answer in time".into());
        let control = Arc::clone(self);
        tokio::spawn(async move {
            let step = Step::End { wish };
            let ended = Ended { what: String::new(), why: why.clone(), unix_s: unix_ms() / 1000 };
            match control.store.change(Change::End { volume, wish, ended }).await {
                Ok(Done::Done) => {
                    let what = control.store.read(|state| {
                        let ended = &state.volumes.get(&volume)?.spec.ended;
                        Some(ended.last()?.what.clone())
                    });
                    let what = what.unwrap_or_else(|| "what was asked for".into());
                    control.tell(&volume, format!("it does not get {what}: {why}"));
                }
                // It was taken back, or the record has it after all.
                Ok(_) => {}
                Err(_) => return control.fail(volume, step, "the store cannot be written"),
            }
            let now = control.now();
            let mut inside = control.inside();
            if inside.ledger(volume).in_flight() == Some(step) {
                inside.ledger(volume).done(now);
            }
        });
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

/// Whether an engine that refuses a step so refuses it for good.
pub(crate) const fn is_final(step: &Step, code: Code) -> bool {
    match (step, code) {
        (_, Code::ResourceExhausted | Code::InvalidArgument) => true,
        // A pool that is not there, a name that is taken: somebody has to see to that.
        (Step::MakeReplica { .. }, _) => {
            !matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        }
        _ => false,
    }
}
