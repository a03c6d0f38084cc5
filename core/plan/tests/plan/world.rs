//! A model of engines, of what they report and of the shell that carries actions out. What the
//! planner is told comes late and gets lost; what is true is kept beside it, for the checks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use braid_block::Instant;
use braid_plan::{
    ACTIONS_MAX, Action, Asked, Desired, Engine, Ledger, Line, Observed, Owners, Part, Record,
    Replica, Stay, Step, Uuid, Volume, Wish, alerts, plan,
};

/// Between two turns.
pub(crate) const TURN: Duration = Duration::from_millis(100);
/// Between two heartbeats.
const BEAT: Duration = Duration::from_millis(500);

/// An identity by its letter.
pub(crate) const fn id(letter: char) -> Uuid {
    [letter as u8; 16]
}

pub(crate) fn letter(uuid: &Uuid) -> char {
    char::from(uuid[0])
}

/// How an engine is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) alive: bool,
    /// The control plane hears it.
    pub(crate) heard: bool,
    /// Orders are not carried out, and not answered.
    pub(crate) deaf: bool,
    /// Orders fail.
    pub(crate) fails: bool,
    /// Orders are refused, and always will be.
    pub(crate) refuses: bool,
    /// It was told to stop.
    pub(crate) leaving: bool,
    /// It says that it withdrew, and does not.
    pub(crate) clings: bool,
    /// Which process this is.
    process: u64,
    parts: BTreeMap<Uuid, Part>,
    /// Since when all of that is so.
    well_since: Instant,
}

/// The truth about a volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) owner: Option<Uuid>,
    pub(crate) bytes: u64,
    /// No member has space for more than this.
    pub(crate) space: Option<u64>,
    pub(crate) members: BTreeSet<Uuid>,
    pub(crate) away: BTreeSet<Uuid>,
    pub(crate) snapshots: BTreeSet<Uuid>,
    /// Replicas that take for ever to come back.
    pub(crate) slow: BTreeSet<Uuid>,
    /// Replicas that are in a pool.
    made: BTreeSet<Uuid>,
    pub(crate) stale: bool,
}

