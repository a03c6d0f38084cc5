//! Whole shards in simulated clusters: nothing is found where every rule holds, and a seed is one
//! run, byte for byte.
#![forbid(unsafe_code)]

use braid_sim::Story;
use braid_sim::cluster::campaign::{
    FREE, Level, MIXED, Options, Report, Selection, campaign, never_reached,
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
