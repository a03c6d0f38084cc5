//! The task that runs this engine's volumes.
//!
//! Invariants:
//! 1. Every order that comes is ended exactly once, also when its volume goes away.
//! 2. A volume is told of its replicas before it is told to use them.
//! 3. A question of a volume is answered, be it by "nobody knows": it asks again by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use braid_api::control as wire;
use braid_block::{BlockSize, Geometry};
use braid_nexus::record::Uuid;
use braid_nexus::{Command, Ended, Event, Failure, Limits, Note, Swapped, Timing, View};
use braid_nvme::connect::Nqn;
use braid_shard::{News, Question, Told, VolumeConfig};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tonic::Code;

use super::changes;
use super::part::Part;
use super::turns::{Need, Turns};
use super::words::Weight;
use crate::control::{self, Link, Order, Refused};
use crate::manage::host::{Exposed, Exposure, Home, Host};
use crate::manage::manager::Manager;
use crate::manage::nexuses::{ASKS_MAX, Ask};
use crate::manage::{hub, names};
use crate::serve::volumes::Request;

/// An order for a volume of which nothing is known waits so long for that.
const TOPOLOGY_PATIENCE: Duration = Duration::from_secs(3);
/// How often what is reported is looked at anew.
const LOOK: Duration = Duration::from_secs(1);

/// Has the volumes of this engine leave in order.
#[derive(Clone, Debug)]
pub struct Leave(mpsc::Sender<oneshot::Sender<()>>);

impl Leave {
    /// Shuts every volume down that this engine owns, until the deadline; whether all were.
    pub async fn all(&self, deadline: Instant) -> bool {
        let (done, left) = oneshot::channel();
        if self.0.send(done).await.is_err() {
            return true;
        }
        timeout_at(deadline, left).await.is_ok()
    }
}

/// An order that waits for what is known of its volume.
#[derive(Debug)]
struct Waiting {
    order: Uuid,
    volume: Uuid,
    what: Order,
    until: Instant,
}

/// What a command of a volume is for.
#[derive(Debug)]
enum Purpose {
    Order {
        order: Uuid,
        volume: Uuid,
        takes_over: bool,
        /// The failure that says that it is so already.
        already: Option<Failure>,
    },
    Leaving,
}

/// Runs the volumes of this engine.
#[derive(Debug)]
pub(super) struct Runner<H> {
    pub(super) manager: Arc<Manager<H>>,
    commands: mpsc::Sender<control::Command>,
    hostnqn: Nqn,
    /// What the control plane calls this engine.
    node: String,
    pub(super) parts: BTreeMap<Uuid, Part>,
    /// Where volumes are, also those that are being left: their questions are still answered.
    shards: BTreeMap<Uuid, u16>,
    pub(super) topology: BTreeMap<Uuid, wire::VolumeTopology>,
    waiting: Vec<Waiting>,
    pending: BTreeMap<u64, Purpose>,
    tags: u64,
    /// Who waits for all volumes to have left.
    leaving: Vec<oneshot::Sender<()>>,
    /// Volumes of which something that is reported may have changed.
    touched: BTreeSet<Uuid>,
    /// There is a part more, or less, or one stands otherwise.
    changed: bool,
    turns: Turns,
}

/// Starts the task, which ends when it is aborted. So many long rebuilds go on at once.
pub fn start<H: Host>(
    manager: &Arc<Manager<H>>,
    node: &str,
    rebuilds: NonZeroU16,
    link: Link,
    told: mpsc::UnboundedReceiver<(u16, Told)>,
) -> (Leave, JoinHandle<()>) {
    let (sender, leaves) = mpsc::channel(1);
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    // There is one task for each manager.
    let _ = manager.nexuses.set(asks);
    let hostnqn = Nqn::parse(&format!("nqn.2026-01.io.braid:engine:{node}"));
    let runner = Runner {
        manager: Arc::clone(manager),
        commands: link.commands,
        hostnqn: hostnqn.expect("the name of a node is short and plain"),
        node: node.to_owned(),
        parts: BTreeMap::new(),
        shards: BTreeMap::new(),
        topology: BTreeMap::new(),
        waiting: Vec::new(),
        pending: BTreeMap::new(),
        tags: 0,
        leaving: Vec::new(),
        touched: BTreeSet::new(),
        changed: false,
        turns: Turns::new(rebuilds.get().into()),
    };
    (Leave(sender), tokio::spawn(runner.run(link.events, told, leaves, asked)))
}

