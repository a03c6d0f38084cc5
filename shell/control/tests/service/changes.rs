//! What people ask to be different about a volume: done once, whoever dies in the middle.

use std::time::Duration;

use braid_api::control::{self as wire, SnapshotState, Standing};
use tonic::Code;

use super::engine::{Engine, Manners};
use super::process::{Control, Folder};
use super::supervise::{connected, three, well};

const GIB: u64 = 1 << 30;

async fn resize(control: &Control, size_bytes: u64) -> Result<wire::Volume, tonic::Status> {
    let request = wire::ResizeRequest { volume: "db".into(), size_bytes };
    control.client().await.resize(request).await.map(tonic::Response::into_inner)
}

/// How often all engines together were given this order.
fn ordered(engines: &[Engine], word: &str) -> usize {
    engines.iter().flat_map(Engine::orders).filter(|order| order == word).count()
}

fn on<'a>(engines: &'a [Engine], node: &str) -> &'a Engine {
    engines.iter().find(|engine| engine.node == node).unwrap()
}

#[tokio::test]
async fn a_volume_grows_once_however_often_it_is_asked_and_never_shrinks() {
    let folder = Folder::new();
    let (control, engines, _cluster, _) = three(&folder).await;
    let grown = control.ask(&["volume", "resize", "db", "2GiB", "-o", "json"]).await;
    assert_eq!(grown.code, Some(0), "{grown:?}");
    let grown: serde_json::Value = serde_json::from_str(&grown.stdout).unwrap();
    assert_eq!(grown["size_bytes"], 2 * GIB);
    assert_eq!(resize(&control, 2 * GIB - 1).await.unwrap().size_bytes, 2 * GIB, "rounded up");
    assert_eq!(ordered(&engines, "Resize"), 1);
    for bytes in [GIB, 0, (25 << 40) + 1, u64::MAX] {
        let refused = resize(&control, bytes).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(ordered(&engines, "Resize"), 1, "nobody was asked for these");
    let smaller = control.ask(&["volume", "resize", "db", "1GiB"]).await;
    assert_eq!(smaller.code, Some(2), "{smaller:?}");
    assert!(smaller.stderr.contains("volumes only grow"), "{smaller:?}");
    let request = wire::ResizeRequest { volume: "other".into(), size_bytes: GIB };
    let missing = control.client().await.resize(request).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    let history = control.ask(&["volume", "history", "db"]).await.stdout;
    assert!(history.contains("grows it to 2147483648 bytes: done"), "{history}");
    let told = |engine: &Engine| engine.topology().volumes[0].size_bytes;
    control.until("db", "told everywhere", |_| engines.iter().all(|e| told(e) == 2 * GIB)).await;
}

#[tokio::test]
async fn a_volume_that_has_no_space_to_grow_keeps_its_size_and_is_left_alone() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    let owner = on(&engines, &volume.engine);
    let refuses = Some((Code::ResourceExhausted, "a replica has no space for it".into()));
    owner.set(Manners { refuses, ..Manners::default() });
    let refused = resize(&control, 4 * GIB).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("no space"), "{refused}");
    owner.set(Manners::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ordered(&engines, "Resize"), 1, "nobody wants it any more");
    assert_eq!(control.volume("db").await.unwrap().size_bytes, GIB);
    assert_eq!(resize(&control, 2 * GIB).await.unwrap().size_bytes, 2 * GIB);
}

#[tokio::test]
async fn a_volume_grows_though_the_answer_is_lost_or_its_owner_dies_in_the_middle() {
    let folder = Folder::new();
    let (control, mut engines, _cluster, volume) = three(&folder).await;
    on(&engines, &volume.engine).set(Manners { unheard: true, ..Manners::default() });
    let grown = resize(&control, 2 * GIB).await.unwrap();
    assert_eq!((grown.size_bytes, ordered(&engines, "Resize")), (2 * GIB, 1), "the record tells");
    on(&engines, &volume.engine).set(Manners { mute: true, ..Manners::default() });
    let asked = resize(&control, 3 * GIB);
    let dies = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let at = engines.iter().position(|engine| engine.node == volume.engine).unwrap();
        engines.remove(at).kill().await;
    };
    let (grown, ()) = tokio::join!(asked, dies);
    let grown = grown.unwrap();
    assert_eq!((grown.size_bytes, grown.epoch), (3 * GIB, volume.epoch + 1), "{grown:?}");
    assert_eq!(ordered(&engines, "Resize"), 1, "the next owner did it");
}

