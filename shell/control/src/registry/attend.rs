//! An engine's stream, from its Hello to its end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use braid_api::control as wire;
use braid_api::control::from_engine::What;
use braid_nexus::Uuid;
use braid_plan::{GRACE, Line, Part, Step};
use braid_terminal::Result;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::Stream as _;
use tonic::{Code, Status, Streaming};

use super::{Control, Engine, HEARTBEAT, Inside, MESSAGES_MAX, copies, is_final, words};
use crate::identity;
use crate::store::{Change, Done, Pace, Refusal, Volume};

/// How long a Hello may take.
const HELLO: Duration = Duration::from_secs(5);
/// How long a portal may take to refuse.
const PROBE: Duration = Duration::from_millis(500);

/// Between two looks at the portals of one whose stream broke.
const PROBE_PAUSE: Duration = Duration::from_millis(30);

/// Controller ids of an engine.
const CNTLIDS: u16 = 255;

/// Between two attempts to keep a pace that the store could not write.
const PACE_AGAIN: Duration = Duration::from_secs(1);

/// What an engine is told.
#[derive(Debug)]
pub struct Stream(mpsc::Receiver<Result<wire::ToEngine, Status>>);

impl tokio_stream::Stream for Stream {
    type Item = Result<wire::ToEngine, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Listens to an engine.
///
/// # Errors
/// When it does not say who it is, or somebody else is that.
pub async fn attend(
    control: Arc<Control>,
    mut from: Streaming<wire::FromEngine>,
) -> Result<Stream, Status> {
    let first = timeout(HELLO, next(&mut from)).await;
    let first = first.map_err(|_| Status::invalid_argument("no Hello came"))?;
    let Some(What::Hello(hello)) = first? else {
        return Err(Status::invalid_argument("the first message is no Hello"));
    };
    let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
    let number = control.number(&hello).await;
    let (engine, stream) = control.welcome(hello, number, sender)?;
    let (told, paces) = watch::channel(Vec::new());
    tokio::spawn(Arc::clone(&control).keep_paces(paces));
    tokio::spawn(async move {
        let why = loop {
            match next(&mut from).await {
                Ok(Some(What::Report(report))) => {
                    if let Some(state) = &report.state {
                        // Nobody waits for the store here: heartbeats come by this way.
                        told.send_replace(paces_of(state));
                    }
                    control.report(&engine, stream, report);
                }
                Ok(Some(What::Done(done))) => control.done(&done),
                Ok(Some(What::Leaving(_))) => control.leaving(&engine),
                Ok(Some(What::Hello(_))) => break "it said Hello twice".into(),
                Ok(None) => break "it closed the stream".into(),
                Err(status) => break status.message().to_owned(),
            }
        };
        control.lost(engine, stream, &why).await;
    });
    Ok(Stream(receiver))
}

/// What an engine says next; None: no more.
async fn next(from: &mut Streaming<wire::FromEngine>) -> Result<Option<What>, Status> {
    let mut from = Pin::new(from);
    let message = std::future::poll_fn(|context| from.as_mut().poll_next(context)).await;
    match message.transpose()? {
        None => Ok(None),
        Some(wire::FromEngine { what: Some(what) }) => Ok(Some(what)),
        Some(_) => Err(Status::invalid_argument("a message says nothing")),
    }
}

impl Control {
    /// The number of an engine, given to it when it comes for the first time. None: it cannot be
    /// kept now; the engine is heard nevertheless, and asks again with its next stream.
    async fn number(&self, hello: &wire::Hello) -> Option<u16> {
        identity::check_node(&hello.node).ok()?;
        let engine = identity::parse("id", &hello.id).ok()?;
        if let Some(number) = self.store.read(|state| state.numbers.get(&engine).copied()) {
            return Some(number);
        }
        match timeout(HELLO, self.store.change(Change::Number { engine })).await {
            Ok(Ok(Done::Number(number))) => Some(number),
            failed => {
                tracing::warn!(node = hello.node, ?failed, "it gets no controller ids now");
                None
            }
        }
    }

    fn welcome(
        &self,
        hello: wire::Hello,
        number: Option<u16>,
        sender: mpsc::Sender<Result<wire::ToEngine, Status>>,
    ) -> Result<(Uuid, u64), Status> {
        identity::check_node(&hello.node)?;
        let uuid = identity::parse("id", &hello.id)?;
        identity::parse("process", &hello.process)?;
        let now = self.now();
        let mut inside = self.inside();
        let alive = inside.observed.is_alive(&uuid, now);
        let before = inside.engines.get(&uuid).cloned();
        let same = before.as_ref().is_some_and(|known| known.hello.process == hello.process);
        if alive && !same && before.as_ref().is_some_and(Engine::is_connected) {
            return Err(Status::already_exists(format!(
                "another process is node {}; give each engine its own --node",
                hello.node
            )));
        }
        inside.streams += 1;
        let stream = inside.streams;
        tracing::info!(node = hello.node, version = hello.version, "an engine is connected");
        let welcome = wire::Welcome {
            store: identity::text(&self.store.read(|state| state.id)),
            heartbeat_ms: u32::try_from(HEARTBEAT.as_millis()).unwrap_or(u32::MAX),
            cntlid_min: number.map_or(0, |number| u32::from(number * CNTLIDS + 1)),
            cntlid_max: number.map_or(0, |number| u32::from((number + 1) * CNTLIDS)),
        };
        let known = Engine { hello, sender: Some(sender), stream, ..before.unwrap_or_default() };
        inside.engines.insert(uuid, Engine { topology: None, ..known });
        inside.tell(&uuid, wire::to_engine::What::Welcome(welcome));
        if same {
            inside.resend(&uuid);
        } else {
            inside.forget_process(&uuid, now);
        }
        Ok((uuid, stream))
    }

