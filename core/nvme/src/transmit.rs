//! What waits to be sent on a connection: two batches, one filling, one in flight.
//!
//! Invariants:
//! 1. PDUs leave in the order in which they were added.
//! 2. What a batch names stays leased until the whole batch is sent, or the stream failed.
//! 3. Adding a PDU after [`Transmit::has_room`] said yes never fails.

use arrayvec::ArrayVec;
use braid_block::{Lease, Memory, Span};
use zerocopy::IntoBytes;

use crate::command::{Command, Completion};
use crate::pdu::{
    CommandCapsule, CommonHeader, DIGEST_BYTES, DataHeader, Digests, FatalError,
    InitializeConnection, PduType, ResponseCapsule, TERM_BYTES_MAX, TermReq,
};

/// Pieces that one system call gathers, at most.
pub const BATCH_SPANS_MAX: usize = 64;

/// Bytes after which a batch takes no more: a peer must take a whole batch within its keep alive
/// time-out, or it is given up.
const BATCH_BYTES_HIGH: u32 = 1 << 20;

/// Pieces that one addition takes at most: header, payload, digest with a response behind it; and
/// one for a termination request, which always finds room.
const PDU_SPANS_MAX: usize = 4;
/// Header bytes that one addition takes at most: a padded data header, its digests, a response;
/// and a termination request.
const PDU_HEADER_BYTES_MAX: u32 = 256 + TERM_BYTES_MAX;

/// What a batch keeps until it is sent.
#[derive(Debug)]
pub enum Kept {
    /// A buffer that is free afterwards.
    Lease(Lease),
    /// A command whose buffer is being sent: it must not end before.
    Command(u32),
}

#[derive(Debug)]
struct Batch {
    spans: ArrayVec<Span, BATCH_SPANS_MAX>,
    kept: ArrayVec<Kept, BATCH_SPANS_MAX>,
    /// Where headers and digests of this batch are laid out.
    headers: Lease,
    headers_len: u32,
    bytes: u32,
}

impl Batch {
    const fn new(headers: Lease) -> Self {
        Self {
            spans: ArrayVec::new_const(),
            kept: ArrayVec::new_const(),
            headers,
            headers_len: 0,
            bytes: 0,
        }
    }

    fn push_bytes<M: Memory>(&mut self, mem: &mut M, bytes: &[u8]) {
        let at = self.headers_len as usize;
        mem.bytes_mut(&self.headers)[at..at + bytes.len()].copy_from_slice(bytes);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.push_span(self.headers.span(self.headers_len, len));
        self.headers_len += len;
    }

    /// Adds a piece, as a longer last one where they touch.
    fn push_span(&mut self, span: Span) {
        self.bytes += span.len;
        match self.spans.last_mut() {
            Some(last) if last.lease == span.lease && last.offset + last.len == span.offset => {
                last.len += span.len;
            }
            _ => self.spans.push(span),
        }
    }
}

/// The sending half of a connection.
#[derive(Debug)]
pub struct Transmit {
    filling: Batch,
    flying: Batch,
    in_flight: bool,
    digests: Digests,
    /// Alignment of data that the peer asked for, in dwords.
    data_alignment: u32,
}

/// One transfer of payload: C2HData or H2CData.
#[derive(Clone, Copy, Debug)]
pub struct DataOut {
    /// [`PduType::C2hData`] or [`PduType::H2cData`].
    pub pdu_type: PduType,
    /// Command id.
    pub cid: u16,
    /// Transfer tag; 0 for C2HData.
    pub ttag: u16,
    /// First byte within the command's data.
    pub offset: u32,
    /// FLAG_LAST, FLAG_SUCCESS.
    pub flags: u8,
}

impl Transmit {
    /// Nothing to send yet; `headers` are two buffers of at least 4 KiB for PDU headers.
    #[must_use]
    pub const fn new(headers: [Lease; 2]) -> Self {
        let [filling, flying] = headers;
        Self {
            filling: Batch::new(filling),
            flying: Batch::new(flying),
            in_flight: false,
            digests: Digests { header: false, data: false },
            data_alignment: 1,
        }
    }

