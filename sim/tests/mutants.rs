//! Rules of replication that are switched off are found, each by the profile that meets its trap.
#![forbid(unsafe_code)]

use std::time::Instant;

use braid_sim::Story;
use braid_sim::cluster::campaign::{Options, PLANTS, Profile, Selection, campaign};

/// Seeds of its own profile within which each must be found.
const SEEDS: u64 = 200;

#[test]
fn every_rule_that_is_switched_off_is_found() {
    let mut missed = Vec::new();
    for (name, plant, profile) in PLANTS {
        let began = Instant::now();
        let options = Options {
            seeds: SEEDS,
            first: 1,
            profile,
            selection: Selection { plant: Some(plant), ..Selection::default() },
            story: Story::Silent,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            first_finding_ends: true,
        };
        let report = campaign(&options);
        let seconds = began.elapsed().as_secs_f64();
        match report.findings.first() {
            Some(finding) => println!("{name}, {seconds:.1} s: {finding}"),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

#[test]
fn every_rule_has_a_profile_that_there_is() {
    for (name, _, profile) in PLANTS {
        assert!(Profile::names().any(|known| known == profile), "{name}: no profile {profile}");
    }
}
