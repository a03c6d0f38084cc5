//! The planner: sees nodes by what they tell it, appoints owners, brings replicas back. It is
//! often late, sometimes wrong: appoints another owner for no reason, or two at once.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_block::Instant;
use braid_nexus::recovery::{self, Recovery};
use braid_nexus::{Command, Ended, Failure, Note, Record, Uuid};

use super::clock::Clock;
use super::net::{Body, Kept, Net, Place, Standing};
use super::place::Sites;
use super::store::{Store, tell};
use crate::random::Random;

/// How the planner behaves.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// It does anything at all.
    pub awake: bool,
    /// Between two looks around.
    pub look: Duration,
    /// Between two signs of life of a node.
    pub beat: Duration,
    /// A node that was not heard of for so long is gone.
    pub silence: Duration,
    /// An owner that does not serve after so long is replaced.
    pub patience: Duration,
    /// After an appointment came to nothing it appoints another one within this, some time.
    pub again: Duration,
    /// One look in so many appoints another owner for no reason; 0: none.
    pub doubt_in: u64,
    /// Of these one in so many appoints two at once; 0: none.
    pub twice_in: u64,
    /// One look in so many moves an owner in order; 0: none.
    pub move_in: u64,
}

impl Default for Temper {
    fn default() -> Self {
        Self {
            awake: true,
            look: Duration::from_millis(250),
            beat: Duration::from_millis(250),
            silence: Duration::from_millis(1200),
            patience: Duration::from_secs(15),
            again: Duration::from_millis(800),
            doubt_in: 0,
            twice_in: 3,
            move_in: 0,
        }
    }
}

/// What was heard of a node.
#[derive(Debug)]
struct Heard {
    at: Instant,
    standings: Vec<Standing>,
    replicas: Vec<Kept>,
}

/// An appointment.
#[derive(Clone, Copy, Debug)]
struct Appointed {
    node: u8,
    owner: Uuid,
    at: Instant,
    tag: u64,
}

/// What is known of a volume.
#[derive(Debug, Default)]
struct Plan {
    appointed: Option<Appointed>,
    /// Not before: somebody failed just now.
    again: Instant,
    /// The store is older than what replicas know.
    stale: bool,
    /// When a return was asked for.
    returning: BTreeMap<Uuid, Instant>,
    /// An orderly move is on its way.
    leaving: Option<u64>,
}

/// The planner.
#[derive(Debug)]
pub(crate) struct Planner {
    pub(crate) temper: Temper,
    heard: BTreeMap<u8, Heard>,
    plans: Vec<Plan>,
    owners: u64,
    tags: u64,
    random: Random,
}

impl Planner {
    pub(crate) fn new(seed: u64, temper: Temper) -> Self {
        let (heard, plans) = (BTreeMap::new(), Vec::new());
        Self { temper, heard, plans, owners: 0, tags: 0, random: Random::part(seed, 21) }
    }

    /// A name of an owner that was never used.
    pub(crate) fn new_owner(&mut self) -> Uuid {
        self.owners += 1;
        let mut owner = [0x01; 16];
        owner[..8].copy_from_slice(&self.random.number().to_be_bytes());
        owner[8..].copy_from_slice(&self.owners.to_be_bytes());
        owner
    }

    /// Something came.
    pub(crate) fn take(&mut self, now: Instant, from: Place, body: Body) {
        let Place::Node(node) = from else { return };
        match body {
            Body::Beat { standings, replicas } => {
                self.heard.insert(node, Heard { at: now, standings, replicas });
            }
            Body::Noted { volume, note: Note::Lost | Note::Stopped { .. } } => {
                self.dismiss(now, volume, |appointed| appointed.node == node);
            }
            Body::Ended { volume, ended } => self.ended(now, volume, &ended),
            _ => {}
        }
    }

    fn ended(&mut self, now: Instant, volume: usize, ended: &Ended) {
        let Some(plan) = self.plans.get_mut(volume) else { return };
        if plan.leaving == Some(ended.tag) {
            plan.leaving = None;
            plan.appointed = None;
        }
        if let Err(failure) = &ended.result {
            plan.stale |= matches!(failure, Failure::StoreNotCurrent(_));
            self.dismiss(now, volume, |appointed| appointed.tag == ended.tag);
        }
    }

