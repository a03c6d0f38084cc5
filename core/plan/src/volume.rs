//! What is to be done about one volume.

use alloc::vec::Vec;

use braid_block::Instant;

use crate::desired::{Asked, Desired, Stay, Volume};
use crate::ledger::{Ledger, PATIENCE};
use crate::observed::{Observed, Part, Record, SETTLE};
use crate::{Action, Step, Uuid};

/// A volume, and everything that is known about it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) uuid: &'a Uuid,
    pub(crate) wanted: &'a Volume,
    pub(crate) observed: &'a Observed,
    pub(crate) now: Instant,
}

/// Who serves a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// This engine.
    Served(Uuid),
    /// Nobody yet: it is to be waited for.
    Pending,
    /// Nobody, and an owner is needed. This engine failed to be one.
    Vacant(Option<Uuid>),
}

/// What is to be done about a volume.
pub(crate) fn next(
    uuid: &Uuid,
    wanted: &Volume,
    observed: &Observed,
    now: Instant,
) -> Option<Action> {
    let view = View { uuid, wanted, observed, now };
    let step = if wanted.deleting { view.delete() } else { view.keep() };
    step.map(|step| Action { volume: *uuid, step })
}

/// Ends the parts that engines have in volumes that are not there.
pub(crate) fn orphans(desired: &Desired, observed: &Observed, now: Instant) -> Vec<Action> {
    let mut actions: Vec<Action> = Vec::new();
    let reached = observed.engines.iter().filter(|(engine, _)| observed.is_reached(engine, now));
    for (engine, seen) in reached {
        for uuid in seen.parts.keys().filter(|uuid| !desired.volumes.contains_key(*uuid)) {
            let idle = observed
                .ledgers
                .get(uuid)
                .is_none_or(|ledger| ledger.in_flight().is_none() && ledger.may_care(now));
            let first = actions.iter().all(|action| action.volume != *uuid);
            // A volume that is being made has no part, but has a record soon.
            if idle && first && !observed.records.contains_key(uuid) {
                actions.push(Action { volume: *uuid, step: Step::Withdraw { engine: *engine } });
            }
        }
    }
    actions
}

