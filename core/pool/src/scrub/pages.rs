//! Pages of the maps, read like data: a slot that went bad is written again from the other, or from
//! memory, while there is one.
//!
//! They do not count in the scrub's rate, for 8 KiB go with 64 MiB of data; but only one is read at
//! a time. A page that is not in memory is fetched, which looks at both its slots. One that is in
//! memory and not changed must be in both as it is.

use alloc::collections::VecDeque;

use braid_block::{Class, Instant, Key, Memory};

use crate::codec::{self, Stamp};
use crate::layout::BLOCK;
use crate::map::PageId;
use crate::op::Waiter;
use crate::{Note, Pool, State};

/// Pages that are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Pages {
    queue: VecDeque<PageId>,
    /// The next cluster of pages whose map is to be looked at; none if all were.
    cluster: Option<u32>,
    /// The leaf that was listed last.
    leaf: Option<(u32, u32)>,
    check: Option<Check>,
}

/// A page whose slots are being read, one after the other: one that cannot be read must not hide
/// the other.
#[derive(Debug)]
struct Check {
    job: Key,
    page: PageId,
    /// First byte of its pair.
    address: u64,
    /// Slots read, and what their pages have; none if it is not the page.
    read: usize,
    lsns: [Option<u64>; 2],
    /// Checkpoints that were done when it began.
    checkpoints: u64,
}

impl Pages {
    /// Whether a page is being read.
    pub(super) const fn is_busy(&self) -> bool {
        self.check.is_some()
    }

    /// A leaf comes next; tells whether it is to be looked at first.
    pub(super) fn add_leaf(&mut self, layer: u32, leaf: u32) -> bool {
        let new = self.leaf != Some((layer, leaf));
        if new {
            self.leaf = Some((layer, leaf));
            self.queue.push_back(PageId::Leaf(layer, leaf));
        }
        new
    }
}

impl Pool {
    /// A scrub begins: with the pages that everything hangs on.
    pub(super) fn list_base_pages(&mut self) {
        let slabs = u32::try_from(self.store.layout.slabs.len()).unwrap_or(0);
        let bitmaps = (0..slabs).flat_map(|n| [PageId::Bitmap(n), PageId::MapBitmap(n)]);
        let tables = self.store.map.tables.keys().map(|n| PageId::Table(*n));
        let pages = &mut self.scrub.pages;
        pages.queue.clear();
        pages.queue.extend([PageId::Root].into_iter().chain(bitmaps).chain(tables));
        (pages.cluster, pages.leaf) = (Some(0), None);
    }

    /// A layer comes next.
    pub(super) fn list_layer_pages(&mut self, layer: u32) {
        let Some(held) = self.store.map.layers.get(&layer) else { return };
        let directories = u32::try_from(held.state().directories.len()).unwrap_or(0);
        let queue = &mut self.scrub.pages.queue;
        queue.extend([PageId::Layer(layer), PageId::Record(layer)]);
        queue.extend((0..directories).map(|n| PageId::Directory(layer, n)));
    }

    /// Takes the page at hand further; true if there is none any more.
    pub(super) fn page_check_on<M: Memory>(&mut self, mem: &mut M) -> bool {
        let Some(mut check) = self.scrub.pages.check.take() else { return true };
        let Some(outcome) = self.jobs.outcome(check.job) else {
            self.scrub.pages.check = Some(check);
            return false;
        };
        let device = check.address + check.read as u64 * BLOCK;
        if let (Ok(()), Some(lease)) = (outcome, self.jobs.lease(check.job)) {
            let stamp = Stamp::map(check.page, device);
            let bytes = &mem.bytes(lease)[..BLOCK as usize];
            check.lsns[check.read] = codec::judge::<M>(bytes, stamp, self.store.seed);
        }
        check.read += 1;
        if check.read < check.lsns.len() && self.state == State::Open {
            self.job_read(check.job, 0, BLOCK as u32, device + BLOCK);
            self.scrub.pages.check = Some(check);
            return false;
        }
        self.end_job(mem, check.job);
        if check.read == check.lsns.len() {
            self.judge_page(&check);
        }
        true
    }

    /// Writes a page again if a slot of it is not as it must be.
    fn judge_page(&mut self, check: &Check) {
        let Check { page, address, lsns, checkpoints, .. } = *check;
        // What was written while it was read is new, and need not be looked at.
        if checkpoints != self.counters.checkpoints || self.rests_at(page) != Some(address) {
            return;
        }
        let Some(lsn) = self.store.held(page).map(|held| held.lsn()) else { return };
        let bad = lsns.map(|found| found != Some(lsn));
        if bad == [false; 2] {
            return;
        }
        for slot in (0..2).filter(|slot| bad[*slot]) {
            self.notes.push_back(Note::Repaired { device: address + slot as u64 * BLOCK });
        }
        self.store.mend(page, bad == [false, true]);
    }

    /// First byte of the pair of a page that is in memory as it must be on the device.
    fn rests_at(&mut self, page: PageId) -> Option<u64> {
        let rests = self.store.is_here(page) && !self.store.held(page)?.is_dirty();
        if rests { self.store.address(page) } else { None }
    }

