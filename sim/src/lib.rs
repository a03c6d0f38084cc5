//! The world of the pure core, made up: virtual time, a disk that forgets, an arena that counts,
//! and one specification of what a volume may say.
//!
//! [`Disk`] and [`Cuts`] are the disk and what a power cut leaves of it, [`SimMemory`] the
//! arena, [`World`] carries out a pool's effects in random order, [`Oracle`] says what may be
//! read. A seed decides everything: the same seed is the same run, byte for byte.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod corrupt;
mod cut;
mod disk;
#[cfg(test)]
mod fake;
mod guard;
mod image;
mod machine;
mod memory;
mod oracle;
mod payload;
mod plain;
pub mod powercut;
mod ram;
mod random;
mod seen;
mod shards;
mod story;
mod workload;
mod world;

pub use cluster::{Deed, History, Number};
pub use cut::Cuts;
pub use disk::{Counts, Disk, Flight, Work};
pub use image::{BLOCK, Image};
pub use machine::Machine;
pub use memory::SimMemory;
pub use oracle::{Crash, End, Kind, Layer, Oracle, Stage, Tick, Uuid, Violation};
pub use payload::{SECTOR, Said, fill, said};
pub use plain::Plain;
pub use ram::Ram;
pub use random::Random;
pub use seen::Seen;
pub use story::Story;
pub use world::{Injection, Progress, Trouble, World};
