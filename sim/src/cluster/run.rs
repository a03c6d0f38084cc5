//! One seed: a cluster and its hosts, what befalls them, and what is to be said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use braid_block::Instant;
use braid_nexus::wire::Refusal;
use braid_nexus::{Note, Plant, Record, Status, Step, Uuid, Why};

use super::ambush::Lurking;
use super::chain::Chain;
use super::check::{self, Epochs, Losses, Shadows};
use super::fate::After;
use super::history::{History, Number};
use super::host::{Host, Input, Output};
use super::inspect::Snapshots;
use super::profile::Profile;
use super::unceasing::Unceasing;
use super::{Cluster, ClusterConfig, Happened, HostEvent, Late, Level, LineId, Trace, volume};
use crate::oracle::{Tick, Violation};
use crate::random::Random;
use crate::seen::Seen;
use crate::story::Story;

/// Whether all is well, or what is not.
pub(super) type Verdict<T = ()> = Result<T, Violation>;

/// Bytes of a node's disk.
const DISK: u64 = 48 << 20;
/// Timers: the next fault; the next look of the healer; from here on hosts; from there on what
/// ends a fault.
const FAULT: u64 = 0;
const HOSTS: u64 = 16;
const AFTERS: u64 = 1 << 20;
/// Clearings of marks after which replicas are laid side by side, in a run: that takes long.
const CLEANS_WATCHED: u32 = 60;
/// How long a cluster may take to converge when nothing is wrong any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// What of a seed is run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these of its faults, counted from 0.
    pub keep: Option<BTreeSet<u32>>,
    /// Only so many hosts.
    pub hosts: Option<u8>,
    /// A rule that is switched off.
    pub plant: Option<Plant>,
    /// What runs at the nodes.
    pub level: Level,
}

impl Selection {
    /// Whether nothing is left out, and no rule switched off.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.keep.is_none() && self.hosts.is_none() && self.plant.is_none()
    }
}

/// A host, and where it is.
pub(super) struct Guest {
    pub(super) host: Host,
    pub(super) volume: usize,
    pub(super) place: u8,
    pub(super) id: Uuid,
    armed: Option<Instant>,
}

/// What is known of a volume.
pub(super) struct Judged {
    pub(super) history: History,
    pub(super) epochs: Epochs,
    pub(super) losses: Losses,
    pub(super) shadows: Shadows,
    pub(super) snapshots: Snapshots,
    /// Snapshots that were asked for: when, and when the record named them.
    pub(super) asked: BTreeMap<Uuid, (Tick, Option<Tick>)>,
    /// Those of them that were asked for while a replica's regions were copied.
    pub(super) amid: BTreeSet<Uuid>,
    /// Those of which nobody could read a block, or that no member held.
    pub(super) unreadable: BTreeSet<Uuid>,
    pub(super) epoch: u64,
    lossy: u64,
    /// Instances of replicas, as they were last seen.
    pub(super) instances: BTreeMap<Uuid, u64>,
    pub(super) passage: Passage,
}

/// What the notes of a volume's owners tell, for who wants to know what was reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Passage {
    /// Nodes that served, the last ones.
    owners: Vec<u8>,
    /// The epoch in which each node served last.
    served: BTreeMap<u8, u64>,
    /// The name of the owner that served last at each node: an epoch may be claimed again in a
    /// store that is back.
    names: BTreeMap<u8, Uuid>,
    /// The epoch that was claimed last at each node, and in whose name: an owner may begin to serve
    /// and stop in one turn, and then nobody can ask it any more.
    claims: BTreeMap<u8, (u64, Uuid)>,
    /// Regions that are suspect.
    pub(super) suspect: u64,
    /// Steps of returns, by slot.
    returning: BTreeMap<u8, Step>,
    /// When which member failed last.
    failed: Option<(u8, Instant)>,
}

/// From which host a line comes, and to which node it goes.
#[derive(Clone, Copy, Debug)]
struct Route {
    guest: usize,
    node: u8,
}

