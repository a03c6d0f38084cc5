//! Records of volumes, read and changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use braid_api::control as wire;
use braid_api::control::membership_client::MembershipClient;
use braid_nexus::{Record, Swapped, Uuid};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use super::{Command, Event, Figures};
use crate::manage::names;

/// How long an answer is waited for. The volume holds writes meanwhile, so that a lost one must
/// not cost much; a commit takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Calls that are out, at most: more of them would not be answered sooner.
const CALLS_MAX: usize = 128;

/// The service, as whoever runs volumes uses it.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    client: MembershipClient<Channel>,
    events: mpsc::Sender<Event>,
    figures: Arc<Figures>,
    calls: Arc<Semaphore>,
}

/// Brings commands to where they belong: those about records to the service, the others to the
/// stream.
pub(super) async fn route(
    mut commands: mpsc::Receiver<Command>,
    membership: Membership,
    changes: mpsc::Sender<Command>,
) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Fetch { volume } => membership.start_fetch(volume).await,
            Command::Swap { volume, number, old, new } => {
                membership.start_swap(volume, number, old, new).await;
            }
            other => {
                if changes.send(other).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Membership {
    pub(super) fn new(
        channel: Channel,
        events: mpsc::Sender<Event>,
        figures: Arc<Figures>,
    ) -> Self {
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        Self { client: MembershipClient::new(channel), events, figures, calls }
    }

    async fn start_fetch(&self, volume: Uuid) {
        let Ok(permit) = Arc::clone(&self.calls).acquire_owned().await else { return };
        let mut this = self.clone();
        tokio::spawn(async move {
            this.figures.fetches.fetch_add(1, Ordering::Relaxed);
            let record = this.fetch(volume).await.map(Box::new);
            drop(permit);
            // Whoever runs volumes may have ended.
            let _ = this.events.send(Event::Fetched { volume, record }).await;
        });
    }

    async fn start_swap(&self, volume: Uuid, number: u64, old: Box<Record>, new: Box<Record>) {
        let Ok(permit) = Arc::clone(&self.calls).acquire_owned().await else { return };
        let mut this = self.clone();
        tokio::spawn(async move {
            this.figures.swaps.fetch_add(1, Ordering::Relaxed);
            let outcome = this.swap(volume, &old, &new).await;
            if outcome == Swapped::Unknown {
                this.figures.swaps_unknown.fetch_add(1, Ordering::Relaxed);
            }
            drop(permit);
            let _ = this.events.send(Event::Swapped { volume, number, outcome }).await;
        });
    }

    async fn fetch(&mut self, volume: Uuid) -> Option<Record> {
        let request = wire::FetchRequest { volume: names::text(volume) };
        let answer = timeout(PATIENCE, self.client.fetch(request)).await;
        match answer {
            Ok(Ok(answer)) => decoded(&answer.into_inner().record),
            Ok(Err(status)) => {
                tell("read", volume, &status);
                None
            }
            Err(_) => None,
        }
    }

    /// Whatever is not an answer says nothing: it may have taken effect, or still may.
    async fn swap(&mut self, volume: Uuid, old: &Record, new: &Record) -> Swapped {
        let request =
            wire::SwapRequest { volume: names::text(volume), old: old.encode(), new: new.encode() };
        match timeout(PATIENCE, self.client.swap(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                match (answer.committed, decoded(&answer.record)) {
                    (true, _) => Swapped::Committed,
                    (false, Some(record)) => Swapped::Changed(Box::new(record)),
                    (false, None) => Swapped::Unknown,
                }
            }
            Ok(Err(status)) => {
                tell("changed", volume, &status);
                Swapped::Unknown
            }
            Err(_) => Swapped::Unknown,
        }
    }
}

fn decoded(bytes: &[u8]) -> Option<Record> {
    let record = Record::decode(bytes).ok();
    if record.is_none() && !bytes.is_empty() {
        tracing::error!("the control plane sent a record that cannot be read");
    }
    record
}

fn tell(what: &str, volume: Uuid, status: &Status) {
    let volume = names::text(volume);
    tracing::warn!(volume, code = ?status.code(), reason = status.message(), "a record is not {what}");
}
