//! The story of a run, for people: virtual time, and what happened.

use std::fmt::Display;

use braid_block::Instant;

/// Where a story is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Story {
    /// Nobody listens: telling costs nothing.
    #[default]
    Silent,
    /// To standard output, a line each.
    Aloud,
}

impl Story {
    /// Tells a line, if somebody listens.
    pub fn tell<T: Display>(self, now: Instant, what: impl FnOnce() -> T) {
        if self == Self::Aloud {
            let micros = now.as_nanos() / 1000;
            println!("{:>6}.{:03} ms  {}", micros / 1000, micros % 1000, what());
        }
    }
}
