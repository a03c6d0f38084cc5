//! The nexus: a synchronous mirror over replicas that it knows by opaque identities, and the
//! replica's half of its protocol. `design/replication.md` has the rules, by the same names.
//!
//! [`Volume`] is one engine's part in a volume: the hosts that are connected at its portal, and
//! while it is the owner the incarnation that serves them. [`guard::Guard`] stands before each
//! replica and decides whose commands are carried out. [`Record`] is what both agree on.
//!
//! A shell calls [`Volume::submit`] with hosts' commands, [`Volume::command`] with management,
//! tells [`Volume::handle`] what happened, and takes effects, completions and notes until there
//! are none. Nothing here knows a clock, a socket or a disk.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod effect;
pub mod guard;
mod host;
pub mod record;
pub mod recovery;
mod volume;
pub mod wire;

pub use config::{Limits, Plant, Timing};
pub use effect::{Effect, Event, Note, Step, Swapped, Why};
pub use host::{Command, Completion, Ended, Failure, Request, Status, Work, ZERO_MAX};
pub use record::{Record, Uuid};
pub use volume::{Config, Copying, Pace, Progress, Totals, View, Volume};
