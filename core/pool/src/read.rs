use crate::Pool;
use crate::map::PageId;
use crate::op::{PIECE_BLOCKS, Run};
use arrayvec::ArrayVec;

/// What came of looking for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolve {
    /// The runs say where they are; what is in none is zero.
    Ready,
    /// This page is to be read first.
    Missing(PageId),
    /// A page on the way is lost.
    Lost,
}

impl Pool {
    /// Finds out where blocks of a cluster are.
    pub(crate) fn resolve(
        &mut self,
        _layer: u32,
        _lcluster: u32,
        _mask: u64,
        _runs: &mut ArrayVec<Run, PIECE_BLOCKS>,
    ) -> Resolve {
        unimplemented!()
    }
}
