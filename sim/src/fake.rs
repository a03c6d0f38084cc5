//! A machine that is simple enough to be right, so that the world, the oracle and the campaigns
//! can be tried without a pool: replicas at fixed places, one request at a time.
//!
//! It writes blocks in place. On sectors of 4096 bytes that keeps every promise; on smaller ones
//! a first write can tear, which a campaign must find.

use std::collections::VecDeque;

use braid_block::{Class, Instant, IoError, Key, Lease, Memory, Token};
use braid_pool::{
    Command, Completion, Config, Counters, Done, Effect, Event, Failure, Format, Handle, LayerInfo,
    Note, Plant, PoolInfo, Refusal, Request, State, Work,
};

use crate::machine::Machine;
use crate::memory::SimMemory;

const PLACE: u64 = 3 << 20;
const PLACES: usize = 5;
/// Where its table names the pool, in the first sector: an identity, and that there is one.
const NAME: usize = 64;

/// The machine.
#[derive(Debug)]
pub(crate) struct Fake {
    config: Config,
    state: State,
    uuid: [u8; 16],
    table: Vec<Option<(u8, u8, u32, bool)>>,
    queue: VecDeque<(u64, Job, Option<Lease>)>,
    /// What is in work, and what is left of it.
    current: Option<(u64, Option<Lease>, Done)>,
    steps: VecDeque<Step>,
    flying: Option<(Step, Option<Lease>)>,
    effects: VecDeque<Effect>,
    done: VecDeque<Completion>,
    notes: VecDeque<Note>,
    generation: u32,
    counters: Counters,
}

#[derive(Debug)]
enum Job {
    Work(Handle, Work),
    Command(Command),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Of the request's buffer.
    Read {
        offset: u64,
        len: u32,
    },
    Write {
        offset: u64,
        len: u32,
    },
    Zero {
        offset: u64,
        len: u32,
    },
    Table,
    Load,
    Sync,
}

impl Fake {
    fn new(config: Config, first: Step) -> Self {
        Self {
            config,
            state: State::Opening,
            uuid: [0; 16],
            table: vec![None; PLACES],
            queue: VecDeque::new(),
            current: None,
            steps: VecDeque::from([Step::Sync, first, Step::Sync]),
            flying: None,
            effects: VecDeque::new(),
            done: VecDeque::new(),
            notes: VecDeque::new(),
            generation: 0,
            counters: Counters::default(),
        }
    }

    fn place_of(&self, uuid: &[u8; 16]) -> Option<usize> {
        let here = |entry: &Option<(u8, u8, u32, bool)>| {
            entry.is_some_and(|(low, high, ..)| uuid[0] == low && uuid[1] == high)
        };
        self.table.iter().position(here)
    }

    fn plan(&mut self, job: Job) -> Result<Done, Failure> {
        match job {
            // What it cannot do, it refuses for want of room.
            Job::Work(_, Work::Status { .. } | Work::Flush { number: Some(_) }) => {
                Err(Failure::Limit)
            }
            Job::Work(handle, work) => {
                let base = (1 << 20) + u64::from(handle.0) * PLACE;
                if !self.is_inside(handle, work) {
                    return Err(Failure::OutOfRange);
                }
                self.plan_work(base, work);
                Ok(Done::default())
            }
            Job::Command(Command::Create(create)) => {
                let free = self.table.iter().position(Option::is_none).ok_or(Failure::NoSpace)?;
                if create.block.bytes() < self.config.device.sector {
                    return Err(Failure::Limit);
                }
                if create.bytes > PLACE {
                    return Err(Failure::NoSpace);
                }
                let blocks = (create.bytes / 512) as u32;
                let small = create.block.bytes() == 512;
                self.plan_zero((1 << 20) + free as u64 * PLACE, create.bytes);
                self.table[free] = Some((create.uuid[0], create.uuid[1], blocks, small));
                self.steps.extend([Step::Sync, Step::Table, Step::Sync]);
                Ok(Done { handle: Some(Handle(free as u32)), ..Done::default() })
            }
            Job::Command(Command::Destroy { uuid }) => {
                let place = self.place_of(&uuid).ok_or(Failure::NotFound)?;
                self.table[place] = None;
                self.steps.extend([Step::Table, Step::Sync]);
                Ok(Done::default())
            }
            Job::Command(_) => Err(Failure::Limit),
        }
    }

