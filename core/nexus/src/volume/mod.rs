//! One engine's part in a volume: its portal's hosts, and the incarnation that owns the volume,
//! while there is one.
//!
//! `front` knows the hosts, `members` the associations to replicas and what is out on them,
//! `swap` changes the record, `takeover` makes an owner, `write`, `read` and `flush` are the
//! flows of hosts' commands, `lease` keeps the promise that reads need; `segment` makes ranges
//! equal, for `resync` and `repair` and for `comeback`, which brings replicas back (`absent` says
//! when, `rebuild` what is copied); `clean` clears marks; `snapshot`, `resize` and `shutdown` are
//! what their names say.
//!
//! Invariants (each flow names those that it keeps):
//! 1. A write is acknowledged when every member of the record, as it is committed and copied, has
//!    applied it, and the joiner with them; while an add is sent, its joiner is a member.
//! 2. A member that failed gets nothing any more, and counts until its exclusion is committed and
//!    every remaining member has the copy.
//! 3. A value is returned only if all members have it: no suspect region is read, no write beside
//!    it is unsettled, and every member promised to answer no other owner's fence.
//! 4. Everything about an owner dies with it: a late answer finds only the buffer to give back.
//! 5. A buffer goes back when the last command that names it has ended.

mod absent;
mod call;
mod clean;
mod comeback;
mod compared;
mod flush;
mod front;
mod lease;
mod members;
mod op;
mod order;
mod pace;
mod ranges;
mod read;
mod rebuild;
mod regions;
mod segment;
mod shutdown;
mod snapshot;
mod state;
mod stop;
mod swap;
mod takeover;
mod totals;
mod write;
mod written;

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use braid_block::{Instant, Key, Memory, Slab, Token};

use crate::record::{REPLICAS_MAX, Record, Uuid};
use crate::wire::{Answer, Refusal};
use crate::{
    Command, Completion, Effect, Ended, Event, Failure, Limits, Note, Plant, Request, Swapped,
    Timing, Why,
};

use call::{Call, Purpose};
use front::{CALLS_KEPT, Front};
use op::Op;
use pace::Pacing;
use ranges::Holder;
use segment::{SEGMENTS_MAX, Segment};
use state::Nexus;
use totals::Standing;

pub use pace::{Pace, Progress};
pub use segment::Copying;
pub use totals::Totals;

/// What a volume is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which volume.
    pub volume: Uuid,
    /// Times of the protocol.
    pub timing: Timing,
    /// What is allocated.
    pub limits: Limits,
    /// A replica to read from first: the one on this engine.
    pub near: Option<Uuid>,
    /// Bytes, as last known; zero: not yet.
    pub bytes: u64,
    /// A rule that is switched off.
    pub plant: Option<Plant>,
}

/// One engine's part in a volume.
#[derive(Debug)]
pub struct Volume {
    config: Config,
    bytes: u64,
    front: Front,
    nexus: Option<Box<Nexus>>,
    /// Hosts' commands in work, also those that only wait for their buffer.
    ops: Slab<Op>,
    /// Segments in work, also those that only wait for their buffers.
    segments: Slab<Segment>,
    /// Commands to replicas that have not ended.
    calls: Slab<Call>,
    /// The same in the order of their deadlines; those that have ended are skipped.
    due: VecDeque<(Instant, Key)>,
    /// The same for walks through a replica's maps.
    due_walks: VecDeque<(Instant, Key)>,
    /// Commands that can go on.
    ready: VecDeque<Holder>,
    /// Reads that wait for a lease, a region or writes: looked at when one of these changes.
    waiting: VecDeque<Key>,
    /// Something that waiting ones wait for has changed.
    stirred: bool,
    /// The owner came a step further by itself: the next one may be possible at once.
    stepped: bool,
    associations: u32,
    /// Questions for the record that were not answered, and how many of them an earlier owner
    /// asked.
    fetches: u32,
    old_fetches: u32,
    swaps: u64,
    pacing: Pacing,
    totals: Totals,
    standing: Standing,
    effects: VecDeque<Effect>,
    completions: VecDeque<Completion>,
    ended: VecDeque<Ended>,
    notes: VecDeque<Note>,
}

