//! Sending a batch: one gathered send at a time on a socket, resumed where it came short.
//!
//! Invariants:
//! 1. The kernel holds every buffer of the batch until the whole of it is done.
//! 2. The list of pieces and the message header live in a box that outlasts the send.

use braid_block::{IoError, Key, Span, Token};
use braid_shard::Socket;
use io_uring::{opcode, types::Fixed};

use crate::arena::Arena;
use crate::drive::Drive;
use crate::errno;
use crate::operation::Operation;

/// Pieces in a batch at most.
pub(crate) const PIECES_MAX: usize = 64;

/// What is being sent on a socket.
pub(crate) struct Sending {
    batch: Option<Box<Batch>>,
}

/// A batch in flight, as the kernel wants it. Made with the first send of a table position, and
/// used again by every later one.
struct Batch {
    busy: bool,
    token: Token,
    sent: u32,
    total: u32,
    /// Spans that were given, each of which holds its buffer.
    spans: usize,
    /// Pieces they came to: spans that follow each other in memory are one.
    len: usize,
    /// The first piece that is not sent whole.
    first: usize,
    pieces: [libc::iovec; PIECES_MAX],
    units: [u32; PIECES_MAX],
    header: libc::msghdr,
}

// SAFETY: the pointers lead to the arena of the same reactor, which moves to another thread only
// together with this, and to the batch itself.
unsafe impl Send for Batch {}

impl Sending {
    pub(crate) const fn new() -> Self {
        Self { batch: None }
    }

    /// Whether the kernel will complete it.
    pub(crate) fn is_busy(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.busy)
    }

    fn batch(&mut self) -> &mut Batch {
        self.batch.get_or_insert_with(Batch::empty)
    }
}

impl Batch {
    fn empty() -> Box<Self> {
        let piece = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Box::new(Self {
            busy: false,
            token: Token::from_bits(0),
            sent: 0,
            total: 0,
            spans: 0,
            len: 0,
            first: 0,
            pieces: [piece; PIECES_MAX],
            units: [0; PIECES_MAX],
            // SAFETY: a message header of zeros is a valid one: no name, no pieces, no control.
            header: unsafe { std::mem::zeroed() },
        })
    }

    /// Takes the spans into the kernel's hands.
    fn fill(&mut self, token: Token, spans: &[Span], arena: &mut Arena) {
        assert!(spans.len() <= PIECES_MAX, "a batch of too many pieces");
        (self.token, self.sent, self.total) = (token, 0, 0);
        (self.spans, self.len, self.first) = (spans.len(), 0, 0);
        for (i, span) in spans.iter().enumerate() {
            let held = arena.hold(*span, false);
            self.units[i] = held.unit;
            self.total += span.len;
            self.append(held.at.as_ptr(), span.len as usize);
        }
    }

    fn append(&mut self, at: *mut u8, len: usize) {
        if let Some(last) = self.pieces[..self.len].last_mut()
            && last.iov_base.wrapping_byte_add(last.iov_len) == at.cast()
        {
            last.iov_len += len;
            return;
        }
        self.pieces[self.len] = libc::iovec { iov_base: at.cast(), iov_len: len };
        self.len += 1;
    }

    /// Steps over bytes that were sent.
    fn advance(&mut self, bytes: u32) {
        self.sent += bytes;
        let mut rest = bytes as usize;
        while let Some(piece) = self.pieces[..self.len].get_mut(self.first) {
            if rest < piece.iov_len {
                // Inside the held span, because rest < iov_len.
                piece.iov_base = piece.iov_base.wrapping_byte_add(rest);
                piece.iov_len -= rest;
                return;
            }
            rest -= piece.iov_len;
            self.first += 1;
        }
    }

    /// The operation that sends what is left.
    fn entry(&mut self, index: u32) -> io_uring::squeue::Entry {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let left = &mut self.pieces[self.first..self.len];
        if let [piece] = left
            && let Ok(len) = u32::try_from(piece.iov_len)
        {
            let from = piece.iov_base.cast_const().cast();
            return opcode::Send::new(Fixed(index), from, len).flags(flags).build();
        }
        self.header.msg_iov = left.as_mut_ptr();
        self.header.msg_iovlen = left.len() as _;
        let flags = flags.cast_unsigned();
        opcode::SendMsg::new(Fixed(index), &raw const self.header).flags(flags).build()
    }
}

impl Drive {
    pub(crate) fn send(&mut self, token: Token, socket: Socket, spans: &[Span]) {
        let Some(slot) = self.sockets.live(socket) else {
            return self.done(token, Err(IoError::Gone));
        };
        let generation = slot.generation;
        let batch = slot.send.batch();
        assert!(!batch.busy, "two sends on a socket");
        batch.fill(token, spans, &mut self.arena);
        batch.busy = true;
        if batch.total == 0 {
            return self.end_send(socket.0, Ok(0));
        }
        let entry = batch.entry(socket.0);
        self.push(entry, Operation::Send.name(socket.0, generation));
    }

    pub(crate) fn on_send(&mut self, key: Key, result: i32) {
        let Some(slot) = self.sockets.named(key) else { return };
        let closing = slot.closing;
        let batch = slot.send.batch();
        match errno::result(result) {
            Ok(bytes) => {
                batch.advance(bytes);
                if batch.sent == batch.total {
                    let total = batch.total;
                    self.end_send(key.index, Ok(total));
                } else if closing {
                    self.end_send(key.index, Err(IoError::Cancelled));
                } else if bytes == 0 {
                    self.end_send(key.index, Err(IoError::Reset));
                } else {
                    let entry = batch.entry(key.index);
                    self.push(entry, Operation::Send.name(key.index, key.generation));
                }
            }
            Err(error) => self.end_send(key.index, Err(error)),
        }
    }

    fn end_send(&mut self, index: u32, result: Result<u32, IoError>) {
        let batch = self.sockets.at(index).send.batch();
        batch.busy = false;
        let token = batch.token;
        for unit in &batch.units[..batch.spans] {
            self.arena.release(*unit, false);
        }
        self.done(token, result);
        self.settle(index);
    }
}
