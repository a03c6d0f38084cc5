//! The stream to the registry: made again when it ends, with heartbeats while it stands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use braid_api::control as wire;
use braid_api::control::from_engine::What;
use braid_api::control::registry_client::RegistryClient;
use braid_api::control::to_engine;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::orders::{Orders, answer};
use super::report::{self, Said};
use super::{Command, Figures};
use crate::manage::host::Host;
use crate::manage::hub::Watch;

/// Between two heartbeats, unless the control plane says otherwise.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long after an event a report goes out.
const SOON: Duration = Duration::from_millis(50);
/// What is reported is looked at anew at least so often: free space changes without an event.
const REFRESH: Duration = Duration::from_secs(5);
/// The first wait before the stream is made again; it doubles.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The longest: the control plane waits for engines for three of these.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// How long a stream may take to stand.
const WELCOME: Duration = Duration::from_secs(3);
/// Messages that wait to be sent, at most.
const MESSAGES_MAX: usize = 256;

/// The engine's part of the registry's stream.
#[derive(Debug)]
pub(super) struct Attendance<H> {
    client: RegistryClient<Channel>,
    hello: wire::Hello,
    orders: Orders<H>,
    figures: Arc<Figures>,
    said: Said,
    /// What is to be reported, and was not yet on this stream.
    changed: bool,
    /// It was told to stop; and that is said on this stream.
    leaving: bool,
    said_leaving: bool,
}

/// A stream that stands.
struct Line {
    to: mpsc::Sender<wire::FromEngine>,
    from: Streaming<wire::ToEngine>,
    heartbeat: Duration,
}

/// What goes on beside the stream.
struct Beside {
    changes: mpsc::Receiver<Command>,
    ends: mpsc::Sender<wire::Done>,
    ended: mpsc::Receiver<wire::Done>,
    watch: Watch,
    /// Orders that ended while there was no stream, and how.
    late: VecDeque<wire::Done>,
}

impl<H: Host> Attendance<H> {
    pub(super) fn new(
        channel: Channel,
        hello: wire::Hello,
        orders: Orders<H>,
        figures: Arc<Figures>,
    ) -> Self {
        let client = RegistryClient::new(channel);
        let (said, changed, leaving, said_leaving) = (Said::default(), true, false, false);
        Self { client, hello, orders, figures, said, changed, leaving, said_leaving }
    }

    /// Attends until it is aborted.
    pub(super) async fn run(mut self, changes: mpsc::Receiver<Command>) {
        let (ends, ended) = mpsc::channel(MESSAGES_MAX);
        let watch = self.orders.manager.hub.watch();
        let mut beside = Beside { changes, ends, ended, watch, late: VecDeque::new() };
        let (mut wait, mut told) = (BACK_OFF, String::new());
        loop {
            let why = match self.connect().await {
                Ok(line) => {
                    (wait, told) = (BACK_OFF, String::new());
                    tracing::info!(node = self.hello.node, "connected to the control plane");
                    self.figures.connected.store(1, Ordering::Relaxed);
                    self.figures.connects.fetch_add(1, Ordering::Relaxed);
                    let why = self.attend(line, &mut beside).await;
                    self.figures.connected.store(0, Ordering::Relaxed);
                    why
                }
                Err(status) => status,
            };
            // The same reason again and again is one line.
            let reason = braid_terminal::call::innermost(&why);
            if reason != told {
                tracing::warn!(code = ?why.code(), reason, "not connected to the control plane");
                told = reason;
            }
            self.rest(wait, &mut beside).await;
            wait = (wait * 2).min(BACK_OFF_MAX);
        }
    }

