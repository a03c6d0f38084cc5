//! One core's world: connections, commands and backends as one state machine.
//!
//! A shell calls [`Shard::handle`] with what happened, [`Shard::end_turn`] when the turn's events
//! are through, then [`Shard::poll_effect`] until it is empty, and waits no longer than
//! [`Shard::poll_timeout`] says.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod effect;
mod event;
mod inject;
mod mail;
mod note;

use braid_block::{Instant, Memory, Span};

pub use config::{BackendConfig, Config, Limits, NamespaceConfig, SubsystemConfig};
pub use effect::Effect;
pub use event::{Disk, Event, Socket};
pub use inject::{Fault, Injection};
pub use mail::Mail;
pub use note::{Limit, Note, Operation, Why};

/// One core's world.
pub struct Shard {
    config: Config,
}

impl Shard {
    /// A shard that serves `config`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Takes one event.
    pub fn handle<M: Memory>(&mut self, mem: &mut M, now: Instant, event: Event) {
        let _ = (mem, now, event, &self.config);
    }

    /// Ends a turn: goes on with what was put off for fairness or for want of a buffer, and hands
    /// filled batches to be sent.
    pub fn end_turn<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let _ = (mem, now);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        None
    }

    /// When [`Event::Elapsed`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether a turn would find work even if nothing happens: the shell must not wait.
    #[must_use]
    pub fn has_work(&self) -> bool {
        false
    }

    /// The bytes of a batch that [`Effect::Send`] names, in order, at most 64 pieces.
    #[must_use]
    pub fn batch(&self, batch: u32) -> &[Span] {
        let _ = batch;
        &[]
    }

    /// Begins an orderly stop: nothing new is accepted, commands in flight finish, hosts see an
    /// orderly close. [`Note::Drained`] tells the end.
    pub fn stop<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        let _ = (mem, now);
    }

    /// Frees every lease, for a shell that ends.
    pub fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        let _ = mem;
    }
}
