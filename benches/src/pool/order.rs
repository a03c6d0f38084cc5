//! What a pool under test is told, a line each, and what it answers.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use crate::load::Way;
use crate::wire::bad;

/// One line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Make a replica.
    Replica { id: u8, bytes: u64 },
    /// Take a snapshot.
    Snapshot { of: u8, id: u8 },
    /// Make a clone of a snapshot.
    Clone { of: u8, id: u8 },
    /// Make a replica or clone go away, and wait until its space is back.
    Destroy { id: u8 },
    /// Keep a load going for a time.
    Run(Run),
    /// Say what was counted.
    Count,
    /// Stop in order.
    Stop,
    /// End as it is, without an answer: nobody gives orders any more.
    Leave,
}

/// A load on a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The replica.
    pub(crate) id: u8,
    /// Reads or writes.
    pub(crate) way: Way,
    /// In which order.
    pub(crate) pattern: Pattern,
    /// Bytes of each.
    pub(crate) len: u32,
    /// In flight.
    pub(crate) depth: u16,
    /// Writes between two flushes; 0: none.
    pub(crate) flush_every: u32,
    /// First byte of the range, and how many parts of `len` bytes it has.
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Bytes from the beginning of one part to that of the next.
    pub(crate) stride: u64,
    /// For how long; zero: until each part had its turn.
    pub(crate) time: Duration,
    /// End as soon as so many journal blocks would be replayed; 0: never.
    pub(crate) journal: u32,
}

/// In which order parts of a range have their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Any of them, again and again.
    Random,
    /// One after the other, again and again.
    Sequential,
    /// Each once, neighbours far apart.
    Once,
}

impl Run {
    /// A load of 4 KiB over a range from its beginning.
    #[must_use]
    pub(crate) const fn new(id: u8, way: Way, pattern: Pattern, depth: u16, bytes: u64) -> Self {
        Self {
            id,
            way,
            pattern,
            len: 4096,
            depth,
            flush_every: 0,
            first: 0,
            count: bytes / 4096,
            stride: 4096,
            time: Duration::ZERO,
            journal: 0,
        }
    }

    /// Writes of 128 KiB over a range, each once.
    #[must_use]
    pub(crate) const fn fill(id: u8, first: u64, bytes: u64) -> Self {
        let len = 128 << 10;
        let run = Self::new(id, Way::Write, Pattern::Sequential, 8, 0);
        Self { len, first, count: bytes / len as u64, stride: len as u64, ..run }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica { id, bytes } => write!(f, "replica {id} {bytes}"),
            Self::Snapshot { of, id } => write!(f, "snapshot {of} {id}"),
            Self::Clone { of, id } => write!(f, "clone {of} {id}"),
            Self::Destroy { id } => write!(f, "destroy {id}"),
            Self::Count => f.write_str("count"),
            Self::Stop => f.write_str("stop"),
            Self::Leave => f.write_str("leave"),
            Self::Run(run) => {
                let way = u8::from(run.way == Way::Write);
                let pattern = run.pattern as u8;
                let Run { id, len, depth, flush_every, first, count, stride, journal, .. } = run;
                let millis = run.time.as_millis();
                write!(f, "run {id} {way} {pattern} {len} {depth} {flush_every} {first} {count} ")?;
                write!(f, "{stride} {millis} {journal}")
            }
        }
    }
}

/// The numbers of a line after its first word.
struct Numbers<'a>(std::str::SplitWhitespace<'a>);

impl Numbers<'_> {
    fn next<T: TryFrom<u64>>(&mut self) -> io::Result<T> {
        let number = self.0.next().and_then(|word| word.parse::<u64>().ok());
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| bad("a number is missing".to_owned()))
    }
}

impl FromStr for Order {
    type Err = io::Error;