    /// Begins with the next page; true if it is to be waited for. Those without a buffer are tried
    /// again in the next turn.
    pub(super) fn next_page_check<M: Memory>(&mut self, mem: &mut M, now: Instant) -> bool {
        loop {
            if self.scrub.pages.queue.is_empty() {
                let cluster = self.scrub.pages.cluster;
                let next = cluster.and_then(|from| self.store.space.map_from(from));
                self.scrub.pages.cluster = next.map(|cluster| cluster + 1);
                self.scrub.pages.queue.extend(next.map(PageId::PageMap));
            }
            let Some(page) = self.scrub.pages.queue.front().copied() else { return false };
            if let Some(address) = self.rests_at(page) {
                let Some(job) = self.begin_job(mem, Class::Small) else { return true };
                self.scrub.pages.queue.pop_front();
                self.job_read(job, 0, BLOCK as u32, address);
                let (read, lsns, checkpoints) = (0, [None; 2], self.counters.checkpoints);
                let check = Check { job, page, address, read, lsns, checkpoints };
                self.scrub.pages.check = Some(check);
                return true;
            }
            self.scrub.pages.queue.pop_front();
            if !self.store.is_here(page) {
                self.fetch(mem, now, page, Waiter::Job);
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::rig::Rig;
    use crate::{Command, Effect};

    fn scrub(rig: &mut Rig) -> Vec<Note> {
        rig.notes.clear();
        rig.pool.command(&mut rig.mem, rig.now, 1, Command::Scrub { rate: 1 << 30 });
        for _ in 0..2000 {
            rig.run();
            if rig.notes.iter().any(|note| matches!(note, Note::Scrubbed { .. })) {
                let repaired = |note: &&Note| matches!(note, Note::Repaired { .. });
                return rig.notes.iter().filter(repaired).copied().collect();
            }
            let due = rig.pool.poll_timeout().expect("it goes on");
            rig.now = due;
        }
        panic!("a scrub without end");
    }

    /// Changes a byte of a block on the disk.
    fn damage(rig: &mut Rig, device: u64) {
        rig.blocks.get_mut(&(device / BLOCK)).expect("it was written")[1000] ^= 1;
    }

    #[test]
    fn a_slot_that_went_bad_is_written_again_though_its_page_is_in_memory() {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 3, 0x33);
        rig.run();
        let (replica, uuid) = (rig.pool.layer(handle).expect("it is there").uuid, [9; 16]);
        let snapshot = Command::Snapshot { replica, uuid, name: "s".into(), created: 0 };
        rig.pool.command(&mut rig.mem, rig.now, 2, snapshot);
        rig.run();
        rig.wait(5);
        rig.run();
        assert_eq!(scrub(&mut rig), [], "all is well");
        let pages = [
            PageId::Root,
            PageId::Table(0),
            PageId::Layer(0),
            PageId::Layer(1),
            PageId::Directory(0, 0),
            PageId::Leaf(0, 0),
            PageId::Bitmap(0),
            PageId::MapBitmap(0),
        ];
        for (page, slots) in pages.into_iter().zip([[0, 0], [1, 1], [0, 1]].into_iter().cycle()) {
            let address = rig.pool.rests_at(page).unwrap_or_else(|| panic!("{page:?} rests"));
            let bad: Vec<u64> = (0..2)
                .filter(|slot| slots.contains(slot))
                .map(|slot| address + slot * BLOCK)
                .collect();
            bad.iter().for_each(|device| damage(&mut rig, *device));
            let told: Vec<Note> = bad.iter().map(|d| Note::Repaired { device: *d }).collect();
            assert_eq!(scrub(&mut rig), told, "{page:?}");
            rig.wait(5);
            rig.run();
            assert_eq!(scrub(&mut rig), [], "{page:?} is mended");
        }
    }

    #[test]
    fn a_slot_that_cannot_be_read_is_written_again() {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 3, 0x33);
        rig.run();
        rig.wait(5);
        rig.run();
        rig.notes.clear();
        let device = rig.pool.rests_at(PageId::Root).expect("it rests") + BLOCK;
        rig.pool.command(&mut rig.mem, rig.now, 1, Command::Scrub { rate: 1 << 30 });
        rig.turn();
        let reads =
            |effect: &Effect| matches!(effect, Effect::Read { offset, .. } if *offset == device);
        while !rig.effects.iter().any(reads) {
            rig.finish(0);
        }
        let at = rig.effects.iter().position(reads).expect("the second slot");
        rig.fail(at, braid_block::IoError::Media);
        assert!(rig.notes.contains(&Note::Repaired { device }));
    }

    #[test]
    fn a_page_that_is_older_in_both_slots_than_in_memory_is_written_again() {
        let (mut rig, handle) = Rig::new();
        let rest = |rig: &mut Rig| {
            // Regions close, then pages are written.
            for _ in 0..3 {
                rig.run();
                rig.wait(5);
            }
            rig.run();
        };
        rig.write(handle, 3, 0x33);
        rest(&mut rig);
        let address = rig.pool.rests_at(PageId::Leaf(0, 0)).expect("it rests");
        let slots = [address / BLOCK, address / BLOCK + 1];
        let old = slots.map(|slot| rig.blocks[&slot].clone());
        rig.write(handle, 4, 0x44);
        rest(&mut rig);
        assert_eq!(rig.pool.rests_at(PageId::Leaf(0, 0)), Some(address));
        rig.blocks.extend(slots.into_iter().zip(old));
        let told = [address, address + BLOCK].map(|device| Note::Repaired { device });
        assert_eq!(scrub(&mut rig), told);
        rest(&mut rig);
        assert_eq!(scrub(&mut rig), []);
    }
}
