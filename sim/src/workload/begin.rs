//! What is begun: requests and commands, chosen by the seed's mixture.

use braid_block::{BlockSize, Class, Memory};
use braid_pool::{Command, Create, Handle, Request, Work};

use super::mix::Kind;
use super::{Pending, Session, Verdict};
use crate::machine::Machine;
use crate::oracle::{Kind as LayerKind, Uuid};
use crate::payload::{self, SECTOR};

/// Replicas, clones and snapshots at a time.
const LAYERS_MAX: usize = 8;

impl<M: Machine> Session<M> {
    /// Begins something, if what chance chose is possible.
    pub(super) fn begin(&mut self) -> Verdict {
        if !self.may_begin() {
            return Ok(());
        }
        self.begun += 1;
        match self.mix.next(&mut self.random) {
            Kind::Write => self.begin_write(false),
            Kind::Zero => self.begin_write(true),
            Kind::Read => self.begin_read(),
            Kind::Flush => self.begin_flush(),
            Kind::Create => self.begin_create(),
            Kind::Destroy => self.begin_destroy(),
            Kind::Snapshot => self.begin_snapshot(),
            Kind::DeleteSnapshot => self.begin_delete(),
            Kind::Clone => self.begin_clone(),
            Kind::Resize => self.begin_resize(),
            Kind::Nonsense => self.begin_nonsense(),
            Kind::Bear => self.begin_bear(),
            Kind::Clean => self.begin_clean(),
            Kind::Marks => self.begin_marks(),
            Kind::Status => self.begin_status(),
            Kind::Grow => self.begin_grow(),
            Kind::Scrub => {
                let rate = *self.random.pick(&[0, 1 << 20, 1 << 40]);
                self.command(Pending::Scrub, Command::Scrub { rate });
            }
        }
        Ok(())
    }

    fn begin_write(&mut self, zero: bool) {
        let Some((layer, handle)) = self.some_layer(LayerKind::Replica) else {
            return self.begin_create();
        };
        let volume = &self.oracle.layers()[&layer];
        let (sectors, unit) = (volume.sectors(), unit(volume.block));
        let (first, mut len) = self.mix.extent(&mut self.random, sectors, unit);
        if zero && self.random.once_in(4) {
            // Whole clusters give their space back.
            len = (len + 1024).min(sectors - first);
        }
        if !zero {
            len = len.min(256);
        }
        let durable = self.random.once_in(self.mix.durable_in);
        self.oracle.trace(&layer, (first, len), zero, durable);
        let number = self.oracle.begin_write(&layer, first, len, zero);
        let name = self.oracle.name(&layer);
        let what = if zero { "zero" } else { "write" };
        self.tell(|| format!("#{number} {what} {name} {first}+{len} durable {durable}"));
        let offset = first * SECTOR as u64;
        let pending = Pending::Write { layer, number, first, sectors: len, zero, durable };
        if zero {
            let len = len * SECTOR as u64;
            return self.request(handle, Work::Zero { offset, len, durable }, None, pending);
        }
        let mut bytes = vec![0; len as usize * SECTOR];
        for (sector, piece) in (first..).zip(bytes.chunks_exact_mut(SECTOR)) {
            payload::fill(piece, number, sector);
        }
        let len = u32::try_from(bytes.len()).expect("at most 128 KiB");
        let work = Work::Write { offset, len, durable };
        self.request(handle, work, Some(&bytes), pending);
    }

    fn begin_read(&mut self) {
        let kind = if self.random.once_in(4) { LayerKind::Snapshot } else { LayerKind::Replica };
        let Some((layer, _)) = self.some_layer(kind) else { return };
        let volume = &self.oracle.layers()[&layer];
        let (sectors, unit) = (volume.sectors(), unit(volume.block));
        let (first, len) = self.mix.extent(&mut self.random, sectors, unit);
        self.read(layer, first, len.min(256));
    }

    /// Begins a read of at most 256 sectors.
    pub(super) fn read(&mut self, layer: Uuid, first: u64, sectors: u64) {
        let since = self.oracle.tick();
        let name = self.oracle.name(&layer);
        self.tell(|| format!("read {name} {first}+{sectors}"));
        let (offset, len) = (first * SECTOR as u64, sectors * SECTOR as u64);
        let len = u32::try_from(len).expect("at most 128 KiB");
        let class = Class::holding(len).expect("at most 128 KiB");
        let lease = self.world.mem.alloc(class).expect("a buffer of the host's");
        let tag = self.tag(Pending::Read { layer, first, sectors, since });
        let work = Work::Read { offset, len };
        let request = Request { tag, handle: self.handles[&layer], work, lease: Some(lease) };
        self.world.machine.submit(&mut self.world.mem, self.world.now, request);
    }

