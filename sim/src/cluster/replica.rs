//! Replicas of a process: lines that come in, a guard before each replica, and the pool.
//!
//! ```text
//! frame -> arrival -> guard -Carry-> pool request or command -> guard -Answer-> frame
//!                           -Keep -> pool command Bear
//! ```
//!
//! Invariants:
//! 1. A buffer of a command is free when its guard has answered, and not before: of a remote one
//!    the lease that was taken here is given back by who took it; that of a command of the same
//!    process is an alias of its owner's, handed to the pool and dropped when it comes back.
//! 2. What a guard carries is answered by the pool exactly once.
//! 3. After a line was closed here nothing that comes by it is carried out.

use std::collections::BTreeMap;
use std::rc::Rc;

use braid_block::{Class, Lease, Memory, Span};
use braid_nexus::Uuid;
use braid_nexus::guard::{Act, Durable, Event, Guard, Kept, Outcome, View};
use braid_nexus::wire::{Command, Refusal, comparison_bytes};
use braid_pool::{Bearing, Completion, Failure, Fence, Handle, Pool, Request, Work};

use super::net::{Body, Data, Frame, LineId, Place};
use super::process::Context;
use super::{Happened, Late};
use crate::memory::SimMemory;

/// A replica and its guard.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) uuid: Uuid,
    handle: Handle,
    pub(crate) guard: Guard,
    /// Fences that it has answered.
    fences: u64,
}

/// A line that came in.
#[derive(Clone, Copy, Debug)]
struct Line {
    line: LineId,
    peer: Place,
    replica: usize,
    /// Once it was fenced by this line: in which epoch, and how often it was fenced by then.
    fenced: Option<(u64, u64)>,
}

/// A command that came, until its guard answers.
#[derive(Debug)]
struct Arrival {
    replica: usize,
    line: LineId,
    peer: Place,
    number: u64,
    data: Data,
    /// What it filled.
    filled: Data,
}

/// Which guard waits for the pool, and for what: it may have answered that meanwhile, when a newer
/// fence took the place of an older one.
#[derive(Clone, Copy, Debug)]
struct Owed {
    replica: usize,
    tag: u64,
}

/// What a request or command of the pool is for.
#[derive(Debug)]
enum Job {
    /// The record of a replica is being read, after a start.
    Load { uuid: Uuid },
    /// A guard's command, without payload.
    Plain(Owed),
    /// A guard's clearing of marks.
    Clean(Owed),
    /// A guard's flush, before its snapshot.
    Flush { owed: Owed, uuid: Uuid },
    /// A guard's list of marks.
    Marks(Owed),
    /// A guard's read, write or comparison: whose lease, and how many bytes it fills.
    Transfer { owed: Owed, alias: bool, fills: Option<u32> },
    /// What a guard keeps.
    Keep(Owed),
    /// A command of whoever drives the cluster.
    Errand { number: u64 },
}

/// A write or a zeroing in work: offset, length, and the content but of zeros.
type Change = (u64, u64, Option<Rc<[u8]>>);

/// The replicas of a process.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    pub(crate) list: Vec<Replica>,
    lines: BTreeMap<u32, Line>,
    /// Lines that ended here.
    past: BTreeMap<LineId, Line>,
    numbers: BTreeMap<LineId, u32>,
    arrivals: BTreeMap<u64, Arrival>,
    /// Tags of arrivals, by line and number.
    arrived: BTreeMap<(LineId, u64), u64>,
    jobs: BTreeMap<u64, Job>,
    /// Commands that wait for a buffer.
    starved: Vec<(u64, Command)>,
    /// What is being written or zeroed, by tag.
    changes: BTreeMap<u64, Change>,
    /// Buffers of this process's own commands that are free again.
    released: Vec<(LineId, u64)>,
    /// Errands that ended.
    pub(crate) errands: Vec<(u64, Result<(), Failure>)>,
    loading: usize,
    associations: u32,
    tags: u64,
}

