//! Whole shards in simulated clusters: nothing is found where every rule holds, and a seed is one
//! run, byte for byte.
#![forbid(unsafe_code)]

use braid_sim::Story;
use braid_sim::cluster::campaign::{
    FREE, Level, MIXED, Options, PLANTS, Report, Selection, campaign, never_reached,
};

fn options(profile: &'static str, first: u64, seeds: u64) -> Options {
    let selection = Selection { level: Level::Shard, ..Selection::default() };
    Options {
        seeds,
        first,
        profile,
        selection,
        story: Story::Silent,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        first_finding_ends: false,
    }
}

fn clean(report: &Report) {
    let told: Vec<String> =
        report.findings.iter().map(|finding| format!("{finding}; {}", finding.replay())).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn whatever_befalls_whole_shards_what_must_hold_holds() {
    let options = options(MIXED, 1, 200);
    let report = campaign(&options);
    clean(&report);
    let missing = never_reached(&options, &report);
    assert!(missing.is_empty(), "never reached: {missing:?}; {}", report.seen);
    assert_eq!(report.seen.times("converged"), 200, "{}", report.seen);
}

#[test]
fn a_seed_of_whole_shards_is_one_run_byte_for_byte() {
    let one = |first| {
        let report = campaign(&options(FREE, first, 6));
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
        "mark-after-data",
        "record-before-fence",
        "skip-holes",
    ];
    for name in plants {
        let known = PLANTS.iter().find(|(known, ..)| *known == name);
        let (_, plant, profile) = *known.expect("a plant of that name");
        let mut options = options(profile, 1, 200);
        options.selection.plant = Some(plant);
        options.first_finding_ends = true;
        let report = campaign(&options);
        assert!(!report.findings.is_empty(), "{name} is not found; {}", report.seen);
    }
}
