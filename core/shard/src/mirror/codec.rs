//! How the mirror's commands travel between engines: as NVMe I/O commands of namespace 1 of a
//! replica's own subsystem, which only nexuses connect to.
//!
//! | command | opcode | data | fields |
//! |---|---|---|---|
//! | Read, Write, Flush | of the standard | of the standard | Flush: its number in CDW14 and 15 |
//! | Zero | 98h | | SLBA; blocks in CDW14 and 15; FUA |
//! | Fence | 81h | the record | the answer is held |
//! | CopyRecord | 85h | the record | |
//! | Clean | 89h | first region and number, 4 bytes each | number of a flush in CDW14 and 15 |
//! | Compare | 82h | the comparison, to the nexus | SLBA, NLB; snapshot |
//! | ReadSnapshot | 86h | to the nexus | SLBA, NLB; snapshot |
//! | ReadAnswer | 8Ah | a part of the held answer, to the nexus | first byte in CDW10 and 11 |
//! | Lease, Release | 80h, 84h | | |
//! | Marks | 88h | | snapshot; the answer is held |
//! | Snapshot, DeleteSnapshot | 8Ch, 90h | | snapshot |
//! | Resize | 94h | | bytes in CDW10 and 11 |
//!
//! Blocks are of 512 bytes. A snapshot's identity is in bytes 8 to 23 of the command (CDW2, CDW3
//! and the metadata pointer, which nothing else uses here); CDW13 bit 0 says that there is one.
//! NVMe has no command with data both ways, and its completions have eight bytes: a long answer is
//! held at the replica, its length is the completion's DW0 and DW1, and ReadAnswer fetches it.
//!
//! Invariants:
//! 1. What [`encode`] makes, [`parse`] understands as the same command.
//! 2. [`parse`] takes any bytes: what is out of bounds is refused, nothing panics, and what is
//!    allocated is no more than what was sent.

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::Class;
use braid_nexus::record::{RECORD_MAX, Record, Uuid};
use braid_nexus::wire::{
    Answer, BLOCK, Command, Fenced, REGION, Refusal, TRANSFER_MAX, comparison_bytes,
};
use braid_nvme::Status;
use braid_nvme::command::{Command as Entry, Direction, io};
use braid_nvme::target::{TRANSFER_BYTES_MAX, Transfer, check_flags};

/// Bytes of a logical block of a replica's own subsystem.
pub(crate) const BLOCK_BYTES: u64 = 512;
/// The namespace that a replica is.
pub(crate) const NSID: u32 = 1;

const LEASE: u8 = 0x80;
const FENCE: u8 = 0x81;
const COMPARE: u8 = 0x82;
const RELEASE: u8 = 0x84;
const COPY_RECORD: u8 = 0x85;
const READ_SNAPSHOT: u8 = 0x86;
const MARKS: u8 = 0x88;
const CLEAN: u8 = 0x89;
const READ_ANSWER: u8 = 0x8a;
const SNAPSHOT: u8 = 0x8c;
const DELETE_SNAPSHOT: u8 = 0x90;
const RESIZE: u8 = 0x94;
const ZERO: u8 = 0x98;

/// CDW13: bytes 8 to 23 name a snapshot.
const OF_SNAPSHOT: u32 = 1;
/// CDW12: Force Unit Access.
const FUA: u32 = 1 << 30;

/// Ranges that one Clean carries: what the buffer holds that every link keeps.
pub(crate) const CLEAN_RANGES_MAX: usize = Class::Medium.bytes() as usize / 8;
/// Bytes of an answer that one ReadAnswer fetches at most.
pub(crate) const ANSWER_PIECE: u32 = TRANSFER_BYTES_MAX;
/// Bytes of a held answer that a nexus takes in any case: what a replica that is larger than its
/// volume may have to tell.
const ANSWER_MIN: u64 = 4 << 20;

/// Bytes of a held answer that a nexus takes of a replica of a volume of so many bytes: marks of
/// every second region as a list, and its snapshots, twice. What a peer says is bounded by that.
pub(crate) const fn answer_max(bytes: u64) -> u64 {
    let marks = bytes.div_ceil(REGION).div_ceil(2) * 8;
    ANSWER_MIN + 2 * marks
}

