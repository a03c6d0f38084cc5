//! What a swap compares, whose it may be, and what is kept.

use std::sync::Arc;

use braid_control::store::{Change, Done, EVENTS_MAX, Pace, Refusal, Store, restore};
use braid_nexus::Record;
use braid_nexus::record::Recovered;

use super::{Folder, appoint, claimed, first, id, make, next, open, spec, swap};

#[tokio::test]
async fn of_two_swaps_one_wins_and_the_other_learns_of_it() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    let new = next(&old);
    let other = Record { bytes: 1 << 30, ..new.clone() };
    assert_eq!(store.change(swap(&old, &new)).await, Ok(Done::Done));
    let lost = store.change(swap(&old, &other)).await;
    assert_eq!(lost, Ok(Done::Changed(Arc::new(new.clone()))));
    // The same again: its answer was lost.
    assert_eq!(store.change(swap(&old, &new)).await, Ok(Done::Done));
    let third = next(&new);
    assert_eq!(store.change(swap(&new, &third)).await, Ok(Done::Done));
    // Too late even for that: another one came after it.
    assert_eq!(store.change(swap(&old, &new)).await, Ok(Done::Changed(Arc::new(third))));
}

#[tokio::test]
async fn what_differs_in_anything_is_another_record() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    for like in [
        Record { owner: id(9), ..old.clone() },
        Record { clean: !old.clean, ..old.clone() },
        Record { bytes: 5, ..old.clone() },
    ] {
        let answer = store.change(swap(&like, &next(&old))).await;
        assert_eq!(answer, Ok(Done::Changed(Arc::new(old.clone()))));
    }
}

#[tokio::test]
async fn only_the_one_who_was_appointed_claims_and_nothing_else_changes_the_epoch() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    let claim = claimed(&old, 5);
    let refused = store.change(swap(&old, &claim)).await;
    assert!(matches!(refused, Err(Refusal::Stage(_))), "{refused:?}");
    store.change(appoint(1, 5)).await.unwrap();
    store.change(appoint(1, 6)).await.unwrap();
    let refused = store.change(swap(&old, &claim)).await;
    assert!(matches!(refused, Err(Refusal::Stage(_))), "the last one is meant: {refused:?}");
    let claim = claimed(&old, 6);
    assert_eq!(store.change(swap(&old, &claim)).await, Ok(Done::Done));
    for odd in [
        Record { epoch: 7, ..*claim.next() },
        Record { owner: id(7), ..*claim.next() },
        Record { epoch: claim.epoch - 1, owner: id(6), ..*claim.next() },
    ] {
        let refused = store.change(swap(&claim, &odd)).await;
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{odd:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_pace_is_kept_until_a_later_one_replaces_it() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    make(&store, 1).await;
    let pace = |version, beside| Pace { version, paused: false, beside, alone: 0 };
    let kept = |store: &Store| store.read(|state| state.volumes[&id(1)].spec.pace);
    assert_eq!(kept(&store), None);
    for (set, after) in
        [(pace(2, 7), pace(2, 7)), (pace(1, 8), pace(2, 7)), (pace(2, 9), pace(2, 7))]
    {
        store.change(Change::Pace { volume: id(1), pace: set }).await.unwrap();
        assert_eq!(kept(&store), Some(after));
    }
    store.change(Change::Pace { volume: id(1), pace: pace(3, 9) }).await.unwrap();
    drop(store);
    assert_eq!(kept(&open(&folder.path("store"))), Some(pace(3, 9)));
    let absent = store_of_none(&folder).await;
    assert_eq!(absent, Err(Refusal::NotFound));
}

async fn store_of_none(folder: &Folder) -> Result<Done, Refusal> {
    let store = open(&folder.path("other"));
    let pace = Pace { version: 1, paused: true, beside: 0, alone: 0 };
    store.change(Change::Pace { volume: id(9), pace }).await
}

#[tokio::test]
async fn garbage_gets_an_error_and_changes_nothing() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    let new = next(&old);
    let bytes = |old: Vec<u8>, new: Vec<u8>| Change::Swap { volume: id(1), old, new };
    let other = Record { volume: id(2), ..new.clone() };
    let foreign = Record { store: id(3), ..new.clone() };
    let skipped = Record { version: 9, ..new.clone() };
    for (odd, said) in [
        (bytes(old.encode(), vec![]), "no record"),
        (bytes(vec![1, 2, 3], new.encode()), "no record"),
        (bytes(old.encode(), vec![0; 4096]), "above"),
        (swap(&old, &other), "another volume"),
        (swap(&old, &foreign), "another store"),
        (swap(&old, &skipped), "next version"),
    ] {
        match store.change(odd).await {
            Err(Refusal::Invalid(text)) => assert!(text.contains(said), "{text}"),
            other => panic!("{said}: {other:?}"),
        }
    }
    let nobody = Change::Swap { volume: id(77), old: old.encode(), new: new.encode() };
    assert_eq!(store.change(nobody).await, Err(Refusal::NotFound));
    assert_eq!(store.read(|state| state.volumes[&id(1)].record.clone()), Some(Arc::new(old)));
}

