//! What a controller answers, seen from its queues: one test for each rule of the standard that
//! a host depends on.
#![forbid(unsafe_code)]

mod ana;
mod discovery;
mod event;
mod feature;
mod fixture;
mod identify;
mod io;
mod lba_status;
mod life;
mod log;
mod opcode;
mod startup;
