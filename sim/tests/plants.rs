//! Bugs that are built in are found: each breaks one rule that the format depends on.
#![forbid(unsafe_code)]

use braid_pool::{Plant, Pool};
use braid_sim::Story;
use braid_sim::powercut::{Options, campaign};

/// States within which each must be found.
const STATES: u64 = 20_000;

fn found(plant: Plant) {
    let options = Options {
        states: STATES,
        first: 1,
        only: None,
        story: Story::Silent,
        plant: Some(plant),
        garbage: true,
    };
    let report = campaign::<Pool>(&options);
    let finding = report.finding.unwrap_or_else(|| panic!("{plant:?} was not found"));
    let exact = |name| finding.violation.invariant == name;
    // The pool must be at work: one that does not run violates these from the first seed on.
    assert!(!exact("Creates") && !exact("Opens"), "{plant:?}: {finding}");
    println!("{plant:?} after {} states: {finding}", report.states);
}

#[test]
fn a_flush_that_is_none_is_found() {
    found(Plant::SkipFlush);
}

#[test]
fn a_journal_block_that_is_half_checked_is_found() {
    found(Plant::TearRecord);
}

#[test]
fn space_that_is_used_again_too_early_is_found() {
    found(Plant::ReuseEarly);
}

#[test]
fn a_journal_that_is_settled_too_early_is_found() {
    found(Plant::SettleEarly);
}

#[test]
fn overlapping_writes_without_a_lock_are_found() {
    found(Plant::NoLock);
}

#[test]
fn an_open_region_that_is_taken_for_closed_is_found() {
    found(Plant::IgnoreOpenRegion);
}
