//! Giving pages a place on the device.

use braid_block::{Instant, Memory};

use crate::Pool;
use crate::map::PageId;
use crate::op::Waiter;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It has a place, and is in memory.
    Done,
    /// The waiter goes on when something was read.
    Wait,
    /// There is no free cluster at all.
    NoSpace,
    /// A page on the way is lost.
    Lost,
}

impl Pool {
    /// Makes sure that a page and all its ancestors have a place.
    pub(crate) fn place_page<M: Memory>(
        &mut self,
        _mem: &mut M,
        _now: Instant,
        _page: PageId,
        _waiter: Waiter,
    ) -> Placed {
        unimplemented!()
    }
}
