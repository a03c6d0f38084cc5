//! Makes a finding smaller: fewer faults and fewer hosts that still show the same.
//!
//! A fault that is left out draws nothing from the others' chance, and hosts have chance of their
//! own, so what is kept stays as it was as far as the cluster's own course allows.

use std::collections::BTreeSet;

use super::campaign::{Finding, run};
use super::run::Selection;
use crate::story::Story;

/// Runs that a shrinking may take.
const RUNS_MAX: u32 = 120;

/// A smaller finding of the same invariant.
#[must_use]
pub fn shrink(finding: &Finding) -> Finding {
    let mut shrinking = Shrinking { best: finding.clone(), runs: 0 };
    shrinking.hosts();
    shrinking.faults();
    shrinking.best
}

struct Shrinking {
    best: Finding,
    runs: u32,
}

impl Shrinking {
    /// Tries a selection; if it shows the same, it is the best so far.
    fn shows(&mut self, selection: Selection) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let Finding { seed, profile, .. } = self.best;
        let outcome = run(seed, profile, &selection, Story::Silent);
        let faults = outcome.faults;
        match outcome.violation {
            Some(violation) if violation.invariant == self.best.violation.invariant => {
                self.best = Finding { selection, violation, faults, ..self.best.clone() };
                true
            }
            _ => false,
        }
    }

    fn hosts(&mut self) {
        let selection = Selection { hosts: Some(1), ..self.best.selection.clone() };
        self.shows(selection);
    }

    /// Leaves out half of the faults, a quarter, and so on, wherever that still shows it.
    fn faults(&mut self) {
        let mut kept: Vec<u32> = match &self.best.selection.keep {
            Some(keep) => keep.iter().copied().collect(),
            None => (0..self.best.faults).collect(),
        };
        let mut chunk = kept.len().max(1);
        while chunk > 0 && self.runs < RUNS_MAX {
            let mut at = 0;
            while at < kept.len() {
                let end = (at + chunk).min(kept.len());
                let fewer: Vec<u32> = [&kept[..at], &kept[end..]].concat();
                let keep: BTreeSet<u32> = fewer.iter().copied().collect();
                let selection = Selection { keep: Some(keep), ..self.best.selection.clone() };
                if self.shows(selection) {
                    kept = fewer;
                } else {
                    at = end;
                }
            }
            chunk /= 2;
        }
    }
}
