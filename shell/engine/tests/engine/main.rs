//! The engine as its users meet it: through its program, its signals and its messages.
#![forbid(unsafe_code)]

mod admin;
mod change;
mod control;
mod device;
mod listener;
mod load;
mod namespace;
mod pool;
mod process;
mod refusal;
mod reservation;
mod service;
mod volume;
