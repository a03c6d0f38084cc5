//! The control plane's process: the membership service with its store, the registry of engines,
//! the supervisor, and the commands by which people ask.
#![forbid(unsafe_code)]

pub mod admin;
mod command;
pub mod identity;
pub mod registry;
pub mod serve;
pub mod service;
pub mod store;

pub use command::main;
