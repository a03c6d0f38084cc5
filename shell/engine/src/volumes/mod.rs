//! This engine's part in volumes: it stands by for them, owns them, leaves them, as the control
//! plane orders; what their nexuses ask of the store goes to the control plane.
//!
//! ```text
//! control plane -- Order, Topology --> Runner -- Request --> shard: Volume
//!               <- Swap, Fetch, Paths --      <-- News ------
//! ```

mod asks;
mod changes;
mod part;
mod paths;
mod runner;
mod turns;
mod words;

pub use runner::{Leave, start};
