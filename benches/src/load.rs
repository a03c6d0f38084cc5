//! The load generator: 4 KiB reads or writes at a fixed depth on one connection, as many in one
//! send as answers came by one receive. It looks for answers without ever sleeping, or, where what
//! serves needs all CPUs, sleeps until there are some.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use braid_nvme::command::io as opcodes;
use braid_nvme::pdu::{FLAG_SUCCESS, PduType};
use hdrhistogram::Histogram;
use zerocopy::IntoBytes;

use crate::wire::{ANSWER, CAPSULE, bad, block_command, plain_command};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
/// An answer takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// 4 KiB reads.
    Read,
    /// 4 KiB writes, their data in the capsule.
    Write,
}

impl Way {
    /// Its name in tables.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// One connection under load.
pub(crate) struct Load {
    stream: TcpStream,
    way: Way,
    nsid: u32,
    depth: usize,
    blocks: u64,
    /// A capsule for each command that is sent at once; only ids and addresses change.
    out: Vec<u8>,
    stride: usize,
    into: Vec<u8>,
    /// Bytes of an answer that is not whole yet.
    kept: usize,
    free: Vec<u16>,
    begun: Vec<Instant>,
    next: u64,
    random: bool,
    /// Writes between two flushes, each of which is one more command in flight; 0: none.
    flush_every: u32,
    /// Writes since the last flush.
    unflushed: u32,
    /// Which commands are flushes.
    flushes: Vec<bool>,
    sleeps: bool,
    /// Receive no more than this at once, so that others have their turn soon.
    piece: usize,
    /// Answers since the last look.
    pub(crate) done: u64,
    /// Latencies in nanoseconds, where they are wanted.
    pub(crate) latency: Option<Histogram<u64>>,
}

impl Load {
    /// A load on this queue, over so many blocks of a namespace.
    pub(crate) fn new(stream: TcpStream, way: Way, nsid: u32, depth: u16, blocks: u64) -> Self {
        let opcode = if way == Way::Read { opcodes::READ } else { opcodes::WRITE };
        let data = if way == Way::Read { 0 } else { BLOCK };
        let answer = if way == Way::Read { ANSWER + BLOCK } else { ANSWER };
        let mut out = Vec::with_capacity(usize::from(depth) * (CAPSULE + data));
        for cid in 0..depth {
            out.extend(block_command(opcode, nsid, cid, way == Way::Write).as_bytes());
            out.extend(
                (0..data).map(|i| u8::try_from((i * 7 + usize::from(cid)) % 251).unwrap_or(0)),
            );
        }
        let depth = usize::from(depth);
        Self {
            stream,
            way,
            nsid,
            depth,
            blocks,
            out,
            stride: CAPSULE + data,
            into: vec![0; depth * answer],
            kept: 0,
            free: (0..u16::try_from(depth).unwrap_or(u16::MAX)).rev().collect(),
            begun: vec![Instant::now(); depth],
            next: 0x9e37_79b9_7f4a_7c15,
            random: true,
            flush_every: 0,
            unflushed: 0,
            flushes: vec![false; depth],
            sleeps: false,
            piece: usize::MAX,
            done: 0,
            latency: None,
        }
    }

    /// Blocks one after the other from the first.
    pub(crate) fn sequential(mut self) -> Self {
        (self.random, self.next) = (false, 0);
        self
    }

    /// A flush after each so many writes.
    pub(crate) fn flushing(mut self, every: u32) -> Self {
        self.flush_every = every;
        self
    }

    /// Sleeps while there is no answer.
    pub(crate) fn sleeping(mut self) -> Self {
        self.sleeps = true;
        self
    }

    /// Takes at most so many answers at once.
    pub(crate) fn gently(mut self, answers: usize) -> Self {
        self.piece = answers * self.answer();
        self
    }

    /// Measures how long each takes, from now on.
    pub(crate) fn watch(&mut self) {
        self.latency = Histogram::new_with_bounds(100, 20_000_000_000, 3).ok();
    }

    /// Commands in flight.
    #[must_use]
    pub(crate) fn outstanding(&self) -> usize {
        self.depth - self.free.len()
    }

