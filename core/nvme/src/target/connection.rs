//! One TCP connection as a controller sees it: from bytes to commands, and back.
//!
//! ```text
//!           ICReq                 Connect                 commands
//!   start ---------> initialized ---------> queue <-----------------+
//!     |                   |                   |  H2CData after R2T  |
//!     +----- any FatalError, at any time -----+---------------------+
//!                     v
//!              C2HTermReq, then silence until the host closes
//! ```
//!
//! Invariants:
//! 1. Payload is copied once, from where it was received to the command's own buffer.
//! 2. A transfer tag names at most one transfer; data is taken only in order, only as far as
//!    it was asked for.
//! 3. A command is handed on when all its data is here, and with whether its digest was right.
//! 4. Where data digests are in use, each byte of payload is summed once: of whole blocks in a
//!    PDU, the blocks are, and the digest follows from their sums.

use alloc::vec::Vec;
use core::ops::Range;

use braid_block::{Key, Lease, Memory, SUM_BYTES, Sums, crc_of_both};
use zerocopy::IntoBytes;

use crate::FABRICS_IN_CAPSULE_BYTES;
use crate::command::{Command, Sgl, admin};
use crate::framer::{DataPdu, Framer, Header, Piece, Side};
use crate::pdu::{Digests, FatalError, InitializeConnection, PduType};

/// Largest data PDU we take (MAXH2CDATA), and largest transfer we ask for: MDTS.
pub const DATA_BYTES_MAX: u32 = 128 << 10;

/// What the bytes meant.
#[derive(Debug)]
pub enum Step {
    /// All input is consumed.
    More,
    /// The host wants to begin; answered by [`Connection::initialize`].
    Initialize(InitializeConnection),
    /// A capsule with so many bytes of data waits for [`Connection::provide`]. No data is
    /// consumed until then.
    NeedBuffer(u32),
    /// A command, with its in-capsule data.
    Command(Capsule),
    /// The data that an R2T asked for is here.
    Transferred(Transferred),
    /// The host ends the connection, and says why.
    Terminated(u16),
}

/// A command as it arrived.
#[derive(Debug)]
pub struct Capsule {
    /// Submission queue entry.
    pub command: Command,
    /// In-capsule data.
    pub data: Option<Lease>,
    /// Its length.
    pub len: u32,
    /// Whether its digest was right, or there was none.
    pub intact: bool,
    /// Its data was thrown away, as [`Connection::abandon`] asked for.
    pub abandoned: bool,
}

/// The end of a transfer that [`Connection::expect`] began.
#[derive(Debug)]
pub struct Transferred {
    /// For whom it was.
    pub op: Key,
    /// The data.
    pub lease: Lease,
    /// Whether all its digests were right, or there were none.
    pub intact: bool,
}

#[derive(Debug)]
struct Transfer {
    op: Key,
    cid: u16,
    lease: Lease,
    received: u32,
    len: u32,
    intact: bool,
}

/// Where the data of the current PDU goes.
#[derive(Debug)]
enum Incoming {
    Nowhere,
    Capsule {
        command: Command,
        data: Option<Lease>,
        len: u32,
    },
    /// A capsule whose data nobody wants.
    Abandoned {
        command: Command,
        len: u32,
    },
    Transfer {
        ttag: u16,
        last: bool,
    },
}

/// The receiving half of a target's connection.
#[derive(Debug)]
pub struct Connection {
    framer: Framer,
    digests: Digests,
    in_capsule_bytes_max: u32,
    incoming: Incoming,
    /// CRC32C over the current PDU's data so far; up to the last whole block while it is summed.
    crc: u32,
    /// The same of the block that is not whole yet.
    block_crc: u32,
    /// The current PDU's data is summed block by block.
    by_blocks: bool,
    /// Sums of the blocks of the last PDU's data.
    sums: Sums,
    transfers: Vec<Option<Transfer>>,
    free: Vec<u16>,
}

