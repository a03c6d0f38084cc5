//! Protocol in words, short enough to be read in columns.

use braid_block::Class;
use braid_nexus::record::Standing;
use braid_nexus::wire::{Answer, Command, Refusal};
use braid_nexus::{Failure, Note, Record, Status, Step, Uuid, Work};

/// An identity by its letter.
pub(crate) fn name(uuid: &Uuid) -> char {
    char::from(uuid[0])
}

/// The identity of a letter.
pub(crate) fn uuid(name: char) -> Uuid {
    [u8::try_from(name).expect("names are letters"); 16]
}

/// The letters of a mask of slots.
pub(crate) fn mask(slots: u8) -> String {
    let names: String = (0..8).filter(|at| slots >> at & 1 == 1).map(letter).collect();
    if names.is_empty() { "none".into() } else { names }
}

pub(crate) fn letter(slot: u8) -> char {
    char::from(b'a' + slot)
}

/// Bytes with a unit.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0 => "0".into(),
        n if n.is_multiple_of(1 << 20) => format!("{}M", n >> 20),
        n if n.is_multiple_of(1 << 10) => format!("{}k", n >> 10),
        n => n.to_string(),
    }
}

pub(crate) fn range(offset: u64, len: u64) -> String {
    format!("{}+{}", bytes(offset), bytes(len))
}

fn fua(durable: bool) -> &'static str {
    if durable { " fua" } else { "" }
}

pub(crate) fn work(work: &Work) -> String {
    match work {
        Work::Read { offset, len } => format!("read {}", range(*offset, u64::from(*len))),
        Work::Write { offset, len, durable } => {
            format!("write {}{}", range(*offset, u64::from(*len)), fua(*durable))
        }
        Work::Zero { offset, len, durable } => {
            format!("zero {}{}", range(*offset, *len), fua(*durable))
        }
        Work::Flush => "flush".into(),
    }
}

/// The first word of a command.
pub(crate) fn kind(command: &Command) -> &'static str {
    match command {
        Command::Fence(_) => "fence",
        Command::CopyRecord(_) => "copy",
        Command::Lease => "lease",
        Command::Release => "release",
        Command::Read { .. } => "read",
        Command::ReadSnapshot { .. } => "read-snapshot",
        Command::Write { .. } => "write",
        Command::Zero { .. } => "zero",
        Command::Flush { .. } => "flush",
        Command::Compare { .. } => "compare",
        Command::Marks { .. } => "marks",
        Command::Clean { .. } => "clean",
        Command::Snapshot { .. } => "snapshot",
        Command::DeleteSnapshot { .. } => "delete",
        Command::Resize { .. } => "resize",
    }
}

pub(crate) fn command(command: &Command) -> String {
    let of = |snapshot: &Option<Box<Uuid>>| {
        snapshot.as_ref().map_or(String::new(), |uuid| format!(" of {}", name(uuid)))
    };
    let rest = match command {
        Command::Fence(record) => format!(" {}", state(record)),
        Command::CopyRecord(record) => format!(" v{}", record.version),
        Command::Read { offset, len } => format!(" {}", range(*offset, u64::from(*len))),
        Command::ReadSnapshot { snapshot, offset, len } => {
            format!(" {} {}", name(snapshot), range(*offset, u64::from(*len)))
        }
        Command::Write { offset, len, durable } => {
            format!(" {}{}", range(*offset, u64::from(*len)), fua(*durable))
        }
        Command::Zero { offset, len, durable } => {
            format!(" {}{}", range(*offset, *len), fua(*durable))
        }
        Command::Flush { number } => format!(" {number}"),
        Command::Compare { snapshot, offset, len } => {
            format!(" {}{}", range(*offset, u64::from(*len)), of(snapshot))
        }
        Command::Marks { snapshot } => of(snapshot),
        Command::Clean { flush, regions } => format!(" {} as of {flush}", runs(regions)),
        Command::Snapshot { uuid } | Command::DeleteSnapshot { uuid } => format!(" {}", name(uuid)),
        Command::Resize { bytes: n } => format!(" {}", bytes(*n)),
        Command::Lease | Command::Release => String::new(),
    };
    format!("{}{rest}", kind(command))
}

fn runs(regions: &[(u32, u32)]) -> String {
    let runs: Vec<String> = regions.iter().map(|(first, n)| format!("{first}+{n}")).collect();
    if runs.is_empty() { "none".into() } else { runs.join(" ") }
}

fn state(record: &Record) -> String {
    format!("epoch {} v{}", record.epoch, record.version)
}

pub(crate) fn answer(result: &Result<Answer, Refusal>) -> String {
    match result {
        Ok(Answer::Done) => "done".into(),
        Ok(Answer::Marks(marks)) => format!("marks {}", runs(marks)),
        Ok(Answer::Fenced(fenced)) => {
            let copy = fenced.copy.map_or("none".into(), |(epoch, v)| format!("{epoch} v{v}"));
            let (instance, flush) = (fenced.instance, fenced.flush);
            let marks = runs(&fenced.marks);
            format!("instance {instance}, copy {copy}, flush {flush}, marks {marks}")
        }
        Err(refusal) => refusal_of(refusal),
    }
}

