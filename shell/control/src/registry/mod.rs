//! Engines as they are connected, and what is in flight to them.
//!
//! Invariants:
//! 1. No lock is held across an await.
//! 2. An order ends once: by its answer, or because nobody waits for it any more.
//! 3. An engine that comes back as the same process gets again what it did not answer; another
//!    process gets nothing that was meant for the one before it.

mod attend;
mod changes;
mod copies;
mod topology;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use braid_api::control as wire;
use braid_block::Instant;
use braid_nexus::{Record, Uuid};
use braid_plan::{Asked, Ledger, Observed, Owners, Step, Wish};
use braid_terminal::Result;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::store::{Stage, State, Store, random};

pub use attend::{Stream, attend};
pub(crate) use changes::is_final;
pub(crate) use copies::Said;
pub use turn::supervise;
pub(crate) use turn::tell;

/// What engines are told to report by.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// Messages that wait for an engine, at most: orders of a turn, and then some.
const MESSAGES_MAX: usize = 256;

/// The control plane of this process.
#[derive(Debug)]
pub struct Control {
    /// What is committed.
    pub store: Store,
    /// What was counted.
    pub counters: Counters,
    inside: Mutex<Inside>,
    begun: std::time::Instant,
}

/// What the supervisor counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Orders to take over.
    pub take_overs: AtomicU64,
    /// Orders of all kinds.
    pub orders: AtomicU64,
    /// Of these, those that failed or were late.
    pub failures: AtomicU64,
}

/// What is known and is not kept.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) observed: Observed,
    pub(crate) engines: BTreeMap<Uuid, Engine>,
    pub(crate) asked: BTreeMap<Uuid, Asked>,
    orders: BTreeMap<Uuid, Sent>,
    /// The order in flight of each volume's ledger.
    flights: BTreeMap<Uuid, Uuid>,
    /// Changes of volumes that engines refused when they were tried last, and why.
    refusals: BTreeMap<Uuid, Vec<(Step, Status)>>,
    /// Why the last order about a volume failed.
    pub(crate) failures: BTreeMap<Uuid, String>,
    /// Volumes of which replicas know a newer record than the store.
    pub(crate) stale: BTreeSet<Uuid>,
    alerts: BTreeMap<Uuid, String>,
    owners: Owners,
    streams: u64,
}

/// An engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Engine {
    pub(crate) hello: wire::Hello,
    /// The way to it, and which stream that is.
    sender: Option<mpsc::Sender<Result<wire::ToEngine, Status>>>,
    stream: u64,
    pub(crate) state: wire::State,
    /// Copies of records that its replicas have, by replica.
    copies: BTreeMap<Uuid, Option<Arc<Record>>>,
    topology: Option<wire::Topology>,
}

/// An order that was not answered yet.
#[derive(Debug)]
struct Sent {
    engine: Uuid,
    volume: Uuid,
    order: wire::Order,
    waiter: Option<oneshot::Sender<wire::Done>>,
}

impl Control {
    /// For a store.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(store: Store) -> Result<Self> {
        let mut run = [0; 8];
        run.copy_from_slice(&random()?[..8]);
        let begun = std::time::Instant::now();
        let remembered = |state: &State| {
            let ledger = |(uuid, volume): (&Uuid, &crate::store::Volume)| {
                let appointed = volume.spec.appointed?;
                Some((*uuid, Ledger::remembered(appointed.engine, appointed.owner)))
            };
            state.volumes.iter().filter_map(ledger).collect()
        };
        let ledgers = store.read(remembered);
        let inside = Inside {
            observed: Observed { awake: START, ledgers, ..Observed::default() },
            engines: BTreeMap::new(),
            asked: BTreeMap::new(),
            orders: BTreeMap::new(),
            flights: BTreeMap::new(),
            refusals: BTreeMap::new(),
            failures: BTreeMap::new(),
            stale: BTreeSet::new(),
            alerts: BTreeMap::new(),
            owners: Owners::new(run),
            streams: 0,
        };
        Ok(Self { store, counters: Counters::default(), inside: Mutex::new(inside), begun })
    }

    /// Time as the supervisor has it.
    pub(crate) fn now(&self) -> Instant {
        START + self.begun.elapsed()
    }

    pub(crate) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an engine do something, and waits for the answer: at most `patience`.
    pub(crate) async fn order(
        &self,
        engine: Uuid,
        order: wire::Order,
        volume: Uuid,
        patience: Duration,
    ) -> Result<wire::Done, Status> {
        let (sender, answer) = oneshot::channel();
        let id = order_id(&order);
        let node = {
            let mut inside = self.inside();
            let node = inside.node(&engine);
            let sent = Sent { engine, volume, order, waiter: Some(sender) };
            inside.send(sent)?;
            node
        };
        let answer = tokio::time::timeout(patience, answer).await;
        self.inside().orders.remove(&id);
        match answer {
            Ok(Ok(done)) => Ok(done),
            _ => Err(Status::failed_precondition(format!("engine {node} did not answer in time"))),
        }
    }
}

