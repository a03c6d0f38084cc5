//! Looking at a pool without opening it to anybody.

use alloc::vec::Vec;

use braid_block::Instant;

use crate::drive::{Buffers, Image, run_blocking};
use crate::layout::{ADOPT, BLOCK, CLEAN, ERROR};
use crate::superblock::{Judged, judge, slots};
use crate::{Config, LayerInfo, Note, Pool, PoolInfo, Refusal, State};

/// What a look at a pool shows.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The pool as a whole, as it would be opened now.
    pub pool: PoolInfo,
    /// Bytes of the device that it uses.
    pub bytes: u64,
    /// Boot id of the kernel that opened it last.
    pub boot_id: [u8; 16],
    /// It was stopped in order.
    pub clean: bool,
    /// The device failed while it was open.
    pub failed: bool,
    /// Some regions may have been open since a stop without order.
    pub unadopted: bool,
    /// Versions of the four copies of the superblock, by their place; none for a bad one.
    pub copies: [(u64, Option<u64>); 4],
    /// The journal.
    pub journal: JournalInfo,
    /// Replicas, clones and snapshots.
    pub layers: Vec<LayerInfo>,
    /// Layers that went away and have not given all their space back.
    pub deleted: u64,
    /// What opening it would tell.
    pub notes: Vec<Note>,
}

/// The journal of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalInfo {
    /// Blocks of the ring.
    pub blocks: u64,
    /// First block that is not in the pages.
    pub tail: u64,
    /// Last block.
    pub last: u64,
    /// Newest settled block.
    pub settled: u64,
    /// Blocks that are replayed when the pool is opened now.
    pub replayed: u64,
    /// First writes that had not reached the device.
    pub rejected: u64,
}

/// Looks at a pool on a device that nobody serves. `config` says what is known of the device; it
/// is opened to be read only.
///
/// # Errors
/// Why it could not be opened.
pub fn inspect<M: Buffers, I: Image>(
    mem: &mut M,
    image: &mut I,
    config: Config,
) -> Result<Inspection, Refusal> {
    let mut pool = Pool::open(Config { read_only: true, ..config });
    run_blocking(&mut pool, mem, image, Instant::ZERO, |_, _| {});
    let mut notes = Vec::new();
    while let Some(note) = pool.poll_note() {
        notes.push(note);
    }
    let refused = notes.iter().find_map(|note| match note {
        Note::Refused(refusal) => Some(*refusal),
        _ => None,
    });
    let found = match refused {
        None if pool.state == State::Open => Ok(pool.inspection::<M, I>(image, notes)),
        None => Err(Refusal::Device(braid_block::IoError::Device)),
        Some(refusal) => Err(refusal),
    };
    pool.drop_leases(mem);
    found
}

impl Pool {
    fn inspection<M: Buffers, I: Image>(&self, image: &mut I, notes: Vec<Note>) -> Inspection {
        let block = &self.superblock;
        let flags = block.flags.get();
        let rejected = notes.iter().find_map(|note| match note {
            Note::Opened { rejected, .. } => Some(*rejected),
            _ => None,
        });
        let journal = JournalInfo {
            blocks: self.store.layout.ring_blocks,
            tail: self.journal.tail,
            last: self.journal.written,
            settled: self.sync.settled(),
            replayed: self.journal.written + 1 - self.journal.tail,
            rejected: rejected.unwrap_or(0),
        };
        let mut bytes = alloc::vec![0; BLOCK as usize];
        let copies = slots(block.bytes.get()).map(|device| {
            let read = image.read(device, &mut bytes).is_ok();
            let version = match judge::<M>(&bytes, device) {
                Judged::Valid(found) => Some(found.header.lsn.get()).filter(|_| read),
                Judged::Newer { .. } | Judged::Damaged | Judged::Foreign => None,
            };
            (device, version)
        });
        let deleted = self.store.map.layers.values().filter(|layer| layer.state().deleted);
        Inspection {
            pool: self.info(),
            bytes: block.bytes.get(),
            boot_id: block.boot_id,
            clean: flags & CLEAN != 0,
            failed: flags & ERROR != 0,
            unadopted: flags & ADOPT != 0,
            copies,
            journal,
            layers: self.layers().collect(),
            deleted: deleted.count() as u64,
            notes,
        }
    }
}
