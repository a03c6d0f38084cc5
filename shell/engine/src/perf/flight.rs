//! Commands in flight: a fixed number of them, each with a buffer of its own for all its life.

use std::time::Duration;

use braid_block::{Class, Instant, Lease, Memory};
use braid_nvme::host::{Operation, Submission};

use crate::perf::generator::Work;
use crate::perf::pattern::Pattern;

/// The unit of a load: where a slot is and how long.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Namespace id.
    pub nsid: u32,
    /// Bytes of a slot.
    pub bytes: u32,
    /// Logical blocks of a slot.
    pub blocks: u32,
}

/// One place for a command.
#[derive(Debug)]
pub struct Flight {
    /// Position of its connection.
    pub host: usize,
    /// Its I/O queue.
    pub queue: u16,
    /// What it is doing.
    pub state: State,
    lease: Option<Lease>,
}

/// What a flight is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Idle,
    /// The target has its command.
    Flying(Work, Instant),
    /// Its command is to be sent again: the path failed. It counts from its beginning.
    Parked(Work, Instant),
}

impl Flight {
    /// A place on a queue, with no buffer yet.
    #[must_use]
    pub const fn new(host: usize, queue: u16) -> Self {
        Self { host, queue, state: State::Idle, lease: None }
    }

    /// Gives it its buffer, filled with what writes send when nobody verifies. False if there is
    /// none.
    pub fn board(&mut self, mem: &mut impl Memory, bytes: u32, filler: &Pattern) -> bool {
        let Some(lease) = Class::holding(bytes).and_then(|class| mem.alloc(class)) else {
            return false;
        };
        filler.fill(&mut mem.bytes_mut(&lease)[..bytes as usize], u64::from(self.queue), 0);
        self.lease = Some(lease);
        true
    }

    /// Gives its buffer back.
    pub fn leave(&mut self, mem: &mut impl Memory) {
        if let Some(lease) = self.lease.take() {
            mem.free(lease);
        }
    }

    /// Writes the pattern into its buffer.
    pub fn stamp(
        &mut self,
        mem: &mut impl Memory,
        geometry: Geometry,
        pattern: &Pattern,
        work: Work,
    ) {
        if let (Work::Write { slot, generation }, Some(lease)) = (work, &self.lease) {
            let data = &mut mem.bytes_mut(lease)[..geometry.bytes as usize];
            pattern.fill(data, geometry.lba(slot), generation.into());
        }
    }

    /// The command for `work`, with its buffer if it moves data.
    #[must_use]
    pub fn submission(&mut self, geometry: Geometry, work: Work, cookie: u64) -> Submission {
        let operation = geometry.operation(work);
        let (lease, len) = match work {
            Work::Flush => (None, 0),
            Work::Read { .. } | Work::Write { .. } => (self.lease.take(), geometry.bytes),
        };
        Submission { operation, nsid: geometry.nsid, lease, len, cookie, queue: self.queue }
    }

    /// Takes its buffer back from a command that ended or was not taken.
    pub fn take_back(&mut self, lease: Option<Lease>) {
        if lease.is_some() {
            self.lease = lease;
        }
    }

    /// What a read brought.
    #[must_use]
    pub fn data<'a>(&self, mem: &'a impl Memory, geometry: Geometry) -> &'a [u8] {
        self.lease.as_ref().map_or(&[], |lease| &mem.bytes(lease)[..geometry.bytes as usize])
    }

    /// How long ago its command was first sent.
    #[must_use]
    pub const fn age(&self, now: Instant) -> Duration {
        match self.state {
            State::Idle => Duration::ZERO,
            State::Flying(_, begun) | State::Parked(_, begun) => now.since(begun),
        }
    }
}

impl Geometry {
    /// The first block of a slot.
    #[must_use]
    pub fn lba(self, slot: u64) -> u64 {
        slot * u64::from(self.blocks)
    }

    fn operation(self, work: Work) -> Operation {
        let blocks = self.blocks;
        match work {
            Work::Read { slot } => Operation::Read { lba: self.lba(slot), blocks },
            Work::Write { slot, .. } => {
                Operation::Write { lba: self.lba(slot), blocks, durable: false }
            }
            Work::Flush => Operation::Flush,
        }
    }
}
