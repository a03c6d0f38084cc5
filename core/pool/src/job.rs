//! Buffers of work that nobody outside waits for: adoption, reclaim and scrub.
//!
//! Invariants:
//! 1. A job is one buffer with any number of reads, or of writes, in flight at a time; its buffer
//!    goes back only when none is.
//! 2. A write that fails, fails the pool at once; a read that fails is told to the job's owner.
//! 3. Owners look at their jobs at the end of every turn; nothing else wakes them.

use alloc::vec::Vec;

use braid_block::{Class, Instant, IoError, Key, Lease, Memory, Slab, Span, Token};

use crate::transfer::Transfers;
use crate::{Effect, Operation, Pool, token};

/// Jobs at once.
const JOBS_MAX: u32 = 32;

/// A buffer, and what is in flight for it.
#[derive(Debug)]
pub(crate) struct Job {
    lease: Lease,
    transfers: Transfers,
    /// First byte on the device of what was begun last.
    offset: u64,
    writes: bool,
    /// What came of all that was begun, once none is in flight.
    outcome: Result<(), IoError>,
}

/// All jobs.
#[derive(Debug)]
pub(crate) struct Jobs(Slab<Job>);

impl Jobs {
    /// No job.
    pub(crate) fn new() -> Self {
        Self(Slab::with_capacity(JOBS_MAX))
    }

    /// A job's buffer; none if the job is gone.
    pub(crate) fn lease(&self, key: Key) -> Option<&Lease> {
        self.0.get(key).map(|job| &job.lease)
    }

    /// What came of what was begun since this was last asked, once none of it is in flight. A job
    /// that is gone has failed.
    pub(crate) fn outcome(&mut self, key: Key) -> Option<Result<(), IoError>> {
        let Some(job) = self.0.get_mut(key) else { return Some(Err(IoError::Gone)) };
        if job.transfers.in_flight() != 0 {
            return None;
        }
        Some(core::mem::replace(&mut job.outcome, Ok(())))
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives all buffers back; nothing is in flight any more.
    pub(crate) fn drop_leases<M: Memory>(&mut self, mem: &mut M) {
        let keys: Vec<Key> = self.0.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(job) = self.0.remove(key) {
                mem.free(job.lease);
            }
        }
    }
}

impl Pool {
    /// A job with a buffer; none while there is no buffer: ask again in a later turn.
    pub(crate) fn begin_job<M: Memory>(&mut self, mem: &mut M, class: Class) -> Option<Key> {
        if self.jobs.0.is_full() {
            return None;
        }
        let lease = mem.alloc(class)?;
        let transfers = Transfers::default();
        let job = Job { lease, transfers, offset: 0, writes: false, outcome: Ok(()) };
        match self.jobs.0.insert(job) {
            Ok(key) => Some(key),
            Err(job) => {
                mem.free(job.lease);
                None
            }
        }
    }

    /// Begins to fill `len` bytes of a job's buffer, from `at`.
    pub(crate) fn job_read(&mut self, key: Key, at: u32, len: u32, offset: u64) {
        if let Some((token, span)) = self.job_transfer(key, at, len, offset, false) {
            self.counters.device_reads += 1;
            self.counters.device_read_bytes += u64::from(len);
            self.emit(Effect::Read { token, span, offset });
        }
    }

    /// Begins to write `len` bytes of a job's buffer, from `at`: data.
    pub(crate) fn job_write(&mut self, key: Key, at: u32, len: u32, offset: u64) {
        if let Some((token, span)) = self.job_transfer(key, at, len, offset, true) {
            self.counters.data_writes += 1;
            self.counters.device_written_bytes += u64::from(len);
            self.emit(Effect::Write { token, span, offset });
        }
    }

    fn job_transfer(
        &mut self,
        key: Key,
        at: u32,
        len: u32,
        offset: u64,
        writes: bool,
    ) -> Option<(Token, Span)> {
        let job = self.jobs.0.get_mut(key)?;
        assert!(
            job.transfers.in_flight() == 0 || job.writes == writes,
            "a job reads, or it writes"
        );
        job.transfers.begin(len);
        job.offset = offset;
        job.writes = writes;
        Some((Token::new(self.config.token_base + token::JOB, key), job.lease.span(at, len)))
    }

    /// A transfer of a job is done; its owner sees the outcome at the end of the turn.
    pub(crate) fn on_job_done<M: Memory>(
        &mut self,
        mem: &mut M,
        _now: Instant,
        key: Key,
        result: Result<u32, IoError>,
    ) {
        let Some(job) = self.jobs.0.get_mut(key) else { return };
        let mut outcome = result.map(|_| ());
        if job.transfers.end(result) {
            outcome = job.transfers.outcome();
            job.outcome = outcome;
        }
        // Of several writes the others may take long, or for ever: nobody waits for them.
        if let (Err(error), true) = (outcome, job.writes) {
            let offset = job.offset;
            self.fail(mem, Operation::Write, offset, error);
        }
    }

    /// A job ends; nothing of it is in flight.
    pub(crate) fn end_job<M: Memory>(&mut self, mem: &mut M, key: Key) {
        if let Some(job) = self.jobs.0.remove(key) {
            assert_eq!(job.transfers.in_flight(), 0, "the kernel holds no part of it");
            mem.free(job.lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;
    use crate::{Command, State};

    #[test]
    fn a_job_of_which_a_write_failed_fails_the_pool_though_the_others_hang() {
        let (mut rig, handle) = Rig::new();
        for block in [0, 2] {
            rig.write(handle, block, 1);
            rig.run();
        }
        let (replica, uuid) = ([1; 16], [9; 16]);
        let snapshot = Command::Snapshot { replica, uuid, name: "s".into(), created: 0 };
        rig.pool.command(&mut rig.mem, rig.now, 2, snapshot);
        rig.run();
        rig.write(handle, 1, 2);
        rig.run();
        // Both blocks of the snapshot are copied between what its replica wrote.
        let delete = Command::DeleteSnapshot { uuid };
        rig.pool.command(&mut rig.mem, rig.now, 3, delete);
        rig.turn();
        let writes = |rig: &Rig| -> Vec<usize> {
            let writes = |at: &usize| matches!(rig.effects[*at], Effect::Write { .. });
            rig.flying(token::JOB).into_iter().filter(writes).collect()
        };
        while writes(&rig).is_empty() {
            rig.finish(0);
        }
        assert_eq!(writes(&rig).len(), 2);
        let first = writes(&rig)[0];
        rig.fail(first, IoError::Device);
        assert_eq!(rig.pool.state(), State::Failed);
        rig.run();
        rig.pool.drop_leases(&mut rig.mem);
    }
}
