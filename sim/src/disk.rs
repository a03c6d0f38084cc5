//! A disk with a volatile cache: what it was given is not safe until it was flushed, and what
//! remains of the rest after a power cut is up to chance, sector by sector.
//!
//! Invariants:
//! 1. A read returns the newest bytes that a write has brought, wholly or in part, in any order
//!    in which the writes were done.
//! 2. A flush makes durable what was done before it was *submitted*, and nothing later.
//! 3. After a power cut each sector has its durable content, or that of any one write to it that
//!    was not durable, one in flight included. After a kill what was done stays; each sector of
//!    a write in flight has arrived or has not, and will not arrive later.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use braid_block::IoError;

use crate::image::{BLOCK, Image};
use crate::random::Random;

/// Number of an operation among all that a disk was ever given.
pub type Flight = u64;

/// A simulated disk.
#[derive(Clone, Debug)]
pub struct Disk {
    sector: u64,
    bytes: u64,
    /// What survives for sure.
    durable: Image,
    /// What a read returns.
    current: Image,
    /// By sector, what was written since its durable content, oldest first.
    unsafe_yet: BTreeMap<u64, Vec<Version>>,
    flying: BTreeMap<Flight, Work>,
    /// Counts submissions and completions: the order in which things happened.
    clock: u64,
    /// Sectors that cannot be read until they are written.
    bad: BTreeSet<u64>,
    counts: Counts,
}

/// What a disk is asked to do.
#[derive(Clone, Debug)]
pub enum Work {
    /// Read bytes.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Write bytes.
    Write {
        /// First byte.
        offset: u64,
        /// What.
        bytes: Rc<[u8]>,
    },
    /// Make durable what was done when it was submitted; the disk's clock of then.
    Sync {
        /// Set by [`Disk::submit`].
        since: u64,
    },
    /// Forget a range's content.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// What a disk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads done.
    pub reads: u64,
    /// Writes done.
    pub writes: u64,
    /// Flushes done.
    pub flushes: u64,
    /// Discards done.
    pub discards: u64,
    /// Bytes written.
    pub written: u64,
}

/// One content of a sector that is not durable.
#[derive(Clone, Debug)]
struct Version {
    of: Flight,
    /// When its write was done; never for one in flight, or one whose flush failed.
    done: Option<u64>,
    bytes: Rc<[u8]>,
    from: usize,
}

impl Disk {
    /// A disk of zeros whose sectors are written whole or not at all.
    #[must_use]
    pub fn new(bytes: u64, sector: u32) -> Self {
        Self::of_image(Image::default(), bytes, sector)
    }

