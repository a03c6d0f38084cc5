//! The data plane's process: serves namespaces over NVMe/TCP, and drives targets with our own
//! host side to find out about them and to load them.
#![forbid(unsafe_code)]

pub mod admin;
pub mod client;
mod command;
pub mod control;
pub mod manage;
pub mod offline;
pub mod perf;
pub mod quantity;
pub mod serve;
pub mod volumes;

pub use braid_terminal::{error, table};
pub use command::main;
pub use error::{Error, Kind, Result};
