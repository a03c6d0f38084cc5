//! A pool made by the core on a file, read by the tools.

use std::fs;
use std::path::PathBuf;

use braid_block::{BlockSize, IoError};
use braid_pool::{Command, Config, Create, Device, Image, Limits, Pool, State, run_blocking};

use super::disk::Disk;
use super::memory::Heap;
use super::superblock;
use crate::manage::disk::{self, Making};
use crate::serve::signature;
use crate::serve::uri::Allocation;

const BYTES: u64 = 64 << 20;
const UUID: [u8; 16] = *b"a pool of a test";

/// A file with a pool, gone with its owner.
struct Made(PathBuf);

impl Made {
    fn new(name: &str) -> Self {
        let name = format!("braid-offline-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::File::create(&path).unwrap().set_len(BYTES).unwrap();
        Self(path)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn config() -> Config {
    Config {
        token_base: 0,
        device: Device { bytes: BYTES, sector: 512, discards: false },
        boot_id: [7; 16],
        owner: "the engine of a test".into(),
        seed: 5,
        read_only: false,
        limits: Limits::default(),
        plant: None,
    }
}

/// Makes a pool with a replica and a snapshot; `orderly` stops it.
fn make(made: &Made, orderly: bool) {
    let mut disk = Disk::open(&made.0, true).unwrap();
    let mut mem = Heap::default();
    let now = super::BEGINNING;
    let mut pool = Pool::create(config(), crate::manage::format(UUID, BYTES, 64 << 10));
    run_blocking(&mut pool, &mut mem, &mut disk, now, |_, _| {});
    assert_eq!(pool.state(), State::Stopped);
    pool.drop_leases(&mut mem);
    let mut pool = Pool::open(config());
    run_blocking(&mut pool, &mut mem, &mut disk, now, |_, _| {});
    assert_eq!(pool.state(), State::Open);
    let create = Create {
        uuid: [1; 16],
        name: "vm1".into(),
        bytes: 16 << 20,
        block: BlockSize::B512,
        thick: false,
        created: 1_798_761_599,
    };
    let snapshot = Command::Snapshot {
        replica: [1; 16],
        uuid: [2; 16],
        name: "monday".into(),
        created: 1_798_761_600,
    };
    for (tag, command) in [(1, Command::Create(Box::new(create))), (2, snapshot)] {
        pool.command(&mut mem, now, tag, command);
        let mut result = None;
        run_blocking(&mut pool, &mut mem, &mut disk, now, |_, done| result = Some(done.result));
        assert!(result.unwrap().is_ok());
    }
    if orderly {
        pool.stop(&mut mem, now);
        run_blocking(&mut pool, &mut mem, &mut disk, now, |_, _| {});
        assert_eq!(pool.state(), State::Stopped);
    }
    pool.drop_leases(&mut mem);
}

#[test]
fn a_pool_is_read_whether_it_was_stopped_or_not() {
    for orderly in [true, false] {
        let made = Made::new(if orderly { "clean" } else { "crashed" });
        make(&made, orderly);
        let before = fs::read(&made.0).unwrap();
        let mut disk = Disk::open(&made.0, false).unwrap();
        let mut mem = Heap::default();
        let pool = super::open(&made.0, &mut disk, &mut mem).unwrap();
        let info = pool.info();
        assert_eq!((info.uuid, info.clean), (UUID, orderly));
        assert_eq!(info.owner, "the engine of a test");
        let mut names: Vec<_> = pool.layers().map(|l| (l.name, l.snapshot, l.bytes)).collect();
        names.sort();
        assert_eq!(names, [("monday".into(), true, 16 << 20), ("vm1".into(), false, 16 << 20)]);
        drop(disk);
        assert!(fs::read(&made.0).unwrap() == before, "nothing was changed");
    }
}

#[test]
fn a_pool_is_recognised_by_either_superblock() {
    let made = Made::new("mark");
    assert_eq!(superblock::read(&made.0), None);
    make(&made, true);
    let found = superblock::read(&made.0).unwrap();
    assert_eq!((found.uuid, found.owner.as_str()), (UUID, "the engine of a test"));
    let whole = fs::read(&made.0).unwrap();
    for slot in [0, 4096] {
        let mut bytes = whole.clone();
        bytes[slot..slot + 4096].fill(0);
        fs::write(&made.0, &bytes).unwrap();
        assert_eq!(superblock::read(&made.0).unwrap().uuid, UUID, "{slot}");
        let size = bytes.len() as u64;
        let mark = signature::probe(&mut std::io::Cursor::new(bytes), size).unwrap();
        assert_eq!(mark, Some("a Braid pool"), "{slot}");
    }
}

/// A disk whose engine is killed after so many writes.
struct Killed {
    disk: Disk,
    writes_left: usize,
}

impl Image for Killed {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        self.disk.read(offset, bytes)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(IoError::Gone)?;
        self.disk.write(offset, bytes)
    }
}

#[test]
fn making_a_pool_can_be_repeated_wherever_it_was_killed() {
    let made = Made::new("killed");
    let making = Making {
        path: made.0.clone(),
        bytes: Some(BYTES),
        allocation: Allocation::Sparse,
        force: false,
    };
    let mut left_pages = 0;
    for writes_left in 0.. {
        fs::File::create(&made.0).unwrap().set_len(BYTES).unwrap();
        let mut killed = Killed { disk: Disk::open(&made.0, true).unwrap(), writes_left };
        let mut mem = Heap::default();
        let mut pool = Pool::create(config(), crate::manage::format(UUID, BYTES, 64 << 10));
        run_blocking(&mut pool, &mut mem, &mut killed, super::BEGINNING, |_, _| {});
        let was_made = pool.state() == State::Stopped;
        pool.drop_leases(&mut mem);
        drop(killed);
        if disk::pool_on(&made.0).is_some() {
            // From the first superblock on there is a pool, which a repeated call opens.
            assert_eq!(disk::pool_on(&made.0), Some(UUID));
            assert!(disk::make(&making).is_err());
        } else {
            let is_zero = fs::read(&made.0).unwrap().iter().all(|byte| *byte == 0);
            left_pages += u32::from(!is_zero);
            disk::make(&making).unwrap();
        }
        if was_made {
            break;
        }
    }
    assert!(left_pages >= 2, "{left_pages}");
}

#[test]
fn a_superblock_that_a_power_cut_left_half_written_is_no_pool_yet() {
    let made = Made::new("torn");
    let mut disk = Disk::open(&made.0, true).unwrap();
    let mut mem = Heap::default();
    let mut pool = Pool::create(config(), crate::manage::format(UUID, BYTES, 64 << 10));
    run_blocking(&mut pool, &mut mem, &mut disk, super::BEGINNING, |_, _| {});
    assert_eq!(pool.state(), State::Stopped);
    pool.drop_leases(&mut mem);
    drop(disk);
    let whole = fs::read(&made.0).unwrap();
    let sectors = |slot: usize| [slot, slot + 1024];
    for kept in [vec![], vec![0], vec![1024]] {
        let mut bytes = whole.clone();
        for sector in [0, 4096].into_iter().flat_map(sectors) {
            if !kept.contains(&(sector % 4096)) {
                bytes[sector..sector + 512].fill(0);
            }
        }
        fs::write(&made.0, &bytes).unwrap();
        let making = Making {
            path: made.0.clone(),
            bytes: None,
            allocation: Allocation::Sparse,
            force: false,
        };
        assert_eq!(disk::pool_on(&made.0), None, "{kept:?}");
        disk::make(&making).unwrap();
        // The same before pages of which one holds something is what a pool lost.
        bytes[16384] = 1;
        fs::write(&made.0, &bytes).unwrap();
        assert!(disk::make(&making).is_err(), "{kept:?}");
    }
    // A whole one in either slot is a pool.
    for slot in [0, 4096] {
        let mut bytes = whole.clone();
        bytes[slot..slot + 512].fill(0);
        assert!(!superblock::is_half_made(&bytes[..1 << 20]), "{slot}");
        fs::write(&made.0, &bytes).unwrap();
        assert_eq!(disk::pool_on(&made.0), Some(UUID));
    }
}

#[test]
fn a_pool_that_was_finished_while_somebody_waited_for_its_disk_is_not_taken() {
    for bytes in [0, BYTES] {
        let made = Made::new("waited-for");
        let disk = fs::File::options().read(true).write(true).open(&made.0).unwrap();
        disk.set_len(bytes).unwrap();
        rustix::fs::flock(&disk, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let making = Making {
            path: made.0.clone(),
            bytes: Some(BYTES),
            allocation: Allocation::Sparse,
            force: false,
        };
        let waiting = std::thread::spawn(move || disk::make(&making).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(300));
        // The disk was looked at, and is free or about to be made. Its holder makes a pool.
        let other = Made::new("finished");
        make(&other, true);
        fs::write(&made.0, fs::read(&other.0).unwrap()).unwrap();
        drop(disk);
        let refused = waiting.join().unwrap().unwrap_err();
        assert!(refused.message().contains("seems to hold a Braid pool"), "{refused:?}");
        assert_eq!(disk::pool_on(&made.0), Some(UUID));
    }
}

#[test]
fn a_pool_without_its_superblocks_is_data_still() {
    let made = Made::new("headless");
    make(&made, true);
    let mut bytes = fs::read(&made.0).unwrap();
    bytes[..8192].fill(0);
    assert!(!superblock::is_half_made(&bytes[..1 << 20]));
    assert!(!superblock::is_half_made(&[0; 8192]));
    let mut empty = vec![0; 16384];
    empty[8192..12288].copy_from_slice(&bytes[8192..12288]);
    empty[8192 + 32..12288].fill(0);
    assert!(superblock::is_half_made(&empty));
    // At another place it is none of its own, nor with something in it.
    empty.copy_within(8192..12288, 4096);
    assert!(!superblock::is_half_made(&empty));
    empty[4096..8192].fill(0);
    empty[12287] = 1;
    assert!(!superblock::is_half_made(&empty));
}

#[test]
fn a_pool_that_lost_its_first_superblocks_is_not_overwritten_and_can_be_mended() {
    let made = Made::new("beheaded");
    make(&made, true);
    let whole = fs::read(&made.0).unwrap();
    let end = whole.len() - 8192;
    // Either copy at the end will do.
    for lost in [None, Some(end), Some(end + 4096)] {
        let mut bytes = whole.clone();
        bytes[..8192].fill(0);
        lost.into_iter().for_each(|copy| bytes[copy..copy + 4096].fill(0));
        fs::write(&made.0, &bytes).unwrap();
        assert_eq!(superblock::read(&made.0), None, "{lost:?}");
        let size = bytes.len() as u64;
        let mark = signature::probe(&mut std::io::Cursor::new(&bytes), size).unwrap();
        assert_eq!(mark, Some(signature::HEADLESS), "{lost:?}");
        let making = Making {
            path: made.0.clone(),
            bytes: None,
            allocation: Allocation::Reserved,
            force: false,
        };
        let refused = disk::make(&making).unwrap_err();
        assert!(refused.message().contains("verify --repair"), "{refused:?}");
        assert!(fs::read(&made.0).unwrap() == bytes, "nothing was changed");
        // What the message says.
        let mut disk = Disk::open(&made.0, true).unwrap();
        let mut mem = Heap::default();
        let mut pool = super::open(&made.0, &mut disk, &mut mem).unwrap();
        let scope = braid_pool::Scope { repair: true, ..braid_pool::Scope::default() };
        let report = braid_pool::check(&mut pool, &mut mem, &mut disk, super::BEGINNING, scope);
        let bad = 2 + u64::from(lost.is_some());
        assert_eq!((report.errors, report.bad_copies, report.mended), (0, bad, bad), "{lost:?}");
        assert_eq!(superblock::read(&made.0).unwrap().uuid, UUID);
    }
}

#[test]
fn what_is_no_pool_or_in_use_is_refused() {
    let made = Made::new("plain");
    let mut mem = Heap::default();
    let mut disk = Disk::open(&made.0, false).unwrap();
    let error = super::open(&made.0, &mut disk, &mut mem).unwrap_err();
    assert!(error.to_string().contains("holds no pool"), "{error}");
    drop(disk);
    make(&made, true);
    let held = Disk::open(&made.0, true).unwrap();
    let error = Disk::open(&made.0, false).unwrap_err().to_string();
    assert!(error.contains("in use") && error.contains("the engine of a test"), "{error}");
    drop(held);
    Disk::open(&made.0, false).unwrap();
    assert!(Disk::open("/no/such".as_ref(), false).unwrap_err().to_string().contains("no such"));
    let folder = Disk::open("/".as_ref(), false).unwrap_err().to_string();
    assert!(folder.contains("neither a file"), "{folder}");
}

#[test]
fn a_bad_copy_is_found_and_mended() {
    let made = Made::new("verify");
    make(&made, true);
    let check = |repair| {
        let mut disk = Disk::open(&made.0, repair).unwrap();
        let mut mem = Heap::default();
        let mut pool = super::open(&made.0, &mut disk, &mut mem).unwrap();
        let scope = braid_pool::Scope { repair, ..braid_pool::Scope::default() };
        let now = super::BEGINNING;
        braid_pool::check(&mut pool, &mut mem, &mut disk, now, scope)
    };
    let sound = check(false);
    assert_eq!((sound.errors, sound.bad_copies, sound.layers), (0, 0, 2), "{sound:?}");
    let mut bytes = fs::read(&made.0).unwrap();
    bytes[4096..8192].fill(7);
    fs::write(&made.0, &bytes).unwrap();
    assert_eq!(check(false).bad_copies, 1);
    let mended = check(true);
    assert_eq!((mended.bad_copies, mended.mended), (1, 1));
    assert_eq!(check(false).bad_copies, 0);
}
