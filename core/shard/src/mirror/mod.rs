//! The mirror in a shard: replicas that nexuses use, and volumes that are served.
//!
//! ```text
//! hosts -> Volume -+- link to a replica here ----------------------> guard -> pool
//!                  +- link to another engine -> codec -> NVMe/TCP -> guard -> pool
//! ```
//!
//! `members` has the replicas of this shard's pools, a guard before each, with their `lines`,
//! `arrivals` and `errands`; `volumes` has the nexuses, `guests` what hosts ask of them; `links`
//! and `calls` what nexuses send to replicas; `codec` how that travels; `rehearsal`
//! what simulators see and change of all that.

mod arrivals;
mod calls;
mod codec;
mod errands;
mod guests;
mod lines;
mod links;
mod members;
mod rehearsal;
mod sums;
mod volumes;

pub use errands::SNAPSHOT_PREFIX;
pub use members::{MemberInfo, member_nqn};
pub use rehearsal::{Deed, Rehearsal};
pub use volumes::{News, Question, Told, VolumeConfig};

pub(crate) use errands::Errand;
pub(crate) use guests::Guest;
pub(crate) use lines::LineKey;
pub(crate) use links::Owner;
pub(crate) use members::Members;
pub(crate) use volumes::Volumes;

pub(crate) use codec::transfer;
