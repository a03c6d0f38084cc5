//! The service as it is on the wire: each call goes to the manager and comes back as its answer.

use std::sync::Arc;

use braid_api::v1::engine_server::Engine;
use braid_api::v1::event::{FaultsSet, What};
use braid_api::v1::{self};
use braid_shard::{Fault, Injection};
use tonic::{Request, Response, Status};

use super::convert;
use super::devices;
use super::host::Host;
use super::hub::{About, Watch};
use super::manager::Manager;
use super::names::{NSID, Reference};

/// Answers calls.
#[derive(Debug)]
pub struct Service<H>(pub Arc<Manager<H>>);

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    result.map(Response::new)
}

#[tonic::async_trait]
impl<H: Host> Engine for Service<H> {
    async fn get_engine(&self, _: Request<v1::GetEngineRequest>) -> Answer<v1::EngineInfo> {
        let settings = &self.0.settings;
        answer(Ok(v1::EngineInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started_unix_s: self.0.started_unix_s,
            listen: settings.listen.clone(),
            shards: self.0.host.shards().into(),
            allows_injection: settings.allows_injection,
        }))
    }

    async fn create_pool(&self, request: Request<v1::CreatePoolRequest>) -> Answer<v1::Pool> {
        let manager = Arc::clone(&self.0);
        answer(unbroken(async move { manager.create_pool(request.into_inner()).await }).await)
    }

    async fn import_pool(&self, request: Request<v1::ImportPoolRequest>) -> Answer<v1::Pool> {
        let manager = Arc::clone(&self.0);
        answer(unbroken(async move { manager.import_pool(request.into_inner()).await }).await)
    }

    async fn export_pool(
        &self,
        request: Request<v1::ExportPoolRequest>,
    ) -> Answer<v1::ExportPoolResponse> {
        let manager = Arc::clone(&self.0);
        let pool = request.into_inner().pool;
        let existed = unbroken(async move { manager.export_pool(&pool).await }).await;
        answer(existed.map(|existed| v1::ExportPoolResponse { existed }))
    }

    async fn list_pools(&self, _: Request<v1::ListPoolsRequest>) -> Answer<v1::ListPoolsResponse> {
        answer(Ok(v1::ListPoolsResponse { pools: self.0.list_pools().await }))
    }

    async fn grow_pool(&self, request: Request<v1::GrowPoolRequest>) -> Answer<v1::Pool> {
        let manager = Arc::clone(&self.0);
        answer(unbroken(async move { manager.grow_pool(request.into_inner()).await }).await)
    }

    async fn destroy_pool(
        &self,
        request: Request<v1::DestroyPoolRequest>,
    ) -> Answer<v1::DestroyPoolResponse> {
        let manager = Arc::clone(&self.0);
        let v1::DestroyPoolRequest { pool, force } = request.into_inner();
        let existed = unbroken(async move { manager.destroy_pool(&pool, force).await }).await;
        answer(existed.map(|existed| v1::DestroyPoolResponse { existed }))
    }

    async fn create_replica(
        &self,
        request: Request<v1::CreateReplicaRequest>,
    ) -> Answer<v1::Replica> {
        let manager = Arc::clone(&self.0);
        answer(unbroken(async move { manager.create_replica(request.into_inner()).await }).await)
    }

    async fn share_replica(
        &self,
        request: Request<v1::ShareReplicaRequest>,
    ) -> Answer<v1::Replica> {
        let v1::ShareReplicaRequest { pool, replica, allowed_hosts } = request.into_inner();
        let reference = Reference::replica(&replica)?;
        let manager = Arc::clone(&self.0);
        let done =
            unbroken(
                async move { manager.share_one(&pool, &reference, false, allowed_hosts).await },
            );
        answer(done.await.map(|(held, layer)| convert::replica(&held.pool, &layer)))
    }

    async fn unshare_replica(
        &self,
        request: Request<v1::UnshareReplicaRequest>,
    ) -> Answer<v1::Replica> {
        let v1::UnshareReplicaRequest { pool, replica } = request.into_inner();
        let reference = Reference::replica(&replica)?;
        let manager = Arc::clone(&self.0);
        let done = unbroken(async move { manager.unshare_one(&pool, &reference, false).await });
        answer(done.await.map(|(held, layer)| convert::replica(&held.pool, &layer)))
    }

    async fn resize_replica(
        &self,
        request: Request<v1::ResizeReplicaRequest>,
    ) -> Answer<v1::Replica> {
        let manager = Arc::clone(&self.0);
        answer(unbroken(async move { manager.resize_replica(request.into_inner()).await }).await)
    }

    async fn destroy_replica(
        &self,
        request: Request<v1::DestroyReplicaRequest>,
    ) -> Answer<v1::DestroyReplicaResponse> {
        let manager = Arc::clone(&self.0);
        let done = unbroken(async move { manager.destroy_replica(request.into_inner()).await });
        answer(done.await.map(|existed| v1::DestroyReplicaResponse { existed }))
    }

    async fn list_replicas(
        &self,
        request: Request<v1::ListReplicasRequest>,
    ) -> Answer<v1::ListReplicasResponse> {
        let replicas = self.0.list_replicas(&request.into_inner().pool).await;
        answer(replicas.map(|replicas| v1::ListReplicasResponse { replicas }))
    }

    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Answer<v1::Snapshot> {
        let manager = Arc::clone(&self.0);
        answer(unbroken(async move { manager.create_snapshot(request.into_inner()).await }).await)
    }

    async fn destroy_snapshot(
        &self,
        request: Request<v1::DestroySnapshotRequest>,
    ) -> Answer<v1::DestroySnapshotResponse> {
        let manager = Arc::clone(&self.0);
        let done = unbroken(async move { manager.destroy_snapshot(request.into_inner()).await });
        answer(done.await.map(|existed| v1::DestroySnapshotResponse { existed }))
    }

    async fn clone_snapshot(
        &self,
        request: Request<v1::CloneSnapshotRequest>,
    ) -> Answer<v1::Replica> {
        let manager = Arc::clone(&self.0);
        answer(unbroken(async move { manager.clone_snapshot(request.into_inner()).await }).await)
    }

    async fn share_snapshot(
        &self,
        request: Request<v1::ShareSnapshotRequest>,
    ) -> Answer<v1::Snapshot> {
        let v1::ShareSnapshotRequest { pool, snapshot, allowed_hosts } = request.into_inner();
        let reference = Reference::snapshot(&snapshot)?;
        let manager = Arc::clone(&self.0);
        answer(
            unbroken(async move {
                let shared = manager.share_one(&pool, &reference, true, allowed_hosts).await;
                let (held, layer) = shared?;
                manager.snapshot_on_wire(&held, &layer).await
            })
            .await,
        )
    }

    async fn unshare_snapshot(
        &self,
        request: Request<v1::UnshareSnapshotRequest>,
    ) -> Answer<v1::Snapshot> {
        let v1::UnshareSnapshotRequest { pool, snapshot } = request.into_inner();
        let reference = Reference::snapshot(&snapshot)?;
        let manager = Arc::clone(&self.0);
        answer(
            unbroken(async move {
                let (held, layer) = manager.unshare_one(&pool, &reference, true).await?;
                manager.snapshot_on_wire(&held, &layer).await
            })
            .await,
        )
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Answer<v1::ListSnapshotsResponse> {
        let snapshots = self.0.list_snapshots(&request.into_inner()).await;
        answer(snapshots.map(|snapshots| v1::ListSnapshotsResponse { snapshots }))
    }

    async fn list_devices(
        &self,
        _: Request<v1::ListDevicesRequest>,
    ) -> Answer<v1::ListDevicesResponse> {
        let ours = self.0.pools().iter().map(|pool| (pool.path.clone(), pool.uuid)).collect();
        let listed = tokio::task::spawn_blocking(move || devices::list(ours)).await;
        let devices = listed.map_err(|error| Status::internal(error.to_string()));
        answer(devices.map(|devices| v1::ListDevicesResponse { devices }))
    }

    async fn start_scrub(&self, request: Request<v1::StartScrubRequest>) -> Answer<v1::Scrub> {
        answer(self.0.start_scrub(request.into_inner()).await)
    }

    async fn stop_scrub(&self, request: Request<v1::StopScrubRequest>) -> Answer<v1::Scrub> {
        answer(self.0.stop_scrub(&request.into_inner().pool).await)
    }

    async fn get_scrub(&self, request: Request<v1::GetScrubRequest>) -> Answer<v1::Scrub> {
        answer(self.0.get_scrub(&request.into_inner().pool).await)
    }

    async fn set_faults(
        &self,
        request: Request<v1::SetFaultsRequest>,
    ) -> Answer<v1::SetFaultsResponse> {
        answer(self.0.set_faults(request.into_inner()).await)
    }

    async fn list_ana_groups(
        &self,
        request: Request<v1::ListAnaGroupsRequest>,
    ) -> Answer<v1::ListAnaGroupsResponse> {
        let groups = self.0.list_ana_groups(&request.into_inner().nqn).await;
        answer(Ok(v1::ListAnaGroupsResponse { groups }))
    }

    async fn set_ana_state(
        &self,
        request: Request<v1::SetAnaStateRequest>,
    ) -> Answer<v1::SetAnaStateResponse> {
        answer(self.0.set_ana_state(request.into_inner()).await)
    }

    async fn list_nexuses(
        &self,
        request: Request<v1::ListNexusesRequest>,
    ) -> Answer<v1::ListNexusesResponse> {
        let nexuses = self.0.list_nexuses(request.into_inner().volume).await;
        answer(nexuses.map(|nexuses| v1::ListNexusesResponse { nexuses }))
    }

    async fn set_rebuild_pace(
        &self,
        request: Request<v1::SetRebuildPaceRequest>,
    ) -> Answer<v1::Nexus> {
        answer(self.0.set_rebuild_pace(request.into_inner()).await)
    }

    async fn get_nexus_history(
        &self,
        request: Request<v1::GetNexusHistoryRequest>,
    ) -> Answer<v1::GetNexusHistoryResponse> {
        let events = self.0.nexus_history(request.into_inner().volume).await;
        answer(events.map(|events| v1::GetNexusHistoryResponse { events }))
    }

    async fn list_namespaces(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Answer<v1::ListNamespacesResponse> {
        let namespaces = self.0.list_namespaces(&request.into_inner().nqn).await;
        answer(Ok(v1::ListNamespacesResponse { namespaces }))
    }

    async fn attach_namespace(
        &self,
        request: Request<v1::AttachNamespaceRequest>,
    ) -> Answer<v1::Namespace> {
        let manager = Arc::clone(&self.0);
        answer(unbroken(async move { manager.attach_namespace(request.into_inner()).await }).await)
    }

    async fn detach_namespace(
        &self,
        request: Request<v1::DetachNamespaceRequest>,
    ) -> Answer<v1::DetachNamespaceResponse> {
        let manager = Arc::clone(&self.0);
        let work = async move { manager.detach_namespace(request.into_inner()).await };
        let existed = unbroken(work).await;
        answer(existed.map(|existed| v1::DetachNamespaceResponse { existed }))
    }

    type WatchEventsStream = Watch;

    async fn watch_events(&self, _: Request<v1::WatchEventsRequest>) -> Answer<Watch> {
        answer(Ok(self.0.hub.watch()))
    }
}

impl<H: Host> Manager<H> {
    /// `SetFaults`.
    async fn set_faults(
        &self,
        request: v1::SetFaultsRequest,
    ) -> Result<v1::SetFaultsResponse, Status> {
        let v1::SetFaultsRequest { nqn, nsid, faults, pool } = request;
        if !self.settings.allows_injection {
            return Err(Status::failed_precondition(
                "faults are injected into tests only; start the engine with --allow-injection",
            ));
        }
        let faults = faults.iter().map(convert::fault).collect::<Result<Vec<_>, _>>()?;
        if nqn.is_empty() && !pool.is_empty() {
            return self.set_disk_faults(&pool, faults).await;
        }
        if nqn.is_empty() {
            return Err(Status::invalid_argument("nqn is missing: which subsystem?"));
        }
        let nsid = if nsid == 0 { NSID } else { nsid };
        let count = u32::try_from(faults.len()).unwrap_or(u32::MAX);
        if !self.host.inject(&nqn, nsid, faults).await {
            return Err(Status::not_found(format!("namespace {nsid} of {nqn} is not served here")));
        }
        let text = format!("{count} faults are set for namespace {nsid} of {nqn}");
        let what = What::FaultsSet(FaultsSet { nqn, nsid, faults: count });
        self.hub.tell(About::default(), text, what);
        Ok(v1::SetFaultsResponse {})
    }

    async fn set_disk_faults(
        &self,
        pool: &str,
        faults: Vec<Injection>,
    ) -> Result<v1::SetFaultsResponse, Status> {
        if faults.iter().any(|injection| injection.fault == Fault::Corrupt) {
            return Err(Status::invalid_argument(
                "a pool's disk cannot be made to lie: change its file while no engine has it",
            ));
        }
        let pool = self.pool(pool)?;
        let count = u32::try_from(faults.len()).unwrap_or(u32::MAX);
        let path = pool.path.display();
        if !self.host.inject_disk(pool.home, faults).await {
            return Err(Status::not_found(format!("pool {path} has been closed")));
        }
        let text = format!("{count} faults are set for the disk of pool {path}");
        let what = What::FaultsSet(FaultsSet { nqn: String::new(), nsid: 0, faults: count });
        self.hub.tell(About::pool(pool.uuid), text, what);
        Ok(v1::SetFaultsResponse {})
    }

    async fn snapshot_on_wire(
        &self,
        held: &super::manager::Held,
        layer: &braid_pool::LayerInfo,
    ) -> Result<v1::Snapshot, Status> {
        let layers = self.picture(&held.pool).await?.layers;
        Ok(convert::snapshot(&held.pool, layer, &layers))
    }
}

/// Does the work to its end even if the caller goes away: a change that is half done would leave
/// a pool that is open and in no table.
async fn unbroken<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(format!("the work ended badly: {error}"))))
}
