//! What a volume consists of: what is wanted of it, as its record changes.

use braid_control::store::{
    Change, Done, Ended, NUMBERS, Place, Refusal, Snapshot, SnapshotStage, Stay, Store,
};
use braid_nexus::record::{self, Replica, Standing};
use braid_nexus::{Record, Uuid};
use braid_plan::Wish;

use super::{Folder, id, make, open, swap};

fn snapshot(uuid: u8, name: &str) -> Snapshot {
    let stage = SnapshotStage::Wanted;
    Snapshot { uuid: id(uuid), name: name.into(), created_unix_s: 7, stage }
}

fn take(uuid: u8, name: &str) -> Change {
    Change::TakeSnapshot { volume: id(1), snapshot: snapshot(uuid, name) }
}

const fn go(uuid: u8) -> Change {
    Change::DropSnapshot { volume: id(1), snapshot: id(uuid) }
}

/// The next record, which names these.
fn naming(old: &Record, snapshots: &[u8]) -> Record {
    let named = |uuid: &u8| record::Snapshot { uuid: id(*uuid), holders: 1, bytes: old.bytes };
    Record { snapshots: snapshots.iter().map(named).collect(), ..*old.next() }
}

fn stages(store: &Store) -> Vec<(Uuid, SnapshotStage)> {
    let spec = store.read(|state| state.volumes[&id(1)].spec.clone());
    spec.snapshots.iter().map(|known| (known.uuid, known.stage)).collect()
}

#[tokio::test]
async fn a_snapshot_that_a_record_named_is_not_wanted_again_even_if_it_is_lost() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    store.change(take(5, "monday")).await.unwrap();
    assert_eq!(store.change(take(5, "monday")).await, Ok(Done::Done), "the same again");
    for (uuid, name) in [(5, "tuesday"), (6, "monday")] {
        let refused = store.change(take(uuid, name)).await;
        assert!(matches!(refused, Err(Refusal::Exists(_))), "{refused:?}");
    }
    assert_eq!(stages(&store), [(id(5), SnapshotStage::Wanted)]);
    let with = naming(&old, &[5]);
    store.change(swap(&old, &with)).await.unwrap();
    assert_eq!(stages(&store), [(id(5), SnapshotStage::Taken)]);
    let without = naming(&with, &[]);
    store.change(swap(&with, &without)).await.unwrap();
    assert_eq!(stages(&store), [(id(5), SnapshotStage::Taken)]);
    // A store that is opened again knows it, too.
    drop(store);
    let store = open(&folder.path("store"));
    assert_eq!(stages(&store), [(id(5), SnapshotStage::Taken)]);
    store.change(go(5)).await.unwrap();
    assert_eq!(stages(&store), []);
    assert_eq!(store.change(go(5)).await, Ok(Done::Absent));
}

#[tokio::test]
async fn a_snapshot_that_is_taken_when_nobody_wants_it_any_more_is_to_go() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    store.change(take(5, "monday")).await.unwrap();
    store.change(go(5)).await.unwrap();
    assert_eq!(stages(&store), [], "nothing names it");
    let with = naming(&old, &[5]);
    store.change(swap(&old, &with)).await.unwrap();
    assert_eq!(stages(&store), [(id(5), SnapshotStage::Goes)], "its owner was late");
    let refused = store.change(take(5, "monday")).await;
    assert!(matches!(refused, Err(Refusal::Stage(_))), "{refused:?}");
    store.change(swap(&with, &naming(&with, &[]))).await.unwrap();
    assert_eq!(stages(&store), []);
}