    fn is_inside(&self, handle: Handle, work: Work) -> bool {
        let Some((.., sectors, small)) = self.table[handle.0 as usize] else { return false };
        let (offset, len) = match work {
            Work::Read { offset, len } | Work::Write { offset, len, .. } => (offset, len.into()),
            Work::Zero { offset, len, .. } | Work::Status { offset, len } => (offset, len),
            Work::Flush { .. } => (0, 0),
            // No campaign of single pools compares.
            Work::Compare { .. } => return false,
        };
        let unit = if small { 512 } else { 4096 };
        (offset | len).is_multiple_of(unit) && offset + len <= u64::from(sectors) * 512
    }

    fn plan_work(&mut self, base: u64, work: Work) {
        match work {
            Work::Read { offset, len } => {
                self.steps.push_back(Step::Read { offset: base + offset, len });
            }
            Work::Write { offset, len, durable } => {
                self.steps.push_back(Step::Write { offset: base + offset, len });
                self.steps.extend(durable.then_some(Step::Sync));
            }
            Work::Zero { offset, len, durable } => {
                self.plan_zero(base + offset, len);
                self.steps.extend(durable.then_some(Step::Sync));
            }
            Work::Flush { .. } if self.config.plant == Some(Plant::SkipFlush) => {}
            Work::Flush { .. } | Work::Status { .. } | Work::Compare { .. } => {
                self.steps.push_back(Step::Sync);
            }
        }
    }

    fn plan_zero(&mut self, offset: u64, len: u64) {
        for at in (0..len).step_by(128 << 10) {
            let len = (len - at).min(128 << 10) as u32;
            self.steps.push_back(Step::Zero { offset: offset + at, len });
        }
    }

    fn launch(&mut self, mem: &mut SimMemory) {
        let Some(step) = self.steps.pop_front() else { return };
        self.generation += 1;
        let key = Key { index: 0, generation: self.generation };
        let token = Token::new(self.config.token_base, key);
        let own = self.current.as_ref().and_then(|(_, lease, _)| lease.as_ref());
        let (effect, lease) = match step {
            Step::Read { offset, len } => {
                let span = own.expect("a read's buffer").span(0, len);
                (Effect::Read { token, span, offset }, None)
            }
            Step::Write { offset, len } => {
                let span = own.expect("a write's buffer").span(0, len);
                (Effect::Write { token, span, offset }, None)
            }
            Step::Zero { offset, len } => {
                let lease = mem.alloc(Class::Large).expect("a buffer");
                mem.bytes_mut(&lease).fill(0);
                (Effect::Write { token, span: lease.span(0, len), offset }, Some(lease))
            }
            Step::Table => {
                let lease = mem.alloc(Class::Small).expect("a buffer");
                let bytes = mem.bytes_mut(&lease);
                bytes.fill(0);
                bytes[NAME..NAME + 16].copy_from_slice(&self.uuid);
                bytes[NAME + 16] = 1;
                for (at, entry) in self.table.iter().enumerate() {
                    if let Some((low, high, blocks, small)) = entry {
                        bytes[at * 8..at * 8 + 4].copy_from_slice(&[
                            1,
                            *low,
                            *high,
                            (*small).into(),
                        ]);
                        bytes[at * 8 + 4..at * 8 + 8].copy_from_slice(&blocks.to_le_bytes());
                    }
                }
                (Effect::Write { token, span: lease.span(0, 4096), offset: 0 }, Some(lease))
            }
            Step::Load => {
                let lease = mem.alloc(Class::Small).expect("a buffer");
                (Effect::Read { token, span: lease.span(0, 4096), offset: 0 }, Some(lease))
            }
            Step::Sync => (Effect::Sync { token }, None),
        };
        self.effects.push_back(effect);
        self.flying = Some((step, lease));
    }

