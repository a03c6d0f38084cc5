//! Several associations with one namespace as one: which path a command takes, and what becomes of
//! it when that path fails.
//!
//! It holds no associations. It is told what they tell ([`Multipath::on_event`]), says what to send
//! where ([`Multipath::poll_send`]), which path to look at again ([`Multipath::poll_look`]), and
//! what ended ([`Multipath::poll_ended`]).
//!
//! ```text
//! submit --> waiting --a path is usable--> out on it --answered--> ended
//!               ^                             |
//!               +---- the path failed, or refused by its state ----+
//! ```
//!
//! Invariants:
//! 1. A command is out on one path at a time: it is sent again only when its association has handed
//!    it back, so that nothing touches its buffer any more.
//! 2. A command that was out on a path that broke may have taken effect; it is sent again all the
//!    same, as every NVMe multipath host does.
//! 3. A command ends in the order of nothing; each ends exactly once, with the path and the status
//!    that it ended by.
//! 4. An error that is not the path's is the command's: it ends it, unless the target says nothing
//!    against another try, of which there are [`RETRIES_MAX`].

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use braid_block::{Instant, Key, Lease, Slab};

use super::event::{Completed, Event};
use super::operation::{Operation, Submission};
use crate::Status;
use crate::ana::AnaState;

/// How often a command is tried again after an error that is not its path's.
pub const RETRIES_MAX: u8 = 5;
/// Paths of a namespace at most.
pub const PATHS_MAX: usize = 8;
/// A path that refused a command by its state is not used for so long, unless its log says sooner
/// that it can be.
const REST: Duration = Duration::from_millis(500);

/// Which of several paths that are equally good a command takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The first one.
    #[default]
    First,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest commands out.
    QueueDepth,
}

/// A command that ended.
#[derive(Debug)]
pub struct Ended {
    /// As submitted.
    pub cookie: u64,
    /// How it ended.
    pub status: Status,
    /// DW0 and DW1 of the completion.
    pub result: u64,
    /// As submitted.
    pub lease: Option<Lease>,
    /// The path that it ended by; none: there was none for too long.
    pub path: Option<usize>,
    /// How often it was sent.
    pub tries: u32,
}

/// A command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// The path that it ended by; none: there was none for too long.
    pub path: Option<usize>,
    /// How it ended.
    pub status: Status,
    /// How often it was sent.
    pub tries: u32,
}

impl CommandError {
    /// Whether the same command may do at another time: nobody said that it cannot.
    #[must_use]
    pub const fn may_be_retried(&self) -> bool {
        !self.status.do_not_retry()
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            Some(path) => write!(f, "{} by path {path}", self.status)?,
            None => write!(f, "{}: no path for too long", self.status)?,
        }
        let again = if self.may_be_retried() { "may do" } else { "is pointless" };
        write!(f, ", sent {} times; another try {again}", self.tries)
    }
}

impl core::error::Error for CommandError {}

impl Ended {
    /// What the command brought.
    ///
    /// # Errors
    /// Why it failed, and by which path.
    pub const fn outcome(&self) -> Result<u64, CommandError> {
        let Self { status, result, path, tries, .. } = *self;
        if status.is_success() { Ok(result) } else { Err(CommandError { path, status, tries }) }
    }
}

/// A path.
#[derive(Clone, Copy, Debug)]
struct Path {
    live: bool,
    /// How the namespace is reached by it.
    access: AnaState,
    /// It refused a command by its state: not before then, or a new look at its log.
    rests_until: Option<Instant>,
    /// Commands out on it.
    depth: u32,
    /// As many as it takes.
    full: bool,
}

/// A command in work.
#[derive(Debug)]
struct Flight {
    cookie: u64,
    operation: Operation,
    len: u32,
    queue: u16,
    /// Its buffer, while it waits.
    lease: Option<Lease>,
    /// The path that it is out on.
    path: Option<usize>,
    tries: u32,
    errors: u8,
    /// Since when it waits for a path.
    since: Instant,
}

/// Several paths to one namespace.
#[derive(Debug)]
pub struct Multipath {
    nsid: u32,
    policy: Policy,
    /// A command that found no path for so long ends with an error; none: it waits for ever.
    give_up: Option<Duration>,
    paths: Vec<Path>,
    flights: Slab<Flight>,
    waiting: VecDeque<Key>,
    ended: VecDeque<Ended>,
    looks: Vec<usize>,
    next: usize,
}

