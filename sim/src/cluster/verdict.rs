//! The end of a run: everything heals, must converge, and is judged; and looks on the way there.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_nexus::{Record, Uuid};

use super::history::{History, Number, ZERO};
use super::inspect;
use super::register;
use super::run::{PATIENCE, Run, Verdict};
use super::{Layer, end};
use crate::image::BLOCK;
use crate::oracle::Violation;
use crate::payload::SECTOR;

/// How long hosts go on when faults are over, before they are quiet.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Between two looks of who waits.
const LOOK: Duration = Duration::from_millis(250);
/// Sectors of a read of everything.
const TRANSFER: u64 = 128;
/// Sectors of a block.
const PER_BLOCK: u64 = (BLOCK / SECTOR) as u64;

/// What is on all nodes' disks, by node.
pub(super) type Shelves = Vec<Vec<Layer>>;

impl Run {
    /// All faults end, everything runs, and then *ConvergeAfterHeal*: within a time every host has
    /// its answers, and every volume has all its replicas for members and nothing suspect.
    pub(super) fn heal(&mut self) -> Verdict {
        self.cluster.tell(|| "== everything heals".into());
        self.calm();
        let began = self.cluster.now();
        self.until(began + AFTERMATH)?;
        for guest in 0..self.guests.len() {
            self.guests[guest].host.set_quiet(true);
        }
        if self.profile.rots() {
            // What nobody can read keeps replicas away until somebody writes it, and who does not
            // read does not know.
            self.ask_all();
        }
        self.until_idle()?;
        self.seen.mark("converged");
        Ok(())
    }

    /// Nothing goes wrong by itself any more.
    fn calm(&mut self) {
        use super::drive::Pace;
        use super::{Temper, Weather, Whims};
        self.cluster.heal_all();
        self.cluster.set_weather(Weather::default());
        self.cluster.set_whims(Whims::default());
        self.cluster.set_temper(Temper { doubt_in: 0, move_in: 0, ..Temper::default() });
        self.cluster.set_pace(Pace::default());
        self.cluster.set_store_up(true);
        let afters = std::mem::take(&mut self.afters);
        for guest in 0..self.guests.len() {
            self.end(super::fate::After::HostBack(guest));
        }
        for after in afters.into_values() {
            if matches!(after, super::fate::After::Unfill(_)) {
                self.end(after);
            }
        }
        self.attend();
    }

    /// Starts what does not run, as whoever watches over a cluster does.
    fn attend(&mut self) {
        for node in 0..self.profile.nodes {
            if self.cluster.has_failed(node) {
                self.kill(node);
            }
            if !self.cluster.is_running(node) {
                self.cluster.restart(node);
            }
            if self.cluster.is_filled(node) {
                self.cluster.unfill(node);
            }
        }
    }

    /// What is not as it shall be at the end, if anything.
    fn unsettled(&self) -> Option<String> {
        if let Some(guest) = self.guests.iter().find(|guest| !guest.host.is_idle()) {
            let number = guest.host.open().next().unwrap_or_default();
            let operation = self.volumes[guest.volume].history.describe(number);
            return Some(format!("a host waits for {operation}"));
        }
        if let Some(node) = (0..self.profile.nodes).find(|node| !self.cluster.is_ready(*node)) {
            return Some(format!("n{node} is not ready"));
        }
        let volumes = self.cluster.sites().volumes.len();
        (0..volumes).find_map(|volume| self.unsettled_volume(volume))
    }

    fn unsettled_volume(&self, volume: usize) -> Option<String> {
        let record = self.cluster.record(volume)?;
        let replicas = self.cluster.sites().volumes[volume].replicas.len();
        let members = record.members().count_ones() as usize;
        if members < replicas {
            return Some(format!("volume {volume} has {members} of {replicas} replicas"));
        }
        let Some(owner) = self.owner_of(volume) else {
            return Some(format!("volume {volume} is served by nobody"));
        };
        let view = self.cluster.view(owner, volume)?;
        let still = view.suspect == 0
            && view.failing == 0
            && view.joiner.is_none()
            && view.locks == 0
            && view.requests == 0
            && view.record.as_ref() == Some(record);
        (!still).then(|| {
            format!(
                "volume {volume} at n{owner}: {} regions suspect, failing {:08b}, joiner {:?}, {} \
                 locks, {} requests, record of version {:?}, {} in the store",
                view.suspect,
                view.failing,
                view.joiner,
                view.locks,
                view.requests,
                view.record.as_ref().map(|record| record.version),
                record.version
            )
        })
    }

    /// Everything that can be said when all is quiet.
    pub(super) fn judge(&mut self) -> Verdict {
        self.check_pools()?;
        if self.profile.rots() {
            self.read_all()?;
        } else {
            self.compare_all()?;
        }
        for judged in &self.volumes {
            register::check(&judged.history)?;
        }
        Ok(())
    }

    fn check_pools(&mut self) -> Verdict {
        for node in 0..self.profile.nodes {
            // A block that rots is what a check is for; it is judged by who reads it.
            let rots = self.profile.rots();
            let mut findings = self.cluster.check(node);
            findings.retain(|finding| !(rots && finding.starts_with("Block")));
            if let Some(finding) = findings.first() {
                return Err(Violation::new("SpaceExact", format!("n{node}: {finding}")));
            }
        }
        Ok(())
    }