/// A command that a host has sent by a line.
#[derive(Clone, Copy, Debug)]
struct Asked {
    guest: usize,
    number: Number,
    answered: bool,
}

/// A seed at work.
pub(super) struct Run {
    pub(super) cluster: Cluster,
    pub(super) profile: Profile,
    pub(super) selection: Selection,
    pub(super) random: Random,
    pub(super) guests: Vec<Guest>,
    pub(super) volumes: Vec<Judged>,
    pub(super) seen: Seen,
    /// Faults so far, those that were left out included.
    pub(super) faults: u32,
    pub(super) afters: BTreeMap<u64, After>,
    pub(super) faulty: bool,
    /// Nobody hears of lines that hosts leave.
    pub(super) silent: bool,
    /// What waits for its moment.
    pub(super) lurking: Lurking,
    /// Until then nothing else befalls the cluster.
    pub(super) alone: Instant,
    /// Layers that are to be rebuilt, if that is what it is for.
    pub(super) chain: Option<Chain>,
    /// Snapshots without end, if that is what it is for.
    pub(super) unceasing: Option<Unceasing>,
    cleans: u32,
    /// The node whose disk rots, if one does.
    pub(super) rotten: u8,
    /// Wiped replicas, and the instance that the record named then.
    pub(super) wiped: BTreeMap<Uuid, Option<u64>>,
    lines: BTreeMap<LineId, Route>,
    asked: BTreeMap<(LineId, u64), Asked>,
    commits: usize,
}

impl Run {
    /// A seed before anything happened.
    pub(super) fn new(seed: u64, profile: Profile, selection: Selection, story: Story) -> Self {
        let mut random = Random::part(seed, 60);
        let config = config(seed, &profile, &selection, &mut random, story);
        let rotten = u8::try_from(seed % u64::from(profile.nodes)).expect("a node");
        let volumes: Vec<Judged> = (0..profile.volumes).map(Judged::new).collect();
        let hosts = selection.hosts.unwrap_or(profile.hosts);
        let mut guests = Vec::new();
        for at in 0..hosts * profile.volumes {
            let number = usize::from(at);
            let (place, volume) = (at, usize::from(at % profile.volumes));
            let chance = Random::part(seed, 70 + u64::from(at));
            let habits = profile.habits.clone();
            let host = Host::new(number, usize::from(profile.nodes), habits, chance);
            let mut id = [0x40; 16];
            id[0] = at + 1;
            guests.push(Guest { host, volume, place, id, armed: None });
        }
        Self {
            cluster: Cluster::new(config),
            profile,
            selection,
            random,
            guests,
            volumes,
            seen: Seen::default(),
            faults: 0,
            afters: BTreeMap::new(),
            faulty: true,
            silent: false,
            lurking: Lurking::default(),
            alone: Instant::ZERO,
            chain: None,
            unceasing: None,
            cleans: 0,
            rotten,
            wiped: BTreeMap::new(),
            lines: BTreeMap::new(),
            asked: BTreeMap::new(),
            commits: 0,
        }
    }

    /// Everything: faults, healing, and the verdict.
    pub(super) fn all(&mut self) -> Verdict {
        self.observe()?;
        for guest in 0..self.guests.len() {
            self.arm(guest);
        }
        self.begin()?;
        let end = self.cluster.now() + self.profile.faulty;
        self.next_fault();
        self.chain_begins();
        self.snapshots_begin();
        self.until(end)?;
        self.chain_ends()?;
        self.snapshots_end()?;
        self.faulty = false;
        self.heal()?;
        self.judge()?;
        self.rest()
    }

    /// Steps until every volume has been served: before, there is nothing that could be lost.
    pub(super) fn begin(&mut self) -> Verdict {
        let patience = self.cluster.now() + PATIENCE;
        while self.volumes.iter().any(|judged| judged.history.servings.is_empty()) {
            if self.cluster.now() > patience {
                let text = "a new volume is served by nobody".into();
                return Err(Violation::new("ConvergeAfterHeal", text));
            }
            self.cluster.step();
            self.observe()?;
        }
        Ok(())
    }