    fn from_str(line: &str) -> io::Result<Self> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let mut n = Numbers(words);
        Ok(match verb {
            "replica" => Self::Replica { id: n.next()?, bytes: n.next()? },
            "snapshot" => Self::Snapshot { of: n.next()?, id: n.next()? },
            "clone" => Self::Clone { of: n.next()?, id: n.next()? },
            "destroy" => Self::Destroy { id: n.next()? },
            "count" => Self::Count,
            "stop" => Self::Stop,
            "leave" => Self::Leave,
            "run" => Self::Run(Run {
                id: n.next()?,
                way: if n.next::<u8>()? == 1 { Way::Write } else { Way::Read },
                pattern: match n.next::<u8>()? {
                    0 => Pattern::Random,
                    1 => Pattern::Sequential,
                    _ => Pattern::Once,
                },
                len: n.next()?,
                depth: n.next()?,
                flush_every: n.next()?,
                first: n.next()?,
                count: n.next()?,
                stride: n.next()?,
                time: Duration::from_millis(n.next()?),
                journal: n.next()?,
            }),
            _ => return Err(bad(format!("'{line}' is no order"))),
        })
    }
}

/// Answers that are numbers: how they are said, and read.
pub(crate) trait Said: Sized {
    /// From a line of numbers.
    fn parse(line: &str) -> io::Result<Self>;
}

/// What a pool says when it is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// How long that took.
    pub(crate) took: Duration,
    /// It had been stopped in order.
    pub(crate) clean: bool,
    /// Journal blocks that were replayed.
    pub(crate) replayed: u64,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nanos, clean) = (self.took.as_nanos(), u8::from(self.clean));
        write!(f, "{nanos} {clean} {}", self.replayed)
    }
}

impl Said for Ready {
    fn parse(line: &str) -> io::Result<Self> {
        let mut n = Numbers(line.split_whitespace());
        let took = Duration::from_nanos(n.next()?);
        Ok(Self { took, clean: n.next::<u8>()? == 1, replayed: n.next()? })
    }
}

/// What a pool and its reactor counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Write requests done.
    pub(crate) writes: u64,
    /// Read requests done.
    pub(crate) reads: u64,
    /// Writes sent to the device.
    pub(crate) device_writes: u64,
    /// Their bytes.
    pub(crate) written_bytes: u64,
    /// Reads sent to the device.
    pub(crate) device_reads: u64,
    /// Their bytes.
    pub(crate) read_bytes: u64,
    /// Flushes sent to the device.
    pub(crate) device_flushes: u64,
    /// Regions marked.
    pub(crate) regions_opened: u64,
    /// Checkpoints.
    pub(crate) checkpoints: u64,
    /// Journal blocks that a crash would replay.
    pub(crate) journal_used: u64,
    /// Operations that the reactor handed to the kernel.
    pub(crate) sqes: u64,
    /// Calls that entered the ring.
    pub(crate) enters: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, reads, device_writes, written_bytes, device_reads, .. } = self;
        let Self { device_flushes, regions_opened, checkpoints, journal_used, .. } = self;
        let Self { read_bytes, sqes, enters, .. } = self;
        write!(f, "{writes} {reads} {device_writes} {written_bytes} {device_reads} {read_bytes} ")?;
        write!(f, "{device_flushes} {regions_opened} {checkpoints} {journal_used} {sqes} {enters}")
    }
}

impl Said for Counts {
    fn parse(line: &str) -> io::Result<Self> {
        let mut n = Numbers(line.split_whitespace());
        Ok(Self {
            writes: n.next()?,
            reads: n.next()?,
            device_writes: n.next()?,
            written_bytes: n.next()?,
            device_reads: n.next()?,
            read_bytes: n.next()?,
            device_flushes: n.next()?,
            regions_opened: n.next()?,
            checkpoints: n.next()?,
            journal_used: n.next()?,
            sqes: n.next()?,
            enters: n.next()?,
        })
    }
}

/// What came of a [`Run`]: requests, and time.
impl Said for (u64, Duration) {
    fn parse(line: &str) -> io::Result<Self> {
        let mut n = Numbers(line.split_whitespace());
        Ok((n.next()?, Duration::from_nanos(n.next()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_said() {
        let run = Run { time: Duration::from_millis(250), ..Run::fill(3, 4096, 1 << 20) };
        let said = Order::Run(run).to_string();
        let Ok(Order::Run(read)) = said.parse() else { panic!("{said}") };
        assert_eq!(read, run);
        assert!("run 1 2".parse::<Order>().is_err());
    }
}
