//! The host side against a target that says what a test wants it to say.

mod bench;
mod data;
mod discovery;
mod life;
mod malformed;
mod memory;
mod model;
mod startup;
mod watch;
mod wire;
