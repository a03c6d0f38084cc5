//! A node's disk in virtual time: every operation takes a time of its own, so they end in any
//! order, and some fail.
//!
//! Invariants:
//! 1. What the kernel has of an operation stays with the disk when the process dies; its end is
//!    told to nobody then.
//! 2. A buffer is held from the submission to the end.

use std::collections::BTreeMap;

use braid_block::{Instant, IoError, Span, Token};
use braid_pool::{Effect, Operation};

use super::clock::{Clock, Happening, Spread};
use crate::disk::{Disk, Flight, Work};
use crate::image::BLOCK;
use crate::memory::SimMemory;
use crate::payload::{SECTOR, Said, said};
use crate::world::{Injection, Trouble};

/// How long a disk takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A read.
    pub read: Spread,
    /// A write.
    pub write: Spread,
    /// A flush.
    pub flush: Spread,
    /// One operation in so many stalls; 0: none.
    pub stall_in: u64,
    /// How long.
    pub stall: Spread,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            read: Spread::micros(50, 1000),
            write: Spread::micros(20, 1000),
            flush: Spread::micros(100, 4000),
            stall_in: 0,
            stall: Spread::millis(500, 8000),
        }
    }
}

/// A disk, and who uses it.
#[derive(Debug)]
pub(crate) struct Drive {
    pub(crate) disk: Disk,
    node: u8,
    pace: Pace,
    given: BTreeMap<Flight, (Token, Option<Span>)>,
    faults: Vec<Injection>,
    /// Nothing ends before.
    stalled: Instant,
    /// The next write of data goes elsewhere.
    misdirect: bool,
}

impl Drive {
    pub(crate) const fn new(node: u8, disk: Disk, pace: Pace) -> Self {
        Self {
            disk,
            node,
            pace,
            given: BTreeMap::new(),
            faults: Vec::new(),
            stalled: Instant::ZERO,
            misdirect: false,
        }
    }

