use crate::Pool;
use braid_block::Instant;
impl Pool {
    pub(crate) fn regions_on(&mut self, _now: Instant) {}
}
