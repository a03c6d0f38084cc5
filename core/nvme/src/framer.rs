//! Cuts a byte stream into PDUs: headers are checked here, data is left where it lies.
//!
//! The framer never sees more than the bytes it is shown and keeps at most one header of them, so
//! a stream may be split at any byte. Data is announced as ranges of the caller's input, which
//! the caller copies to where it belongs: each payload byte moves once.
//!
//! Invariants:
//! 1. Every length is checked before a byte of what it describes is consumed.
//! 2. After an error nothing more is parsed; [`Framer::offending_header`] is what the
//!    termination request copies.
//! 3. A PDU with data yields `Header`, at least one `Data`, and `End`; one without only `Header`.

use braid_block::Memory;
use zerocopy::FromBytes;

use crate::command::{Command, Completion};
use crate::pdu::{
    CommandCapsule, CommonHeader, DIGEST_BYTES, DataHeader, Digests, FLAG_DDGST, FLAG_HDGST,
    FLAG_LAST, FLAG_SUCCESS, FatalError, HEADER_BYTES_MAX, InitializeConnection, PduType,
    ResponseCapsule, TERM_BYTES_MAX, TermReq,
};

/// Which side of the connection reads this stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A controller, reading what a host sends.
    Target,
    /// A host, reading what a controller sends.
    Host,
}

/// A PDU header that passed every check that needs nothing but itself.
#[derive(Clone, Copy, Debug)]
pub enum Header {
    /// ICReq or ICResp, whichever this side may receive.
    Initialize(InitializeConnection),
    /// A termination request; its data, if any, follows and means nothing to us.
    Terminate {
        /// Fatal error status.
        fes: u16,
        /// Fatal error information.
        fei: u32,
    },
    /// A command capsule, with this much in-capsule data.
    Command {
        /// The submission queue entry.
        command: Command,
        /// Bytes of in-capsule data.
        data: u32,
    },
    /// A response capsule.
    Response(Completion),
    /// H2CData or C2HData, whichever this side may receive.
    Data(DataPdu),
    /// Ready to transfer.
    ReadyToTransfer(DataPdu),
}

/// The fields of H2CData, C2HData and R2T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPdu {
    /// The command this is about.
    pub cid: u16,
    /// Transfer tag.
    pub ttag: u16,
    /// First byte within the command's data.
    pub offset: u32,
    /// Number of bytes.
    pub length: u32,
    /// The last PDU of this transfer.
    pub last: bool,
    /// The command succeeded, no response follows.
    pub success: bool,
}

/// The next thing in the stream.
#[derive(Clone, Copy, Debug)]
pub enum Piece {
    /// All input is consumed.
    More,
    /// A header.
    Header(Header),
    /// The last `len` consumed bytes are bytes `offset ..` of the current PDU's data.
    Data {
        /// Position within the PDU's data.
        offset: u32,
        /// Number of bytes.
        len: u32,
    },
    /// The current PDU's data is complete; the digest that came with it.
    End {
        /// Received data digest, if digests are in use.
        digest: Option<u32>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Padding { left: u32, data: u32 },
    Data { offset: u32, left: u32 },
    Digest,
    Failed,
}

/// Position in a stream of PDUs.
#[derive(Debug)]
pub struct Framer {
    side: Side,
    /// Whether the connection is initialised: before, only an IC PDU may come; after, none.
    initialized: bool,
    digests: Digests,
    data_bytes_max: u32,
    state: State,
    /// Bytes of the current header (or digest) that earlier inputs ended with.
    kept: [u8; HEADER_BYTES_MAX],
    kept_len: usize,
    has_digest: bool,
    /// Whether the last header was parsed where it lay, and is not in `kept`.
    in_place: bool,
}

impl Framer {
    /// A framer at the beginning of a stream, that takes no PDU with more than `data_bytes_max`.
    #[must_use]
    pub const fn new(side: Side, data_bytes_max: u32) -> Self {
        Self {
            side,
            initialized: false,
            digests: Digests { header: false, data: false },
            data_bytes_max,
            state: State::Header,
            kept: [0; HEADER_BYTES_MAX],
            kept_len: 0,
            has_digest: false,
            in_place: false,
        }
    }

    /// The connection is initialised: from now on PDUs carry these digests.
    pub const fn initialize(&mut self, digests: Digests) {
        self.initialized = true;
        self.digests = digests;
    }