/// The instant at which a process begins: not zero, so that there is a time before.
const START: Instant = Instant::from_nanos(1_000_000_000);

fn order_id(order: &wire::Order) -> Uuid {
    uuid::Uuid::try_parse(&order.id).map(uuid::Uuid::into_bytes).unwrap_or_default()
}

impl Inside {
    /// The name of an engine's node; its identity if it was not heard of.
    pub(crate) fn node(&self, engine: &Uuid) -> String {
        let known = self.engines.get(engine).map(|engine| engine.hello.node.clone());
        known.unwrap_or_else(|| crate::identity::text(engine))
    }

    /// The engine that a request means.
    pub(crate) fn engine(&self, reference: &str) -> Result<Uuid, Status> {
        let named = self.engines.iter().find(|(_, engine)| engine.hello.node == reference);
        let by_id = || {
            let uuid = uuid::Uuid::try_parse(reference).ok()?.into_bytes();
            self.engines.contains_key(&uuid).then_some(uuid)
        };
        named.map(|(uuid, _)| *uuid).or_else(by_id).ok_or_else(|| {
            Status::not_found(format!(
                "engine {reference} was not heard of; is it started with --control and --node?"
            ))
        })
    }

    /// Where a replica is.
    pub(crate) fn replica(&self, replica: &Uuid) -> Option<(Uuid, &wire::ReplicaState)> {
        let text = crate::identity::text(replica);
        self.engines.iter().find_map(|(uuid, engine)| {
            let found = engine.state.replicas.iter().find(|state| state.uuid == text)?;
            Some((*uuid, found))
        })
    }

    /// Sends an order; it is kept until it is answered.
    fn send(&mut self, sent: Sent) -> Result<(), Status> {
        let message = wire::to_engine::What::Order(sent.order.clone());
        let engine = sent.engine;
        self.orders.insert(order_id(&sent.order), sent);
        if self.tell(&engine, message) {
            return Ok(());
        }
        let node = self.node(&engine);
        Err(Status::failed_precondition(format!("engine {node} is not connected")))
    }

    fn tell(&mut self, engine: &Uuid, what: wire::to_engine::What) -> bool {
        let Some(sender) = self.engines.get(engine).and_then(|e| e.sender.as_ref()) else {
            return false;
        };
        // One that does not read is as good as gone, and its heartbeats say whether it is.
        sender.try_send(Ok(wire::ToEngine { what: Some(what) })).is_ok()
    }

    fn ledger(&mut self, volume: Uuid) -> &mut Ledger {
        self.observed.ledgers.entry(volume).or_default()
    }
}

/// Whether the supervisor looks after a volume of this stage.
const fn is_planned(stage: Stage) -> bool {
    matches!(stage, Stage::Ready | Stage::Deleting)
}

/// What an order says, in a few words.
fn words(inside: &Inside, step: &Step) -> String {
    let node = |engine: &Uuid| inside.node(engine);
    let replica = |uuid: &Uuid| crate::identity::text(uuid);
    match step {
        Step::TakeOver { engine, force: true, .. } => {
            format!("{} takes over, by force", node(engine))
        }
        Step::TakeOver { engine, .. } => format!("{} takes over", node(engine)),
        Step::HandOver { engine, .. } => format!("{} hands over", node(engine)),
        Step::Return { engine, replica: uuid } => {
            format!("{} brings replica {} back", node(engine), replica(uuid))
        }
        Step::Standby { engine } => format!("{} stands by", node(engine)),
        Step::Withdraw { engine } => format!("{} withdraws", node(engine)),
        Step::DropReplica { engine, replica: uuid } => {
            format!("{} destroys replica {}", node(engine), replica(uuid))
        }
        Step::MakeReplica { engine, replica: uuid } => {
            format!("{} makes replica {}", node(engine), replica(uuid))
        }
        Step::AddMember { engine, replica: uuid } => {
            format!("{} names replica {}", node(engine), replica(uuid))
        }
        Step::TakeOut { engine, replica: uuid } => {
            format!("{} takes replica {} out", node(engine), replica(uuid))
        }
        Step::GiveUp { engine, replica: uuid } => {
            format!("{} gives replica {} up", node(engine), replica(uuid))
        }
        Step::Unlist { replica: uuid } => format!("replica {} is gone", replica(uuid)),
        Step::TakeSnapshot { engine, snapshot } => {
            format!("{} takes snapshot {}", node(engine), replica(snapshot))
        }
        Step::DropSnapshot { engine, snapshot } => {
            format!("{} lets snapshot {} go", node(engine), replica(snapshot))
        }
        Step::Resize { engine, bytes } => format!("{} grows it to {bytes} bytes", node(engine)),
        Step::End { wish: Wish::Size { bytes } } => format!("it is not to have {bytes} bytes"),
        Step::End { wish: Wish::Snapshot { snapshot } } => {
            format!("it is not to have snapshot {}", replica(snapshot))
        }
        Step::End { wish: Wish::Replica { replica: uuid } } => {
            format!("it is not to have replica {}", replica(uuid))
        }
        Step::Forget => "it is forgotten".into(),
    }
}