    fn report(&self, uuid: &Uuid, stream: u64, report: wire::Report) {
        let now = self.now();
        let mut inside = self.inside();
        let Some(engine) = inside.engines.get_mut(uuid).filter(|e| e.stream == stream) else {
            return;
        };
        let fresh = report.state.is_some();
        if let Some(state) = report.state {
            engine.copies = copies::read(&state);
            engine.state = state;
        }
        let (state, node) = (engine.state.clone(), engine.hello.node.clone());
        if !fresh && !inside.observed.engines.contains_key(uuid) {
            // A sign of life of one that did not say what it has.
            return tracing::debug!(node, "a report without a state");
        }
        let seen = inside.observed.engines.entry(*uuid).or_default();
        (seen.heard, seen.line) = (now, Line::Up);
        if !fresh {
            return;
        }
        seen.replicas = state
            .replicas
            .iter()
            .filter(|replica| replica.online)
            .filter_map(|replica| identity::parse("replica", &replica.uuid).ok())
            .collect();
        let before = std::mem::take(&mut seen.parts);
        for path in &state.paths {
            let Ok(volume) = identity::parse("volume", &path.volume) else { continue };
            let part = part(path, before.get(&volume), now);
            seen.parts.insert(volume, part);
        }
    }

    /// Keeps what somebody set at an engine, as it says last: the next owner goes by it.
    async fn keep_paces(self: Arc<Self>, mut told: watch::Receiver<Vec<(Uuid, Pace)>>) {
        while told.changed().await.is_ok() {
            loop {
                let paces = told.borrow_and_update().clone();
                if self.keep(paces).await {
                    break;
                }
                // What it says meanwhile takes the place of what could not be written.
                if matches!(timeout(PACE_AGAIN, told.changed()).await, Ok(Err(_))) {
                    return;
                }
            }
        }
    }

    /// Keeps those that are news, in as few commits as can be; whether all are kept.
    async fn keep(&self, paces: Vec<(Uuid, Pace)>) -> bool {
        let is_new = |(volume, pace): &(Uuid, Pace)| {
            let older = |known: &Volume| known.spec.pace.is_none_or(|k| k.version < pace.version);
            self.store.read(|state| state.volumes.get(volume).is_some_and(older))
        };
        let news = paces.into_iter().filter(is_new);
        let changes: Vec<_> = news.map(|(volume, pace)| Change::Pace { volume, pace }).collect();
        let kept = self.store.change_all(changes).await;
        let failed = kept.into_iter().filter(|kept| *kept == Err(Refusal::Unknown)).count();
        if failed > 0 {
            tracing::warn!(volumes = failed, "the pace of their rebuilds is not kept yet");
        }
        failed == 0
    }

    /// An engine was told to stop.
    fn leaving(&self, uuid: &Uuid) {
        let mut inside = self.inside();
        let node = inside.node(uuid);
        if let Some(seen) = inside.observed.engines.get_mut(uuid).filter(|seen| !seen.leaving) {
            seen.leaving = true;
            tracing::info!(node, "an engine stops: its volumes are moved");
        }
    }

    /// An order was carried out, or not.
    fn done(&self, done: &wire::Done) {
        let Ok(id) = identity::parse("order", &done.id) else { return };
        let now = self.now();
        let mut inside = self.inside();
        let Some(sent) = inside.orders.remove(&id) else { return };
        if inside.flights.get(&sent.volume) == Some(&id) {
            inside.flights.remove(&sent.volume);
            let step = inside.ledger(sent.volume).in_flight();
            let what = step.map(|step| words(&inside, &step)).unwrap_or_default();
            let mut news = true;
            if done.code == 0 {
                inside.ledger(sent.volume).done(now);
                inside.failures.remove(&sent.volume);
                let same = |known: &Step| step.is_some_and(|s| s.anywhere() == known.anywhere());
                inside.forget_refusals(&sent.volume, same);
            } else {
                self.counters.failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let code = Code::from_i32(done.code);
                if step.is_some_and(|step| is_final(&step, code)) {
                    inside.ledger(sent.volume).refused(now);
                } else {
                    inside.ledger(sent.volume).failed(now);
                }
                let node = inside.node(&sent.engine);
                let text = format!("engine {node}: {}", done.text);
                if let Some(step) = step.filter(Step::is_change) {
                    let refusal = Status::new(code, text.clone());
                    news = inside.refused(sent.volume, step, refusal);
                }
                inside.failures.insert(sent.volume, text);
            }
            drop(inside);
            let how = if done.code == 0 { "done".into() } else { format!("no: {}", done.text) };
            if news {
                self.tell(&sent.volume, format!("{what}: {how}"));
            }
        }
        if let Some(waiter) = sent.waiter {
            // Whoever waited may have gone.
            let _ = waiter.send(done.clone());
        }
    }

