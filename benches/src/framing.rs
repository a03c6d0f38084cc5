//! The bare wire: a server that frames the bytes of 4 KiB reads and writes and does nothing else.
//! It takes all there is by one receive and answers it by one send, and looks for more for up to
//! 50 us before it sleeps, as our target does.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use braid_nvme::command::Completion;
use braid_nvme::pdu::{
    CommonHeader, DataHeader, Digests, FLAG_LAST, FLAG_SUCCESS, PduType, ResponseCapsule,
};
use zerocopy::IntoBytes;

use crate::load::{BLOCK, send_all};
use crate::wire::{ANSWER, CAPSULE};

/// How long to look for more before sleeping.
const POLL: Duration = Duration::from_micros(50);
/// Answers that one send carries at most.
const BATCH: usize = 128;
const NONE: Digests = Digests { header: false, data: false };

/// Serves connections one after the other; the first line of output is the address.
pub(crate) fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        std::thread::spawn(move || Framer::new(stream).run());
    }
}

struct Framer {
    stream: TcpStream,
    into: Vec<u8>,
    reads: Vec<u8>,
    writes: Vec<u8>,
}

impl Framer {
    fn new(stream: TcpStream) -> Self {
        let flags = FLAG_LAST | FLAG_SUCCESS;
        let ch = CommonHeader::with_data(PduType::C2hData, NONE, 4096, flags);
        let header = DataHeader::new(ch, 0, 0, 0, 4096);
        let read = [header.as_bytes(), &[0x5a; BLOCK]].concat();
        let ch = CommonHeader::without_data(PduType::Response, NONE);
        let write = ResponseCapsule { ch, completion: Completion::default() };
        Self {
            stream,
            into: vec![0; BATCH * (CAPSULE + BLOCK)],
            reads: read.repeat(BATCH),
            writes: write.as_bytes().repeat(BATCH),
        }
    }

    /// Until the peer hangs up.
    fn run(mut self) -> io::Result<()> {
        let mut kept = 0;
        loop {
            let got = self.receive(kept)?;
            if got == 0 {
                return Ok(());
            }
            kept = self.answer(kept + got)?;
        }
    }

    fn receive(&mut self, kept: usize) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            match self.stream.read(&mut self.into[kept..]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if begun.elapsed() > POLL {
                self.stream.set_nonblocking(false)?;
                let got = self.stream.read(&mut self.into[kept..]);
                self.stream.set_nonblocking(true)?;
                return got;
            }
        }
    }

    /// Answers every whole command; returns how many bytes are left.
    fn answer(&mut self, end: usize) -> io::Result<usize> {
        let (mut at, mut reads, mut writes) = (0, 0, 0);
        while end - at >= CAPSULE && reads < BATCH {
            let [a, b, c, d] = [4, 5, 6, 7].map(|i| self.into[at + i]);
            let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if end - at < len {
                break;
            }
            let id = [self.into[at + 10], self.into[at + 11]];
            if len == CAPSULE {
                self.reads[reads * (ANSWER + BLOCK) + 8..][..2].copy_from_slice(&id);
                reads += 1;
            } else {
                self.writes[writes * ANSWER + 20..][..2].copy_from_slice(&id);
                writes += 1;
            }
            at += len;
        }
        self.into.copy_within(at..end, 0);
        send_all(&mut self.stream, &self.reads[..reads * (ANSWER + BLOCK)])?;
        send_all(&mut self.stream, &self.writes[..writes * ANSWER])?;
        Ok(end - at)
    }
}
