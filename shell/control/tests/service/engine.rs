//! Models of engines: they report and obey by the real protocol, and change records as an owner
//! does. What replicas know is shared between them, as replicas would tell each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use braid_api::control::from_engine::What;
use braid_api::control::membership_client::MembershipClient;
use braid_api::control::order::What as Do;
use braid_api::control::registry_client::RegistryClient;
use braid_api::control::{self as wire, Access, to_engine};
use braid_nexus::Record;
use braid_nexus::record::{Replica, Snapshot, Standing};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use super::process::channel;

/// What all engines of a test share.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// Where replicas are, by engine.
    replicas: BTreeMap<String, BTreeMap<String, wire::ReplicaState>>,
    /// Engines that are alive.
    alive: Vec<String>,
}

/// How an engine answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    /// It refuses every order, with this.
    pub(crate) refuses: Option<(Code, String)>,
    /// It does not answer.
    pub(crate) mute: bool,
    /// Its answers are lost.
    pub(crate) unheard: bool,
}

/// A running model.
pub(crate) struct Engine {
    pub(crate) node: String,
    task: JoinHandle<()>,
    portal: JoinHandle<()>,
    inside: Arc<Mutex<Inside>>,
    cluster: Arc<Mutex<Cluster>>,
}

#[derive(Debug, Default)]
struct Inside {
    manners: Manners,
    paths: BTreeMap<String, wire::Path>,
    topology: wire::Topology,
    orders: Vec<String>,
    /// Controller ids, as each Welcome had them.
    allotted: Vec<(u32, u32)>,
    leaving: bool,
}

struct Model {
    address: String,
    hello: wire::Hello,
    inside: Arc<Mutex<Inside>>,
    cluster: Arc<Mutex<Cluster>>,
    membership: MembershipClient<Channel>,
}

impl Engine {
    /// Starts an engine with one pool.
    pub(crate) async fn start(address: &str, node: &str, cluster: &Arc<Mutex<Cluster>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let portal = listener.local_addr().unwrap().to_string();
        let accepts = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let hello = wire::Hello {
            node: node.into(),
            id: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, node.as_bytes()).to_string(),
            boot: uuid::Uuid::nil().to_string(),
            process: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, portal.as_bytes()).to_string(),
            version: "1".into(),
            portals: vec![portal],
        };
        let inside = Arc::new(Mutex::new(Inside::default()));
        cluster.lock().unwrap().alive.push(node.into());
        let model = Model {
            address: address.into(),
            hello,
            inside: Arc::clone(&inside),
            cluster: Arc::clone(cluster),
            membership: MembershipClient::new(channel(address).connect_lazy()),
        };
        let task = tokio::spawn(model.run());
        let cluster = Arc::clone(cluster);
        Self { node: node.into(), task, portal: accepts, inside, cluster }
    }

    pub(crate) fn set(&self, manners: Manners) {
        self.inside.lock().unwrap().manners = manners;
    }

    /// The process dies: its connections break, its portal refuses.
    pub(crate) async fn kill(self) {
        self.cluster.lock().unwrap().alive.retain(|node| *node != self.node);
        self.portal.abort();
        self.task.abort();
        let _ = self.portal.await;
        let _ = self.task.await;
    }

    /// It has a replica that belongs to no volume.
    pub(crate) fn give(&self, uuid: &str, size_bytes: u64) {
        let replica = wire::ReplicaState {
            uuid: uuid.into(),
            name: "given".into(),
            pool: "p".into(),
            size_bytes,
            instance: 7,
            online: true,
            ..wire::ReplicaState::default()
        };
        let mut cluster = self.cluster.lock().unwrap();
        cluster.replicas.entry(self.node.clone()).or_default().insert(uuid.into(), replica);
    }

    pub(crate) fn topology(&self) -> wire::Topology {
        self.inside.lock().unwrap().topology.clone()
    }

    /// It is told to stop, and says so.
    pub(crate) fn leave(&self) {
        self.inside.lock().unwrap().leaving = true;
    }

    pub(crate) fn allotted(&self) -> Vec<(u32, u32)> {
        self.inside.lock().unwrap().allotted.clone()
    }

    pub(crate) fn orders(&self) -> Vec<String> {
        self.inside.lock().unwrap().orders.clone()
    }

    pub(crate) fn replicas(&self) -> usize {
        self.cluster.lock().unwrap().replicas.get(&self.node).map_or(0, BTreeMap::len)
    }
}