    /// What must be refused and change nothing.
    fn begin_nonsense(&mut self) {
        let kind = if self.random.once_in(2) { LayerKind::Snapshot } else { LayerKind::Replica };
        let Some((layer, handle)) = self.some_layer(kind) else { return };
        let volume = &self.oracle.layers()[&layer];
        if volume.resizing.is_some() {
            return;
        }
        if kind == LayerKind::Replica && self.random.once_in(3) {
            return self.begin_command_nonsense(layer);
        }
        let end = volume.bytes;
        let past = Work::Write { offset: end, len: 4096, durable: false };
        let (work, bytes) = match (kind, self.random.below(3)) {
            (LayerKind::Snapshot, 0) => (Work::Zero { offset: 0, len: 4096, durable: true }, None),
            (LayerKind::Snapshot, _) => {
                (Work::Write { offset: 0, len: 4096, durable: false }, Some([1; 4096]))
            }
            (LayerKind::Replica, 0) => (past, Some([1; 4096])),
            (LayerKind::Replica, 1) => {
                (Work::Zero { offset: 4096, len: end, durable: false }, None)
            }
            (LayerKind::Replica, _) => {
                (Work::Write { offset: 100, len: 4096, durable: false }, Some([1; 4096]))
            }
        };
        self.tell(|| format!("nonsense: {work:?}"));
        self.request(handle, work, bytes.as_ref().map(|bytes| &bytes[..]), Pending::Refused);
    }

    fn begin_flush(&mut self) {
        let Some((layer, handle)) = self.some_layer(LayerKind::Replica) else { return };
        self.flush(layer, handle);
    }

    pub(super) fn flush(&mut self, layer: Uuid, handle: Handle) {
        let since = self.oracle.tick();
        let name = self.oracle.name(&layer);
        let number = self.random.once_in(2).then(|| self.oracle.number_flush(&layer));
        self.tell(|| format!("flush {name}, number {number:?}"));
        let work = Work::Flush { number };
        self.request(handle, work, None, Pending::Flush { layer, since, number });
    }

    fn begin_create(&mut self) {
        if self.is_full() {
            return;
        }
        let uuid = self.uuid();
        let block = self.mix.block(&mut self.random);
        let bytes = self.mix.size(&mut self.random);
        let thick = bytes <= 1 << 20 && self.random.once_in(3);
        self.oracle.create(uuid, bytes, block, thick);
        let name = name_of(&uuid);
        let create = Create { uuid, name, bytes, block, thick, created: 1 };
        self.command(Pending::Create { uuid }, Command::Create(Box::new(create)));
    }

    fn begin_snapshot(&mut self) {
        let Some((replica, _)) = self.some_layer(LayerKind::Replica) else { return };
        let busy = self.changes(&replica);
        if self.is_full() || busy {
            return;
        }
        let uuid = self.uuid();
        self.oracle.snapshot(&replica, uuid);
        let snapshot = Command::Snapshot { replica, uuid, name: name_of(&uuid), created: 2 };
        self.command(Pending::Create { uuid }, snapshot);
    }

    /// A clone is made of a snapshot whose content is known for certain: where it is not, it is
    /// read first, and the clone made another time.
    fn begin_clone(&mut self) {
        let Some((snapshot, _)) = self.some_layer(LayerKind::Snapshot) else { return };
        if self.is_full() || self.changes(&snapshot) {
            return;
        }
        let uncertain = self.oracle.uncertain(&snapshot);
        if !uncertain.is_empty() {
            uncertain.iter().take(8).for_each(|block| self.read(snapshot, block * 8, 8));
            return;
        }
        let uuid = self.uuid();
        self.oracle.clone_of(&snapshot, uuid);
        let clone = Command::Clone { snapshot, uuid, name: name_of(&uuid), created: 3 };
        self.command(Pending::Create { uuid }, clone);
    }