    /// What is so only when owners have nothing left to do: layers are where the record says,
    /// nothing is in work, and no mark hides what differs. It comes after all else was judged: a
    /// region that is closed meanwhile would tell by its checksum what members differ in.
    pub(super) fn rest(&mut self) -> Verdict {
        self.until_none(Self::unrested)?;
        self.layers_are_named()?;
        self.check_pools()?;
        if self.profile.rots() { Ok(()) } else { self.look() }
    }

    fn unrested(&self) -> Option<String> {
        (0..self.volumes.len()).find_map(|volume| {
            let record = self.cluster.record(volume)?;
            let lacking = end::lacking(record, &self.volumes[volume].unreadable);
            let unrest = || {
                let owner = self.owner_of(volume)?;
                end::unrest(&self.cluster.view(owner, volume)?)
            };
            let text = self.unsettled_volume(volume).or(lacking).or_else(unrest)?;
            Some(format!("volume {volume} does not come to rest: {text}"))
        })
    }

    /// Members have no snapshots but those that the record names. Who did not delete one is asked
    /// again after a while.
    pub(super) fn layers_are_named(&mut self) -> Verdict {
        let deadline = self.cluster.now() + PATIENCE;
        loop {
            let shelves = self.shelves(false)?;
            let found = (0..self.volumes.len()).find_map(|volume| self.unnamed(volume, &shelves));
            match found {
                None => return Ok(()),
                Some(text) if self.cluster.now() >= deadline => {
                    return Err(Violation::new("SpaceExact", text));
                }
                Some(_) => {}
            }
            let next = self.cluster.now() + AFTERMATH;
            self.until(next)?;
        }
    }

    fn unnamed(&self, volume: usize, shelves: &Shelves) -> Option<String> {
        let record = self.cluster.record(volume)?;
        (0..8).filter_map(|slot| record.replica(slot)).find_map(|replica| {
            let node = self.cluster.sites().node_of(&replica.uuid)?;
            let layers = shelves[usize::from(node)].iter().map(|layer| &layer.info);
            let mine = layers.filter(|info| info.snapshot && info.source == Some(replica.uuid));
            let text = end::unnamed(record, mine.map(|info| info.uuid))?;
            Some(format!("n{node} has {text}"))
        })
    }

    /// Members are equal, and hold what hosts may read.
    fn compare_all(&mut self) -> Verdict {
        let shelves = self.shelves(false)?;
        self.judge_chain(&shelves)?;
        for volume in 0..self.volumes.len() {
            let Some(record) = self.cluster.record(volume).cloned() else { continue };
            let members = self.members(&record, &shelves);
            inspect::convergence(&named(&members))?;
            let history = &mut self.volumes[volume].history;
            for (slot, layer) in &members {
                let values = values(history, layer)?;
                history.looked(*slot, &values);
            }
        }
        self.look()
    }

    /// Hosts read everything. Where disks rot, replicas are not looked at from outside: a pool
    /// that was not stopped in order takes a block of an open region as it is.
    fn read_all(&mut self) -> Verdict {
        self.ask_all();
        self.until_idle()
    }

    /// A host of each volume begins to read all of it, and mends what it cannot read.
    fn ask_all(&mut self) {
        let now = self.cluster.now();
        for volume in 0..self.volumes.len() {
            let of = |guest: &super::run::Guest| guest.volume == volume;
            let Some(guest) = self.guests.iter().position(of) else { continue };
            let sectors = self.cluster.record(volume).map_or(0, |record| record.bytes / 512);
            let pieces = (0..sectors).step_by(TRANSFER as usize);
            let ranges = pieces.map(|first| (first, TRANSFER.min(sectors - first)));
            let history = &mut self.volumes[volume].history;
            self.guests[guest].host.read_all(now, history, ranges);
            self.carry_out(guest);
        }
    }

    pub(super) fn until_idle(&mut self) -> Verdict {
        self.until_none(Self::unsettled)
    }

    /// Waits until nothing is left, but not for ever.
    fn until_none(&mut self, left: impl Fn(&Self) -> Option<String>) -> Verdict {
        let deadline = self.cluster.now() + PATIENCE;
        while let Some(open) = left(self) {
            if self.cluster.now() >= deadline {
                return Err(Violation::new("ConvergeAfterHeal", open));
            }
            self.attend();
            let next = self.cluster.now() + LOOK;
            self.until(next)?;
        }
        Ok(())
    }

    /// Lays replicas side by side, whatever is in work: *MarksCover* and *SnapshotPoint*.
    pub(super) fn look(&mut self) -> Verdict {
        let (now, durable) = (self.shelves(false)?, self.shelves(true)?);
        for volume in 0..self.volumes.len() {
            let Some(record) = self.cluster.record(volume).cloned() else { continue };
            let members = self.members(&record, &now);
            inspect::marks_cover(&named(&members), "in memory")?;
            let members = self.members_of(&record, &durable, &members);
            inspect::marks_cover(&named(&members), "on media")?;
            self.look_at_snapshots(volume, &record, &now)?;
        }
        Ok(())
    }