/// What goes with a command to a replica.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Nothing.
    None,
    /// So many bytes of the command's buffer, in the direction of the opcode.
    Buffer(u32),
    /// These bytes, to the replica.
    Bytes(Vec<u8>),
}

/// A command as it travels. The regions of a Clean are at most [`CLEAN_RANGES_MAX`].
pub(crate) fn encode(command: &Command) -> (Entry, Payload) {
    let mut payload = Payload::None;
    let entry = match command {
        Command::Fence(record) => {
            payload = Payload::Bytes(record.encode());
            Entry::new(FENCE, NSID)
        }
        Command::CopyRecord(record) => {
            payload = Payload::Bytes(record.encode());
            Entry::new(COPY_RECORD, NSID)
        }
        Command::Lease => Entry::new(LEASE, NSID),
        Command::Release => Entry::new(RELEASE, NSID),
        Command::Read { offset, len } => {
            payload = Payload::Buffer(*len);
            blocks(io::READ, *offset, *len, 0)
        }
        Command::ReadSnapshot { snapshot, offset, len } => {
            payload = Payload::Buffer(*len);
            of_snapshot(blocks(READ_SNAPSHOT, *offset, *len, 0), Some(snapshot))
        }
        Command::Write { offset, len, durable } => {
            payload = Payload::Buffer(*len);
            blocks(io::WRITE, *offset, *len, if *durable { FUA } else { 0 })
        }
        Command::Zero { offset, len, durable } => {
            let mut entry = Entry::new(ZERO, NSID);
            set_wide(&mut entry, 10, offset / BLOCK_BYTES);
            set_wide(&mut entry, 14, len / BLOCK_BYTES);
            entry.set_cdw(12, if *durable { FUA } else { 0 });
            entry
        }
        Command::Flush { number } => numbered(io::FLUSH, *number),
        Command::Compare { snapshot, offset, len } => {
            payload = Payload::Buffer(comparison_bytes(*len));
            of_snapshot(blocks(COMPARE, *offset, *len, 0), snapshot.as_deref())
        }
        Command::Marks { snapshot } => of_snapshot(Entry::new(MARKS, NSID), snapshot.as_deref()),
        Command::Clean { flush, regions } => {
            debug_assert!(regions.len() <= CLEAN_RANGES_MAX, "a Clean is cut before it is sent");
            let mut bytes = Vec::with_capacity(regions.len() * 8);
            put_ranges(&mut bytes, regions);
            payload = Payload::Bytes(bytes);
            numbered(CLEAN, *flush)
        }
        Command::Snapshot { uuid } => of_snapshot(Entry::new(SNAPSHOT, NSID), Some(uuid)),
        Command::DeleteSnapshot { uuid } => {
            of_snapshot(Entry::new(DELETE_SNAPSHOT, NSID), Some(uuid))
        }
        Command::Resize { bytes } => {
            let mut entry = Entry::new(RESIZE, NSID);
            set_wide(&mut entry, 10, *bytes);
            entry
        }
    };
    (entry, payload)
}

/// The command that fetches bytes of a held answer.
pub(crate) fn read_answer(offset: u64) -> Entry {
    let mut entry = Entry::new(READ_ANSWER, NSID);
    set_wide(&mut entry, 10, offset);
    entry
}

/// Whether this fetches bytes of a held answer, and from where.
pub(crate) fn asks_for_answer(entry: &Entry) -> Option<u64> {
    (entry.opcode == READ_ANSWER).then(|| wide(entry, 10))
}