    fn begin_destroy(&mut self) {
        let Some((uuid, _)) = self.some_layer(LayerKind::Replica) else { return };
        if self.in_use(&uuid) {
            return;
        }
        self.oracle.remove(&uuid);
        self.command(Pending::Remove { uuid }, Command::Destroy { uuid });
    }

    fn begin_delete(&mut self) {
        let Some((uuid, _)) = self.some_layer(LayerKind::Snapshot) else { return };
        if self.in_use(&uuid) {
            return;
        }
        self.oracle.remove(&uuid);
        self.command(Pending::Remove { uuid }, Command::DeleteSnapshot { uuid });
    }

    fn begin_resize(&mut self) {
        let Some((uuid, _)) = self.some_layer(LayerKind::Replica) else { return };
        if self.in_use(&uuid) {
            return;
        }
        let bytes = self.oracle.layers()[&uuid].bytes + (self.random.within(1, 300) << 12);
        self.oracle.resize(&uuid, bytes);
        self.command(Pending::Resize { uuid }, Command::Resize { uuid, bytes });
    }

    pub(super) fn command(&mut self, pending: Pending, command: Command) {
        self.tell(|| format!("{command:?}"));
        let tag = self.tag(pending);
        self.world.machine.command(&mut self.world.mem, self.world.now, tag, command);
    }

    fn request(&mut self, handle: Handle, work: Work, bytes: Option<&[u8]>, pending: Pending) {
        let lease = bytes.map(|bytes| self.world.mem.filled(bytes));
        let tag = self.tag(pending);
        let request = Request { tag, handle, work, lease };
        self.world.machine.submit(&mut self.world.mem, self.world.now, request);
    }

    /// Removes a layer; used when a campaign cleans up.
    pub(super) fn remove(&mut self, uuid: Uuid) {
        let snapshot = self.oracle.layers()[&uuid].kind == LayerKind::Snapshot;
        self.oracle.remove(&uuid);
        let command = match snapshot {
            true => Command::DeleteSnapshot { uuid },
            false => Command::Destroy { uuid },
        };
        self.command(Pending::Remove { uuid }, command);
    }

    pub(super) fn tag(&mut self, pending: Pending) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.pending.insert(tag, pending);
        tag
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        let tag = self.next_tag;
        self.world.story.tell(self.world.now, || format!("[{tag}] {}", what()));
    }

    fn uuid(&mut self) -> Uuid {
        let mut uuid = [0; 16];
        uuid[0] = u8::try_from(self.next_uuid % 256).expect("a byte");
        uuid[1] = u8::try_from(self.next_uuid / 256).expect("few layers");
        uuid[15] = 1;
        self.next_uuid += 1;
        uuid
    }

    /// A layer of a kind that is there and is not about to go.
    pub(super) fn some_layer(&mut self, kind: LayerKind) -> Option<(Uuid, Handle)> {
        let layers = self.oracle.layers().iter();
        let live = layers.filter(|(_, layer)| layer.is_live() && layer.kind == kind);
        let live: Vec<Uuid> = live.map(|(uuid, _)| *uuid).collect();
        if live.is_empty() {
            return None;
        }
        let uuid = *self.random.pick(&live);
        Some((uuid, self.handles[&uuid]))
    }

    fn is_full(&self) -> bool {
        let gone = |uuid: &Uuid| self.oracle.layers()[uuid].stage == crate::oracle::Stage::Gone;
        self.oracle.layers().keys().filter(|uuid| !gone(uuid)).count() >= LAYERS_MAX
    }

    /// Whether a request or a command about a layer is in flight.
    fn in_use(&self, uuid: &Uuid) -> bool {
        self.pending.values().any(|pending| pending.layer() == Some(*uuid)) || self.changes(uuid)
    }

    /// Whether a command that needs a layer as it is, is in flight.
    fn changes(&self, uuid: &Uuid) -> bool {
        self.pending.values().any(|pending| match pending {
            Pending::Create { uuid: made } => {
                made == uuid || self.oracle.layers()[made].source == Some(*uuid)
            }
            Pending::Remove { uuid: other } | Pending::Resize { uuid: other } => other == uuid,
            _ => false,
        })
    }
}

/// Sectors of a logical block.
pub(super) const fn unit(block: BlockSize) -> u64 {
    block.bytes() as u64 / SECTOR as u64
}

fn name_of(uuid: &Uuid) -> String {
    format!("layer-{}", u32::from(uuid[0]) + 256 * u32::from(uuid[1]))
}
