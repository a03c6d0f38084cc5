//! Making and opening a pool.

use braid_block::{Instant, IoError, Key, Memory};

use crate::{Config, Format, Pool};

#[derive(Debug)]
pub(crate) struct Opening {}

impl Pool {
    /// Makes a new pool on a device: writes its first structures. Ends in `State::Stopped`; what
    /// was there is lost.
    #[must_use]
    pub fn create(_config: Config, _format: Format) -> Self {
        unimplemented!()
    }
    /// Opens a pool. Ends in `State::Open`, or `State::Failed` with `Note::Refused`.
    #[must_use]
    pub fn open(_config: Config) -> Self {
        unimplemented!()
    }
    pub(crate) fn open_on<M: Memory>(&mut self, _mem: &mut M, _now: Instant) {
        unimplemented!()
    }
    pub(crate) fn on_opening_done<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _key: Key,
        _result: Result<u32, IoError>,
    ) {
        unimplemented!()
    }
}