    /// Steps until then.
    pub(super) fn until(&mut self, end: Instant) -> Verdict {
        while self.cluster.next_at().is_some_and(|at| at <= end) {
            self.cluster.step();
            self.observe()?;
        }
        Ok(())
    }

    /// Sets the time of the next fault.
    pub(super) fn next_fault(&mut self) {
        let pause = self.profile.pause.draw(&mut self.random);
        self.cluster.set_timer(self.cluster.now() + pause, FAULT);
    }

    /// Something that is to be done later.
    pub(super) fn later(&mut self, delay: Duration, after: After) {
        let number = AFTERS + self.afters.len() as u64;
        self.afters.insert(number, after);
        self.cluster.set_timer(self.cluster.now() + delay, number);
    }

    /// Takes what happened.
    fn observe(&mut self) -> Verdict {
        self.read_commits();
        while let Some(happened) = self.cluster.poll() {
            match happened {
                Happened::Host { line, event } => self.host_hears(line, event)?,
                Happened::Timer(FAULT) if self.faulty => {
                    self.fault()?;
                    self.next_fault();
                }
                Happened::Timer(FAULT) => {}
                Happened::Timer(number) if number >= AFTERS => {
                    match self.afters.get(&number).cloned() {
                        Some(After::Chain) => self.chain_on()?,
                        Some(After::Snapshots) => self.snapshots_on(),
                        Some(after) => self.end(after),
                        None => {}
                    }
                }
                Happened::Timer(number) => {
                    let guest = usize::try_from(number - HOSTS).unwrap_or(usize::MAX);
                    self.elapse(guest);
                }
                Happened::Note { node, volume, note } => self.note(node, volume, note)?,
                Happened::Answered { line, tag, status, trace } => {
                    self.answered(line, tag, status, trace)?;
                }
                Happened::Cleaned { replica } => self.cleaned(&replica)?,
                Happened::Changed { replica, offset, len, bytes } => {
                    self.changed(replica, offset, len, bytes.as_deref())?;
                }
                Happened::Pool { note: braid_pool::Note::Failed { .. }, .. } => {
                    self.seen.mark("pool failed");
                }
                Happened::Late(late) => self.seen.mark(match late {
                    Late::Command => "command of a host's dead association",
                    Late::Write { same_epoch: false } => "old write after the fence",
                    Late::Write { same_epoch: true } => "old write after a return in its epoch",
                }),
                Happened::Unsure { volume, record } => {
                    let committed = self.cluster.commits().contains(&(volume, *record));
                    self.seen.mark(match committed {
                        true => "unknown swap that had committed",
                        false => "unknown swap that had not committed",
                    });
                }
                Happened::Pool { .. }
                | Happened::Came { .. }
                | Happened::Ended { .. }
                | Happened::Errand { .. } => {}
            }
        }
        self.lurk();
        self.chain_lurks();
        Ok(())
    }

    /// What the store has committed since.
    fn read_commits(&mut self) {
        while let Some((volume, record)) = self.cluster.commits().get(self.commits).cloned() {
            self.commits += 1;
            // A clone has no hosts: only its layers are looked at.
            let Some(judged) = self.volumes.get_mut(volume) else { continue };
            if record.epoch > judged.epoch {
                judged.epoch = record.epoch;
                judged.history.claimed(record.epoch);
            }
            if judged.learn(&record) {
                self.seen.mark("snapshot during a rebuild");
            }
            let Some(lossy) = &record.lossy else { continue };
            if lossy.epoch > judged.lossy {
                judged.lossy = lossy.epoch;
                judged.history.lost(lossy.epoch);
                judged.losses.lost(lossy.epoch);
                self.seen.mark("lossy activation");
            }
            for host in &lossy.told {
                judged.losses.written(*host, lossy.epoch, self.cluster.now());
            }
        }
    }

