//! A replica: a real guard before blocks in memory.

use std::collections::{BTreeMap, BTreeSet};

use braid_block::Instant;
use braid_nexus::guard::{Act, Durable, Event, Guard, Outcome};
use braid_nexus::wire::{Answer, BLOCK, Command, Comparison, Content, REGION, Refusal};
use braid_nexus::{Timing, Uuid};

/// A block's first byte: every block here is full of one byte.
type Blocks = BTreeMap<u64, [u8; 8]>;

/// What a replica has, or had when a snapshot was taken. A block of eight sectors is kept as the
/// byte that fills each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) blocks: Blocks,
    pub(crate) marks: BTreeSet<u32>,
}

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) uuid: Uuid,
    /// `None`: its process is dead.
    guard: Option<Guard>,
    pub(crate) durable: Durable,
    pub(crate) head: Layer,
    pub(crate) snapshots: Vec<(Uuid, Layer)>,
    /// Blocks that cannot be read, and blocks whose checksum lags behind.
    pub(crate) bad: BTreeSet<u64>,
    pub(crate) lags: BTreeSet<u64>,
    /// Associations that its guard ended.
    pub(crate) closed: Vec<u32>,
    /// What it answered: association, tag, answer.
    pub(crate) answers: Vec<(u32, u64, Result<Answer, Refusal>)>,
    /// Bytes that go with commands, by tag.
    payload: BTreeMap<u64, Vec<u8>>,
}

impl Replica {
    pub(crate) fn new(durable: Durable, now: Instant) -> Self {
        let mut replica = Self {
            uuid: durable.replica,
            guard: None,
            durable,
            head: Layer::default(),
            snapshots: Vec::new(),
            bad: BTreeSet::new(),
            lags: BTreeSet::new(),
            closed: Vec::new(),
            answers: Vec::new(),
            payload: BTreeMap::new(),
        };
        replica.start(now);
        replica
    }

    pub(crate) const fn is_alive(&self) -> bool {
        self.guard.is_some()
    }

    /// Its process starts.
    pub(crate) fn start(&mut self, now: Instant) {
        self.durable.snapshots = self.snapshots.iter().map(|(uuid, _)| *uuid).collect();
        self.guard = Some(Guard::new(Timing::default(), None, self.durable.clone(), now));
    }

    /// Its process dies.
    pub(crate) fn kill(&mut self) {
        self.guard = None;
        self.payload.clear();
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.guard.as_ref()?.poll_timeout()
    }

    /// A command arrives, with its payload.
    pub(crate) fn arrive(
        &mut self,
        now: Instant,
        association: u32,
        tag: u64,
        command: Command,
        payload: Vec<u8>,
    ) {
        self.payload.insert(tag, payload);
        self.handle(now, Event::Arrived { association, tag, command });
    }

    /// Takes back the payload of a command that was answered.
    pub(crate) fn take_payload(&mut self, tag: u64) -> Vec<u8> {
        self.payload.remove(&tag).unwrap_or_default()
    }

    pub(crate) fn handle(&mut self, now: Instant, event: Event) {
        let Some(guard) = self.guard.as_mut() else { return };
        guard.handle(now, event);
        while let Some(act) = self.guard.as_mut().and_then(Guard::poll_act) {
            let answer = match act {
                Act::Answer { association, tag, result } => {
                    self.answers.push((association, tag, result));
                    continue;
                }
                Act::Close { association } => {
                    self.closed.push(association);
                    continue;
                }
                Act::Keep { tag, fence, kept } => {
                    self.durable.fence = fence.unwrap_or(self.durable.fence);
                    self.durable.kept = Some(*kept);
                    Event::Kept { tag, result: Ok(()) }
                }
                Act::Carry { tag, command } => {
                    Event::Carried { tag, result: self.carry(tag, command) }
                }
            };
            let guard = self.guard.as_mut().expect("it lives");
            guard.handle(now, answer);
        }
    }