pub(crate) fn refusal_of(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Gone => "gone".into(),
        Refusal::Conflict { epoch } => format!("conflict with epoch {epoch}"),
        Refusal::CopyNewer { epoch, version } => format!("copy newer: epoch {epoch} v{version}"),
        Refusal::StoreDiffers => "store differs".into(),
        Refusal::NoSpace => "no space".into(),
        Refusal::Media(at) => format!("media error at {}", bytes(*at)),
        Refusal::Failed => "failed".into(),
        Refusal::Invalid => "invalid".into(),
    }
}

pub(crate) fn status(status: &Status) -> String {
    match status {
        Status::Success => "success".into(),
        Status::Inaccessible => "3/02".into(),
        Status::Busy => "0/21".into(),
        Status::WriteFault { dnr } => format!("2/80{}", if *dnr { " DNR" } else { "" }),
        Status::NoSpace => "0/81".into(),
        Status::Media(at) => format!("2/81 at {}", bytes(*at)),
        Status::Invalid => "invalid".into(),
    }
}

pub(crate) fn failure(failure: &Failure) -> String {
    match failure {
        Failure::StoreNotCurrent(_) => "the store is not current".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// What a change changes.
pub(crate) fn change(old: &Record, new: &Record) -> String {
    let mut parts = vec![format!("v{} to v{}", old.version, new.version)];
    if (old.epoch, old.owner) != (new.epoch, new.owner) {
        parts.push(format!("epoch {} of {}", new.epoch, name(&new.owner)));
    }
    for slot in 0..new.slots.len() {
        if old.slots[slot] == new.slots[slot] {
            continue;
        }
        let letter = letter(slot as u8);
        parts.push(match new.slots[slot].map(|replica| replica.standing) {
            Some(Standing::Member { instance }) => format!("{letter} member {instance}"),
            Some(Standing::Away { whole: true }) => format!("{letter} away, whole"),
            Some(Standing::Away { whole: false }) => format!("{letter} away"),
            None => format!("{letter} unknown"),
        });
    }
    for snapshot in &new.snapshots {
        if old.snapshot(&snapshot.uuid) != Some(snapshot) {
            parts.push(format!("snapshot {} on {}", name(&snapshot.uuid), mask(snapshot.holders)));
        }
    }
    for snapshot in old.snapshots.iter().filter(|s| new.snapshot(&s.uuid).is_none()) {
        parts.push(format!("no snapshot {}", name(&snapshot.uuid)));
    }
    if old.bytes != new.bytes {
        parts.push(bytes(new.bytes));
    }
    if old.unused && !new.unused {
        parts.push("used".into());
    }
    if old.clean != new.clean {
        parts.push(if new.clean { "clean" } else { "not clean" }.into());
    }
    if old.lossy != new.lossy {
        let told = new.lossy.as_ref().map(|lossy| lossy.told.iter().map(name).collect());
        let told: String = told.unwrap_or_default();
        let told = if told.is_empty() { "nobody".into() } else { told };
        parts.push(format!("lossy, told {told}"));
    }
    parts.join(", ")
}

pub(crate) fn note(note: &Note) -> String {
    match note {
        Note::Claimed { epoch } => format!("claimed epoch {epoch}"),
        Note::Waiting { missing } => format!("waiting for {}", mask(*missing)),
        Note::Serving { epoch, members, suspect, lossy } => {
            let lossy = if *lossy { ", lossy" } else { "" };
            format!("serving epoch {epoch}, members {}, suspect {suspect}{lossy}", mask(*members))
        }
        Note::Stopped { epoch, why } => format!("stopped epoch {epoch}: {why:?}"),
        Note::Failing { slot, refusal } => {
            format!("failing {}: {}", letter(*slot), refusal_of(refusal))
        }
        Note::Excluded { slots } => format!("excluded {}", mask(*slots)),
        Note::Lost => "lost".into(),
        Note::Held => "held for too long".into(),
        Note::Resynced { region, copied } => {
            format!("resynced {region}, {} copied", bytes(*copied))
        }
        Note::Returning { slot, step } => format!("return of {}: {}", letter(*slot), step_of(step)),
        Note::Unreadable { slot, snapshot, offset } => {
            let of = snapshot.map_or(String::new(), |uuid| format!(" of {}", name(&uuid)));
            format!("{} needs what nobody can read: {}{of}", letter(*slot), bytes(*offset))
        }
        Note::Repaired { blocks } => format!("repaired {blocks}"),
        Note::Snapshot { taken: true } => "snapshot taken".into(),
        Note::Snapshot { taken: false } => "no snapshot".into(),
    }
}

fn step_of(step: &Step) -> String {
    match step {
        Step::Copying { regions } => format!("copying {regions}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Bytes as runs of one byte each; zeros are dots.
pub(crate) fn content(bytes: &[u8]) -> String {
    let mut runs: Vec<(u8, u64)> = Vec::new();
    for byte in bytes {
        match runs.last_mut() {
            Some((last, n)) if last == byte => *n += 1,
            _ => runs.push((*byte, 1)),
        }
    }
    let letter = |byte: u8| if byte == 0 { '.' } else { char::from(byte) };
    let runs = runs.iter().map(|(byte, n)| format!("{}*{}", letter(*byte), self::bytes(*n)));
    runs.collect::<Vec<_>>().join(" ")
}

/// The class of a buffer for a command.
pub(crate) fn class(len: u32) -> Class {
    Class::holding(len).unwrap_or(Class::Large)
}