/// What a command to a replica moves.
///
/// # Errors
/// The status to complete it with, without moving anything.
pub(crate) fn transfer(entry: &Entry) -> Result<Transfer, Status> {
    check_flags(entry)?;
    if entry.nsid.get() != NSID {
        return Err(Status::INVALID_NAMESPACE.dnr());
    }
    let sent = entry.sgl.length.get();
    let len = match entry.opcode {
        FENCE | COPY_RECORD if sent as usize > RECORD_MAX => {
            return Err(Status::INVALID_FIELD.dnr());
        }
        FENCE | COPY_RECORD | CLEAN | READ_ANSWER => sent,
        io::READ | io::WRITE | READ_SNAPSHOT => span(entry, TRANSFER_MAX, BLOCK_BYTES)?.1,
        COMPARE => comparison_bytes(span(entry, REGION as u32, BLOCK)?.1),
        LEASE | RELEASE | MARKS | SNAPSHOT | DELETE_SNAPSHOT | RESIZE | ZERO | io::FLUSH => {
            return Ok(Transfer::None);
        }
        _ => return Err(Status::INVALID_OPCODE.dnr()),
    };
    Transfer::new(entry, Direction::of(entry), len)
}

/// What a command to a replica asks for; `data` is what came with it. Never of ReadAnswer.
///
/// # Errors
/// The status to complete it with.
pub(crate) fn parse(entry: &Entry, data: &[u8]) -> Result<Command, Status> {
    let invalid = Status::INVALID_FIELD.dnr();
    let record = || Record::decode(data).map(Box::new).map_err(|_| invalid);
    let named = || snapshot(entry).ok_or(invalid);
    Ok(match entry.opcode {
        FENCE => Command::Fence(record()?),
        COPY_RECORD => Command::CopyRecord(record()?),
        LEASE => Command::Lease,
        RELEASE => Command::Release,
        io::READ => {
            let (offset, len) = span(entry, TRANSFER_MAX, BLOCK_BYTES)?;
            Command::Read { offset, len }
        }
        READ_SNAPSHOT => {
            let (offset, len) = span(entry, TRANSFER_MAX, BLOCK_BYTES)?;
            Command::ReadSnapshot { snapshot: named()?, offset, len }
        }
        io::WRITE => {
            let (offset, len) = span(entry, TRANSFER_MAX, BLOCK_BYTES)?;
            Command::Write { offset, len, durable: entry.force_unit_access() }
        }
        ZERO => {
            let (first, count) = (wide(entry, 10), wide(entry, 14));
            let (offset, len) = extent(first, count).filter(|(_, len)| *len > 0).ok_or(invalid)?;
            Command::Zero { offset, len, durable: entry.force_unit_access() }
        }
        io::FLUSH => Command::Flush { number: wide(entry, 14) },
        COMPARE => {
            let (offset, len) = span(entry, REGION as u32, BLOCK)?;
            Command::Compare { snapshot: snapshot(entry), offset, len }
        }
        MARKS => Command::Marks { snapshot: snapshot(entry) },
        CLEAN => {
            let regions = ranges(data).ok_or(invalid)?;
            Command::Clean { flush: wide(entry, 14), regions }
        }
        SNAPSHOT => Command::Snapshot { uuid: named()? },
        DELETE_SNAPSHOT => Command::DeleteSnapshot { uuid: named()? },
        RESIZE => Command::Resize { bytes: wide(entry, 10) },
        _ => return Err(Status::INVALID_OPCODE.dnr()),
    })
}

/// How an answer ends its command: status, DW0 and DW1, and what is held for ReadAnswer.
pub(crate) fn answer(result: &Result<Answer, Refusal>) -> (Status, u64, Option<Vec<u8>>) {
    let refusal = match result {
        Ok(Answer::Done) => return (Status::SUCCESS, 0, None),
        Ok(Answer::Fenced(fenced)) => return held(encode_fenced(fenced)),
        Ok(Answer::Marks(marks)) => {
            let mut bytes = Vec::with_capacity(marks.len() * 8);
            put_ranges(&mut bytes, &united(marks));
            return held(bytes);
        }
        Err(refusal) => refusal,
    };
    let (status, result) = match *refusal {
        Refusal::Gone => (Status::ABORTED_QUEUE_DELETED, 0),
        Refusal::Conflict { epoch } => (Status::RESERVATION_CONFLICT, epoch),
        Refusal::CopyNewer { epoch, version } => (Status::COPY_NEWER, halves(epoch, version)),
        Refusal::StoreDiffers => (Status::STORE_DIFFERS, 0),
        Refusal::NoSpace => (Status::CAPACITY_EXCEEDED, 0),
        Refusal::Media(offset) => (Status::UNRECOVERED_READ, offset),
        Refusal::Failed => (Status::WRITE_FAULT, 0),
        Refusal::Invalid => (Status::INVALID_FIELD, 0),
    };
    (status.dnr(), result, None)
}

