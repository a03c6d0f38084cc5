//! A disk that loses power: of what was not synced any subset stays, sector by sector, and after
//! the cut nothing works any more.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

/// Bytes that are written as one.
const SECTOR: usize = 512;

/// A small generator: the same numbers for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct Inside {
    /// What a read gives.
    seen: Vec<u8>,
    /// What is there for good.
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Operations until the power goes; None: it stays.
    left: Option<u64>,
    /// Operations so far.
    done: u64,
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Inside>>);

impl Disk {
    /// The power goes after so many operations.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.0.lock().unwrap().left = Some(operations);
    }

    /// Operations so far.
    pub(crate) fn done(&self) -> u64 {
        self.0.lock().unwrap().done
    }

    /// What the disk holds when the power is back.
    pub(crate) fn after_the_cut(&self, dice: &mut Dice) -> Self {
        let inside = self.0.lock().unwrap();
        let mut durable = inside.durable.clone();
        for unsynced in &inside.unsynced {
            match unsynced {
                Unsynced::Length(length) if dice.below(2) == 0 => durable.resize(*length, 0),
                Unsynced::Length(_) => {}
                Unsynced::Write(offset, bytes) => {
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        let at = offset + number * SECTOR;
                        if dice.below(2) == 0 {
                            durable.resize(durable.len().max(at + sector.len()), 0);
                            durable[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        let inside = Inside { seen: durable.clone(), durable, ..Inside::default() };
        Self(Arc::new(Mutex::new(inside)))
    }

    fn operate<T>(&self, work: impl FnOnce(&mut Inside) -> T) -> Result<T, io::Error> {
        let mut inside = self.0.lock().unwrap();
        inside.done += 1;
        match &mut inside.left {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(work(&mut inside))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let inside = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let there = inside.seen.get(from..from + out.len());
        let there = there.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let length = usize::try_from(length).unwrap();
        self.operate(|inside| {
            inside.seen.resize(length, 0);
            inside.unsynced.push(Unsynced::Length(length));
        })
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.operate(|inside| {
            inside.durable.clone_from(&inside.seen);
            inside.unsynced.clear();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let from = usize::try_from(offset).unwrap();
        self.operate(|inside| {
            // As of a file: what is behind its end makes it longer.
            let end = inside.seen.len().max(from + data.len());
            inside.seen.resize(end, 0);
            inside.seen[from..from + data.len()].copy_from_slice(data);
            inside.unsynced.push(Unsynced::Write(from, data.to_vec()));
        })
    }
}
