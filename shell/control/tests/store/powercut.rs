//! The power goes at any operation of the store's file: what was answered is there, what was not is
//! there as a whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use braid_control::store::{Done, Opener, Refusal, Store};
use braid_nexus::Record;
use redb::Builder;
use tokio::time::timeout;

use super::disk::{Dice, Disk};
use super::{id, make, next, swap};

/// Cuts, each at another place.
const CUTS: u64 = 300;
/// Swaps of a run: more than that reach a cut anywhere.
const SWAPS: usize = 30;

fn on(disk: &Disk) -> Opener {
    let disk = disk.clone();
    Box::new(move || Builder::new().create_with_backend(disk.clone()))
}

/// Swaps until the power is gone; the last record that was answered, and the one after it.
async fn run(disk: &Disk) -> Option<(Record, Record)> {
    let store = Store::start(on(disk)).ok()?;
    let mut last = match timeout(Duration::from_secs(20), make_or_find(&store)).await {
        Ok(found) => found?,
        Err(_) => panic!("the store does not answer"),
    };
    for _ in 0..SWAPS {
        let new = next(&last);
        match store.change(swap(&last, &new)).await {
            Ok(Done::Done) => last = new,
            Err(Refusal::Unknown) => return Some((last, new)),
            other => panic!("{other:?}"),
        }
    }
    let new = next(&last);
    Some((last, new))
}

async fn make_or_find(store: &Store) -> Option<Record> {
    let found = store.read(|state| state.volumes.get(&id(1))?.record.clone());
    match found {
        Some(record) => Some((*record).clone()),
        None => Some(make(store, 1).await),
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_any_power_cut() {
    // A run without a cut says how many operations there are to choose from.
    let start = Disk::default();
    let store = Store::start(on(&start)).unwrap();
    make(&store, 1).await;
    drop(store);
    let before = start.done();
    run(&start).await.unwrap();
    let operations = start.done() - before;
    assert!(operations > 100, "{operations}");
    let (mut kept_unanswered, mut lost_unanswered) = (0, 0);
    for cut in 0..CUTS {
        let mut dice = Dice(cut);
        let disk = Disk::default();
        let store = Store::start(on(&disk)).unwrap();
        make(&store, 1).await;
        drop(store);
        // The thread that had it may write its last page when it ends.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let disk = disk.after_the_cut(&mut Dice(0));
        disk.cut_after(dice.below(operations));
        let answered = run(&disk).await;
        let disk = disk.after_the_cut(&mut dice);
        let store = Store::start(on(&disk)).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        let found = store.read(|state| state.volumes[&id(1)].record.clone()).unwrap();
        let Some((last, unanswered)) = answered else { continue };
        if *found == unanswered {
            kept_unanswered += 1;
        } else {
            assert_eq!(found, Arc::new(last), "cut {cut}");
            lost_unanswered += 1;
        }
        let new = next(&found);
        assert_eq!(store.change(swap(&found, &new)).await, Ok(Done::Done), "cut {cut}");
    }
    assert!(lost_unanswered > CUTS / 4, "{lost_unanswered}");
    println!("{CUTS} cuts: unanswered kept {kept_unanswered}, lost {lost_unanswered}");
}