fn held(bytes: Vec<u8>) -> (Status, u64, Option<Vec<u8>>) {
    (Status::SUCCESS, bytes.len() as u64, Some(bytes))
}

/// Both as far as they fit: they are only ever shown to people.
fn halves(low: u64, high: u64) -> u64 {
    let half = |value| u64::from(u32::try_from(value).unwrap_or(u32::MAX));
    half(low) | half(high) << 32
}

/// What a completion that is no success says. None: nothing of the mirror's, so that it is not
/// known whether the command took effect, and the association is of no use any more.
pub(crate) fn refusal(status: Status, result: u64) -> Option<Refusal> {
    let known = [
        (Status::RESERVATION_CONFLICT, Refusal::Conflict { epoch: result }),
        (
            Status::COPY_NEWER,
            Refusal::CopyNewer { epoch: result & 0xffff_ffff, version: result >> 32 },
        ),
        (Status::STORE_DIFFERS, Refusal::StoreDiffers),
        (Status::CAPACITY_EXCEEDED, Refusal::NoSpace),
        (Status::UNRECOVERED_READ, Refusal::Media(result)),
        (Status::WRITE_FAULT, Refusal::Failed),
        (Status::INVALID_FIELD, Refusal::Invalid),
    ];
    known.into_iter().find(|(known, _)| known.is(status)).map(|(_, refusal)| refusal)
}

/// The answer that was held, as it was fetched; none: the bytes are none.
pub(crate) fn fetched(command: &Command, bytes: &[u8]) -> Option<Answer> {
    match command {
        Command::Fence(_) => decode_fenced(bytes).map(|fenced| Answer::Fenced(Box::new(fenced))),
        Command::Marks { .. } => ranges(bytes).map(Answer::Marks),
        _ => None,
    }
}

/// Whether the answer to a command is held at the replica.
pub(crate) const fn is_held(command: &Command) -> bool {
    matches!(command, Command::Fence(_) | Command::Marks { .. })
}

/// Where a replica stands: instance, flush number, bytes, the copy's epoch and version with a byte
/// that says whether there is one, snapshots with their number, marks.
fn encode_fenced(fenced: &Fenced) -> Vec<u8> {
    let len = 48 + fenced.snapshots.len() * 16 + fenced.marks.len() * 8;
    let mut out = Vec::with_capacity(len);
    let (epoch, version) = fenced.copy.unwrap_or_default();
    for value in [fenced.instance, fenced.flush, fenced.bytes, epoch, version] {
        out.extend(value.to_le_bytes());
    }
    out.extend(u32::from(fenced.copy.is_some()).to_le_bytes());
    out.extend(u32::try_from(fenced.snapshots.len()).unwrap_or(u32::MAX).to_le_bytes());
    fenced.snapshots.iter().for_each(|uuid| out.extend(uuid));
    put_ranges(&mut out, &united(&fenced.marks));
    out
}

/// The same regions, ascending, none twice: what is told of many snapshots is no longer than what
/// is told of one.
fn united(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::with_capacity(sorted.len());
    for (first, count) in sorted {
        let end = first.saturating_add(count);
        match out.last_mut() {
            Some((from, len)) if first <= from.saturating_add(*len) => {
                *len = end.max(from.saturating_add(*len)) - *from;
            }
            _ => out.push((first, count)),
        }
    }
    out
}