    fn fail(&mut self, mem: &mut SimMemory) {
        self.state = State::Failed;
        if let Some(lease) = self.flying.take().and_then(|(_, lease)| lease) {
            mem.free(lease);
        }
        let waiting = self.queue.drain(..).map(|(tag, _, lease)| (tag, lease));
        for (tag, lease) in
            self.current.take().map(|(tag, lease, _)| (tag, lease)).into_iter().chain(waiting)
        {
            self.done.push_back(Completion { tag, lease, result: Err(Failure::Failed) });
        }
        self.steps.clear();
    }

    /// Whether a read of a replica is in flight.
    const fn is_reading(&self) -> bool {
        matches!(self.flying, Some((Step::Read { .. }, _)))
    }

    /// A read of a replica meets a sector that cannot be read.
    fn lose(&mut self) {
        let Some((Step::Read { offset, .. }, _)) = self.flying.take() else { return };
        let result = Err(Failure::Media((offset - (1 << 20)) % PLACE));
        if let Some((tag, lease, _)) = self.current.take() {
            self.done.push_back(Completion { tag, lease, result });
        }
    }

    fn landed(&mut self, mem: &mut SimMemory) {
        let (step, lease) = self.flying.take().expect("something in flight");
        if step == Step::Load {
            let bytes = mem.bytes(lease.as_ref().expect("its buffer"));
            if bytes[NAME + 16] != 1 {
                self.notes.push_back(Note::Refused(Refusal::Foreign));
                self.flying = Some((step, lease));
                return self.fail(mem);
            }
            self.uuid.copy_from_slice(&bytes[NAME..NAME + 16]);
            for (entry, bytes) in self.table.iter_mut().zip(bytes.chunks_exact(8)) {
                let blocks = u32::from_le_bytes(bytes[4..8].try_into().expect("4 bytes"));
                *entry = (bytes[0] == 1).then_some((bytes[1], bytes[2], blocks, bytes[3] == 1));
            }
        }
        if let Some(lease) = lease {
            mem.free(lease);
        }
        if !self.steps.is_empty() {
            return;
        }
        if let Some((tag, lease, done)) = self.current.take() {
            self.done.push_back(Completion { tag, lease, result: Ok(done) });
        } else if self.state == State::Opening {
            self.state = State::Open;
            self.notes.push_back(Note::Opened { clean: false, replayed: 0, rejected: 0 });
        }
    }
}

impl Machine for Fake {
    fn create(config: Config, format: Format) -> Self {
        let mut fake = Self::new(config, Step::Table);
        fake.uuid = format.uuid;
        fake.state = State::Stopping;
        fake
    }

    fn open(config: Config) -> Self {
        Self::new(config, Step::Load)
    }

    fn state(&self) -> State {
        self.state
    }

    fn submit(&mut self, _mem: &mut SimMemory, _now: Instant, request: Request) {
        self.queue.push_back((request.tag, Job::Work(request.handle, request.work), request.lease));
    }

    fn command(&mut self, _mem: &mut SimMemory, _now: Instant, tag: u64, command: Command) {
        self.queue.push_back((tag, Job::Command(command), None));
    }

    fn handle(&mut self, mem: &mut SimMemory, _now: Instant, event: Event) {
        match event {
            Event::Done { result: Ok(_), .. } => self.landed(mem),
            Event::Done { result: Err(IoError::Media), .. } if self.is_reading() => self.lose(),
            Event::Done { result: Err(_), .. } => self.fail(mem),
            Event::Elapsed => {}
        }
    }

