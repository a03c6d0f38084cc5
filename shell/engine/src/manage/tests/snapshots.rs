//! Snapshots: taken, shared, cloned, destroyed, listed.

use braid_api::v1;
use tonic::Code;

use super::model::LAYERS_MAX;
use super::{Bench, OTHER, UUID, ok, refused, replica};
use crate::manage::host::Exposed;

fn take(replica: &str, name: &str) -> v1::CreateSnapshotRequest {
    v1::CreateSnapshotRequest {
        replica: replica.into(),
        name: name.into(),
        ..v1::CreateSnapshotRequest::default()
    }
}

fn clone(snapshot: &str, name: &str) -> v1::CloneSnapshotRequest {
    v1::CloneSnapshotRequest {
        snapshot: snapshot.into(),
        name: name.into(),
        ..v1::CloneSnapshotRequest::default()
    }
}

async fn bench() -> (Bench, v1::Replica) {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let replica = bench.replica("r").await;
    (bench, replica)
}

#[tokio::test]
async fn a_snapshot_is_taken_and_taken_again_without_a_change() {
    let (mut bench, replica) = bench().await;
    let request = v1::CreateSnapshotRequest { uuid: UUID.into(), ..take("r", "daily") };
    let taken = ok(bench.client.create_snapshot(request.clone()).await);
    assert_eq!((&taken.replica, taken.replica_name.as_str()), (&replica.uuid, "r"));
    assert_eq!((taken.uuid.as_str(), taken.size_bytes), (UUID, 1 << 20));
    assert_eq!(taken.share, None, "snapshots are shared on request");
    assert_eq!(ok(bench.client.create_snapshot(request.clone()).await), taken);
    assert_eq!(ok(bench.client.create_snapshot(take(&replica.uuid, "daily")).await), taken);
    for other in [
        v1::CreateSnapshotRequest { uuid: OTHER.into(), ..request.clone() },
        v1::CreateSnapshotRequest { name: "weekly".into(), ..request.clone() },
        v1::CreateSnapshotRequest { uuid: replica.uuid.clone(), ..request },
    ] {
        refused(bench.client.create_snapshot(other).await, Code::AlreadyExists, "differs");
    }
    // Another replica may have one of that name.
    bench.replica("q").await;
    ok(bench.client.create_snapshot(take("q", "daily")).await);
}

#[tokio::test]
async fn a_thick_replica_is_made_again_without_a_change_though_a_snapshot_made_it_thin() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let request = v1::CreateReplicaRequest { uuid: UUID.into(), thick: true, ..replica("r") };
    assert!(ok(bench.client.create_replica(request.clone()).await).thick);
    ok(bench.client.create_snapshot(take("r", "daily")).await);
    let unnamed = v1::CreateReplicaRequest { uuid: String::new(), ..request.clone() };
    for again in [request.clone(), unnamed] {
        let made = ok(bench.client.create_replica(again).await);
        assert_eq!((made.uuid.as_str(), made.thick), (UUID, false));
    }
    for other in [
        v1::CreateReplicaRequest { size_bytes: 2 << 20, ..request.clone() },
        v1::CreateReplicaRequest { uuid: OTHER.into(), ..request },
    ] {
        refused(bench.client.create_replica(other).await, Code::AlreadyExists, "differs");
    }
}

#[tokio::test]
async fn what_cannot_be_a_snapshot_is_refused() {
    let (mut bench, _) = bench().await;
    for (request, code, word) in [
        (take("r", ""), Code::InvalidArgument, "is empty"),
        (take("", "s"), Code::InvalidArgument, "missing"),
        (take("q", "s"), Code::NotFound, "replica list"),
        (
            v1::CreateSnapshotRequest { uuid: "x".into(), ..take("r", "s") },
            Code::InvalidArgument,
            "uuid 'x'",
        ),
        (v1::CreateSnapshotRequest { pool: OTHER.into(), ..take("r", "s") }, Code::NotFound, OTHER),
    ] {
        refused(bench.client.create_snapshot(request).await, code, word);
    }
    for number in 1..LAYERS_MAX {
        ok(bench.client.create_snapshot(take("r", &format!("s{number}"))).await);
    }
    let answer = bench.client.create_snapshot(take("r", "s")).await;
    refused(answer, Code::ResourceExhausted, "table");
    let answer = bench.client.clone_snapshot(clone("r@s1", "c")).await;
    refused(answer, Code::ResourceExhausted, "table");
}

