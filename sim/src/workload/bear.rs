//! What replication and management ask of a pool: what a replica bears, its marks, what is
//! allocated, and more space.

use braid_block::{Class, Memory};
use braid_pool::{Bearing, Command, Fence, RECORD_MAX, Request, Reservation, Work};

use super::{Pending, Session};
use crate::machine::Machine;
use crate::oracle::{Kind as LayerKind, Uuid};
use crate::payload::SECTOR;

/// Bytes that a disk grows to, at most.
const DISK_MAX: u64 = 64 << 20;
/// Bearings of a replica in flight.
const BEARINGS: usize = 3;
/// Registrants of a reservation.
const REGISTRANTS: u64 = 16;

impl<M: Machine> Session<M> {
    pub(super) fn begin_bear(&mut self) {
        let Some((layer, _)) = self.some_layer(LayerKind::Replica) else { return };
        let here = |pending: &&Pending| pending.layer() == Some(layer);
        let mine = self.pending.values().filter(here);
        let bears = mine.clone().filter(|pending| matches!(pending, Pending::Bear { .. }));
        if bears.count() >= BEARINGS {
            return;
        }
        let cleans = mine.clone().any(|pending| matches!(pending, Pending::Clean { .. }));
        let mut bearing = self.some_bearing();
        // A `Clean` is refused if it is no member any more.
        if cleans || self.oracle.member(&layer) == bearing.member {
            bearing.member = None;
        }
        let tag = self.next_tag;
        self.oracle.bear(&layer, tag, &bearing);
        let bear = Command::Bear { uuid: layer, bearing: Box::new(bearing) };
        self.command(Pending::Bear { layer, tag }, bear);
    }

    fn some_bearing(&mut self) -> Bearing {
        let (random, number) = (&mut self.random, self.begun);
        let owner = [u8::try_from(number % 251).expect("a byte"); 16];
        let member = match random.below(8) {
            0 => Some(false),
            1..5 => Some(true),
            _ => None,
        };
        let fence = random.once_in(2).then_some(Fence { epoch: number, owner });
        let record = random.once_in(2).then(|| {
            let len = *random.pick(&[0, 1, 15, 16, 100, 1500, RECORD_MAX]);
            let step = random.number();
            (0..len as u64).map(|at| (step.wrapping_mul(at + 1) >> 56) as u8).collect()
        });
        let reservation = random.once_in(3).then(|| {
            let kind = u8::try_from(random.below(7)).expect("a byte");
            let generation = u32::try_from(number).expect("few steps");
            let mut reservation = Reservation { kind, generation, ..Reservation::default() };
            for _ in 0..random.within(0, REGISTRANTS) {
                reservation.registrants.push((random.number(), owner));
            }
            let count = reservation.registrants.len() as u64;
            let holder = (count > 0 && kind != 0).then(|| random.below(count));
            reservation.holder = holder.map(|at| u8::try_from(at).expect("a position"));
            Box::new(reservation)
        });
        Bearing { fence, member, record, reservation }
    }

    /// A replica that is a member for certain.
    fn some_member(&mut self) -> Option<Uuid> {
        let layers = self.oracle.layers().iter();
        let live = layers.filter(|(_, layer)| layer.is_live() && layer.kind == LayerKind::Replica);
        let members: Vec<Uuid> = live
            .map(|(uuid, _)| *uuid)
            .filter(|uuid| self.oracle.member(uuid) == Some(true))
            .collect();
        (!members.is_empty()).then(|| *self.random.pick(&members))
    }

    pub(super) fn begin_clean(&mut self) {
        let Some(layer) = self.some_member() else { return };
        let end = self.oracle.layers()[&layer].bytes.div_ceil(1 << 20);
        let regions: Vec<(u32, u32)> = if self.random.once_in(3) {
            vec![(0, u32::MAX)]
        } else {
            let some = |random: &mut crate::random::Random| {
                let first = u32::try_from(random.below(end.min(3))).expect("few regions");
                (first, u32::try_from(random.within(1, 70)).expect("few regions"))
            };
            (0..self.random.within(1, 3)).map(|_| some(&mut self.random)).collect()
        };
        let tag = self.next_tag;
        self.oracle.clean(&layer, tag, &regions);
        let clean = Command::Clean { uuid: layer, regions: regions.into() };
        self.command(Pending::Clean { layer, tag }, clean);
    }

    pub(super) fn begin_marks(&mut self) {
        let Some(layer) = self.some_member() else { return };
        self.marks(layer);
    }

    /// Asks for the marks of a layer.
    pub(super) fn marks(&mut self, layer: Uuid) {
        let since = self.oracle.tick();
        let tag = self.next_tag;
        self.command(Pending::Marks { layer, since, tag }, Command::Marks { uuid: layer });
    }

    pub(super) fn begin_status(&mut self) {
        let kind = if self.random.once_in(4) { LayerKind::Snapshot } else { LayerKind::Replica };
        let Some((layer, _)) = self.some_layer(kind) else { return };
        let volume = &self.oracle.layers()[&layer];
        let (sectors, unit) = (volume.sectors(), super::begin::unit(volume.block));
        let (first, mut len) = self.mix.extent(&mut self.random, sectors, unit);
        if self.random.once_in(2) {
            let most = (sectors - first) / unit;
            len = unit * self.random.within(1, most.max(1));
        }
        self.status(layer, first, len);
    }

    /// Asks what of a range is allocated.
    pub(super) fn status(&mut self, layer: Uuid, first: u64, sectors: u64) {
        let since = self.oracle.tick();
        let name = self.oracle.name(&layer);
        self.tell(|| format!("status {name} {first}+{sectors}"));
        let class = *self.random.pick(&[Class::Small, Class::Medium]);
        let Some(lease) = self.world.mem.alloc(class) else { return };
        let tag = self.tag(Pending::Status { layer, first, sectors, since });
        let (offset, len) = (first * SECTOR as u64, sectors * SECTOR as u64);
        let work = Work::Status { offset, len };
        let request = Request { tag, handle: self.handles[&layer], work, lease: Some(lease) };
        self.world.machine.submit(&mut self.world.mem, self.world.now, request);
    }

    /// The disk becomes larger, and the pool is told.
    pub(super) fn begin_grow(&mut self) {
        let grows = |pending: &Pending| matches!(pending, Pending::Grow);
        let before = self.world.disk.bytes();
        if before >= DISK_MAX || self.pending.values().any(grows) {
            return;
        }
        let odd = if self.random.once_in(3) { u64::from(self.mix.sector) } else { 0 };
        let bytes = before + (self.random.within(0, 2500) << 12) + odd;
        self.world.disk.grow(bytes);
        self.growing = true;
        self.command(Pending::Grow, Command::Grow { bytes });
    }

    /// What makes no sense to a replica, and is refused.
    pub(super) fn begin_command_nonsense(&mut self, layer: Uuid) {
        let command = if self.random.once_in(2) {
            let record = Some(vec![1; RECORD_MAX + 1].into());
            let bearing = Bearing { record, member: Some(true), ..Bearing::default() };
            Command::Bear { uuid: layer, bearing: Box::new(bearing) }
        } else {
            Command::Grow { bytes: self.mix.bytes - 4096 }
        };
        self.command(Pending::Refused, command);
    }
}