/// Where a volume stands at this engine: for lists, metrics and checkers.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Epoch of this owner; zero: there is none.
    pub epoch: u64,
    /// Its name.
    pub owner: Uuid,
    /// Hosts' I/O is accepted.
    pub serving: bool,
    /// The record, as this owner knows it to be committed.
    pub record: Option<Record>,
    /// Slots that are relied on.
    pub members: u8,
    /// Slots of members that failed and are not excluded yet.
    pub failing: u8,
    /// A change of the record is on its way to the store: who is a member may be another question
    /// soon.
    pub changing: bool,
    /// The slot that returns.
    pub joiner: Option<u8>,
    /// Regions that must be compared before they are read.
    pub suspect: u64,
    /// Slots whose blocks are being copied to other members.
    pub copied: u8,
    /// Ranges that are locked or waited for.
    pub locks: usize,
    /// Hosts' commands in work.
    pub requests: usize,
    /// Commands to replicas that have not ended.
    pub calls: usize,
    /// When the oldest of them was sent: who takes long with it will have failed.
    pub oldest: Option<Instant>,
    /// Ranges that are being made equal, with their buffers.
    pub segments: usize,
    /// Regions that may be marked on members.
    pub marked: u64,
    /// How far the replica that returns is, while it is copied to.
    pub rebuild: Option<Progress>,
    /// Whether that has its turn; none: it needs none.
    pub turn: Option<bool>,
    /// How fast replicas that return are brought up to date.
    pub pace: Pace,
    /// What happened so far.
    pub totals: Totals,
}

