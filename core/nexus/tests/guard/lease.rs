//! Leases.

use braid_nexus::wire::Command;

use super::bench::{ANNA, BERT, Bench, durable, later, record};

#[test]
fn a_fence_waits_for_the_lease_to_run_out() {
    let mut bench = Bench::held();
    assert_eq!(bench.lease(1, 10), ["answer 1/10 done"]);
    bench.wait(300);
    bench.fence(2, 2, &record(6, BERT));
    assert_eq!(bench.kept(2), ["close 1"]);
    assert_eq!(bench.due(), Some(700));
    assert_eq!(bench.wait(699), [""; 0]);
    assert_eq!(bench.wait(1), ["carry 2 marks"]);
    assert_eq!(bench.due(), None);
}

#[test]
fn a_lease_is_renewed_until_a_fence_arrives() {
    let mut bench = Bench::held();
    bench.lease(1, 10);
    bench.wait(500);
    assert_eq!(bench.lease(1, 11), ["answer 1/11 done"]);
    bench.wait(900);
    bench.fence(2, 2, &record(6, BERT));
    assert_eq!(bench.lease(1, 12), ["answer 1/12 conflict 6"]);
    assert_eq!(bench.kept(2), ["close 1"]);
    assert_eq!(bench.wait(99), [""; 0]);
    assert_eq!(bench.wait(1), ["carry 2 marks"]);
}

#[test]
fn a_lease_that_was_given_back_keeps_nobody_waiting() {
    let mut bench = Bench::held();
    bench.lease(1, 10);
    assert_eq!(bench.send(1, 11, Command::Release), ["answer 1/11 done"]);
    bench.fence(2, 2, &record(6, BERT));
    assert_eq!(bench.kept(2), ["close 1", "carry 2 marks"]);
}

#[test]
fn a_fence_grants_no_lease_and_does_not_wait_for_the_one_of_its_own_owner() {
    let mut bench = Bench::held();
    bench.lease(1, 10);
    bench.fence(2, 2, &later(&record(5, ANNA), 1));
    assert_eq!(bench.kept(2), ["close 1", "carry 2 marks"]);
    bench.marks(2, &[]);
    // The promise to the owner stands: the next one waits for it.
    bench.wait(400);
    bench.fence(3, 3, &record(6, BERT));
    bench.kept(3);
    assert_eq!(bench.due(), Some(600));
    assert_eq!(bench.wait(600), ["carry 3 marks"]);
    bench.marks(3, &[]);
    bench.fence(4, 4, &record(7, ANNA));
    assert_eq!(bench.kept(4), ["close 3", "carry 4 marks"], "the answer to 3 was no lease");
}

#[test]
fn after_a_restart_no_fence_is_answered_for_one_lease() {
    let mut bench = Bench::held();
    bench.restart();
    bench.wait(200);
    bench.fence(1, 1, &record(5, ANNA));
    assert_eq!(bench.kept(1), [""; 0], "not even of the owner: whose the lease was is not known");
    assert_eq!(bench.due(), Some(800));
    assert_eq!(bench.wait(799), [""; 0]);
    assert_eq!(bench.wait(1), ["carry 1 marks"]);
}

#[test]
fn a_replica_that_was_made_anew_waits_too() {
    let mut bench = Bench::of(durable(), None);
    bench.fence(1, 1, &record(5, ANNA));
    assert_eq!(bench.kept(1), [""; 0], "the one before it may have promised");
    assert_eq!(bench.wait(1000), ["carry 1 marks"]);
}
