//! Something that a page holds, as it is now and as the running checkpoint is to write it.
//!
//! Invariants:
//! 1. Between `freeze` and `written`, [`Paged::image`] is the value at the time of the freeze.
//! 2. `lsn` is the newest journal block whose cells both slots on the device hold: replay skips
//!    what is not newer.

use alloc::boxed::Box;

/// A value with a page.
#[derive(Clone, Debug)]
pub(crate) struct Paged<T> {
    value: T,
    /// The value at the freeze, once it was changed after it.
    image: Option<Box<T>>,
    /// As [`Paged::lsn`] tells it.
    lsn: u64,
    /// Changed since the last freeze.
    changed: bool,
    /// Frozen, and not written yet.
    frozen: bool,
    /// The second slot is the worse one: it is to be written first.
    pub(crate) second_first: bool,
}

impl<T: Clone> Paged<T> {
    /// A value that has no page yet.
    pub(crate) const fn new(value: T) -> Self {
        Self::loaded(value, 0)
    }

    /// A value as its page held it.
    pub(crate) const fn loaded(value: T, lsn: u64) -> Self {
        Self { value, image: None, lsn, changed: false, frozen: false, second_first: false }
    }

    /// The value now.
    pub(crate) const fn get(&self) -> &T {
        &self.value
    }

    /// The value, to be changed, and whether this is the first change since the freeze: the
    /// caller then lists the page as changed.
    pub(crate) fn change(&mut self) -> (&mut T, bool) {
        if self.frozen && self.image.is_none() {
            self.image = Some(Box::new(self.value.clone()));
        }
        let first = !core::mem::replace(&mut self.changed, true);
        (&mut self.value, first)
    }

    /// Newest journal block whose cells its page holds.
    pub(crate) const fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Whether a cell of journal block `seq` is not in it yet.
    pub(crate) const fn takes(&self, seq: u64) -> bool {
        seq > self.lsn
    }

    /// Whether its page holds less than it does: it must stay in memory.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.changed || self.frozen
    }

    /// Whether it waits to be written by the running checkpoint.
    pub(crate) const fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Makes the value of now the one that the checkpoint writes.
    pub(crate) fn freeze(&mut self) {
        debug_assert!(!self.frozen, "frozen twice");
        self.frozen = true;
        self.changed = false;
        self.image = None;
    }

    /// What the checkpoint writes.
    pub(crate) fn image(&self) -> &T {
        self.image.as_deref().unwrap_or(&self.value)
    }

    /// What the running checkpoint is to write, if it is to, of a page that goes.
    pub(crate) fn into_image(self) -> Option<T> {
        self.frozen.then(|| self.image.map_or(self.value, |image| *image))
    }

    /// Both slots hold the image, which has all cells up to `lsn`.
    pub(crate) fn written(&mut self, lsn: u64) {
        self.lsn = lsn;
        self.frozen = false;
        self.image = None;
        self.second_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_writes_what_was_there_at_the_freeze() {
        let mut page = Paged::new(1);
        assert!(page.change().1);
        assert!(!page.change().1);
        page.freeze();
        assert_eq!(*page.image(), 1);
        let (value, first) = page.change();
        *value = 2;
        assert!(first, "listed for the next checkpoint");
        assert_eq!((*page.image(), *page.get()), (1, 2));
        page.written(7);
        assert!(page.is_dirty());
        assert!(!page.takes(7) && page.takes(8));
        page.freeze();
        page.written(9);
        assert!(!page.is_dirty());
    }
}