impl Volume {
    /// A volume that this engine does not own.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let limits = config.limits;
        // One more for a write that is mended: it waits for no lock, and others wait for its.
        let segments = limits.segments_max.min(SEGMENTS_MAX) + 1;
        // A command is out at most once to each replica; the rest is for the owner.
        let calls = (limits.requests_max + segments) * REPLICAS_MAX as u32 + CALLS_KEPT as u32;
        Self {
            bytes: config.bytes,
            front: Front::new(limits.hosts_max),
            nexus: None,
            ops: Slab::with_capacity(limits.requests_max),
            segments: Slab::with_capacity(segments),
            calls: Slab::with_capacity(calls),
            due: VecDeque::new(),
            due_walks: VecDeque::new(),
            fetches: 0,
            old_fetches: 0,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            stirred: false,
            stepped: false,
            associations: 0,
            swaps: 0,
            pacing: Pacing::default(),
            totals: Totals::default(),
            standing: Standing::default(),
            effects: VecDeque::new(),
            completions: VecDeque::new(),
            ended: VecDeque::new(),
            notes: VecDeque::new(),
            config,
        }
    }

    /// Takes one event.
    pub fn handle<M: Memory>(&mut self, mem: &mut M, now: Instant, event: Event) {
        match event {
            Event::Associated { association } => self.on_associated(now, association),
            Event::Broken { association, refused } => self.on_broken(now, association, refused),
            Event::Done { token, result } => self.on_done(mem, now, token, result),
            Event::Swapped { number, outcome } => self.on_swapped(now, number, outcome),
            Event::Fetched { record } => self.on_fetched(now, record),
            Event::HostConnected { association, host, origin } => {
                self.on_host_connected(association, host, origin);
            }
            Event::HostGone { association } => self.front.gone(association),
            Event::HostReadAna { association } => self.on_host_read_ana(association),
            // What is due is looked at when the turn ends.
            Event::Elapsed => {}
        }
    }

    /// Takes a host's command.
    pub fn submit(&mut self, now: Instant, request: Request) {
        if let Err(status) = self.may_submit(&request) {
            let Request { tag, lease, .. } = request;
            return self.completions.push_back(Completion { tag, lease, status });
        }
        let op = Op::new(request);
        self.hosts_are_there(now);
        let Ok(key) = self.ops.insert(op) else { unreachable!("there is room for it") };
        self.advance(now, key);
    }

    /// Takes a command of the management; [`Volume::poll_ended`] tells its end by `tag`.
    pub fn command(&mut self, now: Instant, tag: u64, command: Command) {
        match command {
            Command::TakeOver { owner, force } => self.take_over(tag, owner, force),
            command => self.order(now, tag, command),
        }
    }

    /// Ends a turn: goes on with what was woken, and does what is due.
    pub fn end_turn<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        self.stepped = false;
        self.count_time(now);
        self.overdue(now);
        self.owner_on(mem, now);
        for _ in 0..self.ready.len() {
            let Some(holder) = self.ready.pop_front() else { break };
            match holder {
                Holder::Op(key) => self.advance(now, key),
                Holder::Segment(key) => self.compare(now, key),
            }
        }
        if core::mem::take(&mut self.stirred) {
            for _ in 0..self.waiting.len() {
                let Some(key) = self.waiting.pop_front() else { break };
                self.advance(now, key);
            }
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next host's command that ended.
    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// The next command of the management that ended.
    pub fn poll_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// Whether a turn would find work even if nothing happens: the shell must not wait.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.stirred || self.stepped
    }

    /// Whether this portal's access state is optimized; else it is inaccessible.
    #[must_use]
    pub fn is_optimized(&self) -> bool {
        self.nexus.as_ref().is_some_and(|nexus| nexus.is_open())
    }

    /// Bytes of the volume, as hosts see it; zero: not known yet.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it stands.
    #[must_use]
    pub fn view(&self) -> View {
        let requests = self.ops.len();
        let (calls, segments) = (self.calls.len(), self.segments.len());
        let (pace, totals) = (self.pace(), self.totals);
        let Some(nexus) = &self.nexus else {
            return View { requests, calls, segments, pace, totals, ..View::default() };
        };
        View {
            epoch: nexus.epoch,
            owner: nexus.owner,
            serving: self.is_optimized(),
            record: nexus.record.as_deref().cloned(),
            members: nexus.members,
            failing: nexus.failing,
            changing: nexus.swap.is_some(),
            joiner: nexus.joiner_slot(),
            suspect: nexus.suspect.len(),
            copied: self.segments.iter().fold(0, |all, (_, segment)| all | segment.copied_from()),
            locks: nexus.ranges.len(),
            requests,
            calls,
            oldest: self.oldest_call(),
            segments,
            marked: nexus.written.len(),
            rebuild: nexus.progress(),
            turn: self.turn(),
            pace,
            totals,
        }
    }

    /// Whether a rule is switched off.
    fn planted(&self, plant: Plant) -> bool {
        self.config.plant == Some(plant)
    }

    fn note(&mut self, note: Note) {
        self.totals.count(&note);
        self.notes.push_back(note);
    }

    fn end(&mut self, tag: u64, result: Result<(), Failure>) {
        self.ended.push_back(Ended { tag, result });
    }

    fn on_done<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        token: Token,
        result: Result<Answer, Refusal>,
    ) {
        let Some(call) = self.calls.remove(token.key()) else { return };
        let nexus = self.nexus.as_deref();
        let live = nexus.is_some_and(|nexus| nexus.is_current(&call));
        let ended = live && self.is_fatal(now, &call, &result);
        let result = if live && !ended { result } else { Err(Refusal::Gone) };
        // What the end of its association meant was seen to when that ended.
        let over = !live && matches!(call.purpose, Purpose::Copy | Purpose::Lease);
        if !over {
            self.route(mem, now, call, result);
        }
    }

    /// What an answer says of its sender, whatever was asked: it may end the owner, or the
    /// member. Tells whether the owner ended.
    fn is_fatal(&mut self, now: Instant, call: &Call, result: &Result<Answer, Refusal>) -> bool {
        match result {
            Err(Refusal::Conflict { .. }) => {
                self.stop(Why::Conflict);
                true
            }
            Err(refusal @ (Refusal::Gone | Refusal::Failed)) => {
                self.fail(now, call.slot, *refusal);
                false
            }
            _ => false,
        }
    }

    /// Hands an answer to who asked.
    fn route<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        call: Call,
        result: Result<Answer, Refusal>,
    ) {
        let slot = call.slot;
        match call.purpose {
            Purpose::Op(key) => self.on_op_done(now, key, slot, result),
            Purpose::Segment(key) => self.on_segment_done(mem, now, key, slot, &result),
            Purpose::Joiner(attempt) => self.on_joiner(now, attempt, &result),
            Purpose::Marks(attempt) => self.on_marks(now, slot, attempt, &result),
            Purpose::Fence => self.on_fenced(now, slot, result),
            Purpose::Copy => self.on_copied(now, slot, result),
            Purpose::Lease => self.on_leased(now, slot, call.sent, &result),
            Purpose::Clean => self.on_cleaned(now, slot, &result),
            Purpose::OwnFlush => self.on_own_flush(now, slot, &result),
            Purpose::Snapshot => self.on_snapshot(slot, &result),
            Purpose::Resize => self.on_resize(now, slot, &result),
            Purpose::Delete(number) => self.on_deleted(now, number, slot, &result),
            // What its answer had to tell is whether its sender lives.
            Purpose::Release => {}
        }
    }

    fn on_swapped(&mut self, now: Instant, number: u64, outcome: Swapped) {
        let asked = self.nexus.as_ref().and_then(|nexus| nexus.swap.as_ref());
        if asked.is_some_and(|swap| swap.number == number) {
            self.swapped(now, outcome);
        }
    }
}
