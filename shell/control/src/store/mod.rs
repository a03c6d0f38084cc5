//! The store: volumes and their records, in one file, changed by one thread.
//!
//! Invariants:
//! 1. A change is durable before it is answered, and before anybody reads it.
//! 2. Changes take effect one after the other, each all or nothing; several share one commit.
//! 3. A record is replaced only if every byte of the old one is as the asker expects it, by one
//!    with the next version, of the same volume and this store; and the owner only by the one who
//!    was appointed.
//! 4. What a failed commit did is not known: nobody is told that it failed, and the file is opened
//!    again before the next change.
//! 5. The identity of a store is never that of another one: a new file gets a random one, and so
//!    does one that is restored.

mod change;
mod contents;
mod file;
mod row;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};

use braid_nexus::{Record, Uuid};
use braid_terminal::Result;
use tokio::sync::{mpsc, oneshot};

pub use change::{Change, Done, Refusal};
pub use file::{Opener, at, restore};
pub use row::{
    Appointed, ENDED_MAX, Ended, Pace, Place, Snapshot, SnapshotStage, Spec, Stage, Stay,
};
pub use writer::Counters;

/// Changes that wait for the thread, at most: whoever asks for more waits.
const WAITING_MAX: usize = 1024;
/// Numbers of engines: controller ids of a volume's paths are 1 to 65519, and an engine has no more
/// than 128 controllers of a volume.
pub const NUMBERS: u16 = 256;
/// Events of a volume that are kept, at most: a year of failures of a bad disk would fill any file.
pub const EVENTS_MAX: u64 = 1000;

/// A volume, as it is committed.
#[derive(Clone, Debug)]
pub struct Volume {
    /// What was asked for.
    pub spec: Arc<Spec>,
    /// Its record; None: it is being made.
    pub record: Option<Arc<Record>>,
    /// Numbers of its events: the first that is kept, and the next.
    events: (u64, u64),
}

/// Everything that is committed.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The identity of the store.
    pub id: Uuid,
    /// Volumes.
    pub volumes: BTreeMap<Uuid, Volume>,
    /// Engines that ever attended, and the number of each.
    pub numbers: BTreeMap<Uuid, u16>,
}

/// What happened to a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    pub text: String,
}

/// The way to the store.
#[derive(Clone, Debug)]
pub struct Store {
    state: Arc<RwLock<State>>,
    jobs: mpsc::Sender<Job>,
    counters: Arc<Counters>,
}

/// What the thread is asked for.
#[derive(Debug)]
enum Job {
    Change(Change, oneshot::Sender<Result<Done, Refusal>>),
    History(Uuid, oneshot::Sender<Result<Vec<Happened>, Refusal>>),
}

impl Store {
    /// Opens the store in a file; makes one if there is none.
    ///
    /// # Errors
    /// When it is no store, another process has it, or the machine does not allow it.
    pub fn open(path: &Path) -> Result<Self> {
        Self::start(at(path)?)
    }

    /// Opens a store.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn start(opener: Opener) -> Result<Self> {
        let (jobs, receiver) = mpsc::channel(WAITING_MAX);
        let (counters, state) = (Arc::new(Counters::default()), Arc::new(RwLock::default()));
        writer::start(opener, receiver, Arc::clone(&state), Arc::clone(&counters))?;
        Ok(Self { state, jobs, counters })
    }

    /// What is committed.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Changes something; answered when it is durable.
    ///
    /// # Errors
    /// Why not; after [`Refusal::Unknown`] it may have been done.
    pub async fn change(&self, change: Change) -> Result<Done, Refusal> {
        let (sender, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Change(change, sender)).await;
        sent.map_err(|_| Refusal::Unknown)?;
        answer.await.unwrap_or(Err(Refusal::Unknown))
    }

    /// Changes several things, all of which are asked for before anything is waited for: they share
    /// commits. What came of each.
    pub async fn change_all(&self, changes: Vec<Change>) -> Vec<Result<Done, Refusal>> {
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            let (sender, answer) = oneshot::channel();
            // If nobody takes it, its answer never comes.
            let _ = self.jobs.send(Job::Change(change, sender)).await;
            answers.push(answer);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(answer.await.unwrap_or(Err(Refusal::Unknown)));
        }
        results
    }

    /// Writes down what happened to a volume, without waiting for it: a line that is lost with the
    /// machine is no promise.
    pub fn note(&self, volume: Uuid, text: String) {
        let (sender, _) = oneshot::channel();
        let change = Change::Note { volume, unix_ms: unix_ms(), text };
        // A history that overflows loses lines before it holds somebody up.
        let _ = self.jobs.try_send(Job::Change(change, sender));
    }

    /// What happened to a volume, oldest first.
    ///
    /// # Errors
    /// When there is no such volume, or the file cannot be read.
    pub async fn history(&self, volume: Uuid) -> Result<Vec<Happened>, Refusal> {
        let (sender, answer) = oneshot::channel();
        self.jobs.send(Job::History(volume, sender)).await.map_err(|_| Refusal::Unknown)?;
        answer.await.unwrap_or(Err(Refusal::Unknown))
    }
}

impl Volume {
    /// A volume without events.
    const fn new(spec: Arc<Spec>, record: Option<Arc<Record>>) -> Self {
        Self { spec, record, events: (0, 0) }
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A random identity.
///
/// # Errors
/// When the system has no random numbers.
pub fn random() -> Result<Uuid> {
    let mut bytes = [0; 16];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match read {
        Ok(16) => Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()),
        _ => Err(braid_terminal::Error::run("the system gives no random numbers")),
    }
}
