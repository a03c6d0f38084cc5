//! A pool that exists on paper only, right by construction: the oracle must believe it, whatever
//! it makes of its freedom.

use super::*;
use crate::random::Random;
use braid_block::BlockSize;

type Sectors = [Content; SECTORS];

/// One layer: what shows through, and what each block became since it was last durable.
#[derive(Clone, Default)]
struct Volume {
    base: BTreeMap<u64, Sectors>,
    /// Newest last; the first is durable. `None`: it has none of its own.
    own: BTreeMap<u64, Vec<Option<Sectors>>>,
}

impl Volume {
    fn below(&self, block: u64) -> Sectors {
        self.base.get(&block).copied().unwrap_or_default()
    }

    fn show(&self, block: u64) -> Sectors {
        let own = self.own.get(&block).and_then(|versions| *versions.last().expect("one"));
        own.unwrap_or_else(|| self.below(block))
    }

    fn flatten(&self) -> BTreeMap<u64, Sectors> {
        let blocks = self.base.keys().chain(self.own.keys());
        blocks.map(|block| (*block, self.show(*block))).collect()
    }

    fn apply(&mut self, block: u64, mask: u8, value: Content) {
        let mut sectors = self.show(block);
        cover(&mut sectors, mask, value);
        let clear = value == ZERO && mask == 0xff && self.below(block) == [ZERO; SECTORS];
        let versions = self.own.entry(block).or_insert_with(|| vec![None]);
        versions.push((!clear).then_some(sectors));
    }

    fn flush(&mut self) {
        self.own.values_mut().for_each(|versions| drop(versions.drain(..versions.len() - 1)));
    }

    /// After a loss of power: some version since the durable one, or between two neighbours if
    /// the later was written in place.
    fn lose(&mut self, random: &mut Random) {
        for versions in self.own.values_mut() {
            let chosen = random.index(versions.len());
            let mut kept = versions[chosen];
            if let (Some(old), Some(Some(new))) = (kept, versions.get(chosen + 1)) {
                kept = Some(mixture(old, *new, random));
            }
            *versions = vec![kept];
        }
    }
}

fn cover(sectors: &mut Sectors, mask: u8, value: Content) {
    (0..SECTORS).filter(|s| mask & 1 << s != 0).for_each(|s| sectors[s] = value);
}

fn mixture(old: Sectors, new: Sectors, random: &mut Random) -> Sectors {
    std::array::from_fn(|s| if random.once_in(2) { old[s] } else { new[s] })
}

/// A write in flight: what of it has not taken effect yet.
#[derive(Clone)]
struct Flying {
    layer: Uuid,
    number: u32,
    value: Content,
    blocks: Vec<(u64, u8)>,
}

struct Paper {
    oracle: Oracle,
    volumes: BTreeMap<Uuid, Volume>,
    flying: Vec<Flying>,
    /// A snapshot in flight: of what, and whether it was taken.
    sealing: Option<(Uuid, Uuid, bool)>,
    random: Random,
    next: u8,
}

impl Paper {
    fn step(&mut self) {
        match self.random.below(20) {
            0..6 => self.begin(),
            6..11 => self.take_effect(),
            11..15 => self.end(),
            15 => self.flush(),
            16 => self.snapshot(),
            17 => self.clone_or_delete(),
            _ => self.read_some(),
        }
    }

    fn live(&mut self, kind: Kind) -> Option<Uuid> {
        let layers = self.oracle.layers().iter();
        let live = layers.filter(|(_, l)| l.is_live() && l.kind == kind).map(|(uuid, _)| *uuid);
        let live: Vec<Uuid> = live.collect();
        (!live.is_empty()).then(|| *self.random.pick(&live))
    }

    fn begin(&mut self) {
        let Some(layer) = self.live(Kind::Replica) else { return };
        let first = self.random.below(24);
        let len = self.random.within(1, 32 - first).min(16);
        let zero = self.random.once_in(4);
        let (first, len) = if self.random.once_in(2) {
            (first / 8 * 8, len.next_multiple_of(8))
        } else {
            (first, len)
        };
        let number = self.oracle.begin_write(&layer, first, len, zero);
        let value = if zero { ZERO } else { number };
        let blocks = blocks_of(first, len).collect();
        self.flying.push(Flying { layer, number, value, blocks });
    }

    fn take_effect(&mut self) {
        if let Some((replica, uuid, false)) = self.sealing
            && self.random.once_in(3)
        {
            self.seal(replica, uuid);
            return;
        }
        if self.flying.is_empty() {
            return;
        }
        let at = self.random.index(self.flying.len());
        self.effect_of(at);
    }

    fn effect_of(&mut self, at: usize) {
        let flying = &mut self.flying[at];
        let Some((block, mask)) = flying.blocks.pop() else { return };
        let volume = self.volumes.get_mut(&flying.layer).expect("a volume");
        volume.apply(block, mask, flying.value);
    }

    fn end(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.random.index(self.flying.len());
        let untouched = is_untouched(&self.oracle, &self.flying[at]);
        if untouched && self.random.once_in(8) {
            let refused = self.flying.swap_remove(at);
            self.oracle.end_write(refused.number, End::Nothing);
            return;
        }
        while !self.flying[at].blocks.is_empty() {
            self.effect_of(at);
        }
        let ended = self.flying.swap_remove(at);
        self.oracle.end_write(ended.number, End::Done { durable: false });
    }

