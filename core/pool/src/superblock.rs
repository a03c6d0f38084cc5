//! The superblock in memory, and its way to the device: the main pair first, then the copy.

/// Versions of the superblock that were asked for, and that are on the media.
#[derive(Debug, Default)]
pub(crate) struct Superblocks {
    asked: u64,
    done: u64,
}

impl Superblocks {
    /// Asks that the superblock as it is now is written; tells the number to wait for.
    pub(crate) fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Everything asked for up to this number is on the media.
    pub(crate) const fn done(&self) -> u64 {
        self.done
    }
}
