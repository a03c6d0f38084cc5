//! Volumes, for people and programs.

use std::sync::Arc;
use std::time::Duration;

use braid_api::control as wire;
use braid_api::control::volumes_server::Volumes;
use braid_nexus::Uuid;
use braid_plan::Asked;
use tonic::{Request, Response, Status};

use super::{Service, refused};
use crate::identity;
use crate::registry::Control;
use crate::store::{Change, Done, Stage};

/// How long a call waits for another owner: a fence that waits for a member that is gone, and the
/// rest of a take-over, twice.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Volumes for Service {
    async fn create(&self, request: Request<wire::CreateRequest>) -> Answer<wire::Volume> {
        let control = Arc::clone(&self.0);
        to_its_end(async move { control.create(request.into_inner()).await }).await
    }

    async fn list(&self, _: Request<wire::ListRequest>) -> Answer<wire::ListResponse> {
        Ok(Response::new(wire::ListResponse { volumes: self.0.volumes() }))
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Answer<wire::Volume> {
        let volume = self.0.reference(&request.into_inner().volume)?;
        self.0.volume(&volume).map(Response::new)
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Answer<wire::DeleteResponse> {
        let wire::DeleteRequest { volume, force } = request.into_inner();
        let Ok(volume) = self.0.reference(&volume) else {
            return Ok(Response::new(wire::DeleteResponse { existed: false }));
        };
        let forgotten = self.0.forgotten(&volume, force);
        let done = self.0.store.change(Change::Delete { volume, forgotten }).await;
        let existed = done.map_err(refused)? != Done::Absent;
        Ok(Response::new(wire::DeleteResponse { existed }))
    }

    async fn take_over(&self, request: Request<wire::TakeOverRequest>) -> Answer<wire::Volume> {
        let wire::TakeOverRequest { volume, engine, force } = request.into_inner();
        self.0.move_to(&volume, &engine, false, force).await.map(Response::new)
    }

    async fn hand_over(&self, request: Request<wire::HandOverRequest>) -> Answer<wire::Volume> {
        let wire::HandOverRequest { volume, engine } = request.into_inner();
        self.0.move_to(&volume, &engine, true, false).await.map(Response::new)
    }

    async fn resize(&self, request: Request<wire::ResizeRequest>) -> Answer<wire::Volume> {
        let control = Arc::clone(&self.0);
        to_its_end(async move { control.resize(request.into_inner()).await }).await
    }

    async fn add_member(&self, request: Request<wire::AddMemberRequest>) -> Answer<wire::Volume> {
        let control = Arc::clone(&self.0);
        to_its_end(async move { control.add_member(request.into_inner()).await }).await
    }

    async fn remove_member(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Answer<wire::RemoveMemberResponse> {
        let existed = self.0.remove_member(request.into_inner()).await?;
        Ok(Response::new(wire::RemoveMemberResponse { existed }))
    }

    async fn create_snapshot(
        &self,
        request: Request<wire::CreateSnapshotRequest>,
    ) -> Answer<wire::Snapshot> {
        let control = Arc::clone(&self.0);
        to_its_end(async move { control.create_snapshot(request.into_inner()).await }).await
    }

    async fn list_snapshots(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Answer<wire::ListSnapshotsResponse> {
        let snapshots = self.0.snapshots(&request.into_inner().volume)?;
        Ok(Response::new(wire::ListSnapshotsResponse { snapshots }))
    }

    async fn destroy_snapshot(
        &self,
        request: Request<wire::DestroySnapshotRequest>,
    ) -> Answer<wire::DestroySnapshotResponse> {
        let existed = self.0.destroy_snapshot(request.into_inner()).await?;
        Ok(Response::new(wire::DestroySnapshotResponse { existed }))
    }

    async fn history(
        &self,
        request: Request<wire::HistoryRequest>,
    ) -> Answer<wire::HistoryResponse> {
        let volume = self.0.reference(&request.into_inner().volume)?;
        let events = self.0.store.history(volume).await.map_err(refused)?;
        let event = |happened: crate::store::Happened| wire::HistoryEvent {
            unix_ms: happened.unix_ms,
            text: happened.text,
        };
        let events = events.into_iter().map(event).collect();
        Ok(Response::new(wire::HistoryResponse { events }))
    }

    async fn recover(&self, request: Request<wire::RecoverRequest>) -> Answer<wire::Volume> {
        self.0.recover(request.into_inner()).await.map(Response::new)
    }

    async fn list_engines(
        &self,
        _: Request<wire::ListEnginesRequest>,
    ) -> Answer<wire::ListEnginesResponse> {
        Ok(Response::new(wire::ListEnginesResponse { engines: self.0.engines() }))
    }
}

/// Does it even if the caller goes away: what cannot be done is taken back.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Answer<T> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(error.to_string()))).map(Response::new)
}

impl Control {
    /// Replicas whose end nobody waits for when a volume is deleted: those that never became a
    /// part of it, and by force those whose engines are not connected.
    fn forgotten(&self, volume: &Uuid, force: bool) -> Vec<Uuid> {
        let spec = self.store.read(|state| Some(Arc::clone(&state.volumes.get(volume)?.spec)));
        let Some(spec) = spec else { return Vec::new() };
        let inside = self.inside();
        let unused = spec.stage == Stage::Creating;
        let forgotten = spec.places.iter().filter(|place| {
            let engine = inside.engines.get(&place.engine);
            let connected = engine.is_some_and(crate::registry::Engine::is_connected);
            (force && !connected) || (unused && place.given)
        });
        forgotten.map(|place| place.replica).collect()
    }

    /// `TakeOver` and `HandOver`.
    async fn move_to(
        &self,
        reference: &str,
        engine: &str,
        orderly: bool,
        force: bool,
    ) -> Result<wire::Volume, Status> {
        let volume = self.reference(reference)?;
        let now = self.now();
        let owner = self.owner(&volume)?;
        let number = {
            let mut inside = self.inside();
            let meant = if engine.is_empty() { None } else { Some(inside.engine(engine)?) };
            let serving = owner.and_then(|owner| inside.serving(&volume, &owner, now));
            if serving.is_some() && serving == meant {
                drop(inside);
                return self.volume(&volume);
            }
            if orderly && serving.is_none() {
                return Err(Status::failed_precondition("no engine serves it: use a take-over"));
            }
            let able = |uuid: &Uuid| {
                Some(*uuid) != serving
                    && meant.is_none_or(|meant| meant == *uuid)
                    && inside.engines.get(uuid).is_some_and(crate::registry::Engine::is_connected)
                    && inside.observed.is_alive(uuid, now)
            };
            if !inside.engines.keys().any(able) {
                return Err(Status::failed_precondition(match meant {
                    Some(meant) => format!("engine {} is not connected", inside.node(&meant)),
                    None => "no other engine is connected".into(),
                }));
            }
            let answered = inside.observed.ledgers.get(&volume).map_or(0, |l| l.answered());
            let last = inside.asked.get(&volume).map_or(0, |asked| asked.number).max(answered);
            let asked = Asked { number: last + 1, engine: meant, orderly, force };
            inside.asked.insert(volume, asked);
            asked.number
        };
        let how = match (orderly, force) {
            (true, _) => "a hand-over was asked for",
            (_, true) => "a take-over by force was asked for",
            _ => "a take-over was asked for",
        };
        self.store.note(volume, how.into());
        self.wait_for(volume, number, owner).await
    }

    /// The owner that a volume's record names.
    fn owner(&self, volume: &Uuid) -> Result<Option<Uuid>, Status> {
        let record = self.store.read(|state| state.volumes.get(volume)?.record.clone());
        let record = record.ok_or_else(|| {
            Status::failed_precondition("the volume is being made, or being deleted")
        })?;
        if self.is_stale(volume) {
            return Err(Status::failed_precondition(
                "the store is older than what replicas know of this volume; recover it first",
            ));
        }
        Ok((record.owner != [0; 16]).then_some(record.owner))
    }

    /// Waits until a request is done with.
    async fn wait_for(
        &self,
        volume: Uuid,
        number: u64,
        before: Option<Uuid>,
    ) -> Result<wire::Volume, Status> {
        let begun = self.now();
        loop {
            tokio::time::sleep(LOOK).await;
            let owner = self.owner(&volume)?;
            let now = self.now();
            {
                let inside = self.inside();
                let ledger = inside.observed.ledgers.get(&volume);
                let answered = ledger.is_some_and(|ledger| ledger.answered() >= number);
                let moved = owner != before;
                let serves = owner.is_some_and(|o| inside.serving(&volume, &o, now).is_some());
                if answered && moved && serves {
                    drop(inside);
                    return self.volume(&volume);
                }
                if answered && !moved {
                    let why = inside.failures.get(&volume).cloned();
                    return Err(Status::failed_precondition(
                        why.unwrap_or_else(|| "it was not done".into()),
                    ));
                }
            }
            if now.since(begun) > PATIENCE {
                return Err(Status::deadline_exceeded(format!(
                    "volume {} does not move yet; it is still being tried",
                    identity::text(&volume)
                )));
            }
        }
    }
}