    /// From now on PDUs may carry so much data.
    pub const fn set_data_bytes_max(&mut self, data_bytes_max: u32) {
        self.data_bytes_max = data_bytes_max;
    }

    /// Bytes that the stream must bring before [`Framer::next`] can say anything new. Reading
    /// exactly so many never reads past the current PDU.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        match self.state {
            State::Header if self.kept_len < size_of::<CommonHeader>() => {
                small(size_of::<CommonHeader>() - self.kept_len)
            }
            State::Header => small(self.header_and_digest_len(&self.kept) - self.kept_len),
            State::Padding { left, data } => left + data + self.data_digest_len(),
            State::Data { left, .. } => left + self.data_digest_len(),
            State::Digest => DIGEST_BYTES - small(self.kept_len),
            State::Failed => 0,
        }
    }

    /// The bytes of the header that was refused, as far as they came.
    #[must_use]
    pub fn offending_header(&self) -> &[u8] {
        &self.kept[..self.kept_len]
    }

    /// Looks at `input` and consumes the returned number of bytes of it.
    ///
    /// # Errors
    /// What the peer did wrong; every later call says that nothing may come any more.
    pub fn next<M: Memory>(&mut self, input: &[u8]) -> Result<(u32, Piece), FatalError> {
        match self.state {
            State::Header => self.next_header::<M>(input),
            State::Padding { left, data } => {
                let skipped = left.min(small(input.len()));
                self.state = if skipped == left {
                    State::Data { offset: 0, left: data }
                } else {
                    State::Padding { left: left - skipped, data }
                };
                Ok((skipped, Piece::More))
            }
            State::Data { offset, left } => Ok(self.next_data(offset, left, small(input.len()))),
            State::Digest => Ok(self.next_digest(input)),
            State::Failed => Err(FatalError::Sequence),
        }
    }

    fn next_data(&mut self, offset: u32, left: u32, available: u32) -> (u32, Piece) {
        let len = left.min(available);
        if len == 0 {
            return (0, Piece::More);
        }
        let (offset_after, left) = (offset + len, left - len);
        self.state =
            if left == 0 { State::Digest } else { State::Data { offset: offset_after, left } };
        (len, Piece::Data { offset, len })
    }

    fn next_digest(&mut self, input: &[u8]) -> (u32, Piece) {
        if !self.has_digest {
            self.state = State::Header;
            return (0, Piece::End { digest: None });
        }
        let taken = self.keep(input, DIGEST_BYTES as usize);
        if self.kept_len < DIGEST_BYTES as usize {
            return (taken, Piece::More);
        }
        let [a, b, c, d, ..] = self.kept;
        self.kept_len = 0;
        self.state = State::Header;
        (taken, Piece::End { digest: Some(u32::from_le_bytes([a, b, c, d])) })
    }

    /// Adds input to what is kept until that is `total` bytes; returns how much was taken.
    fn keep(&mut self, input: &[u8], total: usize) -> u32 {
        let taken = input.len().min(total - self.kept_len);
        self.kept[self.kept_len..][..taken].copy_from_slice(&input[..taken]);
        self.kept_len += taken;
        small(taken)
    }

    fn next_header<M: Memory>(&mut self, input: &[u8]) -> Result<(u32, Piece), FatalError> {
        if input.is_empty() {
            return Ok((0, Piece::More));
        }
        let ch_len = size_of::<CommonHeader>();
        let mut consumed = 0;
        if self.kept_len == 0 && input.len() >= HEADER_BYTES_MAX {
            // The usual case: the whole header lies in the input, and is parsed there.
            self.in_place = true;
            return self.header_in_place::<M>(input);
        }
        self.in_place = false;
        if self.kept_len < ch_len {
            consumed += self.keep(input, ch_len);
            if self.kept_len < ch_len {
                return Ok((consumed, Piece::More));
            }
            self.check_common(&self.kept.clone()).map_err(|e| self.fail(e))?;
        }
        let total = self.header_and_digest_len(&self.kept);
        consumed += self.keep(&input[consumed as usize..], total);
        if self.kept_len < total {
            return Ok((consumed, Piece::More));
        }
        let kept = self.kept;
        let header = self.check_header::<M>(&kept[..total]).map_err(|e| self.fail(e))?;
        self.kept_len = 0;
        Ok((consumed, Piece::Header(header)))
    }

    fn header_in_place<M: Memory>(&mut self, input: &[u8]) -> Result<(u32, Piece), FatalError> {
        let result = self.check_common(input).and_then(|()| {
            let total = self.header_and_digest_len(input);
            self.check_header::<M>(&input[..total]).map(|header| (small(total), header))
        });
        match result {
            Ok((consumed, header)) => Ok((consumed, Piece::Header(header))),
            Err(error) => {
                let known = usize::from(input[2]).clamp(size_of::<CommonHeader>(), 128);
                self.keep(&input[..known], known);
                Err(self.fail(error))
            }
        }
    }

    /// A header that was handed on is refused by its receiver: remembers it, and parses no more.
    pub fn refuse(&mut self, header: &[u8]) {
        self.kept_len = 0;
        self.keep(header, header.len().min(HEADER_BYTES_MAX));
        self.state = State::Failed;
    }

    /// The header that ended `taken` bytes into `input` is refused for a reason that only its
    /// receiver knows: remembers it, and parses no more.
    pub fn reject(&mut self, input: &[u8], taken: u32) {
        let header = usize::from(self.kept[2]);
        match input.get(..usize::from(input.get(2).copied().unwrap_or(0))) {
            Some(in_place) if self.in_place && in_place.len() <= taken as usize => {
                self.kept_len = 0;
                self.keep(in_place, in_place.len().min(HEADER_BYTES_MAX));
            }
            _ => self.kept_len = header.min(HEADER_BYTES_MAX),
        }
        self.state = State::Failed;
    }

    const fn fail(&mut self, error: FatalError) -> FatalError {
        self.state = State::Failed;
        error
    }

    const fn data_digest_len(&self) -> u32 {
        if self.has_digest { DIGEST_BYTES } else { 0 }
    }

    /// Length of a header whose common part passed [`Framer::check_common`], with its digest.
    fn header_and_digest_len(&self, header: &[u8]) -> usize {
        let digest = match PduType::from_wire(header[0]) {
            Some(t) if self.digests.header && t.may_have_header_digest() => DIGEST_BYTES as usize,
            _ => 0,
        };
        usize::from(header[2]) + digest
    }

    /// Checks the common header: type, order, HLEN, flags, and PLEN as far as the type bounds it.
    fn check_common(&self, bytes: &[u8]) -> Result<(), FatalError> {
        const TYPE: FatalError = FatalError::InvalidHeaderField(0);
        const FLAGS: FatalError = FatalError::InvalidHeaderField(1);
        const HLEN: FatalError = FatalError::InvalidHeaderField(2);
        const PLEN: FatalError = FatalError::InvalidHeaderField(4);
        let Ok((ch, _)) = CommonHeader::read_from_prefix(bytes) else { return Err(TYPE) };
        let pdu_type = PduType::from_wire(ch.pdu_type).ok_or(TYPE)?;
        if !self.may_receive(pdu_type) {
            return Err(TYPE);
        }
        let is_ic = matches!(pdu_type, PduType::IcReq | PduType::IcResp);
        let is_term = matches!(pdu_type, PduType::H2cTermReq | PduType::C2hTermReq);
        if is_ic == self.initialized && !is_term {
            return Err(FatalError::Sequence);
        }
        if ch.hlen != pdu_type.header_len() {
            return Err(HLEN);
        }
        let has_header_digest = self.digests.header && pdu_type.may_have_header_digest();
        if (ch.flags & FLAG_HDGST != 0) != has_header_digest {
            return Err(FLAGS);
        }
        let bare = CommonHeader::without_data(pdu_type, self.digests).plen.get();
        let plen = ch.plen.get();
        let fits = match pdu_type {
            PduType::IcReq | PduType::IcResp | PduType::Response | PduType::R2t => plen == bare,
            PduType::H2cTermReq | PduType::C2hTermReq => (bare..=TERM_BYTES_MAX).contains(&plen),
            PduType::Command => plen >= bare,
            PduType::H2cData | PduType::C2hData => plen > bare,
        };
        if fits { Ok(()) } else { Err(PLEN) }
    }

    const fn may_receive(&self, pdu_type: PduType) -> bool {
        let from_host = matches!(
            pdu_type,
            PduType::IcReq | PduType::H2cTermReq | PduType::Command | PduType::H2cData
        );
        from_host == matches!(self.side, Side::Target)
    }

    /// Checks the whole header and its digest, and sets out to read the data behind it.
    fn check_header<M: Memory>(&mut self, bytes: &[u8]) -> Result<Header, FatalError> {
        const GARBLED: FatalError = FatalError::InvalidHeaderField(0);
        let Ok((ch, _)) = CommonHeader::read_from_prefix(bytes) else { return Err(GARBLED) };
        let (header, digest) = bytes.split_at(usize::from(ch.hlen));
        if let [a, b, c, d] = *digest {
            let received = u32::from_le_bytes([a, b, c, d]);
            if M::crc_bytes(header, 0) != received {
                return Err(FatalError::HeaderDigest(received));
            }
        }
        let pdu_type = PduType::from_wire(ch.pdu_type).ok_or(GARBLED)?;
        let data = self.locate_data(pdu_type, &ch, small(bytes.len()))?;
        match pdu_type {
            PduType::IcReq | PduType::IcResp => InitializeConnection::read_from_bytes(header)
                .map(Header::Initialize)
                .map_err(|_| GARBLED),
            PduType::H2cTermReq | PduType::C2hTermReq => TermReq::read_from_bytes(header)
                .map(|t| Header::Terminate { fes: t.fes.get(), fei: t.fei.get() })
                .map_err(|_| GARBLED),
            PduType::Command => CommandCapsule::read_from_bytes(header)
                .map(|c| Header::Command { command: c.command, data })
                .map_err(|_| GARBLED),
            PduType::Response => ResponseCapsule::read_from_bytes(header)
                .map(|r| Header::Response(r.completion))
                .map_err(|_| GARBLED),
            PduType::H2cData | PduType::C2hData => {
                let pdu = DataHeader::read_from_bytes(header).map_err(|_| GARBLED)?;
                if pdu.length.get() != data {
                    return Err(FatalError::InvalidHeaderField(4));
                }
                Ok(Header::Data(DataPdu::of(&pdu)))
            }
            PduType::R2t => DataHeader::read_from_bytes(header)
                .map(|pdu| Header::ReadyToTransfer(DataPdu::of(&pdu)))
                .map_err(|_| GARBLED),
        }
    }

    /// Finds the data between header and data digest; returns its length.
    fn locate_data(
        &mut self,
        pdu_type: PduType,
        ch: &CommonHeader,
        header: u32,
    ) -> Result<u32, FatalError> {
        const FLAGS: FatalError = FatalError::InvalidHeaderField(1);
        const PDO: FatalError = FatalError::InvalidHeaderField(3);
        const PLEN: FatalError = FatalError::InvalidHeaderField(4);
        let plen = ch.plen.get();
        if plen == header {
            if ch.flags & FLAG_DDGST != 0 {
                return Err(FLAGS);
            }
            return Ok(0);
        }
        let is_term = matches!(pdu_type, PduType::H2cTermReq | PduType::C2hTermReq);
        self.has_digest = self.digests.data && !is_term;
        if (ch.flags & FLAG_DDGST != 0) != self.has_digest {
            return Err(FLAGS);
        }
        // A termination request's data follows its header directly, whatever PDO says.
        let pdo = if is_term { header } else { u32::from(ch.pdo) };
        if pdo < header || pdo % 4 != 0 {
            return Err(PDO);
        }
        let data = plen.checked_sub(pdo + self.data_digest_len()).ok_or(PLEN)?;
        if data == 0 {
            return Err(PLEN);
        }
        if data > self.data_bytes_max {
            return Err(FatalError::LimitExceeded);
        }
        self.state = if pdo == header {
            State::Data { offset: 0, left: data }
        } else {
            State::Padding { left: pdo - header, data }
        };
        Ok(data)
    }
}

impl DataPdu {
    fn of(pdu: &DataHeader) -> Self {
        Self {
            cid: pdu.cccid.get(),
            ttag: pdu.ttag.get(),
            offset: pdu.offset.get(),
            length: pdu.length.get(),
            last: pdu.ch.flags & FLAG_LAST != 0,
            success: pdu.ch.flags & FLAG_SUCCESS != 0,
        }
    }
}

/// A length that is bounded by a buffer's size.
fn small(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