/// What replicas work with.
pub(crate) struct Parts<'a> {
    pub(crate) pool: &'a mut Pool,
    pub(crate) mem: &'a mut SimMemory,
}

impl Replicas {
    /// The pool is open: reads the records of its replicas.
    pub(crate) fn load(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>) {
        let uuids: Vec<Uuid> = parts
            .pool
            .layers()
            .filter(|layer| !layer.snapshot && cx.sites.volume_of(&layer.uuid).is_some())
            .map(|layer| layer.uuid)
            .collect();
        for uuid in uuids {
            self.load_one(cx, parts, uuid);
        }
    }

    /// A replica was made: it is served from now on.
    pub(crate) fn load_one(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>, uuid: Uuid) {
        self.loading += 1;
        let command = braid_pool::Command::Bear { uuid, bearing: Box::default() };
        self.order(cx, parts, Job::Load { uuid }, command);
    }

    /// Whether replicas are still being read.
    pub(crate) const fn is_loading(&self) -> bool {
        self.loading > 0
    }

    /// Where a replica's guard stands, and the copy of the record that its pool has.
    pub(crate) fn view(&self, pool: &Pool, uuid: &Uuid) -> Option<(View, Option<Kept>)> {
        let replica = self.list.iter().find(|replica| replica.uuid == *uuid)?;
        Some((replica.guard.view(), kept_of(pool, replica.handle)))
    }

    /// A command of whoever drives the cluster.
    pub(crate) fn errand(
        &mut self,
        cx: &mut Context<'_>,
        parts: &mut Parts<'_>,
        number: u64,
        command: braid_pool::Command,
    ) {
        self.order(cx, parts, Job::Errand { number }, command);
    }

    /// Somebody opens a line to a replica; its number, if that is here.
    pub(crate) fn open(
        &mut self,
        cx: &Context<'_>,
        peer: Place,
        line: LineId,
        uuid: &Uuid,
    ) -> Option<u32> {
        let replica = self.list.iter().position(|replica| replica.uuid == *uuid)?;
        self.associations += 1;
        let association = self.associations;
        self.lines.insert(association, Line { line, peer, replica, fenced: None });
        self.numbers.insert(line, association);
        self.list[replica].guard.handle(cx.clock.now(), Event::Opened { association });
        Some(association)
    }

    /// Somebody goes on with an association as if its line had not ended.
    pub(crate) fn open_again(
        &mut self,
        peer: Place,
        line: LineId,
        uuid: &Uuid,
        association: u32,
    ) -> Option<u32> {
        let replica = self.list.iter().position(|replica| replica.uuid == *uuid)?;
        self.associations = self.associations.max(association);
        self.lines.insert(association, Line { line, peer, replica, fenced: None });
        self.numbers.retain(|_, number| *number != association);
        self.numbers.insert(line, association);
        Some(association)
    }

    /// Whether a line ends here.
    pub(crate) fn has(&self, line: LineId) -> bool {
        self.numbers.contains_key(&line)
    }

