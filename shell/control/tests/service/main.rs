//! A running control plane: people ask it by its commands and calls, engines report to it. The
//! engines are models that speak the real protocol; the control plane is the real process.
#![forbid(unsafe_code)]

mod changes;
mod commands;
mod crash;
mod engine;
mod lifecycle;
mod pace;
mod process;
mod supervise;
