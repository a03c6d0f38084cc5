//! Rules of replication that are switched off are found, each by the profile that meets its trap,
//! and by the violation of what the rule keeps: another one shows nothing of it.
#![forbid(unsafe_code)]

use std::time::Instant;

use braid_sim::Story;
use braid_sim::cluster::campaign::{Ends, Mutant, Options, PLANTS, Profile, Selection, campaign};

/// Seeds of its own profile within which each must be found.
const SEEDS: u64 = 200;

/// Looks for one; tells what was found, or what was found instead.
fn look_for(mutant: &Mutant) -> Result<String, String> {
    let options = Options {
        seeds: SEEDS,
        first: 1,
        profile: mutant.profile,
        selection: Selection { plant: Some(mutant.plant), ..Selection::default() },
        story: Story::Silent,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        ends: Ends::Violated(mutant.shows),
    };
    let findings = campaign(&options).findings;
    let own = findings.iter().find(|finding| mutant.shows_in(finding));
    own.map(ToString::to_string).ok_or_else(|| {
        let others: Vec<&str> = findings.iter().map(|found| found.violation.invariant).collect();
        format!("{}: found instead: {others:?}", mutant.name)
    })
}

#[test]
fn every_rule_that_is_switched_off_is_found_by_what_it_keeps() {
    let mut missed = Vec::new();
    for mutant in PLANTS {
        let began = Instant::now();
        let result = look_for(&mutant);
        let seconds = began.elapsed().as_secs_f64();
        println!("{}, {seconds:.1} s: {result:?}", mutant.name);
        missed.extend(result.err());
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

#[test]
fn every_rule_has_a_profile_that_there_is_and_something_that_it_keeps() {
    for Mutant { name, profile, shows, .. } in PLANTS {
        assert!(Profile::names().any(|known| known == profile), "{name}: no profile {profile}");
        assert!(!shows.is_empty() && !shows.contains(&"NoPanic"), "{name}: {shows:?}");
    }
}
