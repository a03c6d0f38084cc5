//! Replicas: made, shared, enlarged, destroyed, listed.

use braid_api::v1;
use tonic::Code;

use super::model::LAYERS_MAX;
use super::{Bench, DISK_BYTES, OTHER, UUID, ok, refused, replica};

#[tokio::test]
async fn a_replica_is_made_and_made_again_without_a_change() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let request = v1::CreateReplicaRequest {
        uuid: UUID.into(),
        size_bytes: (1 << 20) - 1,
        block_bytes: 512,
        ..replica("r")
    };
    let made = ok(bench.client.create_replica(request.clone()).await);
    assert_eq!((made.uuid.as_str(), made.size_bytes, made.block_bytes), (UUID, 1 << 20, 512));
    let share = made.share.clone().unwrap();
    assert_eq!(share.nqn, format!("nqn.2026-01.io.braid:{UUID}"));
    assert_eq!((share.serial.len(), share.nguid.len(), share.nsid), (20, 32, 1));
    assert_eq!(ok(bench.client.create_replica(request.clone()).await), made);
    let unnamed = v1::CreateReplicaRequest { uuid: String::new(), ..request.clone() };
    assert_eq!(ok(bench.client.create_replica(unnamed).await), made);
    for other in [
        v1::CreateReplicaRequest { size_bytes: 2 << 20, ..request.clone() },
        v1::CreateReplicaRequest { block_bytes: 4096, ..request.clone() },
        v1::CreateReplicaRequest { thick: true, ..request.clone() },
        v1::CreateReplicaRequest { uuid: OTHER.into(), ..request.clone() },
        v1::CreateReplicaRequest { name: "q".into(), ..request },
    ] {
        refused(bench.client.create_replica(other).await, Code::AlreadyExists, "differs");
    }
}

#[tokio::test]
async fn what_cannot_be_a_replica_is_refused() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    for (request, word) in [
        (replica(""), "is empty"),
        (replica("a@b"), "@"),
        (replica(UUID), "UUID"),
        (v1::CreateReplicaRequest { size_bytes: 0, ..replica("r") }, "size_bytes"),
        (v1::CreateReplicaRequest { size_bytes: u64::MAX, ..replica("r") }, "too large"),
        (v1::CreateReplicaRequest { block_bytes: 1024, ..replica("r") }, "block_bytes 1024"),
        (v1::CreateReplicaRequest { uuid: "x".into(), ..replica("r") }, "uuid 'x'"),
        (v1::CreateReplicaRequest { pool: "x".into(), ..replica("r") }, "pool 'x'"),
    ] {
        refused(bench.client.create_replica(request).await, Code::InvalidArgument, word);
    }
    let elsewhere = v1::CreateReplicaRequest { pool: OTHER.into(), ..replica("r") };
    refused(bench.client.create_replica(elsewhere).await, Code::NotFound, OTHER);
    let nowhere = v1::CreateReplicaRequest { pool: "/no".into(), ..replica("r") };
    refused(bench.client.create_replica(nowhere).await, Code::NotFound, "/no");
    let thick =
        v1::CreateReplicaRequest { thick: true, size_bytes: 2 * DISK_BYTES, ..replica("r") };
    refused(bench.client.create_replica(thick).await, Code::ResourceExhausted, "no space");
    for number in 0..LAYERS_MAX {
        bench.replica(&format!("r{number}")).await;
    }
    let answer = bench.client.create_replica(replica("r")).await;
    refused(answer, Code::ResourceExhausted, "table");
}

#[tokio::test]
async fn calls_at_once_make_one_replica() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let calls = (0..8).map(|_| {
        let mut client = bench.client.clone();
        tokio::spawn(async move { ok(client.create_replica(replica("r")).await).uuid })
    });
    let mut uuids = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        uuids.push(call.await.unwrap());
    }
    uuids.dedup();
    assert_eq!(uuids.len(), 1);
}

