//! Runs that end as none may: what judges them says so.

use std::time::Duration;

use super::profile::{Fault, Profile};
use super::run::{Run, Selection};
use super::{DiskFault, Place, Temper};
use crate::oracle::Violation;
use crate::story::Story;

/// A quiet cluster whose hosts have worked for a while.
fn run() -> Run {
    let profile = Profile::named("calm", 1).unwrap();
    let mut run = Run::new(1, profile, Selection::default(), Story::Silent);
    (0..run.guests.len()).for_each(|guest| run.arm(guest));
    run.begin().unwrap();
    pass(&mut run, 2000);
    run
}

fn pass(run: &mut Run, millis: u64) {
    let until = run.cluster.now() + Duration::from_millis(millis);
    run.until(until).unwrap();
}

fn name(result: Result<(), Violation>) -> Option<&'static str> {
    result.err().map(|violation| violation.invariant)
}

#[test]
fn a_pool_that_is_not_as_it_must_be_is_found_in_the_end() {
    let mut sound = run();
    sound.heal().unwrap();
    pass(&mut sound, 5000);
    let mut spoilt = run();
    spoilt.heal().unwrap();
    // Regions are closed by then: what they hold must match its checksum.
    pass(&mut spoilt, 5000);
    assert!(spoilt.cluster.disk_fault(1, DiskFault::BitFlip));
    assert_eq!(name(sound.judge()), None);
    assert_eq!(name(spoilt.judge()), Some("SpaceExact"));
}

#[test]
fn a_replica_that_nobody_brings_back_is_found_after_the_time_is_over() {
    let mut run = run();
    run.order(Fault::Exclude);
    run.cluster.set_temper(Temper { awake: false, ..Temper::default() });
    pass(&mut run, 1000);
    assert_eq!(run.cluster.record(0).unwrap().members().count_ones(), 2);
    let before = run.cluster.now();
    assert_eq!(name(run.until_idle()), Some("ConvergeAfterHeal"));
    assert!(run.cluster.now().since(before) >= super::run::PATIENCE);
    run.cluster.set_temper(Temper::default());
    run.heal().unwrap();
}

#[test]
fn a_host_that_waits_for_ever_is_found_after_the_time_is_over() {
    let mut run = run();
    let places: Vec<u8> = run.guests.iter().map(|guest| guest.place).collect();
    for host in places {
        (0..3).for_each(|node| run.cluster.partition(Place::Host(host), Place::Node(node), false));
    }
    pass(&mut run, 500);
    run.guests.iter_mut().for_each(|guest| guest.host.set_quiet(true));
    assert_eq!(name(run.until_idle()), Some("ConvergeAfterHeal"));
    run.heal().unwrap();
}

#[test]
fn a_volume_that_nobody_serves_is_found_after_the_time_is_over() {
    let mut run = run();
    run.guests.iter_mut().for_each(|guest| guest.host.set_quiet(true));
    pass(&mut run, 1000);
    run.cluster.set_temper(Temper { awake: false, ..Temper::default() });
    run.order(Fault::Shutdown);
    assert_eq!(name(run.until_idle()), Some("ConvergeAfterHeal"));
}

#[test]
fn a_snapshot_that_only_a_member_knows_is_found_in_the_end() {
    let mut run = run();
    run.heal().unwrap();
    run.order(Fault::Snapshot);
    pass(&mut run, 1000);
    let record = run.cluster.record(0).unwrap().clone();
    let forgotten = record.snapshots[0];
    assert_eq!(super::end::lacking(&record, &Default::default()), None);
    assert_eq!(name(run.layers_are_named()), None);
    // The same disks beside a record that does not name it.
    let mut without = record.clone();
    without.snapshots.clear();
    assert!(super::end::unnamed(&without, [forgotten.uuid]).is_some());
}

#[test]
fn an_owner_that_does_not_clear_its_marks_is_found_after_the_time_is_over() {
    let mut profile = Profile::named("calm", 1).unwrap();
    // It would take longer than anybody waits.
    profile.timing.idle = super::run::PATIENCE * 2;
    let mut run = Run::new(1, profile, Selection::default(), Story::Silent);
    (0..run.guests.len()).for_each(|guest| run.arm(guest));
    run.begin().unwrap();
    pass(&mut run, 2000);
    run.heal().unwrap();
    assert_eq!(name(run.judge()), None);
    assert_eq!(name(run.rest()), Some("ConvergeAfterHeal"));
}
