//! NVMe and NVMe/TCP as state machines without I/O: one codec, a target side and a host side.
//!
//! Sections cited: "Base" is the NVM Express Base Specification 2.0, "NVM" the NVM Command Set
//! Specification 1.0, "TCP" the NVM Express TCP Transport Specification 1.0.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod ana;
pub mod auth;
pub mod command;
pub mod conformance;
pub mod connect;
pub mod framer;
pub mod host;
pub mod lba_status;
pub mod pdu;
pub mod property;
mod status;
pub mod target;
pub mod transmit;

pub use status::Status;

/// The well-known name of the discovery subsystem (Base 4.5).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// Longest NVMe qualified name in bytes (Base 4.5).
pub const NQN_BYTES_MAX: usize = 223;

/// In-capsule data that an admin queue, and a fabrics command on any queue, may carry whatever
/// IOCCSZ says (TCP 3.3.2.1).
pub const FABRICS_IN_CAPSULE_BYTES: u32 = 8192;
