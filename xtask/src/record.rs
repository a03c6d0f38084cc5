//! Numbered records on a block device: written by several writers that note what the device
//! promised to keep, and read back to see that it kept it.
//!
//! 1. A record is noted only after the device acknowledged it and what makes it durable.
//! 2. Most slots are written once, so that nothing written later hides a loss; the first few are
//!    written over and over, so that a late old write shows too.
//!    What a slot holds may be newer than what was noted, never older.
//! 3. A slot has one writer, which waits for one batch before it begins the next one.
//! 4. Where the engine may lose what was not flushed, a flushed batch is noted only when the next
//!    one went through without waiting for a reconnection. Linux reports a flush as done when the
//!    connection ends while it is on its way: failing over takes the bios of a request and ends it
//!    with success, and a flush has none.
//! 5. Where only the engine's process dies, what was acknowledged stays, flushed or not, and what
//!    was cleared stays so. A slot that was cleared is not written again.

use crate::fault::{Explain, Fault, Outcome};
use crate::process;
use rustix::fs::FallocateFlags;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The length of a record in bytes: a block of any device here.
const RECORD: usize = 4096;

/// The records of one batch, which one flush makes durable.
const BATCH: u64 = 6;

/// The slots at the begin of each writer's part that are written again and again.
const REWRITTEN: u64 = 4;

/// Writers at work at the same time.
const WRITERS: u64 = 4;

/// The most records that one read takes, when they are checked.
const SPAN: usize = 64;

/// What the journal says of a slot that was cleared; no record has this number.
const CLEARED: u64 = 0;

/// The part of a batch that is cleared again, where that is done.
const CLEARED_OF_BATCH: Range<u64> = 1..4;

/// A range of slots that may go as a whole: what a thin disk takes and gives back at once.
const CLUSTER: u64 = 64;

/// A batch that saw the engine go and come back took longer than this: hosts wait a second
/// before they reconnect.
const RECONNECT: Duration = Duration::from_millis(700);

/// `O_DIRECT` and `O_DSYNC` of Linux on x86-64.
const DIRECT: i32 = 0o40000;
const DATA_SYNC: i32 = 0o10000;

/// What to do with the records.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Work {
    /// Writes records for a time, or until there is JOURNAL.stop; notes those that must stay
    Write {
        /// The block device
        #[arg(long)]
        device: PathBuf,
        /// How long to write
        #[arg(long)]
        seconds: u64,
        /// Where to note what was promised
        #[arg(long)]
        journal: PathBuf,
        /// The device loses what is not flushed when its engine dies
        #[arg(long)]
        volatile: bool,
        /// Some never flush, and all clear much of what they wrote
        #[arg(long, conflicts_with = "volatile")]
        clear: bool,
    },
    /// Reads every noted record
    Check {
        /// The block device
        #[arg(long)]
        device: PathBuf,
        /// What was promised
        #[arg(long)]
        journal: PathBuf,
    },
}

/// Runs the subcommand.
pub(crate) fn main(work: &Work) -> Outcome<()> {
    match work {
        Work::Write { device, seconds, journal, volatile, clear } => {
            let manners = match (*volatile, *clear) {
                (true, _) => Manners::Volatile,
                (_, true) => Manners::Clearing,
                _ => Manners::Plain,
            };
            write(device, Duration::from_secs(*seconds), journal, manners)
        }
        Work::Check { device, journal } => check(device, journal),
    }
}

/// How all writers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// With flushes, or with every write durable by itself.
    Plain,
    /// The same, for a device that loses what was not flushed.
    Volatile,
    /// Half of them without either, and all clear what they wrote.
    Clearing,
}

/// After what a writer notes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// A flush.
    Flush,
    /// The answers to writes that are durable by themselves.
    Sync,
    /// The answers.
    Answer,
}

/// How a writer clears slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clear {
    /// The device forgets them.
    Unmap,
    /// They are written with zeroes, and the device may forget them.
    Punch,
    /// They are written with zeroes.
    Zero,
}

impl Manners {
    /// What the writer of this number does.
    const fn of(self, writer: u64) -> (Promise, Option<Clear>) {
        match (self, writer % WRITERS) {
            (Manners::Clearing, 0) => (Promise::Flush, Some(Clear::Punch)),
            (Manners::Clearing, 1) => (Promise::Sync, Some(Clear::Zero)),
            (Manners::Clearing, 2) => (Promise::Answer, Some(Clear::Unmap)),
            (Manners::Clearing, _) => (Promise::Answer, Some(Clear::Punch)),
            (_, 0 | 2) => (Promise::Flush, None),
            (_, _) => (Promise::Sync, None),
        }
    }
}