    /// *MarksCover* of one volume, as a process would find it now.
    pub(super) fn look_at_marks(&mut self, volume: usize) -> Verdict {
        let shelves = self.shelves(false)?;
        let Some(record) = self.cluster.record(volume).cloned() else { return Ok(()) };
        let members = self.members(&record, &shelves);
        inspect::marks_cover(&named(&members), "in memory")
    }

    fn shelves(&self, durable: bool) -> Verdict<Shelves> {
        let shelf = |node: u8| {
            let layers = match durable {
                true => self.cluster.look_durable(node),
                false => self.cluster.look(node),
            };
            let text = || format!("the pool of n{node} cannot be opened");
            layers.ok_or_else(|| Violation::new("Opens", text()))
        };
        (0..self.profile.nodes).map(shelf).collect()
    }

    /// The layers of the members, as far as they are the instances that the record names.
    pub(super) fn members(&self, record: &Record, shelves: &Shelves) -> Vec<(u8, Layer)> {
        let of = |slot: u8| {
            let (replica, instance) = (record.replica(slot)?, record.instance(slot)?);
            let layer = self.layer(shelves, &replica.uuid, &replica.uuid)?;
            (layer.info.instance == instance).then(|| (slot, layer.clone()))
        };
        (0..8).filter_map(of).collect()
    }

    /// The same replicas on other shelves.
    fn members_of(
        &self,
        record: &Record,
        shelves: &Shelves,
        members: &[(u8, Layer)],
    ) -> Vec<(u8, Layer)> {
        let of = |slot: u8| {
            let replica = record.replica(slot)?;
            Some((slot, self.layer(shelves, &replica.uuid, &replica.uuid)?.clone()))
        };
        members.iter().filter_map(|(slot, _)| of(*slot)).collect()
    }

    /// A layer on the node of a replica.
    pub(super) fn layer<'a>(
        &self,
        shelves: &'a Shelves,
        replica: &Uuid,
        layer: &Uuid,
    ) -> Option<&'a Layer> {
        let node = self.cluster.sites().node_of(replica)?;
        shelves[usize::from(node)].iter().find(|at| {
            let own = at.info.uuid == *replica || at.info.source == Some(*replica);
            at.info.uuid == *layer && own
        })
    }

    fn look_at_snapshots(&mut self, volume: usize, record: &Record, shelves: &Shelves) -> Verdict {
        for snapshot in &record.snapshots {
            for slot in (0..8).filter(|slot| snapshot.holders >> slot & 1 == 1) {
                let Some(replica) = record.replica(slot) else { continue };
                // One that was made anew has lost it, and will be told.
                let current = self.layer(shelves, &replica.uuid, &replica.uuid);
                let known = current.map(|layer| layer.info.instance) == record.instance(slot);
                let Some(layer) = self.layer(shelves, &replica.uuid, &snapshot.uuid) else {
                    if known && record.instance(slot).is_some() {
                        let uuid = snapshot.uuid;
                        let text = format!(
                            "the member in slot {slot} lacks snapshot {:02x}{:02x}",
                            uuid[0], uuid[1]
                        );
                        return Err(Violation::new("SnapshotPoint", text));
                    }
                    continue;
                };
                let name = format!("slot {slot}");
                let judged = &mut self.volumes[volume];
                judged.snapshots.looked(snapshot.uuid, (&name, layer))?;
                let whole = layer.blocks.values().all(Option::is_some);
                if let Some((asked, Some(named))) = judged.asked.get(&snapshot.uuid).copied()
                    && whole
                {
                    let values = values(&judged.history, layer)?;
                    register::moment(&judged.history, &values, (asked, named))?;
                    self.seen.mark("snapshot compared");
                }
            }
        }
        Ok(())
    }
}

pub(super) fn named(members: &[(u8, Layer)]) -> Vec<(&'static str, &Layer)> {
    const SLOTS: [&str; 8] =
        ["slot 0", "slot 1", "slot 2", "slot 3", "slot 4", "slot 5", "slot 6", "slot 7"];
    members.iter().map(|(slot, layer)| (SLOTS[usize::from(*slot)], layer)).collect()
}

/// What a layer says in every sector that was ever written, or that is not zero. Blocks that
/// cannot be read say nothing.
fn values(history: &History, layer: &Layer) -> Verdict<BTreeMap<u64, Number>> {
    let mut values: BTreeMap<u64, Number> = history
        .tracks
        .keys()
        .filter(|sector| !matches!(layer.blocks.get(&(*sector / PER_BLOCK)), Some(None)))
        .map(|sector| (*sector, ZERO))
        .collect();
    for (block, bytes) in &layer.blocks {
        let Some(bytes) = bytes else { continue };
        for (sector, piece) in (block * PER_BLOCK..).zip(bytes.chunks_exact(SECTOR)) {
            let value = history.value(piece, sector)?;
            if value != ZERO {
                values.insert(sector, value);
            }
        }
    }
    Ok(values)
}