impl Multipath {
    /// So many paths to a namespace, none of them live yet, and so many commands in work at most.
    ///
    /// # Panics
    /// If there are more paths than [`PATHS_MAX`], or none: a programmer's error.
    #[must_use]
    pub fn new(
        nsid: u32,
        paths: usize,
        commands_max: u32,
        policy: Policy,
        give_up: Option<Duration>,
    ) -> Self {
        assert!((1..=PATHS_MAX).contains(&paths), "between one and eight paths");
        let path = Path {
            live: false,
            access: AnaState::Inaccessible,
            rests_until: None,
            depth: 0,
            full: false,
        };
        Self {
            nsid,
            policy,
            give_up,
            paths: alloc::vec![path; paths],
            flights: Slab::with_capacity(commands_max),
            waiting: VecDeque::with_capacity(usize::try_from(commands_max).unwrap_or(0)),
            ended: VecDeque::new(),
            looks: Vec::with_capacity(paths),
            next: 0,
        }
    }

    /// Takes a command, whichever path it will take.
    ///
    /// # Errors
    /// The submission, when as many are in work as may be.
    pub fn submit(&mut self, now: Instant, submission: Submission) -> Result<(), Submission> {
        if self.flights.is_full() {
            return Err(submission);
        }
        let Submission { operation, lease, len, cookie, queue, .. } = submission;
        let flight = Flight {
            cookie,
            operation,
            len,
            queue,
            lease,
            path: None,
            tries: 0,
            errors: 0,
            since: now,
        };
        if let Ok(key) = self.flights.insert(flight) {
            self.waiting.push_back(key);
        }
        Ok(())
    }

    /// Something happened to a path.
    pub fn on_event(&mut self, now: Instant, path: usize, event: Event) {
        match event {
            Event::Live(live) => {
                let found = live.namespaces.iter().find(|n| n.nsid == self.nsid);
                let path = &mut self.paths[path];
                path.live = true;
                path.full = false;
                path.rests_until = None;
                path.access = found.map_or(AnaState::Inaccessible, |n| n.access);
            }
            Event::Lost { .. } | Event::Closed => self.paths[path].live = false,
            Event::Completed(completed) => self.completed(now, path, completed),
            Event::Discovered(_) => {}
        }
    }

    /// The association did not take what [`Multipath::poll_send`] gave: it is full, or gone.
    pub fn refused(&mut self, path: usize, submission: Submission) {
        let key = key_of(submission.cookie);
        let state = &mut self.paths[path];
        state.depth -= 1;
        state.full = true;
        if let Some(flight) = self.flights.get_mut(key) {
            flight.path = None;
            flight.tries -= 1;
            flight.lease = submission.lease;
            self.waiting.push_front(key);
        }
    }

    /// A command to be sent, and the path that it takes.
    pub fn poll_send(&mut self, now: Instant) -> Option<(usize, Submission)> {
        let &key = self.waiting.front()?;
        let path = self.choose(now)?;
        self.waiting.pop_front();
        let flight = self.flights.get_mut(key)?;
        flight.path = Some(path);
        flight.tries += 1;
        self.paths[path].depth += 1;
        let submission = Submission {
            operation: flight.operation,
            nsid: self.nsid,
            lease: flight.lease.take(),
            len: flight.len,
            cookie: cookie_of(key),
            queue: flight.queue,
        };
        Some((path, submission))
    }

    /// A path whose ANA log is to be read again.
    pub fn poll_look(&mut self) -> Option<usize> {
        self.looks.pop()
    }

    /// The next command that ended.
    pub fn poll_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// Time has passed: commands that waited too long for a path end.
    pub fn elapsed(&mut self, now: Instant) {
        for path in &mut self.paths {
            if path.rests_until.is_some_and(|until| until <= now) {
                path.rests_until = None;
            }
        }
        let Some(give_up) = self.give_up else { return };
        for _ in 0..self.waiting.len() {
            let Some(key) = self.waiting.pop_front() else { return };
            let late = self.flights.get(key).is_some_and(|f| now.since(f.since) >= give_up);
            if late {
                self.end(key, Status::HOST_PATHING_ERROR, 0, None, None);
            } else {
                self.waiting.push_back(key);
            }
        }
    }