/// One writer: its part of the device and how it makes a batch durable.
struct Writer<'a> {
    path: &'a Path,
    device: File,
    promise: Promise,
    clear: Option<Clear>,
    first: u64,
    slots: u64,
    volatile: bool,
    journal: &'a Mutex<File>,
    stop: &'a Path,
}

fn write(path: &Path, time: Duration, journal: &Path, manners: Manners) -> Outcome<()> {
    let size = size_of(path)? / RECORD as u64;
    let part = size / WRITERS;
    let noted = File::create(journal).explain(|| format!("cannot write {}", journal.display()))?;
    let noted = Mutex::new(noted);
    let stop = &journal.with_extension("stop");
    let end = Instant::now() + time;
    let results: Vec<Outcome<(u64, Duration)>> = std::thread::scope(|scope| {
        let start = |number: u64| {
            let noted = &noted;
            scope.spawn(move || {
                let (promise, clear) = manners.of(number);
                let sync = if promise == Promise::Sync { DATA_SYNC } else { 0 };
                let device = open(path, DIRECT | sync)?;
                let (first, slots) = (number * part, part);
                let volatile = manners == Manners::Volatile;
                let journal = noted;
                let writer =
                    Writer { path, device, promise, clear, first, slots, volatile, journal, stop };
                writer.run(end)
            })
        };
        let threads: Vec<_> = (0..WRITERS).map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(result) => result,
            Err(_) => Err(Fault::new("a writer panicked")),
        };
        threads.into_iter().map(join).collect()
    });
    let (mut count, mut stall) = (0, Duration::ZERO);
    for result in results {
        let (written, longest) = result?;
        count += written;
        stall = stall.max(longest);
    }
    println!("{count} records acknowledged, longest wait {:.1} s", stall.as_secs_f64());
    Ok(())
}

impl Writer<'_> {
    /// Writes batch after batch; returns the count of records and the longest time of a batch.
    fn run(self, end: Instant) -> Outcome<(u64, Duration)> {
        let mut buffer = vec![0; 2 * RECORD];
        let mut longest = Duration::ZERO;
        let mut doubted = Vec::new();
        let (mut sequence, mut once) = (0, REWRITTEN);
        while Instant::now() < end && !self.stop.exists() && once + BATCH < self.slots {
            let began = Instant::now();
            let batch = self.write_batch(&mut sequence, once, &mut buffer)?;
            let took = began.elapsed();
            longest = longest.max(took);
            if !(self.volatile && self.promise == Promise::Flush) {
                self.note(&batch)?;
                self.clear_batch(once)?;
            } else if took < RECONNECT {
                self.note(&std::mem::replace(&mut doubted, batch))?;
            } else {
                doubted.clear();
            }
            once += BATCH;
        }
        self.note(&doubted)?;
        Ok((sequence, longest))
    }

    /// Writes one batch and makes it durable; returns its slots with their numbers.
    fn write_batch(
        &self,
        sequence: &mut u64,
        once: u64,
        buffer: &mut [u8],
    ) -> Outcome<Vec<(u64, u64)>> {
        let mut batch = Vec::new();
        for step in 0..=BATCH {
            *sequence += 1;
            let slot = if step == BATCH { *sequence % REWRITTEN } else { once + step };
            self.write(self.first + slot, *sequence, buffer)?;
            batch.push((self.first + slot, *sequence));
        }
        if self.promise == Promise::Flush {
            self.device.sync_data().explain(|| "cannot flush".to_owned())?;
        }
        Ok(batch)
    }

    /// Clears a part of a batch that was noted, and of what fills a cluster every other one.
    fn clear_batch(&self, once: u64) -> Outcome<()> {
        let Some(clear) = self.clear else {
            return Ok(());
        };
        let begin = self.first + once;
        let Range { start, end } = CLEARED_OF_BATCH;
        self.clear(clear, begin + start..begin + end)?;
        let cluster = begin / CLUSTER;
        let is_whole = cluster * CLUSTER >= self.first + REWRITTEN;
        if is_whole && !cluster.is_multiple_of(2) && (begin + BATCH) / CLUSTER > cluster {
            self.clear(clear, cluster * CLUSTER..(cluster + 1) * CLUSTER)?;
        }
        Ok(())
    }

    fn clear(&self, how: Clear, slots: Range<u64>) -> Outcome<()> {
        let bytes = RECORD as u64;
        let (offset, length) = (slots.start * bytes, (slots.end - slots.start) * bytes);
        let allocate = |mode: FallocateFlags| {
            rustix::fs::fallocate(&self.device, mode | FallocateFlags::KEEP_SIZE, offset, length)
                .explain(|| format!("cannot clear slots {slots:?}"))
        };
        match how {
            Clear::Punch => allocate(FallocateFlags::PUNCH_HOLE)?,
            Clear::Zero => allocate(FallocateFlags::ZERO_RANGE)?,
            Clear::Unmap => {
                let mut command = Command::new("blkdiscard");
                // Without force it wants the device for itself.
                command.args(["--force", "--offset", &offset.to_string()]);
                process::run(command.args(["--length", &length.to_string()]).arg(self.path))?;
            }
        }
        let cleared: Vec<_> = slots.map(|slot| (slot, CLEARED)).collect();
        self.note(&cleared)
    }

    fn write(&self, slot: u64, sequence: u64, buffer: &mut [u8]) -> Outcome<()> {
        let place = aligned(buffer, RECORD);
        fill(place, slot, sequence);
        let written = self.device.write_all_at(place, slot * RECORD as u64);
        written.explain(|| format!("cannot write slot {slot}"))
    }

    fn note(&self, batch: &[(u64, u64)]) -> Outcome<()> {
        let text: String =
            batch.iter().map(|(slot, number)| format!("{slot} {number}\n")).collect();
        let mut journal = self.journal.lock().map_err(|_| Fault::new("a writer panicked"))?;
        journal.write_all(text.as_bytes()).explain(|| "cannot write the journal".to_owned())
    }
}

