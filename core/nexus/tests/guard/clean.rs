//! Which marks may be cleared.

use braid_nexus::wire::Command;

use super::bench::{ANNA, Bench, MIB, later, record};

#[test]
fn before_the_first_flush_after_a_start_nothing_is_cleaned() {
    let mut bench = Bench::held();
    assert_eq!(bench.clean(10, 1, &[(0, 200)]), ["answer 1/10 done"]);
    bench.flushed(11, 1);
    assert_eq!(bench.clean(12, 1, &[(0, 200)]), ["carry 12 clean [(0, 200)]"]);
    bench.carried(12);
    bench.restart();
    bench.wait(1000);
    bench.fence(1, 13, &record(5, ANNA));
    bench.kept(13);
    bench.marks(13, &[]);
    assert_eq!(bench.clean(14, 1, &[(0, 200)]), ["answer 1/14 done"]);
}

#[test]
fn a_region_is_cleaned_if_its_last_write_ended_before_the_flush_began() {
    let mut bench = Bench::held();
    bench.wrote(10, 3);
    bench.flushed(11, 8);
    bench.wrote(12, 4);
    assert_eq!(bench.clean(13, 8, &[(2, 4)]), ["carry 13 clean [(2, 2), (5, 1)]"]);
    assert_eq!(bench.carried(13), ["answer 1/13 done"]);
    bench.flushed(14, 9);
    assert_eq!(bench.clean(15, 9, &[(4, 1)]), ["carry 15 clean [(4, 1)]"]);
    bench.carried(15);
    assert_eq!(bench.clean(16, 8, &[(4, 1)]), ["answer 1/16 done"], "8 came before the write");
}

#[test]
fn a_write_that_was_on_its_way_when_the_flush_began_keeps_its_mark() {
    let mut bench = Bench::held();
    bench.write(1, 10, 3);
    bench.flushed(11, 1);
    assert_eq!(bench.clean(12, 1, &[(3, 1)]), ["answer 1/12 done"], "it still is");
    bench.carried(10);
    assert_eq!(bench.clean(13, 1, &[(3, 1)]), ["answer 1/13 done"], "it ended after the flush");
    bench.flushed(14, 2);
    assert_eq!(bench.clean(15, 2, &[(3, 1)]), ["carry 15 clean [(3, 1)]"]);
}

#[test]
fn a_write_during_the_flush_keeps_its_mark() {
    let mut bench = Bench::held();
    bench.send(1, 10, Command::Flush { number: 1 });
    bench.wrote(11, 3);
    bench.carried(10);
    assert_eq!(bench.clean(12, 1, &[(3, 2)]), ["carry 12 clean [(4, 1)]"]);
}

#[test]
fn a_flush_that_was_never_seen_or_did_not_succeed_cleans_nothing() {
    let mut bench = Bench::held();
    bench.flushed(10, 4);
    assert_eq!(bench.clean(11, 5, &[(0, 9)]), ["answer 1/11 done"]);
    bench.send(1, 12, Command::Flush { number: 5 });
    assert_eq!(bench.clean(13, 5, &[(0, 9)]), ["answer 1/13 done"]);
    bench.carried(12);
    assert_eq!(bench.clean(14, 5, &[(0, 9)]), ["carry 14 clean [(0, 9)]"]);
}

#[test]
fn zeros_count_as_writes_over_all_their_regions() {
    let mut bench = Bench::held();
    let zero = Command::Zero { offset: 60 * MIB + 512, len: 14 * MIB, durable: false };
    assert_eq!(bench.send(1, 10, zero), ["carry 10 zero"]);
    bench.flushed(11, 1);
    bench.carried(10);
    let told = bench.clean(12, 1, &[(0, 100)]);
    assert_eq!(told, ["carry 12 clean [(0, 60), (75, 25)]"]);
}

#[test]
fn regions_that_do_not_ascend_or_leave_the_replica_are_refused() {
    let mut bench = Bench::held();
    bench.flushed(10, 1);
    for regions in [&[(5, 1), (5, 1)][..], &[(5, 2), (6, 1)], &[(9, 0)], &[(255, 2)], &[(9, !0)]] {
        assert_eq!(bench.clean(11, 1, regions), ["answer 1/11 invalid"], "{regions:?}");
    }
    assert_eq!(bench.clean(12, 1, &[(0, 1), (255, 1)]), ["carry 12 clean [(0, 1), (255, 1)]"]);
}

#[test]
fn the_number_of_the_last_flush_is_told_to_the_next_fence() {
    let mut bench = Bench::held();
    bench.flushed(10, 7);
    bench.flushed(11, 6);
    bench.fence(2, 2, &later(&record(5, ANNA), 1));
    bench.kept(2);
    let marks = braid_nexus::guard::Outcome::Marks([].into());
    let event = braid_nexus::guard::Event::Carried { tag: 2, result: Ok(marks) };
    bench.guard.handle(braid_block::Instant::from_nanos(u64::MAX), event);
    let told = format!("{:?}", bench.guard.poll_act());
    assert!(told.contains("flush: 7"), "{told}");
}
