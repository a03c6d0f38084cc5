//! Reservations: each rule of the standard, the conflict matrix, what persists, and random
//! commands beside a naive model.

mod asked;
mod durable;
#[path = "../host/memory.rs"]
#[allow(dead_code, reason = "only its checksum is used here")]
mod memory;
mod model;
mod parse;
mod rules;
mod script;