fn check(device: &Path, journal: &Path) -> Outcome<()> {
    let text = std::fs::read_to_string(journal)
        .explain(|| format!("cannot read {}", journal.display()))?;
    let promised = parse(&text)?;
    let lost = find_lost(&promised, &open(device, DIRECT)?)?;
    match lost.as_slice() {
        [] if promised.is_empty() => Err(Fault::new("no record was ever acknowledged")),
        [] => {
            println!("{} slots hold what was promised", promised.len());
            Ok(())
        }
        [first, ..] => {
            let sum = format!("{} of {} records lost; {first}", lost.len(), promised.len());
            Err(Fault::new(sum))
        }
    }
}

/// Reads every promised slot, neighbours together, and describes those that hold something else.
fn find_lost(promised: &BTreeMap<u64, u64>, device: &File) -> Outcome<Vec<String>> {
    let mut buffer = vec![0; (SPAN + 1) * RECORD];
    let mut expected = vec![0; RECORD];
    let mut lost = Vec::new();
    let mut next = 0;
    while let Some((&first, _)) = promised.range(next..).next() {
        next = first + SPAN as u64;
        let span = promised.range(first..next);
        let last = span.clone().next_back().map_or(first, |(&slot, _)| slot);
        let length = index(last - first + 1)?;
        let place = aligned(&mut buffer, length);
        device
            .read_exact_at(place, first * RECORD as u64)
            .explain(|| format!("cannot read slots {first} to {last}"))?;
        for (&slot, &sequence) in span {
            let at = index(slot - first)?;
            let found = &place[at..at + RECORD];
            let number = word(found, 8);
            fill(&mut expected, slot, number);
            let lost_here = match sequence {
                CLEARED => found.iter().any(|byte| *byte != 0),
                _ => number < sequence || found != &expected[..],
            };
            if lost_here {
                lost.push(describe(slot, sequence, found));
            }
        }
    }
    Ok(lost)
}

/// The length in bytes of so many records.
fn index(records: u64) -> Outcome<usize> {
    usize::try_from(records).map(|count| count * RECORD).explain(|| "a wrong slot".to_owned())
}

/// The last promised number of every slot.
fn parse(journal: &str) -> Outcome<BTreeMap<u64, u64>> {
    let mut promised = BTreeMap::new();
    for line in journal.lines() {
        let wrong = || Fault::new(format!("the journal has a wrong line: {line}"));
        let (slot, sequence) = line.split_once(' ').ok_or_else(wrong)?;
        let slot = slot.parse().map_err(|_| wrong())?;
        promised.insert(slot, sequence.parse().map_err(|_| wrong())?);
    }
    Ok(promised)
}

