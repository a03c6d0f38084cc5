//! What a campaign came across: one that never reached what it is for has proved nothing.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of what was reached, by name.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    /// It was reached.
    pub fn mark(&mut self, what: &'static str) {
        self.count(what, 1);
    }

    /// It was reached so often.
    pub fn count(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Marks it if it is so.
    pub fn mark_if(&mut self, so: bool, what: &'static str) {
        self.count(what, u64::from(so));
    }

    /// Adds what another came across.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, times)| self.count(what, *times));
    }

    /// How often something was reached.
    #[must_use]
    pub fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Which of these were never reached.
    #[must_use]
    pub fn missing<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        wanted.iter().copied().filter(|what| self.times(what) == 0).collect()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> =
            self.0.iter().map(|(what, times)| format!("{what} {times}")).collect();
        f.write_str(&all.join(", "))
    }
}
