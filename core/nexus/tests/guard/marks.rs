//! Which marks the holder is told.

use braid_nexus::guard::Durable;
use braid_nexus::record::Snapshot;
use braid_nexus::wire::{Command, Refusal};
use braid_nexus::{Record, Uuid};

use super::bench::{ANNA, BERT, Bench, durable, record};

/// A snapshot that records name, and two that they do not.
const NAMED: Uuid = [1; 16];
const OLD: Uuid = [2; 16];
const NEW: Uuid = [3; 16];

fn named() -> Record {
    let mut record = record(5, ANNA);
    record.snapshots.push(Snapshot { uuid: NAMED, holders: 3, bytes: record.bytes });
    record
}

/// Held by Anna, with these snapshots; tags below 10 are used.
fn with(snapshots: &[Uuid]) -> Bench {
    let mut bench = Bench::of(Durable { snapshots: snapshots.to_vec(), ..durable() }, None);
    bench.wait(1000);
    bench.fence(1, 1, &named());
    let mut told = bench.kept(1);
    while told == ["carry 1 marks"] {
        told = bench.marks(1, &[]);
    }
    assert_eq!(told, ["answer 1/1 fenced, copy none"]);
    bench
}

fn ask(bench: &mut Bench, snapshot: Option<Uuid>) -> Vec<String> {
    bench.send(1, 10, Command::Marks { snapshot: snapshot.map(Box::new) })
}

#[test]
fn marks_below_a_snapshot_that_the_record_does_not_name_are_told_as_well() {
    for target in [None, Some(NAMED)] {
        let mut bench = with(&[OLD, NAMED, NEW]);
        assert_eq!(ask(&mut bench, target), ["carry 10 marks"]);
        assert_eq!(bench.marks(10, &[(7, 1)]), ["carry 10 marks"]);
        assert_eq!(bench.marks(10, &[(1, 2)]), ["carry 10 marks"]);
        assert_eq!(bench.marks(10, &[(4, 1)]), ["answer 1/10 marks [(1, 2), (4, 1), (7, 1)]"]);
    }
}

#[test]
fn of_snapshots_that_the_record_names_only_the_one_that_was_asked_for_is_told() {
    let mut bench = with(&[NAMED]);
    assert_eq!(ask(&mut bench, None), ["carry 10 marks"]);
    assert_eq!(bench.marks(10, &[(4, 1)]), ["answer 1/10 marks [(4, 1)]"]);
}

#[test]
fn one_that_is_deleted_meanwhile_has_left_its_marks_to_those_that_are_told_later() {
    let mut bench = with(&[NEW]);
    assert_eq!(ask(&mut bench, None), ["carry 10 marks"]);
    let delete = Command::DeleteSnapshot { uuid: Box::new(NEW) };
    assert_eq!(bench.send(1, 11, delete), ["carry 11 delete"]);
    assert_eq!(bench.carried(11), ["answer 1/11 done"]);
    assert_eq!(bench.failed(10, Refusal::Invalid), ["carry 10 marks"]);
    assert_eq!(bench.marks(10, &[(4, 1)]), ["answer 1/10 marks [(4, 1)]"]);
}

#[test]
fn what_cannot_be_told_is_not_left_out() {
    let mut bench = with(&[NEW]);
    assert_eq!(ask(&mut bench, None), ["carry 10 marks"]);
    assert_eq!(bench.failed(10, Refusal::Media(0)), ["answer 1/10 media(0)"]);
}

#[test]
fn a_fence_that_comes_between_waits_for_one_part_and_no_more() {
    let mut bench = with(&[OLD, NEW]);
    assert_eq!(ask(&mut bench, None), ["carry 10 marks"]);
    let told = bench.fence(2, 20, &record(6, BERT));
    assert_eq!(told, ["keep 20 fence 6 v60 complete"]);
    assert_eq!(bench.kept(20), ["close 1"]);
    assert_eq!(bench.marks(10, &[(7, 1)]), ["answer 1/10 gone", "carry 20 marks"]);
}
