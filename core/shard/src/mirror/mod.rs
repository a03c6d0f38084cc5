//! The mirror in a shard: replicas that nexuses use, and volumes that are served.
//!
//! ```text
//! hosts -> Volume -+- link to a replica here ----------------------> guard -> pool
//!                  +- link to another engine -> codec -> NVMe/TCP -> guard -> pool
//! ```
//!
//! `members` has the replicas of this shard's pools, a guard before each; `volumes` the nexuses
//! and what hosts ask of them; `links` what nexuses send to replicas; `codec` how that travels.

mod codec;
mod links;
mod members;
mod volumes;

pub use members::{MemberInfo, member_nqn};
pub use volumes::{News, Question, Told, VolumeConfig};

pub(crate) use members::{Errand, Members};
pub(crate) use volumes::Volumes;

pub(crate) use codec::transfer;