    /// A disk with this content, all of it durable.
    #[must_use]
    pub fn of_image(image: Image, bytes: u64, sector: u32) -> Self {
        assert!(sector == 512 || sector == 4096, "sectors are of 512 or 4096 bytes");
        Self {
            sector: u64::from(sector),
            bytes,
            durable: image.clone(),
            current: image,
            unsafe_yet: BTreeMap::new(),
            flying: BTreeMap::new(),
            clock: 0,
            bad: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Bytes of a sector.
    #[must_use]
    pub fn sector(&self) -> u32 {
        u32::try_from(self.sector).expect("at most 4096")
    }

    /// Its size.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Becomes larger.
    pub fn grow(&mut self, bytes: u64) {
        assert!(bytes >= self.bytes, "a disk does not shrink");
        self.bytes = bytes;
    }

    /// What it did so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// What a read would return now.
    #[must_use]
    pub const fn current(&self) -> &Image {
        &self.current
    }

    /// Operations in flight.
    pub fn flying(&self) -> impl Iterator<Item = (Flight, &Work)> {
        self.flying.iter().map(|(flight, work)| (*flight, work))
    }

    /// Takes an operation; it is in flight until it is completed.
    ///
    /// # Panics
    /// If the range is not one of whole sectors inside the disk, or another write to a part of
    /// it is in flight: which of two such writes wins, nobody knows.
    pub fn submit(&mut self, mut work: Work) -> Flight {
        self.clock += 1;
        match &mut work {
            Work::Sync { since } => *since = self.clock,
            Work::Read { offset, len } => self.assert_range(*offset, *len),
            Work::Write { offset, bytes } => {
                let (offset, len) = (*offset, bytes.len() as u64);
                self.assert_range(offset, len);
                self.assert_alone(offset, len);
            }
            Work::Discard { offset, len } => {
                let (offset, len) = (*offset, *len);
                self.assert_range(offset, len);
                self.assert_alone(offset, len);
            }
        }
        self.flying.insert(self.clock, work);
        self.clock
    }

    /// Ends an operation; a read's bytes go to `into`.
    ///
    /// # Errors
    /// What the disk's bad sectors say.
    pub fn complete(
        &mut self,
        flight: Flight,
        random: &mut Random,
        into: &mut [u8],
    ) -> Result<u32, IoError> {
        let work = self.flying.remove(&flight).expect("an operation in flight");
        self.clock += 1;
        match work {
            Work::Read { offset, len } => {
                self.counts.reads += 1;
                if self.sectors(offset, len).any(|sector| self.bad.contains(&sector)) {
                    return Err(IoError::Media);
                }
                self.current.read(offset, into);
                Ok(u32::try_from(len).expect("a transfer"))
            }
            Work::Write { offset, bytes } => {
                self.counts.writes += 1;
                self.counts.written += bytes.len() as u64;
                let done = Some(self.clock);
                for sector in self.sectors(offset, bytes.len() as u64) {
                    self.land(flight, offset, &bytes, sector, done);
                }
                Ok(u32::try_from(bytes.len()).expect("a transfer"))
            }
            Work::Sync { since } => {
                self.counts.flushes += 1;
                self.harden(since);
                Ok(0)
            }
            Work::Discard { offset, len } => {
                self.counts.discards += 1;
                self.forget(offset, len, random);
                Ok(0)
            }
        }
    }

    /// Ends an operation in failure. Of a write, each sector may have arrived; after a failed
    /// flush nothing that it was to cover will be covered by another.
    pub fn fail(&mut self, flight: Flight, random: &mut Random) {
        let work = self.flying.remove(&flight).expect("an operation in flight");
        self.clock += 1;
        match work {
            Work::Write { offset, bytes } => {
                self.arrived(flight);
                for sector in self.sectors(offset, bytes.len() as u64) {
                    if random.once_in(2) {
                        self.land(flight, offset, &bytes, sector, Some(self.clock));
                    }
                }
            }
            Work::Sync { since } => {
                for version in self.unsafe_yet.values_mut().flatten() {
                    version.done = version.done.filter(|done| *done > since);
                }
            }
            Work::Read { .. } | Work::Discard { .. } => {}
        }
    }

    /// Some sectors of a write in flight arrive before the others; a read sees them.
    pub fn arrive(&mut self, flight: Flight, random: &mut Random) {
        let Some(Work::Write { offset, bytes }) = self.flying.get(&flight).cloned() else {
            return;
        };
        for sector in self.sectors(offset, bytes.len() as u64) {
            if random.once_in(2) {
                self.land(flight, offset, &bytes, sector, None);
            }
        }
    }

    /// The process dies. What it had in flight arrived, in part or wholly, or never will.
    pub fn kill(&mut self, random: &mut Random) {
        let style = random.below(4);
        self.clock += 1;
        for (flight, work) in std::mem::take(&mut self.flying) {
            match work {
                Work::Write { offset, bytes } => {
                    self.arrived(flight);
                    let (whole, odds) = (random.once_in(2), random.within(2, 4));
                    for sector in self.sectors(offset, bytes.len() as u64) {
                        let arrives = match style {
                            0 => false,
                            1 => true,
                            2 => whole,
                            _ => random.once_in(odds),
                        };
                        if arrives {
                            self.land(flight, offset, &bytes, sector, Some(self.clock));
                        }
                    }
                }
                Work::Sync { since } if random.once_in(2) => self.harden(since),
                Work::Discard { offset, len } if random.once_in(2) => {
                    self.forget(offset, len, random);
                }
                Work::Sync { .. } | Work::Discard { .. } | Work::Read { .. } => {}
            }
        }
    }

    /// Makes a sector unreadable until it is written.
    pub fn spoil(&mut self, sector: u64) {
        self.bad.insert(sector);
    }

    /// Turns bits of a byte, on the media and in the cache alike.
    pub fn flip(&mut self, offset: u64, bits: u8) {
        for image in [&mut self.durable, &mut self.current] {
            let mut byte = [0];
            image.read(offset, &mut byte);
            image.write(offset, &[byte[0] ^ bits]);
        }
    }

    /// A write in flight will land elsewhere; false if it is over, or another write to there is
    /// in flight.
    pub fn redirect(&mut self, flight: Flight, to: u64) -> bool {
        let Some(Work::Write { bytes, .. }) = self.flying.get(&flight) else { return false };
        let end = to + bytes.len() as u64;
        let taken = self.flying.iter().any(|(of, work)| {
            let (at, len) = match work {
                Work::Write { offset, bytes } => (*offset, bytes.len() as u64),
                Work::Discard { offset, len } => (*offset, *len),
                Work::Read { .. } | Work::Sync { .. } => return false,
            };
            *of != flight && at < end && to < at + len
        });
        // What arrived of it early stays where it was meant to be.
        let early = self.unsafe_yet.values().flatten().any(|version| version.of == flight);
        if taken || early || end > self.bytes {
            return false;
        }
        if let Some(Work::Write { offset, .. }) = self.flying.get_mut(&flight) {
            *offset = to;
        }
        true
    }

    /// Contents a power cut can leave now, by sector: how many each, the durable one included.
    /// Sectors with one content alone are not listed.
    #[must_use]
    pub(crate) fn uncertain(&self) -> Vec<Uncertain> {
        let mut sectors: BTreeMap<u64, Vec<Choice>> = BTreeMap::new();
        for (sector, versions) in &self.unsafe_yet {
            let all = versions.iter().map(|v| (v.of, Rc::clone(&v.bytes), v.from));
            sectors.entry(*sector).or_default().extend(all);
        }
        for (flight, work) in &self.flying {
            let Work::Write { offset, bytes } = work else { continue };
            for sector in self.sectors(*offset, bytes.len() as u64) {
                let from = usize::try_from(sector * self.sector - offset).expect("in a buffer");
                let versions = sectors.entry(sector).or_default();
                if !versions.iter().any(|(of, ..)| of == flight) {
                    versions.push((*flight, Rc::clone(bytes), from));
                }
            }
        }
        let one = |(sector, versions)| Uncertain { offset: sector * self.sector, versions };
        sectors.into_iter().map(one).collect()
    }

    /// What survives for sure.
    pub(crate) const fn durable(&self) -> &Image {
        &self.durable
    }

    /// What arrived early of a write that is over now is in the cache like any other.
    fn arrived(&mut self, flight: Flight) {
        let clock = self.clock;
        for version in self.unsafe_yet.values_mut().flatten().filter(|v| v.of == flight) {
            version.done = Some(clock);
        }
    }

    fn land(&mut self, flight: Flight, at: u64, bytes: &Rc<[u8]>, sector: u64, done: Option<u64>) {
        let offset = sector * self.sector;
        let from = usize::try_from(offset - at).expect("in a buffer");
        let len = usize::try_from(self.sector).expect("at most 4096");
        self.bad.remove(&sector);
        let versions = self.unsafe_yet.entry(sector).or_default();
        // One that arrived early is there already, and may have been overwritten since.
        versions.retain(|version| version.of != flight);
        versions.push(Version { of: flight, done, bytes: Rc::clone(bytes), from });
        self.current.write(offset, &bytes[from..from + len]);
    }

    /// What was done before `since` becomes durable.
    fn harden(&mut self, since: u64) {
        let sector_len = usize::try_from(self.sector).expect("at most 4096");
        let durable = &mut self.durable;
        self.unsafe_yet.retain(|sector, versions| {
            let covered = |version: &Version| version.done.is_some_and(|done| done < since);
            if let Some(newest) = versions.iter().rposition(covered) {
                let version = &versions[newest];
                let bytes = &version.bytes[version.from..version.from + sector_len];
                durable.write(sector * sector_len as u64, bytes);
                versions.drain(..=newest);
            }
            !versions.is_empty()
        });
    }

    /// A discarded block has its old content, or zeros or ones for good: all are seen.
    fn forget(&mut self, offset: u64, len: u64, random: &mut Random) {
        let per_block = BLOCK as u64 / self.sector;
        for block in offset / BLOCK as u64..(offset + len) / BLOCK as u64 {
            if random.once_in(2) {
                let sectors = block * per_block..(block + 1) * per_block;
                sectors.for_each(|sector| drop(self.unsafe_yet.remove(&sector)));
                let images = [&mut self.durable, &mut self.current];
                for image in images.into_iter().filter(|image| image.block(block).is_some()) {
                    if block.is_multiple_of(3) {
                        image.write(block * BLOCK as u64, &[0xff; BLOCK]);
                    } else {
                        image.clear(block);
                    }
                }
            }
        }
    }

    fn sectors(&self, offset: u64, len: u64) -> std::ops::Range<u64> {
        offset / self.sector..(offset + len) / self.sector
    }

    fn assert_range(&self, offset: u64, len: u64) {
        let whole = offset.is_multiple_of(self.sector) && len.is_multiple_of(self.sector);
        assert!(whole && len > 0, "not whole sectors: {len} bytes at {offset:#x}");
        let end = offset.checked_add(len).expect("an offset inside the disk");
        assert!(end <= self.bytes, "past the end of the disk: {len} bytes at {offset:#x}");
    }

    fn assert_alone(&self, offset: u64, len: u64) {
        for (flight, work) in &self.flying {
            let (at, bytes) = match work {
                Work::Write { offset, bytes } => (*offset, bytes.len() as u64),
                Work::Discard { offset, len } => (*offset, *len),
                Work::Read { .. } | Work::Sync { .. } => continue,
            };
            let apart = at + bytes <= offset || offset + len <= at;
            assert!(
                apart,
                "two writes in flight to one place: {len} bytes at {offset:#x}, \
                 while {flight:#x} writes {bytes} at {at:#x}"
            );
        }
    }
}

/// A sector whose content a power cut decides.
#[derive(Clone, Debug)]
pub(crate) struct Uncertain {
    /// First byte.
    pub(crate) offset: u64,
    /// What was written and is not durable, oldest first: by which write, and where in its bytes.
    pub(crate) versions: Vec<Choice>,
}

/// The bytes of a write, by its number, from a position on.
pub(crate) type Choice = (Flight, Rc<[u8]>, usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &mut Disk, offset: u64, byte: u8) -> Flight {
        disk.submit(Work::Write { offset, bytes: vec![byte; 512].into() })
    }

    fn done(disk: &mut Disk, flight: Flight) {
        disk.complete(flight, &mut Random::new(1), &mut []).unwrap();
    }

    fn sync(disk: &mut Disk) -> Flight {
        disk.submit(Work::Sync { since: 0 })
    }

    fn byte(image: &Image, offset: u64) -> u8 {
        let mut byte = [0];
        image.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn a_flush_covers_what_was_done_when_it_was_submitted_and_nothing_later() {
        let mut disk = Disk::new(1 << 20, 512);
        let first = write(&mut disk, 0, 1);
        let second = write(&mut disk, 512, 2);
        done(&mut disk, first);
        let flush = sync(&mut disk);
        done(&mut disk, second);
        done(&mut disk, flush);
        assert_eq!((byte(disk.durable(), 0), byte(disk.durable(), 512)), (1, 0));
        assert_eq!(byte(disk.current(), 512), 2);
        assert_eq!(disk.uncertain().len(), 1);
        write(&mut disk, 512, 4);
        assert_eq!(disk.uncertain()[0].versions.len(), 2, "one done, one in flight");
    }

    #[test]
    fn a_failed_flush_is_not_made_good_by_the_next() {
        let mut disk = Disk::new(1 << 20, 512);
        let written = write(&mut disk, 0, 1);
        done(&mut disk, written);
        let flush = sync(&mut disk);
        disk.fail(flush, &mut Random::new(1));
        let flush = sync(&mut disk);
        done(&mut disk, flush);
        assert_eq!((byte(disk.durable(), 0), byte(disk.current(), 0)), (0, 1));
    }

    #[test]
    fn a_kill_keeps_what_was_done() {
        for seed in 0..32 {
            let mut disk = Disk::new(1 << 20, 512);
            let written = write(&mut disk, 0, 1);
            done(&mut disk, written);
            write(&mut disk, 512, 2);
            disk.kill(&mut Random::new(seed));
            assert_eq!(byte(disk.current(), 0), 1);
            assert!(disk.flying().next().is_none());
            assert_eq!(byte(disk.durable(), 0), 0, "it is still in the cache");
        }
    }

    #[test]
    fn what_arrived_before_a_kill_is_flushed_by_the_next_process() {
        let (mut arrived, mut safe) = (0, 0);
        for seed in 0..32 {
            let mut disk = Disk::new(1 << 20, 512);
            let written = write(&mut disk, 0, 1);
            disk.arrive(written, &mut Random::new(seed));
            disk.kill(&mut Random::new(seed));
            let flush = sync(&mut disk);
            done(&mut disk, flush);
            arrived += byte(disk.current(), 0);
            safe += byte(disk.durable(), 0);
        }
        assert!(arrived > 0);
        assert_eq!(arrived, safe);
    }

    #[test]
    #[should_panic(expected = "two writes in flight to one place")]
    fn two_writes_in_flight_to_one_place_are_refused() {
        let mut disk = Disk::new(1 << 20, 512);
        write(&mut disk, 0, 1);
        write(&mut disk, 0, 2);
    }

    #[test]
    fn a_write_that_is_redirected_lands_there_alone() {
        let mut disk = Disk::new(1 << 20, 512);
        let first = write(&mut disk, 0, 1);
        let second = write(&mut disk, 1024, 2);
        assert!(!disk.redirect(first, 1024), "another write to there is in flight");
        assert!(disk.redirect(first, 512));
        done(&mut disk, first);
        done(&mut disk, second);
        assert_eq!([0, 512, 1024].map(|at| byte(disk.current(), at)), [0, 1, 2]);
        assert!(!disk.redirect(first, 0), "it is over");
    }

    #[test]
    fn a_bit_that_turns_is_turned_on_the_media_too() {
        let mut disk = Disk::new(1 << 20, 512);
        let written = write(&mut disk, 0, 1);
        done(&mut disk, written);
        let flush = sync(&mut disk);
        done(&mut disk, flush);
        disk.flip(3, 0x10);
        assert_eq!((byte(disk.durable(), 3), byte(disk.current(), 3)), (0x11, 0x11));
        assert_eq!(byte(disk.current(), 2), 1);
    }

    #[test]
    fn a_bad_sector_is_an_error_until_it_is_written() {
        let mut disk = Disk::new(1 << 20, 512);
        disk.spoil(1);
        let mut bytes = [0; 1024];
        let read = disk.submit(Work::Read { offset: 0, len: 1024 });
        let read = disk.complete(read, &mut Random::new(1), &mut bytes);
        assert_eq!(read, Err(IoError::Media));
        let written = write(&mut disk, 512, 2);
        done(&mut disk, written);
        let read = disk.submit(Work::Read { offset: 0, len: 1024 });
        assert_eq!(disk.complete(read, &mut Random::new(1), &mut bytes), Ok(1024));
        assert_eq!(bytes[512], 2);
    }
}