    /// An appointment came to nothing.
    fn dismiss(&mut self, now: Instant, volume: usize, which: impl Fn(&Appointed) -> bool) {
        let Some(plan) = self.plans.get_mut(volume) else { return };
        if plan.appointed.as_ref().is_some_and(which) {
            plan.appointed = None;
            let most = u64::try_from(self.temper.again.as_millis()).unwrap_or(u64::MAX).max(1);
            plan.again = now + Duration::from_millis(self.random.within(1, most));
        }
    }

    /// Looks around.
    pub(crate) fn look(
        &mut self,
        clock: &mut Clock,
        net: &mut Net,
        store: &mut Store,
        sites: &Sites,
    ) {
        self.plans.resize_with(sites.volumes.len(), Plan::default);
        if !self.temper.awake || !store.is_up() {
            return;
        }
        for volume in 0..self.plans.len() {
            if self.is_stale(clock.now(), store, sites, volume) {
                self.recover(clock, store, sites, volume);
                continue;
            }
            self.see_to_owner(clock, net, store, volume);
            self.see_to_replicas(clock, net, store, sites, volume);
        }
    }

    /// Whether the store's record is not one to be followed: it is of another store, replicas know
    /// more, or there is none.
    fn is_stale(&self, now: Instant, store: &Store, sites: &Sites, volume: usize) -> bool {
        let Some(record) = store.record(volume) else { return true };
        let member = |uuid: &Uuid| record.slot_of(uuid).and_then(|slot| record.instance(slot));
        let replicas = sites.volumes[volume].replicas.iter();
        let replicas = replicas.filter(|(uuid, _)| member(uuid).is_some());
        let copies = replicas
            .filter_map(|(uuid, _)| self.kept(now, uuid))
            .filter_map(|kept| kept.copy.as_ref());
        let from = record.recovered.map(|from| from.store);
        let follows = |copy: &Record| {
            let origin = copy.recovered.filter(|origin| origin.pending);
            let origins = [Some(copy.store), origin.map(|origin| origin.store)];
            copy.store == record.store || (from.is_some() && origins.contains(&from))
        };
        let renamed = copies.into_iter().any(|copy| !follows(copy));
        self.plans[volume].stale || record.store != store.id() || renamed
    }

    fn is_heard(&self, now: Instant, node: u8) -> bool {
        self.heard.get(&node).is_some_and(|heard| now.since(heard.at) < self.temper.silence)
    }

    fn standing(&self, node: u8, volume: usize) -> Standing {
        let heard = self.heard.get(&node);
        heard.and_then(|heard| heard.standings.get(volume)).copied().unwrap_or_default()
    }

    /// Appoints an owner if there is none, or just so.
    fn see_to_owner(&mut self, clock: &mut Clock, net: &mut Net, store: &Store, volume: usize) {
        let now = clock.now();
        if let Some(appointed) = self.plans[volume].appointed {
            let standing = self.standing(appointed.node, volume);
            let serves = standing.serving && standing.owner == appointed.owner;
            let gone = !self.is_heard(now, appointed.node);
            let late = !serves && now.since(appointed.at) > self.temper.patience;
            // An order that was late made another the owner, who is none any more.
            let usurped = serves && store.record(volume).is_some_and(|r| r.owner != standing.owner);
            if gone || late || usurped {
                clock.tell(|| {
                    let why = match (gone, late) {
                        (true, _) => "is gone",
                        (_, true) => "does not serve",
                        _ => "is not the owner that the record names",
                    };
                    format!("planner: n{} {why}, v{volume} needs an owner", appointed.node)
                });
                self.plans[volume].appointed = None;
            } else if serves && once_in(&mut self.random, self.temper.move_in) {
                let tag = self.order(clock, net, appointed.node, volume, Command::Shutdown);
                self.plans[volume].leaving = Some(tag);
            }
        }
        let doubt = once_in(&mut self.random, self.temper.doubt_in);
        let vacant = self.plans[volume].appointed.is_none() && now >= self.plans[volume].again;
        if vacant || doubt {
            self.appoint(clock, net, volume);
            if doubt && once_in(&mut self.random, self.temper.twice_in) {
                self.appoint(clock, net, volume);
            }
        }
    }

