//! A volume among replicas, a store and hosts, with everything between them in a test's hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use braid_block::{Instant, Memory, Span, Token};
use braid_nexus::guard::{Durable, Event as Arrival, Kept};
use braid_nexus::record::{Recovered, Replica as Named, Standing};
use braid_nexus::wire::{Answer, Command, Refusal};
use braid_nexus::{
    Command as Order, Completion, Config, Effect, Event, Limits, Plant, Record, Request, Timing,
    Uuid, Volume, Work,
};

use super::heap::Heap;
use super::replica::Replica;
use super::store::Store;
use super::words;

/// Associations of an owner that is not ours begin here.
const STRANGERS: u32 = 1 << 20;
/// Turns in which nothing but turns happens, at most.
const TURNS_MAX: u32 = 10_000;

/// How a world begins.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) members: String,
    pub(crate) away: String,
    /// Replicas that exist, but that the record does not name.
    pub(crate) spare: String,
    /// Nobody ever used it.
    pub(crate) unused: bool,
    /// The record was recovered from the replicas' copies just now.
    pub(crate) recovered: bool,
    pub(crate) bytes: u64,
    pub(crate) near: Option<char>,
    pub(crate) limits: Limits,
    pub(crate) plant: Option<Plant>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            members: "ab".into(),
            away: String::new(),
            spare: String::new(),
            unused: false,
            recovered: false,
            bytes: 64 << 20,
            near: None,
            limits: Limits { requests_max: 64, hosts_max: 4, segments_max: 4 },
            plant: None,
        }
    }
}

/// A command that was sent to a replica and has not ended.
#[derive(Debug)]
struct Sent {
    replica: usize,
    association: u32,
    command: Command,
    span: Option<Span>,
    /// It is on its way still.
    held: bool,
    /// Its answer will be.
    late: bool,
    answer: Option<Result<Answer, Refusal>>,
}