#[tokio::test]
async fn a_clone_is_a_replica_of_its_own() {
    let (mut bench, _) = bench().await;
    let taken = ok(bench.client.create_snapshot(take("r", "s")).await);
    let made = ok(bench.client.clone_snapshot(clone("r@s", "c")).await);
    assert_eq!((&made.snapshot, made.size_bytes), (&taken.uuid, 1 << 20));
    assert!(made.share.is_some());
    assert_eq!(ok(bench.client.clone_snapshot(clone(&taken.uuid, "c")).await), made);
    for (request, code, word) in [
        (clone("r@s", "r"), Code::AlreadyExists, "differs"),
        (
            v1::CloneSnapshotRequest { uuid: OTHER.into(), ..clone("r@s", "c") },
            Code::AlreadyExists,
            "differs",
        ),
        (
            v1::CloneSnapshotRequest { uuid: taken.uuid.clone(), ..clone("r@s", "d") },
            Code::AlreadyExists,
            "differs",
        ),
        (clone("r@t", "d"), Code::NotFound, "snapshot list"),
        (clone("s", "d"), Code::InvalidArgument, "REPLICA@NAME"),
        (clone("r@s", ""), Code::InvalidArgument, "is empty"),
    ] {
        refused(bench.client.clone_snapshot(request).await, code, word);
    }
    // A plain replica of the clone's name is not what is there.
    refused(bench.client.create_replica(replica("c")).await, Code::AlreadyExists, "made of");
}

#[tokio::test]
async fn a_snapshot_is_shared_under_names_of_its_own() {
    let (mut bench, replica) = bench().await;
    let taken = ok(bench.client.create_snapshot(take("r", "s")).await);
    let share = v1::ShareSnapshotRequest { snapshot: "r@s".into(), ..Default::default() };
    let shared = ok(bench.client.share_snapshot(share.clone()).await).share.unwrap();
    assert_ne!(shared.nqn, replica.share.unwrap().nqn);
    let what = bench.manager.host.world().exposed[&shared.nqn].what;
    assert!(matches!(what, Exposed::Layer { read_only: true, .. }));
    ok(bench.client.share_snapshot(share.clone()).await);
    let hosts = v1::ShareSnapshotRequest { allowed_hosts: vec!["nqn.h".into()], ..share };
    refused(bench.client.share_snapshot(hosts).await, Code::AlreadyExists, "unshare");
    let unshare = v1::UnshareSnapshotRequest { snapshot: taken.uuid, ..Default::default() };
    for _ in 0..2 {
        assert_eq!(ok(bench.client.unshare_snapshot(unshare.clone()).await).share, None);
    }
    let unknown = v1::UnshareSnapshotRequest { snapshot: "r@t".into(), ..Default::default() };
    refused(bench.client.unshare_snapshot(unknown).await, Code::NotFound, "snapshot list");
    let unknown = v1::ShareSnapshotRequest { snapshot: OTHER.into(), ..Default::default() };
    refused(bench.client.share_snapshot(unknown).await, Code::NotFound, "snapshot list");
}

#[tokio::test]
async fn snapshots_outlive_their_replica() {
    let (mut bench, replica) = bench().await;
    let taken = ok(bench.client.create_snapshot(take("r", "s")).await);
    let list =
        |replica: &str| v1::ListSnapshotsRequest { pool: String::new(), replica: replica.into() };
    let listed = ok(bench.client.list_snapshots(list("r")).await).snapshots;
    assert_eq!(listed, std::slice::from_ref(&taken));
    let destroy = v1::DestroyReplicaRequest { pool: String::new(), replica: "r".into() };
    ok(bench.client.destroy_replica(destroy).await);
    let orphan = v1::Snapshot { replica_name: String::new(), ..taken };
    for by in ["", &replica.uuid] {
        let listed = ok(bench.client.list_snapshots(list(by)).await).snapshots;
        assert_eq!(listed, std::slice::from_ref(&orphan));
    }
    refused(bench.client.list_snapshots(list("r")).await, Code::NotFound, "no replica 'r'");
    let destroy = |snapshot: String| v1::DestroySnapshotRequest { pool: String::new(), snapshot };
    let by_replica = format!("{}@s", replica.uuid);
    assert!(ok(bench.client.destroy_snapshot(destroy(by_replica.clone())).await).existed);
    assert!(!ok(bench.client.destroy_snapshot(destroy(by_replica)).await).existed);
    refused(
        bench.client.destroy_snapshot(destroy("s".into())).await,
        Code::InvalidArgument,
        "REPLICA@NAME",
    );
}
