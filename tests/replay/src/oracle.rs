//! What a disk may say: an array of blocks, each of which holds what some write put there.
//!
//! Time is a counter of things that happened. A write may take effect at any time between its
//! submission and when it is over; a read may return what any such order allows. The same rule,
//! asked of what survives a loss of power, says what a flush has promised.

/// A block's content: the number of the write that put it there; 0 is zeros.
pub(crate) type Tag = u64;

/// Every write there was.
#[derive(Debug)]
pub(crate) struct Oracle {
    now: u64,
    writes: Vec<Write>,
}

/// One write, of zeros or of its own tag.
#[derive(Debug)]
struct Write {
    first: u64,
    count: u64,
    tag: Tag,
    submitted: u64,
    /// From when on it can take no effect any more.
    over: Option<u64>,
    /// Whether it surely took effect.
    done: bool,
}

impl Oracle {
    /// All blocks are zero.
    pub(crate) fn new() -> Self {
        let zeros =
            Write { first: 0, count: u64::MAX, tag: 0, submitted: 0, over: Some(0), done: true };
        Self { now: 1, writes: vec![zeros] }
    }

    /// The time, which passes by this.
    pub(crate) const fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// A write begins; returns its number. It writes zeros, or the number that is returned.
    pub(crate) fn begin(&mut self, first: u64, count: u64, zeros: bool) -> usize {
        let number = self.writes.len();
        let tag = if zeros { 0 } else { number as Tag };
        let submitted = self.tick();
        self.writes.push(Write { first, count, tag, submitted, over: None, done: false });
        number
    }

    /// A write ended: it took effect, or it may have.
    pub(crate) fn end(&mut self, number: usize, done: bool) {
        let now = self.tick();
        let write = &mut self.writes[number];
        write.over = Some(now);
        write.done = done;
    }

    /// Whether block `at` may say `tag` to someone who asked at `since` and hears it now.
    pub(crate) fn allows(&self, at: u64, tag: Tag, since: u64) -> bool {
        let here = |write: &&Write| at >= write.first && at - write.first < write.count;
        let known = |write: &&Write| write.done && write.over.is_some_and(|over| over < since);
        // Who asks knows of all writes that were done by then: of what was over before one of
        // them began, nothing can be left.
        let newest = self.writes.iter().filter(here).filter(known).map(|w| w.submitted).max();
        let stale = |write: &Write| write.over.is_some_and(|over| newest.is_some_and(|n| over < n));
        self.writes.iter().filter(here).any(|write| write.tag == tag && !stale(write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_overwritten_before_the_question_is_no_answer() {
        let mut oracle = Oracle::new();
        let first = oracle.begin(4, 2, false);
        oracle.end(first, true);
        let second = oracle.begin(5, 1, false);
        let during = oracle.tick();
        assert!(oracle.allows(5, 1, during) && oracle.allows(5, 2, during));
        oracle.end(second, true);
        let after = oracle.tick();
        assert!(oracle.allows(5, 2, after) && oracle.allows(5, 1, during));
        assert!(!oracle.allows(5, 1, after) && !oracle.allows(5, 0, after));
        assert!(oracle.allows(4, 1, after) && oracle.allows(6, 0, after));
    }

    #[test]
    fn a_write_that_failed_may_be_seen_until_it_is_overwritten() {
        let mut oracle = Oracle::new();
        let failed = oracle.begin(0, 1, false);
        oracle.end(failed, false);
        let since = oracle.tick();
        assert!(oracle.allows(0, 0, since) && oracle.allows(0, 1, since));
        let zeros = oracle.begin(0, 1, true);
        oracle.end(zeros, true);
        let since = oracle.tick();
        assert!(oracle.allows(0, 0, since) && !oracle.allows(0, 1, since));
    }
}
