//! A short piece of both campaigns, so that every test run has some.
#![forbid(unsafe_code)]

use braid_pool::Pool;
use braid_sim::{Story, corrupt, powercut};

#[test]
fn a_pool_survives_cuts_and_kills() {
    let options = powercut::Options {
        states: 2000,
        first: 1,
        only: None,
        story: Story::Silent,
        plant: None,
        garbage: true,
    };
    let report = powercut::campaign::<Pool>(&options);
    let place = report.finding.as_ref().map(|finding| (finding.seed, finding.place()));
    assert!(report.finding.is_none(), "{place:?} {}", report.finding.expect("a finding"));
}

#[test]
fn a_damaged_pool_never_reads_wrong_data() {
    let options = corrupt::Options { cases: 500, first: 1, only: None, story: Story::Silent };
    let report = corrupt::campaign::<Pool>(&options);
    let place = report.finding.as_ref().map(|finding| (finding.seed, finding.case));
    assert!(report.finding.is_none(), "{place:?} {}", report.finding.expect("a finding"));
}