/// What a test does with the commands of a kind to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// They are on their way until they are released.
    Hold,
    /// They are carried out; their answers are on their way until they are released.
    Late,
    /// The next one is refused, whatever the replica would say.
    Refuse(Refusal),
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) volume: Volume,
    pub(crate) heap: Heap,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) store: Store,
    pub(crate) rules: Vec<(usize, String, Rule)>,
    /// Replicas that answer nothing, nor refuse to.
    pub(crate) vanished: BTreeSet<usize>,
    /// Commands of associations that were left end only when the story says so.
    pub(crate) lingers: bool,
    /// All that was told, since it was last taken.
    told: Vec<String>,
    /// When the story's present step began; what is told later says how much.
    since: Instant,
    associations: BTreeMap<u32, usize>,
    /// Associations that were asked for while their replica had vanished.
    opening: Vec<(u32, usize)>,
    sent: BTreeMap<u64, Sent>,
    events: VecDeque<Event>,
    requests: BTreeMap<u64, (u32, Work)>,
    /// What was sent to each replica, by kind, and bytes of writes.
    pub(crate) counts: BTreeMap<(usize, &'static str), u64>,
    pub(crate) written: BTreeMap<usize, u64>,
    pub(crate) completions: Vec<(u64, Work, Vec<u8>, braid_nexus::Status)>,
    tags: u64,
}

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        let begin = Instant::ZERO + Duration::from_secs(100);
        let mut record = Record {
            volume: words::uuid('V'),
            store: words::uuid('S'),
            version: 1,
            bytes: setup.bytes,
            unused: setup.unused,
            ..Record::default()
        };
        let all: String = [&*setup.members, &*setup.away, &*setup.spare].concat();
        let mut names: Vec<char> = all.chars().collect();
        names.sort_unstable();
        let replicas = names.iter().enumerate().map(|(slot, name)| {
            let uuid = words::uuid(*name);
            let standing = Standing::Member { instance: 1 };
            let away = Standing::Away { whole: false };
            let standing = if setup.members.contains(*name) { standing } else { away };
            if !setup.spare.contains(*name) {
                record.slots[slot] = Some(Named { uuid, standing });
            }
            let bytes = setup.bytes;
            let durable = Durable { replica: uuid, instance: 1, bytes, ..Durable::default() };
            Replica::new(durable, Instant::ZERO)
        });
        let mut replicas: Vec<Replica> = replicas.collect();
        let knows = |r: &&mut Replica| !setup.unused && !setup.spare.contains(words::name(&r.uuid));
        for replica in replicas.iter_mut().filter(knows) {
            // They were members once, and know the record.
            let copy = Box::new(record.clone());
            replica.durable.kept = Some(Kept { copy, complete: true });
            replica.start(Instant::ZERO);
        }
        let store = words::uuid('L');
        let lost = Recovered { store, newest: (0, 1), pending: true };
        record.recovered = setup.recovered.then_some(lost);
        let config = Config {
            volume: record.volume,
            timing: Timing::default(),
            limits: setup.limits,
            near: setup.near.map(words::uuid),
            bytes: setup.bytes,
            plant: setup.plant,
        };
        Self {
            now: begin,
            volume: Volume::new(config),
            heap: Heap::default(),
            replicas,
            store: Store::new(record),
            rules: Vec::new(),
            vanished: BTreeSet::new(),
            lingers: false,
            told: Vec::new(),
            since: begin,
            associations: BTreeMap::new(),
            opening: Vec::new(),
            sent: BTreeMap::new(),
            events: VecDeque::new(),
            requests: BTreeMap::new(),
            counts: BTreeMap::new(),
            written: BTreeMap::new(),
            completions: Vec::new(),
            tags: 0,
        }
    }

    /// The same, owned in epoch 1 by A, with host H connected as association 1; nothing is told.
    pub(crate) fn serving(setup: &Setup) -> Self {
        let mut world = Self::new(setup);
        world.take_over('A', false);
        world.connect(1, 'H', 1);
        assert!(world.volume.is_optimized(), "{:?}", world.take_told());
        world.take_told();
        world.counts.clear();
        world
    }

    pub(crate) fn tell(&mut self, line: impl Into<String>) {
        let after = self.now.since(self.since).as_millis();
        let line = line.into();
        self.told.push(if after == 0 { line } else { format!("+{after}ms {line}") });
    }

    /// All that was told; the story's next step begins.
    pub(crate) fn take_told(&mut self) -> Vec<String> {
        self.since = self.now;
        std::mem::take(&mut self.told)
    }

    pub(crate) fn index(&self, name: char) -> usize {
        let uuid = words::uuid(name);
        self.replicas.iter().position(|replica| replica.uuid == uuid).expect("there is one")
    }

    fn letter(&self, replica: usize) -> char {
        words::name(&self.replicas[replica].uuid)
    }

    // What management and hosts do.

    pub(crate) fn take_over(&mut self, owner: char, force: bool) {
        self.order(Order::TakeOver { owner: words::uuid(owner), force });
    }

    pub(crate) fn order(&mut self, order: Order) {
        self.tags += 1;
        let (now, tag) = (self.now, self.tags);
        self.volume.command(now, tag, order);
        self.run();
    }

    pub(crate) fn connect(&mut self, association: u32, host: char, origin: u64) {
        let host = words::uuid(host);
        self.event(Event::HostConnected { association, host, origin });
    }

    /// A host's command; writes are full of this byte. Tells its tag.
    pub(crate) fn submit(&mut self, association: u32, work: Work, byte: u8) -> u64 {
        let tag = self.post(association, work, byte);
        self.run();
        tag
    }

    /// The same, but the volume gets no turn yet.
    pub(crate) fn post(&mut self, association: u32, work: Work, byte: u8) -> u64 {
        self.tags += 1;
        let (now, tag) = (self.now, self.tags);
        let buffer = match work {
            Work::Read { len, .. } | Work::Write { len, .. } => Some(words::class(len)),
            Work::Zero { .. } | Work::Flush => None,
        };
        // A host's buffer was there before the volume asks for any.
        let max = self.heap.max.take();
        let lease = buffer.map(|class| self.heap.alloc(class).expect("there is memory"));
        self.heap.max = max;
        if let (Work::Write { .. }, Some(lease)) = (work, &lease) {
            self.heap.bytes_mut(lease).fill(byte);
        }
        self.requests.insert(tag, (association, work));
        self.volume.submit(now, Request { tag, association, work, lease });
        tag
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
        self.run();
    }

    // What happens to replicas.

    /// Associations to a replica end without its doing.
    pub(crate) fn cut(&mut self, replica: usize, refused: bool) {
        let all = self.associations.iter().filter(|(_, at)| **at == replica);
        let all: Vec<u32> = all.map(|(association, _)| *association).collect();
        for association in all {
            self.replicas[replica].handle(self.now, Arrival::Closed { association });
            self.disconnect(association);
            self.events.push_back(Event::Broken { association, refused });
        }
    }

    pub(crate) fn kill(&mut self, replica: usize) {
        self.replicas[replica].kill();
        self.cut(replica, true);
    }

    /// A replica that had vanished is there again: what was on its way reaches it.
    pub(crate) fn appear(&mut self, replica: usize) {
        self.vanished.remove(&replica);
        let (opening, rest) = self.opening.iter().partition(|(_, at)| *at == replica);
        self.opening = rest;
        let opening: Vec<(u32, usize)> = opening;
        for (association, _) in opening {
            let uuid = self.replicas[replica].uuid;
            self.associate(association, &uuid);
        }
        self.release(replica, "*");
        self.run();
    }

    /// Another owner fences a replica, with the record as the store has it.
    pub(crate) fn usurp(&mut self, replica: usize) {
        let record = Box::new(self.store.record.clone());
        self.tags += 1;
        let (now, association) = (self.now, STRANGERS + self.tags as u32);
        let tag = u64::MAX - self.tags;
        let replica_at = &mut self.replicas[replica];
        replica_at.handle(now, Arrival::Opened { association });
        replica_at.arrive(now, association, tag, Command::Fence(record), Vec::new());
        self.collect(replica);
    }

    /// Lets commands go that were on their way.
    pub(crate) fn release(&mut self, replica: usize, kind: &str) {
        self.rules.retain(|(at, of, rule)| {
            *at != replica || of != kind || matches!(rule, Rule::Refuse(_))
        });
        let is_due = |sent: &Sent| {
            let its = sent.replica == replica && (sent.held || sent.answer.is_some());
            its && (kind == "*" || words::kind(&sent.command) == kind)
        };
        let tokens = self.sent.iter().filter(|(_, sent)| is_due(sent));
        let tokens: Vec<u64> = tokens.map(|(token, _)| *token).collect();
        for token in tokens {
            let Some(sent) = self.sent.get_mut(&token) else { continue };
            sent.held = false;
            if let Some(result) = sent.answer.take() {
                let (said, answer) = (words::command(&sent.command), words::answer(&result));
                self.tell(format!("{} -> {said}: {answer}", self.letter(replica)));
                self.done(token, result);
            } else {
                self.deliver(token, "->");
            }
            self.run();
        }
    }

    /// Commands of associations that were left end now.
    pub(crate) fn end_lingering(&mut self) {
        self.lingers = false;
        let open = &self.associations;
        let left = self.sent.iter().filter(|(_, sent)| !open.contains_key(&sent.association));
        let left: Vec<u64> = left.map(|(token, _)| *token).collect();
        left.into_iter().for_each(|token| self.done(token, Err(Refusal::Gone)));
        self.run();
    }

    // What goes round.

    /// Goes on until nothing happens by itself.
    pub(crate) fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            self.volume.end_turn(&mut self.heap, self.now);
            while let Some(effect) = self.volume.poll_effect() {
                self.act(effect);
            }
            self.outputs();
            match self.events.pop_front() {
                Some(event) => self.volume.handle(&mut self.heap, self.now, event),
                None if !self.volume.has_work() => return self.check(),
                None => {}
            }
        }
        let last = self.told.len().saturating_sub(40);
        panic!("it never comes to rest:\n{}", self.told[last..].join("\n"));
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        let mut stood = 0;
        loop {
            let guards = self.replicas.iter().filter_map(Replica::due);
            let due = guards.chain(self.volume.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            stood = if due > self.now { 0 } else { stood + 1 };
            let volume = self.volume.poll_timeout() == Some(due);
            let last = self.told.len().saturating_sub(40);
            assert!(
                stood < 100,
                "asked for again and again, by the volume: {volume}\n{}",
                self.told[last..].join("\n")
            );
            self.now = self.now.max(due);
            for replica in 0..self.replicas.len() {
                self.replicas[replica].handle(self.now, Arrival::Elapsed);
                self.collect(replica);
            }
            self.event(Event::Elapsed);
        }
        self.now = until;
    }

    /// When all is done, all buffers are back.
    fn check(&self) {
        let view = self.volume.view();
        if view.requests == 0 && view.calls == 0 && view.locks == 0 {
            assert_eq!(self.heap.leased, 0, "a buffer was kept");
        }
    }

    fn outputs(&mut self) {
        while let Some(Completion { tag, lease, status }) = self.volume.poll_completion() {
            let (association, work) = self.requests.remove(&tag).expect("it was asked for once");
            let mut bytes = Vec::new();
            if let (Work::Read { len, .. }, Some(lease)) = (work, &lease) {
                bytes = self.heap.bytes(lease)[..len as usize].to_vec();
            }
            lease.into_iter().for_each(|lease| self.heap.free(lease));
            let mut line = format!("host {association}: {}", words::work(&work));
            line = format!("{line}: {}", words::status(&status));
            if matches!(work, Work::Read { .. }) && status == braid_nexus::Status::Success {
                line = format!("{line} {}", words::content(&bytes));
            }
            self.tell(line);
            self.completions.push((tag, work, bytes, status));
        }
        while let Some(ended) = self.volume.poll_ended() {
            let result = ended.result.as_ref().map_or_else(words::failure, |()| "done".into());
            self.tell(format!("management: {result}"));
        }
        while let Some(note) = self.volume.poll_note() {
            self.tell(format!("note: {}", words::note(&note)));
        }
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Associate { association, replica } => self.associate(association, &replica),
            Effect::Leave { association } => self.leave(association),
            Effect::Send { association, token, command, span } => {
                self.send(association, token.to_bits(), command, span);
            }
            Effect::Swap { number, old, new, blind } => {
                assert!(!blind, "only a planted bug puts");
                let (told, answer) = self.store.swap((number, old, new));
                self.tell(told);
                if let Some((number, outcome)) = answer {
                    self.events.push_back(Event::Swapped { number, outcome });
                }
            }
            Effect::Fetch => {
                let record = (!self.store.deaf).then(|| Box::new(self.store.record.clone()));
                self.tell(if self.store.deaf { "store: no answer" } else { "store: fetched" });
                self.events.push_back(Event::Fetched { record });
            }
            Effect::HostLeave { association } => self.tell(format!("host {association}: ended")),
            Effect::Access { optimized } => {
                self.tell(if optimized { "ana: optimized" } else { "ana: inaccessible" });
            }
            Effect::Resized { bytes } => self.tell(format!("size: {}", words::bytes(bytes))),
        }
    }

    fn associate(&mut self, association: u32, uuid: &Uuid) {
        let replica = self.index(words::name(uuid));
        let name = self.letter(replica);
        if self.vanished.contains(&replica) {
            self.opening.push((association, replica));
            return self.tell(format!("{name} .. associate"));
        }
        if !self.replicas[replica].is_alive() {
            self.tell(format!("{name} <- associate: refused"));
            return self.events.push_back(Event::Broken { association, refused: true });
        }
        self.associations.insert(association, replica);
        self.replicas[replica].handle(self.now, Arrival::Opened { association });
        self.events.push_back(Event::Associated { association });
        self.collect(replica);
    }

    fn leave(&mut self, association: u32) {
        self.opening.retain(|(at, _)| *at != association);
        let Some(replica) = self.associations.get(&association).copied() else { return };
        let name = self.letter(replica);
        self.tell(format!("{name} <- leave"));
        self.replicas[replica].handle(self.now, Arrival::Closed { association });
        self.disconnect(association);
        self.collect(replica);
    }

    /// An association is no more: its commands end.
    fn disconnect(&mut self, association: u32) {
        self.associations.remove(&association);
        if self.lingers {
            return;
        }
        let its = self.sent.iter().filter(|(_, sent)| sent.association == association);
        let its: Vec<u64> = its.map(|(token, _)| *token).collect();
        its.into_iter().for_each(|token| self.done(token, Err(Refusal::Gone)));
    }

    fn done(&mut self, token: u64, result: Result<Answer, Refusal>) {
        self.sent.remove(&token).expect("it ends once");
        self.events.push_back(Event::Done { token: Token::from_bits(token), result });
    }

    fn send(&mut self, association: u32, token: u64, command: Command, span: Option<Span>) {
        let Some(replica) = self.associations.get(&association).copied() else {
            let result = Err(Refusal::Gone);
            return self.events.push_back(Event::Done { token: Token::from_bits(token), result });
        };
        let kind = words::kind(&command);
        *self.counts.entry((replica, kind)).or_default() += 1;
        if let Command::Write { len, .. } = command {
            *self.written.entry(replica).or_default() += u64::from(len);
        }
        let rule =
            self.rules.iter().position(|(at, of, _)| *at == replica && (of == "*" || of == kind));
        let rule = rule.map(|at| match self.rules[at].2 {
            Rule::Hold => Rule::Hold,
            Rule::Late => Rule::Late,
            Rule::Refuse(_) => self.rules.remove(at).2,
        });
        let gone = self.vanished.contains(&replica);
        let held = gone || rule == Some(Rule::Hold);
        let said = words::command(&command);
        let late = rule == Some(Rule::Late);
        let sent = Sent { replica, association, command, span, held, late, answer: None };
        let older = self.sent.insert(token, sent);
        assert!(older.is_none(), "a token that is out is used again");
        let name = self.letter(replica);
        match rule {
            Some(Rule::Refuse(refusal)) => {
                self.tell(format!("{name} <- {said}: {}", words::refusal_of(&refusal)));
                self.done(token, Err(refusal));
            }
            _ if held => self.tell(format!("{name} .. {said}")),
            _ => self.deliver(token, "<-"),
        }
    }

    /// A command reaches its replica.
    fn deliver(&mut self, token: u64, arrow: &str) {
        let Some(sent) = self.sent.get(&token) else { return };
        let (replica, association) = (sent.replica, sent.association);
        let command = sent.command.clone();
        let writes = matches!(command, Command::Write { .. });
        let payload = sent.span.filter(|_| writes).map(|span| self.heap.span(span).to_vec());
        let (name, said) = (self.letter(replica), words::command(&command));
        let at = self.told.len();
        let payload = payload.unwrap_or_default();
        self.replicas[replica].arrive(self.now, association, token, command, payload);
        let answered = self.collect_but(replica, Some(token));
        let said = format!("{name} {arrow} {said}");
        let line = answered.map_or(said.clone(), |answer| format!("{said}: {answer}"));
        self.tell(line);
        // What it brought about comes after it.
        let line = self.told.pop().expect("it was told");
        self.told.insert(at, line);
    }

    fn collect(&mut self, replica: usize) {
        self.collect_but(replica, None);
    }

    /// Takes what a replica answered; the answer to one command is told by who sent it.
    fn collect_but(&mut self, replica: usize, own: Option<u64>) -> Option<String> {
        let mut told = None;
        let name = self.letter(replica);
        for (_, token, result) in std::mem::take(&mut self.replicas[replica].answers) {
            let payload = self.replicas[replica].take_payload(token);
            let Some(sent) = self.sent.get_mut(&token) else { continue };
            if !self.associations.contains_key(&sent.association) {
                // It ends with its association.
                continue;
            }
            let fills = !matches!(sent.command, Command::Write { .. });
            if let (Some(span), true, true) = (sent.span, fills, result.is_ok()) {
                self.heap.span_mut(span).copy_from_slice(&payload);
            }
            let (said, answer) = (words::command(&sent.command), words::answer(&result));
            if std::mem::take(&mut sent.late) {
                sent.answer = Some(result);
                told = own.map(|_| "...".into());
                continue;
            }
            if own == Some(token) {
                told = Some(answer);
            } else {
                self.tell(format!("{name} -> {said}: {answer}"));
            }
            self.done(token, result);
        }
        for association in std::mem::take(&mut self.replicas[replica].closed) {
            if self.associations.contains_key(&association) {
                self.tell(format!("{name} -> closed"));
                self.disconnect(association);
                self.events.push_back(Event::Broken { association, refused: false });
            }
        }
        told
    }
}
