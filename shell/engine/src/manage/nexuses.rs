//! Volumes that this engine serves or stands by for, as the management shows and changes them: who
//! runs them is asked.

use braid_api::v1;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::host::Host;
use super::manager::Manager;

/// Questions that wait for whoever runs volumes: people ask few.
pub const ASKS_MAX: usize = 16;

/// What whoever runs volumes is asked. A volume is meant by its uuid or its name; none: the only
/// one.
#[derive(Debug)]
pub enum Ask {
    /// All of them, or this one.
    List(String, oneshot::Sender<Result<Vec<v1::Nexus>, Status>>),
    /// Have another pace.
    Pace(v1::SetRebuildPaceRequest, oneshot::Sender<Result<v1::Nexus, Status>>),
    /// What happened.
    History(String, oneshot::Sender<Result<Vec<v1::NexusEvent>, Status>>),
}

impl<H: Host> Manager<H> {
    /// `ListNexuses`.
    pub(crate) async fn list_nexuses(&self, volume: String) -> Result<Vec<v1::Nexus>, Status> {
        if self.nexuses.get().is_none() && volume.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(|answer| Ask::List(volume, answer)).await
    }

    /// `SetRebuildPace`.
    pub(crate) async fn set_rebuild_pace(
        &self,
        request: v1::SetRebuildPaceRequest,
    ) -> Result<v1::Nexus, Status> {
        self.ask(|answer| Ask::Pace(request, answer)).await
    }

    /// `GetNexusHistory`.
    pub(crate) async fn nexus_history(
        &self,
        volume: String,
    ) -> Result<Vec<v1::NexusEvent>, Status> {
        self.ask(|answer| Ask::History(volume, answer)).await
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> Ask,
    ) -> Result<T, Status> {
        let stops = || Status::unavailable("the engine stops");
        let Some(runner) = self.nexuses.get() else {
            return Err(Status::not_found(
                "this engine has no control plane, and no volume; start it with --control",
            ));
        };
        let (answer, answered) = oneshot::channel();
        let sent: Result<(), mpsc::error::SendError<Ask>> = runner.send(ask(answer)).await;
        sent.map_err(|_| stops())?;
        answered.await.map_err(|_| stops())?
    }
}
