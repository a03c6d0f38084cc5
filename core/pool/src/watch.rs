//! Operations of the device that take too long, noticed without a clock for each of them.
//!
//! Time is cut into spans of a quarter of the limit, and what is begun in each is counted. What is
//! still counted when four spans have passed since is late.
//!
//! Invariants:
//! 1. Everything that was emitted and is not done counts once: in the span in which it was begun,
//!    or, when that is over for long, among the late.
//! 2. Nothing is allocated for an operation, once as many were in flight before.

use alloc::vec::Vec;
use core::time::Duration;

use braid_block::{Instant, IoError, Memory, Token};

use crate::{Note, Operation, Pool, State};

/// So long a pool that is to stop waits for a device that does not answer, after both are known:
/// one that resets itself, or its path, is back by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Spans that are told apart: the four that make up the limit, and the one that goes on.
const SPANS: u32 = 5;

/// The number of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u32);

/// What is in flight, by the time at which it was begun.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Nanoseconds of a span.
    width: u64,
    /// The span that goes on, and its end.
    span: u32,
    end: Instant,
    /// Begun in each of the last spans and not done, by the rest of the span's number.
    counts: [u32; SPANS as usize],
    /// Begun before.
    late: u32,
    /// Operations whose owner keeps no mark: few, for they are not those of requests.
    others: Vec<(Token, Mark)>,
    /// Since when it is told that the device does not answer.
    told: Option<Instant>,
    /// When the pool was asked to stop.
    stopping: Option<Instant>,
}

impl Watch {
    /// Nothing is in flight; after `limit` an operation is late.
    pub(crate) fn new(limit: Duration) -> Self {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Self {
            width: (nanos / u64::from(SPANS - 1)).max(1),
            span: 0,
            end: Instant::ZERO,
            counts: [0; SPANS as usize],
            late: 0,
            others: Vec::new(),
            told: None,
            stopping: None,
        }
    }

    /// The pool is to stop.
    pub(crate) const fn stops(&mut self, now: Instant) {
        self.stopping = Some(now);
    }

    /// It is so late: called before anything begins or ends at this time.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now < self.end {
            return;
        }
        let over = now.as_nanos() - self.end.as_nanos();
        let spans = u32::try_from(over / self.width + 1).unwrap_or(u32::MAX);
        self.end =
            Instant::from_nanos(now.as_nanos().saturating_add(self.width - over % self.width));
        for _ in 0..spans.min(SPANS) {
            self.span = self.span.wrapping_add(1);
            // Its place was that of the one which is over for as long as the limit.
            let count = &mut self.counts[(self.span % SPANS) as usize];
            self.late += core::mem::take(count);
        }
    }

    /// Something begins.
    pub(crate) const fn begin(&mut self) -> Mark {
        self.counts[(self.span % SPANS) as usize] += 1;
        Mark(self.span)
    }

    /// It is done.
    pub(crate) const fn end(&mut self, mark: Mark) {
        if self.span.wrapping_sub(mark.0) < SPANS {
            self.counts[(mark.0 % SPANS) as usize] -= 1;
        } else {
            self.late -= 1;
        }
    }

    /// Something begins that is known by its token alone.
    pub(crate) fn begin_other(&mut self, token: Token) {
        let mark = self.begin();
        self.others.push((token, mark));
    }

    /// It is done.
    pub(crate) fn end_other(&mut self, token: Token) {
        // Of several with one token any will do: the last of them counts.
        if let Some(at) = self.others.iter().rposition(|(other, _)| *other == token) {
            let (_, mark) = self.others.swap_remove(at);
            self.end(mark);
        }
    }

    /// When to look whether something is late by then.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waits = self.told.is_none() && self.counts.iter().any(|count| *count != 0);
        waits.then_some(self.end)
    }

    /// What is to be told, if anything changed.
    fn news(&mut self, now: Instant) -> Option<Note> {
        let late = self.late != 0;
        if late == self.told.is_some() {
            return None;
        }
        self.told = late.then_some(now);
        let limit = u64::from(SPANS - 1).saturating_mul(self.width);
        let seconds = u32::try_from(limit / 1_000_000_000).unwrap_or(u32::MAX);
        Some(if late { Note::Stalled { seconds } } else { Note::Moving })
    }
}