    fn appoint(&mut self, clock: &mut Clock, net: &mut Net, volume: usize) {
        let now = clock.now();
        let alive: Vec<u8> =
            self.heard.keys().copied().filter(|node| self.is_heard(now, *node)).collect();
        if alive.is_empty() {
            return;
        }
        let node = *self.random.pick(&alive);
        let owner = self.new_owner();
        let tag = self.order(clock, net, node, volume, Command::TakeOver { owner, force: false });
        self.plans[volume].appointed = Some(Appointed { node, owner, at: now, tag });
    }

    fn order(
        &mut self,
        clock: &mut Clock,
        net: &mut Net,
        node: u8,
        volume: usize,
        command: Command,
    ) -> u64 {
        self.tags += 1;
        let tag = self.tags;
        clock.tell(|| format!("planner: n{node} v{volume} shall {command:?}"));
        net.send(clock, Place::Planner, Place::Node(node), Body::Order { volume, tag, command });
        tag
    }

    /// Asks for returns of replicas that are away and were heard of, and names those that are not
    /// named.
    fn see_to_replicas(
        &mut self,
        clock: &mut Clock,
        net: &mut Net,
        store: &Store,
        sites: &Sites,
        volume: usize,
    ) {
        let now = clock.now();
        let Some(appointed) = self.plans[volume].appointed else { return };
        let standing = self.standing(appointed.node, volume);
        let Some(record) = store.record(volume) else { return };
        if !standing.serving || standing.owner != record.owner {
            return;
        }
        for (replica, _) in sites.volumes[volume].replicas.iter().copied() {
            let command = match record.slot_of(&replica) {
                Some(slot) if record.instance(slot).is_some() => continue,
                Some(_) => Command::Return { replica },
                None => Command::Add { replica },
            };
            let asked = self.plans[volume].returning.get(&replica).copied();
            let pause = Duration::from_millis(self.random.within(1000, 5000));
            let due = asked.is_none_or(|asked| now.since(asked) > pause);
            if due && self.kept(now, &replica).is_some() {
                self.plans[volume].returning.insert(replica, now);
                self.order(clock, net, appointed.node, volume, command);
            }
        }
    }

    /// What a replica keeps, if it was heard of.
    fn kept(&self, now: Instant, replica: &Uuid) -> Option<&Kept> {
        let recent = self.heard.values().filter(|heard| now.since(heard.at) < self.temper.silence);
        recent.flat_map(|heard| &heard.replicas).find(|kept| kept.uuid == *replica)
    }

    /// Makes a volume's record of the copies that were heard of, if that can be done.
    fn recover(&mut self, clock: &Clock, store: &mut Store, sites: &Sites, volume: usize) {
        let now = clock.now();
        let site = &sites.volumes[volume];
        let kept = site.replicas.iter().filter_map(|(uuid, _)| self.kept(now, uuid));
        let heard: Vec<recovery::Heard<'_>> = kept
            .map(|kept| recovery::Heard {
                replica: kept.uuid,
                fence: kept.epoch,
                copy: kept.copy.as_deref(),
            })
            .collect();
        let stored = store.record(volume);
        let found = recovery::recover(&site.uuid, &store.id(), stored, &heard, false);
        let record = match found {
            Recovery::Recovered(record) => record,
            Recovery::Current => {
                self.plans[volume].stale = false;
                return;
            }
            Recovery::Waiting { missing, newest } => {
                return clock.tell(|| {
                    let missing = missing.iter().map(|uuid| format!("{:02x}", uuid[1]));
                    let missing: Vec<String> = missing.collect();
                    format!("planner: v{volume} waits for replicas {missing:?} to be {newest:?}")
                });
            }
            Recovery::Unknown => {
                return clock.tell(|| format!("planner: nobody knows of v{volume}"));
            }
        };
        clock.tell(|| format!("planner: v{volume} is recovered: {}", tell(&record)));
        store.put(volume, *record);
        self.plans[volume] = Plan::default();
    }
}

fn once_in(random: &mut Random, of: u64) -> bool {
    of != 0 && random.once_in(of)
}