fn decode_fenced(bytes: &[u8]) -> Option<Fenced> {
    let (head, rest) = bytes.split_first_chunk::<48>()?;
    let wide = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let copy = match half(40)? {
        0 => None,
        1 => Some((wide(24)?, wide(32)?)),
        _ => return None,
    };
    let snapshots = usize::try_from(half(44)?).ok()?.checked_mul(16)?;
    let (snapshots, marks) = rest.split_at_checked(snapshots)?;
    Some(Fenced {
        instance: wide(0)?,
        flush: wide(8)?,
        bytes: wide(16)?,
        copy,
        snapshots: snapshots.as_chunks::<16>().0.into(),
        marks: ranges(marks)?,
    })
}

fn put_ranges(out: &mut Vec<u8>, ranges: &[(u32, u32)]) {
    for (first, count) in ranges {
        out.extend(first.to_le_bytes());
        out.extend(count.to_le_bytes());
    }
}

/// Ranges that are not empty and do not go beyond the last region there can be.
fn ranges(bytes: &[u8]) -> Option<Box<[(u32, u32)]>> {
    let (chunks, []) = bytes.as_chunks::<8>() else { return None };
    let pairs = chunks.iter().map(|&[a, b, c, d, e, f, g, h]| {
        let (first, count) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        (count > 0 && first.checked_add(count).is_some()).then_some((first, count))
    });
    pairs.collect()
}

/// A command on `len` bytes from `offset`.
fn blocks(opcode: u8, offset: u64, len: u32, flags: u32) -> Entry {
    let mut entry = Entry::new(opcode, NSID);
    set_wide(&mut entry, 10, offset / BLOCK_BYTES);
    let blocks = len / BLOCK_BYTES as u32;
    entry.set_cdw(12, blocks.saturating_sub(1) & 0xffff | flags);
    entry
}

/// First byte and length of a command on blocks: at most `most` bytes, multiples of `unit`.
fn span(entry: &Entry, most: u32, unit: u64) -> Result<(u64, u32), Status> {
    let invalid = Status::INVALID_FIELD.dnr();
    let (offset, len) = extent(entry.slba(), u64::from(entry.block_count())).ok_or(invalid)?;
    let len = u32::try_from(len).ok().filter(|len| *len <= most).ok_or(invalid)?;
    if !offset.is_multiple_of(unit) || !u64::from(len).is_multiple_of(unit) {
        return Err(invalid);
    }
    Ok((offset, len))
}

/// Blocks as bytes; none if there can be no such bytes.
fn extent(first: u64, count: u64) -> Option<(u64, u64)> {
    let offset = first.checked_mul(BLOCK_BYTES)?;
    let len = count.checked_mul(BLOCK_BYTES)?;
    offset.checked_add(len)?;
    Some((offset, len))
}

fn numbered(opcode: u8, number: u64) -> Entry {
    let mut entry = Entry::new(opcode, NSID);
    set_wide(&mut entry, 14, number);
    entry
}

fn of_snapshot(mut entry: Entry, uuid: Option<&Uuid>) -> Entry {
    if let Some(uuid) = uuid {
        let [a, b, c, d, e, f, g, h, metadata @ ..] = *uuid;
        entry.cdw2 = [[a, b, c, d].into(), [e, f, g, h].into()];
        entry.metadata = metadata.into();
        entry.set_cdw(13, OF_SNAPSHOT);
    }
    entry
}

fn snapshot(entry: &Entry) -> Option<Box<Uuid>> {
    if entry.cdw(13) & OF_SNAPSHOT == 0 {
        return None;
    }
    let mut uuid = Uuid::default();
    uuid[..4].copy_from_slice(&entry.cdw2[0].to_bytes());
    uuid[4..8].copy_from_slice(&entry.cdw2[1].to_bytes());
    uuid[8..].copy_from_slice(&entry.metadata.to_bytes());
    Some(Box::new(uuid))
}

fn set_wide(entry: &mut Entry, cdw: usize, value: u64) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    entry.set_cdw(cdw, u32::from_le_bytes([a, b, c, d]));
    entry.set_cdw(cdw + 1, u32::from_le_bytes([e, f, g, h]));
}

