//! Replicas and snapshots: which there are, and the moment a snapshot is the content of.

use std::collections::BTreeMap;
use std::rc::Rc;

use braid_block::BlockSize;
use braid_pool::LayerInfo;

use super::block::{Block, Content, Crash, NEVER, Presence, SECTORS, Touch, ZERO};
use super::borne::Burden;
use super::marks::Marks;
use super::{Op, Oracle, Tick, Uuid, Violation};

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A replica or a clone: it can be written.
    Replica,
    /// A snapshot.
    Snapshot,
}

/// Where a layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Asked for: after a crash it is there or not.
    Making,
    /// There.
    Live,
    /// Asked to go: after a crash it is there or not.
    Going,
    /// Away. Kept for what others show of it.
    Gone,
}

/// A replica, clone or snapshot.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub stage: Stage,
    /// Size in bytes.
    pub bytes: u64,
    /// Size that it was asked to have, if that is not decided.
    pub resizing: Option<u64>,
    /// Logical block size.
    pub block: BlockSize,
    /// Space was set aside for it.
    pub thick: bool,
    /// Of a snapshot the replica, of a clone the snapshot.
    pub source: Option<Uuid>,
    /// Whose content shows where it has none of its own.
    pub(super) parent: Option<Uuid>,
    pub(super) blocks: BTreeMap<u64, Rc<Block>>,
    /// Writes that are not known to be durable.
    pub(super) open: Vec<u32>,
    pub(super) frozen: Option<Frozen>,
    /// A snapshot below it went away: what was its parent's may be its own.
    pub(super) merged: bool,
    /// What replication keeps with it, and what must be marked of it.
    pub(super) burden: Burden,
    pub(super) marks: Marks,
    /// A snapshot of it was asked for: if it was made thick, it is thin since.
    snapshotted: bool,
    /// When it was asked for, and how many crashes there were before.
    since: Tick,
    before: usize,
}

/// A snapshot's moment lies within its command, and by what was read, between `low` and `high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frozen {
    start: Tick,
    finish: Tick,
    low: Tick,
    high: Tick,
    /// A loss of power cut its command off: what was not flushed may be missing in it.
    loose: bool,
}

impl Layer {
    /// Whether it is certainly there and nothing about it is in flight.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Whether a snapshot of it was ever asked for.
    #[must_use]
    pub const fn was_snapshotted(&self) -> bool {
        self.snapshotted
    }

    /// Whether something may be below it: a parent, or a snapshot of itself.
    pub(super) const fn is_above(&self) -> bool {
        self.parent.is_some() || self.snapshotted
    }

    /// Whether a block may be there, or hide another, without its content saying so: it was
    /// its parent's and a merge may have brought it here, or zeros were written over it; `zeroed`:
    /// that may have been below, too.
    pub(super) fn may_hide(&self, block: &Block, ops: &[Op], zeroed: bool) -> bool {
        let merged = self.merged && (zeroed || block.base != [ZERO; SECTORS]);
        let above = self.is_above();
        let now = block.touches.iter().any(|touch| ops[touch.op as usize].zero);
        merged && block.presence == Presence::Absent || above && now
    }

    /// Number of sectors that can be addressed for certain.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.bytes / 512
    }
}

impl Oracle {
    /// A replica is to be made.
    pub fn create(&mut self, uuid: Uuid, bytes: u64, block: BlockSize, thick: bool) {
        let (since, before) = (self.tick(), self.crashes.len());
        let layer = Layer {
            kind: Kind::Replica,
            stage: Stage::Making,
            bytes,
            resizing: None,
            block,
            thick,
            source: None,
            parent: None,
            blocks: BTreeMap::new(),
            open: Vec::new(),
            frozen: None,
            merged: false,
            burden: Burden::default(),
            marks: Marks::default(),
            snapshotted: false,
            since,
            before,
        };
        assert!(self.layers.insert(uuid, layer).is_none(), "an identity is used once");
    }

    /// A snapshot is to be taken.
    pub fn snapshot(&mut self, replica: &Uuid, uuid: Uuid) {
        let of = &self.layers[replica];
        let (bytes, block, parent) = (of.bytes, of.block, of.parent);
        let merged = of.merged;
        self.layer_mut(replica).snapshotted = true;
        self.seal_marks(replica);
        self.create(uuid, bytes, block, false);
        let layer = self.layer_mut(&uuid);
        layer.kind = Kind::Snapshot;
        layer.source = Some(*replica);
        layer.parent = parent;
        layer.merged = merged;
    }

    /// A clone is to be made, of a snapshot that is known for certain.
    pub fn clone_of(&mut self, snapshot: &Uuid, uuid: Uuid) {
        let of = &self.layers[snapshot];
        let (bytes, block, merged) = (of.bytes, of.block, of.merged);
        self.create(uuid, bytes, block, false);
        let layer = self.layer_mut(&uuid);
        layer.source = Some(*snapshot);
        layer.parent = Some(*snapshot);
        layer.merged = merged;
    }