impl Connection {
    /// A connection that was just accepted. It becomes a queue by [`Connection::open_queue`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            framer: Framer::new(Side::Target, FABRICS_IN_CAPSULE_BYTES),
            digests: Digests { header: false, data: false },
            in_capsule_bytes_max: FABRICS_IN_CAPSULE_BYTES,
            incoming: Incoming::Nowhere,
            crc: 0,
            block_crc: 0,
            by_blocks: false,
            sums: Sums::new(),
            transfers: Vec::new(),
            free: Vec::new(),
        }
    }

    /// A connection that was initialised elsewhere, between two PDUs.
    #[must_use]
    pub const fn initialized(digests: Digests) -> Self {
        let mut new = Self::new();
        new.initialize(digests);
        new
    }

    /// The ICReq asks for what we cannot do: a termination request will copy it.
    pub fn refuse(&mut self, request: &InitializeConnection) {
        self.framer.refuse(request.as_bytes());
    }

    /// The ICResp is on its way: PDUs carry these digests from now on.
    pub const fn initialize(&mut self, digests: Digests) {
        self.digests = digests;
        self.framer.initialize(digests);
    }

    /// It is a queue now: so many commands at once, and so much data in a capsule.
    pub fn open_queue(&mut self, entries: u16, in_capsule_bytes_max: u32) {
        self.in_capsule_bytes_max = in_capsule_bytes_max;
        self.framer.set_data_bytes_max(DATA_BYTES_MAX);
        self.transfers = (0..entries).map(|_| None).collect();
        self.free = (0..entries).rev().collect();
    }

    /// Bytes to receive, exactly, before the next [`Connection::step`] can tell something.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.framer.wanted()
    }

    /// What a termination request copies.
    #[must_use]
    pub fn offending_header(&self) -> &[u8] {
        self.framer.offending_header()
    }

    /// Begins a transfer from the host into `lease`; returns the tag for the R2T, or the lease
    /// when all tags are taken.
    ///
    /// # Errors
    /// The lease: more commands are outstanding than the queue has entries.
    pub fn expect(&mut self, op: Key, cid: u16, lease: Lease, len: u32) -> Result<u16, Lease> {
        let Some(ttag) = self.free.pop() else { return Err(lease) };
        self.transfers[usize::from(ttag)] =
            Some(Transfer { op, cid, lease, received: 0, len, intact: true });
        Ok(ttag)
    }

    /// Gives the capsule that waits for it a buffer of at least the length it needs.
    ///
    /// # Panics
    /// If no capsule waits: a programmer's error.
    pub fn provide(&mut self, lease: Lease) {
        match &mut self.incoming {
            Incoming::Capsule { data: data @ None, .. } => *data = Some(lease),
            Incoming::Capsule { .. }
            | Incoming::Abandoned { .. }
            | Incoming::Nowhere
            | Incoming::Transfer { .. } => {
                panic!("a buffer for nothing")
            }
        }
    }

    /// Throws the data of the capsule away that waits for a buffer, if it is this command's; it is
    /// handed over all the same. False: another one waits, or none.
    pub fn abandon(&mut self, cid: u16) -> bool {
        match self.incoming {
            Incoming::Capsule { command, data: None, len } if command.cid.get() == cid => {
                self.incoming = Incoming::Abandoned { command, len };
                true
            }
            _ => false,
        }
    }

    /// Sums of the blocks of the payload that the last step handed over, if all of it came in one
    /// PDU with a data digest. Others are not known.
    #[must_use]
    pub const fn sums(&self) -> &Sums {
        &self.sums
    }

    /// Hands back every buffer, at the connection's end.
    pub fn into_leases(self) -> impl Iterator<Item = Lease> {
        let current = match self.incoming {
            Incoming::Capsule { data, .. } => data,
            Incoming::Abandoned { .. } | Incoming::Nowhere | Incoming::Transfer { .. } => None,
        };
        current.into_iter().chain(self.transfers.into_iter().flatten().map(|t| t.lease))
    }

    /// Takes bytes `at .. end` of `input`; returns how many it consumed and what they meant.
    ///
    /// # Errors
    /// What the host did wrong: the connection is to be terminated.
    pub fn step<M: Memory>(
        &mut self,
        mem: &mut M,
        input: &Lease,
        at: u32,
        end: u32,
    ) -> Result<(u32, Step), FatalError> {
        if let Incoming::Capsule { data: None, len, .. } = self.incoming {
            return Ok((0, Step::NeedBuffer(len)));
        }
        let mut consumed = 0;
        loop {
            let from = at + consumed;
            let bytes = &mem.bytes(input)[from as usize..end as usize];
            let (taken, piece) = self.framer.next::<M>(bytes)?;
            consumed += taken;
            let step = match piece {
                Piece::More if at + consumed < end => continue,
                Piece::More => Step::More,
                Piece::Header(header) => match self.on_header(header) {
                    Ok(Some(step)) => step,
                    Ok(None) => continue,
                    Err(error) => {
                        self.framer.reject(bytes, taken);
                        return Err(error);
                    }
                },
                Piece::Data { offset, len } => {
                    self.on_data(mem, input, at + consumed - len, offset, len);
                    continue;
                }
                Piece::End { digest } => match self.on_end(digest) {
                    Some(step) => step,
                    None => continue,
                },
            };
            return Ok((consumed, step));
        }
    }

    fn on_header(&mut self, header: Header) -> Result<Option<Step>, FatalError> {
        self.crc = 0;
        self.block_crc = 0;
        self.by_blocks = false;
        self.sums.clear();
        match header {
            Header::Initialize(ic) => Ok(Some(Step::Initialize(ic))),
            Header::Terminate { fes, .. } => Ok(Some(Step::Terminated(fes))),
            Header::Command { command, data } => self.on_capsule(command, data),
            Header::Data(pdu) => self.on_data_header(&pdu).map(|()| None),
            // The framer lets a target receive neither.
            Header::Response(_) | Header::ReadyToTransfer(_) => {
                Err(FatalError::InvalidHeaderField(0))
            }
        }
    }

    fn on_capsule(&mut self, command: Command, len: u32) -> Result<Option<Step>, FatalError> {
        check_in_capsule(&command, len, self.in_capsule_bytes_max)?;
        if len == 0 {
            let capsule = Capsule { command, data: None, len: 0, intact: true, abandoned: false };
            return Ok(Some(Step::Command(capsule)));
        }
        self.by_blocks = self.digests.data && len.is_multiple_of(SUM_BYTES);
        self.incoming = Incoming::Capsule { command, data: None, len };
        Ok(Some(Step::NeedBuffer(len)))
    }

    fn on_data_header(&mut self, pdu: &DataPdu) -> Result<(), FatalError> {
        const TTAG: FatalError = FatalError::InvalidHeaderField(10);
        const FLAGS: FatalError = FatalError::InvalidHeaderField(1);
        let slot = self.transfers.get(usize::from(pdu.ttag)).ok_or(FatalError::Sequence)?;
        let transfer = slot.as_ref().ok_or(TTAG)?;
        if transfer.cid != pdu.cid {
            return Err(FatalError::Sequence);
        }
        let end = pdu.offset.checked_add(pdu.length).ok_or(FatalError::DataOutOfRange)?;
        if pdu.offset != transfer.received || end > transfer.len {
            return Err(FatalError::DataOutOfRange);
        }
        if pdu.last != (end == transfer.len) {
            return Err(FLAGS);
        }
        let whole = pdu.offset == 0 && pdu.last;
        self.by_blocks = self.digests.data && whole && pdu.length.is_multiple_of(SUM_BYTES);
        self.incoming = Incoming::Transfer { ttag: pdu.ttag, last: pdu.last };
        Ok(())
    }

    fn on_data<M: Memory>(&mut self, mem: &mut M, input: &Lease, from: u32, offset: u32, len: u32) {
        let (dst, dst_at) = match &mut self.incoming {
            Incoming::Nowhere | Incoming::Abandoned { .. } => return,
            Incoming::Capsule { data, .. } => (data.as_ref(), offset),
            Incoming::Transfer { ttag, .. } => {
                let transfer = self.transfers[usize::from(*ttag)].as_mut();
                let Some(transfer) = transfer else { return };
                let at = transfer.received;
                transfer.received += len;
                (Some(&transfer.lease), at)
            }
        };
        let Some(dst) = dst else { return };
        if self.by_blocks {
            (self.crc, self.block_crc) = sum_blocks(
                mem,
                (dst, dst_at),
                (input, from..from + len),
                (self.crc, self.block_crc),
                &mut self.sums,
            );
        } else if self.digests.data {
            self.crc = mem.copy_crc(dst, dst_at, input, from..from + len, self.crc);
        } else {
            mem.copy(dst, dst_at, input, from..from + len);
        }
    }

    fn on_end(&mut self, digest: Option<u32>) -> Option<Step> {
        let right = digest.is_none_or(|received| received == self.crc);
        match core::mem::replace(&mut self.incoming, Incoming::Nowhere) {
            Incoming::Nowhere => None,
            Incoming::Capsule { command, data, len } => {
                let capsule = Capsule { command, data, len, intact: right, abandoned: false };
                Some(Step::Command(capsule))
            }
            Incoming::Abandoned { command, len } => {
                let capsule = Capsule { command, data: None, len, intact: true, abandoned: true };
                Some(Step::Command(capsule))
            }
            Incoming::Transfer { ttag, last } => {
                let slot = &mut self.transfers[usize::from(ttag)];
                if let Some(transfer) = slot {
                    transfer.intact &= right;
                }
                if !last {
                    return None;
                }
                let Transfer { op, lease, intact, .. } = slot.take()?;
                self.free.push(ttag);
                Some(Step::Transferred(Transferred { op, lease, intact }))
            }
        }
    }
}