fn wide(entry: &Entry, cdw: usize) -> u64 {
    u64::from(entry.cdw(cdw)) | u64::from(entry.cdw(cdw + 1)) << 32
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use braid_nvme::command::{PSDT_SGL, Sgl};

    use super::*;

    fn commands() -> Vec<Command> {
        let uuid = || Box::new(core::array::from_fn(|i| i as u8 + 1));
        let record = || Box::new(Record { epoch: 7, version: 9, ..Record::default() });
        vec![
            Command::Fence(record()),
            Command::CopyRecord(record()),
            Command::Lease,
            Command::Release,
            Command::Read { offset: 1 << 40, len: 512 },
            Command::Read { offset: 0, len: TRANSFER_MAX },
            Command::ReadSnapshot { snapshot: uuid(), offset: 4096, len: 8192 },
            Command::Write { offset: 512, len: 512, durable: false },
            Command::Write { offset: 512, len: TRANSFER_MAX, durable: true },
            Command::Zero { offset: 0, len: 16 << 20, durable: false },
            Command::Zero { offset: 1 << 30, len: 1 << 40, durable: true },
            Command::Flush { number: u64::MAX },
            Command::Compare { snapshot: None, offset: 3 << 20, len: REGION as u32 },
            Command::Compare { snapshot: Some(uuid()), offset: 4096, len: 4096 },
            Command::Marks { snapshot: None },
            Command::Marks { snapshot: Some(uuid()) },
            Command::Clean { flush: 1 << 33, regions: [(0, 1), (5, 70_000)].into() },
            Command::Clean { flush: 1, regions: [].into() },
            Command::Snapshot { uuid: uuid() },
            Command::DeleteSnapshot { uuid: uuid() },
            Command::Resize { bytes: 1 << 44 },
        ]
    }

    /// As the host side sends it.
    fn sent(command: &Command) -> (Entry, Vec<u8>) {
        let (mut entry, payload) = encode(command);
        let (len, bytes) = match payload {
            Payload::None => (0, Vec::new()),
            Payload::Buffer(len) => (len, Vec::new()),
            Payload::Bytes(bytes) => (u32::try_from(bytes.len()).unwrap(), bytes),
        };
        entry.sgl = Sgl::transport(len);
        (entry, bytes)
    }

    #[test]
    fn every_command_arrives_as_it_was_sent() {
        for command in commands() {
            let (entry, bytes) = sent(&command);
            assert_eq!(parse(&entry, &bytes), Ok(command.clone()), "{command:?}");
            let empty = matches!(&command, Command::Clean { regions, .. } if regions.is_empty());
            if !empty {
                let moved = transfer(&entry).map(Transfer::len);
                assert_eq!(moved, Ok(entry.sgl.length.get()), "{command:?}");
            }
        }
    }

    #[test]
    fn data_goes_the_way_that_the_opcode_says() {
        for command in commands() {
            let (entry, payload) = encode(&command);
            let to_nexus = matches!(
                command,
                Command::Read { .. } | Command::ReadSnapshot { .. } | Command::Compare { .. }
            );
            let direction = match payload {
                Payload::None => Direction::None,
                Payload::Buffer(_) if to_nexus => Direction::ToHost,
                Payload::Buffer(_) | Payload::Bytes(_) => Direction::FromHost,
            };
            assert_eq!(Direction::of(&entry), direction, "{command:?}");
        }
        assert_eq!(Direction::of(&read_answer(5)), Direction::ToHost);
        assert_eq!(asks_for_answer(&read_answer(1 << 35)), Some(1 << 35));
    }

    #[test]
    fn every_answer_arrives_as_it_was_given() {
        let fenced = Fenced {
            instance: u64::MAX,
            copy: Some((3, 8)),
            marks: [(0, 2), (1 << 20, 1)].into(),
            flush: 12,
            bytes: 1 << 40,
            snapshots: [[1; 16], [2; 16]].into(),
        };
        let fence = Command::Fence(Box::default());
        for fenced in [Fenced::default(), fenced] {
            let answered = Answer::Fenced(Box::new(fenced));
            let (status, len, bytes) = answer(&Ok(answered.clone()));
            let bytes = bytes.unwrap();
            assert_eq!((status, len), (Status::SUCCESS, bytes.len() as u64));
            assert_eq!(fetched(&fence, &bytes), Some(answered));
        }
        let marks = Answer::Marks([(1, 1), (9, 3)].into());
        let (_, _, bytes) = answer(&Ok(marks.clone()));
        assert_eq!(fetched(&Command::Marks { snapshot: None }, &bytes.unwrap()), Some(marks));
        for given in [
            Refusal::Conflict { epoch: 1 << 40 },
            Refusal::CopyNewer { epoch: 3, version: 5 },
            Refusal::StoreDiffers,
            Refusal::NoSpace,
            Refusal::Media(1 << 50),
            Refusal::Failed,
            Refusal::Invalid,
        ] {
            let (status, result, bytes) = answer(&Err(given));
            assert!(bytes.is_none() && status.do_not_retry());
            assert_eq!(refusal(status, result), Some(given));
        }
        let (status, result, _) = answer(&Err(Refusal::Gone));
        assert_eq!(refusal(status, result), None, "whether it took effect is not known");
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let invalid = Err(Status::INVALID_FIELD.dnr());
        let read = Command::Read { offset: 0, len: 512 };
        let with = |command: &Command, change: &dyn Fn(&mut Entry)| {
            let (mut entry, bytes) = sent(command);
            change(&mut entry);
            parse(&entry, &bytes).map(|_| ())
        };
        assert_eq!(with(&read, &|e| e.set_cdw(12, 256)), invalid, "257 blocks are too many");
        assert_eq!(with(&read, &|e| set_wide(e, 10, u64::MAX)), invalid);
        let compare = Command::Compare { snapshot: None, offset: 4096, len: 4096 };
        assert_eq!(
            with(&compare, &|e| set_wide(e, 10, 1)),
            invalid,
            "no block of 4096 begins there"
        );
        assert_eq!(with(&compare, &|e| e.set_cdw(12, 2048)), invalid, "more than a region");
        let zero = Command::Zero { offset: 0, len: 4096, durable: false };
        assert_eq!(with(&zero, &|e| set_wide(e, 14, 0)), invalid);
        assert_eq!(with(&zero, &|e| set_wide(e, 14, u64::MAX)), invalid);
        assert_eq!(with(&zero, &|e| set_wide(e, 10, u64::MAX / 512)), invalid);
        let named = Command::Snapshot { uuid: Box::default() };
        assert_eq!(with(&named, &|e| e.set_cdw(13, 0)), invalid, "no snapshot is named");
        assert_eq!(with(&read, &|e| e.opcode = 0x05), Err(Status::INVALID_OPCODE.dnr()));
        let mut entry = encode(&read).0;
        entry.nsid = 2.into();
        assert_eq!(transfer(&entry), Err(Status::INVALID_NAMESPACE.dnr()));
        let mut fence = encode(&Command::Fence(Box::default())).0;
        fence.sgl = Sgl::transport(RECORD_MAX as u32 + 1);
        assert_eq!(transfer(&fence).map(|_| ()), invalid);
    }

    #[test]
    fn any_bytes_are_understood_or_refused() {
        let mut dice = 88_172_645_463_325_252_u64;
        let mut next = move || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice
        };
        for _ in 0..200_000 {
            let mut entry = Entry::new(next().to_le_bytes()[0], NSID);
            entry.flags = PSDT_SGL;
            for cdw in 10..16 {
                entry.set_cdw(cdw, next() as u32 >> (next() % 32));
            }
            entry.sgl = Sgl::transport(next() as u32 >> (next() % 32));
            let bytes: Vec<u8> = (0..next() % 64).map(|_| next() as u8).collect();
            let _ = transfer(&entry);
            let _ = parse(&entry, &bytes);
            let _ = fetched(&Command::Fence(Box::default()), &bytes);
            let _ = fetched(&Command::Marks { snapshot: None }, &bytes);
        }
    }
}
