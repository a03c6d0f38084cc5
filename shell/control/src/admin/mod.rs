//! The commands that ask a running control plane: clients of its service and nothing more.

pub mod connection;
pub mod engine;
mod member;
mod snapshot;
pub mod store;
mod views;
pub mod volume;