    /// What was to be made is there; `reading`: a read of the replica that a snapshot was taken
    /// of is in flight, and may tell what was before.
    pub fn made(&mut self, uuid: &Uuid, reading: bool) {
        let now = self.tick();
        let layer = self.layer_mut(uuid);
        layer.stage = Stage::Live;
        let start = layer.since;
        if layer.kind == Kind::Snapshot {
            let replica = layer.source.expect("a snapshot's replica");
            layer.frozen = Some(Frozen { start, finish: now, low: start, high: now, loose: false });
            self.seal_marks(&replica);
            self.end_flush(&replica, start);
            self.freeze(&replica, uuid, (start, now), reading);
        }
    }

    /// What was to be made was refused.
    pub fn refused(&mut self, uuid: &Uuid) {
        self.tick();
        self.layers.remove(uuid);
    }

    /// A layer is to go.
    pub fn remove(&mut self, uuid: &Uuid) {
        self.tick();
        self.layer_mut(uuid).stage = Stage::Going;
        let layer = &self.layers[uuid];
        if let (Kind::Snapshot, Some(replica)) = (layer.kind, layer.source) {
            self.release_marks(&replica);
            // Who shows it, or lies above it, may take over its blocks from now on.
            self.layers.values_mut().for_each(|layer| layer.merged = true);
        }
    }

    /// Whether a layer that was to go went.
    pub fn removed(&mut self, uuid: &Uuid, gone: bool) {
        self.tick();
        self.layer_mut(uuid).stage = if gone { Stage::Gone } else { Stage::Live };
    }

    /// A replica is to become larger.
    pub fn resize(&mut self, uuid: &Uuid, bytes: u64) {
        self.tick();
        self.layer_mut(uuid).resizing = Some(bytes);
    }

    /// Whether it did.
    pub fn resized(&mut self, uuid: &Uuid, done: bool) {
        self.tick();
        let layer = self.layer_mut(uuid);
        if let Some(bytes) = layer.resizing.take().filter(|_| done) {
            layer.bytes = bytes;
        }
    }

    /// After an open: the pool's list is what the commands left; what was not decided is now.
    ///
    /// # Errors
    /// Something is missing, or there that should not be, or another than it was.
    pub fn reconcile(&mut self, list: &[LayerInfo]) -> Result<(), Violation> {
        let wrong = |text| Err(Violation::new("LayerList", text));
        for info in list {
            match self.layers.get(&info.uuid) {
                None => return wrong(format!("{} was never made", short(&info.uuid))),
                Some(layer) if layer.stage == Stage::Gone => {
                    return wrong(format!("{} is back", self.name(&info.uuid)));
                }
                Some(_) => self.matches(info)?,
            }
        }
        let uuids: Vec<Uuid> = self.layers.keys().copied().collect();
        for uuid in uuids {
            let there = list.iter().find(|info| info.uuid == uuid);
            match (self.layers[&uuid].stage, there) {
                (Stage::Live, None) => return wrong(format!("{} is lost", self.name(&uuid))),
                (Stage::Making, None) => self.refused(&uuid),
                (Stage::Going, None) => self.layer_mut(&uuid).stage = Stage::Gone,
                (Stage::Making, Some(_)) => self.adopt(&uuid),
                (Stage::Going, Some(_)) => self.layer_mut(&uuid).stage = Stage::Live,
                (Stage::Live, Some(_)) | (Stage::Gone, _) => {}
            }
            if let (Some(info), Some(layer)) = (there, self.layers.get_mut(&uuid)) {
                layer.bytes = info.bytes;
                layer.resizing = None;
            }
        }
        Ok(())
    }

    /// A short name: kind and the identity's beginning.
    #[must_use]
    pub fn name(&self, uuid: &Uuid) -> String {
        let kind = self.layers.get(uuid).map_or("layer", |layer| match layer.kind {
            Kind::Snapshot => "snapshot",
            Kind::Replica if layer.source.is_some() => "clone",
            Kind::Replica => "replica",
        });
        format!("{kind} {}", short(uuid))
    }

    fn matches(&self, info: &LayerInfo) -> Result<(), Violation> {
        let layer = &self.layers[&info.uuid];
        let size = layer.bytes == info.bytes || layer.resizing == Some(info.bytes);
        let kind = (layer.kind == Kind::Snapshot) == info.snapshot;
        // The source of a clone may be gone, and its name with it.
        let source = info.source.is_none() || layer.source == info.source;
        if size && kind && source && layer.block == info.block {
            return Ok(());
        }
        let text = format!("{} is another than it was: {info:?}", self.name(&info.uuid));
        Err(Violation::new("LayerList", text))
    }

