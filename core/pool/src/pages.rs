//! Pages on their way from the device: maps and checksums.

use braid_block::{Instant, IoError, Key, Memory};

use crate::Pool;
use crate::map::PageId;
use crate::op::Waiter;

#[derive(Debug, Default)]
pub(crate) struct Fetches {}

impl Pool {
    /// Reads a page of the maps; `waiter` goes on when it is in memory, or known to be lost.
    pub(crate) fn fetch<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _page: PageId,
        _waiter: Waiter,
    ) {
        unimplemented!()
    }
    /// Reads a page of checksums, likewise.
    pub(crate) fn fetch_sums<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _page: u64,
        _waiter: Waiter,
    ) {
        unimplemented!()
    }
    pub(crate) fn on_fetched<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _key: Key,
        _result: Result<u32, IoError>,
    ) {
        unimplemented!()
    }
    /// Begins reads that waited for a buffer; lets caches go after a time without work.
    pub(crate) fn pages_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {}
    pub(crate) fn pages_due(&self) -> Option<Instant> {
        None
    }
}
