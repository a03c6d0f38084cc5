//! The store: what a swap compares, what is kept over a restart, what a power cut leaves.
#![forbid(unsafe_code)]

mod contents;
mod disk;
mod powercut;
mod swap;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use braid_control::store::{Appointed, Change, Place, Spec, Stage, Stay, Store};
use braid_nexus::record::{Replica, Standing};
use braid_nexus::{Record, Uuid};

/// A folder that goes away with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("store-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Opens a store that another one of this process may just be letting go of.
pub(crate) fn open(path: &Path) -> Store {
    let begun = Instant::now();
    loop {
        match Store::open(path) {
            Ok(store) => return store,
            Err(error) if begun.elapsed() > Duration::from_secs(10) => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

pub(crate) const fn id(byte: u8) -> Uuid {
    [byte; 16]
}

/// What is asked for: one replica.
pub(crate) fn spec(volume: u8) -> Spec {
    let place = Place {
        replica: id(volume + 100),
        engine: id(200),
        node: "a".into(),
        pool: String::new(),
        given: false,
        stay: Stay::Stays,
    };
    Spec {
        uuid: id(volume),
        name: format!("v{volume}"),
        bytes: 1 << 20,
        places: vec![place],
        snapshots: Vec::new(),
        standbys: 1,
        created_unix_s: 7,
        stage: Stage::Creating,
        appointed: None,
        pace: None,
        ended: Vec::new(),
    }
}

/// The first record of a volume.
pub(crate) fn first(store: &Store, volume: u8) -> Record {
    let standing = Standing::Member { instance: 1 };
    let mut record = Record {
        volume: id(volume),
        store: store.read(|state| state.id),
        version: 1,
        bytes: 1 << 20,
        unused: true,
        ..Record::default()
    };
    record.slots[0] = Some(Replica { uuid: id(volume + 100), standing });
    record
}

/// A volume that is ready.
pub(crate) async fn make(store: &Store, volume: u8) -> Record {
    let record = first(store, volume);
    store.change(Change::Create(Box::new(spec(volume)))).await.unwrap();
    let admit = Change::Admit { volume: id(volume), record: Box::new(record.clone()) };
    store.change(admit).await.unwrap();
    record
}

/// The record with the next version and another size.
pub(crate) fn next(record: &Record) -> Record {
    Record { bytes: record.bytes + 4096, ..*record.next() }
}

/// A claim of the record by another owner.
pub(crate) fn claimed(record: &Record, owner: u8) -> Record {
    Record { epoch: record.epoch + 1, owner: id(owner), ..*record.next() }
}

pub(crate) fn swap(old: &Record, new: &Record) -> Change {
    Change::Swap { volume: old.volume, old: old.encode(), new: new.encode() }
}

pub(crate) const fn appoint(volume: u8, owner: u8) -> Change {
    let appointed = Appointed { engine: id(200), owner: id(owner) };
    Change::Appoint { volume: id(volume), appointed }
}
