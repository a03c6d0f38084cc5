//! Fences.

use braid_nexus::guard::{Act, Event, Outcome};
use braid_nexus::record::{Record, Recovered, Snapshot, Standing};
use braid_nexus::wire::{Answer, Command, Refusal};

use super::bench::{ANNA, BERT, Bench, INSTANCE, MIB, durable, later, record, record_with};

#[test]
fn a_new_replica_obeys_nobody() {
    let mut bench = Bench::new();
    assert_eq!(bench.open(1), [""; 0]);
    assert_eq!(bench.write(1, 1, 0), ["answer 1/1 conflict 0"]);
    assert_eq!(bench.lease(1, 2), ["answer 1/2 conflict 0"]);
    assert_eq!(bench.write(9, 3, 0), ["answer 9/3 gone"], "never opened");
}

#[test]
fn a_fence_is_kept_with_its_record_and_answered_with_where_the_replica_stands() {
    let mut state = durable();
    (state.flush, state.snapshots) = (33, vec![[1; 16], [2; 16]]);
    let mut bench = Bench::of(state, None);
    bench.wait(1000);
    let mut record = record(5, ANNA);
    record.snapshots.push(Snapshot { uuid: [1; 16], holders: 1, bytes: 256 * MIB });
    bench.fence(1, 1, &record);
    assert_eq!(bench.kept(1), ["carry 1 marks"]);
    // A snapshot that the record does not name is about to go: its marks count too.
    assert_eq!(bench.marks(1, &[(9, 1)]), ["carry 1 marks"]);
    let marks = Outcome::Marks([(2, 3)].into());
    let now = braid_block::Instant::from_nanos(u64::MAX);
    bench.guard.handle(now, Event::Carried { tag: 1, result: Ok(marks) });
    let Some(Act::Answer { result: Ok(Answer::Fenced(fenced)), .. }) = bench.guard.poll_act()
    else {
        panic!("not answered");
    };
    assert_eq!((fenced.instance, fenced.flush, fenced.bytes), (INSTANCE, 33, 256 * MIB));
    assert_eq!(*fenced.marks, [(2, 3), (9, 1)]);
    assert_eq!(*fenced.snapshots, [[1; 16], [2; 16]]);
    assert_eq!(bench.guard.view().fence, (5, ANNA));
    assert_eq!(bench.guard.view().holder, Some(1));
}

#[test]
fn the_holder_is_served() {
    let mut bench = Bench::held();
    assert_eq!(bench.write(1, 10, 0), ["carry 10 write"]);
    assert_eq!(bench.read(1, 11), ["carry 11 read"]);
    assert_eq!(bench.carried(11), ["answer 1/11 done"]);
    assert_eq!(bench.failed(10, Refusal::NoSpace), ["answer 1/10 nospace"]);
    assert_eq!(bench.send(1, 12, Command::Marks { snapshot: None }), ["carry 12 marks"]);
    assert_eq!(bench.marks(12, &[(4, 1)]), ["answer 1/12 marks [(4, 1)]"]);
}

#[test]
fn everybody_else_is_refused_reads_and_flushes_too() {
    let mut bench = Bench::held();
    bench.open(2);
    assert_eq!(bench.write(2, 10, 0), ["answer 2/10 conflict 5"]);
    assert_eq!(bench.read(2, 11), ["answer 2/11 conflict 5"]);
    assert_eq!(bench.send(2, 12, Command::Flush { number: 9 }), ["answer 2/12 conflict 5"]);
    assert_eq!(bench.lease(2, 13), ["answer 2/13 conflict 5"]);
    assert_eq!(bench.copy(2, 14, &record(5, ANNA)), ["answer 2/14 conflict 5"]);
}

#[test]
fn the_older_owner_is_refused_from_the_arrival_of_a_fence_before_it_is_durable() {
    let mut bench = Bench::held();
    assert_eq!(bench.fence(2, 2, &record(6, BERT)), ["keep 2 fence 6 v60 complete"]);
    assert_eq!(bench.write(1, 10, 0), ["answer 1/10 conflict 6"]);
    assert_eq!(bench.read(1, 11), ["answer 1/11 conflict 6"]);
    assert_eq!(bench.lease(1, 12), ["answer 1/12 conflict 6"]);
    assert_eq!(bench.write(2, 13, 0), ["answer 2/13 conflict 6"], "nor the new one, yet");
    assert_eq!(bench.kept(2), ["close 1", "carry 2 marks"]);
    assert_eq!(bench.write(1, 14, 0), ["answer 1/14 gone"]);
    assert_eq!(bench.marks(2, &[]), ["answer 2/2 fenced, copy 5 v50"]);
    assert_eq!(bench.write(2, 15, 0), ["carry 15 write"]);
}

