//! Simulated clusters: nothing is found where every rule holds, and a seed is one run.
#![forbid(unsafe_code)]

mod level;

use braid_sim::cluster::campaign::{
    FREE, MIXED, PLANTS, Profile, Report, Selection, campaign, kind,
};
use braid_sim::cluster::shrink::shrink;

use level::{clean, holds_in_200_seeds, options};

fn run(profile: &'static str, first: u64, seeds: u64, selection: Selection) -> Report {
    campaign(&options(profile, first, seeds, selection))
}

#[test]
fn whatever_befalls_a_cluster_what_must_hold_holds() {
    holds_in_200_seeds(Selection::default());
}

#[test]
fn of_200_seeds_each_kind_of_cluster_has_some_and_three_of_four_are_free() {
    let of = |profile| (1..=200).filter(|seed| kind(MIXED, *seed) == profile).count();
    assert_eq!(of(FREE), 150);
    for profile in Profile::names().filter(|profile| *profile != FREE) {
        assert!(of(profile) >= 1, "{profile}");
    }
}

#[test]
fn every_layer_of_a_chain_is_rebuilt_though_its_source_dies_half_way() {
    let seeds = 12;
    let report = run("rebuild-chain", 1, seeds, Selection::default());
    clean(&report);
    let seen = |what| report.seen.times(what);
    assert_eq!(seen("source of a rebuild died half-way"), seeds, "each seed meets it");
    assert_eq!(seen("every layer compared"), seeds);
    assert!(seen("source of a rebuild died in a snapshot") > 0, "{}", report.seen);
    assert!(seen("source of a rebuild died in the volume") > 0, "{}", report.seen);
}

#[test]
fn what_was_acknowledged_survives_the_store() {
    for (profile, fault) in [("store-lost", "store lost"), ("store-restored", "store restored")] {
        let report = run(profile, 1, 12, Selection::default());
        clean(&report);
        assert!(report.seen.times(fault) > 12, "{}", report.seen);
        assert!(report.seen.times("replicas knew more than the store") > 12, "{}", report.seen);
    }
}

#[test]
fn a_seed_is_one_run_whoever_else_runs() {
    let one = |first| {
        let report = run(FREE, first, 6, Selection::default());
        (report.events, report.simulated, report.seen.to_string())
    };
    let (events, simulated, seen) = one(11);
    assert_eq!((events, simulated, seen), one(11));
    assert!(events > 1000 && events != one(12).0);
}

#[test]
fn a_finding_is_made_smaller_and_its_command_shows_it() {
    let mutant = PLANTS.iter().find(|mutant| mutant.name == "skip-holes").expect("that plant");
    let profile = mutant.profile;
    let selection = Selection { plant: Some(mutant.plant), ..Selection::default() };
    let report = run(profile, 1, 4, selection);
    let first = report.findings.first().expect("a finding");
    let smaller = shrink(first);
    assert_eq!(smaller.violation.invariant, first.violation.invariant);
    assert!(smaller.selection.keep.as_ref().is_some_and(|keep| keep.len() < 4), "{smaller:?}");
    assert!(smaller.replay().contains("--plant skip-holes --keep"), "{}", smaller.replay());
    let again = run(profile, smaller.seed, 1, smaller.selection);
    assert_eq!(again.findings[0].violation, smaller.violation);
}
