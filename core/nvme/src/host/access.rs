//! The ANA log as a host reads it (Base 5.16.1.12): which state the namespaces have on this path.
//!
//! Invariants:
//! 1. What a target tells is bounded before it is kept: a log is at most [`LOG_BYTES_MAX`] long.
//! 2. A log that makes no sense changes nothing.

use alloc::vec::Vec;

use zerocopy::FromBytes;

use super::namespace::NamespaceInfo;
use super::operation::get_log_page;
use crate::ana::{ANA_LOG, AnaDescriptor, AnaHeader, AnaState};
use crate::command::Command;

/// Bytes of a log that we read: 1,024 groups of 1,024 namespaces in all.
const LOG_BYTES_MAX: usize = 64 << 10;
/// Bytes that one command reads.
const PIECE: u32 = 4096;
/// Any namespace.
const NSID_ALL: u32 = u32::MAX;

/// A log as far as it was read.
#[derive(Debug, Default)]
pub(super) struct AccessReader {
    bytes: Vec<u8>,
}

/// What came of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// There is more to read.
    More,
    /// It is here, and was applied.
    Done,
    /// It makes no sense.
    Failed,
}

impl AccessReader {
    /// What to ask next, and how many bytes that brings. The last piece that can be asked for is
    /// read so that the target may give notice of the next change.
    pub(super) fn command(&self) -> (Command, u32) {
        (get_log_page(ANA_LOG, NSID_ALL, self.bytes.len() as u64, PIECE, false), PIECE)
    }

    /// Takes a piece; when the log is here, tells namespaces their states.
    pub(super) fn take(&mut self, piece: &[u8], namespaces: &mut [NamespaceInfo]) -> Read {
        if piece.is_empty() {
            return Read::Failed;
        }
        self.bytes.extend_from_slice(piece);
        let mut found = Vec::new();
        match parse(&self.bytes, &mut found) {
            Parsed::Whole => {
                for namespace in namespaces {
                    let state = found.iter().find(|(nsid, _)| *nsid == namespace.nsid);
                    namespace.access = state.map_or(AnaState::Optimized, |(_, state)| *state);
                }
                Read::Done
            }
            Parsed::Short if self.bytes.len() + PIECE as usize <= LOG_BYTES_MAX => Read::More,
            Parsed::Short | Parsed::Nonsense => Read::Failed,
        }
    }
}

enum Parsed {
    Whole,
    Short,
    Nonsense,
}

/// The states of namespaces by id.
fn parse(bytes: &[u8], found: &mut Vec<(u32, AnaState)>) -> Parsed {
    let Ok((header, mut rest)) = AnaHeader::ref_from_prefix(bytes) else { return Parsed::Short };
    for _ in 0..header.groups.get() {
        let Ok((group, after)) = AnaDescriptor::ref_from_prefix(rest) else {
            return Parsed::Short;
        };
        let Some(state) = AnaState::from_wire(group.state) else { return Parsed::Nonsense };
        let ids = usize::try_from(group.namespaces.get()).unwrap_or(usize::MAX);
        let Some(len) = ids.checked_mul(4).filter(|len| *len <= LOG_BYTES_MAX) else {
            return Parsed::Nonsense;
        };
        let Some((ids, after)) = after.split_at_checked(len) else { return Parsed::Short };
        let ids = ids.as_chunks().0.iter().map(|id: &[u8; 4]| u32::from_le_bytes(*id));
        found.extend(ids.map(|id| (id, state)));
        rest = after;
    }
    Parsed::Whole
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use braid_block::{BlockSize, Geometry};
    use zerocopy::IntoBytes;

    use super::*;

    fn namespace(nsid: u32) -> NamespaceInfo {
        NamespaceInfo {
            nsid,
            geometry: Geometry::of_bytes(1 << 20, BlockSize::B4096),
            nguid: [0; 16],
            eui64: [0; 8],
            uuid: [0; 16],
            write_protected: false,
            thin: false,
            deallocated_reads_zero: false,
            shared: true,
            access: AnaState::Optimized,
        }
    }

    fn log(groups: &[(u32, AnaState, &[u32])]) -> Vec<u8> {
        let mut log = AnaHeader::new(1, groups.len() as u16).as_bytes().to_vec();
        for (id, state, namespaces) in groups {
            let head = AnaDescriptor::new(*id, namespaces.len() as u32, 1, *state);
            log.extend(head.as_bytes());
            namespaces.iter().for_each(|nsid| log.extend(nsid.to_le_bytes()));
        }
        log
    }

    fn states(log: &[u8]) -> (Read, Vec<AnaState>) {
        let mut namespaces = [namespace(1), namespace(2), namespace(7)];
        let mut reader = AccessReader::default();
        let mut pieces = log.chunks(PIECE as usize);
        let read = loop {
            let read = reader.take(pieces.next().unwrap_or_default(), &mut namespaces);
            if read != Read::More {
                break read;
            }
        };
        (read, namespaces.map(|namespace| namespace.access).to_vec())
    }

    #[test]
    fn every_namespace_has_the_state_of_its_group() {
        use AnaState::{Inaccessible, NonOptimized};
        let log = log(&[
            (1, Inaccessible, &[1, 7]),
            (2, NonOptimized, &[2]),
            (3, AnaState::Optimized, &[]),
        ]);
        assert_eq!(states(&log), (Read::Done, vec![Inaccessible, NonOptimized, Inaccessible]));
    }

    #[test]
    fn a_long_log_is_read_in_pieces() {
        let many: Vec<u32> = (8..3000).collect();
        let log = log(&[(1, AnaState::Optimized, &many), (2, AnaState::Change, &[2])]);
        assert_eq!(states(&log).1[1], AnaState::Change);
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        let mut wrong = log(&[(1, AnaState::Inaccessible, &[1])]);
        wrong[16 + 16] = 9;
        assert_eq!(states(&wrong), (Read::Failed, vec![AnaState::Optimized; 3]));
        let mut endless = log(&[(1, AnaState::Inaccessible, &[1])]);
        endless[16 + 4..16 + 8].fill(0xff);
        assert_eq!(states(&endless).0, Read::Failed);
        assert_eq!(states(&[]).0, Read::Failed, "nothing came");
    }
}