    /// Without a stream: what changes is kept.
    async fn rest(&mut self, time: Duration, beside: &mut Beside) {
        let end = sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(command) = beside.changes.recv() => {
                    let done = self.change(command);
                    beside.late.extend(done);
                }
                Some(done) = beside.ended.recv() => {
                    let done = self.orders.ended(done);
                    beside.late.extend(done);
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Line, Status> {
        let (to, messages) = mpsc::channel(MESSAGES_MAX);
        let hello = wire::FromEngine { what: Some(What::Hello(self.hello.clone())) };
        // The queue is empty.
        let _ = to.try_send(hello);
        let call = async {
            let mut from = self.client.attend(ReceiverStream::new(messages)).await?.into_inner();
            let first = from.message().await?;
            Ok::<_, Status>((from, first))
        };
        let answered = timeout(WELCOME, call).await;
        let (from, first) =
            answered.map_err(|_| Status::deadline_exceeded("no welcome came in time"))??;
        let Some(wire::ToEngine { what: Some(to_engine::What::Welcome(welcome)) }) = first else {
            return Err(Status::internal("the first message is no welcome"));
        };
        let heartbeat = Duration::from_millis(welcome.heartbeat_ms.into());
        let heartbeat = if heartbeat.is_zero() { HEARTBEAT } else { heartbeat.min(HEARTBEAT) };
        if welcome.cntlid_min > 0 {
            let allotted = &self.orders.manager.settings.allotted;
            allotted.set(welcome.cntlid_min, welcome.cntlid_max);
        }
        tracing::debug!(store = welcome.store, "welcome");
        (self.changed, self.said_leaving) = (true, false);
        Ok(Line { to, from, heartbeat })
    }

    /// Reports and obeys until the stream ends; why it did.
    async fn attend(&mut self, mut line: Line, beside: &mut Beside) -> Status {
        let mut beats = interval(line.heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refreshed = Instant::now();
        for done in std::mem::take(&mut beside.late) {
            if let Err(status) = self.finish(&line, done).await {
                return status;
            }
        }
        loop {
            let went = tokio::select! {
                message = line.from.message() => match message {
                    Ok(Some(message)) => self.obey(&line, message, &beside.ends).await,
                    Ok(None) => Err(Status::unavailable("the control plane closed the stream")),
                    Err(status) => Err(status),
                },
                Some(command) = beside.changes.recv() => match self.change(command) {
                    Some(done) => self.finish(&line, done).await,
                    None => self.report(&line).await,
                },
                Some(done) = beside.ended.recv() => match self.orders.ended(done) {
                    Some(done) => self.finish(&line, done).await,
                    None => Ok(()),
                },
                Some(_) = tokio_stream::StreamExt::next(&mut beside.watch) => {
                    // Told soon, and not at once: events come in swarms.
                    if !std::mem::replace(&mut self.changed, true) {
                        beats.reset_after(SOON);
                    }
                    Ok(())
                }
                _ = beats.tick() => {
                    if refreshed.elapsed() > REFRESH {
                        (self.changed, refreshed) = (true, Instant::now());
                    }
                    self.report(&line).await
                }
            };
            if let Err(status) = went {
                return status;
            }
        }
    }

    async fn obey(
        &mut self,
        line: &Line,
        message: wire::ToEngine,
        ends: &mpsc::Sender<wire::Done>,
    ) -> Result<(), Status> {
        match message.what {
            Some(to_engine::What::Order(order)) => match self.orders.take(order, ends) {
                Some(done) => self.finish(line, done).await,
                None => Ok(()),
            },
            Some(to_engine::What::Topology(topology)) => {
                self.orders.topology(topology);
                Ok(())
            }
            // What a newer control plane says is no reason to leave it.
            Some(to_engine::What::Welcome(_)) | None => Ok(()),
        }
    }

    /// What whoever runs volumes said; the answer to an order that it ended.
    fn change(&mut self, command: Command) -> Option<wire::Done> {
        self.changed = true;
        match command {
            Command::Ended { order, result } => return self.orders.ended(answer(order, result)),
            Command::Paths(paths) => self.said.paths = paths,
            Command::Copy { replica, fence, record } => {
                self.said.copies.insert(replica, (fence, record));
            }
            Command::Leaving => self.leaving = true,
            Command::Fetch { .. } | Command::Swap { .. } => {}
        }
        None
    }

    /// Answers an order; what it changed is reported first.
    async fn finish(&mut self, line: &Line, done: wire::Done) -> Result<(), Status> {
        self.changed = true;
        self.report(line).await?;
        send(line, What::Done(done)).await
    }

    async fn report(&mut self, line: &Line) -> Result<(), Status> {
        let state = match std::mem::take(&mut self.changed) {
            true => Some(report::state(&self.orders.manager, &self.said).await),
            false => None,
        };
        send(line, What::Report(wire::Report { state })).await?;
        // After the first report, before which nobody knows this engine.
        if self.leaving && !std::mem::replace(&mut self.said_leaving, true) {
            send(line, What::Leaving(wire::Leaving {})).await?;
        }
        Ok(())
    }
}

async fn send(line: &Line, what: What) -> Result<(), Status> {
    let message = wire::FromEngine { what: Some(what) };
    let sent = line.to.send(message).await;
    sent.map_err(|_| Status::unavailable("the stream to the control plane ended"))
}
