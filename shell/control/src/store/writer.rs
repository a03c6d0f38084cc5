//! The thread that writes: takes what waits, makes one commit of it, answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use braid_terminal::{Error, Result};
use redb::Database;
use tokio::sync::{mpsc, oneshot};

use super::change::{Change, Done, Draft, Refusal};
use super::file::{self, Opener};
use super::{Job, State};

/// Changes that share a commit, at most: so that the first does not wait for long.
const BATCH_MAX: usize = 64;
/// Between two attempts to open a file that failed.
const AGAIN: Duration = Duration::from_millis(200);

/// What the store counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commits.
    pub commits: AtomicU64,
    /// Changes that they made durable.
    pub changes: AtomicU64,
    /// Microseconds that they took.
    pub commit_us: AtomicU64,
    /// Commits that failed.
    pub failures: AtomicU64,
    /// Swaps that found another record.
    pub swaps_lost: AtomicU64,
    /// Swaps that were made.
    pub swaps: AtomicU64,
}

type Answer = oneshot::Sender<Result<Done, Refusal>>;

struct Writer {
    opener: Opener,
    database: Database,
    jobs: mpsc::Receiver<Job>,
    state: Arc<RwLock<State>>,
    counters: Arc<Counters>,
}

/// Opens the file and starts the thread.
pub(super) fn start(
    opener: Opener,
    jobs: mpsc::Receiver<Job>,
    state: Arc<RwLock<State>>,
    counters: Arc<Counters>,
) -> Result<()> {
    let opened = opener().map_err(redb::Error::from);
    let opened = opened.and_then(|database| Ok((file::load(&database)?, database)));
    let (loaded, database) = opened.map_err(|error| match error {
        redb::Error::DatabaseAlreadyOpen => {
            Error::run("another process has the store open; stop that first")
        }
        error => Error::run(format!("cannot open the store: {error}")),
    })?;
    *state.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    let mut writer = Writer { opener, database, jobs, state, counters };
    let work = move || {
        while let Some(job) = writer.jobs.blocking_recv() {
            writer.turn(job);
        }
    };
    thread::Builder::new()
        .name("braid-store".into())
        .spawn(work)
        .map(drop)
        .map_err(|error| Error::run(format!("cannot start a thread: {error}")))
}

impl Writer {
    fn turn(&mut self, first: Job) {
        let mut batch: Vec<(Change, Answer)> = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Change(change, answer) => batch.push((change, answer)),
                Job::History(volume, answer) => {
                    let known = self.state.read().unwrap_or_else(PoisonError::into_inner);
                    let found = known.volumes.contains_key(&volume);
                    let events = found.then(|| file::history(&self.database, &volume));
                    // Whoever does not wait any more does not want it.
                    let _ = answer.send(match events {
                        Some(events) => events.map_err(|_| Refusal::Unknown),
                        None => Err(Refusal::NotFound),
                    });
                }
            }
            next = if batch.len() < BATCH_MAX { self.jobs.try_recv().ok() } else { None };
        }
        if !batch.is_empty() {
            self.commit(batch);
        }
    }

    fn commit(&mut self, batch: Vec<(Change, Answer)>) {
        let begun = Instant::now();
        let base = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut draft = Draft::new(&base);
        let mut answers = Vec::with_capacity(batch.len());
        for (change, answer) in batch {
            let swap = matches!(change, Change::Swap { .. });
            let result = draft.apply(change);
            answers.push((answer, swap, result));
        }
        let written = match draft.is_empty() {
            true => Ok(()),
            false => file::write(&self.database, &draft),
        };
        let numbers = std::mem::take(&mut draft.numbers);
        let changed = draft.into_changed();
        drop(base);
        if let Err(error) = written {
            tracing::error!(%error, "a commit failed; the store is opened again");
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            for (answer, ..) in answers {
                let _ = answer.send(Err(Refusal::Unknown));
            }
            return self.reopen();
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let count = changed.len() + numbers.len();
        state.numbers.extend(numbers);
        for (uuid, volume) in changed {
            match volume {
                Some(volume) => drop(state.volumes.insert(uuid, volume)),
                None => drop(state.volumes.remove(&uuid)),
            }
        }
        drop(state);
        if count > 0 {
            let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            self.counters.changes.fetch_add(answers.len() as u64, Ordering::Relaxed);
            self.counters.commit_us.fetch_add(took, Ordering::Relaxed);
        }
        self.answer(answers);
    }

    fn answer(&self, answers: Vec<(Answer, bool, Result<Done, Refusal>)>) {
        for (answer, swap, result) in answers {
            match &result {
                Ok(Done::Done) if swap => self.counters.swaps.fetch_add(1, Ordering::Relaxed),
                Ok(Done::Changed(_)) if swap => {
                    self.counters.swaps_lost.fetch_add(1, Ordering::Relaxed)
                }
                _ => 0,
            };
            // Whoever does not wait any more asks again.
            let _ = answer.send(result);
        }
    }

    /// Opens the file until it opens: what it holds then is what is committed.
    fn reopen(&mut self) {
        loop {
            while let Ok(job) = self.jobs.try_recv() {
                match job {
                    Job::Change(_, answer) => drop(answer.send(Err(Refusal::Unknown))),
                    Job::History(_, answer) => drop(answer.send(Err(Refusal::Unknown))),
                }
            }
            match self.opened() {
                Ok(()) => return tracing::warn!("the store is open again"),
                Err(error) => tracing::error!(%error, "the store cannot be opened"),
            }
            if self.jobs.is_closed() && self.jobs.is_empty() {
                return;
            }
            thread::sleep(AGAIN);
        }
    }

    fn opened(&mut self) -> Result<(), redb::Error> {
        // The old one must let go of the file before the new one takes it.
        let empty =
            redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new())?;
        drop(std::mem::replace(&mut self.database, empty));
        let database = (self.opener)()?;
        let state = file::load(&database)?;
        self.database = database;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }
}