    /// It takes so long from now on, and what was to go wrong does not.
    pub(crate) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
        self.faults.clear();
    }

    /// Adds a fault that is to come.
    pub(crate) fn inject(&mut self, injection: Injection) {
        self.faults.push(injection);
    }

    /// Nothing ends before then.
    pub(crate) fn stall(&mut self, until: Instant) {
        self.stalled = self.stalled.max(until);
    }

    /// The next write of a host's data goes to the place of other data.
    pub(crate) const fn misdirect(&mut self) {
        self.misdirect = true;
    }

    /// The process died, and the kernel with it or not: what it had is over.
    pub(crate) fn kill(&mut self, clock: &mut Clock) {
        self.disk.kill(&mut clock.random);
        self.given.clear();
    }

    /// Another disk is in its place.
    pub(crate) fn replace(&mut self, disk: Disk) {
        self.disk = disk;
        self.given.clear();
        self.faults.clear();
        self.misdirect = false;
    }

    /// Takes an operation of a pool.
    pub(crate) fn take(
        &mut self,
        clock: &mut Clock,
        mem: &mut SimMemory,
        life: u64,
        effect: Effect,
    ) {
        let (token, span, work) = match effect {
            Effect::Read { token, span, offset } => {
                (token, Some(span), Work::Read { offset, len: u64::from(span.len) })
            }
            Effect::Write { token, span, offset } => {
                let bytes = mem.span(span).into();
                (token, Some(span), Work::Write { offset, bytes })
            }
            Effect::Sync { token } => (token, None, Work::Sync { since: 0 }),
            Effect::Discard { token, offset, len } => (token, None, Work::Discard { offset, len }),
        };
        if let Some(span) = span {
            mem.hold(span, matches!(work, Work::Read { .. }));
        }
        let delay = match (&work, self.trouble(&work, true)) {
            (_, Some(Trouble::Stall(time))) => {
                clock.tell(|| format!("n{} disk: an operation stalls for {time:?}", self.node));
                time
            }
            _ if clock.once_in(self.pace.stall_in) => clock.spread(self.pace.stall),
            (Work::Read { .. }, _) => clock.spread(self.pace.read),
            (Work::Write { .. } | Work::Discard { .. }, _) => clock.spread(self.pace.write),
            (Work::Sync { .. }, _) => clock.spread(self.pace.flush),
        };
        let is_write = matches!(work, Work::Write { .. });
        let flight = self.disk.submit(work);
        self.given.insert(flight, (token, span));
        let node = self.node;
        if is_write && clock.once_in(16) {
            clock.after(delay / 2, Happening::Arrive { node, life, flight });
        }
        clock.at(self.stalled.max(clock.now() + delay), Happening::Disk { node, life, flight });
    }

    /// A part of a write is there early.
    pub(crate) fn arrive(&mut self, clock: &mut Clock, flight: Flight) {
        if self.given.contains_key(&flight) {
            self.disk.arrive(flight, &mut clock.random);
        }
    }

    /// Ends an operation; none if the whole disk stalls until later.
    pub(crate) fn end(
        &mut self,
        clock: &mut Clock,
        mem: &mut SimMemory,
        life: u64,
        flight: Flight,
    ) -> Option<(Token, Result<u32, IoError>)> {
        if self.stalled > clock.now() {
            clock.at(self.stalled, Happening::Disk { node: self.node, life, flight });
            return None;
        }
        let work = self.disk.flying().find(|(of, _)| *of == flight)?.1.clone();
        let (token, span) = self.given.remove(&flight)?;
        let result = match self.trouble(&work, false) {
            Some(Trouble::Fail(error)) => {
                clock.tell(|| format!("n{} disk: {error} for a {}", self.node, name(&work)));
                self.disk.fail(flight, &mut clock.random);
                Err(error)
            }
            _ => {
                self.redirect(clock, flight, &work);
                let into = match (&work, span) {
                    (Work::Read { .. }, Some(span)) => mem.span_mut(span),
                    _ => &mut [],
                };
                self.disk.complete(flight, &mut clock.random, into)
            }
        };
        if let Some(span) = span {
            mem.release(span, matches!(work, Work::Read { .. }));
        }
        Some((token, result))
    }

    /// Lets a write of a host's data go where other data is, if that is due.
    fn redirect(&mut self, clock: &mut Clock, flight: Flight, work: &Work) {
        let Work::Write { offset, bytes } = work else { return };
        if !self.misdirect || bytes.len() != BLOCK || !is_data(bytes) {
            return;
        }
        let Some(place) = self.some_data(clock, Some(*offset / BLOCK as u64)) else { return };
        self.misdirect = false;
        let other = place * BLOCK as u64;
        if self.disk.redirect(flight, other) {
            clock.tell(|| format!("n{} disk: {offset:#x} is written to {other:#x}", self.node));
        }
    }

    /// A sector of some block of data cannot be read any more.
    pub(crate) fn spoil(&mut self, clock: &mut Clock) -> bool {
        let Some(block) = self.some_data(clock, None) else { return false };
        let sectors = BLOCK as u64 / u64::from(self.disk.sector());
        let sector = block * sectors + clock.random.below(sectors);
        clock.tell(|| format!("n{} disk: sector {sector:#x} is bad", self.node));
        self.disk.spoil(sector);
        true
    }

    /// A bit of some block of data turns.
    pub(crate) fn flip(&mut self, clock: &mut Clock) -> bool {
        let Some(block) = self.some_data(clock, None) else { return false };
        let bit = clock.random.below(BLOCK as u64 * 8);
        clock.tell(|| format!("n{} disk: bit {bit} of block {block:#x} turns", self.node));
        self.disk.flip(block * BLOCK as u64 + bit / 8, 1 << (bit % 8));
        true
    }

    /// A block that holds what a host wrote, and is not being written.
    fn some_data(&self, clock: &mut Clock, but: Option<u64>) -> Option<u64> {
        let block = BLOCK as u64;
        let busy = |at: u64| {
            Some(at) == but
                || self.disk.flying().any(|(_, work)| match work {
                    Work::Write { offset, bytes } => {
                        *offset < (at + 1) * block && at * block < offset + bytes.len() as u64
                    }
                    Work::Discard { offset, len } => {
                        *offset < (at + 1) * block && at * block < offset + len
                    }
                    _ => false,
                })
        };
        let data = self.disk.current().blocks().filter(|(_, bytes)| is_data(&bytes[..]));
        let data: Vec<u64> = data.map(|(at, _)| at).filter(|at| !busy(*at)).collect();
        (!data.is_empty()).then(|| *clock.random.pick(&data))
    }

    /// The fault that is due for an operation: stalls when it begins, failures when it ends.
    fn trouble(&mut self, work: &Work, begins: bool) -> Option<Trouble> {
        let operation = match work {
            Work::Read { .. } => Operation::Read,
            Work::Write { .. } => Operation::Write,
            Work::Sync { .. } => Operation::Flush,
            Work::Discard { .. } => return None,
        };
        let mut due = None;
        for (at, fault) in self.faults.iter_mut().enumerate() {
            let stalls = matches!(fault.trouble, Trouble::Stall(_));
            if fault.operation == operation && stalls == begins {
                match fault.after.checked_sub(1) {
                    Some(less) => fault.after = less,
                    None => due = Some(at),
                }
            }
        }
        due.map(|at| self.faults.swap_remove(at).trouble)
    }
}

/// Whether a block is what a host wrote, by its payload.
fn is_data(bytes: &[u8]) -> bool {
    bytes.chunks_exact(SECTOR).any(|sector| matches!(said(sector), Said::Written { .. }))
}

const fn name(work: &Work) -> &'static str {
    match work {
        Work::Read { .. } => "read",
        Work::Write { .. } => "write",
        Work::Sync { .. } => "flush",
        Work::Discard { .. } => "discard",
    }
}