/// An order, or its answer, on its way.
#[derive(Clone, Debug)]
struct Mail {
    at: Instant,
    number: u64,
    volume: Uuid,
    step: Step,
    owner: Option<Uuid>,
    process: u64,
    /// None: the order; else its answer.
    answer: Option<bool>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) nodes: BTreeMap<Uuid, Node>,
    pub(crate) truth: BTreeMap<Uuid, Truth>,
    owners: Owners,
    runs: u8,
    names: BTreeSet<Uuid>,
    mail: Vec<Mail>,
    /// What is in flight, by volume.
    flights: BTreeMap<Uuid, u64>,
    numbers: u64,
    beat: Instant,
    /// The control plane is stopped until then.
    pub(crate) paused: Instant,
    /// How long mail takes, and one in so many is lost (0: none): a dice decides.
    pub(crate) dice: Option<super::random::Dice>,
    pub(crate) begun: Vec<(Instant, Uuid)>,
    pub(crate) log: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000_000);
        Self {
            now,
            desired: Desired::default(),
            observed: Observed { awake: now, ..Observed::default() },
            nodes: BTreeMap::new(),
            truth: BTreeMap::new(),
            owners: Owners::new([0; 8]),
            runs: 0,
            names: BTreeSet::new(),
            mail: Vec::new(),
            flights: BTreeMap::new(),
            numbers: 0,
            beat: now,
            paused: now,
            dice: None,
            begun: Vec::new(),
            log: Vec::new(),
        }
    }

    /// A volume with a replica on each of these engines: `a` has `A`, and so on.
    pub(crate) fn add_volume(&mut self, volume: char, engines: &str, standbys: usize) {
        let replicas: Vec<Replica> = engines.chars().map(|engine| place(volume, engine)).collect();
        let members: BTreeSet<Uuid> = replicas.iter().map(|replica| replica.uuid).collect();
        let made = members.clone();
        self.truth.insert(id(volume), Truth { members, made, ..Truth::default() });
        let wanted = Volume { replicas, standbys, ..Volume::default() };
        self.desired.volumes.insert(id(volume), wanted);
    }

    pub(crate) fn start(&mut self, engine: char) {
        let node = self.nodes.entry(id(engine)).or_default();
        if !node.alive {
            let process = node.process + 1;
            let well_since = self.now;
            *node = Node { alive: true, heard: true, process, well_since, ..Node::default() };
            self.restarted(&id(engine));
        }
    }

    /// The shell sees another process: what is in flight at the old one is lost.
    fn restarted(&mut self, engine: &Uuid) {
        for (volume, ledger) in &mut self.observed.ledgers {
            if ledger.in_flight().and_then(|step| step.engine()) == Some(*engine) {
                ledger.failed(self.now);
                self.flights.remove(volume);
            }
        }
    }

    pub(crate) fn kill(&mut self, engine: char, refused: bool) {
        let node = self.nodes.entry(id(engine)).or_default();
        node.alive = false;
        node.parts.clear();
        if node.heard
            && let Some(seen) = self.observed.engines.get_mut(&id(engine))
        {
            seen.line = Line::Broken { since: self.now, refused };
        }
    }

    /// The connection of an engine breaks; it makes another one with its next report.
    pub(crate) fn sever(&mut self, engine: char) {
        if let Some(seen) = self.observed.engines.get_mut(&id(engine)) {
            seen.line = Line::Broken { since: self.now, refused: false };
        }
    }

    /// The control plane does not hear an engine any more, or does again.
    pub(crate) fn cut(&mut self, engine: char, heard: bool) {
        let node = self.nodes.entry(id(engine)).or_default();
        node.heard = heard;
        node.well_since = self.now;
    }

    /// The control plane ends and begins again.
    pub(crate) fn restart(&mut self) {
        let remembered = self.observed.ledgers.iter().filter_map(|(volume, ledger)| {
            let (engine, owner) = ledger.appointed()?;
            Some((*volume, Ledger::remembered(engine, owner)))
        });
        let ledgers = remembered.collect();
        self.observed = Observed { awake: self.now, ledgers, ..Observed::default() };
        self.flights.clear();
        self.runs += 1;
        self.owners = Owners::new([self.runs; 8]);
    }

    pub(crate) fn ask(&mut self, volume: char, mut asked: Asked) {
        let ledger = self.observed.ledgers.entry(id(volume)).or_default();
        let wanted = self.desired.volumes.get_mut(&id(volume)).unwrap();
        let before = wanted.asked.map_or(0, |asked| asked.number).max(ledger.answered());
        asked.number = before + 1;
        wanted.asked = Some(asked);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.turn();
        }
    }

    pub(crate) fn alerts(&self, volume: char) -> String {
        let wanted = &self.desired.volumes[&id(volume)];
        format!("{:?}", alerts(&id(volume), wanted, &self.observed, self.now))
    }

    /// Time goes on, engines report, mail arrives, the planner plans.
    pub(crate) fn turn(&mut self) {
        self.now = self.now + TURN;
        if self.paused > self.now {
            return;
        }
        if self.now >= self.beat {
            self.beat = self.now + BEAT;
            self.report();
        }
        self.deliver();
        self.observed.settle(self.now);
        let mut seen = BTreeSet::new();
        let actions = plan(&self.desired, &self.observed, self.now);
        assert!(actions.len() <= ACTIONS_MAX);
        for action in actions {
            assert!(seen.insert(action.volume), "two actions at once: {action:?}");
            self.begin(&action);
        }
        self.observed.records = self.records();
    }

    fn report(&mut self) {
        for (uuid, node) in self.nodes.iter_mut().filter(|(_, node)| node.alive && node.heard) {
            let wanted = self.desired.volumes.values().flat_map(|volume| &volume.replicas);
            let mine = wanted.filter(|r| r.engine == *uuid).map(|r| r.uuid);
            let made = |uuid: &Uuid| self.truth.values().any(|truth| truth.made.contains(uuid));
            let replicas = mine.filter(made).collect();
            let parts = node.parts.clone();
            let (heard, leaving) = (self.now, node.leaving);
            let seen = Engine { heard, line: Line::Up, parts, replicas, leaving };
            self.observed.engines.insert(*uuid, seen);
        }
        self.observed.records = self.records();
    }

    fn records(&self) -> BTreeMap<Uuid, Record> {
        let record = |truth: &Truth| Record {
            owner: truth.owner,
            bytes: truth.bytes,
            members: truth.members.iter().copied().collect(),
            away: truth.away.iter().copied().collect(),
            snapshots: truth.snapshots.iter().copied().collect(),
            stale: truth.stale,
        };
        self.truth.iter().map(|(uuid, truth)| (*uuid, record(truth))).collect()
    }

    fn begin(&mut self, action: &Action) {
        let Action { volume, step } = *action;
        let before = self.observed.ledgers.entry(volume).or_default();
        let displaced = before.in_flight();
        assert!(
            displaced.is_none_or(|old| step.is_appointment() && !old.is_appointment()),
            "{step:?} while {displaced:?} is in flight"
        );
        if let Some(engine) = step.engine() {
            assert!(self.observed.is_alive(&engine, self.now), "{step:?}, which is gone");
        }
        let owner = step.is_appointment().then(|| self.owners.name());
        self.check_appointment(&volume, step, owner);
        self.observed.ledgers.entry(volume).or_default().begun(self.now, step, owner);
        self.numbers += 1;
        self.flights.insert(volume, self.numbers);
        self.begun.push((self.now, volume));
        self.tell(format!("{} {}", letter(&volume), words(&step)));
        if let Step::Unlist { replica } = step {
            let wanted = self.desired.volumes.get_mut(&volume).unwrap();
            wanted.replicas.retain(|place| place.uuid != replica);
            self.observed.ledgers.entry(volume).or_default().done(self.now);
            self.flights.remove(&volume);
            return;
        }
        if let Step::End { wish } = step {
            self.end(volume, wish);
            self.observed.ledgers.entry(volume).or_default().done(self.now);
            self.flights.remove(&volume);
            return;
        }
        if step == Step::Forget {
            self.desired.volumes.remove(&volume);
            self.truth.remove(&volume);
            self.observed.ledgers.remove(&volume);
            return;
        }
        let Some(node) = step.engine().and_then(|engine| self.nodes.get(&engine)) else { return };
        let (number, process) = (self.numbers, node.process);
        let Some(at) = self.travel() else { return };
        self.mail.push(Mail { at, number, volume, step, owner, process, answer: None });
    }

    /// A volume cannot have what was asked for.
    fn end(&mut self, volume: Uuid, wish: Wish) {
        let wanted = self.desired.volumes.get_mut(&volume).unwrap();
        match wish {
            Wish::Size { .. } => wanted.bytes = self.truth[&volume].bytes,
            Wish::Snapshot { snapshot } => wanted.snapshots.retain(|s| s.uuid != snapshot),
            Wish::Replica { replica } => {
                let place = wanted.replicas.iter_mut().find(|place| place.uuid == replica);
                place.unwrap().stay = Stay::Leaves;
            }
        }
    }

    /// Owners are new, and are appointed for a reason that the truth knows.
    fn check_appointment(&mut self, volume: &Uuid, step: Step, owner: Option<Uuid>) {
        let (Step::TakeOver { asked, .. }, Some(owner)) = (step, owner) else { return };
        assert!(self.names.insert(owner), "the name of an owner was used before");
        let truth = &self.truth[volume];
        let well = self.nodes.values().any(|node| {
            let serves = node.parts.get(volume).is_some_and(|part| {
                part.serving && part.owner == truth.owner && self.now.since(part.since) > 4 * BEAT
            });
            node.alive && node.heard && self.now.since(node.well_since) > 4 * BEAT && serves
        });
        assert!(asked.is_some() || !well, "an owner that served well is replaced");
        assert!(!truth.stale, "an owner is appointed by a record that is not current");
    }

    fn travel(&mut self) -> Option<Instant> {
        let Some(dice) = &mut self.dice else { return Some(self.now + TURN) };
        let late = Duration::from_millis(dice.within(0, 700));
        if dice.once_in(12) { None } else { Some(self.now + late) }
    }

    fn deliver(&mut self) {
        let due = |mail: &Mail| mail.at <= self.now;
        let (due, later) = std::mem::take(&mut self.mail).into_iter().partition(due);
        self.mail = later;
        let due: Vec<Mail> = due;
        for mail in due {
            match mail.answer {
                None => self.obey(mail),
                Some(well) => self.ended(&mail, well),
            }
        }
    }

    fn ended(&mut self, mail: &Mail, well: bool) {
        if self.flights.get(&mail.volume) != Some(&mail.number) {
            return;
        }
        self.flights.remove(&mail.volume);
        let Some(ledger) = self.observed.ledgers.get_mut(&mail.volume) else { return };
        let engine = mail.step.engine().and_then(|engine| self.nodes.get(&engine));
        if well {
            ledger.done(self.now)
        } else if engine.is_some_and(|node| node.refuses) {
            ledger.refused(self.now)
        } else {
            ledger.failed(self.now)
        }
        if !well {
            self.tell(format!("{} {} failed", letter(&mail.volume), words(&mail.step)));
        }
    }

    /// An engine does what it is told.
    fn obey(&mut self, mail: Mail) {
        let Some(engine) = mail.step.engine() else { return };
        let Some(node) = self.nodes.get(&engine) else { return };
        if !node.alive || !node.heard || node.deaf || node.process != mail.process {
            return;
        }
        let chance = self.dice.as_mut().is_some_and(|dice| dice.once_in(10));
        let well = !node.fails && !node.refuses && !chance && self.carry_out(engine, &mail);
        self.report();
        if let Some(at) = self.travel() {
            self.mail.push(Mail { at, answer: Some(well), ..mail });
        }
    }

    fn carry_out(&mut self, engine: Uuid, mail: &Mail) -> bool {
        if matches!(mail.step, Step::Withdraw { .. }) {
            if !self.nodes[&engine].clings {
                self.part(engine, mail.volume, None);
            }
            return true;
        }
        let Some(truth) = self.truth.get_mut(&mail.volume) else { return true };
        let since = self.now;
        match mail.step {
            Step::TakeOver { .. } => {
                let on = |replica: &Uuid| id((replica[1] as char).to_ascii_lowercase());
                let up = |replica: &Uuid| self.nodes.get(&on(replica)).is_some_and(|n| n.alive);
                let (stay, go): (BTreeSet<Uuid>, BTreeSet<Uuid>) =
                    truth.members.iter().partition(|replica| up(replica));
                if stay.is_empty() {
                    return false;
                }
                truth.members = stay;
                truth.away.extend(go);
                truth.owner = mail.owner;
                // Whoever owned it before learns of it.
                for node in self.nodes.values_mut() {
                    if let Some(part) = node.parts.get_mut(&mail.volume) {
                        *part = Part { since, ..Part::default() };
                    }
                }
                let part = Part { owner: mail.owner, serving: true, since, returning: None };
                self.part(engine, mail.volume, Some(part));
            }
            Step::HandOver { .. } | Step::Standby { .. } => {
                self.part(engine, mail.volume, Some(Part { since, ..Part::default() }));
            }
            Step::Return { replica, .. } => {
                if truth.slow.contains(&replica) {
                    let node = self.nodes.get_mut(&engine).expect("it obeys");
                    let part = node.parts.get_mut(&mail.volume).filter(|part| part.serving);
                    // One at a time.
                    part.map(|part| part.returning.get_or_insert(replica));
                } else if truth.away.remove(&replica) {
                    truth.members.insert(replica);
                }
            }
            Step::MakeReplica { replica, .. } => drop(truth.made.insert(replica)),
            Step::DropReplica { replica, .. } => {
                let deleted = self.desired.volumes.get(&mail.volume).is_none_or(|v| v.deleting);
                let is_member = truth.members.contains(&replica);
                assert!(deleted || !is_member, "a member is destroyed");
                truth.made.remove(&replica);
            }
            Step::Resize { .. }
            | Step::AddMember { .. }
            | Step::TakeOut { .. }
            | Step::GiveUp { .. }
            | Step::TakeSnapshot { .. }
            | Step::DropSnapshot { .. } => return self.change(engine, mail),
            Step::Withdraw { .. } | Step::Unlist { .. } | Step::End { .. } | Step::Forget => {}
        }
        true
    }

    /// What an owner alone can do.
    fn change(&mut self, engine: Uuid, mail: &Mail) -> bool {
        let truth = self.truth.get_mut(&mail.volume).unwrap();
        let part = self.nodes[&engine].parts.get(&mail.volume);
        if !part.is_some_and(|part| part.serving && part.owner == truth.owner) {
            return false;
        }
        match mail.step {
            Step::Resize { bytes, .. } => {
                if truth.space.is_some_and(|space| bytes > space) {
                    return false;
                }
                truth.bytes = truth.bytes.max(bytes);
            }
            Step::AddMember { replica, .. } => {
                assert!(!truth.members.contains(&replica), "a member is named anew");
                truth.away.insert(replica);
            }
            Step::TakeOut { replica, .. } => {
                if truth.members.remove(&replica) {
                    truth.away.insert(replica);
                }
                assert!(!truth.members.is_empty(), "the last member is taken out");
            }
            Step::GiveUp { replica, .. } => drop(truth.away.remove(&replica)),
            Step::TakeSnapshot { snapshot, .. } => drop(truth.snapshots.insert(snapshot)),
            Step::DropSnapshot { snapshot, .. } => drop(truth.snapshots.remove(&snapshot)),
            _ => {}
        }
        true
    }

    fn part(&mut self, engine: Uuid, volume: Uuid, part: Option<Part>) {
        let parts = &mut self.nodes.get_mut(&engine).unwrap().parts;
        match part {
            Some(part) => drop(parts.insert(volume, part)),
            None => drop(parts.remove(&volume)),
        }
    }

    /// Engines that serve a volume under the name that its record has.
    pub(crate) fn serving(&self, volume: &Uuid) -> usize {
        let owner = self.truth[volume].owner;
        let serves = |node: &&Node| {
            let part = node.parts.get(volume);
            node.alive && part.is_some_and(|part| part.serving && part.owner == owner)
        };
        self.nodes.values().filter(serves).count()
    }

    pub(crate) fn parts(&self, volume: &Uuid) -> usize {
        self.nodes.values().filter(|node| node.alive && node.parts.contains_key(volume)).count()
    }

    pub(crate) fn tell(&mut self, line: String) {
        self.log.push(line);
    }
}

