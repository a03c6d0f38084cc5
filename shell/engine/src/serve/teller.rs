//! What the pools of a shard tell, on its way to the management: changes arrive, floods are cut.
//!
//! Invariants:
//! 1. A note after which something is known of a pool that was not (it failed, it stalls, its scrub
//!    has ended) is never pushed out by notes that may come in floods: those leave it half of the
//!    queue. If its own half is full it waits here, the latest of each kind of each pool.
//! 2. Of a flood so many notes a second are passed on, and the rest is counted: the next one says
//!    how many were left out before it.
//! 3. The last note of a flood is passed on too, at the latest a second after the flood.

use std::mem::discriminant;
use std::time::Duration;

use braid_block::Instant;
use braid_pool::Note;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::manage::host::{Home, Told};

/// Notes of a flood that are passed on for one pool in a second: enough for somebody who reads
/// them, and a disk that fails every read must not fill the log.
const FLOOD_PER_SECOND_MAX: u32 = 100;
/// A second, in which notes of a flood are counted.
const SECOND: Duration = Duration::from_secs(1);
/// How often it is tried again to pass on what found the queue full.
const RETRY: Duration = Duration::from_millis(100);

/// Tells the management what pools tell.
#[derive(Debug)]
pub struct Teller {
    to: mpsc::Sender<Told>,
    floods: Vec<Flood>,
    /// Changes that found the queue full.
    waiting: Vec<Told>,
    retry: Instant,
}

/// What one pool told of late that may come in floods.
#[derive(Debug)]
struct Flood {
    home: Home,
    second: Instant,
    /// Passed on in this second.
    passed: u32,
    /// Left out since one was passed on, and the last of them.
    left_out: u64,
    last: Option<Told>,
}

impl Flood {
    /// Counts a note; tells whether this second has room for it.
    fn admits(&mut self, now: Instant, told: Told) -> bool {
        if now.since(self.second) >= SECOND {
            (self.second, self.passed) = (now, 0);
        }
        let admits = self.passed < FLOOD_PER_SECOND_MAX;
        if admits {
            self.passed += 1;
        } else {
            self.leave_out(told);
        }
        admits
    }

    fn leave_out(&mut self, told: Told) {
        self.left_out += 1;
        self.last = Some(told);
    }

    /// When the last note that was left out is to be passed on.
    fn due(&self) -> Option<Instant> {
        self.last.map(|_| self.second + SECOND)
    }
}

/// Whether a pool may tell this as often as it is asked to do something.
const fn may_flood(note: Note) -> bool {
    matches!(note, Note::Media { .. } | Note::Lost { .. } | Note::Repaired { .. } | Note::Full)
}

impl Teller {
    /// Tells through this queue.
    #[must_use]
    pub const fn new(to: mpsc::Sender<Told>) -> Self {
        Self { to, floods: Vec::new(), waiting: Vec::new(), retry: Instant::ZERO }
    }

    /// Passes a note on, unless it is one of too many.
    pub fn tell(&mut self, now: Instant, told: Told) {
        if may_flood(told.note) {
            let flood = self.flood(now, told.home);
            if flood.admits(now, told) {
                self.pass(told);
            }
        } else {
            self.change(now, told);
        }
    }

    /// A pool is gone: what it told last is passed on now.
    pub fn end(&mut self, home: Home) {
        let Some(at) = self.floods.iter().position(|flood| flood.home == home) else { return };
        if let Some(last) = self.floods[at].last.take() {
            self.floods[at].left_out -= 1;
            self.pass(last);
        }
        self.floods.swap_remove(at);
    }

    /// Passes on what is due.
    pub fn turn(&mut self, now: Instant) {
        let is_due = |flood: &Flood| flood.due().is_some_and(|due| due <= now);
        while let Some(at) = self.floods.iter().position(is_due) {
            let flood = &mut self.floods[at];
            let Some(last) = flood.last.take() else { break };
            (flood.second, flood.passed) = (now, 1);
            // It is one of those that were left out, and is told after all.
            flood.left_out -= 1;
            self.pass(last);
        }
        if self.retry <= now {
            for told in std::mem::take(&mut self.waiting) {
                self.change(now, told);
            }
        }
    }