#[tokio::test]
async fn sharing_ends_and_begins() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    bench.replica("r").await;
    let share = |hosts: &[&str]| v1::ShareReplicaRequest {
        pool: String::new(),
        replica: "r".into(),
        allowed_hosts: hosts.iter().map(ToString::to_string).collect(),
    };
    let unshare = || v1::UnshareReplicaRequest { pool: String::new(), replica: "r".into() };
    assert!(ok(bench.client.share_replica(share(&[])).await).share.is_some());
    let answer = bench.client.share_replica(share(&["nqn.h"])).await;
    refused(answer, Code::AlreadyExists, "unshare it first");
    for _ in 0..2 {
        assert_eq!(ok(bench.client.unshare_replica(unshare()).await).share, None);
    }
    let answer = bench.client.share_replica(share(&["host"])).await;
    refused(answer, Code::InvalidArgument, "'host'");
    let hosts = ["nqn.a", "nqn.b"];
    let shared = ok(bench.client.share_replica(share(&hosts)).await).share.unwrap();
    assert_eq!(shared.allowed_hosts, hosts);
    let turned = ["nqn.b", "nqn.a"];
    ok(bench.client.share_replica(share(&turned)).await);
    let unknown = v1::ShareReplicaRequest { replica: "q".into(), ..share(&[]) };
    refused(bench.client.share_replica(unknown).await, Code::NotFound, "replica list");
    let unknown = v1::UnshareReplicaRequest { replica: "q".into(), ..unshare() };
    refused(bench.client.unshare_replica(unknown).await, Code::NotFound, "replica list");
    let missing = v1::UnshareReplicaRequest::default();
    refused(bench.client.unshare_replica(missing).await, Code::InvalidArgument, "missing");
}

#[tokio::test]
async fn a_replica_grows_and_hosts_are_told() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let made = bench.replica("r").await;
    let resize = |size_bytes| v1::ResizeReplicaRequest {
        pool: String::new(),
        replica: "r".into(),
        size_bytes,
    };
    assert_eq!(ok(bench.client.resize_replica(resize(1 << 20)).await), made);
    assert_eq!(ok(bench.client.resize_replica(resize((2 << 20) - 5)).await).size_bytes, 2 << 20);
    let nqn = made.share.unwrap().nqn;
    assert_eq!(bench.manager.host.world().exposed[&nqn].geometry.bytes(), 2 << 20);
    let code = Code::InvalidArgument;
    refused(bench.client.resize_replica(resize(1 << 20)).await, code, "only grow");
    refused(bench.client.resize_replica(resize(0)).await, code, "size_bytes");
    let unknown = v1::ResizeReplicaRequest { replica: "q".into(), ..resize(1 << 20) };
    refused(bench.client.resize_replica(unknown).await, Code::NotFound, "replica list");
}

#[tokio::test]
async fn a_destroyed_replica_is_gone_for_all() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let made = bench.replica("r").await;
    bench.replica("s").await;
    let list = |pool: &str| v1::ListReplicasRequest { pool: pool.into() };
    assert_eq!(ok(bench.client.list_replicas(list("")).await).replicas.len(), 2);
    let destroy = v1::DestroyReplicaRequest { pool: String::new(), replica: made.uuid };
    assert!(ok(bench.client.destroy_replica(destroy.clone()).await).existed);
    assert!(!ok(bench.client.destroy_replica(destroy.clone()).await).existed);
    assert_eq!(bench.manager.host.world().exposures(), (1, 1), "for hosts, and for nexuses");
    let left = ok(bench.client.list_replicas(list(&made.pool)).await).replicas;
    assert_eq!(left.iter().map(|replica| replica.name.as_str()).collect::<Vec<_>>(), ["s"]);
    let elsewhere = v1::DestroyReplicaRequest { pool: OTHER.into(), ..destroy };
    refused(bench.client.destroy_replica(elsewhere).await, Code::NotFound, OTHER);
    refused(bench.client.list_replicas(list(OTHER)).await, Code::NotFound, OTHER);
}
