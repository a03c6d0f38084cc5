//! Campaigns of either level, and what must be so after each.

use braid_sim::Story;
use braid_sim::cluster::campaign::{
    Ends, MIXED, Options, Report, Selection, campaign, never_reached,
};

/// So many seeds of a kind, on all processors.
pub(crate) fn options(
    profile: &'static str,
    first: u64,
    seeds: u64,
    selection: Selection,
) -> Options {
    Options {
        seeds,
        first,
        profile,
        selection,
        story: Story::Silent,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        ends: Ends::Never,
    }
}

/// Nothing was found.
pub(crate) fn clean(report: &Report) {
    let told: Vec<String> =
        report.findings.iter().map(|finding| format!("{finding}; {}", finding.replay())).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// In 200 seeds of all kinds nothing is found, all that should happen does, and all converge.
pub(crate) fn holds_in_200_seeds(selection: Selection) {
    let options = options(MIXED, 1, 200, selection);
    let report = campaign(&options);
    clean(&report);
    let missing = never_reached(&options, &report);
    assert!(missing.is_empty(), "never reached: {missing:?}; {}", report.seen);
    assert_eq!(report.seen.times("converged"), 200, "{}", report.seen);
}