    /// When there is something to do, if nobody tells anything before.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let retry = if self.waiting.is_empty() { None } else { Some(self.retry) };
        self.floods.iter().filter_map(Flood::due).chain(retry).min()
    }

    /// Sends a note of a flood, as long as half of the queue is left for changes.
    fn pass(&mut self, mut told: Told) {
        let Some(flood) = self.floods.iter_mut().find(|flood| flood.home == told.home) else {
            return;
        };
        told.left_out = flood.left_out;
        if self.to.capacity() > self.to.max_capacity() / 2 && self.to.try_send(told).is_ok() {
            // It stands for all that were left out before it.
            (flood.left_out, flood.last) = (0, None);
        } else {
            flood.leave_out(told);
        }
    }

    /// Sends a change, behind those that wait already.
    fn change(&mut self, now: Instant, told: Told) {
        if !self.waiting.is_empty() {
            self.wait(told);
        } else if let Err(TrySendError::Full(told)) = self.to.try_send(told) {
            self.wait(told);
            self.retry = now + RETRY;
        }
    }

    /// Keeps a change until the queue has room. A later one of its kind tells more.
    fn wait(&mut self, told: Told) {
        let same = |waiting: &Told| {
            waiting.home == told.home && discriminant(&waiting.note) == discriminant(&told.note)
        };
        self.waiting.retain(|waiting| !same(waiting));
        self.waiting.push(told);
    }

    fn flood(&mut self, now: Instant, home: Home) -> &mut Flood {
        let at = self.floods.iter().position(|flood| flood.home == home).unwrap_or_else(|| {
            self.floods.push(Flood { home, second: now, passed: 0, left_out: 0, last: None });
            self.floods.len() - 1
        });
        &mut self.floods[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Home = Home { shard: 0, pool: 3 };
    /// Notes that the queue has room for.
    const ROOM: usize = 1024;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(5000 + millis)
    }

    fn told(note: Note) -> Told {
        Told { home: HOME, note, layer: None, left_out: 0 }
    }

    fn lost(offset: u64) -> Told {
        told(Note::Media { handle: None, offset, device: offset })
    }

    fn bench() -> (Teller, mpsc::Receiver<Told>) {
        let (to, heard) = mpsc::channel(ROOM);
        (Teller::new(to), heard)
    }

    /// Notes that arrived; how many of a flood, and how many of those were left out; the others.
    fn heard(from: &mut mpsc::Receiver<Told>) -> (u64, u64, Vec<Note>) {
        let (mut passed, mut left_out, mut changes) = (0, 0, Vec::new());
        while let Ok(told) = from.try_recv() {
            if may_flood(told.note) {
                passed += 1;
                left_out += told.left_out;
            } else {
                changes.push(told.note);
            }
        }
        (passed, left_out, changes)
    }

    #[test]
    fn a_flood_is_cut_to_what_a_second_may_have_and_the_rest_is_counted() {
        let (mut teller, mut queue) = bench();
        (0..1000).for_each(|offset| teller.tell(at(0), lost(offset)));
        assert_eq!(heard(&mut queue), (100, 0, vec![]));
        assert_eq!(teller.due(), Some(at(1000)));
        teller.turn(at(999));
        assert_eq!(heard(&mut queue), (0, 0, vec![]));
        teller.turn(at(1000));
        let last = queue.try_recv().unwrap();
        assert_eq!((last.left_out, last.note), (899, lost(999).note));
        assert_eq!((teller.due(), heard(&mut queue).0), (None, 0));
        teller.tell(at(1500), lost(0));
        assert_eq!(heard(&mut queue), (1, 0, vec![]));
    }

    #[test]
    fn the_next_note_of_a_flood_says_what_was_left_out_before_it() {
        let (mut teller, mut queue) = bench();
        (0..150).for_each(|offset| teller.tell(at(0), lost(offset)));
        assert_eq!(heard(&mut queue), (100, 0, vec![]));
        teller.tell(at(1200), lost(7));
        assert_eq!(queue.try_recv().unwrap().left_out, 50);
        assert_eq!(teller.due(), None, "the last of the flood is newer");
    }

    #[test]
    fn what_changes_a_pool_gets_through_a_flood_that_nobody_reads() {
        let changes = [
            Note::Opened { clean: true, replayed: 0, rejected: 0 },
            Note::Stalled { seconds: 8 },
            Note::Moving,
            Note::Scrubbed { blocks: 9, errors: 3 },
            Note::Failed {
                operation: braid_pool::Operation::Write,
                offset: 4096,
                error: braid_block::IoError::Device,
            },
        ];
        let (mut teller, mut queue) = bench();
        let mut sent = 0;
        for second in 0..60 {
            for offset in 0..5000 {
                teller.tell(at(second * 1000 + offset / 5), lost(offset));
                teller.tell(at(second * 1000 + offset / 5), told(Note::Full));
                sent += 2;
            }
            teller.turn(at(second * 1000 + 999));
        }
        changes.iter().for_each(|note| teller.tell(at(60_000), told(*note)));
        let (passed, left_out, others) = heard(&mut queue);
        assert_eq!(others, changes);
        assert_eq!(passed, ROOM as u64 / 2);
        teller.turn(at(62_000));
        let (tail, counted, _) = heard(&mut queue);
        assert_eq!((tail, passed + left_out + tail + counted), (1, sent), "none is forgotten");
    }

    #[test]
    fn changes_that_find_the_queue_full_wait_for_it() {
        let (mut teller, mut queue) = bench();
        let opened = Note::Opened { clean: true, replayed: 0, rejected: 0 };
        (0..ROOM).for_each(|_| teller.tell(at(0), told(Note::Reclaimed)));
        assert_eq!(teller.due(), None);
        for note in [Note::Stalled { seconds: 8 }, opened, Note::Stalled { seconds: 9 }] {
            teller.tell(at(0), told(note));
        }
        assert_eq!(teller.due(), Some(at(100)));
        teller.turn(at(100));
        assert_eq!(heard(&mut queue).2.len(), ROOM, "it was full still");
        assert_eq!(teller.due(), Some(at(200)));
        teller.turn(at(200));
        assert_eq!(heard(&mut queue).2, [opened, Note::Stalled { seconds: 9 }]);
        assert_eq!(teller.due(), None);
    }

    #[test]
    fn a_pool_that_goes_away_leaves_nothing_untold() {
        let (mut teller, mut queue) = bench();
        (0..300).for_each(|offset| teller.tell(at(0), lost(offset)));
        teller.end(HOME);
        assert_eq!(heard(&mut queue), (101, 199, vec![]));
        assert_eq!((teller.due(), teller.floods.len()), (None, 0));
        teller.end(HOME);
    }
}