    /// The lines that end here, and who is at their other ends.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (LineId, Place)> {
        self.lines.values().map(|line| (line.line, line.peer))
    }

    /// The other end is gone.
    pub(crate) fn closed(&mut self, cx: &Context<'_>, line: LineId) {
        let Some(association) = self.numbers.remove(&line) else { return };
        let Some(ended) = self.lines.remove(&association) else { return };
        self.past.insert(line, ended);
        self.list[ended.replica].guard.handle(cx.clock.now(), Event::Closed { association });
    }

    /// Something came by a line that has ended: tells if it is a write that a fence outran.
    pub(crate) fn missed(&self, cx: &mut Context<'_>, line: LineId, frame: &Frame) {
        let Frame::Command { command: Command::Write { .. } | Command::Zero { .. }, .. } = frame
        else {
            return;
        };
        let Some(Line { replica, fenced: Some((epoch, fences)), .. }) = self.past.get(&line) else {
            return;
        };
        let replica = &self.list[*replica];
        if replica.fences > *fences {
            let same_epoch = replica.guard.view().fence.0 == *epoch;
            cx.out.push_back(Happened::Late(Late::Write { same_epoch }));
        }
    }

    /// A command came.
    pub(crate) fn arrive(
        &mut self,
        cx: &Context<'_>,
        line: LineId,
        number: u64,
        command: Command,
        data: Data,
    ) {
        let Some(association) = self.numbers.get(&line).copied() else { return };
        let Some(Line { replica, peer, .. }) = self.lines.get(&association).copied() else {
            return;
        };
        self.tags += 1;
        let tag = self.tags;
        let arrival = Arrival { replica, line, peer, number, data, filled: Data::None };
        self.arrivals.insert(tag, arrival);
        self.arrived.insert((line, number), tag);
        let event = Event::Arrived { association, tag, command };
        self.list[replica].guard.handle(cx.clock.now(), event);
    }

    /// Whether a command is here whose buffer its sender must not touch.
    pub(crate) fn holds(&self, line: LineId, number: u64) -> bool {
        let tag = self.arrived.get(&(line, number));
        tag.and_then(|tag| self.arrivals.get(tag))
            .is_some_and(|arrival| matches!(arrival.data, Data::Here(_)))
    }

    /// Commands of this process whose buffers are free now.
    pub(crate) fn take_released(&mut self) -> Vec<(LineId, u64)> {
        std::mem::take(&mut self.released)
    }

    /// Time passed.
    pub(crate) fn elapsed(&mut self, cx: &Context<'_>) {
        for replica in &mut self.list {
            replica.guard.handle(cx.clock.now(), Event::Elapsed);
        }
    }

    /// The next deadline of a guard.
    pub(crate) fn due(&self) -> Option<braid_block::Instant> {
        self.list.iter().filter_map(|replica| replica.guard.poll_timeout()).min()
    }

    /// Does what guards want; whether there was anything.
    pub(crate) fn act(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>) -> bool {
        let mut moved = false;
        for (tag, command) in std::mem::take(&mut self.starved) {
            self.carry(cx, parts, tag, command);
        }
        for at in 0..self.list.len() {
            while let Some(act) = self.list[at].guard.poll_act() {
                moved = true;
                match act {
                    Act::Carry { tag, command } => self.carry(cx, parts, tag, command),
                    Act::Keep { tag, fence, kept } => {
                        let bearing = Bearing {
                            fence: fence.map(|(epoch, owner)| Fence { epoch, owner }),
                            member: Some(true),
                            record: Some(kept.encode().into()),
                            reservation: None,
                        };
                        let uuid = self.list[at].uuid;
                        let bearing = Box::new(bearing);
                        let command = braid_pool::Command::Bear { uuid, bearing };
                        let owed = Owed { replica: at, tag };
                        self.order(cx, parts, Job::Keep(owed), command);
                    }
                    Act::Answer { tag, result, .. } => self.answer(cx, tag, result),
                    Act::Close { association } => self.close(cx, association),
                }
            }
        }
        moved
    }

    fn answer(
        &mut self,
        cx: &mut Context<'_>,
        tag: u64,
        result: Result<braid_nexus::wire::Answer, Refusal>,
    ) {
        let arrival = self.arrivals.remove(&tag).expect("a guard answers a command once");
        self.arrived.remove(&(arrival.line, arrival.number));
        if matches!(arrival.data, Data::Here(_)) {
            self.released.push((arrival.line, arrival.number));
        }
        if matches!(result, Ok(braid_nexus::wire::Answer::Fenced(_))) {
            self.fenced(&arrival);
        }
        if !self.has(arrival.line) {
            return;
        }
        let data = if result.is_ok() { arrival.filled } else { Data::None };
        let frame = Frame::Answer { number: arrival.number, result, data };
        let body = Body::Frame { line: arrival.line, near: false, frame };
        cx.send(arrival.peer, body);
    }

    /// A fence was answered.
    fn fenced(&mut self, arrival: &Arrival) {
        let replica = &mut self.list[arrival.replica];
        replica.fences += 1;
        let fenced = Some((replica.guard.view().fence.0, replica.fences));
        let association = self.numbers.get(&arrival.line);
        if let Some(line) = association.and_then(|number| self.lines.get_mut(number)) {
            line.fenced = fenced;
        }
    }

    /// Ends a line from this side.
    fn close(&mut self, cx: &mut Context<'_>, association: u32) {
        let Some(ended) = self.lines.remove(&association) else { return };
        let Line { line, peer, .. } = ended;
        self.past.insert(line, ended);
        self.numbers.remove(&line);
        cx.clock.tell(|| format!("n{} ends {line} from {peer}", cx.node));
        cx.send(peer, Body::End { line, near: false });
    }

    /// Lets the pool do what a guard carries.
    fn carry(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>, tag: u64, command: Command) {
        let arrival = self.arrivals.get(&tag).expect("a guard carries what came");
        let Replica { uuid, handle, .. } = self.list[arrival.replica];
        let owed = Owed { replica: arrival.replica, tag };
        let plain = Job::Plain(owed);
        match command {
            Command::Read { offset, len } => {
                let work = Work::Read { offset, len };
                self.transfer(cx, parts, owed, handle, work, &command);
            }
            Command::ReadSnapshot { ref snapshot, offset, len } => {
                let Some(handle) = parts.pool.find(snapshot) else {
                    return self.carried(cx, owed, Err(Refusal::Invalid));
                };
                let work = Work::Read { offset, len };
                self.transfer(cx, parts, owed, handle, work, &command);
            }
            Command::Write { offset, len, durable } => {
                let work = Work::Write { offset, len, durable };
                self.transfer(cx, parts, owed, handle, work, &command);
            }
            Command::Zero { offset, len, durable } => {
                self.changes.insert(tag, (offset, len, None));
                self.request(cx, parts, plain, handle, Work::Zero { offset, len, durable }, None);
            }
            Command::Flush { number } => {
                let work = Work::Flush { number: Some(number) };
                self.request(cx, parts, plain, handle, work, None);
            }
            Command::Compare { ref snapshot, offset, len } => {
                let of = snapshot.as_deref().map_or(Some(handle), |uuid| parts.pool.find(uuid));
                let Some(handle) = of else {
                    return self.carried(cx, owed, Err(Refusal::Invalid));
                };
                let work = Work::Compare { offset, len };
                self.transfer(cx, parts, owed, handle, work, &command);
            }
            Command::Marks { snapshot } => {
                let uuid = snapshot.map_or(uuid, |uuid| *uuid);
                let command = braid_pool::Command::Marks { uuid };
                self.order(cx, parts, Job::Marks(owed), command);
            }
            Command::Clean { regions, .. } => {
                let plain = Job::Clean(owed);
                self.order(cx, parts, plain, braid_pool::Command::Clean { uuid, regions });
            }
            Command::Snapshot { uuid } => {
                let job = Job::Flush { owed, uuid: *uuid };
                self.request(cx, parts, job, handle, Work::Flush { number: None }, None);
            }
            Command::DeleteSnapshot { uuid } => {
                let command = braid_pool::Command::DeleteSnapshot { uuid: *uuid };
                self.order(cx, parts, plain, command);
            }
            Command::Resize { bytes } => {
                self.order(cx, parts, plain, braid_pool::Command::Resize { uuid, bytes });
            }
            Command::Fence(_) | Command::CopyRecord(_) | Command::Lease | Command::Release => {
                unreachable!("a guard carries no {command:?}")
            }
        }
    }

    /// A read, a write or a comparison.
    fn transfer(
        &mut self,
        cx: &mut Context<'_>,
        parts: &mut Parts<'_>,
        owed: Owed,
        handle: Handle,
        work: Work,
        command: &Command,
    ) {
        let (len, fills) = match work {
            Work::Read { len, .. } => (len, Some(len)),
            Work::Compare { len, .. } => (comparison_bytes(len), Some(comparison_bytes(len))),
            Work::Write { len, .. } => (len, None),
            _ => return,
        };
        let Some(class) = Class::holding(len) else {
            return self.carried(cx, owed, Err(Refusal::Invalid));
        };
        let data = &self.arrivals[&owed.tag].data;
        let alias = matches!(data, Data::Here(span) if span.offset == 0);
        let lease = match data {
            // The owner of the buffer holds it until the answer: the pool works on it.
            Data::Here(span) if alias => Lease::new(span.lease),
            data => {
                let Some(lease) = parts.mem.alloc(class) else {
                    self.starved.push((owed.tag, command.clone()));
                    return;
                };
                if fills.is_none() {
                    let bytes = match data {
                        Data::Bytes(bytes) => Rc::clone(bytes),
                        Data::Here(span) => parts.mem.span(*span).into(),
                        Data::None => Rc::default(),
                    };
                    assert_eq!(bytes.len(), len as usize, "a write comes with its bytes");
                    parts.mem.bytes_mut(&lease)[..bytes.len()].copy_from_slice(&bytes);
                }
                lease
            }
        };
        if let Work::Write { offset, .. } = work {
            let bytes = Rc::from(&parts.mem.bytes(&lease)[..len as usize]);
            self.changes.insert(owed.tag, (offset, len.into(), Some(bytes)));
        }
        self.request(cx, parts, Job::Transfer { owed, alias, fills }, handle, work, Some(lease));
    }

    fn request(
        &mut self,
        cx: &Context<'_>,
        parts: &mut Parts<'_>,
        job: Job,
        handle: Handle,
        work: Work,
        lease: Option<Lease>,
    ) {
        self.tags += 1;
        self.jobs.insert(self.tags, job);
        let request = Request { tag: self.tags, handle, work, lease };
        parts.pool.submit(parts.mem, cx.clock.now(), request);
    }

    fn order(
        &mut self,
        cx: &Context<'_>,
        parts: &mut Parts<'_>,
        job: Job,
        command: braid_pool::Command,
    ) {
        self.tags += 1;
        self.jobs.insert(self.tags, job);
        parts.pool.command(parts.mem, cx.clock.now(), self.tags, command);
    }

    /// Takes what the pool has ended; whether there was anything.
    pub(crate) fn take_completions(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>) -> bool {
        let mut moved = false;
        while let Some(completion) = parts.pool.poll_completion() {
            moved = true;
            let job = self.jobs.remove(&completion.tag).expect("a pool ends a request once");
            self.finish(cx, parts, job, completion);
        }
        moved
    }

    fn finish(
        &mut self,
        cx: &mut Context<'_>,
        parts: &mut Parts<'_>,
        job: Job,
        completion: Completion,
    ) {
        let result = completion.result;
        match job {
            Job::Load { uuid } => self.loaded(cx, parts.pool, uuid, result.is_ok()),
            Job::Plain(owed) => {
                self.carried(cx, owed, result.map(|_| Outcome::Done).map_err(refusal));
            }
            Job::Clean(owed) => {
                let replica = self.list[owed.replica].uuid;
                cx.out.push_back(Happened::Cleaned { replica });
                self.carried(cx, owed, result.map(|_| Outcome::Done).map_err(refusal));
            }
            Job::Flush { owed, uuid } => match result {
                Ok(_) => {
                    let replica = self.list[owed.replica].uuid;
                    let name = format!("{:02x}{:02x}", uuid[0], uuid[1]);
                    let command = braid_pool::Command::Snapshot { replica, uuid, name, created: 0 };
                    self.order(cx, parts, Job::Plain(owed), command);
                }
                Err(failure) => self.carried(cx, owed, Err(refusal(failure))),
            },
            Job::Marks(owed) => {
                let marks = parts.pool.take_marks(completion.tag).unwrap_or_default();
                let outcome = result.map(|_| Outcome::Marks(marks.into())).map_err(refusal);
                self.carried(cx, owed, outcome);
            }
            Job::Transfer { owed, alias, fills } => {
                let lease = completion.lease.expect("a transfer's lease comes back");
                if let (Some(len), true, false) = (fills, result.is_ok(), alias) {
                    self.fill(parts.mem, owed.tag, &lease, len);
                }
                if !alias {
                    parts.mem.free(lease);
                }
                self.carried(cx, owed, result.map(|_| Outcome::Done).map_err(refusal));
            }
            Job::Keep(Owed { replica, tag }) => {
                let result = result.map(|_| ()).map_err(refusal);
                let event = Event::Kept { tag, result };
                self.list[replica].guard.handle(cx.clock.now(), event);
            }
            Job::Errand { number } => self.errands.push((number, result.map(|_| ()))),
        }
    }

    /// What a read has filled goes to who asked: over the wire, or into its own buffer.
    fn fill(&mut self, mem: &mut SimMemory, tag: u64, lease: &Lease, len: u32) {
        let bytes: Rc<[u8]> = mem.bytes(lease)[..len as usize].into();
        let arrival = self.arrivals.get_mut(&tag).expect("a command that is carried");
        match arrival.data {
            Data::Here(span) => mem.span_mut(Span { len, ..span }).copy_from_slice(&bytes),
            _ => arrival.filled = Data::Bytes(bytes),
        }
    }

    fn carried(&mut self, cx: &mut Context<'_>, owed: Owed, result: Result<Outcome, Refusal>) {
        let Owed { replica, tag } = owed;
        if let (Some((offset, len, bytes)), Ok(_)) = (self.changes.remove(&tag), &result) {
            let replica = self.list[replica].uuid;
            cx.out.push_back(Happened::Changed { replica, offset, len, bytes });
        }
        self.list[replica].guard.handle(cx.clock.now(), Event::Carried { tag, result });
    }

    fn loaded(&mut self, cx: &Context<'_>, pool: &Pool, uuid: Uuid, read: bool) {
        self.loading -= 1;
        let Some(info) = pool.find(&uuid).filter(|_| read).and_then(|at| pool.layer(at)) else {
            return cx.clock.tell(|| format!("n{} cannot read a replica's record", cx.node));
        };
        let fence = pool.bearing(info.handle).and_then(|bearing| bearing.fence);
        let durable = Durable {
            replica: uuid,
            fence: fence.map_or((0, [0; 16]), |fence| (fence.epoch, fence.owner)),
            instance: info.instance,
            kept: kept_of(pool, info.handle),
            flush: info.flush_number,
            bytes: info.bytes,
            snapshots: pool.snapshots(info.handle),
        };
        cx.clock.tell(|| {
            let (epoch, instance) = (durable.fence.0, durable.instance & 0xffff);
            let copy = durable.kept.as_ref().map(|kept| (kept.copy.epoch, kept.copy.version));
            format!("n{} replica: instance {instance:x} fence {epoch} copy {copy:?}", cx.node)
        });
        let guard = Guard::new(cx.timing, cx.plant, durable, cx.clock.now());
        self.list.push(Replica { uuid, handle: info.handle, guard, fences: 0 });
    }
}

/// The copy of the record that a pool has of a replica.
fn kept_of(pool: &Pool, handle: Handle) -> Option<Kept> {
    let record = pool.bearing(handle)?.record?;
    Kept::decode(&record).ok()
}

/// What a nexus is told of a pool's failure.
pub(crate) const fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::NoSpace => Refusal::NoSpace,
        Failure::Media(offset) => Refusal::Media(offset),
        Failure::Failed | Failure::Stopping | Failure::Limit => Refusal::Failed,
        Failure::NotFound
        | Failure::Exists
        | Failure::Busy
        | Failure::ReadOnly
        | Failure::OutOfRange
        | Failure::Invalid => Refusal::Invalid,
    }
}
