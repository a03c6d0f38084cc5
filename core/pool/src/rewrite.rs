//! Writing again what is read but may never become durable.
//!
//! When a flush fails, the device or the kernel may drop what it was to make durable, call it
//! written, and show it to everybody until the power goes: no later flush takes care of it. What
//! is written again is taken care of like anything that is written.
//!
//! Invariants:
//! 1. After a failure that the superblock tells, nothing of the journal is used before all of it
//!    is written again as it is, and after that a flush and a new version of the superblock have
//!    succeeded: the power may go at any moment, and the journal is what it was.
//! 2. The same holds for first writes that the journal tells (`verify`), before the pool is open,
//!    and for pages that the last checkpoint wrote but did not end with: the next one writes them.

use braid_block::{Class, Memory};

use crate::effect::Effect;
use crate::geometry::RING;
use crate::layout::BLOCK;
use crate::load::Load;
use crate::open::{Io, Opening, Phase, Progress};
use crate::scan::{Chain, WINDOW};
use crate::{Pool, Refusal, token};

/// Reads and writes of the ring in flight.
const WINDOWS: usize = 4;

/// What is being done.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The journal's blocks are read and written.
    Blocks,
    /// They become durable.
    Syncing,
    /// A new version of the superblock is written.
    Superblock { ticket: u64 },
}

/// How far it is.
#[derive(Debug)]
pub(crate) struct Rewrite {
    step: Step,
    /// Next block of the journal.
    next: u64,
}

impl Rewrite {
    pub(crate) const fn new(chain: &Chain) -> Self {
        Self { step: Step::Blocks, next: chain.tail }
    }
}

impl Pool {
    /// Takes it further.
    pub(crate) fn rewrite_on<M: Memory>(
        &mut self,
        mem: &mut M,
        o: &mut Opening,
        r: &mut Rewrite,
    ) -> Progress {
        match r.step {
            Step::Blocks => {
                if self.rewrite_blocks(mem, o, r)? {
                    self.open_sync(o);
                    r.step = Step::Syncing;
                }
            }
            Step::Syncing => match o.synced {
                None => {}
                Some(Ok(())) => r.step = Step::Superblock { ticket: self.superblocks.ask() },
                Some(Err(error)) => return Err(Refusal::Device(error)),
            },
            Step::Superblock { ticket } => {
                if self.superblocks.done() >= ticket {
                    return Ok(Some(Phase::Load(Load::new())));
                }
            }
        }
        Ok(None)
    }

    /// Reads blocks of the journal and writes them; whether all are written.
    fn rewrite_blocks<M: Memory>(
        &mut self,
        mem: &mut M,
        o: &mut Opening,
        r: &mut Rewrite,
    ) -> Result<bool, Refusal> {
        let (ring, last) = (self.store.layout.ring_blocks, o.chain.last);
        while let Some(io) = o.take_any() {
            let done = match io.result {
                Some(Err(error)) => Err(Refusal::Device(error)),
                _ if io.writes => Ok(()),
                _ => {
                    let slot = (io.offset - RING) / BLOCK;
                    let first = o.chain.tail + (slot + ring - o.chain.tail % ring) % ring;
                    self.is_as_scanned(mem, o, &io, first, u64::from(io.len) / BLOCK)
                }
            };
            if io.writes || done.is_err() {
                mem.free(io.lease);
                done?;
            } else {
                self.write_back(o, io);
            }
        }
        while r.next <= last && o.ios.len() < WINDOWS {
            let count = WINDOW.min(last - r.next + 1).min(ring - r.next % ring);
            let at = self.store.layout.journal_block(r.next);
            if self.open_read(mem, o, Class::Large, at, count * BLOCK).is_none() {
                break;
            }
            r.next += count;
        }
        Ok(r.next > last && o.ios.is_empty())
    }

    /// Writes what was read to where it was read.
    pub(crate) fn write_back(&mut self, o: &mut Opening, io: Io) {
        let (span, offset) = (io.lease.span(0, io.len), io.offset);
        self.counters.device_written_bytes += u64::from(io.len);
        let io = Io { writes: true, result: None, ..io };
        let Ok(key) = o.ios.insert(io) else { unreachable!("its read made room") };
        let token = self.token(token::OPENING, key);
        self.emit(Effect::Write { token, span, offset });
    }
}
