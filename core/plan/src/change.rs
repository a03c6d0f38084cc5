//! What people asked to be different about a volume that is served.

use crate::observed::Record;
use crate::volume::View;
use crate::{Step, Uuid};

impl View<'_> {
    /// The next change that may be tried now.
    pub(crate) fn change(&self, record: &Record, serving: Uuid) -> Option<Step> {
        if !self.observed.is_reached(&serving, self.now) {
            return None;
        }
        let may =
            |step: &Step| self.ledger().is_none_or(|ledger| ledger.may_change(step, self.now));
        self.size(record, serving).filter(may)
    }

    fn size(&self, record: &Record, serving: Uuid) -> Option<Step> {
        let bytes = self.wanted.bytes;
        (bytes > record.bytes).then_some(Step::Resize { engine: serving, bytes })
    }
}