    /// Writes down what happened to a volume, and logs it.
    pub(super) fn tell(&self, volume: &Uuid, text: String) {
        let name = self.store.read(|state| Some(state.volumes.get(volume)?.spec.name.clone()));
        let name = name.unwrap_or_else(|| identity::text(volume));
        tracing::info!(volume = name, "{text}");
        self.store.note(*volume, text);
    }

    /// A stream ended: the engine is looked for at its portals.
    async fn lost(&self, uuid: Uuid, stream: u64, why: &str) {
        let portals = {
            let now = self.now();
            let mut inside = self.inside();
            let Some(engine) = inside.engines.get_mut(&uuid).filter(|e| e.stream == stream) else {
                return;
            };
            engine.sender = None;
            tracing::warn!(node = engine.hello.node, why, "an engine is not connected any more");
            let portals = engine.hello.portals.clone();
            if let Some(seen) = inside.observed.engines.get_mut(&uuid) {
                seen.line = Line::Broken { since: now, refused: false };
            }
            portals
        };
        let begun = self.now();
        // A process that dies lets its sockets go one after the other.
        while self.now().since(begun) < GRACE {
            let refused = refuses(&portals).await;
            if !self.is_lost(&uuid, stream, refused) || refused {
                return;
            }
            sleep(PROBE_PAUSE).await;
        }
    }

    /// Whether an engine is still without a stream since that one ended; and if its portals refuse,
    /// it is dead.
    fn is_lost(&self, uuid: &Uuid, stream: u64, refused: bool) -> bool {
        let mut inside = self.inside();
        let ours = inside.engines.get(uuid).is_some_and(|engine| engine.stream == stream);
        let Some(seen) = inside.observed.engines.get_mut(uuid).filter(|_| ours) else {
            return false;
        };
        let Line::Broken { since, .. } = seen.line else { return false };
        seen.line = Line::Broken { since, refused };
        true
    }
}

/// Whether nobody listens at any portal, and somebody says so: the process is dead.
async fn refuses(portals: &[String]) -> bool {
    let mut refused = false;
    for portal in portals {
        let Ok(address) = portal.parse::<SocketAddr>() else { continue };
        // An address that means all of an engine's own says nothing here.
        if address.ip().is_unspecified() {
            continue;
        }
        match timeout(PROBE, TcpStream::connect(address)).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                refused = true;
            }
            _ => return false,
        }
    }
    refused
}

/// How fast an engine brings replicas back, of volumes of which that was set.
fn paces_of(state: &wire::State) -> Vec<(Uuid, Pace)> {
    let set = state.paths.iter().filter_map(|path| {
        let wire::RebuildPace { version, paused, beside_bytes_per_s, alone_bytes_per_s } =
            path.pace?;
        let (beside, alone) = (beside_bytes_per_s, alone_bytes_per_s);
        let volume = identity::parse("volume", &path.volume).ok()?;
        Some((volume, Pace { version, paused, beside, alone }))
    });
    set.collect()
}

fn part(path: &wire::Path, before: Option<&Part>, now: braid_block::Instant) -> Part {
    let optional = |text: &str| identity::parse_optional("owner", text).ok().flatten();
    let owner = optional(&path.owner);
    let serving = path.access() == wire::Access::Optimized;
    let same = before.filter(|before| (before.owner, before.serving) == (owner, serving));
    let since = same.map_or(now, |before| before.since);
    Part { owner, serving, since, returning: optional(&path.returning) }
}

impl Inside {
    /// The same process is back: what it did not answer it may not have heard.
    fn resend(&mut self, engine: &Uuid) {
        let mine = self.orders.values().filter(|sent| sent.engine == *engine);
        let orders: Vec<wire::Order> = mine.map(|sent| sent.order.clone()).collect();
        for order in orders {
            self.tell(engine, wire::to_engine::What::Order(order));
        }
    }

    /// Another process: what the one before it was told is lost with it, and so is what it had.
    fn forget_process(&mut self, engine: &Uuid, now: braid_block::Instant) {
        self.orders.retain(|_, sent| sent.engine != *engine);
        let Self { observed, flights, orders, .. } = self;
        flights.retain(|volume, order| {
            let kept = orders.contains_key(order);
            if let Some(ledger) = observed.ledgers.get_mut(volume).filter(|_| !kept) {
                ledger.failed(now);
            }
            kept
        });
        observed.engines.remove(engine);
        if let Some(known) = self.engines.get_mut(engine) {
            (known.state, known.copies) = Default::default();
        }
    }
}