#[test]
fn a_fence_waits_until_the_commands_of_others_have_ended() {
    let mut bench = Bench::held();
    bench.write(1, 10, 0);
    bench.read(1, 11);
    bench.fence(2, 2, &record(6, BERT));
    assert_eq!(bench.kept(2), ["close 1"]);
    assert!(bench.guard.view().draining);
    assert_eq!(bench.wait(60_000), [""; 0], "there is no time-out");
    assert_eq!(bench.due(), None);
    assert_eq!(bench.carried(10), ["answer 1/10 done"]);
    assert_eq!(bench.carried(11), ["answer 1/11 done", "carry 2 marks"]);
    assert_eq!(bench.marks(2, &[(0, 1)]), ["answer 2/2 fenced, copy 5 v50"]);
}

#[test]
fn commands_go_on_that_were_carried_for_an_association_that_ended() {
    let mut bench = Bench::held();
    bench.write(1, 10, 0);
    assert_eq!(bench.close(1), [""; 0]);
    bench.fence(2, 2, &record(6, BERT));
    assert_eq!(bench.kept(2), [""; 0], "the write may still land");
    assert_eq!(bench.carried(10), ["answer 1/10 done", "carry 2 marks"]);
}

#[test]
fn a_lower_epoch_and_another_owner_of_the_same_are_refused() {
    let mut bench = Bench::held();
    assert_eq!(bench.fence(2, 2, &record(4, BERT)), ["answer 2/2 conflict 5"]);
    assert_eq!(bench.fence(3, 3, &later(&record(5, BERT), 9)), ["answer 3/3 conflict 5"]);
    assert_eq!(bench.write(1, 10, 0), ["carry 10 write"], "the holder did not notice");
}

#[test]
fn a_record_that_is_older_than_the_copy_is_refused() {
    let mut bench = Bench::held();
    bench.copy(1, 10, &later(&record(5, ANNA), 3));
    bench.kept(10);
    let refused = bench.fence(2, 2, &later(&record(5, ANNA), 2));
    assert_eq!(refused, ["answer 2/2 copy newer 5 v53"]);
    assert_eq!(bench.write(1, 11, 0), ["carry 11 write"]);
    let fenced = bench.fence(3, 3, &later(&record(5, ANNA), 3));
    assert_eq!(fenced, ["keep 3 fence 5 v53 complete"]);
}

#[test]
fn a_store_that_was_put_back_unnoticed_is_refused_though_its_epoch_is_higher() {
    let mut bench = Bench::held();
    bench.copy(1, 10, &later(&record(5, ANNA), 3));
    bench.kept(10);
    let mut restored = record(6, BERT);
    restored.version = 52;
    assert_eq!(bench.fence(2, 2, &restored), ["answer 2/2 copy newer 5 v53"]);
}

const fn recovered(store: u8, version: u64) -> Option<Recovered> {
    Some(Recovered { store: [store; 16], newest: (5, version), pending: true })
}

#[test]
fn another_store_is_refused_unless_it_was_recovered_from_the_one_that_the_copy_names() {
    let mut bench = Bench::held();
    let mut restored = record(9, BERT);
    restored.store = [3; 16];
    assert_eq!(bench.fence(2, 2, &restored), ["answer 2/2 storediffers"]);
    restored.recovered = recovered(4, 50);
    assert_eq!(bench.fence(3, 3, &restored), ["answer 3/3 storediffers"]);
    restored.recovered = recovered(2, 50);
    assert_eq!(bench.fence(4, 4, &restored), ["keep 4 fence 9 v90 complete"]);
}

#[test]
fn a_record_that_was_recovered_before_the_newest_copy_came_here_is_refused() {
    let mut bench = Bench::held();
    bench.copy(1, 10, &later(&record(5, ANNA), 3));
    bench.kept(10);
    let mut restored = record(9, BERT);
    restored.store = [3; 16];
    restored.recovered = recovered(2, 52);
    assert_eq!(bench.fence(2, 2, &restored), ["answer 2/2 copy newer 5 v53"]);
    restored.recovered = recovered(2, 53);
    assert_eq!(bench.fence(3, 3, &restored), ["keep 3 fence 9 v90 complete"]);
    // From then on versions are those of the new store.
    bench.kept(3);
    let next = later(&restored, 1);
    let kept = bench.fence(4, 4, &next);
    assert_eq!(kept, ["answer 3/3 gone", "keep 4 fence 9 v91 complete"]);
}

