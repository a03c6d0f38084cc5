//! What the checks in `tests/` share: the tree's files, cargo's view of it, and a list of findings.
#![forbid(unsafe_code)]

mod findings;
mod graph;
mod source;
mod tree;

pub use findings::Findings;
pub use graph::{Dependency, Graph, Kind, Package, host};
pub use source::{Function, Source};
pub use tree::{Tree, root};