    /// From now on PDUs carry these digests, and data begins at multiples of so many dwords.
    pub const fn initialize(&mut self, digests: Digests, data_alignment: u32) {
        self.digests = digests;
        self.data_alignment = data_alignment;
    }

    /// Whether another PDU, and a response behind it, can be added.
    #[must_use]
    pub fn has_room<M: Memory>(&self, mem: &M) -> bool {
        self.filling.spans.len() + PDU_SPANS_MAX <= BATCH_SPANS_MAX
            && self.filling.bytes < BATCH_BYTES_HIGH
            && !self.filling.kept.is_full()
            && self.filling.headers_len + PDU_HEADER_BYTES_MAX
                <= mem.capacity(&self.filling.headers)
    }

    /// Whether nothing waits and nothing flies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filling.spans.is_empty() && !self.in_flight
    }

    /// Bytes of headers that wait to be launched: how much a batch is worth its system call.
    #[must_use]
    pub const fn waiting_header_bytes(&self) -> u32 {
        self.filling.headers_len
    }

    /// Whether a batch is in flight.
    #[must_use]
    pub const fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// If nothing flies and something waits: lets it fly, and says so.
    pub fn launch(&mut self) -> bool {
        if self.in_flight || self.filling.spans.is_empty() {
            return false;
        }
        core::mem::swap(&mut self.filling, &mut self.flying);
        self.in_flight = true;
        true
    }

    /// The batch in flight.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.flying.spans
    }

    /// The batch in flight has landed, or its stream failed: hands back what it kept.
    pub fn landed(&mut self) -> impl Iterator<Item = Kept> + '_ {
        self.in_flight = false;
        self.flying.spans.clear();
        self.flying.headers_len = 0;
        self.flying.bytes = 0;
        self.flying.kept.drain(..)
    }

    /// Ends the sending half: hands back all it keeps. Nothing may be in flight.
    pub fn into_leases(self) -> ([Lease; 2], impl Iterator<Item = Kept>) {
        assert!(!self.in_flight, "the kernel still reads this batch");
        let Self { filling, flying, .. } = self;
        let kept = filling.kept.into_iter().chain(flying.kept);
        ([filling.headers, flying.headers], kept)
    }

    /// Adds an ICReq or ICResp.
    pub fn initialize_connection<M: Memory>(&mut self, mem: &mut M, pdu: &InitializeConnection) {
        self.filling.push_bytes(mem, pdu.as_bytes());
    }

    /// Adds a termination request with the beginning of the PDU that caused it. There is room for
    /// one, even where [`Transmit::has_room`] says no; nothing may follow it.
    pub fn terminate<M: Memory>(
        &mut self,
        mem: &mut M,
        pdu_type: PduType,
        error: FatalError,
        header: &[u8],
    ) {
        let copied = u32::try_from(header.len()).unwrap_or(0);
        self.filling.push_bytes(mem, TermReq::new(pdu_type, error, copied).as_bytes());
        self.filling.push_bytes(mem, header);
    }

    /// Adds a response capsule.
    pub fn response<M: Memory>(&mut self, mem: &mut M, completion: &Completion) {
        let ch = CommonHeader::without_data(PduType::Response, self.digests);
        self.push_header(mem, ResponseCapsule { ch, completion: *completion }.as_bytes());
    }

    /// Adds an R2T.
    pub fn ready_to_transfer<M: Memory>(
        &mut self,
        mem: &mut M,
        cid: u16,
        ttag: u16,
        offset: u32,
        length: u32,
    ) {
        let ch = CommonHeader::without_data(PduType::R2t, self.digests);
        self.push_header(mem, DataHeader::new(ch, cid, ttag, offset, length).as_bytes());
    }

    /// Adds a command capsule; `data` is sent in it.
    pub fn command<M: Memory>(
        &mut self,
        mem: &mut M,
        command: &Command,
        data: Option<(Span, &Lease)>,
        kept: Option<Kept>,
    ) {
        self.command_summed(mem, command, data, (None, kept));
    }

    /// The same; the CRC32C of the data goes along, if it is known.
    pub fn command_summed<M: Memory>(
        &mut self,
        mem: &mut M,
        command: &Command,
        data: Option<(Span, &Lease)>,
        (digest, kept): (Option<u32>, Option<Kept>),
    ) {
        let Some((span, lease)) = data else {
            let ch = CommonHeader::without_data(PduType::Command, self.digests);
            self.push_header(mem, CommandCapsule { ch, command: *command }.as_bytes());
            return;
        };
        let ch = self.data_header(PduType::Command, span.len, 0);
        self.push_header(mem, CommandCapsule { ch, command: *command }.as_bytes());
        self.push_data(mem, ch, lease, span, (digest, kept));
    }

    /// Whether data PDUs carry a digest.
    #[must_use]
    pub const fn sums_data(&self) -> bool {
        self.digests.data
    }

    /// Adds `span` of `lease` as a data PDU.
    pub fn data<M: Memory>(&mut self, mem: &mut M, out: DataOut, lease: &Lease, span: Span) {
        self.data_summed(mem, out, lease, span, None);
    }

    /// The same; `digest` is the CRC32C of the span, if that is known.
    pub fn data_summed<M: Memory>(
        &mut self,
        mem: &mut M,
        out: DataOut,
        lease: &Lease,
        span: Span,
        digest: Option<u32>,
    ) {
        let ch = self.data_header(out.pdu_type, span.len, out.flags);
        let header = DataHeader::new(ch, out.cid, out.ttag, out.offset, span.len);
        self.push_header(mem, header.as_bytes());
        self.push_data(mem, ch, lease, span, (digest, None));
    }

    /// Keeps something until everything added so far is sent.
    pub fn keep(&mut self, kept: Kept) {
        self.filling.kept.push(kept);
    }

    const fn data_header(&self, pdu_type: PduType, len: u32, flags: u8) -> CommonHeader {
        CommonHeader::with_aligned_data(pdu_type, self.digests, len, flags, self.data_alignment)
    }

    /// Padding, payload and data digest behind a header.
    fn push_data<M: Memory>(
        &mut self,
        mem: &mut M,
        ch: CommonHeader,
        lease: &Lease,
        span: Span,
        (digest, kept): (Option<u32>, Option<Kept>),
    ) {
        let bare = u32::from(ch.hlen) + if self.digests.header { DIGEST_BYTES } else { 0 };
        let padding = u32::from(ch.pdo).saturating_sub(bare) as usize;
        self.filling.push_bytes(mem, &[0; 128][..padding.min(128)]);
        if self.digests.data {
            let range = span.offset..span.offset + span.len;
            let crc = digest.unwrap_or_else(|| mem.crc(lease, range, 0));
            self.filling.push_span(span);
            self.filling.push_bytes(mem, &crc.to_le_bytes());
        } else {
            self.filling.push_span(span);
        }
        if let Some(kept) = kept {
            self.filling.kept.push(kept);
        }
    }

    fn push_header<M: Memory>(&mut self, mem: &mut M, header: &[u8]) {
        self.filling.push_bytes(mem, header);
        if self.digests.header {
            let digest = M::crc_bytes(header, 0);
            self.filling.push_bytes(mem, &digest.to_le_bytes());
        }
    }
}

impl DataHeader {
    /// The header of H2CData, C2HData or R2T.
    #[must_use]
    pub const fn new(ch: CommonHeader, cid: u16, ttag: u16, offset: u32, length: u32) -> Self {
        use zerocopy::little_endian::{U16, U32};
        Self {
            ch,
            cccid: U16::new(cid),
            ttag: U16::new(ttag),
            offset: U32::new(offset),
            length: U32::new(length),
            reserved: U32::ZERO,
        }
    }
}