    fn flush(&mut self) {
        let Some(layer) = self.live(Kind::Replica) else { return };
        let since = self.oracle.tick();
        self.volumes.get_mut(&layer).expect("a volume").flush();
        self.oracle.end_flush(&layer, since);
    }

    fn snapshot(&mut self) {
        if let Some((replica, uuid, taken)) = self.sealing.take() {
            if !taken {
                self.seal(replica, uuid);
            }
            self.sealing = None;
            self.oracle.made(&uuid, false);
            return;
        }
        let Some(replica) = self.live(Kind::Replica).filter(|_| self.next < 12) else { return };
        let uuid = [self.next; 16];
        self.next += 1;
        self.oracle.snapshot(&replica, uuid);
        self.sealing = Some((replica, uuid, false));
    }

    fn seal(&mut self, replica: Uuid, uuid: Uuid) {
        let base = self.volumes[&replica].flatten();
        let sealed = Volume { base, own: BTreeMap::new() };
        self.volumes.insert(uuid, sealed.clone());
        self.volumes.insert(replica, sealed);
        self.sealing = Some((replica, uuid, true));
    }

    fn clone_or_delete(&mut self) {
        let Some(snapshot) = self.live(Kind::Snapshot) else { return };
        if self.random.once_in(3) {
            self.oracle.remove(&snapshot);
            self.oracle.removed(&snapshot, true);
            self.volumes.remove(&snapshot);
            return;
        }
        self.read_all(snapshot);
        if self.next < 12 {
            let uuid = [self.next; 16];
            self.next += 1;
            self.oracle.clone_of(&snapshot, uuid);
            self.oracle.made(&uuid, false);
            self.volumes.insert(uuid, self.volumes[&snapshot].clone());
        }
    }

    fn read_some(&mut self) {
        let kind = if self.random.once_in(3) { Kind::Snapshot } else { Kind::Replica };
        let Some(layer) = self.live(kind) else { return };
        let block = self.random.below(4);
        self.read(layer, block);
    }

    fn read_all(&mut self, layer: Uuid) {
        (0..4).for_each(|block| self.read(layer, block));
    }

    fn read(&mut self, layer: Uuid, block: u64) {
        let since = self.oracle.tick();
        let mut bytes = vec![0; 4096];
        let shown = self.volumes[&layer].show(block);
        for (at, piece) in bytes.chunks_exact_mut(SECTOR).enumerate() {
            if shown[at] != ZERO {
                payload::fill(piece, shown[at], block * 8 + at as u64);
            }
        }
        let verdict = self.oracle.end_read(&layer, block * 8, &bytes, since);
        assert_eq!(verdict, Ok(()));
    }

    fn crash(&mut self) {
        let crash = if self.random.once_in(2) { Crash::Kill } else { Crash::Power };
        // Of what is in flight some has taken effect, in part where a block was there.
        for at in 0..self.flying.len() {
            while self.random.once_in(2) && !self.flying[at].blocks.is_empty() {
                self.effect_of(at);
            }
            self.arrive_in_part(at);
        }
        self.flying.clear();
        if crash == Crash::Power {
            self.volumes.values_mut().for_each(|volume| volume.lose(&mut self.random));
        }
        self.oracle.crash(crash);
        self.volumes.values_mut().for_each(Volume::flush);
        if let Some((_, uuid, taken)) = self.sealing.take() {
            self.decide(uuid, taken);
        }
        let live: Vec<Uuid> = self.volumes.keys().copied().collect();
        live.into_iter().for_each(|layer| self.read_all(layer));
    }

    fn arrive_in_part(&mut self, at: usize) {
        let Flying { layer, value, blocks, .. } = self.flying[at].clone();
        let volume = self.volumes.get_mut(&layer).expect("a volume");
        for (block, mask) in blocks {
            let own = volume.own.get(&block).and_then(|versions| *versions.last().expect("one"));
            let clears = value == ZERO && mask == 0xff;
            if let Some(old) = own.filter(|_| !clears) {
                let mut new = old;
                cover(&mut new, mask, value);
                let part = mixture(old, new, &mut self.random);
                volume.own.get_mut(&block).expect("a block").push(Some(part));
            }
        }
    }

    /// A snapshot that a crash cut off is there or not.
    fn decide(&mut self, uuid: Uuid, taken: bool) {
        if taken {
            self.oracle.adopt(&uuid);
        } else {
            self.oracle.refused(&uuid);
        }
    }
}

/// Whether a write has not taken effect anywhere yet.
fn is_untouched(oracle: &Oracle, flying: &Flying) -> bool {
    let blocks = oracle.layers()[&flying.layer].blocks.values();
    let touched = blocks.filter(|block| block.touches.iter().any(|t| t.op == flying.number));
    touched.count() == flying.blocks.len()
}

#[test]
fn what_is_right_by_construction_is_believed() {
    for seed in 0..1000 {
        let mut oracle = Oracle::default();
        oracle.create([1; 16], 1 << 20, BlockSize::B512, false);
        oracle.made(&[1; 16], false);
        let volumes = BTreeMap::from([([1; 16], Volume::default())]);
        let random = Random::new(seed);
        let mut paper =
            Paper { oracle, volumes, flying: Vec::new(), sealing: None, random, next: 2 };
        for _ in 0..200 {
            paper.step();
            if paper.random.once_in(60) {
                paper.crash();
            }
        }
    }
}
