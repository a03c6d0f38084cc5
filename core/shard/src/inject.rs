//! Faults on purpose: what an operator's test asks a backend to do wrong.

use core::time::Duration;

use crate::note::Operation;

/// One fault: what it hits, what it does, where, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Reads, writes or flushes.
    pub operation: Operation,
    /// What happens to them.
    pub fault: Fault,
    /// First byte of the range it applies to (flushes ignore the range).
    pub offset: u64,
    /// Bytes of the range.
    pub len: u64,
    /// How many operations it hits before it is spent; `u32::MAX`: it never is.
    pub count: u32,
}

impl Injection {
    /// The fault that hits an operation on a range (of a flush: any), if one does; a spent one is
    /// gone.
    pub(crate) fn hit(
        injections: &mut [Self],
        operation: Operation,
        (start, len): (u64, u64),
    ) -> Option<Fault> {
        let hit = injections.iter_mut().find(|injection| {
            let touches = operation == Operation::Flush
                || (start < injection.offset.saturating_add(injection.len)
                    && injection.offset < start.saturating_add(len));
            injection.operation == operation && injection.count > 0 && touches
        })?;
        if hit.count != u32::MAX {
            hit.count -= 1;
        }
        Some(hit.fault)
    }
}

/// What an injected fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails as a device error does.
    Error,
    /// The operation never completes, until the injection is taken back.
    Stall,
    /// The operation completes this much later.
    Delay(Duration),
    /// A byte of the data is flipped.
    Corrupt,
}
