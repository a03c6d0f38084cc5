//! Volumes of a process: the nexus of each, its lines to replicas, its hosts, what it asks of the
//! store.
//!
//! Invariants:
//! 1. A command that was sent ends with one `Done`. When its line ended, that is at once for what
//!    went over the wire, whose bytes were copied; for a replica of the same process, which works
//!    on the sender's buffer, when that replica's guard let go of it.
//! 2. A host's buffer is given back by the completion; its tag and its line may be gone by then.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use braid_block::{Class, Instant, Memory, Span, Token};
use braid_nexus::wire::{Answer, Refusal};
use braid_nexus::{
    Command, Completion, Effect, Event, Note, Plant, Record, Request, Status, Swapped, Uuid, Work,
};

use super::Happened;
use super::clock::Happening;
use super::net::{Ask, Body, Data, Frame, LineId, Place, Standing, Target, Told, Trace};
use super::nexus::{Nexus, Shape};
use super::process::Context;
use super::replica::Replicas;
use crate::memory::SimMemory;

/// A volume at this process.
struct Engine {
    nexus: Box<dyn Nexus>,
    /// What happened to it meanwhile.
    news: VecDeque<Event>,
    /// The last epoch in which it took I/O: what it completes with success is of that one, also
    /// when it is no owner any more by the time the completion is taken.
    epoch: u64,
}

/// A line to a replica.
#[derive(Debug)]
struct Mirror {
    volume: usize,
    association: u32,
    replica: Uuid,
    far: Place,
    up: bool,
    /// Its number at the far end, once it stood: what goes on when rules are switched off.
    number: Option<u32>,
    /// What was sent and not answered, to be sent again then.
    sent: BTreeMap<u64, (braid_nexus::wire::Command, Data)>,
    /// By number: token, and buffer.
    waiting: BTreeMap<u64, (Token, Option<Span>)>,
}

/// A line of a host.
#[derive(Clone, Copy, Debug)]
struct Guest {
    volume: usize,
    association: u32,
    place: Place,
}

/// A host's command in work.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    line: LineId,
    tag: u64,
    received: Instant,
    /// Bytes that a read fills.
    fills: usize,
}

/// Something asked of the store.
#[derive(Clone, Debug)]
enum Question {
    Swap { number: u64, new: Box<Record> },
    Fetch,
}

/// The volumes of a process.
pub(crate) struct Engines {
    list: Vec<Engine>,
    mirrors: BTreeMap<LineId, Mirror>,
    /// Lines by volume and association.
    lines: BTreeMap<(usize, u32), LineId>,
    guests: BTreeMap<LineId, Guest>,
    portals: BTreeMap<(usize, u32), LineId>,
    wanted: BTreeMap<u64, Wanted>,
    questions: BTreeMap<u64, (usize, Question)>,
    /// Commands of lines that ended, whose buffers a replica of this process still uses.
    lingering: BTreeMap<(LineId, u64), (usize, Token)>,
    associations: u32,
    numbers: u64,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines")
            .field("mirrors", &self.mirrors)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

impl Engines {
    pub(crate) const fn new() -> Self {
        Self {
            list: Vec::new(),
            mirrors: BTreeMap::new(),
            lines: BTreeMap::new(),
            guests: BTreeMap::new(),
            portals: BTreeMap::new(),
            wanted: BTreeMap::new(),
            questions: BTreeMap::new(),
            lingering: BTreeMap::new(),
            associations: 0,
            numbers: 0,
        }
    }

    /// Adds the next volume.
    pub(crate) fn add(&mut self, maker: fn(Shape) -> Box<dyn Nexus>, shape: Shape) {
        self.list.push(Engine { nexus: maker(shape), news: VecDeque::new(), epoch: 0 });
    }

    /// The volumes.
    pub(crate) fn nexuses(&self) -> impl Iterator<Item = &dyn Nexus> {
        self.list.iter().map(|engine| &*engine.nexus)
    }

