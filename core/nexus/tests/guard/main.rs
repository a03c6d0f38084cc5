//! The replica's half of the protocol: what a guard does with what arrives, act by act.

mod bench;
mod chaos;
mod clean;
mod copies;
mod failure;
mod fence;
mod lease;
mod limits;
mod marks;
mod plants;
