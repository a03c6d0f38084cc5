//! A guard at work: what happens to it goes in, what it does comes out in words.

use std::time::Duration;

use braid_block::Instant;
use braid_nexus::guard::{Act, Durable, Event, Guard, Kept, Outcome};
use braid_nexus::record::{Replica, Standing};
use braid_nexus::wire::{Answer, Command, Refusal};
use braid_nexus::{Plant, Record, Timing, Uuid};

pub(crate) const REPLICA: Uuid = [7; 16];
pub(crate) const OTHER: Uuid = [8; 16];
pub(crate) const INSTANCE: u64 = 70;
/// Two owners.
pub(crate) const ANNA: Uuid = [0xa; 16];
pub(crate) const BERT: Uuid = [0xb; 16];
pub(crate) const MIB: u64 = 1 << 20;

/// The record of an epoch and an owner, in which the replica is a member.
pub(crate) fn record(epoch: u64, owner: Uuid) -> Record {
    let mut record = Record {
        volume: [1; 16],
        store: [2; 16],
        version: epoch * 10,
        epoch,
        owner,
        bytes: 256 * MIB,
        ..Record::default()
    };
    let member = Standing::Member { instance: INSTANCE };
    record.slots[0] = Some(Replica { uuid: OTHER, standing: member });
    record.slots[1] = Some(Replica { uuid: REPLICA, standing: member });
    record
}

/// The same, in which it stands so.
pub(crate) fn record_with(epoch: u64, owner: Uuid, standing: Standing) -> Record {
    let mut record = record(epoch, owner);
    record.slots[1] = Some(Replica { uuid: REPLICA, standing });
    record
}

/// A later version.
pub(crate) fn later(record: &Record, versions: u64) -> Record {
    Record { version: record.version + versions, ..record.clone() }
}

pub(crate) fn durable() -> Durable {
    Durable { replica: REPLICA, instance: INSTANCE, bytes: 256 * MIB, ..Durable::default() }
}

pub(crate) struct Bench {
    pub(crate) guard: Guard,
    now: Instant,
    pub(crate) durable: Durable,
    plant: Option<Plant>,
}

impl Bench {
    pub(crate) fn of(durable: Durable, plant: Option<Plant>) -> Self {
        let now = Instant::ZERO + Duration::from_secs(100);
        let guard = Guard::new(Timing::default(), plant, durable.clone(), now);
        Self { guard, now, durable, plant }
    }

    /// A new replica whose first lease has run out.
    pub(crate) fn new() -> Self {
        let mut bench = Self::of(durable(), None);
        assert_eq!(bench.wait(1000), [""; 0]);
        bench
    }

    /// The same, held by Anna in epoch 5 on association 1.
    pub(crate) fn held() -> Self {
        Self::held_with(None)
    }

    pub(crate) fn held_with(plant: Option<Plant>) -> Self {
        let mut bench = Self::of(durable(), plant);
        assert_eq!(bench.wait(1000), [""; 0]);
        assert_eq!(bench.fence(1, 1, &record(5, ANNA)), ["keep 1 fence 5 v50 complete"]);
        assert_eq!(bench.kept(1), ["carry 1 marks"]);
        assert_eq!(bench.marks(1, &[]), ["answer 1/1 fenced, copy none"]);
        bench
    }

    pub(crate) fn event(&mut self, event: Event) -> Vec<String> {
        self.guard.handle(self.now, event);
        let mut told = Vec::new();
        while let Some(act) = self.guard.poll_act() {
            if let Act::Keep { fence, kept, .. } = &act {
                self.durable.fence = fence.unwrap_or(self.durable.fence);
                self.durable.kept = Some(Kept::decode(&kept.encode()).unwrap());
            }
            told.push(words(act));
        }
        told
    }

    /// The process dies and starts; what was asked to be kept is durable.
    pub(crate) fn restart(&mut self) {
        self.guard = Guard::new(Timing::default(), self.plant, self.durable.clone(), self.now);
    }

    pub(crate) fn wait(&mut self, milliseconds: u64) -> Vec<String> {
        self.now = self.now + Duration::from_millis(milliseconds);
        self.event(Event::Elapsed)
    }

    /// Milliseconds until the guard wants to be woken.
    pub(crate) fn due(&self) -> Option<u128> {
        self.guard.poll_timeout().map(|due| due.since(self.now).as_millis())
    }

    pub(crate) fn open(&mut self, association: u32) -> Vec<String> {
        self.event(Event::Opened { association })
    }

    pub(crate) fn close(&mut self, association: u32) -> Vec<String> {
        self.event(Event::Closed { association })
    }

    pub(crate) fn send(&mut self, association: u32, tag: u64, command: Command) -> Vec<String> {
        self.event(Event::Arrived { association, tag, command })
    }