    /// A layer whose making a crash cut off is there all the same.
    pub(super) fn adopt(&mut self, uuid: &Uuid) {
        let now = self.tick();
        let before = self.layer_mut(uuid).before;
        let loose = self.crashes[before..].iter().any(|crash| *crash != Crash::Kill);
        let layer = self.layer_mut(uuid);
        layer.stage = Stage::Live;
        if layer.kind == Kind::Snapshot {
            let replica = layer.source.expect("a snapshot's replica");
            let start = layer.since;
            layer.frozen = Some(Frozen { start, finish: now, low: start, high: now, loose });
            let head = self.layer_mut(&replica);
            head.blocks.values_mut().for_each(|block| {
                Rc::make_mut(block).presence = Presence::Unknown;
            });
            let blocks = head.blocks.clone();
            self.layer_mut(uuid).blocks = blocks;
        }
    }

    /// The snapshot gets the replica's blocks: where their content is certain as that, else
    /// with all that they may be.
    fn freeze(&mut self, replica: &Uuid, snapshot: &Uuid, interval: (Tick, Tick), reading: bool) {
        let crashes = self.crashes.len();
        let blocks = self.layers[replica].blocks.clone();
        let mut frozen = BTreeMap::new();
        let mut heads = BTreeMap::new();
        for (number, mut block) in blocks {
            if let Some(base) = self.certain_before(&block, interval) {
                let fixed = Rc::new(Block::new(base, Presence::Absent, crashes));
                frozen.insert(number, Rc::clone(&fixed));
                if reading {
                    Rc::make_mut(&mut block).presence = Presence::Unknown;
                }
                heads.insert(number, if reading { block } else { fixed });
            } else {
                frozen.insert(number, Rc::clone(&block));
                Rc::make_mut(&mut block).presence = Presence::Unknown;
                heads.insert(number, block);
            }
        }
        self.layer_mut(snapshot).blocks = frozen;
        self.layer_mut(replica).blocks = heads;
    }

    fn certain_before(&self, block: &Block, interval: (Tick, Tick)) -> Option<[Content; SECTORS]> {
        let over = |op: u32| self.ops[op as usize].ended() < interval.0;
        if !block.touches.iter().all(|touch| over(touch.op)) {
            return None;
        }
        let mut base = [ZERO; SECTORS];
        for (sector, content) in base.iter_mut().enumerate() {
            match block.values(&self.ops, sector, interval)[..] {
                [only] => *content = only,
                _ => return None,
            }
        }
        Some(base)
    }

    /// A snapshot's block was read: it has that content for ever.
    pub(super) fn thaw(
        &mut self,
        holder: &Uuid,
        known: &mut Rc<Block>,
        values: &[Option<Content>; SECTORS],
        whole: bool,
    ) -> Result<(), &'static str> {
        let frozen = self.layers[holder].frozen.expect("a snapshot's moment");
        let interval = (frozen.start, frozen.finish);
        let (mut low, mut high) = (frozen.low, frozen.high);
        let seen = (0..SECTORS).filter_map(|sector| Some((sector, values[sector]?)));
        for (sector, value) in seen {
            let may = if known.is_certain() {
                known.base[sector] == value
            } else {
                known.values(&self.ops, sector, interval).contains(&value)
                    || frozen.loose && known.outlives(&self.ops, sector, value)
            };
            if !may {
                return Err("SnapshotPoint");
            }
            let (after, before) = self.moment_of(known, sector, value);
            low = low.max(after);
            high = high.min(before);
        }
        let all = values.map(Option::unwrap_or_default);
        if !frozen.loose && (low >= high || whole && known.is_torn(&self.ops, &all)) {
            return Err("SnapshotPoint");
        }
        if whole {
            *known = Rc::new(Block::new(all, Presence::Absent, self.crashes.len()));
        }
        let layer = self.layer_mut(holder);
        layer.frozen = Some(Frozen { low, high, ..frozen });
        Ok(())
    }

    /// Between which moments a sector had a value: after its write began, and before what
    /// surely followed was acknowledged.
    fn moment_of(&self, block: &Block, sector: usize, value: Content) -> (Tick, Tick) {
        let here = || block.touches.iter().filter(|touch| touch.covers(sector));
        let op = |touch: &Touch| &self.ops[touch.op as usize];
        let shown: Vec<_> = here().filter(|t| op(t).content(t.op) == value).map(op).collect();
        let (start, ended) = match (&shown[..], block.base[sector] == value) {
            ([], true) => (0, 0),
            ([only], false) => (only.start, only.ended()),
            _ => return (0, NEVER),
        };
        let later = here().map(op).filter(|op| op.start > ended);
        (start, later.map(|op| op.finish).min().unwrap_or(NEVER))
    }
}

fn short(uuid: &Uuid) -> String {
    uuid[..2].iter().map(|byte| format!("{byte:02x}")).collect()
}