#[test]
fn a_copy_that_nobody_relied_on_counts_as_what_it_was_made_from() {
    let mut bench = Bench::held();
    let mut second = record(6, BERT);
    (second.store, second.recovered) = ([3; 16], recovered(2, 50));
    bench.fence(2, 2, &second);
    bench.kept(2);
    // That store is lost too, before all had been fenced who were to be.
    let mut third = record(7, ANNA);
    (third.store, third.recovered) = ([4; 16], recovered(2, 49));
    assert_eq!(bench.fence(3, 3, &third), ["answer 3/3 copy newer 6 v60"], "not heard of");
    third.recovered = recovered(2, 50);
    third.recovered.as_mut().unwrap().pending = false;
    let refused = bench.fence(5, 5, &third);
    assert_eq!(refused, ["answer 5/5 storediffers"], "whoever served fenced this one before");
    third.recovered = recovered(2, 50);
    let kept = bench.fence(4, 4, &third);
    assert_eq!(kept, ["answer 2/2 conflict 7", "keep 4 fence 7 v70 complete"]);
}

#[test]
fn who_was_given_up_before_anybody_served_may_be_named_again() {
    let mut bench = Bench::held();
    let mut second = record(6, BERT);
    (second.store, second.recovered) = ([3; 16], recovered(2, 50));
    bench.fence(2, 2, &second);
    bench.kept(2);
    let mut third = record_with(7, ANNA, Standing::Away { whole: true });
    (third.store, third.recovered) = ([4; 16], recovered(2, 50));
    third.recovered.as_mut().unwrap().pending = false;
    let kept = bench.fence(3, 3, &third);
    assert_eq!(kept, ["answer 2/2 conflict 7", "keep 3 fence 7 v70 complete"]);
}

#[test]
fn a_copy_that_was_served_is_of_its_own_store() {
    let mut bench = Bench::held();
    let mut second = record(6, BERT);
    (second.store, second.recovered) = ([3; 16], recovered(2, 50));
    second.recovered.as_mut().unwrap().pending = false;
    bench.fence(2, 2, &second);
    bench.kept(2);
    let mut third = record(7, ANNA);
    (third.store, third.recovered) = ([4; 16], recovered(2, 50));
    assert_eq!(bench.fence(3, 3, &third), ["answer 3/3 storediffers"]);
}

#[test]
fn who_was_not_named_while_stores_were_lost_knows_no_more_than_what_was_recovered_last() {
    let mut bench = Bench::held();
    let mut third = record(9, BERT);
    (third.store, third.recovered) = ([4; 16], recovered(3, 50));
    assert_eq!(bench.fence(2, 2, &third), ["answer 2/2 storediffers"], "it may be another one");
    third.recovered.as_mut().unwrap().newest = (4, 51);
    assert_eq!(bench.fence(3, 3, &third), ["answer 3/3 storediffers"]);
    third.recovered = recovered(3, 51);
    assert_eq!(bench.fence(4, 4, &third), ["keep 4 fence 9 v90 complete"]);
}

#[test]
fn who_was_given_up_by_force_knows_nothing_that_counts() {
    let mut bench = Bench::held();
    bench.copy(1, 10, &later(&record(5, ANNA), 3));
    bench.kept(10);
    let mut forced = record(9, BERT);
    (forced.store, forced.recovered) = ([3; 16], recovered(2, 50));
    forced.recovered.as_mut().unwrap().pending = false;
    assert_eq!(bench.fence(2, 2, &forced), ["answer 2/2 invalid"], "its owner goes on without it");
}

#[test]
fn a_record_of_another_volume_or_without_this_replica_is_no_fence() {
    let mut bench = Bench::held();
    let mut foreign = record(9, BERT);
    foreign.volume = [3; 16];
    assert_eq!(bench.fence(2, 2, &foreign), ["answer 2/2 invalid"]);
    let mut without = record(9, BERT);
    without.slots[1] = None;
    assert_eq!(bench.fence(3, 3, &without), ["answer 3/3 invalid"]);
    assert_eq!(bench.fence(4, 4, &record(0, [0; 16])), ["answer 4/4 invalid"]);
}

#[test]
fn a_higher_fence_takes_the_place_of_a_lower_one_that_is_being_kept() {
    let mut bench = Bench::new();
    assert_eq!(bench.fence(1, 1, &record(5, ANNA)), ["keep 1 fence 5 v50 complete"]);
    let told = bench.fence(2, 2, &record(6, BERT));
    assert_eq!(told, ["answer 1/1 conflict 6"], "and is kept after it");
    assert_eq!(bench.fence(3, 3, &record(5, ANNA)), ["answer 3/3 conflict 6"]);
    assert_eq!(bench.kept(1), ["keep 2 fence 6 v60 complete"]);
    assert_eq!(bench.kept(2), ["close 1", "close 3", "carry 2 marks"]);
    assert_eq!(bench.marks(2, &[]), ["answer 2/2 fenced, copy 5 v50"]);
}

