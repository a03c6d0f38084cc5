//! Pools: made, imported, listed, grown, exported, destroyed.

use std::fs::{self, File};

use braid_api::v1::{self, PoolState, SharePolicy};
use braid_pool::{Failure, Refusal};
use tonic::Code;

use super::{Bench, DISK_BYTES, OTHER, UUID, ok, refused, replica};
use crate::manage::host::Home;

fn import(path: &str, uuid: &str) -> v1::ImportPoolRequest {
    v1::ImportPoolRequest { path: path.into(), uuid: uuid.into(), share: 0 }
}

fn named(pool: &str) -> v1::ExportPoolRequest {
    v1::ExportPoolRequest { pool: pool.into() }
}

#[tokio::test]
async fn a_pool_is_made_and_made_again_without_a_change() {
    let mut bench = Bench::new().await;
    let request = v1::CreatePoolRequest { uuid: UUID.into(), ..bench.create("a") };
    let pool = ok(bench.client.create_pool(request.clone()).await);
    assert_eq!((pool.uuid.as_str(), pool.disk_bytes), (UUID, DISK_BYTES));
    assert_eq!(pool.state, i32::from(PoolState::Open));
    assert_eq!(pool.share, i32::from(SharePolicy::All));
    assert_eq!(ok(bench.client.create_pool(request.clone()).await), pool);
    let other = v1::CreatePoolRequest { uuid: OTHER.into(), ..request.clone() };
    refused(bench.client.create_pool(other).await, Code::AlreadyExists, UUID);
    let larger = v1::CreatePoolRequest { size_bytes: 2 * DISK_BYTES, ..request.clone() };
    refused(bench.client.create_pool(larger).await, Code::AlreadyExists, "grow");
    let elsewhere = v1::CreatePoolRequest { path: bench.path("b"), ..request };
    refused(bench.client.create_pool(elsewhere).await, Code::AlreadyExists, "imported from");
    let listed = ok(bench.client.list_pools(v1::ListPoolsRequest {}).await).pools;
    assert_eq!(listed, [pool]);
}

#[tokio::test]
async fn what_cannot_be_a_pool_is_refused() {
    let mut bench = Bench::new().await;
    let good = bench.create("a");
    let refusals = [
        (v1::CreatePoolRequest { path: "a".into(), ..good.clone() }, "absolute"),
        (v1::CreatePoolRequest { uuid: "x".into(), ..good.clone() }, "uuid 'x'"),
        (v1::CreatePoolRequest { size_bytes: 1 << 20, ..good.clone() }, "16MiB"),
        (v1::CreatePoolRequest { journal_bytes: 1, ..good.clone() }, "journal_bytes"),
        (v1::CreatePoolRequest { share: 9, ..good.clone() }, "share"),
        (v1::CreatePoolRequest { allocation: 9, ..good.clone() }, "allocation"),
    ];
    for (request, word) in refusals {
        refused(bench.client.create_pool(request).await, Code::InvalidArgument, word);
    }
    let missing = v1::CreatePoolRequest { size_bytes: 0, ..good.clone() };
    refused(bench.client.create_pool(missing).await, Code::NotFound, "give a size");
    let nowhere = v1::CreatePoolRequest { path: bench.path("no/a"), ..good.clone() };
    refused(bench.client.create_pool(nowhere).await, Code::NotFound, "no folder");
    let device = v1::CreatePoolRequest { path: "/dev/no-such".into(), size_bytes: 0, ..good };
    refused(bench.client.create_pool(device).await, Code::NotFound, "device list");
    let folder = v1::CreatePoolRequest { path: bench.path(""), ..bench.create("") };
    refused(bench.client.create_pool(folder).await, Code::FailedPrecondition, "neither a file");
    assert!(fs::metadata(bench.path("a")).is_err(), "nothing was left behind");
}