    /// Opens an association, and sends a fence by it.
    pub(crate) fn fence(&mut self, association: u32, tag: u64, record: &Record) -> Vec<String> {
        let mut told = self.open(association);
        told.extend(self.send(association, tag, Command::Fence(Box::new(record.clone()))));
        told
    }

    pub(crate) fn copy(&mut self, association: u32, tag: u64, record: &Record) -> Vec<String> {
        self.send(association, tag, Command::CopyRecord(Box::new(record.clone())))
    }

    /// A write of a block in a region.
    pub(crate) fn write(&mut self, association: u32, tag: u64, region: u64) -> Vec<String> {
        let offset = region * MIB;
        self.send(association, tag, Command::Write { offset, len: 4096, durable: false })
    }

    pub(crate) fn read(&mut self, association: u32, tag: u64) -> Vec<String> {
        self.send(association, tag, Command::Read { offset: 0, len: 4096 })
    }

    /// A write to a region that has ended.
    pub(crate) fn wrote(&mut self, tag: u64, region: u64) {
        assert_eq!(self.write(1, tag, region), [format!("carry {tag} write")]);
        assert_eq!(self.carried(tag), [format!("answer 1/{tag} done")]);
    }

    /// A flush that has succeeded.
    pub(crate) fn flushed(&mut self, tag: u64, number: u64) {
        let told = self.send(1, tag, Command::Flush { number });
        assert_eq!(told, [format!("carry {tag} flush {number}")]);
        assert_eq!(self.carried(tag), [format!("answer 1/{tag} done")]);
    }

    pub(crate) fn clean(&mut self, tag: u64, flush: u64, regions: &[(u32, u32)]) -> Vec<String> {
        self.send(1, tag, Command::Clean { flush, regions: regions.into() })
    }

    pub(crate) fn lease(&mut self, association: u32, tag: u64) -> Vec<String> {
        self.send(association, tag, Command::Lease)
    }

    pub(crate) fn carried(&mut self, tag: u64) -> Vec<String> {
        self.event(Event::Carried { tag, result: Ok(Outcome::Done) })
    }

    pub(crate) fn marks(&mut self, tag: u64, marks: &[(u32, u32)]) -> Vec<String> {
        self.event(Event::Carried { tag, result: Ok(Outcome::Marks(marks.into())) })
    }

    pub(crate) fn failed(&mut self, tag: u64, refusal: Refusal) -> Vec<String> {
        self.event(Event::Carried { tag, result: Err(refusal) })
    }

    pub(crate) fn kept(&mut self, tag: u64) -> Vec<String> {
        self.event(Event::Kept { tag, result: Ok(()) })
    }
}

/// What an act says, in words; answers as association/tag.
fn words(act: Act) -> String {
    match act {
        Act::Carry { tag, command } => format!("carry {tag} {}", name(&command)),
        Act::Keep { tag, fence, kept } => {
            let what = fence.map_or_else(|| "copy".into(), |(epoch, _)| format!("fence {epoch}"));
            let complete = if kept.complete { " complete" } else { "" };
            format!("keep {tag} {what} v{}{complete}", kept.copy.version)
        }
        Act::Answer { association, tag, result } => {
            format!("answer {association}/{tag} {}", result_words(result))
        }
        Act::Close { association } => format!("close {association}"),
    }
}

fn name(command: &Command) -> String {
    match command {
        Command::Read { .. } => "read".into(),
        Command::ReadSnapshot { .. } => "read of a snapshot".into(),
        Command::Write { .. } => "write".into(),
        Command::Zero { .. } => "zero".into(),
        Command::Flush { number } => format!("flush {number}"),
        Command::Marks { .. } => "marks".into(),
        Command::Clean { regions, .. } => format!("clean {regions:?}"),
        Command::Compare { .. } => "compare".into(),
        Command::Snapshot { .. } => "snapshot".into(),
        Command::DeleteSnapshot { .. } => "delete".into(),
        Command::Resize { bytes } => format!("resize {bytes}"),
        other => panic!("never for the pool: {other:?}"),
    }
}

fn result_words(result: Result<Answer, Refusal>) -> String {
    match result {
        Ok(Answer::Done) => "done".into(),
        Ok(Answer::Marks(marks)) => format!("marks {marks:?}"),
        Ok(Answer::Fenced(fenced)) => match fenced.copy {
            Some((epoch, version)) => format!("fenced, copy {epoch} v{version}"),
            None => "fenced, copy none".into(),
        },
        Err(Refusal::Conflict { epoch }) => format!("conflict {epoch}"),
        Err(Refusal::CopyNewer { epoch, version }) => format!("copy newer {epoch} v{version}"),
        Err(refusal) => format!("{refusal:?}").to_lowercase(),
    }
}