    fn note(&mut self, node: u8, volume: usize, note: Note) -> Verdict {
        let now = self.cluster.now();
        if let Note::Claimed { epoch } = note
            && let Some(view) = self.cluster.view(node, volume)
            && let Some(judged) = self.volumes.get_mut(volume)
        {
            judged.passage.claims.insert(node, (epoch, view.owner));
        }
        if let Note::Serving { epoch, members, suspect, .. } = note {
            let owner = self.owner(node, volume, epoch);
            self.activated(node, volume, (epoch, owner), members)?;
            let Some(judged) = self.volumes.get_mut(volume) else { return Ok(()) };
            judged.history.serving();
            judged.passage.names.extend(owner.map(|owner| (node, owner)));
            judged.passage.owners.push(node);
            judged.passage.served.insert(node, epoch);
            judged.passage.suspect = suspect;
            judged.passage.returning.clear();
            self.seen.mark("serving");
            self.seen.mark_if(suspect > 0, "suspect regions at a take-over");
            let owners = &judged.passage.owners;
            let there_and_back = owners.len() > 2 && owners[owners.len() - 3] == node;
            self.seen.mark_if(
                there_and_back && owners[owners.len() - 2] != node,
                "from A to B and back to A",
            );
            self.restarted_members(volume);
            if self.faulty {
                self.cut_off(node, volume);
            }
            if suspect > 0 && self.faulty {
                self.pursue(volume);
            }
            self.lurk_for_owners(volume, node);
        }
        let Some(judged) = self.volumes.get_mut(volume) else { return Ok(()) };
        judged.passage.heard(&mut self.seen, now, note);
        if let Note::Unreadable { snapshot: Some(uuid), .. } = note
            && let Some(judged) = self.volumes.get_mut(volume)
        {
            judged.unreadable.insert(uuid);
        }
        if let Note::Returning { slot, step } = note {
            self.lurk_for_returns(volume, slot, step);
            if self.faulty {
                self.ambush(node, volume, slot, step);
            }
        }
        Ok(())
    }

    /// A replica that the record named until now and that answered with another instance.
    fn restarted_members(&mut self, volume: usize) {
        let Some(record) = self.cluster.record(volume).cloned() else { return };
        for slot in 0..8 {
            let away = record.away() >> slot & 1 == 1;
            let Some(replica) = record.replica(slot).filter(|_| away) else { continue };
            let known = self.volumes[volume].instances.get(&replica.uuid).copied();
            let is_up = self.cluster.replica(&replica.uuid).is_some();
            self.seen.mark_if(is_up && known.is_some(), "restarted member at a take-over");
        }
    }

    /// In whose name a node has an epoch.
    fn owner(&self, node: u8, volume: usize, epoch: u64) -> Option<Uuid> {
        let claim = self.volumes.get(volume).and_then(|judged| judged.passage.claims.get(&node));
        let claimed = claim.filter(|(of, _)| *of == epoch).map(|(_, owner)| *owner);
        claimed.or_else(|| self.cluster.view(node, volume).map(|view| view.owner))
    }

    /// *SafeActivation*: an owner serves with members that the record names, all of them, and
    /// that obey it.
    fn activated(
        &self,
        node: u8,
        volume: usize,
        (epoch, owner): (u64, Option<Uuid>),
        members: u8,
    ) -> Verdict {
        let mine = self.cluster.commits().iter().rev().find(|(of, record)| {
            *of == volume && record.epoch == epoch && Some(record.owner) == owner
        });
        let fences = (0..8).filter_map(|slot| {
            let replica = mine?.1.replica(slot)?;
            Some((slot, self.cluster.replica(&replica.uuid)?.0.fence))
        });
        let fences: Vec<(u8, (u64, Uuid))> = fences.collect();
        check::activation(mine.map(|(_, record)| record), epoch, members, &fences).map_err(
            |Violation { invariant, text }| {
                let text = format!("n{node} serves volume {volume} in epoch {epoch}, and {text}");
                Violation::new(invariant, text)
            },
        )
    }