#[tokio::test]
async fn a_store_that_is_opened_again_is_the_same_one() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let new = next(&make(&store, 1).await);
    store.change(swap(&first(&store, 1), &new)).await.unwrap();
    store.note(id(1), "it was seen".into());
    store.change(appoint(1, 5)).await.unwrap();
    let before = store.read(Clone::clone);
    drop(store);
    let store = open(&folder.path("store"));
    let after = store.read(Clone::clone);
    assert_eq!(after.id, before.id);
    assert_eq!(after.volumes[&id(1)].record, Some(Arc::new(new)));
    assert_eq!(after.volumes[&id(1)].spec, before.volumes[&id(1)].spec);
    assert_eq!(store.history(id(1)).await.unwrap()[0].text, "it was seen");
}

#[tokio::test]
async fn two_processes_cannot_have_one_store() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let error = Store::open(&folder.path("store")).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(store);
}

#[tokio::test]
async fn a_restored_store_has_another_name_and_its_records_are_not_its_own() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let old = make(&store, 1).await;
    drop(store);
    drop(open(&folder.path("store")));
    let id_now = loop {
        // Whoever just closed it may still be writing its last page.
        match restore(&folder.path("store"), &folder.path("other")) {
            Ok(id) => break id,
            Err(error) => assert!(error.to_string().contains("read the copy"), "{error}"),
        }
    };
    let restored = open(&folder.path("other"));
    assert_eq!(restored.read(|state| state.id), id_now);
    assert_ne!(id_now, old.store);
    let refused = restored.change(swap(&old, &next(&old))).await;
    assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    let from = Recovered { store: old.store, newest: (0, 1), pending: true };
    let record = Record { store: id_now, recovered: Some(from), version: 9, ..old.clone() };
    let recover = |expected: Option<&Record>| Change::Recover {
        spec: Box::new(spec(1)),
        expected: expected.cloned().map(Box::new),
        record: Box::new(record.clone()),
    };
    let raced = restored.change(recover(None)).await;
    assert_eq!(raced, Ok(Done::Changed(Arc::new(old.clone()))));
    assert_eq!(restored.change(recover(Some(&old))).await, Ok(Done::Done));
    assert_eq!(restored.change(swap(&record, &next(&record))).await, Ok(Done::Done));
}

#[tokio::test]
async fn names_and_identities_are_given_once() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    make(&store, 1).await;
    let mut like = spec(2);
    like.name = "v1".into();
    let refused = store.change(Change::Create(Box::new(like))).await;
    assert!(matches!(refused, Err(Refusal::Exists(_))), "{refused:?}");
    let refused = store.change(Change::Create(Box::new(spec(1)))).await;
    assert!(matches!(refused, Err(Refusal::Exists(_))), "{refused:?}");
    let gone = Change::Forget { volume: id(1) };
    assert_eq!(store.change(gone.clone()).await, Ok(Done::Done));
    assert_eq!(store.change(gone).await, Ok(Done::Absent));
    make(&store, 1).await;
}

#[tokio::test]
async fn changes_that_wait_share_a_commit() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    let mut records = Vec::new();
    for volume in 1..=40 {
        records.push(make(&store, volume).await);
    }
    let commits = || store.counters().commits.load(std::sync::atomic::Ordering::Relaxed);
    let before = commits();
    let swaps: Vec<_> = records
        .iter()
        .map(|record| {
            let (store, swap) = (store.clone(), swap(record, &next(record)));
            tokio::spawn(async move { store.change(swap).await })
        })
        .collect();
    for swap in swaps {
        assert_eq!(swap.await.unwrap(), Ok(Done::Done));
    }
    assert!(commits() - before <= 5, "{} commits for 40 changes", commits() - before);
}

#[tokio::test]
async fn a_history_keeps_the_last_events() {
    let folder = Folder::new();
    let store = open(&folder.path("store"));
    make(&store, 1).await;
    let told = EVENTS_MAX + 50;
    for number in 0..told {
        let text = number.to_string();
        let change = Change::Note { volume: id(1), unix_ms: number, text };
        if number % 40 == 0 {
            store.change(change).await.unwrap();
        } else {
            let store = store.clone();
            // In order, and several to a commit.
            drop(tokio::spawn(async move { store.change(change).await }));
            tokio::task::yield_now().await;
        }
    }
    store.change(appoint(1, 3)).await.unwrap();
    let events = store.history(id(1)).await.unwrap();
    assert_eq!(events.len() as u64, EVENTS_MAX);
    assert_eq!(events.last().unwrap().text, (told - 1).to_string());
    assert_eq!(store.history(id(9)).await, Err(Refusal::NotFound));
}