    /// Sends as many commands as the depth allows, in one go.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut count = 0;
        while let Some(cid) = self.free.pop() {
            self.begun[usize::from(cid)] = now;
            if self.flush_is_due(cid) {
                send_all(&mut self.stream, &self.out[..count * self.stride])?;
                let flush = plain_command(opcodes::FLUSH, self.nsid, cid);
                send_all(&mut self.stream, flush.as_bytes())?;
                count = 0;
                continue;
            }
            let block = self.block();
            let capsule = &mut self.out[count * self.stride..][..CAPSULE];
            capsule[10..12].copy_from_slice(&cid.to_le_bytes());
            capsule[48..56].copy_from_slice(&block.to_le_bytes());
            count += 1;
        }
        send_all(&mut self.stream, &self.out[..count * self.stride])
    }

    fn flush_is_due(&mut self, cid: u16) -> bool {
        let due = self.flush_every > 0 && self.unflushed >= self.flush_every;
        self.unflushed = if due { 0 } else { self.unflushed + 1 };
        self.flushes[usize::from(cid)] = due;
        due
    }

    /// Takes what answers there are; true if there were any.
    pub(crate) fn take(&mut self) -> io::Result<bool> {
        let room = (self.into.len() - self.kept).min(self.piece);
        let got = match self.stream.read(&mut self.into[self.kept..][..room]) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the target hung up")),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let (end, answer, now) = (self.kept + got, self.answer(), Instant::now());
        let whole = end / answer * answer;
        for at in (0..whole).step_by(answer) {
            self.on_answer(at, now)?;
        }
        self.into.copy_within(whole..end, 0);
        self.kept = end - whole;
        Ok(whole > 0)
    }

    /// Keeps the depth for so long, then waits for what is in flight. Returns answers and time.
    pub(crate) fn run(&mut self, time: Duration) -> io::Result<(u64, Duration)> {
        self.stream.set_nonblocking(!self.sleeps)?;
        let (begun, before) = (Instant::now(), self.done);
        self.fill()?;
        while begun.elapsed() < time {
            if self.take()? {
                self.fill()?;
            }
        }
        let result = (self.done - before, begun.elapsed());
        self.drain()?;
        Ok(result)
    }

    /// Does `count` commands, and waits for them.
    pub(crate) fn run_count(&mut self, count: u64) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        let until = self.done + count;
        while self.done < until {
            self.fill()?;
            self.drain()?;
        }
        Ok(())
    }

    /// Waits for all that is in flight.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        while self.outstanding() > 0 {
            self.take()?;
            if begun.elapsed() > PATIENCE {
                return Err(io::Error::new(ErrorKind::TimedOut, "answers are missing"));
            }
        }
        Ok(())
    }

    /// Makes both directions return at once when there is nothing to do.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        self.fill()
    }

    fn answer(&self) -> usize {
        if self.way == Way::Read { ANSWER + BLOCK } else { ANSWER }
    }

    fn on_answer(&mut self, at: usize, now: Instant) -> io::Result<()> {
        let header = &self.into[at..at + ANSWER];
        let right = match self.way {
            Way::Read => header[0] == PduType::C2hData as u8 && header[1] & FLAG_SUCCESS != 0,
            Way::Write => {
                header[0] == PduType::Response as u8 && header[22] >> 1 == 0 && header[23] == 0
            }
        };
        // Both kinds of answers have the command id in their own place.
        let id = if self.way == Way::Read { 8 } else { 20 };
        let cid = u16::from_le_bytes([header[id], header[id + 1]]);
        if !right || usize::from(cid) >= self.depth {
            return Err(bad(format!("a wrong answer: {header:02x?}")));
        }
        if let Some(latency) = &mut self.latency {
            let nanos = (now - self.begun[usize::from(cid)]).as_nanos();
            latency.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
        }
        self.free.push(cid);
        self.done += u64::from(!self.flushes[usize::from(cid)]);
        Ok(())
    }

    fn block(&mut self) -> u64 {
        if !self.random {
            self.next += 1;
            return (self.next - 1) % self.blocks;
        }
        self.next ^= self.next << 13;
        self.next ^= self.next >> 7;
        self.next ^= self.next << 17;
        self.next % self.blocks
    }
}

/// Sends everything on a stream that does not block.
pub(crate) fn send_all(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