    fn answered(&mut self, line: LineId, tag: u64, status: Status, trace: Trace) -> Verdict {
        let Some(asked) = self.asked.get_mut(&(line, tag)) else { return Ok(()) };
        asked.answered = true;
        let Asked { guest, number, .. } = *asked;
        let Guest { volume, id, .. } = self.guests[guest];
        let Trace { epoch, received, answered, .. } = trace;
        let record = self.relied_on(volume, trace.node);
        let judged = &mut self.volumes[volume];
        // An owner that ended in the same moment tells no epoch, nor does a shard: the last that
        // served.
        let served = judged.passage.served.get(&trace.node).copied();
        let epoch = if epoch > 0 { epoch } else { served.unwrap_or(0) };
        let deed = judged.history.operation(number).deed;
        let flushes = deed.flushes();
        match status {
            Status::Success => {
                judged.epochs.acknowledged(epoch, received, answered)?;
                if flushes {
                    judged.losses.flushed(id, epoch, received)?;
                }
                if let Some(record) = record.filter(|_| deed.changes()) {
                    judged.shadows.acknowledged(&judged.history, number, &record)?;
                }
                let overtaken = judged.passage.copies() && deed.changes();
                self.seen.mark_if(overtaken, "write during a rebuild");
            }
            Status::WriteFault { dnr: true } if flushes => {
                judged.losses.told(id, epoch, answered);
                self.seen.mark("host told of a loss");
                let deaf = !self.cluster.has_line(line);
                self.seen.mark_if(deaf, "host told of a loss that does not hear it");
            }
            Status::Inaccessible => self.seen.mark("inaccessible"),
            Status::Busy => self.seen.mark("busy"),
            Status::NoSpace => self.seen.mark("no space on any member"),
            Status::Media(_) => self.seen.mark("media error"),
            _ => {}
        }
        Ok(())
    }

    /// The record that says who must have what an owner acknowledges: the store's, unless that is
    /// another store than the one that the owner's last change was committed in. What is back is
    /// nobody's record before replicas follow it.
    fn relied_on(&self, volume: usize, node: u8) -> Option<Record> {
        let stored = self.cluster.record(volume);
        let commits = self.cluster.commits().iter().rev();
        let name = self.volumes[volume].passage.names.get(&node);
        let mut own = commits.filter(|(of, record)| *of == volume && Some(&record.owner) == name);
        let own = own.next().map(|(_, record)| record);
        let store = self.cluster.store_id();
        let lost = own.filter(|own| stored.is_none() || own.store != store);
        lost.or(stored).cloned()
    }

    /// Marks were cleared: what is not marked now must be equal, now.
    fn cleaned(&mut self, replica: &Uuid) -> Verdict {
        self.seen.mark("marks cleared");
        self.cleans += 1;
        if !self.profile.watches_marks || self.cleans > CLEANS_WATCHED {
            return Ok(());
        }
        match self.cluster.sites().volume_of(replica) {
            Some(volume) => self.look_at_marks(volume),
            None => Ok(()),
        }
    }

    fn changed(&mut self, replica: Uuid, offset: u64, len: u64, bytes: Option<&[u8]>) -> Verdict {
        let Some(volume) = self.cluster.sites().volume_of(&replica) else { return Ok(()) };
        let Some(judged) = self.volumes.get_mut(volume) else { return Ok(()) };
        match bytes {
            Some(bytes) => judged.shadows.written(&judged.history, replica, offset, bytes)?,
            None => judged.shadows.zeroed(replica, offset, len),
        }
        if self.faulty && self.profile.pursuit_in > 0 && judged.passage.suspect > 0 {
            self.hunt(volume);
        }
        Ok(())
    }

    fn host_hears(&mut self, line: LineId, event: HostEvent) -> Verdict {
        let Some(guest) = self.lines.get(&line).map(|route| route.guest) else { return Ok(()) };
        let now = self.cluster.now();
        if matches!(event, HostEvent::Refused | HostEvent::Broken) {
            self.forget_line(line);
        }
        let at = &mut self.guests[guest];
        let history = &mut self.volumes[at.volume].history;
        let empty = std::rc::Rc::from([]);
        let data;
        let input = match event {
            HostEvent::Connected => Input::Opened,
            HostEvent::Refused | HostEvent::Broken => Input::Ended,
            HostEvent::Ana { optimized, .. } => Input::Ana { optimized },
            HostEvent::Access { .. } => Input::Access,
            HostEvent::Resized { bytes } => {
                at.host.resized(bytes / 512);
                return Ok(());
            }
            HostEvent::Completed { tag, status, data: read, .. } => {
                data = read.unwrap_or(empty);
                Input::Completed { tag, status, bytes: &data }
            }
        };
        at.host.take(now, history, line, input)?;
        self.carry_out(guest);
        Ok(())
    }