#[tokio::test]
async fn what_holds_something_is_only_taken_by_force() {
    let mut bench = Bench::new().await;
    let write = |name: &str, offset: u64, bytes: &[u8]| {
        let path = bench.path(name);
        File::create(&path).unwrap().set_len(DISK_BYTES).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
    };
    write("xfs", 0, b"XFSB");
    write("table", 512, b"EFI PART");
    write("archive", 4711, b"precious");
    for (name, word) in [("xfs", "XFS"), ("table", "GPT"), ("archive", "data")] {
        let request = v1::CreatePoolRequest { size_bytes: 0, ..bench.create(name) };
        let code = Code::FailedPrecondition;
        refused(bench.client.create_pool(request.clone()).await, code, word);
        let request = v1::CreatePoolRequest { force: true, ..request };
        ok(bench.client.create_pool(request).await);
        let bytes = fs::read(bench.path(name)).unwrap();
        assert!(bytes[..1 << 20].iter().all(|byte| *byte == 0), "{name}: a mark is left");
    }
    let empty = v1::CreatePoolRequest { size_bytes: 0, ..bench.create("empty") };
    File::create(bench.path("empty")).unwrap();
    refused(bench.client.create_pool(empty).await, Code::FailedPrecondition, "is empty");
    let size = v1::CreatePoolRequest { size_bytes: 32 << 20, ..bench.create("odd") };
    File::create(bench.path("odd")).unwrap().set_len(DISK_BYTES).unwrap();
    refused(bench.client.create_pool(size).await, Code::FailedPrecondition, "not 33554432");
}

#[tokio::test]
async fn a_pool_that_could_not_be_made_leaves_nothing_behind() {
    let mut bench = Bench::new().await;
    let request = bench.create("a");
    let failed = Refusal::Device(braid_block::IoError::Device);
    bench.manager.host.world().refusal = Some(failed);
    let answer = bench.client.create_pool(request.clone()).await;
    refused(answer, Code::FailedPrecondition, "cannot be read or written");
    assert!(fs::metadata(bench.path("a")).is_err());
    // But what was there before stays.
    File::create(bench.path("a")).unwrap().set_len(DISK_BYTES).unwrap();
    bench.manager.host.world().refusal = Some(failed);
    let answer = bench.client.create_pool(request.clone()).await;
    refused(answer, Code::FailedPrecondition, "cannot be read or written");
    assert_eq!(fs::metadata(bench.path("a")).unwrap().len(), DISK_BYTES);
    ok(bench.client.create_pool(request).await);
}

#[tokio::test]
async fn a_full_file_system_leaves_nothing_behind() {
    let mut bench = Bench::new().await;
    let request =
        v1::CreatePoolRequest { size_bytes: 1 << 50, allocation: 0, ..bench.create("huge") };
    let status = bench.client.create_pool(request).await.unwrap_err();
    // Which of the two depends on the file system's own limits.
    let codes = [Code::ResourceExhausted, Code::FailedPrecondition];
    assert!(codes.contains(&status.code()), "{status}");
    assert!(fs::metadata(bench.path("huge")).is_err());
}

#[tokio::test]
async fn a_pool_is_exported_and_imported() {
    let mut bench = Bench::new().await;
    let pool = bench.pool("a").await;
    bench.replica("r").await;
    let path = pool.path.clone();
    assert!(ok(bench.client.export_pool(named(&pool.uuid)).await).existed);
    assert!(bench.manager.host.world().exposed.is_empty());
    assert!(!ok(bench.client.export_pool(named(&pool.uuid)).await).existed);
    assert!(!ok(bench.client.export_pool(named("")).await).existed);
    refused(bench.client.export_pool(named("x")).await, Code::InvalidArgument, "neither a uuid");

    let wrong = bench.client.import_pool(import(&path, OTHER)).await;
    refused(wrong, Code::AlreadyExists, &pool.uuid);
    let again = ok(bench.client.import_pool(import(&path, &pool.uuid)).await);
    assert_eq!((&again.uuid, again.replicas), (&pool.uuid, 1));
    assert_eq!(bench.manager.host.world().exposures(), (1, 1), "replicas are shared at import");
    assert_eq!(ok(bench.client.import_pool(import(&path, "")).await), again);
    refused(bench.client.import_pool(import(&path, OTHER)).await, Code::AlreadyExists, &pool.uuid);

    ok(bench.client.export_pool(named(&path)).await);
    let none = v1::ImportPoolRequest { share: SharePolicy::None.into(), ..import(&path, "") };
    ok(bench.client.import_pool(none).await);
    assert_eq!(bench.manager.host.world().exposures(), (0, 1), "for nexuses alone");
}

