//! A check finds all there is to find before it fails, so that one run is enough to mend it.

use std::fmt::Write as _;

/// What a check found wrong, one line each.
#[derive(Debug, Default)]
pub struct Findings {
    lines: Vec<String>,
}

impl Findings {
    /// Adds a line.
    pub fn add(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Adds a line unless `held`.
    pub fn expect(&mut self, held: bool, line: impl FnOnce() -> String) {
        if !held {
            self.add(line());
        }
    }

    /// Ends the check.
    ///
    /// # Panics
    /// If something was found; the message holds every line below `rule`.
    pub fn none(mut self, rule: &str) {
        if self.lines.is_empty() {
            return;
        }
        self.lines.sort();
        let mut message = format!("{rule}: {} found\n", self.lines.len());
        for line in &self.lines {
            let _ = writeln!(message, "  {line}");
        }
        panic!("{message}");
    }
}
