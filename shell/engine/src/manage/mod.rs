//! The management of a running engine: pools, replicas and snapshots come and go by calls of the
//! service that `shell/api` describes.
//!
//! Management is mail, not a lock. Calls are answered on the management thread, where the
//! [`manager::Manager`] decides; whatever a pool is to do is posted to its shard's thread and
//! comes back as an answer ([`host::Host`]).

mod ana;
mod convert;
mod devices;
pub mod disk;
pub mod host;
pub mod hub;
pub mod manager;
mod members;
pub mod names;
mod namespaces;
pub mod nexuses;
mod notes;
mod pools;
mod replicas;
mod scrubs;
mod search;
pub mod service;
pub mod serving;
mod share;
mod snapshots;
pub mod socket;

pub(crate) use ana::to_wire as ana_to_wire;
pub(crate) use convert::fault_to_wire;
#[cfg(test)]
pub(crate) use pools::format;
pub(crate) use pools::refusal_text;

#[cfg(test)]
mod tests;