#[tokio::test]
async fn what_is_refused_for_a_while_is_tried_until_it_is_done_and_told_once() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    let owner = on(&engines, &volume.engine);
    let refuses = Some((Code::Unavailable, "something else is in work".into()));
    owner.set(Manners { refuses, ..Manners::default() });
    let asked = resize(&control, 2 * GIB);
    let mends = async {
        while ordered(&engines, "Resize") < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        owner.set(Manners::default());
    };
    let (grown, ()) = tokio::join!(asked, mends);
    assert_eq!(grown.unwrap().size_bytes, 2 * GIB);
    let told = |history: &str| {
        let lines = history.lines().filter(|line| line.contains("grows it to"));
        let refused = lines.clone().filter(|line| line.contains("no: something else"));
        let done = lines.clone().filter(|line| line.ends_with("done"));
        (lines.count(), refused.count(), done.count())
    };
    let begun = std::time::Instant::now();
    loop {
        let history = control.ask(&["volume", "history", "db"]).await.stdout;
        if told(&history) == (3, 1, 1) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{history}");
    }
}

#[tokio::test]
async fn what_was_asked_for_outlives_the_control_plane() {
    let folder = Folder::new();
    let (mut control, engines, _cluster, volume) = three(&folder).await;
    let (address, owner) = (control.address.clone(), on(&engines, &volume.engine));
    owner.set(Manners { mute: true, ..Manners::default() });
    let mut client = control.client().await;
    let request = wire::ResizeRequest { volume: "db".into(), size_bytes: 2 * GIB };
    let asked = tokio::spawn(async move { client.resize(request).await });
    while ordered(&engines, "Resize") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    control.kill();
    assert!(asked.await.unwrap().is_err());
    owner.set(Manners::default());
    let control = Control::start_at(&folder, "store", &address);
    control.until("db", "larger", |v| v.size_bytes == 2 * GIB && well(v)).await;
}

async fn add(control: &Control, engine: &str, uuid: &str) -> Result<wire::Volume, tonic::Status> {
    let request = wire::AddMemberRequest {
        volume: "db".into(),
        engine: engine.into(),
        pool: String::new(),
        uuid: uuid.into(),
    };
    control.client().await.add_member(request).await.map(tonic::Response::into_inner)
}

async fn remove(control: &Control, replica: &str, force: bool) -> Result<bool, tonic::Status> {
    let request = wire::RemoveMemberRequest { volume: "db".into(), replica: replica.into(), force };
    let answer = control.client().await.remove_member(request).await;
    answer.map(|answer| answer.into_inner().existed)
}

fn engines_of(volume: &wire::Volume) -> Vec<&str> {
    volume.replicas.iter().map(|replica| replica.engine.as_str()).collect()
}