impl<'a> View<'a> {
    pub(crate) fn ledger(&self) -> Option<&'a Ledger> {
        self.observed.ledgers.get(self.uuid)
    }

    pub(crate) fn record(&self) -> Option<&'a Record> {
        self.observed.records.get(self.uuid)
    }

    fn flight(&self) -> Option<Step> {
        self.ledger().and_then(Ledger::in_flight)
    }

    fn is_alive(&self, engine: &Uuid) -> bool {
        self.observed.is_alive(engine, self.now)
    }

    /// Engines that an order reaches.
    fn reached(&self) -> impl Iterator<Item = &'a Uuid> {
        let (observed, now) = (self.observed, self.now);
        observed.engines.keys().filter(move |engine| observed.is_reached(engine, now))
    }

    /// Keeps a volume served, whole and with a way to fail over.
    fn keep(&self) -> Option<Step> {
        let record = self.record().filter(|record| !record.stale)?;
        if self.flight().is_some_and(|step| step.is_ownership()) {
            return None;
        }
        let asked = self.asked();
        match (self.ownership(record), asked) {
            (Ownership::Pending, _) => None,
            (Ownership::Vacant(failed), _) => self.appoint(failed, asked),
            (Ownership::Served(engine), Some(asked)) => self.replace(engine, asked),
            (Ownership::Served(engine), None) => {
                self.leave(engine).or_else(|| self.care(record, engine))
            }
        }
    }

    fn is_settling(&self) -> bool {
        self.now.since(self.observed.awake) <= SETTLE
    }

    fn has_left(&self) -> bool {
        self.ledger().is_some_and(Ledger::has_left)
    }

    /// What an operator asked for and did not get yet.
    fn asked(&self) -> Option<Asked> {
        let answered = self.ledger().map_or(0, Ledger::answered);
        self.wanted.asked.filter(|asked| asked.number > answered)
    }

    /// Who serves.
    pub(crate) fn ownership(&self, record: &Record) -> Ownership {
        let Some(owner) = record.owner else { return self.unclaimed() };
        let engines = self.observed.engines.keys();
        let mut parts = engines.filter_map(|e| Some((e, self.observed.part(e, self.uuid)?)));
        if let Some((engine, part)) = parts.find(|(_, part)| part.owner == Some(owner)) {
            let waits = self.now.since(part.since.max(self.observed.awake)) <= PATIENCE;
            return match (self.is_alive(engine), part.serving) {
                (true, true) => Ownership::Served(*engine),
                (true, false) if waits => Ownership::Pending,
                _ => self.unclaimed_but(*engine),
            };
        }
        match self.unclaimed() {
            // Whoever serves may not have been heard yet, unless he told us that he left.
            Ownership::Vacant(_) if self.is_settling() && !self.has_left() => Ownership::Pending,
            other => other,
        }
    }

    /// The owner that the record names does not serve: the one who is appointed may do so soon.
    fn unclaimed(&self) -> Ownership {
        let Some(appointed) = self.ledger().and_then(Ledger::appointment) else {
            return Ownership::Vacant(self.ledger().and_then(Ledger::shunned));
        };
        let engine = &appointed.engine;
        if !self.is_alive(engine) {
            let unheard = !self.observed.engines.contains_key(engine);
            return if unheard && self.is_settling() {
                Ownership::Pending
            } else {
                Ownership::Vacant(None)
            };
        }
        let at_it = |part: &&Part| {
            let waits = self.now.since(part.since.max(self.observed.awake)) <= PATIENCE;
            part.owner == Some(appointed.owner) && waits
        };
        match self.observed.part(engine, self.uuid).filter(at_it) {
            Some(_) => Ownership::Pending,
            None => Ownership::Vacant(Some(*engine)),
        }
    }

    /// As that, if it is not this one's own appointment that ended.
    fn unclaimed_but(&self, engine: Uuid) -> Ownership {
        let another = self.ledger().and_then(Ledger::appointment).filter(|appointed| {
            let owner = self.observed.part(&engine, self.uuid).and_then(|part| part.owner);
            Some(appointed.owner) != owner
        });
        if another.is_some() { self.unclaimed() } else { Ownership::Vacant(Some(engine)) }
    }

    /// Appoints the engine that is best.
    fn appoint(&self, failed: Option<Uuid>, asked: Option<Asked>) -> Option<Step> {
        if !self.ledger().is_none_or(|ledger| ledger.may_appoint(self.now)) {
            return None;
        }
        let engine = self.candidate(failed, asked.and_then(|asked| asked.engine))?;
        let meant = asked.filter(|asked| asked.engine.is_none_or(|meant| meant == engine));
        let force = meant.is_some_and(|asked| asked.force);
        Some(Step::TakeOver { engine, force, asked: meant.map(|asked| asked.number) })
    }

    /// Replaces an owner that serves, because somebody asks.
    fn replace(&self, serving: Uuid, asked: Asked) -> Option<Step> {
        if !self.ledger().is_none_or(|ledger| ledger.may_appoint(self.now)) {
            return None;
        }
        let others = self.candidate(Some(serving), asked.engine).filter(|e| *e != serving);
        let meant = others.filter(|other| asked.engine.is_none_or(|meant| meant == *other))?;
        let number = asked.number;
        if asked.orderly {
            let idle = self.flight().is_none();
            return idle.then_some(Step::HandOver { engine: serving, asked: Some(number) });
        }
        Some(Step::TakeOver { engine: meant, force: asked.force, asked: Some(number) })
    }

    /// Replaces an owner whose engine stops, if somebody else can serve.
    fn leave(&self, serving: Uuid) -> Option<Step> {
        let leaving = self.observed.engines.get(&serving).is_some_and(|engine| engine.leaving);
        let may = self.ledger().is_none_or(|ledger| ledger.may_appoint(self.now));
        let reached = self.observed.is_reached(&serving, self.now);
        if !leaving || !may || self.flight().is_some() || !reached {
            return None;
        }
        self.candidate(Some(serving), None)?;
        Some(Step::HandOver { engine: serving, asked: None })
    }

    /// Engines that may be given a part that lasts.
    fn fit(&self) -> impl Iterator<Item = &'a Uuid> {
        let (observed, now) = (self.observed, self.now);
        observed.engines.keys().filter(move |engine| observed.is_fit(engine, now))
    }

    /// The engine to serve: the one that is meant, one that did not just fail, one that hosts have
    /// a path to, one that has a member, one that has any replica.
    fn candidate(&self, failed: Option<Uuid>, meant: Option<Uuid>) -> Option<Uuid> {
        let has = |engine: &Uuid, member: bool| {
            let members = self.record().map_or(&[][..], |record| &record.members);
            let on = self.wanted.replicas.iter().filter(|replica| replica.engine == *engine);
            on.into_iter().any(|replica| !member || members.contains(&replica.uuid))
        };
        let rank = |engine: &&Uuid| {
            let worse = |better: bool| !better;
            (
                worse(meant == Some(**engine)),
                failed == Some(**engine),
                worse(self.observed.part(engine, self.uuid).is_some()),
                worse(has(engine, true)),
                worse(has(engine, false)),
            )
        };
        self.fit().min_by_key(rank).copied()
    }

    /// Makes a served volume whole, and gives it a standby; then makes it what people asked for.
    fn care(&self, record: &Record, serving: Uuid) -> Option<Step> {
        if self.flight().is_some() {
            return None;
        }
        let may = self.ledger().is_none_or(|ledger| ledger.may_care(self.now));
        let whole = || self.comeback(record, serving).or_else(|| self.standby(serving));
        may.then(whole).flatten().or_else(|| self.change(record, serving))
    }

    /// Asks for a replica that is there and does not come back yet. While another one comes back,
    /// too: the owner alone knows which of them lacks little, and goes first.
    fn comeback(&self, record: &Record, serving: Uuid) -> Option<Step> {
        let part = self.observed.part(&serving, self.uuid)?;
        if !self.observed.is_reached(&serving, self.now) {
            return None;
        }
        let behind = part.returning.is_some();
        let may = |replica: &&Uuid| {
            let comes = part.returning == Some(**replica);
            let may = |ledger: &Ledger| ledger.may_return(replica, behind, self.now);
            !comes && self.ledger().is_none_or(may)
        };
        let back = |uuid: &&Uuid| {
            self.wanted.replicas.iter().any(|replica| {
                let engine = self.observed.engines.get(&replica.engine);
                replica.uuid == **uuid
                    && replica.stay == Stay::Stays
                    && self.is_alive(&replica.engine)
                    && engine.is_some_and(|engine| engine.replicas.contains(*uuid))
            })
        };
        let replica = record.away.iter().filter(may).find(back)?;
        Some(Step::Return { engine: serving, replica: *replica })
    }

    fn standby(&self, serving: Uuid) -> Option<Step> {
        if self.standbys(serving) >= self.wanted.standbys {
            return None;
        }
        let free =
            |engine: &&Uuid| **engine != serving && self.observed.part(engine, self.uuid).is_none();
        let far =
            |engine: &&Uuid| !self.wanted.replicas.iter().any(|replica| replica.engine == **engine);
        let engine = self.fit().filter(free).min_by_key(far)?;
        Some(Step::Standby { engine: *engine })
    }

    /// Engines that stand by.
    pub(crate) fn standbys(&self, serving: Uuid) -> usize {
        let engines = self.observed.engines.keys().filter(|engine| **engine != serving);
        let leaving = |engine: &Uuid| self.observed.engines.get(engine).is_some_and(|e| e.leaving);
        let alive = engines.filter(|engine| self.is_alive(engine) && !leaving(engine));
        alive.filter(|engine| self.observed.part(engine, self.uuid).is_some()).count()
    }

    /// Takes a volume away: paths, then replicas, then the record. A replica that cannot be
    /// destroyed now holds up none of the others.
    fn delete(&self) -> Option<Step> {
        if self.flight().is_some() {
            return None;
        }
        let may = self.ledger().is_none_or(|ledger| ledger.may_care(self.now));
        let mut reached = self.reached();
        let parts = reached.find(|engine| self.observed.part(engine, self.uuid).is_some());
        if let Some(engine) = parts {
            return may.then_some(Step::Withdraw { engine: *engine });
        }
        let dropped = |uuid| self.ledger().is_some_and(|ledger| ledger.is_dropped(uuid));
        let left = self.wanted.replicas.iter().filter(|replica| !dropped(&replica.uuid));
        let mut left = left
            .map(|replica| Step::DropReplica { engine: replica.engine, replica: replica.uuid })
            .peekable();
        if left.peek().is_none() {
            return may.then_some(Step::Forget);
        }
        // An engine that is away has its part to do when it is back.
        left.find(|step| self.may_try(step))
    }
}
