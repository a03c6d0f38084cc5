//! The network: packets between places, each with its own delay, so in any order.
//!
//! A *line* is an association: a set of connections from a near end, which opened it, to a far
//! end. Each end knows of it by itself; what one end does the other learns from a packet, or
//! never. What was sent on a line may arrive after its near end left: a ghost, carried out unless
//! the far end closed the line or refuses it.
//!
//! Invariants:
//! 1. A packet is delivered at most once, and not while its way is cut: it waits until that heals.
//! 2. A packet that is lost takes its line with it: both ends learn of a reset.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use braid_block::{Instant, Span};
use braid_nexus::wire::{Answer, Command, Refusal};
use braid_nexus::{Ended, Note, Record, Status, Uuid, Work};

use super::clock::{Clock, Happening, Spread};

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A node with its engine.
    Node(u8),
    /// A host.
    Host(u8),
    /// The store of the control plane.
    Store,
    /// The planner.
    Planner,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(number) => write!(f, "n{number}"),
            Self::Host(number) => write!(f, "h{number}"),
            Self::Store => f.write_str("store"),
            Self::Planner => f.write_str("planner"),
        }
    }
}

/// A line, by a number that is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineId(pub u64);

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.0)
    }
}

/// What a line is opened to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// A replica, for a nexus.
    Replica(Uuid),
    /// The same, to go on with an older association: `Plant::ResumeAssociation`.
    Again { replica: Uuid, association: u32 },
    /// A listener of an engine, for bytes.
    Stream,
    /// A volume's portal, for a host.
    Portal { volume: usize, host: Uuid, origin: u64 },
}

/// Payload.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    None,
    /// On the wire.
    Bytes(Rc<[u8]>),
    /// In the memory of the process, which is at both ends.
    Here(Span),
}

/// What goes over a line that stands.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// Of a nexus.
    Command { number: u64, command: Command, data: Data },
    /// Of a replica.
    Answer { number: u64, result: Result<Answer, Refusal>, data: Data },
    /// Of a host.
    Request { tag: u64, work: Work, data: Data },
    /// To a host.
    Completion { tag: u64, status: Status, data: Data, trace: Trace },
    /// A host reads the ANA log.
    ReadAna { tag: u64 },
    /// It says whether this path is optimized.
    Ana { tag: u64, optimized: bool },
    /// The access state changed.
    Access { optimized: bool },
    /// The size changed.
    Resized { bytes: u64 },
    /// A piece of a stream, and where in it.
    Bytes { at: u64, bytes: Rc<[u8]> },
    /// So many bytes of a stream were received.
    Taken { total: u64 },
    /// A stream ends after so many bytes.
    Over { after: u64 },
}

/// What nobody in the cluster knows of a host's command, but a checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// By which node it was answered.
    pub node: u8,
    /// The last epoch in which that engine took I/O.
    pub epoch: u64,
    /// When the command was received.
    pub received: Instant,
    /// When it was answered.
    pub answered: Instant,
}

/// What a packet says.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Opens a line.
    Open { line: LineId, target: Target },
    /// The line stands, under this number at its far end.
    Opened { line: LineId, association: u32 },
    /// Nobody is there for it.
    Refused { line: LineId },
    /// The sender's end is no more; `near`: that end is the near one.
    End { line: LineId, near: bool },
    /// Over a line; `near`: from its near end.
    Frame { line: LineId, near: bool, frame: Frame },
    /// To the store.
    Ask { life: u64, volume: usize, question: u64, ask: Ask },
    /// From the store.
    Tell { life: u64, question: u64, told: Told },
    /// To the planner: a process lives, and how it stands to each volume.
    Beat { standings: Vec<Standing>, replicas: Vec<Kept> },
    /// To the planner.
    Noted { volume: usize, note: Note },
    /// To the planner.
    Ended { volume: usize, ended: Ended },
    /// From the planner.
    Order { volume: usize, tag: u64, command: braid_nexus::Command },
}

