//! After an open: is the pool what the oracle says it is.

use std::collections::BTreeSet;

use braid_pool::{LayerInfo, State};

use super::{Health, Session, Verdict};
use crate::machine::Machine;
use crate::oracle::{Crash, Kind, Uuid, Violation};
use crate::world::Injection;

/// Blocks read at once.
const RUN: u64 = 32;
/// Bytes of a cluster.
const CLUSTER: u64 = 256 << 10;
/// Reads in flight while everything is read back.
const READS: usize = 8;

impl<M: Machine> Session<M> {
    /// Waits for the pool to open, then compares all of it with the oracle.
    pub(crate) fn open(&mut self) -> Verdict {
        self.wait_open()?;
        self.compare()
    }

    /// Lets the pool open, but for so many steps at most; whether it did.
    pub(crate) fn open_partly(&mut self, steps: u64) -> Verdict<bool> {
        self.world.turn();
        for _ in 0..steps {
            if !self.world.is(State::Opening) {
                return Ok(true);
            }
            self.world.step();
        }
        self.finish()?;
        Ok(!self.world.is(State::Opening))
    }

    /// Looks at the disk as it is, without opening the pool for work: every rule of its structures
    /// holds, whatever a crash left.
    pub(crate) fn check(&mut self) -> Verdict {
        let bytes = self.world.disk.bytes();
        let config = self.mix.config(self.seed, self.boot, self.plant, bytes);
        let found = M::check(config, self.world.disk.current(), self.world.now);
        self.seen.mark("checked");
        match found.is_empty() {
            true => Ok(()),
            false => Err(Violation::new("Check", found.join("; "))),
        }
    }

    /// As [`Session::open`], on a disk that is not [`Health::Sound`]: tells the blocks that
    /// cannot be read.
    pub(crate) fn open_damaged(&mut self) -> Verdict<BTreeSet<(Uuid, u64)>> {
        self.wait_open()?;
        let list = self.world.machine.layers();
        self.oracle.reconcile(&list)?;
        self.handles = list.iter().map(|info| (info.uuid, info.handle)).collect();
        for layer in list.iter().map(|info| info.uuid) {
            // Block by block: of a longer read only the first bad one is told.
            for block in self.oracle.touched(&layer) {
                if (block + 1) * 8 <= self.oracle.layers()[&layer].sectors() {
                    self.read(layer, block * 8, 8);
                }
                if self.pending.len() >= READS {
                    self.drain()?;
                }
            }
        }
        self.drain()?;
        Ok(std::mem::take(&mut self.lost))
    }

    /// Waits for the pool to open.
    pub(crate) fn wait_open(&mut self) -> Verdict {
        self.world.run_until(|world| !world.is(State::Opening));
        self.finish()?;
        if self.world.is(State::Open) {
            return Ok(());
        }
        let text = format!("a pool does not open: it is {:?}", self.world.machine.state());
        Err(Violation::new("Opens", text))
    }

    /// Compares the list of layers, and every block that may be other than zero.
    pub(crate) fn compare(&mut self) -> Verdict {
        let list = self.world.machine.layers();
        self.oracle.reconcile(&list)?;
        self.handles = list.iter().map(|info| (info.uuid, info.handle)).collect();
        let worst = self.worst;
        self.compare_capacity()?;
        self.compare_instances(&list)?;
        for info in list.iter().filter(|info| !info.snapshot) {
            self.oracle.last_flush(&info.uuid, info.flush_number, true)?;
        }
        let marked = self.compare_burdens(&list, worst)?;
        for info in &list {
            self.compare_layer(info.uuid)?;
        }
        self.drain()?;
        self.compare_marks(&marked, worst)
    }

    /// An instance is kept as long as nothing that was acknowledged can be gone.
    fn compare_instances(&mut self, list: &[LayerInfo]) -> Verdict {
        for info in list.iter().filter(|info| !info.snapshot) {
            let Some(before) = self.instances.get(&info.uuid) else { continue };
            let kept = *before == info.instance;
            if kept == (self.worst == Some(Crash::Power)) {
                let name = self.oracle.name(&info.uuid);
                let text = format!("after {:?} {name} is {info:?}, was {before:#x}", self.worst);
                return Err(Violation::new("InstanceTells", text));
            }
        }
        self.instances = list.iter().map(|info| (info.uuid, info.instance)).collect();
        self.worst = None;
        Ok(())
    }

