//! Orders: those about replicas are carried out here, those about volumes are passed on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use braid_api::control as wire;
use braid_api::v1;
use braid_nexus::{Command, Uuid};
use braid_shard::SNAPSHOT_PREFIX;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::{Event, Figures, Order, Refused, report};
use crate::manage::host::Host;
use crate::manage::manager::Manager;
use crate::manage::names;

/// Ended orders that are remembered: what comes again after so many is done again, which is what
/// orders allow.
const REMEMBERED_MAX: usize = 1024;

/// The orders of this process.
#[derive(Debug)]
pub(super) struct Orders<H> {
    pub(super) manager: Arc<Manager<H>>,
    events: mpsc::Sender<Event>,
    figures: Arc<Figures>,
    /// Those that are known; None: in work.
    known: BTreeMap<Uuid, Option<wire::Done>>,
    /// Those that ended, oldest first.
    ended: VecDeque<Uuid>,
}

impl<H: Host> Orders<H> {
    pub(super) const fn new(
        manager: Arc<Manager<H>>,
        events: mpsc::Sender<Event>,
        figures: Arc<Figures>,
    ) -> Self {
        Self { manager, events, figures, known: BTreeMap::new(), ended: VecDeque::new() }
    }

    /// Something is to be done. The answer, if it is known; else it comes by `ends`.
    pub(super) fn take(
        &mut self,
        order: wire::Order,
        ends: &mpsc::Sender<wire::Done>,
    ) -> Option<wire::Done> {
        let Ok(Some(id)) = names::uuid(&order.id) else { return None };
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        self.figures.orders.fetch_add(1, Ordering::Relaxed);
        self.known.insert(id, None);
        tracing::info!(order = order.id, volume = order.volume, what = ?order.what, "an order");
        match self.begin(id, order, ends) {
            Ok(()) => None,
            Err(status) => self.ended(done(id, Err(status))),
        }
    }

    fn begin(
        &self,
        id: Uuid,
        order: wire::Order,
        ends: &mpsc::Sender<wire::Done>,
    ) -> Result<(), Status> {
        use wire::order::What;
        let volume = named("volume", &order.volume)?;
        let what = order.what.ok_or_else(|| Status::invalid_argument("an order says nothing"))?;
        let (manager, ends) = (Arc::clone(&self.manager), ends.clone());
        let what = match what {
            What::MakeReplica(make) => {
                tokio::spawn(async move {
                    let made = make_replica(&manager, make).await;
                    // The stream's end is the process's end.
                    let _ = ends.send(done(id, made.map(Some))).await;
                });
                return Ok(());
            }
            What::DropReplica(drop) => {
                tokio::spawn(async move {
                    let dropped = drop_replica(&manager, drop.uuid).await;
                    let _ = ends.send(done(id, dropped.map(|()| None))).await;
                });
                return Ok(());
            }
            What::TakeOver(take) => {
                Order::TakeOver { owner: named("owner", &take.owner)?, force: take.force }
            }
            What::HandOver(_) => Order::HandOver,
            What::Return(back) => Order::Return { replica: named("replica", &back.replica)? },
            What::Standby(_) => Order::Standby,
            What::Withdraw(_) => Order::Withdraw,
            What::Resize(resize) => Order::Owner(Command::Resize { bytes: resize.size_bytes }),
            What::AddMember(add) => {
                Order::Owner(Command::Add { replica: named("replica", &add.replica)? })
            }
            What::TakeOut(out) => {
                Order::Owner(Command::Exclude { replica: named("replica", &out.replica)? })
            }
            What::GiveUp(up) => {
                Order::Owner(Command::GiveUp { replica: named("replica", &up.replica)? })
            }
            What::TakeSnapshot(take) => {
                Order::Owner(Command::Snapshot { uuid: named("uuid", &take.uuid)? })
            }
            What::DropSnapshot(drop) => {
                Order::Owner(Command::DeleteSnapshot { uuid: named("uuid", &drop.uuid)? })
            }
        };
        self.events.try_send(Event::Order { order: id, volume, what }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => Status::unavailable("too many orders wait"),
                mpsc::error::TrySendError::Closed(_) => {
                    Status::unimplemented("this engine runs no volumes")
                }
            },
        )
    }

    /// An order ended: what is to be answered.
    pub(super) fn ended(&mut self, done: wire::Done) -> Option<wire::Done> {
        let Ok(Some(id)) = names::uuid(&done.id) else { return None };
        let known = self.known.get_mut(&id)?;
        if known.is_some() {
            return None;
        }
        if done.code != 0 {
            self.figures.orders_failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(order = done.id, reason = done.text, "an order is not carried out");
        }
        *known = Some(done.clone());
        self.ended.push_back(id);
        if self.ended.len() > REMEMBERED_MAX
            && let Some(oldest) = self.ended.pop_front()
        {
            self.known.remove(&oldest);
        }
        Some(done)
    }

    /// Where replicas and paths are: whoever runs volumes is told, if there is somebody.
    pub(super) fn topology(&self, topology: wire::Topology) {
        if let Err(mpsc::error::TrySendError::Full(_)) =
            self.events.try_send(Event::Topology(topology))
        {
            tracing::warn!("where replicas are is not passed on: too much waits");
        }
    }
}

/// How an order about a volume ended, as it is answered.
pub(super) fn answer(order: Uuid, result: Result<(), Refused>) -> wire::Done {
    done(order, result.map(|()| None).map_err(|refused| Status::new(refused.code, refused.text)))
}

fn done(id: Uuid, result: Result<Option<wire::ReplicaState>, Status>) -> wire::Done {
    let id = names::text(id);
    match result {
        Ok(replica) => wire::Done { id, code: 0, text: String::new(), replica },
        Err(status) => {
            let code = if status.code() == Code::Ok { Code::Internal } else { status.code() };
            wire::Done { id, code: code.into(), text: status.message().into(), replica: None }
        }
    }
}

fn named(what: &str, text: &str) -> Result<Uuid, Status> {
    let missing = || Status::invalid_argument(format!("{what} is missing"));
    names::uuid(text)?.ok_or_else(missing)
}

/// A replica goes, after the snapshots that its volume took of it: nobody else knows of them.
async fn drop_replica<H: Host>(manager: &Manager<H>, replica: String) -> Result<(), Status> {
    let of = v1::ListSnapshotsRequest { replica: replica.clone(), ..Default::default() };
    let snapshots = manager.list_snapshots(&of).await?.into_iter();
    for snapshot in snapshots.filter(|snapshot| snapshot.name.starts_with(SNAPSHOT_PREFIX)) {
        let v1::Snapshot { pool, uuid, .. } = snapshot;
        manager.destroy_snapshot(v1::DestroySnapshotRequest { pool, snapshot: uuid }).await?;
    }
    let request = v1::DestroyReplicaRequest { pool: String::new(), replica };
    manager.destroy_replica(request).await.map(drop)
}

async fn make_replica<H: Host>(
    manager: &Manager<H>,
    make: wire::MakeReplica,
) -> Result<wire::ReplicaState, Status> {
    let request = v1::CreateReplicaRequest {
        pool: make.pool,
        name: make.name,
        uuid: make.uuid,
        size_bytes: make.size_bytes,
        block_bytes: 0,
        thick: false,
    };
    manager.create_for_volume(request).await.map(|made| report::replica(made, true))
}