impl<H: Host> Runner<H> {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<control::Event>,
        mut told: mpsc::UnboundedReceiver<(u16, Told)>,
        mut leaves: mpsc::Receiver<oneshot::Sender<()>>,
        mut asks: mpsc::Receiver<Ask>,
    ) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event).await,
                    None => return,
                },
                news = told.recv() => match news {
                    Some((shard, Told { volume, news })) => self.news(shard, volume, news).await,
                    None => return,
                },
                Some(done) = leaves.recv() => self.leave_all(done).await,
                Some(ask) = asks.recv() => self.asked(ask).await,
                _ = look.tick() => self.look().await,
            }
            if std::mem::take(&mut self.changed) {
                self.report().await;
            }
        }
    }

    async fn event(&mut self, event: control::Event) {
        match event {
            control::Event::Fetched { volume, record } => {
                self.answer(volume, Event::Fetched { record });
            }
            control::Event::Swapped { volume, number, outcome } => {
                self.answer(volume, Event::Swapped { number, outcome });
            }
            control::Event::Order { order, volume, what } => self.order(order, volume, what).await,
            control::Event::Topology(topology) => self.learn(topology).await,
        }
    }

    fn answer(&self, volume: Uuid, event: Event) {
        if let Some(shard) = self.shards.get(&volume) {
            self.manager.host.volume(*shard, Request::Answer(volume, event));
        }
    }

    /// Where replicas and paths are.
    async fn learn(&mut self, topology: wire::Topology) {
        let named = topology.volumes.into_iter();
        self.topology = named
            .filter_map(|known| names::uuid(&known.volume).ok().flatten().map(|id| (id, known)))
            .collect();
        let hosts = &self.manager.settings.allowed_hosts;
        let paths = super::paths::elsewhere(self.topology.values(), &self.node, hosts);
        self.manager.tell_elsewhere(paths).await;
        let volumes: Vec<Uuid> = self.parts.keys().copied().collect();
        for volume in volumes {
            self.place(volume).await;
            self.learn_pace(volume);
        }
        for Waiting { order, volume, what, until } in std::mem::take(&mut self.waiting) {
            if self.topology.contains_key(&volume) {
                self.order(order, volume, what).await;
            } else {
                self.waiting.push(Waiting { order, volume, what, until });
            }
        }
    }

    /// Tells a volume's shard where its replicas are.
    async fn place(&mut self, volume: Uuid) {
        let (Some(part), Some(known)) = (self.parts.get(&volume), self.topology.get(&volume))
        else {
            return;
        };
        let shard = part.shard;
        // Its owner has it from the record.
        self.manager.host.volume(shard, Request::Size(volume, known.size_bytes));
        let mut places = Vec::new();
        for (replica, portal) in addresses(known) {
            // One of the same shard is used without a connection.
            let home = self.manager.home_of(&replica).await;
            if home.is_none_or(|home| home.shard != shard) {
                places.push((replica, portal));
            }
        }
        let Some(part) = self.parts.get_mut(&volume) else { return };
        for (replica, portal) in &places {
            if !part.places.contains(&(*replica, *portal)) {
                let request = Request::Place { volume, replica: *replica, portal: *portal };
                self.manager.host.volume(shard, request);
            }
        }
        part.places = places;
    }

    async fn order(&mut self, order: Uuid, volume: Uuid, what: Order) {
        if what == Order::Withdraw {
            self.withdraw(volume);
            return self.end(order, Ok(())).await;
        }
        if !self.parts.contains_key(&volume) {
            let Some(known) = self.topology.get(&volume).cloned() else {
                let until = Instant::now() + TOPOLOGY_PATIENCE;
                return self.waiting.push(Waiting { order, volume, what, until });
            };
            if let Err(refused) = self.stand_by(volume, &known).await {
                return self.end(order, Err(refused)).await;
            }
        }
        let command = match what {
            Order::Standby | Order::Withdraw => return self.end(order, Ok(())).await,
            Order::TakeOver { owner, force } => Command::TakeOver { owner, force },
            Order::HandOver => Command::Shutdown,
            Order::Return { replica } => Command::Return { replica },
            Order::Owner(command) => command,
        };
        let takes_over = matches!(command, Command::TakeOver { .. });
        let already = changes::already(&command);
        if let Some(part) = self.parts.get_mut(&volume) {
            part.taking_over |= takes_over;
        }
        self.touch(volume);
        let purpose = Purpose::Order { order, volume, takes_over, already };
        if !self.command(volume, command, purpose).await {
            let text = "the engine has no part in this volume any more".into();
            self.end(order, Err(Refused { code: Code::Unavailable, text })).await;
        }
    }

    async fn command(&mut self, volume: Uuid, command: Command, purpose: Purpose) -> bool {
        let Some(part) = self.parts.get(&volume) else { return false };
        self.tags += 1;
        let tag = self.tags;
        let (answer, there) = oneshot::channel();
        self.manager.host.volume(part.shard, Request::Command(volume, tag, command, answer));
        let there = there.await.unwrap_or(false);
        if there {
            self.pending.insert(tag, purpose);
        }
        there
    }

    /// Becomes a path of a volume: hosts may connect, and are told to wait.
    async fn stand_by(
        &mut self,
        volume: Uuid,
        known: &wire::VolumeTopology,
    ) -> Result<(), Refused> {
        let mut near = None;
        for (replica, _) in addresses(known) {
            if let Some(home) = self.manager.home_of(&replica).await {
                near = Some((replica, home));
                break;
            }
        }
        let shard = near.map_or(0, |(_, home)| home.shard);
        let config = VolumeConfig {
            volume,
            bytes: known.size_bytes,
            near: near.map(|(replica, _)| replica),
            timing: Timing::default(),
            limits: Limits::default(),
            hostnqn: self.hostnqn,
            places: Vec::new(),
        };
        let (answer, added) = oneshot::channel();
        self.manager.host.volume(shard, Request::Add(Box::new(config), answer));
        if !added.await.unwrap_or(false) {
            let text = "the volume is still being left; try again".into();
            return Err(Refused { code: Code::Unavailable, text });
        }
        let part = Part::new(shard, volume);
        self.shards.insert(volume, shard);
        let exposure = Exposure {
            home: Home { shard, pool: 0 },
            what: Exposed::Volume,
            uuid: volume,
            names: part.names.clone(),
            geometry: Geometry::of_bytes(known.size_bytes, BlockSize::B4096),
            allowed_hosts: self.manager.settings.allowed_hosts.clone(),
        };
        self.parts.insert(volume, part);
        // Turns are given by what it says that it needs.
        self.manager.host.volume(shard, Request::Turn(volume, false));
        self.place(volume).await;
        self.learn_pace(volume);
        self.touch(volume);
        if !self.manager.host.expose(exposure).await {
            // What has the name is not ours to hide.
            self.parts.remove(&volume);
            let (answer, _) = oneshot::channel();
            self.manager.host.volume(shard, Request::Remove(volume, answer));
            let text = "another subsystem here has the volume's name".into();
            return Err(Refused { code: Code::AlreadyExists, text });
        }
        tracing::info!(volume = names::text(volume), name = known.name, "standing by");
        Ok(())
    }

    /// Has no part in a volume any more.
    fn withdraw(&mut self, volume: Uuid) {
        let Some(part) = self.parts.remove(&volume) else { return };
        self.changed = true;
        // What its hosts wait for ends with its owner, else it could not be hidden.
        self.manager.host.volume(part.shard, Request::Retire(volume));
        let manager = Arc::clone(&self.manager);
        // Commands of its hosts may be in work for long: nobody else is to wait for that.
        tokio::spawn(async move {
            let home = Home { shard: part.shard, pool: 0 };
            manager.host.hide(home, &part.names.nqn).await;
            let (answer, _) = oneshot::channel();
            manager.host.volume(part.shard, Request::Remove(volume, answer));
        });
    }

    /// Nothing of a volume is left here: what it was told to do will not be done.
    async fn gone(&mut self, volume: Uuid) {
        tracing::info!(volume = names::text(volume), "left");
        self.shards.remove(&volume);
        let its = |purpose: &Purpose| match purpose {
            Purpose::Order { volume: of, .. } => *of == volume,
            Purpose::Leaving => false,
        };
        let open = self.pending.iter().filter(|(_, purpose)| its(purpose));
        let open: Vec<u64> = open.map(|(tag, _)| *tag).collect();
        for tag in open {
            if let Some(Purpose::Order { order, .. }) = self.pending.remove(&tag) {
                let text = "the engine has no part in this volume any more".into();
                self.end(order, Err(Refused { code: Code::Unavailable, text })).await;
            }
        }
    }

    /// Something of a volume may have changed.
    pub(super) fn touch(&mut self, volume: Uuid) {
        self.touched.insert(volume);
        self.changed = true;
    }

    async fn news(&mut self, shard: u16, volume: Uuid, news: News) {
        match news {
            News::Asked(question) => self.ask(shard, volume, question).await,
            News::Ended(ended) => self.ended(ended).await,
            News::Note(note) => self.note(volume, note),
            News::Access { optimized } => {
                tracing::info!(volume = names::text(volume), optimized, "access");
                self.touch(volume);
            }
            News::Resized { bytes } => self.resized(volume, bytes),
            News::Gone => self.gone(volume).await,
        }
    }

    async fn ask(&self, shard: u16, volume: Uuid, question: Question) {
        let (command, unknown) = match question {
            Question::Fetch => {
                let unknown = Event::Fetched { record: None };
                (control::Command::Fetch { volume }, unknown)
            }
            Question::Swap { number, old, new } => {
                let unknown = Event::Swapped { number, outcome: Swapped::Unknown };
                (control::Command::Swap { volume, number, old, new }, unknown)
            }
        };
        if self.commands.try_send(command).is_err() {
            self.manager.host.volume(shard, Request::Answer(volume, unknown));
        }
    }

    fn note(&mut self, volume: Uuid, note: Note) {
        let name = names::text(volume);
        let Some(part) = self.parts.get_mut(&volume) else {
            return tracing::info!(volume = name, ?note, "volume that is being left");
        };
        let (told, event) = part.take(&note, hub::unix_ms());
        let text = told.text;
        match told.weight {
            Weight::Detail => return tracing::debug!(volume = name, "{text}"),
            Weight::News => tracing::info!(volume = name, "{text}"),
            Weight::Warning => tracing::warn!(volume = name, "{text}"),
        }
        self.tell(volume, &event);
        self.touch(volume);
    }

    async fn ended(&mut self, ended: Ended) {
        let Some(purpose) = self.pending.remove(&ended.tag) else { return };
        match purpose {
            Purpose::Order { order, volume, takes_over, already } => {
                self.touch(volume);
                if let Some(part) = self.parts.get_mut(&volume).filter(|_| takes_over) {
                    part.taking_over = false;
                }
                let result = ended.result.or_else(|failure| {
                    if already.as_ref() == Some(&failure) { Ok(()) } else { Err(refused(failure)) }
                });
                self.end(order, result).await;
            }
            Purpose::Leaving => {}
        }
        if !self.pending.values().any(|purpose| matches!(purpose, Purpose::Leaving)) {
            for done in self.leaving.drain(..) {
                // Who gave up waiting needs no answer.
                let _ = done.send(());
            }
        }
    }

    async fn end(&mut self, order: Uuid, result: Result<(), Refused>) {
        // What it changed is told first.
        if std::mem::take(&mut self.changed) {
            self.report().await;
        }
        let ended = control::Command::Ended { order, result };
        // Fails when the process ends.
        let _ = self.commands.send(ended).await;
    }

    /// Shuts down every volume that is owned here.
    async fn leave_all(&mut self, done: oneshot::Sender<()>) {
        // Nothing is given to this engine any more. Fails when the process ends.
        let _ = self.commands.send(control::Command::Leaving).await;
        let owned: Vec<Uuid> = self.parts.keys().copied().collect();
        let mut leaving = false;
        for volume in owned {
            match self.look_at(volume).await {
                Some(view) if view.serving => {
                    leaving |= self.command(volume, Command::Shutdown, Purpose::Leaving).await;
                }
                // An owner that does not serve has nothing to leave in order: one that is still
                // taking over, or whose writes are held.
                Some(_) => {
                    if let Some(part) = self.parts.get(&volume) {
                        self.manager.host.volume(part.shard, Request::Retire(volume));
                    }
                }
                None => {}
            }
        }
        if leaving {
            self.leaving.push(done);
        } else {
            let _ = done.send(());
        }
    }

    /// Looks at what changes without being told, and ends what waited too long.
    async fn look(&mut self) {
        let now = Instant::now();
        let late: Vec<Uuid> =
            self.waiting.iter().filter(|w| w.until <= now).map(|w| w.order).collect();
        self.waiting.retain(|waiting| waiting.until > now);
        for order in late {
            let text = "where the volume's replicas are was not told in time".into();
            self.end(order, Err(Refused { code: Code::Unavailable, text })).await;
        }
        let owned = self.parts.iter().filter(|(_, part)| part.view.epoch != 0);
        let owned: Vec<Uuid> = owned.map(|(volume, _)| *volume).collect();
        owned.into_iter().for_each(|volume| self.touch(volume));
        self.tell_copies().await;
    }

    pub(super) async fn look_at(&self, volume: Uuid) -> Option<View> {
        let part = self.parts.get(&volume)?;
        let (answer, view) = oneshot::channel();
        self.manager.host.volume(part.shard, Request::View(volume, answer));
        view.await.ok().flatten()
    }

    /// Tells the control plane what parts this engine has.
    async fn report(&mut self) {
        for volume in std::mem::take(&mut self.touched) {
            let view = self.look_at(volume).await;
            if let (Some(part), Some(view)) = (self.parts.get_mut(&volume), view) {
                part.view = view;
            }
        }
        self.give_turns();
        let paths = self.parts.iter().map(|(volume, part)| part.path(*volume)).collect();
        let _ = self.commands.send(control::Command::Paths(paths)).await;
    }

    /// Lets long rebuilds go on, as many as may at once.
    fn give_turns(&mut self) {
        let returns = self.parts.iter().filter_map(|(volume, part)| {
            let View { joiner, pace, turn, .. } = &part.view;
            let need = if turn.is_some() { Need::Turn } else { Need::Nothing };
            (joiner.is_some() && !pace.paused).then_some((*volume, need))
        });
        let returns: BTreeMap<Uuid, Need> = returns.collect();
        for (volume, turn) in self.turns.look(Instant::now(), &returns) {
            let Some(part) = self.parts.get(&volume) else { continue };
            self.manager.host.volume(part.shard, Request::Turn(volume, turn));
            let volume = names::text(volume);
            tracing::debug!(volume, turn, "the turn of its rebuild");
        }
        for (volume, part) in &mut self.parts {
            part.behind = self.turns.before(volume).and_then(|before| before.try_into().ok());
        }
    }

    /// Tells it what the replicas here know of their volumes.
    async fn tell_copies(&self) {
        for shard in 0..self.manager.host.shards() {
            let (answer, members) = oneshot::channel();
            self.manager.host.volume(shard, Request::Members(answer));
            for member in members.await.unwrap_or_default() {
                let record = member.record.map(Box::new);
                let (replica, fence) = (member.replica, member.epoch);
                let copy = control::Command::Copy { replica, fence, record };
                let _ = self.commands.send(copy).await;
            }
        }
    }
}

