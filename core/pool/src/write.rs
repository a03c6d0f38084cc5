use crate::{Pool, Request};
use braid_block::{Instant, IoError, Key, Memory};
impl Pool {
    /// Takes a request. Its completion comes by `poll_completion`, maybe at once.
    pub fn submit<M: Memory>(&mut self, _mem: &mut M, _now: Instant, _request: Request) {
        unimplemented!()
    }
    /// Takes a piece further.
    pub(crate) fn advance<M: Memory>(&mut self, _mem: &mut M, _now: Instant, _key: Key) {
        unimplemented!()
    }
    pub(crate) fn on_piece_done<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _key: Key,
        _result: Result<u32, IoError>,
    ) {
        unimplemented!()
    }
    pub(crate) fn fail_requests<M: Memory>(&mut self, _mem: &mut M) {
        unimplemented!()
    }
}