    fn elapse(&mut self, guest: usize) {
        let now = self.cluster.now();
        let at = &mut self.guests[guest];
        if at.armed.is_none_or(|armed| armed > now) {
            return;
        }
        at.armed = None;
        at.host.elapse(now, &mut self.volumes[at.volume].history);
        self.carry_out(guest);
    }

    /// Does what a host wants.
    pub(super) fn carry_out(&mut self, guest: usize) {
        while let Some(output) = self.guests[guest].host.poll() {
            let Guest { volume, place, id, .. } = self.guests[guest];
            match output {
                Output::Open { path } => {
                    let node = u8::try_from(path).expect("few nodes");
                    let line = self.cluster.host_connect(place, node, volume, id, 0);
                    self.lines.insert(line, Route { guest, node });
                    self.guests[guest].host.opening(path, line);
                }
                Output::Close { line } => {
                    self.forget_line(line);
                    match self.silent {
                        true => self.cluster.host_vanish(line),
                        false => self.cluster.host_leave(line),
                    }
                }
                Output::ReadAna { line } => {
                    self.cluster.host_read_ana(line, 0);
                }
                Output::Request { line, tag, number, work, bytes } => {
                    let asked = Asked { guest, number, answered: false };
                    self.asked.insert((line, tag), asked);
                    self.cluster.tell(|| {
                        let history = &self.volumes[volume].history;
                        format!("h{place} asks on {line}: {tag} is {}", history.describe(number))
                    });
                    self.cluster.host_send(line, tag, work, &bytes);
                }
            }
        }
        self.arm(guest);
    }

    /// Sees to it that a host is called when it wants to be.
    pub(super) fn arm(&mut self, guest: usize) {
        let now = self.cluster.now();
        let at = &mut self.guests[guest];
        let Some(due) = at.host.due().map(|due| due.max(now)) else { return };
        if at.armed.is_none_or(|armed| due < armed) {
            at.armed = Some(due);
            self.cluster.set_timer(due, HOSTS + guest as u64);
        }
    }

    /// The lines of a host.
    pub(super) fn lines_of(&self, guest: usize) -> Vec<LineId> {
        let mine = self.lines.iter().filter(|(_, route)| route.guest == guest);
        mine.map(|(line, _)| *line).collect()
    }

    /// A host's line is no more, and nobody was told.
    pub(super) fn forget_line(&mut self, line: LineId) {
        let Some(Route { guest, node }) = self.lines.remove(&line) else { return };
        // A nexus by itself is heard when it answers, whatever becomes of the line.
        if self.selection.level == Level::Nexus {
            return;
        }
        let Guest { volume, id, .. } = self.guests[guest];
        let judged = &mut self.volumes[volume];
        let Some(epoch) = judged.passage.served.get(&node).copied() else { return };
        let mut open = self.asked.range((line, 0)..=(line, u64::MAX)).map(|(_, asked)| asked);
        let flushes = |number| judged.history.operation(number).deed.flushes();
        if open.any(|asked| !asked.answered && flushes(asked.number)) {
            judged.losses.unheard(id, epoch);
        }
    }
}

impl Judged {
    fn new(volume: u8) -> Self {
        Self {
            history: History::new(volume),
            epochs: Epochs::default(),
            losses: Losses::default(),
            shadows: Shadows::default(),
            snapshots: Snapshots::default(),
            asked: BTreeMap::new(),
            amid: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            epoch: 0,
            lossy: 0,
            instances: BTreeMap::new(),
            passage: Passage::default(),
        }
    }