/// Copies payload to byte `at` of its buffer, and sums the blocks that it becomes; `crcs` are those
/// of all whole blocks before, and of the one that is not whole.
fn sum_blocks<M: Memory>(
    mem: &mut M,
    (dst, mut at): (&Lease, u32),
    (src, mut range): (&Lease, Range<u32>),
    (mut crc, mut block_crc): (u32, u32),
    sums: &mut Sums,
) -> (u32, u32) {
    while !range.is_empty() {
        let part = (SUM_BYTES - at % SUM_BYTES).min(range.end - range.start);
        let middle = range.start + part;
        block_crc = mem.copy_crc(dst, at, src, range.start..middle, block_crc);
        (range.start, at) = (middle, at + part);
        if at.is_multiple_of(SUM_BYTES) {
            sums.set((at / SUM_BYTES - 1) as usize, block_crc);
            crc = crc_of_both(crc, block_crc);
            block_crc = 0;
        }
    }
    (crc, block_crc)
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks that in-capsule data is what the command's SGL says (TCP 3.3.2.1).
fn check_in_capsule(command: &Command, data: u32, io_max: u32) -> Result<(), FatalError> {
    /// Where the SGL's address, length and identifier are in the PDU.
    const SGL_ADDRESS: u32 = 8 + 24;
    const SGL_IDENTIFIER: u32 = 8 + 39;
    const PLEN: FatalError = FatalError::InvalidHeaderField(4);
    let sgl = &command.sgl;
    if data == 0 {
        let promised = sgl.identifier == Sgl::IN_CAPSULE && sgl.length.get() != 0;
        return if promised { Err(PLEN) } else { Ok(()) };
    }
    let fabrics = command.opcode == admin::FABRICS;
    let max = if fabrics { io_max.max(FABRICS_IN_CAPSULE_BYTES) } else { io_max };
    if data > max {
        return Err(FatalError::LimitExceeded);
    }
    if sgl.identifier != Sgl::IN_CAPSULE {
        return Err(FatalError::UnsupportedParameter(SGL_IDENTIFIER));
    }
    if sgl.address.get() != 0 {
        return Err(FatalError::UnsupportedParameter(SGL_ADDRESS));
    }
    if sgl.length.get() != data { Err(PLEN) } else { Ok(()) }
}

/// Checks an ICReq; returns the digests to use, and the data alignment that the host asks for in
/// dwords (TCP 3.6.2.2).
///
/// # Errors
/// Which field is wrong.
pub fn check_ic_req(
    request: &InitializeConnection,
    offered: Digests,
) -> Result<(Digests, u32), FatalError> {
    if request.pfv.get() != 0 {
        return Err(FatalError::InvalidHeaderField(8));
    }
    if request.data_alignment > 31 {
        return Err(FatalError::InvalidHeaderField(10));
    }
    let asked = Digests::from_wire(request.digest);
    let digests =
        Digests { header: asked.header && offered.header, data: asked.data && offered.data };
    Ok((digests, u32::from(request.data_alignment) + 1))
}

/// The answer to an ICReq: no alignment of our own (Linux demands it), and MAXH2CDATA.
#[must_use]
pub const fn ic_resp(digests: Digests) -> InitializeConnection {
    InitializeConnection::new(PduType::IcResp, digests, DATA_BYTES_MAX)
}