impl Body {
    /// A number for what it is: of a piece of a stream, for its content.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Frame { line, near, frame: Frame::Bytes { at, bytes } } => {
                let content = u64::from(crc32c::crc32c(bytes));
                content ^ line.0 << 32 ^ at << 1 ^ u64::from(*near)
            }
            Self::Frame { line, near, .. } | Self::End { line, near } => {
                line.0 << 1 | u64::from(*near)
            }
            Self::Open { line, .. } | Self::Opened { line, .. } | Self::Refused { line } => line.0,
            Self::Ask { question, .. } | Self::Tell { question, .. } => *question,
            Self::Order { tag, .. } => *tag,
            Self::Beat { .. } | Self::Noted { .. } | Self::Ended { .. } => 0,
        }
    }

    /// The line that a frame comes by.
    pub(crate) const fn line(&self) -> Option<LineId> {
        match self {
            Self::Frame { line, .. } => Some(*line),
            _ => None,
        }
    }
}

/// How an engine stands to a volume.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// Its name in the epoch that it owns or has owned.
    pub(crate) owner: Uuid,
    pub(crate) serving: bool,
}

/// What a replica keeps, as its engine tells the planner.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) uuid: Uuid,
    pub(crate) epoch: u64,
    pub(crate) copy: Option<Rc<Record>>,
}

/// What is asked of the store.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Swap { old: Box<Record>, new: Box<Record>, blind: bool },
    Fetch,
}

/// What the store answers.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Committed,
    Changed(Box<Record>),
    Record(Box<Record>),
}

/// Something on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) body: Body,
}

/// How the network behaves.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Delay of a packet.
    pub delay: Spread,
    /// One packet in so many takes `slow` instead; 0: none.
    pub slow_in: u64,
    /// A packet that was lost on the way and sent again, or one stuck in a queue.
    pub slow: Spread,
    /// One packet over a line in so many is lost, and its line reset; 0: none.
    pub reset_in: u64,
    /// One end of a line in so many is not heard of at the other end, which lapses; 0: none.
    pub half_open_in: u64,
    /// How long an end that hears nothing keeps a line.
    pub lapse: Spread,
    /// How long a connect waits.
    pub connect: Duration,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay: Spread::micros(50, 2000),
            slow_in: 0,
            slow: Spread::millis(200, 5000),
            reset_in: 0,
            half_open_in: 0,
            lapse: Spread::millis(1000, 1500),
            connect: Duration::from_millis(1000),
        }
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) weather: Weather,
    lines: u64,
    cuts: BTreeMap<(Place, Place), u64>,
    cut: u64,
    /// What waits for a cut to heal.
    parked: BTreeMap<(Place, Place), VecDeque<Packet>>,
    packets: u64,
}

/// Packets that a cut way keeps; more are lost, oldest first, as full queues lose them.
const PARKED_MAX: usize = 4096;

impl Net {
    pub(crate) fn new(weather: Weather) -> Self {
        Self {
            weather,
            lines: 0,
            cuts: BTreeMap::new(),
            cut: 0,
            parked: BTreeMap::new(),
            packets: 0,
        }
    }

    /// Packets sent so far.
    pub(crate) const fn packets(&self) -> u64 {
        self.packets
    }

    /// A line that is to be opened; sends what opens it.
    pub(crate) fn open(
        &mut self,
        clock: &mut Clock,
        from: Place,
        to: Place,
        target: Target,
    ) -> LineId {
        self.lines += 1;
        let line = LineId(self.lines);
        self.send(clock, from, to, Body::Open { line, target });
        clock.after(self.weather.connect, Happening::Unanswered { line });
        line
    }

