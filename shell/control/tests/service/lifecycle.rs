//! Volumes come and go, and come back from their replicas.

use std::time::{Duration, Instant};

use braid_api::control::{self as wire, VolumeState};
use tonic::Code;

use super::engine::{Engine, Manners};
use super::process::{Control, Folder, run};
use super::supervise::{Shared, connected, create, three, well};

#[tokio::test]
async fn what_is_asked_for_twice_is_made_once_and_what_differs_is_refused() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    let again = create(&control, "db", &["n1", "n2", "n3"]).await.unwrap();
    assert_eq!(again.uuid, volume.uuid);
    assert!(engines.iter().all(|engine| engine.replicas() == 1));
    let differs = create(&control, "db", &["n1", "n2"]).await.unwrap_err();
    assert_eq!(differs.code(), Code::AlreadyExists);
    let twice = create(&control, "two", &["n1", "n1"]).await.unwrap_err();
    assert_eq!(twice.code(), Code::InvalidArgument, "{twice}");
    let missing = create(&control, "far", &["n1", "n7"]).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    let none = create(&control, "none", &[]).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument, "{none}");
}

#[tokio::test]
async fn a_volume_that_one_engine_has_no_room_for_leaves_nothing_behind() {
    let folder = Folder::new();
    let control = Control::start(&folder);
    let cluster = Shared::default();
    let first = Engine::start(&control.address, "n1", &cluster).await;
    let second = Engine::start(&control.address, "n2", &cluster).await;
    connected(&control, 2).await;
    let refuses = Some((Code::ResourceExhausted, "no space in pool".into()));
    second.set(Manners { refuses, ..Manners::default() });
    let refused = create(&control, "db", &["n1", "n2"]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("engine n2: no space in pool"), "{refused}");
    second.set(Manners::default());
    gone(&control, "db").await;
    assert_eq!(first.replicas(), 0);
    create(&control, "db", &["n1", "n2"]).await.unwrap();
}