    /// How this process stands to each volume.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let standing = |nexus: &dyn Nexus| {
            let view = nexus.view();
            Standing { owner: view.owner, serving: view.serving }
        };
        self.nexuses().map(standing).collect()
    }

    /// All lines that begin or end here: whether this is the near end, and the other end's place.
    pub(crate) fn line_ends(&self) -> impl Iterator<Item = (LineId, bool, Place)> {
        let mirrors = self.mirrors.iter().map(|(line, mirror)| (*line, true, mirror.far));
        mirrors.chain(self.guests.iter().map(|(line, guest)| (*line, false, guest.place)))
    }

    /// Whether this process has that end of a line.
    pub(crate) fn has(&self, line: LineId, near: bool) -> bool {
        if near { self.mirrors.contains_key(&line) } else { self.guests.contains_key(&line) }
    }

    /// A command of the management.
    pub(crate) fn command(&mut self, cx: &Context<'_>, volume: usize, tag: u64, command: Command) {
        if let Some(engine) = self.list.get_mut(volume) {
            engine.nexus.command(cx.clock.now(), tag, command);
        }
    }

    /// A line to a replica stands.
    pub(crate) fn opened(&mut self, cx: &mut Context<'_>, line: LineId, number: u32) {
        if let Some(mirror) = self.mirrors.get_mut(&line) {
            mirror.up = true;
            if mirror.number.replace(number).is_some() {
                for (number, (command, data)) in mirror.sent.clone() {
                    let frame = Frame::Command { number, command, data };
                    cx.send(mirror.far, Body::Frame { line, near: true, frame });
                }
                return;
            }
            let (volume, association) = (mirror.volume, mirror.association);
            self.tell(volume, Event::Associated { association });
        }
    }

    /// Whether a line to a replica was asked for and does not stand.
    pub(crate) fn is_opening(&self, line: LineId) -> bool {
        self.mirrors.get(&line).is_some_and(|mirror| !mirror.up)
    }

    /// A line to a replica ended, from the other side, or came to nothing.
    pub(crate) fn broken(
        &mut self,
        cx: &mut Context<'_>,
        replicas: &Replicas,
        line: LineId,
        refused: bool,
    ) {
        let Some(mut mirror) = self.mirrors.remove(&line) else { return };
        let resumes = cx.plant == Some(Plant::ResumeAssociation);
        if let Some(association) = mirror.number.filter(|_| resumes) {
            // As a transport does that connects again by itself.
            let line = cx.open(mirror.far, Target::Again { replica: mirror.replica, association });
            mirror.up = false;
            self.lines.insert((mirror.volume, mirror.association), line);
            self.mirrors.insert(line, mirror);
            return;
        }
        let (volume, association) = (mirror.volume, mirror.association);
        self.lines.remove(&(volume, association));
        self.tell(volume, Event::Broken { association, refused });
        self.let_go(replicas, line, mirror);
    }

    /// What was sent on a line that ended is answered by nobody.
    fn let_go(&mut self, replicas: &Replicas, line: LineId, mirror: Mirror) {
        for (number, (token, _)) in mirror.waiting {
            if replicas.holds(line, number) {
                self.lingering.insert((line, number), (mirror.volume, token));
            } else {
                self.tell(mirror.volume, Event::Done { token, result: Err(Refusal::Gone) });
            }
        }
    }

    /// A replica of this process let go of a buffer.
    pub(crate) fn released(&mut self, line: LineId, number: u64) {
        if let Some((volume, token)) = self.lingering.remove(&(line, number)) {
            self.tell(volume, Event::Done { token, result: Err(Refusal::Gone) });
        }
    }

    /// A replica answered.
    pub(crate) fn answered(
        &mut self,
        mem: &mut SimMemory,
        line: LineId,
        number: u64,
        result: Result<Answer, Refusal>,
        data: &Data,
    ) {
        let Some(mirror) = self.mirrors.get_mut(&line) else { return };
        let Some((token, span)) = mirror.waiting.remove(&number) else { return };
        mirror.sent.remove(&number);
        let volume = mirror.volume;
        if let (Data::Bytes(bytes), Some(span)) = (data, span) {
            let len = u32::try_from(bytes.len()).expect("a transfer");
            assert!(len <= span.len, "an answer that does not fit in its buffer");
            mem.span_mut(Span { len, ..span }).copy_from_slice(bytes);
        }
        self.tell(volume, Event::Done { token, result });
    }

    /// A host connected to a volume's portal.
    pub(crate) fn guest(
        &mut self,
        line: LineId,
        place: Place,
        (volume, host, origin): (usize, Uuid, u64),
    ) -> Option<u32> {
        if volume >= self.list.len() {
            return None;
        }
        self.associations += 1;
        let association = self.associations;
        self.guests.insert(line, Guest { volume, association, place });
        self.portals.insert((volume, association), line);
        self.tell(volume, Event::HostConnected { association, host, origin });
        Some(association)
    }

    /// A host's line ended, from its side.
    pub(crate) fn guest_gone(&mut self, line: LineId) {
        if let Some(Guest { volume, association, .. }) = self.guests.remove(&line) {
            self.portals.remove(&(volume, association));
            self.tell(volume, Event::HostGone { association });
        }
    }

    /// A host reads the ANA log: as it is now.
    pub(crate) fn read_ana(
        &mut self,
        cx: &mut Context<'_>,
        mem: &mut SimMemory,
        line: LineId,
        tag: u64,
    ) {
        let Some(Guest { volume, association, place }) = self.guests.get(&line).copied() else {
            return;
        };
        // What happened before is known before.
        self.catch_up(cx.clock.now(), mem, volume);
        let nexus = &mut self.list[volume].nexus;
        let optimized = nexus.is_optimized();
        nexus.handle(mem, cx.clock.now(), Event::HostReadAna { association });
        let frame = Frame::Ana { tag, optimized };
        cx.send(place, Body::Frame { line, near: false, frame });
    }

    /// A host's command came.
    pub(crate) fn request(
        &mut self,
        cx: &mut Context<'_>,
        mem: &mut SimMemory,
        line: LineId,
        tag: u64,
        work: Work,
        data: &Data,
    ) {
        let Some(Guest { volume, association, place }) = self.guests.get(&line).copied() else {
            return;
        };
        let now = cx.clock.now();
        self.catch_up(now, mem, volume);
        let (needs, fills) = match work {
            Work::Read { len, .. } => (len, len as usize),
            Work::Write { len, .. } => (len, 0),
            Work::Zero { .. } | Work::Flush => (0, 0),
        };
        let lease = Class::holding(needs).filter(|_| needs > 0).map(|class| mem.alloc(class));
        if lease == Some(None) {
            let trace = self.trace(cx, volume, now);
            let (status, data) = (Status::Busy, Data::None);
            let frame = Frame::Completion { tag, status, data, trace };
            return cx.send(place, Body::Frame { line, near: false, frame });
        }
        let lease = lease.flatten();
        if let (Some(lease), Data::Bytes(bytes)) = (&lease, data) {
            mem.bytes_mut(lease)[..bytes.len()].copy_from_slice(bytes);
        }
        self.numbers += 1;
        self.wanted.insert(self.numbers, Wanted { line, tag, received: now, fills });
        let request = Request { tag: self.numbers, association, work, lease };
        self.list[volume].nexus.submit(now, request);
    }

    fn trace(&self, cx: &Context<'_>, volume: usize, received: Instant) -> Trace {
        let epoch = self.list[volume].epoch;
        Trace { node: cx.node, epoch, received, answered: cx.clock.now() }
    }

    /// The store answered.
    pub(crate) fn told(&mut self, question: u64, told: Told) {
        let Some((volume, asked)) = self.questions.remove(&question) else { return };
        let event = match (asked, told) {
            (Question::Swap { number, .. }, Told::Committed) => {
                Event::Swapped { number, outcome: Swapped::Committed }
            }
            (Question::Swap { number, .. }, Told::Changed(record)) => {
                Event::Swapped { number, outcome: Swapped::Changed(record) }
            }
            (Question::Fetch, Told::Record(record)) => Event::Fetched { record: Some(record) },
            (asked, told) => unreachable!("the store was asked {asked:?} and said {told:?}"),
        };
        self.tell(volume, event);
    }

    /// The store has not answered; whether it was still waited for.
    pub(crate) fn silence(&mut self, cx: &mut Context<'_>, question: u64) -> bool {
        let Some((volume, asked)) = self.questions.remove(&question) else { return false };
        let event = match asked {
            Question::Swap { number, new: record } => {
                cx.out.push_back(Happened::Unsure { volume, record });
                Event::Swapped { number, outcome: Swapped::Unknown }
            }
            Question::Fetch => Event::Fetched { record: None },
        };
        self.tell(volume, event);
        true
    }

    /// Time passed.
    pub(crate) fn elapsed(&mut self, cx: &Context<'_>, mem: &mut SimMemory) {
        for engine in &mut self.list {
            engine.nexus.handle(mem, cx.clock.now(), Event::Elapsed);
        }
    }

    /// The next deadline.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.nexuses().filter_map(Nexus::poll_timeout).min()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.nexuses().any(Nexus::has_work)
    }

    fn tell(&mut self, volume: usize, event: Event) {
        self.list[volume].news.push_back(event);
    }

    /// Tells a volume what happened.
    fn catch_up(&mut self, now: Instant, mem: &mut SimMemory, volume: usize) {
        let Engine { nexus, news, .. } = &mut self.list[volume];
        for event in news.drain(..) {
            nexus.handle(mem, now, event);
        }
    }

    /// Ends a turn of every volume and does what they want; whether there was anything.
    pub(crate) fn turn(
        &mut self,
        cx: &mut Context<'_>,
        mem: &mut SimMemory,
        replicas: &Replicas,
    ) -> bool {
        let mut moved = false;
        for volume in 0..self.list.len() {
            moved |= !self.list[volume].news.is_empty();
            self.catch_up(cx.clock.now(), mem, volume);
            self.list[volume].nexus.end_turn(mem, cx.clock.now());
            while let Some(effect) = self.list[volume].nexus.poll_effect() {
                moved = true;
                self.act(cx, mem, replicas, volume, effect);
            }
            while let Some(completion) = self.list[volume].nexus.poll_completion() {
                moved = true;
                self.complete(cx, mem, volume, completion);
            }
            while let Some(ended) = self.list[volume].nexus.poll_ended() {
                moved = true;
                cx.ended(volume, ended);
            }
            while let Some(note) = self.list[volume].nexus.poll_note() {
                moved = true;
                if let Note::Serving { epoch, .. } = note {
                    self.list[volume].epoch = epoch;
                }
                cx.note(volume, note);
            }
        }
        moved
    }

    fn act(
        &mut self,
        cx: &mut Context<'_>,
        mem: &mut SimMemory,
        replicas: &Replicas,
        volume: usize,
        effect: Effect,
    ) {
        match effect {
            Effect::Associate { association, replica } => {
                self.associate(cx, volume, association, &replica);
            }
            Effect::Leave { association } => {
                let Some(line) = self.lines.remove(&(volume, association)) else { return };
                let mirror = self.mirrors.remove(&line).expect("a line that stands");
                cx.send(mirror.far, Body::End { line, near: true });
                self.let_go(replicas, line, mirror);
            }
            Effect::Send { association, token, command, span } => {
                let Some(line) = self.lines.get(&(volume, association)) else {
                    return self.tell(volume, Event::Done { token, result: Err(Refusal::Gone) });
                };
                let mirror = self.mirrors.get_mut(line).expect("a line that stands");
                self.numbers += 1;
                let number = self.numbers;
                mirror.waiting.insert(number, (token, span));
                let is_write = matches!(command, braid_nexus::wire::Command::Write { .. });
                let data = match span {
                    Some(span) if mirror.far == cx.place() => Data::Here(span),
                    Some(span) if is_write => Data::Bytes(mem.span(span).into()),
                    _ => Data::None,
                };
                if cx.plant == Some(Plant::ResumeAssociation) {
                    mirror.sent.insert(number, (command.clone(), data.clone()));
                }
                let frame = Frame::Command { number, command, data };
                cx.send(mirror.far, Body::Frame { line: *line, near: true, frame });
            }
            Effect::Swap { number, old, new, blind } => {
                let asked = Question::Swap { number, new: new.clone() };
                self.ask(cx, volume, asked, Ask::Swap { old, new, blind });
            }
            Effect::Fetch => self.ask(cx, volume, Question::Fetch, Ask::Fetch),
            Effect::HostLeave { association } => {
                let Some(line) = self.portals.remove(&(volume, association)) else { return };
                let guest = self.guests.remove(&line).expect("a guest's line");
                cx.send(guest.place, Body::End { line, near: false });
            }
            Effect::Access { optimized } => {
                cx.clock.tell(|| format!("n{} v{volume}: optimized {optimized}", cx.node));
                self.announce(cx, volume, &Frame::Access { optimized });
            }
            Effect::Resized { bytes } => self.announce(cx, volume, &Frame::Resized { bytes }),
        }
    }

    fn associate(&mut self, cx: &mut Context<'_>, volume: usize, association: u32, replica: &Uuid) {
        let Some(node) = cx.sites.node_of(replica) else {
            return self.tell(volume, Event::Broken { association, refused: true });
        };
        let far = Place::Node(node);
        let line = cx.open(far, Target::Replica(*replica));
        let mirror = Mirror {
            volume,
            association,
            replica: *replica,
            far,
            up: false,
            number: None,
            sent: BTreeMap::new(),
            waiting: BTreeMap::new(),
        };
        self.mirrors.insert(line, mirror);
        self.lines.insert((volume, association), line);
    }

    fn ask(&mut self, cx: &mut Context<'_>, volume: usize, asked: Question, ask: Ask) {
        self.numbers += 1;
        let question = self.numbers;
        self.questions.insert(question, (volume, asked));
        let (node, life) = (cx.node, cx.life);
        let patience = cx.patience;
        cx.clock.after(patience, Happening::Silence { node, life, question });
        cx.send(Place::Store, Body::Ask { life, volume, question, ask });
    }

    fn announce(&self, cx: &mut Context<'_>, volume: usize, frame: &Frame) {
        for (line, guest) in self.guests.iter().filter(|(_, guest)| guest.volume == volume) {
            let frame = frame.clone();
            cx.send(guest.place, Body::Frame { line: *line, near: false, frame });
        }
    }

    fn complete(
        &mut self,
        cx: &mut Context<'_>,
        mem: &mut SimMemory,
        volume: usize,
        completion: Completion,
    ) {
        let Completion { tag, lease, status } = completion;
        let wanted = self.wanted.remove(&tag).expect("a volume completes a command once");
        let mut data = Data::None;
        if let Some(lease) = lease {
            if wanted.fills > 0 && status == Status::Success {
                data = Data::Bytes(Rc::from(&mem.bytes(&lease)[..wanted.fills]));
            }
            mem.free(lease);
        }
        let trace = self.trace(cx, volume, wanted.received);
        let answered = Happened::Answered { line: wanted.line, tag: wanted.tag, status, trace };
        cx.out.push_back(answered);
        let Some(guest) = self.guests.get(&wanted.line) else { return };
        let (line, place) = (wanted.line, guest.place);
        let frame = Frame::Completion { tag: wanted.tag, status, data, trace };
        cx.send(place, Body::Frame { line, near: false, frame });
    }
}

/// Whether a note is for the planner: it has to do something.
pub(crate) const fn concerns_planner(note: &Note) -> bool {
    matches!(note, Note::Lost | Note::Stopped { .. })
}
