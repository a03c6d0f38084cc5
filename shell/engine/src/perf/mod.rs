//! `braid-engine perf`: our host side as a load generator that can verify what it reads.

pub mod generator;
pub mod options;
pub mod pattern;
pub mod report;

pub use options::Options;