    /// The store has this record now. Whether it names a snapshot first that was asked for during
    /// a rebuild.
    fn learn(&mut self, record: &Record) -> bool {
        for (slot, replica) in (0u8..).zip(&record.slots) {
            if let (Some(replica), Some(instance)) = (replica, record.instance(slot)) {
                self.instances.insert(replica.uuid, instance);
            }
        }
        let mut amid = false;
        for snapshot in &record.snapshots {
            if let Some((_, named @ None)) = self.asked.get_mut(&snapshot.uuid) {
                *named = Some(self.history.tick());
                amid |= self.amid.contains(&snapshot.uuid);
            }
        }
        amid
    }
}

impl Passage {
    /// Whether regions of a replica that returns are being copied.
    pub(super) fn copies(&self) -> bool {
        self.returning.values().any(|step| matches!(step, Step::Copying { .. }))
    }

    /// How far returns are, by slot.
    pub(super) const fn returning(&self) -> &BTreeMap<u8, Step> {
        &self.returning
    }

    /// The node that served last.
    pub(super) fn owner(&self) -> Option<u8> {
        self.owners.last().copied()
    }

    /// An owner told something.
    fn heard(&mut self, seen: &mut Seen, now: Instant, note: Note) {
        match note {
            Note::Stopped { why, .. } => {
                seen.mark("owner stopped");
                seen.mark_if(why == Why::SwapLost, "lost swap");
            }
            Note::Failing { slot, refusal } => {
                seen.mark("member failed");
                seen.mark_if(refusal == Refusal::NoSpace, "no space on one member");
                let near = |(other, at): (u8, Instant)| {
                    other != slot && now.since(at) <= Duration::from_millis(1)
                };
                seen.mark_if(self.failed.is_some_and(near), "two members failed at once");
                self.failed = Some((slot, now));
                let adding = self.returning.get(&slot) == Some(&Step::Adding);
                seen.mark_if(adding, "joiner failed while it was added");
            }
            Note::Excluded { .. } => seen.mark("member excluded"),
            Note::Lost => seen.mark("no member has every write"),
            Note::Held => seen.mark("commit took too long"),
            Note::Waiting { .. } => seen.mark("waiting for members"),
            Note::Resynced { copied, .. } => {
                self.suspect = self.suspect.saturating_sub(1);
                seen.mark("resynced");
                seen.mark_if(copied > 0, "fail-over with divergent writes");
            }
            Note::Returning { slot, step } => {
                if step == Step::Failed && self.returning.get(&slot) == Some(&Step::Adding) {
                    seen.mark("joiner failed while it was added");
                }
                self.returning.insert(slot, step);
                match step {
                    Step::Member => seen.mark("member returned"),
                    Step::Failed => seen.mark("return failed"),
                    Step::Snapshots => seen.mark("missed snapshots copied"),
                    _ => {}
                }
            }
            Note::Unreadable { .. } => seen.mark("block that nobody can read"),
            Note::Repaired { .. } => seen.mark("repaired"),
            Note::Snapshot { taken } => {
                seen.mark(if taken { "snapshot taken" } else { "snapshot not taken" });
            }
            Note::Claimed { .. } | Note::Serving { .. } => {}
        }
    }
}

fn config(
    seed: u64,
    profile: &Profile,
    selection: &Selection,
    random: &mut Random,
    story: Story,
) -> ClusterConfig {
    let nodes = profile.nodes;
    let mut volumes = Vec::new();
    for _ in 0..profile.volumes {
        let first = random.below(u64::from(nodes));
        let at = |replica: u8| {
            u8::try_from((first + u64::from(replica)) % u64::from(nodes)).expect("a node")
        };
        volumes.push((profile.sectors * 512, (0..profile.replicas).map(at).collect()));
    }
    ClusterConfig {
        seed,
        level: selection.level,
        nodes,
        volumes,
        disk: DISK,
        timing: profile.timing,
        limits: profile.limits,
        plant: selection.plant,
        nexus: volume,
        weather: profile.weather,
        pace: profile.pace,
        whims: profile.whims,
        temper: profile.temper,
        story,
    }
}