    /// A line of another kind than packets make.
    pub(crate) const fn name_line(&mut self) -> LineId {
        self.lines += 1;
        LineId(self.lines)
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, clock: &mut Clock, from: Place, to: Place, body: Body) {
        let local = from == to;
        if !local && self.is_lost(clock, from, to, &body) {
            return;
        }
        self.packets += 1;
        let delay = match local {
            true => clock.spread(Spread::micros(1, 10)),
            false if clock.once_in(self.weather.slow_in) => clock.spread(self.weather.slow),
            false => clock.spread(self.weather.delay),
        };
        clock.after(delay, Happening::Packet(Box::new(Packet { from, to, body })));
    }

    /// Whether a packet does not come at all; who notices will be told otherwise.
    fn is_lost(&mut self, clock: &mut Clock, from: Place, to: Place, body: &Body) -> bool {
        match *body {
            Body::End { line, near } if clock.once_in(self.weather.half_open_in) => {
                clock.tell(|| format!("{to} does not hear that {line} ended"));
                let delay = clock.spread(self.weather.lapse) * 4;
                clock.after(delay, Happening::Lapse { line, near: !near, cut: None });
                true
            }
            Body::Frame { line, near, .. } if clock.once_in(self.weather.reset_in) => {
                clock.tell(|| format!("{line} between {from} and {to} is reset"));
                for (from, to, near) in [(from, to, near), (to, from, !near)] {
                    let delay = clock.spread(self.weather.delay);
                    let body = Body::End { line, near };
                    clock.after(delay, Happening::Packet(Box::new(Packet { from, to, body })));
                }
                true
            }
            _ => false,
        }
    }

    /// An end of a line has heard nothing for too long and is no more. The other end finds out when
    /// it asks whether anybody is there, although it has nothing to send and the way is whole.
    pub(crate) fn forsake(&self, clock: &mut Clock, line: LineId, near: bool) {
        let delay = clock.spread(self.weather.lapse);
        clock.after(delay, Happening::Lapse { line, near, cut: None });
    }

    /// Whether a packet may be delivered; if its way is cut, it waits.
    pub(crate) fn passes(&mut self, packet: Packet) -> Option<Packet> {
        let way = (packet.from, packet.to);
        if !self.cuts.contains_key(&way) {
            return Some(packet);
        }
        let parked = self.parked.entry(way).or_default();
        if parked.len() == PARKED_MAX {
            parked.pop_front();
        }
        parked.push_back(packet);
        None
    }

    /// Cuts a way; tells the number of the cut.
    pub(crate) fn cut(&mut self, from: Place, to: Place) -> u64 {
        self.cut += 1;
        *self.cuts.entry((from, to)).or_insert(self.cut)
    }

    /// Whether this cut has lasted until now.
    pub(crate) fn is_cut(&self, from: Place, to: Place, cut: u64) -> bool {
        [(from, to), (to, from)].iter().any(|way| self.cuts.get(way) == Some(&cut))
    }

    /// Whether anything is cut between two places.
    pub(crate) fn is_apart(&self, one: Place, other: Place) -> bool {
        self.cuts.contains_key(&(one, other)) || self.cuts.contains_key(&(other, one))
    }

    /// The cuts of this moment.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = (Place, Place)> {
        self.cuts.keys().copied()
    }

    /// Heals a way: what waited is on its way again.
    pub(crate) fn heal(&mut self, clock: &mut Clock, from: Place, to: Place) {
        self.cuts.remove(&(from, to));
        for packet in self.parked.remove(&(from, to)).unwrap_or_default() {
            let delay = clock.spread(self.weather.delay);
            clock.after(delay, Happening::Packet(Box::new(packet)));
        }
    }
}

impl Frame {
    /// For the story.
    pub(crate) fn tell(&self) -> String {
        match self {
            Self::Command { number, command, .. } => format!("#{number} {}", tell(command)),
            Self::Answer { number, result, .. } => match result {
                Ok(Answer::Done) => format!("#{number} done"),
                Ok(Answer::Fenced(fenced)) => format!(
                    "#{number} fenced: instance {:x}, copy {:?}, marks {:?}, flush {}",
                    fenced.instance & 0xffff,
                    fenced.copy,
                    fenced.marks,
                    fenced.flush
                ),
                other => format!("#{number} {other:?}"),
            },
            Self::Request { tag, work, .. } => format!("request {tag} {work:?}"),
            Self::Completion { tag, status, trace, .. } => {
                format!("completion {tag} {status:?} (epoch {})", trace.epoch)
            }
            other => format!("{other:?}"),
        }
    }
}