    fn end_turn(&mut self, mem: &mut SimMemory, _now: Instant) {
        while self.flying.is_none() && self.steps.is_empty() && self.state != State::Stopped {
            let Some((tag, job, lease)) = self.queue.pop_front() else { break };
            let failed = self.state == State::Failed;
            match if failed { Err(Failure::Failed) } else { self.plan(job) } {
                Ok(done) if self.steps.is_empty() => {
                    self.done.push_back(Completion { tag, lease, result: Ok(done) });
                }
                Ok(done) => self.current = Some((tag, lease, done)),
                Err(failure) => {
                    self.done.push_back(Completion { tag, lease, result: Err(failure) });
                }
            }
        }
        if self.flying.is_none() {
            self.launch(mem);
        }
        let idle = self.flying.is_none() && self.queue.is_empty();
        if self.state == State::Stopping && idle {
            self.state = State::Stopped;
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn has_work(&self) -> bool {
        false
    }

    fn stop(&mut self, _mem: &mut SimMemory, _now: Instant) {
        self.state = State::Stopping;
        self.steps.push_back(Step::Sync);
    }

    fn drop_leases(&mut self, _mem: &mut SimMemory) {}

    fn layers(&self) -> Vec<LayerInfo> {
        let info = |(at, entry): (usize, &Option<(u8, u8, u32, bool)>)| {
            let (low, high, sectors, small) = (*entry)?;
            let mut uuid = [0; 16];
            (uuid[0], uuid[1], uuid[15]) = (low, high, 1);
            Some(LayerInfo {
                handle: Handle(at as u32),
                uuid,
                name: String::new(),
                snapshot: false,
                source: None,
                bytes: u64::from(sectors) * 512,
                block: braid_block::BlockSize::from_bytes(if small { 512 } else { 4096 })
                    .expect("a size"),
                thick: true,
                member: false,
                created: 0,
                instance: u64::from(self.config.boot_id[0]),
                flush_number: 0,
                own: 0,
                shared: 0,
                children: 0,
            })
        };
        self.table.iter().enumerate().filter_map(info).collect()
    }

    fn info(&self) -> PoolInfo {
        PoolInfo {
            uuid: self.uuid,
            version: 1,
            features: 0,
            incarnation: 0,
            owner: String::new(),
            clean: false,
            capacity: PLACE * PLACES as u64,
            data: 0,
            maps: 0,
            quarantine: 0,
            reserve: 0,
            promised: 0,
            available: 0,
            committed: 0,
            journal_blocks: 0,
            journal_used: 0,
            leaves: 0,
            memory: 0,
            unverified_regions: 0,
            scrub: None,
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::powercut::{Options, campaign};
    use crate::story::Story;

    #[test]
    fn a_campaign_finds_torn_first_writes_and_nothing_else_in_a_machine_without_a_journal() {
        let mut options = Options {
            states: 200,
            first: 1,
            only: None,
            story: Story::Silent,
            plant: None,
            garbage: false,
        };
        let (mut torn, mut states) = (0, 0);
        for seed in 1..20 {
            options.first = seed;
            let report = campaign::<Fake>(&options);
            states += report.states;
            if let Some(finding) = report.finding {
                assert_eq!(finding.violation.invariant, "FirstWriteWhole", "{seed}: {finding}");
                torn += 1;
                let failed = crate::workload::Mix::new(finding.seed).sector;
                assert_eq!(failed, 512, "{finding}");
            }
        }
        assert!(torn > 3 && states > 1000, "{torn} torn in {states} states");
    }

    #[test]
    fn a_campaign_finds_a_flush_that_is_none() {
        let mut found = Vec::new();
        for first in (1..20).filter(|seed| crate::workload::Mix::new(*seed).sector == 4096) {
            let plant = Some(Plant::SkipFlush);
            let story = Story::Silent;
            let options = Options { states: 100, first, only: None, story, plant, garbage: false };
            let finding = campaign::<Fake>(&options).finding;
            found.extend(finding.map(|finding| finding.violation.invariant));
        }
        assert!(found.contains(&"FlushedDurable"), "{found:?}");
    }

    #[test]
    fn a_campaign_finds_damage_in_a_machine_without_checksums() {
        let mut found = Vec::new();
        for first in 1..8 {
            let options =
                crate::corrupt::Options { cases: 400, first, only: None, story: Story::Silent };
            let finding = crate::corrupt::campaign::<Fake>(&options).finding;
            found.extend(finding.map(|finding| finding.violation.invariant));
        }
        assert!(found.contains(&"NeverWrongData"), "{found:?}");
    }
}