/// Replicas and where they are.
fn addresses(known: &wire::VolumeTopology) -> Vec<(Uuid, Option<SocketAddr>)> {
    let named = known.replicas.iter().filter_map(|replica| {
        let uuid = names::uuid(&replica.uuid).ok().flatten()?;
        let portal = replica.portals.iter().find_map(|portal| portal.parse().ok());
        Some((uuid, portal))
    });
    named.collect()
}

/// Why a volume did not do what was ordered.
fn refused(failure: Failure) -> Refused {
    let (code, text) = match failure {
        Failure::NotOwner => (Code::FailedPrecondition, "this engine does not own the volume"),
        Failure::NotFound => (Code::NotFound, "the volume's record names no such replica"),
        Failure::Exists => (Code::AlreadyExists, "it is there already"),
        Failure::Busy => (Code::Unavailable, "something else is in work; try again"),
        Failure::Invalid => {
            (Code::InvalidArgument, "the volume's record, or a replica, cannot have that")
        }
        Failure::NoSpace => (
            Code::ResourceExhausted,
            "a replica has no space for it, or its pool has as many snapshots as it can have",
        ),
        Failure::StoreNotCurrent(_) => (
            Code::FailedPrecondition,
            "replicas know a newer record than the store: recover the volume first",
        ),
    };
    Refused { code, text: text.into() }
}
