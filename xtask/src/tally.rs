//! How many checks held, and which did not.

use std::fmt;

/// A count of checks, with the failed ones by name.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u64,
    failures: Vec<String>,
}

impl Tally {
    /// One more check held.
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    /// One check did not hold.
    pub(crate) fn fail(&mut self, name: &str, detail: &str) {
        self.failures.push(format!("{name}: {detail}"));
    }

    /// So many more checks held.
    pub(crate) fn count(&mut self, passed: u64) {
        self.passed += passed;
    }

    /// Adds what another tally holds.
    pub(crate) fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }

    /// How many did not.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.len() as u64
    }

    /// What did not hold, a line each.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed())
    }
}
