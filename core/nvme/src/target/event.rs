//! Asynchronous events (Base 5.2): requests that wait for something to tell.
//!
//! Invariants:
//! 1. A notice that the host enabled is never lost: without a request to answer, or masked, it
//!    stays pending.
//! 2. A notice that was reported is masked until its log page is read with RAE cleared; that of
//!    the discovery log also until the last of several parts of it is read.

use arrayvec::ArrayVec;

use super::log;
use crate::Status;
use crate::ana::ANA_LOG;

/// AERL: requests that may wait, 0-based.
pub(crate) const AERL: u8 = 3;
/// Requests that may wait.
pub const EVENT_REQUESTS_MAX: usize = AERL as usize + 1;

/// Something that a controller tells its host unasked. Its value is its bit in OAES and in the
/// Asynchronous Event Configuration feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Notice {
    /// The critical warning of the SMART log: a flush failed, what was written may be lost. It has
    /// no bit in OAES; hosts ask for it by the warning's own.
    Reliability = 1 << 2,
    /// A namespace appeared, vanished or changed.
    NamespaceAttribute = 1 << 8,
    /// The state of a group changed.
    AnaChange = 1 << 11,
    /// There is a reservation notification to be read. It has no bit in either: what hosts hear of
    /// is for the Reservation Notification Mask feature of each namespace to say.
    ReservationLog = 1 << 30,
    /// The discovery log has other content.
    DiscoveryLog = 1 << 31,
}

impl Notice {
    const ALL: [Self; 5] = [
        Self::Reliability,
        Self::NamespaceAttribute,
        Self::AnaChange,
        Self::ReservationLog,
        Self::DiscoveryLog,
    ];

    /// DW0 of the request's completion: type 2:0 (health: 1, notice: 2, of an I/O command set: 6),
    /// information 15:8, log page 23:16.
    const fn result(self) -> u32 {
        let (kind, information, lid) = match self {
            Self::Reliability => (1, 0x00, log::SMART),
            Self::NamespaceAttribute => (2, 0x00, log::CHANGED_NAMESPACES),
            Self::AnaChange => (2, 0x03, ANA_LOG),
            Self::ReservationLog => (6, 0x00, log::RESERVATIONS),
            Self::DiscoveryLog => (2, 0xf0, log::DISCOVERY),
        };
        kind | information << 8 | (lid as u32) << 16
    }

    /// The notice whose log page this is.
    pub(crate) const fn of_log(lid: u8) -> Option<Self> {
        match lid {
            log::SMART => Some(Self::Reliability),
            log::CHANGED_NAMESPACES => Some(Self::NamespaceAttribute),
            ANA_LOG => Some(Self::AnaChange),
            log::RESERVATIONS => Some(Self::ReservationLog),
            log::DISCOVERY => Some(Self::DiscoveryLog),
            _ => None,
        }
    }
}

/// The event requests and the notices of one controller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    /// Command ids of the requests that wait, oldest first.
    requests: ArrayVec<u16, EVENT_REQUESTS_MAX>,
    /// Bits of the notices that wait for a request.
    pending: u32,
    /// Bits of the notices that wait for their log page to be read.
    masked: u32,
}

impl Events {
    /// Keeps a request until there is something to tell.
    pub(crate) fn hold(&mut self, cid: u16) -> Result<(), Status> {
        self.requests.try_push(cid).map_err(|_| Status::ASYNC_EVENT_LIMIT.dnr())
    }

    /// Raises a notice that the host enabled.
    pub(crate) const fn raise(&mut self, notice: Notice) {
        self.pending |= notice as u32;
    }

    /// A request that can be completed now, with its result.
    pub(crate) fn next(&mut self) -> Option<(u16, u32)> {
        let ready = self.pending & !self.masked;
        let notice = Notice::ALL.into_iter().find(|&notice| ready & notice as u32 != 0)?;
        let cid = self.requests.pop_at(0)?;
        self.pending &= !(notice as u32);
        self.masked |= notice as u32;
        Some((cid, notice.result()))
    }

    /// The host read the notice's log page with RAE cleared.
    pub(crate) const fn rearm(&mut self, notice: Notice) {
        self.masked &= !(notice as u32);
    }

    /// Lets go of one request, if it waits here.
    pub(crate) fn abort(&mut self, cid: u16) -> bool {
        let at = self.requests.iter().position(|&held| held == cid);
        at.and_then(|at| self.requests.pop_at(at)).is_some()
    }

    /// Forgets all notices.
    pub(crate) const fn reset(&mut self) {
        self.pending = 0;
        self.masked = 0;
    }

    /// Lets go of all requests.
    pub(crate) fn take(&mut self) -> ArrayVec<u16, EVENT_REQUESTS_MAX> {
        core::mem::take(&mut self.requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_names_its_type_information_and_log_page() {
        assert_eq!(Notice::Reliability.result(), 0x02_00_01);
        assert_eq!(Notice::NamespaceAttribute.result(), 0x04_00_02);
        assert_eq!(Notice::AnaChange.result(), 0x0c_03_02);
        assert_eq!(Notice::ReservationLog.result(), 0x80_00_06);
        assert_eq!(Notice::DiscoveryLog.result(), 0x70_f0_02, "what Linux calls NVME_AEN=0x70f002");
    }

    #[test]
    fn a_request_more_than_aerl_allows_is_refused() {
        let mut events = Events::default();
        for cid in 0..4 {
            assert_eq!(events.hold(cid), Ok(()));
        }
        assert_eq!(events.hold(4), Err(Status::ASYNC_EVENT_LIMIT.dnr()));
    }

    #[test]
    fn a_notice_without_a_request_waits_for_one() {
        let mut events = Events::default();
        events.raise(Notice::DiscoveryLog);
        assert_eq!(events.next(), None);
        events.hold(7).unwrap();
        assert_eq!(events.next(), Some((7, 0x70_f0_02)));
    }

    #[test]
    fn a_reported_notice_is_masked_until_its_log_page_is_read() {
        let mut events = Events::default();
        events.hold(1).unwrap();
        events.hold(2).unwrap();
        events.raise(Notice::NamespaceAttribute);
        assert_eq!(events.next(), Some((1, 0x04_00_02)));
        events.raise(Notice::NamespaceAttribute);
        assert_eq!(events.next(), None, "masked");
        events.rearm(Notice::NamespaceAttribute);
        assert_eq!(events.next(), Some((2, 0x04_00_02)), "but not lost");
    }

    #[test]
    fn an_aborted_request_is_let_go_of_once() {
        let mut events = Events::default();
        events.hold(1).unwrap();
        events.hold(2).unwrap();
        assert!(events.abort(1));
        assert!(!events.abort(1));
        assert_eq!(events.take().as_slice(), [2]);
    }
}