#[tokio::test]
async fn a_replica_moves_to_another_engine_while_the_volume_is_served() {
    let folder = Folder::new();
    let (control, mut engines, cluster, volume) = three(&folder).await;
    engines.push(Engine::start(&control.address, "n4", &cluster).await);
    connected(&control, 4).await;
    let added = control.ask(&["volume", "add-member", "db", "n4", "-o", "json"]).await;
    assert_eq!(added.code, Some(0), "{added:?}");
    let again = add(&control, "n4", "").await.unwrap();
    assert_eq!(engines_of(&again), ["n1", "n2", "n3", "n4"]);
    assert_eq!(engines[3].replicas(), 1);
    let all =
        |v: &wire::Volume| well(v) && v.replicas.iter().all(|r| r.standing() == Standing::Member);
    let four = control.until("db", "four members", |v| v.replicas.len() == 4 && all(v)).await;
    assert_eq!((four.epoch, ordered(&engines, "AddMember")), (volume.epoch, 1));
    for (engine, uuid, code) in [
        ("n4", four.replicas[0].uuid.as_str(), Code::AlreadyExists),
        ("n1", "9ba7b810-9dad-11d1-80b4-00c04fd430c8", Code::AlreadyExists),
        ("n9", "", Code::NotFound),
    ] {
        let refused = add(&control, engine, uuid).await.unwrap_err();
        assert_eq!(refused.code(), code, "{engine}: {refused}");
    }

    let other = engines.iter().find(|engine| engine.node != volume.engine).unwrap();
    let unsure = control.ask(&["volume", "remove-member", "db", &other.node]).await;
    assert_eq!(unsure.code, Some(2), "nobody is there to say yes: {unsure:?}");
    let gone = control.ask(&["volume", "remove-member", "db", &other.node, "--yes"]).await;
    assert_eq!(gone.code, Some(0), "{gone:?}");
    let left = |v: &wire::Volume| v.replicas.len() == 3 && all(v);
    let three = control.until("db", "three members", left).await;
    assert!(!engines_of(&three).contains(&other.node.as_str()), "{three:?}");
    assert_eq!(other.replicas(), 0, "its data is gone");
    assert!(!remove(&control, &other.node, false).await.unwrap());
    let again = control.ask(&["volume", "remove-member", "db", &other.node, "--yes"]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    let history = control.ask(&["volume", "history", "db"]).await.stdout;
    for told in ["n4 makes replica", "names replica", "takes replica", "gives replica", "is gone"] {
        assert!(history.contains(told), "{told}: {history}");
    }
}

#[tokio::test]
async fn a_pool_without_space_gets_no_replica_and_nothing_is_left_of_it() {
    let folder = Folder::new();
    let (control, mut engines, cluster, _) = three(&folder).await;
    engines.push(Engine::start(&control.address, "n4", &cluster).await);
    connected(&control, 4).await;
    let refuses = Some((Code::ResourceExhausted, "no space in pool".into()));
    engines[3].set(Manners { refuses, ..Manners::default() });
    let refused = add(&control, "n4", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("engine n4: no space in pool"), "{refused}");
    engines[3].set(Manners::default());
    control.until("db", "as it was", |v| v.replicas.len() == 3 && well(v)).await;
    assert_eq!((engines[3].replicas(), ordered(&engines, "AddMember")), (0, 0));
    add(&control, "n4", "").await.unwrap();
}

#[tokio::test]
async fn a_replica_whose_engine_is_away_is_removed_at_once_and_destroyed_when_it_is_back() {
    let folder = Folder::new();
    let (control, mut engines, cluster, volume) = three(&folder).await;
    let mut away = Vec::new();
    for _ in 0..2 {
        let at = engines.iter().position(|engine| engine.node != volume.engine).unwrap();
        let engine = engines.remove(at);
        away.push(engine.node.clone());
        engine.kill().await;
    }
    assert!(remove(&control, &away[0], false).await.unwrap());
    assert!(remove(&control, &away[1], true).await.unwrap());
    let waits = |v: &wire::Volume| {
        let leaves = v.replicas.iter().filter(|r| r.standing() == Standing::Leaving).count();
        let told = v.alerts.iter().any(|alert| alert.contains("waits for its engine"));
        v.replicas.len() == 2 && leaves == 1 && told
    };
    control.until("db", "one waits, one is forgotten", waits).await;
    let last = remove(&control, &volume.engine, false).await.unwrap_err();
    assert_eq!(last.code(), Code::FailedPrecondition, "{last}");
    engines.push(Engine::start(&control.address, &away[0], &cluster).await);
    control.until("db", "it is gone", |v| v.replicas.len() == 1).await;
    assert_eq!(engines[1].replicas(), 0);
}

async fn snapshot(
    control: &Control,
    name: &str,
    uuid: &str,
) -> Result<wire::Snapshot, tonic::Status> {
    let (volume, name, uuid) = ("db".into(), name.into(), uuid.into());
    let request = wire::CreateSnapshotRequest { volume, name, uuid };
    control.client().await.create_snapshot(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn what_is_refused_for_good_ends_though_nobody_waits_and_is_told_until_it_is_asked_for_anew()
{
    let folder = Folder::new();
    let (mut control, engines, _cluster, volume) = three(&folder).await;
    let owner = on(&engines, &volume.engine);
    let full = Some((Code::ResourceExhausted, "its pool is full".into()));
    let refuses = || owner.set(Manners { refuses: full.clone(), ..Manners::default() });
    refuses();
    let refused = control.ask(&["volume", "snapshot", "create", "db", "monday"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("its pool is full"), "{refused:?}");
    owner.set(Manners { mute: true, ..Manners::default() });
    let mut client = control.client().await;
    let request = wire::CreateSnapshotRequest {
        volume: "db".into(),
        name: "tuesday".into(),
        uuid: String::new(),
    };
    let asked = tokio::spawn(async move { client.create_snapshot(request).await });
    while ordered(&engines, "TakeSnapshot") < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    asked.abort();
    refuses();
    let ended = |v: &wire::Volume| v.ended.iter().map(|e| e.what.clone()).collect::<Vec<_>>();
    let both = ["snapshot monday", "snapshot tuesday"];
    control.until("db", "both ended", |v| ended(v) == both).await;
    assert_eq!(listed(&control).await, [], "nobody wishes for it any more");
    let tries = ordered(&engines, "TakeSnapshot");
    owner.set(Manners::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((tries, ordered(&engines, "TakeSnapshot")), (3, 3));
    let address = control.address.clone();
    control.kill();
    let control = Control::start_at(&folder, "store", &address);
    control.until("db", "told still", |v| ended(v) == both && well(v)).await;
    let shown = control.ask(&["volume", "show", "db"]).await.stdout;
    let why = format!("it does not get snapshot tuesday: engine {}: its pool", volume.engine);
    assert!(shown.contains(&why), "{shown}");
    let history = control.ask(&["volume", "history", "db"]).await.stdout;
    assert!(history.contains(&why), "{history}");
    snapshot(&control, "tuesday", "").await.unwrap();
    assert_eq!(ended(&control.volume("db").await.unwrap()), both[..1]);
}

async fn listed(control: &Control) -> Vec<(String, SnapshotState)> {
    let request = wire::ListSnapshotsRequest { volume: "db".into() };
    let listed = control.client().await.list_snapshots(request).await.unwrap().into_inner();
    listed.snapshots.into_iter().map(|s| (s.name.clone(), s.state())).collect()
}

#[tokio::test]
async fn a_snapshot_is_taken_once_listed_and_destroyed() {
    let folder = Folder::new();
    let (control, engines, _cluster, _) = three(&folder).await;
    let taken = control.ask(&["volume", "snapshot", "create", "db", "monday", "-o", "json"]).await;
    assert_eq!(taken.code, Some(0), "{taken:?}");
    let taken: serde_json::Value = serde_json::from_str(&taken.stdout).unwrap();
    assert_eq!((&taken["state"], &taken["holders"]), (&"ready".into(), &3.into()));
    let again = snapshot(&control, "monday", "").await.unwrap();
    assert_eq!((&taken["uuid"], again.size_bytes), (&again.uuid.clone().into(), GIB));
    assert_eq!(ordered(&engines, "TakeSnapshot"), 1);
    let other = "9ba7b810-9dad-11d1-80b4-00c04fd430c8";
    for (name, uuid, code) in [
        ("monday", other, Code::AlreadyExists),
        ("tuesday", again.uuid.as_str(), Code::AlreadyExists),
        ("a/b", "", Code::InvalidArgument),
    ] {
        let refused = snapshot(&control, name, uuid).await.unwrap_err();
        assert_eq!(refused.code(), code, "{name}: {refused}");
    }
    snapshot(&control, "tuesday", other).await.unwrap();
    let ready = |name: &str| (name.to_owned(), SnapshotState::Ready);
    assert_eq!(listed(&control).await, [ready("monday"), ready("tuesday")]);
    let table = control.ask(&["volume", "snapshot", "list", "db"]).await.stdout;
    assert!(table.contains("3 of 3") && table.contains(other), "{table}");
    assert_eq!(control.volume("db").await.unwrap().snapshots, 2);

    let unsure = control.ask(&["volume", "snapshot", "destroy", "db", "monday"]).await;
    assert_eq!(unsure.code, Some(2), "nobody is there to say yes: {unsure:?}");
    let destroy = ["volume", "snapshot", "destroy", "db", "monday", "--yes"];
    assert_eq!(control.ask(&destroy).await.code, Some(0));
    assert_eq!(listed(&control).await, [ready("tuesday")]);
    assert_eq!(control.ask(&destroy).await.code, Some(1));
    let again = control.ask(&[&destroy[..], &["--if-exists"]].concat()).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(ordered(&engines, "DropSnapshot"), 1);
}

#[tokio::test]
async fn a_snapshot_is_taken_though_the_answer_is_lost_and_not_without_space() {
    let folder = Folder::new();
    let (control, engines, _cluster, volume) = three(&folder).await;
    let owner = on(&engines, &volume.engine);
    let refuses = Some((Code::ResourceExhausted, "a replica has no space for it".into()));
    owner.set(Manners { refuses, ..Manners::default() });
    let refused = snapshot(&control, "monday", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(listed(&control).await, [], "nobody wants it any more");
    owner.set(Manners { unheard: true, ..Manners::default() });
    snapshot(&control, "monday", "").await.unwrap();
    assert_eq!(ordered(&engines, "TakeSnapshot"), 2);
    let ready = [("monday".to_owned(), SnapshotState::Ready)];
    assert_eq!(listed(&control).await, ready);
}
