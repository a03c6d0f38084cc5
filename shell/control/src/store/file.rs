//! The file: where it is, what its tables are, and how an older one is put in its place.

use std::fs::File;
use std::path::{Path, PathBuf};

use braid_nexus::{Record, Uuid};
use braid_terminal::{Error, Result};
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::change::Draft;
use super::{EVENTS_MAX, Happened, State, Volume, random};

/// Facts about the store itself.
const FACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("facts");
/// JSON by volume.
pub(super) const SPECS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("specs");
/// Records by volume, as replicas keep them.
pub(super) const RECORDS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("records");
/// Time and text by volume and number.
pub(super) const EVENTS: TableDefinition<(&[u8; 16], u64), (u64, &str)> =
    TableDefinition::new("events");

/// Numbers by engine.
const NUMBERS: TableDefinition<&[u8; 16], u16> = TableDefinition::new("numbers");

/// Version of all that.
const FORMAT: u8 = 1;
/// Memory for pages of the file: records of thousands of volumes are few MiB, and are read from
/// our own memory.
const CACHE: usize = 4 << 20;

/// Opens the file, as often as needed.
pub type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// Opens a store's file; makes it if it is not there.
///
/// # Errors
/// When its folder is not there.
pub fn at(path: &Path) -> Result<Opener> {
    let path: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    if !folder.is_dir() {
        return Err(Error::usage(format!("there is no folder {}; make it", folder.display())));
    }
    Ok(Box::new(move || {
        let database = builder().create(&path)?;
        // A new file is there for good once its folder is written.
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(redb::StorageError::Io)?;
        Ok(database)
    }))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Puts a copy of a store in a place where there is none, under an identity of its own: what the
/// copy does not know is found by `volume recover`. Returns the identity.
///
/// # Errors
/// When the copy is no store, or something is at the place.
pub fn restore(from: &Path, to: &Path) -> Result<Uuid> {
    let failed =
        |text: &str, error: &dyn std::fmt::Display| Error::run(format!("cannot {text}: {error}"));
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if to.exists() {
        return Err(Error::usage(format!("{} is there; choose another place", to.display())));
    }
    let part = to.with_extension("part");
    std::fs::copy(from, &part).map_err(|error| failed("copy the store", &error))?;
    let id = random()?;
    let renamed = (|| {
        let database = builder().open(&part)?;
        let write = begin(&database)?;
        {
            let mut facts = write.open_table(FACTS)?;
            known(facts.get("format")?.map(|value| value.value().to_vec()))?;
            facts.insert("id", &id[..])?;
        }
        write.commit()?;
        Ok::<_, redb::Error>(())
    })();
    let moved = renamed.map_err(|error| failed("read the copy", &error)).and_then(|()| {
        let moved = std::fs::rename(&part, to).and_then(|()| File::open(folder)?.sync_all());
        moved.map_err(|error| failed("put the store in its place", &error))
    });
    if moved.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    moved.map(|()| id)
}

/// A change of the file that is durable when it is committed.
pub(super) fn begin(database: &Database) -> Result<redb::WriteTransaction, redb::Error> {
    let mut write = database.begin_write()?;
    // The newest commit is found by what is written, not by what its checksum seems to say, and a
    // store that was killed opens at once.
    write.set_two_phase_commit(true);
    write.set_quick_repair(true);
    Ok(write)
}

/// Reads everything; makes tables and identity of a new file.
pub(super) fn load(database: &Database) -> Result<State, redb::Error> {
    let write = begin(database)?;
    let id = {
        let mut facts = write.open_table(FACTS)?;
        let id = facts.get("id")?.and_then(|value| Uuid::try_from(value.value()).ok());
        match id {
            Some(id) => {
                known(facts.get("format")?.map(|value| value.value().to_vec()))?;
                id
            }
            None => {
                let id = random().map_err(|error| corrupt(&error.to_string()))?;
                facts.insert("id", &id[..])?;
                facts.insert("format", &[FORMAT][..])?;
                id
            }
        }
    };
    write.open_table(SPECS)?;
    write.open_table(RECORDS)?;
    write.open_table(EVENTS)?;
    write.open_table(NUMBERS)?;
    write.commit()?;
    let mut state = State { id, ..State::default() };
    let read = database.begin_read()?;
    let (records, events) = (read.open_table(RECORDS)?, read.open_table(EVENTS)?);
    for row in read.open_table(SPECS)?.iter()? {
        let (uuid, spec) = row?;
        let uuid = *uuid.value();
        let spec = serde_json::from_slice(spec.value());
        let spec = spec.map_err(|error| corrupt(&format!("a volume: {error}")))?;
        let record = records.get(&uuid)?.map(|bytes| Record::decode(bytes.value()));
        let record = record.transpose().map_err(|_| corrupt("a record"))?;
        let mut volume = Volume::new(std::sync::Arc::new(spec), record.map(std::sync::Arc::new));
        let mut kept = events.range((&uuid, 0)..=(&uuid, u64::MAX))?;
        let first = kept.next().transpose()?.map(|(key, _)| key.value().1);
        let last = kept.next_back().transpose()?.map(|(key, _)| key.value().1).or(first);
        volume.events = (first.unwrap_or(0), last.map_or(0, |last| last + 1));
        state.volumes.insert(uuid, volume);
    }
    for row in read.open_table(NUMBERS)?.iter()? {
        let (engine, number) = row?;
        state.numbers.insert(*engine.value(), number.value());
    }
    Ok(state)
}

fn known(format: Option<Vec<u8>>) -> Result<(), redb::Error> {
    match format.as_deref() {
        Some([FORMAT]) => Ok(()),
        _ => Err(corrupt("it is of a version that this program does not know")),
    }
}

fn corrupt(text: &str) -> redb::Error {
    redb::Error::Corrupted(text.into())
}

/// Writes what changed, and takes away events beyond what is kept.
pub(super) fn write(database: &Database, draft: &Draft<'_>) -> Result<(), redb::Error> {
    let (changed, notes) = (draft.changed(), &draft.notes);
    let write = begin(database)?;
    {
        let mut numbers = write.open_table(NUMBERS)?;
        for (engine, number) in &draft.numbers {
            numbers.insert(engine, *number)?;
        }
        let (mut specs, mut records) = (write.open_table(SPECS)?, write.open_table(RECORDS)?);
        let mut events = write.open_table(EVENTS)?;
        for (uuid, volume) in changed {
            let Some(volume) = volume else {
                specs.remove(uuid)?;
                records.remove(uuid)?;
                events.retain_in((uuid, 0)..=(uuid, u64::MAX), |_, _| false)?;
                continue;
            };
            let spec = serde_json::to_vec(&*volume.spec);
            let spec = spec.map_err(|error| corrupt(&error.to_string()))?;
            specs.insert(uuid, &spec[..])?;
            if let Some(record) = &volume.record {
                records.insert(uuid, &record.encode()[..])?;
            }
        }
        let there = |uuid: &Uuid| changed.get(uuid).is_some_and(Option::is_some);
        for (uuid, number, unix_ms, text) in notes.iter().filter(|(uuid, ..)| there(uuid)) {
            events.insert((uuid, *number), (*unix_ms, text.as_str()))?;
            if let Some(old) = number.checked_sub(EVENTS_MAX) {
                events.remove((uuid, old))?;
            }
        }
    }
    write.commit()?;
    Ok(())
}

/// The events of a volume.
pub(super) fn history(database: &Database, uuid: &Uuid) -> Result<Vec<Happened>, redb::Error> {
    let read = database.begin_read()?;
    let events = read.open_table(EVENTS)?;
    let mut found = Vec::new();
    for row in events.range((uuid, 0)..=(uuid, u64::MAX))? {
        let (_, value) = row?;
        let (unix_ms, text) = value.value();
        found.push(Happened { unix_ms, text: text.into() });
    }
    Ok(found)
}
