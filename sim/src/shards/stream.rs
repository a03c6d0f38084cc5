//! One end of a stream: what was sent and not taken, what came and was not received.
//!
//! Invariants:
//! 1. Bytes come to the shard in the order in which they were sent, each once, however the pieces
//!    that carried them overtook each other.
//! 2. No more than [`WINDOW`] bytes are on their way or wait to be received.
//! 3. Every effect with a token is answered by one `Done`, also when the stream is closed.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use braid_block::{Span, Token};

use crate::cluster::{LineId, Place};
use crate::memory::SimMemory;

/// Bytes that the buffers of both kernels hold together.
pub(super) const WINDOW: u64 = 256 << 10;

/// What the shard is ready to receive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Receive {
    Exact(Token, Span),
    Stream(Token),
}

/// A batch that is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) token: Token,
    spans: Vec<Span>,
    bytes: Vec<u8>,
    at: usize,
}

/// One end of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) line: LineId,
    pub(super) near: bool,
    pub(super) peer: Place,
    pub(super) sending: Option<Sending>,
    pub(super) receive: Option<Receive>,
    /// The shard wants its stream receive to end.
    pub(super) stopping: bool,
    /// It sends no more: the end was told.
    pub(super) ended: bool,
    /// The other end reset it.
    pub(super) broken: bool,
    /// Bytes sent, and those of them that the other end has received.
    sent: u64,
    taken: u64,
    /// Bytes that came in order, and pieces that came early.
    came: u64,
    early: BTreeMap<u64, Rc<[u8]>>,
    inbox: VecDeque<u8>,
    /// Bytes given to the shard, and what the other end was told of it.
    given: u64,
    told: u64,
    /// After so many bytes the other end sends no more.
    over: Option<u64>,
}

impl Stream {
    pub(super) const fn new(line: LineId, near: bool, peer: Place) -> Self {
        Self {
            line,
            near,
            peer,
            sending: None,
            receive: None,
            stopping: false,
            ended: false,
            broken: false,
            sent: 0,
            taken: 0,
            came: 0,
            early: BTreeMap::new(),
            inbox: VecDeque::new(),
            given: 0,
            told: 0,
            over: None,
        }
    }

    /// Takes a batch to be sent.
    pub(super) fn begin(&mut self, mem: &mut SimMemory, token: Token, spans: Vec<Span>) {
        assert!(self.sending.is_none(), "one batch in flight a socket");
        spans.iter().for_each(|span| mem.hold(*span, false));
        let bytes = mem.gather(&spans);
        self.sending = Some(Sending { token, spans, bytes, at: 0 });
    }

    /// The next bytes to be put on the wire, at most so many, and where they are in the stream.
    pub(super) fn next_piece(&mut self, most: usize) -> Option<(u64, Rc<[u8]>)> {
        let room = usize::try_from(WINDOW - (self.sent - self.taken)).unwrap_or(0);
        let sending = self.sending.as_mut()?;
        let len = (sending.bytes.len() - sending.at).min(room).min(most);
        if len == 0 {
            return None;
        }
        let piece = Rc::from(&sending.bytes[sending.at..sending.at + len]);
        let at = self.sent;
        sending.at += len;
        self.sent += len as u64;
        Some((at, piece))
    }

    /// If all of the batch is with the kernel: its token and length.
    pub(super) fn is_sent(&mut self, mem: &mut SimMemory) -> Option<(Token, u32)> {
        let all = self.sending.as_ref().is_some_and(|sending| sending.at == sending.bytes.len());
        if !all {
            return None;
        }
        let len = self.sending.as_ref().map_or(0, |sending| sending.bytes.len());
        let token = self.drop_batch(mem)?;
        Some((token, u32::try_from(len).expect("a batch is small")))
    }

    /// The kernel lets go of the batch; its token.
    pub(super) fn drop_batch(&mut self, mem: &mut SimMemory) -> Option<Token> {
        let Sending { token, spans, .. } = self.sending.take()?;
        spans.iter().for_each(|span| mem.release(*span, false));
        Some(token)
    }

    /// The same of what is to be received.
    pub(super) fn drop_receive(&mut self, mem: &mut SimMemory) -> Option<Token> {
        Some(match self.receive.take()? {
            Receive::Stream(token) => token,
            Receive::Exact(token, span) => {
                mem.release(span, true);
                token
            }
        })
    }

    /// Bytes sent so far: where the end is, if there are no more.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// The other end has received so many bytes.
    pub(super) fn was_taken(&mut self, total: u64) {
        self.taken = self.taken.max(total.min(self.sent));
    }

    /// A piece came.
    pub(super) fn arrive(&mut self, at: u64, bytes: Rc<[u8]>) {
        if at >= self.came {
            self.early.insert(at, bytes);
        }
        while let Some(bytes) = self.early.remove(&self.came) {
            self.came += bytes.len() as u64;
            self.inbox.extend(bytes.iter());
        }
    }

    /// The other end sends no more after so many bytes.
    pub(super) const fn ends_after(&mut self, total: u64) {
        self.over = Some(total);
    }

    /// Everything that will ever come has come.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some_and(|total| total <= self.came)
    }

    /// Bytes that wait to be received.
    pub(super) fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Gives the shard so many bytes.
    pub(super) fn give(&mut self, len: usize) -> Vec<u8> {
        self.given += len as u64;
        self.inbox.drain(..len).collect()
    }

    /// What came and was not received is lost with a reset.
    pub(super) fn lose_input(&mut self) {
        self.inbox.clear();
        self.early.clear();
    }

    /// How many bytes were received, if the other end should hear of that.
    pub(super) fn news(&mut self) -> Option<u64> {
        let due = self.given - self.told >= WINDOW / 4;
        due.then(|| {
            self.told = self.given;
            self.given
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream::new(LineId(1), false, Place::Host(0))
    }

    #[test]
    fn pieces_that_overtook_each_other_are_received_in_order_each_once() {
        let mut stream = stream();
        stream.arrive(3, Rc::from(&b"def"[..]));
        assert_eq!(stream.waiting(), 0);
        stream.ends_after(6);
        assert!(!stream.is_over());
        stream.arrive(0, Rc::from(&b"abc"[..]));
        stream.arrive(0, Rc::from(&b"abc"[..]));
        assert!(stream.is_over());
        assert_eq!((stream.give(2), stream.give(4)), (b"ab".to_vec(), b"cdef".to_vec()));
    }

    #[test]
    fn no_more_is_on_its_way_than_the_window_holds() {
        let mut mem = SimMemory::new(1 << 20);
        let mut stream = stream();
        let leases: Vec<_> = (0..3).map(|_| mem.filled(&[7; 128 << 10])).collect();
        let spans = leases.iter().map(|lease| lease.span(0, 128 << 10)).collect();
        let token = Token::new(1, braid_block::Key { index: 0, generation: 1 });
        stream.begin(&mut mem, token, spans);
        let mut on_its_way = 0;
        while let Some((at, piece)) = stream.next_piece(100_000) {
            assert_eq!(at, on_its_way);
            on_its_way += piece.len() as u64;
        }
        assert_eq!(on_its_way, WINDOW);
        assert!(stream.is_sent(&mut mem).is_none());
        stream.was_taken(WINDOW);
        while stream.next_piece(100_000).is_some() {}
        assert_eq!(stream.is_sent(&mut mem), Some((token, 3 * (128 << 10))));
        leases.into_iter().for_each(|lease| braid_block::Memory::free(&mut mem, lease));
        mem.assert_all_back();
    }
}