impl Model {
    async fn run(mut self) {
        loop {
            let _ = self.attend().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn attend(&mut self) -> Result<(), tonic::Status> {
        let (to, messages) = mpsc::channel(64);
        let _ = to.send(said(What::Hello(self.hello.clone()))).await;
        let mut client = RegistryClient::new(channel(&self.address).connect_lazy());
        let mut from = client.attend(ReceiverStream::new(messages)).await?.into_inner();
        let mut beats = tokio::time::interval(Duration::from_millis(300));
        loop {
            tokio::select! {
                message = from.message() => match message?.and_then(|message| message.what) {
                    Some(to_engine::What::Order(order)) => self.obey(order, &to).await,
                    Some(to_engine::What::Topology(topology)) => {
                        self.inside.lock().unwrap().topology = topology;
                    }
                    Some(to_engine::What::Welcome(welcome)) => {
                        let ids = (welcome.cntlid_min, welcome.cntlid_max);
                        self.inside.lock().unwrap().allotted.push(ids);
                    }
                    None => return Ok(()),
                },
                _ = beats.tick() => self.report(&to).await,
            }
        }
    }

    async fn report(&self, to: &mpsc::Sender<wire::FromEngine>) {
        let node = &self.hello.node;
        let pool = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, node.as_bytes()).to_string();
        let replicas = self.cluster.lock().unwrap().replicas.get(node).cloned();
        let state = wire::State {
            pools: vec![wire::PoolState {
                uuid: pool,
                path: format!("/pools/{node}"),
                ..wire::PoolState::default()
            }],
            replicas: replicas.unwrap_or_default().into_values().collect(),
            paths: self.inside.lock().unwrap().paths.values().cloned().collect(),
        };
        let _ = to.send(said(What::Report(wire::Report { state: Some(state) }))).await;
        let leaving = self.inside.lock().unwrap().leaving;
        if leaving {
            let _ = to.send(said(What::Leaving(wire::Leaving {}))).await;
        }
    }

    async fn obey(&mut self, order: wire::Order, to: &mpsc::Sender<wire::FromEngine>) {
        let manners = self.inside.lock().unwrap().manners.clone();
        let what = order.what.clone().unwrap();
        let word = format!("{what:?}");
        let word = word.split('(').next().unwrap_or_default().to_owned();
        self.inside.lock().unwrap().orders.push(word);
        if manners.mute {
            return;
        }
        let result = match manners.refuses {
            Some((code, text)) => Err((code, text)),
            None => self.carry_out(&order.volume, what).await,
        };
        self.report(to).await;
        if manners.unheard {
            return;
        }
        let done = match result {
            Ok(replica) => wire::Done { id: order.id, code: 0, text: String::new(), replica },
            Err((code, text)) => {
                wire::Done { id: order.id, code: code.into(), text, replica: None }
            }
        };
        let _ = to.send(said(What::Done(done))).await;
    }

    async fn carry_out(
        &mut self,
        volume: &str,
        what: Do,
    ) -> Result<Option<wire::ReplicaState>, (Code, String)> {
        let node = self.hello.node.clone();
        match what {
            Do::MakeReplica(make) => {
                let replica = wire::ReplicaState {
                    uuid: make.uuid.clone(),
                    name: make.name,
                    pool: make.pool,
                    size_bytes: make.size_bytes,
                    instance: 1,
                    online: true,
                    ..wire::ReplicaState::default()
                };
                let mut cluster = self.cluster.lock().unwrap();
                let mine = cluster.replicas.entry(node).or_default();
                return Ok(Some(mine.entry(make.uuid).or_insert(replica).clone()));
            }
            Do::DropReplica(drop) => {
                let mut cluster = self.cluster.lock().unwrap();
                cluster.replicas.entry(node).or_default().remove(&drop.uuid);
            }
            Do::TakeOver(take) => {
                let owner = uuid::Uuid::parse_str(&take.owner).unwrap().into_bytes();
                self.change(volume, |record| {
                    record.epoch += 1;
                    record.owner = owner;
                    record.unused = false;
                })
                .await?;
                let away = self.dead_members(volume).await?;
                if !away.is_empty() {
                    self.change(volume, |record| {
                        for slot in record.slots.iter_mut().flatten() {
                            if away.contains(&slot.uuid) {
                                slot.standing = Standing::Away { whole: false };
                            }
                        }
                    })
                    .await?;
                }
                self.path(volume, Access::Optimized, take.owner);
            }
            Do::HandOver(_) => {
                self.change(volume, |record| record.clean = true).await?;
                self.path(volume, Access::Inaccessible, String::new());
            }
            Do::Return(back) => {
                let replica = uuid::Uuid::parse_str(&back.replica).unwrap().into_bytes();
                self.change(volume, |record| {
                    let slot = record.slots.iter_mut().flatten().find(|r| r.uuid == replica);
                    slot.unwrap().standing = Standing::Member { instance: 1 };
                })
                .await?;
            }
            Do::Withdraw(_) => {
                self.inside.lock().unwrap().paths.remove(volume);
            }
            Do::Standby(_) => self.path(volume, Access::Inaccessible, String::new()),
            change => self.change_as_asked(volume, change).await?,
        }
        Ok(None)
    }

    /// What people asked to be different, and an owner alone can do.
    async fn change_as_asked(&mut self, volume: &str, what: Do) -> Result<(), (Code, String)> {
        match what {
            Do::AddMember(add) => {
                let uuid = bytes(&add.replica);
                self.change(volume, |record| {
                    let standing = Standing::Away { whole: true };
                    let free = record.slots.iter_mut().find(|slot| slot.is_none());
                    *free.unwrap() = Some(Replica { uuid, standing });
                })
                .await?;
            }
            Do::TakeOut(out) => {
                let uuid = bytes(&out.replica);
                self.change(volume, |record| {
                    let slot = record.slots.iter_mut().flatten().find(|r| r.uuid == uuid);
                    slot.unwrap().standing = Standing::Away { whole: false };
                })
                .await?;
            }
            Do::GiveUp(up) => {
                let uuid = bytes(&up.replica);
                self.change(volume, |record| {
                    let slot = record.slot_of(&uuid).unwrap();
                    assert!(record.instance(slot).is_none(), "a member is given up");
                    record.slots[usize::from(slot)] = None;
                })
                .await?;
            }
            Do::TakeSnapshot(take) => {
                let uuid = bytes(&take.uuid);
                self.change(volume, |record| {
                    let (holders, bytes) = (record.members(), record.bytes);
                    record.snapshots.push(Snapshot { uuid, holders, bytes });
                })
                .await?;
            }
            Do::DropSnapshot(drop) => {
                let uuid = bytes(&drop.uuid);
                self.change(volume, |record| record.snapshots.retain(|s| s.uuid != uuid)).await?;
            }
            Do::Resize(resize) => {
                self.change(volume, |record| record.bytes = record.bytes.max(resize.size_bytes))
                    .await?;
            }
            other => panic!("{other:?} is for another one"),
        }
        Ok(())
    }

    fn path(&self, volume: &str, access: Access, owner: String) {
        let path = wire::Path {
            volume: volume.into(),
            nqn: format!("nqn.2026-01.io.braid:{volume}"),
            access: access.into(),
            owner,
            ..wire::Path::default()
        };
        self.inside.lock().unwrap().paths.insert(volume.into(), path);
    }

    async fn fetch(&mut self, volume: &str) -> Result<Record, (Code, String)> {
        let request = wire::FetchRequest { volume: volume.into() };
        let fetched = self.membership.fetch(request).await;
        let fetched = fetched.map_err(|s| (s.code(), s.message().to_owned()))?.into_inner();
        Ok(Record::decode(&fetched.record).unwrap())
    }

    /// Changes the record as an owner does: until it is known what came of it.
    async fn change(
        &mut self,
        volume: &str,
        how: impl Fn(&mut Record),
    ) -> Result<(), (Code, String)> {
        let old = self.fetch(volume).await?;
        let mut new = *old.next();
        how(&mut new);
        let request =
            wire::SwapRequest { volume: volume.into(), old: old.encode(), new: new.encode() };
        let swapped = self.membership.swap(request).await;
        let swapped = swapped.map_err(|s| (s.code(), s.message().to_owned()))?.into_inner();
        if !swapped.committed {
            return Err((Code::Aborted, "another one owns it".into()));
        }
        self.copy(&new);
        Ok(())
    }

    /// Every member whose engine is alive gets a copy.
    fn copy(&self, record: &Record) {
        let mut cluster = self.cluster.lock().unwrap();
        let alive = cluster.alive.clone();
        for (node, replicas) in &mut cluster.replicas {
            for (uuid, replica) in replicas.iter_mut().filter(|_| alive.contains(node)) {
                let uuid = uuid::Uuid::parse_str(uuid).unwrap().into_bytes();
                if record.slot_of(&uuid).is_some_and(|slot| record.instance(slot).is_some()) {
                    replica.record = record.encode();
                    replica.fence = record.epoch;
                }
            }
        }
    }

    async fn dead_members(&mut self, volume: &str) -> Result<Vec<[u8; 16]>, (Code, String)> {
        let record = self.fetch(volume).await?;
        let cluster = self.cluster.lock().unwrap();
        let lives = |replica: &[u8; 16]| {
            let text = uuid::Uuid::from_bytes(*replica).to_string();
            let on = |node: &String| {
                cluster.replicas.get(node).is_some_and(|mine| mine.contains_key(&text))
            };
            cluster.alive.iter().any(on)
        };
        let members = record.slots.iter().flatten().filter(|replica| {
            matches!(replica.standing, Standing::Member { .. }) && !lives(&replica.uuid)
        });
        Ok(members.map(|replica| replica.uuid).collect())
    }
}

fn bytes(uuid: &str) -> [u8; 16] {
    uuid::Uuid::parse_str(uuid).unwrap().into_bytes()
}

fn said(what: What) -> wire::FromEngine {
    wire::FromEngine { what: Some(what) }
}
