//! The control plane's process.
#![forbid(unsafe_code)]

pub mod store;