/// A replica of a volume and its engine.
pub(crate) fn place(volume: char, engine: char) -> Replica {
    Replica { uuid: replica(volume, engine), engine: id(engine), stay: Stay::Stays }
}

/// The replica of a volume on an engine.
pub(crate) fn replica(volume: char, engine: char) -> Uuid {
    let mut uuid = id(volume);
    uuid[1] = engine as u8;
    uuid
}

fn words(step: &Step) -> String {
    match step {
        Step::TakeOver { engine, force, asked } => {
            let force = if *force { " by force" } else { "" };
            let asked = if asked.is_some() { ", as asked" } else { "" };
            format!("-> {} takes over{force}{asked}", letter(engine))
        }
        Step::HandOver { engine, .. } => format!("-> {} hands over", letter(engine)),
        Step::Return { engine, replica } => {
            format!("-> {} brings back that of {}", letter(engine), char::from(replica[1]))
        }
        Step::Standby { engine } => format!("-> {} stands by", letter(engine)),
        Step::Withdraw { engine } => format!("-> {} withdraws", letter(engine)),
        Step::DropReplica { engine, .. } => format!("-> {} drops its replica", letter(engine)),
        Step::MakeReplica { engine, .. } => format!("-> {} makes a replica", letter(engine)),
        Step::AddMember { engine, replica } => {
            format!("-> {} names that of {}", letter(engine), char::from(replica[1]))
        }
        Step::TakeOut { engine, replica } => {
            format!("-> {} takes that of {} out", letter(engine), char::from(replica[1]))
        }
        Step::GiveUp { engine, replica } => {
            format!("-> {} gives that of {} up", letter(engine), char::from(replica[1]))
        }
        Step::Unlist { replica } => format!("lists that of {} no more", char::from(replica[1])),
        Step::TakeSnapshot { engine, snapshot } => {
            format!("-> {} takes snapshot {}", letter(engine), letter(snapshot))
        }
        Step::DropSnapshot { engine, snapshot } => {
            format!("-> {} drops snapshot {}", letter(engine), letter(snapshot))
        }
        Step::Resize { engine, bytes } => format!("-> {} grows it to {bytes}", letter(engine)),
        Step::End { wish: Wish::Size { bytes } } => format!("is not to have {bytes} any more"),
        Step::End { wish: Wish::Snapshot { snapshot } } => {
            format!("is not to have snapshot {} any more", letter(snapshot))
        }
        Step::End { wish: Wish::Replica { replica } } => {
            format!("is not to have that of {} any more", char::from(replica[1]))
        }
        Step::Forget => "is forgotten".into(),
    }
}