    fn compare_layer(&mut self, layer: Uuid) -> Verdict {
        let sectors = self.oracle.layers()[&layer].sectors();
        if self.random.once_in(4) {
            self.status(layer, 0, sectors);
            self.drain()?;
        }
        let mut blocks = self.oracle.touched(&layer);
        // Somewhere else nothing may have appeared.
        blocks.push(self.random.below(sectors / 8));
        blocks.retain(|block| *block < sectors / 8);
        blocks.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for block in blocks {
            match runs.last_mut() {
                Some((first, len)) if block < *first + *len => {}
                Some((first, len)) if block == *first + *len && *len < RUN => *len += 1,
                _ => runs.push((block, 1)),
            }
        }
        for (first, len) in runs {
            self.read(layer, first * 8, len * 8);
            self.world.turn();
            while self.pending.len() >= READS {
                self.advance()?;
                self.finish()?;
            }
        }
        self.drain()
    }

    /// Lets the disk fail once and works on, until the pool noticed or the steps are over.
    pub(crate) fn suffer(&mut self, injection: Injection, steps: u64) -> Verdict {
        self.health = Health::Failing;
        self.world.story.tell(self.world.now, || format!("{injection:?}"));
        self.world.inject(injection);
        self.mix.length = self.begun + steps;
        for _ in 0..steps {
            if self.world.is(State::Failed) {
                self.seen.mark("device failed");
                break;
            }
            self.step()?;
        }
        self.drain()
    }

    /// The disk does not fail any more. Whether an error was recorded before the process ended,
    /// and so whether instances are new, is not known.
    pub(crate) fn recover(&mut self) {
        self.health = Health::Sound;
        self.instances.clear();
    }

    /// Removes everything, in any order, and sees that all the space is back.
    pub(crate) fn clear(&mut self) -> Verdict {
        self.drain()?;
        loop {
            let layers = self.oracle.layers().iter().filter(|(_, layer)| layer.is_live());
            let layers: Vec<Uuid> = layers.map(|(uuid, _)| *uuid).collect();
            if layers.is_empty() {
                break;
            }
            let uuid = *self.random.pick(&layers);
            self.remove(uuid);
            self.world.turn();
            if self.random.once_in(2) {
                self.drain()?;
            }
        }
        self.drain()?;
        let mut patience = 10_000;
        loop {
            let info = self.world.machine.info();
            if info.data == 0 && info.quarantine == 0 {
                break;
            }
            if patience == 0 {
                let text = format!("all is deleted, and space is not back: {info:?}");
                return Err(Violation::new("SpaceExact", text));
            }
            patience -= 1;
            self.world.step();
            self.finish()?;
        }
        self.seen.mark("all space back");
        Ok(())
    }

    /// Sizes add up, and no layer has more than was written to it.
    pub(crate) fn account(&self) -> Verdict {
        let info = self.world.machine.info();
        let list = self.world.machine.layers();
        let own: u64 = list.iter().map(|layer| layer.own).sum();
        let wrong = |text: String| Err(Violation::new("SpaceExact", text));
        if own > info.data {
            return wrong(format!("layers own {own} of {} bytes of data", info.data));
        }
        let used = info.data + info.maps + info.quarantine;
        if used > info.capacity || info.available > info.capacity - used {
            return wrong(format!("sizes do not add up: {info:?}"));
        }
        for layer in list.iter().filter(|layer| !layer.snapshot && !layer.thick) {
            let (least, most) = self.oracle.groups(&layer.uuid);
            let own = layer.own / CLUSTER;
            if !layer.own.is_multiple_of(CLUSTER) || own < least || own > most {
                let name = self.oracle.name(&layer.uuid);
                return wrong(format!("{name} owns {own} clusters, not {least} to {most}"));
            }
        }
        let snapshots = list.iter().filter(|layer| layer.snapshot).count();
        let expected = self.oracle.layers().values();
        let live = expected.filter(|l| l.is_live() && l.kind == Kind::Snapshot).count();
        if snapshots < live {
            return wrong(format!("{snapshots} snapshots are listed, {live} were taken"));
        }
        Ok(())
    }
}