impl Pool {
    /// Tells when the device does not answer for too long, and when it does again.
    pub(crate) fn watch_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.notes.extend(self.watch.news(now));
        if self.gives_up_at().is_some_and(|due| due <= now) {
            self.fail(mem, Operation::Flush, 0, IoError::TimedOut);
        }
    }

    /// When a pool that is to stop does not wait for its device any longer.
    pub(crate) fn gives_up_at(&self) -> Option<Instant> {
        let told = self.watch.told.filter(|_| self.state == State::Stopping)?;
        Some(self.watch.stopping.map_or(told, |asked| told.max(asked)) + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;
    use crate::token;

    const LIMIT: Duration = Duration::from_secs(8);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn what_takes_longer_than_the_limit_is_late_and_nothing_else() {
        for begun in 100..110 {
            let mut watch = Watch::new(LIMIT);
            watch.tick(at(100));
            watch.tick(at(begun));
            let mark = watch.begin();
            for now in begun..begun + 8 {
                watch.tick(at(now));
                // Others come and go.
                let other = watch.begin();
                watch.end(other);
                assert_eq!(watch.late, 0, "begun at {begun}, now {now}");
            }
            watch.tick(at(begun + 10));
            assert_eq!(watch.late, 1, "begun at {begun}");
            assert!(matches!(watch.news(at(0)), Some(Note::Stalled { seconds: 8 })));
            assert_eq!(watch.due(), None, "it is told when it ends");
            watch.tick(at(begun + 100_000));
            watch.end(mark);
            assert_eq!((watch.late, watch.counts), (0, [0; SPANS as usize]));
            assert_eq!(watch.news(at(0)), Some(Note::Moving));
        }
    }

    #[test]
    fn a_long_rest_makes_nothing_late() {
        let mut watch = Watch::new(LIMIT);
        assert_eq!(watch.due(), None);
        watch.tick(at(1_000_000));
        let mark = watch.begin();
        assert!(watch.due().is_some_and(|due| due <= at(1_000_002)));
        watch.tick(at(1_000_007));
        assert_eq!(watch.late, 0);
        watch.end(mark);
        assert_eq!(watch.due(), None);
    }

    #[test]
    fn a_read_a_write_a_page_and_a_flush_that_stall_are_noticed() {
        type Begin = fn(&mut Rig, crate::Handle);
        let cases: [(u8, Begin); 5] = [
            (token::PIECE, |rig, handle| rig.read(handle, 3)),
            (token::PIECE, |rig, handle| rig.write(handle, 3, 1)),
            (token::JOURNAL, |rig, handle| rig.write(handle, 4, 1)),
            (token::FETCH, |rig, handle| {
                rig.let_go();
                rig.read(handle, 3);
            }),
            (token::SYNC, |rig, handle| {
                rig.write(handle, 5, 1);
                rig.ask(handle, crate::Work::Flush { number: None });
            }),
        ];
        for (kind, begin) in cases {
            let (mut rig, handle) = Rig::new();
            rig.wait(1);
            rig.write(handle, 3, 0x33);
            rig.run();
            rig.notes.clear();
            begin(&mut rig, handle);
            while let Some(at) = (0..rig.effects.len()).find(|at| !rig.flying(kind).contains(at)) {
                rig.finish(at);
            }
            assert!(!rig.flying(kind).is_empty(), "kind {kind} is in flight");
            let due = rig.pool.poll_timeout().expect("somebody looks");
            assert!(due <= rig.now + Duration::from_secs(3));
            for _ in 0..13 {
                rig.wait(1);
                rig.turn();
            }
            let stalled = rig.notes.iter().any(|note| matches!(note, Note::Stalled { .. }));
            assert!(stalled, "kind {kind}: {:?}", rig.notes);
            rig.run();
            assert!(rig.notes.contains(&Note::Moving), "kind {kind}: {:?}", rig.notes);
        }
    }

    #[test]
    fn a_stop_does_not_wait_for_ever_for_a_device_that_does_not_answer() {
        let (mut rig, handle) = Rig::new();
        rig.wait(1);
        rig.write(handle, 3, 0x33);
        rig.pool.stop(&mut rig.mem, rig.now);
        rig.turn();
        let mut seconds = 0;
        while rig.pool.state() == State::Stopping {
            let due = rig.pool.poll_timeout().expect("it waits for a time, not for ever");
            assert!(due > rig.now, "it is looked at when it is due");
            rig.wait(1);
            rig.turn();
            seconds += 1;
            assert!(seconds < 200);
        }
        assert!(seconds > 60, "gave up after {seconds} s");
        assert_eq!(rig.pool.state(), State::Failed);
        let late = |note: &Note| matches!(note, Note::Failed { error: IoError::TimedOut, .. });
        assert!(rig.notes.iter().any(late));
        // The device's buffers stay with it until it lets go.
        rig.run();
        assert_eq!(rig.take_ended().last(), Some(&Err(crate::Failure::Failed)));
        rig.pool.drop_leases(&mut rig.mem);
        assert_eq!(rig.mem.leased(), 0);
    }

    #[test]
    fn a_stop_that_is_asked_for_long_after_a_stall_waits_as_long_as_any() {
        let (mut rig, handle) = Rig::new();
        rig.wait(1);
        rig.write(handle, 3, 0x33);
        for _ in 0..100 {
            rig.wait(1);
            rig.turn();
        }
        assert!(rig.notes.iter().any(|note| matches!(note, Note::Stalled { .. })));
        rig.pool.stop(&mut rig.mem, rig.now);
        for _ in 0..59 {
            rig.turn();
            assert_eq!(rig.pool.state(), State::Stopping);
            rig.wait(1);
        }
        // The device is back, just in time.
        rig.run();
        while rig.pool.state() == State::Stopping {
            rig.wait(1);
            rig.run();
        }
        assert_eq!(rig.pool.state(), State::Stopped);
    }
}