    fn carry(&mut self, tag: u64, command: Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Read { offset, len } => self.read(tag, None, offset, len)?,
            Command::ReadSnapshot { snapshot, offset, len } => {
                self.read(tag, Some(*snapshot), offset, len)?;
            }
            Command::Write { offset, len, .. } => {
                let payload = self.payload.get(&tag).cloned().unwrap_or_default();
                assert_eq!(payload.len(), len as usize, "a write carries what it writes");
                let bytes: Vec<u8> = payload.chunks(512).map(|sector| sector[0]).collect();
                self.put(offset, u64::from(len), |at| bytes[at]);
            }
            Command::Zero { offset, len, .. } => self.put(offset, len, |_| 0),
            Command::Flush { number } => self.durable.flush = self.durable.flush.max(number),
            Command::Compare { snapshot, offset, len } => {
                self.compare(tag, snapshot.as_deref(), offset, len);
            }
            Command::Marks { snapshot } => {
                let marks = &self.layer(snapshot.as_deref()).marks;
                return Ok(Outcome::Marks(marks.iter().map(|region| (*region, 1)).collect()));
            }
            Command::Clean { regions, .. } => {
                let clean = |at: &u32| regions.iter().any(|(f, n)| (*f..f + n).contains(at));
                self.head.marks.retain(|region| !clean(region));
            }
            Command::Snapshot { uuid } => {
                let layer = self.head.clone();
                self.head.marks.clear();
                self.snapshots.push((*uuid, layer));
            }
            Command::DeleteSnapshot { uuid } => {
                let at = self.snapshots.iter().position(|(known, _)| *known == *uuid);
                let (_, layer) = self.snapshots.remove(at.expect("the guard looked"));
                // The marks of a layer that goes are those of the one above it.
                let above = self.snapshots.get_mut(at.expect("it is there"));
                above.map_or(&mut self.head, |(_, above)| above).marks.extend(layer.marks);
            }
            Command::Resize { bytes } => self.durable.bytes = bytes,
            Command::Fence(_) | Command::CopyRecord(_) | Command::Lease | Command::Release => {
                unreachable!("never for the pool")
            }
        }
        Ok(Outcome::Done)
    }

    fn layer(&self, snapshot: Option<&Uuid>) -> &Layer {
        let found = |uuid: &Uuid| self.snapshots.iter().find(|(known, _)| known == uuid);
        snapshot.map_or(&self.head, |uuid| &found(uuid).expect("the guard looked").1)
    }

    fn read(
        &mut self,
        tag: u64,
        snapshot: Option<Uuid>,
        offset: u64,
        len: u32,
    ) -> Result<(), Refusal> {
        let (first, end) = (offset / BLOCK, (offset + u64::from(len)).div_ceil(BLOCK));
        if let Some(bad) = (first..end).find(|block| self.bad.contains(block)) {
            return Err(Refusal::Media(bad * BLOCK));
        }
        let bytes = self.layer(snapshot.as_ref()).read(offset, u64::from(len));
        self.payload.insert(tag, bytes);
        Ok(())
    }

    fn put(&mut self, offset: u64, len: u64, byte: impl Fn(usize) -> u8) {
        for (nth, sector) in (offset / 512..(offset + len) / 512).enumerate() {
            let block = self.head.blocks.entry(sector / 8).or_default();
            block[(sector % 8) as usize] = byte(nth);
            self.bad.remove(&(sector / 8));
            self.lags.remove(&(sector / 8));
            self.head.marks.insert((sector * 512 / REGION) as u32);
        }
    }

    fn compare(&mut self, tag: u64, snapshot: Option<&Uuid>, offset: u64, len: u32) {
        let blocks = u64::from(len) / BLOCK;
        let mut bytes = vec![0; braid_nexus::wire::comparison_bytes(len) as usize];
        for at in 0..blocks {
            let block = offset / BLOCK + at;
            let sectors = self.layer(snapshot).blocks.get(&block).copied().unwrap_or_default();
            let hash = u128::from(u64::from_le_bytes(sectors)) | 1 << 100;
            let content = match sectors {
                _ if self.bad.contains(&block) => Content::Bad,
                _ if self.lags.contains(&block) => Content::Unverified(hash),
                [0, 0, 0, 0, 0, 0, 0, 0] => Content::Zero,
                _ => Content::Verified(hash),
            };
            Comparison::put(&mut bytes, blocks as usize, at as usize, content);
        }
        self.payload.insert(tag, bytes);
    }
}

impl Layer {
    /// Bytes of a range.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let sectors = offset / 512..(offset + len) / 512;
        let byte = |sector: u64| {
            let block = self.blocks.get(&(sector / 8)).copied().unwrap_or_default();
            block[(sector % 8) as usize]
        };
        sectors.flat_map(|sector| [byte(sector); 512]).collect()
    }
}
