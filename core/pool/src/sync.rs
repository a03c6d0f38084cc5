//! One flush at a time, and what it makes durable and settled.

use braid_block::{Instant, IoError, Memory};

use crate::Pool;
use crate::op::Waiter;

#[derive(Debug, Default)]
pub(crate) struct Syncer {}

impl Syncer {
    pub(crate) fn ask(&mut self) -> u64 {
        unimplemented!()
    }
    pub(crate) fn done(&self) -> u64 {
        unimplemented!()
    }
    pub(crate) fn want_durable(&mut self, _seq: u64) {
        unimplemented!()
    }
    pub(crate) fn durable(&self) -> u64 {
        unimplemented!()
    }
    pub(crate) fn want_settled(&mut self, _seq: u64) {
        unimplemented!()
    }
    pub(crate) fn settled(&self) -> u64 {
        unimplemented!()
    }
    pub(crate) fn first_in_flight(&self) -> u64 {
        unimplemented!()
    }
}

impl Pool {
    pub(crate) fn when_written(&mut self, _seq: u64, _waiter: Waiter) {
        unimplemented!()
    }
    pub(crate) fn on_journal_done<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _result: Result<u32, IoError>,
    ) {
        unimplemented!()
    }
    pub(crate) fn on_sync_done<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _result: Result<u32, IoError>,
    ) {
        unimplemented!()
    }
    pub(crate) fn sync_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {
        unimplemented!()
    }
}