/// A command without the whole record.
fn tell(command: &Command) -> String {
    match command {
        Command::Fence(record) => format!(
            "Fence epoch {} version {} owner {:x}",
            record.epoch, record.version, record.owner[0]
        ),
        Command::CopyRecord(record) => {
            format!("CopyRecord epoch {} version {}", record.epoch, record.version)
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::Story;

    const A: Place = Place::Node(0);
    const B: Place = Place::Node(1);

    fn frame(line: LineId, number: u64) -> Body {
        let frame = Frame::Answer { number, result: Ok(Answer::Done), data: Data::None };
        Body::Frame { line, near: true, frame }
    }

    /// Everything that comes, in order: numbers of frames, and ends as 0.
    fn arrived(clock: &mut Clock, net: &mut Net) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(what) = clock.next() {
            let Happening::Packet(packet) = what else { continue };
            match net.passes(*packet).map(|packet| packet.body) {
                Some(Body::Frame { frame: Frame::Answer { number, .. }, .. }) => {
                    numbers.push(number);
                }
                Some(Body::End { .. }) => numbers.push(0),
                _ => {}
            }
        }
        numbers
    }

    #[test]
    fn packets_of_a_line_overtake_each_other() {
        let (mut clock, mut net) = (Clock::new(1, Story::Silent), Net::new(Weather::default()));
        (1..=50).for_each(|number| net.send(&mut clock, A, B, frame(LineId(1), number)));
        let mut numbers = arrived(&mut clock, &mut net);
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        assert_eq!(numbers, Vec::from_iter(1..=50), "each once");
    }

    #[test]
    fn a_cut_holds_one_direction_until_it_heals() {
        let (mut clock, mut net) = (Clock::new(1, Story::Silent), Net::new(Weather::default()));
        let cut = net.cut(A, B);
        net.send(&mut clock, A, B, frame(LineId(1), 1));
        net.send(&mut clock, B, A, frame(LineId(1), 2));
        assert_eq!(arrived(&mut clock, &mut net), [2]);
        assert!(net.is_cut(B, A, cut) && net.is_apart(A, B));
        net.heal(&mut clock, A, B);
        assert!(!net.is_cut(A, B, cut));
        assert_eq!(arrived(&mut clock, &mut net), [1]);
    }

    #[test]
    fn a_lost_packet_resets_its_line_at_both_ends() {
        let weather = Weather { reset_in: 1, ..Weather::default() };
        let (mut clock, mut net) = (Clock::new(1, Story::Silent), Net::new(weather));
        net.send(&mut clock, A, B, frame(LineId(1), 7));
        assert_eq!(arrived(&mut clock, &mut net), [0, 0]);
    }

    #[test]
    fn an_end_whose_other_end_is_gone_lapses_when_nothing_is_cut_any_more() {
        let (mut clock, net) = (Clock::new(1, Story::Silent), Net::new(Weather::default()));
        net.forsake(&mut clock, LineId(1), true);
        let what = clock.next();
        assert!(matches!(what, Some(Happening::Lapse { near: true, cut: None, .. })), "{what:?}");
    }

    #[test]
    fn an_end_that_is_not_heard_of_lapses() {
        let weather = Weather { half_open_in: 1, ..Weather::default() };
        let (mut clock, mut net) = (Clock::new(1, Story::Silent), Net::new(weather));
        net.send(&mut clock, A, B, Body::End { line: LineId(1), near: true });
        let what = clock.next();
        assert!(matches!(what, Some(Happening::Lapse { near: false, cut: None, .. })), "{what:?}");
        assert!(clock.now() > Instant::ZERO + weather.lapse.low * 4);
    }
}
