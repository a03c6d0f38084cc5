//! Rules that can be switched off: what then happens that must not.

use braid_nexus::Plant;

use super::bench::{ANNA, BERT, Bench, later, record};

#[test]
fn without_the_drain_a_fence_is_answered_while_an_older_write_is_on_its_way() {
    let mut bench = Bench::held_with(Some(Plant::FenceWithoutDrain));
    bench.write(1, 10, 0);
    bench.fence(2, 2, &record(6, BERT));
    assert_eq!(bench.kept(2), ["close 1", "carry 2 marks"]);
    assert_eq!(bench.marks(2, &[]), ["answer 2/2 fenced, copy 5 v50"]);
    assert_eq!(bench.carried(10), ["answer 1/10 done"]);
}

#[test]
fn writes_of_an_older_epoch_are_carried_out_after_the_fence() {
    let mut bench = Bench::held_with(Some(Plant::OldEpochWrites));
    bench.fence(2, 2, &record(6, BERT));
    assert_eq!(bench.kept(2), ["carry 2 marks"]);
    assert_eq!(bench.marks(2, &[]), ["answer 2/2 fenced, copy 5 v50"]);
    assert_eq!(bench.write(1, 10, 0), ["carry 10 write"]);
    assert_eq!(bench.read(1, 11), ["answer 1/11 conflict 6"]);
    assert_eq!(bench.write(2, 12, 0), ["carry 12 write"]);
}

#[test]
fn a_broken_association_goes_on_even_after_a_restart() {
    let mut bench = Bench::held_with(Some(Plant::ResumeAssociation));
    bench.close(1);
    assert_eq!(bench.write(1, 10, 0), ["carry 10 write"]);
    bench.restart();
    assert_eq!(bench.write(1, 11, 0), ["carry 11 write"]);
}

#[test]
fn without_a_fence_at_a_return_the_older_association_is_neither_closed_nor_drained() {
    let mut bench = Bench::held_with(Some(Plant::ReturnWithoutFence));
    bench.write(1, 10, 0);
    bench.fence(2, 2, &later(&record(5, ANNA), 1));
    assert_eq!(bench.kept(2), ["carry 2 marks"]);
    assert_eq!(bench.marks(2, &[]), ["answer 2/2 fenced, copy 5 v50"]);
    assert_eq!(bench.write(1, 11, 0), ["carry 11 write"]);
    assert_eq!(bench.write(2, 12, 0), ["carry 12 write"]);
    // Another owner is fenced as ever.
    bench.fence(3, 3, &record(6, BERT));
    assert_eq!(bench.kept(3), ["close 1", "close 2"]);
    for tag in [10, 11] {
        bench.carried(tag);
    }
    assert_eq!(bench.carried(12), ["answer 2/12 done", "carry 3 marks"]);
}