#[test]
fn a_higher_fence_takes_the_place_of_a_lower_one_that_drains_or_reads_marks() {
    let mut bench = Bench::held();
    bench.write(1, 10, 0);
    bench.fence(2, 2, &record(6, BERT));
    bench.kept(2);
    let told = bench.fence(3, 3, &record(7, ANNA));
    assert_eq!(told, ["answer 2/2 conflict 7", "keep 3 fence 7 v70 complete"]);
    assert_eq!(bench.kept(3), ["close 2"]);
    assert_eq!(bench.carried(10), ["answer 1/10 done", "carry 3 marks"]);
    let told = bench.fence(4, 4, &record(8, BERT));
    assert_eq!(told, ["answer 3/3 conflict 8", "keep 4 fence 8 v80 complete"]);
    assert_eq!(bench.kept(4), ["close 3"], "the marks of the other are still being read");
    assert_eq!(bench.marks(3, &[]), ["carry 4 marks"]);
    assert_eq!(bench.marks(4, &[]), ["answer 4/4 fenced, copy 7 v70"]);
}

#[test]
fn the_same_owner_fences_anew_in_its_epoch_and_older_associations_are_closed_and_drained() {
    let mut bench = Bench::held();
    bench.write(1, 10, 0);
    bench.open(2);
    let told = bench.fence(3, 3, &later(&record(5, ANNA), 1));
    assert_eq!(told, ["keep 3 fence 5 v51 complete"]);
    assert_eq!(bench.write(1, 11, 0), ["answer 1/11 conflict 5"]);
    assert_eq!(bench.kept(3), ["close 1", "close 2"]);
    assert_eq!(bench.carried(10), ["answer 1/10 done", "carry 3 marks"]);
    assert_eq!(bench.marks(3, &[]), ["answer 3/3 fenced, copy 5 v50"]);
    assert_eq!(bench.write(1, 12, 0), ["answer 1/12 gone"]);
    assert_eq!(bench.write(3, 13, 0), ["carry 13 write"]);
}

#[test]
fn a_fence_that_its_owner_repeats_on_a_new_association_does_not_stop_the_owner() {
    let mut bench = Bench::new();
    bench.fence(1, 1, &record(5, ANNA));
    assert_eq!(bench.fence(2, 2, &record(5, ANNA)), ["answer 1/1 gone"]);
    assert_eq!(bench.kept(1), ["keep 2 fence 5 v50 complete"]);
}

#[test]
fn a_fence_by_the_holder_itself_or_twice_by_one_association_makes_no_sense() {
    let mut bench = Bench::held();
    assert_eq!(bench.fence(1, 10, &record(6, ANNA)), ["answer 1/10 invalid"]);
    bench.fence(2, 2, &record(6, BERT));
    assert_eq!(bench.fence(2, 3, &record(7, BERT)), ["answer 2/3 invalid"]);
}

#[test]
fn a_fence_whose_association_ended_leaves_a_replica_that_obeys_nobody() {
    let mut bench = Bench::held();
    bench.fence(2, 2, &record(6, BERT));
    bench.close(2);
    assert_eq!(bench.write(1, 10, 0), ["answer 1/10 conflict 6"]);
    assert_eq!(bench.kept(2), ["close 1", "carry 2 marks"]);
    assert_eq!(bench.marks(2, &[]), ["answer 2/2 fenced, copy 5 v50"]);
    assert_eq!(bench.guard.view().holder, None);
    bench.open(3);
    assert_eq!(bench.write(3, 11, 0), ["answer 3/11 conflict 6"]);
}

#[test]
fn a_fence_whose_marks_cannot_be_read_is_refused_and_may_come_again() {
    let mut bench = Bench::new();
    bench.fence(1, 1, &record(5, ANNA));
    bench.kept(1);
    assert_eq!(bench.failed(1, Refusal::Media(4096)), ["answer 1/1 media(4096)"]);
    assert_eq!(bench.guard.view().holder, None);
    assert_eq!(bench.fence(1, 2, &record(5, ANNA)), ["keep 2 fence 5 v50 complete"]);
}