#[tokio::test]
async fn what_is_no_pool_is_not_imported() {
    let mut bench = Bench::new().await;
    let missing = import(&bench.path("missing"), "");
    refused(bench.client.import_pool(missing).await, Code::NotFound, "no such file");
    refused(bench.client.import_pool(import("a", "")).await, Code::InvalidArgument, "absolute");
    File::create(bench.path("plain")).unwrap().set_len(DISK_BYTES).unwrap();
    let plain = import(&bench.path("plain"), "");
    refused(bench.client.import_pool(plain.clone()).await, Code::FailedPrecondition, "no pool");
    for (refusal, code, word) in [
        (Refusal::Newer { version: 9, features: 4 }, Code::FailedPrecondition, "newer version"),
        (Refusal::Truncated { needs: 9, has: 8 }, Code::FailedPrecondition, "needs 9"),
        (Refusal::Damaged { device: 77 }, Code::FailedPrecondition, "byte 77"),
        (Refusal::Sector, Code::FailedPrecondition, "sectors of"),
        (Refusal::Device(braid_block::IoError::Media), Code::FailedPrecondition, "cannot be read"),
        (Refusal::Limit, Code::ResourceExhausted, "room"),
    ] {
        bench.manager.host.world().refusal = Some(refusal);
        refused(bench.client.import_pool(plain.clone()).await, code, word);
    }
}

#[tokio::test]
async fn a_disk_is_not_taken_from_another_engine() {
    let mut bench = Bench::new().await;
    let pool = bench.pool("a").await;
    let mut other = Bench::new().await;
    let code = Code::FailedPrecondition;
    refused(other.client.import_pool(import(&pool.path, "")).await, code, "in use by");
}

#[tokio::test]
async fn a_pool_grows_with_its_file() {
    let mut bench = Bench::new().await;
    let pool = bench.pool("a").await;
    let grow = |file_bytes| v1::GrowPoolRequest { pool: String::new(), file_bytes };
    assert_eq!(ok(bench.client.grow_pool(grow(0)).await), pool);
    let grown = ok(bench.client.grow_pool(grow(2 * DISK_BYTES)).await);
    assert_eq!((grown.disk_bytes, grown.capacity_bytes), (2 * DISK_BYTES, 2 * DISK_BYTES));
    assert_eq!(ok(bench.client.grow_pool(grow(2 * DISK_BYTES)).await), grown);
    refused(bench.client.grow_pool(grow(DISK_BYTES)).await, Code::InvalidArgument, "only grow");
    let unknown = v1::GrowPoolRequest { pool: OTHER.into(), file_bytes: 0 };
    refused(bench.client.grow_pool(unknown).await, Code::NotFound, OTHER);
    File::options().write(true).open(&pool.path).unwrap().set_len(DISK_BYTES).unwrap();
    refused(bench.client.grow_pool(grow(0)).await, Code::FailedPrecondition, "fewer");
}

#[tokio::test]
async fn a_pool_with_replicas_is_only_destroyed_by_force() {
    let mut bench = Bench::new().await;
    let pool = bench.pool("a").await;
    bench.replica("r").await;
    let destroy = |force| v1::DestroyPoolRequest { pool: pool.uuid.clone(), force };
    let code = Code::FailedPrecondition;
    refused(bench.client.destroy_pool(destroy(false)).await, code, "1 replicas");
    let unnamed = v1::DestroyPoolRequest { pool: String::new(), force: true };
    refused(bench.client.destroy_pool(unnamed).await, Code::InvalidArgument, "has to be named");
    assert_eq!(ok(bench.client.list_pools(v1::ListPoolsRequest {}).await).pools.len(), 1);
    assert!(ok(bench.client.destroy_pool(destroy(true)).await).existed);
    assert!(!ok(bench.client.destroy_pool(destroy(true)).await).existed);
    assert!(ok(bench.client.list_pools(v1::ListPoolsRequest {}).await).pools.is_empty());
    assert!(bench.manager.host.world().exposed.is_empty());
}

