//! One TCP connection as a host sees it: from bytes to the ends of commands.
//!
//! ```text
//!           ICResp              responses, C2HData, R2T
//!   start ---------> initialized <-----------------+
//!     |                  |   +---------------------+
//!     +-- any FatalError-+
//!              v
//!         H2CTermReq, then nothing is parsed any more
//! ```
//!
//! Invariants:
//! 1. Payload is copied once, from where it was received to the command's own buffer.
//! 2. Data is taken for commands that wait for some, only in order, only as much as is missing.
//! 3. A command whose data digest was wrong ends with an error of its own, after its data: the
//!    stream is still in step.
//! 4. What names no command in work, by its whole id, is the peer's error.

use braid_block::{Class, Lease, Memory};

use super::slot::{Requested, Slots};
use crate::Status;
use crate::command::{Completion, Direction};
use crate::framer::{DataPdu, Framer, Header, Piece, Side};
use crate::pdu::{Digests, FatalError, InitializeConnection, PduType};

/// Where the fields that we refuse are in their PDUs.
mod field {
    use crate::pdu::FatalError;

    pub(super) const FLAGS: FatalError = FatalError::InvalidHeaderField(1);
    pub(super) const PFV: FatalError = FatalError::InvalidHeaderField(8);
    pub(super) const CPDA: FatalError = FatalError::InvalidHeaderField(10);
    pub(super) const DGST: FatalError = FatalError::UnsupportedParameter(11);
    pub(super) const MAXH2CDATA: FatalError = FatalError::InvalidHeaderField(12);
    pub(super) const R2TL: FatalError = FatalError::InvalidHeaderField(16);
    /// CID of a completion in its capsule.
    pub(super) const RESPONSE_CID: u32 = 20;
    /// CCCID of data PDUs and R2T.
    pub(super) const CCCID: u32 = 8;
}

/// What the bytes meant.
#[derive(Debug)]
pub(super) enum Step {
    /// All input is consumed.
    More,
    /// The target answered our ICReq.
    Initialized(Negotiated),
    /// The command in this slot has its response.
    Answered(u16),
    /// The command in this slot has data to send.
    Requested(u16),
    /// The target ends the connection, and says why.
    Terminated(u16),
}

/// What ICReq and ICResp agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Digests in use.
    pub digests: Digests,
    /// Alignment of our data in dwords.
    pub data_alignment: u32,
    /// Bytes of an H2CData PDU at most (MAXH2CDATA).
    pub data_bytes_max: u32,
}

/// The receiving half of a host's connection.
#[derive(Debug)]
pub(super) struct Connection {
    framer: Framer,
    asked: Digests,
    digests: Digests,
    /// The C2HData whose bytes are coming.
    incoming: Option<Incoming>,
    /// CRC32C over the current PDU's data so far.
    crc: u32,
}

#[derive(Clone, Copy, Debug)]
struct Incoming {
    slot: u16,
    success: bool,
    /// It is all the data.
    whole: bool,
}

impl Connection {
    /// A connection whose ICReq asks for these digests.
    pub(super) const fn new(asked: Digests) -> Self {
        Self {
            // No command has a larger buffer than the largest class.
            framer: Framer::new(Side::Host, Class::Large.bytes()),
            asked,
            digests: Digests { header: false, data: false },
            incoming: None,
            crc: 0,
        }
    }

    /// What a termination request copies.
    pub(super) fn offending_header(&self) -> &[u8] {
        self.framer.offending_header()
    }

    /// Takes bytes `at .. end` of `input`; returns how many it consumed and what they meant.
    ///
    /// # Errors
    /// What the target did wrong: the connection is to be terminated.
    pub(super) fn step<M: Memory>(
        &mut self,
        mem: &mut M,
        slots: &mut Slots,
        input: &Lease,
        at: u32,
        end: u32,
    ) -> Result<(u32, Step), FatalError> {
        let mut consumed = 0;
        loop {
            let from = at + consumed;
            let bytes = &mem.bytes(input)[from as usize..end as usize];
            let (taken, piece) = self.framer.next::<M>(bytes)?;
            consumed += taken;
            let step = match piece {
                Piece::More if at + consumed < end => continue,
                Piece::More => Step::More,
                Piece::Header(header) => match self.on_header(slots, header) {
                    Ok(Some(step)) => step,
                    Ok(None) => continue,
                    Err(error) => {
                        self.framer.reject(bytes, taken);
                        return Err(error);
                    }
                },
                Piece::Data { len, .. } => {
                    self.on_data(mem, slots, input, at + consumed - len, len);
                    continue;
                }
                Piece::End { digest } => match self.on_end(slots, digest) {
                    Some(step) => step,
                    None => continue,
                },
            };
            return Ok((consumed, step));
        }
    }