#[test]
fn after_a_restart_nobody_has_permission_until_a_new_fence() {
    let mut bench = Bench::held();
    bench.restart();
    bench.open(1);
    assert_eq!(bench.write(1, 10, 0), ["answer 1/10 conflict 5"]);
    assert_eq!(bench.fence(2, 2, &record(4, BERT)), ["answer 2/2 conflict 5"]);
    assert_eq!(bench.fence(3, 3, &record(5, ANNA)), ["keep 3 fence 5 v50 complete"]);
}

#[test]
fn what_never_held_everything_does_not_say_which_store_is_the_right_one() {
    let wiped = |epoch, store| Record {
        store: [store; 16],
        ..record_with(epoch, BERT, Standing::Member { instance: INSTANCE + 1 })
    };
    let mut bench = Bench::new();
    // An owner whom all others refuse, under a record that was renamed.
    assert_eq!(bench.fence(1, 1, &wiped(5, 3)), ["keep 1 fence 5 v50"]);
    bench.kept(1);
    let answers = ["answer 1/1 conflict 6", "keep 2 fence 6 v60"];
    assert_eq!(bench.fence(2, 2, &wiped(6, 2)), answers, "of the store that they know");
    bench.kept(2);
    // In one store it goes back for nobody, nor to a lower epoch.
    let back = Record { version: 59, ..wiped(7, 2) };
    assert_eq!(bench.fence(3, 3, &back), ["answer 3/3 copy newer 6 v60"]);
    assert_eq!(bench.fence(4, 4, &wiped(5, 3)), ["answer 4/4 conflict 6"]);
}

#[test]
fn a_wiped_replica_says_so_however_often_it_is_fenced() {
    let wiped = |epoch| record_with(epoch, BERT, Standing::Member { instance: INSTANCE + 1 });
    let mut bench = Bench::new();
    assert_eq!(bench.fence(1, 1, &wiped(5)), ["keep 1 fence 5 v50"]);
    bench.kept(1);
    // The answer never came, and neither did the next one.
    bench.fence(2, 2, &wiped(5));
    bench.kept(2);
    bench.restart();
    bench.wait(1000);
    assert_eq!(bench.fence(3, 3, &wiped(6)), ["keep 3 fence 6 v60"]);
    bench.kept(3);
    assert_eq!(bench.marks(3, &[]), ["answer 3/3 fenced, copy none"]);
    // It is copied, and added.
    assert_eq!(bench.copy(3, 4, &later(&record(6, BERT), 1)), ["keep 4 copy v61 complete"]);
    bench.kept(4);
    bench.fence(5, 5, &wiped(7));
    bench.kept(5);
    assert_eq!(bench.marks(5, &[]), ["answer 5/5 fenced, copy 6 v61"]);
}

#[test]
fn a_replica_that_was_away_and_never_a_member_has_no_copy_to_tell_of() {
    let away = |epoch| record_with(epoch, ANNA, Standing::Away { whole: true });
    let mut bench = Bench::new();
    bench.fence(1, 1, &away(5));
    bench.kept(1);
    assert_eq!(bench.marks(1, &[]), ["answer 1/1 fenced, copy none"]);
    bench.fence(2, 2, &away(6));
    bench.kept(2);
    assert_eq!(bench.marks(2, &[]), ["answer 2/2 fenced, copy none"]);
}

#[test]
fn what_is_a_request_of_the_pool_is_answered_only_when_it_has_ended() {
    let mut bench = Bench::held();
    assert_eq!(bench.write(1, 10, 0), ["carry 10 write"]);
    let snapshot = Command::Snapshot { uuid: Box::new([3; 16]) };
    assert_eq!(bench.send(1, 11, snapshot), ["carry 11 snapshot"]);
    assert_eq!(bench.read(1, 12), ["carry 12 read"]);
    let compare = Command::Compare { snapshot: None, offset: 0, len: 4096 };
    assert_eq!(bench.send(1, 13, compare), ["carry 13 compare"]);
    // Nothing that happens meanwhile answers one of them: a shell has its buffer in the pool.
    let mut told = bench.fence(2, 20, &record(6, BERT));
    told.extend(bench.kept(20));
    told.extend(bench.close(1));
    told.extend(bench.fence(3, 30, &record(7, ANNA)));
    told.extend(bench.kept(30));
    told.extend(bench.wait(5000));
    let answered = |line: &&String| line.starts_with("answer 1/");
    assert_eq!(told.iter().find(answered), None, "{told:?}");
    assert_eq!(bench.failed(12, Refusal::Failed)[0], "answer 1/12 failed");
    assert_eq!(bench.carried(10), ["answer 1/10 done"]);
    assert_eq!(bench.carried(11), ["answer 1/11 done"]);
    assert_eq!(bench.carried(13), ["answer 1/13 done"]);
}
