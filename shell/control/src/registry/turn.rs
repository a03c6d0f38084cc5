//! The supervisor's turn: look, plan, tell engines what they have to know, begin what is planned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use braid_api::control as wire;
use braid_nexus::Uuid;
use braid_plan::{Action, Alert, Desired, Replica, Step, Volume, alerts, plan};
use tokio::time::{MissedTickBehavior, interval};

use super::{Control, Inside, Sent, is_planned, words};
use crate::identity;
use crate::store::{Appointed, Change, SnapshotStage, Stage, State, Stay, random};

/// Between two turns.
const TURN: Duration = Duration::from_millis(100);
/// A turn that is so late says that this process was stopped: nobody is blamed for a silence.
const PAUSE: Duration = Duration::from_millis(600);

/// Plans until the process ends.
pub async fn supervise(control: Arc<Control>) {
    let mut ticks = interval(TURN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = control.now();
    loop {
        ticks.tick().await;
        let now = control.now();
        if now.since(last) > PAUSE {
            tracing::warn!(paused = ?now.since(last), "this process was stopped for a while");
            control.inside().observed.awake = now;
        }
        last = now;
        control.turn();
    }
}

impl Control {
    /// One turn.
    fn turn(self: &Arc<Self>) {
        let now = self.now();
        let mut inside = self.inside();
        let (actions, told) = self.store.read(|state| {
            inside.find_stale(state);
            inside.observed.records = records(state, &inside);
            inside.observed.settle(now);
            self.drop_late(&mut inside);
            let desired = inside.desired(state);
            let actions = plan(&desired, &inside.observed, now);
            let told = inside.changed_alerts(&desired, now);
            for action in &actions {
                inside.begin(action, now);
            }
            inside.tell_topology(state);
            (actions, told)
        });
        let notes: Vec<_> = actions
            .iter()
            .filter(|action| !matches!(action.step, Step::Forget | Step::End { .. }))
            // A history that only says how often something was tried says nothing.
            .filter(|action| inside.refusal(&action.volume, |s| *s == action.step).is_none())
            .map(|action| (action.volume, words(&inside, &action.step)))
            .collect();
        drop(inside);
        for (volume, text) in told.into_iter().chain(notes) {
            self.tell(&volume, text);
        }
        for action in actions {
            self.carry_out(action);
        }
    }

    /// Orders that nobody waits for any more.
    fn drop_late(&self, inside: &mut Inside) {
        let Inside { observed, flights, orders, failures, .. } = inside;
        flights.retain(|volume, order| {
            let ledger = observed.ledgers.get(volume);
            let waits = ledger.is_some_and(|ledger| ledger.in_flight().is_some());
            if !waits {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                orders.remove(order);
                failures.insert(*volume, "the engine did not answer in time".into());
            }
            waits
        });
    }

    /// Sends an order; what must be remembered first is committed first.
    fn carry_out(self: &Arc<Self>, Action { volume, step }: Action) {
        self.counters.orders.fetch_add(1, Ordering::Relaxed);
        match step {
            Step::TakeOver { engine, force, .. } => {
                self.counters.take_overs.fetch_add(1, Ordering::Relaxed);
                let (control, appointed) = (Arc::clone(self), self.inside().appointed(&volume));
                let Some(owner) = appointed else { return };
                tokio::spawn(async move {
                    let appointed = Appointed { engine, owner };
                    let kept = control.store.change(Change::Appoint { volume, appointed }).await;
                    let order = wire::TakeOver { owner: identity::text(&owner), force };
                    let what = wire::order::What::TakeOver(order);
                    let still = control.inside().appointed(&volume) == Some(owner);
                    match kept {
                        Ok(_) if still => control.send(volume, step, what),
                        Ok(_) => {}
                        Err(_) => control.fail(volume, step, "the store cannot be written"),
                    }
                });
            }
            Step::HandOver { .. } => {
                self.send(volume, step, wire::order::What::HandOver(wire::HandOver {}));
            }
            Step::Return { replica, .. } => {
                let replica = identity::text(&replica);
                self.send(volume, step, wire::order::What::Return(wire::Return { replica }));
            }
            Step::Standby { .. } => {
                self.send(volume, step, wire::order::What::Standby(wire::Standby {}));
            }
            Step::Withdraw { .. } => {
                self.send(volume, step, wire::order::What::Withdraw(wire::Withdraw {}));
            }
            Step::DropReplica { replica, .. } => {
                let uuid = identity::text(&replica);
                let what = wire::order::What::DropReplica(wire::DropReplica { uuid });
                self.send(volume, step, what);
            }
            Step::Unlist { replica } => self.unlist(volume, replica),
            Step::End { wish } => self.end(volume, wish),
            Step::Forget => self.forget(volume),
            Step::Resize { .. }
            | Step::MakeReplica { .. }
            | Step::AddMember { .. }
            | Step::TakeOut { .. }
            | Step::GiveUp { .. }
            | Step::TakeSnapshot { .. }
            | Step::DropSnapshot { .. } => {
                if let Some(what) = self.change(&volume, &step) {
                    self.send(volume, step, what);
                }
            }
        }
    }

    fn send(&self, volume: Uuid, step: Step, what: wire::order::What) {
        let (Some(engine), Ok(id)) = (step.engine(), random()) else { return };
        let order = wire::Order {
            id: identity::text(&id),
            volume: identity::text(&volume),
            what: Some(what),
        };
        let mut inside = self.inside();
        // Something else may have come in its place while the store was written.
        if inside.ledger(volume).in_flight() != Some(step) {
            return;
        }
        inside.flights.insert(volume, id);
        if inside.send(Sent { engine, volume, order, waiter: None }).is_err() {
            inside.orders.remove(&id);
            inside.flights.remove(&volume);
            drop(inside);
            self.fail(volume, step, "the engine is not connected");
        }
    }

    pub(super) fn fail(&self, volume: Uuid, step: Step, why: &str) {
        let now = self.now();
        let mut inside = self.inside();
        if inside.ledger(volume).in_flight() == Some(step) {
            inside.ledger(volume).failed(now);
            inside.failures.insert(volume, why.into());
        }
    }

    fn forget(self: &Arc<Self>, volume: Uuid) {
        let control = Arc::clone(self);
        tokio::spawn(async move {
            let forgotten = control.store.change(Change::Forget { volume }).await;
            if forgotten.is_err() {
                return control.fail(volume, Step::Forget, "the store cannot be written");
            }
            tracing::info!(volume = identity::text(&volume), "it is deleted");
            let mut inside = control.inside();
            inside.observed.ledgers.remove(&volume);
            inside.asked.remove(&volume);
            inside.failures.remove(&volume);
            inside.refusals.remove(&volume);
            inside.alerts.remove(&volume);
            inside.stale.remove(&volume);
        });
    }
}

impl Inside {
    /// What is wanted.
    fn desired(&self, state: &State) -> Desired {
        let planned = state.volumes.iter().filter(|(_, volume)| is_planned(volume.spec.stage));
        let wanted = planned.map(|(uuid, volume)| (*uuid, self.wanted(uuid, volume)));
        Desired { volumes: wanted.collect() }
    }

    /// What is wanted of a volume.
    pub(crate) fn wanted(&self, uuid: &Uuid, volume: &crate::store::Volume) -> Volume {
        let places = &volume.spec.places;
        let replica = |place: &crate::store::Place| Replica {
            uuid: place.replica,
            engine: place.engine,
            stay: match place.stay {
                Stay::Stays => braid_plan::Stay::Stays,
                Stay::Leaves => braid_plan::Stay::Leaves,
                Stay::Forgotten => braid_plan::Stay::Forgotten,
            },
        };
        let snapshots = volume.spec.snapshots.iter().filter_map(|snapshot| {
            let goes = match snapshot.stage {
                SnapshotStage::Taken => return None,
                SnapshotStage::Wanted => false,
                SnapshotStage::Goes => true,
            };
            Some(braid_plan::Snapshot { uuid: snapshot.uuid, goes })
        });
        Volume {
            snapshots: snapshots.collect(),
            replicas: places.iter().map(replica).collect(),
            standbys: volume.spec.standbys as usize,
            bytes: volume.spec.bytes,
            deleting: volume.spec.stage == Stage::Deleting,
            asked: self.asked.get(uuid).copied(),
        }
    }

    fn begin(&mut self, action: &Action, now: braid_block::Instant) {
        let owner = action.step.is_appointment().then(|| self.owners.name());
        // What it displaces is waited for no more.
        if let Some(order) = self.flights.remove(&action.volume) {
            self.orders.remove(&order);
        }
        self.ledger(action.volume).begun(now, action.step, owner);
    }

    /// The owner whose appointment is in flight.
    fn appointed(&mut self, volume: &Uuid) -> Option<Uuid> {
        let ledger = self.ledger(*volume);
        let in_flight = ledger.in_flight().is_some_and(|step| step.is_appointment());
        ledger.appointed().filter(|_| in_flight).map(|(_, owner)| owner)
    }

    fn changed_alerts(
        &mut self,
        desired: &Desired,
        now: braid_block::Instant,
    ) -> Vec<(Uuid, String)> {
        let mut told = Vec::new();
        for (uuid, wanted) in &desired.volumes {
            let text = tell(&alerts(uuid, wanted, &self.observed, now)).join("; ");
            let before = self.alerts.entry(*uuid).or_default();
            if *before != text {
                let shown = if text.is_empty() { "all is well".into() } else { text.clone() };
                told.push((*uuid, shown));
                *before = text;
            }
        }
        told
    }
}

/// Alerts in words.
pub(crate) fn tell(alerts: &[Alert]) -> Vec<String> {
    let one = |alert: &Alert| match alert {
        Alert::NoOwner => "no engine serves it".into(),
        Alert::NoStandby => "no standby path".into(),
        Alert::Degraded { members, of } => format!("degraded: {members} of {of} replicas"),
        Alert::NotCurrent => "the store is older than its replicas: recover it".into(),
        Alert::Leaving => "a replica that was taken out waits for its engine".into(),
        Alert::Waiting => "its deletion waits for engines that are not connected".into(),
    };
    alerts.iter().map(one).collect()
}

fn records(state: &State, inside: &Inside) -> BTreeMap<Uuid, braid_plan::Record> {
    let seen = state.volumes.iter().filter_map(|(uuid, volume)| {
        let record = volume.record.as_ref()?;
        let replicas = |mask: u8| {
            let slots = (0..8).filter(move |slot| mask >> slot & 1 == 1);
            slots.filter_map(|slot| record.replica(slot).map(|replica| replica.uuid)).collect()
        };
        let stale = record.store != state.id || inside.stale.contains(uuid);
        let owner = (record.owner != [0; 16]).then_some(record.owner);
        let snapshots = record.snapshots.iter().map(|snapshot| snapshot.uuid).collect();
        let (members, away) = (replicas(record.members()), replicas(record.away()));
        let bytes = record.bytes;
        Some((*uuid, braid_plan::Record { owner, bytes, members, away, snapshots, stale }))
    });
    seen.collect()
}