    fn on_header(&mut self, slots: &mut Slots, header: Header) -> Result<Option<Step>, FatalError> {
        self.crc = 0;
        match header {
            Header::Initialize(ic) => {
                let negotiated = check_ic_resp(&ic, self.asked)?;
                self.digests = negotiated.digests;
                self.framer.initialize(negotiated.digests);
                Ok(Some(Step::Initialized(negotiated)))
            }
            Header::Terminate { fes, .. } => Ok(Some(Step::Terminated(fes))),
            Header::Response(completion) => on_response(slots, &completion).map(Some),
            Header::ReadyToTransfer(pdu) => on_ready(slots, &pdu).map(Some),
            Header::Data(pdu) => {
                self.incoming = Some(on_data_header(slots, &pdu)?);
                Ok(None)
            }
            // The framer lets a host receive none.
            Header::Command { .. } => Err(FatalError::InvalidHeaderField(0)),
        }
    }

    fn on_data<M: Memory>(
        &mut self,
        mem: &mut M,
        slots: &mut Slots,
        input: &Lease,
        from: u32,
        len: u32,
    ) {
        let Some(active) = self.incoming.and_then(|incoming| slots.get_mut(incoming.slot)) else {
            return;
        };
        let Some(lease) = &active.lease else { return };
        if self.digests.data {
            self.crc = mem.copy_crc(lease, active.moved, input, from..from + len, self.crc);
        } else {
            mem.copy(lease, active.moved, input, from..from + len);
        }
        active.moved += len;
    }

    fn on_end(&mut self, slots: &mut Slots, digest: Option<u32>) -> Option<Step> {
        let Incoming { slot, success, whole } = self.incoming.take()?;
        let active = slots.get_mut(slot)?;
        active.intact &= digest.is_none_or(|received| received == self.crc);
        active.digest = digest.filter(|_| whole);
        if !success {
            return None;
        }
        active.response = Some((Status::SUCCESS, 0));
        Some(Step::Answered(slot))
    }
}

/// A response capsule: nothing more comes for its command.
fn on_response(slots: &mut Slots, completion: &Completion) -> Result<Step, FatalError> {
    let (slot, active) = slots.find(completion.cid.get(), field::RESPONSE_CID)?;
    active.response = Some((completion.status(), completion.result.get()));
    Ok(Step::Answered(slot))
}

/// Checks C2HData (TCP 3.3.2.2): the next bytes of a read, LAST exactly where they end.
fn on_data_header(slots: &mut Slots, pdu: &DataPdu) -> Result<Incoming, FatalError> {
    let (slot, active) = slots.find(pdu.cid, field::CCCID)?;
    if active.direction != Direction::ToHost {
        return Err(FatalError::DataOutOfRange);
    }
    let end = pdu.offset.checked_add(pdu.length).ok_or(FatalError::DataOutOfRange)?;
    if pdu.offset != active.moved || end > active.len {
        return Err(FatalError::DataOutOfRange);
    }
    if pdu.last != (end == active.len) || (pdu.success && !pdu.last) {
        return Err(field::FLAGS);
    }
    let whole = pdu.offset == 0 && end == active.len;
    Ok(Incoming { slot, success: pdu.success, whole })
}

/// Checks an R2T (TCP 3.3.2.3): the next bytes of a write, and only when the R2T before it is
/// answered, for we allow one at a time (MAXR2T 0).
fn on_ready(slots: &mut Slots, pdu: &DataPdu) -> Result<Step, FatalError> {
    let (slot, active) = slots.find(pdu.cid, field::CCCID)?;
    if active.direction != Direction::FromHost || active.in_capsule {
        return Err(FatalError::DataOutOfRange);
    }
    if active.requested.is_some() {
        return Err(FatalError::LimitExceeded);
    }
    if pdu.length == 0 {
        return Err(field::R2TL);
    }
    let end = pdu.offset.checked_add(pdu.length).ok_or(FatalError::DataOutOfRange)?;
    if pdu.offset != active.moved || end > active.len {
        return Err(FatalError::DataOutOfRange);
    }
    active.moved = end;
    active.requested = Some(Requested { ttag: pdu.ttag, at: pdu.offset, end });
    Ok(Step::Requested(slot))
}

/// Checks an ICResp (TCP 3.6.2.3). Digests must be what was asked for: more would be a surprise,
/// fewer would leave data unprotected that its owner wanted protected.
///
/// # Errors
/// Which field is wrong.
pub fn check_ic_resp(
    response: &InitializeConnection,
    asked: Digests,
) -> Result<Negotiated, FatalError> {
    const DATA_BYTES_MIN: u32 = 4096;
    const ALIGNMENT_MAX: u8 = 31;
    if response.pfv.get() != 0 {
        return Err(field::PFV);
    }
    if response.data_alignment > ALIGNMENT_MAX {
        return Err(field::CPDA);
    }
    if response.digest != asked.to_wire() {
        return Err(field::DGST);
    }
    let data_bytes_max = response.limit.get();
    if data_bytes_max < DATA_BYTES_MIN || !data_bytes_max.is_multiple_of(4) {
        return Err(field::MAXH2CDATA);
    }
    let data_alignment = u32::from(response.data_alignment) + 1;
    Ok(Negotiated { digests: asked, data_alignment, data_bytes_max })
}

/// The request that begins a connection: no alignment of our own, one R2T a command.
pub(super) const fn ic_req(digests: Digests) -> InitializeConnection {
    const ONE_R2T: u32 = 0;
    InitializeConnection::new(PduType::IcReq, digests, ONE_R2T)
}