async fn gone(control: &Control, name: &str) {
    let begun = Instant::now();
    while let Some(volume) = control.volume(name).await {
        assert!(begun.elapsed() < Duration::from_secs(40), "{volume:?}\n{}", control.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_volume_is_deleted_with_its_paths_and_replicas() {
    let folder = Folder::new();
    let (control, engines, _cluster, _) = three(&folder).await;
    let asked = control.ask(&["volume", "delete", "db"]).await;
    assert_eq!(asked.code, Some(2), "nobody is there to say yes: {asked:?}");
    let deleted = control.ask(&["volume", "delete", "db", "--yes"]).await;
    assert_eq!(deleted.code, Some(0), "{deleted:?}");
    gone(&control, "db").await;
    assert!(engines.iter().all(|engine| engine.replicas() == 0));
    let again = control.ask(&["volume", "delete", "db", "--yes"]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    let again = control.ask(&["volume", "delete", "db", "--yes", "--if-exists"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
}

#[tokio::test]
async fn a_deletion_waits_for_an_engine_that_is_away_unless_it_is_forced() {
    let folder = Folder::new();
    let (control, mut engines, _cluster, volume) = three(&folder).await;
    let away = engines.iter().position(|engine| engine.node != volume.engine).unwrap();
    engines.remove(away).kill().await;
    let mut client = control.client().await;
    let request = |force| wire::DeleteRequest { volume: "db".into(), force };
    client.delete(request(false)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let waiting = control.volume("db").await.unwrap();
    assert_eq!(waiting.state(), VolumeState::Deleting);
    assert_eq!(waiting.alerts, ["its deletion waits for engines that are not connected"]);
    client.delete(request(true)).await.unwrap();
    gone(&control, "db").await;
}

#[tokio::test]
async fn a_store_that_is_restored_decides_nothing_before_it_is_recovered() {
    let folder = Folder::new();
    let (mut control, engines, _cluster, volume) = three(&folder).await;
    // A backup, and then a change that it does not know.
    let address = control.address.clone();
    control.kill();
    std::fs::copy(folder.path("store"), folder.path("backup")).unwrap();
    let mut control = Control::start_at(&folder, "store", &address);
    control.until("db", "seen again", well).await;
    let moved = control.ask(&["volume", "hand-over", "db"]).await;
    assert_eq!(moved.code, Some(0), "{moved:?}");
    let before = control.until("db", "moved", well).await;
    assert!(before.epoch > volume.epoch);
    control.kill();
    let (backup, new) = (folder.path("backup"), folder.path("new"));
    let restored = run(&["store", "restore", &backup, &new]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let other = Control::start_at(&folder, "new", &address);
    assert_ne!(other.store, control.store);
    let stale = |v: &wire::Volume| v.state() == VolumeState::NotCurrent;
    other.until("db", "not current", stale).await;
    let refused = other.ask(&["volume", "take-over", "db"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("recover it first"), "{refused:?}");
    connected(&other, 3).await;
    let recovered = other.ask(&["volume", "recover", "db"]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    let after = other.until("db", "served again", well).await;
    assert!(after.epoch > before.epoch, "{after:?}");
    assert_eq!(engines.iter().map(Engine::replicas).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_store_that_was_put_back_by_hand_is_noticed() {
    let folder = Folder::new();
    let (mut control, mut engines, _cluster, _) = three(&folder).await;
    let address = control.address.clone();
    control.kill();
    std::fs::copy(folder.path("store"), folder.path("backup")).unwrap();
    let mut control = Control::start_at(&folder, "store", &address);
    control.until("db", "seen again", well).await;
    assert_eq!(control.ask(&["volume", "hand-over", "db"]).await.code, Some(0));
    control.until("db", "moved", well).await;
    control.kill();
    std::fs::copy(folder.path("backup"), folder.path("store")).unwrap();
    let control = Control::start_at(&folder, "store", &address);
    let stale = |v: &wire::Volume| v.state() == VolumeState::NotCurrent;
    let noticed = control.until("db", "not current", stale).await;
    assert!(noticed.alerts.iter().any(|alert| alert.contains("recover it")), "{noticed:?}");
    // One that is missing may know more than the others.
    connected(&control, 3).await;
    engines.pop().unwrap().kill().await;
    connected(&control, 2).await;
    let away = control.ask(&["volume", "recover", "db"]).await;
    assert_eq!(away.code, Some(1), "{away:?}");
    assert!(away.stderr.contains("were not heard of"), "{away:?}");
    let forced = control.ask(&["volume", "recover", "db", "--force", "--yes"]).await;
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let serves = |v: &wire::Volume| v.state() == VolumeState::Degraded && !v.engine.is_empty();
    control.until("db", "served again", serves).await;
}

#[tokio::test]
async fn a_replica_that_is_there_becomes_a_volume_and_the_others_are_made_equal_to_it() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    let used = volume.replicas[0].uuid.clone();
    let place = |replica: &str, engine: &str| wire::Place {
        replica: replica.into(),
        engine: engine.into(),
        pool: String::new(),
    };
    let request = |size_bytes, replica: &str| wire::CreateRequest {
        name: "old".into(),
        size_bytes,
        places: vec![place(replica, ""), place("", "n2")],
        ..wire::CreateRequest::default()
    };
    let mut client = control.client().await;
    let taken = client.create(request(0, &used)).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    let none = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let missing = client.create(request(0, none)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    let free = "7ba7b810-9dad-11d1-80b4-00c04fd430c8";
    engines[0].give(free, 8192);
    let begun = Instant::now();
    let made = loop {
        match client.create(request(0, free)).await {
            Ok(made) => break made.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::NotFound, "{status}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not reported");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((made.size_bytes, made.replicas[0].uuid.as_str()), (8192, free));
    assert_eq!(made.replicas[0].standing(), wire::Standing::Member);
    assert_ne!(made.replicas[1].standing(), wire::Standing::Member, "it holds nothing yet");
    let whole = control.until("old", "whole", well).await;
    assert!(whole.replicas.iter().all(|r| r.standing() == wire::Standing::Member));
    let wrong = client.create(request(4096, free)).await.unwrap_err();
    assert_eq!(wrong.code(), Code::AlreadyExists, "{wrong}");
}
