//! Copies of the record.

use braid_nexus::record::Standing;

use super::bench::{ANNA, BERT, Bench, INSTANCE, later, record, record_with};

#[test]
fn a_copy_is_kept_before_it_is_answered() {
    let mut bench = Bench::held();
    assert_eq!(bench.copy(1, 10, &later(&record(5, ANNA), 1)), ["keep 10 copy v51 complete"]);
    assert_eq!(bench.kept(10), ["answer 1/10 done"]);
    assert_eq!(bench.copy(1, 11, &later(&record(5, ANNA), 1)), ["keep 11 copy v51 complete"]);
    assert_eq!(bench.kept(11), ["answer 1/11 done"], "the same once more");
    assert_eq!(bench.copy(1, 12, &record(5, ANNA)), ["answer 1/12 invalid"], "an older one");
}

#[test]
fn a_copy_of_another_epoch_owner_store_or_volume_is_refused() {
    let mut bench = Bench::held();
    let good = later(&record(5, ANNA), 1);
    let mut bad = [good.clone(), good.clone(), good.clone(), good.clone()];
    bad[0].epoch = 6;
    bad[1].owner = BERT;
    bad[2].store = [9; 16];
    bad[3].volume = [9; 16];
    for (tag, bad) in (20..).zip(&bad) {
        assert_eq!(bench.copy(1, tag, bad), [format!("answer 1/{tag} invalid")]);
    }
    assert_eq!(bench.copy(1, 10, &good), ["keep 10 copy v51 complete"]);
}

#[test]
fn a_copy_that_names_another_instance_of_this_replica_is_refused() {
    let mut bench = Bench::held();
    let named = |standing| later(&record_with(5, ANNA, standing), 1);
    let other = named(Standing::Member { instance: INSTANCE + 1 });
    assert_eq!(bench.copy(1, 10, &other), ["answer 1/10 invalid"]);
    let away = named(Standing::Away { whole: false });
    assert_eq!(bench.copy(1, 11, &away), ["keep 11 copy v51 complete"]);
}

#[test]
fn copies_are_kept_one_after_the_other() {
    let mut bench = Bench::held();
    let at = |versions| later(&record(5, ANNA), versions);
    assert_eq!(bench.copy(1, 11, &at(1)), ["keep 11 copy v51 complete"]);
    assert_eq!(bench.copy(1, 13, &at(3)), [""; 0]);
    assert_eq!(bench.copy(1, 12, &at(2)), [""; 0]);
    assert_eq!(bench.kept(11), ["answer 1/11 done", "keep 13 copy v53 complete"]);
    assert_eq!(bench.kept(13), ["answer 1/13 done", "answer 1/12 invalid"], "it came too late");
}

#[test]
fn a_fence_is_kept_after_the_copy_that_is_on_its_way_and_before_those_that_wait() {
    let mut bench = Bench::held();
    bench.copy(1, 10, &later(&record(5, ANNA), 1));
    bench.copy(1, 11, &later(&record(5, ANNA), 2));
    assert_eq!(bench.fence(2, 2, &record(6, BERT)), ["answer 1/11 conflict 6"]);
    assert_eq!(bench.kept(10), ["answer 1/10 done", "keep 2 fence 6 v60 complete"]);
    assert_eq!(bench.kept(2), ["close 1", "carry 2 marks"]);
    assert_eq!(bench.marks(2, &[]), ["answer 2/2 fenced, copy 5 v51"]);
}

#[test]
fn a_fence_that_the_copy_on_its_way_is_newer_than_is_refused() {
    let mut bench = Bench::held();
    bench.copy(1, 10, &later(&record(5, ANNA), 2));
    let told = bench.fence(2, 2, &later(&record(5, ANNA), 1));
    assert_eq!(told, ["answer 2/2 copy newer 5 v52"]);
    assert_eq!(bench.kept(10), ["answer 1/10 done"]);
}
