//! What the device says of reads and writes: done means all of it.
//!
//! Invariants:
//! 1. A device that moved fewer bytes than it was asked to, or says that it moved more, has failed
//!    the transfer: nobody takes a part for the whole.

use braid_block::IoError;

/// What came of a transfer of `len` bytes.
pub(crate) const fn whole(result: Result<u32, IoError>, len: u32) -> Result<(), IoError> {
    match result {
        Ok(moved) if moved == len => Ok(()),
        Ok(_) => Err(IoError::Device),
        Err(error) => Err(error),
    }
}

/// Transfers in flight that belong together, and what came of those that are done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transfers {
    in_flight: u32,
    /// Bytes asked for and not told to be moved.
    left: u32,
    /// What went wrong first.
    failure: Option<IoError>,
}

impl Transfers {
    /// One of so many bytes begins.
    pub(crate) const fn begin(&mut self, len: u32) {
        self.in_flight += 1;
        self.left = self.left.wrapping_add(len);
    }

    /// One is done; tells whether it was the last.
    pub(crate) fn end(&mut self, result: Result<u32, IoError>) -> bool {
        self.in_flight -= 1;
        match result {
            Ok(moved) => self.left = self.left.wrapping_sub(moved),
            Err(error) => self.failure = self.failure.or(Some(error)),
        }
        self.in_flight == 0
    }

    /// Transfers that are not done.
    pub(crate) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// What came of all since this was last asked; none of them is in flight.
    pub(crate) fn outcome(&mut self) -> Result<(), IoError> {
        debug_assert_eq!(self.in_flight, 0, "all are done");
        let Self { left, failure, .. } = core::mem::take(self);
        match failure {
            Some(error) => Err(error),
            None => whole(Ok(0), left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;
    use crate::{Failure, Note, Operation, State, token};

    #[test]
    fn a_part_is_not_the_whole() {
        let mut all = Transfers::default();
        for results in [[Ok(4096), Ok(8192)], [Ok(8192), Ok(4096)]] {
            all.begin(8192);
            all.begin(4096);
            assert!(!all.end(results[0]));
            assert!(all.end(results[1]));
            assert_eq!(all.outcome(), Ok(()), "together it is all");
        }
        for moved in [0, 512, 4095, 4097] {
            all.begin(4096);
            assert!(all.end(Ok(moved)));
            assert_eq!(all.outcome(), Err(IoError::Device), "{moved} of 4096 bytes");
        }
        all.begin(4096);
        all.begin(4096);
        assert!(!all.end(Err(IoError::Media)));
        assert!(all.end(Ok(4096)));
        assert_eq!(all.outcome(), Err(IoError::Media));
        assert_eq!(all.outcome(), Ok(()), "told once");
    }

    #[test]
    fn a_short_write_of_data_or_journal_fails_the_pool() {
        for kind in [token::PIECE, token::JOURNAL] {
            let (mut rig, handle) = Rig::new();
            rig.take_ended();
            rig.write(handle, 3, 0x33);
            let at = rig.flying(kind)[0];
            rig.cut_short(at);
            rig.run();
            assert_eq!(rig.pool.state(), State::Failed);
            let failed = |note: &Note| {
                matches!(note, Note::Failed { operation: Operation::Write, error, .. }
                    if *error == IoError::Device)
            };
            assert!(rig.notes.iter().any(failed), "{:?}", rig.notes);
            assert_eq!(rig.take_ended(), [Err(Failure::Failed)]);
        }
    }

    #[test]
    fn a_write_that_failed_is_told_by_its_place_on_the_device() {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 16_384 + 70, 0x33);
        let at = rig.flying(token::PIECE)[0];
        let crate::Effect::Write { offset: place, .. } = rig.effects[at] else { panic!("a write") };
        rig.fail(at, IoError::NoSpace);
        let told = rig.notes.iter().find_map(|note| match note {
            Note::Failed { offset, error, .. } => Some((*offset, *error)),
            _ => None,
        });
        assert_eq!(told, Some((place, IoError::NoSpace)));
    }

    #[test]
    fn a_short_read_is_a_media_error_and_no_more() {
        let (mut rig, handle) = Rig::new();
        rig.write(handle, 3, 0x33);
        rig.run();
        rig.take_ended();
        rig.read(handle, 3);
        let at = rig.flying(token::PIECE)[0];
        rig.cut_short(at);
        rig.read(handle, 3);
        rig.run();
        assert_eq!(rig.take_ended(), [Err(Failure::Media(3 * 4096)), Ok(0x33)]);
        assert_eq!(rig.pool.state(), State::Open);
    }
}