#[tokio::test]
async fn the_last_replica_that_holds_everything_stays_and_one_is_listed_while_it_is_named() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    let leave = |replica| Change::Leave { volume: id(1), replica, forget: false };
    let unlist = |replica| Change::Unlist { volume: id(1), replica };
    let refused = store.change(leave(id(101))).await;
    assert!(matches!(refused, Err(Refusal::Stage(_))), "{refused:?}");
    let place = Place {
        replica: id(7),
        engine: id(201),
        node: "b".into(),
        pool: "p".into(),
        given: false,
        stay: Stay::Stays,
    };
    let add = Change::Place { volume: id(1), place: place.clone() };
    assert_eq!(store.change(add.clone()).await, Ok(Done::Done));
    assert_eq!(store.change(add).await, Ok(Done::Done), "the same again");
    let beside = Place { replica: id(8), ..place };
    let beside = store.change(Change::Place { volume: id(1), place: beside }).await;
    assert!(matches!(beside, Err(Refusal::Exists(_))), "one pool: {beside:?}");
    let refused = store.change(leave(id(101))).await;
    assert!(matches!(refused, Err(Refusal::Stage(_))), "the other one holds nothing: {refused:?}");
    let mut both = *old.next();
    both.slots[1] = Some(Replica { uuid: id(7), standing: Standing::Member { instance: 2 } });
    store.change(swap(&old, &both)).await.unwrap();
    assert_eq!(store.change(leave(id(101))).await, Ok(Done::Done));
    let refused = store.change(leave(id(7))).await;
    assert!(matches!(refused, Err(Refusal::Stage(_))), "it is the last one now: {refused:?}");
    let refused = store.change(unlist(id(101))).await;
    assert!(matches!(refused, Err(Refusal::Stage(_))), "it is named: {refused:?}");
    let mut one = *both.next();
    one.slots[0] = None;
    store.change(swap(&both, &one)).await.unwrap();
    assert_eq!(store.change(unlist(id(101))).await, Ok(Done::Done));
    let places = store.read(|state| state.volumes[&id(1)].spec.places.clone());
    assert_eq!(places.iter().map(|place| place.replica).collect::<Vec<_>>(), [id(7)]);
}

#[tokio::test]
async fn a_wish_ends_only_while_it_is_one_and_eight_that_ended_are_told_of() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    let why = |unix_s| Ended { what: String::new(), why: "full".into(), unix_s };
    let end = |wish, at| Change::End { volume: id(1), wish, ended: why(at) };
    let of = |uuid| Wish::Snapshot { snapshot: id(uuid) };
    let told = || -> Vec<String> {
        let spec = store.read(|state| state.volumes[&id(1)].spec.clone());
        spec.ended.iter().map(|ended| ended.what.clone()).collect()
    };
    store.change(take(5, "monday")).await.unwrap();
    let with = naming(&old, &[5]);
    store.change(swap(&old, &with)).await.unwrap();
    // It was taken, though nobody heard of it; nobody wished for these; a member stays one.
    let member = Wish::Replica { replica: id(101) };
    for wish in [of(5), of(6), Wish::Size { bytes: 1 << 40 }, member] {
        assert_eq!(store.change(end(wish, 1)).await, Ok(Done::Absent), "{wish:?}");
    }
    assert_eq!(stages(&store), [(id(5), SnapshotStage::Taken)]);
    for uuid in 10..20 {
        store.change(take(uuid, &format!("s{uuid}"))).await.unwrap();
        assert_eq!(store.change(end(of(uuid), 2)).await, Ok(Done::Done));
        assert_eq!(store.change(end(of(uuid), 3)).await, Ok(Done::Absent), "once");
    }
    assert_eq!(stages(&store), [(id(5), SnapshotStage::Taken)]);
    let last: Vec<String> = (12..20).map(|uuid| format!("snapshot s{uuid}")).collect();
    assert_eq!(told(), last);
    store.change(take(19, "s19")).await.unwrap();
    assert_eq!(told(), last[..7], "it is asked for again, under the same uuid even");
    let grow = Change::Resize { volume: id(1), instead: None, bytes: 1 << 30 };
    store.change(grow).await.unwrap();
    let other = Wish::Size { bytes: 1 << 29 };
    assert_eq!(store.change(end(other, 4)).await, Ok(Done::Absent), "another size was asked for");
    store.change(end(Wish::Size { bytes: 1 << 30 }, 5)).await.unwrap();
    let bytes = store.read(|state| state.volumes[&id(1)].spec.bytes);
    assert_eq!((bytes, told().len()), (old.bytes, 8));
}

#[tokio::test]
async fn an_engine_keeps_its_number_and_shares_it_only_when_none_is_left() {
    let folder = Folder::new();
    let engine = |at: u16| {
        let mut engine = id(1);
        engine[..2].copy_from_slice(&at.to_be_bytes());
        engine
    };
    let number =
        async |store: &Store, at| match store.change(Change::Number { engine: engine(at) }).await {
            Ok(Done::Number(number)) => number,
            other => panic!("no number but {other:?}"),
        };
    let store = open(&folder.path("store"));
    for at in 0..NUMBERS {
        assert_eq!(number(&store, at).await, at);
    }
    drop(store);
    // Also over a restart, and when they come in another order.
    let store = open(&folder.path("store"));
    assert_eq!(number(&store, 7).await, 7);
    // Then two engines have one, and no number has three before each has two.
    for at in 0..NUMBERS {
        assert_eq!(number(&store, NUMBERS + at).await, at);
    }
}