/// Says what a slot holds instead.
fn describe(slot: u64, sequence: u64, found: &[u8]) -> String {
    let (place, number) = (word(found, 0), word(found, 8));
    match sequence {
        CLEARED => format!("slot {slot} was cleared, holds {number} of slot {place}"),
        _ => format!("slot {slot} should hold {sequence} or later, holds {number} of slot {place}"),
    }
}

/// The number at a place of a record.
fn word(record: &[u8], at: usize) -> u64 {
    let bytes = record.get(at..at + 8).and_then(|part| part.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

/// A record says everywhere in it where it belongs and which one it is.
fn fill(record: &mut [u8], slot: u64, sequence: u64) {
    for (place, word) in record.chunks_exact_mut(16).enumerate() {
        word[..8].copy_from_slice(&slot.to_le_bytes());
        word[8..].copy_from_slice(&(sequence + ((place as u64) << 40)).to_le_bytes());
    }
}

/// So many bytes of a buffer, from where direct I/O may begin; it is longer by a record.
fn aligned(buffer: &mut [u8], length: usize) -> &mut [u8] {
    let skip = buffer.as_ptr().align_offset(RECORD);
    &mut buffer[skip..skip + length]
}

fn open(device: &Path, flags: i32) -> Outcome<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags);
    options.open(device).explain(|| format!("cannot open {}", device.display()))
}

fn size_of(device: &Path) -> Outcome<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = open(device, DIRECT)?;
    file.seek(SeekFrom::End(0)).explain(|| format!("cannot size {}", device.display()))
}

#[cfg(test)]
mod tests {
    use super::{Manners, RECORD, check, fill, parse, write};
    use std::time::Duration;

    #[test]
    fn a_record_is_unlike_any_other() {
        let mut all = Vec::new();
        for (slot, sequence) in [(0, 1), (1, 1), (0, 2)] {
            let mut record = vec![0; RECORD];
            fill(&mut record, slot, sequence);
            assert!(!all.contains(&record));
            all.push(record);
        }
    }

    #[test]
    fn the_last_line_of_a_slot_counts() {
        let promised = parse("7 1\n8 2\n7 9\n").expect("three right lines");
        assert_eq!(promised.into_iter().collect::<Vec<_>>(), [(7, 9), (8, 2)]);
    }

    #[test]
    fn a_lost_record_is_found() {
        let folder = crate::workspace::folder("test").expect("a folder").join("records");
        std::fs::create_dir_all(&folder).expect("a folder");
        let (device, journal) = (folder.join("device"), folder.join("journal"));
        std::fs::File::create(&device).and_then(|file| file.set_len(1 << 20)).expect("a file");
        let outcome = write(&device, Duration::from_millis(200), &journal, Manners::Plain)
            .and_then(|()| check(&device, &journal));
        assert!(outcome.is_ok(), "{outcome:?}");
        std::fs::write(&device, vec![0; 1 << 20]).expect("an empty device");
        let outcome = check(&device, &journal).expect_err("all records are gone");
        assert!(outcome.to_string().contains("records lost"), "{outcome}");
        std::fs::remove_dir_all(&folder).expect("our own folder");
    }

    #[test]
    fn what_was_cleared_stays_so() {
        let folder = crate::workspace::folder("test").expect("a folder").join("cleared");
        std::fs::create_dir_all(&folder).expect("a folder");
        let (device, journal) = (folder.join("device"), folder.join("journal"));
        let mut content = vec![0; 4 * RECORD];
        fill(&mut content[..RECORD], 0, 5);
        std::fs::write(&device, &content).expect("a device");
        std::fs::write(&journal, "1 4\n0 5\n1 0\n").expect("a journal");
        let outcome = check(&device, &journal);
        assert!(outcome.is_ok(), "{outcome:?}");
        fill(&mut content[RECORD..2 * RECORD], 1, 4);
        std::fs::write(&device, &content).expect("a device");
        let outcome = check(&device, &journal).expect_err("a cleared record came back");
        assert!(outcome.to_string().contains("slot 1 was cleared, holds 4"), "{outcome}");
        std::fs::remove_dir_all(&folder).expect("our own folder");
    }
}