    /// When [`Multipath::elapsed`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let rests = self.paths.iter().filter_map(|path| path.rests_until);
        let oldest = self.waiting.iter().filter_map(|key| self.flights.get(*key));
        let late = oldest.filter_map(|flight| Some(flight.since + self.give_up?));
        if self.waiting.is_empty() { None } else { rests.chain(late).min() }
    }

    /// The cookie that a command was submitted with, by the one that its association knows it by.
    #[must_use]
    pub fn cookie_of(&self, sent: u64) -> Option<u64> {
        self.flights.get(key_of(sent)).map(|flight| flight.cookie)
    }

    /// Commands in work.
    #[must_use]
    pub const fn in_work(&self) -> usize {
        self.flights.len()
    }

    /// Paths that I/O can take now.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.paths.iter().filter(|path| path.is_usable()).count()
    }

    /// The path for the next command: the best ones by the policy.
    fn choose(&mut self, now: Instant) -> Option<usize> {
        let best = [AnaState::Optimized, AnaState::NonOptimized].into_iter().find(|access| {
            self.paths.iter().any(|path| path.is_usable() && path.access == *access)
        })?;
        let fits = |path: &Path| {
            path.is_usable()
                && path.access == best
                && !path.full
                && path.rests_until.is_none_or(|until| until <= now)
        };
        let paths = self.paths.len();
        let chosen = match self.policy {
            Policy::First => (0..paths).find(|at| fits(&self.paths[*at])),
            Policy::RoundRobin => {
                let next = self.next;
                (0..paths).map(|at| (next + at) % paths).find(|at| fits(&self.paths[*at]))
            }
            Policy::QueueDepth => (0..paths)
                .filter(|at| fits(&self.paths[*at]))
                .min_by_key(|at| self.paths[*at].depth),
        }?;
        self.next = (chosen + 1) % paths;
        Some(chosen)
    }

    fn completed(&mut self, now: Instant, path: usize, completed: Completed) {
        let Completed { cookie, status, result, lease, .. } = completed;
        let key = key_of(cookie);
        let state = &mut self.paths[path];
        state.depth = state.depth.saturating_sub(1);
        state.full = false;
        let Some(flight) = self.flights.get_mut(key) else { return };
        flight.path = None;
        // A target that is being stopped answers what it has not begun by the latter.
        let leaving = status.is(Status::ABORTED_QUEUE_DELETED);
        if status.is_path_error() || leaving {
            if is_access(status) || leaving {
                state.rests_until = Some(now + REST);
            }
            if is_access(status) && !self.looks.contains(&path) {
                self.looks.push(path);
            }
            flight.since = now;
            return self.wait(key, lease);
        }
        let again = !status.is_success() && !status.do_not_retry() && flight.errors < RETRIES_MAX;
        if again {
            flight.errors += 1;
            flight.since = now;
            return self.wait(key, lease);
        }
        self.end(key, status, result, lease, Some(path));
    }

    /// A command goes back to those that wait, before those that came after it.
    fn wait(&mut self, key: Key, lease: Option<Lease>) {
        if let Some(flight) = self.flights.get_mut(key) {
            flight.lease = lease;
            self.waiting.push_front(key);
        }
    }

    fn end(
        &mut self,
        key: Key,
        status: Status,
        result: u64,
        lease: Option<Lease>,
        path: Option<usize>,
    ) {
        let Some(flight) = self.flights.remove(key) else { return };
        let Flight { cookie, lease: kept, tries, .. } = flight;
        self.ended.push_back(Ended { cookie, status, result, lease: lease.or(kept), path, tries });
    }
}

impl Path {
    const fn is_usable(&self) -> bool {
        self.live && matches!(self.access, AnaState::Optimized | AnaState::NonOptimized)
    }
}

/// Whether a path refused by its ANA state.
const fn is_access(status: Status) -> bool {
    status.is(Status::ANA_INACCESSIBLE)
        || status.is(Status::ANA_TRANSITION)
        || status.is(Status::ANA_PERSISTENT_LOSS)
}

const fn cookie_of(key: Key) -> u64 {
    (key.generation as u64) << 32 | key.index as u64
}

const fn key_of(cookie: u64) -> Key {
    let [a, b, c, d, e, f, g, h] = cookie.to_le_bytes();
    Key { index: u32::from_le_bytes([a, b, c, d]), generation: u32::from_le_bytes([e, f, g, h]) }
}
