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
    let (volume, reason) = (names::text(volume), status.message());
    tracing::warn!(volume, code = ?status.code(), reason, "a record is not {what}");
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use braid_api::control::membership_server::{self, MembershipServer};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::{Endpoint, Server};
    use tonic::{Request, Response};

    use super::*;

    /// How a call is answered.
    #[derive(Clone, Copy)]
    enum Mood {
        Well,
        /// It takes effect, and is answered too late.
        Late,
        Refuses,
        Garbage,
    }

    struct Store {
        record: Mutex<Record>,
        moods: Mutex<Vec<Mood>>,
    }

    #[tonic::async_trait]
    impl membership_server::Membership for Store {
        async fn fetch(
            &self,
            _: Request<wire::FetchRequest>,
        ) -> Result<Response<wire::FetchResponse>, Status> {
            let record = self.record.lock().unwrap().encode();
            Ok(Response::new(wire::FetchResponse { record }))
        }

        async fn swap(
            &self,
            request: Request<wire::SwapRequest>,
        ) -> Result<Response<wire::SwapResponse>, Status> {
            let request = request.into_inner();
            let mood = self.moods.lock().unwrap().pop().unwrap_or(Mood::Well);
            match mood {
                Mood::Refuses => return Err(Status::failed_precondition("no")),
                Mood::Garbage => {
                    let record = vec![1, 2, 3];
                    return Ok(Response::new(wire::SwapResponse { committed: false, record }));
                }
                Mood::Well | Mood::Late => {}
            }
            let answer = {
                let mut present = self.record.lock().unwrap();
                let (old, new) = (decoded(&request.old).unwrap(), decoded(&request.new).unwrap());
                let committed = *present == old || *present == new;
                if committed {
                    *present = new;
                }
                let record = if committed { Vec::new() } else { present.encode() };
                wire::SwapResponse { committed, record }
            };
            if matches!(mood, Mood::Late) {
                tokio::time::sleep(2 * PATIENCE).await;
            }
            Ok(Response::new(answer))
        }
    }

    async fn swapped(membership: &Membership, old: &Record, new: &Record) -> Swapped {
        membership.clone().swap([7; 16], old, new).await
    }

    #[tokio::test]
    async fn what_is_not_answered_is_unknown_and_the_same_again_tells() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let first = Record { version: 1, ..Record::default() };
        let moods = Mutex::new(vec![Mood::Garbage, Mood::Refuses, Mood::Late]);
        let store = Store { record: Mutex::new(first.clone()), moods };
        let served = Server::builder()
            .add_service(MembershipServer::new(store))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(served);
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let (events, mut told) = mpsc::channel(8);
        let membership = Membership::new(channel, events, Arc::default());
        let second = *first.next();
        for why in ["it is late", "it is refused", "the answer is garbage"] {
            assert_eq!(swapped(&membership, &first, &second).await, Swapped::Unknown, "{why}");
        }
        assert_eq!(swapped(&membership, &first, &second).await, Swapped::Committed);
        let other = Record { bytes: 5, ..second.clone() };
        let lost = swapped(&membership, &first, &other).await;
        assert_eq!(lost, Swapped::Changed(Box::new(second.clone())));
        // By commands, as whoever runs volumes asks.
        let (commands, asked) = mpsc::channel(8);
        let (changes, _) = mpsc::channel(8);
        tokio::spawn(route(asked, membership, changes));
        commands.send(Command::Fetch { volume: [7; 16] }).await.unwrap();
        let Some(Event::Fetched { record: Some(record), .. }) = told.recv().await else {
            panic!("the record is not read");
        };
        assert_eq!(*record, second);
        let (old, new) = (Box::new(second.clone()), second.next());
        let swap = Command::Swap { volume: [7; 16], number: 9, old, new };
        commands.send(swap).await.unwrap();
        let Some(Event::Swapped { number, outcome, .. }) = told.recv().await else {
            panic!("the change is not told");
        };
        assert_eq!((number, outcome), (9, Swapped::Committed));
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_is_known() {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let (events, _told) = mpsc::channel(8);
        let mut membership = Membership::new(channel, events, Arc::default());
        let first = Record { version: 1, ..Record::default() };
        assert_eq!(membership.swap([7; 16], &first, &first.next()).await, Swapped::Unknown);
        assert_eq!(membership.fetch([7; 16]).await, None);
    }
}