#[tokio::test]
async fn several_pools_are_named_and_spread_over_shards() {
    let mut bench = Bench::new().await;
    refused(bench.client.create_replica(replica("r")).await, Code::NotFound, "no pool is imported");
    let (first, second) = (bench.pool("a").await, bench.pool("b").await);
    assert_ne!(first.shard, second.shard);
    refused(bench.client.create_replica(replica("r")).await, Code::InvalidArgument, "name one");
    for pool in [&first.uuid, &second.path] {
        let request = v1::CreateReplicaRequest { pool: pool.clone(), ..replica("r") };
        ok(bench.client.create_replica(request).await);
    }
    let ambiguous = v1::DestroyReplicaRequest { pool: String::new(), replica: "r".into() };
    let destroyed = bench.client.destroy_replica(ambiguous).await;
    refused(destroyed, Code::InvalidArgument, "name the pool");
}

#[tokio::test]
async fn a_pool_that_failed_says_why_and_does_nothing() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    let home = Home { shard: 0, pool: 1 };
    bench.manager.host.world().fail(home);
    let note = braid_pool::Note::Failed {
        operation: braid_pool::Operation::Flush,
        offset: 4096,
        error: braid_block::IoError::Device,
    };
    bench.manager.told(crate::manage::host::Told { home, note, layer: None, left_out: 0 });
    let listed = ok(bench.client.list_pools(v1::ListPoolsRequest {}).await).pools;
    assert_eq!(listed[0].state, i32::from(PoolState::Failed));
    assert!(listed[0].reason.contains("a flush at byte 4096"), "{}", listed[0].reason);
    let answer = bench.client.create_replica(replica("r")).await;
    refused(answer, Code::FailedPrecondition, "import it again");
}

#[tokio::test]
async fn every_failure_of_a_pool_has_its_code() {
    let mut bench = Bench::new().await;
    bench.pool("a").await;
    for (failure, code) in [
        (Failure::NoSpace, Code::ResourceExhausted),
        (Failure::Limit, Code::ResourceExhausted),
        (Failure::Media(8), Code::DataLoss),
        (Failure::Failed, Code::FailedPrecondition),
        (Failure::NotFound, Code::NotFound),
        (Failure::Exists, Code::AlreadyExists),
        (Failure::Busy, Code::FailedPrecondition),
        (Failure::ReadOnly, Code::FailedPrecondition),
        (Failure::OutOfRange, Code::InvalidArgument),
        (Failure::Invalid, Code::InvalidArgument),
        (Failure::Stopping, Code::Unavailable),
    ] {
        bench.manager.host.world().failure = Some(failure);
        let answer = bench.client.create_replica(replica("r")).await;
        refused(answer, code, "cannot make the replica");
    }
    ok(bench.client.create_replica(replica("r")).await);
}

#[tokio::test]
async fn a_pool_is_found_by_its_uuid_where_its_path_changed() {
    let mut bench = Bench::new().await;
    let found = |name: &str| {
        // What a pool's superblock begins with, as far as it is recognised by.
        let mut mark = [0; 4096];
        mark[32..40].copy_from_slice(b"BRAIDPL1");
        mark[64..80].copy_from_slice(uuid::Uuid::parse_str(UUID).unwrap().as_bytes());
        fs::write(bench.path(name), mark.repeat(2)).unwrap();
    };
    fs::create_dir(bench.path("disks")).unwrap();
    let folder = bench.path("disks");
    let by_uuid = import(&folder, UUID);
    let missing = bench.client.clone().import_pool(by_uuid.clone()).await;
    refused(missing, Code::NotFound, "is not in");
    fs::write(bench.path("disks/other"), "something else").unwrap();
    found("disks/moved");
    std::os::unix::fs::symlink(bench.path("disks/moved"), bench.path("disks/link")).unwrap();
    // It is the model that opens it, and the model knows no such disk.
    let opened = bench.client.clone().import_pool(by_uuid.clone()).await;
    refused(opened, Code::FailedPrecondition, "disks/moved: holds no pool");
    found("disks/copy");
    let twice = bench.client.clone().import_pool(by_uuid).await;
    refused(twice, Code::InvalidArgument, "name the one");
    let nowhere = bench.client.import_pool(import("", OTHER)).await;
    refused(nowhere, Code::NotFound, "block devices of this machine");
    let unnamed = bench.client.import_pool(import("", "")).await;
    refused(unnamed, Code::InvalidArgument, "absolute");
}
