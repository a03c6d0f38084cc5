//! Changes that people asked for: committed first, so that they outlive this process and any
//! engine, then begun by the supervisor, and waited for here.

use std::time::Duration;

use braid_nexus::{Record, Uuid};
use braid_plan::Step;
use tonic::Status;

use crate::identity;
use crate::registry::{Control, is_final, tell};
use crate::store::{Spec, Stage, Volume};

/// How long a call waits: an owner that dies in the middle is replaced in half of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// How a wait ended without what was waited for.
#[derive(Debug)]
pub(super) enum Waited {
    /// An engine refused for good: it is wished for no more.
    Refused(Status),
    /// It is not so, or not yet.
    Not(Status),
}

impl Waited {
    pub(super) fn status(self) -> Status {
        match self {
            Self::Refused(status) | Self::Not(status) => status,
        }
    }
}

impl Control {
    /// A volume that can be changed, and its record.
    pub(super) fn changeable(&self, volume: &Uuid) -> Result<(Spec, Record), Status> {
        let found = self.store.read(|state| state.volumes.get(volume).cloned());
        let found = found.ok_or_else(|| Status::not_found("there is no such volume"))?;
        let spec = (*found.spec).clone();
        let refused = match (spec.stage, &found.record) {
            (Stage::Ready, Some(_)) if self.is_stale(volume) => {
                "the store is older than what replicas know of this volume; recover it first"
            }
            (Stage::Ready, Some(record)) => return Ok((spec, (**record).clone())),
            (Stage::Deleting, _) => "the volume is being deleted",
            _ => "the volume is being made",
        };
        Err(Status::failed_precondition(refused))
    }

    /// Forgets why such a change was refused before: it is asked for anew.
    pub(super) fn ask_anew(&self, volume: &Uuid, meant: impl Fn(&Step) -> bool) {
        self.inside().forget_refusals(volume, meant);
    }

    /// Waits until a change shows in what is committed: `look` tells when it does, or never will.
    /// `meant` are the steps that lead there.
    pub(super) async fn wait_until<T>(
        &self,
        volume: &Uuid,
        meant: impl Fn(&Step) -> bool,
        look: impl Fn(&Volume) -> Option<Result<T, Status>>,
    ) -> Result<T, Waited> {
        let begun = self.now();
        loop {
            let found = self.store.read(|state| state.volumes.get(volume).cloned());
            let Some(found) = found.filter(|found| found.spec.stage == Stage::Ready) else {
                return Err(Waited::Not(Status::aborted("the volume is being deleted")));
            };
            let refusal = self.inside().refusal(volume, &meant);
            match (look(&found), refusal) {
                (Some(Ok(seen)), _) => return Ok(seen),
                // The supervisor has ended the wish for that reason.
                (Some(Err(_)), Some((step, why))) if is_final(&step, why.code()) => {
                    self.inside().forget_refusals(volume, meant);
                    return Err(Waited::Refused(why));
                }
                (Some(Err(status)), refusal) => {
                    let why = refusal.map(|(_, why)| format!("; refused: {}", why.message()));
                    let text = format!("{}{}", status.message(), why.unwrap_or_default());
                    return Err(Waited::Not(Status::new(status.code(), text)));
                }
                (None, refusal) if self.now().since(begun) > PATIENCE => {
                    let why = refusal.map(|(_, why)| why.message().to_owned());
                    return Err(Waited::Not(self.late(volume, &found, why)));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What is told of a change that takes too long.
    fn late(&self, uuid: &Uuid, volume: &Volume, why: Option<String>) -> Status {
        let now = self.now();
        let inside = self.inside();
        let wanted = inside.wanted(uuid, volume);
        let alerts = tell(&braid_plan::alerts(uuid, &wanted, &inside.observed, now));
        let why = why.into_iter().chain(alerts).collect::<Vec<_>>().join("; ");
        let why = if why.is_empty() { "nobody says why".into() } else { why };
        Status::deadline_exceeded(format!(
            "volume {} is not so yet, and it is still being tried: {why}",
            identity::text(uuid)
        ))
    }
}
