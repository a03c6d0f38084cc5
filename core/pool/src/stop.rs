//! Stopping a pool in order, and letting go of everything.
//!
//! ```text
//! Draining -> Closing -> Checkpoint -> Settling -> Superblock -> stopped
//! ```
//!
//! Invariants:
//! 1. The marker of an orderly stop is written when everything else is durable: the maps hold
//!    every cell, no region is open but those nobody adopted, and nothing is in flight.
//! 2. After a failure nothing is marked: the next open replays, and makes instances new.
//! 3. It ends: a device that does not answer for long has failed (`watch`).

use braid_block::{Instant, Memory};

use crate::layout::{ADOPT, CLEAN, DROPPED, UNTRIMMED};
use crate::{Note, Pool, State};

/// How far a stop is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Requests, commands and background work end.
    #[default]
    Draining,
    /// Regions are closed.
    Closing,
    /// The maps are written.
    Checkpoint {
        /// Checkpoints that were done when this one was asked for.
        done: Option<u64>,
    },
    /// The last blocks of the journal become durable.
    Settling(u64),
    /// The marker is being written.
    Superblock(u64),
}

impl Pool {
    /// Begins an orderly stop: requests in work end, regions close, maps are written. A pool that
    /// is not open yet fails instead, for there is nothing to end in order.
    pub fn stop<M: Memory>(&mut self, _mem: &mut M, now: Instant) {
        match self.state {
            State::Open if self.config.read_only => {
                self.state = State::Stopped;
                self.notes.push_back(Note::Stopped);
            }
            State::Open => {
                self.state = State::Stopping;
                self.watch.stops(now);
                self.again();
            }
            State::Opening => self.state = State::Failed,
            State::Stopping | State::Stopped | State::Failed => {}
        }
    }

    /// Takes a stop further.
    pub(crate) fn stop_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {
        let next = match self.stop {
            Stop::Draining => self.is_drained().then_some(Stop::Closing),
            Stop::Closing => {
                (self.regions.open_len() == 0).then_some(Stop::Checkpoint { done: None })
            }
            Stop::Checkpoint { .. } if self.is_checkpointed() => {
                Some(Stop::Settling(self.ask_sync()))
            }
            Stop::Checkpoint { done } if done != Some(self.counters.checkpoints) => {
                self.want_checkpoint();
                Some(Stop::Checkpoint { done: Some(self.counters.checkpoints) })
            }
            Stop::Checkpoint { .. } => None,
            Stop::Settling(number) if self.sync.done() >= number => {
                // Nothing may follow what the superblock calls the last journal block.
                let still = self.is_checkpointed() && self.journal.is_idle();
                Some(if still { self.mark_clean() } else { Stop::Checkpoint { done: None } })
            }
            Stop::Settling(_) => None,
            Stop::Superblock(ticket) => {
                if self.superblocks.done() >= ticket {
                    self.state = State::Stopped;
                    self.notes.push_back(Note::Stopped);
                }
                None
            }
        };
        if let Some(next) = next {
            self.stop = next;
            self.again();
        }
    }

    /// Whether the superblock is being written that says where the journal ends: nothing is added
    /// to it any more.
    pub(crate) const fn is_sealed(&self) -> bool {
        matches!(self.stop, Stop::Superblock(_))
    }

    fn is_drained(&self) -> bool {
        self.ops.is_empty()
            && self.pieces.is_empty()
            && self.jobs.is_empty()
            && self.commands.is_idle()
            && self.reclaim_is_idle()
            && self.superblocks.is_idle()
    }

    fn mark_clean(&mut self) -> Stop {
        let left = if self.adopt.is_done() { 0 } else { ADOPT | DROPPED };
        let untrimmed = if self.is_untrimmed() { UNTRIMMED } else { 0 };
        let block = &mut self.superblock;
        block.flags = (CLEAN | untrimmed | left & (block.flags.get() | ADOPT)).into();
        block.last_seq = self.journal.emitted().into();
        block.last_crc = self.journal.last_crc().into();
        block.tail = (self.journal.emitted() + 1).into();
        Stop::Superblock(self.superblocks.ask())
    }

    /// Gives every buffer back; nothing may be in flight any more, and nothing is called after.
    pub fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        let ops: alloc::vec::Vec<_> = self.ops.iter().map(|(key, _)| key).collect();
        for op in ops.into_iter().filter_map(|key| self.ops.remove(key)) {
            op.lease.into_iter().for_each(|lease| mem.free(lease));
        }
        let pieces: alloc::vec::Vec<_> = self.pieces.iter().map(|(key, _)| key).collect();
        for piece in pieces.into_iter().filter_map(|key| self.pieces.remove(key)) {
            piece.side.into_iter().for_each(|lease| mem.free(lease));
        }
        for (completion, _) in self.completions.drain(..) {
            completion.lease.into_iter().for_each(|lease| mem.free(lease));
        }
        for lease in self.zeros.take().into_iter().chain(self.spare.take()) {
            mem.free(lease);
        }
        if let Some(mut opening) = self.opening.take() {
            opening.drop_leases(mem);
        }
        self.journal.drop_leases(mem);
        self.jobs.drop_leases(mem);
        self.superblocks.drop_leases(mem);
        self.fetches.drop_leases(mem);
        self.checkpoint.drop_leases(mem);
    }
}
