//! Whole shards in simulated clusters: nothing is found where every rule holds, and a seed is one
//! run, byte for byte.
#![forbid(unsafe_code)]

mod level;

use braid_sim::cluster::campaign::{Ends, FREE, Level, PLANTS, Selection, campaign};

use level::{holds_in_200_seeds, options};

/// Whole shards.
fn shards() -> Selection {
    Selection { level: Level::Shard, ..Selection::default() }
}

#[test]
fn whatever_befalls_whole_shards_what_must_hold_holds() {
    holds_in_200_seeds(shards());
}

#[test]
fn a_seed_of_whole_shards_is_one_run_byte_for_byte() {
    let one = |first| {
        let report = campaign(&options(FREE, first, 6, shards()));
        (report.digest, report.events, report.simulated, report.seen.to_string())
    };
    let first = one(21);
    assert_eq!(first, one(21));
    assert_ne!(first.0, one(22).0);
}

#[test]
fn rules_that_are_switched_off_are_found_in_whole_shards_too() {
    let plants = [
        "ack-before-exclude",
        "clean-across-change",
        "clean-early",
        "flush-leaves-one-out",
        "record-before-fence",
        "skip-holes",
    ];
    for name in plants {
        let known = PLANTS.iter().find(|mutant| mutant.name == name);
        let mutant = known.expect("a plant of that name");
        let mut options = options(mutant.profile, 1, 200, shards());
        options.selection.plant = Some(mutant.plant);
        options.ends = Ends::Violated(mutant.shows);
        let report = campaign(&options);
        let own = report.findings.iter().find(|finding| mutant.shows_in(finding));
        assert!(own.is_some(), "{name} is not found: {:?}; {}", report.findings, report.seen);
    }
}
