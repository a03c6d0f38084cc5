//! A device that failed.

use braid_nexus::guard::Event;
use braid_nexus::wire::{Command, Refusal};

use super::bench::{ANNA, BERT, Bench, later, record};

#[test]
fn a_replica_whose_write_or_flush_failed_answers_so_to_everything() {
    let mut bench = Bench::held();
    bench.write(1, 10, 0);
    bench.write(1, 11, 0);
    assert_eq!(bench.failed(10, Refusal::Failed), ["answer 1/10 failed"]);
    assert_eq!(bench.write(1, 12, 0), ["answer 1/12 failed"]);
    assert_eq!(bench.read(1, 13), ["answer 1/13 failed"]);
    assert_eq!(bench.lease(1, 14), ["answer 1/14 failed"]);
    assert_eq!(bench.fence(2, 2, &record(6, BERT)), ["answer 2/2 failed"]);
    assert_eq!(bench.carried(11), ["answer 1/11 done"], "what was carried still ends");
}

#[test]
fn a_fence_that_waits_is_told_of_a_failure_and_so_are_copies() {
    let mut bench = Bench::held();
    bench.send(1, 10, Command::Flush { number: 1 });
    bench.copy(1, 11, &later(&record(5, ANNA), 1));
    bench.copy(1, 12, &later(&record(5, ANNA), 2));
    let told = bench.failed(10, Refusal::Failed);
    assert_eq!(told, ["answer 1/10 failed", "answer 1/12 failed"]);

    let mut bench = Bench::held();
    bench.write(1, 10, 0);
    bench.fence(2, 2, &record(6, BERT));
    bench.kept(2);
    let told = bench.failed(10, Refusal::Failed);
    assert_eq!(told, ["answer 1/10 failed", "answer 2/2 failed"]);
}

#[test]
fn a_fence_or_a_copy_that_could_not_be_kept_fails_the_replica() {
    let kept = |tag| Event::Kept { tag, result: Err(Refusal::Failed) };
    let mut bench = Bench::new();
    bench.fence(1, 1, &record(5, ANNA));
    assert_eq!(bench.event(kept(1)), ["answer 1/1 failed"]);
    assert_eq!(bench.fence(2, 2, &record(5, ANNA)), ["answer 2/2 failed"]);

    let mut bench = Bench::held();
    bench.copy(1, 10, &later(&record(5, ANNA), 1));
    assert_eq!(bench.event(kept(10)), ["answer 1/10 failed"]);
    assert_eq!(bench.read(1, 11), ["answer 1/11 failed"]);
}

#[test]
fn bad_blocks_and_a_full_pool_do_not_fail_a_replica() {
    let mut bench = Bench::held();
    bench.read(1, 10);
    bench.write(1, 11, 0);
    assert_eq!(bench.failed(10, Refusal::Media(0)), ["answer 1/10 media(0)"]);
    assert_eq!(bench.failed(11, Refusal::NoSpace), ["answer 1/11 nospace"]);
    assert_eq!(bench.read(1, 12), ["carry 12 read"]);
}

#[test]
fn a_fence_or_a_copy_for_which_there_is_no_space_is_refused_and_tried_another_time() {
    let full = |tag| Event::Kept { tag, result: Err(Refusal::NoSpace) };
    let mut bench = Bench::new();
    bench.fence(1, 1, &record(5, ANNA));
    assert_eq!(bench.event(full(1)), ["answer 1/1 nospace"]);
    assert_eq!(bench.read(1, 2), ["answer 1/2 conflict 0"], "nobody is obeyed yet");
    assert!(bench.fence(2, 3, &record(5, BERT))[0].starts_with("keep 3 fence 5"), "nor promised");

    let mut bench = Bench::held();
    bench.copy(1, 10, &later(&record(5, ANNA), 1));
    assert_eq!(bench.event(full(10)), ["answer 1/10 nospace"]);
    assert_eq!(bench.read(1, 11), ["carry 11 read"]);
}
